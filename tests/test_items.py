"""`understand` and `plain_items`: real published items against a table made by hand, and items made up to be difficult."""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from item_making import GRID, TRANSFORM, UTM, header_of, make_item, message, named, pixels, tif
from item_table import REFUSED, ROWS, Refused, Row

from xchip import sensors
from xchip.core.grid import PixelGrid
from xchip.core.scene import Header
from xchip.quality import CLEAR, CLOUD, NODATA, SHADOW, SNOW, WATER, NodataRule, QualityRule, values
from xchip.raster.header import read_header
from xchip.stac.scene.understand import HeaderNeeded, ItemError, plain_items, scenes, understand

# -- published items -----------------------------------------------------------------------------------------------


def first_of(folder: Path, file: str) -> tuple[dict[str, Any], str | None]:
    return next(plain_items(folder / "items" / file))


def expected_grid(row: Row, crs: str) -> PixelGrid:
    a, c, e, f = row.transform
    return PixelGrid(crs, (a, 0, c, 0, e, f), row.shape)


def test_every_file_is_in_the_table(shared_data: Path) -> None:
    found = {path.name for path in (shared_data / "items").iterdir()}
    found |= {f"../rasters/{path.parent.name}/item.json" for path in (shared_data / "rasters").glob("*/item.json")}
    listed = {entry.file for entry in [*ROWS, *REFUSED]}
    # The two Landsat scenes have tests of their own, on their real files.
    assert found - listed == {"../rasters/landsat_001062/item.json", "../rasters/landsat_008059/item.json"}


def check(row: Row, scene: Any) -> None:
    if ":" in row.crs:
        assert scene.grid.crs == row.crs
    else:
        assert row.crs in scene.grid.crs
        assert pyproj.CRS(scene.grid.crs).to_epsg(100) is None
    assert scene.grid == expected_grid(row, scene.grid.crs)
    assert scene.sensor == row.sensor
    names = [band.name for band in scene.bands]
    if row.bands.endswith("..."):
        assert names[:3] == row.bands.split()[:3]
        assert len(names) == 58
    else:
        assert names == row.bands.split()
    if row.quality is None:
        assert isinstance(scene.rule, NodataRule)
        assert scene.rule.bands == tuple(band.name for band in scene.quality)
        assert set(scene.rule.bands) <= set(names)
    else:
        assert isinstance(scene.rule, QualityRule)
        assert (scene.rule.band, [band.name for band in scene.quality]) == (row.quality, [row.quality])
    assert scene.datetime.tzinfo is UTC
    assert scene.datetime.isoformat().startswith(row.date)
    assert set(scene.origins) >= {"crs", "grid", "bands", "datetime", "sensor", "quality"}


@pytest.mark.parametrize("row", [row for row in ROWS if not row.needs], ids=lambda row: row.file)
def test_published_item(row: Row, shared_data: Path) -> None:
    def no_header(href: str) -> Header:
        raise AssertionError(f"{href} was opened, though the item says all")

    item, href = first_of(shared_data, row.file)
    check(row, understand(item, href=href, header=no_header))


@pytest.mark.parametrize("row", [row for row in ROWS if row.needs], ids=lambda row: row.file)
def test_published_item_that_needs_its_file(row: Row, shared_data: Path, tmp_path: Path) -> None:
    item, href = first_of(shared_data, row.file)
    with pytest.raises(HeaderNeeded, match=row.needs):
        understand(item, href=href)
    a, c, e, f = row.transform
    profile = {"driver": "GTiff", "count": row.file_bands, "dtype": row.dtype, "tiled": True, "sparse_ok": True}
    profile |= {"bigtiff": "yes", "photometric": "minisblack"}
    transform = rasterio.Affine(a, 0, c, 0, e, f)
    height, width = row.shape
    path = tmp_path / "stand-in.tif"  # sparse: no pixel is stored
    with rasterio.open(path, "w", **profile, height=height, width=width, crs=row.crs, transform=transform):
        pass
    check(row, understand(item, href=href, header=lambda _: read_header(str(path))))


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry.file)
def test_published_item_that_is_refused(entry: Refused, shared_data: Path) -> None:
    item, href = first_of(shared_data, entry.file)
    text = message(item, href=href, header=lambda _: pytest.fail("nothing needs to be opened"))
    assert all(word in text for word in entry.words)


@pytest.mark.parametrize("row", [row for row in ROWS if row.count > 1 and not row.needs], ids=lambda row: row.file)
def test_every_item_of_a_collection(row: Row, shared_data: Path) -> None:
    understood = scenes(shared_data / "items" / row.file)
    assert len(understood) == row.count
    assert {scene.sensor for scene in understood} == {row.sensor}
    assert {tuple(band.name for band in scene.bands) for scene in understood} == {tuple(row.bands.split())}


def test_scenes_with_files_beside_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "rasters").glob("*/item.json")):
        (scene,) = scenes(path, header=read_header)
        assert scene.href == str(path)
        for band in (*scene.bands, *scene.quality):
            with rasterio.open(band.href) as file:
                assert band.grid.shape == file.shape
                assert band.dtype == file.dtypes[0]
                assert band.grid.transform == pytest.approx(tuple(file.transform)[:6])
                assert pyproj.CRS(band.grid.crs) == pyproj.CRS(file.crs.to_wkt())
        assert scene.grid.res == min(band.grid.res for band in scene.bands)


