"""Sheets of chips, and scenes with their chips: which pixels are drawn where, and what is refused."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
from archives import make_items
from chip_making import write_aerial, write_landsat, write_sentinel

import xchip
from xchip.plots.rgb import band_values, bright_part, grey_range, to_rgba
from xchip.plots.sheets import plot_scenes, preview
from xchip.testing import synthetic_stack


@pytest.fixture(scope="module")
def ds():
    return synthetic_stack(shape=(640, 640), seed=5)


@pytest.fixture(scope="module")
def index(ds) -> geopandas.GeoDataFrame:
    return ds.chips.index(128)


def captions(figure) -> list[str]:
    return [ax.get_xlabel().splitlines()[0] for ax in figure.axes]


def pictures(figure) -> list[np.ndarray]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes]


def test_preview_shows_the_pixels_of_each_row(ds, index) -> None:
    rows = index.iloc[[7, 3, 12]]
    figure = preview(rows, ds, percentiles=(0, 100))
    assert [ax.get_xlabel().splitlines()[0] for ax in figure.axes] == rows.chip_id.tolist()
    red = [ax.images[0].get_array()[..., 0] for ax in figure.axes]
    for picture, row in zip(red, rows.itertuples(), strict=True):
        window = {"y": slice(row.row_off, row.row_off + row.height), "x": slice(row.col_off, row.col_off + row.width)}
        pixels = ds.red.isel(time=0, **window).values
        order = np.argsort(pixels, axis=None)
        assert (np.diff(picture.ravel()[order].astype(int)) >= 0).all()  # brighter pixels are drawn brighter


def test_preview_captions(ds, index) -> None:
    row = index.dropna(subset="cloud_fraction").head(1)
    (ax,) = preview(row, ds).axes
    assert ax.get_xlabel().splitlines()[1] == f"{row.cloud_fraction.iloc[0]:.0%} cloud"
    (ax,) = preview(row.assign(nodata_fraction=0.911), ds).axes
    assert ax.get_xlabel().splitlines()[1] == f"{row.cloud_fraction.iloc[0]:.0%} cloud, 91% nodata"


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (6, 3), (12, 4), (16, 4), (24, 6)])
def test_a_sheet_has_no_row_that_is_nearly_empty(ds, index, n, columns) -> None:
    figure = preview(index, ds, n=n)
    assert {ax.get_subplotspec().get_gridspec().ncols for ax in figure.axes} == {columns}


def test_preview_of_one_band_and_few_columns(ds, index) -> None:
    figure = preview(index, ds, bands=["nir"], n=5, columns=2)
    assert len(figure.axes) == 5
    picture = figure.axes[0].images[0].get_array()
    assert np.array_equal(picture[..., 0], picture[..., 1])
    assert {ax.get_subplotspec().get_gridspec().ncols for ax in figure.axes} == {2}


def test_preview_refuses(ds, index) -> None:
    with pytest.raises(ValueError, match="no rows to show"):
        preview(index.head(0), ds)
    with pytest.raises(ValueError, match=r"no bands \['swir'\]; the array has \['blue', .*choose with bands="):
        preview(index, ds, bands=["red", "green", "swir"])
    with pytest.raises(ValueError, match="one band or three"):
        preview(index, ds, bands=["red", "green"])


def test_plot_scenes_has_a_picture_and_a_map_of_each_scene() -> None:
    base = synthetic_stack(shape=(256, 256))
    two = synthetic_stack(**{name: np.stack([base[name].values[0]] * 2) for name in ("red", "green", "blue", "scl")})
    index = two.chips.index(64)
    figure = plot_scenes(index, two, max_pixels=64)
    upper = [ax for ax in figure.axes if ax.images]
    assert len(upper) == 2
    assert upper[0].images[0].get_array().shape == (64, 64, 4)
    assert [len(ax.collections[0].get_paths()) for ax in upper] == [16, 16]
    figure.draw_without_rendering()
    boxes = [ax.get_position().intervalx for ax in figure.axes[:4]]
    assert np.allclose(boxes[:2], boxes[2:], atol=0.002), "a scene and its map are not above each other"
    with pytest.raises(ValueError, match=r"no item of the index is in the stack, which has synthetic-0, synthetic-1"):
        plot_scenes(index.assign(item_id="other"), two)


# -- from the index alone ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Rows of two Sentinel-2 scenes in two CRSs, a Landsat scene without green and blue, and an aerial image."""
    folder = tmp_path_factory.mktemp("mixed")
    items = [*write_sentinel(folder), write_landsat(folder), write_aerial(folder)]
    return pd.concat([xchip.index_items(item, 128).compute() for item in items], ignore_index=True)


def test_rows_alone_give_what_the_stack_gives(tmp_path: Path) -> None:
    items = make_items(tmp_path, 2)
    rows = xchip.index_items(items, 128).compute()
    expected = preview(rows, xchip.stack(items))
    xchip.build_index(items, tmp_path / "archive", 128, progress=False)
    for source in (tmp_path / "archive", str(tmp_path / "archive"), xchip.open_index(tmp_path / "archive")):
        figure = preview(source)
        assert captions(figure) == captions(expected)
        for picture, same in zip(pictures(figure), pictures(expected), strict=True):
            assert np.array_equal(picture, same)


