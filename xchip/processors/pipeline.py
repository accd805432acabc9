"""The one pipeline: choose items, stage their files, index them."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TextIO

from xchip.indexing.archive.report import BuildReport
from xchip.io.storage import StorageOptions
from xchip.processors.recipe import Catalogue, Item, Options, Recipe, Unit
from xchip.sensors.registry import SENSOR, recognise

if TYPE_CHECKING:
    import distributed


def process(
    recipe: str | Recipe,
    path: str | os.PathLike[str],
    index: int | slice | Iterable[int],
    *,
    storage: StorageOptions | None = None,
    pixels: StorageOptions | None = None,
    client: distributed.Client | str | Literal[False] | None = None,
    workers: int | None = None,
    attempts: int = 5,
    retry_failed: bool = True,
    progress: bool | TextIO = True,
    **options: Any,
) -> BuildReport:
    """Do one unit of a recipe, or several: choose its items, bring their files into the archive, and index them.

    All is as with `xchip.build_index`: each item is done once and whole, a ledger records it, and to run again is to go on.
    Units are independent: each may be a job of its own, at the same time, on the same archive.

    Parameters
    ----------
    recipe
        Its name, such as "sentinel-2", or a `Recipe` of your own.
    path
        Root of the archive: a local folder, or a URL that fsspec opens.
    index
        Which units, counted from 0: one, several, or a slice of them all: ``slice(3, None, 10)`` is the fourth of ten shares.
    storage, client, workers, attempts, retry_failed, progress
        As for `xchip.build_index`.
    pixels
        How the source's files are reached; as the recipe has it if not given.
    **options
        The recipe's own (``xchip <recipe> --help`` lists them), and those of every recipe: api, assets, size, max_nodata,
        max_cloud_fraction, copy, seed.

    Returns
    -------
    BuildReport
        Of the items that were chosen; nothing is written where there are none.

    Raises
    ------
    ValueError
        For an option or an index that is out of range, and as of `xchip.build_index`.
    OSError
        If the catalogue or the layer can't be reached, or the archive can't be written. What is done until then is recorded.

    Examples
    --------
    >>> report = process("sentinel-2", "s3://my-bucket", 17, source="mgrs.gpkg", max_cloud_cover=40)  # doctest: +SKIP
    """
    recipe, values = _settled(recipe, options)
    pixels = recipe.pixels if pixels is None else pixels
    items = planned_items(recipe, units_at(recipe, values, index), values, pixels)
    first = next(items, None)
    if first is None:
        return _nothing(path)
    from xchip.indexing.archive.build import build_index
    from xchip.processors.stage import Stage

    return build_index(
        chain([first], items),
        path,
        values["size"],
        max_nodata=values["max_nodata"],
        max_cloud=values["max_cloud_fraction"],
        storage=storage,
        pixels=pixels,
        prepare=Stage(pixels),
        client=client,
        workers=workers,
        attempts=attempts,
        retry_failed=retry_failed,
        progress=progress,
    )


def choose_items(
    recipe: str | Recipe,
    index: int | slice | Iterable[int],
    *,
    pixels: StorageOptions | None = None,
    **options: Any,
) -> Iterator[Item]:
    """The items that `process` would take, as the catalogue has them; nothing is written. Parameters are as there."""
    recipe, values = _settled(recipe, options)
    return chosen_items(recipe, units_at(recipe, values, index), values, recipe.pixels if pixels is None else pixels)


def _settled(recipe: str | Recipe, options: Options) -> tuple[Recipe, dict[str, Any]]:
    """The recipe itself, and the value of each option."""
    if isinstance(recipe, str):
        from xchip.processors.registry import find

        recipe = find(recipe)
    return recipe, recipe.values(options)


def units_at(recipe: Recipe, values: Options, index: int | slice | Iterable[int]) -> list[Unit]:
    """Units by their indices, each once, in that order. A slice may hold none.

    Raises
    ------
    ValueError
        If a number is out of range, or there are none.
    """
    units = recipe.units(values)
    if isinstance(index, slice):
        return [units[number] for number in range(len(units))[index]]
    wanted = [operator.index(number) for number in dict.fromkeys([index] if isinstance(index, int) else index)]
    if not wanted:
        raise ValueError(f"no unit of {recipe.name!r} to do: give the index of at least one, counted from 0")
    for number in wanted:
        if not 0 <= number < len(units):
            of = f" in {values['source']!r}" if values.get("source") is not None else ""
            raise ValueError(f"index {number} is out of range: {recipe.name!r} has {len(units):,} units{of}, counted from 0")
    return [units[number] for number in wanted]


def chosen_items(recipe: Recipe, units: Sequence[Unit], values: Options, pixels: StorageOptions) -> Iterator[Item]:
    """The items of units, as the catalogue has them.

    Random numbers are those of ``numpy.random.default_rng([seed, index])``. stacchip takes them from Python's ``random``, so for
    the same index its years and scenes are others.
    """
    import numpy as np

    if values["seed"] < 0:
        raise ValueError(f"seed is a whole number, 0 or more, got {values['seed']}")
    catalogue = Catalogue(values.get("api"), pixels)
    for unit in units:
        yield from recipe.choose(unit, catalogue, np.random.default_rng([values["seed"], unit.index]), values)


def planned_items(recipe: Recipe, units: Sequence[Unit], values: Options, pixels: StorageOptions) -> Iterator[Item]:
    """The items of units, with a note at each asset that is to be brought into the archive."""
    from xchip.processors.stage import PROBLEM, planned, refused

    for item in chosen_items(recipe, units, values, pixels):
        if PROBLEM in item:
            yield item
            continue
        item = _with_sensor(item, recipe.sensor)
        try:
            yield planned(item, recipe.assets(item, values), copy=values["copy"])
        except ValueError as error:
            # One item that a recipe can't use does not stop the others: it fails by itself, and the ledger says why.
            yield refused(item, str(error))


def _with_sensor(item: Item, sensor: str | None) -> Item:
    """``item``, telling its product where that is not to be seen: so an archive may hold the items of several recipes."""
    if sensor is None or recognise({**item, "assets": {}}) is not None:
        return item
    return {**item, "properties": {**item["properties"], SENSOR: sensor}}


def _nothing(path: str | os.PathLike[str]) -> BuildReport:
    import pandas as pd

    failures = pd.DataFrame(columns=["collection", "item_id", "error", "message", "attempts"])
    return BuildReport(os.fspath(path), 0, 0, 0, 0, 0.0, failures)
