"""Indexes of items: every real scene and raster against a plain loop over its file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
from rasterio.windows import Window

import xchip
from xchip.indexing.rows import COLUMNS as INDEX_COLUMNS
from xchip.indexing.rows import FRACTIONS
from xchip.quality import CLOUD, NODATA, QualityClass, QualityRule, values
from xchip.testing import raise_if_dask_computes, write_scene

SCL = {0: "NODATA", 1: "DEFECTIVE", 8: "CLOUD", 9: "CLOUD", 10: "CLOUD", 3: "SHADOW", 11: "SNOW", 6: "WATER"}
COLUMNS = list(INDEX_COLUMNS[:-1])
S2_SCENES = ("s2_29RKH", "s2_S2A_33TWL_20230815", "s2_S2A_33TWL_20230818", "s2_S2B_33TWL_20230810", "s2_S2B_33TWM_20230810")
LANDSAT_SCENES = ("landsat_008059", "landsat_001062")
SINGLE_RASTERS = (
    "cbers4_mux_057_094/CBERS_4_MUX_20171121_057_094_L2_BAND5.tif",
    "colorado_hro_mask.tif",
    "colorado_hro_nodata.tif",
    "copdem30_N00E006.tif",
    "greenland_cog_100m.tif",
    "hls_10band_224.tif",
    "l7_olinda_6band.tif",
    "landsat_LC08_198029_B2_crop.tif",
    "landsat_LST_crop.tif",
    "linz_CB07_rgb.tif",
    "linz_dem_BY23.tif",
    "modis_MYD13A1/MYD13A1.A2020153.h30v10_NDVI_B01.TIF",
    "modis_MYD13A1/MYD13A1.A2020153.h30v10_VIQ_B03.TIF",
    "naip_m_3008501_ne_16.tif",
    "naip_m_4112001_sw_10.tif",
    "rgb_byte_l7.tif",
    "rgbn_5m_haiti.tif",
    "s2_T19GBQ_cloudmask_10m.tif",
    "s2_T32TLS_R60m_B01.jp2",
)
LARGE = ("s2_T19", "copdem")


def wrapped(path: Path, **asset: Any) -> dict[str, Any]:
    """A minimal item around one file: all else has to come from the file."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": path.stem,
        "geometry": None,
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "links": [],
        "assets": {"data": {"href": str(path), **asset}},
    }


def scl_class(value: int) -> str:
    return SCL.get(value, "CLEAR")


def qa_pixel_class(value: int) -> str:
    for bits, name in (((0,), "NODATA"), ((1, 2, 3), "CLOUD"), ((4,), "SHADOW"), ((5,), "SNOW"), ((7,), "WATER")):
        if any(value >> bit & 1 for bit in bits):
            return name
    return "CLEAR"


def classified(raw: np.ndarray, rule: Any) -> np.ndarray:
    """Codes by the contract's words, one distinct value at a time."""
    codes = np.zeros(raw.shape, np.uint8)
    for value in np.unique(raw):
        codes[raw == value] = QualityClass[rule(int(value))]
    return codes


def check_rows(rows: pd.DataFrame, codes: np.ndarray) -> None:
    assert len(rows)
    for row in rows.itertuples():
        window = codes[row.row_off : row.row_off + row.height, row.col_off : row.col_off + row.width]
        counts = np.bincount(window.ravel(), minlength=7)
        outside = row.height * row.width - window.size
        assert row.nodata_fraction == (counts[0] + outside) / (row.height * row.width)
        valid = counts[1:].sum()
        for cls, name in zip(list(QualityClass)[1:], FRACTIONS[1:], strict=True):
            if valid:
                assert getattr(row, name) == counts[cls] / valid
            else:
                assert np.isnan(getattr(row, name))


