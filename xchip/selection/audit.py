"""`audit`: measure the distances between splits, and describe what each split consists of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xchip.core.reduce import FRACTIONS
from xchip.core.types import IndexLike
from xchip.indexing.opening.read import column_names
from xchip.selection.audit_report import MOST_VALUES, AuditReport, Duplicates, Neighbours, SplitFacts, SplitPair
from xchip.selection.dates import UNKNOWN, Duration, PlaceTimes, least_time, microseconds, timedelta_of
from xchip.selection.inputs import chips_of, column_of, shapes_of
from xchip.selection.neighbours import MEASURED, Reach, Tree, empty, pair_distances, search
from xchip.selection.sphere import Shapes, chord_of, km_of, seeded
from xchip.selection.split import BUFFER

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

    from xchip.io.storage import StorageOptions

ENOUGH = 20_000
"""Counting stops at this number of places of two splits that are too near."""
EXAMPLES = 20
SAME_TIME_US = 60_000_000
"""Catalogues round the time of an acquisition differently; a satellite returns after an hour and a half at the earliest."""
BALANCED = ("collection", "sensor", *FRACTIONS)
DAY_US = 86_400_000_000


def audit(
    index: IndexLike,
    buffer_km: float = 0.0,
    *,
    gap: Duration | None = None,
    column: str = "split",
    columns: Sequence[str] = (),
    ignore: Sequence[str] = (BUFFER,),
    storage: StorageOptions | None = None,
) -> AuditReport:
    """Measure the distances between the splits of an index, and find leaks from one split to another.

    Every pair of chips counts, across items, sensors, dates and CRSs; none is sampled. Distances are measured between the
    outlines of footprints, on the sphere. They are never overstated (see `xchip.selection.sphere.EARTH_KM`) and correct to half
    a metre.

    Parameters
    ----------
    index
        An index with a column of splits, in any form: a path, a GeoDataFrame, a dask-geopandas frame, a pyarrow Table.
    buffer_km
        Chips of different splits within this distance are a leak. Chips that touch or overlap always are.
    gap
        Only chips within this time of each other are a leak, such as "30D" (a ``pandas.Timedelta``): for splits by time. A chip
        without a date is within any gap.
    column
        The column of splits.
    columns
        Further columns to compare between splits, besides collection, sensor and the fractions.
    ignore
        Values of ``column`` that are not splits; null never is.
    storage
        How to reach a path.

    Returns
    -------
    AuditReport
        ``report.ok`` is True if nothing leaks.

    Raises
    ------
    ValueError
        If the column is missing or assigns no chip to a split, or if ``buffer_km`` or ``gap`` is negative.

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
    longest = None if gap is None else timedelta_of(gap, "gap")
    present = column_names(index, storage=storage)
    if column not in present:
        raise ValueError(f"the index has no column {column!r} of splits; make one with xchip.split, or name another with column=")
    wanted = list(dict.fromkeys(["geometry", column, "datetime", "item_id", "chip_id", *BALANCED, *columns]))
    frame = chips_of(index, [name for name in wanted if name in present or name in columns], storage=storage)
    labels = column_of(frame, column)
    geometry = shapes_of(frame)
    nowhere = empty(geometry)
    used = labels.notna().to_numpy() & ~labels.isin(list(ignore)).to_numpy() & ~nowhere
    left_out = labels[~used].astype(object).where(~nowhere[~used], "without footprint").fillna("none").value_counts()
    if not used.any():
        counts = {value: int(count) for value, count in left_out.items()}
        raise ValueError(f"no chip is in a split: column {column!r} has {counts}; make one with xchip.split")
    frame, geometry = frame[used], geometry[used]
    side, names = pd.factorize(labels[used], sort=True)
    chips = _chips(frame, geometry, side)
    trees = [_tree(chips, number) for number in range(len(names))]
    pairs = tuple(
        _compare(chips, trees, (a, b), (str(names[a]), str(names[b])), buffer_km, longest)
        for a in range(len(names))
        for b in range(a + 1, len(names))
    )
    return AuditReport(
        float(buffer_km),
        None if longest is None else str(longest),
        column,
        {str(name): _facts(frame[side == number], chips, number, columns) for number, name in enumerate(names)},
        {str(name): int(count) for name, count in left_out.items()},
        pairs,
        _duplicates(chips, frame),
    )


class _Chips(NamedTuple):
    """Chips of splits. A place is a distinct footprint in a split."""

    geometry: np.ndarray
    shapes: Shapes
    side: np.ndarray
    """Number of each chip's split."""
    times: np.ndarray | None
    """Microseconds since 1970, int64, or `xchip.selection.dates.UNKNOWN`; None without dates."""
    place: np.ndarray
    """Number of each chip's place."""
    first: np.ndarray
    """A chip of each place."""
    names: np.ndarray
    """Name of each chip."""


def _chips(frame: geopandas.GeoDataFrame, geometry: np.ndarray, side: np.ndarray) -> _Chips:
    shapes = Shapes.of(geometry)
    keys = shapes.key.copy()
    for number in range(side.max() + 1):
        members = side == number
        keys[members] = seeded(keys[members], number)
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    times = microseconds(frame["datetime"]) if "datetime" in frame.columns else None
    names = frame["chip_id"].array if "chip_id" in frame.columns else frame.index.array
    return _Chips(geometry, shapes, side, times, place, first, names)


def _tree(chips: _Chips, number: int) -> tuple[Tree, np.ndarray]:
    """Return the tree of a split's places, and their numbers in its order."""
    places = np.flatnonzero(chips.side[chips.first] == number)
    rows = chips.first[places]
    tree = Tree.of(chips.geometry[rows], chips.shapes.take(rows))
    return tree, places[tree.position]


