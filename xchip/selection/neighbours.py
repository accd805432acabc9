"""Which shapes of two sets are near each other on the sphere, exactly, among millions.

Both sets become trees of boxes in space (no trouble at the poles or the antimeridian), which are descended together: pairs of
boxes that are too far apart are dropped with all they hold. What is left is measured shape by shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xchip.selection.sphere import Shapes, on_sphere

BITS = 16
"""Bits of each coordinate in the order of a tree: 194 m."""
AT_ONCE = 1_000_000
"""Pairs of boxes that are looked at together."""
MEASURED = 20_000
"""Pairs of shapes that are measured together."""
STEP = 0.02
"""Degrees: longer edges get points in between before they are projected, so that they stay straight."""
STRAY = 2 * np.radians(STEP) ** 2 / 4
"""By how much a measured chord may be too long, two edges together: some 40 cm."""
MOST_PASSES = 8
"""Two are enough unless shapes are huge."""


@dataclass(frozen=True, eq=False)
class _Level:
    """Boxes of a tree, as fine as each other."""

    low: np.ndarray
    high: np.ndarray
    children: np.ndarray
    """The first child of each box in the next level, then the end: int64 (boxes + 1,); nothing at the last level."""


@dataclass(frozen=True, eq=False)
class Tree:
    """Shapes in the order of a space-filling curve, and boxes round more and more of them."""

    geometry: np.ndarray
    """shapely shapes."""
    levels: tuple[_Level, ...]
    """From few boxes to one a shape."""
    position: np.ndarray
    """Of each shape in this order: its position among those given."""

    @classmethod
    def of(cls, geometry: np.ndarray, shapes: Shapes) -> Tree:
        """``geometry`` (n,) without empty ones, and its `Shapes`."""
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
            at = np.searchsorted(starts, first)
            below = levels[-1]
            low, high = np.minimum.reduceat(below.low, at), np.maximum.reduceat(below.high, at)
            levels.append(_Level(low, high, np.append(at, len(starts))))
            starts = first
        return cls(geometry[order], tuple(reversed(levels)), order)

    def __len__(self) -> int:
        return len(self.geometry)


def _morton(cells: np.ndarray) -> np.ndarray:
    """Bits of three numbers of `BITS` bits in turns: uint64 (n,) of (n, 3)."""
    code = np.zeros(len(cells), np.uint64)
    for axis in range(3):
        x = cells[:, axis]
        for shift, mask in ((32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F), (4, 0x10C30C30C30C30C3)):
            x = (x | (x << np.uint64(shift))) & np.uint64(mask)
        x = (x | (x << np.uint64(2))) & np.uint64(0x1249249249249249)
        code |= x << np.uint64(axis)
    return code


class Reach:
    """How far apart pairs may be that are still of interest, as a chord; it may shrink while the search goes on."""

    def __init__(self, least: float, *, nearest: bool) -> None:
        self.least = least
        """All pairs that are this near are wanted."""
        self.best = np.inf if nearest else 0.0
        """The nearest pair of all is nearer than this."""
        self.nearest = nearest

    @property
    def chord(self) -> float:
        """Pairs further apart than this are dropped."""
        return max(self.least, self.best)

    def lower(self, chord: float) -> None:
        """A pair is known to be this near."""
        if self.nearest:
            self.best = min(self.best, chord)


def search(a: Tree, b: Tree, reach: Reach, visit: Callable[[np.ndarray, np.ndarray, np.ndarray], bool]) -> None:
    """Call ``visit(i, j, least)`` with all pairs of shapes whose boxes are within reach, in pieces, until it returns False.

    ``i`` and ``j`` are positions in the trees' own order; ``least`` is the distance of the boxes, a chord. Near pairs come early.
    """
    if not len(a) or not len(b):
        return
    tops = (len(a.levels[0].low), len(b.levels[0].low))
    i, j = (axis.ravel() for axis in np.indices(tops))
    pending = [(0, 0, i, j)]
    while pending:
        level_a, level_b, i, j = pending.pop()
        boxes_a, boxes_b = a.levels[level_a], b.levels[level_b]
        # Columns one by one: arrays of (pairs, 3) are slower by far.
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
        total = np.cumsum(counts_a * counts_b)
        cuts = np.searchsorted(total, np.arange(AT_ONCE, total[-1] + AT_ONCE if len(total) else 0, AT_ONCE), side="right")
        edges = np.unique(np.concatenate([[0], cuts, [len(i)]]))
        for start, stop in reversed(list(itertools.pairwise(edges))):
            some = slice(start, stop)
            children = _products(first_a[some], counts_a[some], first_b[some], counts_b[some])
            pending.append((level_a + (not leaf_a), level_b + (not leaf_b), *children))


def _products(
    first_a: np.ndarray, counts_a: np.ndarray, first_b: np.ndarray, counts_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of ``counts_a`` numbers from ``first_a`` on and ``counts_b`` from ``first_b`` on, for each entry."""
    counts = counts_a * counts_b
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    wide = np.repeat(counts_b, counts)
    return np.repeat(first_a, counts) + number // wide, np.repeat(first_b, counts) + number % wide


