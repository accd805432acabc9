"""Find the shapes of two sets that are near each other on the sphere, exactly, among millions.

Both sets become trees of boxes in space, which have no special cases at the poles or the antimeridian. The trees are descended
together: a pair of boxes that are too far apart is dropped with its children. Pairs of leaves are measured shape by shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from xchip.selection.sphere import Shapes, on_sphere

BITS = 16
"""Bits of each coordinate in the order of a tree: cells of 194 m."""
CHUNK = 1_000_000
"""Number of pairs of boxes, or of dates, that are compared at once."""
MEASURED = 20_000
"""Number of pairs of shapes that are measured at once."""
STEP = 0.02
"""Degrees: longer edges get intermediate points before they are projected, so that they stay straight."""
STRAY = 2 * np.radians(STEP) ** 2 / 4
"""Largest error of a measured chord, for two edges together: about 40 cm."""
MOST_PASSES = 8
"""Two passes are enough unless shapes are huge."""


@dataclass(frozen=True, eq=False)
class _Level:
    """Boxes of a tree at one depth."""

    low: np.ndarray
    high: np.ndarray
    children: np.ndarray
    """The first child of each box in the next level, then the end: int64 (boxes + 1,); empty at the last level."""


@dataclass(frozen=True, eq=False)
class Tree:
    """Shapes in the order of a space-filling curve, with boxes around groups of them."""

    geometry: np.ndarray
    """shapely shapes."""
    levels: tuple[_Level, ...]
    """From few boxes to one box per shape."""
    position: np.ndarray
    """Position of each shape in the input."""

    @classmethod
    def of(cls, geometry: np.ndarray, shapes: Shapes | None = None) -> Tree:
        """Build the tree of ``geometry`` (n,), without empty shapes; ``shapes`` are its `Shapes` if they are known."""
        shapes = shapes or Shapes.of(geometry)
        centre = (shapes.low + shapes.high) / 2
        code = _morton(np.clip((centre + 1) * (1 << (BITS - 1)), 0, (1 << BITS) - 1).astype(np.uint64))
        order = np.argsort(code, kind="stable")
        code = code[order]
        levels = [_Level(shapes.low[order], shapes.high[order], np.empty(0, np.int64))]
        starts = np.arange(len(order))
        for bits in range(BITS, 0, -1):
            prefix = code >> np.uint64(3 * (BITS - bits))
            first = np.flatnonzero(np.append(True, prefix[1:] != prefix[:-1])) if len(prefix) else np.empty(0, np.int64)
            if len(first) > 0.7 * len(starts):
                continue
            child = np.searchsorted(starts, first)
            below = levels[-1]
            low, high = np.minimum.reduceat(below.low, child), np.maximum.reduceat(below.high, child)
            levels.append(_Level(low, high, np.append(child, len(starts))))
            starts = first
        return cls(geometry[order], tuple(reversed(levels)), order)

    def __len__(self) -> int:
        return len(self.geometry)


def _morton(cells: np.ndarray) -> np.ndarray:
    """Interleave the bits of three numbers of `BITS` bits, (n, 3): uint64 (n,)."""
    code = np.zeros(len(cells), np.uint64)
    for axis in range(3):
        x = cells[:, axis]
        for shift, mask in ((32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F), (4, 0x10C30C30C30C30C3)):
            x = (x | (x << np.uint64(shift))) & np.uint64(mask)
        x = (x | (x << np.uint64(2))) & np.uint64(0x1249249249249249)
        code |= x << np.uint64(axis)
    return code


class Reach:
    """Search radius, as a chord; it may shrink while the search goes on."""

    def __init__(self, least: float, *, nearest: bool) -> None:
        self.least = least
        """All pairs within this distance are visited."""
        self.best = np.inf if nearest else 0.0
        """Upper bound of the distance of the nearest pair."""
        self.nearest = nearest

    @property
    def chord(self) -> float:
        """Pairs further apart than this are dropped."""
        return max(self.least, self.best)

    def lower(self, chord: float) -> None:
        """Note that there is a pair at this distance."""
        if self.nearest:
            self.best = min(self.best, chord)


def chunked(counts: np.ndarray) -> Iterator[slice]:
    """Yield slices of entries whose ``counts`` sum to about `CHUNK`."""
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(CHUNK, ends[-1] + CHUNK if len(ends) else 0, CHUNK), side="right")
    for start, stop in itertools.pairwise(np.unique(np.concatenate([[0], cuts, [len(counts)]]))):
        yield slice(start, stop)


def search(a: Tree, b: Tree, reach: Reach, visit: Callable[[np.ndarray, np.ndarray, np.ndarray], bool]) -> None:
    """Call ``visit(i, j, least)`` with all pairs of shapes whose boxes are within reach, in chunks, until it returns False.

    ``i`` and ``j`` are positions in the order of each tree; ``least`` is the distance between the boxes, a chord. Near pairs come
    early.
    """
    if not len(a) or not len(b):
        return
    tops = (len(a.levels[0].low), len(b.levels[0].low))
    i, j = (axis.ravel() for axis in np.indices(tops))
    pending = [(0, 0, i, j)]
    while pending:
        level_a, level_b, i, j = pending.pop()
        boxes_a, boxes_b = a.levels[level_a], b.levels[level_b]
        # One axis after the other: arrays of (pairs, 3) are far slower.
        least, most = np.zeros(len(i)), np.zeros(len(i))
        for axis in range(3):
            right = boxes_b.low[j, axis] - boxes_a.high[i, axis]
            left = boxes_a.low[i, axis] - boxes_b.high[j, axis]
            least += np.maximum(np.maximum(left, right), 0) ** 2
            if reach.nearest:
                most += np.minimum(left, right) ** 2
        least = np.sqrt(least)
        if reach.nearest:
            reach.lower(float(np.sqrt(most.min())))
        kept = np.flatnonzero(least <= reach.chord)
        kept = kept[np.argsort(least[kept], kind="stable")]
        i, j, least = i[kept], j[kept], least[kept]
        leaf_a, leaf_b = not boxes_a.children.size, not boxes_b.children.size
        if leaf_a and leaf_b:
            if len(i) and not visit(i, j, least):
                return
            continue
        counts_a = np.ones(len(i), np.int64) if leaf_a else boxes_a.children[i + 1] - boxes_a.children[i]
        counts_b = np.ones(len(j), np.int64) if leaf_b else boxes_b.children[j + 1] - boxes_b.children[j]
        first_a, first_b = (i if leaf_a else boxes_a.children[i]), (j if leaf_b else boxes_b.children[j])
        for chunk in reversed(list(chunked(counts_a * counts_b))):
            children = _products(first_a[chunk], counts_a[chunk], first_b[chunk], counts_b[chunk])
            pending.append((level_a + (not leaf_a), level_b + (not leaf_b), *children))


def _products(
    first_a: np.ndarray, counts_a: np.ndarray, first_b: np.ndarray, counts_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each entry, all pairs of ``counts_a`` numbers from ``first_a`` on and ``counts_b`` from ``first_b`` on."""
    counts = counts_a * counts_b
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    wide = np.repeat(counts_b, counts)
    return np.repeat(first_a, counts) + number // wide, np.repeat(first_b, counts) + number % wide


