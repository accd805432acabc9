"""Scenes to one lazy Dataset: the one place where stackstac is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xchip.core.grid import PixelGrid
from xchip.core.quality import QualityRule
from xchip.core.scene import ItemError, Scene
from xchip.raster.header import read_header
from xchip.raster.reader import BandReader
from xchip.raster.regrid import repeat
from xchip.stac.scene.sentinel2_offset import Harmonize, harmonized, offset_in_file
from xchip.stac.stack.target_grid import Bounds, extent_on, overlap, target_grid
from xchip.stac.stack.variables import Chunks, Column, band_names, chunk_sizes, make_column, mask_names

if TYPE_CHECKING:
    import dask.array as da

# Bands of one file are read together in a chunk up to this size.
CHUNK_BYTES = 128 << 20


def stack(
    items: Any,
    assets: Iterable[str] | None = None,
    *,
    sensor: Any = None,
    crs: Any = None,
    resolution: Any = None,
    bounds: Bounds | None = None,
    bbox: Bounds | None = None,
    chunks: Any = "auto",
    resampling: str = "nearest",
    rescale: bool = False,
    harmonize: Harmonize = False,
) -> xr.Dataset:
    """STAC items as one lazy Dataset on the items' own pixel grid: dims (time, y, x), a variable a band.

    Nothing is read until the data are computed, and a file is opened before that only where its item does not say its
    grid, CRS or dtype.

    Parameters
    ----------
    items
        One or many: pystac Items, an ItemCollection, an ItemSearch, dicts, paths or URLs.
    assets
        Bands by asset key, band name or common name such as "red". None: the bands of the sensor, quality band included;
        for an unknown product all its raster assets.
    sensor
        Name of a `SensorProfile`, or one of your own. None: recognised from the item.
    crs, resolution
        Warp to another CRS (anything pyproj knows) or pixel size (number or (y, x), in units of the CRS).
    bounds
        (left, bottom, right, top) of the result in its CRS, outwards to whole pixels; outside of the items it is nodata.
        With ``resolution`` the grid begins exactly at its upper left corner.
    bbox
        (west, south, east, north) in degrees: the part of the items in it. Items outside of ``bounds`` or ``bbox`` are
        left out.
    chunks
        "auto": whole blocks of the files, about 1024 to 2048 pixels wide. Or pixels, or (y, x).
    resampling
        GDAL's name of a method, for bands that are warped. "nearest" takes coarser and finer bands over unchanged where
        they line up with the grid; another method is used for these too. Quality bands are always "nearest".
    rescale
        Apply scale and offset: float32 with NaN for nodata. Quality bands stay as stored.
    harmonize
        True: read Sentinel-2 reflectances as before processing baseline 04.00, which stores them with 1000 more; by what each
        item says, never by its date. They keep their dtype; nodata stays nodata, and pixels darker than black become 1. Items
        of other known sensors stay as they are. Where an item leaves it undecided, or is known to say it wrongly, numbers to
        add by item id, such as ``{"S2B_33UXP_20250302_0_L2A": 0}``; other items go by what they say. A number holds for all.
        With ``rescale`` the offset is part of the physical values anyway, and dark pixels are below 0.

    Returns
    -------
    xarray.Dataset
        Variables in the dtype of the file, nodata in ``.rio.nodata``, pixel centres in ``y`` (downwards) and ``x``, the CRS
        in ``spatial_ref``. Coordinates on ``time`` (UTC, sorted): ``item_id``, ``collection``, ``item_href``, and the edges of
        the item's own grid, ``item_left``, ``item_bottom``, ``item_right``, ``item_top``. The mask of a product
        whose files have one is a coordinate too, ``mask``: (time, y, x), 0 where there are no data. With Sentinel-2 items there
        is ``boa_offset`` on ``time``: what their stored values lack to be as before baseline 04.00, -1000 or 0, and NaN where
        that is undecided. Variables have it as an attribute where all items agree, and ``harmonized`` = 1 where their values
        are as before, be it that nothing had to be added.

    Raises
    ------
    ItemError
        For an item that can't be used, and when a file can't be read; with ``harmonize`` or ``rescale`` for a Sentinel-2 item
        that leaves its offset undecided, and with ``harmonize`` for an unknown product.
    ValueError
        If there are no items, or if they share neither CRS nor pixel lattice; names two of them and the way out.

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
    crs: Any = None,
    resolution: Any = None,
    bounds: Bounds | None = None,
    bbox: Bounds | None = None,
    chunks: Any = "auto",
    resampling: str = "nearest",
    rescale: bool = False,
    harmonize: Harmonize = False,
) -> xr.Dataset:
    """`stack` for items that are understood already. Opens no file."""
    if not scenes:
        raise ValueError("no items to stack")
    _check_resampling(resampling)
    target = target_grid(scenes, crs=crs, resolution=resolution, bounds=bounds, bbox=bbox)
    extents = [(scene, extent_on(scene.grid, target)) for scene in scenes]
    # stackstac sorts by the text of the date, which is not the order in time.
    inside = sorted(
        ((scene, extent) for scene, extent in extents if overlap(extent, target.bounds)), key=lambda pair: pair[0].datetime
    )
    kept = [scene for scene, _ in inside]
    kept = [harmonized(scene, harmonize, rescale=rescale) for scene in kept]
    masks = mask_names(kept)
    columns = [make_column(name, kept, target, resampling=resampling, rescale=rescale) for name in (*band_names(kept), *masks)]
    spatial = chunk_sizes(kept[0], target) if isinstance(chunks, str) and chunks == "auto" else chunks
    arrays = _arrays(columns, kept, target, spatial)
    y, x = target.centres()
    left, bottom, right, top = np.array([extent for _, extent in inside]).T
    coords = {
        "time": ("time", np.array([_naive_utc(scene) for scene in kept], "datetime64[ns]")),
        "y": ("y", y),
        "x": ("x", x),
        "item_id": ("time", np.array([scene.item_id for scene in kept], dtype=str)),
        "collection": ("time", np.array([scene.collection or "" for scene in kept], dtype=str)),
        "item_href": ("time", np.array([scene.href or "" for scene in kept], dtype=str)),
        "item_left": ("time", left),
        "item_bottom": ("time", bottom),
        "item_right": ("time", right),
        "item_top": ("time", top),
        "spatial_ref": _spatial_ref(target.crs),
    }
    if any(scene.boa_offset is not None for scene in kept):
        coords["boa_offset"] = ("time", np.array([offset_in_file(scene) for scene in kept]))
    mapping = {"grid_mapping": "spatial_ref"}
    variables = {column.name: (("time", "y", "x"), arrays[column.name], column.attrs, mapping) for column in columns}
    coords |= {name: variables.pop(name) for name in masks}
    return xr.Dataset(variables, coords, _attrs(kept))


