"""Count the quality of an item's chips from its files: each file is read once, in strips, at its own resolution."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.counting import Scratch, count_classes
from xchip.core.grid import Alignment, ChipGrid, PixelGrid, alignment
from xchip.core.quality import CLEAR, N_CLASSES, NODATA, NodataRule, QualityRule
from xchip.core.reduce import AxisPlan, chip_areas, chip_plans, complete_counts, counter_for, sums_of_parts
from xchip.core.scene import Band, Scene
from xchip.io.gdal import is_remote
from xchip.raster.header import read_absence
from xchip.raster.reader import BandReader, BandSource, fill_value, strips

if TYPE_CHECKING:
    from rasterio.windows import Window

STRIP_PIXELS = 4_000_000
"""Pixels in a strip of the scene's grid, if bands are resampled to that grid."""


def count_scene(scene: Scene, grid: ChipGrid) -> np.ndarray:
    """Count the pixels of each `QualityClass` in each chip: int64 (7, chip_y, chip_x).

    Read the quality band, or the data bands of a product without one, in strips: memory does not grow with the scene.
    """
    if not len(grid):
        return np.zeros((N_CLASSES, *grid.shape), np.int64)
    rule = scene.rule
    counts = _count_nodata(scene, grid) if isinstance(rule, NodataRule) else _count_band(scene, rule, grid)
    return complete_counts(counts, chip_areas(grid))


def _count_band(scene: Scene, rule: QualityRule, grid: ChipGrid) -> np.ndarray:
    (band,) = scene.quality
    aligned = native_alignment(band, grid.pixels)
    if aligned is None:
        # The band is resampled to the scene's pixels, and those are counted.
        return _count_strips(_scene_strips(scene, band), rule, chip_plans(grid))
    plans = chip_plans(grid, aligned, band.grid.shape)
    if is_remote(band.href) or not band.href.lower().endswith((".tif", ".tiff")):
        # A remote file gets one connection; other formats can need earlier blocks to read later ones.
        return _count_strips(strips(band), rule, plans)
    return _count_in_turns(band, rule, plans)


def _count_in_turns(band: Band, rule: QualityRule, plans: tuple[AxisPlan, AxisPlan]) -> np.ndarray:
    """Count in two threads; each reads every second strip and counts it while it is in the processor's cache."""

    def count(turn: int) -> np.ndarray:
        counts, scratch = _no_counts(plans), Scratch()
        for first, pixels in strips(band, turn=(turn, 2)):
            _add(counts, first, pixels, rule, plans, scratch)
        return counts

    odd = _counters().submit(count, 1)
    try:
        even = count(0)
    finally:
        wait([odd])  # also after an error here: no thread goes on reading when this function has returned
    return sums_of_parts(even + odd.result(), plans)


def native_alignment(band: Band, pixels: PixelGrid) -> Alignment | None:
    """Return how a quality band's pixels lie under the scene's, if they can be counted at the band's own resolution.

    None if the band is not on the scene's lattice, or finer than it: the band is then resampled to the scene's pixels.
    """
    aligned = alignment(source=band.grid, target=pixels) if band.grid.crs == pixels.crs else None
    return None if aligned is None or min(aligned.y.factor, aligned.x.factor) < 1 else aligned


def _count_strips(
    parts: Iterator[tuple[int, np.ndarray]], rule: QualityRule | None, plans: tuple[AxisPlan, AxisPlan]
) -> np.ndarray:
    """Count consecutive strips, given as (first row, pixels)."""
    counts, scratch = _no_counts(plans), Scratch()
    # Another thread counts a strip while this one reads the next; both release the interpreter most of the time.
    pending = None
    for first, pixels in parts:
        if pending is not None:
            pending.result()
        pending = _counters().submit(_add, counts, first, pixels, rule, plans, scratch)
    if pending is not None:
        pending.result()
    return sums_of_parts(counts, plans)


def _no_counts(plans: tuple[AxisPlan, AxisPlan]) -> np.ndarray:
    return np.zeros((N_CLASSES, len(plans[0].cuts) - 1, len(plans[1].cuts) - 1), np.int64)


def _add(
    counts: np.ndarray,
    first: int,
    pixels: np.ndarray,
    rule: QualityRule | None,
    plans: tuple[AxisPlan, AxisPlan],
    scratch: Scratch,
) -> None:
    """Count the pixels of a strip that starts at row ``first``, and add them to ``counts``."""
    rows, columns = plans[0].cuts, plans[1].cuts
    last = first + len(pixels)
    inner = rows[(rows > first) & (rows < last)] - first
    counter, pixels = counter_for(rule, pixels)
    strip = count_classes(pixels, counter, np.concatenate(([0], inner, [last - first])), columns, scratch)
    start = int(np.searchsorted(rows, first, side="right")) - 1
    counts[:, start : start + len(inner) + 1] += strip


@lru_cache(maxsize=1)
def _counters() -> ThreadPoolExecutor:
    """Return the process's counting threads. They are kept because starting a thread takes as long as counting a strip."""
    return ThreadPoolExecutor(thread_name_prefix="xchip-count")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_counters.cache_clear)  # threads do not survive a fork


