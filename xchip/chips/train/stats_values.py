"""What is known of the bands that models are trained on, as values and as a small file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xchip.core.html import accessor_html
from xchip.core.moments import Moments
from xchip.indexing.explain.explanation import counted
from xchip.io.storage import StorageOptions
from xchip.sensors.clay import CLAY_SENSORS

_RGB = ("red", "green", "blue")
_COLUMNS = ("mean", "std", "min", "max", "count", "wavelength")
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SensorStats:
    """Statistics of one sensor's bands, over all its chips that counted."""

    sensor: str | None
    """Name of the profile; None: an unknown product."""
    bands: tuple[str, ...]
    """Names of the bands; what follows has a value for each."""
    count: tuple[int, ...]
    """Pixels that counted."""
    mean: tuple[float, ...]
    """In the unit of the files; NaN where no pixel counted."""
    std: tuple[float, ...]
    """Standard deviation of the pixels (``ddof=0``)."""
    min: tuple[float, ...]
    """Smallest pixel."""
    max: tuple[float, ...]
    """Largest pixel."""
    wavelength: tuple[float, ...]
    """Centre of the band as the Clay model is told it: micrometres (MODIS: nanometres); NaN where it is not known."""
    chips: int
    """Chips that were read."""

    @classmethod
    def of(
        cls, sensor: str | None, bands: tuple[str, ...], found: Moments, chips: int, wavelengths: Mapping[str, float]
    ) -> SensorStats:
        """The moments of all pixels of each band, as plain numbers."""
        return cls(
            sensor=sensor,
            bands=bands,
            count=tuple(int(count) for count in found.count),
            mean=tuple(found.mean.tolist()),
            std=tuple(found.std.tolist()),
            min=tuple(found.min.tolist()),
            max=tuple(found.max.tolist()),
            wavelength=tuple(wavelengths.get(band, math.nan) for band in bands),
            chips=chips,
        )

    @property
    def platform(self) -> str:
        """The name that the Clay model's configuration has for the sensor; else its own."""
        clay = CLAY_SENSORS.get(self.sensor or "")
        return clay.platform if clay is not None else self.sensor or _UNKNOWN

    def to_dict(self) -> dict[str, Any]:
        """Plain values, under the keys of Clay's ``metadata.yaml`` and a few more."""
        clay = CLAY_SENSORS.get(self.sensor or "")
        out: dict[str, Any] = {"sensor": self.sensor, "chips": self.chips, "band_order": list(self.bands)}
        if set(_RGB) <= set(self.bands):
            out["rgb_indices"] = [self.bands.index(name) for name in _RGB]
        if clay is not None:
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
    def from_dict(cls, found: Mapping[str, Any]) -> SensorStats:
        """What `to_dict` gave."""
        bands = tuple(found["band_order"])
        columns: dict[str, Any] = {
            name: tuple(math.nan if found["bands"][name][band] is None else found["bands"][name][band] for band in bands)
            for name in _COLUMNS
        }
        return cls(sensor=found["sensor"], bands=bands, chips=found["chips"], **columns)


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
    """One for each sensor of the index."""

    def __getitem__(self, sensor: str | None) -> SensorStats:
        """The statistics of one sensor.

        Raises
        ------
        ValueError
            If there are none.
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
        """Title, header and rows of each sensor's table."""
        for one in self.sensors:
            columns = (one.mean, one.std, one.min, one.max, one.count)
            rows = [
                [band, f"{mean:,.7g}", f"{std:,.7g}", f"{low:,.6g}", f"{high:,.6g}", f"{count:,}"]
                for band, mean, std, low, high, count in zip(one.bands, *columns, strict=True)
            ]
            title = f"{one.sensor or 'unknown sensor'}, {counted(one.chips, 'chip')}"
            yield title, ["band", "mean", "std", "min", "max", "pixels"], rows

    def to_dict(self) -> dict[str, Any]:
        """`SensorStats.to_dict` of each, by the name of the platform."""
        return {stats.platform: stats.to_dict() for stats in self.sensors}

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_yaml(self) -> str:
        """As YAML, in the likeness of Clay's ``metadata.yaml``."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_json(cls, text: str) -> BandStats:
        """What `to_json` gave."""
        return cls(tuple(map(SensorStats.from_dict, json.loads(text).values())))

    @classmethod
    def from_yaml(cls, text: str) -> BandStats:
        """What `to_yaml` gave."""
        import yaml

        return cls(tuple(map(SensorStats.from_dict, yaml.safe_load(text).values())))

    def write(self, path: str | os.PathLike[str], *, storage: StorageOptions | None = None) -> str:
        """Write a ``.json``, ``.yaml`` or ``.yml`` file: a path or a URL, which is returned.

        Raises
        ------
        ValueError
            If the name ends in something else.
        """
        text = self.to_json() if is_json(path) else self.to_yaml()
        fs, place = (storage or StorageOptions()).filesystem(os.fspath(path))
        fs.makedirs(fs._parent(place), exist_ok=True)
        fs.pipe_file(place, text.encode())
        return os.fspath(path)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, storage: StorageOptions | None = None) -> BandStats:
        """What `write` wrote."""
        parse = cls.from_json if is_json(path) else cls.from_yaml
        fs, place = (storage or StorageOptions()).filesystem(os.fspath(path))
        return parse(fs.cat_file(place).decode())


def is_json(path: str | os.PathLike[str]) -> bool:
    """Whether a file of statistics is JSON, and not YAML, by its name.

    Raises
    ------
    ValueError
        If it is neither.
    """
    name = os.fspath(path).lower()
    if not name.endswith((".json", ".yaml", ".yml")):
        raise ValueError(f"statistics are written to a file *.json, *.yaml or *.yml, got {os.fspath(path)!r}")
    return name.endswith(".json")
