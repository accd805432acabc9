"""`xchip.sample`, `around` and `inside`: which chips, and how much of each."""

from __future__ import annotations

from typing import Any

import dask_geopandas
import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from chip_layouts import PLACES, chips
from hypothesis import given, settings
from hypothesis import strategies as st

from xchip.core.lonlat import projection_of
from xchip.selection.layers import around, coverage, inside
from xchip.selection.sample import _allocate, sample


@pytest.fixture(scope="module")
def frame() -> geopandas.GeoDataFrame:
    rows = chips("utm 33", metres=2560, size=(20, 30))
    numbers = np.arange(len(rows))
    return rows.assign(kind=np.where(numbers < 60, "rare", "common"), half=numbers % 2, cloud_fraction=(numbers % 10) / 10)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 600), st.integers(0, 2**70), st.randoms(use_true_random=False))
def test_a_draw_depends_on_chips_and_seed_alone(frame: Any, n: int, seed: int, random: Any) -> None:
    drawn = sample(frame, n, seed=seed)
    assert len(set(drawn.chip_id)) == n
    assert drawn.index.is_monotonic_increasing
    order = random.sample(range(len(frame)), len(frame))
    assert set(sample(frame.iloc[order], n, seed=seed).chip_id) == set(drawn.chip_id)
    assert set(drawn.chip_id) <= set(sample(frame, min(n + 10, 600), seed=seed).chip_id)


def test_partitions_make_no_difference(frame: Any) -> None:
    lazy = dask_geopandas.from_geopandas(frame, npartitions=4)
    assert sample(lazy, 50, by="kind").chip_id.tolist() == sample(frame, 50, by="kind").chip_id.tolist()


def test_strata(frame: Any) -> None:
    assert sample(frame, 100, by="kind").kind.value_counts().to_dict() == {"common": 90, "rare": 10}
    assert sample(frame, 100, by="kind", balanced=True).kind.value_counts().to_dict() == {"common": 50, "rare": 50}
    assert sample(frame, 200, by="kind", balanced=True).kind.value_counts().to_dict() == {"common": 140, "rare": 60}
    shares = {"common": 1, "rare": 3}
    assert sample(frame, 40, by="kind", weights=shares).kind.value_counts().to_dict() == {"common": 10, "rare": 30}
    two = sample(frame, 40, by=["kind", "half"], balanced=True)
    assert two.groupby(["kind", "half"]).size().tolist() == [10] * 4
    some = sample(frame, 6, by=["kind", "half"], weights={("rare", 0): 1, ("common", 1): 1})
    assert set(zip(some.kind, some.half, strict=True)) == {("rare", 0), ("common", 1)}
    assert sample(frame.assign(kind=frame.kind.where(frame.half == 1)), 20, by="kind").half.unique().tolist() == [1]


def test_strata_of_a_layer(frame: Any) -> None:
    west, south, east, north = frame.total_bounds
    middle = (west + east) / 2
    layer = geopandas.GeoDataFrame(
        {"country": ["A", "B"]},
        geometry=[shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)],
        crs=4326,
    )
    drawn = sample(frame, 20, by=layer, balanced=True)
    centre = shapely.get_x(shapely.centroid(drawn.geometry.to_numpy()))
    assert (centre < middle).sum() == 10
    only = sample(frame, 20, by=layer, weights={"A": 1})
    assert (shapely.get_x(shapely.centroid(only.geometry.to_numpy())) < middle).all()


