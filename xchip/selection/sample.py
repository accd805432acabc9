"""`sample`: some chips of an index, drawn without replacement, by strata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.selection.inputs import chips_of, column_of, row_keys, shapes_of
from xchip.selection.layers import polygon_at_centre
from xchip.selection.sphere import Shapes, seeded, unit

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

    from xchip.io.storage import StorageOptions


def sample(
    index: Any,
    n: int,
    *,
    by: Any = None,
    weights: Any = None,
    balanced: bool = False,
    seed: int = 0,
    storage: StorageOptions | None = None,
) -> geopandas.GeoDataFrame:
    """Draw chips without replacement.

    The draw depends on what the chips are (collection, item, chip_id, footprint) and on ``seed``: not on the order of rows, nor
    on partitions. A sample of fewer chips is part of one of more, but for strata.

    Parameters
    ----------
    index
        An index in any form: a path, a GeoDataFrame, a dask-geopandas frame (which is computed), a pyarrow Table.
    n
        How many chips.
    by
        Strata: a column's name, several names, or a GeoDataFrame of polygons with one column, whose value at the chip's centre
        counts (of the first polygon where several hold it). Chips without a value are left out. Each stratum gets a number of
        chips in proportion to its size.
    weights
        Name of a column of numbers, or one number a row: how likely a chip is drawn; never, with 0 or NaN. Or a mapping from each
        stratum's value (a tuple for several columns) to its share of the sample, in any unit; strata without one get none.
    balanced
        Strata get the same number of chips each; those that have too few get all, and others more.
    seed
        Another seed draws other chips.
    storage
        How a path is reached.

    Returns
    -------
    geopandas.GeoDataFrame
        ``n`` rows, in the order of the index.

    Raises
    ------
    ValueError
        If there are fewer chips than asked for, a column is missing, weights are negative, or options contradict each other.

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
        raise ValueError("balanced=True needs strata in by=, and no shares of them in weights=")
    if shares is not None and by is None:
        raise ValueError("weights map strata to shares, but there are no strata; pass by=")
    frame = chips_of(index, storage=storage)
    geometry = shapes_of(frame)
    likely = _likely(frame, None if shares is not None else weights)
    stratum, values = _strata(frame, geometry, by)
    rows = np.flatnonzero((likely > 0) & (stratum >= 0))
    sizes = np.bincount(stratum[rows], minlength=len(values))
    if shares is not None:
        wanted = _shares(values, shares)
        rows = rows[wanted[stratum[rows]] > 0]
        sizes = np.where(wanted > 0, sizes, 0)
    else:
        wanted = np.ones(len(values)) if balanced else sizes.astype(float)
    if n > len(rows):
        raise ValueError(
            f"asked for {n:,} chips, and the index has {len(rows):,} to draw from ({len(frame):,} rows); ask for fewer"
        )
    take = _allocate(int(n), sizes, wanted)
    # The n smallest of -log(u) / weight are a weighted draw without replacement (Efraimidis and Spirakis, 2006).
    random = unit(seeded(row_keys(frame, Shapes.of(geometry).key)[rows], seed))
    with np.errstate(divide="ignore"):  # of u = 0: drawn last
        lots = -np.log(random) / likely[rows]
    order = np.lexsort((lots, stratum[rows]))
    ends = np.cumsum(sizes)
    place = np.arange(len(rows)) - np.repeat(ends - sizes, sizes)
    drawn = rows[order[place < np.repeat(take, sizes)]]
    return frame.iloc[np.sort(drawn)]


def _likely(frame: Any, weights: Any) -> np.ndarray:
    if weights is None:
        return np.ones(len(frame))
    column = column_of(frame, weights) if isinstance(weights, str) else weights
    numbers = np.nan_to_num(np.asarray(column, float), nan=0.0, posinf=np.inf)
    if numbers.shape != (len(frame),) or not ((numbers >= 0) & (numbers < np.inf)).all():
        raise ValueError(f"weights are {len(frame):,} finite numbers of 0 or more, one a row; got {column!r}")
    return numbers


def _strata(frame: Any, geometry: np.ndarray, by: Any) -> tuple[np.ndarray, pd.Index]:
    """(number of each row's stratum, -1 for none; their values, sorted)."""
    import pandas as pd

    if by is None:
        return np.zeros(len(frame), np.int64), pd.Index(["all"])
    if hasattr(by, "geometry"):
        names = [name for name in by.columns if name != by.geometry.name]
        if len(names) != 1:
            raise ValueError(
                f"a layer of strata has one column beside its geometry, this one has {names}; choose with layer[[...]]"
            )
        chip, polygon = polygon_at_centre(geometry, by)
        chip, first = np.unique(chip, return_index=True)
        column = pd.Series(pd.NA, index=range(len(frame)), dtype=object)
        column.iloc[chip] = by[names[0]].to_numpy()[polygon[first]]
        return pd.factorize(column, sort=True)
    if isinstance(by, str):
        return pd.factorize(column_of(frame, by), sort=True)
    columns = [column_of(frame, name) for name in by]
    # Factorised one by one: tuples of millions of rows take minutes.
    codes = [pd.factorize(column, sort=True) for column in columns]
    number = np.zeros(len(frame), np.int64)
    for code, known in codes:
        number = np.where((number < 0) | (code < 0), -1, number * len(known) + code)
    some = np.unique(number[number >= 0])
    levels = [known for _, known in codes]
    parts = np.unravel_index(some, [len(known) for known in levels]) if len(some) else [some for _ in levels]
    values = pd.MultiIndex.from_arrays([known.take(part) for known, part in zip(levels, parts, strict=True)])
    return np.where(number < 0, -1, np.searchsorted(some, number)), values


def _shares(values: Any, shares: Mapping[Any, float]) -> np.ndarray:
    """The share of each stratum; 0 where none was given."""
    known = set(values)
    missing = [value for value in shares if value not in known]
    if missing:
        raise ValueError(f"weights name strata {missing} that the index has no chip of; it has {list(values)[:20]}")
    found = np.array([float(shares.get(value, 0)) for value in values])
    if not (found >= 0).all() or not np.isfinite(found).all():
        raise ValueError(f"shares are finite numbers of 0 or more, got {dict(shares)}")
    return found


def _allocate(n: int, sizes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many chips each stratum gives: as ``wanted`` has it, none more than it has, ``n`` in all: int64.

    Examples
    --------
    >>> _allocate(10, np.array([2, 50, 50]), np.ones(3))
    array([2, 4, 4])
    """
    take = np.zeros(len(sizes), np.int64)
    open_ = (sizes > 0) & (wanted > 0)
    while (left := n - int(take.sum())) > 0:
        ideal = np.where(open_, wanted * (left / wanted[open_].sum()), 0.0)
        short = open_ & (ideal >= sizes)
        if short.any():
            take[short] = sizes[short]
            open_ &= ~short
            continue
        take += np.floor(ideal).astype(np.int64)
        # What is left goes to the largest remainders; of equal ones, to the first.
        remainder = np.argsort(-np.where(open_, ideal - np.floor(ideal), -1), kind="stable")
        take[remainder[: n - int(take.sum())]] += 1
    return take
