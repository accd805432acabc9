"""What callers pass as an index or a layer, as frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.core.lonlat import in_degrees
from xchip.indexing.opening.read import open_index, rows_of
from xchip.selection.sphere import mixed

if TYPE_CHECKING:
    import geopandas

    from xchip.io.storage import StorageOptions

IDENTITY = ("collection", "item_id", "chip_id")


def is_lazy(index: Any) -> bool:
    """Whether the index is a dask frame."""
    return hasattr(index, "dask")


def lazy_rows(index: Any, storage: StorageOptions | None = None) -> Any:
    """The index, a path made a lazy frame."""
    return open_index(index, storage=storage) if isinstance(index, str | os.PathLike | list | tuple) else index


def chips_of(
    index: Any, columns: Sequence[str] | None = None, *, storage: StorageOptions | None = None
) -> geopandas.GeoDataFrame:
    """The rows of an index as a GeoDataFrame of its own: columns may be added; a lazy one is computed.

    Raises
    ------
    ValueError
        If it has no geometry.
    """
    import geopandas
    import shapely

    rows = rows_of(index, columns, storage=storage)
    if "geometry" not in rows.columns:
        raise ValueError(f"the index has no column 'geometry'; it has {list(rows.columns)}")
    if isinstance(rows, geopandas.GeoDataFrame):
        return rows.copy(deep=False)
    shapes = rows["geometry"].to_numpy()
    known = shapely.from_wkb(shapes) if len(shapes) and isinstance(shapes[0], bytes) else shapes
    return geopandas.GeoDataFrame(rows.drop(columns="geometry"), geometry=geopandas.array.GeometryArray(known, crs="EPSG:4326"))


def shapes_of(frame: geopandas.GeoDataFrame) -> np.ndarray:
    """The frame's shapes in longitude and latitude: object (n,)."""
    return lonlat(frame).geometry.to_numpy()


def lonlat(layer: Any) -> Any:
    """A layer in longitude and latitude; one without a CRS is taken to be."""
    crs = getattr(layer, "crs", None)
    return layer if crs is None or crs.to_epsg() == 4326 else in_degrees(layer)


def layer_shapes(layer: Any, name: str) -> np.ndarray:
    """The shapes of a GeoDataFrame, a GeoSeries, one shape or several, in longitude and latitude; without empty ones.

    Raises
    ------
    ValueError
        If there are none.
    """
    import shapely

    if hasattr(layer, "geometry") and hasattr(layer, "crs"):
        shapes = lonlat(layer).geometry.to_numpy()
    else:
        shapes = np.atleast_1d(np.asarray(layer, object))
        if not shapely.is_valid_input(shapes).all():
            raise ValueError(f"{name} are a GeoDataFrame, a GeoSeries or shapely shapes, got {type(layer).__name__}")
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    if not len(shapes):
        raise ValueError(f"{name} hold no shape; pass at least one")
    return shapes


def value_keys(values: Any) -> np.ndarray:
    """A number for each value that depends on the value alone: uint64 (n,); 0 for missing ones."""
    import pandas as pd

    codes, known = pd.factorize(values, use_na_sentinel=True)
    texts = np.array([str(value) for value in known], object)
    return np.append(pd.util.hash_array(texts, categorize=False), np.uint64(0))[codes]


def row_keys(frame: Any, shapes: np.ndarray) -> np.ndarray:
    """A number for each chip that depends on what it is, and not on where it stands in the table: uint64 (n,)."""
    keys = shapes.copy()
    for name in IDENTITY:
        if name in frame.columns:
            keys = mixed(keys ^ value_keys(frame[name]))
    return keys


def column_of(frame: Any, name: str) -> Any:
    """A column.

    Raises
    ------
    ValueError
        If it is not there.
    """
    if name not in frame.columns:
        raise ValueError(f"the index has no column {name!r}; it has {list(frame.columns)}")
    return frame[name]
