"""One schema for the rows of every index file: ours, files that other programs rewrote, and stacchip's tables."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from xchip.indexing.archive.layout import INDEX, PART
from xchip.indexing.rows import COLUMNS, INTEGERS
from xchip.indexing.stacchip.tables import from_stacchip

if TYPE_CHECKING:
    import pyarrow as pa

GRID_OPTIONS = ("size", "stride", "edge", "anchor")

_PART = re.compile(rf"(?P<root>.+)/{INDEX}/[^/]+/[^/]+/{re.escape(PART)}")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__|__null_dask_index__")
_ABSOLUTE = r"^([A-Za-z][A-Za-z0-9+.-]*:|/|\\)"
_LONLAT = ({"authority": "OGC", "code": "CRS84"}, {"authority": "EPSG", "code": 4326})


def archive_of(path: str) -> str | None:
    """Return the root of the archive that a file belongs to, judging by its path; None if it does not look like a part.

    Examples
    --------
    >>> archive_of("s3://bucket/archive/index/naip/m_42/index.parquet")
    's3://bucket/archive'
    """
    place = _PART.fullmatch(path)
    return place["root"] if place else None


def geometry_facts(schema: pa.Schema) -> dict[str, Any]:
    """Return a file's GeoParquet metadata of the column ``geometry``; empty without such metadata."""
    return dict(json.loads((schema.metadata or {}).get(b"geo", "{}")).get("columns", {}).get("geometry", {}))


def grid_options(schema: pa.Schema) -> frozenset[str | None]:
    """Return the grid options of a file's rows, each as the JSON in a frame's attributes; None for unknown ones."""
    text = (schema.metadata or {}).get(b"xchip")
    return frozenset([None]) if text is None else frozenset(options_text(entry["grid"]) for entry in json.loads(text)["grids"])


def options_text(grid: dict[str, Any]) -> str | None:
    """Return size, stride, edge and anchor of a grid's metadata as JSON; None if one is missing."""
    return json.dumps({name: grid[name] for name in GRID_OPTIONS}) if set(GRID_OPTIONS) <= set(grid) else None


def covering(schema: pa.Schema) -> tuple[tuple[str, ...], ...] | None:
    """Return the paths of the columns with west, south, east and north of each geometry; None without such columns."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    paths = geometry_facts(schema).get("covering", {}).get("bbox")
    if paths is not None:
        return tuple(tuple(paths[side]) for side in sides)
    return tuple(("bbox", side) for side in sides) if "bbox" in schema.names else None


def is_stacchip(schema: pa.Schema) -> bool:
    """Return whether a file is one of stacchip's tables."""
    return not set(COLUMNS) <= set(schema.names) and from_stacchip.is_stacchip(schema.names)


def check(schema: pa.Schema, path: str) -> None:
    """Raise ValueError unless a file is an index or one of stacchip's tables, with footprints in a form that xchip reads."""
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing and not is_stacchip(schema):
        raise ValueError(f"{path!r} is not an index: the columns {missing} are missing")
    geometry = geometry_facts(schema)
    encoding = geometry.get("encoding", "WKB")
    if encoding != "WKB":
        raise ValueError(f"{path!r}: its geometry is encoded as {encoding!r}, xchip reads WKB; rewrite the file with WKB")
    crs = geometry.get("crs")  # None means longitude and latitude, also in stacchip's tables, some of which have null
    if crs is not None and crs.get("id") not in _LONLAT and not _is_lonlat(json.dumps(crs)):
        raise ValueError(f"{path!r}: its geometry is not in longitude and latitude; convert it with to_crs('EPSG:4326')")


@lru_cache(maxsize=64)
def _is_lonlat(crs: str) -> bool:
    import pyproj

    return pyproj.CRS.from_user_input(crs).equals("EPSG:4326", ignore_axis_order=True)


def extra_columns(schema: pa.Schema) -> pa.Schema:
    """Return a file's columns beyond the index's own, without columns of bounds and row numbers."""
    import pyarrow as pa

    bounds = covering(schema)
    known = {*COLUMNS, bounds[0][0] if bounds else "bbox", *(from_stacchip.OWN if is_stacchip(schema) else ())}
    extra = [field for field in schema if field.name not in known and not _PANDAS_INDEX.fullmatch(field.name)]
    return pa.schema([(field.name, plain_type(field.type)) for field in extra])


def read_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns of a file that `in_form` needs."""
    names = (*from_stacchip.NEEDED, *from_stacchip.MERGED) if is_stacchip(schema) else COLUMNS
    return [name for name in (*names, *extra_columns(schema).names) if name in schema.names]


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """Return the type without the variants that Parquet does not distinguish: dictionaries, and small and large strings."""
    import pyarrow as pa

    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    return pa.large_string() if pa.types.is_string(dtype) or pa.types.is_string_view(dtype) else dtype


def in_form(table: pa.Table, path: str, schema: pa.Schema, chip_size: int, items_root: str | None = None) -> pa.Table:
    """Convert rows of the file at ``path``, with at least the columns of `read_columns`, to the columns and types of ``schema``.

    ``schema`` has the columns of `arrow_schema`, then extra ones; extra columns that the file lacks are null. ``chip_size`` and
    ``items_root`` are for stacchip's tables. Raises ValueError if a column can't be converted.
    """
    import pyarrow as pa

    if is_stacchip(table.schema):
        table = from_stacchip.as_index(table, path, chip_size, items_root)
    columns = {}
    for field in schema:
        if field.name not in table.column_names:
            columns[field.name] = pa.nulls(len(table), field.type)
            continue
        column = table[field.name]
        try:
            columns[field.name] = _cast(column, field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"{path!r}: column {field.name!r} is {column.type}, not {field.type}: {error}") from error
        if field.name in INTEGERS and column.null_count:
            raise ValueError(f"{path!r}: column {field.name!r} has nulls")
    root = archive_of(path)
    if root is not None and "item_href" in columns:
        columns["item_href"] = _absolute(columns["item_href"], root)
    return pa.table(columns)


def _cast(column: pa.ChunkedArray, dtype: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    # Nanoseconds are cut to microseconds; numbers that do not fit are an error.
    return column if column.type == dtype else column.cast(dtype, safe=not pa.types.is_timestamp(dtype))


def _absolute(hrefs: pa.ChunkedArray, root: str) -> pa.ChunkedArray:
    """Make the hrefs of a part absolute: they can be relative to the archive's root."""
    import pyarrow as pa
    import pyarrow.compute as pc

    coded = hrefs.combine_chunks().dictionary_encode()
    distinct = coded.dictionary
    relative = pc.invert(pc.match_substring_regex(distinct, _ABSOLUTE))
    joined = pc.binary_join_element_wise(pa.scalar(root, pa.large_string()), distinct, pa.scalar("/", pa.large_string()))
    return pa.chunked_array([pc.if_else(relative, joined, distinct).take(coded.indices)])
