"""Which colours a column of an index has on a map. Neither draws nor loads matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

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
# Paul Tol's bright and muted schemes: told apart with any colour vision.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#882255", "#999933", "#44aa99", "#332288")
OTHERS = "#bbbbbb"
SET_ASIDE = "buffer"
"""What the column of splits says of chips that are in none."""
SPLITS = {"train": "#4477aa", "val": "#ccbb44", "validation": "#ccbb44", "valid": "#ccbb44", "test": "#ee6677", SET_ASIDE: OTHERS}
"""Usual names of splits: the same colour on every map, and this order in legends."""


@dataclass(frozen=True, slots=True)
class Categories:
    """A column of categories: names, colours, and which of them each row is of."""

    names: list[str]
    colours: list[Any]
    """One a name, as matplotlib takes them."""
    codes: np.ndarray
    """int64 (rows,); -1 for a row without a value."""


def is_category(values: pd.Series) -> bool:
    """Whether a column is shown as categories: neither numbers nor dates."""
    from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

    return is_bool_dtype(values) or not (is_numeric_dtype(values) or is_datetime64_any_dtype(values))


def numbers_of(values: pd.Series) -> np.ndarray:
    """A column of numbers, or dates as days since 1970, as float64; NaN for what is missing."""
    from pandas.api.types import is_datetime64_any_dtype

    if is_datetime64_any_dtype(values):
        moments = (values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz else values).to_numpy("M8[us]")
        return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 86_400e6)
    found: np.ndarray = values.to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(found), found, np.nan)


def categories_of(values: pd.Series, cmap: Any = None) -> Categories:
    """The categories of a column: splits in their order, others by name; the nine most frequent and "others" of more than ten.

    Examples
    --------
    >>> import pandas as pd
    >>> found = categories_of(pd.Series(["test", "train", None, "train"]))
    >>> found.names, found.codes.tolist()
    (['train', 'test'], [1, 0, -1, 0])
    """
    import pandas as pd

    codes, found = pd.factorize(values)
    labels = [str(value) for value in found]
    rank = {name: number for number, name in enumerate(SPLITS)}
    order = sorted(range(len(labels)), key=lambda code: (rank.get(labels[code], len(rank)), labels[code]))
    rest = 0
    if len(order) > len(COLOURS):
        often = np.bincount(codes[codes >= 0], minlength=len(labels))
        kept = set(np.argsort(-often, kind="stable")[: len(COLOURS) - 1].tolist())
        order, rest = [code for code in order if code in kept], len(order) - len(kept)
    place = np.full(len(labels) + 1, len(order))
    place[order] = np.arange(len(order))
    place[-1] = -1  # the code of a missing value
    names = [labels[code] for code in order]
    free = iter([colour for colour in COLOURS if colour not in {SPLITS.get(name) for name in names}])
    colours: list[Any] = [SPLITS[name] if name in SPLITS else next(free) for name in names]
    if cmap is not None:
        import matplotlib

        chosen = matplotlib.colormaps.get_cmap(cmap)
        colours = [chosen(number / max(1, len(names) - 1)) for number in range(len(names))]
    if rest:
        names, colours = [*names, f"{rest:,} others"], [*colours, OTHERS]
    return Categories(names, colours, place[codes])
