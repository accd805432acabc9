"""Split and audit of many invented chips: time and memory. README.md says how to run it.

The chips are those of Sentinel-2: tiles of 42 x 42, side by side and overlapping by a tenth of a degree, each on three dates.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

AIM_SPLIT, AIM_AUDIT, AIM_GIB = 60.0, 120.0, 6.0

RUN = """
import sys, time
import geopandas, numpy as np, pandas as pd, shapely
import xchip
from xchip.selection.audit import audit
from xchip.selection.sample import sample
from xchip.selection.split import split

rows, dates, side = int(sys.argv[1]), int(sys.argv[2]), 42
tiles = -(-rows // (side * side * dates))
tile = np.repeat(np.arange(tiles), side * side)
y, x = (np.tile(axis.ravel(), tiles) for axis in np.mgrid[:side, :side])
across = int(np.ceil(np.sqrt(2 * tiles)))
lat = -60 + 120 * (tile // across) / max(-(-tiles // across), 1) + 0.023 * y
lon = -170 + 340 * (tile % across) / across + 0.04 * x
shapes = shapely.box(lon, lat, lon + 0.04, lat + 0.023)
geometry = np.tile(shapes, dates)
date = np.repeat(np.arange(dates), len(tile))
item = np.tile(tile, dates) * dates + date
frame = geopandas.GeoDataFrame(
    {
        "chip_id": pd.array(
            [f"S2A_{i:09d}-{a}-{b}" for i, a, b in zip(item, np.tile(x, dates), np.tile(y, dates))],
            "string[pyarrow]",
        ),
        "item_id": pd.array([f"S2A_{i:09d}" for i in item], "string[pyarrow]"),
        "datetime": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(date * 10, "D"),
        "cloud_fraction": np.random.default_rng(0).random(len(item)),
    },
    geometry=geopandas.array.GeometryArray(geometry, crs="EPSG:4326"),
)
del shapes, geometry, lat, lon, item, date, tile, x, y

def timed(name, call):
    start = time.perf_counter()
    value = call()
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(name, time.perf_counter() - start, int(peak.split()[1]) / 2**20, sep="\\t", flush=True)
    return value

print("chips", len(frame), 0, sep="\\t")
parts = timed("split by block", lambda: split(frame, block_km=100, buffer_km=5))
report = timed("audit", lambda: audit(parts, 5))
print(report, file=sys.stderr)
if not report.ok:
    print("WRONG: a leak", 0, 0, sep="\\t")
timed("sample", lambda: sample(frame, 10_000, weights="cloud_fraction"))
parts["split"] = np.random.default_rng(1).choice(["train", "val", "test"], len(parts))
report = timed("audit of a random split", lambda: audit(parts, 5))
if report.ok:
    print("WRONG: no leak", 0, 0, sep="\\t")
parts = timed("split by time", lambda: split(frame, {"train": 0.7, "test": 0.3}, by="time", gap="5D"))
report = timed("audit by time", lambda: audit(parts, 5, gap="5D"))
if not report.ok:
    print("WRONG: a leak in time", 0, 0, sep="\\t")
parts = timed("split by item", lambda: split(frame, by="item_id"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dates", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "run.py"
        script.write_text(RUN)
        done = subprocess.run(
            [sys.executable, script, str(options.rows), str(options.dates)], check=True, stdout=subprocess.PIPE, text=True
        )
    aims = {"split by block": AIM_SPLIT, "audit": AIM_AUDIT}
    for line in done.stdout.splitlines():
        name, number, gib = line.split("\t")
        seconds, peak = float(number), float(gib)
        missed = "  << misses the aim" if seconds > aims.get(name, float("inf")) or peak > AIM_GIB else ""
        print(f"{name:24} {seconds:14,.1f}" + (f" s, peak {peak:.1f} GiB{missed}" if peak else ""))


if __name__ == "__main__":
    main()
