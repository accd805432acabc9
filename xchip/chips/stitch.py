"""Put chips, or what a model computed from them, back on the scene's grid: the inverse of `extract`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from xchip.chips.blend import Blend, Fill, Overlap, blend_of, blend_window, paint, weights_of
from xchip.chips.dask_graph import block_key, graph_array
from xchip.chips.placement import Placement, by_block, place, positions
from xchip.core.arrays import Xarray, nodata_of
from xchip.core.grid import ChipGrid, PixelGrid

if TYPE_CHECKING:
    import dask.array as da

# Chunks of the result: as large as those of a stack, but at most this many bytes.
CHUNK_PIXELS = 2048
CHUNK_BYTES = 64 << 20

ChipArray: TypeAlias = "np.ndarray | da.Array"
"""Chips (chip, ..., y, x), in memory or lazy."""

Window: TypeAlias = "str | np.ndarray"
"""How chips blend: a rule, or weights (y, x); see `xchip.chips.blend.blend_window`."""

ChunkSizes: TypeAlias = 'int | tuple[int, int] | tuple[tuple[int, ...], tuple[int, ...]] | Literal["auto"]'
"""Chunks of a result: pixels, or (y, x)."""


def stitch(
    chips: Xarray | ChipArray,
    grid: ChipGrid,
    *,
    overlap: Overlap | np.ndarray = "mean",
    fill: Fill | None = None,
    chunks: ChunkSizes = "auto",
) -> Xarray:
    """Put chips, or what was computed from each chip, back on the scene's grid.

    Parameters
    ----------
    chips
        A Dataset or DataArray (chip, ..., y, x) from ``.chips.extract``, or computed from one: chips of ``grid``, each at most
        once, in any order; some may be missing. The coordinates proj_left, proj_top, proj_right and proj_bottom place them;
        without these, chip_index_y and chip_index_x. Chips without either, or a plain NumPy or Dask array, must be all the
        chips of the grid in its order.

        Chips may be coarser than the grid, by a whole number: (64, 64) for chips of 256 pixels gives a raster whose
        pixels are 4 x 4 of the grid's. Without y and x, (chip,) or (chip, ...), each chip becomes one pixel.
    grid
        The chips' grid. Parts of chips outside the scene, and the padding of ``extract(rows, pad=True)``, are cut off.
    overlap
        Value of a pixel that several chips cover. "mean": their mean. "first": the value of the first chip in the order of
        ``chips``. "taper": their mean weighted with a raised cosine, high in the middle of a chip and low at its border,
        scaled so that the weights at a pixel sum to one. An array (y, x) of the size of a chip: your own weights, at least 0,
        scaled in the same way; weights of 0 count, equally, only where all weights are 0.
    fill
        The value of pixels that no chip covers; it becomes the nodata value of the result. None: the nodata value of the
        chips, or NaN for floats.
    chunks
        Chunks of a lazy result: pixels or (y, x). "auto": whole strides, about 2048 pixels wide.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        Like ``chips``, with dims (..., y, x), pixel-centre coordinates and a CRS. Lazy if the chips are; the size of the graph
        depends on the number of chunks, not of chips. A pixel whose chips agree keeps its value bit for bit. The dtype stays
        with "first", and on a grid whose chips do not overlap. Otherwise integers become float32, or float64 if they have
        32 bits or more (exact up to 2**53). Pixels that are NaN or nodata count only where all chips are NaN or nodata.

    Raises
    ------
    ValueError
        If a chip is not in the grid or occurs twice; if its size does not fit; if integer chips leave pixels uncovered
        without ``fill`` or a nodata value; if the dtype of the result can't hold the fill value.

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


def _named(array: ChipArray) -> xr.DataArray:
    named = xr.DataArray(array)
    last = {named.dims[-2]: "y", named.dims[-1]: "x"} if named.ndim > 2 else {}
    return named.rename({named.dims[0]: "chip", **last})


def _stitch_dataset(ds: xr.Dataset, grid: ChipGrid, window: Window, fill: Fill | None, chunks: ChunkSizes) -> xr.Dataset:
    if "chip" not in ds.dims:
        raise ValueError(f"chips must have a dimension 'chip', got dims {tuple(ds.dims)}")
    numbers = positions(ds, grid)
    variables: dict[Hashable, xr.Variable] = {}
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
                f"variable {name!r} has pixels of {placement.pixels.res} (y, x), but earlier variables have "
                f"{pixels and pixels.res}; stitch each variable alone: stitch(chips[[{name!r}]], grid)"
            )
        pixels = placement.pixels
        variables[name] = _stitch_variable(array, data, placement, window, fill, chunks)
    if pixels is None:
        raise ValueError(f"there is nothing to stitch: none of the variables {list(ds.data_vars)} has the dimension 'chip'")
    y, x = pixels.centres()
    return with_crs(xr.Dataset(variables, {**_raster_coords(ds), "y": y, "x": x}, ds.attrs), pixels.crs)


def with_crs(ds: xr.Dataset, crs: str) -> xr.Dataset:
    """Return ``ds`` with a CRS, written for each variable so that rioxarray reads it."""
    import rioxarray  # noqa: F401  registers .rio

    return ds.rio.write_crs(crs)


