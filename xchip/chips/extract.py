"""Cut chips out of an array: one as a slice, many as one lazy array (chip, y, x)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr

from xchip.chips.chip_rows import CHIP_COORDS
from xchip.chips.dask_graph import block_key, graph_array
from xchip.core.arrays import SPATIAL_DIMS, ArrayScene, Xarray, array_scenes, as_dataset, fill_of, pixel_grid
from xchip.core.grid import LATTICE_TOLERANCE, Chip, PixelGrid

if TYPE_CHECKING:
    import dask.array as da
    from dask.typing import Key

NEEDED = ("chip_id", "item_id", "width", "height", "proj_code", "proj_left", "proj_top")
"""Columns of the index that locate a chip."""


def isel_chip(obj: Xarray, chip: Chip) -> Xarray:
    """Return the pixels of one chip: a slice of ``obj`` in the orientation of ``obj``, padded with nodata outside of it."""
    y_dim, x_dim = next(pair for pair in SPATIAL_DIMS if set(pair) <= set(obj.dims))
    slices: dict[str, slice] = {}
    padding: dict[str, tuple[int, int]] = {}
    centres: dict[str, np.ndarray] = {}
    for dim, offset, length, downwards in ((y_dim, chip.row_off, chip.height, True), (x_dim, chip.col_off, chip.width, False)):
        values, n = obj[dim].values, obj.sizes[dim]
        if n > 1 and (values[0] < values[-1]) == downwards:
            offset = n - offset - length  # the array runs the other way
        start, stop = max(0, offset), min(n, offset + length)
        slices[dim] = slice(start, stop)
        padding[dim] = (start - offset, offset + length - stop)
        if any(padding[dim]):
            step = (values[-1] - values[0]) / (n - 1) if n > 1 else 0.0
            extended = values[0] + step * np.arange(offset, offset + length)
            extended[start - offset : stop - offset] = values[slices[dim]]
            centres[dim] = extended
    part = obj.isel(slices)
    if not centres:
        return part
    if isinstance(part, xr.DataArray):
        return _pad(part, padding).assign_coords(centres)
    return part.map(lambda band: _pad(band, padding), keep_attrs=True).assign_coords(centres)


def _pad(array: xr.DataArray, padding: Mapping[str, tuple[int, int]]) -> xr.DataArray:
    widths = {dim: width for dim, width in padding.items() if dim in array.dims and any(width)}
    if not widths:
        return array
    bare = array.drop_vars([dim for dim in widths if dim in array.coords])
    padded = bare.pad(widths, mode="constant", constant_values=fill_of(array))
    padded.encoding = array.encoding
    return padded


@dataclass(frozen=True, slots=True)
class _Window:
    """Where a chip lies in an array. Parts outside the array are filled."""

    time: int
    rows: tuple[int, int]
    """[start, stop) in the array."""
    columns: tuple[int, int]
    to_row: int
    """Row of the chip that ``rows`` begin at."""
    to_column: int


def extract_rows(obj: Xarray, rows: pd.DataFrame, *, pad: bool = False, batch: int = 64) -> xr.Dataset:
    """Return the chips of ``rows`` as one Dataset (chip, y, x); see ``.chips.extract``."""
    ds = as_dataset(obj)
    if batch < 1:
        raise ValueError(f"batch is the number of chips in a chunk and must be at least 1, got {batch}")
    size = _common_size(rows, pad)
    windows = _windows(ds, rows)
    variables = {}
    for name, array in ds.data_vars.items():
        if not {"y", "x"} <= set(array.dims):
            continue
        array = array.transpose(..., "y", "x")
        if "time" in array.dims:
            array = array.transpose("time", ...)
        data = array.data if "time" in array.dims else array.data[None]
        extra = tuple(dim for dim in array.dims if dim not in ("time", "y", "x"))
        taken = _take(data, windows, size, fill_of(array), batch)
        variables[name] = xr.Variable(("chip", *extra, "y", "x"), taken, array.attrs, _nodata_encoding(array))
    coords: dict[str, object] = {name: ("chip", _values(rows[name])) for name in CHIP_COORDS if name in rows}
    coords |= {str(name): coord for name, coord in ds.coords.items() if name not in ("time", "y", "x") and not coord.dims}
    coords.pop("spatial_ref", None)  # its GeoTransform describes the scene, not a chip
    return xr.Dataset(variables, coords, ds.attrs)


def _values(column: pd.Series) -> np.ndarray:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return column.to_numpy(dtype=object) if isinstance(column.dtype, pd.StringDtype) else column.to_numpy()


def _nodata_encoding(array: xr.DataArray) -> dict[str, Any]:
    return {key: array.encoding[key] for key in ("_FillValue", "dtype") if key in array.encoding}


def _common_size(rows: pd.DataFrame, pad: bool) -> tuple[int, int]:
    missing = [name for name in NEEDED if name not in rows]
    if missing:
        raise ValueError(f"rows must be rows of an index, but the columns {missing} are missing")
    if not len(rows):
        return 0, 0
    heights, widths = rows["height"].to_numpy(), rows["width"].to_numpy()
    if not pad and ((heights != heights[0]).any() or (widths != widths[0]).any()):
        sizes = sorted({(int(h), int(w)) for h, w in zip(heights, widths, strict=True)})
        raise ValueError(
            f"the rows have chips of several sizes (height, width): {sizes[:5]}; pass pad=True to pad them to the largest"
        )
    return int(heights.max()), int(widths.max())


def _windows(ds: xr.Dataset, rows: pd.DataFrame) -> list[_Window]:
    if not len(rows):
        return []
    pixels = pixel_grid(ds)
    scenes = array_scenes(ds)
    by_id: defaultdict[str, list[ArrayScene]] = defaultdict(list)
    for scene in scenes:
        by_id[scene.item_id].append(scene)
    columns = [rows[name].to_numpy() for name in NEEDED]
    offsets = [rows[name].to_numpy() if name in rows else np.zeros(len(rows)) for name in ("col_off", "row_off")]
    times = _values(rows["datetime"]) if "datetime" in rows else np.full(len(rows), np.datetime64("NaT", "us"))
    windows = []
    for chip_id, item_id, width, height, crs, left, top, col_off, row_off, time in zip(*columns, *offsets, times, strict=True):
        if crs != pixels.crs:
            raise ValueError(f"chip {chip_id!r} is in {crs}, the array is in {pixels.crs}; stack the item of the chip")
        scene = _scene_of(chip_id, item_id, time, by_id)
        column, row = (left - pixels.transform[2]) / pixels.res[1], (pixels.transform[5] - top) / pixels.res[0]
        if max(abs(column - round(column)), abs(row - round(row))) > LATTICE_TOLERANCE:
            raise ValueError(
                f"chip {chip_id!r} does not lie on the array's pixels: it begins at column {column:.3f}, row {row:.3f}"
            )
        windows.append(
            _window(chip_id, scene, pixels, (round(row), round(column)), (int(height), int(width)), (int(row_off), int(col_off)))
        )
    return windows


def _scene_of(chip_id: str, item_id: str, time: np.datetime64, by_id: Mapping[str, Sequence[ArrayScene]]) -> ArrayScene:
    candidates = by_id.get(item_id) or by_id.get("", [])
    if len(candidates) > 1:
        candidates = [scene for scene in candidates if scene.datetime == time] or candidates
    if len(candidates) != 1:
        match = f"{len(candidates)} time steps of it" if candidates else f"only {sorted(by_id)[:5]}"
        raise ValueError(f"chip {chip_id!r}: looked for item {item_id!r} in the array and found {match}")
    return candidates[0]


def _window(
    chip_id: str, scene: ArrayScene, pixels: PixelGrid, start: tuple[int, int], size: tuple[int, int], offset: tuple[int, int]
) -> _Window:
    """Return the part of a chip that the array holds.

    ``offset`` is the chip's first row and column in its item. Parts outside the item are padding; the array must hold the rest.
    """
    parts = []
    low = (scene.row, scene.column)
    for axis in (0, 1):
        first, last = start[axis], start[axis] + size[axis]
        low_end, high_end = low[axis], low[axis] + scene.pixels.shape[axis]
        item_begins = first - offset[axis]
        if max(first, item_begins) < low_end or first >= high_end or last <= low_end:
            raise ValueError(
                f"chip {chip_id!r} is not wholly in the array: it needs {('rows', 'columns')[axis]} {first} to {last}, "
                f"the array has {low_end} to {high_end} of item {scene.item_id!r}"
            )
        parts.append((max(first, low_end), min(last, high_end)))
    rows, columns = parts
    return _Window(scene.time or 0, rows, columns, rows[0] - start[0], columns[0] - start[1])


Index: TypeAlias = tuple[Any, ...]
"""Positions, slices and an ellipsis."""

Piece: TypeAlias = tuple[Index, Index]
"""(index into the source block, index into the batch)."""


def _take(
    data: np.ndarray | da.Array, windows: Sequence[_Window], size: tuple[int, int], fill: np.generic, batch: int
) -> np.ndarray | da.Array:
    """Return windows of ``data`` (time, ..., y, x) as (chip, ..., y, x); lazy if ``data`` is."""
    import dask.array as da

    shape = (len(windows), *data.shape[1:-2], *size)
    if isinstance(data, da.Array):
        return _take_lazily(data, windows, shape, fill, batch)
    out = np.full(shape, fill, data.dtype)
    for chip, window in enumerate(windows):
        source, target = _piece(window, chip, (0, 0, 0))
        out[target] = data[source]
    return out


def _piece(window: _Window, chip: int, origin: tuple[int, int, int], block: tuple[slice, slice] | None = None) -> Piece:
    """Return the piece of a chip from the block at ``origin`` (time, row, column) with the (rows, columns) ``block``."""
    time, row, column = origin
    rows, columns = window.rows, window.columns
    if block is not None:
        rows = max(rows[0], block[0].start), min(rows[1], block[0].stop)
        columns = max(columns[0], block[1].start), min(columns[1], block[1].stop)
    source = (window.time - time, ..., slice(rows[0] - row, rows[1] - row), slice(columns[0] - column, columns[1] - column))
    to_row = window.to_row + rows[0] - window.rows[0]
    to_column = window.to_column + columns[0] - window.columns[0]
    target = (chip, ..., slice(to_row, to_row + rows[1] - rows[0]), slice(to_column, to_column + columns[1] - columns[0]))
    return source, target


def _take_lazily(data: da.Array, windows: Sequence[_Window], shape: tuple[int, ...], fill: np.generic, batch: int) -> da.Array:
    import dask.array as da
    from dask.base import tokenize

    if not windows:
        return da.empty(shape, dtype=data.dtype, chunks=shape)
    ends = [np.cumsum(data.chunks[axis]) for axis in (0, -2, -1)]
    extra_chunks = data.chunks[1:-2]
    name = "extract-" + tokenize(data.name, windows, shape, fill, batch)
    graph: dict[Key, object] = {}
    lengths = []
    for number, first in enumerate(range(0, len(windows), batch)):
        chips = windows[first : first + batch]
        lengths.append(len(chips))
        # One task per source block cuts its pieces for this batch; one task assembles the pieces.
        pieces: defaultdict[tuple[int, int, int], list[Piece]] = defaultdict(list)
        for chip, window in enumerate(chips):
            for block, piece in _pieces(window, chip, ends):
                pieces[block].append(piece)
        for extra in product(*(range(len(chunks)) for chunks in extra_chunks)):
            extra_shape = tuple(chunks[position] for chunks, position in zip(extra_chunks, extra, strict=True))
            cuts = []
            for part, ((t, i, j), of_block) in enumerate(pieces.items()):
                key = block_key("cut-" + name, number, *extra, part)
                graph[key] = (partial(_cut, [source for source, _ in of_block]), (data.name, t, *extra, i, j))
                cuts.append(key)
            targets = [[target for _, target in of_block] for of_block in pieces.values()]
            full = (len(chips), *extra_shape, *shape[-2:])
            graph[block_key(name, number, *extra, 0, 0)] = (partial(_assemble, full, fill, data.dtype, targets), cuts)
    chunks = (tuple(lengths), *extra_chunks, (shape[-2],), (shape[-1],))
    return graph_array(name, graph, chunks, data.dtype, [data])


def _pieces(window: _Window, chip: int, ends: Sequence[np.ndarray]) -> list[tuple[tuple[int, int, int], Piece]]:
    """Return (block, piece) for each block of the source that a chip touches."""
    (t,) = np.searchsorted(ends[0], [window.time], side="right")
    ranges = []
    for axis, (start, stop) in ((1, window.rows), (2, window.columns)):
        first, last = np.searchsorted(ends[axis], [start, stop - 1], side="right")
        ranges.append(range(int(first), int(last) + 1))
    pieces = []
    for i, j in product(*ranges):
        blocks = [_block(axis_ends, position) for axis_ends, position in zip(ends, (int(t), i, j), strict=True)]
        origin = (blocks[0].start, blocks[1].start, blocks[2].start)
        pieces.append(((int(t), i, j), _piece(window, chip, origin, (blocks[1], blocks[2]))))
    return pieces


def _block(ends: np.ndarray, position: int) -> slice:
    return slice(int(ends[position - 1]) if position else 0, int(ends[position]))


def _cut(sources: Sequence[Index], block: np.ndarray) -> list[np.ndarray]:
    # Copies: a view would keep the whole block in memory.
    return [block[source].copy() for source in sources]


def _assemble(
    shape: tuple[int, ...],
    fill: np.generic,
    dtype: np.dtype,
    targets: Sequence[Sequence[Index]],
    cuts: Sequence[Sequence[np.ndarray]],
) -> np.ndarray:
    out = np.full(shape, fill, dtype)
    for of_block, pieces in zip(targets, cuts, strict=True):
        for target, piece in zip(of_block, pieces, strict=True):
            out[target] = piece
    return out
