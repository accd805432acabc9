"""Georeferenced GeoTIFFs, one per chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xchip.chips.chip_table import ChipTable
from xchip.chips.item_cache import ChipBand
from xchip.export.job import Chips, Format, OutputFile, refuse_doubles
from xchip.indexing.archive.layout import folder_name
from xchip.io.store import Store

BLOCK = 256
"""Side of a file's tiles in pixels, unless the chip is smaller."""


@dataclass(frozen=True, slots=True)
class GeoTiffs(Format):
    """``<collection>/<item>/<chip_id>.tif``, names percent-encoded: each chip with its CRS, transform, nodata and band names.

    Files are tiled and deflated, in the data type that holds all bands. Chips that the border of their item cuts keep their
    size. A GeoTIFF has one nodata value, so bands that declare different values can't be in one file.

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
    mixed_sizes: ClassVar[bool] = True

    @property
    def per_file(self) -> int:
        return 1

    def files(self, table: ChipTable, order: np.ndarray, sensor: str | None) -> list[str]:
        refuse_doubles(table)
        common_nodata(table.reader.bands)
        folders = [f"{folder_name(ref.collection)}/{folder_name(ref.item_id)}" for ref in table.rows.items]
        items, ids = table.rows.item[order].tolist(), table.coords["chip_id"][order].tolist()
        return [f"{folders[item]}/{folder_name(str(chip))}.tif" for item, chip in zip(items, ids, strict=True)]

    def write(self, store: Store, file: OutputFile, chips: Chips) -> None:
        height, width = int(chips.table.rows.height[0]), int(chips.table.rows.width[0])
        store.write(file.name, tif_bytes(chips, chips.stacked()[0, :, :height, :width]))


def common_nodata(bands: Sequence[ChipBand]) -> float | None:
    """Return the nodata value that the bands share; None if no band declares a value.

    Raises
    ------
    ValueError
        If bands declare different values.
    """
    declared = {band.name: float(band.attrs["_FillValue"]) for band in bands if "_FillValue" in band.attrs}
    if len({repr(value) for value in declared.values()}) > 1:
        values = ", ".join(f"{name} {value:g}" for name, value in declared.items())
        raise ValueError(f"a GeoTIFF has one nodata value, but the bands declare several: {values}; choose bands with assets=")
    return next(iter(declared.values()), None)


def tif_bytes(chips: Chips, pixels: np.ndarray) -> bytes:
    """Return the first of ``chips`` as the content of a GeoTIFF; ``pixels`` are (band, y, x)."""
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
