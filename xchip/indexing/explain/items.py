"""Costs of an index of items: counted from their metadata, before anything runs."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Unpack

from xchip import sensors
from xchip.core.grid import Pair
from xchip.core.limits import IndexOptions
from xchip.core.quality import QualityRule
from xchip.core.scene import ItemError, Scene
from xchip.core.types import JSON, Items
from xchip.indexing.explain.cost import file_reads, pixel_bytes, requests, scene_memory, stored_bytes
from xchip.indexing.explain.explanation import MAX_GROUPS, MAX_PROBLEMS, Explanation, Figure, Group, Tally, counted, memory_figure
from xchip.indexing.from_items import IndexSpec, grid_options, spec_of, understand_for_index
from xchip.io.storage import StorageOptions
from xchip.raster.header import header_reader
from xchip.sensors.profile import SensorProfile
from xchip.stac.scene.understand import HeaderNeeded, ReadHeader, collection_of, plain_items


def explain_items(
    items: Items,
    size: Pair = 256,
    *,
    sensor: str | SensorProfile | None = None,
    quality: str | QualityRule | None = None,
    header: bool = False,
    pixels: StorageOptions | None = None,
    threads: int | None = None,
    **options: Unpack[IndexOptions],
) -> Explanation:
    """Explain what `xchip.index_items` or `xchip.build_index` will do with items, before anything runs.

    Items are read one at a time, so memory does not grow with their number. No image file is opened unless ``header`` is True,
    and no pixel is read.

    Parameters
    ----------
    items, size, sensor, quality, stride, edge, anchor
        As for `xchip.index_items`.
    max_nodata, max_defective, max_cloud, max_shadow, max_snow, max_water, min_clear
        As for `xchip.index_items`. Limits drop chips after their pixels are counted, so they do not reduce the cost.
    header
        Whether to open files where an item's metadata do not record its grid. If not, such items are only counted.
    pixels
        How files are reached, for ``header``.
    threads
        Threads of a worker, for its memory; by default as many as Dask would start on this machine.

    Returns
    -------
    Explanation
        Each figure says whether it is exact, a bound or an estimate, and why.

    Raises
    ------
    ValueError
        If there are no items, or an option is out of range. An unusable item is counted and does not raise.

    Examples
    --------
    >>> import tempfile, xchip.testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     item = xchip.testing.write_scene(folder, shape=(600, 700))
    ...     job = explain_items(item, size=128)
    >>> job.chips.value, job.chips.basis, job.pixel_bytes.value == 300 * 350
    (20, 'exact', True)
    """
    if sensor is not None:
        sensors.find(sensor)  # an unknown name raises once here, instead of refusing each item
    spec = spec_of("explain_items", size, sensor, quality, options)
    height, width = grid_options(spec)["size"]
    census = _Census(spec)
    storage = pixels or StorageOptions()
    read = header_reader(storage) if header else None
    with storage.gdal() if header else nullcontext():
        for item, href in plain_items(items, on_error=census.refuse):
            census.add(item, href, read)
    return census.explanation(f"index of items, chips of {height} x {width} pixels", threads)


_Product = tuple[str | None, str | None]
"""(collection, sensor)."""


class _Census:
    """Sums over items, in constant memory."""

    def __init__(self, spec: IndexSpec) -> None:
        self.spec = spec
        self.refused = 0
        self.problems: list[str] = []
        self.items: Counter[_Product] = Counter()
        self.unread: Counter[_Product] = Counter()
        self.group_chips: Counter[_Product] = Counter()
        self.chips, self.pixels, self.stored, self.requests = Tally(), Tally(), Tally(), Tally()
        self.memory, self.without_chips = 0, 0

    def refuse(self, item: str, error: Exception) -> None:
        """Count an unusable item."""
        self.refused += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(str(error) if isinstance(error, ItemError) else f"{item}: {error}")

    def add(self, item: JSON, href: str | None, header: ReadHeader | None) -> None:
        """Count an item."""
        try:
            scene = understand_for_index(item, href, self.spec, header=header)
        except HeaderNeeded:
            product = self._product(collection_of(item), self._sensor_of(item))
            self.unread[product] += 1
        except ItemError as error:
            self.refuse("", error)
        else:
            self._count(scene, item)

    def _count(self, scene: Scene, item: JSON) -> None:
        grid = self.spec.grid(scene.grid)
        reads = file_reads(scene, grid)
        stored = stored_bytes(scene, item, reads)
        self.chips.add(Figure(len(grid), "exact", "from the items' grids"))
        self.pixels.add(pixel_bytes(scene, grid, reads))
        self.stored.add(stored)
        self.requests.add(requests(reads, stored))
        self.memory = max(self.memory, scene_memory(scene, grid, reads))
        self.without_chips += not len(grid)
        self.group_chips[self._product(scene.collection, scene.sensor)] += len(grid)

    def _product(self, collection: str | None, sensor: str | None) -> _Product:
        """Count an item of a product. Returns the key of its group: beyond `MAX_GROUPS` products share one."""
        product = collection, sensor
        if product not in self.items and len(self.items) >= MAX_GROUPS:
            product = "(other collections)", None
        self.items[product] += 1
        return product

    def _sensor_of(self, item: JSON) -> str | None:
        if self.spec.sensor is not None:
            return sensors.find(self.spec.sensor).name
        recognised = sensors.recognise(item)
        return recognised[0].name if recognised is not None else None

    def explanation(self, subject: str, threads: int | None) -> Explanation:
        """Return the sums."""
        usable, unread = self.items.total(), self.unread.total()
        missing = f"without {counted(unread, 'item')} of unknown grid" if unread else ""
        chips, pixels, stored, asked = (
            tally.figure(nothing="no item's grid is known", missing=missing)
            for tally in (self.chips, self.pixels, self.stored, self.requests)
        )
        notes = []
        if self.without_chips:
            notes.append(f'too small for a chip: {counted(self.without_chips, "item")}; edge="pad" or "shift" gives them one')
        if self.refused:
            notes.append("build_index skips the items that can't be used, index_items stops at the first")
        return Explanation(
            subject=subject,
            items=Figure(usable + self.refused, "exact", "counted"),
            unread=Figure(unread, "exact", "header=True opens their files") if unread else None,
            refused=Figure(self.refused, "exact", "the reasons are below") if self.refused else None,
            chips=chips,
            tasks=Figure(usable, "exact", "one for each item that can be used"),
            pixel_bytes=pixels,
            stored_bytes=stored,
            requests=asked,
            memory_bytes=memory_figure(
                self.memory,
                max(1, usable),
                threads,
                "two strips of the quality band, blocks that GDAL keeps, and the table of the largest item",
            ),
            groups=tuple(
                Group(*product, number, self.group_chips[product], self.unread[product])
                for product, number in self.items.most_common()
            ),
            problems=tuple(self.problems),
            notes=tuple(notes),
        )
