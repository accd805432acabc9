"""Build an archive: index many items, a few at a time, each once."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TextIO, Unpack

from xchip.core.grid import Pair
from xchip.core.limits import IndexOptions
from xchip.core.quality import QualityRule
from xchip.core.types import JSON, Items, PathLike
from xchip.indexing.archive.layout import archive_store
from xchip.indexing.archive.ledger import ItemDict, Record, RunRecords, claim, fingerprint_of, now
from xchip.indexing.archive.manifest import write_manifest
from xchip.indexing.archive.pending import PendingItems, Verdict
from xchip.indexing.archive.report import BuildReport
from xchip.indexing.archive.task import ArchiveError, Job, Prepare, identity_of, index_one
from xchip.indexing.files.geoparquet import SCHEMA_VERSION
from xchip.indexing.from_items import IndexSpec, grid_options, spec_of
from xchip.io.cluster import client_of
from xchip.io.progress import LOGGER, Progress
from xchip.io.retry import recorded_message
from xchip.io.signing import unsigned_href
from xchip.io.storage import StorageOptions
from xchip.io.store import reached
from xchip.io.workers import Executor, executor_of
from xchip.sensors.profile import SensorProfile
from xchip.stac.inputs import Found, How, open_items, plain_items

if TYPE_CHECKING:
    import distributed

QUEUED = 2
"""Tasks in flight per worker thread: one runs, and one waits so that the thread is never idle."""
READ_AHEAD = 32
"""Items whose JSON is fetched at once, if each is a URL."""


def build_index(
    items: Items,
    path: PathLike,
    size: Pair = 256,
    *,
    sensor: str | SensorProfile | None = None,
    quality: str | QualityRule | None = None,
    storage: StorageOptions | None = None,
    pixels: StorageOptions | None = None,
    client: distributed.Client | str | Literal[False] | None = None,
    workers: int | None = None,
    attempts: int = 5,
    retry_failed: bool = True,
    prepare: Prepare | None = None,
    progress: bool | TextIO = True,
    **options: Unpack[IndexOptions],
) -> BuildReport:
    """Index many items into an archive, resumably: each item once, and no part is ever incomplete.

    Each item is one task, on a connected Dask cluster or on threads. The task writes the item's JSON and its part of the index.
    A ledger records the item as done, or as failed with the error. Re-running resumes: it skips unchanged finished items, and
    indexes missing, changed and failed items. A bad item does not stop the run.

    Parameters
    ----------
    items
        As for `xchip.index_items`. A long iterator is consumed step by step.
    path
        Root of the archive: a local folder, or a URL that fsspec opens. An existing archive is continued.
    size, sensor, quality, stride, edge, anchor, max_nodata, max_defective, max_cloud, max_shadow, max_snow, max_water, min_clear
        As for `xchip.index_items`. All runs of an archive must use the same values.
    storage
        Storage options of the archive.
    pixels
        Storage options of the items' files; by default those of the archive.
    client
        A Dask client, or the address of a scheduler. None: the connected client, or threads of this process if none is connected.
        False: threads.
    workers
        Number of threads without a cluster; by default the number of processors.
    attempts
        Maximum attempts per item on transient errors: timeouts, busy servers, broken connections.
    retry_failed
        Whether to try items again that failed in earlier runs. If False, they are counted as failed.
    prepare
        Called with each pending item before it is indexed, in the item's task; see `xchip.indexing.archive.task.Prepare`.
    progress
        True: show a bar on a terminal or in a notebook, and log lines to the logger "xchip" elsewhere. A stream: print there.
        False: show nothing.

    Returns
    -------
    BuildReport
        Numbers of items done, skipped and failed, and a table of failures.

    Raises
    ------
    ValueError
        If there are no items, if an option is out of range, or if the archive was built with other parameters.
    OSError
        If the archive can't be written, or the cluster is lost. Items that are finished by then are recorded.

    Examples
    --------
    >>> import tempfile, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     items = [xchip.testing.write_scene(folder, item_id=name, shape=(300, 300)) for name in ("a", "b")]
    ...     first = build_index(items, f"{folder}/archive", progress=False)
    ...     again = build_index(items, f"{folder}/archive", progress=False)
    >>> first.done, again.done, again.skipped
    (2, 0, 2)
    """
    root = os.fspath(path)
    if root.endswith(".parquet"):
        raise ValueError(
            f"path={root!r} names a file, but an archive is a folder; for one file use write_index(index_items(items), path)"
        )
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}")
    spec = spec_of("build_index", size, sensor, quality, options)
    parameters = parameters_of_spec(spec)
    store = archive_store(root, storage)
    job = Job(spec, store, pixels or store.storage, attempts, _digest(json.dumps(parameters, sort_keys=True)), prepare)
    start = time.monotonic()
    with reached(f"write the archive {store.path()!r}"):
        claim(store, parameters)
    stream = None if isinstance(progress, bool) else progress
    bar = None if progress is False else Progress(_count(items), "indexed", stream=stream)
    with client_of(client) as cluster, executor_of(cluster, workers, index_one) as executor:
        build = _Build(job, executor, retry_failed, bar)
        build.run(items)
    return build.report(time.monotonic() - start)


def parameters_of_spec(spec: IndexSpec) -> JSON:
    """Return the parameters that the rows depend on, besides the items, as JSON."""
    quality = spec.quality
    sensor = spec.sensor
    return {
        "schema_version": SCHEMA_VERSION,
        **grid_options(spec),
        "sensor": f"{sensor.name} {_digest(repr(sensor))}" if isinstance(sensor, SensorProfile) else sensor,
        "quality": quality.to_json() if isinstance(quality, QualityRule) else quality,
        **{name: value for name, value in asdict(spec.limits).items() if value is not None},
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _count(items: Any) -> int | None:
    """Return the number of items; None if it is unknown before they are read."""
    if isinstance(items, (str, os.PathLike)):
        return None
    if isinstance(items, Mapping):
        features = items.get("features")
        return len(features) if isinstance(features, list) else 1
    if not hasattr(items, "__len__"):
        return None
    # A file can hold any number of items, unless it is likely to be a single item's JSON.
    files = (os.fspath(entry) for entry in items if isinstance(entry, (str, os.PathLike)))
    return len(items) if all(file.partition("?")[0].endswith(".json") for file in files) else None


class _Build:
    """One run: submits tasks and collects their records."""

    def __init__(self, job: Job, executor: Executor, retry_failed: bool, progress: Progress | None) -> None:
        self._job, self._executor, self._retry_failed, self._progress = job, executor, retry_failed, progress
        self._log = RunRecords(job.store)
        # Futures of the executor: those of a Dask cluster have the same methods.
        self._finished: queue.SimpleQueue[Future[Record]] = queue.SimpleQueue()
        self._in_flight: dict[Future[Record], tuple[ItemDict, str]] = {}
        self._pending = PendingItems(job.store)
        self._unread = self._pending.unread()
        self.done = self.skipped = self.rows = 0
        self.failures: list[tuple[str | None, str, str, str, int]] = []

    def run(self, items: Items) -> None:
        """Index the pending ones of ``items``."""
        with self._progress or nullcontext():
            try:
                for item, href in _read_items(items, self._unreadable, self._read, self._job.pixels):
                    self._take(item, href)
                    while len(self._in_flight) >= QUEUED * self._executor.slots():
                        self._receive()
                while self._in_flight:
                    self._receive()
            finally:
                # Also after Ctrl-C: record the finished items, and leave no item half done.
                try:
                    self._cancel_rest()
                finally:
                    self._log.flush()
                    write_manifest(self._job.store)

    def _take(self, item: ItemDict, href: str | None) -> None:
        fingerprint = fingerprint_of(item)
        collection, item_id = identity_of(item)
        verdict = self._pending.verdict(collection, item_id, fingerprint)
        if verdict is Verdict.FAILED and not self._retry_failed:
            failure = self._pending.failure(collection, item_id)
            self._fail(collection, item_id, str(failure.error), str(failure.message), failure.attempts)
        elif verdict is Verdict.CONFLICT:
            message = "an earlier item has the same id and collection, but different content: give one of them another id"
            self._fail(collection, item_id, "ItemError", message, 0)
        elif verdict is Verdict.DONE:
            self.skipped += 1
            self._advance(skipped=True)
        else:
            future = self._executor.submit(item, href, fingerprint, verdict is Verdict.UNRECORDED, self._job)
            self._in_flight[future] = (item, fingerprint)
            future.add_done_callback(self._finished.put)

    def _receive(self) -> None:
        """Wait for a task to finish, and record it."""
        future = self._finished.get()
        item, fingerprint = self._in_flight.pop(future)
        self._record(_record_of(future, item, fingerprint))

    def _record(self, record: Record) -> None:
        self._log.add(record)
        if record.part is None:
            self._fail(record.collection, record.item_id, str(record.error), str(record.message), record.attempts)
            return
        self.done += 1
        self.rows += record.part.rows
        self._advance()

    def _cancel_rest(self) -> None:
        """Cancel tasks that have not started; record those that have, if the executor can wait for them."""
        for future in self._executor.give_up(list(self._in_flight)):
            item, fingerprint = self._in_flight.pop(future)
            if future.exception() is None:
                self._record(_record_of(future, item, fingerprint))

    def _unreadable(self, entry: Items, name: str, error: Exception) -> None:
        """Record that ``name`` in an entry of the items can't be read."""
        kind, message = type(error).__name__, recorded_message(error)
        if not isinstance(entry, (str, os.PathLike)):
            self._fail(None, name, kind, message, 1)  # a value in memory: a later run could not identify it
            return
        path, source = os.fspath(entry), _source_of(entry)
        name = repr(source) if name == repr(path) else name.replace(path, source)
        self._unread.get(source, set()).discard(name)
        self._record(Record("failed", None, name, "", now(), 1, error=kind, message=message, source=source))

    def _read(self, entry: Items) -> None:
        """Record that an entry can be read now, for those of its failures in earlier runs that did not recur."""
        if isinstance(entry, (str, os.PathLike)):
            source = _source_of(entry)
            for name in sorted(self._unread.pop(source, ())):
                self._log.add(Record("read", None, name, "", now(), 1, source=source))

    def _fail(self, collection: str | None, item_id: str, error: str, message: str, attempts: int) -> None:
        self.failures.append((collection, item_id, error, message, attempts))
        self._advance(failed=True)

    def _advance(self, **outcome: bool) -> None:
        if self._progress is not None:
            self._progress.advance(**outcome)

    def report(self, seconds: float) -> BuildReport:
        """Return the report of the run."""
        import pandas as pd

        failures = pd.DataFrame(self.failures, columns=["collection", "item_id", "error", "message", "attempts"])
        root = self._job.store.path()
        return BuildReport(root, self.done, self.skipped, len(failures), self.rows, seconds, failures)


