"""A function of chips over a whole scene, and its results back on the scene's grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from xchip.chips.blend import Blend, Overlap, blend_of, blend_window, paint, weights_of
from xchip.chips.placement import Placement, by_block, place
from xchip.chips.stitch import CHUNK_BYTES, CHUNK_PIXELS, chunk_sizes, with_crs
from xchip.core.arrays import Xarray, as_dataset, fill_of, pixel_grid
from xchip.core.grid import Anchor, ChipGrid, Edge, Pair, PixelGrid, Size, chip_grid

ChipFunction = Callable[[np.ndarray], Any]
"""``function(chips)``: (n, band, y, x) to (n, y, x), (n, k, y, x), (n,) or (n, k)."""


@dataclass(frozen=True)
class _Call:
    """How the function is called."""

    fills: np.ndarray
    """What each band has outside the scene."""
    size: tuple[int, int]
    """(y, x) of a chip."""
    batch: int
    """Chips at once, at most."""
    shape: tuple[int, ...]
    """What the function returns for one chip."""
    dtype: np.dtype
    """And its dtype."""


def map_chips(
    obj: Xarray,
    function: ChipFunction,
    size: Size = 256,
    *,
    bands: str | Sequence[str] | None = None,
    overlap: Overlap | np.ndarray = "mean",
    batch: int = 16,
    template: Any = None,
    dim: str = "class",
    fill: Any = None,
    stride: Pair | None = None,
    edge: Edge | None = None,
    anchor: Anchor = "origin",
) -> xr.DataArray:
    """``function`` of each chip, put back on the scene's grid: what is behind ``.chips.map``, where it is described."""
    window = blend_window(overlap)
    if not isinstance(batch, (int, np.integer)) or batch < 1:
        raise ValueError(f"batch is the number of chips that the function gets at once, at least 1, got {batch}")
    ds = as_dataset(obj)
    if edge is None:
        edge = "drop" if isinstance(size, ChipGrid) else "pad"  # a ChipGrid has its own; "drop" is what chip_grid takes for none
    grid = chip_grid(pixel_grid(ds), size, stride=stride, edge=edge, anchor=anchor)
    if grid.edge == "partial":
        raise ValueError("edge='partial' makes chips of several sizes, and the function gets chips of one: use 'pad' or 'shift'")
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
    """The chosen bands, of one dtype, all (time, y, x) or all (y, x)."""
    if bands is None:
        names = [str(name) for name, array in ds.data_vars.items() if {"y", "x"} <= set(array.dims)]
    else:
        names = [bands] if isinstance(bands, str) else list(bands)
    missing = [name for name in names if name not in ds.variables]
    if missing or not names:
        raise ValueError(f"there are no bands {missing or bands}; the array has {[str(name) for name in ds.data_vars]}")
    arrays = [ds[name].transpose("time", ..., missing_dims="ignore").transpose(..., "y", "x") for name in names]
    dims, dtypes = {array.dims for array in arrays}, {array.dtype for array in arrays}
    if len(dims) > 1 or not dims <= {("time", "y", "x"), ("y", "x")}:
        raise ValueError(f"bands must all have the dims (time, y, x) or (y, x), got {sorted(dims)}")
    if len(dtypes) > 1:
        found = {name: str(array.dtype) for name, array in zip(names, arrays, strict=True)}
        raise ValueError(
            f"the function gets the bands as one array, so they must have one dtype, not {found}; choose with bands=, or convert "
            "with .astype"
        )
    return arrays


