"""Indexes in files: GeoParquet 1.1 with a bbox covering, and what xchip adds to it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xchip.core.grid import ChipGrid
from xchip.core.reduce import FRACTIONS
from xchip.indexing.files.geoparquet import Facts, bbox_column, open_writer
from xchip.indexing.files.partitions import compute_parts, frames_of
from xchip.indexing.rows import (
    COLUMNS,
    EDGES,
    GRID_ATTRIBUTE,
    INTEGERS,
    KEPT_CHIPS,
    STRINGS,
    IndexRows,
    IndexSource,
    footprints,
    options_text,
)

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    import pyarrow as pa

SCHEMAS = ("xchip", "stacchip")

PART = "part-{:06d}.parquet"
PARTS = re.compile(r"part-\d+(-[0-9a-f]+)?\.parquet")
"""Names of the files of an index in a folder: those written here, and those of a merged one."""


def write_index(index: Any, path: str | os.PathLike[str], *, schema: str = "xchip") -> str:
    """Write an index as GeoParquet.

    Parameters
    ----------
    index
        A geopandas or dask-geopandas frame with the index's columns; more columns are kept. A lazy one is computed here, one
        task a partition, on the connected Dask cluster if there is one; rows never gather in one place.
    path
        ``*.parquet`` for one file, else a folder that gets a file a partition. Local, or a URL that fsspec opens. A file
        appears whole or not at all. An index that is there already is replaced once the new one is complete.
    schema
        "xchip", or "stacchip" for the columns of stacchip's tables.

    Returns
    -------
    str
        ``path``.

    Raises
    ------
    ValueError
        If the index's columns are missing, for an unknown schema, or if the path ends like a file of another format.
    FileExistsError
        If the folder holds Parquet files that are no index parts.

    Examples
    --------
    >>> import tempfile, geopandas, xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(600, 1000))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_index(ds.chips.index(256, item_id="scene"), f"{folder}/scene.parquet")
    ...     len(geopandas.read_parquet(path))
    6
    """
    if schema not in SCHEMAS:
        raise ValueError(f"schema must be one of {SCHEMAS}, got {schema!r}")
    missing = [] if isinstance(index, IndexSource) else [name for name in COLUMNS if name not in index.columns]
    if missing:
        raise ValueError(f"not an index: the columns {missing} are missing")
    text = os.fspath(path)
    if text.lower().endswith(_OTHER_FILES):
        raise ValueError(f"an index is one file *.parquet or a folder of them, got {text!r}")
    target: _Target = _RemoteTarget(text) if "://" in text else _LocalTarget(text)
    if isinstance(index, IndexSource):
        options: Any = index.options
    else:
        options = getattr(index, "_meta", index).attrs.get(GRID_ATTRIBUTE)
    if text.endswith(".parquet"):
        target.write_one(index, schema, options)
    else:
        target.write_many(index, schema, options)
    return text


_OTHER_FILES = (".csv", ".feather", ".fgb", ".geojson", ".geoparquet", ".gpkg", ".json", ".pq", ".shp")
"""Ends of names that nobody gives a folder."""


class _LocalTarget:
    """A path on this machine's disks."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def write_one(self, index: Any, schema: str, options: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        try:
            _write_file(frames_of(index), aside, schema, options)
            os.replace(aside, self.path)
        finally:
            aside.unlink(missing_ok=True)

    def write_many(self, index: Any, schema: str, options: Any) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        old = sorted(self.path.glob("*.parquet"))
        _check_parts([part.name for part in old], self.path)
        aside = self.path / f".{secrets.token_hex(4)}.tmp"
        aside.mkdir()
        try:
            names = compute_parts(index, _LocalWriter(str(aside), schema, options))
            for name in names:
                os.replace(aside / name, self.path / name)
            for part in old:
                if part.name not in names:
                    part.unlink()
        finally:
            shutil.rmtree(aside)


class _LocalWriter:
    """Writes part ``number`` into a folder."""

    def __init__(self, folder: str, schema: str, options: Any) -> None:
        self.folder, self.schema, self.options = folder, schema, options

    def __call__(self, frame: geopandas.GeoDataFrame, number: int) -> str:
        name = PART.format(number)
        _write_file([frame], Path(self.folder) / name, self.schema, self.options)
        return name


