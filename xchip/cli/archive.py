"""``xchip merge``, ``xchip status``, ``xchip verify``: what is done with archives that are there."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from xchip.cli.options import PROBLEMS, archive_access, show_progress, storage_of, check_writable


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-o", "--output", required=True, callback=check_writable, help="Folder, URL or *.parquet file of the merged index.")
@click.option("--add", is_flag=True, help="Add PATH... to the merged index that is there, in place of making it anew.")
@click.option(
    "--drop",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Leave out rows, such as collection=landsat; without PATH or with --add: of the index that is there. May be repeated.",
)
@click.option("--keep-grids", is_flag=True, help="Keep the rows of an item that was indexed on two grids, which is refused else.")
@click.option(
    "--sort",
    type=click.Choice(["hilbert", "none"]),
    default="hilbert",
    show_default=True,
    help="Order of rows: near ones together, or as they come.",
)
@click.option("--memory", default="1 GB", show_default=True, help="How much memory rows may take.")
@click.option(
    "--chip-size", type=click.IntRange(1), default=256, show_default=True, help="Pixels of a chip in stacchip's tables."
)
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
    """Merge archives and indexes into one index that answers questions of place quickly.

    PATH is an archive, a folder of GeoParquet files, or one such file; stacchip's tables too. An index that is there is replaced
    at once when the new one is complete, and not before.
    """
    if not paths and (add or not drop):
        raise click.UsageError("No sources: give PATH..., or --drop alone to remove rows of the index that is there.")
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
    """Column -> values, of COLUMN=VALUE."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not (column and equals):
            raise click.UsageError(f"--drop is like collection=landsat, got {pair!r}.")
        found.setdefault(column, []).append(value)
    return found


@click.command()
@click.argument("archive")
@click.option("--failures", is_flag=True, help="List every item that failed, and why.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON, for programs.")
@archive_access
@click.pass_context
def status(ctx: click.Context, /, archive: str, failures: bool, as_json: bool, **access: Any) -> None:
    """Show what an archive holds, and what failed and why.

    The exit status is 3 where items failed and have not succeeded since.
    """
    from xchip.indexing.archive.status import status as status_of

    found = status_of(archive, storage_of(**access))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        click.echo("\n".join(_status_lines(found, failures)))
    if found.failed:
        ctx.exit(PROBLEMS)


def _status_lines(found: Any, failures: bool) -> list[str]:
    from xchip.indexing.explain.explanation import as_bytes

    lines = [
        found.path,
        f"  done    {found.parts:,} items, {found.rows:,} chips, {as_bytes(found.size)}",
        f"  failed  {found.failed:,} items",
    ]
    if found.span:
        lines.append(f"  dates   {found.span[0][:10]} to {found.span[1][:10]}")
    for name, (parts, rows) in found.collections.items():
        lines.append(f"  in {name or 'no collection'}: {parts:,} items, {rows:,} chips")
    if found.parameters is not None:
        made = ", ".join(f"{name}={_shown(value)}" for name, value in found.parameters.items() if value is not None)
        lines.append(f"  made with {made}")
    for error, count in found.errors.items():
        rows = found.failures[found.failures["error"] == error]
        lines.append(f"  {count:,} x {error}, such as: {' '.join(rows['message'].iloc[0].split())}")
        if failures:
            lines += [f"    {row.item_id} ({row.attempts} x): {' '.join(row.message.split())}" for row in rows.itertuples()]
    if found.failed and not failures:
        lines.append("  --failures lists them all; the same `xchip index` as before tries them again")
    return lines


def _shown(value: Any) -> str:
    """A parameter; (height, width) as ``256 x 256``."""
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


@click.command()
@click.argument("archive")
@click.option("--deep", is_flag=True, help="Also index the items again, from their files, and compare row by row.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Check N parts only.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which parts --sample takes.")
@archive_access
@click.option("--sign", type=click.Choice(["planetary-computer"]), help="Sign the items' files, for --deep.")
@click.pass_context
def verify(
    ctx: click.Context, /, archive: str, deep: bool, sample: int | None, seed: int, sign: str | None, **access: Any
) -> None:
    """Check that every part of an archive is complete, readable, and consistent with its item.

    Problems are printed one a line; the exit status is 3 where there are any.
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
