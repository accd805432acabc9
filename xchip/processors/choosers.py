"""Functions for choosers: rows of a layer as units, random years and quarters, the least cloudy item, assets by band name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from xchip.core.lonlat import in_degrees
from xchip.core.types import JSON
from xchip.processors.recipe import SAME, Catalogue, Item, Option, Options, Staging, Unit

if TYPE_CHECKING:
    from datetime import datetime

    import geopandas
    import numpy as np

YEARS = (2018, 2019, 2020, 2021, 2022, 2023)
"""Years that stacchip draws from: ``range(2018, 2024)``."""
QUARTERS = (1, 2, 3, 4)
LONLAT = "EPSG:4326"

YEARS_OPTION = Option("years", "integers", "Years to draw from, such as 2018-2023.", YEARS)
COLUMN = Option("column", "text", "Column of the layer with the rows' names.", "name")


def source_option(what: str, env: str) -> Option:
    """Return the option for a layer whose rows are units."""
    return Option("source", "text", what, required=True, example="places.gpkg", env=(env,))


def layer_units(options: Options) -> Sequence[Unit]:
    """Return the rows of the layer ``source``, named by ``column``; without ``column`` their numbers are their names.

    The layer is read when the first row is used: it then raises as `read_layer` does.
    """
    return LayerUnits(str(options["source"]), options.get("column"))


@dataclass(frozen=True)
class LayerUnits(Sequence[Unit]):
    """The rows of a layer, in its order. The layer is read once, when its first row is used."""

    source: str
    """Path or URL of any layer that geopandas opens."""
    column: str | None
    """Column with the units' names; None: their numbers are their names."""

    @cached_property
    def _frame(self) -> geopandas.GeoDataFrame:
        return read_layer(self.source, self.column)

    def __len__(self) -> int:
        return len(self._frame)

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Unit]: ...
    def __getitem__(self, index: int | slice) -> Unit | Sequence[Unit]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        row = self._frame.iloc[index]
        name = str(index) if self.column is None else str(row[self.column])
        if row.geometry is None or row.geometry.is_empty:
            raise ValueError(
                f"row {index} ({name}) of {self.source!r} has no geometry to search at; drop the row or skip its index"
            )
        return Unit(int(index), name, row.geometry)


def read_layer(source: str, column: str | None) -> geopandas.GeoDataFrame:
    """Read a layer and transform it to longitude and latitude, cut at the antimeridian; without a CRS it must be in degrees.

    Raises
    ------
    OSError
        If the layer can't be opened.
    ValueError
        If it has no geometries, no such column, or neither a CRS nor degrees.
    """
    import geopandas

    try:
        frame = geopandas.read_parquet(source) if source.endswith((".parquet", ".geoparquet")) else geopandas.read_file(source)
    except Exception as error:  # pyogrio, pyarrow, urllib and fsspec raise errors of their own
        reasons = dict.fromkeys(part.strip() for part in str(error).split("; "))  # GDAL repeats the error of each of its drivers
        raise OSError(f"can't open the layer {source!r}: {'; '.join(reasons)}") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise ValueError(f"the layer {source!r} has no geometries; give a layer with geometries")
    if column is not None and column not in frame.columns:
        columns = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name)
        raise ValueError(
            f"the layer {source!r} has no column {column!r}, only {columns or 'geometries'}; pass its column of names as column="
        )
    if frame.crs is None:
        west, south, east, north = frame.total_bounds
        if max(-west, east) > 360 or max(-south, north) > 90:
            raise ValueError(
                f"the layer {source!r} has no CRS, and coordinates that are not degrees, such as {east:g}; set its CRS"
            )
    return in_degrees(frame)


def draw_years(rng: np.random.Generator, years: Iterable[int], count: int) -> list[int]:
    """Draw ``count`` different years at random.

    Raises
    ------
    ValueError
        If ``years`` has fewer different years.
    """
    different = sorted(set(years))
    if not 1 <= count <= len(different):
        raise ValueError(f"can't draw {count} different years from {', '.join(map(str, different)) or 'none'}; give more years")
    return [int(year) for year in rng.choice(different, count, replace=False)]


def quarter_dates(year: int, quarter: int) -> str:
    """Return the period of a quarter, 1 to 4, as `xchip.search` accepts it.

    Examples
    --------
    >>> quarter_dates(2019, 2)
    '2019-04/2019-06'
    """
    return f"{year}-{3 * quarter - 2:02d}/{year}-{3 * quarter:02d}"


