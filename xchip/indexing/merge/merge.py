"""Many indexes in one that answers spatial queries from a small part of it: out of core, in Hilbert order, swapped in at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xchip.indexing.files.geoparquet import bbox_type, sides_of
from xchip.indexing.merge.deduplicate import FILE, PLACE, ChipCheck, Distinct
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

PathLike = str | os.PathLike[str]

LEAST_MEMORY = 1 << 16
"""Bytes."""


def merge_indexes(
    paths: PathLike | Iterable[PathLike] | None,
    out: PathLike,
    *,
    add: PathLike | Iterable[PathLike] | None = None,
    drop: Mapping[str, Any] | None = None,
    sort: Literal["hilbert"] | None = "hilbert",
    keep_grids: bool = False,
    storage: StorageOptions | None = None,
    memory: int | str = "1 GB",
    chip_size: int = 256,
    progress: bool | Tell = True,
) -> str:
    """Unite indexes in one that answers spatial queries from a small part of its files.

    Rows are sorted in files beside ``out`` (about the size of the rows, uncompressed), so that any number of them needs no more
    than ``memory``. A row that is in several sources, equal in all columns but ``item_href``, is written once. Columns that only
    some sources have are null in the rows of the others. The result does not depend on the order of the sources.

    Parameters
    ----------
    paths
        Archives, folders, files or URLs of indexes; stacchip's tables and merged indexes too. None: the index that is at
        ``out``, to be changed in place.
    out
        ``*.parquet`` for one file, else a folder of files of up to two million rows. Local or a URL. Readers find the old index
        or the new one, never a part of it. Only a folder in a bucket can't be changed at once: use one file there.
    add
        More sources: their rows join those of ``paths`` that are not dropped.
    drop
        Column -> value, or a list of values: rows of ``paths`` that have one of them, in each of these columns, are left out.
        ``add`` is not concerned, so that both together replace rows.
    sort
        "hilbert": rows that are near each other on the map are near each other in the file. None: rows in the order of sources.
    keep_grids
        Whether an item's rows may be on two grids. A table of chips has no use for that; a table of windows may.
    storage
        How to reach buckets.
    memory
        Bytes that rows in memory may take, such as 2_000_000_000 or "2 GB".
    chip_size
        Pixels of a chip in stacchip's tables, which don't tell.
    progress
        True: a bar on a terminal or in a notebook, else the logger "xchip". A function is called now and then with "files read"
        or "rows written", how many are, and of how many.

    Returns
    -------
    str
        ``out``. Its hrefs of items are absolute, and its ``xchip`` metadata list sensors, grids and sources.

    Raises
    ------
    ValueError
        If two sources have different grids for an item (unless ``keep_grids``), different values for a chip, or different types
        for a column; for a file that is no index.
    FileNotFoundError
        If a source is absent.
    FileExistsError
        If at ``out`` there is something else than an index.
    OSError
        If somebody else wrote ``out`` while its rows were being merged; then nothing is changed.

    Examples
    --------
    >>> import tempfile, geopandas, xchip.testing
    >>> from xchip.indexing.files.write import write_index
    >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("one", "two"):
    ...         path = write_index(ds.chips.index(256, item_id=name), f"{folder}/{name}.parquet")
    ...     path = merge_indexes([f"{folder}/one.parquet", f"{folder}/two.parquet"], f"{folder}/all.parquet")
    ...     path = merge_indexes(None, path, drop={"item_id": "two"})
    ...     geopandas.read_parquet(path)["item_id"].unique().tolist()
    ['one']
    """
    if sort not in ("hilbert", None):
        raise ValueError(f'sort must be "hilbert" or None, got {sort!r}')
    if paths is None and add is None and drop is None:
        raise ValueError("there is nothing to do: give paths to merge, or add= or drop= to change the index at out")
    storage = StorageOptions() if storage is None else storage
    target = Target(os.fspath(out), storage)
    target.check()
    before = target.state()
    base = [os.fspath(out)] if paths is None else _listed(paths)
    if paths is None and not before:
        raise FileNotFoundError(f"there is no index at {os.fspath(out)!r} to change; give paths= to make one")
    sources = [_Source(path, list_files(path, storage).pieces(), drop or {}) for path in base]
    sources += [_Source(path, list_files(path, storage).pieces(), {}) for path in _listed(add or [])]
    with target.aside() as folder, told(progress) as tell:
        merge = _Merge(folder, sources, sort, keep_grids, _bytes(memory), storage, chip_size, tell)
        merge.read()
        made = merge.write(None if target.one_file else FILE_ROWS)
        if paths is None and target.state() != before:
            raise OSError(f"{target.out!r} was written by somebody else while it was merged; it is left as it is: merge again")
        target.publish(made)
    return target.out


def _listed(paths: PathLike | Iterable[PathLike]) -> list[str]:
    return [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def _bytes(memory: int | str) -> int:
    from dask.utils import parse_bytes

    return max(LEAST_MEMORY, int(parse_bytes(memory)))


@dataclass
class _Source:
    """What the caller named, and what is learnt of it."""

    path: str
    files: list[Piece]
    drop: Mapping[str, Any]
    """Which of its rows are left out."""
    columns: set[str] = field(default_factory=set)
    collections: set[str | None] = field(default_factory=set)
    """Those of its rows that stay."""
    merged: dict[str, list[str | None]] = field(default_factory=dict)
    """The collections of each of its own sources, where it is a merged index."""

    def kept(self, table: pa.Table) -> pa.Table:
        """The rows that are not dropped."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self.columns |= set(table.column_names)
        if not self.drop:
            return table
        dropped: Any = pa.array(np.ones(table.num_rows, bool))
        for name, values in self.drop.items():
            if name not in table.column_names:
                return table
            wanted = _values(name, values, table.schema.field(name).type)
            dropped = pc.and_(dropped, pc.is_in(table[name], wanted))
        return table.filter(pc.invert(dropped))

    def entries(self) -> Iterator[tuple[str, set[str | None]]]:
        """(path, collections) of the sources that its rows come from."""
        path = self.path if "://" in self.path else os.path.abspath(os.path.expanduser(self.path))
        listed = self.merged or {path: list(self.collections)}
        return ((path, self.collections & set(collections)) for path, collections in listed.items())


