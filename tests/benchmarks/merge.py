"""A merged index of many rows: time and memory of the merge, and what a query reads. README.md says how to run it.

The index is invented: tiles of 42 x 42 chips, as Sentinel-2 has them, side by side in all zones, on three dates each, shuffled
into 100 files.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIDE, METRES, DATES = 42, 2560, 3
CHIPS = SIDE * SIDE
GRID = {"size": [256, 256], "stride": [256, 256], "edge": "drop", "anchor": "origin"}
AIM_SHARE, AIM_SECONDS, AIM_RSS_MIB = 0.02, 2.0, 2048
QUERIES = {"1 degree": (31, 1.0), "2 degrees": (100, 2.0)}
"""The tile in whose middle a box is, and the box's width and height."""
MAX_CLOUD = 0.1


def squares(west: np.ndarray, south: np.ndarray, east: np.ndarray, north: np.ndarray) -> pa.Array:
    """WKB of boxes, 93 bytes each."""
    record = np.zeros(
        len(west), np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", 10)])
    )
    record["order"], record["type"], record["rings"], record["points"] = 1, 3, 1, 5
    record["xy"] = np.stack([west, south, east, south, east, north, west, north, west, south], axis=1)
    offsets = np.arange(len(west) + 1, dtype=np.int32) * record.itemsize
    return pa.Array.from_buffers(pa.binary(), len(west), [None, pa.py_buffer(offsets), pa.py_buffer(record)])


def corner(tile: int) -> tuple[float, float]:
    """Longitude and latitude of a tile's upper left corner: six tiles side by side in each zone, in rows of a degree."""
    nth, zone = divmod(tile, 60)
    row, column = divmod(nth, 6)
    return -180.0 + 6 * zone + 0.8 * column, -45.0 + 7 * zone % 80 + row


