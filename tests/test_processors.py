"""Recipes: which items they choose, as laws on made-up catalogues, and from search to index against real servers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import stac_api
from published import SIZE, published, template, tile_of, write_band, write_layer
from recipe_runs import Buckets, Shelf, buckets, three_runs

import xchip
from xchip.indexing.archive.layout import ITEMS
from xchip.io.store import Store
from xchip.processors import NAMES, find, landsat, modis, process, sentinel_1, sentinel_2
from xchip.processors.choosers import draw_years, layer_units, least_cloudy, listed_assets, quarter_dates, quarter_of
from xchip.processors.pipeline import choose_items
from xchip.processors.recipe import COMMON, Catalogue, Item, Option, Recipe, Unit

SENTINEL_2_BANDS = ("blue", "green", "nir", "nir08", "red", "rededge1", "rededge2", "rededge3", "scl", "swir16", "swir22")
YEARS = range(2018, 2024)
HERE, ELSEWHERE = shapely.box(-11.5, 24.5, -11.0, 25.0), shapely.box(20.0, 24.5, 20.5, 25.0)


def values(recipe: Recipe, **given: Any) -> dict[str, Any]:
    """The recipe's options."""
    return recipe.values({"source": "-"} | given if any(o.name == "source" for o in recipe.options) else given)


def chosen(recipe: Recipe, shelf: Shelf, seed: int = 0, **given: Any) -> list[Item]:
    """What a recipe takes from a catalogue in memory."""
    unit = Unit(seed, "29RKH", HERE)
    catalogue: Any = shelf
    return list(recipe.choose(unit, catalogue, np.random.default_rng([0, seed]), values(recipe, **given)))


# -- laws of the choice -------------------------------------------------------------------------------------------------


@st.composite
def catalogues(draw: st.DrawFn, *collections: str, **properties: Any) -> list[Item]:
    """Scenes of six years and more, here and elsewhere, with every kind of cloud cover that catalogues have."""
    clouds = st.one_of(st.integers(0, 100), st.floats(0, 100), st.sampled_from([-1, 0.5, 74.99, 75, 75.01, None, "9"]))
    count = draw(st.integers(0, 40))
    items = []
    for number in range(count):
        moment = f"{draw(st.integers(2017, 2024))}-{draw(st.integers(1, 12)):02d}-{draw(st.sampled_from([1, 15, 28])):02d}"
        shape = draw(st.sampled_from([HERE, HERE, HERE, ELSEWHERE]))
        known = {"datetime": f"{moment}T{draw(st.sampled_from(['00:00:00', '23:59:59.5']))}Z", "eo:cloud_cover": draw(clouds)}
        known |= {name: draw(st.sampled_from(choices)) for name, choices in properties.items()}
        if known["eo:cloud_cover"] is None:
            del known["eo:cloud_cover"]
        items.append(
            {
                "type": "Feature",
                "id": f"{number:03d}",
                "collection": draw(st.sampled_from(collections)),
                "geometry": json.loads(shapely.to_geojson(shape)),
                "bbox": list(shape.bounds),
                "properties": {name.replace("__", ":"): value for name, value in known.items()},
                "assets": {key: {"href": f"s3://b/{key}.tif"} for key in ("vv", "vh", "blue", "qa_pixel")},
            }
        )
    return items


def cloud(item: Item) -> Any:
    return item["properties"].get("eo:cloud_cover")


def is_best(item: Item, among: list[Item]) -> bool:
    """Whether no other of its quarter has less cloud."""
    rivals = [other for other in among if quarter_of(other) == quarter_of(item)]
    known = [cloud(other) for other in rivals if isinstance(cloud(other), int | float) and cloud(other) >= 0]
    return bool(cloud(item) == min(known))


TILES = catalogues("sentinel-2-l2a", grid__code=["MGRS-29RKH", "MGRS-29RKJ"], s2__nodata_pixel_percentage=[0, 20, 20.1, 100])


