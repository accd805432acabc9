"""Merged indexes: the union of their sources in one order, refused where sources disagree, old or new and nothing between."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st

from xchip.core.grid import ChipGrid, PixelGrid
from xchip.indexing.archive.layout import part_name
from xchip.indexing.files.geoparquet import open_writer
from xchip.indexing.files.write import index_bytes, write_index
from xchip.indexing.merge.merge import merge_indexes
from xchip.indexing.merge.publish import GROUP_ROWS, IndexWriter, exchange
from xchip.indexing.rows import COLUMNS, ItemColumns, index_frame
from xchip.testing import synthetic_stack

SIDES = ("xmin", "ymin", "xmax", "ymax")


def item_rows(
    number: int, *, size: int = 256, collection: str | None = "s2", crs: int = 32720, item_id: str | None = None, **grid: Any
) -> geopandas.GeoDataFrame:
    """The index of an invented item: five by four chips of 256 pixels, with NaN where a chip has no valid pixel."""
    pixels = PixelGrid(f"EPSG:{crs}", (10.0, 0.0, 300_000.0 + 2_560 * number, 0.0, -10.0, 6_400_000.0), (1024, 1280))
    chips = ChipGrid(pixels, size, **grid)
    counts = np.random.default_rng(number).multinomial(size * size, [1 / 7] * 7, len(chips)).T
    counts[:, ::7] = 0
    counts[0, ::7] = size * size
    name = f"item-{number}" if item_id is None else item_id
    item = ItemColumns(name, collection, f"https://example.org/{name}.json", "sentinel-2-l2a", np.datetime64("2024-05-01", "us"))
    return index_frame(chips, counts.reshape(7, *chips.shape), item)


@cache
def pool() -> geopandas.GeoDataFrame:
    """Rows to choose from, of items in three collections and two zones; they overlap on the map."""
    crs = {"a": 32720, "b": 32720, "c": 32721}
    frames = [
        item_rows(n, collection=name, crs=code)
        for n, (name, code) in enumerate(itertools.islice(itertools.cycle(crs.items()), 6))
    ]
    rows = pd.concat(frames, ignore_index=True)
    rows.attrs = frames[0].attrs
    return rows


def chosen(numbers: Sequence[int]) -> geopandas.GeoDataFrame:
    rows = pool().iloc[list(numbers)].reset_index(drop=True)
    rows.attrs = pool().attrs
    return rows


def rows_of(path: Any) -> list[dict[str, Any]]:
    """Rows as they are in a file or folder; NaN made equal to itself."""
    files = sorted(Path(path).glob("*.parquet")) if Path(path).is_dir() else [path]
    tables = [pq.read_table(file).replace_schema_metadata(None) for file in files]
    rows = pa.concat_tables(tables).to_pylist()
    return [{name: "NaN" if value != value else value for name, value in row.items()} for row in rows]


def metadata(path: Any, key: str = "xchip") -> dict[str, Any]:
    path = sorted(Path(path).glob("*.parquet"))[0] if Path(path).is_dir() else path
    return dict(json.loads(pq.read_schema(path).metadata[key.encode()]))


def ids(path: Any) -> list[str]:
    return [row["chip_id"] for row in rows_of(path)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(rows: pd.DataFrame, path: Path) -> str:
    return write_index(rows, path)


# Laws

SOURCES = st.lists(st.sets(st.integers(0, len(item_rows(0)) * 6 - 1), max_size=25), min_size=1, max_size=4)


@settings(max_examples=12)
@given(sources=SOURCES, memory=st.sampled_from([1, "1 GB"]), as_folder=st.booleans())
def test_a_merged_index_is_the_union_of_its_sources_in_one_order(sources: list[set[int]], memory: Any, as_folder: bool) -> None:
    with TemporaryDirectory() as text:
        folder = Path(text)
        paths = [write(chosen(sorted(source)), folder / f"{n}.parquet") for n, source in enumerate(sources)]
        out = merge_indexes(paths, folder / ("all" if as_folder else "all.parquet"), memory=memory)
        union = chosen(sorted(set().union(*sources)))
        assert sorted(ids(out)) == sorted(union["chip_id"])
        expected = {row["chip_id"]: row for row in rows_of(write(union, folder / "union.parquet"))}
        found = rows_of(out)
        assert {row["chip_id"]: row for row in found} == expected
        again = merge_indexes(list(reversed(paths)), folder / "again.parquet")
        assert rows_of(again) == found, "neither the order of sources nor the memory matters"
        if not as_folder:
            assert Path(again).read_bytes() == Path(out).read_bytes()


@settings(max_examples=8)
@given(sources=st.lists(st.sets(st.integers(0, 119), max_size=25), min_size=3, max_size=3))
def test_merging_is_associative(sources: list[set[int]]) -> None:
    with TemporaryDirectory() as text:
        folder = Path(text)
        a, b, c = (write(chosen(sorted(source)), folder / f"{n}.parquet") for n, source in enumerate(sources))
        once = merge_indexes([a, b, c], folder / "once.parquet")
        twice = merge_indexes([merge_indexes([a, b], folder / "ab.parquet"), c], folder / "twice.parquet")
        added = merge_indexes(a, folder / "added.parquet")
        for path in (b, c):
            merge_indexes(None, added, add=path)
        assert Path(once).read_bytes() == Path(twice).read_bytes() == Path(added).read_bytes()


@pytest.mark.parametrize("name", ["all.parquet", "all"])
def test_drop_then_add_is_a_round_trip(tmp_path: Path, name: str) -> None:
    rows = pool()
    paths = {key: write(chosen(np.flatnonzero(rows["collection"] == key)), tmp_path / f"{key}.parquet") for key in "abc"}
    out = merge_indexes(list(paths.values()), tmp_path / name)
    before, facts = rows_of(out), metadata(out)
    merge_indexes(None, out, drop={"collection": "b"})
    assert {row["collection"] for row in rows_of(out)} == {"a", "c"}
    assert [source["path"] for source in metadata(out)["sources"]] == [paths["a"], paths["c"]]
    merge_indexes(None, out, add=paths["b"])
    assert (rows_of(out), metadata(out)) == (before, facts)
    assert [source["collections"] for source in facts["sources"]] == [["a"], ["b"], ["c"]]


def test_drop_and_add_together_replace_rows(tmp_path: Path) -> None:
    old, new = item_rows(0), item_rows(0)
    new["cloud_fraction"] = 0.25
    out = merge_indexes(
        [write(old, tmp_path / "old.parquet"), write(item_rows(1), tmp_path / "1.parquet")], tmp_path / "all.parquet"
    )
    path = write(new, tmp_path / "new.parquet")
    with pytest.raises(ValueError, match=r"merge_indexes\(None, out, drop=\{'item_id': 'item-0'\}, add=\.\.\.\)"):
        merge_indexes(None, out, add=path)
    merge_indexes(None, out, drop={"item_id": "item-0"}, add=path)
    found = pq.read_table(out).to_pandas()
    assert (found["cloud_fraction"][found["item_id"] == "item-0"] == 0.25).all()
    assert len(found) == len(old) + len(item_rows(1))


def test_drop_takes_lists_times_and_several_columns(tmp_path: Path) -> None:
    paths = [write(item_rows(n, collection="a" if n % 2 else None), tmp_path / f"{n}.parquet") for n in range(4)]

    def left(drop: dict[str, Any]) -> list[str]:
        out = merge_indexes(paths, tmp_path / "out.parquet", drop=drop)
        return sorted({row["item_id"] for row in rows_of(out)})

    assert left({"item_id": ["item-0", "item-3"]}) == ["item-1", "item-2"]
    assert left({"item_id": ["item-0", "item-3"], "collection": ["a"]}) == ["item-0", "item-1", "item-2"]
    assert left({"collection": None}) == ["item-1", "item-3"]
    assert left({"datetime": "2024-05-01T00:00:00Z"}) == []
    assert left({"datetime": "2024-05-02"}) == [f"item-{n}" for n in range(4)]
    assert metadata(tmp_path / "out.parquet")["sources"][0]["collections"] == [None]
    with pytest.raises(ValueError, match=r"drop: .* has no column \['colection'\]; it has \["):
        left({"colection": "a"})
    with pytest.raises(ValueError, match="drop: column 'width' is of type int32, so 'wide' can't be one of its values"):
        left({"width": "wide"})


def test_sort_none_keeps_the_order_of_sources(tmp_path: Path) -> None:
    numbers = [[5, 3, 40, 41], [90, 3, 2], [41, 100, 0]]
    paths = [write(chosen(own), tmp_path / f"{n}.parquet") for n, own in enumerate(numbers)]
    out = merge_indexes(paths, tmp_path / "out.parquet", sort=None, memory=1)
    assert ids(out) == chosen([5, 3, 40, 41, 90, 2, 100, 0])["chip_id"].tolist()
    assert metadata(out)["sort"] is None


def test_rows_are_along_the_curve(tmp_path: Path) -> None:
    from xchip.indexing.merge.hilbert import bbox_keys

    out = merge_indexes(write(pool().sample(frac=1, random_state=1), tmp_path / "in.parquet"), tmp_path / "out.parquet")
    bounds = np.array([[row["bbox"][side] for side in SIDES] for row in rows_of(out)]).T
    assert (np.diff(bbox_keys(bounds).astype(np.int64)) >= 0).all()


# Rows that are there twice


def test_equal_rows_with_different_hrefs_are_one(tmp_path: Path) -> None:
    rows = item_rows(0)
    paths = [
        write(rows.assign(item_href=f"s3://{name}/item-0.json"), tmp_path / f"{name}.parquet")
        for name in ("mine", "yours", "her")
    ]
    out = merge_indexes(paths, tmp_path / "out.parquet")
    assert sorted(ids(out)) == sorted(rows["chip_id"])
    assert {row["item_href"] for row in rows_of(out)} == {"s3://her/item-0.json"}
    assert [source["path"] for source in metadata(out)["sources"]] == sorted(paths)


@pytest.mark.parametrize("column", ["cloud_fraction", "datetime", "sensor", "proj_left"])
def test_different_values_for_a_chip_are_refused(tmp_path: Path, column: str) -> None:
    rows = item_rows(0)
    other = item_rows(0)
    values = {"cloud_fraction": 0.125, "datetime": pd.Timestamp("2020-01-01", tz="UTC"), "sensor": None}
    # A thousandth of a metre is no other window.
    value = values.get(column, rows.loc[3, "proj_left"] - 0.001)
    other.loc[3, column] = value
    paths = [write(rows, tmp_path / "one.parquet"), write(other, tmp_path / "two.parquet")]
    with pytest.raises(
        ValueError, match=rf"chip 'item-0-3-0' of collection 's2' has two values of '{column}': .* in '.*one.parquet' and"
    ):
        merge_indexes(paths, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("degrees", [1e-12, 0.1, 30])
def test_a_chip_with_two_footprints_is_refused_wherever_they_are(tmp_path: Path, degrees: float) -> None:
    rows = item_rows(0)
    other = rows.set_geometry(rows.geometry.translate(degrees))
    other.attrs = rows.attrs
    paths = [write(rows, tmp_path / "one.parquet"), write(other.iloc[[0]], tmp_path / "two.parquet")]
    with pytest.raises(ValueError, match=r"chip 'item-0-0-0' of collection 's2' has two values of '(geometry|bbox)'"):
        merge_indexes(paths, tmp_path / "out.parquet")


def test_the_same_item_id_in_two_collections_is_two_items(tmp_path: Path) -> None:
    names = ("a", "b", None)
    paths = [write(item_rows(0, collection=name, size=256 if name else 128), tmp_path / f"{name}.parquet") for name in names]
    out = merge_indexes(paths, tmp_path / "out.parquet")
    assert len(rows_of(out)) == 20 + 20 + 80


# Two grids


@pytest.mark.parametrize(
    ("grid", "other", "message"),
    [
        ({"size": 256}, {"size": 128}, r"size \[256, 256\].* in '.*one.parquet' and size \[128, 128\].* in '.*two.parquet'"),
        ({"size": 256}, {"size": 256, "stride": 128}, r"stride \[256, 256\] in .* and stride \[128, 128\]"),
        ({"size": 256}, {"size": 256, "anchor": "crs"}, r"anchor origin in .* and anchor crs"),
        ({"size": 256}, {"size": 256, "edge": "pad"}, r"edge drop in .* and edge pad"),
        ({"size": 256}, {"size": 256, "crs": 32721}, r"proj_code EPSG:32720 in .* and proj_code EPSG:32721"),
    ],
)
def test_two_grids_for_an_item_are_refused(tmp_path: Path, grid: dict[str, Any], other: dict[str, Any], message: str) -> None:
    # Different chips, so that nothing but the grid shows it.
    one, two = item_rows(0, **grid).iloc[:2], item_rows(0, **other).iloc[10:12]
    paths = [write(one, tmp_path / "one.parquet"), write(two, tmp_path / "two.parquet")]
    with pytest.raises(ValueError, match=rf"item 'item-0' of collection 's2' has two grids: .*{message}.*keep_grids=True"):
        merge_indexes(paths, tmp_path / "out.parquet")
    out = merge_indexes(paths, tmp_path / "out.parquet", keep_grids=True)
    assert len(rows_of(out)) == 4
    assert len(metadata(out)["grids"]) == 2
    if "edge" not in other and "anchor" not in other:  # those leave inner chips as they are
        with pytest.raises(ValueError, match="item 'item-0' of collection 's2' has two grids"):
            merge_indexes(out, tmp_path / "again.parquet")
    again = merge_indexes(out, tmp_path / "again.parquet", keep_grids=True)
    assert rows_of(again) == rows_of(out)


def test_two_windows_of_a_chip_are_refused_also_where_no_metadata_tell_the_grid(tmp_path: Path) -> None:
    one, two = item_rows(0), item_rows(0, size=128)
    one.attrs, two.attrs = {}, {}
    paths = [write(one, tmp_path / "one.parquet"), write(two, tmp_path / "two.parquet")]
    with pytest.raises(ValueError, match=r"item 'item-0' of collection 's2' has two grids: .*one.parquet' and .*two.parquet'"):
        merge_indexes(paths, tmp_path / "out.parquet")
    assert len(rows_of(merge_indexes(paths, tmp_path / "out.parquet", keep_grids=True))) == len(one) + len(two)


def test_items_with_different_grids_stay_apart_through_merges(tmp_path: Path) -> None:
    frames = [item_rows(0), item_rows(1, size=128), item_rows(2, edge="partial", size=300), item_rows(3, anchor="crs")]
    paths = [write(rows, tmp_path / f"{n}.parquet") for n, rows in enumerate(frames)]
    out = merge_indexes(paths[:3], tmp_path / "out.parquet")
    merge_indexes(None, out, add=paths)
    assert len(rows_of(out)) == sum(map(len, frames))
    assert len(metadata(out)["grids"]) == 4
    with pytest.raises(ValueError, match="item 'item-1' of collection 's2' has two grids"):
        merge_indexes(None, out, add=write(item_rows(1, size=256).iloc[-1:], tmp_path / "other.parquet"))
    merge_indexes(None, out, drop={"item_id": "item-1"})
    assert sorted(entry["grid"]["size"] for entry in metadata(out)["grids"]) == [[256, 256], [256, 256], [300, 300]]


# Sources


def test_hrefs_of_an_archive_become_absolute(tmp_path: Path) -> None:
    rows = item_rows(0).assign(item_href="items/s2/item-0/item-0.json")
    root = tmp_path / "archive"
    part = root / part_name("s2", "item-0")
    part.parent.mkdir(parents=True)
    part.write_bytes(index_bytes([rows]))
    for source in (root, root / "index", part, os.path.relpath(root)):
        out = merge_indexes(source, tmp_path / "out.parquet")
        assert {row["item_href"] for row in rows_of(out)} == {f"{root}/items/s2/item-0/item-0.json"}


def test_extra_columns_are_united(tmp_path: Path) -> None:
    one, two, three = (
        item_rows(0).assign(split="train", z=1.5),
        item_rows(1).assign(split=pd.Categorical(["test"] * 20)),
        item_rows(2),
    )
    paths = [write(rows, tmp_path / f"{n}.parquet") for n, rows in enumerate((one, two, three.assign(z=None)))]
    out = merge_indexes(paths, tmp_path / "out.parquet", memory=1)
    found = pq.read_table(out)
    assert found.column_names == [*COLUMNS[:-1], "split", "z", "geometry", "bbox"]
    frame = found.to_pandas()
    splits = {item: set(own["split"]) for item, own in frame.groupby("item_id")}
    assert splits == {"item-0": {"train"}, "item-1": {"test"}, "item-2": {None}}
    assert frame["z"].notna().sum() == len(one)
    path = write(three.assign(split=1), tmp_path / "bad.parquet")
    with pytest.raises(
        ValueError, match=r"column 'split' is large_string in '.*0.parquet' and int64 in '.*bad.parquet'; a column has one"
    ):
        merge_indexes([paths[0], path], tmp_path / "out.parquet")


def test_stacchips_tables_and_files_without_a_bbox_column(tmp_path: Path) -> None:
    rows = item_rows(0)
    write_index(rows, tmp_path / "theirs.parquet", schema="stacchip")
    item_rows(1).to_parquet(tmp_path / "plain.parquet")
    out = merge_indexes([tmp_path / "theirs.parquet", tmp_path / "plain.parquet"], tmp_path / "out.parquet")
    found = geopandas.read_parquet(out, bbox=tuple(rows.total_bounds))
    assert set(rows["chip_id"]) <= set(found["chip_id"])
    boxes = np.array([[row["bbox"][side] for side in SIDES] for row in rows_of(out)])
    np.testing.assert_array_equal(boxes, shapely.bounds(shapely.from_wkb([row["geometry"] for row in rows_of(out)])))


def test_geometry_types_are_those_that_occur(tmp_path: Path) -> None:
    fiji = item_rows(9, crs=32701)
    double = [shapely.MultiPolygon([shape, shapely.affinity.translate(shape, 9)]) for shape in fiji.geometry]
    east = fiji.set_geometry(geopandas.GeoSeries(double, crs=4326))
    out = merge_indexes(
        [write(item_rows(1), tmp_path / "a.parquet"), write(east, tmp_path / "b.parquet")], tmp_path / "out.parquet"
    )
    assert metadata(out, "geo")["columns"]["geometry"]["geometry_types"] == ["MultiPolygon", "Polygon"]
    points = fiji.set_geometry(fiji.geometry.representative_point())
    points.to_parquet(tmp_path / "points.parquet")
    with pytest.raises(ValueError, match=r"points.parquet' is not an index: some of its geometries are not polygons"):
        merge_indexes(tmp_path / "points.parquet", tmp_path / "out.parquet")


def test_chips_over_the_antimeridian_have_row_groups_of_their_own(tmp_path: Path) -> None:
    # 180 degrees is near column 500,000 + 3 degrees of zone 60; the row of chips lies across it.
    pixels = PixelGrid("EPSG:32760", (10.0, 0.0, 810_000.0, 0.0, -10.0, 8_000_000.0), (256, 2560))
    chips = ChipGrid(pixels, 256)
    item = ItemColumns("fiji", "s2", None, "sentinel-2-l2a", np.datetime64("2024-05-01", "us"))
    rows = index_frame(chips, np.full((7, *chips.shape), 256 * 256 // 7), item)
    wide = rows.bounds["maxx"] - rows.bounds["minx"] > 180
    assert wide.sum() == 1
    out = merge_indexes(
        [write(rows, tmp_path / "fiji.parquet"), write(item_rows(0), tmp_path / "a.parquet")], tmp_path / "out.parquet"
    )
    file = pq.ParquetFile(out)
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [29, 1]


def test_no_rows_make_an_empty_index(tmp_path: Path) -> None:
    path = write(item_rows(0).iloc[:0], tmp_path / "in.parquet")
    for name in ("out.parquet", "out"):
        out = merge_indexes([path], tmp_path / name)
        assert len(geopandas.read_parquet(out)) == 0
        assert metadata(out)["sources"] == []


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    good = write(item_rows(0), tmp_path / "good.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "cities.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match=r"cities.parquet' is no index: the columns"):
        merge_indexes([good, tmp_path / "cities.parquet"], tmp_path / "out.parquet")
    with pytest.raises(ValueError, match=r"text.parquet' can't be read as Parquet"):
        merge_indexes([good, tmp_path / "text.parquet"], tmp_path / "out.parquet")
    with pytest.raises(FileNotFoundError, match="absent"):
        merge_indexes([good, tmp_path / "absent"], tmp_path / "out.parquet")
    with pytest.raises(FileNotFoundError, match=r"found no index to change at '.*out.parquet'; pass paths="):
        merge_indexes(None, tmp_path / "out.parquet", add=good)
    with pytest.raises(ValueError, match="there is nothing to do"):
        merge_indexes(None, good)
    with pytest.raises(ValueError, match="sort must be"):
        merge_indexes(good, tmp_path / "out.parquet", sort="zorder")  # type: ignore[arg-type]
    mercator = item_rows(0).to_crs(3857)
    mercator.to_parquet(tmp_path / "mercator.parquet")
    with pytest.raises(ValueError, match="not in longitude and latitude"):
        merge_indexes(tmp_path / "mercator.parquet", tmp_path / "out.parquet")
    assert {path.name for path in tmp_path.iterdir()} == {"good.parquet", "cities.parquet", "text.parquet", "mercator.parquet"}


# Old or new, and nothing between


class Interruption(Exception):
    """What somebody's progress function raises."""


