"""Decide which items of an archive are still pending."""

from __future__ import annotations

import hashlib
from enum import Enum, auto

from xchip.indexing.archive.layout import INDEX, PART, part_name
from xchip.indexing.archive.ledger import Record
from xchip.indexing.archive.manifest import state_of, write_manifest
from xchip.io.store import Store


class Verdict(Enum):
    """State of an item at the start of a run."""

    TODO = auto()
    UNRECORDED = auto()
    """A part exists without a record: an earlier run ended between writing the two."""
    DONE = auto()
    FAILED = auto()
    """The same item, unchanged, failed in an earlier run."""
    CONFLICT = auto()
    """This run has already seen an item of the same id with different content."""


class PendingItems:
    """What an archive holds at the start of a run. Uses some hundred bytes of memory per item."""

    def __init__(self, store: Store) -> None:
        state = state_of(store)
        if state.stale:
            write_manifest(store, state)
        columns = (state.parts[name].to_pylist() for name in ("path", "fingerprint"))
        recorded = {_number(path): _fingerprint_number(value) for path, value in zip(*columns, strict=True)}
        stored = {_number(entry.name) for entry in store.entries(INDEX) if entry.name.endswith(f"/{PART}")}
        self._done = {number: value for number, value in recorded.items() if number in stored}
        self._unrecorded = stored - recorded.keys()
        self._failed = state.failed
        self._seen: dict[int, int] = {}

    def verdict(self, collection: str | None, item_id: str, fingerprint: str) -> Verdict:
        """Return the state of an item. Of several equal items, only the first is pending; the rest are done."""
        name = part_name(collection, item_id)
        number, value = _number(name), _fingerprint_number(fingerprint)
        if self._seen.setdefault(number, value) != value:
            return Verdict.CONFLICT
        if self._done.get(number) == value:
            return Verdict.DONE
        self._done[number] = value
        if name in self._failed and self._failed[name].fingerprint == fingerprint:
            return Verdict.FAILED
        return Verdict.UNRECORDED if number in self._unrecorded else Verdict.TODO

    def unread(self) -> dict[str, set[str]]:
        """Return the entries that earlier runs could not read, by the file or URL that contains them."""
        unread: dict[str, set[str]] = {}
        for record in self._failed.values():
            if record.source is not None:
                unread.setdefault(record.source, set()).add(record.item_id)
        return unread

    def failure(self, collection: str | None, item_id: str) -> Record:
        """Return the record of an item that failed in an earlier run."""
        return self._failed[part_name(collection, item_id)]


def _number(name: str) -> int:
    """Hash a path to 64 bits, so that the paths of a million items fit into memory."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def _fingerprint_number(fingerprint: str) -> int:
    return int(fingerprint[:16] or "0", 16)  # a part written by other software has no fingerprint: 0 matches no item