class _RemoteTarget:
    """A URL: each file is one put, so it appears whole or not at all."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def write_one(self, index: Any, schema: str, options: Any) -> None:
        _put(self.url, frames_of(index), schema, options)

    def write_many(self, index: Any, schema: str, options: Any) -> None:
        import fsspec

        fs, folder = fsspec.core.url_to_fs(self.url)
        old = [name.rsplit("/", 1)[-1] for name in (fs.ls(folder, detail=False) if fs.exists(folder) else [])]
        old = [name for name in old if name.endswith(".parquet")]
        _check_parts(old, self.url)
        names = compute_parts(index, _RemoteWriter(self.url, schema, options))
        for name in set(old) - set(names):
            fs.rm_file(f"{folder}/{name}")


class _RemoteWriter:
    """Writes part ``number`` below a URL."""

    def __init__(self, url: str, schema: str, options: Any) -> None:
        self.url, self.schema, self.options = url, schema, options

    def __call__(self, frame: geopandas.GeoDataFrame, number: int) -> str:
        name = PART.format(number)
        _put(f"{self.url}/{name}", [frame], self.schema, self.options)
        return name


_Target = _LocalTarget | _RemoteTarget


def _put(url: str, frames: Any, schema: str, options: Any) -> None:
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    fs.pipe_file(path, index_bytes(frames, schema, options))


def index_bytes(
    frames: Iterable[geopandas.GeoDataFrame | IndexRows],
    schema: str = "xchip",
    options: Any = None,
    *,
    more: dict[str, Any] | None = None,
) -> bytes:
    """A whole index file in memory, a row group a frame; ``more`` joins its ``xchip`` metadata."""
    import io

    buffer = io.BytesIO()
    _write_file(frames, buffer, schema, options, more)
    return buffer.getvalue()


def _check_parts(names: Sequence[str], folder: Any) -> None:
    strangers = [name for name in names if not PARTS.fullmatch(name)]
    if strangers:
        raise FileExistsError(
            f"{folder} holds Parquet files that are no parts of an index, such as {strangers[0]!r}; choose another folder"
        )


def _write_file(frames: Any, target: Any, schema: str, options: Any, more: dict[str, Any] | None = None) -> None:
    """One Parquet file, a row group a frame. The footer comes last: it needs what all frames hold."""
    writer: Any = None
    facts = Facts(options)
    try:
        for frame in frames:
            if isinstance(frame, IndexRows) and schema == "xchip":
                table = _table_of_rows(frame, facts)
            else:
                table = _table_of_frame(frame.to_frame() if isinstance(frame, IndexRows) else frame, schema, facts)
            if writer is None:
                columns = table.schema
                writer = open_writer(target, columns)
            writer.write_table(table if table.schema == columns else table.cast(columns))
        writer.add_key_value_metadata(facts.metadata(schema, more or {}))
    finally:
        if writer is not None:
            writer.close()


def _table_of_rows(rows: IndexRows, facts: Facts) -> pa.Table:
    import pyarrow as pa

    geometry = _geometry_of_rows(rows)
    table = pa.table(rows.columns | {"geometry": geometry.wkb, "bbox": geometry.bbox})
    facts.add(geometry.bounds, np.unique(geometry.types).tolist())
    if len(table):
        facts.add_grids(table, options_text(rows.grid))
    return table


def _table_of_frame(frame: geopandas.GeoDataFrame, schema: str, facts: Facts) -> pa.Table:
    import pandas as pd
    import pyarrow as pa

    # Columns come faster out of a plain frame than out of a geographic one.
    plain, geometry = pd.DataFrame(frame), _geometry(np.asarray(frame.geometry.array))
    columns = (_stacchip_columns if schema == "stacchip" else _columns)(plain)
    table = pa.table(columns | {"geometry": geometry.wkb, "bbox": geometry.bbox})
    facts.add(geometry.bounds, np.unique(geometry.types).tolist())
    if schema == "xchip" and len(table):
        facts.add_grids(table, plain.attrs.get(GRID_ATTRIBUTE))
    return table


class _Geometry(NamedTuple):
    """Footprints as files have them."""

    wkb: pa.Array
    bbox: pa.StructArray
    bounds: np.ndarray
    """float64 (4, rows)."""
    types: np.ndarray
    """Numbers of WKB and of shapely: int (rows,)."""

    def of(self, keep: np.ndarray) -> _Geometry:
        """Those of some rows: bool (rows,)."""
        import pyarrow as pa

        mask = pa.array(keep)
        return _Geometry(self.wkb.filter(mask), self.bbox.filter(mask), self.bounds[:, keep], self.types[keep])


def _geometry(shapes: np.ndarray) -> _Geometry:
    import pyarrow as pa
    import shapely

    bounds = shapely.bounds(shapes).reshape(-1, 4).T
    return _Geometry(pa.array(shapely.to_wkb(shapes), pa.binary()), bbox_column(bounds), bounds, shapely.get_type_id(shapes))


def bounds_of(rows: IndexRows) -> tuple[float, float, float, float] | None:
    """(west, south, east, north) of the rows' footprints; None without rows."""
    if not len(rows):
        return None
    west, south, east, north = _geometry_of_rows(rows).bounds
    return float(west.min()), float(south.min()), float(east.max()), float(north.max())


