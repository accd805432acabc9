"""What became of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

SHOWN = 10
"""Failures that are printed; all are in the table."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The outcome of `xchip.build_index`."""

    path: str
    """The archive."""
    done: int
    """Items indexed in this run."""
    skipped: int
    """Items that were indexed before, unchanged; and items given twice."""
    failed: int
    """Items without an index of their present form."""
    rows: int
    """Chips written in this run."""
    seconds: float
    failures: Any = field(repr=False, compare=False)
    """pandas.DataFrame, one row a failure: collection, item_id, error (class of the exception), message, attempts."""

    def __str__(self) -> str:
        counts = f"{self.done:,} indexed ({self.rows:,} chips), {self.skipped:,} skipped, {self.failed:,} failed"
        lines = [f"{self.path}: {counts}, {self.seconds:.0f} s"]
        shown = self.failures.head(SHOWN)
        lines += [f"  {row.item_id}: {row.error}: {row.message}" for row in shown.itertuples()]
        if self.failed > len(shown):
            lines.append(f"  and {self.failed - len(shown):,} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td style='text-align:right'>{value:,}</td></tr>"
            for name, value in (
                ("indexed", self.done),
                ("chips", self.rows),
                ("skipped", self.skipped),
                ("failed", self.failed),
            )
        )
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{escape(str(value))}</td>" for value in row) + "</tr>"
            for row in self.failures[["item_id", "error", "message", "attempts"]].head(SHOWN).itertuples(index=False)
        )
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("item_id", "error", "message", "attempts"))
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if self.failed else ""
        more = f"<p>and {self.failed - SHOWN:,} more in <code>.failures</code></p>" if self.failed > SHOWN else ""
        return f"<div><strong>{escape(self.path)}</strong><table>{cells}</table>{table}{more}</div>"
