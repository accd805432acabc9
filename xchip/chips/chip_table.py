"""`ChipTable`: the chips of an index with their reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xchip.chips.chip_reader import ChipReader
from xchip.chips.chip_rows import ChipRows, coordinates, read_rows
from xchip.chips.item_cache import Items, given_items, survey
from xchip.chips.read_plan import tile_shape
from xchip.io.storage import StorageOptions
from xchip.stac.scene.sentinel2_offset import Harmonize


@dataclass(frozen=True, eq=False)
class ChipTable:
    """Chips that can be read: rows, their coordinates, and what reads them."""

    rows: ChipRows
    coords: Mapping[str, np.ndarray]
    """Coordinates by name, a value a chip."""
    reader: ChipReader

    def read(self, positions: Any) -> tuple[np.ndarray, ...]:
        """Chips at ``positions`` as plain arrays (chip, band, y, x), one for each data type; see `ChipReader.layout`."""
        rows, layout = self.rows.take(positions), self.reader.layout
        arrays = layout.empty(len(rows))
        self.reader.read_into(rows, range(len(self.reader.bands)), [layout.planes(arrays, chip) for chip in range(len(rows))])
        return arrays

    def dataset(self, positions: Any, arrays: Sequence[Any]) -> xr.Dataset:
        """Chips at ``positions`` as a Dataset; ``arrays`` are (chip, y, x), one a band."""
        bands = {
            band.name: (("chip", "y", "x"), array, dict(band.attrs))
            for band, array in zip(self.reader.bands, arrays, strict=True)
        }
        return xr.Dataset(bands, coordinates(self.coords, positions), self.attrs)

    @property
    def attrs(self) -> dict[str, str]:
        """The sensor, where all chips have one."""
        sensors = {ref.sensor for ref in self.rows.items}
        sensor = sensors.pop() if len(sensors) == 1 else None
        return {} if sensor is None else {"sensor": sensor}


def chip_source(
    index: Any,
    assets: str | Iterable[str] | None = None,
    *,
    items: Any = None,
    sensor: Any = None,
    harmonize: Harmonize = False,
    pad: bool = False,
    storage: StorageOptions | None = None,
    pixels: StorageOptions | None = None,
) -> ChipTable:
    """The chips of an index, ready to be read; the parameters are those of `open_chips`."""
    storage = storage or StorageOptions()
    rows, coords = read_rows(index, storage)
    if not len(rows):
        raise ValueError("the index has no rows, so nothing says which bands its chips have")
    size = rows.size(pad)
    asked = None if assets is None else tuple([assets] if isinstance(assets, str) else assets)
    given = given_items(items, rows.items) if items is not None else None
    book = Items(asked, sensor, given, storage, pixels or storage, harmonize)
    bands, kinds = survey(book, rows.items)
    tile = tile_shape(block for kind in kinds.values() for block in kind.blocks)
    return ChipTable(rows, coords, ChipReader(book, bands, kinds, tile, size))
