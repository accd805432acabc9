"""The commands of the recipes: their settings, stacchip's environment, array jobs, and how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely
from archives import make_items
from click.testing import Result
from command_line import misused, refused, run
from processes import free_port, object_store, stac_api
from published import write_layer

import xchip
from xchip.cli.processors import Names, Numbers
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.processors import NAMES, find

TILE, NOWHERE = shapely.box(-68.9, -32.6, -68.85, -32.55), shapely.box(20, 20, 21, 21)
SOURCE = {"sentinel-2": "STACCHIP_MGRS_SOURCE", "sentinel-1": "STACCHIP_MGRS_SOURCE", "landsat": "STACCHIP_SAMPLE_SOURCE",
          "naip": "STACCHIP_SAMPLE_SOURCE"}  # fmt: skip


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles 20LAA and 20LBB have scenes, 31NAA has none."""
    return write_layer(tmp_path_factory.mktemp("layer") / "tiles.gpkg", [TILE, TILE, NOWHERE], ["20LAA", "20LBB", "31NAA"])


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two scenes a quarter of 2020, of each of two tiles."""
    folder = tmp_path_factory.mktemp("api")
    items = make_items(folder, 16, shape=(128, 128))
    for number, item in enumerate(items):
        tile, quarter = ("20LAA", "20LBB")[number // 8], number % 8 // 2
        item["properties"] |= {
            "datetime": f"2020-{3 * quarter + 1:02d}-1{number % 2}T10:00:00Z",
            "grid:code": f"MGRS-{tile}",
            "s2:nodata_pixel_percentage": 3,
            "eo:cloud_cover": (30, 9, 80, 11)[number % 4],
        }
        item |= {"geometry": json.loads(shapely.to_geojson(TILE)), "bbox": list(TILE.bounds)}
    with stac_api(folder, items) as url:
        yield url


# Of quarters whose covers are 30 and 9, the 9; of those with 80 and 11, the 11.
LEAST = {0: {1, 3, 5, 7}, 1: {9, 11, 13, 15}}


def sentinel_2(api: str, layer: Path, *more: object, env: dict[str, str | None] | None = None) -> Result:
    return run(
        "sentinel-2", "--api", api, "--source", layer, "--years", 2020, "--number-of-years", 1, "--size", 64, *more, env=env
    )


def numbers(archive: Any, storage: StorageOptions | None = None) -> set[int]:
    """Numbers of an archive's items."""
    return {int(item_id.rpartition("-")[2]) for item_id in xchip.read_index(archive, storage=storage)["item_id"].unique()}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file with its size and time."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


# -- settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_the_variables_of_both_projects(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    prefix = f"XCHIP_{name.upper().replace('-', '_')}"
    assert f"{prefix}_INDEX, AWS_BATCH_JOB_ARRAY_INDEX" in text
    assert f"{prefix}_BUCKET, STACCHIP_BUCKET" in text
    assert ("STACCHIP" in text.replace("STACCHIP_BUCKET", "")) == (name in SOURCE)
    if name in SOURCE:
        assert f"{prefix}_SOURCE, {SOURCE[name]}" in text
    for option in find(name).all_options():
        assert f"--{option.name.replace('_', '-')}" in text
        assert f"{prefix}_{option.name.upper()}" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_setting_is_named_in_one_line_with_the_option_and_an_example(name: str, layer: Path) -> None:
    prefix = f"XCHIP_{name.upper().replace('-', '_')}"
    environment = {}
    if name in SOURCE:
        refused(run(name), rf"no --source: give it, as in --source places.gpkg, or set {prefix}_SOURCE or {SOURCE[name]}\.", 2)
        environment = {SOURCE[name]: str(layer)}
    refused(run(name, env=environment), rf"no --index: .* --index 0, or set {prefix}_INDEX or AWS_BATCH_JOB_ARRAY_INDEX\.", 2)
    environment["AWS_BATCH_JOB_ARRAY_INDEX"] = "0"
    refused(
        run(name, env=environment),
        rf"no --output: .* --output s3://bucket/folder, or set {prefix}_OUTPUT or .*STACCHIP_BUCKET",
        2,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", (5,)), ("0-3", (0, 1, 2, 3)), ("3, 7,9-10", (3, 7, 9, 10)), ("2018-2018", (2018,))],
)
def test_numbers_are_lists_and_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert Numbers().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["", "a", "3-", "-3", "5-3", "1,,2", "1.5"])
def test_what_holds_no_numbers_is_misuse(text: str) -> None:
    misused(run("linz", "--index", text), "is not a list of numbers >= 0; use numbers and ranges, such as 7, 0-9 or 3,7,11")