@settings(max_examples=25)
@given(TILES, st.integers(0, 10_000), st.sampled_from([75.0, 20.0, 0.0]))
def test_sentinel_2_takes_the_least_cloudy_scene_of_each_quarter_of_two_years(items: list[Item], seed: int, limit: float) -> None:
    picked = chosen(sentinel_2.RECIPE, Shelf(items), seed, max_cloud_cover=limit)
    assert picked == chosen(sentinel_2.RECIPE, Shelf(items[::-1], order=1), seed, max_cloud_cover=limit), (
        "order makes a difference"
    )
    eligible = [
        item for item in items
        if item["properties"]["grid:code"] == "MGRS-29RKH" and item["properties"]["s2:nodata_pixel_percentage"] <= 20
        and item["bbox"] == list(HERE.bounds)
    ]  # fmt: skip
    quarters = [quarter_of(item) for item in picked]
    assert len(set(quarters)) == len(quarters)
    years = draw_years(np.random.default_rng([0, seed]), YEARS, 2)
    assert {year for year, _ in quarters} <= set(years) <= set(YEARS)
    for item in picked:
        assert item in eligible
        assert cloud(item) <= limit
        assert is_best(item, eligible)
    has = {quarter_of(i) for i in eligible if isinstance(cloud(i), int | float) and 0 <= cloud(i) <= limit}
    assert set(quarters) == {(year, quarter) for year, quarter in has if year in years}, "a quarter was passed over"


LEVELS = catalogues(landsat.LEVEL_1, landsat.LEVEL_2, platform=["LANDSAT_8", "LANDSAT_9", "LANDSAT_7"])


@settings(max_examples=25)
@given(LEVELS, st.integers(0, 10_000))
def test_landsat_takes_level_1_in_one_year_and_level_2_in_another(items: list[Item], seed: int) -> None:
    picked = chosen(landsat.RECIPE, Shelf(items), seed)
    assert picked == chosen(landsat.RECIPE, Shelf(items, order=1), seed)
    by_level = {name: [item for item in picked if item["collection"] == name] for name in (landsat.LEVEL_1, landsat.LEVEL_2)}
    years = {name: {quarter_of(item)[0] for item in found} for name, found in by_level.items()}
    assert all(len(found) <= 1 for found in years.values())
    assert not years[landsat.LEVEL_1] & years[landsat.LEVEL_2]
    for name, found in by_level.items():
        among = [item for item in items if item["collection"] == name and item["properties"]["platform"] != "LANDSAT_7"]
        among = [item for item in among if item["bbox"] == list(HERE.bounds)]
        assert len({quarter_of(item) for item in found}) == len(found)
        assert all(0 <= cloud(item) <= 75 and is_best(item, among) for item in found)


@settings(max_examples=25)
@given(catalogues("sentinel-1-rtc"), st.integers(0, 10_000))
def test_sentinel_1_is_searched_where_the_tile_is(items: list[Item], seed: int) -> None:
    shelf = Shelf(items)
    picked = chosen(sentinel_1.RECIPE, shelf, seed)
    assert picked == chosen(sentinel_1.RECIPE, Shelf(items, order=1), seed)
    (question,) = shelf.questions
    assert question["intersects"] == HERE
    inside = [item for item in items if item["bbox"] == list(HERE.bounds)]
    wanted = [item for item in inside if quarter_dates(*quarter_of(item)) == question["datetime"]]
    assert len(picked) == min(1, len(wanted))
    assert all(item in wanted for item in picked)


@pytest.mark.parametrize("name", ["sentinel-2", "landsat", "sentinel-1"])
def test_each_unit_has_random_numbers_of_its_own(name: str) -> None:
    recipe = find(name)
    asked = set()
    for seed in range(30):
        shelf = Shelf([])
        assert chosen(recipe, shelf, seed) == []
        asked.add(tuple(question["datetime"] for question in shelf.questions))
        assert all(2018 <= int(question["datetime"][:4]) <= 2023 for question in shelf.questions)
    assert len(asked) > 5


@given(st.lists(st.integers(1972, 2030), max_size=8), st.integers(0, 5), st.integers(0, 1000))
def test_years_are_drawn_without_repetition(years: list[int], count: int, seed: int) -> None:
    if not 1 <= count <= len(set(years)):
        with pytest.raises(ValueError, match=f"can't draw {count} different years"):
            draw_years(np.random.default_rng(seed), years, count)
        return
    drawn = draw_years(np.random.default_rng(seed), years, count)
    assert len(set(drawn)) == count
    assert drawn == draw_years(np.random.default_rng(seed), years[::-1], count)


def test_scenes_that_nobody_counted_the_clouds_of_are_not_the_least_cloudy() -> None:
    items = [{"id": str(cover), "properties": {"eo:cloud_cover": cover}} for cover in (-1, None, "3", 60, 101)]
    best = least_cloudy(items, 100)
    assert best is not None
    assert best["id"] == "60"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sentinel-2", {"max_cloud_cover": 0.75e3}, "a percentage, from 0 to 100, got 750"),
        ("sentinel-2", {"number_of_years": 7}, "can't draw 7 different years from 2018, 2019"),
        ("landsat", {"years": (2020,)}, "can't draw 2 different years from 2020"),
        ("sentinel-1", {"scenes": 0}, "scenes is a number of scenes, 1 or more, got 0"),
        ("linz", {"resolution": 0}, "resolution is a number of metres above 0, got 0"),
        ("modis", {"crs": "EPSG:99999"}, "crs is native or a CRS such as EPSG:3857, got 'EPSG:99999'"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(find(name), Shelf([]), **options)


def test_a_seed_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="seed is a whole number, 0 or more, got -1"):
        next(choose_items("linz", 0, seed=-1))


