"""Sorting more rows than memory holds: sorted runs in files, merged as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "xchip:key"
"""Name of the uint64 column that is sorted by."""

BATCH_BYTES = 1 << 19
"""Bytes of a record batch in a run, at most: of each run that is merged at least one is in memory."""
MOST_RUNS = 256
"""Runs that are merged at once, at most: each is an open file."""


class Sorter:
    """Tables in, tables in the order of the column `KEY` out; rows with one key come in one table, in no set order.

    Tables may have different columns, as long as those of one name have one type: the union of all comes out.

    Parameters
    ----------
    folder
        Where runs go. It is the caller's to remove.
    memory
        Bytes that the rows in memory may take, about: half of it while runs are made, all of it while they are merged.
    """

    def __init__(self, folder: Path, memory: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._memory = folder, memory
        self._pending: list[pa.Table] = []
        self._bytes = 0
        self._runs: list[_Run] = []
        self._made = 0
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Take rows in."""
        self.rows += table.num_rows
        self._pending.append(table)
        self._bytes += table.nbytes
        if self._bytes >= self._memory // 4:
            self._spill()

    def sorted(self) -> Iterator[pa.Table]:
        """All rows, in order. To be called once, after the last `add`."""
        self._spill()
        # A run in memory costs what is loaded of it, and as much again while that is brought into order.
        at_once = int(np.clip(self._memory // (4 * BATCH_BYTES), 4, MOST_RUNS))
        while len(self._runs) > at_once:
            self._runs = [self._joined(self._runs[n : n + at_once]) for n in range(0, len(self._runs), at_once)]
        yield from self._merge(self._runs)

    def _spill(self) -> None:
        import pyarrow as pa

        if self._bytes:
            table = _by_key(pa.concat_tables(self._pending, promote_options="default"))
            self._runs.append(self._write([table], table.schema))
        self._pending, self._bytes = [], 0

    def _joined(self, runs: Sequence[_Run]) -> _Run:
        import pyarrow as pa

        joined = self._write(self._merge(runs), pa.unify_schemas([run.schema for run in runs]))
        for run in runs:
            run.path.unlink()
        return joined

    def _write(self, tables: Any, schema: pa.Schema) -> _Run:
        import pyarrow as pa

        self._made += 1
        path = self._folder / f"{self._made:06d}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema, options=_ipc_options()) as writer:
            for table in tables:
                writer.write_table(table, max_chunksize=max(1, BATCH_BYTES * table.num_rows // max(1, table.nbytes)))
        return _Run(path, schema)

    def _merge(self, runs: Sequence[_Run]) -> Iterator[pa.Table]:
        import pyarrow as pa

        if not runs:
            return
        schema = pa.unify_schemas([run.schema for run in runs])
        heads = [_Head(run, self._memory // (4 * len(runs)), schema) for run in runs]
        try:
            while heads:
                # What is below the last key of each head is complete: more rows of that key may follow in its file.
                open_ends = [head.last for head in heads if not head.finished]
                cut = min(open_ends) if open_ends else None
                pieces = [piece for head in heads if (piece := head.take_below(cut)).num_rows]
                if pieces:
                    yield _by_key(pa.concat_tables(pieces))
                for head in heads:
                    if not head.finished and head.last == cut:
                        head.load()
                heads = [head for head in heads if head.table.num_rows or not head.finished]
        finally:
            for head in heads:
                head.close()


@dataclass(frozen=True, slots=True)
class _Run:
    """A file of sorted rows."""

    path: Path
    schema: pa.Schema


class _Head:
    """What is loaded of a run."""

    def __init__(self, run: _Run, most: int, schema: pa.Schema) -> None:
        import pyarrow as pa

        self._file = pa.OSFile(str(run.path), "rb")
        self._reader = pa.ipc.open_stream(self._file)
        self._most, self._schema = most, schema
        self.table = schema.empty_table()
        self.finished = False
        self.load()

    @property
    def last(self) -> int:
        """The last key that is loaded; only of a run that is not finished."""
        return int(self._keys[-1])

    def load(self) -> None:
        """Append as many batches as memory allows, at least one if there is one."""
        import pyarrow as pa

        batches: list[pa.RecordBatch] = []
        size = 0
        while not self.finished and (not batches or size < self._most):
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                self.close()
            else:
                batches.append(batch)
                size += batch.nbytes
        new = [aligned(pa.Table.from_batches(batches), self._schema)] if batches else []
        self.table = pa.concat_tables([self.table, *new])
        self._keys = self.table[KEY].to_numpy()

    def take_below(self, cut: int | None) -> pa.Table:
        """The rows with smaller keys than ``cut``, or all; they leave the head."""
        n = self.table.num_rows if cut is None else int(np.searchsorted(self._keys, np.uint64(cut), side="left"))
        taken = self.table.slice(0, n)
        self.table, self._keys = self.table.slice(n), self._keys[n:]
        return taken

    def close(self) -> None:
        """No more is read."""
        self.finished = True
        self._file.close()


def aligned(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema``, which has all of the table's; null where the table has none."""
    import pyarrow as pa

    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _by_key(table: pa.Table) -> pa.Table:
    return table.take(np.argsort(table[KEY].to_numpy(), kind="stable"))


def _ipc_options() -> Any:
    import pyarrow as pa

    return pa.ipc.IpcWriteOptions(compression="lz4")
