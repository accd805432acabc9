"""Dask arrays of chips: one task for each chunk and band; the bands of a chunk share one value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from xchip.chips.item_cache import ChipBand

if TYPE_CHECKING:
    import dask.array as da

ChunkIndex: TypeAlias = tuple[Any, ...]
"""(band, chip, ...): the number of a band, and an index into each dimension of a chunk."""


class ChipChunk(Protocol):
    """A chunk of chips that reads its pixels when it is indexed."""

    def __len__(self) -> int:
        """Number of chips."""

    def __getitem__(self, key: ChunkIndex) -> np.ndarray:
        """Read pixels."""


def band_arrays(parts: Sequence[ChipChunk], shape: tuple[int, ...], bands: Sequence[ChipBand], token: str) -> list[da.Array]:
    """Return an array (chip, ...) for each band.

    Parameters
    ----------
    parts
        The chunks, in order.
    shape
        Length of the dimensions after ``chip``.
    bands
        The bands that the chunks read.
    token
        Identifies these chips in the names of the graph's keys.
    """
    import dask.array as da

    # dask.array.from_array builds its tasks with the same function, but sends the whole array-like object to every task, where
    # a chunk needs its own rows only. The optimizer recognises the function: it passes a slice of the result on to the
    # chunk, so that no more pixels are read than needed (tests/test_open_chips.py checks this).
    from dask.array.core import getter
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    shared = f"chip-rows-{token}"
    rows = MaterializedLayer({(shared, number): part for number, part in enumerate(parts)})
    origin = (0,) * len(shape)
    everything = (slice(None),) * (1 + len(shape))
    chunks = (tuple(map(len, parts)), *((length,) for length in shape))
    arrays = []
    for band_number, band in enumerate(bands):
        name = f"chips-{band.name}-{token}"
        tasks = {(name, n, *origin): (getter, (shared, n), (band_number, *everything)) for n in range(len(parts))}
        graph = HighLevelGraph({shared: rows, name: MaterializedLayer(tasks)}, {shared: set(), name: {shared}})
        arrays.append(da.Array(graph, name, chunks, dtype=band.dtype))
    return arrays