def test_landsat_before_stac_1_takes_its_grid_from_its_files(shared_data: Path) -> None:
    (scene,) = scenes(shared_data / "rasters" / "landsat_008059" / "item.json", header=read_header)
    assert (scene.sensor, scene.grid.crs, scene.grid.shape) == ("landsat-c2-l2", "EPSG:32618", (512, 512))
    assert [band.name for band in scene.bands] == [f"SR_B{n}.TIF" for n in (2, 3, 4, 5)] + ["QA_PIXEL.TIF"]
    assert [band.common_name for band in scene.bands] == ["blue", "green", "red", "nir08", None]
    assert scene.origins["grid"] == "the file's header, of 'SR_B2.TIF'"
    (scene,) = scenes(shared_data / "rasters" / "landsat_001062" / "item.json", assets="qa_pixel", header=read_header)
    assert [(band.name, band.asset) for band in (*scene.bands, *scene.quality)] == [("qa_pixel", "QA_PIXEL.TIF")] * 2
    assert scene.rule.band == "qa_pixel"


def test_only_the_files_in_question_are_opened(shared_data: Path) -> None:
    """One band of the size that the profile knows gives the scene's grid; else only what was asked for is opened."""
    opened: list[str] = []

    def reader(href: str) -> Header:
        opened.append(href.split("_T1_")[1])
        return header_of(PixelGrid("EPSG:32618", (30, 0, 261285, 0, -30, 274815), (7741, 7591)), "uint16")

    item, href = first_of(shared_data, "usgs__landsat-c2l2-sr__LC08_008059_v0.7.json")
    understand(item, href=href, assets=["qa_pixel"], header=reader)
    assert opened == ["SR_B1.TIF", "QA_PIXEL.TIF"]


def test_hrefs_that_ask_for_a_login_give_way_to_their_alternate(shared_data: Path) -> None:
    item, href = first_of(shared_data, "usgs__landsat-c2l2-sr__LC09_092068_v1.0.json")
    scene = understand(item, href=href)
    assert all(band.href.startswith("s3://usgs-landsat/collection02/") for band in (*scene.bands, *scene.quality))
    assert "requires a login" in scene.origins["hrefs"]
    item, href = first_of(shared_data, "cdse__sentinel-2-l2a__T36NYH_v1.1.json")
    assert all(band.href.startswith("s3://eodata/") for band in understand(item, href=href).bands)


def test_contradicting_fields_are_not_believed(shared_data: Path) -> None:
    # B07_60m is published with a 20 m transform, which its shape and bounding box contradict.
    item, _ = first_of(shared_data, "cdse__sentinel-2-l2a__T36NYH_v1.1.json")
    assert "contradict its proj:bbox" in message(item, assets=["B07_60m"])
    assert [band.grid.res for band in understand(item, assets=["B07", "b07_20m"]).bands] == [(20, 20)] * 2


def test_understanding_takes_less_than_a_millisecond_or_so(shared_data: Path) -> None:
    item, href = first_of(shared_data, "earthsearch-v1__sentinel-2-c1-l2a__S2A_T20HNJ.json")
    understand(item, href=href)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        understand(item, href=href)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 5e-3  # 0.9 ms on a quiet core: five times that where others share it


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "asked", "asset"),
    [
        ("planetarycomputer__sentinel-2-l2a.json", "B04", "B04"),
        ("planetarycomputer__sentinel-2-l2a.json", "red", "B04"),
        ("planetarycomputer__sentinel-2-l2a.json", "rededge2", "B06"),
        ("planetarycomputer__sentinel-2-l2a.json", "scl", "SCL"),
        ("planetarycomputer__sentinel-2-l2a.json", "wvp", "WVP"),
        ("earthsearch-v1__sentinel-2-l2a__S2A_29RKH.json", "B8A", "nir08"),
        ("earthsearch-v1__sentinel-2-l2a__S2A_29RKH.json", "red-jp2", "red-jp2"),
        ("earthsearch-v1__sentinel-2-l2a__S2A_29RKH.json", "aot", "aot"),
        ("stactools-sentinel2__T07HFE_v1.1.json", "blue_60m", "blue_60m"),
        ("cdse__sentinel-2-l2a__T36NYH_v1.1.json", "nir", "B08_10m"),
        ("planetarycomputer__landsat-c2-l2.json", "sr_b5", "nir08"),
        ("planetarycomputer__landsat-c2-l2.json", "qa_radsat", "qa_radsat"),
        ("usgs__landsat-c2l2-sr__LC08_081119_beta2_assetproj.json", "swir16", "SR_B6.TIF"),
        ("usgs__landsat-c2l2-sr__LT05_087017_antimeridian.json", "sr_b4", "nir08"),
        ("planetarycomputer__modis-09A1-061.json", "nir08", "sur_refl_b02"),
        ("stactools-hls__L30_T19LDD.json", "nir", "nir_narrow"),
        ("planetarycomputer__sentinel-1-rtc.json", "vh", "vh"),
        ("stactools-sentinel1__rtc-aws_12SYJ.json", "vh", "gamma0_vh"),
        ("planetarycomputer__goes-cmi.json", "C02_2km_wm", "C02_2km_wm"),
        ("planetarycomputer__esa-worldcover.json", "MAP", "map"),
    ],
)
def test_a_variable_bears_the_name_that_was_asked_by(file: str, asked: str, asset: str, shared_data: Path) -> None:
    item, href = first_of(shared_data, file)
    scene = understand(item, href=href, assets=[asked])
    assert [(band.name, band.asset) for band in scene.bands] == [(asked, asset)]
    assert scene.grid == understand(item, href=href).grid


