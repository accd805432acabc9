"""Opening indexes: the rows are those of a plain search through the whole table, and little else of the files is read."""

from __future__ import annotations

import json
import operator
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask_geopandas
import fsspec
import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from processes import object_store, s3_client
from servers import Fault, RangeServer

from xchip.core.grid import ChipGrid, PixelGrid
from xchip.indexing.archive.layout import item_name, part_name
from xchip.indexing.archive.ledger import Record, RunRecords, now
from xchip.indexing.archive.manifest import rebuild_manifest
from xchip.indexing.files.write import index_bytes, write_index
from xchip.indexing.opening.listing import list_files
from xchip.indexing.opening.query import make_query
from xchip.indexing.opening.read import open_index, read_index, rows_of
from xchip.indexing.opening.scan import Piece, open_file, survey
from xchip.indexing.rows import COLUMNS, FRACTIONS, GRID_ATTRIBUTE, ItemColumns, empty_frame, index_frame
from xchip.io.storage import StorageOptions
from xchip.io.store import Store

PLACES = {
    # item: (CRS, left, top) of its upper left pixel, and its collection
    "S2_33": ("EPSG:32633", 500_000, 5_000_000, "sentinel-2-l2a"),
    "S2_20": ("EPSG:32720", 300_000, 6_400_000, "sentinel-2-l2a"),
    "L8/60": ("EPSG:32660", 740_000, 4_000_000, "landsat-c2-l2"),  # its chips lie on both sides of the antimeridian
    "L8..1": ("EPSG:32601", 300_000, 1_000_000, "landsat-c2-l2"),
    "linz": ("EPSG:2193", 1_600_000, 5_400_000, None),
}
SENSORS = {"sentinel-2-l2a": "sentinel-2-l2a", "landsat-c2-l2": "landsat-c2-l2", None: None}


def rows_of_item(number: int) -> geopandas.GeoDataFrame:
    """Six to nine chips of 16 x 16 pixels of 2 km, some without valid pixels."""
    item_id, (crs, left, top, collection) = list(PLACES.items())[number]
    grid = ChipGrid(PixelGrid(crs, (2000, 0, left, 0, -2000, top), (48, 32 + 16 * (number % 2))), 16)
    rng = np.random.default_rng(number)
    counts = rng.multinomial(256, rng.dirichlet(np.ones(7) / 3), (3, grid.shape[1])).transpose(2, 0, 1)
    counts[:, 1, 0] = [256, 0, 0, 0, 0, 0, 0]
    href = item_name(collection, item_id)
    time = np.datetime64("2024-01-01T10:00", "us") + np.timedelta64(number, "D")
    offset = -1000.0 if item_id == "S2_33" else None
    return index_frame(grid, counts, ItemColumns(item_id, collection, href, SENSORS[collection], time, offset))


FRAMES = [rows_of_item(number) for number in range(len(PLACES))]
FRAMES[0].loc[3, "geometry"] = shapely.Polygon()
FRAMES[1].loc[0, "geometry"] = None
WHOLE = pd.concat(FRAMES, ignore_index=True)


def file_bytes(frame: geopandas.GeoDataFrame, **options: Any) -> bytes:
    """An index file; a missing geometry, which xchip itself never makes, is put in afterwards."""
    missing = frame.geometry.isna().to_numpy()
    written = index_bytes([frame.assign(geometry=frame.geometry.where(~missing, shapely.Polygon()))], **options)
    if not missing.any():
        return written
    table = pq.read_table(pa.BufferReader(written))
    geometry = pc.if_else(pa.array(missing), None, table["geometry"])
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(table.column_names.index("geometry"), "geometry", geometry), sink)
    return sink.getvalue().to_pybytes()


def make_archive(root: Path, *, manifest: bool = True) -> Path:
    store = Store(str(root))
    for frame in FRAMES:
        first = frame.iloc[0]
        collection = None if pd.isna(first["collection"]) else first["collection"]
        store.write(part_name(collection, first["item_id"]), file_bytes(frame, options=frame.attrs[GRID_ATTRIBUTE]))
    if manifest:
        store.write("ledger/job.json", FRAMES[0].attrs[GRID_ATTRIBUTE].encode())
        rebuild_manifest(store)
    return root


def make_file(path: Path, group: int = 4, table: pa.Table | None = None) -> Path:
    """All rows in one file of small row groups."""
    written = pq.read_table(pa.BufferReader(file_bytes(WHOLE))) if table is None else table
    pq.write_table(written, path, row_group_size=group)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_file(tmp_path_factory.mktemp("file") / "all.parquet")


def plain(frame: pd.DataFrame, *, hrefs: bool = False) -> pd.DataFrame:
    """In one order; an item's href depends on where the archive is, and not all parts have an offset of reflectances."""
    rows = pd.DataFrame(frame).assign(boa_offset=frame.get("boa_offset", np.nan)).sort_values(["chip_id"], ignore_index=True)
    rows["geometry"] = shapely.to_wkb(np.asarray(rows["geometry"]))
    rows.attrs = {}
    return rows if hrefs else rows.drop(columns="item_href")


def assert_same_rows(found: pd.DataFrame, expected: pd.DataFrame, **options: Any) -> None:
    pd.testing.assert_frame_equal(plain(found, **options), plain(expected, **options))


def has_right_types(frame: Any) -> bool:
    return frame.dtypes[list(COLUMNS)].equals(empty_frame().dtypes)


# --- what comes back ----------------------------------------------------------------------------------------------------


def test_an_archive_comes_back_as_it_was_made(archive: Path) -> None:
    rows = read_index(archive)
    assert isinstance(rows, geopandas.GeoDataFrame)
    expected = WHOLE.assign(item_href=pd.array([f"{archive}/{href}" for href in WHOLE["item_href"]], WHOLE["item_href"].dtype))
    assert_same_rows(rows, expected, hrefs=True)
    assert tuple(rows.columns) == (*COLUMNS, "boa_offset")
    assert has_right_types(rows)
    assert rows.crs == "EPSG:4326"
    assert rows.attrs == FRAMES[0].attrs


