"""`split`: assign chips to train, validation and test so that splits keep a distance from each other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xchip.core.types import IndexLike
from xchip.selection.blocks import NOWHERE, SET_ASIDE, SMALLEST_KM, Blocks
from xchip.selection.dates import Date, Duration, moments_of, timedelta_of
from xchip.selection.inputs import chips_of, column_of, is_lazy, shapes_of, value_keys
from xchip.selection.layers import areas, polygon_at_centre
from xchip.selection.neighbours import Tree, empty, near
from xchip.selection.sphere import Shapes, chord_of, seeded, spans, unit

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas
    import pandas as pd

    from xchip.io.storage import StorageOptions

Shares: TypeAlias = Mapping[str, float] | Sequence[str] | None
By: TypeAlias = "str | geopandas.GeoDataFrame"
Cuts: TypeAlias = Sequence[Date] | None

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Default shares of the chips."""
BUFFER = "buffer"
"""Value of the column for chips that are set aside."""
SPLIT_ATTRIBUTE = "xchip_split"
"""Key of a frame's ``attrs``: JSON with the options of the split and the number of chips of each split."""

# Neighbours are set aside within a slightly larger distance, because rounding depends on the order of the two shapes.
_MARGIN_KM = 0.001


def split(
    index: IndexLike,
    shares: Shares = None,
    *,
    by: By = "block",
    block_km: float = 50.0,
    buffer_km: float | None = 1.0,
    seed: int = 0,
    gap: Duration | None = None,
    cuts: Cuts = None,
    column: str = "split",
    storage: StorageOptions | None = None,
) -> geopandas.GeoDataFrame | dask_geopandas.GeoDataFrame:
    """Split an index so that no two chips of different splits overlap, touch, or are within ``buffer_km`` of each other.

    Chips that are too near to another split get the value "buffer" and belong to no split. Distances are kept across items,
    sensors, dates, overlapping tiles and CRSs, at the poles and the antimeridian. They are never overstated (see
    `xchip.selection.sphere.EARTH_KM`). `xchip.audit` measures them.

    Parameters
    ----------
    index
        An index in any form: a path, a GeoDataFrame, a dask-geopandas frame, a pyarrow Table.
    shares
        Name of each split -> its share; they sum to 1. By default ``{"train": 0.8, "val": 0.1, "test": 0.1}``. Whole blocks or
        values are drawn, so shares are approximate and improve with the number of blocks or values. With ``cuts``, a list of
        names is enough.
    by
        "block"
            Cells of the Earth about ``block_km`` wide, drawn by their number and ``seed``. The split of a chip depends on the
            chip and these options alone: it does not change when chips are added, nor with the order of rows.
        "time"
            Consecutive periods in the order of ``shares``, regardless of place. Without ``cuts`` they are chosen to meet the
            shares, so they move when chips are added; ``attrs`` has the cuts, to be passed next time.
        the name of a column
            Values, such as MGRS tiles or countries, drawn by the value and ``seed``. Of two chips within the buffer of each other
            the chip of the larger share is set aside. A new chip may set its neighbours aside, but moves no chip to another
            split.
        a GeoDataFrame
            Polygons with a column ``column``: a chip takes the value at its centre. Of two chips within the buffer of each other
            the chip whose split has the larger area is set aside. Chips outside all polygons get null; chips in polygons of two
            splits are set aside.
    block_km
        Height and approximate width of a block. Smaller blocks meet the shares better, but set more chips aside.
    buffer_km
        Smallest distance between splits. With 0, chips of different splits still neither overlap nor touch. None, by column or
        polygons: ignore distances.
    seed
        Seed of the draw of blocks or values.
    gap
        By time: chips of different periods are further apart than this, such as "30D" (a ``pandas.Timedelta``).
    cuts
        By time: the first moment of each period except the first period.
    column
        Name of the column that is added or replaced.
    storage
        How to reach a path.

    Returns
    -------
    geopandas.GeoDataFrame or dask_geopandas.GeoDataFrame
        The index with ``column``: text, null for chips without a footprint, date or value. A lazy index stays lazy by block, by
        time with ``cuts``, and by column or polygons with ``buffer_km=None``; otherwise it is computed. ``attrs["xchip_split"]``
        of an eager frame is JSON with the options and the number of chips of each value.

    Raises
    ------
    ValueError
        If options are invalid or contradict each other, or a column is missing.

    Warns
    -----
    UserWarning
        If a split has no chips.

    Examples
    --------
    >>> import geopandas, shapely
    >>> x, y = (axis.ravel() * 0.025 for axis in np.mgrid[:20, :20])
    >>> index = geopandas.GeoDataFrame(geometry=shapely.box(x, y, x + 0.025, y + 0.025), crs="EPSG:4326")
    >>> parts = split(index, {"train": 0.5, "test": 0.5}, block_km=15, buffer_km=0.5)
    >>> parts["split"].value_counts().to_dict()
    {'test': 203, 'train': 122, 'buffer': 75}
    """
    plan = _plan(shares, by, block_km, buffer_km, seed, gap, cuts, column)
    if is_lazy(index) and plan.chipwise:
        frame: dask_geopandas.GeoDataFrame = index
        meta = _with_column(frame._meta, np.empty(0, np.int64), plan)
        return frame.map_partitions(partial(_split_partition, plan=plan), meta=meta, enforce_metadata=False)
    rows = chips_of(index, storage=storage)
    sides, plan = _sides(rows, plan)
    parts = _with_column(rows, sides, plan)
    counts = {name: int((sides == number).sum()) for number, name in enumerate(plan.names)}
    without = {BUFFER: int((sides == SET_ASIDE).sum()), "none": int((sides == NOWHERE).sum())}
    parts.attrs[SPLIT_ATTRIBUTE] = json.dumps(plan.options() | {"chips": counts | without})
    missing = [name for name, count in counts.items() if not count]
    if missing and len(rows):
        if 2 * without[BUFFER] > len(rows):  # small blocks beside large chips or buffers consist of border alone
            way_out = "most are too near to another split: larger blocks or a smaller buffer"
        else:
            way_out = "smaller blocks, a smaller buffer or another seed"
        warnings.warn(f"no chip is in {missing} ({len(rows):,} chips: {counts | without}); {way_out} may give some", stacklevel=2)
    return parts


