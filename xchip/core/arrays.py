"""Read pixel grids, items and nodata values from xarray objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Unpack

import numpy as np
import xarray as xr

from xchip.core.grid import ChipGrid, GridOptions, PixelGrid, Size, chip_grid, proj_code
from xchip.core.quality import NodataRule, QualityRule

SPATIAL_DIMS = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"))
"""Accepted (y, x) dimension names, in the order of the search."""

MASK = "nodata_mask"
"""Attribute that marks a coordinate of `xchip.stack` as the mask of the files: 0 where they have no data."""

Xarray = xr.Dataset | xr.DataArray


@dataclass(frozen=True)
class ArrayScene:
    """The pixels of one item in one time step of an array."""

    pixels: PixelGrid
    """The part of the item's pixels that the array holds."""
    time: int | None
    """Position along ``time``; None for an array without it."""
    row: int
    """First row on the (north-up) array."""
    column: int
    """First column on the array."""
    item_id: str
    """The item's id; "" where unknown."""
    collection: str | None
    """The item's collection."""
    item_href: str | None
    """Location of the item's JSON."""
    sensor: str | None
    """Name of the sensor's profile; None where unknown."""
    datetime: np.datetime64
    """UTC; NaT where unknown."""
    boa_offset: float | None = None
    """Offset of Sentinel-2 reflectances as `xchip.stack` records it: NaN where undecided; None if undecided for all steps."""


def as_dataset(obj: Xarray) -> xr.Dataset:
    """Return a Dataset with dims (..., y, x), north up: y falls and x rises. A ``band`` dimension becomes variables.

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
            for band in ds.data_vars.values():  # the array's nodata value holds for each band
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
                        "warp a rotated or GCP-only raster first (for example with rio.reproject)"
                    )
            return y, x
    raise ValueError(f"no spatial dimensions: looked for {SPATIAL_DIMS}, the array has {tuple(ds.dims)}")


def pixel_grid(ds: xr.Dataset) -> PixelGrid:
    """Return the pixel lattice of a Dataset in the form that `as_dataset` returns.

    Raises
    ------
    ValueError
        If the array has no CRS, or the coordinates are not evenly spaced.
    """
    return PixelGrid.from_centres(y=ds["y"].values, x=ds["x"].values, crs=crs_of(ds))


def array_grid(obj: Xarray, size: Size = 256, **options: Unpack[GridOptions]) -> ChipGrid:
    """Return the grid of chips on the pixels of an array; see `chip_grid`."""
    return chip_grid(pixel_grid(as_dataset(obj)), size, **options)


def crs_of(ds: xr.Dataset) -> str:
    """Return the array's CRS in the form of `proj_code`."""
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
    """Return the items of an array: one for each time step, or one for an array without ``time``.

    ``item_id`` names the item of an array without ids. If items have different extents, each gets its own part of the array, by
    the coordinates ``item_left``, ``item_bottom``, ``item_right`` and ``item_top`` that `xchip.stack` writes.
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
        values = {name: array[()] if array.ndim == 0 else array[step] for name, array in labels.items()}
        pixels, row, column = _part_within(whole, [float(values[name]) for name in _EXTENT if name in values])
        if pixels is None:
            continue
        scenes.append(
            ArrayScene(
                pixels,
                step,
                row,
                column,
                item_id=item_id if item_id is not None else _text(values.get("item_id")) or _text(values.get("id")) or "",
                collection=_text(values.get("collection")),
                item_href=_text(values.get("item_href")),
                sensor=_text(values.get("sensor")) or _text(ds.attrs.get("sensor")),
                datetime=_datetime(values.get("time")),
                boa_offset=float(values["boa_offset"]) if "boa_offset" in values else None,
            )
        )
    return scenes


_EXTENT = ("item_left", "item_bottom", "item_right", "item_top")


def _labels(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Coordinates that describe the items: NumPy arrays of one value per time step, or one for all."""
    names = ("item_id", "id", "collection", "item_href", "sensor", "time", "boa_offset", *_EXTENT)
    coords = {name: ds.coords[name] for name in names if name in ds.coords and ds.coords[name].dims in ((), ("time",))}
    # ds.chunk() makes even these short coordinates lazy.
    labels = {name: np.asarray(coord.compute(scheduler="sync").values) for name, coord in coords.items()}
    if "boa_offset" in labels and np.isnan(labels["boa_offset"]).all():
        del labels["boa_offset"]
    return labels


def _part_within(whole: PixelGrid, edges: Sequence[float]) -> tuple[PixelGrid | None, int, int]:
    """The part of ``whole`` within (left, bottom, right, top), its first row and column; None if no pixel lies within."""
    if len(edges) < len(_EXTENT):
        return whole, 0, 0
    left, bottom, right, top = edges
    (res_y, res_x), (height, width) = whole.res, whole.shape
    first_column = max(0, round((left - whole.transform[2]) / res_x))
    last_column = min(width, round((right - whole.transform[2]) / res_x))
    first_row = max(0, round((whole.transform[5] - top) / res_y))
    last_row = min(height, round((whole.transform[5] - bottom) / res_y))
    if first_row >= last_row or first_column >= last_column:
        return None, 0, 0
    if (first_row, first_column, last_row, last_column) == (0, 0, height, width):
        return whole, 0, 0
    part = whole.window(row_off=first_row, col_off=first_column, height=last_row - first_row, width=last_column - first_column)
    return part, first_row, first_column


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, str) and value else None


def _datetime(value: object) -> np.datetime64:
    return value.astype("datetime64[us]") if isinstance(value, np.datetime64) else np.datetime64("NaT", "us")


def nodata_of(array: xr.DataArray) -> float | None:
    """Return the value that means "no data"; None if none is declared, or if the array's dtype can't hold it."""
    import rioxarray  # noqa: F401  registers .rio

    try:
        nodata = array.rio.nodata
    except (OverflowError, ValueError):  # rioxarray converts it to the dtype, which can't hold it
        return None
    if nodata is None:
        nodata = array.rio.encoded_nodata
    # Floats can't hold the largest 64-bit integers.
    return None if nodata is None else int(nodata) if array.dtype.kind in "iub" else float(nodata)


def fill_of(array: xr.DataArray) -> Any:
    """Return the value for pixels outside of an array: its nodata value, or 0, in its dtype."""
    nodata = nodata_of(array)
    return array.dtype.type(0 if nodata is None else nodata)


Quality = str | QualityRule | NodataRule | xr.DataArray | None
"""Values of ``quality=``: a band's name, a rule, a boolean DataArray (True = nodata) or a DataArray of `QualityClass` codes."""
