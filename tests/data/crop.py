"""Make the files of this folder from those that their sources publish: ``python tests/data/crop.py ORIGINALS``.

``ORIGINALS`` holds the published files under the names that they have here; README.md says where each comes from. Most files are
copied byte for byte. ``RECIPES`` lists the others, which are made smaller in a way that keeps what the tests rely on: shape,
place, bands, data type, nodata, blocks, overviews and masks stay, and so does every value of a quality band.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.windows import Window

HERE = Path(__file__).resolve().parent
STRIP = 2048
"""Rows that are read at once."""


@dataclass(frozen=True)
class Json:
    """Write a JSON file without spaces."""

    def make(self, source: Path, target: Path) -> None:
        """Write ``target``."""
        target.write_text(json.dumps(json.loads(source.read_text()), ensure_ascii=False, separators=(",", ":")))


@dataclass(frozen=True)
class Parquet:
    """Compress a Parquet file."""

    def make(self, source: Path, target: Path) -> None:
        """Write ``target``."""
        pq.write_table(pq.read_table(source), target, compression="zstd", compression_level=19)


@dataclass(frozen=True)
class Kept:
    """What is kept of the pixels."""

    step: float = 1
    """Values are rounded down to multiples of this."""
    rows: tuple[int, int] | None = None
    """First row that is kept, and the first after it that is not; pixels of other rows become 0."""

    def strips(self, file: rasterio.DatasetReader) -> Iterator[tuple[np.ndarray, Window]]:
        """Pixels of all bands, from top to bottom. Nodata stays nodata, and nothing else becomes nodata."""
        first, end = self.rows or (0, file.height)
        for top in range(0, file.height, STRIP):
            window = Window(0, top, file.width, min(STRIP, file.height - top))
            values = file.read(window=window)
            if self.step != 1:
                rounded = (np.floor(values / self.step) * self.step).astype(values.dtype)
                values = np.where((values == file.nodata) | (rounded == file.nodata), values, rounded)
            number = np.arange(top, top + window.height)
            values[:, (number < first) | (number >= end)] = 0
            yield values, window


@dataclass(frozen=True)
class Jpeg2000(Kept):
    """Compress a JPEG2000 file more."""

    quality: float = 100
    """Bytes, in percent of those of the pixels; 100 loses nothing."""

    def make(self, source: Path, target: Path) -> None:
        """Write ``target``, and beside it the ``.aux.xml`` that holds its place and nodata, where the source has one."""
        side = source.with_name(f"{source.name}.aux.xml")
        with rasterio.open(source) as file:
            profile = {name: file.profile[name] for name in ("width", "height", "count", "dtype", "blockxsize", "blockysize")}
            profile |= {"tiled": True, "CODEC": "JP2", "RESOLUTIONS": len(file.overviews(1)) + 1, "QUALITY": self.quality}
            profile |= {"REVERSIBLE": "YES" if self.quality == 100 else "NO"}
            profile |= {} if side.exists() else {"crs": file.crs, "transform": file.transform}
            with rasterio.open(target, "w", driver="JP2OpenJPEG", **profile) as made:
                for values, window in self.strips(file):
                    made.write(values, window=window)
        if side.exists():
            shutil.copyfile(side, target.with_name(side.name))


@dataclass(frozen=True)
class Tiff(Kept):
    """Compress a GeoTIFF; its overviews are made of the nearest pixels."""

    compress: str = "DEFLATE"
    """The compression."""
    predictor: int = 2
    """What is compressed: 1 values, 2 differences of whole numbers, 3 differences of floating-point numbers."""
    overviews_first: bool = False
    """The overviews come before the pixels, and all their headers at the beginning, as in a Cloud Optimized GeoTIFF."""

    def make(self, source: Path, target: Path) -> None:
        """Write ``target``."""
        options = {"COMPRESS": self.compress, "PREDICTOR": self.predictor}
        with MemoryFile(ext=".tif") as memory, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, ZSTD_LEVEL=9, ZLEVEL=9):
            rasterio.shutil.copy(source, memory.name, driver="GTiff", COMPRESS="ZSTD", TILED="YES")
            with rasterio.open(source) as file, rasterio.open(memory.name, "r+") as copy:
                for values, window in self.strips(file):
                    copy.write(values, window=window)
                overviews, (height, width) = file.overviews(1), file.block_shapes[0]
                interleaved = file.profile["interleave"].upper()
                tiled, is_cog = file.profile["tiled"], file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
            if is_cog:
                options["PREDICTOR"] = {1: "NO", 2: "STANDARD", 3: "FLOATING_POINT"}[self.predictor]
                options |= {"BLOCKSIZE": width, "OVERVIEW_COUNT": len(overviews), "RESAMPLING": "NEAREST", "LEVEL": 9}
                rasterio.shutil.copy(memory.name, target, driver="COG", **options)
                return
            options |= {"INTERLEAVE": interleaved, "BLOCKYSIZE": height}
            options |= {"TILED": "YES", "BLOCKXSIZE": width} if tiled else {}
            options |= {"ZLEVEL": 9} if self.compress == "DEFLATE" else {}
            if self.overviews_first:
                build_overviews(memory.name, overviews)
                options["COPY_SRC_OVERVIEWS"] = "YES"
            rasterio.shutil.copy(memory.name, target, driver="GTiff", **options)
        if not self.overviews_first:
            build_overviews(target, overviews)


def build_overviews(path: Path | str, factors: list[int]) -> None:
    """Add overviews of the nearest pixels to a file."""
    if factors:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(factors, Resampling.nearest)


S2, S2_JPEG2000 = "rasters/s2_29RKH", "rasters/s2_{}/{}.tif"
LANDSAT = "rasters/landsat_{0}/LC08_L2SP_{0}_{1}_{2}.TIF"
MODIS = "rasters/modis_MYD13A1/MYD13A1.A2020153.h30v10_{}.TIF"
RECIPES: dict[str, Json | Parquet | Jpeg2000 | Tiff] = {
    "items/earthsearch-c1__rustac-10-items.json": Json(),
    "items/earthsearch-v0__100-items-32701.json": Json(),
    "items/planetarycomputer__s2-africa-strip.geojson": Json(),
    "items/rastervision__s2-3-items.json": Json(),
    "items/stac-geoparquet__100-sentinel-2-items.parquet": Parquet(),
    f"{S2}/B02.tif": Tiff(step=128, overviews_first=True),
    f"{S2}/B08.tif": Tiff(step=1024, overviews_first=True),
    **{f"{S2}/B{band}.tif": Tiff(step=512, overviews_first=True) for band in ("03", "04", "05", "06", "07", "8A", "11", "12")},
    **{
        S2_JPEG2000.format(scene, band): Jpeg2000(quality=4)
        for scene in ("S2A_33TWL_20230815", "S2A_33TWL_20230818", "S2B_33TWL_20230810", "S2B_33TWM_20230810")
        for band in ("B02", "B03", "B04", "B08")
    },
    **{
        LANDSAT.format(*scene, band): Tiff(step=step)
        for scene in (("008059", "20191201_20200825_02_T1"), ("001062", "20201031_20201106_02_T2"))
        for bands, step in ((("SR_B2", "SR_B3", "SR_B4", "SR_B5", "ST_B10"), 1024), (("QA_PIXEL",), 1))
        for band in bands
    },
    **{LANDSAT.format("008059", "20191201_20200825_02_T1", band): Tiff(predictor=1) for band in ("SR_QA_AEROSOL", "QA_RADSAT")},
    **{MODIS.format(band): Tiff(step=128) for band in ("NDVI_B01", "RR_B04", "NIRR_B05")},
    **{MODIS.format(band): Tiff(predictor=1) for band in ("PR_B12", "VIQ_B03")},
    "rasters/copdem30_N00E006.tif": Tiff(step=4, rows=(0, 2500), predictor=3),
    "rasters/esa_worldcover_2020_N00E006.tif": Tiff(compress="ZSTD", predictor=1, rows=(0, 16_000)),
    "rasters/landsat_LC08_198029_B2_crop.tif": Tiff(step=2048),
    "rasters/rgb_byte_l7.tif": Tiff(step=16),
    "rasters/hls_10band_224.tif": Tiff(step=128, compress="LZW", predictor=3),
    "rasters/l7_olinda_6band.tif": Tiff(step=16),
    "rasters/linz_dem_BY23.tif": Tiff(step=0.1, predictor=1),
    "rasters/linz_CB07_rgb.tif": Tiff(predictor=1),
    "rasters/colorado_hro_nodata.tif": Tiff(),
    "rasters/naip_m_3008501_ne_16.tif": Tiff(step=8),
    "rasters/s2_T19GBQ_cloudmask_10m.tif": Tiff(predictor=1, rows=(0, 5_000)),
    "rasters/s2_T32TLS_R60m_B01.jp2": Jpeg2000(rows=(1152, 1440)),
}
LEFT_OUT = {
    "rasters/rgbn_5m_haiti.tif": "its licence is not known",
    "rasters/s2_S2A_33TWL_20230818/MSK_CLDPRB_20m.jp2": "no test reads it",
}


def published(originals: Path) -> Iterator[str]:
    """Names of the files to make."""
    for path in sorted([*(originals / "items").iterdir(), *(originals / "rasters").rglob("*")]):
        name = path.relative_to(originals).as_posix()
        if path.is_file() and name not in LEFT_OUT and not name.endswith(".aux.xml"):
            yield name


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the files of this folder from those that their sources publish.")
    parser.add_argument("originals", type=Path, help="folder of the published files")
    parser.add_argument("names", nargs="*", help="files to make; by default, all")
    options = parser.parse_args()
    for name in options.names or published(options.originals):
        source, target = options.originals / name, HERE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in RECIPES:
            RECIPES[name].make(source, target)
            print(f"{name}: {source.stat().st_size:,} -> {target.stat().st_size:,} bytes")
        else:
            shutil.copyfile(source, target)
            for side in source.parent.glob(f"{source.name}.aux.xml"):
                shutil.copyfile(side, target.with_name(side.name))


if __name__ == "__main__":
    main()