def test_names_are_separated_by_commas() -> None:
    assert Names().convert("red, scl", None, None) == ("red", "scl")


def test_what_excludes_each_other_is_misuse(layer: Path) -> None:
    source = ("--source", layer)
    misused(run("sentinel-2", *source, "-i", 0, "--part", "0/2", "-o", "x"), "--part and --index exclude each other")
    misused(run("sentinel-2", *source, "--part", "0/2", "--array", "-o", "x"), "--part and --array exclude each other")
    misused(run("sentinel-2", *source, "-i", 0, "-o", "x", "--bucket", "b"), "--output and --bucket exclude each other")
    misused(run("sentinel-2", *source, "-i", 0, "-o", "x", "--threads", 1, "--workers", 1), "exclude each other")


@pytest.mark.server
def test_the_command_line_goes_before_the_environment(api: str, layer: Path) -> None:
    def listed(*more: object, **env: str) -> set[int]:
        result = sentinel_2(
            api, layer, "--dry-run", *more, env={f"XCHIP_SENTINEL_2_{name}": value for name, value in env.items()}
        )
        assert result.exit_code == 0, result.output
        return {int(line.split()[1].rpartition("-")[2]) for line in result.output.splitlines() if line.startswith("sentinel-2")}

    assert listed("-i", 1, PART="0/3") == LEAST[1]
    assert listed("--part", "0/3", INDEX="1") == LEAST[0]
    assert listed("--part", "1/3", ARRAY="1") == LEAST[1]
    assert listed(PART="1/3", INDEX="0") == LEAST[1]
    assert listed(INDEX="0") == LEAST[0]


