"""Places: windows of pixels that several scenes share, identified by CRS, resolution, size and edges."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

HUNDREDTHS = 100
"""Edges are compared in hundredths of a pixel, like `xchip.core.lattice.LATTICE_TOLERANCE`."""
SAME_RESOLUTION = 1e-6
"""Resolutions with a smaller relative difference count as equal: across a scene their pixels drift apart by a hundredth."""

_EDGES = ("proj_left", "proj_bottom", "proj_right", "proj_top")
COLUMNS = ("proj_code", *_EDGES, "width", "height", "chip_index_x", "chip_index_y", "col_off", "row_off", "item_id")
"""Columns that identify a place."""


@dataclass(frozen=True, eq=False)
class Places:
    """The place of each chip. Chips of a place have the same pixels, in any scene."""

    number: np.ndarray
    """int64 (chips,): from 0, sorted by CRS, resolution and size, then from north to south, then from west to east."""
    lattice: np.ndarray
    """int64 (chips,): position in ``labels``."""
    labels: tuple[str, ...]
    """CRS, resolution and size: the beginning of an id."""
    y: np.ndarray
    """int64 (chips,): upper edge, in hundredths of a pixel, downwards from the CRS's origin."""
    x: np.ndarray
    """int64 (chips,): left edge, to the right."""

    def ids(self, rows: np.ndarray) -> pa.Array:
        """Return ids of the places of ``rows``: ``CRS/resolution/HEIGHTxWIDTH/x/y`` with the upper left corner in pixels."""
        import pyarrow as pa
        import pyarrow.compute as pc

        text = pa.large_string()
        _, first, code = np.unique(self.number[rows], return_index=True, return_inverse=True)
        chip = rows[first]
        corner = [pa.array(axis[chip] / HUNDREDTHS).cast(text) for axis in (self.x, self.y)]
        label = pa.array(self.labels, text).take(pa.array(self.lattice[chip]))
        return pc.binary_join_element_wise(label, *corner, pa.scalar("/", text)).take(pa.array(code))


def places_of(frame: pd.DataFrame) -> Places:
    """Return the place of each chip; raise a ValueError if CRS or edges are unknown, or overlapping grids are not aligned."""
    import pandas as pd

    crs, codes = pd.factorize(frame["proj_code"], sort=True)
    left, bottom, right, top = (frame[name].to_numpy(np.float64) for name in _EDGES)
    unknown = (crs < 0) | ~np.isfinite(left + bottom + right + top)
    if unknown.any():
        raise ValueError(
            f"{int(unknown.sum()):,} chips have no proj_code or edges, such as those of item "
            f"{frame['item_id'].iloc[int(unknown.argmax())]!r}, so their places are unknown; index the items with "
            "xchip.index_items or xchip.build_index"
        )
    width, height = frame["width"].to_numpy(np.int64), frame["height"].to_numpy(np.int64)
    res_x, res_y = _resolutions((right - left) / width), _resolutions((top - bottom) / height)
    x, y = (np.rint(edge / res * HUNDREDTHS).astype(np.int64) for edge, res in ((left, res_x), (-top, res_y)))
    keys = pd.DataFrame({"crs": crs, "res_y": res_y, "res_x": res_x, "height": height, "width": width})
    lattice = _numbered(keys)
    _, first = np.unique(lattice, return_index=True)
    labels = tuple(_label(str(codes[code]), *rest) for code, *rest in keys.iloc[first].itertuples(index=False))
    number = _numbered(pd.DataFrame({"lattice": lattice, "y": y, "x": x}))
    places = Places(number, lattice, labels, y, x)
    _check_aligned(frame, places)
    return places


def _numbered(keys: pd.DataFrame) -> np.ndarray:
    """Number the distinct rows in sorted order; return the number of each row."""
    return keys.groupby(list(keys.columns), sort=True).ngroup().to_numpy(np.int64)


