"""Compute the partitions of an index on the user's scheduler: each in the task that writes it, or a few at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from xchip.indexing.rows import IndexRows, IndexSource, source_of

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas
    from dask.delayed import Delayed

Index: TypeAlias = "geopandas.GeoDataFrame | dask_geopandas.GeoDataFrame | IndexSource"
Part: TypeAlias = "geopandas.GeoDataFrame | IndexRows"
Writer: TypeAlias = Callable[[Part, int], str]
"""Writes a partition, given with its number, and returns the name of its file."""


def compute_parts(index: Index, writer: Writer) -> list[str]:
    """Return what ``writer`` returns for each partition; a partition is computed in the task that writes it."""
    if not _is_lazy(index):
        return [writer(index, 0)]
    import dask

    write = dask.delayed(_write_part, pure=False)
    return _compute([write(writer, part, number) for number, part in enumerate(_parts(index))])


def _is_lazy(index: Index) -> bool:
    return isinstance(index, IndexSource) or hasattr(index, "dask")


def _parts(index: Index) -> list[_Call | Delayed]:
    """Return the partitions of a lazy index: as `_Call` where a partition is one call of a function."""
    source = source_of(index)
    if source is not None:
        return [_Call(partial(source.rows, part)) for part in source.parts]
    assert not isinstance(index, IndexSource)
    delayed = index.to_delayed()
    return [_Call(partial(_get, dict(part.dask), part.key)) if len(part.dask) == 1 else part for part in delayed]


class _Call:
    """A partition to compute inside the task that writes it, so that no task waits for another worker."""

    def __init__(self, function: Callable[[], Part]) -> None:
        self.function = function

    def __call__(self) -> Part:
        return self.function()


def _get(graph: dict[Any, Any], key: Any) -> Part:
    """Compute a small graph in this thread."""
    import dask

    return dask.get(graph, key)


def _compute(parts: Sequence[Delayed]) -> list[Any]:
    """Compute ``parts`` on the cluster or scheduler that the user has chosen, else on threads."""
    import dask

    scheduler = _scheduler()
    if scheduler is dask.threaded.get and len(parts) == 1 and len(parts[0].dask) == 1:
        scheduler = dask.get  # a single task runs in this thread: starting another costs more than it gains
    return list(dask.compute(*parts, scheduler=scheduler))


def _scheduler() -> Callable[..., Any] | None:
    """Return the scheduler for `dask.compute`; None leaves the choice to dask.

    Given the name of a scheduler, or none, dask imports distributed to look for a client: 25 MB and some tenths of a second. If
    distributed is not imported yet there is no client. ``named_schedulers`` is not documented, but it is the only way from a
    name to a scheduler without that import; a test writes an index without distributed.
    """
    import dask

    scheduler = dask.config.get("scheduler", None)
    if scheduler is None and ("distributed" not in sys.modules or dask.base.get_scheduler() is None):
        scheduler = "threads"
    return dask.base.named_schedulers.get(scheduler) if isinstance(scheduler, str) else None


def _write_part(writer: Writer, part: Part | _Call, number: int) -> str:
    return writer(_run(part), number)


def frames_of(index: Index) -> Iterator[Part]:
    """Yield the partitions of an index; a few are computed at a time."""
    if not _is_lazy(index):
        yield index
        return
    import dask

    run = dask.delayed(_run, pure=False)
    parts = _parts(index)
    at_once = 2 * (os.cpu_count() or 1)
    for first in range(0, len(parts), at_once):
        yield from _compute([run(part) for part in parts[first : first + at_once]])


def _run(part: Part | _Call) -> Part:
    return part() if isinstance(part, _Call) else part
