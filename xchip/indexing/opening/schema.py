"""One form for the rows of every index file: ours, those that other programs wrote again, and stacchip's tables."""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from xchip.core.reduce import FRACTIONS
from xchip.indexing.archive.layout import INDEX, PART
from xchip.indexing.rows import COLUMNS, EDGES, INTEGERS, STRINGS
from xchip.indexing.stacchip import tables as legacy

if TYPE_CHECKING:
    import pyarrow as pa

GRID_OPTIONS = ("size", "stride", "edge", "anchor")

_PART = re.compile(rf"(?P<root>.+)/{INDEX}/[^/]+/[^/]+/{re.escape(PART)}")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__|__null_dask_index__")
_ABSOLUTE = r"^([A-Za-z][A-Za-z0-9+.-]*:|/|\\)"
_LONLAT = ({"authority": "OGC", "code": "CRS84"}, {"authority": "EPSG", "code": 4326})


@cache
def arrow_schema() -> pa.Schema:
    """The index's columns as Arrow types: what the rows of every file are converted to."""
    import pyarrow as pa

    types: dict[str, Any] = dict.fromkeys((*STRINGS, "proj_code"), pa.large_string())
    types |= dict.fromkeys(INTEGERS, pa.int32()) | dict.fromkeys((*EDGES, *FRACTIONS), pa.float64())
    types |= {"datetime": pa.timestamp("us", tz="UTC"), "geometry": pa.large_binary()}
    return pa.schema([(name, types[name]) for name in COLUMNS])


def archive_of(path: str) -> str | None:
    """The root of the archive that a file is a part of, as far as its path tells.

    Examples
    --------
    >>> archive_of("s3://bucket/archive/index/naip/m_42/index.parquet")
    's3://bucket/archive'
    """
    place = _PART.fullmatch(path)
    return place["root"] if place else None


def geometry_facts(schema: pa.Schema) -> dict[str, Any]:
    """What a file's GeoParquet metadata say of the column ``geometry``; nothing without such metadata."""
    return dict(json.loads((schema.metadata or {}).get(b"geo", "{}")).get("columns", {}).get("geometry", {}))


def grid_options(schema: pa.Schema) -> frozenset[str | None]:
    """The grid options of a file's rows, each as the JSON in a frame's attributes; None for those that it does not tell."""
    text = (schema.metadata or {}).get(b"xchip")
    return frozenset([None]) if text is None else frozenset(options_text(entry["grid"]) for entry in json.loads(text)["grids"])


def options_text(grid: dict[str, Any]) -> str | None:
    """size, stride, edge and anchor among what is known of a grid, as JSON; None if they are not all there."""
    return json.dumps({name: grid[name] for name in GRID_OPTIONS}) if set(GRID_OPTIONS) <= set(grid) else None


def covering(schema: pa.Schema) -> tuple[tuple[str, ...], ...] | None:
    """Paths of the columns that hold west, south, east and north of each geometry; None if there are none."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    named = geometry_facts(schema).get("covering", {}).get("bbox")
    if named is not None:
        return tuple(tuple(named[side]) for side in sides)
    return tuple(("bbox", side) for side in sides) if "bbox" in schema.names else None


def is_stacchip(schema: pa.Schema) -> bool:
    """Whether a file is one of stacchip's tables."""
    return not set(COLUMNS) <= set(schema.names) and legacy.is_stacchip(schema.names)


def check(schema: pa.Schema, path: str) -> None:
    """Raise ValueError unless a file is an index, ours or stacchip's, whose footprints can be read."""
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing and not is_stacchip(schema):
        raise ValueError(f"{path!r} is no index: the columns {missing} are missing")
    geometry = geometry_facts(schema)
    encoding = geometry.get("encoding", "WKB")
    if encoding != "WKB":
        raise ValueError(f"{path!r}: its geometry is encoded as {encoding!r}, xchip reads WKB; write it again as such")
    crs = geometry.get("crs")  # None is longitude and latitude; and so are stacchip's tables, some of which say null
    if crs is not None and crs.get("id") not in _LONLAT and not _is_lonlat(json.dumps(crs)):
        raise ValueError(f"{path!r}: its geometry is not in longitude and latitude; convert it with to_crs('EPSG:4326')")


