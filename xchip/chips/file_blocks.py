"""Read pixels of a file by blocks: a block that several chips need is decoded once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from xchip.chips.read_plan import Block, block_box, blocks_of, bounding_box, rectangles
from xchip.chips.shared_cache import SharedCache, file_stamp
from xchip.core.scene import Band
from xchip.io.gdal import POOL
from xchip.io.storage import StorageOptions
from xchip.raster.deflate_tiles import read_tiles
from xchip.raster.reader import check
from xchip.raster.regrid import Box

KEPT_BYTES = 256 << 20
"""Size of the decoded blocks that a process keeps: neighbouring chunks of chips share blocks."""

BLOCKS: SharedCache[np.ndarray] = SharedCache(KEPT_BYTES, cost=lambda block: block.nbytes)


@dataclass(frozen=True)
class Canvas:
    """A part of a file's pixels. Only the requested pixels are set."""

    box: Box
    """Where it lies in the file."""
    values: np.ndarray
    """(bands, rows, columns)."""

    def of(self, box: Box) -> np.ndarray:
        """Return a view of a part, (bands, rows, columns)."""
        top, left = self.box.top, self.box.left
        return self.values[:, box.top - top : box.bottom - top, box.left - left : box.right - left]

    def part(self, number: int, box: Box) -> np.ndarray:
        """Return a view of a part of the requested band ``number``, (rows, columns)."""
        return self.of(box)[number]


def read_canvas(
    bands: Sequence[Band], wanted: Sequence[int], boxes: Sequence[Box], pixels: StorageOptions, *, keep: bool
) -> Canvas:
    """Read the blocks of one file that ``boxes`` touch.

    Parameters
    ----------
    bands
        Bands of one file.
    wanted
        Which of them are needed now.
    boxes
        The pixels that are needed, in the file's own grid; they should be neighbours.
    pixels
        How the file is reached.
    keep
        Whether blocks are taken from those that the process keeps, and kept there. In a file that stores its bands pixel by
        pixel all of ``bands`` are kept, for to decode one is to decode them all.

    Raises
    ------
    OSError
        If the file can't be read, or is not what the item says.
    """
    with pixels.gdal(), POOL.borrowed(pixels.sign(bands[0].href)) as dataset:
        for band in bands:
            check(dataset, band)
        indexes = [bands[number].index for number in wanted]
        if keep:
            together = dataset.count > 1 and len(set(dataset.block_shapes)) == 1 and dataset.interleaving.name == "pixel"
            kept = [band.index for band in bands] if together else indexes
            # A rewritten file has other blocks, so its stamp is part of the key.
            file = (bands[0].href, file_stamp(bands[0].href))
            return kept_canvas(dataset, file, kept, [kept.index(index) for index in indexes], boxes)
        return fresh_canvas(dataset, indexes, boxes)


def fresh_canvas(dataset: Any, indexes: Sequence[int], boxes: Sequence[Box]) -> Canvas:
    """Bands ``indexes`` of an open dataset; each block is decoded by this call."""
    parts = [_box(dataset, part) for part in rectangles(blocks_of(boxes, dataset.block_shapes[0]))]
    if len(parts) == 1:
        return Canvas(parts[0], read_tiles(dataset, indexes, parts[0]))
    box = bounding_box(parts)
    canvas = Canvas(box, np.empty((len(indexes), *box.shape), _dtype(dataset, indexes)))
    for part in parts:
        canvas.of(part)[...] = read_tiles(dataset, indexes, part)
    return canvas


def kept_canvas(dataset: Any, file: Hashable, indexes: Sequence[int], wanted: Sequence[int], boxes: Sequence[Box]) -> Canvas:
    """Bands ``indexes[wanted]``; only blocks of ``file`` that the process does not keep are decoded."""
    shape = dataset.block_shapes[0]
    box = bounding_box(boxes)
    canvas = Canvas(box, np.empty((len(wanted), *box.shape), _dtype(dataset, indexes)))
    for own, values in _kept_blocks(dataset, (file, tuple(indexes)), indexes, blocks_of(boxes, shape)):
        source, common = Canvas(own, values), _common(own, box)
        for number, index in enumerate(wanted):
            canvas.part(number, common)[...] = source.part(index, common)
    return canvas


def _kept_blocks(
    dataset: Any, file: Hashable, indexes: Sequence[int], blocks: Sequence[Block]
) -> Iterator[tuple[Box, np.ndarray]]:
    """(its pixels' place in the file, (band, rows, columns)) of each of ``blocks``."""
    found, claimed = BLOCKS.claim([(file, *block) for block in blocks])
    mine = [block for block in blocks if (file, *block) in claimed]
    todo = set(mine)
    try:
        for part in rectangles(mine):
            whole = Canvas(_box(dataset, part), read_tiles(dataset, indexes, _box(dataset, part)))
            for row, column in product(range(part.top, part.bottom), range(part.left, part.right)):
                own = whole.of(_box(dataset, Box(row, row + 1, column, column + 1)))
                # A view would keep the whole rectangle in memory.
                BLOCKS.give((file, row, column), own if own.shape == whole.values.shape else own.copy())
                todo.remove((row, column))
    except BaseException as error:
        BLOCKS.fail([(file, *block) for block in todo], error)
        raise
    for row, column in blocks:
        yield _box(dataset, Box(row, row + 1, column, column + 1)), found[file, row, column].result()


def _box(dataset: Any, blocks: Box) -> Box:
    return block_box(blocks, dataset.block_shapes[0], dataset.shape)


def _common(one: Box, other: Box) -> Box:
    return Box(max(one.top, other.top), min(one.bottom, other.bottom), max(one.left, other.left), min(one.right, other.right))


def _dtype(dataset: Any, indexes: Sequence[int]) -> np.dtype:
    return np.result_type(*(dataset.dtypes[index - 1] for index in indexes))
