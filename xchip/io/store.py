"""Read and write files below a root, on disk or in a bucket. A write replaces the whole file at once, or changes nothing."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ABANDONED_AFTER = 24 * 3600
"""Age in seconds at which a partly written file counts as abandoned by its writer."""
LOCKED_SUFFIX = ".held.tmp"
"""Suffix of a partly written file that its writer has locked: a free lock shows at once that the writer is gone."""
READERS = 16
"""Number of files that are read at once."""


class Entry(NamedTuple):
    """A file below the root."""

    name: str
    """Path below the root, with ``/`` between folders."""
    size: int
    """Size in bytes."""


def told(differences: Mapping[str, tuple[object, object]]) -> str:
    """Return the differences that `Store.claim` found, as text for messages."""
    return ", ".join(f"{key}={recorded!r} (now {new!r})" for key, (recorded, new) in differences.items())


@dataclass(frozen=True, slots=True)
class Store:
    """Files below ``root``, a local path or a URL. Names of files are relative to it, with ``/`` between folders."""

    root: str
    storage: StorageOptions = field(default_factory=StorageOptions)

    @property
    def is_local(self) -> bool:
        """Whether the root is a local path."""
        return "://" not in self.root or self.root.startswith("file://")

    def path(self, name: str = "") -> str:
        """Return the full path or URL of a file; of the root without a name."""
        root = self.root.rstrip("/") or "/"
        return f"{root}/{name}" if name else root

    def filesystem(self, name: str = "") -> tuple[AbstractFileSystem, str]:
        """Return the fsspec file system of a file, and the path on it."""
        return self.storage.filesystem(self.path(name))

    def local(self, name: str = "") -> Path:
        """Return the path of a file; the root must be local."""
        return Path(self.filesystem(name)[1])

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raise FileNotFoundError if it does not exist."""
        fs, path = self.filesystem(name)
        return bytes(fs.cat_file(path))

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """Return the bytes of several files, read at once."""
        if len(names) < 2:
            return [self.read(name) for name in names]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self.read, names))

    def open(self, name: str) -> BinaryIO:
        """Open a file to read and seek in."""
        fs, path = self.filesystem(name)
        return fs.open(path, "rb")

    def exists(self, name: str) -> bool:
        """Whether a file exists."""
        fs, path = self.filesystem(name)
        return bool(fs.exists(path))

    def write(self, name: str, content: bytes) -> None:
        """Write a file: on disk as a temporary file that is renamed, in a bucket with one request."""
        if not self.is_local:
            fs, path = self.filesystem(name)
            fs.pipe_file(path, content)
            return
        target = self.local(name)
        with _written(_temporary(target, locked=True), content) as temporary:
            os.replace(temporary, target)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local path to write a large file to. The file becomes ``name`` when the block ends; an error removes it."""
        if self.is_local:
            target = self.local(name)
            temporary = _temporary(target)
            try:
                yield temporary
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="xchip-") as folder:
            temporary = Path(folder) / "file"
            yield temporary
            fs, path = self.filesystem(name)
            fs.put_file(str(temporary), path)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless it exists; return whether this call wrote it. Of several simultaneous calls, one writes it."""
        if not self.is_local:
            fs, path = self.filesystem(name)
            try:
                fs.pipe_file(path, content, mode="create")
            except OSError:
                # Not every file system raises FileExistsError: s3fs raises EINVAL.
                if not fs.exists(path):
                    raise
                return False
            return True
        target = self.local(name)
        try:
            with _written(_temporary(target, locked=True), content) as temporary:
                os.link(temporary, target)  # unlike a rename, a link does not replace a file
        except FileExistsError:
            return False
        return True

    def claim(self, name: str, parameters: Mapping[str, object]) -> dict[str, tuple[object, object]]:
        """Record the parameters as JSON if none are recorded; return differences: name -> (recorded value, new value)."""
        new = json.loads(json.dumps(parameters))
        if self.create(name, json.dumps(new, indent=1).encode()):
            return {}
        recorded = json.loads(self.read(name))
        values = {key: (recorded.get(key), new.get(key)) for key in sorted({*recorded, *new})}
        return {key: (before, after) for key, (before, after) in values.items() if before != after}

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        fs, path = self.filesystem(name)
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """Yield all files below a folder, sorted by name, without partly written files; none if the folder does not exist."""
        if self.is_local:
            yield from self._local_entries(self.local(folder), f"{folder}/" if folder else "")
            return
        fs, path = self.filesystem(folder)
        with suppress(FileNotFoundError):
            base = path.rstrip("/") + "/"
            for file, facts in sorted(fs.find(path, detail=True).items()):
                if facts["type"] == "file":  # some servers list empty folders
                    yield Entry((f"{folder}/" if folder else "") + file.removeprefix(base), int(facts["size"]))

    def _local_entries(self, folder: Path, prefix: str) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.is_dir():
                yield from self._local_entries(Path(entry.path), f"{prefix}{entry.name}/")
            elif not _is_temporary(entry.name):
                with suppress(FileNotFoundError):  # another process removed it
                    yield Entry(prefix + entry.name, entry.stat().st_size)

    def leftovers(self) -> Iterator[str]:
        """Yield partly written files, whose writers may be gone; only a local root has such files."""
        for folder, _, names in os.walk(self.local()) if self.is_local else ():
            for name in names:
                if _is_temporary(name):
                    yield (Path(folder) / name).relative_to(self.local()).as_posix()


def _temporary(target: Path, *, locked: bool = False) -> Path:
    """Return a new path beside ``target`` for a file to be renamed to it, and remove abandoned files of that kind.

    ``locked``: the writer will lock the file, so that the file counts as abandoned as soon as the writer is gone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(f".{target.name}.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > ABANDONED_AFTER or (old.name.endswith(LOCKED_SUFFIX) and _is_unlocked(old)):
                old.unlink()
    return target.parent / f".{target.name}.{secrets.token_hex(4)}{LOCKED_SUFFIX if locked else '.tmp'}"


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


@contextmanager
def _written(temporary: Path, content: bytes) -> Iterator[Path]:
    """Write ``content`` to a file and lock it until the end of the block; remove the file then, unless it was renamed."""
    try:
        with temporary.open("xb") as file:
            _lock(file)
            file.write(content)
            file.flush()
            if fcntl is None:
                file.close()  # Windows can't rename an open file
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _is_unlocked(temporary: Path) -> bool:
    """Whether a file has content and no lock; the writer of an empty file may be about to lock it."""
    with temporary.open("rb") as file:
        return os.fstat(file.fileno()).st_size > 0 and _lock(file)


def _lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed or its process ends; return whether the lock was free."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has the lock, or the file system has no locks
        return False
    return True


@contextmanager
def reached(what: str, *, passed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise errors of a store as an OSError that says what failed; errors of the types ``passed`` stay unchanged.

    Without credentials s3fs raises errors that are not an OSError, and the message of a refusal is only "Forbidden".

    Examples
    --------
    >>> with reached("read the index 's3://a/b'"):
    ...     raise PermissionError("Forbidden")
    Traceback (most recent call last):
    PermissionError: can't read the index 's3://a/b': Forbidden; check the location, your credentials and your permissions
    """
    unchanged: tuple[type[Exception], ...] = (ValueError, ImportError, *passed)
    try:
        yield
    except unchanged:
        raise
    except Exception as error:
        kind = next((kind for kind in (PermissionError, FileNotFoundError) if isinstance(error, kind)), OSError)
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise kind(f"can't {what}: {reason}; check the location, your credentials and your permissions") from error
