"""Chips out of arrays: against xarray's own slices, NumPy and Dask alike."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xchip.testing import raise_if_dask_computes, synthetic_stack


def stack(height: int = 70, width: int = 90, times: int = 2, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    red = rng.integers(1, 60000, (times, height, width)).astype("uint16")
    scl = rng.integers(0, 12, (times, height, width)).astype("uint8")
    ds = synthetic_stack(scl=scl, red=red)
    ds["red"].rio.write_nodata(7, inplace=True)
    return ds


def window_of(ds: xr.Dataset, row: Any, time: int) -> xr.Dataset:
    return ds.isel(time=time, y=slice(row.row_off, row.row_off + row.height), x=slice(row.col_off, row.col_off + row.width))


@given(st.sampled_from(["drop", "shift"]), st.integers(1, 40), st.integers(1, 50), st.booleans(), st.data())
def test_extract_gives_the_windows_in_row_order(edge: str, size: int, stride: int, lazy: bool, data: st.DataObject) -> None:
    ds = stack()
    rows = ds.chips.index(size, stride=stride, edge=edge)
    rows = rows.sample(min(len(rows), 9), random_state=data.draw(st.integers(0, 99)))
    if lazy:
        chunks = {name: data.draw(st.sampled_from([13, 32, 100])) for name in ("y", "x")}
        ds = ds.chunk(time=data.draw(st.sampled_from([1, 2])), **chunks)
    with raise_if_dask_computes():
        chips = ds.chips.extract(rows, batch=4)
    assert chips["red"].dims == ("chip", "y", "x")
    assert chips["red"].dtype == np.uint16
    assert chips["chip_id"].values.tolist() == rows["chip_id"].tolist()
    loaded = chips.compute(scheduler="sync")
    for position, row in enumerate(rows.itertuples()):
        time = ds["item_id"].values.tolist().index(row.item_id)
        for band in ("red", "scl"):
            np.testing.assert_array_equal(loaded[band][position], window_of(ds, row, time)[band])


@pytest.mark.parametrize("lazy", [False, True])
def test_padded_chips_hold_nodata_outside(lazy: bool) -> None:
    ds = stack(times=1)
    rows = ds.chips.index(64, edge="pad")
    chips = (ds.chunk(y=20, x=33) if lazy else ds).chips.extract(rows).compute()
    assert chips["red"].shape == (4, 64, 64)
    last = chips.isel(chip=3)
    np.testing.assert_array_equal(last["red"][:6, :26], ds["red"][0, 64:, 64:])
    assert (last["red"].values[6:] == 7).all(), "the band's nodata"
    assert (last["scl"].values[:, 26:] == 0).all(), "0 where none is declared"


def test_chips_of_several_sizes_need_pad() -> None:
    ds = stack(times=1)
    rows = ds.chips.index(64, edge="partial")
    with pytest.raises(ValueError, match=r"several sizes \(height, width\): \[\(6, 26\), \(6, 64\), .*pad=True"):
        ds.chips.extract(rows)
    chips = ds.chips.extract(rows, pad=True)
    assert chips["red"].shape == (4, 64, 64)
    assert (chips["red"].values[3, 6:] == 7).all()


def test_the_graph_grows_with_blocks_not_with_chips() -> None:
    ds = stack(256, 256, times=1).chunk(y=128, x=128)
    few, many = (ds.chips.extract(ds.chips.index(size).compute(), batch=100_000) for size in (64, 4))
    assert len(few["red"].__dask_graph__()) == len(many["red"].__dask_graph__())


@pytest.mark.parametrize("flip", [{"y": slice(None, None, -1)}, {"x": slice(None, None, -1)}])
def test_flipped_arrays_have_the_same_chips(flip: dict[str, slice]) -> None:
    ds = stack(times=1)
    flipped = ds.isel(flip)
    rows, same = ds.chips.index(32, edge="pad"), flipped.chips.index(32, edge="pad")
    pd.testing.assert_frame_equal(pd.DataFrame(rows.drop(columns="geometry")), pd.DataFrame(same.drop(columns="geometry")))
    np.testing.assert_array_equal(flipped.chips.extract(rows)["red"], ds.chips.extract(rows)["red"])
    one, other = (array.chips.isel(chip_y=2, chip_x=-1, size=32, edge="pad") for array in (ds, flipped))
    xr.testing.assert_equal(one, other.sortby("y", ascending=False).sortby("x"))


@pytest.mark.parametrize("lazy", [False, True])
def test_isel_is_a_slice(lazy: bool) -> None:
    ds = stack()
    ds = ds.chunk(y=20, x=33) if lazy else ds
    with raise_if_dask_computes():
        chip = ds.chips.isel(chip_y=1, chip_x=0, size=(30, 40), stride=20)
    xr.testing.assert_identical(chip, ds.isel(y=slice(20, 50), x=slice(0, 40)))
    band = ds["red"].chips.isel(chip_y=1, chip_x=0, size=(30, 40), stride=20)
    xr.testing.assert_identical(band, ds["red"].isel(y=slice(20, 50), x=slice(0, 40)))


@pytest.mark.parametrize("lazy", [False, True])
def test_isel_pads_where_the_window_leaves_the_array(lazy: bool) -> None:
    ds = stack(times=1)
    ds = ds.chunk(y=20, x=33) if lazy else ds
    chip = ds.chips.isel(chip_y=1, chip_x=1, size=64, edge="pad")
    assert chip["red"].shape == (1, 64, 64)
    assert chip["red"].dtype == np.uint16
    np.testing.assert_array_equal(chip["red"][:, :6, :26], ds["red"][:, 64:, 64:])
    assert (chip["red"].values[:, 6:] == 7).all()
    assert chip["red"].rio.nodata == 7
    np.testing.assert_allclose(np.diff(chip["x"]), 10)
    assert chip.chips.grid(64).pixels.bounds == ds.chips.grid(64, edge="pad").chip(chip_y=1, chip_x=1).bounds


@pytest.mark.parametrize(("chip_y", "chip_x"), [(0, 1), (1, 0)])
def test_a_chip_that_leaves_the_array_on_one_side_keeps_both_coordinates(chip_y: int, chip_x: int) -> None:
    ds = stack(times=1)
    place = ds.chips.grid(64, edge="pad").chip(chip_y=chip_y, chip_x=chip_x)
    for array in (ds, ds["red"], ds.isel(y=slice(None, None, -1))):
        chip = array.chips.isel(chip_y=chip_y, chip_x=chip_x, size=64, edge="pad")
        assert chip.chips.grid(64).pixels.bounds == chip.rio.bounds() == place.bounds


def test_isel_outside_the_grid() -> None:
    with pytest.raises(IndexError, match=r"chip_y=2, chip_x=0 is outside the grid of 2 x 2 chips"):
        stack().chips.isel(chip_y=2, chip_x=0, size=35)


def test_rows_are_placed_by_position_in_a_cut_array() -> None:
    ds = stack()
    rows = ds.chips.index(32)
    cut = ds.isel(y=slice(10, None), x=slice(32, None))
    below = rows[(rows.chip_index_y == 1) & (rows.chip_index_x == 1)]
    np.testing.assert_array_equal(cut.chips.extract(below)["red"], ds.chips.extract(below)["red"])
    with pytest.raises(ValueError, match=r"chip 'synthetic-0-1-0' is not wholly in the array: it needs rows -10 to 22"):
        cut.chips.extract(rows[rows.chip_id == "synthetic-0-1-0"])


def test_rows_of_something_else_are_refused() -> None:
    ds = stack()
    rows = ds.chips.index(32)
    with pytest.raises(ValueError, match="looked for item 'other' in the array and found only"):
        ds.chips.extract(rows.assign(item_id="other"))
    with pytest.raises(ValueError, match="is in EPSG:32601, the array is in EPSG:32719"):
        ds.chips.extract(rows.assign(proj_code="EPSG:32601"))
    with pytest.raises(ValueError, match=r"does not lie on the array's pixels: it begins at column 0\.300"):
        ds.chips.extract(rows.assign(proj_left=rows.proj_left + 3)[:1])
    with pytest.raises(ValueError, match=r"columns .*'proj_left'.* are missing"):
        ds.chips.extract(rows.drop(columns="proj_left"))


def test_no_rows_give_no_chips() -> None:
    ds = stack().chunk()
    chips = ds.chips.extract(ds.chips.index(32).compute()[:0])
    assert chips.sizes["chip"] == 0


def test_extraction_reads_only_the_blocks_that_chips_touch() -> None:
    ds = stack(256, 256, times=1).chunk(y=64, x=64)
    rows = ds.chips.index(64).compute()
    (chips,) = dask.optimize(ds.chips.extract(rows[rows.chip_index_x == 0][:1])["red"].data)
    assert sum(1 for key in chips.__dask_graph__() if str(key[0]).startswith("cut-")) <= 1
