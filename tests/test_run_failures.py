"""build_index where servers fail: what passes is overcome, what does not is recorded, and the ledger tells which was which."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from archives import ledger_lines, make_items, rows
from servers import Asked, Fault, RangeServer

import xchip

NAMES = ("plain", "busy", "limited", "cut", "reset", "gone", "corrupt", "refused", "expired")


class Token:
    """Signs with a token that the server may refuse; a renewed one is good."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.renewals = 0

    def __call__(self, href: str) -> str:
        return f"{href}?token={self.token}" if href.startswith("http") else href

    def renew(self) -> None:
        self.renewals += 1
        self.token = "new"


def fault(asked: Asked) -> Fault | None:
    """What goes wrong with a file, by its name."""
    name = asked.path.strip("/").removesuffix(".tif")
    if name != "plain" and asked.query != "token=new":
        return Fault(status=403)
    match name:
        case "busy" if asked.number < 4:
            return Fault(status=503)
        case "limited" if asked.number < 4:
            return Fault(status=429, headers={"Retry-After": "0"})
        case "cut" if asked.number < 3:
            return Fault(cut=100)
        case "reset" if asked.number < 4:
            return Fault(reset=True)
        case "refused":
            return Fault(status=403)
        case _:
            return None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[xchip.BuildReport, Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("failures")
    items = make_items(folder, len(NAMES), scenes=1, shape=(1024, 1024))
    files = folder / "served"
    files.mkdir()
    with RangeServer(files, fault=fault) as server:
        for item, name in zip(items, NAMES, strict=True):
            item["id"] = name
            if name != "gone":
                shutil.copy(item["assets"]["scl"]["href"], files / f"{name}.tif")
            if name == "corrupt":
                content = bytearray((files / "corrupt.tif").read_bytes())
                content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
                (files / "corrupt.tif").write_bytes(content)
            item["assets"]["scl"]["href"] = f"{server.url}/{name}.tif"
        pixels = xchip.StorageOptions(signer=Token("old"))
        report = xchip.build_index(items, folder / "a", 128, pixels=pixels, progress=False, workers=4)
        counts = {name: sum(path.startswith(f"/{name}.tif") for _, path, _ in server.requests) for name in NAMES}
    assert counts["gone"] < 10  # asked once, or with each of two signatures, not again and again
    return report, folder / "a", {line["item_id"]: line for line in ledger_lines(folder / "a")}


def test_what_passes_is_overcome(built: Any) -> None:
    report, archive, records = built
    done = {"plain", "busy", "limited", "cut", "reset", "expired"}
    assert {name for name, record in records.items() if record["status"] == "done"} == done
    found = rows(archive)
    assert set(found["item_id"]) == done
    same = found.drop(columns=["chip_id", "item_id", "item_href", "datetime", "geometry", "bbox"])
    per_item = [part.drop(columns=[]).reset_index(drop=True) for _, part in same.groupby(found["item_id"])]
    assert all(part.equals(per_item[0]) for part in per_item)
    assert (report.done, report.failed) == (6, 3)


def test_what_does_not_is_recorded(built: Any) -> None:
    report, _, records = built
    failures = report.failures.set_index("item_id")
    assert set(failures.index) == {"gone", "corrupt", "refused"}
    assert [event["kind"] for event in records["gone"]["history"] if event["kind"] != "denied"] == ["permanent"]
    assert records["corrupt"]["history"][-1]["kind"] == "permanent"
    assert {event["kind"] for event in records["refused"]["history"]} == {"denied"}
    assert all(name in failures.loc[name, "message"] for name in failures.index)


def test_the_ledger_tells_what_happened(built: Any) -> None:
    _, archive, records = built
    for name, text in (("busy", "503"), ("limited", "429")):
        assert text in json.dumps(records[name]["history"])
    assert records["cut"]["history"]
    assert records["reset"]["history"]
    for path in archive.rglob("*"):
        assert not path.is_file() or b"token=" not in path.read_bytes()
