"""Arrays as scenes: what an xarray object says of its pixels, its items and its quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from xchip.core.grid import PixelGrid, proj_code
from xchip.core.quality import NodataRule, QualityRule

SPATIAL_DIMS = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"))
"""(y, x) dimension names that are understood, in the order in which they are looked for."""

MASK = "nodata_mask"
"""Attribute of a coordinate that is the mask of files, 0 where they have no data, as `xchip.stack` leaves it."""

Xarray = xr.Dataset | xr.DataArray


@dataclass(frozen=True)
class ArrayScene:
    """The pixels that one time step of an array has of one item."""

    pixels: PixelGrid
    """The item's pixels, as far as the array holds them."""
    time: int | None
    """Position along ``time``; None for an array without it."""
    row: int
    """First row on the (north-up) array."""
    column: int
    """First column on the array."""
    item_id: str
    """The item's id; "" where the array does not say."""
    collection: str | None
    """Its collection."""
    item_href: str | None
    """Where its JSON is."""
    sensor: str | None
    """Name of the sensor's profile."""
    datetime: np.datetime64
    """UTC; NaT where unknown."""
    boa_offset: float | None = None
    """Of Sentinel-2 reflectances, as `xchip.stack` left it: NaN where undecided; None where it is so for all time steps."""


def as_dataset(obj: Xarray) -> xr.Dataset:
    """A Dataset with dims (..., y, x), north up: y falls and x rises. A ``band`` dimension becomes variables.

    Raises
    ------
    ValueError
        If there are no one-dimensional x and y coordinates.
    """
    if isinstance(obj, xr.DataArray):
        if "band" in obj.dims:
            # Bands without names are numbered from 1, as GDAL does.
            names = obj["band"].values if "band" in obj.coords else range(1, obj.sizes["band"] + 1)
            ds = obj.assign_coords(band=[str(name) for name in names]).to_dataset("band")
            for band in ds.data_vars.values():  # what the array says of its nodata holds for each band
                band.attrs, band.encoding = dict(obj.attrs), dict(obj.encoding)
        else:
            ds = obj.to_dataset(name=obj.name or "data")
        ds.attrs = dict(obj.attrs)
    else:
        ds = obj
    ds = ds.rename({name: plain for name, plain in zip(_spatial_dims(ds), ("y", "x"), strict=True) if name != plain})
    for name, downwards in (("y", True), ("x", False)):
        values = ds[name].values
        if values.size > 1 and (values[0] < values[-1]) == downwards:
            ds = ds.isel({name: slice(None, None, -1)})
    return ds


def _spatial_dims(ds: xr.Dataset) -> tuple[str, str]:
    for y, x in SPATIAL_DIMS:
        if y in ds.dims and x in ds.dims:
            for name in (y, x):
                if name not in ds.coords or ds[name].ndim != 1:
                    raise ValueError(
                        f"dimension {name!r} has no one-dimensional coordinate of pixel centres, so the pixel grid is not known; "
                        "a rotated or GCP-only raster has to be warped first (for example with rio.reproject)"
                    )
            return y, x
    raise ValueError(f"no spatial dimensions: looked for {SPATIAL_DIMS}, the array has {tuple(ds.dims)}")


def pixel_grid(ds: xr.Dataset) -> PixelGrid:
    """The pixel lattice of a Dataset that `as_dataset` made.

    Raises
    ------
    ValueError
        Without a CRS, or where coordinates are not evenly spaced.
    """
    return PixelGrid.from_centres(y=ds["y"].values, x=ds["x"].values, crs=crs_of(ds))


def crs_of(ds: xr.Dataset) -> str:
    """The array's CRS as proj_code text."""
    import rioxarray  # noqa: F401  registers .rio

    crs = ds.rio.crs
    if crs is None:
        for name in ds.data_vars:
            crs = ds[name].rio.crs
            if crs is not None:
                break
    if crs is None:
        raise ValueError("the array has no CRS; give it one, for example with ds.rio.write_crs('EPSG:32720')")
    return _code_of_wkt(crs.to_wkt())


@lru_cache(maxsize=256)
def _code_of_wkt(wkt: str) -> str:
    import pyproj

    return proj_code(pyproj.CRS.from_wkt(wkt))


