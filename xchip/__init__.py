"""xchip: index scenes into chips, and read only the chips that you select.

``import xchip`` registers ``.chips`` on xarray's Dataset and DataArray, and loads little else: the module of a public name is
imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from xchip import accessor  # noqa: F401  registers .chips

__version__: str  # read when it is first used, like the names below

_HOMES = {  # public name -> its module
    "AuditReport": "xchip.selection.audit_report",
    "BandStats": "xchip.chips.train.stats_values",
    "BuildReport": "xchip.indexing.archive.report",
    "ChipDataset": "xchip.chips.train.torch_data",
    "ChipTable": "xchip.chips.chip_table",
    "ChipGrid": "xchip.core.grid",
    "Cubes": "xchip.export.cubes",
    "Explanation": "xchip.indexing.explain.explanation",
    "ExportReport": "xchip.export.report",
    "GeoTiffs": "xchip.export.geotiffs",
    "ItemError": "xchip.core.scene",
    "IterableChipDataset": "xchip.chips.train.torch_data",
    "PixelGrid": "xchip.core.grid",
    "QualityClass": "xchip.quality",
    "SensorProfile": "xchip.sensors",
    "Shards": "xchip.export.shards",
    "StorageOptions": "xchip.io.storage",
    "ZarrStore": "xchip.export.zarr_store",
    "around": "xchip.selection.layers",
    "audit": "xchip.selection.audit",
    "band_stats": "xchip.chips.train.band_stats",
    "batches": "xchip.chips.train.batches",
    "build_index": "xchip.indexing.archive.build",
    "chip_sums": "xchip.core.reduce",
    "clay_batch": "xchip.chips.train.torch_data",
    "explain_items": "xchip.indexing.explain.items",
    "export_chips": "xchip.export.exports",
    "index_items": "xchip.indexing.from_items",
    "inside": "xchip.selection.layers",
    "merge_indexes": "xchip.indexing.merge.merge",
    "open_table": "xchip.chips.chip_table",
    "open_chips": "xchip.chips.open_chips",
    "open_index": "xchip.indexing.opening.read",
    "plot": "xchip.plots.index_map",
    "prechip": "xchip.export.exports",
    "preview": "xchip.plots.sheets",
    "read_index": "xchip.indexing.opening.read",
    "sample": "xchip.selection.sample",
    "search": "xchip.stac.api.search",
    "series": "xchip.selection.series",
    "show_versions": "xchip.io.versions",
    "split": "xchip.selection.split",
    "stack": "xchip.stac.stack.stack",
    "stitch": "xchip.chips.stitch",
    "write_index": "xchip.indexing.files.write",
}
_MODULES = {
    "processors": "xchip.processors",
    "quality": "xchip.quality",
    "sensors": "xchip.sensors",
    "stacchip": "xchip.indexing.stacchip",
    "testing": "xchip.testing",
}

__all__ = [
    "AuditReport",
    "BandStats",
    "BuildReport",
    "ChipDataset",
    "ChipGrid",
    "ChipTable",
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
    "open_table",
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
    "show_versions",
    "split",
    "stacchip",
    "stack",
    "stitch",
    "write_index",
]

if TYPE_CHECKING:
    from xchip import processors, quality, sensors
    from xchip.chips.chip_table import ChipTable, open_table
    from xchip.chips.open_chips import open_chips
    from xchip.chips.stitch import stitch
    from xchip.chips.train.band_stats import band_stats
    from xchip.chips.train.batches import batches
    from xchip.chips.train.stats_values import BandStats
    from xchip.chips.train.torch_data import ChipDataset, IterableChipDataset, clay_batch
    from xchip.core.grid import ChipGrid, PixelGrid
    from xchip.core.quality import QualityClass
    from xchip.core.reduce import chip_sums
    from xchip.core.scene import ItemError
    from xchip.export.cubes import Cubes
    from xchip.export.exports import export_chips, prechip
    from xchip.export.geotiffs import GeoTiffs
    from xchip.export.report import ExportReport
    from xchip.export.shards import Shards
    from xchip.export.zarr_store import ZarrStore
    from xchip.indexing import stacchip
    from xchip.indexing.archive.build import build_index
    from xchip.indexing.archive.report import BuildReport
    from xchip.indexing.explain.explanation import Explanation
    from xchip.indexing.explain.items import explain_items
    from xchip.indexing.files.write import write_index
    from xchip.indexing.from_items import index_items
    from xchip.indexing.merge.merge import merge_indexes
    from xchip.indexing.opening.read import open_index, read_index
    from xchip.io.storage import StorageOptions
    from xchip.io.versions import show_versions
    from xchip.plots.index_map import plot
    from xchip.plots.sheets import preview
    from xchip.selection.audit import audit
    from xchip.selection.audit_report import AuditReport
    from xchip.selection.layers import around, inside
    from xchip.selection.sample import sample
    from xchip.selection.series import series
    from xchip.selection.split import split
    from xchip.sensors.profile import SensorProfile
    from xchip.stac.api.search import search
    from xchip.stac.stack.stack import stack


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name == "__version__":
        from xchip.core.version import VERSION

        return VERSION
    if name == "index":
        raise AttributeError(
            "module 'xchip' has no attribute 'index': call ds.chips.index() on an array, xchip.index_items(items) or "
            "xchip.build_index(items, path) on items, or xchip.open_index(path) or xchip.read_index(path) on an index"
        )
    if name not in _HOMES:
        raise AttributeError(f"module 'xchip' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES, "__version__"})
