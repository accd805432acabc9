"""Write indexes: GeoParquet 1.1 with a bbox covering, and xchip's metadata."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from xchip.core.grid import ChipGrid
from xchip.core.reduce import FRACTIONS
from xchip.core.types import BBox, PathLike
from xchip.indexing.files.geoparquet import Facts, bbox_column, open_writer
from xchip.indexing.files.partitions import Index, Part, compute_parts, frames_of
from xchip.indexing.rows import (
    COLUMNS,
    EDGES,
    GRID_ATTRIBUTE,
    INTEGERS,
    KEPT_CHIPS,
    STRINGS,
    ArrowColumn,
    IndexRows,
    IndexSource,
    arrow_column,
    footprints,
    options_text,
)
from xchip.indexing.stacchip.tables.to_stacchip import stacchip_columns

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

SCHEMAS = ("xchip", "stacchip")

PART = "part-{:06d}.parquet"
PARTS = re.compile(r"part-\d+(-[0-9a-f]+)?\.parquet")
"""Names of the files of an index in a folder: those that `write_index` writes, and those of a merged index."""

Frames: TypeAlias = Iterable[Part]


def write_index(index: Index, path: PathLike, *, schema: str = "xchip") -> str:
    """Write an index as GeoParquet.

    Parameters
    ----------
    index
        A geopandas or dask-geopandas frame with the index's columns; other columns are kept. A lazy frame is computed, one task
        per partition, on the connected Dask cluster if there is one; no process holds all rows.
    path
        ``*.parquet`` for one file, else a folder with one file per partition. A local path, or a URL that fsspec opens. Each
        file is written completely or not at all. An existing index is replaced once the new one is complete.
    schema
        "xchip", or "stacchip" for the columns of stacchip's tables.

    Returns
    -------
    str
        ``path``.

    Raises
    ------
    ValueError
        If columns of the index are missing, if ``schema`` is unknown, or if ``path`` ends like a file of another format.
    FileExistsError
        If the folder has Parquet files that are not parts of an index.

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
        raise ValueError(f"path must be one file *.parquet or a folder of such files, got {text!r}")
    target: _Target = _RemoteTarget(text) if "://" in text else _LocalTarget(text)
    options = index.options if isinstance(index, IndexSource) else getattr(index, "_meta", index).attrs.get(GRID_ATTRIBUTE)
    if text.endswith(".parquet"):
        target.write_one(index, schema, options)
    else:
        target.write_many(index, schema, options)
    return text


_OTHER_FILES = (".csv", ".feather", ".fgb", ".geojson", ".geoparquet", ".gpkg", ".json", ".pq", ".shp")
"""Suffixes of files, so a path that ends like this is a mistake and not a folder."""


class _LocalTarget:
    """A path on a local disk."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def write_one(self, index: Index, schema: str, options: str | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        try:
            _write_file(frames_of(index), aside, schema, options)
            os.replace(aside, self.path)
        finally:
            aside.unlink(missing_ok=True)

    def write_many(self, index: Index, schema: str, options: str | None) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        old = sorted(self.path.glob("*.parquet"))
        _check_parts([part.name for part in old], self.path)
        aside = self.path / f".{secrets.token_hex(4)}.tmp"
        aside.mkdir()
        try:
            names = compute_parts(index, partial(_write_part, str(aside), schema, options))
            for name in names:
                os.replace(aside / name, self.path / name)
            for part in old:
                if part.name not in names:
                    part.unlink()
        finally:
            shutil.rmtree(aside)


def _write_part(folder: str, schema: str, options: str | None, frame: Part, number: int) -> str:
    name = PART.format(number)
    _write_file([frame], Path(folder) / name, schema, options)
    return name


class _RemoteTarget:
    """A URL: one put writes a file, so it appears complete or not at all."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def write_one(self, index: Index, schema: str, options: str | None) -> None:
        _put(self.url, frames_of(index), schema, options)

    def write_many(self, index: Index, schema: str, options: str | None) -> None:
        import fsspec

        fs, folder = fsspec.core.url_to_fs(self.url)
        old = [name.rsplit("/", 1)[-1] for name in (fs.ls(folder, detail=False) if fs.exists(folder) else [])]
        old = [name for name in old if name.endswith(".parquet")]
        _check_parts(old, self.url)
        names = compute_parts(index, partial(_put_part, self.url, schema, options))
        for name in set(old) - set(names):
            fs.rm_file(f"{folder}/{name}")


