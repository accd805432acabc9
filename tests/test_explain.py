"""What a job will take, said before it runs, against what it then takes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from item_making import make_item
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from servers import RangeServer

import xchip
from xchip.core.grid import ChipGrid
from xchip.core.scene import ItemError
from xchip.indexing.explain.cost import FileRead, file_reads, range_requests, strip_buffers
from xchip.indexing.explain.explanation import BASE_BYTES, MAX_PROBLEMS, Explanation, Figure, Group, Tally, joined
from xchip.indexing.explain.items import explain_items
from xchip.quality import NODATA, NodataRule, values
from xchip.raster.header import read_header
from xchip.raster.reader import strips
from xchip.sensors import find
from xchip.stac.scene.understand import plain_items, understand
from xchip.testing import raise_if_dask_computes, synthetic_stack, write_scene

SCENES = ("s2_29RKH", "s2_S2A_33TWL_20230815", "s2_S2B_33TWM_20230810", "landsat_008059", "landsat_001062")
RASTERS = (
    "colorado_hro_mask.tif",
    "colorado_hro_nodata.tif",
    "copdem30_N00E006.tif",
    "hls_10band_224.tif",
    "landsat_LST_crop.tif",
    "modis_MYD13A1/MYD13A1.A2020153.h30v10_NDVI_B01.TIF",
    "naip_m_4112001_sw_10.tif",
    "rgbn_5m_haiti.tif",
)


def stored_ratio(sensor: str) -> tuple[float, str]:
    ratio = find(sensor).stored_ratio
    assert ratio is not None
    return ratio


def wrapped(href: str, **asset: Any) -> dict[str, Any]:
    """An item around one file."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "wrapped",
        "geometry": None,
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "links": [],
        "assets": {"data": {"href": href, **asset}},
    }


