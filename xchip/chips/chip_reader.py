"""Cut chips out of blocks of files: repeat pixels to the scene's grid, and fill the parts outside the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xchip.chips.chip_rows import ChipRows
from xchip.chips.file_blocks import Canvas, read_canvas
from xchip.chips.item_cache import ChipBand, Items, Kind, PlacedBand, PlacedScene
from xchip.chips.read_plan import Cut, cuts, units
from xchip.core.grid import LATTICE_TOLERANCE, PixelGrid
from xchip.core.scene import ItemError
from xchip.io.retry import GivenUp, retrying
from xchip.raster.reader import BandReader, apply_offset
from xchip.raster.regrid import Box, repeat, source_box

Planes = Sequence[np.ndarray]
"""A writable (height, width) array for each band of a chip."""


def windows(rows: ChipRows, scene: PlacedScene) -> tuple[Box, ...]:
    """Return the boxes of an item's chips on its scene's grid.

    Raises
    ------
    ItemError
        If the CRS of the item differs from the rows, or a chip lies outside the item or between its pixels.
    """
    grid, crs = scene.grid, rows.items[0].crs
    if crs is None:  # tables of stacchip have offsets only
        column, row = rows.col_off.astype(np.float64), rows.row_off.astype(np.float64)
    elif crs == grid.crs:
        res_y, res_x = grid.res
        column, row = (rows.left - grid.transform[2]) / res_x, (grid.transform[5] - rows.top) / res_y
    else:
        raise ItemError(scene.item_id, f"it is in {grid.crs}, the index says {crs}; index it again")
    left, top = np.rint(column).astype(np.int64), np.rint(row).astype(np.int64)
    off = np.maximum(np.abs(column - left), np.abs(row - top)) > LATTICE_TOLERANCE
    beside = (left >= grid.shape[1]) | (top >= grid.shape[0]) | (left + rows.width <= 0) | (top + rows.height <= 0)
    if off.any() or beside.any():
        first = int(np.argmax(off | beside))
        where = f"column {column[first]:.3f}, row {row[first]:.3f} of its {grid.shape} pixels (height, width)"
        rule = "which is between pixels" if off[first] else "and lies wholly outside"
        raise ItemError(scene.item_id, f"a chip of the index begins at {where}, {rule}; index the item again")
    edges = (top, top + rows.height, left, left + rows.width)
    return tuple(map(Box._make, zip(*(edge.tolist() for edge in edges), strict=True)))


@dataclass(frozen=True)
class BandLayout:
    """How bands are arranged in plain arrays: the bands of a data type share an array."""

    groups: tuple[tuple[int, ...], ...]
    """Numbers of the bands in each array (chip, band, y, x)."""
    dtypes: tuple[np.dtype, ...]
    """Data types of the arrays."""
    size: tuple[int, int]
    """(height, width) of a chip."""

    def empty(self, n: int) -> tuple[np.ndarray, ...]:
        """Return uninitialised arrays for ``n`` chips."""
        return tuple(np.empty((n, len(group), *self.size), dtype) for group, dtype in zip(self.groups, self.dtypes, strict=True))

    def planes(self, arrays: Sequence[np.ndarray], chip: int) -> list[np.ndarray]:
        """Return the planes (y, x) of a chip, by number of the band."""
        return self._by_number([array[chip] for array in arrays])

    def bands(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return views (chip, y, x), by number of the band."""
        return self._by_number([array.swapaxes(0, 1) for array in arrays])

    def _by_number(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        by_number = {
            number: plane
            for group, array in zip(self.groups, arrays, strict=True)
            for number, plane in zip(group, array, strict=True)
        }
        return [by_number[number] for number in range(len(by_number))]


@dataclass(frozen=True)
class ChipReader:
    """Read pixels of chips. A task or a thread needs only this and rows."""

    items: Items
    bands: tuple[ChipBand, ...]
    kinds: dict[Any, Kind]
    tile: tuple[int, int]
    """(height, width) of super-tiles, whose chips are read together."""
    size: tuple[int, int]
    """(height, width) of the returned chips."""

    @property
    def layout(self) -> BandLayout:
        """How bands are arranged in arrays."""
        groups: dict[np.dtype, list[int]] = {}
        for number, band in enumerate(self.bands):
            groups.setdefault(band.dtype, []).append(number)
        return BandLayout(tuple(map(tuple, groups.values())), tuple(groups), self.size)

    def only(self, rows: ChipRows) -> ChipReader:
        """Return a reader for the items of ``rows`` only, to send it to a task."""
        return replace(self, items=self.items.only(rows.items))

    def read(self, rows: ChipRows, numbers: Sequence[int], *, keep: bool = True) -> list[np.ndarray]:
        """Read the bands ``numbers`` of chips, each (chip, y, x) in the band's dtype.

        Raises
        ------
        ItemError
            If an item or a file can't be read, even after retries; names item, asset and file.
        """
        arrays = [np.empty((len(rows), *self.size), self.bands[number].dtype) for number in numbers]
        self.read_into(rows, numbers, [[array[chip] for array in arrays] for chip in range(len(rows))], keep=keep)
        return arrays

    def read_into(self, rows: ChipRows, numbers: Sequence[int], out: Sequence[Planes], *, keep: bool = True) -> None:
        """Read like `read`, but into the planes of each chip."""
        for unit in units(rows, self.tile):
            self.insist(rows.take(unit), numbers, [out[chip] for chip in unit.tolist()], keep=keep)

    def insist(self, rows: ChipRows, numbers: Sequence[int], out: Sequence[Planes], *, keep: bool) -> None:
        """Call `read_unit`, and retry on transient errors such as a busy server."""
        try:
            # Signers renew expired signatures, so each attempt uses the same storage options.
            retrying(lambda _: self.read_unit(rows, numbers, out, keep=keep), self.items.pixels)
        except GivenUp as failure:
            error = failure.__cause__ or failure
            raise error from error.__cause__

    def read_unit(self, rows: ChipRows, numbers: Sequence[int], out: Sequence[Planes], *, keep: bool) -> None:
        """Read bands ``numbers`` of neighbouring chips of an item into ``out``: the planes of each chip, in that order."""
        (ref,) = rows.items
        scene = self.items.placed(ref, self.bands, self.kinds[ref.kind])
        boxes = windows(rows, scene)
        slots = {number: slot for slot, number in enumerate(numbers)}
        for number in slots.keys() & set(scene.absent):
            for planes in out:
                planes[slots[number]][...] = self.bands[number].fill
        for file in scene.files:
            wanted = [position for position, placed in enumerate(file) if placed.number in slots]
            if not wanted:
                continue
            try:
                planes_of_file = [[planes[slots[file[position].number]] for position in wanted] for planes in out]
                self._read_file(file, wanted, scene.grid, boxes, planes_of_file, keep)
            except OSError as error:
                raise ItemError(scene.item_id, f"asset {file[0].band.asset!r}: {error}") from error

    def _read_file(
        self,
        file: Sequence[PlacedBand],
        wanted: list[int],
        grid: PixelGrid,
        boxes: tuple[Box, ...],
        out: Sequence[Planes],
        keep: bool,
    ) -> None:
        bands = [placed.band for placed in file]
        relation = file[0].relation
        sources: Sequence[tuple[Cut | None, Box]]
        if relation is not None:
            sources = cuts(boxes, relation, bands[0].grid.shape)
        else:
            sources = [(None, _under(box, grid, bands[0].grid)) for box in boxes]
        inside = [source for _, source in sources if source.top < source.bottom and source.left < source.right]
        canvas = read_canvas(bands, wanted, inside, self.items.pixels, keep=keep) if inside else None
        for number, position in enumerate(wanted):
            fill = self.bands[file[position].number].fill
            for box, (cut, source), planes in zip(boxes, sources, out, strict=True):
                plane = planes[number]
                if canvas is None or source.top == source.bottom or source.left == source.right:
                    plane[...] = fill
                elif cut is not None and relation is not None and min(relation.y.factor, relation.x.factor) > 0:
                    values = apply_offset(canvas.part(number, source), bands[position])
                    _paste(values, cut, (relation.y.factor, relation.x.factor), fill, plane)
                else:
                    _resample(canvas, number, box, file[position], fill, plane)


def _under(box: Box, scene: PixelGrid, band: PixelGrid) -> Box:
    """Return the pixels of ``band`` that a warp to ``box`` of ``scene`` needs."""
    height, width = box.shape
    return source_box(band, scene.window(row_off=box.top, col_off=box.left, height=height, width=width), "nearest")


def _paste(values: np.ndarray, cut: Cut, factor: tuple[int, int], fill: np.generic, plane: np.ndarray) -> None:
    """Copy pixels that align with the scene's pixels into a chip; repeat each by ``factor`` (y, x)."""
    (_, _, top, bottom, above), (_, _, left, right, before) = cut
    if (bottom - top, right - left) != plane.shape:
        plane[...] = fill
        plane = plane[top:bottom, left:right]
    if above or before or (values.shape[0] * factor[0], values.shape[1] * factor[1]) != plane.shape:
        plane[...] = repeat(values, *factor)[above : above + bottom - top, before : before + right - left]
        return
    wide = repeat(values, 1, factor[1])
    for row in range(factor[0]):
        plane[row :: factor[0]] = wide


def _resample(canvas: Canvas, number: int, box: Box, placed: PlacedBand, fill: np.generic, plane: np.ndarray) -> None:
    """Subsample or warp pixels, like `xchip.stack`."""
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    height, width = box.shape
    reader = _CanvasReader(
        url=placed.source.to_url(), spec=None, resampling=Resampling.nearest, dtype=plane.dtype, fill_value=fill
    )
    reader.canvas, reader.number = canvas, number
    if box.shape != plane.shape:
        plane[...] = fill
    plane[:height, :width] = reader.read(Window(box.left, box.top, width, height))


class _CanvasReader(BandReader):
    """A `BandReader` of pixels in memory."""

    canvas: Canvas
    number: int

    def _pixels(self, box: Box) -> np.ndarray:
        return apply_offset(self.canvas.part(self.number, box), self.source.band).astype(self.dtype, copy=False)
