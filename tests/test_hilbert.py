"""Keys along the Hilbert curve, against the curve drawn by plain recursion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xchip.indexing.merge.hilbert import NOWHERE, ORDER, WIDE, bbox_keys, hilbert_keys


def curve(order: int) -> list[tuple[int, int]]:
    """Cells in the order of the curve: four copies of the smaller one, the first and last mirrored."""
    if order == 0:
        return [(0, 0)]
    smaller, half = curve(order - 1), 1 << (order - 1)
    lower_left = [(y, x) for x, y in smaller]
    upper_left = [(x, y + half) for x, y in smaller]
    upper_right = [(x + half, y + half) for x, y in smaller]
    lower_right = [(2 * half - 1 - y, half - 1 - x) for x, y in smaller]
    return lower_left + upper_left + upper_right + lower_right


@pytest.mark.parametrize("order", range(1, 7))
def test_keys_are_positions_in_the_curve(order: int) -> None:
    cells = np.array(curve(order))
    np.testing.assert_array_equal(hilbert_keys(cells[:, 0], cells[:, 1], order=order), np.arange(4**order))


@given(x=st.integers(0, 2**32 - 1), y=st.integers(0, 2**32 - 1), order=st.integers(1, 31))
def test_a_coarser_key_is_the_beginning_of_a_finer_one_up_to_how_the_curve_lies(x: int, y: int, order: int) -> None:
    # From one order to the next the curve is mirrored as a whole; every second order lies the same way.
    fine = hilbert_keys(np.array([x]), np.array([y]), order=32)
    coarse_order = 32 - 2 * ((32 - order) // 2)
    shift = 32 - coarse_order
    coarse = hilbert_keys(np.array([x >> shift]), np.array([y >> shift]), order=coarse_order)
    assert int(fine[0]) >> (2 * shift) == int(coarse[0])


boxes = st.tuples(st.floats(-180, 179), st.floats(-90, 89), st.floats(0, 1), st.floats(0, 1))


@given(st.lists(boxes, min_size=1, max_size=20))
def test_keys_of_boxes_are_those_of_their_centres_cells(found: list[tuple[float, float, float, float]]) -> None:
    bounds = np.array([(x, y, x + width, y + height) for x, y, width, height in found]).T
    for (x, y, width, height), key in zip(found, bbox_keys(bounds), strict=True):
        column = min(int(((x + (x + width)) / 2 / 360 + 0.5) * 2**ORDER), 2**ORDER - 1)
        row = min(int(((y + (y + height)) / 2 / 180 + 0.5) * 2**ORDER), 2**ORDER - 1)
        assert key == hilbert_keys(np.array([column]), np.array([row]))[0]


def test_boxes_around_the_earth_and_empty_ones_come_last() -> None:
    nan = float("nan")
    keys = bbox_keys(np.array([[-180, -90, -179, -89], [179, 89, 180, 90], [-180, 10, 180, 11], [nan, nan, nan, nan]]).T)
    assert (keys[:2] < WIDE).all()
    assert WIDE <= keys[2] < NOWHERE
    assert keys[3] == NOWHERE
    assert bbox_keys(np.zeros((4, 0))).shape == (0,)
