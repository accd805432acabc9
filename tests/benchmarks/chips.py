"""Pixels of chips: xchip, its rivals and the limit, in turn in one warm process. README.md says how to run it.

Compare ratios, not seconds: machines differ, and a shared one differs from minute to minute.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from chip_rivals import RASTERIO_OPEN, REOPENED, RIVALS, SIZE, STACCHIP, ChipRival, Item
from chip_scenes import BANDS, naip, sentinel_2
from slow_server import SlowServer
from timing import Times, add_decoder_option, decoder, print_table, ratio, take_turns

import xchip
from xchip.chips.chip_table import ChipTable, open_table
from xchip.chips.file_blocks import BLOCKS
from xchip.chips.open_chips import open_chips
from xchip.chips.train.batches import batches
from xchip.io.gdal import POOL

# What xchip should reach; see the page performance of the documentation.
AIM_EPOCH, AIM_RIVALS = 1.2, 20.0
AIM_STACCHIP, AIM_SINGLE = 1.0, 2.0
AIM_HTTP_EPOCH, AIM_HTTP_RANDOM, AIM_REQUESTS = 2.5, 1.5, 0.5
THREADS = 2
BATCHES, LAZY = "xchip.batches, 2 threads", "xchip.open_chips, chip by chip"
LIMIT = "limit: blocks once, 1 thread"

_fresh = itertools.count()


def forget() -> None:
    """Close files and drop decoded blocks that an earlier call left."""
    POOL.clear()
    BLOCKS.clear()


def limit(item: Item, assets: Sequence[str]) -> None:
    """GDAL decodes each block once."""
    for name in assets:
        with rasterio.open(item["assets"][name]["href"]) as file:
            for _, window in file.block_windows(1):
                file.read(window=window)


def epoch(table: ChipTable, seed: int, threads: int | None = THREADS) -> int:
    """Shuffled batches of plain arrays; returns how many chips they have."""
    forget()
    with batches(table, batch_size=64, seed=seed, threads=threads) as found:
        return sum(len(found.next_pixels().positions) for _ in range(len(found)))


def at_random(table: ChipTable, threads: int | None) -> int:
    """Batches of a single chip, in the order of the rows; returns how many."""
    forget()
    with batches(table, batch_size=1, shuffle=False, buffer=1, prefetch=8, threads=threads) as found:
        return sum(len(found.next_pixels().positions) for _ in range(len(found)))


def one_by_one(item: Item, assets: tuple[str, ...], rival: ChipRival, places: np.ndarray) -> None:
    """Chips at ``places`` (chip_x, chip_y), read by a rival."""
    with rival.open(item, assets) as read:
        for x, y in places.tolist():
            values = read(x, y)
            assert values.shape[-2:] == (SIZE, SIZE), values.shape


def lazily(item: Item, index: Any, assets: Sequence[str], rows: np.ndarray) -> None:
    """Chips at ``rows``, each computed by itself."""
    forget()
    chips = open_chips(index, assets, items=item)
    for row in rows.tolist():
        chips.isel(chip=row).compute(scheduler="threads", num_workers=THREADS)


def check(item: Item, index: Any, assets: tuple[str, ...], rivals: Sequence[ChipRival]) -> None:
    """Batches hold what rasterio reads, and so do the rivals' chips."""
    with batches(index, assets, batch_size=5, items=item, seed=1) as found, RASTERIO_OPEN.open(item, assets) as read:
        batch = next(found)
        for chip in range(5):
            own = np.stack([batch[name].values[chip] for name in batch.data_vars])
            one = batch.isel(chip=chip)
            assert np.array_equal(own, read(int(one.chip_index_x), int(one.chip_index_y))), "xchip's pixels are wrong"
        for rival in rivals:
            with rival.open(item, assets) as other:
                assert np.array_equal(other(3, 2), read(3, 2)), f"pixels of {rival.name} are wrong"


def index_of(item: Item) -> Any:
    """All chips of an item."""
    return xchip.index_items(item, SIZE).compute().reset_index(drop=True)


def hosted(item: Item, url: str) -> Item:
    """The item with its files at a place that no call has used before."""
    base = f"{url}/{next(_fresh)}"
    assets = {}
    for name, asset in item["assets"].items():
        path = Path(asset["href"])
        assets[name] = {**asset, "href": f"{base}/{path.parent.name}/{path.name}"}
    return {**item, "assets": assets}


def verdict(value: float, aim: float, *, most: bool) -> str:
    """A figure beside its aim."""
    met = value <= aim if most else value >= aim
    return f"{value:.2f} (aim: at {'most' if most else 'least'} {aim:g}{'' if met else ', MISSED'})"


def report(title: str, times: Times, base: str, chips: dict[str, int]) -> None:
    """A table of contestants beside ``base``, by the chip."""
    print(title)
    rows = []
    for name, own in times.items():
        each = statistics.median(own) / chips[name]
        rows.append([name, f"{1 / each:.1f}", f"{ratio(times, name, base) * chips[base] / chips[name]:.2f}"])
    print_table(["contestant", "chips/s", f"time / {base}"], rows)


