"""Chips back on their grid: against the source itself and against a plain loop."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio.shutil
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xchip
from xchip.chips.stitch import stitch
from xchip.core.grid import ChipGrid, PixelGrid
from xchip.testing import raise_if_dask_computes, synthetic_stack

SHAPE = (37, 46)
ORIGIN = (499_970.0, 6_400_030.0)  # chips of anchor="crs" then begin outside the scene


def scene(shape: tuple[int, int] = SHAPE, dtype: str = "uint16", seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    values = rng.normal(scale=1e4, size=shape) if np.dtype(dtype).kind == "f" else rng.integers(0, 2**14, shape)
    values = values.astype(dtype)
    if values.dtype.kind == "f":
        values.ravel()[:: max(1, values.size // 50)] = np.resize(
            np.array([np.nan, np.inf, -np.inf, -0.0], dtype), -(-values.size // max(1, values.size // 50))
        )
    return synthetic_stack(red=values, origin=ORIGIN)


def pixels(shape: tuple[int, int] = SHAPE) -> PixelGrid:
    return PixelGrid("EPSG:32719", (10, 0, ORIGIN[0], 0, -10, ORIGIN[1]), shape)


def covered(grid: ChipGrid) -> np.ndarray:
    mask = np.zeros(grid.pixels.shape, bool)
    for chip in grid:
        rows, columns = (slice(max(0, a), max(0, a + n)) for a, n in ((chip.row_off, chip.height), (chip.col_off, chip.width)))
        mask[rows, columns] = True
    return mask


def same_bits(one: Any, other: Any) -> None:
    one, other = np.asarray(one), np.asarray(other)
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.signbit(one), np.signbit(other))


def plain_loop(chips: np.ndarray, grid: ChipGrid, numbers: list[int], weights: np.ndarray | None, fill: float) -> np.ndarray:
    """Weighted mean, or with ``weights`` None the first, pixel by pixel: (y, x) of ``chips`` (chip, y, x)."""
    out = np.full(grid.pixels.shape, fill, float)
    places = list(grid)
    for row, column in np.ndindex(*grid.pixels.shape):
        found = []
        for values, number in zip(chips, numbers, strict=True):
            y, x = row - places[number].row_off, column - places[number].col_off
            if 0 <= y < places[number].height and 0 <= x < places[number].width:
                found.append((float(values[y, x]), 1.0 if weights is None else float(weights[y, x])))
        if found and (weights is None or len(found) == 1):
            out[row, column] = found[0][0]
        elif found:
            out[row, column] = sum(v * w for v, w in found) / sum(w for _, w in found)
    return out


# The way back

RULES = [(edge, "origin") for edge in ("drop", "pad", "shift", "partial")] + [
    (edge, "crs") for edge in ("drop", "pad", "partial")
]


@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 50)),
    stride=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    rule=st.sampled_from(RULES),
    overlap=st.sampled_from(["mean", "first", "taper"]),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "float16", "float32", "float64", "bool"]),
    lazy=st.booleans(),
    data=st.data(),
)
def test_stitching_what_was_extracted_is_the_source_bit_for_bit(
    size: tuple[int, int],
    stride: tuple[int, int],
    rule: tuple[str, str],
    overlap: Any,
    dtype: str,
    lazy: bool,
    data: st.DataObject,
) -> None:
    ds = scene(dtype=dtype)
    edge, anchor = rule
    grid = ds.chips.grid(size, stride=stride, edge=edge, anchor=anchor)
    rows = ds.chips.index(grid)
    rows = rows.sample(len(rows), random_state=data.draw(st.integers(0, 9)))
    if lazy:
        ds = ds.chunk(y=20, x=17)
    chips = ds.chips.extract(rows, pad=True, batch=data.draw(st.sampled_from([1, 5, 64])))
    with raise_if_dask_computes():
        back = stitch(chips, grid, overlap=overlap, fill=77, chunks=data.draw(st.sampled_from(["auto", 11, (50, 7)])))["red"]
    assert (back.chunks is not None) == lazy
    loaded = back.compute(scheduler="sync")
    source, mask = ds["red"][0].values, covered(grid)
    if source.dtype.kind == "f" or overlap == "first" or not rows_overlap(grid):
        assert back.dtype == source.dtype
    else:
        assert back.dtype == np.result_type(source.dtype, np.float32)
    same_bits(loaded.values[mask], source[mask].astype(back.dtype))
    assert (loaded.values[~mask] == np.array(77).astype(back.dtype)).all()


def rows_overlap(grid: ChipGrid) -> bool:
    return any((np.diff(starts) < lengths[:-1]).any() for _, starts, lengths in (grid.rows, grid.columns))


@given(
    size=st.integers(3, 9),
    stride=st.integers(2, 7),
    overlap=st.sampled_from(["mean", "first", "taper", "weights"]),
    edge=st.sampled_from(["drop", "pad", "shift"]),
    data=st.data(),
)
def test_overlaps_are_those_of_a_plain_loop_in_any_chunks(
    size: int, stride: int, overlap: str, edge: Any, data: st.DataObject
) -> None:
    grid = ChipGrid(pixels((11, 13)), size, stride, edge)
    numbers = data.draw(st.permutations(range(len(grid))))[: data.draw(st.integers(0, len(grid)))]
    rng = np.random.default_rng(size)
    values = rng.integers(0, 250, (len(numbers), size, size)).astype("uint8")
    ny, nx = np.unravel_index(np.array(numbers, int), grid.shape)
    coords = {"chip_index_y": ("chip", grid.rows[0][ny]), "chip_index_x": ("chip", grid.columns[0][nx])}
    chips = xr.DataArray(values, coords, ("chip", "y", "x"))
    weights = {
        "mean": np.ones((size, size)),
        "first": None,
        "taper": np.outer(*[np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2] * 2),
        "weights": rng.uniform(0.1, 2, (size, size)),
    }[overlap]
    rule: Any = weights if overlap == "weights" else overlap
    back = stitch(chips, grid, overlap=rule, fill=251)
    np.testing.assert_allclose(back, plain_loop(values, grid, numbers, weights, 251), rtol=1e-5)
    per_block = data.draw(st.sampled_from([1, 3, 100]))
    lazy = chips.copy(data=da.from_array(values, chunks=(per_block, 4, size)))
    with raise_if_dask_computes():
        lazy_back = stitch(lazy, grid, overlap=rule, fill=251, chunks=data.draw(st.sampled_from(["auto", 5, (4, 13)])))
    same_bits(lazy_back.compute(scheduler="sync"), back)


def test_the_order_of_chips_decides_only_which_is_first() -> None:
    ds = scene(dtype="float64", seed=3)
    grid = ds.chips.grid(16, stride=8)
    rows = ds.chips.index(grid)
    chips = ds.chips.extract(rows)
    chips["red"] = chips["red"] + xr.DataArray(np.arange(len(rows)), dims="chip")
    turned = chips.isel(chip=slice(None, None, -1))
    xr.testing.assert_allclose(stitch(turned, grid), stitch(chips, grid))
    first, last = stitch(chips, grid, overlap="first")["red"], stitch(turned, grid, overlap="first")["red"]
    finite = np.isfinite(first.values) & np.isfinite(last.values)
    assert (last.values >= first.values)[finite].all()
    assert (last.values > first.values)[finite].any()


def test_missing_pixels_count_only_where_there_is_nothing_else() -> None:
    grid = ChipGrid(pixels((4, 6)), (4, 4), (4, 2))
    chips = xr.DataArray(np.zeros((2, 4, 4), "float32"), dims=("chip", "y", "x"))
    chips[0], chips[1] = 2, 4
    chips[0, 0, 2], chips[1, 1, 0], chips[0, 2, 3], chips[1, 2, 1] = [np.nan] * 4
    for overlap, both in (("mean", 3), ("taper", 3), ("first", 2)):
        back = stitch(chips, grid, overlap=overlap).values
        assert back[0, 2] == 4, "only the second has data"
        assert back[1, 2] == 2, "only the first has data"
        assert np.isnan(back[2, 3]), "none has data"
        assert back[3, 2] == pytest.approx(both, abs=0.9)
    declared = chips.fillna(-9).astype("int16").rio.write_nodata(-9)
    back = stitch(declared, grid)
    assert back.rio.nodata == -9
    assert back.values[0, 2] == 4
    assert back.values[2, 3] == -9


def test_weights_of_zero_count_only_where_there_is_nothing_else() -> None:
    grid = ChipGrid(pixels((4, 6)), (4, 4), (4, 2))
    weights = np.ones((4, 4))
    weights[:, -1] = 0
    values = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 5.0)])
    back = stitch(values, grid, overlap=weights).values
    np.testing.assert_array_equal(back, [[1, 1, 3, 5, 5, 5]] * 4)


def test_pixels_of_weight_zero_are_no_missing_pixels() -> None:
    """Against a plain loop: pixels with weight, else those without, else nothing."""
    rng = np.random.default_rng(5)
    grid = ChipGrid(pixels((11, 13)), size=(4, 4), stride=(2, 2), edge="pad")
    values = rng.normal(size=(len(grid), 4, 4)).astype("float32")
    values[rng.random(values.shape) < 0.4] = np.nan
    weights = np.zeros((4, 4))
    weights[1:3, 1:3] = rng.uniform(0.5, 2, (2, 2))
    expected = np.full(grid.pixels.shape, np.nan)
    places = list(grid)
    for row, column in np.ndindex(*grid.pixels.shape):
        found = []
        for chip, place in zip(values, places, strict=True):
            y, x = row - place.row_off, column - place.col_off
            if 0 <= y < 4 and 0 <= x < 4 and not np.isnan(chip[y, x]):
                found.append((float(chip[y, x]), float(weights[y, x])))
        if any(weight for _, weight in found):
            expected[row, column] = sum(v * w for v, w in found) / sum(w for _, w in found)
        elif found:
            expected[row, column] = sum(v for v, _ in found) / len(found)
    assert 0 < np.isnan(expected).sum() < expected.size / 2
    for chips in (values, da.from_array(values, chunks=(5, 4, 4))):
        back = stitch(chips, grid, overlap=weights, chunks=5).values
        np.testing.assert_allclose(back, expected, rtol=1e-5, atol=1e-6)
    alone = stitch(np.where(np.isnan(values), np.float32(9), values), grid, overlap=np.zeros((4, 4)))
    assert np.isfinite(alone).all()
    infinite = np.where(weights > 0, np.float32(1), np.float32(np.inf))[None].repeat(len(grid), axis=0)
    inner = stitch(infinite, grid, overlap=weights).values[2:-2, 2:-2]
    np.testing.assert_array_equal(inner, 1)


def test_float64_means_are_not_rounded_to_float32() -> None:
    grid = ChipGrid(pixels((2, 6)), (2, 4), (2, 1))
    values = np.broadcast_to(np.array([1.0, 2.0, 4.0])[:, None, None], (3, 2, 4))
    assert abs(stitch(values, grid)[0, 2].item() - 7 / 3) < 1e-15


# Values without data


def test_pixels_without_chips_hold_nodata_or_what_fill_says() -> None:
    ds = scene()
    grid = ds.chips.grid(16)
    chips = ds.chips.extract(ds.chips.index(grid))
    with pytest.raises(ValueError, match=r"chips of 'red' leave pixels uncovered, .* uint16 has no NaN .* pass fill="):
        stitch(chips, grid)
    filled = stitch(chips, grid, fill=9)["red"]
    assert (filled.values[~covered(grid)] == 9).all()
    assert filled.rio.nodata == 9
    chips["red"].rio.write_nodata(5, inplace=True)
    declared = stitch(chips, grid)["red"]
    assert (declared.values[~covered(grid)] == 5).all()
    assert declared.rio.nodata == 5
    floats = stitch(chips.drop_attrs().astype("float32"), grid)["red"]
    assert np.isnan(floats.values[~covered(grid)]).all()


@pytest.mark.parametrize("fill", [300, -1, 0.5, np.nan])
def test_a_fill_value_that_the_dtype_does_not_hold_is_refused(fill: float) -> None:
    grid = ChipGrid(pixels(), size=(16, 16))
    chips = np.zeros((len(grid), 16, 16), "uint8")
    with pytest.raises(
        ValueError, match=rf"fill value {fill!r} of pixels without .* does not fit uint8, the data type of 'stitched'"
    ):
        stitch(chips, grid, fill=fill)
    assert stitch(chips, grid, fill=255.0).values[-1, -1] == 255
    assert np.array_equal(stitch(chips.astype("float64"), grid, fill=fill).values[-1, -1], fill, equal_nan=True)


def test_full_cover_needs_no_fill() -> None:
    ds = scene()
    for edge in ("pad", "shift", "partial"):
        grid = ds.chips.grid(16, edge=edge)
        back = stitch(ds.chips.extract(ds.chips.index(grid), pad=True), grid, overlap="first")["red"]
        assert back.dtype == np.uint16
        assert back.rio.nodata is None
        gap = stitch(ds.chips.extract(ds.chips.index(grid).iloc[1:], pad=True), grid, overlap="first", fill=1)
        assert (gap["red"].values[:16, :16] == 1).any()


def test_no_chips_give_a_raster_without_data() -> None:
    ds = scene(dtype="float32").chunk()
    grid = ds.chips.grid(16)
    back = stitch(ds.chips.extract(ds.chips.index(grid).compute()[:0]), grid)["red"]
    assert back.shape == SHAPE
    assert np.isnan(back).all()


# What is said of the result


def test_the_public_name_is_the_function() -> None:
    assert importlib.import_module("xchip.chips.map")
    assert xchip.stitch is stitch


def test_the_result_lies_on_the_scenes_pixels_and_says_so() -> None:
    ds = scene()
    ds["nir"] = ds["red"].astype("float32")
    ds.attrs["sensor"] = "sentinel-2-l2a"
    grid = ds.chips.grid(16, edge="pad")
    back = stitch(ds.chips.extract(ds.chips.index(grid)), grid)
    assert list(back.data_vars) == ["red", "nir"]
    assert back["red"].dims == ("y", "x")
    assert back.rio.crs.to_epsg() == 32719
    assert back["red"].rio.crs.to_epsg() == 32719
    assert back.rio.transform() == ds.rio.transform()
    assert back.attrs == {"sensor": "sentinel-2-l2a"}
    assert back["item_id"].item() == "synthetic-0"
    assert back["time"].values == ds["time"].values[0]
    np.testing.assert_array_equal(back["x"], ds["x"])
    again = back.chips.index(16, edge="pad")
    assert again["chip_id"].tolist() == ds.chips.index(16, edge="pad")["chip_id"].tolist()


def test_other_dimensions_stay_in_front_with_their_coordinates() -> None:
    ds = scene()
    grid = ds.chips.grid(16, stride=8, edge="pad")
    chips = ds.chips.extract(ds.chips.index(grid))["red"].astype("float32")
    classes = xr.concat([chips, -chips], xr.Variable("class", ["a", "b"]))
    back = stitch(classes, grid)
    assert back.dims == ("class", "y", "x")
    assert back["class"].values.tolist() == ["a", "b"]
    np.testing.assert_array_equal(back[1], -ds["red"][0].astype("float32"))
    lazy = stitch(classes.chunk({"class": 1, "chip": 4}), grid)
    assert lazy.chunks is not None
    assert lazy.chunks[0] == (1, 1)
    np.testing.assert_array_equal(lazy, back)


def test_plain_arrays_are_the_chips_of_the_grid_in_order() -> None:
    ds = scene()
    grid = ds.chips.grid(16, edge="pad")
    chips = ds.chips.extract(ds.chips.index(grid))["red"]
    np.testing.assert_array_equal(stitch(chips.values, grid), ds["red"][0])
    np.testing.assert_array_equal(stitch(np.stack([chips.values] * 2, axis=1), grid)[1], ds["red"][0])
    np.testing.assert_array_equal(stitch(da.from_array(chips.values, chunks=2), grid), ds["red"][0])


# Coarser chips


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("edge", "anchor"), [("drop", "origin"), ("pad", "origin"), ("pad", "crs"), ("partial", "origin")])
def test_coarser_chips_give_a_coarser_raster(edge: Any, anchor: Any, lazy: bool) -> None:
    ds = scene((40, 56), "float64", seed=1).fillna(3).clip(-1e5, 1e5)
    grid = ds.chips.grid(16, edge=edge, anchor=anchor)
    chips = ds.chips.extract(ds.chips.index(grid), pad=True)
    if lazy:
        chips = chips.chunk(chip=3)
    coarse = chips.coarsen(y=4, x=4).max()
    back = stitch(coarse, grid, chunks=4)["red"]
    start = (-round((back.rio.bounds()[0] - ds.rio.bounds()[0]) / 10), round((back.rio.bounds()[3] - ds.rio.bounds()[3]) / 10))
    assert back.rio.resolution() == (40, -40)
    # Padding of chips is 0, so at the border the source is padded likewise.
    want = np.zeros((back.shape[0] * 4, back.shape[1] * 4))
    want[start[1] : start[1] + 40, start[0] : start[0] + 56] = ds["red"][0]
    want = want.reshape(back.shape[0], 4, back.shape[1], 4).max(axis=(1, 3))
    got = back.values
    if edge == "drop":
        assert np.isnan(got[8:]).all()
        assert np.isnan(got[:, 12:]).all()
        got, want = got[:8, :12], want[:8, :12]
    if anchor == "crs":
        assert start == (1, 1), "x begins 3 pixels after a cell, y 3 before one"
    np.testing.assert_array_equal(got, want)


def test_coarser_chips_of_overlapping_grids() -> None:
    ds = scene((40, 56), "uint8")
    grid = ds.chips.grid(16, stride=8)
    chips = ds.chips.extract(ds.chips.index(grid))
    back = stitch(chips.isel(y=slice(None, None, 8), x=slice(None, None, 8)), grid, overlap="first")["red"]
    np.testing.assert_array_equal(back, ds["red"][0, ::8, ::8])


@pytest.mark.parametrize("lazy", [False, True])
def test_one_value_a_chip_gives_one_pixel_a_chip(lazy: bool) -> None:
    ds = scene()
    grid = ds.chips.grid(16)
    rows = ds.chips.index(grid)
    chips = ds.chips.extract(rows)["red"].chunk(chip=2 if lazy else -1)
    chips = chips if lazy else chips.compute()
    values = chips.max(("y", "x"))
    back = stitch(values.isel(chip=[3, 0, 1, 2]), grid, fill=0)
    assert back.shape == grid.shape
    assert back.rio.transform()[:6] == (160, 0, ORIGIN[0], 0, -160, ORIGIN[1])
    want = [[ds["red"][0, y : y + 16, x : x + 16].max().item() for x in (0, 16)] for y in (0, 16)]
    np.testing.assert_array_equal(back, want)
    vectors = xr.concat([values, values + 1], "feature")
    np.testing.assert_array_equal(stitch(vectors, grid, fill=0)[1], np.array(want) + 1)
    np.testing.assert_array_equal(stitch(values.values, grid), want)


def test_chips_that_do_not_line_up_when_coarse_are_refused() -> None:
    small = ChipGrid(pixels(), 16, edge="shift")
    with pytest.raises(ValueError, match=r"4 times as coarse as the grid along y, .* whole steps of 4 .* begins at row 21"):
        stitch(np.zeros((len(small), 4, 4)), small)
    with pytest.raises(ValueError, match=r"one value a chip makes a raster only where chips lie side by side; along y"):
        stitch(np.zeros(len(small)), small)
    strided = ChipGrid(pixels(), 16, 8)
    with pytest.raises(ValueError, match=r"side by side; .* \(stride=8, edge='drop'\)"):
        stitch(np.zeros(len(strided)), strided)
    with pytest.raises(ValueError, match="height of 5 pixels, which is neither the grid's 16 nor a whole part of it"):
        stitch(np.zeros((len(strided), 5, 5)), strided)
    ds = scene()
    rows = ds.chips.index(16, edge="partial")
    border = ds.chips.extract(rows[rows.height < 16], pad=True)["red"].astype("float32")
    grid = ds.chips.grid(16, edge="partial")
    np.testing.assert_array_equal(stitch(border, grid)[32:], ds["red"][0, 32:].astype("float32"))
    with pytest.raises(ValueError, match="to at most 5 of 16: that does not tell how coarse they are"):
        stitch(border.isel(y=slice(0, 4)), grid)


# Refusals


def test_chips_of_something_else_are_refused() -> None:
    ds = scene()
    grid = ds.chips.grid(16)
    chips = ds.chips.extract(ds.chips.index(grid))
    with pytest.raises(ValueError, match=r"'synthetic-0-0-0' is not the only chip at chip_y=0, chip_x=0"):
        stitch(chips.isel(chip=[0, 1, 0]), grid)
    with pytest.raises(
        ValueError, match=r"chip 'synthetic-0-0-1': no chip of the grid begins at row 16 \(the grid has 0 to 15\)"
    ):
        stitch(chips, ds.chips.grid(16, stride=15))
    with pytest.raises(ValueError, match=r"has a height of 16 pixels, the grid's chip at row 0 has 8"):
        stitch(chips, ds.chips.grid(8))
    with pytest.raises(ValueError, match=r"does not lie on the grid's pixels: it begins at column 0\.500"):
        stitch(chips.assign_coords(proj_left=chips.proj_left + 5), grid)
    with pytest.raises(ValueError, match="is in EPSG:32601, the grid in EPSG:32719"):
        stitch(chips.assign_coords(proj_code=("chip", ["EPSG:32601"] * 4)), grid)
    with pytest.raises(ValueError, match=r"there are 3 chips, the grid has 4, and no coordinates tell which"):
        stitch(chips["red"].values[:3], grid)
    with pytest.raises(ValueError, match=r"chip number 0: no chip of the grid has chip_index_y=7 \(the grid has 0 to 1\)"):
        stitch(xr.DataArray(np.zeros((1, 16, 16)), {"chip_index_y": ("chip", [7]), "chip_index_x": ("chip", [0])}, ("chip", "y", "x")), grid)  # fmt: skip # noqa: E501
    with pytest.raises(ValueError, match="must have a dimension 'chip'"):
        stitch(ds, grid)
    with pytest.raises(ValueError, match=r"variable 'mean' has pixels of \(160\.0, 160\.0\).*stitch each variable alone"):
        stitch(chips.assign(mean=chips["red"].mean(("y", "x"))), grid, fill=0)
    with pytest.raises(ValueError, match="overlap must be one of"):
        stitch(chips, grid, overlap="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights must be finite, at least 0"):
        stitch(chips, grid, overlap=-np.ones((16, 16)))
    with pytest.raises(ValueError, match=r"weights have the shape \(8, 8\), but the chips of 'red' have \(16, 16\)"):
        stitch(chips, grid, overlap=np.ones((8, 8)), fill=0)


# The graph


def tasks(array: xr.DataArray, prefix: str) -> int:
    return sum(1 for key in array.__dask_graph__() if isinstance(key, tuple) and str(key[0]).startswith(prefix))


def test_the_graph_grows_with_blocks_and_chunks_not_with_chips() -> None:
    shape = (256, 256)
    for size in (4, 16):
        grid = ChipGrid(pixels(shape), size)
        chips = da.zeros((len(grid), size, size), chunks=(len(grid) // 4, size, size), dtype="uint8")
        back = stitch(chips, grid, chunks=128)
        # Four blocks of chips, each a strip as wide as the scene: two chunks each.
        assert (tasks(back, "stitch-"), tasks(back, "cut-")) == (4, 8)
        assert len(back.__dask_graph__()) == 4 + 4 + 8


def test_a_chunk_needs_only_the_chips_in_it() -> None:
    grid = ChipGrid(pixels((256, 256)), 32, 32)
    seen: list[int] = []

    def make(block_id: tuple[int, ...]) -> np.ndarray:
        seen.append(block_id[0])
        return np.full((8, 32, 32), block_id[0], "uint8")

    chips = da.map_blocks(make, chunks=((8,) * 8, (32,), (32,)), dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))
    back = stitch(chips, grid, chunks=64)
    assert (back[70:80, :40].compute(scheduler="sync") == 2).all()
    assert sorted(seen) == [2, 3]


def test_the_same_call_gives_the_same_graph() -> None:
    grid = ChipGrid(pixels((64, 64)), 16, 8)
    chips = da.zeros((len(grid), 16, 16), chunks=(4, 16, 16))
    assert stitch(chips, grid).data.name == stitch(chips, grid).data.name
    assert stitch(chips, grid).data.name != stitch(chips, grid, overlap="taper").data.name


def test_chunks_are_whole_strides_and_about_2048_pixels() -> None:
    grid = ChipGrid(pixels((10_980, 10_980)), 256, 192, "pad")
    chips = da.zeros((len(grid), 256, 256), chunks=(64, 256, 256), dtype="uint8")
    back = stitch(chips, grid)
    assert back.chunks is not None
    assert back.chunks[0][:2] == (1920, 1920)
    deep = da.zeros((len(grid), 40, 256, 256), chunks=(64, 40, 256, 256), dtype="float32")
    assert stitch(deep, grid).chunks[1][0] == 576  # type: ignore[index]


def test_chips_of_many_scenes_worth_are_planned_quickly() -> None:
    grid = ChipGrid(pixels((16_000, 16_000)), 16)
    chips = da.zeros((len(grid), 16, 16), chunks=(10_000, 16, 16), dtype="uint8")
    back = stitch(chips, grid)
    assert len(grid) == 1_000_000
    assert len(back.__dask_graph__()) < 2000


# To disk


def test_round_trip_through_a_geotiff(tmp_path: Path) -> None:
    ds = scene((120, 150)).chunk(y=64, x=64)
    grid = ds.chips.grid(32, stride=24, edge="pad")
    back = stitch(ds.chips.extract(ds.chips.index(grid).compute()), grid, overlap="first", chunks=48)["red"]
    path = tmp_path / "red.tif"
    with dask.config.set(scheduler="threads"):
        back.rio.to_raster(path, tiled=True, blockxsize=48, blockysize=48, lock=True)  # chunk by chunk
        back.rio.to_raster(tmp_path / "cog.tif", driver="COG")  # from memory
    rasterio.shutil.copy(path, tmp_path / "copied.tif", driver="COG")
    for name in ("red.tif", "cog.tif", "copied.tif"):
        with rioxarray.open_rasterio(tmp_path / name) as read:  # type: ignore[union-attr]
            np.testing.assert_array_equal(read[0], ds["red"][0])
            assert read.rio.crs == back.rio.crs
            assert read.rio.transform() == ds.rio.transform()


def test_round_trip_through_zarr(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    ds = scene((120, 150)).chunk(y=64, x=64)
    ds["red"].rio.write_nodata(0, inplace=True)
    grid = ds.chips.grid(32, stride=24, edge="pad", anchor="crs")
    back = stitch(ds.chips.extract(ds.chips.index(grid).compute()), grid, overlap="first", chunks=48)
    back.drop_vars("item_id").to_zarr(tmp_path / "red.zarr", consolidated=False)
    read = xr.open_zarr(tmp_path / "red.zarr", consolidated=False, mask_and_scale=False, decode_coords="all")
    np.testing.assert_array_equal(read["red"], ds["red"][0])
    assert read.rio.crs == back.rio.crs
    assert read["red"].rio.nodata == 0
