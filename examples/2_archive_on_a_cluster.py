# %% [markdown]
# # An archive on a cluster
#
# Many scenes become an archive: the JSON of each item, its part of the index, and a ledger of what is done. Each item is one task
# of a Dask cluster. Here one scene is damaged and repaired later, to show how a second run resumes.

# %%
from xchip.testing import write_scene

if __name__ == "__main__":  # Dask's workers import this file, and must not run it
    items = [write_scene("xchip-demo/cluster/scenes", item_id=f"synthetic-{n}", seed=n, shape=(512, 512)) for n in range(6)]
    archive = "xchip-demo/cluster/archive"  # or s3://bucket/archive; items may be a search, an iterator, a stac-geoparquet file

# %% [markdown]
# **Damage a scene**: its quality band ends too early. Leave this cell out for live data.

# %%
from pathlib import Path

if __name__ == "__main__":
    damaged = Path(items[2]).with_name("SCL.tif")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])

# %% [markdown]
# **Build the archive** on a cluster of two processes. `local_cluster` sets their memory so that rasters are read fast. To use
# another cluster, connect a `distributed.Client`, or pass `client="tcp://host:8786"`.

# %%
from xchip import build_index, read_index
from xchip.io.cluster import local_cluster

if __name__ == "__main__":
    with local_cluster(2) as client:
        print(build_index(items, archive, 128, client=client, attempts=2, progress=False))

# %% [markdown]
# **Repair the file.** Leave this cell out too.

# %%
if __name__ == "__main__":
    damaged.write_bytes(whole)

# %% [markdown]
# **Run again.** Finished items are skipped; failed, missing and changed ones are done.

# %%
if __name__ == "__main__":
    with local_cluster(2) as client:
        print(build_index(items, archive, 128, client=client, attempts=2, progress=False))

# %% [markdown]
# **Query the archive.** Only the files and row groups that can hold rows of the answer are read.

# %%
if __name__ == "__main__":
    rows = read_index(archive, filters=[("cloud_fraction", "<=", 0.1)])
    print(f"{len(rows)} chips of {rows.item_id.nunique()} scenes have at most 10 % cloud")
