"""NAIP aerial photographs of the United States: of each place the latest, and an older one."""

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
"""So called at the Planetary Computer and in Earth Search."""
SENSOR = "naip"
BANDS = 4
"""Red, green, blue and near infrared, in one file."""
FILL = 0
"""Value of all four bands where there is no picture. The files don't declare it."""


def choose(unit: Unit, catalogue: Catalogue, rng: np.random.Generator, options: Options) -> Iterator[Item]:
    """The latest scene at a place, and one of an earlier year at random, if there is any."""
    found = catalogue.search(collections=COLLECTION, intersects=centre_of(unit.geometry))
    for item in latest_and_older(found, rng, options["older"]):
        yield with_fill(item)


def latest_and_older(items: Iterable[Item], rng: np.random.Generator, older: int = 1) -> list[Item]:
    """The latest of the items of one place, then ``older`` others of earlier years at random, or as many as there are.

    An overlapping scene of the same year shows the same: it is not older. The answer does not depend on the items' order.

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
    """The item, saying what its files don't: pixels that are 0 in all four bands are no data. One without a picture stays."""
    key = _image(item)
    if key is None:
        return item
    asset = dict(item["assets"][key])
    if asset.get("bands"):  # STAC 1.1
        asset["bands"] = [{**band, "nodata": FILL} for band in asset["bands"]]
    else:
        said = asset.get("raster:bands") or [{"data_type": "uint8"}] * BANDS
        asset["raster:bands"] = [{**band, "nodata": FILL} for band in said]
    return {**item, "assets": {**item["assets"], key: asset}}


def _image(item: Item) -> str | None:
    """Key of the asset with the four bands, which catalogues call by several names; None where there is none."""
    return next(iter(listed_assets(item, ("red",), sensor=SENSOR)), None)


def assets(item: Item, options: Options) -> Mapping[str, Staging]:
    """The one file with the four bands, as it is."""
    found = listed_assets(item, options["assets"] or ("red",), sensor=SENSOR)
    if not found:
        raise ValueError(f"it has no asset {' or '.join(find(SENSOR).band('red').keys)}, only {', '.join(item['assets'])}")
    return found


RECIPE = Recipe(
    name="naip",
    summary="Index NAIP aerial photographs of the United States, a place at a time.",
    description=(
        "A unit is a row of a layer, such as `xchip sample-places` makes; its centre is searched. The latest scene there is "
        "taken, and one of an earlier year at random. The file with red, green, blue and near infrared is kept as it is; pixels "
        "that are 0 in all four are no data. With --api https://earth-search.aws.element84.com/v1 the files come from a bucket "
        "whose reader pays."
    ),
    units=layer_units,
    choose=choose,
    assets=assets,
    api=API,
    sensor=SENSOR,
    # Signatures are for the Planetary Computer's files; region and payment for the bucket that Earth Search names.
    pixels=StorageOptions(signer=PLANETARY_COMPUTER, requester_pays=True, region="us-west-2"),
    options=(
        source_option("Layer of sample places, of any kind that geopandas opens.", "STACCHIP_SAMPLE_SOURCE"),
        Option("column", "text", "Column of the layer with the rows' names."),
        Option("older", "integer", "Number of scenes of earlier years to take, at random.", 1),
    ),
)
"""The data source, for `xchip.processors.process`."""
