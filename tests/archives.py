"""Small archives that the tests on building, reading and merging share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset

from xchip.stac.inputs import plain_items
from xchip.testing import write_scene


def make_items(folder: Path, count: int, *, scenes: int = 2, shape: tuple[int, int] = (256, 320)) -> list[dict[str, Any]]:
    """``count`` items of their own id and date over the files of a few scenes, with absolute hrefs."""
    paths = [write_scene(folder, item_id=f"synthetic-{n}", seed=n, shape=shape) for n in range(scenes)]
    known = [item for item, _ in plain_items(paths)]
    items = []
    for number in range(count):
        item = json.loads(json.dumps(known[number % scenes]))
        item["id"] = f"item-{number:04d}"
        item["properties"]["datetime"] = f"2024-01-01T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
        items.append(item)
    return items


def parts(archive: Path) -> list[Path]:
    """All files below an archive's index."""
    return sorted(path for path in (archive / "index").rglob("*") if path.is_file())


def rows(archive: Path) -> pd.DataFrame:
    """All rows of an archive's parts, as any Parquet reader finds them, in one order."""
    table = pyarrow.dataset.dataset(archive / "index", format="parquet").to_table()
    return table.to_pandas().sort_values(["item_id", "chip_index_y", "chip_index_x"], ignore_index=True)


def ledger_lines(archive: Path) -> list[dict[str, Any]]:
    """All records of an archive's ledger, in the order of the segments' names."""
    segments = sorted((archive / "ledger").rglob("*.jsonl"))
    return [json.loads(line) for path in segments for line in path.read_text().splitlines()]
