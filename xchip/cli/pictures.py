"""``xchip plot`` and ``xchip preview``: pictures of an index, and of its chips."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from xchip.cli.index import access_options
from xchip.cli.options import archive_access, archive_of, chained, storage_of, check_writable
from xchip.cli.rows import box_of, filters_of, names_of
from xchip.cli.running import pick

DOTS = 150
"""Pixels of a picture per inch."""

_choice = chained(
    click.option("--bbox", metavar="W,S,E,N", help="Degrees; W above E crosses the antimeridian."),
    click.option(
        "--filter", "filters", multiple=True, metavar="CONDITION",
        help="Such as 'cloud_fraction<=0.1', with = != < <= > >=, of any column; may be repeated.",
    ),
)  # fmt: skip
_output = click.option(
    "-o", "--output", required=True, metavar="FILE", callback=lambda ctx, param, value: _picture_file(value),
    help="The picture: *.png, *.svg, *.pdf or *.jpg.",
)  # fmt: skip


@click.command()
@click.argument("index")
@_output
@click.option("--column", default="cloud_fraction", show_default=True, help="What the colours show: any column.")
@click.option("--outline", default="split", show_default=True, help="Column around whose areas lines are drawn; '' for none.")
@_choice
@archive_access
def plot(index: str, output: str, column: str, outline: str, bbox: str | None, filters: tuple[str, ...], **access: Any) -> None:
    """Draw a map of an index: each chip in the colour of a column.

    INDEX is an archive or an index. More than 20,000 chips are drawn as cells, which show their mean.
    """
    from xchip.indexing.opening.read import read_index
    from xchip.plots.axes import require_matplotlib
    from xchip.plots.index_map import plot as draw

    require_matplotlib()
    storage = storage_of(**access)
    chosen = bbox is not None or filters
    rows = read_index(index, box_of(bbox), filters_of(filters), storage=storage) if chosen else index
    axes = draw(rows, column, outline=outline or None, storage=storage)
    _save(axes.figure, output)


@click.command()
@click.argument("index")
@_output
@click.option("--n", default=16, show_default=True, type=click.IntRange(1, 400), help="How many chips at most.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Which of more chips are shown.")
@click.option("--bands", metavar="NAME,...", help="Three bands, or one.  [default: red,green,blue, else the first]")
@_choice
@access_options
def preview(
    index: str, output: str, n: int, seed: int, bands: str | None, bbox: str | None, filters: tuple[str, ...], **options: Any
) -> None:
    """Draw a sheet of chips of an index, chosen at random, with the share of cloud beneath each.

    INDEX is an archive or an index. Only the chips on the sheet are read.
    """
    from xchip.indexing.opening.read import read_index
    from xchip.plots.axes import require_matplotlib
    from xchip.plots.sheets import preview as draw

    require_matplotlib()
    archive = archive_of(options)
    chosen = bbox is not None or filters
    rows = read_index(index, box_of(bbox), filters_of(filters), storage=archive) if chosen else index
    pixels = storage_of(**pick(options, "endpoint region profile unsigned requester_pays"), signer=options["sign"])
    _save(draw(rows, n=n, seed=seed, bands=names_of(bands), storage=archive, pixels=pixels), output)


def _picture_file(path: str) -> str:
    """The path of a picture, refused before anything is read if it can't be written."""
    if Path(path).suffix.lower() not in (".png", ".svg", ".pdf", ".jpg", ".jpeg"):
        raise click.BadParameter(f"{path!r} is no picture: it ends in .png, .svg, .pdf or .jpg.")
    check_writable(None, None, path)
    return path


def _save(figure: Any, output: str) -> None:
    os.makedirs(Path(output).parent, exist_ok=True)
    figure.savefig(output, dpi=DOTS)
    click.echo(f"written to {output}")
