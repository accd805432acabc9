"""``xchip prechip`` and ``xchip stats`` in the environment that stacchip's processors of these names are given, unchanged."""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from command_line import misused, refused, run, settled
from processes import object_store, s3_client
from stacchip_data import PLATFORMS, Stored, merged_table, store_item

import xchip
from xchip.sensors.clay import CLAY_SENSORS, sensor_of_platform
from xchip.testing import write_scene

PRECHIP = {
    "index": "STACCHIP_INDEXPATH", "data_bucket": "STACCHIP_DATA_BUCKET", "chip_bucket": "STACCHIP_CHIP_BUCKET",
    "platform": "STACCHIP_PLATFORM", "cubes_per_job": "STACCHIP_CUBES_PER_JOB", "threads": "STACCHIP_POOL_SIZE",
    "max_nodata": "STACCHIP_MAX_NODATA", "job": "AWS_BATCH_JOB_ARRAY_INDEX",
}  # fmt: skip
STATS = {
    "index": "STACCHIP_INDEXPATH", "data_bucket": "STACCHIP_DATA_BUCKET", "chip_bucket": "STACCHIP_CHIP_BUCKET",
    "platform": "STACCHIP_PLATFORM", "threads": "STACCHIP_POOL_SIZE", "max_cubes": "STACCHIP_MAX_CUBES",
}  # fmt: skip


def cleared(**variables: object) -> dict[str, str]:
    """The environment without settings of these programs, but for ``variables``."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STACCHIP_", "XCHIP_"))}
    return known | {name: str(value) for name, value in variables.items()}


def ends(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(status, stdout, stderr) of each."""
    outcomes = [process.communicate(timeout=180) for process in processes]
    return [(process.returncode, *said) for process, said in zip(processes, outcomes, strict=True)]


def started(command: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A job; all its settings are in the environment."""
    code = "import sys; from xchip.cli import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, command]
    return subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def circle(turns: float) -> tuple[float, float]:
    return math.sin(2 * math.pi * turns), math.cos(2 * math.pi * turns)


def assert_holds(cubes: Sequence[Any], items: Sequence[Stored]) -> None:
    """Each chip of the items is in the cubes once, with its pixels, place and time."""
    truth = {}
    for item in items:
        for x, y in item.chips():
            truth[item.pixels(x, y).astype("float32").tobytes()] = (item, x, y)
    seen = []
    for cube in cubes:
        assert set(cube) == {"pixels", "week_norm", "hour_norm", "lat_norm", "lon_norm"}
        assert cube["pixels"].dtype == np.float32
        for number, pixels in enumerate(cube["pixels"]):
            item, x, y = truth[pixels.tobytes()]
            seen.append((item.item_id, x, y))
            lon, lat = item.centre(x, y)
            week, hour = item.moment.item().isocalendar().week, item.moment.item().hour
            assert hour > 12
            for name, turns in (("lon", lon / 360), ("lat", lat / 360), ("week", week / 52), ("hour", hour / 24)):
                np.testing.assert_allclose(cube[f"{name}_norm"][number], circle(turns), atol=1e-6)
    assert sorted(seen) == sorted((item.item_id, x, y) for item in items for x, y in item.chips())


# -- settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "contract"), [("prechip", PRECHIP), ("stats", STATS)])
def test_help_shows_the_variables_of_both_projects(command: str, contract: dict[str, str]) -> None:
    text = " ".join(run(command, "--help").output.split())
    for name, variable in contract.items():
        joined = " or " if name == "index" else ", "
        assert f"XCHIP_{command.upper()}_{name.upper()}{joined}{variable}" in text


def test_a_missing_setting_is_named_in_one_line_with_the_option_and_an_example(tmp_path: Path) -> None:
    own = "XCHIP_PRECHIP"
    refused(run("prechip"), rf"no INDEX: give it, as in s3://bucket/archive, or set {own}_INDEX or STACCHIP_INDEXPATH\.", 2)
    known: dict[str, str | None] = {"STACCHIP_INDEXPATH": str(tmp_path / "x.parquet")}
    refused(
        run("prechip", env=known),
        rf"no --output: .* --output s3://bucket/folder, or set {own}_OUTPUT or {own}_CHIP_BUCKET or STACCHIP_CHIP_BUCKET\.",
        2,
    )
    known |= {"STACCHIP_CHIP_BUCKET": "cubes", "STACCHIP_CUBES_PER_JOB": "3"}
    refused(run("prechip", env=known), rf"no --job: .* --job 0, or set {own}_JOB or AWS_BATCH_JOB_ARRAY_INDEX\.", 2)
    known |= {"AWS_BATCH_JOB_ARRAY_INDEX": "0"}
    item = store_item(tmp_path, str(tmp_path), "naip", 1)
    merged_table([item], tmp_path / "x.parquet")
    refused(
        run("prechip", env=known),
        rf"no --data-bucket: give it, as in --data-bucket my-bucket, or set {own}_DATA_BUCKET or STACCHIP_DATA_BUCKET\.",
        2,
    )
    refused(run("stats"), r"no INDEX: .* or set XCHIP_STATS_INDEX or STACCHIP_INDEXPATH or .* or STACCHIP_CHIP_BUCKET\.", 2)
    refused(run("stats", tmp_path / "x.parquet"), r"no --data-bucket: .* XCHIP_STATS_DATA_BUCKET or STACCHIP_DATA_BUCKET\.", 2)


@pytest.mark.parametrize(("command", "contract"), [("prechip", PRECHIP), ("stats", STATS)])
def test_the_command_line_goes_before_our_variables_and_these_before_stacchips(command: str, contract: dict[str, str]) -> None:
    for name, variable in contract.items():
        values: tuple[Any, ...] = (3, 2, 1) if name not in ("max_nodata",) else (0.3, 0.2, 0.1)
        line, ours, theirs = (str(value) for value in values) if name not in ("index", "platform") else ("c", "b", "a")
        own = f"XCHIP_{command.upper()}_{name.upper()}"
        words = [line] if name == "index" else [f"--{name.replace('_', '-')}", line]
        assert str(settled(command, [], {variable: theirs})[name]) == theirs
        assert str(settled(command, [], {variable: theirs, own: ours})[name]) == ours
        assert str(settled(command, words, {variable: theirs, own: ours})[name]) == line


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 chips in an archive of our own."""
    folder = tmp_path_factory.mktemp("archive")
    item = write_scene(folder, shape=(256, 256), nodata=0)
    xchip.build_index([str(item)], folder / "archive", 64, client=False, progress=False)
    return folder / "archive"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("cube_*.npz"))


