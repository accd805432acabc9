"""Stack scenes as one lazy Dataset; only this module calls stackstac."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr

from xchip.core.grid import PixelGrid
from xchip.core.quality import QualityRule
from xchip.core.scene import ItemError, Scene
from xchip.core.types import Assets, BBox, Items
from xchip.raster.header import read_header
from xchip.raster.reader import BandReader
from xchip.raster.regrid import repeat
from xchip.stac.fields import PlainItem
from xchip.stac.scene.sentinel2_offset import Harmonize, harmonized, offset_in_file
from xchip.stac.stack.target_grid import CRSLike, Resolution, extent_on, overlap, target_grid
from xchip.stac.stack.variables import Chunks, Column, band_names, chunk_sizes, make_column, mask_names

if TYPE_CHECKING:
    import dask.array as da

    from xchip.sensors.profile import SensorProfile

ChunkSize: TypeAlias = Literal["auto"] | int | tuple[int, int] | Chunks
"""Size of chunks in pixels, or (y, x) sizes."""
Resampling: TypeAlias = Literal[
    "nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "max", "min", "med", "q1", "q3", "sum", "rms"
]
"""GDAL's resampling methods."""

# Bands of one file are read together in a chunk up to this size.
CHUNK_BYTES = 128 << 20


def stack(
    items: Items,
    assets: Assets = None,
    *,
    sensor: str | SensorProfile | None = None,
    crs: CRSLike | None = None,
    resolution: Resolution | None = None,
    bounds: BBox | None = None,
    bbox: BBox | None = None,
    chunks: ChunkSize = "auto",
    resampling: Resampling = "nearest",
    rescale: bool = False,
    harmonize: Harmonize = False,
) -> xr.Dataset:
    """Stack STAC items as one lazy Dataset on the items' own pixel grid: dims (time, y, x), one variable per band.

    Pixels are read when the data are computed. A file is opened earlier only if its item lacks the grid, CRS or dtype.

    Parameters
    ----------
    items
        One or more: pystac Items, an ItemCollection, an ItemSearch, dicts, paths or URLs.
    assets
        Bands by asset key, band name or common name such as "red". None: the bands of the sensor, including the quality band;
        for an unknown product all its raster assets.
    sensor
        Name of a `SensorProfile`, or a `SensorProfile`. None: recognised from the item.
    crs, resolution
        Warp to another CRS (in any form that pyproj reads) or pixel size (number or (y, x), in units of the CRS).
    bounds
        (left, bottom, right, top) of the result in its CRS, expanded to whole pixels; pixels outside the items are nodata.
        With ``resolution`` the grid begins exactly at the upper left corner of ``bounds``.
    bbox
        (west, south, east, north) in degrees; selects the part of the items inside. Items outside ``bounds`` or ``bbox`` are
        skipped.
    chunks
        "auto": whole blocks of the files, about 1024 to 2048 pixels wide. Otherwise pixels, or (y, x) pixels.
    resampling
        GDAL's resampling method for bands that are warped. With "nearest", coarser and finer bands that are aligned with the
        grid keep their values; any other method resamples them too. Quality bands always use "nearest".
    rescale
        Apply scale and offset: float32 with NaN for nodata. Quality bands stay as stored.
    harmonize
        True: read Sentinel-2 reflectances as before processing baseline 04.00, which adds 1000 to the stored values. The
        metadata of each item decide, not its date. Bands keep their dtype, nodata stays nodata, and pixels darker than black
        become 1. Items of other known sensors stay as they are. For items whose metadata are undecided or wrong, pass the
        numbers to add by item id, such as ``{"S2B_33UXP_20250302_0_L2A": 0}``; a single number applies to all items. With
        ``rescale`` the offset is always part of the physical values, and dark pixels are below 0.

    Returns
    -------
    xarray.Dataset
        Variables in the dtype of the file, nodata in ``.rio.nodata``, pixel centres in ``y`` (downwards) and ``x``, the CRS
        in ``spatial_ref``. Coordinates on ``time`` (UTC, sorted): ``item_id``, ``collection``, ``item_href``, and the edges of
        the item's own grid, ``item_left``, ``item_bottom``, ``item_right``, ``item_top``. If the files have a mask, it is a
        coordinate too, ``mask``: (time, y, x), 0 at pixels without data. Sentinel-2 items have ``boa_offset`` on ``time``: the
        number to add to stored values to get those before baseline 04.00, -1000 or 0, and NaN if undecided. If all items
        agree, variables have it as an attribute. Variables whose values are those before baseline 04.00 have the attribute
        ``harmonized`` = 1, also if nothing had to be added.

    Raises
    ------
    ItemError
        If an item can't be used, or a file can't be read. With ``harmonize`` or ``rescale``, if the offset of a Sentinel-2 item
        is undecided; with ``harmonize``, if a product is unknown.
    ValueError
        If there are no items, or they have different CRSs or pixel lattices; names two of them and the way out.

    Examples
    --------
    >>> grid = {"proj:shape": [1098, 1098], "proj:transform": [100, 0, 199980, 0, -100, 2800020]}
    >>> item = {
    ...     "type": "Feature", "id": "S2A_29RKH", "collection": "sentinel-2-l2a",
    ...     "properties": {"datetime": "2020-02-19T11:16:43Z", "proj:code": "EPSG:32629"},
    ...     "assets": {"red": {"href": "s3://bucket/B04.tif", "common_name": "red", **grid}},
    ... }
    >>> ds = stack(item, ["red"])
    >>> dict(ds.sizes), ds.red.dtype, ds.rio.crs.to_epsg(), ds.item_id.item()
    ({'time': 1, 'y': 1098, 'x': 1098}, dtype('uint16'), 32629, 'S2A_29RKH')
    """
    from xchip.stac.scene.understand import scenes

    return stack_scenes(
        scenes(items, sensor=sensor, assets=assets, header=read_header),
        crs=crs,
        resolution=resolution,
        bounds=bounds,
        bbox=bbox,
        chunks=chunks,
        resampling=resampling,
        rescale=rescale,
        harmonize=harmonize,
    )


