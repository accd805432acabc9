# %% [markdown]
# # Add a sensor
#
# A sensor is a row of data: its bands, and what the values of its quality band mean. The sensor of this example is a drone. Its
# photographs are a file with four bands and a mask.

# %%
item = "xchip-demo/drone/synthetic-flight.json"  # the path or URL of an item
folder = "xchip-demo/drone"

# %% [markdown]
# **Write files of the drone.** Leave this cell out for live data.

# %%
import json
from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp

Path(folder).mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
photo = rng.integers(1, 255, (4, 600, 800), dtype="uint8")
mask = np.full((1, 600, 800), 1, "uint8")  # 0: outside of the flight, 1: good, 2: cloud, 3: blurred
mask[:, :, 700:] = 0
mask[:, 100:300, 100:300] = 2
mask[:, 400:, :200] = 3
form = {"driver": "GTiff", "height": 600, "width": 800, "dtype": "uint8", "crs": "EPSG:32719", "tiled": True}
place = rasterio.transform.from_origin(350000, 6300000, 0.05, 0.05)
for name, values in {"photo": photo, "mask": mask}.items():
    with rasterio.open(f"{folder}/{name}.tif", "w", count=len(values), transform=place, **form) as file:
        file.write(values)

west, south, east, north = rasterio.warp.transform_bounds("EPSG:32719", "EPSG:4326", *file.bounds)
corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
Path(item).write_text(
    json.dumps(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "synthetic-flight",
            "collection": "flights",
            "bbox": [west, south, east, north],
            "geometry": {"type": "Polygon", "coordinates": [corners]},
            "properties": {"datetime": "2024-05-01T12:00:00Z"},
            "assets": {"photo": {"href": "photo.tif", "roles": ["data"]}, "mask": {"href": "mask.tif"}},
            "links": [],
        }
    )
)

# %% [markdown]
# **Describe the sensor.** Bands with the same `keys` are in one file, and `index` is the number of the band in the file. The
# rule names a class for each value of the mask; use `bits` for bit flags. Values that the rule does not name are clear.

# %%
import xchip
from xchip import sensors
from xchip.quality import CLOUD, DEFECTIVE, NODATA, values
from xchip.sensors import BandSpec, SensorProfile

colours = [BandSpec(name, keys=("photo",), index=n) for n, name in enumerate(("red", "green", "blue", "nir"), start=1)]
drone = SensorProfile(
    "our-drone",
    bands=(*colours, BandSpec("mask", default=False)),
    quality=(values("mask", {NODATA: [0], CLOUD: [2], DEFECTIVE: [3]}, source="flight manual, table 3"),),
    collections=("flights",),
)

# %% [markdown]
# **Register it.** Its items are then recognised by their collection. Or pass `sensor=drone` to each call.

# %%
sensors.register(drone)
rows = xchip.index_items(item, size=200).compute()
print(rows[["chip_id", "sensor", "nodata_fraction", "defective_fraction", "cloud_fraction"]].to_string(index=False))

chips = xchip.open_chips(xchip.read_index(xchip.write_index(rows, f"{folder}/index.parquet")), ["red", "nir"])
print(dict(chips.sizes), {name: str(band.dtype) for name, band in chips.data_vars.items()})

# %% [markdown]
# Do others use the product too? Contribute its profile to `xchip/sensors/table.py`: a row of data that cites the product guide.
# Items with the classification extension need no profile, because they bring their own rule; `xchip info ITEM` shows it.
