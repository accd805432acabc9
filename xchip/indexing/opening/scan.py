"""Rows out of index files: of each file only the row groups that a query needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xchip.indexing.opening import schema as form
from xchip.indexing.opening.query import Bounds, Query
from xchip.io.store import reached

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

READERS = 8
"""Files read at once."""
WHOLE_FILE = 1 << 20
"""Bytes of a remote file up to which it is fetched in one request: several of them would take longer."""
BATCH_ROWS, BATCHES_AHEAD = 32_768, 4
"""How much of a file is in memory before its rows are chosen."""
WORLD = (-180.0, -90.0, 180.0, 90.0)


class Piece(NamedTuple):
    """A file of an index, or some of its row groups."""

    path: str
    """Full path or URL."""
    size: int | None = None
    """Bytes of the file, where known."""
    groups: Sequence[int] | None = None
    """None: those that the query needs, as the file's footer tells."""


class Surveyed(NamedTuple):
    """Some row groups of a file that may hold rows of the answer."""

    piece: Piece
    rows: int
    bounds: Bounds
    """Of its footprints; NaN without any."""


class Rows(NamedTuple):
    """Rows of an answer."""

    table: pa.Table
    options: frozenset[str | None]
    """The grid options of the files that they come from."""


@dataclass(frozen=True, slots=True)
class IndexFile:
    """An open file of an index."""

    path: str
    fragment: Any
    """A Parquet fragment of pyarrow.dataset."""

    @property
    def schema(self) -> pa.Schema:
        """Columns as the file has them."""
        return self.fragment.physical_schema

    @property
    def bounds(self) -> Bounds:
        """What its metadata say of all its footprints."""
        bbox = form.geometry_facts(self.schema).get("bbox", WORLD)
        west, south, east, north = bbox if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])  # of three dimensions
        return (west, south, east, north) if west <= east else (-180.0, south, 180.0, north)

    def touching(self, query: Query) -> pc.Expression | None:
        """The condition that a row's bounds touch the box; None if there is no box, or no column that tells."""
        import pyarrow.compute as pc

        columns = form.covering(self.schema)
        return None if columns is None else query.touches(*(pc.field(*path) for path in columns))

    def needed(self, query: Query) -> Any:
        """Its fragment with only the row groups that may hold rows of the answer, by their statistics."""
        if not query.near(np.array([self.bounds]))[0]:
            return self.fragment.subset(row_group_ids=[])
        fragment = self.fragment
        for condition in (self.touching(query), query.statistics_condition if self.compares_alike(query) else None):
            if condition is not None:
                fragment = fragment.subset(condition, schema=self.schema)
        return fragment

    def compares_alike(self, query: Query) -> bool:
        """Whether a condition means the same on the file's columns as on those of the answer."""
        own = {field.name: form.plain_type(field.type) for field in self.schema}
        wanted = [field for field in query.schema if field.name != "geometry"]
        return all(own.get(field.name) == field.type for field in wanted)


