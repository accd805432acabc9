"""build_index: each item once, whole, whatever fails in between."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from archives import ledger_lines, make_items, parts, rows
from processes import dask_cluster

import xchip
from xchip.indexing.archive.ledger import fingerprint_of, segments
from xchip.indexing.archive.manifest import parts_of, rebuild_manifest, walk
from xchip.indexing.archive.status import status
from xchip.io.store import Store

SIZE = 64


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return make_items(tmp_path_factory.mktemp("scenes"), 7)


def build(items: Any, path: Path, size: Any = SIZE, **options: Any) -> xchip.BuildReport:
    return xchip.build_index(items, path, size, progress=False, **options)


def expected(items: Any) -> pd.DataFrame:
    frame = xchip.index_items(items, SIZE).compute()
    return frame.sort_values(["item_id", "chip_index_y", "chip_index_x"], ignore_index=True)


def assert_rows_of(archive: Path, items: Any) -> None:
    """The archive holds just the rows of these items."""
    found, wanted = rows(archive), pd.DataFrame(expected(items).drop(columns=["item_href", "geometry"]))
    columns = [name for name in wanted.columns if name in found]
    assert set(wanted) <= set(found)
    pd.testing.assert_frame_equal(found[columns], wanted[columns], check_dtype=False)


# What a run leaves


def test_an_archive_has_items_parts_manifest_and_ledger(items: list[dict[str, Any]], tmp_path: Path) -> None:
    report = build(items, tmp_path / "a")
    assert (report.done, report.skipped, report.failed) == (7, 0, 0)
    assert report.rows == len(rows(tmp_path / "a"))
    assert_rows_of(tmp_path / "a", items)
    collection = items[0]["collection"]
    assert [str(path.relative_to(tmp_path / "a")) for path in parts(tmp_path / "a")] == [
        f"index/{collection}/{item['id']}/index.parquet" for item in items
    ]
    for item in items:
        own = json.loads((tmp_path / "a" / "items" / collection / item["id"] / f"{item['id']}.json").read_text())
        assert own["assets"] == item["assets"]
    manifest = pq.read_table(tmp_path / "a" / "manifest.parquet").to_pandas()
    assert manifest["item_id"].tolist() == [item["id"] for item in items]
    assert manifest["rows"].sum() == report.rows
    assert manifest["fingerprint"].tolist() == [fingerprint_of(item) for item in items]
    assert [line["status"] for line in ledger_lines(tmp_path / "a")] == ["done"] * 7


def test_parts_can_be_read_with_a_plain_partitioning(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items, tmp_path)
    scheme = pyarrow.dataset.partitioning(field_names=["platform", "folder"])
    table = pyarrow.dataset.dataset(tmp_path / "index", partitioning=scheme).to_table()
    assert table.num_rows == len(expected(items))
    assert set(table["folder"].to_pylist()) == {item["id"] for item in items}
    assert table["item_id"].to_pylist() == table["folder"].to_pylist()


def test_chips_can_be_read_from_the_archive_alone(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items[:1], tmp_path)
    row = rows(tmp_path).iloc[3]
    chip = xchip.stack(tmp_path / row["item_href"]).chips.isel(chip_y=row["chip_index_y"], chip_x=row["chip_index_x"], size=SIZE)
    own = xchip.stack(items[0]).chips.isel(chip_y=row["chip_index_y"], chip_x=row["chip_index_x"], size=SIZE)
    assert (chip["red"].compute() == own["red"].compute()).all()


def test_odd_ids_never_leave_the_archive(items: list[dict[str, Any]], tmp_path: Path) -> None:
    ids = [
        "..",
        ".",
        "a/b",
        "../../up",
        "/etc/x",
        "naïve ø",
        "tab\tnew\nline",
        "%2E%2E",
        "x" * 300,
        "x" * 299 + "y",
        "c:\\d",
        "_",
    ]
    odd = [items[0] | {"id": name} for name in ids] + [items[0] | {"id": "up", "collection": "../.."}]
    report = build(odd, tmp_path / "deep" / "archive")
    assert report.done == len(odd)
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"archive"}
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    found = rows(tmp_path / "deep" / "archive")
    assert set(found["item_id"]) == {*ids, "up"}
    for href in found["item_href"].unique():
        own = json.loads((tmp_path / "deep" / "archive" / href).read_text())
        assert own["id"] in {*ids, "up"}


def test_an_item_without_rows_has_a_part(items: list[dict[str, Any]], tmp_path: Path) -> None:
    report = build(items[:2], tmp_path, 100_000)
    assert (report.done, report.rows) == (2, 0)
    assert [pq.read_metadata(path).num_rows for path in parts(tmp_path)] == [0, 0]
    assert build(items[:2], tmp_path, 100_000).skipped == 2


def test_signatures_are_not_kept(items: list[dict[str, Any]], tmp_path: Path) -> None:
    item = json.loads(json.dumps(items[0]))
    item["assets"]["thumb"] = {"href": "https://host/t.png?X-Amz-Signature=secret&v=1", "roles": ["thumbnail"]}
    build([item], tmp_path)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes()


# Never twice


def test_a_second_run_does_only_what_is_missing_or_changed(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items[:4], tmp_path)
    before = {path: path.stat().st_mtime_ns for path in parts(tmp_path)}
    changed = json.loads(json.dumps(items[1]))
    changed["properties"]["datetime"] = "2025-05-05T00:00:00Z"
    report = build([items[0], changed, *items[2:]], tmp_path)
    assert (report.done, report.skipped) == (4, 3)
    after = {path: path.stat().st_mtime_ns for path in parts(tmp_path)}
    assert sum(after[path] == before.get(path) for path in after) == 3
    assert_rows_of(tmp_path, [items[0], changed, *items[2:]])


def test_links_and_signatures_do_not_change_an_item(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items[:1], tmp_path)
    again = json.loads(json.dumps(items[0])) | {"links": [{"rel": "root", "href": "https://elsewhere"}]}
    assert build([again], tmp_path).skipped == 1


def test_a_part_that_was_removed_is_made_again(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items, tmp_path)
    parts(tmp_path)[3].unlink()
    report = build(items, tmp_path)
    assert (report.done, report.skipped) == (1, 6)
    assert_rows_of(tmp_path, items)


def test_a_part_that_nobody_recorded_is_kept(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items, tmp_path)
    shutil.rmtree(tmp_path / "ledger")
    (tmp_path / "manifest.parquet").unlink()
    half = parts(tmp_path)[2]
    half.write_bytes(half.read_bytes()[:1000])
    before = {path: path.stat().st_mtime_ns for path in parts(tmp_path)}
    report = build(items, tmp_path)
    after = {path: path.stat().st_mtime_ns for path in parts(tmp_path)}
    assert [path for path in after if after[path] != before[path]] == [half]
    assert report.done == 7
    assert_rows_of(tmp_path, items)


def test_an_item_given_twice_is_done_once(items: list[dict[str, Any]], tmp_path: Path) -> None:
    report = build([items[0], items[0]], tmp_path)
    assert (report.done, report.skipped) == (1, 1)


def test_two_different_items_of_one_id_are_told(items: list[dict[str, Any]], tmp_path: Path) -> None:
    other = json.loads(json.dumps(items[0]))
    other["properties"]["datetime"] = "2020-01-01T00:00:00Z"
    report = build([items[0], other], tmp_path)
    assert (report.done, report.failed) == (1, 1)
    assert "another id" in report.failures["message"][0]


def test_other_parameters_are_refused(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items[:1], tmp_path)
    with pytest.raises(ValueError, match=r"built with size=\[64, 64\] \(now \[32, 32\]\).*another path"):
        build(items[:1], tmp_path, 32)
    with pytest.raises(ValueError, match=r"max_cloud=None \(now 0.5\)"):
        build(items[:1], tmp_path, max_cloud=0.5)
    assert build(items[:1], tmp_path, (SIZE, SIZE)).skipped == 1


def test_two_runs_at_once(items: list[dict[str, Any]], tmp_path: Path) -> None:
    reports: list[xchip.BuildReport] = []
    threads = [threading.Thread(target=lambda: reports.append(build(items, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.failed for report in reports] == [0, 0, 0]
    assert_rows_of(tmp_path, items)
    assert parts_of(Store(str(tmp_path)))["path"].to_pylist() == [str(path.relative_to(tmp_path)) for path in parts(tmp_path)]
    assert not list(tmp_path.rglob("*.tmp"))


# Failures


def test_one_bad_item_does_not_stop_the_others(items: list[dict[str, Any]], tmp_path: Path) -> None:
    lost = json.loads(json.dumps(items[1]))
    for asset in lost["assets"].values():
        asset["href"] = str(tmp_path / "nowhere.tif")
    no_grid = {"type": "Feature", "id": "no-grid", "properties": {}, "assets": {}, "links": []}
    nameless = {"type": "Feature", "properties": {}, "assets": {}, "links": []}
    (tmp_path / "bad.json").write_text("{")
    given = [items[0], lost, no_grid, nameless, tmp_path / "bad.json", tmp_path / "absent.json", {"type": "Collection"}, items[2]]
    report = build(given, tmp_path / "a")
    assert (report.done, report.failed) == (2, 6)
    failures = report.failures.set_index("item_id")
    assert failures.loc[lost["id"], "error"] == "ItemError"
    assert "nowhere.tif" in failures.loc[lost["id"], "message"]
    assert "not JSON" in " ".join(failures["message"])
    assert_rows_of(tmp_path / "a", [items[0], items[2]])
    records = {line["item_id"]: line for line in ledger_lines(tmp_path / "a")}
    assert records[lost["id"]]["status"] == "failed"
    assert records[lost["id"]]["history"][0]["kind"] == "permanent"

    again = build([items[0], lost], tmp_path / "a", retry_failed=False)
    assert (again.done, again.skipped, again.failed) == (0, 1, 1)
    assert again.failures["message"].tolist() == [failures.loc[lost["id"], "message"]]
    shutil.copy(items[1]["assets"]["scl"]["href"], tmp_path / "nowhere.tif")
    mended = build([items[0], lost], tmp_path / "a")
    assert (mended.done, mended.skipped, mended.failed) == (1, 1, 0)


def test_files_of_items_that_can_not_be_read_are_on_record(
    items: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until they can be, whatever else is done in between; also where nothing at all could be indexed."""
    monkeypatch.chdir(tmp_path)
    lines, late = tmp_path / "lines.ndjson", tmp_path / "late.json"
    lines.write_text(json.dumps(items[0]) + "\n{\n[]\n")

    def on_record() -> list[str]:
        return sorted(status(tmp_path / "a").failures["item_id"])

    build(["late.json", tmp_path], tmp_path / "a")  # one is absent, the other a folder
    assert status(tmp_path / "a").parts == 0
    assert on_record() == sorted([repr(str(late)), repr(str(tmp_path))])
    report = build([str(lines), late], tmp_path / "a")
    assert (report.done, report.failed) == (1, 3)
    assert on_record() == sorted([repr(str(late)), repr(str(tmp_path)), f"line 2 of {lines}", f"line 3 of {lines}"])

    late.write_text(json.dumps(items[1]))
    lines.write_text(json.dumps(items[0]) + "\n{\n" + json.dumps(items[2]) + "\n")
    report = build([lines, str(late)], tmp_path / "a")
    assert (report.done, report.skipped, report.failed) == (2, 1, 1)
    assert on_record() == sorted([repr(str(tmp_path)), f"line 2 of {lines}"])
    for text, failed in ((json.dumps(items[0]), 1), ("\n{\n", 2)):  # read well, and then the same line fails again
        lines.write_text(text)
        build([lines], tmp_path / "a")
        assert len(on_record()) == failed
    assert_rows_of(tmp_path / "a", items[:3])


