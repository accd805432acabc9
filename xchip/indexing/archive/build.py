"""Indexing archives: many items, few in flight, each done once."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TextIO, Unpack

from xchip.core.grid import Pair
from xchip.core.limits import IndexOptions
from xchip.core.quality import QualityRule
from xchip.core.types import Items, PathLike
from xchip.indexing.archive.ledger import Record, RunRecords, claim, fingerprint_of, now
from xchip.indexing.archive.manifest import write_manifest
from xchip.indexing.archive.pending import Known, Verdict
from xchip.indexing.archive.report import BuildReport
from xchip.indexing.archive.task import ArchiveError, Job, Prepare, identity_of, index_one
from xchip.indexing.files.geoparquet import SCHEMA_VERSION
from xchip.indexing.from_items import IndexSpec, grid_options, spec_of
from xchip.io.cluster import client_of
from xchip.io.progress import LOGGER, Progress
from xchip.io.retry import recorded_message
from xchip.io.signing import unsigned_href
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.io.workers import Executor, executor_of
from xchip.sensors.profile import SensorProfile
from xchip.stac.inputs import Found, How, open_items, plain_items

if TYPE_CHECKING:
    import distributed

QUEUED = 2
"""Tasks in flight for each thread that works: one that runs, and one that waits so that it need not."""


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
    """Index many items into an archive: each once, each whole, whatever fails in between.

    An item is one task, on a connected Dask cluster or else on threads. Its JSON and its part of the index are written by the
    task; a ledger records it as done, or as failed and why. To run again is to go on: what is done and has not changed is
    skipped, and what is missing, changed or failed is done. One bad item does not stop the others.

    Parameters
    ----------
    items
        As for `xchip.index_items`, also as an iterator that goes on for long: items are taken as they are needed.
    path
        Root of the archive: a local folder, or a URL that fsspec opens. It may be there already.
    size, sensor, quality, stride, edge, anchor, max_nodata, max_cloud and other limits
        As for `xchip.index_items`. An archive is made with one set of them.
    storage
        How the archive is reached.
    pixels
        How the items' files are reached; the same way as the archive if not given.
    client
        A Dask client, or the address of a scheduler. None: the client that is connected, else threads of this process.
        False: threads.
    workers
        Threads, where there is no cluster; as many as there are processors if not given.
    attempts
        How often an item is tried while what goes wrong looks as if it will pass: timeouts, busy servers, broken connections.
    retry_failed
        Whether to try again what failed in earlier runs. If not, it is counted as failed.
    prepare
        Called with each item that is to be done, by the task that indexes it, before that; see `Prepare` in this folder.
    progress
        True: a bar on a terminal or in a notebook, lines in the log "xchip" elsewhere. A stream: there. False: nothing.

    Returns
    -------
    BuildReport
        Numbers of items done, skipped and failed, and a table of failures.

    Raises
    ------
    ValueError
        If there are no items, if an option is out of range, or if the archive was made with other parameters.
    OSError
        If the archive can't be written, or the cluster is lost. What is done until then is recorded.

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
            f"{root!r} is a file, and an archive is a folder; for one file use write_index(index_items(items), path)"
        )
    if attempts < 1:
        raise ValueError(f"attempts is at least 1, got {attempts}")
    spec = spec_of("build_index", size, sensor, quality, options)
    parameters = parameters_of_spec(spec)
    store = Store(root if "://" in root else os.path.abspath(os.path.expanduser(root)), storage or StorageOptions())
    job = Job(spec, store, pixels or store.storage, attempts, _digest(json.dumps(parameters, sort_keys=True)), prepare)
    start = time.monotonic()
    _claim(store, parameters)
    stream = None if isinstance(progress, bool) else progress
    with client_of(client) as cluster, executor_of(cluster, workers, index_one) as crew:
        build = _Build(job, crew, retry_failed, None if progress is False else Progress(_count(items), "indexed", stream=stream))
        build.run(items)
    return build.report(time.monotonic() - start)


