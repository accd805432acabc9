"""Choose the pixel grid of a stack: the items' lattice, or a requested CRS and resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from xchip.core.grid import LATTICE_TOLERANCE, PixelGrid, proj_code
from xchip.core.scene import Scene
from xchip.core.types import JSON, BBox

if TYPE_CHECKING:
    import pyproj


class HasWKT(Protocol):
    """A CRS object of another library, such as rasterio or odc-geo."""

    def to_wkt(self) -> str: ...


CRSLike: TypeAlias = "str | int | JSON | tuple[str, str] | pyproj.CRS | HasWKT"
"""A CRS in any form that pyproj reads: "EPSG:32720", 32720, WKT, PROJJSON, (authority, code) or a CRS object."""
Resolution: TypeAlias = float | tuple[float, float] | list[float]
"""Pixel size, or (y, x) pixel sizes, in units of the CRS."""


def target_grid(
    scenes: Sequence[Scene],
    *,
    crs: CRSLike | None = None,
    resolution: Resolution | None = None,
    bounds: BBox | None = None,
    bbox: BBox | None = None,
) -> PixelGrid:
    """Return the grid that contains all ``scenes``, or its part within ``bounds`` or ``bbox``.

    Without ``crs`` and ``resolution`` the grid is on the scenes' lattice; ``bounds`` and ``bbox`` only select pixels. With
    ``resolution`` the grid begins at the upper left corner of ``bounds``. Without bounds it begins at the upper left corner of
    the scenes if they share a lattice, else at multiples of the resolution. Raise ValueError if the scenes have several CRSs or
    lattices and ``crs`` or ``resolution`` is missing, or if no scene is in the area.
    """
    if bounds is not None and bbox is not None:
        raise ValueError("give bounds= (in the CRS of the stack) or bbox= (lon/lat), not both")
    target_crs = _common_crs(scenes) if crs is None else _crs(crs, scenes)
    native = all(scene.grid.crs == target_crs for scene in scenes)
    misaligned = _off_lattice(scenes) if native else None
    if resolution is None and native:
        if misaligned is not None:
            raise ValueError(
                f"items {scenes[0].item_id!r} and {misaligned.item_id!r} are not on one pixel lattice (transforms "
                f"{scenes[0].grid.transform} and {misaligned.grid.transform}); pass resolution= to warp them onto one grid, or "
                "stack them separately"
            )
        lattice = scenes[0].grid
    else:
        res_y, res_x = _resolution(resolution) if resolution is not None else _default_resolution(scenes[0].grid, target_crs)
        left, top = 0.0, 0.0
        if bounds is not None:
            left, top = float(bounds[0]), float(bounds[3])
        elif native and misaligned is None:
            left, _, _, top = _union([scene.grid.bounds for scene in scenes])
        lattice = PixelGrid(target_crs, (res_x, 0.0, left, 0.0, -res_y, top), (1, 1))
    return _on_lattice(lattice, _area(scenes, target_crs, bounds, bbox))


def extent_on(grid: PixelGrid, target: PixelGrid) -> BBox:
    """Return the bounds of ``grid`` in the CRS of ``target``, expanded to whole pixels of ``target``."""
    return _on_lattice(target, _projected(grid.bounds, grid.crs, target.crs)).bounds


def overlap(bounds1: BBox, bounds2: BBox) -> bool:
    """Whether two extents share an area."""
    left1, bottom1, right1, top1 = bounds1
    left2, bottom2, right2, top2 = bounds2
    return left1 < right2 and left2 < right1 and bottom1 < top2 and bottom2 < top1


def _area(scenes: Sequence[Scene], crs: str, bounds: BBox | None, bbox: BBox | None) -> BBox:
    extents = [_projected(scene.grid.bounds, scene.grid.crs, crs) for scene in scenes]
    whole = _union(extents)
    if bounds is not None:
        area = bounds
    elif bbox is not None:
        area = _projected(_increasing(bbox), "OGC:CRS84", crs)
    else:
        return whole
    left, bottom, right, top = (float(edge) for edge in area)
    if not (left < right and bottom < top):
        raise ValueError(f"bounds must be (left, bottom, right, top) with left < right and bottom < top, got {area}")
    if not any(overlap(area, extent) for extent in extents):
        argument = f"bounds={bounds}" if bounds is not None else f"bbox={bbox}"
        raise ValueError(f"no item lies in {argument}; in the CRS of the stack the items cover {whole}")
    if bounds is not None:
        return left, bottom, right, top
    return max(left, whole[0]), max(bottom, whole[1]), min(right, whole[2]), min(top, whole[3])


def _increasing(bbox: BBox) -> BBox:
    """Return the bbox with east > west, beyond 180 degrees if it crosses the antimeridian."""
    west, south, east, north = (float(edge) for edge in bbox)
    return west, south, east + 360 if east < west else east, north


def _on_lattice(lattice: PixelGrid, area: BBox) -> PixelGrid:
    """Return the pixels of a lattice that cover ``area``; edges within a hundredth of a pixel are on the lattice."""
    (res_y, res_x), (_, _, x, _, _, y) = lattice.res, lattice.transform
    left, right = math.floor((area[0] - x) / res_x + LATTICE_TOLERANCE), math.ceil((area[2] - x) / res_x - LATTICE_TOLERANCE)
    top, bottom = math.floor((y - area[3]) / res_y + LATTICE_TOLERANCE), math.ceil((y - area[1]) / res_y - LATTICE_TOLERANCE)
    shape = max(1, bottom - top), max(1, right - left)
    if (top, left) == (0, 0):
        return PixelGrid(lattice.crs, lattice.transform, shape)  # the file's transform, without rounding errors
    return lattice.window(row_off=top, col_off=left, height=shape[0], width=shape[1])


def _union(extents: Sequence[BBox]) -> BBox:
    left, bottom, right, top = zip(*extents, strict=True)
    return min(left), min(bottom), max(right), max(top)


def _projected(bounds: BBox, source: str, target: str) -> BBox:
    if source == target:
        return bounds
    import pyproj

    edges = pyproj.Transformer.from_crs(source, target, always_xy=True).transform_bounds(*bounds, densify_pts=21)
    if not all(map(math.isfinite, edges)):
        raise ValueError(f"the extent {bounds} can't be transformed to {_name(target)}; choose another crs=")
    return edges


def _crs(crs: CRSLike, scenes: Sequence[Scene]) -> str:
    import pyproj

    try:
        parsed = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"crs={crs!r} is not a CRS that pyproj knows: {error}") from error
    # One CRS has several spellings; use that of the items.
    return next((scene.grid.crs for scene in scenes if pyproj.CRS(scene.grid.crs) == parsed), proj_code(parsed))


def _common_crs(scenes: Sequence[Scene]) -> str:
    first = scenes[0]
    for scene in scenes[1:]:
        if scene.grid.crs != first.grid.crs:
            raise ValueError(
                f"items {first.item_id!r} ({_name(first.grid.crs)}) and {scene.item_id!r} ({_name(scene.grid.crs)}) have "
                "different CRSs; pass crs= to warp them onto one grid, or stack them separately"
            )
    return first.grid.crs


def _name(crs: str) -> str:
    import pyproj

    return crs if len(crs) < 40 else pyproj.CRS(crs).name


def _off_lattice(scenes: Sequence[Scene]) -> Scene | None:
    return next((scene for scene in scenes[1:] if scenes[0].grid.offset_of(scene.grid) is None), None)


def _resolution(resolution: Resolution) -> tuple[float, float]:
    pair = tuple(resolution) if isinstance(resolution, (tuple, list)) else (resolution, resolution)
    try:
        res_y, res_x = (float(value) for value in pair)
    except (TypeError, ValueError):
        raise ValueError(f"resolution must be a number or (y, x), in units of the CRS, got {resolution!r}") from None
    if not (res_y > 0 and res_x > 0 and math.isfinite(res_y + res_x)):
        raise ValueError(f"resolution must be positive, got {resolution!r}")
    return res_y, res_x


def _default_resolution(grid: PixelGrid, crs: str) -> tuple[float, float]:
    from rasterio.crs import CRS
    from rasterio.warp import calculate_default_transform

    height, width = grid.shape
    transform, _, _ = calculate_default_transform(
        CRS.from_user_input(grid.crs), CRS.from_user_input(crs), width, height, *grid.bounds
    )
    return -transform.e, transform.a
