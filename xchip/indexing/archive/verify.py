"""Verify an archive: compare each part with the manifest, its item, the item's grid and, optionally, the pixels."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xchip.core.grid import ChipGrid, GridOptions
from xchip.core.limits import Limits
from xchip.core.quality import QualityRule
from xchip.core.reduce import FRACTIONS
from xchip.core.types import JSON, PathLike
from xchip.indexing.archive.layout import INDEX, PART, archive_store
from xchip.indexing.archive.ledger import ItemDict, fingerprint_in_archive, parameters_of
from xchip.indexing.archive.manifest import parts_of, record_of_part
from xchip.indexing.archive.task import rows_of_item
from xchip.indexing.from_items import IndexSpec, understand_for_index
from xchip.indexing.rows import EDGES, INTEGERS
from xchip.io.retry import GivenUp, retrying
from xchip.io.storage import StorageOptions
from xchip.io.store import Store
from xchip.stac.scene.understand import HeaderNeeded, ItemError

if TYPE_CHECKING:
    import geopandas
    import pandas as pd

READERS = 8
"""Parts read at once."""
EDGE_TOLERANCE = 1e-3
"""Maximum distance of a chip's edges from those of its window, as a fraction of a pixel."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in a file of an archive."""

    path: str
    """Path of the file, relative to the archive's root."""
    item_id: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def verify(
    path: PathLike,
    storage: StorageOptions | None = None,
    *,
    deep: bool = False,
    sample: int | None = None,
    seed: int = 0,
    pixels: StorageOptions | None = None,
    on_part: Callable[[], None] | None = None,
) -> Iterator[Problem]:
    """Check the files of an archive, and yield the problems.

    Each part must exist and be readable, have the size and the rows that the manifest lists, belong to one item, whose JSON
    exists and is unchanged, and have chips that lie on the item's grid, each once. Leftover files of an interrupted run are
    problems too.

    Parameters
    ----------
    path, storage
        The archive, and its storage options.
    deep
        Also index the items again from their files, and compare the rows.
    sample, seed
        Check only this number of parts, drawn with this seed.
    pixels
        Storage options of the items' files for ``deep``; by default those of the archive.
    on_part
        Called after each part.

    Yields
    ------
    Problem
        Nothing if the archive is valid. A few parts are in memory at a time.

    Raises
    ------
    FileNotFoundError
        If ``path`` is not an archive.
    ValueError
        If ``deep`` is set and the archive does not hold its parameters: they are not recorded, or it was built with a custom
        sensor profile.
    """
    store = archive_store(path, storage)
    manifest = parts_of(store)
    spec = recorded_spec(store)
    if deep and spec is None:
        raise ValueError(f"{path} does not hold the parameters that it was built with, so its items can't be indexed again")
    chosen = manifest
    if sample is not None and sample < len(manifest):
        chosen = manifest.take(sorted(random.Random(seed).sample(range(len(manifest)), sample)))
    else:
        yield from _unlisted(store, manifest["path"].to_pylist())
    check = _Check(store, spec, deep, pixels or store.storage)
    with ThreadPoolExecutor(READERS) as pool:
        for batch in chosen.to_batches(max_chunksize=1000):
            for problems in pool.map(check.part, batch.to_pylist()):
                if on_part is not None:
                    on_part()
                yield from problems


def recorded_spec(store: Store) -> IndexSpec | None:
    """Return the parameters that an archive was built with; None if the archive does not hold them."""
    parameters = parameters_of(store)
    if parameters is None:
        return None
    sensor, quality = parameters.get("sensor"), parameters.get("quality")
    if sensor is not None and " " in sensor:  # a custom profile: the archive holds only its name and a hash
        return None
    limits = {name: parameters[name] for name in Limits.__slots__ if name in parameters}
    rule = QualityRule.from_json(quality) if isinstance(quality, str) and quality.startswith("{") else quality
    grid_options = GridOptions(stride=tuple(parameters["stride"]), edge=parameters["edge"], anchor=parameters["anchor"])
    return IndexSpec(tuple(parameters["size"]), sensor, rule, grid_options, Limits(**limits))


