# %% [markdown]
# # Move from stacchip
#
# The same index and pixels from [stacchip](https://github.com/Clay-foundation/stacchip) and xchip. Both number chips the same
# way, so rows and chip ids stay as they are, and xchip opens stacchip's tables unchanged. If stacchip is installed, this
# script runs both and compares them. A table of all calls is on the page [Moving from
# stacchip](../.docs/pages/moving-from-stacchip.md#calls).

# %%
from xchip.testing import write_scene

item = write_scene("xchip-demo/stacchip", shape=(1024, 1024))  # the path or URL of an item
folder = "xchip-demo/stacchip"

# %% [markdown]
# **Index.** The cloud fraction of stacchip counts cloud, shadow and defective pixels, as a fraction of all pixels. xchip has a
# column for each class, as fractions of the valid pixels. `schema="stacchip"` writes stacchip's columns with their meaning
# there.

# %%
import numpy as np

import xchip

index = xchip.index_items(item, size=256, max_nodata=0.5)
path = xchip.write_index(index, f"{folder}/index.parquet")
table_of_ours = xchip.write_index(index, f"{folder}/in-stacchips-columns.parquet", schema="stacchip")

# %% [markdown]
# **The same with stacchip.** It needs `proj:epsg`, which pystac renames unless `migrate=False`.

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
# **Open a table of stacchip.** It gets the columns of xchip; what it does not contain is null.

# %%
old, new = xchip.stacchip.read_index(theirs, chip_size=256), xchip.read_index(path)
print(old[["chip_id", "nodata_fraction", "cloud_fraction", "shadow_fraction"]].head(3).round(3).to_string(index=False))
assert old.chip_id.tolist() == new.chip_id.tolist()
valid = new.nodata_fraction < 1
cloudy = new.cloud_fraction + new.shadow_fraction + new.defective_fraction
np.testing.assert_allclose(old.nodata_fraction, new.nodata_fraction, atol=1e-6)
np.testing.assert_allclose(old.cloud_fraction[valid], cloudy[valid], atol=1e-5)
print(f"{len(new)} chips: the same ids, the same nodata, the same cloud")

# %% [markdown]
# **Read one chip**, by its position. Both repeat a 20 m band to 10 m.

# %%
one = xchip.stack(item, ["red", "scl"]).isel(time=0).chips.isel(chip_y=1, chip_x=2, size=256).load()
print(dict(one.sizes), one.red.dtype)
if Chipper is not None:
    chip = Chipper(indexer, assets=["red", "scl"]).chip(x=2, y=1)
    assert all((chip[name][0] == one[name].values).all() for name in chip)
    print("the same pixels as stacchip's Chipper")

# %% [markdown]
# **Read many chips** in random batches; each block of a file is decoded about once. Tables of stacchip do not say where the
# item is, so pass `items=`. Those of xchip do.

# %%
for batch in xchip.batches(old, ["red", "nir"], batch_size=8, items=item):
    print(dict(batch.sizes), batch.chip_id.values[:2])