def test_every_product_has_its_own_bands(mixed: pd.DataFrame) -> None:
    rows = mixed.groupby("item_id", sort=False).head(2).sample(frac=1, random_state=0)
    figure = preview(rows)
    assert captions(figure) == [chip_id if len(chip_id) <= 30 else f"…{chip_id[-29:]}" for chip_id in rows.chip_id]
    for picture, sensor in zip(pictures(figure), rows.sensor, strict=True):
        assert picture.shape == (128, 128, 4)
        grey = (picture[..., :1] == picture[..., :3]).all()
        assert grey == (sensor == "landsat-c2-l2"), sensor


def test_pixels_are_those_of_each_row(mixed: pd.DataFrame) -> None:
    rows = mixed[mixed.sensor == "sentinel-2-l2a"].iloc[[9, 2, 30]]
    drawn = pictures(preview(rows, percentiles=(0, 100)))
    chips = xchip.open_chips(rows, ["red", "green", "blue"]).compute()
    values, valid = band_values(chips, ["red", "green", "blue"])
    for item_id in rows.item_id.unique():
        own = np.flatnonzero(rows.item_id == item_id)
        low, high = grey_range(values[own][valid[own]], (0, 100), bright_part(rows.iloc[own]))
        for chip in own:
            assert np.array_equal(drawn[chip], to_rgba(values[chip], valid[chip], low, high))


def test_a_table_is_read_as_it_was_opened(mixed: pd.DataFrame) -> None:
    rows = mixed[mixed.sensor == "sentinel-2-l2a"].iloc[[9, 2, 30]]
    rows = rows.drop(columns=["cloud_fraction", "snow_fraction"])  # a table has none
    for assets in (["red", "green", "blue", "nir"], ["nir"]):
        table = xchip.open_table(rows, assets)
        figure, expected = preview(table), preview(rows, bands=assets[:3])
        assert captions(figure) == captions(expected)
        assert np.array_equal(pictures(figure), pictures(expected))
    assert figure.axes[0].get_xlabel() == captions(figure)[0], "nothing is known of clouds"
    with pytest.raises(ValueError, match="is a ChipTable, which has its own storage"):
        preview(table, storage=xchip.StorageOptions())


def test_bands_by_name(mixed: pd.DataFrame) -> None:
    (picture,) = pictures(preview(mixed[mixed.sensor == "sentinel-2-l2a"].head(1), bands=["nir"]))
    assert (picture[..., :1] == picture[..., :3]).all()
    with pytest.raises(xchip.ItemError, match="swir"):
        preview(mixed.head(1), bands=["swir22"])


def test_chips_of_several_sizes_keep_theirs(mixed: pd.DataFrame) -> None:
    rows = mixed[mixed.sensor == "sentinel-2-l2a"].head(2).copy()
    rows.loc[rows.index[1], ["width", "height"]] = [50, 70]
    assert [picture.shape[:2] for picture in pictures(preview(rows))] == [(128, 128), (70, 50)]


# -- which chips -----------------------------------------------------------------------------------------------------------


def test_of_many_rows_a_sample_is_drawn(ds, index) -> None:
    figure = preview(index, ds, n=5, seed=3)
    chosen = captions(figure)
    assert len(chosen) == 5
    assert chosen == [chip_id for chip_id in index.chip_id if chip_id in chosen]  # in the order of the rows
    assert chosen == captions(preview(index, ds, n=5, seed=3))
    assert chosen != captions(preview(index, ds, n=5, seed=4))
    assert figure.get_suptitle() == "5 of 25 chips"
    first = preview(index, ds, n=5, seed=None)
    assert captions(first) == index.chip_id.head(5).tolist()
    assert len(preview(index, ds).axes) == 16
    assert preview(index.head(5), ds).get_suptitle() == ""
    with pytest.raises(ValueError, match="at least 1, got 0"):
        preview(index, ds, n=0)


def test_a_sample_is_fair(ds, index) -> None:
    """Each chip is on about as many sheets as any other."""
    frame = index[["chip_id"]]
    counts = np.zeros(len(frame), int)
    for seed in range(400):
        counts[np.random.default_rng(seed).choice(len(frame), 5, replace=False)] += 1
    assert counts.min() > 40


def test_chips_without_valid_pixels_and_without_fractions(ds, index) -> None:
    none = index.head(2).assign(cloud_fraction=np.nan)
    assert preview(none, ds).axes[0].get_xlabel().splitlines()[1] == "no valid pixels"
    bare = index.head(2)[["chip_id", "item_id", "width", "height", "col_off", "row_off", "proj_code", "proj_left", "proj_top"]]
    assert len(preview(bare, ds).axes) == 2


def test_real_scenes(shared_data: Path) -> None:
    """Items of several catalogues, whose bands have the same common names under other keys."""
    items = [shared_data / "rasters" / name / "item.json" for name in ("landsat_001062", "s2_29RKH", "s2_S2B_33TWM_20230810")]
    rows = pd.concat([xchip.index_items(item, 64).compute() for item in items], ignore_index=True)
    clear = rows[rows.nodata_fraction < 0.5]
    figure = preview(clear.groupby("item_id").head(2))
    assert len(figure.axes) == 6
    for picture in pictures(figure):
        assert picture[..., :3].std() > 3
        assert not (picture[..., 0] == picture[..., 2]).all()
