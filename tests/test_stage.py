"""Bringing files into an archive: the same bytes, or other pixels; gone on with after a break, and never twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from processes import object_store, s3_client
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject
from servers import Asked, Fault, RangeServer

import xchip
from xchip.indexing.archive.ledger import FINGERPRINT, fingerprint_in_archive, fingerprint_of
from xchip.indexing.archive.task import ArchiveError
from xchip.indexing.archive.verify import verify
from xchip.io.retry import GivenUp
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.processors.recipe import SAME, Staging
from xchip.processors.stage import STAGING, Stage, file_names, planned, refused
from xchip.stac.inputs import plain_items
from xchip.testing import write_scene

FOLDER = "items/c/a"


def item_of(**hrefs: str) -> dict[str, Any]:
    assets = {key: {"href": href, "type": "image/tiff; application=geotiff"} for key, href in hrefs.items()}
    properties = {"datetime": "2024-05-06T07:08:09Z"}
    return {"type": "Feature", "id": "a", "collection": "c", "properties": properties, "assets": assets, "links": []}


def stage(item: dict[str, Any], root: Path | str, rule: Staging = SAME, *, attempts: int = 3, **options: Any) -> dict[str, Any]:
    """The item with all assets brought into the archive at ``root``."""
    wanted = dict.fromkeys(item["assets"], rule)
    pixels, storage = options.pop("pixels", StorageOptions()), options.pop("storage", StorageOptions())
    return Stage(pixels, **options)(planned(item, wanted, copy=True), Store(str(root), storage), attempts).value


def write_raster(path: Path, values: np.ndarray, *, resolution: float = 0.1, alpha: bool = False, **options: Any) -> Path:
    """A GeoTIFF of (band, y, x) in New Zealand."""
    place = {"crs": "EPSG:2193", "transform": Affine(resolution, 0, 1_236_640, 0, -resolution, 5_004_000)} | options
    count, height, width = values.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **place) as file:
        file.write(values)
        if alpha:
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha][:count]
    return path


def random_values(count: int, height: int, width: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(5).integers(1, 200, (count, height, width)).astype(dtype)


# -- what is planned ----------------------------------------------------------------------------------------------------


def test_the_note_at_an_asset_makes_another_item_of_it() -> None:
    """So what was brought in by other rules is done anew."""
    item = item_of(red="s3://b/red.tif")
    rules = [SAME, Staging(resolution=0.3), Staging(resolution=0.6), Staging(resolution=0.3, bands=(1, 2))]
    plans = [planned(item, {"red": rule}, copy=copy) for copy in (True, False) for rule in rules]
    assert len({fingerprint_of(plan) for plan in plans}) == 5, "only SAME differs without copies: nothing is done with it"


def test_of_several_hrefs_the_one_that_asks_no_login_is_taken() -> None:
    item = item_of(red="https://landsatlook.usgs.gov/data/B4.TIF")
    item["assets"]["red"]["alternate"] = {"s3": {"href": "s3://usgs-landsat/B4.TIF"}}
    (asset,) = planned(item, {"red": SAME}, copy=True)["assets"].values()
    assert asset["href"] == "s3://usgs-landsat/B4.TIF"
    assert "alternate" not in asset
    assert planned(item, {"red": SAME}, copy=False)["assets"] == item["assets"]


def test_an_asset_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="it has no asset blue, only red"):
        planned(item_of(red="s3://b/red.tif"), {"red": SAME, "blue": SAME}, copy=True)


@given(st.lists(st.sampled_from(["a/B04.tif", "b/B04.tif", "b/b04.TIF", "B08.tif", "x?y=1", "%2E%2E/..", "c/"]), max_size=6))
def test_files_of_an_item_have_names_of_their_own_beside_its_json(paths: list[str]) -> None:
    item = item_of(**{f"k{n}": f"https://host/{path}" for n, path in enumerate(paths)})
    names = file_names(planned(item, dict.fromkeys(item["assets"], SAME), copy=True))
    assert list(names) == list(item["assets"])
    assert len({name.lower() for name in names.values()}) == len(names)
    assert all(name.startswith(f"{FOLDER}/") and name.count("/") == 3 for name in names.values())
    assert not {name.rpartition("/")[2] for name in names.values()} & {"", ".", "..", "a.json"}


def test_names_are_those_of_the_source() -> None:
    item = item_of(red="https://host/x/B04.tif?sig=1", blue="s3://b/B02.tif", visual="/data/0101.tiff")
    rules = {"red": SAME, "blue": SAME, "visual": Staging(resolution=0.3)}
    names = file_names(planned(item, rules, copy=True))
    assert names == {"red": f"{FOLDER}/B04.tif", "blue": f"{FOLDER}/B02.tif", "visual": f"{FOLDER}/0101.tif"}


def test_an_item_that_was_refused_fails_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(GivenUp, match="item 'a': it has no picture"):
        Stage(StorageOptions())(refused(item_of(red="x"), "it has no picture"), Store(str(tmp_path)), 3)
    with pytest.raises(GivenUp, match="none of its assets is among the bands to keep"):
        Stage(StorageOptions())(item_of(), Store(str(tmp_path)), 3)


# -- copies -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, size in (("red.tif", 100_000), ("blue.tif", 70_001)):
        (folder / name).write_bytes(np.random.default_rng(size).bytes(size))
    return folder


def fetched(server: RangeServer, name: str = "") -> int:
    """Answers with content of a file that the server gave."""
    return sum(method == "GET" and status in (200, 206) and name in path for method, path, status in server.requests)


def test_copies_are_the_same_bytes_and_are_fetched_once(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    with RangeServer(source) as server:
        item = item_of(red=f"{server.url}/red.tif", blue=f"{server.url}/blue.tif")
        staged = stage(item, root)
        for key in ("red", "blue"):
            path = root / FOLDER / f"{key}.tif"
            assert path.read_bytes() == (source / f"{key}.tif").read_bytes()
            assert staged["assets"][key]["href"] == str(path)
            assert staged["assets"][key]["file:size"] == path.stat().st_size
            assert STAGING not in staged["assets"][key]
        before = fetched(server)
        assert stage(item, root) == staged
        assert fetched(server) == before
        assert sorted(path.name for path in (root / FOLDER).iterdir()) == ["blue.tif", "red.tif"]


def test_a_file_of_another_size_is_fetched_again(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    with RangeServer(source) as server:
        item = item_of(red=f"{server.url}/red.tif", blue=f"{server.url}/blue.tif")
        stage(item, root)
        (root / FOLDER / "red.tif").write_bytes(b"half")
        before = fetched(server, "blue")
        stage(item, root)
        assert fetched(server, "blue") == before
    assert (root / FOLDER / "red.tif").read_bytes() == (source / "red.tif").read_bytes()


def test_a_copy_goes_on_where_it_broke_off(source: Path, tmp_path: Path) -> None:
    def fault(asked: Asked) -> Fault | None:
        return Fault(cut=1000, reset=True) if asked.method == "GET" and asked.first == 40_000 and asked.number < 6 else None

    with RangeServer(source, fault=fault) as server:
        item = item_of(red=f"{server.url}/red.tif")
        prepared = planned(item, {"red": SAME}, copy=True)
        value, history = Stage(StorageOptions(), block=20_000)(prepared, Store(str(tmp_path / "archive")), 5)
        assert [event.kind for event in history] == ["transient"] * len(history) != []
        assert fetched(server) == 5 + len(history), "what came before the break is not asked for again"
    assert Path(value["assets"]["red"]["href"]).read_bytes() == (source / "red.tif").read_bytes()


@pytest.mark.parametrize(
    ("fault", "kind"), [(Fault(status=404), "permanent"), (Fault(status=503), "transient"), (Fault(status=403), "denied")]
)
def test_a_file_that_can_not_be_had_leaves_nothing_half_done(source: Path, tmp_path: Path, fault: Fault, kind: str) -> None:
    with RangeServer(source, fault=lambda asked: fault if "red" in asked.path else None) as server:
        item = item_of(red=f"{server.url}/red.tif", blue=f"{server.url}/blue.tif")
        with pytest.raises(GivenUp) as caught:
            stage(item, tmp_path / "archive", attempts=2)
    assert caught.value.history[-1].kind == kind
    assert sorted(path.name for path in (tmp_path / "archive" / FOLDER).iterdir()) == ["blue.tif"]


def test_hrefs_are_signed_at_the_moment_of_reading_and_stay_unsigned_in_the_item(source: Path, tmp_path: Path) -> None:
    with RangeServer(source, query="sig=fresh") as server:
        item = item_of(red=f"{server.url}/red.tif")
        staged = stage(item, tmp_path / "archive", pixels=StorageOptions(signer=_sign))
    assert Path(staged["assets"]["red"]["href"]).read_bytes() == (source / "red.tif").read_bytes()


def _sign(href: str) -> str:
    return f"{href}?sig=fresh"


def test_an_archive_that_can_not_be_written_is_no_fault_of_the_item(source: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file where the folder should be")
    with pytest.raises(ArchiveError, match=r"can't look for 'items/c/a/red\.tif' in the archive"):
        stage(item_of(red=str(source / "red.tif")), tmp_path / "archive")


def test_several_at_once_do_not_disturb_each_other(source: Path, tmp_path: Path) -> None:
    item = item_of(red=str(source / "red.tif"), blue=str(source / "blue.tif"))
    barrier = threading.Barrier(4)

    def one(_: int) -> dict[str, Any]:
        barrier.wait()
        return stage(item, tmp_path / "archive")

    with ThreadPoolExecutor(4) as pool:
        assert len({json.dumps(staged) for staged in pool.map(one, range(4))}) == 1
    for name in ("red.tif", "blue.tif"):
        assert (tmp_path / "archive" / FOLDER / name).read_bytes() == (source / name).read_bytes()


# -- other pixels -------------------------------------------------------------------------------------------------------


def warped(tmp_path: Path, values: np.ndarray, rule: Staging, **options: Any) -> tuple[dict[str, Any], Path]:
    """(asset, file) of what a rule makes of a raster."""
    source = write_raster(tmp_path / "scene.tiff", values, **options)
    asset = stage(item_of(visual=str(source)), tmp_path / "archive", rule)["assets"]["visual"]
    return asset, Path(asset["href"])


def test_a_picture_is_brought_to_a_resolution(tmp_path: Path) -> None:
    values = random_values(3, 905, 1210)
    asset, path = warped(tmp_path, values, Staging(resolution=0.3, resampling="bilinear", bands=(1, 2, 3)))
    expected = np.zeros((3, 301, 403), "uint8")
    place = Affine(0.1, 0, 1_236_640, 0, -0.1, 5_004_000)
    coarse = Affine(0.3, 0, 1_236_640, 0, -0.3, 5_004_000)
    reproject(
        values, expected, src_transform=place, src_crs="EPSG:2193", dst_transform=coarse, dst_crs="EPSG:2193",
        resampling=Resampling.bilinear,
    )  # fmt: skip
    with rasterio.open(path) as file:
        assert file.transform == coarse
        assert file.crs == "EPSG:2193"
        np.testing.assert_array_equal(file.read(), expected)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.profile["tiled"]
    assert (asset["proj:code"], asset["proj:shape"], asset["gsd"]) == ("EPSG:2193", [301, 403], pytest.approx(0.3))
    assert asset["proj:transform"] == list(coarse)[:6]


def test_what_is_written_has_overviews(tmp_path: Path) -> None:
    _, path = warped(tmp_path, random_values(1, 2100, 1500), Staging(resolution=0.1))
    with rasterio.open(path) as file:
        assert file.shape == (2100, 1500)
        assert file.overviews(1) == [2, 4, 8]


def test_alpha_that_is_dropped_stays_as_a_mask(tmp_path: Path) -> None:
    values = random_values(4, 300, 600)
    values[3] = 255
    values[3, :, :300] = 0
    asset, path = warped(tmp_path, values, Staging(resolution=0.3, resampling="bilinear", bands=(1, 2, 3)), alpha=True)
    with rasterio.open(path) as file:
        assert file.count == 3
        mask = file.dataset_mask()
    assert (mask[:, :99] == 0).all()
    assert (mask[:, 101:] == 255).all()
    assert "proj:transform" not in asset, "else nobody would open the file, and see its mask"
    item = item_of(visual=str(path))
    index = xchip.index_items(item, 100, sensor="linz").compute()
    assert index.sort_values("chip_index_x")["nodata_fraction"].tolist() == pytest.approx([1.0, 0.0], abs=0.011)


def test_a_declared_nodata_value_stays(tmp_path: Path) -> None:
    values = random_values(1, 600, 600, "int16")
    values[:, :300] = -5
    asset, path = warped(tmp_path, values, Staging(resolution=0.2), nodata=-5)
    with rasterio.open(path) as file:
        assert (file.nodata, file.dtypes) == (-5, ("int16",))
        read = file.read(1)
    assert (read[:150] == -5).all()
    assert (read[150:] > 0).all()
    assert asset["proj:shape"] == [300, 300]


def test_another_crs_and_what_lies_beyond_the_borders(tmp_path: Path) -> None:
    values = random_values(1, 400, 400)
    rule = Staging(crs="EPSG:3857", resolution=0.5, nodata=255)
    asset, path = warped(tmp_path, values, rule)
    with rasterio.open(path) as file:
        assert (file.crs.to_epsg(), file.nodata, file.res) == (3857, 255, (0.5, 0.5))
        left, top = file.transform.c, file.transform.f
        assert (left / 0.5, top / 0.5) == (round(left / 0.5), round(top / 0.5)), "neighbours share a lattice"
        read = file.read(1)
    assert set(np.unique(read)) <= {*np.unique(values), 255}, "the nearest pixel's value is one that is there"
    assert (read == 255).any()
    assert asset["proj:code"] == "EPSG:3857"
    _, masked = warped(tmp_path, values, Staging(crs="EPSG:3857", resolution=0.5))
    with rasterio.open(masked) as file:
        np.testing.assert_array_equal(file.dataset_mask() == 0, read == 255)


def test_what_was_made_of_the_same_file_by_the_same_rule_is_kept(tmp_path: Path) -> None:
    rule = Staging(resolution=0.3, resampling="bilinear")
    asset, path = warped(tmp_path, random_values(1, 300, 300), rule)
    stamp = path.stat().st_mtime_ns
    again, _ = warped(tmp_path, random_values(1, 300, 300), rule)
    assert (again, path.stat().st_mtime_ns) == (asset, stamp)
    other, _ = warped(tmp_path, random_values(1, 300, 300), Staging(resolution=0.6, resampling="bilinear"))
    assert path.stat().st_mtime_ns != stamp
    assert other["proj:shape"] == [50, 50]


def test_bands_are_described_as_they_are_kept(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", random_values(4, 300, 300))
    item = item_of(image=str(source), other=str(source))
    item["properties"] |= {"proj:epsg": 2193, "proj:shape": [300, 300], "proj:bbox": [0, 0, 1, 1], "proj:centroid": {}}
    item["assets"]["image"]["eo:bands"] = [{"name": name} for name in ("r", "g", "b", "n")]
    wanted = {"image": Staging(resolution=0.2, bands=(4, 1)), "other": SAME}
    staged = Stage(StorageOptions())(planned(item, wanted, copy=True), Store(str(tmp_path / "archive")), 1).value
    assert [band["name"] for band in staged["assets"]["image"]["eo:bands"]] == ["n", "r"]
    assert not [name for name in staged["properties"] if name.startswith("proj:")], "they are not those of the warped file"
    assert staged["assets"]["other"]["proj:shape"] == [300, 300]
    with rasterio.open(staged["assets"]["image"]["href"]) as file, rasterio.open(source) as data:
        assert file.count == 2
        assert data.count == 4


def test_a_file_without_the_band_or_a_crs_fails_for_good(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", random_values(2, 64, 64))
    with pytest.raises(ValueError, match=r"scene.tif has 2 bands; band 3 can't be kept"):
        stage(item_of(visual=str(source)), tmp_path / "archive", Staging(bands=(1, 2, 3)))


# -- items in the archive -----------------------------------------------------------------------------------------------


class _Copy:
    """Copies all assets."""

    def __call__(self, item: dict[str, Any], store: Store, attempts: int) -> Any:
        return Stage(StorageOptions())(planned(item, dict.fromkeys(item["assets"], SAME), copy=True), store, attempts)


def test_an_archive_alone_is_enough_wherever_it_is_moved(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "source", item_id="synthetic-1", shape=(512, 512))
    (item, _), *_ = plain_items(scene)
    report = xchip.build_index([item], tmp_path / "archive", 256, prepare=_Copy(), progress=False)
    assert (report.done, report.failed) == (1, 0)
    expected = xchip.stack(scene).compute()
    for path in scene.parent.iterdir():
        path.unlink()
    moved = (tmp_path / "archive").rename(tmp_path / "moved")
    assert list(verify(moved)) == []
    rows = xchip.read_index(moved)
    assert len(rows) == 4
    (href,) = rows["item_href"].unique()
    stored = json.loads(Path(href).read_text())
    assert {asset["href"] for asset in stored["assets"].values()} == {
        "./B02.tif",
        "./B03.tif",
        "./B04.tif",
        "./B08.tif",
        "./SCL.tif",
    }
    assert fingerprint_in_archive(stored) == stored[FINGERPRINT] == fingerprint_of(item)
    xchip_stack = xchip.stack(href).compute()
    for band in expected.data_vars:
        np.testing.assert_array_equal(xchip_stack[band], expected[band])


# -- a bucket -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageOptions]:
    with object_store(tmp_path_factory.mktemp("s3")) as environment:
        endpoint = environment["AWS_ENDPOINT_URL"]
        yield StorageOptions(endpoint=endpoint, region="us-west-2", key="testkey", secret="testsecret")


@pytest.mark.server
@pytest.mark.parametrize("rule", [SAME, Staging(resolution=0.2)], ids=["copied", "warped"])
def test_from_one_bucket_into_another(bucket: StorageOptions, tmp_path: Path, rule: Staging) -> None:
    client = s3_client(str(bucket.endpoint))
    content = write_raster(tmp_path / "scene.tif", random_values(1, 700, 700)).read_bytes()
    client.put_object(Bucket="scenes", Key="source/scene.tif", Body=content)
    root = f"s3://scenes/{'warped' if rule.resolution else 'copied'}"
    run: Callable[[], dict[str, Any]] = lambda: stage(  # noqa: E731
        item_of(red="s3://scenes/source/scene.tif"), root, rule, pixels=bucket, storage=bucket
    )
    asset = run()["assets"]["red"]
    assert asset["href"] == f"{root}/{FOLDER}/scene.tif"
    key = asset["href"].removeprefix("s3://scenes/")
    there = client.get_object(Bucket="scenes", Key=key)
    assert there["ContentLength"] == asset["file:size"]
    assert (there["Body"].read() == content) == (rule is SAME)
    assert run()["assets"]["red"] == asset
    assert client.head_object(Bucket="scenes", Key=key)["LastModified"] == there["LastModified"]


@pytest.mark.server
def test_a_bucket_that_others_may_only_read_is_no_fault_of_the_item(bucket: StorageOptions, source: Path) -> None:
    anybody = StorageOptions(endpoint=bucket.endpoint, region=bucket.region, unsigned=True)
    with pytest.raises(ArchiveError, match=r"can't write 'items/c/a/red\.tif' into the archive 's3://public'"):
        stage(item_of(red=str(source / "red.tif")), "s3://public", storage=anybody)