def blobs(shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Classes in patches of 8 x 8 pixels, which compress about as well as real ones."""
    codes = np.random.default_rng(0).integers(0, 12, (shape[0] // 8 + 1, shape[1] // 8 + 1))
    return codes.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]].astype(dtype)


def write_cog(path: Path, shape: tuple[int, int], dtype: str, block: int) -> None:
    transform = Affine(20, 0, 500_000, 0, -20, 6_400_000)
    options = {"height": shape[0], "width": shape[1], "dtype": dtype, "crs": "EPSG:32719", "transform": transform}
    with rasterio.open(
        path, "w", driver="COG", count=1, blocksize=block, compress="DEFLATE", overview_resampling="NEAREST", **options
    ) as file:
        file.write(blobs(shape, dtype), 1)


RULE = values("data", {NODATA: [0]}, source="test")


# Items ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"size": 128}, {"size": (100, 75), "stride": 61, "edge": "pad"}, {"size": 90, "anchor": "crs"}]
)
@pytest.mark.parametrize("name", SCENES)
def test_chips_and_pixels_of_real_scenes(real_data: Path, name: str, options: dict[str, Any]) -> None:
    path = real_data / "rasters" / name / "item.json"
    job = explain_items(path, header=True, **options)
    assert (job.chips.value, job.chips.basis) == (len(xchip.index_items(path, **options).compute()), "exact")
    (item, href), *_ = plain_items(path)
    (band,) = understand(item, href=href, header=read_header).quality
    assert (job.pixel_bytes.value, job.pixel_bytes.basis) == (sum(part.nbytes for _, part in strips(band)), "exact")
    assert (job.stored_bytes.value, job.stored_bytes.basis) == (Path(band.href).stat().st_size, "at most")
    assert (job.requests.value, job.requests.basis) == (0, "exact")


@pytest.mark.parametrize("name", RASTERS)
def test_chips_of_files_that_have_to_be_opened(find_raster: Callable[[str], Path], name: str) -> None:
    item = wrapped(str(find_raster(name)))
    closed, opened = explain_items(item, 64), explain_items(item, 64, header=True)
    assert (closed.unread.value, closed.chips.value, closed.chips.basis) == (1, 0, "at least")
    assert "without 1 item of unknown grid" in closed.chips.why
    assert opened.unread is None
    assert (opened.chips.value, opened.chips.basis) == (len(xchip.index_items(item, 64).compute()), "exact")


def test_every_published_item(real_data: Path) -> None:
    paths = sorted((real_data / "items").iterdir())
    job = explain_items(paths)
    chips, items = 0, 0
    for item, href in plain_items(paths):
        items += 1
        try:
            chips += len(ChipGrid(understand(item, href=href).grid, 256))
        except ItemError:
            continue
    assert (job.items.value, job.chips.value) == (items, chips)
    assert job.refused.value == len(job.problems) == 3
    assert sum(group.items for group in job.groups) == items - 3
    assert sum(group.chips for group in job.groups) == chips
    assert sum(group.unread for group in job.groups) == job.unread.value
    assert job.tasks.value == items - 3
    assert 0 < job.stored_bytes.value < job.pixel_bytes.value
    assert job.requests.value > 0
    json.dumps(job.to_dict(), allow_nan=False)
    ET.fromstring(job._repr_html_())


def test_tasks_are_the_keys_of_the_graph(tmp_path: Path) -> None:
    paths = [write_scene(tmp_path, item_id=f"synthetic-{n}", seed=n, shape=(256, 256)) for n in range(3)]
    for number in (1, 3):
        job = explain_items(paths[:number])
        assert job.tasks == Figure(number, "exact", "one for each item that can be used")
        assert len(xchip.index_items(paths[:number]).optimize().__dask_graph__()) == number


def test_bad_items_are_counted_and_do_not_stop_it() -> None:
    good = make_item({"red": {"href": "/nowhere/red.tif", "type": "image/tiff", "raster:bands": [{"data_type": "uint16"}]}})
    bad = [{**good, "id": f"bad-{n}", "assets": {}} for n in range(MAX_PROBLEMS + 2)]
    no_item = {"type": "Collection", "id": "c"}
    job = explain_items([bad[0], good, no_item, *bad[1:]], size=50)
    assert (job.items.value, job.refused.value, job.tasks.value) == (len(bad) + 2, len(bad) + 1, 1)
    assert (job.chips.value, job.chips.basis) == (8, "exact")
    assert len(job.problems) == MAX_PROBLEMS
    assert job.problems[0].startswith("item 'bad-0': ")
    assert "STAC Collection ('c')" in job.problems[1]
    assert "and 3 more" in str(job)
    assert any("index_items stops at the first" in note for note in job.notes)


def test_only_bad_items() -> None:
    job = explain_items([{**make_item({}), "id": "bad"}])
    assert (job.chips, job.tasks.value) == (Figure(0, "exact", "no item's grid is known"), 0)
    assert job.memory_bytes.value == BASE_BYTES


def test_options_are_checked_before_items() -> None:
    item = make_item({})
    for options, message in (
        ({"sensor": "sputnik"}, "sputnik"),
        ({"size": 0}, "at least 1 pixel"),
        ({"edge": "melt"}, "edge must be one of"),
        ({"max_cloud": 2}, "max_cloud is a fraction"),
        ({"threads": 0}, "threads is at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            explain_items(item, **options)
    with pytest.raises(ValueError, match="no items"):
        explain_items([])
    with pytest.raises(ValueError, match="not a ChipGrid"):
        explain_items(item, ChipGrid(synthetic_stack(shape=(64, 64)).chips.grid(8).pixels, 8))


def test_a_product_without_nodata_is_not_read(real_data: Path) -> None:
    job = explain_items(wrapped(str(real_data / "rasters" / "naip_m_4112001_sw_10.tif")), 64, header=True)
    assert [figure.value for figure in (job.pixel_bytes, job.stored_bytes, job.requests)] == [0, 0, 0]
    assert {figure.basis for figure in (job.pixel_bytes, job.stored_bytes, job.requests)} == {"exact"}


def test_a_scene_without_chips_is_not_read(tmp_path: Path) -> None:
    job = explain_items(write_scene(tmp_path, shape=(128, 128)), 256)
    assert (job.chips.value, job.pixel_bytes.value, job.requests.value) == (0, 0, 0)
    assert any("too small for a chip: 1 item" in note for note in job.notes)


def test_several_data_bands_are_a_bound(tmp_path: Path) -> None:
    path = write_scene(tmp_path, shape=(256, 256))
    item = json.loads(path.read_text())
    item["collection"] = "unknown"
    item["properties"].pop("constellation")
    item["assets"] = {name: item["assets"][name] for name in ("red", "nir")}
    for asset in item["assets"].values():
        asset["href"] = str(path.parent / asset["href"])
    job = explain_items(item, 64)
    assert (job.pixel_bytes.value, job.pixel_bytes.basis) == (2 * 256 * 256 * 2, "at most")
    assert job.stored_bytes.value == sum(Path(asset["href"]).stat().st_size for asset in item["assets"].values())


def test_where_stored_bytes_come_from(tmp_path: Path) -> None:
    path = write_scene(tmp_path, shape=(256, 256))
    item = json.loads(path.read_text())
    scl = item["assets"]["scl"]
    scl["href"] = "s3://bucket/SCL.tif"
    pixels = 128 * 128
    ratio, source = stored_ratio("sentinel-2-l2a")
    assert explain_items(item).stored_bytes == Figure(round(pixels * ratio), "estimate", source)
    scl["file:size"] = 12_345
    published = explain_items(item).stored_bytes
    assert (published.value, published.basis) == (12_345, "at most")
    assert "file:size" in published.why
    for wrong in (True, "12", -1, None):
        scl["file:size"] = wrong
        assert explain_items(item).stored_bytes.basis == "estimate"
    unknown = wrapped("s3://bucket/data.tif", **{"type": "image/tiff", "proj:shape": [128, 128], "data_type": "uint8"})
    unknown["assets"]["data"] |= {"proj:code": "EPSG:32719", "proj:transform": [20, 0, 5e5, 0, -20, 6.4e6]}
    found = explain_items(unknown, 64, quality=RULE).stored_bytes
    assert (found.value, found.basis) == (pixels, "at most")
    assert "uncompressed" in found.why


def test_ratios_of_stored_bytes_are_those_of_the_real_files(real_data: Path) -> None:
    published = []
    for path in sorted((real_data / "items").glob("*s2*")) + sorted((real_data / "items").glob("*sentinel-2*")):
        published += _published_ratios(path)
    published += _published_ratios(real_data / "items" / "earthsearch-c1__rustac-10-items.json")
    assert len(published) == 13
    assert stored_ratio("sentinel-2-l2a")[0] == pytest.approx(np.mean(published), rel=0.15)
    deflated = []
    for path in sorted((real_data / "rasters").glob("landsat_0*/*QA_PIXEL.TIF")):
        words = rasterio.open(path).read(1)
        with MemoryFile() as memory:
            layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "DEFLATE"}
            transform = Affine(30, 0, 0, 0, -30, 0)
            with memory.open(
                driver="GTiff",
                count=1,
                height=words.shape[0],
                width=words.shape[1],
                dtype="uint16",
                transform=transform,
                **layout,
            ) as file:
                file.write(words, 1)
            deflated.append(len(memory.read()) / words.nbytes)
    assert stored_ratio("landsat-c2-l2")[0] == pytest.approx(np.mean(deflated), rel=0.1)


def _published_ratios(path: Path) -> Iterator[float]:
    for item, href in plain_items(path):
        try:
            scene = understand(item, href=href)
        except ItemError:
            continue
        size = item["assets"][scene.quality[0].asset].get("file:size")
        if scene.sensor == "sentinel-2-l2a" and size:
            yield size / np.prod(scene.quality[0].grid.shape)


def test_memory_does_not_grow_with_the_items() -> None:
    def many(number: int) -> Iterator[dict[str, Any]]:
        asset = {"href": "s3://b/red.tif", "type": "image/tiff", "raster:bands": [{"data_type": "uint16", "nodata": 0}]}
        for n in range(number):
            yield {**make_item({"red": asset}), "id": f"item-{n}", "collection": f"collection-{n}"}

    explain_items(many(150), 50)  # fills the caches
    peaks = []
    for number in (150, 600):
        tracemalloc.start()
        job = explain_items(many(number), 50)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (job.items.value, job.chips.value) == (number, 8 * number)
        assert sum(group.items for group in job.groups) == number
    assert peaks[1] < peaks[0] + 100_000


# Requests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "block"), [((5490, 5490), "uint8", 512), ((4000, 4200), "uint16", 256), ((700, 900), "uint8", 512)]
)
def test_requests_are_about_those_that_a_server_gets(tmp_path: Path, shape: tuple[int, int], dtype: str, block: int) -> None:
    path = tmp_path / "data.tif"
    write_cog(path, shape, dtype, block)
    header = read_header(str(path))
    with RangeServer(tmp_path) as server:
        fields = {"proj:code": "EPSG:32719", "proj:shape": shape, "proj:transform": header.grid.transform, "data_type": dtype}
        item = wrapped(f"{server.url}/data.tif", type="image/tiff", **fields, **{"file:size": path.stat().st_size})
        job = explain_items(item, quality=RULE)
        assert not server.requests
        with_header = explain_items(item, quality=RULE, header=True)
        server.requests.clear()
        server.sent = 0
        xchip.index_items(item, quality=RULE).compute()
    asked = len(server.requests)
    for figure in (job.requests, with_header.requests):
        assert figure.basis == "estimate"
        assert asked / 1.5 - 1 <= figure.value <= asked * 1.5 + 1
    assert server.sent <= job.stored_bytes.value + 16_384  # ranges are whole pieces of 16 kB


def signed(href: str) -> str:
    return f"{href}?sig=1"


def test_headers_behind_a_signature(tmp_path: Path) -> None:
    write_cog(tmp_path / "data.tif", (300, 400), "uint8", 256)
    with RangeServer(tmp_path, query="sig=1") as server:
        item = wrapped(f"{server.url}/data.tif", type="image/tiff")
        refused = explain_items(item, 100, header=True)
        assert refused.refused.value == 1
        assert "data.tif" in refused.problems[0]
        with rasterio.Env(CPL_VSIL_CURL_USE_HEAD="NO"):
            job = explain_items(item, 100, header=True, pixels=xchip.StorageOptions(signer=signed))
    assert (job.chips.value, job.refused) == (12, None)


def test_more_bytes_take_more_requests() -> None:
    counts = [range_requests(stored, 30, 5) for stored in (0, 10_000, 100_000, 10**6, 10**7, 10**8)]
    assert counts == sorted(counts)
    assert counts[0] == 2
    assert counts[-1] >= 10**8 / (2 << 20)


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "dtype", "block"), [((1500, 3000), "uint16", 256), ((3000, 3000), "uint8", 1024)])
def test_strips_are_those_that_are_read(tmp_path: Path, shape: tuple[int, int], dtype: str, block: int) -> None:
    write_cog(tmp_path / "data.tif", shape, dtype, block)
    scene = understand(wrapped(str(tmp_path / "data.tif")), header=read_header)
    read = FileRead(scene.bands[0], 1, np.dtype(dtype).itemsize, native=True)
    parts = list(strips(scene.bands[0]))
    assert (len(parts), parts[0][1].shape[0]) == (read.strips, read.rows)
    array = parts[0][1]
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert strip_buffers(read) == array.nbytes
    per_thread = explain_items(wrapped(str(tmp_path / "data.tif")), quality=RULE, header=True, threads=1).memory_bytes.value
    assert per_thread - BASE_BYTES > strip_buffers(read)


@pytest.mark.once
def test_memory_is_about_what_a_process_takes(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process's memory is read from /proc, which this system lacks")
    write_cog(tmp_path / "tiny.tif", (256, 256), "uint16", 256)
    write_cog(tmp_path / "wide.tif", (1200, 16_000), "uint16", 512)
    code = (
        "import sys, xchip, dask\n"
        "from xchip.quality import NODATA, values\n"
        "dask.config.set(scheduler='synchronous')\n"
        "def peak():\n"
        "    return 1024 * int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
        "def index(path):\n"
        "    item = {'type': 'Feature', 'id': 'a', 'properties': {'datetime': '2020-01-01T00:00:00Z'},\n"
        "            'assets': {'data': {'href': path, 'type': 'image/tiff'}}}\n"
        "    xchip.index_items(item, quality=values('data', {NODATA: [0]})).compute()\n"
        "index(sys.argv[1])\n"
        "base = peak()\n"
        "index(sys.argv[2])\n"
        "print(base, peak())"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "tiny.tif"), str(tmp_path / "wide.tif")]
    base, peak = map(int, subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())
    model = explain_items(wrapped(str(tmp_path / "wide.tif")), quality=RULE, header=True, threads=1).memory_bytes.value
    assert (peak - base) / 1.5 < model - BASE_BYTES < (peak - base) * 1.5
    assert 0.8 < base / BASE_BYTES < 1.3


def test_memory_of_threads(tmp_path: Path) -> None:
    paths = [write_scene(tmp_path, item_id=f"synthetic-{n}", seed=n, shape=(512, 512)) for n in range(3)]
    one, two, many = (explain_items(paths, threads=n).memory_bytes.value - BASE_BYTES for n in (1, 2, 64))
    assert (two, many) == (2 * one, 3 * one)  # three items keep three threads busy


def test_a_quality_band_off_the_scene_is_an_estimate(tmp_path: Path) -> None:
    path = write_scene(tmp_path, shape=(512, 512))
    item = json.loads(path.read_text())
    item["assets"]["scl"]["proj:transform"][2] += 3
    for asset in item["assets"].values():
        asset["href"] = str(path.parent / asset["href"])
    scene = understand(item)
    (read,) = file_reads(scene, ChipGrid(scene.grid, 256))
    assert not read.native
    job = explain_items(item)
    assert (job.pixel_bytes.value, job.pixel_bytes.basis) == (256 * 256, "estimate")


# Arrays --------------------------------------------------------------------------------------------------------------


class Tasks(Callback):
    """Counts the tasks that run."""

    def __init__(self) -> None:
        self.number = 0
        super().__init__(posttask=self._count)

    def _count(self, *arguments: Any) -> None:
        self.number += 1


class Recorder:
    """Bytes of each block that goes through it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, block: np.ndarray) -> np.ndarray:
        if block.size:
            with self._lock:
                self.sizes.append(block.nbytes)
        return block

    def on(self, ds: xr.Dataset, name: str) -> xr.Dataset:
        return ds.assign(
            {name: ds[name].copy(data=ds[name].data.map_blocks(self, dtype=ds[name].dtype, meta=ds[name].data._meta))}
        )


