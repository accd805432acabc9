"""Footprints: the outlines of chips in longitude and latitude, for all chips of a grid at once.

The lines of the grid are transformed once and gathered into rings. More work is done only where it is needed: points along curved
edges, a cut at the antimeridian, and single chips near a pole or at the limb of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.lonlat import TINY, Projection, cut, polygons, projection_of, unwrapped
from xchip.core.poles import singular_footprint

if TYPE_CHECKING:
    import shapely

# The points of an edge are doubled until it strays from the chip's true edge by less than this part of a chip.
STRAY = 0.0025
MOST_SEGMENTS = 64
# Chips along each axis of a block; a sample of a block's chips decides whether edges need more points.
BLOCK = 64


@dataclass(frozen=True)
class Rects:
    """Chips as rectangles in the CRS: the edges of a grid's rows (bottom, top) and columns (left, right)."""

    left: np.ndarray
    right: np.ndarray
    bottom: np.ndarray
    top: np.ndarray
    size: tuple[float, float]
    """(height, width) of the largest chip, CRS units."""

    @classmethod
    def of(cls, *, x_bounds: tuple[np.ndarray, np.ndarray], y_bounds: tuple[np.ndarray, np.ndarray]) -> Rects:
        """Return the rectangles between (left, right) of each column and (bottom, top) of each row."""
        (left, right), (bottom, top) = x_bounds, y_bounds
        size = float((top - bottom).max(initial=0)), float((right - left).max(initial=0))
        return cls(left, right, bottom, top, size)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.top), len(self.left)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of all rectangles."""
        return float(self.left.min()), float(self.bottom.min()), float(self.right.max()), float(self.top.max())

    def blocks(self) -> Iterator[tuple[tuple[slice, slice], Rects]]:
        """Yield parts of at most BLOCK x BLOCK chips, with their (rows, columns)."""
        ny, nx = self.shape
        for i in range(0, ny, BLOCK):
            for j in range(0, nx, BLOCK):
                rows, columns = slice(i, i + BLOCK), slice(j, j + BLOCK)
                part = Rects(self.left[columns], self.right[columns], self.bottom[rows], self.top[rows], self.size)
                yield (rows, columns), part


def footprints(rects: Rects, crs: str) -> np.ndarray:
    """Return the outline of every chip in longitude and latitude (EPSG:4326).

    Edges follow the chip's true edges within a quarter of a percent of a chip. A chip that crosses the antimeridian is cut there
    and becomes a MultiPolygon (RFC 7946); a chip that holds a pole reaches latitude 90. A chip that lies off the Earth (at the
    limb of a sinusoidal or geostationary map) is an empty Polygon; a chip that lies partly off the Earth keeps the part on the
    Earth, to about a sixteenth of a chip.

    Returns
    -------
    numpy.ndarray
        Object array of valid shapely Polygons and MultiPolygons, one per chip, row by row (chip_x fastest).
        Longitudes lie in [-180, 180]; exteriors run counterclockwise.

    Raises
    ------
    ValueError
        If the CRS can't be transformed to longitude and latitude: a local or engineering CRS, or a CRS of another planet.

    Examples
    --------
    >>> left, bottom = np.array([179.0, 180.0]), np.array([9.0])
    >>> rects = Rects.of(x_bounds=(left, left + 1), y_bounds=(bottom, bottom + 1))
    >>> [shape.wkt for shape in footprints(rects, "EPSG:4326")]
    ['POLYGON ((179 9, 180 9, 180 10, 179 10, 179 9))', 'POLYGON ((-180 9, -179 9, -179 10, -180 10, -180 9))']
    """
    if not (len(rects.left) and len(rects.top)):
        return np.empty(0, object)
    projection = projection_of(crs)
    shapes = _straight(projection, rects) if projection.turn else _curved(projection, rects)
    return shapes.ravel()


def cover(whole: Rects, crs: str, chips: Callable[[], np.ndarray]) -> shapely.Geometry:
    """Return a shapely geometry that holds the scene and the footprint of every chip.

    Parameters
    ----------
    whole
        One rectangle: the extent of all chips and of the scene.
    crs
        CRS of the rectangles.
    chips
        Returns the footprints of the chips; called only where the outline of the extent does not suffice.
    """
    import shapely

    shape = footprints(whole, crs)[0]
    projection = projection_of(crs)
    if projection.turn is None and _reaches_limb(projection, whole):
        # The limb cells of a whole scene are too coarse to hold those of a chip; a union rounds its corners.
        shape, margin = shapely.union_all([shape, *chips()]), 1000 * TINY
    elif shape.is_empty:
        return shape
    else:
        # These edges stray from the true ones by STRAY of the scene, those of the chips by STRAY of a chip.
        bounds = shapely.bounds(shapely.get_parts(shape))
        width, height = (bounds[:, 2] - bounds[:, 0]).sum(), bounds[:, 3].max() - bounds[:, 1].min()
        margin = 2 * STRAY * max(width, height)
    return cut(shape.buffer(margin, join_style="mitre"))


def _straight(projection: Projection, rects: Rects) -> np.ndarray:
    """Footprints where edges are meridians and parallels: four corners are exact."""
    import shapely

    assert projection.turn is not None
    (x0, degree), limits = projection.turn, projection.y_limits
    bottom, top = (np.clip(y, min(limits), max(limits)) for y in (rects.bottom, rects.top))
    right = np.minimum(rects.right, rects.left + 360 * abs(degree))
    x, at_x = _lines(rects.left, right)
    y, at_y = _lines(bottom, top)
    corners = projection.lonlat(*np.meshgrid(x, y))
    # The transformer wraps longitudes, the map does not; and at a pole, which lies elsewhere on another datum, only the map's
    # longitudes are useful.
    lon = (x - x0) / degree
    shift = (corners[..., 0] - lon + 180) % 360 - 180
    corners[..., 0] = lon + np.where(np.abs(shift) < 0.01, shift, 0)
    for limit, lat in zip(limits, (-90, 90), strict=True):
        corners[y == limit, :, 1] = lat
    iy, ix = np.broadcast_to((top > bottom)[:, None], rects.shape).nonzero()
    rings = _corner_rings(corners, at_x, at_y, iy, ix)
    finite = np.isfinite(rings).all(axis=(1, 2))  # PROJ gives up after some turns round the Earth
    shapes = np.full(rects.shape, shapely.Polygon(), object)
    shapes[iy[finite], ix[finite]] = polygons(rings[finite])
    return shapes


def _curved(projection: Projection, rects: Rects) -> np.ndarray:
    """Footprints under any other projection."""
    import shapely

    shapes = np.full(rects.shape, shapely.Polygon(), object)
    limb = _reaches_limb(projection, rects)
    for place, block in rects.blocks():
        singular = np.zeros(block.shape, bool)
        for pole in projection.poles:
            singular |= _near(block, pole)
        plain = ~singular
        if limb:
            points = _on_earth(projection, block)
            partly, wholly = points.any(axis=-1), points.all(axis=-1)
            singular, plain = partly & (singular | ~wholly), plain & wholly
        part = shapes[place]
        if plain.any():
            iy, ix = plain.nonzero()
            segments = _segments(projection, block, iy, ix)
            for count in np.unique(segments):
                i, j = iy[segments == count], ix[segments == count]
                part[i, j] = polygons(_rings(projection, block, i, j, count))
        for i, j in np.argwhere(singular):
            part[i, j] = singular_footprint(projection, (block.left[j], block.bottom[i], block.right[j], block.top[i]), limb)
    return shapes


_Sides = tuple[np.ndarray, np.ndarray]


def _lines(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, _Sides]:
    """The unique lines of a grid along one axis, and the numbers of the lines that bound each chip (low, high)."""
    lines, positions = np.unique(np.concatenate([low, high]), return_inverse=True)
    return lines, (positions[: len(low)], positions[len(low) :])


def _rings(projection: Projection, rects: Rects, iy: np.ndarray, ix: np.ndarray, segments: int) -> np.ndarray:
    """Closed rings (chip, point, 2) in lon/lat of the chips in rows ``iy`` and columns ``ix``, without jumps in longitude."""
    if segments == 1:
        x, at_x = _lines(rects.left, rects.right)
        y, at_y = _lines(rects.bottom, rects.top)
        rings = _corner_rings(projection.lonlat(*np.meshgrid(x, y)), at_x, at_y, iy, ix)
    else:
        edges = projection.lonlat(*_edge_points(rects, iy, ix, segments))[:, :, :-1]
        rings = np.concatenate([*edges, edges[0][:, :1]], axis=1)
    jump = np.ptp(rings[..., 0], axis=1) > 180
    if jump.any():
        rings[jump, :, 0] = unwrapped(rings[jump, :, 0])
    return rings


def _corner_rings(corners: np.ndarray, columns: _Sides, rows: _Sides, iy: np.ndarray, ix: np.ndarray) -> np.ndarray:
    (left, right), (bottom, top) = columns, rows
    west, east, low, high = left[ix], right[ix], bottom[iy], top[iy]
    around = ((low, west), (low, east), (high, east), (high, west), (low, west))
    return np.stack([corners[at_y, at_x] for at_y, at_x in around], axis=1)


def _edge_points(rects: Rects, iy: np.ndarray, ix: np.ndarray, segments: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y, both (4, chip, segments + 1), along the edges of some chips: bottom, right, top, left, counterclockwise."""
    t = np.arange(segments + 1) / segments
    left, right, bottom, top = (
        np.broadcast_to(side[at][:, None], (len(at), len(t)))
        for side, at in ((rects.left, ix), (rects.right, ix), (rects.bottom, iy), (rects.top, iy))
    )
    across, up = left + t * (right - left), bottom + t * (top - bottom)
    return np.stack([across, right, across[:, ::-1], left]), np.stack([bottom, up, top, up[:, ::-1]])