def test_of_what_excludes_each_other_the_strongest_counts(archive: Path, tmp_path: Path) -> None:
    """An option of ours or on the command line is not upset by what a job definition sets for stacchip."""
    env: dict[str, str | None] = {"STACCHIP_POOL_SIZE": "2", "STACCHIP_CHIP_BUCKET": "nobodys", "AWS_BATCH_JOB_ARRAY_INDEX": "1"}
    some = ("prechip", archive, "--assets", "red", "--cube-size", 2)
    # Eight cubes: by job 1 of three each; by half, which goes before the job; by the job of our own variable.
    assert run(*some, "-o", tmp_path / "a", "--cubes-per-job", 3, env=env).exit_code == 0
    assert names(tmp_path / "a") == ["cube_3.npz", "cube_4.npz", "cube_5.npz"]
    assert run(*some, "-o", tmp_path / "b", "--buffer", 2, "--part", "0/2", env=env).exit_code == 0
    assert len(names(tmp_path / "b")) == 4
    ours = env | {"XCHIP_PRECHIP_JOB": "2", "XCHIP_PRECHIP_OUTPUT": str(tmp_path / "c"), "STACCHIP_CUBES_PER_JOB": "3"}
    assert run(*some, env=ours).exit_code == 0
    assert names(tmp_path / "c") == ["cube_6.npz", "cube_7.npz"]
    misused(run(*some, "-o", "x", "--part", "0/2", "--job", 1), "--part and --job exclude each other")
    misused(run(*some, "-o", "x", "--chip-bucket", "y"), "--output and --chip-bucket exclude each other")
    misused(run(*some, "-o", "x", "--threads", 1, "--workers", 1), "exclude each other")


