"""The result of an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xchip.core.html import accessor_html
from xchip.indexing.explain.explanation import as_time

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
"""Number of failures that are printed; the table has all of them."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The result of `xchip.export_chips` and `xchip.prechip`, or of one part of the work. ``print`` shows it as text, a
    notebook as tables.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     report = xchip.export_chips(index, f"{folder}/chips", "tif", progress=False)
    >>> report.done, report.skipped, report.failed, report.files
    (4, 0, 0, 4)
    """

    path: str
    """Folder or URL of the files."""
    done: int
    """Chips written in this run."""
    skipped: int
    """Chips that an earlier run wrote."""
    failed: int
    """Chips that could not be read, in this run or in an earlier one."""
    files: int
    """Files written in this run; for a Zarr store, its chunks or shards."""
    seconds: float
    failures: pd.DataFrame = field(repr=False, compare=False)
    """One row per failed chip: file (that lacks the chip), chip_id, item_id, collection, error (class of the exception), message,
    attempts."""
    jobs: int | None = None
    """Number of jobs that make the whole export; None without ``job=``."""

    def __str__(self) -> str:
        counts = f"{self.done:,} chips in {self.files:,} files, {self.skipped:,} skipped, {self.failed:,} failed"
        lines = [f"{self.path}: {counts}, {as_time(self.seconds)}"]
        shown = self.failures.head(SHOWN)
        lines += [f"  {row.chip_id}: {row.error}: {' '.join(str(row.message).split())}" for row in shown.itertuples()]
        if self.failed > len(shown):
            lines.append(f"  and {self.failed - len(shown):,} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        counts = {"chips written": self.done, "files": self.files, "skipped": self.skipped, "failed": self.failed}
        facts = [("folder", self.path), *((name, f"{count:,}") for name, count in counts.items())]
        facts.append(("time", as_time(self.seconds)))
        columns = ["chip_id", "error", "message", "attempts"]
        shown = self.failures[columns].head(SHOWN)
        if self.failed > len(shown):
            facts.append(("failures", f"the first {len(shown)} are below; .failures has all of them"))
        tables = [(columns, shown.itertuples(index=False))] if len(shown) else []
        return accessor_html("xchip.ExportReport", facts, tables=tables)
