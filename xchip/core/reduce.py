"""Sums over chips: one reduction for any chunking, stride and edge rule.

The chips' edges cut the pixels into cells. Each chunk is summed cell by cell where it lies, and only one number per cell leaves
it. Then the cells of neighbouring chunks are added, and each chip is the sum of its cells. The number of tasks grows with chunks,
not with chips, and no pixel is moved.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import numpy as np
import xarray as xr

from xchip.core.arrays import Xarray, array_grid, as_dataset
from xchip.core.counting import ClassCounter, code_counter, compile_rule, count_classes
from xchip.core.grid import Alignment, AxisMap, ChipGrid, GridOptions, Size
from xchip.core.quality import N_CLASSES, NODATA, QualityClass, QualityRule

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import DTypeLike

Array: TypeAlias = "np.ndarray | da.Array"

FRACTIONS = tuple(f"{cls.name.lower()}_fraction" for cls in QualityClass)
"""Names of the fractions, in the order of `QualityClass`."""


@dataclass(frozen=True)
class AxisPlan:
    """The cells along one axis of a raster, and the cells of each chip.

    The raster may be coarser than the scene: then a pixel that a chip's edge cuts is a separate cell, and counts in each chip for
    the number of scene pixels in that chip.
    """

    cuts: np.ndarray
    """Increasing pixel positions of the raster, from 0 to its length; pixels are summed between them."""
    part: np.ndarray
    """For each cell, the number of the interval between cuts with its sum."""
    weight: np.ndarray
    """For each cell, the number of scene pixels that a raster pixel counts for."""
    low: np.ndarray
    """For each chip, its first cell."""
    high: np.ndarray
    """For each chip, the cell after its last."""


def axis_plan(
    starts: np.ndarray, lengths: np.ndarray, n_scene: int, axis_map: AxisMap | None = None, n_raster: int | None = None
) -> AxisPlan:
    """Return the plan for chips at ``starts`` of ``lengths`` scene pixels, on a raster that lies under the scene by ``axis_map``.

    Parts of a chip outside the scene or the raster are in no cell.
    """
    axis_map = axis_map or AxisMap(1, 0)
    n_raster = n_scene if n_raster is None else n_raster
    ratio, offset = axis_map.factor, axis_map.offset
    if ratio < 1:
        raise ValueError("the raster is finer than the scene; sample it to the scene's pixels first")
    first, last = max(0, offset), min(n_scene, offset + ratio * n_raster)
    last = max(first, last)
    edges = np.unique(np.clip(np.concatenate((starts, starts + lengths)), first, last))
    if ratio > 1:
        # Where an edge cuts a raster pixel, the pixel's edges are cuts too.
        below = (edges - offset) // ratio * ratio + offset
        above = -(-(edges - offset) // ratio) * ratio + offset
        edges = np.unique(np.clip(np.concatenate((edges, below, above)), first, last))
    begin, end = edges[:-1], edges[1:]
    pixel_begin, pixel_end = (begin - offset) // ratio, -(-(end - offset) // ratio)
    cuts = np.unique(np.concatenate(([0, n_raster], pixel_begin, pixel_end)))
    whole = (end - begin) == (pixel_end - pixel_begin) * ratio
    return AxisPlan(
        cuts=cuts,
        part=np.searchsorted(cuts, pixel_begin),
        weight=np.where(whole, ratio, end - begin),
        low=np.searchsorted(edges, np.clip(starts, first, last)),
        high=np.searchsorted(edges, np.clip(starts + lengths, first, last)),
    )


@lru_cache(maxsize=32)
def _plans(
    key: tuple[bytes, ...], shapes: tuple[int, ...], align: Alignment | None, raster: tuple[int, int] | None
) -> tuple[AxisPlan, AxisPlan]:
    starts_y, lengths_y, starts_x, lengths_x = (np.frombuffer(part, np.int64) for part in key)
    y, x = (align.y, align.x) if align else (None, None)
    n_y, n_x = raster or (None, None)
    return axis_plan(starts_y, lengths_y, shapes[0], y, n_y), axis_plan(starts_x, lengths_x, shapes[1], x, n_x)


def chip_plans(
    grid: ChipGrid, align: Alignment | None = None, raster: tuple[int, int] | None = None
) -> tuple[AxisPlan, AxisPlan]:
    """Return (y, x) plans of a grid's chips: on the scene, or on a raster of shape ``raster`` that lies under it by ``align``."""
    # Scenes of one product share their plans, so the key holds nothing else than the numbers that the plans depend on.
    key = tuple(np.asarray(part, np.int64).tobytes() for axis in (grid.rows, grid.columns) for part in axis[1:])
    return _plans(key, grid.pixels.shape, align, raster)


