"""`series`: one place through time, as rows of an index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from xchip.core.limits import Limits
from xchip.core.reduce import FRACTIONS
from xchip.indexing.rows import SERIES
from xchip.selection.audit_dates import UNKNOWN, microseconds
from xchip.selection.inputs import chips_of, column_of
from xchip.selection.series_places import COLUMNS, places_of
from xchip.selection.series_versions import UNTOLD, baselines_of, versions_of
from xchip.selection.series_windows import edges_of, moment
from xchip.selection.split import moments_of

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

    from xchip.io.storage import StorageOptions
    from xchip.selection.series_places import Places

Choose = Literal["clear", "cloud", "centre", "first", "last"]

SERIES_ATTRIBUTE = "xchip_series"
"""Key of a frame's ``attrs``: JSON with the number of places and steps, and what became of all chips."""

_NEEDED = (*COLUMNS, "collection", "sensor", "datetime", *FRACTIONS)


def series(
    index: Any,
    *,
    window: Any = None,
    start: Any = None,
    end: Any = None,
    length: int | None = None,
    min_steps: int | None = None,
    choose: Choose = "clear",
    max_nodata: float | None = None,
    max_defective: float | None = None,
    max_cloud: float | None = None,
    max_shadow: float | None = None,
    max_snow: float | None = None,
    max_water: float | None = None,
    min_clear: float | None = None,
    same_time: Any = "60s",
    baseline: str | None = None,
    storage: StorageOptions | None = None,
) -> geopandas.GeoDataFrame:
    """Join the chips of each place into a sequence of dates: rows that `xchip.open_chips` gives as (chip, time, y, x).

    Chips are of one place if they have the same pixels: CRS, resolution, size and edges agree, to a hundredth of a pixel. Those
    of ``anchor="crs"`` do, wherever their scenes begin. All sensors that share pixels are joined; choose rows first for one
    alone.

    Each acquisition counts once. Chips of one place and sensor (or, where that is not known, collection) within ``same_time``
    are one acquisition: of overlapping tiles, of reprocessed products, of two catalogues. The one of the newest processing
    baseline is taken, then the one that was made last, then the one with the most clear pixels, then the one whose item and
    collection come first in the alphabet. Baseline and date are those that ids of ESA's, USGS's and NASA's products tell; what
    is not told counts as oldest.

    What is done, in order: dates outside of ``start`` and ``end`` and chips above ``max_nodata`` are left out, acquisitions are
    made one, the other limits decide whether what was taken will do, one is chosen for each period, places with too few are
    left out.

    Parameters
    ----------
    index
        An index in any form: a path, a GeoDataFrame, a dask-geopandas frame (which is computed), a pyarrow Table.
    window
        Periods, of which each gives one step: a length of time such as "30D"; "month", "quarter", "year", or a number of these,
        such as "2 months"; or edges, a list of dates of which each two that follow each other hold a period. Step 0 is the
        first period of the index (or from ``start``), for all places. None: each acquisition is a step, and step 0 is the first
        one of the place.
    start, end
        Only acquisitions from ``start`` on, and before ``end``: dates, in UTC if they have no zone. Periods begin at ``start``,
        else at midnight UTC of the index's first date, or with its month, quarter or year.
    length
        Number of steps. With ``window``: of periods. Without: places that have more keep those that ``choose`` prefers.
    min_steps
        Places with fewer steps are left out; by default ``length``, or 1 without it. The others have gaps.
    choose
        Which of several: the one with the most "clear" pixels, the least "cloud" fraction, nearest to the "centre" of the period,
        the "first" or the "last". Of equal ones the one with more clear pixels, then the earlier.
    max_nodata, max_defective, max_cloud, max_shadow, max_snow, max_water, min_clear
        Limits of the fractions, as for an index.
    same_time
        Dates of one acquisition are at most so far apart, one to the next. Items that bear the date of the whole strip, as
        Planetary Computer's of Sentinel-2 do, can be half an hour off those of other catalogues.
    baseline
        Name of a column that tells the baseline, such as 5.09 or "05.09", in place of ids.
    storage
        How a path is reached.

    Returns
    -------
    geopandas.GeoDataFrame
        Rows of the index, an index again, sorted by place, then time, with the columns ``place_id`` (CRS, resolution, size and
        upper left corner, counted in pixels from the CRS's origin), ``step`` (int32, from 0; each once a place) and ``steps``
        (int32: number of steps, the same in all rows). Places are sorted by CRS, resolution and size, from north to south, from
        west to east. ``attrs["xchip_series"]`` is JSON: how many places, and how many chips were kept and left out for which
        reason.

    Raises
    ------
    ValueError
        If chips overlap and can't be of one place, as those of ``anchor="origin"``; if they have no CRS; if options make no
        sense.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     items = [
    ...         xchip.testing.write_scene(folder, item_id=f"synthetic-{month}", shape=(256, 256), datetime=f"2024-0{month}-11")
    ...         for month in (3, 4, 6)
    ...     ]
    ...     index = xchip.index_items(items, size=128, anchor="crs")
    ...     rows = series(index, window="month", min_steps=2)
    >>> rows[["item_id", "step"]].head(3).values.tolist()
    [['synthetic-3', 0], ['synthetic-4', 1], ['synthetic-6', 3]]
    >>> rows.place_id[0], int(rows.steps[0])
    ('EPSG:32719/10/128x128/50048/-640000', 4)
    """
    limits = Limits(max_nodata, max_defective, max_cloud, max_shadow, max_snow, max_water, min_clear)
    frame = chips_of(index, storage=storage)
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise ValueError(f"the index has no columns {missing}; it has {list(frame.columns)}")
    plan = _plan(frame, window, start, end, length, min_steps, choose)
    apart = _time_apart(same_time)
    chips = _chips(frame, baseline)
    tally = _Tally(np.arange(len(frame)))
    tally.keep("undated", chips.time != UNKNOWN)
    tally.keep("outside", _inside(chips.time, plan.start, plan.end))
    if max_nodata is not None:
        tally.keep("nodata", frame["nodata_fraction"].to_numpy() <= max_nodata)
    tally.keep_rows("duplicates", _one_each(chips, tally.rows, apart))
    fractions = np.stack([frame[name].to_numpy(np.float64)[tally.rows] for name in FRACTIONS])
    tally.keep_rows("limits", tally.rows[limits.keep(fractions)])
    rows, step, steps = _steps(chips, tally, plan)
    order = np.lexsort((step, chips.place[rows]))
    rows, step = rows[order], step[order]
    kept = frame.iloc[rows].reset_index(drop=True).drop(columns=list(SERIES), errors="ignore")
    ids = _text(chips.places.ids(rows))
    kept = kept.assign(**dict(zip(SERIES, (ids, step.astype(np.int32), np.full(len(rows), steps, np.int32)), strict=True)))
    facts = {"chips": len(frame), "kept": len(rows), "places": len(np.unique(chips.place[rows])), "steps": steps}
    kept.attrs[SERIES_ATTRIBUTE] = json.dumps(facts | {"left_out": tally.left_out})
    return kept


