"""`xchip.audit`: what leaks is found, what does not is measured."""

from __future__ import annotations

import json
import warnings
from typing import Any

import dask_geopandas
import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from chip_layouts import PLACES, chips, kilometres, layouts
from command_line import refused, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xchip.core.grid import ChipGrid, PixelGrid
from xchip.indexing.files.write import write_index
from xchip.indexing.rows import ItemColumns, index_frame
from xchip.selection import audit as module
from xchip.selection.audit import audit
from xchip.selection.audit_report import AuditReport, Duplicates
from xchip.selection.dates import UNKNOWN, PlaceTimes, least_time
from xchip.selection.neighbours import distances
from xchip.selection.sphere import EARTH_KM, chord_of, km_of, on_sphere
from xchip.selection.split import split

quick = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(layouts(), st.sampled_from([0.0, 1.0, 4.0]), st.integers(0, 1000))
def test_what_split_makes_passes(frame: pd.DataFrame, buffer: float, seed: int) -> None:
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        parts = split(frame, {"train": 0.5, "test": 0.5}, block_km=15, buffer_km=buffer, seed=seed)
    if parts["split"].isin(["train", "test"]).any():
        assert audit(parts, buffer).ok


@quick
@given(layouts(), st.integers(0, 10_000))
def test_distance_is_that_of_points_along_all_edges(frame: pd.DataFrame, seed: int) -> None:
    """Points are denser than chips are large, but not endlessly: the distance is theirs or less, by less than their spacing."""
    rng = np.random.default_rng(seed)
    frame["split"] = rng.choice(["train", "test", "buffer"], len(frame), p=[0.05, 0.05, 0.9])
    one, other = (frame.geometry[frame["split"] == name].to_numpy() for name in ("train", "test"))
    if not len(one) or not len(other):
        return
    (pair,) = audit(frame).pairs
    expected = kilometres(one, other)
    assert pair.distance_km is not None
    assert pair.distance_km <= expected + 1e-6
    assert pair.distance_km >= 0.994 * expected - 2.3  # the radius; quarters of an edge of 9 km
    assert pair.overlap == bool(expected == 0) or pair.distance_km < 0.001


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("km", [0.0, 0.9])
def test_a_planted_leak_is_found(place: str, km: float) -> None:
    """One chip of another split among many, that overlaps others or stands beside them, and no other leak."""
    frame = chips(place, metres=2560, size=(30, 30))
    frame["split"] = "train"
    left = chips(place, metres=2560, size=(30, 1), shift=(-2560 - 1000 * km, 0), name="b").assign(split="buffer")
    left.loc[17, "split"] = "test"
    report = audit(pd.concat([frame, left], ignore_index=True), 1.0)
    assert not report.ok
    (pair,) = report.pairs
    assert pair.splits == ("test", "train")
    assert 1 < pair.leaks < 10
    assert pair.distance_km == pytest.approx(km, abs=0.08)
    assert pair.examples[0].chips[0] == "b-17"
    assert audit(pd.concat([frame, left], ignore_index=True), km / 2).ok == (km > 0)


def test_a_chip_within_another_is_a_leak() -> None:
    around, inside = (
        chips("north pole", metres=metres, size=(1, 1), shift=(shift, -shift), name=str(metres))
        for metres, shift in ((120_000, 0), (10_000, 55_000))
    )
    both = pd.concat([around.assign(split="train"), inside.assign(split="test")], ignore_index=True)
    assert audit(both).pairs[0].overlap
    lonlat = geopandas.GeoDataFrame(
        {"split": ["train", "test"]}, geometry=[shapely.box(0, 40, 20, 60), shapely.box(9, 50, 9.1, 50.1)]
    )
    assert audit(lonlat).leaks == 2


