"""The rows of many index files one after the other, in one form: what a merged index is made of."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.indexing.files.geoparquet import TYPES, bbox_column, wkb_types
from xchip.indexing.opening import schema as form
from xchip.indexing.opening.scan import BATCH_ROWS, Piece
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = 1 << 22
"""Files of at most so many bytes are fetched whole, `AHEAD` at a time: most parts of an archive are."""
AHEAD = 16


@dataclass(frozen=True, slots=True)
class FileRows:
    """Some rows of a file."""

    path: str
    table: pa.Table
    """The index's columns, extra ones by name, and ``bbox``."""
    facts: dict[str, Any]
    """The file's ``xchip`` metadata; nothing where another program wrote it."""


def read_files(files: Sequence[Piece], storage: StorageOptions, *, chip_size: int) -> Iterator[tuple[int, FileRows]]:
    """(number of the file, some of its rows), file by file; of a file without rows an empty table.

    Raises
    ------
    ValueError
        For a file that is no index.
    """
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="xchip-merge") as pool:
        coming: deque[Future[bytes] | None] = deque()
        try:
            for number, file in enumerate(files):
                for ahead in files[number + len(coming) : number + AHEAD]:
                    small = ahead.size is not None and ahead.size <= SMALL
                    coming.append(pool.submit(_fetch, ahead.path, storage) if small else None)
                fetched = coming.popleft()
                with closing(_open(file.path, storage) if fetched is None else io.BytesIO(fetched.result())) as content:
                    for rows in _read(file.path, content, chip_size):
                        yield number, rows
        finally:
            for future in filter(None, coming):
                future.cancel()


def _fetch(path: str, storage: StorageOptions) -> bytes:
    fs, inner = storage.filesystem(path)
    return bytes(fs.cat_file(inner))


def _open(path: str, storage: StorageOptions) -> Any:
    fs, inner = storage.filesystem(path)
    return fs.open(inner, "rb")


def _read(path: str, content: Any, chip_size: int) -> Iterator[FileRows]:
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
            raise ValueError(f"{path!r} is no index: some of its geometries are no polygons")
        bounds = _bounds(rows["geometry"]) if boxes is None else np.stack([_values(table, side) for side in boxes])
        yield FileRows(path, rows.append_column("bbox", bbox_column(bounds)), facts)


def _values(table: pa.Table, path: Sequence[str]) -> np.ndarray:
    """A number in each row, of a column or a field of one: float64 (rows,)."""
    import pyarrow.compute as pc

    return reduce(pc.struct_field, path[1:], table[path[0]]).cast("double").to_numpy()


def _bounds(geometry: pa.ChunkedArray) -> np.ndarray:
    """(4, rows) bounds; NaN for an empty or missing geometry."""
    import shapely

    return shapely.bounds(shapely.from_wkb(geometry.to_numpy())).reshape(-1, 4).T
