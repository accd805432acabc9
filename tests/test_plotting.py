"""Pictures: what is drawn where, in which colour; and what is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

import xchip
from xchip.plotting import plot, plot_scenes, preview
from xchip.testing import synthetic_stack


@pytest.fixture(scope="module")
def ds():
    return synthetic_stack(shape=(640, 640), seed=5)


@pytest.fixture(scope="module")
def index(ds) -> geopandas.GeoDataFrame:
    return ds.chips.index(128)


@pytest.fixture
def ax():
    return Figure().subplots()


def chips_of(ax) -> PolyCollection:
    """The collection that has values."""
    (chips,) = [c for c in ax.collections if c.get_array() is not None]
    return chips


def test_each_chip_is_a_rectangle_in_its_own_crs(index, ax) -> None:
    assert plot(index, ax=ax) is ax
    valid = index[index.cloud_fraction.notna()]
    chips = chips_of(ax)
    corners = np.array([path.vertices[:4] for path in chips.get_paths()])
    assert np.array_equal(corners[:, :, 0].min(axis=1), valid.proj_left)
    assert np.array_equal(corners[:, :, 1].max(axis=1), valid.proj_top)
    assert np.array_equal(chips.get_array(), valid.cloud_fraction)
    assert chips.get_clim() == (0, 1)
    assert ax.get_xlabel() == "easting (km), EPSG:32719"
    assert ax.get_xlim() == (index.proj_left.min(), index.proj_right.max())


def test_chips_without_values_are_hatched(index, ax) -> None:
    index = index.assign(cloud_fraction=np.where(index.chip_index_x == 0, np.nan, index.cloud_fraction))
    plot(index, ax=ax)
    (hatched,) = [c for c in ax.collections if c.get_hatch()]
    assert len(hatched.get_paths()) == index.cloud_fraction.isna().sum() > 0
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no valid pixels"]


def test_several_crs_are_drawn_in_lon_lat(index, ax) -> None:
    mixed = index.copy()
    mixed.loc[mixed.index[0], "proj_code"] = "EPSG:32720"
    plot(mixed, "clear_fraction", ax=ax)
    assert ax.get_xlabel() == "longitude (°)"
    west, south, east, north = mixed.total_bounds
    assert ax.get_xlim() == pytest.approx((west, east))
    assert ax.get_ylim() == pytest.approx((south, north))


def test_parts_of_a_footprint_across_the_antimeridian_share_its_colour(index, ax) -> None:
    from shapely import MultiPolygon, box

    two = index.head(2).assign(proj_code=["EPSG:32601", "EPSG:32660"], cloud_fraction=[0.2, 0.7])
    two["geometry"] = [MultiPolygon([box(179, 0, 180, 1), box(-180, 0, -179, 1)]), box(170, 0, 171, 1)]
    plot(two, ax=ax)
    assert chips_of(ax).get_array().tolist() == [0.2, 0.2, 0.7]


def test_categories(index, ax) -> None:
    split = index.assign(split=np.where(np.arange(len(index)) % 2, "train", "test"))
    plot(split, "split", ax=ax)
    (chips,) = ax.collections
    colours = chips.get_facecolor()
    assert not np.array_equal(colours[0], colours[1])
    assert np.array_equal(colours[0], colours[2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["test", "train"]


def test_other_numbers_keep_their_range(index, ax) -> None:
    plot(index, "row_off", ax=ax)
    assert chips_of(ax).get_clim() == (0, index.row_off.max())
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "row_off"


def test_fractions_are_percentages_on_the_bar(index, ax) -> None:
    plot(index, "nodata_fraction", ax=ax)
    ax.figure.canvas.draw()
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "nodata (% of the chip's all pixels)"
    assert "100%" in [label.get_text() for label in bar.get_yticklabels()]


def test_any_form_of_index_gives_the_same_map(index, tmp_path: Path) -> None:
    import dask_geopandas

    path = tmp_path / "index.parquet"
    xchip.write_index(index, path)
    xchip.write_index(index, tmp_path / "parts")
    table = pa.table(pa.parquet.read_table(path))
    lazy = dask_geopandas.from_geopandas(index, npartitions=2)
    expected = chips_of(plot(index)).get_array()
    for form in (path, str(path), tmp_path / "parts", table, lazy):
        assert np.array_equal(chips_of(plot(form)).get_array(), expected)


def test_pyarrow_table_of_two_crs(index, tmp_path: Path) -> None:
    mixed = index.copy()
    mixed.loc[mixed.index[0], "proj_code"] = "EPSG:32720"
    path = xchip.write_index(mixed, str(tmp_path / "index.parquet"))
    assert len(chips_of(plot(pa.parquet.read_table(path))).get_paths()) == mixed.cloud_fraction.notna().sum()


def test_title_names_the_item_and_counts_chips(index, ax) -> None:
    assert plot(index, ax=ax).get_title(loc="left") == "synthetic-0, 2024-03-11\n25 chips"
    assert plot(index, ax=ax, title="mine").get_title(loc="left") == "mine"


def test_many_chips_are_drawn_fast(tmp_path: Path) -> None:
    import time

    n = 20_000
    column, row = np.arange(n) % 200, np.arange(n) // 200
    frame = pd.DataFrame(
        {
            "item_id": "synthetic",
            "proj_code": "EPSG:32719",
            "datetime": pd.NaT,
            "proj_left": column * 2560.0,
            "proj_right": (column + 1) * 2560.0,
            "proj_top": row * -2560.0,
            "proj_bottom": (row + 1) * -2560.0,
            "cloud_fraction": np.where(column == row, np.nan, column / 200),
        }
    )
    start = time.perf_counter()
    plot(frame).figure.savefig(tmp_path / "many.png")
    assert time.perf_counter() - start < 10


def test_empty_index(index, ax) -> None:
    plot(index.head(0), ax=ax)
    assert ax.get_title(loc="left") == "0 chips of 0 scenes"


def test_unknown_column(index) -> None:
    with pytest.raises(ValueError, match="the index has no column 'clouds'; it has chip_id, item_id"):
        plot(index, "clouds")


def test_too_many_categories(index) -> None:
    with pytest.raises(ValueError, match=r"'chip_id' holds 25 different values; .* up to ten categories"):
        plot(index, "chip_id")


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


def test_preview_of_one_band_and_few_columns(ds, index) -> None:
    figure = preview(index, ds, bands=["nir"], max_chips=5, columns=2)
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
    with pytest.raises(ValueError, match=r"no item of the index is in the stack, which has synthetic-0, synthetic-1"):
        plot_scenes(index.assign(item_id="other"), two)


def test_no_axes_means_a_figure_without_pyplot_unless_it_is_in_use(tmp_path: Path) -> None:
    script = """
        import sys
        import xchip, xchip.testing
        index = xchip.testing.synthetic_stack(shape=(128, 128)).chips.index(64)
        xchip.plot(index).figure.savefig("index.png")
        assert "matplotlib.pyplot" not in sys.modules
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
        ax = xchip.plot(index)
        assert plt.gcf() is ax.figure
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.png").stat().st_size > 5000


def test_without_matplotlib_the_error_names_the_extra() -> None:
    script = """
        import sys
        sys.modules["matplotlib"] = None  # what an interpreter without it does on import
        import xchip
        try:
            xchip.plot(None)
        except ImportError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert "pip install 'xchip[plot]'" in done.stdout, done.stderr
