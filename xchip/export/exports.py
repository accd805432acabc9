"""Exports: the chips of an index as files, each chip once, whatever fails in between."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO, Unpack

import numpy as np

from xchip.chips.chip_table import ChipTable, TableOptions, open_table, rows_and_options
from xchip.core.limits import LimitOptions, Limits, check_whole, reading_threads
from xchip.core.options import check_options
from xchip.core.reduce import FRACTIONS
from xchip.core.scene import ItemError
from xchip.core.types import Assets, BBox, Filters, IndexLike, PathLike
from xchip.export.claims import claim
from xchip.export.cubes import Cubes
from xchip.export.geotiffs import GeoTiffs
from xchip.export.job import Format, OutputFile, Pool, Work, pools_of
from xchip.export.report import ExportReport
from xchip.export.run import ExportRun
from xchip.export.shards import Shards
from xchip.export.zarr_store import ZarrStore
from xchip.indexing.archive.layout import folder_name
from xchip.io.cluster import client_of
from xchip.io.storage import StorageOptions
from xchip.io.store import Store

if TYPE_CHECKING:
    import distributed
    import pandas as pd

BUFFER = 512
"""Chips that are mixed: some 670 MB of ten 16-bit bands of 256 x 256 pixels."""
NEEDED = ("chip_id", "item_id", "datetime", "proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top")
"""Columns that files are made of."""
FORMATS: dict[str, type[Cubes] | type[ZarrStore] | type[Shards] | type[GeoTiffs]] = {
    kind.name: kind for kind in (Cubes, ZarrStore, Shards, GeoTiffs)
}
"""By name."""


class ExportOptions(TableOptions, LimitOptions, total=False):
    """Keywords of `export_chips` that say which chips are written, and how they are reached."""

    bbox: BBox | None
    filters: Filters | None
    target: StorageOptions | None
    attempts: int
    retry_failed: bool


class CubeOptions(ExportOptions, total=False):
    """Keywords of `prechip`: those of `export_chips`."""

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
    """Write the chips of an index as npz cubes in the layout that the Clay model is trained from.

    ``<out>/<platform>/cube_<number>.npz`` hold ``pixels`` (n, bands, height, width), and ``week_norm``, ``hour_norm``,
    ``lat_norm`` and ``lon_norm``, float32 (n, 2): (sin, cos) of the ISO week and the full hour in UTC, and of the latitude
    and longitude of the chip's centre. A cube has chips of one sensor, with Clay's bands in Clay's order, and Clay's name as
    the platform. Each chip is in one cube: all are shuffled, without replacement, and the last cube has what is left.

    Parameters
    ----------
    index, out
        As for `export_chips`.
    cube_size
        Chips in a cube.
    dtype
        Of ``pixels``: float32, as Clay reads them, with values as stored; None: as stored.
    assets, shuffle, seed, buffer, part, job, client, workers, progress
        As for `export_chips`, as are the other options.

    Returns
    -------
    ExportReport
        As `export_chips`; it raises what that raises.

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

    To run again is to go on: files that are there are skipped. Chips that can't be read don't stop the others: files are
    written without them (a Zarr store has nodata in their place), and ``<out>/failed/`` lists each of them and why.

    Parameters
    ----------
    index
        Rows of an index, as for `xchip.open_chips`.
    out
        Folder or URL for the files. Of npz each platform is an export of its own, so several may share a folder.
    format
        "npz": cubes for Clay (`xchip.export.cubes.Cubes`); "zarr": one store (`xchip.export.zarr_store.ZarrStore`); "tar":
        shards for webdataset (`xchip.export.shards.Shards`); "tif": a GeoTIFF a chip (`xchip.export.geotiffs.GeoTiffs`). Or
        one of these values with options of its own: ``ZarrStore(chunk=64, shard=512)``.
    assets
        Bands, as for `xchip.open_chips`. None: for npz those of Clay, else those that `xchip.stack` takes.
    bbox, filters
        Which rows of an index that is a path: a box and conditions, as for `xchip.read_index`.
    max_nodata, max_defective, max_cloud, max_shadow, max_snow, max_water, min_clear
        Which rows: limits on their fractions, as for `xchip.index_items`.
    shuffle
        Whether chips come in random order; None: in cubes and shards yes, in Zarr and GeoTIFFs no.
    seed
        Decides the order. Neither parts nor workers do: a file has the same chips however the work is split.
    buffer
        Chips that are read together, and in memory at once (on a cluster: by each thread). Shuffled, these are mixed:
        super-tiles of about 2048 x 2048 pixels come in random order, and as many as make ``buffer`` chips are mixed chip by
        chip. So a cube has chips of several scenes, and a block of a file is decoded once, or twice at the border of two
        buffers.
    part
        (i, n): do the i-th of n parts of the work, counted from 0. Together they write the whole.
    job
        In place of ``part``, (i, n): write the i-th n files, counted from 0, those of each sensor by themselves; so a job is of a
        size that does not depend on how many there are. A job beyond the last has nothing to do: ``report.jobs`` tells how many
        there are. All jobs of a folder have the same n.
    items, sensor, pad, harmonize
        As for `xchip.open_chips`.
    storage, pixels, target
        How index and items, how rasters, and how ``out`` is reached; the latter two as the first if not given.
    client
        A Dask client, or the address of a scheduler. None: the client that is connected, else threads of this process.
        False: threads.
    workers
        Threads, where there is no cluster; if not given one a core, or 16 where files are read over a network.
    attempts
        How often a file is tried while what goes wrong looks as if it will pass.
    retry_failed
        Whether to make files again that lack chips which failed in earlier runs. If not, these are counted as failed.
    progress
        True: a bar on a terminal or in a notebook, lines in the log "xchip" elsewhere. A stream: there. False: nothing.

    Returns
    -------
    ExportReport
        Numbers of chips done, skipped and failed, and a table of failures.

    Raises
    ------
    ValueError
        If no rows are left, if an option is out of range, or if ``out`` was made of other rows or with other options.
    xchip.ItemError
        If the first item of a sensor can't be used, for it tells which bands there are.
    OSError
        If ``out`` can't be written, or the cluster is lost. What is written until then stays.

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
    check_options("export_chips", options, ExportOptions)
    kind = _format(format)
    attempts, retry_failed = options.pop("attempts", 5), options.pop("retry_failed", True)
    number, parts = _checked(part, job, buffer, attempts, workers)
    bbox, filters, target = options.pop("bbox", None), options.pop("filters", None), options.pop("target", None)
    limits = Limits(**{name: options.pop(name, None) for name in Limits.__slots__})  # type: ignore[misc]
    index, assets, opening = rows_and_options(index, assets, options)
    storage = opening.get("storage") or StorageOptions()
    frame = _chosen(index, bbox, filters, limits, storage)
    root = os.fspath(out)
    store = Store(root if "://" in root else os.path.abspath(os.path.expanduser(root)), target or storage)
    shuffled = kind.shuffled if shuffle is None else shuffle
    assets = [assets] if isinstance(assets, str) else None if assets is None else list(assets)
    start = time.monotonic()
    sensor, harmonize, pad = opening.get("sensor"), opening.get("harmonize", False), opening.get("pad", False)
    opening["pad"] = pad or kind.own_sizes
    groups = _by_sensor(frame, kind, sensor)
    tables = [(name, _table(rows, kind, name, assets, opening)) for name, rows in groups]
    parameters = {
        "format": kind.name,
        **kind.parameters(),
        "assets": assets,
        "sensor": getattr(sensor, "name", sensor),
        "pad": bool(pad),
        "harmonize": dict(harmonize) if isinstance(harmonize, Mapping) else harmonize,
        "shuffle": shuffled,
        "seed": seed,
        "buffer": buffer,
        **({} if job is None else {"job": job[1]}),
    }
    claim(store, kind, groups if kind.apart else [(None, frame)], parameters)
    order = {"buffer": buffer, "shuffle": shuffled, "seed": seed, "per_job": None if job is None else job[1]}
    plan = [pool for name, table in tables for pool in _plan(table, name, kind, store, **order)]
    jobs = [] if job is None else _jobs(plan, job[1])
    mine = plan[number::parts] if job is None else [pool for some in jobs[job[0] : job[0] + 1] for pool in some]
    run = ExportRun(store, mine, retry_failed, progress)
    with client_of(client) as cluster:
        if cluster is not None and workers is not None:
            raise ValueError(
                "workers is a number of threads of this process; a Dask cluster has its own: give workers or a client"
            )
        remote = any(kind.remote for _, table in tables for kind in table.reader.kinds.values())
        threads = reading_threads(workers, remote=remote)
        run.all(Work(store, attempts, keep=not shuffled), cluster, threads)
    return run.report(time.monotonic() - start, None if job is None else len(jobs))


