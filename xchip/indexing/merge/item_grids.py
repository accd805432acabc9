"""Find the grid of each item's rows, and check that all sources agree on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xchip.core.types import JSON
from xchip.indexing.files.geoparquet import grids_of_rows
from xchip.indexing.rows import EDGES

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = ("row_off", "col_off", "height", "width")

Grid: TypeAlias = JSON
"""The known ones of size, stride, edge, anchor, proj_code, resolution and phase."""

TOLERANCE = 1e-6
"""Maximum relative difference of equal resolutions, which are computed from the edges of chips."""
COMPACT_AFTER = 1_000_000
"""Number of records after which duplicates are removed."""


class ItemGrids:
    """Collects, file by file, which grids the rows of each item fit.

    A file's metadata list its grids, but not the grid of each item: it is a grid of the item's sensor and CRS that the rows fit.
    Several can fit, for example if grids differ only at the border and the file has only inner chips: the item then has a choice
    of grids. Memory grows with the number of items, not of rows.
    """

    def __init__(self) -> None:
        self._grids: dict[str, int] = {}
        self._choices: dict[tuple[int, ...], int] = {}
        self._used: dict[str, JSON] = {}
        self._records: list[pa.Table] = []
        self._new = 0

    def add(self, file: int, table: pa.Table, declared: Sequence[JSON]) -> None:
        """Add rows of the file of number ``file``. Its metadata declare the grids: {"sensor": ..., "grid": ...}."""
        import pyarrow as pa

        if not table.num_rows:
            return
        items = table.select(["collection", "item_id"])
        item = _codes(items)
        scene = _codes(table.select(["sensor", "proj_code"]))
        facts = table.select(["item_id", "sensor", "proj_code", *EDGES, *WINDOW, "chip_index_y", "chip_index_x"])
        choice = np.zeros(table.num_rows, np.int32)
        for code in np.unique(scene):
            rows = np.flatnonzero(scene == code)
            choice[rows] = self._choices_of(facts.take(rows), declared)
        _, first = np.unique(item * (len(self._choices) + 1) + choice, return_index=True)
        record = items.take(first)
        record = record.append_column("choice", pa.array(choice[first]))
        self._records.append(record.append_column("file", pa.array(np.full(len(first), file, np.int32))))
        self._new += len(first)
        if self._new > COMPACT_AFTER:
            self._records, self._new = [self._distinct()], 0

    def metadata(self) -> list[JSON]:
        """Return each sensor and grid that rows fit, in an order that does not depend on the order of files."""
        return [self._used[key] for key in sorted(self._used)]

    def shared(self) -> pa.Table:
        """Return collection and item_id of the items with rows in several files."""
        return _items_with_several(self._distinct(), "file")

    def check(self, files: Sequence[str]) -> None:
        """Raise ValueError for an item that is on two grids; ``files`` are the paths of the files."""
        records = self._distinct()
        several = _items_with_several(records, "choice")
        if not several.num_rows:
            return
        grids, choices = [json.loads(text) for text in self._grids], list(self._choices)
        # Arrow's threads return the records in any order.
        order = [(name, "ascending") for name in ("collection", "item_id", "file", "choice")]
        records = records.filter(rows_of_items(records, several)).sort_by(order)
        item: tuple[str | None, str] | None = None
        first, agreed = "", list[Grid]()
        for collection, item_id, choice, file in zip(*records.to_pydict().values(), strict=True):
            fitting = [grids[number] for number in choices[choice]]
            if item != (collection, item_id):
                item, first, agreed = (collection, item_id), files[file], fitting
                continue
            before = agreed
            agreed = [grid for grid in before if any(compatible(grid, candidate) for candidate in fitting)]
            if not agreed:
                raise two_grids(collection, item_id, (first, before[0]), (files[file], fitting[0]))

    def _distinct(self) -> pa.Table:
        import pyarrow as pa

        types = {"collection": pa.large_string(), "item_id": pa.large_string(), "choice": pa.int32(), "file": pa.int32()}
        records = pa.concat_tables([pa.schema(types).empty_table(), *self._records])
        return records.group_by(list(types)).aggregate([]).select(list(types))

    def _choices_of(self, rows: pa.Table, declared: Sequence[JSON]) -> np.ndarray:
        """Return the number of the choice of grids that each row fits: int32 (rows,). The rows share sensor and CRS."""
        sensor, crs = rows["sensor"][0].as_py(), rows["proj_code"][0].as_py()
        entries = [entry for entry in declared if entry["sensor"] == sensor and entry["grid"].get("proj_code") == crs]
        fit = [_fits(rows, entry["grid"]) for entry in entries]
        none = np.zeros(rows.num_rows, bool)
        if (unfit := ~np.logical_or.reduce([none, *fit])).any():
            # The metadata lack the grid. The rows give CRS and resolution, unless their source has neither.
            derived = _derived_grids(rows.filter(unfit))
            fit += [_fits(rows, entry["grid"]) & unfit for entry in derived]
            entries += [*derived, {"sensor": sensor, "grid": {}}]
            fit.append(~np.logical_or.reduce([none, *fit]))
        for entry, fits in zip(entries, fit, strict=True):
            if entry["grid"] and fits.any():
                self._used.setdefault(json.dumps(entry, sort_keys=True), entry)
        numbers = np.array([self._number(entry["grid"]) for entry in entries])
        patterns, pattern = np.unique(np.stack(fit), axis=1, return_inverse=True)
        choices = [self._choice(numbers[fits].tolist()) for fits in patterns.T]
        return np.array(choices, np.int32)[pattern.ravel()]

    def _number(self, grid: Grid) -> int:
        return self._grids.setdefault(json.dumps(grid, sort_keys=True), len(self._grids))

    def _choice(self, numbers: Sequence[int]) -> int:
        return self._choices.setdefault(tuple(sorted(set(numbers))), len(self._choices))


def compatible(a: Grid, b: Grid) -> bool:
    """Return whether two grids of one item can be the same, by their known options. The phase depends on the item alone."""
    shared = (a.keys() & b.keys()) - {"phase", "resolution"}
    if any(a[name] != b[name] for name in shared):
        return False
    if "resolution" not in a or "resolution" not in b:
        return True
    return bool(np.allclose(a["resolution"], b["resolution"], rtol=TOLERANCE, atol=0))


def two_grids(collection: str | None, item_id: str, first: tuple[str, Grid], second: tuple[str, Grid]) -> ValueError:
    """Return the error for an item with two grids, each as (path of its source, grid)."""
    a, b = first[1], second[1]
    differing = [name for name in a if name in b and name != "phase" and a[name] != b[name]]
    sources = " and ".join(
        f"{', '.join(f'{name} {grid[name]}' for name in differing) or 'another'} in {path!r}" for path, grid in (first, second)
    )
    return ValueError(
        f"item {item_id!r} of collection {collection!r} has two grids: {sources}; an index has one grid per item: leave one "
        "source out, drop the item from one source, or pass keep_grids=True"
    )


def rows_of_items(table: pa.Table, items: pa.Table) -> pa.ChunkedArray:
    """Return which rows belong to ``items`` (collection, item_id)."""
    import pyarrow.compute as pc

    return pc.is_in(_item_keys(table), _item_keys(items).combine_chunks())


def _item_keys(table: pa.Table) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    # Ids do not contain the character 0, so different (collection, item_id) have different keys.
    text = pa.large_string()
    collection = pc.fill_null(table["collection"].cast(text), "\0")
    return pc.binary_join_element_wise(collection, table["item_id"].cast(text), pa.scalar("\0", text), null_handling="replace")


def _items_with_several(records: pa.Table, column: str) -> pa.Table:
    """Return (collection, item_id) of the items with several values of ``column``."""
    import pyarrow.compute as pc

    items = ["collection", "item_id"]
    counted = records.group_by(items).aggregate([(column, "count_distinct")])
    return counted.filter(pc.greater(counted[f"{column}_count_distinct"], 1)).select(items)


def _derived_grids(rows: pa.Table) -> list[JSON]:
    """Return the distinct grids, with CRS and resolution, of the rows that have both."""
    import pyarrow.compute as pc

    valid = rows.filter(pc.and_(pc.is_valid(rows["proj_code"]), pc.is_finite(rows["proj_left"])))
    if not valid.num_rows:
        return []
    return list({json.dumps(entry, sort_keys=True): entry for entry in grids_of_rows(valid, None)}.values())


def _codes(table: pa.Table) -> np.ndarray:
    """Number the distinct rows of ``table``: int64 (rows,)."""
    codes = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        codes = codes * len(coded.dictionary) + coded.indices.to_numpy()
    return codes


def _fits(rows: pa.Table, grid: Grid) -> np.ndarray:
    """Return which rows can be chips of ``grid``, by its known options: bool (rows,)."""
    fits = np.ones(rows.num_rows, bool)
    columns = {name: rows[name].to_numpy() for name in ("width", "height", "col_off", "row_off", "chip_index_x", "chip_index_y")}
    edge, by_origin = grid.get("edge"), grid.get("anchor") == "origin"
    for axis, (length, offset, position) in enumerate(
        (("height", "row_off", "chip_index_y"), ("width", "col_off", "chip_index_x"))
    ):
        if "size" in grid:
            size = grid["size"][axis]
            fits &= columns[length] <= size if edge in ("shift", "partial") else columns[length] == size
        if "stride" in grid and by_origin:
            start = columns[position] * np.int64(grid["stride"][axis])
            fits &= columns[offset] <= start if edge == "shift" else columns[offset] == start
        if "resolution" in grid:
            lower, upper = ("proj_bottom", "proj_top") if axis == 0 else ("proj_left", "proj_right")
            resolution = (rows[upper].to_numpy() - rows[lower].to_numpy()) / columns[length]
            fits &= ~(np.abs(resolution / grid["resolution"][axis] - 1) > TOLERANCE)
    return fits