@pytest.mark.parametrize("options", [{"size": 128}, {"size": (100, 75), "stride": 61, "edge": "pad"}])
@pytest.mark.parametrize("name", S2_SCENES)
def test_sentinel_2_scenes(shared_data: Path, name: str, options: dict[str, Any]) -> None:
    folder = shared_data / "rasters" / name
    rows = xchip.index_items(folder / "item.json", **options).compute()
    raw = rasterio.open(folder / "SCL.tif").read(1)
    with rasterio.open(folder / "B04.tif") as red:
        factor = red.shape[0] // raw.shape[0]
        assert (rows["proj_left"].min(), rows["proj_top"].max()) == (red.bounds.left, red.bounds.top)
        assert rows["proj_code"].unique().tolist() == [f"EPSG:{red.crs.to_epsg()}"]
    check_rows(rows, classified(raw, scl_class).repeat(factor, 0).repeat(factor, 1))
    assert rows["sensor"].unique().tolist() == ["sentinel-2-l2a"]


@pytest.mark.parametrize(
    "options", [{"size": 64}, {"size": 100, "edge": "shift"}, {"size": 90, "anchor": "crs", "edge": "partial"}]
)
@pytest.mark.parametrize("name", LANDSAT_SCENES)
def test_landsat_scenes(shared_data: Path, name: str, options: dict[str, Any]) -> None:
    folder = shared_data / "rasters" / name
    rows = xchip.index_items(folder / "item.json", **options).compute()
    raw = rasterio.open(next(folder.glob("*QA_PIXEL.TIF"))).read(1)
    check_rows(rows, classified(raw, qa_pixel_class))
    assert rows["sensor"].unique().tolist() == ["landsat-c2-l2"]


@pytest.mark.parametrize("name", SINGLE_RASTERS)
def test_rasters_without_a_quality_band(shared_data: Path, name: str) -> None:
    path = shared_data / "rasters" / name
    size = 1000 if name.startswith(LARGE) else 100
    rows = xchip.index_items(wrapped(path), size, edge="partial").compute()
    with rasterio.open(path) as dataset:
        missing = np.ones(dataset.shape, bool)
        for band in dataset.indexes:
            pixels, nodata = dataset.read(band), dataset.nodatavals[band - 1]
            absent = np.isnan(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool)
            if nodata is not None:
                absent |= pixels == nodata
            missing &= absent | (dataset.read_masks(band) == 0)
        ours = np.array(dataset.crs.to_wkt())
    assert str(ours)
    check_rows(rows, np.where(missing, NODATA, QualityClass.CLEAR))


def test_chips_are_the_files_windows(shared_data: Path) -> None:
    """Pixel for pixel, band for band, through the stack and through the index."""
    folder = shared_data / "rasters" / "s2_29RKH"
    ds = xchip.stack(folder / "item.json")
    assert ds.sizes["y"] == ds.sizes["x"] == 1098
    rows = ds.chips.index(256, edge="shift").compute()
    chips = ds.chips.extract(rows).compute()
    files = {"red": "B04", "blue": "B02", "rededge1": "B05", "scl": "SCL"}
    for name, file in files.items():
        with rasterio.open(folder / f"{file}.tif") as dataset:
            factor = 1098 // dataset.width
            for position, row in enumerate(rows.itertuples()):
                native = dataset.read(1).repeat(factor, 0).repeat(factor, 1) if factor > 1 else None
                window = Window(row.col_off, row.row_off, row.width, row.height)
                expected = (
                    dataset.read(1, window=window)
                    if native is None
                    else native[row.row_off : row.row_off + row.height, row.col_off : row.col_off + row.width]
                )
                np.testing.assert_array_equal(chips[name][position], expected)


@pytest.mark.parametrize("name", [*S2_SCENES, *LANDSAT_SCENES])
def test_the_stack_has_the_same_index(shared_data: Path, name: str) -> None:
    path = shared_data / "rasters" / name / "item.json"
    by_items = xchip.index_items(path, 100, stride=77, edge="pad").compute()
    by_stack = xchip.stack(path).chips.index(100, stride=77, edge="pad").compute()
    pd.testing.assert_frame_equal(pd.DataFrame(by_items), pd.DataFrame(by_stack))


