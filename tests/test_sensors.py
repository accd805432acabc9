"""The table of sensors: rules bit by bit, profiles against what catalogues publish, recognition, matching, adding one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xchip import sensors
from xchip.quality import CLEAR, CLOUD, DEFECTIVE, NODATA, SHADOW, SNOW, WATER, QualityClass, QualityRule, values
from xchip.sensors import AssetNames, BandSpec, ClaySensor, SensorProfile
from xchip.sensors.clay import CLAY_SENSORS, clay_of, clay_sensor, sensor_of_platform, stored_nodata, wavelengths
from xchip.sensors.registry import plain_key
from xchip.stac.scene.classification import rule_of
from xchip.stac.scene.understand import plain_items

NAMES = [
    *("sentinel-2-l2a", "sentinel-2-l1c", "landsat-c2-l2", "landsat-c2-l1", "modis-09a1"),
    *("hls-l30", "hls-s30", "sentinel-1-rtc", "naip", "linz"),
]


def test_the_table_is_consistent() -> None:
    assert list(sensors.names()) == NAMES
    for name in NAMES:
        profile = sensors.find(name)
        assert profile.name == name
        for variant in (None, *(variant for variant, _ in profile.variants)):
            bands = profile.bands_of(variant)
            assert len({band.name for band in bands}) == len(bands)
            for band in bands:
                assert all(key == plain_key(key) for key in (band.name, *band.keys))
                if band.dtype:
                    assert np.dtype(band.dtype).name == band.dtype
        for rule in profile.quality:
            assert profile.band(rule.band)
            assert rule.source
        assert all(collection == collection.lower() for collection in profile.collections)
    collections = [collection for name in NAMES for collection in sensors.find(name).collections]
    assert len(set(collections)) == len(collections)


# -- rules, by plain loops written from the product guides ----------------------------------------------------------


def scl(value: int) -> QualityClass:
    if value == 0:
        return NODATA
    if value == 1:
        return DEFECTIVE
    if value in (8, 9, 10):
        return CLOUD
    return {3: SHADOW, 11: SNOW, 6: WATER}.get(value, CLEAR)


def qa_pixel(word: int) -> QualityClass:
    if word & 1:
        return NODATA
    if word & 0b1110:  # dilated cloud, cirrus, cloud
        return CLOUD
    if word & 1 << 4:
        return SHADOW
    if word & 1 << 5:
        return SNOW
    return WATER if word & 1 << 7 else CLEAR


def modis_state(word: int) -> QualityClass:
    cloud_state, land_water, cirrus = word % 4, word // 8 % 8, word // 256 % 4
    if word == 65535:
        return NODATA
    if cloud_state in (1, 2) or word & 1 << 10 or cirrus == 3:
        return CLOUD
    if word & 1 << 2:
        return SHADOW
    if word & 1 << 12 or word & 1 << 15:
        return SNOW
    return WATER if land_water not in (1, 2) else CLEAR  # 1 is land, 2 a shore


def modis_qc(word: int) -> QualityClass:
    return {2: CLOUD, 3: NODATA}.get(word % 4, CLEAR)


def fmask(word: int) -> QualityClass:
    if word == 255:
        return NODATA
    if word & 0b111:  # cirrus, cloud, adjacent to cloud or shadow
        return CLOUD
    if word & 1 << 3:
        return SHADOW
    if word & 1 << 4:
        return SNOW
    return WATER if word & 1 << 5 else CLEAR


RULES = [
    ("sentinel-2-l2a", 0, scl, "uint8"),
    ("landsat-c2-l2", 0, qa_pixel, "uint16"),
    ("landsat-c2-l1", 0, qa_pixel, "uint16"),
    ("modis-09a1", 0, modis_state, "uint16"),
    ("hls-l30", 0, fmask, "uint8"),
    ("hls-s30", 0, fmask, "uint8"),
]


@pytest.mark.parametrize(("name", "number", "loop", "dtype"), RULES)
def test_every_word_of_each_rule(name: str, number: int, loop: Callable[[int], QualityClass], dtype: str) -> None:
    rule = sensors.find(name).quality[number]
    words = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    assert rule.codes(words).tolist() == [loop(word) for word in range(len(words))]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_the_32_bit_rule_of_modis(words: list[int]) -> None:
    rule = sensors.find("modis-09a1").quality[1]
    assert rule.codes(np.array(words, "uint32")).tolist() == [modis_qc(word) for word in words]


def test_known_values() -> None:
    """Values that the guides and the archive's own scenes name."""
    landsat = sensors.find("landsat-c2-l2").quality[0]
    named = {1: NODATA, 21824: CLEAR, 21952: WATER, 22280: CLOUD, 23888: SHADOW, 30048: SNOW, 54596: CLOUD, 55052: CLOUD}
    assert {value: QualityClass(landsat.codes(np.array([value], "uint16"))[0]) for value in named} == named
    digital_earth_australia = sensors.rule_for_band("oa_fmask")
    assert digital_earth_australia is not None
    assert digital_earth_australia.codes(np.arange(7, dtype="uint8")).tolist() == [0, 6, 2, 3, 4, 5, 6]


