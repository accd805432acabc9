"""Choose the quality band of an array, and the rule that its values follow."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xchip.core.arrays import MASK, Quality, as_dataset, nodata_of
from xchip.core.quality import CLEAR, N_CLASSES, NODATA, NodataRule, QualityRule
from xchip.sensors.registry import find, plain_key, renamed, rule_for_band
from xchip.sensors.registry import names as sensor_names


def quality_of(ds: xr.Dataset, quality: Quality = None) -> tuple[xr.DataArray, QualityRule | None]:
    """The array that tells each pixel's quality, and the rule that its values follow.

    Parameters
    ----------
    ds
        What `as_dataset` made.
    quality
        A band's name, a rule, a boolean DataArray (True = nodata), or a DataArray of `QualityClass` codes. None: the rule
        that `xchip.stack` left in the attributes, else that of a band called like a known sensor's quality band, else
        NODATA where all bands are nodata.

    Returns
    -------
    array, rule
        ``rule`` is None where the array holds class codes (uint8).

    Raises
    ------
    ValueError
        If there is no such band, or nothing says what its values mean.
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
        known = (array >= 0) & (array < N_CLASSES)
        return (array if array.dtype == np.uint8 else xr.where(known, array, CLEAR).astype(np.uint8)), None
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
    """Refuse quality with other time steps: it would be taken for that of other items."""
    if "time" not in quality.dims:
        return
    own, others = (array["time"].values if "time" in array.coords else None for array in (quality, ds))
    n = ds.sizes.get("time", 1)
    if quality.sizes["time"] != n or (own is not None and others is not None and not np.array_equal(own, np.atleast_1d(others))):
        raise ValueError(
            f"quality= has other time steps than the array: {quality.sizes['time']} of them, the array has {n}, or their "
            "times differ; select the same ones in the same order"
        )


def _rule_of(ds: xr.Dataset, band: str | None) -> QualityRule | None:
    left = ds.attrs.get("quality")
    stacked = QualityRule.from_json(left) if isinstance(left, str) and left.startswith("{") else None
    if band is None:
        if stacked is None:
            return _rule_of_sensor(ds)
        if stacked.band not in ds.variables:
            raise ValueError(
                f"the quality band {stacked.band!r} of these items is not in the array; stack it with the others, or say "
                "with quality= what to go by, such as quality=xchip.quality.NodataRule(('red',))"
            )
        return stacked
    array = _variable(ds, band)
    rule = stacked if stacked is not None and stacked.band == band else rule_for_band(band)
    if rule is None and array.dtype.kind == "b":
        return QualityRule(band, ((NODATA, (1,)),), source="boolean band, True = nodata")
    if rule is None:
        raise ValueError(
            f"nothing says what the values of {band!r} mean; give a rule, such as "
            f"quality=xchip.quality.values({band!r}, {{xchip.QualityClass.CLOUD: [8, 9]}})"
        )
    return renamed(rule, band)


def _rule_of_sensor(ds: xr.Dataset) -> QualityRule | None:
    """The rule of the sensor that ``attrs["sensor"]`` names, else of a band that is called like a known quality band."""
    names = [str(name) for name in ds.data_vars]
    sensor = ds.attrs.get("sensor")
    # Other libraries may mean something else by that attribute.
    for rule in find(sensor).quality if isinstance(sensor, str) and sensor in sensor_names() else ():
        for name in names:
            if plain_key(name) == plain_key(rule.band):
                return renamed(rule, name)
    for name in names:
        known = rule_for_band(name)
        if known is not None:
            return renamed(known, name)
    return None


def _variable(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name not in ds.variables or not {"y", "x"} <= set(ds[name].dims):
        raise ValueError(f"there is no band {name!r} for quality; the array has {[str(band) for band in ds.data_vars]}")
    return ds[name]


def _nodata_codes(ds: xr.Dataset, bands: tuple[str, ...]) -> xr.DataArray:
    """NODATA where all bands are, else CLEAR: uint8."""
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
        absent = absent.all(others)  # what lies along another dimension is judged together, like bands
        missing = absent if missing is None else missing & absent
    return xr.where(missing, np.uint8(NODATA), np.uint8(CLEAR))


def _masked(codes: xr.DataArray, ds: xr.Dataset) -> xr.DataArray:
    """``codes`` with NODATA where a mask of the stacked files says so."""
    for name, mask in ds.coords.items():
        if MASK in mask.attrs:
            codes = xr.where(mask.drop_vars(name) == 0, np.uint8(NODATA), codes)
    return codes
