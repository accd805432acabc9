"""What all formats share: assign chips to files, read the chips of a few files, write the files, list the failed chips."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np

from xchip.chips.chip_reader import Planes
from xchip.chips.chip_rows import ChipRows
from xchip.chips.chip_table import ChipTable
from xchip.chips.item_cache import ChipBand
from xchip.chips.read_plan import Shape, split_units, units
from xchip.indexing.archive.layout import folder_name
from xchip.indexing.archive.task import ArchiveError
from xchip.indexing.stacchip.rows import located
from xchip.io.retry import GivenUp, attempts_in, insistently, retrying
from xchip.io.store import Store

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

T = TypeVar("T")
R = TypeVar("R")

MIXED = 4
"""Least number of super-tiles whose chips are shuffled together, however many chips a super-tile has."""


class Map(Protocol):
    """``map``, or the ``map`` of a thread pool."""

    def __call__(self, function: Callable[[T], R], values: Iterable[T], /) -> Iterable[R]: ...


@dataclass(frozen=True, eq=False)
class Chips:
    """Chips that have been read and go into one file."""

    table: ChipTable
    """Rows, coordinates and bands of the chips."""
    pixels: Sequence[np.ndarray]
    """(chip, y, x), one array per band, in the band's data type."""
    sensor: str | None
    """Name of the chips' sensor profile."""

    @property
    def bands(self) -> tuple[ChipBand, ...]:
        """The bands of ``pixels``."""
        return self.table.reader.bands

    def __len__(self) -> int:
        return len(self.table.rows)

    def stacked(self, dtype: DTypeLike | None = None) -> np.ndarray:
        """Return the pixels as (chip, band, y, x), in ``dtype`` or else in the type that holds all bands."""
        height, width = self.table.reader.size
        dtype = dtype or np.result_type(*(band.dtype for band in self.bands))
        out = np.empty((len(self), len(self.bands), height, width), dtype)
        for number, band in enumerate(self.pixels):
            out[:, number] = band
        return out


class Format(ABC):
    """A file format with its options. It is a plain value, because it travels to the workers."""

    __slots__ = ()

    name: ClassVar[str]
    """The name that `export_chips` accepts, such as "npz"."""
    shuffled: ClassVar[bool] = False
    """Whether chips are shuffled by default."""
    by_sensor: ClassVar[bool] = True
    """Whether a file holds chips of one sensor only."""
    fills_failed: ClassVar[bool] = False
    """Whether files hold nodata in place of chips that could not be read; else they leave these chips out."""
    mixed_sizes: ClassVar[bool] = False
    """Whether the chips may differ in size."""
    separate_sensors: ClassVar[bool] = False
    """Whether the files of each sensor are an export of their own, in `folder`, independent of the other sensors."""

    @property
    @abstractmethod
    def per_file(self) -> int:
        """Chips in a file; the last file may have fewer."""

    def parameters(self) -> dict[str, object]:
        """Return the options that the files depend on, as JSON."""
        return {}

    def assets(self, sensor: str | None) -> Sequence[str] | None:
        """Return the default bands of a sensor; None: those that `xchip.stack` takes."""
        return None

    def folder(self, sensor: str | None) -> str:
        """Return the folder of a sensor's files; used only if ``separate_sensors``."""
        return folder_name(sensor)

    @abstractmethod
    def files(self, table: ChipTable, order: np.ndarray, sensor: str | None) -> list[str]:
        """Return the names of the files of chips in this ``order``. A file that is present has been written in full."""

    def prepare(self, store: Store, table: ChipTable, order: np.ndarray) -> Format:
        """Write what must be present before the first file, and return the format as tasks need it."""
        return self

    @abstractmethod
    def write(self, store: Store, file: OutputFile, chips: Chips) -> None:
        """Write a file, whole or not at all."""


class ShuffledBySensor(Format):
    """A format that puts ``size`` shuffled chips of one size and sensor into each file."""

    __slots__ = ()
    shuffled: ClassVar[bool] = True
    size: int

    @property
    def per_file(self) -> int:
        return self.size


@dataclass(frozen=True, eq=False)
class OutputFile:
    """A file to write."""

    name: str
    """Name of the file, relative to the target."""
    chips: np.ndarray
    """int64: positions of its chips in the table."""
    first: int
    """Number of its first chip in the order of all chips."""


@dataclass(frozen=True, slots=True)
class FailedChip:
    """A chip that is missing from its file, and the error."""

    file: str
    chip_id: str
    item_id: str
    collection: str | None
    error: str
    """Class name of the exception."""
    message: str
    attempts: int

    def to_json(self) -> str:
        """Return the record as one line."""
        return json.dumps(asdict(self))


class ReadError(NamedTuple):
    """Why a chip could not be read."""

    error: str
    """Class name of the exception."""
    message: str
    attempts: int


