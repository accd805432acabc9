"""Rows, pixels and rules in forms that do not depend on xchip's modules: shared by ``make.py`` and the tests of its archives."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd

from xchip.quality import CLOUD, NODATA, SHADOW, values
from xchip.sensors import BandSpec, SensorProfile

STRICT = values("scl", {NODATA: [0, 1], CLOUD: [7, 8, 9, 10], SHADOW: [2, 3]}, source="our own choice")
"""The quality rule that the archive ``series`` was made with."""
DRONE = SensorProfile(
    "my-drone",
    bands=(BandSpec("red", keys=("b1",)), BandSpec("mask", default=False)),
    quality=(values("mask", {NODATA: [0], CLOUD: [2]}, source="flight manual, table 3"),),
)
"""The profile that the archive ``own-profile`` was made with."""


def plain(value: Any) -> Any:
    """A value as JSON holds it; null for what is missing."""
    if pd.isna(value):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


def rows_of(frame: geopandas.GeoDataFrame, root: Path | None = None) -> list[list[Any]]:
    """Rows as JSON: the names of the columns, then the values of each row; footprints as bounds, hrefs relative to ``root``."""
    plainer = frame.drop(columns="geometry")
    if root is not None:
        hrefs = (None if href is None else Path(href).relative_to(root).as_posix() for href in map(plain, plainer["item_href"]))
        plainer = plainer.assign(item_href=list(hrefs))
    values = zip(*(plainer[name].tolist() for name in plainer), frame.bounds.to_numpy().tolist(), strict=True)
    return [[*plainer, "bounds"], *([*map(plain, row[:-1]), row[-1]] for row in values)]


def number_types(frame: geopandas.GeoDataFrame) -> dict[str, str]:
    """Data types of the columns that hold numbers."""
    return {name: str(kind) for name, kind in frame.dtypes.items() if kind.kind in "if"}


def digest(pixels: np.ndarray) -> str:
    """Tells pixels, their data type and their shape from others."""
    pixels = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{pixels.dtype.name} {pixels.shape} ".encode() + pixels.tobytes()).hexdigest()[:20]


def pixels_of(chips: Any, key: str = "chip_id") -> dict[str, dict[str, str]]:
    """Digests of each chip's bands."""
    chips = chips.load()
    return {
        str(chip[key].values): {str(name): digest(band.values) for name, band in chip.data_vars.items()}
        for chip in (chips.isel(chip=number) for number in range(chips.sizes["chip"]))
    }


def nodata_of(chips: Any) -> dict[str, Any]:
    """What each band declares."""
    return {str(name): plain(band.attrs.get("_FillValue")) for name, band in chips.data_vars.items()}