# -- bands --------------------------------------------------------------------------------------------------------------


def test_bands_go_by_the_names_of_any_catalogue(real_data: Path) -> None:
    earth_search = template(real_data, "earthsearch-v1__sentinel-2-l2a__S2A_29RKH")
    assert set(listed_assets(earth_search, SENTINEL_2_BANDS, sensor="sentinel-2-l2a")) == set(SENTINEL_2_BANDS)
    planetary = template(real_data, "planetarycomputer__sentinel-2-l2a")
    expected = {"B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "SCL"}
    assert set(sentinel_2.assets(planetary, values(sentinel_2.RECIPE))) == expected
    assert set(sentinel_2.assets(planetary, values(sentinel_2.RECIPE, assets=("red", "scl")))) == {"B04", "SCL"}


def test_the_band_that_tells_clouds_is_kept_whatever_bands_are_asked_for(real_data: Path) -> None:
    planetary = template(real_data, "planetarycomputer__sentinel-2-l2a")
    assert list(sentinel_2.assets(planetary, values(sentinel_2.RECIPE, assets=("red", "nir")))) == ["B04", "B08", "SCL"]
    usgs = template(real_data, "usgs__landsat-c2l2-sr__LC09_092068_v1.0")
    assert list(landsat.assets(usgs, values(landsat.RECIPE, assets=("red",)))) == ["red", "qa_pixel"]
    tile = template(real_data, "planetarycomputer__modis-09A1-061")
    state, control = "sur_refl_state_500m", "sur_refl_qc_500m"
    warped = modis.assets(tile, values(modis.RECIPE, assets=("red",), crs="EPSG:3857"))
    assert list(warped) == ["sur_refl_b01", state]
    assert warped[state].nodata == 65535
    # The second of two rules counts where the band of the first is missing.
    stateless = {**tile, "assets": {key: asset for key, asset in tile["assets"].items() if key != state}}
    assert list(modis.assets(stateless, values(modis.RECIPE, assets=("red",)))) == ["sur_refl_b01", control]


def test_an_item_without_the_band_that_tells_clouds_is_refused(real_data: Path) -> None:
    item = template(real_data, "earthsearch-v1__sentinel-2-l2a__S2A_29RKH")
    blind = {**item, "assets": {key: asset for key, asset in item["assets"].items() if not key.startswith("scl")}}
    with pytest.raises(ValueError, match="it has no scl, which marks the clouds of sentinel-2-l2a"):
        sentinel_2.assets(blind, values(sentinel_2.RECIPE))
    # Level 1C has no such band at all.
    of_level_1 = {**blind, "collection": "sentinel-2-l1c"}
    assert list(sentinel_2.assets(of_level_1, values(sentinel_2.RECIPE, assets=("red",)))) == ["red"]


def test_clouds_are_counted_whatever_bands_are_kept(scene_items: list[Item], tmp_path: Path) -> None:
    clouds = []
    for bands in (("red", "green", "nir", "scl"), ("red",)):
        recipe = recipe_of(
            scene_items, assets=lambda item, options, bands=bands: listed_assets(item, bands, sensor="sentinel-2-l2a")
        )
        process(recipe, tmp_path / str(len(bands)), 0, size=64, progress=False)
        clouds.append(xchip.read_index(tmp_path / str(len(bands)))["cloud_fraction"].tolist())
    assert clouds[0] == clouds[1]
    assert max(clouds[0]) > 0


def test_level_1_keeps_pan_and_thermal_bands(real_data: Path) -> None:
    level_2 = template(real_data, "usgs__landsat-c2l2-sr__LC09_092068_v1.0")
    level_1 = level_1_of(level_2)
    options = values(landsat.RECIPE)
    both = {"blue", "green", "red", "nir08", "swir16", "swir22", "qa_pixel"}
    assert set(landsat.assets(level_1, options)) == both | {"pan", "lwir11", "lwir12"}
    assert set(landsat.assets(level_2, options)) == both


def level_1_of(level_2: Item) -> Item:
    """A level-1 item in the form of the published level-2 one."""
    item: Item = json.loads(json.dumps(level_2).replace("level-2", "level-1").replace("L2SP", "L1TP").replace("_SR_B", "_B"))
    item["collection"] = landsat.LEVEL_1
    for key, number in (("pan", 8), ("cirrus", 9), ("lwir11", 10), ("lwir12", 11)):
        item["assets"][key] = json.loads(json.dumps(item["assets"]["red"]).replace("_B4.TIF", f"_B{number}.TIF"))
        item["assets"][key]["eo:bands"] = [{"name": f"B{number}", "common_name": key}]
    return item


# -- recipes and units --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_complete(name: str) -> None:
    recipe = find(name)
    options = recipe.all_options()
    assert recipe.name == name
    assert len({option.name for option in options}) == len(options)
    assert {option.name for option in COMMON} - {option.name for option in options} <= {"api"}
    defaults = {option.name: option.default for option in options}
    assert (defaults["max_nodata"], defaults["size"], defaults["copy"]) == (0.5, 256, True), "as stacchip has them"
    for option in options:
        assert option.help.endswith(".")
        assert not option.required or option.example


def test_options_are_checked() -> None:
    recipe = Recipe("x", "X.", units=lambda o: [], choose=None, assets=None, options=(Option("n", "integer", "N.", 3),))  # type: ignore[arg-type]
    assert recipe.values({"n": None})["n"] == 3
    with pytest.raises(ValueError, match="recipe 'x' has no option cloud; it has assets, copy"):
        recipe.values({"cloud": 1})
    with pytest.raises(ValueError, match=r"recipe 'landsat' needs source=, such as 'places\.gpkg'"):
        find("landsat").values({})
    with pytest.raises(ValueError, match="unknown recipe 'spot'; use one of sentinel-2, landsat"):
        find("spot")


@pytest.mark.parametrize("ending", ["gpkg", "fgb", "geojson", "parquet"])
def test_units_are_the_rows_of_a_layer(tmp_path: Path, ending: str) -> None:
    import geopandas

    path = tmp_path / f"tiles.{ending}"
    frame = geopandas.GeoDataFrame({"name": ["a", "b", "c"]}, geometry=[HERE, ELSEWHERE, None], crs="EPSG:4326")
    if ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path, **({"SPATIAL_INDEX": "NO"} if ending == "fgb" else {}))
    units = layer_units({"source": path, "column": "name"})
    assert len(units) == 3
    assert (units[1].index, units[1].name) == (1, "b")
    assert shapely.equals_exact(units[1].geometry, ELSEWHERE, 1e-9)
    with pytest.raises(ValueError, match=r"row 2 \(c\) of .* has no geometry"):
        units[2]


