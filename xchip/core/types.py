"""Types of the parameters that many public functions share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    import pystac
    from pystac_client import ItemSearch

PathLike: TypeAlias = str | os.PathLike[str]
"""A local path or a URL."""

BBox: TypeAlias = tuple[float, float, float, float]
"""(left, bottom, right, top): (west, south, east, north) in degrees, unless a CRS is named."""

Assets: TypeAlias = str | Iterable[str] | None
"""One or more asset keys, common names or band names; None selects the sensor's default bands."""

JSON: TypeAlias = Mapping[str, Any]
"""A JSON object."""

Item: TypeAlias = "pystac.Item | JSON | PathLike"
"""A STAC item: a pystac Item, its JSON, or where the JSON is."""

Items: TypeAlias = "Item | pystac.ItemCollection | ItemSearch | Iterable[Item]"
"""STAC items, one or many: pystac Items, an ItemCollection, an ItemSearch, JSON objects, paths or URLs."""

Frame: TypeAlias = "pd.DataFrame | geopandas.GeoDataFrame | dask_geopandas.GeoDataFrame | pa.Table"
"""An index as a table in memory, or as a lazy dask-geopandas frame."""

IndexLike: TypeAlias = "PathLike | Sequence[PathLike] | Frame"
"""An index: a file, a folder, an archive, a URL, a list of these, or a table."""

Filters: TypeAlias = "Sequence[tuple[str, str, Any]] | Sequence[Sequence[tuple[str, str, Any]]] | pc.Expression"
"""Conditions on columns: a list of terms that all hold, a list of such lists of which any holds, or a pyarrow expression."""