@lru_cache(maxsize=64)
def _is_lonlat(crs: str) -> bool:
    import pyproj

    return pyproj.CRS.from_user_input(crs).equals("EPSG:4326", ignore_axis_order=True)


def extra_columns(schema: pa.Schema) -> pa.Schema:
    """A file's columns beyond the index's own, without what only bounds the geometry or numbers the rows."""
    import pyarrow as pa

    bounds = covering(schema)
    left_out = {*COLUMNS, bounds[0][0] if bounds else "bbox", *(legacy.OWN if is_stacchip(schema) else ())}
    kept = [field for field in schema if field.name not in left_out and not _PANDAS_INDEX.fullmatch(field.name)]
    return pa.schema([(field.name, plain_type(field.type)) for field in kept])


def read_columns(schema: pa.Schema) -> list[str]:
    """The columns of a file that `in_form` needs."""
    names = (*legacy.NEEDED, *legacy.MERGED) if is_stacchip(schema) else COLUMNS
    return [name for name in (*names, *extra_columns(schema).names) if name in schema.names]


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """The type without differences that Parquet files do not have."""
    import pyarrow as pa

    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    return pa.large_string() if pa.types.is_string(dtype) or pa.types.is_string_view(dtype) else dtype


def in_form(table: pa.Table, path: str, schema: pa.Schema, chip_size: int, items_root: str | None = None) -> pa.Table:
    """Rows of a file in the index's columns and types, then extra ones.

    Parameters
    ----------
    table
        Some rows, with at least the columns of `read_columns`; ``path`` is the file's.
    schema
        The columns wanted: those of `arrow_schema`, then extra ones. What the file lacks of the latter is null.
    chip_size, items_root
        Pixels of a chip, and where items are, for stacchip's tables.

    Raises
    ------
    ValueError
        If a column can't be converted.
    """
    import pyarrow as pa

    if is_stacchip(table.schema):
        table = legacy.as_index(table, path, chip_size, items_root)
    columns = {}
    for field in schema:
        if field.name not in table.column_names:
            columns[field.name] = pa.nulls(len(table), field.type)
            continue
        found = table[field.name]
        try:
            columns[field.name] = _cast(found, field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"{path!r}: column {field.name!r} is {found.type}, not {field.type}: {error}") from error
        if field.name in INTEGERS and found.null_count:
            raise ValueError(f"{path!r}: column {field.name!r} has nulls")
    root = archive_of(path)
    if root is not None and "item_href" in columns:
        columns["item_href"] = _absolute(columns["item_href"], root)
    return pa.table(columns)


def _cast(column: pa.ChunkedArray, wanted: Any) -> pa.ChunkedArray:
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    # Nanoseconds are cut to microseconds; numbers that do not fit are an error.
    return column if column.type == wanted else column.cast(wanted, safe=not pa.types.is_timestamp(wanted))


def _absolute(hrefs: pa.ChunkedArray, root: str) -> pa.ChunkedArray:
    """hrefs of a part, which may be relative to the archive's root, as they can be read from anywhere."""
    import pyarrow as pa
    import pyarrow.compute as pc

    coded = hrefs.combine_chunks().dictionary_encode()
    known = coded.dictionary
    relative = pc.invert(pc.match_substring_regex(known, _ABSOLUTE))
    joined = pc.binary_join_element_wise(pa.scalar(root, pa.large_string()), known, pa.scalar("/", pa.large_string()))
    return pa.chunked_array([pc.if_else(relative, joined, known).take(coded.indices)])
