"""Compute statistics of bands over the chips of an index, to normalise the input of a model."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Unpack

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
"""Pixels that a task reads at once, over all bands; more only if a single chip has more."""


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
    """Compute mean, standard deviation, minimum and maximum of each band over the chips of an index, in one pass.

    Only chips without nodata pixels count. Neighbouring chips are read together and reduced to six numbers per band, so each
    block of a file is decoded once. The result is identical for any number of threads or workers.

    Parameters
    ----------
    index
        Rows of an index, as for `open_chips`, of one or more sensors.
    assets
        Bands, as for `open_chips`. None: the sensor's bands for Clay, in Clay's order, if the items have them all; otherwise
        all bands except quality bands.
    skip_nodata
        Read all chips, and leave out the pixels that equal the nodata value of their band. For a band without a nodata value,
        leave out the chips with nodata pixels.
    sample, seed
        Read this number of random chips of each sensor, without replacement.
    threads
        Number of threads, at least 1; default: one per core, 16 for remote files. Each needs memory for the pixels that it
        reads, at most 128 MB or a chip.
    client
        A Dask client, or the address of a scheduler, whose workers compute. None: the connected client, unless ``threads`` is
        passed; otherwise threads of this process. False: threads.
    progress
        True: a bar on a terminal or in a notebook, otherwise the logger "xchip". A function is called regularly with
        (finished chips, all chips).
    items, sensor, harmonize, storage, pixels
        As for `open_chips`.

    Returns
    -------
    BandStats
        float64 statistics of the values as stored (or harmonized), by sensor. Values that are not finite do not count.

    Raises
    ------
    ValueError
        If no chip counts; and as `open_chips`, but chips of several sizes are accepted.
    xchip.ItemError
        If an item or a file can't be read.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256), nodata=0)
    ...     index = xchip.index_items(item, size=128).compute()
    ...     stats = band_stats(index)["sentinel-2-l2a"]
    >>> stats.bands, stats.count, stats.chips
    (('blue', 'green', 'red', 'nir'), (65536, 65536, 65536, 65536), 4)
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample is a number of chips and must be at least 1, got {sample}")
    if threads is not None:
        check_whole("threads", threads)
    check_options(band_stats, options, TableOptions)
    index, assets, options = rows_and_options(index, assets, options)
    frame = _rows(index, skip_nodata=skip_nodata, storage=options.get("storage") or StorageOptions())
    if isinstance(options.get("items"), Iterator):
        options["items"] = list(options["items"])  # type: ignore[arg-type]  # used once per sensor
    options["pad"] = True
    names = None if assets is None else ([assets] if isinstance(assets, str) else list(assets))
    tables = []
    for rows in _by_sensor(frame, options.get("sensor")):
        if sample is not None and sample < len(rows):
            rows = rows.iloc[np.sort(np.random.default_rng(seed).choice(len(rows), sample, replace=False))]
        table = open_table(rows, names, **options)
        table = table if names is not None else table.with_bands(training_bands(table))
        tables.append((table, (rows["nodata_fraction"] == 0).to_numpy()))
    total = sum(len(table.rows) for table, _ in tables)
    with client_of(False if client is None and threads is not None else client) as cluster, told(one_step(progress)) as report:
        tell = _Progress(total, report)
        return BandStats(
            tuple(
                _summary(table, table_moments(table, whole, skip_nodata=skip_nodata, threads=threads, client=cluster, tell=tell))
                for table, whole in tables
            )
        )


def _rows(index: IndexLike, *, skip_nodata: bool, storage: StorageOptions) -> pd.DataFrame:
    """Return the rows that count."""
    if isinstance(index, (str, os.PathLike)):
        from xchip.indexing.opening.read import read_index

        filters = None if skip_nodata else [("nodata_fraction", "==", 0)]
        frame: pd.DataFrame = read_index(os.fspath(index), filters=filters, storage=storage)
    else:
        frame = frame_of(index)
    if "nodata_fraction" not in frame:
        raise ValueError("rows must be rows of an index, but the column 'nodata_fraction' is missing")
    if not skip_nodata:
        frame = frame[frame["nodata_fraction"] == 0]
    if not len(frame):
        without = "rows" if skip_nodata else "chip without nodata pixels; pass skip_nodata=True to use all chips"
        raise ValueError(f"the index has no {without}")
    return frame


