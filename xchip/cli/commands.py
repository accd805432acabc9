"""The list of commands, with the module of each, which is loaded when the command is used.

Summaries and examples are kept here so that ``xchip --help`` loads no command; a test compares the summaries.
"""

from __future__ import annotations

from typing import NamedTuple


class CommandEntry(NamedTuple):
    """A command in the list of ``xchip --help``."""

    module: str
    """The module in `xchip.cli` that defines the command, or builds it (``processors``)."""
    summary: str
    """First sentence of the command's help."""
    example: str
    """A command line to copy; a test parses it."""


SECTIONS: dict[str, dict[str, CommandEntry]] = {
    "Start": {
        "demo": CommandEntry(
            "demo",
            "Write synthetic scenes, index them, and draw the index.",
            "xchip demo --scenes 6 -o xchip-demo",
        ),
        "info": CommandEntry(
            "info",
            "Show how xchip reads items and where each fact comes from, or why it can't read them.",
            "xchip info scene.json",
        ),
        "index": CommandEntry(
            "index",
            "Index STAC items into an archive: the JSON and a GeoParquet file of chips for each item.",
            "xchip index scenes/*.json -o archive/ --size 256 --max-nodata 0.5",
        ),
        "versions": CommandEntry(
            "versions",
            "Print versions of xchip, its libraries and the system, for a bug report.",
            "xchip versions",
        ),
    },
    "Archives and indexes": {
        "status": CommandEntry(
            "archive",
            "Show the contents of an archive, and which items failed and why.",
            "xchip status archive/ --failures",
        ),
        "verify": CommandEntry(
            "archive",
            "Check that every part of an archive is complete, readable, and consistent with its item.",
            "xchip verify archive/ --deep",
        ),
        "merge": CommandEntry(
            "archive",
            "Merge archives and indexes into one index that is fast to search by location.",
            "xchip merge archive/ other/ -o all.parquet",
        ),
    },
    "Pictures": {
        "plot": CommandEntry(
            "pictures",
            "Draw a map of an index: each chip in the colour of a column.",
            "xchip plot archive/ -o map.png --column cloud_fraction",
        ),
        "preview": CommandEntry(
            "pictures",
            "Draw a sheet of random chips of an index, with the cloud fraction below each chip.",
            "xchip preview archive/ -o sheet.png --n 24 --filter 'cloud_fraction<=0.1'",
        ),
    },
    "Select chips": {
        "sample": CommandEntry(
            "select",
            "Draw chips of an index, without replacement.",
            "xchip sample archive/ -n 1000 -o some.parquet --by item_id --balanced",
        ),
        "split": CommandEntry(
            "select",
            "Split an index into separate chips for training, validation and test.",
            "xchip split archive/ -o parts.parquet --share train=0.8 --share test=0.2 --buffer-km 5",
        ),
        "audit": CommandEntry(
            "select",
            "Measure how far apart the splits of an index are.",
            "xchip audit parts.parquet --buffer-km 5 --json audit.json",
        ),
        "series": CommandEntry(
            "series",
            "Join the chips of each place into a sequence of dates.",
            "xchip series archive/ -o series.parquet --window month",
        ),
    },
    "Export chips": {
        "prechip": CommandEntry(
            "export",
            "Write shuffled npz cubes of chips, the training data of the Clay model.",
            "xchip prechip archive/ -o cubes/ --max-nodata 0.05 --max-cloud 0.1",
        ),
        "export": CommandEntry(
            "export",
            "Write the chips of an index as files: npz cubes, one Zarr store, tar shards for webdataset, or GeoTIFFs.",
            "xchip export archive/ -o chips/ --format tif --assets red,green,blue",
        ),
        "stats": CommandEntry(
            "stats",
            "Compute mean, standard deviation and range of each band over the chips without nodata of an index, or over cubes.",
            "xchip stats archive/ -o stats.yaml",
        ),
    },
    "Processors: from a data source to an archive": {
        "sentinel-2": CommandEntry(
            "processors",
            "Index Sentinel-2 L2A scenes, an MGRS tile at a time.",
            "xchip sentinel-2 --source mgrs.gpkg --index 17 -o s3://bucket/archive",
        ),
        "landsat": CommandEntry(
            "processors",
            "Index Landsat 8 and 9 scenes of both levels, a place at a time.",
            "xchip landsat --source places.gpkg --index 17 -o s3://bucket/archive",
        ),
        "naip": CommandEntry(
            "processors",
            "Index NAIP aerial photographs of the United States, a place at a time.",
            "xchip naip --source places.gpkg --index 17 -o s3://bucket/archive",
        ),
        "linz": CommandEntry(
            "processors",
            "Index New Zealand's open aerial imagery, a survey at a time.",
            "xchip linz --index 0 -o s3://bucket/archive",
        ),
        "modis": CommandEntry(
            "processors",
            "Index MODIS surface reflectance (MOD09A1 v6.1), a tile of the sinusoidal grid at a time.",
            "xchip modis --index 12 -o s3://bucket/archive",
        ),
        "sentinel-1": CommandEntry(
            "processors",
            "Index terrain-corrected Sentinel-1 scenes (RTC), an MGRS tile at a time.",
            "xchip sentinel-1 --source mgrs.gpkg --index 17 -o s3://bucket/archive",
        ),
        "sample-places": CommandEntry(
            "sample_places",
            "Make a layer of places to search for scenes, the input of `xchip naip` and `xchip landsat`.",
            "xchip sample-places --places airports.shp --random 4000 --region=-125,24,-66,50 -o places.gpkg",
        ),
        "linz-surveys": CommandEntry(
            "sample_places",
            "List the latest survey of each region of New Zealand, for `xchip linz --surveys`.",
            "xchip linz-surveys -o surveys.txt",
        ),
    },
}
"""Commands of each section, in the order of the help."""

ENTRIES = {name: entry for entries in SECTIONS.values() for name, entry in entries.items()}
"""All commands by name."""
