"""Report of a run of `xchip.build_index`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xchip.core.html import accessor_html
from xchip.indexing.explain.explanation import as_time

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
"""Failures that are printed; the table holds all of them."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Result of `xchip.build_index`: printed as text, and shown as tables in a notebook.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256))
    ...     report = xchip.build_index(item, f"{folder}/archive", 128, progress=False)
    >>> report.done, report.skipped, report.failed, report.rows, len(report.failures)
    (1, 0, 0, 4, 0)
    """

    path: str
    """The archive's root."""
    done: int
    """Items indexed in this run."""
    skipped: int
    """Unchanged items that an earlier run indexed, and repeated items of this run."""
    failed: int
    """Items that are not indexed in their current form."""
    rows: int
    """Chips written in this run."""
    seconds: float
    failures: pd.DataFrame = field(repr=False, compare=False)
    """One row per failure: collection, item_id, error (class of the exception), message, attempts."""

    def __str__(self) -> str:
        counts = f"{self.done:,} indexed ({self.rows:,} chips), {self.skipped:,} skipped, {self.failed:,} failed"
        lines = [f"{self.path}: {counts}, {as_time(self.seconds)}"]
        shown = self.failures.head(SHOWN)
        lines += [f"  {row.item_id}: {row.error}: {row.message}" for row in shown.itertuples()]
        if self.failed > len(shown):
            lines.append(f"  and {self.failed - len(shown):,} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        counts = {"indexed": self.done, "chips": self.rows, "skipped": self.skipped, "failed": self.failed}
        facts = [("archive", self.path), *((name, f"{count:,}") for name, count in counts.items())]
        facts.append(("time", as_time(self.seconds)))
        columns = ["item_id", "error", "message", "attempts"]
        shown = self.failures[columns].head(SHOWN)
        if self.failed > len(shown):
            facts.append(("failures", f"the first {len(shown)} are below; .failures has all"))
        tables = [(columns, shown.itertuples(index=False))] if len(shown) else []
        return accessor_html("xchip.BuildReport", facts, tables=tables)
