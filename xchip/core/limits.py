"""Validate numbers in arguments: limits on fractions, integers and threads."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from typing import TypedDict, cast

import numpy as np

from xchip.core.grid import GridOptions
from xchip.core.options import check_options


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for chips of an index: fractions in [0, 1]. A chip without valid pixels passes no limit except ``max_nodata``."""

    max_nodata: float | None = None
    """Largest nodata_fraction."""
    max_defective: float | None = None
    """Largest defective_fraction."""
    max_cloud: float | None = None
    """Largest cloud_fraction."""
    max_shadow: float | None = None
    """Largest shadow_fraction."""
    max_snow: float | None = None
    """Largest snow_fraction."""
    max_water: float | None = None
    """Largest water_fraction."""
    min_clear: float | None = None
    """Smallest clear_fraction."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float | np.number) and 0 <= value <= 1):
                raise ValueError(f"{name} is a fraction from 0 to 1, got {value!r}")

    def keep(self, fractions: np.ndarray) -> np.ndarray:
        """Return which of ``fractions`` (7, chips) pass: bool (chips,)."""
        kept = np.ones(fractions.shape[1], bool)
        for position, name in enumerate(self.__slots__[:-1]):
            largest = getattr(self, name)
            if largest is not None:
                kept &= fractions[position] <= largest  # False for NaN
        if self.min_clear is not None:
            kept &= fractions[-1] >= self.min_clear
        return kept


class LimitOptions(TypedDict, total=False):
    """Keywords of `Limits`: fractions in [0, 1]."""

    max_nodata: float | None
    max_defective: float | None
    max_cloud: float | None
    max_shadow: float | None
    max_snow: float | None
    max_water: float | None
    min_clear: float | None


class IndexOptions(GridOptions, LimitOptions, total=False):
    """Keywords of the grid of chips and of the limits of an index."""


def grid_and_limits(function: str, options: IndexOptions) -> tuple[GridOptions, Limits]:
    """Split keywords into grid options and `Limits`.

    Raises
    ------
    TypeError
        If a keyword is unknown.

    Examples
    --------
    >>> grid_and_limits("index", {"stride": 128, "max_cloud": 0.1})[0]
    {'stride': 128}
    """
    check_options(function, options, IndexOptions)
    limits = Limits(**{name: value for name, value in options.items() if name in Limits.__slots__})  # type: ignore[arg-type]
    return cast(GridOptions, {name: value for name, value in options.items() if name not in Limits.__slots__}), limits


REMOTE_THREADS = 16
"""Reader threads for remote files."""


def check_whole(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raise unless ``value`` is an integer from ``least`` to ``most``.

    Raises
    ------
    ValueError
        If it is not; the message names the allowed values of ``name``.

    Examples
    --------
    >>> check_whole("buffer", 0.5)
    Traceback (most recent call last):
    ValueError: buffer is a whole number from 1 on, got 0.5
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # any other type raises TypeError
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} is a whole number from {least} {'on' if most is None else f'to {most}'}, got {value!r}")


def reading_threads(threads: int | None, *, remote: bool) -> int:
    """Return the number of reader threads: ``threads``, or else one per core, `REMOTE_THREADS` for remote files."""
    if threads is not None:
        return threads
    return REMOTE_THREADS if remote else os.cpu_count() or 1
