"""Options of storage: what they mean to fsspec and to GDAL, and signed URLs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.env import getenv, hasenv
from servers import RangeServer

from xchip.io.gdal import POOL, DatasetPool
from xchip.io.signing import unsigned_href
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.raster.header import header_reader, read_header, signed_scene
from xchip.stac.scene.understand import scenes
from xchip.testing import write_scene

COG = "greenland_cog_100m.tif"
SERVER = "http://127.0.0.1:9000"
KEYS = {"key": "reader", "secret": "hidden"}


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "127.0.0.1:9000"}, "endpoint='127.0.0.1:9000' is not the URL of a server"),
        ({"endpoint": "http://"}, "is not the URL of a server"),
        ({"key": "reader"}, "a key without a secret"),
        ({"secret": "hidden"}, "a secret without a key"),
        ({"profile": "work", **KEYS}, "profile='work' and a key"),
        ({"unsigned": True, **KEYS}, "unsigned requests are anonymous and can't use key;"),
        ({"unsigned": True, "profile": "work"}, "unsigned requests are anonymous and can't use profile;"),
        ({"unsigned": True, "requester_pays": True}, "unsigned requests are anonymous and can't use requester_pays;"),
        ({"signer": "planetary computer"}, "signer='planetary computer' is unknown"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        StorageOptions(**options)
    assert "hidden" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    storage = StorageOptions(**KEYS, token="also hidden")
    assert "hidden" not in repr(storage)
    assert pickle.loads(pickle.dumps(storage)) == storage


def test_gdal_has_the_same_options() -> None:
    assert StorageOptions().gdal_options() == {}
    assert StorageOptions(endpoint=f"{SERVER}/", **KEYS, region="us-west-2").gdal_options() == {
        "AWS_S3_ENDPOINT": "127.0.0.1:9000",
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "reader",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_SESSION_TOKEN": "",
        "AWS_NO_SIGN_REQUEST": "NO",
        "AWS_REGION": "us-west-2",
        "AWS_DEFAULT_REGION": "us-west-2",
    }
    assert StorageOptions(endpoint="https://data.example.com/s3").gdal_options() == {
        "AWS_S3_ENDPOINT": "data.example.com/s3",
        "AWS_HTTPS": "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }
    assert set(StorageOptions(unsigned=True).gdal_options().items()) == {
        (f"{store}_NO_SIGN_REQUEST", "YES") for store in ("AWS", "GS", "AZURE")
    }
    assert StorageOptions(profile="work", requester_pays=True).gdal_options() == {
        "AWS_PROFILE": "work",
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_SESSION_TOKEN": "",
        "AWS_NO_SIGN_REQUEST": "NO",
        "AWS_REQUEST_PAYER": "requester",
    }
    assert StorageOptions(token="sv=1&sig=a").gdal_options() == {"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=a"}


def test_gdal_has_them_in_this_thread_and_for_so_long() -> None:
    storage = StorageOptions(endpoint=SERVER, **KEYS)
    elsewhere: list[bool] = []
    with storage.gdal():
        with rasterio.Env(GDAL_HTTP_MAX_RETRY="1"):
            assert getenv().items() >= storage.gdal_options().items(), "also in an Env inside"
        thread = threading.Thread(target=lambda: elsewhere.append(hasenv()))
        thread.start()
        thread.join()
        with StorageOptions().gdal():
            assert getenv()["AWS_ACCESS_KEY_ID"] == "reader"
    assert elsewhere == [False]
    assert not hasenv()
    with rasterio.Env(AWS_REGION="eu-west-1"):
        with storage.gdal():
            assert getenv()["AWS_REGION"] == "eu-west-1"
        assert "AWS_ACCESS_KEY_ID" not in getenv()


def test_s3fs_has_the_same_options() -> None:
    pytest.importorskip("s3fs")
    fs, path = StorageOptions(endpoint=SERVER, **KEYS, token="t", region="us-west-2").filesystem("s3://bucket/a b.tif")
    assert path == "bucket/a b.tif"
    assert (fs.endpoint_url, fs.key, fs.secret, fs.token, fs.anon) == (SERVER, "reader", "hidden", "t", False)
    assert fs.client_kwargs == {"region_name": "us-west-2"}
    assert not fs.dircache.use_listings_cache
    assert StorageOptions(unsigned=True).filesystem("s3://bucket/a")[0].anon
    assert StorageOptions(requester_pays=True).filesystem("s3://bucket/a")[0].req_kw == {"RequestPayer": "requester"}
    assert StorageOptions(profile="work").filesystem("s3://bucket/a")[0].kwargs == {"profile": "work"}
    with pytest.raises(ValueError, match="a token without a key and a secret can't be used for 's3://bucket/a'"):
        StorageOptions(token="t").filesystem("s3://bucket/a")


@pytest.mark.parametrize(
    ("package", "url", "extra"), [("gcsfs", "gs://bucket/a.tif", "gcs"), ("adlfs", "az://container/a.tif", "azure")]
)
def test_a_missing_package_names_its_extra(package: str, url: str, extra: str) -> None:
    hide = f"import sys; sys.modules[{package!r}] = None\n"
    code = f"from xchip.io.storage import StorageOptions; StorageOptions().filesystem({url!r})"
    done = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"ImportError: '{url}' needs {package}: install xchip[{extra}]"


def test_google_and_azure() -> None:
    gcsfs, adlfs = pytest.importorskip("gcsfs"), pytest.importorskip("adlfs")
    fs, path = StorageOptions(unsigned=True).filesystem("gs://bucket/a.tif")
    assert isinstance(fs, gcsfs.GCSFileSystem)
    assert path == "bucket/a.tif"
    fs, path = StorageOptions(token="sv=1&sig=a").filesystem("abfs://container@account.dfs.core.windows.net/a.tif")
    assert isinstance(fs, adlfs.AzureBlobFileSystem)
    assert (fs.account_name, path) == ("account", "container/a.tif")


def test_options_for_buckets_leave_other_places_alone(tmp_path: Path, shared_data: Path) -> None:
    storage = StorageOptions(endpoint=SERVER, **KEYS)
    (tmp_path / "a").write_bytes(b"a")
    for url in (str(tmp_path / "a"), (tmp_path / "a").as_uri()):
        fs, path = storage.filesystem(url)
        assert fs.cat_file(path) == b"a"
    with RangeServer(shared_data / "rasters") as server:
        fs, path = storage.filesystem(f"{server.url}/{COG}")
        assert fs.cat_file(path) == (shared_data / "rasters" / COG).read_bytes()
    with pytest.raises(ValueError, match="nonsense"):
        storage.filesystem("nonsense://a")


# --- The pool of open files -------------------------------------------------------------------------------------------


def test_open_files_of_other_settings_are_not_used(shared_data: Path) -> None:
    with RangeServer(shared_data / "rasters") as server:
        pool, href = DatasetPool(), f"{server.url}/{COG}"

        def borrowed(storage: StorageOptions) -> Any:
            with storage.gdal(), pool.borrowed(href) as dataset:
                return dataset

        plain, reader = StorageOptions(), StorageOptions(**KEYS)
        first, second = borrowed(plain), borrowed(reader)
        assert first is not second
        assert (borrowed(plain), borrowed(reader), borrowed(StorageOptions(**KEYS))) == (first, second, second)
        assert borrowed(StorageOptions(key="reader", secret="other")) not in (first, second)
        local = str(shared_data / "rasters" / COG)
        with pool.borrowed(local) as before:
            pass
        with reader.gdal(), pool.borrowed(local) as dataset:
            assert dataset is before, "a local file is the same to all"
        pool.clear()


# --- Signing ----------------------------------------------------------------------------------------------------------

NAMES = st.text("abcdefgXYZ-_1", min_size=1, max_size=8)
VALUES = st.text("abc%2F=./", max_size=6)


@pytest.mark.parametrize(
    "signature",
    [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2Fb&X-Amz-Date=1&X-Amz-Expires=9&X-Amz-SignedHeaders=host"
        "&X-Amz-Security-Token=t&X-Amz-Signature=ab",
        "X-Goog-Algorithm=GOOG4&X-Goog-Credential=a&X-Goog-Date=1&X-Goog-Expires=9&X-Goog-SignedHeaders=host&X-Goog-Signature=ab",
        "st=2024&se=2025&sp=rl&sv=2021-06-08&sr=c&skoid=a&sktid=b&skt=c&ske=d&sks=b&skv=e&sig=a%2Fb%3D",
        "Expires=9&Signature=a~b&Key-Pair-Id=K",
        "Policy=p&Signature=a~b&Key-Pair-Id=K&Hash-Algorithm=SHA256",
        "GoogleAccessId=a&Expires=9&Signature=b",
        "AWSAccessKeyId=a&Expires=9&Signature=b&x-amz-security-token=t",
    ],
)
def test_signatures_are_taken_off(signature: str) -> None:
    @given(st.lists(st.builds("q-{}={}".format, NAMES, VALUES), max_size=3), st.randoms(use_true_random=False))
    def law(others: list[str], rng: Any) -> None:
        fields = [*others, *signature.split("&")]
        rng.shuffle(fields)
        left = [field for field in fields if field in others]
        path = "https://host/a%20b.tif"
        assert unsigned_href(f"{path}?{'&'.join(fields)}") == (f"{path}?{'&'.join(left)}" if left else path)

    law()


@given(st.lists(st.builds("{}={}".format, NAMES, VALUES), max_size=3))
def test_other_queries_stay(fields: list[str]) -> None:
    href = f"https://host/a.tif?{'&'.join(fields)}"
    assert unsigned_href(href) == href


@pytest.mark.parametrize("href", ["a.tif", "/data/a.tif", "s3://b/a.tif", "https://h/a?se=1&sp=2", "https://h/a?signature=1", ""])
def test_hrefs_without_a_signature_stay(href: str) -> None:
    assert unsigned_href(href) == href


TOKEN = "Expires=9&Signature=ab"


def with_token(href: str) -> str:
    return f"{href}?{TOKEN}"


def test_a_scene_is_signed_whole(tmp_path: Path) -> None:
    (scene,) = scenes(write_scene(tmp_path, shape=(300, 300)))
    assert signed_scene(scene, StorageOptions()) is scene
    calls: list[str] = []

    def signer(href: str) -> str:
        calls.append(href)
        return with_token(href)

    signed = signed_scene(scene, StorageOptions(signer=signer))
    for before, after in zip((*scene.bands, *scene.quality), (*signed.bands, *signed.quality), strict=True):
        assert after == replace(before, href=f"{before.href}?{TOKEN}")
    assert sorted(calls) == sorted({band.href for band in (*scene.bands, *scene.quality)}), "each file once"


def test_headers_are_read_from_signed_hrefs(shared_data: Path) -> None:
    assert header_reader(StorageOptions()) is read_header
    with RangeServer(shared_data / "rasters", query=TOKEN) as server:
        header = header_reader(StorageOptions(signer=with_token))(f"{server.url}/{COG}")
        assert header == read_header(str(shared_data / "rasters" / COG))
        POOL.clear()


def test_a_signer_must_give_an_href() -> None:
    with pytest.raises(ValueError, match="returned None for 'a'"):
        StorageOptions(signer=lambda href: None).sign("a")  # type: ignore[arg-type, return-value]


class _TokenServer(BaseHTTPRequestHandler):
    """Hands out tokens as the Planetary Computer does."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        body = f'{{"msft:expiry": "2999-01-01T00:00:00Z", "token": "se=2999&sig={len(self.server.asked)}"}}'.encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def token_server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _TokenServer) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


