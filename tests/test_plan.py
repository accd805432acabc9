"""Plans of reading: each chip once, each block once, bounded waiting. Against plain loops, without any file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xchip.chips.chip_rows import ChipRows, ItemRef
from xchip.chips.read_plan import (
    block_box,
    blocks_of,
    bounding_box,
    cut,
    epoch_plan,
    rectangles,
    share,
    split_units,
    tile_shape,
    units,
)
from xchip.core.grid import Alignment, AxisMap
from xchip.raster.regrid import Box

TILE = (64, 64)


def make_rows(n_items: int = 3, side: int = 160, size: int = 16, seed: int | None = None) -> ChipRows:
    """Chips of ``size`` pixels that fill items of ``side`` pixels, row by row; with a seed in random order."""
    offsets = np.arange(0, side - size + 1, size, dtype=np.int32)
    row, column = (axis.ravel() for axis in np.meshgrid(offsets, offsets, indexing="ij"))
    item = np.repeat(np.arange(n_items, dtype=np.int32), len(row))
    row, column = np.tile(row, n_items), np.tile(column, n_items)
    lengths = np.full(len(item), size, np.int32)
    refs = tuple(ItemRef(f"item-{number}", "c", None, None, "EPSG:32720") for number in range(n_items))
    rows = ChipRows(refs, item, column * 10.0, row * -10.0, column, row, lengths, lengths)
    return rows if seed is None else rows.take(np.random.default_rng(seed).permutation(len(item)))


def tiles(rows: ChipRows) -> list[tuple[str, int, int]]:
    """(item, row, column) of the super-tile of each chip, the plainest way."""
    return [
        (rows.items[item].item_id, row // TILE[0], column // TILE[1])
        for item, row, column in zip(rows.item, rows.row_off, rows.col_off, strict=True)
    ]


# Which chips are read together


@pytest.mark.parametrize(
    ("blocks", "shape"),
    [
        ([(1024, 1024), (2048, 2048)], (2048, 2048)),
        ([(1024, 1024), (2048, 2048), (6144, 6144)], (2048, 2048)),
        ([(512, 512)], (2048, 2048)),
        ([(366, 366)], (2196, 1830)),
        ([(4096, 4096)], (4096, 4096)),
        ([(1, 20000)], (209, 20000)),
        ([], (2048, 2048)),
    ],
)
def test_super_tiles_hold_whole_blocks(blocks: list[tuple[int, int]], shape: tuple[int, int]) -> None:
    assert tile_shape(blocks) == shape


@given(st.integers(0, 5))
def test_units_are_the_chips_of_a_super_tile(seed: int) -> None:
    rows = make_rows(seed=seed)
    found = units(rows, TILE)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(rows)))
    names = [{tiles(rows)[chip] for chip in unit.tolist()} for unit in found]
    assert all(len(name) == 1 for name in names)
    assert len({name.pop() for name in names}) == len(found) == 3 * 9


def test_units_of_segments_and_of_nothing() -> None:
    rows = make_rows(n_items=1)
    segments = np.arange(len(rows)) // 40
    for unit in units(rows, TILE, segments):
        assert len(set(segments[unit].tolist())) == 1
    assert units(rows.take(slice(0, 0)), TILE) == []


def test_split_units() -> None:
    assert [part.tolist() for part in split_units([np.arange(5), np.arange(2)], 2)] == [[0, 1], [2, 3], [4], [0, 1]]


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_cover_all_and_differ_by_one(n: int, parts: int) -> None:
    spans = [share(n, number, parts) for number in range(parts)]
    assert [i for start, stop in spans for i in range(start, stop)] == list(range(n))
    sizes = [stop - start for start, stop in spans]
    assert max(sizes) - min(sizes) <= 1


# Epochs

epochs = {
    "buffer": st.integers(1, 400),
    "shuffle": st.booleans(),
    "seed": st.integers(0, 3),
    "parts": st.integers(1, 6),
    "order": st.integers(0, 3),
}


@given(**epochs)
def test_the_parts_of_an_epoch_give_each_chip_once(buffer: int, shuffle: bool, seed: int, parts: int, order: int) -> None:
    rows = make_rows(seed=order)
    plans = [epoch_plan(rows, TILE, buffer=buffer, shuffle=shuffle, seed=seed, part=part, parts=parts) for part in range(parts)]
    assert sorted(np.concatenate([plan.order for plan in plans]).tolist()) == list(range(len(rows)))
    for plan in plans:
        n = len(plan.order)
        assert sorted(np.concatenate([*plan.units, np.empty(0, int)]).tolist()) == list(range(n)), "each chip is in one unit"
        names = tiles(rows.take(plan.order))
        assert all(len({names[place] for place in unit.tolist()}) == 1 for unit in plan.units)
        assert all(len(unit) <= buffer for unit in plan.units)
        assert (np.diff(plan.needed) >= 0).all()


@given(**epochs)
def test_chips_that_wait_are_bounded(buffer: int, shuffle: bool, seed: int, parts: int, order: int) -> None:
    rows = make_rows(seed=order)
    plan = epoch_plan(rows, TILE, buffer=buffer, shuffle=shuffle, seed=seed, part=parts - 1, parts=parts)
    waiting = [
        sum(len(unit) for unit, first in zip(plan.units, plan.needed, strict=True) if first <= place) - place
        for place in range(len(plan.order))
    ]
    most = max(map(len, plan.units), default=0)
    assert max(waiting, default=0) <= 2 * buffer + most


def test_about_half_of_the_span_waits_when_shuffled() -> None:
    rows = make_rows(n_items=40)
    plan = epoch_plan(rows, TILE, buffer=200)
    places = np.arange(len(plan.order))
    sizes = np.array([len(unit) for unit in plan.units])
    waiting = np.concatenate([[0], np.cumsum(sizes)])[np.searchsorted(plan.needed, places, "right")] - places
    assert 150 < waiting.mean() < 260


@given(st.integers(1, 30), st.booleans(), st.integers(0, 330))
def test_what_is_left_of_an_epoch(buffer: int, shuffle: bool, start: int) -> None:
    rows = make_rows(seed=1)
    plan = epoch_plan(rows, TILE, buffer=buffer, shuffle=shuffle)
    left = plan.after(start)
    assert sorted(np.concatenate([*left.units, np.empty(0, int)]).tolist()) == list(range(min(start, len(rows)), len(rows)))
    assert left.order is plan.order


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    rows = make_rows()
    orders = {
        (seed, epoch): tuple(epoch_plan(rows, TILE, buffer=50, seed=seed, epoch=epoch).order)
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(epoch_plan(rows, TILE, buffer=50, seed=1, epoch=2).order)


def test_unshuffled_order_is_that_of_the_rows() -> None:
    rows = make_rows(seed=4)
    plan = epoch_plan(rows, TILE, buffer=50, shuffle=False)
    assert plan.order.tolist() == list(range(len(rows)))


def test_batches_are_mixed_from_the_first_to_the_last() -> None:
    rows = make_rows(n_items=20)
    plan = epoch_plan(rows, TILE, buffer=128)
    names = tiles(rows.take(plan.order))
    mixed = [len(set(names[start : start + 32])) for start in range(0, len(names), 32)]
    assert min(mixed) >= 8, "of 32 chips at most a few are neighbours, also at both ends of the epoch"


@given(st.integers(0, 400), st.booleans())
def test_a_plan_that_is_cut_short(most: int, shuffle: bool) -> None:
    rows = make_rows()
    plan = epoch_plan(rows, TILE, buffer=64, shuffle=shuffle, most=most)
    assert len(plan.order) == len(set(plan.order.tolist())) == min(most, len(rows))
    assert sum(map(len, plan.units)) == len(plan.order)


def test_more_parts_than_chips() -> None:
    rows = make_rows(n_items=1, side=32)
    for shuffle in (False, True):
        plans = [epoch_plan(rows, TILE, buffer=8, shuffle=shuffle, part=part, parts=7) for part in range(7)]
        assert sorted(np.concatenate([plan.order for plan in plans]).tolist()) == list(range(4))


def test_a_million_rows_are_planned_in_seconds() -> None:
    rows = make_rows(n_items=600, side=10240, size=256)
    plan = epoch_plan(rows, (2048, 2048), buffer=256)
    assert len(plan.order) == 960_000


# Pixels and blocks

axes = st.builds(AxisMap, st.sampled_from([-3, -2, -1, 1, 2, 3, 6]), st.integers(-7, 7)).filter(lambda axis: axis.factor != -1)


@given(axes, axes, st.integers(1, 12), st.integers(1, 12), st.integers(-9, 20), st.integers(-9, 20), st.integers(1, 11))
def test_cuts_find_the_pixels_under_a_chip(
    y: AxisMap, x: AxisMap, height: int, width: int, top: int, left: int, size: int
) -> None:
    own = cut(Box(top, top + size, left, left + size), Alignment(y, x), (height, width))
    for axis, found, n, start in ((y, own.y, height, top), (x, own.x, width, left)):
        under = axis.source_index(np.arange(start, start + size))
        inside = np.flatnonzero((under >= 0) & (under < n))
        assert list(range(found.first, found.last)) == inside.tolist()
        if len(inside):
            assert (found.start, found.stop) == (under[inside[0]], under[inside[-1]] + 1)
            if axis.factor > 0:
                repeated = np.repeat(np.arange(found.start, found.stop), axis.factor)[found.skip :][: len(inside)]
                assert repeated.tolist() == under[inside].tolist()
        else:
            assert found.start == found.stop


boxes = st.lists(
    st.builds(
        lambda t, h, w, o: Box(t, t + h, o, o + w),
        *(st.integers(0, 40), st.integers(0, 20), st.integers(0, 20), st.integers(0, 40)),
    ),
    max_size=5,
)


@given(boxes, st.integers(1, 9), st.integers(1, 9))
def test_blocks_and_rectangles_hold_what_is_needed_and_no_more(boxes: list[Box], height: int, width: int) -> None:
    blocks = blocks_of(boxes, (height, width))
    touched = {(y // height, x // width) for b in boxes for y in range(b.top, b.bottom) for x in range(b.left, b.right)}
    assert blocks == sorted(touched)
    parts = rectangles(blocks)
    inside = [(y, x) for part in parts for y in range(part.top, part.bottom) for x in range(part.left, part.right)]
    assert sorted(inside) == blocks, "each block is in one rectangle"
    if parts:
        whole = bounding_box(boxes)
        assert whole == bounding_box([box for box in boxes if box.size])


def test_a_full_super_tile_is_one_rectangle() -> None:
    assert rectangles(blocks_of([Box(0, 2048, 2048, 4096)], (512, 512))) == [Box(0, 4, 4, 8)]


def test_the_last_blocks_of_a_file_are_cut_at_its_edge() -> None:
    assert block_box(Box(1, 3, 0, 2), (512, 512), (1100, 700)) == Box(512, 1100, 0, 700)


def test_each_block_of_a_file_is_read_once_an_epoch() -> None:
    rows = make_rows(n_items=2, side=160, size=16)
    plan = epoch_plan(rows, TILE, buffer=100)
    read = []
    for unit in plan.units:
        some = rows.take(plan.order[unit])
        chips = [Box(t, t + 16, left, left + 16) for t, left in zip(some.row_off.tolist(), some.col_off.tolist(), strict=True)]
        read += [(some.items[0].item_id, *block) for block in blocks_of(chips, (32, 32))]
    assert len(read) == len(set(read)) == 2 * 25
