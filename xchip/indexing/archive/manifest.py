"""The manifest: one row a part, so that nobody has to list or open the parts to know what an archive holds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
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

FAILURES = f"{LEDGER}/failures.json"
"""What had failed when the manifest was written, so that the segments before need not be read again."""
READERS = 16
"""Footers read at once."""


@dataclass(frozen=True)
class State:
    """What an archive holds."""

    parts: pa.Table
    """A row a part; columns of `schema`."""
    failed: dict[str, Record]
    """By part name: the items that failed last time, and have no part of their present form."""
    covered: tuple[str, ...]
    """The segments of the ledger that this is drawn from."""
    stale: bool
    """Whether the ledger held more than the manifest did."""


def schema() -> pa.Schema:
    """Columns of the manifest. Paths and hrefs are relative to the archive's root; bounds are of the footprints, in degrees."""
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


def parts_of(store: Store) -> pa.Table:
    """A row a part of an archive: its manifest, and what the ledger adds to that; or, without both, what the folder holds.

    Raises
    ------
    FileNotFoundError
        If there is no archive.
    """
    return parts_in(store, state_of(store))


def parts_in(store: Store, state: State) -> pa.Table:
    """`parts_of`, where manifest and ledger have been read already."""
    if state.parts.num_rows or state.covered:
        return state.parts
    try:
        return walk(store)
    except FileNotFoundError:
        if store.exists(JOB):  # a run has begun here, and nothing is done yet
            return state.parts
        raise


def state_of(store: Store) -> State:
    """Manifest, failures, and the segments that are newer than they."""
    manifest, in_manifest = _read_manifest(store)
    failures, in_failures = _read_failures(store)
    known = in_manifest & in_failures
    names = segments(store)
    new = [name for name in names if name not in known]
    held = latest(chain(failures, records(store, new)))
    done = [record for record in held.values() if record.status == "done"]
    failed = {key: record for key, record in held.items() if record.status == "failed"}
    return State(_with_records(manifest, done), _outstanding(failed, manifest), tuple(names), bool(new))


def write_manifest(store: Store, state: State | None = None) -> State:
    """Bring manifest and failures up to what the ledger says."""
    state = state_of(store) if state is None else state
    covered = list(state.covered)
    lines = [record.to_json() for record in state.failed.values()]
    store.write(FAILURES, json.dumps({"covered": covered, "failed": lines}).encode())
    store.write(MANIFEST, _parquet(state.parts, covered))
    return state


def rebuild_manifest(store: Store) -> State:
    """Write the manifest anew from the parts themselves, whatever manifest and ledger say."""
    state = state_of(store)
    parts = walk(store)
    return write_manifest(store, State(parts, _outstanding(state.failed, parts), state.covered, False))


def walk(store: Store) -> pa.Table:
    """What the footers of an archive's parts say."""
    import pyarrow as pa

    entries = [entry for entry in store.entries(INDEX) if entry.name.endswith(f"/{PART}")]
    if not entries:
        raise FileNotFoundError(
            f"{store.path()!r} holds no archive: there is no {MANIFEST}, no {LEDGER}/ and no {INDEX}/*/*/{PART}"
        )
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda entry: record_of_part(store, entry.name)[0], entries)
        return pa.Table.from_pylist([_row(record) for record in found], schema())


def record_of_part(store: Store, name: str) -> tuple[Record, str | None]:
    """What a part says of itself, and the hash of the parameters that it was made with.

    Raises
    ------
    FileNotFoundError, OSError, ValueError
        If it is absent, or no part.
    """
    import pyarrow.parquet as pq

    with store.open(name) as file:
        size = file.seek(0, io.SEEK_END)
        footer = pq.ParquetFile(file).metadata
    facts = footer.metadata or {}
    if b"geo" not in facts:
        raise ValueError(f"{store.path(name)!r} is no part of an index: it has no GeoParquet metadata")
    own = json.loads(facts.get(b"xchip", b"{}"))
    shared = _constants(footer, ("collection", "item_id", "item_href", "sensor", "datetime")) | own.get("item", {})
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
    record = Record("done", shared.get("collection"), shared.get("item_id", ""), own.get("fingerprint", ""), now(), 0, part=part)
    return record, own.get("job")


def _constants(footer: Any, names: Iterable[str]) -> dict[str, Any]:
    """Values of columns that are the same in all rows, by the statistics."""
    found: dict[str, Any] = {}
    wanted = set(names)
    for position in range(footer.num_columns if footer.num_row_groups else 0):
        column = footer.row_group(0).column(position)
        if column.path_in_schema in wanted and column.statistics is not None and column.statistics.has_min_max:
            found[column.path_in_schema] = column.statistics.min
    return found


def _with_records(manifest: pa.Table, done: Sequence[Record]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not done:
        return manifest
    new = pa.Table.from_pylist([_row(record) for record in done], schema())
    kept = manifest.filter(pc.invert(pc.is_in(manifest["path"], new["path"].combine_chunks())))
    return pa.concat_tables([kept, new]).sort_by("path")


def _row(record: Record) -> dict[str, Any]:
    part = record.part
    assert part is not None, "what is done has a part"
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
    """Failures of items that are not, as they are now, in the manifest."""
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
