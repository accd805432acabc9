"""The CRS and pixel grid that an item publishes, from ``proj:*`` of STAC 0.7 to 1.1, at asset or item level."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from xchip.core.grid import PixelGrid, proj_code
from xchip.core.lonlat import projection_of
from xchip.stac.fields import FieldError, numbers

NEAR = 1000.0
"""Metres: datums and spellings of one CRS lie closer together, zones of UTM do not."""
CRS_FIELDS = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")


@lru_cache(maxsize=512)
def code_of(definition: str) -> str:
    """``"EPSG:32720"`` or WKT2 of any CRS that PROJ reads: a code, WKT or PROJJSON. Cached: PROJ takes milliseconds.

    Raises
    ------
    FieldError
        If PROJ can't read it.
    """
    import pyproj
    from pyproj.exceptions import CRSError

    try:
        code = proj_code(pyproj.CRS.from_user_input(definition))
        pyproj.CRS.from_user_input(code)  # PROJJSON may hold what PROJ writes as WKT that it can't read
    except (CRSError, UnicodeError) as error:  # half of a surrogate pair is text in JSON, but not for PROJ
        raise FieldError(f"the CRS {definition[:200]!r} can't be read: {str(error)[:200]}") from error
    return code


def crs_of(asset: Mapping[str, Any], properties: Mapping[str, Any]) -> tuple[str | None, str]:
    """(code or WKT2, where it was found) of an asset; its own fields go before the item's. None where there is none."""
    for level, fields in (("asset", asset), ("item", properties)):
        for field in CRS_FIELDS:
            value = fields.get(field)
            if value is None or value == "" or value == {}:
                continue
            return code_of(_definition(value, field)), f"{field} of the {level}"
    return None, ""


def _definition(value: Any, field: str) -> str:
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


GridFields = tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[float, ...] | None]
NO_FIELDS: GridFields = (None, None, None)


@lru_cache(maxsize=4096)
def _pixel_grid(crs: str, transform: tuple[float, ...], shape: tuple[int, int]) -> PixelGrid:
    a, b, c, d, e, f = transform
    return PixelGrid(crs, (a, b, c, d, e, f), shape)


