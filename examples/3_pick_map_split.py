# %% [markdown]
# # Pick, map and split
#
# An index is a table, so you can choose chips by place and quality before any image is read. Then split them for training and
# testing so that neighbours do not end up on both sides.

# %%
from xchip.testing import write_scene

skies = [(1, 0.1), (2, 0.4), (3, 0.2)]
items = [write_scene("xchip-demo/pick/scenes", item_id=f"synthetic-{n}", seed=n, place=7, clouds=sky) for n, sky in skies]
folder = "xchip-demo/pick"  # where results go; items may be paths or URLs, or an xchip.search

# %%
import geopandas
import shapely

import xchip

path = xchip.write_index(xchip.index_items(items, size=128), f"{folder}/index.parquet")

# %% [markdown]
# **Choose by quality and place.** Filters skip the parts of the file that can't match. An area may come from any layer.

# %%
rows = xchip.read_index(path, filters=[("nodata_fraction", "==", 0), ("cloud_fraction", "<", 0.2)])
west, south, east, north = rows.total_bounds
area = geopandas.GeoSeries([shapely.box(west, south, (west + east) / 2, north)], crs="EPSG:4326")  # any polygon
print(f"{len(rows)} chips are nearly clear, {rows.intersects(area.union_all()).sum()} of them lie in the western half")

# %% [markdown]
# **Keep the best day of each place.** All scenes share one grid, so a position in the grid is a place.

# %%
best = rows.sort_values("clear_fraction").drop_duplicates(["chip_index_x", "chip_index_y"], keep="last")
print(best.item_id.value_counts().sort_index().to_string())

# %% [markdown]
# **Draw a sample** with the same number of chips of each day. The same seed draws the same sample.

# %%
few = xchip.sample(best, 60, by="item_id", balanced=True, seed=1)
print(few.item_id.value_counts().sort_index().to_string())

# %% [markdown]
# **Split** into training, validation and test. `split` draws whole blocks of land, and sets chips within `buffer_km` of
# another split aside. `audit` measures the distances. Real archives are larger: leave `block_km` at 50.

# %%
parts = xchip.split(best, {"train": 0.7, "val": 0.15, "test": 0.15}, block_km=5, buffer_km=0.2, seed=3)
print(parts["split"].value_counts().to_string())
report = xchip.audit(parts, buffer_km=0.2)
print(report)
assert report.ok

# %% [markdown]
# **Draw maps** of the chosen chips and of their splits.

# %%
xchip.write_index(parts, f"{folder}/parts.parquet")
try:
    xchip.plot(best, "clear_fraction", outline=None).figure.savefig(f"{folder}/best.png", dpi=110)
    xchip.plot(parts, "split").figure.savefig(f"{folder}/split.png", dpi=110)
    xchip.preview(parts[parts["split"] == "test"], n=12, columns=4).savefig(f"{folder}/test.png", dpi=110)
    print(f"see {folder}/best.png, {folder}/split.png and {folder}/test.png")
except ImportError as error:
    print(error)