def _call(function: ChipFunction, arrays: Sequence[xr.DataArray], grid: ChipGrid, batch: int, template: Any) -> _Call:
    size = (int(grid.rows[2][0]), int(grid.columns[2][0]))
    fills = np.array([fill_of(array) for array in arrays])
    if template is None:
        one = np.empty((1, len(fills), *size), fills.dtype)
        one[:] = fills[:, None, None]
        template = _made(function, one)
        if template.shape[:1] != (1,):
            raise ValueError(
                f"the function got chips of shape {one.shape} and returned {template.shape}; the first must be 1 too"
            )
        template = template[0]
    shape, dtype = tuple(int(length) for length in template.shape), np.dtype(template.dtype)
    if len(shape) > 3:
        raise ValueError(f"for one chip the function may return (y, x), (k, y, x), (k,) or (), not shape {shape}")
    if 0 in shape:
        raise ValueError(f"the function has to return something for each chip, not an array of shape {shape}")
    return _Call(fills, size, batch, shape, dtype)


def _mapped(
    function: ChipFunction,
    arrays: Sequence[xr.DataArray],
    grid: ChipGrid,
    placement: Placement,
    call: _Call,
    window: Any,
    fill: Any,
) -> Any:
    """The result, lazy: (time, ..., y, x).

    A chunk is one task: it reads the pixels under its chips, maps these and blends them. Chips on the border of two chunks
    are mapped for both; results do not wait for those of other chunks, so that none pile up in memory.
    """
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    name = "the function's result"
    blend = blend_of(call.dtype, placement, window, nodata=None, fill=fill, name=name)
    *extra, chip_height, chip_width = _pixel_shape(call)
    weights = weights_of(blend, window, (chip_height, chip_width), name)
    rows, columns = chunk_sizes(_chunk(grid, placement, call), placement, 1)
    sources = [da.asarray(array.data if "time" in array.dims else array.data[None]) for array in arrays]
    name = "map-chips-" + da.core.tokenize(function, [source.name for source in sources], grid, blend, weights, call)
    # A model may be large, and so may weights: each is in the graph once.
    graph: dict[Any, Any] = {"function-" + name: function, "weights-" + name: weights}
    own = {(i, j): table for _, i, j, table in by_block(placement.pieces(rows, columns), [len(grid)])}
    for number, ((i, height), (j, width)) in enumerate(product(enumerate(rows), enumerate(columns))):
        table = own.get((i, j), np.empty((0, 10), np.int64))
        tile = _tile(grid, table, (*extra, height, width))
        parts = [_parts(tile, source.chunks[1:]) for source in sources]
        for step in range(sources[0].shape[0]):
            windows: list[list[Any]] = []
            for band, (source, found) in enumerate(zip(sources, parts, strict=True)):
                block, within = _block_of(source.chunks[0], step)
                windows.append([("read-" + name, number, step, band, part) for part in range(len(found))])
                for key, ((y, x), taken, target) in zip(windows[-1], found, strict=True):
                    graph[key] = (partial(_read, (within, *taken), target), (source.name, block, y, x))
            task = partial(_map_chunk, tile, call, blend)
            graph[name, step, *(0 for _ in extra), i, j] = (task, "function-" + name, "weights-" + name, windows)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=sources)
    chunks = ((1,) * sources[0].shape[0], *((length,) for length in extra), rows, columns)
    return da.Array(layers, name, chunks, meta=np.empty((0,) * len(chunks), blend.dtype))


def _pixel_shape(call: _Call) -> tuple[int, ...]:
    """What one chip gives, (..., y, x): one pixel where the function returns no pixels."""
    return call.shape if len(call.shape) > 1 else (*call.shape, 1, 1)