def test_a_layer_in_metres_is_brought_to_degrees(tmp_path: Path) -> None:
    import geopandas

    path = tmp_path / "tiles.gpkg"
    geopandas.GeoDataFrame({"name": ["a"]}, geometry=[HERE], crs="EPSG:4326").to_crs("EPSG:3857").to_file(path)
    (unit,) = layer_units({"source": path, "column": "name"})
    assert shapely.equals_exact(unit.geometry, HERE, 1e-6)


# Each with its CRS and with the stretches of longitude that it covers, to a hundredth.
ACROSS = {
    "Mercator round the Pacific": ("EPSG:3832", shapely.box(3.33e6, -2e6, 3.35e6, -1.98e6), [(179.91, 180), (-180, -179.91)]),
    "a UTM zone": ("EPSG:32601", shapely.box(300000, 7200000, 409800, 7309800), [(178.62, 180), (-180, -178.91)]),
    "beyond 180 degrees": ("EPSG:4326", shapely.box(179, -18, 181, -17), [(179, 180), (-180, -179)]),
    "cut already": ("EPSG:4326", shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -178, 1)]),
                    [(179, 180), (-180, -178)]),
}  # fmt: skip


@pytest.mark.parametrize(("crs", "shape", "stretches"), ACROSS.values(), ids=ACROSS)
def test_a_place_across_the_antimeridian_is_searched_there(
    tmp_path: Path, crs: str, shape: Any, stretches: list[tuple[float, float]]
) -> None:
    import geopandas

    path = tmp_path / "tiles.gpkg"
    geopandas.GeoDataFrame({"name": ["01"]}, geometry=[shape], crs=crs).to_file(path)
    (unit,) = layer_units({"source": path, "column": "name"})
    assert unit.geometry.is_valid
    found = sorted((part.bounds[0], part.bounds[2]) for part in shapely.get_parts(unit.geometry))
    assert np.allclose(found, sorted(stretches), atol=0.01)
    # Landsat and NAIP are searched at the centre alone: of the same shape in longitudes that go on eastwards.
    asked = Shelf([])
    landsat_values = values(landsat.RECIPE)
    assert not list(landsat.choose(unit, asked, np.random.default_rng(0), landsat_values))  # type: ignore[arg-type]
    (point,) = {question["intersects"] for question in asked.questions}
    going_on = shapely.transform(unit.geometry, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))
    assert np.allclose([point.x % 360, point.y], [going_on.centroid.x, going_on.centroid.y], atol=1e-6)
    assert -180 <= point.x <= 180


