"""Blocks: fixed cells of about one size that cover the Earth, and the split that each belongs to.

The Earth is cut into bands of latitude, and each band into cells about as wide as it is high. The cells depend on nothing but
their size, and a cell's split on nothing but its number and the seed, so neither changes when chips are added.

**A chip is kept if all cells within half the buffer of it belong to one split**, which is then its own. Two chips of different
splits are therefore further apart than the buffer: the middle of a shortest way between them would be within half the buffer of
both, and its cell would belong to both splits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xchip.selection.sphere import EARTH_KM, seeded, unit

MARGIN_KM = 0.002
"""Added to the buffer, for rounding here and in whatever measures the distances afterwards."""
SMALLEST_KM = 0.1
"""Far from what 32 bits can number along the equator, and too small for a chip to fit in."""

SET_ASIDE, NOWHERE = -1, -2
"""In place of a split: too near to another one, and without a place, date or value."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Cells of the Earth, each of which belongs to one of several splits.

    Examples
    --------
    >>> blocks = Blocks(100.0, (0.8, 0.1, 0.1), seed=0)
    >>> blocks.bands
    199
    >>> row, column = blocks.cells(np.array([10.0, 10.2, 10.0]), np.array([50.0, 50.1, -90.0]))
    >>> blocks.splits(row, column)
    array([0, 0, 0])
    """

    block_km: float
    """Height of a cell, and about its width."""
    shares: tuple[float, ...]
    """How large a part of the cells each split gets; they sum to 1."""
    seed: int
    """Another seed gives other cells to each."""

    @property
    def bands(self) -> int:
        """Bands from pole to pole."""
        return max(1, round(np.pi * EARTH_KM / self.block_km))

    def columns(self, row: np.ndarray) -> np.ndarray:
        """Cells of each band: int64; 3 at a pole."""
        middle = ((row + 0.5) / self.bands - 0.5) * np.pi
        return np.maximum(1, np.round(2 * self.bands * np.cos(middle))).astype(np.int64)

    def cells(self, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(band from the south, cell of the band from longitude -180 eastwards) of each point: int64."""
        row = self._row(lat)
        return row, self._column(lon, row) % self.columns(row)

    def splits(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Which split each cell belongs to: int64, the position of its share."""
        number = (row.astype(np.uint64) << np.uint64(32)) | column.astype(np.uint64)
        ends = np.cumsum(self.shares)[:-1]
        return np.searchsorted(ends, unit(seeded(number, self.seed)), side="right")

    def assign(self, spans: np.ndarray, buffer_km: float) -> np.ndarray:
        """The split of each chip.

        Parameters
        ----------
        spans
            (west, south, east, north) in degrees: float64 (4, n), of `xchip.selection.sphere.spans`.
        buffer_km
            Least distance between chips of different splits.

        Returns
        -------
        numpy.ndarray
            int64 (n,): the position of the split's share; `SET_ASIDE` for chips near a block of another split; `NOWHERE` for
            those without a place.
        """
        found = np.full(spans.shape[1], NOWHERE, np.int64)
        known = np.flatnonzero(np.isfinite(spans).all(axis=0))
        west, south, east, north = _widened(spans[:, known], (buffer_km + MARGIN_KM) / 2)
        first, last = self._row(south), self._row(north)
        own = np.full(len(known), NOWHERE, np.int64)
        pending, row = np.arange(len(known)), first
        while pending.size:
            own[pending] = self._of_band(west[pending], east[pending], row, own[pending])
            onwards = (row < last[pending]) & (own[pending] != SET_ASIDE)
            pending, row = pending[onwards], row[onwards] + 1
        found[known] = own
        return found

    def _of_band(self, west: np.ndarray, east: np.ndarray, row: np.ndarray, own: np.ndarray) -> np.ndarray:
        """The one split of ``own`` and all cells of a band from west to east; `SET_ASIDE` where there are several."""
        columns = self.columns(row)
        first = self._column(west, row)
        last = np.minimum(self._column(east, row), first + columns - 1)
        own = own.copy()
        pending, column = np.arange(len(row)), first
        while pending.size:
            split = self.splits(row[pending], column % columns[pending])
            own[pending] = np.where((own[pending] == NOWHERE) | (own[pending] == split), split, SET_ASIDE)
            onwards = (column < last[pending]) & (own[pending] != SET_ASIDE)
            pending, column = pending[onwards], column[onwards] + 1
        return own

    def _row(self, lat: np.ndarray) -> np.ndarray:
        return np.clip(np.floor((lat / 180 + 0.5) * self.bands), 0, self.bands - 1).astype(np.int64)

    def _column(self, lon: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Counted on and on where longitudes go past 180."""
        return np.floor((lon / 360 + 0.5) * self.columns(row)).astype(np.int64)


def _widened(spans: np.ndarray, km: float) -> tuple[np.ndarray, ...]:
    """Boxes of longitude and latitude that hold all within ``km`` of those given; all longitudes where they reach a pole."""
    west, south, east, north = spans
    angle = km / EARTH_KM
    south, north = south - np.degrees(angle), north + np.degrees(angle)
    furthest = np.maximum(np.abs(spans[1]), np.abs(spans[3]))
    # The meridian that touches a circle round a point: sin(longitude) = sin(radius) / cos(latitude).
    ratio = np.sin(min(angle, np.pi / 2)) / np.maximum(np.cos(np.radians(np.minimum(furthest, 90))), 1e-300)
    wide = np.degrees(np.arcsin(np.minimum(ratio, 1)))
    wide = np.where((ratio >= 1) | (east - west + 2 * wide >= 360), 360.0, wide)
    return west - wide, south, east + wide, north