@pytest.mark.parametrize("name", ["all.parquet", "all"])
def test_an_interrupted_merge_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    paths = [write(item_rows(n), tmp_path / f"{n}.parquet") for n in range(3)]
    out = merge_indexes(paths[:1], tmp_path / name)
    before = content(tmp_path)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    merge_indexes(paths, tmp_path / "other.parquet", memory=1, progress=count)
    (tmp_path / "other.parquet").unlink()
    assert calls > 5
    for number in range(calls):
        left = itertools.count()

        def interrupt(*_: Any, number: int = number, left: Any = left) -> None:
            if next(left) == number:
                raise Interruption

        with pytest.raises(Interruption):
            merge_indexes(paths, out, memory=1, progress=interrupt)
        assert content(tmp_path) == before
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["all.parquet", "all"])
def test_a_reader_that_holds_the_old_index_open_reads_it_to_the_end(tmp_path: Path, name: str) -> None:
    paths = [write(item_rows(n), tmp_path / f"{n}.parquet") for n in range(2)]
    out = Path(merge_indexes(paths[:1], tmp_path / name))
    old = sorted(out.glob("*.parquet")) if out.is_dir() else [out]
    reader = pq.ParquetFile(old[0])
    merge_indexes(None, out, add=paths[1])
    assert len(reader.read()) == 20
    assert len(rows_of(out)) == 40
    if out.is_dir():
        assert not old[0].exists(), "who has listed the old files never reads a new one by an old name"


