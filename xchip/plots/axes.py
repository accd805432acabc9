"""Draw labels, colour bars, legends and titles of a map. matplotlib is imported when something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xchip.core.html import unit_of

if TYPE_CHECKING:
    import pandas as pd
    import pyproj
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

INK, PALE, GREY = "#333333", "#f2f2f2", "#c4c4c4"
EDGE = "#d9d9d9"
"""Colour of lines between chips: visible beside the highest and the lowest colours."""
GROUND = "#e4e4e8"
"""Colour of a map without chips: darker than the lowest colour of every colour map, which is nearly white."""


def require_matplotlib() -> None:
    """Raise an ImportError that names the extra unless matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'xchip[plot]'") from error


def settle(figure: Figure) -> None:
    """Lay out a finished figure."""
    # matplotlib uses the tick labels of the previous layout, so the first layout cuts titles and legends by some pixels.
    figure.draw_without_rendering()


def label_axes(ax: Axes, crs: pyproj.CRS, proj_code: str) -> None:
    """Style the axes of a map and label x and y."""
    name = proj_code if len(proj_code) < 20 else crs.name
    ax.set_aspect("equal")
    ax.set_facecolor(GROUND)
    ax.locator_params(nbins=5)
    ax.tick_params(labelsize="small", colors=INK)
    ax.spines[:].set_color("#bbbbbb")
    if crs.is_geographic:
        ax.set(xlabel="longitude (°)", ylabel="latitude (°)")
        return
    unit = unit_of(crs)
    if unit == "m":
        unit = "km"
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value / 1000:,.6g}")
    ax.set(xlabel=f"easting ({unit}), {name}", ylabel=f"northing ({unit})")


def draw_colorbar(
    axes: Axes | list[Axes], picture: ScalarMappable, values: pd.Series, shrink: float = 0.85, anchor: Sequence[float] = (0, 0.5)
) -> None:
    """Draw a colour bar beside one or several axes: fractions as percentages, dates as dates."""
    from matplotlib.dates import AutoDateLocator, DateFormatter
    from matplotlib.ticker import FuncFormatter
    from pandas.api.types import is_datetime64_any_dtype

    column = str(values.name)
    first = axes[0] if isinstance(axes, list) else axes
    bar = first.figure.colorbar(picture, ax=axes, shrink=shrink, anchor=anchor, pad=0.02, aspect=28)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize="small", length=0)
    bar.set_label(_label(column), fontsize="small")
    if column.endswith("_fraction"):
        bar.formatter = FuncFormatter(lambda value, _: f"{value:.0%}")
    elif is_datetime64_any_dtype(values):
        low, high = picture.get_clim()
        bar.locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        bar.formatter = DateFormatter("%Y-%m-%d" if high - low > 2 else "%m-%d %H:%M")  # type: ignore[no-untyped-call]
    bar.update_ticks()


def _label(column: str) -> str:
    if not column.endswith("_fraction"):
        return column
    pixels = "all the chip's pixels" if column == "nodata_fraction" else "the chip's valid pixels"
    return f"{column.removesuffix('_fraction')} (% of {pixels})"


def missing_handle(column: str, *, hatched: bool = True) -> Patch:
    """Return the legend entry of chips without a value."""
    from matplotlib.patches import Patch

    label = "no valid pixels" if column.endswith("_fraction") else "in no split" if column == "split" else "no value"
    return Patch(facecolor=PALE, edgecolor=GREY, hatch="////", label=label) if hatched else Patch(facecolor=GREY, label=label)


def draw_legend(ax: Axes, handles: Sequence[Artist]) -> None:
    """Draw a legend below the map, where there is room for many rows."""
    from matplotlib.transforms import ScaledTranslation

    if not handles:
        return
    # A fixed distance below the axes, past their labels.
    below = ax.transAxes + ScaledTranslation(0, -34 / 72, ax.figure.dpi_scale_trans)
    place = {"bbox_to_anchor": (0.0, 0.0), "bbox_transform": below, "borderaxespad": 0.0, "borderpad": 0.0}
    ax.legend(handles=handles, loc="upper left", ncols=4, frameon=False, fontsize="small", handlelength=1.4, **place)


def title_of(frame: pd.DataFrame) -> str:
    """Return a title: the item and its date, or the number of items; and the number of chips."""
    chips = f"{len(frame):,} chips" if len(frame) != 1 else "1 chip"
    items = frame["item_id"].unique()
    if len(items) != 1:
        return f"{chips} of {len(items):,} scenes"
    dates = frame["datetime"].dropna()
    day = f", {dates.iloc[0]:%Y-%m-%d}" if len(dates) else ""
    return f"{shortened(str(items[0]), 34)}{day}\n{chips}"


def shortened(text: str, length: int) -> str:
    """Shorten a text to its end, because ids of chips and items differ there."""
    return text if len(text) <= length else f"…{text[1 - length :]}"