def _geometry_of_rows(rows: IndexRows) -> _Geometry:
    geometry = _kept_geometry(rows.grid) if len(rows.grid) <= KEPT_CHIPS else _geometry(footprints(rows.grid))
    return geometry if rows.keep is None else geometry.of(rows.keep)


@lru_cache(maxsize=4)
def _kept_geometry(grid: ChipGrid) -> _Geometry:
    return _geometry(footprints(grid))


def _columns(frame: pd.DataFrame) -> dict[str, Any]:
    """All but the geometry, in the schema's order and types; further columns after them."""
    import pyarrow as pa

    # Parquet has one kind of text: Arrow's large one needs no change.
    texts = {name: _column(frame[name], pa.large_string()) for name in (*STRINGS, "proj_code")}
    # Taken as one array, for to take a column out of a frame costs more than to copy it.
    numbers: dict[str, Any] = {}
    for names, dtype in ((INTEGERS, np.int32), ((*EDGES, *FRACTIONS), np.float64)):
        block = np.asfortranarray(frame[list(names)].to_numpy(dtype))
        numbers |= {name: pa.array(block[:, position]) for position, name in enumerate(names)}
    arrays = texts | numbers | {"datetime": _column(frame["datetime"], pa.timestamp("us", tz="UTC"))}
    extra = {name: _column(frame[name], None) for name in frame.columns if name not in COLUMNS and name != "bbox"}
    return {name: arrays[name] for name in COLUMNS[:-1]} | extra


def _column(column: Any, dtype: Any) -> Any:
    import pyarrow as pa

    array = pa.array(column.array, from_pandas=column.dtype.kind != "f")
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return array if dtype is None or array.type == dtype else array.cast(dtype)


def _stacchip_columns(frame: pd.DataFrame) -> dict[str, Any]:
    """stacchip's columns, but the geometry. Its cloud share is of all pixels: cloud, shadow and defective ones."""
    import pyarrow as pa

    nodata = frame["nodata_fraction"].to_numpy()
    masked = sum(frame[f"{name}_fraction"].to_numpy() for name in ("cloud", "shadow", "defective"))
    cloudy = np.where(nodata == 1, 0.0, np.nan_to_num(masked) * (1 - nodata))
    return {
        "chipid": _column(frame["chip_id"], pa.string()),
        "platform": _column(frame["sensor"], pa.string()),
        "item": _column(frame["item_id"], pa.string()),
        "date": pa.array(frame["datetime"].dt.date, pa.date32(), from_pandas=True),
        "chip_index_x": _column(frame["chip_index_x"], pa.int64()),
        "chip_index_y": _column(frame["chip_index_y"], pa.int64()),
        "cloud_cover_percentage": pa.array(cloudy),
        "nodata_percentage": pa.array(nodata),
    }
