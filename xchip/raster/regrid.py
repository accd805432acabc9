"""Move pixels from one grid to another: repeat them exactly where grids line up, or warp them with GDAL."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xchip.core.grid import AxisMap, PixelGrid

if TYPE_CHECKING:
    from rasterio.enums import Resampling
    from rasterio.windows import Window

# Source pixels that a kernel uses on each side. The other methods (average, mode, ...) use the pixels that a target pixel covers.
_RADIUS = {"nearest": 0, "bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3}


class Box(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of a raster."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns); neither is negative."""
        return max(0, self.bottom - self.top), max(0, self.right - self.left)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def window(self) -> Window:
        """Return the box as a window of rasterio."""
        from rasterio.windows import Window

        return Window(self.left, self.top, self.shape[1], self.shape[0])


def repeat(values: np.ndarray, factor_y: int, factor_x: int) -> np.ndarray:
    """Repeat each pixel of a (y, x) array ``factor_y`` times downwards and ``factor_x`` times to the right.

    The result is that of ``np.repeat`` along both axes, in less than half the time for 8 and 16 bit pixels and a factor of two.

    Examples
    --------
    >>> repeat(np.array([[1, 2]]), 2, 2)
    array([[1, 1, 2, 2],
           [1, 1, 2, 2]])
    """
    if (factor_y, factor_x) == (1, 1):
        return values
    height, width = values.shape
    out = np.empty((height, factor_y, width * factor_x), values.dtype)
    rows = 64  # fits in a core's cache
    for row in range(0, height, rows):
        out[row : row + rows] = _repeat_columns(values[row : row + rows], factor_x)[:, None]
    return out.reshape(height * factor_y, width * factor_x)


def _repeat_columns(values: np.ndarray, factor: int) -> np.ndarray:
    size = values.itemsize
    if factor == 1:
        return values
    if size * factor not in (2, 4, 8) or values.dtype.kind not in "biuf":
        return np.repeat(values, factor, axis=1)
    # The copies of a pixel form one machine word: 0xAB * 0x0101 = 0xABAB.
    word = np.dtype(f"u{size * factor}")
    wide = values.view(f"u{size}").astype(word, order="C")
    wide *= word.type(sum(1 << (8 * size * copy) for copy in range(factor)))
    return wide.view(values.dtype)


def covered(axis: AxisMap, start: int, stop: int, n: int) -> tuple[int, int]:
    """Return the range of target pixels in [start, stop) that the source's ``n`` pixels cover; (start, start) if none."""
    if axis.factor >= 1:
        first, last = axis.offset, axis.offset + n * axis.factor
    else:
        size = -axis.factor
        # The target pixels t with 0 <= source_index(t) = t * size - offset + size // 2 < n; -(-a // b) rounds up.
        lead = axis.offset - size // 2
        first, last = -(-lead // size), -(-(lead + n) // size)
    first, last = max(start, first), min(stop, last)
    return (first, last) if first < last else (start, start)


def source_box(source: PixelGrid, target: PixelGrid, resampling: str) -> Box:
    """Return the pixels of ``source`` that a warp to ``target`` needs; a box of size 0 if the grids do not meet."""
    height, width = target.shape
    # Points over the whole target, because edges may be curved and a pole may lie inside.
    rows, cols = np.meshgrid(np.linspace(0, height, 21), np.linspace(0, width, 21), indexing="ij")
    a, _, c, _, e, f = target.transform
    x, y = _transformer(target.crs, source.crs)(a * cols + c, e * rows + f)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return Box(0, 0, 0, 0)
    a, _, c, _, e, f = source.transform
    edges = []
    for positions, n, n_target in (((y[finite] - f) / e, source.shape[0], height), ((x[finite] - c) / a, source.shape[1], width)):
        low, high = float(positions.min()), float(positions.max())
        # Room for the kernel, for curves between the points, and two pixels for GDAL's approximation.
        margin = _RADIUS.get(resampling, 1) * max(1.0, (high - low) / n_target) + 0.002 * (high - low) + 2
        edges += [max(0, math.floor(low - margin)), min(n, math.ceil(high + margin))]
    return Box(*edges)


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function (x, y) -> (x, y) between two CRSs; results are infinite where it is undefined."""
    if source == target:
        return lambda x, y: (x, y)
    import pyproj

    return pyproj.Transformer.from_crs(source, target, always_xy=True).transform


def warp(
    values: np.ndarray,
    source: PixelGrid,
    target: PixelGrid,
    *,
    resampling: Resampling,
    nodata: float | None,
    fill: np.generic | float,
) -> np.ndarray:
    """Resample ``values`` (y, x) from ``source`` to ``target`` with GDAL; ``fill`` where values are missing or ``nodata``."""
    from rasterio import Affine
    from rasterio.crs import CRS
    from rasterio.warp import reproject

    out = np.full(target.shape, fill, values.dtype)
    reproject(
        values,
        out,
        src_transform=Affine(*source.transform),
        src_crs=CRS.from_user_input(source.crs),
        src_nodata=nodata,
        dst_transform=Affine(*target.transform),
        dst_crs=CRS.from_user_input(target.crs),
        # Not ``fill``: GDAL changes pixels that happen to equal the target's nodata value.
        dst_nodata=nodata,
        init_dest_nodata=False,  # keeps ``fill``
        resampling=resampling,
    )
    return out
