"""The index: one row a chip, with its place, its item and its quality fractions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from xchip.core.arrays import ArrayScene, Quality, Xarray, array_scenes, as_dataset, pixel_grid
from xchip.core.grid import ChipGrid, GridOptions, Size, chip_grid
from xchip.core.limits import Limits
from xchip.core.reduce import FRACTIONS, class_counts, fractions_of
from xchip.sensors.array_quality import quality_of

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas
    import pandas as pd
    import pyarrow as pa
    import xarray as xr

STRINGS = ("chip_id", "item_id", "collection", "item_href", "sensor")
INTEGERS = ("chip_index_x", "chip_index_y", "col_off", "row_off", "width", "height")
EDGES = ("proj_left", "proj_bottom", "proj_right", "proj_top")
COLUMNS = (*STRINGS, "datetime", *INTEGERS, "proj_code", *EDGES, *FRACTIONS, "geometry")
"""The columns of an index, in order."""

BOA_OFFSET = "boa_offset"
"""A further column, double, where Sentinel-2 items tell it: what has to be added to the stored values so that they are as before
processing baseline 04.00, -1000 or 0. Null for items that leave it undecided, and for other products."""

SERIES = ("place_id", "step", "steps")
"""Further columns that `xchip.series` adds: the place, which step of its sequence a row is, int32 from 0, and how many steps
there are."""

KEPT_CHIPS = 20_000
"""Footprints of larger grids are not kept in memory: one takes some 300 bytes."""

GRID_ATTRIBUTE = "xchip_grid"
"""Key of a frame's ``attrs`` under which the grid options (size, stride, edge, anchor) travel to the file's metadata."""


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """What all rows of one item share."""

    item_id: str
    collection: str | None
    item_href: str | None
    sensor: str | None
    datetime: np.datetime64
    """UTC, microseconds; NaT where unknown."""
    boa_offset: float | None = None
    """Value of the column `BOA_OFFSET`: NaN is null; None: without that column."""


@dataclass(frozen=True, eq=False)
class IndexRows:
    """The rows of one item as Arrow arrays, but for their geometry, which is that of chips of a grid."""

    grid: ChipGrid
    columns: dict[str, pa.Array]
    """All `COLUMNS` but the geometry, in order, then others; text as large_string."""
    keep: np.ndarray | None
    """Which chips of the grid are rows, by chip_index_y, then chip_index_x: bool (chips,); None for all."""

    def __len__(self) -> int:
        return len(self.columns["chip_id"])

    def to_frame(self) -> geopandas.GeoDataFrame:
        """The rows with their footprints."""
        import geopandas

        shapes = footprints(self.grid) if self.keep is None else footprints(self.grid)[self.keep]
        columns = {name: _pandas_column(column) for name, column in self.columns.items()}
        geometry = geopandas.array.GeometryArray(shapes.copy(), crs=_lonlat())
        ordered = {name: columns.pop(name) for name in COLUMNS[:-1]} | {"geometry": geometry} | columns
        frame = geopandas.GeoDataFrame(ordered, copy=False)
        frame.attrs[GRID_ATTRIBUTE] = options_text(self.grid)
        return frame


def index_rows(grid: ChipGrid, counts: np.ndarray, item: ItemColumns, limits: Limits | None = None) -> IndexRows:
    """The rows of one item.

    Parameters
    ----------
    grid
        Its chips.
    counts
        Pixels of each class in each chip: integers (7, chip_y, chip_x).
    item
        What its rows share.
    limits
        Which chips to keep.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    fractions = fractions_of(counts).reshape(len(FRACTIONS), -1)
    places = _kept_places(grid) if len(grid) <= KEPT_CHIPS else _places(grid)
    keep = None
    if limits is not None and limits != Limits():
        keep = limits.keep(fractions)
        fractions = fractions[:, keep]
        places = {name: column.filter(pa.array(keep)) for name, column in places.items()}
    n = fractions.shape[1]

    def same(value: Any, dtype: pa.DataType) -> pa.Array:
        return pa.nulls(n, dtype) if value is None else pa.repeat(pa.scalar(value, dtype), n)

    text = pa.large_string()
    prefix = pa.scalar(f"{item.item_id}-" if item.item_id else "", text)
    moment = None if np.isnat(item.datetime) else int(item.datetime.astype("datetime64[us]").astype(np.int64))
    own = {
        "chip_id": pc.binary_join_element_wise(prefix, places["chip_id"], pa.scalar("", text)),
        **{name: same(getattr(item, name), text) for name in STRINGS[1:]},
        "datetime": same(moment, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        **{name: pa.array(values) for name, values in zip(FRACTIONS, fractions, strict=True)},
    }
    columns = {name: own[name] if name in own else places[name] for name in COLUMNS[:-1]}
    if item.boa_offset is not None:
        columns[BOA_OFFSET] = same(None if np.isnan(item.boa_offset) else float(item.boa_offset), pa.float64())
    return IndexRows(grid, columns, keep)


def _places(grid: ChipGrid) -> dict[str, pa.Array]:
    """The columns that depend on the grid alone; ``chip_id`` without the item's id."""
    import pyarrow as pa

    ny, nx = grid.shape
    index_y, row_off, height = grid.rows
    index_x, col_off, width = grid.columns
    left, right = grid.x_bounds
    bottom, top = grid.y_bounds
    by_row = {
        "chip_index_y": index_y.astype(np.int32),
        "row_off": row_off.astype(np.int32),
        "height": height.astype(np.int32),
        "proj_bottom": bottom,
        "proj_top": top,
    }
    by_column = {
        "chip_index_x": index_x.astype(np.int32),
        "col_off": col_off.astype(np.int32),
        "width": width.astype(np.int32),
        "proj_left": left,
        "proj_right": right,
    }
    x_text, y_text = [f"{x}-" for x in index_x.tolist()], index_y.astype(str).tolist()
    return {
        "chip_id": pa.array([x + y for y in y_text for x in x_text], pa.large_string()),
        **{name: pa.array(np.repeat(values, nx)) for name, values in by_row.items()},
        **{name: pa.array(np.tile(values, ny)) for name, values in by_column.items()},
        "proj_code": pa.repeat(pa.scalar(grid.pixels.crs, pa.large_string()), ny * nx),
    }


# Many scenes of an archive share one of a few grids.
_kept_places = lru_cache(maxsize=4)(_places)


def index_frame(grid: ChipGrid, counts: np.ndarray, item: ItemColumns, limits: Limits | None = None) -> geopandas.GeoDataFrame:
    """The rows of one item, as `index_rows`, with their footprints.

    Returns
    -------
    geopandas.GeoDataFrame
        A row a chip, by chip_index_y, then chip_index_x; columns `COLUMNS`, then `BOA_OFFSET` where ``item`` has it.
    """
    return index_rows(grid, counts, item, limits).to_frame()


def _pandas_column(column: pa.Array) -> Any:
    import pandas as pd
    import pyarrow as pa

    if pa.types.is_large_string(column.type):
        return pd.arrays.ArrowStringArray(column)
    if pa.types.is_timestamp(column.type):
        moments = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False).astype("datetime64[us]")
        return pd.DatetimeIndex(moments).tz_localize("UTC")
    # A copy, for Arrow's memory can't be written to.
    return column.to_numpy(zero_copy_only=False).copy()


