"""Who runs in the index benchmark. Each takes a scene's STAC item and leaves an index in a Parquet file.

Heavy imports stand inside the functions, so that the memory of one contestant is not that of all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scenes import UTM, Product

Item = dict[str, Any]
Fractions = tuple[np.ndarray, np.ndarray]
"""(nodata, cloud): part of all pixels of each chip, float64 (chip_y, chip_x)."""

# stacchip counts shadows and defective pixels as cloud.
STACCHIP_CLOUD = {"scl": (1, 3, 8, 9, 10), "qa_pixel": (1, 3, 4)}


@dataclasses.dataclass(frozen=True)
class Rival:
    """A contestant."""

    name: str
    """What the table calls it."""
    run: Callable[[Product, Item, Path], Fractions | None]
    """Index ``item`` into the file ``path``."""
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return all(importlib.util.find_spec(module) is not None for module in self.needs)


def href_of(product: Product, item: Item) -> str:
    """Path of the quality band."""
    return str(item["assets"][product.asset]["href"])


def plain_fractions(product: Product, href: str) -> Fractions:
    """The answer, by a plain loop over the chips."""
    import rasterio

    with rasterio.open(href) as dataset:
        values = dataset.read(1)
    found = np.zeros((2, *product.chips))
    for row, column in np.ndindex(*product.chips):
        y, x = row * product.chip, column * product.chip
        chip = values[y : y + product.chip, x : x + product.chip]
        found[:, row, column] = [mask.mean() for mask in product.masks(chip)]
    return found[0], found[1]


def expected(name: str, product: Product, href: str) -> Fractions:
    """What ``name`` must find."""
    if name == "stacchip":
        product = dataclasses.replace(product, cloudy=STACCHIP_CLOUD[product.asset])
    return plain_fractions(product, href)


def chip_boxes(product: Product) -> np.ndarray:
    """Outlines of the chips in the scene's CRS: shapely polygons, row by row."""
    import shapely

    (ny, nx), step = product.chips, product.chip * product.resolution
    y, x = (index.ravel() * step for index in np.mgrid[:ny, :nx])
    left, top = product.origin
    return shapely.box(left + x, top - y - step, left + x + step, top - y)


def write_with_geopandas(product: Product, fractions: Fractions, path: Path) -> None:
    """What most people would do with the fractions."""
    import geopandas

    (ny, nx), (nodata, cloud) = product.chips, fractions
    y, x = (index.ravel() for index in np.mgrid[:ny, :nx])
    columns = {"chip_index_x": x, "chip_index_y": y, "nodata": nodata.ravel(), "cloud": cloud.ravel()}
    frame = geopandas.GeoDataFrame(columns, geometry=chip_boxes(product), crs=UTM)
    frame.to_crs(4326).to_parquet(path)


@dataclasses.dataclass
class Limit:
    """The least that an index can cost: GDAL decodes the band once, and rows that are ready are written."""

    threads: int = 1
    """Threads that GDAL decodes with."""
    ready: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The rows, by product; made in the first call."""

    def run(self, product: Product, item: Item, path: Path) -> None:
        """Decode block row by block row into one buffer, then write."""
        import pyarrow.parquet
        import rasterio
        from rasterio.windows import Window

        options = {} if self.threads == 1 else {"num_threads": self.threads}
        with rasterio.open(href_of(product, item), **options) as dataset:
            height, width = dataset.shape
            buffer = np.empty((product.block, width), dataset.dtypes[0])
            for row in range(0, height, product.block):
                rows = min(product.block, height - row)
                dataset.read(1, window=Window(0, row, width, rows), out=buffer[:rows])
        if product.name not in self.ready:
            self.ready[product.name] = ready_rows(product)
        pyarrow.parquet.write_table(self.ready[product.name], path, compression="zstd")


def ready_rows(product: Product) -> Any:
    """A table as long as the index, with an outline and seven fractions a chip."""
    import pyarrow
    import shapely

    (ny, nx), rng = product.chips, np.random.default_rng(0)
    y, x = (index.ravel().astype(np.int32) for index in np.mgrid[:ny, :nx])
    columns: dict[str, Any] = {"chip_id": [f"{product.name}-{i}-{j}" for j, i in zip(y, x, strict=True)]}
    columns |= {"chip_index_x": x, "chip_index_y": y}
    columns |= {f"fraction_{number}": rng.integers(0, 16384, ny * nx) / 16384 for number in range(7)}
    return pyarrow.table({**columns, "geometry": shapely.to_wkb(chip_boxes(product))})


def run_xchip(product: Product, item: Item, path: Path) -> Fractions:
    """xchip, from the item to the file, through dask's threads."""
    import dask

    import xchip

    with dask.config.set(scheduler="threads", num_workers=2):
        xchip.write_index(xchip.index_items([item]), path)
    return read_xchip(product, path)


