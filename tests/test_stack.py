from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from servers import RangeServer

import xchip
from xchip.core.grid import PixelGrid
from xchip.core.scene import Band, Scene
from xchip.io.gdal import POOL
from xchip.quality import CLOUD, NODATA, NodataRule, QualityRule, values
from xchip.raster.header import read_header
from xchip.stac.stack.stack import stack_scenes

SCENES = [
    "landsat_001062",
    "landsat_008059",
    "s2_29RKH",
    "s2_S2A_33TWL_20230815",
    "s2_S2A_33TWL_20230818",
    "s2_S2B_33TWM_20230810",
]
ALONE = [
    "naip_m_3211605_ne_11.tif",
    "naip_m_4112001_sw_10.tif",
    "l7_olinda_6band.tif",
    "rgb_byte_l7.tif",
    "hls_10band_224.tif",
    "colorado_hro_mask.tif",
    "landsat_LST_crop.tif",
    "linz_dem_BY23.tif",
    "cbers4_mux_057_094/CBERS_4_MUX_20171121_057_094_L2_BAND5.tif",
    "modis_MYD13A1/MYD13A1.A2020153.h30v10_NDVI_B01.TIF",
    "greenland_cog_100m.tif",
]
UNOPENED = "/nowhere/{}.tif"


def refuse(dsk: Any, keys: Any, **options: Any) -> Any:
    raise AssertionError("something was computed")


def bands_of(path: Path, name: str, **changes: Any) -> list[Band]:
    header = read_header(str(path))
    return [
        Band(
            name if len(header.dtypes) == 1 else f"{name}_{number}",
            name,
            str(path),
            header.grid,
            header.dtypes[number - 1],
            number,
            len(header.dtypes),
            header.nodata[number - 1],
            block=header.block,
            masked=header.masked,
            **changes,
        )
        for number in range(1, len(header.dtypes) + 1)
    ]


def scene_of(*bands: Band, item_id: str = "a", day: int = 1, **changes: Any) -> Scene:
    grid = min((band.grid for band in bands), key=lambda grid: grid.res)
    rule = NodataRule(tuple(band.name for band in bands))
    moment = datetime(2024, 1, day, tzinfo=UTC)
    return replace(Scene(item_id, None, None, moment, None, grid, bands, rule, bands), **changes)


def unopened(
    name: str = "red", *, left: float = 500000, top: float = 5000000, res: float = 10, shape: Any = (60, 80), **changes: Any
) -> Band:
    grid = PixelGrid(changes.pop("crs", "EPSG:32633"), (res, 0, left, 0, -res, top), shape)
    return replace(Band(name, name, UNOPENED.format(name), grid, "uint16", nodata=0.0), **changes)


def write(path: Path, array: np.ndarray, *, left: float = 500000, top: float = 5000000, res: float = 10, **profile: Any) -> Path:
    layers = array if array.ndim == 3 else array[None]
    profile = {"driver": "GTiff", "dtype": array.dtype, "crs": "EPSG:32633", **profile}
    count, height, width = layers.shape
    transform = from_origin(left, top, res, res)
    with rasterio.open(path, "w", count=count, height=height, width=width, transform=transform, **profile) as dataset:
        dataset.write(layers)
    return path


# Real scenes


@pytest.mark.parametrize("folder", SCENES)
def test_published_scenes_are_stacked_as_they_are(shared_data: Path, folder: str) -> None:
    item = shared_data / "rasters" / folder / "item.json"
    with dask.config.set(scheduler=refuse):
        ds = xchip.stack(str(item))
    assets = json.loads(item.read_text())["assets"]
    assert ds.sizes["time"] == 1
    for name, array in ds.data_vars.items():
        with rasterio.open(item.parent / assets[str(name)]["href"]) as dataset:
            expected = dataset.read(1)
            factor = round(dataset.res[0] / ds.rio.resolution()[0])
            if factor == 1:
                assert (dataset.shape, dataset.bounds) == (array.shape[1:], array.rio.bounds())
                assert array.rio.transform().almost_equals(dataset.transform, precision=1e-6)
            assert array.rio.crs == dataset.crs
            assert array.dtype == dataset.dtypes[0]
        np.testing.assert_array_equal(array[0], np.repeat(np.repeat(expected, factor, 0), factor, 1))
        assert "resampled" not in array.attrs
    assert np.diff(ds.y).max() < 0 < np.diff(ds.x).min()


