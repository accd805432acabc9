"""One row a chip: rows that say the same are one, and rows that contradict each other are refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.indexing.merge.external_sort import KEY, Sorter
from xchip.indexing.merge.item_grids import WINDOW, is_one_of, two_grids
from xchip.indexing.rows import EDGES

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "xchip:file"
"""Name of the int32 column with the number of the file that a row comes from."""
PLACE = "xchip:place"
"""Name of the int64 column with the row's place among all rows."""
OWN = frozenset((KEY, FILE, PLACE))
"""Columns that only the merge knows."""

CHIP = ("collection", "item_id", "chip_index_y", "chip_index_x")
"""What names a chip."""
TOLERANCE = 1e-6
"""Of a chip's width: edges in the CRS that differ by less are the same."""


class Distinct:
    """Brings rows of one key into order, and drops those that another row repeats.

    Rows are the same if all columns but item_href are: one item may be in two archives. Of those the one with the least
    item_href stays, whatever the order of sources was.

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
        """``table`` has all rows of each of its keys. In order of `KEY`, then of the chip's names, then of its window."""
        keys = [_ranks(table[name]) for name in (KEY, *CHIP)]
        order = _lexsort(keys)
        if not _repeats(keys, order).any():
            return table.take(order)
        # A row that comes twice is rare, and an order of all columns dear.
        order = _lexsort([*keys, *(_ranks(table[name]) for name in (*WINDOW, "proj_code", *EDGES, "item_href", FILE))])
        repeats = _repeats(keys, order)
        table = table.take(order)
        second = np.flatnonzero(repeats) + 1
        return table.filter(~self._drop(table, second))

    def _drop(self, table: pa.Table, second: np.ndarray) -> np.ndarray:
        """Which rows repeat the one before; ``second`` are those of the same chip as the one before."""
        rows, before = table.take(second), table.take(second - 1)
        same_window = _same_window(rows, before)
        if not self._keep_grids and not same_window.all():
            raise self._grids(rows, before, int(np.argmin(same_window)))
        for name in table.column_names:
            if name not in OWN and name != "item_href":
                differs = same_window & ~_equal(rows[name], before[name])
                if differs.any():
                    raise self._contradiction(rows, before, int(np.argmax(differs)), name)
        dropped = np.zeros(table.num_rows, bool)
        dropped[second[same_window]] = True
        return dropped

    def _grids(self, rows: pa.Table, before: pa.Table, n: int) -> ValueError:
        one, other = self._both(rows, before, n)
        windows = [
            {
                f"window of chip {row['chip_id']!r}": [row[name] for name in WINDOW],
                "proj_code": row["proj_code"],
                "edges": [row[name] for name in EDGES],
            }
            for row in (one, other)
        ]
        return two_grids(one["collection"], one["item_id"], (one[FILE], windows[0]), (other[FILE], windows[1]))

    def _contradiction(self, rows: pa.Table, before: pa.Table, n: int, name: str) -> ValueError:
        one, other = self._both(rows, before, n)
        values = " and ".join(f"{_shown(row[name])} in {row[FILE]!r}" for row in (one, other))
        return ValueError(
            f"chip {one['chip_id']!r} of collection {one['collection']!r} has two values of {name!r}: {values}; leave one source "
            f"out, or replace the old rows: merge_indexes(None, out, drop={{'item_id': {one['item_id']!r}}}, add=...)"
        )

    def _both(self, rows: pa.Table, before: pa.Table, n: int) -> list[dict[str, Any]]:
        """Two rows that can't both stay, in the order of their files, with the paths of these."""
        both = [table.slice(n, 1).to_pylist()[0] for table in (before, rows)]
        both.sort(key=lambda row: row[FILE])
        return [row | {FILE: self._files[row[FILE]]} for row in both]


class ChipCheck:
    """Finds chips that have several rows under different keys: their footprints differ, so no neighbour shows it.

    Only items that several files have rows of can have such chips.
    """

    def __init__(self, sorter: Sorter, items: pa.Table, distinct: Distinct) -> None:
        self._sorter, self._items, self._distinct = sorter, items, distinct

    def add(self, table: pa.Table) -> None:
        """Rows of the result, once each."""
        if not self._items.num_rows:
            return
        rows = table.filter(is_one_of(table, self._items))
        if rows.num_rows:
            # The geometry is the same for the same bbox, as far as a message goes.
            narrow = rows.select([*CHIP, "chip_id", *WINDOW, "proj_code", *EDGES, "item_href", "bbox", FILE])
            self._sorter.add(narrow.append_column(KEY, [_chip_keys(rows)]))

    def finish(self) -> None:
        """Raise ValueError if there is one."""
        for table in self._sorter.sorted():
            self._distinct(table)


def _chip_keys(table: pa.Table) -> np.ndarray:
    """A number that is the same for rows of the same chip: uint64 (rows,)."""
    import pandas as pd

    rows = table.select(list(CHIP)).to_pandas()
    return pd.util.hash_pandas_object(rows, index=False, categorize=True).to_numpy()


def _lexsort(keys: Sequence[np.ndarray]) -> np.ndarray:
    return np.lexsort(keys[::-1])


def _repeats(keys: Iterable[np.ndarray], order: np.ndarray) -> np.ndarray:
    """Whether each row but the first, in this order, has the keys of the one before."""
    same = np.ones(max(0, len(order) - 1), bool)
    for key in keys:
        values = key[order]
        same &= values[1:] == values[:-1]
    return same


def _ranks(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers in the order of the column's values; null, then NaN, after all."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_large_string(column.type):
        values: Any = pc.fill_null(column, _largest(column.type)) if column.null_count else column
        return values.to_numpy()
    coded = column.combine_chunks().dictionary_encode(null_encoding="mask")
    rank = np.empty(len(coded.dictionary) + 1, np.int64)
    rank[pc.sort_indices(coded.dictionary).to_numpy()] = np.arange(len(coded.dictionary))
    rank[-1] = len(coded.dictionary)
    return rank[pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy()]


def _largest(dtype: pa.DataType) -> Any:
    import pyarrow as pa

    return np.nan if pa.types.is_floating(dtype) else np.iinfo(dtype.to_pandas_dtype()).max


def _same_window(rows: pa.Table, before: pa.Table) -> np.ndarray:
    same = np.ones(rows.num_rows, bool)
    for name in (*WINDOW, "proj_code"):
        same &= _equal(rows[name], before[name])
    width = rows["proj_right"].to_numpy() - rows["proj_left"].to_numpy()
    for name in EDGES:
        one, other = rows[name].to_numpy(), before[name].to_numpy()
        same &= (np.abs(one - other) <= TOLERANCE * width) | (np.isnan(one) & np.isnan(other))
    return same


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    """Whether values are equal; null equals null, and NaN equals NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(one.type):
        fields = [field.name for field in one.type]
        return np.logical_and.reduce([_equal(pc.struct_field(one, name), pc.struct_field(other, name)) for name in fields])
    if pa.types.is_nested(one.type):
        return np.array([a == b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)], bool)
    equal = pc.fill_null(pc.equal(one, other), False).to_numpy()
    both = pc.and_(pc.is_null(one, nan_is_null=False), pc.is_null(other, nan_is_null=False)).to_numpy()
    if pa.types.is_floating(one.type):
        both = both | pc.and_(pc.fill_null(pc.is_nan(one), False), pc.fill_null(pc.is_nan(other), False)).to_numpy()
    return equal | both


def _shown(value: Any) -> str:
    """A value for a message; geometries are long."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
