"""Aggregate chips into raster cells, so that a map of a million chips is drawn in about a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LONGEST = 600
"""Number of cells along the longer side of the picture: about one per pixel of the screen."""


@dataclass(frozen=True, eq=False)
class DensityGrid:
    """Boxes on square cells. A box covers whole cells, at least one.

    Boxes that share an edge share no cell and leave no gap, unless they are smaller than a cell.
    """

    extent: tuple[float, float, float, float]
    """(left, right, bottom, top) of all cells, in the unit of the boxes."""
    shape: tuple[int, int]
    """(rows, columns) of cells."""
    size: float
    """Width and height of a cell."""
    windows: np.ndarray
    """int64 (4, n): first row, end row, first column and end column of each box, from the upper left."""

    def total(self, weights: np.ndarray | None = None, where: np.ndarray | None = None) -> np.ndarray:
        """Return the sum of the weights of the boxes that cover each cell: float64 ``shape``.

        Parameters
        ----------
        weights
            Weight of each box, finite; default: 1.
        where
            bool (n,): the boxes to count; default: all. ``weights`` then has a value for each of these boxes.
        """
        windows = self.windows if where is None else self.windows[:, where]
        first_row, end_row, first_column, end_column = windows
        ones = np.ones(windows.shape[1]) if weights is None else np.asarray(weights, np.float64)
        height, width = self.shape[0] + 1, self.shape[1] + 1
        # A box adds its weight at its first corner and subtracts it past its edges; cumulative sums spread it over the box.
        steps = np.zeros(height * width)
        for row, column, sign in ((first_row, first_column, 1), (first_row, end_column, -1), (end_row, first_column, -1),
                                  (end_row, end_column, 1)):  # fmt: skip
            steps += np.bincount(row * width + column, sign * ones, height * width)
        spread = steps.reshape(height, width).cumsum(axis=0).cumsum(axis=1)
        return spread[:-1, :-1]

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of the boxes that cover each cell and have a value, NaN without any: float64 ``shape``."""
        values = np.asarray(values, np.float64)
        valid = np.isfinite(values)
        if not valid.any():
            return np.full(self.shape, np.nan)
        values = values[valid]
        middle = values.mean()  # centred at zero, cumulative sums of dates keep their precision
        count = np.rint(self.total(where=valid))
        with np.errstate(divide="ignore", invalid="ignore"):
            means = self.total(values - middle, valid) / count + middle
        return np.where(count > 0, np.clip(means, values.min(), values.max()), np.nan)

    def most(self, codes: np.ndarray, n: int) -> np.ndarray:
        """Return the most frequent code of the boxes that cover each cell, the lowest of a tie: int64 ``shape``, -1 without any.

        Parameters
        ----------
        codes
            int (boxes,), 0 to ``n`` - 1; -1 if missing.
        n
            Number of codes.
        """
        best, most = np.full(self.shape, -1, np.int64), np.zeros(self.shape)
        for code in range(n):
            count = np.rint(self.total(where=codes == code))
            more = count > most
            best[more], most[more] = code, count[more]
        return best


def cells_of(boxes: np.ndarray, longest: int = LONGEST) -> DensityGrid:
    """Cover boxes with square cells, ``longest`` of them along the longer side.

    Parameters
    ----------
    boxes
        float64 (n, 4): left, bottom, right, top; finite, at least one box.

    Examples
    --------
    >>> cells = cells_of(np.array([[0.0, 0.0, 2.0, 2.0], [2.0, 0.0, 4.0, 2.0], [1.0, 0.0, 3.0, 2.0]]), longest=4)
    >>> cells.total().tolist()
    [[1.0, 2.0, 2.0, 1.0], [1.0, 2.0, 2.0, 1.0]]
    >>> cells.mean(np.array([0.0, 1.0, np.nan])).tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
    """
    left, bottom = boxes[:, :2].min(axis=0).tolist()
    right, top = boxes[:, 2:].max(axis=0).tolist()
    size = max(right - left, top - bottom) / longest or 1.0
    height, width = (max(1, int(np.rint(length / size))) for length in (top - bottom, right - left))
    windows = np.empty((4, len(boxes)), np.int64)
    edges = ((top - boxes[:, 3], top - boxes[:, 1], height), (boxes[:, 0] - left, boxes[:, 2] - left, width))
    for axis, (low, high, count) in enumerate(edges):
        first = np.minimum(np.rint(low / size).astype(np.int64), count - 1)
        windows[2 * axis] = first
        windows[2 * axis + 1] = np.clip(np.rint(high / size).astype(np.int64), first + 1, count)
    return DensityGrid((left, left + width * size, top - height * size, top), (height, width), size, windows)


def inner_border(mask: np.ndarray) -> np.ndarray:
    """Return the cells of ``mask`` that touch a cell outside of it, or the picture's border: bool, like ``mask``.

    Examples
    --------
    >>> inner_border(np.ones((3, 4), bool)).astype(int).tolist()
    [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    """
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    border: np.ndarray = mask & ~inside
    return border
