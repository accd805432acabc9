"""Sort keys along a Hilbert curve: rows with close keys are close on the map.

`geopandas.GeoSeries.hilbert_distance` returns the same codes for cells, but takes geometries: it needs 0.75 microseconds of CPU
time per row instead of 0.12, which adds 6 s to the 66 s of a merge of 10 million rows, and would save 12 lines.
"""

from __future__ import annotations

import numpy as np

ORDER = 16
"""Bits of each coordinate: 65,536 x 65,536 cells of 610 m x 305 m at the equator."""

WIDE = 1 << (2 * ORDER)
"""First key of boxes that span more than 180 degrees of longitude, as those of chips over the antimeridian or a pole do."""
NOWHERE = 2 * WIDE
"""Key of an empty box."""


def hilbert_keys(x: np.ndarray, y: np.ndarray, *, order: int = ORDER) -> np.ndarray:
    """Return the positions of cells along the Hilbert curve.

    Parameters
    ----------
    x, y
        Column (to the right) and row (upwards) of each cell: integers in [0, 2 ** order), (n,).
    order
        Bits of a coordinate, at most 32.

    Returns
    -------
    numpy.ndarray
        uint64 (n,) in [0, 4 ** order). Cells with consecutive positions are neighbours.

    Examples
    --------
    >>> hilbert_keys(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]), order=1)
    array([0, 1, 2, 3], dtype=uint64)
    """
    x, y = x.astype(np.uint64), y.astype(np.uint64)
    keys = np.zeros(len(x), np.uint64)
    one = np.uint64(1)
    for bit in range(order - 1, -1, -1):
        right, upper = (x >> np.uint64(bit)) & one, (y >> np.uint64(bit)) & one
        keys = (keys << np.uint64(2)) | ((right * np.uint64(3)) ^ upper)
        # The curve is turned in the lower quarters: the coordinates are swapped, and mirrored too in the right one.
        mirror = (right & ~upper & one) * np.uint64((1 << order) - 1)
        swap = (x ^ y) * (upper ^ one)
        x, y = x ^ swap ^ mirror, y ^ swap ^ mirror
    return keys


def bbox_keys(bounds: np.ndarray) -> np.ndarray:
    """Return the sort keys of boxes: the positions of their centres along the curve.

    Boxes wider than 180 degrees, as those of chips over the antimeridian are, come after all others, so that they are not
    scattered among rows with small boxes. Empty boxes (NaN) come last.

    Parameters
    ----------
    bounds
        (xmin, ymin, xmax, ymax) in degrees of longitude and latitude: float64 (4, n).

    Returns
    -------
    numpy.ndarray
        uint64 (n,).

    Examples
    --------
    >>> rio, kyoto, suva = [-43.3, -23.0, -43.2, -22.9], [135.7, 35.0, 135.8, 35.1], [-180.0, -18.2, 180.0, -18.1]
    >>> bbox_keys(np.array([rio, kyoto, suva]).T) // WIDE
    array([0, 0, 1], dtype=uint64)
    """
    valid = np.isfinite(bounds).all(axis=0)
    xmin, ymin, xmax, ymax = np.where(valid, bounds, 0.0)
    wide = xmax - xmin > 180
    centre = np.where(wide, 180.0, (xmin + xmax) / 2)
    keys = hilbert_keys(_cells(centre, 360.0), _cells((ymin + ymax) / 2, 180.0))
    keys[wide] += np.uint64(WIDE)
    keys[~valid] = NOWHERE
    return keys


def _cells(degrees: np.ndarray, span: float) -> np.ndarray:
    """Return the cell of each coordinate, uint64; all cells together span ``span`` degrees."""
    return np.clip((degrees / span + 0.5) * (1 << ORDER), 0, (1 << ORDER) - 1).astype(np.uint64)
