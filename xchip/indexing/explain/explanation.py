"""Costs of a job before it runs: the value that ``explain`` returns, and how it is shown."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from xchip.core.counting import MAX_ROWS
from xchip.core.html import accessor_html

Basis = Literal["exact", "at least", "at most", "estimate"]

MAX_REASONS = 4
"""Reasons that a figure names; an archive of many products has more."""
MAX_GROUPS = 100
"""Products that are counted separately."""
MAX_SHOWN = 20
"""Products that text and HTML list."""
MAX_PROBLEMS = 5
"""Unusable items for which the reason is kept."""
WIDTH = 110
"""Columns of the text."""

_SIGNS: dict[Basis, str] = {"exact": "", "at least": "≥ ", "at most": "≤ ", "estimate": "~ "}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, its precision, and the reason for it."""

    value: int
    """Number, or bytes."""
    basis: Basis
    """"exact", a bound ("at least", "at most"), or "estimate"."""
    why: str
    """Where the number comes from."""


@dataclass(frozen=True, slots=True)
class Group:
    """The items of one product."""

    collection: str | None
    """The items' collection."""
    sensor: str | None
    """Name of the profile; None for an unknown product."""
    items: int
    """Number of items."""
    chips: int
    """Chips of the items with a known grid."""
    unread: int = 0
    """Items with a grid that only their files record."""

    def __str__(self) -> str:
        collection = f" in {self.collection}" if self.collection else ""
        unread = f", and {self.unread:,} not known until opened" if self.unread else ""
        product = self.sensor or "unknown product"
        return f"{product}{collection}: {counted(self.items, 'item')}, {counted(self.chips, 'chip')}{unread}"


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """Costs of an index before it is computed.

    A console shows it as text, a notebook as a table, `to_dict` returns plain values. A figure that does not apply is None.

    Examples
    --------
    >>> chips = Figure(441, "exact", "from the items' grids")
    >>> print(Explanation("one item", chips=chips, stored_bytes=Figure(3_000_000, "at most", "sizes of the files")))
    one item
        chips              441  exact: from the items' grids
        bytes to read ≤ 3.0 MB  at most: sizes of the files
    """

    subject: str
    """The job."""
    items: Figure | None = None
    """Items, including those that will fail."""
    unread: Figure | None = None
    """Items with a grid that only a file's header records: the other figures leave them out."""
    refused: Figure | None = None
    """Unusable items; see ``problems``."""
    chips: Figure | None = None
    """Chips, before limits such as ``max_cloud`` drop any."""
    tasks: Figure | None = None
    """Tasks for Dask."""
    chunks: Figure | None = None
    """Chunks to compute: of the quality band, or of each data band that is read if there is no quality band."""
    pixel_bytes: Figure | None = None
    """Bytes of the pixels that are read, decoded."""
    stored_bytes: Figure | None = None
    """Bytes of these pixels as stored: read from disk or over the network."""
    requests: Figure | None = None
    """Requests for pixels over HTTP or to a bucket."""
    memory_bytes: Figure | None = None
    """Peak memory of one process."""
    groups: tuple[Group, ...] = ()
    """Products, the largest first."""
    problems: tuple[str, ...] = ()
    """Why items are unusable: the first few reasons."""
    notes: tuple[str, ...] = ()
    """Hints on how to make the job cheaper."""

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Yield (field's name, figure) of the figures that apply."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Figure):
                yield entry.name, value

    def seconds(self, bandwidth: float) -> float:
        """Return the seconds that the stored bytes take at ``bandwidth`` bytes per second: a lower bound for the job.

        Raises
        ------
        ValueError
            If the stored bytes are not known, as for an array, or ``bandwidth`` is not positive.
        """
        if self.stored_bytes is None:
            raise ValueError("the stored size of an array's chunks is not known; explain its items instead")
        if not bandwidth > 0:
            raise ValueError(f"bandwidth is in bytes per second and above 0, got {bandwidth!r}")
        return self.stored_bytes.value / bandwidth

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain values for JSON."""
        return {
            "subject": self.subject,
            "figures": {name: asdict(figure) for name, figure in self.figures()},
            "groups": [asdict(group) for group in self.groups],
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        rows = [(_LABELS[name], _value(name, figure), f"{figure.basis}: {_plain(figure.why)}") for name, figure in self.figures()]
        labels, values = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
        lines = [_plain(self.subject)]
        for label, value, why in rows:
            head = f"    {label:<{labels}} {value:>{values}}  "
            width, indent = max(WIDTH, len(head) + 40), " " * len(head)
            lines += textwrap.wrap(head + why, width, subsequent_indent=indent, break_on_hyphens=False)
        for title, entries in self._lists():
            lines += [title, *(f"    {entry}" for entry in entries)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _lists(self) -> Iterator[tuple[str, list[str]]]:
        refused = self.refused.value if self.refused is not None else 0
        for title, entries, total in (
            ("products", self.groups[:MAX_SHOWN], len(self.groups)),
            ("can't be used", self.problems, refused),
            ("notes", self.notes, 0),
        ):
            if entries:
                more = total - len(entries)
                yield title, [_plain(str(entry)) for entry in entries] + ([f"and {more:,} more"] if more > 0 else [])

    def _repr_html_(self) -> str:
        rows = [
            (_LABELS[name], f"{_value(name, figure)} ({figure.basis}: {_plain(figure.why)})") for name, figure in self.figures()
        ]
        rows += [(title if not number else "", entry) for title, entries in self._lists() for number, entry in enumerate(entries)]
        return accessor_html(f"xchip: {_plain(self.subject)}", rows)


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
    """Format a number of bytes, in powers of 1000.

    Examples
    --------
    >>> as_bytes(999), as_bytes(30_140_100), as_bytes(2.5e12)
    ('999 B', '30.1 MB', '2.5 TB')
    """
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:,.1f} TB"


def as_time(seconds: float) -> str:
    """Format a duration.

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


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: "1 item", "2,000 items"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _plain(text: str) -> str:
    """Return text as one short line without control characters, because ids and messages are untrusted."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= 400 else f"{line[:399]}…"


@dataclass(slots=True)
class Tally:
    """Sum of the figures of many items, in constant memory."""

    value: int = 0
    reasons: Counter[tuple[Basis, str]] = field(default_factory=Counter)

    def add(self, figure: Figure) -> None:
        """Add one item's figure."""
        self.value += figure.value
        self.reasons[figure.basis, figure.why] += 1

    def figure(self, *, nothing: str, missing: str = "") -> Figure:
        """Return the sum; ``nothing`` is the reason if no item was added. Items that are ``missing`` make it a lower bound."""
        bound: list[Basis] = ["at least"] if missing else []
        basis = joined([*bound, *(basis for basis, _ in self.reasons)])
        parts = [nothing] if not self.reasons else [why for _, why in self.reasons]
        if len(self.reasons) > 1:
            parts = [
                f"{why} ({f'{kind}, ' if kind != basis else ''}{counted(number, 'item')})"
                for (kind, why), number in self.reasons.most_common(MAX_REASONS)
            ]
        rest = len(self.reasons) - len(parts)
        parts += [f"and {counted(rest, 'reason')} more"] if rest > 0 else []
        return Figure(self.value, basis, "; ".join([*parts, *([missing] if missing else [])]))


BASE_BYTES = 220_000_000
"""A process with Python and the libraries that an index loads: 186 to 255 MB measured on Linux, the most with SciPy installed,
because Dask then loads it."""
CHIP_BYTES = 1_000
"""Row, outline and fractions of a chip while its table is made: 840 measured with 117,649 chips."""


def counting_memory(rows: int, width: int, itemsize: int) -> int:
    """Bytes that counting ``rows`` of pixels needs at most, 255 rows at a time: three masks and the pixels' low bytes.

    Values of more than a byte can need a lookup table, with an index of 8 bytes per pixel.
    """
    return min(MAX_ROWS, rows) * width * (4 if itemsize == 1 else 12 + itemsize)


def memory_figure(per_thread: int, tasks: int, threads: int | None, what: str) -> Figure:
    """Estimate the peak memory of one process in which a thread with a task holds ``per_thread`` bytes: ``what``.

    ``threads`` is the number of threads; None for as many as Dask would start.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is at least 1, got {threads}")
    if threads is None:
        from dask.system import CPU_COUNT

        threads = CPU_COUNT
    busy = min(threads, tasks)
    share = f"each of {busy} threads" if busy > 1 else "one thread"
    why = f"a model: {as_bytes(BASE_BYTES)} for Python and its libraries, and {as_bytes(per_thread)} for {share}: {what}"
    return Figure(BASE_BYTES + busy * per_thread, "estimate", why)


def joined(bases: Iterable[Basis]) -> Basis:
    """Return the precision of a sum.

    Examples
    --------
    >>> joined(["exact", "at most"]), joined(["at least", "at most"]), joined([])
    ('at most', 'estimate', 'exact')
    """
    bounds: set[Basis] = {basis for basis in bases if basis != "exact"}
    if len(bounds) > 1:
        return "estimate"
    return bounds.pop() if bounds else "exact"