def _check_resampling(resampling: str) -> None:
    from rasterio.enums import Resampling

    known = [method.name for method in Resampling if method is not Resampling.gauss]
    if resampling not in known:
        raise ValueError(f"resampling must be one of {known}, got {resampling!r}")


@lru_cache(maxsize=16)
def _spatial_ref(crs: str) -> xr.Variable:
    """rioxarray's coordinate that holds the CRS."""
    import rioxarray  # noqa: F401  (the .rio accessor)

    return xr.DataArray(0).rio.write_crs(crs).coords["spatial_ref"].variable


def _naive_utc(scene: Scene) -> np.datetime64:
    moment = np.datetime64(scene.datetime.astimezone(UTC).replace(tzinfo=None), "us")
    if not 1678 <= scene.datetime.year < 2262:  # NumPy would wrap it round
        raise ItemError(scene.item_id, f"its date {moment} is not in 1678 to 2261, which a stack can hold; correct it")
    return moment.astype("datetime64[ns]")


def _attrs(scenes: Sequence[Scene]) -> dict[str, str]:
    """Sensor and quality rule as text, where all items agree."""
    attrs = {}
    sensors, rules = {scene.sensor for scene in scenes}, {scene.rule for scene in scenes}
    if len(sensors) == 1 and scenes[0].sensor is not None:
        attrs["sensor"] = scenes[0].sensor
    if len(rules) == 1 and isinstance(scenes[0].rule, QualityRule):
        attrs["quality"] = scenes[0].rule.to_json()
    return attrs


def _arrays(columns: Sequence[Column], scenes: Sequence[Scene], target: PixelGrid, chunks: Any) -> dict[str, da.Array]:
    """Dask arrays (time, y, x) by name: one call of stackstac for each group of columns that it can hold together."""
    from dask.array.core import normalize_chunks

    spatial = normalize_chunks(chunks, target.shape, dtype=np.uint8)
    groups: dict[Any, list[Column]] = {}
    for column in columns:
        factor = column.factor if _divides(column.factor, spatial) else (1, 1)
        groups.setdefault((column.dtype, repr(column.fill), column.resampling, column.file, factor), []).append(column)
    arrays = {}
    for (*_, factor), group in groups.items():
        # Coarser bands are stacked in their own pixels, which are fewer, and repeated at the end.
        coarse, coarse_chunks = _coarser(target, spatial, factor)
        stacked = _stackstac(group, scenes, coarse, coarse_chunks)
        for number, column in enumerate(group):
            arrays[column.name] = _repeated(stacked[:, number], factor, target)
    return arrays


def _divides(factor: tuple[int, int], chunks: Chunks) -> bool:
    """Whether every chunk begins with a whole coarser pixel."""
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


def _repeat_block(block: Any, factor: tuple[int, int]) -> Any:
    return repeat(block[0], *factor)[None]  # stackstac's chunks hold one time step


def _stackstac(columns: Sequence[Column], scenes: Sequence[Scene], target: PixelGrid, chunks: Chunks) -> da.Array:
    """(time, band, y, x) on ``target`` of columns of one dtype, fill and resampling; bands of one file share chunks."""
    import stackstac
    from rasterio.enums import Resampling

    first = columns[0]
    pixels = max(chunks[0]) * max(chunks[1])
    together = 1 if first.file is None else max(1, min(len(columns), CHUNK_BYTES // (pixels * first.dtype.itemsize)))
    # stackstac knows CRSs only as EPSG numbers, and uses them only to compare; the true CRS is written to the result.
    authority, _, number = target.crs.partition(":")
    epsg = int(number) if authority == "EPSG" and number.isdigit() else 4326
    items: list[dict[str, Any]] = [
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
        resampling=Resampling[first.resampling],
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


def _plain_assets(columns: Sequence[Column], row: int, target: PixelGrid, together: int) -> dict[str, dict[str, Any]]:
    """Assets of item number ``row`` as stackstac reads them."""
    assets: dict[str, dict[str, Any]] = {}
    for start in range(0, len(columns), together):
        chunk = [(column, column.sources[row]) for column in columns[start : start + together]]
        siblings = tuple(source.band.index for _, source in chunk if source is not None) if together > 1 else ()
        for column, source in chunk:
            extent = extent_on(source.band.grid, target) if source is not None else target.bounds
            if source is None or not overlap(extent, target.bounds):
                # An asset without href is filled. stackstac would drop a band, or an item, that is all outside.
                assets[column.name] = {"href": None, "proj:bbox": target.bounds}
                continue
            url = replace(source, target=target, siblings=siblings).to_url()
            assets[column.name] = {"href": url, "proj:bbox": extent}
    return assets