def open_file(piece: Piece, query: Query, *, whole: bool = False) -> IndexFile:
    """Open a file of an index; ``whole``: fetch it in one request, if it is small.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it can't be reached; it names the file.
    ValueError
        If it is no Parquet file, or no index.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    with reached(f"read {piece.path!r}", passed=(FileNotFoundError,)):
        source, filesystem = _source(piece, query, whole=whole)
        try:
            fragment = ds.ParquetFileFormat().make_fragment(source, filesystem)
            schema = fragment.physical_schema
        except pa.ArrowInvalid as error:
            raise ValueError(f"{piece.path!r} can't be read as Parquet: {error}") from error
    form.check(schema, piece.path)
    return IndexFile(piece.path, fragment)


def _source(piece: Piece, query: Query, *, whole: bool) -> tuple[Any, Any]:
    """What pyarrow opens: a local path and its file system, or a file object."""
    import pyarrow as pa
    import pyarrow.fs
    from fsspec.implementations.local import LocalFileSystem

    fs, path = query.storage.filesystem(piece.path)
    if isinstance(fs, LocalFileSystem):
        return path, pyarrow.fs.LocalFileSystem()
    if whole and piece.size is not None and piece.size <= WHOLE_FILE:
        return pa.BufferReader(fs.cat_file(path)), None
    # pyarrow asks for neighbouring ranges at once, and knows where they end: a cache would read on.
    known = {} if piece.size is None else {"size": piece.size}
    return pa.PythonFile(fs.open(path, "rb", cache_type="none", **known), mode="r"), None


def survey(piece: Piece, query: Query, rows: int) -> tuple[list[Surveyed], pa.Schema, frozenset[str | None]]:
    """What of a file may hold rows of the answer, by about ``rows`` rows; its extra columns; its grid options."""
    file = open_file(piece, query)
    groups = [(group.id, group.num_rows) for group in file.needed(query).row_groups if group.num_rows]
    bounds = _bounds_of_groups(file, [number for number, _ in groups])
    found: list[Surveyed] = []
    start = held = 0
    for stop, (_, count) in enumerate(groups, 1):
        held += count
        if stop == len(groups) or held + groups[stop][1] > rows:
            numbers = [number for number, _ in groups[start:stop]]
            found.append(Surveyed(piece._replace(groups=numbers), held, union(bounds[start:stop])))
            start, held = stop, 0
    return found, form.extra_columns(file.schema), form.grid_options(file.schema)


def union(bounds: np.ndarray) -> Bounds:
    """The bounds of all of ``bounds``, float64 (n, 4); NaN where none is known."""
    west, south = np.fmin.reduce(bounds[:, :2]).tolist()
    east, north = np.fmax.reduce(bounds[:, 2:]).tolist()
    return west, south, east, north


def _bounds_of_groups(file: IndexFile, numbers: Sequence[int]) -> np.ndarray:
    """(west, south, east, north) of row groups, by their statistics: float64 (n, 4)."""
    bounds = np.tile(np.array(file.bounds, float), (len(numbers), 1))
    columns = form.covering(file.schema)
    if columns is None or not numbers:
        return bounds
    metadata = file.fragment.metadata
    position = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
    sides = [position[".".join(path)] for path in columns]
    for row, number in enumerate(numbers):
        group = metadata.row_group(number)
        found = [group.column(side).statistics for side in sides]
        if all(statistics is not None and statistics.has_min_max for statistics in found):
            bounds[row] = [*(side.min for side in found[:2]), *(side.max for side in found[2:])]
    return bounds


def read_pieces(pieces: Sequence[Piece], query: Query) -> Rows:
    """The rows of the answer that are in ``pieces``, in their order: large files one by one, many small ones at once."""
    import pyarrow as pa

    read = partial(read_piece, query=query)
    if len(pieces) < 2:
        return read(pieces[0]) if pieces else Rows(query.schema.empty_table(), frozenset())
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(read, pieces))
    tables = [rows.table for rows in found]
    return Rows(pa.concat_tables(tables, promote_options="permissive"), frozenset().union(*(rows.options for rows in found)))


def read_piece(piece: Piece, query: Query) -> Rows:
    """The rows of the answer that are in ``piece``."""
    import pyarrow as pa

    file = open_file(piece, query, whole=True)
    fragment = file.needed(query) if piece.groups is None else file.fragment.subset(row_group_ids=list(piece.groups))
    own = [field for field in form.extra_columns(file.schema) if field.name not in query.schema.names]
    schema = pa.schema([*query.schema, *own])
    if query.columns is not None:
        schema = pa.schema([schema.field(name) for name in query.columns])
    tables = [_chosen(batch, file, query, schema) for batch in _batches(file, fragment, query)]
    return Rows(pa.concat_tables(tables) if tables else schema.empty_table(), form.grid_options(file.schema))


def _batches(file: IndexFile, fragment: Any, query: Query) -> Iterator[pa.RecordBatch]:
    if not fragment.row_groups:
        return
    columns = form.read_columns(file.schema)
    if query.columns is not None and not form.is_stacchip(file.schema):
        columns = [name for name in columns if name in query.columns]
    ahead = {"batch_size": BATCH_ROWS, "batch_readahead": BATCHES_AHEAD}
    for batch in fragment.to_batches(columns=columns, filter=file.touching(query), **ahead):
        if batch.num_rows:
            yield batch


def _chosen(batch: pa.RecordBatch, file: IndexFile, query: Query, schema: pa.Schema) -> pa.Table:
    """Those of a file's rows that the query wants, in the columns of ``schema``."""
    import pyarrow as pa

    table = form.in_form(pa.Table.from_batches([batch]), file.path, schema, query.chip_size, query.items_root)
    if query.condition is not None:
        table = table.filter(query.condition)
    if query.boxes is not None:
        table = table.filter(query.intersects(table["geometry"].to_numpy()))
    return table