def item(tile: int, date: int, rng: np.random.Generator) -> pa.Table:
    """The rows of one item."""
    longitude, latitude = corner(tile)
    zone = int((longitude + 180) // 6) + 1
    crs, name = f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}", f"S2A_{zone:02d}_{tile:06d}_2024-0{date + 1}-01"
    y, x = (axis.ravel().astype(np.int32) for axis in np.mgrid[:SIDE, :SIDE])
    per_y = METRES / 111_320
    per_x = per_y / math.cos(math.radians(min(abs(latitude), 70)))
    west, north = longitude + x * per_x, latitude - y * per_y
    east, south = west + per_x, north - per_y
    fractions = rng.dirichlet(np.full(6, 0.4), CHIPS).round(6).T
    left, top = 300_000.0 + x * METRES, 6_000_000.0 + 100_000.0 * (tile // 360) - y * METRES

    def same(value: Any) -> pa.Array:
        return pa.repeat(pa.scalar(value), CHIPS)

    size = np.full(CHIPS, 256, np.int32)
    names = ("defective", "cloud", "shadow", "snow", "water", "clear")
    return pa.table(
        {
            "chip_id": pa.array([f"{name}-{a}-{b}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]),
            "item_id": same(name),
            "collection": same("sentinel-2-l2a"),
            "item_href": same(f"s3://bucket/archive/items/sentinel-2-l2a/{name}/{name}.json"),
            "sensor": same("sentinel-2-l2a"),
            "datetime": pa.array(np.full(CHIPS, f"2024-0{date + 1}-01", "datetime64[us]")).cast(pa.timestamp("us", tz="UTC")),
            "chip_index_x": x,
            "chip_index_y": y,
            "col_off": x * 256,
            "row_off": y * 256,
            "width": size,
            "height": size,
            "proj_code": same(crs),
            "proj_left": left,
            "proj_bottom": top - METRES,
            "proj_right": left + METRES,
            "proj_top": top,
            "nodata_fraction": np.zeros(CHIPS),
            **{f"{key}_fraction": values for key, values in zip(names, fractions, strict=True)},
            "geometry": squares(west, south, east, north),
            "bbox": pa.StructArray.from_arrays(
                [pa.array(side) for side in (west, south, east, north)], names=["xmin", "ymin", "xmax", "ymax"]
            ),
        }
    )


def synthesise(folder: Path, rows: int, files: int) -> None:
    """Write ``rows`` rows, about, into ``files`` files."""
    rng = np.random.default_rng(0)
    tiles = math.ceil(rows / CHIPS / DATES)
    items = rng.permutation(tiles * DATES)
    for number, chosen in enumerate(np.array_split(items, files)):
        tables = [item(int(n) // DATES, int(n) % DATES, rng) for n in chosen]
        zones = {code for table in tables for code in table["proj_code"].unique().to_pylist()}
        grids = [
            {"sensor": "sentinel-2-l2a", "grid": {**GRID, "proj_code": code, "resolution": [10.0, 10.0], "phase": [0.0, 0.0]}}
            for code in sorted(zones)
        ]
        facts = {"geo": '{"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}}'}
        table = pa.concat_tables(tables).replace_schema_metadata(facts | {"xchip": json.dumps({"grids": grids})})
        pq.write_table(table, folder / f"part-{number:06d}.parquet", compression="zstd", row_group_size=CHIPS * 16)


MERGE = """
import sys, time
from xchip.indexing.merge.merge import merge_indexes
start = time.perf_counter()
merge_indexes(sys.argv[1], sys.argv[2], memory=sys.argv[3])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - start, int(peak.split()[1]) / 1024)
"""
QUERY = """
import sys, time
from xchip.indexing.opening.read import read_index
read_index(sys.argv[1], (0.0, 0.0, 0.0, 0.0))  # imports
start = time.perf_counter()
box = tuple(map(float, sys.argv[2].split(",")))
found = read_index(sys.argv[1], box, [("cloud_fraction", "<=", float(sys.argv[3]))])
print(len(found), time.perf_counter() - start)
"""


def fresh(code: str, *arguments: str) -> list[float]:
    """Numbers that ``code`` prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return [float(number) for number in done.stdout.split()]


def touched(path: Path, box: tuple[float, float, float, float]) -> tuple[int, int]:
    """(row groups that a query reads by their statistics, all of them)."""
    west, south, east, north = box
    metadata = pq.ParquetFile(path).metadata
    column = {metadata.schema.column(n).path: n for n in range(metadata.num_columns)}
    count = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        side = {name: group.column(column[f"bbox.{name}"]).statistics for name in ("xmin", "ymin", "xmax", "ymax")}
        apart = side["xmin"].min > east or side["xmax"].max < west or side["ymin"].min > north or side["ymax"].max < south
        cloudy = group.column(column["cloud_fraction"]).statistics.min > MAX_CLOUD
        count += not (apart or cloudy)
    return count, metadata.num_row_groups


def verdict(good: bool) -> str:
    """What stands behind a number that has an aim."""
    return "" if good else "  << misses the aim"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--memory", default="1 GB")
    parser.add_argument("--folder", type=Path, help="where to work; a new folder in the system's place for temporary files")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="xchip-merge-", dir=options.folder))
    try:
        source, out = folder / "source", folder / "merged.parquet"
        source.mkdir()
        start = time.perf_counter()
        synthesise(source, options.rows, options.files)
        rows = sum(pq.read_metadata(path).num_rows for path in source.iterdir())
        size = sum(path.stat().st_size for path in source.iterdir())
        print(
            f"sources        {rows:,} rows in {options.files} files, {size / 2**20:,.0f} MiB, {time.perf_counter() - start:.0f} s"
        )
        seconds, peak = fresh(MERGE, str(source), str(out), options.memory)
        print(f"merge          {seconds:.1f} s, {rows / seconds:,.0f} rows/s, {out.stat().st_size / 2**20:,.0f} MiB")
        print(f"peak RSS       {peak:,.0f} MiB{verdict(peak <= AIM_RSS_MIB)}")
        merged = pq.read_metadata(out).num_rows
        print(f"rows           {merged:,}{'' if merged == rows else '  << rows are lost'}")
        for name, (tile, degrees) in QUERIES.items():
            west, north = corner(tile)
            box = (west + 0.4, north - 0.5 - degrees, west + 0.4 + degrees, north - 0.5)
            count, groups = touched(out, box)
            found, seconds = fresh(QUERY, str(out), ",".join(map(str, box)), str(MAX_CLOUD))
            share = count / groups
            print(
                f"query {name:10s} {found:,.0f} rows; {count} of {groups} row groups ({share:.1%}){verdict(share < AIM_SHARE)}; "
                f"{seconds:.2f} s{verdict(seconds < AIM_SECONDS)}"
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