def sums_of_parts(parts: np.ndarray, plans: tuple[AxisPlan, AxisPlan]) -> np.ndarray:
    """Return the sum of each chip, (..., chip_y, chip_x), from the sums (..., parts_y, parts_x) between a plan's cuts."""
    for axis, plan in zip((-2, -1), plans, strict=True):
        cells = np.take(parts, plan.part, axis=axis)
        if (plan.weight != 1).any():
            cells = cells * plan.weight.reshape((-1, 1) if axis == -2 else (-1,))
        parts = _sum_ranges(cells, plan.low, plan.high, axis)
    return parts


def _sum_ranges(cells: np.ndarray, low: np.ndarray, high: np.ndarray, axis: int) -> np.ndarray:
    """Sums of [low, high) along ``axis``; ranges may overlap. No differences of running sums, which are inexact for floats."""
    shape = list(cells.shape)
    if len(low) == 0 or shape[axis] == 0:
        shape[axis] = len(low)
        return np.zeros(shape, cells.dtype)
    shape[axis] = 1
    padded = np.concatenate((cells, np.zeros(shape, cells.dtype)), axis=axis)
    sums = np.add.reduceat(padded, np.stack((low, high), axis=1).ravel(), axis=axis)
    sums = np.take(sums, np.arange(0, 2 * len(low), 2), axis=axis)
    empty = low == high  # for these, reduceat returns the value at `low`
    if empty.any():
        sums = np.where(empty.reshape((-1, 1) if axis == -2 else (-1,)), np.zeros((), sums.dtype), sums)
    return sums


@dataclass(frozen=True)
class Cells:
    """The cells of one block of pixels, an argument of a custom statistic."""

    rows: np.ndarray
    """Cuts along y: increasing, from 0 to the block's height."""
    columns: np.ndarray
    """Cuts along x."""

    def sum(self, pixels: np.ndarray) -> np.ndarray:
        """Return the sum of ``pixels`` (y, x) in each cell: float64, or int64 for integers and bools; (cells_y, cells_x)."""
        dtype = np.float64 if pixels.dtype.kind == "f" else np.int64
        by_row = np.stack(
            [
                np.add.reduce(pixels[start:stop], axis=0, dtype=dtype)
                for start, stop in zip(self.rows[:-1], self.rows[1:], strict=True)
            ]
        )
        return np.add.reduceat(by_row, self.columns[:-1], axis=1)


BlockFunction = Callable[..., np.ndarray]
"""``function(*blocks, cells) -> (k, cells_y, cells_x)``: one block of 2-D pixels per array."""


Finish = Callable[[np.ndarray], np.ndarray]


def chip_sums(
    arrays: Array | Sequence[Array], grid: ChipGrid, function: BlockFunction, *, n: int, dtype: DTypeLike = np.float64
) -> Any:
    """Sum the values that ``function`` returns over each chip.

    Parameters
    ----------
    arrays
        One or more arrays of one shape (..., y, x), NumPy or Dask, of the grid's scene, in any chunks.
    grid
        The chips.
    function
        ``function(*blocks, cells)`` gets the pixels of one block of each array, (y, x), and the block's `Cells`; it returns
        ``n`` sums per cell, (n, cells_y, cells_x), usually by `Cells.sum`. Its sums must not depend on the block's borders.
    n
        Number of sums.
    dtype
        Dtype of the sums.

    Returns
    -------
    numpy.ndarray or dask.array.Array
        (..., n, chip_y, chip_x); lazy if an array is, with one task per chunk and one per scene. Pixels of a chip outside the
        scene add nothing.

    Examples
    --------
    >>> from xchip.core.grid import ChipGrid, PixelGrid
    >>> grid = ChipGrid(PixelGrid("EPSG:32720", (10, 0, 0, 0, -10, 0), (4, 6)), size=2)
    >>> red = np.arange(24.0).reshape(4, 6)
    >>> def mean_and_square(block, cells):
    ...     return np.stack([cells.sum(block), cells.sum(block**2)])
    >>> chip_sums(red, grid, mean_and_square, n=2)[0] / 4
    array([[ 3.5,  5.5,  7.5],
           [15.5, 17.5, 19.5]])
    """
    return _reduce(list(arrays) if isinstance(arrays, Sequence) else [arrays], grid, function, n, dtype, _unchanged)


def _unchanged(sums: np.ndarray) -> np.ndarray:
    return sums


