"""Layers of sample places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from xchip.cli.sample_places import sample_places as command
from xchip.processors.sample_places import sample_places, write_places

REGION = (-10.0, -10.0, 10.0, 10.0)


def layer(shapes: list[Any], names: list[str] | None = None, *, column: str = "name", crs: str = "EPSG:4326") -> Any:
    columns = {column: names} if names else {}
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326").to_crs(crs)


TOWNS = layer([shapely.Point(0, 0), shapely.Point(50, 0), shapely.Point(5, 5)], ["Null", "Far", "Five"], column="NAME")
# A park in the shape of a ring: its centroid is not in it.
PARKS = layer([shapely.Point(2, 2).buffer(2).difference(shapely.Point(2, 2).buffer(1))], ["Ring"])
RIVERS = layer(
    [
        shapely.LineString([(-20, 1), (20, 1)]),
        shapely.MultiLineString([[(0, 2), (1, 2)], [(8, 2), (30, 2)]]),
        shapely.LineString([(30, 3), (40, 3)]),
    ],
    ["Long", "Parted", "Far"],
)
LAKES = layer([shapely.box(5, 5, 15, 9), shapely.box(-3, -3, -2, -2), shapely.box(40, 40, 50, 50)], ["East", "Small", "Far"])


def named(layer: Any, name: str) -> Any:
    layer = layer.copy()
    layer.attrs["name"] = name
    return layer


def coordinates(places: geopandas.GeoDataFrame) -> list[tuple[float, float]]:
    return list(zip(places.geometry.x, places.geometry.y, strict=True))


def test_each_feature_of_a_layer_of_places_is_one_that_lies_on_it() -> None:
    places = sample_places([TOWNS, PARKS])
    assert list(places["name"]) == ["Null", "Far", "Five", "Ring"]
    assert coordinates(places)[:3] == [(0, 0), (50, 0), (5, 5)]
    assert PARKS.geometry.iloc[0].contains(places.geometry.iloc[3])
    assert places.crs.to_epsg() == 4326


def test_only_what_lies_in_the_region_is_kept() -> None:
    region = layer([shapely.box(*REGION).difference(shapely.box(4, 4, 6, 6))], crs="EPSG:3857")
    places = sample_places([TOWNS], rivers=[RIVERS], lakes=[LAKES], random=50, region=region)
    area = shapely.box(*REGION)
    assert list(places["name"])[:5] == ["Null", "Long", "Parted", "East", "Small"]
    assert places.geometry.within(area.buffer(1e-9)).all()
    assert not places.geometry[places["layer"] == "random"].within(shapely.box(4.01, 4.01, 5.99, 5.99)).any()
    assert (places["layer"] == "random").sum() == 50


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), west=st.floats(-15, 5), south=st.floats(-15, 0))
def test_one_point_on_each_river_and_in_each_lake_of_the_region(seed: int, west: float, south: float) -> None:
    region = (west, south, west + 12, south + 14)
    places = sample_places(rivers=[named(RIVERS, "rivers")], lakes=[named(LAKES, "lakes")], random=1, region=region, seed=seed)
    box = shapely.box(*region)
    for kind, features, size in (("rivers", RIVERS, shapely.length), ("lakes", LAKES, shapely.area)):
        found = places[places["layer"] == kind]
        inside = shapely.intersection(features.geometry.to_numpy(), box)
        assert list(found["name"]) == list(features["name"][size(inside) > 0])
        for name, point in zip(found["name"], found.geometry, strict=True):
            shape = shapely.intersection(features.geometry[features["name"] == name].iloc[0], box)
            assert shapely.distance(shape, point) < 1e-9


def test_points_at_random_are_uniform_on_the_ground() -> None:
    latitudes = sample_places(random=20_000, region=(-180, 0, 180, 80), seed=1).geometry.y
    # Half of the area between the equator and 80 degrees lies below the latitude whose sine is half of sin(80).
    middle = np.degrees(np.arcsin(np.sin(np.radians(80)) / 2))
    assert abs((latitudes < middle).mean() - 0.5) < 0.02


def test_points_along_a_river_in_parts_are_uniform_in_length() -> None:
    parted = shapely.MultiLineString([[(0, 0), (1, 0)], [(5, 0), (8, 0)]])
    many = layer([parted] * 4000)
    x = sample_places(rivers=[many]).geometry.x
    assert abs((x <= 1).mean() - 0.25) < 0.03
    assert ((x <= 1) | (x >= 5)).all()


def test_the_same_seed_gives_the_same_points_whatever_else_is_sampled() -> None:
    rivers, lakes = named(RIVERS, "rivers"), named(LAKES, "lakes")

    def points(layer: str, **arguments: Any) -> list[tuple[float, float]]:
        places = sample_places(**arguments)
        return coordinates(places[places["layer"] == layer])

    alone = points("rivers", rivers=[rivers], seed=3)
    assert alone == points("rivers", places=[TOWNS], rivers=[rivers], lakes=[lakes], random=5, seed=3)
    assert alone != points("rivers", rivers=[rivers], seed=4)
    assert points("random", random=5, seed=3) == points("random", lakes=[lakes], random=5, seed=3)
    # A region leaves out features; it does not move the others.
    assert points("lakes", lakes=[lakes], region=(-5, -5, 20, 20)) == points("lakes", lakes=[lakes])[:2]


def test_a_region_across_the_antimeridian() -> None:
    places = sample_places(random=100, region=(170, -20, -170, -10))
    assert (places.geometry.x.abs() >= 170).all()
    assert {True, False} == set(places.geometry.x > 0)


def test_rivers_and_lakes_across_the_antimeridian_of_their_own_map() -> None:
    # On this map 0 is 150 degrees east, and the antimeridian is at 3,339,585 metres.
    river, lake = shapely.LineString([(3.2e6, -2e6), (3.5e6, -1.9e6)]), shapely.box(3.2e6, -2e6, 3.5e6, -1.9e6)
    for shape in (river, lake):
        frame = geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:3832")
        for seed in range(20):
            point = sample_places(**{"rivers" if shape is river else "lakes": [frame]}, seed=seed)
            # A line that is straight on the one map is nearly so on the other.
            assert point.to_crs("EPSG:3832").distance(shape).iloc[0] < 100


def test_features_without_a_geometry_and_slivers() -> None:
    empty = layer([shapely.Point(1, 1), None, shapely.Point()], ["a", "b", "c"])
    assert list(sample_places([empty])["name"]) == ["a"]
    sliver = shapely.Polygon([(0, 0), (10, 10), (10, 10 + 1e-9)])
    point = sample_places(lakes=[layer([sliver])]).geometry.iloc[0]
    assert shapely.distance(sliver, point) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to sample"),
        ({"random": -1}, "0 or more, got -1"),
        ({"rivers": [LAKES]}, "has Polygon, where rivers are lines"),
        ({"lakes": [RIVERS]}, "LineString, MultiLineString, where lakes are areas"),
        ({"places": [TOWNS], "region": (60, 60, 70, 70)}, "none of the features lies in the region"),
        ({"places": [layer([None])]}, "no features with a geometry"),
        ({"random": 1, "region": (0, 50, 10, 40)}, "its south is above its north"),
        ({"random": 1, "region": RIVERS}, "has no areas"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_places(**arguments)


@pytest.mark.parametrize("ending", ["gpkg", "parquet", "fgb", "geojson"])
def test_files_of_each_kind(tmp_path: Path, ending: str) -> None:
    places = sample_places([TOWNS], random=2)
    path = write_places(places, tmp_path / "new" / f"places.{ending}")
    read = geopandas.read_parquet(path) if ending == "parquet" else geopandas.read_file(path)
    assert [path.name for path in path.parent.iterdir()] == [path.name]
    assert list(read["layer"]) == list(places["layer"])
    assert list(read["name"])[:3] == ["Null", "Far", "Five"]
    assert read["name"].isna().tolist() == [False] * 3 + [True] * 2
    assert np.allclose(shapely.get_coordinates(read.geometry), shapely.get_coordinates(places.geometry), atol=1e-6)


def test_what_is_there_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = write_places(sample_places([TOWNS]), tmp_path / "places.gpkg")
    write_places(sample_places(random=1), path)
    assert len(geopandas.read_file(path)) == 1
    with pytest.raises(ValueError, match="no file of a known kind"):
        write_places(sample_places(random=1), tmp_path / "places.shp")
    with pytest.raises(ValueError, match="is a URL"):
        write_places(sample_places(random=1), "s3://bucket/places.gpkg")
    with pytest.raises(OSError, match="can't open the layer"):
        sample_places([tmp_path / "none.gpkg"])


def test_the_command(tmp_path: Path) -> None:
    for name, frame in (("ports", TOWNS), ("rivers", RIVERS), ("lakes", LAKES)):
        frame.to_file(tmp_path / f"{name}.gpkg")
    TOWNS.to_parquet(tmp_path / "airports.parquet")
    layers = ["--places", str(tmp_path / "ports.gpkg"), "--places", str(tmp_path / "airports.parquet")]
    layers += ["--rivers", str(tmp_path / "rivers.gpkg"), "--lakes", str(tmp_path / "lakes.gpkg"), "--random", "4"]
    out = tmp_path / "out.gpkg"
    done = CliRunner().invoke(command, [*layers, "--region", "-10,-10,10,10", "-o", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output.split() == f"2 ports 2 airports 2 rivers 2 lakes 4 random 12 places in {out}".split()
    layer([shapely.box(*REGION)]).to_file(tmp_path / "region.gpkg")
    by_file = tmp_path / "by-file.gpkg"
    CliRunner().invoke(command, [*layers, "--region", str(tmp_path / "region.gpkg"), "-o", str(by_file)], catch_exceptions=False)
    assert geopandas.read_file(by_file).equals(geopandas.read_file(out))
