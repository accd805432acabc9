"""A sensor that a user registers in a few lines works everywhere: in indexes, stacks, cubes, training samples and processors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest
from chip_making import write_band, write_item

import xchip
from xchip import sensors
from xchip.export.cube_stats import cube_stats
from xchip.processors.choosers import listed_assets
from xchip.processors.pipeline import process
from xchip.processors.recipe import Recipe, Unit
from xchip.quality import CLOUD, NODATA, values
from xchip.sensors import BandSpec, SensorProfile

DRONE = SensorProfile(
    "drone",
    bands=(
        BandSpec("nir", ("photo",), resolution=2, wavelength=0.84, index=2),
        BandSpec("red", ("photo",), resolution=2, wavelength=0.65, index=1),
        BandSpec("mask", dtype="uint8"),
    ),
    quality=(values("mask", {NODATA: [0], CLOUD: [2]}, source="flight manual"),),
    collections=("flights",),
)
PHOTO = np.random.default_rng(0).integers(1, 255, (2, 128, 192), dtype=np.uint8)
MASK = np.ones((1, 128, 192), np.uint8)
MASK[0, :64, :64] = 2
MASK[0, 64:, 128:] = 0


@pytest.fixture
def item(tmp_path: Path) -> Iterator[Path]:
    for name, pixels in (("photo", PHOTO), ("mask", MASK)):
        write_band(tmp_path / f"{name}.tif", pixels, 2, origin=(300000.0, 4000000.0), crs="EPSG:32619", block=64)
    assets = {name: {"href": f"./{name}.tif", "roles": ["data"]} for name in ("photo", "mask")}
    sensors.register(DRONE)
    yield write_item(tmp_path, "flight-1", "flights", {"proj:code": "EPSG:32619"}, assets)
    sensors.unregister("drone")


def test_index_and_stack(item: Path) -> None:
    rows = xchip.index_items(item, 64).compute()
    assert set(rows["sensor"]) == {"drone"}
    assert rows["cloud_fraction"].tolist()[:5] == [1, 0, 0, 0, 0]
    assert rows["nodata_fraction"].tolist() == [0, 0, 0, 0, 0, 1]
    stack = xchip.stack(item)
    assert (list(stack), stack.attrs["sensor"]) == (["nir", "red", "mask"], "drone")
    np.testing.assert_array_equal(stack["nir"][0], PHOTO[1])


def test_cubes(item: Path, tmp_path: Path) -> None:
    rows = xchip.index_items(item, 64, max_nodata=0.5).compute()
    report = xchip.prechip(rows, tmp_path / "cubes", progress=False)
    assert report.done == 5
    with np.load(tmp_path / "cubes/drone/cube_0.npz") as cube:
        assert cube["pixels"].shape == (5, 2, 64, 64)
    stats = cube_stats(str(tmp_path / "cubes"), progress=False)["drone"]
    assert (stats.bands, stats.wavelength, stats.chips) == (("nir", "red"), (0.84, 0.65), 5)
    assert stats.to_dict()["gsd"] == 2


def test_training_samples(item: Path) -> None:
    pytest.importorskip("torch")
    dataset = xchip.ChipDataset(xchip.index_items(item, 64).compute())
    sample = dataset[1]
    np.testing.assert_array_equal(sample["pixels"], PHOTO[::-1, :64, 64:128].astype("float32"))
    assert sample["waves"].tolist() == pytest.approx([0.84, 0.65])
    assert float(sample["gsd"]) == 2


def test_training_samples_of_a_profile_that_is_not_registered(item: Path) -> None:
    pytest.importorskip("torch")
    rows = xchip.index_items(item, 64).compute()
    sensors.unregister("drone")
    sample = xchip.ChipDataset(rows, sensor=DRONE)[1]
    assert sample["pixels"].shape == (2, 64, 64)
    assert sample["waves"].tolist() == pytest.approx([0.84, 0.65])
    assert float(sample["gsd"]) == 2
    without_size = replace(DRONE, bands=tuple(replace(band, resolution=None) for band in DRONE.bands))
    with pytest.raises(ValueError, match="ground sample distance of sensor 'drone' is unknown; pass gsd="):
        xchip.ChipDataset(rows, sensor=without_size)
    assert float(xchip.ChipDataset(rows, sensor=without_size, gsd=2)[1]["gsd"]) == 2


def test_processors(item: Path, tmp_path: Path) -> None:
    content = pystac.Item.from_file(item).make_asset_hrefs_absolute().to_dict()
    content["collection"] = "copies"  # a collection that no profile names: the recipe says which sensor it is
    recipe = Recipe(
        "drone",
        "Index flights.",
        units=lambda options: [Unit(0, "flight")],
        choose=lambda unit, catalogue, rng, options: iter([content]),
        assets=lambda item, options: listed_assets(item, sensors.find("drone").staged_bands, sensor="drone"),
        sensor="drone",
    )
    report = process(recipe, tmp_path / "archive", 0, size=64, client=False, progress=False)
    assert (report.done, len(report.failures)) == (1, 0)
    rows = xchip.read_index(tmp_path / "archive")
    assert set(rows["sensor"]) == {"drone"}
    assert rows["cloud_fraction"].tolist() == [1, 0, 0, 0, 0]
    assert list(xchip.open_chips(rows)) == ["nir", "red", "mask"]