@dataclass(frozen=True, slots=True)
class _Plan:
    """Checked options."""

    names: tuple[str, ...]
    shares: tuple[float, ...]
    """Empty with named periods and with polygons."""
    by: str
    """Block, time, the name of a column, or polygons."""
    layer: geopandas.GeoDataFrame | None
    block_km: float
    buffer_km: float | None
    seed: int
    gap: pd.Timedelta | None
    cuts: tuple[pd.Timestamp, ...] | None
    column: str

    @property
    def chipwise(self) -> bool:
        """Whether the split of a chip does not depend on other chips."""
        if self.layer is None and self.by in ("block", "time"):
            return self.by == "block" or self.cuts is not None
        return self.buffer_km is None

    def options(self) -> dict[str, object]:
        """Return the options as plain values."""
        options: dict[str, object] = {"by": self.by, "shares": None}
        if self.shares:
            options["shares"] = dict(zip(self.names, self.shares, strict=True))
        if self.by == "block":
            options["block_km"] = self.block_km
        if self.by == "time":
            return options | {"gap": str(self.gap), "cuts": [cut.isoformat() for cut in self.cuts or ()]}
        return options | {"buffer_km": self.buffer_km, "seed": self.seed}


def _plan(
    shares: Shares, by: By, block_km: float, buffer_km: float | None, seed: int, gap: Duration | None, cuts: Cuts, column: str
) -> _Plan:
    kind, layer = (by, None) if isinstance(by, str) else ("polygons", by)
    blocks, timed = layer is None and kind == "block", layer is None and kind == "time"
    if layer is not None and (not hasattr(layer, "geometry") or column not in layer.columns):
        raise ValueError(f"by is 'block', 'time', a column's name or a GeoDataFrame with a column {column!r}, got {by!r}")
    if layer is not None and shares is not None:
        raise ValueError("polygons define the splits themselves; leave shares out")
    if not timed and (gap is not None or cuts is not None):
        raise ValueError("gap and cuts are for by='time' only")
    if buffer_km is None and blocks:
        raise ValueError("blocks need a buffer_km of 0 or more, got None")
    if buffer_km is not None and not 0 <= buffer_km < 20_000:
        raise ValueError(f"buffer_km is a distance from 0 to 20,000 km, got {buffer_km!r}")
    if not SMALLEST_KM <= block_km <= 20_000:
        raise ValueError(f"block_km is a length from {SMALLEST_KM} to 20,000 km, got {block_km!r}")
    if blocks and buffer_km is not None and buffer_km >= block_km:
        raise ValueError(
            f"a buffer of {buffer_km} km leaves nothing of blocks of {block_km} km; make block_km several times larger"
        )
    parts: tuple[float, ...] = ()
    if layer is not None:
        names = tuple(dict.fromkeys(str(name) for name in layer[column].dropna()))
    elif cuts is not None and shares is not None and not isinstance(shares, Mapping):
        names = tuple(shares)
    else:
        names, parts = _checked_shares(SHARES if shares is None else shares)
    if BUFFER in names:
        raise ValueError(f"{BUFFER!r} is the value for chips that belong to no split; choose another name for the split")
    length = timedelta_of("0s" if gap is None else gap, "gap") if timed else None
    moments = None if cuts is None else _checked_cuts(cuts, len(names))
    return _Plan(names, parts, kind, layer, float(block_km), buffer_km, int(seed), length, moments, column)