@pytest.mark.parametrize("shape", [shapely.box(-20_000_000, -5e6, 20_000_000, 5e6), shapely.box(-8e6, 0, 19e6, 1e6)])
def test_a_wide_place_does_not_cross_the_antimeridian(tmp_path: Path, shape: Any) -> None:
    import geopandas

    path = tmp_path / "wide.gpkg"
    geopandas.GeoDataFrame({"name": ["wide"]}, geometry=[shape], crs="EPSG:3857").to_file(path)
    (unit,) = layer_units({"source": path, "column": "name"})
    west, _, east, _ = shape.bounds
    assert np.allclose(unit.geometry.bounds[::2], [west / 20037508.34 * 180, east / 20037508.34 * 180])
    assert unit.geometry.geom_type == "Polygon"


def test_a_layer_that_does_not_tell_its_metres_is_refused(tmp_path: Path) -> None:
    import geopandas

    path = tmp_path / "metres.parquet"
    geopandas.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(499980, 6397440, 609780, 6507240)]).to_parquet(path)
    with pytest.raises(ValueError, match=r"metres\.parquet' has no CRS, and coordinates that are not degrees, such as 609780;"):
        len(layer_units({"source": path, "column": "name"}))


def test_layers_that_are_none_are_refused(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "tiles.gpkg", [HERE], tile=["29RKH"])
    with pytest.raises(ValueError, match=r"has no column 'name', only tile; pass its column of names as column="):
        len(layer_units({"source": path, "column": "name"}))
    with pytest.raises(OSError, match=r"can't open the layer '.*nowhere\.gpkg'"):
        len(layer_units({"source": tmp_path / "nowhere.gpkg", "column": "name"}))


# -- the pipeline -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene_items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    from archives import make_items

    return make_items(tmp_path_factory.mktemp("scenes"), 4, shape=(256, 256))


def recipe_of(items: list[Item], **fields: Any) -> Recipe:
    """A recipe whose unit is an item each."""
    known: dict[str, Any] = {
        "units": lambda options: [Unit(number, item["id"]) for number, item in enumerate(items)],
        "choose": lambda unit, catalogue, rng, options: iter([items[unit.index]]),
        "assets": lambda item, options: listed_assets(item, options["assets"] or item["assets"]),
    }
    return Recipe("test", "A test.", **(known | fields))


def test_units_are_done_one_by_one_or_several_or_in_shares(scene_items: list[Item], tmp_path: Path) -> None:
    recipe = recipe_of(scene_items)
    wanted: list[tuple[Any, int]] = [(2, 1), ([2, 0, 0], 2), (slice(1, None, 2), 2), (slice(None), 4), (slice(9, None, 10), 0)]
    for number, (index, done) in enumerate(wanted):
        report = process(recipe, tmp_path / str(number), index, progress=False, size=128)
        assert (report.done, report.skipped, report.failed) == (done, 0, 0)
    assert not (tmp_path / "4").exists(), "where there is nothing to do nothing is written"
    report = process(recipe, tmp_path / "0", slice(None), progress=False, size=128)
    assert (report.done, report.skipped) == (3, 1)


@pytest.mark.parametrize("index", [4, -1, [0, 99]])
def test_an_index_out_of_range_is_refused(scene_items: list[Item], tmp_path: Path, index: Any) -> None:
    with pytest.raises(ValueError, match=r"index (4|-1|99) is out of range: 'test' has 4 units, counted from 0"):
        process(recipe_of(scene_items), tmp_path / "archive", index, progress=False)
    with pytest.raises(ValueError, match="no unit of 'test' to do"):
        process(recipe_of(scene_items), tmp_path / "archive", [], progress=False)
    assert not (tmp_path / "archive").exists()