def _segments(projection: Projection, rects: Rects, iy: np.ndarray, ix: np.ndarray) -> np.ndarray:
    """Number of straight segments that each edge of the chips in rows ``iy`` and columns ``ix`` needs: int (chip,)."""
    segments = np.ones(len(iy), int)
    # A sample: the chips at the corners, those nearest to a pole, and others in between that share no column.
    picks = [(iy + ix).argmin(), (iy + ix).argmax(), (iy - ix).argmin(), (iy - ix).argmax()]
    picks += [np.hypot(rects.left[ix] - x, rects.top[iy] - y).argmin() for x, y in projection.poles]
    spread = (np.arange(12) * 0.6180339887 % 1 * len(iy)).astype(int)
    sample = np.unique(np.concatenate([picks, spread]))
    if (_stray(projection, rects, iy[sample], ix[sample], 1) <= STRAY).all():
        return segments
    curved, count = np.arange(len(iy)), 1
    while curved.size and count < MOST_SEGMENTS:
        curved = curved[_stray(projection, rects, iy[curved], ix[curved], count) > STRAY]
        count *= 2
        segments[curved] = count
    return segments


def _stray(projection: Projection, rects: Rects, iy: np.ndarray, ix: np.ndarray, segments: int) -> np.ndarray:
    """Distance of edges of straight segments from the true edges, in parts of a full chip: float64 (chip,)."""
    x, y = _edge_points(rects, iy, ix, segments)
    back_x, back_y = projection.xy(_middles(projection.lonlat(x, y)))
    height, width = rects.size
    flat = np.abs(back_y[[0, 2]] - y[[0, 2], :, :1]) / height
    steep = np.abs(back_x[[1, 3]] - x[[1, 3], :, :1]) / width
    return np.maximum(flat, steep).max(axis=(0, 2))


