"""Statistics of bands over the chips of an index, for normalising what a model is trained on."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from xchip.chips.chip_reader import ChipReader
from xchip.chips.chip_rows import ChipRows
from xchip.chips.chip_table import ChipTable, TableOptions, open_table, rows_and_options
from xchip.chips.read_plan import split_units, units
from xchip.chips.train.bands import sensors_of, training_bands, wavelengths_of
from xchip.chips.train.stats_values import BandStats, SensorStats
from xchip.core.limits import check_whole, reading_threads
from xchip.core.moments import Moments, moments, no_moments
from xchip.core.options import check_options
from xchip.core.types import Assets, IndexLike
from xchip.indexing.rows import frame_of
from xchip.io.cluster import client_of, slots
from xchip.io.progress import Tell, one_step, told
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import distributed
    import pandas as pd

UNIT_BYTES = 128 << 20
"""Pixels that a task reads at once, all bands together; more only where a single chip has more."""


def band_stats(
    index: IndexLike | ChipTable,
    assets: Assets = None,
    *,
    skip_nodata: bool = False,
    sample: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    client: distributed.Client | str | Literal[False] | None = None,
    progress: bool | Callable[[int, int], object] = True,
    **options: Unpack[TableOptions],
) -> BandStats:
    """Mean, standard deviation, minimum and maximum of each band over the chips of an index, in one pass.

    Only chips without nodata pixels count. Chips that lie near each other are read together, so each block of a file is decoded
    once; what is left of a band of theirs is six numbers. The result is the same, to the last bit, for any number of threads or
    workers.

    Parameters
    ----------
    index
        Rows of an index, as for `open_chips`; of several sensors too.
    assets
        Bands, as for `open_chips`. None: those that the Clay model takes of the sensor, in its order, where the items have
        them all; else all bands but those that tell the quality.
    skip_nodata
        Take all chips, and leave out the pixels that equal the nodata value of their band. Of a band that has none, chips with
        nodata pixels are left out.
    sample, seed
        Take so many chips of each sensor, at random, without replacement.
    threads
        That read and sum up, at least 1; by default one a core, and 16 where files are read over a network. Each needs
        memory for the pixels that it reads, at the most 128 MB or a chip.
    client
        A Dask client, or the address of a scheduler: its workers read and sum up. None: the client that is connected, unless
        ``threads`` is given; else threads of this process. False: threads.
    progress
        True: a bar on a terminal or in a notebook, else the logger "xchip". A function is called with (chips that are done, all
        chips) now and then.
    items, sensor, harmonize, storage, pixels
        As for `open_chips`.

    Returns
    -------
    BandStats
        float64 statistics of the values as stored (or harmonized), by sensor; values that are not finite never count.

    Raises
    ------
    ValueError
        If no chip is left, and as `open_chips` does. Chips of several sizes are fine.
    xchip.ItemError
        For an item or a file that can't be read.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256), nodata=0)
    ...     index = xchip.index_items(item, size=128).compute()
    ...     found = band_stats(index)["sentinel-2-l2a"]
    >>> found.bands, found.count, found.chips
    (('blue', 'green', 'red', 'nir'), (65536, 65536, 65536, 65536), 4)
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample is a number of chips, at least 1, got {sample}")
    if threads is not None:
        check_whole("threads", threads)
    check_options("band_stats", options, TableOptions)
    index, assets, options = rows_and_options(index, assets, options)
    frame = _rows(index, skip_nodata=skip_nodata, storage=options.get("storage") or StorageOptions())
    if isinstance(options.get("items"), Iterator):
        options["items"] = list(options["items"])  # type: ignore[arg-type]  # each sensor looks for its own
    options["pad"] = True
    names = None if assets is None else ([assets] if isinstance(assets, str) else list(assets))
    tables = []
    for some in _by_sensor(frame, options.get("sensor")):
        if sample is not None and sample < len(some):
            some = some.iloc[np.sort(np.random.default_rng(seed).choice(len(some), sample, replace=False))]
        table = open_table(some, names, **options)
        table = table if names is not None else table.with_bands(training_bands(table))
        tables.append((table, (some["nodata_fraction"] == 0).to_numpy()))
    total = sum(len(table.rows) for table, _ in tables)
    with client_of(False if client is None and threads is not None else client) as cluster, told(one_step(progress)) as report:
        tell = _Progress(total, report)
        return BandStats(
            tuple(
                _summary(table, table_moments(table, whole, skip_nodata=skip_nodata, threads=threads, client=cluster, tell=tell))
                for table, whole in tables
            )
        )


