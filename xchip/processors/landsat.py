"""Landsat 8 and 9, collection 2: one year at level 1 and another at level 2, the least cloudy scene of each quarter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xchip.core.lonlat import centre_of
from xchip.io.storage import StorageOptions
from xchip.processors.choosers import (
    COLUMN,
    YEARS_OPTION,
    draw_years,
    layer_units,
    least_cloudy_of_quarters,
    listed_assets,
    source_option,
)
from xchip.processors.recipe import Catalogue, Item, Option, Options, Recipe, Staging, Unit
from xchip.sensors.registry import find

if TYPE_CHECKING:
    import numpy as np

API = "https://landsatlook.usgs.gov/stac-server"
LEVEL_1, LEVEL_2 = "landsat-c2l1", "landsat-c2l2-sr"


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """Yield the least cloudy scene at the unit's centre in each quarter of a year at level 1, then of another year at level 2."""
    years = draw_years(rng, options["years"], 2)
    for year, collection in zip(years, (options["level_1"], options["level_2"]), strict=True):
        yield from least_cloudy_of_quarters(
            catalogue,
            year,
            options["max_cloud_cover"],
            query={"platform": {"in": list(options["platforms"])}},
            collections=collection,
            intersects=centre_of(unit.geometry),
        )


def assets(item: Item, options: Options) -> Mapping[str, Staging]:
    """Return the assets of the item's level to keep, unchanged."""
    sensor = "landsat-c2-l1" if item.get("collection") == options["level_1"] else "landsat-c2-l2"
    return listed_assets(item, options["assets"] or find(sensor).staged_bands, sensor=sensor)


RECIPE = Recipe(
    name="landsat",
    summary="Index Landsat 8 and 9 scenes of both levels, a place at a time.",
    description=(
        "A unit is a row of a layer; the recipe searches at its centre. It takes the least cloudy scene of level 1 in each "
        "quarter of a random year, and of level 2 in each quarter of another year, unless the scene has more cloud than the "
        "limit. The files are in a requester-pays bucket."
    ),
    units=layer_units,
    choose=choose,
    assets=assets,
    api=API,
    pixels=StorageOptions(requester_pays=True),
    options=(
        source_option("Layer of places, in any format that geopandas opens.", "STACCHIP_SAMPLE_SOURCE"),
        COLUMN,
        YEARS_OPTION,
        Option("max_cloud_cover", "number", "Maximum cloud cover of a scene, in percent (0-100).", 75.0),
        Option("platforms", "names", "Satellites, as the API names them.", ("LANDSAT_8", "LANDSAT_9")),
        Option("level_1", "text", "Collection of level 1.", LEVEL_1),
        Option("level_2", "text", "Collection of level 2.", LEVEL_2),
    ),
)
"""The recipe, for `xchip.processors.process`."""
