"""Executors: run tasks in a thread pool or on a Dask cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from xchip.io.cluster import slots, slow_malloc
from xchip.io.progress import LOGGER

if TYPE_CHECKING:
    import distributed

Future: TypeAlias = Any
"""A ``concurrent.futures.Future`` or a ``distributed.Future``: both have ``result``, ``exception`` and ``add_done_callback``."""


class Executor(Protocol):
    """Runs one function many times at once."""

    def slots(self) -> int:
        """Return the number of tasks that can run now."""

    def submit(self, *task: object) -> Future:
        """Return a future of ``function(*task)``."""

    def give_up(self, futures: list[Future]) -> list[Future]:
        """Cancel futures that have not started; return the others, which have finished or can be waited for."""


class ThreadExecutor:
    """Threads of this process."""

    def __init__(self, pool: ThreadPoolExecutor, count: int, function: Callable[..., object]) -> None:
        self._pool, self._count, self._function = pool, count, function

    def slots(self) -> int:
        return self._count

    def submit(self, *task: object) -> Future:
        return self._pool.submit(self._function, *task)

    def give_up(self, futures: list[Future]) -> list[Future]:
        started = [future for future in futures if not future.cancel()]
        wait(started)
        return started


class DaskExecutor:
    """Workers of a Dask cluster, which may grow and shrink."""

    REFRESH_SECONDS = 5.0
    """Seconds between two requests for the size of the cluster."""

    def __init__(self, client: distributed.Client, function: Callable[..., object]) -> None:
        self._client, self._function = client, function
        self._refreshed, self._slots = float("-inf"), 1

    def slots(self) -> int:
        if time.monotonic() - self._refreshed > self.REFRESH_SECONDS:
            # An adaptive cluster has no workers until it has tasks.
            self._slots, self._refreshed = max(1, slots(self._client)), time.monotonic()
        return self._slots

    def submit(self, *task: object) -> Future:
        return self._client.submit(self._function, *task, pure=False)

    def give_up(self, futures: list[Future]) -> list[Future]:
        # Do not wait: the cluster may be gone. The next run finds a part that a running task still writes.
        finished = [future for future in futures if future.status == "finished"]
        if self._client.status == "running":
            self._client.cancel([future for future in futures if future.status != "finished"])
        return finished


@contextmanager
def executor_of(client: distributed.Client | None, workers: int | None, function: Callable[..., object]) -> Iterator[Executor]:
    """Yield an executor that calls ``function``: on the cluster of ``client``, or in ``workers`` threads of this process."""
    if client is not None:
        if workers is not None:
            raise ValueError(
                f"workers={workers} is a number of threads of this process, and a Dask cluster has its own workers; "
                "give workers or a client"
            )
        advice = slow_malloc(client)
        if advice:
            LOGGER.warning(advice)
        yield DaskExecutor(client, function)
        return
    count = (os.cpu_count() or 1) if workers is None else workers
    if count < 1:
        raise ValueError(f"workers is a number of threads and must be at least 1, got {workers}")
    pool = ThreadPoolExecutor(count, thread_name_prefix="xchip-index")
    try:
        yield ThreadExecutor(pool, count, function)
    finally:
        pool.shutdown(cancel_futures=True)