@pytest.mark.parametrize("below", ["index", "index/landsat-c2-l2", "index/landsat-c2-l2/L8%2F60/index.parquet", "index/_"])
@pytest.mark.parametrize("manifest", [True, False])
def test_a_folder_or_file_of_an_archive_knows_the_archive(tmp_path: Path, below: str, manifest: bool) -> None:
    root = make_archive(tmp_path / "archive", manifest=manifest)
    rows = read_index(root / below)
    wanted = {"index": list(PLACES), "index/landsat-c2-l2": ["L8/60", "L8..1"], "index/_": ["linz"]}.get(below, ["L8/60"])
    assert_same_rows(rows, WHOLE[WHOLE["item_id"].isin(wanted)])
    hrefs = dict(zip(rows["item_id"], rows["item_href"], strict=True))
    assert hrefs == {item: f"{root}/{item_name(PLACES[item][3], item)}" for item in wanted}
    assert_same_rows(open_index(root / below).compute(), rows, hrefs=True)


def test_an_index_without_its_archive_keeps_its_hrefs(tmp_path: Path) -> None:
    root = make_archive(tmp_path / "archive")
    shutil.copytree(root / "index", tmp_path / "copy")
    assert_same_rows(read_index(tmp_path / "copy"), WHOLE, hrefs=True)


def test_absolute_hrefs_stay(tmp_path: Path) -> None:
    hrefs = ["https://host/a.json", "s3://bucket/b.json", "/disk/c.json", "items/d.json", "C:\\items\\e.json", None]
    frame = FRAMES[0].iloc[:6].assign(item_href=pd.array(hrefs, FRAMES[0]["item_href"].dtype))
    Store(str(tmp_path)).write(part_name("c", "i"), index_bytes([frame]))
    found = read_index(tmp_path)["item_href"].tolist()
    assert found == [*hrefs[:3], f"{tmp_path}/items/d.json", hrefs[4], pd.NA]


def test_a_relative_path_gives_absolute_hrefs(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.parent)
    assert read_index(archive.name)["item_href"].str.startswith(f"{archive}/items/").all()


def test_files_of_every_writer_give_the_same_types(tmp_path: Path, file: Path) -> None:
    table = pq.read_table(file)
    coded = table
    for name in ("item_id", "collection", "sensor"):
        coded = coded.set_column(coded.column_names.index(name), name, coded[name].dictionary_encode())
    wide = table.set_column(table.column_names.index("width"), "width", table["width"].cast(pa.int64()))
    wide = wide.set_column(5, "datetime", wide["datetime"].cast(pa.timestamp("ns", "UTC")))
    large = table.cast(pa.schema([pa.field(f.name, pa.large_string() if f.type == "string" else f.type) for f in table.schema]))
    paths = [make_file(tmp_path / f"{n}.parquet", 7, t) for n, t in enumerate((coded, wide, large.replace_schema_metadata(None)))]
    WHOLE[::-1].to_parquet(tmp_path / "geopandas.parquet")
    dask_geopandas.from_geopandas(WHOLE, npartitions=2).to_parquet(tmp_path / "dask")
    for path in (*paths, tmp_path / "geopandas.parquet", tmp_path / "dask"):
        rows = read_index(path, filters=[("item_id", "in", ["S2_33", "linz"])])
        assert_same_rows(rows, WHOLE[WHOLE["item_id"].isin(["S2_33", "linz"])], hrefs=True)
        index = open_index(path)
        assert has_right_types(index)
        assert_same_rows(index.compute(), WHOLE, hrefs=True)


def test_columns_of_the_user_come_after_the_index_s_own(tmp_path: Path) -> None:
    first = FRAMES[2].assign(split="train", score=np.arange(len(FRAMES[2])))
    second = FRAMES[1].assign(note=1.5, split="test")
    for number, frame in enumerate((first, second)):
        Store(str(tmp_path)).write(f"parts/{number}.parquet", file_bytes(frame))
    rows = read_index(tmp_path / "parts")
    assert tuple(rows.columns) == (*COLUMNS, "split", "score", "note")
    assert rows["score"].dropna().tolist() == list(range(len(first)))
    assert rows["split"].tolist() == ["train"] * len(first) + ["test"] * len(second)
    index = open_index(tmp_path / "parts")
    assert tuple(index.columns) == tuple(rows.columns)
    pd.testing.assert_frame_equal(pd.DataFrame(index.compute()).reset_index(drop=True), pd.DataFrame(rows))
    train = read_index(tmp_path / "parts", filters=[("split", "==", "train"), ("score", ">", 3)])
    assert train["score"].tolist() == list(range(4, len(first)))
    by_expression = read_index(tmp_path / "parts", filters=(pc.field("split") == "train") & (pc.field("score") > 3))
    pd.testing.assert_frame_equal(by_expression, train)


def test_grid_options_are_told_where_all_files_agree(tmp_path: Path, archive: Path) -> None:
    assert open_index(archive)._meta.attrs == read_index(archive).attrs == FRAMES[0].attrs
    path = write_index(FRAMES[0], tmp_path / "a.parquet")
    assert open_index(path)._meta.attrs == FRAMES[0].attrs
    other = FRAMES[3].copy()
    other.attrs[GRID_ATTRIBUTE] = FRAMES[0].attrs[GRID_ATTRIBUTE].replace("drop", "pad")
    more = write_index(other, tmp_path / "b.parquet")
    assert open_index(more)._meta.attrs == other.attrs
    for paths in ([path, more], tmp_path):
        assert read_index(paths).attrs == open_index(paths)._meta.attrs == {}
    (make_archive(tmp_path / "archive") / "ledger" / "job.json").unlink()
    assert open_index(tmp_path / "archive")._meta.attrs == {}, "nobody tells, and no part is opened for it"