def test_changes_by_others_are_not_lost(tmp_path: Path) -> None:
    paths = [write(item_rows(n), tmp_path / f"{n}.parquet") for n in range(3)]
    for name in ("all.parquet", "all"):
        out = merge_indexes(paths[0], tmp_path / name)

        def meanwhile(what: str, done: int, total: int, out: str = out) -> None:
            if what == "rows written":
                merge_indexes(None, out, add=paths[1])

        with pytest.raises(OSError, match=r"another process wrote '.*' during the merge, which has changed nothing"):
            merge_indexes(None, out, add=paths[2], progress=meanwhile)
        assert len(rows_of(out)) == 40


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = write(item_rows(0), tmp_path / "source.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds more than an index, such as \['notes.txt'\]; choose another"):
        merge_indexes(path, folder)
    with pytest.raises(FileExistsError, match="is a file; its name must end"):
        merge_indexes(path, folder / "notes.txt")
    (tmp_path / "odd.parquet").mkdir()
    with pytest.raises(FileExistsError, match="choose another"):
        merge_indexes(path, tmp_path / "odd.parquet")
    assert (folder / "notes.txt").read_text() == "mine"
    write_index(item_rows(1), tmp_path / "parts")
    merge_indexes(path, tmp_path / "parts")
    assert set(pd.read_parquet(tmp_path / "parts")["item_id"]) == {"item-0"}
    write_index(item_rows(1), tmp_path / "parts")
    assert set(pd.read_parquet(tmp_path / "parts")["item_id"]) == {"item-1"}


