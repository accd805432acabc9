"""Read the processing baseline and date of a product from its item id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

UNTOLD = -1.0
"""Code of an unknown baseline or date: older than all others."""

PATTERNS = (
    # Sentinel-2 products of ESA: ..._N0509_R079_T33TWL_<production date>; Planetary Computer leaves the baseline out. N9999 marks
    # products that users processed themselves.
    r"^S2[A-Z]_MSIL\w\w_\d{8}T\d{6}_(?:N(?!99)(?P<baseline>\d{4})_)?(?:N99\d\d_)?R\d{3}_T\w{5}_(?P<made>\d{8}T\d{6})",
    # Landsat of USGS: <sensor>_<level>_<path, row>_<acquired>_<processed>_<collection>_<tier>; some catalogues leave <processed>
    # out.
    r"^L[A-Z]\d\d_L\d\w\w_\d{6}_\d{8}_(?:(?P<made>\d{8})_)?(?P<baseline>\d\d)_",
    # MODIS: MOD09A1.A2022033.h19v10.<collection>.<production date>
    r"^M\w{6}\.A\d{7}\.h\d\dv\d\d\.(?P<baseline>\d{3})(?:\.(?P<made>\d{13}))?",
    r"^HLS\.[LS]30\.T\w{5}\.\d{7}T\d{6}\.v(?P<baseline>\d+\.\d+)",
)


class Versions(NamedTuple):
    """Versions of products: larger is newer, `UNTOLD` if unknown."""

    baseline: np.ndarray
    """Processing baseline or collection, float64: comparable between products of the same kind."""
    made: np.ndarray
    """Production date, float64: its digits."""


def versions_of(ids: Sequence[str] | pd.Index) -> Versions:
    """Return the versions of items by their ids.

    Examples
    --------
    >>> esa, usgs = "S2A_MSIL2A_20230815T095031_N0509_R079_T33TWL_20230815T155057", "LC09_L2SP_010065_20220129_02_T1"
    >>> versions = versions_of([esa, usgs, "a"])
    >>> versions.baseline.tolist(), versions.made.tolist()
    ([509.0, 2.0, -1.0], [20230815155057.0, -1.0, -1.0])
    """
    import pandas as pd

    texts = pd.Series(np.asarray(ids, object), dtype=object).astype(str)
    versions = Versions(np.full(len(texts), UNTOLD), np.full(len(texts), UNTOLD))
    for pattern in PATTERNS:
        groups = texts.str.extract(pattern)
        for name in groups:
            column = groups[name].dropna()
            getattr(versions, str(name))[column.index] = column.str.replace("T", "").astype(float)
    return versions


def baselines_of(column: pd.Series) -> np.ndarray:
    """Convert a column of baselines, numbers or texts such as "05.09", to float64; `UNTOLD` for missing values."""
    import pandas as pd

    codes, distinct = pd.factorize(column)
    numbers = pd.to_numeric(pd.Series(np.asarray(distinct, object)), errors="coerce").to_numpy(float)
    if np.isnan(numbers).any():
        value = distinct[int(np.isnan(numbers).argmax())]
        raise ValueError(f"column {column.name!r} holds {value!r}, which is not a baseline such as 5.09")
    return np.append(numbers, UNTOLD)[codes]
