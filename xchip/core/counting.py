"""Count the pixels of each quality class in the cells of a block.

A cell is a rectangle between neighbouring cuts of a block. Counting works on one row of cells at a time, so that masks
stay in the processor's cache. It compares whole arrays of bytes, and sums down columns in bytes, at most 255 rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np

from xchip.core.quality import CLEAR, N_CLASSES, QualityClass, QualityRule, lookup_table, unsigned

MAX_ROWS = 255
"""Rows that a uint8 column sum of 0 and 1 can hold."""


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison on bytes: the value lies in [low, high], or shares a bit with ``low`` (``kind="bits"``)."""

    kind: Literal["range", "bits"]
    low: int
    high: int = 0

    @property
    def cost(self) -> int:
        """Number of passes over the block."""
        return 1 if self.kind == "range" and (self.low == self.high or self.low == 0 or self.high == 255) else 2

    def apply(self, block: np.ndarray, mask: np.ndarray, scratch: np.ndarray) -> None:
        """Write to the bool array ``mask`` whether each byte of ``block`` passes the test."""
        if self.kind == "bits":
            np.bitwise_and(block, np.uint8(self.low), out=scratch)
            np.not_equal(scratch, 0, out=mask)
        elif self.low == self.high:
            np.equal(block, np.uint8(self.low), out=mask)
        elif self.low == 0:
            np.less_equal(block, np.uint8(self.high), out=mask)
        elif self.high == 255:
            np.greater_equal(block, np.uint8(self.low), out=mask)
        else:
            # One unsigned comparison tests both ends.
            np.subtract(block, np.uint8(self.low), out=scratch)
            np.less_equal(scratch, np.uint8(self.high - self.low), out=mask)


@dataclass(frozen=True, slots=True)
class Step:
    """Tests that count one class, or all classes up to it."""

    cls: QualityClass
    tests: tuple[Test, ...]
    cumulative: bool
    """Whether the tests also find the classes before ``cls``."""


@dataclass(frozen=True)
class ClassCounter:
    """A quality rule compiled for one dtype."""

    steps: tuple[Step, ...]
    rest: QualityClass
    """The class of the remaining pixels, which no step counts."""
    table: np.ndarray | None = None
    """Lookup table to apply first, where comparisons of the values themselves would be many or wide."""
    narrow: bool = False
    """Whether only the low byte of each value matters."""

    def prepare(self, block: np.ndarray) -> np.ndarray:
        """Return the bytes that the steps compare, for a 2-D block of values."""
        if self.table is not None:
            return np.take(self.table, unsigned(block))
        if self.narrow:
            return block.astype(np.uint8)  # keeps the low byte
        return unsigned(block)


@lru_cache(maxsize=64)
def compile_rule(rule: QualityRule, dtype: np.dtype) -> ClassCounter:
    """Return a counter for integer values of at most 16 bits."""
    table = lookup_table(rule, dtype)
    if dtype.itemsize == 1:
        return _compile(table)
    low_byte_only = np.array_equal(table.reshape(256, 256), np.broadcast_to(table[:256], (256, 256)))
    if low_byte_only:
        return _compile(table[:256], narrow=True)
    codes = _compile(CODES)
    return ClassCounter(codes.steps, codes.rest, table=table)


# A table for arrays of classes; numbers that are not a class count as CLEAR, like other illegal codes.
CODES = np.full(256, CLEAR, np.uint8)
CODES[:N_CLASSES] = np.arange(N_CLASSES)


@lru_cache(maxsize=1)
def code_counter() -> ClassCounter:
    """Return a counter for arrays of `QualityClass` codes (uint8)."""
    return _compile(CODES)


def _compile(table: np.ndarray, *, narrow: bool = False) -> ClassCounter:
    """The cheapest steps for a table of 256 classes.

    Each class is counted either alone or together with all classes before it, with the fewer passes. The last is the rest.
    """
    present = [cls for cls in QualityClass if (table == cls).any()]
    steps = []
    for cls in present:
        alone, upto = _tests(table == cls), _tests(table <= cls)
        steps.append(Step(cls, upto, True) if _cost(upto) < _cost(alone) else Step(cls, alone, False))
    # Only the last class can be the rest, because steps may be cumulative.
    last = steps.pop()
    return ClassCounter(tuple(steps), last.cls, narrow=narrow)


