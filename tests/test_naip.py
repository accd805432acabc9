"""The NAIP recipe: which scenes of a place, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.transform
import shapely
from command_line import refused, run
from hypothesis import given
from hypothesis import strategies as st
from processes import stac_api
from recipe_runs import Shelf, buckets, three_runs

import xchip
from xchip.io.storage import StorageOptions
from xchip.processors import naip, process
from xchip.processors.recipe import SAME, Catalogue, Item, Unit
from xchip.processors.sample_places import sample_places, write_places

OPTIONS: dict[str, Any] = {option.name: option.default for option in naip.RECIPE.all_options()}
BOX = (-85.94, 30.935, -85.87, 31.003)
PLACE = Unit(0, "a park", shapely.box(-85.91, 30.96, -85.89, 30.98))


def photograph(day: str, name: str = "m_3008501_ne_16_1", box: tuple[float, float, float, float] = BOX, **asset: Any) -> Item:
    """An item as the Planetary Computer has it: one file of four bands, which declares no nodata."""
    year = day[:4]
    bands = [{"name": band, "common_name": band.lower()} for band in ("Red", "Green", "Blue", "NIR")]
    image = {"href": f"https://example.com/{name}.tif", "type": "image/tiff", "roles": ["data"], "eo:bands": bands}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"al_{name}_{day.replace('-', '')}",
        "collection": naip.COLLECTION,
        "geometry": shapely.box(*box).__geo_interface__,
        "bbox": list(box),
        "links": [],
        "properties": {"datetime": f"{day}T16:00:00Z", "gsd": 1.0, "naip:year": year, "naip:state": "al"},
        "assets": {
            "image": image | asset,
            "thumbnail": {"href": f"https://example.com/{name}.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        },
    }


def chosen(items: list[Item], seed: int = 0, order: int = 0, **options: Any) -> list[Item]:
    shelf: Any = Shelf(items, order)
    return list(naip.choose(PLACE, shelf, np.random.default_rng(seed), OPTIONS | options))


def years(items: list[Item]) -> list[int]:
    return [int(item["properties"]["naip:year"]) for item in items]


# Which scenes

DAYS = st.dates(min_value=np.datetime64("2010-01-01").item(), max_value=np.datetime64("2023-12-31").item())


@given(days=st.lists(DAYS, max_size=12, unique=True), seed=st.integers(0, 10_000), order=st.integers(0, 99))
def test_the_latest_and_one_of_an_earlier_year(days: list[Any], seed: int, order: int) -> None:
    items = [photograph(f"{day}") for day in days]
    found = chosen(items, seed, order)
    ids = [item["id"] for item in found]
    assert len(set(ids)) == len(ids)
    if not days:
        assert ids == []
        return
    assert found[0]["properties"]["datetime"][:10] == f"{max(days)}"
    older = [day for day in days if day.year < max(days).year]
    assert len(found) == 1 + bool(older)
    assert all(year < max(days).year for year in years(found)[1:])
    assert [item["id"] for item in chosen(items, seed, order + 1)] == ids


def test_each_older_scene_is_taken_as_often() -> None:
    items = [photograph(f"{year}-07-01") for year in (2011, 2013, 2015, 2017, 2019)]
    taken = [years(chosen(items, seed))[1] for seed in range(400)]
    assert set(taken) == {2011, 2013, 2015, 2017}
    assert min(map(taken.count, set(taken))) > 70


def test_a_neighbour_of_the_same_year_is_not_older() -> None:
    latest, neighbour = photograph("2021-11-03"), photograph("2021-10-30", "m_3008502_nw_16_1")
    assert [item["id"] for item in chosen([neighbour, latest])] == [latest["id"]]
    assert years(chosen([neighbour, latest, photograph("2019-01-01")])) == [2021, 2019]


def test_a_scene_may_tell_a_stretch_of_time_or_another_zone() -> None:
    latest, stretch, evening = photograph("2021-01-01"), photograph("2019-05-01", "b"), photograph("2018-12-31", "c")
    stretch["properties"] |= {"datetime": None, "start_datetime": "2019-05-01T00:00:00Z", "end_datetime": "2019-06-01T00:00:00Z"}
    assert [item["id"] for item in chosen([stretch, latest], older=5)] == [latest["id"], stretch["id"]]
    # In UTC it is already 2021: no earlier year.
    evening["properties"]["datetime"] = "2020-12-31T22:00:00-05:00"
    assert [item["id"] for item in chosen([latest, evening, stretch], older=5)] == [latest["id"], stretch["id"]]


def test_a_scene_without_its_picture_fails_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "latest.tif"
    write_photograph(path)
    whole, bare = photograph("2021-11-03", href=str(path)), photograph("2019-11-03")
    del bare["assets"]["image"]

    def choose(unit: Unit, catalogue: Any, rng: np.random.Generator, options: Any) -> Iterator[Item]:
        shelf: Any = Shelf([whole, bare])
        return naip.choose(unit, shelf, rng, options)

    recipe = replace(naip.RECIPE, choose=choose)
    report = process(recipe, tmp_path / "archive", 1, source=places(tmp_path), size=32, pixels=StorageOptions(), progress=False)
    assert (report.done, report.failed) == (1, 1)
    assert "has no asset image" in report.failures.iloc[0]["message"]


def test_an_asset_goes_by_its_name_whatever_its_case_and_ending() -> None:
    item = photograph("2021-11-03")
    item["assets"]["IMAGE.tif"] = item["assets"].pop("image")
    (found,) = chosen([item])
    assert naip.assets(found, OPTIONS) == {"IMAGE.tif": SAME}
    assert found["assets"]["IMAGE.tif"]["raster:bands"][0]["nodata"] == 0


def test_how_many_older_ones_is_an_option() -> None:
    items = [photograph(f"{year}-07-01") for year in (2011, 2013, 2015, 2017)]
    assert years(chosen(items, older=0)) == [2017]
    assert years(chosen(items, older=9)) == [2017, 2011, 2013, 2015]
    with pytest.raises(ValueError, match="0 or more, got -1"):
        chosen(items, older=-1)


def test_only_scenes_over_the_centre_of_the_place_count() -> None:
    away = photograph("2023-07-01", box=(-85.87, 30.935, -85.80, 31.003))
    assert chosen([away]) == []
    shelf: Any = Shelf([away])
    list(naip.choose(PLACE, shelf, np.random.default_rng(0), OPTIONS))
    assert shelf.questions[0]["intersects"].equals(PLACE.geometry.centroid)


def test_choice_among_real_items(real_data: Path) -> None:
    items = [json.loads(line) for line in (real_data / "items/planetarycomputer__naip-150.ndjson").read_text().splitlines()]
    shelf: Any = Shelf(items)
    for item in items[::10]:
        unit = Unit(0, "place", shapely.geometry.shape(item["geometry"]))
        covering = [other for other in items if shapely.geometry.shape(other["geometry"]).intersects(unit.geometry.centroid)]
        found = list(naip.choose(unit, shelf, np.random.default_rng(1), OPTIONS))
        assert years(found)[0] == max(years(covering))
        assert len(found) == 1 + (len(set(years(covering))) > 1)


@pytest.mark.server
def test_the_search_of_a_real_server(tmp_path: Path) -> None:
    items = [photograph(f"{year}-07-01") for year in range(2003, 2024, 2)]
    items += [photograph("2024-01-01", box=(-85.87, 30.935, -85.80, 31.003))]
    with stac_api(tmp_path, items) as url:
        served = list(naip.choose(PLACE, Catalogue(url), np.random.default_rng(3), OPTIONS))
    assert years(served) == years(chosen(items, 3))
    assert years(served)[0] == 2023


# What becomes of them


def test_the_one_file_is_kept_as_it_is() -> None:
    item = photograph("2021-11-03")
    assert naip.assets(item, OPTIONS) == {"image": SAME}
    assert naip.assets(item, OPTIONS | {"assets": ("red", "nir")}) == {"image": SAME}
    with pytest.raises(ValueError, match=r"has no asset image or asset .*, only thumbnail"):
        naip.assets(item | {"assets": {"thumbnail": {}}}, OPTIONS)


def test_items_of_every_catalogue_say_that_0_is_no_data(real_data: Path) -> None:
    names = ("planetarycomputer__naip", "naip-source__m_4207009_ne_19", "naip-source__stacchip_test_item")
    for name in names:
        item = json.loads((real_data / f"items/{name}.json").read_text())
        before = json.dumps(item)
        told = naip.with_fill(item)
        assert json.dumps(item) == before
        (key,) = naip.assets(told, OPTIONS)
        assert [band["nodata"] for band in told["assets"][key]["raster:bands"]] == [0] * 4
    newer = photograph("2021-11-03", bands=[{"name": "red", "data_type": "uint8"}, {"name": "green"}])
    assert [band["nodata"] for band in naip.with_fill(newer)["assets"]["image"]["bands"]] == [0, 0]


def write_photograph(path: Path, seed: int = 0) -> np.ndarray:
    """Red, green, blue and infrared, which is tagged as alpha, as in some files; the left third is fill. Gives the pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 96, 96), "uint8")
    pixels[0, :, 40:50] = 0  # black in one band is a colour
    pixels[:, :, :32] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = rasterio.transform.from_origin(601_000, 3_430_000, 1, 1)
    profile = {"driver": "GTiff", "height": 96, "width": 96, "count": 4, "dtype": "uint8", "crs": "EPSG:26916"}
    with rasterio.open(path, "w", **profile, transform=transform, photometric="RGB", alpha="YES") as file:
        file.write(pixels)
    return pixels


