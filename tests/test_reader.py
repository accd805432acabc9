from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from servers import RangeServer

from xchip.core.grid import PixelGrid
from xchip.core.scene import Band, ItemError
from xchip.io.gdal import POOL, DatasetPool, gdal_options, gdal_path
from xchip.raster.header import read_header
from xchip.raster.reader import _SIBLINGS, BandReader, BandSource, fill_value, strips
from xchip.raster.regrid import repeat

S2_TIF = "s2_29RKH/B02.tif"
S2_JP2 = "s2_S2B_33TWL_20230810/B02.tif"


def write(path: Path, values: np.ndarray, transform: Any = None, crs: Any = "EPSG:32633", **profile: Any) -> str:
    """Save (y, x) or (band, y, x) values as a GeoTIFF."""
    layers = values if values.ndim == 3 else values[None]
    count, height, width = layers.shape
    transform = from_origin(500000, 5000000, 10, 10) if transform is None else transform
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype, **profile}
    with rasterio.open(path, "w", transform=transform, crs=crs, **profile) as dataset:
        dataset.write(layers)
    return str(path)


def band_of(href: str, index: int = 1, **changes: Any) -> Band:
    header = read_header(href)
    fields = {
        "grid": header.grid,
        "dtype": header.dtypes[index - 1],
        "nodata": header.nodata[index - 1],
        "masked": header.masked,
        **changes,
    }
    return Band(name=f"b{index}", asset="image", href=href, index=index, count=len(header.dtypes), **fields)


def reader_of(
    band: Band, target: PixelGrid, resampling: str = "nearest", siblings: tuple[int, ...] = (), rescale: bool = False
) -> BandReader:
    dtype = "float32" if rescale else band.dtype
    return BandReader(
        url=BandSource("the-item", band, target, siblings, rescale).to_url(),
        spec=None,
        resampling=Resampling[resampling],
        dtype=np.dtype(dtype),
        fill_value=fill_value(dtype, np.nan if rescale else band.nodata),
    )


def pixels(href: str | Path, index: int = 1) -> np.ndarray:
    with rasterio.open(href) as dataset:
        return dataset.read(index)


def padded(values: np.ndarray, rows: range, cols: range, fill: Any) -> np.ndarray:
    """``values[rows, cols]``, a pixel at a time, with ``fill`` outside."""
    height, width = values.shape
    out = np.full((len(rows), len(cols)), fill, values.dtype)
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            if 0 <= row < height and 0 <= col < width:
                out[i, j] = values[row, col]
    return out


# Headers


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (S2_TIF, {"crs": "EPSG:32629", "shape": (1098, 1098), "dtypes": ("uint16",), "nodata": (0.0,), "masked": False}),
        # JPEG2000 in a .tif, georeferenced by the .aux.xml beside it
        (S2_JP2, {"crs": "EPSG:32633", "shape": (915, 915), "dtypes": ("uint16",), "nodata": (0.0,), "block": (512, 512)}),
        (
            "colorado_hro_mask.tif",
            {"crs": "EPSG:26913", "dtypes": ("uint8",) * 3, "nodata": (None,) * 3, "masked": True, "alpha": None},
        ),
        ("colorado_hro_nodata.tif", {"nodata": (0.0,) * 3, "masked": False}),
        ("s2_T19GBQ_cloudmask_10m.tif", {"masked": True, "block": (640, 640)}),
        # near infrared, tagged as alpha
        ("naip_m_3211605_ne_11.tif", {"dtypes": ("uint8",) * 4, "masked": False, "alpha": 4}),
        ("linz_dem_BY23.tif", {"crs": "EPSG:2193", "dtypes": ("float32",), "nodata": (-9999.005859375,)}),
        ("esa_worldcover_2020_N00E006.tif", {"crs": "EPSG:4326", "shape": (36000, 36000)}),
    ],
)
def test_header_of_real_files(shared_data: Path, file: str, expected: dict[str, Any]) -> None:
    header = read_header(str(shared_data / "rasters" / file))
    known = {"crs": header.grid.crs, "shape": header.grid.shape}
    assert {name: known.get(name, getattr(header, name, None)) for name in expected} == expected


