"""Open the chips of an index once, to read them many times: `ChipTable`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np
import xarray as xr

from xchip.chips.chip_reader import ChipReader
from xchip.chips.chip_rows import ChipRows, Positions, coordinates, read_rows
from xchip.chips.item_cache import Items as ItemCache
from xchip.chips.item_cache import given_items, survey
from xchip.chips.read_plan import tile_shape
from xchip.core.html import accessor_html
from xchip.core.types import Assets, IndexLike, Items
from xchip.io.storage import StorageOptions
from xchip.sensors.profile import SensorProfile
from xchip.stac.scene.sentinel2_offset import Harmonize

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd


class TableOptions(TypedDict, total=False):
    """Keywords of `open_table`, which every function that reads chips accepts."""

    items: Items | None
    sensor: str | SensorProfile | None
    harmonize: Harmonize
    pad: bool
    storage: StorageOptions | None
    pixels: StorageOptions | None


@dataclass(frozen=True, eq=False)
class ChipTable:
    """The chips of an index with their reader; made by `open_table`.

    Functions that read chips accept a table in place of an index: `open_chips`, `batches`, the datasets, `band_stats`, exports
    and `preview`. A table has no footprints, so functions that need them take the index. It pickles, and ``len(table)`` is the
    number of chips.

    Examples
    --------
    >>> import tempfile, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index = xchip.index_items(xchip.testing.write_scene(folder, shape=(256, 256)), size=128).compute()
    ...     print(xchip.open_table(index, "red"))
    <xchip.ChipTable>
        chips:       4 of 128 x 128 pixels (y, x)
        items:       1
        bands:       red (uint16)
        sensors:     sentinel-2-l2a
    """

    rows: ChipRows
    """Item and window of each chip."""
    coords: Mapping[str, np.ndarray]
    """Coordinates by name, one value per chip."""
    reader: ChipReader
    """Reads the pixels."""
    assets: tuple[str, ...] | None = None
    """The names passed as ``assets``."""
    options: TableOptions = field(default_factory=lambda: TableOptions(), repr=False)
    """The keywords of `open_table`."""
    nodata: np.ndarray | None = field(default=None, repr=False)
    """nodata_fraction of each chip, if the index has the column."""

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, positions: Positions) -> tuple[np.ndarray, ...]:
        """Read chips as plain arrays (chip, band, y, x), one for each data type; see `ChipReader.layout`."""
        rows, layout = self.rows.take(positions), self.reader.layout
        arrays = layout.empty(len(rows))
        self.reader.read_into(rows, range(len(self.reader.bands)), [layout.planes(arrays, chip) for chip in range(len(rows))])
        return arrays

    def dataset(self, positions: Positions, arrays: Sequence[np.ndarray] | Sequence[da.Array]) -> xr.Dataset:
        """Return the chips at ``positions`` as a Dataset; ``arrays`` are (chip, y, x), one per band."""
        bands = {
            band.name: (("chip", "y", "x"), array, dict(band.attrs))
            for band, array in zip(self.reader.bands, arrays, strict=True)
        }
        return xr.Dataset(bands, coordinates(self.coords, positions), self.attrs)

    def with_bands(self, names: Sequence[str]) -> ChipTable:
        """Return the same chips with other bands."""
        items = replace(self.reader.items, assets=tuple(names))
        return replace(self, reader=_reader(items, self.rows, self.reader.size), assets=tuple(names))

    def frame(self) -> pd.DataFrame:
        """Return the rows as a DataFrame: the columns of the index that reading needs, without the geometry."""
        import pandas as pd

        columns = dict(self.coords)
        refs = [self.rows.items[number] for number in self.rows.item.tolist()]
        columns["proj_code"] = np.array([ref.crs for ref in refs], object)
        columns["item_href"] = np.array([ref.href for ref in refs], object)
        columns["sensor"] = np.array([ref.sensor for ref in refs], object)
        columns |= {name: getattr(self.rows, name) for name in ("col_off", "row_off", "width", "height")}
        if self.nodata is not None:
            columns["nodata_fraction"] = self.nodata
        return pd.DataFrame(columns)

    @property
    def attrs(self) -> dict[str, str]:
        """The sensor, if all chips have the same."""
        sensors = {ref.sensor for ref in self.rows.items}
        sensor = sensors.pop() if len(sensors) == 1 else None
        return {} if sensor is None else {"sensor": sensor}

    def _facts(self) -> Iterator[tuple[str, object]]:
        height, width = self.reader.size
        yield "chips", f"{len(self):,} of {height} x {width} pixels (y, x)"
        yield "items", f"{len(self.rows.items):,}"
        yield "bands", ", ".join(f"{band.name} ({band.dtype})" for band in self.reader.bands)
        yield "sensors", ", ".join(sorted({ref.sensor or "unknown" for ref in self.rows.items}))
        if self.options.get("harmonize", False) is not False:
            yield "harmonize", self.options["harmonize"]

    def __repr__(self) -> str:
        return "\n".join(["<xchip.ChipTable>", *(f"    {name + ':':<12} {value}" for name, value in self._facts())])

    def _repr_html_(self) -> str:
        return accessor_html("xchip.ChipTable", self._facts())


def open_table(
    index: IndexLike | ChipTable,
    assets: Assets = None,
    *,
    items: Items | None = None,
    sensor: str | SensorProfile | None = None,
    harmonize: Harmonize = False,
    pad: bool = False,
    storage: StorageOptions | None = None,
    pixels: StorageOptions | None = None,
) -> ChipTable:
    """Open the chips of an index once, to read them many times.

    `open_chips`, `batches`, the datasets, exports and `band_stats` take the result in place of an index. The parameters
    below then hold for all of them, and the rows are read only once.

    Parameters
    ----------
    index
        Rows of an index: a path or URL, a GeoDataFrame, a dask-geopandas frame (it is computed), a pyarrow Table, or a
        `ChipTable`.
    assets, items, sensor, harmonize, pad, storage, pixels
        As for `open_chips`.

    Returns
    -------
    ChipTable
        It reads the JSON of one item of each collection and sensor, and no pixels.

    Raises
    ------
    ValueError
        If the index has no rows, or chips of several sizes and ``pad`` is False, or if sensors declare different nodata;
        if ``index`` is a `ChipTable` and other options are given.
    xchip.ItemError
        If the first item of a collection and sensor can't be used.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(512, 512))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     table = xchip.open_table(index, ["red", "nir"])
    ...     chips = xchip.open_chips(table)
    ...     few = [batch.sizes["chip"] for batch in xchip.batches(table, batch_size=6)]
    >>> len(table), dict(chips.sizes), few
    (16, {'chip': 16, 'y': 128, 'x': 128}, [6, 6, 4])
    """
    options = TableOptions(items=items, sensor=sensor, harmonize=harmonize, pad=pad, storage=storage, pixels=pixels)
    names = None if assets is None else (assets,) if isinstance(assets, str) else tuple(assets)
    if isinstance(index, ChipTable):
        passed = [name for name, value in options.items() if value is not None and value is not False]
        if passed:
            raise ValueError(f"the index is a ChipTable, which has its own {', '.join(passed)}; pass them to xchip.open_table")
        return index if names is None or names == index.assets else index.with_bands(names)
    if isinstance(items, Iterator):
        options["items"] = items = list(items)
    storage = storage or StorageOptions()
    rows, coords, nodata = read_rows(index, storage)
    if not len(rows):
        raise ValueError("the index has no rows, so the bands of its chips are unknown; pass an index with rows")
    passed_items = given_items(items, rows.items) if items is not None else None
    cache = ItemCache(names, sensor, passed_items, storage, pixels or storage, harmonize)
    return ChipTable(rows, coords, _reader(cache, rows, rows.size(pad)), names, options, nodata)


def rows_and_options(
    index: IndexLike | ChipTable, assets: Assets, options: TableOptions
) -> tuple[IndexLike, Assets, TableOptions]:
    """Return index, assets and options; for a `ChipTable`, its rows and the arguments that it was opened with."""
    if not isinstance(index, ChipTable):
        return index, assets, options
    opened = open_table(index, assets, **options)
    return opened.frame(), opened.assets, cast(TableOptions, dict(opened.options))


def _reader(items: ItemCache, rows: ChipRows, size: tuple[int, int]) -> ChipReader:
    bands, kinds = survey(items, rows.items)
    tile = tile_shape(block for kind in kinds.values() for block in kind.blocks)
    return ChipReader(items, bands, kinds, tile, size)