def _values(name: str, values: Any, dtype: pa.DataType) -> pa.Array:
    """What ``drop`` says of a column, as its type has it."""
    import pandas as pd
    import pyarrow as pa

    listed = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    try:
        if pa.types.is_timestamp(dtype):
            return pa.array(pd.to_datetime(pd.Series(listed), utc=True)).cast(dtype)
        return pa.array(listed, dtype)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ValueError(f"drop: column {name!r} is of type {dtype}, so {values!r} can't be one of its values") from error


class _Merge:
    """One merge: all rows are read into sorted runs, then written."""

    def __init__(
        self,
        folder: Path,
        sources: Sequence[_Source],
        sort: str | None,
        keep_grids: bool,
        memory: int,
        storage: StorageOptions,
        chip_size: int,
        tell: Tell,
    ) -> None:
        self._folder, self._sources, self._sort, self._keep_grids = folder, sources, sort, keep_grids
        self._memory, self._storage, self._chip_size, self._tell = memory, storage, chip_size, tell
        self._files = [file for source in sources for file in source.files]
        self._owners = [source for source in sources for _ in source.files]
        self._rows = Sorter(folder / "rows", memory)
        self._grids = ItemGrids()
        self._others: dict[str, tuple[pa.DataType, str]] = {}

    def read(self) -> None:
        """Take in the rows of all sources, and check that they agree about grids and types."""
        import pyarrow as pa

        place, last = 0, -1
        for number, rows in read_files(self._files, self._storage, chip_size=self._chip_size):
            source = self._owners[number]
            if number != last:
                last = number
                self._begin(source, rows)
                self._tell("files read", number, len(self._files))
            table = source.kept(rows.table)
            if not table.num_rows:
                continue
            self._grids.add(number, table, rows.facts.get("grids", []))
            source.collections |= set(table["collection"].unique().to_pylist())
            keys = bbox_keys(sides_of(table["bbox"]))
            table = table.append_column(KEY, pa.array(keys))
            table = table.append_column(FILE, pa.array(np.full(len(keys), number, np.int32)))
            table = table.append_column(PLACE, pa.array(np.arange(place, place + len(keys))))
            place += len(keys)
            self._rows.add(table)
        self._tell("files read", len(self._files), len(self._files))
        for source in self._sources:
            if unknown := set(source.drop) - source.columns:
                raise ValueError(f"drop: {source.path!r} has no column {sorted(unknown)}; it has {sorted(source.columns)}")
        if not self._keep_grids:
            self._grids.check([file.path for file in self._files])

    def write(self, file_rows: int | None) -> Path:
        """Write the rows; returns the folder of the files."""
        made = self._folder / "made"
        writer = IndexWriter(made, self._schema(), file_rows=file_rows, more=self._metadata())
        done, wide = 0, False
        try:
            for table in self._in_order():
                if self._sort and not wide and table[KEY][-1].as_py() >= WIDE:
                    # Boxes that span the Earth don't make those of their neighbours in the row group useless.
                    first = int(np.searchsorted(table[KEY].to_numpy(), WIDE))
                    writer.add(table.slice(0, first))
                    writer.end_group()
                    writer.add(table.slice(first))
                    wide = True
                else:
                    writer.add(table)
                done += table.num_rows
                self._tell("rows written", done, self._rows.rows)
            writer.close()
        except BaseException:
            writer.abort()
            raise
        return made

    def _begin(self, source: _Source, rows: FileRows) -> None:
        """The first rows of a file."""
        import pyarrow as pa

        for column in rows.table.schema:
            if column.name in COLUMNS or column.name == "bbox":
                continue
            dtype, path = self._others.get(column.name, (pa.null(), ""))
            if dtype == pa.null():
                self._others[column.name] = column.type, rows.path
            elif column.type not in (dtype, pa.null()):
                raise ValueError(
                    f"column {column.name!r} is {dtype} in {path!r} and {column.type} in {rows.path!r}; a column has one "
                    "type: write one of them anew with the other's type, or without the column"
                )
        for entry in rows.facts.get("sources", []):
            known = source.merged.setdefault(entry["path"], [])
            known += [collection for collection in entry["collections"] if collection not in known]

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        own = arrow_schema()
        others = [(name, self._others[name][0]) for name in sorted(self._others)]
        ends = [own.field("geometry"), pa.field("bbox", bbox_type())]
        return pa.schema([*(own.field(name) for name in COLUMNS[:-1]), *(pa.field(*other) for other in others), *ends])

    def _in_order(self) -> Iterator[pa.Table]:
        """The rows, once each."""
        files = [file.path for file in self._files]
        distinct = Distinct(files, keep_grids=self._keep_grids)
        check = ChipCheck(Sorter(self._folder / "chips", self._memory // 8), self._grids.shared(), distinct)
        by_place = None if self._sort else Sorter(self._folder / "places", self._memory // 4)
        for table in map(distinct, self._rows.sorted()):
            check.add(table)
            if by_place is None:
                yield table
            else:
                by_place.add(table.set_column(table.column_names.index(KEY), KEY, table[PLACE].cast("uint64")))
        check.finish()
        if by_place is not None:
            yield from by_place.sorted()

    def _metadata(self) -> dict[str, Any]:
        sources: dict[str, set[str | None]] = {}
        for source in self._sources:
            for path, collections in source.entries():
                sources.setdefault(path, set()).update(collections)
        listed = [
            {"path": path, "collections": sorted(found, key=lambda name: (name is None, name))}
            for path, found in sorted(sources.items())
            if found
        ]
        return {"grids": self._grids.metadata(), "sources": listed, "sort": self._sort}
