"""Run an export: write the files that are missing, on threads or on a Dask cluster, and count the results."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from xchip.export.job import Done, FailedChip, OutputFile, Pool, Work, export_pool, fail_pool, failures_in, pool_for_task
from xchip.export.report import ExportReport
from xchip.indexing.archive.task import ArchiveError
from xchip.io.cluster import slow_malloc
from xchip.io.progress import LOGGER, Progress
from xchip.io.store import Store, reached
from xchip.io.workers import DaskExecutor

if TYPE_CHECKING:
    import distributed

QUEUED = 2
"""Tasks in flight per thread of a cluster: a running task, and a waiting task so that no thread idles."""


class ExportRun:
    """One run over a plan."""

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
        """Run all pending pools."""
        pools = self._pending()
        results = _on_threads(pools, work, threads) if client is None else _on_cluster(pools, work, client)
        with self._progress or nullcontext():
            for pool, done in results:
                self.done += done.chips
                self.files += len(done.written)
                self.failures += done.failures
                self._advance(pool.files, failed={failure.file for failure in done.failures})

    def _pending(self) -> Iterator[Pool]:
        """Yield each pool that has files to write, with only these files; count the other files as skipped."""
        folders = {file.name.split("/")[0] for pool in self._plan for file in pool.files}
        with reached(f"list the files in {self._store.path()!r}"):
            present = {entry.name for folder in sorted(folders) for entry in self._store.entries(folder)}
            failure_lists = {entry.name for entry in self._store.entries("failed")}
        for pool in self._plan:
            earlier = failures_in(self._store.read(pool.failures)) if pool.failures in failure_lists else []
            failed = Counter(failure.file for failure in earlier)
            pending: list[OutputFile] = []
            finished: list[OutputFile] = []
            for file in pool.files:
                lacking = failed[file.name]
                # A file whose chips have all failed was never written.
                is_pending = (lacking > 0 and self._retry_failed) or (file.name not in present and lacking < len(file.chips))
                (pending if is_pending else finished).append(file)
            self.skipped += sum(len(file.chips) - failed[file.name] for file in finished)
            self._advance(finished, skipped=True)
            if pending:
                yield pool_for_task(pool, pending, earlier)
            else:
                self.failures += earlier

    def _advance(self, files: Iterable[OutputFile], *, skipped: bool = False, failed: Iterable[str] = ()) -> None:
        if self._progress is not None:
            for file in files:
                self._progress.advance(skipped=skipped, failed=file.name in failed)

    def report(self, seconds: float, jobs: int | None = None) -> ExportReport:
        """Return the result of the run; ``jobs`` is the number of jobs of the export."""
        import pandas as pd

        columns = ["file", "chip_id", "item_id", "collection", "error", "message", "attempts"]
        failures = pd.DataFrame([asdict(failure) for failure in self.failures], columns=columns)
        return ExportReport(self._store.path(), self.done, self.skipped, len(failures), self.files, seconds, failures, jobs)


def _on_threads(pools: Iterable[Pool], work: Work, threads: int) -> Iterator[tuple[Pool, Done]]:
    """Export one pool after another. The threads share the work of each pool, so that memory holds only one."""
    with ThreadPoolExecutor(threads, thread_name_prefix="xchip-export") as executor:
        for pool in pools:
            yield pool, export_pool(pool, work, executor.map)


def _on_cluster(pools: Iterable[Pool], work: Work, client: distributed.Client) -> Iterator[tuple[Pool, Done]]:
    """Export each pool as a task, with few in flight; yield them as they finish."""
    advice = slow_malloc(client)
    if advice:
        LOGGER.warning(advice)
    executor = DaskExecutor(client, export_pool)
    finished: queue.SimpleQueue[distributed.Future[Done]] = queue.SimpleQueue()
    running: dict[distributed.Future[Done], Pool] = {}

    def receive() -> tuple[Pool, Done]:
        future = finished.get()
        pool = running.pop(future)
        return pool, _result(future, pool, work)

    try:
        for pool in pools:
            future = executor.submit(pool, work)
            running[future] = pool
            future.add_done_callback(finished.put)
            while len(running) >= QUEUED * executor.slots():
                yield receive()
        while running:
            yield receive()
    finally:
        executor.give_up(list(running))


def _result(future: distributed.Future[Done], pool: Pool, work: Work) -> Done:
    """Return the result of a task. If the task crashed, by a lost worker or a bug, all its chips count as failed."""
    try:
        return future.result()
    except ArchiveError:
        raise
    except CancelledError as error:
        raise OSError(f"lost the Dask cluster ({error}); written files stay, so run again to resume") from error
    except Exception as error:
        LOGGER.debug("the task that exports %s crashed", pool.name, exc_info=True)
        return fail_pool(pool, work.store, error)
