"""Sentinel-2 L2A: the least cloudy scene of an MGRS tile in each quarter of two years."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

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

API = "https://earth-search.aws.element84.com/v1"
COLLECTION = "sentinel-2-l2a"
TILE = "grid:code"


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """Yield the least cloudy scene of the tile in each quarter of random years."""
    tile = f"MGRS-{unit.name}" if options["tile_property"] == TILE else unit.name
    query = {options["tile_property"]: {"eq": tile}, "s2:nodata_pixel_percentage": {"lte": options["max_nodata_percentage"]}}
    for year in draw_years(rng, options["years"], options["number_of_years"]):
        yield from least_cloudy_of_quarters(
            catalogue,
            year,
            options["max_cloud_cover"],
            query=query,
            collections=options["collection"],
            intersects=unit.geometry,
        )


def assets(item: Item, options: Options) -> Mapping[str, Staging]:
    """Return the assets to keep, unchanged."""
    return listed_assets(item, options["assets"] or find(COLLECTION).staged_bands, sensor=COLLECTION)


RECIPE = Recipe(
    name="sentinel-2",
    summary="Index Sentinel-2 L2A scenes, an MGRS tile at a time.",
    description=(
        "A unit is a row of a layer of MGRS tiles. The recipe takes the least cloudy scene of the tile in each quarter of two "
        "random years, unless the scene has more cloud than the limit."
    ),
    units=layer_units,
    choose=choose,
    assets=assets,
    api=API,
    options=(
        source_option("Layer of MGRS tiles, in any format that geopandas opens.", "STACCHIP_MGRS_SOURCE"),
        COLUMN,
        YEARS_OPTION,
        Option("number_of_years", "integer", "Number of years to draw.", 2),
        Option("max_cloud_cover", "number", "Maximum cloud cover of a scene, in percent (0-100).", 75.0),
        Option("max_nodata_percentage", "number", "Maximum nodata of a scene, in percent of the tile (0-100).", 20.0),
        Option("collection", "text", "Collection to search.", COLLECTION),
        Option(
            "tile_property", "choice", "Property with the tile: grid:code at Earth Search, s2:mgrs_tile at the Planetary "
            "Computer.", TILE, choices=(TILE, "s2:mgrs_tile"),
        ),
    ),
)  # fmt: skip
"""The recipe, for `xchip.processors.process`."""
