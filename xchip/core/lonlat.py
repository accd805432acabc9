"""Transform to longitude and latitude: points on the Earth, poles, and shapes cut at longitude 180."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    import geopandas
    import pyproj
    import shapely
    from numpy.typing import ArrayLike

    Layer = TypeVar("Layer", geopandas.GeoDataFrame, geopandas.GeoSeries)

# A point is off the Earth if the way to longitude and latitude and back misses it by more than this part of a chip.
RETURN = 0.01
# The same in CRS units, for tiny chips: far from a map's centre PROJ's series are off by some centimetres.
RETURN_UNITS = 0.1
# Degrees: a tenth of a millimetre. Longitudes this close to the antimeridian are on it, latitudes this close to 90 are a pole.
TINY = 1e-9


def transformed(
    transformer: pyproj.Transformer, x: np.ndarray, y: np.ndarray, *, back: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Transform points with pyproj, ``back`` for the inverse: arrays of the same shape, infinite where no point exists."""
    from pyproj.enums import TransformDirection

    direction = TransformDirection.INVERSE if back else TransformDirection.FORWARD
    if x.size != 1:
        return transformer.transform(x, y, direction=direction)
    # pyproj turns an array of one number into a scalar, and NumPy before 2.4 warns about it.
    point = transformer.transform(x.item(), y.item(), direction=direction)
    return np.full(x.shape, point[0]), np.full(x.shape, point[1])


