"""`preview`: draw a sheet of chips; also scenes with their chips. They need matplotlib, which the extra ``plot`` installs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xchip.chips.chip_table import ChipTable, TableOptions, rows_and_options
from xchip.chips.open_chips import open_chips
from xchip.core.arrays import as_dataset
from xchip.core.types import Assets, IndexLike, Items
from xchip.indexing.opening.read import rows_of
from xchip.plots.axes import (
    INK,
    PALE,
    draw_colorbar,
    draw_legend,
    missing_handle,
    require_matplotlib,
    settle,
    shortened,
    title_of,
)
from xchip.plots.index_map import columns_of, places_of, plot
from xchip.plots.rgb import RGB, band_values, bright_part, choose_bands, extent_of, grey_range, picture_bands, to_rgba

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from xchip.io.storage import StorageOptions

CHUNK = 4
"""Number of chips that one task reads."""

_ROWS = (
    "chip_id", "item_id", "collection", "item_href", "sensor", "datetime", "chip_index_x", "chip_index_y", "col_off", "row_off",
    "width", "height", "proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top", "nodata_fraction", "cloud_fraction",
    "snow_fraction",
)  # fmt: skip


def preview(
    rows: IndexLike | ChipTable,
    ds: xr.Dataset | None = None,
    *,
    n: int = 16,
    seed: int | None = 0,
    bands: Sequence[str] | None = None,
    columns: int | None = None,
    percentiles: tuple[float, float] = (2, 98),
    items: Items | None = None,
    storage: StorageOptions | None = None,
    pixels: StorageOptions | None = None,
) -> Figure:
    """Draw a sheet of chips, with the id and the fraction of cloud below each chip. Only the chips on the sheet are read.

    Parameters
    ----------
    rows
        Rows of an index, of any items, products and CRSs, as for `xchip.open_chips`: a path, a frame, a pyarrow Table or a
        `ChipTable`.
    ds
        A stack with the items of all rows. None: read chips from the items that the index names.
    n
        Largest number of chips.
    seed
        Seed of the draw if there are more than ``n`` rows; the chips stay in the order of the rows. None: the first ``n`` rows.
    bands
        Three bands for a colour picture, or one for a grey one. None: red, green and blue, or the first band of products without
        these.
    columns
        Number of chips in a row of the sheet; by default the sheet is nearly square.
    percentiles
        Percentiles of the values of land, per scene, between which tones are spread; clouds and snow do not count.
    items, storage, pixels
        How to find the items, and how to reach the index and the rasters, as for `xchip.open_chips`.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``.savefig("sheet.png")``; a notebook shows it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there are no rows or no such bands; or if ``rows`` is a `ChipTable` and items, storage or pixels are given.
    xchip.ItemError
        If an item can't be used, or a file can't be read.

    Examples
    --------
    >>> import xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(256, 256))
    >>> sheet = preview(ds.chips.index(64), ds, n=6)
    >>> len(sheet.axes)
    6
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    if n < 1:
        raise ValueError(f"n is the number of chips on the sheet, at least 1, got {n}")
    index, assets, options = rows_and_options(rows, None, TableOptions(items=items, storage=storage, pixels=pixels))
    frame = columns_of(index, _ROWS, storage)
    if frame.empty:
        raise ValueError("there are no rows to show: the index has none, or a filter or bbox keeps none")
    total = len(frame)
    if total > n and seed is not None:
        frame = frame.iloc[np.sort(np.random.default_rng(seed).choice(total, n, replace=False))]
    frame = frame.head(n)
    if ds is not None:
        pictures = dict(_pictures(frame, ds, bands, percentiles))
    else:
        pictures = {}
        for positions in _products(frame):
            product = frame.iloc[positions]
            chips = _open(product, bands, assets, options)
            pictures |= {positions[chip]: picture for chip, picture in _pictures(product, chips, bands, percentiles)}
    columns = columns or _columns(len(frame))
    lines = -(-len(frame) // columns)
    figure = Figure(figsize=(1.75 * columns, 2.05 * lines + (0.25 if total > n else 0)), layout="constrained")
    for chip in range(len(frame)):
        ax = figure.add_subplot(lines, columns, chip + 1)
        ax.imshow(pictures[chip], interpolation="nearest")
        ax.set(xticks=[], yticks=[], facecolor=PALE)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(_caption(frame.iloc[chip]), fontsize=6.5, color=INK, labelpad=3)
    if total > n:
        figure.suptitle(f"{n} of {total:,} chips", x=0.01, ha="left", fontsize=8, color=INK)
    settle(figure)
    return figure


def _columns(n: int) -> int:
    """Return the number of chips per row of a sheet a little wider than high, with few gaps in the last row."""
    ideal = math.sqrt(1.4 * n)
    return min((math.floor(ideal), math.ceil(ideal)), key=lambda columns: (-n % columns, abs(columns - ideal)))


def _products(frame: pd.DataFrame) -> list[np.ndarray]:
    """Return the positions of the rows of each product, because products differ in bands, data types and nodata."""
    keys = [name for name in ("collection", "sensor") if name in frame]
    groups = frame.groupby(keys, dropna=False, sort=False).indices.values() if keys else [range(len(frame))]
    return [np.asarray(positions) for positions in groups]


def _open(rows: pd.DataFrame, bands: Sequence[str] | None, assets: Assets, options: TableOptions) -> xr.Dataset:
    """Open the chips of a product in the bands of a picture alone, because items may differ in other bands."""
    options = options | {"pad": True}
    if bands is None:
        bands = picture_bands(open_chips(rows, assets, **options))
        if len(bands) == len(RGB):
            bands = RGB  # common names, because keys may differ between items too
    return open_chips(rows, bands, chunks=CHUNK, **options)


def _pictures(
    frame: pd.DataFrame, ds: xr.Dataset, bands: Sequence[str] | None, percentiles: tuple[float, float]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (position, uint8 RGBA (y, x, 4)) of each chip. ``ds`` has chips in the order of the rows, or is a stack."""
    bands = picture_bands(ds) if bands is None else bands
    chosen = choose_bands(ds, bands)
    chips = (chosen if "chip" in ds.dims else chosen.chips.extract(frame, pad=True)).compute()
    values, valid = band_values(chips, bands)  # (chip, y, x, band), (chip, y, x)
    sizes = frame[["height", "width"]].to_numpy()
    for item in frame.groupby("item_id", sort=False).indices.values():
        low, high = grey_range(values[item][valid[item]], percentiles, bright_part(frame.iloc[item]))
        for chip in item:
            height, width = sizes[chip]
            yield chip, to_rgba(values[chip, :height, :width], valid[chip, :height, :width], low, high)


def _caption(row: pd.Series) -> str:
    chip_id = shortened(str(row["chip_id"]), 30)
    if "cloud_fraction" not in row:
        return chip_id
    cloud, nodata = row["cloud_fraction"], row.get("nodata_fraction", 0.0)
    shares = "no valid pixels" if math.isnan(cloud) else f"{cloud:.0%} cloud"
    return f"{chip_id}\n{shares}{f', {nodata:.0%} nodata' if not math.isnan(cloud) and nodata >= 0.005 else ''}"


def plot_scenes(
    index: IndexLike,
    ds: xr.Dataset,
    column: str = "cloud_fraction",
    *,
    bands: Sequence[str] | None = None,
    max_pixels: int = 900,
    percentiles: tuple[float, float] = (2, 98),
) -> Figure:
    """Draw each scene of a stack twice: as a picture with the outlines of chips, and as a map of the index below it.

    Parameters
    ----------
    index
        Rows of items in ``ds``, in any form that `xchip.plot` takes.
    ds
        The stack. Whole scenes are read, one after the other.
    column
        Column of numbers that the map shows.
    bands, percentiles
        As for `preview`.
    max_pixels
        Largest width and height of the picture: every n-th pixel is drawn.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If no item of the index is in ``ds``, or a band is missing.
    """
    require_matplotlib()
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    frame = rows_of(index)
    ids = [str(item_id) for item_id in np.atleast_1d(ds["item_id"].values)]
    shown = [item_id for item_id in ids if (frame["item_id"] == item_id).any()]
    if not shown:
        raise ValueError(f"no item of the index is in the stack, which has {', '.join(ids)}")
    step = max(1, -(-max(ds.sizes["y"], ds.sizes["x"]) // max_pixels))
    bands = picture_bands(ds) if bands is None else bands
    small = as_dataset(choose_bands(ds, bands)).isel(y=slice(None, None, step), x=slice(None, None, step))
    extent = extent_of(ds)

    figure = Figure(figsize=(3.5 * len(shown) + 0.9, 7.3), layout="constrained")
    axes = figure.subplots(2, len(shown), sharex=True, sharey=True, squeeze=False)
    for number, item_id in enumerate(shown):
        upper, lower = axes[:, number]
        rows = frame[frame["item_id"] == item_id]
        scene = small.isel(time=ids.index(item_id)) if "time" in small.dims else small
        values, valid = band_values(scene.compute(), bands)
        low, high = grey_range(values[valid], percentiles, bright_part(rows))
        places = places_of(rows)
        places.set_up(upper)
        upper.imshow(to_rgba(values, valid, low, high), extent=extent, interpolation="antialiased", zorder=0)
        upper.add_collection(PolyCollection(places.corners, facecolor="none", edgecolor="white", linewidth=0.4, alpha=0.55))
        upper.set_title(title_of(rows), loc="left", fontsize="medium")
        plot(rows, column, ax=lower, colorbar=False, title="", outline=None)
        for ax in (upper, lower):
            ax.set(xlim=extent[:2], ylim=extent[2:])
            ax.label_outer()
        upper.set_facecolor("white")
    chips = [c for ax in axes[1] for c in [*ax.collections, *ax.images] if c.get_array() is not None]
    if chips:
        # Beside all axes, so that both rows have the same width; but only as high as the lower row.
        draw_colorbar(list(axes.flat), chips[0], frame[column], shrink=0.42, anchor=(0.0, 0.08))
    if frame[column].isna().any():
        draw_legend(axes[1, -1], [missing_handle(column)])
    settle(figure)
    return figure