def _checked_shares(shares: Shares) -> tuple[tuple[str, ...], tuple[float, ...]]:
    if not isinstance(shares, Mapping) or not shares:
        raise ValueError(f"shares map names to fractions, such as {{'train': 0.8, 'test': 0.2}}, got {shares!r}")
    names, parts = tuple(map(str, shares)), tuple(float(share) for share in shares.values())
    if not all(part > 0 for part in parts) or abs(sum(parts) - 1) > 1e-6:
        raise ValueError(f"shares are above 0 and sum to 1, got {dict(shares)}, which sum to {sum(parts):g}")
    return names, parts


def _checked_cuts(cuts: Sequence[Date], splits: int) -> tuple[pd.Timestamp, ...]:
    import pandas as pd

    moments = tuple(pd.to_datetime(pd.Series(list(cuts), dtype=object), utc=True, format="ISO8601") if len(cuts) else ())
    if len(moments) != splits - 1 or any(pd.isna(moment) for moment in moments) or list(moments) != sorted(set(moments)):
        raise ValueError(f"{splits} periods need {splits - 1} cuts, each later than the cut before, got {list(cuts)}")
    return moments


def _split_partition(frame: geopandas.GeoDataFrame, plan: _Plan) -> geopandas.GeoDataFrame:
    sides, plan = _sides(frame, plan)
    return _with_column(frame.copy(deep=False), sides, plan)


def _sides(frame: geopandas.GeoDataFrame, plan: _Plan) -> tuple[np.ndarray, _Plan]:
    """Return (position of each chip's split, `SET_ASIDE` or `NOWHERE`: int64 (n,); the plan, with the cuts)."""
    if plan.layer is not None:
        sides, ranks = _by_polygons(shapes_of(frame), plan, plan.layer)
    elif plan.by == "block":
        assert plan.buffer_km is not None
        blocks = Blocks(plan.block_km, plan.shares, plan.seed)
        return blocks.assign(spans(shapes_of(frame)), plan.buffer_km), plan
    elif plan.by == "time":
        return _by_time(frame, plan)
    else:
        sides, ranks = _by_value(column_of(frame, plan.by), plan), np.array(plan.shares)
    if plan.buffer_km is None:
        return sides, plan
    return _without_neighbours(shapes_of(frame), sides, ranks, plan.buffer_km), plan


