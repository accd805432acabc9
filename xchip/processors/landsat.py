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

if TYPE_CHECKING:
    import numpy as np

API = "https://landsatlook.usgs.gov/stac-server"
LEVEL_1, LEVEL_2 = "landsat-c2l1", "landsat-c2l2-sr"
_REFLECTANCE = ("blue", "green", "red", "nir08", "swir16", "swir22")
LEVEL_1_BANDS = (*_REFLECTANCE, "lwir", "lwir_high", "lwir11", "lwir12", "pan", "qa_pixel")
"""stacchip's list, and the thermal bands under the names that they have for Landsat 8 and 9."""
LEVEL_2_BANDS = (*_REFLECTANCE, "qa_pixel")


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """The least cloudy scene at the unit's centre in each quarter of a year at level 1, then of another year at level 2."""
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
    """The bands to keep of the item's level, as they are."""
    is_level_1 = item.get("collection") == options["level_1"]
    names = LEVEL_1_BANDS if is_level_1 else LEVEL_2_BANDS
    return listed_assets(item, options["assets"] or names, sensor="landsat-c2-l1" if is_level_1 else "landsat-c2-l2")


RECIPE = Recipe(
    name="landsat",
    summary="Index Landsat 8 and 9 scenes of both levels, a place at a time.",
    description=(
        "A unit is a row of a layer; its centre is searched. Of each quarter of one random year the least cloudy scene of level "
        "1 is taken, and of each quarter of another year that of level 2, unless it has more cloud than the limit. The files are "
        "in a bucket whose reader pays."
    ),
    units=layer_units,
    choose=choose,
    assets=assets,
    api=API,
    pixels=StorageOptions(requester_pays=True),
    options=(
        source_option("Layer of places, of any kind that geopandas opens.", "STACCHIP_SAMPLE_SOURCE"),
        COLUMN,
        YEARS_OPTION,
        Option("max_cloud_cover", "number", "Take no scene with more cloud, percent of the scene (0-100).", 75.0),
        Option("platforms", "names", "Satellites, as the API calls them.", ("LANDSAT_8", "LANDSAT_9")),
        Option("level_1", "text", "Collection of level 1.", LEVEL_1),
        Option("level_2", "text", "Collection of level 2.", LEVEL_2),
    ),
)
"""The data source, for `xchip.processors.process`."""
