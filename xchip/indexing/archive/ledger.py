"""The ledger of an archive: one record per finished or failed item, with the item's fingerprint or the error.

A run writes its records as segments: files of JSON lines that appear complete and never change, so that several runs can write
at the same time. After a crash, parts without a record are recovered, because a part names its item and its parameters.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from xchip.core.types import JSON
from xchip.indexing.archive.layout import LEDGER, part_name
from xchip.io.signing import unsigned_href
from xchip.io.store import Store, told

ItemDict: TypeAlias = dict[str, Any]
"""A STAC item as plain JSON."""

JOB = f"{LEDGER}/job.json"
"""File with the parameters that all parts of the archive are built with."""
FINGERPRINT = "xchip:fingerprint"
"""Member of an item that the archive stores in a changed form, for example with the hrefs of files copied into the archive: the
fingerprint of the original item."""
SEGMENT_RECORDS = 1000
"""Maximum number of records in a segment."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two segments. The wait starts short, so that a short run is recorded too, and doubles to keep segments few."""
SEGMENTS_AT_ONCE = 64
"""Segments read at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part, the index of one item, as the manifest lists it."""

    path: str
    """Path relative to the archive's root."""
    item_href: str
    """Path of the item's JSON, relative to the archive's root."""
    sensor: str | None
    datetime: str | None
    """ISO 8601, UTC."""
    bounds: tuple[float, float, float, float] | None
    """(west, south, east, north) of the footprints in degrees; None if the part has no rows."""
    rows: int
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """Result for an item, or for an entry of a file of items that could not be read."""

    status: Literal["done", "failed", "read"]
    """"read": an entry that failed before can be read now. Its items have their own records."""
    collection: str | None
    item_id: str
    fingerprint: str
    """`fingerprint_of` the item."""
    time: str
    """Time of the record: ISO 8601, UTC."""
    attempts: int
    """Number of attempts in this run."""
    history: tuple[dict[str, object], ...] = ()
    """Errors before the result, in order: attempt, kind ("transient", "denied", "permanent"), error, message."""
    error: str | None = None
    """Class of the exception; None if the item is done."""
    message: str | None = None
    part: Part | None = None
    """None if the item failed."""
    source: str | None = None
    """The file or URL of an entry that could not be read; ``item_id`` then names the entry. None for an item."""

    @property
    def key(self) -> str:
        """Name of the item's part, which is unique in the archive."""
        return part_name(self.collection, self.item_id)

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Record:
        """Read a record from a line of JSON."""
        values = json.loads(line)
        part = values.pop("part")
        if part is not None:
            part = Part(**part | {"bounds": None if part["bounds"] is None else tuple(part["bounds"])})
        return cls(**values | {"history": tuple(values["history"]), "part": part})


def now() -> str:
    """Return the current time in the format of records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def fingerprint_of(item: JSON) -> str:
    """Return a hash of an item without its links and the signatures of its hrefs: 32 hexadecimal digits.

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


def fingerprint_in_archive(item: JSON) -> str:
    """Return the fingerprint of the original of an item that is stored in an archive."""
    origin = item.get(FINGERPRINT)
    return origin if isinstance(origin, str) else fingerprint_of(item)


def unsigned_item(item: JSON) -> ItemDict:
    """Return a copy of an item without signatures in its hrefs and alternate hrefs: signatures are secret and expire."""
    return {**item, "assets": {key: _unsigned(asset) for key, asset in item["assets"].items()}}


def _unsigned(asset: object) -> object:
    if not isinstance(asset, Mapping):
        return asset
    plain = dict(asset)
    if isinstance(plain.get("href"), str):
        plain["href"] = unsigned_href(plain["href"])
    if isinstance(plain.get("alternate"), Mapping):
        plain["alternate"] = {name: _unsigned(alternate) for name, alternate in plain["alternate"].items()}
    return plain


def claim(store: Store, parameters: JSON) -> None:
    """Record the parameters of an archive, or check that they equal the recorded ones.

    Raises
    ------
    ValueError
        If the archive was built with other parameters, because its rows would be of two kinds. The message names them.
    """
    different = store.claim(JOB, parameters)
    if different:
        raise ValueError(
            f"the archive {store.path()!r} was built with {told(different)}; one archive must not mix incompatible rows: "
            "pass the same parameters, or another path"
        )


def parameters_of(store: Store) -> dict[str, Any] | None:
    """Return the parameters that an archive was built with; None if they are not recorded."""
    try:
        return dict(json.loads(store.read(JOB)))
    except FileNotFoundError:
        return None


@dataclass
class RunRecords:
    """Collects the records of one run and writes them as segments."""

    store: Store
    name: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}")
    _records: list[Record] = field(default_factory=list)
    _segments: int = 0
    _wait: float = FIRST_WAIT
    _last: float = field(default_factory=time.monotonic)

    def add(self, record: Record) -> None:
        """Add a record; write a segment when it is full or due."""
        self._records.append(record)
        if len(self._records) >= SEGMENT_RECORDS or time.monotonic() - self._last >= self._wait:
            self.flush()
            self._wait = min(2 * self._wait, LONGEST_WAIT)

    def flush(self) -> None:
        """Write the collected records, if any, as a segment."""
        self._last = time.monotonic()
        if not self._records:
            return
        lines = "".join(record.to_json() + "\n" for record in self._records)
        self.store.write(f"{LEDGER}/{self.name}/{self._segments:06d}.jsonl", lines.encode())
        self._records.clear()
        self._segments += 1


def segments(store: Store) -> list[str]:
    """Return the names of all segments."""
    return [entry.name for entry in store.entries(LEDGER) if entry.name.endswith(".jsonl")]


def records(store: Store, names: Sequence[str]) -> Iterator[Record]:
    """Read the records of segments in order."""
    for first in range(0, len(names), SEGMENTS_AT_ONCE):
        for content in store.read_all(names[first : first + SEGMENTS_AT_ONCE]):
            yield from map(Record.from_json, content.splitlines())


def latest(entries: Iterable[Record]) -> dict[str, Record]:
    """Return the valid record of each part, by the part's name.

    The latest record is valid. However, "done" overrides "failed" for the same, unchanged item, because runs at the same time can
    differ in their results.
    """
    valid: dict[str, Record] = {}
    for record in entries:
        before = valid.get(record.key)
        valid[record.key] = record if before is None else _latest(before, record)
    return valid


def _latest(first: Record, second: Record) -> Record:
    if first.fingerprint == second.fingerprint and first.status != second.status and "done" in (first.status, second.status):
        return first if first.status == "done" else second
    return second if second.time >= first.time else first
