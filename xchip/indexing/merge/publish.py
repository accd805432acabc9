"""Publish index files atomically: write them to a temporary folder, then replace the old ones."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xchip.core.types import JSON
from xchip.indexing.files.geoparquet import Facts, open_writer, sides_of, wkb_types
from xchip.indexing.files.write import PARTS
from xchip.io.storage import StorageOptions
from xchip.io.store import ABANDONED_AFTER, Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS = 16_384
"""Rows of a row group, the smallest unit that a query reads."""
FILE_ROWS = 2_000_000
"""Maximum number of rows of a file in a folder: about 100 MB."""

State: TypeAlias = list[tuple[str, list[str]]]
"""(name, values of `_VERSION_FACTS`) of each file of an index."""

_VERSION_FACTS = ("size", "ino", "mtime", "ETag", "etag", "LastModified", "last_modified", "created", "generation")
"""Facts that file systems report of a file and that change when the file is written again."""


class Target:
    """Destination of an index: ``*.parquet`` for one file, else a folder of files; local or a URL."""

    def __init__(self, out: str, storage: StorageOptions) -> None:
        self.out = out
        self.one_file = out.endswith(".parquet")
        self.store = Store(out.rstrip("/") if "://" in out else os.path.realpath(os.path.expanduser(out)), storage)

    def check(self) -> None:
        """Raise FileExistsError if the destination exists and is not an index."""
        fs, path = self.store.filesystem()
        if fs.isdir(path):
            foreign = [name for name in self._names() if self.one_file or not PARTS.fullmatch(name)]
            if foreign or self.one_file:
                raise FileExistsError(
                    f"{self.out!r} is a folder that holds more than an index, such as {foreign[:1]}; choose another path"
                )
        elif not self.one_file and fs.isfile(path):
            raise FileExistsError(f"{self.out!r} is a file; its name must end in '.parquet', or choose another path for a folder")

    def state(self) -> State:
        """Return a value that changes when the index is written; empty if none exists."""
        fs, path = self.store.filesystem()
        fs.invalidate_cache()
        with suppress(FileNotFoundError):
            facts = fs.ls(path, detail=True)
            return sorted((fact["name"], [str(fact.get(key)) for key in _VERSION_FACTS]) for fact in facts)
        return []

    def _names(self) -> list[str]:
        fs, path = self.store.filesystem()
        names = (entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False))
        return sorted(name for name in names if name and not name.startswith("."))

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """Give a temporary folder, on the disk of a local target."""
        if not self.store.is_local:
            with tempfile.TemporaryDirectory(prefix="xchip-merge-") as temporary:
                yield Path(temporary)
            return
        out = self.store.local()
        out.parent.mkdir(parents=True, exist_ok=True)
        for old in out.parent.glob(f".{out.name}.*.tmp"):
            if time.time() - old.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(old, ignore_errors=True)
        folder = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def publish(self, folder: Path) -> None:
        """Replace the index by the files of ``folder``.

        On disk, readers find either the old or the new index; in a bucket too if it is one file, which is one put. The files of a
        folder appear in a bucket one by one, and the old files are removed last.
        """
        if not self.store.is_local:
            self._upload(folder)
            return
        out = self.store.local()
        if self.one_file:
            (file,) = folder.iterdir()
            os.replace(file, out)
        elif out.exists():
            exchange(folder, out)
        else:
            os.rename(folder, out)

    def _upload(self, folder: Path) -> None:
        fs, path = self.store.filesystem()
        files = sorted(folder.iterdir())
        if self.one_file:
            fs.put_file(str(files[0]), path)
            return
        old = self._names() if fs.exists(path) else []
        put: list[str] = []
        try:
            for file in files:
                put.append(f"{path}/{file.name}")
                fs.put_file(str(file), put[-1])
        except BaseException:
            for name in put:
                with suppress(FileNotFoundError):
                    fs.rm_file(name)
            raise
        for name in old:
            fs.rm_file(f"{path}/{name}")


def exchange(new: Path, target: Path) -> None:
    """Exchange the names of two folders: atomically on Linux, else with a moment in which ``target`` does not exist."""
    if sys.platform == "linux":
        # Python has no function for it: without this call, a reader could find no index.
        at_cwd, swap = -100, 2  # AT_FDCWD of <fcntl.h>, RENAME_EXCHANGE of <linux/fs.h>
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if rename is not None and rename(at_cwd, os.fsencode(new), at_cwd, os.fsencode(target), swap) == 0:
            return
    old = new.with_name(f"{new.name}-old")
    os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(old, target)
        raise
    os.rename(old, new)


class IndexWriter:
    """Writes rows in the order in which they are added, in row groups of ``group_rows`` and files of ``file_rows``.

    The names of files in a folder contain a token that is unique to the writer: a reader that has listed one index never opens a
    file of another.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, *, file_rows: int | None, group_rows: int = GROUP_ROWS, more: JSON
    ) -> None:
        folder.mkdir()
        self._folder, self._schema, self._more = folder, schema, dict(more)
        self._file_rows, self._group_rows = file_rows, group_rows
        self._token = secrets.token_hex(4)
        self._pending: list[pa.Table] = []
        self._pending_rows = self._file = self._rows_of_file = 0
        self._writer: pq.ParquetWriter | None = None
        self._facts = Facts()

    def add(self, table: pa.Table) -> None:
        """Add rows that have the columns of the schema."""
        self._pending.append(table.select(self._schema.names))
        self._pending_rows += table.num_rows
        if self._pending_rows >= self._group_rows:
            self._write_groups(full=True)

    def end_group(self) -> None:
        """Start a new row group for the rows that are added next."""
        if self._pending_rows:
            self._write_groups(full=False)

    def close(self) -> None:
        """Write the remaining rows and the metadata."""
        self.end_group()
        self._finish(self._open() if self._writer is None else self._writer)

    def abort(self) -> None:
        """Close the current file without its metadata."""
        if self._writer is not None:
            self._writer.close()

    def _write_groups(self, *, full: bool) -> None:
        """Write the pending rows; ``full``: only those that fill a row group."""
        import pyarrow as pa

        table = pa.concat_tables(self._pending)
        step = self._group_rows
        stop = len(table) // step * step if full else len(table)
        for first in range(0, stop, step):
            self._write_group(table.slice(first, min(step, stop - first)))
        rest = table.slice(stop)
        self._pending, self._pending_rows = [rest], len(rest)

    def _write_group(self, group: pa.Table) -> None:
        writer = self._writer
        if writer is not None and self._file_rows is not None and self._rows_of_file + len(group) > self._file_rows:
            self._finish(writer)
            writer = None
        if writer is None:
            writer = self._open()
        self._facts.add(sides_of(group["bbox"]), np.unique(wkb_types(group["geometry"])).tolist())
        writer.write_table(group, row_group_size=len(group))
        self._rows_of_file += len(group)

    def _open(self) -> pq.ParquetWriter:
        name = "index.parquet" if self._file_rows is None else f"part-{self._file:06d}-{self._token}.parquet"
        self._writer = open_writer(self._folder / name, self._schema)
        self._facts = Facts()
        self._file += 1
        self._rows_of_file = 0
        return self._writer

    def _finish(self, writer: pq.ParquetWriter) -> None:
        writer.add_key_value_metadata(self._facts.metadata("xchip", self._more))
        writer.close()
        self._writer = None