def _raster_coords(ds: xr.Dataset) -> dict[Hashable, Any]:
    """Return the coordinates that hold for the whole raster: without a chip dimension, and an item or date of all chips."""
    dropped = {"chip", "y", "x"}
    coords: dict[Hashable, Any] = {
        name: coord for name, coord in ds.coords.items() if not dropped & set(coord.dims) and name != "spatial_ref"
    }
    for name, target in (("item_id", "item_id"), ("datetime", "time")):
        if name in ds.coords and ds[name].dims == ("chip",) and target not in ds.dims:
            # ds.chunk() makes even these short coordinates lazy.
            values = ds[name].compute(scheduler="sync").values
            if len(values) and (values == values[0]).all():
                coords[target] = values[0]
    return coords


def _stitch_variable(
    array: xr.DataArray, data: ChipArray, placement: Placement, window: Window, fill: Fill | None, chunks: ChunkSizes
) -> xr.Variable:
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
    data: ChipArray,
    placement: Placement,
    window: Window,
    *,
    nodata: float | None = None,
    fill: Fill | None = None,
    chunks: ChunkSizes = "auto",
    name: str = "stitched",
) -> ChipArray:
    """Stitch ``data`` (chip, ..., y, x) into an array (..., y, x); see `stitch`. Messages name the chips ``name``."""
    import dask.array as da

    blend = blend_of(np.dtype(data.dtype), placement, window, nodata=nodata, fill=fill, name=name)
    weights = weights_of(blend, window, data.shape[-2:], name)
    if isinstance(data, da.Array):
        return _stitch_lazily(data, placement, blend, weights, chunks)
    table = placement.pieces(*((length,) for length in placement.pixels.shape))
    shape = (*data.shape[1:-2], *placement.pixels.shape)
    return _assemble(shape, blend, weights, [(table, [data[_source(row)] for row in table])])


def _source(row: np.ndarray) -> tuple[Any, ...]:
    """Return the index of a piece, a row of `Placement.pieces`, into its block of chips."""
    chip, _, y, x, _, _, height, width = row[:8].tolist()
    return (chip, ..., slice(y, y + height), slice(x, x + width))


def _stitch_lazily(
    data: da.Array, placement: Placement, blend: Blend, weights: np.ndarray | None, chunks: ChunkSizes
) -> da.Array:
    from dask.base import tokenize
    from dask.typing import Key

    data = data.rechunk({data.ndim - 2: -1, data.ndim - 1: -1})
    extra_chunks = data.chunks[1:-2]
    rows, columns = chunk_sizes(chunks, placement, blend.working.itemsize * math.prod(max(sizes) for sizes in extra_chunks))
    table = placement.pieces(rows, columns)
    name = "stitch-" + tokenize(data.name, placement, blend, weights, rows, columns)
    graph: dict[Key, object] = {}
    if weights is not None:
        graph["weights-" + name] = weights
    extras = list(product(*(range(len(sizes)) for sizes in extra_chunks)))
    cuts: defaultdict[tuple[int, ...], list[Key]] = defaultdict(list)
    for number, (block, i, j, pieces) in enumerate(by_block(table, data.chunks[0])):
        # One task cuts all pieces of a chunk of the result out of a block of chips.
        for extra in extras:
            key = block_key("cut-" + name, number, *extra)
            graph[key] = (partial(_cut, pieces), (data.name, block, *extra, 0, 0))
            cuts[*extra, i, j].append(key)
    for extra in extras:
        extra_shape = tuple(sizes[position] for sizes, position in zip(extra_chunks, extra, strict=True))
        for (i, height), (j, width) in product(enumerate(rows), enumerate(columns)):
            assemble = partial(_assemble, (*extra_shape, height, width), blend)
            graph[block_key(name, *extra, i, j)] = (assemble, None if weights is None else "weights-" + name, cuts[*extra, i, j])
    return graph_array(name, graph, (*extra_chunks, rows, columns), blend.dtype, [data])


def chunk_sizes(chunks: ChunkSizes, placement: Placement, bytes_per_pixel: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the lengths of the chunks of a result along y and x, from the argument ``chunks``."""
    from dask.array.core import normalize_chunks

    if isinstance(chunks, str) and chunks == "auto":
        side = min(CHUNK_PIXELS, int((CHUNK_BYTES / max(1, bytes_per_pixel)) ** 0.5))
        # Whole strides, so that most chips lie in a single chunk.
        height, width = placement.strides
        chunks = max(1, side // height) * height, max(1, side // width) * width
    rows, columns = normalize_chunks(chunks, placement.pixels.shape, dtype=np.uint8)
    return rows, columns


_Pieces: TypeAlias = tuple[np.ndarray, Sequence[np.ndarray]]
"""Rows of `Placement.pieces`, and the pixels of each."""


def _cut(table: np.ndarray, block: np.ndarray) -> _Pieces:
    # Copies: a view would keep the whole block in memory.
    return table, [block[_source(row)].copy() for row in table]


def _assemble(shape: tuple[int, ...], blend: Blend, weights: np.ndarray | None, cuts: Sequence[_Pieces]) -> np.ndarray:
    """Return a chunk of the result from its pieces."""
    pieces = [piece for table, pixels in cuts for piece in zip(table, pixels, strict=True)]
    # In the order of the chips, so that rounding does not depend on the chunks.
    pieces.sort(key=lambda piece: int(piece[0][1]))
    return paint(shape, blend, weights, pieces)
