"""`xchip.split`: no two chips of different splits are near each other, and nothing moves when chips are added."""

from __future__ import annotations

import json
import warnings
from typing import Any

import dask_geopandas
import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from chip_layouts import PLACES, chips, kilometres, layouts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xchip.selection.blocks import Blocks
from xchip.selection.sphere import EARTH_KM, spans
from xchip.selection.split import SPLIT_ATTRIBUTE, split

HALVES = {"train": 0.5, "test": 0.5}
quick = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def nearest(frame: pd.DataFrame) -> float:
    """Kilometres between the nearest chips of "train" and "test"."""
    return kilometres(*(frame.geometry[frame["split"] == name].to_numpy() for name in ("train", "test")))


@quick
@given(layouts(), st.sampled_from([0.0, 0.5, 3.0]), st.integers(0, 1000))
def test_chips_of_different_splits_are_further_apart_than_the_buffer(frame: pd.DataFrame, buffer: float, seed: int) -> None:
    with _quiet():
        parts = split(frame, HALVES, block_km=20, buffer_km=buffer, seed=seed)
    assert nearest(parts) > buffer


@quick
@given(layouts(), st.sampled_from([0.0, 2.0]), st.integers(0, 1000))
def test_by_column_too(frame: pd.DataFrame, buffer: float, seed: int) -> None:
    frame["tile"] = np.arange(len(frame)) // 3
    with _quiet():
        parts = split(frame, {"train": 0.6, "test": 0.4}, by="tile", buffer_km=buffer, seed=seed)
    assert nearest(parts) > buffer
    kept = parts[parts["split"] != "buffer"]
    assert (kept.groupby("tile")["split"].nunique() <= 1).all()
    # Only chips of the larger share give way.
    unlimited = split(frame, {"train": 0.6, "test": 0.4}, by="tile", buffer_km=None, seed=seed)
    assert set(unlimited["split"][parts["split"] == "buffer"]) <= {"train"}


@settings(quick, max_examples=4)
@given(layouts(), st.randoms(use_true_random=False))
def test_neither_other_chips_nor_order_nor_partitions_change_a_block(frame: pd.DataFrame, random: Any) -> None:
    with _quiet():
        whole = split(frame, block_km=20)["split"]
        rows = random.sample(range(len(frame)), 50)
        some = split(frame.iloc[rows], block_km=20)["split"]
        assert some.tolist() == whole.iloc[rows].tolist()
        lazy = split(dask_geopandas.from_geopandas(frame, npartitions=3), block_km=20)
    assert hasattr(lazy, "dask")
    pd.testing.assert_series_equal(lazy.compute()["split"], whole)


