"""Read pixels: a Reader for stackstac, and whole files in strips from top to bottom."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.grid import Alignment, AxisMap, PixelGrid, alignment
from xchip.core.scene import Band, BoaOffset, ItemError
from xchip.io.gdal import POOL, open_dataset, reading, redacted
from xchip.raster.deflate_tiles import inflate, read_tiles
from xchip.raster.regrid import Box, covered, repeat, source_box, warp

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rasterio.enums import Resampling
    from rasterio.io import DatasetReader
    from rasterio.windows import Window
    from stackstac.raster_spec import RasterSpec
    from stackstac.rio_env import LayeredEnv

# Strips of about this size stay in a core's cache while they are counted.
STRIP_BYTES = 2 << 20
# GDAL caches decoded blocks up to 5 % of the memory, also of a file that is read once. Closing the file frees them.
KEPT_BYTES = 12 << 20
# Bands are thinned and warped in parts, whose source pixels take about this many bytes.
PART_BYTES = 64 << 20


def fill_value(dtype: str | np.dtype, nodata: float | None) -> np.generic:
    """Return the value of pixels without data: ``nodata`` as a scalar of ``dtype``, or 0 if it is None or out of range.

    Examples
    --------
    >>> fill_value("uint16", 65535.0), fill_value("uint8", -9999.0)
    (np.uint16(65535), np.uint8(0))
    """
    dtype = np.dtype(dtype)
    return dtype.type(nodata) if nodata is not None and holds(dtype, nodata) else dtype.type(0)


def holds(dtype: str | np.dtype, value: float) -> bool:
    """Whether a pixel of ``dtype`` can have ``value``."""
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        with np.errstate(over="ignore"):
            return bool(np.isfinite(dtype.type(value)) or not np.isfinite(value))
    if dtype.kind == "b":
        return value in (0, 1)
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


@dataclass(frozen=True)
class BandSource:
    """One band on a target grid, as a `BandReader` gets it: as text in place of a URL."""

    item_id: str
    """Id of the item, for messages."""
    band: Band
    """The band to read."""
    target: PixelGrid
    """The grid of the stack."""
    siblings: tuple[int, ...] = ()
    """Numbers of the file's bands that are read at once, this band included, in the order of their readers."""
    rescale: bool = False
    """Whether to apply scale and offset: float32, with NaN where the file has nodata or its mask is 0."""

    def to_url(self) -> str:
        """Return the source as text, for stackstac's asset table."""
        return json.dumps(_fields(self), default=_fields)  # dataclasses.asdict takes ten times as long

    @classmethod
    def from_url(cls, url: str) -> BandSource:
        """Return the source that `to_url` wrote."""
        values = json.loads(url)
        band = values["band"]
        band["grid"] = PixelGrid(**band["grid"])
        band["block"] = band["block"] and tuple(band["block"])
        band["boa_offset"] = band["boa_offset"] and BoaOffset(**band["boa_offset"])
        target, siblings = PixelGrid(**values["target"]), tuple(values["siblings"])
        return cls(values["item_id"], Band(**band), target, siblings, values["rescale"])

    def alignment(self, resampling: str) -> Alignment | None:
        """Return how the band's pixels line up with the target's; None if the band must be warped."""
        if self.band.grid.crs != self.target.crs:
            return None
        relation = alignment(source=self.band.grid, target=self.target)
        if relation is None or (resampling != "nearest" and (relation.y.factor, relation.x.factor) != (1, 1)):
            return None
        return relation


def _fields(value: DataclassInstance) -> dict[str, object]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


