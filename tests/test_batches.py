"""Batches: each chip once however work is split, the same order from the same seed, the rest after an interruption."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from chip_making import write_aerial, write_landsat, write_sentinel
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Asked, Fault, RangeServer

import xchip
from xchip.chips.chip_table import ChipTable, open_table
from xchip.chips.open_chips import open_chips
from xchip.chips.shared_cache import SharedCache
from xchip.chips.train.band_stats import band_stats
from xchip.chips.train.batches import batches
from xchip.io.gdal import POOL, FileError
from xchip.io.storage import StorageOptions

BANDS = ["red", "nir"]


class Token:
    """Signs with a token that the server refuses until it is renewed."""

    token = "old"

    def __call__(self, href: str) -> str:
        return f"{href}?token={self.token}"

    def renew(self) -> None:
        self.token = "new"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batches")


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    """Chips of four items, three products and four CRSs, in random order."""
    items = [*write_sentinel(folder), write_landsat(folder)]
    parts = [xchip.index_items(some, 64).compute() for some in (items, write_aerial(folder))]
    rows = pd.concat(parts, ignore_index=True)
    return rows.sample(len(rows), random_state=1).reset_index(drop=True)


@pytest.fixture(scope="module")
def table(rows: pd.DataFrame) -> ChipTable:
    """The same, in small super-tiles."""
    table = open_table(rows, BANDS)
    return replace(table, reader=replace(table.reader, tile=(128, 128)))


@pytest.fixture(scope="module")
def pixels(rows: pd.DataFrame) -> xr.Dataset:
    """All chips, by id."""
    chips = open_chips(rows, BANDS).compute()
    return chips.set_index(chip="chip_id")


def ids(found: Any) -> list[list[str]]:
    return [batch["chip_id"].values.tolist() for batch in found]


def flat(lists: list[list[str]]) -> list[str]:
    return [name for names in lists for name in names]


def check(batch: xr.Dataset, pixels: xr.Dataset) -> None:
    expected = pixels.sel(chip=batch["chip_id"].values)
    for name in (*BANDS, "item_id", "proj_top", "datetime"):
        np.testing.assert_array_equal(batch[name].values, expected[name].values)


def test_batches_are_chips_in_memory(rows: pd.DataFrame, pixels: xr.Dataset) -> None:
    found = batches(rows, BANDS, batch_size=32)
    n = len(found)
    loaded = list(found)
    assert len(loaded) == n == -(-len(rows) // 32)
    for batch in loaded:
        assert isinstance(batch["red"].data, np.ndarray)
        assert set(batch.coords) == set(open_chips(rows, BANDS).coords)
        check(batch, pixels)
    assert sorted(flat(ids(loaded))) == sorted(rows["chip_id"])
    assert len(found) == 0


@settings(max_examples=20)
@given(
    st.integers(1, 50),
    st.booleans(),
    st.integers(1, 400),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sampled_from([(64, 64), (2048, 100)]),
)
def test_pixels_do_not_depend_on_how_they_are_read(
    table: ChipTable, pixels: xr.Dataset, size: int, shuffle: bool, buffer: int, threads: int, prefetch: int, tile: Any
) -> None:
    some = replace(table, reader=replace(table.reader, tile=tile))
    loaded = list(batches(some, batch_size=size, shuffle=shuffle, buffer=buffer, threads=threads, prefetch=prefetch, seed=size))
    assert sorted(flat(ids(loaded))) == sorted(pixels["chip"].values.tolist())
    for batch in loaded[:2] + loaded[-2:]:
        check(batch, pixels)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_workers_and_ranks_share_an_epoch(table: ChipTable, rows: pd.DataFrame, workers: int, ranks: int, shuffle: bool) -> None:
    parts = [
        batches(
            table, batch_size=16, rank=rank, world_size=ranks, worker=worker, workers=workers, seed=3, buffer=20, shuffle=shuffle
        )
        for rank in range(ranks)
        for worker in range(workers)
    ]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    given_out = [flat(ids(part)) for part in parts]
    assert sorted(flat(given_out)) == sorted(rows["chip_id"])
    assert max(map(len, given_out)) - min(map(len, given_out)) <= 1
    even = [
        batches(
            table,
            batch_size=16,
            rank=rank,
            world_size=ranks,
            worker=worker,
            workers=workers,
            seed=3,
            drop_last=True,
            shuffle=shuffle,
        )
        for rank in range(ranks)
        for worker in range(workers)
    ]
    assert len({len(part) for part in even}) == 1
    full = [ids(part) for part in even]
    assert all(len(batch) == 16 for part in full for batch in part)
    n = len(rows)
    assert n - sum(map(len, full)) * 16 < ranks * workers * 17
    assert len({name for part in full for batch in part for name in batch}) == sum(map(len, full)) * 16


def test_the_order_is_that_of_the_seed(table: ChipTable) -> None:
    orders = [
        ids(batches(table, batch_size=16, seed=seed, epoch=epoch, threads=threads))
        for seed, epoch, threads in ((1, 0, 1), (1, 0, 4))
    ]
    assert orders[0] == orders[1]
    assert ids(batches(table, batch_size=16, seed=1, epoch=1)) != orders[0] != ids(batches(table, batch_size=16, seed=2))


def test_without_shuffling_it_is_that_of_the_rows(rows: pd.DataFrame, table: ChipTable, pixels: xr.Dataset) -> None:
    loaded = list(batches(table, batch_size=20, shuffle=False, buffer=33))
    assert flat(ids(loaded)) == rows["chip_id"].tolist()
    for batch in loaded:
        check(batch, pixels)


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_interrupted_epoch_goes_on_with_what_was_left(table: ChipTable, pixels: xr.Dataset, shuffle: bool) -> None:
    options: dict[str, Any] = {"seed": 5, "buffer": 30, "shuffle": shuffle, "world_size": 2, "rank": 1}
    whole = ids(batches(table, batch_size=10, **options))
    for stop in range(0, len(whole) + 1, 2):
        with batches(table, batch_size=10, **options) as interrupted:
            for _ in range(stop):
                next(interrupted)
            state = json.loads(json.dumps(interrupted.state()))
        with pytest.raises(StopIteration):
            next(interrupted)
        rest = batches(table, batch_size=10, **options, start=state)
        assert len(rest) == len(whole) - stop
        loaded = list(rest)
        assert ids(loaded) == whole[stop:]
        for batch in loaded[:1]:
            check(batch, pixels)
    assert ids(batches(table, batch_size=10, **options, start=2)) == whole[2:]


def test_a_state_of_numpys_numbers_is_plain(table: ChipTable) -> None:
    options: dict[str, Any] = {"batch_size": 10, "seed": 5, "rank": 1, "world_size": 2}
    with (
        batches(table, **{name: np.int64(value) for name, value in options.items()}) as found,
        batches(table, **options) as plain,
    ):
        assert json.loads(json.dumps(found.state())) == plain.state()


def test_a_state_of_another_epoch_is_refused(table: ChipTable) -> None:
    state = batches(table, batch_size=10, seed=5).state()
    with pytest.raises(
        ValueError, match=r"start= is the state of another epoch: it has {'batch_size': 10, 'seed': 5}, this call"
    ):
        batches(table, batch_size=11, seed=6, start=state)
    with pytest.raises(ValueError, match=r"start \(batches\) is a whole number from 0 to \d+, got 99999"):
        batches(table, batch_size=10, start=99999)


def test_a_state_of_other_rows_is_refused(rows: pd.DataFrame) -> None:
    """As many chips in another order would come twice, or never."""
    state = batches(rows, BANDS, batch_size=10, seed=5).state()
    assert batches(rows.copy(), BANDS, batch_size=10, seed=5, start=state).state() == state
    moved = rows.assign(item_href="file://" + rows["item_href"])  # the same chips, wherever their items are
    assert batches(moved, BANDS, batch_size=10, seed=5, start=state).state() == state
    for other in (rows.iloc[::-1], pd.concat([rows.iloc[1:], rows.iloc[1:2]])):
        assert len(other) == len(rows)
        with pytest.raises(ValueError, match=r"is the state of another epoch: it has {'index': '[0-9a-f]{16}'}, this call"):
            batches(other, BANDS, batch_size=10, seed=5, start=state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is a whole number from 1 on, got 0"),
        ({"batch_size": 2.5}, "batch_size is a whole number from 1 on, got 2.5"),
        ({"threads": 0}, "threads is a whole number from 1 on, got 0"),
        ({"threads": 1.5}, "threads is a whole number from 1 on, got 1.5"),
        ({"seed": -1}, "seed is a whole number from 0 on, got -1"),
        ({"epoch": 0.5}, "epoch is a whole number from 0 on, got 0.5"),
        ({"start": 0.5}, r"start \(batches\) is a whole number from 0 to \d+, got 0.5"),
        ({"buffer": 0}, "buffer is a whole number from 1 on"),
        ({"rank": 2, "world_size": 2}, "rank is a whole number from 0 to 1, got 2"),
        ({"worker": -1}, "worker is a whole number from 0 to 0, got -1"),
        ({"prefetch": -1}, "prefetch is a whole number from 0 on"),
    ],
)
def test_numbers_out_of_range(table: ChipTable, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(table, **options)


def test_plain_arrays(table: ChipTable, rows: pd.DataFrame, pixels: xr.Dataset) -> None:
    found = batches(table, batch_size=16)
    positions, (array,) = found.next_pixels()
    assert array.shape == (16, 2, 64, 64)
    expected = pixels.sel(chip=rows["chip_id"].to_numpy()[positions])
    for number, name in enumerate(BANDS):
        np.testing.assert_array_equal(array[:, number], expected[name])
    found.close()
    (array,) = table.read([3, 1])
    np.testing.assert_array_equal(array[1, 1], pixels["nir"].sel(chip=rows["chip_id"][1]))
    several = open_table(rows[rows["item_id"] == "synthetic-0"], ["red", "scl", "nir"])
    assert several.reader.layout.groups == ((0, 2), (1,))
    batch = batches(several, batch_size=8).next_pixels()
    assert [(array.shape, array.dtype) for array in batch.arrays] == [((8, 2, 64, 64), np.uint16), ((8, 1, 64, 64), np.uint8)]


def test_bands_that_a_sensor_lacks_are_filled(rows: pd.DataFrame) -> None:
    for batch in batches(rows, batch_size=50):
        lacking = batch["item_id"].values != "aerial-1"
        assert (batch["blue"].values[batch["item_id"].values == "landsat-1"] == 0).all()
        assert (batch["nir08"].values[~lacking] == 0).all()


def test_a_failure_names_item_and_asset_and_is_not_the_end(folder: Path) -> None:
    path = write_landsat(folder, "failing", seed=3)
    rows = xchip.index_items(path, 64).compute()
    POOL.clear()
    (folder / "failing_red.tif").unlink()
    found = batches(rows, BANDS, batch_size=8)
    for _ in range(2):
        with pytest.raises(xchip.ItemError, match=r"item 'failing': asset 'red': can't read .*failing_red.tif"):
            next(found)


def test_reading_ahead_ends_with_the_iterator(table: ChipTable) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("xchip-batches") for thread in threading.enumerate())

    before = threads()
    found: Iterator[xr.Dataset] = batches(table, batch_size=8, threads=3)
    assert threads() == before, "nothing begins before the first batch is asked for"
    next(found)
    assert threads() > before
    del found
    assert threads() == before
    with batches(table, batch_size=8) as found:
        next(found)
    assert threads() == before


def test_bytes_come_once_over_http(tmp_path: Path) -> None:
    (path,) = write_sentinel(tmp_path, 1)
    files = sum((path.parent / name).stat().st_size for name in ("B04.tif", "B08.tif"))
    rows = xchip.index_items(path, 64).compute()
    with RangeServer(tmp_path) as server:
        rows["item_href"] = f"{server.url}/{path.parent.name}/{path.name}"
        local = open_table(xchip.index_items(path, 64).compute(), BANDS)
        expected = {batch["chip_id"].values[0]: batch["red"].values[0] for batch in batches(local, batch_size=1)}
        found = batches(rows, BANDS, batch_size=16)
        for batch in found:
            for name, red in zip(batch["chip_id"].values, batch["red"].values, strict=True):
                np.testing.assert_array_equal(red, expected[name])
        assert server.sent < 1.2 * files + 100_000
        assert len(server.requests) < 0.5 * len(rows)


def test_servers_that_are_busy_for_a_while_or_refuse_a_signature(tmp_path: Path) -> None:
    (path,) = write_sentinel(tmp_path, 1)
    rows = xchip.index_items(path, 64).compute()
    expected = xchip.open_chips(rows, BANDS).compute()
    local = band_stats(rows, BANDS).to_json()
    refused: set[str] = set()

    def fault(asked: Asked) -> Fault | None:
        if not asked.path.endswith(".tif"):
            return None
        if asked.query != "token=new":
            refused.add(asked.path)
            return Fault(status=403)
        return Fault(status=503) if asked.number < 5 else None  # GDAL by itself asks three times

    def elsewhere(server: RangeServer) -> pd.DataFrame:
        return rows.assign(item_href=f"{server.url}/{path.parent.name}/{path.name}")

    def load(chips: pd.DataFrame, pixels: StorageOptions) -> None:
        for batch in batches(chips, BANDS, batch_size=16, shuffle=False, pixels=pixels):
            for name in BANDS:
                at = expected["chip_id"].isin(batch["chip_id"])
                np.testing.assert_array_equal(batch[name], expected[name][at.values])

    def load_lazily(chips: pd.DataFrame, pixels: StorageOptions) -> None:
        found = xchip.open_chips(chips, BANDS, pixels=pixels).compute()
        for name in BANDS:
            np.testing.assert_array_equal(found[name], expected[name])

    def sum_up(chips: pd.DataFrame, pixels: StorageOptions) -> None:
        assert band_stats(chips, BANDS, pixels=pixels).to_json() == local

    for use in (load, load_lazily, sum_up):
        refused.clear()
        with RangeServer(tmp_path, fault=fault) as server:
            use(elsewhere(server), StorageOptions(signer=Token()))
            assert refused
            assert {status for _, address, status in server.requests if ".tif" in address} >= {403, 503, 206}


def test_what_will_not_pass_is_raised_as_it_is(tmp_path: Path) -> None:
    (path,) = write_sentinel(tmp_path, 1)
    rows = xchip.index_items(path, 64).compute()
    with RangeServer(tmp_path, fault=lambda asked: Fault(status=403) if "B04" in asked.path else None) as server:
        chips = rows.assign(item_href=f"{server.url}/{path.parent.name}/{path.name}")
        with pytest.raises(xchip.ItemError, match=r"asset 'red': can't read .*B04\.tif.*403") as refusal:
            list(batches(chips, BANDS, batch_size=16))
        assert isinstance(refusal.value.__cause__, FileError)
        assert sum("B04" in address for _, address, _ in server.requests) < 10


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_on_a_cluster(table: ChipTable, pixels: xr.Dataset) -> None:
    from distributed import Client, LocalCluster

    expected = ids(batches(table, batch_size=16, seed=2))
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        loaded = list(batches(table, batch_size=16, seed=2, client=client))
        assert ids(loaded) == expected
        for batch in loaded:
            check(batch, pixels)
        with batches(table, batch_size=16, client=client) as interrupted:
            next(interrupted)
        clients = set(cluster.scheduler.clients)
        with batches(table, batch_size=16, seed=2, client=client.scheduler.address) as addressed:
            assert ids(addressed) == expected
        with batches(table, batch_size=16, client="tcp://127.0.0.1:1"):
            pass  # nobody is asked before the first batch
        assert ids(batches(table, batch_size=16, seed=2, client=False)) == expected
        wait_until(lambda: set(cluster.scheduler.clients) == clients)  # the connection that batches made is closed


def _read_in_child(table: ChipTable) -> tuple[list[str], int]:
    loaded = list(batches(table, batch_size=16, seed=2))
    return flat(ids(loaded)), int(table.read([3])[0].sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_the_processes_of_a_data_loader(table: ChipTable, method: str) -> None:
    expected = _read_in_child(table)  # the parent has open files, threads and caches by now
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(_read_in_child, table).result(timeout=60) == expected


# The cache that threads share


def test_values_are_made_once() -> None:
    cache: SharedCache[int] = SharedCache(100, cost=lambda value: 1)
    made: list[int] = []
    go = threading.Barrier(8)

    def ask() -> None:
        go.wait()
        for key in range(20):
            assert cache.get(key, lambda key=key: made.append(key) or key) == key  # type: ignore[func-returns-value, misc]

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(20))


def test_the_least_recently_used_go_first() -> None:
    cache: SharedCache[int] = SharedCache(10, cost=lambda value: value)
    for value in (4, 5, 1):
        cache.get(value, lambda value=value: value)  # type: ignore[misc]
    cache.get(4, lambda: 0)
    cache.get(3, lambda: 3)
    assert cache.held == 8
    assert cache.get(4, lambda: 0) == 4
    assert cache.get(5, lambda: 99) == 99, "it was forgotten"


def test_a_value_that_could_not_be_made_is_tried_again() -> None:
    cache: SharedCache[int] = SharedCache(10, cost=lambda value: 1)

    def fail() -> int:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        cache.get("a", fail)
    assert cache.get("a", lambda: 3) == 3