def test_jobs_are_disjoint_and_are_all(archive: Path, tmp_path: Path) -> None:
    some = ("prechip", archive, "--assets", "red,nir", "--cube-size", 2, "--cubes-per-job", 3, "--buffer", 4)
    for number, made in ((2, 2), (0, 3), (1, 3), (3, 0), (0, 0)):
        result = run(*some, "-o", tmp_path, "--job", number, env={"AWS_BATCH_JOB_ARRAY_SIZE": "2"})
        assert result.exit_code == 0, result.output
        assert f"{2 * made} chips in {made} files" in result.stdout
        assert "3 cubes per job make 3 jobs" in result.stdout
        assert ("there is nothing to do for job 3" in result.stdout) == (number == 3)
        if number < 3:
            assert "The array has only 2 children; the cubes of 1 jobs are missing" in result.stderr
    assert names(tmp_path) == [f"cube_{n}.npz" for n in range(8)]
    chips = np.concatenate([np.load(path)["pixels"] for path in sorted(tmp_path.rglob("*.npz"))])
    assert len(np.unique(chips, axis=0)) == 16
    refused(run(*some, "-o", tmp_path, "--cubes-per-job", 4, "--job", 0), r"job=3 \(now 4\)")


def test_a_platform_by_either_name_and_one_that_is_not_known(archive: Path, tmp_path: Path) -> None:
    some = ("prechip", archive, "--assets", "red")
    assert "16 chips" in run(*some, "-o", tmp_path / "a", env={"STACCHIP_PLATFORM": "sentinel-2-l2a"}).stdout
    refused(run(*some, "-o", tmp_path / "b", "--platform", "naip"), "nothing to export")
    refused(run(*some, "-o", tmp_path / "b", "--platform", "spot"), "platform 'spot' is not known; there are sentinel-2-l2a, ")
    assert not (tmp_path / "b").exists()
    for clay in CLAY_SENSORS.values():
        assert CLAY_SENSORS[sensor_of_platform(clay.platform)].platform == clay.platform


def test_the_limit_of_nodata_is_a_fraction(tmp_path: Path) -> None:
    """stacchip makes it a whole number, 0, which it takes for no limit."""
    item = store_item(tmp_path, str(tmp_path), "naip", 1)
    index = merged_table([item], tmp_path / "index.parquet", nodata=0.04)
    env: dict[str, str | None] = {"STACCHIP_INDEXPATH": str(index), "STACCHIP_DATA_BUCKET": str(tmp_path)}
    for limit, chips in (("0.05", 4), ("0.03", 2), ("0", 2), (None, 4)):
        out = tmp_path / f"cubes-{limit}"
        result = run("prechip", "-o", out, env=env | {"STACCHIP_MAX_NODATA": limit})
        assert f"{chips} chips in 1 files" in result.stdout, result.output
    misused(run("prechip", "-o", out, env=env | {"STACCHIP_MAX_NODATA": "5"}), "0<=x<=1")


# -- what stacchip's processors left ------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_items_of_each_processor_are_found_and_read(platform: str, tmp_path: Path) -> None:
    """<bucket>/<platform>/<item>/stac_item.json, with the bands and the order of stacchip's prechip."""
    item, other = store_item(tmp_path, str(tmp_path), platform, 1), store_item(tmp_path, str(tmp_path), "naip", 3)
    index = merged_table([item, other], tmp_path / "index.parquet")
    env: dict[str, str | None] = {
        "STACCHIP_INDEXPATH": str(index), "STACCHIP_DATA_BUCKET": str(tmp_path), "STACCHIP_PLATFORM": platform,
    }  # fmt: skip
    result = run("prechip", "-o", tmp_path / "cubes", env=env)
    assert result.exit_code == 0, result.output
    paths = sorted((tmp_path / "cubes").rglob("*.npz"))
    assert {path.parent.name for path in paths} == {platform}
    mine = [one for one in (item, other) if one.platform == platform]
    assert_holds([dict(np.load(path)) for path in paths], mine)
    found = yaml.safe_load(run("stats", env=env).stdout)[platform]
    pixels = np.concatenate([one.pixels(x, y)[None] for one in mine for x, y in one.chips()])
    for number, band in enumerate(found["band_order"]):
        assert found["bands"]["mean"][band] == pytest.approx(pixels[:, number].astype("f8").mean(), rel=1e-12)


def test_tables_of_single_items_tell_their_bucket(tmp_path: Path) -> None:
    """index/<platform>/<item>/index_<item>.parquet, as the processors leave them, without columns for platform and item."""
    items = [store_item(tmp_path, str(tmp_path), platform, 1) for platform in ("naip", "modis")]
    for item in items:
        place = tmp_path / "index" / item.platform / item.item_id
        place.mkdir(parents=True)
        table = pq.read_table(merged_table([item], tmp_path / "one.parquet")).drop_columns(["platform", "item_id"])
        pq.write_table(table, place / f"index_{item.item_id}.parquet")
    env: dict[str, str | None] = {"STACCHIP_INDEXPATH": str(tmp_path / "index"), "STACCHIP_CHIP_BUCKET": str(tmp_path / "cubes")}
    result = run("prechip", env=env)
    assert result.exit_code == 0, result.output
    for item in items:
        (path,) = (tmp_path / "cubes" / item.platform).glob("*.npz")
        assert_holds([dict(np.load(path))], [item])


