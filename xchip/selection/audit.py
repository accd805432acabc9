"""`audit`: how far apart splits are, measured, and what they consist of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xchip.core.reduce import FRACTIONS
from xchip.indexing.opening.read import column_names
from xchip.selection.audit_dates import PlaceTimes, least_time, microseconds
from xchip.selection.audit_report import MOST_VALUES, AuditReport, Duplicates, Neighbours, SplitPair
from xchip.selection.inputs import chips_of, column_of, is_lazy, shapes_of
from xchip.selection.neighbours import MEASURED, Reach, Tree, empty, pair_distances, search
from xchip.selection.sphere import Shapes, chord_of, km_of
from xchip.selection.split import BUFFER, moments_of

if TYPE_CHECKING:
    from xchip.io.storage import StorageOptions

ENOUGH = 20_000
"""Places of two splits that are too near: there counting stops."""
EXAMPLES = 20
SAME_TIME_US = 60_000_000
"""Catalogues round an acquisition's time in different ways; a satellite is back after an hour and a half at the soonest."""
BALANCED = ("collection", "sensor", *FRACTIONS)
DAY_US = 86_400_000_000


def audit(
    index: Any,
    buffer_km: float = 0.0,
    *,
    gap: Any = None,
    column: str = "split",
    columns: Sequence[str] = (),
    ignore: Sequence[str] = (BUFFER,),
    storage: StorageOptions | None = None,
) -> AuditReport:
    """Measure how far apart the splits of an index are, and find what leaks from one to another.

    Every pair of chips counts, of any items, sensors, dates and CRSs; none is sampled. Distances are those between the
    footprints' outlines, on the sphere, never overstated (see `xchip.selection.sphere.EARTH_KM`) and right to half a metre.

    Parameters
    ----------
    index
        An index with a column of splits, in any form: a path, a GeoDataFrame, a dask-geopandas frame, a pyarrow Table.
    buffer_km
        Chips of different splits within this distance are a leak. Those that touch or overlap always are.
    gap
        Only chips that are no further apart in time are a leak, such as "30D" (a ``pandas.Timedelta``): for splits by time. A
        chip without a date is near all.
    column
        The column of splits.
    columns
        More columns whose balance is of interest, beside collection, sensor and the fractions.
    ignore
        Values of ``column`` that are no split. Neither is null.
    storage
        How a path is reached.

    Returns
    -------
    AuditReport
        ``report.ok`` is True where nothing leaks.

    Raises
    ------
    ValueError
        If the column is missing or says of no chip where it belongs, or if ``buffer_km`` or ``gap`` is negative.

    Examples
    --------
    >>> import xchip.testing
    >>> index = xchip.testing.synthetic_stack(shape=(512, 2560)).chips.index(256, item_id="scene")
    >>> index["split"] = ["train"] * 9 + ["test"] + ["train"] * 8 + ["buffer"] * 2
    >>> report = audit(index)
    >>> report.ok, report.leaks, report.pairs[0].distance_km
    (False, 2, 0.0)
    """
    import pandas as pd

    if not 0 <= buffer_km < 20_000:
        raise ValueError(f"buffer_km is a distance from 0 to 20,000 km, got {buffer_km!r}")
    apart = None if gap is None else pd.Timedelta(gap)
    if apart is not None and not apart >= pd.Timedelta(0):
        raise ValueError(f"gap is a length of time of 0 or more, got {gap!r}")
    if column not in column_names(index, storage=storage):
        raise ValueError(f"the index has no column {column!r} of splits; make one with xchip.split, or name another (column=)")
    wanted = list(dict.fromkeys(["geometry", column, "datetime", "item_id", "chip_id", *BALANCED, *columns]))
    frame = _frame(index, wanted, {column, *columns}, storage)
    labels = column_of(frame, column)
    geometry = shapes_of(frame)
    nowhere = empty(geometry)
    used = labels.notna().to_numpy() & ~labels.isin(list(ignore)).to_numpy() & ~nowhere
    left_out = labels[~used].astype(object).where(~nowhere[~used], "without footprint").fillna("none").value_counts()
    if not used.any():
        found = {value: int(count) for value, count in left_out.items()}
        raise ValueError(f"no chip is in a split: column {column!r} has {found}; make one with xchip.split")
    frame, geometry = frame[used], geometry[used]
    side, names = pd.factorize(labels[used], sort=True)
    chips = _chips(frame, geometry, side)
    trees = [_tree(chips, number) for number in range(len(names))]
    pairs = tuple(
        _compare(chips, trees, (a, b), (str(names[a]), str(names[b])), buffer_km, apart)
        for a in range(len(names))
        for b in range(a + 1, len(names))
    )
    return AuditReport(
        float(buffer_km),
        None if apart is None else str(apart),
        column,
        {str(name): _facts(frame[side == number], chips, number, columns) for number, name in enumerate(names)},
        {str(name): int(count) for name, count in left_out.items()},
        pairs,
        _duplicates(chips, frame),
    )


