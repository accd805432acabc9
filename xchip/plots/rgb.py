"""Convert bands to colours on a screen, with NumPy alone; `xchip.plots.sheets` draws the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.arrays import nodata_of, pixel_grid

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


RGB = ("red", "green", "blue")


def picture_bands(ds: xr.Dataset) -> list[str]:
    """Return the bands of a picture: red, green and blue, by name or by ``attrs["common_name"]``; otherwise the first band.

    Examples
    --------
    >>> import xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(64, 64))
    >>> picture_bands(ds), picture_bands(ds[["nir", "red"]])
    (['red', 'green', 'blue'], ['nir'])
    """
    if not ds.data_vars:
        raise ValueError("there are no bands to show")
    common = {str(band.attrs["common_name"]): str(name) for name, band in ds.data_vars.items() if "common_name" in band.attrs}
    colours = [name if name in ds.data_vars else common.get(name) for name in RGB]
    return [str(name) for name in (list(ds.data_vars)[:1] if None in colours else colours)]


def choose_bands(ds: xr.Dataset, bands: Sequence[str]) -> xr.Dataset:
    """Select the bands of a picture: one, or three for red, green and blue."""
    if len(bands) not in (1, 3):
        raise ValueError(f"a picture has one band or three, got {list(bands)}")
    missing = [name for name in bands if name not in ds]
    if missing:
        raise ValueError(
            f"there are no bands {missing}; the array has {[str(name) for name in ds.data_vars]}; choose with bands="
        )
    return ds[list(bands)]


def band_values(pixels: xr.Dataset, bands: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (values: float32 (..., y, x, band); where all bands have data: bool (..., y, x))."""
    values = np.stack([pixels[name].values for name in bands], axis=-1).astype(np.float32)
    valid = np.asarray(np.isfinite(values).all(axis=-1))
    for number, name in enumerate(bands):
        nodata = nodata_of(pixels[name])
        if nodata is not None:
            valid = valid & (values[..., number] != np.float32(nodata))
    return values, valid


def grey_range(values: np.ndarray, percentiles: tuple[float, float], bright: float = 0.0) -> tuple[float, float]:
    """Return (low, high): the percentiles of ``values`` (pixel, band) without the brightest fraction ``bright``.

    All bands share a range, so that colours stay true. ``bright`` is the fraction of cloud and snow, beside which land would be
    dark.
    """
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, np.array(percentiles) * (1 - min(bright, 0.9)))
    return float(low), float(high) if high > low else float(low) + 1.0


def bright_part(rows: pd.DataFrame) -> float:
    """Return the fraction of the chips' valid pixels that is cloud or snow; 0 if the index lacks the columns."""
    if not {"nodata_fraction", "cloud_fraction", "snow_fraction"} <= set(rows):
        return 0.0
    valid = (1 - rows["nodata_fraction"]) * rows["width"] * rows["height"]
    bright = (rows["cloud_fraction"].fillna(0) + rows["snow_fraction"].fillna(0)) * valid
    return float(bright.sum() / valid.sum()) if valid.sum() else 0.0


def to_rgba(values: np.ndarray, valid: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return uint8 RGBA (y, x, 4), transparent where there are no data. ``low`` is black.

    Values up to ``high`` use four fifths of the tones; brighter values share the rest, so that clouds keep their shape.
    """
    level = np.maximum(values - low, 0) / (high - low)
    land = 0.8 * np.minimum(level, 1) ** 0.8
    tones = land + 0.2 * (1 - np.exp(0.35 * (1 - np.maximum(level, 1))))
    colours = (tones * 255).astype(np.uint8)
    if colours.shape[-1] == 1:
        colours = colours.repeat(3, axis=-1)
    return np.concatenate([colours, np.where(valid, 255, 0).astype(np.uint8)[..., None]], axis=-1)


def extent_of(ds: xr.Dataset) -> tuple[float, float, float, float]:
    """Return (left, right, bottom, top) of an array."""
    left, bottom, right, top = pixel_grid(ds).bounds
    return left, right, bottom, top
