"""What choosers share: rows of a layer as units, years and quarters at random, the least cloudy item, bands by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from xchip.core.lonlat import in_degrees
from xchip.processors.recipe import SAME, Catalogue, Item, Option, Options, Staging, Unit

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np

YEARS = (2018, 2019, 2020, 2021, 2022, 2023)
"""stacchip's: ``range(2018, 2024)``."""
QUARTERS = (1, 2, 3, 4)
LONLAT = "EPSG:4326"

YEARS_OPTION = Option("years", "integers", "Years to draw from, such as 2018-2023.", YEARS)
COLUMN = Option("column", "text", "Column of the layer with the rows' names.", "name")


def source_option(what: str, env: str) -> Option:
    """The option for a layer whose rows are units."""
    return Option("source", "text", what, required=True, example="places.gpkg", env=(env,))


# -- units: rows of a layer ---------------------------------------------------------------------------------------------


def layer_units(options: Options) -> Sequence[Unit]:
    """The rows of the layer ``source``, named by ``column``; a layer without the column has nameless rows if none was asked for.

    Raises
    ------
    OSError
        If the layer can't be opened.
    ValueError
        If it has no geometries, no such column, or neither a CRS nor degrees.
    """
    return LayerUnits(str(options["source"]), options.get("column"))


@dataclass(frozen=True)
class LayerUnits(Sequence[Unit]):
    """The rows of a layer, in its order. It is read once, when the first is asked for."""

    source: str
    """Path or URL, of anything that geopandas opens."""
    column: str | None
    """Column of the units' names; None: their numbers."""

    @cached_property
    def _frame(self) -> Any:
        return read_layer(self.source, self.column)

    def __len__(self) -> int:
        return len(self._frame)

    def __getitem__(self, index: Any) -> Any:
        row = self._frame.iloc[index]
        name = str(index) if self.column is None else str(row[self.column])
        if row.geometry is None or row.geometry.is_empty:
            raise ValueError(f"row {index} ({name}) of {self.source!r} has no geometry, so nothing can be searched there")
        return Unit(int(index), name, row.geometry)


def read_layer(source: str, column: str | None) -> Any:
    """The layer as GeoDataFrame in longitude and latitude, cut at the antimeridian; without a CRS it is taken to be in them."""
    import geopandas

    try:
        frame = geopandas.read_parquet(source) if source.endswith((".parquet", ".geoparquet")) else geopandas.read_file(source)
    except Exception as error:  # pyogrio, pyarrow, urllib and fsspec raise their own
        reasons = dict.fromkeys(part.strip() for part in str(error).split("; "))  # GDAL repeats what each of its drivers met
        raise OSError(f"can't open the layer {source!r}: {'; '.join(reasons)}") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise ValueError(f"the layer {source!r} has no geometries; give one that has")
    if column is not None and column not in frame.columns:
        others = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name)
        raise ValueError(f"the layer {source!r} has no column {column!r}, only {others or 'geometries'}; say which with column=")
    if frame.crs is None:
        west, south, east, north = frame.total_bounds
        if max(-west, east) > 360 or max(-south, north) > 90:
            raise ValueError(
                f"the layer {source!r} has no CRS, and coordinates that are no degrees, such as {east:g}; give it one"
            )
    return in_degrees(frame)


# -- time ---------------------------------------------------------------------------------------------------------------


def draw_years(rng: np.random.Generator, years: Iterable[int], count: int) -> list[int]:
    """``count`` different years, at random.

    Raises
    ------
    ValueError
        If there are not so many.
    """
    known = sorted(set(years))
    if not 1 <= count <= len(known):
        raise ValueError(f"can't draw {count} different years from {', '.join(map(str, known)) or 'none'}; give more of them")
    return [int(year) for year in rng.choice(known, count, replace=False)]


def quarter_dates(year: int, quarter: int) -> str:
    """The days of a quarter, 1 to 4, as `xchip.stac.api.search.search` takes them.

    Examples
    --------
    >>> quarter_dates(2019, 2)
    '2019-04/2019-06'
    """
    return f"{year}-{3 * quarter - 2:02d}/{year}-{3 * quarter:02d}"


