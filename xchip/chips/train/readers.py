"""Who reads the chips of batches: threads of this process, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xchip.chips.chip_reader import ChipReader, Planes
from xchip.chips.chip_rows import ChipRows
from xchip.io.cluster import client_of

if TYPE_CHECKING:
    import distributed


class Readers(Protocol):
    """Reads units of chips, several at a time."""

    def submit(self, reader: ChipReader, rows: ChipRows, out: Sequence[Planes]) -> Any:
        """Begin to read neighbouring chips of one item into ``out``: the planes of each chip, one a band."""

    def finish(self, job: Any) -> None:
        """Wait until a job is done; raises what went wrong in it."""

    def stop(self) -> None:
        """Give up what has not been finished."""


class ThreadReaders:
    """Threads: one file of a unit each, straight into the batches."""

    def __init__(self, threads: int, *, keep: bool) -> None:
        self._keep = keep
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="xchip-batches")

    def submit(self, reader: ChipReader, rows: ChipRows, out: Sequence[Planes]) -> list[Future[None]]:
        """See `Readers`."""
        files = reader.kinds[rows.items[0].kind].files
        absent = tuple(sorted(set(range(len(reader.bands))) - {number for file in files for number in file}))
        return [
            self._pool.submit(reader.insist, rows, file, [[planes[number] for number in file] for planes in out], keep=self._keep)
            for file in (*files, absent)
            if file
        ]

    def finish(self, job: list[Future[None]]) -> None:
        """See `Readers`."""
        for file in job:
            file.result()

    def stop(self) -> None:
        """See `Readers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class ClusterReaders:
    """Workers of a Dask cluster: a unit each; its pixels come back over the network.

    A scheduler's address will do for a client: it is connected to from the first unit on until `stop`.
    """

    def __init__(self, client: distributed.Client | str, *, keep: bool) -> None:
        self._given, self._keep = client, keep
        self._client: Any = None
        self._connection = ExitStack()
        self._running: dict[int, Any] = {}

    def submit(self, reader: ChipReader, rows: ChipRows, out: Sequence[Planes]) -> tuple[Any, Sequence[Planes]]:
        """See `Readers`."""
        if self._client is None:
            self._client = self._connection.enter_context(client_of(self._given))
        future = self._client.submit(_read, reader.only(rows), rows, self._keep, pure=False)
        self._running[id(future)] = future
        return future, out

    def finish(self, job: tuple[Any, Sequence[Planes]]) -> None:
        """See `Readers`."""
        future, out = job
        for number, chips in enumerate(future.result()):
            for planes, chip in zip(out, chips, strict=True):
                planes[number][...] = chip
        del self._running[id(future)]

    def stop(self) -> None:
        """See `Readers`."""
        with self._connection:
            if self._running:
                self._client.cancel(list(self._running.values()))


def _read(reader: ChipReader, rows: ChipRows, keep: bool) -> list[np.ndarray]:
    return reader.read(rows, range(len(reader.bands)), keep=keep)
