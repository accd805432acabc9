"""Keep one row per chip: drop rows that repeat another row, and reject rows that contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.indexing.merge.external_sort import KEY, Sorter
from xchip.indexing.merge.item_grids import WINDOW, rows_of_items, two_grids
from xchip.indexing.rows import EDGES

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "xchip:file"
"""Name of the int32 column with the number of a row's file."""
POSITION = "xchip:position"
"""Name of the int64 column with the position of a row among the rows of all sources."""
INTERNAL = frozenset((KEY, FILE, POSITION))
"""Columns that exist only during the merge."""

CHIP = ("collection", "item_id", "chip_index_y", "chip_index_x")
"""Columns that identify a chip."""
TOLERANCE = 1e-6
"""Maximum difference of equal edges in the CRS, as a fraction of a chip's width."""


class Deduplicator:
    """Sorts rows within each key, and drops duplicates.

    Rows are duplicates if all columns except item_href are equal, because an item can be in two archives. The row with the first
    item_href in alphabetical order is kept, so that the result does not depend on the order of the sources.

    Parameters
    ----------
    files
        Paths of the files, for messages.
    keep_grids
        Whether a chip may have two windows.
    """

    def __init__(self, files: Sequence[str], *, keep_grids: bool) -> None:
        self._files, self._keep_grids = files, keep_grids

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the rows sorted by `KEY`, chip and window. ``table`` must have all rows of each of its keys."""
        keys = [_ranks(table[name]) for name in (KEY, *CHIP)]
        order = np.lexsort(keys[::-1])
        if not _repeats(keys, order).any():
            return table.take(order)
        # Duplicates are rare, and sorting by all columns is expensive.
        more = [_ranks(table[name]) for name in (*WINDOW, "proj_code", *EDGES, "item_href", FILE)]
        order = np.lexsort([*keys, *more][::-1])
        repeats = _repeats(keys, order)
        table = table.take(order)
        second = np.flatnonzero(repeats) + 1
        return table.filter(~self._drop(table, second))

    def _drop(self, table: pa.Table, second: np.ndarray) -> np.ndarray:
        """Return which rows are duplicates; ``second`` are the rows of the same chip as the row before."""
        rows, before = table.take(second), table.take(second - 1)
        same_window = _same_window(rows, before)
        if not self._keep_grids and not same_window.all():
            raise self._grids(rows, before, int(np.argmin(same_window)))
        for name in table.column_names:
            if name not in INTERNAL and name != "item_href":
                differs = same_window & ~_equal(rows[name], before[name])
                if differs.any():
                    raise self._contradiction(rows, before, int(np.argmax(differs)), name)
        dropped = np.zeros(table.num_rows, bool)
        dropped[second[same_window]] = True
        return dropped

    def _grids(self, rows: pa.Table, before: pa.Table, n: int) -> ValueError:
        first, second = self._pair(rows, before, n)
        windows = [
            {
                f"window of chip {row['chip_id']!r}": [row[name] for name in WINDOW],
                "proj_code": row["proj_code"],
                "edges": [row[name] for name in EDGES],
            }
            for row in (first, second)
        ]
        return two_grids(first["collection"], first["item_id"], (first[FILE], windows[0]), (second[FILE], windows[1]))

    def _contradiction(self, rows: pa.Table, before: pa.Table, n: int, name: str) -> ValueError:
        pair = self._pair(rows, before, n)
        chip, collection, item_id = (pair[0][column] for column in ("chip_id", "collection", "item_id"))
        # A geometry is too long for a message.
        values = [f"{len(row[name])} bytes" if isinstance(row[name], bytes) else repr(row[name]) for row in pair]
        sources = " and ".join(f"{value} in {row[FILE]!r}" for value, row in zip(values, pair, strict=True))
        return ValueError(
            f"chip {chip!r} of collection {collection!r} has two values of {name!r}: {sources}; leave one source out, or replace "
            f"the old rows: merge_indexes(None, out, drop={{'item_id': {item_id!r}}}, add=...)"
        )

    def _pair(self, rows: pa.Table, before: pa.Table, n: int) -> list[dict[str, Any]]:
        """Return two conflicting rows in the order of their files, with the files' paths."""
        pair = [table.slice(n, 1).to_pylist()[0] for table in (before, rows)]
        pair.sort(key=lambda row: row[FILE])
        return [row | {FILE: self._files[row[FILE]]} for row in pair]


