"""Chips as PyTorch datasets: a map-style one for any sampler, and an iterable one at the speed of `batches`.

Their samples are what the Clay model takes, or have the keys of TorchGeo. PyTorch is imported when one is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from xchip.chips.chip_table import ChipTable
from xchip.chips.read_plan import share
from xchip.chips.train.bands import sensors_of
from xchip.chips.train.batch_size import batch_size_by_keyword
from xchip.chips.train.batches import BUFFER, PixelBatch, batches, plain_numbers
from xchip.chips.train.torch_samples import SampleOptions, clay_batch, samples_of, the_torch
from xchip.core.options import check_options
from xchip.core.types import Assets, IndexLike

__all__ = ["ChipDataset", "IterableChipDataset", "clay_batch"]

if TYPE_CHECKING:
    # So that types are the same with PyTorch and without it.
    class Dataset: ...

    class IterableDataset: ...

else:
    try:
        # A DataLoader tells the two kinds apart by these classes.
        from torch.utils.data import Dataset, IterableDataset
    except ImportError:  # `the_torch` tells who makes a dataset
        Dataset = IterableDataset = object

Transform = Callable[[dict[str, Any]], Any]
"""From a sample (or a batch) to whatever the model takes."""


class ChipDataset(Dataset):
    """Map-style dataset: a sample a chip of an index, in the order of its rows.

    It pickles and may be used in forked and spawned workers. Chips that a ``DataLoader`` asks for at once are read together, and
    the blocks of files that were decoded are kept for the next (256 MB a process). In random order each block is decoded many
    times all the same: `IterableChipDataset` is much faster, where an epoch goes through all chips.

    Parameters
    ----------
    index
        Rows of an index, as for `open_chips`.
    assets
        Bands, as for `open_chips`, in the order of the channels. None: those that Clay takes of the sensor, in its order, where
        the items have them all; else all bands but those that tell the quality.
    keys
        "clay": ``pixels`` (band, y, x); ``time`` (4,), sin and cos of the week, then of the hour; ``latlon`` (4,), sin and cos
        of the latitude, then of the longitude, of the chip's centre; ``waves`` (band,), micrometres; ``gsd`` (), metres;
        ``chip_id``, text. Tensors but ``pixels`` are float32. "torchgeo": ``image``; ``bounds`` (9,), from, to and step of x, y
        and time, and ``transform`` (9,), both float64; ``crs`` and ``chip_id``, text.
    dtype
        Of the pixels: a data type of PyTorch, or its name; one that holds all values as stored, or a floating one.
    transform
        Called with each sample; what it returns is the sample.
    stats
        What `band_stats` found: pixels become (pixel - mean) / std, by band and sensor.
    waves, gsd
        Wavelengths by band and ground sample distance, where they are not known, or others are wanted.
    items, sensor, harmonize, pad, storage, pixels
        As for `open_chips`.

    Raises
    ------
    ImportError
        Without PyTorch; it names the extra.
    ValueError
        If the sensors of the index have no bands in common that are asked for, if a wavelength or gsd is not known, for a dtype
        that does not hold the pixels, and as `open_chips` does.
    xchip.ItemError
        When a sample is made, for an item or a file that can't be read.

    Examples
    --------
    Batches as Clay's encoder takes them::

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
        check_options(type(self).__name__, options, SampleOptions)
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
        """Samples of several chips, which are read together: what a ``DataLoader`` asks for."""
        positions = np.asarray(chips, np.int64)
        n = len(self)
        if ((positions < -n) | (positions >= n)).any():
            raise IndexError(f"the dataset has {n} chips, from 0 to {n - 1}, got {positions.tolist()}")
        positions %= n
        samples = self._samples.of(positions, self._samples.table.read(positions))
        return samples if self.transform is None else [self.transform(sample) for sample in samples]