def _by_time(frame: pd.DataFrame, plan: _Plan) -> tuple[np.ndarray, _Plan]:
    moments = moments_of(column_of(frame, "datetime"))
    dated = ~np.isnat(moments)
    if plan.cuts is None:
        plan = replace(plan, cuts=_even_cuts(moments[dated], plan.shares))
    assert plan.cuts is not None
    assert plan.gap is not None
    sides = np.full(len(moments), NOWHERE, np.int64)
    cuts = np.array([cut.tz_localize(None).to_datetime64() for cut in plan.cuts], "datetime64[us]")
    sides[dated] = np.searchsorted(cuts, moments[dated], side="right")
    if plan.gap.value:
        half = np.timedelta64(-(-plan.gap.value // 2000), "us")  # whole microseconds, rounded up
        for cut in cuts:
            sides[dated & (np.abs(moments - cut) <= half)] = SET_ASIDE
    return sides, plan


def _even_cuts(moments: np.ndarray, shares: tuple[float, ...]) -> tuple[pd.Timestamp, ...]:
    """Return cuts that meet the shares, each in the middle between two dates of chips."""
    import pandas as pd

    dates, counts = np.unique(moments, return_counts=True)
    # As near to the share as whole dates allow.
    before = np.cumsum(counts)[:-1]
    numbers = [int(np.abs(before - share * len(moments)).argmin()) for share in np.cumsum(shares)[:-1]] if len(before) else []
    if len(set(numbers)) < len(shares) - 1:
        raise ValueError(f"the chips have {len(dates)} dates, too few for {len(shares)} periods of these shares; pass cuts=")
    tick = np.timedelta64(1, "us")
    return tuple(pd.Timestamp(dates[n] + (dates[n + 1] - dates[n] + tick) // 2, tz="UTC") for n in numbers)


def _by_value(values: pd.Series, plan: _Plan) -> np.ndarray:
    sides = np.searchsorted(np.cumsum(plan.shares)[:-1], unit(seeded(value_keys(values), plan.seed)), side="right")
    return np.where(values.isna().to_numpy(), NOWHERE, sides)


def _by_polygons(geometry: np.ndarray, plan: _Plan, layer: geopandas.GeoDataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return (sides, area of each split's polygons)."""
    layer = layer[layer[plan.column].notna().to_numpy()]
    number = np.array([plan.names.index(str(name)) for name in layer[plan.column]], np.int64)
    chip, polygon = polygon_at_centre(geometry, layer)
    sides = np.full(len(geometry), NOWHERE, np.int64)
    sides[chip] = number[polygon]
    sides[chip[number[polygon] != sides[chip]]] = SET_ASIDE
    return sides, np.bincount(number, areas(shapes_of(layer)), len(plan.names))


def _without_neighbours(geometry: np.ndarray, sides: np.ndarray, ranks: np.ndarray, buffer_km: float) -> np.ndarray:
    """Set chips aside that are within the buffer of a kept chip whose split has a lower rank; return the new ``sides``."""
    sides = sides.copy()
    sides[empty(geometry)] = NOWHERE
    chord = chord_of(buffer_km + _MARGIN_KM)
    rows = np.flatnonzero(sides >= 0)
    geometry = geometry[rows]
    shapes = Shapes.of(geometry)
    kept = np.empty(0, np.int64)
    for side in np.lexsort((np.arange(len(ranks)), -ranks))[::-1]:
        members = np.flatnonzero(sides[rows] == side)
        # Chips of one place at several dates have the same shape.
        _, first, shape = np.unique(shapes.key[members], return_index=True, return_inverse=True)
        first = members[first]
        candidates, neighbours = (Tree.of(geometry[chosen], shapes.take(chosen)) for chosen in (first, kept))
        beside = near(candidates, neighbours, chord)
        sides[rows[members[beside[shape]]]] = SET_ASIDE
        kept = np.append(kept, first[~beside])
    return sides


def _with_column(frame: pd.DataFrame, sides: np.ndarray, plan: _Plan) -> geopandas.GeoDataFrame:
    import pandas as pd
    import pyarrow as pa

    words = pa.array([*plan.names, BUFFER, None], pa.large_string())
    numbers = np.where(sides >= 0, sides, np.where(sides == SET_ASIDE, len(plan.names), len(plan.names) + 1))
    return frame.assign(**{plan.column: pd.arrays.ArrowStringArray(words.take(pa.array(numbers)))})
