"""Count the requests that GDAL repeats by itself, which it reports only as warnings."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

# "HTTP error code: 503 - https://... . Retrying again in 0.5 secs"; 0 is a connection that was reset or has stalled.
_REPEATED = re.compile(r"HTTP error code(?: for .*)?: (\d+)\b.*Retrying again", re.DOTALL)
_LOGGERS = ("rasterio._err", "rasterio._env")
"""Loggers of rasterio for GDAL's warnings. They are private names, but neither GDAL nor rasterio reports repeats otherwise."""


class _Active(threading.local):
    def __init__(self) -> None:
        self.counters: list[Counter[int]] = []


_ACTIVE = _Active()


class _Handler(logging.Handler):
    """Counts repeats for the reading thread, in which GDAL calls back and the record is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        match = _REPEATED.search(record.getMessage()) if _ACTIVE.counters else None
        if match:
            for counter in _ACTIVE.counters:
                counter[int(match[1])] += 1


@lru_cache(maxsize=1)
def _listen() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(_Handler(logging.WARNING))


@contextmanager
def counting_repeats() -> Iterator[Counter[int]]:
    """Yield a counter of the requests that GDAL repeats in this thread, by HTTP status; 0 is a broken connection.

    The counter stays empty if rasterio's warnings are turned off: see `repeats_are_logged`.
    """
    _listen()
    counter: Counter[int] = Counter()
    _ACTIVE.counters.append(counter)
    try:
        yield counter
    finally:
        _ACTIVE.counters = [active for active in _ACTIVE.counters if active is not counter]  # list.remove would compare by value


def repeats_are_logged() -> bool:
    """Whether GDAL repeats requests under this thread's settings, and its warnings are logged."""
    from rasterio.env import getenv, hasenv

    options = getenv() if hasenv() else {}
    if options.get("GDAL_HTTP_MAX_RETRY", os.environ.get("GDAL_HTTP_MAX_RETRY")) in (None, 0, "0"):
        return False
    return all(logging.getLogger(name).isEnabledFor(logging.WARNING) for name in _LOGGERS)
