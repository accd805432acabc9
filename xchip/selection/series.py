"""`series`: join the chips of each place into a sequence of dates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Unpack, get_args

import numpy as np

from xchip.core.limits import LimitOptions, Limits
from xchip.core.options import check_options
from xchip.core.reduce import FRACTIONS
from xchip.core.types import IndexLike
from xchip.indexing.rows import SERIES
from xchip.selection.dates import UNKNOWN, Date, Duration, microseconds, timedelta_of
from xchip.selection.inputs import chips_of, column_of
from xchip.selection.series_places import COLUMNS, places_of
from xchip.selection.series_versions import UNTOLD, baselines_of, versions_of
from xchip.selection.series_windows import Window, edges_of, moment

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

    from xchip.io.storage import StorageOptions
    from xchip.selection.series_places import Places

Choose = Literal["clear", "cloud", "centre", "first", "last"]
"""Preferred chip of several."""

SERIES_ATTRIBUTE = "xchip_series"
"""Key of a frame's ``attrs``: JSON with the number of places, steps, and chips kept and left out."""

_NEEDED = (*COLUMNS, "collection", "sensor", "datetime", *FRACTIONS)


def series(
    index: IndexLike,
    *,
    window: Window | None = None,
    start: Date | None = None,
    end: Date | None = None,
    length: int | None = None,
    min_steps: int | None = None,
    choose: Choose = "clear",
    same_time: Duration = "60s",
    baseline: str | None = None,
    storage: StorageOptions | None = None,
    **limits: Unpack[LimitOptions],
) -> geopandas.GeoDataFrame:
    """Join the chips of each place into a sequence of dates; `xchip.open_chips` opens the result as (chip, time, y, x).

    Chips belong to the same place if they have the same pixels: CRS, resolution, size and edges agree to a hundredth of a pixel.
    Chips made with ``anchor="crs"`` do, wherever their scenes begin. All sensors that share pixels are joined; filter the index
    first to use a single sensor.

    Each acquisition counts once. Chips of the same place and sensor (or collection, if the sensor is unknown) within
    ``same_time`` are one acquisition: from overlapping tiles, reprocessed products or two catalogues. Of these the chip with the
    newest processing baseline is taken, then the latest production date, then the most clear pixels, then the first item and
    collection in alphabetical order. Baseline and production date are read from the ids of products of ESA, USGS and NASA; an
    unknown one counts as oldest.

    The steps, in order: drop dates before ``start`` and from ``end`` on, and chips above ``max_nodata``; keep one chip per
    acquisition; drop chips that fail the other limits; choose one chip per period; drop places with too few steps.

    Parameters
    ----------
    index
        An index in any form: a path, a GeoDataFrame, a dask-geopandas frame (it is computed), a pyarrow Table.
    window
        Periods, which give one step each: a length of time such as "30D"; "month", "quarter", "year", or a number of these, such
        as "2 months"; or the edges of the periods, as increasing dates. Step 0 is the first period of the index (or from
        ``start``), for all places. None: each acquisition is a step, and step 0 is the first acquisition of the place.
    start, end
        Keep acquisitions from ``start`` on and before ``end``: dates, in UTC if they have no zone. Periods begin at ``start``;
        by default at midnight UTC of the first date, or with its month, quarter or year.
    length
        Number of steps. With ``window``: number of periods. Without: places with more acquisitions keep those that ``choose``
        prefers.
    min_steps
        Places with fewer steps are left out; by default ``length``, or 1 without it. Places with fewer than ``length`` have gaps.
    choose
        Preferred chip: the most "clear" pixels, the smallest "cloud" fraction, nearest to the "centre" of the period, the "first"
        or the "last". Ties are broken by the number of clear pixels, then by the earlier date.
    same_time
        Largest difference between consecutive dates of an acquisition. Items dated by the whole strip, such as Planetary
        Computer's of Sentinel-2, can differ by half an hour from those of other catalogues.
    baseline
        Name of a column with the processing baseline, such as 5.09 or "05.09", used instead of the ids.
    storage
        How to reach a path.
    **limits
        ``max_nodata``, ``max_defective``, ``max_cloud``, ``max_shadow``, ``max_snow``, ``max_water`` and ``min_clear``: limits
        of the fractions, as for `xchip.index_items`.

    Returns
    -------
    geopandas.GeoDataFrame
        Rows of the index, sorted by place, then time, with the columns ``place_id`` (CRS, resolution, size and upper left corner,
        counted in pixels from the CRS's origin), ``step`` (int32, from 0, unique within a place) and ``steps`` (int32: number of
        steps, the same in all rows). It is an index itself. Places are sorted by CRS, resolution and size, from north to south,
        from west to east. ``attrs["xchip_series"]`` is JSON: the number of places, and of chips kept and left out by reason.

    Raises
    ------
    TypeError
        If a keyword is unknown.
    ValueError
        If chips overlap but never coincide, such as those made with ``anchor="origin"``; if chips have no CRS; if options are
        invalid.

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
    import pandas as pd

    check_options(series, limits, LimitOptions)
    limit = Limits(**limits)
    for name, number in (("length", length), ("min_steps", min_steps)):
        if number is not None and (number != int(number) or number < 1):
            raise ValueError(f"{name} is a number of steps, at least 1, got {number!r}")
    if choose not in get_args(Choose):
        raise ValueError(f"choose must be one of {get_args(Choose)}, got {choose!r}")
    if choose == "centre" and window is None:
        raise ValueError('choose="centre" needs periods; give window=, or choose by "clear", "cloud", "first" or "last"')
    first, last = (None if date is None else moment(date, name) for name, date in (("start", start), ("end", end)))
    if first is not None and last is not None and first >= last:
        raise ValueError(f"start is before end, got start={start!r} and end={end!r}")
    longest = timedelta_of(same_time, "same_time").value // 1000
    frame = chips_of(index, storage=storage)
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise ValueError(f"the index has no columns {missing}; it has {list(frame.columns)}")
    chips = _chips(frame, baseline)
    plan = _plan(chips.time, window, first, last, length, (length or 1) if min_steps is None else min_steps, choose)
    tally = _Tally(np.arange(len(frame)))
    tally.keep("undated", chips.time != UNKNOWN)
    tally.keep("outside", _inside(chips.time, plan.start, plan.end))
    if limit.max_nodata is not None:
        tally.keep("nodata", frame["nodata_fraction"].to_numpy() <= limit.max_nodata)
    tally.keep_rows("duplicates", _acquisitions(chips, tally.rows, longest))
    fractions = np.stack([frame[name].to_numpy(np.float64)[tally.rows] for name in FRACTIONS])
    tally.keep_rows("limits", tally.rows[limit.keep(fractions)])
    rows, step, steps = _steps(chips, tally, plan)
    order = np.lexsort((step, chips.place[rows]))
    rows, step = rows[order], step[order]
    joined = frame.iloc[rows].reset_index(drop=True).drop(columns=list(SERIES), errors="ignore")
    ids = pd.arrays.ArrowStringArray(chips.places.ids(rows))
    columns = (ids, step.astype(np.int32), np.full(len(rows), steps, np.int32))
    joined = joined.assign(**dict(zip(SERIES, columns, strict=True)))
    facts = {"chips": len(frame), "kept": len(rows), "places": len(np.unique(chips.place[rows])), "steps": steps}
    joined.attrs[SERIES_ATTRIBUTE] = json.dumps(facts | {"left_out": tally.left_out})
    return joined


class _Plan(NamedTuple):
    start: int | None
    end: int | None
    edges: np.ndarray | None
    """Edges of the periods; None: each acquisition is a step."""
    length: int | None
    min_steps: int
    choose: Choose


class _Chips(NamedTuple):
    """Values by which chips are grouped and ranked: arrays (chips,)."""

    places: Places
    time: np.ndarray
    """Microseconds since 1970, or `UNKNOWN`."""
    product: np.ndarray
    """Number of sensor or collection."""
    baseline: np.ndarray
    made: np.ndarray
    clear: np.ndarray
    """Number of clear pixels."""
    cloud: np.ndarray
    """Fraction; infinite without valid pixels."""
    name: np.ndarray
    """Rank of item and collection in alphabetical order."""

    @property
    def place(self) -> np.ndarray:
        return self.places.number


class _Tally:
    """The remaining rows, and the number of rows dropped for each reason."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.left_out: dict[str, int] = {}

    def keep(self, reason: str, fits: np.ndarray) -> None:
        """Drop rows that do not fit: bool, a value for each chip of the index."""
        self.keep_rows(reason, self.rows[fits[self.rows]])

    def keep_rows(self, reason: str, rows: np.ndarray) -> None:
        """Drop all rows but ``rows``."""
        self.left_out[reason] = len(self.rows) - len(rows)
        self.rows = rows