@dataclass(frozen=True, eq=False)
class Projection:
    """A CRS with its transformers and poles, for footprints."""

    transformer: pyproj.Transformer
    """From the CRS (x, y) to EPSG:4326 (lon, lat)."""
    unprojection: pyproj.Transformer
    """From the CRS to longitude and latitude on its own datum: there and back without a datum shift."""
    identity: bool
    """Whether x and y are the longitude and latitude of EPSG:4326."""
    turn: tuple[float, float] | None
    """(x of longitude 0, CRS units per degree) if x depends on longitude alone: geographic and cylindrical CRSs; else None."""
    y_limits: tuple[float, float]
    """y of the south and the north pole in such a CRS, infinite where the map has no end."""
    poles: tuple[tuple[float, float], ...]
    """(x, y) of each pole that is a point of the map."""

    def lonlat(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return longitudes and latitudes: float64 (..., 2), NaN off the Earth."""
        lonlat = np.stack((x, y) if self.identity else transformed(self.transformer, x, y), axis=-1)
        lonlat[~np.isfinite(lonlat)] = np.nan
        return lonlat

    def xy(self, lonlat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of ``lonlat`` (..., 2); NaN where the CRS has no such point."""
        x, y = transformed(self.transformer, lonlat[..., 0], lonlat[..., 1], back=True)
        missing = ~(np.isfinite(x) & np.isfinite(y))
        return np.where(missing, np.nan, x), np.where(missing, np.nan, y)

    def on_earth(self, x: np.ndarray, y: np.ndarray, size: tuple[float, float]) -> np.ndarray:
        """Return whether each point is on the Earth. PROJ wraps some points past the limb, so the way back decides."""
        back_x, back_y = transformed(self.unprojection, *transformed(self.unprojection, x, y), back=True)
        with np.errstate(invalid="ignore"):  # infinite: no such point
            off_x = np.abs(back_x - x) > max(RETURN * size[1], RETURN_UNITS)
            off_y = np.abs(back_y - y) > max(RETURN * size[0], RETURN_UNITS)
            return np.isfinite(back_x) & np.isfinite(back_y) & ~off_x & ~off_y


@lru_cache(maxsize=128)
def projection_of(crs: str) -> Projection:
    """Return the `Projection` of a CRS, any text that pyproj reads.

    Raises
    ------
    ValueError
        If it can't be transformed to EPSG:4326: a local or engineering CRS, a CRS of another planet, or not a CRS.
    """
    import pyproj

    try:
        source = pyproj.CRS.from_user_input(crs)
        transformer = pyproj.Transformer.from_crs(source, "EPSG:4326", always_xy=True)
        unprojection = pyproj.Transformer.from_crs(source, source.geodetic_crs, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        name = crs if len(crs) < 60 else f"{crs[:60]}..."
        raise ValueError(
            f"CRS {name!r} can't be transformed to longitude and latitude, so chips have no footprints ({error}); "
            "warp the scene to a CRS of the Earth"
        ) from error

    def forward(lon: ArrayLike, lat: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        return transformed(transformer, np.asarray(lon, float), np.asarray(lat, float), back=True)

    identity = source.to_authority() == ("EPSG", "4326")
    return Projection(transformer, unprojection, identity, _turn(forward), *_poles(forward))


Forward: TypeAlias = "Callable[[ArrayLike, ArrayLike], tuple[np.ndarray, np.ndarray]]"


def _turn(forward: Forward) -> tuple[float, float] | None:
    lon, lat = np.meshgrid([0.0, 1.0, 2.0], [-60.0, 0.0, 60.0])
    x, _ = forward(lon, lat)
    if not np.isfinite(x).all():
        return None
    # The map may end between two of the longitudes, but not between both pairs.
    first, second = x[1, 1] - x[1, 0], x[1, 2] - x[1, 1]
    degree = float(first if abs(first) < abs(second) else second)
    # In a geographic CRS on another datum, x depends on latitude too, by less than a thousandth of a degree.
    return (float(x[1, 1]) - degree, degree) if np.ptp(x, axis=0).max() < 0.01 * abs(degree) else None


def _poles(forward: Forward) -> tuple[tuple[float, float], tuple[tuple[float, float], ...]]:
    limits, points = [], []
    for lat in (-90.0, 90.0):
        x, y = forward([0.0, 90.0, 180.0, -90.0], [lat] * 4)
        limits.append(float(y[0]) if np.isfinite(y[0]) else math.copysign(math.inf, lat))
        # A pole is a point if all meridians end in it; in cylindrical and most conic maps it is a line.
        if np.isfinite(x).all() and np.ptp(x) < 1 and np.ptp(y) < 1:
            points.append((float(x[0]), float(y[0])))
    return (limits[0], limits[1]), tuple(points)


def unwrapped(lon: np.ndarray) -> np.ndarray:
    """Return longitudes (..., point) without jumps from point to point; only whole turns change, so that rings close."""
    turns = np.cumsum(np.round(np.diff(lon) / 360), axis=-1)
    lon = lon.copy()
    lon[..., 1:] -= 360 * turns
    return lon


def polygons(rings: np.ndarray) -> np.ndarray:
    """Return valid polygons of closed rings (ring, point, 2) whose longitudes have no jumps, cut at the antimeridian."""
    import shapely

    # Relative to the first corner: large coordinates would round away the areas of tiny chips.
    dx, dy = np.moveaxis(rings[:, 1:] - rings[:, :1], -1, 0)
    clockwise = (dx[:, :-1] * dy[:, 1:] - dx[:, 1:] * dy[:, :-1]).sum(axis=1) < 0
    if clockwise.any():
        rings = np.where(clockwise[:, None, None], rings[:, ::-1], rings)
    lon = rings[..., 0]
    if lon.size and np.abs(lon).max() > 179.999:
        antimeridian = 360 * np.round(lon / 360 - 0.5) + 180
        lon = np.where(np.abs(lon - antimeridian) < TINY, antimeridian, lon)
        lon = lon - 360 * np.floor((lon.min(axis=1, keepdims=True) + 180) / 360)
        rings = np.stack([lon, rings[..., 1]], axis=-1)
    shapes = shapely.polygons(rings)
    if rings.shape[1] > 5 or (rings.size and np.abs(rings[..., 1]).max() > 89.9):
        # Chords close to a pole may cross.
        crossed = ~shapely.is_valid(shapes)
        repaired = shapely.make_valid(shapes[crossed], method="structure", keep_collapsed=False)
        shapes[crossed] = shapely.orient_polygons(repaired)
    crossing = lon.max(axis=1) > 180
    if crossing.any():
        shapes[crossing] = [cut(shape) for shape in shapes[crossing]]
    return shapes


def cut(shape: shapely.Geometry) -> shapely.Geometry:
    """Return ``shape``, which may have any longitudes, as parts in [-180, 180] (RFC 7946, 3.1.9)."""
    import shapely

    if shape.is_empty:
        return shape
    west, _, east, _ = shape.bounds
    parts = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east - 180) / 360) + 1):
        middle = 360 * turn
        part = shapely.intersection(shape, shapely.box(middle - 180, -90, middle + 180, 90), grid_size=TINY)
        parts.append(shapely.transform(part, lambda points, middle=middle: _turned(points, middle)))
    whole = shapely.union_all(parts)
    return whole if shapely.get_dimensions(shape) < 2 else shapely.orient_polygons(polygonal(whole))


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    return np.column_stack([np.clip(points[:, 0] - degrees, -180, 180), points[:, 1]])


