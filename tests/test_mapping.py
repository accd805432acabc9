"""Functions of chips over a scene: against a plain loop over its chips."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xchip.chips.map import map_chips
from xchip.testing import raise_if_dask_computes, synthetic_stack


def scene(shape: tuple[int, int] = (61, 75), times: int = 2, chunks: Any = None) -> xr.Dataset:
    rng = np.random.default_rng(0)
    bands = {name: rng.integers(1, 9999, (times, *shape)).astype("uint16") for name in ("red", "nir")}
    ds = synthetic_stack(**bands)
    for name in bands:
        ds[name].rio.write_nodata(3, inplace=True)
    return ds if chunks is None else ds.chunk(chunks)


def brightness(chips: np.ndarray) -> np.ndarray:
    """Depends on the whole chip, so that overlapping chips differ: (n, y, x) float64."""
    chips = chips.astype(float)
    return chips[:, 0] - chips[:, 1] + chips.mean(axis=(1, 2, 3))[:, None, None]


def plain_loop(ds: xr.Dataset, grid: Any, weights: np.ndarray, time: int) -> np.ndarray:
    """`brightness` of each chip, blended by weights (y, x)."""
    height, width = grid.pixels.shape
    room = 100
    padded = np.full((2, height + 2 * room, width + 2 * room), 3, "uint16")
    padded[:, room : room + height, room : room + width] = [ds["red"][time], ds["nir"][time]]
    total, sums = np.zeros((2, *padded.shape[1:]))
    for chip in grid:
        rows = slice(room + chip.row_off, room + chip.row_off + chip.height)
        columns = slice(room + chip.col_off, room + chip.col_off + chip.width)
        sums[rows, columns] += weights * brightness(padded[None, :, rows, columns])[0]
        total[rows, columns] += weights
    with np.errstate(invalid="ignore"):
        return (sums / total)[room : room + height, room : room + width]


@given(
    size=st.integers(6, 40),
    stride=st.one_of(st.none(), st.integers(5, 30)),
    rule=st.sampled_from([("pad", "origin"), ("shift", "origin"), ("drop", "origin"), ("pad", "crs"), ("drop", "crs")]),
    taper=st.booleans(),
    chunks=st.sampled_from([None, {"time": 2, "y": 20, "x": 33}, {"y": 61, "x": 8}]),
    batch=st.sampled_from([1, 7, 16]),
)
def test_map_is_the_function_on_each_chip(
    size: int, stride: int | None, rule: tuple[Any, Any], taper: bool, chunks: Any, batch: int
) -> None:
    ds = scene(chunks=chunks)
    edge, anchor = rule
    with raise_if_dask_computes():
        lazy = ds.chips.map(
            brightness, size, stride=stride, edge=edge, anchor=anchor, batch=batch, overlap="taper" if taper else "mean"
        )
    assert lazy.chunks is not None
    assert lazy.dims == ("time", "y", "x")
    loaded = lazy.compute(scheduler="sync")
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    weights = np.outer(window, window) if taper else np.ones((size, size))
    for time in (0, 1):
        want = plain_loop(ds.compute(), ds.chips.grid(size, stride=stride, edge=edge, anchor=anchor), weights, time)
        np.testing.assert_allclose(loaded[time], want, rtol=1e-5, atol=0.01)  # weights are float32, values reach 10,000


def test_the_identity_is_the_source_bit_for_bit() -> None:
    ds = scene(chunks={"y": 20, "x": 33})
    same = ds.chips.map(lambda chips: chips[:, 0], 16)
    assert same.dtype == np.uint16
    np.testing.assert_array_equal(same, ds["red"])
    ds["same"] = same  # the coordinates are the scene's own, to the last bit
    both = ds.chips.map(lambda chips: chips, 16, stride=9, edge="shift", overlap="taper", dim="band")
    assert both.dims == ("time", "band", "y", "x")
    np.testing.assert_array_equal(both[:, 1], ds["nir"])


@pytest.mark.parametrize("edge", ["pad", "drop"])
def test_each_chip_is_computed_once_in_batches(edge: Any) -> None:
    ds = scene((600, 600), times=1, chunks={"y": 128, "x": 128})
    calls: list[int] = []
    lock = threading.Lock()

    def count(chips: np.ndarray) -> np.ndarray:
        with lock:
            calls.append(len(chips))
        return chips[:, 0].astype("float32")

    result = ds.chips.map(count, 32, edge=edge, template=np.zeros((32, 32), "float32"))
    assert not calls, "with a template the function is not called before the computation"
    result.compute()
    assert sum(calls) == len(ds.chips.grid(32, edge=edge))
    assert max(calls) == 16


def test_results_do_not_depend_on_the_chunks() -> None:
    ds = scene((200, 230), times=1)
    options: dict[str, Any] = {"stride": 20, "overlap": "taper"}
    one = ds.chips.map(brightness, 32, **options)
    # Many values a pixel make small chunks.
    template = np.broadcast_to(np.zeros((), "float64"), (300, 32, 32))
    many = ds.chips.map(
        lambda c: np.broadcast_to(brightness(c)[:, None], (len(c), 300, 32, 32)), 32, template=template, **options
    )
    assert many.data.numblocks[-1] > one.data.numblocks[-1] == 1
    part = {"y": slice(30, 90), "x": slice(60, 110)}
    np.testing.assert_array_equal(many.isel(part).data[0, 7], one.isel(part)[0])


def test_classes_coarser_results_vectors_and_numbers() -> None:
    ds = scene((64, 96), times=1, chunks={"y": 20, "x": 33}).isel(time=0)
    coarse = ds.chips.map(lambda chips: chips[:, :, ::4, ::4], 16)
    assert coarse.dims == ("class", "y", "x")
    assert coarse.rio.resolution() == (40, -40)
    np.testing.assert_array_equal(coarse[0], ds["red"][::4, ::4])
    number = ds.chips.map(lambda chips: chips[:, 0].max(axis=(1, 2)), 16)
    assert number.dims == ("y", "x")
    assert number.rio.bounds() == ds.rio.bounds()
    np.testing.assert_array_equal(number, ds["red"].coarsen(y=16, x=16).max())
    vector = ds.chips.map(lambda chips: chips.max(axis=(2, 3)), 16, dim="feature")
    assert vector.dims == ("feature", "y", "x")
    np.testing.assert_array_equal(vector[1], ds["nir"].coarsen(y=16, x=16).max())


def test_the_result_says_when_and_where_it_is() -> None:
    ds = scene()
    result = ds.chips.map(brightness, 16)
    assert result.rio.crs == ds.rio.crs
    assert result.rio.transform() == ds.rio.transform()
    assert result["item_id"].values.tolist() == ds["item_id"].values.tolist()
    np.testing.assert_array_equal(result["time"], ds["time"])
    still = ds.isel(time=0).chips.map(brightness, 16)
    assert still.dims == ("y", "x")
    assert still["item_id"].item() == "synthetic-0"


def test_bands_are_given_in_the_order_that_was_asked_for() -> None:
    ds = scene(times=1)
    ds["scl"] = ds["red"].astype("uint8")
    np.testing.assert_array_equal(ds.chips.map(lambda c: c[:, 0], 16, bands="nir"), ds["nir"])
    np.testing.assert_array_equal(ds.chips.map(lambda c: c[:, 1], 16, bands=["nir", "red"]), ds["red"])
    with pytest.raises(ValueError, match=r"must have one dtype, got \{'red': 'uint16', .*'scl': 'uint8'\}; choose bands"):
        ds.chips.map(brightness, 16)
    array = ds[["red", "nir"]].to_array("band")
    np.testing.assert_array_equal(array.chips.map(lambda c: c[:, 1], 16), ds["nir"])


def test_flipped_arrays_come_out_north_up() -> None:
    ds = scene(times=1)
    result = ds.isel(y=slice(None, None, -1)).chips.map(lambda c: c[:, 0], 16)
    np.testing.assert_array_equal(result, ds["red"])


def test_a_grid_may_stand_for_its_options() -> None:
    ds = scene(times=1)
    grid = ds.chips.grid(16, edge="shift")
    result = ds.chips.map(lambda c: c[:, 0], grid, overlap="first")
    np.testing.assert_array_equal(result, ds["red"])
    with pytest.raises(ValueError, match="size is a ChipGrid, which has its own"):
        ds.chips.map(brightness, grid, edge="pad")


def test_a_margin_without_chips_needs_fill() -> None:
    ds = scene(times=1)
    with pytest.raises(ValueError, match='chips of "the function\'s result" leave pixels uncovered'):
        ds.chips.map(lambda c: c[:, 0], 16, edge="drop")
    filled = ds.chips.map(lambda c: c[:, 0], 16, edge="drop", fill=9)
    assert (filled.values[:, 48:] == 9).all()
    assert filled.rio.nodata == 9


def test_what_can_not_be_mapped() -> None:
    ds = scene(times=1)
    with pytest.raises(ValueError, match="edge='partial' makes chips of several sizes"):
        ds.chips.map(brightness, 16, edge="partial")
    with pytest.raises(ValueError, match=r"the grid has no chips: .* use edge='pad'"):
        ds.chips.map(brightness, 100, edge="drop")
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        ds.chips.map(brightness, 16, batch=0)
    with pytest.raises(ValueError, match=r"must be at least 1, got 2\.5"):
        ds.chips.map(brightness, 16, batch=2.5)
    with pytest.raises(ValueError, match=r"the array has no bands \['swir'\]"):
        ds.chips.map(brightness, 16, bands=["swir"])
    with pytest.raises(ValueError, match=r"must return \(y, x\), \(k, y, x\), \(k,\) or \(\), got shape \(2, 1, 16, 16\)"):
        ds.chips.map(lambda c: c[:, :, None], 16)
    with pytest.raises(ValueError, match=r"got chips of shape \(1, 2, 16, 16\) and returned \(2, 16, 16\)"):
        ds.chips.map(lambda c: c[0], 16)
    with pytest.raises(ValueError, match="neither the grid's 16 nor a whole part of it"):
        ds.chips.map(lambda c: c[:, 0, :5, :5], 16)
    with pytest.raises(ValueError, match=r"returned a masked array.*result\.filled\(numpy\.nan\)"):
        ds.chips.map(lambda c: np.ma.masked_array(c[:, 0], mask=True), 16)
    with pytest.raises(ValueError, match=r"values of type <U5; it must return numbers"):
        ds.chips.map(lambda c: np.full(len(c), "cloud"), 16)
    with pytest.raises(ValueError, match=r"must return at least one value for each chip, got an array of shape \(0, 16, 16\)"):
        ds.chips.map(lambda c: c[:, :0], 16)
    with pytest.raises(ValueError, match=r"must return at least one value for each chip, got an array of shape \(0,\)"):
        ds.chips.map(brightness, 16, template=np.zeros(0))
    late = ds.chips.map(lambda c: c[:, 0] / 2, 16, template=np.zeros((16, 16), "uint8"))
    with pytest.raises(ValueError, match=r"returned float64 \(16, 16, 16\); it must return uint8 \(16, 16, 16\)"):
        late.compute()


# The graph


def test_the_graph_grows_with_tiles_not_with_chips() -> None:
    for size in (8, 64):
        ds = synthetic_stack(red=da.zeros((4096, 4096), chunks=2048, dtype="uint8"))
        result = ds.chips.map(lambda c: c[:, 0], size)
        assert result.data.numblocks == (1, 2, 2)
        # 4 reads, 4 chunks; the function and the weights.
        assert len(result.data.__dask_graph__()) - len(ds["red"].data.__dask_graph__()) == 4 + 4 + 2


def test_a_chunk_needs_only_its_part_of_the_scene() -> None:
    seen: list[tuple[int, ...]] = []

    def make(block_id: tuple[int, ...]) -> np.ndarray:
        seen.append(block_id)
        return np.ones((256, 256), "uint8")

    blocks = da.map_blocks(make, chunks=((256,) * 32, (256,) * 32), dtype="uint8", meta=np.empty((0, 0), "uint8"))
    result = synthetic_stack(red=blocks).chips.map(lambda c: c[:, 0], 256, stride=128, overlap="taper", batch=64)
    assert (result[0, :300, :300].compute(scheduler="sync") == 1).all()
    assert max(max(block) for block in seen) <= 9, "a tile of 2048 pixels, and the chips that reach over it"


def test_a_large_function_is_in_the_graph_once() -> None:
    class Model:
        def __init__(self) -> None:
            self.weights = np.zeros(1000)

        def __call__(self, chips: np.ndarray) -> np.ndarray:
            return chips[:, 0]

    model = Model()
    ds = synthetic_stack(red=da.zeros((4096, 6144), chunks=2048, dtype="uint8"))
    graph = dict(ds.chips.map(model, 256).data.__dask_graph__())
    assert sum("function-" in str(key) for key in graph) == 1


# To disk, in little memory

MEMORY = """
import sys
import numpy as np, dask, dask.array as da, rioxarray
from pathlib import Path
from xchip.testing import synthetic_stack

