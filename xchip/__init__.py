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
    "AuditReport": "xchip.selection.report",
    "BandStats": "xchip.export.stats_values",
    "BuildReport": "xchip.archive.report",
    "ChipDataset": "xchip.export.torch_data",
    "ChipGrid": "xchip.grid",
    "Cubes": "xchip.export.cubes",
    "Explanation": "xchip.explanation",
    "ExportReport": "xchip.export.report",
    "GeoTiffs": "xchip.export.geotiffs",
    "ItemError": "xchip.stac.scene",
    "IterableChipDataset": "xchip.export.torch_data",
    "PixelGrid": "xchip.grid",
    "QualityClass": "xchip.quality",
    "SensorProfile": "xchip.sensors",
    "Shards": "xchip.export.shards",
    "StorageOptions": "xchip.archive.storage",
    "ZarrStore": "xchip.export.zarr_store",
    "around": "xchip.selection.layers",
    "audit": "xchip.selection.audit",
    "band_stats": "xchip.export.band_stats",
    "batches": "xchip.export.batches",
    "build_index": "xchip.archive.run",
    "chip_sums": "xchip.stats",
    "clay_batch": "xchip.export.torch_data",
    "explain_items": "xchip.archive.explain",
    "export_chips": "xchip.export.exports",
    "index_items": "xchip.archive.build",
    "inside": "xchip.selection.layers",
    "merge_indexes": "xchip.archive.merging.merge",
    "open_chips": "xchip.export.chips",
    "open_index": "xchip.archive.read",
    "plot": "xchip.plotting",
    "prechip": "xchip.export.exports",
    "preview": "xchip.sheets",
    "read_index": "xchip.archive.read",
    "sample": "xchip.selection.sample",
    "search": "xchip.stac.search",
    "series": "xchip.selection.series",
    "split": "xchip.selection.split",
    "stack": "xchip.stac.stack",
    "stitch": "xchip.stitching",
    "write_index": "xchip.archive.parquet",
}
_MODULES = ("processors", "quality", "sensors", "testing")

__all__ = [
    "AuditReport",
    "BandStats",
    "BuildReport",
    "ChipDataset",
    "ChipGrid",
    "Cubes",
    "Explanation",
    "ExportReport",
    "GeoTiffs",
    "ItemError",
    "IterableChipDataset",
    "PixelGrid",
    "QualityClass",
    "SensorProfile",
    "Shards",
    "StorageOptions",
    "ZarrStore",
    "around",
    "audit",
    "band_stats",
    "batches",
    "build_index",
    "chip_sums",
    "clay_batch",
    "explain_items",
    "export_chips",
    "index_items",
    "inside",
    "merge_indexes",
    "open_chips",
    "open_index",
    "plot",
    "prechip",
    "preview",
    "processors",
    "quality",
    "read_index",
    "sample",
    "search",
    "sensors",
    "series",
    "split",
    "stack",
    "stitch",
    "write_index",
]

if TYPE_CHECKING:
    from xchip import processors, quality, sensors
    from xchip.archive.build import index_items
    from xchip.archive.explain import explain_items
    from xchip.archive.merging.merge import merge_indexes
    from xchip.archive.parquet import write_index
    from xchip.archive.read import open_index, read_index
    from xchip.archive.report import BuildReport
    from xchip.archive.run import build_index
    from xchip.archive.storage import StorageOptions
    from xchip.explanation import Explanation
    from xchip.export.band_stats import band_stats
    from xchip.export.batches import batches
    from xchip.export.chips import open_chips
    from xchip.export.cubes import Cubes
    from xchip.export.exports import export_chips, prechip
    from xchip.export.geotiffs import GeoTiffs
    from xchip.export.report import ExportReport
    from xchip.export.shards import Shards
    from xchip.export.stats_values import BandStats
    from xchip.export.torch_data import ChipDataset, IterableChipDataset, clay_batch
    from xchip.export.zarr_store import ZarrStore
    from xchip.grid import ChipGrid, PixelGrid
    from xchip.plotting import plot
    from xchip.quality import QualityClass
    from xchip.selection.audit import audit
    from xchip.selection.layers import around, inside
    from xchip.selection.report import AuditReport
    from xchip.selection.sample import sample
    from xchip.selection.series import series
    from xchip.selection.split import split
    from xchip.sensors import SensorProfile
    from xchip.sheets import preview
    from xchip.stac.scene import ItemError
    from xchip.stac.search import search
    from xchip.stac.stack import stack
    from xchip.stats import chip_sums
    from xchip.stitching import stitch


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
