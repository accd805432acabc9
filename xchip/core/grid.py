"""The grid of chips of a scene: geometry only, no pixel is read."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import numpy as np

from xchip.core.footprints import Rects, cover, footprints
from xchip.core.html import grid_html
from xchip.core.lattice import LATTICE_TOLERANCE, Alignment, AxisMap, PixelGrid, alignment

if TYPE_CHECKING:
    import pyproj
    import shapely

__all__ = [
    "LATTICE_TOLERANCE",
    "Alignment",
    "AxisMap",
    "Chip",
    "ChipGrid",
    "GridOptions",
    "Pair",
    "PixelGrid",
    "Size",
    "alignment",
    "chip_grid",
    "proj_code",
]

Edge = Literal["drop", "pad", "shift", "partial"]
Anchor = Literal["origin", "crs"]
EDGES: tuple[Edge, ...] = ("drop", "pad", "shift", "partial")
ANCHORS: tuple[Anchor, ...] = ("origin", "crs")

Pair: TypeAlias = int | tuple[int, int]
"""A number of pixels, or (height, width)."""
Size: TypeAlias = "Pair | ChipGrid"
"""Size of chips: a number of pixels, (height, width), or a `ChipGrid`."""


class GridOptions(TypedDict, total=False):
    """Keywords of a grid of chips besides the size; see `ChipGrid`."""

    stride: Pair | None
    edge: Edge
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip of a grid."""

    chip_index_y: int
    """Position downwards in the grid."""
    chip_index_x: int
    """Position to the right in the grid."""
    row_off: int
    """First row on the scene's grid; outside the grid only with ``edge="pad"``."""
    col_off: int
    """First column on the scene's grid."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    bounds: tuple[float, float, float, float]
    """(left, bottom, right, top) in CRS units."""


@dataclass(frozen=True)
class ChipGrid:
    """The chips of a scene: windows of ``size`` pixels every ``stride`` pixels.

    A frozen value; iteration gives each `Chip` once, row by row, and ``len`` counts them.

    Raises
    ------
    ValueError
        If the size or stride is below one pixel, ``edge`` or ``anchor`` is unknown, or ``edge="shift"`` is combined with
        ``anchor="crs"`` (a shifted chip would leave the common cells).

    Examples
    --------
    >>> pixels = PixelGrid("EPSG:32720", (10.0, 0.0, 499980.0, 0.0, -10.0, 6400000.0), (600, 1000))
    >>> grid = ChipGrid(pixels, size=256)
    >>> grid.shape, len(grid)
    ((2, 3), 6)
    >>> ChipGrid(pixels, size=256, edge="pad").shape
    (3, 4)
    """

    pixels: PixelGrid
    """The scene's pixel lattice."""
    size: tuple[int, int]
    """(height, width) of a chip, in pixels; an int makes a square."""
    stride: tuple[int, int] = None  # type: ignore[assignment]  # __post_init__ replaces None by size
    """(y, x) pixels between the first pixels of neighbours; None: ``size``."""
    edge: Edge = "drop"
    """Rule for chips at the border: "drop", "pad", "shift" or "partial"."""
    anchor: Anchor = "origin"
    """Where the chips begin: at the scene's upper left pixel ("origin") or at the CRS's origin ("crs")."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _pair(self.size, "size"))
        object.__setattr__(self, "stride", self.size if self.stride is None else _pair(self.stride, "stride"))
        if self.edge not in EDGES:
            raise ValueError(f"edge must be one of {EDGES}, got {self.edge!r}")
        if self.anchor not in ANCHORS:
            raise ValueError(f"anchor must be one of {ANCHORS}, got {self.anchor!r}")
        if self.edge == "shift" and self.anchor == "crs":
            raise ValueError('edge="shift" moves chips off the cells that anchor="crs" shares; use "drop", "pad" or "partial"')

    @property
    def options(self) -> dict[str, Any]:
        """size, stride, edge and anchor, which make the same grid on another scene."""
        return {"size": self.size, "stride": self.stride, "edge": self.edge, "anchor": self.anchor}

    def on(self, pixels: PixelGrid) -> ChipGrid:
        """Return a grid with the same options on another scene."""
        return ChipGrid(pixels, **self.options)

    @property
    def phase(self) -> tuple[float, float]:
        """(y, x): offset of the lattice from the CRS's origin, in [0, resolution), CRS units; y counts downwards."""
        (res_y, res_x), (_, _, left, _, _, top) = self.pixels.res, self.pixels.transform
        return _phase(-top, res_y), _phase(left, res_x)

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(chip_index_y, row_off, height), int64 arrays, one value per row of chips."""
        return self._axis(0)

    @cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(chip_index_x, col_off, width), int64 arrays, one value per column of chips."""
        return self._axis(1)

    def _axis(self, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n, size, stride = self.pixels.shape[axis], self.size[axis], self.stride[axis]
        lead = 0  # pixels from the start of cell `first` to the scene's first pixel
        first = 0
        if self.anchor == "crs":
            res = self.pixels.res[axis]
            start = self.pixels.transform[2] if axis else -self.pixels.transform[5]
            pixel = round((start - self.phase[axis]) / res)
            first, lead = divmod(pixel, stride)
        return _cut(n, size, stride, self.edge, first=first, lead=lead)

    @property
    def shape(self) -> tuple[int, int]:
        """(chip_y, chip_x): number of rows and columns of chips."""
        return len(self.rows[0]), len(self.columns[0])

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    def __iter__(self) -> Iterator[Chip]:
        ny, nx = self.shape
        return (self.chip(chip_y=y, chip_x=x) for y in range(ny) for x in range(nx))

    def chip(self, *, chip_y: int, chip_x: int) -> Chip:
        """Return the chip in row ``chip_y`` and column ``chip_x`` of the grid; negative numbers count from the end.

        Raises
        ------
        IndexError
            If the chip is outside the grid.
        """
        chip_y, chip_x = operator.index(chip_y), operator.index(chip_x)
        ny, nx = self.shape
        if not (-ny <= chip_y < ny and -nx <= chip_x < nx):
            raise IndexError(f"chip_y={chip_y}, chip_x={chip_x} is outside the grid of {ny} x {nx} chips (chip_y, chip_x)")
        index_y, row_off, height = (int(values[chip_y]) for values in self.rows)
        index_x, col_off, width = (int(values[chip_x]) for values in self.columns)
        left, right = (float(values[chip_x]) for values in self.x_bounds)
        bottom, top = (float(values[chip_y]) for values in self.y_bounds)
        return Chip(index_y, index_x, row_off, col_off, height, width, (left, bottom, right, top))

    @cached_property
    def x_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(left, right) of each column of chips, CRS units, float64."""
        _, off, width = self.columns
        return self.pixels.x_edges(off), self.pixels.x_edges(off + width)

    @cached_property
    def y_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(bottom, top) of each row of chips, CRS units, float64."""
        _, off, height = self.rows
        return self.pixels.y_edges(off + height), self.pixels.y_edges(off)

    def footprints(self) -> np.ndarray:
        """Return the outline of each chip in longitude and latitude (EPSG:4326), in the order of iteration: shapely, (chips,)."""
        return footprints(Rects.of(x_bounds=self.x_bounds, y_bounds=self.y_bounds), self.pixels.crs)

    def outline(self) -> shapely.Geometry:
        """Return a shape that covers the scene and all its chips, in longitude and latitude: a Polygon or MultiPolygon.

        Examples
        --------
        >>> pixels = PixelGrid("EPSG:32720", (10.0, 0.0, 499980.0, 0.0, -10.0, 6400000.0), (600, 1000))
        >>> grid = ChipGrid(pixels, 256, edge="pad")
        >>> all(grid.outline().covers(shape) for shape in grid.footprints())
        True
        """
        whole = ChipGrid(self.extent, self.extent.shape)
        return cover(Rects.of(x_bounds=whole.x_bounds, y_bounds=whole.y_bounds), self.pixels.crs, self.footprints)

    def _repr_html_(self) -> str:
        return grid_html(self)

    @property
    def extent(self) -> PixelGrid:
        """The pixels of the scene and of all chips; more than the scene only with ``edge="pad"``."""
        spans = []
        for n, (_, offset, length) in zip(self.pixels.shape, (self.rows, self.columns), strict=True):
            spans.append((min([0, *offset.tolist()]), max([n, *(offset + length).tolist()])))
        (top, bottom), (left, right) = spans
        return self.pixels.window(row_off=top, col_off=left, height=bottom - top, width=right - left)


def chip_grid(
    pixels: PixelGrid, size: Size = 256, *, stride: Pair | None = None, edge: Edge = "drop", anchor: Anchor = "origin"
) -> ChipGrid:
    """Return the `ChipGrid` for ``size``: a number of pixels, (height, width), or a ChipGrid, which is returned unchanged.

    Raises
    ------
    ValueError
        If ``size`` is a ChipGrid of another shape than ``pixels``, or is combined with other grid options.
    """
    if not isinstance(size, ChipGrid):
        pair = _pair(size, "size")
        return ChipGrid(pixels, pair, pair if stride is None else _pair(stride, "stride"), edge, anchor)
    if (stride, edge, anchor) != (None, "drop", "origin"):
        raise ValueError("size is a ChipGrid, which has its own stride, edge and anchor; pass either a ChipGrid or options")
    if size.pixels.shape != pixels.shape:
        raise ValueError(f"the ChipGrid is for {size.pixels.shape} pixels (height, width), the array has {pixels.shape}")
    return size


def outline(pixels: PixelGrid) -> shapely.Geometry:
    """Return the outline of a whole scene in longitude and latitude: a Polygon or MultiPolygon.

    Examples
    --------
    >>> outline(PixelGrid("EPSG:4326", (0.5, 0.0, 10.0, 0.0, -0.5, 10.0), (4, 4))).bounds
    (10.0, 8.0, 12.0, 10.0)
    """
    return ChipGrid(pixels, pixels.shape).footprints()[0]


def _pair(value: Pair, name: str) -> tuple[int, int]:
    try:
        height, width = map(operator.index, (value, value) if np.ndim(value) == 0 else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a whole number of pixels or (height, width), got {value!r}") from None
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be at least 1 pixel, got {value!r}")
    return height, width


def _phase(offset: float, resolution: float) -> float:
    phase = round((offset / resolution) % 1.0, 6)
    return 0.0 if phase == 1.0 else phase * resolution


def _cut(n: int, size: int, stride: int, edge: Edge, *, first: int, lead: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index, offset, length) of the chips along one axis of ``n`` pixels; chip ``first`` begins ``lead`` pixels before it."""
    # The last possible chip is the first that reaches the border, and it must begin inside.
    last = max(0, -(-(n + lead - size) // stride))
    position = np.arange(last + 1)
    start = position * stride - lead
    stop = start + size
    keep = (start >= 0) & (stop <= n) if edge == "drop" else (start < n) & (stop > 0)
    index, start, stop = first + position[keep], start[keep], stop[keep]
    if edge == "shift":
        start = np.where(stop > n, max(0, n - size), start)
        stop = np.minimum(stop, n)
    elif edge == "partial":
        start, stop = np.maximum(start, 0), np.minimum(stop, n)
    return index, start, stop - start


def proj_code(crs: pyproj.CRS) -> str:
    """Return ``"EPSG:32720"`` (any authority) if the CRS equals a registered one, else WKT2."""
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else crs.to_wkt("WKT2_2019")
