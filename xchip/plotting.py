"""Pictures: a map of an index, and a sheet of chips. They need matplotlib, which the extra ``plot`` installs.

A function that is given no axes draws on a plain `matplotlib.figure.Figure`, which needs no display, keeps no global state
and can be saved anywhere. Where pyplot is already loaded, or in IPython and notebooks, `plot` makes its figure with pyplot
instead, so that it is shown like any other.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.index import frame_of
from xchip.picture import band_values, bright_part, choose_bands, extent_of, grey_range, to_rgba

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "nodata_fraction": "Greys",
    "defective_fraction": "RdPu",
    "cloud_fraction": "YlGnBu",
    "shadow_fraction": "Purples",
    "snow_fraction": "PuBu",
    "water_fraction": "Blues",
    "clear_fraction": "YlGn",
}
"""Colour map of each fraction; "viridis" for other numbers."""
CATEGORIES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#882255", "#999933", "#44aa99")
INK, PALE = "#333333", "#f2f2f2"


def plot(
    index: Any,
    column: str = "cloud_fraction",
    *,
    ax: Axes | None = None,
    cmap: Any = None,
    vmin: float | None = None,
    vmax: float | None = None,
    title: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """A map of an index: each chip in the colour of ``column``. Chips without a value are grey and hatched.

    Chips are drawn as rectangles in their own CRS where all rows share one, else as footprints in longitude and latitude.
    Chips of several scenes of one place lie on each other, the last row on top: pick a scene first.

    Parameters
    ----------
    index
        An index: GeoDataFrame, path of a GeoParquet file or folder, pyarrow Table, or a lazy frame, which is computed.
    column
        What to show: numbers (fractions are shown as percentages, 0 to 100 %), or up to ten categories.
    ax
        Where to draw; a new figure without it.
    cmap, vmin, vmax
        Colour map and range of numbers.
    title
        Above the map; by default the item and its date where there is one item.
    colorbar
        Whether to draw the colour bar, or the legend of categories.

    Returns
    -------
    matplotlib.axes.Axes
        Save it with ``ax.figure.savefig("index.png")``.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra.
    ValueError
        If there is no such column, or it holds more than ten categories.

    Examples
    --------
    >>> import xchip.testing
    >>> index = xchip.testing.synthetic_stack(shape=(512, 512)).chips.index(64)
    >>> plot(index).get_xlabel()
    'easting (km), EPSG:32719'
    """
    require_matplotlib()
    from matplotlib.collections import PolyCollection

    frame = _frame(index)
    if column not in frame.columns:
        raise ValueError(f"the index has no column {column!r}; it has {', '.join(map(str, frame.columns))}")
    ax = _new_axes() if ax is None else ax
    corners, owner = _outlines(frame, ax)
    values = frame[column]
    missing = values.isna().to_numpy(bool)[owner]
    line = 0.5 if len(corners) <= 5000 else 0.0

    if missing.any():
        pick = np.flatnonzero(missing)
        ax.add_collection(
            PolyCollection([corners[i] for i in pick], facecolor=PALE, edgecolor="#c4c4c4", hatch="////", linewidth=line)
        )
    pick = np.flatnonzero(~missing)
    chips = PolyCollection([corners[i] for i in pick], edgecolor="white", linewidth=line)
    if values.dtype.kind in "iufb":
        fraction = str(column).endswith("_fraction")
        chips.set_array(values.to_numpy(float)[owner[pick]])
        chips.set_cmap(cmap or COLOURS.get(column, "viridis"))
        chips.set_clim(0 if fraction and vmin is None else vmin, 1 if fraction and vmax is None else vmax)
        if colorbar:
            _colorbar(ax, chips, column)
        handles = []
    else:
        handles = _paint_categories(chips, values.astype(str).to_numpy()[owner[pick]], column, cmap)
    ax.add_collection(chips)
    if colorbar:
        _legend(ax, handles, missing.any(), column)
    ax.set_title(_title(frame) if title is None else title, loc="left", fontsize="medium")
    return ax


def preview(
    rows: Any,
    ds: xr.Dataset,
    *,
    bands: Sequence[str] = ("red", "green", "blue"),
    max_chips: int = 24,
    columns: int | None = None,
    percentiles: tuple[float, float] = (2, 98),
) -> Figure:
    """A sheet of chips, with the id and the fraction of cloud beneath each.

    Parameters
    ----------
    rows
        Rows of an index whose items are in ``ds``.
    ds
        The stack to read them from. Only the chips on the sheet are read.
    bands
        Three for a colour picture, or one.
    max_chips
        How many chips at most: the first rows.
    columns
        Chips in a row of the sheet; nearly square without it.
    percentiles
        The range of the land's grey values that is spread, scene by scene; clouds and snow do not count.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no rows, or ``ds`` has no such bands.

    Examples
    --------
    >>> import xchip.testing
    >>> ds = xchip.testing.synthetic_stack(shape=(256, 256))
    >>> sheet = preview(ds.chips.index(64), ds, max_chips=6)
    >>> len(sheet.axes)
    6
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    frame = _frame(rows).head(max_chips)
    if frame.empty:
        raise ValueError("there are no rows to show")
    pixels = choose_bands(ds, bands).chips.extract(frame, pad=True).compute()
    values, valid = band_values(pixels, bands)  # (chip, y, x, band), (chip, y, x)
    columns = columns or math.ceil(math.sqrt(1.4 * len(frame)))
    n_rows = -(-len(frame) // columns)
    figure = Figure(figsize=(1.75 * columns, 2.05 * n_rows), layout="constrained")
    captions = [_caption(*pair) for pair in zip(frame["chip_id"], frame["cloud_fraction"], strict=True)]
    for own in frame.groupby("item_id", sort=False).indices.values():
        low, high = grey_range(values[own][valid[own]], percentiles, bright_part(frame.iloc[own]))
        for chip in own:
            ax = figure.add_subplot(n_rows, columns, chip + 1)
            ax.imshow(to_rgba(values[chip], valid[chip], low, high), interpolation="nearest")
            ax.set(xticks=[], yticks=[], facecolor=PALE)
            ax.spines[:].set_visible(False)
            ax.set_xlabel(captions[chip], fontsize=6.5, color=INK, labelpad=3)
    return figure


def plot_scenes(
    index: Any,
    ds: xr.Dataset,
    column: str = "cloud_fraction",
    *,
    bands: Sequence[str] = ("red", "green", "blue"),
    max_pixels: int = 900,
    percentiles: tuple[float, float] = (2, 98),
) -> Figure:
    """Each scene of a stack twice: as a picture with the chips' outlines, and beneath it the map of the index.

    Parameters
    ----------
    index
        Rows of items that are in ``ds``; see `plot`.
    ds
        The stack. Whole scenes are read, one after the other.
    column
        What the map shows.
    bands
        Three for a colour picture, or one.
    max_pixels
        Width and height of the picture at most: every n-th pixel is drawn.
    percentiles
        As for `preview`.

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

    frame = _frame(index)
    ids = [str(item_id) for item_id in np.atleast_1d(ds["item_id"].values)]
    shown = [item_id for item_id in ids if (frame["item_id"] == item_id).any()]
    if not shown:
        raise ValueError(f"no item of the index is in the stack, which has {', '.join(ids)}")
    step = max(1, -(-max(ds.sizes["y"], ds.sizes["x"]) // max_pixels))
    from xchip.arrays import as_dataset

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
        corners, _ = _outlines(rows, upper)
        upper.imshow(to_rgba(values, valid, low, high), extent=extent, interpolation="antialiased", zorder=0)
        upper.add_collection(PolyCollection(corners, facecolor="none", edgecolor="white", linewidth=0.4, alpha=0.55))
        upper.set_title(_title(rows), loc="left", fontsize="medium")
        plot(rows, column, ax=lower, colorbar=False, title="")
        for ax in (upper, lower):
            ax.set(xlim=extent[:2], ylim=extent[2:], facecolor="white")
            ax.label_outer()
    chips = [c for ax in axes[1] for c in ax.collections if c.get_array() is not None]
    if chips:
        _colorbar(list(axes[1]), chips[0], column)
    missing = frame[column].isna().any()
    if missing:
        _legend(axes[1, -1], [], True, column)
    return figure


def require_matplotlib() -> None:
    """Raise an ImportError that names the extra where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'xchip[plot]'") from error


def _new_axes() -> Axes:
    from matplotlib.figure import Figure

    ipython = sys.modules.get("IPython")
    interactive = ipython is not None and ipython.get_ipython() is not None
    if "matplotlib.pyplot" in sys.modules or interactive:
        import matplotlib.pyplot

        return matplotlib.pyplot.subplots(figsize=(7, 6), layout="constrained")[1]
    return Figure(figsize=(7, 6), layout="constrained").subplots()


def _frame(index: Any) -> pd.DataFrame:
    if isinstance(index, (str, Path)):
        import geopandas

        return geopandas.read_parquet(index)
    return frame_of(index)


def _outlines(frame: pd.DataFrame, ax: Axes) -> tuple[Any, np.ndarray]:
    """(corner coordinates of each polygon, row of the frame that each belongs to); sets the axes up for them."""
    codes = frame["proj_code"].dropna().unique()
    if len(codes) == 1:
        left, bottom, right, top = (frame[f"proj_{edge}"].to_numpy() for edge in ("left", "bottom", "right", "top"))
        corners: Any = np.stack([left, bottom, right, bottom, right, top, left, top], axis=1).reshape(-1, 4, 2)
        _label_axes(ax, str(codes[0]))
        owner = np.arange(len(frame))
    else:
        corners, owner = _footprints(frame)
        _label_axes(ax, "EPSG:4326")
    if len(corners):
        points = np.concatenate(list(corners))
        low, high = points.min(axis=0), points.max(axis=0)
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        if len(codes) != 1:
            ax.set_aspect(1 / max(0.05, math.cos(math.radians((low[1] + high[1]) / 2))))
    return corners, owner


def _footprints(frame: pd.DataFrame) -> tuple[list[np.ndarray], np.ndarray]:
    import shapely

    shapes = frame["geometry"].to_numpy()
    if len(shapes) and isinstance(shapes[0], bytes):
        shapes = shapely.from_wkb(shapes)
    parts, owner = shapely.get_parts(shapes, return_index=True)
    points, part = shapely.get_coordinates(shapely.get_exterior_ring(parts), return_index=True)
    return np.split(points, np.flatnonzero(np.diff(part)) + 1) if len(parts) else [], owner


def _label_axes(ax: Axes, proj_code: str) -> None:
    import pyproj

    crs = pyproj.CRS(proj_code)
    name = proj_code if len(proj_code) < 20 else crs.name
    ax.set_aspect("equal")
    ax.locator_params(nbins=5)
    ax.tick_params(labelsize="small", colors=INK)
    ax.spines[:].set_color("#bbbbbb")
    if crs.is_geographic:
        ax.set(xlabel="longitude (°)", ylabel="latitude (°)")
        return
    unit = crs.axis_info[0].unit_name
    if unit == "metre":
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value / 1000:,.6g}")
    unit = {"metre": "km"}.get(unit, unit)
    ax.set(xlabel=f"easting ({unit}), {name}", ylabel=f"northing ({unit})")


