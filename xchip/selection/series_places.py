"""Places: windows of pixels that several scenes share, known by CRS, resolution, size and edges."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

HUNDREDTHS = 100
"""Edges are compared in hundredths of a pixel, as `xchip.core.lattice.LATTICE_TOLERANCE` has it."""
SAME_RESOLUTION = 1e-6
"""Resolutions that differ by less than this part are one: over a scene their pixels drift apart by a hundredth."""

_EDGES = ("proj_left", "proj_bottom", "proj_right", "proj_top")
COLUMNS = ("proj_code", *_EDGES, "width", "height", "chip_index_x", "chip_index_y", "col_off", "row_off", "item_id")
"""What places are told by."""


@dataclass(frozen=True, eq=False)
class Places:
    """The place of each chip. Chips of one place have the same pixels, whatever scene they are of."""

    number: np.ndarray
    """int64 (chips,): from 0, by CRS, resolution and size, then from north to south, then from west to east."""
    lattice: np.ndarray
    """int64 (chips,): which of ``labels``."""
    labels: tuple[str, ...]
    """CRS, resolution and size, as the beginning of an id."""
    y: np.ndarray
    """int64 (chips,): upper edge, in hundredths of a pixel, downwards from the CRS's origin."""
    x: np.ndarray
    """int64 (chips,): left edge, to the right."""

    def ids(self, rows: np.ndarray) -> pa.Array:
        """Ids of the places of some chips: ``CRS/resolution/HEIGHTxWIDTH/x/y``, the upper left corner being counted in pixels."""
        import pyarrow as pa
        import pyarrow.compute as pc

        text = pa.large_string()
        _, first, code = np.unique(self.number[rows], return_index=True, return_inverse=True)
        one = rows[first]
        corner = [pa.array(axis[one] / HUNDREDTHS).cast(text) for axis in (self.x, self.y)]
        label = pa.array(self.labels, text).take(pa.array(self.lattice[one]))
        return pc.binary_join_element_wise(label, *corner, pa.scalar("/", text)).take(pa.array(code))


def places_of(frame: pd.DataFrame) -> Places:
    """The place of each chip of an index.

    Raises
    ------
    ValueError
        If a chip has no CRS or edges; or if chips of two items overlap, though their grids have nothing in common.
    """
    import pandas as pd

    crs, codes = pd.factorize(frame["proj_code"], sort=True)
    left, bottom, right, top = (frame[name].to_numpy(np.float64) for name in _EDGES)
    unknown = (crs < 0) | ~np.isfinite(left + bottom + right + top)
    if unknown.any():
        raise ValueError(
            f"{int(unknown.sum()):,} chips have no proj_code or edges, such as those of item "
            f"{frame['item_id'].iloc[int(unknown.argmax())]!r}, so nothing says which are of one place; index the items "
            "with xchip.index_items or xchip.build_index"
        )
    width, height = frame["width"].to_numpy(np.int64), frame["height"].to_numpy(np.int64)
    res_x, res_y = _resolutions((right - left) / width), _resolutions((top - bottom) / height)
    x, y = (np.rint(edge / res * HUNDREDTHS).astype(np.int64) for edge, res in ((left, res_x), (-top, res_y)))
    keys = pd.DataFrame({"crs": crs, "res_y": res_y, "res_x": res_x, "height": height, "width": width})
    lattice = _numbered(keys)
    _, first = np.unique(lattice, return_index=True)
    labels = tuple(_label(str(codes[code]), *rest) for code, *rest in keys.iloc[first].itertuples(index=False))
    number = _numbered(pd.DataFrame({"lattice": lattice, "y": y, "x": x}))
    found = Places(number, lattice, labels, y, x)
    _check(frame, found)
    return found


def _numbered(keys: pd.DataFrame) -> np.ndarray:
    """Number of each row's values, in their order."""
    return keys.groupby(list(keys.columns), sort=True).ngroup().to_numpy(np.int64)


def _resolutions(values: np.ndarray) -> np.ndarray:
    """``values``, those that are nearly the same made the same."""
    # Edges are rounded to a millionth of a pixel, so resolutions are right to some nine digits.
    known, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    if not len(known):
        return values
    cluster = np.append(0, np.cumsum(np.diff(known) > SAME_RESOLUTION * known[1:]))
    order = np.lexsort((-counts, cluster))
    usual = known[order[np.searchsorted(cluster, np.arange(cluster[-1] + 1))]]
    return np.array([float(f"{value:.9g}") for value in usual])[cluster][which]


