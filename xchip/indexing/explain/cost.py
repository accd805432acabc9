"""Estimate the cost of one item's index from its metadata: bytes, requests and memory. The reads are those of `count_scene`."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xchip.core.counting import MAX_ROWS
from xchip.core.grid import ChipGrid
from xchip.core.quality import N_CLASSES, NodataRule
from xchip.core.scene import Band, Scene
from xchip.core.types import JSON
from xchip.indexing.count_scene import STRIP_PIXELS, in_one_file, may_be_nodata, native_alignment, undeclared
from xchip.indexing.explain.explanation import CHIP_BYTES, Figure, counting_memory, joined
from xchip.io.gdal import gdal_path, is_remote
from xchip.raster.reader import KEPT_BYTES, PART_BYTES, strip_rows
from xchip.sensors.registry import find, names
from xchip.stac.fields import mapping

USUAL_BLOCK = 512
"""Rows of a block if neither header nor profile gives them: GDAL's default for cloud-optimised files."""

FULL_RESOLUTION = 2 / 3
"""Share of a file without its overviews: 2.0 of 3.0 MB in a published Sentinel-2 SCL file."""

# How GDAL reads a remote file from its start: measured at a server that counts.
OPENING_BYTES = 32_768
RANGE_BYTES = 16_384
LARGEST_RANGE = 2 << 20


