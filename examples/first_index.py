"""A first index: synthetic scenes in, clear chips out. Run it with ``python examples/first_index.py``; it takes half a minute.

For scenes of your own, put the paths or URLs of their STAC items in ``items``.
"""

from __future__ import annotations

from pathlib import Path

import geopandas

import xchip
from xchip.testing import write_scene

FOLDER = Path("xchip-demo/first-index")


def main() -> None:
    # Two skies over one place, 1024 x 1024 pixels each.
    items = [
        write_scene(FOLDER / "scenes", item_id="synthetic-may", seed=1, shape=(1024, 1024), datetime="2024-05-02T14:36:00Z"),
        write_scene(FOLDER / "scenes", item_id="synthetic-june", seed=2, shape=(1024, 1024), datetime="2024-06-01T14:36:00Z"),
    ]

    # One row a chip; no image band is read for it.
    index = xchip.index_items(items, size=128, max_nodata=0.0)
    path = xchip.write_index(index, str(FOLDER / "index.parquet"))
    rows = geopandas.read_parquet(path)
    print(rows[["chip_id", "cloud_fraction", "water_fraction", "clear_fraction"]].round(3).to_string(max_rows=8))

    # For each place, the day on which it is clearest.
    best = rows.sort_values("clear_fraction").drop_duplicates(["chip_index_x", "chip_index_y"], keep="last")

    # Pixels of those chips alone.
    ds = xchip.stack(items, assets=["red", "nir"])
    chips = ds.chips.extract(best).astype("float32")
    greenness = ((chips.nir - chips.red) / (chips.nir + chips.red)).mean(["y", "x"]).compute()
    greenest = greenness.isel(chip=greenness.argmax("chip"))
    print(f"{len(best)} places; the greenest chip is {greenest.chip_id.item()}, mean NDVI {greenest.item():.2f}")


if __name__ == "__main__":
    main()
