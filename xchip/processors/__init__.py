"""Recipes, one per data source, over one pipeline: choose items, stage their files, build the index.

`xchip.processors.process` is the pipeline; `xchip.processors.recipe` says what a recipe is, and `find` gives one by its name.

Examples
--------
>>> find("naip").summary
'Index NAIP aerial photographs of the United States, a place at a time.'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xchip.processors.pipeline import process
    from xchip.processors.recipe import Recipe

NAMES = ("sentinel-2", "landsat", "naip", "linz", "modis", "sentinel-1")
"""Recipes that come with xchip; each has a module of its name."""

__all__ = ["NAMES", "find", "process"]


def find(name: str) -> Recipe:
    """The recipe of that name.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> find("landsat").api
    'https://landsatlook.usgs.gov/stac-server'
    """
    if name not in NAMES:
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(NAMES)}, and a Recipe of your own")
    recipe: Recipe = import_module(f"{__name__}.{name.replace('-', '_')}").RECIPE
    return recipe


def __getattr__(name: str) -> Any:
    if name == "process":
        from xchip.processors.pipeline import process

        return process
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
