"""Statistics of bands, as values and as a small file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xchip.core.html import accessor_html
from xchip.core.moments import Moments
from xchip.core.types import PathLike
from xchip.indexing.explain.explanation import counted
from xchip.io.storage import StorageOptions
from xchip.sensors.clay import CLAY_SENSORS

_RGB = ("red", "green", "blue")
_COLUMNS = ("mean", "std", "min", "max", "count", "wavelength")
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SensorStats:
    """Statistics of the bands of a sensor."""

    sensor: str | None
    """Name of the profile; None: an unknown product."""
    bands: tuple[str, ...]
    """Names of the bands. The following tuples have a value for each band."""
    count: tuple[int, ...]
    """Valid pixels."""
    mean: tuple[float, ...]
    """In the unit of the files; NaN without valid pixels."""
    std: tuple[float, ...]
    """Standard deviation of the pixels (``ddof=0``)."""
    min: tuple[float, ...]
    """Smallest pixel."""
    max: tuple[float, ...]
    """Largest pixel."""
    wavelength: tuple[float, ...]
    """Centre of the band as Clay takes it: micrometres (MODIS: nanometres); NaN where unknown."""
    chips: int
    """Chips that were read."""

    @classmethod
    def of(
        cls, sensor: str | None, bands: tuple[str, ...], values: Moments, chips: int, wavelengths: Mapping[str, float]
    ) -> SensorStats:
        """Return the statistics of ``values``, the moments of each band, (bands,)."""
        return cls(
            sensor=sensor,
            bands=bands,
            count=tuple(int(count) for count in values.count),
            mean=tuple(values.mean.tolist()),
            std=tuple(values.std.tolist()),
            min=tuple(values.min.tolist()),
            max=tuple(values.max.tolist()),
            wavelength=tuple(wavelengths.get(band, math.nan) for band in bands),
            chips=chips,
        )

    @property
    def platform(self) -> str:
        """Name of the sensor in Clay's configuration; otherwise the sensor's own name."""
        clay = CLAY_SENSORS.get(self.sensor or "")
        return clay.platform if clay is not None else self.sensor or _UNKNOWN

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with the keys of Clay's ``metadata.yaml`` and a few more."""
        clay = CLAY_SENSORS.get(self.sensor or "")
        out: dict[str, Any] = {"sensor": self.sensor, "chips": self.chips, "band_order": list(self.bands)}
        if set(_RGB) <= set(self.bands):
            out["rgb_indices"] = [self.bands.index(name) for name in _RGB]
        if clay is not None and clay.gsd is not None:
            out["gsd"] = clay.gsd
        out["bands"] = {
            name: {
                band: None if math.isnan(value) else value  # JSON has no NaN
                for band, value in zip(self.bands, getattr(self, name), strict=True)
            }
            for name in _COLUMNS
        }
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SensorStats:
        """Return the statistics of a result of `to_dict`."""
        bands = tuple(values["band_order"])
        columns: dict[str, Any] = {
            name: tuple(math.nan if values["bands"][name][band] is None else values["bands"][name][band] for band in bands)
            for name in _COLUMNS
        }
        return cls(sensor=values["sensor"], bands=bands, chips=values["chips"], **columns)