def _resolutions(values: np.ndarray) -> np.ndarray:
    """Replace nearly equal values by the most frequent of them."""
    # Edges are rounded to a millionth of a pixel, so resolutions are correct to about nine digits.
    distinct, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    if not len(distinct):
        return values
    cluster = np.append(0, np.cumsum(np.diff(distinct) > SAME_RESOLUTION * distinct[1:]))
    order = np.lexsort((-counts, cluster))
    usual = distinct[order[np.searchsorted(cluster, np.arange(cluster[-1] + 1))]]
    return np.array([float(f"{value:.9g}") for value in usual])[cluster][code]


def _label(crs: str, res_y: float, res_x: float, height: int, width: int) -> str:
    # The text of a CRS without a code is long.
    name = crs if len(crs) < 20 else f"wkt-{hashlib.sha256(crs.encode()).hexdigest()[:16]}"
    resolution = "x".join(dict.fromkeys((f"{res_y:.6g}", f"{res_x:.6g}")))
    return f"{name}/{resolution}/{height}x{width}"


def _check_aligned(frame: pd.DataFrame, places: Places) -> None:
    """Raise if chips overlap but can never coincide, because their grids begin at the corner of each scene."""
    import pandas as pd

    index_x, index_y, col_off, row_off, width, height = (
        frame[name].to_numpy(np.int64) for name in ("chip_index_x", "chip_index_y", "col_off", "row_off", "width", "height")
    )
    group = _numbered(pd.DataFrame({"lattice": places.lattice, "y": places.y % HUNDREDTHS, "x": places.x % HUNDREDTHS}))
    x, y = places.x // HUNDREDTHS, places.y // HUNDREDTHS
    shift_x, shift_y = _shifts(group, x, index_x, col_off, width), _shifts(group, y, index_y, row_off, height)
    if not (shift_x.any() or shift_y.any()):
        return
    # If the centres of two chips lie in the same cell of their size, each chip contains the centre of the other.
    cells = {"group": group, "y": (2 * y + height) // (2 * height), "x": (2 * x + width) // (2 * width)}
    cell = _numbered(pd.DataFrame(cells))
    order = np.lexsort((shift_x, shift_y, cell))
    differ = np.diff(shift_x[order]).astype(bool) | np.diff(shift_y[order]).astype(bool)
    clash = np.flatnonzero(differ & (np.diff(cell[order]) == 0))
    if clash.size:
        first, second = (frame.iloc[int(order[clash[0] + step])] for step in (0, 1))
        raise ValueError(
            f"chips of items {first['item_id']!r} and {second['item_id']!r} overlap without being the same pixels (their upper "
            f"left corners are x {first['proj_left']:.10g}, y {first['proj_top']:.10g} and x {second['proj_left']:.10g}, y "
            f"{second['proj_top']:.10g}, in {first['proj_code']}): each grid begins at the corner of its scene, so places never "
            'repeat; index the items with anchor="crs" (xchip index --anchor crs), so that all scenes of a CRS share their cells'
        )


def _shifts(group: np.ndarray, start: np.ndarray, index: np.ndarray, offset: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the shift of each chip's grid along an axis: int64 (chips,), 0 if all chips of the group share a grid.

    With ``anchor="crs"`` a chip starts at index x stride; with ``anchor="origin"`` the start of its scene is added.
    """
    import pandas as pd

    counted = index != 0
    divisor = np.where(counted, index, 1)
    facts = pd.DataFrame(
        {
            "group": group,
            "whole": np.where(counted, start % divisor == 0, start == 0),
            "crs": np.where(counted, start // divisor, np.nan),
            "origin": np.where(index > 0, offset / divisor, np.nan),
            "counted": counted,
            "size": size,
        }
    ).groupby("group", sort=True)
    crs = facts["crs"]
    shared = facts["whole"].all().to_numpy() & ~(crs.max().to_numpy() > crs.min().to_numpy())
    stride = facts["origin"].max().to_numpy()
    # If all chips are the first of their scenes, the stride is unknown: take the size.
    stride = np.where(facts["counted"].any().to_numpy(), stride, facts["size"].first().to_numpy())
    shared |= ~(stride >= 1) | (stride % 1 != 0)
    whole = np.where(shared, 1, stride).astype(np.int64)
    return (start - offset) % whole[group]