def read_xchip(product: Product, path: Path) -> Fractions:
    """Fractions in an index that xchip wrote to ``path``, a file or a folder."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path, columns=["chip_index_x", "chip_index_y", "nodata_fraction", "cloud_fraction"])
    x, y, nodata, cloud = (column.to_numpy() for column in rows.columns)
    found = np.full((2, *product.chips), np.nan)
    found[0, y, x] = nodata
    # xchip's cloud fraction is of the pixels that hold data, and NaN where none does.
    found[1, y, x] = np.nan_to_num(cloud) * (1 - nodata)
    return found[0], found[1]


def run_stacchip(product: Product, item: Item, path: Path) -> Fractions:
    """stacchip: a loop over the chips."""
    import pyarrow.parquet
    import pystac
    from stacchip import indexer

    kind = indexer.LandsatIndexer if product.flags else indexer.Sentinel2Indexer
    # It reads proj:epsg, which pystac would rename, and prints.
    known = pystac.Item.from_dict(item, migrate=False)
    with contextlib.redirect_stdout(io.StringIO()):
        table = kind(known, chip_max_nodata=1.0).create_index()
    pyarrow.parquet.write_table(table, path)
    x, y = table["chip_index_x"].to_numpy(), table["chip_index_y"].to_numpy()
    found = np.full((2, *product.chips), np.nan)
    found[0, y, x] = table["nodata_percentage"].to_numpy()
    found[1, y, x] = table["cloud_cover_percentage"].to_numpy()
    return found[0], found[1]


def lazy_fractions(product: Product, band: Any) -> Fractions:
    """Fractions of a lazy DataArray of the quality band, with xarray's own tools."""
    import dask

    if product.flags:
        nodata = (band & (1 << product.nodata)) != 0
        cloud = ((band & sum(1 << bit for bit in product.cloudy)) != 0) & ~nodata
    else:
        nodata, cloud = band == product.nodata, band.isin(product.cloudy)
    windows = {"y": product.chip, "x": product.chip}
    means = [mask.coarsen(windows, boundary="trim").mean() for mask in (nodata, cloud)]
    with dask.config.set(scheduler="threads", num_workers=2):
        found = dask.compute(*means)
    return found[0].values, found[1].values


def run_stackstac(product: Product, item: Item, path: Path) -> Fractions:
    """stackstac on the band's own grid, isin, coarsen, geopandas."""
    import stackstac

    dtype = np.dtype("uint16" if product.flags else "uint8")
    stack = stackstac.stack(
        [item], assets=[product.asset], epsg=UTM, resolution=product.resolution, bounds=product.bounds, snap_bounds=False,
        dtype=dtype, fill_value=dtype.type(0), rescale=False, chunksize=2048,
    )  # fmt: skip
    fractions = lazy_fractions(product, stack[0, 0])
    write_with_geopandas(product, fractions, path)
    return fractions


def run_odc(product: Product, item: Item, path: Path) -> Fractions:
    """odc-stac on the band's own grid, isin, coarsen, geopandas."""
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox
    from rasterio import Affine

    geobox = GeoBox(product.shape, Affine(*product.transform), UTM)
    known = pystac.Item.from_dict(item)
    scene = odc.stac.load(
        [known], bands=[product.asset], geobox=geobox, chunks={"y": 2048, "x": 2048}, dtype="uint16" if product.flags else "uint8"
    )
    fractions = lazy_fractions(product, scene[product.asset][0])
    write_with_geopandas(product, fractions, path)
    return fractions


LIMIT = Rival("limit, 1 thread", Limit().run)
XCHIP = Rival("xchip", run_xchip, ("xchip.indexing.from_items",))
STACCHIP = Rival("stacchip", run_stacchip, ("stacchip", "geoarrow.pyarrow"))
RIVALS = (
    LIMIT,
    Rival("limit, 2 threads", Limit(threads=2).run),
    XCHIP,
    Rival("stackstac + coarsen", run_stackstac, ("stackstac",)),
    Rival("odc-stac + coarsen", run_odc, ("odc.stac",)),
    STACCHIP,
)