def test_several_paths_are_one_index(tmp_path: Path, archive: Path) -> None:
    path = write_index(FRAMES[0], tmp_path / "a.parquet")
    rows = read_index([path, archive / "index" / "_"])
    assert_same_rows(rows, pd.concat([FRAMES[0], FRAMES[4]]))
    assert_same_rows(open_index([path, str(archive / "index" / "_")]).compute(), rows, hrefs=True)


# --- box and filters ------------------------------------------------------------------------------------------------------


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda column, values: column.isin(values),
    "not in": lambda column, values: ~column.isin(values),
}


def in_box(bbox: tuple[float, ...] | None) -> np.ndarray:
    """By the definition: the footprint meets the box, or one of its halves."""
    if bbox is None:
        return np.ones(len(WHOLE), bool)
    west, south, east, north = bbox
    halves = [(west, east)] if west <= east else [(west, 180), (-180, east)]
    # A box without width is a line, and one without height too: as the hull of its corners it is right for all of them.
    areas = [shapely.convex_hull(shapely.MultiPoint([(w, south), (w, north), (e, south), (e, north)])) for w, e in halves]
    shapes = [None if shape is None else shape for shape in WHOLE.geometry]
    return np.array([shape is not None and any(shape.intersects(area) for area in areas) for shape in shapes])


def meeting(groups: list[list[tuple[str, str, Any]]]) -> np.ndarray:
    found = np.zeros(len(WHOLE), bool)
    for group in groups:
        held = np.ones(len(WHOLE), bool)
        for column, op, value in group:
            wanted = pd.Timestamp(value, tz="UTC") if column == "datetime" else value
            held &= COMPARISONS[op](WHOLE[column], wanted).fillna(False).to_numpy(bool)
        found |= held
    return found


CENTRES = [tuple(point) for point in shapely.get_coordinates(shapely.centroid(WHOLE.geometry.array))]


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, ...] | None:
    if draw(st.integers(0, 5)) == 0:
        return None
    lon, lat = draw(st.sampled_from(CENTRES))
    near = st.floats(-3, 3, width=32)
    longitudes = st.one_of(
        near.map(lambda d: float(np.clip(lon + d, -180, 180))), st.sampled_from([-180.0, 180.0, 179.5, -179.5])
    )
    south, north = sorted(float(np.clip(lat + draw(near), -90, 90)) for _ in range(2))
    return draw(longitudes), south, draw(longitudes), north


def numbers(name: str) -> st.SearchStrategy[float]:
    return st.one_of(st.sampled_from([0.0, 1.0, *WHOLE[name].dropna().unique().tolist()]), st.floats(-0.1, 1.1))


def terms(columns: tuple[str, ...]) -> st.SearchStrategy[tuple[str, str, Any]]:
    def of(name: str) -> st.SearchStrategy[tuple[str, str, Any]]:
        if name in FRACTIONS:
            value: st.SearchStrategy[Any] = numbers(name)
        elif name == "datetime":
            value = st.integers(-1, 5).map(lambda day: f"2024-01-{max(day, 0) + 1:02d}T10:00:00")
        else:
            value = st.sampled_from([*WHOLE[name].dropna().unique().tolist(), 9 if name == "chip_index_x" else "nothing"])
        several = st.lists(value, min_size=0, max_size=3) if name != "datetime" else st.nothing()
        single = st.tuples(st.just(name), st.sampled_from(["==", "=", "!=", "<", "<=", ">", ">="]), value)
        return single | st.tuples(st.just(name), st.sampled_from(["in", "not in"]), several)

    return st.sampled_from(columns).flatmap(of)


NAMES = ("cloud_fraction", "water_fraction", "nodata_fraction", "item_id", "sensor", "chip_index_x", "datetime")
GROUPS = st.lists(st.lists(terms(NAMES), min_size=1, max_size=3), min_size=1, max_size=3)


@given(bbox=boxes(), groups=st.none() | GROUPS, file_first=st.booleans())
def test_rows_are_those_of_a_plain_search(
    archive: Path, file: Path, bbox: tuple[float, ...] | None, groups: list[list[tuple[str, str, Any]]] | None, file_first: bool
) -> None:
    expected = WHOLE[in_box(bbox) & (True if groups is None else meeting(groups))]
    for path in (file, archive) if file_first else (archive, file):
        rows = read_index(path, bbox, groups)
        assert_same_rows(rows, expected)
    lazy = open_index(path, bbox, groups)
    assert_same_rows(lazy.compute(scheduler="synchronous"), rows, hrefs=True)


ARROW_TYPES = dict.fromkeys(FRACTIONS, pa.float64()) | {"chip_index_x": pa.int32()}


@st.composite
def expressions(draw: st.DrawFn, depth: int = 2) -> pc.Expression:
    kind = draw(st.sampled_from(["term", "term", "and", "or", "not", "other"])) if depth else "term"
    if kind in ("and", "or"):
        left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
        return left & right if kind == "and" else left | right
    if kind == "not":
        return ~draw(expressions(depth - 1))
    if kind == "other":
        field = pc.field(draw(st.sampled_from(NAMES[:3])))
        return draw(st.sampled_from([field.is_nan(), field.is_valid(), pc.field("sensor").is_null()]))
    name, op, value = draw(terms(NAMES[:-1]))
    if op in COMPARISONS and "in" not in op:
        return COMPARISONS[op](pc.field(name), value)
    found = pc.field(name).isin(pa.array(value, ARROW_TYPES.get(name, pa.string())))
    return found if op == "in" else ~found


