"""One Zarr store of all chips."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from xchip.chips.chip_table import ChipTable
from xchip.chips.open_chips import CHUNK
from xchip.export.job import Chips, Format, OutputFile
from xchip.io.store import Store, reached

if TYPE_CHECKING:
    from types import ModuleType

    from zarr.core.buffer import Buffer

ROOT = "chips.zarr"
"""Folder of the store below the target."""
LAST = f"{ROOT}/zarr.json"
"""Marks the store as present; written after its other metadata."""


@dataclass(frozen=True, slots=True)
class ZarrStore(Format):
    """``chips.zarr``, Zarr version 3: the Dataset of `xchip.open_chips`, computed; read it with ``xarray.open_zarr``.

    Arrays are (chip, y, x), one per band, in the order of the index, with the ids, dates, CRS codes and edges of the chips as
    coordinates. The nodata value is in the attribute ``nodata``, not in ``_FillValue``, because readers would turn integers
    into floats. Chips that could not be read are nodata, or 0 if no nodata value is declared, and are listed as failed.

    Examples
    --------
    Chunks of 64 chips, 8 chunks per file; this needs ``xchip[zarr]``::

        xchip.export_chips(index, "s3://bucket/chips", ZarrStore(chunk=64, shard=512), assets=["red", "nir"])
        xarray.open_zarr("s3://bucket/chips/chips.zarr")
    """

    name: ClassVar[str] = "zarr"
    by_sensor: ClassVar[bool] = False
    fills_failed: ClassVar[bool] = True

    chunk: int = CHUNK
    """Chips in a chunk, which readers decode as a whole."""
    shard: int | None = None
    """Chips in a file of several chunks, a multiple of ``chunk``; None: one file per chunk."""
    metadata: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """``zarr.json`` of each array by name; set when the store is prepared."""

    def __post_init__(self) -> None:
        if self.shard is not None and (self.shard < self.chunk or self.shard % self.chunk):
            raise ValueError(f"shard must be a multiple of chunk, {self.chunk} chips, got {self.shard}")

    @property
    def per_file(self) -> int:
        return self.shard or self.chunk

    def parameters(self) -> dict[str, object]:
        return {"chunk": self.chunk, "shard": self.shard}

    def files(self, table: ChipTable, order: np.ndarray, sensor: str | None) -> list[str]:
        """Return the names of empty marker files, because Zarr writes no file for a chunk of zeros."""
        _zarr()
        return [f"done/chunk-{number:06d}" for number in range(-(-len(order) // self.per_file))]

    def prepare(self, store: Store, table: ChipTable, order: np.ndarray) -> ZarrStore:
        """Write the store without pixels. It is made in memory and copied, so that each file appears whole on any storage."""
        contents = self._template(table, order)
        with reached(f"write to {store.path(ROOT)!r}"):
            if not store.exists(LAST):
                for name, content in contents.items():
                    if name != "zarr.json":
                        store.write(f"{ROOT}/{name}", content)
                store.write(LAST, contents["zarr.json"])
        return replace(self, metadata={band.name: contents[f"{band.name}/zarr.json"] for band in table.reader.bands})

    def _template(self, table: ChipTable, order: np.ndarray) -> dict[str, bytes]:
        """Return the files of a store without pixels."""
        import dask.array as da

        zarr = _zarr()
        reader = table.reader
        shape = (len(order), *reader.size)
        bands = [da.zeros(shape, dtype=band.dtype, chunks=(self.per_file, *reader.size)) for band in reader.bands]
        dataset = table.dataset(order, bands)
        encoding: dict[str, dict[str, object]] = {
            "datetime": {"units": "microseconds since 1970-01-01", "dtype": "int64", "calendar": "proleptic_gregorian"}
        }
        for band in reader.bands:
            attrs = dataset[band.name].attrs
            if "_FillValue" in attrs:
                attrs["nodata"] = attrs.pop("_FillValue")
            shards = {} if self.shard is None else {"shards": (self.shard, *reader.size)}
            encoding[band.name] = {"chunks": (self.chunk, *reader.size), **shards}
        files: dict[str, Buffer] = {}
        with warnings.catch_warnings():
            # Zarr 3 does not define consolidated metadata yet; readers over HTTP need them.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            dataset.to_zarr(
                zarr.storage.MemoryStore(files), mode="w", compute=False, zarr_format=3, consolidated=True, encoding=encoding
            )
        return {name: value.to_bytes() for name, value in files.items()}

    def write(self, store: Store, file: OutputFile, chips: Chips) -> None:
        zarr = _zarr()
        for band, pixels in zip(chips.bands, chips.pixels, strict=True):
            metadata = f"{band.name}/zarr.json"
            # Zarr 3.0 has no public name for its buffers; zarr.buffer is newer.
            files = {metadata: zarr.core.buffer.cpu.Buffer.from_bytes(self.metadata[band.name])}
            array = zarr.open_array(zarr.storage.MemoryStore(files), path=band.name, mode="r+")
            array[file.first : file.first + len(chips)] = pixels
            for name, value in files.items():
                if name != metadata:
                    store.write(f"{ROOT}/{name}", value.to_bytes())
        store.write(file.name, b"")


def _zarr() -> ModuleType:
    try:
        import zarr
        import zarr.storage
    except ImportError as error:
        raise ImportError("Zarr stores need the package zarr: install xchip[zarr]") from error
    return zarr
