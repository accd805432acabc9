"""Read items when their first chip is read, once per process, and check them against the first item of their kind."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from xchip.chips.chip_rows import ItemRef
from xchip.chips.shared_cache import SharedCache, file_stamp
from xchip.core.grid import Alignment, PixelGrid
from xchip.core.scene import Band, ItemError, Scene
from xchip.io.gdal import is_remote
from xchip.io.storage import StorageOptions
from xchip.raster.header import read_header
from xchip.raster.reader import BandSource, fill_value
from xchip.sensors.profile import SensorProfile
from xchip.stac.inputs import is_absolute, plain_items, resolved
from xchip.stac.scene.sentinel2_offset import Harmonize, harmonized
from xchip.stac.scene.understand import collection_of, understand
from xchip.stac.stack.variables import make_column

KEPT_SCENES = 512
"""Number of items that a process keeps; each takes about 20 kB."""


_ONE_OFFSET = "pass harmonize=True to bring Sentinel-2's values to one offset, or harmonize=0 to take them as they are"


@dataclass(frozen=True)
class ChipBand:
    """A variable of the chips, the same for all of them."""

    name: str
    dtype: np.dtype
    fill: np.generic
    """What pixels outside of the item hold: nodata, or 0 where none is declared."""
    attrs: dict[str, Any] = field(compare=False)


@dataclass(frozen=True)
class Kind:
    """The bands of the items of one collection and sensor, as its first item has them."""

    item_id: str
    """That item."""
    names: frozenset[str]
    """The bands that it has."""
    files: tuple[tuple[int, ...], ...]
    """Numbers of bands that lie in one file each, and are read together."""
    blocks: tuple[tuple[int, int], ...]
    """(height, width) of files' blocks in pixels of the scene's grid, where known."""
    remote: bool
    """Whether its files are read over a network."""
    radiometry: Mapping[str, tuple[Any, ...]]
    """What its values mean, by band; see `radiometry_of`."""


@dataclass(frozen=True)
class PlacedBand:
    """A band of one item, on the item's scene grid."""

    number: int
    """Which of the chips' bands."""
    source: BandSource
    relation: Alignment | None
    """How its pixels lie under the scene's; None: it is warped."""

    @property
    def band(self) -> Band:
        """The band itself."""
        return self.source.band


@dataclass(frozen=True)
class PlacedScene:
    """What chips of an item need to know of it."""

    item_id: str
    grid: PixelGrid
    """The scene's pixels."""
    files: tuple[tuple[PlacedBand, ...], ...]
    """The bands by file: those of one file have one grid."""
    absent: tuple[int, ...]
    """Numbers of the bands that items of this kind lack."""


_SCENES: SharedCache[Scene] = SharedCache(KEPT_SCENES, cost=lambda scene: 1)
_PLACED: SharedCache[PlacedScene] = SharedCache(KEPT_SCENES, cost=lambda scene: 1)