def moment_of(item: Item) -> datetime:
    """An item's datetime, UTC; the start of its time where it has no datetime."""
    from xchip.stac.fields import moment

    properties = item["properties"]
    at = moment(properties.get("datetime") or properties.get("start_datetime"), "datetime")
    if at is None:
        raise ValueError(f"item {item.get('id')!r} has neither datetime nor start_datetime")
    return at


def quarter_of(item: Item) -> tuple[int, int]:
    """(year, quarter) of an item."""
    at = moment_of(item)
    return at.year, (at.month + 2) // 3


# -- clouds -------------------------------------------------------------------------------------------------------------


def cloud_percent(item: Item) -> float | None:
    """``eo:cloud_cover``, 0 to 100; None where nobody counted: Landsat says -1 of scenes at night."""
    cover = item["properties"].get("eo:cloud_cover")
    return float(cover) if isinstance(cover, int | float) and 0 <= cover <= 100 else None


def least_cloudy(items: Iterable[Item], max_percent: float) -> Item | None:
    """The item with the least cloud, of those with at most ``max_percent``; of equal ones the first by id. None if there is none.

    Examples
    --------
    >>> items = [{"id": name, "properties": {"eo:cloud_cover": cover}} for name, cover in (("b", 9), ("a", 80), ("c", 11))]
    >>> least_cloudy(items, 75)["id"], least_cloudy(items, 5)
    ('b', None)
    """
    known = ((cover, str(item["id"]), item) for item in items if (cover := cloud_percent(item)) is not None)
    best = min((entry for entry in known if entry[0] <= max_percent), key=lambda entry: entry[:2], default=None)
    return None if best is None else best[2]


def least_cloudy_of_quarters(
    catalogue: Catalogue, year: int, max_percent: float, *, query: Mapping[str, Any], **question: Any
) -> Iterator[Item]:
    """The least cloudy item of each quarter of a year, of those that answer a question and have at most ``max_percent`` cloud.

    Servers sort numbers as text, or not at all: all items of a quarter are looked at here.
    """
    if not 0 <= max_percent <= 100:
        raise ValueError(f"max_cloud_cover is a percentage, from 0 to 100, got {max_percent}")
    limits = {**query, "eo:cloud_cover": {"lte": max_percent}}
    for quarter in QUARTERS:
        found = catalogue.search(datetime=quarter_dates(year, quarter), query=limits, **question)
        best = least_cloudy((item for item in found if quarter_of(item) == (year, quarter)), max_percent)
        if best is not None:
            yield best


# -- bands --------------------------------------------------------------------------------------------------------------


def listed_assets(item: Item, names: Iterable[str], *, sensor: str | None = None) -> dict[str, Staging]:
    """The item's assets that go by ``names``, each as it is; names that it has not are passed over.

    A name is the asset's key, without regard to case and ending, or, with a ``sensor``, one that any catalogue calls the band by.
    A band that tells the sensor's clouds is kept in any case: without one every chip would pass for clear.

    Raises
    ------
    ValueError
        If an item that is known to be of the sensor has no such band.

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

    def found(name: str) -> str | None:
        spec = None if profile is None else band_called(profile, name, variant)
        spellings = (name, *((spec.name, *spec.keys) if spec is not None else ()))
        return next((keys[plain] for plain in map(plain_key, spellings) if plain in keys), None)

    kept = [found(name) for name in names]
    if profile is not None and profile.quality:
        quality = [key for key in map(found, profile.quality_bands) if key is not None]
        known = recognise(item)
        if not quality and known is not None and known[0] == profile:
            raise ValueError(f"it has no {' or '.join(profile.quality_bands)}, which tells the clouds of {profile.name}")
        if not set(quality) & set(kept):
            kept += quality[:1]
    return {key: SAME for key in kept if key is not None}
