"""Indexes in files: GeoParquet 1.1 with a bbox covering, and what xchip adds to it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.index import COLUMNS, EDGES, GRID_ATTRIBUTE, INTEGERS, STRINGS
from xchip.stats import FRACTIONS

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    import pyarrow as pa

SCHEMA_VERSION = "1.0"
"""Version of the index schema, in the ``xchip`` metadata of each file."""

SCHEMAS = ("xchip", "stacchip")

PART = "part-{:06d}.parquet"


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
        If the index's columns are missing, or for an unknown schema.
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
    missing = [name for name in COLUMNS if name not in index.columns]
    if missing:
        raise ValueError(f"not an index: the columns {missing} are missing")
    text = os.fspath(path)
    target: _Target = _RemoteTarget(text) if "://" in text else _LocalTarget(text)
    options = getattr(index, "_meta", index).attrs.get(GRID_ATTRIBUTE)
    if text.endswith(".parquet"):
        target.write_one(index, schema, options)
    else:
        target.write_many(index, schema, options)
    return text


class _LocalTarget:
    """A path on this machine's disks."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def write_one(self, index: Any, schema: str, options: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        try:
            _write_file(_frames(index), aside, schema, options)
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
            names = _compute_parts(index, _LocalWriter(str(aside), schema, options))
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
        _put(self.url, _frames(index), schema, options)

    def write_many(self, index: Any, schema: str, options: Any) -> None:
        import fsspec

        fs, folder = fsspec.core.url_to_fs(self.url)
        old = [name.rsplit("/", 1)[-1] for name in (fs.ls(folder, detail=False) if fs.exists(folder) else [])]
        old = [name for name in old if name.endswith(".parquet")]
        _check_parts(old, self.url)
        names = _compute_parts(index, _RemoteWriter(self.url, schema, options))
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
    frames: Iterable[geopandas.GeoDataFrame], schema: str = "xchip", options: Any = None, *, more: dict[str, Any] | None = None
) -> bytes:
    """A whole index file in memory, a row group a frame; ``more`` joins its ``xchip`` metadata."""
    import io

    buffer = io.BytesIO()
    _write_file(frames, buffer, schema, options, more)
    return buffer.getvalue()


def _check_parts(names: Sequence[str], folder: Any) -> None:
    strangers = [name for name in names if not (name.startswith("part-") and name[5:-8].isdigit())]
    if strangers:
        raise FileExistsError(
            f"{folder} holds Parquet files that are no parts of an index, such as {strangers[0]!r}; choose another folder"
        )


def _compute_parts(index: Any, writer: Any) -> list[str]:
    if not hasattr(index, "dask"):
        return [writer(index, 0)]
    import dask

    write = dask.delayed(_write_part, pure=False)
    return _compute([write(writer, _own_task(part), number) for number, part in enumerate(index.to_delayed())])


def _compute(parts: Sequence[Any]) -> list[Any]:
    """The results of delayed ``parts``, on the cluster or scheduler that the user has chosen, else on threads."""
    import dask

    # One task alone runs in this thread: to wake another costs more than it can give.
    alone = len(parts) == 1 and len(parts[0].dask) == 1 and dask.base.get_scheduler() is None
    return list(dask.compute(*parts, scheduler="synchronous") if alone else dask.compute(*parts))


class _Task:
    """A partition that is one task, on its way into the task that writes it: neither waits for the other's worker."""

    def __init__(self, part: Any) -> None:
        self.graph, self.key = dict(part.dask), part.key

    def run(self) -> geopandas.GeoDataFrame:
        """The partition."""
        import dask

        return dask.get(self.graph, self.key)


def _own_task(part: Any) -> Any:
    return _Task(part) if len(part.dask) == 1 else part


def _write_part(writer: Any, part: Any, number: int) -> str:
    return writer(part.run() if isinstance(part, _Task) else part, number)


def _frames(index: Any) -> Iterator[geopandas.GeoDataFrame]:
    """The partitions of an index, a few at a time."""
    if not hasattr(index, "dask"):
        yield index
        return
    delayed = index.to_delayed()
    at_once = 2 * (os.cpu_count() or 1)
    for first in range(0, len(delayed), at_once):
        yield from _compute(delayed[first : first + at_once])


# Columns whose values are seldom the same in two rows, so that a dictionary of them would be as long as they are.
_SELDOM_TWICE = {"chip_id", "chipid", *FRACTIONS, "cloud_cover_percentage", "geometry", "bbox"}
# Arrow's own copy of the schema would hide key-value metadata that are added after it from readers of a folder.
_WRITER: dict[str, Any] = {"compression": "zstd", "write_page_index": True, "store_schema": False}


