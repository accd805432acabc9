"""Chips anywhere on the Earth, and distances between them the slow way, for the tests on splits."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import shapely
from hypothesis import strategies as st

from xchip.core.grid import ChipGrid, PixelGrid

# CRS, and where in it chips begin: across zones, over the antimeridian, at and round the poles.
PLACES = {
    "utm 33": ("EPSG:32633", 490_000, 5_200_000),
    "utm 32, where 33 begins": ("EPSG:32632", 735_000, 5_200_000),
    "utm 33, where 32 ends": ("EPSG:32633", 265_000, 5_200_000),
    "utm 1, antimeridian": ("EPSG:32701", 180_000, 8_200_000),
    "utm 60, antimeridian": ("EPSG:32760", 812_000, 8_200_000),
    "north pole": ("EPSG:3413", -60_000, 60_000),
    "south pole": ("EPSG:3031", -60_000, 60_000),
    "near the north pole, utm": ("EPSG:32633", 480_000, 9_320_000),
    "equator, sinusoidal": ("+proj=sinu +R=6371007.181 +units=m", 1_000_000, 20_000),
}


def chips(
    place: str, *, metres: float, size: tuple[int, int], shift: tuple[float, float] = (0, 0), name: str = "a"
) -> pd.DataFrame:
    """A layer of ``size`` (rows, columns) chips of ``metres``, from a place on."""
    crs, left, top = PLACES[place]
    pixel = metres / 16
    pixels = PixelGrid(crs, (pixel, 0.0, left + shift[0], 0.0, -pixel, top + shift[1]), (16 * size[0], 16 * size[1]))
    shapes = ChipGrid(pixels, 16).footprints()
    ids = [f"{name}-{n}" for n in range(len(shapes))]
    dates = pd.to_datetime(["2024-01-01"] * len(ids), utc=True)
    return geopandas.GeoDataFrame(
        {"chip_id": ids, "item_id": name, "collection": place, "datetime": dates}, geometry=shapes, crs=4326
    )


@st.composite
def layouts(draw: st.DrawFn) -> geopandas.GeoDataFrame:
    """Two or three overlapping layers of chips of different sizes at one place, or at two that meet."""
    name = draw(st.sampled_from(sorted(PLACES)))
    near = {"utm 32, where 33 begins": "utm 33, where 32 ends", "utm 1, antimeridian": "utm 60, antimeridian"}
    layers = []
    for number in range(draw(st.integers(2, 3))):
        place = near.get(name, name) if number == 1 else name
        metres = draw(st.sampled_from([2_560.0, 5_120.0, 9_000.0]))
        shift = draw(st.tuples(st.floats(-40_000, 40_000), st.floats(-40_000, 40_000)))
        layers.append(chips(place, metres=metres, size=(6, 6), shift=shift, name=f"item-{number}"))
    return pd.concat(layers, ignore_index=True)


def points(shapes: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 3) of points along the edges of footprints in degrees: four an edge."""
    found = []
    for ring in shapely.get_rings(shapely.get_parts(shapes)):
        corners = shapely.get_coordinates(ring)
        parts = [corners[:-1] + t * np.diff(corners, axis=0) for t in (0, 0.25, 0.5, 0.75)]
        found.append(np.concatenate(parts))
    lon, lat = np.radians(np.concatenate(found)).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def kilometres(one: np.ndarray, other: np.ndarray) -> float:
    """Distance of two sets of footprints on a sphere of 6371 km: 0 if some touch; else of points on edges, never too small."""
    if not len(one) or not len(other):
        return np.inf
    if shapely.STRtree(one).query(other, predicate="intersects").size:
        return 0.0
    a, b = points(one), points(other)
    least = min(float(np.sqrt(((a[n : n + 1] - b) ** 2).sum(axis=1)).min()) for n in range(len(a)))
    return 2 * 6371.0 * float(np.arcsin(least / 2))