@pytest.mark.parametrize("file", ALONE)
def test_single_files_are_stacked_as_they_are(shared_data: Path, file: str) -> None:
    path = shared_data / "rasters" / file
    ds = stack_scenes([scene_of(*bands_of(path, "image"))])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(np.stack([array.values[0] for array in ds.data_vars.values()]), dataset.read())
        assert ds.rio.crs == dataset.crs
        assert ds.rio.transform().almost_equals(dataset.transform, precision=1e-6)
        for array, nodata in zip(ds.data_vars.values(), dataset.nodatavals, strict=True):
            assert (array.rio.nodata is None) == (nodata is None)
            np.testing.assert_equal(array.rio.nodata, None if nodata is None else array.dtype.type(nodata))


@settings(max_examples=15, deadline=None)
@given(
    chunks=st.one_of(st.integers(20, 300), st.tuples(st.integers(20, 300), st.integers(20, 300)), st.just(-1), st.just("auto")),
    window=st.tuples(st.integers(-30, 280), st.integers(-30, 240), st.integers(1, 90), st.integers(1, 90)),
)
def test_windows_and_chunks_do_not_change_pixels(shared_data: Path, chunks: Any, window: Any) -> None:
    path = shared_data / "rasters" / "naip_m_4112001_sw_10.tif"
    bands = bands_of(path, "image")
    row, col, height, width = window
    assume(row + height > 0 and col + width > 0)  # or no pixel of the scene lies in it, which is refused
    part = bands[0].grid.window(row_off=row, col_off=col, height=height, width=width)
    ds = stack_scenes([scene_of(*bands)], bounds=part.bounds, chunks=chunks)
    with rasterio.open(path) as dataset:
        expected = np.pad(dataset.read(), ((0, 0), (30, 90), (30, 90)))[
            :, row + 30 : row + 30 + height, col + 30 : col + 30 + width
        ]
    np.testing.assert_array_equal(np.stack([array.values[0] for array in ds.data_vars.values()]), expected)
    assert ds.chunks is not None


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_schedulers_agree(shared_data: Path, scheduler: str) -> None:
    ds = xchip.stack(str(shared_data / "rasters" / "s2_29RKH" / "item.json"), ["red", "scl", "coastal"], chunks=500)
    expected = ds.compute(scheduler="synchronous")
    xr.testing.assert_identical(ds.compute(scheduler=scheduler, num_workers=2), expected)