def test_header_of_a_crs_without_code(shared_data: Path) -> None:
    path = next((shared_data / "rasters" / "modis_MYD13A1").glob("*VIQ*"))
    header = read_header(str(path))
    assert header.grid.crs.startswith("PROJCRS[")
    assert "Sinusoidal" in header.grid.crs
    assert (header.nodata, header.descriptions) == ((65535.0,), ("500m 16 days VI Quality",))


def test_sidecars_are_seen_whatever_the_environment_says(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    assert read_header(str(shared_data / "rasters" / S2_JP2)).grid.crs == "EPSG:32633"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_without_a_usable_grid_are_refused(shared_data: Path, tmp_path: Path) -> None:
    values = np.zeros((4, 5), "uint8")
    with pytest.raises(ValueError, match=r"gcps_only_au.tif has no pixel grid, only 24 ground control points; warp it"):
        read_header(str(shared_data / "rasters" / "gcps_only_au.tif"))
    rotated = from_origin(0, 0, 1, 1) @ rasterio.Affine.rotation(30)
    south_up = rasterio.Affine(10, 0, 0, 0, 10, 0)
    for transform, crs, words in [
        (rasterio.Affine.identity(), None, "no transform and no CRS"),
        (None, None, "has no CRS"),
        (rotated, "EPSG:32633", "is rotated"),
        (south_up, "EPSG:32633", "is south-up"),
        (None, 'LOCAL_CS["drawing",UNIT["metre",1]]', "no known place on Earth"),
    ]:
        options = {} if crs is None else {"crs": crs}
        path = write(tmp_path / "bad.tif", values, transform, **{"crs": None, **options})
        with pytest.raises(ValueError, match=words) as caught:
            read_header(path)
        assert path in str(caught.value)


# What GDAL opens


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("/data/a b.tif", "/data/a b.tif"),
        ("file:///data/a%20b.tif", "/data/a b.tif"),
        ("https://host/a.tif?sig=x%2Fy", "/vsicurl/https://host/a.tif?sig=x%2Fy"),
        ("s3://bucket/a/b.tif", "/vsis3/bucket/a/b.tif"),
        ("gs://bucket/b.tif", "/vsigs/bucket/b.tif"),
        ("abfs://box/b.tif", "/vsiaz/box/b.tif"),
        ("abfss://box@account.dfs.core.windows.net/a/b.tif", "/vsiaz/box/a/b.tif"),
        ("/vsizip//data/a.zip/b.tif", "/vsizip//data/a.zip/b.tif"),
        ("NETCDF:/data/a.nc:ndvi", "NETCDF:/data/a.nc:ndvi"),
    ],
)
def test_gdal_path(href: str, path: str) -> None:
    assert gdal_path(href) == path


def test_the_users_gdal_settings_win_for_remote_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gdal_options("s3://b/a.tif")["GDAL_HTTP_MAX_RETRY"] == "2"
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    assert "GDAL_HTTP_MAX_RETRY" not in gdal_options("s3://b/a.tif")
    with rasterio.Env(GDAL_HTTP_RETRY_DELAY="3"):
        assert "GDAL_HTTP_RETRY_DELAY" not in gdal_options("s3://b/a.tif")


