"""What an index of items will take: counted from their metadata, before anything runs."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any, Unpack

from xchip import sensors
from xchip.core.grid import Pair
from xchip.core.limits import IndexOptions
from xchip.core.quality import QualityRule
from xchip.core.scene import ItemError, Scene
from xchip.core.types import Items
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
    """What `xchip.index_items` or `xchip.build_index` will do with items, before anything runs.

    Each item is looked at once and forgotten: memory does not grow with their number. No file of theirs is opened unless
    ``header`` is True, and no pixel is read.

    Parameters
    ----------
    items, size, sensor, quality, stride, edge, anchor, max_nodata, max_cloud and other limits
        As for `xchip.index_items`. Limits choose chips after their pixels are counted, so they spare nothing.
    header
        Whether to open files where an item's metadata do not tell its grid. If not, such items are only counted.
    pixels
        How files are reached, for ``header``.
    threads
        Threads of a worker, for its memory; as many as Dask would take on this machine if not given.

    Returns
    -------
    Explanation
        Each figure says whether it is exact, a bound or an estimate, and why.

    Raises
    ------
    ValueError
        If there are no items, or an option is out of range. An item that can't be used is counted and does not raise.

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
        sensors.find(sensor)  # once here, rather than a refusal an item
    spec = spec_of("explain_items", size, sensor, quality, options)
    census = _Census(spec, grid_options(spec))
    storage = pixels or StorageOptions()
    read = header_reader(storage) if header else None
    with storage.gdal() if header else nullcontext():
        for item, href in plain_items(items, on_error=census.refuse):
            census.add(item, href, read)
    return census.explanation(threads)


_Product = tuple[str | None, str | None]
"""(collection, sensor)."""


class _Census:
    """Counts items; what it holds does not grow with them."""

    def __init__(self, spec: IndexSpec, options: dict[str, Any]) -> None:
        self.spec, self.options = spec, options
        self.items, self.unread, self.refused = 0, 0, 0
        self.problems: list[str] = []
        self.groups: Counter[_Product] = Counter()
        self.group_chips: Counter[_Product] = Counter()
        self.group_unread: Counter[_Product] = Counter()
        self.chips, self.pixels, self.stored, self.requests = Tally(), Tally(), Tally(), Tally()
        self.memory = Tally(greatest=True)
        self.without_chips = 0

    def refuse(self, what: str, error: Exception) -> None:
        """Count an item that can't be used."""
        self.items += 1
        self.refused += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(str(error) if isinstance(error, ItemError) else f"{what}: {error}")

    def add(self, item: dict[str, Any], href: str | None, header: ReadHeader | None) -> None:
        """Count an item."""
        try:
            scene = understand_for_index(item, href, self.spec, header=header)
        except HeaderNeeded:
            self.items += 1
            self.unread += 1
            self._group(collection_of(item), self._sensor_of(item))
        except ItemError as error:
            self.refuse("", error)
        else:
            self.items += 1
            self._count(scene, item)

    def _count(self, scene: Scene, item: dict[str, Any]) -> None:
        grid = self.spec.grid(scene.grid)
        reads = file_reads(scene, grid)
        stored = stored_bytes(scene, item, reads)
        self.chips.add(Figure(len(grid), "exact", "from the items' grids"))
        self.pixels.add(pixel_bytes(scene, grid, reads))
        self.stored.add(stored)
        self.requests.add(requests(reads, stored))
        self.memory.add(Figure(scene_memory(scene, grid, reads), "estimate", ""))
        self.without_chips += not len(grid)
        self._group(scene.collection, scene.sensor, chips=len(grid))

    def _group(self, collection: str | None, sensor: str | None, *, chips: int | None = None) -> None:
        key = collection, sensor
        if key not in self.groups and len(self.groups) >= MAX_GROUPS:
            key = "(other collections)", None
        self.groups[key] += 1
        if chips is None:
            self.group_unread[key] += 1
        else:
            self.group_chips[key] += chips

    def _sensor_of(self, item: dict[str, Any]) -> str | None:
        if self.spec.sensor is not None:
            return sensors.find(self.spec.sensor).name
        found = sensors.recognise(item)
        return found[0].name if found is not None else None

    def explanation(self, threads: int | None) -> Explanation:
        """What was counted."""
        unread = f"without {self.unread:,} of which only the files know" if self.unread else ""
        height, width = self.options["size"]
        return Explanation(
            subject=f"index of items, chips of {height} x {width} pixels",
            items=Figure(self.items, "exact", "counted"),
            unread=Figure(self.unread, "exact", "header=True opens their files") if self.unread else None,
            refused=Figure(self.refused, "exact", "the reasons are below") if self.refused else None,
            chips=self.chips.figure(nothing="no item's grid is known", missing=unread),
            tasks=Figure(self.items - self.refused, "exact", "one for each item that can be used"),
            pixel_bytes=self.pixels.figure(nothing="no item's grid is known", missing=unread),
            stored_bytes=self.stored.figure(nothing="no item's grid is known", missing=unread),
            requests=self.requests.figure(nothing="no item's grid is known", missing=unread),
            memory_bytes=memory_figure(
                self.memory.value,
                max(1, self.items - self.refused),
                threads,
                "two strips of the quality band, blocks that GDAL keeps, and the table of the largest item",
            ),
            groups=tuple(
                Group(*key, number, self.group_chips[key], self.group_unread[key]) for key, number in self.groups.most_common()
            ),
            problems=tuple(self.problems),
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.without_chips:
            notes.append(f'too small for a chip: {counted(self.without_chips, "item")}; edge="pad" or "shift" gives them one')
        if self.refused:
            notes.append("build_index goes on without the items that can't be used, index_items stops at the first")
        return tuple(notes)