@given(expression=expressions())
def test_expressions_mean_what_they_mean_to_arrow(archive: Path, file: Path, expression: pc.Expression) -> None:
    table = pq.read_table(file)
    expected = set(table.filter(expression)["chip_id"].to_pylist())
    assert set(read_index(file, filters=expression)["chip_id"]) == expected
    assert set(open_index(archive, filters=expression).compute(scheduler="synchronous")["chip_id"]) == expected


def test_a_box_across_the_antimeridian_finds_both_sides(archive: Path) -> None:
    rows = read_index(archive, (179, -90, -179, 90))
    assert {"L8/60"} <= set(rows["item_id"]) <= {"L8/60", "L8..1"}
    assert rows.geometry.bounds.minx.min() == -180
    assert rows.geometry.bounds.maxx.max() == 180
    assert any(rows.geometry.geom_type == "MultiPolygon")


def test_chips_without_valid_pixels_pass_no_limit_on_clouds(archive: Path) -> None:
    rows = read_index(archive, filters=[("cloud_fraction", "<=", 1)])
    assert len(rows) == WHOLE["cloud_fraction"].notna().sum() < len(WHOLE)


@pytest.mark.parametrize(
    "time",
    [
        "2024-01-03T10:00Z",
        "2024-01-03 11:00+01:00",
        pd.Timestamp("2024-01-03T10:00"),
        np.datetime64("2024-01-03T10:00"),
        pd.Timestamp("2024-01-03T10:00", tz="UTC").to_pydatetime(),
    ],
)
def test_times_are_compared_in_utc(archive: Path, time: Any) -> None:
    assert set(read_index(archive, filters=[("datetime", "=", time)])["item_id"]) == {"L8/60"}
    assert set(read_index(archive, filters=[("datetime", "in", [time])])["item_id"]) == {"L8/60"}


def test_hrefs_are_filtered_as_they_are_given(archive: Path) -> None:
    href = read_index(archive)["item_href"].iloc[-1]
    for filters in ([("item_href", "==", href)], pc.field("item_href") == href):
        assert len(read_index(archive, filters=filters)) == (WHOLE["item_href"] == href.removeprefix(f"{archive}/")).sum() > 0


# --- what is read ---------------------------------------------------------------------------------------------------------


