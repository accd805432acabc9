"""The table, and the arrays that it is made of: stackstac, odc-stac, rioxarray and plain xarray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import geopandas.testing
import numpy as np
import pandas as pd
import pytest
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xchip
from xchip.indexing.rows import COLUMNS, FRACTIONS, empty_frame
from xchip.quality import CLOUD, NODATA, NodataRule, values
from xchip.testing import raise_if_dask_computes, synthetic_stack


def stack(height: int = 70, width: int = 90, times: int = 2) -> xr.Dataset:
    rng = np.random.default_rng(1)
    scl = rng.integers(0, 12, (times, height, width)).astype("uint8")
    scl[:, :40, :40] = 0
    return synthetic_stack(scl=scl, red=rng.integers(1, 60000, scl.shape).astype("uint16"))


def test_columns_and_types_are_the_schema() -> None:
    rows = stack().chips.index(32)
    assert tuple(rows.columns) == COLUMNS
    for name in ("chip_index_x", "chip_index_y", "col_off", "row_off", "width", "height"):
        assert rows[name].dtype == np.int32
    for name in (*FRACTIONS, "proj_left", "proj_bottom", "proj_right", "proj_top"):
        assert rows[name].dtype == np.float64
    assert str(rows["datetime"].dtype) == "datetime64[us, UTC]"
    assert rows.crs == "EPSG:4326"
    assert rows["chip_id"].is_unique
    pd.testing.assert_series_equal(rows.dtypes, empty_frame().dtypes)


def test_rows_say_what_the_scene_is() -> None:
    ds = stack().assign_attrs(sensor="sentinel-2-l2a")
    ds = ds.assign_coords(collection=("time", ["s2", "s2"]))
    row = ds.chips.index(32).iloc[-1]
    assert row["chip_id"] == "synthetic-1-1-1"
    assert (row["item_id"], row["collection"], row["sensor"]) == ("synthetic-1", "s2", "sentinel-2-l2a")
    assert row["datetime"] == pd.Timestamp("2024-03-12T14:06:36Z")
    assert (row["col_off"], row["row_off"], row["width"], row["height"]) == (32, 32, 32, 32)
    assert row["proj_code"] == "EPSG:32719"
    assert (row["proj_left"], row["proj_top"]) == (499980 + 320, 6400000 - 320)
    assert (row["proj_right"], row["proj_bottom"]) == (499980 + 640, 6400000 - 640)


def test_fractions_of_each_row_equal_its_window() -> None:
    ds = stack()
    for row in ds.chips.index(32, stride=20, edge="partial").itertuples():
        time = int(row.item_id[-1])
        window = ds["scl"].values[time, row.row_off : row.row_off + row.height, row.col_off : row.col_off + row.width]
        valid = (window != 0).sum()
        assert row.nodata_fraction == (window == 0).mean()
        if valid:
            assert row.cloud_fraction == np.isin(window, [8, 9, 10]).sum() / valid
            assert sum(getattr(row, name) for name in FRACTIONS[1:]) == pytest.approx(1)
        else:
            assert np.isnan(row.cloud_fraction)


def test_lazy_and_immediate_indexes_are_equal() -> None:
    ds = stack()
    with raise_if_dask_computes():
        lazy = ds.chunk(time=1, y=33, x=20).chips.index(32, max_nodata=0.5)
    assert lazy.npartitions == 2
    assert lazy.spatial_partitions is not None
    computed = lazy.compute()
    expected = ds.chips.index(32, max_nodata=0.5)
    pd.testing.assert_frame_equal(pd.DataFrame(computed.reset_index(drop=True)), pd.DataFrame(expected))
    inside = lazy.spatial_partitions.iloc[0].buffer(1e-9)
    assert computed.geometry.within(inside).all()


@pytest.mark.parametrize("value", ["0.3", 30, -0.1, float("nan"), [0.3]])
def test_limits_are_fractions(value: Any) -> None:
    with pytest.raises(ValueError, match="max_cloud is a fraction from 0 to 1, got"):
        synthetic_stack(shape=(64, 64)).chips.index(32, max_cloud=value)


def test_a_limit_that_is_not_known_is_told_from_those_that_are(tmp_path: Path) -> None:
    ds = synthetic_stack(shape=(64, 64))
    calls = (
        lambda: ds.chips.index(32, max_clod=0.1),
        lambda: ds.chips.explain(32, max_clod=0.1),
        lambda: xchip.index_items([], 32, max_clod=0.1),
        lambda: xchip.explain_items([], 32, max_clod=0.1),
        lambda: xchip.build_index([], tmp_path / "a", 32, max_clod=0.1),
        lambda: xchip.export_chips(ds.chips.index(32), tmp_path / "b", max_clod=0.1),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"has no parameter 'max_clod'; did you mean 'max_cloud'\?"):
            call()
    assert not list(tmp_path.iterdir())


def test_limits_act_on_fractions() -> None:
    ds = stack()
    rows = ds.chips.index(32)
    kept = ds.chips.index(32, max_cloud=0.25, max_nodata=0.5, min_clear=0.2)
    by_hand = rows[(rows.cloud_fraction <= 0.25) & (rows.nodata_fraction <= 0.5) & (rows.clear_fraction >= 0.2)]
    assert kept["chip_id"].tolist() == by_hand["chip_id"].tolist()
    assert 0 < len(kept) < len(rows)
    empty = synthetic_stack(scl=np.zeros((64, 64), "uint8"))
    assert len(empty.chips.index(32, max_nodata=1)) == 4
    assert len(empty.chips.index(32, max_cloud=1)) == 0, "no valid pixel, no cloud fraction"
    with pytest.raises(ValueError, match="max_cloud is a fraction from 0 to 1, got 75"):
        ds.chips.index(32, max_cloud=75)


def test_a_size_larger_than_the_scene_gives_an_empty_index() -> None:
    for ds in (stack(), stack().chunk()):
        rows = ds.chips.index(256)
        rows = rows.compute() if hasattr(rows, "dask") else rows
        assert len(rows) == 0
        assert tuple(rows.columns) == COLUMNS


@given(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["drop", "pad", "partial"]))
def test_slice_then_grid_is_grid_then_slice(down: int, right: int, edge: str) -> None:
    ds = stack(times=1)
    whole = ds.chips.index(16, edge=edge)
    part = ds.isel(y=slice(16 * down, None), x=slice(16 * right, None)).chips.index(16, edge=edge)
    same = whole[(whole.chip_index_y >= down) & (whole.chip_index_x >= right)].reset_index(drop=True)
    columns = ["proj_left", "proj_bottom", "proj_right", "proj_top", "width", "height", *FRACTIONS]
    pd.testing.assert_frame_equal(pd.DataFrame(part[columns]), pd.DataFrame(same[columns]))


def test_items_of_a_union_are_numbered_on_their_own_grids() -> None:
    ds = stack(64, 96)
    edges = {"item_left": [0, 32], "item_right": [64, 96], "item_top": [0, 0], "item_bottom": [64, 32]}
    for name, offsets in edges.items():
        pixels = np.array(offsets, float) * 10
        ds = ds.assign_coords({name: ("time", 499980 + pixels if name in ("item_left", "item_right") else 6400000 - pixels)})
    for array in (ds, ds.chunk(time=1, y=30, x=30)):
        rows = array.chips.index(32)
        rows = rows.compute() if hasattr(rows, "dask") else rows
        first, second = rows[rows.item_id == "synthetic-0"], rows[rows.item_id == "synthetic-1"]
        assert list(zip(first.chip_index_y, first.chip_index_x, strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert list(zip(second.chip_index_y, second.chip_index_x, strict=True)) == [(0, 0), (0, 1)]
        assert second.proj_left.tolist() == [499980 + 320, 499980 + 640]
        np.testing.assert_array_equal(array.chips.extract(second)["red"].values[0], ds["red"].values[1, :32, 32:64])


# --- quality ---------------------------------------------------------------------------------------------------------


def test_quality_may_be_many_things() -> None:
    ds = stack(times=1)
    scl = ds["scl"]
    rule = values("scl", {NODATA: [0], CLOUD: [8, 9, 10]})
    by_rule = ds.chips.stats(32, quality=rule)
    codes = xr.where(scl == 0, 0, xr.where(scl.isin([8, 9, 10]), 2, 6))
    xr.testing.assert_equal(ds.chips.stats(32, quality=codes).drop_vars("spatial_ref"), by_rule.drop_vars("spatial_ref"))
    mask = ds.chips.stats(32, quality=scl == 0)
    np.testing.assert_array_equal(mask["nodata_fraction"], by_rule["nodata_fraction"])
    assert (mask["clear_fraction"].fillna(1) == 1).all()
    by_name = ds.rename(scl="other").assign(scl=ds["scl"] * 0).chips
    np.testing.assert_array_equal(
        by_name.stats(32, quality=values("other", {NODATA: [0]}))["nodata_fraction"], mask["nodata_fraction"]
    )


def test_the_sensor_in_the_attributes_tells_the_rule() -> None:
    fmask = np.array([[0, 255], [2, 8]], "uint8")
    ds = synthetic_stack(Fmask=fmask, red=fmask.astype("uint16"))
    stats = ds.assign_attrs(sensor="hls-s30").chips.stats(2)
    assert stats["nodata_fraction"].item() == 0.25
    assert stats["cloud_fraction"].item() == stats["shadow_fraction"].item() == pytest.approx(1 / 3)
    assert ds.assign_attrs(sensor="msi").chips.stats(2)["nodata_fraction"].shape == (1, 1, 1), "not one of ours"


def test_a_stack_without_its_quality_band_is_not_taken_for_clear() -> None:
    rule = values("scl", {NODATA: [0], CLOUD: [8, 9, 10]})
    ds = stack(times=1).assign_attrs(quality=rule.to_json())
    assert ds.chips.stats(32).sizes == {"time": 1, "chip_y": 2, "chip_x": 2}
    with pytest.raises(
        ValueError, match=r"the quality band 'scl' of these items is not in the array; stack it with the other bands"
    ):
        ds[["red"]].chips.index(32)
    assert (ds[["red"]].chips.index(32, quality=NodataRule(("red",)))["nodata_fraction"] == 0).all()


def test_quality_of_other_pixels_is_refused() -> None:
    ds = stack(times=1)
    with pytest.raises(ValueError, match=r"quality= has other pixels than the array"):
        ds.chips.stats(32, quality=(ds["scl"] == 0).isel(x=slice(1, None)))
    with pytest.raises(ValueError, match=r"quality= has other pixels than the array"):
        ds.chips.stats(32, quality=(ds["scl"] == 0).assign_coords(x=ds["x"] + 10))


@pytest.mark.parametrize("lazy", [False, True])
def test_quality_of_other_time_steps_is_refused(lazy: bool) -> None:
    ds = stack(times=2)
    ds = ds.chunk(y=20) if lazy else ds
    mask = ds["scl"] > 7
    for other in (mask.isel(time=[1, 0]), mask.isel(time=[0]), mask.isel(time=[0, 1, 1])):
        for make in (ds.chips.index, ds.chips.stats):
            with pytest.raises(ValueError, match=r"quality= has other time steps than the array: it has ., the array has 2"):
                make(32, quality=other)
    one = ds.isel(time=1)
    rows = one.chips.index(32, quality=mask.isel(time=[1]))  # a time step alone, with and without its dimension
    same = one.chips.index(32, quality=mask.isel(time=1))
    rows, same = (index.compute() if lazy else index for index in (rows, same))
    expected = [mask[1, r.row_off : r.row_off + 32, r.col_off : r.col_off + 32].values.mean() for r in rows.itertuples()]
    assert rows.nodata_fraction.tolist() == same.nodata_fraction.tolist() == expected


def test_codes_that_are_no_class_are_clear() -> None:
    ds = stack(times=1).isel(time=0)
    codes = xr.full_like(ds["scl"], 0, dtype="int16")
    codes[:32] = 256
    codes[:, 32:] = -256
    rows = ds.chips.index(32, quality=codes)
    zero = [(codes[r.row_off : r.row_off + 32, r.col_off : r.col_off + 32] == 0).values.mean() for r in rows.itertuples()]
    assert rows.nodata_fraction.tolist() == zero
    with pytest.raises(TypeError, match=r"quality= must be a band's name, a rule or a DataArray .* got a ndarray"):
        ds.chips.index(32, quality=codes.values)


def test_an_array_without_time_steps_has_no_rows() -> None:
    ds = stack(times=2).isel(time=[])
    lazy = ds.chunk(y=20).chips.index(32)
    geopandas.testing.assert_geodataframe_equal(lazy.compute(), ds.chips.index(32))
    assert len(lazy) == 0


def test_a_quality_band_without_a_rule_is_refused() -> None:
    ds = stack(times=1).rename(scl="classes")
    with pytest.raises(ValueError, match=r"no rule is known for the values of 'classes'; pass a rule"):
        ds.chips.stats(32, quality="classes")
    with pytest.raises(ValueError, match=r"no band 'scl' for quality; it has \['red', 'classes'\]"):
        ds.chips.stats(32, quality="scl")


def test_without_a_quality_band_nodata_is_where_all_bands_are() -> None:
    red = np.array([[0, 0, 5, 5], [0, 0, 0, 5]], "uint16")
    blue = np.array([[9, 0, 5, 5], [0, 0, 0, 5]], "uint16")
    ds = synthetic_stack(red=red, blue=blue)
    assert ds.chips.stats(2)["nodata_fraction"].values.tolist() == [[[0, 0]]], "no nodata is declared"
    for name in ds.data_vars:
        ds[name].rio.write_nodata(0, inplace=True)
    assert ds.chips.stats(2)["nodata_fraction"].values.tolist() == [[[0.75, 0.25]]]
    masked = ds.where(ds != 0)
    assert masked.chips.stats(2)["nodata_fraction"].values.tolist() == [[[0.75, 0.25]]], "NaN"


# --- arrays that xchip did not make ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, geopandas.GeoDataFrame]:
    path = xchip.testing.write_scene(tmp_path_factory.mktemp("scene"), shape=(600, 700), item_id="synthetic-made-up")
    import json

    item = json.loads(Path(path).read_text())
    for asset in item["assets"].values():
        asset["href"] = str(Path(path).parent / asset["href"])
    return item, xchip.index_items(path, 128).compute()


def same_fractions(rows: pd.DataFrame, expected: pd.DataFrame) -> None:
    columns = ["chip_index_x", "chip_index_y", "proj_left", "proj_top", "proj_code", *FRACTIONS]
    rows = rows.compute() if hasattr(rows, "dask") else rows
    pd.testing.assert_frame_equal(
        pd.DataFrame(rows[columns]).reset_index(drop=True), pd.DataFrame(expected[columns]).reset_index(drop=True)
    )


def test_stackstac_arrays(scene: tuple[dict, geopandas.GeoDataFrame]) -> None:
    stackstac = pytest.importorskip("stackstac")
    item = {**scene[0], "properties": {**scene[0]["properties"], "proj:epsg": 32719}}
    for options in ({}, {"dtype": "uint16", "fill_value": np.uint16(0), "rescale": False}):
        array = stackstac.stack([item], assets=["red", "scl"], xy_coords="center", snap_bounds=False, **options)
        if not options:
            array = array.sel(band=["scl"])
        same_fractions(array.chips.index(128), scene[1])
        assert array.chips.index(128).compute()["item_id"].iloc[0] == "synthetic-made-up"


def test_odc_stac_arrays(scene: tuple[dict, geopandas.GeoDataFrame]) -> None:
    odc_stac = pytest.importorskip("odc.stac")
    import pystac

    ds = odc_stac.load([pystac.Item.from_dict(scene[0])], bands=["red", "scl"], chunks={"x": 300, "y": 300})
    same_fractions(ds.chips.index(128, item_id="synthetic-made-up"), scene[1])


def test_rioxarray_arrays(scene: tuple[dict, geopandas.GeoDataFrame]) -> None:
    assets = scene[0]["assets"]
    red = rioxarray.open_rasterio(assets["red"]["href"]).squeeze("band", drop=True)
    scl = rioxarray.open_rasterio(assets["scl"]["href"]).squeeze("band", drop=True)
    fine = scl.rio.reproject_match(red)
    ds = xr.Dataset({"red": red, "scl": fine})
    same_fractions(ds.chips.index(128), scene[1])
    own_grid = scl.rename("scl").chips.index(64)
    np.testing.assert_array_equal(own_grid["cloud_fraction"], scene[1]["cloud_fraction"])


def test_rioxarray_bands_of_one_file(shared_data: Path) -> None:
    path = shared_data / "rasters" / "rgb_byte_l7.tif"
    for options in ({}, {"masked": True}, {"chunks": {"x": 300, "y": 200}}):
        array = rioxarray.open_rasterio(path, **options)
        rows = array.chips.index(100, item_id="rgb")
        rows = rows.compute() if hasattr(rows, "dask") else rows
        raw = rioxarray.open_rasterio(path).values
        for row in rows.itertuples():
            window = raw[:, row.row_off : row.row_off + 100, row.col_off : row.col_off + 100]
            assert row.nodata_fraction == (window == 0).all(axis=0).mean()
        chips = array.chips.extract(rows.assign(item_id="")[:3]).compute()
        np.testing.assert_array_equal(np.nan_to_num(chips["2"][1]), raw[1, :100, 100:200])


def test_arrays_in_degrees_with_other_names() -> None:
    scl = np.random.default_rng(0).integers(0, 12, (40, 50)).astype("uint8")
    array = xr.DataArray(
        scl, {"latitude": 10 + 0.05 * np.arange(40), "longitude": 5 + 0.05 * np.arange(50)}, ("latitude", "longitude"), name="scl"
    ).rio.write_crs("EPSG:4326")
    rows = array.chips.index(20)
    assert rows["proj_code"].iloc[0] == "EPSG:4326"
    top = rows[(rows.chip_index_y == 0) & (rows.chip_index_x == 1)].iloc[0]
    assert (top["proj_left"], top["proj_top"]) == (5.975, 11.975)
    np.testing.assert_allclose(top.geometry.bounds, (5.975, 10.975, 6.975, 11.975))
    assert top["cloud_fraction"] == np.isin(scl[20:, 20:40], [8, 9, 10]).sum() / (scl[20:, 20:40] != 0).sum()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ds: ds.drop_vars("spatial_ref"), "the array has no CRS; give it one"),
        (lambda ds: ds.isel(x=slice(0, 1)), "coordinate 'x' has a single value"),
        (lambda ds: ds.assign_coords(y=ds.y.where(ds.y != ds.y[3])), "coordinate 'y' holds NaN"),
        (lambda ds: ds.assign_coords(x=ds.x**2), "coordinate 'x' is not evenly spaced"),
        (lambda ds: ds.drop_vars("x"), "dimension 'x' has no one-dimensional coordinate"),
        (lambda ds: ds.rename(x="column"), "no spatial dimensions"),
    ],
)
def test_arrays_without_a_pixel_grid_are_refused(change, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        change(stack()).chips.grid(32)


@pytest.mark.parametrize("size", [0, -1, 2.5, (16, 0), "big"])
def test_sizes_that_are_no_number_of_pixels_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match="size must be"):
        stack().chips.index(size)


def test_one_item_id_does_not_name_two_scenes() -> None:
    with pytest.raises(ValueError, match="item_id='a' names one item, the array has 2 time steps"):
        stack().chips.index(32, item_id="a")


def plain_array(pixels: np.ndarray, *dims: str) -> xr.DataArray:
    """An array as any library may make it, with pixels of 10 m."""
    height, width = pixels.shape[-2:]
    coords = {"y": 6400000 - 10.0 * np.arange(height), "x": 499980 + 10.0 * np.arange(width)}
    return xr.DataArray(pixels, coords, (*dims, "y", "x"), name="pixels").rio.write_crs("EPSG:32719")


@pytest.mark.parametrize("chunks", [None, {"y": 5}])
def test_a_band_dimension_without_names_is_judged_like_bands(chunks: dict[str, int] | None) -> None:
    pixels = np.random.default_rng(3).integers(0, 2, (2, 9, 12)).astype("uint8")
    array = plain_array(pixels, "band").rio.write_nodata(0)
    for given_array in (array, array.to_dataset(), array.rename(band="channel")):
        rows = given_array.chunk(chunks).chips.index(4).compute() if chunks else given_array.chips.index(4)
        assert len(rows) == 6
        for row in rows.itertuples():
            window = pixels[:, row.row_off : row.row_off + 4, row.col_off : row.col_off + 4]
            assert row.nodata_fraction == (window == 0).all(axis=0).mean()
    chips = array.chips.extract(array.chips.index(4))
    assert list(chips) == ["1", "2"]
    np.testing.assert_array_equal(chips["2"][5], pixels[1, 4:8, 8:12])


def test_a_quality_band_of_other_dims_is_refused() -> None:
    ds = plain_array(np.zeros((2, 9, 12), "uint8"), "model").to_dataset(name="scl")
    with pytest.raises(ValueError, match=r"quality must have the dims .*'model', 'y', 'x'.*select one of \['model'\]"):
        ds.chips.index(4)
    assert len(ds.isel(model=[1]).chips.index(4)) == 6


def test_nan_of_complex_pixels_is_nodata() -> None:
    pixels = np.ones((4, 8), "complex64")
    pixels[:, :2], pixels[0, 4:6] = complex(np.nan, 1), 3
    assert plain_array(pixels).chips.index(4)["nodata_fraction"].tolist() == [0.5, 0]
    assert plain_array(pixels).rio.write_nodata(3).chips.index(4)["nodata_fraction"].tolist() == [0.5, 2 / 16]


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -9999), ("uint16", np.nan), ("int8", 0.5), ("bool", 255)])
def test_a_nodata_value_that_no_pixel_can_have_declares_none(dtype: str, nodata: float) -> None:
    array = plain_array(np.ones((6, 6), dtype)).assign_attrs(_FillValue=nodata)
    rows = array.chips.index(4, edge="pad")
    assert rows["nodata_fraction"].tolist() == [0, 0.5, 0.5, 0.75]  # what lies outside of the scene
    expected = np.zeros((4, 4), dtype)
    expected[:2, :2] = 1
    for chip in (array.chips.isel(chip_y=1, chip_x=1, size=4, edge="pad"), array.chips.extract(rows)["pixels"][3]):
        np.testing.assert_array_equal(chip, expected)
        assert chip.dtype == dtype


@pytest.mark.parametrize(("dtype", "nodata"), [("uint64", 2**64 - 1), ("int64", 2**63 - 1), ("int64", -(2**63))])
def test_the_largest_64_bit_integers_may_be_nodata(dtype: str, nodata: int) -> None:
    pixels = np.ones((4, 6), dtype)
    pixels[0] = nodata
    array = plain_array(pixels).assign_attrs(_FillValue=nodata)
    assert array.chips.index(4)["nodata_fraction"].tolist() == [0.25]
    assert array.chips.isel(chip_y=0, chip_x=1, size=4, edge="pad").values[3].tolist() == [1, 1, nodata, nodata]
