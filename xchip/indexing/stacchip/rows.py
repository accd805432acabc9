"""Dates, CRS and edges of chips whose rows lack them, as rows of stacchip's tables do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from xchip.core.scene import Scene


class Windows(Protocol):
    """The windows of chips on their items' grids."""

    @property
    def items(self) -> Sequence[Any]: ...
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
    rows: Windows, coords: Mapping[str, np.ndarray], scene_of: Callable[[Any], Scene], unread: Collection[int] = ()
) -> Mapping[str, np.ndarray]:
    """Fill in date, CRS and edges of each chip from the chip's window on its item's grid.

    Parameters
    ----------
    rows
        Items and windows of the chips.
    coords
        Coordinates by name, one value per chip; returned unchanged where all edges are known.
    scene_of
        Returns the scene of one of ``rows.items``. Called only for items whose rows lack edges.
    unread
        Positions of chips to leave as they are because their items can't be read.

    Raises
    ------
    ItemError
        If an item can't be read.
    """
    lacking = np.isnan(coords["proj_left"])
    lacking[list(unread)] = False
    if not lacking.any():
        return coords
    coords = {name: values.copy() for name, values in coords.items()}
    for number in np.unique(rows.item[lacking]).tolist():
        scene = scene_of(rows.items[number])
        mine = lacking & (rows.item == number)
        res_x, _, left, _, res_y, top = scene.grid.transform
        coords["proj_code"][mine] = scene.grid.crs
        coords["datetime"][mine] = np.datetime64(scene.datetime.replace(tzinfo=None), "us")
        for name, first, step, off, length in (
            ("proj_left", left, res_x, rows.col_off, 0),
            ("proj_right", left, res_x, rows.col_off, rows.width),
            ("proj_top", top, res_y, rows.row_off, 0),
            ("proj_bottom", top, res_y, rows.row_off, rows.height),
        ):
            coords[name][mine] = first + step * np.broadcast_to(off + length, lacking.shape)[mine]
    return coords
