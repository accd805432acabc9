"""The scene's grid: the finest of the pixel grids that an item's rasters have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

from xchip.core.grid import PixelGrid
from xchip.sensors.profile import BandSpec
from xchip.stac.scene.assets import Raster
from xchip.stac.scene.bands import Files

Finest = tuple[Raster, PixelGrid, str]
"""(the raster whose grid it is, the grid, where it was found)."""


def finest_of_rasters(files: Files, rasters: Sequence[Raster]) -> Finest:
    """The smallest pixel among the data assets. Among equals the item's own grid, then the largest."""
    candidates = [raster for raster in rasters if raster.is_data] or rasters
    grids = [(raster, *files.grid(raster)) for raster in candidates]
    mixed = len({grid.crs for _, grid, _ in grids}) > 1

    def order(entry: Finest) -> tuple[float, bool, int]:
        raster, grid, _ = entry
        unit = _metres(grid.crs) if mixed else 1.0
        area = grid.res[0] * grid.res[1] * unit**2
        return float(f"{area:.6g}"), files.published_grid(raster)[2] != "item", -grid.shape[0] * grid.shape[1]

    return min(grids, key=order)


def finest_of_profile(files: Files, matched: Collection[tuple[BandSpec, Raster]]) -> Finest:
    """The smallest pixel among the profile's default bands.

    Sizes are those that the metadata publish, else those that the profile knows: then one file of that size is opened.
    """
    usual = [pair for pair in matched if pair[0].default] or list(matched)
    sizes: dict[str, float] = {}
    for spec, raster in usual:
        grid = _known_grid(files, raster)
        sizes[raster.key] = max(grid.res) if grid is not None else spec.resolution or 0.0
    rasters = [raster for _, raster in usual]
    while True:
        finest = min(rasters, key=lambda raster: (sizes[raster.key], _known_grid(files, raster) is None))
        grid, where = files.grid(finest)
        if max(grid.res) <= 1.01 * sizes[finest.key]:
            return finest, grid, where
        sizes[finest.key] = max(grid.res)  # coarser than the profile knows it: another may be finer


def _known_grid(files: Files, raster: Raster) -> PixelGrid | None:
    if files.opened(raster) is not None:
        return files.grid(raster)[0]
    return files.published_grid(raster)[0]


@lru_cache(maxsize=128)
def _metres(crs: str) -> float:
    """Metres in one unit of a CRS, roughly (at the equator, for degrees)."""
    import pyproj

    parsed = pyproj.CRS.from_user_input(crs)
    factor = float(parsed.axis_info[0].unit_conversion_factor) if parsed.axis_info else 1.0
    return factor * 6378137.0 if parsed.is_geographic else factor
