"""What a training sample is besides its pixels: when and where it was seen, in which bands, as the Clay model takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from xchip.core.lonlat import transformed

WEEKS, HOURS = 52, 24
"""What one turn of the clock is; ISO week 53 is thus the same as week 1."""


@dataclass(frozen=True, slots=True)
class ClaySensor:
    """What Clay is told of a product."""

    platform: str
    """Clay's name of it, and of the folder of its cubes."""
    bands: tuple[str, ...]
    """Plain names of the bands, in the order of the channels."""
    gsd: float
    """Ground sample distance that the model is told, metres."""
    wavelengths: Mapping[str, float]
    """Centre of bands in micrometres, by plain name; of more bands than ``bands`` where they are known."""


_S2 = {
    "coastal": 0.443, "blue": 0.493, "green": 0.56, "red": 0.665, "rededge1": 0.704, "rededge2": 0.74, "rededge3": 0.783,
    "nir": 0.842, "nir08": 0.865, "nir09": 0.945, "cirrus": 1.375, "swir16": 1.61, "swir22": 2.19,
}  # fmt: skip
_S2_BANDS = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
_LANDSAT = {
    "coastal": 0.443, "red": 0.65, "green": 0.56, "blue": 0.48, "nir08": 0.86, "cirrus": 1.37, "swir16": 1.6, "swir22": 2.2,
}  # fmt: skip
_LANDSAT_BANDS = ("red", "green", "blue", "nir08", "swir16", "swir22")
# Nanometres, unlike the others: so Clay's configuration has them, and so it was trained.
_MODIS = {"red": 645.0, "nir08": 858.5, "blue": 469.0, "green": 555.0, "nir12": 1240.0, "swir16": 1640.0, "swir22": 2130.0}

# Platforms, order, gsd and wavelengths as in Clay's configs/metadata.yaml, v1.5. Bands that are not there: centres by the
# products' guides. Clay has no Sentinel-2 level 1C and no HLS; they are given what holds for the same instrument.
CLAY_SENSORS: Mapping[str, ClaySensor] = {
    "sentinel-2-l2a": ClaySensor("sentinel-2-l2a", _S2_BANDS, 10.0, _S2),
    "sentinel-2-l1c": ClaySensor("sentinel-2-l1c", _S2_BANDS, 10.0, _S2),
    "landsat-c2-l2": ClaySensor("landsat-c2l2-sr", _LANDSAT_BANDS, 30.0, _LANDSAT),
    "landsat-c2-l1": ClaySensor("landsat-c2l1", _LANDSAT_BANDS, 30.0, _LANDSAT),
    "modis-09a1": ClaySensor("modis", tuple(_MODIS), 500.0, _MODIS),
    "hls-l30": ClaySensor("hls-l30", _LANDSAT_BANDS, 30.0, _LANDSAT),
    "hls-s30": ClaySensor("hls-s30", _S2_BANDS, 30.0, _S2),
    "sentinel-1-rtc": ClaySensor("sentinel-1-rtc", ("vv", "vh"), 10.0, {"vv": 3.5, "vh": 4.0}),
    "naip": ClaySensor("naip", ("red", "green", "blue", "nir"), 1.0, {"red": 0.65, "green": 0.56, "blue": 0.48, "nir": 0.842}),
    "linz": ClaySensor("linz", ("red", "green", "blue"), 0.5, {"red": 0.635, "green": 0.555, "blue": 0.465}),
}
"""By the name of the sensor's profile."""


def clay_sensor(sensor: str | None) -> ClaySensor:
    """What Clay is told of a sensor.

    Raises
    ------
    ValueError
        If nothing is known of it.

    Examples
    --------
    >>> clay_sensor("landsat-c2-l2").platform, clay_sensor("naip").bands
    ('landsat-c2l2-sr', ('red', 'green', 'blue', 'nir'))
    """
    found = CLAY_SENSORS.get(sensor or "")
    if found is None:
        known = ", ".join(CLAY_SENSORS)
        raise ValueError(f"Clay's bands of sensor {sensor!r} are not known, only those of {known}; name the bands with assets=")
    return found


def sensor_of_platform(platform: str) -> str:
    """The sensor that Clay, and so stacchip, calls ``platform``; the sensor's own name does as well.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> sensor_of_platform("landsat-c2l2-sr"), sensor_of_platform("modis"), sensor_of_platform("naip")
    ('landsat-c2-l2', 'modis-09a1', 'naip')
    """
    found = next((name for name, clay in CLAY_SENSORS.items() if platform in (name, clay.platform)), None)
    if found is None:
        raise ValueError(f"platform {platform!r} is not known; there are {', '.join(c.platform for c in CLAY_SENSORS.values())}")
    return found


