"""The rows of a series as sequences: the chips of one place side by side in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xchip.chips.chip_reader import ChipReader
from xchip.chips.chip_rows import ChipRows
from xchip.chips.dask_graph import band_arrays
from xchip.indexing.rows import SERIES

if TYPE_CHECKING:
    from xchip.chips.chip_table import ChipTable

DIMS = ("chip", "time", "y", "x")

_OF_PLACE = ("proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top")
_OF_STEP = ("datetime", "item_id", "chip_id", "collection")


@dataclass(frozen=True, eq=False)
class Sequences:
    """Which rows make which sequence."""

    positions: np.ndarray
    """int64 (chip, time): position of each row; -1 where there is none."""
    first: np.ndarray
    """int64 (chip,): a row of each."""


def is_series(coords: Mapping[str, np.ndarray]) -> bool:
    """Whether rows are those of a series."""
    return all(name in coords for name in SERIES)


def sequences_of(coords: Mapping[str, np.ndarray]) -> Sequences:
    """The sequences of rows, in the order in which places come first; rows may be in any order.

    Raises
    ------
    ValueError
        If a place has two rows of one step, or a step is outside of its sequence.
    """
    import pandas as pd

    place_id, step, steps = (coords[name] for name in SERIES)
    place, known = pd.factorize(place_id)
    step, length = step.astype(np.int64), int(steps.max())
    if step.min() < 0 or step.max() >= length:
        raise ValueError(
            f"steps of a series are from 0 to {length - 1}, as column 'steps' says, got {step.min()} to {step.max()}"
        )
    slot = place * np.int64(length) + step
    order = np.argsort(slot, kind="stable")
    twice = np.flatnonzero(np.diff(slot[order]) == 0)
    if twice.size:
        one, other = (coords["chip_id"][order[twice[0] + n]] for n in (0, 1))
        raise ValueError(
            f"chips {one!r} and {other!r} are both step {step[order[twice[0]]]} of place {place_id[order[twice[0]]]!r}; make one "
            "series of all rows with xchip.series, or drop the column 'place_id' to open the chips one by one"
        )
    positions = np.full(len(known) * length, -1, np.int64)
    positions[slot] = np.arange(len(slot))
    return Sequences(positions.reshape(-1, length), np.unique(place, return_index=True)[1])


def sequence_dataset(table: ChipTable, chunk: int) -> xr.Dataset:
    """The rows of a series as a lazy Dataset (chip, time, y, x); ``chunk``: rows that are read together, about."""
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
    """(chip, time): the value of each row; NaT, or "", where there is none."""
    missing = np.datetime64("NaT", "us") if values.dtype.kind == "M" else ""
    return np.where(positions >= 0, values[positions], np.array(missing, values.dtype))


def _lazy_arrays(table: ChipTable, sequences: Sequences, chunk: int) -> list[Any]:
    from dask.base import tokenize

    rows, reader, positions = table.rows, table.reader, sequences.positions
    token = tokenize(*vars(rows).values(), reader.items.assets, reader.tile, reader.size, positions, chunk)
    places = max(1, chunk // positions.shape[1])
    parts = []
    for start in range(0, len(positions), places):
        some = positions[start : start + places]
        observed = some >= 0
        local = np.full(some.shape, -1, np.int64)
        local[observed] = np.arange(observed.sum())
        own = rows.take(some[observed])
        parts.append(_SequenceChunk(own, local, reader.only(own)))
    return band_arrays(
        parts,
        [len(part.positions) for part in parts],
        (positions.shape[1], *reader.size),
        [band.dtype for band in reader.bands],
        [band.name for band in reader.bands],
        token,
    )


@dataclass(frozen=True, eq=False)
class _SequenceChunk:
    """Some sequences as dask sees them: indexing (band, chip, time, y, x) reads pixels."""

    rows: ChipRows
    positions: np.ndarray
    """int64 (chip, time): which of ``rows``; -1 for none."""
    reader: ChipReader

    def __getitem__(self, key: Sequence[Any]) -> np.ndarray:
        band, chips, times, *spatial = key
        wanted = self.positions[chips][..., times]
        observed = wanted >= 0
        out = np.full((*wanted.shape, *self.reader.size), self.reader.bands[band].fill)
        planes = [[out[tuple(where)]] for where in np.argwhere(observed)]
        self.reader.read_into(self.rows.take(np.atleast_1d(wanted[observed])), [band], planes)
        return out[(..., *spatial)]