def _table(rows: pd.DataFrame, kind: Format, sensor: str | None, assets: list[str] | None, opening: TableOptions) -> ChipTable:
    """The chips of one sensor; an error about bands that nobody asked for says how to ask for others."""
    own = kind.assets(sensor) if assets is None else assets
    try:
        return open_table(rows, own, **opening)
    except ItemError as error:
        if assets is not None or own is None or not error.problem.startswith("it has no asset "):
            raise
        usual = f"a file of the format {kind.name!r} has the bands {', '.join(own)} of this sensor, unless others are named"
        raise ItemError(error.item_id, f"{error.problem}; {usual} (assets=, or --assets)") from error


def _format(format: str | Format) -> Format:
    if not isinstance(format, str):
        kind = format
    elif format in FORMATS:
        kind = FORMATS[format]()
    else:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, or a value such as ZarrStore(chunk=64), got {format!r}")
    if operator.index(kind.per_file) < 1:
        raise ValueError(f"a file has at least one chip, got {kind!r}")
    return kind


def _checked(
    part: tuple[int, int], job: tuple[int, int] | None, buffer: int, attempts: int, workers: int | None
) -> tuple[int, int]:
    number, parts = part
    if not 0 <= operator.index(number) < operator.index(parts):
        raise ValueError(f"part is (i, n), the i-th of n parts, counted from 0, got {part}")
    if job is not None and part != (0, 1):
        raise ValueError(f"part={part} and job={job} are two ways to share the work; give one")
    if job is not None and not (operator.index(job[0]) >= 0 and operator.index(job[1]) >= 1):
        raise ValueError(f"job is (i, n), the i-th n files, counted from 0, got {job}")
    for name, value in (("buffer", buffer), ("attempts", attempts), ("workers", workers)):
        if value is not None:
            check_whole(name, value)
    return number, parts


