"""Chips as PyTorch datasets: a map-style dataset for any sampler, and an iterable dataset at the speed of `batches`.

Samples have the keys of the Clay model, or of TorchGeo. PyTorch is imported when a dataset is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import numpy as np

from xchip.chips.chip_table import ChipTable
from xchip.chips.read_plan import share
from xchip.chips.train.bands import sensors_of
from xchip.chips.train.batch_size import batch_size_by_keyword
from xchip.chips.train.batches import BUFFER, Batches, State, batches, plain_numbers
from xchip.chips.train.torch_samples import Sample, SampleOptions, clay_batch, samples_of, the_torch
from xchip.core.options import check_options
from xchip.core.types import Assets, IndexLike

__all__ = ["ChipDataset", "IterableChipDataset", "clay_batch"]

if TYPE_CHECKING:
    # The types are the same with and without PyTorch.
    class Dataset: ...

    class IterableDataset: ...

else:
    try:
        # A DataLoader distinguishes the two kinds by these classes.
        from torch.utils.data import Dataset, IterableDataset
    except ImportError:  # making a dataset raises, by `the_torch`
        Dataset = IterableDataset = object

Transform: TypeAlias = Callable[[Sample], Any]
"""A function of a sample, or of a batch; its result replaces the sample."""


class ChipDataset(Dataset):
    """Map-style dataset: one sample per chip of an index, in the order of the rows.

    It pickles, and works in forked and spawned workers. The chips of one request of a ``DataLoader`` are read together, and
    decoded blocks of files are kept for the next request (256 MB per process). In random order each block is still decoded many
    times: `IterableChipDataset` is much faster if an epoch covers all chips.

    Parameters
    ----------
    index
        Rows of an index, as for `open_chips`.
    assets
        Bands, as for `open_chips`, in the order of the channels. None: the sensor's bands for Clay, in Clay's order, if the
        items have them all; otherwise all bands except quality bands.
    keys
        "clay": ``pixels`` (band, y, x); ``time`` (4,), sin and cos of the week, then of the hour; ``latlon`` (4,), sin and cos
        of the latitude, then of the longitude, of the chip's centre; ``waves`` (band,), micrometres; ``gsd`` (), metres;
        ``chip_id``, text. All tensors except ``pixels`` are float32. "torchgeo": ``image``; ``bounds`` (9,), from, to and step of
        x, y and time, and ``transform`` (9,), both float64; ``crs`` and ``chip_id``, text.
    dtype
        Data type of the pixels: of PyTorch, or its name. It must be floating, or hold all stored values.
    transform
        Called with each sample; its result replaces the sample.
    stats
        Result of `band_stats`: pixels become (pixel - mean) / std, by band and sensor.
    waves, gsd
        Wavelengths by band (micrometres) and ground sample distance (metres), if they are unknown or to override them.
    items, sensor, harmonize, pad, storage, pixels
        As for `open_chips`.

    Raises
    ------
    ImportError
        If PyTorch is not installed; it names the extra.
    ValueError
        If the index has several sensors and ``assets`` is None, if a wavelength or gsd is unknown, if ``dtype`` can't hold the
        pixels; and as `open_chips`.
    xchip.ItemError
        From reading a sample, if an item or a file can't be read.

    Examples
    --------
    Batches for Clay's encoder::

        dataset = ChipDataset(index, stats=xchip.band_stats(index))
        loader = DataLoader(dataset, batch_size=32, shuffle=True, num_workers=4, collate_fn=clay_batch)
    """

    def __init__(
        self,
        index: IndexLike | ChipTable,
        assets: Assets = None,
        *,
        transform: Transform | None = None,
        **options: Unpack[SampleOptions],
    ) -> None:
        check_options(type(self), options, SampleOptions)
        self._samples = samples_of(index, assets, **options)
        self.transform = transform

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(band.name for band in self._samples.table.reader.bands)

    def __len__(self) -> int:
        return len(self._samples.table.rows)

    def __getitem__(self, chip: int) -> Any:
        return self.__getitems__([chip])[0]

    def __getitems__(self, chips: Sequence[int]) -> list[Any]:
        """Return the samples of several chips, read together; a ``DataLoader`` calls it."""
        positions = np.asarray(chips, np.int64)
        n = len(self)
        if ((positions < -n) | (positions >= n)).any():
            raise IndexError(f"chips of the dataset are numbered from 0 to {n - 1}, got {positions.tolist()}")
        positions %= n
        samples = self._samples.of(positions, self._samples.table.read(positions))
        return samples if self.transform is None else [self.transform(sample) for sample in samples]


class IterableChipDataset(IterableDataset):
    """Iterate over batches of chips in random order, each chip once per epoch, at the speed of `batches`.

    Each block of a file is decoded about once per epoch. Use ``DataLoader(dataset, batch_size=None, num_workers=...)``: the
    dataset makes the batches, and splits them among workers and ranks. Call ``set_epoch`` before each epoch, also with
    persistent workers; otherwise each epoch has the order of the first.

    Parameters
    ----------
    index, assets, keys, dtype, stats, waves, gsd, items, sensor, harmonize, pad, storage, pixels
        As for `ChipDataset`. With Clay's keys the index has one sensor, and a batch has one ``waves`` (band,) and one ``gsd`` ().
    batch_size, shuffle, seed, buffer, drop_last, prefetch
        As for `batches`. Each worker has its own buffer.
    rank, world_size
        Part of the chips for this process. None: from ``torch.distributed`` when the dataset is made, if it is initialised;
        otherwise all chips. With ``drop_last`` each rank gets the same number of batches.
    threads
        Reader threads of each worker. None: all cores, divided among the workers; 16 each for remote files.
    transform
        Called with each batch; its result replaces the batch.

    Raises
    ------
    ImportError, ValueError, xchip.ItemError
        As `ChipDataset`.

    Examples
    --------
    Train, and resume after an interruption::

        dataset = IterableChipDataset(index, batch_size=64, seed=7)
        loader = DataLoader(dataset, batch_size=None, num_workers=4)
        for epoch in range(10):
            dataset.set_epoch(epoch)
            for number, batch in enumerate(loader, 1):
                step(batch["pixels"])
                checkpoint = dataset.state(number, workers=4)

        dataset.resume(checkpoint)  # the loader then returns the rest of that epoch
    """

    @batch_size_by_keyword(position=2)
    def __init__(
        self,
        index: IndexLike | ChipTable,
        assets: Assets = None,
        *,
        batch_size: int = 64,
        shuffle: bool = True,
        seed: int = 0,
        buffer: int = BUFFER,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        threads: int | None = None,
        prefetch: int = 2,
        transform: Transform | None = None,
        **options: Unpack[SampleOptions],
    ) -> None:
        torch = the_torch()
        check_options(type(self), options, SampleOptions)
        self._samples = samples_of(index, assets, **options)
        keys = options.get("keys", "clay")
        sensors = list(dict.fromkeys(sensors_of(self._samples.table)))
        if keys == "clay" and len(sensors) > 1:
            raise ValueError(
                f"the index has chips of several sensors, {sensors}, but Clay takes one sensor per batch; make a dataset for "
                "each sensor, or pass keys='torchgeo'"
            )
        table = self._samples.table
        self._chips = {"chips": len(table.rows), "index": table.rows.digest}
        rank, world_size = _place(rank, world_size)
        self._settings = plain_numbers({
            "batch_size": batch_size, "shuffle": shuffle, "seed": seed, "buffer": buffer, "world_size": world_size,
            "drop_last": drop_last,
        })  # fmt: skip
        self._rank, self._threads, self._prefetch = rank, threads, prefetch
        self.transform = transform
        # The epoch; then the epoch, batches and workers of a resumed state. Persistent workers see changes of shared memory.
        self._progress = torch.zeros(4, dtype=torch.int64).share_memory_()
        self._batches(0, 0, 1).close()  # raises for wrong settings here rather than in a worker

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._progress.share_memory_()  # pickles and copies lose the shared memory

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(band.name for band in self._samples.table.reader.bands)

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch. Epoch and seed determine the order."""
        self._progress[0] = epoch

    def state(self, batches: int, *, workers: int = 0) -> dict[str, Any]:
        """Return a value for `resume` after ``batches`` batches of this epoch from a ``DataLoader``.

        ``workers`` is its ``num_workers``. In a resumed epoch, count the batches before the interruption too. The values are
        plain, ready for JSON, and the same on each rank.
        """
        done = {"epoch": int(self._progress[0]), "batches": int(batches), "workers": max(1, int(workers))}
        return {**self._chips, **self._settings, **done}

    def resume(self, state: State) -> None:
        """Continue from a state: the next epoch is the epoch of the state, without its finished batches. Later epochs are whole.

        Raises
        ------
        ValueError
            If the state is of other chips or settings, whose order differs.
        """
        mine = self.state(state.get("batches", 0), workers=state.get("workers", 0)) | {"epoch": state.get("epoch", 0)}
        differences = {name: state.get(name) for name, value in mine.items() if state.get(name) != value}
        if differences:
            expected = {name: mine[name] for name in differences}
            raise ValueError(
                f"the state is of another dataset: it has {differences}, not {expected}; make the dataset with the same arguments"
            )
        epoch, done, workers = state["epoch"], state["batches"], state["workers"]
        total = sum(self._counts(workers))
        if not 0 <= done <= total:
            raise ValueError(f"the state has {done} finished batches, but an epoch has {total}; pass a state of this dataset")
        for position, value in enumerate((epoch, epoch, done, workers)):
            self._progress[position] = value

    def __iter__(self) -> Iterator[Any]:
        import torch

        info = torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        part, start = self._turn(worker, workers)
        with self._batches(start, part, workers) as reading:
            for _ in range(len(reading)):
                pixels = reading.next_pixels()
                batch = self._samples.batch(pixels.positions, pixels.arrays)
                yield batch if self.transform is None else self.transform(batch)

    def _batches(self, start: int, worker: int, workers: int) -> Batches:
        threads = self._threads
        kinds = self._samples.table.reader.kinds.values()
        if threads is None and not any(kind.remote for kind in kinds):
            threads = max(1, (os.cpu_count() or 1) // workers)
        return batches(
            self._samples.table,
            epoch=int(self._progress[0]),
            rank=self._rank,
            worker=worker,
            workers=workers,
            start=start,
            threads=threads,
            prefetch=self._prefetch,
            **self._settings,
        )

    def _counts(self, workers: int) -> list[int]:
        """Return the number of batches of an epoch, for each worker."""
        n, size = len(self._samples.table.rows), self._settings["batch_size"]
        parts = self._settings["world_size"] * workers
        if self._settings["drop_last"]:
            return [n // parts // size] * workers
        bounds = (share(n, self._rank * workers + worker, parts) for worker in range(workers))
        return [-(-(stop - start) // size) for start, stop in bounds]

    def _turn(self, worker: int, workers: int) -> tuple[int, int]:
        """Return (the part of the epoch that a worker returns, the number of its batches that are finished).

        A DataLoader takes a batch from each worker in turn, while the worker has any, and always begins with the first worker.
        To resume with the part whose turn it is, the first worker must return that part.
        """
        epoch, resumed_epoch, done, resumed_workers = self._progress.tolist()
        if not done or epoch != resumed_epoch:
            return worker, 0
        if workers != resumed_workers:
            raise ValueError(
                f"the state is of a DataLoader with {resumed_workers} workers, this DataLoader has {workers}; use the same "
                "number, because the order depends on it"
            )
        turns = sorted((turn, part) for part, count in enumerate(self._counts(workers)) for turn in range(count))
        following = turns[done][1] if done < len(turns) else 0
        part = (following + worker) % workers
        return part, sum(finished == part for _, finished in turns[:done])


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    import torch.distributed as distributed

    if (rank is None) != (world_size is None):
        raise ValueError(f"pass both rank and world_size, or neither, got {rank} and {world_size}")
    if rank is not None and world_size is not None:
        return rank, world_size
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