def test_an_item_that_a_recipe_can_not_use_does_not_stop_the_others(scene_items: list[Item], tmp_path: Path) -> None:
    def assets(item: Item, options: Any) -> Any:
        if item["id"] == "item-0001":
            raise ValueError("it is a picture of a cat")
        return listed_assets(item, ["purple"] if item["id"] == "item-0002" else ["scl", "red"])

    report = process(recipe_of(scene_items, assets=assets), tmp_path, slice(None), progress=False, size=128)
    assert (report.done, report.failed) == (2, 2)
    messages = dict(zip(report.failures["item_id"], report.failures["message"], strict=True))
    assert "it is a picture of a cat" in messages["item-0001"]
    assert "none of its assets is among the bands to keep; choose bands with assets= (--assets)" in messages["item-0002"]
    again = process(recipe_of(scene_items), tmp_path, [1], progress=False, size=128, assets=("scl", "red"))
    assert again.done == 1, "and once it can be used, it is"


def test_without_copies_files_stay_where_they_are(scene_items: list[Item], tmp_path: Path) -> None:
    report = process(recipe_of(scene_items), tmp_path, 0, progress=False, size=128, copy=False)
    assert report.done == 1
    (path,) = [path for path in (tmp_path / ITEMS).rglob("*") if path.is_file()]
    hrefs = {asset["href"] for asset in json.loads(path.read_text())["assets"].values()}
    assert hrefs == {asset["href"] for asset in scene_items[0]["assets"].values()}
    copied = process(recipe_of(scene_items), tmp_path, 0, progress=False, size=128)
    assert copied.done == 1, "to copy them after all is another thing to do"


def test_an_archive_holds_the_items_of_several_recipes(scene_items: list[Item], tmp_path: Path) -> None:
    unknown = [{**scene_items[0], "id": "no-collection", "collection": "01GSEBA9"}]
    process(recipe_of(scene_items), tmp_path, 0, progress=False, size=128)
    report = process(recipe_of(unknown, sensor="sentinel-2-l2a"), tmp_path, 0, progress=False, size=128)
    assert (report.done, report.failed) == (1, 0)
    assert xchip.read_index(tmp_path)["sensor"].unique().tolist() == ["sentinel-2-l2a"]


def test_limits_and_sizes_reach_the_index(scene_items: list[Item], tmp_path: Path) -> None:
    process(recipe_of(scene_items), tmp_path, slice(None), progress=False, size=(32, 64), max_nodata=0.1, max_cloud_fraction=0.3)
    rows = xchip.read_index(tmp_path)
    assert set(zip(rows["height"], rows["width"], strict=True)) == {(32, 64)}
    assert rows["nodata_fraction"].max() <= 0.1
    assert rows["cloud_fraction"].max() <= 0.3


def test_a_recipe_without_an_api_has_nothing_to_search() -> None:
    with pytest.raises(ValueError, match="this recipe has no API to search"):
        Catalogue(None).search()


# -- from search to index -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buckets]:
    with buckets(tmp_path_factory.mktemp("s3")) as found:
        yield found


DATES = [(year, quarter, number) for year in YEARS for quarter in (1, 2, 3, 4) for number in (0, 1)]


def moment(year: int, quarter: int, number: int) -> str:
    return f"{year}-{3 * quarter - 2 + number:02d}-{5 + number:02d}T11:34:25.405000Z"


def covers(seed: int) -> list[float]:
    """Cloud covers, as numbers that sort otherwise as text; two of a quarter are never the same."""
    return [round(float(value), 3) for value in np.random.default_rng(seed).choice(10_000, len(DATES), replace=False) / 100]


@pytest.fixture(scope="module")
def sentinel_2_catalogue(
    s3: Buckets, real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[Item], Path]]:
    """(URL of the API, its items, layer of tiles); the second tile has no scene."""
    like = template(real_data, "earthsearch-v1__sentinel-2-l2a__S2A_29RKH")
    folder = tmp_path_factory.mktemp("sentinel-2")
    rng = np.random.default_rng(1)
    files = {}
    for key in SENTINEL_2_BANDS:
        asset = like["assets"][key]
        path = folder / "s3" / "s2" / asset["href"].rpartition("/")[2]
        scale = 2 if key in ("blue", "green", "red", "nir") else 1
        if key == "scl":
            pixels = rng.choice([0, 4, 5, 8, 3], (SIZE, SIZE)).astype("uint8")
            pixels[:, :128] = 0  # chips without data on the left
        else:
            pixels = rng.integers(1, 9000, (SIZE * scale, SIZE * scale)).astype("uint16")
        write_band(path, pixels, 20 / scale, nodata=0)
        files[key] = path
    s3.upload(folder / "s3", "scenes")
    items = [
        published(like, f"S2A_29RKH_{year}{quarter}{number}", moment(year, quarter, number), files, "s3://scenes/s2",
                  **{"eo:cloud_cover": cover, "s2:nodata_pixel_percentage": 20 if number else 0})
        for (year, quarter, number), cover in zip(DATES, covers(2), strict=True)
    ]  # fmt: skip
    decoys = [
        published(like, f"decoy-{name}", moment(year, 1, 0), files, "s3://scenes/s2", **{"eo:cloud_cover": 0.0, **properties})
        for year in YEARS
        for name, properties in (
            (f"{year}-neighbour", {"grid:code": "MGRS-29RKJ"}),
            (f"{year}-edge", {"s2:nodata_pixel_percentage": 20.5}),
        )
    ]
    tile = tile_of(like)
    layer = write_layer(folder / "tiles.gpkg", [tile, shapely.box(0, 0, 1, 1), tile], ["29RKH", "31NAA", "29RKH"])
    with stac_api(folder, items + decoys) as url:
        yield url, items, layer