@dataclass(frozen=True, eq=False)
class Pool:
    """Files whose chips are read together, so that each block is decoded once: the work of one task."""

    name: str
    files: tuple[OutputFile, ...]
    table: ChipTable
    """The chips of the files."""
    sensor: str | None
    format: Format
    earlier: tuple[FailedChip, ...] = ()
    """Chips that failed in an earlier run, including those of the pool's other files."""

    @property
    def failures(self) -> str:
        """Name of the file that lists the pool's failed chips."""
        return f"failed/{self.name}.jsonl"


@dataclass(frozen=True, slots=True)
class Work:
    """What all tasks of a run share."""

    store: Store
    attempts: int
    keep: bool
    """Whether decoded blocks are kept for later tasks."""


@dataclass(frozen=True, slots=True)
class Done:
    """Result of a pool."""

    written: tuple[str, ...]
    """Names of the files that were written."""
    chips: int
    """Number of chips in them."""
    failures: tuple[FailedChip, ...]


def pools_of(
    rows: ChipRows, tile: Shape, *, per_file: int, buffer: int, shuffle: bool, seed: int, per_job: int | None = None
) -> list[np.ndarray]:
    """Return the positions of the chips of each pool, in the order of the files: together a permutation of the rows.

    Parameters
    ----------
    rows
        All chips.
    tile
        (height, width) of super-tiles: chips that begin in the same super-tile are read together.
    per_file
        Chips in a file. A pool is a whole number of files; only the last pool may end within a file.
    buffer
        Approximate number of chips in a pool.
    shuffle
        Whether the super-tiles of all items come in random order, and the chips of a pool are shuffled. A file then has chips
        of about as many super-tiles as its pool, and only super-tiles at the border of a pool are read twice. False: the order
        of the rows.
    seed
        Seed of the order.
    per_job
        Files in a job. Two jobs never share a pool, because a pool's failures are listed in one file. None: all files are one
        job.
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


def select_chips(table: ChipTable, positions: np.ndarray) -> ChipTable:
    """Return some chips of a table, with no more than reading them needs."""
    rows = table.rows.take(positions)
    return ChipTable(rows, {name: values[positions] for name, values in table.coords.items()}, table.reader.only(rows))


def pool_for_task(pool: Pool, files: Sequence[OutputFile], earlier: Sequence[FailedChip]) -> Pool:
    """Return a pool with only these files and their part of the table, small enough to travel to a task."""
    ends = np.cumsum([len(file.chips) for file in files])
    table = select_chips(pool.table, np.concatenate([file.chips for file in files]))
    renumbered = tuple(
        replace(file, chips=np.arange(end - len(file.chips), end)) for file, end in zip(files, ends.tolist(), strict=True)
    )
    return replace(pool, files=renumbered, table=table, earlier=tuple(earlier))


def fail_pool(pool: Pool, store: Store, error: Exception) -> Done:
    """List all chips of a pool as failed, because its task crashed."""
    errors = dict.fromkeys(range(len(pool.table.rows)), ReadError(type(error).__name__, str(error), 1))
    failures = _failures(pool, errors)
    list_failures(store, pool, failures)
    return Done((), 0, tuple(failures))


def export_pool(pool: Pool, work: Work, each: Map = map) -> Done:
    """Read the chips of a pool and write its files. A chip that can't be read never raises.

    Failed chips are listed before their file is written, so every missing chip is reported.

    Parameters
    ----------
    pool, work
        The pool, and what all tasks of the run share.
    each
        ``map``, or the ``map`` of a thread pool to read and write concurrently.

    Raises
    ------
    ArchiveError
        If the target can't be written.
    """
    arrays, errors = read_chips(pool.table, work, each)
    table = pool.table
    pool = replace(pool, table=replace(table, coords=located(table.rows, table.coords, table.reader.items.scene, errors)))
    bands = pool.table.reader.layout.bands(arrays)
    failures = _failures(pool, errors)
    rewritten = {file.name for file in pool.files}
    list_failures(work.store, pool, [*failures, *(failure for failure in pool.earlier if failure.file in rewritten)])

    def write(file: OutputFile) -> int:
        readable = np.array([chip for chip in file.chips.tolist() if chip not in errors], np.int64)
        kept = file.chips if pool.format.fills_failed else readable
        if len(kept):
            # A view where no chip is missing: a file's pixels are large.
            selection = slice(kept[0], kept[-1] + 1) if len(kept) == kept[-1] + 1 - kept[0] else kept
            chips = Chips(select_chips(pool.table, kept), [band[selection] for band in bands], pool.sensor)
            _insist(lambda: pool.format.write(work.store, file, chips), work.store, file.name)
        return len(readable) if len(kept) else 0

    counts = list(each(write, pool.files))
    if pool.earlier:
        list_failures(work.store, pool, failures)
    written = tuple(file.name for file, count in zip(pool.files, counts, strict=True) if count or pool.format.fills_failed)
    return Done(written, sum(counts), tuple(failures))


def _failures(pool: Pool, errors: Mapping[int, ReadError]) -> list[FailedChip]:
    """Return the failed chips of the pool's other files from earlier runs, then the chips of its files with ``errors``."""
    rewritten = {file.name for file in pool.files}
    failures = [failure for failure in pool.earlier if failure.file not in rewritten]
    ids, refs = pool.table.coords["chip_id"], pool.table.rows
    for file in pool.files:
        for chip in file.chips.tolist():
            if chip in errors:
                ref = refs.items[refs.item[chip]]
                failures.append(FailedChip(file.name, str(ids[chip]), ref.item_id, ref.collection, *errors[chip]))
    return failures


