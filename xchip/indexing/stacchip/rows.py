"""When and where chips are, of rows that do not tell it, as those of stacchip's tables do not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from xchip.chips.open_chips import ChipTable


def located(table: ChipTable, unread: Collection[int] = ()) -> ChipTable:
    """The table with date, CRS and edges of each chip; where the rows have none, by the chip's window on its item's grid.

    Parameters
    ----------
    table
        Chips. Items whose rows lack edges are read, unless this process knows them already.
    unread
        Positions of chips to leave as they are, for their items can't be read.

    Raises
    ------
    ItemError
        If an item can't be read.
    """
    lacking = np.isnan(table.coords["proj_left"])
    lacking[list(unread)] = False
    if not lacking.any():
        return table
    rows = table.rows
    coords = {name: values.copy() for name, values in table.coords.items()}
    for number in np.unique(rows.item[lacking]).tolist():
        scene = table.reader.items.scene(rows.items[number])
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
    return replace(table, coords=coords)