@dataclass(frozen=True, slots=True, repr=False)
class BandStats:
    """Statistics of bands, by sensor. A console and a notebook show them as tables.

    Examples
    --------
    >>> red = SensorStats("naip", ("red",), (4,), mean=(2.5,), std=(1.1,), min=(1.0,), max=(4.0,), wavelength=(0.65,), chips=1)
    >>> stats = BandStats((red,))
    >>> stats["naip"].mean
    (2.5,)
    >>> BandStats.from_json(stats.to_json()) == stats
    True
    >>> print(stats.to_yaml())
    naip:
      sensor: naip
      chips: 1
      band_order:
      - red
      gsd: 1.0
      bands:
        mean:
          red: 2.5
        std:
          red: 1.1
        min:
          red: 1.0
        max:
          red: 4.0
        count:
          red: 4
        wavelength:
          red: 0.65
    """

    sensors: tuple[SensorStats, ...]
    """Statistics of each sensor of the index."""

    def __getitem__(self, sensor: str | None) -> SensorStats:
        """Return the statistics of a sensor.

        Raises
        ------
        ValueError
            If the sensor has no statistics.
        """
        for stats in self.sensors:
            if stats.sensor == sensor:
                return stats
        known = [stats.sensor for stats in self.sensors]
        raise ValueError(f"there are no statistics of sensor {sensor!r}, only of {known}; make them with xchip.band_stats")

    def __str__(self) -> str:
        lines = []
        for title, header, rows in self._tables():
            widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
            lines.append(title)
            for band, *values in (header, *rows):
                cells = (value.rjust(width) for value, width in zip(values, widths[1:], strict=True))
                lines.append("  ".join(["    " + band.ljust(widths[0]), *cells]))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return "".join(accessor_html(title, [], tables=[(header, rows)]) for title, header, rows in self._tables())

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Yield title, header and rows of each sensor's table."""
        for stats in self.sensors:
            columns = (stats.mean, stats.std, stats.min, stats.max, stats.count)
            rows = [
                [band, f"{mean:,.7g}", f"{std:,.7g}", f"{low:,.6g}", f"{high:,.6g}", f"{count:,}"]
                for band, mean, std, low, high, count in zip(stats.bands, *columns, strict=True)
            ]
            title = f"{stats.sensor or 'unknown sensor'}, {counted(stats.chips, 'chip')}"
            yield title, ["band", "mean", "std", "min", "max", "pixels"], rows

    def to_dict(self) -> dict[str, Any]:
        """Return `SensorStats.to_dict` of each sensor, by the name of the platform."""
        return {stats.platform: stats.to_dict() for stats in self.sensors}

    def to_json(self) -> str:
        """Return the statistics as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_yaml(self) -> str:
        """Return the statistics as YAML, like Clay's ``metadata.yaml``."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_json(cls, text: str) -> BandStats:
        """Return the statistics of a result of `to_json`."""
        return cls(tuple(map(SensorStats.from_dict, json.loads(text).values())))

    @classmethod
    def from_yaml(cls, text: str) -> BandStats:
        """Return the statistics of a result of `to_yaml`."""
        import yaml

        return cls(tuple(map(SensorStats.from_dict, yaml.safe_load(text).values())))

    def write(self, path: PathLike, *, storage: StorageOptions | None = None) -> str:
        """Write a ``.json``, ``.yaml`` or ``.yml`` file to a path or URL, and return ``path``.

        Raises
        ------
        ValueError
            If the name has another ending.
        """
        text = self.to_json() if is_json(path) else self.to_yaml()
        fs, place = (storage or StorageOptions()).filesystem(os.fspath(path))
        fs.makedirs(fs._parent(place), exist_ok=True)
        fs.pipe_file(place, text.encode())
        return os.fspath(path)

    @classmethod
    def read(cls, path: PathLike, *, storage: StorageOptions | None = None) -> BandStats:
        """Read a file of `write`."""
        parse = cls.from_json if is_json(path) else cls.from_yaml
        fs, place = (storage or StorageOptions()).filesystem(os.fspath(path))
        return parse(fs.cat_file(place).decode())


def is_json(path: PathLike) -> bool:
    """Return whether the name of a file of statistics ends in ``.json``, not ``.yaml`` or ``.yml``.

    Raises
    ------
    ValueError
        If it has another ending.
    """
    name = os.fspath(path).lower()
    if not name.endswith((".json", ".yaml", ".yml")):
        raise ValueError(f"a file of statistics must be named *.json, *.yaml or *.yml, got {os.fspath(path)!r}")
    return name.endswith(".json")