def test_signatures_of_files_of_items_are_not_kept(items: list[dict[str, Any]], tmp_path: Path) -> None:
    signature = "?X-Amz-Algorithm=A&X-Amz-Signature=secret"
    report = build([f"http://127.0.0.1:9/a.json{signature}", items[0]], tmp_path / "a")
    assert (report.done, report.failed) == (1, 1)
    (name,) = status(tmp_path / "a").failures["item_id"]
    assert name == "'http://127.0.0.1:9/a.json'"
    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_no_items_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no items"):
        build([], tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"attempts": 0}, "attempts"), ({"workers": 0}, "workers"), ({"max_cloud": 2}, "max_cloud"), ({"edge": "cut"}, "edge")],
)
def test_bad_options(items: list[dict[str, Any]], tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(items, tmp_path, **options)


def test_an_archive_is_no_file(items: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="archive is a folder"):
        build(items, tmp_path / "a.parquet")


def test_an_archive_that_can_not_be_written_ends_the_run(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items[:1], tmp_path)
    folder = tmp_path / "index" / items[0]["collection"] / items[1]["id"]
    folder.write_text("a file where a folder must be")
    with pytest.raises(OSError, match=f"can't write item {items[1]['id']!r} into the archive"):
        build(items, tmp_path, workers=1)


# Items, one after another


def test_few_items_are_in_flight(items: list[dict[str, Any]], tmp_path: Path) -> None:
    taken: list[int] = []

    def endless() -> Any:
        for number, item in enumerate(items):
            taken.append(number)
            yield item

    report = build(endless(), tmp_path, workers=1)
    assert report.done == 7
    assert taken == list(range(7))


def test_progress_has_done_and_failed(items: list[dict[str, Any]], tmp_path: Path) -> None:
    stream = io.StringIO()
    bad = {"type": "Feature", "id": "bad", "properties": {}, "assets": {}, "links": []}
    xchip.build_index([*items[:2], bad], tmp_path, SIZE, progress=stream)
    assert stream.getvalue() == "indexed 3 of 3 scenes (1 failed)\n"


def test_the_report_shows_failures_escaped(items: list[dict[str, Any]], tmp_path: Path) -> None:
    bad = {"type": "Feature", "id": "<script>", "properties": {}, "assets": {}, "links": []}
    report = build([items[0], bad], tmp_path)
    assert "1 indexed" in str(report)
    assert "<script>: ItemError" in str(report)
    assert "<script>" not in report._repr_html_()
    assert "&lt;script&gt;" in report._repr_html_()


# Manifest


def test_the_manifest_equals_what_the_parts_say(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items, tmp_path)
    store = Store(str(tmp_path))
    manifest = parts_of(store)
    assert walk(store).drop_columns(["indexed"]).equals(manifest.drop_columns(["indexed"]))
    (tmp_path / "manifest.parquet").unlink()
    assert parts_of(store).equals(manifest)
    shutil.rmtree(tmp_path / "ledger")
    assert parts_of(store).drop_columns(["indexed"]).equals(manifest.drop_columns(["indexed"]))
    parts(tmp_path)[0].unlink()
    assert rebuild_manifest(store).parts.num_rows == 6
    assert parts_of(store).num_rows == 6


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no archive"):
        parts_of(Store(str(tmp_path)))


# Killed

# Python leaves SIGINT ignored where it was started so, as shells do in the background.
DRIVER = """
import json, signal, sys, xchip
signal.signal(signal.SIGINT, signal.default_int_handler)
items = [json.loads(line) for line in open(sys.argv[1])]
xchip.build_index(items, sys.argv[2], 64, progress=False, workers=2)
"""


def start_driver(items: list[dict[str, Any]], tmp_path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    (tmp_path / "items.ndjson").write_text("".join(json.dumps(item) + "\n" for item in items))
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "items.ndjson"), str(tmp_path / "a")]
    return subprocess.Popen(command, stderr=subprocess.PIPE), tmp_path / "a"


