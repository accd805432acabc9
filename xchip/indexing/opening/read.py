"""Indexes in: `open_index` and `read_index`, which read only the files and row groups that can hold rows of the answer."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xchip.indexing.opening import schema as form
from xchip.indexing.opening.listing import Listing, list_files
from xchip.indexing.opening.query import Query, make_query
from xchip.indexing.opening.scan import READERS, Piece, Rows, Surveyed, open_file, read_pieces, survey, union
from xchip.indexing.rows import GRID_ATTRIBUTE, frame_of
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas
    import pandas as pd
    import pyarrow as pa

PARTITION_ROWS = 250_000
"""Rows of a partition: some 100 MB in memory."""
PARTITION_FILES = 300
"""Files of a partition at most: each costs a request or more."""

Path = str | os.PathLike[str]


def read_index(
    path: Path | Sequence[Path],
    bbox: Sequence[float] | None = None,
    filters: Any = None,
    *,
    storage: StorageOptions | None = None,
    chip_size: int = 256,
    items_root: str | None = None,
) -> geopandas.GeoDataFrame:
    """Read an index into memory, or the part of it that lies in a box and meets conditions.

    Only files and row groups that can hold such rows are read: by the archive's manifest, then by the statistics in each file.

    Parameters
    ----------
    path
        An archive, a folder of index files, one ``*.parquet`` file, or a list of these; a local path, or a URL that fsspec opens.
        Tables of stacchip are read too: a file, a folder, or the bucket that its processors filled.
    bbox
        (west, south, east, north) in degrees; west > east crosses the antimeridian. Rows are kept whose footprint touches it.
    filters
        ``[(column, operator, value), ...]``, all of which must hold; a list of such lists, one of which must hold; or an
        expression of ``pyarrow.compute``. Operators: =, ==, !=, <, <=, >, >=, in, not in. A missing number passes no comparison
        but !=: ``("cloud_fraction", "<=", 0.1)`` drops chips without valid pixels. Times may be strings; without a zone they
        are UTC. A list finds the right files sooner than an expression does.
    storage
        How to reach a bucket.
    chip_size
        Pixels of a chip in stacchip's tables, which do not tell. What else they don't tell is null or NaN; their date is taken as
        midnight UTC, and ``cloud_fraction`` is their share of cloud, shadow and defective pixels, made one of the valid pixels.
    items_root
        Folder or bucket with the items of stacchip's tables, where its processors put them: ``<platform>/<item>/stac_item.json``.
        Merged tables do not tell it.

    Returns
    -------
    geopandas.GeoDataFrame
        The columns of an index in their types, whatever wrote the files; then any others. ``item_href`` of an archive's
        part is made absolute; elsewhere it stays as it was written.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    ValueError
        If it is no index, and for a box or filters that make no sense.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = xchip.write_index(ds.chips.index(256, item_id="scene"), f"{folder}/scene.parquet")
    ...     rows = read_index(path, filters=[("chip_index_x", "in", [0, 2]), ("nodata_fraction", "==", 0)])
    >>> rows.chip_id.tolist()
    ['scene-0-0', 'scene-2-0', 'scene-0-1', 'scene-2-1']
    """
    own = {"chip_size": _checked_size(chip_size), "items_root": items_root}
    return as_frame(_read(path, bbox, filters, storage=storage or StorageOptions(), **own))


def open_index(
    path: Path | Sequence[Path],
    bbox: Sequence[float] | None = None,
    filters: Any = None,
    *,
    storage: StorageOptions | None = None,
    chip_size: int = 256,
    items_root: str | None = None,
) -> dask_geopandas.GeoDataFrame:
    """Open an index lazily, or the part of it that lies in a box and meets conditions.

    Parameters and errors are those of `read_index`. Of an archive the manifest is read here and no part; of other files the
    footers are.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        Columns as `read_index` gives them. A partition is some files, or some row groups of a large one, of about 250,000
        rows in all before they are chosen. ``spatial_partitions`` are known: the bounds of the files or row groups. Without
        matching files it has one partition and no rows.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = xchip.write_index(ds.chips.index(256, item_id="scene"), f"{folder}/scene.parquet")
    ...     index = open_index(path, bbox=(-180, -90, 180, 90))
    ...     len(index)
    6
    """
    import dask.dataframe as dd
    import dask_geopandas  # noqa: F401  makes dask build its own kind of frame
    import geopandas
    import pyarrow as pa

    storage = storage or StorageOptions()
    own = {"chip_size": _checked_size(chip_size), "items_root": items_root}
    listings, query = _planned(path, bbox, filters, storage=storage, **own)
    partitions: list[_Partition] = []
    columns, options = [query.schema], set[str | None]()
    for listing in listings:
        if listing.parts is not None:
            options.add(listing.options)
            partitions += _of_manifest(listing)
            continue
        found: list[Surveyed] = []
        with ThreadPoolExecutor(READERS) as pool:
            for pieces, extra, grids in pool.map(partial(survey, query=query, rows=PARTITION_ROWS), listing.pieces()):
                found += pieces
                columns.append(extra)
                options |= grids
        partitions += _of_surveyed(found)
    query = replace(query, schema=pa.unify_schemas(columns, promote_options="permissive"))
    partitions = partitions or [_partition([], np.empty((0, 4)))]
    meta = as_frame(Rows(query.schema.empty_table(), frozenset(options)))
    tasks = [partition.files for partition in partitions]
    frame = dd.from_map(partial(_read_partition, query=query), tasks, meta=meta, enforce_metadata=False, label="open-index")
    frame.spatial_partitions = geopandas.GeoSeries([partition.outline for partition in partitions], crs="EPSG:4326")
    return frame


def rows_of(index: Any, columns: Sequence[str] | None = None, *, storage: StorageOptions | None = None) -> pd.DataFrame:
    """The rows of whatever callers pass as ``index``, in memory.

    Parameters
    ----------
    index
        A path or a list of paths, as for `read_index`; a geopandas or pandas frame; a dask frame, which is computed; or a
        pyarrow Table.
    columns
        Which columns to give; of files only these are converted. All by default.

    Returns
    -------
    pandas.DataFrame
        A GeoDataFrame where the geometry is among the columns and the source had one.

    Raises
    ------
    ValueError
        If a column is not there.
    """
    if isinstance(index, str | os.PathLike | list | tuple):
        return as_frame(_read(index, None, None, columns, storage=storage or StorageOptions()))
    known = column_names(index)
    missing = [name for name in columns or () if name not in known]
    if missing:
        raise ValueError(f"the index has no columns {missing}; it has {known}")
    return frame_of(
        index if columns is None else index.select(list(columns)) if hasattr(index, "select") else index[list(columns)]
    )


def column_names(index: Any, *, storage: StorageOptions | None = None) -> list[str]:
    """Names of the columns of whatever callers pass as ``index``, without its rows; see `rows_of`."""
    if not isinstance(index, str | os.PathLike | list | tuple):
        return [str(name) for name in (index.column_names if hasattr(index, "column_names") else index.columns)]
    storage = storage or StorageOptions()
    paths = [index] if isinstance(index, str | os.PathLike) else index
    extra = _extra_of([list_files(each, storage) for each in paths], storage)
    return list(dict.fromkeys([*form.arrow_schema().names, *extra.names]))


def _read(path: Any, bbox: Any, filters: Any, columns: Any = None, **options: Any) -> Rows:
    listings, query = _planned(path, bbox, filters, columns, **options)
    return read_pieces([piece for listing in listings for piece in listing.pieces()], query)


def _planned(
    path: Any, bbox: Any, filters: Any, columns: Any = None, *, storage: StorageOptions, **options: Any
) -> tuple[list[Listing], Query]:
    """The files that may hold rows of the answer, and the query, checked."""
    import pyarrow as pa

    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise ValueError("no index given: the list of paths is empty")
    listings = [list_files(each, storage) for each in paths]
    query = make_query(bbox, filters, columns, extra=partial(_extra_of, listings, storage), storage=storage, **options)
    listings = [listing.holding(query) for listing in listings]
    told = [listing.extra for listing in listings if listing.parts is not None]
    return listings, replace(query, schema=pa.unify_schemas([query.schema, *told]))


def _extra_of(listings: Sequence[Listing], storage: StorageOptions) -> pa.Schema:
    """Columns beyond the index's own: by the manifest, or the first file, whose columns the others have."""
    import pyarrow as pa

    schemas = [
        listing.extra
        if listing.parts is not None
        else form.extra_columns(open_file(listing.pieces()[0], Query(storage=storage)).schema)
        for listing in listings
    ]
    return pa.unify_schemas(schemas, promote_options="permissive")


