"""Batches of chips for training: shuffle, read ahead, split among workers, and resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, Unpack, cast

import numpy as np
import xarray as xr

from xchip.chips.chip_table import ChipTable, TableOptions, open_table
from xchip.chips.read_plan import Epoch, epoch_plan
from xchip.chips.train.batch_size import batch_size_by_keyword
from xchip.chips.train.readers import ClusterReaders, Readers, ThreadReaders
from xchip.core.limits import check_whole, reading_threads
from xchip.core.options import check_options
from xchip.core.types import Assets, IndexLike

if TYPE_CHECKING:
    import distributed

BUFFER = 256
"""Chips in the shuffle buffer: about 335 MB of ten 16-bit bands of 256 x 256 pixels."""

State: TypeAlias = Mapping[str, Any]
"""Arguments of an epoch and the number of finished batches: plain values, ready for JSON."""


class PixelBatch(NamedTuple):
    """A batch as plain arrays."""

    positions: np.ndarray
    """int64 (chip,): rows of the index."""
    arrays: tuple[np.ndarray, ...]
    """An array (chip, band, y, x) for each data type; see `ChipReader.layout`."""


class Batches:
    """An iterator over the remaining batches of one part of an epoch; returned by `batches`.

    ``len()`` is the number of remaining batches. As a context manager, it stops reading ahead on exit.
    """

    def __init__(self, table: ChipTable, plan: Epoch, readers: Readers[Any], settings: State, *, start: int, ahead: int) -> None:
        self._table, self._plan, self._settings = table, plan, settings
        self._done = start
        self._last = -(-len(plan.order) // settings["batch_size"])
        self._batches = _produce(table, plan, readers, size=settings["batch_size"], start=start, ahead=ahead)
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        return self._last - self._done

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> xr.Dataset:
        batch = self.next_pixels()
        bands = self._table.reader.layout.bands(batch.arrays)
        return self._table.dataset(batch.positions, bands)

    def next_pixels(self) -> PixelBatch:
        """Return the next batch as plain arrays: a single array if all bands have the same data type."""
        if self._failure is not None:
            raise self._failure
        try:
            batch = next(self._batches)
        except StopIteration:
            raise
        except BaseException as error:
            self._failure = error  # otherwise the next call would look like the end of the epoch
            raise
        self._done += 1
        return batch

    def state(self) -> dict[str, Any]:
        """Return a value for ``start=`` that continues after the batches so far: plain values, ready for JSON."""
        return {**self._settings, "batches": self._done}

    def close(self) -> None:
        """Stop reading ahead. The iterator has no more batches."""
        self._batches.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _produce(
    table: ChipTable, plan: Epoch, readers: Readers[Any], *, size: int, start: int, ahead: int
) -> Generator[PixelBatch, None, None]:
    """Yield the batches from number ``start``. Read units ahead, each directly into the batches of its chips."""
    layout, n = table.reader.layout, len(plan.order)
    rest = plan.after(start * size)
    needed, ends = rest.needed, np.cumsum([len(unit) for unit in rest.units])
    started: dict[int, tuple[np.ndarray, ...]] = {}
    running: deque[Any] = deque()
    submitted = finished = 0
    try:
        for batch in range(start, -(-n // size)):
            stop = min(n, (batch + 1) * size)
            due = int(np.searchsorted(needed, stop))
            # Read the units of this batch, then ``ahead`` batches of chips and at least one more unit.
            chips = (int(ends[due - 1]) if due else 0) + ahead * size
            until = min(len(rest.units), max(due + 1, int(np.searchsorted(ends, chips, "right"))))
            for unit in rest.units[submitted:until]:
                planes = []
                for place in unit.tolist():
                    number, chip = divmod(place, size)
                    if number not in started:
                        started[number] = layout.empty(min(size, n - number * size))
                    planes.append(layout.planes(started[number], chip))
                running.append(readers.submit(table.reader, table.rows.take(plan.order[unit]), planes))
            submitted = max(submitted, until)
            while finished < due:
                readers.finish(running.popleft())
                finished += 1
            yield PixelBatch(plan.order[batch * size : stop], started.pop(batch))
    finally:
        readers.stop()


class ReadingOptions(TableOptions, total=False):
    """Keywords of `batches` about reading chips."""

    threads: int | None
    prefetch: int
    client: distributed.Client | str | Literal[False] | None


@batch_size_by_keyword(position=1)
def batches(
    index: IndexLike | ChipTable,
    assets: Assets = None,
    *,
    batch_size: int = 64,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    buffer: int = BUFFER,
    rank: int = 0,
    world_size: int = 1,
    worker: int = 0,
    workers: int = 1,
    drop_last: bool = False,
    start: State | int = 0,
    **options: Unpack[ReadingOptions],
) -> Batches:
    """Iterate over batches of loaded chips, in random order, at nearly the speed of decoding the files.

    Chips that begin in the same *super-tile*, an area of an item of about 2048 x 2048 pixels made of whole blocks of its files,
    are read together, so a block is decoded once for all of them. Super-tiles come in random order. Each chip is returned at a
    random position among the ``2 * buffer`` chips after its super-tile's turn: a batch mixes chips of eight super-tiles or
    more. Threads or a cluster read the next chips in the meantime. Chips whose size does not divide 2048 cross the edges of
    super-tiles; the blocks there are decoded once for each side.

    Parameters
    ----------
    index
        Rows of an index, as for `open_chips`. Open them with `xchip.open_table` to read them once for all epochs.
    assets, items, sensor, harmonize, pad, storage, pixels
        As for `open_chips`.
    batch_size
        Chips in a batch; the last may have fewer.
    shuffle
        False returns chips in the order of the rows, and reads ``buffer`` consecutive rows together.
    seed, epoch
        Determine the order, together with ``buffer`` and the part (``rank``, ``worker``, ...). Threads don't affect it.
    buffer
        Average number of chips in the shuffle buffer: more chips mix better, and take more memory. The peak is
        ``2 * buffer + (prefetch + 2) * batch_size`` chips and one super-tile, plus GDAL's cache (GDAL_CACHEMAX, by default
        5 % of the machine's memory).
    rank, world_size, worker, workers
        Return part ``rank * workers + worker`` of ``world_size * workers`` parts. Together the parts contain each chip once.
        Their sizes differ by at most one chip, so their numbers of batches may differ by one; see ``drop_last``.
    drop_last
        Return only full batches, the same number for each part, as distributed training needs. Each part leaves out at most
        ``batch_size`` chips; which chips, changes with the epoch.
    start
        Skip this number of batches, or continue an interrupted epoch from its `Batches.state`; the rest is the same.
    threads
        Number of reader threads, at least 1; default: one per core, 16 for remote files.
    prefetch
        Number of batches to read ahead.
    client
        A Dask client, or the address of a scheduler: its workers read, and this process assembles the batches. None or False:
        threads of this process read, even if a client is connected, because with workers the pixels travel twice.

    Returns
    -------
    Batches
        Iterator of Datasets in memory, with the variables and coordinates of `open_chips`. ``next_pixels()`` returns plain
        arrays, ``state()`` a value for ``start=``, and ``len()`` the number of remaining batches.

    Raises
    ------
    ValueError
        If a number is out of range, or ``start`` is the state of another epoch or other rows; and as `open_chips`.
    xchip.ItemError
        From the iterator, if an item or a file can't be read; it names item, asset and file. No chip is left out silently.

    Examples
    --------
    >>> import tempfile, xchip, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(512, 512))
    ...     index = xchip.index_items(item, size=128).compute()
    ...     sizes = [batch.sizes["chip"] for batch in batches(index, ["red", "nir"], batch_size=6, seed=1)]
    >>> sizes
    [6, 6, 4]
    """
    whole = {"batch_size": batch_size, "buffer": buffer, "world_size": world_size, "workers": workers}
    for name, value in whole.items():
        check_whole(name, value)
    check_whole("rank", rank, 0, world_size - 1)
    check_whole("worker", worker, 0, workers - 1)
    check_options(batches, options, ReadingOptions)
    threads, prefetch, client = options.pop("threads", None), options.pop("prefetch", 2), options.pop("client", None)
    check_whole("prefetch", prefetch, 0)
    check_whole("seed", seed, 0)
    check_whole("epoch", epoch, 0)
    if threads is not None:
        check_whole("threads", threads)
    table = open_table(index, assets, **cast(TableOptions, options))
    settings = plain_numbers({
        "chips": len(table.rows), "index": table.rows.digest, "batch_size": batch_size, "shuffle": shuffle, "seed": seed,
        "epoch": epoch, "buffer": buffer, "rank": rank, "world_size": world_size, "worker": worker, "workers": workers,
        "drop_last": drop_last,
    })  # fmt: skip
    parts = world_size * workers
    plan = epoch_plan(
        table.rows,
        table.reader.tile,
        buffer=buffer,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        part=rank * workers + worker,
        parts=parts,
        most=len(table.rows) // parts // batch_size * batch_size if drop_last else None,
    )
    done = _batches_done(start, settings, -(-len(plan.order) // batch_size))
    # In the order of the rows, neighbours soon need the same blocks; in random order they don't.
    keep = not shuffle
    if client:
        readers: Readers[Any] = ClusterReaders(client, keep=keep)
    else:
        remote = any(kind.remote for kind in table.reader.kinds.values())
        readers = ThreadReaders(reading_threads(threads, remote=remote), keep=keep)
    return Batches(table, plan, readers, settings, start=done, ahead=prefetch)


def plain_numbers(settings: State) -> dict[str, Any]:
    """Return ``settings`` with plain numbers for NumPy's, which JSON can't encode."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}


def _batches_done(start: State | int, settings: State, last: int) -> int:
    done = start
    if isinstance(start, Mapping):
        differences = {name: start.get(name) for name, value in settings.items() if start.get(name) != value}
        if differences:
            expected = {name: settings[name] for name in differences}
            raise ValueError(
                f"start= is the state of another epoch: it has {differences}, this call has {expected}; pass the same arguments"
            )
        done = start["batches"]
    check_whole("start (batches)", done, 0, last)
    return int(done)  # type: ignore[arg-type]
