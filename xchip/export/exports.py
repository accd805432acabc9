"""Export the chips of an index as files, each chip once, and resume after an interruption."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO, Unpack

import numpy as np

from xchip.chips.chip_table import ChipTable, TableOptions, open_table, rows_and_options
from xchip.core.limits import LimitOptions, Limits, check_whole, reading_threads
from xchip.core.options import check_options
from xchip.core.reduce import FRACTIONS
from xchip.core.scene import ItemError
from xchip.core.types import Assets, BBox, Filters, IndexLike, PathLike
from xchip.export.cubes import Cubes
from xchip.export.geotiffs import GeoTiffs
from xchip.export.job import Format, OutputFile, Pool, Work, pools_of
from xchip.export.record import record_export
from xchip.export.report import ExportReport
from xchip.export.run import ExportRun
from xchip.export.shards import Shards
from xchip.export.zarr_store import ZarrStore
from xchip.indexing.archive.layout import folder_name
from xchip.io.cluster import client_of
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.sensors.profile import SensorProfile

if TYPE_CHECKING:
    import distributed
    import pandas as pd

BUFFER = 512
"""Default number of chips that are read and shuffled together: about 670 MB of ten 16-bit bands of 256 x 256 pixels."""
NEEDED = ("chip_id", "item_id", "datetime", "proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top")
"""Columns that every export needs."""
FORMATS: dict[str, type[Cubes] | type[ZarrStore] | type[Shards] | type[GeoTiffs]] = {
    format.name: format for format in (Cubes, ZarrStore, Shards, GeoTiffs)
}
"""The formats by name."""


class ExportOptions(TableOptions, LimitOptions, total=False):
    """Keywords of `export_chips` that select the chips, and say how to reach files and when to retry."""

    bbox: BBox | None
    filters: Filters | None
    target: StorageOptions | None
    attempts: int
    retry_failed: bool


class CubeOptions(ExportOptions, total=False):
    """Keywords of `prechip`: all keywords of `export_chips`."""

    assets: Assets
    shuffle: bool | None
    seed: int
    buffer: int
    part: tuple[int, int]
    job: tuple[int, int] | None
    client: distributed.Client | str | Literal[False] | None
    workers: int | None
    progress: bool | TextIO


def prechip(
    index: IndexLike | ChipTable,
    out: PathLike,
    *,
    cube_size: int = 128,
    dtype: str | None = "float32",
    **options: Unpack[CubeOptions],
) -> ExportReport:
    """Write the chips of an index as npz cubes in the layout of the Clay model's training data.

    ``<out>/<platform>/cube_<number>.npz`` holds ``pixels`` (n, bands, height, width), and ``week_norm``, ``hour_norm``,
    ``lat_norm`` and ``lon_norm``, float32 (n, 2): (sin, cos) of the ISO week and the full hour in UTC, and of the latitude
    and longitude of the chip's centre. A cube has chips of one sensor, with Clay's bands in Clay's order; the platform is
    Clay's name of the sensor. Chips are shuffled, each chip is in exactly one cube, and the last cube has the remainder.

    Parameters
    ----------
    index, out
        As for `export_chips`.
    cube_size
        Chips in a cube.
    dtype
        Data type of ``pixels``: float32 as Clay reads them, with the values as stored; None: the stored type.
    assets, shuffle, seed, buffer, part, job, client, workers, progress
        As for `export_chips`, like all other options.

    Returns
    -------
    ExportReport
        As from `export_chips`, which also lists the errors.

    Examples
    --------
    >>> import numpy as np, tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(512, 512))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     report = prechip(index, f"{folder}/cubes", cube_size=10, assets=["red", "nir"], progress=False)
    ...     shapes = [np.load(f"{folder}/cubes/sentinel-2-l2a/cube_{n}.npz")["pixels"].shape for n in (0, 1)]
    >>> report.done, shapes
    (16, [(10, 2, 128, 128), (6, 2, 128, 128)])
    """
    return export_chips(index, out, Cubes(cube_size, dtype), **options)


def export_chips(
    index: IndexLike | ChipTable,
    out: PathLike,
    format: Literal["npz", "zarr", "tar", "tif"] | Format = "npz",
    *,
    assets: Assets = None,
    shuffle: bool | None = None,
    seed: int = 0,
    buffer: int = BUFFER,
    part: tuple[int, int] = (0, 1),
    job: tuple[int, int] | None = None,
    client: distributed.Client | str | Literal[False] | None = None,
    workers: int | None = None,
    progress: bool | TextIO = True,
    **options: Unpack[ExportOptions],
) -> ExportReport:
    """Write the chips of an index as files: each chip once, each file whole.

    Re-running resumes: existing files are skipped. Chips that can't be read don't stop the export: files are written without
    them (a Zarr store has nodata in their place), and ``<out>/failed/`` lists each failed chip with its error.

    Parameters
    ----------
    index
        Rows of an index, as for `xchip.open_chips`.
    out
        Folder or URL for the files. For npz each platform is an export of its own, so several exports may share a folder.
    format
        "npz": cubes for Clay (`xchip.export.cubes.Cubes`); "zarr": one store (`xchip.export.zarr_store.ZarrStore`); "tar":
        shards for webdataset (`xchip.export.shards.Shards`); "tif": one GeoTIFF per chip (`xchip.export.geotiffs.GeoTiffs`).
        Or a value with options, such as ``ZarrStore(chunk=64, shard=512)``.
    assets
        Bands, as for `xchip.open_chips`. None: Clay's bands for npz, else the bands that `xchip.stack` takes.
    bbox, filters
        Select rows of an index that is a path: a box and conditions, as for `xchip.read_index`.
    max_nodata, max_defective, max_cloud, max_shadow, max_snow, max_water, min_clear
        Select rows: limits on their fractions, as for `xchip.index_items`.
    shuffle
        Whether chips come in random order. None: yes for npz and tar, no for Zarr and GeoTIFFs.
    seed
        Seed of the order. A file has the same chips however parts, jobs and workers split the work.
    buffer
        Number of chips that are read together, and in memory at once (on a cluster: per thread). To shuffle, super-tiles of
        about 2048 x 2048 pixels are put in random order, and the chips of each ``buffer`` are shuffled. A cube so has chips of
        several scenes, and a block of a file is decoded once, or twice at the border of two buffers.
    part
        (i, n): do the i-th of n parts of the work, counted from 0. Together the parts write the whole export.
    job
        Instead of ``part``, (i, n): write the i-th group of n files, counted from 0 and grouped within each sensor, so that the
        size of a job does not depend on the number of jobs. ``report.jobs`` is the number of jobs; a job beyond the last has
        nothing to do. All jobs of a folder have the same n.
    items, sensor, pad, harmonize
        As for `xchip.open_chips`.
    storage, pixels, target
        How to reach the index and items, the rasters, and ``out``. Default of ``pixels`` and ``target``: ``storage``.
    client
        A Dask client, or the address of a scheduler. None: the connected client, else threads of this process. False: threads.
    workers
        Number of threads without a cluster; default: one per core, 16 for remote files.
    attempts
        Maximum attempts per file on transient errors.
    retry_failed
        Whether to rewrite files that lack chips which failed in earlier runs. If not, these chips count as failed.
    progress
        True: show a bar on a terminal or in a notebook, else write lines to the log "xchip". A stream: write to it. False: show
        nothing.

    Returns
    -------
    ExportReport
        Numbers of chips done, skipped and failed, and a table of failures.

    Raises
    ------
    ValueError
        If no rows are left, if an option is out of range, or if ``out`` was made of other rows or with other options.
    xchip.ItemError
        If the first item of a sensor can't be used, because it determines the bands.
    OSError
        If ``out`` can't be written, or the cluster is lost. Files written until then stay.

    Examples
    --------
    >>> import tempfile, xarray, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(512, 512))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     first = export_chips(index, f"{folder}/chips", "tar", assets=["red", "nir"], progress=False)
    ...     again = export_chips(index, f"{folder}/chips", "tar", assets=["red", "nir"], progress=False)
    >>> first.done, first.files, again.done, again.skipped
    (16, 1, 0, 16)
    """
    check_options(export_chips, options, ExportOptions)
    kind = _format_of(format)
    attempts, retry_failed = options.pop("attempts", 5), options.pop("retry_failed", True)
    number, parts = _checked_part(part, job, buffer, attempts, workers)
    bbox, filters, target = options.pop("bbox", None), options.pop("filters", None), options.pop("target", None)
    limits = Limits(**{name: options.pop(name, None) for name in Limits.__slots__})  # type: ignore[misc]
    index, assets, opening = rows_and_options(index, assets, options)
    storage = opening.get("storage") or StorageOptions()
    frame = _selected_rows(index, bbox, filters, limits, storage)
    root = os.fspath(out)
    store = Store(root if "://" in root else os.path.abspath(os.path.expanduser(root)), target or storage)
    per_job = None if job is None else job[1]
    shuffled = kind.shuffled if shuffle is None else shuffle
    assets = [assets] if isinstance(assets, str) else None if assets is None else list(assets)
    start = time.monotonic()
    sensor, harmonize, pad = opening.get("sensor"), opening.get("harmonize", False), opening.get("pad", False)
    opening["pad"] = pad or kind.mixed_sizes
    sensor_name = sensor.name if isinstance(sensor, SensorProfile) else sensor
    groups = _by_sensor(frame, kind, sensor_name)
    tables = [(name, _table(rows, kind, name, assets, opening)) for name, rows in groups]
    parameters = {
        "format": kind.name,
        **kind.parameters(),
        "assets": assets,
        "sensor": sensor_name,
        "pad": bool(pad),
        "harmonize": dict(harmonize) if isinstance(harmonize, Mapping) else harmonize,
        "shuffle": shuffled,
        "seed": seed,
        "buffer": buffer,
        **({} if per_job is None else {"job": per_job}),
    }
    record_export(store, kind, groups if kind.separate_sensors else [(None, frame)], parameters)
    plan: list[Pool] = []
    for name, table in tables:
        chips = pools_of(
            table.rows, table.reader.tile, per_file=kind.per_file, per_job=per_job, buffer=buffer, shuffle=shuffled, seed=seed
        )
        plan += _plan(table, name, kind, store, chips)
    jobs = [] if per_job is None else _jobs(plan, per_job)
    pools = plan[number::parts] if job is None else [pool for group in jobs[job[0] : job[0] + 1] for pool in group]
    run = ExportRun(store, pools, retry_failed, progress)
    with client_of(client) as cluster:
        if cluster is not None and workers is not None:
            raise ValueError(
                "workers is a number of threads of this process, but a Dask cluster has its own threads; give workers or a client"
            )
        remote = any(items.remote for _, table in tables for items in table.reader.kinds.values())
        threads = reading_threads(workers, remote=remote)
        run.all(Work(store, attempts, keep=not shuffled), cluster, threads)
    return run.report(time.monotonic() - start, None if job is None else len(jobs))


def _table(rows: pd.DataFrame, kind: Format, sensor: str | None, assets: list[str] | None, opening: TableOptions) -> ChipTable:
    """Open the chips of one sensor; if an item lacks a default band, the error says how to choose bands."""
    bands = kind.assets(sensor) if assets is None else assets
    try:
        return open_table(rows, bands, **opening)
    except ItemError as error:
        if assets is not None or bands is None or not error.problem.startswith("it has no asset "):
            raise
        default = f"a file of the format {kind.name!r} has the bands {', '.join(bands)} of this sensor by default"
        raise ItemError(error.item_id, f"{error.problem}; {default}; choose bands with assets=") from error


def _format_of(format: str | Format) -> Format:
    if not isinstance(format, str):
        kind = format
    elif format in FORMATS:
        kind = FORMATS[format]()
    else:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, or a value such as ZarrStore(chunk=64), got {format!r}")
    if operator.index(kind.per_file) < 1:
        raise ValueError(f"a file must have at least one chip, got {kind!r}")
    return kind


def _checked_part(
    part: tuple[int, int], job: tuple[int, int] | None, buffer: int, attempts: int, workers: int | None
) -> tuple[int, int]:
    """Check the numbers; return ``part``."""
    number, parts = part
    if not 0 <= operator.index(number) < operator.index(parts):
        raise ValueError(f"part is (i, n) with 0 <= i < n, the i-th of n parts, got {part}")
    if job is not None and part != (0, 1):
        raise ValueError(f"part={part} and job={job} are two ways to share the work; give one")
    if job is not None and not (operator.index(job[0]) >= 0 and operator.index(job[1]) >= 1):
        raise ValueError(f"job is (i, n) with i >= 0 and n >= 1, the i-th group of n files, got {job}")
    for name, value in (("buffer", buffer), ("attempts", attempts), ("workers", workers)):
        if value is not None:
            check_whole(name, value)
    return number, parts


def _selected_rows(
    index: IndexLike, bbox: BBox | None, filters: Filters | None, limits: Limits, storage: StorageOptions
) -> pd.DataFrame:
    """Return the rows to export, in memory."""
    from xchip.indexing.opening.read import read_index, rows_of

    if isinstance(index, (str, os.PathLike, list, tuple)):
        frame = read_index(index, bbox, filters, storage=storage)
    elif bbox is not None or filters is not None:
        raise ValueError(
            "bbox= and filters= select rows of an index that is a path; filter the rows of a frame or table before the export"
        )
    else:
        frame = rows_of(index)
    limited = any(getattr(limits, name) is not None for name in limits.__slots__)
    missing = [name for name in (*NEEDED, *(FRACTIONS if limited else ())) if name not in frame]
    if missing:
        raise ValueError(f"rows must be rows of an index; the columns {missing} are missing")
    if limited:
        fractions = np.stack([frame[name].to_numpy(np.float64, na_value=np.nan) for name in FRACTIONS])
        frame = frame[limits.keep(fractions)]
    if not len(frame):
        raise ValueError("there is nothing to export: the index has no rows, or no row passes the filters and limits")
    return frame


def _by_sensor(frame: pd.DataFrame, kind: Format, sensor: str | None) -> list[tuple[str | None, pd.DataFrame]]:
    """Return (name of the sensor, its rows) for each sensor; one group if the files of the format may hold several sensors."""
    if sensor is not None or not kind.by_sensor or "sensor" not in frame:
        return [(sensor, frame)]
    groups = frame.groupby("sensor", dropna=False, sort=True, observed=True)
    return [(name if isinstance(name, str) else None, rows) for name, rows in groups]


def _plan(table: ChipTable, sensor: str | None, kind: Format, store: Store, chips: Sequence[np.ndarray]) -> Iterator[Pool]:
    """Write what must be present before the first file, and yield a pool of files for each array of ``chips``."""
    size = kind.per_file
    order = np.concatenate(chips)
    prepared = kind.prepare(store, table, order)
    names = iter(kind.files(table, order, sensor))
    first = 0
    for number, pool in enumerate(chips):
        files = tuple(OutputFile(next(names), pool[start : start + size], first + start) for start in range(0, len(pool), size))
        yield Pool(f"{folder_name(sensor)}/{number:06d}", files, table, sensor, prepared)
        first += len(pool)


def _jobs(plan: Sequence[Pool], size: int) -> list[list[Pool]]:
    """Return the pools of each job: ``size`` files, fewer at the end of a sensor."""
    jobs: list[list[Pool]] = []
    for pool in plan:
        number = pool.files[0].first // pool.format.per_file
        if number % size == 0:
            jobs.append([])
        jobs[-1].append(pool)
    return jobs
