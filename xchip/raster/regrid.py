"""Putting the pixels of one grid on another: repeated exactly where grids line up, warped where the caller asks for it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from xchip.core.grid import AxisMap, PixelGrid

# Pixels that a kernel looks at to each side. The other methods (average, mode, ...) look at what a target pixel covers.
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
        """How many pixels."""
        return self.shape[0] * self.shape[1]


def repeat(values: np.ndarray, factor_y: int, factor_x: int) -> np.ndarray:
    """Each pixel of a (y, x) array ``factor_y`` times downwards and ``factor_x`` times to the right.

    Equal to ``np.repeat`` along both axes, in less than half the time for 8 and 16 bit pixels and a factor of two.

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
    rows = 64  # few enough to stay in a core's cache
    for row in range(0, height, rows):
        out[row : row + rows] = _widened(values[row : row + rows], factor_x)[:, None]
    return out.reshape(height * factor_y, width * factor_x)


def _widened(values: np.ndarray, factor: int) -> np.ndarray:
    size = values.itemsize
    if factor == 1:
        return values
    if size * factor not in (2, 4, 8) or values.dtype.kind not in "biuf":
        return np.repeat(values, factor, axis=1)
    # The copies of a pixel make one machine word: 0xAB * 0x0101 = 0xABAB.
    word = np.dtype(f"u{size * factor}")
    wide = values.view(f"u{size}").astype(word, order="C")
    wide *= word.type(sum(1 << (8 * size * copy) for copy in range(factor)))
    return wide.view(values.dtype)


def covered(axis: AxisMap, start: int, stop: int, n: int) -> tuple[int, int]:
    """The target pixels of [start, stop) that lie on the source's ``n`` pixels; where none does, (start, start)."""
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
    """The pixels of ``source`` that a warp to ``target`` needs; of size 0 where the two do not meet."""
    height, width = target.shape
    # Curved edges, and poles inside: points over the whole of the target.
    rows, cols = np.meshgrid(np.linspace(0, height, 21), np.linspace(0, width, 21), indexing="ij")
    a, _, c, _, e, f = target.transform
    x, y = _transformer(target.crs, source.crs)(a * cols + c, e * rows + f)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return Box(0, 0, 0, 0)
    a, _, c, _, e, f = source.transform
    edges = []
    for positions, n, n_target in (((y[known] - f) / e, source.shape[0], height), ((x[known] - c) / a, source.shape[1], width)):
        low, high = float(positions.min()), float(positions.max())
        # The kernel, the curve between the points, and two pixels for GDAL's own approximation.
        margin = _RADIUS.get(resampling, 1) * max(1.0, (high - low) / n_target) + 0.002 * (high - low) + 2
        edges += [max(0, math.floor(low - margin)), min(n, math.ceil(high + margin))]
    return Box(*edges)


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Any:
    """(x, y) -> (x, y) between two CRSs; infinite where there is no answer."""
    if source == target:
        return lambda x, y: (x, y)
    import pyproj

    return pyproj.Transformer.from_crs(source, target, always_xy=True).transform


def warp(
    values: np.ndarray, source: PixelGrid, target: PixelGrid, *, resampling: Any, nodata: float | None, fill: np.generic | float
) -> np.ndarray:
    """``values`` (y, x) on ``source``, resampled by GDAL to ``target``; ``fill`` where there are none or only ``nodata``."""
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
        dst_nodata=nodata,
        # GDAL would move pixels that happen to equal a nodata value of the target, so it is told of none that is not one.
        init_dest_nodata=False,
        resampling=resampling,
    )
    return out
