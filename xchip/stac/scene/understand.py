"""Convert published STAC items to `Scene` values; errors name what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from xchip.core.grid import PixelGrid
from xchip.core.quality import NODATA, NodataRule, QualityRule, values
from xchip.core.scene import Band, Header, ItemError, Scene
from xchip.core.types import JSON, Assets, BBox, Items
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
"""Reads the header of the file at an href."""


def scenes(
    items: Items,
    *,
    sensor: str | SensorProfile | None = None,
    assets: Assets = None,
    header: ReadHeader | None = None,
) -> list[Scene]:
    """Convert ``items`` (see `plain_items`) to scenes; the other parameters are those of `understand`."""
    names = assets if assets is None or isinstance(assets, str) else list(assets)
    return [understand(item, href=href, sensor=sensor, assets=names, header=header) for item, href in plain_items(items)]


def understand(
    item: JSON,
    *,
    href: str | None = None,
    sensor: str | SensorProfile | None = None,
    assets: Assets = None,
    header: ReadHeader | None = None,
) -> Scene:
    """Read the grid, bands and quality rule of an item, and record the origin of each.

    Parameters
    ----------
    item
        A STAC item as plain JSON, version 0.7 to 1.1.
    href
        Path or URL of its JSON; relative asset hrefs are resolved against it.
    sensor
        A profile or its name. None: recognised from the item.
    assets
        Names of bands: asset keys, common names or the profile's names; the variables have these names. None: the profile's
        bands and quality band; without a profile all rasters except thumbnails, overviews, pictures and second copies.
    header
        Reads a file's header. Called only if grid, CRS or data type are in neither the metadata nor the profile.

    Raises
    ------
    HeaderNeeded
        If a file must be opened and ``header`` is None.
    ItemError
        If the item can't be used; the message names what is missing and how to add it.
    ValueError
        If ``sensor`` is unknown.

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
        raise ItemError("?", f"a {type(item).__name__} is not a STAC item; pass it through plain_items first")
    item_id = item.get("id")
    if not isinstance(item_id, str) or not item_id:
        raise ItemError(str(item_id), "it has no id; a STAC item needs one")
    profile = find(sensor) if sensor is not None else None
    names = None if assets is None else tuple(dict.fromkeys([assets] if isinstance(assets, str) else assets))
    try:
        return _SceneBuilder(item, item_id, href, profile, header).scene(names)
    except FieldError as error:
        raise ItemError(item_id, f"{error}; correct or remove the field") from error


@dataclass(frozen=True)
class _Choice:
    """A requested band and the name of its variable."""

    name: str
    part: RawBand


