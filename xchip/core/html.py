"""HTML of grids and reports for notebooks: tables and a drawing, without scripts."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from xchip.core.lattice import PixelGrid

if TYPE_CHECKING:
    import pyproj

# Longest and shortest side of the drawing, in screen pixels.
LONGEST, SHORTEST = 220, 16
# Up to this many rows and columns, single chips are visible at that size; beyond, at most MOST_LINES lines are drawn.
MOST_CHIPS = 18
MOST_LINES = 40
# Longest value of a table that stays on one line, in letters.
UNBROKEN = 24
# A number with or without a unit, or a dash for no value. Columns of such values are aligned to the right.
NUMBER = re.compile(r"-|[<~]?-?[\d,]+(\.\d+)?(e[+-]?\d+)?\+?( ?(%|[a-z]{1,3}))?")


class Grid(Protocol):
    """The attributes of a `ChipGrid` that the HTML shows."""

    @property
    def pixels(self) -> PixelGrid: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def stride(self) -> tuple[int, int]: ...
    @property
    def edge(self) -> str: ...
    @property
    def anchor(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
    def __len__(self) -> int: ...


Rows = Iterable[tuple[str, object]]
Table = tuple[Sequence[str], Iterable[Sequence[object]]]


def grid_html(grid: Grid) -> str:
    """Return a `ChipGrid` as HTML: its options, and its chips on the scene. All text is escaped.

    Examples
    --------
    >>> from xchip import ChipGrid
    >>> pixels = PixelGrid("EPSG:32720", (10.0, 0.0, 499980.0, 0.0, -10.0, 6400000.0), (600, 1000))
    >>> grid_html(ChipGrid(pixels, 256)).count("<rect")  # the scene and six chips
    7
    """
    return accessor_html("xchip.ChipGrid", [*_chip_rows(grid), *pixel_rows(grid.pixels)], grid)


# Text has the colour of the page, by the variables of JupyterLab and VS Code or by inheritance, and no background: so it is
# readable in light and dark themes.
_BLOCK = (
    "color:var(--jp-content-font-color1,var(--vscode-editor-foreground,inherit));display:flex;flex-wrap:wrap;gap:24px;"
    "align-items:flex-start;font-size:13px;line-height:1.4"
)
_TABLE = "border-collapse:collapse;margin:0;font-size:inherit;color:inherit"
_QUIET = "opacity:.75"
_CELL = "text-align:left;vertical-align:top;overflow-wrap:anywhere"


def accessor_html(title: str, rows: Rows, grid: Grid | None = None, tables: Iterable[Table] = ()) -> str:
    """Return a title and rows of (name, value) as HTML. All text is escaped.

    Parameters
    ----------
    title, rows
        Heading, and the table below it.
    grid
        A grid to draw beside the rows.
    tables
        (names of columns, rows of values) of each further table, shown below. Columns of numbers are aligned to the right.

    Examples
    --------
    >>> accessor_html("a <b>", [("name", "value")]).count("<b>")
    0
    """
    name_style = f"{_CELL};{_QUIET};font-weight:normal;padding:1px 12px 1px 0;white-space:nowrap"
    cells = "".join(
        f'<tr><th style="{name_style}">{html.escape(str(name))}</th>'
        f'<td style="{_CELL};padding:1px 0">{html.escape(str(value))}</td></tr>'
        for name, value in rows
    )
    drawing = "" if grid is None else f'<div style="flex:none">{_drawing(grid)}</div>'
    below = "".join(f'<div style="flex:1 0 100%;max-width:100%;overflow-x:auto">{_table(*table)}</div>' for table in tables)
    return (
        f'<div style="{_BLOCK}"><div><div style="font-weight:bold;margin-bottom:4px">{html.escape(title)}</div>'
        f'<table style="{_TABLE}"><tbody>{cells}</tbody></table></div>{drawing}{below}</div>'
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    texts = [[str(value) for value in row] for row in rows]
    numbers = [all(NUMBER.fullmatch(text) for text in column) for column in zip(*texts, strict=True)] or [False] * len(names)

    def cell(tag: str, text: str, number: bool, style: str = "") -> str:
        whole = ";white-space:nowrap" if len(text) <= UNBROKEN else ""  # long paths break anywhere, so that tables fit the page
        side = ";text-align:right;font-variant-numeric:tabular-nums" if number else ""
        return f'<{tag} style="{_CELL};padding:2px 16px 2px 0{whole}{side}{style}">{html.escape(text)}</{tag}>'

    line = ";border-bottom:1px solid rgba(128,128,128,.5)"
    head = "".join(cell("th", str(name), number, line) for name, number in zip(names, numbers, strict=True))
    body = "".join(f"<tr>{''.join(map(cell, ['td'] * len(row), row, numbers))}</tr>" for row in texts)
    return f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _chip_rows(grid: Grid) -> list[tuple[str, object]]:
    return [
        ("chips", f"{len(grid):,} ({times(grid.shape)}, chip_y x chip_x)"),
        ("size", f"{times(grid.size)} pixels"),
        ("stride", f"{times(grid.stride)} pixels"),
        ("edge", grid.edge),
        ("anchor", grid.anchor),
    ]


def pixel_rows(pixels: PixelGrid) -> list[tuple[str, object]]:
    """Return (name, value) of the properties of a pixel grid."""
    return [
        ("scene", f"{times(pixels.shape)} pixels (height x width)"),
        ("pixel size", f"{times(pixels.res)} {unit_of(pixels.crs)}"),
        ("CRS", _crs_label(pixels.crs)),
        ("bounds", ", ".join(f"{value:.12g}" for value in pixels.bounds)),
    ]


def unit_of(crs: str | pyproj.CRS) -> str:
    """Return the unit of a CRS's first axis, short for metres and degrees; "CRS units" if PROJ does not know the CRS.

    Examples
    --------
    >>> unit_of("EPSG:32720"), unit_of("EPSG:4326"), unit_of("EPSG:2263"), unit_of("mine")
    ('m', '°', 'US survey foot', 'CRS units')
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        axes = CRS(crs).axis_info
    except CRSError:
        return "CRS units"
    unit = axes[0].unit_name if axes else "CRS units"
    return {"metre": "m", "degree": "°"}.get(unit, unit)