def _write_file(frames: Any, target: Any, schema: str, options: Any, more: dict[str, Any] | None = None) -> None:
    """One Parquet file, a row group a frame. The footer comes last: it needs what all frames hold."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    writer: Any = None
    facts = _Facts(options)
    try:
        for frame in frames:
            # Columns come faster out of a plain frame than out of a geographic one.
            plain, shapes = pd.DataFrame(frame), np.asarray(frame.geometry.array)
            bounds = shapely.bounds(shapes).reshape(-1, 4)
            geometry = _geometry_columns(shapes, bounds)
            table = pa.table((_stacchip_columns if schema == "stacchip" else _columns)(plain) | geometry)
            facts.add(shapes, bounds)
            if schema == "xchip" and len(table):
                facts.add_grids(table, plain.attrs.get(GRID_ATTRIBUTE))
            if writer is None:
                columns = table.schema
                repeated = [name for name in columns.names if name not in _SELDOM_TWICE]
                writer = pq.ParquetWriter(target, columns, use_dictionary=repeated, **_WRITER)
            writer.write_table(table if table.schema == columns else table.cast(columns))
        writer.add_key_value_metadata(facts.metadata(schema, more or {}))
    finally:
        if writer is not None:
            writer.close()


_TYPE_NAMES = {"POLYGON": "Polygon", "MULTIPOLYGON": "MultiPolygon"}


class _Facts:
    """What a file's metadata say, gathered as its frames go by."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.bounds: list[tuple[float, ...]] = []
        self.types: set[str] = set()
        self.grids: dict[str, dict[str, Any]] = {}

    def add(self, shapes: np.ndarray, bounds: np.ndarray) -> None:
        """Geometries and their ``bounds`` (rows, 4): NaN for an empty one."""
        import shapely

        known = bounds[np.isfinite(bounds).all(axis=1)]
        if len(known):
            self.bounds.append((*known[:, :2].min(axis=0).tolist(), *known[:, 2:].max(axis=0).tolist()))
        self.types |= {shapely.GeometryType(number).name for number in np.unique(shapely.get_type_id(shapes))}

    def add_grids(self, table: pa.Table, options: Any) -> None:
        """The sensors and grids of the rows; ``options`` are those of the frame that they come from, if it has any."""
        self.options = options or self.options
        for entry in _grids(table, self.options):
            self.grids.setdefault(json.dumps(entry, sort_keys=True), entry)

    def metadata(self, schema: str, more: dict[str, Any]) -> dict[str, str]:
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(_TYPE_NAMES[name] for name in self.types),
            "crs": _projjson(),
            "orientation": "counterclockwise",
            "edges": "planar",
            "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
        }
        if self.bounds:
            west, south, east, north = zip(*self.bounds, strict=True)
            column["bbox"] = [min(west), min(south), max(east), max(north)]
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        from xchip import __version__

        xchip = {"schema_version": SCHEMA_VERSION, "software": f"xchip {__version__}", "grids": list(self.grids.values())} | more
        return {"geo": json.dumps(geo), **({"xchip": json.dumps(xchip)} if schema == "xchip" else {})}


def _grids(table: pa.Table, options: Any) -> Iterator[dict[str, Any]]:
    """Sensor and grid of each item. CRS, resolution and phase say which scenes share cells under anchor="crs"."""
    import pyarrow.compute as pc

    from xchip.grid import ChipGrid, PixelGrid

    rows = table.select(["item_id", "sensor", "proj_code", *EDGES, "width", "height"])
    if pc.count_distinct(rows["item_id"]).as_py() > 1:
        first = ~rows.select(["item_id", "sensor", "proj_code"]).to_pandas().duplicated()
        rows = rows.filter(first.to_numpy())
    else:
        rows = rows.slice(0, 1)
    known = json.loads(options) if options else {}
    for _, sensor, crs, left, bottom, right, top, width, height in zip(*rows.to_pydict().values(), strict=True):
        res_x, res_y = float(f"{(right - left) / width:.9g}"), float(f"{(top - bottom) / height:.9g}")
        pixels = PixelGrid(crs, (res_x, 0, left, 0, -res_y, top), (1, 1))
        phase_y, phase_x = ChipGrid(pixels, (1, 1)).phase
        grid = known | {"proj_code": crs, "resolution": [res_y, res_x], "phase": [phase_y, phase_x]}
        yield {"sensor": sensor, "grid": grid}


def _projjson() -> dict[str, Any]:
    import pyproj

    return dict(pyproj.CRS.from_user_input("OGC:CRS84").to_json_dict())


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


def _geometry_columns(shapes: np.ndarray, bounds: np.ndarray) -> dict[str, Any]:
    import pyarrow as pa
    import shapely

    sides = [pa.array(np.ascontiguousarray(side)) for side in bounds.T]
    return {
        "geometry": pa.array(shapely.to_wkb(shapes), pa.binary()),
        "bbox": pa.StructArray.from_arrays(sides, names=["xmin", "ymin", "xmax", "ymax"]),
    }


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