def computed(index: Any) -> tuple[int, int]:
    """(tasks that ran, rows)."""
    with Tasks() as tasks:
        frames = dask.compute(*index.to_delayed(), scheduler="synchronous")
    return tasks.number, sum(map(len, frames))


def check_array(ds: xr.Dataset, recorder: Recorder, **options: Any) -> Explanation:
    with raise_if_dask_computes():
        job = ds.chips.explain(**options)
    tasks, rows = computed(ds.chips.index(**options))
    assert (job.chips.value, job.chunks.value, job.pixel_bytes.value) == (rows, len(recorder.sizes), sum(recorder.sizes))
    assert {job.chips.basis, job.chunks.basis, job.pixel_bytes.basis, job.tasks.basis} == {"exact"}
    index = ds.chips.index(**options)
    assert job.tasks.value == len(index.optimize().__dask_graph__())
    assert tasks <= job.tasks.value <= tasks + 10  # a graph also holds a few values, which are no work
    return job


@settings(max_examples=12)
@given(
    times=st.integers(1, 3),
    shape=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    chunks=st.tuples(st.integers(1, 3), st.integers(7, 40), st.integers(7, 40)),
    size=st.integers(5, 30),
    edge=st.sampled_from(["drop", "pad", "shift", "partial"]),
)
def test_arrays_of_any_chunks(times: int, shape: tuple[int, int], chunks: tuple[int, ...], size: int, edge: str) -> None:
    recorder = Recorder()
    scl = da.from_array(np.zeros((times, *shape), "uint8"), chunks=chunks)
    check_array(recorder.on(synthetic_stack(scl=scl), "scl"), recorder, size=size, edge=edge)


