"""Checks of builds that are killed, items that are mutated and files that are damaged.

The tests run each a few times with fixed seeds, and tests/soak thousands of times.
"""

from __future__ import annotations

import copy
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from archives import rows

import xchip
from xchip.indexing.archive.manifest import parts_of, walk
from xchip.indexing.archive.verify import verify
from xchip.indexing.files.geoparquet import arrow_schema
from xchip.io.store import Store
from xchip.stac.scene.understand import ItemError, understand

# Builds that are killed

SIZE = 64
"""Of the chips of the archives that are built."""
# Python leaves SIGINT ignored where it was started so, as shells do in the background.
DRIVER = """
import json, signal, sys, xchip
signal.signal(signal.SIGINT, signal.default_int_handler)
items = [json.loads(line) for line in open(sys.argv[1])]
xchip.build_index(items, sys.argv[2], 64, progress=False, workers=2)
"""


def start_driver(items: list[dict[str, Any]], folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Build an archive ``a`` in a process of its own; return the process and the archive."""
    (folder / "items.ndjson").write_text("".join(json.dumps(item) + "\n" for item in items))
    command = [sys.executable, "-c", DRIVER, str(folder / "items.ndjson"), str(folder / "a")]
    return subprocess.Popen(command, stderr=subprocess.PIPE), folder / "a"


def wait_for_parts(archive: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until an archive has ``count`` parts; the process that makes them must live."""
    deadline = time.monotonic() + 60
    while sum(1 for _ in archive.glob("index/*/*/index.parquet")) < count:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)


def check_killed_build(
    items: list[dict[str, Any]],
    folder: Path,
    undisturbed: pd.DataFrame,
    waits: Iterable[Callable[[Path, subprocess.Popen[bytes]], object]],
) -> None:
    """Kill a build after each of ``waits``, then resume it: all parts are whole, and the rows those of an undisturbed build."""
    chips = len(undisturbed) // len(items)
    archive = folder / "a"
    for wait in waits:
        process, archive = start_driver(items, folder)
        wait(archive, process)
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        for part in archive.glob("index/*/*/*.parquet"):
            assert pq.read_table(part).num_rows == chips  # whole
    report = xchip.build_index(items, archive, SIZE, progress=False)
    assert report.failed == 0
    assert report.done + report.skipped == len(items)
    pd.testing.assert_frame_equal(rows(archive), undisturbed)
    assert walk(Store(str(archive))).num_rows == parts_of(Store(str(archive))).num_rows == len(items)


# Items that are mutated

WORDS = ("", "nan", "EPSG:32633", "EPSG:0", "./a.tif", "cloud", "data", "-jp2", "2024-01-01", "2024-13-01T00:00:00Z", "oli", "\0")
NUMBERS = (0, -1, 1, 2**31, 2**70, -0.0, 0.5, 1e308, math.nan, math.inf)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in an item but its geometry and long lists."""
    found = []
    entries = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in entries:
        if key not in ("geometry", "proj:geometry", "stac_extensions", "histogram", "statistics"):
            found += [(*path, key), *places(inner, (*path, key))]
    return found


def random_json(rng: random.Random, depth: int = 2) -> Any:
    """Any JSON value."""
    kind = rng.randrange(6 if depth else 4)
    if kind == 4:
        return [random_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return {rng.choice((*WORDS, "name", "href", "values")): random_json(rng, depth - 1) for _ in range(rng.randrange(3))}
    return (None, rng.random() < 0.5, rng.choice(NUMBERS), rng.choice(WORDS))[kind]


def mutated(item: dict[str, Any], paths: list[tuple[Any, ...]], rng: random.Random) -> dict[str, Any]:
    """An item of which a few fields are deleted, have another value, or that of another field."""
    item = copy.deepcopy(item)
    for path in rng.choices(paths, k=rng.randint(1, 4)):
        holder: Any = item
        try:
            for key in path[:-1]:
                holder = holder[key]
            change = rng.randrange(3)
            if change == 0:
                del holder[path[-1]]
            elif change == 1:
                holder[path[-1]] = random_json(rng)
            else:
                other: Any = item
                for key in rng.choice(paths):
                    other = other[key]
                holder[path[-1]] = copy.deepcopy(other)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return item


def check_understood(item: Any, **options: Any) -> None:
    """An item is understood, with bands that can be read, or refused with an ItemError that names it."""
    try:
        scene = understand(item, href="s3://b/item.json", **options)
    except ItemError as error:
        refusal = str(error)
    else:
        refusal = ""
        names = [band.name for band in scene.bands]
        assert len(set(names)) == len(names)
        for band in (*scene.bands, *scene.quality):
            assert band.href
            assert 1 <= band.index <= band.count
            assert np.dtype(band.dtype)
    assert refusal == "" or refusal.startswith("item ")


# Files that are damaged


@contextmanager
def flipped_bit(path: Path, rng: random.Random, end: int | None = None) -> Iterator[int]:
    """A file with a bit flipped before the byte ``end``, until the end of the block; gives the byte."""
    whole = path.read_bytes()
    data, place = bytearray(whole), rng.randrange(len(whole) if end is None else end)
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        yield place
    finally:
        path.write_bytes(whole)


def check_flipped_part(archive: Path, part: Path, rng: random.Random, *, footer: bool = True) -> bool:
    """A flipped bit of a part is found by `verify`, or else the part has the rows that it had; whether it was found.

    Arrow may end the process where the footer is damaged: ``footer=False`` leaves it alone.
    """
    before = rows_of(part)
    with flipped_bit(part, rng, None if footer else part.stat().st_size - 8 - pq.read_metadata(part).serialized_size) as place:
        found = list(verify(archive, deep=True))
        assert {problem.path for problem in found} <= {part.relative_to(archive).as_posix()}
        if not found:
            pd.testing.assert_frame_equal(rows_of(part), before, check_exact=True, obj=f"with byte {place}, rows")
    return bool(found)


def rows_of(part: Path) -> pd.DataFrame:
    """The rows of a part, with the types that an index has."""
    table, columns = pq.read_table(part), arrow_schema()
    return table.select(columns.names).cast(columns).append_column("bbox", table["bbox"]).to_pandas()


def check_flipped_cube(cube: Path, rng: random.Random) -> bool:
    """A cube with a flipped bit can't be read, or else holds what it held; whether it can't be read."""
    before = arrays_of(cube)
    with flipped_bit(cube, rng) as place:
        try:
            after = arrays_of(cube)
        except Exception:  # whichever of zipfile, zlib and NumPy finds it
            return True
        assert set(after) == set(before), f"byte {place} changed the names"
        for name, values in after.items():
            np.testing.assert_array_equal(values, before[name], f"byte {place} changed {name!r}")
    return False


def arrays_of(cube: Path) -> dict[str, np.ndarray]:
    """The arrays of a cube, as readers get them."""
    with np.load(cube) as file:
        return dict(file)
