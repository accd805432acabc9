"""Which of two products of one acquisition is newer, as their ids tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

UNTOLD = -1.0

PATTERNS = (
    # Sentinel-2 products of ESA: ..._N0509_R079_T33TWL_<when it was made>; Planetary Computer leaves the baseline out. N9999 is
    # somebody's own processing.
    r"^S2[A-Z]_MSIL\w\w_\d{8}T\d{6}_(?:N(?!99)(?P<baseline>\d{4})_)?(?:N99\d\d_)?R\d{3}_T\w{5}_(?P<made>\d{8}T\d{6})",
    # Landsat of USGS: <sensor>_<level>_<path, row>_<acquired>_<processed>_<collection>_<tier>; some leave <processed> out.
    r"^L[A-Z]\d\d_L\d\w\w_\d{6}_\d{8}_(?:(?P<made>\d{8})_)?(?P<baseline>\d\d)_",
    # MODIS: MOD09A1.A2022033.h19v10.<collection>.<when it was made>
    r"^M\w{6}\.A\d{7}\.h\d\dv\d\d\.(?P<baseline>\d{3})(?:\.(?P<made>\d{13}))?",
    r"^HLS\.[LS]30\.T\w{5}\.\d{7}T\d{6}\.v(?P<baseline>\d+\.\d+)",
)


class Versions(NamedTuple):
    """A value each; the larger is the newer, `UNTOLD` where it is not told."""

    baseline: np.ndarray
    """Processing baseline or collection, float64: compared between products of one kind."""
    made: np.ndarray
    """When it was made, float64: the digits of the date."""


def versions_of(ids: Any) -> Versions:
    """What ids of items tell.

    Examples
    --------
    >>> esa, usgs = "S2A_MSIL2A_20230815T095031_N0509_R079_T33TWL_20230815T155057", "LC09_L2SP_010065_20220129_02_T1"
    >>> found = versions_of([esa, usgs, "a"])
    >>> found.baseline.tolist(), found.made.tolist()
    ([509.0, 2.0, -1.0], [20230815155057.0, -1.0, -1.0])
    """
    import pandas as pd

    texts = pd.Series(np.asarray(ids, object), dtype=object).astype(str)
    baseline, made = np.full(len(texts), UNTOLD), np.full(len(texts), UNTOLD)
    for pattern in PATTERNS:
        found = texts.str.extract(pattern)
        for name, values in (("baseline", baseline), ("made", made)):
            if name in found:
                _take(found[name], values)
    return Versions(baseline, made)


def _take(found: pd.Series, into: np.ndarray) -> None:
    known = found.notna().to_numpy()
    into[known] = found[known].str.replace("T", "").astype(float)


def baselines_of(column: pd.Series) -> np.ndarray:
    """A column of baselines, numbers or texts such as "05.09", as float64; `UNTOLD` where there is none.

    Raises
    ------
    ValueError
        If a text is no number.
    """
    import pandas as pd

    codes, known = pd.factorize(column)
    numbers = pd.to_numeric(pd.Series(np.asarray(known, object)), errors="coerce").to_numpy(float)
    if np.isnan(numbers).any():
        raise ValueError(
            f"column {column.name!r} holds {known[int(np.isnan(numbers).argmax())]!r}, which is no baseline, as 5.09 is"
        )
    return np.append(numbers, UNTOLD)[codes]
