"""Quality of an item's chips, straight from its files: each file is read once, strip by strip, at its own resolution."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from xchip.core.counting import Scratch, count_classes
from xchip.core.grid import Alignment, ChipGrid, PixelGrid, alignment
from xchip.core.quality import CLEAR, N_CLASSES, NODATA, NodataRule, QualityRule
from xchip.core.reduce import AxisPlan, chip_areas, chip_plans, complete_counts, counter_for, sums_of_parts
from xchip.core.scene import Band, Scene
from xchip.io.gdal import is_remote
from xchip.raster.header import read_absence
from xchip.raster.reader import BandReader, BandSource, fill_value, strips

STRIP_PIXELS = 4_000_000
"""Pixels of the scene's grid in a strip where bands have to be brought onto it."""


def count_scene(scene: Scene, grid: ChipGrid) -> np.ndarray:
    """Pixels of each `QualityClass` in each chip: int64 (7, chip_y, chip_x).

    Reads the quality band, or the data bands of a product without one, in strips: memory does not grow with the scene.
    """
    if not len(grid):
        return np.zeros((N_CLASSES, *grid.shape), np.int64)
    rule = scene.rule
    counts = _count_nodata(scene, grid) if isinstance(rule, NodataRule) else _count_band(scene, rule, grid)
    return complete_counts(counts, chip_areas(grid))


def _count_band(scene: Scene, rule: QualityRule, grid: ChipGrid) -> np.ndarray:
    (band,) = scene.quality
    aligned = own_alignment(band, grid.pixels)
    if aligned is None:
        # What the scene's pixels would hold is counted.
        return _count_strips(_scene_strips(scene, band), rule, chip_plans(grid))
    plans = chip_plans(grid, aligned, band.grid.shape)
    if is_remote(band.href) or not band.href.lower().endswith((".tif", ".tiff")):
        # One connection; and in other formats what comes later may need what comes before.
        return _count_strips(strips(band), rule, plans)
    return _count_in_turns(band, rule, plans)


def _count_in_turns(band: Band, rule: QualityRule, plans: tuple[AxisPlan, AxisPlan]) -> np.ndarray:
    """Counts by two threads, each of which reads every other strip and counts it while it is in the processor's cache."""

    def count(turn: int) -> np.ndarray:
        counts, scratch = _no_counts(plans), Scratch()
        for first, pixels in strips(band, turn=(turn, 2)):
            _add(counts, first, pixels, rule, plans, scratch)
        return counts

    other = _counters().submit(count, 1)
    try:
        own = count(0)
    finally:
        wait([other])  # also where this one failed: nobody reads on behind the caller's back
    return sums_of_parts(own + other.result(), plans)


def own_alignment(band: Band, pixels: PixelGrid) -> Alignment | None:
    """How a quality band's pixels lie under the scene's, where they are counted at the band's own resolution.

    None where the band is not on the scene's lattice, or finer than it: it is then brought onto the scene's pixels.
    """
    aligned = alignment(source=band.grid, target=pixels) if band.grid.crs == pixels.crs else None
    return None if aligned is None or min(aligned.y.factor, aligned.x.factor) < 1 else aligned


def _count_strips(
    parts: Iterator[tuple[int, np.ndarray]], rule: QualityRule | None, plans: tuple[AxisPlan, AxisPlan]
) -> np.ndarray:
    """Counts from (first row, pixels) strips that follow each other."""
    counts, scratch = _no_counts(plans), Scratch()
    # Another thread counts a strip while this one reads the next; both leave the interpreter free most of the time.
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
    """Add the pixels of a strip that begins at row ``first``."""
    rows, columns = plans[0].cuts, plans[1].cuts
    last = first + len(pixels)
    inner = rows[(rows > first) & (rows < last)] - first
    counter, pixels = counter_for(rule, pixels)
    own = count_classes(pixels, counter, np.concatenate(([0], inner, [last - first])), columns, scratch)
    at = int(np.searchsorted(rows, first, side="right")) - 1
    counts[:, at : at + len(inner) + 1] += own


@lru_cache(maxsize=1)
def _counters() -> ThreadPoolExecutor:
    """The process's threads that count. They stay, for to start one takes as long as to count a strip."""
    return ThreadPoolExecutor(thread_name_prefix="xchip-count")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_counters.cache_clear)  # a child has none of its parent's threads


def _windows(pixels: PixelGrid) -> Iterator[Any]:
    """Strips of whole rows of the scene's grid."""
    from rasterio.windows import Window

    height, width = pixels.shape
    step = max(1, STRIP_PIXELS // width)
    return (Window(0, first, width, min(step, height - first)) for first in range(0, height, step))


def _reader(scene: Scene, band: Band) -> BandReader:
    """Reads a band in the pixels of the scene's grid."""
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
        # A band that declares no nodata has data everywhere, so no pixel is nodata in all bands: nothing need be read.
        counts = _no_counts(plans)
        counts[CLEAR] = np.diff(plans[0].cuts)[:, None] * np.diff(plans[1].cuts)
        return sums_of_parts(counts, plans)
    return _count_strips(_nodata_strips(replace(scene, quality=bands)), None, plans)


def may_be_nodata(band: Band) -> bool:
    """Whether the band, or a mask beside it, can say that a pixel has no data."""
    return band.masked or band.nodata is not None or np.dtype(band.dtype).kind in "fc"


def undeclared(band: Band) -> bool:
    """Whether nobody says what is nodata in the band, as long as its file is not opened."""
    return band.nodata is None and not band.masked and not band.opened


def _declared(bands: tuple[Band, ...]) -> tuple[Band, ...]:
    """The bands with what their files declare of nodata, where nothing else does."""
    if any(not undeclared(band) and not may_be_nodata(band) for band in bands):
        return bands  # that one has data everywhere, whatever the others say
    absences = {href: read_absence(href) for href in dict.fromkeys(band.href for band in bands if undeclared(band))}
    own = {href: {band.index for band in bands if band.href == href} for href in absences}
    declared = []
    for band in bands:
        if undeclared(band):
            said = absences[band.href]
            masked = said.masked or (said.alpha is not None and said.alpha not in own[band.href])
            band = replace(band, nodata=said.nodata[band.index - 1], masked=masked, opened=True)
        declared.append(band)
    return tuple(declared)


def _nodata_strips(scene: Scene) -> Iterator[tuple[int, np.ndarray]]:
    """Strips of class codes: NODATA where all bands are, else CLEAR."""
    bands = scene.quality
    if in_one_file(scene):
        yield from _strips_of_file(bands)
        return
    # Coarse bands first: where one of them has data all over a strip, the fine ones need not be read.
    in_order = sorted(bands, key=lambda band: band.grid.shape[0] * band.grid.shape[1])
    readers = [(band, _reader(scene, band)) for band in in_order]
    for window in _windows(scene.grid):
        missing = np.ones((window.height, window.width), bool)
        for band, reader in readers:
            values = reader.read(window)
            # Rescaled values are NaN where there are no data; of the others any may be the number that means that.
            missing &= np.isnan(values) if reader.source.rescale else _absent(values, band)
            if not missing.any():
                break
        yield window.row_off, np.where(missing, np.uint8(NODATA), np.uint8(CLEAR))


def in_one_file(scene: Scene) -> bool:
    """Whether the bands that tell nodata are in one file on the scene's pixels: it is then read once, all bands together."""
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
