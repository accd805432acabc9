"""One use of each command, as its help shows it."""

from __future__ import annotations

EXAMPLES = {
    "demo": "xchip demo --scenes 6 -o xchip-demo",
    "info": "xchip info scene.json",
    "index": "xchip index scenes/*.json -o archive/ --size 256 --max-nodata 0.5",
    "versions": "xchip versions",
    "status": "xchip status archive/ --failures",
    "verify": "xchip verify archive/ --deep",
    "merge": "xchip merge archive/ other/ -o all.parquet",
    "plot": "xchip plot archive/ -o map.png --column cloud_fraction",
    "preview": "xchip preview archive/ -o sheet.png --n 24 --filter 'cloud_fraction<=0.1'",
    "sample": "xchip sample archive/ -n 1000 -o some.parquet --by item_id --balanced",
    "split": "xchip split archive/ -o parts.parquet --share train=0.8 --share test=0.2 --buffer-km 5",
    "audit": "xchip audit parts.parquet --buffer-km 5 --json audit.json",
    "series": "xchip series archive/ -o series.parquet --window month",
    "prechip": "xchip prechip archive/ -o cubes/ --max-nodata 0.05 --max-cloud 0.1",
    "export": "xchip export archive/ -o chips/ --format tif --assets red,green,blue",
    "stats": "xchip stats archive/ -o stats.yaml",
    "sentinel-2": "xchip sentinel-2 --source mgrs.gpkg --index 17 -o s3://bucket/archive",
    "landsat": "xchip landsat --source places.gpkg --index 17 -o s3://bucket/archive",
    "naip": "xchip naip --source places.gpkg --index 17 -o s3://bucket/archive",
    "linz": "xchip linz --index 0 -o s3://bucket/archive",
    "modis": "xchip modis --index 12 -o s3://bucket/archive",
    "sentinel-1": "xchip sentinel-1 --source mgrs.gpkg --index 17 -o s3://bucket/archive",
    "sample-places": "xchip sample-places --places airports.shp --random 4000 --region=-125,24,-66,50 -o places.gpkg",
    "linz-surveys": "xchip linz-surveys -o surveys.txt",
}
"""Name of a command -> a line to copy. A test parses each."""
