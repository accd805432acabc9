"""``xchip sample``, ``xchip split`` and ``xchip audit``: select chips of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xchip.cli.options import PROBLEMS, archive_access, check_writable, show_warning, storage_of


@click.command()
@click.argument("index")
@click.option("-o", "--output", required=True, callback=check_writable, help="Folder, URL or *.parquet file of the chosen chips.")
@click.option("-n", "--number", required=True, type=click.IntRange(0), help="Number of chips.")
@click.option("--by", multiple=True, metavar="COLUMN", help="Column of strata, such as sensor; repeatable.")
@click.option(
    "--weights", metavar="COLUMN", help="Column of weights, such as clear_fraction; the chance of a chip grows with its weight."
)
@click.option("--balanced", is_flag=True, help="Draw the same number of chips from each stratum.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for the choice of chips.")
@archive_access
def sample(
    index: str, output: str, number: int, by: tuple[str, ...], weights: str | None, balanced: bool, seed: int, **access: Any
) -> None:
    """Draw chips of an index, without replacement."""
    from xchip.indexing.files.write import write_index
    from xchip.selection.sample import sample as draw

    drawn = draw(index, number, by=list(by) or None, weights=weights, balanced=balanced, seed=seed, storage=storage_of(**access))
    write_index(drawn, output)
    click.echo(f"{len(drawn):,} chips written to {output}")


@click.command()
@click.argument("index")
@click.option(
    "-o", "--output", required=True, callback=check_writable, help="Folder, URL or *.parquet file of the index with its splits."
)
@click.option(
    "--share",
    multiple=True,
    metavar="NAME=SHARE",
    help="A split and its share of the chips; repeatable.  [default: train=0.8, val=0.1, test=0.1]",
)
@click.option(
    "--by",
    default="block",
    show_default=True,
    metavar="block|time|COLUMN",
    help="Groups to keep in one split: blocks of the Earth, periods, or the values of a column.",
)
@click.option("--polygons", type=click.Path(exists=True), help="Layer of areas with a column `split`, used instead of --by.")
@click.option("--block-km", type=float, default=50.0, show_default=True, help="Approximate height and width of a block.")
@click.option("--buffer-km", type=float, default=1.0, show_default=True, help="Minimum distance between splits.")
@click.option("--gap", metavar="TIME", help="Minimum time between splits, such as 30D; for --by time.")
@click.option("--cut", multiple=True, metavar="DATE", help="First date of the next split; for --by time; repeatable.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for the assignment of blocks.")
@archive_access
def split(
    index: str,
    output: str,
    share: tuple[str, ...],
    by: str,
    polygons: str | None,
    block_km: float,
    buffer_km: float,
    gap: str | None,
    cut: tuple[str, ...],
    seed: int,
    **access: Any,
) -> None:
    """Split an index into separate chips for training, validation and test.

    Chips that are too near to another split get the split "buffer". `xchip audit` measures the distances.
    """
    from xchip.indexing.files.write import write_index
    from xchip.indexing.opening.read import rows_of
    from xchip.selection.inputs import lazy_rows
    from xchip.selection.split import BUFFER, SHARES
    from xchip.selection.split import split as divide

    storage = storage_of(**access)
    layer = None
    if polygons is not None:
        import geopandas

        layer = geopandas.read_file(polygons)
    shares = _shares(share) or None
    parts = divide(
        lazy_rows(index, storage),  # blocks are assigned lazily: the rows are never all in memory
        shares,
        by=by if layer is None else layer,
        block_km=block_km,
        buffer_km=buffer_km,
        gap=gap,
        cuts=list(cut) or None,
        seed=seed,
    )
    write_index(parts, output)
    counts = rows_of(output, ["split"], storage=storage)["split"].value_counts(dropna=False, sort=False)
    for name, count in counts.items():
        click.echo(f"{name if isinstance(name, str) else 'none':8} {count:>12,}")
    click.echo(f"written to {output}")
    empty = [name for name in (SHARES if shares is None else shares) if name not in counts.index]
    if empty and by == "block" and layer is None:  # else all rows were in memory, and `divide` has warned
        if 2 * counts.get(BUFFER, 0) > counts.sum():
            way_out = f"most chips are too near to another split; a --block-km above {block_km:g} puts fewer in the buffer"
        else:
            way_out = f"there are few blocks of {block_km:g} km; a smaller --block-km makes more"
        show_warning(f"no chip is in {' and '.join(empty)}: {way_out}")


def _shares(pairs: tuple[str, ...]) -> dict[str, float]:
    """Return the share of each split, from NAME=SHARE."""
    shares = {}
    for pair in pairs:
        name, _, share = pair.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise click.UsageError(f"--share takes NAME=SHARE, such as train=0.8, got {pair!r}.") from None
    return shares


@click.command()
@click.argument("index")
@click.option("--buffer-km", type=float, default=0.0, show_default=True, help="Minimum distance that splits must have.")
@click.option("--gap", metavar="TIME", help="Ignore pairs of chips that are further apart in time than this, such as 30D.")
@click.option("--column", default="split", show_default=True, help="Column with the splits.")
@click.option("--balance", multiple=True, metavar="COLUMN", help="Column whose balance between splits to report; repeatable.")
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    callback=check_writable,
    help="File for the report as JSON.",
)
@archive_access
@click.pass_context
def audit(
    ctx: click.Context,
    /,
    index: str,
    buffer_km: float,
    gap: str | None,
    column: str,
    balance: tuple[str, ...],
    json_path: str | None,
    **access: Any,
) -> None:
    """Measure how far apart the splits of an index are.

    Distances are exact and cover all chips, without sampling. The exit status is 3 if chips of different splits overlap, touch,
    or are nearer than --buffer-km.
    """
    from xchip.selection.audit import audit as measure

    report = measure(index, buffer_km, gap=gap, column=column, columns=balance, storage=storage_of(**access))
    click.echo(str(report))
    if json_path is not None:
        Path(json_path).write_text(report.to_json() + "\n")
    if not report.ok:
        ctx.exit(PROBLEMS)
