"""Dask arrays from graphs: of chips that are read, and of blocks that tasks of a graph compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np

if TYPE_CHECKING:
    import dask.array as da
    from dask.typing import DaskCollection, Key

    from xchip.chips.item_cache import ChipBand

ChunkIndex: TypeAlias = tuple[Any, ...]
"""(band, chip, ...): the number of a band, and an index into each dimension of a chunk."""


class ChipChunk(Protocol):
    """A chunk of chips that reads its pixels when it is indexed."""

    def __len__(self) -> int:
        """Number of chips."""

    def __getitem__(self, key: ChunkIndex) -> np.ndarray:
        """Read pixels."""


def band_arrays(parts: Sequence[ChipChunk], shape: tuple[int, ...], bands: Sequence[ChipBand], token: str) -> list[da.Array]:
    """Return an array (chip, ...) for each band: one task per chunk and band. The bands of a chunk share one value.

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


def block_key(name: str, *numbers: int) -> tuple[str | int, ...]:
    """Return the key of a block of the array ``name``, or of a task."""
    return (name, *numbers)


def graph_array(
    name: str,
    graph: Mapping[Key, object],
    chunks: tuple[tuple[int, ...], ...],
    dtype: np.dtype,
    sources: Sequence[da.Array],
) -> da.Array:
    """Return the NumPy-backed array whose blocks are the keys (name, ...) of ``graph``, which uses blocks of ``sources``."""
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    # In dask's annotations, its arrays don't match its protocol of collections.
    dependencies = cast("Sequence[DaskCollection]", sources)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=dependencies)
    return da.Array(layers, name, chunks, meta=np.empty((0,) * len(chunks), dtype))
