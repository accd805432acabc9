"""Files of archives and exports in which a bit is flipped."""

from __future__ import annotations

from collections.abc import Callable
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
    part = next(archive.glob("index/*/*/index.parquet"))
    found = soak(lambda rng: check_flipped_part(archive, part, rng))
    print(f"{sum(found)} of {len(found)} found; the others change nothing that the part holds")


@pytest.mark.parametrize("compressed", [True, False])
def test_flipped_bits_of_cubes_are_noticed(soak: Callable[..., Any], archive: Path, tmp_path: Path, compressed: bool) -> None:
    kind = Cubes(6, compressed=compressed)
    xchip.export_chips(str(archive), tmp_path, kind, assets=["blue", "red", "nir"], client=False, progress=False)
    cube = next(tmp_path.rglob("*.npz"))
    soak(lambda rng: check_flipped_cube(cube, rng))