class CountingFileSystem(MemoryFileSystem):
    """Files in memory; remembers what was read of which."""

    protocol = "counting"
    store: dict[str, Any] = {}  # noqa: RUF012  as in the parent class
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    read: list[tuple[str, int]] = []  # noqa: RUF012
    """(file, bytes) of each read."""
    listed: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("counting://", "memory://"))

    def _open(self, path: str, *args: Any, **options: Any) -> Any:
        file = super()._open(path, *args, **options)
        if options.get("mode", args[0] if args else "rb") != "rb":
            return file
        return _CountedFile(file.getvalue(), path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        content = super().cat_file(path, start, end, **options)
        self.read.append((path, len(content)))
        return content

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        self.listed.append(path)
        return super().find(path, *args, **options)


class _CountedFile(pa.PythonFile):  # type: ignore[misc]
    def __new__(cls, content: bytes, path: str) -> Any:
        import io

        class Counted(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                found = super().read(size)
                CountingFileSystem.read.append((path, len(found)))
                return found

        return Counted(content)


fsspec.register_implementation("counting", CountingFileSystem, clobber=True)


OVERVIEW = {f"/archive/{name}" for name in ("manifest.parquet", "ledger/failures.json", "ledger/job.json")}
"""What is read of an archive to know what is in it."""


@pytest.fixture
def counted(archive: Path) -> Iterator[str]:
    """The archive in a bucket that counts."""
    fs = fsspec.filesystem("counting")
    fs.put(f"{archive}/", "/archive/", recursive=True)
    fs.read.clear()
    fs.listed.clear()
    yield "counting://archive"
    fs.rm("/archive", recursive=True)


def files_read() -> set[str]:
    return {path for path, _ in CountingFileSystem.read}


def test_opening_an_archive_reads_the_manifest_and_nothing_else(counted: str) -> None:
    index = open_index(counted, filters=[("cloud_fraction", "<", 0.1)])
    assert files_read() == OVERVIEW
    assert not any("index" in path for path in CountingFileSystem.listed)
    outlines = index.spatial_partitions
    assert len(outlines) == 1
    np.testing.assert_array_equal(outlines.total_bounds, WHOLE.total_bounds)


@pytest.mark.parametrize(
    ("bbox", "filters", "items"),
    [
        ((14, 40, 19, 46), None, ["S2_33"]),
        (None, [("item_id", "==", "L8/60")], ["L8/60"]),
        (None, [("item_id", "in", ["L8/60", "linz"]), ("cloud_fraction", "<=", 1)], ["L8/60", "linz"]),
        (None, [("collection", "=", "landsat-c2-l2"), ("datetime", ">", "2024-01-04")], ["L8..1"]),
        (
            None,
            [[("sensor", "not in", ["sentinel-2-l2a"])], [("datetime", "<", "2024-01-02")]],
            ["S2_33", "L8/60", "L8..1", "linz"],
        ),
        ((-180, -90, 180, 0), [[("sensor", "!=", "landsat-c2-l2")], [("item_id", "=", "none")]], ["S2_20"]),
        (None, pc.field("collection").isin(["sentinel-2-l2a"]), ["S2_33", "S2_20"]),
        (None, (pc.field("item_id") == "linz") & (pc.field("cloud_fraction") < 0.9), ["linz"]),
        (None, ~(pc.field("item_id") > "L8/60") & ~(pc.field("cloud_fraction") > 0.9), ["L8/60", "L8..1"]),
        ((100, -50, 110, -40), None, []),
    ],
)
def test_only_parts_that_can_hold_rows_are_read(counted: str, bbox: Any, filters: Any, items: list[str]) -> None:
    wanted = {f"/archive/{part_name(PLACES[item][3], item)}" for item in items}
    rows = read_index(counted, bbox, filters)
    assert files_read() == wanted | OVERVIEW
    assert len([path for path, _ in CountingFileSystem.read if path in wanted]) == len(items), "one request a part"
    CountingFileSystem.read.clear()
    lazy = open_index(counted, bbox, filters)
    assert files_read() == OVERVIEW
    assert_same_rows(lazy.compute(scheduler="synchronous"), rows, hrefs=True)
    assert files_read() == wanted | OVERVIEW


def test_a_large_file_is_read_only_where_it_must_be(tmp_path: Path) -> None:
    """A row group a longitude, each with text that doesn't compress."""
    groups, rows = 60, 40
    rng = np.random.default_rng(0)
    frame = pd.concat([WHOLE.iloc[[0] * rows]] * groups, ignore_index=True)
    west = np.repeat(np.linspace(-170, 168, groups), rows) + rng.uniform(0, 1, len(frame))
    frame["geometry"] = shapely.box(west, 10, west + 1, 11)
    frame["noise"] = [rng.bytes(400).hex() for _ in range(len(frame))]
    frame["cloud_fraction"] = np.repeat(np.arange(groups) % 2 / 2, rows)
    written = index_bytes([frame.iloc[start : start + rows] for start in range(0, len(frame), rows)])
    fs = fsspec.filesystem("counting")
    fs.pipe_file("/large.parquet", written)
    fs.read.clear()
    assert len(written) > 1 << 20
    filters = [("cloud_fraction", "<", 0.25)]
    found = read_index("counting://large.parquet", (-10, 0, 10, 20), filters)
    expected = frame[shapely.intersects(shapely.box(-10, 0, 10, 20), frame.geometry.array) & (frame["cloud_fraction"] < 0.25)]
    assert found["noise"].tolist() == expected["noise"].tolist()
    assert [len(expected), len(fs.read)] == [2 * rows, 4], "the end of the file, the footer, and two of sixty row groups"
    needed = expected["noise"].str.len().sum() // 2
    assert needed < sum(count for _, count in fs.read[2:]) < 1.5 * needed
    footer = sum(count for _, count in fs.read[:2])
    fs.read.clear()
    lazy = open_index("counting://large.parquet", (-10, 0, 10, 20), filters)
    assert sum(count for _, count in fs.read) == footer
    assert lazy.compute(scheduler="synchronous")["noise"].tolist() == expected["noise"].tolist()
    fs.rm("/large.parquet")


def groups_of(path: Path, bbox: Any, filters: Any) -> list[int]:
    query = make_query(bbox, filters, extra=pa.schema([]).empty_table)
    found, _, _ = survey(Piece(str(path)), query, rows=1)
    return [number for surveyed in found for number in surveyed.piece.groups or ()]


def test_row_groups_that_are_read(tmp_path: Path) -> None:
    frame = pd.concat([FRAMES[0].iloc[[0] * 4]] * 5, ignore_index=True)
    cloud = np.repeat([0.0, 0.0, 0.5, 0.9, np.nan], 4)
    cloud[4:6] = np.nan
    frame["cloud_fraction"] = cloud
    frame["item_id"] = pd.array(np.repeat(list("abcde"), 4), frame["item_id"].dtype)
    frame["datetime"] = pd.date_range("2024-01-01", periods=20, tz="UTC").as_unit("us")
    frame["geometry"] = shapely.box(np.arange(20), 0, np.arange(20) + 0.5, 1)
    path = Path(write_index(frame, tmp_path / "rows.parquet"))
    make_file(path, 4, pq.read_table(path))
    assert groups_of(path, None, None) == [0, 1, 2, 3, 4]
    assert groups_of(path, (3.6, 0, 8, 1), None) == [1, 2]
    assert groups_of(path, (15.5, 0.5, 3.6, 0.5), None) == [0, 3, 4]
    assert groups_of(path, None, [("cloud_fraction", "<=", 0.1)]) == [0, 1, 4], "nothing is known of the last: all is NaN"
    assert groups_of(path, None, [("cloud_fraction", "!=", 0)]) == [0, 1, 2, 3, 4], "NaN is not 0, and statistics hide it"
    assert groups_of(path, None, [("cloud_fraction", "!=", 0), ("item_id", "in", ["a", "c"])]) == [0, 2]
    assert groups_of(path, None, [("item_id", "==", "d")]) == [3]
    assert groups_of(path, None, [[("item_id", "==", "d")], [("datetime", "<", "2024-01-02")]]) == [0, 3]
    assert groups_of(path, None, pc.field("cloud_fraction") >= 0.7) == [3, 4]
    assert groups_of(path, None, ~(pc.field("cloud_fraction") < 0.7)) == [0, 1, 2, 3, 4]
    assert groups_of(path, (0, 0, 1, 1), [("cloud_fraction", ">", 0.7)]) == []


def test_partitions_are_row_groups_of_a_large_file_and_groups_of_small_ones(tmp_path: Path, file: Path) -> None:
    query = make_query(None, None, extra=pa.schema([]).empty_table)
    found, _, _ = survey(Piece(str(file)), query, rows=9)
    assert [surveyed.rows for surveyed in found] == [8] * (len(WHOLE) // 8) + ([len(WHOLE) % 8] if len(WHOLE) % 8 else [])
    start = 0
    for surveyed in found:
        known = WHOLE.iloc[start : start + surveyed.rows]
        np.testing.assert_array_equal(surveyed.bounds, known.total_bounds)
        start += surveyed.rows

    for number in range(700):
        target = tmp_path / "many" / f"{number:03d}.parquet"
        target.parent.mkdir(exist_ok=True)
        if number:
            os.link(tmp_path / "many" / "000.parquet", target)
        else:
            write_index(FRAMES[4], target)
    index = open_index(tmp_path / "many")
    assert index.npartitions == 3
    assert len(index.partitions[2]) == 100 * len(FRAMES[4])
    assert not index.known_divisions


def test_a_changed_archive_is_another_graph(tmp_path: Path) -> None:
    root = make_archive(tmp_path / "archive")
    before = open_index(root)
    store = Store(str(root))
    store.write(
        part_name(None, "linz"), file_bytes(FRAMES[4], options=FRAMES[4].attrs[GRID_ATTRIBUTE], more={"fingerprint": "0"})
    )
    rebuild_manifest(store)
    assert not before.dask.keys() & open_index(root).dask.keys()


def test_an_answer_without_rows_has_columns(archive: Path, file: Path) -> None:
    for path in (archive, file):
        for bbox, filters in (((100, -50, 110, -40), None), (None, [("cloud_fraction", ">", 2)])):
            lazy = open_index(path, bbox, filters)
            assert lazy.npartitions == 1
            for rows in (read_index(path, bbox, filters), lazy.compute()):
                assert len(rows) == 0
                assert has_right_types(rows)
                assert rows.crs == "EPSG:4326"


def test_a_lazy_index_goes_through_what_others_do_with_it(archive: Path, tmp_path: Path) -> None:
    index = open_index(archive, (-180, -90, 180, 90))
    assert pickle.loads(pickle.dumps(index)).npartitions == index.npartitions
    clear = index[index.cloud_fraction < 0.5]
    path = write_index(clear, tmp_path / "clear.parquet")
    assert_same_rows(read_index(path), WHOLE[(WHOLE["cloud_fraction"] < 0.5) & in_box((-180, -90, 180, 90))])
    assert read_index(path).attrs == FRAMES[0].attrs
    joined = index.sjoin(geopandas.GeoDataFrame(geometry=[shapely.box(14, 40, 19, 46)], crs=4326)).compute()
    assert set(joined["item_id"]) == {"S2_33"}


# --- stacchip -------------------------------------------------------------------------------------------------------------


def stacchip_table(frame: geopandas.GeoDataFrame, *, merged: bool = False) -> pa.Table:
    """As stacchip's indexers make it: without item and platform, which only merged tables have."""
    table = pa.table(
        {
            "chipid": frame["chip_id"].tolist(),
            "date": pa.array(frame["datetime"].dt.date, pa.date32()),
            "chip_index_x": frame["chip_index_x"].to_numpy("uint16"),
            "chip_index_y": frame["chip_index_y"].to_numpy("uint16"),
            "cloud_cover_percentage": pa.array(
                (frame["cloud_fraction"] * (1 - frame["nodata_fraction"])).fillna(0), pa.float32()
            ),
            "nodata_percentage": pa.array(frame["nodata_fraction"], pa.float32()),
            "geometry": pa.array(shapely.to_wkb(np.asarray(frame.geometry)), pa.binary()),
        }
    )
    if merged:
        platforms = {"sentinel-2-l2a": "sentinel-2-l2a", "landsat-c2-l2": "landsat-c2l2-sr"}
        table = table.append_column("platform", [[platforms.get(name, "modis") for name in frame["sensor"].fillna("")]])
        table = table.append_column("item", pa.array(frame["item_id"].tolist()).dictionary_encode())
    return table


def assert_from_stacchip(rows: geopandas.GeoDataFrame, expected: geopandas.GeoDataFrame, size: int) -> None:
    rows, expected = (frame.sort_values("chip_id", ignore_index=True) for frame in (rows, expected))
    assert has_right_types(rows)
    same = ["chip_id", "item_id", "chip_index_x", "chip_index_y", "nodata_fraction"]
    pd.testing.assert_frame_equal(pd.DataFrame(rows[same]), pd.DataFrame(expected[same]), check_exact=True)
    np.testing.assert_allclose(rows["cloud_fraction"], expected["cloud_fraction"], rtol=1e-6)
    assert (rows["datetime"] == expected["datetime"].dt.floor("D")).all()
    assert (rows["width"] == size).all()
    assert (rows["height"] == size).all()
    assert (rows["col_off"] == size * rows["chip_index_x"]).all()
    assert (rows["row_off"] == size * rows["chip_index_y"]).all()
    assert shapely.equals_exact(rows.geometry.values, expected.geometry.values).all()
    assert rows[["collection", "proj_code"]].isna().all(axis=None)
    assert rows[["proj_left", "proj_top", "clear_fraction", "snow_fraction"]].isna().all(axis=None)


def test_a_bucket_that_stacchip_filled(tmp_path: Path) -> None:
    platforms = ["sentinel-2-l2a", "of-our-own", "landsat-c2l2-sr", "landsat-c2l1", "modis"]
    known = ["sentinel-2-l2a", pd.NA, "landsat-c2-l2", "landsat-c2-l1", "modis-09a1"]
    frames = [frame.assign(geometry=WHOLE.geometry.iloc[20]) for frame in FRAMES]
    frames[2]["item_id"] = pd.array(["L8-60"] * len(frames[2]), frames[2]["item_id"].dtype)
    frames[2]["chip_id"] = frames[2]["chip_id"].str.replace("L8/60", "L8-60")
    for frame, platform in zip(frames, platforms, strict=True):
        item = frame["item_id"].iloc[0]
        target = tmp_path / "index" / platform / item / f"index_{item}.parquet"
        target.parent.mkdir(parents=True)
        pq.write_table(stacchip_table(frame), target)
    for path in (tmp_path, tmp_path / "index"):
        rows = read_index(path, chip_size=16)
        assert_from_stacchip(rows, pd.concat(frames), 16)
        sensors, hrefs = (dict(zip(rows["item_id"], rows[name], strict=True)) for name in ("sensor", "item_href"))
        for frame, platform, sensor in zip(frames, platforms, known, strict=True):
            item = frame["item_id"].iloc[0]
            assert sensors[item] is sensor or sensors[item] == sensor
            assert hrefs[item] == f"{tmp_path}/{platform}/{item}/stac_item.json"
        assert_same_rows(open_index(path, chip_size=16).compute(), rows, hrefs=True)
    item = frames[3]["item_id"].iloc[0]
    one = read_index(tmp_path / "index" / platforms[3] / item / f"index_{item}.parquet", filters=[("cloud_fraction", "<=", 0.5)])
    assert_from_stacchip(one, frames[3][frames[3]["cloud_fraction"] <= 0.5], 256)


def test_a_merged_table_of_stacchip(tmp_path: Path) -> None:
    frame = WHOLE[np.isfinite(WHOLE.bounds["minx"])].reset_index(drop=True)
    pq.write_table(stacchip_table(frame, merged=True), tmp_path / "merged.parquet", row_group_size=5)
    rows = read_index(tmp_path / "merged.parquet", (14, 40, 19, 46), [("sensor", "==", "sentinel-2-l2a")], chip_size=16)
    assert_from_stacchip(rows, frame[frame["item_id"] == "S2_33"], 16)
    assert rows["item_href"].isna().all()
    assert set(rows["sensor"]) == {"sentinel-2-l2a"}


def test_the_items_of_a_merged_table_of_stacchip(tmp_path: Path) -> None:
    """Where its processors put them: <bucket>/<platform>/<item>/stac_item.json. prechip calls the column item_id."""
    frame = WHOLE[np.isfinite(WHOLE.bounds["minx"])].reset_index(drop=True)
    table = stacchip_table(frame, merged=True)
    renamed = table.rename_columns(["item_id" if name == "item" else name for name in table.column_names])
    # The column tells the item, and not the id of the chip.
    renamed = renamed.set_column(0, "chipid", [[str(number) for number in range(len(renamed))]])
    for one in (table, renamed):
        pq.write_table(one, tmp_path / "merged.parquet")
        rows = read_index(tmp_path / "merged.parquet", items_root="s3://data/", chip_size=16)
        assert sorted(rows["item_id"]) == sorted(frame["item_id"])
        known = dict(zip(one["chipid"].to_pylist(), one["platform"].to_pylist(), strict=True))
        for row in rows.itertuples():
            assert row.item_href == f"s3://data/{known[row.chip_id]}/{row.item_id}/stac_item.json"
        assert_same_rows(
            open_index(tmp_path / "merged.parquet", items_root="s3://data/", chip_size=16).compute(), rows, hrefs=True
        )
    pq.write_table(table.drop_columns("platform"), tmp_path / "bare.parquet")
    assert read_index(tmp_path / "bare.parquet")["item_href"].isna().all()
    with pytest.raises(ValueError, match=r"bare\.parquet' does not tell the platform .* no column 'platform'"):
        read_index(tmp_path / "bare.parquet", items_root="s3://data/")


def test_a_stacchip_table_of_xchip(tmp_path: Path) -> None:
    frame = FRAMES[2].assign(shadow_fraction=0.0, defective_fraction=0.0)
    write_index(frame, tmp_path / "a.parquet", schema="stacchip")
    assert_from_stacchip(read_index(tmp_path / "a.parquet", chip_size=16), frame, 16)
    assert set(read_index(tmp_path / "a.parquet")["sensor"]) == {"landsat-c2-l2"}


def test_a_stacchip_table_that_does_not_tell_its_items(tmp_path: Path) -> None:
    table = stacchip_table(FRAMES[0])
    table = table.set_column(0, "chipid", [[str(number) for number in range(len(table))]])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet' does not tell its items: .* add the column"):
        read_index(tmp_path / "a.parquet")


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ((1, 2, 3), r"bbox is \(west, south, east, north\) in degrees, got \(1, 2, 3\)"),
        ("west", "bbox is"),
        ((0, 5, 1, 2), "south <= north <= 90"),
        ((0, 0, 190, 1), "longitudes of bbox are from -180 to 180, .*west > east crosses the antimeridian"),
        ((0, 0, float("nan"), 1), "bbox must be finite"),
    ],
)
def test_boxes_that_make_no_sense(file: Path, bbox: Any, message: str) -> None:
    for function in (read_index, open_index):
        with pytest.raises(ValueError, match=message):
            function(file, bbox)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ([("cloud_fracton", "<", 1)], r"no column 'cloud_fracton'; near are \['cloud_fraction'"),
        (pc.field("cloud_fracton") < 1, r"no column 'cloud_fracton'; near are \['cloud_fraction'"),
        ([("xyz", "<", 1)], r"no column 'xyz'; it has \['chip_id', "),
        ([("cloud_fraction", "~", 1)], r"the operator must be one of .* got '~'"),
        ([("cloud_fraction", "<", "much")], r"\(cloud_fraction < \"much\"\) can't be evaluated"),
        ([("item_id", "in", "abc")], "'in' needs a list of values"),
        ([("item_id", "in", [1])], r"\(1,\) can't be values of 'item_id'"),
        ([("item_id", "==", None)], r"nothing compares with None.*is_null\(\)"),
        ([("datetime", "<", "tomorrow morning")], "datetime needs a time such as"),
        ([("datetime", "<", "NaT")], "nothing compares with a datetime that is missing"),
        ("cloud_fraction < 1", "filters are .* got 'cloud_fraction < 1'"),
        ([("cloud_fraction", "<")], r"filters are .* got \('cloud_fraction', '<'\)"),
        ([[]], "got an empty list"),
    ],
)
def test_filters_that_make_no_sense(archive: Path, filters: Any, message: str) -> None:
    for function in (read_index, open_index):
        with pytest.raises(ValueError, match=message):
            function(archive, filters=filters)


