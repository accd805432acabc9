"""The pixel grid of a stack: the items' own lattice, or the one that the caller asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from xchip.core.grid import LATTICE_TOLERANCE, PixelGrid, proj_code
from xchip.core.scene import Scene

Bounds = tuple[float, float, float, float]


def target_grid(
    scenes: Sequence[Scene], *, crs: Any = None, resolution: Any = None, bounds: Bounds | None = None, bbox: Bounds | None = None
) -> PixelGrid:
    """The grid that holds all ``scenes``, or the part of it that was asked for.

    Without ``crs`` and ``resolution`` it lies on the scenes' own lattice: ``bounds`` and ``bbox`` only choose pixels. With
    ``resolution`` it begins at the upper left corner of ``bounds``; without bounds at that of the scenes where they share
    a lattice, else at multiples of the resolution.

    Raises
    ------
    ValueError
        If the scenes have several CRSs or lattices and nothing says which to take, or if none lies in the area.
    """
    if bounds is not None and bbox is not None:
        raise ValueError("give bounds= (in the CRS of the stack) or bbox= (lon/lat), not both")
    wanted = _common_crs(scenes) if crs is None else _crs(crs, scenes)
    native = all(scene.grid.crs == wanted for scene in scenes)
    strange = _off_lattice(scenes) if native else None
    if resolution is None and native:
        if strange is not None:
            raise ValueError(_two_lattices(scenes[0], strange))
        lattice = scenes[0].grid
    else:
        res_y, res_x = _resolution(resolution) if resolution is not None else _default_resolution(scenes[0].grid, wanted)
        left, top = 0.0, 0.0
        if bounds is not None:
            left, top = float(bounds[0]), float(bounds[3])
        elif native and strange is None:
            left, _, _, top = _union([scene.grid.bounds for scene in scenes])
        lattice = PixelGrid(wanted, (res_x, 0.0, left, 0.0, -res_y, top), (1, 1))
    return _on_lattice(lattice, _area(scenes, wanted, bounds, bbox))


def extent_on(grid: PixelGrid, target: PixelGrid) -> Bounds:
    """(left, bottom, right, top) of ``grid`` in the CRS of ``target``, outwards to whole pixels of it."""
    return _on_lattice(target, _projected(grid.bounds, grid.crs, target.crs)).bounds


def overlap(one: Bounds, other: Bounds) -> bool:
    """Whether two extents share an area."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _area(scenes: Sequence[Scene], crs: str, bounds: Bounds | None, bbox: Bounds | None) -> Bounds:
    extents = [_projected(scene.grid.bounds, scene.grid.crs, crs) for scene in scenes]
    whole = _union(extents)
    if bounds is None and bbox is None:
        return whole
    area: Bounds = bounds if bounds is not None else _projected(_east_of(bbox), "OGC:CRS84", crs)
    left, bottom, right, top = (float(edge) for edge in area)
    if not (left < right and bottom < top):
        raise ValueError(f"bounds must be (left, bottom, right, top) with left < right and bottom < top, got {area}")
    if not any(overlap(area, extent) for extent in extents):
        name, given = ("bounds", bounds) if bounds is not None else ("bbox", bbox)
        raise ValueError(f"no item lies in {name}={given}; in the CRS of the stack the items cover {whole}")
    if bounds is not None:
        return left, bottom, right, top
    return max(left, whole[0]), max(bottom, whole[1]), min(right, whole[2]), min(top, whole[3])


def _east_of(bbox: Any) -> Bounds:
    west, south, east, north = (float(edge) for edge in bbox)
    return west, south, east + 360 if east < west else east, north


def _on_lattice(lattice: PixelGrid, area: Bounds) -> PixelGrid:
    """The pixels of a lattice that hold ``area``; edges within a hundredth of a pixel are on the lattice."""
    (res_y, res_x), (_, _, x, _, _, y) = lattice.res, lattice.transform
    left, right = math.floor((area[0] - x) / res_x + LATTICE_TOLERANCE), math.ceil((area[2] - x) / res_x - LATTICE_TOLERANCE)
    top, bottom = math.floor((y - area[3]) / res_y + LATTICE_TOLERANCE), math.ceil((y - area[1]) / res_y - LATTICE_TOLERANCE)
    shape = max(1, bottom - top), max(1, right - left)
    if (top, left) == (0, 0):
        return PixelGrid(lattice.crs, lattice.transform, shape)  # the file's own numbers, to the last digit
    return lattice.window(row_off=top, col_off=left, height=shape[0], width=shape[1])


def _union(extents: Sequence[Bounds]) -> Bounds:
    left, bottom, right, top = zip(*extents, strict=True)
    return min(left), min(bottom), max(right), max(top)


def _projected(bounds: Bounds, source: str, target: str) -> Bounds:
    if source == target:
        return bounds
    import pyproj

    edges = pyproj.Transformer.from_crs(source, target, always_xy=True).transform_bounds(*bounds, densify_pts=21)
    if not all(map(math.isfinite, edges)):
        raise ValueError(f"the extent {bounds} has no place in {_name(target)}; choose another crs=")
    return edges


def _crs(crs: Any, scenes: Sequence[Scene]) -> str:
    import pyproj

    try:
        wanted = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"crs={crs!r} is not a CRS that pyproj knows: {error}") from error
    # One CRS has many spellings: take that of the items.
    return next((scene.grid.crs for scene in scenes if pyproj.CRS(scene.grid.crs) == wanted), proj_code(wanted))


def _common_crs(scenes: Sequence[Scene]) -> str:
    first = scenes[0]
    for scene in scenes[1:]:
        if scene.grid.crs != first.grid.crs:
            raise ValueError(
                f"items {first.item_id!r} ({_name(first.grid.crs)}) and {scene.item_id!r} ({_name(scene.grid.crs)}) have "
                "different CRSs; pass crs= to warp them onto one grid, or stack them apart"
            )
    return first.grid.crs


def _name(crs: str) -> str:
    import pyproj

    return crs if len(crs) < 40 else pyproj.CRS(crs).name


def _off_lattice(scenes: Sequence[Scene]) -> Scene | None:
    return next((scene for scene in scenes[1:] if scenes[0].grid.offset_of(scene.grid) is None), None)


def _two_lattices(one: Scene, other: Scene) -> str:
    return (
        f"items {one.item_id!r} and {other.item_id!r} are not on one pixel lattice (transforms {one.grid.transform} and "
        f"{other.grid.transform}); pass resolution= to warp them onto one grid, or stack them apart"
    )


def _resolution(resolution: Any) -> tuple[float, float]:
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
