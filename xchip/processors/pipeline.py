"""The pipeline of all recipes: choose items, stage their files, index them."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TextIO

from xchip.core.types import PathLike
from xchip.indexing.archive.report import BuildReport
from xchip.io.storage import StorageOptions
from xchip.processors.recipe import Catalogue, Item, Options, Recipe, Unit
from xchip.sensors.registry import SENSOR, recognise

if TYPE_CHECKING:
    import distributed


def process(
    recipe: str | Recipe,
    path: PathLike,
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
    """Run units of a recipe: choose their items, bring the items' files into the archive, and index them.

    Everything works as in `xchip.build_index`: each item is done once and whole, a ledger records it, and re-running resumes.
    Units are independent: each may be a job of its own, at the same time, on the same archive.

    Parameters
    ----------
    recipe
        Name of a recipe, such as "sentinel-2", or a `Recipe` of your own.
    path
        Root of the archive: a local folder, or a URL that fsspec opens.
    index
        Numbers of the units, from 0: an integer, several integers, or a slice of all units: ``slice(3, None, 10)`` is the fourth
        of ten shares.
    storage, client, workers, attempts, retry_failed, progress
        As for `xchip.build_index`.
    pixels
        How to reach the source's files; default: as the recipe says.
    **options
        Options of the recipe (``xchip <recipe> --help`` lists them), and of every recipe: api, assets, size, max_nodata,
        max_cloud_fraction, copy, seed.

    Returns
    -------
    BuildReport
        Result for the chosen items; without any items nothing is written.

    Raises
    ------
    ValueError
        If an option or an index is out of range, and as `xchip.build_index`.
    OSError
        If the catalogue or the layer can't be reached, or the archive can't be written. Finished items stay recorded.

    Examples
    --------
    >>> report = process("sentinel-2", "s3://my-bucket", 17, source="mgrs.gpkg", max_cloud_cover=40)  # doctest: +SKIP
    """
    recipe, values = _with_values(recipe, options)
    pixels = recipe.pixels if pixels is None else pixels
    items = planned_items(recipe, units_at(recipe, values, index), values, pixels)
    first = next(items, None)
    if first is None:
        return _empty_report(path)
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
    """Yield the items that `process` would index, as the catalogue has them; nothing is written. Parameters: as for `process`."""
    recipe, values = _with_values(recipe, options)
    return chosen_items(recipe, units_at(recipe, values, index), values, recipe.pixels if pixels is None else pixels)


def _with_values(recipe: str | Recipe, options: Options) -> tuple[Recipe, Options]:
    """Return the recipe, found by its name, and the value of each option."""
    if isinstance(recipe, str):
        from xchip.processors.registry import find

        recipe = find(recipe)
    return recipe, recipe.values(options)


def units_at(recipe: Recipe, values: Options, index: int | slice | Iterable[int]) -> list[Unit]:
    """Return units by their indices, each once, in that order. A slice may select no units.

    Raises
    ------
    ValueError
        If an index is out of range, or ``index`` is empty.
    """
    units = recipe.units(values)
    if isinstance(index, slice):
        return [units[number] for number in range(len(units))[index]]
    numbers = [operator.index(number) for number in dict.fromkeys([index] if isinstance(index, int) else index)]
    if not numbers:
        raise ValueError(f"no unit of {recipe.name!r} to do: pass the index of at least one unit, counted from 0")
    for number in numbers:
        if not 0 <= number < len(units):
            source = f" in {values['source']!r}" if values.get("source") is not None else ""
            raise ValueError(f"index {number} is out of range: {recipe.name!r} has {len(units):,} units{source}, counted from 0")
    return [units[number] for number in numbers]


def chosen_items(recipe: Recipe, units: Sequence[Unit], values: Options, pixels: StorageOptions) -> Iterator[Item]:
    """Yield the items of units, as the catalogue has them.

    Random numbers come from ``numpy.random.default_rng([seed, index])``. stacchip uses Python's ``random``, so it draws other
    years and scenes for the same index.
    """
    import numpy as np

    if values["seed"] < 0:
        raise ValueError(f"seed is a whole number, 0 or more, got {values['seed']}")
    catalogue = Catalogue(values.get("api"), pixels)
    for unit in units:
        yield from recipe.choose(unit, catalogue, np.random.default_rng([values["seed"], unit.index]), values)


def planned_items(recipe: Recipe, units: Sequence[Unit], values: Options, pixels: StorageOptions) -> Iterator[Item]:
    """Yield the items of units, with a note at each asset to be brought into the archive."""
    from xchip.processors.stage import PROBLEM, planned, refused

    for item in chosen_items(recipe, units, values, pixels):
        if PROBLEM in item:
            yield item
            continue
        item = _with_sensor(item, recipe.sensor)
        try:
            yield planned(item, recipe.assets(item, values), copy=values["copy"])
        except ValueError as error:
            # An item that the recipe can't use fails alone, and the ledger has the reason.
            yield refused(item, str(error))


def _with_sensor(item: Item, sensor: str | None) -> Item:
    """Return ``item``, with the recipe's sensor if its metadata don't identify its product: archives may mix recipes."""
    if sensor is None or recognise({**item, "assets": {}}) is not None:
        return item
    return {**item, "properties": {**item["properties"], SENSOR: sensor}}


def _empty_report(path: PathLike) -> BuildReport:
    import pandas as pd

    failures = pd.DataFrame(columns=["collection", "item_id", "error", "message", "attempts"])
    return BuildReport(os.fspath(path), 0, 0, 0, 0, 0.0, failures)