def _claim(store: Store, parameters: Mapping[str, Any]) -> None:
    """`claim`; where the archive can't be reached or written the error names it."""
    try:
        claim(store, parameters)
    except (ValueError, ImportError):
        raise
    except Exception as error:  # without credentials, s3fs raises what is no OSError
        way_out = "check where it is, your credentials and your rights"
        raise ArchiveError(
            f"can't write the archive {store.path()!r}: {str(error) or type(error).__name__}; {way_out}"
        ) from error


def parameters_of_spec(spec: IndexSpec) -> dict[str, Any]:
    """What rows depend on besides the items, as JSON."""
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
    """How many items there are, where that is known beforehand."""
    if isinstance(items, (str, os.PathLike)):
        return None
    if isinstance(items, Mapping):
        features = items.get("features")
        return len(features) if isinstance(features, list) else 1
    if not hasattr(items, "__len__"):
        return None
    # A file may hold any number of items.
    return None if any(isinstance(entry, (str, os.PathLike)) and not _is_one(entry) for entry in items) else len(items)


def _is_one(path: str | os.PathLike[str]) -> bool:
    """Whether a file is likely to be one item."""
    return os.fspath(path).partition("?")[0].endswith(".json")


class _Build:
    """One run: hands tasks out, takes records in."""

    def __init__(self, job: Job, crew: Executor, retry_failed: bool, progress: Progress | None) -> None:
        self._job, self._crew, self._retry_failed, self._progress = job, crew, retry_failed, progress
        self._log = RunRecords(job.store)
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._in_flight: dict[Any, tuple[dict[str, Any], str]] = {}
        self._known = Known(job.store)
        self._unread = self._known.unread()
        self.done = self.skipped = self.rows = 0
        self.failures: list[dict[str, Any]] = []

    def run(self, items: Any) -> None:
        """Do what is left of ``items``."""
        with self._progress or nullcontext():
            try:
                for item, href in _found(items, self._unreadable, self._read, self._job.pixels):
                    self._take(item, href)
                    while len(self._in_flight) >= QUEUED * self._crew.slots():
                        self._receive()
                while self._in_flight:
                    self._receive()
            finally:
                # Also after Ctrl-C: what is done is recorded, and what is not is not half done.
                try:
                    self._give_up_the_rest()
                finally:
                    self._log.flush()
                    write_manifest(self._job.store)

    def _take(self, item: dict[str, Any], href: str | None) -> None:
        fingerprint = fingerprint_of(item)
        collection, item_id = identity_of(item)
        verdict = self._known.verdict(collection, item_id, fingerprint)
        if verdict is Verdict.FAILED and not self._retry_failed:
            known = self._known.failure(collection, item_id)
            self._fail(collection, item_id, str(known.error), str(known.message), known.attempts)
        elif verdict is Verdict.ANOTHER:
            message = "an item of this id and collection, but of other content, came before it: give one of them another id"
            self._fail(collection, item_id, "ItemError", message, 0)
        elif verdict is Verdict.DONE:
            self.skipped += 1
            self._advance(skipped=True)
        else:
            future = self._crew.submit(item, href, fingerprint, verdict is Verdict.THERE, self._job)
            self._in_flight[future] = (item, fingerprint)
            future.add_done_callback(self._finished.put)

    def _receive(self) -> None:
        """Take in one task that is finished."""
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

    def _give_up_the_rest(self) -> None:
        """Keep no task that has not begun; what those that have begun come to is recorded, if they can be waited for."""
        for future in self._crew.give_up(list(self._in_flight)):
            item, fingerprint = self._in_flight.pop(future)
            if future.exception() is None:
                self._record(_record_of(future, item, fingerprint))

    def _unreadable(self, entry: Any, what: str, error: Exception) -> None:
        source = _source_of(entry)
        kind, message = type(error).__name__, recorded_message(error)
        if source is None:
            self._fail(None, what, kind, message, 1)  # a value in memory: nobody could tell later which
            return
        what = repr(source) if what == repr(os.fspath(entry)) else what.replace(os.fspath(entry), source)
        self._unread.get(source, set()).discard(what)
        self._record(Record("failed", None, what, "", now(), 1, error=kind, message=message, source=source))

    def _read(self, entry: Any) -> None:
        """What could not be read of an entry in earlier runs, and can be now, is on record no more as a failure."""
        source = _source_of(entry)
        for what in sorted(self._unread.pop(source, ())) if source is not None else ():
            self._log.add(Record("read", None, what, "", now(), 1, source=source))

    def _fail(self, collection: str | None, item_id: str, error: str, message: str, attempts: int) -> None:
        row = {"collection": collection, "item_id": item_id, "error": error, "message": message, "attempts": attempts}
        self.failures.append(row)
        self._advance(failed=True)

    def _advance(self, **how: bool) -> None:
        if self._progress is not None:
            self._progress.advance(**how)

    def report(self, seconds: float) -> BuildReport:
        """What became of the run."""
        import pandas as pd

        failures = pd.DataFrame(self.failures, columns=["collection", "item_id", "error", "message", "attempts"])
        root = self._job.store.path()
        return BuildReport(root, self.done, self.skipped, len(failures), self.rows, seconds, failures)


