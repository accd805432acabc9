"""Choose the colours of a column of an index on a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.colors import Colormap
    from matplotlib.typing import ColorType

FRACTIONS = {
    "nodata_fraction": "Greys",
    "defective_fraction": "RdPu",
    "cloud_fraction": "YlGnBu",
    "shadow_fraction": "Purples",
    "snow_fraction": "PuBu",
    "water_fraction": "Blues",
    "clear_fraction": "YlGn",
}
"""Colour map of each fraction; "viridis" for other numbers."""
# Paul Tol's bright and muted schemes: distinguishable with any colour vision.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#882255", "#999933", "#44aa99", "#332288")
OTHERS = "#bbbbbb"
SET_ASIDE = "buffer"
"""Value of the column of splits for chips in no split."""
SPLITS = {"train": "#4477aa", "val": "#ccbb44", "validation": "#ccbb44", "valid": "#ccbb44", "test": "#ee6677", SET_ASIDE: OTHERS}
"""Usual names of splits: they have the same colour on every map, and this order in legends."""


@dataclass(frozen=True, slots=True)
class Categories:
    """A column of categories: names, colours, and the category of each row."""

    names: list[str]
    colours: list[ColorType]
    """A colour for each name."""
    codes: np.ndarray
    """int64 (rows,): positions in ``names``; -1 for a row without a value."""


def is_category(values: pd.Series) -> bool:
    """Return whether a column is shown as categories: neither numbers nor dates."""
    from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

    return is_bool_dtype(values) or not (is_numeric_dtype(values) or is_datetime64_any_dtype(values))


def numbers_of(values: pd.Series) -> np.ndarray:
    """Convert a column of numbers, or of dates to days since 1970: float64 (rows,), NaN for missing and infinite values."""
    from pandas.api.types import is_datetime64_any_dtype

    if is_datetime64_any_dtype(values):
        moments = (values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz else values).to_numpy("M8[us]")
        return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 86_400e6)
    numbers: np.ndarray = values.to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def categories_of(values: pd.Series, cmap: str | Colormap | None = None) -> Categories:
    """Return the categories of a column: splits in their order, then other values by name.

    Of more than ten values the nine most frequent are kept, and the others are combined.

    Examples
    --------
    >>> import pandas as pd
    >>> categories = categories_of(pd.Series(["test", "train", None, "train"]))
    >>> categories.names, categories.codes.tolist()
    (['train', 'test'], [1, 0, -1, 0])
    """
    import pandas as pd

    codes, distinct = pd.factorize(values)
    labels = [str(value) for value in distinct]
    rank = {name: number for number, name in enumerate(SPLITS)}
    order = sorted(range(len(labels)), key=lambda code: (rank.get(labels[code], len(rank)), labels[code]))
    others = 0
    if len(order) > len(COLOURS):
        counts = np.bincount(codes[codes >= 0], minlength=len(labels))
        frequent = set(np.argsort(-counts, kind="stable")[: len(COLOURS) - 1].tolist())
        order, others = [code for code in order if code in frequent], len(order) - len(frequent)
    position = np.full(len(labels) + 1, len(order))
    position[order] = np.arange(len(order))
    position[-1] = -1  # the code of a missing value
    names = [labels[code] for code in order]
    colours: list[ColorType]
    if cmap is None:
        unused = iter([colour for colour in COLOURS if colour not in {SPLITS.get(name) for name in names}])
        colours = [SPLITS[name] if name in SPLITS else next(unused) for name in names]
    else:
        import matplotlib

        colormap = matplotlib.colormaps.get_cmap(cmap)
        colours = [colormap(number / max(1, len(names) - 1)) for number in range(len(names))]
    if others:
        names, colours = [*names, f"{others:,} others"], [*colours, OTHERS]
    return Categories(names, colours, position[codes])