def distances(a: np.ndarray, b: np.ndarray, centre: np.ndarray, reach: float) -> np.ndarray:
    """Return the distance of each pair of shapes.

    Shapes are projected orthographically. This never lengthens a distance, and keeps it between two points that are equally far
    from the centre of the map. So a second pass takes the midpoint of the nearest two points as the centre.

    Parameters
    ----------
    a, b
        shapely shapes (n,) in degrees.
    centre
        A point between each two shapes: unit vectors (n, 3).
    reach
        Chord: the distance of pairs further apart need not be exact.

    Returns
    -------
    numpy.ndarray
        Chords (n,), 0 where shapes touch or overlap; too small by little more than `STRAY` at most, never too large.
    """
    import shapely

    a, b = shapely.segmentize(a, STEP), shapely.segmentize(b, STEP)
    chords = np.zeros(len(a))
    pending = np.arange(len(a))
    for _ in range(MOST_PASSES):
        if not pending.size:
            break
        lines = shapely.shortest_line(_projected(a[pending], centre), _projected(b[pending], centre))
        ends = shapely.get_coordinates(lines).reshape(-1, 2, 2)
        flat = np.sqrt(((ends[:, 1] - ends[:, 0]) ** 2).sum(axis=1))
        chords[pending] = np.maximum(chords[pending], flat - STRAY)
        # On the sphere the two points are further apart than on the map, because their heights above it differ.
        height = np.sqrt(np.maximum(1 - (ends**2).sum(axis=2), 0))
        shortened = np.sqrt(flat**2 + (height[:, 1] - height[:, 0]) ** 2) - flat
        inexact = (shortened > STRAY / 10) & (flat - STRAY <= reach)
        east, north = _axes(centre)
        total = ends.sum(axis=1)
        middle = total[:, :1] * east + total[:, 1:] * north + height.sum(axis=1, keepdims=True) * centre
        pending, centre = pending[inexact], _unit(middle[inexact])
    return chords


