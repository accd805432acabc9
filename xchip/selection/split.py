"""`split`: train, validation and test chips that are apart from each other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xchip.selection.blocks import NOWHERE, SET_ASIDE, SMALLEST_KM, Blocks
from xchip.selection.inputs import chips_of, column_of, is_lazy, shapes_of, value_keys
from xchip.selection.layers import areas, polygon_at_centre
from xchip.selection.neighbours import Tree, empty, near
from xchip.selection.sphere import Shapes, chord_of, seeded, spans, unit

if TYPE_CHECKING:
    import geopandas

    from xchip.io.storage import StorageOptions

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Shares of the chips, unless others are asked for."""
BUFFER = "buffer"
"""What the column says of chips that were set aside."""
SPLIT_ATTRIBUTE = "xchip_split"
"""Key of a frame's ``attrs``: JSON with the options of the split, and how many chips each side has."""

# Set aside by neighbours: a little more, as rounding may make the same two shapes a little nearer when they change places.
_MARGIN_KM = 0.001


def split(
    index: Any,
    shares: Mapping[str, float] | Sequence[str] | None = None,
    *,
    by: Any = "block",
    block_km: float = 50.0,
    buffer_km: float | None = 1.0,
    seed: int = 0,
    gap: Any = None,
    cuts: Sequence[Any] | None = None,
    column: str = "split",
    storage: StorageOptions | None = None,
) -> Any:
    """Split an index so that no two chips of different splits overlap, touch, or are within ``buffer_km`` of each other.

    Chips that would be too near to another split get the value "buffer" and belong to none. Distances hold across items, sensors,
    dates, overlapping tiles and CRSs, at the poles and the antimeridian; they are never overstated (see
    `xchip.selection.sphere.EARTH_KM`). `xchip.audit` measures them.

    Parameters
    ----------
    index
        An index in any form: a path, a GeoDataFrame, a dask-geopandas frame, a pyarrow Table.
    shares
        Name of each split -> its share; they sum to 1. By default ``{"train": 0.8, "val": 0.1, "test": 0.1}``. Shares are met
        about, as blocks and values are drawn whole: the more there are, the better. With ``cuts`` the names suffice.
    by
        "block"
            Cells of the Earth some ``block_km`` wide, drawn by their number and ``seed``. A chip's split depends on the chip and
            these alone: it does not change when chips are added, nor with the order of rows.
        "time"
            Periods, one after the other in the order of ``shares``; places are not looked at. Without ``cuts`` they begin where
            the shares of the chips at hand are reached, so they move when chips are added; the cuts are in ``attrs``, to be
            passed on.
        the name of a column
            Values, such as MGRS tiles or countries, drawn by the value and ``seed``. Of two chips within the buffer of each other
            the one of the larger share is set aside; a chip that is added may set its neighbours aside, but moves none.
        a GeoDataFrame
            Polygons with a column ``column``: a chip takes the value where its centre is. Of two chips within the buffer of each
            other the one whose split has the larger area is set aside. Chips in no polygon get null, those in polygons of two
            splits are set aside.
    block_km
        Height and about the width of a block. Smaller ones meet the shares better, and more chips are near a border.
    buffer_km
        Least distance. With 0 chips still neither overlap nor touch. None, by column or polygons: neighbours are not looked at.
    seed
        Another seed draws other blocks or values.
    gap
        By time: chips of different periods are further apart than this, such as "30D" (a ``pandas.Timedelta``).
    cuts
        By time: the first moment of each period but the first.
    column
        Name of the column that is added or replaced.
    storage
        How a path is reached.

    Returns
    -------
    geopandas.GeoDataFrame or dask_geopandas.GeoDataFrame
        The index with ``column``: text, null for chips that have no place, date or value. A lazy index stays lazy by block, by
        time with ``cuts``, and by column or polygons with ``buffer_km=None``; else it is computed. ``attrs["xchip_split"]`` of
        an eager one is JSON with the options and the number of chips of each value.

    Raises
    ------
    ValueError
        For options that make no sense, and if a column is not there.

    Warns
    -----
    UserWarning
        If a split got no chip.

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
    if is_lazy(index) and plan.each_alone:
        meta = _with_column(index._meta, np.empty(0, np.int64), plan)
        return index.map_partitions(partial(_split_alone, plan=plan), meta=meta, enforce_metadata=False)
    frame = chips_of(index, storage=storage)
    sides, plan = _sides(frame, plan)
    found = _with_column(frame, sides, plan)
    counts = {name: int((sides == number).sum()) for number, name in enumerate(plan.names)}
    without = {BUFFER: int((sides == SET_ASIDE).sum()), "none": int((sides == NOWHERE).sum())}
    found.attrs[SPLIT_ATTRIBUTE] = json.dumps(plan.options() | {"chips": counts | without})
    missing = [name for name, count in counts.items() if not count]
    if missing and len(frame):
        if 2 * without[BUFFER] > len(frame):  # blocks that are small beside chips and buffer are nothing but border
            way_out = "most are too near to another split: larger blocks or a smaller buffer"
        else:
            way_out = "smaller blocks, a smaller buffer or another seed"
        warnings.warn(
            f"no chip is in {missing} ({len(frame):,} chips: {counts | without}); {way_out} may give some", stacklevel=2
        )
    return found


class _Plan(NamedTuple):
    """Checked options."""

    names: tuple[str, ...]
    shares: tuple[float, ...] | None
    by: Any
    block_km: float
    buffer_km: float | None
    seed: int
    gap: Any
    cuts: Any
    column: str

    @property
    def each_alone(self) -> bool:
        """Whether a chip's split needs no other chip."""
        if isinstance(self.by, str) and self.by in ("block", "time"):
            return self.by == "block" or self.cuts is not None
        return self.buffer_km is None

    def options(self) -> dict[str, Any]:
        """As plain values."""
        found: dict[str, Any] = {"by": self.by if isinstance(self.by, str) else "polygons", "shares": None}
        if self.shares is not None:
            found["shares"] = dict(zip(self.names, self.shares, strict=True))
        if found["by"] == "block":
            found |= {"block_km": self.block_km}
        if found["by"] == "time":
            found |= {"gap": str(self.gap), "cuts": [cut.isoformat() for cut in self.cuts]}
        else:
            found |= {"buffer_km": self.buffer_km, "seed": self.seed}
        return found