# Windows


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A file of 23 x 31 pixels, in blocks of 16."""
    rng = np.random.default_rng(5)
    values = rng.integers(1, 60000, (23, 31)).astype("uint16")
    path = tmp_path_factory.mktemp("small") / "small.tif"
    href = write(path, values, tiled=True, blockxsize=16, blockysize=16, nodata=7)
    return {"href": href, "values": values}


@settings(max_examples=60, deadline=None)
@given(
    factor=st.sampled_from([(1, 1), (2, 2), (3, 3), (6, 2), (-2, -2), (-3, -3), (-5, 2)]),
    offset=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    window=st.tuples(st.integers(-5, 60), st.integers(-5, 60), st.integers(1, 40), st.integers(1, 40)),
)
def test_any_window_of_an_aligned_band_is_exact(small: dict[str, Any], factor: Any, offset: Any, window: Any) -> None:
    band = band_of(small["href"])
    res = [10 / f if f > 0 else 10 * -f for f in factor]
    unit = [min(10, r) for r in res]
    target = PixelGrid(
        band.grid.crs, (res[1], 0, 500000 - offset[1] * unit[1], 0, -res[0], 5000000 + offset[0] * unit[0]), (400, 400)
    )
    row, col, height, width = window
    got = reader_of(band, target).read(Window(col, row, width, height))

    def source(axis: int, first: int, count: int) -> list[int]:
        f, o = factor[axis], offset[axis]
        return [(i - o) // f if f > 0 else i * -f - o + -f // 2 for i in range(first, first + count)]

    expected = padded(small["values"], source(0, row, height), source(1, col, width), 7)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, expected)


@given(
    dtype=st.sampled_from(["bool", "uint8", "int8", "uint16", "int16", "uint32", "float32", "float64", "complex64"]),
    factors=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 9)),
)
def test_repeat_is_numpys_repeat(dtype: str, factors: tuple[int, int], shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).integers(-100, 100, shape).astype(dtype)
    expected = np.repeat(np.repeat(values, factors[0], axis=0), factors[1], axis=1)
    got = repeat(values, *factors)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(repeat(values[::-1, ::-1], *factors), expected[::-1, ::-1])


def test_thinning_in_parts_is_the_same(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    band = band_of(small["href"])
    target = PixelGrid(band.grid.crs, (20, 0, 500000, 0, -20, 5000000), (11, 15))
    monkeypatch.setattr("xchip.raster.reader.PART_BYTES", 200)
    np.testing.assert_array_equal(reader_of(band, target).read(Window(0, 0, 15, 11)), small["values"][1::2, 1::2])


@pytest.mark.parametrize("method", ["nearest", "bilinear", "average"])
def test_warp_agrees_with_gdals_own(shared_data: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    href = str(shared_data / "rasters" / S2_TIF)
    band = band_of(href)
    target = PixelGrid("EPSG:32628", (130.0, 0.0, 780000.0, 0.0, -130.0, 2810000.0), (500, 600))
    got = reader_of(band, target, method).read(Window(100, 50, 400, 300))
    with (
        rasterio.open(href) as dataset,
        WarpedVRT(
            dataset,
            crs="EPSG:32628",
            transform=rasterio.Affine(*target.transform),
            height=500,
            width=600,
            resampling=Resampling[method],
        ) as warped,
    ):
        expected = warped.read(1, window=Window(100, 50, 400, 300))
    assert (expected > 0).mean() > 0.3
    # GDAL approximates coordinates to an eighth of a pixel, along each piece that it warps.
    tolerance = 0 if method == "nearest" else 0.05
    assert np.isclose(got, expected, rtol=tolerance, atol=0).mean() > 0.95
    monkeypatch.setattr("xchip.raster.reader.PART_BYTES", 60_000)
    in_parts = reader_of(band, target, method).read(Window(100, 50, 400, 300))
    assert np.isclose(in_parts, expected, rtol=tolerance, atol=0).mean() > 0.95
    far = target.window(row_off=-9000, col_off=0, height=5, width=5)
    outside = reader_of(band, far, method).read(Window(0, 0, 5, 5))
    assert (outside == 0).all()


def test_warp_keeps_zeros_where_no_nodata_is_declared_and_skips_nodata(tmp_path: Path) -> None:
    values = np.zeros((20, 20), "int16")
    values[10:] = 4
    shifted = PixelGrid("EPSG:32633", (10.0, 0.0, 500003.0, 0.0, -10.0, 4999997.0), (25, 25))
    plain = reader_of(band_of(write(tmp_path / "plain.tif", values)), shifted).read(Window(0, 0, 19, 19))
    np.testing.assert_array_equal(plain, values[:19, :19])
    marked = reader_of(band_of(write(tmp_path / "marked.tif", values, nodata=4)), shifted).read(Window(0, 0, 25, 25))
    assert (marked[:9, :19] == 0).all()
    assert (marked[11:] == 4).all()
    assert (marked[:, 21:] == 4).all()


def test_another_resampling_is_used_for_coarser_bands_too(small: dict[str, Any]) -> None:
    band = band_of(small["href"])
    fine = PixelGrid(band.grid.crs, (5, 0, 500000, 0, -5, 5000000), (46, 62))
    exact = reader_of(band, fine).read(Window(0, 0, 62, 46))
    smooth = reader_of(band, fine, "bilinear").read(Window(0, 0, 62, 46))
    np.testing.assert_array_equal(exact, np.repeat(np.repeat(small["values"], 2, 0), 2, 1))
    assert (smooth != exact).any()
    same = reader_of(band, band.grid, "bilinear").read(Window(0, 0, 31, 23))
    np.testing.assert_array_equal(same, small["values"])


def test_rescaled_values_have_nan_for_nodata_and_masked(tmp_path: Path, shared_data: Path) -> None:
    values = np.array([[0, 10], [1000, 65535]], "uint16")
    band = band_of(write(tmp_path / "a.tif", values, nodata=0), scale=0.0001, offset=-0.1)
    got = reader_of(band, band.grid.window(row_off=0, col_off=0, height=2, width=3), rescale=True).read(Window(0, 0, 3, 2))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[np.nan, -0.099, np.nan], [0.0, 6.4535, np.nan]], rtol=1e-6, atol=1e-9)

    href = str(shared_data / "rasters" / "colorado_hro_mask.tif")
    band = band_of(href, 2)
    got = reader_of(band, band.grid, rescale=True).read(Window(0, 0, 383, 232))
    with rasterio.open(href) as dataset:
        mask = dataset.read_masks(2)
    assert 0 < (mask == 0).sum() < mask.size
    np.testing.assert_array_equal(np.isnan(got), mask == 0)


@pytest.mark.parametrize("file", ["naip_m_3211605_ne_11.tif", "l7_olinda_6band.tif", "rgb_byte_l7.tif", "hls_10band_224.tif"])
def test_bands_of_one_file_are_handed_on(shared_data: Path, file: str) -> None:
    href = str(shared_data / "rasters" / file)
    with rasterio.open(href) as dataset:
        expected = dataset.read(window=Window(10, 20, 100, 90))
        indexes = dataset.indexes
    readers = [reader_of(band_of(href, index), band_of(href).grid, siblings=indexes) for index in indexes]
    readers[0].read(Window(10, 20, 100, 90))
    assert [index for _, index, _ in _SIBLINGS.bands] == list(indexes[1:])
    for order in (range(len(readers)), reversed(range(len(readers))), range(len(readers))):
        for number in order:
            np.testing.assert_array_equal(readers[number].read(Window(10, 20, 100, 90)), expected[number])
    assert _SIBLINGS.bands == {}, "all have taken theirs"
    readers[0].read(Window(10, 20, 100, 90))
    readers[1].read(Window(0, 0, 5, 5))
    readers[0].read(Window(0, 0, 5, 5))
    assert {box for *_, box in _SIBLINGS.bands} == {(0, 5, 0, 5)}, "one window at most"


# Processes, threads, files that change


def test_reader_pickles_and_reads_again(small: dict[str, Any]) -> None:
    band = band_of(small["href"], nodata=float("nan"))
    reader = reader_of(band, band.grid)
    reader.read(Window(0, 0, 5, 5))
    again = pickle.loads(pickle.dumps(reader))
    assert len(pickle.dumps(reader)) < 3000
    np.testing.assert_array_equal(again.read(Window(3, 4, 20, 10)), small["values"][4:14, 3:23])
    assert np.isnan(again.source.band.nodata)
    again.close()


def test_many_threads_on_one_file(shared_data: Path) -> None:
    href = str(shared_data / "rasters" / S2_TIF)
    expected = pixels(href)
    band = band_of(href)
    fine = PixelGrid(band.grid.crs, (50, 0, band.grid.transform[2], 0, -50, band.grid.transform[5]), (2196, 2196))
    readers = [reader_of(band, band.grid), reader_of(band, fine)]
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 900, (150, 2)).tolist()

    def right(job: tuple[int, list[int]]) -> bool:
        number, (row, col) = job
        got = readers[number % 2].read(Window(col, row, 150, 130))
        rows, cols = np.arange(row, row + 130) // (1 + number % 2), np.arange(col, col + 150) // (1 + number % 2)
        return bool((got == expected[np.ix_(rows, cols)]).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(right, enumerate(corners)))
    assert len(POOL) <= POOL.size


def test_pool_is_bounded_and_gives_each_thread_its_own(tmp_path: Path) -> None:
    pool = DatasetPool(size=3)
    hrefs = [write(tmp_path / f"{n}.tif", np.full((2, 2), n, "uint8")) for n in range(5)]
    for href in hrefs:
        with pool.borrowed(href) as first, pool.borrowed(href) as second:
            assert first is not second
    assert len(pool) == 3
    with pool.borrowed(hrefs[4]) as kept:
        pass
    with pool.borrowed(hrefs[4]) as again:
        assert again is kept
    with pytest.raises(KeyError), pool.borrowed(hrefs[4]):
        raise KeyError("what happens inside")
    assert kept.closed
    pool.clear()
    assert len(pool) == 0


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    band = band_of(write(path, np.full((8, 8), 1, "uint8")))
    reader = reader_of(band, band.grid)
    assert (reader.read(Window(0, 0, 8, 8)) == 1).all()
    write(tmp_path / "new.tif", np.full((8, 8), 2, "uint8"))
    os.replace(tmp_path / "new.tif", path)
    assert (reader.read(Window(0, 0, 8, 8)) == 2).all()
    path.unlink()
    with pytest.raises(ItemError, match="No such file"):
        reader.read(Window(0, 0, 8, 8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_children_of_a_fork_read_their_own(shared_data: Path) -> None:
    href = str(shared_data / "rasters" / S2_TIF)
    band = band_of(href)
    reader = reader_of(band, band.grid)
    expected = reader.read(Window(0, 0, 1098, 1098))
    assert len(POOL)
    context = multiprocessing.get_context("fork")
    answers: Any = context.Queue()

    def child() -> None:
        start = len(POOL)
        answers.put((start, all((reader.read(Window(0, 0, 1098, 1098)) == expected).all() for _ in range(5))))

    children = [context.Process(target=child) for _ in range(2)]
    for process in children:
        process.start()
    mine = all((reader.read(Window(0, 0, 1098, 1098)) == expected).all() for _ in range(5))
    assert [answers.get(timeout=30) for _ in children] == [(0, True)] * 2
    for process in children:
        process.join()
    assert mine


# Errors


def test_missing_and_wrong_files_name_item_asset_and_file(tmp_path: Path) -> None:
    href = write(tmp_path / "a.tif", np.zeros((8, 9), "int16"))
    good = band_of(href)
    moved = good.grid.window(row_off=1, col_off=0, height=8, width=9)
    other = write(tmp_path / "two.tif", np.zeros((2, 8, 9), "int16"))
    for changes, words in [
        ({"href": str(tmp_path / "none.tif")}, "none.tif: No such file or directory"),
        ({"grid": good.grid.window(row_off=0, col_off=0, height=9, width=9)}, r"a.tif has \(8, 9\) pixels .* item says \(9, 9\)"),
        ({"dtype": "uint8"}, "a.tif holds int16; the item or profile says uint8"),
        ({"grid": moved}, "1.0 pixels away"),
        ({"href": other, "index": 3}, "two.tif has 2 bands; the item says that this is band 3"),
    ]:
        band = Band(**{**{f: getattr(good, f) for f in good.__dataclass_fields__}, **changes})
        with pytest.raises(ItemError, match=words) as caught:
            reader_of(band, band.grid).read(Window(0, 0, 4, 4))
        assert str(caught.value).startswith("item 'the-item': asset 'image': ")
        assert isinstance(caught.value.__cause__, OSError)
    wider = Band(**{**{f: getattr(good, f) for f in good.__dataclass_fields__}, "dtype": "int32"})
    assert reader_of(wider, wider.grid).read(Window(0, 0, 4, 4)).dtype == np.int32


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_items_grid_serves_for_a_file_without_one_but_not_for_control_points(shared_data: Path, tmp_path: Path) -> None:
    values = np.arange(12, dtype="uint8").reshape(3, 4)
    grid = PixelGrid("EPSG:32633", (10, 0, 0, 0, -10, 0), (3, 4))
    band = Band("a", "a", write(tmp_path / "a.tif", values, rasterio.Affine.identity(), crs=None), grid, "uint8")
    np.testing.assert_array_equal(reader_of(band, grid).read(Window(0, 0, 4, 3)), values)
    grid = PixelGrid("EPSG:4326", (0.1, 0, 110, 0, -0.1, -10), (124, 133))
    band = Band("a", "a", str(shared_data / "rasters" / "gcps_only_au.tif"), grid, "uint8")
    with pytest.raises(ItemError, match="only 24 ground control points"):
        reader_of(band, grid).read(Window(0, 0, 4, 3))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "file", [S2_TIF, "s2_T32TLS_R60m_B01.jp2", "landsat_LC08_198029_B2_crop.tif", "naip_m_4112001_sw_10.tif"]
)
def test_truncated_files_are_never_read_as_nodata(shared_data: Path, tmp_path: Path, file: str) -> None:
    whole = shared_data / "rasters" / file
    band = band_of(str(whole))
    data = whole.read_bytes()
    cut = tmp_path / whole.name
    cut.write_bytes(data[: len(data) // 2])
    broken = Band(**{**{f: getattr(band, f) for f in band.__dataclass_fields__}, "href": str(cut)})
    height, width = band.grid.shape
    with pytest.raises(ItemError, match=f"item 'the-item': asset 'image': can't read {cut}"):
        reader_of(broken, band.grid).read(Window(0, 0, width, height))
    with pytest.raises(OSError, match=f"can't read {cut}"):
        list(strips(broken))


# From top to bottom


@pytest.mark.parametrize(
    "file", [S2_JP2, "landsat_LC08_198029_B2_crop.tif", "copdem30_N00E006.tif", "s2_29RKH/SCL.tif", "s2_T32TLS_R60m_B01.jp2"]
)
def test_strips_are_the_file_in_order(shared_data: Path, file: str) -> None:
    href = str(shared_data / "rasters" / file)
    expected = pixels(href)
    got = np.zeros_like(expected)
    following, buffers = 0, set()
    block = read_header(href).block[0]
    for row, values in strips(band_of(href)):
        assert row == following
        assert row % block == 0
        following = row + len(values)
        buffers.add(values.__array_interface__["data"][0])
        got[row:following] = values
    assert following == len(expected)
    assert len(buffers) <= 2
    np.testing.assert_array_equal(got, expected)


def test_strips_of_several_bands_and_their_mask(shared_data: Path) -> None:
    href = str(shared_data / "rasters" / "colorado_hro_mask.tif")
    with rasterio.open(href) as dataset:
        expected, mask = dataset.read([3, 1]), dataset.read_masks(3)
    parts = [(row, values[:2].copy(), values[2].copy()) for row, values in strips(href, [3, 1, 0])]
    np.testing.assert_array_equal(np.concatenate([values for _, values, _ in parts], axis=1), expected)
    np.testing.assert_array_equal(np.concatenate([valid for _, _, valid in parts]), mask)
    single = np.concatenate([values.copy() for _, values in strips(band_of(href, 2))])
    np.testing.assert_array_equal(single, pixels(href, 2))


def test_strips_hold_their_file_against_the_item(tmp_path: Path) -> None:
    band = band_of(write(tmp_path / "a.tif", np.zeros((8, 9), "int16")))
    wrong = Band("b", "image", band.href, band.grid.window(row_off=0, col_off=0, height=4, width=9), "int16")
    with pytest.raises(OSError, match=r"a.tif has \(8, 9\) pixels"):
        next(strips(wrong))


MEASURE = """
import json, sys, numpy as np
from pathlib import Path
from xchip.raster.reader import strips