def test_bands_of_a_file_can_be_asked_for_alone_or_together(shared_data: Path) -> None:
    item, href = first_of(shared_data, "planetarycomputer__naip.json")
    assert [(b.name, b.index, b.count) for b in understand(item, href=href, assets=["nir", "red"]).bands] == [
        ("nir", 4, 4),
        ("red", 1, 4),
    ]
    assert [b.name for b in understand(item, href=href, assets="image").bands] == ["red", "green", "blue", "nir"]
    item, href = first_of(shared_data, "planetarycomputer__aster-l1t.json")
    assert [b.index for b in understand(item, href=href, assets=["VNIR_Band2", "VNIR_VNIR_Band3N", "SWIR"]).bands] == [
        2,
        3,
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_unknown_asset(shared_data: Path) -> None:
    item, href = first_of(shared_data, "planetarycomputer__sentinel-2-l2a.json")
    text = message(item, href=href, assets=["red", "infrared"])
    assert all(word in text for word in ("no asset 'infrared'", "B04", "SCL", "nir"))
    assert "is not a readable raster" in message(item, href=href, assets=["tilejson"])
    assert "assets is empty" in message(item, href=href, assets=[])
    assert "must be names" in message(item, href=href, assets=[4])
    item, href = first_of(shared_data, "planetarycomputer__aster-l1t.json")
    assert "TIR (band 1), TIR (band 2)" in message(item, href=href, assets=["lwir"])


def test_two_bands_of_one_name_are_refused() -> None:
    item = make_item({"a": tif(bands=[{"name": "b"}, {"name": "c"}]), "a_b": tif()})
    assert "two bands would be called 'a_b'" in message(item)


# -- grids ---------------------------------------------------------------------------------------------------------


SHAPED = {"proj:shape": [100, 200], "proj:transform": TRANSFORM}
BOXED = {"proj:shape": [100, 200], "proj:bbox": [500000, 4999000, 502000, 5000000]}
PUBLISHED = {
    "code": UTM,
    "nine numbers": {**UTM, "proj:transform": [*TRANSFORM, 0, 0, 1]},
    "epsg": {"proj:epsg": 32633, "proj:shape": [100.0, 200.0], "proj:transform": TRANSFORM},
    "bbox": {"proj:epsg": "32633", **BOXED},
    "wkt2": {"proj:code": None, "proj:epsg": None, "proj:wkt2": pyproj.CRS(32633).to_wkt(), **SHAPED},
    "projjson": {"proj:projjson": pyproj.CRS(32633).to_json_dict(), **SHAPED},
    "projjson as text": {"proj:projjson": pyproj.CRS(32633).to_json(), **BOXED},
    "box with heights": {"proj:code": "epsg:32633", **BOXED, "proj:bbox": [500000, 4999000, 0, 502000, 5000000, 9]},
}


@pytest.mark.parametrize("fields", PUBLISHED.values(), ids=PUBLISHED)
@pytest.mark.parametrize("level", ["item", "asset", "split"])
def test_grid_is_found_wherever_it_is_published(fields: dict[str, Any], level: str) -> None:
    crs = {name: value for name, value in fields.items() if name in ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")}
    rest = {name: value for name, value in fields.items() if name not in crs}
    on_item = {"item": fields, "asset": {}, "split": crs}[level]
    on_asset = {"item": {}, "asset": fields, "split": rest}[level]
    scene = understand(make_item({"a": tif(**on_asset)}, properties={"datetime": "2024-01-01", **on_item}))
    assert scene.grid == GRID


def test_asset_goes_before_item_and_half_a_grid_is_no_grid() -> None:
    coarse = {"proj:shape": [50, 100], "proj:transform": [20, 0, 500000, 0, -20, 5000000]}
    scene = understand(make_item({"fine": tif(), "coarse": tif(**coarse)}))
    assert [band.grid.shape for band in scene.bands] == [(100, 200), (50, 100)]
    # a preview that has a shape of its own, but not a transform
    assert "proj:transform" in message(make_item({"small": tif(**{"proj:shape": [10, 20]})}))
    boxed = make_item({"small": tif(**{"proj:shape": [10, 20]})})
    boxed["properties"]["proj:bbox"] = [500000, 4999000, 502000, 5000000]
    assert understand(boxed).grid.res == (100, 100)


def test_finest_grid_does_not_depend_on_what_is_asked() -> None:
    item = make_item({"a": tif(), "b": tif(**pixels(5)), "mask": tif(roles=["data-mask"], **pixels(2.5))})
    for assets in (None, ["a"], ["mask"], ["b", "a"]):
        assert understand(item, assets=assets).grid.shape == (200, 400)


def test_pan_comes_only_when_asked_for_and_never_gives_the_grid() -> None:
    names = {"B2.TIF": 10, "B4.TIF": 10, "B8.TIF": 5, "QA_PIXEL.TIF": 10}
    made = {key: {"href": f"s3://b/LC08_{key}", **pixels(size)} for key, size in names.items()}
    item = make_item(made, collection="landsat-c2l1", id="LC08_L1TP_107018_20181001_20200830_02_T1")
    scene = understand(item)
    assert [band.name for band in scene.bands] == ["B2.TIF", "B4.TIF", "QA_PIXEL.TIF"]
    assert scene.grid.res == (10, 10)
    scene = understand(item, assets=["pan", "red"])
    assert [(band.name, band.grid.res) for band in scene.bands] == [("pan", (5, 5)), ("red", (10, 10))]
    assert scene.grid.res == (10, 10)


def test_degrees_and_metres_are_compared_as_lengths() -> None:
    lonlat = {"proj:code": "EPSG:4326", "proj:shape": [100, 100], "proj:transform": [0.001, 0, 15, 0, -0.001, 45]}
    scene = understand(make_item({"lonlat": tif(**lonlat), "utm": tif()}))
    assert scene.grid.crs == "EPSG:32633"
    assert [band.name for band in scene.bands] == ["utm"]
    assert "lonlat" in scene.origins["left out"]


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ([10, 1, 500000, 1, -10, 5000000], "rotated, upside down or not an affine"),
        ([500000, 10, 0, 5000000, 0, -10], "rotated, upside down or not an affine"),  # GDAL's order
        ([10, 0, 500000, 0, 10, 5000000], "rotated, upside down or not an affine"),  # south up
        ([0, 0, 500000, 0, 0, 5000000], "rotated, upside down or not an affine"),
        ([10, 0, 500000, 0, -10, 5000000, 0, 0, 2], "optionally followed by 0, 0, 1"),
        ([10, 0, 500000, 0, -10], "6 or 9 numbers"),
        ("10 0 500000", "6 or 9 numbers"),
        ([10, 0, None, 0, -10, 5], "6 or 9 numbers"),
        ([10, 0, float("nan"), 0, -10, 5], "6 or 9 numbers"),
    ],
)
def test_transforms_that_are_refused(transform: Any, words: str) -> None:
    text = message(make_item({"a": tif(**{"proj:transform": transform})}))
    assert words in text
    assert "proj:transform" in text


