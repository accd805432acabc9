"""What an audit found: the value, and how it shows itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from xchip.core.html import accessor_html

SHOWN = 5
"""Examples that are printed of each kind; all are in the value."""
MOST_VALUES = 10
"""Values of a column whose shares are known: the most frequent of each split."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Two chips of different splits."""

    chips: tuple[str, str]
    """Their chip_id; where there is none, their row numbers. In the order of the pair's splits."""
    distance_km: float
    """0 if they touch or overlap."""


@dataclass(frozen=True, slots=True)
class SplitPair:
    """Two splits, and how far apart they are."""

    splits: tuple[str, str]
    distance_km: float | None
    """Smallest distance between chips of the two; with a gap, of those within buffer and gap, None where there are none."""
    days: float | None
    """Smallest time between chips of the two; with a gap, of those within the buffer of each other. None where not known."""
    leaks: int
    """Chips of either split at places that are too near to the other."""
    stopped: bool
    """Whether counting stopped there, as enough was found: there are more, and some may be nearer."""
    examples: tuple[Neighbours, ...] = field(repr=False, default=())
    """Some that are too near, the nearest first; where none are, the nearest two."""

    @property
    def overlap(self) -> bool:
        """Whether chips of the two touch or overlap."""
        return self.distance_km == 0


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Chips of one place and time: from two catalogues, or of two processing baselines."""

    chips: int
    """Those beyond the first of each place and time."""
    across: int
    """Of these, how many are in another split than one they repeat: a leak."""
    examples: tuple[tuple[str, str], ...] = field(repr=False, default=())
    """Some, as pairs of chip_id with the collection before it."""


@dataclass(frozen=True, slots=True, repr=False)
class AuditReport:
    """The outcome of `xchip.audit`. A console shows it as text, a notebook as tables; `to_json` gives a file's text.

    Examples
    --------
    >>> import xchip.testing
    >>> index = xchip.testing.synthetic_stack(shape=(256, 1280)).chips.index(256, item_id="scene")
    >>> report = xchip.audit(index.assign(split=["train", "train", "buffer", "test", "test"]), buffer_km=1)
    >>> report.ok, report.splits["train"]["chips"], report.left_out
    (True, 2, {'buffer': 1})
    """

    buffer_km: float
    """Least distance that was asked for; touching chips are a leak with 0 too."""
    gap: str | None
    """With one, only chips that are no further apart in time count as neighbours."""
    column: str
    """The column that was looked at."""
    splits: dict[str, dict[str, Any]]
    """For each split: chips, places (different footprints), items, first and last date, mean of the columns of numbers, and
    shares of the values of other columns, the most frequent ten."""
    left_out: dict[str, int]
    """Chips in no split, by what the column says of them."""
    pairs: tuple[SplitPair, ...]
    """Each two splits."""
    duplicates: Duplicates

    @property
    def ok(self) -> bool:
        """Whether no two splits have a leak."""
        return not self.duplicates.across and not any(pair.leaks for pair in self.pairs)

    @property
    def leaks(self) -> int:
        """Chips that are too near to another split; one that is near to two counts twice."""
        return sum(pair.leaks for pair in self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        pairs = [asdict(pair) | {"overlap": pair.overlap} for pair in self.pairs]
        return {"ok": self.ok, "leaks": self.leaks} | asdict(self) | {"pairs": pairs}

    def to_json(self) -> str:
        """Everything as JSON."""
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
        asked = f"{self.buffer_km:g} km" + (f" and {self.gap}" if self.gap else "")
        if self.ok:
            return f"ok: no two splits touch or are within {asked} of each other"
        more = "at least " if any(pair.stopped for pair in self.pairs) else ""
        return f"LEAK: {more}{self.leaks:,} chips touch another split or are within {asked} of it"

    def _tables(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        """Header and rows of each table."""
        if self.splits:
            yield self._balance()
        for column in dict.fromkeys(name for facts in self.splits.values() for name in facts["values"]):
            header, rows = self._shares(column)
            if len(rows) > 1:  # else there is nothing to balance
                yield header, rows
        if self.pairs:
            yield self._distances()

    def _balance(self) -> tuple[list[str], list[list[str]]]:
        means = list(dict.fromkeys(name for facts in self.splits.values() for name in facts["means"]))
        header = [self.column, "chips", "places", "items", "from", "to", *(name.removesuffix("_fraction") for name in means)]
        rows = [
            [
                name,
                *(f"{facts[key]:,}" for key in ("chips", "places", "items")),
                *((facts[key] or "-")[:10] for key in ("from", "to")),
                *(_mean(mean, facts["means"].get(mean)) for mean in means),
            ]
            for name, facts in self.splits.items()
        ]
        return header, rows

    def _shares(self, column: str) -> tuple[list[str], list[list[str]]]:
        shares = [facts["values"].get(column, {}) for facts in self.splits.values()]
        values = dict.fromkeys(value for known in shares for value in known)
        return [column, *self.splits], [[value, *(_share(known, value) for known in shares)] for value in values]

    def _distances(self) -> tuple[list[str], list[list[str]]]:
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
                one, other = (f"{chip} ({side})" for chip, side in zip(near.chips, pair.splits, strict=True))
                yield "too near", f"{one} and {other} are {near.distance_km:.3f} km apart"
        if self.duplicates.chips:
            across = f", {self.duplicates.across:,} of them across splits" if self.duplicates.across else ""
            yield "duplicates", f"{self.duplicates.chips:,} chips repeat the place and time of another{across}"
            yield from (("such as", f"{one} and {other}") for one, other in self.duplicates.examples[:SHOWN])
        if self.left_out:
            yield "in no split", ", ".join(f"{count:,} {name}" for name, count in self.left_out.items())


def _mean(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return _percent(value) if column.endswith("_fraction") else f"{value:.3g}"


def _share(known: dict[str, float], value: str) -> str:
    """Of a value in a split, of which the most frequent are known."""
    return "-" if value not in known and len(known) == MOST_VALUES else _percent(known.get(value, 0.0))


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"