def peak():
    # ru_maxrss would be the parent's where that was larger: Linux hands it on through fork and exec.
    status = Path("/proc/self/status")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) if status.exists() else 0

for _, values in strips(sys.argv[1]):
    break
before = peak()
total = sum(int(np.count_nonzero(values)) for _, values in strips(sys.argv[1]))
print(json.dumps([total, peak() - before]))
"""


@pytest.mark.once
def test_strips_of_a_huge_file_take_little_memory(shared_data: Path) -> None:
    path = shared_data / "rasters" / "esa_worldcover_2020_N00E006.tif"
    answer = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True, timeout=100)
    total, grown = json.loads(answer.stdout)
    with rasterio.open(path) as dataset:
        sample = dataset.read(1, window=Window(0, 0, 36000, 1024))
    assert total >= np.count_nonzero(sample) > 0
    assert grown < 250_000, "kilobytes; 0 where nothing tells them"


# Over HTTP


@pytest.mark.parametrize("query", ["", "X-Amz-Signature=a%20b%2Fc&X-Amz-Expires=9", "Expires=9&X-Goog-Signature=ab"])
def test_remote_cog(shared_data: Path, query: str) -> None:
    expected = pixels(shared_data / "rasters" / S2_TIF)
    with RangeServer(shared_data / "rasters", query=query or None) as server:
        href = f"{server.url}/{S2_TIF}" + (f"?{query}" if query else "")
        band = band_of(href)
        reader = reader_of(band, band.grid)
        jobs = [(row, col) for row in range(0, 1000, 300) for col in range(0, 1000, 300)]

        def right(job: tuple[int, int]) -> bool:
            row, col = job
            return bool((reader.read(Window(col, row, 90, 80)) == expected[row : row + 80, col : col + 90]).all())

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(right, jobs))
        np.testing.assert_array_equal(np.concatenate([values.copy() for _, values in strips(href)]), expected)
        assert {path.partition("?")[0] for _, path, _ in server.requests} == {f"/{S2_TIF}"}, "no sidecar is asked for"
        assert all(status < 300 for _, _, status in server.requests)
        POOL.clear()


def test_remote_errors_hide_the_signature_and_busy_servers_are_asked_again(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    with RangeServer(shared_data / "rasters", busy=2) as server:
        assert read_header(f"{server.url}/{S2_TIF}").grid.shape == (1098, 1098)
        assert [status for *_, status in server.requests].count(503) == 2
        with pytest.raises(OSError, match=r"can't read http://[^ ]*/none.tif\?\.\.\.: HTTP response code: 404") as caught:
            read_header(f"{server.url}/none.tif?token=secret")
        assert "secret" not in str(caught.value)
        POOL.clear()


def test_threads_do_not_share_what_is_handed_on(shared_data: Path) -> None:
    href = str(shared_data / "rasters" / "naip_m_4112001_sw_10.tif")
    readers = [reader_of(band_of(href, index), band_of(href).grid, siblings=(1, 2, 3, 4)) for index in (1, 2, 3, 4)]
    readers[0].read(Window(0, 0, 50, 50))
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(dict(_SIBLINGS.bands)))
    thread.start()
    thread.join()
    assert seen == [{}]
    np.testing.assert_array_equal(readers[3].read(Window(0, 0, 50, 50)), pixels(href, 4)[:50, :50])


def test_an_error_of_one_file_is_not_taken_for_one_of_the_next(shared_data: Path, tmp_path: Path) -> None:
    """GDAL remembers a thread's last error; rasterio looks at it after calls on datasets that were open already."""
    good = str(shared_data / "rasters" / S2_TIF)
    whole = Path(good).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    expected = read_header(good)  # its dataset waits in the pool now
    with pytest.raises(OSError, match=r"cut\.tif"):
        list(strips(str(tmp_path / "cut.tif")))
    assert read_header(good) == expected
