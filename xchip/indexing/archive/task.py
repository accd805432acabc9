"""The work of one item, wherever it runs: its grid, its quality, its part and its record."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from xchip.indexing.archive.layout import item_name, part_name
from xchip.indexing.archive.ledger import FINGERPRINT, Part, Record, fingerprint_of, now, unsigned_item
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
    """The archive itself can't be written: no item would fare better than the one that found out."""


class Prepare(Protocol):
    """Brings an item's files into the archive before it is indexed; it travels to the workers."""

    def __call__(self, item: dict[str, Any], store: Store, attempts: int) -> Outcome[dict[str, Any]]:
        """The item as it is to be indexed and kept, and what went wrong before; `GivenUp` if it can't be had.

        `ArchiveError` where the archive can't be written. What is there already is not done again.
        """


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of a run share; it travels to the workers."""

    spec: IndexSpec
    store: Store
    pixels: StorageOptions
    attempts: int
    parameters: str
    """Hash of the parameters that rows depend on; a part bears it."""
    prepare: Prepare | None = None
    """What is done with an item first."""


def index_one(item: dict[str, Any], href: str | None, fingerprint: str, may_be_there: bool, job: Job) -> Record:
    """Index one item into the archive: its JSON, then its part. Never raises for what is wrong with the item.

    Parameters
    ----------
    item, href
        As `plain_items` gives them.
    fingerprint
        `fingerprint_of` the item.
    may_be_there
        Whether the archive has a part of this item that the ledger does not know; it is kept if it is of this very item.
    job
        What all tasks share.

    Raises
    ------
    ArchiveError
        If the archive can't be written.
    """
    key = identity_of(item)
    if may_be_there:
        part = part_that_is_there(job.store, *key, fingerprint, job.parameters)
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


def _pixels_of(item: dict[str, Any], job: Job) -> StorageOptions:
    """How the item's files are reached: as the archive is, once they are all in it."""
    if job.prepare is None:
        return job.pixels
    root = job.store.path() + "/"
    hrefs = (asset.get("href") for asset in item["assets"].values())
    return job.store.storage if all(isinstance(href, str) and href.startswith(root) for href in hrefs) else job.pixels


def identity_of(item: dict[str, Any]) -> tuple[str | None, str]:
    """(id of the collection, id of the item), also of an item that nothing can be done with."""
    return collection_of(item), str(item.get("id"))


def part_that_is_there(store: Store, collection: str | None, item_id: str, fingerprint: str, parameters: str) -> Part | None:
    """The part of an item as it is in the archive; None if it is absent, unreadable, or of another form of the item."""
    try:
        record, made_with = record_of_part(store, part_name(collection, item_id))
    except (OSError, ValueError):  # pyarrow raises ValueErrors for what is no Parquet file
        return None
    return record.part if (record.fingerprint, made_with) == (fingerprint, parameters) else None


def rows_of_item(item: dict[str, Any], href: str | None, spec: IndexSpec, pixels: StorageOptions) -> IndexRows:
    """The item's rows, read with signatures of this moment."""
    with pixels.gdal():
        scene = understand_for_index(item, href, spec, header=header_reader(pixels))
        scene = replace(signed_scene(scene, pixels), href=item_name(scene.collection, scene.item_id))
        return index_part(scene, spec)


def _store(item: dict[str, Any], rows: IndexRows, fingerprint: str, job: Job) -> Part:
    """Write an item and its part; the item first, so that no part is without."""
    collection, item_id = identity_of(item)
    item_href = item_name(collection, item_id)
    shared = {"collection": collection, "item_id": item_id, "item_href": item_href}
    content = index_bytes([rows], more={"fingerprint": fingerprint, "job": job.parameters, "item": shared})
    kept = _portable(unsigned_item(item), job.store.path(item_href))
    kept.pop(FINGERPRINT, None)  # of another archive
    if fingerprint_of(kept) != fingerprint:
        kept[FINGERPRINT] = fingerprint
    plain = json.dumps(kept, separators=(",", ":"), default=str)
    name = part_name(collection, item_id)
    try:
        insistently(lambda: job.store.write(item_href, plain.encode()))
        insistently(lambda: job.store.write(name, content))
    except OSError as error:
        raise ArchiveError(f"can't write item {item_id!r} into the archive {job.store.path()!r}: {error}") from error
    return Part(
        path=name,
        item_href=item_href,
        sensor=_first(rows, "sensor"),
        datetime=None if (moment := _first(rows, "datetime")) is None else moment.isoformat(),
        bounds=bounds_of(rows),
        rows=len(rows),
        size=len(content),
    )


def _portable(item: dict[str, Any], href: str) -> dict[str, Any]:
    """The item with relative hrefs for files that lie beside its JSON, so that an archive may be copied elsewhere."""
    beside = posixpath.dirname(href) + "/"

    def portable(asset: Any) -> Any:
        own = asset.get("href") if isinstance(asset, Mapping) else None
        return {**asset, "href": f"./{own[len(beside) :]}"} if isinstance(own, str) and own.startswith(beside) else asset

    return {**item, "assets": {key: portable(asset) for key, asset in item["assets"].items()}}


def _first(rows: IndexRows, column: str) -> Any:
    """The value that all rows of an item share; None without rows."""
    return rows.columns[column][0].as_py() if len(rows) else None
