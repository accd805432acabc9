"""Dask arrays of chips: a task for each chunk and band, and one value that the bands of a chunk share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def band_arrays(
    parts: Sequence[Any],
    lengths: Sequence[int],
    shape: tuple[int, ...],
    dtypes: Sequence[np.dtype],
    names: Sequence[str],
    token: str,
) -> list[Any]:
    """An array (chip, ...) of each band.

    Parameters
    ----------
    parts
        The chunks: indexing one with (band, chip, ...) reads pixels.
    lengths
        Chips in each.
    shape
        Length of the other dimensions.
    dtypes, names
        Of each band.
    token
        Tells these chips from others.
    """
    import dask.array as da
    from dask._task_spec import DataNode, Task, TaskRef
    from dask.array.core import getter
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    shared = f"chip-rows-{token}"
    values: dict[Any, Any] = {(shared, number): DataNode((shared, number), part) for number, part in enumerate(parts)}
    rows = MaterializedLayer(values)
    rest = (0,) * len(shape)
    everything = (slice(None),) * (1 + len(shape))
    arrays = []
    for band_number, (band, dtype) in enumerate(zip(names, dtypes, strict=True)):
        name = f"chips-{band}-{token}"
        # As dask reads arrays: it hands a slice of the result down to the getter, so that no more is read than is asked for.
        tasks = {
            key: Task(key, getter, TaskRef((shared, number)), (band_number, *everything))
            for number in range(len(parts))
            for key in [(name, number, *rest)]
        }
        graph = HighLevelGraph({shared: rows, name: MaterializedLayer(tasks)}, {shared: set(), name: {shared}})
        chunks = (tuple(lengths), *((length,) for length in shape))
        arrays.append(da.Array(graph, name, chunks, dtype=dtype))
    return arrays