def footprints(grid: ChipGrid) -> np.ndarray:
    """The chips' footprints: object (chips,), not to be changed. Those of the last grids are kept."""
    return _kept_footprints(grid) if len(grid) <= KEPT_CHIPS else grid.footprints()


@lru_cache(maxsize=4)
def _kept_footprints(grid: ChipGrid) -> np.ndarray:
    return grid.footprints()


def options_text(grid: ChipGrid) -> str:
    """A grid's size, stride, edge and anchor as JSON: pandas copies attributes deeply each time a column is taken."""
    return json.dumps(grid.options)


@cache
def _lonlat() -> Any:
    import pyproj

    return pyproj.CRS.from_epsg(4326)


@cache
def empty_frame() -> geopandas.GeoDataFrame:
    """An index without rows: the right columns and dtypes."""
    from xchip.core.grid import PixelGrid

    grid = ChipGrid(PixelGrid("EPSG:4326", (1, 0, 0, 0, -1, 0), (1, 1)), size=(2, 2))
    nothing = ItemColumns("", None, None, None, np.datetime64("NaT", "us"))
    frame = index_frame(grid, np.zeros((len(FRACTIONS), 0, 0), np.int64), nothing)
    frame.attrs.clear()
    return frame


@dataclass(frozen=True, eq=False)
class IndexSource:
    """The parts of a lazy index, and the function that makes their rows: for writers that need no frames."""

    rows: Callable[[Any], IndexRows]
    """Make the rows of a part."""
    parts: Sequence[Any]
    outlines: Sequence[Any]
    """Footprint of each part, known before its rows are."""
    options: str
    """Options of the grid, as text."""
    offsets: bool = False
    """Whether the rows have the column `BOA_OFFSET`."""

    def frame(self) -> dask_geopandas.GeoDataFrame:
        """A dask-geopandas frame with one partition per part, and its spatial partitions."""
        import dask.dataframe as dd

        meta = _meta(self.options, offsets=self.offsets)
        function = partial(_frame_of, self.rows)
        frame = dd.from_map(function, list(self.parts), meta=meta, enforce_metadata=False, label="chip-index")
        frame = _with_outlines(frame, self.outlines)
        # A frame keeps no attributes of its own; a derived frame has another expression, so it is not taken for this one.
        object.__setattr__(frame, "_xchip_source", (frame.expr, self))
        return frame


def source_of(index: Any) -> IndexSource | None:
    """The source of a lazy index; None if the index is in memory or was changed since."""
    if isinstance(index, IndexSource):
        return index
    expression, source = getattr(index, "_xchip_source", (None, None))
    return source if source is not None and expression is index.expr else None