def test_every_format_knows_where_and_when_chips_of_old_indexes_are(tmp_path: Path) -> None:
    import rasterio

    item = store_item(tmp_path, str(tmp_path), "naip", 1)
    rows = xchip.stacchip.read_index(merged_table([item], tmp_path / "index.parquet"), items_root=str(tmp_path))
    assert rows["proj_left"].isna().all()
    assert xchip.export_chips(rows, tmp_path / "tifs", "tif", progress=False).failed == 0
    for x, y in item.chips():
        with rasterio.open(tmp_path / "tifs" / "_" / item.item_id / f"{item.item_id}-{x}-{y}.tif") as chip:
            assert chip.crs == "EPSG:32633"
            assert chip.bounds[:2] == (419_960 + 2560 * x, 5_400_000 - 2560 * (y + 1))
            assert chip.tags()["datetime"].startswith("2021-02-11T15:06:36")
            assert (chip.read() == item.pixels(x, y)).all()


def test_samples_for_training_know_where_and_when_chips_of_old_indexes_are(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    item = store_item(tmp_path, str(tmp_path), "naip", 1)
    rows = xchip.stacchip.read_index(merged_table([item], tmp_path / "index.parquet"), items_root=str(tmp_path))
    dataset = xchip.ChipDataset(rows)
    for number, (x, y) in enumerate(item.chips()):
        sample = dataset[number]
        lon, lat = item.centre(x, y)
        assert sample["chip_id"] == f"{item.item_id}-{x}-{y}"
        np.testing.assert_allclose(sample["latlon"], [*circle(lat / 360), *circle(lon / 360)], atol=1e-6)
        week = item.moment.item().isocalendar().week
        np.testing.assert_allclose(sample["time"], [*circle(week / 52), *circle(15 / 24)], atol=1e-6)


def test_an_item_that_is_not_in_the_bucket_is_named(tmp_path: Path) -> None:
    items = [store_item(tmp_path, str(tmp_path), "naip", number) for number in (1, 2)]
    index = merged_table(items, tmp_path / "index.parquet")
    gone = tmp_path / "naip" / items[1].item_id / "stac_item.json"
    gone.unlink()
    some = ("prechip", index, "-o", tmp_path / "cubes", "--data-bucket", tmp_path)
    result = run(*some)
    assert result.exit_code == 3, result.output
    assert "4 chips in 1 files, 0 skipped, 4 failed" in result.stdout
    assert str(gone) in result.stdout
    assert_holds([dict(np.load(path)) for path in (tmp_path / "cubes").rglob("*.npz")], items[:1])


# -- cubes --------------------------------------------------------------------------------------------------------------


def write_cube(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, pixels=pixels)


@pytest.mark.parametrize(
    ("platform", "nodata"), [("sentinel-1-rtc", -32768), ("modis", -28672), ("sentinel-2-l2a", 0), ("landsat-c2l1", 0)]
)
def test_statistics_of_cubes_leave_out_nodata(platform: str, nodata: float, tmp_path: Path) -> None:
    """Also that of Sentinel-1, where stacchip takes 0 for it and counts -32768 as a value."""
    bands = CLAY_SENSORS[sensor_of_platform(platform)].bands
    rng = np.random.default_rng(1)
    pixels = rng.normal(100, 30, (6, len(bands), 16, 16)).astype("float32")
    pixels[rng.random(pixels.shape) < 0.2] = nodata
    write_cube(tmp_path / platform / "cube_0.npz", pixels[:4])
    write_cube(tmp_path / platform / "cube_10.npz", pixels[4:])
    write_cube(tmp_path / platform / "cube_2.npz", pixels[:1] * 0 + 7)
    both = run("stats", "--cubes", tmp_path, "--platform", platform, "-o", tmp_path / "all.json")
    assert both.exit_code == 0, both.output
    found = xchip.BandStats.read(tmp_path / "all.json")[sensor_of_platform(platform)]
    everything = np.concatenate([pixels[:4], pixels[:1] * 0 + 7, pixels[4:]])
    assert found.chips == 7
    for number, band in enumerate(found.bands):
        values = everything[:, number][everything[:, number] != nodata].astype("f8")
        assert found.count[number] == values.size
        assert found.mean[number] == pytest.approx(values.mean(), rel=1e-12), band
        assert found.std[number] == pytest.approx(values.std(), rel=1e-9)
        assert (found.min[number], found.max[number]) == (values.min(), values.max())
    # By number, not by name: 0 and 2, where names would give 0 and 10.
    assert "5 chips" in run("stats", "--cubes", tmp_path, "--max-cubes", 2, "-o", tmp_path / "two.json").stdout


def test_black_pixels_of_photographs_count_unless_all_bands_are_black(tmp_path: Path) -> None:
    pixels = np.full((1, 4, 8, 8), 10, "float32")
    pixels[0, 0, 0], pixels[0, :, 1] = 0, 0
    write_cube(tmp_path / "mode_v1_chipper_v2" / "naip" / "cube_0.npz", pixels)
    found = xchip.BandStats.from_yaml(run("stats", "--cubes", tmp_path).stdout)["naip"]
    assert found.count == (56, 56, 56, 56)
    assert found.min == (0, 10, 10, 10)


def test_what_is_wrong_with_cubes_is_said(tmp_path: Path) -> None:
    refused(run("stats", "--cubes", tmp_path), r"no cubes \(cube_<number>\.npz\) in folder sentinel-2-l2a or ")
    write_cube(tmp_path / "naip" / "cube_0.npz", np.ones((1, 3, 8, 8), "float32"))
    refused(run("stats", "--cubes", tmp_path), r"cube_0\.npz' has pixels of shape \(1, 3, 8, 8\), not \(chip, 4, y, x\)")
    assert run("stats", "--cubes", tmp_path, "--assets", "red,green,blue").exit_code == 0
    misused(run("stats", "--cubes", tmp_path, "--sample", 4), "--sample is for an INDEX")
    misused(run("stats", tmp_path, "--cubes", tmp_path), "--cubes and index exclude each other|--cubes and INDEX exclude")
    refused(run("stats", "--cubes", tmp_path, "--platform", "spot"), "platform 'spot' is not known")


def test_of_an_index_as_many_chips_as_in_so_many_cubes(tmp_path: Path) -> None:
    item = write_scene(tmp_path, shape=(256, 256), nodata=0)
    xchip.build_index([str(item)], tmp_path / "archive", 16, client=False, progress=False)
    assert (xchip.read_index(tmp_path / "archive")["nodata_fraction"] == 0).sum() > 128
    done = run("stats", tmp_path / "archive", "--assets", "red", env={"STACCHIP_MAX_CUBES": "1"})
    assert xchip.BandStats.from_yaml(done.stdout) == xchip.band_stats(str(tmp_path / "archive"), "red", sample=128)


# -- the whole, in processes of their own, on a real server -------------------------------------------------------------


@dataclass(frozen=True)
class Bucket:
    """What stacchip's processors left on an S3 server: the buckets data, index and cubes."""

    environment: dict[str, str]
    items: list[Stored]

    @property
    def client(self) -> Any:
        return s3_client(self.environment["AWS_ENDPOINT_URL"])

    def everything(self, name: str) -> dict[str, bytes]:
        """All objects of a bucket."""
        entries = self.client.list_objects_v2(Bucket=name).get("Contents", [])
        return {entry["Key"]: self.client.get_object(Bucket=name, Key=entry["Key"])["Body"].read() for entry in entries}

    def cubes(self, platform: str) -> dict[str, dict[str, np.ndarray]]:
        """All cubes of a platform, by name."""
        found = {name: body for name, body in self.everything("cubes").items() if re.fullmatch(rf"{platform}/.*\.npz", name)}
        return {name: dict(np.load(io.BytesIO(body))) for name, body in found.items()}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    folder = tmp_path_factory.mktemp("stacchip")
    data = folder / "data"
    items = [store_item(data, "s3://data", "sentinel-2-l2a", number, size=(512, 768)) for number in range(3)]
    items.append(store_item(data, "s3://data", "naip", 4))
    index = merged_table(items, folder / "combined.parquet")
    server = folder / "s3"
    server.mkdir()
    with object_store(server) as environment:
        client = s3_client(environment["AWS_ENDPOINT_URL"])
        for name in ("data", "index", "cubes", "locked"):
            client.create_bucket(Bucket=name)
        client.put_object(Bucket="locked", Key="naip/cube_0.npz", Body=b"what was there")
        for path in data.rglob("*.*"):
            client.put_object(Bucket="data", Key=path.relative_to(data).as_posix(), Body=path.read_bytes())
        client.put_object(Bucket="index", Key="v1/combined.parquet", Body=index.read_bytes())
        yield Bucket(environment, items)


@pytest.mark.server
def test_an_array_job_of_stacchip_runs_as_it_is(bucket: Bucket) -> None:
    contract = {
        "STACCHIP_INDEXPATH": "s3://index/v1/combined.parquet", "STACCHIP_DATA_BUCKET": "data", "STACCHIP_CHIP_BUCKET": "cubes",
        "STACCHIP_PLATFORM": "sentinel-2-l2a", "STACCHIP_CUBES_PER_JOB": "2", "STACCHIP_POOL_SIZE": "2",
        "STACCHIP_MAX_NODATA": "0.05",
    }  # fmt: skip
    environment = cleared(**bucket.environment, **contract, XCHIP_PRECHIP_CUBE_SIZE=3)
    for expected in ("6 chips in 2 files, 0 skipped", "0 chips in 0 files, 6 skipped"):
        children = [started("prechip", environment | {"AWS_BATCH_JOB_ARRAY_INDEX": str(number)}) for number in range(4)]
        *jobs, beyond = ends(children)
        for status, out, err in jobs:
            assert status == 0, err
            assert expected in out
        assert beyond[0] == 0, beyond[2]
        assert "2 cubes per job make 3 jobs, counted from 0: there is nothing to do for job 3." in beyond[1]
    cubes = bucket.cubes("sentinel-2-l2a")
    assert sorted(cubes) == [f"sentinel-2-l2a/cube_{number}.npz" for number in range(6)]
    assert_holds(list(cubes.values()), bucket.items[:3])

    # The next platform, into the same bucket.
    ((status, out, err),) = ends(
        [started("prechip", environment | {"STACCHIP_PLATFORM": "naip", "AWS_BATCH_JOB_ARRAY_INDEX": "0"})]
    )
    assert status == 0, err
    assert_holds(list(bucket.cubes("naip").values()), bucket.items[3:])

    # stats, in the environment of the same job definition.
    settings = contract | {"STACCHIP_MAX_CUBES": "4"}
    ((status, out, err),) = ends([started("stats", cleared(**bucket.environment, **settings))])
    assert status == 0, err
    found = yaml.safe_load(out)["sentinel-2-l2a"]
    some = np.concatenate([cubes[f"sentinel-2-l2a/cube_{number}.npz"]["pixels"] for number in range(4)]).astype("f8")
    assert found["chips"] == 12
    for number, band in enumerate(found["band_order"]):
        assert found["bands"]["mean"][band] == pytest.approx(some[:, number].mean(), rel=1e-12)
        assert found["bands"]["std"][band] == pytest.approx(some[:, number].std(), rel=1e-9)


@pytest.mark.server
def test_a_bucket_that_can_not_be_written_leaves_what_is_there(bucket: Bucket) -> None:
    """No keys, wrong ones, those of one who may only read, no network, no index: one line, status 1."""
    contract = {
        "STACCHIP_INDEXPATH": "s3://index/v1/combined.parquet", "STACCHIP_DATA_BUCKET": "data", "STACCHIP_CHIP_BUCKET": "locked",
        "STACCHIP_PLATFORM": "naip", "AWS_EC2_METADATA_DISABLED": "true", "AWS_BATCH_JOB_ARRAY_INDEX": "0",
    }  # fmt: skip
    before = bucket.everything("locked")
    whole = bucket.environment | contract
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    index = "can't read the index 's3://index/v1/combined.parquet': "
    cases = {
        f"{index}Unable to locate credentials; check": {name: value for name, value in whole.items() if name not in keys},
        f"{index}Forbidden; check": whole | dict.fromkeys(keys, "wrong"),
        "can't write to 's3://locked': Access Denied; check": whole | dict(zip(keys, ("reader", "readersecret"), strict=True)),
        f"{index}Could not connect": whole | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
        "no index at 's3://index/no-such.parquet'": whole | {"STACCHIP_INDEXPATH": "s3://index/no-such.parquet"},
    }
    outcomes = ends([started("prechip", cleared(**environment)) for environment in cases.values()])
    for message, (status, _, err) in zip(cases, outcomes, strict=True):
        assert status == 1, err
        assert "Traceback" not in err, (message, err)
        (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert message in line
    assert bucket.everything("locked") == before == {"naip/cube_0.npz": b"what was there"}