@pytest.mark.parametrize(
    ("shape", "transform", "words"),
    [
        ([2**31, 100], TRANSFORM, "at most 2147483647 rows and columns"),
        ([10**12, 10**12], [1e-9, 0, 0, 0, -1e-9, 0], "at most 2147483647 rows and columns"),
        ([100, 100], [1e300, 0, 0, 0, -1e307, 0], "can't be told apart at 0.0 to -inf"),
        ([100, 100], [10, 0, 1e17, 0, -10, 5000000], "can't be told apart at 1e+17"),
        ([100, 100], [10, 0, 500000, 0, -10, 1e300], "can't be told apart at 1e+300"),
    ],
)
def test_grids_that_no_raster_can_have_are_refused(shape: list[int], transform: list[float], words: str) -> None:
    assert words in message(make_item({"a": tif(**{"proj:shape": shape, "proj:transform": transform})}))


def test_a_grid_of_huge_pixels_is_still_a_grid() -> None:
    fields = {"proj:shape": [100, 100], "proj:transform": [1e160, 0, 0, 0, -1e160, 0]}  # whose area is no number
    assert [band.name for band in understand(make_item({"a": tif(**fields), "b": tif(**fields)})).bands] == ["a", "b"]


def test_a_band_beside_the_scene_is_refused() -> None:
    beside = {"proj:shape": [50, 100], "proj:transform": [20, 0, 502000, 0, -20, 5000000]}
    item = make_item({"B04": tif(), "B11": tif(**beside), "SCL": tif()}, collection="sentinel-2-l2a")
    assert "asset 'B11' covers (502000.0, 4999000.0, 504000.0, 5000000.0)" in message(item)
    assert "'B11'" in message(item, assets=["B11"])
    assert [band.name for band in understand(item, assets=["B04"]).bands] == ["B04"]
    item["assets"]["B11"]["proj:transform"][2] = 501980  # shares one of its pixels with the scene
    assert [band.name for band in understand(item).bands] == ["B04", "B11", "SCL"]


def test_a_crs_that_can_not_be_written_as_wkt_is_refused() -> None:
    crs = pyproj.CRS(32633).to_json_dict()
    crs["name"] = crs["base_crs"]["id"]["authority"] = "half \x00 of it"  # where C ends a text
    assert "can't be read" in message(make_item({"a": tif(**{"proj:projjson": crs})}))


def test_a_crs_that_is_no_unicode_is_refused() -> None:
    assert "can't be read" in message(make_item({"a": tif(**{"proj:code": "EPSG:\ud800"})}))


def test_item_without_crs() -> None:
    item = make_item(
        {"a": tif()}, properties={"datetime": "2024-01-01", "proj:shape": [1, 1], "proj:transform": [1, 0, 0, 0, -1, 0]}
    )
    text = message(item)
    assert all(
        word in text for word in ("no CRS in proj:code, proj:epsg, proj:wkt2, proj:projjson", "s3://bucket/a.tif", "header=")
    )
    assert "can't be read" in message(make_item({"a": tif(**{"proj:code": "EPSG:99999999"})}))
    assert "must be a CRS" in message(make_item({"a": tif(**{"proj:epsg": True})}))


def test_unreadable_header_is_the_cause() -> None:
    def broken(href: str) -> Header:
        raise OSError("404")

    item = make_item({"a": {**tif(), "data_type": None}})
    with pytest.raises(ItemError, match=r"item 'item-1'.*data type.*s3://bucket/a.tif.*404") as caught:
        understand(item, header=broken)
    assert isinstance(caught.value.__cause__, OSError)
    assert not isinstance(caught.value, HeaderNeeded)


def test_a_file_that_was_opened_is_believed() -> None:
    moved = PixelGrid("EPSG:32633", (10, 0, 500010, 0, -10, 5000000), (100, 200))
    item = make_item({"a": {**tif(), "data_type": None}})
    assert understand(item, header=lambda _: header_of(moved)).grid == moved
    # the same pixels under another name of the CRS: the item's is kept
    for name in (pyproj.CRS(25833).to_wkt(), "EPSG:25833"):
        other = PixelGrid(name, GRID.transform, GRID.shape)
        assert understand(item, header=lambda _, other=other: header_of(other)).grid == GRID
    # the same numbers in another zone
    for name in (pyproj.CRS(32634).to_wkt(), "EPSG:32634"):
        other = PixelGrid(name, GRID.transform, GRID.shape)
        assert understand(item, header=lambda _, other=other: header_of(other)).grid == other


@pytest.mark.parametrize("files", [1, 2])
def test_a_file_that_lies_beside_its_item_is_believed_too(files: int) -> None:
    moved = PixelGrid("EPSG:32633", (10, 0, 600000, 0, -10, 5000000), (100, 200))
    item = make_item({name: {**tif(name), "data_type": None} for name in "ab"[:files]})
    scene = understand(item, header=lambda _: header_of(moved))
    assert scene.grid == moved
    assert scene.origins["grid"].startswith("the file's header")
    assert [band.name for band in scene.bands] == [band.name for band in scene.quality] == list("ab"[:files])