class IterableChipDataset(IterableDataset):
    """Batches of chips in random order, each of them once an epoch, at the speed of `batches`: each block is decoded about once.

    For ``DataLoader(dataset, batch_size=None, num_workers=...)``: batches come ready-made, and are split among workers and ranks.
    Call ``set_epoch`` before each epoch, also with persistent workers; else each is in the order of the first.

    Parameters
    ----------
    index, assets, keys, dtype, stats, waves, gsd, items, sensor, harmonize, pad, storage, pixels
        As for `ChipDataset`. Batches of Clay's keys are of one sensor: ``waves`` (band,) and ``gsd`` () are there once.
    batch_size, shuffle, seed, buffer, drop_last, prefetch
        As for `batches`. Each worker has a buffer of its own.
    rank, world_size
        Which part of the chips this process takes. None: as ``torch.distributed`` says when the dataset is made, if it has been
        initialised; else all. With ``drop_last`` each rank gets the same number of batches.
    threads
        That read and decode, in each worker. None: all cores, shared by the workers; 16 each where files are read over a network.
    transform
        Called with each batch; what it returns is the batch.

    Raises
    ------
    ImportError, ValueError, xchip.ItemError
        As `ChipDataset`.

    Examples
    --------
    Train, and go on after an interruption::

        dataset = IterableChipDataset(index, batch_size=64, seed=7)
        loader = DataLoader(dataset, batch_size=None, num_workers=4)
        for epoch in range(10):
            dataset.set_epoch(epoch)
            for number, batch in enumerate(loader, 1):
                step(batch["pixels"])
                checkpoint = dataset.state(number, workers=4)

        dataset.resume(checkpoint)  # the loader then gives the rest of that epoch
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
        check_options(type(self).__name__, options, SampleOptions)
        self._samples = samples_of(index, assets, **options)
        keys = options.get("keys", "clay")
        known = list(dict.fromkeys(sensors_of(self._samples.table)))
        if keys == "clay" and len(known) > 1:
            raise ValueError(
                f"the index has chips of several sensors, {known}, and Clay takes one a batch; make a dataset of each, or ask "
                "for keys='torchgeo'"
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
        # Epoch; then epoch, batches and workers of a state. Shared memory: workers that persist between epochs see them too.
        self._progress = torch.zeros(4, dtype=torch.int64).share_memory_()
        self._batches(0, 0, 1).close()  # tells what is wrong with the settings now, and not in a worker

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._progress.share_memory_()  # plain pickles and copies have memory of their own, which no worker sees

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(band.name for band in self._samples.table.reader.bands)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next: it decides the order, with the seed."""
        self._progress[0] = epoch

    def state(self, batches: int, *, workers: int = 0) -> dict[str, Any]:
        """What `resume` takes, once the loop over a ``DataLoader`` has had so many batches of this epoch.

        ``workers`` is its ``num_workers``. Of an epoch that was resumed, count the batches before that as well. Plain values, fit
        for JSON, and the same on each rank.
        """
        done = {"epoch": int(self._progress[0]), "batches": int(batches), "workers": max(1, int(workers))}
        return {**self._chips, **self._settings, **done}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on where a state says: the next epoch is the state's, without the batches that it has had; later ones are whole.

        Raises
        ------
        ValueError
            If the state is of other chips or settings, which would give another order.
        """
        mine = self.state(state.get("batches", 0), workers=state.get("workers", 0)) | {"epoch": state.get("epoch", 0)}
        other = {name: state.get(name) for name, value in mine.items() if state.get(name) != value}
        if other:
            own = {name: mine[name] for name in other}
            raise ValueError(f"the state is of another dataset: it has {other}, this one {own}; make it with the same arguments")
        epoch, done, workers = state["epoch"], state["batches"], state["workers"]
        total = sum(self._counts(workers))
        if not 0 <= done <= total:
            raise ValueError(f"the state has had {done} batches, and an epoch has {total}")
        for at, value in enumerate((epoch, epoch, done, workers)):
            self._progress[at] = value

    def __iter__(self) -> Iterator[Any]:
        import torch

        info = torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        part, start = self._turn(worker, workers)
        with self._batches(start, part, workers) as found:
            for _ in range(len(found)):
                read: PixelBatch = found.next_pixels()
                batch = self._samples.batch(read.positions, read.arrays)
                yield batch if self.transform is None else self.transform(batch)

    def _batches(self, start: int, worker: int, workers: int) -> Any:
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
        """Batches of an epoch that each worker gives."""
        n, size = len(self._samples.table.rows), self._settings["batch_size"]
        parts = self._settings["world_size"] * workers
        if self._settings["drop_last"]:
            return [n // parts // size] * workers
        bounds = (share(n, self._rank * workers + worker, parts) for worker in range(workers))
        return [-(-(stop - start) // size) for start, stop in bounds]

    def _turn(self, worker: int, workers: int) -> tuple[int, int]:
        """(which part of the epoch a worker gives, how many batches of it a state has had).

        A DataLoader takes a batch of each worker in turn, as long as it has any, and always begins with the first. To go on with
        the part whose turn it is, the first worker has to give that.
        """
        epoch, of_epoch, done, of_workers = self._progress.tolist()
        if not done or epoch != of_epoch:
            return worker, 0
        if workers != of_workers:
            raise ValueError(
                f"the state is of a DataLoader with {of_workers} workers, this one has {workers}; use as many, for the order "
                "depends on it"
            )
        turns = sorted((turn, part) for part, count in enumerate(self._counts(workers)) for turn in range(count))
        following = turns[done][1] if done < len(turns) else 0
        part = (following + worker) % workers
        return part, sum(giver == part for _, giver in turns[:done])


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    import torch.distributed as distributed

    if (rank is None) != (world_size is None):
        raise ValueError(f"give both rank and world_size, or none, got {rank} and {world_size}")
    if rank is not None and world_size is not None:
        return rank, world_size
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
