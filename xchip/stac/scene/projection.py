"""Read the CRS and pixel grid of an asset from ``proj:*`` fields of STAC 0.7 to 1.1, at asset or item level."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from xchip.core.grid import PixelGrid, proj_code
from xchip.core.lonlat import projection_of
from xchip.core.types import JSON, BBox
from xchip.stac.fields import FieldError, numbers

SAME_CRS_DISTANCE = 1000.0
"""Metres: two spellings or datums of one CRS place a point closer together than this, two UTM zones do not."""
CRS_FIELDS = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")


@lru_cache(maxsize=512)
def code_of(definition: str) -> str:
    """Return ``"EPSG:32720"`` or WKT2 of a CRS given as a code, WKT or PROJJSON; FieldError if PROJ can't read it.

    Cached, because PROJ takes milliseconds.
    """
    import pyproj
    from pyproj.exceptions import CRSError

    try:
        code = proj_code(pyproj.CRS.from_user_input(definition))
        pyproj.CRS.from_user_input(code)  # PROJ can't read the WKT that it writes for some PROJJSON
    except (CRSError, UnicodeError) as error:  # a lone surrogate is valid in JSON, but not in PROJ
        raise FieldError(f"the CRS {definition[:200]!r} can't be read: {str(error)[:200]}") from error
    return code


def crs_of(asset: JSON, properties: JSON) -> tuple[str | None, str]:
    """Return (code or WKT2, origin) of an asset's CRS, from the asset's fields, else the item's; (None, "") if there is none."""
    for level, fields in (("asset", asset), ("item", properties)):
        for field in CRS_FIELDS:
            value = fields.get(field)
            if value is None or value == "" or value == {}:
                continue
            return code_of(_definition(value, field)), f"{field} of the {level}"
    return None, ""


def _definition(value: object, field: str) -> str:
    if field == "proj:projjson" and isinstance(value, dict):
        try:
            return json.dumps(value, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise FieldError(f"proj:projjson can't be written as JSON: {error}") from error
    if field == "proj:epsg" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"EPSG:{value}"
    if isinstance(value, str):
        return f"EPSG:{value.strip()}" if value.strip().isdecimal() else value.strip()
    raise FieldError(f"{field} must be a CRS, got {value!r}")


GridFields: TypeAlias = tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[float, ...] | None]
"""(shape, transform, bbox); None if missing."""
NO_FIELDS: GridFields = (None, None, None)


@lru_cache(maxsize=4096)
def _pixel_grid(crs: str, transform: tuple[float, ...], shape: tuple[int, int]) -> PixelGrid:
    a, b, c, d, e, f = transform
    return PixelGrid(crs, (a, b, c, d, e, f), shape)