def test_a_stack_of_items_of_different_extent(tmp_path: Path) -> None:
    west = write_scene(tmp_path, item_id="synthetic-west", shape=(512, 512))
    east = write_scene(tmp_path, item_id="synthetic-east", shape=(256, 768), origin=(499980.0 + 7680, 6400000.0 - 2560))
    recorder = Recorder()
    ds = recorder.on(xchip.stack([west, east], chunks=128), "scl")
    job = check_array(ds, recorder, size=100)
    assert job.items.value == 2
    assert job.chunks.value == 16 + 12  # of 2 x 4 x 12 in the whole stack
    assert any("published at 20 m and repeated to 10 m: 4 times" in note for note in job.notes)


def test_data_bands_in_place_of_a_quality_band() -> None:
    arrays = {name: da.from_array(np.zeros((1, 60, 50), dtype), chunks=(1, 20, 50)) for name, dtype in (("a", "f4"), ("b", "u2"))}
    ds = synthetic_stack(**arrays)
    ds["b"] = ds["b"].rio.write_nodata(0)
    recorder = Recorder()
    recorded = recorder.on(recorder.on(ds, "a"), "b")
    job = check_array(recorded, recorder, size=20)
    assert job.chunks.value == 6
    assert "2 data bands" in job.chunks.why
    only = recorded.chips.explain(20, quality=NodataRule(("b",)))
    assert (only.chunks.value, only.pixel_bytes.value) == (3, 60 * 50 * 2)
    bare = recorded.assign(b=recorded["b"].drop_attrs()).chips.explain(20)
    assert (bare.chunks.value, bare.pixel_bytes.value) == (0, 0)
    assert "without nodata" in bare.chunks.why


