"""``xchip merge``, ``xchip status`` and ``xchip verify``: what they say, and how they end."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import geopandas
import pytest
from archives import make_items
from command_line import misused, refused, run, start

import xchip
from xchip.testing import write_scene


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found = make_items(tmp_path_factory.mktemp("scenes"), 6, shape=(128, 192))
    for item in found[4:]:
        item["collection"] = "other"
    return found


@pytest.fixture
def archive(items: list[dict[str, Any]], tmp_path: Path) -> Path:
    xchip.build_index(items, tmp_path / "archive", 64, progress=False)
    return tmp_path / "archive"


def broken(items: list[dict[str, Any]], *numbers: int) -> list[dict[str, Any]]:
    """The items, some of them without their files."""
    found = json.loads(json.dumps(items))
    for number in numbers:
        for asset in found[number]["assets"].values():
            asset["href"] += ".gone"
    return found


# -- status ------------------------------------------------------------------------------------------------------------


def test_status_of_a_whole_archive(archive: Path, items: list[dict[str, Any]]) -> None:
    result = run("status", archive)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == str(archive)
    assert lines[1].startswith("done 6 items, 36 chips, ")
    assert lines[2] == "failed 0 items"
    assert lines[3] == "dates 2024-01-01 to 2024-01-01"
    assert f"in {items[0]['collection']}: 4 items, 24 chips" in lines
    assert "in other: 2 items, 12 chips" in lines
    assert any(line.startswith("made with ") and "size=64 x 64, stride=64 x 64" in line for line in lines)


def test_status_tells_what_failed_and_why(items: list[dict[str, Any]], tmp_path: Path) -> None:
    xchip.build_index(broken(items, 1, 3), tmp_path / "a", 64, progress=False)
    result = run("status", tmp_path / "a")
    assert result.exit_code == 3
    assert "failed  2 items" in result.stdout
    assert "2 x " in result.stdout
    assert "--failures lists them all" in result.stdout
    assert "item-0003" not in result.stdout.split("--failures")[0] or "item-0001" not in result.stdout
    listed = run("status", tmp_path / "a", "--failures")
    assert listed.exit_code == 3
    assert [line.split()[0] for line in listed.stdout.splitlines() if line.startswith("    item-")] == ["item-0001", "item-0003"]
    found = json.loads(run("status", tmp_path / "a", "--json").stdout)
    assert (found["parts"], found["failed"]) == (4, 2)
    assert [failure["item_id"] for failure in found["failures"]] == ["item-0001", "item-0003"]
    assert sum(found["errors"].values()) == 2


def test_status_of_what_is_no_archive(tmp_path: Path) -> None:
    refused(run("status", tmp_path / "nothing"), "nothing.*holds no archive")


# -- verify ------------------------------------------------------------------------------------------------------------


def test_verify_says_nothing_of_a_whole_archive(archive: Path) -> None:
    for options, count in (([], 6), (["--deep"], 6), (["--sample", 2, "--seed", 1], 2), (["--sample", 99], 6)):
        result = run("verify", archive, *options)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{count} parts checked, 0 problems\n"


def test_verify_prints_problems_one_a_line(archive: Path) -> None:
    first, second = sorted(archive.glob("index/*/*/index.parquet"))[:2]
    first.write_bytes(first.read_bytes()[:-100])
    second.unlink()
    result = run("verify", archive)
    assert result.exit_code == 3
    *problems, last = result.stdout.splitlines()
    assert last == f"6 parts checked, {len(problems)} problems"
    assert any(line.startswith(str(first.relative_to(archive))) and "not a complete Parquet file" in line for line in problems)
    assert any(line.startswith(str(second.relative_to(archive))) and "not in the archive" in line for line in problems)


def test_verify_of_what_is_no_archive(tmp_path: Path) -> None:
    refused(run("verify", tmp_path / "nothing"), "nothing.*holds no archive")


# -- merge -------------------------------------------------------------------------------------------------------------


def collections(path: Path) -> dict[str, int]:
    return geopandas.read_parquet(path).groupby("collection").size().to_dict()


def test_merge_add_and_drop(archive: Path, items: list[dict[str, Any]], tmp_path: Path) -> None:
    out, first = tmp_path / "merged.parquet", items[0]["collection"]
    result = run("merge", archive, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"merged into {out}\n"
    assert collections(out) == {first: 24, "other": 12}
    assert run("merge", "-o", out, "--drop", "collection=other").exit_code == 0
    assert collections(out) == {first: 24}
    assert run("merge", archive, "-o", out, "--add", "--drop", f"collection={first}").exit_code == 0
    assert collections(out) == {first: 24, "other": 12}
    drop = ["--drop", "item_id=item-0000", "--drop", "item_id=item-0001"]
    assert run("merge", archive, "-o", tmp_path / "fresh.parquet", *drop, "--sort", "none").exit_code == 0
    assert collections(tmp_path / "fresh.parquet") == {first: 12, "other": 12}


def test_merge_keeps_two_grids_only_if_asked(archive: Path, items: list[dict[str, Any]], tmp_path: Path) -> None:
    xchip.build_index(items[:1], tmp_path / "coarse", 128, progress=False)
    out = tmp_path / "merged.parquet"
    refused(run("merge", archive, tmp_path / "coarse", "-o", out), "item-0000")
    assert not out.exists()
    assert run("merge", archive, tmp_path / "coarse", "-o", out, "--keep-grids").exit_code == 0
    assert len(geopandas.read_parquet(out)) == 37


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "No sources"),
        (["--add"], "No sources"),
        (["--add", "--drop", "a=b"], "No sources"),
        (["x", "--drop", "collection"], "--drop takes COLUMN=VALUE, such as collection=landsat"),
    ],
)
def test_merge_of_nothing(options: list[str], message: str, tmp_path: Path) -> None:
    misused(run("merge", "-o", tmp_path / "out", *options), message)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_merge_leaves_nothing(tmp_path: Path, signal_number: int) -> None:
    scene = write_scene(tmp_path, shape=(1024, 1024))
    index = xchip.write_index(xchip.index_items(str(scene), 4), tmp_path / "index.parquet")
    out = tmp_path / "out"
    process = start("merge", index, "-o", out / "merged.parquet", "--memory", "1 MB")
    deadline = time.monotonic() + 60
    while not (out.is_dir() and list(out.iterdir())):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal_number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "Interrupted.\n")
    assert not list(out.iterdir())
