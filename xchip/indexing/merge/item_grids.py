"""Which grid the rows of each item are on, and whether two sources agree about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.indexing.files.geoparquet import grids_of_rows
from xchip.indexing.rows import EDGES

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = ("row_off", "col_off", "height", "width")

Grid = Mapping[str, Any]
"""size, stride, edge, anchor, proj_code, resolution, phase: those that are known."""

TOLERANCE = 1e-6
"""Relative difference of resolutions that are the same: they are drawn from edges of chips."""
COMPACT_AFTER = 1_000_000
"""Records after which those that say the same are united."""


class ItemGrids:
    """Gathers, file by file, which grids the rows of each item fit.

    A file's metadata tell its grids, but not which item is on which: of those with the item's sensor and CRS it is the one that
    the rows fit. Several may fit, as when grids differ in what they do at the border and only inner chips are there. Memory
    grows with the number of items, not of rows.
    """

    def __init__(self) -> None:
        self._grids: dict[str, int] = {}
        self._choices: dict[tuple[int, ...], int] = {}
        self._used: dict[str, dict[str, Any]] = {}
        self._records: list[pa.Table] = []
        self._new = 0

    def add(self, file: int, table: pa.Table, declared: Sequence[dict[str, Any]]) -> None:
        """Rows of file number ``file``, whose metadata declare grids: {"sensor": ..., "grid": ...}."""
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

    def metadata(self) -> list[dict[str, Any]]:
        """Each sensor and grid that rows fit, in one order whatever the order of files was."""
        return [self._used[key] for key in sorted(self._used)]

    def shared(self) -> pa.Table:
        """collection and item_id of the items that several files have rows of."""
        import pyarrow.compute as pc

        counted = self._distinct().group_by(["collection", "item_id"]).aggregate([("file", "count_distinct")])
        return counted.filter(pc.greater(counted["file_count_distinct"], 1)).select(["collection", "item_id"])

    def check(self, files: Sequence[str]) -> None:
        """Raise ValueError for an item that is on two grids; ``files`` are their paths."""
        import pyarrow.compute as pc

        records = self._distinct()
        counted = records.group_by(["collection", "item_id"]).aggregate([("choice", "count_distinct")])
        several = counted.filter(pc.greater(counted["choice_count_distinct"], 1)).select(["collection", "item_id"])
        if not several.num_rows:
            return
        grids, choices = [json.loads(text) for text in self._grids], list(self._choices)
        # Threads unite records in any order.
        order = [(name, "ascending") for name in ("collection", "item_id", "file", "choice")]
        members = records.filter(is_one_of(records, several)).sort_by(order)
        left: list[Grid] = []
        before: tuple[Any, ...] | None = None
        for collection, item_id, choice, file in zip(*members.to_pydict().values(), strict=True):
            own = [grids[number] for number in choices[choice]]
            if before is None or before[:2] != (collection, item_id):
                before, left = (collection, item_id, files[file], own[0]), own
                continue
            agreed = [grid for grid in left if any(compatible(grid, other) for other in own)]
            if not agreed:
                raise two_grids(collection, item_id, (before[2], left[0]), (files[file], own[0]))
            left = agreed

    def _distinct(self) -> pa.Table:
        import pyarrow as pa

        columns = ["collection", "item_id", "choice", "file"]
        if not self._records:
            texts = [(name, pa.large_string()) for name in columns[:2]]
            return pa.schema([*texts, *((name, pa.int32()) for name in columns[2:])]).empty_table()
        return pa.concat_tables(self._records).group_by(columns).aggregate([]).select(columns)

    def _choices_of(self, rows: pa.Table, declared: Sequence[dict[str, Any]]) -> np.ndarray:
        """Number of the choice of grids that each of ``rows`` has; they share sensor and CRS. int32 (rows,)."""
        sensor, crs = rows["sensor"][0].as_py(), rows["proj_code"][0].as_py()
        entries = [entry for entry in declared if entry["sensor"] == sensor and entry["grid"].get("proj_code") == crs]
        fit = [_fits(rows, entry["grid"]) for entry in entries]
        nothing = np.zeros(rows.num_rows, bool)
        if (unfit := ~np.logical_or.reduce([nothing, *fit])).any():
            # The metadata don't tell the grid; rows tell CRS and resolution, unless they come from a table that has neither.
            told = list(_told_by(rows.filter(unfit)))
            fit += [_fits(rows, entry["grid"]) & unfit for entry in told]
            entries += [*told, {"sensor": sensor, "grid": {}}]
            fit.append(~np.logical_or.reduce([nothing, *fit]))
        for entry, found in zip(entries, fit, strict=True):
            if entry["grid"] and found.any():
                self._used.setdefault(json.dumps(entry, sort_keys=True), entry)
        numbers = [self._number(entry["grid"]) for entry in entries]
        patterns, pattern = np.unique(np.stack(fit), axis=1, return_inverse=True)
        named = [self._choice(tuple(n for n, held in zip(numbers, column, strict=True) if held)) for column in patterns.T]
        return np.array(named, np.int32)[pattern.ravel()]

    def _number(self, grid: Grid) -> int:
        return self._grids.setdefault(json.dumps(grid, sort_keys=True), len(self._grids))

    def _choice(self, numbers: tuple[int, ...]) -> int:
        return self._choices.setdefault(tuple(sorted(set(numbers))), len(self._choices))


def compatible(one: Grid, other: Grid) -> bool:
    """Whether two grids of one item may be the same, as far as both are known. The item settles the phase of its pixels."""
    shared = (one.keys() & other.keys()) - {"phase", "resolution"}
    if any(one[name] != other[name] for name in shared):
        return False
    if "resolution" not in one or "resolution" not in other:
        return True
    return bool(np.allclose(one["resolution"], other["resolution"], rtol=TOLERANCE, atol=0))


def two_grids(collection: str | None, item_id: str, one: tuple[str, Grid], other: tuple[str, Grid]) -> ValueError:
    """The error for an item with two grids; each comes with the source that has it."""
    differing = [name for name in one[1] if name in other[1] and name != "phase" and one[1][name] != other[1][name]]
    sources = " and ".join(
        f"{', '.join(f'{name} {grid[name]}' for name in differing) or 'another'} in {path!r}" for path, grid in (one, other)
    )
    return ValueError(
        f"item {item_id!r} of collection {collection!r} has two grids: {sources}; an index has one grid an item: leave one "
        "source out, drop the item from one, or give keep_grids=True"
    )


def is_one_of(table: pa.Table, items: pa.Table) -> pa.Array:
    """Which rows are of ``items`` (collection, item_id)."""
    import pyarrow.compute as pc

    return pc.is_in(_item_keys(table), _item_keys(items).combine_chunks())


def _item_keys(table: pa.Table) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    # No id holds the character 0, so neither two pairs of ids nor no collection look alike.
    text = pa.large_string()
    collection = pc.fill_null(table["collection"].cast(text), "\0")
    return pc.binary_join_element_wise(collection, table["item_id"].cast(text), pa.scalar("\0", text), null_handling="replace")


def _told_by(rows: pa.Table) -> Iterator[dict[str, Any]]:
    import pyarrow.compute as pc

    known = rows.filter(pc.and_(pc.is_valid(rows["proj_code"]), pc.is_finite(rows["proj_left"])))
    if known.num_rows:
        yield from {json.dumps(entry, sort_keys=True): entry for entry in grids_of_rows(known, None)}.values()


def _codes(table: pa.Table) -> np.ndarray:
    """Number of each row's values, the same where all are: int64 (rows,)."""
    codes = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        codes = codes * len(coded.dictionary) + coded.indices.to_numpy()
    return codes


def _fits(rows: pa.Table, grid: Grid) -> np.ndarray:
    """Whether each row can be a chip of ``grid``, as far as that is known: bool (rows,)."""
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
