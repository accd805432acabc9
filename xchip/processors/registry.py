"""Find a recipe by its name."""

from __future__ import annotations

from importlib import import_module

from xchip.processors.recipe import Recipe

NAMES = ("sentinel-2", "landsat", "naip", "linz", "modis", "sentinel-1")
"""Names of the recipes that come with xchip; each has a module of the same name."""


def find(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> find("landsat").api
    'https://landsatlook.usgs.gov/stac-server'
    """
    if name not in NAMES:
        raise ValueError(f"unknown recipe {name!r}; use one of {', '.join(NAMES)}, or pass a Recipe of your own")
    recipe: Recipe = import_module(f"xchip.processors.{name.replace('-', '_')}").RECIPE
    return recipe
