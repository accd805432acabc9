"""Dates of chips as integers, and the smallest time between two sets of chips or two places with many dates each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xchip.selection.neighbours import chunked

if TYPE_CHECKING:
    import datetime

    import pandas as pd

Date: TypeAlias = "str | datetime.date | np.datetime64"
"""A moment, in UTC if it has no time zone."""
Duration: TypeAlias = "str | datetime.timedelta | np.timedelta64"
"""A length of time."""

UNKNOWN = np.iinfo(np.int64).min
"""Code of a missing date."""


def timedelta_of(value: Duration, name: str) -> pd.Timedelta:
    """Convert a length of time of 0 or more; raise a ValueError that mentions ``name`` if it is not."""
    import pandas as pd

    message = f"{name} is a length of time such as '30D', of 0 or more, got {value!r}"
    try:
        length = pd.Timedelta(value)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error
    if not length >= pd.Timedelta(0):  # NaT too
        raise ValueError(message)
    return length


def moments_of(column: pd.Series) -> np.ndarray:
    """Convert a column of dates to datetime64[us] in UTC."""
    import pandas as pd

    return pd.DatetimeIndex(pd.to_datetime(column, utc=True)).tz_localize(None).to_numpy().astype("datetime64[us]")


def microseconds(column: pd.Series) -> np.ndarray:
    """Convert a column of dates to microseconds since 1970: int64 (n,), `UNKNOWN` for missing dates."""
    return moments_of(column).astype(np.int64)


def least_time(a: np.ndarray, b: np.ndarray) -> int | None:
    """Return the smallest difference between times of two sets, in microseconds; None if a set has no known time.

    Examples
    --------
    >>> least_time(np.array([0, 50]), np.array([20, 90, 100]))
    20
    """
    a, b = a[a != UNKNOWN], np.sort(b[b != UNKNOWN])
    if not a.size or not b.size:
        return None
    position = np.searchsorted(b, a)
    after, before = b[np.minimum(position, len(b) - 1)], b[np.maximum(position - 1, 0)]
    return int(np.minimum(np.abs(after - a), np.abs(a - before)).min())


@dataclass(frozen=True, eq=False)
class PlaceTimes:
    """The dates of each place."""

    start: np.ndarray
    """First date of each place in ``rank``, then the end: int64 (places + 1,)."""
    rank: np.ndarray
    """Position of each date in ``times``, sorted by place, then date."""
    times: np.ndarray
    """All dates, sorted, microseconds."""
    unknown: np.ndarray
    """Whether a date of the place is unknown: bool (places,)."""

    @classmethod
    def of(cls, place: np.ndarray, times: np.ndarray | None) -> PlaceTimes:
        """Group ``times`` by ``place``, numbered from 0, one of each per chip. None: no chip has a date."""
        count = int(place.max()) + 1
        if times is None:
            return cls(np.zeros(count + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.ones(count, bool))
        dated = times != UNKNOWN
        unknown = np.zeros(count, bool)
        unknown[place[~dated]] = True
        moments, rank = np.unique(times[dated], return_inverse=True)
        place = place[dated]
        order = np.lexsort((rank, place))
        start = np.searchsorted(place[order], np.arange(count + 1))
        return cls(start, rank[order], moments, unknown)

    def least(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the smallest difference between the dates of each two places, microseconds; 0 if a date is unknown."""
        counts = np.diff(self.start)
        fewer = counts[a] <= counts[b]
        a, b = np.where(fewer, a, b), np.where(fewer, b, a)
        differences = np.zeros(len(a), np.int64)
        rows = np.flatnonzero(~(self.unknown[a] | self.unknown[b]))
        by_place = np.repeat(np.arange(len(counts)), counts) * np.int64(len(self.times)) + self.rank
        for chunk in chunked(counts[a[rows]]):
            pair = rows[chunk]
            differences[pair] = self._least(a[pair], b[pair], counts, by_place)
        return differences

    def _least(self, a: np.ndarray, b: np.ndarray, counts: np.ndarray, by_place: np.ndarray) -> np.ndarray:
        number = counts[a]
        begin = np.cumsum(number) - number
        date = np.arange(number.sum()) - np.repeat(begin, number) + np.repeat(self.start[a], number)
        partner = np.repeat(b, number)
        rank = self.rank[date]
        position = np.searchsorted(by_place, partner * np.int64(len(self.times)) + rank)
        low, high = self.start[partner], self.start[partner + 1] - 1
        after, before = np.clip(position, low, high), np.clip(position - 1, low, high)
        differences = (np.abs(self.times[self.rank[near]] - self.times[rank]) for near in (after, before))
        return np.minimum.reduceat(np.minimum(*differences), begin)
