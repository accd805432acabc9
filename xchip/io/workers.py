"""Who does the tasks of a run: threads of this process, or the workers of a Dask cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from xchip.io.cluster import slots, slow_malloc
from xchip.io.progress import LOGGER

if TYPE_CHECKING:
    import distributed


class Executor(Protocol):
    """Who does the tasks."""

    def slots(self) -> int:
        """How many tasks can be worked on now."""

    def submit(self, *task: Any) -> Any:
        """Return a future of ``function(*task)``."""

    def give_up(self, futures: list[Any]) -> list[Any]:
        """Begin none of these that has not begun; those that are finished, or soon will be."""


class ThreadExecutor:
    """Threads of this process."""

    def __init__(self, pool: ThreadPoolExecutor, count: int, function: Callable[..., Any]) -> None:
        self._pool, self._count, self._function = pool, count, function

    def slots(self) -> int:
        return self._count

    def submit(self, *task: Any) -> Any:
        return self._pool.submit(self._function, *task)

    def give_up(self, futures: list[Any]) -> list[Any]:
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
        return begun


class DaskExecutor:
    """Workers of a Dask cluster, which may grow and shrink."""

    ASKED_EVERY = 5.0
    """Seconds between two questions of how large the cluster is."""

    def __init__(self, client: distributed.Client, function: Callable[..., Any]) -> None:
        self._client, self._function = client, function
        self._asked, self._slots = float("-inf"), 1

    def slots(self) -> int:
        if time.monotonic() - self._asked > self.ASKED_EVERY:
            # An adaptive cluster has no workers until it has tasks.
            self._slots, self._asked = max(1, slots(self._client)), time.monotonic()
        return self._slots

    def submit(self, *task: Any) -> Any:
        return self._client.submit(self._function, *task, pure=False)

    def give_up(self, futures: list[Any]) -> list[Any]:
        # The cluster may be gone, so nothing is waited for: a part that is written all the same is found by the next run.
        finished = [future for future in futures if future.status == "finished"]
        if self._client.status == "running":
            self._client.cancel([future for future in futures if future.status != "finished"])
        return finished


@contextmanager
def executor_of(client: distributed.Client | None, workers: int | None, function: Callable[..., Any]) -> Iterator[Executor]:
    """Give the executor that calls ``function``: the cluster of ``client``, or ``workers`` threads of this process."""
    if client is not None:
        if workers is not None:
            raise ValueError(
                "workers is a number of threads of this process; a Dask cluster has its own: give workers or a client"
            )
        advice = slow_malloc(client)
        if advice:
            LOGGER.warning(advice)
        yield DaskExecutor(client, function)
        return
    count = (os.cpu_count() or 1) if workers is None else workers
    if count < 1:
        raise ValueError(f"workers is a number of threads, at least 1, got {workers}")
    pool = ThreadPoolExecutor(count, thread_name_prefix="xchip-index")
    try:
        yield ThreadExecutor(pool, count, function)
    finally:
        pool.shutdown(cancel_futures=True)