@pytest.mark.server
def test_sentinel_2_from_search_to_index(s3: Buckets, sentinel_2_catalogue: tuple[str, list[Item], Path]) -> None:
    api, items, layer = sentinel_2_catalogue
    options = {"api": api, "source": str(layer)}
    picked = list(choose_items("sentinel-2", 0, **options))
    years = {quarter_of(item)[0] for item in picked}
    assert {quarter_of(item) for item in picked} == {
        quarter_of(item) for item in items if quarter_of(item)[0] in years and cloud(item) <= 75
    }
    assert all(is_best(item, items) and cloud(item) <= 75 for item in picked)
    root = "s3://scenes/archive-s2"
    rows = three_runs("sentinel-2", root, 0, storage=s3.owner, pixels=s3.owner, **options)
    assert set(rows["item_id"]) == {item["id"] for item in picked}
    assert set(rows["sensor"]) == {"sentinel-2-l2a"}
    assert rows["nodata_fraction"].max() <= 0.5
    assert len(rows) == 2 * len(picked), "of 2 x 2 chips the left ones are empty"
    stored = json.loads(Store(root, s3.owner).read(f"items/sentinel-2-l2a/{picked[0]['id']}/{picked[0]['id']}.json"))
    assert set(stored["assets"]) == set(SENTINEL_2_BANDS)
    assert all(asset["href"].startswith("./") for asset in stored["assets"].values())


@pytest.mark.server
def test_an_empty_search_is_nothing_to_do(
    s3: Buckets, sentinel_2_catalogue: tuple[str, list[Item], Path], tmp_path: Path
) -> None:
    api, _, layer = sentinel_2_catalogue
    report = process("sentinel-2", tmp_path / "archive", 1, api=api, source=str(layer), progress=False)
    assert (report.done, report.skipped, report.failed, len(report.failures)) == (0, 0, 0, 0)
    assert not (tmp_path / "archive").exists()