def peak():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024

def make(block_id):
    return np.full((1024, 1024), sum(block_id) % 7, "uint8")

n, out = int(sys.argv[1]), sys.argv[2]
blocks = da.map_blocks(make, chunks=((1024,) * n, (1024,) * n), dtype="uint8", meta=np.empty((0, 0), "uint8"))
ds = synthetic_stack(red=blocks).isel(time=0)
dask.config.set(scheduler="threads", num_workers=2)
start = peak()
if out.endswith("tif"):
    ds.chips.map(lambda c: c[:, 0], 256).rio.to_raster(out, tiled=True, compress="deflate", zlevel=1, lock=True)
else:
    double = ds.chips.map(lambda c: c[:, 0].astype("float32"), 256, stride=192, overlap="taper")
    double.drop_encoding().to_dataset(name="red").to_zarr(out, consolidated=False)
print(peak() - start)
"""


def peak_of_map(pixels: int, out: Path) -> float:
    """MiB that mapping a scene of ``pixels`` x ``pixels`` and writing it to ``out`` takes at its peak, beyond the start."""
    command = [sys.executable, "-c", MEMORY, str(pixels // 1024), str(out)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    assert peak_of_map(20_480, path) < 200, "the scene has 400 MiB, and so has the result"
    with rioxarray.open_rasterio(path) as read:  # type: ignore[union-attr]
        corner = read[0, 1020:1030, 20_470:20_480].values
    assert (corner[:4] == 19 % 7).all()
    assert (corner[4:] == 20 % 7).all()


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_scene_when_chips_overlap(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    peak = peak_of_map(10_240, tmp_path / "double.zarr")
    assert peak < 300, "the result has 400 MiB, its chips have 711"
    read = xr.open_zarr(tmp_path / "double.zarr", consolidated=False)["red"]
    assert float(read[5000, 5000]) == (5000 // 1024 * 2) % 7


def test_map_over_a_cluster_is_the_same(tmp_path: Path) -> None:
    from distributed import Client

    ds = scene(chunks={"y": 20, "x": 33})
    result = map_chips(ds, brightness, 16, stride=12)
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, local_directory=str(tmp_path)):
        there = result.compute()
    np.testing.assert_array_equal(there, result.compute(scheduler="sync"))