@pytest.mark.parametrize("degrees", [0.01, 0.3, 5.0, 80.0, 120.0])
@pytest.mark.parametrize("lat", [0.0, 60.0, 89.5])
def test_distance_of_points_is_the_great_circle(degrees: float, lat: float) -> None:
    a, b = shapely.points([(10.0, lat)]), shapely.points([(10.0 + degrees, lat)])
    middle = on_sphere(np.array([[10.0 + degrees / 3, lat]]))
    expected = pyproj.Geod(a=EARTH_KM, b=EARTH_KM).inv(10, lat, 10 + degrees, lat)[2]
    chord = distances(a, b, middle, np.inf)[0]
    assert float(km_of(chord)) == pytest.approx(expected, abs=0.001, rel=1e-3)
    assert chord <= chord_of(expected) + 1e-12


@quick
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50) | st.just(int(UNKNOWN))), min_size=1, max_size=40))
def test_least_times_of_places_equal_a_plain_loop(rows: list[tuple[int, int]]) -> None:
    place, times = (np.array(column) for column in zip(*rows, strict=True))
    known = PlaceTimes.of(place, times)
    a, b = (axis.ravel() for axis in np.indices((place.max() + 1,) * 2))
    keep = np.isin(a, place) & np.isin(b, place)
    for one, other, least in zip(a[keep], b[keep], known.least(a[keep], b[keep]), strict=True):
        own, theirs = times[place == one], times[place == other]
        unknown = (own == UNKNOWN).any() or (theirs == UNKNOWN).any()
        assert least == (0 if unknown else np.abs(own[:, None] - theirs).min())
    assert least_time(times[:0], times) is None


def test_a_gap_asks_for_neighbours_in_time_only() -> None:
    frame = pd.concat([chips("utm 33", metres=2560, size=(3, 3), name=f"item-{n}") for n in range(4)], ignore_index=True)
    frame["datetime"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.repeat([0, 10, 20, 50], 9), "D")
    frame["split"] = np.repeat(["train", "train", "train", "test"], 9)
    assert not audit(frame).ok
    report = audit(frame, 1.0, gap="29D")
    assert report.ok
    assert report.pairs[0].days == 30
    assert report.pairs[0].distance_km is None
    leak = audit(frame, 1.0, gap="30D")
    assert not leak.ok
    assert leak.gap == "30 days 00:00:00"
    frame.loc[0, "datetime"] = pd.NaT
    assert not audit(frame, 1.0, gap="29D").ok
    assert audit(frame.drop(columns="datetime"), gap="1D").leaks == 36


