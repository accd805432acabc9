"""Indexes of many items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from xchip.core.grid import ChipGrid, GridOptions, Pair, PixelGrid, chip_grid
from xchip.core.limits import IndexOptions, Limits, grid_and_limits
from xchip.core.quality import QualityRule
from xchip.core.scene import ItemError, Scene
from xchip.core.types import Items
from xchip.indexing.count_scene import count_scene
from xchip.indexing.rows import IndexRows, IndexSource, ItemColumns, index_rows, options_text
from xchip.raster.header import read_header
from xchip.sensors.profile import SensorProfile
from xchip.sensors.registry import find, recognise, rule_for_band
from xchip.stac.scene.sentinel2_offset import offset_in_file
from xchip.stac.scene.understand import HeaderNeeded, bbox_of, plain_items, understand

if TYPE_CHECKING:
    import dask_geopandas


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """What is done with each item; it travels to the workers."""

    size: Pair
    sensor: str | SensorProfile | None
    quality: str | QualityRule | None
    grid_options: GridOptions
    limits: Limits

    def grid(self, pixels: PixelGrid) -> ChipGrid:
        """The chips of a scene."""
        return chip_grid(pixels, self.size, **self.grid_options)


def spec_of(
    function: str,
    size: Pair,
    sensor: str | SensorProfile | None,
    quality: str | QualityRule | None,
    options: IndexOptions,
) -> IndexSpec:
    """The parameters of an index of items, checked.

    Raises
    ------
    TypeError
        If an option is unknown; the message names ``function``.
    ValueError
        If an option is out of range, or ``size`` is a ChipGrid.
    """
    if isinstance(size, ChipGrid):
        raise ValueError("items have grids of their own: give size, stride, edge and anchor, not a ChipGrid")
    return IndexSpec(size, sensor, quality, *grid_and_limits(function, options))


@dataclass(frozen=True, slots=True)
class UnreadItem:
    """An item whose metadata leave a question that only a file's header answers: the worker asks it."""

    item: dict[str, Any]
    href: str | None


def index_items(
    items: Items,
    size: Pair = 256,
    *,
    sensor: str | SensorProfile | None = None,
    quality: str | QualityRule | None = None,
    **options: Unpack[IndexOptions],
) -> dask_geopandas.GeoDataFrame:
    """The chip index of STAC items, lazily: one partition and one task an item.

    Each task reads the item's quality band once, in strips and at its own resolution, counts, and returns a table. A product
    without a quality band is read only where its bands declare nodata.

    Parameters
    ----------
    items
        pystac Items, an ItemCollection, an ItemSearch, dicts, paths or URLs of JSON or stac-geoparquet; one or many.
    size, stride, edge, anchor
        As for `xchip.ChipGrid`: pixels of the item's own grid.
    sensor
        A profile or its name, where the items do not tell it.
    quality
        A rule in place of the product's own, or the name of a quality band whose rule is known.
    max_nodata, max_cloud, max_defective, max_shadow, max_snow, max_water, min_clear
        Which chips to keep, as for ``.chips.index``.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        Columns as in the index schema. ``spatial_partitions`` are known without reading: from the item's grid, or else its
        bbox.

    Raises
    ------
    ValueError
        If there are no items, or an option is out of range.
    xchip.ItemError
        For an item that can't be understood: here if its metadata show it, in the task if only the file does.

    Examples
    --------
    >>> import tempfile, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     items = [xchip.testing.write_scene(folder, item_id=f"synthetic-{n}", shape=(256, 256)) for n in range(2)]
    ...     index = index_items(items, size=128, max_nodata=0.5)  # nothing is read yet
    ...     rows = index.compute()
    >>> index.npartitions, rows.chip_id.iloc[0]
    (2, 'synthetic-0-0-0')
    """
    return index_source(items, spec_of("index_items", size, sensor, quality, options)).frame()


