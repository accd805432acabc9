"""The files of an index: of an archive, a folder, a bucket, or one by one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xchip.indexing.archive.layout import INDEX, LEDGER, MANIFEST
from xchip.indexing.archive.ledger import parameters_of
from xchip.indexing.archive.manifest import parts_of
from xchip.indexing.opening.query import Query
from xchip.indexing.opening.scan import Piece
from xchip.indexing.opening.schema import options_text
from xchip.indexing.rows import BOA_OFFSET
from xchip.io.storage import StorageOptions
from xchip.io.store import Store, reached
from xchip.sensors.registry import find, names

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Listing:
    """Files of an index, in order."""

    paths: list[str]
    """Full paths or URLs."""
    sizes: list[int | None]
    """Bytes of each, where known."""
    parts: pa.Table | None = None
    """What the manifest of an archive says of each; None where nobody but the files tells."""
    options: str | None = None
    """The grid options that all share, as JSON, where that is known without opening them."""

    def pieces(self) -> list[Piece]:
        """The files as a reader takes them."""
        return [Piece(path, size) for path, size in zip(self.paths, self.sizes, strict=True)]

    def holding(self, query: Query) -> Listing:
        """Only the files that may hold rows of the answer, as far as the manifest tells."""
        if self.parts is None:
            return self
        kept = self.rows > 0
        if query.boxes is not None:
            kept &= query.near(self.bounds)
        if kept.any():
            kept[kept] = query.may_hold(self.parts.filter(kept))
        if kept.all():
            return self
        chosen = np.flatnonzero(kept).tolist()
        paths, sizes = [self.paths[number] for number in chosen], [self.sizes[number] for number in chosen]
        return Listing(paths, sizes, self.parts.filter(kept), self.options)

    @property
    def extra(self) -> pa.Schema:
        """Columns beyond the index's own that parts of an archive may have, by their sensors."""
        import pyarrow as pa

        assert self.parts is not None
        used = [find(name) for name in self.parts["sensor"].unique().to_pylist() if name in names()]
        offsets = any(profile.baseline_offset is not None for profile in used)
        return pa.schema([(BOA_OFFSET, pa.float64())] if offsets else [])

    @property
    def rows(self) -> np.ndarray:
        """Rows of each file: int64 (n,)."""
        assert self.parts is not None
        return self.parts["rows"].to_numpy()

    @property
    def bounds(self) -> np.ndarray:
        """(west, south, east, north) of each file's footprints: float64 (n, 4); NaN without any."""
        assert self.parts is not None
        return np.column_stack([self.parts[side].to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])


def list_files(path: str | os.PathLike[str], storage: StorageOptions) -> Listing:
    """The files of an index.

    An archive is known by its manifest or its ledger; its ``index`` folder, and folders in that, are found in its manifest. Of
    any other folder all ``*.parquet`` files are taken, of one with a folder ``index`` those in there.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    OSError
        If it can't be reached.
    ValueError
        If it holds no index.
    """
    text = os.fspath(path)
    text = text if "://" in text else os.path.abspath(text)
    with reached(f"read the index {text!r}", passed=(FileNotFoundError,)):
        return _files(text, Store(text, storage))


def _files(text: str, store: Store) -> Listing:
    if not text.endswith(".parquet"):
        found = _archive(store, "")
        if found is None and f"/{INDEX}/" in f"{text}/":
            root, _, below = f"{text.rstrip('/')}/".rpartition(f"/{INDEX}/")
            found = _archive(Store(root, store.storage), f"{INDEX}/{below}")
        if found is not None:
            return found
    fs, inner = store.filesystem()
    try:
        facts = fs.info(inner)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is nothing at {text!r}; an index is a Parquet file, a folder of them, or an archive that build_index made"
        ) from None
    if facts["type"] == "file":
        return Listing([store.path()], [facts.get("size")])
    folder = INDEX if store.exists(INDEX) else ""
    files = [
        entry
        for entry in store.entries(folder)
        if entry.name.endswith(".parquet") and not any(name.startswith(".") for name in entry.name.split("/"))
    ]
    if not files:
        raise ValueError(f"there is no index at {text!r}: no *.parquet file in {store.path(folder)!r}")
    return Listing([store.path(entry.name) for entry in files], [entry.size for entry in files])


def _archive(store: Store, folder: str) -> Listing | None:
    """The parts of an archive that lie in ``folder``; None if it is no archive, or has nothing there."""
    import pyarrow.compute as pc

    if not (store.exists(MANIFEST) or store.exists(LEDGER)):
        return None
    parts = parts_of(store)
    if folder:
        parts = parts.filter(pc.starts_with(parts["path"], folder))
    if not len(parts):
        if folder:
            return None
        raise ValueError(f"the archive {store.path()!r} has no parts yet; `xchip status` tells what failed, and why")
    prefix = store.path() + "/"
    paths = [prefix + name for name in parts["path"].to_pylist()]
    return Listing(paths, parts["size"].to_pylist(), parts, options_text(parameters_of(store) or {}))
