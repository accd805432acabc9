"""Who runs in the benchmark of chips: each reads windows of one item, one chip at a time.

Heavy imports stand inside the functions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

Item = dict[str, Any]
ReadChip = Callable[[int, int], np.ndarray]
"""(chip_x, chip_y) -> (band, 256, 256)."""
SIZE = 256


@dataclass(frozen=True)
class ChipRival:
    """A contestant that reads chip by chip."""

    name: str
    open: Callable[[Item, tuple[str, ...]], Any]
    """(item, assets) -> context manager of a `ReadChip`."""
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return all(importlib.util.find_spec(module.partition(".")[0]) is not None for module in self.needs)


def _window(dataset: Any, side: int, x: int, y: int) -> np.ndarray:
    """A window of an open file, repeated to the finest pixels."""
    from rasterio.windows import Window

    factor = side // dataset.width
    n = SIZE // factor
    values = dataset.read(window=Window(x * n, y * n, n, n))
    return values.repeat(factor, 1).repeat(factor, 2) if factor > 1 else values


def _width(item: Item) -> int:
    return max(asset["proj:shape"][1] for asset in item["assets"].values())


def _path(item: Item, name: str) -> str:
    from xchip.io.gdal import gdal_path

    return gdal_path(item["assets"][name]["href"])


@contextmanager
def rasterio_open(item: Item, assets: tuple[str, ...]) -> Iterator[ReadChip]:
    """rasterio, each file opened once."""
    import rasterio

    side = _width(item)
    with ExitStack() as stack:
        files = [stack.enter_context(rasterio.open(_path(item, name))) for name in assets]
        yield lambda x, y: np.concatenate([_window(file, side, x, y) for file in files])


@contextmanager
def rasterio_reopened(item: Item, assets: tuple[str, ...]) -> Iterator[ReadChip]:
    """rasterio, each file opened for each chip."""

    def read(x: int, y: int) -> np.ndarray:
        with rasterio_open(item, assets) as chip:
            return chip(x, y)

    yield read


@contextmanager
def stacchip(item: Item, assets: tuple[str, ...]) -> Iterator[ReadChip]:
    """stacchip's Chipper."""
    import pystac
    from stacchip.chipper import Chipper
    from stacchip.indexer import NoStatsChipIndexer

    kept = {**item, "assets": {name: {**item["assets"][name], "href": _path(item, name)} for name in assets}}
    chipper = Chipper(NoStatsChipIndexer(pystac.Item.from_dict(kept, migrate=False)), assets=list(assets))
    yield lambda x, y: np.concatenate(list(chipper.chip(x, y).values()))


def _stacked(item: Item, assets: tuple[str, ...], chunk: int) -> Any:
    """stackstac's array (band, y, x) in the files' data type, on the finest grid."""
    import stackstac

    side = _width(item)
    res, _, left, _, _, top = next(a for a in item["assets"].values() if a["proj:shape"][1] == side)["proj:transform"][:6]
    return stackstac.stack(
        [item], assets=list(assets), epsg=item["properties"]["proj:epsg"], resolution=res, dtype="uint16",
        fill_value=np.uint16(0), rescale=False, snap_bounds=False, chunksize=chunk,
        bounds=(left, top - side * res, left + side * res, top),
    )[0]  # fmt: skip


@contextmanager
def stackstac(item: Item, assets: tuple[str, ...]) -> Iterator[ReadChip]:
    """stackstac with a chunk a chip: the faster way for chips."""
    array = _stacked(item, assets, SIZE)
    yield lambda x, y: array[:, y * SIZE : (y + 1) * SIZE, x * SIZE : (x + 1) * SIZE].compute().values


@contextmanager
def odc(item: Item, assets: tuple[str, ...]) -> Iterator[ReadChip]:
    """odc-stac with a chunk a chip."""
    import odc.stac
    import pystac

    ds = odc.stac.load(
        [pystac.Item.from_dict(item)], bands=list(assets), chunks={"x": SIZE, "y": SIZE}, resolution=10, dtype="uint16"
    )
    array = ds.isel(time=0).to_dataarray("band")
    yield lambda x, y: array[:, y * SIZE : (y + 1) * SIZE, x * SIZE : (x + 1) * SIZE].compute().values


@contextmanager
def xbatcher(item: Item, assets: tuple[str, ...]) -> Iterator[ReadChip]:
    """xbatcher over stackstac's array, in chunks of the files' blocks."""
    import xbatcher as module

    array = _stacked(item, assets, 1024)
    generator = module.BatchGenerator(array, input_dims={"y": SIZE, "x": SIZE})
    columns = array.sizes["x"] // SIZE
    yield lambda x, y: generator[y * columns + x].compute().values


@contextmanager
def torchgeo(item: Item, assets: tuple[str, ...]) -> Iterator[ReadChip]:
    """torchgeo's RasterDataset, 0.8 and later."""
    from torchgeo.datasets import RasterDataset

    finest = min((item["assets"][name]["proj:transform"] for name in assets), key=lambda transform: transform[0])
    res, left, top = finest[0], finest[2], finest[5]
    files = [RasterDataset(_path(item, name), res=res) for name in assets]

    def read(x: int, y: int) -> np.ndarray:
        west, north = left + x * SIZE * res, top - y * SIZE * res
        box = slice(west, west + SIZE * res), slice(north - SIZE * res, north)
        return np.concatenate([file[box]["image"].numpy() for file in files])

    yield read


RASTERIO_OPEN = ChipRival("rasterio, files kept open", rasterio_open)
REOPENED = ChipRival("rasterio, re-opened", rasterio_reopened)
STACCHIP = ChipRival("stacchip", stacchip, ("stacchip",))
STACKSTAC = ChipRival("stackstac, chunk 256", stackstac, ("stackstac",))
RIVALS = (
    RASTERIO_OPEN,
    REOPENED,
    STACCHIP,
    STACKSTAC,
    ChipRival("odc-stac, chunk 256", odc, ("odc.stac",)),
    ChipRival("xbatcher, chunk 1024", xbatcher, ("xbatcher",)),
    ChipRival("torchgeo", torchgeo, ("torchgeo",)),
)
