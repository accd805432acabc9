"""Reading pixels: the Reader that stackstac is given, and files read from top to bottom."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from xchip.core.grid import Alignment, AxisMap, PixelGrid, alignment
from xchip.core.scene import Band, BoaOffset, ItemError
from xchip.io.gdal import POOL, open_dataset, reading, shown
from xchip.raster.deflate_tiles import inflate, read_tiles
from xchip.raster.regrid import Box, covered, repeat, source_box, warp

# Strips of about this size stay in a core's cache while they are counted.
STRIP_BYTES = 2 << 20
# GDAL keeps decoded blocks up to 5 % of the memory, also of a file that is read once. Closing the file frees them.
KEPT_BYTES = 12 << 20
# A finer band is thinned, and a band is warped, in parts whose source pixels take about this much.
PART_BYTES = 64 << 20


def fill_value(dtype: str | np.dtype, nodata: float | None) -> np.generic:
    """What pixels without data hold: ``nodata`` as a scalar of ``dtype``; 0 where none is declared or it doesn't fit.

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
    """One band on a target grid: what a `BandReader` needs to know, as text in place of a URL."""

    item_id: str
    """For messages."""
    band: Band
    """The band."""
    target: PixelGrid
    """The grid of the stack."""
    siblings: tuple[int, ...] = ()
    """Numbers of the file's bands that are read in one go, this one included, in the order in which they are asked for."""
    rescale: bool = False
    """Whether scale and offset are applied: float32, with NaN where the file has nodata or its mask is 0."""

    def to_url(self) -> str:
        """The source as text, for stackstac's asset table."""
        return json.dumps(_fields(self), default=_fields)  # dataclasses.asdict takes ten times as long

    @classmethod
    def from_url(cls, url: str) -> BandSource:
        """The source that `to_url` wrote."""
        values = json.loads(url)
        band = values["band"]
        band["grid"] = PixelGrid(**band["grid"])
        band["block"] = band["block"] and tuple(band["block"])
        band["boa_offset"] = band["boa_offset"] and BoaOffset(**band["boa_offset"])
        target, siblings = PixelGrid(**values["target"]), tuple(values["siblings"])
        return cls(values["item_id"], Band(**band), target, siblings, values["rescale"])

    def alignment(self, resampling: str) -> Alignment | None:
        """How the band's pixels lie under the target's where they are taken over unchanged; None where it is warped."""
        if self.band.grid.crs != self.target.crs:
            return None
        relation = alignment(source=self.band.grid, target=self.target)
        if relation is None or (resampling != "nearest" and (relation.y.factor, relation.x.factor) != (1, 1)):
            return None
        return relation


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


class BandReader:
    """A stackstac Reader of one band in its native dtype, without masks, and without a warp where grids line up.

    ``url`` is the text of a `BandSource`. Files are opened at the first read, through the process's pool, so a reader is small,
    pickles, and any number of threads may use it at once.
    """

    def __init__(
        self,
        *,
        url: str,
        spec: Any,
        resampling: Any,
        dtype: np.dtype,
        fill_value: float | np.generic,
        scale_offset: tuple[float, float] = (1, 0),
        gdal_env: Any = None,
        errors_as_nodata: tuple[Exception, ...] = (),
    ) -> None:
        self._arguments = {
            "url": url,
            "spec": spec,
            "resampling": resampling,
            "dtype": dtype,
            "fill_value": fill_value,
            "scale_offset": scale_offset,
            "gdal_env": gdal_env,
            "errors_as_nodata": errors_as_nodata,
        }
        self.url = url
        self.resampling = resampling
        self.dtype = np.dtype(dtype)
        self.fill_value = fill_value
        self.scale_offset = scale_offset

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def close(self) -> None:
        """Nothing to close: datasets belong to the pool."""

    @cached_property
    def source(self) -> BandSource:
        """What ``url`` says."""
        return BandSource.from_url(self.url)

    @cached_property
    def _alignment(self) -> Alignment | None:
        return self.source.alignment(self.resampling.name)

    def read(self, window: Any) -> np.ndarray:
        """The pixels of a window of the target grid: (window.height, window.width); fill where the file has none.

        Raises
        ------
        ItemError
            If the file is missing, truncated, or not what the item says; names item, asset and file.
        """
        top, left = round(window.row_off), round(window.col_off)
        box = Box(top, top + round(window.height), left, left + round(window.width))
        if self.source.band.index in self.source.siblings[:1]:
            _HANDED_ON.bands.clear()  # nobody came for them
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
        """Pixels of the band's own grid, in the dtype of the stack."""
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
        """(values, mask) as stored; the other bands of the file are kept for the readers that come next in this thread."""
        band, siblings = self.source.band, self.source.siblings
        if band.index == 0:
            with POOL.borrowed(band.href) as dataset:
                check(dataset, band)
                return dataset.dataset_mask(window=_window(box)), None
        first = bool(siblings) and band.index == siblings[0]
        values = None if first else _HANDED_ON.bands.pop((band.href, band.index, box), None)
        if values is None:
            indexes = siblings if first else (band.index,)
            with POOL.borrowed(band.href) as dataset:
                check(dataset, band)
                values, *others = read_tiles(dataset, indexes, box)
            _HANDED_ON.keep(band.href, {(band.href, index, box): other for index, other in zip(indexes[1:], others, strict=True)})
        return values, self._mask(box)

    def _mask(self, box: Box) -> np.ndarray | None:
        if not (self.source.rescale and self.source.band.masked):
            return None
        with POOL.borrowed(self.source.band.href) as dataset:
            return dataset.read_masks(self.source.band.index, window=_window(box))


