"""Sorting out of core: nothing is lost, and keys stay together."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xchip.indexing.merge.external_sort import BATCH_BYTES, KEY, Sorter

TABLES = st.lists(st.lists(st.integers(0, 30) | st.just(2**64 - 1), max_size=40), max_size=8)


def table(keys: list[int], first: int) -> pa.Table:
    rows = np.arange(first, first + len(keys))
    return pa.table(
        {KEY: pa.array(keys, pa.uint64()), "row": rows, "text": pa.array([f"row {row}" * 9 for row in rows], pa.string())}
    )


@settings(max_examples=30)
@given(tables=TABLES, memory=st.sampled_from([1, 4_000, 20_000, 10**9]))
def test_all_rows_come_out_in_order_with_whole_keys(tables: list[list[int]], memory: int) -> None:
    with TemporaryDirectory() as folder:
        sorter = Sorter(Path(folder), memory)
        first = 0
        for keys in tables:
            sorter.add(table(keys, first))
            first += len(keys)
        found = list(sorter.sorted())
    assert sorter.rows == first
    keys = [key for part in found for key in part[KEY].to_pylist()]
    assert keys == sorted(key for part in tables for key in part)
    rows = [row for part in found for row in zip(*part.to_pydict().values(), strict=True)]
    everything = table([key for part in tables for key in part], 0)
    given_rows = list(zip(*everything.to_pydict().values(), strict=True))
    assert sorted(rows) == sorted(given_rows)
    for before, after in itertools.pairwise(found):
        assert before[KEY][-1].as_py() < after[KEY][0].as_py(), "a key is in one table only"


def test_columns_are_united(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path, 1)
    sorter.add(pa.table({KEY: pa.array([2], pa.uint64()), "a": ["x"], "c": pa.nulls(1)}))
    sorter.add(pa.table({KEY: pa.array([1], pa.uint64()), "b": [1.5], "c": [7]}))
    (found,) = [pa.concat_tables(sorter.sorted())]
    assert found.to_pylist() == [{KEY: 1, "a": None, "c": 7, "b": 1.5}, {KEY: 2, "a": "x", "c": None, "b": None}]


def test_memory_stays_small(tmp_path: Path) -> None:
    memory = 16 * BATCH_BYTES
    sorter = Sorter(tmp_path, memory)
    rng = np.random.default_rng(1)
    pool = pa.default_memory_pool()
    base = pool.bytes_allocated()
    most = 0
    for _ in range(80):
        keys = rng.integers(0, 10**9, 20_000).astype(np.uint64)
        sorter.add(pa.table({KEY: keys, "ballast": rng.random(20_000), "more": rng.random(20_000)}))
        most = max(most, pool.bytes_allocated() - base)
    for _ in sorter.sorted():
        most = max(most, pool.bytes_allocated() - base)
    assert 4 * memory < 80 * 20_000 * 24, "memory would not hold all rows"
    assert most < 1.25 * memory


def test_what_was_read_is_closed_when_the_reader_stops(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path, 1)
    for key in range(9):
        sorter.add(table([key], key))
    tables = sorter.sorted()
    assert next(tables)[KEY].to_pylist() == [0]
    tables.close()
    with pytest.raises(StopIteration):
        next(tables)
