"""Index of full-size scenes: xchip, its rivals and the limit, in turn in one warm process. README.md says how to run it.

Compare ratios, not seconds: machines differ, and a shared one differs from minute to minute.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rivals import LIMIT, RIVALS, STACCHIP, XCHIP, Item, Rival, expected, href_of
from scenes import LANDSAT, PRODUCTS, SENTINEL_2, Product, prepare
from timing import Times, add_decoder_option, decoder, print_table, ratio, take_turns

# What xchip should reach; see the page performance of the documentation.
AIMS = {"sentinel-2": (1.5, 8.0), "landsat": (1.3, 2.0)}
"""By product: time / limit at most, stacchip / xchip at least."""
AIM_RSS_MIB = 260
AIM_POOL = 1.3
AIM_KEYS = 3

_fresh = itertools.count()


@contextmanager
def fresh_copies(product: Product, items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items with files under names that were never used: no open dataset or decoded block of an earlier call fits them."""
    links, renamed = [], []
    for item in items:
        path = Path(href_of(product, item))
        link = path.with_name(f"fresh-{os.getpid()}-{next(_fresh)}.tif")
        os.link(path, link)
        links.append(link)
        # Both the asset's href and its alternate one.
        renamed.append(json.loads(json.dumps(item).replace(json.dumps(str(path)), json.dumps(str(link)))))
    try:
        yield renamed
    finally:
        for link in links:
            link.unlink()


def run_once(rival: Rival, product: Product, item: Item, path: Path) -> Any:
    """One call on a scene under a fresh name."""
    with fresh_copies(product, [item]) as (fresh,):
        return rival.run(product, fresh, path)


def run_numbered(rival: Rival, product: Product, item: Item, folder: Path, number: int) -> None:
    """One call that leaves its file in ``folder``."""
    run_once(rival, product, item, folder / f"{number}.parquet")


def is_right(rival: Rival, product: Product, item: Item, folder: Path) -> str:
    """Whether the fractions equal a plain loop's."""
    found = run_once(rival, product, item, folder / "check.parquet")
    if found is None:
        return "-"
    answer = expected(rival.name, product, href_of(product, item))
    error = max(float(np.abs(a - b).max()) for a, b in zip(found, answer, strict=True))
    # stacchip keeps float32; NaN, of a chip that is missing, is not below anything.
    return "yes" if error < 1e-6 else f"off by {error:.2g}"