def test_what_a_killed_merge_left_is_removed_by_a_later_one(tmp_path: Path) -> None:
    path = write(item_rows(0), tmp_path / "source.parquet")
    old, new = tmp_path / ".out.parquet.0123abcd.tmp", tmp_path / ".out.parquet.4567abcd.tmp"
    for folder in (old, new):
        (folder / "rows").mkdir(parents=True)
    os.utime(old, (0, 0))
    merge_indexes(path, tmp_path / "out.parquet")
    assert (old.exists(), new.exists()) == (False, True), "the younger may be another's who still works"


def test_folders_change_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange(tmp_path / "a", tmp_path / "b")
    assert content(tmp_path) == {"a/b": b"", "b/a": b""}
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "absent", tmp_path / "b")
    assert content(tmp_path) == {"a/b": b"", "b/a": b""}


def test_buckets(tmp_path: Path) -> None:
    for n in range(3):
        write_index(item_rows(n), f"memory://sources/{n}.parquet")
    for out in ("memory://merged/all.parquet", "memory://merged/folder"):
        assert merge_indexes("memory://sources", out) == out
        merge_indexes(None, out, drop={"item_id": ["item-0", "item-1"]})
        merge_indexes(None, out, add="memory://sources/0.parquet")
        back = merge_indexes(out, tmp_path / "back.parquet")
        assert {row["item_id"] for row in rows_of(back)} == {"item-0", "item-2"}
        assert [entry["path"] for entry in metadata(back)["sources"]] == ["memory://sources", "memory://sources/0.parquet"]


