"""Archives, tables and exports that earlier code wrote: they open, resume and give the same rows and pixels as on that day.

See ``data/old-archives/README.md``. Each test works on a copy in another folder, by public names and the command line alone.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from command_line import run
from servers import RangeServer

import xchip

DATA = Path(__file__).parent / "data" / "old-archives"
SELF_CONTAINED = ("sentinel-2", "landsat", "naip", "no-quality", "own-profile", "series")
"""Archives that hold the files of their items."""
MERGED = ("sentinel-2", "landsat", "naip", "no-quality")
EXPORTS = {
    "npz": lambda: xchip.Cubes(size=10),
    "tar": lambda: xchip.Shards(size=10),
    "tif": lambda: xchip.GeoTiffs(),
    "zarr": lambda: xchip.ZarrStore(chunk=4, shard=8),
}


def _load_plain() -> Any:
    spec = importlib.util.spec_from_file_location("old_archives_plain", DATA / "plain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain = _load_plain()
INDEXING: dict[str, dict[str, Any]] = {"own-profile": {"sensor": plain.DRONE}, "series": {"quality": plain.STRICT}}
"""Arguments of `build_index` that JSON does not hold."""
OPENING: dict[str, dict[str, Any]] = {"own-profile": {"sensor": plain.DRONE}}
"""The same of `open_chips`."""


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(DATA / name, folder / name))


def archive_of(name: str, folder: Path) -> Path:
    """A copy of an archive in a folder of another name."""
    return Path(shutil.copytree(DATA / name / "archive", folder / f"{name} moved"))


def expected_of(name: str) -> dict[str, Any]:
    return json.loads((DATA / name / "expected.json").read_text())


def records(rows: list[list[Any]], *without: str) -> dict[str, dict[str, Any]]:
    """Rows by item, chip and step."""
    columns, *values = rows
    kept = [{name: value for name, value in zip(columns, row, strict=True) if name not in without} for row in values]
    return {f"{row['item_id']} {row['chip_id']} {row.get('step')}": row for row in kept}


def assert_same_values(rows: list[list[Any]], expected: list[list[Any]], *without: str) -> None:
    """The same rows in any order, footprints to within a few millimetres: for rows that are computed again."""
    known, wanted = records(rows, *without), records(expected, *without)
    assert len(known) == len(rows) - 1
    bounds = {key: (row.pop("bounds"), wanted[key].pop("bounds")) for key, row in known.items()}
    assert known == wanted
    for computed, stored in bounds.values():
        np.testing.assert_allclose(computed, stored, rtol=0, atol=1e-8)


def snapshot(*folders: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and its content."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def assert_looks_as_expected(archive: Path, expected: dict[str, Any]) -> None:
    """``status`` and ``verify`` report what they reported."""
    wanted = dict(expected["status"])
    result = run("status", "--json", archive)
    assert result.exit_code == wanted.pop("exit")
    status = json.loads(result.stdout)
    assert {name: status[name] for name in wanted} == wanted
    result = run("verify", archive)
    assert result.exit_code == expected["verify"]["exit"]
    lines = result.stdout.splitlines()
    problems = expected["verify"]["problems"]
    for path in problems:
        assert sum(line.startswith(path) for line in lines) == 1
    assert len(lines) == len(problems) + 1


# -- archives -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SELF_CONTAINED, "interrupted"])
def test_status_and_verify_report_the_same(name: str, tmp_path: Path) -> None:
    assert_looks_as_expected(archive_of(name, tmp_path), expected_of(name))


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_an_archive_opens_with_the_same_rows(name: str, tmp_path: Path) -> None:
    archive, expected = archive_of(name, tmp_path), expected_of(name)
    rows = xchip.read_index(archive)
    assert plain.rows_of(rows, archive) == expected["rows"]
    assert plain.number_types(rows) == expected["dtypes"]
    lazy = xchip.open_index(archive)
    assert plain.rows_of(lazy.compute(), archive) == expected["rows"]
    assert xchip.read_index(archive, bbox=expected["bbox"]).chip_id.tolist() == expected["in_bbox"]
    clear = [("clear_fraction", ">", 0.5)]
    assert xchip.read_index(archive, filters=clear).chip_id.tolist() == expected["clear"]
    assert xchip.open_index(archive, filters=clear).chip_id.compute().tolist() == expected["clear"]


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_an_archive_opens_without_its_manifest_and_without_its_ledger(name: str, tmp_path: Path) -> None:
    archive, expected = archive_of(name, tmp_path), expected_of(name)
    (archive / "manifest.parquet").unlink()
    assert plain.rows_of(xchip.read_index(archive), archive) == expected["rows"]
    shutil.rmtree(archive / "ledger")
    assert_same_values(plain.rows_of(xchip.read_index(archive), archive), expected["rows"])


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_chips_of_an_archive_have_the_same_pixels(name: str, tmp_path: Path) -> None:
    archive, expected = archive_of(name, tmp_path), expected_of(name)
    chips = xchip.open_chips(archive, **expected["opening"], **OPENING.get(name, {}))
    assert plain.nodata_of(chips) == expected["nodata"]
    pixels = plain.pixels_of(chips)
    assert pixels == expected["pixels"]
    assert list(pixels) == list(expected["pixels"])


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_resuming_skips_everything_and_rewrites_nothing(name: str, tmp_path: Path) -> None:
    archive, expected = archive_of(name, tmp_path), expected_of(name)
    items, arguments = str(DATA / name / "items.ndjson"), {**expected["arguments"], **INDEXING.get(name, {})}
    before = snapshot(archive / "items", archive / "index")
    report = xchip.build_index(items, archive, client=False, progress=False, **arguments)
    assert (report.done, report.skipped, report.failed) == (0, expected["status"]["parts"], 0)
    assert snapshot(archive / "items", archive / "index") == before
    assert plain.rows_of(xchip.read_index(archive), archive) == expected["rows"]
    assert_looks_as_expected(archive, expected)
    with pytest.raises(ValueError, match="size"):
        xchip.build_index(items, archive, client=False, progress=False, **arguments | {"size": 64})


def test_the_command_line_resumes_too(tmp_path: Path) -> None:
    archive = archive_of("sentinel-2", tmp_path)
    before = snapshot(archive / "items", archive / "index")
    result = run("index", DATA / "sentinel-2" / "items.ndjson", "-o", archive, "--size", 32)
    assert result.exit_code == 0, result.output
    assert snapshot(archive / "items", archive / "index") == before


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_the_items_in_an_archive_give_its_rows_again(name: str, tmp_path: Path) -> None:
    archive, expected = archive_of(name, tmp_path), expected_of(name)
    items = sorted((archive / "items").rglob("*.json"))
    assert len(items) == expected["status"]["parts"]
    rows = xchip.index_items(items, **expected["arguments"], **INDEXING.get(name, {})).compute()
    assert_same_values(plain.rows_of(rows, archive), expected["rows"])


def test_an_interrupted_archive_is_completed(tmp_path: Path) -> None:
    folder, expected = copied("interrupted", tmp_path), expected_of("interrupted")
    archive = folder / "archive"
    assert_same_values(plain.rows_of(xchip.read_index(archive), archive), expected["rows_before"])
    before = snapshot(archive / "index", archive / "items")
    with RangeServer(folder) as server:
        pixels = xchip.StorageOptions(endpoint=server.url, unsigned=True)

        def resume() -> tuple[int, int, int]:
            items = str(folder / "items.ndjson")
            report = xchip.build_index(items, archive, pixels=pixels, client=False, progress=False, **expected["arguments"])
            return report.done, report.skipped, report.failed

        assert resume() == (4, 2, 0)
        requests = {path.split("/")[2] for _, path, _ in server.requests}
        # Scene 4 is done, though nobody recorded it; scene 2 failed.
        assert requests == {"scene-2", "scene-5", "scene-6"}
        after = snapshot(archive / "index", archive / "items")
        assert {path: after[path] for path in before} == before
        assert_same_values(plain.rows_of(xchip.read_index(archive), archive), expected["rows"])
        assert run("status", archive).exit_code == 0
        assert run("verify", archive).exit_code == 0
        chips = xchip.open_chips(archive, **expected["opening"], pixels=pixels)
        assert plain.nodata_of(chips) == expected["nodata"]
        assert plain.pixels_of(chips) == expected["pixels"]
        assert resume() == (0, 6, 0)


# -- merged indexes and other tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["index.parquet", "index"])
def test_a_merged_index_opens_with_the_same_rows(name: str) -> None:
    expected = expected_of("merged")
    assert plain.rows_of(xchip.read_index(DATA / "merged" / name)) == expected["rows"]
    assert plain.rows_of(xchip.open_index(DATA / "merged" / name).compute()) == expected["rows"]


def test_chips_of_a_merged_index_are_read_from_archives_that_were_moved(tmp_path: Path) -> None:
    """Its hrefs lead to where the archives were; ``items=`` says where they are."""
    archive, expected = archive_of("sentinel-2", tmp_path), expected_of("sentinel-2")
    rows = xchip.read_index(DATA / "merged" / "index.parquet", filters=[("sensor", "==", "sentinel-2-l2a")])
    chips = xchip.open_chips(rows, **expected["opening"], items=sorted((archive / "items").rglob("*.json")))
    assert plain.pixels_of(chips) == expected["pixels"]


@pytest.mark.parametrize("name", ["index.parquet", "index"])
def test_merging_old_archives_gives_the_same_index(name: str, tmp_path: Path) -> None:
    archives = [archive_of(source, tmp_path) for source in MERGED]
    expected = expected_of("merged")
    assert expected["sources"] == list(MERGED)
    merged = xchip.merge_indexes(archives, tmp_path / name, progress=False)
    rows, wanted = (
        [[value for value, column in zip(row, table[0], strict=True) if column != "item_href"] for row in table]
        for table in (plain.rows_of(xchip.read_index(merged)), expected["rows"])
    )
    assert rows == wanted


@pytest.mark.parametrize("name", ["index.parquet", "index"])
def test_a_merged_index_is_changed_in_place(name: str, tmp_path: Path) -> None:
    merged, archive, expected = copied("merged", tmp_path) / name, archive_of("naip", tmp_path), expected_of("merged")
    xchip.merge_indexes(None, merged, drop={"sensor": "naip"}, progress=False)
    assert set(xchip.read_index(merged).sensor.dropna()) == {"sentinel-2-l2a", "landsat-c2-l2"}
    xchip.merge_indexes(None, merged, add=archive, progress=False)
    assert_same_values(plain.rows_of(xchip.read_index(merged)), expected["rows"], "item_href")


def test_a_series_opens_and_is_made_again(tmp_path: Path) -> None:
    archive, expected = archive_of("series", tmp_path), expected_of("series-table")
    rows = xchip.read_index(DATA / "series-table" / "series.parquet")
    assert plain.rows_of(rows) == expected["rows"]
    chips = xchip.open_chips(rows, expected["assets"], items=sorted((archive / "items").rglob("*.json")))
    assert chips.observed.values.tolist() == expected["observed"]
    assert plain.pixels_of(chips, "place_id") == expected["pixels"]
    again = xchip.series(archive, **expected["options"])
    assert_same_values(plain.rows_of(again), expected["rows"], "item_href")


def test_a_split_opens_and_is_made_again() -> None:
    expected = expected_of("split")
    assert plain.rows_of(xchip.read_index(DATA / "split" / "split.parquet")) == expected["rows"]
    again = xchip.split(DATA / "merged" / "index.parquet", **expected["options"])
    assert plain.rows_of(again) == expected["rows"]


def test_an_index_in_stacchips_columns_opens(tmp_path: Path) -> None:
    archive, expected = archive_of("sentinel-2", tmp_path), expected_of("stacchip-columns")
    rows = xchip.read_index(DATA / "stacchip-columns" / "index.parquet", chip_size=32)
    assert plain.rows_of(rows) == expected["rows"]
    pixels = expected_of("sentinel-2")
    chips = xchip.open_chips(rows, **pixels["opening"], items=sorted((archive / "items").rglob("*.json")))
    assert plain.pixels_of(chips) == pixels["pixels"]


def test_a_bucket_of_stacchip_opens(tmp_path: Path) -> None:
    folder, expected = copied("stacchip-bucket", tmp_path), expected_of("stacchip-bucket")
    bucket = folder / "bucket"
    rows = xchip.read_index(bucket, chip_size=32)
    assert plain.rows_of(rows, bucket) == expected["rows"]
    merged = xchip.read_index(folder / "merged.parquet", chip_size=32, items_root=str(bucket))
    assert plain.rows_of(merged, bucket) == expected["merged"]
    for table in (rows, merged):
        assert plain.pixels_of(xchip.open_chips(table, expected["assets"])) == expected["pixels"]


# -- exports ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_resumed_and_nothing_is_rewritten(name: str, tmp_path: Path) -> None:
    expected = expected_of("exports")[name]
    archives = [archive_of(source, tmp_path) for source in expected["archives"]]
    out = copied(f"exports/{name}", tmp_path)
    before = snapshot(out)
    assert sorted(path.relative_to(out).as_posix() for path in before) == expected["files"]
    report = xchip.export_chips(archives, out, EXPORTS[name](), client=False, progress=False, **expected["options"])
    assert (report.done, report.skipped, report.failed) == (0, expected["chips"], 0)
    assert snapshot(out) == before


@pytest.mark.parametrize("name", EXPORTS)
def test_the_same_export_holds_the_same_chips(name: str, tmp_path: Path) -> None:
    expected = expected_of("exports")[name]
    archives = [archive_of(source, tmp_path) for source in expected["archives"]]
    xchip.export_chips(archives, tmp_path / name, EXPORTS[name](), client=False, progress=False, **expected["options"])
    READERS[name](tmp_path / name, expected)


@pytest.mark.parametrize("name", EXPORTS)
def test_the_files_of_an_export_are_read(name: str) -> None:
    READERS[name](DATA / "exports" / name, expected_of("exports")[name])


def check_cubes(out: Path, expected: dict[str, Any]) -> None:
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.npz")} == set(expected["arrays"])
    for name, arrays in expected["arrays"].items():
        with np.load(out / name) as cube:
            assert [plain.digest(chip) for chip in cube["pixels"]] == arrays["pixels"]
            assert set(cube.files) == set(arrays)
            for key in set(arrays) - {"pixels"}:
                np.testing.assert_allclose(cube[key], np.array(arrays[key]), rtol=0, atol=1e-6)


def check_shards(out: Path, expected: dict[str, Any]) -> None:
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.tar")} == set(expected["members"])
    for name, members in expected["members"].items():
        with tarfile.open(out / name) as shard:
            files = {member.name: shard.extractfile(member) for member in shard.getmembers()}
            contents = {member: file.read() for member, file in files.items() if file is not None}
        assert list(contents) == list(members)
        for member, content in contents.items():
            if member.endswith(".npy"):
                assert plain.digest(np.load(BytesIO(content))) == members[member]
            else:
                assert json.loads(content) == close(members[member])


def close(value: Any) -> Any:
    """A value that equals what is the same but for the last digits of numbers."""
    if isinstance(value, dict):
        return {key: close(each) for key, each in value.items()}
    if isinstance(value, list):
        return [close(each) for each in value]
    return pytest.approx(value, rel=1e-12, abs=1e-6) if isinstance(value, float) else value


def check_rasters(out: Path, expected: dict[str, Any]) -> None:
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.tif")} == set(expected["rasters"])
    for name, raster in expected["rasters"].items():
        with rasterio.open(out / name) as file:
            assert plain.digest(file.read()) == raster["pixels"]
            assert file.crs.to_string() == raster["crs"]
            assert list(file.transform)[:6] == raster["transform"]
            assert file.nodata == raster["nodata"]
            assert list(file.descriptions) == raster["bands"]


def check_zarr(out: Path, expected: dict[str, Any]) -> None:
    pytest.importorskip("zarr")
    with xr.open_zarr(out / "chips.zarr") as store:
        assert plain.pixels_of(store) == expected["pixels"]
        coords = {name: [plain.plain(value) for value in store[name].values.tolist()] for name in expected["coords"]}
        assert coords == expected["coords"]
        assert store.datetime.values.astype("datetime64[us]").astype(str).tolist() == expected["datetime"]


READERS = {"npz": check_cubes, "tar": check_shards, "tif": check_rasters, "zarr": check_zarr}