def stack_scenes(
    scenes: Sequence[Scene],
    *,
    crs: CRSLike | None = None,
    resolution: Resolution | None = None,
    bounds: BBox | None = None,
    bbox: BBox | None = None,
    chunks: ChunkSize = "auto",
    resampling: Resampling = "nearest",
    rescale: bool = False,
    harmonize: Harmonize = False,
) -> xr.Dataset:
    """Stack scenes as `stack` does for items. Opens no file."""
    if not scenes:
        raise ValueError("no items to stack")
    methods = list(get_args(Resampling))
    if resampling not in methods:
        raise ValueError(f"resampling must be one of {methods}, got {resampling!r}")
    target = target_grid(scenes, crs=crs, resolution=resolution, bounds=bounds, bbox=bbox)
    extents = [(scene, extent_on(scene.grid, target)) for scene in scenes]
    # Sort here, because stackstac sorts dates as text.
    inside = sorted(
        ((scene, extent) for scene, extent in extents if overlap(extent, target.bounds)), key=lambda pair: pair[0].datetime
    )
    scenes = [harmonized(scene, harmonize, rescale=rescale) for scene, _ in inside]
    masks = mask_names(scenes)
    names = (*band_names(scenes), *masks)
    columns = [make_column(name, scenes, target, resampling=resampling, rescale=rescale) for name in names]
    arrays = _arrays(columns, scenes, target, chunk_sizes(scenes[0], target) if chunks == "auto" else chunks)
    y, x = target.centres()
    left, bottom, right, top = np.array([extent for _, extent in inside]).T
    coords = {
        "time": ("time", np.array([_naive_utc(scene) for scene in scenes], "datetime64[ns]")),
        "y": ("y", y),
        "x": ("x", x),
        "item_id": ("time", np.array([scene.item_id for scene in scenes], dtype=str)),
        "collection": ("time", np.array([scene.collection or "" for scene in scenes], dtype=str)),
        "item_href": ("time", np.array([scene.href or "" for scene in scenes], dtype=str)),
        "item_left": ("time", left),
        "item_bottom": ("time", bottom),
        "item_right": ("time", right),
        "item_top": ("time", top),
        "spatial_ref": _spatial_ref(target.crs),
    }
    if any(scene.boa_offset is not None for scene in scenes):
        coords["boa_offset"] = ("time", np.array([offset_in_file(scene) for scene in scenes]))
    mapping = {"grid_mapping": "spatial_ref"}
    variables = {column.name: (("time", "y", "x"), arrays[column.name], column.attrs, mapping) for column in columns}
    coords |= {name: variables.pop(name) for name in masks}
    return xr.Dataset(variables, coords, _attrs(scenes))


@lru_cache(maxsize=16)
def _spatial_ref(crs: str) -> xr.Variable:
    """Return rioxarray's coordinate for the CRS."""
    import rioxarray  # noqa: F401  (the .rio accessor)

    return xr.DataArray(0).rio.write_crs(crs).coords["spatial_ref"].variable


def _naive_utc(scene: Scene) -> np.datetime64:
    moment = np.datetime64(scene.datetime.astimezone(UTC).replace(tzinfo=None), "us")
    if not 1678 <= scene.datetime.year < 2262:  # datetime64[ns] would overflow
        raise ItemError(scene.item_id, f"its date {moment} is not in 1678 to 2261, which a stack can hold; correct it")
    return moment.astype("datetime64[ns]")


def _attrs(scenes: Sequence[Scene]) -> dict[str, str]:
    """Return sensor and quality rule as text, if all items agree."""
    attrs = {}
    sensors, rules = {scene.sensor for scene in scenes}, {scene.rule for scene in scenes}
    if len(sensors) == 1 and scenes[0].sensor is not None:
        attrs["sensor"] = scenes[0].sensor
    if len(rules) == 1 and isinstance(scenes[0].rule, QualityRule):
        attrs["quality"] = scenes[0].rule.to_json()
    return attrs


