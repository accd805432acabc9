"""Exports: every chip once, with the pixels that rasterio reads; parts, resuming, failures; each format as its readers see it."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window
from servers import Asked, Fault, RangeServer

import xchip
from xchip.chips.chip_rows import ChipRows, ItemRef
from xchip.chips.chip_table import open_table
from xchip.chips.open_chips import open_chips
from xchip.chips.read_plan import units
from xchip.export.cubes import Cubes
from xchip.export.exports import export_chips, prechip
from xchip.export.geotiffs import GeoTiffs
from xchip.export.job import pools_of
from xchip.export.report import ExportReport
from xchip.export.shards import Shards
from xchip.export.zarr_store import ZarrStore
from xchip.io.store import Store
from xchip.testing import FILES, write_scene

BANDS = ["blue", "red", "nir"]
SCENES = (("a", "EPSG:32719", (384, 512)), ("b", "EPSG:32720", (256, 384)), ("c", "EPSG:32719", (256, 256)))
CHIPS = 12 + 6 + 4


def make_scenes(folder: Path) -> list[Path]:
    """Three small scenes of two CRSs and three dates."""
    return [
        write_scene(
            folder, item_id=f"synthetic-{name}", seed=seed, shape=shape, crs=crs, block=128, nodata=0.0,
            datetime=f"2024-0{seed + 1}-11T{14 + seed}:06:36Z",
        )
        for seed, (name, crs, shape) in enumerate(SCENES)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scenes")
    xchip.build_index(make_scenes(folder), folder / "archive", 128, client=False, progress=False)
    return str(folder / "archive")


@pytest.fixture(scope="module")
def rows(archive: str) -> pd.DataFrame:
    found = xchip.read_index(archive)
    assert len(found) == CHIPS
    return found


@pytest.fixture(scope="module")
def truth(archive: str, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Pixels (band, y, x) of each chip, by id, as rasterio reads them."""
    scenes = Path(archive).parent
    found = {}
    for row in rows.itertuples():
        window = Window(row.col_off, row.row_off, row.width, row.height)
        bands = []
        for band in BANDS:
            with rasterio.open(scenes / row.item_id / FILES[band]) as file:
                bands.append(file.read(1, window=window))
        found[row.chip_id] = np.stack(bands)
    return found


def run(index: Any, out: Path, format: Any = "npz", **options: Any) -> ExportReport:
    return export_chips(index, out, format, **{"assets": BANDS, "client": False, "progress": False, "workers": 2} | options)


def contents(out: Path) -> dict[str, bytes]:
    """All files below a folder, but for what says of what they were made."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "export.json"
    }


def cubes_of(out: Path) -> list[dict[str, np.ndarray]]:
    paths = sorted(out.glob("*/cube_*.npz"), key=lambda path: int(path.stem.split("_")[1]))
    return [dict(np.load(path)) for path in paths]


def ids_of(cubes: list[dict[str, np.ndarray]], truth: dict[str, np.ndarray]) -> list[list[str]]:
    """Ids of the chips of each cube, by their pixels."""
    known = {pixels.astype("float32").tobytes(): chip_id for chip_id, pixels in truth.items()}
    assert len(known) == len(truth)
    return [[known[chip.astype("float32").tobytes()] for chip in cube["pixels"]] for cube in cubes]


# -- cubes -------------------------------------------------------------------------------------------------------------


def test_cubes_are_in_clays_layout_key_by_key(
    archive: str, rows: pd.DataFrame, truth: dict[str, np.ndarray], tmp_path: Path
) -> None:
    report = prechip(archive, tmp_path / "out", cube_size=5, assets=BANDS, client=False, progress=False)
    assert (report.done, report.skipped, report.failed, report.files) == (CHIPS, 0, 0, 5)
    assert sorted(contents(tmp_path / "out")) == [f"sentinel-2-l2a/cube_{number}.npz" for number in range(5)]
    cubes = cubes_of(tmp_path / "out")
    assert [len(cube["pixels"]) for cube in cubes] == [5, 5, 5, 5, 2]
    chosen = ids_of(cubes, truth)
    assert Counter(chip for cube in chosen for chip in cube) == Counter(rows.chip_id)
    by_id = rows.set_index("chip_id")
    for cube, ids in zip(cubes, chosen, strict=True):
        assert set(cube) == {"pixels", "week_norm", "hour_norm", "lat_norm", "lon_norm"}
        assert {array.dtype for array in cube.values()} == {np.dtype("float32")}
        assert cube["pixels"].shape == (len(ids), len(BANDS), 128, 128)
        for number, chip in enumerate(ids):
            row = by_id.loc[chip]
            to_degrees = pyproj.Transformer.from_crs(row.proj_code, 4326, always_xy=True)
            lon, lat = to_degrees.transform((row.proj_left + row.proj_right) / 2, (row.proj_bottom + row.proj_top) / 2)
            angles = {
                "week_norm": 2 * math.pi * row.datetime.isocalendar().week / 52,
                "hour_norm": 2 * math.pi * row.datetime.hour / 24,
                "lat_norm": math.radians(lat),
                "lon_norm": math.radians(lon),
            }
            for name, angle in angles.items():
                np.testing.assert_allclose(cube[name][number], [math.sin(angle), math.cos(angle)], atol=1e-6)
            assert shapely.distance(row.geometry.centroid, shapely.Point(lon, lat)) < 1e-5


def test_cubes_have_clays_bands_unless_others_are_asked_for(tmp_path: Path) -> None:
    """All ten bands of Sentinel-2, in Clay's order."""
    item = json.loads(write_scene(tmp_path, shape=(128, 128), block=128).read_text())
    keys = ["blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22"]
    files = dict(zip(keys, ["blue", "green", "red", "nir", "blue", "green", "nir", "red", "nir", "green"], strict=True))
    assets = {key: item["assets"][file] for key, file in files.items()} | {"scl": item["assets"]["scl"]}
    href = tmp_path / item["id"] / "full.json"
    href.write_text(json.dumps(item | {"assets": dict(sorted(assets.items()))}))
    index = xchip.index_items(str(href), 64).compute()
    report = prechip(index, tmp_path / "out", dtype=None, client=False, progress=False)
    (cube,) = cubes_of(tmp_path / "out")
    assert (report.done, cube["pixels"].shape, cube["pixels"].dtype) == (4, (4, 10, 64, 64), np.dtype("uint16"))
    for number, key in enumerate(keys):
        assert (cube["pixels"][:, number] == cube["pixels"][:, keys.index(next(k for k in keys if files[k] == files[key]))]).all()
    assert len({cube["pixels"][:, number].tobytes() for number in range(10)}) == 4


