"""Where chips lie on the raster that they are put back on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from xchip.core.arrays import Xarray
from xchip.core.grid import LATTICE_TOLERANCE, ChipGrid, PixelGrid

AXES = (("row", "height", "rows"), ("column", "width", "columns"))
"""Words for messages, for y and x."""


@dataclass(frozen=True)
class Placement:
    """Chips on a raster. Each array has one int64 value a chip, for y and for x."""

    pixels: PixelGrid
    """The raster: the grid's pixels, or coarser ones if the chips are coarser."""
    offsets: tuple[np.ndarray, np.ndarray]
    """The raster's pixel at which a chip begins; may be negative."""
    lengths: tuple[np.ndarray, np.ndarray]
    """How many of the chip's pixels count, from its first."""
    strides: tuple[int, int]
    """(y, x) pixels of the raster from chip to chip."""
    overlapping: bool
    """Whether chips of the grid overlap, be they here or not."""

    def covers(self) -> bool:
        """Whether each pixel is in a chip."""
        spans = [_clipped(*axis) for axis in zip(self.offsets, self.lengths, self.pixels.shape, strict=True)]
        edges = [np.unique(np.concatenate((*span, [0, n]))) for span, n in zip(spans, self.pixels.shape, strict=True)]
        # A chip adds one from its upper left corner on; its other corners take that back.
        counts = np.zeros([len(axis) for axis in edges], np.int64)
        corners = [[np.searchsorted(axis, end) for end in span] for axis, span in zip(edges, spans, strict=True)]
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            np.add.at(counts, (corners[0][down], corners[1][right]), 1 if down == right else -1)
        return bool((counts.cumsum(0).cumsum(1)[:-1, :-1] > 0).all())

    def pieces(self, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
        """How chips fall into chunks of ``rows`` x ``columns`` pixels: int64, one row for each chip in each chunk.

        Columns: the chip (which `by_block` counts within its block), the chip, the first row and column in the chip, the
        first row and column in the chunk, height, width, the chunk's row and column.
        """
        firsts, counts = [], []
        spans = [_clipped(*axis) for axis in zip(self.offsets, self.lengths, self.pixels.shape, strict=True)]
        ends = [np.cumsum(sizes) for sizes in (rows, columns)]
        for (low, high), own_ends in zip(spans, ends, strict=True):
            first = np.searchsorted(own_ends, low, side="right")
            firsts.append(first)
            counts.append(np.where(high > low, np.searchsorted(own_ends, high - 1, side="right") - first + 1, 0))
        number = counts[0] * counts[1]
        chip = np.repeat(np.arange(len(number)), number)
        within = np.arange(len(chip)) - np.repeat(np.cumsum(number) - number, number)
        steps = divmod(within, counts[1][chip])
        source, target, length, chunks = [], [], [], []
        for axis, sizes in enumerate((rows, columns)):
            chunk = firsts[axis][chip] + steps[axis]
            begin = (ends[axis] - sizes)[chunk]
            start = np.maximum(spans[axis][0][chip], begin)
            source.append(start - self.offsets[axis][chip])
            target.append(start - begin)
            length.append(np.minimum(spans[axis][1][chip], ends[axis][chunk]) - start)
            chunks.append(chunk)
        return np.column_stack((chip, chip, *source, *target, *length, *chunks)).astype(np.int64)


def by_block(table: np.ndarray, chips: Sequence[int]) -> list[tuple[int, int, int, np.ndarray]]:
    """(block, chunk row, chunk column, pieces) for each block of chips and chunk that share pieces of `Placement.pieces`.

    ``chips`` tells how many each block has. In the pieces' first column a chip is then counted within its block.
    """
    ends = np.cumsum(chips)
    block = np.searchsorted(ends, table[:, 0], side="right")
    order = np.lexsort((table[:, 0], block, table[:, 9], table[:, 8]))
    table, block = table[order], block[order]
    keys = np.column_stack((block, table[:, 8:10]))
    changes = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    groups = []
    for start, stop in pairwise([0, *changes.tolist(), len(keys)] if len(keys) else []):
        number, i, j = keys[start].tolist()
        own = table[start:stop].copy()
        own[:, 0] -= ends[number] - chips[number]
        groups.append((number, i, j, own))
    return groups


def _clipped(offsets: np.ndarray, lengths: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.clip(offsets, 0, n), np.clip(offsets + lengths, 0, n)


def positions(chips: Xarray, grid: ChipGrid) -> tuple[np.ndarray, np.ndarray]:
    """(y, x): the row and the column of ``grid`` that each chip is in, int64, from the chips' coordinates.

    Raises
    ------
    ValueError
        If a chip is not of the grid, or is there twice.
    """
    n = chips.sizes["chip"]
    names = ("proj_left", "proj_bottom", "proj_right", "proj_top", "proj_code", "chip_index_y", "chip_index_x", "chip_id")
    # ds.chunk() makes these coordinates lazy, short as they are.
    known = {
        name: np.broadcast_to(np.asarray(chips.coords[name].compute(scheduler="sync").values), n)
        for name in names
        if name in chips.coords and chips.coords[name].dims in ((), ("chip",))
    }
    if {"proj_left", "proj_bottom", "proj_right", "proj_top"} <= known.keys():
        y, x = _by_edges(known, grid)
    elif {"chip_index_y", "chip_index_x"} <= known.keys():
        y, x = (
            _found(known[name].astype(np.int64), axis[0], f"no chip of the grid has {name}=", known)
            for name, axis in (("chip_index_y", grid.rows), ("chip_index_x", grid.columns))
        )
    elif n != len(grid):
        raise ValueError(
            f"there are {n} chips, the grid has {len(grid)}, and no coordinates tell which these are: keep proj_left, "
            "proj_bottom, proj_right and proj_top (as .chips.extract gives them) or chip_index_y and chip_index_x on 'chip'"
        )
    else:
        y, x = np.divmod(np.arange(n), max(1, grid.shape[1]))
    numbers = y * grid.shape[1] + x
    values, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    if len(values) < n:
        twice = int(first[counts > 1][0])
        raise ValueError(
            f"{_label(known, twice)} is not the only chip at chip_y={y[twice]}, chip_x={x[twice]} of the grid; "
            "stitch chips of one item and date at a time"
        )
    return y, x


def _label(known: dict[str, np.ndarray], chip: int) -> str:
    return f"chip {str(known['chip_id'][chip])!r}" if "chip_id" in known else f"chip number {chip}"


def _found(values: np.ndarray, candidates: np.ndarray, problem: str, known: dict[str, np.ndarray]) -> np.ndarray:
    """Where ``values`` are in ``candidates``, which increase."""
    if not len(values):
        return np.empty(0, np.int64)
    at = np.searchsorted(candidates, values).clip(0, max(0, len(candidates) - 1))
    wrong = np.flatnonzero(candidates[at] != values) if len(candidates) else np.arange(len(values))
    if len(wrong):
        span = f"{candidates[0]} to {candidates[-1]}" if len(candidates) else "no chips"
        raise ValueError(
            f"{_label(known, wrong[0])}: {problem}{values[wrong[0]]} (the grid has {span}); "
            "stitch on the grid that the chips were cut with: same scene, size, stride, edge and anchor"
        )
    return at


def _by_edges(known: dict[str, np.ndarray], grid: ChipGrid) -> tuple[np.ndarray, np.ndarray]:
    pixels = grid.pixels
    for code in set(known["proj_code"].tolist()) if "proj_code" in known else ():
        if code != pixels.crs:
            chip = int(np.flatnonzero(known["proj_code"] == code)[0])
            raise ValueError(f"{_label(known, chip)} is in {code}, the grid in {pixels.crs}; stitch it on a grid of its own")
    left, top = pixels.transform[2], pixels.transform[5]
    exact = (
        ((top - known["proj_top"]) / pixels.res[0], (top - known["proj_bottom"]) / pixels.res[0]),
        ((known["proj_left"] - left) / pixels.res[1], (known["proj_right"] - left) / pixels.res[1]),
    )
    found = []
    for (start, stop), (one, length, _), (_, offsets, lengths) in zip(exact, AXES, (grid.rows, grid.columns), strict=True):
        first, last = np.round(start), np.round(stop)
        strays = np.flatnonzero(np.abs(start - first) > LATTICE_TOLERANCE)
        if len(strays):
            raise ValueError(
                f"{_label(known, strays[0])} does not lie on the grid's pixels: it begins at {one} {start[strays[0]]:.3f}"
            )
        at = _found(first.astype(np.int64), offsets, f"no chip of the grid begins at {one} ", known)
        other = np.flatnonzero(last - first != lengths[at])
        if len(other):
            raise ValueError(
                f"{_label(known, other[0])} has a {length} of {last[other[0]] - first[other[0]]:.0f} pixels, the grid's chip at "
                f"{one} {first[other[0]]:.0f} has {lengths[at[other[0]]]}; stitch on the grid that the chips were cut with"
            )
        found.append(at)
    return found[0], found[1]


def place(
    grid: ChipGrid,
    numbers: tuple[np.ndarray, np.ndarray],
    size: tuple[int, int] | None,
) -> Placement:
    """Chips in rows and columns ``numbers`` of ``grid``, whose arrays have ``size`` (y, x) pixels; None: one value a chip.

    Raises
    ------
    ValueError
        If ``size`` is neither the chips' own nor a whole fraction of it, or coarser pixels would not line up.
    """
    starts, factors, shape, offsets, lengths, strides = [], [], [], [], [], []
    overlapping = False
    for axis, (_, own_offsets, own_lengths) in enumerate((grid.rows, grid.columns)):
        if size is None:
            factor, start, n = _one_pixel_each(grid, axis, own_offsets, own_lengths)
        else:
            factor = _factor(grid, axis, size[axis], own_lengths, numbers[axis])
            start = _lattice_start(axis, factor, own_offsets)
            n = -(-(grid.pixels.shape[axis] - start) // factor)
        starts.append(start)
        factors.append(factor)
        shape.append(n)
        offsets.append((own_offsets[numbers[axis]] - start) // factor)
        lengths.append(-(-own_lengths[numbers[axis]] // factor))
        strides.append(max(1, grid.stride[axis] // factor))
        overlapping |= bool((np.diff(own_offsets) < own_lengths[:-1]).any())
    a, _, c, _, e, f = grid.pixels.transform
    transform = (a * factors[1], 0.0, c + starts[1] * a, 0.0, e * factors[0], f + starts[0] * e)
    return Placement(
        PixelGrid(grid.pixels.crs, transform, (shape[0], shape[1])),
        (offsets[0], offsets[1]),
        (lengths[0], lengths[1]),
        (strides[0], strides[1]),
        overlapping,
    )


def _one_pixel_each(grid: ChipGrid, axis: int, offsets: np.ndarray, lengths: np.ndarray) -> tuple[int, int, int]:
    """(factor, start, pixels) of a raster with a pixel a chip."""
    if not len(offsets):
        raise ValueError(f"the grid has no chips: the scene has {grid.pixels.shape} pixels, a chip {grid.size} (y, x)")
    size = int(lengths.max())
    if (np.diff(offsets) != size).any():
        raise ValueError(
            f"one value a chip makes a raster only where chips lie side by side; along {'yx'[axis]} these are {size} pixels long "
            f"and begin at {offsets[:2].tolist()} ... {offsets[-2:].tolist()} (stride={grid.stride[axis]}, edge={grid.edge!r}); "
            "use stride=None and edge='drop' or 'pad', or repeat each value to a chip (y, x)"
        )
    return size, int(offsets[0]), len(offsets)


def _factor(grid: ChipGrid, axis: int, length: int, lengths: np.ndarray, numbers: np.ndarray) -> int:
    """How many of the grid's pixels one pixel of a chip covers."""
    word = AXES[axis][1]
    full = int(lengths.max()) if len(lengths) else grid.size[axis]
    # Chips that partial edges left smaller, extracted without whole ones.
    largest = int(lengths[numbers].max()) if len(numbers) else full
    if length in (full, largest) or not len(numbers):
        return 1
    if length < 1 or full % length:
        raise ValueError(f"chips have a {word} of {length} pixels, which is neither the grid's {full} nor a whole part of it")
    if largest < full:
        raise ValueError(
            f"chips have a {word} of {length} pixels, and all of them were cut at the border, to at most {largest} of {full}: "
            "that does not tell how coarse they are; use edge='pad'"
        )
    return full // length


def _lattice_start(axis: int, factor: int, offsets: np.ndarray) -> int:
    """The grid's pixel at which the first pixel of the raster begins: 0, or before it where coarser pixels lie so."""
    if factor == 1 or not len(offsets):
        return 0
    phases = np.unique(offsets % factor)
    if len(phases) > 1:
        one, _, many = AXES[axis]
        stray = int(offsets[offsets % factor != offsets[0] % factor][0])
        raise ValueError(
            f"chips are {factor} times as coarse as the grid along {'yx'[axis]}, so they must begin at {many} that are whole "
            f"steps of {factor} apart; one begins at {one} {stray}: use a stride that {factor} divides, and edge='drop' or 'pad'"
        )
    phase = int(phases[0])
    return phase - factor if phase else 0