def _windows(pixels: PixelGrid) -> Iterator[Window]:
    """Return strips of whole rows of the scene's grid."""
    from rasterio.windows import Window

    height, width = pixels.shape
    step = max(1, STRIP_PIXELS // width)
    return (Window(0, first, width, min(step, height - first)) for first in range(0, height, step))


def _reader(scene: Scene, band: Band) -> BandReader:
    """Return a reader that resamples a band to the scene's pixels."""
    from rasterio.enums import Resampling

    # Rescaled values are NaN where the file's mask is 0.
    dtype, nodata = ("float32", np.nan) if band.masked else (band.dtype, band.nodata)
    return BandReader(
        url=BandSource(scene.item_id, band, scene.grid, rescale=band.masked).to_url(),
        spec=None,
        resampling=Resampling.nearest,
        dtype=np.dtype(dtype),
        fill_value=fill_value(dtype, nodata),
    )


def _scene_strips(scene: Scene, band: Band) -> Iterator[tuple[int, np.ndarray]]:
    reader = _reader(scene, band)
    for window in _windows(scene.grid):
        yield window.row_off, reader.read(window)


def _count_nodata(scene: Scene, grid: ChipGrid) -> np.ndarray:
    plans = chip_plans(grid)
    bands = _declared(scene.quality)
    if not all(map(may_be_nodata, bands)):
        # A band that declares no nodata has data everywhere, so no pixel is nodata in all bands: nothing is read.
        counts = _no_counts(plans)
        counts[CLEAR] = np.diff(plans[0].cuts)[:, None] * np.diff(plans[1].cuts)
        return sums_of_parts(counts, plans)
    return _count_strips(_nodata_strips(replace(scene, quality=bands)), None, plans)


def may_be_nodata(band: Band) -> bool:
    """Return whether the band can have nodata pixels: by its nodata value, NaN, or a mask."""
    return band.masked or band.nodata is not None or np.dtype(band.dtype).kind in "fc"


def undeclared(band: Band) -> bool:
    """Return whether the band's nodata value is unknown until its file is opened."""
    return band.nodata is None and not band.masked and not band.opened


def _declared(bands: tuple[Band, ...]) -> tuple[Band, ...]:
    """Return the bands with the nodata values and masks that their files declare, if the item declares none."""
    if any(not undeclared(band) and not may_be_nodata(band) for band in bands):
        return bands  # one band has data everywhere, so the others do not matter
    absences = {href: read_absence(href) for href in dict.fromkeys(band.href for band in bands if undeclared(band))}
    indexes = {href: {band.index for band in bands if band.href == href} for href in absences}
    declared = []
    for band in bands:
        if undeclared(band):
            absence = absences[band.href]
            masked = absence.masked or (absence.alpha is not None and absence.alpha not in indexes[band.href])
            band = replace(band, nodata=absence.nodata[band.index - 1], masked=masked, opened=True)
        declared.append(band)
    return tuple(declared)


def _nodata_strips(scene: Scene) -> Iterator[tuple[int, np.ndarray]]:
    """Yield strips of class codes: NODATA where all bands have nodata, else CLEAR."""
    bands = scene.quality
    if in_one_file(scene):
        yield from _strips_of_file(bands)
        return
    # Coarse bands first: if one of them has data everywhere in a strip, the finer bands are not read.
    in_order = sorted(bands, key=lambda band: band.grid.shape[0] * band.grid.shape[1])
    readers = [(band, _reader(scene, band)) for band in in_order]
    for window in _windows(scene.grid):
        missing = np.ones((window.height, window.width), bool)
        for band, reader in readers:
            values = reader.read(window)
            # Rescaled values are NaN where there is no data; other values equal the band's nodata value there.
            missing &= np.isnan(values) if reader.source.rescale else _absent(values, band)
            if not missing.any():
                break
        yield window.row_off, np.where(missing, np.uint8(NODATA), np.uint8(CLEAR))


def in_one_file(scene: Scene) -> bool:
    """Return whether the bands that decide nodata are in one file on the scene's pixels: then one pass reads all of them."""
    return len({band.href for band in scene.quality}) == 1 and scene.quality[0].grid == scene.grid


def _strips_of_file(bands: tuple[Band, ...]) -> Iterator[tuple[int, np.ndarray]]:
    masked = any(band.masked for band in bands)
    for first, values in strips(bands[0], [*(band.index for band in bands), *([0] if masked else [])]):
        missing = np.ones(values.shape[1:], bool)
        for band, plane in zip(bands, values, strict=False):
            missing &= _absent(plane, band)
        if masked:
            missing |= values[-1] == 0
        yield first, np.where(missing, np.uint8(NODATA), np.uint8(CLEAR))


def _absent(values: np.ndarray, band: Band) -> np.ndarray:
    absent = np.isnan(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)
    if band.nodata is not None:
        absent |= values == band.nodata
    return absent