# -- what is done -------------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_run_and_another_that_finds_all_done(api: str, layer: Path, tmp_path: Path) -> None:
    result = sentinel_2(api, layer, "-i", 0, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert "4 indexed (16 chips), 0 skipped, 0 failed" in result.stdout
    assert numbers(tmp_path) == LEAST[0]
    files = {path.name for path in (tmp_path / "items").rglob("*.tif")}
    assert files == {"B02.tif", "B03.tif", "B04.tif", "B08.tif", "SCL.tif"}
    before = {name: facts for name, facts in tree(tmp_path).items() if name.startswith(("items/", "index/"))}
    again = sentinel_2(api, layer, "-i", 0, "-o", tmp_path)
    assert "0 indexed (0 chips), 4 skipped, 0 failed" in again.stdout
    assert before == {name: facts for name, facts in tree(tmp_path).items() if name.startswith(("items/", "index/"))}


@pytest.mark.server
def test_settings_come_from_the_environment(api: str, layer: Path, tmp_path: Path) -> None:
    environment = {
        "XCHIP_SENTINEL_2_API": api, "XCHIP_SENTINEL_2_OUTPUT": str(tmp_path), "XCHIP_SENTINEL_2_SOURCE": str(layer),
        "XCHIP_SENTINEL_2_INDEX": "1", "XCHIP_SENTINEL_2_YEARS": "2020", "XCHIP_SENTINEL_2_NUMBER_OF_YEARS": "1",
        "XCHIP_SENTINEL_2_SIZE": "32x64", "XCHIP_SENTINEL_2_COPY": "no", "XCHIP_SENTINEL_2_ASSETS": "red,scl",
        "XCHIP_SENTINEL_2_MAX_CLOUD_COVER": "10", "XCHIP_SENTINEL_2_MAX_NODATA": "1",
        "STACCHIP_BUCKET": "not-this-one", "AWS_BATCH_JOB_ARRAY_INDEX": "0",
    }  # fmt: skip
    result = run("sentinel-2", env=environment)
    assert result.exit_code == 0, result.output
    rows = xchip.read_index(tmp_path)
    assert numbers(tmp_path) == {9, 13}, "no more than 10 percent of cloud"
    assert set(zip(rows["height"], rows["width"], strict=True)) == {(32, 64)}
    assert not list((tmp_path / "items").rglob("*.tif"))
    (stored, *_) = (tmp_path / "items").rglob("*.json")
    assert set(json.loads(stored.read_text())["assets"]) == {"red", "scl"}


@pytest.mark.server
def test_what_would_be_taken_is_listed_and_nothing_is_written(api: str, layer: Path, tmp_path: Path) -> None:
    result = sentinel_2(api, layer, "-i", "0-1", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 8
    assert lines[0] == "sentinel-2-l2a item-0001 2020-01-11T10:00:00Z 9 % cloud"
    assert "No items found for unit 2." in sentinel_2(api, layer, "-i", 2, "--dry-run").stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.server
def test_shares_are_disjoint_and_are_all(api: str, layer: Path, tmp_path: Path) -> None:
    child = {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}
    assert sentinel_2(api, layer, "--part", "0/2", "-o", tmp_path / "0", env={"AWS_BATCH_JOB_ARRAY_INDEX": "9"}).exit_code == 0
    assert sentinel_2(api, layer, "--array", "-o", tmp_path / "1", env=child).exit_code == 0
    assert (numbers(tmp_path / "0"), numbers(tmp_path / "1")) == (LEAST[0], LEAST[1])


@pytest.mark.server
def test_an_empty_search_is_no_error(api: str, layer: Path, tmp_path: Path) -> None:
    result = sentinel_2(api, layer, "-i", 2, "-o", tmp_path / "archive")
    assert (result.exit_code, result.stdout) == (0, "No items found for unit 2: there is nothing to do.\n")
    assert not (tmp_path / "archive").exists()


# -- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_refusal_leaves_an_archive_as_it_is(api: str, layer: Path, tmp_path: Path) -> None:
    assert sentinel_2(api, layer, "-i", 0, "-o", tmp_path).exit_code == 0
    before = tree(tmp_path)
    unnamed = write_layer(tmp_path.parent / "unnamed.gpkg", [TILE], tile=["20LAA"])
    for arguments, message in (
        (("-i", 3), r"index 3 is out of range: 'sentinel-2' has 3 units in '.*tiles\.gpkg', counted from 0"),
        (("-i", 0, "--source", unnamed), "has no column 'name', only tile; pass its column of names as --column"),
        (("-i", 0, "--source", "/nowhere/tiles.gpkg"), r"can't open the layer '/nowhere/tiles\.gpkg'"),
        (("-i", 0, "--years", "2019-2020", "--number-of-years", 3), "can't draw 3 different years from 2019, 2020"),
        (("-i", 0, "--size", 128), r"was built with size=\[64, 64\] \(now \[128, 128\]\)"),
        (("-i", 0, "--collection", "sentinel-3"), "sentinel-3"),
    ):
        refused(sentinel_2(api, layer, "-o", tmp_path, *arguments), message)
        assert tree(tmp_path) == before


@pytest.mark.server
def test_files_that_can_not_be_had_end_with_status_3(layer: Path, tmp_path: Path) -> None:
    items = make_items(tmp_path / "source", 1, shape=(128, 128))
    items[0]["properties"] |= {"datetime": "2020-01-10T10:00:00Z", "grid:code": "MGRS-20LAA", "s2:nodata_pixel_percentage": 0}
    items[0] |= {"geometry": json.loads(shapely.to_geojson(TILE)), "bbox": list(TILE.bounds)}
    red = Path(items[0]["assets"]["red"]["href"])
    aside = red.rename(red.with_suffix(".gone"))
    with stac_api(tmp_path, items) as api:
        result = sentinel_2(api, layer, "-i", 0, "-o", tmp_path / "archive")
        assert result.exit_code == 3, result.output
        assert "1 failed" in result.stdout
        assert "FileNotFoundError" in result.stdout
        assert "xchip status" in result.stderr
        aside.rename(red)
        assert sentinel_2(api, layer, "-i", 0, "-o", tmp_path / "archive").exit_code == 0
    assert numbers(tmp_path / "archive") == {0}


@pytest.mark.parametrize("name", NAMES)
def test_without_a_network_nothing_is_written(name: str, layer: Path, tmp_path: Path) -> None:
    """A closed port in place of API, bucket, catalogue or list: one line that names it."""
    nobody = f"http://127.0.0.1:{free_port()}"
    out = ("-i", 0, "-o", tmp_path / "archive")
    source = ("--source", layer) if name in SOURCE else ()
    if name == "linz":
        pytest.importorskip("s3fs", reason="needs xchip[s3]")
        collection = "auckland/auckland_2022_0.075m/rgb/2193/collection.json"
        env = {"AWS_MAX_ATTEMPTS": "1"}
        refused(run(name, "--endpoint", nobody, *out, env=env), rf"can't read 's3://nz-imagery/{collection}': .*onnect")
        refused(run(name, "--catalogue", f"{nobody}/catalog.json", *out), rf"can't read '{nobody}/{collection}': .*onnect")
        refused(run(name, "--surveys", f"{nobody}/list.txt", *out), rf"can't read the surveys in '{nobody}/list\.txt'")
    else:
        refused(run(name, "--api", nobody, *source, *out), rf"the API {nobody} can't be reached: ")
    if source:
        refused(run(name, "--source", f"{nobody}/layer.gpkg", *out), rf"can't open the layer '{nobody}/layer\.gpkg': ")
    assert not (tmp_path / "archive").exists()


def test_an_archive_that_can_not_be_written(tmp_path: Path, layer: Path, api: str) -> None:
    (tmp_path / "file").write_text("")
    refused(sentinel_2(api, layer, "-i", 0, "-o", tmp_path / "file"), "file")


# -- array jobs, as stacchip's are set up ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with object_store(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


def child(index: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A child of an array job; all its settings are in the environment."""
    script = Path(sys.executable).with_name("xchip-sentinel-2")
    known = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STACCHIP_", "XCHIP_"))}
    settings = known | environment | {"AWS_BATCH_JOB_ARRAY_INDEX": str(index)}
    return subprocess.Popen([script], env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ends(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.server
def test_the_children_of_an_array_job_do_disjoint_units_on_one_bucket(store: dict[str, str], api: str, layer: Path) -> None:
    contract = {"STACCHIP_MGRS_SOURCE": str(layer), "STACCHIP_BUCKET": "scenes"}
    settings = {"XCHIP_SENTINEL_2_API": api, "XCHIP_SENTINEL_2_YEARS": "2020", "XCHIP_SENTINEL_2_NUMBER_OF_YEARS": "1"}
    settings |= {"XCHIP_SENTINEL_2_SIZE": "64"}
    environment = store | contract | settings
    storage = StorageOptions(endpoint=store["AWS_ENDPOINT_URL"], region="us-west-2", key="testkey", secret="testsecret")
    for outcome in ("4 indexed (16 chips), 0 skipped, 0 failed", "0 indexed (0 chips), 4 skipped, 0 failed"):
        children = [child(index, environment) for index in (0, 1, 2)]
        first, second, third = map(ends, children)
        assert (first[0], second[0], third[0]) == (0, 0, 0), (first, second, third)
        assert outcome in first[1]
        assert outcome in second[1]
        assert third[1] == "No items found for unit 2: there is nothing to do.\n"
        assert numbers("s3://scenes", storage) == LEAST[0] | LEAST[1]
    names = [entry.name for entry in Store("s3://scenes", storage).entries("items/sentinel-2-l2a/item-0001")]
    assert len(names) == 6


@pytest.mark.server
def test_a_bucket_without_keys_or_network(store: dict[str, str], api: str, layer: Path) -> None:
    known = {"STACCHIP_MGRS_SOURCE": str(layer), "XCHIP_SENTINEL_2_API": api, "XCHIP_SENTINEL_2_YEARS": "2020"}
    known |= {"XCHIP_SENTINEL_2_NUMBER_OF_YEARS": "1", "STACCHIP_BUCKET": "scenes", "AWS_EC2_METADATA_DISABLED": "true"}
    without = {name: value for name, value in store.items() if name not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    gone = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_MAX_ATTEMPTS": "1"}
    anybody = {"AWS_ACCESS_KEY_ID": "stranger", "AWS_SECRET_ACCESS_KEY": "wrong"}
    reader = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "readersecret", "STACCHIP_BUCKET": "public"}
    owner = Store("s3://scenes", StorageOptions(endpoint=store["AWS_ENDPOINT_URL"], key="testkey", secret="testsecret"))
    before = {entry.name: owner.read(entry.name) for entry in owner.entries()}
    cases = (without | known, store | known | anybody, store | known | reader, store | known | gone)
    children = [child(0, settings) for settings in cases]
    for (status, _, err), message in zip(map(ends, children), ("credentials", "Forbidden", "Denied", "onnect"), strict=True):
        assert status == 1, err
        assert "Traceback" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert re.match("Error: can't write the archive 's3://(scenes|public)': ", line), line
        assert message in line
    assert {entry.name: owner.read(entry.name) for entry in owner.entries()} == before
