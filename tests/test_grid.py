"""Chips and pixel lattices: laws, and results against plain loops written from the contract's words."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pyproj
import pytest
import rasterio.windows
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.transform import Affine

from xchip.core.grid import AxisMap, Chip, ChipGrid, PixelGrid, alignment, chip_grid, proj_code

EDGES = ("drop", "pad", "shift", "partial")
lengths = st.integers(1, 60)
sizes = st.integers(1, 25)


def pixels(
    shape: tuple[int, int] = (600, 1000),
    left: float = 499980.0,
    top: float = 6400000.0,
    res: float = 10.0,
    crs: str = "EPSG:32720",
) -> PixelGrid:
    return PixelGrid(crs, (res, 0.0, left, 0.0, -res, top), shape)


def spans(grid: ChipGrid, axis: str) -> list[tuple[int, int, int]]:
    """(index, first pixel, pixel after the last) of the chips along one axis."""
    index, offset, length = grid.rows if axis == "y" else grid.columns
    return [(int(i), int(o), int(o + n)) for i, o, n in zip(index, offset, length, strict=True)]


# A plain loop, word by word: "chips start at 0, stride, 2 x stride ..."; "drop" keeps whole ones; the others go on until
# the first that reaches the border; a chip whose first pixel is outside is never made.


def loop_from_origin(n: int, size: int, stride: int, edge: str) -> list[tuple[int, int, int]]:
    chips = []
    index = 0
    while index * stride < n:
        start, stop = index * stride, index * stride + size
        reaches = stop >= n
        if stop <= n or edge == "pad":
            chips.append((index, start, stop))
        elif edge == "shift":
            chips.append((index, max(0, n - size), n))
        elif edge == "partial":
            chips.append((index, start, n))
        if reaches:
            break
        index += 1
    return chips


def loop_from_crs(first_pixel: int, n: int, size: int, stride: int, edge: str) -> list[tuple[int, int, int]]:
    """The same with cells that begin at multiples of stride on the CRS's lattice, where the scene begins at ``first_pixel``."""
    chips = []
    index = first_pixel // stride
    while index * stride < first_pixel + n:
        start, stop = index * stride - first_pixel, index * stride - first_pixel + size
        if edge == "drop":
            if start >= 0 and stop <= n:
                chips.append((index, start, stop))
        elif stop > 0:
            chips.append((index, start, stop) if edge == "pad" else (index, max(start, 0), min(stop, n)))
        if stop >= n:
            break
        index += 1
    return chips


@given(n=lengths, size=sizes, stride=sizes, edge=st.sampled_from(EDGES))
def test_chips_from_the_origin_are_those_of_the_contract(n: int, size: int, stride: int, edge: str) -> None:
    expected = loop_from_origin(n, size, stride, edge)
    assert spans(ChipGrid(pixels((n, 7)), (size, 3), (stride, 3), edge), "y") == expected
    assert spans(ChipGrid(pixels((7, n)), (3, size), (3, stride), edge), "x") == expected


@given(
    start=st.integers(-80, 80),
    n=lengths,
    size=sizes,
    stride=sizes,
    edge=st.sampled_from(("drop", "pad", "partial")),
    phase=st.sampled_from([0.0, 0.25, 0.5, 1 / 3]),
    res=st.sampled_from([10.0, 30.0, 0.6, 0.00025, 463.3127165279165]),
)
def test_chips_from_the_crs_are_those_of_the_contract(
    start: int, n: int, size: int, stride: int, edge: str, phase: float, res: float
) -> None:
    expected = loop_from_crs(start, n, size, stride, edge)
    edge_at = (start + phase) * res
    across = ChipGrid(pixels((7, n), left=edge_at, res=res), (3, size), (3, stride), edge, "crs")
    assert spans(across, "x") == expected
    down = ChipGrid(pixels((n, 7), top=-edge_at, res=res), (size, 3), (stride, 3), edge, "crs")  # counted downwards
    assert spans(down, "y") == expected
    assert across.phase[1] == pytest.approx(phase * res, abs=2e-6 * res)


@given(n=lengths, size=sizes, gap=st.integers(0, 10), edge=st.sampled_from(("drop", "pad", "partial")))
def test_chips_are_disjoint_where_the_stride_is_no_less_than_the_size(n: int, size: int, gap: int, edge: str) -> None:
    chips = spans(ChipGrid(pixels((n, 1)), (size, 1), (size + gap, 1), edge), "y")
    assert all(before[2] <= after[1] for before, after in itertools.pairwise(chips))


