"""Small scenes of several products, CRSs and dates on disk, for tests that read chips from an index alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from xchip.testing import write_scene

TILED = {"driver": "GTiff", "tiled": True, "compress": "deflate"}


def write_band(
    path: Path, pixels: np.ndarray, resolution: float, *, origin: tuple[float, float], crs: str, block: int = 128, **options: Any
) -> None:
    """(band, y, x) as a tiled GeoTIFF, bands pixel by pixel."""
    transform = rasterio.Affine(resolution, 0, origin[0], 0, -resolution, origin[1])
    profile = {**TILED, "count": len(pixels), "dtype": pixels.dtype.name, "height": pixels.shape[1], "width": pixels.shape[2]}
    profile |= {"crs": crs, "transform": transform, "blockxsize": block, "blockysize": block, "interleave": "pixel", **options}
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)


def write_item(folder: Path, item_id: str, collection: str, properties: dict[str, Any], assets: dict[str, Any]) -> Path:
    """The item's JSON beside its files."""
    item = {
        "type": "Feature", "stac_version": "1.1.0", "id": item_id, "collection": collection, "links": [],
        "properties": {"datetime": "2023-07-01T10:00:00Z", **properties}, "assets": assets, "geometry": None,
    }  # fmt: skip
    path = folder / f"{item_id}.json"
    path.write_text(json.dumps(item))
    return path


def write_landsat(folder: Path, item_id: str = "landsat-1", *, seed: int = 0, nodata: int = 0, dtype: str = "uint16") -> Path:
    """Red and nir of 30 m, 300 x 400 pixels, whose origin is 15 m off, as USGS has them."""
    rng = np.random.default_rng(seed)
    origin = (361785.0, 6429015.0)
    grid = {"proj:shape": [300, 400], "proj:transform": [30, 0, origin[0], 0, -30, origin[1]]}
    assets = {}
    for name, key in (("red", "red"), ("nir", "nir08")):
        path = folder / f"{item_id}_{key}.tif"
        write_band(path, rng.integers(1, 9999, (1, 300, 400)).astype(dtype), 30, origin=origin, crs="EPSG:32620", nodata=nodata)
        band = {"name": key, "eo:common_name": name, "data_type": dtype, "nodata": nodata}
        assets[key] = {"href": f"./{path.name}", "type": "image/tiff; application=geotiff", "roles": ["data"], "bands": [band]}
    return write_item(folder, item_id, "landsat-c2-l2", {"proj:code": "EPSG:32620", "platform": "landsat-8", **grid}, assets)


def write_aerial(folder: Path, item_id: str = "aerial-1", *, seed: int = 0) -> Path:
    """Four bands of one file, 256 x 320 pixels of 1 m, without nodata."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 256, 320), dtype=np.uint8)
    path = folder / f"{item_id}.tif"
    write_band(path, pixels, 1, origin=(600000.0, 4100000.0), crs="EPSG:26911", block=64)
    bands = [{"name": name, "eo:common_name": name, "data_type": "uint8"} for name in ("red", "green", "blue", "nir")]
    grid = {"proj:shape": [256, 320], "proj:transform": [1, 0, 600000, 0, -1, 4100000], "proj:code": "EPSG:26911"}
    asset = {"href": f"./{path.name}", "type": "image/tiff; application=geotiff", "roles": ["data"], "bands": bands}
    return write_item(folder, item_id, "naip", {**grid, "platform": "aeroplane"}, {"image": asset})


def write_sentinel(folder: Path, n: int = 2) -> list[Path]:
    """Scenes of 512 x 640 pixels in two CRSs, with a 20 m band, in blocks of 128."""
    return [
        write_scene(
            folder, item_id=f"synthetic-{number}", seed=number, shape=(512, 640), crs=f"EPSG:327{19 + number}", block=128,
            datetime=f"2024-03-{11 + number}T14:06:36Z",
        )
        for number in range(n)
    ]  # fmt: skip
