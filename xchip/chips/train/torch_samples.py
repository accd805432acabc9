"""Make PyTorch samples of chips: dictionaries of tensors with the keys of the Clay model, or of TorchGeo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack

import numpy as np

from xchip.chips.chip_reader import BandLayout
from xchip.chips.chip_rows import ChipRows
from xchip.chips.chip_table import ChipTable, TableOptions, open_table
from xchip.chips.train.bands import clay_sensor_of, sensors_of, training_bands, wavelengths_of
from xchip.chips.train.stats_values import BandStats
from xchip.core.types import Assets, IndexLike
from xchip.indexing.stacchip.rows import located
from xchip.sensors.clay import encodings

if TYPE_CHECKING:
    import torch

Keys: TypeAlias = Literal["clay", "torchgeo"]

Sample: TypeAlias = dict[str, Any]
"""Tensors and text by key, of a chip or of a batch."""


def the_torch() -> ModuleType:
    """Import PyTorch; an ImportError names the extra."""
    try:
        import torch
    except ImportError as error:
        raise ImportError("datasets for PyTorch need PyTorch: pip install 'xchip[torch]'") from error
    return torch


@dataclass(frozen=True, eq=False)
class Samples:
    """Make samples from pixels. It pickles, because it is sent to workers."""

    table: ChipTable
    keys: Keys
    dtype: torch.dtype
    sensor: np.ndarray
    """int64 (item,): number of each item's sensor, an index into the next three fields."""
    waves: np.ndarray | None
    """float32 (sensor, band)."""
    gsd: np.ndarray | None
    """float32 (sensor,)."""
    scaling: tuple[np.ndarray, np.ndarray] | None
    """float32 (sensor, band): mean and standard deviation."""

    def of(self, positions: np.ndarray, arrays: Sequence[np.ndarray]) -> list[Sample]:
        """Return a sample for each chip."""
        columns = self._columns(positions, arrays)
        return [{name: values[chip] for name, values in columns.items()} for chip in range(len(positions))]

    def batch(self, positions: np.ndarray, arrays: Sequence[np.ndarray]) -> Sample:
        """Return a single sample of all chips, which must be of one sensor."""
        columns = self._columns(positions, arrays)
        return {name: values[0] if name in ("waves", "gsd") else values for name, values in columns.items()}

    def _columns(self, positions: np.ndarray, arrays: Sequence[np.ndarray]) -> Sample:
        """Return the values of all chips by key: tensors, and lists of text."""
        import torch

        rows = self.table.rows.take(positions)
        columns_of_chips = {name: values[positions] for name, values in self.table.coords.items()}
        coords = located(rows, columns_of_chips, self.table.reader.items.scene)
        sensor = self.sensor[self.table.rows.item[positions]]
        pixels = self._pixels(arrays, sensor)
        columns: Sample
        if self.keys == "torchgeo":
            bounds, transform = _torchgeo_places(coords, rows)
            columns = {"image": pixels, "bounds": torch.from_numpy(bounds), "transform": torch.from_numpy(transform)}
            columns["crs"] = coords["proj_code"].tolist()
        else:
            encoded = encodings(coords)
            columns = {
                "pixels": pixels,
                "time": torch.from_numpy(np.hstack([encoded["week_norm"], encoded["hour_norm"]])),
                "latlon": torch.from_numpy(np.hstack([encoded["lat_norm"], encoded["lon_norm"]])),
            }
        if self.waves is not None and self.gsd is not None:
            columns["waves"] = torch.from_numpy(self.waves[sensor])
            columns["gsd"] = torch.from_numpy(self.gsd[sensor])
        columns["chip_id"] = coords["chip_id"].tolist()
        return columns

    def _pixels(self, arrays: Sequence[np.ndarray], sensor: np.ndarray) -> torch.Tensor:
        """Return the pixels (chip, band, y, x) in ``dtype``."""
        import torch

        layout = self.table.reader.layout
        if self.scaling is None:
            return torch.from_numpy(_side_by_side(layout, arrays, _numpy_dtype(self.dtype))).to(self.dtype)
        pixels = _side_by_side(layout, arrays, np.dtype(np.float32))
        mean, std = (values[sensor][:, :, None, None] for values in self.scaling)
        pixels -= mean
        pixels /= std
        return torch.from_numpy(pixels).to(self.dtype)


def _numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """Return the data type of arrays for tensors of ``dtype``; NumPy lacks bfloat16."""
    name = str(dtype).removeprefix("torch.")
    return np.dtype(name if hasattr(np, name) else "float32")


