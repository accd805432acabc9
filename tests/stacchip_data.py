"""Scenes, items and a merged index as stacchip's processors leave them in a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import rasterio
import shapely
from chip_making import TILED
from rasterio.windows import Window

SIZE = 256
"""Pixels of stacchip's chips."""
S2 = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
LANDSAT = ("red", "green", "blue", "nir08", "swir16", "swir22")
# Platform -> (assets in the order in which stacchip's prechip takes them, bands of each, data type, nodata, other assets).
PLATFORMS: dict[str, tuple[tuple[str, ...], int, str, float | None, tuple[str, ...]]] = {
    "sentinel-2-l2a": (S2, 1, "uint16", 0, ("scl",)),
    "landsat-c2l2-sr": (LANDSAT, 1, "uint16", 0, ("qa_pixel",)),
    "landsat-c2l1": (LANDSAT, 1, "uint16", 0, ("qa_pixel",)),
    "sentinel-1-rtc": (("vv", "vh"), 1, "float32", -32768, ()),
    "naip": (("image",), 4, "uint8", None, ()),
    "linz": (("asset",), 3, "uint8", None, ()),
    "modis": (tuple(f"sur_refl_b{n:02d}" for n in range(1, 8)), 1, "int16", -28672, ("sur_refl_qc_500m",)),
}
COLLECTIONS = {"modis": "modis-09A1-061"}
"""Where it differs from the platform; rio-stac, which makes the items of LINZ, gives none."""


@dataclass(frozen=True)
class Stored:
    """An item in a bucket."""

    platform: str
    item_id: str
    moment: np.datetime64
    files: tuple[Path, ...]
    """In the order of stacchip's bands."""
    size: tuple[int, int]
    """(height, width)."""

    def chips(self) -> Iterable[tuple[int, int]]:
        """(x, y) of each."""
        return ((x, y) for y in range(self.size[0] // SIZE) for x in range(self.size[1] // SIZE))

    def pixels(self, x: int, y: int) -> np.ndarray:
        """A chip's pixels by a window read: (band, y, x)."""
        found = []
        for path in self.files:
            with rasterio.open(path) as file:
                found.append(file.read(window=Window(x * SIZE, y * SIZE, SIZE, SIZE)))
        return np.concatenate(found)

    def bounds(self, x: int, y: int) -> Any:
        """A chip's outline in degrees."""
        with rasterio.open(self.files[0]) as file:
            left, bottom, right, top = rasterio.windows.bounds(Window(x * SIZE, y * SIZE, SIZE, SIZE), file.transform)
            to_degrees = pyproj.Transformer.from_crs(file.crs, 4326, always_xy=True)
        return shapely.transform(shapely.box(left, bottom, right, top), lambda xy: np.stack(to_degrees.transform(*xy.T), 1))

    def centre(self, x: int, y: int) -> tuple[float, float]:
        """(longitude, latitude) of a chip's centre."""
        with rasterio.open(self.files[0]) as file:
            return pyproj.Transformer.from_crs(file.crs, 4326, always_xy=True).transform(
                *(file.transform * ((x + 0.5) * SIZE, (y + 0.5) * SIZE))
            )


def store_item(
    folder: Path, root: str, platform: str, number: int, *, size: tuple[int, int] = (512, 512), epsg: int = 32633
) -> Stored:
    """Write rasters and ``stac_item.json`` to ``<folder>/<platform>/<item>/``; hrefs begin with ``root``, where it will be."""
    assets, count, dtype, nodata, others = PLATFORMS[platform]
    item_id = f"{platform.upper()}_33_{number}"
    place = folder / platform / item_id
    place.mkdir(parents=True)
    rng = np.random.default_rng(number)
    transform = rasterio.Affine(10, 0, 399_960 + 20_000 * number, 0, -10, 5_400_000)
    profile = TILED | {"crs": f"EPSG:{epsg}", "transform": transform, "height": size[0], "width": size[1], "nodata": nodata}
    profile |= {"dtype": dtype, "count": count, "blockxsize": 128, "blockysize": 128}
    files, entries = [], {}
    for key in (*assets, *others):
        path = place / f"{key.upper()}.tif"
        with rasterio.open(path, "w", **profile) as file:
            file.write(rng.integers(1, 250, (count, *size)).astype(dtype))
        if key in assets:
            files.append(path)
        entries[key] = {
            "href": f"{root}/{platform}/{item_id}/{path.name}",
            "type": "image/tiff; application=geotiff",
            "roles": [],
        }
    moment = f"2021-0{number + 1}-11T1{number + 4}:06:36"
    item = {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": item_id, "geometry": None, "links": [],
        "properties": {
            "datetime": f"{moment}Z", "proj:epsg": epsg, "proj:shape": list(size), "proj:transform": list(transform),
        },
        "assets": entries,
    }  # fmt: skip
    if platform != "linz":
        item["collection"] = COLLECTIONS.get(platform, platform)
    (place / "stac_item.json").write_text(json.dumps(item))
    return Stored(platform, item_id, np.datetime64(moment), tuple(files), size)


def merged_table(items: Iterable[Stored], path: Path, *, nodata: float = 0.0) -> Path:
    """The index of items as stacchip's prechip takes it: the tables of all items, with platform and item."""
    rows = [(item, x, y) for item in items for x, y in item.chips()]
    table = pa.table(
        {
            "chipid": [f"{item.item_id}-{x}-{y}" for item, x, y in rows],
            "platform": [item.platform for item, _, _ in rows],
            "item_id": [item.item_id for item, _, _ in rows],
            "date": pa.array([item.moment.item().date() for item, _, _ in rows], pa.date32()),
            "chip_index_x": pa.array([x for _, x, _ in rows], pa.uint16()),
            "chip_index_y": pa.array([y for _, _, y in rows], pa.uint16()),
            "cloud_cover_percentage": pa.array([0.0] * len(rows), pa.float32()),
            "nodata_percentage": pa.array([nodata * (x == 0) for _, x, _ in rows], pa.float32()),
            "geometry": pa.array([shapely.to_wkb(item.bounds(x, y)) for item, x, y in rows], pa.binary()),
        }
    )
    pq.write_table(table, path)
    return path
