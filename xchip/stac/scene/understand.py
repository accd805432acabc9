"""STAC items -> `Scene`: any published item in one known form, or a refusal that says what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xchip.core.grid import PixelGrid
from xchip.core.quality import NODATA, NodataRule, QualityRule, values
from xchip.core.scene import Band, Header, ItemError, Scene
from xchip.sensors.profile import BandSpec, SensorProfile
from xchip.sensors.registry import band_called, find, identity, plain_key, recognise, renamed, rule_by_name
from xchip.stac.fields import FieldError, mapping, moment, numbers, text
from xchip.stac.inputs import plain_items
from xchip.stac.scene.assets import Raster, describe_assets, radar_geometry, raster_assets, shown, stem
from xchip.stac.scene.bands import Files, HeaderNeeded, RawBand, check_ground, mask_band, match_profile, pixel_size
from xchip.stac.scene.classification import published_rules
from xchip.stac.scene.finest_grid import finest_of_profile, finest_of_rasters
from xchip.stac.scene.projection import covers

__all__ = ["HeaderNeeded", "ItemError", "plain_items", "scenes", "understand"]

ReadHeader = Callable[[str], Header]


def scenes(
    items: Any,
    *,
    sensor: str | SensorProfile | None = None,
    assets: str | Iterable[str] | None = None,
    header: ReadHeader | None = None,
) -> list[Scene]:
    """Each of ``items`` understood; see `plain_items` for what they may be and `understand` for the rest."""
    asked = assets if assets is None or isinstance(assets, str) else list(assets)
    return [understand(item, href=href, sensor=sensor, assets=asked, header=header) for item, href in plain_items(items)]


def understand(
    item: Mapping[str, Any],
    *,
    href: str | None = None,
    sensor: str | SensorProfile | None = None,
    assets: str | Iterable[str] | None = None,
    header: ReadHeader | None = None,
) -> Scene:
    """What an item holds: grid, bands, quality, and where each was found.

    Parameters
    ----------
    item
        A STAC item as plain JSON, version 0.7 to 1.1.
    href
        Where its JSON is; relative asset hrefs are resolved against it.
    sensor
        A profile or its name; None: recognised by the item.
    assets
        Names of bands: asset keys, common names or the profile's names. Variables bear these names. None: the profile's
        bands and quality band; without a profile all rasters but thumbnails, overviews, pictures and second copies.
    header
        Reads a file's header. Called only where grid, CRS or data type are in neither the metadata nor the profile.

    Raises
    ------
    HeaderNeeded
        If a file must be opened and ``header`` is None.
    ItemError
        If the item can't be used; the message names what is missing and the way out.
    ValueError
        If ``sensor`` is not known.

    Examples
    --------
    >>> item = {
    ...     "type": "Feature", "id": "S2A_20HNJ", "collection": "sentinel-2-l2a",
    ...     "properties": {"datetime": "2024-03-11T14:06:36Z", "proj:code": "EPSG:32720"},
    ...     "assets": {
    ...         "B04": {"href": "s3://b/B04.tif", "proj:shape": [1098, 1098], "proj:transform": [10, 0, 499980, 0, -10, 6400000]},
    ...         "SCL": {"href": "s3://b/SCL.tif", "proj:shape": [549, 549], "proj:transform": [20, 0, 499980, 0, -20, 6400000]},
    ...     },
    ... }
    >>> scene = understand(item)
    >>> scene.sensor, scene.grid.shape, [band.name for band in scene.bands], scene.rule.band
    ('sentinel-2-l2a', (1098, 1098), ['B04', 'SCL'], 'SCL')
    """
    if not isinstance(item, Mapping):
        raise ItemError("?", f"a {type(item).__name__} is no STAC item; pass it through plain_items first")
    item_id = item.get("id")
    if not isinstance(item_id, str) or not item_id:
        raise ItemError(str(item_id), "it has no id; a STAC item needs one")
    given = find(sensor) if sensor is not None else None
    asked = None if assets is None else tuple(dict.fromkeys([assets] if isinstance(assets, str) else assets))
    try:
        return _Reading(item, item_id, href, given, header).scene(asked)
    except FieldError as error:
        raise ItemError(item_id, f"{error}; correct the item, or leave the field out") from error


@dataclass(frozen=True)
class _Choice:
    """A band that is wanted, and the name that it shall bear."""

    name: str
    part: RawBand


class _Reading:
    """One item on its way to a `Scene`: the steps share its rasters, its profile and the headers that were read."""

    def __init__(
        self, item: Mapping[str, Any], item_id: str, href: str | None, sensor: SensorProfile | None, header: ReadHeader | None
    ) -> None:
        self.item, self.item_id, self.href = item, item_id, href
        self.properties = mapping(item.get("properties"))
        self.rasters = raster_assets(item, href)
        self.by_key = {raster.key: raster for raster in self.rasters}
        self.origins: dict[str, str] = {}
        if not mapping(item.get("assets")):
            raise ItemError(item_id, "it has no assets; a scene needs at least one raster")
        self.profile, self.origins["sensor"] = self._recognise(sensor)
        if sensor is None and self.profile is None and (radar := radar_geometry(item)):
            raise ItemError(
                item_id,
                f"its rasters are in radar geometry ({radar}), which no pixel grid describes, whatever proj:transform says; use "
                "a terrain-corrected product such as sentinel-1-rtc, or, if the files are geocoded, pass sensor='sentinel-1-rtc'",
            )
        if not self.rasters:
            raise ItemError(
                item_id,
                "it has no raster that can be read (looked for GeoTIFF and JPEG2000 by media type and extension); its assets are "
                f"{describe_assets(item)}; convert them to Cloud Optimized GeoTIFF, or use another catalogue's item",
            )
        self.files = Files(item, item_id, header, self.profile, {}, {}, {})
        self.matched = self._match(sensor)
        specs: dict[str, tuple[BandSpec, ...]] = {}
        for spec, raster in self.matched.values():
            specs[raster.key] = (*specs.get(raster.key, ()), spec)
        self.files = Files(item, item_id, header, self.profile, specs, {}, self.files._grids)
        self._parts: dict[str, tuple[RawBand, ...]] = {}

    # -- sensor ----------------------------------------------------------------------------------------------------

    def _recognise(self, sensor: SensorProfile | None) -> tuple[SensorProfile | None, str]:
        if sensor is not None:
            return sensor, "the argument"
        found = recognise(self.item)
        return (
            found if found is not None else (None, "not recognised: neither by its collection nor by platform, level and bands")
        )

    def _match(self, sensor: SensorProfile | None) -> dict[str, tuple[BandSpec, Raster]]:
        if self.profile is None:
            return {}
        matched = match_profile(self.profile, self.item, self.rasters, lambda raster: pixel_size(self.files, raster))
        if matched:
            return matched
        if sensor is not None:
            raise ItemError(
                self.item_id,
                f"none of its rasters ({', '.join(self.by_key)}) is a band of sensor {sensor.name!r} "
                f"({', '.join(dict.fromkeys(spec.name for spec in sensor.bands))}); leave sensor= out, or pass the right one",
            )
        self.origins["sensor"] = f"collection of {self.profile.name}, but none of its bands is there: taken as unknown"
        self.profile = None
        return {}

    # -- which bands -----------------------------------------------------------------------------------------------

    def parts(self, raster: Raster) -> tuple[RawBand, ...]:
        if raster.key not in self._parts:
            self._parts[raster.key] = self.files.parts(raster)
        return self._parts[raster.key]

    def part_of(self, spec: BandSpec, raster: Raster) -> RawBand | None:
        """The part of ``raster`` that is the profile's band; None where the file has fewer bands."""
        return next((part for part in self.parts(raster) if part.spec is spec), None)

    def quality_spec(self) -> tuple[QualityRule, BandSpec, Raster] | None:
        """The profile's first rule whose band is there."""
        for rule in self.profile.quality if self.profile else ():
            if rule.band in self.matched:
                return rule, *self.matched[rule.band]
        return None

    @cached_property
    def default_rasters(self) -> list[Raster]:
        """Without a profile: the rasters that are stacked unasked, one copy of each band."""
        copies: dict[Any, list[Raster]] = {}
        for raster in shown(self.rasters):
            copies.setdefault(stem(raster), []).append(raster)
        finest = {
            (same[0] if len(same) == 1 else min(same, key=lambda raster: pixel_size(self.files, raster))).key
            for same in copies.values()
        }
        return [raster for raster in self.rasters if raster.key in finest]

    def default_parts(self, grid: PixelGrid) -> list[RawBand]:
        if self.profile is not None:
            quality_bands = self.profile.quality_bands
            chosen = [pair for name, pair in self.matched.items() if pair[0].default and name not in quality_bands]
            quality = self.quality_spec()
            chosen += [quality[1:]] if quality else []
            parts = [part for spec, raster in chosen or self.matched.values() if (part := self.part_of(spec, raster)) is not None]
            rest = [part for raster in {p.raster.key: p.raster for p in parts}.values() for part in self.parts(raster)]
            # Bands that the profile does not list, such as infrared in a file of red, green and blue.
            return parts + [part for part in rest if part.spec is None]
        kept = [raster for raster in self.default_rasters if covers(self.files.grid(raster)[0], grid)]
        left_out = [key for key in (raster.key for raster in self.default_rasters) if key not in {raster.key for raster in kept}]
        if left_out:
            self.origins["left out"] = f"{', '.join(left_out)}: on other ground or in another CRS; ask for them by name"
        return [part for raster in kept for part in self.parts(raster)]

    def find(self, name: Any) -> list[_Choice]:
        """The bands that a caller means by ``name``."""
        if not isinstance(name, str):
            raise ItemError(self.item_id, f"assets must be names, got {name!r}")
        by_spelling = [raster for raster in self.rasters if plain_key(raster.key) == plain_key(name)]
        if name in self.by_key:
            return self._whole(name, self.by_key[name])
        if self.profile is not None:
            spec = band_called(self.profile, name, self.profile.variant_of(identity(self.item)))
            if spec is not None and spec.name in self.matched:
                part = self.part_of(*self.matched[spec.name])
                if part is not None:
                    return [_Choice(name, part)]
        if len(by_spelling) == 1:
            return self._whole(name, by_spelling[0])
        usual = self.default_rasters
        others = [raster for raster in self.rasters if raster.key not in {one.key for one in usual}]
        for rasters in (usual, others):
            for attribute in ("name", "common_name"):
                found = [(r, n) for r in rasters for n, band in enumerate(r.bands, 1) if getattr(band, attribute) == name]
                if len(found) > 1:
                    several = ", ".join(f"{raster.key} (band {n})" for raster, n in found)
                    raise ItemError(self.item_id, f"{name!r} may be any of {several}; ask by the asset's key")
                for raster, n in found:
                    return [_Choice(name, part) for part in self.parts(raster) if part.index == n]
        for raster in self.rasters:
            for part in self.parts(raster) if name.startswith(raster.key) else ():
                if part.name == name:
                    return [_Choice(name, part)]
        if name in mapping(self.item.get("assets")):
            raise ItemError(self.item_id, f"asset {name!r} is no raster that can be read; rasters are {', '.join(self.by_key)}")
        common = dict.fromkeys(b.common_name for r in usual for b in r.bands if b.common_name)
        known = [name for name in self.matched if name not in self.by_key]
        raise ItemError(
            self.item_id,
            f"it has no asset {name!r}; there are {', '.join(self.by_key)}"
            + (f"; common names {', '.join(common)}" if common else "")
            + (f"; names of sensor {self.profile.name!r}: {', '.join(known)}" if self.profile and known else ""),
        )

    def _whole(self, name: str, raster: Raster) -> list[_Choice]:
        parts = self.parts(raster)
        if len(parts) == 1:
            return [_Choice(name, parts[0])]
        return [_Choice(part.name.replace(raster.key, name, 1) if part.spec is None else part.name, part) for part in parts]

    # -- grid ------------------------------------------------------------------------------------------------------

    def grid(self) -> PixelGrid:
        """The scene's pixels: the finest among the profile's default bands, or among the data assets."""
        if self.profile is not None:
            raster, grid, where = finest_of_profile(self.files, self.matched.values())
        else:
            raster, grid, where = finest_of_rasters(self.files, self.default_rasters)
        place, _, crs = where.partition("; CRS: ")
        self.origins["grid"] = f"{place}, of {raster.key!r}"
        self.origins["crs"] = crs or place
        return grid

    # -- quality ---------------------------------------------------------------------------------------------------

    def quality(self, grid: PixelGrid, named: Mapping[tuple[str, int], str]) -> tuple[QualityRule | NodataRule, list[_Choice]]:
        """The rule and the bands that it reads, under the names that they have in the stack."""

        def called(part: RawBand) -> str:
            return named.get((part.raster.key, part.index), part.name)

        found = self.quality_spec()
        if found is not None:
            rule, spec, raster = found
            part = self.part_of(spec, raster)
            if part is not None:
                self.origins["quality"] = f"profile {self.profile.name if self.profile else ''}: {rule.source}"
                return renamed(rule, called(part)), [_Choice(called(part), part)]
        roles = {raster.key: raster.roles for raster in self.rasters}
        readable = {raster.key: raster.fields for raster in self.rasters}
        for key, published in published_rules(readable, roles):
            part = next((part for part in self.parts(self.by_key[key]) if part.index == published.index), None)
            if part is not None:
                self.origins["quality"] = published.rule.source
                return renamed(published.rule, called(part)), [_Choice(called(part), part)]
        if self.profile is None:
            for raster in self.rasters:
                known = rule_by_name(raster.key)
                if known is not None:
                    part = self.parts(raster)[0]
                    self.origins["quality"] = known.source
                    return renamed(known, called(part)), [_Choice(called(part), part)]
        return self._nodata_rule(grid, called)

    def _nodata_rule(self, grid: PixelGrid, called: Callable[[RawBand], str]) -> tuple[NodataRule, list[_Choice]]:
        usual = self.default_parts(grid)
        data = [part for part in usual if part.raster.is_data] or usual
        if self.profile is None:
            reason = "the item publishes no classes of a quality band, and its product is not known"
        elif self.profile.quality:
            reason = f"the item has no band {' or '.join(self.profile.quality_bands)} of {self.profile.name}"
        else:
            reason = f"{self.profile.name} has no quality band"
        self.origins["quality"] = f"nodata of the data bands, because {reason}"
        return NodataRule(tuple(called(part) for part in data), source=reason), [_Choice(called(part), part) for part in data]

    # -- all together ----------------------------------------------------------------------------------------------

    def scene(self, asked: Sequence[Any] | None) -> Scene:
        if asked is not None and not asked:
            raise ItemError(self.item_id, "assets is empty; name at least one, or leave it out for the default bands")
        moment_of, self.origins["datetime"] = self._datetime()
        grid = self.grid()
        if asked is None:
            chosen = [_Choice(part.name, part) for part in self.default_parts(grid)]
            self.origins["bands"] = f"bands of {self.profile.name}" if self.profile else "the item's rasters"
        else:
            chosen = [choice for name in asked for choice in self.find(name)]
            self.origins["bands"] = "asked for by name"
        names = [choice.name for choice in chosen]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ItemError(self.item_id, f"two bands would be called {twice!r}; ask for them by other names, with assets=")
        named = {(choice.part.raster.key, choice.part.index): choice.name for choice in reversed(chosen)}
        rule, quality = self.quality(grid, named)
        bands = tuple(self.files.band(choice.part, choice.name) for choice in chosen)
        read = tuple(self.files.band(choice.part, choice.name) for choice in quality)
        if self.grid() != grid:
            return self.scene(asked)  # a file that was opened for its data type has other pixels than its item says
        mask = mask_band(read, names) if isinstance(rule, NodataRule) else None
        # Bands that declare nodata are judged by that as well, band by band.
        if mask is not None and all(band.nodata is None and not band.dtype.startswith(("float", "complex")) for band in read):
            read = (mask,)
            rule = values(mask.name, {NODATA: [0]}, source=f"the mask of the file of asset {mask.asset!r}: {rule.source}")
            self.origins["quality"] = rule.source
            mask = None
        check_ground(self.item_id, (*bands, *read), grid)
        self._note_hrefs((*bands, *read))
        boa_offset = self.files.item_offset(self.matched)
        if boa_offset is not None:
            self.origins["offset"] = f"{'undecided' if boa_offset.offset is None else boa_offset.offset}: {boa_offset.origin}"
        return Scene(
            item_id=self.item_id,
            collection=collection_of(self.item),
            href=self.href,
            datetime=moment_of,
            sensor=self.profile.name if self.profile else None,
            grid=grid,
            bands=bands,
            rule=rule,
            quality=read,
            bbox=bbox_of(self.item.get("bbox")),
            block=next((band.block for band in (*bands, *read) if band.block and band.grid.res == grid.res), None),
            mask=mask,
            boa_offset=boa_offset,
            origins=self.origins,
        )

    def _datetime(self) -> tuple[Any, str]:
        for field in ("datetime", "start_datetime", "end_datetime"):
            found = moment(self.properties.get(field), field)
            if found is not None:
                return found, field
        raise ItemError(
            self.item_id, "it has no date (looked in datetime, start_datetime, end_datetime); add one to its properties"
        )

    def _note_hrefs(self, bands: Sequence[Band]) -> None:
        why = next((self.by_key[b.asset].href_origin for b in bands if self.by_key[b.asset].href_origin), "")
        if why:
            self.origins["hrefs"] = why


def collection_of(item: Mapping[str, Any]) -> str | None:
    """Id of an item's collection; STAC 0.7 had it among the properties."""
    return text(item.get("collection")) or text(mapping(item.get("properties")).get("collection"))


def bbox_of(value: Any) -> tuple[float, float, float, float] | None:
    """(west, south, east, north); None where it is missing, or holds something else than four or six numbers."""
    try:
        found = numbers(value, "bbox", (4, 6))
    except FieldError:
        return None  # for information only: nothing is read by it
    if found is None:
        return None
    return (found[0], found[1], found[3], found[4]) if len(found) == 6 else (found[0], found[1], found[2], found[3])
