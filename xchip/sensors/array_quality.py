"""Find the quality band of an array and the rule for its values."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import xarray as xr

from xchip.core.arrays import MASK, Quality, Xarray, array_grid, as_dataset, nodata_of
from xchip.core.grid import GridOptions, Size
from xchip.core.quality import CLEAR, N_CLASSES, NODATA, NodataRule, QualityRule
from xchip.core.reduce import chip_stats
from xchip.sensors.registry import find, plain_key, renamed, rule_for_band
from xchip.sensors.registry import names as sensor_names


def array_stats(obj: Xarray, size: Size = 256, *, quality: Quality = None, **grid_options: Unpack[GridOptions]) -> xr.Dataset:
    """Return the fractions of each quality class in each chip of an array; see `chip_stats` and `quality_of`."""
    ds = as_dataset(obj)
    array, rule = quality_of(ds, quality)
    return chip_stats(array, array_grid(ds, size, **grid_options), rule)


def quality_of(ds: xr.Dataset, quality: Quality = None) -> tuple[xr.DataArray, QualityRule | None]:
    """Return the array with each pixel's quality, and the rule for its values.

    Parameters
    ----------
    ds
        A Dataset in the form that `as_dataset` returns.
    quality
        A band's name, a rule, a boolean DataArray (True = nodata), or a DataArray of `QualityClass` codes. None: the rule
        that `xchip.stack` writes to the attributes, else the rule of a band with the name of a known sensor's quality band,
        else NODATA where all bands are nodata.

    Returns
    -------
    array, rule
        ``rule`` is None if the array holds class codes (uint8).

    Raises
    ------
    ValueError
        If the array lacks the band, or no rule for its values is known.
    """
    if isinstance(quality, xr.DataArray):
        array = as_dataset(quality.rename("quality"))["quality"]
        if not all(array.sizes[dim] == ds.sizes[dim] and np.allclose(array[dim], ds[dim]) for dim in ("y", "x")):
            raise ValueError(
                f"quality= has other pixels than the array: {array.sizes['y']} x {array.sizes['x']} (y, x), the array has "
                f"{ds.sizes['y']} x {ds.sizes['x']}, or their coordinates differ"
            )
        _check_times(array, ds)
        if array.dtype.kind == "b":
            return xr.where(array, np.uint8(NODATA), np.uint8(CLEAR)), None
        if array.dtype.kind not in "iu":
            raise ValueError(f"quality= must be boolean (True = nodata) or hold QualityClass codes, got dtype {array.dtype}")
        legal = (array >= 0) & (array < N_CLASSES)
        return (array if array.dtype == np.uint8 else xr.where(legal, array, CLEAR).astype(np.uint8)), None
    if isinstance(quality, NodataRule):
        return _masked(_nodata_codes(ds, quality.bands), ds), None
    if not (quality is None or isinstance(quality, str | QualityRule)):
        raise TypeError(f"quality= must be a band's name, a rule or a DataArray with x and y, got a {type(quality).__name__}")
    rule = quality if isinstance(quality, QualityRule) else _rule_of(ds, quality)
    if rule is None:
        bands = tuple(str(name) for name in ds.data_vars if {"y", "x"} <= set(ds[name].dims))
        return _masked(_nodata_codes(ds, bands), ds), None
    return _variable(ds, rule.band), rule


def _check_times(quality: xr.DataArray, ds: xr.Dataset) -> None:
    """Refuse quality with other time steps than the array's, which would count for the wrong items."""
    if "time" not in quality.dims:
        return
    times, wanted = (array["time"].values if "time" in array.coords else None for array in (quality, ds))
    n = ds.sizes.get("time", 1)
    differ = times is not None and wanted is not None and not np.array_equal(times, np.atleast_1d(wanted))
    if quality.sizes["time"] != n or differ:
        raise ValueError(
            f"quality= has other time steps than the array: it has {quality.sizes['time']}, the array has {n}, or their times "
            "differ; select the same time steps in the same order"
        )


def _rule_of(ds: xr.Dataset, band: str | None) -> QualityRule | None:
    text = ds.attrs.get("quality")
    stacked = QualityRule.from_json(text) if isinstance(text, str) and text.startswith("{") else None
    if band is None:
        if stacked is None:
            return _rule_of_sensor(ds)
        if stacked.band not in ds.variables:
            raise ValueError(
                f"the quality band {stacked.band!r} of these items is not in the array; stack it with the other bands, or pass "
                "another rule, such as quality=xchip.quality.NodataRule(('red',))"
            )
        return stacked
    array = _variable(ds, band)
    rule = stacked if stacked is not None and stacked.band == band else rule_for_band(band)
    if rule is None and array.dtype.kind == "b":
        return QualityRule(band, ((NODATA, (1,)),), source="boolean band, True = nodata")
    if rule is None:
        raise ValueError(
            f"no rule is known for the values of {band!r}; pass a rule, such as "
            f"quality=xchip.quality.values({band!r}, {{xchip.QualityClass.CLOUD: [8, 9]}})"
        )
    return renamed(rule, band)


def _rule_of_sensor(ds: xr.Dataset) -> QualityRule | None:
    """The rule of the sensor in ``attrs["sensor"]``, else of a band with the name of a known quality band."""
    names = [str(name) for name in ds.data_vars]
    sensor = ds.attrs.get("sensor")
    # Other libraries may use that attribute for something else.
    for rule in find(sensor).quality if isinstance(sensor, str) and sensor in sensor_names() else ():
        for name in names:
            if plain_key(name) == plain_key(rule.band):
                return renamed(rule, name)
    for name in names:
        by_name = rule_for_band(name)
        if by_name is not None:
            return by_name
    return None


def _variable(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name not in ds.variables or not {"y", "x"} <= set(ds[name].dims):
        raise ValueError(f"the array has no band {name!r} for quality; it has {[str(band) for band in ds.data_vars]}")
    return ds[name]


def _nodata_codes(ds: xr.Dataset, bands: tuple[str, ...]) -> xr.DataArray:
    """NODATA where all bands are nodata, else CLEAR: uint8."""
    if not bands:
        raise ValueError("the array has no bands")
    missing: xr.DataArray | None = None
    for name in bands:
        band = _variable(ds, name)
        nodata = nodata_of(band)
        others = [dim for dim in band.dims if dim not in ("time", "y", "x")]
        if band.dtype.kind in "fc":
            absent = band.isnull() if nodata is None or np.isnan(nodata) else band.isnull() | (band == nodata)
        elif nodata is None:
            return xr.full_like(band.isel(dict.fromkeys(others, 0), drop=True), CLEAR, dtype=np.uint8)
        else:
            absent = band == nodata
        absent = absent.all(others)  # layers along another dimension count like bands
        missing = absent if missing is None else missing & absent
    return xr.where(missing, np.uint8(NODATA), np.uint8(CLEAR))


def _masked(codes: xr.DataArray, ds: xr.Dataset) -> xr.DataArray:
    """``codes`` with NODATA where a mask of the stacked files is 0."""
    for name, mask in ds.coords.items():
        if MASK in mask.attrs:
            codes = xr.where(mask.drop_vars(name) == 0, np.uint8(NODATA), codes)
    return codes
