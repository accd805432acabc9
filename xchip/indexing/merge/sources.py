"""Read the rows of index files, one file after another, in the columns and types of an index."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from xchip.core.types import JSON
from xchip.indexing.files.geoparquet import TYPES, bbox_column, wkb_types
from xchip.indexing.opening import schema as form
from xchip.indexing.opening.scan import BATCH_ROWS, Piece
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = 1 << 22
"""Files of up to this number of bytes are fetched as a whole: most parts of an archive are that small."""
AHEAD = 16
"""Small files fetched at once."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """Some rows of a file."""

    path: str
    table: pa.Table
    """The index's columns, then extra columns by name, then ``bbox``."""
    facts: JSON
    """The file's ``xchip`` metadata; empty if another program wrote the file."""


def read_files(files: Sequence[Piece], storage: StorageOptions, *, chip_size: int) -> Iterator[tuple[int, FileRows]]:
    """Yield (number of the file, some of its rows), file by file. A file without rows yields one empty table.

    Raises
    ------
    ValueError
        If a file is not an index.
    """
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="xchip-merge") as pool:
        fetches: deque[Future[bytes] | None] = deque()
        try:
            for number, file in enumerate(files):
                for ahead in files[number + len(fetches) : number + AHEAD]:
                    small = ahead.size is not None and ahead.size <= SMALL
                    fetches.append(pool.submit(_fetch, ahead.path, storage) if small else None)
                fetched = fetches.popleft()
                with closing(storage.open_file(file.path) if fetched is None else io.BytesIO(fetched.result())) as content:
                    for rows in _read(file.path, content, chip_size):
                        yield number, rows
        finally:
            for future in filter(None, fetches):
                future.cancel()


def _fetch(path: str, storage: StorageOptions) -> bytes:
    fs, inner = storage.filesystem(path)
    return bytes(fs.cat_file(inner))


def _read(path: str, content: BinaryIO, chip_size: int) -> Iterator[FileRows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(content)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path!r} can't be read as Parquet: {error}") from error
    schema = parquet.schema_arrow
    form.check(schema, path)
    facts = json.loads((schema.metadata or {}).get(b"xchip", b"{}"))
    boxes = form.covering(schema)
    names = dict.fromkeys([*form.read_columns(schema), *(side[0] for side in boxes or ())])
    extra = sorted(form.extra_columns(schema), key=lambda field: field.name)
    wanted = pa.schema([*form.arrow_schema(), *extra])
    plain = pa.schema([schema.field(name) for name in names])
    batches = (
        parquet.iter_batches(BATCH_ROWS, columns=list(names)) if parquet.metadata.num_rows else plain.empty_table().to_batches()
    )
    for batch in batches:
        table = pa.Table.from_batches([batch])
        rows = form.in_form(table, path, wanted, chip_size)
        if not np.isin(wkb_types(rows["geometry"]), list(TYPES)).all():
            raise ValueError(f"{path!r} is not an index: some of its geometries are not polygons")
        bounds = _bounds(rows["geometry"]) if boxes is None else np.stack([_values(table, side) for side in boxes])
        yield FileRows(path, rows.append_column("bbox", bbox_column(bounds)), facts)


def _values(table: pa.Table, path: Sequence[str]) -> np.ndarray:
    """Return the values of a column, or of a field of a struct column: float64 (rows,)."""
    import pyarrow.compute as pc

    return reduce(pc.struct_field, path[1:], table[path[0]]).cast("double").to_numpy()


def _bounds(geometry: pa.ChunkedArray) -> np.ndarray:
    """Return the bounds (4, rows); NaN for an empty or missing geometry."""
    import shapely

    return shapely.bounds(shapely.from_wkb(geometry.to_numpy())).reshape(-1, 4).T