def _rows(index: Any, *, skip_nodata: bool, storage: StorageOptions) -> pd.DataFrame:
    """The rows that count."""
    if isinstance(index, (str, os.PathLike)):
        from xchip.indexing.opening.read import read_index

        wanted = None if skip_nodata else [("nodata_fraction", "==", 0)]
        frame: pd.DataFrame = read_index(os.fspath(index), filters=wanted, storage=storage)
    else:
        frame = frame_of(index)
    if "nodata_fraction" not in frame:
        raise ValueError("rows must be rows of an index; the column 'nodata_fraction' is missing")
    if not skip_nodata:
        frame = frame[frame["nodata_fraction"] == 0]
    if not len(frame):
        few = "no rows" if skip_nodata else "no chip without nodata pixels; skip_nodata=True takes the other pixels of all chips"
        raise ValueError(f"the index has {few}")
    return frame


def _by_sensor(frame: pd.DataFrame, sensor: Any) -> list[pd.DataFrame]:
    if sensor is not None or "sensor" not in frame:
        return [frame]
    return [some for _, some in frame.groupby("sensor", sort=True, dropna=False)]


@dataclass(slots=True)
class _Progress:
    total: int
    report: Tell
    done: int = 0

    def advance(self, chips: int) -> None:
        self.done += chips
        self.report("chips read", self.done, self.total)


def _summary(table: ChipTable, found: Moments) -> SensorStats:
    sensor = sensors_of(table)[0]
    bands = tuple(band.name for band in table.reader.bands)
    return SensorStats.of(sensor, bands, found, len(table.rows), wavelengths_of(table)[sensor])


def table_moments(
    table: ChipTable, whole: np.ndarray, *, skip_nodata: bool, threads: int | None, client: Any, tell: Any = None
) -> Moments:
    """Moments of each band, (bands,), over the chips of a table; ``whole``: which of them have no nodata pixels.

    A task reads chips of one super-tile, and gives six numbers a band. A few tasks run at a time.
    """
    rows, reader = table.rows, table.reader
    chip_bytes = sum(band.dtype.itemsize for band in reader.bands) * math.prod(reader.size)
    parts = split_units(units(rows, reader.tile), max(1, UNIT_BYTES // chip_bytes))
    jobs = (_Job(reader, rows.take(part), whole[part], skip_nodata) for part in parts)
    found = no_moments((len(reader.bands),))
    for number, one in enumerate(_in_order(jobs, reader, threads, client)):
        found = found.merge(one)
        if tell is not None:
            tell.advance(len(parts[number]))
    return found


@dataclass(frozen=True, eq=False)
class _Job:
    """Chips of one super-tile."""

    reader: ChipReader
    rows: ChipRows
    whole: np.ndarray
    """bool (chip,): those without nodata pixels."""
    skip_nodata: bool

    def run(self) -> Moments:
        """Moments of each band, (bands,)."""
        (ref,) = self.rows.items
        found = no_moments((len(self.reader.bands),)).packed
        for numbers in self.reader.kinds[ref.kind].files:  # one file after the other: so less memory is needed
            for number, chips in zip(numbers, self.reader.read(self.rows, numbers, keep=False), strict=True):
                found[:, number] = moments(chips, valid=self._valid(number, chips)).packed
        return Moments(found)

    def _valid(self, number: int, chips: np.ndarray) -> np.ndarray:
        """bool: which pixels count; bands that an item lacks are not even asked for."""
        height, width = self.rows.height[:, None, None], self.rows.width[:, None, None]
        inside = (np.arange(chips.shape[1])[:, None] < height) & (np.arange(chips.shape[2]) < width)  # the rest was padded
        if not self.skip_nodata:
            return inside
        nodata = self.reader.bands[number].attrs.get("_FillValue")
        if nodata is None:
            return inside & self.whole[:, None, None]
        return inside & (chips != nodata)  # a nodata value of NaN is not finite, so it does not count anyway


def _run(job: _Job) -> Moments:
    return job.run()


def _in_order(jobs: Iterable[_Job], reader: ChipReader, threads: int | None, client: Any) -> Iterator[Moments]:
    """Results of jobs, in their order; only a few are begun before they are due."""
    if client is not None:
        ahead = 2 * max(1, slots(client))
        small = (_Job(job.reader.only(job.rows), job.rows, job.whole, job.skip_nodata) for job in jobs)
        yield from _ahead(lambda job: client.submit(_run, job, pure=False), small, ahead)
        return
    remote = any(kind.remote for kind in reader.kinds.values())
    threads = reading_threads(threads, remote=remote)
    with ThreadPoolExecutor(threads, thread_name_prefix="xchip-stats") as pool:
        yield from _ahead(lambda job: pool.submit(_run, job), jobs, 2 * threads)


def _ahead(submit: Callable[[_Job], Any], jobs: Iterable[_Job], ahead: int) -> Iterator[Moments]:
    running: deque[Any] = deque()
    try:
        for job in jobs:
            running.append(submit(job))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
