"""Full-size synthetic scenes for the benchmarks: a quality band on disk, and the STAC item that describes it.

Sizes, blocks, compression and the length of class borders are those of published products; the classes are noise.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile
from rasterio.warp import transform_bounds

SEED = 20240311
UTM = 32720
PROJECTION = "https://stac-extensions.github.io/projection/v1.1.0/schema.json"


@dataclass(frozen=True)
class Product:
    """A quality band as it is published."""

    name: str
    """Short name, also of the folder."""
    asset: str
    """Key of the quality asset in the item."""
    shape: tuple[int, int]
    """(height, width) of the band."""
    resolution: float
    """Metres a pixel."""
    origin: tuple[float, float]
    """(left, top) of the band, metres."""
    block: int
    """Height and width of the file's blocks."""
    chip: int
    """Height and width, in pixels of this band, of a chip of 256 x 256 pixels of the scene."""
    nodata: int
    """Value, or bit, that says nodata."""
    cloudy: tuple[int, ...]
    """Values that are cloud, or bits of which any is cloud."""
    flags: bool
    """Whether the band holds bits rather than values."""
    paint: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    """Makes the pixels."""

    @property
    def chips(self) -> tuple[int, int]:
        """(rows, columns) of whole chips."""
        return self.shape[0] // self.chip, self.shape[1] // self.chip

    @property
    def transform(self) -> list[float]:
        """proj:transform of the band."""
        return [self.resolution, 0.0, self.origin[0], 0.0, -self.resolution, self.origin[1]]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in metres."""
        (left, top), (height, width) = self.origin, self.shape
        return left, top - height * self.resolution, left + width * self.resolution, top

    def masks(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(nodata, cloud) of ``values``, both bool, by the definition and the plainest way."""
        if not self.flags:
            return values == self.nodata, np.isin(values, self.cloudy)
        nodata = values & (1 << self.nodata) != 0
        return nodata, (values & sum(1 << bit for bit in self.cloudy) != 0) & ~nodata


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], length: int, *, octaves: int = 5, grain: float = 0.13
) -> np.ndarray:
    """Value noise, float32: features of ``length`` pixels, and of half, a quarter, ... of it at half the strength each.

    ``grain`` is the strength of noise in single pixels: it frays the borders of what a threshold cuts out.
    """
    field = rng.standard_normal(shape, np.float32) * np.float32(grain)
    for octave in range(octaves):
        step = length / 2**octave
        coarse = rng.standard_normal([int(n / step) + 2 for n in shape], np.float32) * np.float32(0.5**octave)
        y, x = (np.arange(n, dtype=np.float32) / np.float32(step) for n in shape)
        column = x.astype(np.intp)
        columns = coarse[:, column] + (coarse[:, column + 1] - coarse[:, column]) * (x - column).astype(np.float32)
        for row, height in enumerate(y):
            above = columns[int(height)]
            field[row] += above + (columns[int(height) + 1] - above) * np.float32(height % 1)
    return field


def wedge(shape: tuple[int, int], left: float, lean: float) -> np.ndarray:
    """True beyond a slanted line: left of ``left`` at the top and of ``left + lean`` at the bottom, parts of the width."""
    y, x = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None], np.linspace(0, 1, shape[1], dtype=np.float32)
    return x < left + lean * y