class ChipCheck:
    """Finds chips that have several rows with different keys, which `Deduplicator` can't compare: their footprints differ.

    Only items with rows in several files can have such chips.
    """

    def __init__(self, sorter: Sorter, items: pa.Table, deduplicate: Deduplicator) -> None:
        self._sorter, self._items, self._deduplicate = sorter, items, deduplicate

    def add(self, table: pa.Table) -> None:
        """Add rows of the result."""
        if not self._items.num_rows:
            return
        rows = table.filter(rows_of_items(table, self._items))
        if rows.num_rows:
            # Without the geometry: for a message, rows with the same bbox have the same geometry.
            narrow = rows.select([*CHIP, "chip_id", *WINDOW, "proj_code", *EDGES, "item_href", "bbox", FILE])
            self._sorter.add(narrow.append_column(KEY, [_chip_keys(rows)]))

    def finish(self) -> None:
        """Raise ValueError if there is such a chip."""
        for table in self._sorter.sorted():
            self._deduplicate(table)


def _chip_keys(table: pa.Table) -> np.ndarray:
    """Return a hash of each row's chip: uint64 (rows,)."""
    import pandas as pd

    rows = table.select(list(CHIP)).to_pandas()
    return pd.util.hash_pandas_object(rows, index=False, categorize=True).to_numpy()


def _repeats(keys: Iterable[np.ndarray], order: np.ndarray) -> np.ndarray:
    """Return which rows, in this order and without the first, have the same keys as the row before."""
    same = np.ones(max(0, len(order) - 1), bool)
    for key in keys:
        values = key[order]
        same &= values[1:] == values[:-1]
    return same


def _ranks(column: pa.ChunkedArray) -> np.ndarray:
    """Return numbers in the order of the column's values; nulls and NaN are last."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_large_string(column.type):
        largest = np.nan if pa.types.is_floating(column.type) else np.iinfo(column.type.to_pandas_dtype()).max
        return (pc.fill_null(column, largest) if column.null_count else column).to_numpy()
    coded = column.combine_chunks().dictionary_encode(null_encoding="mask")
    rank = np.empty(len(coded.dictionary) + 1, np.int64)
    rank[pc.sort_indices(coded.dictionary).to_numpy()] = np.arange(len(coded.dictionary))
    rank[-1] = len(coded.dictionary)
    return rank[pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy()]


def _same_window(rows: pa.Table, before: pa.Table) -> np.ndarray:
    same = np.ones(rows.num_rows, bool)
    for name in (*WINDOW, "proj_code"):
        same &= _equal(rows[name], before[name])
    width = rows["proj_right"].to_numpy() - rows["proj_left"].to_numpy()
    for name in EDGES:
        edge, edge_before = rows[name].to_numpy(), before[name].to_numpy()
        same &= (np.abs(edge - edge_before) <= TOLERANCE * width) | (np.isnan(edge) & np.isnan(edge_before))
    return same


def _equal(a: pa.ChunkedArray, b: pa.ChunkedArray) -> np.ndarray:
    """Return which values are equal; null equals null, and NaN equals NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(a.type):
        fields = [field.name for field in a.type]
        return np.logical_and.reduce([_equal(pc.struct_field(a, name), pc.struct_field(b, name)) for name in fields])
    if pa.types.is_nested(a.type):
        return np.array([left == right for left, right in zip(a.to_pylist(), b.to_pylist(), strict=True)], bool)
    equal = pc.or_(pc.fill_null(pc.equal(a, b), False), pc.and_(pc.is_null(a), pc.is_null(b)))
    if pa.types.is_floating(a.type):
        equal = pc.or_(equal, pc.and_(pc.fill_null(pc.is_nan(a), False), pc.fill_null(pc.is_nan(b), False)))
    return equal.to_numpy()