def test_a_remote_item(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = shared_data / "rasters" / "s2_29RKH" / "item.json"
    query = "X-Amz-Signature=abc"
    with RangeServer(local.parent, query=query) as server:
        item = json.loads(local.read_text())
        for asset in item["assets"].values():
            asset["href"] = f"{server.url}/{asset['href'].removeprefix('./')}?{query}"
        ds = xchip.stack(item, ["red", "scl"])
        assert server.requests == []
        xr.testing.assert_equal(
            ds.compute().drop_vars("item_href"), xchip.stack(str(local), ["red", "scl"]).drop_vars("item_href")
        )
        POOL.clear()


# What is known of the items


def test_nothing_is_opened_and_the_result_says_what_it_is() -> None:
    rule = values("scl", {NODATA: [0], CLOUD: [8, 9]})
    scl = unopened("scl", res=20, shape=(30, 40), dtype="uint8")
    bands = (unopened(scale=0.0001, offset=-0.1, common_name="red"), scl)
    scene = Scene(
        "x",
        "s2",
        "/x.json",
        datetime(2024, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        "sentinel-2-l2a",
        bands[0].grid,
        bands,
        rule,
        (scl,),
    )
    with dask.config.set(scheduler=refuse):
        ds = stack_scenes([scene])
    assert (ds.attrs["sensor"], QualityRule.from_json(ds.attrs["quality"])) == ("sentinel-2-l2a", rule)
    assert ds.red.attrs == {"long_name": "red", "_FillValue": 0, "common_name": "red", "scale": 0.0001, "offset": -0.1}
    assert ds.time.values.tolist() == [np.datetime64("2024-03-01T10:00:00", "ns").astype(int)]
    assert {name: ds[name].item() for name in ds.coords if str(name).startswith("item_")} == {
        "item_id": "x",
        "item_href": "/x.json",
        "item_left": 500000.0,
        "item_bottom": 4999400.0,
        "item_right": 500800.0,
        "item_top": 5000000.0,
    }
    assert ds.collection.item() == "s2"
    assert all(array.rio.crs.to_epsg() == 32633 for array in ds.data_vars.values())
    assert ds.isel(x=slice(10, 20), y=slice(5, 9)).rio.bounds() == (500100.0, 4999910.0, 500200.0, 4999950.0)
    json.dumps(ds.attrs)


def test_no_rule_of_a_product_without_quality_band_and_none_where_items_differ() -> None:
    one = scene_of(unopened(), sensor="naip")
    assert stack_scenes([one]).attrs == {"sensor": "naip"}
    rule = values("scl", {NODATA: [0]})
    other = replace(one, item_id="b", sensor="linz", rule=rule)
    assert stack_scenes([one, other]).attrs == {}


def test_coordinates_are_exact_pixel_centres() -> None:
    band = unopened(left=500015, top=4999985, res=30, shape=(7, 5))
    ds = stack_scenes([scene_of(band)])
    np.testing.assert_array_equal(ds.x, 500030 + 30 * np.arange(5))
    np.testing.assert_array_equal(ds.y, 4999970 - 30 * np.arange(7))


def test_a_crs_without_code(shared_data: Path) -> None:
    paths = sorted((shared_data / "rasters" / "modis_MYD13A1").glob("*.TIF"))
    bands = [band for path in paths for band in bands_of(path, path.stem.split("_")[-1])]
    ds = stack_scenes([scene_of(*bands)])
    assert ds.rio.crs.to_epsg() is None
    assert "sinusoidal" in ds.rio.crs.to_wkt().lower()
    assert {array.rio.nodata.item() for array in ds.data_vars.values()} == {-3000, -1000, 255, 65535}
    with rasterio.open(paths[0]) as dataset:
        assert ds.rio.crs == dataset.crs


# Several items


def test_items_are_in_the_order_of_time_and_all_are_kept() -> None:
    moments = {
        "d": datetime(2024, 1, 2, tzinfo=UTC),
        "half": datetime(2024, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC),
        "whole": datetime(2024, 1, 1, tzinfo=UTC),
        "again": datetime(2024, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))),
    }
    ds = stack_scenes([scene_of(unopened(), item_id=name, datetime=moment) for name, moment in moments.items()])
    assert ds.item_id.values.tolist() == ["whole", "half", "d", "again"]
    assert ds.indexes["time"].is_monotonic_increasing
    assert ds.indexes["time"].tz is None
    assert ds.time[2] == ds.time[3] == pd.Timestamp("2024-01-02")


@pytest.mark.parametrize("year", [1, 1677, 2262, 9999])
def test_a_date_that_nanoseconds_can_not_hold_is_refused(year: int) -> None:
    scene = scene_of(unopened(), datetime=datetime(year, 1, 1, tzinfo=UTC))
    with pytest.raises(xchip.ItemError, match=rf"item 'a': its date {year:04}-01-01T00:00:00.* is not in 1678 to 2261"):
        stack_scenes([scene])