def _tests(member: np.ndarray) -> tuple[Test, ...]:
    """Tests that together find the byte values where ``member`` (256 bools) is True."""
    mask = sum(1 << bit for bit in range(8) if member[1 << bit])
    if mask and np.array_equal(member, np.arange(256) & mask != 0):
        return (Test("bits", mask),)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], member, [False]))))
    return tuple(Test("range", int(low), int(high) - 1) for low, high in edges.reshape(-1, 2))


def _cost(tests: Iterable[Test]) -> int:
    costs = [test.cost for test in tests]
    return sum(costs) + len(costs) - 1


class Scratch:
    """Memory that `count_classes` reuses from block to block: allocating it takes as long as counting."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def planes(self, rows: int, width: int) -> np.ndarray:
        """Return three planes: uint8 (3, rows, width)."""
        size = 3 * rows * width
        if self._memory.size < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size].reshape(3, rows, width)


def count_classes(
    block: np.ndarray, counter: ClassCounter, rows: np.ndarray, columns: np.ndarray, scratch: Scratch | None = None
) -> np.ndarray:
    """Count the pixels of each class in each cell of a 2-D block.

    Parameters
    ----------
    block
        (height, width) values of the dtype that ``counter`` was compiled for.
    rows, columns
        Cuts: increasing pixel positions, the first 0 and the last the block's height or width.
    scratch
        Working memory, for callers with several blocks. Threads must not share it.

    Returns
    -------
    numpy.ndarray
        int64, (7 classes, len(rows) - 1, len(columns) - 1).
    """
    width, steps = block.shape[1], counter.steps
    # Each step counts one class, or all classes up to it; `_by_class` takes the sums apart.
    counts = np.zeros((len(steps), len(rows) - 1, len(columns) - 1), np.int64)
    most = min(MAX_ROWS, int(np.diff(rows).max()))
    mask, passed, spare = (scratch or Scratch()).planes(most, width)
    mask, passed = mask.view(np.bool_), passed.view(np.bool_)
    column_sums = np.empty((len(steps), width), np.uint8)
    for row, (start, stop) in enumerate(pairwise(rows.tolist())):
        for first, last in pairwise(_parts(start, stop)):
            n = last - first
            part = counter.prepare(block[first:last])
            for step, sums in zip(steps, column_sums, strict=True):
                step.tests[0].apply(part, mask[:n], spare[:n])
                for test in step.tests[1:]:
                    test.apply(part, passed[:n], spare[:n])
                    np.logical_or(mask[:n], passed[:n], out=mask[:n])
                np.add.reduce(mask[:n].view(np.uint8), axis=0, dtype=np.uint8, out=sums)
            if steps:
                counts[:, row] += np.add.reduceat(column_sums, columns[:-1], axis=1, dtype=np.int64)
    return _by_class(counts, counter, np.diff(rows)[:, None] * np.diff(columns))


def _by_class(step_counts: np.ndarray, counter: ClassCounter, areas: np.ndarray) -> np.ndarray:
    """Counts (7, rows, columns) from the counts of the steps (step, rows, columns) in cells of ``areas`` pixels."""
    counts = np.zeros((N_CLASSES, *areas.shape), np.int64)
    rest = areas.copy()
    for step, count in zip(counter.steps, step_counts, strict=True):
        if step.cumulative:
            count = count - (areas - rest)  # without the pixels of the steps before
        counts[step.cls] = count
        rest -= count
    counts[counter.rest] = rest
    return counts


def _parts(start: int, stop: int) -> list[int]:
    """Cuts of [start, stop) into even parts of at most MAX_ROWS."""
    parts = -(-(stop - start) // MAX_ROWS)
    return [start + (stop - start) * part // parts for part in range(parts + 1)]