def array_scenes(ds: xr.Dataset, item_id: str | None = None) -> list[ArrayScene]:
    """The items of an array: one for each time step, or one for an array without ``time``.

    ``item_id`` names the item of an array without ids. A stack of items of different extents gives each item's own part,
    by the coordinates ``item_left``, ``item_bottom``, ``item_right`` and ``item_top`` that `xchip.stack` leaves.
    """
    whole = pixel_grid(ds)
    steps: list[int | None] = list(range(ds.sizes["time"])) if "time" in ds.dims else [None]
    if item_id is not None and len(steps) > 1:
        raise ValueError(
            f"item_id={item_id!r} names one item, the array has {len(steps)} time steps; give a coordinate item_id on time"
        )
    labels = _labels(ds)
    scenes = []
    for step in steps:
        here = {name: values[()] if values.ndim == 0 else values[step] for name, values in labels.items()}
        pixels, row, column = _own_part(whole, [here.get(name) for name in _EXTENT])
        if pixels is None:
            continue
        scenes.append(
            ArrayScene(
                pixels,
                step,
                row,
                column,
                item_id=item_id if item_id is not None else _text(here.get("item_id")) or _text(here.get("id")) or "",
                collection=_text(here.get("collection")),
                item_href=_text(here.get("item_href")),
                sensor=_text(here.get("sensor")) or _text(ds.attrs.get("sensor")),
                datetime=_datetime(here.get("time")),
                boa_offset=float(here["boa_offset"]) if "boa_offset" in here else None,
            )
        )
    return scenes


_EXTENT = ("item_left", "item_bottom", "item_right", "item_top")


def _labels(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """What the array says of its time steps: NumPy arrays, one value a step or one for all."""
    names = ("item_id", "id", "collection", "item_href", "sensor", "time", "boa_offset", *_EXTENT)
    found = {name: ds.coords[name] for name in names if name in ds.coords and ds.coords[name].dims in ((), ("time",))}
    # ds.chunk() makes these coordinates lazy, short as they are.
    labels = {name: np.asarray(coord.compute(scheduler="sync").values) for name, coord in found.items()}
    if "boa_offset" in labels and np.isnan(labels["boa_offset"]).all():
        del labels["boa_offset"]
    return labels


def _own_part(whole: PixelGrid, edges: Sequence[Any]) -> tuple[PixelGrid | None, int, int]:
    """The part of ``whole`` within (left, bottom, right, top), its first row and column; None where there is none."""
    if any(edge is None for edge in edges):
        return whole, 0, 0
    left, bottom, right, top = (float(edge) for edge in edges)
    (res_y, res_x), (height, width) = whole.res, whole.shape
    first_column = max(0, round((left - whole.transform[2]) / res_x))
    last_column = min(width, round((right - whole.transform[2]) / res_x))
    first_row = max(0, round((whole.transform[5] - top) / res_y))
    last_row = min(height, round((whole.transform[5] - bottom) / res_y))
    if first_row >= last_row or first_column >= last_column:
        return None, 0, 0
    if (first_row, first_column, last_row, last_column) == (0, 0, height, width):
        return whole, 0, 0
    own = whole.window(row_off=first_row, col_off=first_column, height=last_row - first_row, width=last_column - first_column)
    return own, first_row, first_column


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str) and value else None


def _datetime(value: Any) -> np.datetime64:
    return value.astype("datetime64[us]") if isinstance(value, np.datetime64) else np.datetime64("NaT", "us")


def nodata_of(array: xr.DataArray) -> float | None:
    """The value that means "no data" in an array; None where none is declared, or one that no pixel of its dtype can have."""
    import rioxarray  # noqa: F401  registers .rio

    try:
        nodata = array.rio.nodata
    except (OverflowError, ValueError):  # rioxarray converts it to the dtype, in which it has no place
        return None
    if nodata is None:
        nodata = array.rio.encoded_nodata
    # Floats can't tell the largest 64-bit integers.
    return None if nodata is None else int(nodata) if array.dtype.kind in "iub" else float(nodata)


def fill_of(array: xr.DataArray) -> Any:
    """What fills pixels outside of an array: its nodata value, or 0, in its dtype."""
    nodata = nodata_of(array)
    return array.dtype.type(0 if nodata is None else nodata)


Quality = str | QualityRule | NodataRule | xr.DataArray | None
"""What ``quality=`` may be: a band's name, a rule, a boolean DataArray (True = nodata) or one of `QualityClass` codes."""
