"""Verifying an archive: each part against the manifest, its item, the item's grid, and, if asked, the pixels."""

from __future__ import annotations

import io
import json
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.core.grid import ChipGrid, GridOptions
from xchip.core.limits import Limits
from xchip.core.quality import QualityRule
from xchip.core.reduce import FRACTIONS
from xchip.indexing.archive.layout import INDEX, PART
from xchip.indexing.archive.ledger import fingerprint_in_archive, parameters_of
from xchip.indexing.archive.manifest import record_of_part
from xchip.indexing.archive.status import archive_at, contents_of
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
"""Of a pixel: how far a chip's edges may lie from those of its window."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an archive that is not as it should be."""

    path: str
    """Of the file, relative to the archive's root."""
    item_id: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def verify(
    path: str | os.PathLike[str],
    storage: StorageOptions | None = None,
    *,
    deep: bool = False,
    sample: int | None = None,
    seed: int = 0,
    pixels: StorageOptions | None = None,
    on_part: Callable[[], None] | None = None,
) -> Iterator[Problem]:
    """Check every file of an archive, and say what is wrong.

    Each part must be there, complete and readable; as large and as long as the manifest says; of one item, whose JSON is there
    and unchanged; with chips that lie on the item's grid, each once. Files that a broken run left behind are found too.

    Parameters
    ----------
    path, storage
        The archive.
    deep
        Also index the items again, from their files, and compare row by row.
    sample, seed
        Check so many parts only, chosen by this seed.
    pixels
        How the items' files are reached, for ``deep``; the same way as the archive if not given.
    on_part
        Called after each part.

    Yields
    ------
    Problem
        None for an archive that is whole. A few parts are in memory at a time.

    Raises
    ------
    FileNotFoundError
        If there is no archive.
    ValueError
        If ``deep`` is asked of an archive that was made with a profile of the caller's own, which it does not hold.
    """
    store = archive_at(path, storage)
    manifest, _ = contents_of(store)
    spec = spec_of(store)
    if deep and spec is None:
        raise ValueError(f"{path} does not hold the parameters that it was made with, so it can't be made again to compare")
    chosen = manifest
    if sample is not None and sample < len(manifest):
        chosen = manifest.take(sorted(random.Random(seed).sample(range(len(manifest)), sample)))
    else:
        yield from _strangers(store, manifest["path"].to_pylist())
    check = _Check(store, spec, deep, pixels or store.storage)
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[Future[list[Problem]]] = deque()
        for batch in chosen.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                waiting.append(pool.submit(check.part, row))
                if len(waiting) >= 2 * READERS:
                    yield from _finished(waiting, on_part)
        while waiting:
            yield from _finished(waiting, on_part)


def _finished(waiting: deque[Future[list[Problem]]], on_part: Callable[[], None] | None) -> list[Problem]:
    found = waiting.popleft().result()
    if on_part is not None:
        on_part()
    return found


def spec_of(store: Store) -> IndexSpec | None:
    """How an archive was made; None where that can't be told from the archive alone."""
    known = parameters_of(store)
    if known is None:
        return None
    sensor, quality = known.get("sensor"), known.get("quality")
    if sensor is not None and " " in sensor:  # a profile of the caller's own, of which only the name and a hash are kept
        return None
    limits = {name: known[name] for name in Limits.__slots__ if name in known}
    rule = QualityRule.from_json(quality) if isinstance(quality, str) and quality.startswith("{") else quality
    grid_options = GridOptions(stride=tuple(known["stride"]), edge=known["edge"], anchor=known["anchor"])
    return IndexSpec(tuple(known["size"]), sensor, rule, grid_options, Limits(**limits))


def _strangers(store: Store, known: Sequence[str]) -> Iterator[Problem]:
    """Parts that the manifest does not know, and files that were being written."""
    listed = set(known)
    for entry in store.entries(INDEX):
        if entry.name not in listed:
            if entry.name.endswith(f"/{PART}"):
                yield Problem(entry.name, None, "no run recorded it; run the index again, and it is taken over if it is sound")
            else:
                yield Problem(entry.name, None, "is no part of an index, and readers of the folder may stumble over it")
    for name in store.leftovers():
        yield Problem(name, None, "was being written: remove it, unless a run is under way")


