"""The index as one lazy array: `open_chips`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xchip.chips.chip_reader import ChipReader
from xchip.chips.chip_rows import ChipRows
from xchip.chips.chip_table import ChipTable, open_table
from xchip.chips.dask_graph import band_arrays
from xchip.chips.sequences import is_series, sequence_dataset
from xchip.core.types import Assets, IndexLike, Items
from xchip.io.storage import StorageOptions
from xchip.sensors.profile import SensorProfile
from xchip.stac.scene.sentinel2_offset import Harmonize

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
    """The chips of an index as one lazy Dataset: dims (chip, y, x), a variable a band, in the order of the rows.

    Rows may be of any number of items, dates and CRSs. To build it, the JSON of one item of each collection and sensor is
    read, and no raster is opened, unless that item leaves its grid, CRS or data type to its files. The other items are read by
    the tasks that need them, once a process. A position or a slice of ``chip``, ``y`` or ``x`` reads only what it needs; a list
    of positions reads their chunks, so choose rows of the index instead. A block of a file is decoded once for all chips of
    a chunk that lie in it, and kept for the chunks that follow (256 MB a process).

    Rows that `xchip.series` made give (chip, time, y, x): a chip is a place, and ``time`` its steps. Steps without a row are
    nodata.

    Parameters
    ----------
    index
        Rows of an index: a path or URL, a GeoDataFrame, a dask-geopandas frame (it is computed), a pyarrow Table, or what
        `xchip.open_table` returns.
    assets
        Bands by asset key, band name or common name such as "red". Names that all products have serve several sensors at once.
        None: what `xchip.stack` takes, united over the sensors; what a sensor lacks is filled.
    items
        The items, if ``item_href`` does not lead to them: anything that `xchip.stack` takes.
    sensor
        A profile, or its name, for all items. None: as the index says.
    harmonize
        What is done about the offset of Sentinel-2's processing baseline 04.00, item by item, as for `xchip.stack`. False leaves
        values as stored; items whose values then mean something else than those of the first one of their collection are refused,
        and so are collections of which one has the offset and another has not.
    pad
        Allow chips of several sizes: all are padded below and to the right to the largest.
    chunks
        Chips in a chunk, best 64 to 256; those of all steps count.
    storage, pixels
        How index and items, and how rasters are reached; ``pixels`` defaults to ``storage``.

    Returns
    -------
    xarray.Dataset
        Variables in the data type of the files, as stored (the type that holds all, where sensors differ). Pixels outside of an
        item are nodata, or 0 where none is declared. Coordinates on ``chip``: chip_id, item_id, datetime, proj_code, the edges
        proj_left, proj_bottom, proj_right and proj_top, collection, chip_index_x and chip_index_y. Of a series: on ``chip``
        place_id, proj_code and the edges; on (chip, time) datetime, item_id, chip_id, collection (NaT or "" where there is no
        row) and observed, which says whether there is one.

    Raises
    ------
    ValueError
        If the index has no rows, or chips of several sizes and ``pad`` is False; if sensors declare different nodata; if rows
        of a series are of one place and step.
    xchip.ItemError
        For an item that can't be used; when it is computed, also for one that has not the bands, data types, nodata values,
        scales and offsets of the first of its collection and sensor, and for a file that can't be read.

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
        raise ValueError(f"chunks is the number of chips in a chunk, at least 1, got {chunks}")
    table = open_table(index, assets, items=items, sensor=sensor, harmonize=harmonize, pad=pad, storage=storage, pixels=pixels)
    if is_series(table.coords):
        return sequence_dataset(table, chunks)
    return table.dataset(slice(None), lazy_arrays(table, chunks))


def lazy_arrays(table: ChipTable, chunk: int) -> list[Any]:
    """Dask arrays (chip, y, x), one a band."""
    from dask.base import tokenize

    rows, reader = table.rows, table.reader
    token = tokenize(*(array for array in vars(rows).values()), reader.items.assets, reader.tile, reader.size, chunk)
    some = [rows.take(slice(start, start + chunk)) for start in range(0, len(rows), chunk)]
    return band_arrays(
        [_Chunk(part, reader.only(part)) for part in some],
        [len(part) for part in some],
        reader.size,
        [band.dtype for band in reader.bands],
        [band.name for band in reader.bands],
        token,
    )


@dataclass(frozen=True)
class _Chunk:
    """Some chips as dask sees them: indexing (band, chip, y, x) reads pixels."""

    rows: ChipRows
    reader: ChipReader

    def __getitem__(self, key: Sequence[Any]) -> np.ndarray:
        band, chips, *spatial = key
        positions = np.arange(len(self.rows))[chips]
        (array,) = self.reader.read(self.rows.take(np.atleast_1d(positions)), [band])
        return array[(slice(None) if positions.ndim else 0, *spatial)]
