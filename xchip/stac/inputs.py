"""Read STAC items from pystac objects, dicts, JSON files, URLs and stac-geoparquet."""

from __future__ import annotations

import datetime as dt
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import unquote, urljoin

from xchip.core.types import JSON
from xchip.stac.fields import PlainItem, mapping, text

if TYPE_CHECKING:
    from xchip.core.types import Items

Found = tuple[PlainItem, str | None]
"""(item as plain JSON with absolute hrefs, href of its JSON)."""

_ACCEPTED = "pystac Items, an ItemCollection or an ItemSearch, dicts, paths or URLs (.json, .geojson, .ndjson, .parquet)"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_PARQUET = (".parquet", ".geoparquet", ".pq")
_LINES = (".ndjson", ".jsonl", ".geojsonl", ".ndgeojson")


OnError = Callable[[str, Exception], None]
"""Called with (description of the unreadable item or file, error)."""
OpenFile = Callable[[str], AbstractContextManager[BinaryIO]]
"""Opens a path or URL for reading."""


def open_file(path: str) -> AbstractContextManager[BinaryIO]:
    """Open a file for reading with fsspec, configured by the environment."""
    import fsspec

    return fsspec.open(path, "rb")


class How(NamedTuple):
    """Options for reading items."""

    on_error: OnError
    open_file: OpenFile = open_file


def plain_items(items: Items, *, on_error: OnError | None = None, open_file: OpenFile = open_file) -> Iterator[Found]:
    """Yield each item as plain JSON, with the href of its JSON (None if unknown).

    Parameters
    ----------
    items
        One or more items: pystac Items, an ItemCollection, an ItemSearch, dicts (an Item or a FeatureCollection), or paths
        and URLs of JSON, newline-delimited JSON or stac-geoparquet.
    on_error
        Called for each item or file that can't be read; reading continues. None: the error is raised.
    open_file
        Opens files and URLs of items. Default: fsspec.

    Yields
    ------
    tuple of (dict, str or None)
        Asset hrefs are absolute: relative ones are resolved against the item's file, else against its self link.

    Raises
    ------
    ValueError
        If there are no items, or an entry is not an item; the message describes it.

    Examples
    --------
    >>> item = {"type": "Feature", "id": "a", "properties": {}, "assets": {"red": {"href": "./red.tif"}},
    ...         "links": [{"rel": "self", "href": "https://example.com/a/a.json"}]}
    >>> [(plain["assets"]["red"]["href"], href) for plain, href in plain_items([item])]
    [('https://example.com/a/red.tif', 'https://example.com/a/a.json')]
    """
    empty = True

    def report(source: str, error: Exception) -> None:
        nonlocal empty
        empty = False
        if on_error is None:
            raise error
        on_error(source, error)

    for item in open_items(items, How(report, open_file)):
        empty = False
        yield item
    if empty:
        raise ValueError(f"no items: {_describe(items)} has none; pass {_ACCEPTED}")


def open_items(items: Items, how: How) -> Iterator[Found]:
    """Yield items as `plain_items` does, but accept sources without items."""
    if isinstance(items, (str, os.PathLike)):
        yield from _from_file(os.fspath(items), how)
    elif isinstance(items, Mapping):
        yield from _from_json(items, None, _describe(items), how)
    elif hasattr(items, "items_as_dicts"):  # pystac_client.ItemSearch
        for item in items.items_as_dicts():
            yield from _from_json(item, None, "an item of the search", how)
    elif type(items).__module__.partition(".")[0] in ("pystac", "pystac_client"):
        yield from _from_pystac(items, how)
    elif isinstance(items, Iterable) and not isinstance(items, (bytes, bytearray)):
        for entry in items:
            yield from _guarded(open_items(entry, how), _describe(entry), how)
    else:
        raise ValueError(f"{_describe(items)} is not a STAC item; pass {_ACCEPTED}")


def _guarded(items: Iterator[Found], source: str, how: How) -> Iterator[Found]:
    """Yield the items of one of several sources; report an error instead of raising it, so that the other sources are read."""
    try:
        yield from items
    except (ValueError, OSError) as error:
        how.on_error(source, error)


