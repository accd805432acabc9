"""Pixels of whole tiles: those of local TIFF files with deflate are decoded by libdeflate, the rest by GDAL.

GDAL as rasterio ships it inflates with zlib. libdeflate takes a fifth to a half of the time for the same bytes. It comes with
imagecodecs, the extra ``fast``; without it everything here is read by GDAL. Where this module knows a file's layout, it reads
the tiles itself. Whatever it doesn't know, or can't decode, is left to GDAL, whose word is final: also for error messages.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np

from xchip.io.gdal import POOL
from xchip.raster.regrid import Box

# Tags of TIFF 6.0 and of its supplement 2, and the values of them that are understood here.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, OFFSETS, SIZES = 277, 284, 317, 322, 323, 324, 325
DEFLATE = (8, 32946)
AS_STORED = range(5)  # grey either way, RGB, palette, mask; GDAL makes RGB of CMYK, YCbCr, CIELAB and the like
PIXEL_INTERLEAVED = 1
NO_PREDICTOR, DIFFERENCES, FLOATING_POINT = 1, 2, 3
_DEFAULTS = {PHOTOMETRIC: 1, FILL_ORDER: 1, SAMPLES: 1, PLANAR: PIXEL_INTERLEAVED, PREDICTOR: NO_PREDICTOR}

_TAGS = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER,
    SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, OFFSETS, SIZES,
}  # fmt: skip
_NUMBERS = {3: "<u2", 4: "<u4", 16: "<u8"}
"""NumPy's types for TIFF's SHORT, LONG and LONG8: all that these tags should come in."""


@dataclass(frozen=True)
class TileLayout:
    """Where the tiles of a TIFF file's first image are, and what is done to their bytes."""

    shape: tuple[int, int]
    """(height, width) of the image."""
    tile: tuple[int, int]
    """(height, width) of a tile."""
    bits: int
    """Bits of a value."""
    samples: int
    """Bands that lie side by side in a tile, pixel by pixel."""
    planes: int
    """Times that the image is tiled: once, or once a band."""
    predictor: int
    """What was done to values before they were deflated."""
    offsets: np.ndarray
    """Where each tile begins, uint64 (planes, rows, columns)."""
    sizes: np.ndarray
    """Bytes of each tile in the file; 0 for one that was never written. uint64 (planes, rows, columns)."""


@dataclass(frozen=True)
class _File:
    path: str
    stamp: tuple[int, int, int]
    """Changes when the file is written again."""
    handle: int = field(compare=False)

    def bytes(self, start: int, size: int) -> bytes | None:
        """``size`` bytes from ``start`` on; None where the file has fewer."""
        if start + size > self.stamp[1]:  # also numbers in a damaged header that are no file's
            return None
        data = os.pread(self.handle, size, start)
        return data if len(data) == size else None


@contextmanager
def _opened(path: str) -> Iterator[_File]:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        stat = os.fstat(handle)
        yield _File(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino), handle)
    finally:
        os.close(handle)


def read_tiles(dataset: Any, indexes: Sequence[int], box: Box, out: np.ndarray | None = None) -> np.ndarray:
    """Bands of a part of an open dataset, as stored.

    Parameters
    ----------
    dataset
        An open rasterio dataset.
    indexes
        Numbers of bands, from 1.
    box
        The part. It is decoded by libdeflate where it consists of whole tiles: GDAL keeps tiles that it has decoded in part,
        and is the better one for a window inside a tile.
    out
        (bands, rows, columns) of their dtype to write into.

    Returns
    -------
    numpy.ndarray
        (bands, rows, columns).
    """
    if out is None:
        dtype = np.result_type(*(dataset.dtypes[index - 1] for index in indexes))
        out = np.empty((len(indexes), *box.shape), dtype)
    if not inflate(dataset, indexes, box, out):
        from rasterio.windows import Window

        dataset.read(list(indexes), window=Window(box.left, box.top, box.shape[1], box.shape[0]), out=out)
        if _whole(box, dataset.block_shapes[0], dataset.shape):
            POOL.spend(dataset, out.nbytes)
    return out