def _middles(lonlat: np.ndarray) -> np.ndarray:
    """Middles of the segments between neighbouring points, straight in longitude and latitude."""
    step = np.diff(lonlat, axis=-2)
    step[..., 0] -= 360 * np.round(step[..., 0] / 360)
    return lonlat[..., :-1, :] + step / 2


def _near(rects: Rects, pole: tuple[float, float]) -> np.ndarray:
    """Whether each chip holds a pole or lies within a chip's length of it: bool (chip_y, chip_x)."""
    (height, width), (x, y) = rects.size, pole
    in_x = (rects.left - width <= x) & (x <= rects.right + width)
    in_y = (rects.bottom - height <= y) & (y <= rects.top + height)
    return in_y[:, None] & in_x


def _reaches_limb(projection: Projection, rects: Rects) -> bool:
    """Whether any chip lies off the Earth, by a coarse sample of points."""
    left, bottom, right, top = rects.bounds
    height, width = rects.size
    x, y = np.linspace(left, right, 9), np.linspace(bottom, top, 9)
    for pole_x, pole_y in projection.poles:
        if left - width <= pole_x <= right + width and bottom - height <= pole_y <= top + height:
            # A conic map has a gap from the pole on.
            x = np.append(x, np.clip(pole_x + np.array([-width, 0, width]), left, right))
            y = np.append(y, np.clip(pole_y + np.array([-height, 0, height]), bottom, top))
    across, up = np.meshgrid(x, y)
    return not projection.on_earth(across, up, rects.size).all()


def _on_earth(projection: Projection, rects: Rects) -> np.ndarray:
    """Whether 9 x 9 points of each chip are on the Earth: bool (chip_y, chip_x, 81)."""
    t = np.linspace(0, 1, 9)
    x = rects.left[:, None] + t * (rects.right - rects.left)[:, None]
    y = rects.bottom[:, None] + t * (rects.top - rects.bottom)[:, None]
    across, up = np.meshgrid(x.ravel(), y.ravel())
    points = projection.on_earth(across, up, rects.size).reshape(*y.shape, *x.shape)
    return points.swapaxes(1, 2).reshape(*rects.shape, -1)