def paint_scl(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Scene classification: land, water and snow under cumulus, thin cirrus and shadows, 21 % beyond the swath."""
    land = smooth_noise(rng, shape, 320)
    scl = np.where(land > 0.25, np.uint8(4), np.uint8(5))
    scl[land < -1.6] = 6
    scl[land > 2.2] = 11
    cloud = smooth_noise(rng, shape, 500)
    shadow = np.roll(cloud, (40, -33), (0, 1)) > 0.95
    scl[shadow] = 3
    scl[cloud > 0.75] = 10
    scl[cloud > 0.95] = 8
    scl[cloud > 1.15] = 9
    # Speckle of single pixels, as classifiers leave it.
    specks = rng.integers(0, scl.size, scl.size // 1200)
    scl.reshape(-1)[specks] = rng.choice(np.array([1, 2, 7, 7, 5, 4], np.uint8), specks.size)
    scl[wedge(shape, 0.36, -0.30)] = 0
    return scl


# QA_PIXEL words as USGS publishes them: with the confidence bits that go with each state.
FILL, CLEAR, WATER, DILATED, SHADOW, CLOUD, CIRRUS, SNOW = 1, 21824, 21952, 21762, 23888, 22280, 54596, 30048


def paint_qa_pixel(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Quality words of a scene that lies askew in its frame, so that a third of it is fill."""
    land = smooth_noise(rng, shape, 300)
    qa = np.where(land < -1.3, np.uint16(WATER), np.uint16(CLEAR))
    qa[land > 2.3] = SNOW
    cloud = smooth_noise(rng, shape, 260)
    qa[np.roll(cloud, (40, -33), (0, 1)) > 0.95] = SHADOW
    qa[cloud > 0.75] = DILATED
    qa[cloud > 0.95] = CLOUD
    qa[smooth_noise(rng, shape, 900) > 1.7] = CIRRUS
    specks = rng.integers(0, qa.size, qa.size // 60)
    qa.reshape(-1)[specks] = rng.choice(np.array([DILATED, CLOUD, WATER, SHADOW, CLEAR], np.uint16), specks.size)
    outside = wedge(shape, 0.17, -0.17) | wedge(shape, 0.17, -0.17)[::-1, ::-1]
    outside |= wedge(shape[::-1], 0.17, -0.17).T[:, ::-1] | wedge(shape[::-1], 0.17, -0.17).T[::-1]
    qa[outside] = FILL
    return qa


SENTINEL_2 = Product(
    "sentinel-2", "scl", (5490, 5490), 20.0, (499980.0, 6400000.0), 1024, 128, 0, (8, 9, 10), False, paint_scl
)  # fmt: skip
# Landsat pixels are centred on multiples of 30 m, so their edges are 15 m off.
LANDSAT = Product(
    "landsat", "qa_pixel", (7811, 7681), 30.0, (361785.0, 6429015.0), 256, 256, 0, (1, 2, 3), True, paint_qa_pixel
)  # fmt: skip
PRODUCTS = (SENTINEL_2, LANDSAT)


def write_band(product: Product, path: Path) -> None:
    """Write the quality band as a cloud-optimised GeoTIFF."""
    pixels = product.paint(np.random.default_rng(SEED), product.shape)
    profile = {
        "driver": "GTiff", "count": 1, "dtype": pixels.dtype.name, "height": product.shape[0], "width": product.shape[1],
        "crs": f"EPSG:{UTM}", "transform": rasterio.Affine(*product.transform),
    }  # fmt: skip
    if not product.flags:
        profile["nodata"] = product.nodata
    with MemoryFile() as memory:
        with memory.open(**profile) as plain:
            plain.write(pixels, 1)
        with memory.open() as plain:
            temporary = path.with_suffix(".tmp")
            options = {"compress": "deflate", "predictor": "standard", "overview_resampling": "nearest"}
            rasterio.shutil.copy(plain, temporary, driver="COG", blocksize=product.block, **options)
    os.replace(temporary, path)


def item_of(product: Product, item_id: str, href: str) -> dict[str, Any]:
    """The STAC item, as Earth Search and USGS publish them. Only the quality asset's file exists."""
    bbox = list(transform_bounds(f"EPSG:{UTM}", "EPSG:4326", *product.bounds))
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    quality = {"href": href, "type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["data"]}
    grid = {"proj:shape": list(product.shape), "proj:transform": product.transform}
    properties = {"datetime": "2024-03-11T14:06:36Z", "proj:epsg": UTM}
    red = {**quality, "href": str(Path(href).with_name("red.tif")), "eo:bands": [{"name": "red", "common_name": "red"}]}
    if product is SENTINEL_2:
        collection = "sentinel-2-l2a"
        properties |= {"platform": "sentinel-2a", "constellation": "sentinel-2"}
        left, top = product.origin
        red |= {"proj:shape": [10980, 10980], "proj:transform": [10.0, 0.0, left, 0.0, -10.0, top]}
        quality |= grid
    else:
        collection = "landsat-c2-l2"
        properties |= {"platform": "landsat-8", **grid}
        quality |= {"alternate": {"s3": {"href": href}}}
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [PROJECTION], "id": item_id,
        "collection": collection, "properties": properties, "links": [], "bbox": bbox,
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "assets": {"red": red, product.asset: quality},
    }  # fmt: skip


def prepare(product: Product, data: Path, *, copies: int = 1) -> list[dict[str, Any]]:
    """Items of ``copies`` scenes in ``data``, made where they are missing; each has a file of its own.

    Files of their own keep GDAL and the page cache from serving one scene's blocks to another.
    """
    folder = data / product.name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{product.asset}-{number:03}.tif" for number in range(copies)]
    for path in paths:
        if path == paths[0] and not path.exists():
            write_band(product, path)
        elif not path.exists():
            shutil.copyfile(paths[0], path)
    items = [item_of(product, f"{product.name}-{path.stem}", str(path)) for path in paths]
    for path, item in zip(paths, items, strict=True):
        path.with_suffix(".json").write_text(json.dumps(item))
    return items
