"""Periods of time that follow each other, one for each step of a sequence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST = 100_000
"""Periods; more come of a mistake in a unit."""

_CALENDAR = re.compile(r"\s*(\d*)\s*(month|quarter|year)s?\s*", re.IGNORECASE)
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_DAY_US = 86_400_000_000


def moment(value: Any, name: str) -> int:
    """A date as microseconds since 1970; without a zone it is UTC.

    Raises
    ------
    ValueError
        If it is none.
    """
    import pandas as pd

    try:
        found = pd.Timestamp(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a date such as '2024-03-01', got {value!r}") from error
    if pd.isna(found):
        raise ValueError(f"{name} is a date such as '2024-03-01', got {value!r}")
    found = found.tz_localize("UTC") if found.tzinfo is None else found.tz_convert("UTC")
    return int(found.tz_localize(None).to_datetime64().astype("datetime64[us]").astype(np.int64))


def edges_of(window: Any, times: np.ndarray, *, start: int | None, end: int | None, length: int | None) -> np.ndarray:
    """Where periods begin, and where the last one ends: microseconds since 1970, int64 (periods + 1,).

    Parameters
    ----------
    window
        A length of time such as "30D"; "month", "quarter", "year", or a number of these, such as "2 months"; or the edges, as
        dates, each later than the one before.
    times
        The dates that there are, int64 microseconds. Without ``start`` periods begin at midnight UTC of the first, or with
        its month, quarter or year; without ``end`` and ``length`` the last one holds the last date.
    start, end
        Where the first period begins; the last one holds what comes just before ``end``.
    length
        How many periods.

    Raises
    ------
    ValueError
        If ``window`` is something else, or contradicts the rest.

    Examples
    --------
    >>> times = np.array(["2024-02-29T10:00", "2024-06-30"], "datetime64[us]").astype(np.int64)
    >>> edges = edges_of("quarter", times, start=None, end=None, length=None)
    >>> edges.astype("datetime64[us]").astype("datetime64[D]").astype(str).tolist()
    ['2024-01-01', '2024-04-01', '2024-07-01']
    """
    if not isinstance(window, str) and isinstance(window, Sequence | np.ndarray):
        return _given(window, start, end, length)
    if length is not None and end is not None:
        raise ValueError("length and end both say where the last period ends; leave one out")
    months, unit = _months(window)
    if start is None and not times.size:
        return np.zeros(1, np.int64)
    first = int(times.min()) if start is None else start
    # The last one is to hold this moment.
    last = end - 1 if end is not None else int(times.max()) if times.size else first - 1
    if months:
        return _calendar(months, unit, first, last, begins=start is not None, length=length)
    step = _length_of_time(window)
    begin = first if start is not None else first // _DAY_US * _DAY_US
    count = length if length is not None else max(0, (last - begin) // step + 1)
    return begin + np.arange(_checked(count, window) + 1) * step


def _given(window: Any, start: int | None, end: int | None, length: int | None) -> np.ndarray:
    edges = np.array([moment(edge, "an edge of window") for edge in window], np.int64)
    if len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise ValueError(f"edges of periods are two dates or more, each later than the one before, got {list(window)}")
    if not (start is None and end is None) or length not in (None, len(edges) - 1):
        raise ValueError(f"window= gives the edges of {len(edges) - 1} periods; leave start, end and length out")
    return edges


def _months(window: Any) -> tuple[int, int]:
    """(months of a period, months of its unit); 0 for a length of time."""
    found = _CALENDAR.fullmatch(window) if isinstance(window, str) else None
    if found is None:
        return 0, 0
    unit = _MONTHS[found[2].lower()]
    count = int(found[1] or 1)
    if not count:
        raise ValueError(f"a period is longer than nothing, got window={window!r}")
    return count * unit, unit


def _length_of_time(window: Any) -> int:
    import pandas as pd

    try:
        length = pd.Timedelta(window)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"window is a length of time such as '30D', 'month', 'quarter' or 'year', or the edges of periods, got {window!r}"
        ) from error
    micro = -1 if pd.isna(length) else length.value // 1000
    if micro <= 0:
        raise ValueError(f"a period is longer than nothing, got window={window!r}")
    return int(micro)


def _calendar(months: int, unit: int, first: int, last: int, *, begins: bool, length: int | None) -> np.ndarray:
    month = _month(first)
    rest = first - _begin(month)
    if begins and rest >= 28 * _DAY_US:
        raise ValueError("periods of months begin on a day from the 1st to the 28th, which every month has; move start=")
    if not begins:
        month, rest = month // unit * unit, 0
    count = length if length is not None else max(0, (_month(last - rest) - month) // months + 1)
    numbers = month + np.arange(_checked(count, f"{months} months") + 1) * months
    return numbers.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64) + rest


def _month(micro: int) -> int:
    """Months since 1970."""
    return int(np.datetime64(micro, "us").astype("datetime64[M]").astype(np.int64))


def _begin(month: int) -> int:
    return int(np.datetime64(month, "M").astype("datetime64[us]").astype(np.int64))


def _checked(count: int, window: Any) -> int:
    if count > MOST:
        raise ValueError(f"window={window!r} makes {count:,} periods, and {MOST:,} are the most; is the unit right?")
    return count
