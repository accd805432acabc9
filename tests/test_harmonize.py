"""Sentinel-2's offset of processing baseline 04.00: decided by what each item says, and taken off as pixels are read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
from hypothesis import given
from hypothesis import strategies as st
from item_making import header_of, make_item, pixels, tif
from rasterio.transform import from_origin

import xchip
from xchip import sensors
from xchip.core.grid import PixelGrid
from xchip.core.scene import Band, BoaOffset, ItemError
from xchip.raster.reader import BandSource, apply_offset
from xchip.stac.scene.sentinel2_offset import harmonized
from xchip.stac.scene.understand import plain_items, understand

BASELINE = "s2:processing_baseline"
FLAG = "earthsearch:boa_offset_applied"

# Each file with Sentinel-2 items: offset -> (how many items, why).
PUBLISHED: dict[str, dict[int, tuple[int, set[str]]]] = {
    # The COGs hold it: raster:bands say -0.1 and are right.
    "items/earthsearch-v1__sentinel-2-c1-l2a__S2A_T20HNJ.json": {-1000: (1, {f"{BASELINE} 05.10"})},
    "items/earthsearch-c1__rustac-10-items.json": {-1000: (10, {f"{BASELINE} 05.10"})},
    "items/deafrica__s2_l2a_c1_T37MGP.json": {-1000: (1, {f"{BASELINE} 05.10"})},
    # Taken off as the COGs were made; raster:bands still say -0.1.
    "items/rastervision__s2-3-items.json": {0: (3, {f"{FLAG} true"})},
    "rasters/s2_S2A_33TWL_20230815/item.json": {0: (1, {f"{FLAG} true"})},
    "rasters/s2_S2A_33TWL_20230818/item.json": {0: (1, {f"{FLAG} true"})},
    "rasters/s2_S2B_33TWL_20230810/item.json": {0: (1, {f"{FLAG} true"})},
    "rasters/s2_S2B_33TWM_20230810/item.json": {0: (1, {f"{FLAG} true"})},
    # Flagged as not taken off, because there never was one.
    "items/earthsearch-v1__sentinel-2-l2a__S2A_29RKH.json": {0: (1, {f"{BASELINE} 02.14"})},
    "rasters/s2_29RKH/item.json": {0: (1, {f"{BASELINE} 02.14"})},
    # ESA's own JPEG2000 files.
    "items/earthsearch-v1__sentinel-2-l1c.json": {-1000: (1, {f"{BASELINE} 05.11"})},
    # Before version 1 the baseline was published from 04.00 on; before that the product's name tells it.
    "items/earthsearch-v0__sentinel-s2-l2a-cogs__S2A_31NBJ.json": {0: (1, {"sentinel:product_id 02.12"})},
    "items/earthsearch-v0__100-items-32701.json": {
        0: (97, {f"sentinel:product_id {baseline}" for baseline in ("00.01", "02.11", "02.13", "02.14", "03.01")}),
        -1000: (3, {"sentinel:processing_baseline 04.00"}),
    },
    # No raster:bands: the baseline alone tells.
    "items/planetarycomputer__sentinel-2-l2a.json": {0: (1, {f"{BASELINE} 02.12"})},
    "items/planetarycomputer__s2-africa-strip.geojson": {0: (9, {f"{BASELINE} 02.12"})},
    "items/stac-geoparquet__100-sentinel-2-items.parquet": {-1000: (100, {f"{BASELINE} 05.10", f"{BASELINE} 05.11"})},
    # Of 2020, but processed again: the date would say 0.
    "items/cdse__sentinel-2-l2a__T36NYH_v1.1.json": {-1000: (1, {"processing:version 05.00"})},
    "items/stactools-sentinel2__T01LAC_L1C_antimeridian_v1.1.json": {0: (1, {f"{BASELINE} 02.09"})},
    "items/stactools-sentinel2__T07HFE_v1.1.json": {0: (1, {f"{BASELINE} 02.12"})},
}


SENSORS = ("sentinel-2-l2a", "sentinel-2-l1c")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_items_are_decided(shared_data: Path, name: str) -> None:
    found: dict[int | None, tuple[int, set[str]]] = {}
    for item, href in plain_items(str(shared_data / name)):
        scene = understand(item, href=href)
        decision = scene.boa_offset
        assert decision is not None
        count, origins = found.get(decision.offset, (0, set()))
        found[decision.offset] = count + 1, origins | {decision.origin}
        for band in scene.bands:
            reflectance = not band.name.lower().startswith("scl")
            assert band.boa_offset == (decision if reflectance else None)
            if reflectance:
                assert (band.scale, band.offset) == (1e-4, decision.offset * 1e-4)
        assert harmonized(scene, True).bands[0].dn_offset == decision.offset
    assert found == PUBLISHED[name]


def test_no_file_of_sentinel_2_items_is_left_out(shared_data: Path) -> None:
    files = [*(shared_data / "items").iterdir(), *(shared_data / "rasters").glob("*/item.json")]
    with_offset = set()
    for path in files:
        for item, href in plain_items(str(path)):
            try:
                scene = understand(item, href=href)
            except ItemError:  # a file would have to be opened, or the item is there to be refused
                known = sensors.recognise(item)
                assert known is None or known[0].name not in SENSORS
                continue
            assert (scene.boa_offset is None) == (scene.sensor not in SENSORS)
            if scene.boa_offset is not None:
                with_offset.add(path.relative_to(shared_data).as_posix())
    assert with_offset == set(PUBLISHED)


# Forms of items


def s2_item(properties: dict[str, Any], *, offset: float | None = None, **fields: Any) -> dict[str, Any]:
    """An item of two bands as catalogues publish them."""
    raster = {} if offset is None else {"raster:bands": [{"scale": 0.0001, "offset": offset}]}
    assets = {"red": tif("B04", **raster, **pixels(10)), "scl": tif("SCL", **pixels(20), data_type="uint8")}
    known = {"datetime": "2024-01-01", "proj:code": "EPSG:32633", **properties}
    return make_item(assets, properties=known, **{"collection": "sentinel-2-l2a", **fields})


def decision_of(item: dict[str, Any]) -> BoaOffset:
    decision = understand(item).boa_offset
    assert decision is not None
    return decision


@pytest.mark.parametrize(
    ("properties", "published", "offset"),
    [
        ({BASELINE: "03.01"}, None, 0),
        ({BASELINE: "04.00"}, None, -1000),
        ({BASELINE: "05.11", "datetime": "2017-01-01"}, None, -1000),
        ({"sentinel:processing_baseline": "04.00"}, None, -1000),
        ({"processing:version": "05.00"}, None, -1000),
        ({"processing:version": "v1.2"}, -0.1, -1000),
        ({}, -0.1, -1000),
        ({}, 0, 0),
        ({BASELINE: "05.10"}, -0.1, -1000),
        ({BASELINE: "05.10"}, -0.05, -500),
        ({BASELINE: "05.10", FLAG: True}, -0.1, 0),
        ({BASELINE: "05.10", FLAG: True}, None, 0),
        ({BASELINE: "04.00", "sentinel:boa_offset_applied": True}, None, 0),
        ({BASELINE: "04.00", FLAG: False}, -0.1, -1000),
        ({BASELINE: "02.14", FLAG: False}, 0, 0),
        ({FLAG: False}, -0.1, -1000),
        ({"s2:product_uri": "S2A_MSIL2A_20200219T112111_N0500_R037_T29RKH_20230219T123947.SAFE"}, None, -1000),
        ({BASELINE: "05.10", "s2:product_uri": "S2A_MSIL2A_20200219T112111_N0214_R037_T29RKH_2020.SAFE"}, None, -1000),
        ({"eopf:datastrip_id": "S2B_OPER_MSI_L2A_DS_S2RP_20230612T214223_S20200322T075811_N05.00"}, None, -1000),
        # Undecided.
        ({}, None, None),
        ({FLAG: False}, None, None),
        ({FLAG: "no"}, None, None),
        ({BASELINE: "latest"}, None, None),
        ({"s2:product_uri": "S2A_MSIL2A_20170725T142751_N9999_R053_T19GBQ_20240410T040247.SAFE"}, None, None),
        ({BASELINE: "05.10"}, 0, None),
        ({BASELINE: "02.14"}, -0.1, None),
        ({}, -0.00001, None),
        ({}, 0.1, None),
    ],
)
def test_what_an_item_says_decides(properties: dict[str, Any], published: float | None, offset: int | None) -> None:
    item = s2_item(properties, offset=published)
    scene = understand(item)
    assert decision_of(item).offset == offset
    assert [band.boa_offset for band in scene.bands] == [scene.boa_offset, None]
    assert scene.origins["offset"].startswith("undecided: " if offset is None else f"{offset}: ")
    if offset is not None:
        assert scene.bands[0].offset == offset * 1e-4


def test_an_undecided_item_says_what_was_looked_for() -> None:
    nothing = decision_of(s2_item({})).origin
    assert all(field in nothing for field in (FLAG, BASELINE, "processing:version", "raster:bands", "s2:product_uri"))
    assert (
        decision_of(s2_item({BASELINE: "05.10"}, offset=0)).origin
        == f"{BASELINE} 05.10, but the published offset is 0 digital numbers"
    )


def test_the_decision_is_the_items_whatever_is_asked_for() -> None:
    item = s2_item({BASELINE: "05.10"})
    assert understand(item, assets=["scl"]).boa_offset == understand(item).boa_offset == decision_of(item)


def test_bands_that_disagree_leave_the_item_undecided() -> None:
    item = s2_item({}, offset=-0.1)
    item["assets"]["nir"] = tif("B08", **pixels(10), **{"raster:bands": [{"scale": 0.0001, "offset": 0}]})
    scene = understand(item)
    assert scene.boa_offset == BoaOffset(
        None, "red: the published offset is -1000 digital numbers; nir: the published offset is 0 digital numbers"
    )
    assert [band.dn_offset for band in harmonized(scene, True).bands] == [-1000, 0, 0]


def test_the_flag_does_not_speak_of_the_original_files() -> None:
    item = s2_item({BASELINE: "05.10", FLAG: True}, offset=-0.1)
    for key in ("red-jp2", "B04_20m"):
        item["assets"][key] = item["assets"]["red"] | {
            "href": "s3://sentinel-s2-l2a/tiles/33/T/WL/R10m/B04.jp2",
            "type": "image/jp2",
        }
    scene = understand(item, assets=["red", "red-jp2", "B04_20m"])
    assert [band.boa_offset.offset for band in scene.bands if band.boa_offset] == [0, -1000, -1000]
    assert scene.boa_offset == BoaOffset(0, f"{FLAG} true")


def test_pictures_and_other_products_have_no_offset() -> None:
    item = s2_item({BASELINE: "05.10"})
    item["assets"]["visual"] = tif("TCI", **pixels(10), **{"raster:bands": [{"data_type": "uint8"}] * 3})
    item["assets"]["preview"] = tif(
        "B04", **pixels(10), data_type="uint8", **{"eo:bands": [{"name": "B04", "common_name": "red"}]}
    )
    assert {band.boa_offset for band in understand(item, assets=["visual", "preview"]).bands} == {None}
    landsat = understand(make_item({"red": tif(), "qa_pixel": tif("q")}, collection="landsat-c2-l2"))
    assert landsat.boa_offset is None
    assert harmonized(landsat, True) == landsat
    assert harmonized(landsat, -1000) == landsat


def test_all_reflectances_in_one_file_are_shifted() -> None:
    bands = [{"name": name, "eo:common_name": name, "data_type": "uint16"} for name in ("red", "nir")]
    item = make_item({"data": tif(bands=bands), "scl": tif("SCL")}, collection="sentinel-2-l2a")
    item["properties"] = item["properties"] | {BASELINE: "05.10"}
    assert [band.boa_offset.offset for band in understand(item, assets=["data"]).bands if band.boa_offset] == [-1000, -1000]


def test_the_offset_in_a_files_header_is_believed_where_the_item_says_nothing() -> None:
    item = s2_item({})
    for key in ("proj:shape", "proj:transform"):
        del item["assets"]["red"][key]
    grid = PixelGrid("EPSG:32633", (10, 0, 500000, 0, -10, 5000000), (100, 200))
    for offset, expected in ((-0.1, -1000), (0.0, None)):
        scene = understand(
            item, assets=["red"], header=lambda _, o=offset: header_of(grid, "uint16", scales=(0.0001,), offsets=(o,))
        )
        assert scene.bands[0].boa_offset is not None
        assert scene.bands[0].boa_offset.offset == expected


def test_reflectances_stored_as_physical_values_are_undecided() -> None:
    item = s2_item({BASELINE: "05.10"})
    item["assets"]["red"]["data_type"] = "float32"
    assert decision_of(item) == BoaOffset(None, "its values are float32, not digital numbers")


def test_aerosol_and_water_vapour_keep_their_own_scale(shared_data: Path) -> None:
    (item, href), *_ = plain_items(str(shared_data / "items" / "cdse__sentinel-2-l2a__T36NYH_v1.1.json"))
    assert item["assets"]["AOT_20m"]["raster:offset"] == -0.1, "the catalogue's mistake"
    scene = understand(item, href=href, assets=["AOT_20m", "WVP_10m", "B04_20m"])
    assert [(band.scale, band.offset) for band in scene.bands] == [(1e-3, 0), (1e-3, 0), (1e-4, -0.1)]


# Pixels


def band_of(dtype: str, nodata: float | None, offset: int) -> Band:
    grid = PixelGrid("EPSG:32632", (10, 0, 0, 0, -10, 0), (1, 1))
    return Band("red", "B04", "B04.tif", grid, dtype, nodata=nodata, dn_offset=offset)


@given(
    dtype=st.sampled_from(["uint16", "int16", "int32"]),
    nodata=st.sampled_from([None, 0, 65535, -9999, 12]),
    offset=st.sampled_from([0, -1, -1000]),
    data=st.data(),
)
def test_pixels_with_data_keep_them_and_the_others_stay_without(
    dtype: str, nodata: float | None, offset: int, data: st.DataObject
) -> None:
    limits = np.iinfo(dtype)
    numbers = st.integers(limits.min, limits.max) | st.sampled_from([0, 1, 12, 999, 1000, 1001, 1012, limits.min, limits.max])
    stored = np.array(data.draw(st.lists(numbers, min_size=1, max_size=20)), dtype)
    before = stored.copy()
    got = apply_offset(stored, band_of(dtype, nodata, offset))
    assert got.dtype == stored.dtype
    np.testing.assert_array_equal(stored, before)
    for was, now in zip(stored.tolist(), got.tolist(), strict=True):
        shifted = max(was + offset, limits.min)
        if was == nodata or (shifted == nodata and offset):
            assert now == (was if was == nodata else shifted + 1)
        else:
            assert now == shifted


def test_every_digital_number_of_sentinel_2() -> None:
    stored = np.arange(65536, dtype="uint16")
    got = apply_offset(stored, band_of("uint16", 0, -1000))
    assert got[0] == 0
    np.testing.assert_array_equal(got[1:], np.maximum(stored[1:].astype(int) - 1000, 1))
    assert apply_offset(stored, band_of("uint16", 0, 0)) is stored
    floats = apply_offset(np.array([0, 500, 1500, np.nan], "float32"), band_of("float32", 0, -1000))
    np.testing.assert_array_equal(floats, np.array([0, -500, 500, np.nan], "float32"))


def test_the_offset_travels_with_the_band() -> None:
    scene = harmonized(understand(s2_item({BASELINE: "05.10"})), True)
    source = BandSource("a", scene.bands[0], scene.grid)
    assert BandSource.from_url(source.to_url()) == source == pickle.loads(pickle.dumps(source))


# Stacks


def write_item(
    folder: Path, properties: dict[str, Any], *, item_id: str = "a", date: str = "2024-01-01", offset: float | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """(item, its red pixels): red at 10 m and rededge1 at 20 m, with nodata in both."""
    rng = np.random.default_rng(7)
    red = rng.integers(0, 4000, (40, 60)).astype("uint16")
    red[:5], red[5, :3] = 0, [1, 1000, 1001]
    assets = {}
    for key, file, pixels_of, res in (("red", "B04", red, 10), ("rededge1", "B05", red[:20, :30], 20), ("scl", "SCL", None, 20)):
        values = np.full((20, 30), 4, "uint8") if pixels_of is None else pixels_of
        path = folder / f"{item_id}_{file}.tif"
        profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "crs": "EPSG:32633", "nodata": 0}
        place = from_origin(500000, 5000000, res, res)
        with rasterio.open(path, "w", height=values.shape[0], width=values.shape[1], transform=place, **profile) as dataset:
            dataset.write(values, 1)
        said = {} if offset is None or pixels_of is None else {"raster:bands": [{"scale": 0.0001, "offset": offset}]}
        assets[key] = tif() | {
            "href": str(path),
            "data_type": values.dtype.name,
            "proj:shape": list(values.shape),
            "proj:transform": list(place)[:6],
            **said,
        }
    known = {"datetime": date, "proj:code": "EPSG:32633", **properties}
    return make_item(assets, properties=known, id=item_id, collection="sentinel-2-l2a"), red


def plainly_harmonized(stored: np.ndarray) -> np.ndarray:
    """Without the offset, pixel by pixel."""
    values = [0 if value == 0 else max(value - 1000, 1) for value in stored.ravel().tolist()]
    return np.array(values, stored.dtype).reshape(stored.shape)


def test_items_with_and_without_the_offset_become_alike(tmp_path: Path) -> None:
    new, red = write_item(tmp_path, {BASELINE: "05.10"}, item_id="new", date="2020-01-01")
    old, _ = write_item(tmp_path, {BASELINE: "03.01"}, item_id="old", date="2024-01-02")
    cog, _ = write_item(tmp_path, {BASELINE: "05.10", FLAG: True}, item_id="cog", date="2024-01-03", offset=-0.1)
    stored = xchip.stack([new, old, cog])
    assert stored.boa_offset.values.tolist() == [-1000, 0, 0]
    np.testing.assert_array_equal(stored.red, [red] * 3)
    assert not {"boa_offset", "harmonized", "offset"} & set(stored.red.attrs), "the items differ"
    ds = xchip.stack([new, old, cog], harmonize=True)
    assert ds.red.dtype == np.uint16
    np.testing.assert_array_equal(ds.red, [plainly_harmonized(red), red, red])
    np.testing.assert_array_equal(ds.rededge1[0, ::2, ::2], plainly_harmonized(red[:20, :30]))
    np.testing.assert_array_equal(ds.scl, stored.scl)
    assert ((ds.red == 0) == (stored.red == 0)).all(), "no pixel loses its data"
    assert (ds.red.attrs["harmonized"], ds.red.attrs["scale"], ds.red.attrs["offset"]) == (1, 1e-4, 0)
    assert ds.red.rio.nodata == 0
    assert ds.boa_offset.values.tolist() == [-1000, 0, 0], "what the files hold stays on record"
    assert "harmonized" not in ds.scl.attrs


def test_chips_of_catalogues_that_took_the_offset_off_and_not_are_not_mixed_unasked(tmp_path: Path) -> None:
    with_it, red = write_item(tmp_path, {BASELINE: "05.10"}, item_id="with")
    without, _ = write_item(tmp_path, {BASELINE: "05.10", FLAG: True}, item_id="without")
    items = [{**with_it, "collection": "sentinel-2-c1-l2a"}, without]
    rows = xchip.index_items(items, 20).compute()
    assert dict(zip(rows["item_id"], rows["boa_offset"], strict=True)) == {"with": -1000, "without": 0}
    for use in (xchip.open_chips, xchip.band_stats):
        with pytest.raises(
            xchip.ItemError, match=r"item 'without'.* 'with' of collection 'sentinel-2-c1-l2a' -1000: pass harmonize="
        ):
            use(rows, assets=["red"], items=items)
        use(rows[rows["item_id"] == "with"], assets=["red"], items=items)

    plain = {"with": plainly_harmonized(red), "without": red}
    for harmonize, expected in ((True, plain), (0, dict.fromkeys(plain, red)), ({"with": 0}, dict.fromkeys(plain, red))):
        chips = xchip.open_chips(rows, ["red"], items=items, harmonize=harmonize).compute()
        for row, chip in zip(rows.itertuples(), chips["red"].values, strict=True):
            window = np.s_[row.row_off : row.row_off + 20, row.col_off : row.col_off + 20]
            np.testing.assert_array_equal(chip, expected[row.item_id][window])


def test_attributes_say_what_the_values_lack(tmp_path: Path) -> None:
    new, _ = write_item(tmp_path, {BASELINE: "05.10"})
    wanted = {"boa_offset": -1000, "boa_offset_origin": f"{BASELINE} 05.10", "scale": 1e-4, "offset": -0.1}
    stored, ds = xchip.stack(new), xchip.stack(new, harmonize=True)
    assert {name: stored.red.attrs.get(name) for name in wanted} == wanted
    assert {name: ds.red.attrs.get(name) for name in wanted} == wanted | {"offset": 0.0}
    assert ("harmonized" in stored.red.attrs, ds.red.attrs["harmonized"]) == (False, 1)
    old, _ = write_item(tmp_path, {BASELINE: "03.01"}, item_id="old")
    assert (xchip.stack(old).red.attrs["harmonized"], xchip.stack(old).red.attrs["boa_offset"]) == (1, 0), "they lack nothing"
    assert "boa_offset" not in xchip.stack(make_item({"a": tif()})).coords


def test_physical_values_have_the_right_offset_in_any_case(tmp_path: Path) -> None:
    new, red = write_item(tmp_path, {BASELINE: "05.10"}, item_id="new")
    cog, _ = write_item(tmp_path, {BASELINE: "05.10", FLAG: True}, item_id="cog", date="2024-01-03", offset=-0.1)
    expected = np.where(red == 0, np.nan, red * 1e-4)
    for harmonize in (False, True):
        ds = xchip.stack([new, cog], ["red"], rescale=True, harmonize=harmonize)
        np.testing.assert_allclose(ds.red, [expected - 0.1, expected], atol=1e-6)
        assert "harmonized" not in ds.red.attrs
    assert ds.red.min() < 0, "dark pixels are not cut off"
    np.testing.assert_allclose(xchip.stack(new, ["red"], rescale=True, harmonize=0).red[0], expected, atol=1e-6)


def test_warped_and_resampled_pixels_are_harmonized_first(tmp_path: Path) -> None:
    new, red = write_item(tmp_path, {BASELINE: "05.10"})
    old, _ = write_item(tmp_path, {BASELINE: "03.01"}, item_id="old")
    with rasterio.open(old["assets"]["red"]["href"], "r+") as dataset:
        dataset.write(plainly_harmonized(red), 1)
    options: dict[str, Any] = {"crs": "EPSG:32632", "resolution": 7, "resampling": "bilinear"}
    got, expected = xchip.stack(new, ["red"], harmonize=True, **options), xchip.stack(old, ["red"], **options)
    np.testing.assert_array_equal(got.red, expected.red)


def test_undecided_items_are_refused_with_a_way_out(tmp_path: Path) -> None:
    bare, red = write_item(tmp_path, {}, item_id="bare")
    new, _ = write_item(tmp_path, {BASELINE: "05.10"}, item_id="new", date="2024-01-02")
    stored = xchip.stack([bare, new])
    assert np.isnan(stored.boa_offset.values).tolist() == [True, False]
    assert "boa_offset" not in stored.red.attrs
    asked: list[dict[str, Any]] = [{"harmonize": True}, {"rescale": True}, {"harmonize": {"new": 0}}]
    for options in asked:
        with pytest.raises(
            ItemError, match=r"item 'bare': it is undecided .*\(looked in .*harmonize=\{'bare': -1000\} if they do, 0"
        ):
            xchip.stack([bare, new], **options)
    np.testing.assert_array_equal(
        xchip.stack([bare, new], harmonize={"bare": 0, "elsewhere": -1000}).red, [red, plainly_harmonized(red)]
    )
    np.testing.assert_array_equal(xchip.stack([bare, new], harmonize=-1000).red, [plainly_harmonized(red)] * 2)
    np.testing.assert_array_equal(xchip.stack([bare, new], harmonize=0).red, [red, red])
    settled = xchip.stack([bare, new], harmonize={"bare": np.int64(-1000), "new": 0})
    assert settled.boa_offset.values.tolist() == [-1000, 0]
    np.testing.assert_array_equal(xchip.stack([bare, new], ["scl"], harmonize=True).scl, stored.scl)


def test_unknown_products_are_refused() -> None:
    item = make_item({"a": tif()})
    with pytest.raises(ItemError, match=r"item 'item-1': its product is unknown.*pass sensor="):
        xchip.stack(item, harmonize=True)


@pytest.mark.parametrize("harmonize", [1000, -0.1, "yes", {"item-1": 1000}, {"item-1": True}, {"item-1": None}, None])
def test_harmonize_is_checked(harmonize: Any) -> None:
    with pytest.raises(ValueError, match="harmonize must be False, True, a whole number"):
        xchip.stack(s2_item({BASELINE: "05.10"}), harmonize=harmonize)


# Real pixels


@pytest.mark.parametrize("folder", ["s2_S2A_33TWL_20230815", "s2_S2A_33TWL_20230818", "s2_29RKH"])
def test_scenes_without_the_offset_are_left_as_they_are(shared_data: Path, folder: str) -> None:
    item = str(shared_data / "rasters" / folder / "item.json")
    stored, ds = xchip.stack(item, ["red", "nir"]), xchip.stack(item, ["red", "nir"], harmonize=True)
    for name in ("red", "nir"):
        np.testing.assert_array_equal(ds[name], stored[name])
    physical = xchip.stack(item, ["red"], rescale=True).red
    expected = stored.red.where(stored.red != 0) * 1e-4
    np.testing.assert_allclose(physical, expected, atol=1e-6)
    published = json.loads(Path(item).read_text())["assets"]["red"]["raster:bands"][0]["offset"]
    if published:
        assert float((expected + published < 0).mean()) > 0.2, "taken at their word, raster:bands make much of the scene black"


def test_a_real_band_of_baseline_04(shared_data: Path) -> None:
    path = shared_data / "rasters" / "s2_T32TLS_R60m_B01.jp2"
    with rasterio.open(path) as dataset:
        stored = dataset.read(1)
        place = {"proj:shape": list(dataset.shape), "proj:transform": list(dataset.transform)[:6]}
    properties = {"datetime": "2022-06-20", "proj:code": "EPSG:32632"}
    item = make_item(
        {"coastal": {"href": str(path), "type": "image/jp2", **place}},
        properties=properties,
        collection="sentinel-2-l2a",
        id="S2A_MSIL2A_20220620T102321_N0400_R065_T32TLS_20220620T162319",
    )
    ds = xchip.stack(item, ["coastal"], harmonize=True)
    np.testing.assert_array_equal(ds.coastal[0], np.where(stored == 0, 0, np.maximum(stored.astype(int) - 1000, 1)))
    assert ds.coastal.attrs["boa_offset_origin"] == "id 04.00"


# The index


def test_the_index_has_the_offset_of_each_item(tmp_path: Path) -> None:
    new, _ = write_item(tmp_path, {BASELINE: "05.10"}, item_id="new")
    bare, _ = write_item(tmp_path, {}, item_id="bare", date="2024-01-02")
    rows = xchip.index_items([new, bare], 20)
    assert rows.columns[-2:].tolist() == ["geometry", "boa_offset"]
    offsets = rows.compute().groupby("item_id", sort=False).boa_offset.first()
    assert offsets.to_dict() == pytest.approx({"new": -1000, "bare": np.nan}, nan_ok=True)
    of_stack = xchip.stack([new, bare], harmonize=False).chips.index(20)
    for lazy in (of_stack, xchip.stack([new, bare]).load().chips.index(20)):
        eager = lazy.compute() if hasattr(lazy, "dask") else lazy
        assert eager.columns.tolist() == rows.columns.tolist()
        np.testing.assert_array_equal(eager.boa_offset, rows.compute().boa_offset)
    path = xchip.write_index(rows, tmp_path / "index.parquet")
    back = xchip.read_index(path, filters=[("boa_offset", "==", -1000)])
    assert back.boa_offset.dtype == np.float64
    assert set(back.item_id) == {"new"}


def test_an_index_of_items_that_tell_nothing_has_the_fixed_columns_alone(tmp_path: Path) -> None:
    bare, _ = write_item(tmp_path, {})
    assert "boa_offset" not in xchip.index_items(bare, 20).compute().columns
    assert "boa_offset" not in xchip.stack(bare).chips.index(20).compute().columns


def test_parts_of_an_archive_have_the_column_only_where_it_applies(shared_data: Path, tmp_path: Path) -> None:
    rasters = shared_data / "rasters"
    items = [str(rasters / name / "item.json") for name in ("landsat_001062", "s2_29RKH")]
    xchip.build_index(items, tmp_path / "archive", 128)
    rows = xchip.read_index(tmp_path / "archive")
    of_landsat = rows.sensor == "landsat-c2-l2"
    assert rows.boa_offset[of_landsat].isna().all()
    assert (rows.boa_offset[~of_landsat] == 0).all()
    assert 0 < of_landsat.sum() < len(rows)
    (part,) = (tmp_path / "archive" / "index").glob("*/LC08*/index.parquet")
    assert "boa_offset" not in xchip.read_index(part).columns
