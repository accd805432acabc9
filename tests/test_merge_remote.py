"""Merged indexes in a real object store."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import object_store

from xchip.indexing.files.write import write_index
from xchip.indexing.merge.merge import merge_indexes
from xchip.io.storage import StorageOptions
from xchip.testing import synthetic_stack

pytestmark = pytest.mark.server


class Interruption(Exception):
    """What somebody's progress function raises."""


def interrupt(what: str, done: int, total: int) -> None:
    if what == "rows written":
        raise Interruption


def test_an_index_in_a_bucket_is_made_changed_and_read(tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    ds = synthetic_stack(shape=(128, 128))
    sources = [write_index(ds.chips.index(32, item_id=name), tmp_path / f"{name}.parquet") for name in "abc"]
    expected = pq.read_table(merge_indexes(sources[1:], tmp_path / "expected.parquet"))
    server = tmp_path / "server"
    server.mkdir()
    with object_store(server) as names:
        endpoint, region = names["AWS_ENDPOINT_URL"], names["AWS_REGION"]
        storage = StorageOptions(endpoint=endpoint, region=region, key="testkey", secret="testsecret")
        for name in ("all.parquet", "folder"):
            out = merge_indexes(sources[:2], f"s3://scenes/merged/{name}", storage=storage)
            merge_indexes(None, out, drop={"item_id": "a"}, add=sources[2], storage=storage)
            with pytest.raises(Interruption):
                merge_indexes(sources, out, storage=storage, progress=interrupt)
            back = merge_indexes(out, tmp_path / "back.parquet", storage=storage)
            assert pq.read_table(back).equals(expected)
            fs, path = storage.filesystem(out)
            fs.invalidate_cache()
            assert len(fs.ls(path)) == 1, "nothing else is left there"