@dataclass(frozen=True)
class GivenItem:
    """An item that the caller passed."""

    item: dict[str, Any]
    href: str | None

    @cached_property
    def digest(self) -> str:
        """Tells it from others of the same id."""
        return hashlib.sha256(json.dumps(self.item, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Items:
    """Where items come from and what is asked of them."""

    assets: tuple[str, ...] | None
    """Names of bands; None: the default ones."""
    sensor: SensorProfile | str | None
    """In place of what the index says."""
    given: Mapping[ItemRef, GivenItem] | None
    """The items that the caller passed; None: each is read from its href."""
    storage: StorageOptions
    """How their JSON is reached."""
    pixels: StorageOptions
    """How their rasters are reached."""
    harmonize: Harmonize = False
    """What is done about Sentinel-2's offset, as for `xchip.stack`."""

    def only(self, refs: Sequence[ItemRef]) -> Items:
        """The same for a few items: what travels to a task."""
        return self if self.given is None else replace(self, given={ref: self.given[ref] for ref in refs})

    @cached_property
    def _question(self) -> bytes:
        """What is asked, as part of the cache's keys."""
        return hashlib.sha256(pickle.dumps((self.assets, self.sensor, self.storage, self.pixels, self.harmonize))).digest()

    def scene(self, ref: ItemRef) -> Scene:
        """An item, read and understood, once a process. Files are opened only for a grid, CRS or data type that it does not tell.

        Raises
        ------
        ItemError
            If its JSON can't be read, or can't be understood.
        """
        return _SCENES.get(self._key(ref), lambda: self._understood(ref))

    def placed(self, ref: ItemRef, bands: Sequence[ChipBand], kind: Kind) -> PlacedScene:
        """Return `scene` as placed bands, checked against ``bands``.

        Raises
        ------
        ItemError
            If the item can't be read, or differs from the first item of its kind.
        """
        promised = tuple((band.name, band.dtype.str, repr(band.fill)) for band in bands)
        return _PLACED.get((self._key(ref), kind.item_id, kind.names, promised), lambda: place(self.scene(ref), bands, kind))

    def _key(self, ref: ItemRef) -> Hashable:
        own = self.given[ref].digest if self.given is not None else file_stamp(ref.href)
        return ref, own, self._question

    def _understood(self, ref: ItemRef) -> Scene:
        found = self.given[ref] if self.given is not None else self._read(ref)
        sensor = self.sensor if self.sensor is not None else ref.sensor
        with self.pixels.gdal():
            scene = understand(
                found.item,
                href=found.href,
                sensor=sensor,
                assets=self.assets,
                header=lambda href: read_header(self.pixels.sign(href)),
            )
        return harmonized(scene, self.harmonize)

    def _read(self, ref: ItemRef) -> GivenItem:
        href = ref.href
        way_out = "pass the items with items="
        if href is None:
            raise ItemError(ref.item_id, f"the index has no item_href for it; {way_out}")
        if not is_absolute(href):
            raise ItemError(
                ref.item_id,
                f"its item_href {href!r} is relative to an archive's root; open the index with xchip.read_index or "
                f"xchip.open_index, which make it absolute, or {way_out}",
            )
        try:
            fs, path = self.storage.filesystem(href)
            item = json.loads(fs.cat_file(path))
        except (OSError, ValueError) as error:
            raise ItemError(ref.item_id, f"its JSON {href!r} can't be read: {error}; {way_out}") from error
        if not isinstance(item, dict) or item.get("id") != ref.item_id:
            found = f"item {item.get('id')!r}" if isinstance(item, dict) else "no item"
            raise ItemError(ref.item_id, f"{href!r} holds {found}; {way_out}")
        return GivenItem(resolved(item, href), href)


def given_items(items: Any, refs: Sequence[ItemRef]) -> dict[ItemRef, GivenItem]:
    """Which of ``items`` each row of the index means, by collection and id.

    Raises
    ------
    ValueError
        If one is missing, or there are several of one id.
    """
    by_id: dict[str, list[GivenItem]] = {}
    for item, href in plain_items(items):
        by_id.setdefault(str(item.get("id")), []).append(GivenItem(item, href))
    found = {}
    for ref in refs:
        same = by_id.get(ref.item_id, [])
        if len(same) > 1:
            same = [given for given in same if collection_of(given.item) == ref.collection]
        if len(same) != 1:
            raise ValueError(
                f"items= has {len(same) or 'no'} item{'s' if same else ''} {ref.item_id!r} of collection {ref.collection!r}, of "
                "which the index has chips; pass each once"
            )
        found[ref] = same[0]
    return found


def survey(items: Items, refs: Sequence[ItemRef]) -> tuple[tuple[ChipBand, ...], dict[Any, Kind]]:
    """(the chips' bands, what each kind of items has of them): from the first item of each collection and sensor.

    Raises
    ------
    ItemError
        If such an item can't be used, or collections of one sensor have Sentinel-2's offset and not.
    ValueError
        If kinds declare different nodata values for a band.
    """
    scenes: dict[Any, Scene] = {}
    for ref in refs:
        if ref.kind not in scenes:
            scenes[ref.kind] = items.scene(ref)
    _check_offsets(list(scenes.values()))
    names = list(dict.fromkeys(band.name for scene in scenes.values() for band in scene.bands))
    bands = tuple(_chip_band(name, list(scenes.values())) for name in names)
    return bands, {kind: _kind(scene, names) for kind, scene in scenes.items()}


def _check_offsets(scenes: Sequence[Scene]) -> None:
    """Collections may scale values in their own ways, and different sensors do; but one catalogue's copy of Sentinel-2 has the
    offset of baseline 04.00 and another's has not, and nothing in the chips would tell."""
    first: dict[tuple[str | None, str], tuple[Scene, float]] = {}
    for scene in scenes:
        for band in scene.bands:
            lacking = radiometry_of(band)[2]
            if lacking is None:
                continue
            other, known = first.setdefault((scene.sensor, band.name), (scene, lacking))
            if lacking != known:
                raise ItemError(
                    scene.item_id,
                    f"to be as before Sentinel-2's processing baseline 04.00, asset {band.asset!r} needs {lacking:g} added, and "
                    f"item {other.item_id!r} of collection {other.collection!r} {known:g}: {_ONE_OFFSET}",
                )


def _chip_band(name: str, scenes: Sequence[Scene]) -> ChipBand:
    columns = {
        scene.item_id: make_column(name, [scene], scene.grid, resampling="nearest", rescale=False)
        for scene in scenes
        if any(band.name == name for band in scene.bands)
    }
    dtype = np.result_type(*(column.dtype for column in columns.values()))
    declared = {item_id: column.attrs["_FillValue"] for item_id, column in columns.items() if "_FillValue" in column.attrs}
    if len({repr(float(value)) for value in declared.values()}) > 1:
        told = " and ".join(f"{value} in item {item_id!r}" for item_id, value in declared.items())
        raise ValueError(f"band {name!r} has nodata {told}, and chips can have one; open the chips of these collections apart")
    first, *others = columns.values()
    attrs = {
        key: value for key, value in first.attrs.items() if all(repr(other.attrs.get(key)) == repr(value) for other in others)
    }
    attrs.pop("boa_offset_origin", None)
    if "harmonized" in attrs:
        attrs.pop("boa_offset", None)  # what was undone may differ from item to item
    nodata = next((float(value) for value in declared.values()), None)
    fill = fill_value(dtype, nodata)
    if nodata is not None:
        attrs["_FillValue"] = fill
    return ChipBand(name, dtype, fill, attrs)


def _kind(scene: Scene, names: Sequence[str]) -> Kind:
    by_file: dict[Any, list[int]] = {}
    blocks = []
    for band in scene.bands:
        by_file.setdefault((band.href, band.grid), []).append(names.index(band.name))
        relation = BandSource(scene.item_id, band, scene.grid).alignment("nearest")
        if band.block is not None and relation is not None and min(relation.y.factor, relation.x.factor) > 0:
            blocks.append((band.block[0] * relation.y.factor, band.block[1] * relation.x.factor))
    return Kind(
        item_id=scene.item_id,
        names=frozenset(band.name for band in scene.bands),
        files=tuple(map(tuple, by_file.values())),
        blocks=tuple(sorted(set(blocks))),
        remote=any(is_remote(band.href) for band in scene.bands),
        radiometry={band.name: radiometry_of(band) for band in scene.bands},
    )


def radiometry_of(band: Band) -> tuple[Any, ...]:
    """(scale, offset, what values lack to be as before Sentinel-2's processing baseline 04.00; None: nothing, or undecided)."""
    decision = band.boa_offset
    lacking = None if decision is None or decision.offset is None else decision.offset - band.dn_offset
    return band.scale, band.offset, lacking


def place(scene: Scene, bands: Sequence[ChipBand], kind: Kind) -> PlacedScene:
    """The bands of a scene that chips have, by file.

    Raises
    ------
    ItemError
        If one is missing, or is not what the first item of its kind promised.
    """
    own = {band.name: band for band in scene.bands}
    by_file: dict[Any, list[PlacedBand]] = {}
    absent = []
    for number, wanted in enumerate(bands):
        if wanted.name not in kind.names:
            absent.append(number)
            continue
        band = own.get(wanted.name)
        problem = _problem(band, wanted, kind.radiometry[wanted.name])
        if problem or band is None:
            first = f"as in item {kind.item_id!r}, the first of its collection and sensor"
            raise ItemError(scene.item_id, f"{problem}, {first}; open its chips apart")
        source = BandSource(scene.item_id, band, scene.grid)
        placed = PlacedBand(number, source, source.alignment("nearest"))
        by_file.setdefault((band.href, band.grid), []).append(placed)
    return PlacedScene(scene.item_id, scene.grid, tuple(map(tuple, by_file.values())), tuple(absent))


def _problem(band: Band | None, wanted: ChipBand, radiometry: tuple[Any, ...]) -> str | None:
    """How a band differs from what was promised."""
    if band is None:
        return f"it has no band {wanted.name!r}"
    asset, chips = f"asset {band.asset!r}", f"the chips' band {wanted.name!r}"
    if not np.can_cast(band.dtype, wanted.dtype, "safe"):
        return f"{asset} holds {band.dtype}, and {chips} is {wanted.dtype}"
    if band.nodata is not None and repr(fill_value(wanted.dtype, band.nodata)) != repr(wanted.fill):
        return f"{asset} has nodata {band.nodata}, and {chips} has {wanted.fill}"
    if radiometry_of(band) != radiometry:
        names = ("scale", "offset", "boa_offset")
        mine, others = (dict(zip(names, values, strict=True)) for values in (radiometry_of(band), radiometry))
        return f"{asset} has {mine}: {_ONE_OFFSET}; {chips} has {others}"
    return None
