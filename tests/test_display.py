"""Reprs of grids and of ``.chips``: well-formed, small, escaped, and no pixel read."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import dask.array
import numpy as np
import pytest
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

from xchip.chips.array_repr import array_html, array_text
from xchip.core.grid import ChipGrid, PixelGrid
from xchip.core.html import accessor_html, grid_html
from xchip.testing import raise_if_dask_computes, synthetic_stack

SVG = "{http://www.w3.org/2000/svg}"


def pixels(shape: tuple[int, int] = (600, 1000), crs: str = "EPSG:32720") -> PixelGrid:
    return PixelGrid(crs, (10.0, 0.0, 499980.0, 0.0, -10.0, 6400000.0), shape)


def rects(page: str) -> list[tuple[float, ...]]:
    """(x, y, width, height) of every rectangle, the scene's last."""
    found = ET.fromstring(page).iter(f"{SVG}rect")
    return [tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "height")) for rect in found]


def cells(page: str) -> dict[str, str]:
    return {row[0].text or "": row[1].text or "" for row in ET.fromstring(page).iter("tr")}


def test_table_of_a_grid() -> None:
    grid = ChipGrid(pixels(), (256, 200), 128, "pad", "crs")
    assert cells(grid_html(grid)) == {
        "chips": f"{len(grid)} ({grid.shape[0]} x {grid.shape[1]}, chip_y x chip_x)",
        "size": "256 x 200 pixels",
        "stride": "128 x 128 pixels",
        "edge": "pad",
        "anchor": "crs",
        "scene": "600 x 1000 pixels (height x width)",
        "pixel size": "10 x 10 m",
        "CRS": "EPSG:32720",
        "bounds": "499980, 6394000, 509980, 6400000",
    }
    assert grid._repr_html_() == grid_html(grid)


def test_chips_are_drawn_where_they_are() -> None:
    *chips, scene = rects(grid_html(ChipGrid(pixels((512, 1024)), 256)))
    assert len(chips) == 8
    assert scene == (1, 1, 220, 110)
    assert chips[0] == (1, 1, 55, 55)
    assert chips[-1] == (166, 56, 55, 55)


def test_padding_is_drawn_outside_the_scene() -> None:
    *chips, scene = rects(grid_html(ChipGrid(pixels((100, 100)), 200, edge="pad")))
    assert chips == [(1, 1, 220, 220)]
    assert scene == (1, 1, 110, 110)


@pytest.mark.parametrize("shape", [(10980, 10980), (80_000, 81_000), (30, 200_000), (200_000, 30), (1, 1), (300, 70_000)])
@pytest.mark.parametrize(("edge", "stride"), [("drop", None), ("partial", 8), ("pad", 64)])
def test_a_drawing_stays_small(shape: tuple[int, int], edge: str, stride: int | None) -> None:
    page = grid_html(ChipGrid(pixels(shape), 32, stride, edge))
    tree = ET.fromstring(page)
    assert len(list(tree.iter())) < 400
    assert len(page) < 60_000
    svg = next(tree.iter(f"{SVG}svg"))
    assert 16 <= float(svg.attrib["width"]) <= 222
    assert 16 <= float(svg.attrib["height"]) <= 222
    assert "nan" not in page
    assert "inf" not in page


def test_a_drawing_says_which_lines_it_leaves_out() -> None:
    assert "a line every 8 rows and 8 columns of chips" in grid_html(ChipGrid(pixels((80_000, 80_000)), 256))
    assert "a line every" not in grid_html(ChipGrid(pixels((8_000, 8_000)), 256))


def test_a_grid_without_chips() -> None:
    page = grid_html(ChipGrid(pixels((100, 100)), 256))
    assert cells(page)["chips"] == "0 (0 x 0, chip_y x chip_x)"
    assert len(rects(page)) == 1
    assert rects(grid_html(ChipGrid(pixels((100, 9000)), 256)))  # 35 columns and no row


def test_text_is_escaped() -> None:
    evil = '<script>alert("1")</script>'
    page = grid_html(ChipGrid(pixels(crs=f'PROJCRS["{evil.replace(chr(34), "")}",...'), 256))
    assert cells(page)["CRS"] == "<script>alert(1)</script> (no code)"
    for text in (page, grid_html(ChipGrid(pixels(crs=evil), 256)), accessor_html(evil, [(evil, evil)])):
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        ET.fromstring(text)


def test_a_long_crs_is_named() -> None:
    wkt = 'PROJCRS["unnamed sinusoidal",BASEGEOGCRS["sphere",' + "x" * 3000
    assert cells(grid_html(ChipGrid(pixels(crs=wkt), 256)))["CRS"] == "unnamed sinusoidal (no code)"
    assert len(cells(grid_html(ChipGrid(pixels(crs="+proj=sinu " * 99), 256)))["CRS"]) == 80


def test_the_accessor_shows_what_it_makes_of_an_array() -> None:
    ds = synthetic_stack(shape=(600, 1000))
    found = cells(array_html(ds))
    assert found["CRS"] == ds.rio.crs.to_string()
    assert found["scene"] == "600 x 1000 pixels (height x width)"
    assert found["quality"].startswith("scl: ")
    assert found[".grid()"] == "2 x 3 chips of 256 x 256 pixels"
    assert len(rects(array_html(ds))) == 7
    assert ds.chips._repr_html_() == array_html(ds)
    assert repr(ds.chips) == array_text(ds)
    assert ".grid():     2 x 3 chips of 256 x 256 pixels" in array_text(ds)


def test_a_repr_reads_no_pixel() -> None:
    ds = synthetic_stack(shape=(600, 1000)).chunk()
    with raise_if_dask_computes():
        assert "quality" in cells(array_html(ds))
        assert "quality" in cells(array_html(ds["red"]))
        assert "nodata of the bands" in array_text(ds[["red", "green"]])


def test_a_repr_of_a_large_array_costs_nothing() -> None:
    huge = dask.array.zeros((200_000, 300_000), chunks=10_000, dtype="uint16")
    y, x = 6e6 - 10 * np.arange(200_000.0), 5e5 + 10 * np.arange(300_000.0)
    array = xr.DataArray(huge, dims=("y", "x"), coords={"y": y, "x": x}, name="red").rio.write_crs(32633)
    with raise_if_dask_computes():
        assert cells(array_html(array))[".grid()"] == "781 x 1171 chips of 256 x 256 pixels"


def test_an_array_that_cannot_be_cut_says_why() -> None:
    bare = xr.DataArray(np.zeros((4, 4)), dims=("y", "x"))
    assert "has no one-dimensional coordinate of pixel centres" in cells(array_html(bare))["no grid"]
    assert "no grid:" in repr(bare.chips)
    placed = bare.assign_coords(y=[4.0, 3, 2, 1], x=[1.0, 2, 3, 4])
    assert "the array has no CRS" in cells(array_html(placed))["no grid"]
    assert not rects(array_html(placed))
