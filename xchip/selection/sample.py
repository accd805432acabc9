"""`sample`: draw chips of an index without replacement, by strata or weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xchip.core.types import IndexLike
from xchip.selection.inputs import chips_of, column_of, row_keys, shapes_of
from xchip.selection.layers import polygon_at_centre
from xchip.selection.sphere import Shapes, seeded, unit

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

    from xchip.io.storage import StorageOptions

Strata: TypeAlias = "str | Sequence[str] | geopandas.GeoDataFrame | None"
Weights: TypeAlias = "str | Sequence[float] | np.ndarray | pd.Series"


def sample(
    index: IndexLike,
    n: int,
    *,
    by: Strata = None,
    weights: Weights | Mapping[Hashable, float] | None = None,
    balanced: bool = False,
    seed: int = 0,
    storage: StorageOptions | None = None,
) -> geopandas.GeoDataFrame:
    """Draw chips without replacement.

    The draw depends on the identity of the chips (collection, item, chip_id, footprint) and on ``seed``, not on the order of
    rows or on partitions. Without strata, a smaller sample is a subset of a larger one.

    Parameters
    ----------
    index
        An index in any form: a path, a GeoDataFrame, a dask-geopandas frame (it is computed), a pyarrow Table.
    n
        Number of chips.
    by
        Strata: the name of a column, several names, or a GeoDataFrame of polygons with one column, whose value at the centre of
        the chip counts (that of the first polygon, if several contain the centre). Chips without a value are left out. The
        number of chips of each stratum is proportional to its size.
    weights
        Name of a column of numbers, or one number per row: the relative probability of a chip; chips with 0 or NaN are not drawn.
        Or a mapping from the value of each stratum (a tuple for several columns) to its share of the sample, in any unit; strata
        without a share get no chips.
    balanced
        Draw the same number of chips from each stratum. A stratum with too few gives all of them, and the others give more.
    seed
        Seed of the draw.
    storage
        How to reach a path.

    Returns
    -------
    geopandas.GeoDataFrame
        ``n`` rows, in the order of the index.

    Raises
    ------
    ValueError
        If there are fewer than ``n`` chips, a column is missing, weights are negative, or options contradict each other.

    Examples
    --------
    >>> import xchip.testing
    >>> index = xchip.testing.synthetic_stack(shape=(600, 1000)).chips.index(256, item_id="scene")
    >>> sample(index, 4, by="chip_index_y", balanced=True).chip_index_y.tolist()
    [0, 0, 1, 1]
    """
    shares = weights if isinstance(weights, Mapping) else None
    if n != int(n) or n < 0:
        raise ValueError(f"n is a number of chips, got {n!r}")
    if balanced and (by is None or shares is not None):
        raise ValueError("balanced=True needs strata in by=, and no shares in weights=")
    if shares is not None and by is None:
        raise ValueError("weights map strata to shares, but there are no strata; pass by=")
    frame = chips_of(index, storage=storage)
    geometry = shapes_of(frame)
    weight = np.ones(len(frame)) if weights is None or isinstance(weights, Mapping) else _weights(frame, weights)
    stratum, values = _strata(frame, geometry, by)
    rows = np.flatnonzero((weight > 0) & (stratum >= 0))
    sizes = np.bincount(stratum[rows], minlength=len(values))
    if shares is not None:
        target = _shares(values, shares)
        rows = rows[target[stratum[rows]] > 0]
        sizes = np.where(target > 0, sizes, 0)
    else:
        target = np.ones(len(values)) if balanced else sizes.astype(float)
    if n > len(rows):
        raise ValueError(
            f"asked for {n:,} chips, and the index has {len(rows):,} to draw from ({len(frame):,} rows); ask for fewer"
        )
    counts = _allocate(int(n), sizes, target)
    # The n smallest of -log(u) / weight are a weighted draw without replacement (Efraimidis and Spirakis, 2006).
    random = unit(seeded(row_keys(frame, Shapes.of(geometry).key)[rows], seed))
    with np.errstate(divide="ignore"):  # u = 0 is drawn last
        lots = -np.log(random) / weight[rows]
    order = np.lexsort((lots, stratum[rows]))
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    drawn = rows[order[rank < np.repeat(counts, sizes)]]
    return frame.iloc[np.sort(drawn)]


def _weights(frame: pd.DataFrame, weights: Weights) -> np.ndarray:
    column = column_of(frame, weights) if isinstance(weights, str) else weights
    numbers = np.nan_to_num(np.asarray(column, float), nan=0.0, posinf=np.inf)
    if numbers.shape != (len(frame),) or not ((numbers >= 0) & (numbers < np.inf)).all():
        raise ValueError(f"weights must be {len(frame):,} finite numbers of 0 or more, one per row; got {column!r}")
    return numbers


def _strata(frame: pd.DataFrame, geometry: np.ndarray, by: Strata) -> tuple[np.ndarray, pd.Index]:
    """Return (number of each row's stratum, -1 without one; the sorted values of the strata)."""
    import pandas as pd

    if by is None:
        return np.zeros(len(frame), np.int64), pd.Index(["all"])
    if hasattr(by, "geometry"):
        layer: geopandas.GeoDataFrame = by
        names = [name for name in layer.columns if name != layer.geometry.name]
        if len(names) != 1:
            raise ValueError(
                f"a layer of strata has one column besides its geometry, but this layer has {names}; choose with layer[[...]]"
            )
        chip, polygon = polygon_at_centre(geometry, layer)
        chip, first = np.unique(chip, return_index=True)
        column = pd.Series(pd.NA, index=range(len(frame)), dtype=object)
        column.iloc[chip] = layer[names[0]].to_numpy()[polygon[first]]
        return pd.factorize(column, sort=True)
    if isinstance(by, str):
        return pd.factorize(column_of(frame, by), sort=True)
    # Each column is factorised alone: tuples of millions of rows take minutes.
    factors = [pd.factorize(column_of(frame, name), sort=True) for name in by]
    number = np.zeros(len(frame), np.int64)
    for codes, level in factors:
        number = np.where((number < 0) | (codes < 0), -1, number * len(level) + codes)
    used = np.unique(number[number >= 0])
    levels = [level for _, level in factors]
    parts = np.unravel_index(used, [len(level) for level in levels]) if len(used) else [used for _ in levels]
    values = pd.MultiIndex.from_arrays([level.take(part) for level, part in zip(levels, parts, strict=True)])
    return np.where(number < 0, -1, np.searchsorted(used, number)), values


def _shares(values: pd.Index, shares: Mapping[Hashable, float]) -> np.ndarray:
    """Return the share of each stratum, 0 by default."""
    known = set(values)
    missing = [value for value in shares if value not in known]
    if missing:
        raise ValueError(f"weights name strata {missing}, which have no chips in the index; it has {list(values)[:20]}")
    numbers = np.array([float(shares.get(value, 0)) for value in values])
    if not (numbers >= 0).all() or not np.isfinite(numbers).all():
        raise ValueError(f"shares are finite numbers of 0 or more, got {dict(shares)}")
    return numbers


def _allocate(n: int, sizes: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the number of chips of each stratum: int64, ``n`` in all, proportional to ``target``, at most ``sizes``.

    Examples
    --------
    >>> _allocate(10, np.array([2, 50, 50]), np.ones(3))
    array([2, 4, 4])
    """
    counts = np.zeros(len(sizes), np.int64)
    open_ = (sizes > 0) & (target > 0)
    while (pending := n - int(counts.sum())) > 0:
        ideal = np.where(open_, target * (pending / target[open_].sum()), 0.0)
        short = open_ & (ideal >= sizes)
        if short.any():
            counts[short] = sizes[short]
            open_ &= ~short
            continue
        counts += np.floor(ideal).astype(np.int64)
        # The rest goes to the largest remainders; of equal remainders, to the first.
        by_remainder = np.argsort(-np.where(open_, ideal - np.floor(ideal), -1), kind="stable")
        counts[by_remainder[: n - int(counts.sum())]] += 1
    return counts