def _chunk(grid: ChipGrid, placement: Placement, call: _Call) -> tuple[int, int]:
    """(y, x) pixels of a chunk of the result: whole strides, and not too many pixels in or out."""
    read = len(call.fills) * math.prod(grid.stride) * call.fills.itemsize
    made = math.prod(_pixel_shape(call)[:-2]) * math.prod(placement.strides) * max(4, call.dtype.itemsize)
    side = max(1, min(int((CHUNK_BYTES / max(read, made)) ** 0.5), CHUNK_PIXELS // max(grid.stride)))
    return side * placement.strides[0], side * placement.strides[1]


@dataclass(frozen=True, slots=True)
class _Tile:
    """The chips of one chunk of the result."""

    table: np.ndarray
    """Their pieces, as `Placement.pieces` tells."""
    corners: tuple[tuple[int, int], ...]
    """(y, x) of each chip in the window of the scene that they lie in."""
    origin: tuple[int, int]
    """The window's first row and column in the scene; may be negative."""
    window: tuple[int, int]
    """Its (y, x) pixels."""
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


_Part = tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]
"""(block of the scene, what is taken of it, where it lies in the tile's window)."""


def _parts(tile: _Tile, chunks: Sequence[Sequence[int]]) -> list[_Part]:
    """The blocks of the scene that a tile touches."""
    found = []
    for first, length, sizes in zip(tile.origin, tile.window, chunks, strict=True):
        own = []
        begin = 0
        for block, size in enumerate(sizes):
            start, stop = max(first, begin), min(first + length, begin + size)
            if start < stop:
                own.append((block, slice(start - begin, stop - begin), slice(start - first, stop - first)))
            begin += size
        found.append(own)
    return [((i, j), (y, x), (to_y, to_x)) for (i, y, to_y), (j, x, to_x) in product(*found)]


def _block_of(sizes: Sequence[int], position: int) -> tuple[int, int]:
    """(block, position in it)."""
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
    """One chunk of the result, (1, ..., y, x), from the ``windows`` (y, x) of each band."""
    pixels = np.empty((len(call.fills), *tile.window), call.fills.dtype)
    pixels[:] = call.fills[:, None, None]
    for band, parts in zip(pixels, windows, strict=True):
        for target, part in parts:
            band[target] = part
    return paint(tile.shape, blend, weights, _pieces(tile, call, function, pixels))[None]


def _pieces(tile: _Tile, call: _Call, function: ChipFunction, pixels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What the function makes of each chip, a batch at a time, cut to the chunk."""
    height, width = call.size
    for first in range(0, len(tile.corners), call.batch):
        corners = tile.corners[first : first + call.batch]
        chips = np.stack([pixels[:, y : y + height, x : x + width] for y, x in corners])
        result = _made(function, chips)
        wanted = (len(chips), *call.shape)
        if result.shape != wanted or not np.can_cast(result.dtype, call.dtype, "same_kind"):
            raise ValueError(
                f"the function got chips of shape {chips.shape} and returned {result.dtype} {result.shape}; it has to return "
                f"{call.dtype} {wanted}, as its template or its first call says"
            )
        result = result.reshape(len(chips), *_pixel_shape(call))
        for row, made in zip(tile.table[first : first + call.batch], result, strict=True):
            y, x, _, _, rows, columns = row[2:8].tolist()
            yield row, made[..., y : y + rows, x : x + columns]


def _made(function: ChipFunction, chips: np.ndarray) -> np.ndarray:
    """What the function makes of chips, as a plain array of numbers."""
    made = function(chips)
    if np.ma.is_masked(made):
        raise ValueError(
            "the function returned a masked array, and maps have no masks; give masked pixels a value, as in "
            "made.filled(numpy.nan), and tell it by fill="
        )
    made = np.asarray(made)
    if made.dtype.kind not in "biufc":
        raise ValueError(f"the function returned values of type {made.dtype}; it has to return numbers")
    return made


def _with_coords(array: xr.DataArray, ds: xr.Dataset, grid: ChipGrid, pixels: PixelGrid) -> xr.DataArray:
    """``array`` with the coordinates of the scene: pixel centres, times, a CRS."""
    coords = {name: coord for name, coord in ds.coords.items() if set(coord.dims) <= {"time"} & set(array.dims)}
    coords.pop("spatial_ref", None)  # its GeoTransform is the scene's
    # The scene's own centres, to the last bit: results then line up with it as a new variable.
    y, x = (ds["y"].values, ds["x"].values) if pixels == grid.pixels else pixels.centres()
    name = "mapped"
    return with_crs(array.assign_coords({**coords, "y": y, "x": x}).to_dataset(name=name), pixels.crs)[name].rename(None)
