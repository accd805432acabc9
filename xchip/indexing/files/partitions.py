"""Partitions of an index, lazy or not: computed on whatever scheduler the user has chosen, a few at a time or each in a task."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from xchip.indexing.rows import IndexSource, source_of

if TYPE_CHECKING:
    import geopandas


def compute_parts(index: Any, writer: Callable[[Any, int], str]) -> list[str]:
    """What ``writer`` returns for each partition and its number; a partition is computed in the task that writes it."""
    if not _is_lazy(index):
        return [writer(index, 0)]
    import dask

    write = dask.delayed(_write_part, pure=False)
    return _compute([write(writer, part, number) for number, part in enumerate(_parts(index))])


def _is_lazy(index: Any) -> bool:
    return isinstance(index, IndexSource) or hasattr(index, "dask")


def _parts(index: Any) -> list[Any]:
    """The partitions of a lazy index: as `_Call` where each is one function of one thing."""
    source = source_of(index)
    if source is not None:
        return [_Call(source.rows, part) for part in source.parts]
    delayed = index.to_delayed()
    return [_Call(partial(_get, dict(part.dask)), part.key) if len(part.dask) == 1 else part for part in delayed]


class _Call:
    """A partition on its way into the task that writes it: neither waits for the other's worker."""

    def __init__(self, function: Callable[[Any], Any], argument: Any) -> None:
        self.function, self.argument = function, argument

    def __call__(self) -> Any:
        return self.function(self.argument)


def _get(graph: dict[Any, Any], key: Any) -> Any:
    """The result of a small graph, here and now."""
    import dask

    return dask.get(graph, key)


def _compute(parts: Sequence[Any]) -> list[Any]:
    """The results of delayed ``parts``, on the cluster or scheduler that the user has chosen, else on threads."""
    import dask

    scheduler = _scheduler()
    if scheduler is dask.threaded.get and len(parts) == 1 and len(parts[0].dask) == 1:
        scheduler = dask.get  # one task alone runs in this thread: to wake another costs more than it can give
    return list(dask.compute(*parts, scheduler=scheduler))


def _scheduler() -> Any:
    """What `dask.compute` is told to run on; None leaves it to dask.

    Asked for a scheduler by name, or for the default, dask imports distributed to see whether there is a client: 25 MB and some
    tenths of a second. Where nobody has imported it yet there is none.
    """
    import dask

    chosen = dask.config.get("scheduler", None)
    if chosen is None and ("distributed" not in sys.modules or dask.base.get_scheduler() is None):
        chosen = "threads"
    return dask.base.named_schedulers.get(chosen) if isinstance(chosen, str) else None


def _write_part(writer: Any, part: Any, number: int) -> str:
    return writer(_run(part), number)


def frames_of(index: Any) -> Iterator[geopandas.GeoDataFrame]:
    """The partitions of an index, a few at a time."""
    if not _is_lazy(index):
        yield index
        return
    import dask

    run = dask.delayed(_run, pure=False)
    parts = _parts(index)
    at_once = 2 * (os.cpu_count() or 1)
    for first in range(0, len(parts), at_once):
        yield from _compute([run(part) for part in parts[first : first + at_once]])


def _run(part: Any) -> Any:
    return part() if isinstance(part, _Call) else part
