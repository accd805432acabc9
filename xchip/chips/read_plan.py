"""What is read for which chips, and in which order: plain values, decided before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import lcm
from typing import NamedTuple

import numpy as np

from xchip.chips.chip_rows import ChipRows
from xchip.core.grid import Alignment, AxisMap
from xchip.raster.regrid import Box, covered

TILE_SIDE = 2048
"""Pixels of the scene's grid along the side of a super-tile: chips of one are read together."""

Shape = tuple[int, int]


def tile_shape(blocks: Iterable[Shape]) -> Shape:
    """(height, width) of super-tiles, about 2048 x 2048 pixels, that hold whole blocks of ``blocks`` pixels.

    Examples
    --------
    >>> tile_shape([(1024, 1024), (2048, 2048)]), tile_shape([(256, 256)]), tile_shape([(1, 7811)]), tile_shape([])
    ((2048, 2048), (2048, 2048), (536, 7811), (2048, 2048))
    """
    blocks = list(blocks)
    width = _multiple([block[1] for block in blocks], TILE_SIDE)
    return _multiple([block[0] for block in blocks], max(1, TILE_SIDE**2 // width)), width


def _multiple(lengths: Sequence[int], about: int) -> int:
    """The length nearest below ``about`` that is a whole number of each of ``lengths``, those first that are short."""
    common = 1
    for length in sorted(lengths):
        if common == 1 or lcm(common, length) <= about:
            common = lcm(common, length)
    return common * max(1, about // common)


def units(rows: ChipRows, tile: Shape, segments: np.ndarray | None = None) -> list[np.ndarray]:
    """Positions of the chips that are read together: those that begin in one super-tile of an item (and in one segment).

    In the order of segment, item and super-tile; within a unit by row, then column, of the scene's grid.
    """
    if not len(rows):
        return []
    row, column = rows.row_off // tile[0], rows.col_off // tile[1]
    lead = rows.item if segments is None else segments * len(rows.items) + rows.item
    order = np.lexsort((rows.col_off, rows.row_off, column, row, lead))
    changes = np.zeros(len(rows) - 1, bool)
    for key in (lead, row, column):
        changes |= np.diff(key[order]) != 0
    return np.split(order, np.flatnonzero(changes) + 1)


def split_units(parts: Iterable[np.ndarray], most: int) -> list[np.ndarray]:
    """Units of at most ``most`` chips: overlapping chips may be very many in a super-tile."""
    return [part[start : start + most] for part in parts for start in range(0, len(part), most)]


def share(n: int, number: int, parts: int) -> tuple[int, int]:
    """[start, stop) of part ``number`` of ``n`` things: parts differ by one thing at most.

    Examples
    --------
    >>> [share(10, number, 3) for number in range(3)]
    [(0, 3), (3, 6), (6, 10)]
    """
    return n * number // parts, n * (number + 1) // parts


@dataclass(frozen=True, eq=False)
class Epoch:
    """The chips that one consumer gets in an epoch."""

    order: np.ndarray
    """int64: positions of rows, in the order in which they are given out."""
    units: tuple[np.ndarray, ...]
    """Indexes into ``order`` of the chips that are read together, units that are needed first coming first."""

    @property
    def needed(self) -> np.ndarray:
        """int64: index into ``order`` from which on each unit must have been read."""
        return np.array([int(unit.min()) for unit in self.units], np.int64)

    def after(self, start: int) -> Epoch:
        """What is left once ``start`` chips have been given out; indexes into ``order`` stay as they are."""
        left = (unit[unit >= start] for unit in self.units)
        return Epoch(self.order, _by_need(unit for unit in left if len(unit)))


def epoch_plan(
    rows: ChipRows,
    tile: Shape,
    *,
    buffer: int,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    part: int = 0,
    parts: int = 1,
    most: int | None = None,
) -> Epoch:
    """What part ``part`` of ``parts`` gets in an epoch. All parts together get each chip once.

    Parameters
    ----------
    rows
        All chips.
    tile
        (height, width) of super-tiles.
    buffer
        Chips that may wait to be given out. Shuffled, super-tiles are put in random order, and each chip is given out at a
        random moment of the ``2 * buffer`` chips that follow its super-tile's turn; so half of them wait, on the average.
        Else ``buffer`` rows that follow each other are read together.
    shuffle
        False: the order of the rows.
    seed, epoch
        Decide the order, with ``part``, ``parts`` and ``buffer``.
    most
        The plan is cut to so many chips.
    """
    start, stop = share(len(rows), part, parts)
    if not shuffle:
        order = np.arange(start, stop)[:most]
        mine = rows.take(order)
        return Epoch(order, _by_need(units(mine, tile, np.arange(len(mine)) // buffer)))
    groups = _shared(_turns(rows, tile, buffer, np.random.default_rng((seed, epoch))), start, stop)
    order, places = _mixed(groups, buffer, np.random.default_rng((seed, epoch, part, parts)))
    order = order[:most]
    return Epoch(order, _by_need(kept for own in places if len(kept := own[own < len(order)])))


def _turns(rows: ChipRows, tile: Shape, most: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Units of at most ``most`` chips, in random order."""
    groups = split_units(units(rows, tile), most)
    return [groups[turn] for turn in rng.permutation(len(groups)).tolist()]


def _shared(groups: Sequence[np.ndarray], start: int, stop: int) -> list[np.ndarray]:
    """Chips [start, stop) of ``groups``, in groups.

    A super-tile at the border of two parts is read by both, each for its own chips; so parts are equal to within a chip.
    """
    begins = (np.cumsum([len(group) for group in groups]) - [len(group) for group in groups]).tolist()
    clipped = (group[max(0, start - begin) : max(0, stop - begin)] for group, begin in zip(groups, begins, strict=True))
    return [group for group in clipped if len(group)]


def _mixed(groups: Sequence[np.ndarray], buffer: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """(positions of rows in the order in which they are given out, indexes into that of each group)."""
    if not groups:
        return np.empty(0, np.int64), []
    sizes = np.array([len(group) for group in groups], np.int64)
    n = int(sizes.sum())
    span = min(n, 2 * buffer)
    # At both ends of the epoch super-tiles share their moments, so that first and last batches are mixed as well.
    turns = np.clip(np.cumsum(sizes) - sizes - span // 2, 0, n - span)
    ranked = np.argsort(np.repeat(turns, sizes) + rng.random(n) * span, kind="stable")
    places = np.empty(n, np.int64)
    places[ranked] = np.arange(n)
    return np.concatenate(groups)[ranked], np.split(places, np.cumsum(sizes)[:-1])


def _by_need(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(sorted(parts, key=lambda part: int(part.min())))


class Span(NamedTuple):
    """What a chip takes from a band's own pixels, along one axis."""

    start: int
    """The first pixel, within the file."""
    stop: int
    """Past the last one; equal to ``start`` where the chip lies beside the file."""
    first: int
    """The chip's first pixel that they cover; the rest is filled."""
    last: int
    """Past the last one."""
    skip: int
    """Pixels of the scene that the first pixel covers before the chip begins."""


@lru_cache(maxsize=4096)  # chips of a grid have few different spans, and each band asks for those of each chip
def span(axis: AxisMap, start: int, stop: int, n: int) -> Span:
    """What a chip at [start, stop) of the scene's axis takes of ``n`` pixels, repeated or thinned."""
    first, last = covered(axis, start, stop, n)
    ends = axis.source_index(np.array([first, max(first, last - 1)])).tolist()
    low, high = ends[0], ends[0] if first == last else ends[1] + 1
    skip = first - (axis.offset + low * axis.factor) if axis.factor > 0 else 0
    return Span(low, high, first - start, last - start, skip)


class Cut(NamedTuple):
    """What a chip takes from a band's own pixels."""

    y: Span
    x: Span

    @property
    def source(self) -> Box:
        """The pixels that are needed."""
        return Box(self.y.start, self.y.stop, self.x.start, self.x.stop)


def cut(window: Box, relation: Alignment, shape: Shape) -> Cut:
    """What a chip at ``window`` of the scene takes of a band of ``shape``."""
    return Cut(span(relation.y, window.top, window.bottom, shape[0]), span(relation.x, window.left, window.right, shape[1]))


@lru_cache(maxsize=64)  # the bands of a scene have few different grids
def cuts(windows: tuple[Box, ...], relation: Alignment, shape: Shape) -> tuple[tuple[Cut, Box], ...]:
    """(cut, its source) of each chip."""
    own = [cut(window, relation, shape) for window in windows]
    return tuple((one, one.source) for one in own)


Block = tuple[int, int]
"""(row, column) of a block of a file."""


def blocks_of(boxes: Iterable[Box], block: Shape) -> list[Block]:
    """The blocks of ``block`` pixels that any of ``boxes`` touches, by row and column."""
    found: set[Block] = set()
    for box in set(boxes):
        if box.size:
            rows = range(box.top // block[0], (box.bottom - 1) // block[0] + 1)
            columns = range(box.left // block[1], (box.right - 1) // block[1] + 1)
            found.update((row, column) for row in rows for column in columns)
    return sorted(found)


def rectangles(blocks: Sequence[Block]) -> list[Box]:
    """Sorted blocks as few rectangles (in blocks) that hold these and no others.

    Examples
    --------
    >>> rectangles([(0, 0), (0, 1), (1, 0), (1, 1), (1, 3)])
    [Box(top=0, bottom=2, left=0, right=2), Box(top=1, bottom=2, left=3, right=4)]
    """
    breaks = [0, *(at for at, (one, two) in enumerate(pairwise(blocks), 1) if two != (one[0], one[1] + 1)), len(blocks)]
    runs = [Box(blocks[a][0], blocks[a][0] + 1, blocks[a][1], blocks[b - 1][1] + 1) for a, b in pairwise(breaks) if a < b]
    open_runs: dict[tuple[int, int], Box] = {}
    done = []
    for run in runs:
        above = open_runs.pop((run.left, run.right), None)
        if above is not None and above.bottom == run.top:
            run = above._replace(bottom=run.bottom)
        elif above is not None:
            done.append(above)
        open_runs[run.left, run.right] = run
    return sorted([*done, *open_runs.values()])


def block_box(blocks: Box, block: Shape, shape: Shape) -> Box:
    """The pixels of a rectangle of blocks, in a file of ``shape``."""
    return Box(
        blocks.top * block[0],
        min(blocks.bottom * block[0], shape[0]),
        blocks.left * block[1],
        min(blocks.right * block[1], shape[1]),
    )


def bounding_box(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds those of ``boxes`` that are not empty."""
    tops, bottoms, lefts, rights = zip(*(box for box in boxes if box.size), strict=True)
    return Box(min(tops), max(bottoms), min(lefts), max(rights))