def peak_memory(rival: Rival, product: Product, data: Path) -> float:
    """Peak resident memory, MiB, of a fresh process that indexes one scene."""
    command = [sys.executable, __file__, "--data", str(data), "--alone", rival.name, product.name]
    if sys.modules.get("imagecodecs", "") is None:
        command.append("--gdal")
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def alone(name: str, product_name: str, data: Path) -> None:
    """Index one scene in this process, and print the peak of its memory in MiB."""
    product = next(product for product in PRODUCTS if product.name == product_name)
    rival = next(rival for rival in RIVALS if rival.name == name)
    with tempfile.TemporaryDirectory() as folder:
        rival.run(product, prepare(product, data)[0], Path(folder) / "index.parquet")
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """Peak resident memory in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would be the parent's where that was larger: Linux hands it on through fork and exec.
        kilobytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(kilobytes) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def verdict(value: float, aim: float, *, most: bool) -> str:
    """The value beside its aim."""
    met = value <= aim if most else value >= aim
    return f"{value:.2f} (aim {'<=' if most else '>='} {aim:g}: {'met' if met else 'MISSED'})"


def one_scene(product: Product, data: Path, rounds: int) -> None:
    """Time, memory and answers of every contestant on one scene."""
    item = prepare(product, data)[0]
    running = [rival for rival in RIVALS if rival.installed]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        right = {rival.name: is_right(rival, product, item, folder) for rival in running}
        times = take_turns(
            {rival.name: functools.partial(run_numbered, rival, product, item, folder) for rival in running}, rounds
        )
    memory = {rival.name: peak_memory(rival, product, data) for rival in running}

    height, width = product.shape
    megabytes = Path(href_of(product, item)).stat().st_size / 1e6
    print(f"{product.name}: {product.asset} {height} x {width}, {megabytes:.1f} MB -> {np.prod(product.chips)} chips")
    rows = []
    for name in (rival.name for rival in RIVALS):
        if name not in times:
            rows.append([name, "not installed", "", "", "", ""])
            continue
        ratios = [f"{ratio(times, name, base):.2f}" if base in times else "" for base in (LIMIT.name, XCHIP.name)]
        rows.append([name, f"{1e3 * statistics.median(times[name]):.0f}", *ratios, f"{memory[name]:.0f}", right[name]])
    print_table(["contestant", "median ms", "/ limit", "/ xchip", "peak MiB", "right"], rows)
    judge(product, times, memory)


def judge(product: Product, times: Times, memory: dict[str, float]) -> None:
    """Print how xchip stands to its aims."""
    if XCHIP.name not in times:
        return
    most, least = AIMS[product.name]
    print("xchip / limit:    ", verdict(ratio(times, XCHIP.name, LIMIT.name), most, most=True))
    if STACCHIP.name in times:
        print("stacchip / xchip: ", verdict(ratio(times, STACCHIP.name, XCHIP.name), least, most=False))
    if product is SENTINEL_2:
        print("xchip's peak, MiB:", verdict(memory[XCHIP.name], AIM_RSS_MIB, most=True))
    print()


def index_part_alone(item: Item, path: Path) -> None:
    """What xchip does for one item, without dask: understand, count, write."""
    from xchip.core.limits import Limits
    from xchip.indexing import from_items as build
    from xchip.indexing.files.write import index_bytes

    recipe = build.Recipe(256, None, "drop", "origin", None, None, Limits())
    scene = build.understand_for_index(item, None, recipe, header=None)
    path.write_bytes(index_bytes([build.index_part(scene, recipe)]))


def many_scenes(product: Product, data: Path, count: int, rounds: int) -> None:
    """``count`` scenes in one call on two threads, beside a bare pool of two threads that does the same work."""
    import dask
    from dask.callbacks import Callback

    import xchip

    items = prepare(product, data, copies=count)
    graph_sizes, build_seconds = [], []

    def with_dask(number: int) -> None:
        with fresh_copies(product, items) as fresh:
            start = time.perf_counter()
            index = xchip.index_items(fresh)
            build_seconds.append(time.perf_counter() - start)
            with (
                dask.config.set(scheduler="threads", num_workers=2),
                Callback(start=lambda graph: graph_sizes.append(len(graph))),
            ):
                xchip.write_index(index, folder / f"dask-{number}")

    def with_pool(number: int) -> None:
        target = folder / f"pool-{number}"
        target.mkdir()
        with fresh_copies(product, items) as fresh, ThreadPoolExecutor(2) as pool:
            list(pool.map(index_part_alone, fresh, [target / f"{n}.parquet" for n in range(count)]))

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        times = take_turns({"xchip on dask's threads": with_dask, "bare thread pool": with_pool}, rounds)
        written = max(folder.glob("dask-*"), key=lambda path: path.stat().st_mtime)
        rows_written = len(list(written.rglob("*.parquet")))

    print(f"{count} {product.name} scenes in one call, 2 threads ({rows_written} files)")
    rows = []
    for name, own in times.items():
        middle = statistics.median(own)
        rows.append([name, f"{middle:.2f}", f"{count / middle:.1f}", f"{ratio(times, name, 'bare thread pool'):.2f}"])
    print_table(["contestant", "median s", "scenes/s", "/ pool"], rows)
    print("xchip / bare pool:   ", verdict(ratio(times, "xchip on dask's threads", "bare thread pool"), AIM_POOL, most=True))
    print("graph keys a scene:  ", verdict(max(graph_sizes) / count, AIM_KEYS, most=True))
    print(f"understand and build: {1e3 * min(build_seconds) / count:.1f} ms a scene")
    print()


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that keeps the scenes for the next run (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default %(default)s)")
    parser.add_argument("--scenes", type=int, default=32, help="scenes in the one call on threads (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 rounds and 4 scenes: shows that it runs, measures little")
    parser.add_argument("--alone", nargs=2, metavar=("CONTESTANT", "PRODUCT"), help=argparse.SUPPRESS)
    add_decoder_option(parser)
    options = parser.parse_args()
    own_decoder = decoder(options)
    if options.quick:
        options.rounds, options.scenes = 2, 4
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or Path(scratch)
        if options.alone:
            alone(*options.alone, data)
            return
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.rounds} rounds; {own_decoder} decodes\n")
        for product in (SENTINEL_2, LANDSAT):
            one_scene(product, data, options.rounds)
        if XCHIP.installed:
            many_scenes(SENTINEL_2, data, options.scenes, max(2, options.rounds // 2))


if __name__ == "__main__":
    main()
