"""``xchip plot`` and ``xchip preview``: draw an index and its chips."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from xchip.cli.index import access_options
from xchip.cli.options import archive_access, archive_of, check_writable, storage_of
from xchip.cli.rows import box_of, condition_options, filters_of, names_of
from xchip.cli.running import pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS = 150
"""Pixels of a picture per inch."""

_output = click.option(
    "-o", "--output", required=True, metavar="FILE", callback=lambda ctx, param, value: _picture_file(value),
    help="File of the picture: *.png, *.svg, *.pdf or *.jpg.",
)  # fmt: skip


@click.command()
@click.argument("index")
@_output
@click.option("--column", default="cloud_fraction", show_default=True, help="Column that the colours show.")
@click.option("--outline", default="split", show_default=True, help="Column whose areas are outlined; '' for no outlines.")
@condition_options
@archive_access
def plot(index: str, output: str, column: str, outline: str, bbox: str | None, filters: tuple[str, ...], **access: Any) -> None:
    """Draw a map of an index: each chip in the colour of a column.

    INDEX is an archive or an index. More than 20,000 chips are drawn as cells with the mean of their chips.
    """
    from xchip.indexing.opening.read import read_index
    from xchip.plots.axes import require_matplotlib
    from xchip.plots.index_map import plot as draw

    require_matplotlib()
    storage = storage_of(**access)
    chosen = bbox is not None or filters
    rows = read_index(index, box_of(bbox), filters_of(filters), storage=storage) if chosen else index
    axes = draw(rows, column, outline=outline or None, storage=storage)
    _save(cast("Figure", axes.figure), output)


@click.command()
@click.argument("index")
@_output
@click.option("--n", default=16, show_default=True, type=click.IntRange(1, 400), help="Maximum number of chips.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed for the choice of chips.")
@click.option("--bands", metavar="NAME,...", help="Three bands, or one band.  [default: red,green,blue, else the first]")
@condition_options
@access_options
def preview(
    index: str, output: str, n: int, seed: int, bands: str | None, bbox: str | None, filters: tuple[str, ...], **options: Any
) -> None:
    """Draw a sheet of random chips of an index, with the cloud fraction below each chip.

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
    """Return the path of a picture, checked before anything is read."""
    if Path(path).suffix.lower() not in (".png", ".svg", ".pdf", ".jpg", ".jpeg"):
        raise click.BadParameter(f"{path!r} is not a picture; use a name that ends in .png, .svg, .pdf or .jpg.")
    check_writable(None, None, path)
    return path


def _save(figure: Figure, output: str) -> None:
    os.makedirs(Path(output).parent, exist_ok=True)
    figure.savefig(output, dpi=DOTS)
    click.echo(f"written to {output}")
