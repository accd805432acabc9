"""What became of an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHOWN = 10
"""Failures that are printed; all are in the table."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The outcome of `xchip.export_chips` and `xchip.prechip`; of one part, where there are several."""

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

    def __str__(self) -> str:
        counts = f"{self.done:,} chips in {self.files:,} files, {self.skipped:,} skipped, {self.failed:,} failed"
        lines = [f"{self.path}: {counts}, {self.seconds:.0f} s"]
        shown = self.failures.head(SHOWN)
        lines += [f"  {row.chip_id}: {row.error}: {' '.join(row.message.split())}" for row in shown.itertuples()]
        if self.failed > len(shown):
            lines.append(f"  and {self.failed - len(shown):,} more")
        return "\n".join(lines)
