"""Chips on cells: sums, means and most frequent codes, against plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from xchip.plots.density import DensityGrid, cells_of, inner_border


def covered(cells: DensityGrid, box: int) -> tuple[slice, slice]:
    first_row, end_row, first_column, end_column = cells.windows[:, box]
    return slice(first_row, end_row), slice(first_column, end_column)


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    n = draw(st.integers(1, 30))
    number = st.floats(-1e6, 1e6, allow_subnormal=False)
    corner = draw(npst.arrays(np.float64, (n, 2), elements=number))
    size = draw(npst.arrays(np.float64, (n, 2), elements=st.floats(0.001, 1e6)))
    return np.concatenate([corner, corner + size], axis=1)


@given(boxes(), st.integers(1, 40), st.data())
def test_against_a_loop(found: np.ndarray, longest: int, data: st.DataObject) -> None:
    cells, n = cells_of(found, longest), len(found)
    assert max(cells.shape) == longest
    values = data.draw(npst.arrays(np.float64, n, elements=st.one_of(st.floats(-1e3, 1e3), st.just(np.nan))))
    codes = data.draw(npst.arrays(np.int64, n, elements=st.integers(-1, 3)))
    count, total, valid = np.zeros(cells.shape), np.zeros(cells.shape), np.zeros(cells.shape)
    votes = np.zeros((4, *cells.shape))
    for box in range(n):
        window = covered(cells, box)
        assert count[window].size >= 1
        count[window] += 1
        if np.isfinite(values[box]):
            total[window] += values[box]
            valid[window] += 1
        if codes[box] >= 0:
            votes[codes[box]][window] += 1
    assert np.array_equal(np.rint(cells.total()), count)
    mean = cells.mean(values)
    assert np.array_equal(np.isnan(mean), valid == 0)
    assert np.allclose(mean[valid > 0], total[valid > 0] / valid[valid > 0], atol=1e-8)
    assert np.array_equal(cells.most(codes, 4), np.where(votes.any(axis=0), votes.argmax(axis=0), -1))


@given(boxes(), st.integers(1, 40))
def test_a_box_covers_the_cells_whose_centres_are_in_it(found: np.ndarray, longest: int) -> None:
    cells = cells_of(found, longest)
    left, _, _, top = cells.extent
    x = left + (np.arange(cells.shape[1]) + 0.5) * cells.size
    y = top - (np.arange(cells.shape[0]) + 0.5) * cells.size
    slack = 1e-6 * cells.size
    for number, (west, south, east, north) in enumerate(found):
        rows, columns = covered(cells, number)
        assert set(np.flatnonzero((x > west + slack) & (x < east - slack))) <= set(range(columns.start, columns.stop))
        assert set(np.flatnonzero((y > south + slack) & (y < north - slack))) <= set(range(rows.start, rows.stop))
        # No cell is further off than half of one.
        assert x[columns].min() >= west - cells.size
        assert x[columns].max() <= east + cells.size


@given(st.integers(1, 60), st.integers(1, 60), st.integers(60, 400))
def test_a_tiling_has_neither_gaps_nor_overlaps(wide: int, tall: int, longest: int) -> None:
    """Where chips are larger than cells, each cell has one."""
    column, row = np.meshgrid(np.arange(wide), np.arange(tall))
    found = np.stack([column, row, column + 1, row + 1], axis=-1).reshape(-1, 4) * 2560.0
    assert (np.rint(cells_of(found, longest).total()) == 1).all()


def test_dates_keep_their_hours() -> None:
    n = 200_000
    found = np.tile([0.0, 0.0, 1.0, 1.0], (n, 1))
    days = 19_800 + np.arange(n) / 24e3
    assert abs(cells_of(found, 10).mean(days)[0, 0] - days.mean()) < 1e-6


def test_points_and_lines_have_cells() -> None:
    cells = cells_of(np.array([[5.0, 5.0, 5.0, 5.0]]))
    assert cells.shape == (1, 1)
    assert cells.total().tolist() == [[1.0]]


def test_the_inner_border_of_a_shape() -> None:
    mask = np.zeros((7, 8), bool)
    mask[1:6, 2:7] = True
    border = inner_border(mask)
    assert border.sum() == 16
    assert not border[2:5, 3:6].any()
    assert (mask | border == mask).all()
