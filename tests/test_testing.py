"""Synthetic scenes: files, item and pixels agree, and the same arguments give the same scene."""

from __future__ import annotations

import json
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pystac
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
from pyproj import Transformer

from xchip.testing import FILES, SCL_CLASSES, raise_if_dask_computes, synthetic_stack, write_scene

BANDS = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scenes"), item_id="synthetic-a", seed=3, shape=(1024, 1280), nodata=0.2)


def read(item: Path, band: str) -> np.ndarray:
    with rasterio.open(item.parent / FILES[band]) as file:
        return file.read(1)


def test_files_are_cogs_with_the_shape_that_was_asked_for(scene: Path) -> None:
    for band, name in FILES.items():
        with rasterio.open(scene.parent / name) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.compression.name == "deflate"
            assert file.block_shapes == [(512, 512)]
            assert file.overviews(1) == [2, 4][: len(file.overviews(1))] != []
            assert file.nodata == 0
            assert file.crs.to_epsg() == 32719
            expected = ((512, 640), "uint8", 20) if band == "scl" else ((1024, 1280), "uint16", 10)
            assert (file.shape, file.dtypes[0], file.res[0]) == expected
            assert (file.transform.c, file.transform.f) == (499980.0, 6400000.0)


def test_item_says_what_the_files_hold(scene: Path) -> None:
    item = json.loads(scene.read_text())
    assert item["stac_version"] == "1.1.0"
    assert item["collection"] == "sentinel-2-l2a"
    assert "synthetic" in item["id"]
    assert "ynthetic" in item["properties"]["title"]
    assert "ynthetic" in item["properties"]["description"]
    for name, asset in item["assets"].items():
        with rasterio.open(scene.parent / asset["href"]) as file:
            assert asset["proj:shape"] == list(file.shape)
            assert asset["proj:transform"] == list(file.transform)[:6]
            assert item["properties"]["proj:code"] == file.crs.to_string()
            (band,) = asset["bands"]
            assert (band["data_type"], band["nodata"]) == (file.dtypes[0], file.nodata)
        assert "ynthetic" in asset["title"], name
    scl = read(scene, "scl")
    assert item["properties"]["eo:cloud_cover"] == pytest.approx(100 * np.isin(scl, [8, 9, 10]).sum() / (scl > 0).sum())


