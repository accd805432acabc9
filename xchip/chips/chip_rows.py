"""Rows of an index as plain columns: what finds the pixels of chips, and what becomes coordinates."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.chips.extract import CHIP_COORDS
from xchip.core.types import IndexLike
from xchip.indexing.rows import SERIES, frame_of

if TYPE_CHECKING:
    import pandas as pd

    from xchip.io.storage import StorageOptions

COORDS = (*CHIP_COORDS, "collection", "chip_index_x", "chip_index_y", *SERIES)
"""Columns of the index that become coordinates of chips; the last ones are those of a series."""

_NEEDED = ("chip_id", "item_id", "width", "height", "col_off", "row_off", "proj_code", "proj_left", "proj_top")
_ITEM = ("item_id", "collection", "item_href", "sensor", "proj_code")


@dataclass(frozen=True, slots=True)
class ItemRef:
    """An item as the index names it."""

    item_id: str
    collection: str | None
    href: str | None
    """Where its JSON is."""
    sensor: str | None
    """Name of its profile."""
    crs: str | None
    """``proj_code`` of its chips; None in stacchip's tables, where edges are NaN too."""

    @property
    def kind(self) -> tuple[str | None, str | None]:
        """(collection, sensor): items of one kind have the same bands."""
        return self.collection, self.sensor


@dataclass(frozen=True, eq=False)
class ChipRows:
    """What finds the pixels of n chips. Arrays have one value a chip; it is small and pickles, for it travels to the workers."""

    items: tuple[ItemRef, ...]
    """The items that chips lie in."""
    item: np.ndarray
    """int32: which of ``items``."""
    left: np.ndarray
    """float64: the chip's left edge in the item's CRS. Edges say where a chip is; only without them offsets do."""
    top: np.ndarray
    """float64: its upper edge."""
    col_off: np.ndarray
    """int32: the first column on the scene's grid. Offsets say which chips are neighbours, before any item is known."""
    row_off: np.ndarray
    """int32: the first row."""
    width: np.ndarray
    """int32, pixels."""
    height: np.ndarray
    """int32, pixels."""

    def __len__(self) -> int:
        return len(self.item)

    def take(self, positions: Any) -> ChipRows:
        """The rows at ``positions`` (integers, or a slice), with the items that these have."""
        used, item = np.unique(self.item[positions], return_inverse=True)
        arrays = (array[positions] for array in (self.left, self.top, self.col_off, self.row_off, self.width, self.height))
        return ChipRows(tuple(self.items[number] for number in used.tolist()), item.astype(np.int32), *arrays)

    @property
    def digest(self) -> str:
        """Tells these chips, in this order, from others; wherever their items' JSON is."""
        found = hashlib.blake2b(json.dumps([(ref.item_id, ref.collection) for ref in self.items]).encode(), digest_size=8)
        for array in (self.item, self.left, self.top, self.col_off, self.row_off, self.width, self.height):
            found.update(array.tobytes())
        return found.hexdigest()

    def size(self, pad: bool) -> tuple[int, int]:
        """(height, width) of all chips.

        Raises
        ------
        ValueError
            If they differ and ``pad`` is False.
        """
        if not len(self):
            return 0, 0
        height, width = int(self.height.max()), int(self.width.max())
        if not pad and (self.height.min() < height or self.width.min() < width):
            sizes = np.unique(np.stack([self.height, self.width], axis=1), axis=0).tolist()
            raise ValueError(
                f"the rows have chips of several sizes (height, width): {[tuple(size) for size in sizes[:5]]}; pass pad=True to "
                "pad them to the largest"
            )
        return height, width


def read_rows(index: IndexLike, storage: StorageOptions) -> tuple[ChipRows, dict[str, np.ndarray], np.ndarray | None]:
    """Return (rows, coordinates by name, nodata fractions if there are any) of an index.

    Raises
    ------
    ValueError
        If it lacks columns that an index has.
    """
    frame = _frame(index, storage)
    missing = [name for name in _NEEDED if name not in frame]
    if missing:
        raise ValueError(f"rows must be rows of an index; the columns {missing} are missing")
    items, item = _items(frame)
    integers = (frame[name].to_numpy(np.int32) for name in ("col_off", "row_off", "width", "height"))
    rows = ChipRows(items, item, frame["proj_left"].to_numpy(np.float64), frame["proj_top"].to_numpy(np.float64), *integers)
    nodata = frame["nodata_fraction"].to_numpy(np.float64, na_value=np.nan) if "nodata_fraction" in frame else None
    return rows, {name: _plain(frame[name]) for name in COORDS if name in frame}, nodata


def _frame(index: Any, storage: StorageOptions) -> pd.DataFrame:
    """The rows without their outlines, which take long to parse and are not needed here."""
    if isinstance(index, (str, os.PathLike, list, tuple)):
        from xchip.indexing.opening.read import read_index

        index = read_index(index, storage=storage)
    wanted = (*_NEEDED, *_ITEM, *COORDS, "nodata_fraction")
    if hasattr(index, "column_names"):  # a pyarrow Table
        return index.select([name for name in index.column_names if name in wanted]).to_pandas()
    return frame_of(index[[name for name in index.columns if name in wanted]])


def _items(frame: pd.DataFrame) -> tuple[tuple[ItemRef, ...], np.ndarray]:
    """(items, which of them each row is of)."""
    import pandas as pd

    code = np.zeros(len(frame), np.int64)
    for name in _ITEM:
        if name in frame:
            own, values = pd.factorize(frame[name])
            # Codes are made dense again each time, so that their product can't overflow.
            code = np.unique(code * (len(values) + 1) + own + 1, return_inverse=True)[1]
    _, first, item = np.unique(code, return_index=True, return_inverse=True)
    columns = [_texts(frame[name].iloc[first]) if name in frame else [None] * len(first) for name in _ITEM]
    return tuple(ItemRef(str(item_id), *rest) for item_id, *rest in zip(*columns, strict=True)), item.astype(np.int32)


def _texts(column: pd.Series) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column.tolist()]


def _plain(column: pd.Series) -> np.ndarray:
    """A column as xarray takes it: dates in UTC without a zone, text as objects, "" for a missing collection."""
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    if isinstance(column.dtype, (pd.StringDtype, pd.ArrowDtype, pd.CategoricalDtype)) or column.dtype == object:
        return column.astype(object).where(column.notna(), "").to_numpy(dtype=object)
    return column.to_numpy()


def coordinates(coords: Mapping[str, np.ndarray], positions: Any) -> dict[str, tuple[str, np.ndarray]]:
    """Coordinates of the chips at ``positions``, as xarray takes them."""
    return {name: ("chip", values[positions]) for name, values in coords.items()}