def _put_part(url: str, schema: str, options: str | None, frame: Part, number: int) -> str:
    name = PART.format(number)
    _put(f"{url}/{name}", [frame], schema, options)
    return name


_Target = _LocalTarget | _RemoteTarget


def _put(url: str, frames: Frames, schema: str, options: str | None) -> None:
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    fs.pipe_file(path, index_bytes(frames, schema, options))


def index_bytes(
    frames: Frames, schema: str = "xchip", options: str | None = None, *, more: dict[str, Any] | None = None
) -> bytes:
    """Return an index file as bytes, with one row group per frame; ``more`` is added to its ``xchip`` metadata."""
    import io

    buffer = io.BytesIO()
    _write_file(frames, buffer, schema, options, more)
    return buffer.getvalue()


def _check_parts(names: Sequence[str], folder: PathLike) -> None:
    others = [name for name in names if not PARTS.fullmatch(name)]
    if others:
        raise FileExistsError(
            f"{folder} has Parquet files that are not parts of an index, such as {others[0]!r}; choose another folder"
        )


def _write_file(
    frames: Frames, target: PathLike | IO[bytes], schema: str, options: str | None, more: dict[str, Any] | None = None
) -> None:
    """Write one Parquet file, a row group per frame. The footer comes last because its metadata depend on all frames."""
    writer: pq.ParquetWriter | None = None
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
        assert writer is not None, "an index has at least one frame"
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

    # Columns come faster from a pandas frame than from a GeoDataFrame.
    plain, geometry = pd.DataFrame(frame), _geometry(np.asarray(frame.geometry.array))
    columns = (stacchip_columns if schema == "stacchip" else _columns)(plain)
    table = pa.table(columns | {"geometry": geometry.wkb, "bbox": geometry.bbox})
    facts.add(geometry.bounds, np.unique(geometry.types).tolist())
    if schema == "xchip" and len(table):
        facts.add_grids(table, plain.attrs.get(GRID_ATTRIBUTE))
    return table


class _Geometry(NamedTuple):
    """Footprints in the form of files."""

    wkb: pa.Array
    bbox: pa.StructArray
    bounds: np.ndarray
    """float64 (4, rows)."""
    types: np.ndarray
    """Type numbers, the same in WKB and shapely: int (rows,)."""

    def of(self, keep: np.ndarray) -> _Geometry:
        """Return the footprints where ``keep``, bool (rows,), is True."""
        import pyarrow as pa

        mask = pa.array(keep)
        return _Geometry(self.wkb.filter(mask), self.bbox.filter(mask), self.bounds[:, keep], self.types[keep])


def _geometry(shapes: np.ndarray) -> _Geometry:
    import pyarrow as pa
    import shapely

    bounds = shapely.bounds(shapes).reshape(-1, 4).T
    return _Geometry(pa.array(shapely.to_wkb(shapes), pa.binary()), bbox_column(bounds), bounds, shapely.get_type_id(shapes))


def bounds_of(rows: IndexRows) -> BBox | None:
    """Return (west, south, east, north) of the rows' footprints; None without rows."""
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


def _columns(frame: pd.DataFrame) -> dict[str, ArrowColumn]:
    """Return all columns except the geometry, in the schema's order and types; further columns after them."""
    import pyarrow as pa

    # large_string is the type that frames have, so no conversion is needed; Parquet does not distinguish the two.
    texts = {name: arrow_column(frame[name], pa.large_string()) for name in (*STRINGS, "proj_code")}
    # Columns of one type come out as one array, because to take a column out of a frame costs more than to copy it.
    numbers: dict[str, ArrowColumn] = {}
    for names, dtype in ((INTEGERS, np.int32), ((*EDGES, *FRACTIONS), np.float64)):
        block = np.asfortranarray(frame[list(names)].to_numpy(dtype))
        numbers |= {name: pa.array(block[:, position]) for position, name in enumerate(names)}
    arrays = texts | numbers | {"datetime": arrow_column(frame["datetime"], pa.timestamp("us", tz="UTC"))}
    extra = {name: arrow_column(frame[name], None) for name in frame.columns if name not in COLUMNS and name != "bbox"}
    return {name: arrays[name] for name in COLUMNS[:-1]} | extra