class _HandedOn(threading.local):
    """Pixels of a multi-band file that were read together with the first band: those of one window a thread.

    stackstac asks the readers of a chunk one after another in one thread. Each takes its own away.
    """

    def __init__(self) -> None:
        self.bands: dict[tuple[str, int, Box], np.ndarray] = {}

    def keep(self, href: str, bands: dict[tuple[str, int, Box], np.ndarray]) -> None:
        """Keep ``bands``; what a chunk of another file left behind, because a reader of it failed, goes."""
        self.bands = {key: values for key, values in self.bands.items() if key[0] == href} | bands


_HANDED_ON = _HandedOn()


def check(dataset: Any, band: Band) -> None:
    """Refuse a file that is not what its item says.

    Raises
    ------
    OSError
        Naming the file, and the value in the file and in the metadata.
    """
    name = shown(band.href)
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
        return  # no georeferencing of its own: the item's stands
    height, width = band.grid.shape
    a, b, c, d, e, f = (mine - item for mine, item in zip(transform, band.grid.transform, strict=True))
    res_y, res_x = band.grid.res
    # The four corners are where two affine grids differ most; half a pixel is a shift, less is rounding in the item.
    off = max(max(abs(a * x + b * y + c) / res_x, abs(d * x + e * y + f) / res_y) for x in (0, width) for y in (0, height))
    if off >= 0.5:
        raise OSError(f"{name} has the transform {transform}; the item says {band.grid.transform}, {off:.1f} pixels away")


def _window(box: Box) -> Any:
    from rasterio.windows import Window

    return Window(box.left, box.top, box.shape[1], box.shape[0])


def strips(
    source: Band | str, indexes: int | Sequence[int] | None = None, *, turn: tuple[int, int] = (0, 1)
) -> Iterator[tuple[int, np.ndarray]]:
    """Read a file once from top to bottom, in its own pixels and as stored, in bounded memory.

    Parameters
    ----------
    source
        A band, whose file is then held against what the item says, or an href.
    indexes
        Number of the band, from 1, or 0 for the file's mask (uint8, 0 where there are no data): arrays are (rows, width).
        Several: (bands, rows, width). None: the number of the `Band`, or 1.
    turn
        (k, n): every n-th strip from number k on, where n read in turns. Each opens the file for itself.

    Yields
    ------
    (row_off, values)
        Whole rows of blocks, in order, about 2 MB or one row of blocks. The strip after the next overwrites the array; in turns,
        the next does.

    Raises
    ------
    OSError
        If the file is missing or truncated; names the file.
    """
    href = source.href if isinstance(source, Band) else source
    if indexes is None:
        indexes = source.index if isinstance(source, Band) else 1
    flat = isinstance(indexes, int)
    band = source if isinstance(source, Band) else None
    planes = _strips(href, band, [indexes] if isinstance(indexes, int) else list(indexes), turn)
    return ((row, values[0] if flat else values) for row, values in planes)


def strip_rows(height: int, row_bytes: int, block_height: int) -> int:
    """Rows of a strip: whole rows of blocks, about `STRIP_BYTES`."""
    return min(height, block_height * max(1, STRIP_BYTES // (row_bytes * block_height)))


def _strips(href: str, band: Band | None, indexes: list[int], turn: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    first, step = turn
    dataset = open_dataset(href)
    try:
        if band is not None:
            check(dataset, band)
        height, width = dataset.shape
        dtype = np.result_type(*(dataset.dtypes[index - 1] if index else "uint8" for index in indexes))
        block_height = dataset.block_shapes[0][0]
        row_bytes = width * len(indexes) * dtype.itemsize
        rows = strip_rows(height, row_bytes, block_height)
        # Two where one reads, so that a strip can be worked on while the next is read.
        buffers = np.empty((2 if step == 1 else 1, len(indexes) * rows * width), dtype)
        kept = 0
        for number, row in enumerate(range(first * rows, height, step * rows)):
            count = min(rows, height - row)
            # The front of the buffer, so that a lower last strip is contiguous too.
            values = buffers[number % len(buffers), : len(indexes) * count * width].reshape(len(indexes), count, width)
            if kept > KEPT_BYTES // step:
                dataset.close()
                dataset, kept = open_dataset(href), 0
            box = Box(row, row + count, 0, width)
            if 0 in indexes or not inflate(dataset, indexes, box, values):
                with reading(href, dataset):
                    _read_into(dataset, indexes, _window(box), values)
                kept += dataset.count * values[0].nbytes  # GDAL also keeps the bands that lie between those asked for
            yield row, values
    finally:
        dataset.close()


def _read_into(dataset: Any, indexes: list[int], window: Any, out: np.ndarray) -> None:
    if 0 not in indexes:
        dataset.read(indexes, window=window, out=out)
        return
    mask = dataset.dataset_mask(window=window)
    for index, plane in zip(indexes, out, strict=True):
        plane[:] = dataset.read(index, window=window) if index else mask


def apply_offset(values: np.ndarray, band: Band) -> np.ndarray:
    """``values`` as stored with ``band.dn_offset`` added: the same shape and dtype; ``values`` itself where that is 0.

    Pixels without data (``band.nodata``) stay as they are, and no other pixel becomes one of them: what would fall below the
    dtype's range is set to its end, and what would equal nodata to the next number. So, with nodata 0, digital numbers 1 to
    1001 become 1: pixels darker than black stay data. (Planetary Computer's recipe makes them 0, which is nodata.)

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
