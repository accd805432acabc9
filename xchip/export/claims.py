"""What the files of a folder were made of, so that those of two exports never mix."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.export.job import Format
from xchip.io.store import Store, reached, told

if TYPE_CHECKING:
    import pandas as pd

JOB = "export.json"
"""Says it; beside the files of each sensor where these are exports of their own."""


def claim(store: Store, kind: Format, groups: Sequence[tuple[str | None, pd.DataFrame]], parameters: Mapping[str, Any]) -> None:
    """Say of what the target is made, or find that it is made of just that already.

    Parameters
    ----------
    store, kind
        The target, and the kind of its files.
    groups
        (name of a sensor, its rows); or all rows together, where the files of sensors depend on each other.
    parameters
        What files depend on besides the rows.

    Raises
    ------
    ValueError
        If it has files of other rows, or made in another way.
    OSError
        If it can't be written.
    """
    if not kind.apart:
        ((_, rows),) = groups
        _claim(store, JOB, {**parameters, **_identity(rows)})
        return
    _claim(store, JOB, {"format": kind.name})
    for sensor, rows in groups:
        _claim(store, f"{kind.folder(sensor)}/{JOB}", {**parameters, **_identity(rows)})


def _claim(store: Store, name: str, parameters: Mapping[str, Any]) -> None:
    with reached(f"write to {store.path()!r}"):
        different = store.claim(name, parameters)
    if "format" in different:
        different = {"format": different["format"]}  # the others follow from it
    if different:
        raise ValueError(
            f"{store.path(name.removesuffix(JOB)).rstrip('/')!r} has the files of another export, with {told(different)}; pass "
            "the same rows and options, or another path"
        )


def _identity(frame: pd.DataFrame) -> dict[str, Any]:
    """Tells these rows, in this order, from others."""
    digest = hashlib.sha256()
    for name in ("chip_id", "item_id", "proj_code"):
        digest.update("\n".join(frame[name].astype(str)).encode(errors="surrogatepass"))
    for name in ("proj_left", "proj_bottom", "proj_right", "proj_top"):
        digest.update(np.ascontiguousarray(frame[name].to_numpy(np.float64)).tobytes())
    return {"rows": len(frame), "index": digest.hexdigest()[:16]}