def polygonal(shape: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of a shape: one Polygon, or a MultiPolygon. Lines and points that result from a cut are dropped."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shape))
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(list(parts))


def in_degrees(layer: Layer) -> Layer:
    """Return a GeoDataFrame or GeoSeries in longitude and latitude; a layer without a CRS is assumed to be so already.

    Shapes that cross the antimeridian, on their own map or by longitudes beyond 180, are cut there (RFC 7946, 3.1.9).
    """
    import geopandas
    import shapely

    crs = layer.crs
    degrees = layer if crs is None or crs.to_epsg() == 4326 else layer.to_crs("EPSG:4326")
    shapes = degrees.geometry.to_numpy().copy()
    if crs is not None and not crs.is_geographic:
        west, _, east, _ = shapely.bounds(shapes).T
        torn = np.flatnonzero(east - west > 180)  # or really so wide
        left, bottom, right, top = shapely.bounds(layer.geometry.to_numpy()[torn]).T
        middles = geopandas.GeoSeries(shapely.points((left + right) / 2, (bottom + top) / 2), crs=crs).to_crs("EPSG:4326")
        for number, middle in zip(torn, middles.x, strict=True):
            shapes[number] = shapely.transform(shapes[number], partial(_around, middle))
    west, _, east, _ = shapely.bounds(shapes).T
    beyond = np.flatnonzero(((west < -180 - TINY) | (east > 180 + TINY)) & np.isfinite(east - west))
    if not len(beyond):
        return degrees
    for number in beyond:
        shapes[number] = cut(shapes[number])
    series = geopandas.GeoSeries(shapes, index=degrees.index, crs=degrees.crs)
    return degrees.set_geometry(series) if isinstance(degrees, geopandas.GeoDataFrame) else series


def _around(middle: float, points: np.ndarray) -> np.ndarray:
    """Longitudes within half a turn of a middle."""
    return np.column_stack([points[:, 0] - 360 * np.round((points[:, 0] - middle) / 360), points[:, 1]])


def centre_of(shape: shapely.Geometry) -> shapely.Point:
    """Return the centroid of a shape in longitude and latitude, also if the shape is cut at the antimeridian.

    Examples
    --------
    >>> import shapely
    >>> centre_of(shapely.MultiPolygon([shapely.box(178, 0, 180, 1), shapely.box(-180, 0, -179, 1)])).wkt
    'POINT (179.5 0.5)'
    """
    import shapely

    west, _, east, _ = shape.bounds
    if east - west <= 180:
        return shape.centroid
    joined = shapely.GeometryCollection([_moved(part, 360) if part.bounds[2] <= 0 else part for part in shapely.get_parts(shape)])
    left, _, right, _ = joined.bounds
    if right - left >= east - west:
        return shape.centroid
    centre = joined.centroid
    return _moved(centre, -360) if centre.x > 180 else centre


def _moved(shape: shapely.Geometry, degrees: float) -> shapely.Geometry:
    import shapely

    return shapely.transform(shape, lambda points: points + np.array([degrees, 0]))