def _side_by_side(layout: BandLayout, arrays: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Return a new array (chip, band, y, x) of the arrays of a layout."""
    if len(arrays) == 1:
        return arrays[0].astype(dtype)
    out = np.empty((len(arrays[0]), sum(map(len, layout.groups)), *layout.size), dtype)
    for group, array in zip(layout.groups, arrays, strict=True):
        out[:, list(group)] = array
    return out


def _torchgeo_places(coords: Mapping[str, np.ndarray], rows: ChipRows) -> tuple[np.ndarray, np.ndarray]:
    """Return TorchGeo's bounds (from, to, step of x, y and time) and the affine transform, row by row, each float64 (chip, 9)."""
    left, right, bottom, top = (coords[f"proj_{name}"].astype(np.float64) for name in ("left", "right", "bottom", "top"))
    res_y, res_x = (top - bottom) / rows.height, (right - left) / rows.width
    when = (coords["datetime"] - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    zero, one = np.zeros_like(left), np.ones_like(left)
    bounds = np.stack([left, right, res_x, bottom, top, res_y, when, when, one], axis=1)
    return bounds, np.stack([res_x, zero, left, zero, -res_y, top, zero, zero, one], axis=1)


class SampleOptions(TableOptions, total=False):
    """Keywords of the datasets about samples and about reading chips."""

    keys: Keys
    dtype: torch.dtype | str
    stats: BandStats | None
    waves: Mapping[str, float] | None
    gsd: float | None


def samples_of(
    index: IndexLike | ChipTable,
    assets: Assets = None,
    *,
    keys: Keys = "clay",
    dtype: torch.dtype | str = "float32",
    stats: BandStats | None = None,
    waves: Mapping[str, float] | None = None,
    gsd: float | None = None,
    **options: Unpack[TableOptions],
) -> Samples:
    """Open the chips of an index to make samples; see `xchip.ChipDataset`."""
    torch = the_torch()
    if keys not in ("clay", "torchgeo"):
        raise ValueError(f"keys must be 'clay' or 'torchgeo', got {keys!r}")
    pixel_dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(pixel_dtype, torch.dtype):
        raise ValueError(f"dtype must be a data type of PyTorch or its name, such as 'float32', got {dtype!r}")
    table = open_table(index, assets, **options)
    sensor_of_item = sensors_of(table)
    sensors = list(dict.fromkeys(sensor_of_item))
    if table.assets is None:
        if len(sensors) > 1:
            raise ValueError(
                f"the index has chips of several sensors, {sensors}, whose bands differ; name the bands that all have with "
                "assets=, or make a dataset for each sensor"
            )
        table = table.with_bands(training_bands(table))
    bands = [band.name for band in table.reader.bands]
    _check_dtype(table, pixel_dtype, stats)
    number = np.array([sensors.index(sensor) for sensor in sensor_of_item], np.int64)
    wavelengths, distances = _waves_and_gsd(table, sensors, bands, waves, gsd) if keys == "clay" else (None, None)
    scaling = None if stats is None else _scaling(stats, sensors, bands)
    return Samples(table, keys, pixel_dtype, number, wavelengths, distances, scaling)


def _check_dtype(table: ChipTable, dtype: torch.dtype, stats: BandStats | None) -> None:
    if dtype.is_floating_point:
        return
    if stats is not None:
        raise ValueError(f"normalised pixels are fractions, which dtype {dtype} can't hold; pass dtype='float32'")
    for band in table.reader.bands:
        if not np.can_cast(band.dtype, _numpy_dtype(dtype), "safe"):
            raise ValueError(f"band {band.name!r} is {band.dtype}, and {dtype} can't hold all its values; pass dtype='float32'")


def _waves_and_gsd(
    table: ChipTable, sensors: Sequence[str | None], bands: Sequence[str], waves: Mapping[str, float] | None, gsd: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (wavelengths (sensor, band), ground sample distances (sensor,)), float32."""
    defaults = wavelengths_of(table)
    rows, distances = [], []
    for sensor in sensors:
        centres = {**defaults[sensor], **(waves or {})}
        missing = [band for band in bands if band not in centres]
        if missing:
            raise ValueError(
                f"the wavelengths of bands {missing} of sensor {sensor!r} are unknown; pass waves={{band: micrometres}}, "
                "leave the bands out with assets=, or pass keys='torchgeo', whose samples have no wavelengths"
            )
        clay = clay_sensor_of(table, sensor)
        distance = gsd if gsd is not None or clay is None else clay.gsd
        if distance is None:
            raise ValueError(f"the ground sample distance of sensor {sensor!r} is unknown; pass gsd=, in metres")
        rows.append([centres[band] for band in bands])
        distances.append(distance)
    return np.array(rows, np.float32), np.array(distances, np.float32)


def _scaling(stats: BandStats, sensors: Sequence[str | None], bands: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    means, deviations = [], []
    for sensor in sensors:
        of_sensor = stats[sensor]
        missing = [band for band in bands if band not in of_sensor.bands]
        if missing:
            raise ValueError(
                f"stats= has no bands {missing} of sensor {sensor!r}, only {list(of_sensor.bands)}; compute the statistics with "
                "these bands, too"
            )
        numbers = [of_sensor.bands.index(band) for band in bands]
        means.append([of_sensor.mean[number] for number in numbers])
        deviations.append([of_sensor.std[number] or 1.0 for number in numbers])  # a band of equal values becomes 0
    return np.array(means, np.float32), np.array(deviations, np.float32)


def clay_batch(samples: Sequence[Mapping[str, Any]]) -> Sample:
    """Collate samples of one sensor (a ``collate_fn``): like PyTorch's default, but with one ``waves`` (band,) and ``gsd`` ().

    Raises
    ------
    ValueError
        If the samples are of several sensors, because Clay takes one sensor per batch.

    Examples
    --------
    Batches of a `ChipDataset`::

        loader = DataLoader(ChipDataset(index), batch_size=32, shuffle=True, collate_fn=clay_batch)
    """
    torch = the_torch()
    first = samples[0]
    for sample in samples[1:]:
        if not (torch.equal(sample["waves"], first["waves"]) and torch.equal(sample["gsd"], first["gsd"])):
            raise ValueError(
                f"chips {first['chip_id']!r} and {sample['chip_id']!r} differ in wavelengths or gsd, but Clay takes one sensor "
                "per batch; make a dataset for each sensor"
            )
    batch: Sample = torch.utils.data.default_collate([dict(sample) for sample in samples])
    return {**batch, "waves": first["waves"], "gsd": first["gsd"]}
