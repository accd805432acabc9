"""`around` and `inside`: choose chips by a layer of points or polygons; overlay chips with polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xchip.core.lonlat import polygonal
from xchip.core.types import IndexLike
from xchip.selection.inputs import Layer, chips_of, layer_shapes, shapes_of
from xchip.selection.neighbours import Tree, empty, near
from xchip.selection.sphere import chord_of, spans

if TYPE_CHECKING:
    import geopandas
    import shapely

    from xchip.io.storage import StorageOptions

MOST_POINTS = 256
"""Polygons with more points are split before chips are intersected with them."""

AOI_FRACTION = "aoi_fraction"


def around(index: IndexLike, points: Layer, km: float, *, storage: StorageOptions | None = None) -> geopandas.GeoDataFrame:
    """Choose the chips near points.

    Parameters
    ----------
    index
        An index in any form: a path, a GeoDataFrame, a dask-geopandas frame (it is computed), a pyarrow Table.
    points
        A GeoDataFrame, a GeoSeries, or shapely shapes in longitude and latitude. Lines and polygons work too.
    km
        Chips within this distance of a point are kept, measured from the chip's nearest part. 0 keeps the chips that contain a
        point.
    storage
        How to reach a path.

    Returns
    -------
    geopandas.GeoDataFrame
        The chips, in the order of the index.

    Raises
    ------
    ValueError
        If ``km`` is negative, or ``points`` is empty.

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
    shapes = layer_shapes(points, "points")
    geometry = shapes_of(frame)
    placed = np.flatnonzero(~empty(geometry))
    keep = np.zeros(len(frame), bool)
    keep[placed] = near(Tree.of(geometry[placed]), Tree.of(shapes), chord_of(km))
    return frame[keep]


def inside(
    index: IndexLike, polygons: Layer, min_fraction: float = 0.0, *, storage: StorageOptions | None = None
) -> geopandas.GeoDataFrame:
    """Choose the chips in an area, with the fraction of each chip that the area covers.

    Parameters
    ----------
    index
        An index in any form.
    polygons
        The area: a GeoDataFrame, a GeoSeries or shapely polygons in longitude and latitude, cut at the antimeridian. They may
        overlap each other.
    min_fraction
        Chips are kept if they intersect the area and at least this fraction of them is inside: 1 for chips entirely inside.
    storage
        How to reach a path.

    Returns
    -------
    geopandas.GeoDataFrame
        The chips, in the order of the index, with a column ``aoi_fraction``: float64 in [0, 1].

    Raises
    ------
    ValueError
        If ``min_fraction`` is not in [0, 1], or ``polygons`` is empty.

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
    return frame[(frame[AOI_FRACTION] >= min_fraction) & (frame[AOI_FRACTION] > 0)]


def coverage(geometry: np.ndarray, polygons: Layer) -> np.ndarray:
    """Return the fraction of each shape that polygons cover, by area on the Earth: float64 (n,) in [0, 1]; 0 for empty shapes.

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
    within[tree.query(geometry, predicate="covered_by")[0]] = True
    cut = ~within[chip]
    chip, piece = chip[cut], piece[cut]
    covered = np.bincount(chip, areas(shapely.intersection(geometry[chip], pieces[piece])), len(geometry))
    partial = np.unique(chip)
    fraction = within.astype(float)
    fraction[partial] = np.clip(covered[partial] / areas(geometry[partial]), 0, 1)
    return fraction


def areas(geometry: np.ndarray) -> np.ndarray:
    """Return areas on the unit sphere, of shapes in degrees."""
    import shapely

    # Longitude and the sine of latitude are the coordinates of an equal-area projection.

    flat = shapely.transform(geometry, lambda points: np.stack([np.radians(points[:, 0]), np.sin(np.radians(points[:, 1]))], 1))
    return np.asarray(shapely.area(flat))


def _pieces(part: shapely.Geometry) -> list[shapely.Geometry]:
    """Split a polygon into pieces of few points, so that a chip is intersected with nearby pieces, not with a whole coast."""
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


def polygon_at_centre(geometry: np.ndarray, layer: geopandas.GeoDataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return (chip, polygon) positions of all polygons that contain the centre of a chip: int64 (pairs,) each, sorted by chip."""
    import shapely

    west, south, east, north = spans(geometry)
    lon = (west + east) / 2
    points = shapely.points(np.where(lon > 180, lon - 360, lon), (south + north) / 2)
    chip, polygon = shapely.STRtree(shapes_of(layer)).query(points, predicate="intersects")
    order = np.lexsort((polygon, chip))
    return chip[order], polygon[order]