def test_the_offset_of_sentinel_2_may_be_undone(tmp_path: Path) -> None:
    path = write_scene(tmp_path, shape=(128, 128), block=64)
    index = xchip.index_items(str(path), 64).compute()
    told = {"synthetic-scene": -1000}
    run(index, tmp_path / "plain", shuffle=False)
    run(index, tmp_path / "out", shuffle=False, harmonize=told)
    (plain,), (cube,) = cubes_of(tmp_path / "plain"), cubes_of(tmp_path / "out")
    wanted = open_chips(index, BANDS, harmonize=told).to_dataarray().transpose("chip", ...).values
    assert (cube["pixels"] == wanted).all()
    assert (cube["pixels"] != plain["pixels"]).any()
    with pytest.raises(ValueError, match=r"harmonize=\{'synthetic-scene': -1000\} \(now False\)"):
        run(index, tmp_path / "out", shuffle=False)


def test_cubes_may_be_stored_as_they_are(archive: str, tmp_path: Path) -> None:
    run(archive, tmp_path / "small", Cubes())
    run(archive, tmp_path / "large", Cubes(compressed=False))
    (small,), (large,) = cubes_of(tmp_path / "small"), cubes_of(tmp_path / "large")
    assert all((small[name] == large[name]).all() for name in small | large)
    sizes = [path.stat().st_size for name in ("small", "large") for path in (tmp_path / name).rglob("*.npz")]
    assert sizes[0] < sizes[1]
    assert sizes[1] >= large["pixels"].nbytes


