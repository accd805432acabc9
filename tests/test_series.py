"""One place through time: against plain loops over rows, and pixels against those of the single chips."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from chip_making import write_landsat
from command_line import misused, refused, run
from hypothesis import given
from hypothesis import strategies as st

import xchip
from xchip.chips.open_chips import open_chips
from xchip.chips.train.batches import batches
from xchip.core.reduce import FRACTIONS
from xchip.indexing.files.write import write_index
from xchip.indexing.opening.read import read_index
from xchip.selection.series import SERIES_ATTRIBUTE, series
from xchip.selection.series_places import places_of
from xchip.selection.series_versions import baselines_of, versions_of
from xchip.selection.series_windows import edges_of
from xchip.testing import raise_if_dask_computes, write_scene

SIZE, RES = 64, 10.0
FIRST = datetime(2024, 1, 30, 10, tzinfo=UTC)


def chip(
    item: str | None = "a", *, y: int = 0, x: int = 0, days: float = 0, cloud: float = 0.0, nodata: float = 0.0, **other: Any
) -> dict[str, Any]:
    """A row of ``anchor="crs"``: cell (y, x) of an item, some days after the first date."""
    left, top = x * SIZE * RES, -y * SIZE * RES
    fractions = dict.fromkeys(FRACTIONS, 0.0) | {"nodata_fraction": nodata, "cloud_fraction": cloud, "clear_fraction": 1 - cloud}
    if nodata == 1:
        fractions |= dict.fromkeys(FRACTIONS[1:], np.nan)
    row = {
        "chip_id": f"{item}-{x}-{y}", "item_id": item, "collection": "c", "item_href": None, "sensor": "s",
        "datetime": pd.Timestamp(FIRST + timedelta(days=days)), "chip_index_x": x, "chip_index_y": y,
        "col_off": (x + 5) * SIZE, "row_off": (y + 5) * SIZE, "width": SIZE, "height": SIZE, "proj_code": "EPSG:32719",
        "proj_left": left, "proj_bottom": top - SIZE * RES, "proj_right": left + SIZE * RES, "proj_top": top,
        **fractions, "geometry": shapely.box(x, -y, x + 1, 1 - y),
    }  # fmt: skip
    return row | other


def table(rows: list[dict[str, Any]]) -> geopandas.GeoDataFrame:
    frame = geopandas.GeoDataFrame(rows, crs="EPSG:4326")
    return frame.astype(dict.fromkeys(["chip_id", "item_id", "collection", "item_href", "sensor"], "object"))


def product(baseline: int, made: int, tile: str) -> str:
    return f"S2A_MSIL2A_20240130T100000_N{baseline:04d}_R079_T{tile}_2024{made:02d}01T000000"


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Chips of few places, dates and products, so that all kinds of repetition occur."""
    rows = []
    for _ in range(draw(st.integers(1, 30))):
        item = product(draw(st.sampled_from([211, 509])), draw(st.integers(1, 2)), draw(st.sampled_from(["19HCA", "19HDA"])))
        second = draw(st.sampled_from([0, 0, 30, 59, 60, 61, 90, 3600]))
        rows.append(
            chip(
                item,
                y=draw(st.integers(-1, 0)),
                x=draw(st.integers(0, 1)),
                days=draw(st.sampled_from([0, 1, 2, 5, 31, 62])) + second / 86400,
                cloud=draw(st.sampled_from([0, 0.25, 0.5, 1])),
                nodata=draw(st.sampled_from([0, 0, 0.5, 1])),
                sensor=draw(st.sampled_from(["s", "s", "t", None])),
            )
        )
    # The same chip of the same item comes once.
    return list({(row["chip_id"], row["datetime"], row["sensor"]): row for row in rows}.values())


def clear_pixels(row: dict[str, Any]) -> int:
    if row["nodata_fraction"] == 1:
        return 0
    return round(row["clear_fraction"] * (1 - row["nodata_fraction"]) * SIZE * SIZE)


