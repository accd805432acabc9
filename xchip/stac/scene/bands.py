"""Find the bands of a raster file from the metadata, the profile or, as a last resort, the file's header."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from xchip.core.grid import PixelGrid
from xchip.core.scene import Band, BoaOffset, Header, ItemError
from xchip.core.types import JSON
from xchip.sensors.profile import BandSpec, SensorProfile
from xchip.sensors.registry import AssetNames, identity, match
from xchip.stac.fields import BandFields, FieldError, mapping
from xchip.stac.scene.assets import Raster, size_in_key
from xchip.stac.scene.projection import CRS_FIELDS, NO_FIELDS, GridFields, crs_of, grid_fields, grid_of, same_grid, shared_extent
from xchip.stac.scene.sentinel2_offset import Radiometry, boa_offset, common_offset, radiometry_of


class HeaderNeeded(ItemError):
    """A file of the item must be opened to read it: pass ``header=`` to `understand`."""


@dataclass(frozen=True, slots=True)
class RawBand:
    """One band of a raster before its metadata are completed."""

    raster: Raster
    """Its file."""
    index: int
    """Number in the file, from 1."""
    count: int
    """Number of bands in the file."""
    name: str
    """Its default name."""
    fields: BandFields
    """Its published metadata."""
    spec: BandSpec | None
    """The profile's entry for it."""
    masked: bool
    """Whether the file has an alpha band that is not a data band."""