def distances(a: np.ndarray, b: np.ndarray, centre: np.ndarray, reach: float) -> np.ndarray:
    """Distance of each pair of shapes.

    Shapes are projected orthographically, which shortens distances and never lengthens them, and not at all between points that
    are as far from the map's centre: so the centre is the middle of the nearest two points, once these are known.

    Parameters
    ----------
    a, b
        shapely shapes (n,) in degrees.
    centre
        A point between them: unit vectors (n, 3).
    reach
        Chord; of pairs further apart no more need be known than that they are.

    Returns
    -------
    numpy.ndarray
        Chords (n,), 0 where shapes touch or overlap; too small by little more than `STRAY`, and never too large.
    """
    import shapely

    a, b = shapely.segmentize(a, STEP), shapely.segmentize(b, STEP)
    chords = np.zeros(len(a))
    rest = np.arange(len(a))
    for _ in range(MOST_PASSES):
        if not rest.size:
            break
        lines = shapely.shortest_line(_projected(a[rest], centre), _projected(b[rest], centre))
        ends = shapely.get_coordinates(lines).reshape(-1, 2, 2)
        flat = np.sqrt(((ends[:, 1] - ends[:, 0]) ** 2).sum(axis=1))
        chords[rest] = np.maximum(chords[rest], flat - STRAY)
        # The two points on the sphere are further apart than on the map by what one lies above the other.
        height = np.sqrt(np.maximum(1 - (ends**2).sum(axis=2), 0))
        shortened = np.sqrt(flat**2 + (height[:, 1] - height[:, 0]) ** 2) - flat
        more = (shortened > STRAY / 10) & (flat - STRAY <= reach)
        east, north = _axes(centre)
        both = ends.sum(axis=1)
        middle = both[:, :1] * east + both[:, 1:] * north + height.sum(axis=1, keepdims=True) * centre
        rest, centre = rest[more], _unit(middle[more])
    return chords


def _projected(shapes: np.ndarray, centre: np.ndarray) -> np.ndarray:
    import shapely

    lonlat, of = shapely.get_coordinates(shapes, return_index=True)
    points = on_sphere(lonlat)
    east, north = _axes(centre)
    flat = np.stack([(points * east[of]).sum(axis=1), (points * north[of]).sum(axis=1)], axis=1)
    return shapely.set_coordinates(shapes.copy(), flat)


def _axes(centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors (n, 3) at right angles to each other and to ``centre``."""
    # Any direction will do that is not the centre's own.
    other = np.where(np.abs(centre[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    east = _unit(np.cross(other, centre))
    return east, np.cross(centre, east)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    # Between opposite ends of the Earth every direction is as good.
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), [[0.0, 0.0, 1.0]])


def pair_distances(a: Tree, b: Tree, i: np.ndarray, j: np.ndarray, reach: float) -> np.ndarray:
    """`distances` of shapes ``i`` of one tree and ``j`` of another."""
    boxes_a, boxes_b = a.levels[-1], b.levels[-1]
    middle = boxes_a.low[i] + boxes_a.high[i] + boxes_b.low[j] + boxes_b.high[j]
    return distances(a.geometry[i], b.geometry[j], _unit(middle), reach)


def near(a: Tree, b: Tree, chord: float) -> np.ndarray:
    """Which shapes of ``a`` are within ``chord`` of some shape of ``b``: bool, in the order in which they were given."""
    found = np.zeros(len(a), bool)

    def visit(i: np.ndarray, j: np.ndarray, least: np.ndarray) -> bool:
        while True:
            # One partner each, the nearest first: most are found with it.
            open_ = ~found[i]
            i, j = i[open_], j[open_]
            if not len(i):
                return True
            _, first = np.unique(i, return_index=True)
            for start in range(0, len(first), MEASURED):
                some = first[start : start + MEASURED]
                found[i[some]] |= pair_distances(a, b, i[some], j[some], chord) <= chord
            rest = np.ones(len(i), bool)
            rest[first] = False
            i, j = i[rest], j[rest]

    search(a, b, Reach(chord, nearest=False), visit)
    given = np.empty(len(a), bool)
    given[a.position] = found
    return given


def empty(geometry: Any) -> np.ndarray:
    """Which shapes are missing or have no points: bool (n,)."""
    import shapely

    return shapely.is_missing(geometry) | shapely.is_empty(geometry)