@pytest.mark.server
def test_landsat_from_search_to_index(s3: Buckets, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    level_2 = template(real_data, "usgs__landsat-c2l2-sr__LC09_092068_v1.0")
    rng = np.random.default_rng(3)
    items = []
    for like in (level_1_of(level_2), level_2):
        names = landsat.assets(like, values(landsat.RECIPE))
        files = {}
        for key in names:
            path = tmp_path / "s3" / like["collection"] / like["assets"][key]["alternate"]["s3"]["href"].rpartition("/")[2]
            size, resolution = (2 * SIZE, 15.0) if key == "pan" else (SIZE, 30.0)
            clear = np.where(rng.random((size, size)) < 0.3, 22280, 21824).astype("uint16")  # cloud with high confidence; clear
            reflectance = rng.integers(1, 9000, (size, size)).astype("uint16")
            write_band(path, clear if key == "qa_pixel" else reflectance, resolution, nodata=None if key == "qa_pixel" else 0)
            files[key] = path
        for (year, quarter, number), cover in zip(DATES, covers(len(items)), strict=True):
            item_id = f"{like['id'][:4]}_{like['collection']}_{year}{quarter}{number}"
            platform = {"platform": "LANDSAT_7" if cover < 2 else "LANDSAT_8"}
            root = f"s3://scenes/{like['collection']}"
            properties = {"eo:cloud_cover": cover, **platform}
            items.append(published(like, item_id, moment(year, quarter, number), files, root, **properties))
    s3.upload(tmp_path / "s3", "scenes")
    place = tile_of(level_2)
    layer = write_layer(tmp_path / "places.gpkg", [shapely.box(0, 0, 1, 1), place], ["nowhere", "here"])
    with stac_api(tmp_path, items) as api:
        options = {"api": api, "source": str(layer), "pixels": replace(s3.owner, requester_pays=True)}
        root = "s3://scenes/archive-landsat"
        rows = three_runs("landsat", root, 1, storage=s3.owner, **options)
    years = rows.groupby("collection")["datetime"].agg(lambda times: set(times.dt.year)).to_dict()
    assert set(years) == {landsat.LEVEL_1, landsat.LEVEL_2}
    assert all(len(found) == 1 for found in years.values())
    assert years[landsat.LEVEL_1] != years[landsat.LEVEL_2]
    sensors = rows.groupby("collection")["sensor"].unique().map(list).to_dict()
    assert sensors == {landsat.LEVEL_1: ["landsat-c2-l1"], landsat.LEVEL_2: ["landsat-c2-l2"]}
    assert rows["cloud_fraction"].between(0.25, 0.35).all()
    names = {entry.name.rpartition("/")[2] for entry in Store(root, s3.owner).entries("items/landsat-c2l1")}
    assert {name.rpartition("_")[2] for name in names if name.endswith(".TIF")} >= {"B8.TIF", "B10.TIF", "B11.TIF", "PIXEL.TIF"}


@pytest.mark.server
def test_sentinel_1_from_search_to_index(s3: Buckets, real_data: Path, tmp_path: Path) -> None:
    like = template(real_data, "planetarycomputer__sentinel-1-rtc")
    rng = np.random.default_rng(4)
    files = {}
    for key in ("vv", "vh"):
        values = rng.random((600, 600)).astype("float32")
        values[:, :256] = -32768
        values[100:110, 256:266] = -32768
        files[key] = tmp_path / "s3" / "s1" / f"iw-{key}.rtc.tiff"
        write_band(files[key], values, 10, nodata=-32768)
    s3.upload(tmp_path / "s3", "scenes")
    here = tile_of(like)
    away = {**like, "geometry": json.loads(shapely.to_geojson(ELSEWHERE)), "bbox": list(ELSEWHERE.bounds)}
    items = [
        published(one, f"S1A_{name}_{year}{quarter}{number}_rtc", moment(year, quarter, number), files, "s3://scenes/s1")
        for year, quarter, number in DATES
        for name, one in (("away", away), ("here", like))
    ]
    layer = write_layer(tmp_path / "tiles.gpkg", [here], ["34UDC"])
    with stac_api(tmp_path, items) as api:
        options = {"api": api, "source": str(layer), "pixels": s3.owner}
        root = "s3://scenes/archive-s1"
        rows = three_runs("sentinel-1", root, 0, storage=s3.owner, **options)
    assert [item_id[:8] for item_id in rows["item_id"].unique()] == ["S1A_here"]
    assert set(rows["sensor"]) == {"sentinel-1-rtc"}
    assert rows.sort_values("chip_index_y")["nodata_fraction"].tolist() == pytest.approx([100 / 256**2, 0.0])
    (name,) = {entry.name for entry in Store(root, s3.owner).entries("items") if entry.name.endswith("iw-vv.rtc.tiff")}
    with s3.owner.gdal(), rasterio.open(f"{root}/{name}") as copy, rasterio.open(files["vv"]) as source:
        np.testing.assert_array_equal(copy.read(), source.read())


# -- a recipe of one's own ----------------------------------------------------------------------------------------------


@pytest.mark.server
def test_the_recipe_of_the_documentation_runs(scene_items: list[Item], tmp_path: Path) -> None:
    """Line by line, but for the places and names of another catalogue."""
    page = (Path(__file__).resolve().parents[1] / ".docs" / "pages" / "extending" / "processor.md").read_text()
    block = re.search(r"^<!-- not run: it needs a STAC API -->\n```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    code = block[1]
    assert len(code.split("\n")) <= 20
    layer = write_layer(tmp_path / "places.gpkg", [tile_of(scene_items[0])], ["here"])
    with stac_api(tmp_path, scene_items) as api:
        for old, new in (
            ('"https://..."', repr(api)), ('"hls2-s30"', '"sentinel-2-l2a"'), ('("B04", "Fmask")', '("red", "scl")'),
            ('"archive"', repr(str(tmp_path / "archive"))), ('"places.gpkg"', repr(str(layer))),
        ):  # fmt: skip
            assert code.count(old) == 1, old
            code = code.replace(old, new)
        known: dict[str, Any] = {}
        exec(code, known)
    assert set(known) >= {"mine", "latest", "layer_units"}
    assert xchip.read_index(tmp_path / "archive")["item_id"].unique().tolist() == [scene_items[-1]["id"]]