def _compare(
    chips: _Chips,
    trees: Sequence[tuple[Tree, np.ndarray]],
    numbers: tuple[int, int],
    names: tuple[str, str],
    buffer_km: float,
    gap: pd.Timedelta | None,
) -> SplitPair:
    (a, places_a), (b, places_b) = (trees[number] for number in numbers)
    buffer = chord_of(buffer_km)
    reach = Reach(buffer, nearest=gap is None)
    times = None if gap is None else PlaceTimes.of(chips.place, chips.times)
    limit = 0 if gap is None else gap.value // 1000
    leaking = np.zeros(len(chips.first), bool)
    nearest = _Nearest()

    def visit(i: np.ndarray, j: np.ndarray, least: np.ndarray) -> bool:
        for start in range(0, len(i), MEASURED):
            chunk = slice(start, start + MEASURED)
            open_ = least[chunk] <= reach.chord
            if times is None:
                open_ &= ~(leaking[places_a[i[chunk]]] & leaking[places_b[j[chunk]]])
            near_i, near_j = i[chunk][open_], j[chunk][open_]
            if not len(near_i):
                continue
            place_i, place_j = places_a[near_i], places_b[near_j]
            chords = pair_distances(a, b, near_i, near_j, reach.chord)
            bad = chords <= buffer
            if times is not None and bad.any():
                apart = times.least(place_i[bad], place_j[bad])
                nearest.time = min(nearest.time, int(apart.min()))
                bad[bad] = apart <= limit
            counted = bad if times is not None else np.ones(len(bad), bool)
            nearest.add(place_i[counted], place_j[counted], chords[counted], buffer)
            if counted.any():
                reach.lower(float(chords[counted].min()))
            leaking[place_i[bad]] = leaking[place_j[bad]] = True
            if np.count_nonzero(leaking) >= ENOUGH:
                nearest.stopped = True
                return False
        return True

    search(a, b, reach, visit)
    time: int | None = nearest.time if nearest.time < _Nearest.time else None
    if times is None and chips.times is not None:
        time = least_time(*(chips.times[chips.side == number] for number in numbers))
    examples = tuple(
        Neighbours((str(chips.names[chips.first[place_a]]), str(chips.names[chips.first[place_b]])), float(km_of(chord)))
        for chord, place_a, place_b in nearest.pairs
    )
    distance = float(km_of(nearest.pairs[0][0])) if nearest.pairs else None
    leaks = int(np.count_nonzero(leaking[chips.place]))
    return SplitPair(names, distance, None if time is None else time / DAY_US, leaks, nearest.stopped, examples)


class _Nearest:
    """The nearest pairs of places so far."""

    time = np.iinfo(np.int64).max

    def __init__(self) -> None:
        self.pairs: list[tuple[float, int, int]] = []
        self.stopped = False

    def add(self, places_a: np.ndarray, places_b: np.ndarray, chords: np.ndarray, buffer: float) -> None:
        """Keep the nearest pair, and further pairs that are too near."""
        best = np.argsort(chords, kind="stable")[:EXAMPLES]
        new = zip(chords[best].tolist(), places_a[best].tolist(), places_b[best].tolist(), strict=True)
        ranked = sorted([*self.pairs, *new])
        self.pairs = [pair for number, pair in enumerate(ranked) if not number or pair[0] <= buffer][:EXAMPLES]


def _duplicates(chips: _Chips, frame: geopandas.GeoDataFrame) -> Duplicates:
    if chips.times is None:
        return Duplicates(0, 0)
    order = np.lexsort((chips.times, chips.shapes.key))
    key, time, side = chips.shapes.key[order], chips.times[order], chips.side[order]
    dated = time != UNKNOWN
    repeats = (key[1:] == key[:-1]) & dated[1:] & dated[:-1] & (time[1:] - time[:-1] <= SAME_TIME_US)
    across = repeats & (side[1:] != side[:-1])
    shown = np.flatnonzero(repeats)
    shown = shown[np.argsort(~across[shown], kind="stable")][:EXAMPLES]

    def name(row: int) -> str:
        collection = frame["collection"].iloc[row] if "collection" in frame.columns else None
        return f"{collection}/{chips.names[row]}" if isinstance(collection, str) else str(chips.names[row])

    examples = tuple((name(int(order[n])), name(int(order[n + 1]))) for n in shown)
    return Duplicates(int(repeats.sum()), int(across.sum()), examples)


def _facts(rows: geopandas.GeoDataFrame, chips: _Chips, number: int, columns: Sequence[str]) -> SplitFacts:
    """Describe a split."""
    import pandas as pd

    facts: SplitFacts = {
        "chips": len(rows),
        "places": int((chips.side[chips.first] == number).sum()),
        "items": int(rows["item_id"].nunique()) if "item_id" in rows.columns else 0,
        "from": None,
        "to": None,
        "means": {},
        "values": {},
    }
    if chips.times is not None:
        dates = chips.times[(chips.side == number) & (chips.times != UNKNOWN)]
        if dates.size:
            facts["from"], facts["to"] = (
                pd.Timestamp(int(moment), unit="us", tz="UTC").isoformat() for moment in (dates.min(), dates.max())
            )
    for name in dict.fromkeys([*BALANCED, *columns]):
        if name not in rows.columns:
            continue
        if pd.api.types.is_numeric_dtype(rows[name].dtype):
            mean = float(rows[name].mean())
            facts["means"][name] = mean if np.isfinite(mean) else None
        else:
            shares = rows[name].value_counts(normalize=True, dropna=False).head(MOST_VALUES)
            facts["values"][name] = {"none" if pd.isna(value) else str(value): float(share) for value, share in shares.items()}
    return facts
