"""``xchip series``: sequences of chips of one place through time."""

from __future__ import annotations

import json
from typing import Any

import click

from xchip.cli.index import limit_options
from xchip.cli.options import archive_access, check_writable, storage_of
from xchip.cli.running import pick

_LIMITS = "max_nodata max_defective max_cloud max_shadow max_snow max_water min_clear"


@click.command()
@click.argument("index")
@click.option("-o", "--output", required=True, callback=check_writable, help="Folder, URL or *.parquet file of the sequences.")
@click.option(
    "--window", metavar="TIME", help="Period with one chip: 30D, month, quarter, year, or '2 months'.  [default: keep all dates]"
)
@click.option("--edge", "edges", multiple=True, metavar="DATE", help="Begin or end of a period, instead of --window; repeatable.")
@click.option("--start", metavar="DATE", help="First date; periods start on it.")
@click.option("--end", metavar="DATE", help="End of the dates, exclusive.")
@click.option("--length", type=click.IntRange(1), help="Number of steps per sequence.")
@click.option("--min-steps", type=click.IntRange(1), help="Leave out places with fewer steps.  [default: --length, or 1]")
@click.option(
    "--choose",
    type=click.Choice(["clear", "cloud", "centre", "first", "last"]),
    default="clear",
    show_default=True,
    help="Chip to keep in a period: most clear pixels, least cloud, nearest to the centre of the period, first, or last.",
)
@limit_options
@click.option("--same-time", metavar="TIME", default="60s", show_default=True, help="Chips within this time are one acquisition.")
@click.option("--baseline", metavar="COLUMN", help="Column of the processing baseline.  [default: read it from the item ids]")
@archive_access
def series(index: str, output: str, window: str | None, edges: tuple[str, ...], **options: Any) -> None:
    """Join the chips of each place into a sequence of dates.

    INDEX is an archive or an index that was made with --anchor crs. Overlapping tiles and reprocessed products give several
    chips of one acquisition; the chip with the newest baseline is kept, then the chip with the most clear pixels.
    """
    from xchip.indexing.files.write import write_index
    from xchip.selection.series import SERIES_ATTRIBUTE
    from xchip.selection.series import series as join

    if window is not None and edges:
        raise click.UsageError("--window and --edge exclude each other.")
    rows = join(
        index,
        window=list(edges) or window,
        **pick(options, f"start end length min_steps choose same_time baseline {_LIMITS}"),
        storage=storage_of(**pick(options, "endpoint region profile unsigned")),
    )
    write_index(rows, output)
    facts = json.loads(rows.attrs[SERIES_ATTRIBUTE])
    click.echo("{places:,} places of up to {steps:,} steps, {kept:,} of {chips:,} chips, written to {}".format(output, **facts))
    for reason, chips in facts["left_out"].items():
        if chips:
            click.echo(f"{reason:14} {chips:>12,} left out")