def test_items_of_one_lattice_are_united(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(1, 100, (40, 50)).astype("uint8")
    second = rng.integers(1, 100, (30, 20)).astype("uint8")
    coarse = rng.integers(1, 9, (15, 10)).astype("uint8")
    a = bands_of(write(tmp_path / "a.tif", first, nodata=255), "red")
    b = bands_of(write(tmp_path / "b.tif", second, left=500450, top=5000150, nodata=255), "red")
    c = bands_of(write(tmp_path / "c.tif", coarse, left=500450, top=5000150, res=20), "qa")
    with dask.config.set(scheduler=refuse):
        ds = stack_scenes([scene_of(*a), scene_of(*b, *c, item_id="b", day=2)], chunks=16)
    assert ds.red.shape == (2, 55, 65)
    expected = np.full((2, 55, 65), 255, "uint8")
    expected[0, 15:, :50], expected[1, :30, 45:] = first, second
    np.testing.assert_array_equal(ds.red, expected)
    # The first item has no such band, the second has it on a part of the grid.
    quality = np.zeros((2, 55, 65), "uint8")
    quality[1, :30, 45:] = np.repeat(np.repeat(coarse, 2, 0), 2, 1)
    np.testing.assert_array_equal(ds.qa, quality)
    assert ds.item_left.values.tolist() == [500000, 500450]
    assert ds.item_top.values.tolist() == [5000000, 5000150]
    assert ds.item_bottom.values.tolist() == [4999600, 4999850]


def test_a_far_item_makes_a_huge_but_lazy_grid() -> None:
    near, far = scene_of(unopened()), scene_of(unopened(left=900000, top=5600000), item_id="far", day=2)
    with dask.config.set(scheduler=refuse):
        ds = stack_scenes([near, far])
    assert ds.red.shape == (2, 60060, 40080)


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        (
            (unopened(), unopened(crs="EPSG:32634")),
            r"items 'a' \(EPSG:32633\) and 'b' \(EPSG:32634\) have different CRSs; pass crs=",
        ),
        ((unopened(), unopened(left=500005)), r"items 'a' and 'b' are not on one pixel lattice .* pass resolution="),
        ((unopened(), unopened(res=30)), "not on one pixel lattice"),
        ((unopened(), unopened(nodata=65535.0)), "band 'red' has nodata 0.0 in item 'a' and 65535.0 in item 'b'"),
    ],
)
def test_items_that_do_not_fit_are_refused(bands: tuple[Band, Band], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stack_scenes([scene_of(bands[0]), scene_of(bands[1], item_id="b")])


def test_items_of_several_crss_are_warped_on_request(tmp_path: Path) -> None:
    first, second = np.full((40, 50), 3, "uint8"), np.full((40, 50), 5, "uint8")
    a = bands_of(write(tmp_path / "a.tif", first, nodata=0), "red")
    b = bands_of(write(tmp_path / "b.tif", second, left=29500, crs="EPSG:32634", nodata=0), "red")
    scenes = [scene_of(*a), scene_of(*b, item_id="b", day=2)]
    ds = stack_scenes(scenes, crs=32633, resolution=20)
    assert ds.rio.crs.to_epsg() == 32633
    assert ds.rio.resolution() == (20, -20)
    assert ds.red.attrs["resampled"] is True
    assert (ds.red[0] == 3).sum() == first.size / 4
    assert 0.9 < (ds.red[1] == 5).sum() / (second.size / 4) < 1.1
    assert ((ds.item_left - 500000) % 20 == 0).all()
    inside = (ds.x > ds.item_left) & (ds.x < ds.item_right) & (ds.y > ds.item_bottom) & (ds.y < ds.item_top)
    assert not (ds.red.where(~inside, 0) != 0).any()


def test_bands_that_differ_in_dtype_share_a_wider_one(tmp_path: Path) -> None:
    a = bands_of(write(tmp_path / "a.tif", np.full((4, 4), 60000, "uint16")), "red")
    b = bands_of(write(tmp_path / "b.tif", np.full((4, 4), -5, "int16")), "red")
    ds = stack_scenes([scene_of(*a), scene_of(*b, item_id="b", day=2)])
    assert ds.red.dtype == np.int32
    assert ds.red[:, 0, 0].values.tolist() == [60000, -5]


# Areas and pixel sizes


@pytest.fixture
def numbered(tmp_path: Path) -> tuple[Scene, np.ndarray]:
    array = np.arange(1, 60 * 80 + 1, dtype="uint16").reshape(60, 80)
    return scene_of(*bands_of(write(tmp_path / "n.tif", array, nodata=0), "red")), array


def test_bounds_choose_pixels_and_never_shift_them(numbered: tuple[Scene, np.ndarray]) -> None:
    scene, array = numbered
    on_lattice = stack_scenes([scene], bounds=(500100, 4999700, 500200, 4999900))
    np.testing.assert_array_equal(on_lattice.red[0], array[10:30, 10:20])
    off_lattice = stack_scenes([scene], bounds=(500103, 4999703, 500197, 4999899))
    xr.testing.assert_identical(off_lattice, on_lattice)
    wider = stack_scenes([scene], bounds=(499980, 4999990, 500020, 5000010))
    np.testing.assert_array_equal(wider.red[0], [[0, 0, 0, 0], [0, 0, 1, 2]])
    assert wider.item_left == 500000
    with pytest.raises(ValueError, match=r"no item lies in bounds=\(0, 0, 9, 9\); .* cover \(500000"):
        stack_scenes([scene], bounds=(0, 0, 9, 9))
    with pytest.raises(ValueError, match="left < right"):
        stack_scenes([scene], bounds=(9, 0, 0, 9))


def test_bbox_crops_to_the_items(numbered: tuple[Scene, np.ndarray]) -> None:
    scene, array = numbered
    far = scene_of(unopened(left=600000), item_id="far", day=2)
    ds = stack_scenes([scene, far], bbox=(14.0, 45.0, 15.003, 46.0))
    assert ds.item_id.values.tolist() == ["a"], "items outside are left out"
    assert ds.x[0] == 500005
    assert 0 < ds.sizes["x"] < 80
    np.testing.assert_array_equal(ds.red[0], array[:, : ds.sizes["x"]])
    with pytest.raises(ValueError, match="no item lies in bbox="):
        stack_scenes([scene], bbox=(-10, 0, -9, 1))
    with pytest.raises(ValueError, match="not both"):
        stack_scenes([scene], bbox=(0, 0, 1, 1), bounds=(0, 0, 1, 1))


def test_resolution_keeps_to_the_items_corner_or_that_of_bounds(numbered: tuple[Scene, np.ndarray]) -> None:
    scene, array = numbered
    coarse = stack_scenes([scene], resolution=20)
    np.testing.assert_array_equal(coarse.red[0], array[1::2, 1::2])
    assert "resampled" not in coarse.red.attrs
    fine = stack_scenes([scene], resolution=(5, 10))
    np.testing.assert_array_equal(fine.red[0], np.repeat(array, 2, 0))
    shifted = stack_scenes([scene], resolution=10, bounds=(500103, 4999703, 500203, 4999903))
    assert shifted.rio.bounds() == (500103, 4999703, 500203, 4999903)
    assert shifted.red.attrs["resampled"] is True
    np.testing.assert_array_equal(shifted.red[0], array[10:30, 10:20])
    for wrong in (0, -1, "ten", (1, 2, 3)):
        with pytest.raises(ValueError, match="resolution must be"):
            stack_scenes([scene], resolution=wrong)


def test_crs_warps_like_gdal(shared_data: Path) -> None:
    path = shared_data / "rasters" / "s2_29RKH" / "B02.tif"
    scene = scene_of(*bands_of(path, "blue"))
    same = stack_scenes([scene], crs="EPSG:32629")
    assert "resampled" not in same.blue.attrs
    ds = stack_scenes([scene], crs=4326)
    with (
        rasterio.open(path) as dataset,
        WarpedVRT(dataset, crs="EPSG:4326", transform=ds.rio.transform(), height=ds.sizes["y"], width=ds.sizes["x"]) as warped,
    ):
        expected = warped.read(1)
    assert (ds.blue[0].values == expected).mean() > 0.95
    assert (ds.blue[0] > 0).sum() > 100_000
    with pytest.raises(ValueError, match="'EPSG:nonsense' is not a CRS"):
        stack_scenes([scene], crs="EPSG:nonsense")


def test_a_band_that_does_not_align_is_warped_and_says_so(tmp_path: Path) -> None:
    red = bands_of(write(tmp_path / "red.tif", np.full((40, 40), 5, "uint16")), "red")
    pan = bands_of(write(tmp_path / "pan.tif", np.full((30, 30), 7, "uint16"), left=500003, res=15), "pan")
    scene = scene_of(*red, *pan, grid=red[0].grid)
    ds = stack_scenes([scene])
    assert "resampled" not in ds.red.attrs
    assert ds.pan.attrs["resampled"] is True
    assert ds.pan.shape == (1, 40, 40)
    assert (ds.pan == 7).mean() > 0.9


def test_resampling_smooths_data_but_never_quality(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fine = bands_of(write(tmp_path / "f.tif", rng.integers(0, 9, (40, 40)).astype("uint8")), "red")
    coarse = bands_of(write(tmp_path / "c.tif", rng.integers(0, 250, (20, 20)).astype("uint8"), res=20), "nir")
    quality = bands_of(write(tmp_path / "q.tif", rng.integers(0, 12, (20, 20)).astype("uint8"), res=20), "scl")
    scene = scene_of(*fine, *coarse, *quality, rule=values("scl", {CLOUD: [9]}), quality=tuple(quality))
    exact, smooth = stack_scenes([scene]), stack_scenes([scene], resampling="bilinear")
    xr.testing.assert_identical(exact.red, smooth.red)
    xr.testing.assert_identical(exact.scl, smooth.scl)
    assert (exact.nir != smooth.nir).any()
    assert smooth.nir.attrs["resampled"] is True
    with pytest.raises(ValueError, match=r"resampling must be one of \['nearest', .*, got 'bicubic'"):
        stack_scenes([scene], resampling="bicubic")


# Values


def test_rescale_gives_physical_values(tmp_path: Path) -> None:
    array = np.array([[0, 1000], [5000, 65535]], "uint16")
    red = bands_of(write(tmp_path / "r.tif", array, nodata=0), "red", scale=0.0001, offset=-0.1)
    scl = bands_of(write(tmp_path / "s.tif", np.array([[0, 4], [8, 9]], "uint8"), nodata=0), "scl")
    old = replace(red[0], offset=0.0)
    rule = values("scl", {NODATA: [0]})
    scenes = [
        scene_of(*red, *scl, rule=rule, quality=tuple(scl)),
        scene_of(old, *scl, item_id="b", day=2, rule=rule, quality=tuple(scl)),
    ]
    ds = stack_scenes(scenes, rescale=True)
    assert ds.red.dtype == np.float32
    assert np.isnan(ds.red.rio.nodata)
    np.testing.assert_allclose(ds.red, [[[np.nan, 0], [0.4, 6.4535]], [[np.nan, 0.1], [0.5, 6.5535]]], rtol=1e-6)
    assert ds.scl.dtype == np.uint8, "codes have no physical value"
    raw = stack_scenes(scenes)
    assert "scale" not in raw.red.attrs, "the items do not agree"
    np.testing.assert_array_equal(raw.red, [array, array])


def test_absent_bands_and_whatever_is_outside_hold_nodata(tmp_path: Path) -> None:
    red = bands_of(write(tmp_path / "r.tif", np.ones((4, 4), "float32"), nodata=-9999), "red")
    bare = bands_of(write(tmp_path / "b.tif", np.ones((4, 4), "int16")), "bare")
    odd = replace(bare[0], name="odd", nodata=1e20)
    scenes = [scene_of(*red, *bare, odd), scene_of(replace(red[0], name="other"), item_id="b", day=2)]
    ds = stack_scenes(scenes, bounds=(500000, 4999950, 500050, 5000000))
    assert (ds.red[1] == -9999).all()
    assert (ds.bare[1] == 0).all()
    assert ds.red[0, 4].values.tolist() == [-9999] * 5
    assert (ds.bare.rio.nodata, ds.odd.rio.nodata) == (None, None)
    assert ds.red.rio.nodata == -9999


def test_a_band_outside_of_bounds_holds_nodata(tmp_path: Path) -> None:
    whole = bands_of(write(tmp_path / "r.tif", np.ones((8, 8), "uint8"), nodata=7), "red")
    part = bands_of(write(tmp_path / "p.tif", np.full((8, 3), 2, "uint8"), nodata=7), "part")  # the left three columns
    scenes = [scene_of(*whole, *part)]
    assert stack_scenes(scenes).part[0, 0].values.tolist() == [2, 2, 2, 7, 7, 7, 7, 7]
    for bounds in ((500040, 4999920, 500080, 5000000), (500030, 4999920, 500080, 5000000)):
        ds = stack_scenes(scenes, bounds=bounds)
        assert (ds.part == 7).all()
        assert (ds.red == 1).all()
        assert ds.part.shape == ds.red.shape
    alone = stack_scenes([scene_of(*whole, *part, grid=whole[0].grid)], bounds=(500040, 4999920, 500080, 5000000))
    assert (alone.part == 7).all()


def test_a_nodata_value_that_a_float_can_not_have_declares_none(tmp_path: Path) -> None:
    (red,) = bands_of(write(tmp_path / "r.tif", np.ones((4, 4), "float32")), "red")
    for nodata, declared in [(-1.7976931348623157e308, None), (-3.4028235e38, np.finfo("float32").min), (-np.inf, -np.inf)]:
        ds = stack_scenes([scene_of(replace(red, nodata=nodata))], bounds=(500000, 4999950, 500050, 5000000))
        assert ds.red.rio.nodata == declared
        assert ds.red[0, 4, 4] == (0 if declared is None else declared)


# Chunks


def test_auto_chunks_are_whole_blocks() -> None:
    for block, shape, expected in [
        ((1024, 1024), (10980, 10980), ((2048,) * 5 + (740,), (2048,) * 5 + (740,))),
        ((640, 640), (10980, 10980), ((1920,) * 5 + (1380,), (1920,) * 5 + (1380,))),
        ((256, 256), (1000, 1000), ((1000,), (1000,))),
        (None, (5000, 3000), ((2048, 2048, 904), (2048, 952))),
        ((1, 10980), (900, 10980), ((381, 381, 138), (10980,))),
        ((7, 262), (5000, 262), ((2044, 2044, 912), (262,))),
    ]:
        ds = stack_scenes([scene_of(unopened(shape=shape), block=block)])
        assert ds.red.chunks[1:] == expected
        assert ds.chunks["y"] == expected[0]


def test_auto_chunks_of_a_part_begin_where_blocks_do() -> None:
    scene = scene_of(unopened(shape=(5000, 5000)), unopened("scl", res=20, shape=(2500, 2500), dtype="uint8"), block=(1024, 1024))
    ds = stack_scenes([scene], bounds=(510000, 4960000, 545000, 4990000))
    assert ds.chunks["y"] == (1048, 1952)
    assert ds.chunks["x"] == (1048, 2048, 404)


def test_four_bands_of_a_file_are_one_chunk(shared_data: Path) -> None:
    scene = scene_of(*bands_of(shared_data / "rasters" / "naip_m_4112001_sw_10.tif", "image"))
    ds = stack_scenes([scene], chunks=100)
    graph = ds.__dask_graph__()
    reads = [key for key in graph if str(key[0]).startswith("fetch_raster_window")]
    assert len(reads) == 4 * 3


def test_graphs_are_named_the_same_twice(shared_data: Path) -> None:
    scene = scene_of(*bands_of(shared_data / "rasters" / "naip_m_4112001_sw_10.tif", "image"))
    assert stack_scenes([scene]).image_1.data.name == stack_scenes([scene]).image_1.data.name


# Errors


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no items to stack"):
        stack_scenes([])
    ds = stack_scenes([scene_of(unopened(), item_id="S2A_X")])
    with pytest.raises(xchip.ItemError, match=r"^item 'S2A_X': asset 'red': can't read /nowhere/red.tif: .*No such file"):
        ds.red.load()
    band = bands_of(write(tmp_path / "r.tif", np.random.default_rng(0).integers(0, 99, (300, 300)).astype("uint16")), "red")[0]
    (tmp_path / "r.tif").write_bytes((tmp_path / "r.tif").read_bytes()[:90_000])
    with pytest.raises(xchip.ItemError, match=r"^item 'a': asset 'red': can't read .*r.tif"):
        stack_scenes([scene_of(band)]).red.load()
