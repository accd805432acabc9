"""One Zarr store of all chips."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from xchip.chips.chip_table import ChipTable
from xchip.chips.open_chips import CHUNK
from xchip.export.job import Chips, Format, OutputFile
from xchip.io.store import Store, reached

ROOT = "chips.zarr"
"""Folder of the store below the target."""
LAST = f"{ROOT}/zarr.json"
"""What says that the store is there; it is written after all else."""


@dataclass(frozen=True, slots=True)
class ZarrStore:
    """``chips.zarr``, Zarr version 3: what `xchip.open_chips` gives, computed; ``xarray.open_zarr`` reads it as it was.

    Arrays are (chip, y, x), one a band, in the order of the index, with the ids, dates, CRS codes and edges of chips as
    coordinates. The nodata value is in the attribute ``nodata``, and not in ``_FillValue``, which would have readers turn
    integers into floats. Chips that could not be read are nodata, or 0 where none is declared, and are listed as failed.

    Examples
    --------
    Chunks of 64 chips, 8 of them in a file; it takes ``xchip[zarr]``::

        xchip.export_chips(index, "s3://bucket/chips", ZarrStore(chunk=64, shard=512), assets=["red", "nir"])
        xarray.open_zarr("s3://bucket/chips/chips.zarr")
    """

    name: ClassVar[str] = "zarr"
    shuffled: ClassVar[bool] = False
    by_sensor: ClassVar[bool] = False
    fills: ClassVar[bool] = True
    own_sizes: ClassVar[bool] = False
    apart: ClassVar[bool] = False

    chunk: int = CHUNK
    """Chips in a chunk, which readers decode at once."""
    shard: int | None = None
    """Chips in a file of several chunks, a multiple of ``chunk``; None: each chunk is a file."""
    metadata: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """``zarr.json`` of each array, once the store is there."""

    def __post_init__(self) -> None:
        if self.shard is not None and (self.shard < self.chunk or self.shard % self.chunk):
            raise ValueError(f"shard is a multiple of chunk, {self.chunk} chips, got {self.shard}")

    @property
    def per_file(self) -> int:
        """See `Format`."""
        return self.shard or self.chunk

    def parameters(self) -> dict[str, Any]:
        """See `Format`."""
        return {"chunk": self.chunk, "shard": self.shard}

    def assets(self, sensor: str | None) -> Sequence[str] | None:
        """See `Format`."""
        return None

    def folder(self, sensor: str | None) -> str:
        """See `Format`."""
        return ""

    def files(self, table: ChipTable, order: np.ndarray, sensor: str | None) -> list[str]:
        """Marks, for a chunk of nothing but zeros has no file."""
        _zarr()
        return [f"done/chunk-{number:06d}" for number in range(-(-len(order) // self.per_file))]

    def prepared(self, store: Store, table: ChipTable, order: np.ndarray) -> Format:
        """See `Format`. It is made in memory and copied, for then a file appears whole, wherever it is."""
        contents = self._template(table, order)
        with reached(f"write to {store.path(ROOT)!r}"):
            if not store.exists(LAST):
                for name, content in contents.items():
                    if name != "zarr.json":
                        store.write(f"{ROOT}/{name}", content)
                store.write(LAST, contents["zarr.json"])
        return replace(self, metadata={band.name: contents[f"{band.name}/zarr.json"] for band in table.reader.bands})

    def _template(self, table: ChipTable, order: np.ndarray) -> dict[str, bytes]:
        """The files of a store without pixels."""
        import dask.array as da

        zarr = _zarr()
        reader = table.reader
        shape = (len(order), *reader.size)
        bands = [da.zeros(shape, dtype=band.dtype, chunks=(self.per_file, *reader.size)) for band in reader.bands]
        dataset = table.dataset(order, bands)
        encoding: dict[str, dict[str, Any]] = {
            "datetime": {"units": "microseconds since 1970-01-01", "dtype": "int64", "calendar": "proleptic_gregorian"}
        }
        for band in reader.bands:
            attrs = dataset[band.name].attrs
            if "_FillValue" in attrs:
                attrs["nodata"] = attrs.pop("_FillValue")
            shards = {} if self.shard is None else {"shards": (self.shard, *reader.size)}
            encoding[band.name] = {"chunks": (self.chunk, *reader.size), **shards}
        files: dict[str, Any] = {}
        with warnings.catch_warnings():
            # Consolidated metadata are no part of Zarr 3 as yet; readers over HTTP can't do without.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            dataset.to_zarr(
                zarr.storage.MemoryStore(files), mode="w", compute=False, zarr_format=3, consolidated=True, encoding=encoding
            )
        return {name: value.to_bytes() for name, value in files.items()}

    def write(self, store: Store, file: OutputFile, chips: Chips) -> None:
        """See `Format`."""
        zarr = _zarr()
        for band, pixels in zip(chips.bands, chips.pixels, strict=True):
            known = f"{band.name}/zarr.json"
            files = {known: zarr.core.buffer.cpu.Buffer.from_bytes(self.metadata[band.name])}
            array = zarr.open_array(zarr.storage.MemoryStore(files), path=band.name, mode="r+")
            array[file.first : file.first + len(chips)] = pixels
            for name, value in files.items():
                if name != known:
                    store.write(f"{ROOT}/{name}", value.to_bytes())
        store.write(file.name, b"")


def _zarr() -> Any:
    try:
        import zarr
        import zarr.storage
    except ImportError as error:
        raise ImportError("Zarr stores need the package zarr: install xchip[zarr]") from error
    return zarr