def index_source(items: Items, spec: IndexSpec) -> IndexSource:
    """Understand items, and give them as the source of a lazy index. Raises as `index_items` does."""
    grid_text = options_text(spec.grid(_ANY_PIXELS))  # checks them, also where every item has to be read first
    parts: list[Scene | UnreadItem] = []
    outlines = []
    for item, href in plain_items(items):
        try:
            scene = understand_for_index(item, href, spec, header=None)
        except HeaderNeeded:
            parts.append(UnreadItem(item, href))
            outlines.append(_outline_of_bbox(item))
        else:
            parts.append(scene)
            outlines.append(_outline(spec.grid(scene.grid)))
    # Partitions of one frame have the same columns.
    offsets = any(_tells_offset(part, spec) for part in parts)
    return IndexSource(partial(index_part, spec=spec, offsets=offsets), parts, outlines, grid_text, offsets)


def _tells_offset(part: Scene | UnreadItem, spec: IndexSpec) -> bool:
    """Whether an item tells the offset of its Sentinel-2 reflectances, or may once it is read."""
    if isinstance(part, Scene):
        return not np.isnan(offset_in_file(part))
    known = (find(spec.sensor),) if spec.sensor is not None else recognise(part.item)
    return known is not None and known[0].baseline_offset is not None


_ANY_PIXELS = PixelGrid("EPSG:4326", (1, 0, 0, 0, -1, 0), (1, 1))


def grid_options(spec: IndexSpec) -> dict[str, Any]:
    """Size, stride, edge and anchor, checked and in full."""
    return spec.grid(_ANY_PIXELS).options


def index_part(part: Scene | UnreadItem, spec: IndexSpec, *, offsets: bool | None = None) -> IndexRows:
    """The index of one item: the task of `index_items`. ``offsets`` is that of `item_columns`."""
    scene = part if isinstance(part, Scene) else understand_for_index(part.item, part.href, spec, header=read_header)
    grid = spec.grid(scene.grid)
    try:
        counts = count_scene(scene, grid)
    except ItemError:
        raise
    except (OSError, ValueError) as error:
        raise ItemError(scene.item_id, f"its quality can't be read: {error}") from error
    return index_rows(grid, counts, item_columns(scene, offsets), spec.limits)


def item_columns(scene: Scene, offsets: bool | None = None) -> ItemColumns:
    """What the rows of a scene share, with its `boa_offset` if ``offsets``; None: where it tells one."""
    time = np.datetime64(scene.datetime.replace(tzinfo=None), "us")
    offset = offset_in_file(scene)
    told = not np.isnan(offset) if offsets is None else offsets
    return ItemColumns(scene.item_id, scene.collection, scene.href, scene.sensor, time, boa_offset=offset if told else None)


def understand_for_index(item: dict[str, Any], href: str | None, spec: IndexSpec, *, header: Any) -> Scene:
    """The item as its index needs it, with the spec's quality rule."""
    quality = spec.quality
    if quality is None:
        return understand(item, href=href, sensor=spec.sensor, header=header)
    band = quality if isinstance(quality, str) else quality.band
    scene = understand(item, href=href, sensor=spec.sensor, assets=[band], header=header)
    if isinstance(quality, QualityRule):
        return replace(scene, rule=quality, quality=scene.bands)
    if isinstance(scene.rule, QualityRule) and scene.quality[0].asset == scene.bands[0].asset:
        return scene
    rule = rule_for_band(band)
    if rule is None:
        raise ItemError(
            scene.item_id,
            f"nothing says what the values of {band!r} mean; give quality= a rule, made with xchip.quality.values or bits",
        )
    return replace(scene, rule=rule, quality=scene.bands)


@lru_cache(maxsize=4096)
def _outline(grid: ChipGrid) -> Any:
    return grid.outline()


def _outline_of_bbox(item: dict[str, Any]) -> Any:
    """The item's bbox as a polygon, or two where it crosses the antimeridian; the whole Earth where it has none."""
    import shapely

    bbox = bbox_of(item.get("bbox"))
    if bbox is None:
        return shapely.box(-180, -90, 180, 90)
    west, south, east, north = bbox
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])