def test_gcp_only_file_is_refused(shared_data: Path) -> None:
    item = make_item({"a": {"href": str(shared_data / "rasters" / "gcps_only_au.tif")}}, properties={"datetime": "2020-01-01"})
    assert "ground control points" in message(item, header=read_header)


# -- bands ---------------------------------------------------------------------------------------------------------


def test_band_fields_of_every_version() -> None:
    two = [{"name": "b1", "common_name": "red"}, {"name": "b2", "common_name": "nir"}]
    raster = [{"data_type": "int16", "nodata": -9999, "scale": 0.1, "offset": 3}, {"data_type": "int16", "nodata": "nan"}]
    new = [
        {"name": "b1", "eo:common_name": "red", "nodata": -9999, "raster:scale": 0.1, "raster:offset": 3},
        {"name": "b2", "eo:common_name": "nir", "nodata": "nan"},
    ]
    file = {"href": "s3://b/a.tif"}
    listed = {"datetime": "2024-01-01", **UTM, "eo:bands": two}
    for item in (
        make_item({"a": {**file, "eo:bands": two, "raster:bands": raster}}),
        make_item({"a": {**file, "bands": new, "data_type": "int16"}}),
        make_item({"a": {**file, "eo:bands": [0, 1], "raster:bands": raster}}, properties=listed),
        make_item({"a": {**file, "eo:bands": ["b1", "b2"], "raster:bands": [raster]}}, properties=listed),
    ):
        red, nir = understand(item).bands
        assert (red.name, red.index, red.count, red.dtype, red.nodata) == ("a_b1", 1, 2, "int16", -9999)
        assert (red.scale, red.offset, red.common_name) == (0.1, 3, "red")
        assert (nir.name, nir.index, nir.common_name) == ("a_b2", 2, "nir")
        assert np.isnan(nir.nodata)


def test_bands_without_names_are_numbered() -> None:
    item = make_item({"a": {"href": "s3://b/a.tif"}})
    scene = understand(item, header=lambda _: header_of(count=3, nodata=(0, 0, 0)))
    assert [(band.name, band.index, band.nodata) for band in scene.bands] == [("a_1", 1, 0), ("a_2", 2, 0), ("a_3", 3, 0)]
    scene = understand(item, header=lambda _: header_of(count=2, descriptions=("vv", "vh")))
    assert [band.name for band in scene.bands] == ["a_vv", "a_vh"]
    assert scene.block == (256, 256)
    item["assets"]["a"]["eo:bands"] = [{"name": "x"}] * 3
    assert "lists 3 bands, but the file 's3://b/a.tif' has 2" in message(item, header=lambda _: header_of(count=2))


def test_alpha_is_a_mask_unless_someone_calls_it_data(shared_data: Path) -> None:
    file = shared_data / "rasters" / "naip_m_3211605_ne_11.tif"  # four bands, near infrared tagged as alpha
    unnamed = make_item({"image": {"href": str(file)}}, properties={"datetime": "2020-04-15"})
    scene = understand(unnamed, header=read_header)
    assert [(band.name, band.masked) for band in scene.bands] == [("image_1", True), ("image_2", True), ("image_3", True)]
    names = [{"name": name} for name in ("Red", "Green", "Blue", "NIR")]
    scene = understand(
        make_item({"image": {"href": str(file), "eo:bands": names}}, properties={"datetime": "2020-04-15"}), header=read_header
    )
    assert [(band.name, band.masked) for band in scene.bands] == [(f"image_{n['name']}", False) for n in names]
    for options in ({"sensor": "naip"}, {"sensor": sensors.find("naip")}):
        scene = understand(unnamed, header=read_header, **options)
        assert [(band.name, band.masked) for band in scene.bands] == [
            ("red", False),
            ("green", False),
            ("blue", False),
            ("nir", False),
        ]
    called = [*names[:3], {"name": "b4", "description": "alpha"}]
    item = make_item({"image": tif(data_type="uint8", **{"eo:bands": called})})
    assert [band.name for band in understand(item).bands] == ["image_Red", "image_Green", "image_Blue"]


def test_linz_by_its_name() -> None:
    item = make_item({"visual": {"href": "./a.tiff"}}, properties={"datetime": None, "start_datetime": "2010-10-30T11:00:00Z"})
    scene = understand(item, sensor="linz", header=lambda _: header_of(count=4, alpha=4, masked=True))
    assert ([band.name for band in scene.bands], scene.sensor) == (["red", "green", "blue"], "linz")
    scene = understand(item, sensor="linz", header=lambda _: header_of(count=4))
    assert [band.name for band in scene.bands] == ["red", "green", "blue", "visual_4"]


def test_what_is_no_raster_and_what_is_a_copy_is_left_out() -> None:
    jpeg = {"href": "s3://b/t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    item = make_item(
        {
            "red": tif("red", bands=[{"name": "B4"}]),
            "red-jp2": {"href": "s3://b/red.jp2", "type": "image/jp2", "data_type": "uint16", "bands": [{"name": "B4"}]},
            "red_20m": tif("r20", bands=[{"name": "B4"}], **pixels(20)),
            "visual": tif("rgb"),
            "preview": tif("p", roles=["overview"]),
            "thumb": jpeg,
            "untyped": {"href": "https://b/x.TIF?sig=1", "data_type": "uint8"},
            "json": {"href": "s3://b/a.json", "type": "application/json"},
            "hdf": {"href": "s3://b/a.hdf", "roles": ["data"]},
            "nothing": None,
            "no href": {"type": "image/tiff"},
        }
    )
    assert [band.name for band in understand(item).bands] == ["red", "untyped"]
    assert [band.name for band in understand(item, assets=["visual", "red_20m", "preview"]).bands] == [
        "visual",
        "red_20m",
        "preview",
    ]
    assert [band.name for band in understand(make_item({"visual": tif(roles=["visual"]), "t": jpeg})).bands] == ["visual"]


