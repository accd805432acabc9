"""Consecutive periods of time: one period per step of a series."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from xchip.selection.dates import Date, Duration

Window: TypeAlias = "Duration | Sequence[Date] | np.ndarray"
"""Length of each period, or the edges of all periods."""

MOST = 100_000
"""Largest number of periods; more are probably a wrong unit."""

_CALENDAR = re.compile(r"\s*(\d*)\s*(month|quarter|year)s?\s*", re.IGNORECASE)
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_DAY_US = 86_400_000_000


def moment(value: Date, name: str) -> int:
    """Convert a date, in UTC if it has no zone, to microseconds since 1970; raise a ValueError that mentions ``name``."""
    import pandas as pd

    message = f"{name} is a date such as '2024-03-01', got {value!r}"
    try:
        date = pd.Timestamp(value)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error
    if pd.isna(date):
        raise ValueError(message)
    date = date.tz_localize("UTC") if date.tzinfo is None else date.tz_convert("UTC")
    return int(date.tz_localize(None).to_datetime64().astype("datetime64[us]").astype(np.int64))


def edges_of(window: Window, times: np.ndarray, *, start: int | None, end: int | None, length: int | None) -> np.ndarray:
    """Return the edges of periods: microseconds since 1970, int64 (periods + 1,).

    Parameters
    ----------
    window
        A length of time such as "30D"; "month", "quarter", "year", or a number of these, such as "2 months"; or the edges, as
        increasing dates.
    times
        All dates, int64 microseconds. Without ``start``, periods begin at midnight UTC of the first date, or with its month,
        quarter or year. Without ``end`` and ``length``, the last period contains the last date.
    start, end
        Begin of the first period; the last period contains the moment before ``end``.
    length
        Number of periods.

    Examples
    --------
    >>> times = np.array(["2024-02-29T10:00", "2024-06-30"], "datetime64[us]").astype(np.int64)
    >>> edges = edges_of("quarter", times, start=None, end=None, length=None)
    >>> edges.astype("datetime64[us]").astype("datetime64[D]").astype(str).tolist()
    ['2024-01-01', '2024-04-01', '2024-07-01']
    """
    if not isinstance(window, str) and isinstance(window, Sequence | np.ndarray):
        return _checked_edges(window, start, end, length)
    if length is not None and end is not None:
        raise ValueError("length and end both define where the last period ends; leave one out")
    months, unit = _months(window)
    if start is None and not times.size:
        return np.zeros(1, np.int64)
    first = int(times.min()) if start is None else start
    # The last period contains this moment.
    last = end - 1 if end is not None else int(times.max()) if times.size else first - 1
    if months:
        return _calendar(months, unit, first, last, aligned=start is None, length=length)
    step = _duration(window)
    begin = first if start is not None else first // _DAY_US * _DAY_US
    count = length if length is not None else max(0, (last - begin) // step + 1)
    return begin + np.arange(_checked_count(count, window) + 1) * step


def _checked_edges(window: Sequence[Date] | np.ndarray, start: int | None, end: int | None, length: int | None) -> np.ndarray:
    edges = np.array([moment(edge, "an edge of window") for edge in window], np.int64)
    if len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise ValueError(f"edges of periods are two dates or more, each later than the one before, got {list(window)}")
    if not (start is None and end is None) or length not in (None, len(edges) - 1):
        raise ValueError(f"window= gives the edges of {len(edges) - 1} periods; leave start, end and length out")
    return edges


def _months(window: Duration) -> tuple[int, int]:
    """Return (months of a period, months of its unit); 0 for a length of time."""
    match = _CALENDAR.fullmatch(window) if isinstance(window, str) else None
    if match is None:
        return 0, 0
    unit = _MONTHS[match[2].lower()]
    count = int(match[1] or 1)
    if not count:
        raise ValueError(f"a period must be longer than nothing, got window={window!r}")
    return count * unit, unit


def _duration(window: Duration) -> int:
    import pandas as pd

    try:
        length = pd.Timedelta(window)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"window is a length of time such as '30D', 'month', 'quarter' or 'year', or the edges of periods, got {window!r}"
        ) from error
    micro = -1 if pd.isna(length) else length.value // 1000
    if micro <= 0:
        raise ValueError(f"a period must be longer than nothing, got window={window!r}")
    return int(micro)


def _calendar(months: int, unit: int, first: int, last: int, *, aligned: bool, length: int | None) -> np.ndarray:
    """Return edges of periods of ``months``; ``aligned``: they begin with the month, quarter or year of ``first``."""
    month = _month(first)
    rest = first - int(np.datetime64(month, "M").astype("datetime64[us]").astype(np.int64))
    if aligned:
        month, rest = month // unit * unit, 0
    elif rest >= 28 * _DAY_US:
        raise ValueError("periods of months begin on a day from the 1st to the 28th, which every month has; move start=")
    count = length if length is not None else max(0, (_month(last - rest) - month) // months + 1)
    numbers = month + np.arange(_checked_count(count, f"{months} months") + 1) * months
    return numbers.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64) + rest


def _month(micro: int) -> int:
    """Convert microseconds to months since 1970."""
    return int(np.datetime64(micro, "us").astype("datetime64[M]").astype(np.int64))


def _checked_count(count: int, window: Duration) -> int:
    if count > MOST:
        raise ValueError(f"window={window!r} makes {count:,} periods, and {MOST:,} are the most; is the unit right?")
    return count