def _colorbar(axes: Any, chips: Any, column: str) -> None:
    first = axes[0] if isinstance(axes, list) else axes
    bar = first.figure.colorbar(chips, ax=axes, shrink=0.85, pad=0.02, aspect=28)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize="small", length=0)
    bar.set_label(_units(column), fontsize="small")
    if column.endswith("_fraction"):
        bar.formatter = lambda value, _: f"{value:.0%}"
        bar.update_ticks()


def _units(column: str) -> str:
    if not column.endswith("_fraction"):
        return column
    pixels = "all pixels" if column == "nodata_fraction" else "valid pixels"
    return f"{column.removesuffix('_fraction')} (% of the chip's {pixels})"


def _paint_categories(chips: Any, labels: np.ndarray, column: str, cmap: Any) -> list[Any]:
    """Colour ``chips`` by label; the handles of a legend."""
    import matplotlib
    from matplotlib.patches import Patch

    names = sorted(set(labels))
    if len(names) > len(CATEGORIES):
        raise ValueError(f"column {column!r} holds {len(names)} different values; a map shows numbers, or up to ten categories")
    palette = CATEGORIES if cmap is None else [matplotlib.colormaps[cmap](i / max(1, len(names) - 1)) for i in range(len(names))]
    colours = dict(zip(names, palette, strict=False))
    chips.set_facecolor([colours[label] for label in labels])
    return [Patch(facecolor=colour, label=name) for name, colour in colours.items()]


def _legend(ax: Axes, handles: list[Any], missing: bool, column: str) -> None:
    from matplotlib.patches import Patch

    if missing:
        label = "no valid pixels" if column.endswith("_fraction") else "no value"
        handles = [*handles, Patch(facecolor=PALE, edgecolor="#c4c4c4", hatch="////", label=label)]
    if handles:
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2, "borderpad": 0.2}
        ax.legend(handles=handles, ncols=5, frameon=False, fontsize="small", handlelength=1.4, columnspacing=1.0, **place)


def _title(frame: pd.DataFrame) -> str:
    chips = f"{len(frame):,} chips" if len(frame) != 1 else "1 chip"
    items = frame["item_id"].unique()
    if len(items) != 1:
        return f"{chips} of {len(items):,} scenes"
    dates = frame["datetime"].dropna()
    day = f", {dates.iloc[0]:%Y-%m-%d}" if len(dates) else ""
    return f"{_short(str(items[0]), 34)}{day}\n{chips}"


def _caption(chip_id: str, cloud: float) -> str:
    return f"{_short(chip_id, 26)}\n{'no valid pixels' if math.isnan(cloud) else f'{cloud:.0%} cloud'}"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"…{text[1 - length :]}"
