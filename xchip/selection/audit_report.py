"""`AuditReport`: the result of an audit as values, text, HTML and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TypeAlias, TypedDict

from xchip.core.html import accessor_html

SHOWN = 5
"""Number of examples of each kind that are printed."""
MOST_VALUES = 10
"""Number of values of a column whose shares are kept: the most frequent values of each split."""

Table: TypeAlias = tuple[list[str], list[list[str]]]
"""Header and rows."""

SplitFacts = TypedDict(
    "SplitFacts",
    {
        "chips": int,
        "places": int,
        "items": int,
        "from": str | None,
        "to": str | None,
        "means": dict[str, float | None],
        "values": dict[str, dict[str, float]],
    },
)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Two chips of different splits."""

    chips: tuple[str, str]
    """Their chip_id, or their row numbers without chip_id, in the order of the pair's splits."""
    distance_km: float
    """0 if they touch or overlap."""


@dataclass(frozen=True, slots=True)
class SplitPair:
    """The distance between two splits."""

    splits: tuple[str, str]
    distance_km: float | None
    """Smallest distance between chips of the two splits. With a gap, only chips within buffer and gap count; None without any."""
    days: float | None
    """Smallest time between chips of the two splits. With a gap, only chips within the buffer count. None if unknown."""
    leaks: int
    """Number of chips of either split at places that are too near to the other split."""
    stopped: bool
    """Whether counting stopped early: there are more leaks, and nearer pairs are possible."""
    examples: tuple[Neighbours, ...] = field(repr=False, default=())
    """Pairs that are too near, the nearest first; without leaks, the nearest pair."""

    @property
    def overlap(self) -> bool:
        """Whether chips of the two splits touch or overlap."""
        return self.distance_km == 0


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Chips of the same place and time: from two catalogues, or of two processing baselines."""

    chips: int
    """Number of chips beyond the first of each place and time."""
    across: int
    """Number of these in another split than the chip they repeat: a leak."""
    examples: tuple[tuple[str, str], ...] = field(repr=False, default=())
    """Pairs of names: collection and chip_id."""


@dataclass(frozen=True, slots=True, repr=False)
class AuditReport:
    """Result of `xchip.audit`. A console shows it as text, a notebook as tables.

    Examples
    --------
    >>> import xchip.testing
    >>> index = xchip.testing.synthetic_stack(shape=(256, 1280)).chips.index(256, item_id="scene")
    >>> report = xchip.audit(index.assign(split=["train", "train", "buffer", "test", "test"]), buffer_km=1)
    >>> report.ok, report.splits["train"]["chips"], report.left_out
    (True, 2, {'buffer': 1})
    """

    buffer_km: float
    """Required distance; chips that touch are a leak even with 0."""
    gap: str | None
    """If set, only chips within this time of each other count as neighbours."""
    column: str
    """The column of splits."""
    splits: dict[str, SplitFacts]
    """For each split: numbers of chips, places (distinct footprints) and items; first and last date; means of the columns of
    numbers; shares of the ten most frequent values of other columns."""
    left_out: dict[str, int]
    """Number of chips in no split, by the value of the column."""
    pairs: tuple[SplitPair, ...]
    """All pairs of splits."""
    duplicates: Duplicates

    @property
    def ok(self) -> bool:
        """Whether there is no leak."""
        return not self.duplicates.across and not any(pair.leaks for pair in self.pairs)

    @property
    def leaks(self) -> int:
        """Number of chips that are too near to another split; a chip near two splits counts twice."""
        return sum(pair.leaks for pair in self.pairs)

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain values."""
        pairs = [asdict(pair) | {"overlap": pair.overlap} for pair in self.pairs]
        return {"ok": self.ok, "leaks": self.leaks} | asdict(self) | {"pairs": pairs}

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def __str__(self) -> str:
        lines = [self._verdict()]
        for header, rows in self._tables():
            widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
            for row in (header, *rows):
                cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
                lines.append("  ".join(["    " + row[0].ljust(widths[0]), *cells[1:]]))
        return "\n".join([*lines, *(f"    {name}: {note}" for name, note in self._notes())])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return accessor_html("xchip.AuditReport", [("result", self._verdict()), *self._notes()], tables=self._tables())

    def _verdict(self) -> str:
        distance = f"{self.buffer_km:g} km" + (f" and {self.gap}" if self.gap else "")
        if self.ok:
            return f"ok: no two splits touch or are within {distance} of each other"
        more = "at least " if any(pair.stopped for pair in self.pairs) else ""
        return f"LEAK: {more}{self.leaks:,} chips touch another split or are within {distance} of it"

    def _tables(self) -> Iterator[Table]:
        if self.splits:
            yield self._balance()
        for column in dict.fromkeys(name for facts in self.splits.values() for name in facts["values"]):
            header, rows = self._shares(column)
            if len(rows) > 1:  # a single value is balanced
                yield header, rows
        if self.pairs:
            yield self._distances()

    def _balance(self) -> Table:
        means = list(dict.fromkeys(name for facts in self.splits.values() for name in facts["means"]))
        header = [self.column, "chips", "places", "items", "from", "to", *(name.removesuffix("_fraction") for name in means)]
        rows = [
            [
                name,
                *(f"{count:,}" for count in (facts["chips"], facts["places"], facts["items"])),
                *((date or "-")[:10] for date in (facts["from"], facts["to"])),
                *(_mean(mean, facts["means"].get(mean)) for mean in means),
            ]
            for name, facts in self.splits.items()
        ]
        return header, rows

    def _shares(self, column: str) -> Table:
        shares = [facts["values"].get(column, {}) for facts in self.splits.values()]
        values = dict.fromkeys(value for split in shares for value in split)
        return [column, *self.splits], [[value, *(_share(split, value) for split in shares)] for value in values]

    def _distances(self) -> Table:
        rows = [
            [
                " - ".join(pair.splits),
                "-" if pair.distance_km is None else f"{pair.distance_km:,.3f} km",
                "-" if pair.days is None else f"{pair.days:,.2f}",
                f"{pair.leaks:,}{'+' if pair.stopped else ''}",
            ]
            for pair in self.pairs
        ]
        return ["between", "distance", "days", "leaks"], rows

    def _notes(self) -> Iterator[tuple[str, str]]:
        for pair in self.pairs:
            for near in pair.examples[:SHOWN] if pair.leaks else ():
                chips = (f"{chip} ({side})" for chip, side in zip(near.chips, pair.splits, strict=True))
                yield "too near", f"{' and '.join(chips)} are {near.distance_km:.3f} km apart"
        if self.duplicates.chips:
            across = f", {self.duplicates.across:,} of them across splits" if self.duplicates.across else ""
            yield "duplicates", f"{self.duplicates.chips:,} chips repeat the place and time of another{across}"
            yield from (("such as", " and ".join(chips)) for chips in self.duplicates.examples[:SHOWN])
        if self.left_out:
            yield "in no split", ", ".join(f"{count:,} {name}" for name, count in self.left_out.items())


def _mean(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return _percent(value) if column.endswith("_fraction") else f"{value:.3g}"


def _share(shares: dict[str, float], value: str) -> str:
    """Format the share of a value in a split: "-" if it is not among the most frequent values."""
    return "-" if value not in shares and len(shares) == MOST_VALUES else _percent(shares.get(value, 0.0))


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
