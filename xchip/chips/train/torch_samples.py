"""What PyTorch gets of chips: dictionaries of tensors, as the Clay model takes them, or with the keys of TorchGeo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from xchip.chips.chip_reader import BandLayout
from xchip.chips.chip_rows import ChipRows
from xchip.chips.chip_table import ChipTable, TableOptions, open_table
from xchip.chips.train.bands import sensors_of, training_bands, wavelengths_of
from xchip.chips.train.stats_values import BandStats
from xchip.core.types import Assets, IndexLike
from xchip.indexing.stacchip.rows import located
from xchip.sensors.clay import CLAY_SENSORS, encodings

if TYPE_CHECKING:
    import torch

Keys = Literal["clay", "torchgeo"]


def the_torch() -> Any:
    """PyTorch.

    Raises
    ------
    ImportError
        Without it; names the extra.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("datasets for PyTorch need it: pip install 'xchip[torch]'") from error
    return torch


@dataclass(frozen=True, eq=False)
class Samples:
    """Makes samples of pixels that have been read. It pickles, for it travels to the workers."""

    table: ChipTable
    keys: Keys
    dtype: torch.dtype
    sensor: np.ndarray
    """Number of each item's sensor, for what follows."""
    waves: np.ndarray | None
    """float32 (sensor, band)."""
    gsd: np.ndarray | None
    """float32 (sensor,)."""
    scaling: tuple[np.ndarray, np.ndarray] | None
    """float32 (sensor, band): mean and standard deviation."""

    def of(self, positions: np.ndarray, arrays: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """A sample for each chip."""
        columns = self._columns(positions, arrays)
        return [{name: values[chip] for name, values in columns.items()} for chip in range(len(positions))]

    def batch(self, positions: np.ndarray, arrays: Sequence[np.ndarray]) -> dict[str, Any]:
        """One sample for all chips, whose sensor is the same."""
        columns = self._columns(positions, arrays)
        return {name: values[0] if name in ("waves", "gsd") else values for name, values in columns.items()}

    def _columns(self, positions: np.ndarray, arrays: Sequence[np.ndarray]) -> dict[str, Any]:
        """A value a chip, by key: tensors, and lists of text."""
        import torch

        rows = self.table.rows.take(positions)
        some = {name: values[positions] for name, values in self.table.coords.items()}
        coords = located(rows, some, self.table.reader.items.scene)
        sensor = self.sensor[self.table.rows.item[positions]]
        pixels = self._pixels(arrays, sensor)
        columns: dict[str, Any]
        if self.keys == "torchgeo":
            bounds, transform = _torchgeo_places(coords, rows)
            columns = {"image": pixels, "bounds": torch.from_numpy(bounds), "transform": torch.from_numpy(transform)}
            columns["crs"] = coords["proj_code"].tolist()
        else:
            found = encodings(coords)
            columns = {
                "pixels": pixels,
                "time": torch.from_numpy(np.hstack([found["week_norm"], found["hour_norm"]])),
                "latlon": torch.from_numpy(np.hstack([found["lat_norm"], found["lon_norm"]])),
            }
        if self.waves is not None and self.gsd is not None:
            columns["waves"] = torch.from_numpy(self.waves[sensor])
            columns["gsd"] = torch.from_numpy(self.gsd[sensor])
        columns["chip_id"] = coords["chip_id"].tolist()
        return columns

    def _pixels(self, arrays: Sequence[np.ndarray], sensor: np.ndarray) -> Any:
        """(chip, band, y, x) in ``dtype``."""
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
    """The type of the arrays that tensors of ``dtype`` are made of; NumPy has no bfloat16."""
    name = str(dtype).removeprefix("torch.")
    return np.dtype(name if hasattr(np, name) else "float32")


def _side_by_side(layout: BandLayout, arrays: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """(chip, band, y, x) of the arrays of a layout; an array of its own."""
    if len(arrays) == 1:
        return arrays[0].astype(dtype)
    out = np.empty((len(arrays[0]), sum(map(len, layout.groups)), *layout.size), dtype)
    for group, array in zip(layout.groups, arrays, strict=True):
        out[:, list(group)] = array
    return out


def _torchgeo_places(coords: Mapping[str, np.ndarray], rows: ChipRows) -> tuple[np.ndarray, np.ndarray]:
    """float64 (chip, 9) twice: TorchGeo's bounds (x, y and time, each from, to, step) and the affine transform, row by row."""
    left, right, bottom, top = (coords[f"proj_{name}"].astype(np.float64) for name in ("left", "right", "bottom", "top"))
    res_y, res_x = (top - bottom) / rows.height, (right - left) / rows.width
    when = (coords["datetime"] - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    none, one = np.zeros_like(left), np.ones_like(left)
    bounds = np.stack([left, right, res_x, bottom, top, res_y, when, when, one], axis=1)
    return bounds, np.stack([res_x, none, left, none, -res_y, top, none, none, one], axis=1)


class SampleOptions(TableOptions, total=False):
    """Keywords of the datasets that say what a sample is, and how chips are read."""

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
    """Open the chips of an index as samples; see `xchip.ChipDataset`."""
    torch = the_torch()
    if keys not in ("clay", "torchgeo"):
        raise ValueError(f"keys are 'clay' or 'torchgeo', got {keys!r}")
    wanted = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(wanted, torch.dtype):
        raise ValueError(f"dtype is a data type of PyTorch or its name, such as 'float32', got {dtype!r}")
    table = open_table(index, assets, **options)
    sensors = sensors_of(table)
    known = list(dict.fromkeys(sensors))
    if table.assets is None:
        if len(known) > 1:
            raise ValueError(
                f"the index has chips of several sensors, {known}, whose bands differ; name the bands that they have in common "
                "with assets=, or make a dataset of each"
            )
        table = table.with_bands(training_bands(table))
    bands = [band.name for band in table.reader.bands]
    _check_dtype(table, wanted, stats)
    number = np.array([known.index(sensor) for sensor in sensors], np.int64)
    wavelengths, distances = _facts(table, known, bands, waves, gsd) if keys == "clay" else (None, None)
    scaling = None if stats is None else _scaling(stats, known, bands)
    return Samples(table, keys, wanted, number, wavelengths, distances, scaling)


def _check_dtype(table: ChipTable, dtype: torch.dtype, stats: BandStats | None) -> None:
    if dtype.is_floating_point:
        return
    if stats is not None:
        raise ValueError(f"normalised pixels are fractions, and dtype {dtype} has none; ask for float32")
    for band in table.reader.bands:
        if not np.can_cast(band.dtype, _numpy_dtype(dtype), "safe"):
            raise ValueError(f"band {band.name!r} is {band.dtype}, of which {dtype} does not hold all values; ask for float32")


def _facts(
    table: ChipTable, sensors: Sequence[str | None], bands: Sequence[str], waves: Mapping[str, float] | None, gsd: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """(wavelengths (sensor, band), ground sample distances (sensor,)), float32."""
    known = wavelengths_of(table)
    rows, distances = [], []
    for sensor in sensors:
        own = {**known[sensor], **(waves or {})}
        missing = [band for band in bands if band not in own]
        if missing:
            raise ValueError(
                f"the wavelengths of bands {missing} of sensor {sensor!r} are not known; tell them, waves={{band: micrometres}}, "
                "leave the bands out with assets=, or ask for keys='torchgeo', which has none"
            )
        clay = CLAY_SENSORS.get(sensor or "")
        if gsd is None and clay is None:
            raise ValueError(f"the ground sample distance of sensor {sensor!r} is not known; tell it with gsd=, in metres")
        rows.append([own[band] for band in bands])
        distances.append(gsd if gsd is not None or clay is None else clay.gsd)
    return np.array(rows, np.float32), np.array(distances, np.float32)


def _scaling(stats: BandStats, sensors: Sequence[str | None], bands: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    means, deviations = [], []
    for sensor in sensors:
        own = stats[sensor]
        missing = [band for band in bands if band not in own.bands]
        if missing:
            raise ValueError(
                f"stats= has no bands {missing} of sensor {sensor!r}, only {list(own.bands)}; make it with these too"
            )
        at = [own.bands.index(band) for band in bands]
        means.append([own.mean[number] for number in at])
        deviations.append([own.std[number] or 1.0 for number in at])  # a band of one value becomes 0
    return np.array(means, np.float32), np.array(deviations, np.float32)


def clay_batch(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``collate_fn`` for samples of one sensor: as PyTorch's own, but ``waves`` (band,) and ``gsd`` () once, as Clay takes them.

    Raises
    ------
    ValueError
        If samples are of several sensors, which Clay can't take at once.

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
                f"chips {first['chip_id']!r} and {sample['chip_id']!r} differ in wavelengths or gsd, and Clay takes one sensor a "
                "batch; make a dataset of each"
            )
    batch: dict[str, Any] = torch.utils.data.default_collate([dict(sample) for sample in samples])
    return {**batch, "waves": first["waves"], "gsd": first["gsd"]}