class _SceneBuilder:
    """Builds the `Scene` of an item; the steps share the rasters, the profile and the headers that were read."""

    def __init__(
        self, item: JSON, item_id: str, href: str | None, sensor: SensorProfile | None, header: ReadHeader | None
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
                f"its rasters are in radar geometry ({radar}), which a pixel grid can't describe, even with proj:transform; use "
                "a terrain-corrected product such as sentinel-1-rtc, or, if the files are geocoded, pass sensor='sentinel-1-rtc'",
            )
        if not self.rasters:
            raise ItemError(
                item_id,
                "it has no readable raster (looked for GeoTIFF and JPEG2000 by media type and extension); its assets are "
                f"{describe_assets(item)}; convert them to Cloud Optimized GeoTIFF, or use the item of another catalogue",
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
        return recognise(self.item) or (None, "not recognised, neither by its collection nor by platform, level and bands")

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
                f"({', '.join(dict.fromkeys(spec.name for spec in sensor.bands))}); leave out sensor=, or pass another sensor",
            )
        self.origins["sensor"] = f"collection of {self.profile.name}, but without any of its bands: treated as unknown"
        self.profile = None
        return {}

    # -- bands -----------------------------------------------------------------------------------------------------

    def parts(self, raster: Raster) -> tuple[RawBand, ...]:
        if raster.key not in self._parts:
            self._parts[raster.key] = self.files.parts(raster)
        return self._parts[raster.key]

    def part_of(self, spec: BandSpec, raster: Raster) -> RawBand | None:
        """Return the part of ``raster`` that is the profile's band; None if the file has fewer bands."""
        return next((part for part in self.parts(raster) if part.spec is spec), None)

    def quality_spec(self) -> tuple[QualityRule, BandSpec, Raster] | None:
        """Return the profile's first rule whose band the item has."""
        for rule in self.profile.quality if self.profile else ():
            if rule.band in self.matched:
                return rule, *self.matched[rule.band]
        return None

    @cached_property
    def default_rasters(self) -> list[Raster]:
        """The rasters that are stacked by default without a profile, one copy of each band."""
        copies: dict[object, list[Raster]] = {}
        for raster in shown(self.rasters):
            copies.setdefault(stem(raster), []).append(raster)
        finest = {
            (rasters[0] if len(rasters) == 1 else min(rasters, key=lambda raster: pixel_size(self.files, raster))).key
            for rasters in copies.values()
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
            # The rest are bands that the profile does not list, such as infrared in a file of red, green and blue.
            return parts + [part for part in rest if part.spec is None]
        covering = [raster for raster in self.default_rasters if covers(self.files.grid(raster)[0], grid)]
        skipped = [raster.key for raster in self.default_rasters if raster not in covering]
        if skipped:
            self.origins["left out"] = f"{', '.join(skipped)}: elsewhere or in another CRS; request them by name"
        return [part for raster in covering for part in self.parts(raster)]

    def find(self, name: object) -> list[_Choice]:
        """Return the bands called ``name``."""
        if not isinstance(name, str):
            raise ItemError(self.item_id, f"assets must be names, got {name!r}")
        if name in self.by_key:
            return self._whole(name, self.by_key[name])
        if self.profile is not None:
            spec = band_called(self.profile, name, self.profile.variant_of(identity(self.item)))
            if spec is not None and spec.name in self.matched:
                part = self.part_of(*self.matched[spec.name])
                if part is not None:
                    return [_Choice(name, part)]
        by_spelling = [raster for raster in self.rasters if plain_key(raster.key) == plain_key(name)]
        if len(by_spelling) == 1:
            return self._whole(name, by_spelling[0])
        defaults = self.default_rasters
        rest = [raster for raster in self.rasters if raster.key not in {default.key for default in defaults}]
        for rasters in (defaults, rest):
            for attribute in ("name", "common_name"):
                matches = [(r, n) for r in rasters for n, band in enumerate(r.bands, 1) if getattr(band, attribute) == name]
                if len(matches) > 1:
                    bands = ", ".join(f"{raster.key} (band {n})" for raster, n in matches)
                    raise ItemError(self.item_id, f"{name!r} may be any of {bands}; use the asset's key")
                for raster, n in matches:
                    return [_Choice(name, part) for part in self.parts(raster) if part.index == n]
        for raster in self.rasters:
            for part in self.parts(raster) if name.startswith(raster.key) else ():
                if part.name == name:
                    return [_Choice(name, part)]
        if name in mapping(self.item.get("assets")):
            raise ItemError(self.item_id, f"asset {name!r} is not a readable raster; rasters are {', '.join(self.by_key)}")
        common = dict.fromkeys(b.common_name for r in defaults for b in r.bands if b.common_name)
        sensor_names = [name for name in self.matched if name not in self.by_key]
        raise ItemError(
            self.item_id,
            f"it has no asset {name!r}; there are {', '.join(self.by_key)}"
            + (f"; common names {', '.join(common)}" if common else "")
            + (f"; names of sensor {self.profile.name!r}: {', '.join(sensor_names)}" if self.profile and sensor_names else ""),
        )

    def _whole(self, name: str, raster: Raster) -> list[_Choice]:
        parts = self.parts(raster)
        if len(parts) == 1:
            return [_Choice(name, parts[0])]
        return [_Choice(part.name.replace(raster.key, name, 1) if part.spec is None else part.name, part) for part in parts]

    # -- grid ------------------------------------------------------------------------------------------------------

    def grid(self) -> PixelGrid:
        """Return the scene's grid: the finest among the profile's default bands, or among the data assets."""
        if self.profile is not None:
            raster, grid, origin = finest_of_profile(self.files, self.matched.values())
        else:
            raster, grid, origin = finest_of_rasters(self.files, self.default_rasters)
        grid_origin, _, crs_origin = origin.partition("; CRS: ")
        self.origins["grid"] = f"{grid_origin}, of {raster.key!r}"
        self.origins["crs"] = crs_origin or grid_origin
        return grid

    # -- quality ---------------------------------------------------------------------------------------------------

    def quality(self, grid: PixelGrid, names: Mapping[tuple[str, int], str]) -> tuple[QualityRule | NodataRule, list[_Choice]]:
        """Return the quality rule and the bands that it reads, under their names in the stack."""

        def name_of(part: RawBand) -> str:
            return names.get((part.raster.key, part.index), part.name)

        for rule, part, origin in self._rules():
            if part is not None:
                self.origins["quality"] = origin
                return renamed(rule, name_of(part)), [_Choice(name_of(part), part)]
        return self._nodata_rule(grid, name_of)

    def _rules(self) -> Iterator[tuple[QualityRule, RawBand | None, str]]:
        """Yield (rule, its band, origin): the profile's rule, then published rules, then rules for well-known asset keys."""
        quality = self.quality_spec()
        if quality is not None:
            rule, spec, raster = quality
            yield rule, self.part_of(spec, raster), f"profile {self.profile.name if self.profile else ''}: {rule.source}"
        roles = {raster.key: raster.roles for raster in self.rasters}
        fields = {raster.key: raster.fields for raster in self.rasters}
        for key, published in published_rules(fields, roles):
            parts = self.parts(self.by_key[key])
            yield published.rule, next((p for p in parts if p.index == published.index), None), published.rule.source
        for raster in self.rasters if self.profile is None else ():
            by_key = rule_by_name(raster.key)
            if by_key is not None:
                yield by_key, self.parts(raster)[0], by_key.source

    def _nodata_rule(self, grid: PixelGrid, name_of: Callable[[RawBand], str]) -> tuple[NodataRule, list[_Choice]]:
        parts = self.default_parts(grid)
        data = [part for part in parts if part.raster.is_data] or parts
        if self.profile is None:
            reason = "the item publishes no classes of a quality band, and its product is unknown"
        elif self.profile.quality:
            reason = f"the item has no band {' or '.join(self.profile.quality_bands)} of {self.profile.name}"
        else:
            reason = f"{self.profile.name} has no quality band"
        self.origins["quality"] = f"nodata of the data bands, because {reason}"
        return NodataRule(tuple(map(name_of, data)), source=reason), [_Choice(name_of(part), part) for part in data]

    # -- scene -----------------------------------------------------------------------------------------------------

    def scene(self, assets: Sequence[object] | None) -> Scene:
        if assets is not None and not assets:
            raise ItemError(self.item_id, "assets is empty; pass at least one name, or leave it out for the default bands")
        date, self.origins["datetime"] = self._datetime()
        grid = self.grid()
        if assets is None:
            chosen = [_Choice(part.name, part) for part in self.default_parts(grid)]
            self.origins["bands"] = f"bands of {self.profile.name}" if self.profile else "the item's rasters"
        else:
            chosen = [choice for name in assets for choice in self.find(name)]
            self.origins["bands"] = "requested by name"
        names = [choice.name for choice in chosen]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise ItemError(self.item_id, f"two bands would be called {duplicate!r}; request them by other names with assets=")
        names_by_band = {(choice.part.raster.key, choice.part.index): choice.name for choice in reversed(chosen)}
        rule, quality = self.quality(grid, names_by_band)
        bands = tuple(self.files.band(choice.part, choice.name) for choice in chosen)
        quality_bands = tuple(self.files.band(choice.part, choice.name) for choice in quality)
        if self.grid() != grid:
            return self.scene(assets)  # a file that was opened for its data type has another grid than published
        mask = mask_band(quality_bands, names) if isinstance(rule, NodataRule) else None
        # The mask alone decides quality if no band marks nodata in its values; otherwise both are read.
        if mask is not None and all(b.nodata is None and not b.dtype.startswith(("float", "complex")) for b in quality_bands):
            quality_bands = (mask,)
            rule = values(mask.name, {NODATA: [0]}, source=f"the mask of the file of asset {mask.asset!r}: {rule.source}")
            self.origins["quality"] = rule.source
            mask = None
        check_ground(self.item_id, (*bands, *quality_bands), grid)
        self._note_hrefs((*bands, *quality_bands))
        boa_offset = self.files.item_offset(self.matched)
        if boa_offset is not None:
            self.origins["offset"] = f"{'undecided' if boa_offset.offset is None else boa_offset.offset}: {boa_offset.origin}"
        return Scene(
            item_id=self.item_id,
            collection=collection_of(self.item),
            href=self.href,
            datetime=date,
            sensor=self.profile.name if self.profile else None,
            grid=grid,
            bands=bands,
            rule=rule,
            quality=quality_bands,
            bbox=bbox_of(self.item.get("bbox")),
            block=next((band.block for band in (*bands, *quality_bands) if band.block and band.grid.res == grid.res), None),
            mask=mask,
            boa_offset=boa_offset,
            origins=self.origins,
        )

    def _datetime(self) -> tuple[datetime, str]:
        for field in ("datetime", "start_datetime", "end_datetime"):
            date = moment(self.properties.get(field), field)
            if date is not None:
                return date, field
        raise ItemError(
            self.item_id, "it has no date (looked in datetime, start_datetime, end_datetime); add one to its properties"
        )

    def _note_hrefs(self, bands: Sequence[Band]) -> None:
        origin = next((self.by_key[b.asset].href_origin for b in bands if self.by_key[b.asset].href_origin), "")
        if origin:
            self.origins["hrefs"] = origin


def collection_of(item: JSON) -> str | None:
    """Return the id of an item's collection; in STAC 0.7 it is one of the properties."""
    return text(item.get("collection")) or text(mapping(item.get("properties")).get("collection"))


def bbox_of(value: object) -> BBox | None:
    """Return (west, south, east, north); None if ``value`` is missing or is not four or six numbers."""
    try:
        box = numbers(value, "bbox", (4, 6))
    except FieldError:
        return None  # the bbox is informative only
    if box is None:
        return None
    return (box[0], box[1], box[3], box[4]) if len(box) == 6 else (box[0], box[1], box[2], box[3])