def inflate(dataset: Any, indexes: Sequence[int], box: Box, out: np.ndarray) -> bool:
    """Fill ``out`` without GDAL. False where that can't be done: it may then hold anything, and `read_tiles` asks GDAL.

    Parameters are those of `read_tiles`.
    """
    if not box.size or not _whole(box, dataset.block_shapes[0], dataset.shape):
        return False  # said first, for single chips are most often inside tiles, and their file need not be opened for it
    if _codecs() is None or dataset.driver != "GTiff" or not os.path.isfile(dataset.name):
        return False
    with _opened(dataset.name) as file:
        layout = _layout(file)
        if layout is None or not _fits(layout, dataset):
            return False
        return _fill(file, layout, [index - 1 for index in indexes], box, out)


def _whole(box: Box, tile: tuple[int, int], shape: tuple[int, int]) -> bool:
    """Whether a box begins and ends where tiles do, or the image."""
    (rows, columns), (height, width) = tile, shape
    ends = box.bottom % rows == 0 or box.bottom == height, box.right % columns == 0 or box.right == width
    return box.top % rows == 0 and box.left % columns == 0 and all(ends)


def _fits(layout: TileLayout, dataset: Any) -> bool:
    """Whether GDAL sees the same image, with values that are bytes as NumPy has them."""
    (dtype, *others) = set(dataset.dtypes)
    if others or np.dtype(dtype).kind not in "iuf" or np.dtype(dtype).itemsize * 8 != layout.bits:
        return False
    if layout.predictor == FLOATING_POINT and (np.dtype(dtype).kind != "f" or layout.samples > 1):
        return False
    bands = layout.samples * layout.planes
    return (layout.shape, layout.tile, bands) == (dataset.shape, dataset.block_shapes[0], dataset.count)


