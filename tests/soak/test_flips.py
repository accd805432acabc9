"""Files of archives and exports in which a bit is flipped."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from archives import make_items
from fault_checks import SIZE, check_flipped_cube, check_flipped_part

import xchip
from xchip.export.cubes import Cubes


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    xchip.build_index(make_items(folder, 2, shape=(128, 192)), folder / "a", SIZE, progress=False)
    return folder / "a"


def test_flipped_bits_of_parts_are_found(soak: Callable[..., Any], archive: Path) -> None:
    """In a process of its own: Arrow ends its process where it does not expect what a damaged footer says."""
    part = next(archive.glob("index/*/*/index.parquet"))
    whole = part.read_bytes()
    workers = [ProcessPoolExecutor(1, get_context("spawn"))]

    def check(rng: random.Random) -> str:
        try:
            return "found" if workers[0].submit(check_flipped_part, archive, part, rng).result() else "without effect"
        except BrokenProcessPool:
            part.write_bytes(whole)
            workers[0] = ProcessPoolExecutor(1, get_context("spawn"))
            return "ended the process"

    found = Counter(soak(check))
    workers[0].shutdown()
    assert found["ended the process"] < 0.02 * found.total() + 2, found
    print(dict(found))


@pytest.mark.parametrize("compressed", [True, False])
def test_flipped_bits_of_cubes_are_noticed(soak: Callable[..., Any], archive: Path, tmp_path: Path, compressed: bool) -> None:
    kind = Cubes(6, compressed=compressed)
    xchip.export_chips(str(archive), tmp_path, kind, assets=["blue", "red", "nir"], client=False, progress=False)
    cube = next(tmp_path.rglob("*.npz"))
    soak(lambda rng: check_flipped_cube(cube, rng))
