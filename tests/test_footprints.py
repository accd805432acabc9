"""Footprints: what lies in a chip lies in its outline, in any CRS, at the antimeridian, the poles and the limb."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from hypothesis import given
from hypothesis import strategies as st

from xchip.core.footprints import Rects
from xchip.core.footprints import footprints as footprints_of_edges
from xchip.core.grid import ChipGrid, PixelGrid, outline
from xchip.core.lonlat import transformed

SINUSOIDAL = "+proj=sinu +R=6371007.181"
GEOSTATIONARY = "+proj=geos +h=35786023 +lon_0=-75 +sweep=x +ellps=GRS80"
# Where each CRS is used: (west, south, east, north), past 180 across the antimeridian.
REGIONS = {
    "EPSG:32720": (-66, -80, -60, 0),
    "EPSG:32633": (12, 0, 18, 84),
    "EPSG:32601": (-184, -79, -174, 84),
    "EPSG:32660": (174, -79, 184, 84),
    "EPSG:3857": (-180, -85, 180, 85),
    "EPSG:4326": (-180, -85, 180, 85),
    "EPSG:4269": (-180, -85, 180, 85),
    "EPSG:2193": (166, -47, 182, -34),  # northing first
    "EPSG:3031": (-180, -90, 180, -60),
    "EPSG:3413": (-180, 60, 180, 90),
    "EPSG:3995": (-180, 60, 180, 90),
    "EPSG:32661": (-180, 70, 180, 90),  # northing first, pole at (2000000, 2000000)
    "EPSG:5070": (-125, 24, -67, 49),
    "EPSG:3978": (-140, 40, -50, 84),
    "EPSG:6933": (-180, -86, 180, 86),
    "EPSG:3035": (-10, 35, 40, 70),
    "EPSG:2263": (-74.3, 40, -71, 41.5),  # feet
    "EPSG:2053": (28, -35, 30, -22),  # westing and southing
    "EPSG:3832": (140, -80, 250, 80),  # Mercator round longitude 150
    SINUSOIDAL: (-165, -78, 165, 78),
    GEOSTATIONARY: (-130, -60, -20, 60),
}


def footprints(grid: ChipGrid) -> np.ndarray:
    return grid.footprints()


def grid_at(crs: str, left: float, top: float, res: float, shape: tuple[int, int], size: Any, **options: Any) -> ChipGrid:
    return ChipGrid(PixelGrid(crs, (res, 0, left, 0, -res, top), shape), size, **options)


def to_lonlat(crs: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def assert_well_formed(shapes: np.ndarray) -> None:
    assert shapely.is_valid(shapes).all()
    assert np.isin(shapely.get_type_id(shapes), (3, 6)).all()
    lonlat = shapely.get_coordinates(shapes)
    assert np.isfinite(lonlat).all()
    assert (np.abs(lonlat) <= (180, 90)).all()
    parts = shapely.get_parts(shapes)
    assert shapely.is_ccw(shapely.get_exterior_ring(parts[~shapely.is_empty(parts)])).all()


def assert_holds_what_the_chip_holds(grid: ChipGrid, rng: np.random.Generator, margin: float = 0.006) -> None:
    """Points inside a chip lie in its footprint, points outside do not; those within ``margin`` of an edge may do either."""
    transformer = to_lonlat(grid.pixels.crs)
    shapes = footprints(grid)
    assert len(shapes) == len(grid)
    assert_well_formed(shapes)
    for chip, shape in zip(grid, shapes, strict=True):
        left, bottom, right, top = chip.bounds
        part = rng.uniform(-0.5, 1.5, (40, 2))
        lon, lat = transformer.transform(left + part[:, 0] * (right - left), bottom + part[:, 1] * (top - bottom))
        known = np.isfinite(lon) & (np.abs(lat) <= 90)
        outside = np.abs(part - 0.5).max(axis=1) - 0.5
        held = np.zeros(len(part), bool)
        held[known] = shapely.covers(shape, shapely.points((lon[known] + 180) % 360 - 180, lat[known]))
        assert held[known & (outside < -margin)].all()
        assert not held[known & (outside > margin)].any()


@given(
    crs=st.sampled_from(sorted(REGIONS)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    log_length=st.floats(0, 5),
    size=st.integers(1, 300),
    chips=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 2**32),
)
def test_points_of_a_chip_lie_in_its_footprint(
    crs: str, place: tuple[float, float], log_length: float, size: int, chips: tuple[int, int], seed: int
) -> None:
    west, south, east, north = REGIONS[crs]
    lon, lat = west + place[0] * (east - west), south + place[1] * (north - south)
    x, y = to_lonlat(crs).transform((lon + 180) % 360 - 180, lat, direction="INVERSE")
    length = 10**log_length / (111_000 if pyproj.CRS(crs).is_geographic else 1)
    shape = (chips[0] * size, chips[1] * size)
    grid = grid_at(crs, x - chips[1] * length / 2, y + chips[0] * length / 2, length / size, shape, size)
    assert_holds_what_the_chip_holds(grid, np.random.default_rng(seed))


@pytest.mark.parametrize("crs", [crs for crs in REGIONS if crs not in ("EPSG:4326", "EPSG:4269", "EPSG:3857", "EPSG:6933")])
@pytest.mark.parametrize("length", [2_560, 250_000])
def test_the_middle_of_an_edge_is_within_a_hundredth_of_a_chip(crs: str, length: float) -> None:
    west, south, east, north = REGIONS[crs]
    transformer = to_lonlat(crs)
    x, y = transformer.transform((0.4 * west + 0.6 * east + 180) % 360 - 180, 0.3 * south + 0.7 * north, direction="INVERSE")
    grid = grid_at(crs, x, y, length, (2, 2), 1)
    for chip, shape in zip(grid, footprints(grid), strict=True):
        left, bottom, right, top = chip.bounds
        middles = transformer.transform([(left + right) / 2] * 2 + [left, right], [bottom, top] + [(bottom + top) / 2] * 2)
        area = shape.area
        for lon, lat in zip(*middles, strict=True):
            distance = shape.boundary.distance(shapely.Point(lon, lat))
            # Longitudes are longer than latitudes in degrees; a chip's own side in degrees is what counts.
            assert distance < 0.01 * math.sqrt(area)


def test_a_utm_chip_is_its_four_corners() -> None:
    grid = grid_at("EPSG:32720", 499980, 6400000, 10, (700, 900), 256, stride=200, edge="partial")
    transformer = to_lonlat("EPSG:32720")
    for chip, shape in zip(grid, footprints(grid), strict=True):
        left, bottom, right, top = chip.bounds
        lon, lat = transformer.transform([left, right, right, left, left], [bottom, bottom, top, top, bottom])
        assert shapely.get_coordinates(shape).tolist() == np.column_stack([lon, lat]).tolist()


def test_neighbours_share_their_corners_to_the_last_bit() -> None:
    grid = grid_at("EPSG:32633", 399960, 5000000, 10, (512, 768), 256)
    lower_left, lower_right, upper_right, upper_left = (0, 1, 2, 3)
    corners = np.array([shapely.get_coordinates(shape)[:4] for shape in footprints(grid)]).reshape(2, 3, 4, 2)
    assert (corners[:, :-1, lower_right] == corners[:, 1:, lower_left]).all()
    assert (corners[:, :-1, upper_right] == corners[:, 1:, upper_left]).all()
    assert (corners[:-1, :, lower_left] == corners[1:, :, upper_left]).all()
    assert (corners[:-1, :, lower_right] == corners[1:, :, upper_right]).all()


@pytest.mark.parametrize("crs", ["EPSG:32720", "EPSG:3031", "EPSG:4326"])
@pytest.mark.parametrize("options", [{"edge": "partial", "stride": 70}, {"edge": "pad", "anchor": "crs"}, {"edge": "shift"}])
def test_any_edge_and_stride(crs: str, options: dict[str, Any]) -> None:
    left, top, res = (20.0, 40.0, 0.001) if crs == "EPSG:4326" else (499980.0, 1500000.0, 30.0)
    assert_holds_what_the_chip_holds(grid_at(crs, left, top, res, (250, 333), 100, **options), np.random.default_rng(3))


def test_a_large_grid_of_curved_chips_is_one_piece() -> None:
    # Several blocks of chips with different numbers of points.
    grid = grid_at("EPSG:3413", -80 * 1000, 70 * 1000, 1000, (150, 150), 1)
    shapes = footprints(grid)
    assert_well_formed(shapes)
    points = shapely.get_num_coordinates(shapes)
    assert points[0] == 5
    assert points.max() > 30
    lon, lat = to_lonlat("EPSG:3413").transform(*np.random.default_rng(0).uniform(-60_000, 60_000, (2, 300)))
    hits = shapely.STRtree(shapes).query(shapely.points(lon, lat), predicate="covered_by")
    assert 295 <= len(np.unique(hits[0])) <= 300  # but those within a hair of an edge
    assert len(hits[0]) <= 305


@pytest.mark.parametrize("crs", ["EPSG:32720", "EPSG:4326", "EPSG:3031"])
def test_chips_of_one_small_pixel(crs: str) -> None:
    left, top, res = (-63.7, -31.2, 1e-7) if crs == "EPSG:4326" else (612_345.0, 1_234_567.0, 0.01)
    shapes = footprints(grid_at(crs, left, top, res, (20, 20), 1))
    assert_well_formed(shapes)
    assert (shapely.area(shapes) > 0).all()


# The antimeridian


@pytest.mark.parametrize(("crs", "left"), [("EPSG:32601", 166_000.0), ("EPSG:32660", 833_000.0)])
def test_utm_chips_across_the_antimeridian(crs: str, left: float) -> None:
    grid = grid_at(crs, left - 20_480, 20_480.0, 10, (4096, 4096), 1024)
    shapes = footprints(grid)
    crossing = shapely.get_type_id(shapes) == shapely.GeometryType.MULTIPOLYGON
    assert crossing.any()
    assert not crossing.all()
    assert (shapely.area(shapes) < 0.02).all()
    west, _, east, _ = shapely.bounds(shapes[crossing]).T
    assert (west == -180).all()
    assert (east == 180).all()
    assert_holds_what_the_chip_holds(grid, np.random.default_rng(0))


def test_degrees_that_go_on_past_180() -> None:
    grid = grid_at("EPSG:4326", 160, 10, 1, (10, 200), (10, 40), edge="partial")  # 160 to 360, as climate models have it
    expected = [
        "MULTIPOLYGON (((160 0, 180 0, 180 10, 160 10, 160 0)), ((-180 0, -160 0, -160 10, -180 10, -180 0)))",
        "POLYGON ((-160 0, -120 0, -120 10, -160 10, -160 0))",
        "POLYGON ((-120 0, -80 0, -80 10, -120 10, -120 0))",
        "POLYGON ((-80 0, -40 0, -40 10, -80 10, -80 0))",
        "POLYGON ((-40 0, 0 0, 0 10, -40 10, -40 0))",
    ]
    shapes = footprints(grid)
    assert_well_formed(shapes)
    assert shapely.equals_exact(shapes, shapely.from_wkt(expected), normalize=True).all()


@pytest.mark.parametrize(
    ("left", "width", "expected"),
    [
        (-180, 360, [(-180, 180)]),
        (0, 360, [(-180, 0), (0, 180)]),
        (-100, 270, [(-100, 170)]),
        (90, 200, [(-180, -70), (90, 180)]),
        (-180, 370, [(-180, 180)]),  # "pad" may reach round the Earth
        (170, 10, [(170, 180)]),
        (180, 10, [(-180, -170)]),
        (-190, 10, [(170, 180)]),
        (530, 20, [(-180, -170), (170, 180)]),
    ],
)
def test_wide_chips_of_degrees(left: int, width: int, expected: list[tuple[int, int]]) -> None:
    for crs in ("EPSG:4326", "EPSG:4269"):
        (shape,) = footprints(grid_at(crs, left, 45, 1, (90, width), (90, width)))
        assert_well_formed(np.array([shape]))
        held = shapely.union_all([shapely.box(west, -45, east, 45) for west, east in expected])
        assert shape.symmetric_difference(held).area < 1e-6
        lons = shapely.get_coordinates(shape)[:, 0]
        assert (lons.min(), lons.max()) == (expected[0][0], expected[-1][1])


def test_a_world_of_mercator_chips() -> None:
    half = 20037508.342789244
    grid = grid_at("EPSG:3857", -half, half, half / 128, (256, 256), (256, 192), edge="pad")
    west, _, east, _ = shapely.bounds(footprints(grid)).T
    assert west == pytest.approx([-180, -180])
    assert east == pytest.approx([90, 180])  # the second begins at 90 and goes on past 180 to 0
    assert shapely.area(footprints(grid)) == pytest.approx([270 * 2 * 85.0511287798, 270 * 2 * 85.0511287798])


def test_rows_past_the_pole_are_cut() -> None:
    grid = grid_at("EPSG:4326", 0, 90, 0.5, (360, 20), 100, edge="pad")
    bottoms, tops = shapely.bounds(footprints(grid))[:, 1], shapely.bounds(footprints(grid))[:, 3]
    assert bottoms.tolist() == [40, -10, -60, -90]
    assert tops.tolist() == [90, 40, -10, -60]


# The poles

POLAR = {"EPSG:3031": (0, 0), "EPSG:3413": (0, 0), "EPSG:3995": (0, 0), "EPSG:32661": (2e6, 2e6), "EPSG:6931": (0, 0)}


@pytest.mark.parametrize("crs", sorted(POLAR))
@pytest.mark.parametrize(
    "place",
    [
        (0.5, 0.5),
        (0.0, 0.0),
        (0.5, 0.0),
        (0.0, 0.75),
        (0.3, 0.9),
        (1e-3, 0.4),
        (0.25, 0.25),
        (-0.01, 0.6),
        (1e-9, 0.5),
        (0.6, 1.002),
    ],
)
def test_chips_at_a_pole(crs: str, place: tuple[float, float]) -> None:
    x, y = POLAR[crs]
    grid = grid_at(crs, x - place[0] * 20_480, y + place[1] * 20_480, 20, (1024, 1024), 256)
    assert_holds_what_the_chip_holds(grid, np.random.default_rng(1))
    shapes = footprints(grid)
    pole = -90 if crs == "EPSG:3031" else 90
    left, bottom, right, top = (np.array([chip.bounds for chip in grid]) - [x, y, x, y]).T
    holds = (left < 1e-3) & (right > -1e-3) & (bottom < 1e-3) & (top > -1e-3)
    reaches = (shapely.get_coordinates(shapely.boundary(shape))[:, 1] == pole for shape in shapes)
    assert [bool(at.any()) for at in reaches] == holds.tolist()
    inside = (left < -1e-3) & (right > 1e-3) & (bottom < -1e-3) & (top > 1e-3)
    for shape in shapes[inside]:
        assert shape.bounds[0::2] == (-180, 180)


@pytest.mark.parametrize(("crs", "lat"), [("EPSG:6931", 90), ("EPSG:6932", -90)])
def test_areas_at_the_pole_are_those_of_an_equal_area_map(crs: str, lat: int) -> None:
    grid = grid_at(crs, -100_000, 60_000, 1000, (180, 180), 60)
    ellipsoid = pyproj.Geod(ellps="WGS84")
    areas = [
        sum(ellipsoid.geometry_area_perimeter(part)[0] for part in shapely.get_parts(shapely.segmentize(shape, 0.2)))
        for shape in footprints(grid)
    ]
    assert areas == pytest.approx([60_000.0**2] * 9, rel=0.005)
    assert sum(shape.bounds[1 if lat < 0 else 3] == lat for shape in footprints(grid)) == 2


# The limb


def test_a_full_disk_ends_at_the_limb() -> None:
    edge = 5434894.885
    grid = grid_at(GEOSTATIONARY, -edge, edge, edge / 256, (512, 512), 32)
    shapes = footprints(grid)
    assert_well_formed(shapes)
    empty = shapely.is_empty(shapes).reshape(grid.shape)
    assert empty[0, 0]
    assert empty[-1, -1]
    assert not empty[8, 8]
    assert empty.mean() == pytest.approx(1 - math.pi / 4, abs=0.1)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-edge, edge, (2, 4000))
    lon, lat = to_lonlat(GEOSTATIONARY).transform(x, y)
    seen = np.isfinite(lon)
    tree = shapely.STRtree(shapes)
    found = np.unique(tree.query(shapely.points((lon[seen] + 180) % 360 - 180, lat[seen]), predicate="covered_by")[0])
    # The limb is met to a sixteenth of a chip, so about a two-hundredth of the disk's radius may be missing.
    assert len(found) >= 0.985 * seen.sum()


def test_a_whole_disk_in_one_chip() -> None:
    edge = 5434894.885
    shape = outline(PixelGrid(GEOSTATIONARY, (edge / 256, 0, -edge, 0, -edge / 256, edge), (512, 512)))
    assert shape.is_valid
    assert shape.covers(shapely.Point(-75, 0))
    assert shape.covers(shapely.Point(-75 + 55, 20))
    assert not shape.intersects(shapely.Point(105, 0))


def test_modis_tiles_at_the_limb() -> None:
    tile = 1111950.5196666666
    # h10v01 and h11v01: lat 70 to 80; the sinusoidal map is 180 * cos(lat) degrees wide on either side.
    grid = grid_at(SINUSOIDAL, -8 * tile, 8 * tile, tile / 240, (240, 5 * 240), 40)
    shapes = footprints(grid)
    assert_well_formed(shapes)
    (left, right), (bottom, top) = grid.x_bounds, grid.y_bounds
    for chip, shape in zip(grid, shapes, strict=True):
        x0, y0, x1, y1 = chip.bounds
        limb = [-math.pi * 6371007.181 * math.cos(y / 6371007.181) for y in (y0, y1)]
        if x1 < min(limb):
            assert shape.is_empty
        elif x0 > max(limb):
            assert shapely.get_num_coordinates(shape) >= 5
        else:
            # What is on the Earth, by a Riemann sum over the map; the map is equal-area.
            y = np.linspace(y0, y1, 400)
            width = np.clip(x1 + math.pi * 6371007.181 * np.cos(y / 6371007.181), 0, x1 - x0).mean()
            sphere = pyproj.Geod(a=6371007.181, b=6371007.181)
            parts = shapely.get_parts(shapely.segmentize(shape, 0.1))
            area = sum(sphere.geometry_area_perimeter(part)[0] for part in parts)
            assert area == pytest.approx(width * (y1 - y0), abs=(x1 - x0) * (y1 - y0) / 16)
    assert shapely.is_empty(shapes).any()
    assert left.size * bottom.size == len(shapes) == right.size * top.size


def test_a_scene_wholly_off_the_earth() -> None:
    grid = grid_at(SINUSOIDAL, -20_000_000, 10_000_000, 1000, (100, 100), 50)
    assert shapely.is_empty(footprints(grid)).all()
    assert grid.outline().is_empty
    assert outline(grid.pixels).is_empty


# Scenes


@pytest.mark.parametrize(
    "grid",
    [
        grid_at("EPSG:32720", 499980, 6400000, 10, (600, 1000), 256, edge="pad", anchor="crs"),
        grid_at("EPSG:32601", 300000, 7000000, 30, (7000, 7000), 512, edge="pad"),
        grid_at("EPSG:32660", 700000, 7000000, 30, (7000, 7000), 512, edge="pad"),
        grid_at("EPSG:3031", -900_000, 800_000, 1000, (1800, 1800), 256, edge="partial"),
        grid_at("EPSG:3413", 100_000, 800_000, 1000, (700, 800), 100, edge="partial"),
        grid_at("EPSG:4326", -180, 90, 0.5, (360, 720), 100, edge="pad"),
        grid_at("EPSG:4326", 170, 10, 0.01, (600, 2000), 256),
        grid_at("EPSG:3978", -2_000_000, 4_000_000, 5000, (700, 900), 100),
        grid_at(SINUSOIDAL, -8895604.157, 8895604.157, 5559.75, (200, 800), 50),
        grid_at("EPSG:32720", 499980, 6400000, 10, (60, 100), 256),
    ],
    ids=lambda grid: f"{grid.pixels.crs}-{grid.edge}",
)
def test_a_cover_holds_every_footprint(grid: ChipGrid) -> None:
    whole = grid.outline()
    assert_well_formed(np.array([whole]))
    shapes = footprints(grid)
    assert shapely.covers(whole, shapes[~shapely.is_empty(shapes)]).all()
    assert shapely.covers(whole, outline(grid.pixels))
    assert whole.area < 1.3 * shapely.union_all([outline(grid.pixels), outline(grid.extent)]).area


def test_a_grid_without_chips() -> None:
    grid = grid_at("EPSG:32720", 499980, 6400000, 10, (60, 100), 256)
    assert footprints(grid).shape == (0,)
    assert footprints(grid).dtype == object


def test_the_method_is_the_function() -> None:
    grid = grid_at("EPSG:32720", 499980, 6400000, 10, (600, 1000), 256)
    assert (
        grid.footprints() == footprints_of_edges(Rects.of(x_bounds=grid.x_bounds, y_bounds=grid.y_bounds), grid.pixels.crs)
    ).all()


@pytest.mark.parametrize(
    "crs",
    [
        'ENGCRS["site grid",EDATUM["here"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
        "IAU_2015:49900",  # Mars
        "no such CRS",
        "EPSG:999999",
    ],
)
def test_a_crs_without_longitudes_is_refused(crs: str) -> None:
    with pytest.raises(ValueError, match=r"^CRS '.*can't be transformed to longitude and latitude.*warp the scene"):
        footprints(grid_at(crs, 0, 0, 10, (100, 100), 50))


@pytest.mark.parametrize(
    "name",
    ["copdem30_N00E006.tif", "linz_CB07_rgb.tif", "greenland_cog_100m.tif", "naip_m_4112001_sw_10.tif", "rgbn_5m_haiti.tif"],
)
def test_real_rasters_lie_where_gdal_says(shared_data: Path, name: str) -> None:
    with rasterio.open(shared_data / "rasters" / name) as file:
        scene = PixelGrid(file.crs.to_wkt(), tuple(file.transform)[:6], file.shape)
        expected = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds, densify_pts=101)
    west, south, east, north = expected
    size = max(east - west, north - south)
    assert outline(scene).bounds == pytest.approx(expected, abs=0.005 * size)
    shapes = footprints(ChipGrid(scene, 128, edge="partial"))
    assert_well_formed(shapes)
    assert shapely.union_all(shapes).bounds == pytest.approx(expected, abs=0.005 * size)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(0,), (1,), (), (1, 1), (3,), (2, 2)])
def test_arrays_of_any_shape_are_transformed(shape: tuple[int, ...]) -> None:
    transformer = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    x, y = np.random.default_rng(5).uniform([[4e5], [5e6]], [[6e5], [6e6]], (2, math.prod(shape)))
    lon, lat = transformed(transformer, x.reshape(shape), y.reshape(shape))
    assert lon.shape == lat.shape == shape
    plain = np.array([transformer.transform(*point) for point in zip(x.tolist(), y.tolist(), strict=True)]).reshape(-1, 2)
    np.testing.assert_array_equal(np.stack([lon.ravel(), lat.ravel()], 1), plain)
    back = np.stack(transformed(transformer, lon, lat, back=True))
    np.testing.assert_allclose(back.reshape(2, -1), [x, y], atol=1e-6)