# -- against published classifications -----------------------------------------------------------------------------


def published(folder: Path, file: str, key: str) -> QualityRule:
    item, _ = next(plain_items(folder / "items" / file))
    found = rule_of(item["assets"][key], key)
    assert found is not None
    return found.rule


@pytest.mark.parametrize(
    ("sensor", "file", "key", "dtype", "unsaid"),
    [
        ("sentinel-2-l2a", "cdse__sentinel-2-l2a__T36NYH_v1.1.json", "SCL_20m", "uint8", lambda v: v < 0),
        ("sentinel-2-l2a", "cdse__sentinel-2-l2a__T36NYH_v1.1.json", "SCL_60m", "uint8", lambda v: v < 0),
        ("sentinel-2-l2a", "stactools-sentinel2__T07HFE_v1.1.json", "scl", "uint8", lambda v: v < 0),
        ("landsat-c2-l2", "planetarycomputer__landsat-c2-l2.json", "qa_pixel", "uint16", lambda v: v < 0),
        ("landsat-c2-l2", "stactools-landsat__LC09_L2SP_010065.json", "qa_pixel", "uint16", lambda v: v < 0),
        ("landsat-c2-l2", "usgs__landsat-c2l2-sr__LC09_086107_3031.json", "qa_pixel", "uint16", lambda v: v < 0),
        ("landsat-c2-l2", "usgs__landsat-c2l2-sr__LC09_092068_v1.0.json", "qa_pixel", "uint16", lambda v: v < 0),
        # MSS has no flag but fill and cloud; the item of HLS says nothing of cirrus and of fill
        ("landsat-c2-l1", "planetarycomputer__landsat-c2-l1.json", "qa_pixel", "uint16", lambda v: v & 0b10110110 > 0),
        ("hls-l30", "stactools-hls__L30_T19LDD.json", "fmask", "uint8", lambda v: (v % 2 == 1) | (v == 255)),
    ],
)
def test_profile_agrees_with_what_is_published(
    sensor: str, file: str, key: str, dtype: str, unsaid: Callable[[Any], Any], shared_data: Path
) -> None:
    """Every published class means what the profile says: for all words that the item speaks of."""
    rule = published(shared_data, file, key)
    words = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    words = words[~unsaid(words.astype(int))]
    assert rule.codes(words).tolist() == sensors.find(sensor).quality[0].codes(words).tolist()
    assert rule.ignored == ()


# -- recognition ---------------------------------------------------------------------------------------------------


