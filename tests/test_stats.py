"""The reduction against a plain loop over chips, for any chunking."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xchip.core.counting import code_counter, count_classes
from xchip.core.grid import EDGES, Alignment, AxisMap, ChipGrid, PixelGrid
from xchip.core.reduce import Cells, chip_areas, chip_plans, chip_sums, class_counts, complete_counts, fractions_of, sums_of_parts
from xchip.quality import CLOUD, NODATA, values
from xchip.testing import raise_if_dask_computes


def pixel_grid(height: int, width: int) -> PixelGrid:
    return PixelGrid("EPSG:32720", (10, 0, 15, 0, -10, 1005), (height, width))


@st.composite
def grids(draw: st.DrawFn, most: int = 40) -> ChipGrid:
    pair = st.tuples(st.integers(1, 17), st.integers(1, 17))
    edge = draw(st.sampled_from(EDGES))
    anchor = draw(st.sampled_from(["origin", "crs"])) if edge != "shift" else "origin"
    pixels = pixel_grid(draw(st.integers(1, most)), draw(st.integers(1, most)))
    return ChipGrid(pixels, draw(pair), draw(st.none() | pair), edge, anchor)


def loop_counts(codes: np.ndarray, grid: ChipGrid) -> np.ndarray:
    """Pixels of each class in each chip, one chip at a time; what is outside the scene is nodata."""
    counts = np.zeros((7, *grid.shape), int)
    for position, chip in enumerate(grid):
        rows = slice(max(0, chip.row_off), max(0, chip.row_off + chip.height))
        columns = slice(max(0, chip.col_off), max(0, chip.col_off + chip.width))
        inside = codes[rows, columns]
        own = counts[(slice(None), *np.unravel_index(position, grid.shape))]
        own += np.bincount(inside.ravel(), minlength=7)
        own[NODATA] += chip.height * chip.width - inside.size
    return counts


def draw_chunks(data: st.DataObject, n: int) -> tuple[int, ...]:
    cuts = data.draw(st.lists(st.integers(1, max(1, n - 1)), max_size=4))
    return tuple(np.diff(np.unique([0, *[cut for cut in cuts if cut < n], n])).tolist())


@given(grids(), st.integers(0, 9), st.data())
def test_counts_equal_a_loop_for_any_chunks(grid: ChipGrid, seed: int, data: st.DataObject) -> None:
    height, width = grid.pixels.shape
    codes = np.random.default_rng(seed).integers(0, 7, (2, height, width)).astype("uint8")
    expected = np.stack([loop_counts(plane, grid) for plane in codes])
    np.testing.assert_array_equal(class_counts(codes, grid), expected)
    chunks = (data.draw(st.sampled_from([(2,), (1, 1)])), draw_chunks(data, height), draw_chunks(data, width))
    lazy = class_counts(da.from_array(codes, chunks=chunks), grid)
    assert lazy.shape == expected.shape
    np.testing.assert_array_equal(lazy.compute(scheduler="sync"), expected)


@given(grids(), st.integers(1, 7), st.tuples(st.integers(-12, 12), st.integers(-12, 12)), st.integers(1, 25), st.integers(0, 9))
def test_a_coarse_band_counts_like_its_pixels_repeated(
    grid: ChipGrid, ratio: int, offset: tuple[int, int], n: int, seed: int
) -> None:
    coarse = np.random.default_rng(seed).integers(0, 7, (n, n + 3)).astype("uint8")
    align = Alignment(AxisMap(ratio, offset[0]), AxisMap(ratio, offset[1]))
    fine = np.zeros(grid.pixels.shape, "uint8")
    for row in range(fine.shape[0]):
        for column in range(fine.shape[1]):
            i, j = (row - offset[0]) // ratio, (column - offset[1]) // ratio
            if 0 <= i < coarse.shape[0] and 0 <= j < coarse.shape[1]:
                fine[row, column] = coarse[i, j]
    plans = chip_plans(grid, align, coarse.shape)
    parts = count_classes(coarse, code_counter(), plans[0].cuts, plans[1].cuts)
    counts = complete_counts(sums_of_parts(parts, plans), chip_areas(grid))
    np.testing.assert_array_equal(counts, loop_counts(fine, grid))


@given(grids(), st.integers(0, 9))
def test_fractions_follow_their_definition(grid: ChipGrid, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, grid.pixels.shape).astype("uint8")
    counts = loop_counts(codes, grid)
    fractions = fractions_of(counts)
    total, valid = counts.sum(axis=0), counts[1:].sum(axis=0)
    np.testing.assert_array_equal(fractions[0], counts[0] / total)
    assert np.isnan(fractions[1:, valid == 0]).all()
    np.testing.assert_array_equal(fractions[1:, valid > 0], (counts[1:] / np.maximum(valid, 1))[:, valid > 0])
    np.testing.assert_allclose(fractions[1:, valid > 0].sum(axis=0), 1)


@given(grids(), st.integers(0, 9), st.data())
def test_custom_sums_equal_a_loop(grid: ChipGrid, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    red, green = rng.integers(0, 5000, (2, *grid.pixels.shape)).astype("uint16")

    def moments(red: np.ndarray, green: np.ndarray, cells: Cells) -> np.ndarray:
        valid = red > 100
        return np.stack([cells.sum(valid), cells.sum(np.where(valid, red, 0.0)), cells.sum(green.astype(float) ** 2)])

    expected = np.zeros((3, *grid.shape))
    for position, chip in enumerate(grid):
        rows = slice(max(0, chip.row_off), max(0, chip.row_off + chip.height))
        columns = slice(max(0, chip.col_off), max(0, chip.col_off + chip.width))
        r, g = red[rows, columns].astype(float), green[rows, columns].astype(float)
        where = np.unravel_index(position, grid.shape)
        expected[(slice(None), *where)] = (r > 100).sum(), r[r > 100].sum(), (g**2).sum()
    np.testing.assert_allclose(chip_sums([red, green], grid, moments, n=3), expected, rtol=1e-12)
    height, width = grid.pixels.shape
    lazy = [
        da.from_array(band, chunks=(draw_chunks(data, height), draw_chunks(data, width)), name=False) for band in (red, green)
    ]
    np.testing.assert_allclose(chip_sums(lazy, grid, moments, n=3).compute(scheduler="sync"), expected, rtol=1e-12)


def test_nothing_is_computed_and_tasks_grow_with_chunks_not_chips() -> None:
    codes = da.zeros((1, 2048, 2048), chunks=(1, 512, 512), dtype="uint8")
    keys = []
    for size in (512, 64, 8):
        with raise_if_dask_computes():
            counts = class_counts(codes, ChipGrid(pixel_grid(2048, 2048), size))
        (optimized,) = dask.optimize(counts)
        keys.append(len(optimized.__dask_graph__()))
    assert keys[0] == keys[1] == keys[2]
    assert keys[0] <= 16 + 1, "one task a chunk, and one to put them together"


def test_a_rule_is_applied_inside_the_chunk() -> None:
    rule = values("scl", {NODATA: [0], CLOUD: [8, 9, 10]})
    scl = np.array([[0, 8, 4, 4], [9, 10, 4, 12]], "uint8")
    grid = ChipGrid(pixel_grid(2, 4), 2)
    for data in (scl, scl.astype("int64"), scl.astype("float32"), da.from_array(scl, chunks=1)):
        counts = np.asarray(class_counts(data, grid, rule))
        assert counts[:, 0].T.tolist() == [[1, 0, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 4]]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_grid_without_chips_gives_an_empty_result(lazy: bool) -> None:
    codes: Any = np.zeros((5, 5), "uint8")
    counts = class_counts(da.from_array(codes, chunks=2) if lazy else codes, ChipGrid(pixel_grid(5, 5), 8))
    assert np.asarray(counts).shape == (7, 0, 0)


def test_arrays_of_another_scene_are_refused() -> None:
    with pytest.raises(ValueError, match=r"arrays end in \(4, 4\) pixels \(y, x\), the grid is for \(5, 5\)"):
        class_counts(np.zeros((4, 4), "uint8"), ChipGrid(pixel_grid(5, 5), 2))
    with pytest.raises(ValueError, match="must have one shape"):
        chip_sums([np.zeros((4, 4)), np.zeros((4, 5))], ChipGrid(pixel_grid(4, 4), 2), lambda *a: a[0], n=1)
