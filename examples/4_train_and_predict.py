# %% [markdown]
# # Train a model, and put its predictions on the map
#
# A small network learns to tell land, water, cloud, shadow and snow from four bands. It learns from the scene classification,
# which has a class for each pixel. It is tested on a scene that it has never seen, and maps it. This takes a minute on two
# cores.
#
# It needs `pip install 'xchip[torch,plot]'`.

# %%
import sys

try:
    import torch
    from torch import nn
except ImportError:
    print("this example trains with PyTorch, which is not installed: pip install 'xchip[torch,plot]'")
    sys.exit()

# %%
from xchip.testing import write_scene

items = [  # paths or URLs of items of Sentinel-2 L2A, or a list of what xchip.search finds; the last one is for the test
    write_scene("xchip-demo/train/scenes", item_id=f"synthetic-{n}", seed=n, place=n, shape=(640, 640), nodata=0.0)
    for n in range(8)
]
folder = "xchip-demo/train"

# %% [markdown]
# **Choose chips**: complete ones, from all scenes but the last.

# %%
import xchip

archive = xchip.build_index(items, f"{folder}/archive", 128, max_nodata=0.0, progress=False).path
rows = xchip.read_index(archive)
scene = xchip.stack(items[-1]).isel(time=0)
unseen = scene.item_id.item()
training = rows[rows.item_id != unseen]
print(f"{len(training)} chips of {training.item_id.nunique()} scenes to learn from; {unseen} is for the test")

# %% [markdown]
# **Read batches.** `transform` makes samples of them: four bands as reflectance, and the class of each pixel. The quality rule
# of the product turns its codes into xchip's classes.

# %%
import numpy as np
from torch.utils.data import DataLoader

from xchip import IterableChipDataset, QualityClass, sensors

BANDS = ["blue", "green", "red", "nir"]
CLASSES = [QualityClass.CLEAR, QualityClass.WATER, QualityClass.CLOUD, QualityClass.SHADOW, QualityClass.SNOW]
NAMES = ["land", "water", "cloud", "shadow", "snow"]

(rule,) = sensors.find("sentinel-2-l2a").quality
OTHER = -1  # nodata and defective pixels, which teach nothing
numbers = np.full(len(QualityClass), OTHER)
numbers[CLASSES] = range(len(CLASSES))
class_of_scl = torch.from_numpy(numbers[rule.codes(np.arange(256, dtype="uint8"))])


def sample(batch):
    image = batch["image"]  # (chip, band, y, x), float32
    return image[:, :4] / 10_000, class_of_scl[image[:, 4].long()]


dataset = IterableChipDataset(training, [*BANDS, "scl"], batch_size=16, keys="torchgeo", transform=sample, seed=1)
loader = DataLoader(dataset, batch_size=None)

# %% [markdown]
# **Train the model**, a small U-Net. The classification has pixels of 20 m, so the model works at 20 m and repeats its output
# to 10 m.

# %%
torch.manual_seed(0)


def convolution(channels, out, stride=1):
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, padding=1), nn.BatchNorm2d(out), nn.ReLU())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fine, self.middle, self.coarse = convolution(4, 16, 2), convolution(16, 32, 2), convolution(32, 64, 2)
        self.middle_up, self.fine_up = convolution(64, 32), convolution(32, 16)
        self.head = nn.Conv2d(16, len(CLASSES), 1)

    def forward(self, image):
        fine = self.fine(image)
        middle = self.middle(fine)
        middle = middle + twice(self.middle_up(self.coarse(middle)))
        return twice(self.head(fine + twice(self.fine_up(middle))))


def twice(image):
    return nn.functional.interpolate(image, scale_factor=2)


model = Net()
weights = sum(p.numel() for p in model.parameters())
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
EPOCHS = 10
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs=EPOCHS, steps_per_epoch=-(-len(training) // 16))
print(f"{weights:,} weights")

for epoch in range(EPOCHS):
    dataset.set_epoch(epoch)
    losses = []
    for image, target in loader:
        loss = nn.functional.cross_entropy(model(image), target, ignore_index=OTHER)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    print(f"epoch {epoch + 1}: mean loss {np.mean(losses):.3f}")

# %% [markdown]
# **Map the unseen scene.** `ds.chips.map` cuts the scene into overlapping chips, calls the model, and stitches its
# predictions. Weights fade towards the border of each chip, so that there are no seams. The map is lazy, and memory does not
# grow with the scene.

# %%
model.eval()


def predict(chips):  # (chip, band, y, x) as stored -> (chip, class, y, x)
    with torch.no_grad():
        return model(torch.from_numpy(chips.astype("float32") / 10_000)).softmax(1).numpy()


probability = scene.chips.map(predict, 128, stride=96, bands=BANDS, overlap="taper")
found = probability.argmax("class").astype("uint8").compute()

# %% [markdown]
# **Measure accuracy** over all valid pixels of the unseen scene, and compare it with always predicting the most frequent
# class. For rare classes, intersection over union says more.

# %%
truth = numbers[rule.codes(scene.scl.values)]
valid = truth != OTHER
confusion = np.zeros((len(NAMES), len(NAMES)), int)
np.add.at(confusion, (truth[valid], found.values[valid]), 1)
right = confusion.diagonal()
commonest = confusion.sum(1).max() / confusion.sum()
print(f"accuracy {right.sum() / confusion.sum():.3f}, by the most frequent class alone {commonest:.3f}")
for name, hits, true, said in zip(NAMES, right, confusion.sum(1), confusion.sum(0), strict=True):
    print(f"  {name:7} {true / confusion.sum():6.1%} of the pixels, intersection over union {hits / (true + said - hits):.2f}")

# %% [markdown]
# **Draw** the scene, its classification and the prediction, and write a GeoTIFF for a GIS.

# %%
found.rio.write_crs(scene.rio.crs).rio.to_raster(f"{folder}/prediction.tif", compress="deflate")
try:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
except ImportError:
    print("pictures need matplotlib: pip install 'xchip[plot]'")
else:
    colours = ["#8a9a5b", "#2c7fb8", "#f0f0f0", "#4d4d4d", "#7fdbff"]
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    image = scene[["red", "green", "blue"]].to_array().transpose("y", "x", "variable").values
    left.imshow(np.clip(image / 3500, 0, 1) ** 0.7)
    for axes, classes in ((middle, np.ma.masked_equal(truth, OTHER)), (right, np.ma.masked_where(~valid, found))):
        axes.imshow(classes, ListedColormap(colours), vmin=0, vmax=len(NAMES) - 1, interpolation="nearest")
    for axes, title in ((left, f"{unseen}, red, green, blue"), (middle, "scene classification"), (right, "prediction")):
        axes.set_title(title)
        axes.set_axis_off()
    patches = [Patch(facecolor=colour, edgecolor="grey", label=name) for colour, name in zip(colours, NAMES, strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(NAMES), frameon=False)
    figure.savefig(f"{folder}/prediction.png", dpi=110)
    print(f"see {folder}/prediction.png and {folder}/prediction.tif")
