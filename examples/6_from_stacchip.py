# %% [markdown]
# # Move from stacchip
#
# Each call of [stacchip](https://github.com/Clay-foundation/stacchip), and what does the same here. Chips are numbered in the
# same way, so rows and chip ids stay as they are, and its tables open as they stand. Where stacchip is installed this script
# runs both and compares them.
#
# | stacchip | xchip |
# |---|---|
# | `Sentinel2Indexer(item)`, `LandsatIndexer`, `ModisIndexer` | `xchip.index_items(item)`: the item tells the product |
# | `NoStatsChipIndexer(item)` | the same; where an item has no quality band, nodata values and masks are counted |
# | `NoDataMaskChipIndexer(item, mask)` | `xchip.stack(item).chips.index(quality=mask)`, `mask` boolean, with x and y |
# | a subclass with `get_stats` | a rule, as data: `quality=values(...)` or `bits(...)`; or `ds.chips.sums(function, ...)` |
# | `chip_size=256, chip_max_nodata=0.5` | `size=256, max_nodata=0.5` |
# | `indexer.x_size`, `y_size`, `size` | `grid = ds.chips.grid(256)`: `grid.shape`, `len(grid)` |
# | `indexer.get_chip_bbox(x, y)` | `grid.footprints()`, or the column `geometry` |
# | `indexer.create_index()` | `xchip.write_index(index, path)`, or `xchip.build_index(items, archive)` for many |
# | `Chipper(indexer, assets=[...]).chip(x, y)` | `xchip.stack(item, [...]).chips.isel(chip_y=y, chip_x=x)` |
# | `for x, y, chip in Chipper(indexer)` | `xchip.batches(index, 64, [...])`, or `xchip.open_chips(index, [...])` |
# | `load_indexer_s3(bucket, platform, item_id)` | `xchip.open_chips(index)`: the index leads to the items |
# | a merge of many tables, by hand | `xchip.merge_indexes([...], "all.parquet")`: stacchip's tables, ours, or both |
# | `stacchip-sentinel-2`, `-landsat`, `-naip`, `-linz`, `-modis`, `-sentinel-1` | `xchip sentinel-2`, `landsat`, ... |
# | `stacchip-prechip`, `stacchip-stats` | `xchip prechip`, `xchip stats` |

# %%
from xchip.testing import write_scene

item = write_scene("xchip-demo/stacchip", shape=(1024, 1024))  # the path or URL of an item
folder = "xchip-demo/stacchip"

# %% [markdown]
# **Index.** stacchip's share of cloud is cloud, shadow and defective pixels of all pixels. Ours are a column each, of the
# valid pixels; `schema="stacchip"` writes stacchip's columns with stacchip's meaning, for programs that read them.

# %%
import numpy as np

import xchip

index = xchip.index_items(item, size=256, max_nodata=0.5)
path = xchip.write_index(index, f"{folder}/index.parquet")
table_of_ours = xchip.write_index(index, f"{folder}/in-stacchips-columns.parquet", schema="stacchip")

# %% [markdown]
# **The same with stacchip.** It asks for `proj:epsg`, which pystac renames, hence `migrate=False`.

# %%
try:
    from stacchip.chipper import Chipper
    from stacchip.indexer import Sentinel2Indexer
except ImportError:
    Chipper = None
    print("stacchip is not installed, so the table that xchip wrote in stacchip's columns stands for one of stacchip's")
    theirs = table_of_ours
else:
    import pystac
    from geoarrow.pyarrow import io

    document = pystac.StacIO.default().read_json(str(item))
    if "proj:code" in document["properties"]:
        document["properties"]["proj:epsg"] = int(document["properties"]["proj:code"].removeprefix("EPSG:"))
    known = pystac.Item.from_dict(document, href=str(item), migrate=False)
    known.make_asset_hrefs_absolute()
    indexer = Sentinel2Indexer(known, chip_size=256, chip_max_nodata=0.5)
    theirs = f"{folder}/index_of_stacchip.parquet"
    io.write_geoparquet_table(indexer.create_index(), theirs)

# %% [markdown]
# **Its tables open as they are**, one or many: the same columns as ours. What they do not tell is null.

# %%
old, new = xchip.read_index(theirs, chip_size=256), xchip.read_index(path)
print(old[["chip_id", "nodata_fraction", "cloud_fraction", "shadow_fraction"]].head(3).round(3).to_string(index=False))
assert old.chip_id.tolist() == new.chip_id.tolist()
valid = new.nodata_fraction < 1
cloudy = new.cloud_fraction + new.shadow_fraction + new.defective_fraction
np.testing.assert_allclose(old.nodata_fraction, new.nodata_fraction, atol=1e-6)
np.testing.assert_allclose(old.cloud_fraction[valid], cloudy[valid], atol=1e-5)
print(f"{len(new)} chips: the same ids, the same nodata, the same cloud")

# %% [markdown]
# **One chip**, by its place. A band of 20 m is repeated to 10 m in both.

# %%
one = xchip.stack(item, ["red", "scl"]).isel(time=0).chips.isel(chip_y=1, chip_x=2, size=256).load()
print(dict(one.sizes), one.red.dtype)
if Chipper is not None:
    chip = Chipper(indexer, assets=["red", "scl"]).chip(x=2, y=1)
    assert all((chip[name][0] == one[name].values).all() for name in chip)
    print("the same pixels as stacchip's Chipper")

# %% [markdown]
# **Many chips**: loaded in batches, in random order, each block of a file decoded about once. stacchip's tables do not say
# where the item is, so give it: `items=`. Ours say it themselves.

# %%
for batch in xchip.batches(old, ["red", "nir"], batch_size=8, items=item):
    print(dict(batch.sizes), batch.chip_id.values[:2])