class _Plan(NamedTuple):
    start: int | None
    end: int | None
    edges: np.ndarray | None
    """Where periods begin and the last one ends; None: each acquisition is a step."""
    length: int | None
    min_steps: int
    choose: Choose


class _Chips(NamedTuple):
    """What decides, an array each: a value a chip."""

    places: Places
    time: np.ndarray
    """Microseconds since 1970; `UNKNOWN` without a date."""
    product: np.ndarray
    """Number of sensor or collection."""
    baseline: np.ndarray
    made: np.ndarray
    clear: np.ndarray
    """Clear pixels."""
    cloud: np.ndarray
    """Fraction; infinite where no pixel is valid."""
    name: np.ndarray
    """Place of item and collection in the alphabet."""

    @property
    def place(self) -> np.ndarray:
        return self.places.number


class _Tally:
    """The rows that are left, and how many each reason took."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.left_out: dict[str, int] = {}

    def keep(self, reason: str, fits: np.ndarray) -> None:
        """Keep those of the rows that are left which fit: bool, a value for each chip of the index."""
        self.keep_rows(reason, self.rows[fits[self.rows]])

    def keep_rows(self, reason: str, rows: np.ndarray) -> None:
        """Keep ``rows``."""
        self.left_out[reason] = len(self.rows) - len(rows)
        self.rows = rows


def _plan(
    frame: pd.DataFrame, window: Any, start: Any, end: Any, length: int | None, min_steps: int | None, choose: Choose
) -> _Plan:
    for name, value in (("length", length), ("min_steps", min_steps)):
        if value is not None and (value != int(value) or value < 1):
            raise ValueError(f"{name} is a number of steps, at least 1, got {value!r}")
    if choose not in get_args(Choose):
        raise ValueError(f"choose must be one of {get_args(Choose)}, got {choose!r}")
    if choose == "centre" and window is None:
        raise ValueError('choose="centre" is for periods; give window=, or choose by "clear", "cloud", "first" or "last"')
    first, last = (None if value is None else moment(value, name) for name, value in (("start", start), ("end", end)))
    if first is not None and last is not None and first >= last:
        raise ValueError(f"start is before end, got {start!r} and {end!r}")
    least = length or 1 if min_steps is None else min_steps
    if window is None:
        if length is not None and least > length:
            raise ValueError(f"places can't have {least} steps of {length}; lower min_steps or raise length")
        return _Plan(first, last, None, length, least, choose)
    times = microseconds(moments_of(frame["datetime"]))
    times = times[(times != UNKNOWN) & _inside(times, first, last)]
    edges = edges_of(window, times, start=first, end=last, length=length)
    if times.size and least >= len(edges):
        raise ValueError(f"places can't have {least} steps of {len(edges) - 1} periods; lower min_steps or make window= shorter")
    # The last period may go on after `end`.
    stop = int(edges[-1]) if last is None else min(last, int(edges[-1]))
    return _Plan(int(edges[0]), stop, edges, length, least, choose)


def _time_apart(same_time: Any) -> int:
    import pandas as pd

    try:
        apart = pd.Timedelta(same_time)
    except (TypeError, ValueError) as error:
        raise ValueError(f"same_time is a length of time such as '60s', got {same_time!r}") from error
    if not apart >= pd.Timedelta(0):
        raise ValueError(f"same_time is a length of time of 0 or more, got {same_time!r}")
    return int(apart.value // 1000)


def _inside(times: np.ndarray, start: int | None, end: int | None) -> np.ndarray:
    inside = np.ones(len(times), bool)
    if start is not None:
        inside &= times >= start
    if end is not None:
        inside &= times < end
    return inside


def _chips(frame: pd.DataFrame, baseline: str | None) -> _Chips:
    import pandas as pd

    places = places_of(frame)
    sensor, sensors = pd.factorize(frame["sensor"])
    collection, _ = pd.factorize(frame["collection"], sort=True)
    item, items = pd.factorize(frame["item_id"], sort=True)
    by_id, made = (np.append(values, UNTOLD)[item] for values in versions_of(items))
    pixels = frame["width"].to_numpy(np.int64) * frame["height"].to_numpy(np.int64)
    clear = frame["clear_fraction"].to_numpy(np.float64) * (1 - frame["nodata_fraction"].to_numpy(np.float64))
    cloud = frame["cloud_fraction"].to_numpy(np.float64)
    return _Chips(
        places=places,
        time=microseconds(moments_of(frame["datetime"])),
        product=np.where(sensor >= 0, sensor, len(sensors) + 1 + collection),
        baseline=by_id if baseline is None else baselines_of(column_of(frame, baseline)),
        made=made,
        clear=np.rint(np.nan_to_num(clear) * pixels),  # whole numbers: products of fractions are not quite equal
        cloud=np.where(np.isnan(cloud), np.inf, cloud),
        name=item * np.int64(collection.max(initial=0) + 2) + collection,
    )


def _one_each(chips: _Chips, rows: np.ndarray, apart: int) -> np.ndarray:
    """One chip of each acquisition."""
    kind = chips.place[rows] * np.int64(chips.product.max(initial=0) + 1) + chips.product[rows]
    order = np.lexsort((chips.time[rows], kind))
    rows, kind = rows[order], kind[order]
    new = (np.diff(kind) != 0) | (np.diff(chips.time[rows]) > apart)
    number = np.append(0, np.cumsum(new))[: len(rows)]
    # Few acquisitions come twice; the others need not be sorted again.
    several = np.bincount(number)[number] > 1
    some = rows[several]
    ranks = [-chips.baseline[some], -chips.made[some], -chips.clear[some], chips.name[some]]
    return np.concatenate([rows[~several], some[_first(number[several], ranks)]])


def _first(group: np.ndarray, ranks: Sequence[np.ndarray], most: int = 1) -> np.ndarray:
    """Positions of the first ``most`` of each group, by ``ranks``, the first of which matters most; smaller is better."""
    order = np.lexsort((*reversed(ranks), group))
    return order[_place_in(group[order]) < most]


def _place_in(group: np.ndarray) -> np.ndarray:
    """Position of each in its group; those of one follow each other."""
    new = np.append(True, np.diff(group) != 0)[: len(group)]
    begin = np.flatnonzero(new)
    return np.arange(len(group)) - begin[np.cumsum(new) - 1]


def _steps(chips: _Chips, tally: _Tally, plan: _Plan) -> tuple[np.ndarray, np.ndarray, int]:
    """(rows, step of each, number of steps): one row a place and step, of places that have enough."""
    rows = tally.rows
    if plan.edges is not None:
        steps = len(plan.edges) - 1
        step = np.searchsorted(plan.edges, chips.time[rows], side="right") - 1
        slot = chips.place[rows] * np.int64(steps) + step
        centre = (plan.edges[:-1] + plan.edges[1:])[step] // 2 if steps else step
        best = _first(slot, _ranks(chips, rows, plan.choose, centre))
        rows, step = rows[best], step[best]
    else:
        if plan.length is not None:
            rows = rows[_first(chips.place[rows], _ranks(chips, rows, plan.choose, None), plan.length)]
        rows = rows[np.lexsort((chips.name[rows], chips.time[rows], chips.place[rows]))]
        step = _place_in(chips.place[rows])
        steps = plan.length or int(step.max(initial=-1)) + 1
    tally.keep_rows("not chosen", rows)
    _, place = np.unique(chips.place[rows], return_inverse=True)
    enough = np.bincount(place)[place] >= plan.min_steps if len(rows) else np.zeros(0, bool)
    tally.keep_rows("too few steps", rows[enough])
    if plan.edges is None and plan.length is None:
        steps = int(step[enough].max(initial=-1)) + 1
    return rows[enough], step[enough], steps


def _ranks(chips: _Chips, rows: np.ndarray, choose: Choose, centre: np.ndarray | None) -> list[np.ndarray]:
    """What decides which chip is chosen, smaller being better; what matters most comes first."""
    time = chips.time[rows]
    own = {"clear": [], "cloud": [chips.cloud[rows]], "first": [time], "last": [-time]}
    first = [np.abs(time - centre)] if choose == "centre" else own[choose]
    return [*first, -chips.clear[rows], time, chips.name[rows]]


def _text(column: Any) -> Any:
    import pandas as pd

    return pd.arrays.ArrowStringArray(column)