@dataclass(frozen=True, slots=True)
class FileRead:
    """One pass over a file from top to bottom."""

    band: Band
    """A band of the file."""
    planes: int
    """Bands that are read together, including the file's mask."""
    itemsize: int
    """Bytes per value."""
    native: bool
    """True: strips of the file's own pixels, and GDAL keeps few blocks; False: windows of the scene's pixels."""

    @property
    def rows(self) -> int:
        """Rows of a strip."""
        height, width = self.band.grid.shape
        if not self.native:
            return min(height, max(1, STRIP_PIXELS // width))
        return strip_rows(height, self.planes * width * self.itemsize, self.band.block[0] if self.band.block else USUAL_BLOCK)

    @property
    def strips(self) -> int:
        """Number of strips."""
        return -(-self.band.grid.shape[0] // self.rows)

    @property
    def strips_kept(self) -> int:
        """Strips whose blocks GDAL keeps before the file is opened again."""
        if not self.native:
            return self.strips
        kept = self.rows * self.band.grid.shape[1] * self.itemsize * max(self.planes, self.band.count)
        return min(self.strips, KEPT_BYTES // kept + 1)

    @property
    def pixel_bytes(self) -> int:
        """All pixels, decoded."""
        height, width = self.band.grid.shape
        return height * width * self.planes * self.itemsize


def file_reads(scene: Scene, grid: ChipGrid) -> tuple[FileRead, ...]:
    """Return the reads of `count_scene`, in order."""
    if not len(grid):
        return ()
    if not isinstance(scene.rule, NodataRule):
        (band,) = scene.quality
        return (FileRead(band, 1, np.dtype(band.dtype).itemsize, native=native_alignment(band, grid.pixels) is not None),)
    bands = scene.quality
    if not all(may_be_nodata(band) for band in bands):
        return ()
    if in_one_file(scene):
        dtype = np.result_type(*(band.dtype for band in bands))
        return (FileRead(bands[0], len(bands) + any(band.masked for band in bands), dtype.itemsize, native=True),)
    return tuple(FileRead(band, 1, np.dtype(band.dtype).itemsize, native=False) for band in bands)


def pixel_bytes(scene: Scene, grid: ChipGrid, reads: tuple[FileRead, ...]) -> Figure:
    """Count the bytes of the pixels that are read, decoded."""
    total = sum(read.pixel_bytes for read in reads)
    if not len(grid):
        return Figure(0, "exact", "no chip fits into the scene: nothing is read")
    if not reads:
        if any(map(undeclared, scene.quality)) and all(undeclared(band) or may_be_nodata(band) for band in scene.quality):
            return Figure(0, "estimate", "no quality band, and the item declares no nodata: read only if the files declare it")
        return Figure(0, "exact", "no quality band, and a band without nodata: nothing is read")
    if len(reads) > 1:
        return Figure(total, "at most", "no quality band: a data band is read only where all bands before it have nodata")
    if not reads[0].native:
        return Figure(total, "estimate", "the quality band is resampled to the scene's pixels")
    kind = "data bands" if isinstance(scene.rule, NodataRule) else "quality band"
    return Figure(total, "exact", f"pixels of the {kind} x bytes of its data type")


def stored_bytes(scene: Scene, item: JSON, reads: tuple[FileRead, ...]) -> Figure:
    """Count the bytes of the files that are read."""
    if not reads:
        return Figure(0, "exact", "nothing is read")
    files = Counter[str]()
    for read in reads:
        files[read.band.href] += read.pixel_bytes
    figures = [_stored(scene, item, href, pixels) for href, pixels in files.items()]
    reasons = dict.fromkeys(figure.why for figure in figures)
    return Figure(sum(f.value for f in figures), joined(f.basis for f in figures), "; ".join(reasons))


def _stored(scene: Scene, item: JSON, href: str, pixels: int) -> Figure:
    asset = next(band.asset for band in scene.quality if band.href == href)
    path = gdal_path(href)
    # A missing file is reported by the index; and a name such as "NETCDF:..." is not a path.
    if os.path.isfile(path):
        return Figure(os.stat(path).st_size, "at most", "sizes of the files on disk, whose overviews are not read")
    published = mapping(mapping(item.get("assets")).get(asset)).get("file:size")
    if isinstance(published, int) and not isinstance(published, bool) and published > 0:
        return Figure(published, "at most", "file:size of the assets, whose overviews are not read")
    measured = find(scene.sensor).stored_ratio if scene.sensor in names() else None
    if measured is not None:
        ratio, source = measured
        return Figure(round(pixels * ratio), "estimate", source)
    return Figure(pixels, "at most", f"as if stored uncompressed: no ratio measured for {scene.sensor or 'unknown products'}")


def requests(reads: tuple[FileRead, ...], stored: Figure) -> Figure:
    """Estimate the requests for the pixels of one item."""
    remote = [read for read in reads if is_remote(read.band.href)]
    if not remote:
        return Figure(0, "exact", "files on this machine" if reads else "nothing is read")
    total = sum(read.pixel_bytes for read in reads)
    count = 0
    for read in remote:
        share = int(stored.value * FULL_RESOLUTION * read.pixel_bytes / total)
        count += range_requests(share, read.strips, read.strips_kept)
    return Figure(count, "estimate", "size and header of each file, then GDAL's ranges, which double up to 2 MB")


@lru_cache(maxsize=1024)
def range_requests(stored: int, strips: int, strips_kept: int) -> int:
    """Count the requests that GDAL makes to read ``stored`` bytes of a remote file in ``strips``.

    One is for the file's size and one for its header; then come ranges, each twice as long as the one before while there is no
    gap. After ``strips_kept`` strips the file is opened again, and ranges start short.

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
    """Estimate the bytes that a thread holds at most while it makes the index of one item."""
    table = len(grid) * CHIP_BYTES + 3 * N_CLASSES * 8 * (grid.shape[0] + 1) * (grid.shape[1] + 1)
    return max((_read_memory(scene, read) for read in reads), default=0) + table


def _read_memory(scene: Scene, read: FileRead) -> int:
    width = read.band.grid.shape[1]
    if not read.native:
        pixels = max(1, STRIP_PIXELS // scene.grid.shape[1]) * scene.grid.shape[1]
        parts = 0 if native_alignment(read.band, scene.grid) is not None else PART_BYTES
        # The window as read and as resampled, and masks of it.
        return pixels * (2 * read.itemsize + 3) + counting_memory(MAX_ROWS, scene.grid.shape[1], read.itemsize) + parts
    values = read.rows * width * read.itemsize
    kept = read.strips_kept * values * max(read.planes, read.band.count)
    counting = counting_memory(read.rows, width, read.itemsize)
    # Data bands that declare nodata need a mask of all bands, one of the current band, and the codes.
    masks = 4 * read.rows * width if isinstance(scene.rule, NodataRule) else 0
    return strip_buffers(read) + kept + counting + masks


def strip_buffers(read: FileRead) -> int:
    """Bytes of the two strips that a pass over a file holds in turn."""
    return 2 * read.rows * read.band.grid.shape[1] * read.planes * read.itemsize
