"""MODIS surface reflectance, MOD09A1 version 6.1: eight-day composites of tiles without pixels beyond the map."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from xchip.io.signing import PLANETARY_COMPUTER
from xchip.io.storage import StorageOptions
from xchip.processors.choosers import listed_assets
from xchip.processors.recipe import Catalogue, Item, Option, Options, Recipe, Staging, Unit
from xchip.sensors.registry import find

if TYPE_CHECKING:
    import numpy as np

API = "https://planetarycomputer.microsoft.com/api/stac/v1"
COLLECTION = "modis-09A1-061"
"""Collection with MOD09A1 from Terra and MYD09A1 from Aqua."""
SENSOR = "modis-09a1"
PRODUCTS = ("MOD09A1", "MYD09A1")
FILL = {"sur_refl_state_500m": 65535, "sur_refl_qc_500m": 2**32 - 1}
"""Fill values of the flags (MODIS Surface Reflectance User's Guide, table of science data sets). Copies may not declare them, and
pixels beyond a warped tile must not look like clear land."""
NATIVE = "native"

_TILES = (
    (2, "12-23"),
    (3, "9 11-15 17-26"),
    (4, "8 10-14 17-28"),
    (5, "7-12 15-21 23-30"),
    (6, "3 7-11 16-31"),
    (7, "3 7-11 15-33"),
    (8, "1-2 8-13 16 18-23 25-34"),
    (9, "1-4 8-14 16 19 21-23 25 27-34"),
    (10, "2-5 10-14 17 19-23 27-33"),
    (11, "3-6 8 10-15 19-23 27-32"),
    (12, "11-13 16-17 19-20 24 27-30"),
    (13, "12-13 17 20-22 28"),
    (14, "13-16 18 22"),
)
"""(v, ranges of h): the tiles of the sinusoidal grid with land and without pixels beyond the edge of the map. This is the list of
stacchip's MODIS processor, in its order, so that an array job's index means the same tile."""


def _numbers(text: str) -> Iterator[int]:
    """``"3 7-9"`` -> 3, 7, 8, 9."""
    for span in text.split():
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1)


TILES: tuple[tuple[int, int], ...] = tuple((v, h) for v, spans in _TILES for h in _numbers(spans))
"""(v, h) of each tile: vertical from the top, horizontal from the left."""


def units(options: Options) -> Sequence[Unit]:
    """Return a unit for each tile."""
    return tuple(Unit(index, f"h{h:02d}v{v:02d}") for index, (v, h) in enumerate(TILES))


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """Yield the first composite that begins in each chosen month of each year; the months of a year are different and random.

    If a composite was published twice, the later production is used. Months without a composite are skipped.
    """
    if options["crs"] != NATIVE:
        _check_crs(options["crs"])
    v, h = TILES[unit.index]
    tile = {"modis:vertical-tile": {"eq": v}, "modis:horizontal-tile": {"eq": h}}
    for year, months in sorted(months_of(rng, options["years"], options["months"]).items()):
        for month in months:
            days = f"{year}-{month:02d}-01/{year}-{month:02d}-{monthrange(year, month)[1]}"
            items = catalogue.search(collections=COLLECTION, datetime=days, query=tile)
            item = first_of_month(items, year, month, options["product"])
            if item is not None:
                yield item


def _check_crs(text: str) -> None:
    """Check the CRS before any file is fetched."""
    import pyproj

    try:
        pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"crs is {NATIVE} or a CRS such as EPSG:3857, got {text!r}: {error}") from error


def months_of(rng: np.random.Generator, years: Sequence[int], count: int) -> dict[int, tuple[int, ...]]:
    """Draw ``count`` months of each year: return {year: months from 1 to 12, sorted}.

    The months of a year do not depend on the other years.

    Raises
    ------
    ValueError
        If ``years`` is empty, or ``count`` is not from 1 to 12.

    Examples
    --------
    >>> import numpy as np
    >>> months = months_of(np.random.default_rng(0), (2018, 2020), 4)
    >>> list(months), len(set(months[2018])), months[2020] == months_of(np.random.default_rng(0), (2020,), 4)[2020]
    ([2018, 2020], 4, True)
    """
    import numpy as np

    if not years:
        raise ValueError("years is empty; give at least one, such as 2018")
    if not 1 <= count <= 12:
        raise ValueError(f"months is a number of months of a year, from 1 to 12, got {count}")
    base = int(rng.integers(2**63))
    drawn = {}
    for year in sorted(set(years)):
        rng_of_year = np.random.default_rng([base, year])
        drawn[year] = tuple(sorted(int(month) for month in rng_of_year.choice(12, size=count, replace=False) + 1))
    return drawn


def first_of_month(items: Iterator[Item], year: int, month: int, product: str) -> Item | None:
    """Return the first composite that begins in a month; composites that reach into it from the month before don't count."""

    def begin(item: Item) -> str:
        return str(item["properties"].get("start_datetime") or item["properties"].get("datetime"))

    begun = [item for item in items if item["id"].startswith(f"{product}.") and begin(item)[:7] == f"{year}-{month:02d}"]
    if not begun:
        return None
    first = min(begin(item) for item in begun)
    return max((item for item in begun if begin(item) == first), key=lambda item: str(item["id"]))


def assets(item: Item, options: Options) -> Mapping[str, Staging]:
    """Return the assets to keep, unchanged or to be warped to another CRS with their pixel values."""
    kept = listed_assets(item, options["assets"] or find(SENSOR).staged_bands, sensor=SENSOR)
    if options["crs"] == NATIVE:
        return kept
    return {key: Staging(crs=options["crs"], resampling="nearest", nodata=FILL.get(key)) for key in kept}


RECIPE = Recipe(
    name="modis",
    summary="Index MODIS surface reflectance (MOD09A1 v6.1), a tile of the sinusoidal grid at a time.",
    description=(
        "A unit is a tile of the sinusoidal grid with land and without pixels beyond the edge of the map. Cloud, shadow, snow, "
        "water and fill come from the state flags, as the product's user guide defines them. In the quality control flags, too, "
        "bits count from the right: 10 (not produced because of clouds) is bit 1 without bit 0. stacchip reads them from the "
        "left, so it takes 01 (produced, less than ideal) for cloud."
    ),
    units=units,
    choose=choose,
    assets=assets,
    api=API,
    sensor=SENSOR,
    pixels=StorageOptions(signer=PLANETARY_COMPUTER),
    options=(
        Option("years", "integers", "Years of the composites.", (2018, 2020, 2022, 2023)),
        Option("months", "integer", "Number of random months per year, with one composite each.", 4),
        Option("product", "choice", "Terra (MOD) or Aqua (MYD).", PRODUCTS[0], choices=PRODUCTS),
        Option(
            "crs", "text", "CRS to warp to (nearest pixel), such as EPSG:3857 as in stacchip; or native: keep the files.", NATIVE
        ),
    ),
)
"""The recipe, for `xchip.processors.process`."""
