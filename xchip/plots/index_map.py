"""`plot`: draw a map of an index. It needs matplotlib, which the extra ``plot`` installs.

Without ``ax``, it draws on a plain `matplotlib.figure.Figure`, which needs no display and has no global state. If pyplot is
already imported, or in IPython and notebooks, it makes the figure with pyplot, so that the figure is shown like any other.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from xchip.core.html import unit_of
from xchip.core.types import IndexLike
from xchip.plots.axes import (
    EDGE,
    GREY,
    PALE,
    draw_colorbar,
    draw_legend,
    label_axes,
    missing_handle,
    require_matplotlib,
    settle,
    shortened,
    title_of,
)
from xchip.plots.density import DensityGrid, cells_of, inner_border
from xchip.plots.palette import FRACTIONS, SET_ASIDE, Categories, categories_of, is_category, numbers_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from xchip.io.storage import StorageOptions

MOST_OUTLINES = 20_000
"""Largest number of parts of chips that are drawn individually, within two seconds; more are aggregated into cells."""
WITH_EDGES = 5_000
"""Largest number of parts with lines around them."""

_PLACE = ("item_id", "datetime", "proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top", "geometry")


def plot(
    index: IndexLike,
    column: str = "cloud_fraction",
    *,
    outline: str | None = "split",
    ax: Axes | None = None,
    cmap: str | Colormap | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    title: str | None = None,
    colorbar: bool = True,
    storage: StorageOptions | None = None,
) -> Axes:
    """Draw a map of an index: each chip in the colour of ``column``. Chips without a value are grey and hatched.

    If all rows share a CRS, chips are drawn as rectangles in it, otherwise as footprints in longitude and latitude. Footprints on
    both sides of the antimeridian are drawn side by side, with western longitudes shifted by 360°. Where chips of several scenes
    overlap, the last row with a value is on top. More than 20,000 chips are aggregated into square cells, 600 across the map,
    which show the mean or the most frequent category of their chips; the title notes this.

    Parameters
    ----------
    index
        An index: a path or a list of paths, a GeoDataFrame, a pyarrow Table, or a lazy frame (it is computed).
    column
        Column to show: numbers (fractions as percentages, 0 to 100 %), dates, or categories. Of more than ten categories the nine
        most frequent have their own colour.
    outline
        Column of few values, whose areas get outlines; by default the splits, if the index has a column ``split``. None: no
        outlines.
    ax
        Axes to draw on; default: a new figure.
    cmap, vmin, vmax
        Colour map and range of numbers.
    title
        Title of the map; by default the item and its date if there is a single item, and the number of chips.
    colorbar
        Whether to draw the colour bar, or the legend of categories.
    storage
        How to reach a URL.

    Returns
    -------
    matplotlib.axes.Axes
        Save the map with ``ax.figure.savefig("index.png")``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the index lacks the column.

    Examples
    --------
    >>> import xchip.testing
    >>> index = xchip.testing.synthetic_stack(shape=(512, 512)).chips.index(64)
    >>> plot(index).get_xlabel()
    'easting (km), EPSG:32719'
    """
    require_matplotlib()
    from xchip.indexing.opening.read import column_names

    if outline == column:
        outline = None
    frame = columns_of(index, [*_PLACE, column, *([outline] if outline else [])], storage)
    for name in (column, outline):
        if name is not None and name not in frame.columns and name != "split":
            raise ValueError(f"the index has no column {name!r}; it has {', '.join(column_names(index, storage=storage))}")
    if column not in frame.columns:
        raise ValueError(f"the index has no column {column!r} yet: xchip.split makes it")
    places = places_of(frame)
    new_figure, ax = ax is None, _new_axes(places) if ax is None else ax
    places.set_up(ax)
    values, picture, handles = frame[column], None, list["Artist"]()
    categories = categories_of(values, cmap) if is_category(values) else None
    if categories is not None:
        handles += _draw_categories(ax, places, categories)
    else:
        picture = _draw_numbers(ax, places, values, cmap, vmin, vmax)
    if outline in frame.columns:
        handles += _draw_lines(ax, places, categories_of(frame[outline].where(frame[outline] != SET_ASIDE)))
    if _draw_missing(ax, places, values.isna().to_numpy(bool)[places.owner]):
        handles.append(missing_handle(column, hatched=places.cells is None))
    if colorbar:
        if picture is not None and values.notna().any():
            draw_colorbar(ax, picture, values)
        draw_legend(ax, handles)
    heading = title_of(frame) if title is None else title
    ax.set_title("\n".join(filter(None, [heading, places.note(categories is not None)])), loc="left", fontsize="medium")
    if new_figure:
        settle(cast("Figure", ax.figure))
    return ax


def columns_of(index: IndexLike, wanted: Sequence[str], storage: StorageOptions | None = None) -> pd.DataFrame:
    """Return the rows of an index with the ``wanted`` columns that it has."""
    from xchip.indexing.opening.read import column_names, rows_of

    present = set(column_names(index, storage=storage))
    return rows_of(index, [name for name in dict.fromkeys(wanted) if name in present], storage=storage)


# --- positions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ChipPositions:
    """Positions of the chips of an index on a map."""

    crs: str
    """CRS of the map: that of the chips if they share one, otherwise longitude and latitude."""
    boxes: np.ndarray
    """float64 (parts, 4): left, bottom, right, top of each part of a chip; up to 360° on maps across the antimeridian."""
    owner: np.ndarray
    """Row of each part; footprints across the antimeridian have two parts."""
    shapes: np.ndarray | None
    """The parts as shapely polygons, if chips are footprints; None for rectangles."""
    cells: DensityGrid | None
    """Cells that replace many chips."""

    @property
    def corners(self) -> Sequence[np.ndarray]:
        """Corner coordinates (n, 2) of each part."""
        import shapely

        if self.shapes is None:
            left, bottom, right, top = self.boxes.T
            return list(np.stack([left, bottom, right, bottom, right, top, left, top], axis=1).reshape(-1, 4, 2))
        points, part = shapely.get_coordinates(shapely.get_exterior_ring(self.shapes), return_index=True)
        return np.split(points, np.flatnonzero(np.diff(part)) + 1) if len(self.shapes) else []

    def set_up(self, ax: Axes) -> None:
        """Label the axes and set their limits."""
        from pyproj import CRS

        crs = CRS(self.crs)
        label_axes(ax, crs, self.crs)
        if not len(self.boxes):
            return
        (left, bottom), (right, top) = self.boxes[:, :2].min(axis=0), self.boxes[:, 2:].max(axis=0)
        ax.set(xlim=(left, right), ylim=(bottom, top))
        if crs.is_geographic:
            if right > 180:
                ax.xaxis.set_major_formatter(lambda value, _: _longitude(value))
            ax.set_aspect(1 / max(0.05, math.cos(math.radians((bottom + top) / 2))))

    def note(self, categories: bool) -> str:
        """Return a note on cells or hidden chips, or an empty text."""
        if self.cells is not None:
            size, unit = self.cells.size, unit_of(self.crs)
            size, unit = (size / 1000, "km") if unit == "m" else (size, unit)
            space = "" if unit == "°" else " "
            return f"as cells of {size:.2g}{space}{unit} ({'most frequent' if categories else 'mean of the chips'})"
        hidden = len(self.boxes) - len(np.unique(self.boxes[:, [0, 3]], axis=0))
        return f"{hidden:,} of them hidden below others at the same place" if hidden else ""


def places_of(frame: pd.DataFrame) -> ChipPositions:
    """Return the positions of rows."""
    import shapely

    codes = frame["proj_code"].dropna().unique()
    if len(codes) == 1:
        boxes = np.stack([frame[f"proj_{edge}"].to_numpy(np.float64) for edge in ("left", "bottom", "right", "top")], axis=1)
        crs, owner, parts = str(codes[0]), np.arange(len(frame)), None
    else:
        shapes = frame["geometry"].to_numpy()
        if len(shapes) and isinstance(shapes[0], bytes):
            shapes = shapely.from_wkb(shapes)
        parts, owner = shapely.get_parts(shapes, return_index=True)
        parts = _side_by_side(parts)
        crs, boxes = "EPSG:4326", shapely.bounds(parts).reshape(-1, 4)
    cells = cells_of(boxes) if len(boxes) > MOST_OUTLINES else None
    return ChipPositions(crs, boxes, owner, parts, cells)


def _longitude(value: float) -> str:
    """Format a longitude that may exceed 180°."""
    return f"{value - 360 if value > 180 else value:.6g}".replace("-", "\N{MINUS SIGN}")  # as matplotlib does for latitudes


def _side_by_side(parts: np.ndarray) -> np.ndarray:
    """Shift shapes west of Greenwich by 360° if that makes the map less than half as wide."""
    import shapely

    left, _, right, _ = shapely.bounds(parts).reshape(-1, 4).T
    west = right <= 0
    if not west.any() or west.all():
        return parts
    turn = 360 * west
    if 2 * ((right + turn).max() - (left + turn).min()) >= right.max() - left.min():
        return parts
    parts = parts.copy()
    parts[west] = shapely.transform(parts[west], lambda points: np.add(points, [360, 0]))
    return parts


# --- drawing ----------------------------------------------------------------------------------------------------------


def _draw_numbers(
    ax: Axes, places: ChipPositions, values: pd.Series, cmap: str | Colormap | None, vmin: float | None, vmax: float | None
) -> ScalarMappable:
    """Draw chips or cells in the colours of their numbers; return the artist for the colour bar."""
    numbers, fraction = numbers_of(values), str(values.name).endswith("_fraction")
    valid = ~np.isnan(numbers)[places.owner]
    picture: ScalarMappable
    if places.cells is None:
        picture = _polygons(ax, places, valid)
        picture.set_array(numbers[places.owner[valid]])
    else:
        picture = _image(ax, places.cells, np.ma.masked_invalid(places.cells.mean(numbers[places.owner])))
    picture.set_cmap(cmap or FRACTIONS.get(str(values.name), "viridis"))
    picture.set_clim(0 if fraction and vmin is None else vmin, 1 if fraction and vmax is None else vmax)
    return picture


def _draw_categories(ax: Axes, places: ChipPositions, paint: Categories) -> list[Artist]:
    """Draw chips or cells in the colours of their categories; return the handles of a legend."""
    import matplotlib.colors
    from matplotlib.patches import Patch

    codes = paint.codes[places.owner]
    colours = np.array([matplotlib.colors.to_rgba(colour) for colour in paint.colours]).reshape(-1, 4)
    if places.cells is None:
        _polygons(ax, places, codes >= 0).set_facecolor(colours[codes[codes >= 0]])
    else:
        most = places.cells.most(codes, len(colours))
        _image(ax, places.cells, np.concatenate([colours, np.zeros((1, 4))])[most])
    return [Patch(facecolor=colour, label=shortened(name, 24)) for name, colour in zip(paint.names, paint.colours, strict=True)]


def _draw_missing(ax: Axes, places: ChipPositions, missing: np.ndarray) -> bool:
    """Mark parts without a value, below all others; return whether a mark is visible."""
    if not missing.any():
        return False
    if places.cells is None:
        _polygons(ax, places, missing).set(facecolor=PALE, edgecolor=GREY, hatch="////", zorder=0.5)
        corners = places.boxes[:, [0, 3]]
        return len(np.unique(corners, axis=0)) > len(np.unique(corners[~missing], axis=0))
    from matplotlib.colors import to_rgba

    empty = (np.rint(places.cells.total(where=missing)) > 0) & (np.rint(places.cells.total(where=~missing)) == 0)
    _image(ax, places.cells, empty[..., None] * np.array(to_rgba(GREY)))
    return bool(empty.any())


def _polygons(ax: Axes, places: ChipPositions, mask: np.ndarray) -> PolyCollection:
    from matplotlib.collections import PolyCollection

    corners, line = places.corners, 0.5 if len(places.boxes) <= WITH_EDGES else 0.0
    chips = PolyCollection([corners[part] for part in np.flatnonzero(mask).tolist()], edgecolor=EDGE, linewidth=line)
    ax.add_collection(chips)
    return chips


def _image(ax: Axes, cells: DensityGrid, values: np.ndarray) -> AxesImage:
    """Draw cells without changing the limits of the axes."""
    xlim, ylim, aspect = ax.get_xlim(), ax.get_ylim(), ax.get_aspect()
    picture = ax.imshow(values, extent=cells.extent, interpolation="nearest", aspect=aspect)
    ax.set(xlim=xlim, ylim=ylim, aspect=aspect)
    return picture


def _draw_lines(ax: Axes, places: ChipPositions, paint: Categories) -> list[Artist]:
    """Draw lines along the inside of each category's area, so that neighbouring lines lie side by side; return handles."""
    import matplotlib.colors
    import shapely
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    codes = paint.codes[places.owner]
    if places.cells is not None:
        most = places.cells.most(codes, len(paint.names))
        lines = np.zeros((*places.cells.shape, 4))
        for code, colour in enumerate(paint.colours):
            lines[inner_border(most == code)] = matplotlib.colors.to_rgba(colour)
        _image(ax, places.cells, lines).set_zorder(3)
    else:
        shapes = shapely.box(*places.boxes.T) if places.shapes is None else places.shapes
        inset = 0.03 * float(np.median(places.boxes[:, 2] - places.boxes[:, 0])) if len(places.boxes) else 0.0
        for code, colour in enumerate(paint.colours):
            area = shapely.union_all(shapes[codes == code]).buffer(-inset, join_style="mitre")
            rings = [shapely.get_coordinates(ring) for ring in shapely.get_parts(shapely.boundary(area))]
            ax.add_collection(LineCollection(rings, colors=[colour], linewidths=1.6, zorder=3))
    return [
        Line2D([], [], color=colour, linewidth=1.6, label=shortened(name, 24))
        for name, colour in zip(paint.names, paint.colours, strict=True)
    ]


def _new_axes(places: ChipPositions) -> Axes:
    """Return axes on a new figure, whose size fits the map; notebooks show it."""
    from matplotlib.figure import Figure

    ratio = 1.0
    if len(places.boxes):
        width, height = places.boxes[:, 2:].max(axis=0) - places.boxes[:, :2].min(axis=0)
        ratio = float(np.clip(width / height if height else 1, 0.5, 2))
    figsize = (max(4.6, 4.6 * ratio + 2), 6.0) if ratio <= 1.3 else (8.0, 6 / ratio + 1.8)
    ipython = sys.modules.get("IPython")
    interactive = ipython is not None and ipython.get_ipython() is not None
    if "matplotlib.pyplot" in sys.modules or interactive:
        import matplotlib.pyplot

        return matplotlib.pyplot.subplots(figsize=figsize, layout="constrained")[1]
    return Figure(figsize=figsize, layout="constrained").subplots()