def test_what_is_no_index_is_refused(tmp_path: Path, file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["cloud_fraction", "chip_id"]), tmp_path / "columns.parquet")
    (tmp_path / "text.parquet").write_text("not Parquet")
    (tmp_path / "empty").mkdir()
    geo = json.loads(table.schema.metadata[b"geo"])
    geo["columns"]["geometry"]["crs"] = json.loads(geopandas.GeoSeries([], crs=32633).crs.to_json())
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "crs.parquet")
    geo["columns"]["geometry"]["encoding"] = "polygon"
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "encoding.parquet")
    width = table["width"].to_pandas().astype("Int32").where(table["width"].to_pandas() > 99)
    pq.write_table(table.set_column(10, "width", [width]), tmp_path / "nulls.parquet")
    pq.write_table(table.set_column(10, "width", [["a"] * len(table)]), tmp_path / "types.parquet")
    for name, message in {
        "columns.parquet": r"columns\.parquet' is no index: the columns \['chip_id', 'cloud_fraction'\] are missing",
        "text.parquet": r"text\.parquet' can't be read as Parquet",
        "empty": "there is no index at .*empty': no .*parquet file in",
        "crs.parquet": r"not in longitude and latitude; convert it with to_crs",
        "encoding.parquet": "encoded as 'polygon', xchip reads WKB",
        "nulls.parquet": "column 'width' has nulls",
        "types.parquet": "column 'width' is string, not int32",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_index(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            open_index(tmp_path / name).compute()
    for function in (read_index, open_index):
        with pytest.raises(FileNotFoundError, match=r"there is nothing at .*nowhere'; an index is"):
            function(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="the list of paths is empty"):
            function([])
        with pytest.raises(ValueError, match="chip_size is a number of pixels, at least 1, got 0"):
            function(file, chip_size=0)


def test_an_archive_without_parts_says_so(tmp_path: Path) -> None:
    run = RunRecords(Store(str(tmp_path)))
    run.add(Record("failed", None, "item", "0", now(), 1, error="OSError", message="gone"))
    run.flush()
    with pytest.raises(ValueError, match="has no parts yet; `xchip status` tells"):
        read_index(tmp_path)


# --- rows of whatever is an index -------------------------------------------------------------------------------------------


def test_rows_of_any_index(archive: Path, file: Path) -> None:
    wanted = ["item_id", "cloud_fraction"]
    sources = [str(file), file, [file], WHOLE, open_index(file), pq.read_table(file)]
    for source in sources:
        rows = rows_of(source, wanted)
        assert list(rows.columns) == wanted
        assert rows["item_id"].tolist() == WHOLE["item_id"].tolist()
        np.testing.assert_array_equal(rows["cloud_fraction"], WHOLE["cloud_fraction"])
        assert len(rows_of(source)) == len(WHOLE)
    assert isinstance(rows_of(archive, ["geometry", "chip_id"]), geopandas.GeoDataFrame)
    for source in (WHOLE, pq.read_table(file), open_index(file), file):
        with pytest.raises(ValueError, match=r"no columns? \[?'cloudiness'"):
            rows_of(source, ["cloudiness"])


# --- elsewhere ------------------------------------------------------------------------------------------------------------


def test_an_archive_on_a_web_server(archive: Path) -> None:
    with RangeServer(archive) as server:
        rows = read_index(server.url, (14, 40, 19, 46))
        assert_same_rows(rows, WHOLE[in_box((14, 40, 19, 46))])
        assert rows["item_href"].iloc[0].startswith(f"{server.url}/items/")
        parts = [path for method, path, _ in server.requests if method == "GET" and "/index/" in path]
        assert parts == ["/index/sentinel-2-l2a/S2_33/index.parquet"]
        assert_same_rows(read_index(f"{server.url}{parts[0]}"), FRAMES[0])


def test_a_part_that_is_refused_is_named(archive: Path) -> None:
    part = f"/{part_name('sentinel-2-l2a', 'S2_33')}"
    server = RangeServer(archive, fault=lambda asked: Fault(status=403) if asked.path == part else None)
    with server, pytest.raises(OSError, match=re.escape(f"can't read '{server.url}{part}': ")):
        read_index(server.url, (14, 40, 19, 46))


def test_a_partition_is_read_in_another_process(archive: Path, tmp_path: Path) -> None:
    index = open_index(archive, (14, 40, 19, 46), pc.field("cloud_fraction") < 2)
    (tmp_path / "task.pickle").write_bytes(pickle.dumps(index.partitions[0]))
    code = "import pickle, sys; rows = pickle.load(open(sys.argv[1], 'rb')).compute(scheduler='sync'); print(*rows.chip_id)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "task.pickle"], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) == set(index.compute()["chip_id"]) != set()


@pytest.mark.server
def test_an_archive_in_a_bucket(archive: Path, tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    with object_store(tmp_path) as environment:
        client = s3_client(environment["AWS_ENDPOINT_URL"])
        for path in archive.rglob("*"):
            if path.is_file():
                client.put_object(Bucket="scenes", Key=f"archive/{path.relative_to(archive)}", Body=path.read_bytes())
        keys = {"key": environment["AWS_ACCESS_KEY_ID"], "secret": environment["AWS_SECRET_ACCESS_KEY"]}
        storage = StorageOptions(endpoint=environment["AWS_ENDPOINT_URL"], region=environment["AWS_REGION"], **keys)
        url = "s3://scenes/archive"
        assert len(list_files(url, storage).paths) == len(FRAMES)
        rows = read_index(url, (179, -90, -179, 90), storage=storage)
        assert_same_rows(rows, WHOLE[in_box((179, -90, -179, 90))])
        assert rows["item_href"].str.startswith(f"{url}/items/").all()
        for path in (f"{url}/index/_", [f"{url}/{part_name(None, 'linz')}"]):
            assert_same_rows(open_index(path, storage=storage).compute(), FRAMES[4])
        file = open_file(Piece(f"{url}/{part_name(None, 'linz')}"), make_query(extra=pa.schema([]).empty_table, storage=storage))
        assert file.fragment.count_rows() == len(FRAMES[4])
