"""Estimate what the index of one item reads, from its metadata: files, bytes, requests and memory. Mirrors `count_scene`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from xchip.core.counting import MAX_ROWS
from xchip.core.grid import ChipGrid
from xchip.core.quality import N_CLASSES, NodataRule
from xchip.core.scene import Band, Scene
from xchip.indexing.count_scene import STRIP_PIXELS, in_one_file, may_be_nodata, own_alignment, undeclared
from xchip.indexing.explain.explanation import CHIP_BYTES, Figure, counting_memory, joined
from xchip.io.gdal import gdal_path, is_remote
from xchip.raster.reader import KEPT_BYTES, PART_BYTES, strip_rows
from xchip.stac.fields import mapping

USUAL_BLOCK = 512
"""Rows of a block where neither header nor profile tells: GDAL's default for cloud-optimised files."""

STORED_RATIOS: Mapping[str | None, tuple[float, str]] = {
    "sentinel-2-l2a": (0.045, "0.045 of the pixels, the mean of 13 published file:size of SCL (0.02 to 0.10)"),
    "landsat-c2-l2": (0.035, "0.035 of the pixels, as QA_PIXEL of two real scenes deflates to (0.026 and 0.045)"),
    "landsat-c2-l1": (0.035, "0.035 of the pixels, as QA_PIXEL of two real scenes deflates to (0.026 and 0.045)"),
    "sentinel-1-rtc": (0.64, "0.64 of the pixels, by the file:size of one published item"),
}
"""Sensor -> (bytes of a file / bytes of its pixels, where this was measured)."""

FULL_RESOLUTION = 2 / 3
"""Part of a file that is not overviews: 2.0 of 3.0 MB in a Sentinel-2 SCL file as published."""

# How GDAL reads a remote file from its start: seen at a server that counts.
OPENING_BYTES = 32_768
RANGE_BYTES = 16_384
LARGEST_RANGE = 2 << 20


