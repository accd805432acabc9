"""Fair timing: contestants take turns in a fresh random order each round, and are compared within a round."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

Times = dict[str, list[float]]
"""Seconds of each round, by contestant; index n of every list belongs to the same round."""


def take_turns(contestants: Mapping[str, Callable[[int], object]], rounds: int, *, seed: int = 0, warm_up: int = 1) -> Times:
    """Time every contestant once a round.

    Each is called with a number that no other call gets, so that it can use files of its own; the ``warm_up`` rounds
    that come first load modules and fill the page cache, and do not count.
    """
    rng = random.Random(seed)
    times: Times = {name: [] for name in contestants}
    number = 0
    for turn in range(warm_up + rounds):
        for name in rng.sample(list(contestants), len(contestants)):
            gc.collect()
            start = time.perf_counter()
            contestants[name](number)
            elapsed = time.perf_counter() - start
            number += 1
            if turn >= warm_up:
                times[name].append(elapsed)
    return times


def ratio(times: Times, name: str, base: str) -> float:
    """Median over the rounds of the time of ``name`` / the time of ``base`` in the same round."""
    return statistics.median(own / other for own, other in zip(times[name], times[base], strict=True))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    print()


def add_decoder_option(parser: argparse.ArgumentParser) -> None:
    """``--gdal``; `decoder` does what it says."""
    parser.add_argument("--gdal", action="store_true", help="leave all decoding to GDAL, as without the extra fast")


def decoder(options: argparse.Namespace) -> str:
    """Who decodes xchip's tiles; to be called before xchip reads any."""
    if options.gdal:
        sys.modules["imagecodecs"] = None  # type: ignore[assignment]
    return "libdeflate" if not options.gdal and importlib.util.find_spec("imagecodecs") else "GDAL"
