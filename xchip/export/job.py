"""What all exports have in common: which chips go into which file, and how a few files are read, written, and accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, ClassVar, Protocol

import numpy as np

from xchip.chips.chip_reader import Planes
from xchip.chips.chip_rows import ChipRows
from xchip.chips.chip_table import ChipTable
from xchip.chips.item_cache import ChipBand
from xchip.chips.read_plan import Shape, split_units, units
from xchip.indexing.archive.task import ArchiveError
from xchip.indexing.stacchip.rows import located
from xchip.io.retry import GivenUp, attempts_in, insistently, retrying
from xchip.io.store import Store

MIXED = 4
"""Chips of at least so many super-tiles are mixed, however many chips one has."""

Map = Callable[..., Iterable[Any]]
"""``map``, or that of a pool of threads."""


@dataclass(frozen=True, eq=False)
class Chips:
    """Chips that have been read, on their way into a file."""

    table: ChipTable
    """Their rows, coordinates and bands."""
    pixels: Sequence[np.ndarray]
    """(chip, y, x), one a band, in the band's data type."""
    sensor: str | None
    """Name of their profile."""

    @property
    def bands(self) -> tuple[ChipBand, ...]:
        """What ``pixels`` are."""
        return self.table.reader.bands

    def __len__(self) -> int:
        return len(self.table.rows)

    def stacked(self, dtype: Any = None) -> np.ndarray:
        """(chip, band, y, x), in ``dtype`` or else the type that holds all bands."""
        height, width = self.table.reader.size
        wanted = dtype or np.result_type(*(band.dtype for band in self.bands))
        out = np.empty((len(self), len(self.bands), height, width), wanted)
        for number, band in enumerate(self.pixels):
            out[:, number] = band
        return out


class Format(Protocol):
    """A kind of files. It is a plain value, for it travels to the workers."""

    name: ClassVar[str]
    """What it is called: "npz"."""
    shuffled: ClassVar[bool]
    """Whether chips are shuffled unless the caller says otherwise."""
    by_sensor: ClassVar[bool]
    """Whether a file holds chips of one sensor only."""
    fills: ClassVar[bool]
    """Whether chips that could not be read are there all the same, as nodata."""
    own_sizes: ClassVar[bool]
    """Whether chips may have several sizes."""
    apart: ClassVar[bool]
    """Whether the files of each sensor are an export of their own: in its `folder`, whatever others there are."""

    @property
    def per_file(self) -> int:
        """Chips in a file; the last may have fewer."""

    def parameters(self) -> dict[str, Any]:
        """What files depend on, as JSON."""

    def assets(self, sensor: str | None) -> Sequence[str] | None:
        """The bands to export where nobody asks for others."""

    def folder(self, sensor: str | None) -> str:
        """Where the files of a sensor are, if they are an export of their own."""

    def files(self, table: ChipTable, order: np.ndarray, sensor: str | None) -> list[str]:
        """The name of each file, which says that it has been written; ``order`` is that of the chips."""

    def prepared(self, store: Store, table: ChipTable, order: np.ndarray) -> Format:
        """Write what must be there before the first file; the format as tasks need it."""

    def write(self, store: Store, file: OutputFile, chips: Chips) -> None:
        """Write a file, whole or not at all."""


class ShuffledBySensor:
    """What formats share that put ``size`` shuffled chips of one size and sensor into a file."""

    __slots__ = ()
    shuffled: ClassVar[bool] = True
    by_sensor: ClassVar[bool] = True
    fills: ClassVar[bool] = False
    own_sizes: ClassVar[bool] = False
    size: int

    @property
    def per_file(self) -> int:
        """See `Format`."""
        return self.size


@dataclass(frozen=True, eq=False)
class OutputFile:
    """A file to be written."""

    name: str
    chips: np.ndarray
    """int64: positions in the table."""
    first: int
    """Number of its first chip in the order of all chips."""


@dataclass(frozen=True, slots=True)
class FailedChip:
    """A chip that is not in its file, and why."""

    file: str
    chip_id: str
    item_id: str
    collection: str | None
    error: str
    """Name of the exception's class."""
    message: str
    attempts: int

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, eq=False)
class Pool:
    """Files whose chips are read together, each block once: the work of one task."""

    name: str
    files: tuple[OutputFile, ...]
    table: ChipTable
    """The chips of these files."""
    sensor: str | None
    format: Format
    earlier: tuple[FailedChip, ...] = ()
    """Chips that failed in an earlier run, also those of other files of the pool."""

    @property
    def failures(self) -> str:
        """Name of the file that lists its failed chips."""
        return f"failed/{self.name}.jsonl"


@dataclass(frozen=True, slots=True)
class Work:
    """What all tasks of a run share."""

    store: Store
    attempts: int
    keep: bool
    """Whether decoded blocks are kept for the tasks that follow."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a pool."""

    written: tuple[str, ...]
    """Names of the files that were written."""
    chips: int
    """Chips in them."""
    failures: tuple[FailedChip, ...]