def _from_pystac(value: object, how: How) -> Iterator[Found]:
    kind = type(value).__name__
    if kind == "ItemCollection" and isinstance(value, Iterable):
        for item in value:
            yield from _guarded(_from_pystac(item, how), _describe(item), how)
    elif hasattr(value, "get_items"):
        raise ValueError(
            f"a pystac {kind} ({getattr(value, 'id', None)!r}) is not an item; pass its items: {kind.lower()}.get_items()"
        )
    elif hasattr(value, "assets") and hasattr(value, "to_dict") and hasattr(value, "get_self_href"):
        yield from _from_json(value.to_dict(transform_hrefs=False), value.get_self_href(), f"pystac {kind}", how)
    else:
        raise ValueError(f"a {type(value).__module__}.{kind} is not a STAC item; pass {_ACCEPTED}")


def _from_json(value: object, href: str | None, source: str, how: How, *, folder: str | None = None) -> Iterator[Found]:
    """Yield the items of an Item or FeatureCollection.

    ``href`` is where the item's own JSON is; ``folder`` is a file of several items, the last resort for relative hrefs.
    """
    if isinstance(value, Mapping) and isinstance(value.get("features"), list):
        for entry in value["features"]:
            items = _from_json(entry, None, source, how, folder=folder or href)
            yield from _guarded(items, f"{_describe(entry)} of {source}", how)
        return
    if not isinstance(value, Mapping):
        raise ValueError(f"{source} holds {_describe(value)}, which is not a STAC item; pass {_ACCEPTED}")
    if not isinstance(value.get("assets"), Mapping) or value.get("type", "Feature") != "Feature":
        raise ValueError(
            f"{source} holds {_describe(value)}, which is not a STAC item (type 'Feature' with assets); pass {_ACCEPTED}"
        )
    href = href or self_href(value)
    yield resolved(dict(value), href or folder), href


def self_href(item: JSON) -> str | None:
    """Return the item's self link, if it is absolute."""
    links = item.get("links")
    for link in links if isinstance(links, (list, tuple)) else ():
        href = text(mapping(link).get("href"))
        if mapping(link).get("rel") == "self" and href and is_absolute(href):
            return _local(href)
    return None


def is_absolute(href: str) -> bool:
    """Whether ``href`` is a URL, an absolute path or a /vsi path."""
    return bool(_SCHEME.match(href)) or href.startswith("/") or os.path.isabs(href)


def _local(href: str) -> str:
    """Convert a file URL to a path: file:///a%20b -> /a b; return any other href unchanged."""
    return unquote(href[len("file://") :]) if href.startswith("file:///") else href


def resolve(href: str, base: str | None) -> str:
    """Make ``href`` absolute, relative to the JSON at ``base``.

    Examples
    --------
    >>> resolve("../red.tif", "s3://bucket/items/a/a.json")
    's3://bucket/items/red.tif'
    """
    if base is None or is_absolute(href):
        # As in pystac, a path from the root is a local file, also in the response of a server.
        return _local(href)
    if base.startswith(("http://", "https://")):
        return urljoin(base, href)
    scheme = _SCHEME.match(base)
    prefix = scheme.group(0) if scheme else ""
    folder = posixpath.dirname(base[len(prefix) :].replace(os.sep, "/"))
    return prefix + posixpath.normpath(posixpath.join(folder, href))


def resolved(item: PlainItem, base: str | None) -> PlainItem:
    """Return a copy of ``item`` with absolute asset hrefs, alternate hrefs included."""

    def absolute(asset: JSON) -> JSON:
        return {**asset, "href": resolve(asset["href"], base)} if text(asset.get("href")) else dict(asset)

    assets: PlainItem = {}
    for key, asset in mapping(item.get("assets")).items():
        if not isinstance(asset, Mapping):
            assets[key] = asset
            continue
        alternates = mapping(asset.get("alternate"))
        others = {name: absolute(other) if isinstance(other, dict) else other for name, other in alternates.items()}
        assets[key] = {**absolute(asset), "alternate": others} if others else absolute(asset)
    return {**item, "assets": assets}


