"""Write warped files, or files with fewer bands, as Cloud Optimized GeoTIFFs with overviews."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from xchip.core.grid import PixelGrid, proj_code
from xchip.core.scene import Header
from xchip.core.types import JSON
from xchip.processors.recipe import Staging

if TYPE_CHECKING:
    from rasterio import DatasetReader

TAG = "XCHIP_MADE_OF"
"""Tag of a file with JSON: its source, and its staging."""
_STRIP = 512
"""Number of rows to warp at once, and side of the file's blocks."""
_CATEGORIES = ("nearest", "mode")
GRID_FIELDS = ("proj:epsg", "proj:code", "proj:wkt2", "proj:projjson", "proj:shape", "proj:transform", "proj:bbox")
_STALE = (*GRID_FIELDS, "proj:geometry", "proj:centroid", "gsd", "file:checksum", "file:size", "file:header_size")
_BANDS = ("bands", "eo:bands", "raster:bands")


def write_warped(source: Path, target: Path, rule: Staging, made_of: JSON) -> None:
    """Warp or cut the raster ``source`` as ``rule`` says, and write it to ``target``.

    Pixel values and the nodata value stay. If neither the source nor ``rule`` has a nodata value, the file gets a mask: the
    source's mask or alpha band, and masked beyond its borders. Memory does not grow with the file.

    Raises
    ------
    ValueError
        If the file has fewer bands than the rule keeps, or no CRS.
    """
    import rasterio
    from rasterio.enums import ColorInterp, MaskFlags, Resampling
    from rasterio.shutil import copy
    from rasterio.transform import Affine
    from rasterio.vrt import WarpedVRT
    from rasterio.windows import Window

    with rasterio.open(source) as data:
        if not data.crs:
            raise ValueError(f"{source.name} has no CRS, so it can't be warped; its item needs another staging")
        bands = list(rule.bands) or list(data.indexes)
        if max(bands) > data.count:
            raise ValueError(f"{source.name} has {data.count} bands; band {max(bands)} can't be kept")
        grid = warped_grid(data, rule)
        alpha = ColorInterp.alpha in data.colorinterp and not set(bands) >= set(data.indexes)
        nodata = rule.nodata if data.nodata is None else data.nodata
        masked = nodata is None and (alpha or rule.crs is not None or MaskFlags.per_dataset in data.mask_flag_enums[0])
        height, width = grid.shape
        options = {"crs": grid.crs, "transform": Affine(*grid.transform), "height": height, "width": width}
        # GDAL would change valid pixels that equal a nodata value which the source does not declare.
        vrt_options = options | {"src_nodata": nodata, "nodata": nodata}
        vrt_options |= {"resampling": Resampling[rule.resampling], "add_alpha": masked and not alpha}
        profile = options | {"count": len(bands), "dtype": data.dtypes[bands[0] - 1], "nodata": nodata, "bigtiff": "if_safer"}
        with (
            WarpedVRT(data, **vrt_options) as warped,
            tempfile.TemporaryDirectory(prefix="xchip-", dir=source.parent) as folder,
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        ):
            plain = Path(folder) / "plain.tif"
            with rasterio.open(plain, "w", driver="GTiff", tiled=True, blockxsize=_STRIP, blockysize=_STRIP, **profile) as out:
                out.update_tags(**{TAG: json.dumps(made_of, sort_keys=True)})
                for row in range(0, height, _STRIP):
                    window = Window(0, row, width, min(_STRIP, height - row))
                    out.write(warped.read(bands, window=window), window=window)
                    if masked:
                        out.write_mask(warped.read(warped.count, window=window), window=window)
                for number, band in enumerate(bands, 1):
                    out.set_band_description(number, data.descriptions[band - 1] or "")
            copy(
                plain,
                target,
                driver="COG",
                compress="DEFLATE",
                predictor="YES",
                blocksize=_STRIP,
                resampling="NEAREST" if rule.resampling in _CATEGORIES else "AVERAGE",
                overviews="IGNORE_EXISTING",
            )


def warped_grid(data: DatasetReader, rule: Staging) -> PixelGrid:
    """Return the grid to which an open raster is warped.

    In the raster's own CRS, pixels begin at its upper left corner and end within its other borders, up to a rounding error. In
    another CRS they cover the raster; with a resolution they lie on whole multiples of it, so that neighbours share a lattice.
    """
    import pyproj
    from rasterio.crs import CRS
    from rasterio.warp import aligned_target, calculate_default_transform

    crs = data.crs if rule.crs is None else CRS.from_user_input(rule.crs)
    code = proj_code(pyproj.CRS.from_wkt(crs.to_wkt()))
    a, _, left, _, e, top = data.transform[:6]
    height, width = data.height, data.width
    if crs == data.crs:
        res = rule.resolution
        if res is None:
            return PixelGrid(code, (a, 0.0, left, 0.0, e, top), (height, width))
        shape = tuple(max(1, int(length * abs(size) / res + 1e-6)) for length, size in ((height, e), (width, a)))
        return PixelGrid(code, (res, 0.0, left, 0.0, -res, top), (shape[0], shape[1]))
    transform, columns, rows = calculate_default_transform(data.crs, crs, width, height, *data.bounds, resolution=rule.resolution)
    if rule.resolution is not None:
        transform, columns, rows = aligned_target(transform, columns, rows, rule.resolution)
    return PixelGrid(code, tuple(transform)[:6], (rows, columns))


def note_in(file: BinaryIO) -> object:
    """Return the note that `write_warped` left in a file; None if the file has no note or is not a raster."""
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(file) as data:
            note = data.tags().get(TAG)
    except RasterioIOError:
        return None
    return None if note is None else json.loads(note)


def described(asset: JSON, header: Header, rule: Staging) -> dict[str, Any]:
    """Return the asset of a warped file, with the file's own grid and bands."""
    warped = {name: value for name, value in asset.items() if name not in _STALE}
    for field in _BANDS:
        bands = warped.get(field)
        if rule.bands and isinstance(bands, list):
            if len(bands) >= max(rule.bands):
                warped[field] = [bands[number - 1] for number in rule.bands]
            else:
                del warped[field]
    grid = header.grid
    code = "proj:code" if grid.crs.partition(":")[2].isdigit() else "proj:wkt2"
    warped |= {"type": "image/tiff; application=geotiff; profile=cloud-optimized", code: grid.crs, "gsd": grid.res[0]}
    if not header.masked:
        # Readers that find these fields don't open the file, and only the file says that it has a mask.
        warped |= {"proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}
    return warped
