"""``xchip series``: one place through time."""

from __future__ import annotations

import json
from typing import Any

import click

from xchip.cli.index import limit_options
from xchip.cli.options import archive_access, storage_of, check_writable
from xchip.cli.running import pick

_LIMITS = "max_nodata max_defective max_cloud max_shadow max_snow max_water min_clear"


@click.command()
@click.argument("index")
@click.option("-o", "--output", required=True, callback=check_writable, help="Folder, URL or *.parquet file of the sequences.")
@click.option("--window", metavar="TIME", help="One chip of each 30D, month, quarter, year, or '2 months'.  [default: all dates]")
@click.option("--edge", "edges", multiple=True, metavar="DATE", help="In place of --window: where periods begin and end; repeat.")
@click.option("--start", metavar="DATE", help="Only dates from then on; periods begin there.")
@click.option("--end", metavar="DATE", help="Only dates before.")
@click.option("--length", type=click.IntRange(1), help="Number of steps of a sequence.")
@click.option("--min-steps", type=click.IntRange(1), help="Leave out places with fewer.  [default: --length, or 1]")
@click.option(
    "--choose",
    type=click.Choice(["clear", "cloud", "centre", "first", "last"]),
    default="clear",
    show_default=True,
    help="Which of several: most clear pixels, least cloud, nearest to the period's centre, first, last.",
)
@limit_options
@click.option("--same-time", metavar="TIME", default="60s", show_default=True, help="Dates so near are one acquisition.")
@click.option("--baseline", metavar="COLUMN", help="Column of the processing baseline, in place of what ids tell.")
@archive_access
def series(index: str, output: str, window: str | None, edges: tuple[str, ...], **options: Any) -> None:
    """Join the chips of each place into a sequence of dates.

    INDEX is an archive or an index that was made with --anchor crs. Of chips of one acquisition, from overlapping tiles or
    reprocessed products, the one of the newest baseline is taken, then the one with the most clear pixels.
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
