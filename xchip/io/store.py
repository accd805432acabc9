"""Files below a root, on disk or in a bucket. A file appears whole or not at all, and what was there before stays until then."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from xchip.io.storage import StorageOptions

try:
    import fcntl
except ImportError:  # Windows has other locks
    fcntl = None  # type: ignore[assignment]

ABANDONED_AFTER = 24 * 3600
"""Seconds after which a file that was being written belongs to a process that is gone."""
HELD = ".held.tmp"
"""End of the name of a file that its writer has locked, so that it can be told at once whether that is gone."""

READERS = 16
"""Files read at once, where there are several."""


class Entry(NamedTuple):
    """A file below the root."""

    name: str
    """With ``/`` between folders."""
    size: int
    """Bytes."""


def told(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """What `Store.claim` found, for messages."""
    return ", ".join(f"{key}={made!r} (now {now!r})" for key, (made, now) in differences.items())


@dataclass(frozen=True, slots=True)
class Store:
    """Files below ``root``, a local path or a URL; names have ``/`` between folders and are relative to it."""

    root: str
    storage: StorageOptions = field(default_factory=StorageOptions)

    @property
    def is_local(self) -> bool:
        """Whether the root is a path of this machine."""
        return "://" not in self.root or self.root.startswith("file://")

    def path(self, name: str = "") -> str:
        """Full path or URL of a file; the root itself without a name."""
        root = self.root.rstrip("/") or "/"
        return f"{root}/{name}" if name else root

    def filesystem(self, name: str = "") -> tuple[Any, str]:
        """(fsspec file system, path on it) of a file."""
        return self.storage.filesystem(self.path(name))

    def local(self, name: str = "") -> Path:
        """A file's path, where the root is local."""
        return Path(self.filesystem(name)[1])

    def read(self, name: str) -> bytes:
        """A file's bytes; FileNotFoundError where it is absent."""
        fs, path = self.filesystem(name)
        return bytes(fs.cat_file(path))

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """The bytes of several files, many at a time where that is quicker."""
        if len(names) < 2:
            return [self.read(name) for name in names]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self.read, names))

    def open(self, name: str) -> BinaryIO:
        """A file to read and seek in."""
        fs, path = self.filesystem(name)
        return fs.open(path, "rb")

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        fs, path = self.filesystem(name)
        return bool(fs.exists(path))

    def write(self, name: str, content: bytes) -> None:
        """Write a file: aside and renamed on disk, one put elsewhere."""
        if not self.is_local:
            fs, path = self.filesystem(name)
            fs.pipe_file(path, content)
            return
        target = self.local(name)
        with _written(self._aside(target, held=True), content) as aside:
            os.replace(aside, target)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path of this machine to write a large file to. At the block's end it becomes ``name``; if that raises, it goes."""
        if self.is_local:
            target = self.local(name)
            aside = self._aside(target)
            try:
                yield aside
                os.replace(aside, target)
            finally:
                aside.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="xchip-") as folder:
            aside = Path(folder) / "file"
            yield aside
            fs, path = self.filesystem(name)
            fs.put_file(str(aside), path)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one; whether this call wrote it. Of several at once, one does."""
        if not self.is_local:
            fs, path = self.filesystem(name)
            try:
                fs.pipe_file(path, content, mode="create")
            except OSError:
                # Not every file system has FileExistsError for it: s3fs says EINVAL of a condition that does not hold.
                if not fs.exists(path):
                    raise
                return False
            return True
        target = self.local(name)
        try:
            with _written(self._aside(target, held=True), content) as aside:
                os.link(aside, target)  # unlike a rename, it does not replace
        except FileExistsError:
            return False
        return True

    def claim(self, name: str, parameters: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Write down as JSON what is made here, unless somebody has; what differs from that: (made with, now) by name."""
        wanted = json.loads(json.dumps(parameters))
        if self.create(name, json.dumps(wanted, indent=1).encode()):
            return {}
        known = json.loads(self.read(name))
        both = {key: (known.get(key), wanted.get(key)) for key in sorted({*known, *wanted})}
        return {key: (made, now) for key, (made, now) in both.items() if made != now}

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        fs, path = self.filesystem(name)
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all that is in it, if it is there."""
        fs, path = self.filesystem(name)
        if self.is_local:
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                fs.rm(path, recursive=True)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """All files below a folder, in the order of their names; none where it is absent. Files being written are left out."""
        if self.is_local:
            yield from self._local_entries(self.local(folder), f"{folder}/" if folder else "")
            return
        fs, path = self.filesystem(folder)
        with suppress(FileNotFoundError):
            base = path.rstrip("/") + "/"
            for found, facts in sorted(fs.find(path, detail=True).items()):
                if facts["type"] == "file":  # some servers keep empty folders
                    yield Entry((f"{folder}/" if folder else "") + found.removeprefix(base), int(facts["size"]))

    def _local_entries(self, folder: Path, prefix: str) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.is_dir():
                yield from self._local_entries(Path(entry.path), f"{prefix}{entry.name}/")
            elif not _is_aside(entry.name):
                with suppress(FileNotFoundError):  # removed while we looked
                    yield Entry(prefix + entry.name, entry.stat().st_size)

    def leftovers(self) -> Iterator[str]:
        """Files being written, or left half-written by a process that is gone; only a local root has them."""
        for folder, _, names in os.walk(self.local()) if self.is_local else ():
            for name in names:
                if _is_aside(name):
                    yield (Path(folder) / name).relative_to(self.local()).as_posix()

    @staticmethod
    def _aside(target: Path, *, held: bool = False) -> Path:
        """A name beside ``target`` for a file that is being written; what others left half-written is removed.

        ``held``: a lock on it says that its writer lives, so it need not be old to be known as left.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in target.parent.glob(f".{target.name}.*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > ABANDONED_AFTER or (old.name.endswith(HELD) and _let_go(old)):
                    old.unlink()
        return target.parent / f".{target.name}.{secrets.token_hex(4)}{HELD if held else '.tmp'}"


def _is_aside(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


@contextmanager
def _written(aside: Path, content: bytes) -> Iterator[Path]:
    """``aside`` with ``content``, locked until the end of the block; what is left of it then goes."""
    try:
        with aside.open("xb") as file:
            _lock(file)
            file.write(content)
            file.flush()
            if fcntl is None:
                file.close()  # Windows moves no open file
            yield aside
    finally:
        aside.unlink(missing_ok=True)


def _let_go(aside: Path) -> bool:
    """Whether nobody has a lock on a file that has content; an empty one may be about to be locked."""
    with aside.open("rb") as file:
        return os.fstat(file.fileno()).st_size > 0 and _lock(file)


def _lock(file: BinaryIO) -> bool:
    """Lock an open file, which ends when it is closed or its process dies; whether that went well."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody else has it, or the file system has no locks
        return False
    return True


@contextmanager
def reached(what: str, *, passed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Errors of a store, each as an OSError that says what could not be done; ``passed`` stay as they are.

    Without credentials s3fs raises what is no OSError, and of a refusal it says nothing but "Forbidden".

    Examples
    --------
    >>> with reached("read the index 's3://a/b'"):
    ...     raise PermissionError("Forbidden")
    Traceback (most recent call last):
    PermissionError: can't read the index 's3://a/b': Forbidden; check where it is, your credentials and your rights
    """
    through: tuple[type[Exception], ...] = (ValueError, ImportError, *passed)
    try:
        yield
    except through:
        raise
    except Exception as error:
        kinds = (PermissionError, FileNotFoundError)
        kind = next((one for one in kinds if isinstance(error, one)), OSError)
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise kind(f"can't {what}: {reason}; check where it is, your credentials and your rights") from error