def _record_of(future: Future[Record], item: ItemDict, fingerprint: str) -> Record:
    """Return the record of a finished task; a failure if the task crashed, because its worker died or xchip has a bug."""
    try:
        return future.result()
    except ArchiveError:
        raise
    except CancelledError as error:
        raise OSError(f"the Dask cluster is lost ({error}); finished items are recorded: run again to go on") from error
    except Exception as error:
        LOGGER.debug("the task of item %r crashed", item.get("id"), exc_info=True)
        return Record("failed", *identity_of(item), fingerprint, now(), 1, (), type(error).__name__, str(error))


def _read_items(
    items: Items, on_error: Callable[[Items, str, Exception], None], on_read: Callable[[Items], None], storage: StorageOptions
) -> Iterator[Found]:
    """Yield items, each with the href of its JSON. URLs are fetched several at a time, because each takes a while.

    ``on_error`` is called with an entry of ``items``, the name of what can't be read in it, and the error; ``on_read`` with each
    entry at its end.
    """
    if not isinstance(items, (list, tuple, Iterator)):
        yield from plain_items(items, on_error=partial(on_error, items), open_file=storage.open_file)
        on_read(items)
        return
    entries = iter(items)
    empty = True
    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="xchip-items") as pool:
        while batch := list(islice(entries, READ_AHEAD)):
            empty = False
            fetched = [pool.submit(_fetch, entry, storage) if _is_url(entry) else None for entry in batch]
            for entry, future in zip(batch, fetched, strict=True):
                if future is None:  # items in memory, or a local file: it can hold very many, so they are yielded one by one
                    yield from open_items([entry], How(partial(on_error, entry), storage.open_file))
                else:
                    readable, errors = future.result()
                    yield from readable
                    for name, error in errors:
                        on_error(entry, name, error)
                on_read(entry)
    if empty:
        yield from plain_items(items)  # raises the error that says which items are accepted


def _is_url(entry: object) -> bool:
    return isinstance(entry, str) and "://" in entry


def _source_of(file: PathLike) -> str:
    """Return the absolute path or unsigned URL of a file of items, which is the same in each run."""
    path = os.fspath(file)
    return unsigned_href(path) if "://" in path else os.path.abspath(os.path.expanduser(path))


def _fetch(url: str, storage: StorageOptions) -> tuple[list[Found], list[tuple[str, Exception]]]:
    """Return the items at a URL, and (name, error) of each that can't be read."""
    errors: list[tuple[str, Exception]] = []
    how = How(lambda name, error: errors.append((name, error)), storage.open_file)
    return list(open_items([url], how)), errors
