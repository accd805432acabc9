"""``xchip prechip`` and ``xchip export``: what is written, which part of it, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from command_line import misused, refused, run
from processes import dask_cluster

import xchip
from xchip.testing import FILES, write_scene

BANDS = "blue,red, nir"
CHIPS = 18


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    items = [
        write_scene(
            folder, item_id=f"synthetic-{n}", seed=n, shape=(256, 320), crs=crs, block=128, datetime=f"2024-0{n}-11T15:00:00Z"
        )
        for n, crs in ((1, "EPSG:32719"), (2, "EPSG:32720"), (3, "EPSG:32719"))
    ]
    xchip.build_index(list(map(str, items)), folder / "archive", (128, 96), client=False, progress=False)
    return folder / "archive"


def shapes(out: Path) -> dict[str, tuple[int, ...]]:
    return {path.relative_to(out).as_posix(): np.load(path)["pixels"].shape for path in sorted(out.rglob("*.npz"))}


def test_prechip_writes_cubes_and_goes_on(archive: Path, tmp_path: Path) -> None:
    arguments = ("prechip", archive, "-o", tmp_path, "--assets", BANDS, "--cube-size", 8)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{tmp_path}: 18 chips in 3 files, 0 skipped, 0 failed")
    assert result.stderr == "written 3 of 3 files\n"
    assert shapes(tmp_path) == {f"sentinel-2-l2a/cube_{n}.npz": (size, 3, 128, 96) for n, size in enumerate((8, 8, 2))}
    again = run(*arguments)
    assert again.stdout.startswith(f"{tmp_path}: 0 chips in 0 files, 18 skipped, 0 failed")
    refused(run(*arguments, "--seed", 1), r"--seed 0 \(now 1\)")


def test_the_data_type_may_be_that_of_the_files(archive: Path, tmp_path: Path) -> None:
    assert run("prechip", archive, "-o", tmp_path, "--assets", "red", "--dtype", "stored", "--harmonize").exit_code == 0
    assert np.load(tmp_path / "sentinel-2-l2a" / "cube_0.npz")["pixels"].dtype == np.uint16


@pytest.mark.parametrize("kind", ["npz", "zarr", "tar", "tif"])
def test_export_writes_each_format(archive: Path, kind: str, tmp_path: Path) -> None:
    if kind == "zarr":
        pytest.importorskip("zarr")
    result = run("export", archive, "-o", tmp_path, "--format", kind, "--assets", BANDS)
    assert result.exit_code == 0, result.output
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    wanted = {
        "npz": {"sentinel-2-l2a/cube_0.npz"},
        "zarr": {"chips.zarr/zarr.json", "done/chunk-000000"},
        "tar": {"sentinel-2-l2a/shard-000000.tar"},
        "tif": {f"synthetic/synthetic-{n}/synthetic-{n}-{x}-{y}.tif" for n in (1, 2, 3) for x in (0, 1, 2) for y in (0, 1)},
    }
    if kind == "tif":
        assert len(names) == CHIPS + 1
        assert {name.rsplit("/", 1)[1] for name in wanted["tif"]} == {name.rsplit("/", 1)[-1] for name in names} - {"export.json"}
    else:
        assert wanted[kind] <= names


def test_a_zarr_store_in_shards(archive: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    result = run("export", archive, "-o", tmp_path, "--format", "zarr", "--size", 4, "--shard", 8, "--assets", "red", "--shuffle")
    assert result.stdout.startswith(f"{tmp_path}: 18 chips in 3 files")
    stored = xr.open_zarr(tmp_path / "chips.zarr")
    assert (stored.red.encoding["chunks"][0], stored.red.encoding["shards"][0]) == (4, 8)
    assert sorted(stored.chip_id.values) != stored.chip_id.values.tolist()


def test_rows_are_chosen(archive: Path, tmp_path: Path) -> None:
    export = ("export", archive, "--format", "tif", "--assets", "red", "-o")
    assert "6 chips" in run(*export, tmp_path / "a", "--filter", "item_id=synthetic-2").stdout
    assert "6 chips" in run(*export, tmp_path / "b", "--filter", "datetime>=2024-02-01", "--filter", "datetime<2024-03-01").stdout
    some = (xchip.read_index(archive).cloud_fraction <= 0.1).sum()
    assert f"{some} chips" in run(*export, tmp_path / "c", "--max-cloud", 0.1).stdout
    west, south, east, north = xchip.read_index(archive).geometry.iloc[0].buffer(-1e-4).bounds
    boxed = run(*export, tmp_path / "d", "--bbox", f"{west},{south},{east},{north}")
    assert 0 < int(boxed.stdout.split(": ")[1].split()[0]) < CHIPS
    refused(run(*export, tmp_path / "e", "--bbox", "1,2,3"), "is not 4 numbers")
    refused(run(*export, tmp_path / "e", "--filter", "cloudy"), "is not like")
    refused(run(*export, tmp_path / "e", "--filter", "cloudiness<1"), "cloudiness")
    refused(run(*export, tmp_path / "e", "--filter", "item_id=none"), "nothing to export")


def test_parts_by_number_and_by_the_variables_of_an_array_job(archive: Path, tmp_path: Path) -> None:
    arguments = ("prechip", archive, "-o", tmp_path, "--assets", "red", "--cube-size", 4, "--buffer", 4)
    assert "8 chips in 2 files" in run(*arguments, "--part", "0/3").stdout
    for number in ("1", "2"):
        env = {"AWS_BATCH_JOB_ARRAY_INDEX": number, "AWS_BATCH_JOB_ARRAY_SIZE": "3"}
        assert run(*arguments, "--array", env=env).exit_code == 0
    assert "0 chips in 0 files, 18 skipped" in run(*arguments).stdout
    misused(run(*arguments, "--array", env={"AWS_BATCH_JOB_ARRAY_INDEX": None}), "is not set")
    misused(run(*arguments, "--part", "3/3"), "is not a share")


def test_misuse(archive: Path, tmp_path: Path) -> None:
    refused(run("prechip", archive), r"no --output: give it, as in --output s3://bucket/folder, or set XCHIP_PRECHIP_OUTPUT", 2)
    misused(run("export", archive, "-o", tmp_path), "Missing option '--format'")
    misused(run("export", archive, "-o", tmp_path, "--format", "tif", "--size", 4), "a GeoTIFF has one chip")
    misused(run("export", archive, "-o", tmp_path, "--format", "npz", "--shard", 4), "--shard is for --format zarr")
    misused(run("prechip", archive, "-o", tmp_path, "--workers", 2, "--threads", 2), "exclude each other")
    refused(run("prechip", tmp_path / "nowhere", "-o", tmp_path), "nowhere")
    refused(run("export", archive, "-o", tmp_path, "--format", "zarr", "--size", 4, "--shard", 6), "multiple of chunk")


def test_failed_chips_make_status_3_and_are_named(tmp_path: Path) -> None:
    path = write_scene(tmp_path, shape=(128, 128), block=64)
    xchip.write_index(xchip.index_items(str(path), 64), tmp_path / "index.parquet")
    (path.parent / FILES["red"]).unlink()
    result = run("export", tmp_path / "index.parquet", "-o", tmp_path / "out", "--format", "tif", "--assets", "red,nir")
    assert result.exit_code == 3, result.output
    assert "0 chips in 0 files, 0 skipped, 4 failed" in result.stdout
    assert "synthetic-scene-0-0: ItemError: " in result.stdout
    assert "/out/failed; run the same command to retry them" in result.stderr
    listed = [
        json.loads(line) for file in (tmp_path / "out" / "failed").rglob("*.jsonl") for line in file.read_text().splitlines()
    ]
    assert {one["chip_id"] for one in listed} == {f"synthetic-scene-{x}-{y}" for x in (0, 1) for y in (0, 1)}
    with rasterio.open(path.parent / FILES["nir"]) as file:
        assert file.count == 1
    fewer = run("export", tmp_path / "index.parquet", "-o", tmp_path / "nir", "--format", "tif", "--assets", "nir")
    assert fewer.exit_code == 0


def test_a_terminated_export_says_how_to_go_on(tmp_path: Path) -> None:
    path = write_scene(tmp_path, shape=(640, 640), block=128)
    index = xchip.write_index(xchip.index_items(str(path), 32), tmp_path / "index.parquet")
    out = tmp_path / "out"
    arguments = ["prechip", index, "-o", str(out), "--assets", BANDS, "--cube-size", "1", "--buffer", "1"]
    code = "import sys; from xchip.cli import main; main(sys.argv[1:])"
    job = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.rglob("*.npz")) and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    job.send_signal(signal.SIGTERM)
    _, stderr = job.communicate(timeout=60)
    assert job.returncode == 130, stderr
    assert f"Interrupted. Finished work is kept in {out}" in stderr
    there = len(list(out.rglob("cube_*.npz")))
    assert 0 < there < 400
    assert f"{400 - there} chips in {400 - there} files, {there} skipped" in run(*arguments).stdout


def test_on_a_cluster(archive: Path, tmp_path: Path) -> None:
    arguments = ("prechip", archive, "--assets", BANDS, "--cube-size", 4, "--buffer", 8)
    with dask_cluster(tmp_path) as address:
        result = run(*arguments, "-o", tmp_path / "cluster", "--scheduler", address)
    assert result.exit_code == 0, result.output
    assert run(*arguments, "-o", tmp_path / "here").exit_code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "cluster").rglob("*.npz")} == {
        path.name: path.read_bytes() for path in (tmp_path / "here").rglob("*.npz")
    }