def _by_sensor(frame: pd.DataFrame, sensor: object) -> list[pd.DataFrame]:
    if sensor is not None or "sensor" not in frame:
        return [frame]
    return [rows for _, rows in frame.groupby("sensor", sort=True, dropna=False)]


@dataclass(slots=True)
class _Progress:
    total: int
    report: Tell
    done: int = 0

    def advance(self, chips: int) -> None:
        self.done += chips
        self.report("chips read", self.done, self.total)


def _summary(table: ChipTable, values: Moments) -> SensorStats:
    sensor = sensors_of(table)[0]
    bands = tuple(band.name for band in table.reader.bands)
    return SensorStats.of(sensor, bands, values, len(table.rows), wavelengths_of(table)[sensor])


def table_moments(
    table: ChipTable,
    whole: np.ndarray,
    *,
    skip_nodata: bool,
    threads: int | None,
    client: distributed.Client | None,
    tell: _Progress | None = None,
) -> Moments:
    """Return the moments of each band, (bands,), over the chips of a table. ``whole`` marks the chips without nodata pixels.

    A task reads chips of one super-tile, and returns six numbers per band. A few tasks run at a time.
    """
    rows, reader = table.rows, table.reader
    chip_bytes = sum(band.dtype.itemsize for band in reader.bands) * math.prod(reader.size)
    parts = split_units(units(rows, reader.tile), max(1, UNIT_BYTES // chip_bytes))
    jobs = (_Job(reader, rows.take(part), whole[part], skip_nodata) for part in parts)
    total = no_moments((len(reader.bands),))
    for number, result in enumerate(_in_order(jobs, reader, threads, client)):
        total = total.merge(result)
        if tell is not None:
            tell.advance(len(parts[number]))
    return total


@dataclass(frozen=True, eq=False)
class _Job:
    """Chips of one super-tile."""

    reader: ChipReader
    rows: ChipRows
    whole: np.ndarray
    """bool (chip,): chips without nodata pixels."""
    skip_nodata: bool

    def run(self) -> Moments:
        """Return the moments of each band, (bands,)."""
        (ref,) = self.rows.items
        packed = no_moments((len(self.reader.bands),)).packed
        for numbers in self.reader.kinds[ref.kind].files:  # one file at a time, to need less memory
            for number, chips in zip(numbers, self.reader.read(self.rows, numbers, keep=False), strict=True):
                packed[:, number] = moments(chips, valid=self._valid(number, chips)).packed
        return Moments(packed)

    def _valid(self, number: int, chips: np.ndarray) -> np.ndarray:
        """Return which pixels count: bool, shaped like ``chips``. It is not called for bands that the item lacks."""
        height, width = self.rows.height[:, None, None], self.rows.width[:, None, None]
        inside = (np.arange(chips.shape[1])[:, None] < height) & (np.arange(chips.shape[2]) < width)  # the rest is padding
        if not self.skip_nodata:
            return inside
        nodata = self.reader.bands[number].attrs.get("_FillValue")
        if nodata is None:
            return inside & self.whole[:, None, None]
        return inside & (chips != nodata)  # a nodata value of NaN is not finite, so it does not count anyway


def _run(job: _Job) -> Moments:
    return job.run()


def _in_order(
    jobs: Iterable[_Job], reader: ChipReader, threads: int | None, client: distributed.Client | None
) -> Iterator[Moments]:
    """Yield the results of jobs in order; start only a few jobs ahead."""
    if client is not None:
        ahead = 2 * max(1, slots(client))
        small = (_Job(job.reader.only(job.rows), job.rows, job.whole, job.skip_nodata) for job in jobs)
        yield from _ahead(lambda job: client.submit(_run, job, pure=False), small, ahead)
        return
    remote = any(kind.remote for kind in reader.kinds.values())
    threads = reading_threads(threads, remote=remote)
    with ThreadPoolExecutor(threads, thread_name_prefix="xchip-stats") as pool:
        yield from _ahead(lambda job: pool.submit(_run, job), jobs, 2 * threads)


def _ahead(
    submit: Callable[[_Job], Future[Moments] | distributed.Future[Moments]], jobs: Iterable[_Job], ahead: int
) -> Iterator[Moments]:
    running: deque[Future[Moments] | distributed.Future[Moments]] = deque()
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
