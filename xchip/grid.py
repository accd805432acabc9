"""Geometry: the pixel lattice of a scene, and the chips that it is cut into. No pixel is read here."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pyproj

Edge = Literal["drop", "pad", "shift", "partial"]
Anchor = Literal["origin", "crs"]
EDGES: tuple[Edge, ...] = ("drop", "pad", "shift", "partial")
ANCHORS: tuple[Anchor, ...] = ("origin", "crs")

# Two lattices are one if, over a whole scene, they drift apart by less than this part of a pixel. Published transforms
# are rounded at about the ninth digit, and float32 coordinates at the seventh.
LATTICE_TOLERANCE = 0.01


@dataclass(frozen=True)
class PixelGrid:
    """The pixel lattice of a raster: north up, not rotated.

    Examples
    --------
    >>> pixels = PixelGrid("EPSG:32720", (10.0, 0.0, 499980.0, 0.0, -10.0, 6400000.0), (512, 1024))
    >>> pixels.bounds
    (499980.0, 6394880.0, 510220.0, 6400000.0)
    """

    crs: str
    """``"EPSG:32720"``, or WKT2 where the CRS has no code."""
    transform: tuple[float, float, float, float, float, float]
    """(a, b, c, d, e, f): x = a * column + c, y = e * row + f, of pixel corners; a > 0, e < 0, b = d = 0."""
    shape: tuple[int, int]
    """(height, width) in pixels."""

    def __post_init__(self) -> None:
        a, b, c, d, e, f = (float(value) for value in self.transform)
        height, width = (int(length) for length in self.shape)
        if b or d or not all(map(math.isfinite, (a, c, e, f))) or a <= 0 or e >= 0:
            raise ValueError(
                f"a pixel grid must be north up and not rotated (a > 0, e < 0, b = d = 0), got transform {self.transform}; "
                "warp the raster first"
            )
        if height < 1 or width < 1:
            raise ValueError(f"a pixel grid has at least one row and one column, got shape {self.shape}")
        object.__setattr__(self, "transform", (a, 0.0, c, 0.0, e, f))
        object.__setattr__(self, "shape", (height, width))

    @classmethod
    def from_centres(cls, *, y: np.ndarray, x: np.ndarray, crs: str) -> PixelGrid:
        """The lattice whose pixel centres are ``y`` and ``x`` (1-D, evenly spaced, in either direction).

        Raises
        ------
        ValueError
            If a coordinate holds NaN, is not evenly spaced, or has a single value (its pixel size can't be told).
        """
        res_x, left, _ = _axis_of_centres(np.asarray(x), "x")
        res_y, _, top = _axis_of_centres(np.asarray(y), "y")
        return cls(crs, (res_x, 0.0, left, 0.0, -res_y, top), (len(y), len(x)))

    @property
    def res(self) -> tuple[float, float]:
        """(height, width) of a pixel in CRS units, both positive."""
        return -self.transform[4], self.transform[0]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in CRS units."""
        height, width = self.shape
        x, y = self.x_edges(np.array([0, width])), self.y_edges(np.array([0, height]))
        return float(x[0]), float(y[1]), float(x[1]), float(y[0])

    def x_edges(self, columns: np.ndarray) -> np.ndarray:
        """x of the left edges of ``columns``; rounded to a millionth of a pixel, so that 0.1 + 0.2 is 0.3."""
        return np.round(self.transform[2] + np.asarray(columns) * self.transform[0], _decimals(self.transform[0]))

    def y_edges(self, rows: np.ndarray) -> np.ndarray:
        """y of the upper edges of ``rows``."""
        return np.round(self.transform[5] + np.asarray(rows) * self.transform[4], _decimals(self.transform[4]))

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """(y, x): float64 pixel centres, y downwards."""
        height, width = self.shape
        return (
            self.transform[5] + (np.arange(height) + 0.5) * self.transform[4],
            self.transform[2] + (np.arange(width) + 0.5) * self.transform[0],
        )

    def window(self, *, row_off: int, col_off: int, height: int, width: int) -> PixelGrid:
        """The part of the lattice that begins at (row_off, col_off); it may reach outside."""
        x, y = self.x_edges(np.array(col_off)), self.y_edges(np.array(row_off))
        a, _, _, _, e, _ = self.transform
        return PixelGrid(self.crs, (a, 0.0, float(x), 0.0, e, float(y)), (height, width))

    def offset_of(self, other: PixelGrid) -> tuple[int, int] | None:
        """(row, column) of ``other``'s first pixel on this lattice, or None where the two are not one lattice."""
        relation = alignment(source=other, target=self)
        if self.crs != other.crs or relation is None or (relation.y.factor, relation.x.factor) != (1, 1):
            return None
        return relation.y.offset, relation.x.offset


def _decimals(resolution: float) -> int:
    return max(0, 6 - math.floor(math.log10(abs(resolution))))


def _axis_of_centres(centres: np.ndarray, name: str) -> tuple[float, float, float]:
    """(pixel size, lowest edge, highest edge) of evenly spaced centres."""
    if centres.ndim != 1 or centres.size == 0:
        raise ValueError(f"coordinate {name!r} must have one dimension and at least two values, got shape {centres.shape}")
    if centres.dtype.kind not in "fiu":
        raise ValueError(f"coordinate {name!r} must hold numbers, got dtype {centres.dtype}")
    tolerance = LATTICE_TOLERANCE
    if centres.dtype == np.float32:
        # The spacing of float32 near 4,000,000 m is a quarter of a metre.
        tolerance = max(tolerance, 0.1)
    centres = centres.astype(np.float64)
    if not np.isfinite(centres).all():
        raise ValueError(f"coordinate {name!r} holds NaN or infinite values; pixel centres must be finite")
    if centres.size == 1:
        raise ValueError(
            f"coordinate {name!r} has a single value, so the size of a pixel can't be told; keep at least two, or pass a "
            "ChipGrid as size="
        )
    step = (centres[-1] - centres[0]) / (centres.size - 1)
    if step == 0 or np.abs(centres - (centres[0] + step * np.arange(centres.size))).max() > tolerance * abs(step):
        raise ValueError(f"coordinate {name!r} is not evenly spaced; chips need a regular pixel grid")
    # Centres carry rounding errors: take the twelve-digit number if it drifts by under a millionth of a pixel.
    rounded = float(f"{step:.12g}")
    if abs(rounded - step) * centres.size < 1e-6 * abs(step):
        step = rounded
    size, low = abs(step), min(centres[0], centres[-1])
    decimals = _decimals(size)
    low_edge, high_edge = low - size / 2, low + size * (centres.size - 0.5)
    return size, round(low_edge, decimals), round(high_edge, decimals)


@dataclass(frozen=True)
class AxisMap:
    """Which source pixel lies under each target pixel, along one axis.

    ``factor`` >= 1: a source pixel is that many target pixels long, and source pixel 0 begins at target pixel ``offset``.
    ``factor`` < 0: a target pixel is ``-factor`` source pixels long, and target pixel 0 begins at source pixel
    ``-offset``; the source pixel at its centre is taken (the one after it, where the centre lies between two).
    """

    factor: int
    offset: int

    def source_index(self, target: np.ndarray) -> np.ndarray:
        """Source pixel of each target pixel; may be negative or past the source's end."""
        if self.factor >= 1:
            return (np.asarray(target) - self.offset) // self.factor
        return np.asarray(target) * -self.factor - self.offset + -self.factor // 2


@dataclass(frozen=True)
class Alignment:
    """How the pixels of two lattices that line up lie on each other: an `AxisMap` for y and one for x."""

    y: AxisMap
    x: AxisMap


def alignment(*, source: PixelGrid, target: PixelGrid) -> Alignment | None:
    """How ``source`` pixels lie under ``target`` pixels; None where the sizes have no integer ratio or the edges differ.

    The CRSs are the caller's to compare.
    """
    maps = []
    for axis, edge in ((0, 5), (1, 2)):
        sign = -1.0 if axis == 0 else 1.0
        distance = sign * (source.transform[edge] - target.transform[edge])
        maps.append(_axis_map(source.res[axis], target.res[axis], distance, source.shape[axis], target.shape[axis]))
    y, x = maps
    return None if y is None or x is None else Alignment(y, x)


def _axis_map(source_res: float, target_res: float, distance: float, n_source: int, n_target: int) -> AxisMap | None:
    coarse, fine = max(source_res, target_res), min(source_res, target_res)
    factor = round(coarse / fine)
    n_fine = min(n_source * max(1, round(source_res / fine)), n_target * max(1, round(target_res / fine)))
    offset = round(distance / fine)
    drift = abs(coarse / fine - factor) / factor * n_fine
    if drift > LATTICE_TOLERANCE or abs(distance / fine - offset) > LATTICE_TOLERANCE:
        return None
    if source_res >= target_res or factor == 1:
        return AxisMap(factor, offset)
    return AxisMap(-factor, offset)


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip of a grid."""

    chip_index_y: int
    """Position downwards in the grid."""
    chip_index_x: int
    """Position to the right in the grid."""
    row_off: int
    """First row on the scene's grid; outside of it only under ``edge="pad"``."""
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
        For a size or stride below one pixel, an unknown ``edge`` or ``anchor``, and ``edge="shift"`` with
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
    stride: tuple[int, int] = None  # type: ignore[assignment]  # __post_init__ puts size in its place
    """(y, x) pixels between the first pixels of neighbours; ``size`` unless given."""
    edge: Edge = "drop"
    """What happens at the border: "drop", "pad", "shift" or "partial"."""
    anchor: Anchor = "origin"
    """Where chips begin: at the scene's upper left pixel ("origin") or at the CRS's origin ("crs")."""

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
        """size, stride, edge and anchor: what makes the same grid on another scene."""
        return {"size": self.size, "stride": self.stride, "edge": self.edge, "anchor": self.anchor}

    def on(self, pixels: PixelGrid) -> ChipGrid:
        """The same rules on another scene."""
        return ChipGrid(pixels, **self.options)

    @property
    def phase(self) -> tuple[float, float]:
        """(y, x): the lattice's own offset from the CRS's origin, in [0, resolution), CRS units; y counts downwards."""
        (res_y, res_x), (_, _, left, _, _, top) = self.pixels.res, self.pixels.transform
        return _phase(-top, res_y), _phase(left, res_x)

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(chip_index_y, row_off, height), int64 arrays, one value a row of chips."""
        return self._axis(0)

    @cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(chip_index_x, col_off, width), int64 arrays, one value a column of chips."""
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
        """(chip_y, chip_x): how many rows and columns of chips."""
        return len(self.rows[0]), len(self.columns[0])

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    def __iter__(self) -> Iterator[Chip]:
        ny, nx = self.shape
        return (self.chip(chip_y=y, chip_x=x) for y in range(ny) for x in range(nx))

    def chip(self, *, chip_y: int, chip_x: int) -> Chip:
        """The chip in row ``chip_y`` and column ``chip_x`` of the grid; negative numbers count from the end.

        Raises
        ------
        IndexError
            Outside the grid.
        """
        chip_y, chip_x = operator.index(chip_y), operator.index(chip_x)
        ny, nx = self.shape
        if not (-ny <= chip_y < ny and -nx <= chip_x < nx):
            raise IndexError(f"chip_y={chip_y}, chip_x={chip_x} is outside the grid of {ny} x {nx} chips (chip_y, chip_x)")
        index_y, row_off, height = (int(values[chip_y]) for values in self.rows)
        index_x, col_off, width = (int(values[chip_x]) for values in self.columns)
        bounds = self.pixels.window(row_off=row_off, col_off=col_off, height=height, width=width).bounds
        return Chip(index_y, index_x, row_off, col_off, height, width, bounds)

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
        """Outline of each chip in longitude and latitude (EPSG:4326), in the order of iteration: shapely geometries, (chips,)."""
        from xchip.footprints import footprints

        return footprints(self)

    def outline(self) -> Any:
        """A little more than the scene with all its chips, in longitude and latitude: a shapely Polygon or MultiPolygon."""
        import shapely

        from xchip.footprints import STRAY, outline

        first, last = zip(*(self._reach(axis) for axis in (0, 1)), strict=True)
        size = {"height": last[0] - first[0], "width": last[1] - first[1]}
        shape = outline(self.pixels.window(row_off=first[0], col_off=first[1], **size))
        # Its edges may stray from those of the chips, which must lie inside.
        west, south, east, north = shape.bounds
        margin = 2 * STRAY * max(east - west, north - south)
        return shape.buffer(margin, join_style="mitre").intersection(shapely.box(-180, -90, 180, 90))

    def _reach(self, axis: int) -> tuple[int, int]:
        """First and last pixel along an axis that is in the scene or in a chip."""
        _, offset, length = self.columns if axis else self.rows
        ends = np.concatenate(([0, self.pixels.shape[axis]], offset, offset + length))
        return int(ends.min()), int(ends.max())


def chip_grid(pixels: PixelGrid, size: Any = 256, *, stride: Any = None, edge: Edge = "drop", anchor: Anchor = "origin") -> ChipGrid:
    """A `ChipGrid` from what callers pass as ``size``: pixels, (height, width), or a ChipGrid, which is taken as it is.

    Raises
    ------
    ValueError
        If ``size`` is a ChipGrid of another shape than ``pixels``, or comes with other grid options.
    """
    if not isinstance(size, ChipGrid):
        return ChipGrid(pixels, size, stride, edge, anchor)
    if (stride, edge, anchor) != (None, "drop", "origin"):
        raise ValueError("size is a ChipGrid, which has its own stride, edge and anchor; give one or the other")
    if size.pixels.shape != pixels.shape:
        raise ValueError(f"the ChipGrid is for {size.pixels.shape} pixels (height, width), the array has {pixels.shape}")
    return size


def _pair(value: Any, name: str) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    try:
        height, width = (operator.index(length) for length in pair)
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
    # The last chip that can count is the first that reaches the border, and it must begin inside.
    last = max(0, -(-(n + lead - size) // stride))
    position = np.arange(last + 1)
    start = position * stride - lead
    stop = start + size
    if edge == "drop":
        keep = (start >= 0) & (stop <= n)
    else:
        keep = (start < n) & (stop > 0)
    index, start, stop = first + position[keep], start[keep], stop[keep]
    if edge == "shift":
        start = np.where(stop > n, max(0, n - size), start)
        stop = np.minimum(stop, n)
    elif edge == "partial":
        start, stop = np.maximum(start, 0), np.minimum(stop, n)
    return index, start, stop - start


def proj_code(crs: pyproj.CRS) -> str:
    """``"EPSG:32720"`` (any authority) where the CRS equals a registered one, else WKT2."""
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else crs.to_wkt("WKT2_2019")