class _Check:
    """What is done with each part."""

    def __init__(self, store: Store, spec: IndexSpec | None, deep: bool, pixels: StorageOptions) -> None:
        self._store, self._recipe, self._deep, self._pixels = store, spec, deep, pixels

    def part(self, row: dict[str, Any]) -> list[Problem]:
        """Problems of the part that a row of the manifest lists."""
        return [Problem(row["path"], row["item_id"], message) for message in self._messages(row)]

    def _messages(self, row: dict[str, Any]) -> Iterator[str]:
        try:
            content = self._store.read(row["path"])
        except FileNotFoundError:
            yield "is in the manifest, and not in the archive; run the index again"
            return
        except OSError as error:
            yield f"can't be read: {error}"
            return
        if len(content) != row["size"]:
            yield f"has {len(content):,} bytes, and {row['size']:,} by the manifest"
        if content[:4] != b"PAR1" or content[-4:] != b"PAR1":
            yield "is no complete Parquet file; run the index again"
            return
        try:
            rows = _rows(content)
            record, _ = record_of_part(self._store, row["path"])
        except (OSError, ValueError, KeyError) as error:
            yield f"can't be read: {error}"
            return
        if len(rows) != row["rows"]:
            yield f"has {len(rows):,} rows, and {row['rows']:,} by the manifest"
        if record.fingerprint != row["fingerprint"]:
            yield f"is of the item's form {record.fingerprint!r}, and of {row['fingerprint']!r} by the manifest"
        for name in ("item_id", "collection", "item_href"):
            others = {value for value in rows[name].unique() if value != row[name] and not (row[name] is None and value is None)}
            if others:
                yield f"its rows have {name} {_some(others)} instead of {row[name]!r}"
        if rows["chip_id"].duplicated().any():
            yield f"has chips twice: {_some(rows['chip_id'][rows['chip_id'].duplicated()])}"
        if record.part is not None and record.part.bounds != _bounds(row):
            yield f"lies within {record.part.bounds}, and within {_bounds(row)} by the manifest"
        yield from self._against_item(row, rows)

    def _against_item(self, row: dict[str, Any], rows: pd.DataFrame) -> Iterator[str]:
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
            yield f"its item {href!r} is another than it was made of; run the index again with the one that is right"
            return
        if self._recipe is None:
            return
        try:
            scene = understand_for_index(item, self._store.path(href), self._recipe, header=None)
        except HeaderNeeded:
            scene = None  # its grid is only in its files
        except ItemError as error:
            yield f"its item can't be understood: {error}"
            return
        if scene is not None:
            yield from misplaced(self._recipe.grid(scene.grid), rows)
        if self._deep:
            yield from self._again(item, row, rows)

    def _again(self, item: dict[str, Any], row: dict[str, Any], rows: pd.DataFrame) -> Iterator[str]:
        assert self._recipe is not None, "deep verification is refused without it"
        spec, href = self._recipe, self._store.path(row["item_href"])
        try:
            again, _ = retrying(lambda pixels: rows_of_item(item, href, spec, pixels), self._pixels)
        except GivenUp as failure:
            yield f"can't be made again to compare: {failure.history[-1].message}"
            return
        yield from differences(rows, again.to_frame())


def _rows(content: bytes) -> pd.DataFrame:
    """All columns of a part."""
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(content)).to_pandas()


def _bounds(row: dict[str, Any]) -> tuple[float, ...] | None:
    return None if row["xmin"] is None else (row["xmin"], row["ymin"], row["xmax"], row["ymax"])


def misplaced(grid: ChipGrid, rows: pd.DataFrame) -> Iterator[str]:
    """What is wrong with the places of chips on an item's grid."""
    codes = set(rows["proj_code"].unique()) - {grid.pixels.crs}
    if codes:
        yield f"its rows are in {_some(codes)}, and its item in {grid.pixels.crs}"
        return
    wrong = np.zeros(len(rows), bool)
    for axis, (known, starts, lengths), (low, high), names in (
        ("y", grid.rows, grid.y_bounds, ("row_off", "height", "proj_bottom", "proj_top")),
        ("x", grid.columns, grid.x_bounds, ("col_off", "width", "proj_left", "proj_right")),
    ):
        if not len(known):
            wrong[:] = True
            break
        index = rows[f"chip_index_{axis}"].to_numpy()
        place = np.clip(np.searchsorted(known, index), 0, len(known) - 1)
        start, length, *edges = (rows[name].to_numpy() for name in names)
        wrong |= (known[place] != index) | (starts[place] != start) | (lengths[place] != length)
        tolerance = EDGE_TOLERANCE * grid.pixels.res[axis == "x"]
        for edge, expected in zip(edges, (low, high), strict=True):
            wrong |= np.abs(edge - expected[place]) > tolerance
    if wrong.any():
        yield f"chips do not lie on its item's grid: {_some(rows['chip_id'][wrong])}"


def differences(rows: pd.DataFrame, frame: geopandas.GeoDataFrame) -> Iterator[str]:
    """What differs between the rows of a part and those that its item gives now."""
    import shapely

    have, want = rows["chip_id"].tolist(), frame["chip_id"].tolist()
    if have != want:
        missing, extra = set(want) - set(have), set(have) - set(want)
        if missing:
            yield f"lacks chips that its item gives now: {_some(missing)}"
        if extra:
            yield f"has chips that its item does not give now: {_some(extra)}"
        if not missing and not extra:
            yield "has its chips in another order than its item gives now"
        return
    columns = {name: (rows[name].to_numpy(), frame[name].to_numpy()) for name in (*INTEGERS, *EDGES, *FRACTIONS)}
    columns["geometry"] = (rows["geometry"].to_numpy(), shapely.to_wkb(np.asarray(frame.geometry.array)))
    for name, (own, other) in columns.items():
        differs = own != other
        if name in FRACTIONS:
            differs &= ~(np.isnan(own) & np.isnan(other))
        if differs.any():
            yield f"{name} is not what its item gives now: {_some(rows['chip_id'][differs])}"


def _some(values: Iterable[Any]) -> str:
    """The first few of ``values``, and how many there are."""
    listed = list(values)
    shown = ", ".join(repr(value) for value in listed[:3])
    return shown if len(listed) <= 3 else f"{shown} and {len(listed) - 3:,} more"
