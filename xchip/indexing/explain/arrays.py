"""Costs of an index of an array: counted from its chunks, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

import numpy as np
import xarray as xr

from xchip import sensors
from xchip.core.arrays import ArrayScene, Quality, Xarray, array_scenes, as_dataset, nodata_of, pixel_grid
from xchip.core.counting import MAX_ROWS
from xchip.core.grid import GridOptions, Size, chip_grid
from xchip.core.limits import Limits
from xchip.core.quality import NodataRule
from xchip.indexing.explain.explanation import CHIP_BYTES, Explanation, Figure, as_bytes, counted, counting_memory, memory_figure
from xchip.indexing.rows import array_index
from xchip.sensors.array_quality import quality_of

SMALL_CHUNK = 250_000
"""Bytes of a chunk below which Dask's overhead, 0.3 to 2 ms per task, exceeds the time to read and count the chunk."""
LARGE_CHUNK = 256_000_000
"""Bytes of a chunk above which a few threads fill the memory of a typical worker."""
FEW_CHUNKS = 8
"""The size of chunks does not matter if there are at most this many."""


def explain_array(
    obj: Xarray,
    size: Size = 256,
    *,
    quality: Quality = None,
    item_id: str | None = None,
    limits: Limits | None = None,
    threads: int | None = None,
    **grid_options: Unpack[GridOptions],
) -> Explanation:
    """Explain the index of an array: the function behind ``.chips.explain``, which documents the parameters."""
    ds = as_dataset(obj)
    scenes = array_scenes(ds, item_id)
    whole = chip_grid(pixel_grid(ds), size, **grid_options)
    chips = [len(whole if scene.pixels == whole.pixels else whole.on(scene.pixels)) for scene in scenes]
    array, rule = quality_of(ds, quality)
    has_quality = rule is not None or isinstance(quality, xr.DataArray)
    bands = [array] if has_quality else _data_bands(ds, quality)
    lazy = [band for band in bands if hasattr(band.data, "dask")]
    blocks = [_blocks(band, scenes) for band in lazy]
    sizes = [size for band_sizes in blocks for size in band_sizes]
    if not hasattr(array.data, "dask"):
        tasks = Figure(0, "exact", "the array is in memory: it is counted without Dask")
    else:
        index = array_index(ds, size, quality=quality, item_id=item_id, limits=limits, **grid_options)
        tasks = Figure(len(index.optimize().__dask_graph__()), "exact", "keys of the optimised graph")
    if not bands:
        what = "a data band without nodata: nothing is read"
    elif not lazy:
        what = "the array is in memory: nothing is read"
    elif has_quality:
        what = f"chunks of {str(array.name)!r} with pixels of items"
    else:
        what = f"chunks of {counted(len(bands), 'data band')} with pixels of items, because there is no quality band"
    # The bands of one place and time are compared with each other, so a thread can hold a chunk of each.
    at_once = sum(max(band_sizes, default=0) for band_sizes in blocks)
    wide = max((max(band.chunksizes["x"]) for band in lazy), default=whole.pixels.shape[1])
    return Explanation(
        subject="index of an array, chips of {} x {} pixels".format(*whole.size),
        items=Figure(len(scenes), "exact", "time steps, or the array itself if it has no time"),
        chips=Figure(sum(chips), "exact", "from the grid of each item's pixels"),
        tasks=tasks,
        chunks=Figure(len(sizes), "exact", what),
        pixel_bytes=Figure(sum(sizes), "exact", "pixels of these chunks x bytes of their data type" if lazy else what),
        memory_bytes=memory_figure(
            2 * at_once + counting_memory(MAX_ROWS, wide, array.dtype.itemsize) + max(chips, default=0) * CHIP_BYTES,
            max(1, len(sizes)),
            threads,
            "a chunk and its copy, and the table of an item; memory of GDAL and of the array itself is not included",
        ),
        notes=tuple(_notes(ds, sizes, str(array.name) if rule is not None else None)),
    )


def _data_bands(ds: xr.Dataset, quality: Quality) -> list[xr.DataArray]:
    """Return the bands that decide NODATA; none if one of them has data everywhere, because then nothing is read."""
    names = (
        quality.bands if isinstance(quality, NodataRule) else [name for name in ds.data_vars if {"y", "x"} <= set(ds[name].dims)]
    )
    bands = [ds[name] for name in names]
    return bands if all(band.dtype.kind in "fc" or nodata_of(band) is not None for band in bands) else []


def _blocks(band: xr.DataArray, scenes: list[ArrayScene]) -> list[int]:
    """Return the bytes of each chunk of a band that has pixels of an item."""
    band = band.transpose(..., "y", "x")
    *lead, rows, columns = (np.asarray(sizes) for sizes in band.data.chunks)
    times = lead[0] if lead and "time" in band.dims else np.array([1])
    touched = np.zeros((len(times), len(rows), len(columns)), bool)
    for scene in scenes:
        height, width = scene.pixels.shape
        step = 0 if scene.time is None or "time" not in band.dims else scene.time
        time = int(np.searchsorted(np.cumsum(times), step, side="right"))
        touched[time, _overlapped(rows, scene.row, height), _overlapped(columns, scene.column, width)] = True
    sizes = times[:, None, None] * rows[:, None] * columns * band.dtype.itemsize
    return [int(size) for size in sizes[touched]]


def _overlapped(sizes: np.ndarray, start: int, length: int) -> slice:
    """Return the chunks of ``sizes`` that hold ``length`` pixels from ``start``."""
    ends = np.cumsum(sizes)
    return slice(int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(ends, start + length, side="left")) + 1)


def _notes(ds: xr.Dataset, sizes: list[int], band: str | None) -> Iterator[str]:
    """Yield hints for chunks of ``sizes`` bytes and a quality band of this name."""
    usual = float(np.median(sizes)) if sizes else 0.0
    if len(sizes) > FEW_CHUNKS and usual < SMALL_CHUNK:
        yield (
            f"chunks are small, {as_bytes(usual)} each: Dask's overhead exceeds the time to count them; chunks of 1024 to 2048 "
            "pixels per side are better"
        )
    if max(sizes, default=0) > LARGE_CHUNK:
        yield (
            f"chunks are large, up to {as_bytes(max(sizes))}, and a thread holds a chunk and its copy; chunks of 1024 to 2048 "
            "pixels per side take less memory"
        )
    stored = _stored_resolution(ds, band) if band is not None else None
    resolution = max(pixel_grid(ds).res)
    if stored is not None and stored > 1.5 * resolution:
        yield (
            f"{band!r} is published at {stored:g} m and repeated to {resolution:g} m: {(stored / resolution) ** 2:.0f} times its "
            "pixels are counted; xchip.index_items counts it at its own resolution"
        )


def _stored_resolution(ds: xr.Dataset, name: str) -> float | None:
    """Return the published pixel size of the sensor's quality band, in metres; None if it can't be compared."""
    import pyproj

    sensor = ds.attrs.get("sensor")
    if not (isinstance(sensor, str) and sensor in sensors.names()):
        return None
    axes = pyproj.CRS.from_user_input(pixel_grid(ds).crs).axis_info
    spec = sensors.band_called(sensors.find(sensor), name, None)
    return spec.resolution if spec is not None and axes and axes[0].unit_name == "metre" else None
