"""GeoTIFF chips: a file each, with its place on earth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xchip.chips.chip_table import ChipTable
from xchip.chips.item_cache import ChipBand
from xchip.export.job import Chips, Format, OutputFile, refuse_doubles
from xchip.indexing.archive.layout import folder_name
from xchip.io.store import Store

BLOCK = 256
"""Side of a tile of a file, pixels, where the chip is not smaller."""


@dataclass(frozen=True, slots=True)
class GeoTiffs:
    """``<collection>/<item>/<chip_id>.tif``, names percent-encoded: each chip with its CRS, transform, nodata and band names.

    Tiled, deflate, in the data type that holds all bands. Chips keep their own size, also those that a border has cut. A
    GeoTIFF has one nodata value: bands that declare different ones can't be in one file.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     report = xchip.export_chips(index, f"{folder}/chips", GeoTiffs(), assets=["red", "nir"], progress=False)
    ...     sorted(path.name for path in Path(folder, "chips").rglob("*.tif"))[:2]
    ['synthetic-scene-0-0.tif', 'synthetic-scene-0-1.tif']
    """

    name: ClassVar[str] = "tif"
    shuffled: ClassVar[bool] = False
    by_sensor: ClassVar[bool] = True
    fills: ClassVar[bool] = False
    own_sizes: ClassVar[bool] = True
    apart: ClassVar[bool] = False

    @property
    def per_file(self) -> int:
        """See `Format`."""
        return 1

    def parameters(self) -> dict[str, Any]:
        """See `Format`."""
        return {}

    def assets(self, sensor: str | None) -> Sequence[str] | None:
        """See `Format`."""
        return None

    def folder(self, sensor: str | None) -> str:
        """See `Format`."""
        return ""

    def files(self, table: ChipTable, order: np.ndarray, sensor: str | None) -> list[str]:
        """See `Format`."""
        refuse_doubles(table)
        common_nodata(table.reader.bands)
        folders = [f"{folder_name(ref.collection)}/{folder_name(ref.item_id)}" for ref in table.rows.items]
        items, ids = table.rows.item[order].tolist(), table.coords["chip_id"][order].tolist()
        return [f"{folders[item]}/{folder_name(str(chip))}.tif" for item, chip in zip(items, ids, strict=True)]

    def prepared(self, store: Store, table: ChipTable, order: np.ndarray) -> Format:
        """See `Format`."""
        return self

    def write(self, store: Store, file: OutputFile, chips: Chips) -> None:
        """See `Format`."""
        height, width = int(chips.table.rows.height[0]), int(chips.table.rows.width[0])
        store.write(file.name, tif_bytes(chips, chips.stacked()[0, :, :height, :width]))


def common_nodata(bands: Sequence[ChipBand]) -> float | None:
    """The nodata value that bands share; None where none declares one.

    Raises
    ------
    ValueError
        If bands declare different ones.
    """
    declared = {band.name: float(band.attrs["_FillValue"]) for band in bands if "_FillValue" in band.attrs}
    if len({repr(value) for value in declared.values()}) > 1:
        told = ", ".join(f"{name} {value:g}" for name, value in declared.items())
        raise ValueError(f"a GeoTIFF has one nodata value, and bands declare several: {told}; pick bands with assets=")
    return next(iter(declared.values()), None)


def tif_bytes(chips: Chips, pixels: np.ndarray) -> bytes:
    """The first of ``chips`` as a GeoTIFF; ``pixels`` are (band, y, x)."""
    from affine import Affine
    from rasterio.io import MemoryFile

    bands, height, width = pixels.shape
    coords = {name: values[0] for name, values in chips.table.coords.items()}
    res_x = (coords["proj_right"] - coords["proj_left"]) / width
    res_y = (coords["proj_top"] - coords["proj_bottom"]) / height
    block = {name: min(BLOCK, -(-length // 16) * 16) for name, length in (("blockxsize", width), ("blockysize", height))}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", count=bands, height=height, width=width, dtype=pixels.dtype, crs=str(coords["proj_code"]),
            transform=Affine(res_x, 0, coords["proj_left"], 0, -res_y, coords["proj_top"]),
            nodata=common_nodata(chips.bands), tiled=True, compress="deflate",
            predictor=3 if pixels.dtype.kind == "f" else 2, interleave="band", **block,
        ) as dataset:  # fmt: skip
            dataset.write(pixels)
            dataset.descriptions = tuple(band.name for band in chips.bands)
            date = coords["datetime"]
            dataset.update_tags(
                chip_id=str(coords["chip_id"]), item_id=str(coords["item_id"]),
                **({} if np.isnat(date) else {"datetime": np.datetime_as_string(date.astype("M8[us]"), timezone="UTC")}),
            )  # fmt: skip
        return bytes(memory.read())
