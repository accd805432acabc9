"""Reading items from whatever callers have: pystac objects, dicts, files, URLs, stac-geoparquet."""

from __future__ import annotations

import datetime as dt
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin

from xchip.stac.fields import mapping, text

Found = tuple[dict[str, Any], str | None]
"""(item as plain JSON with absolute hrefs, href of its JSON)."""

_ACCEPTED = "pystac Items, an ItemCollection or an ItemSearch, dicts, paths or URLs (.json, .geojson, .ndjson, .parquet)"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_PARQUET = (".parquet", ".geoparquet", ".pq")
_LINES = (".ndjson", ".jsonl", ".geojsonl", ".ndgeojson")


OnError = Callable[[str, Exception], None]
"""Told of (what could not be read, why)."""
OpenFile = Callable[[str], AbstractContextManager[Any]]
"""A path or URL -> a binary file."""


def open_file(path: str) -> AbstractContextManager[Any]:
    """A file to read, by fsspec as the environment sets it up."""
    import fsspec

    return fsspec.open(path, "rb")


class How(NamedTuple):
    """How items are read."""

    on_error: OnError
    open_file: OpenFile = open_file


def plain_items(items: Any, *, on_error: OnError | None = None, open_file: OpenFile = open_file) -> Iterator[Found]:
    """Each item as plain JSON, with the href of its JSON (None where unknown), one after another.

    Parameters
    ----------
    items
        pystac Items, an ItemCollection, an ItemSearch, dicts (an Item or a FeatureCollection), paths or URLs of JSON, newline
        delimited JSON or stac-geoparquet; one, or any iterable of them.
    on_error
        Called for each of several that can't be read, in place of an exception, which would end it all.
    open_file
        Opens files and URLs of items; by fsspec if not given.

    Yields
    ------
    tuple of (dict, str or None)
        Asset hrefs are absolute: relative ones are resolved against the item's file, else against its self link.

    Raises
    ------
    ValueError
        Where there are no items, or something is no item; the message names what it was.

    Examples
    --------
    >>> item = {"type": "Feature", "id": "a", "properties": {}, "assets": {"red": {"href": "./red.tif"}},
    ...         "links": [{"rel": "self", "href": "https://example.com/a/a.json"}]}
    >>> [(found["assets"]["red"]["href"], href) for found, href in plain_items([item])]
    [('https://example.com/a/red.tif', 'https://example.com/a/a.json')]
    """
    empty = True

    def note(what: str, error: Exception) -> None:
        nonlocal empty
        empty = False
        if on_error is None:
            raise error
        on_error(what, error)

    for found in open_items(items, How(note, open_file)):
        empty = False
        yield found
    if empty:
        raise ValueError(f"no items: {_describe(items)} has none; pass {_ACCEPTED}")


def open_items(items: Any, how: How) -> Iterator[Found]:
    """As `plain_items`, but there may be none."""
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
            yield from _each(open_items(entry, how), _describe(entry), how)
    else:
        raise ValueError(f"{_describe(items)} is no STAC item; pass {_ACCEPTED}")


def _each(found: Iterator[Found], what: str, how: How) -> Iterator[Found]:
    """One of several sources: what is wrong with it does not end the others."""
    try:
        yield from found
    except (ValueError, OSError) as error:
        how.on_error(what, error)


def _from_pystac(items: Any, how: How) -> Iterator[Found]:
    kind = type(items).__name__
    if kind == "ItemCollection":
        for item in items:
            yield from _each(_from_pystac(item, how), _describe(item), how)
    elif hasattr(items, "get_items"):
        raise ValueError(f"a pystac {kind} ({items.id!r}) is no item; pass its items: {kind.lower()}.get_items()")
    elif hasattr(items, "assets") and hasattr(items, "to_dict"):
        yield from _from_json(items.to_dict(transform_hrefs=False), items.get_self_href(), f"pystac {kind}", how)
    else:
        raise ValueError(f"a {type(items).__module__}.{kind} is no STAC item; pass {_ACCEPTED}")


def _from_json(value: Any, href: str | None, what: str, how: How, *, folder: str | None = None) -> Iterator[Found]:
    """``href``: where the item's own JSON is; ``folder``: a file of several items, for hrefs that nothing else resolves."""
    if isinstance(value, Mapping) and isinstance(value.get("features"), list):
        for entry in value["features"]:
            one = _from_json(entry, None, what, how, folder=folder or href)
            yield from _each(one, f"{_describe(entry)} of {what}", how)
        return
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} holds {_describe(value)}, which is no STAC item; pass {_ACCEPTED}")
    if not isinstance(value.get("assets"), Mapping) or value.get("type", "Feature") != "Feature":
        raise ValueError(f"{what} holds {_describe(value)}, which is no STAC item (type 'Feature' with assets); pass {_ACCEPTED}")
    own = href or self_href(value)
    yield resolved(dict(value), own or folder), own


def self_href(item: Mapping[str, Any]) -> str | None:
    """The item's self link, if it is absolute."""
    links = item.get("links")
    for link in links if isinstance(links, (list, tuple)) else ():
        href = text(mapping(link).get("href"))
        if mapping(link).get("rel") == "self" and href and is_absolute(href):
            return _local(href)
    return None


def is_absolute(href: str) -> bool:
    """Whether ``href`` needs nothing else: a URL, an absolute path, or a /vsi path."""
    return bool(_SCHEME.match(href)) or href.startswith("/") or os.path.isabs(href)