@given(height=lengths, width=lengths, size=sizes)
def test_drop_covers_floor_of_shape_by_size(height: int, width: int, size: int) -> None:
    grid = ChipGrid(pixels((height, width)), size)
    assert grid.shape == (height // size, width // size)
    covered = np.zeros((height, width), int)
    for chip in grid:
        covered[chip.row_off : chip.row_off + chip.height, chip.col_off : chip.col_off + chip.width] += 1
    assert (covered[: height // size * size, : width // size * size] == 1).all()
    assert covered.sum() == (height // size) * (width // size) * size**2


@given(
    n=lengths,
    size=sizes,
    less=st.integers(0, 24),
    edge=st.sampled_from(("pad", "partial", "shift")),
    anchor=st.sampled_from(("origin", "crs")),
    start=st.integers(-50, 50),
)
def test_the_scene_is_covered_where_the_stride_is_no_more_than_the_size(
    n: int, size: int, less: int, edge: str, anchor: str, start: int
) -> None:
    assume((edge, anchor) != ("shift", "crs"))
    grid = ChipGrid(pixels((1, n), left=start * 10.0), (1, size), (1, max(1, size - less)), edge, anchor)
    covered = np.zeros(n, bool)
    for _, first, last in spans(grid, "x"):
        assert last - first == min(size, n) or edge == "partial" or (edge == "pad" and last - first == size)
        assert edge == "pad" or (first >= 0 and last <= n)
        assert first < n
        assert last > 0
        covered[max(first, 0) : last] = True
    assert covered.all()


@given(
    left=st.integers(-200, 200),
    move=st.integers(-60, 60),
    n=st.integers(1, 80),
    m=st.integers(1, 80),
    size=sizes,
    stride=sizes,
    half=st.booleans(),
)
def test_scenes_on_one_lattice_share_cells(left: int, move: int, n: int, m: int, size: int, stride: int, half: bool) -> None:
    origin = (left + 0.5 * half) * 30.0  # Landsat's origins lie at half a pixel
    here, there = (
        ChipGrid(pixels((1, count), left=origin + 30.0 * shift, res=30.0), (1, size), (1, stride), "pad", "crs")
        for count, shift in ((n, 0), (m, move))
    )
    bounds_here, bounds_there = ({chip.chip_index_x: (chip.bounds[0], chip.bounds[2]) for chip in grid} for grid in (here, there))
    assert here.phase == there.phase
    for index in bounds_here.keys() & bounds_there.keys():
        assert bounds_here[index] == bounds_there[index]
    shared = set(bounds_here.values()) & set(bounds_there.values())
    assert len(shared) == len(bounds_here.keys() & bounds_there.keys())
    for index, (x0, _) in bounds_here.items():
        assert index == np.floor(Fraction(x0 - here.phase[1]) / (stride * 30))


def test_crs_indices_may_be_negative_and_count_downwards() -> None:
    grid = ChipGrid(pixels((512, 512), left=-5120.0, top=2560.0), 256, anchor="crs")
    assert [(chip.chip_index_y, chip.chip_index_x) for chip in grid] == [(-1, -2), (-1, -1), (0, -2), (0, -1)]
    assert grid.chip(chip_y=0, chip_x=0).bounds == (-5120.0, 0.0, -2560.0, 2560.0)


def test_origin_indices_count_right_and_downwards() -> None:
    grid = ChipGrid(pixels(), 256)
    chips = list(grid)
    assert len(chips) == len(grid) == 6
    assert [(chip.chip_index_y, chip.chip_index_x) for chip in chips] == [(y, x) for y in range(2) for x in range(3)]
    assert chips[3] == Chip(1, 0, 256, 0, 256, 256, (499980.0, 6394880.0, 502540.0, 6397440.0))
    assert chips[0].bounds[3] > chips[3].bounds[3]


@given(
    rows=st.integers(0, 3),
    columns=st.integers(0, 3),
    stride=st.integers(1, 9),
    size=st.integers(1, 12),
    edge=st.sampled_from(EDGES),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
)
def test_slice_then_grid_is_grid_then_slice(
    rows: int, columns: int, stride: int, size: int, edge: str, height: int, width: int
) -> None:
    whole = pixels((height + rows * stride, width + columns * stride))
    part = whole.window(row_off=rows * stride, col_off=columns * stride, height=height, width=width)
    sliced = [chip.bounds for chip in ChipGrid(part, size, stride, edge)]
    # A scene smaller than a chip has one all the same, but a larger scene ends at the first chip that reaches its border.
    assume(edge == "drop" or size <= min(height, width))
    grid = ChipGrid(whole, size, stride, edge)
    assert sliced == [chip.bounds for chip in grid if chip.chip_index_y >= rows and chip.chip_index_x >= columns]


@given(
    size=sizes,
    stride=sizes,
    edge=st.sampled_from(EDGES),
    left=st.floats(-1e6, 1e6),
    top=st.floats(-1e6, 1e7),
    res=st.floats(1e-4, 1e3),
)
def test_bounds_are_those_of_rasterio(size: int, stride: int, edge: str, left: float, top: float, res: float) -> None:
    grid = ChipGrid(pixels((40, 50), left, top, res), size, stride, edge)
    transform = Affine(*grid.pixels.transform)
    (lefts, rights), (bottoms, tops) = grid.x_bounds, grid.y_bounds
    for i, j in ((0, 0), (-1, -1)):
        if not len(grid):
            continue
        chip = grid.chip(chip_y=i, chip_x=j)
        window = rasterio.windows.Window(chip.col_off, chip.row_off, chip.width, chip.height)
        assert chip.bounds == pytest.approx(rasterio.windows.bounds(window, transform), abs=2e-6 * res, rel=1e-12)
        assert chip.bounds == (lefts[j], bottoms[i], rights[j], tops[i])


def test_neighbours_have_the_same_edge_to_the_last_bit() -> None:
    grid = ChipGrid(pixels((3000, 3000), left=0.1, top=0.3, res=0.1), 7)
    (left, right), (bottom, top) = grid.x_bounds, grid.y_bounds
    assert (left[1:] == right[:-1]).all()
    assert (bottom[:-1] == top[1:]).all()


@pytest.mark.parametrize("edge", ["pad", "partial", "drop"])
@pytest.mark.parametrize("anchor", ["origin", "crs"])
def test_extent_holds_scene_and_chips(edge: str, anchor: str) -> None:
    grid = ChipGrid(pixels((100, 130), left=55.0), 64, edge=edge, anchor=anchor)
    boxes = np.array([chip.bounds for chip in grid] + [grid.pixels.bounds])
    assert grid.extent.bounds == (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0))
    assert grid.pixels.offset_of(grid.extent) is not None


# Bad input


@pytest.mark.parametrize(
    "value", [0, -1, (256, 0), (-3, 4), 2.5, 256.0, "256", (1, 2, 3), None, [[1], 2], (256, 1.5), np.array([])]
)
def test_a_size_that_is_no_number_of_pixels_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^size must be (at least 1 pixel|a whole number of pixels or \(height, width\)), got"):
        ChipGrid(pixels(), value)


@pytest.mark.parametrize("value", [0, -5, (0, 4), 12.0, "x"])
def test_a_stride_that_is_no_number_of_pixels_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^stride must be"):
        ChipGrid(pixels(), 256, value)


@pytest.mark.parametrize("value", [64, (64, 64), [64, 64], np.int64(64), np.array(64), np.array([64, 64])])
def test_a_size_may_be_any_whole_number_or_pair(value: object) -> None:
    grid = ChipGrid(pixels(), value)
    assert grid.size == grid.stride == (64, 64)
    assert all(type(length) is int for length in grid.size)


def test_names_of_edges_and_anchors_are_checked() -> None:
    with pytest.raises(ValueError, match=r"edge must be one of \('drop', 'pad', 'shift', 'partial'\), got 'crop'"):
        ChipGrid(pixels(), 256, edge="crop")
    with pytest.raises(ValueError, match=r"anchor must be one of \('origin', 'crs'\), got 'utm'"):
        ChipGrid(pixels(), 256, anchor="utm")
    with pytest.raises(ValueError, match='edge="shift" moves chips off the cells'):
        ChipGrid(pixels(), 256, edge="shift", anchor="crs")


@pytest.mark.parametrize("index", [(2, 0), (0, 3), (-3, 0), (0, -4), (99, 99)])
def test_an_index_outside_names_the_grids_shape(index: tuple[int, int]) -> None:
    with pytest.raises(IndexError, match=r"outside the grid of 2 x 3 chips \(chip_y, chip_x\)"):
        ChipGrid(pixels(), 256).chip(chip_y=index[0], chip_x=index[1])


def test_negative_indices_count_from_the_end() -> None:
    grid = ChipGrid(pixels(), 256)
    assert grid.chip(chip_y=-1, chip_x=-3) == grid.chip(chip_y=1, chip_x=0)


def test_a_chip_larger_than_the_scene() -> None:
    small = pixels((100, 120))
    assert len(ChipGrid(small, 256)) == 0
    assert list(ChipGrid(small, 256)) == []
    assert ChipGrid(small, 256).extent == small
    assert [(c.height, c.width) for c in ChipGrid(small, 256, edge="pad")] == [(256, 256)]
    assert [(c.height, c.width) for c in ChipGrid(small, 256, edge="shift")] == [(100, 120)]
    assert [(c.height, c.width) for c in ChipGrid(small, 256, edge="partial")] == [(100, 120)]


def test_chip_grid_takes_a_grid_as_it_is() -> None:
    grid = ChipGrid(pixels(), 256, 128, "pad", "crs")
    assert chip_grid(pixels(), grid) is grid
    assert chip_grid(pixels(), (256, 256), stride=128, edge="pad", anchor="crs") == grid
    assert grid.on(pixels((10, 10))).options == grid.options
    with pytest.raises(ValueError, match="has its own stride, edge and anchor"):
        chip_grid(pixels(), grid, edge="pad")
    with pytest.raises(ValueError, match=r"is for \(600, 1000\) pixels \(height, width\), the array has \(10, 10\)"):
        chip_grid(pixels((10, 10)), grid)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ((10, 1, 0, 0, -10, 0), "north up and not rotated"),
        ((10, 0, 0, 2, -10, 0), "north up and not rotated"),
        ((10, 0, 0, 0, 10, 0), "north up and not rotated"),
        ((-10, 0, 0, 0, -10, 0), "north up and not rotated"),
        ((float("nan"), 0, 0, 0, -10, 0), "north up and not rotated"),
        ((10, 0, float("inf"), 0, -10, 0), "north up and not rotated"),
    ],
)
def test_rotated_or_broken_transforms_are_refused(transform: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelGrid("EPSG:32720", transform, (10, 10))


def test_a_pixel_grid_has_pixels() -> None:
    with pytest.raises(ValueError, match=r"at least one row and one column, got shape \(0, 10\)"):
        pixels((0, 10))


# Lattices from coordinates


@given(
    height=st.integers(2, 50),
    width=st.integers(2, 50),
    left=st.integers(-(10**7), 10**7),
    top=st.integers(-(10**7), 10**7),
    res=st.sampled_from([10.0, 30.0, 0.5, 0.1, 0.00025, 463.3127165279165, 2004.017315487541]),
    flip_y=st.booleans(),
    flip_x=st.booleans(),
)
def test_lattice_of_centres(height: int, width: int, left: int, top: int, res: float, flip_y: bool, flip_x: bool) -> None:
    scale = 1.0 if res >= 0.5 else 1e-5  # degrees
    grid = pixels((height, width), left * scale, top * scale, res)
    y, x = grid.centres()
    again = PixelGrid.from_centres(y=y[::-1] if flip_y else y, x=x[::-1] if flip_x else x, crs=grid.crs)
    assert again.shape == grid.shape
    assert again.transform == pytest.approx(grid.transform, abs=1e-6 * res)
    assert grid.offset_of(again) == (0, 0)


def test_float32_coordinates_of_degrees() -> None:
    grid = pixels((900, 1100), left=-63.7, top=-31.2, res=0.00025, crs="EPSG:4326")
    y, x = (values.astype(np.float32) for values in grid.centres())
    again = PixelGrid.from_centres(y=y, x=x, crs="EPSG:4326")
    assert np.abs(np.subtract(again.transform, grid.transform)).max() < 0.01 * 0.00025


def test_not_square_and_whole_number_coordinates() -> None:
    grid = PixelGrid.from_centres(y=np.array([30, 20, 10]), x=np.array([100, 105], dtype="uint16"), crs="EPSG:3857")
    assert grid.transform == (5.0, 0.0, 97.5, 0.0, -10.0, 35.0)
    assert grid.res == (10.0, 5.0)
    assert grid.bounds == (97.5, 5.0, 107.5, 35.0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([1.0]), "coordinate 'x' has a single value, so the pixel size is unknown; keep at least two"),
        (np.array([1.0, np.nan, 3.0]), "coordinate 'x' holds NaN or infinite values"),
        (np.array([1.0, np.inf]), "coordinate 'x' holds NaN or infinite values"),
        (np.array([1.0, 2.0, 4.0]), "coordinate 'x' is not evenly spaced; chips need a regular pixel grid$"),
        (np.array([1.0, 1.0]), "coordinate 'x' is not evenly spaced"),
        (np.array([1.0, 2.0, 1.0]), "coordinate 'x' is not evenly spaced"),
        (np.arange(4e6, 4e6 + 3, 0.3).astype("float32"), "not evenly spaced.*try float64"),
        (np.array([]), "coordinate 'x' must have one dimension and at least two values"),
        (np.array([[1.0, 2.0]]), "coordinate 'x' must have one dimension"),
        (np.array(["a", "b"]), "coordinate 'x' must hold numbers"),
    ],
)
def test_coordinates_that_make_no_lattice(x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelGrid.from_centres(y=np.array([2.0, 1.0]), x=x, crs="EPSG:32720")


# One lattice on another


def pixel_at(grid: PixelGrid, x: Fraction, y: Fraction) -> tuple[int, int]:
    """(row, column) of the pixel that holds a point; the one to the right or below, where the point is on an edge."""
    a, _, c, _, e, f = (Fraction(value) for value in grid.transform)
    return (f - y) // -e, (x - c) // a


@given(
    fine=st.sampled_from([10.0, 0.5, 30.0]),
    source_factor=st.integers(1, 4),
    target_factor=st.integers(1, 4),
    rows=st.integers(-12, 12),
    columns=st.integers(-12, 12),
)
def test_alignment_is_the_source_pixel_under_each_centre(
    fine: float, source_factor: int, target_factor: int, rows: int, columns: int
) -> None:
    source = pixels((6, 7), 499980.0 + columns * fine, 6400000.0 - rows * fine, fine * source_factor)
    target = pixels((5, 4), 499980.0, 6400000.0, fine * target_factor)
    found = alignment(source=source, target=target)
    ratio = Fraction(max(source_factor, target_factor), min(source_factor, target_factor))
    step = min(source_factor, target_factor)
    if ratio.denominator != 1 or rows % step or columns % step:
        assert found is None
        return
    assert found is not None
    y, x = target.centres()
    for row in range(5):
        for column in range(4):
            expected = pixel_at(source, Fraction(x[column]), Fraction(y[row]))
            assert (found.y.source_index(np.array(row)), found.x.source_index(np.array(column))) == expected


def test_lattices_that_drift_apart_are_not_one() -> None:
    long = PixelGrid("EPSG:32720", (10.0, 0, 0, 0, -10.0, 0), (10, 10980))
    assert alignment(source=PixelGrid("EPSG:32720", (10.001, 0, 0, 0, -10.0, 0), (10, 10980)), target=long) is None
    near = PixelGrid("EPSG:32720", (10.000000001, 0, 0, 0, -10.0, 0), (10, 10980))
    assert alignment(source=near, target=long) is not None
    assert alignment(source=pixels(left=0.4), target=pixels(left=0.0)) is None


def test_offset_on_a_lattice() -> None:
    whole = pixels()
    assert whole.offset_of(whole.window(row_off=-3, col_off=17, height=5, width=5)) == (-3, 17)
    assert whole.offset_of(pixels(res=20.0)) is None
    assert whole.offset_of(pixels(crs="EPSG:32719")) is None
    assert whole.offset_of(pixels(left=499985.0)) is None


def test_axis_map_takes_the_pixel_at_the_centre() -> None:
    assert AxisMap(2, -1).source_index(np.arange(4)).tolist() == [0, 1, 1, 2]
    assert AxisMap(-3, 0).source_index(np.arange(3)).tolist() == [1, 4, 7]
    assert AxisMap(-2, 0).source_index(np.arange(3)).tolist() == [1, 3, 5]


def test_proj_code_is_a_code_where_there_is_one() -> None:
    assert proj_code(pyproj.CRS(32720)) == "EPSG:32720"
    sinusoidal = proj_code(pyproj.CRS("+proj=sinu +R=6371007.181"))
    assert sinusoidal.startswith("PROJCRS[")
    assert pyproj.CRS(sinusoidal).equals(pyproj.CRS("+proj=sinu +R=6371007.181"))
