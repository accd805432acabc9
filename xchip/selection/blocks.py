"""Blocks: fixed cells of about equal size that cover the Earth, and the split of each cell.

The Earth is cut into bands of latitude, and each band into cells about as wide as it is high. The cells depend only on their
size, and the split of a cell only on its number and the seed, so neither changes when chips are added.

**A chip is kept if all cells within half the buffer around it belong to the same split**, which becomes the chip's split. Two
chips of different splits are therefore further apart than the buffer: otherwise the midpoint of the shortest path between them
would be within half the buffer of both chips, and its cell would belong to both splits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xchip.selection.sphere import EARTH_KM, seeded, unit

MARGIN_KM = 0.002
"""Added to the buffer, because distances are rounded here and wherever they are measured later."""
SMALLEST_KM = 0.1
"""Smallest block: its number along the equator fits well into 32 bits, and a chip hardly fits into it."""

SET_ASIDE, NOWHERE = -1, -2
"""Codes in place of a split: too near to another split; without a place, date or value."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Cells of the Earth, each of which belongs to a split.

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
    """Height of a cell, and its approximate width."""
    shares: tuple[float, ...]
    """Share of the cells that each split gets; they sum to 1."""
    seed: int
    """Seed of the draw."""

    @property
    def bands(self) -> int:
        """Number of bands from pole to pole."""
        return max(1, round(np.pi * EARTH_KM / self.block_km))

    def columns(self, row: np.ndarray) -> np.ndarray:
        """Return the number of cells of each band: int64; 3 at a pole."""
        middle = ((row + 0.5) / self.bands - 0.5) * np.pi
        return np.maximum(1, np.round(2 * self.bands * np.cos(middle))).astype(np.int64)

    def cells(self, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (band from the south, cell of the band from longitude -180 eastwards) of each point: int64."""
        row = self._row(lat)
        return row, self._column(lon, row) % self.columns(row)

    def splits(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return the split of each cell: int64, the position of its share."""
        number = (row.astype(np.uint64) << np.uint64(32)) | column.astype(np.uint64)
        ends = np.cumsum(self.shares)[:-1]
        return np.searchsorted(ends, unit(seeded(number, self.seed)), side="right")

    def assign(self, spans: np.ndarray, buffer_km: float) -> np.ndarray:
        """Return the split of each chip.

        Parameters
        ----------
        spans
            (west, south, east, north) in degrees: float64 (4, n), from `xchip.selection.sphere.spans`.
        buffer_km
            Smallest distance between chips of different splits.

        Returns
        -------
        numpy.ndarray
            int64 (n,): the position of the split's share; `SET_ASIDE` for chips near a block of another split; `NOWHERE` for
            chips without a footprint.
        """
        assigned = np.full(spans.shape[1], NOWHERE, np.int64)
        placed = np.flatnonzero(np.isfinite(spans).all(axis=0))
        west, south, east, north = _widened(spans[:, placed], (buffer_km + MARGIN_KM) / 2)
        row, last = self._row(south), self._row(north)
        splits = np.full(len(placed), NOWHERE, np.int64)
        pending = np.arange(len(placed))
        while pending.size:
            splits[pending] = self._merge_band(west[pending], east[pending], row, splits[pending])
            unfinished = (row < last[pending]) & (splits[pending] != SET_ASIDE)
            pending, row = pending[unfinished], row[unfinished] + 1
        assigned[placed] = splits
        return assigned

    def _merge_band(self, west: np.ndarray, east: np.ndarray, row: np.ndarray, splits: np.ndarray) -> np.ndarray:
        """Return the common split of ``splits`` and all cells of a band from west to east; `SET_ASIDE` if they differ."""
        columns = self.columns(row)
        column = self._column(west, row)
        last = np.minimum(self._column(east, row), column + columns - 1)
        splits = splits.copy()
        pending = np.arange(len(row))
        while pending.size:
            split = self.splits(row[pending], column % columns[pending])
            splits[pending] = np.where((splits[pending] == NOWHERE) | (splits[pending] == split), split, SET_ASIDE)
            unfinished = (column < last[pending]) & (splits[pending] != SET_ASIDE)
            pending, column = pending[unfinished], column[unfinished] + 1
        return splits

    def _row(self, lat: np.ndarray) -> np.ndarray:
        return np.clip(np.floor((lat / 180 + 0.5) * self.bands), 0, self.bands - 1).astype(np.int64)

    def _column(self, lon: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Number of the cell, counted on beyond longitude 180."""
        return np.floor((lon / 360 + 0.5) * self.columns(row)).astype(np.int64)


def _widened(spans: np.ndarray, km: float) -> tuple[np.ndarray, ...]:
    """Extend boxes of longitude and latitude by ``km``; boxes that reach a pole get all longitudes."""
    west, south, east, north = spans
    angle = km / EARTH_KM
    south, north = south - np.degrees(angle), north + np.degrees(angle)
    furthest = np.maximum(np.abs(spans[1]), np.abs(spans[3]))
    # The meridian that touches a circle around a point: sin(longitude) = sin(radius) / cos(latitude).
    ratio = np.sin(min(angle, np.pi / 2)) / np.maximum(np.cos(np.radians(np.minimum(furthest, 90))), 1e-300)
    wide = np.degrees(np.arcsin(np.minimum(ratio, 1)))
    wide = np.where((ratio >= 1) | (east - west + 2 * wide >= 360), 360.0, wide)
    return west - wide, south, east + wide, north
