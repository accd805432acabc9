"""Count, mean, variance and range of pixels in one pass: parts are summed up where they lie, and their moments merged.

Moments of two parts merge into those of both (Chan, Golub and LeVeque, 1983: "Algorithms for computing the sample variance"), so
chunks, threads and machines may share the work in any way. A mean is kept as two numbers, the second of which is what rounding
took from the first; so it makes no difference how the pixels were split, also where the mean is a billion times the deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PIECE = 1 << 16
"""Values that are summed up at once: as float64 they stay in the processor's cache."""

_COUNT, _MEAN, _REST, _SQUARES, _MIN, _MAX = range(6)
_NONE = np.array([0, 0, 0, 0, np.inf, -np.inf])


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known of values that were seen; of one band or, with arrays, of several.

    Examples
    --------
    >>> found = moments(np.array([1, 2, 3, 4], "uint8"))
    >>> float(found.count), float(found.mean), float(found.variance), float(found.min), float(found.max)
    (4.0, 2.5, 1.25, 1.0, 4.0)
    >>> merged = moments(np.array([1, 2])).merge(moments(np.array([3, 4])))
    >>> bool(merged.mean == found.mean), bool(merged.variance == found.variance)
    (True, True)
    """

    packed: Any
    """float64 (6, ...), NumPy or Dask: count, mean, what the mean was rounded by, sum of squared deviations, min, max."""

    @property
    def count(self) -> Any:
        """How many values were seen; whole numbers, exact up to 2**53."""
        return self.packed[_COUNT]

    @property
    def mean(self) -> Any:
        """NaN where no value was seen."""
        return self._of_any(self.packed[_MEAN] + self.packed[_REST])

    @property
    def variance(self) -> Any:
        """Mean squared deviation from the mean (numpy's default, ``ddof=0``); NaN where no value was seen."""
        return self._of_any(self.packed[_SQUARES] / np.maximum(self.count, 1))

    @property
    def std(self) -> Any:
        """Square root of the variance."""
        return np.sqrt(self.variance)

    @property
    def min(self) -> Any:
        """NaN where no value was seen."""
        return self._of_any(self.packed[_MIN])

    @property
    def max(self) -> Any:
        """NaN where no value was seen."""
        return self._of_any(self.packed[_MAX])

    def merge(self, *others: Moments) -> Moments:
        """The moments of these and all other values."""
        return Moments(_merged(np.stack([self.packed, *(other.packed for other in others)], axis=-1), (-1,)))

    def _of_any(self, values: Any) -> Any:
        return np.where(self.count > 0, values, np.nan)


def moments(values: Any, axis: int | tuple[int, ...] | None = None, *, valid: Any = None) -> Moments:
    """Moments of an array along some axes.

    Parameters
    ----------
    values
        Numbers of any real dtype, NumPy or Dask in any chunks. Values that are not finite never count.
    axis
        Those that are reduced; None: all.
    valid
        bool, of a shape that broadcasts to that of ``values``: False where a value does not count.

    Returns
    -------
    Moments
        Arrays of the axes that are left; lazy if ``values`` is: one task a chunk, whose six numbers are merged in a tree.
        A chunk needs memory for itself and a megabyte.

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
    """Moments of no values: what a running merge begins with."""
    return Moments(np.broadcast_to(_NONE.reshape((6,) + (1,) * len(shape)), (6, *shape)).copy())


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(np.atleast_1d(axis).tolist())
    if any(not -ndim <= one < ndim for one in axes) or len({one % ndim for one in axes}) < len(axes):
        raise ValueError(f"axis is one of an array of {ndim} dimensions, or several of them, each once, got {axis}")
    return tuple(sorted(one % ndim for one in axes))


def _lazily(values: Any, valid: Any, axes: tuple[int, ...]) -> Any:
    import dask.array as da

    values = da.asarray(values)
    arrays = [values]
    if valid is not None:
        # Chunked alike, so that each chunk has its own part of the mask beside it.
        arrays = list(da.core.unify_chunks(*_indexed(values), *_indexed(da.broadcast_to(valid, values.shape)))[1])
    chunks = [(1,) * len(lengths) if at in axes else lengths for at, lengths in enumerate(arrays[0].chunks)]
    parts = da.map_blocks(
        _of_block, *arrays, axes=axes, keepdims=True, new_axis=0, chunks=((6,), *chunks), dtype=np.float64,
        meta=np.empty((0,) * (values.ndim + 1)),
    )  # fmt: skip
    if not axes:
        return parts
    return da.reduction(
        parts, chunk=_unchanged, combine=_merged, aggregate=_merged, axis=tuple(at + 1 for at in axes), dtype=np.float64,
        meta=np.empty((0,) * (values.ndim + 1 - len(axes))),
    )  # fmt: skip


def _indexed(array: Any) -> tuple[Any, tuple[int, ...]]:
    return array, tuple(range(array.ndim))


def _unchanged(packed: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    return packed


def _of_block(
    values: np.ndarray, valid: np.ndarray | None = None, *, axes: tuple[int, ...], keepdims: bool = False
) -> np.ndarray:
    """Packed moments of a block along ``axes``: (6, ...)."""
    kept = [at for at in range(values.ndim) if at not in axes]
    order, lead = (*kept, *axes), tuple(values.shape[at] for at in kept)
    rows = np.transpose(values, order)
    masks = None if valid is None else np.transpose(np.broadcast_to(valid, values.shape), order)
    packed = np.empty((6, *lead))
    for at in np.ndindex(lead):
        packed[:, *at] = _of_values(rows[at].ravel(), None if masks is None else masks[at].ravel())
    return np.expand_dims(packed, tuple(at + 1 for at in axes)) if keepdims else packed


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
    # Not by a dot product: threads of the linear algebra library are slower than one where others work as well.
    squares = np.square(deviation, out=deviation).sum()
    return np.array([len(values), mean, rest, squares, low, high], np.float64)


def _merged(packed: np.ndarray, axis: tuple[int, ...], keepdims: bool = False) -> np.ndarray:
    """Merge packed moments (6, ...) along axes, of which none is the first."""
    count, mean, rest, squares, low, high = packed
    inner = tuple(at - 1 if at > 0 else at for at in axis)

    def total(values: np.ndarray) -> np.ndarray:
        return values.sum(axis=inner, keepdims=True)

    n = total(count)
    some = np.maximum(n, 1)
    about = total(count / some * mean)
    # Means of parts are near each other, so their differences lose nothing; neither do sums of these.
    beside = (mean - about) + rest
    shift = total(count * beside) / some
    spread = total(squares + count * (beside - shift) ** 2)
    out = np.stack([n, about, shift, spread, low.min(axis=inner, keepdims=True), high.max(axis=inner, keepdims=True)])
    return out if keepdims else out.squeeze(axis)
