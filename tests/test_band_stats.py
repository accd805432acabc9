"""Statistics of bands: moments that merge in any order, and what they say of the chips of an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import yaml
from chip_making import write_aerial, write_band, write_item, write_landsat, write_sentinel
from command_line import misused, refused, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import xchip
from xchip.chips.open_chips import open_chips
from xchip.chips.train.band_stats import band_stats
from xchip.chips.train.stats_values import BandStats, SensorStats
from xchip.core.moments import Moments, moments, no_moments
from xchip.testing import raise_if_dask_computes

# Moments


def exact(values: Any) -> tuple[float, float]:
    """(mean, variance) in numbers of 64 bits of mantissa or more, where the machine has them."""
    wide = np.asarray(values).astype(np.longdouble)
    mean = wide.mean()
    return float(mean), float(((wide - mean) ** 2).mean())


def check(found: Moments, values: np.ndarray) -> None:
    """The same as numpy on all values."""
    mean, variance = exact(values)
    assert found.count == values.size
    assert found.mean == pytest.approx(mean, rel=1e-12, abs=1e-12 * np.abs(values.astype(float)).max())
    assert found.variance == pytest.approx(variance, rel=1e-12, abs=1e-300)
    assert (found.min, found.max) == (values.min(), values.max())


@given(
    shift=st.sampled_from([0.0, 1e3, -1e6, 1e9]),
    n=st.integers(1, 400),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    seed=st.integers(0, 99),
)
def test_any_split_merged_in_any_order_is_the_same(shift: float, n: int, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = shift + rng.normal(size=n)
    parts = [moments(part) for part in np.split(values, sorted(cut for cut in cuts if cut < n))]
    one_by_one = no_moments()
    for turn in rng.permutation(len(parts)):
        one_by_one = one_by_one.merge(parts[turn])
    half = len(parts) // 2
    as_a_tree = no_moments().merge(*parts[:half]).merge(no_moments().merge(*parts[half:]))
    for found in (moments(values), one_by_one, as_a_tree):
        check(found, values)


def test_pixel_by_pixel_a_large_mean_costs_no_digits() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=3000)
    found = no_moments()
    for value in values:
        found = found.merge(moments(value))
    check(found, values)


@settings(max_examples=30)
@given(
    values=hnp.arrays(st.sampled_from([np.uint8, np.int16, np.uint16, np.int32]), hnp.array_shapes(min_dims=3, max_dims=3)),
    chunks=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    axis=st.sampled_from([None, 0, -1, (1, 2), (0, 2), (2, 0, 1)]),
)
def test_integers_lazily_and_at_once(values: np.ndarray, chunks: tuple[int, ...], axis: Any) -> None:
    with raise_if_dask_computes():
        lazy = moments(da.from_array(values, chunks=chunks), axis)
        assert lazy.mean.shape == lazy.std.shape == values.mean(axis).shape
    scale = max(1.0, float(np.abs(values.astype(float)).max()))
    for found in (moments(values, axis), Moments(lazy.packed.compute())):
        np.testing.assert_allclose(found.mean, values.astype(float).mean(axis), rtol=1e-12, atol=1e-12 * scale)
        np.testing.assert_allclose(found.variance, values.astype(float).var(axis), rtol=1e-12, atol=1e-12 * scale)
        np.testing.assert_array_equal(found.min, values.min(axis))
        np.testing.assert_array_equal(found.max, values.max(axis))
        assert (found.count == values.size / found.count.size).all()
    np.testing.assert_allclose(lazy.std.compute(), values.astype(float).std(axis), rtol=1e-12, atol=1e-9 * scale)


def test_values_that_do_not_count() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 40, 50)).astype(np.float32)
    values[0, :5] = np.nan
    values[1, 3, 3] = np.inf
    valid = rng.random((40, 50)) < 0.7
    expected = [plane[valid & np.isfinite(plane)].astype(float) for plane in values]
    masked = da.from_array(values, chunks=(2, 17, 50))
    with raise_if_dask_computes():
        lazy = moments(masked, (1, 2), valid=da.from_array(valid, chunks=23))
        half = moments(masked, (1, 2), valid=valid)
    for found in (moments(values, (1, 2), valid=valid), *(Moments(one.packed.compute()) for one in (lazy, half))):
        np.testing.assert_array_equal(found.count, [len(plane) for plane in expected])
        np.testing.assert_allclose(found.mean, [plane.mean() for plane in expected], rtol=1e-12)
        np.testing.assert_allclose(found.std, [plane.std() for plane in expected], rtol=1e-12)
        np.testing.assert_array_equal(found.min, [plane.min() for plane in expected])


def test_more_values_than_are_summed_up_at_once() -> None:
    values = np.random.default_rng(2).integers(0, 10_000, (3, 400, 401), dtype=np.uint16)
    check(moments(values), values)
    check(Moments(moments(da.from_array(values, chunks=(1, 300, 401))).packed.compute()), values)


def test_no_values_have_no_moments() -> None:
    for none in (moments(np.empty((0, 2), np.uint8), 0), moments(np.ones((3, 2)), 0, valid=False), no_moments((2,))):
        assert none.count.tolist() == [0, 0]
        for values in (none.mean, none.variance, none.std, none.min, none.max):
            assert np.isnan(values).all()
    some = moments(np.array([[1.0, 5.0]]), 0)
    np.testing.assert_array_equal(no_moments((2,)).merge(some).mean, [1, 5])


def test_axes_must_be_there() -> None:
    for axis in (2, (0, 0), (0, -2)):
        with pytest.raises(ValueError, match="axis must be one or several axes of an array of 2 dimensions, each once"):
            moments(np.ones((2, 3)), axis)


def test_tasks_grow_with_chunks() -> None:
    lazy = moments(da.zeros((64, 1024, 1024), chunks=(1, 1024, 1024), dtype=np.uint16)).packed
    assert len(lazy.dask) < 64 * 4 + 20


# Chips of an index


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stats")


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    """Chips of two Sentinel-2 scenes, some with nodata pixels."""
    return xchip.index_items(write_sentinel(folder), 64, edge="pad").compute()


@pytest.fixture(scope="module")
def mixed(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """And of two other sensors, in random order."""
    others = [xchip.index_items(item, 64).compute() for item in (write_landsat(folder), write_aerial(folder))]
    every = pd.concat([rows, *others], ignore_index=True)
    return every.sample(len(every), random_state=1).reset_index(drop=True)


def plain(rows: pd.DataFrame, band: str) -> np.ndarray:
    """All pixels of a band as one vector, float64."""
    return open_chips(rows, [band])[band].values.astype(float).ravel()


def agree(found: Any, band: str, pixels: np.ndarray) -> None:
    at = found.bands.index(band)
    assert found.count[at] == pixels.size
    assert found.mean[at] == pytest.approx(pixels.mean(), rel=1e-12)
    assert found.std[at] == pytest.approx(pixels.std(), rel=1e-12)
    assert (found.min[at], found.max[at]) == (pixels.min(), pixels.max())


def test_statistics_are_those_of_all_pixels_of_chips_without_nodata(rows: pd.DataFrame) -> None:
    whole = rows[rows["nodata_fraction"] == 0]
    assert 0 < len(whole) < len(rows)
    found = band_stats(rows)["sentinel-2-l2a"]
    assert found.bands == ("blue", "green", "red", "nir"), "the quality band is none to train on"
    assert found.chips == len(whole)
    for band in found.bands:
        agree(found, band, plain(whole, band))


def test_or_of_all_pixels_that_are_not_nodata(rows: pd.DataFrame) -> None:
    found = band_stats(rows, ["red", "nir"], skip_nodata=True)["sentinel-2-l2a"]
    assert found.chips == len(rows)
    for band in found.bands:
        pixels = plain(rows, band)
        agree(found, band, pixels[pixels != 0])


def test_bands_without_a_nodata_value_count_in_chips_without_nodata_only(folder: Path) -> None:
    rows = xchip.index_items(write_aerial(folder, "aerial-2"), 100, edge="pad").compute()
    whole = rows[rows["nodata_fraction"] == 0]
    assert len(whole) < len(rows)
    for skip in (False, True):
        agree(band_stats(rows, skip_nodata=skip)["naip"], "red", plain(whole, "red"))


def test_nodata_of_sentinel_1_does_not_count_and_0_does(tmp_path: Path) -> None:
    """-32768, as the items of the Planetary Computer declare; 0 is a value like others."""
    rng = np.random.default_rng(5)
    values, shares = np.array([-32768, 0, 0.25, 3.5], "float32"), (0.2, 0.2, 0.3, 0.3)
    scene = {name: rng.choice(values, (1, 128, 128), p=shares) for name in ("vv", "vh")}
    scene["vv"][0, :64, :64] = scene["vh"][0, :64, :64] = 2
    assets = {}
    for name, pixels in scene.items():
        write_band(tmp_path / f"{name}.tif", pixels, 10, origin=(600000, 4100000), crs="EPSG:32633", nodata=-32768)
        band = {"name": name, "data_type": "float32", "nodata": -32768}
        assets[name] = {"href": f"./{name}.tif", "type": "image/tiff; application=geotiff", "raster:bands": [band]}
    item = write_item(tmp_path, "S1A_IW_rtc", "sentinel-1-rtc", {"proj:code": "EPSG:32633"}, assets)
    rows = xchip.index_items(str(item), 64).compute()
    found = band_stats(rows, skip_nodata=True)["sentinel-1-rtc"]
    whole = band_stats(rows)["sentinel-1-rtc"]
    assert found.bands == ("vv", "vh")
    for name, pixels in scene.items():
        agree(found, name, pixels[pixels != -32768].astype(float))
        assert found.min[found.bands.index(name)] == 0
        agree(whole, name, pixels[0, :64, :64].astype(float))


def test_chips_cut_at_the_border_count_for_the_pixels_that_they_have(folder: Path) -> None:
    rows = xchip.index_items(write_aerial(folder, "aerial-3"), 100, edge="partial").compute()
    found = band_stats(rows, "green")["naip"]
    assert found.count == (256 * 320,)
    first = open_chips(xchip.index_items(folder / "aerial-3.json", 64).compute(), ["green"])["green"].values
    agree(found, "green", first.astype(float).ravel())


def test_threads_workers_and_the_order_of_rows_change_no_bit(mixed: pd.DataFrame) -> None:
    from distributed import Client, LocalCluster

    expected = band_stats(mixed, threads=1).to_json()
    assert band_stats(mixed, threads=5).to_json() == expected
    assert band_stats(mixed.sample(len(mixed), random_state=3), threads=2).to_json() == expected
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        tasks = cluster.scheduler.transition_counter
        assert band_stats(mixed, threads=2).to_json() == expected
        assert band_stats(mixed, client=False).to_json() == expected
        assert cluster.scheduler.transition_counter == tasks  # threads were asked for, and threads worked
        for chosen in (None, client, client.scheduler.address):
            assert band_stats(mixed, client=chosen).to_json() == expected
            assert cluster.scheduler.transition_counter > tasks
            tasks = cluster.scheduler.transition_counter


def test_each_sensor_by_itself(mixed: pd.DataFrame, folder: Path) -> None:
    stats = band_stats(mixed)
    assert [found.sensor for found in stats.sensors] == ["landsat-c2-l2", "naip", "sentinel-2-l2a"]
    assert stats["naip"].bands == ("red", "green", "blue", "nir")
    for sensor in ("naip", "landsat-c2-l2"):
        own = mixed[(mixed["sensor"] == sensor) & (mixed["nodata_fraction"] == 0)]
        agree(stats[sensor], "red", plain(own, "red"))
    with pytest.raises(ValueError, match=r"no statistics of sensor 'linz', only of \['landsat-c2-l2', "):
        stats["linz"]
    common = band_stats(mixed, ["red", "nir"])
    assert {found.bands for found in common.sensors} == {("red", "nir")}
    assert common["landsat-c2-l2"].wavelength == (0.65, 0.86), "whatever its bands go by"
    one = band_stats(mixed[mixed["sensor"] == "naip"], sensor="naip")
    assert one["naip"] == stats["naip"]


def test_a_sample_is_a_function_of_its_seed(mixed: pd.DataFrame) -> None:
    few = band_stats(mixed, "red", sample=5, seed=3)
    assert [found.chips for found in few.sensors] == [5, 5, 5]
    assert few.to_json() == band_stats(mixed, "red", sample=5, seed=3).to_json() != band_stats(mixed, "red", sample=5).to_json()
    assert band_stats(mixed, "red", sample=10**6).to_json() == band_stats(mixed, "red").to_json()
    with pytest.raises(ValueError, match="threads is a whole number from 1 on, got 0"):
        band_stats(mixed, "red", threads=0)
    with pytest.raises(ValueError, match="sample is a number of chips and must be at least 1, got 0"):
        band_stats(mixed, "red", sample=0)


def test_any_kind_of_index(rows: pd.DataFrame, folder: Path) -> None:
    path = xchip.write_index(rows, folder / "index.parquet")
    expected = band_stats(rows, "red")
    assert band_stats(path, "red") == band_stats(xchip.open_index(path), "red") == expected
    items = iter([folder / f"synthetic-{number}" / f"synthetic-{number}.json" for number in (0, 1)])
    assert band_stats(rows.assign(item_href=None), "red", items=items) == expected


def test_harmonized_values(rows: pd.DataFrame) -> None:
    whole = rows[rows["nodata_fraction"] == 0]
    agree(band_stats(rows, "red", harmonize=-1000)["sentinel-2-l2a"], "red", np.maximum(plain(whole, "red") - 1000, 1))


def test_an_index_without_chips_to_count_is_refused(rows: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"no chip without nodata pixels; pass skip_nodata=True to use all chips"):
        band_stats(rows[rows["nodata_fraction"] > 0])
    with pytest.raises(ValueError, match="has no rows"):
        band_stats(rows.iloc[:0], skip_nodata=True)
    with pytest.raises(ValueError, match="column 'nodata_fraction' is missing"):
        band_stats(rows.drop(columns="nodata_fraction"))


def test_statistics_show_themselves() -> None:
    moments = {"mean": (1676.97656, 1.5e-6), "std": (2.5, 0.0), "min": (1.0, 0.0), "max": (65535.0, np.nan)}
    one = SensorStats("<i>", ("red", "b"), (4, 50_000), wavelength=(0.65, 0.8), chips=1200, **moments)
    rows = [line.split() for line in str(BandStats((one,))).splitlines()]
    assert rows == [
        ["<i>,", "1,200", "chips"],
        ["band", "mean", "std", "min", "max", "pixels"],
        ["red", "1,676.977", "2.5", "1", "65,535", "4"],
        ["b", "1.5e-06", "0", "0", "nan", "50,000"],
    ]
    page = BandStats((one,))._repr_html_()
    assert "<i>" not in page
    assert all(f">{value}<" in page for row in rows[1:] for value in row)


def test_progress_ends_with_all_chips(rows: pd.DataFrame) -> None:
    calls: list[tuple[int, int]] = []
    found = band_stats(rows, "red", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (found.sensors[0].chips,) * 2
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_file_that_is_gone_is_named(folder: Path, tmp_path: Path) -> None:
    item = write_aerial(tmp_path, "aerial-4")
    rows = xchip.index_items(item, 64).compute()
    (tmp_path / "aerial-4.tif").unlink()
    with pytest.raises(xchip.ItemError, match=r"item 'aerial-4': asset 'image'"):
        band_stats(rows, "red")


# As files


def test_the_file_is_like_clays_configuration(mixed: pd.DataFrame, tmp_path: Path) -> None:
    stats = band_stats(mixed)
    text = Path(stats.write(tmp_path / "new" / "stats.yaml")).read_text()
    sensors = yaml.safe_load(text)
    assert set(sensors) == {"sentinel-2-l2a", "landsat-c2l2-sr", "naip"}
    naip = sensors["naip"]
    assert naip["band_order"] == ["red", "green", "blue", "nir"]
    assert (naip["rgb_indices"], naip["gsd"]) == ([0, 1, 2], 1.0)
    assert sensors["sentinel-2-l2a"]["rgb_indices"] == [2, 1, 0]
    assert list(naip["bands"]["mean"]) == naip["band_order"]
    assert naip["bands"]["wavelength"]["nir"] == 0.842
    assert naip["bands"]["std"]["nir"] == stats["naip"].std[3]


@pytest.mark.parametrize("name", ["stats.json", "stats.YML", "stats.yaml"])
def test_what_was_written_is_read(mixed: pd.DataFrame, tmp_path: Path, name: str) -> None:
    stats = band_stats(mixed, ["red", "nir"])
    assert BandStats.read(stats.write(tmp_path / name)) == stats


def test_statistics_of_an_unknown_product_have_no_wavelengths(folder: Path) -> None:
    item = json.loads(write_aerial(folder, "drone-1").read_text())
    path = folder / "drone-1.json"
    path.write_text(json.dumps({**item, "collection": "drone"}))
    stats = band_stats(xchip.index_items(path, 64).compute())
    found = json.loads(stats.to_json())["unknown"]
    assert found["sensor"] is None
    assert set(found["bands"]["wavelength"].values()) == {None}
    assert "gsd" not in found
    assert BandStats.from_json(stats.to_json()).to_dict() == stats.to_dict()


def test_other_names_of_files_are_refused(tmp_path: Path, rows: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"a file of statistics must be named \*\.json, \*\.yaml or \*\.yml, got .*stats\.txt"):
        band_stats(rows, "red").write(tmp_path / "stats.txt")


# The command line


def test_command(mixed: pd.DataFrame, folder: Path, tmp_path: Path) -> None:
    path = xchip.write_index(mixed, folder / "mixed.parquet")
    done = run("stats", path, "-o", tmp_path / "stats.json", "--assets", "red,nir", "--sample", 4, "--seed", 2)
    assert done.exit_code == 0, done.output
    assert BandStats.read(tmp_path / "stats.json") == band_stats(mixed, ["red", "nir"], sample=4, seed=2)
    assert "red" in done.stdout
    assert "landsat-c2-l2" in done.stdout


def test_command_takes_the_rows_that_are_asked_for(mixed: pd.DataFrame, folder: Path, tmp_path: Path) -> None:
    path = xchip.write_index(mixed, folder / "mixed.parquet")
    done = run("stats", path, "-o", tmp_path / "s.yaml", "--filter", "sensor=sentinel-2-l2a", "--filter", "cloud_fraction<=0.2")
    assert done.exit_code == 0, done.output
    some = mixed[(mixed["sensor"] == "sentinel-2-l2a") & (mixed["cloud_fraction"] <= 0.2)]
    assert BandStats.read(tmp_path / "s.yaml") == band_stats(some)


def test_command_without_output_prints_yaml(rows: pd.DataFrame, folder: Path) -> None:
    path = xchip.write_index(rows, folder / "sentinel.parquet")
    done = run("stats", path, "--assets", "red", "--skip-nodata")
    assert BandStats.from_yaml(done.stdout) == band_stats(rows, "red", skip_nodata=True)


def test_mistakes_on_the_command_line(rows: pd.DataFrame, folder: Path, tmp_path: Path) -> None:
    path = xchip.write_index(rows, folder / "sentinel.parquet")
    refused(run("stats", path, "-o", tmp_path / "stats.txt"), r"\*\.json, \*\.yaml or \*\.yml")
    refused(run("stats", tmp_path / "nowhere"), "nowhere")
    refused(run("stats", path, "--filter", "cloud_fraction"), "cloud_fraction")
    misused(run("stats", path, "--sample", 0), "--sample")