def _frame(index: Any, wanted: list[str], needed: set[str], storage: StorageOptions | None) -> Any:
    if hasattr(index, "columns") or hasattr(index, "column_names"):
        known = set(index.column_names if hasattr(index, "column_names") else index.columns)
        wanted = [name for name in wanted if name in known or name in needed]
        if is_lazy(index):
            index = index[[name for name in wanted if name in known]]
    return chips_of(index, wanted, storage=storage)


class _Chips(NamedTuple):
    """Chips of splits; places are their different footprints in each split."""

    geometry: np.ndarray
    shapes: Shapes
    side: np.ndarray
    """Number of each chip's split."""
    times: np.ndarray | None
    """Microseconds since 1970, int64; `xchip.selection.audit_dates.UNKNOWN` where there is none; None without dates."""
    place: np.ndarray
    """Number of each chip's place."""
    first: np.ndarray
    """A chip of each place."""
    names: np.ndarray
    """What chips are called."""


def _chips(frame: Any, geometry: np.ndarray, side: np.ndarray) -> _Chips:
    from xchip.selection.sphere import seeded

    shapes = Shapes.of(geometry)
    own = shapes.key.copy()
    for number in range(side.max() + 1):
        here = side == number
        own[here] = seeded(own[here], number)
    _, first, place = np.unique(own, return_index=True, return_inverse=True)
    times = microseconds(moments_of(frame["datetime"])) if "datetime" in frame.columns else None
    names = frame["chip_id"].array if "chip_id" in frame.columns else frame.index.array
    return _Chips(geometry, shapes, side, times, place, first, names)


def _tree(chips: _Chips, number: int) -> tuple[Tree, np.ndarray]:
    """The tree of a split's places, and their numbers in its order."""
    places = np.flatnonzero(chips.side[chips.first] == number)
    rows = chips.first[places]
    shapes = Shapes(chips.shapes.low[rows], chips.shapes.high[rows], chips.shapes.key[rows])
    tree = Tree.of(chips.geometry[rows], shapes)
    return tree, places[tree.position]


def _compare(
    chips: _Chips,
    trees: Sequence[tuple[Tree, np.ndarray]],
    numbers: tuple[int, int],
    names: tuple[str, str],
    buffer_km: float,
    gap: Any,
) -> SplitPair:
    (a, places_a), (b, places_b) = (trees[number] for number in numbers)
    buffer = chord_of(buffer_km)
    reach = Reach(buffer, nearest=gap is None)
    times = None if gap is None else PlaceTimes.of(chips.place, chips.times)
    limit = None if gap is None else gap.value // 1000
    leaking = np.zeros(len(chips.first), bool)
    found = _Found()

    def visit(i: np.ndarray, j: np.ndarray, least: np.ndarray) -> bool:
        for start in range(0, len(i), MEASURED):
            some = slice(start, start + MEASURED)
            open_ = least[some] <= reach.chord
            if times is None:
                open_ &= ~(leaking[places_a[i[some]]] & leaking[places_b[j[some]]])
            near_i, near_j = i[some][open_], j[some][open_]
            if not len(near_i):
                continue
            one, other = places_a[near_i], places_b[near_j]
            chords = pair_distances(a, b, near_i, near_j, reach.chord)
            bad = chords <= buffer
            if times is not None and bad.any():
                apart = times.least(one[bad], other[bad])
                found.time = min(found.time, int(apart.min()))
                bad[bad] = apart <= limit
            counted = bad if times is not None else np.ones(len(bad), bool)
            found.add(one[counted], other[counted], chords[counted], buffer)
            if counted.any():
                reach.lower(float(chords[counted].min()))
            leaking[one[bad]] = leaking[other[bad]] = True
            if np.count_nonzero(leaking) >= ENOUGH:
                found.stopped = True
                return False
        return True

    search(a, b, reach, visit)
    sides = [chips.side == number for number in numbers]
    if times is None:
        time = None if chips.times is None else least_time(chips.times[sides[0]], chips.times[sides[1]])
    else:
        time = found.time if found.time < _Found.time else None
    rows = chips.first
    examples = tuple(
        Neighbours((str(chips.names[rows[one]]), str(chips.names[rows[other]])), float(km_of(chord)))
        for chord, one, other in found.nearest
    )
    distance = float(km_of(found.nearest[0][0])) if found.nearest else None
    leaks = int(np.count_nonzero(leaking[chips.place]))
    return SplitPair(names, distance, None if time is None else time / DAY_US, leaks, found.stopped, examples)