def _plan(
    times: np.ndarray, window: Window | None, first: int | None, last: int | None, length: int | None, least: int, choose: Choose
) -> _Plan:
    if window is None:
        if length is not None and least > length:
            raise ValueError(f"places can't have {least} steps of {length}; lower min_steps or raise length")
        return _Plan(first, last, None, length, least, choose)
    times = times[(times != UNKNOWN) & _inside(times, first, last)]
    edges = edges_of(window, times, start=first, end=last, length=length)
    if times.size and least >= len(edges):
        raise ValueError(f"places can't have {least} steps of {len(edges) - 1} periods; lower min_steps or make window= shorter")
    # The last period may continue after `end`.
    stop = int(edges[-1]) if last is None else min(last, int(edges[-1]))
    return _Plan(int(edges[0]), stop, edges, length, least, choose)


def _inside(times: np.ndarray, start: int | None, end: int | None) -> np.ndarray:
    return (times >= (-np.inf if start is None else start)) & (times < (np.inf if end is None else end))


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
        time=microseconds(frame["datetime"]),
        product=np.where(sensor >= 0, sensor, len(sensors) + 1 + collection),
        baseline=by_id if baseline is None else baselines_of(column_of(frame, baseline)),
        made=made,
        clear=np.rint(np.nan_to_num(clear) * pixels),  # whole numbers, because products of fractions are not exactly equal
        cloud=np.where(np.isnan(cloud), np.inf, cloud),
        name=item * np.int64(collection.max(initial=0) + 2) + collection,
    )