@dataclass(frozen=True)
class Files:
    """The files of one item; a header is read once, and only if it is needed."""

    item: JSON
    """The item as plain JSON."""
    item_id: str
    """Its id."""
    read: Callable[[str], Header] | None
    """Reads a header; None: files must not be opened."""
    profile: SensorProfile | None
    """The item's sensor."""
    specs: Mapping[str, tuple[BandSpec, ...]]
    """The profile's bands in each asset, by key."""
    _headers: dict[str, Header]
    _grids: dict[str, tuple[PixelGrid | None, str, str]]

    @cached_property
    def shared(self) -> GridFields:
        """Shape, transform and bbox that the item publishes for all its assets."""
        return grid_fields(mapping(self.item.get("properties")), "item")

    def header(self, raster: Raster, reason: str) -> Header:
        """Read the file's header; HeaderNeeded if files must not be opened, ItemError if it can't be read."""
        if raster.key in self._headers:
            return self._headers[raster.key]
        if self.read is None:
            raise HeaderNeeded(
                self.item_id,
                f"{reason}; pass header= to read it from the file {raster.href!r}, or add the fields to the item",
            )
        try:
            header = self.read(raster.href)
        except Exception as error:  # any error of GDAL, a signer or the caller's function
            problem = f"{reason}, and the header of {raster.href!r} can't be read: {error}; check the href and your access to it"
            raise ItemError(self.item_id, problem) from error
        self._headers[raster.key] = header
        return header

    def opened(self, raster: Raster) -> Header | None:
        """Return the header if it was read."""
        return self._headers.get(raster.key)

    def published_grid(self, raster: Raster) -> tuple[PixelGrid | None, str, str]:
        """Return (grid, origin or reason why there is none, level) from the metadata alone."""
        if raster.key not in self._grids:
            self._grids[raster.key] = self._published_grid(raster)
        return self._grids[raster.key]

    def _published_grid(self, raster: Raster) -> tuple[PixelGrid | None, str, str]:
        properties = mapping(self.item.get("properties"))
        crs, crs_origin = crs_of(raster.fields, properties)
        if crs is None:
            return None, f"no CRS in {', '.join(CRS_FIELDS)} of the asset or the item", ""
        shared = self.shared
        if crs_origin.endswith("asset") and crs_of({}, properties)[0] not in (None, crs):
            shared = NO_FIELDS  # the item's shape and transform are in the item's CRS
        grid, origin = grid_of(raster.fields, shared, crs)
        return grid, f"{origin}; CRS: {crs_origin}" if grid else origin, "item" if "of the item;" in f"{origin};" else "asset"

    def grid(self, raster: Raster) -> tuple[PixelGrid, str]:
        """Return (grid, origin) from the metadata, else the file. The header of an opened file takes precedence."""
        published, origin, _ = self.published_grid(raster)
        header = self.opened(raster)
        if header is None and published is None:
            header = self.header(raster, f"the pixel grid of asset {raster.key!r} is unknown ({origin})")
        if header is not None and (published is None or not same_grid(header.grid, published)):
            if not header.grid.crs:
                raise ItemError(
                    self.item_id,
                    f"asset {raster.key!r} has no CRS (looked in {', '.join(CRS_FIELDS)} of the asset and the item, and in the "
                    f"file {raster.href!r}); add proj:code to the item, or georeference the file",
                )
            return header.grid, "the file's header"
        assert published is not None
        return published, origin

    def parts(self, raster: Raster) -> tuple[RawBand, ...]:
        """Return the data bands of a raster. Reads its header if metadata and profile lack the data type."""
        matched = self.specs.get(raster.key, ())
        # A single band has number 1 in its file, also if the product has all bands in one file.
        specs = {spec.index if len(matched) > 1 else 1: spec for spec in matched}
        fields = raster.bands
        has_dtype = any(band.dtype for band in fields) or any(spec.dtype for spec in specs.values())
        if self.published_grid(raster)[0] is None:
            self.grid(raster)  # opens the file
        header = self.opened(raster)
        if header is None and not has_dtype:
            places = "looked in raster:bands, bands and data_type of the asset and the item"
            header = self.header(raster, f"the data type of asset {raster.key!r} is unknown ({places})")
        count = len(header.dtypes) if header is not None else max(len(fields), max(specs, default=1))
        if len(fields) > count:
            raise ItemError(
                self.item_id,
                f"asset {raster.key!r} lists {len(fields)} bands, but the file {raster.href!r} has {count}; correct the item",
            )
        fields = (*fields, *[BandFields()] * (count - len(fields)))
        if count == 1:
            return (RawBand(raster, 1, 1, raster.key, fields[0], specs.get(1), masked=False),)
        mask = {n for n, band in enumerate(fields, 1) if band.is_alpha}
        if header is not None and header.alpha and header.alpha not in specs:
            band = fields[header.alpha - 1] if header.alpha <= count else BandFields()
            if not (band.name or band.common_name):
                mask.add(header.alpha)
        mask -= set(specs)
        if len(mask) == count:
            mask = set()  # a file of masks alone: they are its data
        numbers = [n for n in range(1, count + 1) if n not in mask]
        labels = _labels(numbers, fields, header) if len(numbers) > 1 else {}

        def name(n: int) -> str:
            if n in specs and len(specs) > 1:
                return specs[n].name
            return raster.key if len(numbers) == 1 else f"{raster.key}_{labels[n]}"

        return tuple(RawBand(raster, n, count, name(n), fields[n - 1], specs.get(n), bool(mask)) for n in numbers)

    def band(self, part: RawBand, name: str) -> Band:
        """Return the complete band under the name ``name``."""
        raster, fields, spec = part.raster, part.fields, part.spec
        grid, _ = self.grid(raster)
        header = self.opened(raster)
        dtype = header.dtypes[part.index - 1] if header is not None else fields.dtype or (spec.dtype if spec else None)
        if dtype is None:
            header = self.header(raster, f"the data type of band {part.index} of asset {raster.key!r} is unknown")
            dtype = header.dtypes[part.index - 1]
        product = self.profile_band(part)
        decision = self.boa_offset(raster, fields, product, dtype, _scale_in_file(header, part.index))
        scale, offset = self._scale(part, header, product)
        if decision is not None and decision.offset is not None:
            offset = decision.offset * scale
        in_file = header.nodata[part.index - 1] if header is not None else None
        nodata = next((v for v in (fields.nodata, in_file, spec.nodata if spec else None) if v is not None), None)
        named_alpha = header is not None and header.alpha is not None and not part.masked
        return Band(
            name=name,
            asset=raster.key,
            href=raster.href,
            grid=grid,
            dtype=dtype,
            index=part.index,
            count=part.count,
            nodata=nodata,
            scale=scale,
            offset=offset,
            common_name=fields.common_name or (spec.common_name if spec else None),
            block=header.block if header is not None else self.profile.block if self.profile and spec else None,
            # If a band tagged as alpha holds data, GDAL's mask of the file is meaningless.
            masked=part.masked or (header is not None and header.masked and not named_alpha),
            boa_offset=decision,
            opened=header is not None,
        )

    def _scale(self, part: RawBand, header: Header | None, product: BandSpec | None) -> tuple[float, float]:
        fields, spec = part.fields, part.spec
        if fields.offset and product is not None and self.has_offset(product) is False:
            return product.scale, product.offset  # CDSE publishes scale and offset of reflectances for all bands
        if fields.scale is not None or fields.offset is not None:
            return fields.scale if fields.scale is not None else 1.0, fields.offset or 0.0
        in_file = _scale_in_file(header, part.index)
        if in_file is not None:
            return in_file
        return (spec.scale, spec.offset) if spec is not None else (1.0, 0.0)

    # -- the offset of Sentinel-2 reflectances -------------------------------------------------------------------------

    @cached_property
    def radiometry(self) -> Radiometry:
        """Flag and processing baseline of the item."""
        return radiometry_of(self.item)

    def has_offset(self, spec: BandSpec) -> bool | None:
        """Whether baseline 04.00 adds an offset to a band of the product; None for products without such an offset."""
        if self.profile is None or self.profile.baseline_offset is None:
            return None
        return spec.common_name is not None

    def profile_band(self, part: RawBand) -> BandSpec | None:
        """Return the product's band that a part holds, also if the part is a copy, such as JPEG2000, of the matched file."""
        if part.spec is not None or self.profile is None:
            return part.spec
        alone, fields = part.count == 1, part.fields
        names = AssetNames(
            part.raster.key if alone else "",
            (fields.name,) if fields.name else (),
            (fields.common_name,) if fields.common_name else (),
            1,
            part.raster.href if alone else "",
        )
        _, specs = match(self.profile, names, self.profile.variant_of(identity(self.item)))
        return specs[0] if specs else None

    def boa_offset(
        self, raster: Raster, fields: BandFields, product: BandSpec | None, dtype: str, in_file: tuple[float, float] | None = None
    ) -> BoaOffset | None:
        """Return the decision on a band; None if it is not a reflectance, such as a true-colour picture of 8 bits."""
        if product is None or not self.has_offset(product) or dtype in ("uint8", "int8"):
            return None
        assert self.profile is not None
        assert self.profile.baseline_offset is not None
        if dtype.startswith("float"):
            return BoaOffset(None, f"its values are {dtype}, not digital numbers")
        published = None
        if fields.offset is not None:
            published = fields.offset / (fields.scale or 1.0)
        elif in_file is not None and in_file[1]:  # 0 is the default of files without an offset
            published = in_file[1] / (in_file[0] or 1.0)
        default = round(self.profile.baseline_offset / product.scale)
        # -0.1 / 0.0001 is a whole number except for the rounding error.
        published = None if published is None else round(published, 3)
        return boa_offset(self.radiometry, href=raster.href, default=default, published=published)

    def item_offset(self, matched: Mapping[str, tuple[BandSpec, Raster]]) -> BoaOffset | None:
        """Return the decision for the product's bands from the metadata alone; it does not depend on the requested bands."""
        decisions = {}
        for name, (spec, raster) in matched.items():
            fields = raster.bands[spec.index - 1] if len(raster.bands) >= spec.index else BandFields()
            decision = self.boa_offset(raster, fields, spec, fields.dtype or spec.dtype or "")
            if decision is not None:
                decisions[name] = decision
        return common_offset(decisions)