class BandReader:
    """A stackstac Reader of one band in its native dtype, without masks, and without a warp where grids line up.

    ``url`` is the text of a `BandSource`. Each read takes a dataset from the process's pool, so a reader is small, pickles, and
    serves any number of threads at once. Parameters without a use here belong to stackstac's protocol.
    """

    def __init__(
        self,
        *,
        url: str,
        spec: RasterSpec | None = None,
        resampling: Resampling,
        dtype: np.dtype,
        fill_value: float | np.generic,
        scale_offset: tuple[float, float] = (1, 0),
        gdal_env: LayeredEnv | None = None,
        errors_as_nodata: tuple[Exception, ...] = (),
    ) -> None:
        self.url = url
        self.resampling = resampling
        self.dtype = np.dtype(dtype)
        self.fill_value = fill_value

    def __reduce__(self) -> tuple[partial[BandReader], tuple[()]]:
        arguments = {"url": self.url, "resampling": self.resampling, "dtype": self.dtype, "fill_value": self.fill_value}
        return partial(type(self), **arguments), ()

    def close(self) -> None:
        """Do nothing, because datasets belong to the pool."""

    @cached_property
    def source(self) -> BandSource:
        """The band and its target grid."""
        return BandSource.from_url(self.url)

    @cached_property
    def _alignment(self) -> Alignment | None:
        return self.source.alignment(self.resampling.name)

    def read(self, window: Window) -> np.ndarray:
        """Return the pixels of a window of the target grid, (window.height, window.width), with fill outside of the file.

        Raises
        ------
        ItemError
            If the file is missing, truncated, or differs from its item; the message names item, asset and file.
        """
        top, left = round(window.row_off), round(window.col_off)
        box = Box(top, top + round(window.height), left, left + round(window.width))
        if self.source.band.index in self.source.siblings[:1]:
            _SIBLINGS.bands.clear()  # leftovers that no reader took
        try:
            if self._alignment is None:
                return self._warped(box)
            return self._exact(box, self._alignment)
        except OSError as error:
            raise ItemError(self.source.item_id, f"asset {self.source.band.asset!r}: {error}") from error

    def _exact(self, box: Box, relation: Alignment) -> np.ndarray:
        height, width = self.source.band.grid.shape
        y, x = relation.y, relation.x
        top, bottom = covered(y, box.top, box.bottom, height)
        left, right = covered(x, box.left, box.right, width)
        inner = Box(top, bottom, left, right)
        if not inner.size:
            return np.full(box.shape, self.fill_value, self.dtype)
        values = self._thinned(inner, y, x) if min(y.factor, x.factor) < 0 else self._repeated(inner, y, x)
        if inner == box:
            return values
        out = np.full(box.shape, self.fill_value, self.dtype)
        out[top - box.top : bottom - box.top, left - box.left : right - box.left] = values
        return out

    def _repeated(self, box: Box, y: AxisMap, x: AxisMap) -> np.ndarray:
        first_row, last_row = y.source_index(np.array([box.top, box.bottom - 1])).tolist()
        first_col, last_col = x.source_index(np.array([box.left, box.right - 1])).tolist()
        values = self._pixels(Box(first_row, last_row + 1, first_col, last_col + 1))
        wide = repeat(values, y.factor, x.factor)
        row, col = y.offset + first_row * y.factor, x.offset + first_col * x.factor
        return wide[box.top - row : box.bottom - row, box.left - col : box.right - col]

    def _thinned(self, box: Box, y: AxisMap, x: AxisMap) -> np.ndarray:
        rows, cols = y.source_index(np.arange(box.top, box.bottom)), x.source_index(np.arange(box.left, box.right))
        out = np.empty(box.shape, self.dtype)
        row_bytes = int(cols[-1] - cols[0] + 1) * max(1, -y.factor) * self.dtype.itemsize
        step = max(1, PART_BYTES // row_bytes)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            values = self._pixels(Box(int(part[0]), int(part[-1]) + 1, int(cols[0]), int(cols[-1]) + 1))
            out[start : start + step] = values[np.ix_(part - part[0], cols - cols[0])]
        return out

    def _warped(self, box: Box) -> np.ndarray:
        band = self.source.band
        height, width = box.shape
        part = self.source.target.window(row_off=box.top, col_off=box.left, height=height, width=width)
        needed = source_box(band.grid, part, self.resampling.name)
        if not needed.size:
            return np.full(box.shape, self.fill_value, self.dtype)
        if needed.size * self.dtype.itemsize > PART_BYTES and height > 1:
            middle = box.top + height // 2
            return np.concatenate([self._warped(box._replace(bottom=middle)), self._warped(box._replace(top=middle))])
        values = self._pixels(needed)
        grid = band.grid.window(row_off=needed.top, col_off=needed.left, height=values.shape[0], width=values.shape[1])
        nodata = band.nodata if band.nodata is not None and holds(values.dtype, band.nodata) else None
        if self.source.rescale:
            nodata = np.nan
        return warp(values, grid, part, resampling=self.resampling, nodata=nodata, fill=self.fill_value)

    def _pixels(self, box: Box) -> np.ndarray:
        """Return pixels of the band's own grid, in the dtype of the stack."""
        band = self.source.band
        values, valid = self._read_file(box)
        values = apply_offset(values, band)
        if not self.source.rescale:
            return values.astype(self.dtype, copy=False)
        # float32 has too few digits for the product where values have more than 16 bits.
        physical = (values * np.float64(band.scale) + band.offset).astype(self.dtype)
        if band.nodata is not None and holds(values.dtype, band.nodata):
            physical[values == fill_value(values.dtype, band.nodata)] = np.nan
        if valid is not None:
            physical[valid == 0] = np.nan
        return physical

    def _read_file(self, box: Box) -> tuple[np.ndarray, np.ndarray | None]:
        """Return (values, mask) as stored; keep the file's other bands for the next readers in this thread."""
        band, siblings = self.source.band, self.source.siblings
        if band.index == 0:
            with POOL.borrowed(band.href) as dataset:
                check(dataset, band)
                return dataset.dataset_mask(window=box.window()), None
        first = bool(siblings) and band.index == siblings[0]
        values = None if first else _SIBLINGS.bands.pop((band.href, band.index, box), None)
        if values is None:
            indexes = siblings if first else (band.index,)
            with POOL.borrowed(band.href) as dataset:
                check(dataset, band)
                values, *sibling_values = read_tiles(dataset, indexes, box)
            keys = ((band.href, index, box) for index in indexes[1:])
            _SIBLINGS.keep(band.href, dict(zip(keys, sibling_values, strict=True)))
        return values, self._mask(box)

    def _mask(self, box: Box) -> np.ndarray | None:
        if not (self.source.rescale and self.source.band.masked):
            return None
        with POOL.borrowed(self.source.band.href) as dataset:
            return dataset.read_masks(self.source.band.index, window=box.window())


class _Siblings(threading.local):
    """Pixels of a multi-band file that were read together with its first band: one window per thread.

    stackstac calls the readers of a chunk one after another in one thread. Each reader removes its band.
    """

    def __init__(self) -> None:
        self.bands: dict[tuple[str, int, Box], np.ndarray] = {}

    def keep(self, href: str, bands: dict[tuple[str, int, Box], np.ndarray]) -> None:
        """Keep ``bands``, and drop bands of other files, which remain if a reader fails."""
        self.bands = {key: values for key, values in self.bands.items() if key[0] == href} | bands


_SIBLINGS = _Siblings()


def check(dataset: DatasetReader, band: Band) -> None:
    """Check that a file agrees with its item.

    Raises
    ------
    OSError
        If it does not; the message names the file, its value and the item's value.
    """
    name = redacted(band.href)
    if band.index > dataset.count:
        raise OSError(f"{name} has {dataset.count} bands; the item says that this is band {band.index}")
    if dataset.shape != band.grid.shape:
        raise OSError(f"{name} has {dataset.shape} pixels (height, width); the item says {band.grid.shape}")
    if band.index and not np.can_cast(dataset.dtypes[band.index - 1], band.dtype, "safe"):
        raise OSError(f"{name} holds {dataset.dtypes[band.index - 1]}; the item or profile says {band.dtype}")
    transform = tuple(dataset.transform)[:6]
    if transform == (1, 0, 0, 0, 1, 0):
        points, _ = dataset.gcps
        if points:
            raise OSError(f"{name} has no pixel grid, only {len(points)} ground control points; warp it first (gdalwarp)")
        return  # a file without georeferencing: use the item's
    height, width = band.grid.shape
    a, b, c, d, e, f = (file - item for file, item in zip(transform, band.grid.transform, strict=True))
    res_y, res_x = band.grid.res
    # Two affine grids differ most at the four corners; half a pixel is a shift, less is rounding in the item.
    distance = max(max(abs(a * x + b * y + c) / res_x, abs(d * x + e * y + f) / res_y) for x in (0, width) for y in (0, height))
    if distance >= 0.5:
        raise OSError(f"{name} has the transform {transform}; the item says {band.grid.transform}, {distance:.1f} pixels away")


def strips(
    source: Band | str, indexes: int | Sequence[int] | None = None, *, turn: tuple[int, int] = (0, 1)
) -> Iterator[tuple[int, np.ndarray]]:
    """Read a file once from top to bottom, in its own pixels and stored values, in bounded memory.

    Parameters
    ----------
    source
        A band, whose file is checked against its item, or an href.
    indexes
        Number of the band, from 1, or 0 for the file's mask (uint8, 0 where there are no data): arrays are (rows, width).
        Several numbers: (bands, rows, width). None: the number of the `Band`, or 1.
    turn
        (k, n): every n-th strip from strip k, so that n readers share a file. Each reader opens the file itself.

    Yields
    ------
    (row_off, values)
        Whole rows of blocks, in order, about 2 MB or one row of blocks. The strip after the next overwrites the array; with n > 1
        readers, the next strip does.

    Raises
    ------
    OSError
        If the file is missing or truncated; the message names it.
    """
    band = source if isinstance(source, Band) else None
    href = source if isinstance(source, str) else source.href
    if indexes is None:
        indexes = 1 if band is None else band.index
    single = isinstance(indexes, int)
    numbers = [indexes] if isinstance(indexes, int) else list(indexes)
    first, step = turn
    dataset = open_dataset(href)
    try:
        if band is not None:
            check(dataset, band)
        height, width = dataset.shape
        dtype = np.result_type(*(dataset.dtypes[index - 1] if index else "uint8" for index in numbers))
        block_height = dataset.block_shapes[0][0]
        row_bytes = width * len(numbers) * dtype.itemsize
        rows = strip_rows(height, row_bytes, block_height)
        # A single reader has two buffers, so that a strip can be used while the next is read.
        buffers = np.empty((2 if step == 1 else 1, len(numbers) * rows * width), dtype)
        cached = 0
        for strip, row in enumerate(range(first * rows, height, step * rows)):
            count = min(rows, height - row)
            # Use the front of the buffer, so that a lower last strip is contiguous too.
            values = buffers[strip % len(buffers), : len(numbers) * count * width].reshape(len(numbers), count, width)
            if cached > KEPT_BYTES // step:
                dataset.close()
                dataset, cached = open_dataset(href), 0
            box = Box(row, row + count, 0, width)
            if 0 in numbers or not inflate(dataset, numbers, box, values):
                with reading(href, dataset):
                    _read_into(dataset, numbers, box.window(), values)
                cached += dataset.count * values[0].nbytes  # GDAL caches all bands of a block
            yield row, values[0] if single else values
    finally:
        dataset.close()


def strip_rows(height: int, row_bytes: int, block_height: int) -> int:
    """Return the height of a strip: whole rows of blocks, about `STRIP_BYTES`."""
    return min(height, block_height * max(1, STRIP_BYTES // (row_bytes * block_height)))


def _read_into(dataset: DatasetReader, indexes: list[int], window: Window, out: np.ndarray) -> None:
    if 0 not in indexes:
        dataset.read(indexes, window=window, out=out)
        return
    mask = dataset.dataset_mask(window=window)
    for index, plane in zip(indexes, out, strict=True):
        plane[:] = dataset.read(index, window=window) if index else mask


def apply_offset(values: np.ndarray, band: Band) -> np.ndarray:
    """Add ``band.dn_offset`` to stored ``values``; return the same shape and dtype, or ``values`` itself if the offset is 0.

    Pixels without data (``band.nodata``) stay as they are, and no other pixel becomes nodata: results below the dtype's range are
    set to its lower end, and results that equal nodata to the next number. With nodata 0 and an offset of -1000, for example,
    digital numbers 1 to 1001 become 1: pixels darker than black remain data. (Planetary Computer's recipe makes them 0, nodata.)

    Examples
    --------
    >>> from xchip.core.grid import PixelGrid
    >>> grid = PixelGrid("EPSG:32632", (10, 0, 0, 0, -10, 0), (1, 4))
    >>> band = Band("red", "B04", "B04.tif", grid, "uint16", nodata=0, dn_offset=-1000)
    >>> apply_offset(np.array([[0, 7, 1001, 1500]], "uint16"), band)
    array([[  0,   1,   1, 500]], dtype=uint16)
    """
    if not band.dn_offset:
        return values
    if values.dtype.kind == "f":
        shifted = values + values.dtype.type(band.dn_offset)
    else:
        lowest = np.iinfo(values.dtype).min - band.dn_offset
        shifted = np.maximum(values, values.dtype.type(lowest))
        shifted -= values.dtype.type(-band.dn_offset)
    if band.nodata is not None:
        shifted[shifted == band.nodata] += 1
        missing = values == band.nodata
        shifted[missing] = values[missing]
    return shifted
