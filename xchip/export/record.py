"""Record what an export is made of, so that two exports never mix in one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.types import JSON
from xchip.export.job import Format
from xchip.io.store import Store, reached, told

if TYPE_CHECKING:
    import pandas as pd

RECORD = "export.json"
"""File with the record: in the target's root, or in the folder of each sensor if the sensors are separate exports."""


def record_export(store: Store, format: Format, groups: Sequence[tuple[str | None, pd.DataFrame]], parameters: JSON) -> None:
    """Record what the target is made of, or check that an earlier record says the same.

    Parameters
    ----------
    store, format
        The target and the format of its files.
    groups
        (name of the sensor, its rows) for each sensor; one group of all rows if the files of the sensors depend on each other.
    parameters
        What the files depend on, apart from the rows.

    Raises
    ------
    ValueError
        If the target was made of other rows or with other parameters.
    OSError
        If the target can't be written.
    """
    if not format.separate_sensors:
        ((_, rows),) = groups
        _record(store, RECORD, {**parameters, **_identity(rows)})
        return
    _record(store, RECORD, {"format": format.name})
    for sensor, rows in groups:
        _record(store, f"{format.folder(sensor)}/{RECORD}", {**parameters, **_identity(rows)})


def _record(store: Store, name: str, parameters: JSON) -> None:
    with reached(f"write to {store.path()!r}"):
        different = store.claim(name, parameters)
    if "format" in different:
        different = {"format": different["format"]}  # the other differences follow from it
    if different:
        raise ValueError(
            f"{store.path(name.removesuffix(RECORD)).rstrip('/')!r} has the files of another export, with {told(different)}; "
            "pass the same rows and options, or another path"
        )


def _identity(frame: pd.DataFrame) -> dict[str, int | str]:
    """Return the number of rows and a hash of them in this order."""
    digest = hashlib.sha256()
    for name in ("chip_id", "item_id", "proj_code"):
        digest.update("\n".join(frame[name].astype(str)).encode(errors="surrogatepass"))
    for name in ("proj_left", "proj_bottom", "proj_right", "proj_top"):
        digest.update(np.ascontiguousarray(frame[name].to_numpy(np.float64)).tobytes())
    return {"rows": len(frame), "index": digest.hexdigest()[:16]}