def _local(href: str) -> str:
    """file:///a%20b -> /a b; the rest as it is."""
    return unquote(href[len("file://") :]) if href.startswith("file:///") else href


def resolve(href: str, base: str | None) -> str:
    """``href`` made absolute against the JSON at ``base``.

    Examples
    --------
    >>> resolve("../red.tif", "s3://bucket/items/a/a.json")
    's3://bucket/items/red.tif'
    """
    if base is None or is_absolute(href):
        # A path from the root is a local file also in the answer of a server, as for pystac.
        return _local(href)
    if _is_http(base):
        return urljoin(base, href)
    scheme = _SCHEME.match(base)
    prefix = scheme.group(0) if scheme else ""
    folder = posixpath.dirname(base[len(prefix) :].replace(os.sep, "/"))
    return prefix + posixpath.normpath(posixpath.join(folder, href))


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def resolved(item: dict[str, Any], base: str | None) -> dict[str, Any]:
    """A copy of ``item`` whose asset hrefs, alternate ones too, are absolute."""
    assets: dict[str, Any] = {}
    for key, asset in mapping(item.get("assets")).items():
        assets[key] = asset
        if not isinstance(asset, Mapping):
            continue
        assets[key] = {**asset, "href": resolve(asset["href"], base)} if text(asset.get("href")) else dict(asset)
        alternates = mapping(asset.get("alternate"))
        if alternates:
            assets[key]["alternate"] = {
                name: {**other, "href": resolve(other["href"], base)} if text(mapping(other).get("href")) else other
                for name, other in alternates.items()
            }
    return {**item, "assets": assets}


def _from_file(path: str, how: How) -> Iterator[Found]:
    if not _SCHEME.match(path):
        path = os.path.abspath(os.path.expanduser(path))
        if os.path.isdir(path):
            raise ValueError(f"{path!r} is a folder; pass its item files, such as sorted(Path({path!r}).glob('*.json'))")
        if not os.path.exists(path):
            raise ValueError(f"there is no file {path!r}; items come as {_ACCEPTED}")
    path = _local(path)
    bare = re.split(r"[?#]", path)[0].lower() if _SCHEME.match(path) else path.lower()
    if bare.endswith(_PARQUET):
        for row in _parquet_items(path, how):
            yield from _each(_from_json(row, None, path, how, folder=path), f"{_describe(row)} of {path}", how)
        return
    with _opened(path, how) as file:
        content = file.read()
    if bare.endswith(_LINES):
        for number, line in enumerate(content.splitlines(), 1):
            if line.strip():
                yield from _each(_from_line(line, number, path, how), f"line {number} of {path}", how)
        return
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path!r} is not JSON: {error}") from error
    if not isinstance(value, list):
        yield from _from_json(value, path, path, how, folder=path)
        return
    for entry in value:
        yield from _each(_from_json(entry, None, path, how, folder=path), f"{_describe(entry)} of {path}", how)


@contextmanager
def _opened(path: str, how: How) -> Iterator[Any]:
    try:
        with how.open_file(path) as file:
            yield file
    except FileNotFoundError as error:
        # fsspec says no more than the URL, also where no server answers.
        raise FileNotFoundError(f"can't read {path!r}: {error.__cause__ or 'there is no such file'}") from error


def _from_line(line: bytes, number: int, path: str, how: How) -> Iterator[Found]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} of {path!r} is not JSON: {error}") from error
    yield from _from_json(entry, None, path, how, folder=path)


_TOP_LEVEL = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection")


def _parquet_items(path: str, how: How) -> Iterator[dict[str, Any]]:
    """The rows of a stac-geoparquet file as items: nulls dropped, properties gathered, geometry from WKB."""
    import pyarrow.parquet as pq

    with _opened(path, how) as file:
        try:
            table = pq.ParquetFile(file)
        except ValueError as error:
            raise ValueError(f"{path!r} is no Parquet file: {error}") from error
        absent = [name for name in ("id", "assets") if name not in table.schema_arrow.names]
        if absent:
            raise ValueError(f"{path!r} is no stac-geoparquet: it has no column {' and no '.join(absent)}")
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield _item_of_row(row)


def _item_of_row(row: dict[str, Any]) -> dict[str, Any]:
    known = {name: _plain(row[name], name) for name in _TOP_LEVEL if row.get(name) is not None}
    assets = known.get("assets")
    known["assets"] = json.loads(assets) if isinstance(assets, str) else assets
    box = known.get("bbox")
    if isinstance(box, Mapping):
        known["bbox"] = [box[name] for name in ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax") if name in box]
    properties = {name: _plain(value, name) for name, value in row.items() if name not in _TOP_LEVEL and value is not None}
    return {"type": "Feature", **known, "properties": {"datetime": None, **properties}}


def _plain(value: Any, name: str) -> Any:
    """A value of a Parquet row as JSON has it: nulls of structs dropped, times as text, WKB as GeoJSON."""
    if isinstance(value, dict):
        return {key: _plain(inner, key) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        if value and all(isinstance(entry, tuple) and len(entry) == 2 for entry in value):  # a map column
            return {str(key): _plain(inner, str(key)) for key, inner in value if inner is not None}
        return [_plain(inner, name) for inner in value]
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        import shapely
        from shapely.geometry import mapping as geojson

        return json.loads(json.dumps(geojson(shapely.from_wkb(value))))
    return value


def _describe(value: Any) -> str:
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
