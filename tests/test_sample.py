"""What samples are besides pixels: encodings against the plain formulas, and Clay's names against the profiles."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xchip import sensors
from xchip.sensors.clay import CLAY_SENSORS, chip_centres, clay_sensor, encode_place, encode_time, encodings, wavelengths
from xchip.sensors.table import PRODUCTS

dates = st.datetimes(min_value=datetime(1972, 1, 1), max_value=datetime(2100, 1, 1))


@given(st.lists(dates, min_size=1, max_size=5))
def test_time_is_week_and_full_hour_on_a_circle(moments: list[datetime]) -> None:
    found = encode_time(np.array(moments, "M8[us]"))
    for name, number in (("week_norm", lambda m: m.isocalendar().week / 52), ("hour_norm", lambda m: m.hour / 24)):
        wanted = [(math.sin(2 * math.pi * number(m)), math.cos(2 * math.pi * number(m))) for m in moments]
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], np.array(wanted), atol=1e-6)


@given(st.floats(-180, 180), st.floats(-90, 90))
def test_place_is_the_angle_on_a_circle(lon: float, lat: float) -> None:
    found = encode_place([lon], [lat])
    for name, degrees in (("lat_norm", lat), ("lon_norm", lon)):
        angle = math.radians(degrees)
        assert (found[name].shape, found[name].dtype) == ((1, 2), np.dtype("float32"))
        np.testing.assert_allclose(found[name][0], [math.sin(angle), math.cos(angle)], atol=1e-6)
    np.testing.assert_allclose(np.hypot(*found["lat_norm"].T), 1, atol=1e-6)


def test_minutes_do_not_count_and_the_year_closes() -> None:
    start = datetime(2024, 5, 1, 7)
    same = encode_time(np.array([start, start + timedelta(minutes=59)], "M8[us]"))["hour_norm"]
    assert (same[0] == same[1]).all()
    # 2020-12-31 is in week 53, 2021-01-05 in week 1.
    weeks = encode_time(np.array(["2020-12-31", "2021-01-05"], "M8[us]"))["week_norm"]
    np.testing.assert_allclose(weeks[0], weeks[1], atol=1e-6)


def test_a_missing_date_is_on_no_circle() -> None:
    found = encode_time(np.array(["NaT", "2024-01-03T06:00"], "M8[us]"))
    assert (found["week_norm"][0] == 0).all()
    assert (found["hour_norm"][0] == 0).all()
    np.testing.assert_allclose(found["hour_norm"][1], [1, 0], atol=1e-6)


def test_centres_of_chips_in_several_crss() -> None:
    codes = ["EPSG:32719", "EPSG:3857", "EPSG:32719"]
    left, bottom = np.array([5e5, 1e6, 6e5]), np.array([6.4e6, -2e6, 6.5e6])
    coords = {"proj_code": codes, "proj_left": left, "proj_bottom": bottom, "proj_right": left + 2560, "proj_top": bottom + 1280}
    lon, lat = chip_centres(coords)
    for number, code in enumerate(codes):
        wanted = pyproj.Transformer.from_crs(code, 4326, always_xy=True).transform(left[number] + 1280, bottom[number] + 640)
        np.testing.assert_allclose((lon[number], lat[number]), wanted, atol=1e-9)
    found = encodings({**coords, "datetime": np.array(["2024-01-03T06:00"] * 3, "M8[us]")})
    assert list(found) == ["week_norm", "hour_norm", "lat_norm", "lon_norm"]
    assert {array.shape for array in found.values()} == {(3, 2)}


def test_a_chip_beside_the_map_is_nowhere() -> None:
    far = {"proj_left": [9e7], "proj_right": [9e7], "proj_bottom": [9e7], "proj_top": [9e7]}
    # A sinusoidal map, whose corners lie beside the globe.
    lon, lat = chip_centres({"proj_code": ["ESRI:54008"], **far})
    assert np.isnan(lon[0])
    assert np.isnan(lat[0])
    assert not np.isnan(encode_place(lon, lat)["lon_norm"]).any()


@pytest.mark.parametrize("name", CLAY_SENSORS)
def test_clays_bands_are_bands_of_the_profile(name: str) -> None:
    profile, clay = sensors.find(name), clay_sensor(name)
    assert profile is not None
    assert set(clay.bands) <= {band.name for band in profile.bands}
    assert set(clay.bands) <= set(clay.wavelengths)
    assert wavelengths(name, clay.bands).shape == (len(clay.bands),)
    assert clay.gsd > 0


def test_every_profile_is_known_to_clay() -> None:
    assert {profile.name for profile in PRODUCTS} == set(CLAY_SENSORS)


def test_what_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"sensor 'planetscope'.*assets="):
        clay_sensor("planetscope")
    with pytest.raises(ValueError, match=r"\['scl'\] of sentinel-2-l2a"):
        wavelengths("sentinel-2-l2a", ["red", "scl"])
