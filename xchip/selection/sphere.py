"""Footprints on the sphere: extents, bounding boxes in space, and a hash of each shape.

Distances are angles times `EARTH_KM`. Internally they are chords: straight lines through the unit sphere. An edge of a footprint
is straight in longitude and latitude, as in every GeoParquet file, and never far from its chord.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EARTH_KM = 6335.439
"""Radius that converts angles into kilometres.

It is the smallest radius of curvature of the WGS 84 ellipsoid (of the meridian at the equator, b² / a). Distances are therefore
never overstated: the distance on the ellipsoid is equal or larger, by at most 1 %.
"""

PIECE = 200_000
"""Number of shapes whose corners are in memory at once."""

# splitmix64, the mixer of Steele, Lea and Flood (2014): "Fast splittable pseudorandom number generators".
_STEP, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Return pseudorandom numbers that depend on ``numbers`` alone: uint64 of the same shape."""
    with np.errstate(over="ignore"):  # products wrap on purpose
        z = numbers.astype(np.uint64) + _STEP
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def seeded(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Return `mixed` of the numbers and a seed of at most 64 bits."""
    return mixed(numbers ^ mixed(np.array([seed % (1 << 64)], np.uint64)))


def unit(numbers: np.ndarray) -> np.ndarray:
    """Convert random bits (uint64) to float64 in [0, 1)."""
    return (numbers >> np.uint64(11)).astype(float) * 2.0**-53


def chord_of(km: float) -> float:
    """Convert a distance on the sphere to a chord."""
    return 2 * float(np.sin(min(km / EARTH_KM, np.pi) / 2))


def km_of(chord: float | np.ndarray) -> np.ndarray:
    """Convert chords to distances on the sphere, in kilometres."""
    return 2 * EARTH_KM * np.arcsin(np.clip(np.asarray(chord) / 2, 0, 1))


def on_sphere(lonlat: np.ndarray) -> np.ndarray:
    """Convert (longitude, latitude) in degrees, (n, 2), to unit vectors (n, 3)."""
    lon, lat = np.radians(lonlat).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def spans(geometry: np.ndarray) -> np.ndarray:
    """Return the extent of footprints in longitude and latitude.

    Parameters
    ----------
    geometry
        shapely shapes (n,) in degrees, cut at the antimeridian where they cross it.

    Returns
    -------
    numpy.ndarray
        (west, south, east, north): float64 (4, n), east >= west, above 180 if the shape crosses the antimeridian; NaN for empty
        shapes.

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
        parts, owner = shapely.get_parts(geometry[wide], return_index=True)
        west, _, east, _ = shapely.bounds(parts).T
        turn = np.where(east <= 0, 360, 0)
        lowest, highest = np.full(len(wide), np.inf), np.full(len(wide), -np.inf)
        np.minimum.at(lowest, owner, west + turn)
        np.maximum.at(highest, owner, east + turn)
        shorter = highest - lowest < (bounds[2] - bounds[0])[wide]
        bounds[0, wide[shorter]], bounds[2, wide[shorter]] = lowest[shorter], highest[shorter]
    return bounds


@dataclass(frozen=True, eq=False)
class Shapes:
    """Bounding boxes in space, and hashes, of shapes."""

    low: np.ndarray
    """Smallest x, y and z of each shape on the unit sphere, including its interior: float64 (n, 3); NaN for empty shapes."""
    high: np.ndarray
    """Largest x, y and z."""
    key: np.ndarray
    """Hash of each shape: uint64 (n,). Two different shapes collide with probability 2⁻⁶⁴."""

    @classmethod
    def of(cls, geometry: np.ndarray) -> Shapes:
        """Measure shapely shapes (n,) in degrees."""
        n = len(geometry)
        shapes = cls(np.full((n, 3), np.nan), np.full((n, 3), np.nan), np.zeros(n, np.uint64))
        for start in range(0, n, PIECE):
            _measure(geometry[start : start + PIECE], shapes, start)
        return shapes

    def take(self, rows: np.ndarray) -> Shapes:
        """Select rows."""
        return Shapes(self.low[rows], self.high[rows], self.key[rows])


def _measure(geometry: np.ndarray, shapes: Shapes, start: int) -> None:
    """Fill ``shapes`` from row ``start`` on."""
    import shapely

    rings, ring_owner = _rings(geometry)
    lonlat, ring = shapely.get_coordinates(rings, return_index=True)
    if not len(lonlat):
        return
    owner = ring_owner[ring]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    rows = start + owner[first]
    points = on_sphere(lonlat)
    low, high = np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)
    sagitta = np.maximum.reduceat(_sagittas(lonlat, ring), first)
    shapes.low[rows], shapes.high[rows] = _with_interior(low - sagitta[:, None], high + sagitta[:, None])
    bits = mixed((lonlat + 0.0).view(np.uint64))  # + 0.0 turns -0.0 into 0.0
    number = np.arange(len(owner)) - np.repeat(first, np.diff(first, append=len(owner)))
    with np.errstate(over="ignore"):  # sums wrap on purpose
        shapes.key[rows] = np.add.reduceat(mixed(bits[:, 0] + mixed(bits[:, 1] + number.astype(np.uint64))), first)


def _rings(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (shapes of a single sequence of points, position in ``geometry`` of each), sorted by position."""
    import shapely

    position = np.arange(len(geometry))
    several = (shapely.get_num_geometries(geometry) > 1) | (shapely.get_num_interior_rings(geometry) > 0)
    if not several.any():
        return geometry, position
    parts, part_owner = shapely.get_parts(geometry[several], return_index=True)
    polygon = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    rings, ring_part = shapely.get_rings(parts[polygon], return_index=True)
    part_position = position[several][part_owner]
    sequences = np.concatenate([geometry[~several], parts[~polygon], rings])
    owner = np.concatenate([position[~several], part_position[~polygon], part_position[polygon][ring_part]])
    order = np.argsort(owner, kind="stable")
    return sequences[order], owner[order]


def _sagittas(lonlat: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Bound the distance between the edge that ends in each point and its chord: the second derivative / 8."""
    lon, lat = np.radians(lonlat).T
    same = np.diff(ring, prepend=-1) == 0
    across, up = np.abs(np.diff(lon, prepend=0)), np.abs(np.diff(lat, prepend=0))
    # The larger sine and cosine of the two ends. An edge across the equator has the largest cosine there: `+ up` covers it.
    sine = np.maximum(np.abs(np.sin(lat)), np.abs(np.sin(np.roll(lat, 1))))
    cosine = np.minimum(np.maximum(np.cos(lat), np.cos(np.roll(lat, 1))) + up, 1)
    return np.where(same, (up**2 + 2 * up * across * sine + across**2 * cosine) / 8, 0)


def _with_interior(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extend boxes around outlines to boxes around the interiors, above which the sphere bulges.

    Seen along the direction of the box's centre, each interior point has a point of the outline's convex hull below it. Both lie
    within the cap that contains the outline, whose height is half the square of its radius.
    """
    centre = (low + high) / 2
    length = np.sqrt((centre**2).sum(axis=1, keepdims=True))
    centre = centre / np.maximum(length, 1e-12)
    height = (np.maximum(np.abs(high - centre), np.abs(centre - low)) ** 2).sum(axis=1, keepdims=True) / 2
    bulge = np.where((height < 0.5) & (length > 0.5), height, 2.0)  # 2: the whole Earth
    return low - bulge, high + bulge
