"""Chips back on the scene's grid: the way back from `extract`, and the way home for what a model makes of chips."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from xchip.chips.blend import Blend, Overlap, blend_of, blend_window, paint, weights_of
from xchip.chips.placement import Placement, by_block, place, positions
from xchip.core.arrays import Xarray, nodata_of
from xchip.core.grid import ChipGrid, PixelGrid

# Chunks of the result: as large as a stack's, and never more than this many bytes.
CHUNK_PIXELS = 2048
CHUNK_BYTES = 64 << 20


def stitch(
    chips: Any, grid: ChipGrid, *, overlap: Overlap | np.ndarray = "mean", fill: Any = None, chunks: Any = "auto"
) -> Xarray:
    """Put chips, or what was made of them chip by chip, back on the scene's grid.

    Parameters
    ----------
    chips
        A Dataset or DataArray (chip, ..., y, x) as ``.chips.extract`` gives it, or computed from that: chips of ``grid``, each
        at most once, in any order; some may be missing. They are placed by the coordinates proj_left, proj_top, proj_right
        and proj_bottom; without these by chip_index_y and chip_index_x; without these, or as a plain NumPy or Dask array,
        they must be all the chips of the grid in its order.

        Chips may be coarser than the grid, by a whole number: (64, 64) for chips of 256 pixels gives a raster whose
        pixels are 4 x 4 of the grid's. Without y and x, (chip,) or (chip, ...), each chip becomes one pixel.
    grid
        The chips' grid. Parts of chips outside the scene, and the padding of ``extract(rows, pad=True)``, are cut off.
    overlap
        What a pixel in several chips becomes. "mean": their mean. "first": that of the first chip in the order of
        ``chips``. "taper": their mean weighted with a raised cosine, high in the middle of a chip and low at its border,
        scaled so that the weights of all chips at a pixel sum to one. Or weights of your own, (y, x) like a chip, from 0
        up, scaled in the same way; a weight of 0 counts only where there is no other, and is as good as any that is 0.
    fill
        The value of pixels that no chip covers, and then the result's nodata value. None: the chips' own nodata value, or
        NaN for floats.
    chunks
        Chunks of a lazy result: pixels or (y, x). "auto": whole strides, about 2048 pixels wide.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        Like ``chips``, with dims (..., y, x), pixel-centre coordinates and a CRS. Lazy if the chips are, in a graph that grows
        with chunks and not with chips. A pixel whose chips agree keeps its value bit for bit. "first" keeps the dtype, and
        so does a grid whose chips do not overlap. Else integers become float32, or float64 if they have 32 bits or more
        (which holds whole numbers up to 2**53).
        Pixels that are NaN, or hold the chips' nodata value, count only where there is nothing else.

    Raises
    ------
    ValueError
        If a chip is not of the grid or occurs twice, if its size does not fit, or if integer chips leave pixels
        uncovered and there is neither ``fill`` nor a nodata value; if the result's dtype does not hold the fill value.

    Examples
    --------
    >>> import xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
    >>> grid = ds.chips.grid(256, stride=128, edge="pad")
    >>> chips = ds.chips.extract(ds.chips.index(grid))
    >>> back = stitch(chips, grid, overlap="first")
    >>> bool((back.red == ds.red[0]).all())
    True
    >>> whole = ds.chips.grid(256)
    >>> means = ds.chips.extract(ds.chips.index(whole)).nir.mean(("y", "x"))
    >>> stitch(means, whole).shape == whole.shape
    True
    """
    window = blend_window(overlap)
    if isinstance(chips, xr.Dataset):
        return _stitch_dataset(chips, grid, window, fill, chunks)
    if not isinstance(chips, xr.DataArray):
        chips = _named(chips)
    name = chips.name if chips.name is not None else "stitched"
    bands = chips.to_dataset(name=name)
    bands[name].encoding = chips.encoding
    return _stitch_dataset(bands, grid, window, fill, chunks)[name].rename(chips.name)


def _named(array: Any) -> xr.DataArray:
    named = xr.DataArray(array)
    last = {named.dims[-2]: "y", named.dims[-1]: "x"} if named.ndim > 2 else {}
    return named.rename({named.dims[0]: "chip", **last})


def _stitch_dataset(ds: xr.Dataset, grid: ChipGrid, window: Any, fill: Any, chunks: Any) -> xr.Dataset:
    if "chip" not in ds.dims:
        raise ValueError(f"chips must have a dimension 'chip', got {tuple(ds.dims)}")
    numbers = positions(ds, grid)
    variables: dict[Any, xr.Variable] = {}
    pixels: PixelGrid | None = None
    for name, array in ds.data_vars.items():
        if "chip" not in array.dims:
            continue
        if "y" in array.dims and "x" in array.dims:
            array = array.transpose("chip", ..., "y", "x")
            placement, data = place(grid, numbers, (array.sizes["y"], array.sizes["x"])), array.data
        else:
            array = array.transpose("chip", ...)
            placement, data = place(grid, numbers, None), array.data[..., None, None]
        if pixels not in (None, placement.pixels):
            raise ValueError(
                f"variable {name!r} gives pixels of {placement.pixels.res} (y, x), those before it of {pixels and pixels.res}; "
                "stitch them one by one, such as stitch(chips[['name']], grid)"
            )
        pixels = placement.pixels
        variables[name] = _stitch_variable(array, data, placement, window, fill, chunks)
    if pixels is None:
        raise ValueError(f"there is nothing to stitch: no variable has the dimension 'chip' among {list(ds.data_vars)}")
    y, x = pixels.centres()
    return with_crs(xr.Dataset(variables, {**_kept_coords(ds), "y": y, "x": x}, ds.attrs), pixels.crs)


def with_crs(ds: xr.Dataset, crs: str) -> xr.Dataset:
    """``ds`` with a CRS that rioxarray reads, written for each of its variables."""
    import rioxarray  # noqa: F401  registers .rio

    return ds.rio.write_crs(crs)


def _kept_coords(ds: xr.Dataset) -> dict[Any, Any]:
    """Coordinates that mean the same for the whole raster: those of other dimensions, and the one item and date of all chips."""
    gone = {"chip", "y", "x"}
    kept = {name: coord for name, coord in ds.coords.items() if not gone & set(coord.dims) and name != "spatial_ref"}
    for name, target in (("item_id", "item_id"), ("datetime", "time")):
        if name in ds.coords and ds[name].dims == ("chip",) and target not in ds.dims:
            # ds.chunk() makes these coordinates lazy, short as they are.
            values = ds[name].compute(scheduler="sync").values
            if len(values) and (values == values[0]).all():
                kept[target] = values[0]
    return kept


def _stitch_variable(array: xr.DataArray, data: Any, placement: Placement, window: Any, fill: Any, chunks: Any) -> xr.Variable:
    dims = (*(dim for dim in array.dims if dim not in ("chip", "y", "x")), "y", "x")
    nodata = nodata_of(array)
    stitched = stitch_array(data, placement, window, nodata=nodata, fill=fill, chunks=chunks, name=str(array.name))
    encoding = {"_FillValue": array.encoding["_FillValue"]} if "_FillValue" in array.encoding else {}
    if stitched.dtype == array.dtype and "dtype" in array.encoding:
        encoding["dtype"] = array.encoding["dtype"]
    attrs = dict(array.attrs)
    if fill is not None and nodata is None:
        attrs["_FillValue"] = stitched.dtype.type(fill)
    return xr.Variable(dims, stitched, attrs, encoding)


def stitch_array(
    data: Any,
    placement: Placement,
    window: Any,
    *,
    nodata: float | None = None,
    fill: Any = None,
    chunks: Any = "auto",
    name: str = "stitched",
) -> Any:
    """Chips ``data`` (chip, ..., y, x) as (..., y, x): the array behind `stitch`, where the arguments are described.

    ``window`` is "mean", "first", "taper" or weights (y, x); ``name`` is for messages.
    """
    blend = blend_of(np.dtype(data.dtype), placement, window, nodata=nodata, fill=fill, name=name)
    weights = weights_of(blend, window, data.shape[-2:], name)
    if hasattr(data, "dask"):
        return _stitch_lazily(data, placement, blend, weights, chunks)
    table = placement.pieces(*((length,) for length in placement.pixels.shape))
    shape = (*data.shape[1:-2], *placement.pixels.shape)
    return _assemble(shape, blend, weights, [(table, [data[_source(row)] for row in table])])


def _source(row: np.ndarray) -> tuple[Any, ...]:
    """The part of a block of chips that a row of the table of pieces takes."""
    chip, _, y, x, _, _, height, width = row[:8].tolist()
    return (chip, ..., slice(y, y + height), slice(x, x + width))


def _stitch_lazily(data: Any, placement: Placement, blend: Blend, weights: np.ndarray | None, chunks: Any) -> Any:
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    data = data.rechunk({data.ndim - 2: -1, data.ndim - 1: -1})
    extra_chunks = data.chunks[1:-2]
    rows, columns = chunk_sizes(chunks, placement, blend.working.itemsize * math.prod(max(sizes) for sizes in extra_chunks))
    table = placement.pieces(rows, columns)
    name = "stitch-" + da.core.tokenize(data.name, placement, blend, weights, rows, columns)
    graph: dict[Any, Any] = {}
    if weights is not None:
        graph["weights-" + name] = weights
    extras = list(product(*(range(len(sizes)) for sizes in extra_chunks)))
    cuts: defaultdict[tuple[int, ...], list[Any]] = defaultdict(list)
    for number, (block, i, j, own) in enumerate(by_block(table, data.chunks[0])):
        # One task takes from a block of chips all that a chunk of the result needs of it.
        for extra in extras:
            key = ("cut-" + name, number, *extra)
            graph[key] = (partial(_cut, own), (data.name, block, *extra, 0, 0))
            cuts[*extra, i, j].append(key)
    for extra in extras:
        extra_shape = tuple(sizes[position] for sizes, position in zip(extra_chunks, extra, strict=True))
        for (i, height), (j, width) in product(enumerate(rows), enumerate(columns)):
            assemble = partial(_assemble, (*extra_shape, height, width), blend)
            graph[name, *extra, i, j] = (assemble, None if weights is None else "weights-" + name, cuts[*extra, i, j])
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[data])
    meta = np.empty((0,) * (data.ndim - 1), blend.dtype)
    return da.Array(layers, name, (*extra_chunks, rows, columns), meta=meta)


def chunk_sizes(chunks: Any, placement: Placement, bytes_per_pixel: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks (y, x) of a result, from what callers pass as ``chunks``."""
    from dask.array.core import normalize_chunks

    if isinstance(chunks, str) and chunks == "auto":
        side = min(CHUNK_PIXELS, int((CHUNK_BYTES / max(1, bytes_per_pixel)) ** 0.5))
        # Whole strides, so that most chips lie in one chunk.
        chunks = tuple(max(1, side // step) * step for step in placement.strides)
    rows, columns = normalize_chunks(chunks, placement.pixels.shape, dtype=np.uint8)
    return rows, columns


_Pieces = tuple[np.ndarray, Sequence[np.ndarray]]
"""Rows of the table of pieces, and the pixels of each."""


def _cut(table: np.ndarray, block: np.ndarray) -> _Pieces:
    # Copies: a view would keep the whole block in memory.
    return table, [block[_source(row)].copy() for row in table]


def _assemble(shape: tuple[int, ...], blend: Blend, weights: np.ndarray | None, cuts: Sequence[_Pieces]) -> np.ndarray:
    """One chunk of the result from its pieces."""
    pieces = [piece for table, own in cuts for piece in zip(table, own, strict=True)]
    # The order is the chips', whatever the chunks are: so is the rounding.
    pieces.sort(key=lambda piece: int(piece[0][1]))
    return paint(shape, blend, weights, pieces)
