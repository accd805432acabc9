"""Status and verification of archives, as functions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import make_items

import xchip
from xchip.indexing.archive.manifest import rebuild_manifest
from xchip.indexing.archive.status import status
from xchip.indexing.archive.verify import verify
from xchip.io.store import Store
from xchip.quality import CLOUD, NODATA, values

ITEM = "item-0001"


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return make_items(tmp_path_factory.mktemp("scenes"), 4, shape=(128, 192))


@pytest.fixture(scope="module")
def whole(items: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "a"
    xchip.build_index(items, path, 64, progress=False)
    return path


@pytest.fixture
def archive(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "a"))


def part_of(archive: Path, item: str = ITEM) -> Path:
    (found,) = archive.glob(f"index/*/{item}/index.parquet")
    return found


def item_of(archive: Path, item: str = ITEM) -> Path:
    (found,) = archive.glob(f"items/*/{item}/{item}.json")
    return found


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a part's rows, and leave its metadata as they are."""
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def column(name: str, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    """A change of one column's values."""

    def changed(table: pa.Table) -> pa.Table:
        values = change(table[name].to_pylist())
        return table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(values, table[name].type))

    return changed


def messages(archive: Path, **options: Any) -> list[str]:
    return [str(problem) for problem in verify(archive, **options)]


# -- status ------------------------------------------------------------------------------------------------------------


def test_status_counts_what_the_parts_hold(archive: Path, items: list[dict[str, Any]]) -> None:
    found = status(archive)
    assert (found.parts, found.rows, found.failed) == (4, 24, 0)
    assert found.size == sum(path.stat().st_size for path in archive.glob("index/*/*/index.parquet"))
    assert found.collections == {items[0]["collection"]: (4, 24)}
    assert found.span == ("2024-01-01T00:00:00+00:00", "2024-01-01T00:00:03+00:00")
    assert found.parameters is not None
    assert found.parameters["size"] == [64, 64]
    json.dumps(found.to_dict())


def test_status_without_manifest_and_ledger_reads_the_parts(archive: Path) -> None:
    shutil.rmtree(archive / "ledger")
    (archive / "manifest.parquet").unlink()
    found = status(archive)
    assert (found.parts, found.rows, found.failed, found.parameters) == (4, 24, 0, None)
    assert messages(archive) == []


def test_status_lists_failures_by_error(items: list[dict[str, Any]], tmp_path: Path) -> None:
    bad = json.loads(json.dumps(items))
    bad[0]["properties"]["datetime"] = None
    for asset in bad[2]["assets"].values():
        asset["href"] += ".gone"
    xchip.build_index(bad, tmp_path / "a", 64, progress=False)
    found = status(tmp_path / "a")
    assert (found.parts, found.failed) == (2, 2)
    assert set(found.failures["item_id"]) == {"item-0000", "item-0002"}
    assert list(found.failures.columns) == ["collection", "item_id", "error", "message", "attempts", "time"]
    assert sum(found.errors.values()) == 2
    xchip.build_index(items, tmp_path / "a", 64, progress=False)
    assert status(tmp_path / "a").failed == 0


# -- verify ------------------------------------------------------------------------------------------------------------


def test_a_whole_archive_has_no_problems(archive: Path) -> None:
    seen: list[None] = []
    assert messages(archive, on_part=lambda: seen.append(None)) == []
    assert messages(archive, deep=True) == []
    assert len(seen) == 4


