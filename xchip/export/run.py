"""The run of an export: what is left is done, on threads or on a cluster, and counted."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from itertools import compress
from operator import not_
from typing import TYPE_CHECKING, Any, TextIO

from xchip.export.job import Done, FailedChip, OutputFile, Pool, Work, broken, by_file, export_pool, failures_in, shipped
from xchip.export.report import ExportReport
from xchip.indexing.archive.task import ArchiveError
from xchip.io.cluster import slow_malloc
from xchip.io.progress import LOGGER, Progress
from xchip.io.store import Store, reached
from xchip.io.workers import DaskExecutor

if TYPE_CHECKING:
    import distributed

QUEUED = 2
"""Tasks in flight for each thread of a cluster: one that runs, and one that waits so that it need not."""


class ExportRun:
    """One run: what is left of a plan is done, and counted."""

    def __init__(self, store: Store, plan: list[Pool], retry_failed: bool, progress: bool | TextIO) -> None:
        self._store, self._plan, self._retry_failed = store, plan, retry_failed
        self._progress = None
        if progress is not False:
            files = sum(len(pool.files) for pool in plan)
            stream = None if isinstance(progress, bool) else progress
            self._progress = Progress(files, "written", unit="files", stream=stream)
        self.done = self.skipped = self.files = 0
        self.failures: list[FailedChip] = []

    def all(self, work: Work, client: distributed.Client | None, threads: int) -> None:
        """Do it."""
        results = _on_threads(self._left(), work, threads) if client is None else _on_cluster(self._left(), work, client)
        with self._progress or nullcontext():
            for pool, done in results:
                self.done += done.chips
                self.files += len(done.written)
                self.failures += done.failures
                self._advance(pool.files, failed={one.file for one in done.failures})

    def _left(self) -> Iterator[Pool]:
        """What is not there yet."""
        folders = {file.name.split("/")[0] for pool in self._plan for file in pool.files}
        with reached(f"list the files in {self._store.path()!r}"):
            there = {entry.name for folder in sorted(folders) for entry in self._store.entries(folder)}
            lists = {entry.name for entry in self._store.entries("failed")}
        for pool in self._plan:
            earlier = failures_in(self._store.read(pool.failures)) if pool.failures in lists else []
            lacking = by_file(earlier)
            left = [self._is_left(file, there, len(lacking.get(file.name, ()))) for file in pool.files]
            todo, others = (list(compress(pool.files, chosen)) for chosen in (left, map(not_, left)))
            self.skipped += sum(len(file.chips) - len(lacking.get(file.name, ())) for file in others)
            self._advance(others, skipped=True)
            if todo:
                yield shipped(pool, todo, earlier)
            else:
                self.failures += earlier

    def _is_left(self, file: OutputFile, there: set[str], lacking: int) -> bool:
        # A file that all chips of failed has not been written.
        return (lacking > 0 and self._retry_failed) or (file.name not in there and lacking < len(file.chips))

    def _advance(self, files: Iterable[OutputFile], *, skipped: bool = False, failed: Iterable[str] = ()) -> None:
        if self._progress is not None:
            for file in files:
                self._progress.advance(skipped=skipped, failed=file.name in failed)

    def report(self, seconds: float, jobs: int | None = None) -> ExportReport:
        """What became of the run; ``jobs`` is how many there are of its kind."""
        import pandas as pd

        columns = ["file", "chip_id", "item_id", "collection", "error", "message", "attempts"]
        failures = pd.DataFrame([asdict(one) for one in self.failures], columns=columns)
        return ExportReport(self._store.path(), self.done, self.skipped, len(failures), self.files, seconds, failures, jobs)


def _on_threads(pools: Iterable[Pool], work: Work, threads: int) -> Iterator[tuple[Pool, Done]]:
    """One pool after another: threads share the work of each, so that memory holds but one."""
    with ThreadPoolExecutor(threads, thread_name_prefix="xchip-export") as executor:
        for pool in pools:
            yield pool, export_pool(pool, work, executor.map)


def _on_cluster(pools: Iterable[Pool], work: Work, client: distributed.Client) -> Iterator[tuple[Pool, Done]]:
    """Pools as tasks, as they are finished; few are in flight."""
    advice = slow_malloc(client)
    if advice:
        LOGGER.warning(advice)
    crew = DaskExecutor(client, export_pool)
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
    running: dict[Any, Pool] = {}

    def receive() -> tuple[Pool, Done]:
        future = finished.get()
        pool = running.pop(future)
        return pool, _outcome(future, pool, work)

    try:
        for pool in pools:
            future = crew.submit(pool, work)
            running[future] = pool
            future.add_done_callback(finished.put)
            while len(running) >= QUEUED * crew.slots():
                yield receive()
        while running:
            yield receive()
    finally:
        crew.give_up(list(running))


def _outcome(future: Any, pool: Pool, work: Work) -> Done:
    """What became of a task; all its chips failed where the task itself broke: its worker died, or a mistake of ours."""
    try:
        return future.result()
    except ArchiveError:
        raise
    except CancelledError as error:
        raise OSError(f"the Dask cluster is lost ({error}); what is written stays: run again to go on") from error
    except Exception as error:
        LOGGER.debug("the export of %s broke its task", pool.name, exc_info=True)
        return broken(pool, work.store, error)
