"""Files that are not kept as they are: warped to other pixels, or with fewer bands, as Cloud Optimized GeoTIFF with overviews."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from xchip.core.grid import PixelGrid
from xchip.core.scene import Header
from xchip.processors.recipe import Staging

TAG = "XCHIP_MADE_OF"
"""Tag of a file: JSON of what it was made of, and how."""
_STRIP = 512
"""Rows that are warped at once; also the blocks of the file."""
_CATEGORIES = ("nearest", "mode")
GRID_FIELDS = ("proj:epsg", "proj:code", "proj:wkt2", "proj:projjson", "proj:shape", "proj:transform", "proj:bbox")
_STALE = (*GRID_FIELDS, "proj:geometry", "proj:centroid", "gsd", "file:checksum", "file:size", "file:header_size")
_BANDS = ("bands", "eo:bands", "raster:bands")


def write_warped(source: Path, target: Path, rule: Staging, made_of: Mapping[str, Any]) -> None:
    """Write what ``rule`` makes of the raster ``source`` to ``target``.

    Values and nodata value stay. Where there is none, nor in ``rule``, a mask goes with the file, which says where data are: by
    the source's mask or alpha band, and outside of it. Memory does not grow with the file.

    Raises
    ------
    ValueError
        If the file has fewer bands than the rule keeps, or no CRS.
    """
    import rasterio
    from rasterio.enums import ColorInterp, MaskFlags, Resampling
    from rasterio.shutil import copy
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
        options = {"crs": grid.crs, "transform": _affine(grid), "height": height, "width": width}
        # GDAL would change valid pixels that are equal to a nodata value which the source does not declare.
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


def warped_grid(data: Any, rule: Staging) -> PixelGrid:
    """The pixels that an open raster is brought to.

    In its own CRS they begin at its upper left corner, and none reaches over its other borders by more than a rounding error. In
    another CRS they cover it; with a resolution they lie on whole multiples of that, so that neighbours share a lattice.
    """
    import pyproj
    from rasterio.crs import CRS
    from rasterio.warp import aligned_target, calculate_default_transform

    from xchip.core.grid import proj_code

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


def _affine(grid: PixelGrid) -> Any:
    from rasterio.transform import Affine

    return Affine(*grid.transform)


def note_in(file: BinaryIO) -> Any:
    """What `write_warped` noted in a file; None where it holds no note, or is no raster."""
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(file) as data:
            note = data.tags().get(TAG)
    except RasterioIOError:
        return None
    return None if note is None else json.loads(note)


def described(asset: Mapping[str, Any], header: Header, rule: Staging) -> dict[str, Any]:
    """The asset of a warped file, with the file's own grid and bands."""
    plain = {name: value for name, value in asset.items() if name not in _STALE}
    for field in _BANDS:
        bands = plain.get(field)
        if rule.bands and isinstance(bands, list):
            if len(bands) >= max(rule.bands):
                plain[field] = [bands[number - 1] for number in rule.bands]
            else:
                del plain[field]
    grid = header.grid
    code = "proj:code" if grid.crs.partition(":")[2].isdigit() else "proj:wkt2"
    plain |= {"type": "image/tiff; application=geotiff; profile=cloud-optimized", code: grid.crs, "gsd": grid.res[0]}
    if not header.masked:
        # Where these are given nobody opens the file, and that it has a mask stands only there.
        plain |= {"proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}
    return plain