def _plan(shares: Any, by: Any, block_km: float, buffer_km: float | None, seed: int, gap: Any, cuts: Any, column: str) -> _Plan:
    import pandas as pd

    polygons = not isinstance(by, str)
    timed = not polygons and by == "time"
    if polygons and (not hasattr(by, "geometry") or column not in by.columns):
        raise ValueError(f"by is 'block', 'time', a column's name or a GeoDataFrame with a column {column!r}, got {by!r}")
    if polygons and shares is not None:
        raise ValueError("polygons say by themselves which splits there are; pass no shares")
    if not timed and (gap is not None or cuts is not None):
        raise ValueError("gap and cuts are for by='time' only")
    if buffer_km is None and not polygons and by == "block":
        raise ValueError("blocks need a buffer_km of 0 or more, got None")
    if buffer_km is not None and not 0 <= buffer_km < 20_000:
        raise ValueError(f"buffer_km is a distance from 0 to 20,000 km, got {buffer_km!r}")
    if not SMALLEST_KM <= block_km <= 20_000:
        raise ValueError(f"block_km is a length from {SMALLEST_KM} to 20,000 km, got {block_km!r}")
    if not polygons and by == "block" and buffer_km is not None and buffer_km >= block_km:
        raise ValueError(
            f"a buffer of {buffer_km} km leaves nothing of blocks of {block_km} km; make block_km several times larger"
        )
    if polygons:
        names, parts = tuple(dict.fromkeys(str(name) for name in by[column].dropna())), None
    elif cuts is not None and shares is not None and not isinstance(shares, Mapping):
        names, parts = tuple(shares), None
    else:
        names, parts = _checked_shares(SHARES if shares is None else shares)
    if BUFFER in names:
        raise ValueError(f"{BUFFER!r} is what chips are called that belong to no split; call the split something else")
    if timed:
        gap = pd.Timedelta(0) if gap is None else pd.Timedelta(gap)
        if pd.isna(gap) or gap < pd.Timedelta(0):
            raise ValueError(f"gap is a length of time of 0 or more, got {gap!r}")
        cuts = None if cuts is None else _checked_cuts(cuts, len(names))
    return _Plan(names, parts, by, float(block_km), buffer_km, int(seed), gap, cuts, column)


