"""stacchip's tables in the columns of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.index import COLUMNS, EDGES, INTEGERS, STRINGS
from xchip.stats import FRACTIONS

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED = ("chipid", "date", "chip_index_x", "chip_index_y", "cloud_cover_percentage", "nodata_percentage", "geometry")
"""What each of stacchip's tables has; ``platform`` and ``item`` are only in merged ones."""
OWN = frozenset((*NEEDED, "platform", "item"))

_IN_BUCKET = re.compile(r"(?P<root>.+)/index/(?P<platform>[^/]+)/(?P<item>[^/]+)/index_(?P=item)\.parquet")
"""Where stacchip's processors put the table of an item."""


def is_stacchip(names: Iterable[str]) -> bool:
    """Whether a table of these columns is one of stacchip's."""
    return set(NEEDED) <= set(names)


def as_index(table: pa.Table, path: str, chip_size: int) -> pa.Table:
    """A table of stacchip's in the columns of the index.

    What it doesn't tell is null or NaN. Its share of cloud, shadow and defective pixels is of all pixels: ``cloud_fraction``
    is that share of the valid ones. Chips are taken as squares of ``chip_size`` pixels. Item and platform are in the path where
    they are in no column; there, as in stacchip's buckets, the item's JSON is ``<root>/<platform>/<item>/stac_item.json``.

    Raises
    ------
    ValueError
        If neither a column, nor the chip ids, nor the path tell the item.
    """
    import pyarrow as pa

    n = len(table)
    place = _IN_BUCKET.fullmatch(path)
    x, y = (_numbers(table[name], np.int32) for name in ("chip_index_x", "chip_index_y"))
    nodata = _numbers(table["nodata_percentage"], np.float64)
    cloudy = _numbers(table["cloud_cover_percentage"], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        cloud = np.where(nodata < 1, np.clip(cloudy / (1 - nodata), 0, 1), np.nan)
    href = f"{place['root']}/{place['platform']}/{place['item']}/stac_item.json" if place else None
    nothing = pa.nulls(n, pa.large_string())
    columns: dict[str, Any] = dict.fromkeys((*STRINGS, "proj_code"), nothing)
    columns |= dict.fromkeys((*EDGES, *FRACTIONS), np.full(n, np.nan))
    columns |= {
        "chip_id": table["chipid"],
        "item_id": _items(table, place["item"] if place else None, path),
        "item_href": pa.repeat(pa.scalar(href, pa.large_string()), n),
        "sensor": _sensors(table, place["platform"] if place else None),
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

    if "item" in table.column_names:
        return table["item"].cast(pa.large_string())
    chips = table["chipid"].cast(pa.large_string())
    items = pc.replace_substring_regex(chips, r"-\d+-\d+$", "")
    position = [table[name].cast(pa.large_string()) for name in ("chip_index_x", "chip_index_y")]
    rejoined = pc.binary_join_element_wise(items, *position, pa.scalar("-", pa.large_string()))
    if pc.all(pc.equal(rejoined, chips)).as_py() is not False:
        return items
    if folder is None:
        raise ValueError(
            f"{path!r} does not tell its items: it has no column 'item', its chipid is not '<item>-<x>-<y>', "
            "and it does not lie in index/<platform>/<item>/; add the column"
        )
    return pa.chunked_array([pa.repeat(pa.scalar(folder, pa.large_string()), len(table))])


def _sensors(table: pa.Table, folder: str | None) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa

    if "platform" not in table.column_names:
        return pa.repeat(pa.scalar(_sensor(folder), pa.large_string()), len(table))
    platforms = table["platform"].cast(pa.large_string()).combine_chunks().dictionary_encode()
    names = pa.array([_sensor(platform) for platform in platforms.dictionary.to_pylist()], pa.large_string())
    return names.take(platforms.indices)


@lru_cache(maxsize=1024)
def _sensor(platform: str | None) -> str | None:
    """The profile that stacchip's platform, the name of a collection, stands for."""
    from xchip import sensors

    wanted = (platform or "").lower()
    profiles = map(sensors.find, sensors.names())
    return next((profile.name for profile in profiles if wanted == profile.name or wanted in profile.collections), None)
