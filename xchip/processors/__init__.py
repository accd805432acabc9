"""Recipes, one per data source, over one pipeline: choose items, stage their files, build the index.

`process` runs a recipe, `find` returns a recipe by its name, and `xchip.processors.recipe` has the parts of a recipe of your own.

Examples
--------
>>> find("naip").summary
'Index NAIP aerial photographs of the United States, a place at a time.'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xchip.processors.registry import NAMES, find

if TYPE_CHECKING:
    from xchip.processors.pipeline import process

__all__ = ["NAMES", "find", "process"]


def __getattr__(name: str) -> object:
    if name == "process":
        from xchip.processors.pipeline import process

        return process
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
