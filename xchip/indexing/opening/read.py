"""Read an index: `open_index` and `read_index` read only the files and row groups that can hold matching rows."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from xchip.core.deprecation import warn_deprecated
from xchip.core.types import BBox, Filters, Frame, IndexLike, PathLike
from xchip.indexing.files.geoparquet import arrow_schema
from xchip.indexing.opening import schema as form
from xchip.indexing.opening.listing import Listing, list_files
from xchip.indexing.opening.query import Query, make_query
from xchip.indexing.opening.scan import READERS, Piece, Rows, Surveyed, open_file, read_pieces, survey, union
from xchip.indexing.rows import GRID_ATTRIBUTE, frame_of
from xchip.indexing.stacchip.tables.from_stacchip import StacchipOptions
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas
    import pandas as pd
    import pyarrow as pa
    import shapely

PARTITION_ROWS = 250_000
"""Rows of a partition: about 100 MB in memory."""
PARTITION_FILES = 300
"""Largest number of files in a partition: each costs at least one request."""


def read_index(
    path: PathLike | Sequence[PathLike],
    bbox: BBox | None = None,
    filters: Filters | None = None,
    *,
    storage: StorageOptions | None = None,
    chip_size: int | None = None,
    items_root: str | None = None,
) -> geopandas.GeoDataFrame:
    """Read an index into memory, or only the rows that lie in a box and meet conditions.

    The archive's manifest, then the statistics in each file, decide which files and row groups are read.

    Parameters
    ----------
    path
        An archive, a folder of index files, one ``*.parquet`` file, or a list of these; a local path, or a URL that fsspec opens.
        Tables of stacchip are recognised: a file, a folder, or the bucket that its processors filled. See
        `xchip.stacchip.read_index`.
    bbox
        (west, south, east, north) in degrees; west > east crosses the antimeridian. Rows are kept whose footprint touches it.
    filters
        ``[(column, operator, value), ...]``, all of which must hold; a list of such lists, one of which must hold; or an
        expression of ``pyarrow.compute``. Operators: =, ==, !=, <, <=, >, >=, in, not in. A missing number passes no comparison
        but !=: ``("cloud_fraction", "<=", 0.1)`` drops chips without valid pixels. Times can be strings; without a time zone
        they are UTC. A list finds the right files sooner than an expression does.
    storage
        How to reach a bucket.
    chip_size, items_root
        Deprecated: use `xchip.stacchip.read_index`.

    Returns
    -------
    geopandas.GeoDataFrame
        The columns of an index in their types, whichever program wrote the files; then any others. ``item_href`` of an
        archive's part is made absolute; elsewhere it stays as it was written.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ValueError
        If ``path`` is not an index, or if ``bbox`` or ``filters`` are not valid.

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
    if chip_size is not None or items_root is not None:
        warn_deprecated(
            "read_index(chip_size=, items_root=)", instead="xchip.stacchip.read_index()", since="0.1", removed_in="0.2"
        )
    stacchip = StacchipOptions(256 if chip_size is None else chip_size, items_root)
    return as_frame(read_rows(path, bbox, filters, storage=storage, stacchip=stacchip))


