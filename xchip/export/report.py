"""What became of an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xchip.core.html import accessor_html
from xchip.indexing.explain.explanation import as_time

SHOWN = 10
"""Failures that are printed; all are in the table."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The outcome of `xchip.export_chips` and `xchip.prechip`; of one part, where there are several. ``print`` shows it, a
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
    """Where the files are."""
    done: int
    """Chips written in this run."""
    skipped: int
    """Chips that were there from an earlier run."""
    failed: int
    """Chips that could not be read, in this run or in an earlier one."""
    files: int
    """Files written in this run; in a Zarr store: chunks, or shards."""
    seconds: float
    failures: Any = field(repr=False, compare=False)
    """pandas.DataFrame, one row a failed chip: file (that lacks it), chip_id, item_id, collection, error (class of the
    exception), message, attempts."""
    jobs: int | None = None
    """How many jobs make the whole, where it was done by ``job=``; else None."""

    def __str__(self) -> str:
        counts = f"{self.done:,} chips in {self.files:,} files, {self.skipped:,} skipped, {self.failed:,} failed"
        lines = [f"{self.path}: {counts}, {as_time(self.seconds)}"]
        shown = self.failures.head(SHOWN)
        lines += [f"  {row.chip_id}: {row.error}: {' '.join(row.message.split())}" for row in shown.itertuples()]
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
            facts.append(("failures", f"the first {len(shown)} are below; .failures has all"))
        tables = [(columns, shown.itertuples(index=False))] if len(shown) else []
        return accessor_html("xchip.ExportReport", facts, tables=tables)
