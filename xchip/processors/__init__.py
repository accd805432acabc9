"""Recipes, one per data source, over one pipeline: choose items, stage their files, build the index.

`xchip.processors.process` is the pipeline; `xchip.processors.recipe` says what a recipe is, and `find` gives one by its name.

Examples
--------
>>> find("naip").summary
'Index NAIP aerial photographs of the United States, a place at a time.'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xchip.processors.registry import NAMES, find

if TYPE_CHECKING:
    from xchip.processors.pipeline import process

__all__ = ["NAMES", "find", "process"]


def __getattr__(name: str) -> Any:
    if name == "process":
        from xchip.processors.pipeline import process

        return process
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
