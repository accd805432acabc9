"""Apply a function to the chips of a whole scene, and put its results back on the scene's grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import xarray as xr

from xchip.chips.blend import Blend, Fill, Overlap, blend_of, blend_window, paint, weights_of
from xchip.chips.dask_graph import block_key, graph_array
from xchip.chips.placement import Placement, by_block, place
from xchip.chips.stitch import CHUNK_BYTES, CHUNK_PIXELS, Window, chunk_sizes, with_crs
from xchip.core.arrays import Xarray, as_dataset, fill_of, pixel_grid
from xchip.core.grid import Anchor, ChipGrid, Edge, Pair, PixelGrid, Size, chip_grid

if TYPE_CHECKING:
    import dask.array as da

ChipFunction: TypeAlias = Callable[[np.ndarray], Any]
"""``function(chips)``: (n, band, y, x) to (n, y, x), (n, k, y, x), (n,) or (n, k); an array, or an object like one."""


class Template(Protocol):
    """An array, or anything with its shape and dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""

    @property
    def dtype(self) -> np.dtype:
        """Data type."""


@dataclass(frozen=True)
class _Call:
    """Input and output of the function."""

    fills: np.ndarray
    """Value of each band outside the scene."""
    size: tuple[int, int]
    """(y, x) of a chip."""
    batch: int
    """Largest number of chips in a call."""
    shape: tuple[int, ...]
    """Shape of the result for one chip."""
    dtype: np.dtype
    """Data type of the result."""


def map_chips(
    obj: Xarray,
    function: ChipFunction,
    size: Size = 256,
    *,
    bands: str | Sequence[str] | None = None,
    overlap: Overlap | np.ndarray = "mean",
    batch: int = 16,
    template: Template | None = None,
    dim: str = "class",
    fill: Fill | None = None,
    stride: Pair | None = None,
    edge: Edge | None = None,
    anchor: Anchor = "origin",
) -> xr.DataArray:
    """Apply ``function`` to each chip and put the results back on the scene's grid; see ``.chips.map``."""
    window = blend_window(overlap)
    if not isinstance(batch, (int, np.integer)) or batch < 1:
        raise ValueError(f"batch is the number of chips in a call of the function and must be at least 1, got {batch}")
    ds = as_dataset(obj)
    if edge is None:
        edge = "drop" if isinstance(size, ChipGrid) else "pad"  # chip_grid takes no other with a ChipGrid
    grid = chip_grid(pixel_grid(ds), size, stride=stride, edge=edge, anchor=anchor)
    if grid.edge == "partial":
        raise ValueError("edge='partial' makes chips of several sizes, but the function needs one size; use 'pad' or 'shift'")
    if not len(grid):
        raise ValueError(f"the grid has no chips: the scene has {grid.pixels.shape} pixels, a chip {grid.size}; use edge='pad'")
    arrays = _bands(ds, bands)
    call = _call(function, arrays, grid, batch, template)
    numbers = np.divmod(np.arange(len(grid)), grid.shape[1])
    placement = place(grid, numbers, (call.shape[-2], call.shape[-1]) if len(call.shape) > 1 else None)
    data = _mapped(function, arrays, grid, placement, call, window, fill)
    time = ("time",) if "time" in arrays[0].dims else ()
    dims = (*time, *((dim,) if len(call.shape) in (1, 3) else ()), "y", "x")
    attrs = {} if fill is None else {"_FillValue": data.dtype.type(fill)}
    return _with_coords(xr.DataArray(data if time else data[0], dims=dims, attrs=attrs), ds, grid, placement.pixels)


def _bands(ds: xr.Dataset, bands: str | Sequence[str] | None) -> list[xr.DataArray]:
    """Return the chosen bands. They have one dtype, and are all (time, y, x) or all (y, x)."""
    if bands is None:
        names = [str(name) for name, array in ds.data_vars.items() if {"y", "x"} <= set(array.dims)]
    else:
        names = [bands] if isinstance(bands, str) else list(bands)
    missing = [name for name in names if name not in ds.variables]
    if missing or not names:
        raise ValueError(f"the array has no bands {missing or bands}, only {[str(name) for name in ds.data_vars]}")
    arrays = [ds[name].transpose("time", ..., missing_dims="ignore").transpose(..., "y", "x") for name in names]
    dims, dtypes = {array.dims for array in arrays}, {array.dtype for array in arrays}
    if len(dims) > 1 or not dims <= {("time", "y", "x"), ("y", "x")}:
        raise ValueError(f"bands must all have the dims (time, y, x) or (y, x), got {sorted(dims)}")
    if len(dtypes) > 1:
        dtype_of = {name: str(array.dtype) for name, array in zip(names, arrays, strict=True)}
        raise ValueError(
            f"the function gets the bands as one array, so they must have one dtype, got {dtype_of}; choose bands with bands=, "
            "or convert them with .astype"
        )
    return arrays


