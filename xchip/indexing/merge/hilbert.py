"""Places in the order of a Hilbert curve: rows that are close to each other in it are close on the map."""

from __future__ import annotations

import numpy as np

ORDER = 16
"""Bits of each coordinate: 65,536 x 65,536 cells, 610 m x 305 m at the equator."""

WIDE = 1 << (2 * ORDER)
"""First key of boxes that span more than half of the Earth's longitudes: those of chips over the antimeridian or a pole."""
NOWHERE = 2 * WIDE
"""Key of an empty box."""


def hilbert_keys(x: np.ndarray, y: np.ndarray, *, order: int = ORDER) -> np.ndarray:
    """Positions of cells along the Hilbert curve.

    Parameters
    ----------
    x, y
        Column (to the right) and row (upwards) of each cell: integers in [0, 2 ** order), (n,).
    order
        Bits of a coordinate; at most 32.

    Returns
    -------
    numpy.ndarray
        uint64 (n,) in [0, 4 ** order). Cells that follow each other on the curve are neighbours.

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
        # In the lower quarters the curve is turned: coordinates change places, in the right one both are mirrored too.
        mirror = (right & ~upper & one) * np.uint64((1 << order) - 1)
        swap = (x ^ y) * (upper ^ one)
        x, y = x ^ swap ^ mirror, y ^ swap ^ mirror
    return keys


def bbox_keys(bounds: np.ndarray) -> np.ndarray:
    """Positions of boxes along the curve, by their centres.

    Boxes that span more than half of the Earth, as those of chips over the antimeridian do, come after all others, so that they
    don't lie scattered among rows whose boxes are small; empty ones (NaN) come last.

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
    known = np.isfinite(bounds).all(axis=0)
    xmin, ymin, xmax, ymax = np.where(known, bounds, 0.0)
    wide = xmax - xmin > 180
    centre = np.where(wide, 180.0, (xmin + xmax) / 2)
    keys = hilbert_keys(_cells(centre, 360.0), _cells((ymin + ymax) / 2, 180.0))
    keys[wide] += np.uint64(WIDE)
    keys[~known] = NOWHERE
    return keys


def _cells(degrees: np.ndarray, span: float) -> np.ndarray:
    """Cell of each coordinate, uint64; ``span`` degrees are all cells."""
    return np.clip((degrees / span + 0.5) * (1 << ORDER), 0, (1 << ORDER) - 1).astype(np.uint64)