def by_hand(
    rows: list[dict[str, Any]],
    *,
    window: int | None,
    length: int | None,
    min_steps: int,
    choose: str,
    max_cloud: float,
    max_nodata: float,
) -> dict[tuple[int, int], list[tuple[int, str, pd.Timestamp]]]:
    """The rule, row by row: place -> (step, chip_id, date). ``window``: days of a period."""

    def named(row: dict[str, Any]) -> tuple[str, str]:
        return row["item_id"], row["collection"]

    groups = defaultdict(list)
    for row in rows:
        if row["nodata_fraction"] <= max_nodata:
            groups[row["chip_index_y"], row["chip_index_x"], row["sensor"] or "collection c"].append(row)
    taken = defaultdict(list)
    for (y, x, _), some in groups.items():
        some.sort(key=lambda row: row["datetime"])
        acquisitions: list[list[dict[str, Any]]] = []
        for row in some:
            if acquisitions and row["datetime"] - acquisitions[-1][-1]["datetime"] <= pd.Timedelta("60s"):
                acquisitions[-1].append(row)
            else:
                acquisitions.append([row])
        for same in acquisitions:
            best = min(
                same, key=lambda row: (-int(row["item_id"][28:32]), -int(row["item_id"][-15:-9]), -clear_pixels(row), named(row))
            )
            if best["cloud_fraction"] <= max_cloud:  # not so for NaN
                taken[y, x].append(best)
    begin = min(row["datetime"] for row in rows).normalize()

    def preferred(row: dict[str, Any], number: int) -> tuple[Any, ...]:
        centre = begin + (number + 0.5) * pd.Timedelta(days=window or 0)
        first = {
            "clear": 0,
            "cloud": row["cloud_fraction"],
            "centre": abs(row["datetime"] - centre),
            "first": row["datetime"],
            "last": -row["datetime"].timestamp(),
        }[choose]
        return first, -clear_pixels(row), row["datetime"], named(row)

    found = {}
    for place, some in taken.items():
        if window is not None:
            periods = defaultdict(list)
            for row in some:
                periods[(row["datetime"] - begin) // pd.Timedelta(days=window)].append(row)
            steps = [(n, min(same, key=lambda row, n=n: preferred(row, n))) for n, same in sorted(periods.items())]
        else:
            chosen = sorted(some, key=lambda row: preferred(row, 0))[:length]
            steps = list(enumerate(sorted(chosen, key=lambda row: (row["datetime"], named(row)))))
        if len(steps) >= min_steps:
            found[place] = [(n, row["chip_id"], row["datetime"]) for n, row in steps]
    return found


def sequences(rows: geopandas.GeoDataFrame) -> dict[tuple[int, int], list[tuple[int, str, pd.Timestamp]]]:
    found = defaultdict(list)
    for row in rows.itertuples():
        found[row.chip_index_y, row.chip_index_x].append((row.step, row.chip_id, row.datetime))
    return dict(found)


# The rule


@given(
    tables(),
    st.sampled_from([None, 1, 7, 30]),
    st.sampled_from([None, 1, 2]),
    st.integers(1, 2),
    st.sampled_from(["clear", "cloud", "centre", "first", "last"]),
    st.sampled_from([0.25, 0.5, 1]),
    st.sampled_from([0, 0.5, 1]),
    st.randoms(use_true_random=False),
)
def test_sequences_are_those_of_plain_loops(
    rows: list[dict[str, Any]],
    window: int | None,
    length: int | None,
    min_steps: int,
    choose: Any,
    max_cloud: float,
    max_nodata: float,
    random: Any,
) -> None:
    if window is None and choose == "centre":
        choose = "clear"
    if window is not None:
        length = None
        days = max(row["datetime"] for row in rows) - min(row["datetime"] for row in rows).normalize()
        min_steps = min(min_steps, days // pd.Timedelta(days=window) + 1)
    min_steps = min(min_steps, length or min_steps)
    rule: dict[str, Any] = {"length": length, "min_steps": min_steps, "choose": choose}
    rule |= {"max_cloud": max_cloud, "max_nodata": max_nodata}
    expected = by_hand(rows, window=window, **rule)
    frame = table(rows)
    found = series(frame, window=None if window is None else f"{window}D", **rule)
    assert sequences(found) == expected
    # Each step once, within the limits.
    assert not found.duplicated(["place_id", "step"]).any()
    assert (found["cloud_fraction"] <= max_cloud).all()
    assert (found["nodata_fraction"] <= max_nodata).all()
    assert ((found["step"] >= 0) & (found["step"] < found["steps"])).all()
    # By place, then step; places by row, then column.
    keys = list(zip(found["chip_index_y"], found["chip_index_x"], found["step"], strict=True))
    assert keys == sorted(keys)
    assert found.groupby("place_id", sort=False).ngroups == len(expected)
    # The order of rows is of no account.
    random.shuffle(rows)
    again = series(table(rows), window=None if window is None else f"{window}D", **rule)
    pd.testing.assert_frame_equal(pd.DataFrame(again), pd.DataFrame(found))
    assert again.attrs == found.attrs
    # All chips are accounted for.
    facts = json.loads(found.attrs[SERIES_ATTRIBUTE])
    assert facts["chips"] == len(rows) == facts["kept"] + sum(facts["left_out"].values())
    assert (facts["kept"], facts["places"]) == (len(found), len(expected))


def test_the_newest_baseline_counts_then_when_it_was_made_then_clear_pixels_then_the_name() -> None:
    old, new = product(211, 9, "19HCA"), product(509, 1, "19HCA")
    later, other = product(509, 2, "19HCA"), product(509, 2, "19HDA")
    rows = [chip(old, cloud=0), chip(new, cloud=0.9), chip(later, cloud=0.9), chip(other, cloud=0.9)]

    def chosen(rows: list[dict[str, Any]]) -> list[str]:
        return series(table(rows))["item_id"].tolist()

    assert chosen(rows[:2]) == [new]
    assert chosen([chip(None), chip(new, cloud=0.5)]) == [new], "an item without a name"
    assert chosen(rows[:3]) == [later]
    assert chosen(rows) == [later], "the first of the alphabet"
    assert chosen([*rows, chip(product(509, 2, "19HEA"), cloud=0.5)]) == [product(509, 2, "19HEA")]
    # What the newest product says of the sky holds, though an older one said otherwise.
    assert len(series(table(rows[:2]), max_cloud=0.5)) == 0
    # But a chip that lies half outside of its tile is none where another tile has it all.
    assert series(table([chip(old), chip(new, nodata=0.6)]), max_nodata=0.5)["item_id"].tolist() == [old]


def test_a_column_may_tell_the_baseline() -> None:
    rows = [chip("a", cloud=0.5, b="05.10"), chip("b", b="05.09"), chip("c", b=None)]
    assert series(table(rows), baseline="b")["item_id"].tolist() == ["a"]
    assert series(table(rows))["item_id"].tolist() == ["b"]
    with pytest.raises(ValueError, match="'new', which is not a baseline"):
        series(table([chip("a", b="new")]), baseline="b")
    assert baselines_of(pd.Series([5.09, np.nan, 4.0])).tolist() == [5.09, -1, 4]


@pytest.mark.parametrize(
    ("item_id", "baseline", "made"),
    [
        ("S2B_MSIL2A_20240710T071619_N0510_R006_T37MGP_20240710T103747.SAFE", 510, 20240710103747),
        ("S2A_MSIL2A_20150704T101006_R022_T35XQA_20210411T133707", -1, 20210411133707),
        ("S2A_MSIL2A_20170725T142751_N9999_R053_T19GBQ_20240410T040247", -1, 20240410040247),
        ("LC08_L2SP_047027_20201204_20210313_02_T1", 2, 20210313),
        ("LC08_L2SP_197023_20220324_02_T1", 2, -1),
        ("LC09_L2SR_086107_20240311_20240312_02_T2_SR", 2, 20240312),
        ("MOD09A1.A2022033.h19v10.061", 61, -1),
        ("MYD09A1.A2025057.h35v10.061.2025066034638", 61, 2025066034638),
        ("HLS.L30.T19LDD.2022165T144027.v2.0", 2.0, -1),
        ("S2A_33TWL_20230815_0_L2A", -1, -1),
        ("m_4112001_sw_10_060_20220716", -1, -1),
    ],
)
def test_what_ids_tell(item_id: str, baseline: float, made: float) -> None:
    found = versions_of([item_id])
    assert (found.baseline.tolist(), found.made.tolist()) == ([baseline], [made])
    assert len(versions_of([]).made) == 0


def test_acquisitions_are_told_apart_by_sensor_or_collection_and_time() -> None:
    rows = [chip("a"), chip("b", days=100 / 86400), chip("c", sensor="other"), chip("d", sensor=None)]
    rows += [chip("e", sensor=None, collection="k"), chip("f", sensor=None, collection=None)]
    assert series(table(rows))["item_id"].tolist() == ["a", "c", "d", "e", "f", "b"]
    assert series(table(rows), same_time="2min")["item_id"].tolist() == ["a", "c", "d", "e", "f"]
    assert series(table([chip("a", sensor="s", collection="k"), chip("b")]))["item_id"].tolist() == ["a"], "two catalogues"


def test_chips_without_date_are_left_out_and_counted() -> None:
    rows = series(table([chip("a"), chip("b", datetime=pd.NaT)]))
    assert rows["item_id"].tolist() == ["a"]
    assert json.loads(rows.attrs[SERIES_ATTRIBUTE])["left_out"]["undated"] == 1


# Steps


def test_length_without_periods_keeps_the_preferred_in_order_of_date() -> None:
    rows = [chip(f"i{n}", days=n, cloud=cloud) for n, cloud in enumerate([0.5, 0.1, 0.9, 0.2])] + [chip("lonely", x=1)]
    found = series(table(rows), length=2)
    assert found[["item_id", "step", "steps"]].to_numpy().tolist() == [["i1", 0, 2], ["i3", 1, 2]]
    gaps = series(table(rows), length=2, min_steps=1)
    assert gaps["item_id"].tolist() == ["i1", "i3", "lonely"]
    assert series(table(rows), length=2, choose="last")["item_id"].tolist() == ["i2", "i3"]
    everything = series(table(rows))
    assert everything["step"].tolist() == [0, 1, 2, 3, 0]
    assert set(everything["steps"]) == {4}


def test_steps_of_periods_are_the_same_for_all_places() -> None:
    rows = [chip("a"), chip("b", days=1), chip("c", days=40), chip("d", x=1, days=41)]
    found = series(table(rows), window="month")
    assert found[["item_id", "step", "steps"]].to_numpy().tolist() == [["a", 0, 3], ["c", 2, 3], ["d", 2, 3]]
    some = series(table(rows), window=["2024-01-31", "2024-03-01", "2024-03-10T13:00+02:00"])
    assert some[["item_id", "step"]].to_numpy().tolist() == [["b", 0], ["c", 1]]
    assert json.loads(some.attrs[SERIES_ATTRIBUTE])["left_out"]["outside"] == 2
    fixed = series(table(rows), window="10D", start="2024-01-31", length=5)
    assert fixed[["item_id", "step", "steps"]].to_numpy().tolist() == []
    assert series(table(rows), window="10D", start="2024-01-31", length=5, min_steps=1)["step"].tolist() == [0, 3, 4]
    assert series(table(rows), start="2024-02-01", end=FIRST + timedelta(days=41))["item_id"].tolist() == ["c"]


dates = st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1))


