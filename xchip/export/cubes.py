"""npz cubes in the layout that Clay is trained from."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xchip.chips.chip_table import ChipTable
from xchip.export.job import Chips, Format, OutputFile, ShuffledBySensor
from xchip.indexing.archive.layout import folder_name
from xchip.io.store import Store
from xchip.sensors.clay import CLAY_SENSORS, clay_sensor, encodings


@dataclass(frozen=True, slots=True)
class Cubes(ShuffledBySensor):
    """``<platform>/cube_<number>.npz``: many chips of one sensor a file, as Clay's data loader reads them.

    A cube has ``pixels`` (n, bands, height, width), and ``week_norm``, ``hour_norm``, ``lat_norm`` and ``lon_norm``, float32
    (n, 2): (sin, cos), as `xchip.sensors.clay.encodings` says. Bands are those of Clay in its order, unless others are asked
    for. The same chips make the same bytes.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     report = xchip.export_chips(index, f"{folder}/chips", Cubes(size=3), assets=["red", "nir"], progress=False)
    ...     sorted(path.name for path in Path(folder, "chips").rglob("*.npz"))
    ['cube_0.npz', 'cube_1.npz']
    """

    name: ClassVar[str] = "npz"
    apart: ClassVar[bool] = True

    size: int = 128
    """Chips in a cube."""
    dtype: str | None = "float32"
    """Data type of ``pixels``; None: as stored, or the type that holds all bands."""
    compressed: bool = True
    """Whether cubes are deflated, as stacchip's are; it takes longer than to read the chips."""

    def parameters(self) -> dict[str, Any]:
        """See `Format`."""
        return {"size": self.size, "dtype": self.dtype, "compressed": self.compressed}

    def assets(self, sensor: str | None) -> Sequence[str] | None:
        """See `Format`."""
        return clay_sensor(sensor).bands

    def folder(self, sensor: str | None) -> str:
        """See `Format`."""
        known = CLAY_SENSORS.get(sensor or "")
        return known.platform if known else folder_name(sensor)

    def files(self, table: ChipTable, order: np.ndarray, sensor: str | None) -> list[str]:
        """See `Format`."""
        return [f"{self.folder(sensor)}/cube_{number}.npz" for number in range(-(-len(order) // self.size))]

    def prepared(self, store: Store, table: ChipTable, order: np.ndarray) -> Format:
        """See `Format`."""
        return self

    def write(self, store: Store, file: OutputFile, chips: Chips) -> None:
        """See `Format`."""
        arrays = {"pixels": chips.stacked(self.dtype), **encodings(chips.table.coords)}
        store.write(file.name, npz_bytes(arrays, compressed=self.compressed))


def npz_bytes(arrays: Mapping[str, np.ndarray], *, compressed: bool) -> bytes:
    """What ``np.load`` reads as these arrays; the same bytes for the same arrays, whenever they are written."""
    content = io.BytesIO()
    # Level 1: higher ones take several times as long for a few percent.
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(content, "w", kind, compresslevel=1 if compressed else None) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return content.getvalue()
