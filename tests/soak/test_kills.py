"""Builds that are killed at random moments, and resumed."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archives import make_items, rows
from fault_checks import SIZE, check_killed_build, start_driver

import xchip

ITEMS = 120


def beginning(archive: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a build begins to write."""
    while not archive.exists() and process.poll() is None:
        time.sleep(0.001)


def test_killed_builds_resume(soak: Callable[..., Any], tmp_path: Path) -> None:
    items = make_items(tmp_path, ITEMS)
    xchip.build_index(items, tmp_path / "undisturbed", SIZE, progress=False)
    undisturbed = rows(tmp_path / "undisturbed")
    (tmp_path / "timed").mkdir()
    process, archive = start_driver(items, tmp_path / "timed")
    beginning(archive, process)
    began = time.monotonic()
    assert process.wait() == 0
    duration = time.monotonic() - began

    def check(rng: random.Random) -> None:
        folder = tmp_path / "round"
        folder.mkdir()
        moments = [rng.uniform(0, duration) for _ in range(rng.randint(1, 3))]

        def waiting(moment: float) -> Callable[[Path, subprocess.Popen[bytes]], None]:
            def wait(archive: Path, process: subprocess.Popen[bytes]) -> None:
                beginning(archive, process)
                time.sleep(moment)

            return wait

        check_killed_build(items, folder, undisturbed, map(waiting, moments))
        shutil.rmtree(folder)

    soak(check)
