"""The LINZ recipe: which surveys, which scenes of them, and what becomes of those."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.vrt
from click.testing import CliRunner
from command_line import run
from hypothesis import given
from hypothesis import strategies as st
from recipe_runs import buckets, three_runs
from servers import RangeServer

import xchip
from xchip.cli.sample_places import linz_surveys
from xchip.indexing.archive.status import status
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.processors import linz, process
from xchip.processors.recipe import Catalogue, Item, Staging, Unit

# Paths as the catalogue has them, and which are the latest of their area.
PATHS = {
    "auckland/auckland_2010-2011_0.125m/rgb/2193": False,
    "auckland/auckland_2010-2012_0.5m/rgb/2193": False,
    "auckland/auckland_2022_0.075m/rgb/2193": True,
    "auckland/auckland_2022_0.075m/rgbnir/2193": False,
    "auckland/auckland_sn9211_2024_0.2m/2193/rgb": False,
    "bay-of-plenty/bay-of-plenty_gisborne_sn5975_1981_0.15m/2193/rgb": False,
    "bay-of-plenty/tauranga-city_2022_0.1m/rgb/2193": True,
    "bay-of-plenty/tauranga_2017_0.1m/rgb/2193": True,
    "bay-of-plenty/tauranga_winter_2022_0.1m/rgb/2193": True,
    "canterbury/snowdon_1999_0.25m/2193/rgb": True,
    "manawatu-whanganui/palmerston-north_2014_0.4m/rgb/2193": False,
    "manawatu-whanganui/palmerston-north_2018_0.125m/rgb/2193": False,
    "manawatu-whanganui/palmerston-north_2021-2022_0.125m/rgb/2193": True,
    "new-zealand/new-zealand_2021-2022_10m/rgb/2193": False,
    "wellington/wellington_2021_0.075m/rgb/2193": True,
    "wellington/wellington_2021_0.3m/rgb/2193": True,
}
OPTIONS: dict[str, Any] = {option.name: option.default for option in linz.RECIPE.all_options()}


def write_catalogue(folder: Path, paths: dict[str, int]) -> None:
    """A static catalogue like that of the bucket: survey's path -> number of its scenes."""
    children = [{"rel": "child", "href": f"./{path}/collection.json", "title": path} for path in paths]
    links = [{"rel": "self", "href": "https://example.com/catalog.json"}, {"rel": "root", "href": "./catalog.json"}, *children]
    write(folder / "catalog.json", {"stac_version": "1.0.0", "type": "Catalog", "id": "linz-imagery", "links": links})
    for number, (path, count) in enumerate(paths.items()):
        names = [f"AZ30_10000_{scene:04d}" for scene in range(count)]
        items = [{"rel": "item", "href": f"./{name}.json", "type": "application/json"} for name in names]
        collection = {"type": "Collection", "stac_version": "1.0.0", "id": f"01GSEBA9{number}", "links": [links[1], *items]}
        write(folder / path / "collection.json", collection)
        for name in names:
            write(folder / path / f"{name}.json", scene(name, f"01GSEBA9{number}"))


