"""Numbers that callers pass, held against what they may be."""

from __future__ import annotations

import operator
import os
from typing import Any

REMOTE_THREADS = 16
"""More requests at once bring nothing over a network."""


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Refuse what is no whole number from ``least`` to ``most``.

    Raises
    ------
    ValueError
        It says what ``name`` may be.

    Examples
    --------
    >>> check_whole("buffer", 0.5)
    Traceback (most recent call last):
    ValueError: buffer is a whole number from 1 on, got 0.5
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} is a whole number from {least} {'on' if most is None else f'to {most}'}, got {value!r}")


def reading_threads(threads: int | None, *, remote: bool) -> int:
    """How many threads read and decode: so many, or else one a core, and more where files are read over a network."""
    if threads is not None:
        return threads
    return REMOTE_THREADS if remote else os.cpu_count() or 1
