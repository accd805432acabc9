"""List the files of an index: an archive, a folder, a bucket, or a single file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.types import PathLike
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
    """Rows of the archive's manifest, one per file; None if the files are not parts of an archive."""
    options: str | None = None
    """The grid options that all files share, as JSON; None if unknown before the files are opened."""

    def pieces(self) -> list[Piece]:
        """Return the files as pieces to read."""
        return [Piece(path, size) for path, size in zip(self.paths, self.sizes, strict=True)]

    def holding(self, query: Query) -> Listing:
        """Return the listing with only the files that can hold rows of the answer, according to the manifest."""
        if self.parts is None:
            return self
        kept = self.rows > 0
        if query.boxes is not None:
            kept &= query.bounds_touch(self.bounds)
        if kept.any():
            kept[kept] = query.may_hold(self.parts.filter(kept))
        if kept.all():
            return self
        numbers = np.flatnonzero(kept).tolist()
        paths, sizes = [self.paths[number] for number in numbers], [self.sizes[number] for number in numbers]
        return Listing(paths, sizes, self.parts.filter(kept), self.options)

    @property
    def extra(self) -> pa.Schema:
        """Columns beyond the index's own that parts of an archive can have, given their sensors."""
        import pyarrow as pa

        assert self.parts is not None
        profiles = [find(name) for name in self.parts["sensor"].unique().to_pylist() if name in names()]
        offsets = any(profile.baseline_offset is not None for profile in profiles)
        return pa.schema([(BOA_OFFSET, pa.float64())] if offsets else [])

    @property
    def rows(self) -> np.ndarray:
        """Rows of each file: int64 (n,)."""
        assert self.parts is not None
        return self.parts["rows"].to_numpy()

    @property
    def bounds(self) -> np.ndarray:
        """(west, south, east, north) of each file's footprints: float64 (n, 4); NaN without footprints."""
        assert self.parts is not None
        return np.column_stack([self.parts[side].to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])


def list_files(path: PathLike, storage: StorageOptions) -> Listing:
    """List the files of an index.

    A folder with a manifest or a ledger is an archive; the manifest also lists its ``index`` folder, and folders in that. Of
    any other folder the list has all ``*.parquet`` files, or those in its folder ``index`` if there is one.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    OSError
        If it can't be reached.
    ValueError
        If it has no index.
    """
    text = os.fspath(path)
    text = text if "://" in text else os.path.abspath(text)
    with reached(f"read the index {text!r}", passed=(FileNotFoundError,)):
        return _files(text, Store(text, storage))


def _files(text: str, store: Store) -> Listing:
    if not text.endswith(".parquet"):
        listing = _archive(store, "")
        if listing is None and f"/{INDEX}/" in f"{text}/":
            root, _, below = f"{text.rstrip('/')}/".rpartition(f"/{INDEX}/")
            listing = _archive(Store(root, store.storage), f"{INDEX}/{below}")
        if listing is not None:
            return listing
    fs, inner = store.filesystem()
    try:
        info = fs.info(inner)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no index at {text!r}: the path does not exist; an index is a Parquet file, a folder of such files, or an archive "
            "that build_index made"
        ) from None
    if info["type"] == "file":
        return Listing([store.path()], [info.get("size")])
    folder = INDEX if store.exists(INDEX) else ""
    files = [
        entry
        for entry in store.entries(folder)
        if entry.name.endswith(".parquet") and not any(name.startswith(".") for name in entry.name.split("/"))
    ]
    if not files:
        raise ValueError(f"no index at {text!r}: there are no *.parquet files in {store.path(folder)!r}")
    return Listing([store.path(entry.name) for entry in files], [entry.size for entry in files])


def _archive(store: Store, folder: str) -> Listing | None:
    """List the parts of an archive that lie in ``folder``; None if ``store`` is not an archive, or ``folder`` is empty."""
    import pyarrow.compute as pc

    if not (store.exists(MANIFEST) or store.exists(LEDGER)):
        return None
    parts = parts_of(store)
    if folder:
        parts = parts.filter(pc.starts_with(parts["path"], folder))
    if not len(parts):
        if folder:
            return None
        raise ValueError(f"the archive {store.path()!r} has no parts yet; run `xchip status` to see what failed, and why")
    prefix = store.path() + "/"
    paths = [prefix + name for name in parts["path"].to_pylist()]
    return Listing(paths, parts["size"].to_pylist(), parts, options_text(parameters_of(store) or {}))