def _checked_size(chip_size: Any) -> int:
    if not isinstance(chip_size, int) or chip_size < 1:
        raise ValueError(f"chip_size is a number of pixels, at least 1, got {chip_size!r}")
    return chip_size


# --- partitions -------------------------------------------------------------------------------------------------------


class _Partition(NamedTuple):
    files: bytes
    """Its pieces, packed: those of a million parts would make a graph of hundreds of megabytes."""
    outline: Any
    """A shapely box around its footprints; an empty polygon if it has none."""


def _partition(pieces: Sequence[tuple[Any, ...]], bounds: np.ndarray, mark: str = "") -> _Partition:
    """``mark`` tells the pieces from others of the same names, so that Dask does."""
    import shapely

    packed = zlib.compress(json.dumps([mark, pieces], separators=(",", ":")).encode(), 1)
    around = union(bounds) if len(bounds) else (np.nan,) * 4
    return _Partition(packed, shapely.box(*around) if np.isfinite(around).all() else shapely.Polygon())


def _read_partition(files: bytes, query: Query) -> geopandas.GeoDataFrame:
    """The task of a partition."""
    _, pieces = json.loads(zlib.decompress(files))
    return as_frame(read_pieces([Piece(*piece) for piece in pieces], query))


def _of_manifest(listing: Listing) -> Iterator[_Partition]:
    assert listing.parts is not None
    bounds, marks = listing.bounds, listing.parts["fingerprint"].to_pylist()
    for start, stop in _grouped(listing.rows.tolist()):
        mark = hashlib.sha256("".join(marks[start:stop]).encode()).hexdigest()[:16]
        pieces = list(zip(listing.paths[start:stop], listing.sizes[start:stop], strict=True))
        yield _partition(pieces, bounds[start:stop], mark)


