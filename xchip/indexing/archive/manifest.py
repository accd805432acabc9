"""The manifest: a table with one row per part, so that readers need not list or open the parts."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from xchip.indexing.archive.layout import INDEX, LEDGER, MANIFEST, PART
from xchip.indexing.archive.ledger import JOB, Part, Record, latest, now, records, segments
from xchip.io.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FAILURES = f"{LEDGER}/failures.json"
"""File with the failures up to the last manifest, so that the segments before it need not be read again."""
READERS = 16
"""Footers read at once."""


@dataclass(frozen=True)
class State:
    """Contents of an archive by its manifest and ledger."""

    parts: pa.Table
    """One row per part, with the columns of `schema`."""
    failed: dict[str, Record]
    """By part name: the items whose last attempt failed and whose current form has no part."""
    covered: tuple[str, ...]
    """The segments of the ledger that the state includes."""
    stale: bool
    """Whether the ledger has records that the manifest lacks."""


def schema() -> pa.Schema:
    """Return the columns of the manifest.

    Paths and hrefs are relative to the archive's root. Bounds are those of the footprints, in degrees.
    """
    import pyarrow as pa

    texts = ("path", "collection", "item_id", "item_href", "sensor")
    return pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("datetime", pa.timestamp("us", tz="UTC")),
            *((side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")),
            ("rows", pa.int64()),
            ("size", pa.int64()),
            ("fingerprint", pa.string()),
            ("indexed", pa.timestamp("ms", tz="UTC")),
        ]
    )


def parts_of(store: Store, state: State | None = None) -> pa.Table:
    """Return one row per part of an archive: the manifest with the newer records of the ledger.

    Without a manifest and a ledger, read the footers of the parts. ``state`` is `state_of` the archive, if it has been read.

    Raises
    ------
    FileNotFoundError
        If the store holds no archive.
    """
    state = state_of(store) if state is None else state
    if state.parts.num_rows or state.covered:
        return state.parts
    try:
        return walk(store)
    except FileNotFoundError:
        if store.exists(JOB):  # a first run has started and has finished no item yet
            return state.parts
        raise


def state_of(store: Store) -> State:
    """Read the manifest, the failures and the segments that are newer."""
    manifest, in_manifest = _read_manifest(store)
    failures, in_failures = _read_failures(store)
    covered = in_manifest & in_failures
    names = segments(store)
    new = [name for name in names if name not in covered]
    valid = latest(chain(failures, records(store, new)))
    done = [record for record in valid.values() if record.status == "done"]
    failed = {key: record for key, record in valid.items() if record.status == "failed"}
    return State(_with_records(manifest, done), _outstanding(failed, manifest), tuple(names), bool(new))


def write_manifest(store: Store, state: State | None = None) -> State:
    """Update the manifest and the failures from the ledger."""
    state = state_of(store) if state is None else state
    covered = list(state.covered)
    lines = [record.to_json() for record in state.failed.values()]
    store.write(FAILURES, json.dumps({"covered": covered, "failed": lines}).encode())
    store.write(MANIFEST, _parquet(state.parts, covered))
    return state


def rebuild_manifest(store: Store) -> State:
    """Write a new manifest from the parts alone."""
    state = state_of(store)
    parts = walk(store)
    return write_manifest(store, State(parts, _outstanding(state.failed, parts), state.covered, False))


def walk(store: Store) -> pa.Table:
    """Return one row per part, read from the footers of an archive's parts."""
    import pyarrow as pa

    entries = [entry for entry in store.entries(INDEX) if entry.name.endswith(f"/{PART}")]
    if not entries:
        raise FileNotFoundError(
            f"{store.path()!r} holds no archive: it contains no {MANIFEST}, no {LEDGER}/ and no {INDEX}/*/*/{PART}"
        )
    with ThreadPoolExecutor(READERS) as pool:
        parts = pool.map(lambda entry: record_of_part(store, entry.name)[0], entries)
        return pa.Table.from_pylist([_row(record) for record in parts], schema())