@dataclass(frozen=True, slots=True)
class FileRead:
    """One reading of a file from top to bottom."""

    band: Band
    """A band of the file."""
    planes: int
    """Bands that are read together, the file's mask too."""
    itemsize: int
    """Bytes of a value."""
    own: bool
    """Whether it is read in strips of its own pixels, with few blocks kept; else in windows of the scene."""

    @property
    def rows(self) -> int:
        """Rows of a strip."""
        height, width = self.band.grid.shape
        if not self.own:
            return min(height, max(1, STRIP_PIXELS // width))
        return strip_rows(height, self.planes * width * self.itemsize, self.band.block[0] if self.band.block else USUAL_BLOCK)

    @property
    def strips(self) -> int:
        """How many strips."""
        return -(-self.band.grid.shape[0] // self.rows)

    @property
    def strips_kept(self) -> int:
        """Strips whose blocks GDAL keeps before the file is opened anew."""
        if not self.own:
            return self.strips
        kept = self.rows * self.band.grid.shape[1] * self.itemsize * max(self.planes, self.band.count)
        return min(self.strips, KEPT_BYTES // kept + 1)

    @property
    def pixel_bytes(self) -> int:
        """All pixels, decoded."""
        height, width = self.band.grid.shape
        return height * width * self.planes * self.itemsize


def file_reads(scene: Scene, grid: ChipGrid) -> tuple[FileRead, ...]:
    """What `count_scene` reads, in order."""
    if not len(grid):
        return ()
    if not isinstance(scene.rule, NodataRule):
        (band,) = scene.quality
        return (FileRead(band, 1, np.dtype(band.dtype).itemsize, own=own_alignment(band, grid.pixels) is not None),)
    bands = scene.quality
    if not all(may_be_nodata(band) for band in bands):
        return ()
    if in_one_file(scene):
        dtype = np.result_type(*(band.dtype for band in bands))
        return (FileRead(bands[0], len(bands) + any(band.masked for band in bands), dtype.itemsize, own=True),)
    return tuple(FileRead(band, 1, np.dtype(band.dtype).itemsize, own=False) for band in bands)


def pixel_bytes(scene: Scene, grid: ChipGrid, reads: tuple[FileRead, ...]) -> Figure:
    """Bytes of the pixels that are read, decoded."""
    total = sum(read.pixel_bytes for read in reads)
    if not len(grid):
        return Figure(0, "exact", "no chip fits into the scene: nothing is read")
    if not reads:
        if any(map(undeclared, scene.quality)) and all(undeclared(band) or may_be_nodata(band) for band in scene.quality):
            return Figure(0, "estimate", "no quality band, and the item declares no nodata: read only if the files declare it")
        return Figure(0, "exact", "no quality band, and a band without nodata: nothing is read")
    if len(reads) > 1:
        return Figure(total, "at most", "no quality band: a data band is read only where those before it have nodata")
    if not reads[0].own:
        return Figure(total, "estimate", "the quality band is not on the scene's pixels, and is brought onto them")
    kind = "data bands" if isinstance(scene.rule, NodataRule) else "quality band"
    return Figure(total, "exact", f"pixels of the {kind} x bytes of its data type")


def stored_bytes(scene: Scene, item: Mapping[str, Any], reads: tuple[FileRead, ...]) -> Figure:
    """Bytes of the files that are read."""
    files: dict[str, list[FileRead]] = {}
    for read in reads:
        files.setdefault(read.band.href, []).append(read)
    if not files:
        return Figure(0, "exact", "nothing is read")
    figures = [_stored(scene, item, href, sum(read.pixel_bytes for read in same)) for href, same in files.items()]
    reasons = dict.fromkeys(figure.why for figure in figures)
    return Figure(sum(f.value for f in figures), joined(f.basis for f in figures), "; ".join(reasons))


def _stored(scene: Scene, item: Mapping[str, Any], href: str, pixels: int) -> Figure:
    asset = next(band.asset for band in scene.quality if band.href == href)
    on_disk = _size_on_disk(href)
    if on_disk is not None:
        return Figure(on_disk, "at most", "sizes of the files on disk, whose overviews are not read")
    published = mapping(mapping(item.get("assets")).get(asset)).get("file:size")
    if isinstance(published, int) and not isinstance(published, bool) and published > 0:
        return Figure(published, "at most", "file:size of the assets, whose overviews are not read")
    if scene.sensor in STORED_RATIOS:
        ratio, source = STORED_RATIOS[scene.sensor]
        return Figure(round(pixels * ratio), "estimate", source)
    return Figure(pixels, "at most", f"as if stored uncompressed: no ratio measured for {scene.sensor or 'unknown products'}")


def _size_on_disk(href: str) -> int | None:
    path = gdal_path(href)
    if path.startswith("/vsi"):
        return None
    try:
        return os.stat(path).st_size
    except OSError:
        return None  # the index will say that it is missing; or a name that only GDAL knows, such as "NETCDF:..."


def requests(reads: tuple[FileRead, ...], stored: Figure) -> Figure:
    """Requests for the pixels of one item."""
    if not reads:
        return Figure(0, "exact", "nothing is read")
    if not any(is_remote(read.band.href) for read in reads):
        return Figure(0, "exact", "files on this machine")
    total = sum(read.pixel_bytes for read in reads)
    count = 0
    for read in reads:
        if is_remote(read.band.href):
            own_part = int(stored.value * FULL_RESOLUTION * read.pixel_bytes / total)
            count += range_requests(own_part, read.strips, read.strips_kept)
    return Figure(count, "estimate", "size and header of each file, then GDAL's ranges, which double up to 2 MB")


@lru_cache(maxsize=1024)
def range_requests(stored: int, strips: int, strips_kept: int) -> int:
    """Requests that GDAL makes to read ``stored`` bytes of a remote file in ``strips``.

    One for the file's size and one for its header; then ranges, each twice as long as the one before while reading goes on
    without a gap. A file that is opened anew, after ``strips_kept`` strips, begins again with short ranges.

    Examples
    --------
    >>> range_requests(100_000, 1, 1), range_requests(640_000, 11, 5)
    (3, 8)
    """
    count, have, length = 2, OPENING_BYTES, 0
    for strip in range(strips):
        if strip % strips_kept == 0:
            length = RANGE_BYTES
        needed = stored * (strip + 1) // strips
        while have < needed:
            step = max(length, min(LARGEST_RANGE, -(-(needed - have) // RANGE_BYTES) * RANGE_BYTES))
            have, length, count = have + step, min(LARGEST_RANGE, 2 * step), count + 1
    return count


def scene_memory(scene: Scene, grid: ChipGrid, reads: tuple[FileRead, ...]) -> int:
    """Bytes that a thread holds at most while it makes the index of one item, by a model."""
    table = len(grid) * CHIP_BYTES + 3 * N_CLASSES * 8 * (grid.shape[0] + 1) * (grid.shape[1] + 1)
    return max((_read_memory(scene, read) for read in reads), default=0) + table


def _read_memory(scene: Scene, read: FileRead) -> int:
    width = read.band.grid.shape[1]
    if not read.own:
        pixels = max(1, STRIP_PIXELS // scene.grid.shape[1]) * scene.grid.shape[1]
        parts = 0 if own_alignment(read.band, scene.grid) is not None else PART_BYTES
        # The window as read and as brought onto the scene, and masks of it.
        return pixels * (2 * read.itemsize + 3) + counting_memory(MAX_ROWS, scene.grid.shape[1], read.itemsize) + parts
    values = read.rows * width * read.itemsize
    kept = read.strips_kept * values * max(read.planes, read.band.count)
    counting = counting_memory(read.rows, width, read.itemsize)
    # Where bands say themselves what is nodata: a mask of all, one of the band at hand, and the codes.
    masks = 4 * read.rows * width if isinstance(scene.rule, NodataRule) else 0
    return strip_buffers(read) + kept + counting + masks


def strip_buffers(read: FileRead) -> int:
    """Bytes of the two strips that a reading in strips holds in turn."""
    return 2 * read.rows * read.band.grid.shape[1] * read.planes * read.itemsize
