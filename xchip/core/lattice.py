"""The pixel lattice of a raster, and the alignment of two lattices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Two lattices are the same if they drift apart by less than this part of a pixel over a whole scene. Published transforms
# are rounded at about the ninth digit, and float32 coordinates at the seventh.
LATTICE_TOLERANCE = 0.01
# The limit of GDAL and of the columns of an index.
MOST_PIXELS = 2**31 - 1


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
    """``"EPSG:32720"``, or WKT2 if the CRS has no code."""
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
            raise ValueError(f"a pixel grid must have at least one row and one column, got shape {self.shape}")
        if max(height, width) > MOST_PIXELS:
            raise ValueError(f"a pixel grid must have at most {MOST_PIXELS} rows and columns, got shape {self.shape}")
        for start, size, n in ((c, a, width), (f, e, height)):
            if not math.ulp(max(abs(start), abs(start + size * n))) < LATTICE_TOLERANCE * abs(size):  # True for infinite ends
                raise ValueError(
                    f"pixels of {abs(size)} can't be told apart at {start} to {start + size * n} (transform {self.transform}, "
                    f"shape {self.shape})"
                )
        object.__setattr__(self, "transform", (a, 0.0, c, 0.0, e, f))
        object.__setattr__(self, "shape", (height, width))

    @classmethod
    def from_centres(cls, *, y: np.ndarray, x: np.ndarray, crs: str) -> PixelGrid:
        """Return the lattice whose pixel centres are ``y`` and ``x`` (1-D, evenly spaced, in either direction).

        Raises
        ------
        ValueError
            If a coordinate holds NaN, is not evenly spaced, or has a single value, which gives no pixel size.
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
        """Return x of the left edges of ``columns``, rounded to a millionth of a pixel, so that 0.1 + 0.2 is 0.3."""
        return np.round(self.transform[2] + np.asarray(columns) * self.transform[0], _decimals(self.transform[0]))

    def y_edges(self, rows: np.ndarray) -> np.ndarray:
        """Return y of the upper edges of ``rows``, rounded likewise."""
        return np.round(self.transform[5] + np.asarray(rows) * self.transform[4], _decimals(self.transform[4]))

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (y, x): float64 pixel centres, y downwards."""
        height, width = self.shape
        return (
            self.transform[5] + (np.arange(height) + 0.5) * self.transform[4],
            self.transform[2] + (np.arange(width) + 0.5) * self.transform[0],
        )

    def window(self, *, row_off: int, col_off: int, height: int, width: int) -> PixelGrid:
        """Return the part of the lattice that begins at (row_off, col_off); it may reach outside."""
        x, y = self.x_edges(np.array(col_off)), self.y_edges(np.array(row_off))
        a, _, _, _, e, _ = self.transform
        return PixelGrid(self.crs, (a, 0.0, float(x), 0.0, e, float(y)), (height, width))

    def offset_of(self, other: PixelGrid) -> tuple[int, int] | None:
        """Return (row, column) of ``other``'s first pixel on this lattice, or None if the lattices differ."""
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
    single = centres.dtype == np.float32
    # The spacing of float32 near 4,000,000 m is a quarter of a metre.
    tolerance = 0.1 if single else LATTICE_TOLERANCE
    centres = centres.astype(np.float64)
    if not np.isfinite(centres).all():
        raise ValueError(f"coordinate {name!r} holds NaN or infinite values; pixel centres must be finite")
    if centres.size == 1:
        raise ValueError(f"coordinate {name!r} has a single value, so the pixel size is unknown; keep at least two pixels")
    step = (centres[-1] - centres[0]) / (centres.size - 1)
    strays = centres - (centres[0] + step * np.arange(centres.size))
    if step == 0 or np.abs(strays).max() > tolerance * abs(step):
        hint = " (float32 may be too coarse for it: try float64)" if single else ""
        raise ValueError(f"coordinate {name!r} is not evenly spaced; chips need a regular pixel grid{hint}")
    if single:
        # The first centre may be off by some hundredths of a pixel, the mean of all is not.
        centres = centres + strays.mean()
    # Centres carry rounding errors of about a billionth of a pixel: a short number that is as near is the true pixel size.
    rounded = float(f"{step:.12g}")
    if abs(rounded - step) * centres.size < 1e-9 * abs(step):
        step = rounded
    size, low = abs(step), min(centres[0], centres[-1])
    decimals = _decimals(size) + 3
    low_edge, high_edge = low - size / 2, low + size * (centres.size - 0.5)
    return size, round(low_edge, decimals), round(high_edge, decimals)


@dataclass(frozen=True)
class AxisMap:
    """Which source pixel lies under each target pixel, along one axis.

    ``factor`` >= 1: a source pixel is that many target pixels long, and source pixel 0 begins at target pixel ``offset``.
    ``factor`` < 0: a target pixel is ``-factor`` source pixels long, and target pixel 0 begins at source pixel
    ``-offset``; the source pixel at its centre counts (the later one, if the centre lies between two).
    """

    factor: int
    offset: int

    def source_index(self, target: np.ndarray) -> np.ndarray:
        """Return the source pixel of each target pixel; may be negative or past the source's end."""
        if self.factor >= 1:
            return (np.asarray(target) - self.offset) // self.factor
        return np.asarray(target) * -self.factor - self.offset + -self.factor // 2


@dataclass(frozen=True)
class Alignment:
    """How two lattices that line up lie on each other: an `AxisMap` for y and one for x."""

    y: AxisMap
    x: AxisMap


def alignment(*, source: PixelGrid, target: PixelGrid) -> Alignment | None:
    """Return how ``source`` pixels lie under ``target`` pixels; None if the sizes have no integer ratio or the edges differ.

    The caller compares the CRSs.
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