def moment_of(item: Item) -> datetime:
    """Return an item's datetime in UTC, or its start_datetime if it has no datetime."""
    from xchip.stac.fields import moment

    properties = item["properties"]
    time = moment(properties.get("datetime") or properties.get("start_datetime"), "datetime")
    if time is None:
        raise ValueError(f"item {item.get('id')!r} has neither datetime nor start_datetime")
    return time


def quarter_of(item: Item) -> tuple[int, int]:
    """Return (year, quarter) of an item."""
    time = moment_of(item)
    return time.year, (time.month + 2) // 3


def cloud_percent(item: Item) -> float | None:
    """Return ``eo:cloud_cover``, 0 to 100; None if it is unknown: Landsat has -1 for scenes at night."""
    cover = item["properties"].get("eo:cloud_cover")
    return float(cover) if isinstance(cover, int | float) and 0 <= cover <= 100 else None


def least_cloudy(items: Iterable[Item], max_percent: float) -> Item | None:
    """Return the item with the least cloud, the first by id among equals; None if no item has at most ``max_percent``.

    Examples
    --------
    >>> items = [{"id": name, "properties": {"eo:cloud_cover": cover}} for name, cover in (("b", 9), ("a", 80), ("c", 11))]
    >>> least_cloudy(items, 75)["id"], least_cloudy(items, 5)
    ('b', None)
    """
    covers = ((cover, str(item["id"]), item) for item in items if (cover := cloud_percent(item)) is not None)
    best = min((entry for entry in covers if entry[0] <= max_percent), key=lambda entry: entry[:2], default=None)
    return None if best is None else best[2]


def least_cloudy_of_quarters(
    catalogue: Catalogue, year: int, max_percent: float, *, query: JSON, **parameters: Any
) -> Iterator[Item]:
    """Yield the least cloudy item of each quarter of a year with at most ``max_percent`` cloud, searched with ``parameters``.

    Servers sort numbers as text, or not at all, so all items of a quarter are compared here.
    """
    if not 0 <= max_percent <= 100:
        raise ValueError(f"max_cloud_cover is a percentage, from 0 to 100, got {max_percent}")
    limits = {**query, "eo:cloud_cover": {"lte": max_percent}}
    for quarter in QUARTERS:
        items = catalogue.search(datetime=quarter_dates(year, quarter), query=limits, **parameters)
        best = least_cloudy((item for item in items if quarter_of(item) == (year, quarter)), max_percent)
        if best is not None:
            yield best


def listed_assets(item: Item, names: Iterable[str], *, sensor: str | None = None) -> dict[str, Staging]:
    """Return the item's assets with these ``names``, unchanged; names that the item lacks are ignored.

    A name is the asset's key, without regard to case and ending, or, with a ``sensor``, a name of the band in any catalogue. A
    band that marks the sensor's clouds is always kept, because without it every chip would count as clear.

    Raises
    ------
    ValueError
        If the item is recognised as the sensor's but has no band that marks clouds.

    Examples
    --------
    >>> item = {"id": "a", "assets": {"B04": {}, "B08": {}, "SCL": {}, "visual": {}}}
    >>> list(listed_assets(item, ["red", "pan"], sensor="sentinel-2-l2a"))
    ['B04', 'SCL']
    """
    from xchip.sensors.registry import band_called, find, identity, plain_key, recognise

    keys = {plain_key(key): key for key in reversed(item["assets"])}
    profile = None if sensor is None else find(sensor)
    variant = None if profile is None else profile.variant_of(identity(item))

    def key_of(name: str) -> str | None:
        spec = None if profile is None else band_called(profile, name, variant)
        spellings = (name, *((spec.name, *spec.keys) if spec is not None else ()))
        return next((keys[plain] for plain in map(plain_key, spellings) if plain in keys), None)

    kept = [key_of(name) for name in names]
    if profile is not None and profile.quality:
        quality = [key for key in map(key_of, profile.quality_bands) if key is not None]
        recognised = recognise(item)
        if not quality and recognised is not None and recognised[0] == profile:
            raise ValueError(f"it has no {' or '.join(profile.quality_bands)}, which marks the clouds of {profile.name}")
        if not set(quality) & set(kept):
            kept += quality[:1]
    return {key: SAME for key in kept if key is not None}
