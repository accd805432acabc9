"""What is left to do of an archive."""

from __future__ import annotations

import hashlib
from enum import Enum, auto

from xchip.indexing.archive.layout import INDEX, PART, part_name
from xchip.indexing.archive.ledger import Record
from xchip.indexing.archive.manifest import state_of, write_manifest
from xchip.io.store import Store


class Verdict(Enum):
    """What is to be done with an item."""

    TODO = auto()
    THERE = auto()
    """There is a part that nobody recorded: a run before this one ended between the two."""
    DONE = auto()
    FAILED = auto()
    """It failed before, as it is."""
    ANOTHER = auto()
    """An item of the same id, but of other content, was in this run already."""


class Known:
    """What an archive holds at the start of a run. Keeps some hundred bytes an item."""

    def __init__(self, store: Store) -> None:
        state = state_of(store)
        if state.stale:
            write_manifest(store, state)
        columns = (state.parts[name].to_pylist() for name in ("path", "fingerprint"))
        recorded = {_number(path): _fingerprint_number(value) for path, value in zip(*columns, strict=True)}
        there = (_number(entry.name) for entry in store.entries(INDEX) if entry.name.endswith(f"/{PART}"))
        self._done: dict[int, int] = {}
        self._unrecorded: set[int] = set()
        for number in there:
            if number in recorded:
                self._done[number] = recorded[number]
            else:
                self._unrecorded.add(number)
        self._failed = state.failed
        self._seen: dict[int, int] = {}

    def verdict(self, collection: str | None, item_id: str, fingerprint: str) -> Verdict:
        """What is to be done with an item; of equal ones, once."""
        name = part_name(collection, item_id)
        number, value = _number(name), _fingerprint_number(fingerprint)
        before = self._seen.setdefault(number, value)
        if before != value:
            return Verdict.ANOTHER
        if self._done.get(number) == value:
            return Verdict.DONE
        self._done[number] = value
        if name in self._failed and self._failed[name].fingerprint == fingerprint:
            return Verdict.FAILED
        return Verdict.THERE if number in self._unrecorded else Verdict.TODO

    def unread(self) -> dict[str, set[str]]:
        """What could not be read in earlier runs, by the file or URL that it was in."""
        found: dict[str, set[str]] = {}
        for record in self._failed.values():
            if record.source is not None:
                found.setdefault(record.source, set()).add(record.item_id)
        return found

    def failure(self, collection: str | None, item_id: str) -> Record:
        """Why an item failed before."""
        return self._failed[part_name(collection, item_id)]


def _number(name: str) -> int:
    """64 bits instead of a path: a million items fit into memory."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def _fingerprint_number(fingerprint: str) -> int:
    return int(fingerprint[:16] or "0", 16)  # a part of other software has none, and equals no item