def pools_of(
    rows: ChipRows, tile: Shape, *, per_file: int, buffer: int, shuffle: bool, seed: int, per_job: int | None = None
) -> list[np.ndarray]:
    """Positions of the chips of each pool, in the order in which files take them: together a permutation of the rows.

    Parameters
    ----------
    rows
        All chips.
    tile
        (height, width) of super-tiles: chips that begin in one are read together.
    per_file
        Chips in a file. A pool is a whole number of files; only the last may end within one.
    buffer
        Chips in a pool, about.
    shuffle
        Super-tiles of all items come in random order; as many as make a pool are mixed, chip by chip. So a file has chips of
        about as many super-tiles as its pool, and only those that a pool's border cuts are read twice. False: the order of
        the rows.
    seed
        Decides the order.
    per_job
        Files of a job, which must not share a pool with those of another: a pool's failures are listed in one place. None: all
        files.
    """
    size = max(1, buffer // per_file) * per_file
    job = len(rows) if per_job is None else per_job * per_file
    pools = [
        slice(start, min(start + size, first + job))
        for first in range(0, len(rows), job)
        for start in range(first, min(first + job, len(rows)), size)
    ]
    order = np.arange(len(rows))
    if shuffle:
        rng = np.random.default_rng(seed)
        groups = split_units(units(rows, tile), max(1, size // MIXED))
        order = np.concatenate([groups[turn] for turn in rng.permutation(len(groups)).tolist()])
        for pool in pools:
            rng.shuffle(order[pool])
    return [order[pool] for pool in pools]


def taken(table: ChipTable, positions: np.ndarray) -> ChipTable:
    """Some chips of a table, with no more than is needed to read them."""
    rows = table.rows.take(positions)
    return ChipTable(rows, {name: values[positions] for name, values in table.coords.items()}, table.reader.only(rows))


def shipped(pool: Pool, files: Sequence[OutputFile], earlier: Sequence[FailedChip]) -> Pool:
    """Some files of a pool, with no more of the table than they need: what travels to a task."""
    ends = np.cumsum([len(file.chips) for file in files])
    table = taken(pool.table, np.concatenate([file.chips for file in files]))
    own = tuple(
        replace(file, chips=np.arange(end - len(file.chips), end)) for file, end in zip(files, ends.tolist(), strict=True)
    )
    return replace(pool, files=own, table=table, earlier=tuple(earlier))


def broken(pool: Pool, store: Store, error: Exception) -> Done:
    """All chips of a pool as failed, for its task broke down."""
    wrong = dict.fromkeys(range(len(pool.table.rows)), (type(error).__name__, str(error), 1))
    redone = {file.name for file in pool.files}
    left = [one for one in pool.earlier if one.file not in redone]
    left += [one for file in pool.files for one in _failed(pool, file, wrong)]
    list_failures(store, pool, left)
    return Done((), 0, tuple(left))


def export_pool(pool: Pool, work: Work, each: Map = map) -> Done:
    """Read the chips of a pool and write its files. Never raises for what is wrong with a chip.

    What is listed as failed is listed before its file is there, so that no chip is ever missing in silence.

    Parameters
    ----------
    pool, work
        What is to be done.
    each
        ``map``, or that of a pool of threads, which may then read and write several things at a time.

    Raises
    ------
    ArchiveError
        If the target can't be written.
    """
    arrays, wrong = read_chips(pool.table, work, each)
    table = pool.table
    pool = replace(pool, table=replace(table, coords=located(table.rows, table.coords, table.reader.items.scene, wrong)))
    bands = pool.table.reader.layout.bands(arrays)
    found = tuple(_failed(pool, file, wrong) for file in pool.files)
    redone = {file.name for file in pool.files}
    left = [*(one for one in pool.earlier if one.file not in redone), *(one for some in found for one in some)]
    list_failures(work.store, pool, [*left, *(one for one in pool.earlier if one.file in redone)])

    def write(file: OutputFile) -> int:
        readable = np.array([chip for chip in file.chips.tolist() if chip not in wrong], np.int64)
        kept = file.chips if pool.format.fills else readable
        if len(kept):
            # A view where no chip is missing: a file's pixels are large.
            at = slice(kept[0], kept[-1] + 1) if len(kept) == kept[-1] + 1 - kept[0] else kept
            chips = Chips(taken(pool.table, kept), [band[at] for band in bands], pool.sensor)
            _insist(lambda: pool.format.write(work.store, file, chips), work.store, file.name)
        return len(readable) if len(kept) else 0

    counts = list(each(write, pool.files))
    if pool.earlier:
        list_failures(work.store, pool, left)
    written = tuple(file.name for file, count in zip(pool.files, counts, strict=True) if count or pool.format.fills)
    return Done(written, sum(counts), tuple(left))


def _failed(pool: Pool, file: OutputFile, wrong: Mapping[int, tuple[str, str, int]]) -> list[FailedChip]:
    return [failed_chip(pool.table, file.name, chip, *wrong[chip]) for chip in file.chips.tolist() if chip in wrong]


def failed_chip(table: ChipTable, file: str, chip: int, error: str, message: str, attempts: int) -> FailedChip:
    """The record of a chip that failed."""
    ref = table.rows.items[table.rows.item[chip]]
    return FailedChip(file, str(table.coords["chip_id"][chip]), ref.item_id, ref.collection, error, message, attempts)


def list_failures(store: Store, pool: Pool, failures: Sequence[FailedChip]) -> None:
    """Write the list of a pool's failed chips; without any, none is left."""
    lines = "".join(dict.fromkeys(f"{one.to_json()}\n" for one in failures))
    if lines:
        _insist(lambda: store.write(pool.failures, lines.encode()), store, pool.failures)
    elif pool.earlier:
        _insist(lambda: store.remove(pool.failures), store, pool.failures)


def _insist(write: Callable[[], object], store: Store, name: str) -> None:
    try:
        insistently(write)
    except OSError as error:
        raise ArchiveError(f"can't write {store.path(name)!r}: {error}; nothing else will be written either") from error


def read_chips(table: ChipTable, work: Work, each: Map) -> tuple[tuple[np.ndarray, ...], dict[int, tuple[str, str, int]]]:
    """(all chips as arrays by the layout, error, message and attempts of those that could not be read).

    A file's blocks under neighbouring chips are read at once. If that fails for good, each of the chips is tried by itself: a
    damaged block costs the chips that lie in it and no others. Chips that could not be read are nodata.
    """
    reader = table.reader
    arrays = reader.layout.empty(len(table.rows))
    planes = [reader.layout.planes(arrays, chip) for chip in range(len(table.rows))]
    jobs = [
        (unit, file)
        for unit in units(table.rows, reader.tile)
        for file in _files_of(table, table.rows.items[table.rows.item[unit[0]]].kind)
    ]
    wrong: dict[int, tuple[str, str, int]] = {}
    for found in each(lambda job: _read_unit(table, job[0], job[1], planes, work), jobs):
        wrong = found | wrong
    for chip in wrong:
        for plane, band in zip(planes[chip], reader.bands, strict=True):
            plane[...] = band.fill
    return arrays, wrong


def _files_of(table: ChipTable, kind: Any) -> list[tuple[int, ...]]:
    """Numbers of the bands that are read together; last those that items of this kind lack."""
    files = table.reader.kinds[kind].files
    absent = set(range(len(table.reader.bands))) - {number for file in files for number in file}
    return [file for file in (*files, tuple(sorted(absent))) if file]


def _read_unit(
    table: ChipTable, unit: np.ndarray, bands: tuple[int, ...], planes: Sequence[Planes], work: Work
) -> dict[int, tuple[str, str, int]]:
    """Read some bands of neighbouring chips; which of them failed."""

    def read(chips: np.ndarray, attempts: int) -> GivenUp | None:
        out = [[planes[chip][number] for number in bands] for chip in chips.tolist()]
        rows = table.rows.take(chips)
        try:
            # A signer forgets its signatures by itself, so the storage options stay the same.
            retrying(
                lambda _: table.reader.read_unit(rows, bands, out, keep=work.keep), table.reader.items.pixels, attempts=attempts
            )
        except GivenUp as failure:
            return failure
        return None

    failure = read(unit, work.attempts)
    if failure is None:
        return {}
    together = attempts_in(failure.history)
    if failure.history[-1].kind not in ("permanent", "doubtful"):
        alone: dict[int, GivenUp | None] = dict.fromkeys(unit.tolist(), failure)
    else:
        alone = {chip: read(np.array([chip]), 1) for chip in unit.tolist()}
        together += 1
    return {chip: (one.history[-1].error, one.history[-1].message, together) for chip, one in alone.items() if one is not None}


def failures_in(content: bytes) -> list[FailedChip]:
    """The chips that a list of failures has."""
    return [FailedChip(**json.loads(line)) for line in content.splitlines()]


def by_file(failures: Iterable[FailedChip]) -> dict[str, list[FailedChip]]:
    """Failed chips by the file that lacks them."""
    ordered = sorted(failures, key=lambda one: one.file)
    return {name: list(some) for name, some in groupby(ordered, key=lambda one: one.file)}


def refuse_doubles(table: ChipTable) -> None:
    """Check that collection, item and chip id name each chip only once.

    Raises
    ------
    ValueError
        If two chips share them: one file would replace the other.
    """
    import pandas as pd

    collections = np.array([ref.collection or "" for ref in table.rows.items], object)[table.rows.item]
    ids = pd.DataFrame({"collection": collections, "item_id": table.coords["item_id"], "chip_id": table.coords["chip_id"]})
    doubles = ids[ids.duplicated()]
    if len(doubles):
        raise ValueError(
            f"{len(doubles):,} chips of the index have the id of another one, such as {doubles['chip_id'].iloc[0]!r} of item "
            f"{doubles['item_id'].iloc[0]!r}, and their names would be the same; export each grid by itself, or drop the doubles"
        )