def test_the_order_is_a_function_of_the_seed_alone(archive: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    one = run(archive, tmp_path / "one", Cubes(4), seed=3)
    run(rows, tmp_path / "two", Cubes(4), seed=3, workers=1)
    run(archive, tmp_path / "three", Cubes(4), seed=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "three")
    assert one.done == CHIPS


def test_a_cube_mixes_scenes_and_rows_are_kept_without_shuffling(
    archive: str, rows: pd.DataFrame, truth: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run(archive, tmp_path / "mixed", Cubes(11), seed=1)
    mixed = ids_of(cubes_of(tmp_path / "mixed"), truth)
    assert all(len({chip[:11] for chip in cube}) > 1 for cube in mixed)
    run(archive, tmp_path / "plain", Cubes(11), shuffle=False)
    assert [chip for cube in ids_of(cubes_of(tmp_path / "plain"), truth) for chip in cube] == rows.chip_id.tolist()


def test_a_cube_has_one_sensor(archive: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    mixed = rows.assign(sensor=np.where(rows.item_id == "synthetic-b", "hls-s30", "sentinel-2-l2a"))
    # The files are Sentinel-2's all the same: bands of these names are found under either profile.
    report = run(mixed, tmp_path / "out", Cubes(8))
    assert report.done == CHIPS
    sizes = {path.relative_to(tmp_path / "out").as_posix(): len(np.load(path)["pixels"]) for path in tmp_path.rglob("*.npz")}
    assert sizes == {
        "hls-s30/cube_0.npz": 6, "sentinel-2-l2a/cube_0.npz": 8, "sentinel-2-l2a/cube_1.npz": 8,
    }  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=80),
    st.integers(1, 20), st.integers(1, 60), st.booleans(), st.integers(0, 5),
)  # fmt: skip
def test_pools_are_a_permutation_in_whole_files(
    chips: list[tuple[int, int, int]], per_file: int, buffer: int, shuffle: bool, seed: int
) -> None:
    table = np.array(chips, np.int32).reshape(-1, 3)
    zeros, size = np.zeros(len(table)), np.full(len(table), 64, np.int32)
    refs = tuple(ItemRef(str(number), None, None, None, "EPSG:32719") for number in range(4))
    found = ChipRows(refs, table[:, 0], zeros, zeros, table[:, 1] * 64, table[:, 2] * 64, size, size)
    pools = pools_of(found, (512, 512), per_file=per_file, buffer=buffer, shuffle=shuffle, seed=seed)
    again = pools_of(found, (512, 512), per_file=per_file, buffer=buffer, shuffle=shuffle, seed=seed)
    assert [pool.tolist() for pool in pools] == [pool.tolist() for pool in again]
    order = [chip for pool in pools for chip in pool.tolist()]
    assert sorted(order) == list(range(len(chips)))
    assert all(len(pool) % per_file == 0 and len(pool) <= max(buffer, per_file) for pool in pools[:-1])
    if not shuffle:
        assert order == list(range(len(chips)))


def test_a_super_tile_is_in_one_pool_or_cut_by_a_border() -> None:
    across, down = np.meshgrid(np.arange(40), np.arange(40))
    n = across.size
    size, zeros = np.full(n, 256, np.int32), np.zeros(n)
    ref = ItemRef("a", None, None, None, "EPSG:32719")
    rows = ChipRows((ref,), np.zeros(n, np.int32), zeros, zeros, across.ravel() * 256, down.ravel() * 256, size, size)
    pools = pools_of(rows, (2048, 2048), per_file=128, buffer=512, shuffle=True, seed=0)
    read = sum(len(units(rows.take(pool), (2048, 2048))) for pool in pools)
    tiles = len(units(rows, (2048, 2048)))
    assert tiles == 25
    assert read <= tiles + len(pools) - 1


# -- parts, resuming, refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [Cubes(3), Shards(3), GeoTiffs(), ZarrStore(3)], ids=lambda format: format.name)
def test_parts_together_are_the_whole(archive: str, format: Any, tmp_path: Path) -> None:
    if format.name == "zarr":
        pytest.importorskip("zarr")
    run(archive, tmp_path / "whole", format, buffer=6)
    reports = [run(archive, tmp_path / "parts", format, buffer=6, part=(number, 3)) for number in (2, 0, 1)]
    assert sum(report.done for report in reports) == CHIPS
    assert all(report.done for report in reports)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_more_parts_than_work(archive: str, tmp_path: Path) -> None:
    reports = [run(archive, tmp_path / "out", Cubes(8), buffer=8, part=(number, 5)) for number in range(5)]
    assert [report.done for report in reports] == [8, 8, 6, 0, 0]


@pytest.mark.parametrize("format", [Cubes(4), Shards(4), GeoTiffs(), ZarrStore(4)], ids=lambda format: format.name)
def test_what_is_there_is_skipped_and_what_is_missing_is_made(archive: str, format: Any, tmp_path: Path) -> None:
    if format.name == "zarr":
        pytest.importorskip("zarr")
    out = tmp_path / "out"
    first = run(archive, out, format, buffer=8)
    whole = contents(out)
    assert (first.done, first.skipped) == (CHIPS, 0)
    missing = [name for name in whole if name.startswith(("done/", "sentinel", "synthetic"))][1:3]
    for name in missing:
        (out / name).unlink()
    again = run(archive, out, format, buffer=8)
    assert again.files == 2
    assert again.done + again.skipped == CHIPS
    assert 0 < again.done < CHIPS
    assert contents(out) == whole


def test_a_killed_export_goes_on_to_the_same_files(archive: str, tmp_path: Path) -> None:
    run(archive, tmp_path / "whole", Cubes(1), buffer=1)
    code = (
        "import sys; from xchip.export.cubes import Cubes; from xchip.export.exports import export_chips; "
        f"export_chips({archive!r}, sys.argv[1], Cubes(1), assets={BANDS!r}, buffer=1, client=False, progress=False)"
    )
    out = tmp_path / "killed"
    job = subprocess.Popen([sys.executable, "-c", code, str(out)])
    deadline = time.monotonic() + 60
    while len(list(out.rglob("*.npz"))) < 3 and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    there = len(list(out.rglob("cube_*.npz")))
    assert there >= 3
    report = run(archive, out, Cubes(1), buffer=1)
    assert (report.done, report.skipped) == (CHIPS - there, there)
    assert {name: data for name, data in contents(out).items() if not name.endswith(".tmp")} == contents(tmp_path / "whole")


def test_what_a_killed_export_left_half_written_is_removed(archive: str, tmp_path: Path) -> None:
    """The kernel kills it in the middle of its first file, for that is larger than it may be."""
    code = (
        "import resource, signal, sys; from xchip.export.exports import export_chips; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        f"export_chips({archive!r}, sys.argv[1], 'tif', assets={BANDS!r}, client=False, workers=1, progress=False)"
    )
    out = tmp_path / "killed"
    assert subprocess.run([sys.executable, "-c", code, str(out)], check=False).returncode == -signal.SIGXFSZ
    (left,) = out.rglob("*.tmp")
    assert left.stat().st_size == 2000
    store, name = Store(str(out)), left.relative_to(out).with_name(left.name[1:].split(".tif.")[0] + ".tif").as_posix()
    with left.open("rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)  # as a writer does while it lives
        store.write(name, b"another process was quicker")
        assert left.exists()
    (out / name).unlink()
    report = run(archive, out, "tif")
    assert (report.done, report.skipped) == (CHIPS, 0)
    assert not list(out.rglob("*.tmp"))
    run(archive, tmp_path / "whole", "tif")
    assert contents(out) == contents(tmp_path / "whole")


def test_bands_that_nobody_asked_for(rows: pd.DataFrame, tmp_path: Path) -> None:
    """Cubes take those of Clay; where an item lacks one, the error says how to name others."""
    with pytest.raises(xchip.ItemError, match=r"no asset 'rededge1'; .* has the bands blue, .*swir22 .*assets=, or --assets"):
        xchip.prechip(rows, tmp_path / "cubes", progress=False)
    with pytest.raises(xchip.ItemError, match=r"no asset 'rededge1'") as asked:
        xchip.prechip(rows, tmp_path / "cubes", assets=["rededge1"], progress=False)
    assert "--assets" not in str(asked.value)


def test_other_rows_or_options_are_refused(archive: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    run(archive, tmp_path / "out", Cubes(8))
    for index, options in ((archive, {"seed": 1}), (archive, {"assets": ["red"]}), (rows.iloc[1:], {}), (rows.iloc[::-1], {})):
        with pytest.raises(ValueError, match=r"files of another export, with .*\(now .*another path"):
            run(index, tmp_path / "out", Cubes(8), **options)
    with pytest.raises(ValueError, match="size=8 "):
        run(archive, tmp_path / "out", Cubes(9))
    with pytest.raises(ValueError, match="format='npz'"):
        run(archive, tmp_path / "out", "tar")
    assert run(archive, tmp_path / "out", Cubes(8), workers=1, attempts=2).skipped == CHIPS


@pytest.mark.parametrize(("size", "part"), [(4, None), (5, None), (8, None), (5, "part"), (3, "job")])
def test_each_chip_is_in_one_cube_and_none_is_left_out(
    archive: str, truth: dict[str, np.ndarray], size: int, part: str | None, tmp_path: Path
) -> None:
    """Whatever the seed and however the work is split; the last cube has what is left."""
    shares: list[dict[str, Any]] = [{}] if part is None else [{part: (n, 2)} for n in ((2, 0, 3, 1) if part == "job" else (1, 0))]
    for share in shares:
        run(archive, tmp_path / "out", Cubes(size, None), seed=7, buffer=2 * size, **share)
    paths = sorted((tmp_path / "out").rglob("*.npz"), key=lambda path: int(path.stem.removeprefix("cube_")))
    cubes = [np.load(path)["pixels"] for path in paths]
    assert [len(cube) for cube in cubes] == [size] * (CHIPS // size) + ([CHIPS % size] if CHIPS % size else [])
    names = {pixels.tobytes(): name for name, pixels in truth.items()}
    assert len(names) == CHIPS
    assert sorted(names[chip.tobytes()] for cube in cubes for chip in cube) == sorted(truth)


def test_the_hour_of_a_chip_is_that_of_its_item(archive: str, truth: dict[str, np.ndarray], tmp_path: Path) -> None:
    run(archive, tmp_path / "out", Cubes(8, None))
    names = {pixels.tobytes(): name for name, pixels in truth.items()}
    hours = {f"synthetic-{name}": 14 + seed for seed, (name, _, _) in enumerate(SCENES)}
    seen = set()
    for path in (tmp_path / "out").rglob("*.npz"):
        cube = np.load(path)
        for pixels, (sin, cos) in zip(cube["pixels"], cube["hour_norm"], strict=True):
            hour = math.atan2(sin, cos) / (2 * math.pi) * 24 % 24
            item = names[pixels.tobytes()].rsplit("-", 2)[0]
            assert hour == pytest.approx(hours[item], abs=1e-5)
            seen.add(round(hour))
    assert seen == {14, 15, 16}


def test_cubes_of_several_sensors_come_into_one_folder_one_after_another(rows: pd.DataFrame, tmp_path: Path) -> None:
    """As by a job a platform; and all at once make the same."""
    other = rows.assign(sensor=rows.sensor.where(rows.item_id != "synthetic-b", "sentinel-2-l1c"))
    for sensor, some in other.groupby("sensor"):
        assert run(some, tmp_path / "out", Cubes(4)).done == len(some), sensor
    assert run(other, tmp_path / "out", Cubes(4)).skipped == CHIPS
    run(other, tmp_path / "once", Cubes(4))
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    with pytest.raises(ValueError, match=r"out/sentinel-2-l1c' has the files of another export, with .*rows=6 \(now 5\)"):
        run(other[other.item_id == "synthetic-b"].iloc[1:], tmp_path / "out", Cubes(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": (2, 2)}, r"part is \(i, n\)"),
        ({"buffer": 0}, "buffer is a whole number from 1"),
        ({"workers": 0}, "workers is a whole number from 1"),
        ({"attempts": 0}, "attempts is a whole number from 1"),
        ({"format": "tiff"}, "format is one of npz, zarr, tar, tif"),
        ({"format": Cubes(0)}, "at least one chip"),
        ({"max_nodata": 5}, "max_nodata is a fraction"),
        ({"min_clear": 1.0, "max_cloud": 0.0, "filters": [("item_id", "==", "no")]}, "nothing to export"),
        ({"assets": ["ultraviolet"]}, "ultraviolet"),
    ],
)
def test_wrong_options_are_refused(archive: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(archive, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_rows_are_chosen_by_box_filters_and_limits(archive: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    assert run(archive, tmp_path / "a", filters=[("item_id", "==", "synthetic-b")]).done == 6
    kept = (rows.cloud_fraction <= 0.2).sum()
    assert 0 < kept < CHIPS
    assert run(archive, tmp_path / "b", max_cloud=0.2).done == kept
    assert run(rows, tmp_path / "c", max_cloud=0.2).done == kept
    west, south, east, north = rows.geometry.iloc[0].buffer(-1e-4).bounds
    assert run(archive, tmp_path / "d", bbox=(west, south, east, north)).done < CHIPS
    with pytest.raises(ValueError, match="an index that is a path"):
        run(rows, tmp_path / "e", bbox=(west, south, east, north))
    with pytest.raises(ValueError, match=r"columns \['cloud_fraction'\] are missing"):
        run(rows.drop(columns="cloud_fraction"), tmp_path / "f", max_cloud=0.2)


def test_sensors_that_clay_does_not_know_need_assets(rows: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name the bands with assets="):
        run(rows.assign(sensor=None), tmp_path / "out", assets=None)
    assert run(rows.assign(sensor=None), tmp_path / "out").done == CHIPS
    assert [path.parent.name for path in tmp_path.rglob("*.npz")] == ["_"]


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    """(rows, a file with one unreadable block: that of chip 1-0 of the first scene)."""
    paths = make_scenes(tmp_path)
    rows = xchip.index_items(list(map(str, paths)), 128).compute()
    path = tmp_path / "synthetic-a" / FILES["red"]
    with rasterio.open(path) as file:
        offset = int(
            file.tags(ns="TIFF", bidx=1).get("BLOCK_OFFSET_1_0") or file.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1)
        )
    content = bytearray(path.read_bytes())
    content[offset : offset + 400] = b"\xff" * 400
    path.write_bytes(content)
    return rows, path


def listed(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((out / "failed").rglob("*.jsonl")) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("format", [Cubes(5), Shards(5), GeoTiffs()], ids=lambda format: format.name)
def test_chips_that_cannot_be_read_are_listed_and_the_others_written(
    damaged: tuple[pd.DataFrame, Path], format: Any, tmp_path: Path
) -> None:
    rows, path = damaged
    report = run(rows, tmp_path / "out", format)
    assert (report.done, report.failed) == (CHIPS - 1, 1)
    (failure,) = report.failures.to_dict("records")
    assert failure["chip_id"] == "synthetic-a-1-0"
    assert failure["error"] == "ItemError"
    assert "asset 'red'" in failure["message"]
    assert path.name in failure["message"]
    assert failure["attempts"] >= 1
    assert listed(tmp_path / "out") == [failure]
    assert "synthetic-a-1-0: ItemError" in str(report)
    assert (tmp_path / "out" / failure["file"]).exists() == (format.name != "tif")


def test_failed_chips_are_tried_again_and_leave_the_list(
    damaged: tuple[pd.DataFrame, Path], archive: str, tmp_path: Path
) -> None:
    rows, path = damaged
    out = tmp_path / "out"
    (failure,) = run(rows, out, Cubes(5)).failures.to_dict("records")
    kept = run(rows, out, Cubes(5), retry_failed=False)
    assert (kept.done, kept.skipped, kept.failed) == (0, CHIPS - 1, 1)
    again = run(rows, out, Cubes(5))
    assert (again.done, again.skipped, again.failed, again.files) == (4, CHIPS - 5, 1, 1)
    path.write_bytes((Path(archive).parent / "synthetic-a" / FILES["red"]).read_bytes())
    cured = run(rows, out, Cubes(5))
    assert (cured.done, cured.skipped, cured.failed) == (5, CHIPS - 5, 0)
    assert len(np.load(out / failure["file"])["pixels"]) == 5
    assert listed(out) == []


def test_an_item_that_is_gone_fails_with_all_its_chips(damaged: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    rows, _ = damaged
    (tmp_path / "synthetic-b" / FILES["nir"]).unlink()
    out = tmp_path / "out"
    report = run(rows, out, GeoTiffs())
    assert Counter(report.failures.item_id) == {"synthetic-a": 1, "synthetic-b": 6}
    assert report.done == CHIPS - 7
    assert run(rows, out, GeoTiffs(), retry_failed=False).skipped == CHIPS - 7


@pytest.mark.parametrize(("attempts", "failed"), [(5, 0), (1, 4)])
def test_what_passes_is_waited_for(attempts: int, failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    path = write_scene(tmp_path, shape=(256, 256), block=128)

    def busy(asked: Asked) -> Fault | None:
        return Fault(status=503) if asked.path.endswith(FILES["red"]) and asked.number < 6 else None

    with RangeServer(tmp_path, fault=busy) as server:
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = f"{server.url}/{path.parent.name}/{asset['href']}"
        rows = xchip.index_items(item, 128).compute()
        report = run(rows, tmp_path / "out", items=item, attempts=attempts)
    assert (report.done, report.failed) == (4 - failed, failed)
    assert set(report.failures.attempts) <= {attempts}


def test_a_cube_of_which_all_chips_fail_is_not_written(damaged: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    rows, _ = damaged
    alone = rows[rows.chip_id == "synthetic-a-1-0"]
    for _ in range(2):
        report = run(alone, tmp_path / "out", retry_failed=False)
        assert (report.done, report.skipped, report.failed, report.files) == (0, 0, 1, 0)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_zarr_store_has_nodata_where_a_chip_failed(damaged: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    rows, _ = damaged
    report = run(rows, tmp_path / "out", ZarrStore(4))
    assert (report.done, report.failed) == (CHIPS - 1, 1)
    stored = xr.open_zarr(tmp_path / "out" / "chips.zarr").load()
    place = rows.chip_id.tolist().index("synthetic-a-1-0")
    assert (stored.isel(chip=place).to_dataarray() == 0).all()
    others = np.delete(np.arange(CHIPS), place)
    xr.testing.assert_equal(stored.isel(chip=others), open_chips(rows.iloc[others], BANDS).compute())


def test_a_target_that_cannot_be_written_stops_the_run(archive: str, tmp_path: Path) -> None:
    (tmp_path / "out" / "sentinel-2-l2a" / "cube_0.npz" / "in-the-way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"can't write .*cube_0.npz"):
        run(archive, tmp_path / "out")


# -- other formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [ZarrStore(), ZarrStore(4), ZarrStore(2, shard=6)])
def test_a_zarr_store_is_what_open_chips_gives(archive: str, format: ZarrStore, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    assert run(archive, tmp_path / "out", format, assets=None, buffer=8).done == CHIPS
    stored = xr.open_zarr(tmp_path / "out" / "chips.zarr")
    wanted = open_chips(archive).compute()
    assert stored.red.encoding["chunks"] == (format.chunk, 128, 128)
    assert {name: band.dtype for name, band in stored.items()} == {name: band.dtype for name, band in wanted.items()}
    xr.testing.assert_equal(stored.load(), wanted)
    assert stored.red.attrs["nodata"] == 0
    assert stored.attrs["sensor"] == "sentinel-2-l2a"
    assert stored.proj_code.values.tolist() == wanted.proj_code.values.tolist()


def test_a_zarr_store_may_be_shuffled(archive: str, truth: dict[str, np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    run(archive, tmp_path / "out", ZarrStore(4), shuffle=True, seed=2)
    stored = xr.open_zarr(tmp_path / "out" / "chips.zarr").load()
    assert stored.chip_id.values.tolist() != sorted(stored.chip_id.values.tolist())
    for chip in range(CHIPS):
        assert (stored[BANDS].isel(chip=chip).to_dataarray().values == truth[str(stored.chip_id.values[chip])]).all()


def test_a_zarr_shard_is_whole_chunks() -> None:
    with pytest.raises(ValueError, match="multiple of chunk, 4 chips, got 6"):
        ZarrStore(4, shard=6)


def read_shards(out: Path) -> dict[str, dict[str, Any]]:
    """Samples by webdataset's rules: members that follow each other and agree up to the first dot are one sample."""
    samples: dict[str, dict[str, Any]] = {}
    for path in sorted(out.glob("*/shard-*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                key, _, kind = file.partition(".")
                data = archive.extractfile(member)
                assert data is not None
                sample = samples.setdefault(f"{folder}/{key}" if folder else key, {"shard": path.name})
                assert kind not in sample
                sample[kind] = np.load(io.BytesIO(data.read())) if kind == "npy" else json.loads(data.read())
    return samples


def test_tar_shards_hold_a_sample_a_chip(archive: str, rows: pd.DataFrame, truth: dict[str, np.ndarray], tmp_path: Path) -> None:
    dotted = rows.assign(chip_id=rows.chip_id.str.replace("synthetic-", "synthetic.v1/"))
    assert run(dotted, tmp_path / "out", Shards(8)).files == 3
    samples = read_shards(tmp_path / "out")
    assert len(samples) == CHIPS
    assert Counter(sample["shard"] for sample in samples.values()) == {
        "shard-000000.tar": 8, "shard-000001.tar": 8, "shard-000002.tar": 6,
    }  # fmt: skip
    by_id = dotted.set_index("chip_id")
    for key, sample in samples.items():
        facts = sample["json"]
        assert "/" not in key
        row = by_id.loc[facts["chip_id"]]
        assert (sample["npy"] == truth[facts["chip_id"].replace("synthetic.v1/", "synthetic-")]).all()
        assert sample["npy"].dtype == np.uint16
        assert (facts["bands"], facts["nodata"], facts["sensor"]) == (BANDS, [0, 0, 0], "sentinel-2-l2a")
        assert facts["proj_bounds"] == [row.proj_left, row.proj_bottom, row.proj_right, row.proj_top]
        assert (facts["proj_code"], facts["item_id"], facts["collection"]) == (row.proj_code, row.item_id, row.collection)
        assert pd.Timestamp(facts["datetime"]) == row.datetime
        assert [len(facts[name]) for name in ("week_norm", "hour_norm", "lat_norm", "lon_norm")] == [2, 2, 2, 2]


def test_webdataset_reads_the_shards(archive: str, truth: dict[str, np.ndarray], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    run(archive, tmp_path / "out", Shards(8))
    dataset = webdataset.WebDataset(sorted(map(str, tmp_path.rglob("*.tar"))), shardshuffle=False).decode()
    found = {sample["json"]["chip_id"]: sample["npy"] for sample in dataset}
    assert found.keys() == truth.keys()
    assert all((found[chip] == truth[chip]).all() for chip in truth)


def test_geotiffs_know_where_they_are(archive: str, rows: pd.DataFrame, truth: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert run(archive, tmp_path / "out", "tif").files == CHIPS
    for row in rows.itertuples():
        with rasterio.open(tmp_path / "out" / row.collection / row.item_id / f"{row.chip_id}.tif") as file:
            assert (file.read() == truth[row.chip_id]).all()
            assert file.dtypes == ("uint16",) * 3
            assert file.crs == row.proj_code
            assert tuple(file.bounds) == (row.proj_left, row.proj_bottom, row.proj_right, row.proj_top)
            assert file.res == (10, 10)
            assert (file.nodata, file.descriptions) == (0, tuple(BANDS))
            assert (file.profile["compress"], file.block_shapes[0]) == ("deflate", (128, 128))
            assert file.tags()["chip_id"] == row.chip_id
            assert pd.Timestamp(file.tags()["datetime"]) == row.datetime


def test_geotiffs_keep_the_size_of_cut_chips(tmp_path: Path) -> None:
    path = write_scene(tmp_path, shape=(160, 200), block=64)
    rows = xchip.index_items(str(path), 128, edge="partial").compute()
    run(rows, tmp_path / "out", "tif")
    sizes = {file.stem: rasterio.open(file).shape for file in (tmp_path / "out").rglob("*.tif")}
    assert sorted(sizes.values()) == [(32, 72), (32, 128), (128, 72), (128, 128)]
    for row in rows.itertuples():
        (file,) = (tmp_path / "out").rglob(f"{row.chip_id}.tif")
        with rasterio.open(file) as chip, rasterio.open(path.parent / FILES["nir"]) as scene:
            assert (chip.read(3) == scene.read(1, window=Window(row.col_off, row.row_off, row.width, row.height))).all()
            assert tuple(chip.bounds) == (row.proj_left, row.proj_bottom, row.proj_right, row.proj_top)
    with pytest.raises(ValueError, match="several sizes"):
        run(rows, tmp_path / "cubes")
    assert run(rows, tmp_path / "padded", pad=True).done == 4


def test_ids_that_are_no_file_names_are_encoded(rows: pd.DataFrame, tmp_path: Path) -> None:
    odd = rows.assign(chip_id=["../" + name for name in rows.chip_id])
    run(odd, tmp_path / "out", "tif")
    assert len(list((tmp_path / "out").rglob("%2E%2E%2Fsynthetic*.tif"))) == CHIPS


@pytest.mark.parametrize("format", ["tar", "tif"])
def test_chips_of_one_name_are_refused(rows: pd.DataFrame, format: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 chips of the index have the id of another one, such as 'synthetic-"):
        run(pd.concat([rows, rows.iloc[:1]]), tmp_path / "out", format)


# -- clusters, places --------------------------------------------------------------------------------------------------


def test_a_cluster_writes_the_same(archive: str, damaged: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    from xchip.io.cluster import local_cluster

    rows, _ = damaged
    run(archive, tmp_path / "threads", Cubes(3), buffer=6)
    with local_cluster(2) as client:
        report = run(archive, tmp_path / "cluster", Cubes(3), buffer=6, client=client, workers=None)
        broken = run(rows, tmp_path / "broken", Cubes(3), buffer=6, client=client, workers=None)
        with pytest.raises(ValueError, match="give workers or a client"):
            run(archive, tmp_path / "both", Cubes(3), client=client)
    assert report.done == CHIPS
    assert contents(tmp_path / "cluster") == contents(tmp_path / "threads")
    assert (broken.done, broken.failed) == (CHIPS - 1, 1)
    assert broken.failures.chip_id.tolist() == ["synthetic-a-1-0"]


@pytest.mark.parametrize("format", ["npz", "zarr", "tar", "tif"])
def test_targets_may_be_urls(archive: str, format: str, tmp_path: Path) -> None:
    import fsspec

    if format == "zarr":
        pytest.importorskip("zarr")
    url = f"memory://exports/{format}"
    assert run(archive, url, format).done == CHIPS  # type: ignore[arg-type]
    assert run(archive, url, format).skipped == CHIPS  # type: ignore[arg-type]
    run(archive, tmp_path / "out", format)
    fs = fsspec.filesystem("memory")
    remote = {name.removeprefix(f"/exports/{format}/"): fs.cat_file(name) for name in fs.find(f"/exports/{format}")}
    remote = {name: content for name, content in remote.items() if name.rpartition("/")[2] != "export.json"}
    assert remote == contents(tmp_path / "out")
    fs.rm("/exports", recursive=True)


def test_given_items_and_progress(archive: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    items = [Path(archive).parent / item_id / f"{item_id}.json" for item_id in rows.item_id.unique()]
    stream = io.StringIO()
    report = run(rows.assign(item_href=None), tmp_path / "out", Cubes(8), items=list(map(str, items)), progress=stream)
    assert report.done == CHIPS
    assert stream.getvalue().splitlines()[-1] == "written 3 of 3 files"


def test_a_table_is_small_when_it_travels(archive: str) -> None:
    import pickle

    from xchip.export.job import taken

    table = open_table(archive, BANDS)
    part = taken(table, np.array([3, 1]))
    assert len(pickle.dumps(part)) < len(pickle.dumps(table))
    assert part.coords["chip_id"].tolist() == table.coords["chip_id"][[3, 1]].tolist()
    (arrays,) = part.read(np.array([0, 1]))
    (wanted,) = table.read(np.array([3, 1]))
    assert (arrays == wanted).all()
