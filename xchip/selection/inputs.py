"""Convert index and layer arguments to GeoDataFrames and shapely arrays; hash rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xchip.core.lonlat import in_degrees
from xchip.core.types import Frame, IndexLike
from xchip.indexing.opening.read import open_index, rows_of
from xchip.selection.sphere import mixed

if TYPE_CHECKING:
    import geopandas
    import pandas as pd
    import shapely

    from xchip.io.storage import StorageOptions

Layer: TypeAlias = "geopandas.GeoDataFrame | geopandas.GeoSeries | shapely.Geometry | Sequence[shapely.Geometry]"
"""Shapes: with a CRS, or in longitude and latitude."""

IDENTITY = ("collection", "item_id", "chip_id")


def is_lazy(index: IndexLike) -> bool:
    """Return whether the index is a dask frame."""
    return hasattr(index, "dask")


def lazy_rows(index: IndexLike, storage: StorageOptions | None = None) -> Frame:
    """Open paths as a lazy frame; return frames and tables as they are."""
    return open_index(index, storage=storage) if isinstance(index, str | os.PathLike | list | tuple) else index


def chips_of(
    index: IndexLike, columns: Sequence[str] | None = None, *, storage: StorageOptions | None = None
) -> geopandas.GeoDataFrame:
    """Return the rows of an index as a new GeoDataFrame, to which columns can be added. A lazy index is computed."""
    import geopandas
    import shapely

    rows = rows_of(index, columns, storage=storage)
    if "geometry" not in rows.columns:
        raise ValueError(f"the index has no column 'geometry'; it has {list(rows.columns)}")
    if isinstance(rows, geopandas.GeoDataFrame):
        return rows.copy(deep=False)
    shapes = rows["geometry"].to_numpy()
    if len(shapes) and isinstance(shapes[0], bytes):
        shapes = shapely.from_wkb(shapes)
    return geopandas.GeoDataFrame(rows.drop(columns="geometry"), geometry=geopandas.array.GeometryArray(shapes, crs="EPSG:4326"))


def shapes_of(layer: geopandas.GeoDataFrame | geopandas.GeoSeries) -> np.ndarray:
    """Return shapes in longitude and latitude: object (n,). A layer without a CRS is taken to be in longitude and latitude."""
    degrees = layer if layer.crs is None or layer.crs.to_epsg() == 4326 else in_degrees(layer)
    return degrees.geometry.to_numpy()


def layer_shapes(layer: Layer, name: str) -> np.ndarray:
    """Return the shapes of a layer in longitude and latitude, without empty shapes; raise a ValueError if there are none."""
    import shapely

    if hasattr(layer, "geometry") and hasattr(layer, "crs"):
        shapes = shapes_of(layer)
    else:
        shapes = np.atleast_1d(np.asarray(layer, object))
        if not shapely.is_valid_input(shapes).all():
            raise ValueError(f"{name} must be a GeoDataFrame, a GeoSeries or shapely shapes, got {type(layer).__name__}")
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    if not len(shapes):
        raise ValueError(f"{name} hold no shape; pass at least one")
    return shapes


def value_keys(values: pd.Series) -> np.ndarray:
    """Return a hash of each value: uint64 (n,); 0 for missing values."""
    import pandas as pd

    codes, distinct = pd.factorize(values, use_na_sentinel=True)
    texts = np.array([str(value) for value in distinct], object)
    return np.append(pd.util.hash_array(texts, categorize=False), np.uint64(0))[codes]


def row_keys(frame: pd.DataFrame, shapes: np.ndarray) -> np.ndarray:
    """Return a hash of each chip: uint64 (n,). It depends on what the chip is, not on the order of rows.

    ``shapes`` are the hashes of its footprint.
    """
    keys = shapes.copy()
    for name in IDENTITY:
        if name in frame.columns:
            keys = mixed(keys ^ value_keys(frame[name]))
    return keys


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column, or raise a ValueError that lists the columns."""
    if name not in frame.columns:
        raise ValueError(f"the index has no column {name!r}; it has {list(frame.columns)}")
    return frame[name]