def _projected(shapes: np.ndarray, centre: np.ndarray) -> np.ndarray:
    import shapely

    lonlat, owner = shapely.get_coordinates(shapes, return_index=True)
    points = on_sphere(lonlat)
    east, north = _axes(centre)
    flat = np.stack([(points * east[owner]).sum(axis=1), (points * north[owner]).sum(axis=1)], axis=1)
    return shapely.set_coordinates(shapes.copy(), flat)


def _axes(centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two unit vectors (n, 3) at right angles to each other and to ``centre``."""
    # Any direction that differs from the centre's works.
    direction = np.where(np.abs(centre[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    east = _unit(np.cross(direction, centre))
    return east, np.cross(centre, east)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    # Between opposite ends of the Earth every direction works.
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), [[0.0, 0.0, 1.0]])


def pair_distances(a: Tree, b: Tree, i: np.ndarray, j: np.ndarray, reach: float) -> np.ndarray:
    """Return `distances` of shapes ``i`` of tree ``a`` and ``j`` of tree ``b``."""
    boxes_a, boxes_b = a.levels[-1], b.levels[-1]
    middle = boxes_a.low[i] + boxes_a.high[i] + boxes_b.low[j] + boxes_b.high[j]
    return distances(a.geometry[i], b.geometry[j], _unit(middle), reach)


def near(a: Tree, b: Tree, chord: float) -> np.ndarray:
    """Return which shapes of ``a`` are within ``chord`` of a shape of ``b``: bool, in the order of the input."""
    is_near = np.zeros(len(a), bool)

    def visit(i: np.ndarray, j: np.ndarray, least: np.ndarray) -> bool:
        while True:
            undecided = ~is_near[i]
            i, j = i[undecided], j[undecided]
            if not len(i):
                return True
            # One partner of each shape at a time, the nearest first: it decides most shapes.
            _, first = np.unique(i, return_index=True)
            for start in range(0, len(first), MEASURED):
                pair = first[start : start + MEASURED]
                is_near[i[pair]] |= pair_distances(a, b, i[pair], j[pair], chord) <= chord
            i, j = np.delete(i, first), np.delete(j, first)

    search(a, b, Reach(chord, nearest=False), visit)
    in_input_order = np.empty(len(a), bool)
    in_input_order[a.position] = is_near
    return in_input_order


def empty(geometry: np.ndarray) -> np.ndarray:
    """Return which shapes are missing or have no points: bool (n,)."""
    import shapely

    return shapely.is_missing(geometry) | shapely.is_empty(geometry)