def _record_of(future: Any, item: dict[str, Any], fingerprint: str) -> Record:
    """The record of a finished task; a failure where the task itself broke: its worker died, or a mistake of ours."""
    try:
        return future.result()
    except ArchiveError:
        raise
    except CancelledError as error:
        raise OSError(f"the Dask cluster is lost ({error}); what is done is recorded: run again to go on") from error
    except Exception as error:
        LOGGER.debug("item %r broke its task", item.get("id"), exc_info=True)
        return Record("failed", *identity_of(item), fingerprint, now(), 1, (), type(error).__name__, str(error))


READ_AHEAD = 32
"""Items whose JSON is fetched at once, where each is a URL."""


def _found(
    items: Any, on_error: Callable[[Any, str, Exception], None], on_read: Callable[[Any], None], storage: StorageOptions
) -> Iterator[Found]:
    """The items, each with the href of its JSON; files behind URLs are fetched some at a time, for each takes a while.

    ``on_error`` is told of an entry of ``items``, of what could not be read of it, and why; ``on_read`` of each entry afterwards.
    """
    if not isinstance(items, (list, tuple, Iterator)):
        yield from plain_items(items, on_error=partial(on_error, items), open_file=storage.open_file)
        on_read(items)
        return
    entries = iter(items)
    nothing = True
    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="xchip-items") as pool:
        while batch := list(islice(entries, READ_AHEAD)):
            nothing = False
            fetched = {position: pool.submit(_fetch, entry, storage) for position, entry in enumerate(batch) if _is_url(entry)}
            for position, entry in enumerate(batch):
                if position not in fetched:  # also a file of very many: one after another
                    yield from open_items([entry], How(partial(on_error, entry), storage.open_file))
                else:
                    found, errors = fetched[position].result()
                    yield from found
                    for what, error in errors:
                        on_error(entry, what, error)
                on_read(entry)
    if nothing:
        yield from plain_items(items)  # says what would have been accepted


def _is_url(entry: Any) -> bool:
    return isinstance(entry, str) and "://" in entry


def _source_of(entry: Any) -> str | None:
    """The name of a file or URL of items, the same in each run; None if the entry is something else."""
    if not isinstance(entry, (str, os.PathLike)):
        return None
    path = os.fspath(entry)
    return unsigned_href(path) if "://" in path else os.path.abspath(os.path.expanduser(path))


def _fetch(entry: str, storage: StorageOptions) -> tuple[list[Found], list[tuple[str, Exception]]]:
    """The items behind a URL, and what could not be read of it."""
    errors: list[tuple[str, Exception]] = []
    how = How(lambda what, error: errors.append((what, error)), storage.open_file)
    return list(open_items([entry], how)), errors
