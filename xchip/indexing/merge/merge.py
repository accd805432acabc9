"""Merge indexes into one: sorted out of core along a Hilbert curve, and published atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from xchip.core.types import PathLike
from xchip.indexing.files.geoparquet import bbox_type, sides_of
from xchip.indexing.merge.deduplicate import FILE, POSITION, ChipCheck, Deduplicator
from xchip.indexing.merge.external_sort import KEY, Sorter
from xchip.indexing.merge.hilbert import WIDE, bbox_keys
from xchip.indexing.merge.item_grids import ItemGrids
from xchip.indexing.merge.publish import FILE_ROWS, IndexWriter, Target
from xchip.indexing.merge.sources import FileRows, read_files
from xchip.indexing.opening.listing import list_files
from xchip.indexing.opening.scan import Piece
from xchip.indexing.opening.schema import arrow_schema
from xchip.indexing.rows import COLUMNS
from xchip.io.progress import Tell, told
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_MEMORY = 1 << 16
"""Minimum of ``memory``, in bytes."""


def merge_indexes(
    paths: PathLike | Iterable[PathLike] | None,
    out: PathLike,
    *,
    add: PathLike | Iterable[PathLike] | None = None,
    drop: Mapping[str, object] | None = None,
    sort: Literal["hilbert"] | None = "hilbert",
    keep_grids: bool = False,
    storage: StorageOptions | None = None,
    memory: int | str = "1 GB",
    chip_size: int = 256,
    progress: bool | Tell = True,
) -> str:
    """Merge indexes into one that answers a spatial query from a few of its row groups.

    Rows are sorted in temporary files beside ``out``, about as large as the uncompressed rows, so that ``memory`` suffices for
    any number of rows. Rows that are equal in all columns except ``item_href`` are written once. A column that a source lacks is
    null in its rows. The result does not depend on the order of the sources.

    Parameters
    ----------
    paths
        Archives, folders, files or URLs of indexes, including stacchip's tables and merged indexes. None: change the index at
        ``out`` in place.
    out
        ``*.parquet`` for one file, else a folder of files of up to two million rows; local or a URL. Readers find either the old
        or the new index. The only exception is a folder in a bucket, which can't be replaced atomically: use one file there.
    add
        More sources, whose rows are added to the remaining rows of ``paths``.
    drop
        Column -> value, or a list of values: drop the rows of ``paths`` that have one of the values in each of the columns. Rows
        of ``add`` are never dropped, so that ``drop`` and ``add`` together replace rows.
    sort
        "hilbert": rows that are close on the map are close in the file. None: keep the order of the sources.
    keep_grids
        Whether an item's rows may be on two grids, as in a table of windows.
    storage
        Storage options of buckets.
    memory
        Bytes of memory for rows, such as 2_000_000_000 or "2 GB".
    chip_size
        Size of a chip in pixels for stacchip's tables, which do not record it.
    progress
        True: show a bar on a terminal or in a notebook, and log to the logger "xchip" elsewhere. A function is called repeatedly
        with "files read" or "rows written", the number so far, and the total.

    Returns
    -------
    str
        ``out``. The hrefs of items in it are absolute, and its ``xchip`` metadata list sensors, grids and sources.

    Raises
    ------
    ValueError
        If two sources have different grids for an item (unless ``keep_grids``), different values for a chip, or different types
        for a column; or if a file is not an index.
    FileNotFoundError
        If a source does not exist.
    FileExistsError
        If ``out`` exists and is not an index.
    OSError
        If another process wrote ``out`` during the merge; the merge then changes nothing.

    Examples
    --------
    >>> import tempfile, geopandas, xchip, xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a", "b"):
    ...         path = xchip.write_index(ds.chips.index(256, item_id=name), f"{folder}/{name}.parquet")
    ...     path = merge_indexes([f"{folder}/a.parquet", f"{folder}/b.parquet"], f"{folder}/all.parquet")
    ...     path = merge_indexes(None, path, drop={"item_id": "b"})
    ...     geopandas.read_parquet(path)["item_id"].unique().tolist()
    ['a']
    """
    if sort not in ("hilbert", None):
        raise ValueError(f'sort must be "hilbert" or None, got {sort!r}')
    if paths is None and add is None and drop is None:
        raise ValueError("there is nothing to do: pass paths= to merge, or add= or drop= to change the index at out")
    storage = StorageOptions() if storage is None else storage
    target = Target(os.fspath(out), storage)
    target.check()
    before = target.state()
    base = [os.fspath(out)] if paths is None else _listed(paths)
    if paths is None and not before:
        raise FileNotFoundError(f"found no index to change at {os.fspath(out)!r}; pass paths= to create one")
    sources = [_Source(path, list_files(path, storage).pieces(), drop or {}) for path in base]
    sources += [_Source(path, list_files(path, storage).pieces(), {}) for path in _listed(add or [])]
    with target.aside() as folder, told(progress) as report:
        merge = _Merge(folder, sources, sort, keep_grids, _bytes(memory), storage, chip_size, report)
        merge.read()
        merged = merge.write(None if target.one_file else FILE_ROWS)
        if paths is None and target.state() != before:
            raise OSError(f"another process wrote {target.out!r} during the merge, which has changed nothing: merge again")
        target.publish(merged)
    return target.out


def _listed(paths: PathLike | Iterable[PathLike]) -> list[str]:
    return [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def _bytes(memory: int | str) -> int:
    from dask.utils import parse_bytes

    return max(LEAST_MEMORY, int(parse_bytes(memory)))


@dataclass
class _Source:
    """A source that the caller names, and what the merge reads from its files."""

    path: str
    files: list[Piece]
    drop: Mapping[str, object]
    columns: set[str] = field(default_factory=set)
    collections: set[str | None] = field(default_factory=set)
    """Collections of the rows that are not dropped."""
    merged: dict[str, list[str | None]] = field(default_factory=dict)
    """Path -> collections of the sources of a merged index."""

    def remaining(self, table: pa.Table) -> pa.Table:
        """Return the rows that are not dropped."""
        import pyarrow.compute as pc

        self.columns |= set(table.column_names)
        values = {name: _values(name, self.drop[name], table[name].type) for name in self.drop if name in table.column_names}
        if not self.drop or len(values) < len(self.drop):
            return table
        return table.filter(pc.invert(reduce(pc.and_, [pc.is_in(table[name], values[name]) for name in values])))

    def entries(self) -> Iterator[tuple[str, set[str | None]]]:
        """Yield (path, collections) of the sources of the remaining rows."""
        path = self.path if "://" in self.path else os.path.abspath(os.path.expanduser(self.path))
        listed = self.merged or {path: list(self.collections)}
        return ((path, self.collections & set(collections)) for path, collections in listed.items())


def _values(name: str, values: object, dtype: pa.DataType) -> pa.Array:
    """Convert the values that ``drop`` has for a column to the column's type."""
    import pandas as pd
    import pyarrow as pa

    listed = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    try:
        if pa.types.is_timestamp(dtype):
            return pa.array(pd.to_datetime(pd.Series(listed), utc=True)).cast(dtype)
        return pa.array(listed, dtype)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ValueError(f"drop: column {name!r} is of type {dtype}, so {values!r} can't be one of its values") from error