def grid_of(asset: JSON, shared: GridFields, crs: str) -> tuple[PixelGrid | None, str]:
    """Return (grid, origin) of an asset, or (None, reason) if fields are missing or contradict each other.

    ``proj:transform`` has 6 or 9 numbers. Shape and transform are fields of the asset, of the item (``shared``), or one of
    each. A missing transform is computed from ``proj:bbox`` and the shape. Raise FieldError if a field is malformed, or the
    transform is rotated or not north up.
    """
    fields = grid_fields(asset, "asset")
    shape, transform, bbox = (field if field is not None else default for field, default in zip(fields, shared, strict=True))
    if transform is not None:
        _check_transform(transform, "asset" if fields[1] is not None else "item")
    split = (fields[0] is None) != (fields[1] is None)
    if split and shared[0] is not None and shared[1] is not None and (shape, transform) != (shared[0], shared[1]):
        # The item's shape and transform belong together; they can't be mixed with the asset's.
        if fields[0] is None:
            return None, "proj:transform of the asset is not the item's, and the asset has no proj:shape"
        transform = None
    if shape is None or (transform is None and bbox is None):
        missing = [
            name for name, value in zip(("proj:shape", "proj:transform"), (shape, transform), strict=True) if value is None
        ]
        return None, f"no {' and no '.join(missing)} at the asset or the item"
    height, width = int(shape[0]), int(shape[1])
    level = "asset" if fields[0] is not None or fields[1] is not None else "item"
    if transform is None:
        left, bottom, right, top = _ordered(bbox)
        transform = ((right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top)
        origin = f"proj:bbox and proj:shape of the {level}"
    else:
        transform = transform[:6]
        origin = f"proj:transform and proj:shape of the {level}"
        # The bbox of the same level must agree within a pixel, because some publishers measure from pixel centres.
        level_bbox = fields[2] if level == "asset" else shared[2]
        if level_bbox is not None and not _agrees(transform, (height, width), _ordered(level_bbox)):
            return None, f"proj:transform and proj:shape of the {level} contradict its proj:bbox"
    try:
        return _pixel_grid(crs, transform, (height, width)), origin
    except ValueError as error:  # a box without height or width
        raise FieldError(f"{origin}: {error}") from error


def _check_transform(transform: tuple[float, ...], level: str) -> None:
    a, b, _, d, e, _, *rest = transform
    if b or d or a <= 0 or e >= 0 or rest not in ([], [0.0, 0.0, 1.0]):
        raise FieldError(
            f"proj:transform of the {level} is rotated, upside down or not an affine transform (a, b, c, d, e, f with a > 0, "
            f"e < 0 and b = d = 0, optionally followed by 0, 0, 1): {list(transform)}; warp the raster to a north-up grid first"
        )


def grid_fields(source: JSON, level: str) -> GridFields:
    """Read shape, transform and bbox of an asset or of an item's properties."""
    shape = numbers(source.get("proj:shape"), f"proj:shape of the {level}", (2,))
    if shape is not None and not all(length >= 1 and length.is_integer() for length in shape):
        raise FieldError(f"proj:shape of the {level} must be two whole numbers of at least 1, got {source['proj:shape']!r}")
    transform = numbers(source.get("proj:transform"), f"proj:transform of the {level}", (6, 9))
    bbox = numbers(source.get("proj:bbox"), f"proj:bbox of the {level}", (4, 6))
    return shape, transform, bbox


def _ordered(bbox: tuple[float, ...] | None) -> BBox:
    """Return (left, bottom, right, top), because some publishers swap bottom and top."""
    assert bbox is not None
    x0, y0, x1, y1 = (bbox[0], bbox[1], bbox[3], bbox[4]) if len(bbox) == 6 else bbox
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _agrees(transform: tuple[float, ...], shape: tuple[int, int], bbox: BBox) -> bool:
    a, _, c, _, e, f = transform
    left, bottom, right, top = bbox
    x = (abs(c - left), abs(c + a * shape[1] - right))
    y = (abs(f - top), abs(f + e * shape[0] - bottom))
    return max(x) <= abs(a) and max(y) <= abs(e)


def same_grid(file: PixelGrid, published: PixelGrid) -> bool:
    """Whether the pixel grid of a file is the published one.

    The CRSs may differ in spelling or datum, but must place the pixels within `SAME_CRS_DISTANCE`.
    """
    if file.crs != published.crs and _distance(file.crs, published.crs, file.bounds) > SAME_CRS_DISTANCE:
        return False
    renamed = PixelGrid(published.crs, file.transform, file.shape)
    return file.shape == published.shape and published.offset_of(renamed) == (0, 0)


@lru_cache(maxsize=1024)
def _distance(crs1: str, crs2: str, bounds: BBox) -> float:
    """Return the metres between the centre of ``bounds`` in two CRSs; NaN if a CRS can't place it on the Earth."""
    import pyproj

    left, bottom, right, top = bounds
    x, y = np.array([(left + right) / 2]), np.array([(bottom + top) / 2])
    try:
        points = [projection_of(crs).lonlat(x, y)[0].tolist() for crs in (crs1, crs2)]
    except ValueError:  # a CRS of another planet, or an engineering CRS
        return math.nan
    if not np.isfinite(points).all():
        return math.nan
    return float(pyproj.Geod(ellps="WGS84").inv(*points[0], *points[1])[2])


@lru_cache(maxsize=1024)
def covers(grid: PixelGrid, scene: PixelGrid) -> bool:
    """Whether two grids in one CRS cover the same ground: their intersection is at least half of their union."""
    if grid.crs != scene.crs:
        return False
    width, height = shared_extent(grid, scene)
    if width <= 0 or height <= 0:
        return False
    # Areas in units of the intersection can't overflow.
    parts = [(right - left) / width * ((top - bottom) / height) for left, bottom, right, top in (grid.bounds, scene.bounds)]
    return sum(parts) - 1 <= 2


def shared_extent(grid1: PixelGrid, grid2: PixelGrid) -> tuple[float, float]:
    """Return (width, height) of the intersection of two grids in one CRS; one is at most 0 if they don't overlap."""
    left1, bottom1, right1, top1 = grid1.bounds
    left2, bottom2, right2, top2 = grid2.bounds
    return min(right1, right2) - max(left1, left2), min(top1, top2) - max(bottom1, bottom2)