@pytest.mark.parametrize("name", [name for name in SINGLE_RASTERS if not name.startswith(LARGE)])
def test_single_rasters_through_the_stack(shared_data: Path, name: str) -> None:
    item = wrapped(shared_data / "rasters" / name)
    ds = xchip.stack(item)
    by_items = xchip.index_items(item, 100, edge="partial").compute()
    by_stack = ds.chips.index(100, edge="partial").compute()
    pd.testing.assert_frame_equal(pd.DataFrame(by_items[COLUMNS]), pd.DataFrame(by_stack[COLUMNS]))
    # A pixel size that is no short number comes back from coordinates with a rounding error.
    assert by_items.geometry.geom_equals_exact(by_stack.geometry, 1e-10).all()
    with rasterio.open(shared_data / "rasters" / name) as dataset:
        row = by_items.iloc[len(by_items) // 2]
        chip = ds.chips.extract(by_items.iloc[[len(by_items) // 2]]).compute()
        window = Window(row.col_off, row.row_off, row.width, row.height)
        pixels = dataset.read(window=window)
        for band, expected in zip(chip.data_vars, pixels, strict=True):
            np.testing.assert_array_equal(chip[band][0], expected)
            assert chip[band].dtype == expected.dtype


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_worldcover_indexes_in_bounded_memory(shared_data: Path) -> None:
    """36,000 x 36,000 pixels: 1.3 GB as bytes."""
    path = shared_data / "rasters" / "esa_worldcover_2020_N00E006.tif"
    script = f"""
import re, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import xchip
from test_build import wrapped
rows = xchip.index_items(wrapped(Path({str(path)!r})), 256).compute()
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(len(rows), rows.nodata_fraction.mean(), int(peak[1]) // 1024)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    chips, nodata, peak = out.split()
    assert int(chips) == 140 * 140
    total = 0
    with rasterio.open(path) as dataset:
        for row in range(0, 140 * 256, 1024):
            block = dataset.read(1, window=Window(0, row, 140 * 256, min(1024, 140 * 256 - row)))
            total += int((block == 0).sum())
    assert float(nodata) == pytest.approx(total / (140 * 256) ** 2)
    assert int(peak) < 700, f"{peak} MB"


# --- laziness, partitions, options ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [
        Path(write_scene(tmp_path_factory.mktemp("scenes"), item_id=f"scene-{n}", seed=n, shape=(600, 700))) for n in range(3)
    ]


def test_nothing_is_read_and_a_task_an_item(scenes: list[Path], tmp_path: Path) -> None:
    copies = []
    for path in scenes:
        shutil.copy(path, tmp_path / path.name)  # the items without their files
        copies.append(tmp_path / path.name)
    with raise_if_dask_computes():
        index = xchip.index_items(copies, 256)
    assert index.npartitions == 3
    assert index.spatial_partitions is not None
    (optimized,) = dask.optimize(index)
    assert len(optimized.__dask_graph__()) <= 3 * len(copies)
    with pytest.raises(xchip.ItemError, match=r"item 'synthetic-scene-\d': its quality can't be read: .*SCL\.tif"):
        index.compute(scheduler="sync")


def test_spatial_partitions_hold_their_chips(scenes: list[Path]) -> None:
    index = xchip.index_items(scenes, 256, edge="pad", anchor="crs")
    for position, outline in enumerate(index.spatial_partitions):
        assert index.partitions[position].compute().geometry.within(outline.buffer(1e-6)).all()


@pytest.mark.parametrize(
    ("bbox", "bounds", "parts"),
    [
        ([10, 20, 11, 22], (10, 20, 11, 22), 1),
        ([10, 20, 0, 11, 22, 99], (10, 20, 11, 22), 1),
        ([179.9, -5, -179.1, -4], (-180, -5, 180, -4), 2),
        (None, (-180, -90, 180, 90), 1),
        (["west", 0, 1, 2], (-180, -90, 180, 90), 1),
    ],
)
def test_an_item_that_has_to_be_opened_lies_in_its_bbox(bbox: Any, bounds: tuple[float, ...], parts: int) -> None:
    index = xchip.index_items({**wrapped(Path("nowhere.tif")), "bbox": bbox})
    (outline,) = index.spatial_partitions
    assert outline.bounds == bounds
    assert len(getattr(outline, "geoms", [outline])) == parts


def test_every_form_of_items(scenes: list[Path]) -> None:
    expected = xchip.index_items(scenes, 256).compute()
    objects = [pystac.Item.from_file(path) for path in scenes]
    dicts = [item.to_dict() for item in objects]
    forms: list[Any] = [
        [str(path) for path in scenes],
        objects,
        pystac.ItemCollection(objects),
        dicts,
        {"type": "FeatureCollection", "features": dicts},
    ]
    for form in forms:
        rows = xchip.index_items(form, 256).compute()
        pd.testing.assert_frame_equal(
            pd.DataFrame(rows.drop(columns="item_href")), pd.DataFrame(expected.drop(columns="item_href"))
        )
    one = xchip.index_items(objects[0], 256).compute()
    assert one["item_id"].unique().tolist() == ["synthetic-scene-0"]


def test_limits_and_rules(scenes: list[Path]) -> None:
    rows = xchip.index_items(scenes, 64).compute()
    kept = xchip.index_items(scenes, 64, max_cloud=0.1, max_nodata=0.0).compute()
    assert kept["chip_id"].tolist() == rows[(rows.cloud_fraction <= 0.1) & (rows.nodata_fraction == 0)]["chip_id"].tolist()
    strict = values("scl", {NODATA: [0], CLOUD: range(7, 11)})
    other = xchip.index_items(scenes, 64, quality=strict).compute()
    assert (other["cloud_fraction"].fillna(0) >= rows["cloud_fraction"].fillna(0)).all()
    assert (other["shadow_fraction"].fillna(0) == 0).all()
    by_name = xchip.index_items(scenes, 64, quality="scl").compute()
    pd.testing.assert_frame_equal(pd.DataFrame(by_name), pd.DataFrame(rows))


def test_a_sensor_of_ones_own(scenes: list[Path]) -> None:
    from dataclasses import replace

    from xchip import sensors

    profile = replace(
        sensors.find("sentinel-2-l2a"), name="mine", quality=(values("scl", {NODATA: [0], CLOUD: [8, 9]}, source="mine"),)
    )
    rows = xchip.index_items(scenes, 256, sensor=profile).compute()
    assert rows["sensor"].unique().tolist() == ["mine"]


def test_a_band_without_a_rule_is_refused(scenes: list[Path]) -> None:
    with pytest.raises(xchip.ItemError, match=r"'synthetic-scene-0': nothing says what the values of 'red' mean"):
        xchip.index_items(scenes, 256, quality="red")
    with pytest.raises(xchip.ItemError, match=r"item 'synthetic-scene-0'.*'qa_pixel'"):
        xchip.index_items(scenes, 256, quality="qa_pixel")
    assert isinstance(values("red", {NODATA: [0]}), QualityRule)


def test_no_items_are_refused() -> None:
    with pytest.raises(ValueError, match="no items"):
        xchip.index_items([])


def test_a_size_larger_than_the_scene(scenes: list[Path]) -> None:
    rows = xchip.index_items(scenes, 5000).compute()
    assert len(rows) == 0
    assert tuple(rows.columns) == (*COLUMNS, "geometry", "boa_offset")


def test_a_truncated_file_names_item_and_file(scenes: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    shutil.copytree(scenes[0].parent, folder)
    item = json.loads((folder / scenes[0].name).read_text())
    scl = folder / item["assets"]["scl"]["href"]
    scl.write_bytes(scl.read_bytes()[: scl.stat().st_size // 2])
    with pytest.raises(xchip.ItemError, match=r"item 'synthetic-scene-0': its quality can't be read: .*SCL\.tif"):
        xchip.index_items(folder / scenes[0].name, 64).compute()


def test_gcps_only_is_refused(shared_data: Path) -> None:
    index = xchip.index_items(wrapped(shared_data / "rasters" / "gcps_only_au.tif"))
    with pytest.raises(xchip.ItemError, match=r"item 'gcps_only_au'.*ground control points"):
        index.compute()


GRID = {"proj:code": "EPSG:32633", "proj:shape": [60, 80], "proj:transform": [10, 0, 500000, 0, -10, 5000000]}
TOLD = {**GRID, "data_type": "uint8"}
"""All that makes opening a file unnecessary for its pixel grid and data type."""


@pytest.mark.parametrize("declared", ["nodata", "mask", "alpha", "nothing"])
@pytest.mark.parametrize("files", [1, 2])
def test_what_files_alone_declare_of_nodata_counts(tmp_path: Path, declared: str, files: int) -> None:
    pixels = np.random.default_rng(5).integers(1, 5, (files, 60, 80)).astype("uint8")
    absent = np.zeros((60, 80), bool)
    absent[:33, 10:50] = True
    pixels[:, absent] = 4
    missing = (pixels == 4).all(axis=0) if declared == "nodata" else absent if declared != "nothing" else np.zeros_like(absent)
    assets = {}
    for number, plane in enumerate(pixels):
        path = tmp_path / f"{number}.tif"
        profile: dict[str, Any] = {"driver": "GTiff", "height": 60, "width": 80, "dtype": "uint8", "crs": "EPSG:32633"}
        profile |= {"count": 2 if declared == "alpha" else 1, "transform": rasterio.Affine(*GRID["proj:transform"])}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", nodata=4 if declared == "nodata" else None, **profile) as dataset,
        ):
            dataset.write(plane, 1)
            if declared == "mask":
                dataset.write_mask(~absent)
            if declared == "alpha":
                dataset.write(np.where(absent, 0, 255).astype("uint8"), 2)
                dataset.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.alpha]
        assets[f"b{number}"] = {"href": str(path), "roles": ["data"], **TOLD}
    item = {**wrapped(tmp_path / "0.tif"), "assets": assets}
    rows = xchip.index_items(item, (25, 30), edge="pad").compute()
    check_rows(rows, np.where(missing, QualityClass.NODATA, QualityClass.CLEAR).astype(np.uint8))
    figure = xchip.explain_items(item, size=25).pixel_bytes
    assert (figure.value, figure.basis) == (0, "estimate")


def test_a_float_file_alone_declares_its_nodata(tmp_path: Path) -> None:
    pixels = np.ones((60, 80), "float32")
    pixels[:20], pixels[:, :8] = -9999, np.nan
    told = {"driver": "GTiff", "height": 60, "width": 80, "dtype": "float32", "crs": "EPSG:32633", "count": 1}
    with rasterio.open(tmp_path / "a.tif", "w", transform=rasterio.Affine(*GRID["proj:transform"]), nodata=-9999, **told) as file:
        file.write(pixels, 1)
    rows = xchip.index_items(wrapped(tmp_path / "a.tif", **{**TOLD, "data_type": "float32"}), 20).compute()
    check_rows(rows, np.where((pixels == -9999) | np.isnan(pixels), QualityClass.NODATA, QualityClass.CLEAR).astype(np.uint8))


def test_a_file_that_can_not_say_what_is_nodata_is_named(tmp_path: Path) -> None:
    item = wrapped(tmp_path / "gone.tif", **TOLD)
    with pytest.raises(xchip.ItemError, match=r"item 'gone': its quality can't be read: .*gone\.tif"):
        xchip.index_items(item, 20).compute()


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"proj:shape": [60, 90]}, r"has \(60, 80\) pixels \(height, width\); the item says \(60, 90\)"),
        ({"proj:shape": [60, 70]}, r"has \(60, 80\) pixels \(height, width\); the item says \(60, 70\)"),
        ({"proj:shape": [80, 80]}, r"has \(60, 80\) pixels \(height, width\); the item says \(80, 80\)"),
        ({"proj:transform": [10, 0, 500400, 0, -10, 5000000]}, r"40\.0 pixels away"),
    ],
)
@pytest.mark.parametrize("bands", [1, 3])
def test_a_file_without_a_quality_band_is_held_against_its_item(
    tmp_path: Path, lie: dict[str, Any], words: str, bands: int
) -> None:
    told = {"driver": "GTiff", "height": 60, "width": 80, "dtype": "uint8", "crs": "EPSG:32633", "count": bands}
    with rasterio.open(tmp_path / "a.tif", "w", transform=rasterio.Affine(*GRID["proj:transform"]), **told) as file:
        file.write(np.ones((bands, 60, 80), "uint8"))
    item = wrapped(tmp_path / "a.tif", **{**TOLD, **lie, "raster:bands": [{"nodata": 0}] * bands})
    with pytest.raises(xchip.ItemError, match=rf"item 'a': its quality can't be read: .*a\.tif.*{words}"):
        xchip.index_items(item, 20).compute()


def test_scaled_values_of_a_masked_file_are_no_nodata(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pixels, absent = rng.integers(0, 4, (2, 60, 80)).astype("uint16"), rng.random((2, 60, 80)) < 0.4
    assets = {}
    for number, plane in enumerate(pixels):
        path = tmp_path / f"{number}.tif"
        told = {"driver": "GTiff", "height": 60, "width": 80, "dtype": "uint16", "crs": "EPSG:32633", "count": 1}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", transform=rasterio.Affine(*GRID["proj:transform"]), **told) as file,
        ):
            file.write(plane, 1)
            file.write_mask(~absent[number])
        # 1 is 0 when it is scaled, but 0 alone is nodata.
        assets[f"b{number}"] = {"href": str(path), **GRID, "raster:bands": [{"nodata": 0, "scale": 2, "offset": -2}]}
    rows = xchip.index_items({**wrapped(path), "assets": assets}, 20).compute()
    missing = ((pixels == 0) | absent).all(axis=0)
    check_rows(rows, np.where(missing, QualityClass.NODATA, QualityClass.CLEAR).astype(np.uint8))


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 2), ("float32", None), ("float32", 2)])
@pytest.mark.parametrize("bands", [1, 3])
def test_a_mask_beside_nodata_counts_for_items_and_stacks_alike(
    tmp_path: Path, dtype: str, nodata: float | None, bands: int
) -> None:
    rng = np.random.default_rng(3)
    pixels, absent = rng.integers(1, 4, (bands, 60, 80)).astype(dtype), rng.random((60, 80)) < 0.3
    if dtype == "float32":
        pixels[:, 10:20, 30:60] = np.nan
    told = {"driver": "GTiff", "height": 60, "width": 80, "dtype": dtype, "crs": "EPSG:32633", "count": bands, "nodata": nodata}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "a.tif", "w", transform=rasterio.Affine(*GRID["proj:transform"]), **told) as file,
    ):
        file.write(pixels)
        file.write_mask(~absent)
    missing = absent | (np.isnan(pixels) | (pixels == nodata)).all(axis=0)
    codes = np.where(missing, QualityClass.NODATA, QualityClass.CLEAR).astype(np.uint8)
    item = wrapped(tmp_path / "a.tif")
    check_rows(xchip.index_items(item, 20).compute(), codes)
    ds = xchip.stack(item)
    for stacked in (ds, ds.isel(time=0, y=slice(None, None, -1)), xchip.stack(item, rescale=True)):
        check_rows(stacked.chips.index(20).compute(), codes)


def test_a_mask_of_one_item_is_not_that_of_another(tmp_path: Path) -> None:
    items = []
    for number in range(2):
        told = {"driver": "GTiff", "height": 60, "width": 80, "dtype": "float32", "crs": "EPSG:32633", "count": 1}
        path = tmp_path / f"{number}.tif"
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", transform=rasterio.Affine(*GRID["proj:transform"]), **told) as file,
        ):
            file.write(np.ones((1, 60, 80), "float32"))
            if number:
                file.write_mask(np.arange(60 * 80).reshape(60, 80) % 80 < 40)
        items.append(wrapped(path))
    rows = xchip.index_items(items, 20).compute().set_index("chip_id")
    assert (rows.nodata_fraction == np.where((rows.item_id == "1") & (rows.col_off >= 40), 1, 0)).all()
    stacked = xchip.stack(items).chips.index(20).compute().set_index("chip_id")
    assert stacked.nodata_fraction.to_dict() == rows.nodata_fraction.to_dict()