def test_offset_of_sentinel_2_follows_its_baseline(shared_data: Path) -> None:
    item, _ = first_of(shared_data, "planetarycomputer__sentinel-2-l2a.json")  # no raster:bands
    for baseline, offset in (("02.12", 0), ("03.01", 0), ("04.00", -0.1), ("05.11", -0.1)):
        item["properties"]["s2:processing_baseline"] = baseline
        scene = understand(item, assets=["red", "SCL", "AOT"])
        assert [(band.scale, band.offset) for band in scene.bands] == [(1e-4, offset), (1, 0), (1e-3, 0)]


def test_dates() -> None:
    def date(**properties: Any) -> datetime:
        return understand(make_item({"a": tif()}, properties={**UTM, **properties})).datetime

    assert date(datetime="2019-12-01") == datetime(2019, 12, 1, tzinfo=UTC)
    assert date(datetime="2019-12-01T12:00:00+02:00") == datetime(2019, 12, 1, 10, tzinfo=UTC)
    assert date(datetime="2019-12-01t12:00:00z") == datetime(2019, 12, 1, 12, tzinfo=UTC)  # as RFC 3339 allows
    assert date(datetime="2025-03-11 04:42:49.673729") == datetime(2025, 3, 11, 4, 42, 49, 673729, tzinfo=UTC)
    assert date(datetime=None, start_datetime="2010-10-30T11:00:00Z") == datetime(2010, 10, 30, 11, tzinfo=UTC)
    assert "no date" in message(make_item({"a": tif()}, properties=dict(UTM)))
    for wrong in ("yesterday", 5, "0001-01-01T00:00:00+14:00"):
        assert "datetime must be an ISO 8601" in message(make_item({"a": tif()}, properties={**UTM, "datetime": wrong}))


# -- radar ---------------------------------------------------------------------------------------------------------


