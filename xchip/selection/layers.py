"""Chips and layers of polygons or points: which polygon a chip is in, how much of it, and how far it is from something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.core.lonlat import polygonal
from xchip.selection.inputs import chips_of, layer_shapes, lonlat, shapes_of
from xchip.selection.neighbours import Tree, empty, near
from xchip.selection.sphere import Shapes, chord_of, spans

if TYPE_CHECKING:
    import geopandas

    from xchip.io.storage import StorageOptions

MOST_POINTS = 256
"""Polygons with more points are cut in halves before chips are cut with them."""

AOI_FRACTION = "aoi_fraction"


def around(index: Any, points: Any, km: float, *, storage: StorageOptions | None = None) -> geopandas.GeoDataFrame:
    """The chips near some places.

    Parameters
    ----------
    index
        An index in any form: a path, a GeoDataFrame, a dask-geopandas frame (which is computed), a pyarrow Table.
    points
        A GeoDataFrame, a GeoSeries, or shapely shapes in longitude and latitude; lines and polygons do too.
    km
        A chip is kept if some part of it is within this distance of some point; 0 for chips that hold one.
    storage
        How a path is reached.

    Raises
    ------
    ValueError
        If ``km`` is negative, or ``points`` hold none.

    Examples
    --------
    >>> import shapely, xchip.testing
    >>> index = xchip.testing.synthetic_stack(shape=(600, 1000)).chips.index(256, item_id="scene")
    >>> around(index, shapely.centroid(index.geometry.iloc[0]), km=0).chip_id.tolist()
    ['scene-0-0']
    """
    if not km >= 0:
        raise ValueError(f"km is a distance of 0 or more, got {km!r}")
    frame = chips_of(index, storage=storage)
    places = layer_shapes(points, "points")
    geometry = shapes_of(frame)
    known = np.flatnonzero(~empty(geometry))
    found = np.zeros(len(frame), bool)
    found[known] = near(_tree(geometry[known]), _tree(places), chord_of(km))
    return frame[found]


def inside(
    index: Any, polygons: Any, min_fraction: float = 0.0, *, storage: StorageOptions | None = None
) -> geopandas.GeoDataFrame:
    """The chips in an area, with the part of each that the area covers.

    Parameters
    ----------
    index
        An index in any form.
    polygons
        The area: a GeoDataFrame, a GeoSeries or shapely polygons in longitude and latitude, cut at the antimeridian. They may
        overlap each other.
    min_fraction
        A chip is kept if at least this part of it is in the area, and some of it is: 1 for chips wholly inside.
    storage
        How a path is reached.

    Returns
    -------
    geopandas.GeoDataFrame
        The chips in their order, with a column ``aoi_fraction``: float64 in [0, 1].

    Raises
    ------
    ValueError
        If ``min_fraction`` is not in [0, 1], or there is no polygon.

    Examples
    --------
    >>> import shapely, xchip.testing
    >>> index = xchip.testing.synthetic_stack(shape=(600, 1000)).chips.index(256, item_id="scene")
    >>> west, south, east, north = index.total_bounds
    >>> inside(index, shapely.box(west, south, (west + east) / 2, north)).aoi_fraction.round(1).tolist()
    [1.0, 0.5, 1.0, 0.5]
    """
    if not 0 <= min_fraction <= 1:
        raise ValueError(f"min_fraction is a fraction from 0 to 1, got {min_fraction!r}")
    frame = chips_of(index, storage=storage)
    frame[AOI_FRACTION] = coverage(shapes_of(frame), polygons)
    return frame[(frame[AOI_FRACTION] >= max(min_fraction, 0)) & (frame[AOI_FRACTION] > 0)]


def coverage(geometry: np.ndarray, polygons: Any) -> np.ndarray:
    """The part of each shape that polygons cover, by area on the Earth: float64 (n,) in [0, 1]; 0 for empty shapes.

    Examples
    --------
    >>> import shapely
    >>> coverage(np.array([shapely.box(0, 0, 1, 1)]), [shapely.box(0.5, 0, 2, 2), shapely.box(0.75, 0, 3, 3)]).round(3)
    array([0.5])
    """
    import shapely

    area = shapely.union_all(layer_shapes(polygons, "polygons"))
    pieces = np.array([piece for part in shapely.get_parts(area) for piece in _pieces(part)], object)
    tree = shapely.STRtree(pieces)
    chip, piece = tree.query(geometry, predicate="intersects")
    within = np.zeros(len(geometry), bool)
    whole, _ = tree.query(geometry, predicate="covered_by")
    within[whole] = True
    cut = ~within[chip]
    common = shapely.intersection(geometry[chip[cut]], pieces[piece[cut]])
    covered = np.bincount(chip[cut], areas(common), len(geometry))
    some = np.unique(chip[cut])
    fraction = within.astype(float)
    fraction[some] = np.clip(covered[some] / areas(geometry[some]), 0, 1)
    return fraction


def areas(geometry: np.ndarray) -> np.ndarray:
    """Areas on the unit sphere, of shapes in degrees: longitude times the sine of the latitude keeps areas."""
    import shapely

    flat = shapely.transform(geometry, lambda points: np.stack([np.radians(points[:, 0]), np.sin(np.radians(points[:, 1]))], 1))
    return np.asarray(shapely.area(flat))


def _pieces(part: Any) -> list[Any]:
    """A polygon in pieces of few points: a chip is then cut with what is near it, and not with a whole coast."""
    import shapely

    if shapely.get_num_coordinates(part) <= MOST_POINTS:
        return [part]
    west, south, east, north = part.bounds
    if east - west >= north - south:
        middle = (west + east) / 2
        halves = (shapely.box(west, south, middle, north), shapely.box(middle, south, east, north))
    else:
        middle = (south + north) / 2
        halves = (shapely.box(west, south, east, middle), shapely.box(west, middle, east, north))
    return [
        piece
        for half in halves
        for side in shapely.get_parts(polygonal(shapely.intersection(part, half)))
        for piece in _pieces(side)
    ]


def polygon_at_centre(geometry: np.ndarray, layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """(chip, polygon) positions of all polygons that hold the centre of a chip: int64 (pairs,) each, by chip."""
    import shapely

    west, south, east, north = spans(geometry)
    lon = (west + east) / 2
    points = shapely.points(np.where(lon > 180, lon - 360, lon), (south + north) / 2)
    chip, polygon = shapely.STRtree(lonlat(layer).geometry.to_numpy()).query(points, predicate="intersects")
    order = np.lexsort((polygon, chip))
    return chip[order], polygon[order]


def _tree(geometry: np.ndarray) -> Tree:
    return Tree.of(geometry, Shapes.of(geometry))