def wavelengths(sensor: str | None, bands: Sequence[str]) -> np.ndarray:
    """Wavelength of each band as Clay takes it: float32 (bands,), micrometres (but MODIS: nanometres, as Clay was trained).

    Raises
    ------
    ValueError
        If it is not known of a band.

    Examples
    --------
    >>> wavelengths("sentinel-2-l2a", ["red", "nir"]).tolist() == [np.float32(0.665), np.float32(0.842)]
    True
    """
    known = clay_sensor(sensor).wavelengths
    missing = [band for band in bands if band not in known]
    if missing:
        raise ValueError(
            f"the wavelengths of bands {missing} of {sensor} are not known, only those of {list(known)}; leave these bands out"
        )
    return np.array([known[band] for band in bands], np.float32)


def encode_time(datetimes: Any) -> dict[str, np.ndarray]:
    """Time of year and of day as points of a circle: ``week_norm`` and ``hour_norm``, float32 (n, 2): (sin, cos).

    The week is the ISO week, of 52; the hour is the full hour in UTC, of 24. A missing date is (0, 0), which is on no circle.

    Examples
    --------
    >>> found = encode_time(np.array(["2024-03-25T18:59:00"], "M8[us]"))
    >>> found["week_norm"].round(3).tolist(), found["hour_norm"].round(3).tolist()  # week 13, hour 18
    ([[1.0, 0.0]], [[-1.0, -0.0]])
    """
    import pandas as pd

    moments = pd.DatetimeIndex(np.asarray(datetimes, "M8[us]"))
    weeks = moments.isocalendar().week.to_numpy(np.float64, na_value=np.nan)
    return {"week_norm": _on_circle(weeks / WEEKS), "hour_norm": _on_circle(np.asarray(moments.hour, np.float64) / HOURS)}


def encode_place(lon: Any, lat: Any) -> dict[str, np.ndarray]:
    """Degrees as ``lat_norm`` and ``lon_norm``, float32 (n, 2): (sin, cos) of the angle.

    Examples
    --------
    >>> found = encode_place([180.0], [-90.0])
    >>> found["lat_norm"].round(3).tolist(), found["lon_norm"].round(3).tolist()
    ([[-1.0, 0.0]], [[0.0, -1.0]])
    """
    return {"lat_norm": _on_circle(np.asarray(lat) / 360), "lon_norm": _on_circle(np.asarray(lon) / 360)}


def _on_circle(turns: np.ndarray) -> np.ndarray:
    """(sin, cos) of so many turns; (0, 0) for NaN."""
    angle = 2 * np.pi * turns
    return np.nan_to_num(np.stack([np.sin(angle), np.cos(angle)], axis=-1)).astype(np.float32)


def chip_centres(coords: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(longitude, latitude) of the centres of chips, float64 (n,), degrees; NaN where their CRS has none.

    Parameters
    ----------
    coords
        ``proj_code`` and the edges ``proj_left``, ``proj_bottom``, ``proj_right`` and ``proj_top``, a value a chip.

    Examples
    --------
    >>> edges = {"proj_left": [499980.0], "proj_right": [500020.0], "proj_bottom": [-20.0], "proj_top": [20.0]}
    >>> lon, lat = chip_centres({"proj_code": ["EPSG:32620"], **edges})
    >>> lon.round(6).tolist(), lat.round(6).tolist()
    ([-63.0], [0.0])
    """
    import pandas as pd

    edges = {name: np.asarray(coords[f"proj_{name}"], np.float64) for name in ("left", "bottom", "right", "top")}
    x, y = (edges["left"] + edges["right"]) / 2, (edges["bottom"] + edges["top"]) / 2
    lon, lat = np.full(len(x), np.nan), np.full(len(x), np.nan)
    which, codes = pd.factorize(np.asarray(coords["proj_code"], object))
    for number, code in enumerate(codes):
        mine = which == number
        lon[mine], lat[mine] = transformed(_to_degrees(code), x[mine], y[mine])
    beyond = ~(np.isfinite(lon) & np.isfinite(lat))  # pyproj says inf of what is beside the map
    lon[beyond] = lat[beyond] = np.nan
    return lon, lat


@lru_cache(maxsize=128)
def _to_degrees(code: str) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(code, "EPSG:4326", always_xy=True)


def encodings(coords: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``week_norm``, ``hour_norm``, ``lat_norm`` and ``lon_norm`` of chips, float32 (n, 2), from their coordinates.

    ``coords`` are ``datetime`` and what `chip_centres` needs, a value a chip.
    """
    return {**encode_time(coords["datetime"]), **encode_place(*chip_centres(coords))}