def test_duplicates_from_two_catalogues() -> None:
    one, other = (chips("utm 33", metres=2560, size=(2, 2), name=name) for name in ("earth-search", "planetary"))
    other["datetime"] += pd.Timedelta("0.02s")
    frame = pd.concat([one, other], ignore_index=True).assign(split="train")
    found = audit(frame)
    assert found.ok
    assert (found.duplicates.chips, found.duplicates.across) == (4, 0)
    assert {tuple(sorted(pair)) for pair in found.duplicates.examples} == {
        (f"utm 33/earth-search-{n}", f"utm 33/planetary-{n}") for n in range(4)
    }
    frame.loc[5, "split"] = "test"
    found = audit(frame)
    assert not found.ok
    assert found.duplicates.across == 1
    assert found.duplicates.examples[0] == ("utm 33/earth-search-1", "utm 33/planetary-1")
    later = frame.assign(datetime=frame["datetime"] + pd.to_timedelta(np.arange(8) // 4, "D"))
    assert audit(later).duplicates == Duplicates(0, 0)


def test_balance_and_what_is_left_out() -> None:
    frame = chips("utm 33", metres=2560, size=(2, 5)).assign(cloud_fraction=np.linspace(0, 0.9, 10), kind=["a", "b"] * 5)
    frame["split"] = ["train"] * 4 + ["buffer"] * 3 + [None, "test", "test"]
    frame.loc[9, "geometry"] = shapely.Polygon()
    report = audit(frame, columns=["kind"])
    assert report.left_out == {"buffer": 3, "none": 1, "without footprint": 1}
    train = report.splits["train"]
    assert (train["chips"], train["places"], train["items"]) == (4, 4, 1)
    assert train["means"] == {"cloud_fraction": pytest.approx(0.15)}
    assert train["values"] == {"collection": {"utm 33": 1.0}, "kind": {"a": 0.5, "b": 0.5}}
    assert train["from"] == "2024-01-01T00:00:00+00:00"


def test_the_report_shows_itself() -> None:
    frame = chips("utm 33", metres=2560, size=(1, 2), name="<b>").assign(split=["<i>train", "test"])
    report = audit(frame)
    assert isinstance(report, AuditReport)
    assert str(report).startswith("LEAK: 2 chips touch another split or are within 0 km of it")
    assert "0.000 km" in str(report)
    assert "too near: <b>-0 (<i>train) and <b>-1 (test) are 0.000 km apart" in str(report)
    assert repr(report) == str(report)
    page = report._repr_html_()
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;i&gt;train" in page
    known = json.loads(report.to_json())
    assert (known["ok"], known["leaks"], known["pairs"][0]["overlap"]) == (False, 2, True)
    frame["split"] = "train"
    assert str(audit(frame)).startswith("ok: no two splits touch")


def test_the_report_shows_shares_of_values() -> None:
    """Of columns with several values; of a value that is not among a split's ten most frequent nothing is known."""
    frame = chips("utm 33", metres=2560, size=(4, 8)).assign(split=["train"] * 24 + ["test"] * 8)
    frame["nodata_fraction"] = [0.0] * 23 + [0.004] + [0.25] * 8
    frame["kind"] = [*(f"k{number // 2}" for number in range(22)), "rare", "rarer", *["k0"] * 6, "rare", "new"]
    lines = [line.split() for line in str(audit(frame, columns=["kind"])).splitlines()]
    assert ["test", "8", "8", "1", "2024-01-01", "2024-01-01", "25.0%"] in lines
    assert ["train", "24", "24", "1", "2024-01-01", "2024-01-01", "<0.1%"] in lines
    assert ["kind", "test", "train"] in lines
    assert ["k0", "75.0%", "8.3%"] in lines
    assert ["new", "12.5%", "-"] in lines
    assert ["k1", "0.0%", "8.3%"] in lines
    assert not any(line[:1] == ["collection"] for line in lines)  # all chips are of one


def test_counting_stops_at_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENOUGH", 10)
    monkeypatch.setattr(module, "MEASURED", 5)
    frame = chips("utm 33", metres=2560, size=(10, 10))
    report = audit(frame.assign(split=["train", "test"] * 50))
    assert 10 <= report.leaks < 20
    assert report.pairs[0].stopped
    assert str(report).startswith("LEAK: at least 1")


def test_order_and_laziness_make_no_difference() -> None:
    frame = chips("utm 33", metres=2560, size=(10, 10)).assign(split=lambda rows: np.where(rows.index < 50, "train", "test"))
    expected = audit(frame, 1.0)
    assert expected.leaks == 20
    shuffled = audit(frame.sample(frac=1, random_state=0), 1.0)
    assert (shuffled.leaks, shuffled.splits) == (expected.leaks, expected.splits)
    assert audit(dask_geopandas.from_geopandas(frame, npartitions=3), 1.0) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer_km": -1}, "0 to 20,000 km, got -1"),
        ({"gap": "-1D"}, "gap is a length of time"),
        ({"column": "fold"}, "'fold'"),
        ({"column": "chip_id", "ignore": ["a-0", "a-1"]}, "no chip is in a split"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(chips("utm 33", metres=2560, size=(1, 2)), **options)


# The command line


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    grid = ChipGrid(PixelGrid("EPSG:32720", (10.0, 0.0, 499_980.0, 0.0, -10.0, 6_400_000.0), (5120, 5120)), 256)
    counts = np.full((7, *grid.shape), 10)
    index = index_frame(grid, counts, ItemColumns("scene", None, None, None, np.datetime64("2024-01-01", "us")))
    return write_index(index, str(tmp_path_factory.mktemp("index") / "scene.parquet"))


def test_split_then_audit(written: str, tmp_path: Any) -> None:
    out, report = tmp_path / "parts.parquet", tmp_path / "audit.json"
    done = run("split", written, "-o", out, "--share", "train=0.5", "--share", "test=0.5", "--block-km", 12, "--buffer-km", 0.5)
    assert done.exit_code == 0, done.output
    assert "train" in done.output
    assert f"written to {out}" in done.output
    assert "Warning" not in done.output
    checked = run("audit", out, "--buffer-km", 0.5, "--json", report, "--balance", "item_id")
    assert checked.exit_code == 0, checked.output
    assert json.loads(report.read_text())["ok"]
    leak = run("audit", out, "--buffer-km", 30)
    assert leak.exit_code == 3
    assert leak.output.startswith("LEAK: ")
    refused(run("audit", written), r"no column 'split' of splits; make one with xchip\.split")


def test_a_split_without_chips_is_told(written: str, tmp_path: Any) -> None:
    done = run("split", written, "-o", tmp_path / "parts.parquet", "--block-km", 2000)
    assert done.exit_code == 0, done.output
    (whole,) = set(geopandas.read_parquet(tmp_path / "parts.parquet")["split"]) - {"buffer"}
    empty = " and ".join(name for name in ("train", "val", "test") if name != whole)
    assert f"Warning: no chip is in {empty}: there are few blocks of 2000 km; a smaller --block-km makes more" in done.stderr


def test_blocks_that_are_smaller_than_chips_are_told(written: str, tmp_path: Any) -> None:
    """Most chips are set aside then, and still smaller blocks would be no help."""
    out = str(tmp_path / "parts.parquet")
    done = run("split", written, "-o", out, "--block-km", 1, "--buffer-km", 0.9)
    parts = geopandas.read_parquet(out)
    assert (parts["split"] == "buffer").sum() > 350
    assert "most chips are too near to another split; a --block-km above 1 puts fewer in the buffer" in done.stderr
    with pytest.warns(UserWarning, match="larger blocks or a smaller buffer may give some"):
        split(geopandas.read_parquet(written), block_km=1, buffer_km=0.9)
    with pytest.raises(ValueError, match=r"column 'split' has \{'buffer': 400\}; make one"):
        audit(parts.assign(split="buffer"))


def test_split_by_column_and_polygons(written: str, tmp_path: Any) -> None:
    done = run("split", written, "-o", tmp_path / "a.parquet", "--by", "chip_index_x", "--buffer-km", 0)
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("Warning: no chip is in ['val', 'test'] (400 chips")  # in a line, without a place in the code
    assert len(done.stderr.splitlines()) == 1
    layer = tmp_path / "layer.gpkg"
    rows = geopandas.read_parquet(written)
    west, south, east, north = rows.total_bounds
    halves = [shapely.box(west, south, (west + east) / 2, north), shapely.box((west + east) / 2, south, east, north)]
    geopandas.GeoDataFrame({"split": ["train", "test"]}, geometry=halves, crs=4326).to_file(layer)
    done = run("split", written, "-o", tmp_path / "b.parquet", "--polygons", layer)
    assert done.exit_code == 0, done.output
    assert run("audit", tmp_path / "b.parquet", "--buffer-km", 1).exit_code == 0
    bad = run("split", written, "-o", tmp_path / "c.parquet", "--share", "train")
    assert bad.exit_code == 2
    assert "train=0.8" in bad.stderr


def test_sample(written: str, tmp_path: Any) -> None:
    done = run("sample", written, "-o", tmp_path / "some.parquet", "-n", 10, "--by", "chip_index_x", "--balanced")
    assert done.exit_code == 0, done.output
    assert len(geopandas.read_parquet(tmp_path / "some.parquet")) == 10