def test_quality_as_an_array() -> None:
    ds = synthetic_stack(red=np.zeros((60, 50), "u2"))
    quality = xr.DataArray(
        da.zeros((60, 50), chunks=(30, 25), dtype=bool), dims=("y", "x"), coords={"y": ds.y, "x": ds.x}
    ).rio.write_crs(ds.rio.crs)
    job = ds.chips.explain(20, quality=quality)
    assert (job.chunks.value, job.pixel_bytes.value) == (4, 60 * 50)
    assert job.tasks.value == len(ds.chips.index(20, quality=quality).optimize().__dask_graph__())


def test_an_array_in_memory() -> None:
    ds = synthetic_stack(shape=(600, 700))
    job = ds.chips.explain(128, max_cloud=0.5)
    assert [figure.value for figure in (job.items, job.chips, job.tasks, job.chunks, job.pixel_bytes)] == [1, 20, 0, 0, 0]
    assert "in memory" in job.pixel_bytes.why
    assert (job.stored_bytes, job.requests) == (None, None)
    assert ds["scl"].chips.explain(128).chips == job.chips
    with pytest.raises(ValueError, match="max_cloud"):
        ds.chips.explain(max_cloud=3)


def test_notes_on_chunks() -> None:
    def notes(**chunks: int) -> str:
        ds = synthetic_stack(scl=da.zeros((1, 20_000, 20_000), dtype="uint8", chunks=(1, chunks["y"], chunks["x"])))
        return "\n".join(ds.chips.explain(1000).notes)

    assert "chunks are large, up to 400.0 MB" in notes(y=20_000, x=20_000)
    assert notes(y=2000, x=2000) == ""
    small = synthetic_stack(scl=da.zeros((1, 2000, 2000), dtype="uint8", chunks=(1, 256, 256))).chips.explain(256)
    assert "chunks are small, 65.5 kB each" in "\n".join(small.notes)