def _unlisted(store: Store, listed: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for each file of the index that the manifest does not list, and each unfinished file."""
    parts = set(listed)
    for entry in store.entries(INDEX):
        if entry.name not in parts:
            if entry.name.endswith(f"/{PART}"):
                yield Problem(entry.name, None, "no run recorded it; run the index again to record it if it is valid")
            else:
                yield Problem(entry.name, None, "is not a part of an index, and readers of the folder can fail on it; remove it")
    for name in store.leftovers():
        yield Problem(name, None, "was being written: remove it, unless a run is active")


class _Check:
    """Checks the parts of an archive, one at a time."""

    def __init__(self, store: Store, spec: IndexSpec | None, deep: bool, pixels: StorageOptions) -> None:
        self._store, self._spec, self._deep, self._pixels = store, spec, deep, pixels

    def part(self, row: JSON) -> list[Problem]:
        """Return the problems of the part in a row of the manifest."""
        return [Problem(row["path"], row["item_id"], message) for message in self._messages(row)]

    def _messages(self, row: JSON) -> Iterator[str]:
        try:
            content = self._store.read(row["path"])
        except FileNotFoundError:
            yield "is in the manifest, but not in the archive; run the index again"
            return
        except OSError as error:
            yield f"can't be read: {error}"
            return
        if len(content) != row["size"]:
            yield f"has {len(content):,} bytes, but {row['size']:,} in the manifest"
        if content[:4] != b"PAR1" or content[-4:] != b"PAR1":
            yield "is not a complete Parquet file; run the index again"
            return
        try:
            rows = _rows(content)
            record, _ = record_of_part(self._store, row["path"])
        except (OSError, ValueError, KeyError) as error:
            yield f"can't be read: {error}"
            return
        if len(rows) != row["rows"]:
            yield f"has {len(rows):,} rows, but {row['rows']:,} in the manifest"
        if record.fingerprint != row["fingerprint"]:
            yield f"has the item's fingerprint {record.fingerprint!r}, but {row['fingerprint']!r} in the manifest"
        for name in ("item_id", "collection", "item_href"):
            wrong = {value for value in rows[name].unique() if value != row[name] and not (row[name] is None and value is None)}
            if wrong:
                yield f"its rows have {name} {_listing(wrong)} instead of {row[name]!r}"
        if rows["chip_id"].duplicated().any():
            yield f"has chips twice: {_listing(rows['chip_id'][rows['chip_id'].duplicated()])}"
        bounds = None if row["xmin"] is None else (row["xmin"], row["ymin"], row["xmax"], row["ymax"])
        if record.part is not None and record.part.bounds != bounds:
            yield f"has the bounds {record.part.bounds}, but {bounds} in the manifest"
        yield from self._compare_with_item(row, rows)

    def _compare_with_item(self, row: JSON, rows: pd.DataFrame) -> Iterator[str]:
        href = row["item_href"]
        try:
            item = json.loads(self._store.read(href))
        except FileNotFoundError:
            yield f"its item is not at {href!r}; run the index again"
            return
        except (OSError, ValueError) as error:
            yield f"its item {href!r} can't be read: {error}"
            return
        if fingerprint_in_archive(item) != row["fingerprint"]:
            yield f"its item {href!r} differs from the item that was indexed; run the index again with the correct item"
            return
        if self._spec is None:
            return
        try:
            scene = understand_for_index(item, self._store.path(href), self._spec, header=None)
        except HeaderNeeded:
            scene = None  # only the item's files hold its grid
        except ItemError as error:
            yield f"its item can't be understood: {error}"
            return
        if scene is not None:
            yield from misplaced(self._spec.grid(scene.grid), rows)
        if self._deep:
            yield from self._index_again(item, href, self._spec, rows)

    def _index_again(self, item: ItemDict, href: str, spec: IndexSpec, rows: pd.DataFrame) -> Iterator[str]:
        try:
            again, _ = retrying(lambda pixels: rows_of_item(item, self._store.path(href), spec, pixels), self._pixels)
        except GivenUp as failure:
            yield f"its item can't be indexed again: {failure.history[-1].message}"
            return
        yield from differences(rows, again.to_frame())


def _rows(content: bytes) -> pd.DataFrame:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(content)).to_pandas()


def misplaced(grid: ChipGrid, rows: pd.DataFrame) -> Iterator[str]:
    """Yield the problems of chips that do not lie on an item's grid."""
    codes = set(rows["proj_code"].unique()) - {grid.pixels.crs}
    if codes:
        yield f"its rows are in {_listing(codes)}, but its item in {grid.pixels.crs}"
        return
    wrong = np.zeros(len(rows), bool)
    for axis, (indices, starts, lengths), (low, high), names in (
        ("y", grid.rows, grid.y_bounds, ("row_off", "height", "proj_bottom", "proj_top")),
        ("x", grid.columns, grid.x_bounds, ("col_off", "width", "proj_left", "proj_right")),
    ):
        if not len(indices):
            wrong[:] = True
            break
        index = rows[f"chip_index_{axis}"].to_numpy()
        place = np.clip(np.searchsorted(indices, index), 0, len(indices) - 1)
        start, length, *edges = (rows[name].to_numpy() for name in names)
        wrong |= (indices[place] != index) | (starts[place] != start) | (lengths[place] != length)
        tolerance = EDGE_TOLERANCE * grid.pixels.res[axis == "x"]
        for edge, expected in zip(edges, (low, high), strict=True):
            wrong |= np.abs(edge - expected[place]) > tolerance
    if wrong.any():
        yield f"chips do not lie on its item's grid: {_listing(rows['chip_id'][wrong])}"


def differences(rows: pd.DataFrame, frame: geopandas.GeoDataFrame) -> Iterator[str]:
    """Yield the differences between a part's ``rows`` and ``frame``, a new index of its item."""
    import shapely

    stored, expected = rows["chip_id"].tolist(), frame["chip_id"].tolist()
    if stored != expected:
        missing, extra = set(expected) - set(stored), set(stored) - set(expected)
        if missing:
            yield f"lacks chips that its item has now: {_listing(missing)}"
        if extra:
            yield f"has chips that its item does not have now: {_listing(extra)}"
        if not missing and not extra:
            yield "has its chips in a different order than its item has now"
        return
    columns = {name: (rows[name].to_numpy(), frame[name].to_numpy()) for name in (*INTEGERS, *EDGES, *FRACTIONS)}
    columns["geometry"] = (rows["geometry"].to_numpy(), shapely.to_wkb(np.asarray(frame.geometry.array)))
    for name, (values, new_values) in columns.items():
        differs = values != new_values
        if name in FRACTIONS:
            differs &= ~(np.isnan(values) & np.isnan(new_values))
        if differs.any():
            yield f"{name} differs from a new index of its item: {_listing(rows['chip_id'][differs])}"


def _listing(values: Iterable[object]) -> str:
    """Format the first few of ``values``, and the number of the rest."""
    listed = list(values)
    shown = ", ".join(repr(value) for value in listed[:3])
    return shown if len(listed) <= 3 else f"{shown} and {len(listed) - 3:,} more"