def open_index(
    path: PathLike | Sequence[PathLike],
    bbox: BBox | None = None,
    filters: Filters | None = None,
    *,
    storage: StorageOptions | None = None,
    chip_size: int | None = None,
    items_root: str | None = None,
) -> dask_geopandas.GeoDataFrame:
    """Open an index lazily, or only the rows that lie in a box and meet conditions.

    Parameters and errors are those of `read_index`. This call reads the manifest of an archive and none of its parts; of other
    files it reads the footers.

    Parameters
    ----------
    chip_size, items_root
        Deprecated: use `xchip.stacchip.open_index`.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        Columns as `read_index` gives them. A partition is some files, or some row groups of a large one: about 250,000
        rows before the box and the conditions apply. ``spatial_partitions`` are the bounds of the files or row groups. Without
        matching files the frame has one partition and no rows.

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
    if chip_size is not None or items_root is not None:
        warn_deprecated(
            "open_index(chip_size=, items_root=)", instead="xchip.stacchip.open_index()", since="0.1", removed_in="0.2"
        )
    stacchip = StacchipOptions(256 if chip_size is None else chip_size, items_root)
    return lazy_frame(path, bbox, filters, storage=storage, stacchip=stacchip)


def lazy_frame(
    path: PathLike | Sequence[PathLike],
    bbox: BBox | None,
    filters: Filters | None,
    *,
    storage: StorageOptions | None,
    stacchip: StacchipOptions,
) -> dask_geopandas.GeoDataFrame:
    """Open an index lazily, as `open_index` does."""
    import dask.dataframe as dd
    import dask_geopandas  # noqa: F401  makes dask build its own kind of frame
    import geopandas
    import pyarrow as pa

    listings, query = _planned(path, bbox, filters, storage=storage, stacchip=stacchip)
    partitions: list[_Partition] = []
    columns, options = [query.schema], set[str | None]()
    for listing in listings:
        if listing.parts is not None:
            options.add(listing.options)
            partitions += _of_manifest(listing)
            continue
        groups: list[Surveyed] = []
        with ThreadPoolExecutor(READERS) as pool:
            for pieces, extra, grids in pool.map(partial(survey, query=query, rows=PARTITION_ROWS), listing.pieces()):
                groups += pieces
                columns.append(extra)
                options |= grids
        partitions += _of_surveyed(groups)
    query = replace(query, schema=pa.unify_schemas(columns, promote_options="permissive"))
    partitions = partitions or [_partition([], np.empty((0, 4)))]
    meta = as_frame(Rows(query.schema.empty_table(), frozenset(options)))
    tasks = [partition.files for partition in partitions]
    frame = dd.from_map(partial(_read_partition, query=query), tasks, meta=meta, enforce_metadata=False, label="open-index")
    frame.spatial_partitions = geopandas.GeoSeries([partition.outline for partition in partitions], crs="EPSG:4326")
    return frame


def rows_of(index: IndexLike, columns: Sequence[str] | None = None, *, storage: StorageOptions | None = None) -> pd.DataFrame:
    """Return the rows of an index, in memory: a GeoDataFrame if the geometry is among ``columns`` and the source has one.

    ``index`` is a path or a list of paths, as for `read_index`; a geopandas or pandas frame; a dask frame, which is computed; or
    a pyarrow Table. Of files only ``columns`` are converted. Raises ValueError if a column does not exist.
    """
    import pyarrow as pa

    if isinstance(index, str | os.PathLike | list | tuple):
        return as_frame(read_rows(index, columns=columns, storage=storage))
    names, table = column_names(index), cast("Frame", index)
    missing = [name for name in columns or () if name not in names]
    if missing:
        raise ValueError(f"the index has no columns {missing}; it has {names}")
    if columns is not None:
        names = list(columns)
        table = cast("pa.Table", table).select(names) if isinstance(table, pa.Table) else table[names]
    return frame_of(table)


def column_names(index: IndexLike, *, storage: StorageOptions | None = None) -> list[str]:
    """Return the names of an index's columns without reading its rows; ``index`` is as for `rows_of`."""
    if not isinstance(index, str | os.PathLike | list | tuple):
        table = cast("Frame", index)
        if not (hasattr(table, "dtypes") or hasattr(table, "column_names")):
            raise TypeError(
                f"an index is a path, a list of paths, a pandas, geopandas or dask frame, or a pyarrow Table, got a "
                f"{type(index).__name__}; pass the index itself"
            )
        return [str(name) for name in (table.columns if hasattr(table, "dtypes") else table.column_names)]
    storage = storage or StorageOptions()
    extra = _extra_columns([list_files(path, storage) for path in _paths(index)], storage)
    return list(dict.fromkeys([*arrow_schema().names, *extra.names]))


def read_rows(
    path: PathLike | Sequence[PathLike],
    bbox: BBox | None = None,
    filters: Filters | None = None,
    columns: Sequence[str] | None = None,
    *,
    storage: StorageOptions | None = None,
    stacchip: StacchipOptions | None = None,
) -> Rows:
    """Read the matching rows of an index; parameters are those of `read_index` and `rows_of`."""
    listings, query = _planned(path, bbox, filters, columns, storage=storage, stacchip=stacchip)
    return read_pieces([piece for listing in listings for piece in listing.pieces()], query)