def test_larger_chunks_take_more_memory() -> None:
    scl = da.zeros((1, 4000, 4000), dtype="uint8", chunks=(1, 1000, 1000))
    small, large = (synthetic_stack(scl=scl.rechunk((1, n, n))).chips.explain(threads=2).memory_bytes for n in (1000, 4000))
    assert BASE_BYTES < small.value < large.value
    assert (small.basis, large.basis) == ("estimate", "estimate")


# The value -----------------------------------------------------------------------------------------------------------


def test_sums_say_how_far_they_can_be_trusted() -> None:
    tally = Tally()
    assert tally.figure(nothing="none") == Figure(0, "exact", "none")
    tally.add(Figure(3, "exact", "counted"))
    assert tally.figure(nothing="none") == Figure(3, "exact", "counted")
    tally.add(Figure(4, "at most", "a bound"))
    tally.add(Figure(5, "at most", "a bound"))
    assert tally.figure(nothing="none") == Figure(12, "at most", "a bound (2 items); counted (exact, 1 item)")
    assert tally.figure(nothing="none", missing="without 1").basis == "estimate"
    assert joined(["exact", "at least"]) == "at least"
    for number in range(9):
        tally.add(Figure(0, "exact", f"reason {number}"))
    assert tally.figure(nothing="none").why.endswith("and 7 reasons more")