def _acquisitions(chips: _Chips, rows: np.ndarray, longest: int) -> np.ndarray:
    """Return one chip of each acquisition."""
    kind = chips.place[rows] * np.int64(chips.product.max(initial=0) + 1) + chips.product[rows]
    order = np.lexsort((chips.time[rows], kind))
    rows, kind = rows[order], kind[order]
    new = (np.diff(kind) != 0) | (np.diff(chips.time[rows]) > longest)
    number = np.append(0, np.cumsum(new))[: len(rows)]
    # Few acquisitions have several chips; the others need not be sorted again.
    several = np.bincount(number)[number] > 1
    repeated = rows[several]
    ranks = [-chips.baseline[repeated], -chips.made[repeated], -chips.clear[repeated], chips.name[repeated]]
    return np.concatenate([rows[~several], repeated[_first(number[several], ranks)]])


def _first(group: np.ndarray, ranks: Sequence[np.ndarray], most: int = 1) -> np.ndarray:
    """Return positions of the best ``most`` of each group: the smallest ``ranks``, of which the first matters most."""
    order = np.lexsort((*reversed(ranks), group))
    return order[_position_in_group(group[order]) < most]


def _position_in_group(group: np.ndarray) -> np.ndarray:
    """Return positions within groups, from 0; ``group`` is sorted."""
    new = np.append(True, np.diff(group) != 0)[: len(group)]
    begin = np.flatnonzero(new)
    return np.arange(len(group)) - begin[np.cumsum(new) - 1]


def _steps(chips: _Chips, tally: _Tally, plan: _Plan) -> tuple[np.ndarray, np.ndarray, int]:
    """Return (rows, step of each row, number of steps): one row per place and step, of places with enough steps."""
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
        step = _position_in_group(chips.place[rows])
        steps = plan.length or int(step.max(initial=-1)) + 1
    tally.keep_rows("not chosen", rows)
    _, place = np.unique(chips.place[rows], return_inverse=True)
    enough = np.bincount(place)[place] >= plan.min_steps if len(rows) else np.zeros(0, bool)
    tally.keep_rows("too few steps", rows[enough])
    if plan.edges is None and plan.length is None:
        steps = int(step[enough].max(initial=-1)) + 1
    return rows[enough], step[enough], steps


def _ranks(chips: _Chips, rows: np.ndarray, choose: Choose, centre: np.ndarray | None) -> list[np.ndarray]:
    """Return the ranks of chips by preference: smaller is better, and the first matters most."""
    time = chips.time[rows]
    by_option = {"clear": [], "cloud": [chips.cloud[rows]], "first": [time], "last": [-time]}
    first = [np.abs(time - centre)] if choose == "centre" else by_option[choose]
    return [*first, -chips.clear[rows], time, chips.name[rows]]
