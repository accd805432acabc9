"""Pictures: what is drawn where, in which colour; and what is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

import xchip
from xchip.plots.index_map import plot
from xchip.plots.palette import SET_ASIDE, SPLITS
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


def test_of_chips_on_each_other_the_last_with_a_value_is_on_top(index, ax) -> None:
    """Also where a later scene has nothing there; what is hidden by others is not in the legend."""
    low, high, none = (index.assign(item_id=str(value), cloud_fraction=value) for value in (0.1, 0.9, np.nan))
    plot(pd.concat([low, high, none]), ax=ax)
    assert ax.get_legend() is None
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    box = ax.get_window_extent()
    drawn = np.asarray(canvas.buffer_rgba())[::-1][int(box.y0) + 8 : int(box.y1) - 8, int(box.x0) + 8 : int(box.x1) - 8]
    colours, counts = np.unique(drawn.reshape(-1, 4), axis=0, return_counts=True)
    assert np.allclose(colours[counts.argmax()], chips_of(ax).cmap(0.9, bytes=True), atol=2)
    alone = Figure().subplots()
    plot(pd.concat([low.head(3), none]), ax=alone)
    assert [text.get_text() for text in alone.get_legend().get_texts()] == ["no valid pixels"]


def test_several_crs_are_drawn_in_lon_lat(index, ax) -> None:
    mixed = index.copy()
    mixed.loc[mixed.index[0], "proj_code"] = "EPSG:32720"
    plot(mixed, "clear_fraction", ax=ax)
    assert ax.get_xlabel() == "longitude (°)"
    west, south, east, north = mixed.total_bounds
    assert ax.get_xlim() == pytest.approx((west, east))
    assert ax.get_ylim() == pytest.approx((south, north))


def test_chips_on_both_sides_of_the_antimeridian_are_neighbours(index, ax) -> None:
    rows = index.iloc[:3].copy()
    rows["cloud_fraction"] = [0.1, 0.2, 0.3]
    rows["proj_code"] = ["EPSG:32660", "EPSG:32601", "EPSG:32601"]
    across = shapely.MultiPolygon([shapely.box(179.9, -17, 180, -16.8), shapely.box(-180, -17, -179.9, -16.8)])
    rows["geometry"] = [shapely.box(179.7, -17, 179.9, -16.8), across, shapely.box(-179.9, -17, -179.7, -16.8)]
    plot(rows, ax=ax)
    assert ax.get_xlim() == pytest.approx((179.7, 180.3))
    drawn = [path.get_extents().bounds[0] for path in chips_of(ax).get_paths()]
    assert drawn == pytest.approx([179.7, 179.9, 180, 180.1])
    assert chips_of(ax).get_array().tolist() == [0.1, 0.2, 0.2, 0.3]
    FigureCanvasAgg(ax.figure).draw()
    labels = {tick.get_position()[0]: float(tick.get_text().replace("\N{MINUS SIGN}", "-")) for tick in ax.get_xticklabels()}
    assert any(at > 180 for at in labels)
    assert all(label == pytest.approx(at if at <= 180 else at - 360) for at, label in labels.items())


def test_a_map_of_the_whole_earth_stays_as_maps_are(index, ax) -> None:
    rows = index.iloc[:3].copy()
    rows["proj_code"] = ["EPSG:32601", "EPSG:32631", "EPSG:32660"]
    rows["geometry"] = [shapely.box(-180, 0, -179, 1), shapely.box(0, 0, 1, 1), shapely.box(179, 0, 180, 1)]
    plot(rows, ax=ax)
    assert ax.get_xlim() == (-180, 180)


@pytest.mark.parametrize("value", [np.nan, pd.NaT], ids=["numbers", "dates"])
def test_a_column_without_values_has_no_scale(index, value) -> None:
    rows = index.assign(other=pd.Series(value, index.index))
    figure = plot(rows, "other").figure
    assert len(figure.axes) == 1
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["no value"]


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
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "test"]


def test_other_numbers_keep_their_range(index, ax) -> None:
    plot(index, "row_off", ax=ax)
    assert chips_of(ax).get_clim() == (0, index.row_off.max())
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "row_off"


def test_fractions_are_percentages_on_the_bar(index, ax) -> None:
    plot(index, "nodata_fraction", ax=ax)
    ax.figure.canvas.draw()
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "nodata (% of all the chip's pixels)"
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
    start = time.perf_counter()
    plot(many(20_000)).figure.savefig(tmp_path / "many.png")
    assert time.perf_counter() - start < 15


def test_empty_index(index, ax) -> None:
    plot(index.head(0), ax=ax)
    assert ax.get_title(loc="left") == "0 chips of 0 scenes"


def test_unknown_column(index) -> None:
    with pytest.raises(ValueError, match="the index has no column 'clouds'; it has chip_id, item_id"):
        plot(index, "clouds")


def test_of_many_categories_the_most_frequent_have_colours(index, ax) -> None:
    frame = index.assign(tile=[f"T{min(number, 11):02d}" for number in range(len(index))])
    plot(frame, "tile", ax=ax)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["T00", "T01", "T02", "T03", "T04", "T05", "T06", "T07", "T11", "3 others"]
    (chips,) = ax.collections
    assert len(np.unique(chips.get_facecolor(), axis=0)) == 10


def test_yes_and_no_are_categories(index, ax) -> None:
    plot(index.assign(kept=index.cloud_fraction < 0.1), "kept", ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["False", "True"]


def test_dates_have_a_bar_of_dates(index, ax) -> None:
    days = pd.date_range("2024-01-01", periods=len(index), freq="10D", tz="UTC").to_series(index=index.index)
    plot(index.assign(datetime=days.where(index.chip_index_x > 0)), "datetime", ax=ax)
    assert chips_of(ax).get_array().min() == (pd.Timestamp("2024-01-11") - pd.Timestamp(0)).days
    ax.figure.canvas.draw()
    assert {"2024-02-01", "2024-07-01"} <= {label.get_text() for label in ax.figure.axes[1].get_yticklabels()}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no value"]


def test_columns_of_any_dtype(index) -> None:
    for values in ([1, None] * 13, [True, None] * 13):
        for dtype in ("Int64", "boolean", "Float64", "category", "int64[pyarrow]", "string[pyarrow]"):
            column = pd.Series(values[: len(index)], index=index.index, dtype=object).convert_dtypes().astype(dtype)
            ax = plot(index.assign(mine=column), "mine")
            assert "no value" in [text.get_text() for text in ax.get_legend().get_texts()], dtype


# -- lines around splits -----------------------------------------------------------------------------------------------


def lines_of(ax) -> dict[str, list[np.ndarray]]:
    """Colour of each set of lines -> its rings."""
    return {to_hex(c.get_colors()[0]): c.get_segments() for c in ax.collections if isinstance(c, LineCollection)}


def area_of(rings: list[np.ndarray]) -> float:
    return sum(shapely.Polygon(ring).area for ring in rings)


def test_lines_around_the_area_of_each_split(index, ax) -> None:
    split = np.select([index.chip_index_x < 2, index.chip_index_x == 2], ["train", "buffer"], "test")
    plot(index.assign(split=split), ax=ax)
    lines = lines_of(ax)
    assert set(lines) == {SPLITS["train"], SPLITS["test"]}
    for name, columns in (("train", 2), ("test", 2)):
        (ring,) = lines[SPLITS[name]]
        box = shapely.box(*shapely.Polygon(ring).bounds)
        assert shapely.Polygon(ring).equals(box)
        assert area_of([ring]) == pytest.approx(columns * 1280 * 5 * 1280, rel=0.1)
        rows = index[split == name]
        assert rows.proj_left.min() < box.bounds[0] < box.bounds[2] < rows.proj_right.max()  # inside its own area
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "test"]


def test_lines_of_another_column_and_none(index, ax) -> None:
    rows = index.assign(split="train", tile=np.where(index.chip_index_y < 2, "a", "b"))
    assert len(lines_of(plot(rows, outline="tile", ax=ax))) == 2
    assert not lines_of(plot(rows, outline=None))
    assert not lines_of(plot(rows, "split"))  # the colours say it
    assert not lines_of(plot(index))
    with pytest.raises(ValueError, match="no column 'tiles'; it has chip_id"):
        plot(rows, outline="tiles")
    with pytest.raises(ValueError, match=r"no column 'split' yet: xchip\.split makes it"):
        plot(index, "split")


def test_splits_look_the_same_on_every_map(index) -> None:
    from xchip.selection.split import BUFFER

    both = index.assign(split=np.where(index.chip_index_x < 2, "val", BUFFER))
    colours = [to_hex(chips) for chips in plot(both, "split").collections[0].get_facecolor()]
    assert set(colours) == {SPLITS["val"], SPLITS[SET_ASIDE]}
    assert SET_ASIDE == BUFFER


# -- many chips ----------------------------------------------------------------------------------------------------------


def many(n: int, wide: int = 200) -> pd.DataFrame:
    column, row = np.arange(n) % wide, np.arange(n) // wide
    return pd.DataFrame(
        {
            "item_id": "synthetic",
            "proj_code": "EPSG:32719",
            "datetime": pd.NaT,
            "proj_left": column * 2560.0,
            "proj_right": (column + 1) * 2560.0,
            "proj_top": row * -2560.0,
            "proj_bottom": (row + 1) * -2560.0,
            "cloud_fraction": np.where(column == row, np.nan, column / wide),
            "split": np.where(column < wide // 2, "train", "test"),
        }
    )


def test_a_million_chips_are_cells_with_their_mean(ax) -> None:
    frame = many(1_000_000, 1000)
    start = time.perf_counter()
    plot(frame, ax=ax)
    ax.figure.canvas.draw()
    assert time.perf_counter() - start < 20
    (cells,) = (image.get_array() for image in ax.images if image.get_array().ndim == 2)
    lines = max(ax.images, key=lambda image: image.get_zorder()).get_array()
    assert cells.shape == (600, 600)
    assert np.allclose(cells.mean(axis=0), (np.arange(600) + 0.5) / 600, atol=2e-3)
    assert ax.get_title(loc="left").splitlines()[-1] == "as cells of 4.3 km (mean of the chips)"
    assert lines.shape == (600, 600, 4)
    assert lines[300, :, 3].nonzero()[0].tolist() == [0, 299, 300, 599]  # the borders of two halves
    assert ax.get_xlim() == (0, 2_560_000)
    plot(frame, "split", ax=ax)
    assert ax.get_title(loc="left").splitlines()[-1] == "as cells of 4.3 km (most frequent)"


def test_cells_without_values_are_grey(ax) -> None:
    frame = many(22_500, 150)
    plot(frame.assign(cloud_fraction=frame.cloud_fraction.where(frame.proj_left > 0)), ax=ax, outline=None)
    grey, cells = ax.images if ax.images[0].get_array().ndim == 3 else reversed(ax.images)
    shown = np.asarray(grey.get_array())[..., 3] > 0
    assert shown[:, :4].all()
    assert (shown == np.ma.getmaskarray(cells.get_array())).all()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no valid pixels"]


def test_cells_in_longitude_and_latitude(index, ax) -> None:
    from shapely import MultiPolygon, box

    n = 21_000
    west = -180 + 0.001 * np.arange(n)
    codes = np.where(np.arange(n) % 2, "EPSG:32601", "EPSG:32660")
    edges = {f"proj_{edge}": 0.0 for edge in ("left", "bottom", "right", "top")}
    frame = pd.DataFrame({"item_id": "a", "datetime": pd.NaT, "proj_code": codes, "cloud_fraction": 0.5, **edges})
    shapes = shapely.box(west, 0, west + 0.001, 1)
    shapes[0] = MultiPolygon([box(-180, 0, -179.9, 1), box(179.9, 0, 180, 1)])
    shapes[1] = box(0, 0, 1, 1)
    plot(frame.assign(geometry=shapes), ax=ax)
    cells = ax.images[0].get_array()
    filled = ~np.ma.getmaskarray(cells).all(axis=0)
    assert filled[:30].all()
    assert filled[300:302].any()
    assert not filled[60:299].any()  # a chip across the antimeridian is not drawn around the Earth
    assert not filled[303:-2].any()
    assert filled[-1]
    assert ax.get_title(loc="left").endswith("as cells of 0.6° (mean of the chips)")


def test_cells_on_both_sides_of_the_antimeridian(index, ax) -> None:
    n = 21_000
    codes = np.where(np.arange(n) % 2, "EPSG:32601", "EPSG:32660")
    edges = {f"proj_{edge}": 0.0 for edge in ("left", "bottom", "right", "top")}
    frame = pd.DataFrame({"item_id": "a", "datetime": pd.NaT, "proj_code": codes, "cloud_fraction": 0.5, **edges})
    west = np.where(np.arange(n) < n // 2, -180.0, 179.0) + 0.0001 * (np.arange(n) % (n // 2)) / 1.05
    plot(frame.assign(geometry=shapely.box(west, 0, west + 0.0001, 1)), ax=ax)
    assert ax.get_xlim() == pytest.approx((179, 181), abs=0.001)
    cells = ax.images[0].get_array()
    assert cells.shape[1] == 600
    assert not np.ma.getmaskarray(cells).any()


def test_chips_beneath_others_are_counted(index, ax) -> None:
    later = pd.concat([index, index.head(3).assign(item_id="later")])
    plot(later, ax=ax)
    assert ax.get_title(loc="left") == "28 chips of 2 scenes\n3 of them hidden below others at the same place"


@pytest.mark.parametrize("dpi", [100, 150])
def test_nothing_is_cut_off_in_a_file(index, dpi) -> None:
    """All text lies on the paper at the first drawing: the one that is saved."""
    both = pd.concat([index, index.assign(item_id="later")]).assign(
        cloud_fraction=lambda rows: rows.cloud_fraction.where(rows.row_off > 0)
    )
    figure = plot(both).figure
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ticks = [label for ax in figure.axes for label in (*ax.get_xticklabels(), *ax.get_yticklabels())]  # some are not drawn
    texts = [text for text in figure.findobj(Text) if text.get_text() and text not in ticks]
    assert {"no valid pixels", "easting (km), EPSG:32719"} <= {text.get_text() for text in texts}
    extents = np.array([text.get_window_extent(canvas.get_renderer()).extents for text in texts])
    paper = figure.bbox.extents
    assert (extents[:, :2] >= paper[:2]).all()
    assert (extents[:, 2:] <= paper[2:]).all()


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
