"""What an archive knows of each item: that it is done, with which fingerprint, or that it failed, and why.

A run writes its records in segments, each a file of JSON lines that appears whole; nobody ever changes a segment, so runs at the
same time do not disturb each other. What was done before a crash and is not in a segment yet is still known: the part says by
itself which item and which parameters it was made of.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from xchip.indexing.archive.layout import LEDGER, part_name
from xchip.io.signing import unsigned_href
from xchip.io.store import Store, told

JOB = f"{LEDGER}/job.json"
"""The parameters that all parts of the archive were made with."""
SEGMENT_RECORDS = 1000
"""Records after which a segment is written at the latest."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two segments: few at first, so that a short run is recorded too; then more, so that segments are few."""


@dataclass(frozen=True, slots=True)
class Part:
    """The index of one item, as the manifest lists it."""

    path: str
    """Relative to the archive's root."""
    item_href: str
    """The item's JSON, relative to the archive's root."""
    sensor: str | None
    datetime: str | None
    """ISO 8601, UTC."""
    bounds: tuple[float, float, float, float] | None
    """(west, south, east, north) of the footprints; None without rows."""
    rows: int
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """What happened to an item, or to a file of items that could not be read."""

    status: Literal["done", "failed", "read"]
    """"read": what could not be read of a file before is no trouble any more; its items have records of their own."""
    collection: str | None
    item_id: str
    fingerprint: str
    """Of the item: `fingerprint_of`."""
    time: str
    """When, ISO 8601, UTC."""
    attempts: int
    """How often it was tried in this run."""
    history: tuple[dict[str, Any], ...] = ()
    """What went wrong on the way, first to last: attempt, kind ("transient", "denied", "permanent"), error, message."""
    error: str | None = None
    """Class of the exception; None where done."""
    message: str | None = None
    part: Part | None = None
    """None where failed."""
    source: str | None = None
    """The file or URL that could not be read, if no item was found there; ``item_id`` then says what of it."""

    @property
    def key(self) -> str:
        """The name of its part: one for each item of an archive."""
        return part_name(self.collection, self.item_id)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Record:
        """Undo `to_json`."""
        values = json.loads(line)
        part = values.pop("part")
        if part is not None:
            part = Part(**part | {"bounds": None if part["bounds"] is None else tuple(part["bounds"])})
        return cls(**values | {"history": tuple(values["history"]), "part": part})


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def fingerprint_of(item: Mapping[str, Any]) -> str:
    """A hash that changes with anything in an item but its links and the signatures of its hrefs: 32 hexadecimal digits.

    Examples
    --------
    >>> item = {"id": "a", "assets": {"red": {"href": "https://host/a.tif?X-Amz-Signature=1"}}, "links": [{"rel": "self"}]}
    >>> again = {"assets": {"red": {"href": "https://host/a.tif?X-Amz-Signature=2"}}, "id": "a"}
    >>> fingerprint_of(item) == fingerprint_of(again) != fingerprint_of(item | {"id": "b"})
    True
    """
    plain = unsigned_item(item) | {"links": []}
    plain.pop(FINGERPRINT, None)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


FINGERPRINT = "xchip:fingerprint"
"""Member of an item that an archive keeps in another form than it was given, say because its files were brought into the archive:
the fingerprint of the item as it was given."""


def fingerprint_in_archive(item: Mapping[str, Any]) -> str:
    """`fingerprint_of` what an archive's item was given as."""
    origin = item.get(FINGERPRINT)
    return origin if isinstance(origin, str) else fingerprint_of(item)


def unsigned_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an item whose hrefs, alternate ones too, bear no signatures: those are secrets, and soon stale."""
    return {**item, "assets": {key: _unsigned(asset) for key, asset in item["assets"].items()}}


def _unsigned(asset: Any) -> Any:
    if not isinstance(asset, Mapping):
        return asset
    plain = dict(asset)
    if isinstance(plain.get("href"), str):
        plain["href"] = unsigned_href(plain["href"])
    if isinstance(plain.get("alternate"), Mapping):
        plain["alternate"] = {name: _unsigned(other) for name, other in plain["alternate"].items()}
    return plain


def claim(store: Store, parameters: Mapping[str, Any]) -> None:
    """Say with which parameters an archive is made, or find that it is made with them already.

    Raises
    ------
    ValueError
        If it was made with others: rows of two kinds would be mixed. Names them.
    """
    different = store.claim(JOB, parameters)
    if different:
        raise ValueError(
            f"the archive {store.path()!r} was built with {told(different)}; rows of two kinds must not mix: "
            "pass the same parameters, or another path"
        )


def parameters_of(store: Store) -> dict[str, Any] | None:
    """The parameters that an archive is made with; None where nobody said."""
    try:
        return dict(json.loads(store.read(JOB)))
    except FileNotFoundError:
        return None


@dataclass
class RunRecords:
    """The records of one run, on their way into segments."""

    store: Store
    name: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}")
    _records: list[Record] = field(default_factory=list)
    _segments: int = 0
    _wait: float = FIRST_WAIT
    _last: float = field(default_factory=time.monotonic)

    def add(self, record: Record) -> None:
        """Keep a record, and write what is kept where it is time."""
        self._records.append(record)
        if len(self._records) >= SEGMENT_RECORDS or time.monotonic() - self._last >= self._wait:
            self.flush()
            self._wait = min(2 * self._wait, LONGEST_WAIT)

    def flush(self) -> None:
        """Write a segment of what is kept, if anything is."""
        self._last = time.monotonic()
        if not self._records:
            return
        lines = "".join(record.to_json() + "\n" for record in self._records)
        self.store.write(f"{LEDGER}/{self.name}/{self._segments:06d}.jsonl", lines.encode())
        self._records.clear()
        self._segments += 1


def segments(store: Store) -> list[str]:
    """Names of all segments."""
    return [entry.name for entry in store.entries(LEDGER) if entry.name.endswith(".jsonl")]


SEGMENTS_AT_ONCE = 64


def records(store: Store, names: Iterable[str]) -> Iterator[Record]:
    """The records of segments, one after another."""
    names = list(names)
    for first in range(0, len(names), SEGMENTS_AT_ONCE):
        for content in store.read_all(names[first : first + SEGMENTS_AT_ONCE]):
            yield from map(Record.from_json, content.splitlines())


def latest(found: Iterable[Record]) -> dict[str, Record]:
    """The record that holds for each part, by its name.

    The later one holds; but a failure is forgotten where the same item, unchanged, is done: another run at the same time may have
    succeeded.
    """
    held: dict[str, Record] = {}
    for record in found:
        other = held.get(record.key)
        held[record.key] = record if other is None else _later(other, record)
    return held


def _later(one: Record, other: Record) -> Record:
    if one.fingerprint == other.fingerprint and one.status != other.status and "done" in (one.status, other.status):
        return one if one.status == "done" else other
    return other if other.time >= one.time else one