def scene(name: str, collection: str) -> Item:
    """An item as in the bucket: no grid, no bands, no date but a stretch of time, a relative href."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "links": [{"rel": "self", "href": f"./{name}.json"}, {"rel": "collection", "href": "./collection.json"}],
        "assets": {"visual": {"href": f"./{name}.tiff", "type": "image/tiff; application=geotiff; profile=cloud-optimized"}},
        "stac_extensions": [],
        "properties": {"start_datetime": "2021-10-30T11:00:00Z", "end_datetime": "2022-02-02T12:00:00Z", "datetime": None},
        "geometry": {"type": "Polygon", "coordinates": [[[174.2, -36.3], [174.2, -36.4], [174.3, -36.4], [174.2, -36.3]]]},
        "bbox": [174.2, -36.4, 174.3, -36.3],
        "collection": collection,
    }


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_picture(path: Path, resolution: float, metres: float = 60, *, left: float = 1_700_000, bands: int = 4) -> np.ndarray:
    """Red, green, blue and alpha, as LINZ writes them; in the left quarter there is no picture. Gives the pixels."""
    size = round(metres / resolution)
    pixels = np.random.default_rng(size).integers(1, 255, (bands, size, size), "uint8")
    pixels[-1] = 255
    pixels[:, :, : size // 4] = 0
    transform = rasterio.transform.from_origin(left, 5_900_000, resolution, resolution)
    profile = {
        "driver": "GTiff",
        "count": bands,
        "dtype": "uint8",
        "crs": "EPSG:2193",
        "transform": transform,
        "photometric": "RGB",
    }
    with rasterio.open(path, "w", width=size, height=size, alpha="YES", **profile) as file:
        file.write(pixels)
    return pixels


def chosen(catalogue: str, path: str, seed: int = 0, **options: Any) -> list[Item]:
    source = Catalogue(None, StorageOptions(unsigned=True))
    options = OPTIONS | {"catalogue": catalogue} | options
    return list(linz.choose(Unit(0, path), source, np.random.default_rng(seed), options))


# Which surveys


def test_the_latest_survey_of_each_area() -> None:
    assert [survey.path for survey in linz.latest_surveys(PATHS)] == [path for path, latest in PATHS.items() if latest]
    assert "auckland/auckland_2010-2012_0.5m/rgb/2193" not in [s.path for s in linz.latest_surveys(PATHS, 0.5)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["otago/otago", "otago/dunedin", "tasman/tasman"]),
            st.integers(1990, 2024),
            st.integers(0, 2),
            st.sampled_from([0.05, 0.1, 0.3, 0.31, 0.4, 10]),
        ),
        unique=True,
    ),
    st.randoms(),
)
def test_the_rule_for_the_latest(surveys: list[tuple[str, int, int, float]], random: Any) -> None:
    paths = {}
    for area, first, years, resolution in surveys:
        stretch = f"{first}-{first + years}" if years else f"{first}"
        paths[f"{area}_{stretch}_{resolution:g}m/rgb/2193"] = (area, first + years, resolution)
    found = linz.latest_surveys(paths)
    fine = {path: (area, year) for path, (area, year, resolution) in paths.items() if resolution <= 0.3}
    for path, (area, year) in fine.items():
        newest = max(other for one, other in fine.values() if one == area)
        assert (path in {survey.path for survey in found}) == (year == newest)
    shuffled = list(paths)
    random.shuffle(shuffled)
    assert linz.latest_surveys(shuffled) == found
    assert {survey.path for survey in found} <= set(fine)


def test_the_surveys_that_come_with_the_package_are_such_surveys() -> None:
    paths = linz.read_surveys(None)
    surveys = [linz.Survey.of(path) for path in paths]
    assert all(survey is not None and survey.product == "rgb" and survey.resolution <= 0.3 for survey in surveys)
    assert len(set(paths)) == len(paths) == 39
    # An array job's index means the same survey as with stacchip.
    assert paths[0].startswith("auckland/auckland_2022_0.075m/")
    assert paths[38].startswith("west-coast/west-coast_2016_0.1m/")
    # None is older than another of its area.
    assert {survey.path for survey in linz.latest_surveys(paths)} == set(paths)


def test_units_are_the_surveys_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "surveys.txt"
    path.write_text("# mine\n\nb/b_2020_0.1m/rgb/2193/\na/a_2020_0.1m/rgb/2193 # the second\n")
    units = linz.units(OPTIONS | {"surveys": str(path)})
    assert [(unit.index, unit.name) for unit in units] == [(0, "b/b_2020_0.1m/rgb/2193"), (1, "a/a_2020_0.1m/rgb/2193")]
    assert len(linz.units(OPTIONS)) == 39


def test_the_command_that_lists_surveys_anew(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "bucket", dict.fromkeys(PATHS, 1))
    out = tmp_path / "surveys.txt"
    with RangeServer(tmp_path / "bucket") as server:
        arguments = ["--catalogue", f"{server.url}/catalog.json"]
        printed = CliRunner().invoke(linz_surveys, arguments, catch_exceptions=False)
        written = CliRunner().invoke(linz_surveys, [*arguments, "-o", str(out)], catch_exceptions=False)
    assert (printed.exit_code, written.exit_code) == (0, 0)
    assert printed.output == out.read_text()
    assert linz.read_surveys(str(out)) == [path for path, latest in PATHS.items() if latest]
    assert written.output == f"8 surveys in {out}\n"


def test_a_catalogue_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    for content, message in (("<html>", "is no JSON"), ("[]", "is no STAC object, but list"), ("{}", "relation 'child'")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            linz.survey_paths(str(path))
    with pytest.raises(FileNotFoundError):
        linz.survey_paths(str(tmp_path / "other.json"))


# Which scenes


@given(
    count=st.integers(0, 200), share=st.floats(0, 1), least=st.integers(0, 30), more=st.integers(0, 100), seed=st.integers(0, 9)
)
def test_how_many_scenes_and_which(count: int, share: float, least: int, more: int, seed: int) -> None:
    names = [f"scene-{number:03d}" for number in range(count)]
    found = linz.some_of(names, np.random.default_rng(seed), share, least, least + more)
    assert len(found) == min(count, least + more, max(least, int(count * share)))
    assert set(found) <= set(names)
    assert len(set(found)) == len(found)
    assert linz.some_of(reversed(names), np.random.default_rng(seed), share, least, least + more) == found


def test_other_seeds_take_other_scenes_and_each_as_often() -> None:
    names = [f"{number:02d}" for number in range(20)]
    times = Counter(name for seed in range(400) for name in linz.some_of(names, np.random.default_rng(seed), 0.5, 1, 100))
    assert min(times.values()) > 150
    assert max(times.values()) < 250


def test_contradicting_limits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"min_scenes must not be above max_scenes.*got 5 and 4"):
        linz.some_of("abc", np.random.default_rng(0), 0.5, 5, 4)


def test_scenes_of_a_survey_from_a_folder_and_a_server(tmp_path: Path) -> None:
    path = "auckland/auckland_2022_0.075m/rgb/2193"
    write_catalogue(tmp_path, {path: 130, "otago/otago_2018_0.1m/rgb/2193": 7})
    items = chosen(f"{tmp_path}/catalog.json", path)
    assert len(items) == 65
    assert len({item["id"] for item in items}) == 65
    assert all(item["collection"] == "01GSEBA90" for item in items)
    assert items[0]["assets"]["visual"]["href"] == f"{tmp_path}/{path}/{items[0]['id']}.tiff"
    assert len(chosen(f"{tmp_path}/catalog.json", "otago/otago_2018_0.1m/rgb/2193")) == 7
    assert [item["id"] for item in chosen(f"{tmp_path}/catalog.json", path, seed=1)] != [item["id"] for item in items]
    with RangeServer(tmp_path) as server:
        served = chosen(f"{server.url}/catalog.json", path)
        asked = [name for _, name, _ in server.requests if name.endswith(".json")]
    assert [item["id"] for item in served] == [item["id"] for item in items]
    assert served[0]["assets"]["visual"]["href"] == f"{server.url}/{path}/{items[0]['id']}.tiff"
    # Items that are not taken are not read.
    assert len(set(asked)) == 1 + 65


def test_a_survey_that_is_not_there(tmp_path: Path) -> None:
    write_catalogue(tmp_path, {"otago/otago_2018_0.1m/rgb/2193": 1})
    with pytest.raises(FileNotFoundError):
        chosen(f"{tmp_path}/catalog.json", "otago/otago_2019_0.1m/rgb/2193")


def test_a_scene_that_can_not_be_had_does_not_stop_its_survey(tmp_path: Path) -> None:
    survey = "auckland/auckland_2022_0.075m/rgb/2193"
    folder = tmp_path / "source"
    write_catalogue(folder, {survey: 4})
    for number in range(4):
        write_picture(folder / survey / f"AZ30_10000_{number:04d}.tiff", 0.6, left=1_700_000 + 100 * number)
    (tmp_path / "surveys.txt").write_text(f"{survey}\n")
    gone, broken = (folder / survey / f"AZ30_10000_{number:04d}.json" for number in (1, 2))
    gone.unlink()
    broken.write_text("{")

    with RangeServer(folder) as server:
        options = {
            "surveys": str(tmp_path / "surveys.txt"), "catalogue": f"{server.url}/catalog.json", "share": 1.0, "size": 50,
            "storage": StorageOptions(), "pixels": StorageOptions(), "progress": False,
        }  # fmt: skip
        report = process("linz", tmp_path / "archive", 0, **options)
        assert (report.done, report.failed) == (2, 2)
        messages = dict(zip(report.failures["item_id"], report.failures["message"], strict=True))
        assert messages.keys() == {"AZ30_10000_0001", "AZ30_10000_0002"}
        assert "AZ30_10000_0001.json' is not there, though the survey names it" in messages["AZ30_10000_0001"]
        assert "AZ30_10000_0002.json' is no JSON" in messages["AZ30_10000_0002"]
        for path in (gone, broken):
            write(path, scene(path.stem, "01GSEBA90"))
        report = process("linz", tmp_path / "archive", 0, **options)
        assert (report.done, report.skipped, report.failed) == (2, 2, 0)
    assert status(tmp_path / "archive").failures.empty


# What becomes of them


def test_the_picture_is_brought_to_one_resolution_in_three_bands() -> None:
    item = scene("AZ30_10000_0101", "01GSEBA9")
    wanted = Staging(resolution=0.3, resampling="bilinear", bands=(1, 2, 3))
    assert linz.assets(item, OPTIONS) == {"visual": wanted}


def test_real_items_are_of_this_form(shared_data: Path, tmp_path: Path) -> None:
    real = json.loads((shared_data / "items/linz__auckland_AZ30_10000_0101.json").read_text())
    made = scene("AZ30_10000_0101", "01GSEBA9ZMHSY9PS1KY2QP15BH")
    assert set(real) == set(made)
    assert set(real["properties"]) == set(made["properties"])
    assert set(real["assets"]) == {"visual"}
    path = "auckland/auckland_2010-2012_0.5m/rgb/2193"
    write_catalogue(tmp_path, {path: 1})
    write(tmp_path / path / "AZ30_10000_0000.json", real)
    (item,) = chosen(f"{tmp_path}/catalog.json", path)
    assert item["assets"]["visual"]["href"] == f"{tmp_path}/{path}/AZ30_10000_0101.tiff"
    assert list(linz.assets(item, OPTIONS)) == ["visual"]


def test_pixels_of_any_size_become_pixels_of_one(tmp_path: Path) -> None:
    fine, coarse = "otago/dunedin_2020_0.075m/rgb/2193", "otago/otago_2020_0.5m/rgb/2193"
    write_catalogue(tmp_path / "source", {fine: 1, coarse: 1})
    sources = {}
    for number, (path, resolution, bands) in enumerate(((fine, 0.075, 4), (coarse, 0.5, 5))):
        sources[path] = tmp_path / "source" / path / "AZ30_10000_0000.tiff"
        write_picture(sources[path], resolution, left=1_700_000 + 100 * number, bands=bands)
    (tmp_path / "surveys.txt").write_text(f"{fine}\n{coarse}\n")
    root = tmp_path / "archive"
    catalogue = tmp_path / "source" / "catalog.json"
    options = ["--catalogue", catalogue, "--size", "50", "-o", root]
    done = run("linz", "-i", "0-1", *options, env={"XCHIP_LINZ_SURVEYS": str(tmp_path / "surveys.txt")})
    assert done.exit_code == 0, done.output
    for number, path in enumerate((fine, coarse)):
        copy = root / "items" / f"01GSEBA9{number}" / "AZ30_10000_0000" / "AZ30_10000_0000.tif"
        with rasterio.open(copy) as made, rasterio.open(sources[path]) as source:
            assert made.count == 3
            assert made.transform[:6] == (0.3, 0, source.transform.c, 0, -0.3, source.transform.f)
            assert made.shape == (200, 200)
            wanted = np.zeros((4, 192, 192), "uint8")
            with rasterio.vrt.WarpedVRT(
                source,
                crs="EPSG:2193",
                transform=made.transform,
                width=200,
                height=200,
                resampling=rasterio.enums.Resampling.bilinear,
            ) as warped:
                wanted = warped.read()
            assert (made.read() == wanted[:3]).all()
            mask = made.dataset_mask() == 0
            assert (mask == (wanted[-1] == 0)).all()
        rows = xchip.read_index(root, filters=[("collection", "==", f"01GSEBA9{number}")])
        # Chips of the left column have no picture at all, and are left out.
        assert set(rows["chip_index_x"]) == {1, 2, 3}
        for row in rows.itertuples():
            chip = mask[row.row_off : row.row_off + 50, row.col_off : row.col_off + 50]
            assert row.nodata_fraction == chip.mean()
        assert set(rows["sensor"]) == {"linz"}


@pytest.mark.server
def test_from_the_public_bucket_to_an_archive_in_another(tmp_path: Path) -> None:
    path = "auckland/auckland_2022_0.075m/rgb/2193"
    write_catalogue(tmp_path / "source", {path: 4})
    for number in range(4):
        write_picture(tmp_path / "source" / path / f"AZ30_10000_{number:04d}.tiff", 0.15, left=1_700_000 + 100 * number)
    (tmp_path / "surveys.txt").write_text(f"{path}\n")
    (tmp_path / "s3").mkdir()
    with buckets(tmp_path / "s3") as store:
        store.upload(tmp_path / "source", "public")
        rows = three_runs(
            "linz",
            "s3://scenes/linz",
            0,
            storage=store.owner,
            pixels=store.anybody,
            surveys=str(tmp_path / "surveys.txt"),
            catalogue="s3://public/catalog.json",
            share=0.5,
            min_scenes=1,
            size=50,
        )
        files = [entry.name for entry in Store("s3://scenes/linz", store.owner).entries("items")]
        # There is no such file at the source: it is made also where nothing is to be copied, and read from the archive.
        options = {
            "surveys": str(tmp_path / "surveys.txt"),
            "catalogue": "s3://public/catalog.json",
            "max_scenes": 1,
            "min_scenes": 1,
        }
        made = {"storage": store.owner, "pixels": store.anybody, "copy": False, "size": 50, "progress": False, "client": False}
        report = process("linz", "s3://scenes/other", 0, **made, **options)
        assert (report.done, report.failed) == (1, 0)
    assert rows["item_id"].nunique() == 2
    assert len(rows) == 2 * 3 * 4
    assert sum(name.endswith(".tif") for name in files) == 2
