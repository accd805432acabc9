"""Small STAC items and headers that the tests on items share."""

from __future__ import annotations

from typing import Any

import pytest

from xchip.core.grid import PixelGrid
from xchip.core.scene import Header
from xchip.stac.scene.understand import ItemError, understand

TRANSFORM = [10, 0, 500000, 0, -10, 5000000]
UTM = {"proj:code": "EPSG:32633", "proj:shape": [100, 200], "proj:transform": TRANSFORM}
GRID = PixelGrid("EPSG:32633", (10, 0, 500000, 0, -10, 5000000), (100, 200))


def make_item(assets: Any, *, properties: Any = None, **fields: Any) -> dict[str, Any]:
    """A small STAC 1.1 item on one UTM grid."""
    known = {"datetime": "2024-05-06T07:08:09Z", **UTM} if properties is None else properties
    item = {"type": "Feature", "stac_version": "1.1.0", "id": "item-1", "properties": known, "assets": assets, "links": []}
    return {**item, **fields}


def tif(name: str = "a", **fields: Any) -> dict[str, Any]:
    """An asset that is a GeoTIFF of one uint16 band."""
    return {"href": f"s3://bucket/{name}.tif", "type": "image/tiff; application=geotiff", "data_type": "uint16", **fields}


def pixels(resolution: float) -> dict[str, Any]:
    """proj fields of an asset that covers the item's ground with other pixels."""
    shape = [round(1000 / resolution), round(2000 / resolution)]
    return {"proj:shape": shape, "proj:transform": [resolution, 0, 500000, 0, -resolution, 5000000]}


def named(*names: str) -> dict[str, Any]:
    """eo:bands of these names."""
    return {"eo:bands": [{"name": name} for name in names]}


def header_of(grid: PixelGrid = GRID, dtype: str = "uint8", count: int = 1, **fields: Any) -> Header:
    """A header as a reader gives it."""
    known = {"nodata": (None,) * count, "block": (256, 256), "masked": False, **fields}
    return Header(grid=grid, dtypes=(dtype,) * count, **known)


def message(item: Any, **options: Any) -> str:
    """What `understand` says when it refuses ``item``; it must begin with the item's id."""
    with pytest.raises(ItemError) as caught:
        understand(item, **options)
    assert str(caught.value).startswith(f"item {item.get('id')!r}: ")
    return str(caught.value)
