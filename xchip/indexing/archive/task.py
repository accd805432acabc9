"""The task of one item: index it, write its JSON and its part, and return its record."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from xchip.core.types import JSON
from xchip.indexing.archive.layout import item_name, part_name
from xchip.indexing.archive.ledger import FINGERPRINT, ItemDict, Part, Record, fingerprint_of, now, unsigned_item
from xchip.indexing.archive.manifest import record_of_part
from xchip.indexing.files.write import bounds_of, index_bytes
from xchip.indexing.from_items import IndexSpec, index_part, understand_for_index
from xchip.indexing.rows import IndexRows
from xchip.io.retry import Event, GivenUp, Outcome, attempts_in, insistently, retrying
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.raster.header import header_reader, signed_scene
from xchip.stac.scene.understand import collection_of


class ArchiveError(OSError):
    """The archive can't be written, so the whole run ends: no other item can succeed either."""


class Prepare(Protocol):
    """Copies an item's files into the archive before the item is indexed. Must be picklable, because workers call it."""

    def __call__(self, item: ItemDict, store: Store, attempts: int) -> Outcome[ItemDict]:
        """Return the item to index and store, with the errors on the way. Files that the archive holds are not copied again.

        Raises `GivenUp` if all attempts failed, and `ArchiveError` if the archive can't be written.
        """


@dataclass(frozen=True, slots=True)
class Job:
    """Parameters of all tasks of a run. Must be picklable, because workers use it."""

    spec: IndexSpec
    store: Store
    pixels: StorageOptions
    attempts: int
    parameters: str
    """Hash of the parameters that the rows depend on; each part stores it."""
    prepare: Prepare | None = None
    """Called with each item first."""


def index_one(item: ItemDict, href: str | None, fingerprint: str, unrecorded: bool, job: Job) -> Record:
    """Index one item into the archive: write its JSON, then its part. Errors of the item are recorded, not raised.

    Parameters
    ----------
    item, href
        The item and the href of its JSON, as `plain_items` yields them.
    fingerprint
        `fingerprint_of` the item.
    unrecorded
        Whether the archive has a part of this item without a record. The part is kept if its fingerprint matches.
    job
        Parameters of all tasks.

    Raises
    ------
    ArchiveError
        If the archive can't be written.
    """
    key = identity_of(item)
    if unrecorded:
        part = matching_part(job.store, *key, fingerprint, job.parameters)
        if part is not None:
            return Record("done", *key, fingerprint, now(), 0, part=part)
    before: tuple[Event, ...] = ()
    try:
        if job.prepare is not None:
            item, before = job.prepare(item, job.store, job.attempts)
        pixels = _pixels_of(item, job)
        rows, tries = retrying(lambda signing: rows_of_item(item, href, job.spec, signing), pixels, attempts=job.attempts)
    except GivenUp as failure:
        history = tuple(event.to_dict() for event in (*before, *failure.history))
        last = failure.history[-1]
        return Record("failed", *key, fingerprint, now(), attempts_in(failure.history), history, last.error, last.message)
    history = tuple(event.to_dict() for event in (*before, *tries))
    part = _store(item, rows, fingerprint, job)
    return Record("done", *key, fingerprint, now(), attempts_in(tries) + 1, history, part=part)


def _pixels_of(item: JSON, job: Job) -> StorageOptions:
    """Return the storage options of the item's files: those of the archive if it holds all of the files."""
    if job.prepare is None:
        return job.pixels
    root = job.store.path() + "/"
    hrefs = (asset.get("href") for asset in item["assets"].values())
    return job.store.storage if all(isinstance(href, str) and href.startswith(root) for href in hrefs) else job.pixels


def identity_of(item: ItemDict) -> tuple[str | None, str]:
    """Return (id of the collection, id of the item), also for an invalid item."""
    return collection_of(item), str(item.get("id"))


def matching_part(store: Store, collection: str | None, item_id: str, fingerprint: str, parameters: str) -> Part | None:
    """Return the archive's part of an item; None if it is missing, unreadable, or does not match fingerprint and parameters."""
    try:
        record, built_with = record_of_part(store, part_name(collection, item_id))
    except (OSError, ValueError):  # pyarrow raises ValueError if a file is not Parquet
        return None
    return record.part if (record.fingerprint, built_with) == (fingerprint, parameters) else None


def rows_of_item(item: ItemDict, href: str | None, spec: IndexSpec, pixels: StorageOptions) -> IndexRows:
    """Index an item; its hrefs are signed now."""
    with pixels.gdal():
        scene = understand_for_index(item, href, spec, header=header_reader(pixels))
        scene = replace(signed_scene(scene, pixels), href=item_name(scene.collection, scene.item_id))
        return index_part(scene, spec)


def _store(item: ItemDict, rows: IndexRows, fingerprint: str, job: Job) -> Part:
    """Write an item, then its part, so that every part has an item."""
    collection, item_id = identity_of(item)
    item_href = item_name(collection, item_id)
    identity = {"collection": collection, "item_id": item_id, "item_href": item_href}
    content = index_bytes([rows], more={"fingerprint": fingerprint, "job": job.parameters, "item": identity})
    stored = _portable(unsigned_item(item), job.store.path(item_href))
    stored.pop(FINGERPRINT, None)  # of another archive
    if fingerprint_of(stored) != fingerprint:
        stored[FINGERPRINT] = fingerprint
    text = json.dumps(stored, separators=(",", ":"), default=str)
    name = part_name(collection, item_id)
    try:
        insistently(lambda: job.store.write(item_href, text.encode()))
        insistently(lambda: job.store.write(name, content))
    except OSError as error:
        raise ArchiveError(f"can't write item {item_id!r} into the archive {job.store.path()!r}: {error}") from error
    # All rows of an item have the same sensor and datetime.
    sensor, moment = (rows.columns[column][0].as_py() if len(rows) else None for column in ("sensor", "datetime"))
    return Part(
        path=name,
        item_href=item_href,
        sensor=sensor,
        datetime=None if moment is None else moment.isoformat(),
        bounds=bounds_of(rows),
        rows=len(rows),
        size=len(content),
    )


def _portable(item: ItemDict, href: str) -> ItemDict:
    """Make the hrefs of files beside the item's JSON relative, so that the archive can be copied elsewhere."""
    folder = posixpath.dirname(href) + "/"

    def portable(asset: object) -> object:
        target = asset.get("href") if isinstance(asset, Mapping) else None
        if not isinstance(asset, Mapping) or not isinstance(target, str) or not target.startswith(folder):
            return asset
        return {**asset, "href": f"./{target[len(folder) :]}"}

    return {**item, "assets": {key: portable(asset) for key, asset in item["assets"].items()}}
