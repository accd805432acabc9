"""What the index of an array will take: counted from its chunks, before anything runs."""

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
"""Bytes of a chunk below which Dask's own work, 0.3 to 2 ms a task, takes longer than to read and count the chunk."""
LARGE_CHUNK = 256_000_000
"""Bytes of a chunk above which a few threads fill the memory of a usual worker."""
FEW_CHUNKS = 8
"""Of so few it does not matter how small they are."""


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
    """What the index of an array will take: the function behind ``.chips.explain``, where the parameters are described."""
    ds = as_dataset(obj)
    scenes = array_scenes(ds, item_id)
    whole = chip_grid(pixel_grid(ds), size, **grid_options)
    chips = [len(whole if scene.pixels == whole.pixels else whole.on(scene.pixels)) for scene in scenes]
    array, rule = quality_of(ds, quality)
    bands = [array] if rule is not None or isinstance(quality, xr.DataArray) else _data_bands(ds, quality)
    lazy = [band for band in bands if hasattr(band.data, "dask")]
    blocks = [_blocks(band, scenes) for band in lazy]
    chunks = sum(map(len, blocks))
    if not hasattr(array.data, "dask"):
        tasks = Figure(0, "exact", "the array is in memory: it is counted at once")
    else:
        index = array_index(ds, size, quality=quality, item_id=item_id, limits=limits, **grid_options)
        tasks = Figure(len(index.optimize().__dask_graph__()), "exact", "keys of the optimised graph")
    if not bands:
        what = "a data band without nodata: nothing is read"
    elif not lazy:
        what = "the array is in memory: nothing is read"
    elif rule is not None or isinstance(quality, xr.DataArray):
        what = f"those of {str(array.name)!r} in which items lie"
    else:
        what = f"those of {counted(len(bands), 'data band')} in which items lie, for there is no quality band"
    # The bands of one place and time are compared with each other, so a thread may hold a chunk of each.
    at_once = sum(max(found, default=0) for found in blocks)
    wide = max((max(band.chunksizes["x"]) for band in lazy), default=whole.pixels.shape[1])
    return Explanation(
        subject="index of an array, chips of {} x {} pixels".format(*whole.size),
        items=Figure(len(scenes), "exact", "time steps, or the array itself where it has none"),
        chips=Figure(sum(chips), "exact", "from the grid of each item's pixels"),
        tasks=tasks,
        chunks=Figure(chunks, "exact", what),
        pixel_bytes=Figure(sum(map(sum, blocks)), "exact", "pixels of these chunks x bytes of their data type" if lazy else what),
        memory_bytes=memory_figure(
            2 * at_once + counting_memory(MAX_ROWS, wide, array.dtype.itemsize) + max(chips, default=0) * CHIP_BYTES,
            max(1, chunks),
            threads,
            "a chunk and its copy, and the table of an item; what GDAL and the array itself keep in memory comes on top",
        ),
        notes=tuple(_notes(ds, [size for found in blocks for size in found], str(array.name) if rule is not None else None)),
    )


def _data_bands(ds: xr.Dataset, quality: Quality) -> list[xr.DataArray]:
    """The bands of which NODATA is made; none where one of them has data everywhere, for then nothing need be read."""
    names = (
        quality.bands if isinstance(quality, NodataRule) else [name for name in ds.data_vars if {"y", "x"} <= set(ds[name].dims)]
    )
    bands = [ds[name] for name in names]
    return bands if all(band.dtype.kind in "fc" or nodata_of(band) is not None for band in bands) else []


def _blocks(band: xr.DataArray, scenes: list[ArrayScene]) -> list[int]:
    """Bytes of each chunk of a band that pixels of an item lie in."""
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
    """The chunks of ``sizes`` that hold ``length`` pixels from ``start``."""
    ends = np.cumsum(sizes)
    return slice(int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(ends, start + length, side="left")) + 1)


def _notes(ds: xr.Dataset, sizes: list[int], band: str | None) -> Iterator[str]:
    """What deserves a thought, of chunks of ``sizes`` bytes and the quality band's name."""
    usual = float(np.median(sizes)) if sizes else 0.0
    if len(sizes) > FEW_CHUNKS and usual < SMALL_CHUNK:
        yield (
            f"chunks are small, {as_bytes(usual)} each: Dask's own work takes longer than the counting; chunks of 1024 to 2048 "
            "pixels a side are better"
        )
    if max(sizes, default=0) > LARGE_CHUNK:
        yield (
            f"chunks are large, up to {as_bytes(max(sizes))}, and a thread holds one and a copy; chunks of 1024 to 2048 pixels a "
            "side take less memory"
        )
    stored = _stored_resolution(ds, band) if band is not None else None
    own = max(pixel_grid(ds).res)
    if stored is not None and stored > 1.5 * own:
        yield (
            f"{band!r} is published at {stored:g} m and repeated to {own:g} m: {(stored / own) ** 2:.0f} times its pixels are "
            "counted; xchip.index_items counts it at its own resolution"
        )


def _stored_resolution(ds: xr.Dataset, name: str) -> float | None:
    """Pixel size, in metres, that the sensor's quality band is published at; None where it can't be compared."""
    import pyproj

    sensor = ds.attrs.get("sensor")
    if not (isinstance(sensor, str) and sensor in sensors.names()):
        return None
    axes = pyproj.CRS.from_user_input(pixel_grid(ds).crs).axis_info
    spec = sensors.band_called(sensors.find(sensor), name, None)
    return spec.resolution if spec is not None and axes and axes[0].unit_name == "metre" else None