def record_of_part(store: Store, name: str) -> tuple[Record, str | None]:
    """Read a part's record and the hash of its parameters from its footer.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        If the file is missing or not a part.
    """
    import pyarrow.parquet as pq

    with store.open(name) as file:
        size = file.seek(0, io.SEEK_END)
        footer = pq.ParquetFile(file).metadata
    facts = footer.metadata or {}
    if b"geo" not in facts:
        raise ValueError(f"{store.path(name)!r} is not a part of an index: it has no GeoParquet metadata")
    metadata = json.loads(facts.get(b"xchip", b"{}"))
    shared = _constants(footer, ("collection", "item_id", "item_href", "sensor", "datetime")) | metadata.get("item", {})
    bounds = json.loads(facts[b"geo"])["columns"]["geometry"].get("bbox")
    part = Part(
        path=name,
        item_href=shared.get("item_href"),
        sensor=shared.get("sensor"),
        datetime=shared["datetime"].isoformat() if "datetime" in shared else None,
        bounds=None if bounds is None else tuple(bounds),
        rows=footer.num_rows,
        size=size,
    )
    identity = shared.get("collection"), shared.get("item_id", "")
    return Record("done", *identity, metadata.get("fingerprint", ""), now(), 0, part=part), metadata.get("job")


def _constants(footer: pq.FileMetaData, names: Sequence[str]) -> dict[str, Any]:
    """Return the values of columns that have one value in all rows, by the statistics of the first row group."""
    values: dict[str, Any] = {}
    for position in range(footer.num_columns if footer.num_row_groups else 0):
        column = footer.row_group(0).column(position)
        if column.path_in_schema in names and column.statistics is not None and column.statistics.has_min_max:
            values[column.path_in_schema] = column.statistics.min
    return values


def _with_records(manifest: pa.Table, done: Sequence[Record]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not done:
        return manifest
    new = pa.Table.from_pylist([_row(record) for record in done], schema())
    kept = manifest.filter(pc.invert(pc.is_in(manifest["path"], new["path"].combine_chunks())))
    return pa.concat_tables([kept, new]).sort_by("path")


def _row(record: Record) -> dict[str, object]:
    part = record.part
    assert part is not None, "a finished item has a part"
    west, south, east, north = part.bounds or (None,) * 4
    return {
        "path": part.path,
        "collection": record.collection,
        "item_id": record.item_id,
        "item_href": part.item_href,
        "sensor": part.sensor,
        "datetime": None if part.datetime is None else datetime.fromisoformat(part.datetime),
        "xmin": west,
        "ymin": south,
        "xmax": east,
        "ymax": north,
        "rows": part.rows,
        "size": part.size,
        "fingerprint": record.fingerprint,
        "indexed": datetime.fromisoformat(record.time).astimezone(UTC),
    }


def _outstanding(failed: Mapping[str, Record], manifest: pa.Table) -> dict[str, Record]:
    """Return the failures of items whose current form is not in the manifest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not failed:
        return {}
    rows = manifest.filter(pc.is_in(manifest["path"], pa.array(list(failed), pa.string())))
    done = dict(zip(rows["path"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))
    return {key: record for key, record in failed.items() if done.get(key) != record.fingerprint}


def _parquet(table: pa.Table, covered: Sequence[str]) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    facts = {b"xchip": json.dumps({"covered": list(covered)}).encode()}
    pq.write_table(table.replace_schema_metadata(facts), buffer, compression="zstd", row_group_size=100_000)
    return buffer.getvalue()


def _read_manifest(store: Store) -> tuple[pa.Table, frozenset[str]]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(store.read(MANIFEST)))
    except FileNotFoundError:
        return schema().empty_table(), frozenset()
    covered = json.loads((table.schema.metadata or {})[b"xchip"])["covered"]
    return table.replace_schema_metadata(None).cast(schema()), frozenset(covered)


def _read_failures(store: Store) -> tuple[list[Record], frozenset[str]]:
    try:
        content = json.loads(store.read(FAILURES))
    except FileNotFoundError:
        return [], frozenset()
    return [Record.from_json(line) for line in content["failed"]], frozenset(content["covered"])