def _checked_shares(shares: Any) -> tuple[tuple[str, ...], tuple[float, ...]]:
    if not isinstance(shares, Mapping) or not shares:
        raise ValueError(f"shares map names to parts, such as {{'train': 0.8, 'test': 0.2}}, got {shares!r}")
    names, parts = tuple(map(str, shares)), tuple(float(share) for share in shares.values())
    if not all(part > 0 for part in parts) or abs(sum(parts) - 1) > 1e-6:
        raise ValueError(f"shares are above 0 and sum to 1, got {dict(shares)}, which sum to {sum(parts):g}")
    return names, parts


def _checked_cuts(cuts: Any, splits: int) -> tuple[Any, ...]:
    import pandas as pd

    moments = tuple(pd.to_datetime(list(cuts), utc=True, format="ISO8601") if cuts else ())
    if len(moments) != splits - 1 or any(pd.isna(moment) for moment in moments) or list(moments) != sorted(set(moments)):
        raise ValueError(f"{splits} periods need {splits - 1} cuts, each later than the one before, got {list(cuts)}")
    return moments


def _split_alone(frame: Any, plan: _Plan) -> Any:
    """One partition of a lazy index."""
    sides, plan = _sides(frame, plan)
    return _with_column(frame.copy(deep=False), sides, plan)


def _sides(frame: Any, plan: _Plan) -> tuple[np.ndarray, _Plan]:
    """The position of each chip's split, `SET_ASIDE` or `NOWHERE`: int64 (n,); and the plan with what was found out."""
    if not isinstance(plan.by, str):
        sides, ranks = _by_polygons(shapes_of(frame), plan)
    elif plan.by == "block":
        assert plan.shares is not None
        assert plan.buffer_km is not None
        blocks = Blocks(plan.block_km, plan.shares, plan.seed)
        return blocks.assign(spans(shapes_of(frame)), plan.buffer_km), plan
    elif plan.by == "time":
        return _by_time(frame, plan)
    else:
        assert plan.shares is not None
        sides, ranks = _by_value(column_of(frame, plan.by), plan), np.array(plan.shares)
    if plan.buffer_km is None:
        return sides, plan
    return _without_neighbours(shapes_of(frame), sides, ranks, plan.buffer_km), plan


