"""Archives of many items: build_index on threads and on worker processes, beside bare pools that do the same work without it.

The items share a few scene files; each is opened and decoded anew all the same. README.md says how to run it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from index import index_part_alone, peak_of_this_process, verdict
from rivals import Item
from scenes import SENTINEL_2, prepare
from timing import Times, print_table, ratio, take_turns

AIM_POOL = 1.3
AIM_RESUME_SECONDS = 10
WORKERS = 2


def make_items(data: Path, count: int) -> list[Item]:
    """``count`` items over the files of one scene."""
    (item,) = prepare(SENTINEL_2, data)
    return [item | {"id": f"{item['id']}-{number:06d}"} for number in range(count)]


def work_of_an_item(item: Item, folder: Path) -> None:
    """What an archive gets of an item, without the archive: its JSON and its index."""
    own = folder / item["id"]
    own.mkdir()
    (own / "item.json").write_text(json.dumps(item))
    index_part_alone(item, own / "index.parquet")


def in_a_pool(pool: Executor, items: Sequence[Item], folder: Path) -> None:
    """All the work in a bare pool."""
    folder.mkdir()
    list(pool.map(work_of_an_item, items, [folder] * len(items)))


def build(items: Any, folder: Path, **options: Any) -> None:
    """All the work by build_index; every item must have been done."""
    import xchip

    report = xchip.build_index(items, folder, progress=False, **options)
    if report.failed or report.skipped:
        raise RuntimeError(f"not all items were indexed: {report}")


def compare(items: Sequence[Item], rounds: int, scratch: Path) -> None:
    """Items a second of both, on threads and on processes."""
    from xchip.io.cluster import local_cluster

    spawn = multiprocessing.get_context("spawn")
    with (
        ThreadPoolExecutor(WORKERS) as threads,
        ProcessPoolExecutor(WORKERS, spawn) as processes,
        local_cluster(WORKERS) as client,
    ):

        def tidy(number: int, work: Any) -> None:
            folder = scratch / f"run-{number}"
            work(folder)
            shutil.rmtree(folder)

        contestants = {
            "bare thread pool": lambda folder: in_a_pool(threads, items, folder),
            # A client is connected, so threads are asked for.
            "xchip, threads": lambda folder: build(items, folder, workers=WORKERS, client=False),
            "bare process pool": lambda folder: in_a_pool(processes, items, folder),
            "xchip, dask workers": lambda folder: build(items, folder, client=client),
        }
        times = take_turns({name: lambda n, work=work: tidy(n, work) for name, work in contestants.items()}, rounds)
    report(times, len(items))


def report(times: Times, count: int) -> None:
    """Print how xchip stands to the pools."""
    rows = []
    for name, own in times.items():
        middle = statistics.median(own)
        base = "bare process pool" if "process" in name or "dask" in name else "bare thread pool"
        rows.append([name, f"{middle:.1f}", f"{count / middle:.1f}", f"{ratio(times, name, base):.2f}"])
    print_table([f"{count} items, {WORKERS} workers", "median s", "items/s", "/ pool"], rows)
    for name, base in (("xchip, threads", "bare thread pool"), ("xchip, dask workers", "bare process pool")):
        print(f"{name} / {base}:", verdict(ratio(times, name, base), AIM_POOL, most=True))
        more = (statistics.median(times[name]) - statistics.median(times[base])) * WORKERS / count
        print(f"  over the pool: {1e3 * more:.1f} ms of a worker an item")
    print()


def memory(data: Path, counts: Sequence[int]) -> None:
    """Peak memory of a fresh process that builds an archive of so many items."""
    rows = []
    for count in counts:
        command = [sys.executable, __file__, "--data", str(data), "--alone", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append([f"{count} items", f"{float(done.stdout):.0f}"])
    print_table(["threads", "peak MiB"], rows)


def resume(count: int, scratch: Path) -> None:
    """How long a run takes that finds all done, of small scenes."""
    import xchip
    from xchip.stac.inputs import plain_items
    from xchip.testing import write_scene

    ((item, _),) = plain_items(write_scene(scratch, shape=(256, 256)))
    items = [item | {"id": f"item-{number:06d}"} for number in range(count)]
    start = time.perf_counter()
    build(items, scratch / "archive")
    built = time.perf_counter() - start
    start = time.perf_counter()
    again = xchip.build_index(items, scratch / "archive", progress=False)
    elapsed = time.perf_counter() - start
    if again.skipped != count:
        raise RuntimeError(f"not all items were found: {again}")
    start = time.perf_counter()
    opened = xchip.open_index(scratch / "archive")
    print(f"small scenes: {count:,} items built in {built:.0f} s ({count / built:.0f} items/s)")
    print(f"all found done in {verdict(elapsed, AIM_RESUME_SECONDS, most=True)} s")
    print(f"opened in {time.perf_counter() - start:.2f} s, {opened.npartitions} partitions")


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that keeps the scenes for the next run (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default %(default)s)")
    parser.add_argument("--items", type=int, default=1000, help="items of an archive (default %(default)s)")
    parser.add_argument("--resumed", type=int, default=10_000, help="items of the archive that is resumed (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="1 round of 8 items: shows that it runs, measures little")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.items, options.resumed = 1, 8, 100
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = options.data or folder
        if options.alone:
            build(make_items(data, options.alone), folder / "archive", workers=WORKERS)
            print(peak_of_this_process())
            return
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.rounds} rounds\n")
        compare(make_items(data, options.items), options.rounds, folder)
        memory(data, (max(1, options.items // 10), options.items))
        resume(options.resumed, folder)


if __name__ == "__main__":
    main()
