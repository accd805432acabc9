"""``xchip index``: where items come from, where the index goes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import psutil
import pyarrow.dataset
import pytest
from archives import make_items, rows
from command_line import misused, refused, run, start
from pandas.testing import assert_frame_equal
from processes import dask_cluster, object_store, stac_api

import xchip
from xchip.cli.options import ChipSizeType, Share
from xchip.testing import write_scene


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return [write_scene(folder, item_id=f"synthetic-{seed}", seed=seed, shape=(512, 768), clouds=0.4) for seed in (1, 2)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Ten items over the files of two scenes."""
    found = make_items(tmp_path_factory.mktemp("many"), 10, shape=(128, 192))
    for number, item in enumerate(found):
        item["properties"]["eo:cloud_cover"] = 10 * number
    return found


def write_lines(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def indexed(archive: Path) -> list[int]:
    """Numbers of the items of an archive."""
    return sorted({int(item_id.removeprefix("item-")) for item_id in rows(archive)["item_id"]})


# -- an archive, or one file -------------------------------------------------------------------------------------------


def test_an_archive_is_what_the_library_builds(items: list[Path], tmp_path: Path) -> None:
    result = run("index", *items, "-o", tmp_path / "cli", "--size", 128)
    assert result.exit_code == 0, result.output
    assert result.stderr == "indexed 2 of 2 scenes\n"
    assert result.stdout.startswith(f"{tmp_path / 'cli'}: 2 indexed (48 chips), 0 skipped, 0 failed")
    xchip.build_index(items, tmp_path / "library", 128, progress=False)
    assert_frame_equal(rows(tmp_path / "cli"), rows(tmp_path / "library"))
    again = run("index", *items, "-o", tmp_path / "cli", "--size", 128)
    assert "0 indexed (0 chips), 2 skipped, 0 failed" in again.stdout


def test_one_file_is_what_the_library_writes(items: list[Path], tmp_path: Path) -> None:
    result = run("index", *items, "-o", tmp_path / "one.parquet", "--size", 128)
    assert result.exit_code == 0, result.output
    assert result.stderr == "indexed 2 of 2 scenes\n"
    assert result.stdout == f"48 chips of 2 scenes in {tmp_path / 'one.parquet'}\n"
    path = xchip.write_index(xchip.index_items(items, 128), str(tmp_path / "expected.parquet"))
    assert_frame_equal(geopandas.read_parquet(tmp_path / "one.parquet"), geopandas.read_parquet(path))


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        (["--size", "64x256"], {"size": (64, 256)}),
        (["--stride", "100", "--size", "128"], {"size": 128, "stride": 100}),
        (["--edge", "pad"], {"edge": "pad"}),
        (["--anchor", "crs", "--edge", "partial"], {"anchor": "crs", "edge": "partial"}),
        (["--max-cloud", "0.4", "--max-nodata", "0.1", "--size", "64"], {"size": 64, "max_cloud": 0.4, "max_nodata": 0.1}),
        (["--max-shadow", "0.1", "--max-water", "0.5", "--size", "64"], {"size": 64, "max_shadow": 0.1, "max_water": 0.5}),
        (["--max-snow", "0.1", "--max-defective", "0", "--size", "64"], {"size": 64, "max_snow": 0.1, "max_defective": 0.0}),
        (["--min-clear", "0.3", "--size", "64"], {"size": 64, "min_clear": 0.3}),
        (["--sensor", "sentinel-2-l2a", "--quality", "scl"], {"sensor": "sentinel-2-l2a", "quality": "scl"}),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("output", ["out.parquet", "archive"])
def test_every_option_reaches_the_library(
    items: list[Path], tmp_path: Path, options: list[str], keywords: dict[str, Any], output: str
) -> None:
    result = run("index", items[0], "-o", tmp_path / output, *options)
    assert result.exit_code == 0, result.output
    expected = xchip.index_items(items[0], **keywords).compute()
    folder = tmp_path / output
    table = pyarrow.dataset.dataset(folder / "index" if folder.is_dir() else folder, format="parquet").to_table().to_pandas()
    assert table.chip_id.tolist() == expected.chip_id.tolist()
    assert table.clear_fraction.tolist() == pytest.approx(expected.clear_fraction.tolist(), nan_ok=True)


def test_options_come_from_the_environment(items: list[Path], tmp_path: Path) -> None:
    environment = {"XCHIP_INDEX_SIZE": "64x96", "XCHIP_INDEX_OUTPUT": str(tmp_path / "out"), "XCHIP_INDEX_MIN_CLEAR": "0.2"}
    assert run("index", items[0], env=environment).exit_code == 0
    table = rows(tmp_path / "out")
    assert set(zip(table.height, table.width, strict=True)) == {(64, 96)}
    assert table.clear_fraction.min() >= 0.2


# -- where items come from ---------------------------------------------------------------------------------------------


def test_items_come_from_files_of_many_and_from_lists_of_names(
    items: list[Path], many: list[dict[str, Any]], tmp_path: Path
) -> None:
    lines = write_lines(tmp_path / "many.ndjson", many[:3])
    collection = tmp_path / "collection.json"
    collection.write_text(json.dumps({"type": "FeatureCollection", "features": many[3:5]}))
    (tmp_path / "list.txt").write_text(f"# the rest\n{lines}\n\n  {items[0]}\n")
    result = run("index", collection, "--items-file", tmp_path / "list.txt", "-o", tmp_path / "a", "--size", 64)
    assert result.exit_code == 0, result.output
    assert set(rows(tmp_path / "a").item_id) == {f"item-{n:04d}" for n in range(5)} | {"synthetic-1"}
    result = run("index", "--items-file", "-", "-o", tmp_path / "b", "--size", 64, input=f"{items[1]}\n")
    assert result.exit_code == 0, result.output
    assert set(rows(tmp_path / "b").item_id) == {"synthetic-2"}


@pytest.mark.parametrize("of", [1, 3, 12])
@pytest.mark.parametrize("kind", ["one file", "a list"])
def test_parts_of_the_work_are_the_whole(many: list[dict[str, Any]], tmp_path: Path, of: int, kind: str) -> None:
    source: list[object] = [write_lines(tmp_path / "many.ndjson", many)]
    if kind == "a list":
        paths = [write_lines(tmp_path / f"{item['id']}.ndjson", [item]) for item in many]
        (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
        source = ["--items-file", tmp_path / "list.txt"]
    counts = []
    for number in range(of):
        result = run("index", *source, "-o", tmp_path / "a", "--size", 64, "--part", f"{number}/{of}")
        assert result.exit_code == 0, result.output
        counts.append(len(indexed(tmp_path / "a")) if (tmp_path / "a").exists() else 0)
    assert counts == [sum(-(-(10 - k) // of) for k in range(n + 1)) for n in range(of)][: len(counts)]
    assert indexed(tmp_path / "a") == list(range(10))
    assert "there is nothing to do" in result.stdout or of < 12


def test_a_child_of_an_array_job_finds_its_part(many: list[dict[str, Any]], tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "many.ndjson", many)
    job = {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "4"}
    result = run("index", lines, "-o", tmp_path / "a", "--size", 64, "--array", env=job)
    assert result.exit_code == 0, result.output
    assert indexed(tmp_path / "a") == [1, 5, 9]
    alone = dict.fromkeys(job)
    misused(run("index", lines, "-o", tmp_path / "a", "--array", env=alone), "AWS_BATCH_JOB_ARRAY_INDEX and .*SIZE is not set")
    misused(run("index", lines, "-o", tmp_path / "a", "--array", "--part", "0/2", env=job), "exclude each other")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_failures_are_listed_and_change_the_status(items: list[Path], many: list[dict[str, Any]], tmp_path: Path) -> None:
    bad = json.loads(json.dumps(many[0]))
    for asset in bad["assets"].values():
        asset["href"] += ".gone"
    lines = write_lines(tmp_path / "some.ndjson", [bad, many[1]])
    result = run("index", lines, tmp_path / "none.json", "-o", tmp_path / "a", "--size", 64)
    assert result.exit_code == 3
    assert "1 indexed (6 chips), 0 skipped, 2 failed" in result.stdout
    assert "item-0000: " in result.stdout
    assert "none.json" in result.stdout
    assert result.stderr.splitlines()[-1] == f"To list the failures: xchip status {tmp_path / 'a'} --failures"
    again = run("index", lines, "-o", tmp_path / "a", "--size", 64, "--no-retry-failed")
    assert again.exit_code == 3
    assert "0 indexed (0 chips), 1 skipped, 1 failed" in again.stdout
    write_lines(lines, [many[0], many[1]])
    healed = run("index", lines, "-o", tmp_path / "a", "--size", 64)
    assert healed.exit_code == 0, healed.output
    assert "1 indexed (6 chips), 1 skipped, 0 failed" in healed.stdout


def test_refusals_are_one_line(items: list[Path], tmp_path: Path) -> None:
    refused(run("index", tmp_path / "none.json", "-o", tmp_path / "out.parquet"), "none.json")
    refused(run("index", items[0], "-o", tmp_path / "out", "--size", 0), "at least 1 pixel, got 0")
    refused(run("index", items[0], "-o", tmp_path / "out.parquet", "--sensor", "camera"), "sensor 'camera' is not known")
    refused(run("index", items[0], "-o", tmp_path / "out", "--edge", "shift", "--anchor", "crs"), "--edge shift")
    (tmp_path / "broken.json").write_text("{")
    refused(run("index", tmp_path / "broken.json", "-o", tmp_path / "out.parquet"), "broken.json")
    refused(run("index", "--items-file", tmp_path / "none.txt", "-o", tmp_path / "out"), "none.txt")
    refused(run("index", "--api", "http://127.0.0.1:9", "-o", tmp_path / "out"), "http://127.0.0.1:9 can't be reached")
    refused(run("index", "--api", "http://127.0.0.1:9", "--bbox", "1,2,3", "-o", tmp_path / "out"), "bbox '1,2,3'")
    assert not (tmp_path / "out" / "index").exists()
    assert not (tmp_path / "out.parquet").exists()


def test_one_file_needs_all_its_items(items: list[Path], tmp_path: Path) -> None:
    item = json.loads(items[0].read_text())
    (tmp_path / "item.json").write_text(json.dumps(item))  # the files are elsewhere
    refused(run("index", tmp_path / "item.json", "-o", tmp_path / "out.parquet"), "item 'synthetic-1': .*SCL.tif")
    assert not (tmp_path / "out.parquet").exists()


def test_other_parameters_and_unwanted_archives_are_refused(items: list[Path], tmp_path: Path) -> None:
    assert run("index", items[0], "-o", tmp_path / "a", "--size", 128).exit_code == 0
    refused(run("index", items[0], "-o", tmp_path / "a", "--size", 64), "was built with size")
    refused(run("index", items[0], "-o", tmp_path / "a", "--size", 128, "--no-resume"), "is already an archive")


@pytest.mark.parametrize("option", [["--size", "big"], ["--size", "1x2x3"], ["--max-cloud", "75"], ["--edge", "round"]])
def test_wrong_options_are_usage_errors(items: list[Path], tmp_path: Path, option: list[str]) -> None:
    misused(run("index", items[0], "-o", tmp_path, *option), "Invalid value")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.json"], "Missing option '-o'"),
        (["-o", "a"], "No items: give ITEM..., --items-file or --api"),
        (["a.json", "-o", "a", "--collection", "b"], "--collection is for a search; name an API with --api"),
        (["a.json", "-o", "a", "--max-items", "3"], "--max-items is for a search"),
        (["a.json", "-o", "a", "--workers", "2", "--threads", "2"], "exclude each other"),
        (["a.json", "-o", "a", "--workers", "2", "--scheduler", "tcp://x:1"], "exclude each other"),
        (["a.json", "-o", "a.parquet", "--no-resume"], "--resume is for archives, and a.parquet is one file"),
        (["a.json", "-o", "a.parquet", "--archive-profile", "b"], "--archive-profile is for archives"),
        (["a.json", "-o", "a", "--part", "3/3"], "'3/3' is not a share"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], message: str) -> None:
    misused(run("index", *options), message)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("--debug", "index", tmp_path / "none.json", "-o", tmp_path / "a.parquet")
    assert isinstance(result.exception, (ValueError, OSError))


def test_values() -> None:
    assert ChipSizeType().convert("256", None, None) == 256
    assert ChipSizeType().convert("64x128", None, None) == (64, 128)
    assert ChipSizeType().convert(256, None, None) == 256
    assert Share().convert("0/3", None, None) == (0, 3)


def test_a_dry_run_reads_and_writes_nothing(items: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("xchip.indexing.explain.items")
    result = run("index", *items, "--size", 128, "--dry-run", "-o", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "48" in result.stdout
    assert not (tmp_path / "a").exists()


# -- other processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("where", [["--threads", 1], ["--workers", 1]], ids=["threads", "processes"])
def test_an_interrupted_run_is_resumed(tmp_path: Path, signal_number: int, where: list[object]) -> None:
    items = write_lines(tmp_path / "items.ndjson", make_items(tmp_path / "scenes", 160, shape=(320, 320)))
    command = ["index", items, "-o", tmp_path / "a", "--size", 16]
    process = start(*command, *where)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "a").glob("index/*/*/index.parquet")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # A terminal sends Ctrl-C to all processes of the group, a scheduler of jobs its signal to the first.
    (os.killpg if signal_number == signal.SIGINT else os.kill)(process.pid, signal_number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert err.splitlines()[-1] == f"Interrupted. Finished work is kept in {tmp_path / 'a'}; run the same command to resume."
    assert "Traceback" not in err
    status = run("status", tmp_path / "a", "--json")
    assert status.exit_code == 0, status.output
    assert 0 < json.loads(status.stdout)["parts"] < 160
    # A worker may have finished a part that nobody was left to record.
    assert run("index", items, "-o", tmp_path / "a", "--size", 16).exit_code == 0
    assert run("verify", tmp_path / "a").stdout == "160 parts checked, 0 problems\n"


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_who_interrupts_while_workers_start_is_heard(tmp_path: Path, items: list[Path], signal_number: int) -> None:
    (tmp_path / "out").mkdir()
    process = start("index", *items, "-o", tmp_path / "out" / "one.parquet", "--workers", 1)
    deadline = time.monotonic() + 60
    while not psutil.Process(process.pid).children():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (os.killpg if signal_number == signal.SIGINT else os.kill)(process.pid, signal_number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "Interrupted.\n")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.server
def test_on_a_cluster(many: list[dict[str, Any]], tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "many.ndjson", many)
    xchip.build_index(lines, tmp_path / "threads", 64, progress=False)
    result = run("index", lines, "-o", tmp_path / "processes", "--size", 64, "--workers", 2)
    assert result.exit_code == 0, result.output
    with dask_cluster(tmp_path) as address:
        result = run("index", lines, "-o", tmp_path / "cluster", "--size", 64, "--scheduler", address)
        assert result.exit_code == 0, result.output
        result = run("index", lines, "-o", tmp_path / "cluster.parquet", "--size", 64, "--scheduler", address)
        assert result.exit_code == 0, result.output
    expected = rows(tmp_path / "threads")
    assert_frame_equal(rows(tmp_path / "processes"), expected)
    assert_frame_equal(rows(tmp_path / "cluster"), expected)
    assert len(geopandas.read_parquet(tmp_path / "cluster.parquet")) == len(expected)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, many: list[dict[str, Any]]) -> Iterator[str]:
    absolute = json.loads(json.dumps(many))
    for item in absolute:
        for asset in item["assets"].values():
            asset["href"] = Path(asset["href"]).as_uri()
    with stac_api(tmp_path_factory.mktemp("api"), absolute) as url:
        yield url


@pytest.mark.server
def test_a_search_becomes_an_archive(api: str, many: list[dict[str, Any]], tmp_path: Path) -> None:
    search = ["--api", api, "--collection", many[0]["collection"], "--limit", 3]
    common = ["--size", 64]
    assert run("index", *search, "-o", tmp_path / "all", *common).exit_code == 0
    assert indexed(tmp_path / "all") == list(range(10))
    assert run("index", *search, "--query", "eo:cloud_cover<30", "-o", tmp_path / "clear", *common).exit_code == 0
    assert indexed(tmp_path / "clear") == [0, 1, 2]
    best = ["--query", "eo:cloud_cover>=30", "--sortby", "-eo:cloud_cover", "--max-items", 2]
    assert run("index", *search, *best, "-o", tmp_path / "worst", *common).exit_code == 0
    assert indexed(tmp_path / "worst") == [8, 9]
    assert run("index", *search, "--datetime", "2024-01-01T00:00:04Z/..", "-o", tmp_path / "late", *common).exit_code == 0
    assert indexed(tmp_path / "late") == list(range(4, 10))
    area = tmp_path / "area.json"
    area.write_text(json.dumps(many[0]["geometry"]))
    for where in (["--bbox", ",".join(map(str, many[0]["bbox"]))], ["--intersects", area]):
        result = run("index", *search, *where, "-o", tmp_path / where[0].strip("-"), *common)
        assert result.exit_code == 0, result.output
        assert 0 in indexed(tmp_path / where[0].strip("-"))
    for number in range(3):
        assert run("index", *search, "-o", tmp_path / "parts", *common, "--part", f"{number}/3").exit_code == 0
    assert_frame_equal(rows(tmp_path / "parts"), rows(tmp_path / "all"))
    refused(run("index", "--api", api, "--collection", "nothing", "-o", tmp_path / "none"), f"{api} has no collection 'nothing'")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with object_store(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.mark.server
def test_from_a_search_into_a_bucket(api: str, bucket: dict[str, str], tmp_path: Path) -> None:
    keys = {name: bucket[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    place = ["--endpoint", bucket["AWS_ENDPOINT_URL"], "--region", "us-west-2"]
    archive = f"s3://scenes/{tmp_path.name}"
    result = run("index", "--api", api, "-o", archive, "--size", 64, *place, env=keys)
    assert result.exit_code == 0, result.output
    assert "10 indexed" in result.stdout
    again = run("index", "--api", api, "-o", archive, "--size", 64, *place, env=keys)
    assert "0 indexed (0 chips), 10 skipped, 0 failed" in again.stdout, again.output
    refused(run("index", "--api", api, "-o", archive, "--size", 32, *place, env=keys), "was built with size")
    status = run("status", archive, *place, "--json", env=keys)
    assert json.loads(status.stdout)["parts"] == 10
    checked = run("verify", archive, *place, "--deep", env=keys)
    assert checked.stdout == "10 parts checked, 0 problems\n", checked.output
    merged = run("merge", archive, "-o", tmp_path / "merged.parquet", *place, env=keys)
    assert merged.exit_code == 0, merged.output
    assert len(geopandas.read_parquet(tmp_path / "merged.parquet")) == 60