def _paths(path: PathLike | Sequence[PathLike]) -> list[PathLike]:
    return [path] if isinstance(path, str | os.PathLike) else list(path)


def _planned(
    path: PathLike | Sequence[PathLike],
    bbox: BBox | None,
    filters: Filters | None,
    columns: Sequence[str] | None = None,
    *,
    storage: StorageOptions | None,
    stacchip: StacchipOptions | None,
) -> tuple[list[Listing], Query]:
    """Check the query, and list the files that can hold matching rows."""
    import pyarrow as pa

    storage = storage or StorageOptions()
    paths = _paths(path)
    if not paths:
        raise ValueError("no index given: the list of paths is empty")
    listings = [list_files(path, storage) for path in paths]
    extra = partial(_extra_columns, listings, storage)
    query = make_query(bbox, filters, columns, extra=extra, storage=storage, stacchip=stacchip)
    listings = [listing.holding(query) for listing in listings]
    listed = [listing.extra for listing in listings if listing.parts is not None]
    return listings, replace(query, schema=pa.unify_schemas([query.schema, *listed]))


def _extra_columns(listings: Sequence[Listing], storage: StorageOptions) -> pa.Schema:
    """Columns beyond the index's own: from the manifest, or from the first file, because all files have the same."""
    import pyarrow as pa

    schemas = [
        listing.extra
        if listing.parts is not None
        else form.extra_columns(open_file(listing.pieces()[0], Query(storage=storage)).schema)
        for listing in listings
    ]
    return pa.unify_schemas(schemas, promote_options="permissive")


# --- partitions -------------------------------------------------------------------------------------------------------


class _Partition(NamedTuple):
    files: bytes
    """Its pieces as compressed JSON: the pieces of a million parts would make a graph of hundreds of megabytes."""
    outline: shapely.Polygon
    """A box around its footprints; empty if it has none."""


def _partition(pieces: Sequence[tuple[object, ...]], bounds: np.ndarray, mark: str = "") -> _Partition:
    """``mark`` makes Dask's keys differ where pieces of equal names have other content."""
    import shapely

    packed = zlib.compress(json.dumps([mark, pieces], separators=(",", ":")).encode(), 1)
    around = union(bounds) if len(bounds) else (np.nan,) * 4
    return _Partition(packed, shapely.box(*around) if np.isfinite(around).all() else shapely.Polygon())


def _read_partition(files: bytes, query: Query) -> geopandas.GeoDataFrame:
    """Run the task of a partition."""
    _, pieces = json.loads(zlib.decompress(files))
    return as_frame(read_pieces([Piece(*piece) for piece in pieces], query))


def _of_manifest(listing: Listing) -> Iterator[_Partition]:
    assert listing.parts is not None
    bounds, marks = listing.bounds, listing.parts["fingerprint"].to_pylist()
    for start, stop in _grouped(listing.rows.tolist()):
        mark = hashlib.sha256("".join(marks[start:stop]).encode()).hexdigest()[:16]
        pieces = list(zip(listing.paths[start:stop], listing.sizes[start:stop], strict=True))
        yield _partition(pieces, bounds[start:stop], mark)


def _of_surveyed(surveyed: Sequence[Surveyed]) -> Iterator[_Partition]:
    for start, stop in _grouped([groups.rows for groups in surveyed]):
        members = surveyed[start:stop]
        yield _partition([groups.piece for groups in members], np.array([groups.bounds for groups in members]))


def _grouped(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of neighbouring entries that make one partition."""
    start = total = 0
    for number, count in enumerate(rows):
        if number > start and (total + count > PARTITION_ROWS or number - start == PARTITION_FILES):
            yield start, number
            start, total = number, 0
        total += count
    if rows:
        yield start, len(rows)


# --- Arrow to pandas --------------------------------------------------------------------------------------------------


def as_frame(rows: Rows) -> geopandas.GeoDataFrame:
    """Convert rows to a frame with the dtypes of `index_frame`; a pandas frame if there is no geometry."""
    import geopandas
    import pandas as pd
    import pyarrow as pa
    import shapely

    columns: dict[str, pd.api.extensions.ExtensionArray | pd.Series] = {}
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
