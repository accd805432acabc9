"""Open the chips of an index as one lazy Dataset: `open_chips`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xchip.chips.chip_reader import ChipReader
from xchip.chips.chip_rows import ChipRows
from xchip.chips.chip_table import ChipTable, open_table
from xchip.chips.dask_graph import ChunkIndex, band_arrays
from xchip.chips.sequences import is_series, sequence_dataset
from xchip.core.types import Assets, IndexLike, Items
from xchip.io.storage import StorageOptions
from xchip.sensors.profile import SensorProfile
from xchip.stac.scene.sentinel2_offset import Harmonize

if TYPE_CHECKING:
    import dask.array as da

CHUNK = 128
"""Chips in a chunk of `open_chips`."""


def open_chips(
    index: IndexLike | ChipTable,
    assets: Assets = None,
    *,
    items: Items | None = None,
    sensor: str | SensorProfile | None = None,
    harmonize: Harmonize = False,
    pad: bool = False,
    chunks: int = CHUNK,
    storage: StorageOptions | None = None,
    pixels: StorageOptions | None = None,
) -> xr.Dataset:
    """Open the chips of an index as one lazy Dataset: dims (chip, y, x), one variable per band, in the order of the rows.

    Rows may mix items, dates and CRSs. Building the Dataset reads the JSON of one item of each collection and sensor. It opens
    no raster, unless that item does not declare its grid, CRS or data type. Tasks read the other items when they need them,
    once per process. A position or a slice of ``chip``, ``y`` or ``x`` reads only the pixels it needs; a list of positions
    reads whole chunks, so select rows of the index instead. A block of a file is decoded once for all chips of a chunk, and
    kept for the following chunks (256 MB per process).

    Rows of `xchip.series` give (chip, time, y, x): a chip is a place, and ``time`` its steps. Steps without a row are nodata.

    Parameters
    ----------
    index
        Rows of an index: a path or URL, a GeoDataFrame, a dask-geopandas frame (it is computed), a pyarrow Table, or a table
        of `xchip.open_table`.
    assets
        Bands by asset key, band name or common name such as "red". Names that all products have serve several sensors at
        once. None: the bands that `xchip.stack` takes, united over the sensors; a band that a sensor lacks is filled.
    items
        The items, if ``item_href`` does not lead to them: anything that `xchip.stack` takes.
    sensor
        A profile, or its name, for all items. None: the sensor in the index.
    harmonize
        How to treat the offset of Sentinel-2's processing baseline 04.00, item by item, as for `xchip.stack`. False keeps
        values as stored. It rejects items whose values have another meaning than those of the first item of their collection,
        and collections that differ in the offset.
    pad
        Allow chips of several sizes: all are padded below and to the right to the largest.
    chunks
        Chips in a chunk, best 64 to 256. In a series, each step of a place counts as a chip.
    storage, pixels
        How to reach index and items, and rasters; ``pixels`` defaults to ``storage``.

    Returns
    -------
    xarray.Dataset
        Variables hold the values as stored, in the data type of the files (or the smallest type that holds all, if sensors
        differ). Pixels outside an item are nodata, or 0 if none is declared. Coordinates on ``chip``: chip_id, item_id,
        datetime, proj_code, the edges proj_left, proj_bottom, proj_right and proj_top, collection, chip_index_x and
        chip_index_y. A series has place_id, proj_code and the edges on ``chip``; on (chip, time) it has datetime, item_id,
        chip_id, collection (NaT or "" for a step without a row) and ``observed``, which is True for steps with a row.

    Raises
    ------
    ValueError
        If the index has no rows, or chips of several sizes and ``pad`` is False; if sensors declare different nodata; if two
        rows of a series have the same place and step.
    xchip.ItemError
        If an item can't be used. When computed: if a file can't be read, or if an item differs from the first of its
        collection and sensor in bands, data types, nodata values, scales or offsets.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(512, 512))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     chips = open_chips(index, ["red", "nir"])
    ...     first = chips.isel(chip=0).compute()
    >>> dict(chips.sizes), first.red.shape, str(first.red.dtype)
    ({'chip': 16, 'y': 128, 'x': 128}, (128, 128), 'uint16')
    """
    if chunks < 1:
        raise ValueError(f"chunks is the number of chips in a chunk and must be at least 1, got {chunks}")
    table = open_table(index, assets, items=items, sensor=sensor, harmonize=harmonize, pad=pad, storage=storage, pixels=pixels)
    if is_series(table.coords):
        return sequence_dataset(table, chunks)
    return table.dataset(slice(None), lazy_arrays(table, chunks))


def lazy_arrays(table: ChipTable, chunk: int) -> list[da.Array]:
    """Return a Dask array (chip, y, x) for each band."""
    from dask.base import tokenize

    rows, reader = table.rows, table.reader
    token = tokenize(*vars(rows).values(), reader.items.assets, reader.tile, reader.size, chunk)
    chunks = [rows.take(slice(start, start + chunk)) for start in range(0, len(rows), chunk)]
    return band_arrays([_Chunk(part, reader.only(part)) for part in chunks], reader.size, reader.bands, token)


@dataclass(frozen=True)
class _Chunk:
    """A chunk of chips: indexing with (band, chip, y, x) reads pixels."""

    rows: ChipRows
    reader: ChipReader

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: ChunkIndex) -> np.ndarray:
        band, chips, *spatial = key
        positions = np.arange(len(self.rows))[chips]
        (array,) = self.reader.read(self.rows.take(np.atleast_1d(positions)), [band])
        return array[(slice(None) if positions.ndim else 0, *spatial)]