def _by_time(frame: Any, plan: _Plan) -> tuple[np.ndarray, _Plan]:
    moments = moments_of(column_of(frame, "datetime"))
    known = ~np.isnat(moments)
    if plan.cuts is None:
        assert plan.shares is not None
        plan = plan._replace(cuts=_even_cuts(moments[known], plan.shares))
    sides = np.full(len(moments), NOWHERE, np.int64)
    cuts = np.array([cut.tz_localize(None).to_datetime64() for cut in plan.cuts], "datetime64[us]")
    sides[known] = np.searchsorted(cuts, moments[known], side="right")
    if plan.gap.value:
        half = np.timedelta64(-(-plan.gap.value // 2000), "us")  # half of it, in whole microseconds, rounded up
        for cut in cuts:
            sides[known & (np.abs(moments - cut) <= half)] = SET_ASIDE
    return sides, plan


def moments_of(column: Any) -> np.ndarray:
    """A column of dates as datetime64[us], UTC."""
    import pandas as pd

    return pd.DatetimeIndex(pd.to_datetime(column, utc=True)).tz_localize(None).to_numpy().astype("datetime64[us]")


def _even_cuts(moments: np.ndarray, shares: tuple[float, ...]) -> tuple[Any, ...]:
    """Moments before which the shares of all chips lie, each in the middle between two dates of chips."""
    import pandas as pd

    dates, counts = np.unique(moments, return_counts=True)
    # As near to the share as whole dates allow.
    before = np.cumsum(counts)[:-1]
    at = [int(np.abs(before - share * len(moments)).argmin()) for share in np.cumsum(shares)[:-1]] if len(before) else []
    if len(set(at)) < len(shares) - 1:
        raise ValueError(f"the chips have {len(dates)} dates, too few for {len(shares)} periods of these shares; pass cuts=")
    tick = np.timedelta64(1, "us")
    return tuple(pd.Timestamp(dates[n] + (dates[n + 1] - dates[n] + tick) // 2, tz="UTC") for n in at)


def _by_value(values: Any, plan: _Plan) -> np.ndarray:
    keys = value_keys(values)
    assert plan.shares is not None
    sides = np.searchsorted(np.cumsum(plan.shares)[:-1], unit(seeded(keys, plan.seed)), side="right")
    return np.where(values.isna().to_numpy(), NOWHERE, sides)


def _by_polygons(geometry: np.ndarray, plan: _Plan) -> tuple[np.ndarray, np.ndarray]:
    """(sides, area of each split's polygons)."""
    names = plan.by[plan.column]
    layer, names = plan.by[names.notna().to_numpy()], names.dropna()
    number = np.array([plan.names.index(str(name)) for name in names], np.int64)
    chip, polygon = polygon_at_centre(geometry, layer)
    sides = np.full(len(geometry), NOWHERE, np.int64)
    sides[chip] = number[polygon]
    sides[chip[number[polygon] != sides[chip]]] = SET_ASIDE
    return sides, np.bincount(number, areas(shapes_of(layer)), len(plan.names))


def _without_neighbours(geometry: np.ndarray, sides: np.ndarray, ranks: np.ndarray, buffer_km: float) -> np.ndarray:
    """``sides``, with chips set aside that are within the buffer of a chip that is kept and whose split has a lower rank."""
    sides = sides.copy()
    sides[empty(geometry)] = NOWHERE
    chord = chord_of(buffer_km + _MARGIN_KM)
    rows = np.flatnonzero(sides >= 0)
    shapes = Shapes.of(geometry[rows])
    kept: list[np.ndarray] = []
    for side in np.lexsort((np.arange(len(ranks)), -ranks))[::-1]:
        own = np.flatnonzero(sides[rows] == side)
        # Many dates of one place are one shape.
        _, first, shape = np.unique(shapes.key[own], return_index=True, return_inverse=True)
        first = own[first]
        chosen = np.concatenate(kept) if kept else np.empty(0, np.int64)
        beside = near(_tree(geometry, rows, shapes, first), _tree(geometry, rows, shapes, chosen), chord)
        sides[rows[own[beside[shape]]]] = SET_ASIDE
        kept.append(first[~beside])
    return sides


def _tree(geometry: np.ndarray, rows: np.ndarray, shapes: Shapes, some: np.ndarray) -> Tree:
    return Tree.of(geometry[rows[some]], Shapes(shapes.low[some], shapes.high[some], shapes.key[some]))


def _with_column(frame: Any, sides: np.ndarray, plan: _Plan) -> geopandas.GeoDataFrame:
    import pandas as pd
    import pyarrow as pa

    words = pa.array([*plan.names, BUFFER, None], pa.large_string())
    numbers = np.where(sides >= 0, sides, np.where(sides == SET_ASIDE, len(plan.names), len(plan.names) + 1))
    return frame.assign(**{plan.column: pd.arrays.ArrowStringArray(words.take(pa.array(numbers)))})