def test_item_is_on_its_place(scene: Path) -> None:
    item = json.loads(scene.read_text())
    lon, lat = Transformer.from_crs("EPSG:32719", "EPSG:4326", always_xy=True).transform(499980.0, 6400000.0)
    west, _, _, north = item["bbox"]
    assert (west, north) == pytest.approx((lon, lat), abs=1e-3)
    ring = item["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert len(ring) == 5


def test_pystac_reads_item_and_collection(scene: Path) -> None:
    item = pystac.Item.from_file(str(scene))
    assert item.ext.proj.epsg == 32719
    assert item.get_collection().id == "sentinel-2-l2a"
    assert all(Path(asset.get_absolute_href()).is_file() for asset in item.assets.values())
    links = {link["rel"] for link in json.loads(scene.read_text())["links"]}
    assert "collection" in links  # the item schema asks for it where "collection" is set


def test_colours_agree_with_scl(scene: Path) -> None:
    bands = {band: read(scene, band)[::2, ::2].astype(float) for band in BANDS}
    scl = read(scene, "scl")
    assert set(np.unique(scl)) <= {value for value, _ in SCL_CLASSES}
    brightness = {value: np.median(bands["red"][scl == value]) for value in np.unique(scl)}
    assert brightness[9] > 2 * brightness[5] > 2 * brightness[6]
    assert brightness[11] > 2 * brightness[5]
    assert brightness[3] < brightness[5]
    greenness = (bands["nir"] - bands["red"]) / (bands["nir"] + bands["red"] + 1)
    assert greenness[scl == 4].min() > 0.374
    assert greenness[scl == 5].max() < 0.376
    water = (bands["nir"] < bands["green"])[scl == 6]
    assert water.mean() > 0.9


def test_nodata_is_a_wedge_in_all_bands(scene: Path) -> None:
    outside = read(scene, "scl") == 0
    assert outside.mean() == pytest.approx(0.2, abs=0.01)
    assert (np.diff(outside.astype(int), axis=1) >= 0).all()  # one edge in each row
    starts = outside.argmax(axis=1)
    assert (np.diff(starts) <= 0).all()
    assert starts[0] > starts[-1]
    for band in BANDS:
        assert ((read(scene, band) == 0) == outside.repeat(2, 0).repeat(2, 1)).all()


@pytest.mark.parametrize("cover", [0.0, 0.1, 0.5, 1.0])
def test_cloud_cover_is_about_what_was_asked_for(tmp_path: Path, cover: float) -> None:
    item = write_scene(tmp_path, shape=(512, 512), clouds=cover, cirrus=0, nodata=0, snow=0)
    assert np.isin(read(item, "scl"), [7, 8, 9]).mean() == pytest.approx(cover, abs=0.12)
    if cover == 0:
        assert not np.isin(read(item, "scl"), [0, 1, 3, 8, 9, 10, 11]).any()


def test_same_arguments_same_pixels(tmp_path: Path) -> None:
    first, again, other = (
        write_scene(tmp_path / name, shape=(256, 256), seed=seed, clouds=0.3) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    for band in FILES:
        assert np.array_equal(read(first, band), read(again, band))
    assert not np.array_equal(read(first, "scl"), read(other, "scl"))


def test_one_place_shows_the_same_land_under_every_sky(tmp_path: Path) -> None:
    skies = [write_scene(tmp_path / str(seed), shape=(512, 512), seed=seed, place=4, clouds=0.2, cirrus=0) for seed in (1, 2)]
    first, second = (read(item, "scl") for item in skies)
    land = np.isin(first, [4, 5, 6, 11]) & np.isin(second, [4, 5, 6, 11])
    assert (first == second)[land].mean() > 0.97


def test_scene_without_valid_pixels(tmp_path: Path) -> None:
    item = write_scene(tmp_path, shape=(64, 64), nodata=1.0)
    assert not read(item, "red").any()
    assert "eo:cloud_cover" not in json.loads(item.read_text())["properties"]


def test_ids_always_say_synthetic(tmp_path: Path) -> None:
    assert write_scene(tmp_path, item_id="mine", shape=(64, 64)).name == "synthetic-mine.json"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (101, 100)}, r"both even and at least 64, got \(101, 100\)"),
        ({"shape": (32, 256)}, "at least 64"),
        ({"clouds": 1.5}, "clouds must be a part of the scene, from 0 to 1, got 1.5"),
        ({"snow": -0.1}, "snow must be a part of the scene"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_scene(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_synthetic_stack_keeps_what_it_is_given() -> None:
    scl = np.arange(12, dtype="uint8").reshape(3, 4)
    ds = synthetic_stack(scl=scl, red=da.ones((3, 4), dtype="uint16", chunks=2), resolution=20, origin=(100, 900))
    assert dict(ds.sizes) == {"time": 1, "y": 3, "x": 4}
    assert ds.scl.dtype == "uint8"
    assert np.array_equal(ds.scl[0], scl)
    assert ds.red.chunks == ((1,), (2, 1), (2, 2))
    assert ds.x.values.tolist() == [110, 130, 150, 170]
    assert ds.y.values.tolist() == [890, 870, 850]
    assert ds.rio.crs.to_epsg() == 32719
    assert ds.item_id.values.tolist() == ["synthetic-0"]


def test_synthetic_stack_with_times() -> None:
    ds = synthetic_stack(np.zeros((2, 3, 4), "uint8"), times=["2024-01-01", "2024-05-01"], item_ids=["a", "b"])
    assert ds.time.dt.month.values.tolist() == [1, 5]
    assert ds.item_id.values.tolist() == ["a", "b"]


def test_synthetic_stack_paints_a_scene() -> None:
    ds = synthetic_stack(shape=(101, 151))
    assert ds.sizes["y"] == 101
    assert ds.sizes["x"] == 151
    assert set(ds.data_vars) == {*BANDS, "scl"}
    assert ds.red.rio.nodata == 0
    assert ds.identical(synthetic_stack(shape=(101, 151)))
    assert not ds.red.equals(synthetic_stack(shape=(101, 151), seed=1).red)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "pass either arrays"),
        ({"shape": (64, 64), "red": np.zeros((64, 64))}, "pass either arrays"),
        ({"red": np.zeros((4, 4)), "scl": np.zeros((4, 5))}, "arrays of one shape"),
        ({"red": np.zeros(4)}, "arrays of one shape"),
    ],
)
def test_synthetic_stack_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic_stack(**options)


def test_raise_if_dask_computes() -> None:
    lazy = da.ones(3)
    with raise_if_dask_computes():
        lazy = lazy + 1
        with pytest.raises(AssertionError, match="asked to compute"):
            lazy.compute()
        with pytest.raises(AssertionError, match="asked to compute"):
            dask.compute(dask.delayed(sum)([1, 2]))
    assert lazy.sum().compute() == 6
