"""Index files that take the place of others at once: written aside, then swapped in."""

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
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.indexing.files.geoparquet import Facts, open_writer, sides_of, wkb_types
from xchip.indexing.files.write import PARTS
from xchip.io.storage import StorageOptions
from xchip.io.store import ABANDONED_AFTER, Store

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 16_384
"""Rows of a row group: what a query reads at least."""
FILE_ROWS = 2_000_000
"""Rows of a file in a folder, at most: some 100 MB."""

_FOOTPRINT = ("size", "ino", "mtime", "ETag", "etag", "LastModified", "last_modified", "created", "generation")
"""What file systems tell of a file that changes when it is written again."""


class Target:
    """Where an index goes: ``*.parquet`` for one file, else a folder of files; local or a URL."""

    def __init__(self, out: str, storage: StorageOptions) -> None:
        self.out = out
        self.one_file = out.endswith(".parquet")
        self.store = Store(out.rstrip("/") if "://" in out else os.path.realpath(os.path.expanduser(out)), storage)

    def check(self) -> None:
        """Raise FileExistsError if something is there that is no index."""
        fs, path = self.store.filesystem()
        if fs.isdir(path):
            strangers = [name for name in self._names() if self.one_file or not PARTS.fullmatch(name)]
            if strangers or self.one_file:
                raise FileExistsError(
                    f"{self.out!r} is a folder that holds more than an index, such as {strangers[:1]}; choose another"
                )
        elif not self.one_file and fs.isfile(path):
            raise FileExistsError(f"{self.out!r} is a file; its name must end in '.parquet', or choose another for a folder")

    def state(self) -> Any:
        """What changes when somebody writes the index; empty where there is none."""
        fs, path = self.store.filesystem()
        fs.invalidate_cache()
        with suppress(FileNotFoundError):
            facts = fs.ls(path, detail=True)
            return sorted((fact["name"], [str(fact.get(key)) for key in _FOOTPRINT]) for fact in facts)
        return []

    def _names(self) -> list[str]:
        fs, path = self.store.filesystem()
        names = (found.rstrip("/").rpartition("/")[2] for found in fs.ls(path, detail=False))
        return sorted(name for name in names if name and not name.startswith("."))

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """A folder for files that are being made, which is gone afterwards; on the disk of a local target."""
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
        """Put the files of ``folder`` in the place of what is there.

        On disk, readers find the old index or the new one. In a bucket that holds for one file, which is one put; files of a
        folder appear one after the other there, and the old ones go last.
        """
        if not self.store.is_local:
            self._upload(folder)
            return
        out = self.store.local()
        if self.one_file:
            (made,) = folder.iterdir()
            os.replace(made, out)
        elif out.exists():
            exchange(folder, out)
        else:
            os.rename(folder, out)

    def _upload(self, folder: Path) -> None:
        fs, path = self.store.filesystem()
        made = sorted(folder.iterdir())
        if self.one_file:
            fs.put_file(str(made[0]), path)
            return
        old = self._names() if fs.exists(path) else []
        put: list[str] = []
        try:
            for file in made:
                put.append(f"{path}/{file.name}")
                fs.put_file(str(file), put[-1])
        except BaseException:
            for name in put:
                with suppress(FileNotFoundError):
                    fs.rm_file(name)
            raise
        for name in old:
            fs.rm_file(f"{path}/{name}")


def exchange(one: Path, other: Path) -> None:
    """Two folders change names: at once where the system can, else with a moment in which ``other`` is absent."""
    if sys.platform == "linux":
        at_cwd, swap = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h>, <linux/fs.h>
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if rename is not None and rename(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), swap) == 0:
            return
    third = one.with_name(f"{one.name}-old")
    os.rename(other, third)
    try:
        os.rename(one, other)
    except BaseException:
        os.rename(third, other)
        raise
    os.rename(third, one)


class IndexWriter:
    """Writes rows in the order that they come, in row groups of ``group_rows`` and files of ``file_rows``.

    Names of files in a folder hold a number that no other writer has: a reader that has listed one index never opens a file of
    another.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, *, file_rows: int | None, group_rows: int = GROUP_ROWS, more: dict[str, Any]
    ) -> None:
        folder.mkdir()
        self._folder, self._schema, self._more = folder, schema, more
        self._file_rows, self._group_rows = file_rows, group_rows
        self._token = secrets.token_hex(4)
        self._pending: list[pa.Table] = []
        self._waiting = self._written = self._files = 0
        self._writer: Any = None
        self._facts = Facts()

    def add(self, table: pa.Table) -> None:
        """Take rows in; they have the columns of the schema."""
        self._pending.append(table.select(self._schema.names))
        self._waiting += table.num_rows
        if self._waiting >= self._group_rows:
            self._write(whole=True)

    def end_group(self) -> None:
        """The rows that come next are in another row group than those before."""
        if self._waiting:
            self._write(whole=False)

    def close(self) -> None:
        """Write the rest, and the metadata."""
        self.end_group()
        if not self._files:
            self._open()
        self._finish()

    def abort(self) -> None:
        """Leave the files as they are: no index."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, *, whole: bool) -> None:
        import pyarrow as pa

        table = pa.concat_tables(self._pending)
        step = self._group_rows
        stop = len(table) // step * step if whole else len(table)
        for first in range(0, stop, step):
            self._write_group(table.slice(first, min(step, stop - first)))
        rest = table.slice(stop)
        self._pending, self._waiting = [rest], len(rest)

    def _write_group(self, group: pa.Table) -> None:
        if self._writer is not None and self._file_rows is not None and self._written + len(group) > self._file_rows:
            self._finish()
        if self._writer is None:
            self._open()
        self._facts.add(sides_of(group["bbox"]), np.unique(wkb_types(group["geometry"])).tolist())
        self._writer.write_table(group, row_group_size=len(group))
        self._written += len(group)

    def _open(self) -> None:
        name = "index.parquet" if self._file_rows is None else f"part-{self._files:06d}-{self._token}.parquet"
        self._writer = open_writer(self._folder / name, self._schema)
        self._facts = Facts()
        self._files += 1
        self._written = 0

    def _finish(self) -> None:
        self._writer.add_key_value_metadata(self._facts.metadata("xchip", self._more))
        self._writer.close()
        self._writer = None