@dataclass
class _Merge:
    """One merge: `read` all rows into sorted runs, then `write` them."""

    folder: Path
    sources: Sequence[_Source]
    sort: str | None
    keep_grids: bool
    memory: int
    storage: StorageOptions
    chip_size: int
    report: Tell

    def __post_init__(self) -> None:
        self._files = [file for source in self.sources for file in source.files]
        self._source_of_file = [source for source in self.sources for _ in source.files]
        self._rows = Sorter(self.folder / "rows", self.memory)
        self._grids = ItemGrids()
        self._extra: dict[str, tuple[pa.DataType, str]] = {}
        """Extra column -> (its type, path of the first file that has it)."""

    def read(self) -> None:
        """Read the rows of all sources, and check that their grids and types agree."""
        import pyarrow as pa

        position, last = 0, -1
        for number, rows in read_files(self._files, self.storage, chip_size=self.chip_size):
            source = self._source_of_file[number]
            if number != last:
                last = number
                self._begin_file(source, rows)
                self.report("files read", number, len(self._files))
            table = source.remaining(rows.table)
            if not table.num_rows:
                continue
            self._grids.add(number, table, rows.facts.get("grids", []))
            source.collections |= set(table["collection"].unique().to_pylist())
            keys = bbox_keys(sides_of(table["bbox"]))
            table = table.append_column(KEY, pa.array(keys))
            table = table.append_column(FILE, pa.array(np.full(len(keys), number, np.int32)))
            table = table.append_column(POSITION, pa.array(np.arange(position, position + len(keys))))
            position += len(keys)
            self._rows.add(table)
        self.report("files read", len(self._files), len(self._files))
        for source in self.sources:
            if unknown := set(source.drop) - source.columns:
                raise ValueError(f"drop: {source.path!r} has no column {sorted(unknown)}; it has {sorted(source.columns)}")
        if not self.keep_grids:
            self._grids.check([file.path for file in self._files])

    def write(self, file_rows: int | None) -> Path:
        """Write the rows, and return the folder of the files."""
        folder = self.folder / "merged"
        writer = IndexWriter(folder, self._schema(), file_rows=file_rows, more=self._metadata())
        done, wide = 0, False
        try:
            for table in self._in_order():
                if self.sort and not wide and table[KEY][-1].as_py() >= WIDE:
                    # A row group of its own: boxes that span the Earth would void the bounds of other rows in the group.
                    first = int(np.searchsorted(table[KEY].to_numpy(), WIDE))
                    writer.add(table.slice(0, first))
                    writer.end_group()
                    writer.add(table.slice(first))
                    wide = True
                else:
                    writer.add(table)
                done += table.num_rows
                self.report("rows written", done, self._rows.rows)
            writer.close()
        except BaseException:
            writer.abort()
            raise
        return folder

    def _begin_file(self, source: _Source, rows: FileRows) -> None:
        """Check the extra columns of a file's first rows, and note the sources of a merged index."""
        import pyarrow as pa

        for column in rows.table.schema:
            if column.name in COLUMNS or column.name == "bbox":
                continue
            dtype, path = self._extra.get(column.name, (pa.null(), ""))
            if dtype == pa.null():
                self._extra[column.name] = column.type, rows.path
            elif column.type not in (dtype, pa.null()):
                raise ValueError(
                    f"column {column.name!r} is {dtype} in {path!r} and {column.type} in {rows.path!r}; a column has one "
                    "type: write one of the files again with the other type, or without the column"
                )
        for entry in rows.facts.get("sources", []):
            collections = source.merged.setdefault(entry["path"], [])
            collections += [collection for collection in entry["collections"] if collection not in collections]

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        *columns, geometry = arrow_schema()
        extra = [pa.field(name, self._extra[name][0]) for name in sorted(self._extra)]
        return pa.schema([*columns, *extra, geometry, pa.field("bbox", bbox_type())])

    def _in_order(self) -> Iterator[pa.Table]:
        """Yield the rows in the order of the result, each once."""
        files = [file.path for file in self._files]
        deduplicate = Deduplicator(files, keep_grids=self.keep_grids)
        check = ChipCheck(Sorter(self.folder / "chips", self.memory // 8), self._grids.shared(), deduplicate)
        by_position = None if self.sort else Sorter(self.folder / "positions", self.memory // 4)
        for table in map(deduplicate, self._rows.sorted()):
            check.add(table)
            if by_position is None:
                yield table
            else:
                by_position.add(table.set_column(table.column_names.index(KEY), KEY, table[POSITION].cast("uint64")))
        check.finish()
        if by_position is not None:
            yield from by_position.sorted()

    def _metadata(self) -> dict[str, object]:
        sources: dict[str, set[str | None]] = {}
        for source in self.sources:
            for path, collections in source.entries():
                sources.setdefault(path, set()).update(collections)
        listed = [
            {"path": path, "collections": sorted(collections, key=lambda name: (name is None, name))}
            for path, collections in sorted(sources.items())
            if collections
        ]
        return {"grids": self._grids.metadata(), "sources": listed, "sort": self.sort}
