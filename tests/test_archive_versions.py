"""Archives that several versions of xchip write to: the version stands in each file, and nothing depends on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import pyarrow.parquet as pq
import pytest
from archives import make_items, parts, rows
from pandas.testing import assert_frame_equal

import xchip
from xchip.indexing.files import geoparquet

SIZE = 64


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found = make_items(tmp_path_factory.mktemp("scenes"), 4)
    found[3]["assets"]["scl"]["href"] += ".gone"  # so this one fails
    return found


def build(items: Any, path: Path) -> xchip.BuildReport:
    return xchip.build_index(items, path, SIZE, progress=False, client=False)


def software(path: Path) -> str:
    return json.loads(pq.read_schema(path).metadata[b"xchip"])["software"]


@pytest.fixture
def old(items: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive that another version began: two items are indexed, one has failed, and one is missing."""
    with monkeypatch.context() as patch:
        patch.setattr(geoparquet, "VERSION", "0.0.7.dev3")
        report = build([*items[:2], items[3]], tmp_path / "archive")
    assert (report.done, report.failed) == (2, 1)
    assert {software(path) for path in parts(tmp_path / "archive")} == {"xchip 0.0.7.dev3"}
    return tmp_path / "archive"


def test_a_run_of_another_version_goes_on(items: list[dict[str, Any]], old: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in parts(old)}
    report = build(items, old)
    assert (report.done, report.skipped, report.failed) == (1, 2, 1)
    assert {path: path.read_bytes() for path in before} == before
    assert {software(path) for path in parts(old)} == {"xchip 0.0.7.dev3", f"xchip {xchip.__version__}"}
    build(items, tmp_path / "anew")
    assert_frame_equal(rows(old), rows(tmp_path / "anew"))


def test_a_part_of_another_version_that_no_ledger_knows_is_kept(items: list[dict[str, Any]], old: Path) -> None:
    before = {path: path.read_bytes() for path in parts(old)}
    (old / "manifest.parquet").unlink()
    for segment in (old / "ledger").rglob("*.jsonl"):
        segment.unlink()
    build(items[:2], old)
    assert {path: path.read_bytes() for path in parts(old)} == before


def test_archives_of_two_versions_are_merged_and_added_to(items: list[dict[str, Any]], old: Path, tmp_path: Path) -> None:
    build(items[2:3], tmp_path / "new")
    both = xchip.merge_indexes([old, tmp_path / "new"], tmp_path / "both.parquet")
    xchip.merge_indexes([old], tmp_path / "added.parquet")
    added = xchip.merge_indexes(None, tmp_path / "added.parquet", add=[tmp_path / "new"])
    build(items, tmp_path / "anew")
    wanted = geopandas.read_parquet(xchip.merge_indexes([tmp_path / "anew"], tmp_path / "anew.parquet"))
    columns = [name for name in wanted.columns if name != "item_href"]
    for merged in (both, added):
        assert_frame_equal(geopandas.read_parquet(merged)[columns], wanted[columns])
        assert software(Path(merged)) == f"xchip {xchip.__version__}"