# What others read


@pytest.fixture(scope="module")
def wide_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of several row groups, over a stretch of 900 km."""
    folder = tmp_path_factory.mktemp("wide")
    paths = [write(item_rows(n, size=32, collection="abc"[n % 3]), folder / f"{n}.parquet") for n in range(0, 180, 4)]
    out = Path(merge_indexes(paths, folder / "out.parquet"))
    assert pq.ParquetFile(out).num_row_groups > 3
    return out


def test_metadata_are_complete_geoparquet(wide_index: Path) -> None:
    column = metadata(wide_index, "geo")["columns"]["geometry"]
    assert column["covering"] == {"bbox": {side: ["bbox", side] for side in SIDES}}
    assert column["geometry_types"] == ["Polygon"]
    frame = geopandas.read_parquet(wide_index)
    np.testing.assert_array_equal(column["bbox"], frame.total_bounds)
    file = pq.ParquetFile(wide_index)
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [*[GROUP_ROWS] * (len(frame) // GROUP_ROWS), len(frame) % GROUP_ROWS]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    facts = metadata(wide_index)
    assert facts["sort"] == "hilbert"
    assert {entry["grid"]["size"][0] for entry in facts["grids"]} == {32}
    assert facts["sources"][0]["collections"] == ["a"]


def test_geopandas_reads_a_box(wide_index: Path) -> None:
    frame = geopandas.read_parquet(wide_index)
    west, south, east, north = frame.total_bounds
    box = (west, south, west + (east - west) / 50, north)
    touching = frame[(frame.bounds["minx"] <= box[2]) & (frame.bounds["maxx"] >= box[0])]
    assert 0 < len(touching) < len(frame) / 10
    assert sorted(geopandas.read_parquet(wide_index, bbox=box)["chip_id"]) == sorted(touching["chip_id"])
    groups = pq.ParquetFile(wide_index).metadata
    column = {groups.schema.column(n).path: n for n in range(groups.num_columns)}["bbox.xmin"]
    touched = [n for n in range(groups.num_row_groups) if groups.row_group(n).column(column).statistics.min <= box[2]]
    assert len(touched) <= 2


def test_duckdb_reads_it(wide_index: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    frame = geopandas.read_parquet(wide_index)
    east = float(frame.total_bounds[[0, 2]].mean())
    condition = f"bbox.xmin > {east} and collection = 'a' and cloud_fraction < 0.2"
    ((count, least),) = duckdb.sql(
        f"select count(*), min(cloud_fraction) from read_parquet('{wide_index}') where {condition}"
    ).fetchall()
    expected = frame[(frame.bounds["minx"] > east) & (frame["collection"] == "a") & (frame["cloud_fraction"] < 0.2)]
    assert (count, least) == (len(expected), expected["cloud_fraction"].min())


def test_gdal_reads_it(wide_index: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    if "Parquet" not in pyogrio.list_drivers():
        pytest.skip("this build of GDAL has no Parquet driver")
    west, south, _, north = geopandas.read_parquet(wide_index).total_bounds
    assert len(pyogrio.read_dataframe(wide_index, bbox=(west, south, west + 0.1, north))) > 0


def test_files_of_a_folder_are_bounded(tmp_path: Path) -> None:
    source = pq.read_table(write(pool(), tmp_path / "in.parquet")).replace_schema_metadata(None)
    writer = IndexWriter(tmp_path / "out", source.schema, file_rows=40, group_rows=16, more={"grids": []})
    for first in range(0, len(source), 7):
        writer.add(source.slice(first, 7))
    writer.close()
    files = sorted((tmp_path / "out").iterdir())
    assert [name.name[:12] for name in files] == [f"part-{n:06d}-" for n in range(4)]
    assert [pq.ParquetFile(file).metadata.num_rows for file in files] == [32, 32, 32, 24]
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "in.parquet")
    bounds = [metadata(file, "geo")["columns"]["geometry"]["bbox"] for file in files]
    assert len({tuple(own) for own in bounds}) == 4, "each file tells its own bounds"


def test_sources_of_many_row_groups_and_rows(tmp_path: Path) -> None:
    rows = synthetic_stack(shape=(600, 1000)).chips.index(32, item_id="scene")
    table = pq.read_table(write(rows, tmp_path / "in.parquet"))
    with open_writer(tmp_path / "groups.parquet", table.schema.remove_metadata()) as writer:
        writer.write_table(table, row_group_size=10)
    out = merge_indexes([tmp_path / "groups.parquet", tmp_path / "in.parquet"], tmp_path / "out.parquet", memory=100_000)
    assert sorted(ids(out)) == sorted(rows["chip_id"])
