# %% [markdown]
# # Index one scene
#
# From one STAC item to a table of its chips, and from the table to pixels. The first two lines make a synthetic scene and
# download nothing; change them to use your own.

# %%
from xchip.testing import write_scene

item = write_scene("xchip-demo/one-scene", shape=(2048, 2048))  # or the path or URL of an item's JSON, or an item of xchip.search
folder = "xchip-demo/one-scene"  # where results go

# %% [markdown]
# **Index.** One row for each chip of 256 x 256 pixels. The index is lazy; writing it reads only the quality band of the scene.

# %%
import xchip

path = xchip.write_index(xchip.index_items(item, size=256), f"{folder}/index.parquet")
rows = xchip.read_index(path)
print(rows[["chip_id", "nodata_fraction", "cloud_fraction", "water_fraction"]].round(3).to_string(max_rows=8))

# %% [markdown]
# **Choose.** The index is a GeoDataFrame; filter it with pandas.

# %%
clear = rows[(rows.nodata_fraction == 0) & (rows.cloud_fraction < 0.1)]
print(f"{len(clear)} of {len(rows)} chips are complete and have less than 10 % cloud")

# %% [markdown]
# **Read pixels.** The chosen rows become one lazy Dataset with dims (chip, y, x) and a variable for each band. Only the chips
# that you use are read.

# %%
chips = xchip.open_chips(clear, ["red", "nir"])
red, nir = chips.red.astype("float32"), chips.nir.astype("float32")
greenness = ((nir - red) / (nir + red)).mean(["y", "x"]).compute()
greenest = greenness.isel(chip=greenness.argmax("chip"))
print(f"the greenest chip is {greenest.chip_id.item()}, mean NDVI {greenest.item():.2f}")

# %% [markdown]
# **Draw.** A map of the index and a sheet of chips. Pictures need `pip install 'xchip[plot]'`.

# %%
try:
    xchip.plot(rows).figure.savefig(f"{folder}/cloud.png", dpi=110)
    xchip.preview(clear, n=12, columns=4).savefig(f"{folder}/clear.png", dpi=110)
    print(f"see {folder}/cloud.png and {folder}/clear.png")
except ImportError as error:
    print(error)