def times(pair: tuple[float, float]) -> str:
    """Return a pair as text, such as "256 x 256"."""
    return " x ".join(f"{value:.12g}" for value in pair)


def _crs_label(crs: str) -> str:
    """The CRS's code, or the name at the start of its WKT."""
    name = re.match(r'\s*\w+\["([^"]*)"', crs)
    label = f"{name[1]} (no code)" if name else crs
    return label if len(label) <= 80 else f"{label[:79]}…"


def _drawing(grid: Grid) -> str:
    """The scene and its chips as inline SVG, in at most a few hundred elements for any number of chips."""
    (_, rows, heights), (_, columns, widths) = grid.rows, grid.columns
    (height, width), (res_y, res_x) = grid.pixels.shape, grid.pixels.res
    top, left = min([0, *rows.tolist()]), min([0, *columns.tolist()])
    bottom, right = max([height, *(rows + heights).tolist()]), max([width, *(columns + widths).tolist()])
    scale = LONGEST / max((bottom - top) * res_y, (right - left) * res_x)
    # A long and narrow scene is drawn wider than it is.
    tall, wide = (max(SHORTEST, length * scale) for length in ((bottom - top) * res_y, (right - left) * res_x))
    down, across = tall / (bottom - top), wide / (right - left)

    def rect(y: float, x: float, height: float, width: float, style: str) -> str:
        corner = f'x="{1 + (x - left) * across:.1f}" y="{1 + (y - top) * down:.1f}"'
        return f'<rect {corner} width="{width * across:.1f}" height="{height * down:.1f}" {style}/>'

    chip = 'fill="#3b82c4" fill-opacity=".22" stroke="#3f86c6" stroke-width=".7"'
    note = ""
    if not len(grid) or max(grid.shape) <= MOST_CHIPS:
        shapes = [
            rect(int(y), int(x), int(h), int(w), chip)
            for y, h in zip(rows, heights, strict=True)
            for x, w in zip(columns, widths, strict=True)
        ]
    else:
        every_y, every_x = (-(-n // MOST_LINES) for n in grid.shape)
        first_y, first_x, last_y, last_x = rows.min(), columns.min(), (rows + heights).max(), (columns + widths).max()
        shapes = [rect(int(first_y), int(first_x), int(last_y - first_y), int(last_x - first_x), chip)]
        lines = [
            f"M{1 + (first_x - left) * across:.1f} {1 + (y - top) * down:.1f}h{(last_x - first_x) * across:.1f}"
            for y in rows[::every_y]
        ]
        lines += [
            f"M{1 + (x - left) * across:.1f} {1 + (first_y - top) * down:.1f}v{(last_y - first_y) * down:.1f}"
            for x in columns[::every_x]
        ]
        shapes.append(f'<path d="{"".join(lines)}" stroke="#3f86c6" stroke-width=".5"/>')
        steps = [f"{step} {name}" for step, name in ((every_y, "rows"), (every_x, "columns")) if step > 1]
        note = f"a line every {' and '.join(steps)} of chips" if steps else ""
    scene = rect(0, 0, height, width, 'fill="none" stroke="currentColor" stroke-width="1.2"')
    caption = f'<div style="{_QUIET};font-size:11px">{note}</div>' if note else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide + 2:.0f}" height="{tall + 2:.0f}" role="img" '
        f'aria-label="chips on the scene">{"".join(shapes)}{scene}</svg>{caption}'
    )