class _Found:
    """The nearest pairs so far."""

    time = np.iinfo(np.int64).max

    def __init__(self) -> None:
        self.nearest: list[tuple[float, int, int]] = []
        self.stopped = False

    def add(self, one: np.ndarray, other: np.ndarray, chords: np.ndarray, buffer: float) -> None:
        """Keep the nearest of all, and more only of those that are too near."""
        best = np.argsort(chords, kind="stable")[:EXAMPLES]
        more = list(zip(chords[best].tolist(), one[best].tolist(), other[best].tolist(), strict=True))
        every = sorted([*self.nearest, *more])
        self.nearest = [pair for number, pair in enumerate(every) if not number or pair[0] <= buffer][:EXAMPLES]


def _duplicates(chips: _Chips, frame: Any) -> Duplicates:
    if chips.times is None:
        return Duplicates(0, 0)
    order = np.lexsort((chips.times, chips.shapes.key))
    key, time, side = chips.shapes.key[order], chips.times[order], chips.side[order]
    known = time != np.iinfo(np.int64).min
    repeats = (key[1:] == key[:-1]) & known[1:] & known[:-1] & (time[1:] - time[:-1] <= SAME_TIME_US)
    across = repeats & (side[1:] != side[:-1])
    at = np.flatnonzero(repeats)
    at = at[np.argsort(~across[at], kind="stable")][:EXAMPLES]

    def name(row: int) -> str:
        collection = frame["collection"].iloc[row] if "collection" in frame.columns else None
        return f"{collection}/{chips.names[row]}" if isinstance(collection, str) else str(chips.names[row])

    examples = tuple((name(int(order[n])), name(int(order[n + 1]))) for n in at)
    return Duplicates(int(repeats.sum()), int(across.sum()), examples)


def _facts(rows: Any, chips: _Chips, number: int, columns: Sequence[str]) -> dict[str, Any]:
    """What a split consists of."""
    import pandas as pd

    here = chips.side == number
    facts: dict[str, Any] = {
        "chips": len(rows),
        "places": int((chips.side[chips.first] == number).sum()),
        "items": int(rows["item_id"].nunique()) if "item_id" in rows.columns else 0,
        "from": None,
        "to": None,
        "means": {},
        "values": {},
    }
    if chips.times is not None:
        known = chips.times[here][chips.times[here] != np.iinfo(np.int64).min]
        if known.size:
            first, last = (pd.Timestamp(int(moment), unit="us", tz="UTC") for moment in (known.min(), known.max()))
            facts |= {"from": first.isoformat(), "to": last.isoformat()}
    for name in dict.fromkeys([*BALANCED, *columns]):
        if name not in rows.columns:
            continue
        if pd.api.types.is_numeric_dtype(rows[name].dtype):
            mean = float(rows[name].mean())
            facts["means"][name] = mean if np.isfinite(mean) else None
        else:
            shares = rows[name].value_counts(normalize=True, dropna=False).head(MOST_VALUES)
            facts["values"][name] = {"none" if pd.isna(value) else str(value): float(part) for value, part in shares.items()}
    return facts