def _chosen(
    index: IndexLike, bbox: BBox | None, filters: Filters | None, limits: Limits, storage: StorageOptions
) -> pd.DataFrame:
    """The rows to export, in memory."""
    from xchip.indexing.opening.read import read_index, rows_of

    if isinstance(index, (str, os.PathLike, list, tuple)):
        frame = read_index(index, bbox, filters, storage=storage)
    elif bbox is not None or filters is not None:
        raise ValueError("bbox= and filters= choose from an index that is a path; choose the rows of a frame or table beforehand")
    else:
        frame = rows_of(index)
    asked = any(getattr(limits, name) is not None for name in limits.__slots__)
    missing = [name for name in (*NEEDED, *(FRACTIONS if asked else ())) if name not in frame]
    if missing:
        raise ValueError(f"rows must be rows of an index; the columns {missing} are missing")
    if asked:
        fractions = np.stack([frame[name].to_numpy(np.float64, na_value=np.nan) for name in FRACTIONS])
        frame = frame[limits.keep(fractions)]
    if not len(frame):
        raise ValueError("there is nothing to export: the index has no rows, or none that pass the filters and limits")
    return frame


def _by_sensor(frame: pd.DataFrame, kind: Format, sensor: Any) -> list[tuple[str | None, pd.DataFrame]]:
    """(name of the sensor, its rows); all rows together where a format's files may hold several."""
    if sensor is not None or not kind.by_sensor or "sensor" not in frame:
        return [(None if sensor is None else getattr(sensor, "name", sensor), frame)]
    groups = frame.groupby("sensor", dropna=False, sort=True, observed=True)
    return [(name if isinstance(name, str) else None, rows) for name, rows in groups]


def _plan(table: ChipTable, sensor: str | None, kind: Format, store: Store, *, per_job: int | None, **mixing: Any) -> list[Pool]:
    """The files of a table, in pools; what must be there before the first file is written."""
    size = kind.per_file
    pools = pools_of(table.rows, table.reader.tile, per_file=size, per_job=per_job, **mixing)
    order = np.concatenate(pools)
    ready = kind.prepared(store, table, order)
    names = iter(kind.files(table, order, sensor))
    folder = folder_name(sensor)
    planned = []
    first = 0
    for number, pool in enumerate(pools):
        files = tuple(OutputFile(next(names), pool[start : start + size], first + start) for start in range(0, len(pool), size))
        planned.append(Pool(f"{folder}/{number:06d}", files, table, sensor, ready))
        first += len(pool)
    return planned


def _jobs(plan: Sequence[Pool], size: int) -> list[list[Pool]]:
    """The pools of each job: ``size`` files, fewer where those of a sensor end."""
    jobs: list[list[Pool]] = []
    for pool in plan:
        number = pool.files[0].first // pool.format.per_file
        if number % size == 0:
            jobs.append([])
        jobs[-1].append(pool)
    return jobs