def radar(collection: str, assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    known = {"datetime": "2024-01-01", "constellation": "sentinel-1", **UTM, **properties}
    return make_item(assets, properties=known, collection=collection)


@pytest.mark.parametrize(
    "item",
    [
        radar("sentinel-1-grd", {"vv": tif()}),
        radar("my-own-copy", {"vv": tif()}, **{"sar:product_type": "GRD"}),
        radar("my-own-copy", {"vv": tif()}, **{"sar:product_type": "SLC"}),
        radar("cdse-s1", {"VV": tif()}, **{"product:type": "IW_GRDH_1S"}),
        radar("capella-open-data", {"HH": tif()}, **{"sar:product_type": "SICD"}),
        radar("s1_iw_slc", {"vv": tif()}),
    ],
)
def test_radar_geometry_is_refused_whatever_grid_it_claims(item: dict[str, Any]) -> None:
    text = message(item)
    assert "radar geometry" in text
    assert "sentinel-1-rtc" in text


@pytest.mark.parametrize(
    ("item", "sensor"),
    [
        (radar("sentinel-1-rtc", {"vv": tif(data_type="float32")}, **{"sar:product_type": "GRD"}), "sentinel-1-rtc"),
        (radar("s1_rtc", {"vv": tif(data_type="float32"), "mask": tif()}, **{"sar:product_type": "RTC"}), None),
        (radar("capella-open-data", {"HH": tif()}, **{"sar:product_type": "GEO"}), None),
        (radar("umbra-sar", {"GEC": tif(), "CSI": tif()}, **{"sar:product_type": "GEC"}), None),
        (radar("terrascope-s1-grd-sigma0", {"VH": tif()}, **{"sar:product_type": "GRD"}), None),
    ],
)
def test_geocoded_radar_is_understood(item: dict[str, Any], sensor: str | None) -> None:
    scene = understand(item)
    assert (scene.grid, scene.sensor) == (GRID, sensor)
    assert isinstance(scene.rule, NodataRule)


# -- quality -------------------------------------------------------------------------------------------------------

CLASSES = [
    {"value": 0, "name": "No Data"},
    {"value": 1, "name": "clear"},
    {"value": 2, "name": "Cloud - high probability"},
    {"value": 3, "name": "cloud shadow"},
    {"value": 4, "description": "Snow/Ice"},
    {"value": 5, "name": "water"},
    {"value": 6, "name": "elves"},
]


def test_published_classes_of_a_quality_band_decide() -> None:
    item = make_item({"b1": tif(), "qc": tif(data_type="uint8", roles=["quality-mask"], **{"classification:classes": CLASSES})})
    scene = understand(item)
    assert (scene.rule.band, scene.rule.ignored) == ("qc", ("elves",))
    assert scene.rule.codes(np.arange(8, dtype="uint8")).tolist() == [NODATA, CLEAR, CLOUD, SHADOW, SNOW, WATER, CLEAR, CLEAR]
    assert scene.origins["quality"] == "classification:classes of asset 'qc'"
    assert understand(item, assets=["b1"]).quality[0].asset == "qc"
    assert understand(item, assets=["QC"]).rule.band == "QC"


def test_classes_of_a_data_band_never_decide() -> None:
    item = make_item({"map": tif(roles=["data"], **{"classification:classes": CLASSES})})
    assert isinstance(understand(item).rule, NodataRule)


def test_the_band_with_most_known_classes_is_taken() -> None:
    listed = {"classification:classes": CLASSES}
    item = make_item(
        {
            "one": tif(roles=["cloud"], **{"classification:classes": CLASSES[:3]}),
            "two": tif(roles=["cloud"], bands=[{"name": "x"}, {"name": "y", **listed}]),
            "three": tif(roles=["cloud"]),
        }
    )
    scene = understand(item)
    assert (scene.rule.band, scene.quality[0].asset, scene.quality[0].index) == ("two_y", "two", 2)


def test_bit_fields_by_name() -> None:
    def flag(name: str, offset: int, *classes: str, length: int = 1) -> dict[str, Any]:
        listed = [{"value": value, "name": label} for value, label in enumerate(classes)] or [{"value": 0}, {"value": 1}]
        return {"name": name, "offset": offset, "length": length, "classes": listed}

    fields = [
        flag("fill", 0, "not_fill", "fill"),
        flag("dilated_cloud", 1),
        flag("cloud_confidence", 2, "none", "low", "medium", "cloud", length=2),
        flag("cloud_state", 4, "clear", "cloudy", "mixed", "water", length=2),
        flag("aerosol_level", 6, "shadow", "snow"),
        flag("mystery", 7, "no", "yes"),
    ]
    item = make_item({"qa": tif(roles=["cloud"], **{"classification:bitfields": fields})})
    rule = understand(item).rule
    words = np.array([1, 2, 0b1100, 1 << 4, 2 << 4, 3 << 4, 1 << 6, 1 << 7], "uint16")
    assert rule.codes(words).tolist() == [NODATA, CLOUD, CLEAR, CLOUD, CLEAR, WATER, CLEAR, CLEAR]
    assert rule.ignored == ("cloud_state: mixed", "mystery")


def test_no_quality_band_reads_the_data_bands() -> None:
    item = make_item({"a": tif(nodata=0), "b": tif(nodata=-1), "sat": tif(roles=["saturation"]), "meta": tif(roles=["metadata"])})
    scene = understand(item, assets=["a"])
    assert scene.rule.bands == ("a", "b")
    assert [band.nodata for band in scene.quality] == [0, -1]
    assert "publishes no classes" in scene.rule.source
    scene = understand(make_item({"B04": tif()}, collection="sentinel-2-l2a"))
    assert isinstance(scene.rule, NodataRule)
    assert "no band scl of sentinel-2-l2a" in scene.rule.source


def test_modis_falls_back_to_its_other_quality_band(shared_data: Path) -> None:
    item, href = first_of(shared_data, "planetarycomputer__modis-09A1-061.json")
    del item["assets"]["sur_refl_state_500m"]
    scene = understand(item, href=href)
    assert (scene.rule.band, scene.quality[0].dtype, scene.bands[-1].name) == ("sur_refl_qc_500m", "uint32", "sur_refl_qc_500m")


def test_the_argument_goes_before_the_collection() -> None:
    item = make_item({"red": tif(), "mask": tif()}, collection="sentinel-2-l2a")
    mine = sensors.SensorProfile(
        "mine", (sensors.BandSpec("red"), sensors.BandSpec("mask")), quality=(values("mask", {CLOUD: [1]}),)
    )
    scene = understand(item, sensor=mine)
    assert (scene.sensor, scene.rule.band) == ("mine", "mask")
    with pytest.raises(ValueError, match=r"sensor 'sentinel-9' is not known; known are sentinel-2-l2a"):
        understand(item, sensor="sentinel-9")
    apart = understand(item, sensor="naip")  # one file a band
    assert [(band.name, band.index) for band in apart.bands] == [("red", 1)]
    unlike = make_item({"height": tif()}, collection="sentinel-2-l2a")
    assert "is a band of sensor 'naip'" in message(unlike, sensor="naip")
    assert understand(unlike).sensor is None
    assert "without any of its bands" in understand(unlike).origins["sensor"]


@pytest.mark.parametrize("value", [None, 5, [], "x"])
def test_no_dict_is_no_item(value: Any) -> None:
    with pytest.raises(ItemError, match="is not a STAC item; pass it through plain_items first"):
        understand(value)
    with pytest.raises(ItemError, match="has no id"):
        understand({"id": value if value != "x" else "", "assets": {}})
    assert "no assets" in message({"id": "i", "assets": value, "properties": value})


# -- items never seen before ---------------------------------------------------------------------------------------


def test_items_of_other_publishers() -> None:
    """As rio-stac, Maxar, OpenAerialMap, CBERS on AMS, Planet, Umbra and Element 84 write them."""
    rio_stac = make_item(
        {
            "asset": {
                "href": "/data/rgba.tif",
                "type": "image/tiff; application=geotiff",
                "roles": [],
                "raster:bands": [{"data_type": "uint8"}] * 4,
                "eo:bands": [{"name": f"b{n}", "description": d} for n, d in enumerate(("red", "green", "blue", "alpha"), 1)],
            }
        }
    )
    scene = understand(rio_stac)
    assert ([band.name for band in scene.bands], scene.bands[0].masked) == (["asset_b1", "asset_b2", "asset_b3"], True)

    maxar = make_item(
        {
            "visual": tif("visual", roles=["visual"], **named("BAND_R", "BAND_G", "BAND_B")),
            "ms_analytic": tif("ms", roles=["data"], **named("C", "B", "G", "Y", "R", "N"), **pixels(40)),
            "pan_analytic": tif("pan", roles=["data"], **named("P")),
            "data-mask": {"href": "s3://b/mask.gpkg", "type": "application/geopackage+sqlite3", "roles": ["data-mask"]},
        }
    )
    scene = understand(maxar)
    assert [band.name for band in scene.bands] == [*(f"ms_analytic_{b}" for b in "CBGYRN"), "pan_analytic"]
    assert scene.grid == GRID

    cog = "image/tiff; application=geotiff; profile=cloud-optimized"
    oam = make_item({"visual": {"href": "https://oam/1.tif", "type": cog, "raster:bands": [{"data_type": "uint8"}] * 3}})
    assert [band.name for band in understand(oam).bands] == ["visual_1", "visual_2", "visual_3"]

    def cbers_band(n: int) -> dict[str, Any]:
        media_type = "image/vnd.stac.geotiff; cloud-optimized=true"
        return {"href": f"s3://cbers-pds/X_BAND{n}.tif", "type": media_type, "eo:bands": [n - 5]}

    colours = [{"name": f"B{n}", "common_name": c} for n, c in ((5, "blue"), (6, "green"), (7, "red"), (8, "nir"))]
    cbers = make_item(
        {
            "thumbnail": {"href": "https://b/x.jpg", "type": "image/jpeg"},
            "metadata": {"href": "https://b/x.xml", "type": "text/xml"},
            **{f"B{n}": cbers_band(n) for n in (5, 6, 7, 8)},
        },
        properties={"datetime": "2020-01-01T00:00:00Z", "eo:bands": colours},
    )
    assert "no CRS" in message(cbers)
    scene = understand(cbers, header=lambda _: header_of(nodata=(0,)), assets=["nir"])
    assert [(band.asset, band.nodata) for band in scene.bands] == [("B8", 0)]

    spectral = [{"name": "PSB_B2", "eo:common_name": "blue"}, {"name": "PSB_B8", "eo:common_name": "nir"}]
    masks = [{"name": name} for name in ("clear", "snow", "cloud")]
    planet = make_item(
        {
            "ortho_analytic_8b_sr_tif": tif("a", roles=["data", "reflectance"], bands=spectral),
            "ortho_udm2_tif": tif("u", data_type="uint8", roles=["data", "snow-ice", "cloud", "cloud-shadow"], bands=masks),
        }
    )
    scene = understand(planet)
    assert scene.rule == NodataRule(("ortho_analytic_8b_sr_tif_PSB_B2", "ortho_analytic_8b_sr_tif_PSB_B8"), scene.rule.source)
    assert [band.asset for band in understand(planet, assets=["nir"]).bands] == ["ortho_analytic_8b_sr_tif"]

    sen2cor = make_item(
        {"b02": {"href": "s3://b/T33_B02.tif"}, "scl": {"href": "s3://b/T33_SCL.tif"}},
        properties={"datetime": "2024-01-01", **UTM, "platform": "sentinel-2c", "processing:level": "L2A"},
        collection="somebody-elses",
    )
    assert (understand(sen2cor).sensor, understand(sen2cor).rule.band) == ("sentinel-2-l2a", "scl")


def test_items_made_by_pystac() -> None:
    import pystac
    from pystac.extensions.projection import ProjectionExtension

    item = pystac.Item("p", None, None, datetime(2024, 1, 1), {})
    item.add_asset("data", pystac.Asset("s3://b/d.tif", media_type=pystac.MediaType.COG, roles=["data"]))
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.apply(epsg=32633, shape=[100, 200], transform=[10, 0, 500000, 0, -10, 5000000])
    item.assets["data"].extra_fields["data_type"] = "float32"
    (scene,) = scenes(item)
    assert (scene.grid, scene.bands[0].dtype, scene.datetime) == (GRID, "float32", datetime(2024, 1, 1, tzinfo=UTC))


# -- any JSON whatever ---------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["nan", "EPSG:32633", "./a.tif", "cloud", "data", "-jp2", "2024-01-01", "oli"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
MUTABLE = (
    "planetarycomputer__landsat-c2-l2.json",
    "cdse__sentinel-2-l2a__T36NYH_v1.1.json",
    "usgs__landsat-c2l2-sr__LC08_008059_v0.7.json",
    "stactools-hls__L30_T19LDD.json",
    "planetarycomputer__modis-13Q1-061.json",
    "planetarycomputer__3dep-lidar-dsm.json",
    "planetarycomputer__naip.json",
    "stac-spec__proj-example_v1.1.json",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in an item but its geometry and long lists."""
    found = []
    entries = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in entries:
        if key not in ("geometry", "proj:geometry", "stac_extensions", "histogram", "statistics"):
            found += [(*path, key), *places(inner, (*path, key))]
    return found


@pytest.fixture(scope="session")
def mutable(shared_data: Path) -> list[tuple[dict[str, Any], list[tuple[Any, ...]]]]:
    found = [next(plain_items(shared_data / "items" / file))[0] for file in MUTABLE]
    for item in found:
        item["assets"] = dict(list(item["assets"].items())[:12])
    return [(item, places(item)) for item in found]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_is_understood_or_refused(
    data: st.DataObject, mutable: list[tuple[dict[str, Any], list[tuple[Any, ...]]]]
) -> None:
    item, paths = data.draw(st.sampled_from(mutable))
    item = copy.deepcopy(item)
    for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=4)):
        holder: Any = item
        try:
            for key in path[:-1]:
                holder = holder[key]
            if data.draw(st.booleans()):
                holder[path[-1]] = data.draw(JSON)
            else:
                del holder[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    header = data.draw(st.sampled_from([None, lambda _: header_of(count=data.draw(st.integers(1, 5)))]))
    assets = data.draw(st.sampled_from([None, ["red"], ["nir", "qa_pixel"]]))
    try:
        scene = understand(item, href="s3://b/item.json", header=header, assets=assets)
    except ItemError as error:
        refusal = str(error)
    else:
        refusal = ""
        names = [band.name for band in scene.bands]
        assert len(set(names)) == len(names)
        for band in (*scene.bands, *scene.quality):
            assert band.href
            assert 1 <= band.index <= band.count
            assert np.dtype(band.dtype)
    assert refusal == "" or refusal.startswith("item ")


@settings(max_examples=150, deadline=None)
@given(item=st.dictionaries(st.sampled_from(["id", "type", "assets", "properties", "links", "bbox", "collection"]), JSON))
def test_any_dict_is_understood_or_refused(item: dict[str, Any]) -> None:
    with pytest.raises(ItemError):
        understand(item)
    if not isinstance(item.get("assets"), dict):
        with pytest.raises(ValueError, match="pass pystac Items"):
            list(plain_items(item))
