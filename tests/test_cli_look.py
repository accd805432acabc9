"""``xchip plot`` and ``xchip preview``: the files that they write, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from archives import make_items
from command_line import misused, refused, run
from matplotlib.image import imread

import xchip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look")
    xchip.write_index(xchip.index_items(_paths(folder), 64), folder / "index.parquet")
    return folder / "index.parquet"


def _paths(folder: Path) -> list[Path]:
    make_items(folder, 1, scenes=2)
    return sorted(folder.glob("*/*.json"))


def drawn(path: Path) -> np.ndarray:
    """A picture that is not one colour: float (y, x, 3)."""
    picture = imread(path)[..., :3]
    assert picture.std() > 0.01
    return picture


def test_plot(archive: Path, tmp_path: Path) -> None:
    result = run("plot", archive, "-o", tmp_path / "new" / "map.png")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"written to {tmp_path / 'new' / 'map.png'}\n"
    first = drawn(tmp_path / "new" / "map.png")
    for options in (["--column", "water_fraction"], ["--column", "item_id"], ["--filter", "item_id=synthetic-1"]):
        result = run("plot", archive, "-o", tmp_path / "other.png", *options)
        assert result.exit_code == 0, result.output
        other = drawn(tmp_path / "other.png")
        assert other.shape != first.shape or not np.array_equal(other, first)


def test_preview(archive: Path, tmp_path: Path) -> None:
    sizes = []
    for options in ([], ["--n", 4], ["--n", 4, "--seed", 1], ["--n", 4, "--bands", "nir"]):
        result = run("preview", archive, "-o", tmp_path / "sheet.png", *options)
        assert result.exit_code == 0, result.output
        sizes.append(drawn(tmp_path / "sheet.png"))
    assert sizes[0].size > sizes[1].size
    assert not np.array_equal(sizes[1], sizes[2])
    assert np.array_equal(sizes[3][..., 0], sizes[3][..., 1])


def test_a_box_and_conditions_choose_rows(archive: Path, tmp_path: Path) -> None:
    rows = xchip.read_index(archive)
    west, south, east, north = rows.geometry.iloc[0].buffer(-0.001).bounds
    result = run(
        "preview", archive, "-o", tmp_path / "a.svg", f"--bbox={west},{south},{east},{north}", "--filter", "nodata_fraction<=1"
    )
    assert result.exit_code == 0, result.output
    touching = rows[rows.intersects(rows.geometry.iloc[0].buffer(-0.001))]
    assert (tmp_path / "a.svg").read_text().count("<image ") == len(touching)
    refused(run("preview", archive, "-o", tmp_path / "b.png", "--filter", "cloud_fraction>1"), "no rows to show")


def test_what_is_refused(archive: Path, tmp_path: Path) -> None:
    misused(run("plot", archive, "-o", tmp_path / "map.parquet"), "is not a picture; use a name that ends in .png")
    refused(run("plot", archive, "-o", tmp_path / "m.png", "--column", "clouds"), "no column 'clouds'; it has chip_id")
    refused(run("plot", archive, "-o", tmp_path / "m.png", "--bbox", "1,2,3"), "bbox")
    refused(run("preview", archive, "-o", tmp_path / "m.png", "--bands", "red,green"), "one band or three")
    refused(run("plot", tmp_path / "nothing", "-o", tmp_path / "m.png"), "nothing")
    assert not (tmp_path / "m.png").exists()
