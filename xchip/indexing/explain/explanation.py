"""What a job will take, before it runs: the value that `explain` gives, and how it shows itself."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from xchip.core.counting import MAX_ROWS
from xchip.core.html import accessor_html

Basis = Literal["exact", "at least", "at most", "estimate"]

MAX_REASONS = 4
"""Reasons that a figure names; an archive of many products has more."""
MAX_GROUPS = 100
"""Products that are told apart."""
MAX_SHOWN = 20
"""Products that text and HTML list."""
MAX_PROBLEMS = 5
"""Items that can't be used of which the reason is kept."""

_SIGNS: dict[Basis, str] = {"exact": "", "at least": "≥ ", "at most": "≤ ", "estimate": "~ "}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, how far it can be trusted, and why."""

    value: int
    """Number, or bytes."""
    basis: Basis
    """"exact", a bound ("at least", "at most"), or "estimate"."""
    why: str
    """Where it comes from."""


@dataclass(frozen=True, slots=True)
class Group:
    """The items of one product."""

    collection: str | None
    """The items' collection."""
    sensor: str | None
    """Name of the profile; None for an unknown product."""
    items: int
    """How many."""
    chips: int
    """Chips of those whose grid is known."""
    unread: int = 0
    """Those whose grid only their files know."""


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """What an index will take, before anything runs.

    A console shows it as text, a notebook as a table, `to_dict` gives plain values. A figure that does not apply is None.

    Examples
    --------
    >>> chips = Figure(441, "exact", "from the items' grids")
    >>> print(Explanation("one item", chips=chips, stored_bytes=Figure(3_000_000, "at most", "sizes of the files")))
    one item
        chips              441  exact: from the items' grids
        bytes to read ≤ 3.0 MB  at most: sizes of the files
    """

    subject: str
    """What is explained."""
    items: Figure | None = None
    """Items, those too that will fail."""
    unread: Figure | None = None
    """Items of which only a file's header tells the grid: the other figures do not hold them."""
    refused: Figure | None = None
    """Items that can't be used; see ``problems``."""
    chips: Figure | None = None
    """Chips, before limits such as ``max_cloud`` choose."""
    tasks: Figure | None = None
    """Tasks that Dask is given."""
    chunks: Figure | None = None
    """Chunks of the quality band (of each band that is read, where there is none) that are computed."""
    pixel_bytes: Figure | None = None
    """Bytes of the pixels that are read, decoded."""
    stored_bytes: Figure | None = None
    """Bytes of these pixels as stored: what has to come from disk or over the network."""
    requests: Figure | None = None
    """Requests for pixels over HTTP or to a bucket."""
    memory_bytes: Figure | None = None
    """Peak memory of one process."""
    groups: tuple[Group, ...] = ()
    """Products, the most items first."""
    problems: tuple[str, ...] = ()
    """Why items can't be used: the first few."""
    notes: tuple[str, ...] = ()
    """What deserves a thought."""

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """(field's name, figure) of those that apply."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Figure):
                yield entry.name, value

    def seconds(self, bandwidth: float) -> float:
        """Seconds that the stored bytes take over a line of ``bandwidth`` bytes a second: a bound from one cause alone.

        Raises
        ------
        ValueError
            If the stored bytes are not known, as for an array, or ``bandwidth`` is not positive.
        """
        if self.stored_bytes is None:
            raise ValueError("the bytes that an array's chunks take in their files are not known; explain its items instead")
        if not bandwidth > 0:
            raise ValueError(f"bandwidth is in bytes a second and above 0, got {bandwidth!r}")
        return self.stored_bytes.value / bandwidth

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold."""
        return {
            "subject": self.subject,
            "figures": {name: {"value": f.value, "basis": f.basis, "why": f.why} for name, f in self.figures()},
            "groups": [
                {"collection": g.collection, "sensor": g.sensor, "items": g.items, "chips": g.chips, "unread": g.unread}
                for g in self.groups
            ],
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        rows = [(_LABELS[name], _value(name, figure), f"{figure.basis}: {_plain(figure.why)}") for name, figure in self.figures()]
        labels, values = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
        lines = [_plain(self.subject)]
        for label, value, why in rows:
            head = f"    {label:<{labels}} {value:>{values}}  "
            lines += textwrap.wrap(
                head + why, max(WIDTH, len(head) + 40), subsequent_indent=" " * len(head), break_on_hyphens=False
            )
        for title, entries in self._lists():
            lines += [title, *(f"    {entry}" for entry in entries)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _lists(self) -> Iterator[tuple[str, list[str]]]:
        if self.groups:
            more = len(self.groups) - MAX_SHOWN
            entries = [_group(group) for group in self.groups[:MAX_SHOWN]]
            yield "products", entries + ([f"and {more:,} more"] if more > 0 else [])
        if self.problems:
            more = self.refused.value - len(self.problems) if self.refused is not None else 0
            entries = [_plain(problem) for problem in self.problems]
            yield "can't be used", entries + ([f"and {more:,} more"] if more > 0 else [])
        if self.notes:
            yield "notes", [_plain(note) for note in self.notes]

    def _repr_html_(self) -> str:
        rows = [
            (_LABELS[name], f"{_value(name, figure)} ({figure.basis}: {_plain(figure.why)})") for name, figure in self.figures()
        ]
        rows += [(title if not number else "", entry) for title, entries in self._lists() for number, entry in enumerate(entries)]
        return accessor_html(f"xchip: {_plain(self.subject)}", rows)


WIDTH = 110
"""Columns of the text."""

_LABELS = {
    "items": "items",
    "unread": "not known until opened",
    "refused": "can't be used",
    "chips": "chips",
    "tasks": "tasks",
    "chunks": "chunks to read",
    "pixel_bytes": "pixels to read",
    "stored_bytes": "bytes to read",
    "requests": "requests",
    "memory_bytes": "peak memory",
}


def _value(name: str, figure: Figure) -> str:
    number = as_bytes(figure.value) if name.endswith("_bytes") else f"{figure.value:,}"
    return f"{_SIGNS[figure.basis]}{number}"


def as_bytes(number: float) -> str:
    """A number of bytes for people, in powers of 1000.

    Examples
    --------
    >>> as_bytes(999), as_bytes(30_140_100), as_bytes(2.5e12)
    ('999 B', '30.1 MB', '2.5 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.95 or (unit == "B" and number < 1000):
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def as_time(seconds: float) -> str:
    """A duration for people.

    Examples
    --------
    >>> as_time(0.42), as_time(61.2), as_time(320), as_time(7380)
    ('0.4 s', '61 s', '5 min 20 s', '2 h 3 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _group(group: Group) -> str:
    product = group.sensor or "unknown product"
    collection = f" in {group.collection}" if group.collection else ""
    unread = f", and {group.unread:,} not known until opened" if group.unread else ""
    return _plain(f"{product}{collection}: {counted(group.items, 'item')}, {counted(group.chips, 'chip')}{unread}")


def counted(number: int, noun: str) -> str:
    """ "1 item", "2,000 items"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _plain(text: str) -> str:
    """One line, without what could steer a terminal: ids and messages come from elsewhere."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= 400 else f"{line[:399]}…"


@dataclass(slots=True)
class Tally:
    """Adds up the figures of many items; its size does not grow with them."""

    greatest: bool = False
    """Whether the greatest counts, in place of the sum."""
    value: int = 0
    reasons: Counter[tuple[Basis, str]] = field(default_factory=Counter)

    def add(self, figure: Figure) -> None:
        """Count one item's figure."""
        self.value = max(self.value, figure.value) if self.greatest else self.value + figure.value
        self.reasons[figure.basis, figure.why] += 1

    def figure(self, *, nothing: str, missing: str = "") -> Figure:
        """All in one figure.

        Parameters
        ----------
        nothing
            Why, where no item was counted.
        missing
            What is not in the figure, where something is: the figure is then a lower bound at best.
        """
        basis = joined(basis for basis, _ in self.reasons)
        if missing:
            basis = joined((basis, "at least"))
        several = len(self.reasons) > 1
        usual = self.reasons.most_common(MAX_REASONS)
        parts = [
            f"{why} ({f'{kind}, ' if kind != basis else ''}{counted(number, 'item')})" if several else why
            for (kind, why), number in usual
        ]
        rest = len(self.reasons) - len(usual)
        parts += [f"and {counted(rest, 'reason')} more"] if rest else []
        return Figure(self.value, basis, "; ".join([*(parts or [nothing]), *([missing] if missing else [])]))


BASE_BYTES = 220_000_000
"""A process with Python and the libraries that an index loads: 186 to 255 MB measured, on Linux. The most where SciPy is
installed, which Dask then loads."""
CHIP_BYTES = 1_000
"""Row, outline and fractions of a chip while its table is made: 840 measured with 117,649 chips."""


def counting_memory(rows: int, width: int, itemsize: int) -> int:
    """Bytes that it takes at most to count ``rows`` of pixels, 255 at a time: three masks and the pixels' low bytes.

    Where values have more than a byte, a table may be looked up, with an index of 8 bytes a pixel.
    """
    return min(MAX_ROWS, rows) * width * (4 if itemsize == 1 else 12 + itemsize)


def memory_figure(per_thread: int, tasks: int, threads: int | None, what: str) -> Figure:
    """Peak memory of one process.

    Parameters
    ----------
    per_thread
        Bytes that a thread holds at most, of ``what``.
    tasks
        How many there are: threads without one hold nothing.
    threads
        Of the process; None: as many as Dask would start.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is at least 1, got {threads}")
    if threads is None:
        from dask.system import CPU_COUNT

        threads = CPU_COUNT
    busy = min(threads, tasks)
    why = f"a model: {as_bytes(BASE_BYTES)} for Python and its libraries, and {as_bytes(per_thread)} for "
    why += f"each of {busy} threads" if busy > 1 else "one thread"
    return Figure(BASE_BYTES + busy * per_thread, "estimate", f"{why}: {what}")


def joined(bases: Iterable[Basis]) -> Basis:
    """What can be said of a sum.

    Examples
    --------
    >>> joined(["exact", "at most"]), joined(["at least", "at most"]), joined([])
    ('at most', 'estimate', 'exact')
    """
    kinds = {basis for basis in bases if basis != "exact"}
    if not kinds:
        return "exact"
    return kinds.pop() if len(kinds) == 1 else "estimate"
