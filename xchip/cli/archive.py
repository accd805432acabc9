"""``xchip merge``, ``xchip status`` and ``xchip verify``: work with existing archives."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from xchip.cli.options import PROBLEMS, archive_access, check_writable, show_progress, storage_of

if TYPE_CHECKING:
    from xchip.indexing.archive.status import Status


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-o", "--output", required=True, callback=check_writable, help="Folder, URL or *.parquet file of the merged index.")
@click.option("--add", is_flag=True, help="Add PATH... to the existing index instead of replacing it.")
@click.option(
    "--drop",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Leave out rows, such as collection=landsat; without PATH or with --add, rows of the existing index. Repeatable.",
)
@click.option(
    "--keep-grids", is_flag=True, help="Keep the rows of items that were indexed on two grids, which is an error by default."
)
@click.option(
    "--sort",
    type=click.Choice(["hilbert", "none"]),
    default="hilbert",
    show_default=True,
    help="Order of rows: by location along a Hilbert curve, or unchanged.",
)
@click.option("--memory", default="1 GB", show_default=True, help="Memory limit for rows.")
@click.option("--chip-size", type=click.IntRange(1), default=256, show_default=True, help="Pixels per chip in stacchip's tables.")
@archive_access
def merge(
    paths: tuple[str, ...],
    output: str,
    add: bool,
    drop: tuple[str, ...],
    keep_grids: bool,
    sort: str,
    memory: str,
    chip_size: int,
    **access: Any,
) -> None:
    """Merge archives and indexes into one index that is fast to search by location.

    PATH is an archive, a folder of GeoParquet files, or a GeoParquet file, including stacchip's tables. An existing index is
    replaced only when the new index is complete.
    """
    if not paths and (add or not drop):
        raise click.UsageError("No sources: give PATH..., or --drop alone to remove rows of the existing index.")
    from xchip.indexing.merge.merge import merge_indexes

    merged = merge_indexes(
        paths if paths and not add else None,
        output,
        add=paths if add else None,
        drop=_values(drop) or None,
        sort="hilbert" if sort == "hilbert" else None,
        keep_grids=keep_grids,
        storage=storage_of(**access),
        memory=memory,
        chip_size=chip_size,
        progress=show_progress if sys.stderr.isatty() else False,
    )
    click.echo(f"merged into {merged}")


def _values(pairs: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the values of each column, from COLUMN=VALUE."""
    values: dict[str, list[str]] = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not (column and equals):
            raise click.UsageError(f"--drop takes COLUMN=VALUE, such as collection=landsat, got {pair!r}.")
        values.setdefault(column, []).append(value)
    return values


@click.command()
@click.argument("archive")
@click.option("--failures", is_flag=True, help="List each failed item with its error.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@archive_access
@click.pass_context
def status(ctx: click.Context, /, archive: str, failures: bool, as_json: bool, **access: Any) -> None:
    """Show the contents of an archive, and which items failed and why.

    The exit status is 3 if items failed and have not succeeded since.
    """
    from xchip.indexing.archive.status import status as status_of

    summary = status_of(archive, storage_of(**access))
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=1))
    else:
        click.echo("\n".join(_status_lines(summary, failures)))
    if summary.failed:
        ctx.exit(PROBLEMS)


def _status_lines(summary: Status, failures: bool) -> list[str]:
    from xchip.indexing.explain.explanation import as_bytes

    lines = [
        summary.path,
        f"  done    {summary.parts:,} items, {summary.rows:,} chips, {as_bytes(summary.size)}",
        f"  failed  {summary.failed:,} items",
    ]
    if summary.span:
        lines.append(f"  dates   {summary.span[0][:10]} to {summary.span[1][:10]}")
    for name, (parts, chips) in summary.collections.items():
        lines.append(f"  in {name or 'no collection'}: {parts:,} items, {chips:,} chips")
    if summary.parameters is not None:
        parameters = ", ".join(f"{name}={_text(value)}" for name, value in summary.parameters.items() if value is not None)
        lines.append(f"  made with {parameters}")
    for error, count in summary.errors.items():
        rows = summary.failures[summary.failures["error"] == error]
        lines.append(f"  {count:,} x {error}, such as: {' '.join(rows['message'].iloc[0].split())}")
        if failures:
            records = rows.to_dict("records")
            lines += [f"    {row['item_id']} ({row['attempts']} x): {' '.join(row['message'].split())}" for row in records]
    if summary.failed and not failures:
        lines.append("  --failures lists them all; run the same `xchip index` command to retry them")
    return lines


def _text(value: object) -> str:
    """Return a parameter as text; (height, width) as ``256 x 256``."""
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


@click.command()
@click.argument("archive")
@click.option("--deep", is_flag=True, help="Also index the items again from their files, and compare all rows.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Check only N random parts.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for --sample.")
@archive_access
@click.option("--sign", type=click.Choice(["planetary-computer"]), help="Sign the URLs of the items' files, for --deep.")
@click.pass_context
def verify(
    ctx: click.Context, /, archive: str, deep: bool, sample: int | None, seed: int, sign: str | None, **access: Any
) -> None:
    """Check that every part of an archive is complete, readable, and consistent with its item.

    Problems are printed one per line. The exit status is 3 if there are problems.
    """
    from dataclasses import replace

    from xchip.indexing.archive.status import status as status_of
    from xchip.indexing.archive.verify import verify as problems_of
    from xchip.io.progress import Progress

    storage = storage_of(**access)
    total = status_of(archive, storage).parts
    count = 0
    with Progress(min(total, sample or total), "checked", unit="parts", stream=sys.stderr) as progress:
        for problem in problems_of(
            archive,
            storage,
            deep=deep,
            sample=sample,
            seed=seed,
            pixels=replace(storage, signer=sign),
            on_part=progress.advance,
        ):
            count += 1
            click.echo(str(problem))
    click.echo(f"{min(total, sample or total):,} parts checked, {count:,} problems")
    if count:
        ctx.exit(PROBLEMS)
