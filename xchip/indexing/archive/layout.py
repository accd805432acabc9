"""Where things are in an archive: names below its root, with ``/`` between folders, on disk and in a bucket alike."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

MAX_BYTES = 120
"""Longest folder name; file systems take 255 bytes, and other programs append to it."""
KEPT_CHARACTERS = 80
"""How much of a longer one stays readable, before a hash."""

ITEMS, INDEX, LEDGER = "items", "index", "ledger"
MANIFEST = "manifest.parquet"
"""One row a part. It stays out of ``index/``, so that a reader that opens the whole folder finds nothing but parts."""
PART = "index.parquet"


def folder_name(identifier: str | None) -> str:
    """A folder's name for the id of an item or a collection: never ``.``, ``..`` or a path; the same for the same id.

    Examples
    --------
    >>> folder_name("S2A_20LKP"), folder_name("a/b c"), folder_name(".."), folder_name("_x"), folder_name(None)
    ('S2A_20LKP', 'a%2Fb%20c', '%2E%2E', '%5Fx', '_')
    """
    if identifier is None:
        return "_"
    name = quote(identifier, safe="", errors="surrogatepass") or "%00"
    if name[0] in "._":
        # "." and ".." are no names for a folder; and readers of whole folders pass over what begins with "." or "_".
        dots = len(name) - len(name.lstrip("."))
        name = "%2E" * dots + name[dots:] if dots else f"%5F{name[1:]}"
    if len(name.encode()) <= MAX_BYTES:
        return name
    digest = hashlib.sha256(identifier.encode(errors="surrogatepass")).hexdigest()
    return f"{name[:KEPT_CHARACTERS]}-{digest[:16]}"


def item_name(collection: str | None, item_id: str) -> str:
    """Where the JSON of an item is.

    Examples
    --------
    >>> item_name("sentinel-2-l2a", "S2A_20LKP")
    'items/sentinel-2-l2a/S2A_20LKP/S2A_20LKP.json'
    """
    folder = folder_name(item_id)
    return f"{ITEMS}/{folder_name(collection)}/{folder}/{folder}.json"


def part_name(collection: str | None, item_id: str) -> str:
    """Where the index of an item is.

    Examples
    --------
    >>> part_name(None, "a/b")
    'index/_/a%2Fb/index.parquet'
    """
    return f"{INDEX}/{folder_name(collection)}/{folder_name(item_id)}/{PART}"
