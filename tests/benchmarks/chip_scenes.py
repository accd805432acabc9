"""Full-size synthetic scenes with all their bands, for the benchmark of chips: a Sentinel-2 tile and a NAIP quad.

Sizes, blocks, interleaving and compression are those of published files, and noise makes them as hard to decode; the pixels
show nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile
from rasterio.warp import transform_bounds
from scenes import PROJECTION, SEED, UTM, paint_scl, smooth_noise, wedge

ORIGIN = (499980.0, 6400000.0)
TEN = ("blue", "green", "red", "nir")
TWENTY = ("rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")
BANDS = (*TEN, *TWENTY)


def write_cog(path: Path, pixels: np.ndarray, resolution: float, *, block: int, nodata: float | None) -> None:
    """Write (band, y, x) as a cloud-optimised GeoTIFF: deflate, predictor 2, overviews."""
    profile = {
        "driver": "GTiff", "count": len(pixels), "dtype": pixels.dtype.name, "height": pixels.shape[1], "width": pixels.shape[2],
        "crs": f"EPSG:{UTM}", "transform": rasterio.Affine(resolution, 0, ORIGIN[0], 0, -resolution, ORIGIN[1]), "nodata": nodata,
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**profile) as plain:
            plain.write(pixels)
        with memory.open() as plain:
            temporary = path.with_suffix(".tmp")
            options = {
                "compress": "deflate",
                "predictor": "standard",
                "overview_resampling": "nearest",
                "num_threads": "all_cpus",
            }
            rasterio.shutil.copy(plain, temporary, driver="COG", blocksize=block, interleave="PIXEL", **options)
    os.replace(temporary, path)


def reflectance(rng: np.random.Generator, side: int) -> np.ndarray:
    """uint16 (side, side): land with the grain of a sensor, and 21 % beyond the swath's edge."""
    values = np.clip(smooth_noise(rng, (side, side), 640, octaves=3, grain=0.07) * 900 + 2400, 1, 30000).astype(np.uint16)
    values[wedge((side, side), 0.36, -0.30)] = 0
    return values


def sentinel_2(data: Path, side: int = 10980) -> dict[str, Any]:
    """The item of a Sentinel-2 tile of ``side`` pixels of 10 m in ``data``, made where it is missing: ten bands and SCL."""
    folder = data / f"chips-s2-{side}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    assets = {}
    for name in (*BANDS, "scl"):
        path, pixel = folder / f"{name}.tif", 10.0 if name in TEN else 20.0
        length = side if name in TEN else side // 2
        if not path.exists():
            pixels = paint_scl(rng, (length, length)) if name == "scl" else reflectance(rng, length)
            write_cog(path, pixels[None], pixel, block=1024, nodata=0)
        assets[name] = {
            "href": str(path), "type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["data"],
            "proj:shape": [length, length], "proj:transform": [pixel, 0.0, ORIGIN[0], 0.0, -pixel, ORIGIN[1]],
            "raster:bands": [{"data_type": "uint8" if name == "scl" else "uint16", "nodata": 0}],
        }  # fmt: skip
    return _write_item(folder, "s2-tile", "sentinel-2-l2a", {"platform": "sentinel-2a"}, assets, (side * 10.0, side * 10.0))


def naip(data: Path, shape: tuple[int, int] = (12000, 10000)) -> dict[str, Any]:
    """The item of a NAIP quad of ``shape`` pixels of 1 m in ``data``, made where it is missing: four bands, pixel by pixel."""
    folder = data / f"chips-naip-{shape[0]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "image.tif"
    if not path.exists():
        rng = np.random.default_rng(SEED)
        land = smooth_noise(rng, shape, 500, octaves=4, grain=0.0)
        bands = [land * (20 + 4 * n) + 110 + rng.standard_normal(shape, np.float32) * 4 for n in range(4)]
        write_cog(path, np.clip(np.stack(bands), 0, 255).astype(np.uint8), 1.0, block=512, nodata=None)
    image = {
        "href": str(path), "type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["data"],
        "proj:shape": list(shape), "proj:transform": [1.0, 0.0, ORIGIN[0], 0.0, -1.0, ORIGIN[1]],
        "eo:bands": [{"name": name, "common_name": name.lower()} for name in ("Red", "Green", "Blue", "NIR")],
    }  # fmt: skip
    return _write_item(folder, "naip-quad", "naip", {"platform": "naip"}, {"image": image}, (float(shape[0]), float(shape[1])))


def _write_item(
    folder: Path, item_id: str, collection: str, properties: dict[str, Any], assets: dict[str, Any], size: tuple[float, float]
) -> dict[str, Any]:
    """The item as JSON beside its files, with hrefs relative to it; returned with absolute ones."""
    left, top = ORIGIN
    west, south, east, north = transform_bounds(f"EPSG:{UTM}", "EPSG:4326", left, top - size[0], left + size[1], top)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [PROJECTION], "id": item_id, "collection": collection,
        "properties": {"datetime": "2024-03-11T14:06:36Z", "proj:epsg": UTM, **properties}, "links": [],
        "bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]}, "assets": assets,
    }  # fmt: skip
    relative = {key: {**asset, "href": f"./{Path(asset['href']).name}"} for key, asset in assets.items()}
    (folder / f"{item_id}.json").write_text(json.dumps({**item, "assets": relative}))
    return item
