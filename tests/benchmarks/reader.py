"""How close reading through `xchip.stack` comes to bare rasterio.

Run ``python tests/benchmarks/reader.py``. It makes its own files, checks that pixels are identical, and times, in rounds in a
random order, a 20 m band on the 10 m grid against a native read and a repeat, and four bands of one file against one read of
all four. Both sides work block by block, as jobs do, and take the maximum of what they read; "whole" rows hold all
pixels in memory at the end instead.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window
from timing import add_decoder_option, decoder

import xchip
from xchip.io.gdal import POOL

COARSE = 5490
AIMS = {"20 m on 10 m": 1.15, "four bands of a file": 1.25}


def terrain(height: int, width: int, *, mean: float, spread: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth hills and noise, which deflate about as well as real bands."""
    y, x = np.ogrid[:height, :width]
    hills = np.sin(x / 300) + np.cos(y / 200) + np.sin((x + y) / 90)
    return mean + spread * hills + rng.normal(0, noise, (height, width))


def make_files(folder: Path, fine: int) -> tuple[Path, Path]:
    """A 20 m Sentinel-2 band of full size, and an aerial picture of four pixel-interleaved bands."""
    rng = np.random.default_rng(0)
    common = {"driver": "GTiff", "crs": "EPSG:32633", "tiled": True, "compress": "deflate", "predictor": 2}
    band, picture = folder / "swir16.tif", folder / "image.tif"
    values = terrain(COARSE, COARSE, mean=1800, spread=300, noise=60, rng=rng).clip(1).astype("uint16")
    shape = {"height": COARSE, "width": COARSE, "count": 1, "blockxsize": 1024, "blockysize": 1024}
    with rasterio.open(
        band, "w", dtype="uint16", nodata=0, transform=from_origin(499980, 5100000, 20, 20), **shape, **common
    ) as file:
        file.write(values, 1)
    shape = {"height": fine, "width": fine, "count": 4, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(
        picture, "w", dtype="uint8", interleave="pixel", transform=from_origin(499980, 5100000, 1, 1), **shape, **common
    ) as file:
        for number in range(1, 5):
            file.write(terrain(fine, fine, mean=110, spread=20, noise=6, rng=rng).clip(0, 255).astype("uint8"), number)
    return band, picture


def items(band: Path, picture: Path, fine: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both files as STAC items with complete metadata."""
    base = {"type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "geometry": None, "links": []}
    properties = {"datetime": "2024-06-01T10:00:00Z", "proj:code": "EPSG:32633"}

    def asset(path: Path, res: int, size: int, bands: list[dict[str, Any]]) -> dict[str, Any]:
        transform = [res, 0, 499980, 0, -res, 5100000]
        grid = {"proj:shape": [size, size], "proj:transform": transform}
        return {"href": str(path), "type": "image/tiff", "roles": ["data"], "bands": bands, **grid}

    swir = asset(band, 20, COARSE, [{"name": "swir16", "data_type": "uint16", "nodata": 0}])
    # Never read: it only makes the scene's grid one of 10 m.
    red = asset(band.with_name("red.tif"), 10, 2 * COARSE, [{"name": "red", "data_type": "uint16", "nodata": 0}])
    image = asset(picture, 1, fine, [{"name": name, "data_type": "uint8"} for name in ("red", "green", "blue", "nir")])
    return (
        {**base, "id": "s2", "properties": properties, "assets": {"red": red, "swir16": swir}},
        {**base, "id": "aerial", "properties": properties, "assets": {"image": image}},
    )


def doubled(values: np.ndarray) -> np.ndarray:
    out = np.empty((2 * values.shape[0], 2 * values.shape[1]), values.dtype)
    out[::2, ::2] = values
    out[::2, 1::2] = values
    out[1::2] = out[::2]
    return out


def windows(size: int, block: int) -> list[Window]:
    return [
        Window(col, row, min(block, size - col), min(block, size - row))
        for row in range(0, size, block)
        for col in range(0, size, block)
    ]


def contestants(band: Path, picture: Path, fine: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name: (bare rasterio, through xchip.stack)."""
    s2, aerial = items(band, picture, fine)

    def swir_stack() -> Any:
        return xchip.stack(s2, ["swir16"])["swir16"].data

    def image_stack() -> list[Any]:
        return [array.data for array in xchip.stack(aerial).data_vars.values()]

    def bare_blocks() -> int:
        with rasterio.open(band) as file:
            return max(int(doubled(file.read(1, window=window)).max()) for window in windows(COARSE, 1024))

    def bare_picture_blocks() -> int:
        with rasterio.open(picture) as file:
            return max(int(file.read(window=window).max()) for window in windows(fine, 2048))

    def bare_whole() -> np.ndarray:
        with rasterio.open(band) as file:
            return doubled(file.read(1))

    def bare_picture_whole() -> np.ndarray:
        with rasterio.open(picture) as file:
            return file.read()

    return {
        "20 m on 10 m": (bare_blocks, lambda: int(swir_stack().max().compute())),
        "four bands of a file": (
            bare_picture_blocks,
            lambda: max(map(int, dask.compute(*(array.max() for array in image_stack())))),
        ),
        "20 m on 10 m, whole": (bare_whole, lambda: swir_stack().compute()[0]),
        "four bands of a file, whole": (bare_picture_whole, lambda: np.concatenate(dask.compute(*image_stack()))),
    }


def timed(function: Callable[[], Any]) -> float:
    POOL.clear()  # a dataset that stays open keeps decoded blocks
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--fine", type=int, default=8192, help="side of the aerial picture, pixels")
    add_decoder_option(parser)
    options = parser.parse_args()
    print(f"xchip's tiles by {decoder(options)}")
    with tempfile.TemporaryDirectory() as folder:
        band, picture = make_files(Path(folder), options.fine)
        print(f"20 m band {band.stat().st_size >> 20} MB, picture {picture.stat().st_size >> 20} MB")
        rows = contestants(band, picture, options.fine)
        for name, (bare, ours) in rows.items():
            assert np.array_equal(bare(), ours()), f"{name}: the pixels differ"
        jobs: dict[tuple[str, str], Callable[[], Any]] = {}
        for name, (bare, ours) in rows.items():
            jobs[name, "bare"] = bare
            jobs[name, "1 thread"] = lambda ours=ours: with_threads(1, ours)
            jobs[name, "2 threads"] = lambda ours=ours: with_threads(2, ours)
        times: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
        for _ in range(options.rounds):
            for key in random.sample(list(jobs), len(jobs)):
                times[key].append(timed(jobs[key]))
    print(f"{'':30}{'bare, ms':>10}{'1 thread':>10}{'2 threads':>10}{'aim':>6}   time / bare, medians of {options.rounds} rounds")
    for name in rows:
        bare = statistics.median(times[name, "bare"])
        ratios = [statistics.median(times[name, kind]) / bare for kind in ("1 thread", "2 threads")]
        print(f"{name:30}{1000 * bare:10.0f}{ratios[0]:10.2f}{ratios[1]:10.2f}{AIMS.get(name, ''):>6}")


def with_threads(number: int, function: Callable[[], Any]) -> Any:
    scheduler = {"scheduler": "synchronous"} if number == 1 else {"scheduler": "threads", "num_workers": number}
    with dask.config.set(scheduler):
        return function()


if __name__ == "__main__":
    main()