def test_weights(frame: Any) -> None:
    drawn = pd.concat([sample(frame, 60, weights="cloud_fraction", seed=seed) for seed in range(40)])
    counts = drawn.cloud_fraction.value_counts()
    assert 0.0 not in counts.index
    expected = counts.sum() * counts.index.to_numpy() / counts.index.to_numpy().sum()
    assert (np.abs(counts.to_numpy() / expected - 1) < 0.35).all()
    assert len(sample(frame, 3, weights=[1.0, np.nan, 2, 5] + [0] * 596)) == 3


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.data())
def test_allocation_is_complete_and_never_more_than_there_is(sizes: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, sum(sizes)))
    take = _allocate(n, np.array(sizes), np.ones(len(sizes)))
    assert take.sum() == n
    assert (take <= sizes).all()
    open_ = take[take < sizes]
    assert not open_.size or open_.max() - open_.min() <= 1
    assert not open_.size or (take <= open_.max() + 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 601}, "asked for 601 chips, and the index has 600"),
        ({"n": -1}, "n is a number of chips"),
        ({"balanced": True}, "needs strata"),
        ({"weights": {"rare": 1}}, "no strata; pass by="),
        ({"by": "kind", "weights": {"rarest": 1}}, r"strata \['rarest'\]"),
        ({"by": "kind", "weights": {"rare": -1}}, "shares are finite"),
        ({"weights": [1, 2]}, "600 finite numbers"),
        ({"by": "country"}, "no column 'country'"),
    ],
)
def test_refusals(frame: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(frame, **{"n": 5, **options})


@pytest.mark.parametrize("place", sorted(PLACES))
def test_chips_around_a_point(place: str) -> None:
    rows = chips(place, metres=2560, size=(20, 20))
    crs, left, top = PLACES[place]
    lon, lat = projection_of(crs).lonlat(np.array(left + 10.5 * 2560), np.array(top - 10.5 * 2560))
    assert around(rows, shapely.Point(lon, lat), 0).chip_id.tolist() == ["a-210"]
    assert len(around(rows, [shapely.Point(lon, lat)], 2.0)) == 9
    assert len(around(rows, geopandas.GeoSeries([shapely.Point(lon, lat)], crs=4326), 100)) == 400


def test_coverage_of_an_area(frame: Any) -> None:
    west, south, east, north = frame.total_bounds
    area = [shapely.box(west - 1, south - 1, (west + east) / 2, north + 1), shapely.box(west, south, west + 0.1, north)]
    fraction = coverage(frame.geometry.to_numpy(), area)
    expected = shapely.area(shapely.intersection(frame.geometry.to_numpy(), shapely.union_all(area)))
    np.testing.assert_allclose(fraction, expected / shapely.area(frame.geometry.to_numpy()), atol=1e-4)
    half = inside(frame, area, 0.5)
    assert (half.aoi_fraction >= 0.5).all()
    assert half.index.tolist() == np.flatnonzero(fraction >= 0.5).tolist()
    assert (inside(frame, area).aoi_fraction > 0).all()
    assert "aoi_fraction" not in frame.columns


def test_coverage_by_a_coast_of_many_points() -> None:
    rows = chips("utm 33", metres=2560, size=(20, 20)).geometry.to_numpy()
    middle = shapely.centroid(shapely.union_all(rows))
    coast = shapely.difference(middle.buffer(0.25, quad_segs=3000), middle.buffer(0.1, quad_segs=500))
    expected = shapely.area(shapely.intersection(rows, coast)) / shapely.area(rows)
    np.testing.assert_allclose(coverage(rows, coast), expected, atol=1e-4)


def test_coverage_by_an_area_across_the_antimeridian_of_its_own_map() -> None:
    # On this map 0 is 150 degrees east: the area reaches from 179 degrees east to 179 degrees west.
    left, right = np.radians([29, 31]) * 6378137
    area = geopandas.GeoSeries([shapely.box(left, -2e6, right, -1e6)], crs="EPSG:3832")
    squares = [shapely.box(west, -12, west + 1, -11) for west in (-180, -179.5, -100, 0, 178.5, 179)]
    np.testing.assert_allclose(coverage(np.array(squares), area), [1, 0.5, 0, 0, 0.5, 1], atol=1e-9)


def test_coverage_where_degrees_shrink() -> None:
    chip = np.array([shapely.box(0, 60, 1, 80)])
    expected = (np.sin(np.radians(80)) - np.sin(np.radians(70))) / (np.sin(np.radians(80)) - np.sin(np.radians(60)))
    assert coverage(chip, shapely.box(0, 70, 1, 80))[0] == pytest.approx(expected)


@pytest.mark.parametrize("polygons", [[], [shapely.Polygon()], "land.gpkg"])
def test_layers_that_are_none_are_refused(frame: Any, polygons: Any) -> None:
    with pytest.raises(ValueError, match=r"polygons hold no shape|polygons must be a GeoDataFrame"):
        inside(frame, polygons)
    with pytest.raises(ValueError, match="km is a distance"):
        around(frame, shapely.Point(0, 0), -1)
    with pytest.raises(ValueError, match="min_fraction"):
        inside(frame, shapely.box(0, 0, 1, 1), 1.5)
