"""Arrange the rows of a series as sequences: the chips of one place along time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xchip.chips.chip_reader import ChipReader
from xchip.chips.chip_rows import ChipRows
from xchip.chips.dask_graph import ChunkIndex, band_arrays
from xchip.indexing.rows import SERIES

if TYPE_CHECKING:
    import dask.array as da

    from xchip.chips.chip_table import ChipTable

DIMS = ("chip", "time", "y", "x")

_OF_PLACE = ("proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top")
_OF_STEP = ("datetime", "item_id", "chip_id", "collection")


@dataclass(frozen=True, eq=False)
class Sequences:
    """The rows of each sequence."""

    positions: np.ndarray
    """int64 (chip, time): position of each row; -1 for a step without a row."""
    first: np.ndarray
    """int64 (chip,): the first row of each."""


def is_series(coords: Mapping[str, np.ndarray]) -> bool:
    """Return whether rows are the rows of a series."""
    return all(name in coords for name in SERIES)


def sequences_of(coords: Mapping[str, np.ndarray]) -> Sequences:
    """Return the sequences of rows, in the order of each place's first row. Rows may be in any order.

    Raises
    ------
    ValueError
        If two rows have the same place and step, or a step is outside its sequence.
    """
    import pandas as pd

    place_id, step, steps = (coords[name] for name in SERIES)
    place, places = pd.factorize(place_id)
    step, length = step.astype(np.int64), int(steps.max())
    if step.min() < 0 or step.max() >= length:
        raise ValueError(
            f"steps of this series must be from 0 to {length - 1} (column 'steps'), got {step.min()} to {step.max()}"
        )
    slot = place * np.int64(length) + step
    order = np.argsort(slot, kind="stable")
    repeated = np.flatnonzero(np.diff(slot[order]) == 0)
    if repeated.size:
        first, second = order[repeated[0]], order[repeated[0] + 1]
        raise ValueError(
            f"chips {coords['chip_id'][first]!r} and {coords['chip_id'][second]!r} are both step {step[first]} of place "
            f"{place_id[first]!r}; make one "
            "series of all rows with xchip.series, or drop the column 'place_id' to open the chips one by one"
        )
    positions = np.full(len(places) * length, -1, np.int64)
    positions[slot] = np.arange(len(slot))
    return Sequences(positions.reshape(-1, length), np.unique(place, return_index=True)[1])


def sequence_dataset(table: ChipTable, chunk: int) -> xr.Dataset:
    """Return the rows of a series as a lazy Dataset (chip, time, y, x), with about ``chunk`` rows in a chunk."""
    sequences = sequences_of(table.coords)
    observed = sequences.positions >= 0
    bands = {
        band.name: (DIMS, array, dict(band.attrs))
        for band, array in zip(table.reader.bands, _lazy_arrays(table, sequences, chunk), strict=True)
    }
    coords: dict[str, Any] = {"place_id": ("chip", table.coords["place_id"][sequences.first])}
    coords |= {name: ("chip", table.coords[name][sequences.first]) for name in _OF_PLACE if name in table.coords}
    coords |= {name: (DIMS[:2], _spread(table.coords[name], sequences.positions)) for name in _OF_STEP if name in table.coords}
    coords["observed"] = (DIMS[:2], observed)
    return xr.Dataset(bands, coords, table.attrs)


def _spread(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the value of each row, (chip, time); NaT or "" for steps without a row."""
    missing = np.datetime64("NaT", "us") if values.dtype.kind == "M" else ""
    return np.where(positions >= 0, values[positions], np.array(missing, values.dtype))


def _lazy_arrays(table: ChipTable, sequences: Sequences, chunk: int) -> list[da.Array]:
    from dask.base import tokenize

    rows, reader, positions = table.rows, table.reader, sequences.positions
    token = tokenize(*vars(rows).values(), reader.items.assets, reader.tile, reader.size, positions, chunk)
    places = max(1, chunk // positions.shape[1])
    parts = []
    for start in range(0, len(positions), places):
        block = positions[start : start + places]
        observed = block >= 0
        local = np.full(block.shape, -1, np.int64)
        local[observed] = np.arange(observed.sum())
        chunk_rows = rows.take(block[observed])
        parts.append(_SequenceChunk(chunk_rows, local, reader.only(chunk_rows)))
    return band_arrays(parts, (positions.shape[1], *reader.size), reader.bands, token)


@dataclass(frozen=True, eq=False)
class _SequenceChunk:
    """A chunk of sequences: indexing with (band, chip, time, y, x) reads pixels."""

    rows: ChipRows
    positions: np.ndarray
    """int64 (chip, time): position in ``rows``; -1 for a step without a row."""
    reader: ChipReader

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: ChunkIndex) -> np.ndarray:
        band, chips, times, *spatial = key
        wanted = self.positions[chips][..., times]
        observed = wanted >= 0
        out = np.full((*wanted.shape, *self.reader.size), self.reader.bands[band].fill)
        planes = [[out[tuple(step)]] for step in np.argwhere(observed)]
        self.reader.read_into(self.rows.take(np.atleast_1d(wanted[observed])), [band], planes)
        return out[(..., *spatial)]
