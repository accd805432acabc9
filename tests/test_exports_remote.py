"""Exports from and to a real object store, on workers in other processes too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from processes import object_store, s3_client

import xchip
from xchip.chips.open_chips import open_chips
from xchip.export.cubes import Cubes
from xchip.export.exports import export_chips
from xchip.export.zarr_store import ZarrStore
from xchip.io.cluster import local_cluster
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.testing import write_scene

pytestmark = pytest.mark.server

ARCHIVE = "s3://scenes/archive"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageOptions]:
    """How the store is reached, which has two scenes and their archive; the environment does not tell."""
    folder = tmp_path_factory.mktemp("s3")
    with object_store(folder) as environment:
        endpoint = environment["AWS_ENDPOINT_URL"]
        client = s3_client(endpoint)
        items = []
        for n in (1, 2):
            path = write_scene(folder, item_id=f"synthetic-{n}", seed=n, shape=(256, 256), block=128)
            item = json.loads(path.read_text())
            for asset in item["assets"].values():
                file = path.parent / asset["href"]
                client.put_object(Bucket="scenes", Key=f"{item['id']}/{file.name}", Body=file.read_bytes())
                asset["href"] = f"s3://scenes/{item['id']}/{file.name}"
            items.append(item)
        found = StorageOptions(endpoint=endpoint, region="us-west-2", key="testkey", secret="testsecret")
        xchip.build_index(items, ARCHIVE, 64, storage=found, client=False, progress=False)
        yield found


def test_cubes_from_bucket_to_bucket_on_a_cluster(storage: StorageOptions, tmp_path: Path) -> None:
    options: dict[str, Any] = {"assets": ["red", "nir"], "storage": storage, "progress": False, "buffer": 8}
    here = export_chips(ARCHIVE, tmp_path, Cubes(5), client=False, target=StorageOptions(), **options)
    with local_cluster(2) as client:
        there = export_chips(ARCHIVE, "s3://scenes/cubes", Cubes(5), client=client, **options)
        again = export_chips(ARCHIVE, "s3://scenes/cubes", Cubes(5), client=client, **options)
    assert (here.done, here.files) == (there.done, there.files) == (32, 7)
    assert (again.done, again.skipped) == (0, 32)
    store = Store("s3://scenes/cubes", storage)
    for path in sorted(tmp_path.rglob("*.npz")):
        assert store.read(path.relative_to(tmp_path).as_posix()) == path.read_bytes()


def test_a_zarr_store_in_a_bucket(storage: StorageOptions) -> None:
    pytest.importorskip("zarr")
    options: dict[str, Any] = {"assets": ["red", "nir"], "storage": storage, "progress": False, "client": False}
    for number in (1, 0):
        export_chips(ARCHIVE, "s3://scenes/zarr", ZarrStore(8), part=(number, 2), buffer=8, **options)
    fs, _ = storage.filesystem("s3://scenes/zarr")
    stored = xr.open_zarr(fs.get_mapper("scenes/zarr/chips.zarr")).load()
    xr.testing.assert_equal(stored, open_chips(ARCHIVE, ["red", "nir"], storage=storage).compute())


def test_what_can_not_be_written_is_named(storage: StorageOptions) -> None:
    pytest.importorskip("zarr")
    options: dict[str, Any] = {"assets": ["red"], "storage": storage, "progress": False, "client": False}
    export_chips(ARCHIVE, "s3://scenes/refused", ZarrStore(8), **options)
    Store("s3://scenes/refused", storage).remove("chips.zarr/zarr.json")
    reader = replace(storage, key="reader", secret="readersecret")
    with pytest.raises(PermissionError, match=r"can't write to 's3://scenes/refused/chips\.zarr': "):
        export_chips(ARCHIVE, "s3://scenes/refused", ZarrStore(8), target=reader, **options)