def local(item: Item, assets: tuple[str, ...], rounds: int, n: int, rivals: Sequence[ChipRival]) -> None:
    """Epochs and random chips from local files."""
    index = index_of(item)
    check(item, index, assets, rivals)
    table = open_table(index, assets, items=item)
    places = index[["chip_index_x", "chip_index_y"]].to_numpy()

    def some(number: int) -> np.ndarray:
        return np.random.default_rng(number).choice(len(index), n, replace=False)

    contestants: dict[str, Callable[[int], object]] = {
        LIMIT: lambda number: limit(item, assets),
        BATCHES: lambda number: epoch(table, number),
        LAZY: lambda number: lazily(item, index, assets, some(number)),
    }
    for rival in rivals:
        contestants[rival.name] = lambda number, rival=rival: one_by_one(item, assets, rival, places[some(number)])
    chips = dict.fromkeys(contestants, n) | {LIMIT: len(index), BATCHES: len(index)}
    times = take_turns(contestants, rounds)
    report(f"{item['id']}: {len(index)} chips of {len(assets)} assets, local; random chips: {n} a round", times, LIMIT, chips)

    def faster(name: str, own: str) -> float:
        return ratio(times, name, own) * chips[own] / chips[name]

    print("shuffled epoch / limit:".ljust(34), verdict(ratio(times, BATCHES, LIMIT), AIM_EPOCH, most=True))
    for rival in rivals:
        if rival not in (RASTERIO_OPEN, REOPENED):  # they are there to compare with; plain rasterio knows of no index
            print(f"{rival.name} / batches:".ljust(34), verdict(faster(rival.name, BATCHES), AIM_RIVALS, most=False))
            aim = AIM_STACCHIP if rival is STACCHIP else AIM_SINGLE
            print(f"{rival.name} / one by one:".ljust(34), verdict(faster(rival.name, LAZY), aim, most=False))
    print()


def remote(item: Item, assets: tuple[str, ...], data: Path, rounds: int, n: int) -> None:
    """Epochs and random chips over HTTP, with 20 ms a request."""
    index = index_of(item)
    requests: dict[str, list[float]] = {"epoch": [], "random": []}
    with SlowServer(data) as server:

        def region(number: int) -> Any:
            """Chips of six super-tiles, or of as many as there are."""
            last = np.array([index.chip_index_x.max() // 8 - 2, index.chip_index_y.max() // 8 - 1])
            x, y = 8 * np.random.default_rng(number).integers(0, np.maximum(1, last))
            return index[index.chip_index_x.between(x, x + 23) & index.chip_index_y.between(y, y + 15)]

        def some(number: int) -> Any:
            return index.iloc[np.random.default_rng(number).choice(len(index), n, replace=False)]

        def far_epoch(number: int) -> None:
            table = open_table(region(number), assets, items=hosted(item, server.url))
            before = server.counted()[0]
            given = epoch(table, number, threads=None)
            requests["epoch"].append((server.counted()[0] - before) / given)

        def far_random(number: int) -> None:
            table = open_table(some(number), assets, items=hosted(item, server.url))
            before = server.counted()[0]
            given = at_random(table, threads=None)
            requests["random"].append((server.counted()[0] - before) / given)

        times = take_turns(
            {
                "local, shuffled batches": lambda number: epoch(open_table(region(number), assets, items=item), number),
                "HTTP, shuffled batches": far_epoch,
                "local, random chips": lambda number: at_random(open_table(some(number), assets, items=item), threads=THREADS),
                "HTTP, random chips": far_random,
            },
            rounds,
        )
    print(f"{item['id']} over HTTP, 20 ms a request: an epoch of six super-tiles, and {n} random chips")
    print(
        "batches, HTTP / local:         ",
        verdict(ratio(times, "HTTP, shuffled batches", "local, shuffled batches"), AIM_HTTP_EPOCH, most=True),
    )
    print("requests a chip:               ", verdict(statistics.median(requests["epoch"]), AIM_REQUESTS, most=True))
    print(
        "random chips, HTTP / local:    ",
        verdict(ratio(times, "HTTP, random chips", "local, random chips"), AIM_HTTP_RANDOM, most=True),
    )
    print(f"requests a random chip:         {statistics.median(requests['random']):.2f}")
    print()


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that keeps the scenes for the next run (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default %(default)s)")
    parser.add_argument("--chips", type=int, default=32, help="random chips a round (default %(default)s)")
    parser.add_argument("--only", choices=("local", "naip", "http"), help="one part alone")
    parser.add_argument("--quick", action="store_true", help="small scenes, 2 rounds: shows that it runs, measures little")
    add_decoder_option(parser)
    options = parser.parse_args()
    own_decoder = decoder(options)
    if options.quick:
        options.rounds, options.chips = 2, 16
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or Path(scratch)
        tile, quad = (sentinel_2(data, 4096), naip(data, (4096, 4096))) if options.quick else (sentinel_2(data), naip(data))
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.rounds} rounds; {own_decoder} decodes\n")
        rivals = [rival for rival in RIVALS if rival.installed]
        if options.only in (None, "local"):
            local(tile, BANDS, options.rounds, options.chips, rivals)
        if options.only in (None, "naip"):
            local(quad, ("image",), options.rounds, options.chips, [RASTERIO_OPEN, REOPENED])
        if options.only in (None, "http"):
            remote(tile, BANDS, data, options.rounds, options.chips)


if __name__ == "__main__":
    main()