def _of_surveyed(found: Sequence[Surveyed]) -> Iterator[_Partition]:
    for start, stop in _grouped([surveyed.rows for surveyed in found]):
        some = found[start:stop]
        yield _partition([surveyed.piece for surveyed in some], np.array([surveyed.bounds for surveyed in some]))


def _grouped(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) of neighbours that make a partition together."""
    start = held = 0
    for number, count in enumerate(rows):
        if number > start and (held + count > PARTITION_ROWS or number - start == PARTITION_FILES):
            yield start, number
            start, held = number, 0
        held += count
    if rows:
        yield start, len(rows)


# --- Arrow to pandas --------------------------------------------------------------------------------------------------


def as_frame(rows: Rows) -> geopandas.GeoDataFrame:
    """Rows as a frame with the dtypes of `xchip.index.index_frame`; pandas' own without a geometry."""
    import geopandas
    import pandas as pd
    import pyarrow as pa
    import shapely

    columns: dict[str, Any] = {}
    for name, column in zip(rows.table.column_names, rows.table.columns, strict=True):
        if name == "geometry":
            columns[name] = geopandas.array.GeometryArray(shapely.from_wkb(column.to_numpy()), crs="EPSG:4326")
        elif pa.types.is_large_string(column.type):
            columns[name] = pd.arrays.ArrowStringArray(column.combine_chunks())
        else:
            columns[name] = column.to_pandas()
    frame = (geopandas.GeoDataFrame if "geometry" in columns else pd.DataFrame)(columns, copy=False)
    if len(rows.options) == 1 and None not in rows.options:
        frame.attrs[GRID_ATTRIBUTE] = next(iter(rows.options))
    return frame