def wait_for_parts(archive: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while sum(1 for _ in archive.glob("index/*/*/index.parquet")) < count:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_driver_that_is_killed_leaves_nothing_half(tmp_path: Path) -> None:
    items = make_items(tmp_path, 120)
    rng = random.Random(5)
    archive = tmp_path / "a"
    for stop in (rng.randrange(5, 30), rng.randrange(40, 70)):
        process, archive = start_driver(items, tmp_path)
        wait_for_parts(archive, stop, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for part in archive.glob("index/*/*/*.parquet"):
            assert pq.read_table(part).num_rows == 20  # whole
    report = build(items, archive)
    assert report.failed == 0
    assert report.done + report.skipped == 120
    undisturbed = tmp_path / "undisturbed"
    build(items, undisturbed)
    pd.testing.assert_frame_equal(rows(archive), rows(undisturbed))
    assert walk(Store(str(archive))).num_rows == parts_of(Store(str(archive))).num_rows == 120


def test_ctrl_c_leaves_a_clean_archive(tmp_path: Path) -> None:
    items = make_items(tmp_path, 120)
    process, archive = start_driver(items, tmp_path)
    wait_for_parts(archive, 15, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert process.stderr is not None
    assert b"KeyboardInterrupt" in process.stderr.read()
    made = [str(path.relative_to(archive)) for path in parts(archive)]
    assert 15 <= len(made) < 120
    assert not list(archive.rglob("*.tmp"))
    # All that was made is recorded.
    assert parts_of(Store(str(archive)))["path"].to_pylist() == made
    report = build(items, archive)
    assert (report.done, report.skipped) == (120 - len(made), len(made))


# Clusters


def test_the_archive_of_a_cluster_is_that_of_threads(items: list[dict[str, Any]], tmp_path: Path) -> None:
    from xchip.io.cluster import local_cluster, slow_malloc

    with local_cluster(2) as client:
        assert slow_malloc(client) is None
        report = build(items, tmp_path / "a", client=client)
        assert (report.done, report.failed) == (7, 0)
        # Also as the client that is connected, and by the scheduler's address.
        assert build(items, tmp_path / "a").skipped == 7
        assert build(items[:3], tmp_path / "c", client=client.scheduler.address).done == 3
        with pytest.raises(ValueError, match="workers"):
            build(items, tmp_path / "a", client=client, workers=2)
    build(items, tmp_path / "b")
    pd.testing.assert_frame_equal(rows(tmp_path / "a"), rows(tmp_path / "b"))


def test_workers_that_are_killed_are_survived(tmp_path: Path) -> None:
    from xchip.io.cluster import local_cluster

    items = make_items(tmp_path, 150)
    archive = tmp_path / "a"
    killed = []

    def kill(pids: dict[str, int]) -> None:
        while sum(1 for _ in archive.glob("index/*/*/index.parquet")) < 20:
            time.sleep(0.005)
        pid = next(iter(pids.values()))
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    with local_cluster(2) as client:
        pids = client.run(os.getpid)
        killer = threading.Thread(target=kill, args=(pids,))
        killer.start()
        report = build(items, archive, client=client)
        killer.join()
    assert killed
    assert (report.done, report.failed) == (150, 0)
    assert_rows_of(archive, items)
    assert not list(archive.rglob("*.tmp")) or all(path.name.startswith(".") for path in archive.rglob("*.tmp"))


@pytest.mark.server
def test_a_scheduler_that_is_lost_ends_the_run(tmp_path: Path) -> None:
    from distributed import Client

    items = make_items(tmp_path, 150)
    archive = tmp_path / "a"
    with dask_cluster(tmp_path) as address, Client(address, set_as_default=False) as client:
        (scheduler,) = [one for one in psutil.Process().children() if "scheduler" in one.cmdline()]

        def kill() -> None:
            while sum(1 for _ in archive.glob("index/*/*/index.parquet")) < 20:
                time.sleep(0.005)
            scheduler.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(OSError, match=r"(?s)cluster is lost .*run again to go on"):
            build(items, archive, client=client)
        killer.join()
    recorded = parts_of(Store(str(archive))).num_rows
    assert recorded >= 10
    report = build(items, archive, client=False)
    assert (report.failed, report.skipped + report.done) == (0, 150)
    assert report.skipped == recorded
    assert_rows_of(archive, items)


def test_malloc_settings_that_are_slow_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client, LocalCluster

    from xchip.io.cluster import slow_malloc

    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)  # nannies leave what they set in their own environment
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        advice = slow_malloc(client)
    assert (advice is not None) == (sys.platform == "linux")
    assert advice is None or "MALLOC_MMAP_THRESHOLD_" in advice


# Ledger


def test_segments_are_few(items: list[dict[str, Any]], tmp_path: Path) -> None:
    build(items, tmp_path)
    assert len(segments(Store(str(tmp_path)))) <= 2