def test_text_and_html() -> None:
    evil = '<script>alert("1")</script>\x1b[2J\n'
    job = Explanation(
        evil,
        items=Figure(2, "exact", evil),
        refused=Figure(9, "exact", "below"),
        memory_bytes=Figure(1_500_000, "estimate", "a model"),
        groups=tuple(Group(f"{evil}{n}", None, 1, 0, 1) for n in range(30)),
        problems=(evil,),
        notes=(evil,),
    )
    text, page = str(job), job._repr_html_()
    assert "\x1b" not in text + page
    assert "~ 1.5 MB  estimate: a model" in text
    assert "1 item, 0 chips, and 1 not known until opened" in text
    assert ("and 8 more" in text, "and 10 more" in text) == (True, True)
    assert len(text.splitlines()) == 1 + 3 + 1 + 21 + 1 + 2 + 1 + 1
    assert "<script" not in page
    cells = [cell.text for row in ET.fromstring(page).iter("tr") for cell in row]
    assert "~ 1.5 MB (estimate: a model)" in cells
    assert job.to_dict()["figures"]["memory_bytes"] == {"value": 1_500_000, "basis": "estimate", "why": "a model"}


def test_seconds_over_a_line() -> None:
    job = Explanation("x", stored_bytes=Figure(3_000_000, "at most", "sizes"))
    assert job.seconds(bandwidth=1e6) == 3
    with pytest.raises(ValueError, match="above 0"):
        job.seconds(0)
    with pytest.raises(ValueError, match="explain its items"):
        Explanation("x").seconds(1e6)