def _label(crs: str, res_y: float, res_x: float, height: int, width: int) -> str:
    # The text of a CRS without a code is long.
    name = crs if len(crs) < 20 else f"wkt-{hashlib.sha256(crs.encode()).hexdigest()[:16]}"
    resolution = "x".join(dict.fromkeys((f"{res_y:.6g}", f"{res_x:.6g}")))
    return f"{name}/{resolution}/{height}x{width}"


def _check(frame: pd.DataFrame, places: Places) -> None:
    """Refuse chips that overlap and can never coincide, as grids that begin at each scene's corner have them."""
    import pandas as pd

    phase = pd.DataFrame({"lattice": places.lattice, "y": places.y % HUNDREDTHS, "x": places.x % HUNDREDTHS})
    group = _numbered(phase)
    shift_x = _shifts(group, places.x // HUNDREDTHS, frame["chip_index_x"], frame["col_off"], frame["width"])
    shift_y = _shifts(group, places.y // HUNDREDTHS, frame["chip_index_y"], frame["row_off"], frame["height"])
    if not (shift_x.any() or shift_y.any()):
        return
    # Of two chips whose centres lie in one cell of their size, each holds the other's centre.
    cell = _numbered(
        pd.DataFrame(
            {
                "group": group,
                "y": (places.y // HUNDREDTHS * 2 + frame["height"].to_numpy(np.int64))
                // (2 * frame["height"].to_numpy(np.int64)),
                "x": (places.x // HUNDREDTHS * 2 + frame["width"].to_numpy(np.int64)) // (2 * frame["width"].to_numpy(np.int64)),
            }
        )
    )
    order = np.lexsort((shift_x, shift_y, cell))
    differ = np.diff(shift_x[order]).astype(bool) | np.diff(shift_y[order]).astype(bool)
    clash = np.flatnonzero(differ & (np.diff(cell[order]) == 0))
    if clash.size:
        one, other = (frame.iloc[int(order[clash[0] + step])] for step in (0, 1))
        raise ValueError(
            f"chips of items {one['item_id']!r} and {other['item_id']!r} overlap without being the same pixels (their upper left "
            f"corners are x {one['proj_left']:.10g}, y {one['proj_top']:.10g} and x {other['proj_left']:.10g}, y "
            f"{other['proj_top']:.10g}, in {one['proj_code']}): each grid begins at its scene's corner, so one place never comes "
            'twice; index the items with anchor="crs" (xchip index --anchor crs), whose cells all scenes of a CRS share'
        )


def _shifts(group: np.ndarray, start: np.ndarray, index: Any, offset: Any, size: Any) -> np.ndarray:
    """How far each chip's grid is from that of others, along one axis: 0 where all of a group have one; int64 (chips,).

    A chip of ``anchor="crs"`` starts at index x stride, and one of ``anchor="origin"`` at that and where its scene begins.
    """
    import pandas as pd

    index, offset = index.to_numpy(np.int64), offset.to_numpy(np.int64)
    counted = index != 0
    divisor = np.where(counted, index, 1)
    facts = pd.DataFrame(
        {
            "group": group,
            "whole": np.where(counted, start % divisor == 0, start == 0),
            "crs": np.where(counted, start // divisor, np.nan),
            "origin": np.where(index > 0, offset / divisor, np.nan),
            "counted": counted,
            "size": size.to_numpy(np.int64),
        }
    ).groupby("group", sort=True)
    crs = facts["crs"]
    shared = facts["whole"].all().to_numpy() & ~(crs.max().to_numpy() > crs.min().to_numpy())
    stride = facts["origin"].max().to_numpy()
    # Where all chips are the first of their scenes, nothing tells the stride.
    stride = np.where(facts["counted"].any().to_numpy(), stride, facts["size"].first().to_numpy())
    shared |= ~(stride >= 1) | (stride % 1 != 0)
    whole = np.where(shared, 1, stride).astype(np.int64)
    return (start - offset) % whole[group]
