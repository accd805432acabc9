"""Inputs of the Clay model: how it takes each product, and the place and time of a chip as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.lonlat import transformed
from xchip.sensors.profile import ClaySensor, SensorProfile
from xchip.sensors.registry import band_called, find, names

if TYPE_CHECKING:
    import pyproj
    from numpy.typing import ArrayLike

__all__ = [
    "CLAY_SENSORS",
    "ClaySensor",
    "chip_centres",
    "clay_of",
    "clay_sensor",
    "encode_place",
    "encode_time",
    "encodings",
    "sensor_of_platform",
    "stored_nodata",
    "wavelengths",
]

WEEKS, HOURS = 52, 24
"""Weeks of a year and hours of a day; ISO week 53 thus equals week 1."""


@lru_cache(maxsize=256)
def clay_of(profile: SensorProfile) -> ClaySensor:
    """Return how Clay takes a product, with the wavelength of every band that has one.

    A profile without ``clay`` gets its own name as platform, its ``data_bands``, and the smallest of their pixel sizes.

    Examples
    --------
    >>> from xchip.sensors import BandSpec
    >>> drone = SensorProfile("drone", (BandSpec("red", resolution=0.05, wavelength=0.65), BandSpec("mask", default=False)))
    >>> clay_of(drone)
    ClaySensor(platform='drone', bands=('red',), gsd=0.05, wavelengths={'red': 0.65}, nodata=None)
    """
    centres = {spec.name: spec.wavelength for spec in profile.bands if spec.wavelength is not None}
    if profile.clay is not None:
        return replace(profile.clay, wavelengths={**centres, **profile.clay.wavelengths})
    bands = profile.data_bands
    sizes = [spec.resolution for spec in profile.bands if spec.name in bands and spec.resolution is not None]
    return ClaySensor(profile.name, bands, min(sizes, default=None), centres)


class _ClaySensors(Mapping[str, ClaySensor]):
    """A view of the registered profiles that have data bands."""

    def _current(self) -> dict[str, ClaySensor]:
        return {name: clay for name in names() if (clay := clay_of(find(name))).bands}

    def __getitem__(self, name: str) -> ClaySensor:
        return self._current()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())


CLAY_SENSORS: Mapping[str, ClaySensor] = _ClaySensors()
"""Name of each registered profile -> how Clay takes the product. It follows `xchip.sensors.register`."""


def clay_sensor(sensor: str | None) -> ClaySensor:
    """Return how Clay takes a sensor.

    Raises
    ------
    ValueError
        If the sensor is not registered or has no data bands.

    Examples
    --------
    >>> clay_sensor("landsat-c2-l2").platform, clay_sensor("naip").bands
    ('landsat-c2l2-sr', ('red', 'green', 'blue', 'nir'))
    """
    clay = CLAY_SENSORS.get(sensor or "")
    if clay is None:
        raise ValueError(
            f"the bands of sensor {sensor!r} for Clay are unknown; known sensors are {', '.join(CLAY_SENSORS)}; name the bands "
            "with assets=, or register a SensorProfile"
        )
    return clay


def sensor_of_platform(platform: str) -> str:
    """Return the sensor for a platform's name in Clay and stacchip; a sensor's own name is accepted too.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> sensor_of_platform("landsat-c2l2-sr"), sensor_of_platform("modis"), sensor_of_platform("naip")
    ('landsat-c2-l2', 'modis-09a1', 'naip')
    """
    for name, clay in CLAY_SENSORS.items():
        if platform in (name, clay.platform):
            return name
    raise ValueError(
        f"platform {platform!r} is not known; there are {', '.join(clay.platform for clay in CLAY_SENSORS.values())}"
    )


def wavelengths(sensor: str | None, bands: Sequence[str]) -> np.ndarray:
    """Return the wavelength of each band as Clay takes it: float32 (bands,), micrometres; for MODIS nanometres, as in training.

    Raises
    ------
    ValueError
        If the wavelength of a band is unknown.

    Examples
    --------
    >>> wavelengths("sentinel-2-l2a", ["red", "nir"]).tolist() == [np.float32(0.665), np.float32(0.842)]
    True
    """
    centres = clay_sensor(sensor).wavelengths
    missing = [band for band in bands if band not in centres]
    if missing:
        raise ValueError(
            f"the wavelengths of bands {missing} of {sensor} are unknown, only those of {list(centres)}; leave these bands out"
        )
    return np.array([centres[band] for band in bands], np.float32)


def stored_nodata(sensor: str, bands: Sequence[str]) -> tuple[float | None, ...]:
    """Return the nodata value of each band in files and cubes; None where the product defines none.

    Examples
    --------
    >>> stored_nodata("sentinel-1-rtc", ["vv"]), stored_nodata("modis-09a1", ["red"]), stored_nodata("naip", ["red"])
    ((-32768.0,), (-28672,), (None,))
    """
    profile = find(sensor)
    if profile.clay is not None and profile.clay.nodata is not None:
        return (profile.clay.nodata,) * len(bands)
    specs = (band_called(profile, band) for band in bands)
    return tuple(None if spec is None else spec.nodata for spec in specs)


def encode_time(datetimes: ArrayLike) -> dict[str, np.ndarray]:
    """Return the time of year and of day as points on a circle: ``week_norm`` and ``hour_norm``, float32 (n, 2): (sin, cos).

    The week is the ISO week, of 52; the hour is the full hour in UTC, of 24. A missing date becomes (0, 0).

    Examples
    --------
    >>> time = encode_time(np.array(["2024-03-25T18:59:00"], "M8[us]"))
    >>> time["week_norm"].round(3).tolist(), time["hour_norm"].round(3).tolist()  # week 13, hour 18
    ([[1.0, 0.0]], [[-1.0, -0.0]])
    """
    import pandas as pd

    moments = pd.DatetimeIndex(np.asarray(datetimes, "M8[us]"))
    weeks = moments.isocalendar().week.to_numpy(np.float64, na_value=np.nan)
    return {"week_norm": _on_circle(weeks / WEEKS), "hour_norm": _on_circle(np.asarray(moments.hour, np.float64) / HOURS)}


def encode_place(lon: ArrayLike, lat: ArrayLike) -> dict[str, np.ndarray]:
    """Return degrees as ``lat_norm`` and ``lon_norm``, float32 (n, 2): (sin, cos) of the angle.

    Examples
    --------
    >>> place = encode_place([180.0], [-90.0])
    >>> place["lat_norm"].round(3).tolist(), place["lon_norm"].round(3).tolist()
    ([[-1.0, 0.0]], [[0.0, -1.0]])
    """
    return {"lat_norm": _on_circle(np.asarray(lat) / 360), "lon_norm": _on_circle(np.asarray(lon) / 360)}


def _on_circle(turns: np.ndarray) -> np.ndarray:
    """(sin, cos) of angles in turns; (0, 0) for NaN."""
    angle = 2 * np.pi * turns
    return np.nan_to_num(np.stack([np.sin(angle), np.cos(angle)], axis=-1)).astype(np.float32)


def chip_centres(coords: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (longitude, latitude) of the centres of chips, float64 (n,), degrees; NaN where the CRS has none.

    Parameters
    ----------
    coords
        ``proj_code`` and the edges ``proj_left``, ``proj_bottom``, ``proj_right`` and ``proj_top``, one value per chip.

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
    numbers, codes = pd.factorize(np.asarray(coords["proj_code"], object))
    for number, code in enumerate(codes):
        chips = numbers == number
        lon[chips], lat[chips] = transformed(_to_degrees(code), x[chips], y[chips])
    outside = ~(np.isfinite(lon) & np.isfinite(lat))  # pyproj returns inf for points beside the map
    lon[outside] = lat[outside] = np.nan
    return lon, lat


@lru_cache(maxsize=128)
def _to_degrees(code: str) -> pyproj.Transformer:
    from pyproj import Transformer

    return Transformer.from_crs(code, "EPSG:4326", always_xy=True)


def encodings(coords: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return ``week_norm``, ``hour_norm``, ``lat_norm`` and ``lon_norm`` of chips, float32 (n, 2).

    ``coords`` are ``datetime`` and the coordinates that `chip_centres` needs, one value per chip.
    """
    return {**encode_time(coords["datetime"]), **encode_place(*chip_centres(coords))}