@given(
    st.lists(dates, min_size=1, max_size=8), st.sampled_from(["month", "quarter", "year", "2 months", "3 Years"]), st.booleans()
)
def test_calendar_periods_hold_all_dates_and_begin_on_the_first(moments: list[datetime], window: str, from_start: bool) -> None:
    times = np.array(moments, "M8[us]").astype(np.int64)
    start = None
    if from_start:
        start = int(np.datetime64(min(moments).replace(day=7, hour=3, minute=0, second=0, microsecond=0), "us").astype(np.int64))
        times = times[times >= start]
    edges = edges_of(window, times, start=start, end=None, length=None)
    if times.size:
        assert edges[0] <= times.min()
        assert edges[-2] <= times.max() < edges[-1]
    begins = pd.DatetimeIndex(edges.astype("M8[us]"))
    assert set(zip(begins.day, begins.hour, begins.minute, strict=True)) == {(7, 3, 0) if from_start else (1, 0, 0)}
    months = {"month": 1, "quarter": 3, "year": 12, "2 months": 2, "3 Years": 36}[window]
    assert set(np.diff(begins.year * 12 + begins.month)) <= {months}
    if not from_start and window in ("quarter", "year"):
        assert set((begins.month - 1) % months) == {0}


@given(st.lists(dates, min_size=1, max_size=8), st.integers(1, 400), st.integers(1, 50))
def test_periods_of_a_length(moments: list[datetime], hours: int, length: int) -> None:
    times = np.array(moments, "M8[us]").astype(np.int64)
    if times.max() - times.min() < 90_000 * hours * 3_600_000_000:
        edges = edges_of(f"{hours}h", times, start=None, end=None, length=None)
        assert edges[0] == pd.Timestamp(min(moments)).normalize().value // 1000
        assert edges[-2] <= times.max() < edges[-1]
        assert set(np.diff(edges)) == {hours * 3_600_000_000}
    begin = int(times.min())
    assert len(edges_of(f"{hours}h", times, start=begin, end=None, length=length)) == length + 1
    end = begin + 3_600_000_000 * hours * length
    assert edges_of(f"{hours}h", times, start=begin, end=end, length=None)[-1] == end


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "fortnight"}, "window is a length of time such as '30D'.*got 'fortnight'"),
        ({"window": "0D"}, "longer than nothing, got window='0D'"),
        ({"window": "0 months"}, "longer than nothing"),
        ({"window": "2MS"}, "makes .* periods, and 100,000 are the most"),
        ({"window": ["2024-01-01"]}, "two dates or more"),
        ({"window": ["2024-01-01", "2023-01-01"]}, "each later than the one before"),
        ({"window": ["2024-01-01", "x"]}, "an edge of window is a date.*got 'x'"),
        ({"window": ["2024-01-01", "2025-01-01"], "start": "2024-02-01"}, "leave start, end and length out"),
        ({"window": "month", "start": "2024-01-31"}, "day from the 1st to the 28th"),
        ({"window": "month", "end": "2025-01-01", "length": 2}, "leave one out"),
        ({"window": "year", "min_steps": 2}, "can't have 2 steps of 1 periods"),
        ({"length": 2, "min_steps": 3}, "can't have 3 steps of 2"),
        ({"length": 0}, "length is a number of steps, at least 1, got 0"),
        ({"min_steps": 1.5}, "min_steps is a number of steps"),
        ({"choose": "best"}, "choose must be one of .*got 'best'"),
        ({"choose": "centre"}, "give window="),
        ({"start": "2024-03-01", "end": "2024-03-01"}, "start is before end"),
        ({"start": None, "end": "soon"}, "end is a date such as .*got 'soon'"),
        ({"start": pd.NaT}, "start is a date"),
        ({"same_time": "-1s"}, "0 or more, got '-1s'"),
        ({"same_time": "near"}, "same_time is a length of time.*got 'near'"),
        ({"max_cloud": 20}, "max_cloud is a fraction from 0 to 1"),
        ({"baseline": "b"}, "no column 'b'"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        series(table([chip("a"), chip("b", days=30)]), **options)


def test_an_unknown_limit() -> None:
    with pytest.raises(TypeError, match=r"series\(\) has no parameter 'max_clouds'; did you mean 'max_cloud'\?"):
        series(table([chip("a")]), max_clouds=0.1)


# Places


def scene(folder: Path, name: str, *, column: int = 0, row: int = 0, day: int = 11, **options: Any) -> Path:
    """A scene whose corner is so many pixels from the first one's."""
    origin = (499980.0 + column * 10, 6400000.0 - row * 10)
    stamp = f"2024-03-{day:02d}T14:06:36Z"
    return write_scene(folder, item_id=f"synthetic-{name}", shape=(256, 320), origin=origin, datetime=stamp, block=128, **options)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiles that overlap, at two dates each, one of them shared; and a later date of the first."""
    folder = tmp_path_factory.mktemp("scenes")
    shifted = {"column": 150, "row": 30}
    return [
        scene(folder, "a1", day=1, seed=1),
        scene(folder, "b1", day=1, seed=2, **shifted),
        scene(folder, "a2", day=6, seed=3),
        scene(folder, "b3", day=21, seed=4, **shifted),
        scene(folder, "c4", day=26, seed=5),
    ]


@pytest.fixture(scope="module")
def index(scenes: list[Path]) -> geopandas.GeoDataFrame:
    return xchip.index_items(scenes, 64, anchor="crs").compute()


def test_overlapping_tiles_share_places_under_anchor_crs(index: geopandas.GeoDataFrame) -> None:
    rows = series(index)
    cells = defaultdict(set)
    for row in index.itertuples():
        cells[row.chip_index_y, row.chip_index_x].add(row.datetime)
    assert rows.groupby("place_id").ngroups == len(cells)
    assert {key: {date for _, _, date in steps} for key, steps in sequences(rows).items()} == cells
    assert max(len(dates) for dates in cells.values()) == 4
    assert json.loads(rows.attrs[SERIES_ATTRIBUTE])["left_out"]["duplicates"] == len(index) - len(rows) > 0
    assert (rows["proj_left"] == rows["chip_index_x"] * 640).all()
    assert rows["place_id"].tolist() == [
        f"EPSG:32719/10/64x64/{x * 64}/{y * 64}" for x, y in zip(rows["chip_index_x"], rows["chip_index_y"], strict=True)
    ]
    assert rows.crs == index.crs
    again = series(rows)
    pd.testing.assert_frame_equal(pd.DataFrame(again), pd.DataFrame(rows))


def test_grids_that_begin_at_each_corner_are_refused_where_they_overlap(scenes: list[Path]) -> None:
    index = xchip.index_items(scenes, 64).compute()
    with pytest.raises(ValueError, match=r"items 'synthetic-(b.' and 'synthetic-[ac]|[ac].' and 'synthetic-b).*anchor=.crs."):
        series(index.sort_values("item_id"))
    # Dates of one tile coincide all the same.
    one = index[index["item_id"].str.contains("a1|a2|c4")]
    rows = series(one, length=3)
    assert len(rows) == len(one)
    # Neither do tiles meet that lie apart.
    with_far = pd.concat([one, index[index["item_id"] == "synthetic-b1"].assign(**far(index, "synthetic-b1"))])
    assert series(with_far)["item_id"].nunique() == 4
    # With a stride the chips of one scene overlap too.
    overlapping = xchip.index_items([scenes[0], scenes[2]], 64, stride=24).compute()
    assert len(series(overlapping, length=2)) == len(overlapping)
    with pytest.raises(ValueError, match="overlap without being the same pixels"):
        series(xchip.index_items(scenes[:2], 64, stride=24).compute())
    # Scenes of one chip each tell no stride.
    with pytest.raises(ValueError, match="overlap without being the same pixels"):
        series(index[(index["chip_index_x"] == 0) & (index["chip_index_y"] == 0)].pipe(near))


def far(index: geopandas.GeoDataFrame, item: str) -> dict[str, Any]:
    rows = index[index["item_id"] == item]
    return {name: rows[name] + 100_000 for name in ("proj_left", "proj_right")}


def near(rows: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Chips of several scenes brought to within half a chip of each other."""
    left = 499980.0 + 10 * np.arange(len(rows))
    return rows.assign(proj_left=left, proj_right=left + 640, proj_top=6400000.0, proj_bottom=6400000.0 - 640)


@pytest.mark.parametrize("options", [{"stride": 24}, {"edge": "pad"}, {"edge": "partial"}, {"size": (64, 40)}])
def test_all_grids_on_common_cells_have_places(scenes: list[Path], options: dict[str, Any]) -> None:
    index = xchip.index_items(scenes, **{"size": 64, "anchor": "crs"} | options).compute()
    rows = series(index)
    columns = ["proj_left", "proj_top", "width", "height"]
    assert rows.groupby("place_id").ngroups == len(index[columns].drop_duplicates())
    assert (rows.groupby("place_id")[columns].nunique() == 1).all(axis=None)


def test_places_of_other_sizes_resolutions_phases_and_crss_differ() -> None:
    wkt = 'LOCAL_CS["a CRS without a code and with a long text"]'
    rows = [
        chip("a"),
        chip("b", proj_left=5.0, proj_right=SIZE * RES + 5),
        chip("c", proj_right=SIZE * 2 * RES, proj_bottom=-SIZE * RES * 2),
        chip("d", proj_code="EPSG:32720"),
        chip("e", width=SIZE * 2, proj_right=SIZE * 2 * RES),
        chip("f", proj_code=wkt),
        chip("g", proj_left=1e-4, proj_right=SIZE * RES + 1e-4, days=1),
        chip("h", proj_right=SIZE * RES * (1 + 1e-8), days=2),
    ]
    found = places_of(table(rows))
    ids = found.ids(np.arange(len(rows))).to_pylist()
    assert ids[:5] == [
        "EPSG:32719/10/64x64/0/0", "EPSG:32719/10/64x64/0.5/0", "EPSG:32719/20/64x64/0/0", "EPSG:32720/10/64x64/0/0",
        "EPSG:32719/10/64x128/0/0",
    ]  # fmt: skip
    assert ids[5].startswith("wkt-")
    assert ids[6] == ids[7] == ids[0], "rounding is no other place"
    assert len(set(ids)) == len(set(found.number)) == 6


def test_landsat_lies_half_a_pixel_off(tmp_path: Path) -> None:
    items = [write_landsat(tmp_path, f"landsat-{n}", seed=n) for n in (1, 2)]
    for number, path in enumerate(items):
        item = json.loads(path.read_text())
        item["properties"]["datetime"] = f"2023-07-0{number + 1}T10:00:00Z"
        path.write_text(json.dumps(item))
    rows = series(xchip.index_items(items, 100, anchor="crs").compute(), length=2)
    assert rows["place_id"].iloc[0] == "EPSG:32620/30/100x100/12100.5/-214299.5"
    assert len(rows) == 2 * rows["place_id"].nunique()


def test_what_is_no_index_with_places_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no columns .*'proj_left'"):
        series(table([chip("a")]).drop(columns="proj_left"))
    with pytest.raises(ValueError, match=r"1 chips have no proj_code or edges, such as those of item 'b'.*xchip\.build_index"):
        series(table([chip("a"), chip("b", proj_code=None)]))
    with pytest.raises(ValueError, match="no proj_code or edges"):
        series(table([chip("a", proj_top=np.nan)]))


@pytest.mark.parametrize("window", [None, "month", "30D"])
def test_an_empty_series_is_an_index(window: Any) -> None:
    rows = table([chip("a", cloud=1), chip("b", datetime=pd.NaT)])
    for frame in (rows, rows.iloc[:0], rows.iloc[1:]):
        found = series(frame, window=window, max_cloud=0.5)
        assert len(found) == 0
        assert list(found.columns) == [*frame.columns, "place_id", "step", "steps"]
        assert found.crs == frame.crs


# Pixels


def test_sequences_have_the_pixels_of_their_chips(index: geopandas.GeoDataFrame) -> None:
    rows = series(index, window="5D", max_cloud=0.9)
    rows = rows.sample(len(rows), random_state=1)
    with raise_if_dask_computes():
        cube = open_chips(rows, ["red", "scl"], chunks=20)
    single = open_chips(rows.drop(columns="place_id"), ["red", "scl"]).compute()
    places = list(dict.fromkeys(rows["place_id"]))
    assert dict(cube.sizes) == {"chip": len(places), "time": 6, "y": 64, "x": 64}
    assert cube["red"].dims == ("chip", "time", "y", "x")
    assert cube["red"].dtype == np.uint16
    assert cube["red"].attrs["_FillValue"] == 0
    assert cube.attrs == single.attrs
    assert cube["place_id"].values.tolist() == places
    assert max(cube["red"].chunks[0]) == 3
    loaded = cube.compute()
    seen = np.zeros(loaded["observed"].shape, bool)
    for position, row in enumerate(rows.itertuples()):
        at = {"chip": places.index(row.place_id), "time": row.step}
        seen[at["chip"], at["time"]] = True
        one = loaded.isel(at)
        for band in ("red", "scl"):
            np.testing.assert_array_equal(one[band], single[band][position])
        for name in ("chip_id", "item_id", "datetime", "collection", "proj_code", "proj_left", "proj_top"):
            assert one[name].values == single[name].values[position]
    np.testing.assert_array_equal(loaded["observed"], seen)
    assert (~seen).any()
    assert (loaded["red"].values[~seen] == 0).all()
    assert np.isnat(loaded["datetime"].values[~seen]).all()
    assert set(loaded["item_id"].values[~seen]) == {""}


@given(st.data())
def test_parts_of_sequences_are_parts_of_the_whole(index: geopandas.GeoDataFrame, data: st.DataObject) -> None:
    rows = series(index, length=4, min_steps=2)
    cube = open_chips(rows, ["nir"], chunks=data.draw(st.sampled_from([1, 12, 1000])))["nir"]
    whole = cube.compute().values
    key = {}
    for name, length in cube.sizes.items():
        number = st.integers(0, length - 1)
        kinds = number | st.slices(length) | st.lists(number, min_size=1, max_size=3)
        key[name] = data.draw(kinds if not any(isinstance(value, list) for value in key.values()) else number | st.slices(length))
    found = cube.isel(key)
    expected = cube.copy(data=whole).isel(key)
    np.testing.assert_array_equal(found.compute(), expected)


def test_what_is_not_asked_for_is_not_read(scenes: list[Path], index: geopandas.GeoDataFrame, tmp_path: Path) -> None:
    rows = series(index[index["item_id"].isin(["synthetic-a1", "synthetic-a2"])], length=2)
    href = rows.loc[rows["step"] == 1, "item_href"].iloc[0]
    gone = rows.assign(item_href=rows["item_href"].where(rows["step"] == 0, f"{tmp_path}/{Path(href).name}"))
    cube = open_chips(gone, ["red"])
    first = open_chips(rows[rows["step"] == 0].drop(columns="place_id"), ["red"])
    np.testing.assert_array_equal(cube["red"].isel(time=0), first["red"])
    with pytest.raises(xchip.ItemError, match="synthetic-a2"):
        cube["red"].isel(time=1).compute()


def test_a_subset_keeps_its_steps_and_a_file_gives_the_same(index: geopandas.GeoDataFrame, tmp_path: Path) -> None:
    rows = series(index, window="5D")
    write_index(rows, tmp_path / "series.parquet")
    read = read_index(tmp_path / "series.parquet")
    pd.testing.assert_frame_equal(pd.DataFrame(read[rows.columns]), pd.DataFrame(rows))
    assert open_chips(tmp_path / "series.parquet", ["red"]).identical(open_chips(rows, ["red"]))
    early = rows[rows["step"] < 2]
    assert open_chips(early, ["red"]).sizes["time"] == 6
    pd.testing.assert_frame_equal(pd.DataFrame(series(tmp_path / "series.parquet", window="5D")), pd.DataFrame(rows))


def test_an_index_in_any_form(scenes: list[Path], index: geopandas.GeoDataFrame, tmp_path: Path) -> None:
    expected = sequences(series(index, max_cloud=0.5))
    lazy = xchip.index_items(scenes, 64, anchor="crs")
    write_index(lazy, tmp_path / "parts")
    for form in (lazy, tmp_path / "parts", xchip.open_index(tmp_path / "parts"), pa.Table.from_pandas(index.to_wkb())):
        assert sequences(series(form, max_cloud=0.5)) == expected


def test_chips_of_a_series_are_still_chips_for_all_else(index: geopandas.GeoDataFrame) -> None:
    rows = series(index, length=4)
    (batch,) = batches(rows, ["red"], batch_size=len(rows), shuffle=False)
    assert batch["red"].dims == ("chip", "y", "x")
    assert batch["place_id"].values.tolist() == rows["place_id"].tolist()
    assert batch["step"].values.tolist() == rows["step"].tolist()


def test_two_rows_of_a_step_are_refused(index: geopandas.GeoDataFrame) -> None:
    rows = series(index, length=4)
    with pytest.raises(ValueError, match=r"chips '.*' and '.*' are both step 0 of place 'EPSG:32719/.*make one series"):
        open_chips(pd.concat([rows, rows.iloc[:1]]), ["red"])
    with pytest.raises(ValueError, match="steps of this series must be from 0 to 3"):
        open_chips(rows.assign(step=rows["step"] + 1), ["red"])


def test_real_dates_of_one_tile(real_data: Path) -> None:
    names = ("S2B_33TWL_20230810", "S2A_33TWL_20230815", "S2A_33TWL_20230818", "S2B_33TWM_20230810")
    items = [real_data / "rasters" / f"s2_{name}" / "item.json" for name in names]
    index = xchip.index_items(items, 128, anchor="crs").compute()
    rows = series(index)
    assert rows["place_id"].str.startswith("EPSG:32633/120/128x128/").all()
    # As they were made coarser, the tiles' pixels lie half a pixel off each other: they have no place in common.
    assert rows.groupby("place_id")["item_id"].nunique().value_counts().to_dict() == {3: 42, 1: 36}
    assert set(rows["proj_top"] / 120 % 1) == {0, 0.5}
    three = series(index, length=3)
    cube = open_chips(three, ["red", "scl"])
    assert cube.sizes["time"] == 3
    assert cube["observed"].values.all()
    chip = cube.isel(chip=0).compute()
    assert [str(day)[:10] for day in chip["datetime"].values] == ["2023-08-10", "2023-08-15", "2023-08-18"]
    for step, item in enumerate(chip["item_id"].values):
        one = index[(index["item_id"] == item) & (index["chip_id"] == chip["chip_id"].values[step])]
        np.testing.assert_array_equal(chip["red"][step], xchip.stack(items[step], ["red"]).chips.extract(one)["red"][0])
    best = series(index[index["item_id"].str.contains("33TWL")], window="month")
    assert len(best) == 42
    assert (best["item_id"] == "S2A_33TWL_20230815_0_L2A").mean() > 0.9, "the day of 0.2 % clouds"


# The command


def test_the_command_writes_sequences(index: geopandas.GeoDataFrame, tmp_path: Path) -> None:
    write_index(index, tmp_path / "index.parquet")
    out = tmp_path / "series.parquet"
    arguments = ("series", tmp_path / "index.parquet", "-o", out, "--max-cloud", 0.8)
    result = run(*arguments, "--window", "10D", "--min-steps", 2, "--choose", "centre")
    assert result.exit_code == 0, result.output
    expected = series(index, window="10D", min_steps=2, choose="centre", max_cloud=0.8)
    pd.testing.assert_frame_equal(pd.DataFrame(read_index(out)[expected.columns]), pd.DataFrame(expected))
    facts = json.loads(expected.attrs[SERIES_ATTRIBUTE])
    assert f"{facts['places']} places of up to 3 steps, {facts['kept']} of {facts['chips']} chips" in result.output
    for reason, chips in facts["left_out"].items():
        assert (reason in result.output) == bool(chips)
    edges = ("--edge", "2024-03-01", "--edge", "2024-03-07")
    assert run(*arguments, *edges).exit_code == 0
    assert set(read_index(out)["steps"]) == {1}
    misused(run(*arguments, "--window", "10D", *edges), "exclude each other")
    refused(run(*arguments, "--window", "often"), "window is a length of time")