def _call(function: ChipFunction, arrays: Sequence[xr.DataArray], grid: ChipGrid, batch: int, template: Template | None) -> _Call:
    size = (int(grid.rows[2][0]), int(grid.columns[2][0]))
    fills = np.array([fill_of(array) for array in arrays])
    if template is None:
        chips = np.empty((1, len(fills), *size), fills.dtype)
        chips[:] = fills[:, None, None]
        result = _result(function, chips)
        if result.shape[:1] != (1,):
            raise ValueError(
                f"the function got chips of shape {chips.shape} and returned {result.shape}; the first length must be 1, too"
            )
        template = result[0]
    shape, dtype = tuple(int(length) for length in template.shape), np.dtype(template.dtype)
    if len(shape) > 3:
        raise ValueError(f"for one chip the function must return (y, x), (k, y, x), (k,) or (), got shape {shape}")
    if 0 in shape:
        raise ValueError(f"the function must return at least one value for each chip, got an array of shape {shape}")
    return _Call(fills, size, batch, shape, dtype)


def _mapped(
    function: ChipFunction,
    arrays: Sequence[xr.DataArray],
    grid: ChipGrid,
    placement: Placement,
    call: _Call,
    window: Window,
    fill: Fill | None,
) -> da.Array:
    """Return the lazy result (time, ..., y, x).

    Each chunk is one task: it reads the pixels of its chips, maps the chips and blends the results. Chips on the border of two
    chunks are mapped for both. Chunks don't wait for each other, so results don't pile up in memory.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.typing import Key

    name = "the function's result"
    blend = blend_of(call.dtype, placement, window, nodata=None, fill=fill, name=name)
    *extra, chip_height, chip_width = _pixel_shape(call)
    weights = weights_of(blend, window, (chip_height, chip_width), name)
    rows, columns = chunk_sizes(_chunk(grid, placement, call), placement, 1)
    sources = [da.asarray(array.data if "time" in array.dims else array.data[None]) for array in arrays]
    name = "map-chips-" + tokenize(function, [source.name for source in sources], grid, blend, weights, call)
    # A model may be large, and so may weights: each is in the graph once.
    graph: dict[Key, object] = {"function-" + name: function, "weights-" + name: weights}
    tables = {(i, j): table for _, i, j, table in by_block(placement.pieces(rows, columns), [len(grid)])}
    for number, ((i, height), (j, width)) in enumerate(product(enumerate(rows), enumerate(columns))):
        table = tables.get((i, j), np.empty((0, 10), np.int64))
        tile = _tile(grid, table, (*extra, height, width))
        parts = [_parts(tile, source.chunks[1:]) for source in sources]
        for step in range(sources[0].shape[0]):
            windows: list[list[Key]] = []
            for band, (source, blocks) in enumerate(zip(sources, parts, strict=True)):
                block, within = _block_of(source.chunks[0], step)
                windows.append([block_key("read-" + name, number, step, band, part) for part in range(len(blocks))])
                for key, ((y, x), taken, target) in zip(windows[-1], blocks, strict=True):
                    graph[key] = (partial(_read, (within, *taken), target), (source.name, block, y, x))
            task = partial(_map_chunk, tile, call, blend)
            graph[block_key(name, step, *(0 for _ in extra), i, j)] = (task, "function-" + name, "weights-" + name, windows)
    chunks = ((1,) * sources[0].shape[0], *((length,) for length in extra), rows, columns)
    return graph_array(name, graph, chunks, blend.dtype, sources)


def _pixel_shape(call: _Call) -> tuple[int, ...]:
    """Return the shape (..., y, x) of the result for one chip; a value without pixels counts as one pixel."""
    return call.shape if len(call.shape) > 1 else (*call.shape, 1, 1)


def _chunk(grid: ChipGrid, placement: Placement, call: _Call) -> tuple[int, int]:
    """Return the (y, x) pixels of a chunk: whole strides, with limited input and output."""
    read = len(call.fills) * math.prod(grid.stride) * call.fills.itemsize
    written = math.prod(_pixel_shape(call)[:-2]) * math.prod(placement.strides) * max(4, call.dtype.itemsize)
    side = max(1, min(int((CHUNK_BYTES / max(read, written)) ** 0.5), CHUNK_PIXELS // max(grid.stride)))
    return side * placement.strides[0], side * placement.strides[1]


@dataclass(frozen=True, slots=True)
class _Tile:
    """The chips of one chunk of the result."""

    table: np.ndarray
    """Their rows of `Placement.pieces`."""
    corners: tuple[tuple[int, int], ...]
    """(y, x) of each chip in the window, the part of the scene that holds the chips."""
    origin: tuple[int, int]
    """First row and column of the window in the scene; may be negative."""
    window: tuple[int, int]
    """(y, x) pixels of the window."""
    shape: tuple[int, ...]
    """(..., y, x) of the chunk."""


def _tile(grid: ChipGrid, table: np.ndarray, shape: tuple[int, ...]) -> _Tile:
    if not len(table):
        return _Tile(table, (), (0, 0), (0, 0), shape)
    corners, origin, window = [], [], []
    for number, (_, starts, lengths) in zip(np.divmod(table[:, 1], grid.shape[1]), (grid.rows, grid.columns), strict=True):
        first, last = int(starts[number.min()]), int(starts[number.max()] + lengths[number.max()])
        corners.append((starts[number] - first).tolist())
        origin.append(first)
        window.append(last - first)
    return _Tile(table, tuple(zip(*corners, strict=True)), (origin[0], origin[1]), (window[0], window[1]), shape)


_Part: TypeAlias = tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]
"""(block of the scene, slices of the block, slices of the tile's window)."""


def _parts(tile: _Tile, chunks: Sequence[Sequence[int]]) -> list[_Part]:
    """Return the blocks of the scene that a tile touches."""
    axes = []
    for first, length, sizes in zip(tile.origin, tile.window, chunks, strict=True):
        parts = []
        begin = 0
        for block, size in enumerate(sizes):
            start, stop = max(first, begin), min(first + length, begin + size)
            if start < stop:
                parts.append((block, slice(start - begin, stop - begin), slice(start - first, stop - first)))
            begin += size
        axes.append(parts)
    return [((i, j), (y, x), (to_y, to_x)) for (i, y, to_y), (j, x, to_x) in product(*axes)]


def _block_of(sizes: Sequence[int], position: int) -> tuple[int, int]:
    """Return (block, position in the block)."""
    ends = np.cumsum(sizes)
    block = int(np.searchsorted(ends, position, side="right"))
    return block, position - int(ends[block] - sizes[block])


def _read(taken: tuple[Any, ...], target: tuple[slice, slice], block: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    # A copy: a view would keep the whole block in memory.
    return target, block[taken].copy()


def _map_chunk(
    tile: _Tile,
    call: _Call,
    blend: Blend,
    function: ChipFunction,
    weights: np.ndarray | None,
    windows: Sequence[Sequence[tuple[tuple[slice, slice], np.ndarray]]],
) -> np.ndarray:
    """Compute a chunk of the result, (1, ..., y, x), from the ``windows`` (y, x) of each band."""
    pixels = np.empty((len(call.fills), *tile.window), call.fills.dtype)
    pixels[:] = call.fills[:, None, None]
    for band, parts in zip(pixels, windows, strict=True):
        for target, part in parts:
            band[target] = part
    return paint(tile.shape, blend, weights, _pieces(tile, call, function, pixels))[None]


def _pieces(tile: _Tile, call: _Call, function: ChipFunction, pixels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the result for each chip, cut to the chunk; call the function batch by batch."""
    height, width = call.size
    for first in range(0, len(tile.corners), call.batch):
        corners = tile.corners[first : first + call.batch]
        chips = np.stack([pixels[:, y : y + height, x : x + width] for y, x in corners])
        result = _result(function, chips)
        expected = (len(chips), *call.shape)
        if result.shape != expected or not np.can_cast(result.dtype, call.dtype, "same_kind"):
            raise ValueError(
                f"the function got chips of shape {chips.shape} and returned {result.dtype} {result.shape}; it must return "
                f"{call.dtype} {expected}, like the template or its first call"
            )
        result = result.reshape(len(chips), *_pixel_shape(call))
        for row, values in zip(tile.table[first : first + call.batch], result, strict=True):
            y, x, _, _, rows, columns = row[2:8].tolist()
            yield row, values[..., y : y + rows, x : x + columns]


def _result(function: ChipFunction, chips: np.ndarray) -> np.ndarray:
    """Call the function, and return its result as a plain array of numbers."""
    result = function(chips)
    if np.ma.is_masked(result):
        raise ValueError(
            "the function returned a masked array, but maps have no masks; give masked pixels a value, as in "
            "result.filled(numpy.nan), and pass the value as fill="
        )
    array = np.asarray(result)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"the function returned values of type {array.dtype}; it must return numbers")
    return array


def _with_coords(array: xr.DataArray, ds: xr.Dataset, grid: ChipGrid, pixels: PixelGrid) -> xr.DataArray:
    """Return ``array`` with the coordinates of the scene: pixel centres, times, a CRS."""
    coords = {name: coord for name, coord in ds.coords.items() if set(coord.dims) <= {"time"} & set(array.dims)}
    coords.pop("spatial_ref", None)  # its GeoTransform describes the scene
    # Exactly the centres of the scene, so that the result aligns with it as a new variable.
    y, x = (ds["y"].values, ds["x"].values) if pixels == grid.pixels else pixels.centres()
    name = "mapped"
    return with_crs(array.assign_coords({**coords, "y": y, "x": x}).to_dataset(name=name), pixels.crs)[name].rename(None)
