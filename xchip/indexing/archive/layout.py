"""Names of files in an archive, relative to its root, with ``/`` between folders both on disk and in a bucket."""

from __future__ import annotations

import hashlib
import os
from urllib.parse import quote

from xchip.core.types import PathLike
from xchip.io.storage import StorageOptions
from xchip.io.store import Store

MAX_BYTES = 120
"""Longest folder name. File systems allow 255 bytes, and other programs append to the name."""
KEPT_CHARACTERS = 80
"""Characters of a longer name that stay readable, before a hash."""

ITEMS, INDEX, LEDGER = "items", "index", "ledger"
MANIFEST = "manifest.parquet"
"""Table with one row per part. It is not in ``index/``, so that a reader that opens the whole folder finds only parts."""
PART = "index.parquet"


def archive_store(path: PathLike, storage: StorageOptions | None = None) -> Store:
    """Return the store of an archive's files; a local root becomes absolute."""
    root = os.fspath(path)
    return Store(root if "://" in root else os.path.abspath(os.path.expanduser(root)), storage or StorageOptions())


def folder_name(identifier: str | None) -> str:
    """Return a folder name for the id of an item or a collection: never ``.``, ``..`` or a path, and unique for each id.

    Examples
    --------
    >>> folder_name("S2A_20LKP"), folder_name("a/b c"), folder_name(".."), folder_name("_x"), folder_name(None)
    ('S2A_20LKP', 'a%2Fb%20c', '%2E%2E', '%5Fx', '_')
    """
    if identifier is None:
        return "_"
    name = quote(identifier, safe="", errors="surrogatepass") or "%00"
    if name[0] in "._":
        # "." and ".." can't name a folder, and readers of whole folders skip names that begin with "." or "_".
        dots = len(name) - len(name.lstrip("."))
        name = "%2E" * dots + name[dots:] if dots else f"%5F{name[1:]}"
    if len(name.encode()) <= MAX_BYTES:
        return name
    digest = hashlib.sha256(identifier.encode(errors="surrogatepass")).hexdigest()
    return f"{name[:KEPT_CHARACTERS]}-{digest[:16]}"


def item_name(collection: str | None, item_id: str) -> str:
    """Return the name of an item's JSON.

    Examples
    --------
    >>> item_name("sentinel-2-l2a", "S2A_20LKP")
    'items/sentinel-2-l2a/S2A_20LKP/S2A_20LKP.json'
    """
    folder = folder_name(item_id)
    return f"{ITEMS}/{folder_name(collection)}/{folder}/{folder}.json"


def part_name(collection: str | None, item_id: str) -> str:
    """Return the name of an item's part of the index.

    Examples
    --------
    >>> part_name(None, "a/b")
    'index/_/a%2Fb/index.parquet'
    """
    return f"{INDEX}/{folder_name(collection)}/{folder_name(item_id)}/{PART}"