def _frame_of(rows: Callable[[Any], IndexRows], part: Any) -> geopandas.GeoDataFrame:
    return rows(part).to_frame()


def _meta(options: str, *, offsets: bool) -> geopandas.GeoDataFrame:
    """What dask is told of an index's rows; ``options`` are those of the grid, as text."""
    import dask_geopandas  # noqa: F401  makes dask build its own kind of frame

    meta = empty_frame().copy()
    if offsets:
        meta[BOA_OFFSET] = np.empty(0)
    meta.attrs[GRID_ATTRIBUTE] = options
    return meta


def _with_outlines(frame: dask_geopandas.GeoDataFrame, outlines: Sequence[Any]) -> dask_geopandas.GeoDataFrame:
    import geopandas

    frame.spatial_partitions = geopandas.GeoSeries(list(outlines), crs=_lonlat())
    return frame


def array_index(
    obj: Xarray,
    size: Size = 256,
    *,
    quality: Quality = None,
    item_id: str | None = None,
    limits: Limits | None = None,
    **grid_options: Unpack[GridOptions],
) -> geopandas.GeoDataFrame | dask_geopandas.GeoDataFrame:
    """The index of an array: the function behind ``.chips.index``, where the parameters are described."""
    import pandas as pd

    ds = as_dataset(obj)
    scenes = array_scenes(ds, item_id)
    array, rule = quality_of(ds, quality)
    others = [dim for dim in array.dims if dim not in ("time", "y", "x")]
    if any(array.sizes[dim] != 1 for dim in others):
        raise ValueError(f"quality must have the dims (time, y, x) or (y, x), got {array.dims}; select one of {others}")
    array = array.squeeze(others, drop=True).transpose(..., "y", "x")
    whole = chip_grid(pixel_grid(ds), size, **grid_options)
    by_extent: defaultdict[tuple[int, int, tuple[int, int]], list[ArrayScene]] = defaultdict(list)
    for scene in scenes:
        by_extent[scene.row, scene.column, scene.pixels.shape].append(scene)
    parts: list[tuple[ArrayScene, ChipGrid, Any]] = []
    for group in by_extent.values():
        first = group[0]
        grid = whole if first.pixels == whole.pixels else whole.on(first.pixels)
        (height, width), row, column = first.pixels.shape, first.row, first.column
        here = array.isel(y=slice(row, row + height), x=slice(column, column + width))
        if first.time is not None and "time" in here.dims:
            here = here.isel(time=[scene.time for scene in group])
        counts = class_counts(here.data, grid, rule)
        parts += [(scene, grid, part) for scene, part in zip(group, _by_time(here, counts, len(group)), strict=True)]
    parts.sort(key=lambda part: part[0].time or 0)
    if hasattr(array.data, "dask"):
        return _lazy_array_index(parts, limits, whole)
    frames = [_scene_frame(scene, grid, limits, counts) for scene, grid, counts in parts]
    if not frames:
        return empty_frame().copy()
    merged = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    merged.attrs = frames[0].attrs
    return merged


def _by_time(array: xr.DataArray, counts: Any, n: int) -> list[Any]:
    """Counts (7, chip_y, chip_x) of each time step; one task each if lazy."""
    if "time" not in array.dims:
        return [counts] * n  # one quality band for all time steps
    if isinstance(counts, np.ndarray):
        return list(counts)
    blocks = counts.rechunk({0: 1}).to_delayed()
    return list(blocks.reshape(n))


def _lazy_array_index(parts: Sequence[tuple[ArrayScene, ChipGrid, Any]], limits: Limits | None, whole: ChipGrid) -> Any:
    import dask
    import dask.dataframe as dd

    meta = _meta(options_text(whole), offsets=any(scene.boa_offset is not None for scene, _, _ in parts))
    if not parts:
        return dd.from_pandas(meta, npartitions=1)
    make = dask.delayed(_scene_frame, pure=True)
    frames = [make(scene, grid, limits, counts) for scene, grid, counts in parts]
    frame = dd.from_delayed(frames, meta=meta, verify_meta=False, prefix="chip-index")
    outlines = {grid: grid.outline() for _, grid, _ in parts}
    return _with_outlines(frame, [outlines[grid] for _, grid, _ in parts])


def _scene_frame(scene: ArrayScene, grid: ChipGrid, limits: Limits | None, counts: np.ndarray) -> geopandas.GeoDataFrame:
    item = ItemColumns(
        scene.item_id, scene.collection, scene.item_href, scene.sensor, scene.datetime, boa_offset=scene.boa_offset
    )
    return index_frame(grid, counts.reshape(len(FRACTIONS), *grid.shape), item, limits)


def frame_of(index: Any) -> pd.DataFrame:
    """The rows of an index as a pandas (or geopandas) frame; a lazy one is computed."""
    if hasattr(index, "dask"):
        return index.compute()
    if hasattr(index, "to_pandas"):  # a pyarrow Table
        return index.to_pandas()
    return index
