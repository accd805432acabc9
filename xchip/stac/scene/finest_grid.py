"""Choose the scene's grid: the finest pixel grid of an item's rasters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

from xchip.core.grid import PixelGrid
from xchip.sensors.profile import BandSpec
from xchip.stac.scene.assets import Raster
from xchip.stac.scene.bands import Files

RasterGrid = tuple[Raster, PixelGrid, str]
"""(raster, its grid, origin of the grid)."""


def finest_of_rasters(files: Files, rasters: Sequence[Raster]) -> RasterGrid:
    """Return the data asset with the smallest pixels. Ties: first the item's shared grid, then the largest grid."""
    candidates = [raster for raster in rasters if raster.is_data] or rasters
    grids = [(raster, *files.grid(raster)) for raster in candidates]
    mixed = len({grid.crs for _, grid, _ in grids}) > 1

    def order(entry: RasterGrid) -> tuple[float, bool, int]:
        raster, grid, _ = entry
        unit = _metres(grid.crs) if mixed else 1.0
        area = grid.res[0] * grid.res[1] * unit**2
        return float(f"{area:.6g}"), files.published_grid(raster)[2] != "item", -grid.shape[0] * grid.shape[1]

    return min(grids, key=order)


def finest_of_profile(files: Files, matched: Collection[tuple[BandSpec, Raster]]) -> RasterGrid:
    """Return the profile's default band with the smallest pixels.

    Pixel sizes come from the metadata, else from the profile; in that case one file of the smallest size is opened.
    """
    bands = [pair for pair in matched if pair[0].default] or list(matched)
    sizes: dict[str, float] = {}
    for spec, raster in bands:
        grid = _grid_without_opening(files, raster)
        sizes[raster.key] = max(grid.res) if grid is not None else spec.resolution or 0.0
    rasters = [raster for _, raster in bands]
    while True:
        finest = min(rasters, key=lambda raster: (sizes[raster.key], _grid_without_opening(files, raster) is None))
        grid, where = files.grid(finest)
        if max(grid.res) <= 1.01 * sizes[finest.key]:
            return finest, grid, where
        sizes[finest.key] = max(grid.res)  # coarser than in the profile: another band may be finer


def _grid_without_opening(files: Files, raster: Raster) -> PixelGrid | None:
    if files.opened(raster) is not None:
        return files.grid(raster)[0]
    return files.published_grid(raster)[0]


@lru_cache(maxsize=128)
def _metres(crs: str) -> float:
    """Return the approximate metres per unit of a CRS (at the equator, for degrees)."""
    import pyproj

    parsed = pyproj.CRS.from_user_input(crs)
    factor = float(parsed.axis_info[0].unit_conversion_factor) if parsed.axis_info else 1.0
    return factor * 6378137.0 if parsed.is_geographic else factor
