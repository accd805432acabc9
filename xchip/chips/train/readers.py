"""Read the chips of batches in threads of this process, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import numpy as np

from xchip.chips.chip_reader import ChipReader, Planes
from xchip.chips.chip_rows import ChipRows
from xchip.io.cluster import client_of

if TYPE_CHECKING:
    import distributed


Job = TypeVar("Job")


class Readers(Protocol[Job]):
    """Reads units of chips, several at a time."""

    def submit(self, reader: ChipReader, rows: ChipRows, out: Sequence[Planes]) -> Job:
        """Start to read neighbouring chips of one item into ``out``: the planes of each chip, one per band."""

    def finish(self, job: Job) -> None:
        """Wait until a job is done; raise its error, if any."""

    def stop(self) -> None:
        """Cancel the jobs that are not finished."""


class ThreadReaders:
    """Threads: each reads one file of a unit, directly into the batches."""

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


ClusterJob: TypeAlias = "tuple[distributed.Future[list[np.ndarray]], Sequence[Planes]]"
"""The future of the pixels by band and chip, and the planes that they go to."""


class ClusterReaders:
    """Workers of a Dask cluster: each reads a unit, and sends its pixels back over the network.

    ``client`` may be the address of a scheduler; the connection lasts from the first unit until `stop`.
    """

    def __init__(self, client: distributed.Client | str, *, keep: bool) -> None:
        self._address, self._keep = client, keep
        self._client: distributed.Client | None = None
        self._connection = ExitStack()
        self._running: dict[int, distributed.Future[list[np.ndarray]]] = {}

    def submit(self, reader: ChipReader, rows: ChipRows, out: Sequence[Planes]) -> ClusterJob:
        """See `Readers`."""
        if self._client is None:
            self._client = self._connection.enter_context(client_of(self._address))
            assert self._client is not None, "an address or a client always gives a client"
        future = self._client.submit(_read, reader.only(rows), rows, self._keep, pure=False)
        self._running[id(future)] = future
        return future, out

    def finish(self, job: ClusterJob) -> None:
        """See `Readers`."""
        future, out = job
        for number, chips in enumerate(future.result()):
            for planes, chip in zip(out, chips, strict=True):
                planes[number][...] = chip
        del self._running[id(future)]

    def stop(self) -> None:
        """See `Readers`."""
        with self._connection:
            if self._client is not None and self._running:
                self._client.cancel(list(self._running.values()))


def _read(reader: ChipReader, rows: ChipRows, keep: bool) -> list[np.ndarray]:
    return reader.read(rows, range(len(reader.bands)), keep=keep)
