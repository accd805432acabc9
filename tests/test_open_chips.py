"""The index as one lazy array: against rasterio's own windows and against each item's stack."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from chip_making import write_aerial, write_band, write_item, write_landsat, write_sentinel
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window
from servers import RangeServer

import xchip
from xchip.chips.chip_reader import ChipReader
from xchip.chips.chip_table import ChipTable, open_table
from xchip.chips.file_blocks import BLOCKS, fresh_canvas, kept_canvas
from xchip.chips.open_chips import lazy_arrays, open_chips
from xchip.io.gdal import POOL
from xchip.raster import deflate_tiles as tiles
from xchip.raster.regrid import Box
from xchip.testing import raise_if_dask_computes

BANDS = ["red", "nir"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chips")


@pytest.fixture(scope="module")
def sentinel(folder: Path) -> list[Path]:
    return write_sentinel(folder)


@pytest.fixture(scope="module")
def landsat(folder: Path) -> Path:
    return write_landsat(folder)


@pytest.fixture(scope="module")
def aerial(folder: Path) -> Path:
    return write_aerial(folder)


def index_of(items: Any, size: Any = 64, **options: Any) -> pd.DataFrame:
    return xchip.index_items(items, size, **options).compute().reset_index(drop=True)


@pytest.fixture(scope="module")
def mixed(sentinel: list[Path], landsat: Path, aerial: Path) -> pd.DataFrame:
    """Chips of four items, three products and four CRSs, in random order."""
    rows = pd.concat([index_of([*sentinel, landsat]), index_of(aerial)], ignore_index=True)
    return rows.sample(len(rows), random_state=1).reset_index(drop=True)


def window_of(item: Path, row: Any, asset: str, index: int = 1) -> np.ndarray:
    """What rasterio reads at the chip, in pixels of the file, repeated to the scene's."""
    path = item.parent / json.loads(item.read_text())["assets"][asset]["href"]
    with rasterio.open(path) as file:
        factor = round(file.res[0] * row.width / (row.proj_right - row.proj_left))
        window = Window(row.col_off / factor, row.row_off / factor, row.width / factor, row.height / factor)
        return file.read(index, window=window).repeat(factor, 0).repeat(factor, 1)


# Pixels


def test_chips_of_many_items_are_what_rasterio_reads(
    mixed: pd.DataFrame, sentinel: list[Path], landsat: Path, aerial: Path
) -> None:
    with raise_if_dask_computes():
        chips = open_chips(mixed, BANDS, chunks=64)
    assert dict(chips.sizes) == {"chip": len(mixed), "y": 64, "x": 64}
    assert chips["red"].dims == ("chip", "y", "x")
    assert chips["red"].dtype == np.uint16, "the type that holds uint8 and uint16"
    assert chips["chip_id"].values.tolist() == mixed["chip_id"].tolist()
    loaded = chips.compute()
    assets = {path.stem: (path, {"red": ("red", 1), "nir": ("nir", 1)}) for path in sentinel}
    assets |= {landsat.stem: (landsat, {"red": ("red", 1), "nir": ("nir08", 1)})}
    assets |= {aerial.stem: (aerial, {"red": ("image", 1), "nir": ("image", 4)})}
    for position, row in enumerate(mixed.itertuples()):
        path, names = assets[row.item_id]
        for band in BANDS:
            np.testing.assert_array_equal(loaded[band].values[position], window_of(path, row, *names[band]), row.chip_id)


def test_coarse_bands_and_all_bands_of_an_item(sentinel: list[Path]) -> None:
    rows = index_of(sentinel[0])
    chips = open_chips(rows).compute()
    assert list(chips) == ["blue", "green", "red", "nir", "scl"]
    for position, row in enumerate(rows.itertuples()):
        np.testing.assert_array_equal(chips["scl"].values[position], window_of(sentinel[0], row, "scl"))
    assert chips.attrs["sensor"] == "sentinel-2-l2a"


