"""The index: one row a chip, with its place, its item and its quality fractions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.arrays import ArrayScene, Quality, Xarray, array_scenes, as_dataset, pixel_grid, quality_of
from xchip.grid import ChipGrid, chip_grid
from xchip.stats import FRACTIONS, class_counts, fractions_of

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas
    import pandas as pd
    import xarray as xr

STRINGS = ("chip_id", "item_id", "collection", "item_href", "sensor")
INTEGERS = ("chip_index_x", "chip_index_y", "col_off", "row_off", "width", "height")
EDGES = ("proj_left", "proj_bottom", "proj_right", "proj_top")
COLUMNS = (*STRINGS, "datetime", *INTEGERS, "proj_code", *EDGES, *FRACTIONS, "geometry")
"""The columns of an index, in order."""

KEPT_CHIPS = 20_000
"""Footprints of larger grids are not kept in memory: one takes some 300 bytes."""

GRID_ATTRIBUTE = "xchip_grid"
"""Key of a frame's ``attrs`` under which the grid options (size, stride, edge, anchor) travel to the file's metadata."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Which chips an index keeps; fractions in [0, 1]. A chip without valid pixels fails each limit but ``max_nodata``."""

    max_nodata: float | None = None
    """Largest nodata_fraction."""
    max_defective: float | None = None
    """Largest defective_fraction."""
    max_cloud: float | None = None
    """Largest cloud_fraction."""
    max_shadow: float | None = None
    """Largest shadow_fraction."""
    max_snow: float | None = None
    """Largest snow_fraction."""
    max_water: float | None = None
    """Largest water_fraction."""
    min_clear: float | None = None
    """Smallest clear_fraction."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is a fraction from 0 to 1, got {value!r}")

    def keep(self, fractions: np.ndarray) -> np.ndarray:
        """Which of ``fractions`` (7, chips) pass: bool (chips,)."""
        kept = np.ones(fractions.shape[1], bool)
        for position, name in enumerate(self.__slots__[:-1]):
            most = getattr(self, name)
            if most is not None:
                kept &= fractions[position] <= most  # False for NaN
        if self.min_clear is not None:
            kept &= fractions[-1] >= self.min_clear
        return kept


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """What all rows of one item share."""

    item_id: str
    collection: str | None
    item_href: str | None
    sensor: str | None
    datetime: np.datetime64
    """UTC, microseconds; NaT where unknown."""


def index_frame(grid: ChipGrid, counts: np.ndarray, item: ItemColumns, limits: Limits | None = None) -> geopandas.GeoDataFrame:
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

    Returns
    -------
    geopandas.GeoDataFrame
        A row a chip, by chip_index_y, then chip_index_x; columns `COLUMNS`.
    """
    import geopandas
    import pandas as pd
    import pyarrow as pa

    fractions = fractions_of(counts).reshape(len(FRACTIONS), -1)
    keep = None
    if limits is not None and limits != Limits():
        keep = limits.keep(fractions)
        fractions = fractions[:, keep]

    ny, nx = grid.shape

    def chosen(values: np.ndarray) -> np.ndarray:
        return values if keep is None else values[keep]

    def by_row(values: np.ndarray) -> np.ndarray:
        return chosen(np.repeat(values, nx))

    def by_column(values: np.ndarray) -> np.ndarray:
        return chosen(np.tile(values, ny))

    index_y, row_off, height = grid.rows
    index_x, col_off, width = grid.columns
    left, right = grid.x_bounds
    bottom, top = grid.y_bounds
    prefix = f"{item.item_id}-" if item.item_id else ""
    y_text, x_text = index_y.astype(str).tolist(), [f"{prefix}{x}-" for x in index_x.tolist()]
    chip_ids = [x + y for y in y_text for x in x_text]
    if keep is not None:
        chip_ids = [chip_id for chip_id, kept in zip(chip_ids, keep.tolist(), strict=True) if kept]
    n = fractions.shape[1]

    def same(value: str | None) -> Any:
        text = pa.nulls(n, pa.large_string()) if value is None else pa.repeat(pa.scalar(value, pa.large_string()), n)
        return pd.arrays.ArrowStringArray(text)

    columns: dict[str, Any] = {
        "chip_id": pd.arrays.ArrowStringArray(pa.array(chip_ids, pa.large_string())),
        "item_id": same(item.item_id),
        "collection": same(item.collection),
        "item_href": same(item.item_href),
        "sensor": same(item.sensor),
        "datetime": pd.DatetimeIndex(np.full(n, item.datetime, "datetime64[us]")).tz_localize("UTC"),
        "chip_index_x": by_column(index_x.astype(np.int32)),
        "chip_index_y": by_row(index_y.astype(np.int32)),
        "col_off": by_column(col_off.astype(np.int32)),
        "row_off": by_row(row_off.astype(np.int32)),
        "width": by_column(width.astype(np.int32)),
        "height": by_row(height.astype(np.int32)),
        "proj_code": same(grid.pixels.crs),
        "proj_left": by_column(left),
        "proj_bottom": by_row(bottom),
        "proj_right": by_column(right),
        "proj_top": by_row(top),
        **dict(zip(FRACTIONS, fractions, strict=True)),
    }
    geometry = geopandas.array.GeometryArray(chosen(_footprints(grid)), crs=_lonlat())
    frame = geopandas.GeoDataFrame(columns | {"geometry": geometry}, copy=False)
    frame.attrs[GRID_ATTRIBUTE] = options_text(grid)
    return frame