def _fill(file: _File, layout: TileLayout, bands: Sequence[int], box: Box, out: np.ndarray) -> bool:
    """Decode the tiles of ``box`` into ``out``; False where one is missing or damaged."""
    rows, columns = layout.tile
    # A tile of pixels holds all bands; else each band has tiles of its own.
    planes = [(0, bands, slice(None))] if layout.samples > 1 else [(band, [0], slice(n, n + 1)) for n, band in enumerate(bands)]
    for (plane, samples, slots), row, column in product(
        planes, range(box.top // rows, -(-box.bottom // rows)), range(box.left // columns, -(-box.right // columns))
    ):
        top, left = row * rows, column * columns
        part = out[slots, top - box.top : top - box.top + rows, left - box.left : left - box.left + columns]
        data = file.bytes(int(layout.offsets[plane, row, column]), int(layout.sizes[plane, row, column]))
        if not data or not _decode(data, layout, samples, part):
            return False
    return True


def _decode(data: bytes, layout: TileLayout, samples: Sequence[int], out: np.ndarray) -> bool:
    """Decode a tile into ``out`` (bands, rows, columns), which is smaller at the image's edge; False if it is damaged."""
    codecs = _codecs()
    _, height, width = out.shape
    shape = (*layout.tile, layout.samples)
    memory = _MEMORY.bytes(layout.tile[0] * layout.tile[1] * layout.samples * layout.bits // 8)
    try:
        if len(codecs.deflate_decode(data, out=memory)) != memory.size:
            return False
    except codecs.DeflateError:
        return False
    if layout.predictor == FLOATING_POINT:
        tile = codecs.floatpred_decode(memory.view(out.dtype).reshape(layout.tile), axis=-1)[..., None]
        out[0] = tile[:height, :width, 0]
        return True
    # Differences are taken of the bits, also where values are floats.
    tile = memory.view(f"u{layout.bits // 8}").reshape(shape)[:height, :width]
    bits = np.moveaxis(out.view(tile.dtype), 0, -1)
    if layout.predictor == DIFFERENCES:
        every = list(samples) == list(range(layout.samples))
        codecs.delta_decode(tile, axis=1, out=bits if every else tile)
        if every:
            return True
    for slot, sample in enumerate(samples):  # a list of samples as an index would copy once more
        bits[..., slot] = tile[..., sample]
    return True


class _Memory(threading.local):
    """A thread's room for an inflated tile: to ask the system for it anew takes as long as to inflate."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def bytes(self, size: int) -> np.ndarray:
        """``size`` bytes, until the next call."""
        if self._memory.size < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size]


_MEMORY = _Memory()


@lru_cache(maxsize=1)
def _codecs() -> Any:
    """imagecodecs, or None where it is not installed or without libdeflate."""
    try:
        import imagecodecs
    except ImportError:
        return None
    known = imagecodecs.DEFLATE.available and imagecodecs.DELTA.available and imagecodecs.FLOATPRED.available
    return imagecodecs if known and sys.byteorder == "little" and hasattr(os, "pread") else None


@lru_cache(maxsize=256)
def _layout(file: _File) -> TileLayout | None:
    """The layout of a TIFF file that can be decoded here; None for any other file."""
    tags = _tags(file)
    if not tags.keys() >= {WIDTH, HEIGHT, BITS, COMPRESSION, TILE_WIDTH, TILE_HEIGHT, OFFSETS, SIZES}:
        return None  # strips, for one
    one = {tag: int(values[0]) for tag, values in tags.items()} if all(map(len, tags.values())) else {}
    one = _DEFAULTS | one
    bits = set(tags[BITS].tolist())
    known = one.get(COMPRESSION) in DEFLATE and one[PHOTOMETRIC] in AS_STORED and one[FILL_ORDER] == 1 and len(bits) == 1
    if not known or one[PREDICTOR] not in (NO_PREDICTOR, DIFFERENCES, FLOATING_POINT) or one[PLANAR] not in (1, 2):
        return None
    together = one[PLANAR] == PIXEL_INTERLEAVED
    shape, tile = (one[HEIGHT], one[WIDTH]), (one[TILE_HEIGHT], one[TILE_WIDTH])
    if min(*shape, *tile, one[SAMPLES]) < 1:
        return None
    planes = 1 if together else one[SAMPLES]
    tiles = (planes, -(-shape[0] // tile[0]), -(-shape[1] // tile[1]))
    if {len(tags[OFFSETS]), len(tags[SIZES])} != {prod(tiles)}:
        return None
    return TileLayout(
        shape, tile, bits.pop(), one[SAMPLES] if together else 1, planes, one[PREDICTOR],
        tags[OFFSETS].reshape(tiles), tags[SIZES].reshape(tiles),
    )  # fmt: skip


def _tags(file: _File) -> dict[int, np.ndarray]:
    """Numbers of `_TAGS` in the first directory of a little-endian TIFF file, by tag; none for another file.

    Also none where GDAL may read a tag otherwise: one that comes twice, or as another type of number.
    """
    head = file.bytes(0, 16)
    if not head or head[:2] != b"II":
        return {}
    version = int.from_bytes(head[2:4], "little")
    if version == 42:
        start, long, room = int.from_bytes(head[4:8], "little"), 2, 4
    elif version == 43:  # BigTIFF
        start, long, room = int.from_bytes(head[8:16], "little"), 8, 8
    else:
        return {}
    word = f"<u{room}"
    entry = np.dtype([("tag", "<u2"), ("type", "<u2"), ("count", word), ("value", word)])
    number = int.from_bytes(file.bytes(start, long) or b"", "little")
    table = file.bytes(start + long, number * entry.itemsize) or b""
    found: dict[int, np.ndarray] = {}
    for at, (tag, kind, count, value) in enumerate(np.frombuffer(table, entry).tolist()):
        if tag not in _TAGS:
            continue
        if tag in found or kind not in _NUMBERS:
            return {}
        dtype = np.dtype(_NUMBERS[kind])
        size = count * dtype.itemsize
        inline = (at + 1) * entry.itemsize - room  # what fits stands in place of its address
        data = table[inline : inline + size] if size <= room else file.bytes(value, size)
        if data is None:
            return {}
        found[tag] = np.frombuffer(data, dtype).astype(np.uint64)
    return found
