"""Footprints on the sphere: where they reach, boxes round them in space, and a number for each shape.

Distances are angles times `EARTH_KM`; inside, they are chords: straight lines through the unit sphere. An edge of a footprint is
straight in longitude and latitude, as in every GeoParquet file, and never far from its chord.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

EARTH_KM = 6335.439
"""Radius that makes angles between longitudes and latitudes kilometres.

It is the smallest radius of curvature of the WGS 84 ellipsoid (of the meridian at the equator, b² / a), so that no distance is
overstated: the one on the ellipsoid is never smaller, and at most 1 % larger.
"""

PIECE = 200_000
"""Shapes whose corners are in memory at once."""

# splitmix64, the mixer of Steele, Lea and Flood (2014): "Fast splittable pseudorandom number generators".
_STEP, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers that look random and depend on ``numbers`` alone: uint64 of the same shape."""
    with np.errstate(over="ignore"):  # products are meant to wrap
        z = numbers.astype(np.uint64) + _STEP
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def seeded(numbers: np.ndarray, seed: int) -> np.ndarray:
    """`mixed`, of the numbers and a seed of at most 64 bits."""
    return mixed(numbers ^ mixed(np.array([seed % (1 << 64)], np.uint64)))


def unit(numbers: np.ndarray) -> np.ndarray:
    """Random bits uint64 as float64 in [0, 1)."""
    return (numbers >> np.uint64(11)).astype(float) * 2.0**-53


def chord_of(km: float) -> float:
    """Length of the chord below a way over the sphere."""
    return 2 * float(np.sin(min(km / EARTH_KM, np.pi) / 2))


def km_of(chord: Any) -> Any:
    """Length of the way over the sphere above a chord, in kilometres."""
    return 2 * EARTH_KM * np.arcsin(np.clip(np.asarray(chord) / 2, 0, 1))


def on_sphere(lonlat: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 3) of degrees (n, 2)."""
    lon, lat = np.radians(lonlat).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def spans(geometry: np.ndarray) -> np.ndarray:
    """Where footprints reach in longitude and latitude.

    Parameters
    ----------
    geometry
        shapely shapes (n,) in degrees; those that cross the antimeridian are cut there.

    Returns
    -------
    numpy.ndarray
        (west, south, east, north): float64 (4, n), east >= west, beyond 180 where the antimeridian is crossed; NaN for empty
        ones.

    Examples
    --------
    >>> import shapely
    >>> spans(np.array([shapely.union(shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1))])).ravel().tolist()
    [179.0, 0.0, 181.0, 1.0]
    """
    import shapely

    bounds = shapely.bounds(geometry).T
    wide = np.flatnonzero(bounds[2] - bounds[0] > 180)
    if wide.size:
        parts, of = shapely.get_parts(geometry[wide], return_index=True)
        west, _, east, _ = shapely.bounds(parts).T
        turn = np.where(east <= 0, 360, 0)
        lowest, highest = np.full(len(wide), np.inf), np.full(len(wide), -np.inf)
        np.minimum.at(lowest, of, west + turn)
        np.maximum.at(highest, of, east + turn)
        shorter = highest - lowest < (bounds[2] - bounds[0])[wide]
        bounds[0, wide[shorter]], bounds[2, wide[shorter]] = lowest[shorter], highest[shorter]
    return bounds


@dataclass(frozen=True, eq=False)
class Shapes:
    """What neighbours are found by."""

    low: np.ndarray
    """Least x, y and z of each shape on the unit sphere, its inside included: float64 (n, 3); NaN for empty ones."""
    high: np.ndarray
    """Greatest x, y and z."""
    key: np.ndarray
    """Equal for equal shapes, else different but for chances of 2⁻⁶⁴: uint64 (n,)."""

    @classmethod
    def of(cls, geometry: np.ndarray) -> Shapes:
        """Of shapely shapes (n,) in degrees."""
        n = len(geometry)
        shapes = cls(np.full((n, 3), np.nan), np.full((n, 3), np.nan), np.zeros(n, np.uint64))
        for start in range(0, n, PIECE):
            _measure(geometry[start : start + PIECE], shapes, start)
        return shapes


def _measure(geometry: np.ndarray, into: Shapes, start: int) -> None:
    import shapely

    rings, of = _rings(geometry)
    lonlat, ring = shapely.get_coordinates(rings, return_index=True)
    if not len(lonlat):
        return
    at = of[ring]
    first = np.flatnonzero(np.diff(at, prepend=-1))
    rows = start + at[first]
    points = on_sphere(lonlat)
    low, high = np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)
    stray = np.maximum.reduceat(_stray(lonlat, ring), first)
    low, high = _filled(low - stray[:, None], high + stray[:, None])
    into.low[rows], into.high[rows] = low, high
    bits = mixed((lonlat + 0.0).view(np.uint64))  # + 0.0: of -0.0 and 0.0 one
    place = np.arange(len(at)) - np.repeat(first, np.diff(first, append=len(at)))
    with np.errstate(over="ignore"):  # sums are meant to wrap
        into.key[rows] = np.add.reduceat(mixed(bits[:, 0] + mixed(bits[:, 1] + place.astype(np.uint64))), first)


def _rings(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shapes of one line of points each, and which of ``geometry`` they belong to, in order."""
    import shapely

    of = np.arange(len(geometry))
    many = (shapely.get_num_geometries(geometry) > 1) | (shapely.get_num_interior_rings(geometry) > 0)
    if not many.any():
        return geometry, of
    parts, part_of = shapely.get_parts(geometry[many], return_index=True)
    flat = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    rings, ring_of = shapely.get_rings(parts[flat], return_index=True)
    whose = of[many]
    everything = np.concatenate([geometry[~many], parts[~flat], rings])
    owners = np.concatenate([of[~many], whose[part_of[~flat]], whose[part_of[flat]][ring_of]])
    order = np.argsort(owners, kind="stable")
    return everything[order], owners[order]


def _stray(lonlat: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """How far the edge that ends in each point may be from its chord: at most its second derivative / 8."""
    lon, lat = np.radians(lonlat).T
    same = np.diff(ring, prepend=-1) == 0
    across, up = np.abs(np.diff(lon, prepend=0)), np.abs(np.diff(lat, prepend=0))
    # Of either end, the greater sine and the greater cosine; the equator between them has the greatest of all.
    sine = np.maximum(np.abs(np.sin(lat)), np.abs(np.sin(np.roll(lat, 1))))
    cosine = np.minimum(np.maximum(np.cos(lat), np.cos(np.roll(lat, 1))) + up, 1)
    return np.where(same, (up**2 + 2 * up * across * sine + across**2 * cosine) / 8, 0)


def _filled(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes round outlines as boxes round all that is inside: the sphere bulges above them.

    Seen along the direction of the box's centre, each point of the inside has a point of the outline's convex hull below it;
    both lie within the cap that holds the outline, which is as high as half the square of its radius.
    """
    centre = (low + high) / 2
    length = np.sqrt((centre**2).sum(axis=1, keepdims=True))
    centre = centre / np.maximum(length, 1e-12)
    height = (np.maximum(np.abs(high - centre), np.abs(centre - low)) ** 2).sum(axis=1, keepdims=True) / 2
    bulge = np.where((height < 0.5) & (length > 0.5), height, 2.0)  # 2: all of the Earth
    return low - bulge, high + bulge