def _footprints(grid: ChipGrid) -> np.ndarray:
    """The chips' footprints; those of the last grids are kept, for many scenes of an archive share one."""
    return _kept_footprints(grid).copy() if len(grid) <= KEPT_CHIPS else grid.footprints()


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
    from xchip.grid import PixelGrid

    grid = ChipGrid(PixelGrid("EPSG:4326", (1, 0, 0, 0, -1, 0), (1, 1)), size=(2, 2))
    nothing = ItemColumns("", None, None, None, np.datetime64("NaT", "us"))
    frame = index_frame(grid, np.zeros((len(FRACTIONS), 0, 0), np.int64), nothing)
    frame.attrs.clear()
    return frame


def lazy_index(parts: Sequence[Any], function: Any, outlines: Sequence[Any], options: str) -> dask_geopandas.GeoDataFrame:
    """A dask-geopandas frame of ``function(part)`` for each part, with spatial partitions known beforehand."""
    import dask.dataframe as dd

    frame = dd.from_map(function, list(parts), meta=_meta(options), enforce_metadata=False, label="chip-index")
    return _with_outlines(frame, outlines)


def _meta(options: str) -> geopandas.GeoDataFrame:
    """What dask is told of an index's rows; ``options`` are those of the grid, as text."""
    import dask_geopandas  # noqa: F401  makes dask build its own kind of frame

    meta = empty_frame().copy()
    meta.attrs[GRID_ATTRIBUTE] = options
    return meta


def _with_outlines(frame: dask_geopandas.GeoDataFrame, outlines: Sequence[Any]) -> dask_geopandas.GeoDataFrame:
    import geopandas

    frame.spatial_partitions = geopandas.GeoSeries(list(outlines), crs=_lonlat())
    return frame


def array_index(
    obj: Xarray,
    size: Any = 256,
    *,
    quality: Quality = None,
    item_id: str | None = None,
    limits: Limits | None = None,
    **grid_options: Any,
) -> geopandas.GeoDataFrame | dask_geopandas.GeoDataFrame:
    """The index of an array: the function behind ``.chips.index``, where the parameters are described."""
    import pandas as pd

    ds = as_dataset(obj)
    scenes = array_scenes(ds, item_id)
    array, rule = quality_of(ds, quality)
    array = array.transpose(..., "y", "x")
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

    make = dask.delayed(_scene_frame, pure=True)
    frames = [make(scene, grid, limits, counts) for scene, grid, counts in parts]
    frame = dd.from_delayed(frames, meta=_meta(options_text(whole)), verify_meta=False, prefix="chip-index")
    outlines = {grid: grid.outline() for _, grid, _ in parts}
    return _with_outlines(frame, [outlines[grid] for _, grid, _ in parts])


def _scene_frame(scene: ArrayScene, grid: ChipGrid, limits: Limits | None, counts: np.ndarray) -> geopandas.GeoDataFrame:
    item = ItemColumns(scene.item_id, scene.collection, scene.item_href, scene.sensor, scene.datetime)
    return index_frame(grid, counts.reshape(len(FRACTIONS), *grid.shape), item, limits)


def frame_of(index: Any) -> pd.DataFrame:
    """The rows of an index as a pandas (or geopandas) frame; a lazy one is computed."""
    if hasattr(index, "dask"):
        return index.compute()
    if hasattr(index, "to_pandas"):  # a pyarrow Table
        return index.to_pandas()
    return index