def item(identifier: str = "x", *assets: str, collection: str | None = None, **properties: Any) -> dict[str, Any]:
    return {
        "id": identifier,
        "collection": collection,
        "properties": properties,
        "assets": {key: {"href": "a"} for key in assets},
    }


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (item(collection="sentinel-2-l2a"), "sentinel-2-l2a"),
        (item(collection="sentinel-s2-l2a-cogs"), "sentinel-2-l2a"),
        (item(collection="S2_L2A-1"), "sentinel-2-l2a"),
        (item(collection="landsat-c2l2-sr"), "landsat-c2-l2"),
        (item(collection="HLSS30.v2.0"), "hls-s30"),
        (item(collection="hls2-l30"), "hls-l30"),
        (item(collection="MOD09A1.v061"), "modis-09a1"),
        (item(collection="sentinel-1-rtc"), "sentinel-1-rtc"),
        (item(collection="sentinel-1-grd"), None),
        (item("S2A_MSIL2A_20190212T1_T07HFE", "SCL_20m", platform="Sentinel-2A"), "sentinel-2-l2a"),
        (item("a", "scl", constellation="Sentinel 2", **{"s2:product_type": "S2MSI2A"}), "sentinel-2-l2a"),
        (item("a", "B02", constellation="Sentinel 2", **{"s2:product_type": "S2MSI2A"}), None),  # no quality band
        (item("a", "scl", constellation="sentinel-2"), None),  # no level
        (item("a_L2A", "scl"), None),  # no platform
        (item("a", "B02", platform="sentinel-2c", **{"processing:level": "L1C"}), "sentinel-2-l1c"),
        (item("LC09_L2SP_010065_20220129_20220131_02_T1", "QA_PIXEL.TIF", platform="LANDSAT_9"), "landsat-c2-l2"),
        (item("LC08_L1TP_107018_20181001_20181001_01_RT", "qa_pixel", platform="landsat-8"), None),  # Collection 1
        (item("LE07_L1TP_010065_20020129_20200916_02_T1", "qa_pixel", platform="landsat-7"), "landsat-c2-l1"),
        (item("HLS.L30.T19LDD.2022165T144027.v2.0", "fmask", platform="landsat-9"), "hls-l30"),
        (item("HLS.S30.T19LDD.2022165T144027.v2.0", "Fmask", platform="sentinel-2b"), "hls-s30"),
        (item("MYD09A1.A2025057.h35v10", "sur_refl_qc_500m", platform="aqua"), "modis-09a1"),
        (item("S1A_IW_GRDH_1SDV_20250311_rtc", "vv", platform="SENTINEL-1A"), "sentinel-1-rtc"),
        (item("ga_s2am_ard_3", "oa_fmask", platform="sentinel-2a"), None),
        ({"id": None, "properties": None, "assets": [1]}, None),
        ({"id": 1, "collection": {"a": 1}, "properties": {"platform": 4, "instruments": "oli"}}, None),
    ],
)
def test_recognition(made: dict[str, Any], expected: str | None) -> None:
    found = sensors.recognise(made)
    assert (found[0].name if found else None) == expected


@pytest.mark.parametrize(
    ("identity", "number", "band"),
    [
        ("LC08_L2SP_197023_20220324", 4, "red"),
        ("LT05_L2SP_197023_20020324", 4, "nir08"),
        ("scene landsat-7 etm", 5, "swir16"),
        ("scene landsat-5 tm", 2, "green"),
    ],
)
def test_landsat_numbers_its_bands_by_instrument(identity: str, number: int, band: str) -> None:
    profile = sensors.find("landsat-c2-l2")
    variant = profile.variant_of(identity)
    rank, specs = sensors.match(profile, AssetNames(f"SR_B{number}.TIF"), variant)
    assert (rank, [spec.name for spec in specs]) == (0, [band])
    # not knowing the instrument, the number says nothing and the common name all
    assert sensors.match(profile, AssetNames(f"SR_B{number}.TIF"), None)[1] == ()
    rank, specs = sensors.match(profile, AssetNames(f"SR_B{number}.TIF", common_names=(band,)), None)
    assert (rank, [spec.name for spec in specs]) == (2, [band])


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ("LM01_L1GS_001010_19720908", {"B4": "green", "B7": "nir09"}),
        ("LM05_L1GS_039039_20130107", {"B1": "green", "B4": "nir09"}),
        ("LT05_L1TP_039039_20030107", {"B1": "blue", "B6": "lwir"}),
        ("LE07_L1TP_039039_20030107", {"B6_VCID_2": "lwir_high", "B8": "pan"}),
        ("LC09_L1TP_039039_20230107", {"B8": "pan", "B9": "cirrus", "B11": "lwir12"}),
    ],
)
def test_level_1_bands(identity: str, expected: dict[str, str]) -> None:
    profile = sensors.find("landsat-c2-l1")
    variant = profile.variant_of(identity)
    for key, name in expected.items():
        by_key = sensors.match(profile, AssetNames(key), variant)[1]
        by_file = sensors.match(profile, AssetNames("x", href=f"s3://b/{identity}_02_T1_{key}.TIF?a=b"), variant)[1]
        assert by_key == by_file
        assert [spec.name for spec in by_key] == [name]
        assert by_key[0].dtype == ("uint16" if variant == "oli" else "uint8")
        assert by_key[0].default == (name != "pan")
    assert {spec.dtype for spec in profile.bands_of(None) if spec.name == "red"} == {None}


