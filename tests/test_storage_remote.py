"""An archive's files and pixels in a real object store, reached by options alone and by the environment alone."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import object_store, s3_client

from xchip.io.errors import classify
from xchip.io.gdal import POOL
from xchip.io.retry import GivenUp, insistently, retrying
from xchip.io.storage import StorageOptions
from xchip.io.store import Entry, Store
from xchip.raster.reader import strips
from xchip.testing import write_scene

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_scene(tmp_path_factory.mktemp("scene"), shape=(300, 300)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, scene: Path) -> Iterator[dict[str, str]]:
    """The environment in which clients find the store."""
    with object_store(tmp_path_factory.mktemp("s3")) as environment:
        client = s3_client(environment["AWS_ENDPOINT_URL"])
        for bucket in ("scenes", "public"):
            client.put_object(Bucket=bucket, Key="SCL.tif", Body=(scene.parent / "SCL.tif").read_bytes())
        yield environment


@pytest.fixture(scope="module")
def storage(server: dict[str, str]) -> StorageOptions:
    """All that a client needs; the environment has none of it."""
    return StorageOptions(
        endpoint=server["AWS_ENDPOINT_URL"], region="us-west-2", key="testkey", secret="testsecret", requester_pays=True
    )


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No keys in the environment or the home folder, and none asked for at a cloud's own address."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CPL_AWS_AUTODETECT_EC2", "NO")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.02")
    yield
    POOL.clear()


def pixels(storage: StorageOptions, url: str) -> np.ndarray:
    """A file, as a worker reads it."""
    with storage.gdal():
        return np.concatenate([values.copy() for _, values in strips(storage.sign(url))])


def use_store(store: Store, who: str) -> tuple[bytes, bool, list[Entry]]:
    """What a worker does with an archive."""
    store.write(f"index/{who}/index.parquet", b"1")
    store.write(f"index/{who}/index.parquet", who.encode())
    created = store.create("index/claim", who.encode())
    return store.read(f"index/{who}/index.parquet"), created, list(store.entries(f"index/{who}"))


def in_another_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as workers:
        return workers.submit(function, *arguments).result(120)


def test_a_store_here_and_in_a_worker(storage: StorageOptions) -> None:
    store = Store("s3://scenes/archive", storage)
    assert list(store.entries()) == []
    assert use_store(store, "a b%2F") == (b"a b%2F", True, [Entry("index/a b%2F/index.parquet", 6)])
    answer = in_another_process(use_store, store, "worker")
    assert answer == (b"worker", False, [Entry("index/worker/index.parquet", 6)])
    names = ["index/a b%2F/index.parquet", "index/claim", "index/worker/index.parquet"]
    assert [entry.name for entry in store.entries()] == names, "also what others wrote meanwhile"
    assert store.read("index/claim") == b"a b%2F"
    assert store.read_all(names) == [b"a b%2F", b"a b%2F", b"worker"]
    store.remove("index/claim")
    store.remove("index/claim")
    assert not store.exists("index/claim")
    for entry in store.entries("index"):
        store.remove(entry.name)
    assert list(store.entries()) == []


def test_of_many_who_create_a_file_one_does(storage: StorageOptions) -> None:
    store = Store("s3://scenes/claims", storage)
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda n: store.create("claim", str(n).encode()), range(16))) == 1


def test_pixels_here_and_in_a_worker(storage: StorageOptions, scene: Path) -> None:
    expected = pixels(StorageOptions(), str(scene.parent / "SCL.tif"))
    np.testing.assert_array_equal(pixels(storage, "s3://scenes/SCL.tif"), expected)
    np.testing.assert_array_equal(in_another_process(pixels, storage, "s3://scenes/SCL.tif"), expected)


@pytest.mark.parametrize("gdals_own_names", [True, False])
def test_the_environment_does_by_itself(
    server: dict[str, str], scene: Path, monkeypatch: pytest.MonkeyPatch, gdals_own_names: bool
) -> None:
    for name, value in server.items():
        if gdals_own_names or name not in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING"):
            monkeypatch.setenv(name, value)
    expected = pixels(StorageOptions(), str(scene.parent / "SCL.tif"))
    np.testing.assert_array_equal(pixels(StorageOptions(), "s3://scenes/SCL.tif"), expected)
    store = Store("s3://scenes/environment")
    store.write("a", b"a")
    assert store.read("a") == b"a"


def test_options_win_over_the_environment(
    server: dict[str, str], storage: StorageOptions, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (server | {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SESSION_TOKEN": "wrong"}).items():
        monkeypatch.setenv(name, value)
    expected = pixels(StorageOptions(), str(scene.parent / "SCL.tif"))
    np.testing.assert_array_equal(pixels(storage, "s3://scenes/SCL.tif"), expected)
    assert Store("s3://scenes", storage).read("ready") == b"yes"


def test_a_profile(server: dict[str, str], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = testkey\naws_secret_access_key = testsecret\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage = StorageOptions(endpoint=server["AWS_ENDPOINT_URL"], region="us-west-2", profile="work")
    assert Store("s3://scenes", storage).read("ready") == b"yes"
    assert pixels(storage, "s3://scenes/SCL.tif").shape == pixels(StorageOptions(), str(scene.parent / "SCL.tif")).shape


def test_a_public_bucket_needs_no_keys(server: dict[str, str], scene: Path) -> None:
    anybody = StorageOptions(endpoint=server["AWS_ENDPOINT_URL"], unsigned=True)
    assert Store("s3://public", anybody).read("SCL.tif") == (scene.parent / "SCL.tif").read_bytes()
    expected = pixels(StorageOptions(), str(scene.parent / "SCL.tif"))
    np.testing.assert_array_equal(pixels(anybody, "s3://public/SCL.tif"), expected)
    with pytest.raises(PermissionError):
        Store("s3://scenes", anybody).read("SCL.tif")
    with pytest.raises(OSError, match="Access Denied"):
        pixels(anybody, "s3://scenes/SCL.tif")


def test_one_thread_after_another_with_other_keys(server: dict[str, str], storage: StorageOptions, scene: Path) -> None:
    """A refusal of one does not stick to the other, nor do the files that one has open."""
    anybody = StorageOptions(endpoint=server["AWS_ENDPOINT_URL"], unsigned=True)
    client = s3_client(server["AWS_ENDPOINT_URL"])
    client.put_object(Bucket="scenes", Key="other.tif", Body=(scene.parent / "SCL.tif").read_bytes())
    with pytest.raises(OSError, match="Access Denied"), anybody.gdal(), POOL.borrowed("s3://scenes/other.tif"):
        pass
    with storage.gdal(), POOL.borrowed("s3://scenes/other.tif") as dataset:
        assert dataset.count == 1


def test_what_comes_later_is_found(server: dict[str, str], storage: StorageOptions, scene: Path) -> None:
    with pytest.raises(OSError, match="does not exist"):
        pixels(storage, "s3://scenes/later.tif")
    client = s3_client(server["AWS_ENDPOINT_URL"])
    client.put_object(Bucket="scenes", Key="later.tif", Body=(scene.parent / "SCL.tif").read_bytes())
    assert pixels(storage, "s3://scenes/later.tif").any()


@pytest.mark.parametrize(
    ("change", "bucket", "name", "kind"),
    [
        ({}, "scenes", "none.tif", "permanent"),
        ({}, "nowhere", "none.tif", "permanent"),
        ({"key": "wrong"}, "scenes", "SCL.tif", "denied"),
        ({"secret": "wrong"}, "scenes", "SCL.tif", "denied"),
    ],
)
def test_failures_are_told_apart(server: dict[str, str], change: dict[str, str], bucket: str, name: str, kind: str) -> None:
    keys = {"key": "testkey", "secret": "testsecret"} | change
    storage = StorageOptions(endpoint=server["AWS_ENDPOINT_URL"], region="us-west-2", **keys)  # type: ignore[arg-type]
    with pytest.raises(OSError) as caught:  # noqa: PT011 - of several classes
        Store(f"s3://{bucket}", storage).read(name)
    assert classify(caught.value) == kind
    with pytest.raises(GivenUp) as given_up:
        retrying(lambda storage: pixels(storage, f"s3://{bucket}/{name}"), storage, sleep=lambda seconds: None)
    assert [event.kind for event in given_up.value.history] == [kind]


def test_a_server_that_is_gone(storage: StorageOptions) -> None:
    from dataclasses import replace

    gone = replace(storage, endpoint="http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(GivenUp) as caught:
        retrying(lambda storage: pixels(storage, "s3://scenes/SCL.tif"), gone, attempts=2, sleep=lambda seconds: None)
    assert {event.kind for event in caught.value.history} <= {"transient", "overcome"}


def test_writing_insists(storage: StorageOptions) -> None:
    store = Store("s3://scenes/insisting", storage)
    insistently(lambda: store.write("items/a.json", json.dumps({"id": "a"}).encode()))
    assert json.loads(store.read("items/a.json")) == {"id": "a"}
