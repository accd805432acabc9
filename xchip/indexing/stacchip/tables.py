"""stacchip's tables in the columns of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.core.reduce import FRACTIONS
from xchip.indexing.rows import COLUMNS, EDGES, INTEGERS, STRINGS

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED = ("chipid", "date", "chip_index_x", "chip_index_y", "cloud_cover_percentage", "nodata_percentage", "geometry")
"""What each of stacchip's tables has."""
MERGED = ("platform", "item_id", "item")
"""What only merged ones have; stacchip's prechip asks for ``item_id``."""
OWN = frozenset((*NEEDED, *MERGED))
PLATFORMS = {"modis": "modis-09a1"}
"""stacchip's own names of platforms that are no collection's, with the profile's."""

_IN_BUCKET = re.compile(r"(?P<root>.+)/index/(?P<platform>[^/]+)/(?P<item>[^/]+)/index_(?P=item)\.parquet")
"""Where stacchip's processors put the table of an item."""


def is_stacchip(names: Iterable[str]) -> bool:
    """Whether a table of these columns is one of stacchip's."""
    return set(NEEDED) <= set(names)


def as_index(table: pa.Table, path: str, chip_size: int, items_root: str | None = None) -> pa.Table:
    """A table of stacchip's in the columns of the index.

    What it doesn't tell is null or NaN. Its share of cloud, shadow and defective pixels is of all pixels: ``cloud_fraction``
    is that share of the valid ones. Chips are taken as squares of ``chip_size`` pixels. Item and platform are in the path where
    they are in no column; there, as in stacchip's buckets, the item's JSON is ``<root>/<platform>/<item>/stac_item.json``. Of
    other tables it is below ``items_root``, if that is given.

    Raises
    ------
    ValueError
        If neither a column, nor the chip ids, nor the path tell the item; or the platform, where items are below ``items_root``.
    """
    import pyarrow as pa

    n = len(table)
    place = _IN_BUCKET.fullmatch(path)
    x, y = (_numbers(table[name], np.int32) for name in ("chip_index_x", "chip_index_y"))
    nodata = _numbers(table["nodata_percentage"], np.float64)
    cloudy = _numbers(table["cloud_cover_percentage"], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        cloud = np.where(nodata < 1, np.clip(cloudy / (1 - nodata), 0, 1), np.nan)
    items = _items(table, place["item"] if place else None, path)
    platforms = _platforms(table, place["platform"] if place else None)
    root = items_root if items_root is not None else place["root"] if place else None
    nothing = pa.nulls(n, pa.large_string())
    columns: dict[str, Any] = dict.fromkeys((*STRINGS, "proj_code"), nothing)
    columns |= dict.fromkeys((*EDGES, *FRACTIONS), np.full(n, np.nan))
    columns |= {
        "chip_id": table["chipid"],
        "item_id": items,
        "item_href": nothing if root is None else _hrefs(root, platforms, items, path),
        "sensor": _sensors(platforms),
        "datetime": table["date"].cast(pa.timestamp("us")),
        **dict(zip(INTEGERS, (x, y, x * chip_size, y * chip_size, *np.full((2, n), chip_size, np.int32)), strict=True)),
        "nodata_fraction": nodata,
        "cloud_fraction": cloud,
        "geometry": table["geometry"],
    }
    extra = {name: table[name] for name in table.column_names if name not in OWN and name not in COLUMNS}
    return pa.table({name: columns[name] for name in COLUMNS} | extra)


def _numbers(column: pa.ChunkedArray, dtype: Any) -> np.ndarray:
    return column.to_numpy().astype(dtype)


def _items(table: pa.Table, folder: str | None, path: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in ("item_id", "item"):
        if name in table.column_names:
            return table[name].cast(pa.large_string())
    chips = table["chipid"].cast(pa.large_string())
    items = pc.replace_substring_regex(chips, r"-\d+-\d+$", "")
    position = [table[name].cast(pa.large_string()) for name in ("chip_index_x", "chip_index_y")]
    rejoined = pc.binary_join_element_wise(items, *position, pa.scalar("-", pa.large_string()))
    if pc.all(pc.equal(rejoined, chips)).as_py() is not False:
        return items
    if folder is None:
        raise ValueError(
            f"{path!r} does not tell its items: it has no column 'item_id', its chipid is not '<item>-<x>-<y>', "
            "and it does not lie in index/<platform>/<item>/; add the column"
        )
    return pa.chunked_array([pa.repeat(pa.scalar(folder, pa.large_string()), len(table))])


def _platforms(table: pa.Table, folder: str | None) -> pa.DictionaryArray:
    """stacchip's name of each row's platform; null where nothing tells it."""
    import pyarrow as pa

    if "platform" in table.column_names:
        return table["platform"].cast(pa.large_string()).combine_chunks().dictionary_encode()
    return pa.repeat(pa.scalar(folder, pa.large_string()), len(table)).dictionary_encode()


def _hrefs(root: str, platforms: pa.DictionaryArray, items: pa.ChunkedArray, path: str) -> pa.ChunkedArray:
    """Where stacchip's processors put the items."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if platforms.null_count:
        raise ValueError(
            f"{path!r} does not tell the platform of all its items, so they can't be found below {root!r} (<platform>/<item>/"
            "stac_item.json): it has no column 'platform', or one with nulls, and does not lie in index/<platform>/<item>/"
        )
    names = platforms.dictionary.take(platforms.indices)
    ends = (pa.scalar(end, pa.large_string()) for end in (root.rstrip("/"), "stac_item.json", "/"))
    first, last, slash = ends
    return pc.binary_join_element_wise(first, names, pc.cast(items, pa.large_string()), last, slash)


def _sensors(platforms: pa.DictionaryArray) -> pa.Array:
    import pyarrow as pa

    names = pa.array([_sensor(platform) for platform in platforms.dictionary.to_pylist()], pa.large_string())
    return names.take(platforms.indices)


@lru_cache(maxsize=1024)
def _sensor(platform: str | None) -> str | None:
    """The profile that stacchip's platform, mostly the name of a collection, stands for."""
    from xchip import sensors

    wanted = (platform or "").lower()
    wanted = PLATFORMS.get(wanted, wanted)
    profiles = map(sensors.find, sensors.names())
    return next((profile.name for profile in profiles if wanted == profile.name or wanted in profile.collections), None)