def places(folder: Path) -> str:
    """A layer of two places, as `xchip sample-places` makes it: only the second has scenes."""
    points = [shapely.Point(0, 0), PLACE.geometry.centroid]
    layer = geopandas.GeoDataFrame({"name": ["sea", None]}, geometry=points, crs="EPSG:4326")
    path = write_places(sample_places([layer]), folder / "places.gpkg")
    return str(path)


@pytest.mark.server
def test_from_a_real_api_to_an_archive_in_a_bucket(tmp_path: Path) -> None:
    pixels, items = {}, []
    for year in (2017, 2019, 2021):
        path = tmp_path / "source" / "al" / f"{year}" / f"m_{year}.tif"
        items.append(photograph(f"{year}-07-01", href=f"s3://scenes/al/{year}/m_{year}.tif"))
        pixels[items[-1]["id"]] = write_photograph(path, year)
    for name in ("s3", "api"):
        (tmp_path / name).mkdir()
    with buckets(tmp_path / "s3") as store, stac_api(tmp_path / "api", items) as url:
        store.upload(tmp_path / "source", "scenes")
        options = {"storage": store.owner, "api": url, "source": places(tmp_path), "size": 32}
        payer = StorageOptions(
            endpoint=store.endpoint, key="testkey", secret="testsecret", requester_pays=True, signer="planetary-computer"
        )
        rows = three_runs("naip", "s3://scenes/archive", 1, pixels=payer, **options)
        environment = {"XCHIP_NAIP_API": url, "STACCHIP_SAMPLE_SOURCE": options["source"], "STACCHIP_BUCKET": "scenes"}
        at_sea = run("naip", env=environment | {"AWS_BATCH_JOB_ARRAY_INDEX": "0"})
        beyond = run("naip", env=environment | {"AWS_BATCH_JOB_ARRAY_INDEX": "2"})
    assert (at_sea.exit_code, at_sea.output) == (0, "No items found for unit 0: there is nothing to do.\n")
    refused(beyond, "index 2 is out of range: 'naip' has 2 units")
    assert len(set(rows["item_id"])) == 2
    assert items[-1]["id"] in set(rows["item_id"])
    assert set(rows["sensor"]) == {"naip"}
    # Chips of fill alone are left out; a pixel is fill where all four bands are 0.
    assert set(rows["chip_index_x"]) == {1, 2}
    for row in rows.itertuples():
        chip = pixels[row.item_id][:, row.row_off : row.row_off + 32, row.col_off : row.col_off + 32]
        assert row.nodata_fraction == (chip == 0).all(axis=0).mean()


def test_four_named_bands_of_one_file_and_nodata_by_pixel_values(tmp_path: Path) -> None:
    pixels = write_photograph(tmp_path / "m.tif")
    item = naip.with_fill(photograph("2021-07-01", href=str(tmp_path / "m.tif")))
    recipe = replace(naip.RECIPE, choose=lambda unit, catalogue, rng, options: iter([item]), pixels=StorageOptions())
    report = process(
        recipe, tmp_path / "archive", 1, source=places(tmp_path), size=24, max_nodata=1.0, progress=False, client=False
    )
    assert report.failed == 0, report.failures["message"].tolist()
    rows = xchip.read_index(tmp_path / "archive")
    assert rows["nodata_fraction"].tolist() == [
        (pixels[:, y : y + 24, x : x + 24] == 0).all(axis=0).mean() for y in range(0, 96, 24) for x in range(0, 96, 24)
    ]
    ds = xchip.stack([str(next((tmp_path / "archive/items").rglob("*.json")))])
    assert list(ds.data_vars) == ["red", "green", "blue", "nir"]
    assert (np.stack([ds[name].isel(time=0) for name in ds.data_vars]) == pixels).all()