def _arrays(columns: Sequence[Column], scenes: Sequence[Scene], target: PixelGrid, chunks: ChunkSize) -> dict[str, da.Array]:
    """Return dask arrays (time, y, x) by name, with one call of stackstac per group of columns that fit in one array."""
    from dask.array.core import normalize_chunks

    spatial = normalize_chunks(chunks, target.shape, dtype=np.uint8)
    groups: dict[tuple[np.dtype, str, str, object, tuple[int, int]], list[Column]] = {}
    for column in columns:
        factor = column.factor if _divides(column.factor, spatial) else (1, 1)
        groups.setdefault((column.dtype, repr(column.fill), column.resampling, column.file, factor), []).append(column)
    arrays = {}
    for (*_, factor), group in groups.items():
        # Stack coarser bands in their own pixels, which are fewer, then repeat them.
        coarse, coarse_chunks = _coarser(target, spatial, factor)
        stacked = _stackstac(group, scenes, coarse, coarse_chunks)
        for number, column in enumerate(group):
            arrays[column.name] = _repeated(stacked[:, number], factor, target)
    return arrays


def _divides(factor: tuple[int, int], chunks: Chunks) -> bool:
    """Whether every chunk begins at an edge of a coarser pixel."""
    return all(size % f == 0 for f, sizes in zip(factor, chunks, strict=True) for size in sizes[:-1])


def _coarser(grid: PixelGrid, chunks: Chunks, factor: tuple[int, int]) -> tuple[PixelGrid, Chunks]:
    rows, columns = (tuple(-(-size // f) for size in sizes) for f, sizes in zip(factor, chunks, strict=True))
    a, _, c, _, e, f = grid.transform
    return PixelGrid(grid.crs, (a * factor[1], 0, c, 0, e * factor[0], f), (sum(rows), sum(columns))), (rows, columns)


def _repeated(array: da.Array, factor: tuple[int, int], target: PixelGrid) -> da.Array:
    if factor == (1, 1):
        return array
    times, rows, columns = array.chunks
    chunks = (times, tuple(size * factor[0] for size in rows), tuple(size * factor[1] for size in columns))
    height, width = target.shape
    repeated = array.map_blocks(_repeat_block, factor, dtype=array.dtype, chunks=chunks)  # type: ignore[arg-type]
    return repeated[:, :height, :width]


def _repeat_block(block: np.ndarray, factor: tuple[int, int]) -> np.ndarray:
    return repeat(block[0], *factor)[None]  # a chunk of stackstac has one time step


def _stackstac(columns: Sequence[Column], scenes: Sequence[Scene], target: PixelGrid, chunks: Chunks) -> da.Array:
    """Return (time, band, y, x) of columns with one dtype, fill and resampling; bands of one file share chunks."""
    import stackstac
    from rasterio.enums import Resampling as RasterioResampling

    first = columns[0]
    pixels = max(chunks[0]) * max(chunks[1])
    together = 1 if first.file is None else max(1, min(len(columns), CHUNK_BYTES // (pixels * first.dtype.itemsize)))
    # stackstac takes a CRS only as an EPSG number, and only compares it; `stack_scenes` writes the CRS to the result.
    authority, _, number = target.crs.partition(":")
    epsg = int(number) if authority == "EPSG" and number.isdigit() else 4326
    items: list[PlainItem] = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": scene.item_id,
            "geometry": None,
            "properties": {"datetime": str(_naive_utc(scene)), "proj:epsg": epsg},
            "assets": _plain_assets(columns, row, target, together),
        }
        for row, scene in enumerate(scenes)
    ]
    res_y, res_x = target.res
    return stackstac.stack(
        items,
        assets=[column.name for column in columns],
        epsg=epsg,
        resolution=(res_x, res_y),
        bounds=target.bounds,
        snap_bounds=False,
        resampling=RasterioResampling[first.resampling],
        chunksize=(1, together, *chunks),
        dtype=first.dtype,
        fill_value=first.fill,
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=BandReader,
    ).data


def _plain_assets(columns: Sequence[Column], row: int, target: PixelGrid, together: int) -> PlainItem:
    """Return the assets of item number ``row`` as stackstac reads them."""
    assets: PlainItem = {}
    for start in range(0, len(columns), together):
        chunk = [(column, column.sources[row]) for column in columns[start : start + together]]
        siblings = tuple(source.band.index for _, source in chunk if source is not None) if together > 1 else ()
        for column, source in chunk:
            extent = extent_on(source.band.grid, target) if source is not None else target.bounds
            if source is None or not overlap(extent, target.bounds):
                # stackstac fills assets without href, but drops bands and items that are outside the bounds.
                assets[column.name] = {"href": None, "proj:bbox": target.bounds}
                continue
            url = replace(source, target=target, siblings=siblings).to_url()
            assets[column.name] = {"href": url, "proj:bbox": extent}
    return assets
