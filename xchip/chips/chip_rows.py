"""Convert rows of an index to plain columns: those that locate chips, and coordinates."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from xchip.core.types import IndexLike
from xchip.indexing.rows import SERIES, frame_of

if TYPE_CHECKING:
    import pandas as pd

    from xchip.io.storage import StorageOptions

CHIP_COORDS = ("chip_id", "item_id", "datetime", "proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top")
"""Columns of the index that become coordinates of extracted chips."""
COORDS = (*CHIP_COORDS, "collection", "chip_index_x", "chip_index_y", *SERIES)
"""Columns of the index that become coordinates of chips; the columns of a series come last."""

Positions: TypeAlias = "slice | Sequence[int] | np.ndarray"
"""Positions of rows."""

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
    """Item and window of n chips. Arrays have one value per chip. It is small and pickles, because it is sent to workers."""

    items: tuple[ItemRef, ...]
    """The items that chips lie in."""
    item: np.ndarray
    """int32: index into ``items``."""
    left: np.ndarray
    """float64: left edge of the chip in the item's CRS. Edges locate a chip; offsets do only if edges are missing."""
    top: np.ndarray
    """float64: upper edge of the chip."""
    col_off: np.ndarray
    """int32: first column on the scene's grid. Offsets identify neighbouring chips before any item is read."""
    row_off: np.ndarray
    """int32: first row."""
    width: np.ndarray
    """int32, pixels."""
    height: np.ndarray
    """int32, pixels."""

    def __len__(self) -> int:
        return len(self.item)

    def take(self, positions: Positions) -> ChipRows:
        """Return the rows at ``positions`` (integers or booleans, or a slice), with their items only."""
        used, item = np.unique(self.item[positions], return_inverse=True)
        arrays = (array[positions] for array in (self.left, self.top, self.col_off, self.row_off, self.width, self.height))
        return ChipRows(tuple(self.items[number] for number in used.tolist()), item.astype(np.int32), *arrays)

    @property
    def digest(self) -> str:
        """Hash of the chips in their order. It does not depend on where the JSON of the items is."""
        digest = hashlib.blake2b(json.dumps([(ref.item_id, ref.collection) for ref in self.items]).encode(), digest_size=8)
        for array in (self.item, self.left, self.top, self.col_off, self.row_off, self.width, self.height):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def size(self, pad: bool) -> tuple[int, int]:
        """Return (height, width) of all chips.

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
        raise ValueError(f"rows must be rows of an index, but the columns {missing} are missing")
    items, item = _items(frame)
    integers = (frame[name].to_numpy(np.int32) for name in ("col_off", "row_off", "width", "height"))
    rows = ChipRows(items, item, frame["proj_left"].to_numpy(np.float64), frame["proj_top"].to_numpy(np.float64), *integers)
    nodata = frame["nodata_fraction"].to_numpy(np.float64, na_value=np.nan) if "nodata_fraction" in frame else None
    return rows, {name: _plain(frame[name]) for name in COORDS if name in frame}, nodata


def _frame(index: Any, storage: StorageOptions) -> pd.DataFrame:
    """Return the rows without geometry, which is slow to parse and not needed."""
    if isinstance(index, (str, os.PathLike, list, tuple)):
        from xchip.indexing.opening.read import read_index

        index = read_index(index, storage=storage)
    wanted = (*_NEEDED, *_ITEM, *COORDS, "nodata_fraction")
    if hasattr(index, "column_names"):  # a pyarrow Table
        return index.select([name for name in index.column_names if name in wanted]).to_pandas()
    return frame_of(index[[name for name in index.columns if name in wanted]])


def _items(frame: pd.DataFrame) -> tuple[tuple[ItemRef, ...], np.ndarray]:
    """Return (items, index of the item of each row)."""
    import pandas as pd

    code = np.zeros(len(frame), np.int64)
    for name in _ITEM:
        if name in frame:
            column, values = pd.factorize(frame[name])
            # Renumber the codes after each column, so that their product can't overflow.
            code = np.unique(code * (len(values) + 1) + column + 1, return_inverse=True)[1]
    _, first, item = np.unique(code, return_index=True, return_inverse=True)
    columns = [_texts(frame[name].iloc[first]) if name in frame else [None] * len(first) for name in _ITEM]
    return tuple(ItemRef(str(item_id), *rest) for item_id, *rest in zip(*columns, strict=True)), item.astype(np.int32)


def _texts(column: pd.Series) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column.tolist()]


def _plain(column: pd.Series) -> np.ndarray:
    """Return a column as xarray needs it: dates in UTC without a zone, text as objects, "" for missing text."""
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    if isinstance(column.dtype, (pd.StringDtype, pd.ArrowDtype, pd.CategoricalDtype)) or column.dtype == object:
        return column.astype(object).where(column.notna(), "").to_numpy(dtype=object)
    return column.to_numpy()


def coordinates(
    coords: Mapping[str, np.ndarray], positions: slice | Sequence[int] | np.ndarray
) -> dict[str, tuple[str, np.ndarray]]:
    """Return coordinates of the chips at ``positions``, in the form of xarray."""
    return {name: ("chip", values[positions]) for name, values in coords.items()}
