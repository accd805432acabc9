"""Items in the form of the published ones, with small rasters in place of theirs, for recipes to find."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
from rasterio.transform import Affine

SIZE = 300
"""Pixels of the coarsest band, both ways."""
_OLD = (
    "start_datetime",
    "end_datetime",
    "proj:shape",
    "proj:transform",
    "proj:bbox",
    "proj:centroid",
    "proj:geometry",
    "proj:wkt2",
    "proj:projjson",
    "proj:code",
)


def template(real_data: Path, name: str) -> dict[str, Any]:
    """A published item; the first, where there are several."""
    value = json.loads((real_data / "items" / f"{name}.json").read_text())
    found: dict[str, Any] = value["features"][0] if "features" in value else value
    return found


def write_band(path: Path, values: np.ndarray, resolution: float, *, epsg: int = 32629, nodata: float | None = None) -> None:
    """A GeoTIFF of one band."""
    place = Affine(resolution, 0, 199_980, 0, -resolution, 2_800_020)
    profile = {"crs": f"EPSG:{epsg}", "transform": place, "nodata": nodata, "dtype": values.dtype, "compress": "deflate"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=len(values), width=values.shape[1], tiled=True, blockxsize=256, blockysize=256,
        **profile,
    ) as file:  # fmt: skip
        file.write(values, 1)


def published(
    like: Mapping[str, Any], item_id: str, datetime: str, files: Mapping[str, Path], root: str, **properties: Any
) -> dict[str, Any]:
    """An item like another, of another day, whose assets ``files`` lie below ``root``; the others stay as they were published."""
    item: dict[str, Any] = json.loads(json.dumps(like))
    item |= {"id": item_id, "links": []}
    item["properties"] = {name: value for name, value in item["properties"].items() if name not in _OLD}
    item["properties"] |= {"datetime": datetime, "proj:epsg": 32629, **properties}
    for key, path in files.items():
        asset = item["assets"][key]
        with rasterio.open(path) as file:
            asset |= {"proj:shape": list(file.shape), "proj:transform": list(file.transform)[:6]}
        for holder in (asset, *asset.get("alternate", {}).values()):
            if not holder["href"].startswith("https://landsatlook."):
                holder["href"] = f"{root}/{path.name}"
    return item


def write_layer(path: Path, shapes: Iterable[Any], names: Iterable[str] | None = None, **columns: Any) -> Path:
    """A layer of shapes in longitude and latitude, with a column ``name``."""
    found = list(shapes)
    columns = ({} if names is None else {"name": list(names)}) | columns
    geopandas.GeoDataFrame(columns, geometry=found, crs="EPSG:4326").to_file(path)
    return path


def tile_of(item: Mapping[str, Any]) -> Any:
    """A shape well inside an item's."""
    return shapely.from_geojson(json.dumps(item["geometry"])).centroid.buffer(0.1)