@pytest.mark.parametrize(
    ("asset", "rank", "names"),
    [
        (AssetNames("SCL"), 0, ["scl"]),
        (AssetNames("B02_10m"), 0, ["blue"]),
        (AssetNames("red-jp2"), 0, ["red"]),
        (AssetNames("asset1", bands=("B8A",)), 1, ["nir08"]),
        (AssetNames("asset1", common_names=("nir",)), 2, ["nir"]),
        (AssetNames("asset1", common_names=("rededge",)), 0, []),  # three bands share it
        (AssetNames("asset1", href="https://b/T36NYH_20200322T074609_B05_20m.jp2"), 3, ["rededge1"]),
        (AssetNames("visual", bands=("B04", "B03", "B02"), count=3), 0, []),
        (AssetNames("red", count=3), 0, []),
        (AssetNames("overview", href="https://b/L2A_PVI.tif"), 0, []),
    ],
)
def test_matching(asset: AssetNames, rank: int, names: list[str]) -> None:
    found = sensors.match(sensors.find("sentinel-2-l2a"), asset)
    assert (found[0], [spec.name for spec in found[1]]) == (rank, names)


def test_bands_of_one_file_match_together() -> None:
    rank, specs = sensors.match(sensors.find("naip"), AssetNames("image", count=4))
    assert (rank, [(spec.name, spec.index) for spec in specs]) == (0, [("red", 1), ("green", 2), ("blue", 3), ("nir", 4)])


def test_bands_by_any_name() -> None:
    profile = sensors.find("sentinel-2-l2a")
    for name, expected in (
        ("nir", "nir"),
        ("B8A", "nir08"),
        ("b04_10m", "red"),
        ("SCL.tif", "scl"),
        ("rededge", None),
        ("x", None),
    ):
        spec = sensors.band_called(profile, name)
        assert (spec.name if spec else None) == expected


# -- rules for arrays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("scl", "scl"),
        ("SCL", "scl"),
        ("SCL_20m", "scl"),
        ("QA_PIXEL.TIF", "qa_pixel"),
        ("Fmask", "fmask"),
        ("oa_fmask", "oa_fmask"),
    ],
)
def test_rule_by_the_name_of_a_band(name: str, band: str) -> None:
    rule = sensors.rule_for_band(name)
    assert rule is not None
    assert rule.band == name
    assert rule is sensors.rule_for_band(name)
    known = [rule for profile in NAMES for rule in sensors.find(profile).quality]
    assert replace(rule, band=band) in known or band == "oa_fmask"
    assert sensors.rule_for_band("red") is None


# -- one's own -----------------------------------------------------------------------------------------------------


def test_adding_a_sensor_takes_a_few_lines() -> None:
    rule = values("ok", {NODATA: [0], CLOUD: [2]}, source="flight manual")
    mine = SensorProfile("drone", (BandSpec("red", ("b1",)), BandSpec("ok")), (rule,), collections=("my-flights",))
    try:
        assert sensors.register(mine) is mine
        assert sensors.find("drone") is mine
        assert sensors.recognise(item(collection="My-Flights")) == (mine, "collection 'My-Flights'")
        assert sensors.rule_for_band("OK") is not None
        again = sensors.register(replace(mine, collections=("sentinel-2-l2a",)))
        assert sensors.names().count("drone") == 1
        assert sensors.recognise(item(collection="sentinel-2-l2a")) == (again, "collection 'sentinel-2-l2a'")
    finally:
        sensors.unregister("drone")
    assert sensors.recognise(item(collection="my-flights")) is None
    assert sensors.find(mine) is mine
    with pytest.raises(ValueError, match=r"'drone' is not known; known are sentinel-2-l2a, .*pass a SensorProfile, or register"):
        sensors.find("drone")


