"""Looking at an archive: what it holds, what failed, and whether its files are what they should be."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xchip.indexing.archive.ledger import Record, parameters_of
from xchip.indexing.archive.manifest import parts_in, state_of
from xchip.io.storage import StorageOptions
from xchip.io.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Status:
    """What an archive holds, and what failed."""

    path: str
    parts: int
    """Items that are indexed."""
    rows: int
    """Chips."""
    size: int
    """Bytes of all parts."""
    collections: dict[str | None, tuple[int, int]]
    """Items and chips of each."""
    span: tuple[str, str] | None
    """Dates of the earliest and the latest item, ISO 8601."""
    parameters: dict[str, Any] | None
    """What the archive was made with; None where nobody recorded it."""
    failures: pd.DataFrame = field(repr=False, compare=False)
    """A row a failed item: collection, item_id, error (class of the exception), message, attempts, time."""

    @property
    def failed(self) -> int:
        """Items that failed, and have not succeeded since."""
        return len(self.failures)

    @property
    def errors(self) -> dict[str, int]:
        """Failures of each class, the most frequent first."""
        return dict(Counter(self.failures["error"]).most_common())

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
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


def status(path: str | os.PathLike[str], storage: StorageOptions | None = None) -> Status:
    """What an archive holds: from its manifest and ledger, so that it takes seconds for a million items.

    Raises
    ------
    FileNotFoundError
        If there is no archive.

    Examples
    --------
    >>> import tempfile, xchip.testing
    >>> from xchip.indexing.archive.build import build_index
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(600, 600))
    ...     report = build_index(item, f"{folder}/archive", progress=False)
    ...     found = status(f"{folder}/archive")
    >>> found.parts, found.rows, found.failed
    (1, 4, 0)
    """
    store = archive_at(path, storage)
    parts, failed = contents_of(store)
    days = [day.isoformat() for day in _extremes(parts)]
    return Status(
        path=os.fspath(path),
        parts=parts.num_rows,
        rows=_total(parts, "rows"),
        size=_total(parts, "size"),
        collections=_by_collection(parts),
        span=(days[0], days[1]) if days else None,
        parameters=parameters_of(store),
        failures=_failures(failed),
    )


def archive_at(path: str | os.PathLike[str], storage: StorageOptions | None = None) -> Store:
    """The files below an archive's root."""
    root = os.fspath(path)
    return Store(root if "://" in root else os.path.abspath(os.path.expanduser(root)), storage or StorageOptions())


def contents_of(store: Store) -> tuple[pa.Table, list[Record]]:
    """(a row a part, what failed); by the footers of the parts where there is no manifest and no ledger.

    Raises
    ------
    FileNotFoundError
        If there is no archive.
    """
    state = state_of(store)
    return parts_in(store, state), list(state.failed.values())


def _total(parts: pa.Table, column: str) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(parts[column]).as_py() or 0)


def _extremes(parts: pa.Table) -> list[Any]:
    import pyarrow.compute as pc

    found = pc.min_max(parts["datetime"]).as_py()
    return [found["min"], found["max"]] if found["min"] is not None else []


def _by_collection(parts: pa.Table) -> dict[str | None, tuple[int, int]]:
    counted = parts.group_by("collection").aggregate([("rows", "count"), ("rows", "sum")]).sort_by("collection")
    columns = (counted[name].to_pylist() for name in ("collection", "rows_count", "rows_sum"))
    return {name: (n, rows) for name, n, rows in zip(*columns, strict=True)}


def _failures(failed: list[Record]) -> pd.DataFrame:
    import pandas as pd

    columns = ("collection", "item_id", "error", "message", "attempts", "time")
    rows = sorted(failed, key=lambda record: (str(record.error), record.key))
    return pd.DataFrame([{name: getattr(record, name) for name in columns} for record in rows], columns=list(columns))
