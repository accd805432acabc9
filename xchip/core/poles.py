"""Footprints of single chips near a pole or partly off the Earth, where transforms of whole arrays are wrong."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.lonlat import TINY, Projection, polygonal, polygons, unwrapped

if TYPE_CHECKING:
    import shapely

# A chip that is partly off the Earth is cut into this many cells along each axis; those on the Earth are kept.
LIMB_CELLS = 32
# Near a pole: degrees of longitude from point to point, and how often a segment is halved at most to get there.
LON_STEP = 5.0
MOST_HALVINGS = 30


def singular_footprint(projection: Projection, bounds: tuple[float, float, float, float], limb: bool) -> shapely.Geometry:
    """Return the footprint of one chip that is near a pole or, if ``limb``, partly off the Earth."""
    import shapely

    left, bottom, right, top = bounds
    xs, ys = [left, right], [bottom, top]
    near_x, near_y = 1e-6 * (right - left), 1e-6 * (top - bottom)
    for x, y in projection.poles:
        if left - near_x <= x <= right + near_x and bottom - near_y <= y <= top + near_y:
            # Cut there, so that the pole is a corner of each piece.
            xs = [*(value for value in xs if abs(value - x) > near_x), x]
            ys = [*(value for value in ys if abs(value - y) > near_y), y]
    xs, ys = sorted(xs), sorted(ys)
    pieces: list[shapely.Geometry] = []
    for low, high in itertools.pairwise(ys):
        for west, east in itertools.pairwise(xs):
            rings = _limb_rings(projection, (west, low, east, high), (top - bottom, right - left)) if limb else None
            if rings is None:
                piece = shapely.segmentize(shapely.box(west, low, east, high), max(right - left, top - bottom) / 8)
                rings = [shapely.get_coordinates(piece)]
            pieces += [_singular_polygon(projection, ring) for ring in rings]
    # The grid of TINY degrees makes pieces meet without slits where one was unwrapped by a turn.
    merged = shapely.union_all(pieces, grid_size=TINY) if len(pieces) > 1 else pieces[0] if pieces else shapely.Polygon()
    return shapely.orient_polygons(polygonal(merged))


def _limb_rings(
    projection: Projection, bounds: tuple[float, float, float, float], size: tuple[float, float]
) -> list[np.ndarray] | None:
    """Closed rings round the cells of a rectangle that lie on the Earth; None if all cells do."""
    import shapely

    left, bottom, right, top = bounds
    x, y = np.linspace(left, right, LIMB_CELLS + 1), np.linspace(bottom, top, LIMB_CELLS + 1)
    across, up = np.meshgrid(x, y)
    corners = projection.on_earth(across, up, size)
    cells = corners[:-1, :-1] & corners[:-1, 1:] & corners[1:, :-1] & corners[1:, 1:]
    if cells.all():
        return None
    i, j = cells.nonzero()
    union = shapely.coverage_union_all(shapely.box(x[j], y[i], x[j + 1], y[i + 1]))
    parts = shapely.get_parts(shapely.segmentize(union, max(x[1] - x[0], y[1] - y[0])))
    return [shapely.get_coordinates(ring) for ring in shapely.get_exterior_ring(parts)]


def _singular_polygon(projection: Projection, ring: np.ndarray) -> shapely.Geometry:
    """Polygon of a closed ring (point, 2) in the CRS; points may be poles."""
    import shapely

    points, pole = _lonlat_in_small_steps(projection, ring)
    if len(points) < 3:
        return shapely.Polygon()
    if pole.any():
        points, pole = np.roll(points, -pole.argmax(), axis=0), np.roll(pole, -pole.argmax())
        # A pole has no longitude: it becomes two points with the longitudes of its neighbours. The ring begins between them.
        index = np.repeat(np.arange(len(points)), 1 + pole)
        second = np.append(False, index[1:] == index[:-1])
        lon = np.where(pole[index], points[np.where(second, index + 1, index - 1) % len(points), 0], points[index, 0])
        points = np.roll(np.column_stack([lon, points[index, 1]]), -1, axis=0)
    points[:, 0] = unwrapped(points[:, 0])
    return polygons(np.vstack([points, points[:1]])[None])[0]


def _lonlat_in_small_steps(projection: Projection, ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(longitudes and latitudes (point, 2) of a closed ring in the CRS, without its last point; whether each is a pole).

    Segments are halved until none spans more than LON_STEP: near a pole a chip's edge sweeps half the globe.
    """
    for _ in range(MOST_HALVINGS):
        points = projection.lonlat(ring[:, 0], ring[:, 1])
        pole = 90 - np.abs(points[:, 1]) < TINY
        step = np.diff(points[:, 0])
        wide = np.abs(step - 360 * np.round(step / 360)) > LON_STEP
        index = np.flatnonzero(wide & ~pole[1:] & ~pole[:-1])
        if not index.size:
            break
        ring = np.insert(ring, index + 1, (ring[index] + ring[index + 1]) / 2, axis=0)
    finite = np.isfinite(points[:-1]).all(axis=1)
    return points[:-1][finite], pole[:-1][finite]
