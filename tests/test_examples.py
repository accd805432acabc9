"""The scripts in examples/: each runs as it stands, in an empty folder, without network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))

# What each prints when all went well.
LAST_WORDS = {
    "1_one_scene": r"the greenest chip is synthetic-scene-\d-\d, mean NDVI 0\.\d\d",
    "2_archive_on_a_cluster": r"5 indexed .* 1 failed[\s\S]*1 indexed .* 5 skipped, 0 failed",
    "3_pick_map_split": r"ok: no two splits touch or are within 0\.2 km",
    "4_train_and_predict": r"accuracy 0\.[89]\d\d, by the most frequent class alone 0\.6|PyTorch, which is not installed",
    "5_add_a_sensor": r"synthetic-flight-0-2 our-drone +0\.0 +1\.0 +0\.00",
    "6_from_stacchip": r"15 chips: the same ids, the same nodata, the same cloud",
    "7_aws_batch": r"done +7 items, 112 chips",
}


def run(script: str, folder: Path) -> str:
    """What a script prints. Proxies that are not there stand in the way of all that it might ask of the network; threads of
    PyTorch that wait for each other are slow beside other tests.
    """
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "GDAL_HTTP_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, EXAMPLES / f"{script}.py"]
    env = os.environ | nowhere | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_are_known() -> None:
    assert [script.stem for script in SCRIPTS] == sorted(LAST_WORDS)


@pytest.mark.once
@pytest.mark.parametrize("script", LAST_WORDS)
def test_a_script_runs(script: str, tmp_path: Path) -> None:
    printed = run(script, tmp_path)
    assert re.search(LAST_WORDS[script], printed), printed
    assert {path.name for path in tmp_path.iterdir()} <= {"xchip-demo"}
    pictures = re.findall(r"xchip-demo/\S+\.png", printed)
    assert all((tmp_path / picture).stat().st_size > 5000 for picture in pictures)


@pytest.mark.parametrize("script", LAST_WORDS)
def test_a_script_reads_as_a_notebook(script: str) -> None:
    """Cells of text and of code, a title, and the two lines to change before anything else happens."""
    cells = re.split(r"^# %%", (EXAMPLES / f"{script}.py").read_text(), flags=re.MULTILINE)
    assert cells[0] == ""
    assert cells[1].startswith(" [markdown]\n# # ")
    assert all(line.startswith("#") for cell in cells if "[markdown]" in cell for line in cell.strip().splitlines()[1:])
    first = next(cell for cell in cells[1:] if re.search(r"^ *items? = ", cell, re.MULTILINE))
    assert re.search(r"^ *(folder|archive) = .*", first, re.MULTILINE)
    before = cells[1 : cells.index(first)]
    assert all("[markdown]" in cell or "torch" in cell for cell in before)


@pytest.mark.once
def test_without_pytorch_training_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not installed')\n")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "4_train_and_predict.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'xchip[torch,plot]'" in done.stdout