def _scale_in_file(header: Header | None, index: int) -> tuple[float, float] | None:
    """Return (scale, offset) of a band in the file's header; None without a header, or if the band has neither."""
    if header is None or min(len(header.scales), len(header.offsets)) < index:
        return None
    scale, offset = header.scales[index - 1], header.offsets[index - 1]
    return None if (scale, offset) == (1.0, 0.0) else (scale, offset)


def _labels(numbers: list[int], fields: tuple[BandFields, ...], header: Header | None) -> dict[int, str]:
    """Return the name of each band, from the item, else the file; its number if the name is missing or not unique."""
    by_item = {n: fields[n - 1].name for n in numbers}
    descriptions = dict(enumerate(header.descriptions, 1)) if header is not None else {}
    names = by_item if any(by_item.values()) else {n: descriptions.get(n) for n in numbers}
    counts = Counter(names.values())
    return {n: name if name and counts[name] == 1 else str(n) for n, name in names.items()}


def match_profile(
    profile: SensorProfile, item: JSON, rasters: Iterable[Raster], size: Callable[[Raster], float]
) -> dict[str, tuple[BandSpec, Raster]]:
    """Return {band name: (the profile's band, its raster)} in the profile's order.

    Among several rasters the finest is taken; then the best match (key, band name, common name, file name); then the first.
    """
    variant = profile.variant_of(identity(item))
    candidates: dict[str, list[tuple[int, BandSpec, Raster]]] = {}
    for raster in rasters:
        names = tuple(band.name for band in raster.bands if band.name)
        common = tuple(band.common_name for band in raster.bands if band.common_name)
        rank, specs = match(profile, AssetNames(raster.key, names, common, max(1, len(raster.bands)), raster.href), variant)
        for spec in specs:
            candidates.setdefault(spec.name, []).append((rank, spec, raster))
    best = {
        name: (entries[0] if len(entries) == 1 else min(entries, key=lambda entry: (size(entry[2]), entry[0])))[1:]
        for name, entries in candidates.items()
    }
    return {spec.name: best[spec.name] for spec in profile.bands_of(variant) if spec.name in best}


def pixel_size(files: Files, raster: Raster) -> float:
    """Return the pixel size from the metadata or the key, in CRS units; infinite if both lack it."""
    try:
        grid = files.published_grid(raster)[0]
    except FieldError:
        grid = None  # raised again if the raster is used
    return max(max(grid.res) if grid else 0.0, size_in_key(raster.key)) or math.inf


def check_ground(item_id: str, bands: Iterable[Band], grid: PixelGrid) -> None:
    """Raise an error for a band that does not overlap the scene's ``grid``, because one of the two is wrong."""
    for band in bands:
        if band.grid.crs == grid.crs and min(shared_extent(band.grid, grid)) <= 0:
            raise ItemError(
                item_id,
                f"asset {band.asset!r} covers {band.grid.bounds} (left, bottom, right, top), which is outside the scene's "
                f"grid {grid.bounds}; correct proj:transform and proj:shape of the item, or request other bands with assets=",
            )


def mask_band(bands: Sequence[Band], taken: Sequence[str]) -> Band | None:
    """Return the mask of the one file of all ``bands``, as a band; None if they are in several files or have no mask."""
    first = bands[0]
    if not all(band.href == first.href and band.masked for band in bands):
        return None
    name = "mask" if "mask" not in taken else f"{first.asset}_mask"
    return Band(name, first.asset, first.href, first.grid, "uint8", index=0, block=first.block, opened=first.opened)