PLANETARY_COMPUTER = """
from xchip.io.storage import StorageOptions
storage = StorageOptions(signer="planetary-computer")
blob = "https://account.blob.core.windows.net/container/a.tif"
print(storage.sign(blob), storage.sign(blob), storage.sign("s3://bucket/a.tif"), storage.sign(blob + "?se=2000&sv=1&sig=old"))
storage = storage.renewed()
print(storage.sign(blob))
"""


def test_the_planetary_computer_signs_and_signs_again(token_server: HTTPServer) -> None:
    pytest.importorskip("planetary_computer")
    environment = os.environ | {"PC_SDK_SAS_URL": f"http://127.0.0.1:{token_server.server_port}/token"}
    done = subprocess.run([sys.executable, "-c", PLANETARY_COMPUTER], capture_output=True, text=True, check=True, env=environment)
    blob = "https://account.blob.core.windows.net/container/a.tif"
    first, second = f"{blob}?se=2999&sig=1", f"{blob}?se=2999&sig=2"
    assert done.stdout.split() == [first, first, "s3://bucket/a.tif", first, second]
    assert token_server.asked == ["/token/account/container"] * 2  # type: ignore[attr-defined]


def test_a_missing_signer_names_its_extra() -> None:
    hide = "import sys; sys.modules['planetary_computer'] = None\n"
    done = subprocess.run([sys.executable, "-c", hide + PLANETARY_COMPUTER], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("needs planetary-computer: install xchip[planetary-computer]")


# --- Other processes --------------------------------------------------------------------------------------------------


def read_elsewhere(storage: StorageOptions, href: str) -> np.ndarray:
    """The work of a worker."""
    with storage.gdal(), POOL.borrowed(storage.sign(href)) as dataset:
        return dataset.read(1, window=((0, 50), (0, 50)))


def test_options_travel_to_workers(shared_data: Path) -> None:
    storage = StorageOptions(endpoint=SERVER, **KEYS, signer=with_token)
    with (
        RangeServer(shared_data / "rasters", query=TOKEN) as server,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as workers,
    ):
        values = workers.submit(read_elsewhere, storage, f"{server.url}/{COG}").result(60)
    with rasterio.open(shared_data / "rasters" / COG) as dataset:
        np.testing.assert_array_equal(values, dataset.read(1, window=((0, 50), (0, 50))))
    assert pickle.loads(pickle.dumps(Store("s3://bucket/archive", storage))) == Store("s3://bucket/archive", storage)