def _reduce(
    sequence: Sequence[Array], grid: ChipGrid, function: BlockFunction, n: int, dtype: DTypeLike, finish: Finish
) -> Array:
    """`chip_sums`, then ``finish`` on the sums of all chips of a scene, in the same task."""
    shape = np.shape(sequence[0])
    for array in sequence:
        if np.shape(array) != shape:
            raise ValueError(f"arrays must have one shape, got {[np.shape(array) for array in sequence]}")
    if tuple(shape[-2:]) != grid.pixels.shape:
        raise ValueError(f"arrays end in {tuple(shape[-2:])} pixels (y, x), the grid is for {grid.pixels.shape}")
    plans = chip_plans(grid)
    blocks = [array for array in sequence if isinstance(array, np.ndarray)]
    if len(blocks) == len(sequence):
        cells = Cells(plans[0].cuts, plans[1].cuts)
        return finish(sums_of_parts(_over_blocks(function, cells, n, dtype, blocks), plans))
    return _lazy_sums(sequence, plans, function, n, dtype, finish)


def _over_blocks(function: BlockFunction, cells: Cells, n: int, dtype: DTypeLike, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Results of ``function`` on each (y, x) plane of ``blocks``."""
    lead = blocks[0].shape[:-2]
    out = np.empty((*lead, n, len(cells.rows) - 1, len(cells.columns) - 1), dtype)
    for index in np.ndindex(lead):
        out[index] = function(*(block[index] for block in blocks), cells)
    return out


def _lazy_sums(
    sequence: Sequence[Array],
    plans: tuple[AxisPlan, AxisPlan],
    function: BlockFunction,
    n: int,
    dtype: DTypeLike,
    finish: Finish,
) -> da.Array:
    import dask.array as da
    from dask.base import tokenize

    _, arrays = da.unify_chunks(*(arg for array in sequence for arg in (da.asarray(array), tuple(range(array.ndim)))))
    lead = arrays[0].ndim - 2
    chunks = arrays[0].chunks
    # The cuts within each chunk are known beforehand, so every task gets those of its chunk.
    rows, columns = (_cuts_by_chunk(plan.cuts, lengths) for plan, lengths in zip(plans, chunks[-2:], strict=True))
    parts = da.map_blocks(
        partial(_sums_of_chunk, function, rows, columns, n, dtype),
        *arrays,
        dtype=dtype,
        meta=np.empty((0,) * (lead + 3), dtype),
        new_axis=lead,
        chunks=(*chunks[:-2], (n,), tuple(len(cuts) - 1 for cuts in rows), tuple(len(cuts) - 1 for cuts in columns)),
        name=f"chip-parts-{tokenize(function, [array.name for array in arrays], rows, columns, n)}",
    )
    starts = _interval_starts(plans[0].cuts, rows), _interval_starts(plans[1].cuts, columns)
    axes = tuple(range(parts.ndim))
    return da.blockwise(
        partial(_put_together, plans, starts, finish),
        (*axes[:-2], len(axes), len(axes) + 1),
        parts,
        axes,
        new_axes={len(axes): len(plans[0].low), len(axes) + 1: len(plans[1].low)},
        concatenate=True,
        dtype=dtype,
        meta=np.empty((0,) * parts.ndim, dtype),
    )


def _cuts_by_chunk(cuts: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    ends = np.cumsum(lengths)
    return [
        np.unique(np.concatenate(([0, length], cuts[(cuts > end - length) & (cuts < end)] - (end - length))))
        for end, length in zip(ends, lengths, strict=True)
    ]


def _interval_starts(cuts: np.ndarray, by_chunk: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers of the cells, counted over the chunks side by side, that begin a new interval between ``cuts``."""
    offsets = np.cumsum([0, *(chunk_cuts[-1] for chunk_cuts in by_chunk[:-1])])
    starts = np.concatenate([offset + chunk_cuts[:-1] for offset, chunk_cuts in zip(offsets, by_chunk, strict=True)])
    return np.flatnonzero(np.isin(starts, cuts))


def _sums_of_chunk(
    function: BlockFunction,
    rows: list[np.ndarray],
    columns: list[np.ndarray],
    n: int,
    dtype: DTypeLike,
    *blocks: np.ndarray,
    block_id: tuple[int, ...],
) -> np.ndarray:
    cells = Cells(rows[block_id[-2]], columns[block_id[-1]])
    return _over_blocks(function, cells, n, dtype, blocks)


def _put_together(
    plans: tuple[AxisPlan, AxisPlan], interval_starts: tuple[np.ndarray, np.ndarray], finish: Finish, parts: np.ndarray
) -> np.ndarray:
    """Add the pieces of intervals that chunk borders cut, then sum the chips."""
    for axis, starts in zip((-2, -1), interval_starts, strict=True):
        parts = np.add.reduceat(parts, starts, axis=axis)
    return finish(sums_of_parts(parts, plans))


def class_counts(codes: Array, grid: ChipGrid, rule: QualityRule | None = None) -> Any:
    """Count the pixels of each `QualityClass` in each chip.

    Parameters
    ----------
    codes
        (..., y, x): values of a quality band, or uint8 class codes if ``rule`` is None. NumPy or Dask, in any chunks.
    grid
        The chips. Pixels of a chip outside the scene are NODATA.
    rule
        The rule for the values.

    Returns
    -------
    numpy.ndarray or dask.array.Array
        int64 (..., 7, chip_y, chip_x); lazy if ``codes`` is.
    """
    complete = partial(complete_counts, areas=chip_areas(grid))
    return _reduce([codes], grid, partial(count_block, rule), N_CLASSES, np.int64, complete)


def count_block(rule: QualityRule | None, block: np.ndarray, cells: Cells) -> np.ndarray:
    """Count the classes of one block: the function that `class_counts` passes to `chip_sums`."""
    counter, block = counter_for(rule, block)
    return count_classes(block, counter, cells.rows, cells.columns)


def counter_for(rule: QualityRule | None, block: np.ndarray) -> tuple[ClassCounter, np.ndarray]:
    """Return the counter for a block of values, and the block in a dtype that it can count."""
    if rule is None:
        return code_counter(), block.astype(np.uint8, copy=False)
    if block.dtype.kind in "iub" and block.dtype.itemsize <= 2:
        return compile_rule(rule, block.dtype), block
    return code_counter(), rule.codes(block)


def chip_areas(grid: ChipGrid) -> np.ndarray:
    """Return the number of pixels of each chip, inside and outside the scene: int64 (chip_y, chip_x)."""
    return grid.rows[2][:, None] * grid.columns[2][None, :]


def complete_counts(counts: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return counts (..., 7, chip_y, chip_x) in which uncounted pixels are NODATA."""
    counts = counts.copy()
    counts[..., NODATA, :, :] = areas - counts[..., NODATA + 1 :, :, :].sum(axis=-3)
    return counts


def fractions_of(counts: np.ndarray) -> np.ndarray:
    """Return fractions from counts, both (..., 7, chip_y, chip_x): nodata of all pixels, the other classes of the valid ones.

    float64 in [0, 1]; NaN where no pixel is valid.
    """
    total = counts.sum(axis=-3, keepdims=True)
    valid = total - counts[..., :1, :, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        out = counts / valid
    out[..., 0, :, :] = counts[..., 0, :, :] / total[..., 0, :, :]
    return out


def chip_stats(codes: xr.DataArray, grid: ChipGrid, rule: QualityRule | None = None) -> xr.Dataset:
    """Return the fractions of each chip: a Dataset of `FRACTIONS`, dims (time, chip_y, chip_x), or without time like ``codes``.

    ``codes`` runs downwards along y and to the right along x. The coordinates chip_y and chip_x are the chips' indices.
    """
    counts = class_counts(codes.transpose(..., "y", "x").data, grid, rule)
    fractions = fractions_of(counts) if isinstance(counts, np.ndarray) else counts.map_blocks(fractions_of, dtype=np.float64)
    lead, coords = _lead(codes, grid)
    names = dict(zip(FRACTIONS, range(N_CLASSES), strict=True))
    return xr.Dataset(
        {name: ((*lead, "chip_y", "chip_x"), fractions[..., code, :, :]) for name, code in names.items()}, coords=coords
    )


def array_sums(
    obj: Xarray,
    function: BlockFunction,
    bands: str | Sequence[str],
    size: Size = 256,
    *,
    n: int,
    **grid_options: Unpack[GridOptions],
) -> xr.DataArray:
    """Return `chip_sums` of bands of an array, with their coordinates: (..., sum, chip_y, chip_x)."""
    ds = as_dataset(obj)
    grid = array_grid(ds, size, **grid_options)
    arrays = [ds[name].transpose(..., "y", "x") for name in ([bands] if isinstance(bands, str) else bands)]
    sums = chip_sums([array.data for array in arrays], grid, function, n=n)
    lead, coords = _lead(arrays[0], grid)
    return xr.DataArray(sums, coords, (*lead, "sum", "chip_y", "chip_x"))


def _lead(array: xr.DataArray, grid: ChipGrid) -> tuple[tuple[Hashable, ...], dict[Hashable, Any]]:
    """(dims besides y and x, coordinates of an array of one value per chip)."""
    lead = tuple(dim for dim in array.dims if dim not in ("y", "x"))
    coords = {name: coord for name, coord in array.coords.items() if set(coord.dims) <= set(lead)}
    return lead, {**coords, "chip_y": grid.rows[0], "chip_x": grid.columns[0]}
