"""Fill in the dates, CRS and edges of chips that rows of stacchip's tables lack."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from xchip.core.scene import Scene

ItemRef = TypeVar("ItemRef")
ItemRef_co = TypeVar("ItemRef_co", covariant=True)


class Windows(Protocol[ItemRef_co]):
    """Windows of chips on their items' grids: an item and four arrays, in pixels."""

    @property
    def items(self) -> Sequence[ItemRef_co]: ...
    @property
    def item(self) -> np.ndarray: ...
    @property
    def col_off(self) -> np.ndarray: ...
    @property
    def row_off(self) -> np.ndarray: ...
    @property
    def width(self) -> np.ndarray: ...
    @property
    def height(self) -> np.ndarray: ...


def located(
    rows: Windows[ItemRef], coords: Mapping[str, np.ndarray], scene_of: Callable[[ItemRef], Scene], unread: Collection[int] = ()
) -> Mapping[str, np.ndarray]:
    """Fill in date, CRS and edges of each chip from the chip's window on its item's grid.

    ``coords`` are coordinates by name, one value per chip; they are returned unchanged if all edges are known. ``scene_of``
    returns the scene of one of ``rows.items``, or raises ItemError; it is called only for items whose rows lack edges. Chips at
    the positions ``unread`` stay as they are, because their items can't be read.
    """
    lacking = np.isnan(coords["proj_left"])
    lacking[list(unread)] = False
    if not lacking.any():
        return coords
    coords = {name: values.copy() for name, values in coords.items()}
    for number in np.unique(rows.item[lacking]).tolist():
        scene = scene_of(rows.items[number])
        chips = lacking & (rows.item == number)
        res_x, _, left, _, res_y, top = scene.grid.transform
        coords["proj_code"][chips] = scene.grid.crs
        coords["datetime"][chips] = np.datetime64(scene.datetime.replace(tzinfo=None), "us")
        for name, first, step, off, length in (
            ("proj_left", left, res_x, rows.col_off, 0),
            ("proj_right", left, res_x, rows.col_off, rows.width),
            ("proj_top", top, res_y, rows.row_off, 0),
            ("proj_bottom", top, res_y, rows.row_off, rows.height),
        ):
            coords[name][chips] = first + step * np.broadcast_to(off + length, lacking.shape)[chips]
    return coords