def grid_of(asset: Mapping[str, Any], shared: GridFields, crs: str) -> tuple[PixelGrid | None, str]:
    """(grid, where it was found) of an asset; (None, why not) where the fields are missing or contradict each other.

    ``proj:transform`` has 6 or 9 numbers. Shape and transform may sit on the asset, on the item (``shared``), or be split; a
    missing transform follows from ``proj:bbox`` and the shape.

    Raises
    ------
    FieldError
        If a field is malformed, or the transform is rotated or not north up.
    """
    own = grid_fields(asset, "asset")
    shape, transform, bbox = (mine if mine is not None else theirs for mine, theirs in zip(own, shared, strict=True))
    if transform is not None:
        _check_transform(transform, "asset" if own[1] is not None else "item")
    split = (own[0] is None) != (own[1] is None)
    if split and shared[0] is not None and shared[1] is not None and (shape, transform) != (shared[0], shared[1]):
        # The item's own shape and transform belong together: half of them can't be the asset's.
        if own[0] is None:
            return None, "proj:transform of the asset is not the item's, and the asset has no proj:shape"
        transform = None
    if shape is None or (transform is None and bbox is None):
        missing = [
            name for name, value in zip(("proj:shape", "proj:transform"), (shape, transform), strict=True) if value is None
        ]
        return None, f"no {' and no '.join(missing)} at the asset or the item"
    height, width = int(shape[0]), int(shape[1])
    level = "asset" if own[0] is not None or own[1] is not None else "item"
    if transform is None:
        left, bottom, right, top = _ordered(bbox)
        transform = ((right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top)
        origin = f"proj:bbox and proj:shape of the {level}"
    else:
        transform = transform[:6]
        origin = f"proj:transform and proj:shape of the {level}"
        # A bounding box of the same level must agree within a pixel (some count from pixel centres).
        near = own[2] if level == "asset" else shared[2]
        if near is not None and not _agrees(transform, (height, width), _ordered(near)):
            return None, f"proj:transform and proj:shape of the {level} contradict its proj:bbox"
    try:
        return _pixel_grid(crs, transform, (height, width)), origin
    except ValueError as error:  # a box without height or width
        raise FieldError(f"{origin}: {error}") from error


def _check_transform(transform: tuple[float, ...], level: str) -> None:
    a, b, _, d, e, _, *rest = transform
    if b or d or a <= 0 or e >= 0 or rest not in ([], [0.0, 0.0, 1.0]):
        raise FieldError(
            f"proj:transform of the {level} is rotated, upside down or no affine transform (a, b, c, d, e, f with a > 0, e < 0 "
            f"and b = d = 0 is needed, and 0, 0, 1 after it): {list(transform)}; warp the raster to a north-up grid first"
        )


def grid_fields(source: Mapping[str, Any], level: str) -> GridFields:
    """(shape, transform, bbox) of an asset or an item's properties; None for each that is missing."""
    shape = numbers(source.get("proj:shape"), f"proj:shape of the {level}", (2,))
    if shape is not None and not all(length >= 1 and length.is_integer() for length in shape):
        raise FieldError(f"proj:shape of the {level} must be two whole numbers of at least 1, got {source['proj:shape']!r}")
    transform = numbers(source.get("proj:transform"), f"proj:transform of the {level}", (6, 9))
    bbox = numbers(source.get("proj:bbox"), f"proj:bbox of the {level}", (4, 6))
    return shape, transform, bbox


def _ordered(bbox: tuple[float, ...] | None) -> tuple[float, float, float, float]:
    """(left, bottom, right, top); some publishers exchange bottom and top."""
    assert bbox is not None
    x0, y0, x1, y1 = (bbox[0], bbox[1], bbox[3], bbox[4]) if len(bbox) == 6 else bbox
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _agrees(transform: tuple[float, ...], shape: tuple[int, int], bbox: tuple[float, float, float, float]) -> bool:
    a, _, c, _, e, f = transform
    left, bottom, right, top = bbox
    x = (abs(c - left), abs(c + a * shape[1] - right))
    y = (abs(f - top), abs(f + e * shape[0] - bottom))
    return max(x) <= abs(a) and max(y) <= abs(e)


def same_grid(file: PixelGrid, published: PixelGrid) -> bool:
    """Whether a file's own pixels are those that its item publishes.

    The CRS may be written in another way, or have a datum near by, but not put the pixels elsewhere on the Earth.
    """
    if file.crs != published.crs and _apart(file.crs, published.crs, file.bounds) > NEAR:
        return False
    relation = PixelGrid(published.crs, file.transform, file.shape)
    return file.shape == published.shape and published.offset_of(relation) == (0, 0)


@lru_cache(maxsize=1024)
def _apart(crs: str, other: str, bounds: tuple[float, float, float, float]) -> float:
    """Metres between the places that the centre of ``bounds`` has in two CRSs; NaN where one of them has no such place."""
    import pyproj

    left, bottom, right, top = bounds
    x, y = np.array([(left + right) / 2]), np.array([(bottom + top) / 2])
    try:
        places = [projection_of(one).lonlat(x, y)[0].tolist() for one in (crs, other)]
    except ValueError:  # of another planet, or of a place that nobody knows
        return math.nan
    if not np.isfinite(places).all():
        return math.nan
    return float(pyproj.Geod(ellps="WGS84").inv(*places[0], *places[1])[2])


@lru_cache(maxsize=1024)
def covers(grid: PixelGrid, scene: PixelGrid) -> bool:
    """Whether two grids in one CRS show the same ground: they share at least half of what they cover together."""
    if grid.crs != scene.crs:
        return False
    width, height = shared_extent(grid, scene)
    if width <= 0 or height <= 0:
        return False
    # Areas as parts of the shared one, which can't overflow.
    parts = [(right - left) / width * ((top - bottom) / height) for left, bottom, right, top in (grid.bounds, scene.bounds)]
    return sum(parts) - 1 <= 2


def shared_extent(one: PixelGrid, other: PixelGrid) -> tuple[float, float]:
    """(width, height) of what two grids in one CRS both cover; neither is above 0 where they do not meet."""
    left, bottom, right, top = one.bounds
    left2, bottom2, right2, top2 = other.bounds
    return min(right, right2) - max(left, left2), min(top, top2) - max(bottom, bottom2)