@given(
    st.sampled_from(["drop", "pad", "shift"]),
    st.sampled_from(["origin", "crs"]),
    st.integers(5, 150),
    st.integers(20, 200),
    st.data(),
)
def test_a_chip_is_the_slice_of_its_stack(
    sentinel: list[Path], edge: Any, anchor: Any, size: int, stride: int, data: st.DataObject
) -> None:
    if (edge, anchor) == ("shift", "crs"):
        return
    rows = index_of(sentinel[1], size, stride=stride, edge=edge, anchor=anchor)
    rows = rows.sample(min(len(rows), 5), random_state=data.draw(st.integers(0, 9)))
    table = open_table(rows, ["green", "scl"])
    tile = data.draw(st.sampled_from([(2048, 2048), (100, 70)]))
    chips = opened(
        replace(table, reader=replace(table.reader, tile=tile)), chunks=data.draw(st.sampled_from([1, 3, 100]))
    ).compute()
    expected = xchip.stack(sentinel[1], ["green", "scl"]).compute().chips.extract(rows)
    for band in ("green", "scl"):
        np.testing.assert_array_equal(chips[band], expected[band])


def opened(table: ChipTable, chunks: int) -> xr.Dataset:
    return table.dataset(slice(None), lazy_arrays(table, chunks))


def test_a_chip_is_isel_of_its_stack(sentinel: list[Path]) -> None:
    ds = xchip.stack(sentinel[0])
    chips = open_chips(index_of(sentinel[0], 96, edge="pad"))
    grid = ds.chips.grid(96, edge="pad")
    for position in (0, len(grid) - 1):
        chip_y, chip_x = divmod(position, grid.shape[1])
        one = ds.chips.isel(chip_y=chip_y, chip_x=chip_x, size=96, edge="pad").isel(time=0).compute()
        for band in ds:
            np.testing.assert_array_equal(chips[band].isel(chip=position).compute(), one[band])


def test_padding_is_nodata_or_zero(folder: Path, landsat: Path, aerial: Path) -> None:
    path = write_landsat(folder, "landsat-nodata", nodata=7777)
    chips = open_chips(index_of(path, 256, edge="pad"), ["red"]).compute()
    assert (chips["red"].values[-1][300 - 256 :] == 7777).all()
    assert chips["red"].rio.nodata == 7777
    chips = open_chips(index_of(aerial, 200, edge="pad")).compute()
    assert (chips["nir"].values[-1][56:] == 0).all()
    assert chips["nir"].rio.nodata is None


def test_finer_and_unaligned_bands_are_those_of_the_stack(folder: Path) -> None:
    rng = np.random.default_rng(3)
    origin = (500000.0, 5000000.0)
    assets = {}
    for name, resolution, side, shift in (("red", 10, 200, 0), ("pan", 5, 400, 0), ("odd", 7, 280, 3)):
        pixels = rng.integers(1, 9999, (1, side, side)).astype("uint16")
        write_band(
            folder / f"odd-{name}.tif", pixels, resolution, origin=(origin[0] + shift, origin[1]), crs="EPSG:32633", block=64
        )
        assets[name] = {
            "href": f"./odd-{name}.tif",
            "type": "image/tiff; application=geotiff",
            "data_type": "uint16",
            "proj:shape": [side, side],
            "proj:transform": [resolution, 0, origin[0] + shift, 0, -resolution, origin[1]], "nodata": 0,
            "roles": ["data"] if name == "red" else ["overview"],
        }  # fmt: skip
    path = write_item(folder, "odd", "unheard-of", {"proj:code": "EPSG:32633"}, assets)
    rows = index_of(path, 70, edge="pad")
    chips = open_chips(rows, ["red", "pan", "odd"], sensor=None).compute()
    expected = xchip.stack(path, ["red", "pan", "odd"]).compute().chips.extract(rows)
    for name in ("red", "pan", "odd"):
        np.testing.assert_array_equal(chips[name], expected[name], name)
    assert chips["odd"].attrs["resampled"] is True


# What is read, and when