def test_a_rule_is_overridden_by_replace() -> None:
    profile = sensors.find("sentinel-2-l2a")
    strict = replace(profile, quality=(values("scl", {CLOUD: [7, 8, 9, 10]}),))
    assert strict.quality[0].codes(np.array([7], "uint8")).tolist() == [CLOUD]
    assert profile.quality[0].codes(np.array([7], "uint8")).tolist() == [CLEAR]
    assert sensors.find("sentinel-2-l2a") is profile
    with pytest.raises(FrozenInstanceError):
        profile.name = "x"  # type: ignore[misc]
    with pytest.raises(KeyError, match="ultraviolet"):
        profile.band("ultraviolet")


def test_a_sensor_of_ones_own_brings_its_training_bands() -> None:
    """Band order, wavelengths, pixel size and processors' bands come from the profile, in one place."""
    bands = (
        BandSpec("nir", ("b2",), resolution=2, wavelength=0.84),
        BandSpec("red", ("b1",), resolution=1, wavelength=0.65),
        BandSpec("pan", resolution=0.5, default=False),
        BandSpec("ok"),
    )
    mine = SensorProfile("drone", bands, (values("ok", {NODATA: [0]}),))
    assert mine.data_bands == ("nir", "red")
    assert mine.staged_bands == ("nir", "red", "ok")
    assert clay_of(mine) == ClaySensor("drone", ("nir", "red"), 1, {"nir": 0.84, "red": 0.65})
    assert "drone" not in CLAY_SENSORS
    sensors.register(mine)
    try:
        assert list(CLAY_SENSORS) == [*NAMES, "drone"]
        assert len(CLAY_SENSORS) == len(NAMES) + 1
        assert clay_sensor("drone") == CLAY_SENSORS["drone"] == clay_of(mine)
        assert sensor_of_platform("drone") == "drone"
        assert wavelengths("drone", ["red", "nir"]).tolist() == [np.float32(0.65), np.float32(0.84)]
        assert stored_nodata("drone", ["red"]) == (None,)
        declared = ClaySensor("drone-v2", ("red",), 1.0, {"red": 650.0}, nodata=-1)
        sensors.register(replace(mine, clay=declared, staged=("red", "ok")))
        assert clay_sensor("drone") == ClaySensor("drone-v2", ("red",), 1.0, {"red": 650.0, "nir": 0.84}, nodata=-1)
        assert sensor_of_platform("drone-v2") == "drone"
        assert stored_nodata("drone", ["red", "nir"]) == (-1, -1)
        assert sensors.find("drone").staged_bands == ("red", "ok")
        sensors.register(SensorProfile("drone", (BandSpec("ok"),), mine.quality))
        with pytest.raises(ValueError, match=r"sensor 'drone' for Clay are unknown; known sensors are sentinel-2-l2a.*assets="):
            clay_sensor("drone")
    finally:
        sensors.unregister("drone")


def test_data_bands_are_those_of_every_variant() -> None:
    assert sensors.find("landsat-c2-l2").data_bands == ("blue", "green", "red", "nir08", "swir16", "swir22")
    assert sensors.find("landsat-c2-l1").data_bands == ("green", "red", "nir08")


def test_an_archive_does_not_depend_on_models_and_processors() -> None:
    """Archives keep a hash of a profile's repr: fields that do not change an index are not in it."""
    plain = SensorProfile("drone", (BandSpec("red"),))
    clay = ClaySensor("drone", ("red",), 1.0)
    full = replace(plain, bands=(BandSpec("red", wavelength=0.65),), clay=clay, staged=("red",), stored_ratio=(0.5, "measured"))
    assert repr(full) == repr(plain)
    assert full != plain


@pytest.mark.parametrize("name", NAMES)
def test_profiles_name_bands_that_they_have(name: str) -> None:
    profile = sensors.find(name)
    held = {band.name for band in profile.bands}
    assert set(profile.staged_bands) | set(profile.data_bands) | set(clay_sensor(name).bands) <= held
    assert not profile.quality or set(profile.staged_bands) & set(profile.quality_bands)
    assert all(0.4 < band.wavelength < 3 for band in profile.bands if band.wavelength is not None)
