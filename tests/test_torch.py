"""PyTorch datasets: each chip once however work is split, the same order again, and samples as models take them."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from chip_making import write_aerial, write_landsat, write_sentinel

import xchip
from xchip.chips.open_chips import open_chips
from xchip.chips.train.band_stats import band_stats
from xchip.chips.train.batches import batches
from xchip.chips.train.stats_values import BandStats
from xchip.chips.train.torch_data import ChipDataset, IterableChipDataset, clay_batch
from xchip.sensors.clay import encodings

BANDS = ["nir", "red"]


def test_without_pytorch_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from xchip.chips.train.torch_data import ChipDataset, IterableChipDataset, clay_batch\n"
        "for make in (ChipDataset, IterableChipDataset, clay_batch):\n"
        "    try: make([])\n"
        "    except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["datasets for PyTorch need PyTorch: pip install 'xchip[torch]'"] * 3


torch = pytest.importorskip("torch", reason="the extra torch is not installed")
from torch.utils.data import DataLoader  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch's own threads do nothing here but slow down others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torch")


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    """Chips of two Sentinel-2 scenes, in random order."""
    rows = xchip.index_items(write_sentinel(folder), 128).compute()
    return rows.sample(len(rows), random_state=1).reset_index(drop=True)


@pytest.fixture(scope="module")
def mixed(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """And of two other sensors."""
    others = [xchip.index_items(item, 128).compute() for item in (write_landsat(folder), write_aerial(folder))]
    return pd.concat([rows, *others], ignore_index=True)


@pytest.fixture(scope="module")
def chips(rows: pd.DataFrame) -> xr.Dataset:
    return open_chips(rows, BANDS).compute()


@pytest.fixture(scope="module")
def stats(rows: pd.DataFrame) -> BandStats:
    return band_stats(rows, BANDS)


def plain(chips: xr.Dataset) -> np.ndarray:
    """(chip, band, y, x)."""
    return np.stack([chips[name].values for name in BANDS], axis=1)


def collated(loader: Any) -> list[str]:
    """Ids of the chips that a loader gives, in its order."""
    return [chip_id for batch in loader for chip_id in batch["chip_id"]]


def first_id(sample: dict[str, Any]) -> str:
    """A transform that any process can import."""
    return str(sample["chip_id"])


# Samples


def test_a_sample_is_what_clay_takes(rows: pd.DataFrame, chips: xr.Dataset) -> None:
    dataset = ChipDataset(rows, BANDS)
    assert len(dataset) == len(rows)
    assert dataset.bands == tuple(BANDS)
    expected = encodings({name: values.values for name, values in chips.coords.items()})
    for chip in (0, 7, len(rows) - 1):
        sample = dataset[chip]
        assert set(sample) == {"pixels", "time", "latlon", "waves", "gsd", "chip_id"}
        assert {value.dtype for name, value in sample.items() if name != "chip_id"} == {torch.float32}
        np.testing.assert_array_equal(sample["pixels"].numpy(), plain(chips)[chip])
        assert sample["time"].tolist() == [*expected["week_norm"][chip].tolist(), *expected["hour_norm"][chip].tolist()]
        assert sample["latlon"].tolist() == [*expected["lat_norm"][chip].tolist(), *expected["lon_norm"][chip].tolist()]
        assert sample["waves"].tolist() == np.array([0.842, 0.665], np.float32).tolist()
        assert (sample["gsd"].shape, sample["gsd"].item()) == ((), 10)
        assert sample["chip_id"] == rows["chip_id"][chip]
    assert dataset[-1]["chip_id"] == rows["chip_id"].iloc[-1]
    with pytest.raises(IndexError, match=rf"chips of the dataset are numbered from 0 to {len(rows) - 1}, got \[{len(rows)}\]"):
        dataset[len(rows)]


def test_or_has_the_keys_of_torchgeo(rows: pd.DataFrame, chips: xr.Dataset) -> None:
    sample = ChipDataset(rows, BANDS, keys="torchgeo")[3]
    assert set(sample) == {"image", "bounds", "transform", "crs", "chip_id"}
    row = rows.iloc[3]
    np.testing.assert_array_equal(sample["image"].numpy(), plain(chips)[3])
    x, y, t = sample["bounds"].reshape(3, 3).tolist()
    assert (x, y) == ([row.proj_left, row.proj_right, 10], [row.proj_bottom, row.proj_top, 10])
    assert t == [row.datetime.timestamp(), row.datetime.timestamp(), 1]
    assert sample["transform"].tolist() == [10, 0, row.proj_left, 0, -10, row.proj_top, 0, 0, 1]
    assert sample["crs"] == row.proj_code


def test_places_of_padded_chips_are_their_own(folder: Path) -> None:
    rows = xchip.index_items(write_aerial(folder, "aerial-2"), 100, edge="partial").compute()
    dataset = ChipDataset(rows, ["red"], keys="torchgeo", pad=True)
    for sample in (dataset[chip] for chip in range(len(rows))):
        assert sample["image"].shape == (1, 100, 100)
        assert sample["transform"].tolist()[:2] == [1, 0]


def test_the_default_bands_are_those_to_train_on(mixed: pd.DataFrame) -> None:
    for sensor, bands in (("naip", ("red", "green", "blue", "nir")), ("sentinel-2-l2a", ("blue", "green", "red", "nir"))):
        own = mixed[mixed["sensor"] == sensor]
        assert ChipDataset(own).bands == bands
        assert IterableChipDataset(own).bands == bands


def test_sensors_side_by_side_have_their_own_wavelengths(mixed: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"chips of several sensors, \[.*'naip'.*\], whose bands differ; name the bands"):
        ChipDataset(mixed)
    dataset = ChipDataset(mixed, ["red", "nir"], stats=band_stats(mixed, ["red", "nir"], skip_nodata=True))
    waves = {"naip": [0.65, 0.842], "landsat-c2-l2": [0.65, 0.86], "sentinel-2-l2a": [0.665, 0.842]}
    gsd = {"naip": 1, "landsat-c2-l2": 30, "sentinel-2-l2a": 10}
    for chip, sensor in enumerate(mixed["sensor"]):
        sample = dataset[chip]
        assert sample["waves"].tolist() == np.array(waves[sensor], np.float32).tolist()
        assert sample["gsd"] == gsd[sensor]
        assert abs(sample["pixels"]).max() < 20, "each is normalised by its own sensor's statistics"
    with pytest.raises(ValueError, match="differ in wavelengths or gsd, but Clay takes one sensor per batch"):
        clay_batch([dataset[0], dataset[len(mixed) - 1]])
    with pytest.raises(ValueError, match=r"chips of several sensors, .*, but Clay takes one sensor per batch"):
        IterableChipDataset(mixed, ["red", "nir"], batch_size=8)
    assert set(next(iter(IterableChipDataset(mixed, ["red", "nir"], batch_size=8, keys="torchgeo")))) >= {"image", "crs"}


def test_normalised_pixels(rows: pd.DataFrame, chips: xr.Dataset, stats: BandStats) -> None:
    own = stats["sentinel-2-l2a"]
    mean, std = (np.array(values).reshape(2, 1, 1) for values in (own.mean, own.std))
    sample = ChipDataset(rows, BANDS, stats=BandStats.from_json(stats.to_json()))[5]
    np.testing.assert_allclose(sample["pixels"].numpy(), (plain(chips)[5] - mean) / std, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"stats= has no bands \['blue'\] of sensor 'sentinel-2-l2a', only \['nir', 'red'\]"):
        ChipDataset(rows, ["blue"], stats=stats)
    with pytest.raises(ValueError, match="normalised pixels are fractions"):
        ChipDataset(rows, BANDS, stats=stats, dtype="int32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_data_types(rows: pd.DataFrame, chips: xr.Dataset, dtype: str) -> None:
    pixels = ChipDataset(rows, BANDS, dtype=dtype)[0]["pixels"]
    expected = torch.from_numpy(plain(chips)[0].astype(np.float32)).to(getattr(torch, dtype))
    assert pixels.dtype == expected.dtype
    assert torch.equal(pixels, expected)
    assert ChipDataset(rows, BANDS, dtype=getattr(torch, dtype))[0]["pixels"].dtype == expected.dtype


def test_bands_of_several_data_types(rows: pd.DataFrame) -> None:
    names = ["scl", "red"]
    expected = open_chips(rows, names).compute()
    for sample in (ChipDataset(rows, names, waves={"scl": 0})[0], next(iter(ChipDataset(rows, names, keys="torchgeo")))):
        pixels = sample["pixels" if "pixels" in sample else "image"].numpy()
        np.testing.assert_array_equal(pixels, np.stack([expected[name].values[0] for name in names]))


def test_harmonized_pixels(rows: pd.DataFrame, chips: xr.Dataset) -> None:
    expected = open_chips(rows, BANDS, harmonize=-1000).isel(chip=2).compute()
    sample = ChipDataset(rows, BANDS, harmonize=-1000)[2]
    np.testing.assert_array_equal(sample["pixels"].numpy(), np.stack([expected[name].values for name in BANDS]))
    assert (sample["pixels"].numpy() < plain(chips)[2]).any()


def test_what_is_refused(rows: pd.DataFrame, folder: Path) -> None:
    with pytest.raises(ValueError, match="keys must be 'clay' or 'torchgeo', got 'other'"):
        ChipDataset(rows, BANDS, keys="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dtype must be a data type of PyTorch or its name, such as 'float32', got 'float31'"):
        ChipDataset(rows, BANDS, dtype="float31")
    with pytest.raises(ValueError, match=r"band 'nir' is uint16, and torch\.int16 can't hold all its values"):
        ChipDataset(rows, BANDS, dtype="int16")
    with pytest.raises(ValueError, match=r"wavelengths of bands \['scl'\] of sensor 'sentinel-2-l2a' are unknown"):
        ChipDataset(rows, ["red", "scl"])
    with pytest.raises(ValueError, match="batch_size is a whole number from 1 on, got 0"):
        IterableChipDataset(rows, BANDS, batch_size=0)
    with pytest.raises(ValueError, match="pass both rank and world_size, or neither, got 1 and None"):
        IterableChipDataset(rows, BANDS, batch_size=4, rank=1)
    item = json.loads(write_aerial(folder, "drone-1").read_text())
    path = folder / "drone-1.json"
    path.write_text(json.dumps({**item, "collection": "drone"}))
    drone = xchip.index_items(path, 128).compute()
    waves = {"image_red": 0.6, "image_green": 0.5, "image_blue": 0.4, "image_nir": 0.8}
    with pytest.raises(ValueError, match="ground sample distance of sensor None is unknown; pass gsd="):
        ChipDataset(drone, waves=waves)
    sample = ChipDataset(drone, waves=waves, gsd=0.1)[0]
    assert sample["waves"].tolist() == np.array(list(waves.values()), np.float32).tolist()
    assert sample["gsd"] == np.float32(0.1)


# Map-style, in a DataLoader


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_two_workers_give_each_chip_once(rows: pd.DataFrame, chips: xr.Dataset, context: str) -> None:
    dataset = ChipDataset(rows, BANDS)
    warm = dataset[0]  # files are open and blocks are kept when workers are forked
    loader = DataLoader(
        dataset, batch_size=7, shuffle=True, num_workers=2, multiprocessing_context=context, collate_fn=clay_batch,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    order = []
    for batch in loader:
        at = [rows.index[rows["chip_id"] == chip_id][0] for chip_id in batch["chip_id"]]
        np.testing.assert_array_equal(batch["pixels"].numpy(), plain(chips)[at])
        assert batch["time"].shape == batch["latlon"].shape == (len(at), 4)
        assert (batch["waves"].shape, batch["gsd"].shape) == ((2,), ())
        order += at
    assert sorted(order) == list(range(len(rows))) != order
    assert torch.equal(dataset[0]["pixels"], warm["pixels"])


def test_it_pickles(rows: pd.DataFrame, stats: BandStats) -> None:
    dataset = ChipDataset(rows, BANDS, stats=stats, transform=first_id)
    assert pickle.loads(pickle.dumps(dataset))[4] == dataset[4] == rows["chip_id"][4]
    iterable = IterableChipDataset(rows, BANDS, batch_size=4, seed=5)
    iterable.set_epoch(2)
    assert collated(pickle.loads(pickle.dumps(iterable))) == collated(iterable)


def test_chips_asked_for_at_once_are_the_same(rows: pd.DataFrame) -> None:
    dataset = ChipDataset(rows, BANDS)
    together = dataset.__getitems__([5, 0, 5, 2])
    for sample, chip in zip(together, (5, 0, 5, 2), strict=True):
        assert torch.equal(sample["pixels"], dataset[chip]["pixels"])


# Iterable, in a DataLoader


def test_batches_are_those_of_batches(rows: pd.DataFrame) -> None:
    expected = list(batches(rows, BANDS, batch_size=6, seed=4))
    found = list(DataLoader(IterableChipDataset(rows, BANDS, batch_size=6, seed=4), batch_size=None))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["pixels"].numpy(), plain(other))
        assert one["chip_id"] == other["chip_id"].values.tolist()
        assert one["time"].shape == (other.sizes["chip"], 4)
        assert (one["waves"].shape, one["gsd"].shape) == ((2,), ())
    assert next(iter(IterableChipDataset(rows, BANDS, batch_size=6, transform=len))) == 6, "a batch has six keys"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_ranks_share_an_epoch(rows: pd.DataFrame, workers: int) -> None:
    found = []
    for rank in (0, 1):
        dataset = IterableChipDataset(rows, BANDS, batch_size=3, rank=rank, world_size=2)
        found += collated(DataLoader(dataset, batch_size=None, num_workers=workers, multiprocessing_context="fork"))
    assert sorted(found) == sorted(rows["chip_id"])


def test_spawned_workers_give_what_forked_ones_do(rows: pd.DataFrame) -> None:
    dataset = IterableChipDataset(rows, BANDS, batch_size=3, seed=8)
    dataset.set_epoch(1)
    forked, spawned = (
        collated(DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=context))
        for context in ("fork", "spawn")
    )
    assert forked == spawned
    assert sorted(spawned) == sorted(rows["chip_id"])


def test_epochs_differ_and_come_again(rows: pd.DataFrame) -> None:
    dataset = IterableChipDataset(rows, BANDS, batch_size=4, seed=1, buffer=16)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append(collated(loader))
        assert sorted(orders[-1]) == sorted(rows["chip_id"])
    assert orders[0] == orders[2] != orders[1]
    other = IterableChipDataset(rows, BANDS, batch_size=4, seed=2, buffer=16)
    assert collated(DataLoader(other, batch_size=None, num_workers=2)) != orders[0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))], ids=["copy", "pickle"])
def test_workers_that_persist_see_the_epoch_of_a_copy(rows: pd.DataFrame, copied: Any) -> None:
    original = IterableChipDataset(rows, BANDS, batch_size=4, seed=1, buffer=16)
    dataset = copied(original)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    orders = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        orders.append(collated(loader))
    assert orders[0] != orders[1]
    for epoch, order in enumerate(orders):
        original.set_epoch(epoch)
        assert collated(DataLoader(original, batch_size=None, num_workers=2, multiprocessing_context="fork")) == order


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_an_interrupted_epoch_goes_on_with_what_was_left(rows: pd.DataFrame, workers: int) -> None:
    def loader() -> tuple[IterableChipDataset, Any]:
        dataset = IterableChipDataset(rows, BANDS, batch_size=4, seed=6)
        return dataset, DataLoader(
            dataset, batch_size=None, num_workers=workers, multiprocessing_context="fork" if workers else None
        )

    whole, all_batches = loader()
    whole.set_epoch(3)
    order = [batch["chip_id"] for batch in all_batches]
    for stop in (1, len(order) // 2, len(order) - 1, len(order)):
        state = json.loads(json.dumps(whole.state(stop, workers=workers)))
        again, rest = loader()
        again.resume(state)
        assert [batch["chip_id"] for batch in rest] == order[stop:]
    again.set_epoch(4)
    assert sorted(collated(rest)) == sorted(rows["chip_id"]), "the next epoch is whole"


def test_states_of_numpys_numbers_are_plain(rows: pd.DataFrame) -> None:
    dataset = IterableChipDataset(rows, BANDS, batch_size=np.int64(4), seed=np.int64(1))  # type: ignore[arg-type]
    assert json.loads(json.dumps(dataset.state(2))) == IterableChipDataset(rows, BANDS, batch_size=4, seed=1).state(2)


def test_states_of_others_are_refused(rows: pd.DataFrame) -> None:
    state = IterableChipDataset(rows, BANDS, batch_size=4, seed=1).state(2, workers=2)
    with pytest.raises(ValueError, match=r"it has \{'seed': 1\}, not \{'seed': 2\}; make the dataset with the same arguments"):
        IterableChipDataset(rows, BANDS, batch_size=4, seed=2).resume(state)
    with pytest.raises(ValueError, match=r"it has \{'index': '[0-9a-f]{16}'\}, not \{'index': '[0-9a-f]{16}'\}; make"):
        IterableChipDataset(rows.iloc[::-1], BANDS, batch_size=4, seed=1).resume(state)
    dataset = IterableChipDataset(rows, BANDS, batch_size=4, seed=1)
    with pytest.raises(ValueError, match="the state has 99 finished batches, but an epoch has"):
        dataset.resume({**state, "batches": 99})
    dataset.resume(state)
    with pytest.raises(ValueError, match="a DataLoader with 2 workers, this DataLoader has 1"):
        next(iter(dataset))


def test_dropping_the_last_gives_ranks_as_many_batches(rows: pd.DataFrame) -> None:
    numbers = {
        len(list(IterableChipDataset(rows, BANDS, batch_size=3, rank=rank, world_size=3, drop_last=True))) for rank in range(3)
    }
    assert numbers == {len(rows) // 3 // 3}


def test_ranks_are_those_of_torch_distributed(rows: pd.DataFrame, tmp_path: Path) -> None:
    import torch.distributed as distributed

    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert IterableChipDataset(rows, BANDS, batch_size=4).state(0)["world_size"] == 1
        assert sorted(collated(IterableChipDataset(rows, BANDS, batch_size=4))) == sorted(rows["chip_id"])
    finally:
        distributed.destroy_process_group()


def test_a_file_that_is_gone_is_named_in_the_process_of_the_loop(tmp_path: Path) -> None:
    rows = xchip.index_items(write_aerial(tmp_path, "aerial-9"), 64).compute()
    dataset = IterableChipDataset(rows, ["red"], batch_size=4)
    (tmp_path / "aerial-9.tif").unlink()
    with pytest.raises(xchip.ItemError, match="item 'aerial-9': asset 'image'"):
        list(dataset)
    # PyTorch makes the error anew from its message, so its class is another where it takes more than that.
    with pytest.raises(Exception, match="item 'aerial-9': asset 'image'"):
        list(DataLoader(dataset, batch_size=None, num_workers=2))
