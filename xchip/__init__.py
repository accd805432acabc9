"""xchip: index scenes into chips, and read only the chips that you pick.

``import xchip`` registers ``.chips`` on xarray's Dataset and DataArray, and loads little else: what a name needs is imported
when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xchip import accessor  # noqa: F401  registers .chips

__version__ = "0.1.0"

_HOMES = {
    "ChipGrid": "xchip.grid",
    "ItemError": "xchip.stac.scene",
    "PixelGrid": "xchip.grid",
    "QualityClass": "xchip.quality",
    "SensorProfile": "xchip.sensors",
    "chip_sums": "xchip.stats",
    "index_items": "xchip.archive.build",
    "plot": "xchip.plotting",
    "preview": "xchip.plotting",
    "stack": "xchip.stac.stack",
    "write_index": "xchip.archive.parquet",
}
_MODULES = ("quality", "sensors", "testing")

__all__ = [
    "ChipGrid",
    "ItemError",
    "PixelGrid",
    "QualityClass",
    "SensorProfile",
    "chip_sums",
    "index_items",
    "plot",
    "preview",
    "quality",
    "sensors",
    "stack",
    "write_index",
]

if TYPE_CHECKING:
    from xchip import quality, sensors
    from xchip.archive.build import index_items
    from xchip.archive.parquet import write_index
    from xchip.grid import ChipGrid, PixelGrid
    from xchip.plotting import plot, preview
    from xchip.quality import QualityClass
    from xchip.sensors import SensorProfile
    from xchip.stac.scene import ItemError
    from xchip.stac.stack import stack
    from xchip.stats import chip_sums


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"xchip.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'xchip' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
