"""tar shards that webdataset reads."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np

from xchip.chips.chip_table import ChipTable
from xchip.export.job import Chips, Format, OutputFile, ShuffledBySensor, refuse_doubles
from xchip.indexing.archive.layout import folder_name
from xchip.io.store import Store
from xchip.sensors.clay import encodings


@dataclass(frozen=True, slots=True)
class Shards(ShuffledBySensor):
    """``<sensor>/shard-<number>.tar``: for each chip ``<key>.npy`` with its pixels (bands, height, width) and ``<key>.json``.

    The JSON has the chip's ids, date, CRS, edges and bands, nodata of each band (null where none is declared), and the
    encodings of `xchip.sensors.clay.encodings`. Keys are collection and chip id, percent-encoded, for webdataset ends a key at
    the first dot.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(256, 256))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     report = xchip.export_chips(index, f"{folder}/chips", Shards(size=3), assets=["red", "nir"], progress=False)
    ...     sorted(path.name for path in Path(folder, "chips").rglob("*.tar"))
    ['shard-000000.tar', 'shard-000001.tar']
    """

    name: ClassVar[str] = "tar"
    apart: ClassVar[bool] = False

    size: int = 256
    """Chips in a shard."""
    dtype: str | None = None
    """Data type of pixels; None: as stored, or the type that holds all bands."""

    def parameters(self) -> dict[str, Any]:
        """See `Format`."""
        return {"size": self.size, "dtype": self.dtype}

    def assets(self, sensor: str | None) -> Sequence[str] | None:
        """See `Format`."""
        return None

    def folder(self, sensor: str | None) -> str:
        """See `Format`."""
        return ""

    def files(self, table: ChipTable, order: np.ndarray, sensor: str | None) -> list[str]:
        """See `Format`."""
        refuse_doubles(table)
        return [f"{folder_name(sensor)}/shard-{number:06d}.tar" for number in range(-(-len(order) // self.size))]

    def prepared(self, store: Store, table: ChipTable, order: np.ndarray) -> Format:
        """See `Format`."""
        return self

    def write(self, store: Store, file: OutputFile, chips: Chips) -> None:
        """See `Format`."""
        content = io.BytesIO()
        pixels = chips.stacked(self.dtype)
        with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for position, facts in enumerate(chip_facts(chips)):
                key = sample_key(facts["collection"], facts["chip_id"])
                values = io.BytesIO()
                np.lib.format.write_array(values, pixels[position], allow_pickle=False)
                for kind, data in (("npy", values.getvalue()), ("json", json.dumps(facts).encode())):
                    member = tarfile.TarInfo(f"{key}.{kind}")  # of 1970, so that the same chips make the same bytes
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        store.write(file.name, content.getvalue())


def sample_key(collection: str | None, chip_id: str) -> str:
    """A chip's key: without dots and slashes.

    Examples
    --------
    >>> sample_key("naip", "m_4207009.tif-0-3"), sample_key(None, "a/b-1-2")
    ('naip%2Fm_4207009%2Etif-0-3', 'a%2Fb-1-2')
    """
    whole = chip_id if not collection else f"{collection}/{chip_id}"
    return quote(whole, safe="").replace(".", "%2E")


def chip_facts(chips: Chips) -> list[dict[str, Any]]:
    """What is known of each chip, as JSON."""
    coords = chips.table.coords
    bands = [band.name for band in chips.bands]
    nodata = [value.item() if (value := band.attrs.get("_FillValue")) is not None else None for band in chips.bands]
    nodata = [None if value != value else value for value in nodata]  # JSON has no NaN
    circles = {name: values.tolist() for name, values in encodings(coords).items()}
    dates = np.datetime_as_string(np.asarray(coords["datetime"], "M8[us]"), timezone="UTC").tolist()
    edges = np.stack([coords[f"proj_{side}"] for side in ("left", "bottom", "right", "top")], axis=-1).tolist()
    return [
        {
            "chip_id": str(coords["chip_id"][chip]),
            "item_id": str(coords["item_id"][chip]),
            "collection": chips.table.rows.items[chips.table.rows.item[chip]].collection,
            "sensor": chips.sensor,
            "datetime": None if dates[chip].startswith("NaT") else dates[chip],
            "proj_code": str(coords["proj_code"][chip]),
            "proj_bounds": edges[chip],
            "bands": bands,
            "nodata": nodata,
            **{name: values[chip] for name, values in circles.items()},
        }
        for chip in range(len(chips))
    ]