def _from_file(path: str, how: How) -> Iterator[Found]:
    if not _SCHEME.match(path):
        path = os.path.abspath(os.path.expanduser(path))
        if os.path.isdir(path):
            raise ValueError(f"{path!r} is a folder; pass its item files, such as sorted(Path({path!r}).glob('*.json'))")
        if not os.path.exists(path):
            raise ValueError(f"file {path!r} does not exist; pass {_ACCEPTED}")
    path = _local(path)
    bare = re.split(r"[?#]", path)[0].lower() if _SCHEME.match(path) else path.lower()
    if bare.endswith(_PARQUET):
        yield from _from_entries(_parquet_items(path, how), path, how)
        return
    with _opened(path, how) as file:
        content = file.read()
    if bare.endswith(_LINES):
        for number, line in enumerate(content.splitlines(), 1):
            if line.strip():
                yield from _guarded(_from_line(line, number, path, how), f"line {number} of {path}", how)
        return
    value = _parsed(content, repr(path))
    if isinstance(value, list):
        yield from _from_entries(value, path, how)
    else:
        yield from _from_json(value, path, path, how, folder=path)


def _from_entries(entries: Iterable[object], path: str, how: How) -> Iterator[Found]:
    for entry in entries:
        yield from _guarded(_from_json(entry, None, path, how, folder=path), f"{_describe(entry)} of {path}", how)


@contextmanager
def _opened(path: str, how: How) -> Iterator[BinaryIO]:
    try:
        with how.open_file(path) as file:
            yield file
    except FileNotFoundError as error:
        # fsspec's message is the URL alone, also when the server can't be reached.
        raise FileNotFoundError(f"can't read {path!r}: {error.__cause__ or 'the file does not exist'}") from error


def _from_line(line: bytes, number: int, path: str, how: How) -> Iterator[Found]:
    yield from _from_json(_parsed(line, f"line {number} of {path!r}"), None, path, how, folder=path)


def _parsed(content: bytes, source: str) -> object:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"{source} is not JSON: {error}") from error


_TOP_LEVEL = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection")


def _parquet_items(path: str, how: How) -> Iterator[PlainItem]:
    """Yield the rows of a stac-geoparquet file as items."""
    import pyarrow.parquet as pq

    with _opened(path, how) as file:
        try:
            table = pq.ParquetFile(file)
        except ValueError as error:
            raise ValueError(f"{path!r} is not a Parquet file: {error}") from error
        absent = [name for name in ("id", "assets") if name not in table.schema_arrow.names]
        if absent:
            raise ValueError(f"{path!r} is not a stac-geoparquet file: it has no column {' and no '.join(absent)}")
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield _item_of_row(row)


def _item_of_row(row: JSON) -> PlainItem:
    values = {name: _plain(value) for name, value in row.items() if value is not None}
    top = {name: values.pop(name) for name in _TOP_LEVEL if name in values}
    assets = top.get("assets")
    top["assets"] = json.loads(assets) if isinstance(assets, str) else assets
    box = top.get("bbox")
    if isinstance(box, Mapping):
        top["bbox"] = [box[name] for name in ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax") if name in box]
    return {"type": "Feature", **top, "properties": {"datetime": None, **values}}


def _plain(value: object) -> object:
    """Convert a Parquet value to JSON: drop nulls of structs, write times as text and WKB as GeoJSON."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        if value and all(isinstance(entry, tuple) and len(entry) == 2 for entry in value):  # a map column
            return {str(key): _plain(inner) for key, inner in value if inner is not None}
        return [_plain(inner) for inner in value]
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        import shapely
        from shapely.geometry import mapping as geojson

        return json.loads(json.dumps(geojson(shapely.from_wkb(value))))
    return value


def _describe(value: object) -> str:
    if isinstance(value, Mapping):
        kind = value.get("type")
        if kind == "Collection" or kind == "Catalog":
            return f"a STAC {kind} ({value.get('id')!r})"
        return f"a {kind} ({value.get('id')!r})" if isinstance(kind, str) else f"a dict with keys {sorted(map(str, value))[:6]}"
    if isinstance(value, (list, tuple, set)):
        return f"an empty {type(value).__name__}" if not value else f"a {type(value).__name__}"
    if isinstance(value, (str, os.PathLike)):
        return repr(os.fspath(value))
    return f"{type(value).__name__} {str(value)[:60]!r}"
