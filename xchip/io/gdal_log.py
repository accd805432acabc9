"""What GDAL had to ask a server for again. It does so by itself, and mentions it only in a warning."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

# "HTTP error code: 503 - https://... . Retrying again in 0.5 secs"; 0 is a connection that was reset, or has stalled.
_REPEATED = re.compile(r"HTTP error code(?: for .*)?: (\d+)\b.*Retrying again", re.DOTALL)
_LOGGERS = ("rasterio._err", "rasterio._env")
"""Where rasterio logs GDAL's warnings."""


class _Open(threading.local):
    def __init__(self) -> None:
        self.counters: list[Counter[int]] = []


_OPEN = _Open()


class _Handler(logging.Handler):
    """GDAL calls back, and so a record is logged, in the thread that reads."""

    def emit(self, record: logging.LogRecord) -> None:
        found = _REPEATED.search(record.getMessage()) if _OPEN.counters else None
        if found:
            for counter in _OPEN.counters:
                counter[int(found[1])] += 1


@lru_cache(maxsize=1)
def _listen() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(_Handler(logging.WARNING))


@contextmanager
def counting_repeats() -> Iterator[Counter[int]]:
    """Count, for reads in this thread, how often GDAL repeats a request: HTTP status, or 0 for a broken connection -> number.

    Nothing is counted where rasterio's warnings are turned off: see `observable`.
    """
    _listen()
    counter: Counter[int] = Counter()
    _OPEN.counters.append(counter)
    try:
        yield counter
    finally:
        _OPEN.counters = [other for other in _OPEN.counters if other is not counter]  # equal ones stay


def observable() -> bool:
    """Whether GDAL repeats requests at all, by this thread's settings, and its warnings are logged."""
    from rasterio.env import getenv, hasenv

    options = getenv() if hasenv() else {}
    if options.get("GDAL_HTTP_MAX_RETRY", os.environ.get("GDAL_HTTP_MAX_RETRY")) in (None, 0, "0"):
        return False
    return all(logging.getLogger(name).isEnabledFor(logging.WARNING) for name in _LOGGERS)