def _quiet() -> Any:
    """Small layouts may leave a split without chips."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


@pytest.mark.parametrize("block_km", [5.0, 50.0, 3000.0])
def test_blocks_cover_the_earth_about_evenly(block_km: float) -> None:
    blocks = Blocks(block_km, (1.0,), 0)
    columns = blocks.columns(np.arange(blocks.bands))
    assert columns.sum() == pytest.approx(4 * np.pi * EARTH_KM**2 / block_km**2, rel=0.3)
    edge = np.sin(np.radians(np.linspace(-90, 90, blocks.bands + 1)))
    areas = np.diff(edge) * 2 * np.pi / columns * EARTH_KM**2
    assert areas.max() / areas.min() < 1.7


def test_a_point_is_in_one_block_on_both_sides_of_the_antimeridian() -> None:
    blocks = Blocks(50.0, (1.0,), 0)
    lat = np.linspace(-90, 90, 181)
    east, west = (blocks.cells(np.full(181, lon), lat) for lon in (180.0, -180.0))
    assert np.array_equal(east, west)


def test_shares_are_met_over_many_blocks() -> None:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 179, 20_000), np.degrees(np.arcsin(rng.uniform(-0.99, 0.99, 20_000)))
    frame = geopandas.GeoDataFrame({"chip_id": lon.astype(str)}, geometry=shapely.box(lon, lat, lon + 0.01, lat + 0.01), crs=4326)
    parts = split(frame, {"train": 0.7, "val": 0.2, "test": 0.1}, block_km=100)
    shares = parts["split"][parts["split"] != "buffer"].value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.7, "val": 0.2, "test": 0.1}, abs=0.03)
    facts = json.loads(parts.attrs[SPLIT_ATTRIBUTE])
    assert facts["chips"] == {**parts["split"].value_counts(), "none": 0}
    assert facts["block_km"] == 100
    other = split(frame, {"train": 0.7, "val": 0.2, "test": 0.1}, block_km=100, seed=1)
    assert (other["split"] != parts["split"]).mean() > 0.3


def test_a_chip_wider_than_a_block_is_kept_where_all_blocks_agree() -> None:
    frame = chips("utm 33", metres=30_000, size=(2, 2))
    assert split(frame, {"all": 1.0}, block_km=10, buffer_km=0)["split"].unique().tolist() == ["all"]
    with pytest.warns(
        UserWarning, match=r"no chip is in \['train', 'test'\].*too near to another split: larger blocks or a smaller buffer"
    ):
        parts = split(frame, HALVES, block_km=10, buffer_km=0)
    assert parts["split"].unique().tolist() == ["buffer"]


def dated(count: int, every: str = "1D") -> geopandas.GeoDataFrame:
    frame = chips("utm 33", metres=2560, size=(1, 1)).iloc[np.zeros(count, int)].reset_index(drop=True)
    return frame.assign(
        chip_id=[f"item-{n}-0-0" for n in range(count)], datetime=pd.date_range("2024-01-01", periods=count, freq=every, tz="UTC")
    )


def test_by_time_with_a_gap() -> None:
    frame = dated(100)
    parts = split(frame, by="time", gap="6D")
    spans = parts.groupby("split")["datetime"].agg(["min", "max"])
    assert spans.loc["val", "min"] - spans.loc["train", "max"] > pd.Timedelta("6D")
    assert spans.loc["test", "min"] - spans.loc["val", "max"] > pd.Timedelta("6D")
    facts = json.loads(parts.attrs[SPLIT_ATTRIBUTE])
    assert facts["cuts"] == ["2024-03-20T12:00:00+00:00", "2024-03-30T12:00:00+00:00"]
    assert facts["chips"] == {"train": 77, "val": 4, "test": 7, "buffer": 12, "none": 0}


def test_cuts_keep_periods_when_chips_are_added() -> None:
    frame = dated(100)
    cuts = json.loads(split(frame, by="time").attrs[SPLIT_ATTRIBUTE])["cuts"]
    longer = dated(200)
    known = split(longer, ["train", "val", "test"], by="time", cuts=cuts)
    assert known["split"].iloc[:100].tolist() == split(frame, by="time")["split"].tolist()
    lazy = split(dask_geopandas.from_geopandas(longer, npartitions=4), by="time", cuts=cuts)
    assert lazy.compute()["split"].tolist() == known["split"].tolist()
    longer.loc[7, "datetime"] = pd.NaT
    assert pd.isna(split(longer, by="time", cuts=cuts)["split"].iloc[7])


def test_the_first_date_of_a_later_period_is_not_lost_to_the_gap() -> None:
    parts = split(dated(3, "10D"), {"train": 0.7, "test": 0.3}, by="time", gap="9D")
    assert parts["split"].tolist() == ["train", "train", "test"]


def test_by_polygons() -> None:
    frame = chips("utm 33", metres=2560, size=(4, 10))
    west, south, east, north = frame.total_bounds
    middle = (west + east) / 2
    layer = geopandas.GeoDataFrame(
        {"split": ["test", "train"]},
        geometry=[shapely.box(middle, south, east - 0.1, north), shapely.box(west - 1, south, middle, north)],
        crs=4326,
    )
    parts = split(frame, by=layer.to_crs(32633), buffer_km=1)
    centre = shapely.centroid(frame.geometry.to_numpy())
    centre = pd.Series(shapely.get_x(centre))
    assert set(parts["split"].dropna()) == {"train", "test", "buffer"}
    assert parts["split"].isna().equals(centre > east - 0.1)
    # The larger polygon's chips give way.
    assert (centre[parts["split"] == "buffer"] < middle).all()
    assert nearest(parts) > 1


def test_all_forms_of_an_index_give_the_same() -> None:
    frame = chips("utm 33", metres=5120, size=(10, 10))
    expected = split(frame, HALVES, block_km=20)["split"].tolist()
    table = pa.Table.from_pandas(pd.DataFrame(frame).assign(geometry=frame.geometry.to_wkb()))
    assert split(table, HALVES, block_km=20)["split"].tolist() == expected
    assert "split" not in frame.columns
    assert split(frame.set_index(frame.index + 7), HALVES, block_km=20).index[0] == 7


def test_chips_without_a_footprint_have_no_split() -> None:
    frame = chips("utm 33", metres=2560, size=(1, 3))
    frame.geometry = [None, shapely.Polygon(), frame.geometry.iloc[2]]
    for options in ({}, {"by": "chip_id"}):
        assert split(frame, {"all": 1.0}, **options)["split"].isna().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": {"train": 0.8, "val": 0.1}}, r"sum to 1, got .* sum to 0.9"),
        ({"shares": {"train": 1.5, "val": -0.5}}, "above 0"),
        ({"shares": ["train", "test"]}, "shares map names"),
        ({"shares": {"buffer": 1.0}}, "belong to no split"),
        ({"buffer_km": -1}, "0 to 20,000 km, got -1"),
        ({"buffer_km": float("nan")}, "0 to 20,000 km, got nan"),
        ({"buffer_km": 60}, "leaves nothing of blocks of 50"),
        ({"buffer_km": None}, "blocks need a buffer_km"),
        ({"block_km": 0}, "block_km is a length"),
        ({"by": "tile"}, "no column 'tile'"),
        ({"by": 3}, "a GeoDataFrame with a column 'split', got 3"),
        ({"gap": "1D"}, "for by='time' only"),
        ({"by": "time", "gap": "-1D"}, "gap is a length of time"),
        ({"by": "time", "cuts": ["2024-01-01"]}, "3 periods need 2 cuts"),
        ({"by": "time"}, "1 dates, too few for 3 periods"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    frame = chips("utm 33", metres=2560, size=(2, 2))
    with pytest.raises(ValueError, match=message):
        split(frame, **options)


@pytest.mark.parametrize("place", sorted(PLACES))
def test_spans_hold_all_points_of_a_chip(place: str) -> None:
    frame = chips(place, metres=9_000, size=(8, 12))
    west, south, east, north = spans(frame.geometry.to_numpy())
    for number, shape in enumerate(frame.geometry):
        lon, lat = shapely.get_coordinates(shape).T
        inside = ((lon >= west[number]) & (lon <= east[number])) | ((lon + 360 >= west[number]) & (lon + 360 <= east[number]))
        assert inside.all()
        assert (lat >= south[number]).all()
        assert (lat <= north[number]).all()
    assert ((east - west <= 180) | (np.abs(np.stack([south, north])).max(axis=0) > 89)).all()
