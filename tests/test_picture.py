"""Pixels as pictures: which values become which tones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  registers .rio

from xchip.plots.rgb import band_values, bright_part, grey_range, to_rgba
from xchip.testing import synthetic_stack


def test_nodata_is_transparent() -> None:
    ds = synthetic_stack(red=np.array([[0, 10], [20, 30]], "uint16"))
    ds["red"] = ds.red.rio.write_nodata(0)
    values, valid = band_values(ds.isel(time=0), ["red"])
    picture = to_rgba(values, valid, *grey_range(values[valid], (0, 100)))
    assert picture[..., 3].tolist() == [[0, 255], [255, 255]]
    assert picture[1, 1].tolist() == [204, 204, 204, 255]  # four fifths: the rest is for what is brighter


def test_flat_pixels_have_a_range() -> None:
    low, high = grey_range(np.full((4, 3), 7.0), (2, 98))
    assert high > low


def test_clouds_do_not_darken_the_land() -> None:
    land, clouds = np.linspace(100, 300, 800), np.full(200, 9000.0)
    pixels = np.concatenate([land, clouds])[:, None]
    assert grey_range(pixels, (0, 98))[1] == 9000
    assert grey_range(pixels, (0, 98), bright=0.2)[1] == pytest.approx(300, rel=0.05)


def test_bright_part_is_of_valid_pixels() -> None:
    rows = pd.DataFrame(
        {
            "width": [10, 10, 10],
            "height": [10, 10, 10],
            "nodata_fraction": [0.0, 0.5, 1.0],
            "cloud_fraction": [0.2, 0.4, np.nan],
            "snow_fraction": [0.1, 0.0, np.nan],
        }
    )
    assert bright_part(rows) == pytest.approx((30 + 20) / 150)
    assert bright_part(rows.tail(1)) == 0


def test_brighter_is_never_drawn_darker() -> None:
    levels = np.linspace(0, 12000, 5000, dtype="float32").reshape(50, 100, 1)
    tones = to_rgba(levels, np.ones((50, 100), bool), 200.0, 2000.0)[..., 0].ravel().astype(int)
    assert (np.diff(tones) >= 0).all()
    assert (tones[0], tones[-1] > 245) == (0, True)