def test_building_opens_no_file_and_reads_one_item_a_kind(sentinel: list[Path], landsat: Path, tmp_path: Path) -> None:
    rows = index_of([*sentinel, landsat])
    for path in (*sentinel, landsat):
        shutil.copy(path, tmp_path / path.name)
    with RangeServer(tmp_path) as server:
        rows["item_href"] = [f"{server.url}/{item}.json" for item in rows["item_id"]]
        chips = open_chips(rows, BANDS)
        assert sorted(path for method, path, _ in server.requests if method == "GET") == ["/landsat-1.json", "/synthetic-0.json"]
        assert chips.sizes["chip"] == len(rows)


def test_the_json_of_an_item_is_read_once(sentinel: list[Path]) -> None:
    rows = index_of(sentinel)
    with RangeServer(sentinel[0].parent.parent) as server:
        rows["item_href"] = [f"{server.url}/{item}/{item}.json" for item in rows["item_id"]]
        chips = open_chips(rows, BANDS, chunks=3)
        chips.isel(chip=0).compute()
        chips.compute()
        asked = [path for method, path, _ in server.requests if method == "GET" and path.endswith(".json")]
        assert sorted(asked) == ["/synthetic-0/synthetic-0.json", "/synthetic-1/synthetic-1.json"]


def test_graphs_grow_with_chunks_and_not_with_chips(sentinel: list[Path]) -> None:
    few, many = index_of(sentinel[0], 128), index_of(sentinel[0], 16)
    one, other = (open_chips(rows, BANDS, chunks=2000) for rows in (few, many))
    assert len(one.__dask_graph__()) == len(other.__dask_graph__()) == 3
    assert len(open_chips(many, BANDS, chunks=256).__dask_graph__()) == 3 * -(-len(many) // 256)


class CountingReader(ChipReader):
    """Notes how many chips it reads, and of what size."""

    read_chips: ClassVar[list[tuple[int, tuple[int, int]]]] = []

    def read(self, rows: Any, numbers: Any, *, keep: bool = True) -> list[np.ndarray]:
        arrays = super().read(rows, numbers, keep=keep)
        self.read_chips.append((len(rows), arrays[0].shape[1:]))
        return arrays


@pytest.mark.parametrize("selection", [5, slice(3, 6), slice(60, 70), -1], ids=str)
def test_a_part_reads_only_its_chips(mixed: pd.DataFrame, selection: Any) -> None:
    table = open_table(mixed, BANDS)
    counting = CountingReader(**vars(table.reader))
    chips = opened(replace(table, reader=counting), chunks=64)
    part = chips["red"].isel(chip=selection, y=slice(10, 20))
    counting.read_chips.clear()
    got = part.compute()
    assert sum(n for n, _ in counting.read_chips) == np.size(np.arange(len(mixed))[selection])
    np.testing.assert_array_equal(got, chips["red"].compute().isel(chip=selection, y=slice(10, 20)))


def test_a_million_chips_are_opened_in_seconds(sentinel: list[Path]) -> None:
    rows = index_of(sentinel[0]).drop(columns="geometry")
    n = 1_000_000
    many = rows.iloc[np.arange(n) % len(rows)].reset_index(drop=True)
    names = np.array(["synthetic-0", *(f"item-{number}" for number in range(1, n // 1000))], dtype=object)
    many["item_id"] = names[np.arange(n) // 1000]
    start = time.perf_counter()
    chips = open_chips(many, BANDS)
    assert time.perf_counter() - start < 30, "it takes two or three seconds on a quiet machine"
    assert len(chips.__dask_graph__()) == 3 * -(-n // 128)


class CountingDataset:
    """A rasterio dataset that notes what it was asked to read."""

    def __init__(self, dataset: Any) -> None:
        self._dataset, self.windows = dataset, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def read(self, indexes: Any, window: Any, out: np.ndarray) -> np.ndarray:
        self.windows.append(window)
        return self._dataset.read(indexes, window=window, out=out)

    @property
    def blocks(self) -> float:
        """How many blocks of 64 x 64 were read."""
        return sum(window.width * window.height for window in self.windows) / 64**2


@pytest.mark.parametrize("decoder", ["gdal", "libdeflate"])
def test_blocks_are_decoded_once_for_all_bands_and_chips(aerial: Path, decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if decoder == "gdal":
        monkeypatch.setattr(tiles, "inflate", lambda *_: False)
    else:
        pytest.importorskip("imagecodecs", reason="needs xchip[fast]")
        decode = tiles._decode

        def counting(*arguments: Any) -> bool:
            counted.windows.append(Window(0, 0, 64, 64))
            return decode(*arguments)

        monkeypatch.setattr(tiles, "_decode", counting)
    BLOCKS.clear()
    with rasterio.open(aerial.with_suffix(".tif")) as file:
        counted = CountingDataset(file)
        whole = file.read()
        boxes = [Box(0, 70, 10, 70), Box(64, 128, 60, 61), Box(200, 256, 300, 320)]
        canvas = fresh_canvas(counted, [2], boxes)
        assert counted.blocks == 5
        for box in boxes:
            np.testing.assert_array_equal(canvas.part(0, box), whole[1, box.top : box.bottom, box.left : box.right])
        counted.windows.clear()
        for wanted in ([0], [3], [1, 2]):
            for some in (boxes[:1], boxes[1:], boxes):
                canvas = kept_canvas(counted, ("file", 1), [1, 2, 3, 4], wanted, some)
                for box in some:
                    for at, number in enumerate(wanted):
                        np.testing.assert_array_equal(
                            canvas.part(at, box), whole[number, box.top : box.bottom, box.left : box.right]
                        )
        assert counted.blocks == 5, "the first call decodes for the four bands and for all that follow"
    BLOCKS.clear()
    assert BLOCKS.held == 0


# Where index and items come from


def test_every_kind_of_index(sentinel: list[Path], tmp_path: Path) -> None:
    lazy = xchip.index_items(sentinel, 128)
    frame = lazy.compute()
    path = xchip.write_index(lazy, tmp_path / "index.parquet")
    table = pa.table({name: pa.array(frame[name]) for name in frame.columns if name != "geometry"})
    expected = open_chips(frame, BANDS).compute()
    for index in (lazy, table, str(path), frame.drop(columns=["geometry", "collection", "chip_index_x"])):
        chips = open_chips(index, BANDS).compute()
        np.testing.assert_array_equal(chips["red"], expected["red"])
        assert chips["chip_id"].values.tolist() == expected["chip_id"].values.tolist()


def test_coordinates(mixed: pd.DataFrame) -> None:
    chips = open_chips(mixed, BANDS)
    assert set(chips.coords) == {
        "chip_id", "item_id", "datetime", "proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top", "collection",
        "chip_index_x", "chip_index_y",
    }  # fmt: skip
    assert all(coord.dims == ("chip",) for coord in chips.coords.values())
    assert chips["datetime"].dtype.kind == "M"
    row = mixed.iloc[3]
    assert chips["datetime"].values[3] == np.datetime64(row["datetime"].tz_localize(None))
    assert chips["proj_top"].values[3] == row["proj_top"]


def test_items_that_are_given(sentinel: list[Path]) -> None:
    rows = index_of(sentinel)
    expected = open_chips(rows, BANDS).compute()
    rows["item_href"] = None
    with pytest.raises(
        xchip.ItemError, match=r"item 'synthetic-0': the index has no item_href for it; pass the items with items="
    ):
        open_chips(rows, BANDS)
    chips = open_chips(rows, BANDS, items=sentinel, chunks=7)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(chips))["red"].compute(), expected["red"])
    with pytest.raises(ValueError, match="items= has no item 'synthetic-1' of collection 'sentinel-2-l2a'"):
        open_chips(rows, BANDS, items=sentinel[0])
    with pytest.raises(ValueError, match="items= has 2 items 'synthetic-1'"):
        open_chips(rows, BANDS, items=[*sentinel, sentinel[1]])


def test_tables_of_stacchip_tell_positions_alone(sentinel: list[Path], tmp_path: Path) -> None:
    rows = index_of(sentinel[0], 64, max_nodata=0.5)
    table = xchip.stacchip.read_index(xchip.write_index(rows, tmp_path / "theirs.parquet", schema="stacchip"), chip_size=64)
    assert table.proj_code.isna().all()
    ours, theirs = open_chips(rows, BANDS), open_chips(table, BANDS, items=sentinel)
    assert theirs.chip_id.values.tolist() == ours.chip_id.values.tolist()
    for band in BANDS:
        np.testing.assert_array_equal(theirs[band].values, ours[band].values)


def test_hrefs_that_lead_nowhere(sentinel: list[Path], landsat: Path) -> None:
    rows = index_of(sentinel[0])
    with pytest.raises(
        xchip.ItemError, match=r"item 'synthetic-0': its item_href 'items/a.json' is relative to an archive's root"
    ):
        open_chips(rows.assign(item_href="items/a.json"), BANDS)
    with pytest.raises(xchip.ItemError, match=r"item 'synthetic-0': its JSON '/nowhere/a.json' can't be read"):
        open_chips(rows.assign(item_href="/nowhere/a.json"), BANDS)
    with pytest.raises(xchip.ItemError, match=r"item 'synthetic-0': '.*landsat-1.json' holds item 'landsat-1'"):
        open_chips(rows.assign(item_href=str(landsat)), BANDS)


# Refusals


def test_chips_of_several_sizes_need_pad(aerial: Path) -> None:
    rows = index_of(aerial, 200, edge="partial")
    with pytest.raises(ValueError, match=r"several sizes \(height, width\): \[\(56, 120\), \(56, 200\), .*pad=True"):
        open_chips(rows)
    chips = open_chips(rows, pad=True).compute()
    assert chips["red"].shape == (4, 200, 200)
    assert (chips["red"].values[3, 56:] == 0).all()
    assert (chips["red"].values[3, :, 120:] == 0).all()
    np.testing.assert_array_equal(chips["red"].values[3, :56, :120], window_of(aerial, rows.iloc[3], "image"))


def test_no_rows_and_no_index(aerial: Path) -> None:
    rows = index_of(aerial)
    with pytest.raises(ValueError, match="the index has no rows"):
        open_chips(rows[:0])
    with pytest.raises(ValueError, match=r"the columns \['proj_left'\] are missing"):
        open_chips(rows.drop(columns="proj_left"))
    with pytest.raises(ValueError, match="chunks is the number of chips"):
        open_chips(rows, chunks=0)


def test_an_item_that_disagrees_with_the_first_of_its_kind(folder: Path) -> None:
    first = write_landsat(folder, "a-first")
    for name, options, message in (
        (
            "b-nodata",
            {"nodata": 9},
            "asset 'red' has nodata 9.0, and the chips' band 'red' has 0, as in item 'a-first', the first",
        ),
        ("c-dtype", {"dtype": "int32"}, "asset 'red' holds int32, and the chips' band 'red' is uint16, as in item 'a-first'"),
    ):
        other = write_landsat(folder, name, **options)
        rows = index_of([first, other])
        chips = open_chips(rows, BANDS)
        chips.isel(chip=0).compute()
        with pytest.raises(xchip.ItemError, match=f"item '{name}': {message}"):
            chips.isel(chip=-1).compute()


def test_the_offset_of_sentinel_2(tmp_path: Path) -> None:
    paths = write_sentinel(tmp_path, 2)
    for path, baseline in zip(paths, ("03.00", "05.10"), strict=True):
        item = json.loads(path.read_text())
        item["properties"]["s2:processing_baseline"] = baseline
        for asset in item["assets"].values():
            for band in asset["bands"]:
                band.pop("raster:scale", None), band.pop("raster:offset", None)
        path.write_text(json.dumps(item))
    rows = index_of(paths)
    chips = open_chips(rows, ["red", "scl"])
    chips.isel(chip=0).compute()
    with pytest.raises(xchip.ItemError, match=r"item 'synthetic-1': asset 'red' has .*-1000.*pass harmonize=True"):
        chips.isel(chip=-1).compute()
    stored, shifted = (open_chips(rows, ["red", "scl"], harmonize=how).compute() for how in (0, True))
    for path in paths:
        own = rows[rows["item_id"] == path.stem]
        inside = (rows["item_id"] == path.stem).to_numpy()
        for how, found in ((False, stored), (True, shifted)):
            expected = xchip.stack(path, ["red", "scl"], harmonize=how).compute().chips.extract(own)
            for band in ("red", "scl"):
                np.testing.assert_array_equal(found[band].values[inside], expected[band])
    assert (stored["red"].values != shifted["red"].values).any()
    assert shifted["red"].attrs["harmonized"] == 1
    assert "boa_offset" not in shifted["red"].attrs


def test_real_scenes(real_data: Path) -> None:
    for name in ("landsat_008059", "s2_29RKH"):
        path = real_data / "rasters" / name / "item.json"
        rows = index_of(path, 90, edge="pad").sample(12, random_state=2)
        chips, expected = open_chips(rows).compute(), xchip.stack(path).compute().chips.extract(rows)
        assert list(chips) == list(expected)
        for band in expected:
            np.testing.assert_array_equal(chips[band], expected[band], band)


def test_an_item_without_a_band_that_others_have(folder: Path) -> None:
    first, other = write_landsat(folder, "d-first"), write_landsat(folder, "e-poor")
    item = json.loads(other.read_text())
    rows = index_of([first, other])
    del item["assets"]["nir08"]
    other.write_text(json.dumps(item))
    chips = open_chips(rows)
    chips.isel(chip=0).compute()
    with pytest.raises(xchip.ItemError, match="item 'e-poor': it has no band 'nir08', as in item 'd-first'"):
        chips.isel(chip=-1).compute()


def test_sensors_with_different_nodata(folder: Path, sentinel: list[Path]) -> None:
    other = write_landsat(folder, "f-nodata", nodata=9)
    with pytest.raises(ValueError, match=r"band 'red' has nodata 0 in item 'synthetic-0' and 9 in item 'f-nodata'"):
        open_chips(index_of([sentinel[0], other]), BANDS)


def test_bands_that_a_sensor_lacks_are_filled_unless_asked_for(mixed: pd.DataFrame) -> None:
    chips = open_chips(mixed)
    assert {"blue", "scl", "nir08", "red"} <= set(chips)
    at = int(np.flatnonzero(mixed["item_id"] == "landsat-1")[0])
    assert (chips["scl"].isel(chip=at).compute() == 0).all()
    with pytest.raises(xchip.ItemError, match="it has no asset 'scl'"):
        open_chips(mixed, ["red", "scl"])


def test_a_file_that_is_missing_or_broken(folder: Path) -> None:
    path = write_landsat(folder, "broken")
    chips = open_chips(index_of(path), BANDS)
    POOL.clear()
    (folder / "broken_red.tif").write_bytes((folder / "broken_red.tif").read_bytes()[:60_000])
    (folder / "broken_nir08.tif").unlink()
    for band, asset in (("red", "red"), ("nir", "nir08")):
        with pytest.raises(xchip.ItemError, match=rf"item 'broken': asset '{asset}': can't read .*broken_{asset}.tif"):
            chips[band].compute()


def test_chips_that_do_not_lie_on_their_item(sentinel: list[Path]) -> None:
    rows = index_of(sentinel[0])[:3]
    with pytest.raises(
        xchip.ItemError, match=r"item 'synthetic-0': a chip of the index begins at column 0\.300.* between pixels"
    ):
        open_chips(rows.assign(proj_left=rows.proj_left + 3), BANDS).compute()
    with pytest.raises(xchip.ItemError, match="wholly outside"):
        open_chips(rows.assign(proj_top=rows.proj_top + 1e6), BANDS).compute()
    with pytest.raises(xchip.ItemError, match="it is in EPSG:32719, the index says EPSG:32601"):
        open_chips(rows.assign(proj_code="EPSG:32601"), BANDS).compute()
