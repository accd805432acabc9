"""How far apart in time chips are: of two sets, and of pairs of places with many dates each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

UNKNOWN = np.iinfo(np.int64).min
AT_ONCE = 2_000_000
"""Dates that are looked up together."""


def microseconds(moments: np.ndarray) -> np.ndarray:
    """datetime64[us] as int64; NaT as `UNKNOWN`."""
    return moments.astype("datetime64[us]").astype(np.int64)


def least_time(a: np.ndarray, b: np.ndarray) -> int | None:
    """Smallest difference between times of two sets, in microseconds; None where one has none that is known.

    Examples
    --------
    >>> least_time(np.array([0, 50]), np.array([20, 90, 100]))
    20
    """
    a, b = a[a != UNKNOWN], np.sort(b[b != UNKNOWN])
    if not a.size or not b.size:
        return None
    at = np.searchsorted(b, a)
    after, before = b[np.minimum(at, len(b) - 1)], b[np.maximum(at - 1, 0)]
    return int(np.minimum(np.abs(after - a), np.abs(a - before)).min())


@dataclass(frozen=True, eq=False)
class PlaceTimes:
    """The dates of each place."""

    start: np.ndarray
    """First date of each place in ``rank``, then the end: int64 (places + 1,)."""
    rank: np.ndarray
    """Position of each date in ``times``, by place, then date."""
    times: np.ndarray
    """All dates, sorted, microseconds."""
    unknown: np.ndarray
    """Whether some date of a place is not known: bool (places,)."""

    @classmethod
    def of(cls, place: np.ndarray, times: np.ndarray | None) -> PlaceTimes:
        """``place`` of each chip, numbered from 0, and its time; None: no chip has one."""
        count = int(place.max()) + 1
        if times is None:
            return cls(np.zeros(count + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.ones(count, bool))
        known = times != UNKNOWN
        unknown = np.zeros(count, bool)
        unknown[place[~known]] = True
        moments, rank = np.unique(times[known], return_inverse=True)
        own = place[known]
        order = np.lexsort((rank, own))
        start = np.searchsorted(own[order], np.arange(count + 1))
        return cls(start, rank[order], moments, unknown)

    def least(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Smallest difference between the dates of each two places, microseconds; 0 where some date is not known."""
        counts = np.diff(self.start)
        fewer = counts[a] <= counts[b]
        a, b = np.where(fewer, a, b), np.where(fewer, b, a)
        found = np.zeros(len(a), np.int64)
        rows = np.flatnonzero(~(self.unknown[a] | self.unknown[b]))
        ends = np.cumsum(counts[a[rows]])
        cuts = np.searchsorted(ends, np.arange(AT_ONCE, ends[-1] + AT_ONCE if len(ends) else 0, AT_ONCE), side="right")
        edges = np.unique(np.concatenate([[0], cuts, [len(rows)]]))
        by_place = np.repeat(np.arange(len(counts)), counts) * np.int64(len(self.times)) + self.rank
        for first, last in itertools.pairwise(edges):
            some = rows[first:last]
            found[some] = self._least(a[some], b[some], counts, by_place)
        return found

    def _least(self, a: np.ndarray, b: np.ndarray, counts: np.ndarray, by_place: np.ndarray) -> np.ndarray:
        number = counts[a]
        begin = np.cumsum(number) - number
        date = np.arange(number.sum()) - np.repeat(begin, number) + np.repeat(self.start[a], number)
        other = np.repeat(b, number)
        rank = self.rank[date]
        at = np.searchsorted(by_place, other * np.int64(len(self.times)) + rank)
        low, high = self.start[other], self.start[other + 1] - 1
        after, before = np.clip(at, low, high), np.clip(at - 1, low, high)
        own = self.times[rank]
        apart = np.minimum(*(np.abs(self.times[self.rank[near]] - own) for near in (after, before)))
        return np.minimum.reduceat(apart, begin)
