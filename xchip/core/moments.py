"""Count, mean, variance and range of pixels in one pass: each part is summed up on its own, and the moments of parts are merged.

The merge (Chan, Golub and LeVeque, 1983: "Algorithms for computing the sample variance") lets chunks, threads and machines share
the work in any way. A mean is kept as two numbers, the second of which is the rounding error of the first: with a single number,
merged pixel by pixel, the variance is wrong from the eighth digit on where the mean is a billion times the deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import ArrayLike

Array: TypeAlias = "np.ndarray | da.Array"
Axes: TypeAlias = int | tuple[int, ...] | None

PIECE = 1 << 16
"""Number of values that are summed up at once: as float64 they fit in the processor's cache."""

_COUNT, _MEAN, _REST, _SQUARES, _MIN, _MAX = range(6)
_NONE = np.array([0, 0, 0, 0, np.inf, -np.inf])


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean, variance, minimum and maximum of values: of one band or, with arrays, of several.

    Examples
    --------
    >>> whole = moments(np.array([1, 2, 3, 4], "uint8"))
    >>> float(whole.count), float(whole.mean), float(whole.variance), float(whole.min), float(whole.max)
    (4.0, 2.5, 1.25, 1.0, 4.0)
    >>> merged = moments(np.array([1, 2])).merge(moments(np.array([3, 4])))
    >>> bool(merged.mean == whole.mean), bool(merged.variance == whole.variance)
    (True, True)
    """

    packed: Any
    """float64 (6, ...), NumPy or Dask: count, mean, rounding error of the mean, sum of squared deviations, min, max."""

    @property
    def count(self) -> Any:
        """Number of values, exact up to 2**53."""
        return self.packed[_COUNT]

    @property
    def mean(self) -> Any:
        """Mean of the values; NaN without values."""
        return self._where_counted(self.packed[_MEAN] + self.packed[_REST])

    @property
    def variance(self) -> Any:
        """Mean squared deviation from the mean (numpy's default, ``ddof=0``); NaN without values."""
        return self._where_counted(self.packed[_SQUARES] / np.maximum(self.count, 1))

    @property
    def std(self) -> Any:
        """Square root of the variance."""
        return np.sqrt(self.variance)

    @property
    def min(self) -> Any:
        """Smallest value; NaN without values."""
        return self._where_counted(self.packed[_MIN])

    @property
    def max(self) -> Any:
        """Largest value; NaN without values."""
        return self._where_counted(self.packed[_MAX])

    def merge(self, *others: Moments) -> Moments:
        """Return the moments of these and all other values."""
        return Moments(_merged(np.stack([self.packed, *(other.packed for other in others)], axis=-1), (-1,)))

    def _where_counted(self, values: Array) -> Any:
        return np.where(self.count > 0, values, np.nan)


def moments(values: ArrayLike | da.Array, axis: Axes = None, *, valid: ArrayLike | da.Array | None = None) -> Moments:
    """Return the moments of an array along some axes.

    Parameters
    ----------
    values
        Numbers of any real dtype, NumPy or Dask in any chunks. Values that are not finite never count.
    axis
        Axes to reduce; None: all.
    valid
        bool, of a shape that broadcasts to that of ``values``: False where a value does not count.

    Returns
    -------
    Moments
        Arrays over the other axes; lazy if ``values`` is: one task per chunk, whose six numbers are merged in a tree. A task
        needs memory for its chunk and a megabyte.

    Examples
    --------
    >>> red, nir = np.array([[1, 2, 3], [10, 20, 60]], "uint16")
    >>> moments(np.stack([red, nir]), axis=1).mean.tolist()
    [2.0, 30.0]
    >>> import dask.array as da
    >>> moments(da.from_array(nir, chunks=2), valid=nir < 60).mean.compute().item()
    15.0
    """
    axes = _axes(axis, np.ndim(values))
    if not hasattr(values, "dask") and not hasattr(valid, "dask"):
        return Moments(_of_block(np.asarray(values), None if valid is None else np.asarray(valid), axes=axes))
    return Moments(_lazily(values, valid, axes))


def no_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Return the moments of no values, the start of a running merge."""
    return Moments(np.broadcast_to(_NONE.reshape((6,) + (1,) * len(shape)), (6, *shape)).copy())


def _axes(axis: Axes, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    numbers = np.atleast_1d(axis).tolist()
    if any(not -ndim <= number < ndim for number in numbers) or len({number % ndim for number in numbers}) < len(numbers):
        raise ValueError(f"axis must be one or several axes of an array of {ndim} dimensions, each once, got {axis}")
    return tuple(sorted(number % ndim for number in numbers))


def _lazily(values: ArrayLike | da.Array, valid: ArrayLike | da.Array | None, axes: tuple[int, ...]) -> da.Array:
    import dask.array as da

    array = da.asarray(values)
    arrays = [array]
    if valid is not None:
        # With the same chunks, so that each task gets a chunk and its part of the mask.
        arrays = list(da.unify_chunks(*_indexed(array), *_indexed(da.broadcast_to(valid, array.shape)))[1])
    chunks = [(1,) * len(lengths) if axis in axes else lengths for axis, lengths in enumerate(arrays[0].chunks)]
    parts = da.map_blocks(
        _of_block, *arrays, axes=axes, keepdims=True, new_axis=0, chunks=((6,), *chunks), dtype=np.float64,
        meta=np.empty((0,) * (array.ndim + 1)),
    )  # fmt: skip
    if not axes:
        return parts
    return da.reduction(
        parts, chunk=_unchanged, combine=_merged, aggregate=_merged, axis=tuple(axis + 1 for axis in axes), dtype=np.float64,
        meta=np.empty((0,) * (array.ndim + 1 - len(axes))),
    )  # fmt: skip


def _indexed(array: da.Array) -> tuple[da.Array, tuple[int, ...]]:
    return array, tuple(range(array.ndim))


def _unchanged(packed: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    return packed


def _of_block(
    values: np.ndarray, valid: np.ndarray | None = None, *, axes: tuple[int, ...], keepdims: bool = False
) -> np.ndarray:
    """Packed moments of a block along ``axes``: (6, ...)."""
    others = [axis for axis in range(values.ndim) if axis not in axes]
    order, lead = (*others, *axes), tuple(values.shape[axis] for axis in others)
    rows = np.transpose(values, order)
    masks = None if valid is None else np.transpose(np.broadcast_to(valid, values.shape), order)
    packed = np.empty((6, *lead))
    for index in np.ndindex(lead):
        packed[:, *index] = _of_values(rows[index].ravel(), None if masks is None else masks[index].ravel())
    return np.expand_dims(packed, tuple(axis + 1 for axis in axes)) if keepdims else packed


def _of_values(values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Packed moments of a vector, piece by piece."""
    pieces = [
        _of_piece(values[start : start + PIECE], None if valid is None else valid[start : start + PIECE])
        for start in range(0, max(1, len(values)), PIECE)
    ]
    return pieces[0] if len(pieces) == 1 else _merged(np.stack(pieces, axis=-1), (-1,))


def _of_piece(values: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            valid = finite if valid is None else finite & valid
    if valid is not None and not valid.all():
        values = values[valid]
    if not len(values):
        return _NONE
    low, high = values.min(), values.max()
    deviation = values.astype(np.float64)
    mean = deviation.mean()
    deviation -= mean
    rest = deviation.mean()
    deviation -= rest
    # Not a dot product: beside other busy threads, those of the linear algebra library are slower than a single one.
    squares = np.square(deviation, out=deviation).sum()
    return np.array([len(values), mean, rest, squares, low, high], np.float64)


def _merged(packed: np.ndarray, axis: tuple[int, ...], keepdims: bool = False) -> np.ndarray:
    """Merge packed moments (6, ...) along any axes except the first."""
    count, mean, rest, squares, low, high = packed
    inner = tuple(number - 1 if number > 0 else number for number in axis)

    def total(values: np.ndarray) -> np.ndarray:
        return values.sum(axis=inner, keepdims=True)

    n = total(count)
    divisor = np.maximum(n, 1)
    rounded = total(count / divisor * mean)
    # The means of parts are close to each other, so their differences are exact, and so are sums of differences.
    difference = (mean - rounded) + rest
    shift = total(count * difference) / divisor
    spread = total(squares + count * (difference - shift) ** 2)
    out = np.stack([n, rounded, shift, spread, low.min(axis=inner, keepdims=True), high.max(axis=inner, keepdims=True)])
    return out if keepdims else out.squeeze(axis)
