"""Batches of chips for training: shuffled, read ahead, split among workers, and resumed."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack

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
"""Chips that wait to be given out: some 335 MB of ten 16-bit bands of 256 x 256 pixels."""


class PixelBatch(NamedTuple):
    """A batch as plain arrays."""

    positions: np.ndarray
    """int64 (chip,): rows of the index."""
    arrays: tuple[np.ndarray, ...]
    """One (chip, band, y, x) for each data type; see `ChipReader.layout`."""


class Batches:
    """An iterator of batches: what is left of one part of one epoch. `batches` makes them.

    ``len()`` is the number of batches that are left. Used as a context manager, it stops reading ahead at the end.
    """

    def __init__(
        self, table: ChipTable, plan: Epoch, readers: Readers, settings: Mapping[str, Any], *, start: int, ahead: int
    ) -> None:
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
        """The next batch as plain arrays: without a Dataset around them, and in one piece where all bands have one data type."""
        if self._failure is not None:
            raise self._failure
        try:
            batch = next(self._batches)
        except StopIteration:
            raise
        except BaseException as error:
            self._failure = error  # else the next call would look like the end of the epoch
            raise
        self._done += 1
        return batch

    def state(self) -> dict[str, Any]:
        """What ``start=`` takes, to go on after the batches given out so far: plain values, fit for JSON."""
        return {**self._settings, "batches": self._done}

    def close(self) -> None:
        """Stop reading ahead; there are no more batches."""
        self._batches.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def _produce(
    table: ChipTable, plan: Epoch, readers: Readers, *, size: int, start: int, ahead: int
) -> Generator[PixelBatch, None, None]:
    """Batches from number ``start`` on. Units are read ahead, each straight into the batches that its chips go to."""
    layout, n = table.reader.layout, len(plan.order)
    left = plan.after(start * size)
    needed, ends = left.needed, np.cumsum([len(unit) for unit in left.units])
    begun: dict[int, tuple[np.ndarray, ...]] = {}
    running: deque[Any] = deque()
    submitted = finished = 0
    try:
        for batch in range(start, -(-n // size)):
            stop = min(n, (batch + 1) * size)
            due = int(np.searchsorted(needed, stop))
            # Besides what this batch needs, so many chips more, and at least one unit.
            chips = (int(ends[due - 1]) if due else 0) + ahead * size
            until = min(len(left.units), max(due + 1, int(np.searchsorted(ends, chips, "right"))))
            for unit in left.units[submitted:until]:
                planes = []
                for place in unit.tolist():
                    number, at = divmod(place, size)
                    if number not in begun:
                        begun[number] = layout.empty(min(size, n - number * size))
                    planes.append(layout.planes(begun[number], at))
                running.append(readers.submit(table.reader, table.rows.take(plan.order[unit]), planes))
            submitted = max(submitted, until)
            while finished < due:
                readers.finish(running.popleft())
                finished += 1
            yield PixelBatch(plan.order[batch * size : stop], begun.pop(batch))
    finally:
        readers.stop()


class ReadingOptions(TableOptions, total=False):
    """Keywords of `batches` that say how chips are read."""

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
    start: Mapping[str, Any] | int = 0,
    **options: Unpack[ReadingOptions],
) -> Batches:
    """Batches of loaded chips, in random order, at nearly the speed at which the files can be decoded.

    Chips that begin in one *super-tile*, about 2048 x 2048 pixels of an item that hold whole blocks of its files, are read
    together, so a block is decoded once for all of them. Super-tiles come in random order, and each chip is given out at a random
    moment of the ``2 * buffer`` chips after its super-tile's turn: a batch mixes chips of eight super-tiles or more. What
    is to come is read meanwhile, in threads or on a cluster. Chips whose size does not divide 2048 reach over the edges of
    super-tiles; the blocks there are decoded for each side.

    Parameters
    ----------
    index
        Rows of an index, as for `open_chips`. Open them with `xchip.open_table` to read them once for all epochs.
    assets, items, sensor, harmonize, pad, storage, pixels
        As for `open_chips`.
    batch_size
        Chips in a batch; the last may have fewer.
    shuffle
        False gives the chips in the order of the rows; those of ``buffer`` rows that follow each other are then read together.
    seed, epoch
        Decide the order, together with ``buffer``, ``rank`` and the like, and nothing else does: neither threads nor timing.
    buffer
        Chips that wait to be given out, on the average: more of them mix better, and take more memory. At the most there is
        memory for ``2 * buffer + (prefetch + 2) * batch_size`` chips and one super-tile, besides what GDAL keeps
        (GDAL_CACHEMAX, 5 % of the machine's memory unless set).
    rank, world_size, worker, workers
        Take part ``rank * workers + worker`` of ``world_size * workers``: together the parts give each chip once. Parts differ
        by one chip at most, so their numbers of batches may differ by one; see ``drop_last``.
    drop_last
        Give only full batches, and the same number in each part, as distributed training needs. At most ``batch_size`` chips
        of each part are left out; which ones, changes with the epoch.
    start
        Begin after so many batches, or where `Batches.state` of an interrupted epoch says; the rest is what would have come.
    threads
        That read and decode, at least 1; by default one a core, and 16 where files are read over a network.
    prefetch
        Batches that are read ahead of the one that is given out.
    client
        A Dask client, or the address of a scheduler: its workers read, this process puts batches together. None or False:
        threads of this process read, also where a client is connected, for pixels would travel twice.

    Returns
    -------
    Batches
        Iterator of Datasets in memory, with the variables and coordinates of `open_chips`. Its ``next_pixels()`` gives plain
        arrays, ``state()`` what ``start=`` takes, and ``len()`` the number of batches that are left.

    Raises
    ------
    ValueError
        For numbers out of range, for the state of another epoch or of other rows, and as `open_chips` does.
    xchip.ItemError
        From the iterator, for an item or a file that can't be read: names item, asset and file. No chip is left out silently.

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
    check_options("batches", options, ReadingOptions)
    threads, prefetch, client = options.pop("threads", None), options.pop("prefetch", 2), options.pop("client", None)
    check_whole("prefetch", prefetch, 0)
    check_whole("seed", seed, 0)
    check_whole("epoch", epoch, 0)
    if threads is not None:
        check_whole("threads", threads)
    table = open_table(index, assets, **options)  # type: ignore[misc]  # the keys that are left are its own
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
    # In the order of rows, neighbours come soon after; shuffled they don't.
    keep = not shuffle
    if client:
        readers: Readers = ClusterReaders(client, keep=keep)
    else:
        remote = any(kind.remote for kind in table.reader.kinds.values())
        readers = ThreadReaders(reading_threads(threads, remote=remote), keep=keep)
    return Batches(table, plan, readers, settings, start=done, ahead=prefetch)


def plain_numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` fit for JSON, which NumPy's numbers are not."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}


def _batches_done(start: Mapping[str, Any] | int, settings: Mapping[str, Any], last: int) -> int:
    done = start
    if isinstance(start, Mapping):
        other = {name: start.get(name) for name, value in settings.items() if start.get(name) != value}
        if other:
            mine = {name: settings[name] for name in other}
            raise ValueError(f"start= is the state of another epoch: it has {other}, this call {mine}; pass the same arguments")
        done = start["batches"]
    check_whole("start (batches)", done, 0, last)
    return int(done)  # type: ignore[arg-type]