def test_an_archive_may_be_moved(archive: Path) -> None:
    archive.rename(archive.with_name("elsewhere"))
    assert messages(archive.with_name("elsewhere"), deep=True) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda archive: part_of(archive).unlink(), "is in the manifest, but not in the archive"),
        (lambda archive: part_of(archive).write_bytes(part_of(archive).read_bytes()[:-4]), "is not a complete Parquet file"),
        (lambda archive: part_of(archive).write_bytes(b""), "is not a complete Parquet file"),
        (lambda archive: shutil.copy(part_of(archive, "item-0002"), part_of(archive)), "its rows have item_id 'item-0002'"),
        (lambda archive: rewrite(part_of(archive), lambda table: table.slice(1)), "has 5 rows, but 6 in the manifest"),
        (lambda archive: rewrite(part_of(archive), lambda table: table.take([0, 0, 2, 3, 4, 5])), "has chips twice"),
        (
            lambda archive: rewrite(part_of(archive), column("collection", lambda values: ["x"] * 6)),
            "its rows have collection 'x'",
        ),
        (
            lambda archive: rewrite(part_of(archive), column("col_off", lambda values: [value + 1 for value in values])),
            "chips do not lie on its item's grid: 'item-0001-0-0', 'item-0001-1-0', 'item-0001-2-0' and 3 more",
        ),
        (
            lambda archive: rewrite(part_of(archive), column("proj_top", lambda values: [*values[:-1], values[-1] + 10])),
            "chips do not lie on its item's grid: 'item-0001-2-1'",
        ),
        (
            lambda archive: rewrite(part_of(archive), column("chip_index_y", lambda values: [7, *values[1:]])),
            "chips do not lie on its item's grid: 'item-0001-0-0'",
        ),
        (
            lambda archive: rewrite(part_of(archive), column("proj_code", lambda values: ["EPSG:32633"] * 6)),
            "its rows are in 'EPSG:32633', but its item in EPSG:32719",
        ),
        (lambda archive: item_of(archive).unlink(), "its item is not at 'items/"),
        (lambda archive: item_of(archive).write_text("{"), "can't be read"),
        (
            lambda archive: item_of(archive).write_text(item_of(archive).read_text().replace('"proj:', '"other:')),
            "differs from the item that was indexed",
        ),
    ],
)
def test_what_is_wrong_is_found_and_named(archive: Path, spoil: Callable[[Path], Any], said: str) -> None:
    name = part_of(archive).relative_to(archive).as_posix()
    spoil(archive)
    found = messages(archive)
    assert found
    assert all(line.startswith(f"{name}: ") for line in found), found
    assert any(said in line for line in found), found


def test_rotten_bytes_are_found(archive: Path) -> None:
    path = part_of(archive)
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    (line,) = messages(archive)
    assert "can't be read" in line


def test_what_does_not_belong_is_found(archive: Path) -> None:
    folder = part_of(archive).parent
    shutil.copytree(folder, folder.with_name("item-9999"))
    (folder / "notes.txt").write_text("hello")
    (folder / ".index.parquet.0123abcd.tmp").write_bytes(b"PAR1")
    found = "\n".join(messages(archive))
    assert "item-9999/index.parquet: no run recorded it" in found
    assert "notes.txt: is not a part of an index" in found
    assert ".tmp: was being written" in found
    assert len(found.splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            column("cloud_fraction", lambda values: [0.123, *values[1:]]),
            "cloud_fraction differs from a new index of its item: 'item-0001-0-0'",
        ),
        (column("nodata_fraction", lambda values: [np.nan] * 6), "nodata_fraction differs from a new index of its item"),
        (column("geometry", lambda values: values[::-1]), "geometry differs from a new index of its item"),
        (lambda table: table.take([1, 0, 2, 3, 4, 5]), "has its chips in a different order"),
        (lambda table: table.slice(0, 5), "lacks chips that its item has now: 'item-0001-2-1'"),
    ],
)
def test_deep_verification_compares_with_the_pixels(archive: Path, change: Callable[[pa.Table], pa.Table], said: str) -> None:
    rewrite(part_of(archive), change)
    rebuild_manifest(Store(str(archive)))
    shallow, deep = messages(archive), messages(archive, deep=True)
    assert not any(said in line for line in shallow)
    assert any(said in line for line in deep), deep


def test_deep_verification_needs_the_files(items: list[dict[str, Any]], tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    own = make_items(scenes, 1, shape=(128, 128))
    xchip.build_index(own, tmp_path / "a", 64, progress=False)
    shutil.rmtree(scenes)
    assert messages(tmp_path / "a") == []
    (line,) = messages(tmp_path / "a", deep=True)
    assert "its item can't be indexed again: " in line


def test_a_rule_and_limits_of_ones_own_are_part_of_the_archive(items: list[dict[str, Any]], tmp_path: Path) -> None:
    rule = values("scl", {NODATA: [0], CLOUD: [4, 5]}, source="made up")
    xchip.build_index(items, tmp_path / "a", 64, quality=rule, max_cloud=0.9, edge="pad", progress=False)
    assert messages(tmp_path / "a", deep=True) == []


def test_a_sample_is_checked_by_seed(archive: Path) -> None:
    for path in archive.glob("index/*/*/index.parquet"):
        path.write_bytes(b"")

    def sampled(seed: int) -> set[str]:
        return {problem.path for problem in verify(archive, sample=2, seed=seed)}

    assert len(sampled(0)) == 2
    assert sampled(0) == sampled(0)
    assert len({frozenset(sampled(seed)) for seed in range(10)}) > 1


def test_without_its_parameters_an_archive_can_t_be_made_again(archive: Path) -> None:
    shutil.rmtree(archive / "ledger")
    with pytest.raises(ValueError, match="does not hold the parameters"):
        list(verify(archive, deep=True))


def test_nothing_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no archive"):
        status(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no archive"):
        list(verify(tmp_path))
