"""Summarise an archive: its items, chips and failures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from xchip.core.types import JSON, PathLike
from xchip.indexing.archive.layout import archive_store
from xchip.indexing.archive.ledger import Record, parameters_of
from xchip.indexing.archive.manifest import parts_of, state_of
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Status:
    """Contents and failures of an archive."""

    path: str
    parts: int
    """Number of indexed items."""
    rows: int
    """Number of chips."""
    size: int
    """Bytes of all parts."""
    collections: dict[str | None, tuple[int, int]]
    """Numbers of items and chips of each collection."""
    span: tuple[str, str] | None
    """Dates of the earliest and the latest item, ISO 8601."""
    parameters: JSON | None
    """Parameters of `xchip.build_index` that the archive was built with; None if they are not recorded."""
    failures: pd.DataFrame = field(repr=False, compare=False)
    """One row per failed item: collection, item_id, error (class of the exception), message, attempts, time."""

    @property
    def failed(self) -> int:
        """Number of items that failed and have not succeeded since."""
        return len(self.failures)

    @property
    def errors(self) -> dict[str, int]:
        """Number of failures of each class of exception, the most frequent first."""
        return dict(Counter(self.failures["error"]).most_common())

    def to_dict(self) -> dict[str, object]:
        """Return all fields as a JSON object."""
        return {
            "path": self.path,
            "parts": self.parts,
            "rows": self.rows,
            "size": self.size,
            "failed": self.failed,
            "collections": [{"collection": name, "parts": n, "rows": rows} for name, (n, rows) in self.collections.items()],
            "span": self.span,
            "parameters": self.parameters,
            "errors": self.errors,
            "failures": self.failures.to_dict("records"),
        }


def status(path: PathLike, storage: StorageOptions | None = None) -> Status:
    """Summarise an archive from its manifest and ledger, which takes seconds for a million items.

    Raises
    ------
    FileNotFoundError
        If ``path`` is not an archive.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(600, 600))
    ...     report = xchip.build_index(item, f"{folder}/archive", progress=False)
    ...     summary = status(f"{folder}/archive")
    >>> summary.parts, summary.rows, summary.failed
    (1, 4, 0)
    """
    store = archive_store(path, storage)
    state = state_of(store)
    parts = parts_of(store, state)
    return Status(
        path=os.fspath(path),
        parts=parts.num_rows,
        rows=_total(parts, "rows"),
        size=_total(parts, "size"),
        collections=_by_collection(parts),
        span=_span(parts),
        parameters=parameters_of(store),
        failures=_failures(state.failed.values()),
    )


def _total(parts: pa.Table, column: str) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(parts[column]).as_py() or 0)


def _span(parts: pa.Table) -> tuple[str, str] | None:
    import pyarrow.compute as pc

    extremes: dict[str, datetime | None] = pc.min_max(parts["datetime"]).as_py()
    first, last = extremes["min"], extremes["max"]
    return None if first is None or last is None else (first.isoformat(), last.isoformat())


def _by_collection(parts: pa.Table) -> dict[str | None, tuple[int, int]]:
    counted = parts.group_by("collection").aggregate([("rows", "count"), ("rows", "sum")]).sort_by("collection")
    columns = (counted[name].to_pylist() for name in ("collection", "rows_count", "rows_sum"))
    return {name: (n, rows) for name, n, rows in zip(*columns, strict=True)}


def _failures(failed: Iterable[Record]) -> pd.DataFrame:
    import pandas as pd

    columns = ("collection", "item_id", "error", "message", "attempts", "time")
    rows = sorted(failed, key=lambda record: (str(record.error), record.key))
    return pd.DataFrame([{name: getattr(record, name) for name in columns} for record in rows], columns=list(columns))
