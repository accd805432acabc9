"""Find a recipe by its name."""

from __future__ import annotations

from importlib import import_module

from xchip.processors.recipe import Recipe

NAMES = ("sentinel-2", "landsat", "naip", "linz", "modis", "sentinel-1")
"""Recipes that come with xchip; each has a module of its name."""


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
    recipe: Recipe = import_module(f"xchip.processors.{name.replace('-', '_')}").RECIPE
    return recipe
