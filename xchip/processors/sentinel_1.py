"""Sentinel-1, terrain corrected (RTC): a random scene of an MGRS tile in a random quarter of a random year."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xchip.io.signing import PLANETARY_COMPUTER
from xchip.io.storage import StorageOptions
from xchip.processors.choosers import (
    COLUMN,
    QUARTERS,
    YEARS_OPTION,
    draw_years,
    layer_units,
    listed_assets,
    quarter_dates,
    quarter_of,
    source_option,
)
from xchip.processors.recipe import Catalogue, Item, Option, Options, Recipe, Staging, Unit
from xchip.sensors.registry import find

if TYPE_CHECKING:
    import numpy as np

API = "https://planetarycomputer.microsoft.com/api/stac/v1"
COLLECTION = "sentinel-1-rtc"


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """Yield random scenes that intersect the tile in a quarter and have all the bands to keep."""
    if options["scenes"] < 1:
        raise ValueError(f"scenes is a number of scenes, 1 or more, got {options['scenes']}")
    (year,) = draw_years(rng, options["years"], 1)
    quarter = int(rng.choice(QUARTERS))
    items = catalogue.search(collections=options["collection"], intersects=unit.geometry, datetime=quarter_dates(year, quarter))
    complete = [
        item
        for item in items
        if quarter_of(item) == (year, quarter)
        and len(assets(item, options)) == len(options["assets"] or find(COLLECTION).staged_bands)
    ]
    ordered = sorted(complete, key=lambda item: str(item["id"]))
    if ordered:
        picked = rng.choice(len(ordered), min(options["scenes"], len(ordered)), replace=False)
        yield from (ordered[number] for number in sorted(picked.tolist()))


def assets(item: Item, options: Options) -> Mapping[str, Staging]:
    """Return the assets to keep, unchanged."""
    return listed_assets(item, options["assets"] or find(COLLECTION).staged_bands, sensor=COLLECTION)


RECIPE = Recipe(
    name="sentinel-1",
    summary="Index terrain-corrected Sentinel-1 scenes (RTC), an MGRS tile at a time.",
    description="A unit is a row of a layer of MGRS tiles. It takes a scene of the tile in a random quarter of a random year.",
    units=layer_units,
    choose=choose,
    assets=assets,
    api=API,
    pixels=StorageOptions(signer=PLANETARY_COMPUTER),
    options=(
        source_option("Layer of MGRS tiles, in any format that geopandas opens.", "STACCHIP_MGRS_SOURCE"),
        COLUMN,
        YEARS_OPTION,
        Option("scenes", "integer", "Number of scenes to take.", 1),
        Option("collection", "text", "Collection to search.", COLLECTION),
    ),
)
"""The recipe, for `xchip.processors.process`."""
