"""What makes a Parquet file an index: GeoParquet 1.1 with a bbox covering, and the ``xchip`` metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.core.reduce import FRACTIONS
from xchip.core.version import VERSION
from xchip.indexing.rows import EDGES

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SCHEMA_VERSION = "1.0"
"""Version of the index schema, in the ``xchip`` metadata of each file."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
"""Fields of the bbox column."""

# Columns whose values are seldom the same in two rows, so that a dictionary of them would be as long as they are.
_SELDOM_TWICE = {"chip_id", "chipid", *FRACTIONS, "cloud_cover_percentage", "geometry", "bbox"}
# Arrow's own copy of the schema would hide key-value metadata that are added after it from readers of a folder.
_WRITER: dict[str, Any] = {"compression": "zstd", "write_page_index": True, "store_schema": False}
TYPES = {3: "Polygon", 6: "MultiPolygon"}
"""The types that a footprint has, by WKB's number, which is shapely's too."""


def open_writer(target: Any, columns: pa.Schema) -> pq.ParquetWriter:
    """A writer of an index file; whoever writes adds `Facts.metadata` before it is closed."""
    import pyarrow.parquet as pq

    repeated = [name for name in columns.names if name not in _SELDOM_TWICE]
    return pq.ParquetWriter(target, columns, use_dictionary=repeated, **_WRITER)


def bbox_type() -> pa.DataType:
    """Type of the column ``bbox``."""
    import pyarrow as pa

    return pa.struct([(side, pa.float64()) for side in SIDES])


def bbox_column(bounds: np.ndarray) -> pa.StructArray:
    """The column ``bbox`` from (4, rows) sides."""
    import pyarrow as pa

    return pa.StructArray.from_arrays([pa.array(np.ascontiguousarray(side)) for side in bounds], names=list(SIDES))


def sides_of(boxes: pa.ChunkedArray) -> np.ndarray:
    """The column ``bbox`` as float64 (4, rows); NaN for none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.stack([pc.struct_field(boxes, side).cast(pa.float64()).to_numpy() for side in SIDES])


def wkb_types(geometry: pa.ChunkedArray) -> np.ndarray:
    """WKB's number of the type of each geometry that there is, from its first bytes: int64 (rows that are not null,)."""
    import pyarrow as pa

    found = []
    for chunk in filter(len, geometry.drop_null().chunks):
        _, offsets, data = chunk.cast(pa.large_binary()).buffers()
        starts = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk)]
        content = np.frombuffer(data, np.uint8)
        little = content[starts] == 1
        # The number is the 32 bits after the byte order; three dimensions add a thousand, or a flag in the upper half.
        low, high = (
            np.where(little, content[starts + 1], content[starts + 4]),
            np.where(little, content[starts + 2], content[starts + 3]),
        )
        found.append((low + 256 * high.astype(np.int64)) % 1000)
    return np.concatenate([np.zeros(0, np.int64), *found])


class Facts:
    """What a file's metadata say, gathered as its rows go by."""

    def __init__(self, options: Any = None) -> None:
        self.options = options
        self.grids: dict[str, dict[str, Any]] = {}
        self._bounds: list[tuple[float, ...]] = []
        self._types: set[str] = set()

    def add(self, bounds: np.ndarray, types: Iterable[int]) -> None:
        """Bounds (4, rows) of geometries, NaN for an empty one, and the types that occur, as numbers of WKB and of shapely."""
        known = bounds[:, np.isfinite(bounds).all(axis=0)]
        if known.size:
            self._bounds.append((*known[:2].min(axis=1).tolist(), *known[2:].max(axis=1).tolist()))
        self._types |= {TYPES[number] for number in types}

    def add_grids(self, table: pa.Table, options: Any) -> None:
        """The sensors and grids of the rows; ``options`` are those of the frame that they come from, if it has any."""
        self.options = options or self.options
        for entry in grids_of_rows(table, self.options):
            self.grids.setdefault(json.dumps(entry, sort_keys=True), entry)

    def metadata(self, schema: str, more: dict[str, Any]) -> dict[str, str]:
        """Key-value metadata of a file; ``more`` joins its ``xchip`` metadata."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "crs": _projjson(),
            "orientation": "counterclockwise",
            "edges": "planar",
            "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
        }
        if self._bounds:
            west, south, east, north = zip(*self._bounds, strict=True)
            column["bbox"] = [min(west), min(south), max(east), max(north)]
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        xchip = {"schema_version": SCHEMA_VERSION, "software": f"xchip {VERSION}", "grids": list(self.grids.values())} | more
        return {"geo": json.dumps(geo), **({"xchip": json.dumps(xchip)} if schema == "xchip" else {})}


def grids_of_rows(table: pa.Table, options: Any) -> Iterator[dict[str, Any]]:
    """Sensor and grid of each item. CRS, resolution and phase say which scenes share cells under anchor="crs"."""
    import pyarrow.compute as pc

    from xchip.core.grid import ChipGrid, PixelGrid

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
