"""NAIP aerial photographs of the United States: the latest scene of each place, and older ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from xchip.core.lonlat import centre_of
from xchip.io.signing import PLANETARY_COMPUTER
from xchip.io.storage import StorageOptions
from xchip.processors.choosers import layer_units, listed_assets, moment_of, source_option
from xchip.processors.recipe import Catalogue, Item, Option, Options, Recipe, Staging, Unit
from xchip.sensors.registry import find

if TYPE_CHECKING:
    import numpy as np

API = "https://planetarycomputer.microsoft.com/api/stac/v1"
COLLECTION = "naip"
"""Id of the collection at the Planetary Computer and in Earth Search."""
SENSOR = "naip"
BANDS = 4
"""Red, green, blue and near infrared, in one file."""
FILL = 0
"""Value of all four bands of pixels without data. The files don't declare it."""


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """Yield the latest scene at a place, and random scenes of earlier years, if there are any."""
    items = catalogue.search(collections=COLLECTION, intersects=centre_of(unit.geometry))
    for item in latest_and_older(items, rng, options["older"]):
        yield with_fill(item)


def latest_and_older(items: Iterable[Item], rng: np.random.Generator, older: int = 1) -> list[Item]:
    """Return the latest item of a place, then ``older`` random items of earlier years, or all of them if there are fewer.

    Another scene of the same year shows the same season, so it is not older. The result does not depend on the items' order.

    Examples
    --------
    >>> import numpy as np
    >>> items = [{"id": str(year), "properties": {"datetime": f"{year}-07-01T00:00:00Z"}} for year in (2011, 2020, 2014)]
    >>> [item["id"] for item in latest_and_older(items, np.random.default_rng(0), older=5)]
    ['2020', '2011', '2014']
    >>> [item["id"] for item in latest_and_older(items[1:2], np.random.default_rng(0))]
    ['2020']
    """
    if older < 0:
        raise ValueError(f"older is a number of scenes, 0 or more, got {older}")
    ordered = sorted(items, key=lambda item: (moment_of(item), item["id"]))
    if not ordered:
        return []
    latest = ordered[-1]
    earlier = [item for item in ordered if moment_of(item).year < moment_of(latest).year]
    picked = rng.choice(len(earlier), size=min(older, len(earlier)), replace=False) if earlier else ()
    return [latest, *(earlier[number] for number in sorted(int(number) for number in picked))]


def with_fill(item: Item) -> Item:
    """Return the item with nodata 0 declared for its four bands; an item without a picture is returned unchanged."""
    # The asset with the four bands has several names in catalogues.
    key = next(iter(listed_assets(item, ("red",), sensor=SENSOR)), None)
    if key is None:
        return item
    asset = dict(item["assets"][key])
    if asset.get("bands"):  # STAC 1.1
        asset["bands"] = [{**band, "nodata": FILL} for band in asset["bands"]]
    else:
        bands = asset.get("raster:bands") or [{"data_type": "uint8"}] * BANDS
        asset["raster:bands"] = [{**band, "nodata": FILL} for band in bands]
    return {**item, "assets": {**item["assets"], key: asset}}


def assets(item: Item, options: Options) -> Mapping[str, Staging]:
    """Return the file with the four bands, unchanged."""
    kept = listed_assets(item, options["assets"] or ("red",), sensor=SENSOR)
    if not kept:
        raise ValueError(f"it has no asset {' or '.join(find(SENSOR).band('red').keys)}, only {', '.join(item['assets'])}")
    return kept


RECIPE = Recipe(
    name="naip",
    summary="Index NAIP aerial photographs of the United States, a place at a time.",
    description=(
        "A unit is a row of a layer, such as `xchip sample-places` makes; the recipe searches at its centre. It takes the latest "
        "scene, and a random scene of an earlier year. The file with red, green, blue and near infrared is kept unchanged; "
        "pixels that are 0 in all four bands are nodata. With --api https://earth-search.aws.element84.com/v1 the files come "
        "from a requester-pays bucket."
    ),
    units=layer_units,
    choose=choose,
    assets=assets,
    api=API,
    sensor=SENSOR,
    # The signer is for files of the Planetary Computer; region and payment are for the bucket of Earth Search.
    pixels=StorageOptions(signer=PLANETARY_COMPUTER, requester_pays=True, region="us-west-2"),
    options=(
        source_option("Layer of sample places, in any format that geopandas opens.", "STACCHIP_SAMPLE_SOURCE"),
        Option("column", "text", "Column of the layer with the rows' names."),
        Option("older", "integer", "Number of random scenes of earlier years.", 1),
    ),
)
"""The recipe, for `xchip.processors.process`."""