def list_failures(store: Store, pool: Pool, failures: Sequence[FailedChip]) -> None:
    """Write the list of a pool's failed chips; remove the list of an earlier run if no chip failed."""
    lines = "".join(dict.fromkeys(f"{failure.to_json()}\n" for failure in failures))
    if lines:
        _insist(lambda: store.write(pool.failures, lines.encode()), store, pool.failures)
    elif pool.earlier:
        _insist(lambda: store.remove(pool.failures), store, pool.failures)


def _insist(write: Callable[[], object], store: Store, name: str) -> None:
    try:
        insistently(write)
    except OSError as error:
        raise ArchiveError(f"can't write {store.path(name)!r}: {error}; the export stops") from error


def read_chips(table: ChipTable, work: Work, each: Map) -> tuple[tuple[np.ndarray, ...], dict[int, ReadError]]:
    """Read all chips of a table; return (arrays by the reader's layout, error of each chip that could not be read).

    The blocks of a file under neighbouring chips are read at once. If that fails permanently, each chip is tried alone, so a
    damaged block costs only the chips that it touches. Chips that could not be read are filled with nodata.
    """
    reader = table.reader
    arrays = reader.layout.empty(len(table.rows))
    planes = [reader.layout.planes(arrays, chip) for chip in range(len(table.rows))]
    jobs = [
        (unit, bands)
        for unit in units(table.rows, reader.tile)
        for bands in _bands_by_file(table, table.rows.items[table.rows.item[unit[0]]].kind)
    ]
    errors: dict[int, ReadError] = {}
    for unit_errors in each(lambda job: _read_unit(table, job[0], job[1], planes, work), jobs):
        errors = unit_errors | errors
    for chip in errors:
        for plane, band in zip(planes[chip], reader.bands, strict=True):
            plane[...] = band.fill
    return arrays, errors


def _bands_by_file(table: ChipTable, kind: tuple[str | None, str | None]) -> list[tuple[int, ...]]:
    """Return the numbers of the bands in each file of items of a kind; last the bands that these items lack."""
    files = table.reader.kinds[kind].files
    absent = set(range(len(table.reader.bands))) - {number for file in files for number in file}
    return [file for file in (*files, tuple(sorted(absent))) if file]


def _read_unit(
    table: ChipTable, unit: np.ndarray, bands: tuple[int, ...], planes: Sequence[Planes], work: Work
) -> dict[int, ReadError]:
    """Read some bands of neighbouring chips; return the error of each chip that failed."""

    def read(chips: np.ndarray, attempts: int) -> GivenUp | None:
        out = [[planes[chip][number] for number in bands] for chip in chips.tolist()]
        rows = table.rows.take(chips)
        try:
            # A signer renews its own signatures, so the storage options stay the same.
            retrying(
                lambda _: table.reader.read_unit(rows, bands, out, keep=work.keep), table.reader.items.pixels, attempts=attempts
            )
        except GivenUp as failure:
            return failure
        return None

    failure = read(unit, work.attempts)
    if failure is None:
        return {}
    attempts = attempts_in(failure.history)
    if failure.history[-1].kind not in ("permanent", "doubtful"):
        failures: dict[int, GivenUp | None] = dict.fromkeys(unit.tolist(), failure)
    else:
        failures = {chip: read(np.array([chip]), 1) for chip in unit.tolist()}
        attempts += 1
    last = {chip: failure.history[-1] for chip, failure in failures.items() if failure is not None}
    return {chip: ReadError(event.error, event.message, attempts) for chip, event in last.items()}


def failures_in(content: bytes) -> list[FailedChip]:
    """Parse a list of failed chips."""
    return [FailedChip(**json.loads(line)) for line in content.splitlines()]


def refuse_doubles(table: ChipTable) -> None:
    """Check that collection, item and chip id identify each chip.

    Raises
    ------
    ValueError
        If two chips share them, because one file would replace the other.
    """
    import pandas as pd

    collections = np.array([ref.collection or "" for ref in table.rows.items], object)[table.rows.item]
    ids = pd.DataFrame({"collection": collections, "item_id": table.coords["item_id"], "chip_id": table.coords["chip_id"]})
    doubles = ids[ids.duplicated()]
    if len(doubles):
        raise ValueError(
            f"{len(doubles):,} chips of the index have the id of another chip, such as {doubles['chip_id'].iloc[0]!r} of item "
            f"{doubles['item_id'].iloc[0]!r}, so their files would have the same name; export each grid separately, or drop the "
            "duplicates"
        )
