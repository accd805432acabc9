"""Pictures of pixels: a sheet of chips, and scenes with their chips. They need matplotlib, which the extra ``plot`` installs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
"""Chips that one task reads."""

_ROWS = (
    "chip_id", "item_id", "collection", "item_href", "sensor", "datetime", "chip_index_x", "chip_index_y", "col_off", "row_off",
    "width", "height", "proj_code", "proj_left", "proj_bottom", "proj_right", "proj_top", "nodata_fraction", "cloud_fraction",
    "snow_fraction",
)  # fmt: skip


def preview(
    rows: Any,
    ds: xr.Dataset | None = None,
    *,
    n: int = 16,
    seed: int | None = 0,
    bands: Sequence[str] | None = None,
    columns: int | None = None,
    percentiles: tuple[float, float] = (2, 98),
    items: Any = None,
    storage: StorageOptions | None = None,
    pixels: StorageOptions | None = None,
) -> Figure:
    """A sheet of chips, with the id and the share of cloud beneath each. Only the chips on the sheet are read.

    Parameters
    ----------
    rows
        Rows of an index, of any number of items, products and CRSs: a path, a frame or a table, as for `xchip.open_chips`.
    ds
        A stack that holds the items of all rows; without it chips are read from the items that the index names.
    n
        How many chips at most.
    seed
        Which ``n`` of more rows are shown: drawn at random, and the same for the same seed; in the order of the rows. None: the
        first.
    bands
        Three for a colour picture, or one for a grey one. None: red, green and blue, or the first band of a product without.
    columns
        Chips in a row of the sheet; nearly square without it.
    percentiles
        The range of the land's grey values that is spread, scene by scene; clouds and snow do not count.
    items, storage, pixels
        Where items, the index and rasters are, as for `xchip.open_chips`.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``.savefig("sheet.png")``; a notebook shows it.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra.
    ValueError
        If there are no rows, or no such bands.
    xchip.ItemError
        For an item that can't be used, or a file that can't be read.

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
    frame = columns_of(rows, _ROWS, storage)
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
        for own in _products(frame):
            chips = _open(frame.iloc[own], bands, items=items, storage=storage, pixels=pixels)
            pictures |= {own[chip]: picture for chip, picture in _pictures(frame.iloc[own], chips, bands, percentiles)}
    columns = columns or _columns(len(frame))
    down = -(-len(frame) // columns)
    figure = Figure(figsize=(1.75 * columns, 2.05 * down + (0.25 if total > n else 0)), layout="constrained")
    nothing = [math.nan] * len(frame)
    clouds, nodata = (frame.get(f"{name}_fraction", nothing) for name in ("cloud", "nodata"))
    for chip, caption in enumerate(zip(frame["chip_id"], clouds, nodata, strict=True)):
        ax = figure.add_subplot(down, columns, chip + 1)
        ax.imshow(pictures[chip], interpolation="nearest")
        ax.set(xticks=[], yticks=[], facecolor=PALE)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(_caption(*caption), fontsize=6.5, color=INK, labelpad=3)
    if total > n:
        figure.suptitle(f"{n} of {total:,} chips", x=0.01, ha="left", fontsize=8, color=INK)
    settle(figure)
    return figure


def _columns(n: int) -> int:
    """Chips in a row of a sheet a little wider than high, with few places left empty in its last row."""
    ideal = math.sqrt(1.4 * n)
    return min((math.floor(ideal), math.ceil(ideal)), key=lambda columns: (-n % columns, abs(columns - ideal)))


def _products(frame: pd.DataFrame) -> list[np.ndarray]:
    """Positions of the rows of each product: bands, data types and nodata are one product's."""
    keys = [name for name in ("collection", "sensor") if name in frame]
    groups = frame.groupby(keys, dropna=False, sort=False).indices.values() if keys else [range(len(frame))]
    return [np.asarray(own) for own in groups]


def _open(rows: pd.DataFrame, bands: Sequence[str] | None, **options: Any) -> xr.Dataset:
    """The chips of one product in the bands of a picture, and in no other: items of one product may differ in those."""
    from xchip.chips.open_chips import open_chips

    if bands is None:
        found = picture_bands(open_chips(rows, pad=True, **options))
        bands = RGB if len(found) == len(RGB) else found  # by common names, for keys may differ too
    return open_chips(rows, bands, pad=True, chunks=CHUNK, **options)


def _pictures(
    frame: pd.DataFrame, ds: xr.Dataset, bands: Sequence[str] | None, percentiles: tuple[float, float]
) -> Iterator[tuple[int, np.ndarray]]:
    """(position, uint8 RGBA (y, x, 4)) of each row's chip. ``ds`` has chips in the order of the rows, or is a stack."""
    bands = picture_bands(ds) if bands is None else bands
    chosen = choose_bands(ds, bands)
    chips = (chosen if "chip" in ds.dims else chosen.chips.extract(frame, pad=True)).compute()
    values, valid = band_values(chips, bands)  # (chip, y, x, band), (chip, y, x)
    sizes = frame[["height", "width"]].to_numpy()
    for own in frame.groupby("item_id", sort=False).indices.values():
        low, high = grey_range(values[own][valid[own]], percentiles, bright_part(frame.iloc[own]))
        for chip in own:
            height, width = sizes[chip]
            yield chip, to_rgba(values[chip, :height, :width], valid[chip, :height, :width], low, high)


def _caption(chip_id: Any, cloud: float, nodata: float) -> str:
    shares = ["no valid pixels" if math.isnan(cloud) else f"{cloud:.0%} cloud"]
    if not math.isnan(cloud) and nodata >= 0.005:
        shares.append(f"{nodata:.0%} nodata")
    return f"{shortened(str(chip_id), 30)}\n{', '.join(shares)}"


def plot_scenes(
    index: Any,
    ds: xr.Dataset,
    column: str = "cloud_fraction",
    *,
    bands: Sequence[str] | None = None,
    max_pixels: int = 900,
    percentiles: tuple[float, float] = (2, 98),
) -> Figure:
    """Each scene of a stack twice: as a picture with the chips' outlines, and beneath it the map of the index.

    Parameters
    ----------
    index
        Rows of items that are in ``ds``; see `xchip.plot`.
    ds
        The stack. Whole scenes are read, one after the other.
    column
        What the map shows: numbers.
    bands, percentiles
        As for `preview`.
    max_pixels
        Width and height of the picture at most: every n-th pixel is drawn.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If no item of the index is in ``ds``, or it has no such bands.
    """
    require_matplotlib()
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    from xchip.core.arrays import as_dataset
    from xchip.indexing.opening.read import rows_of

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
        # Beside all axes, so that both rows have the same room; but only as high as the lower one.
        draw_colorbar(list(axes.flat), chips[0], frame[column], shrink=0.42, anchor=(0.0, 0.08))
    if frame[column].isna().any():
        draw_legend(axes[1, -1], [missing_handle(column)])
    settle(figure)
    return figure
