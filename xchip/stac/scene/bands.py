"""From rasters to bands: what each file holds, by the metadata, the profile or, where neither says, its header."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xchip.core.grid import PixelGrid
from xchip.core.scene import Band, BoaOffset, Header, ItemError
from xchip.sensors.profile import BandSpec, SensorProfile
from xchip.sensors.registry import AssetNames, identity, match
from xchip.stac.fields import BandFields, FieldError, mapping
from xchip.stac.scene.assets import Raster, size_in_key
from xchip.stac.scene.projection import CRS_FIELDS, NO_FIELDS, GridFields, crs_of, grid_fields, grid_of, same_grid, shared_extent
from xchip.stac.scene.sentinel2_offset import Radiometry, boa_offset, common_offset, radiometry_of


class HeaderNeeded(ItemError):
    """An item that can be understood only by opening a file: pass ``header=`` to `understand`."""


@dataclass(frozen=True, slots=True)
class RawBand:
    """One band of a raster, before it is known in full."""

    raster: Raster
    """The file that it lies in."""
    index: int
    """Number in the file, from 1."""
    count: int
    """Bands in the file."""
    name: str
    """The name that it bears unasked."""
    said: BandFields
    """What the item says of it."""
    spec: BandSpec | None
    """What the profile says of it."""
    masked: bool
    """Whether the file has an alpha band that is no data."""


@dataclass(frozen=True)
class Files:
    """The files of one item; a header is read once, and only when something asks for it."""

    item: Mapping[str, Any]
    """The item as plain JSON."""
    item_id: str
    """Its id."""
    read: Callable[[str], Header] | None
    """Reads a header."""
    profile: SensorProfile | None
    """The item's sensor."""
    specs: Mapping[str, tuple[BandSpec, ...]]
    """Bands of the profile that an asset (by key) holds."""
    _headers: dict[str, Header]
    _grids: dict[str, tuple[PixelGrid | None, str, str]]

    @cached_property
    def shared(self) -> GridFields:
        """Shape, transform and bbox that the item has for all its assets."""
        return grid_fields(mapping(self.item.get("properties")), "item")

    def header(self, raster: Raster, why: str) -> Header:
        """What the file says of itself.

        Raises
        ------
        HeaderNeeded
            Where files must not be opened.
        ItemError
            If it can't be read; the reader's error is the cause.
        """
        if raster.key in self._headers:
            return self._headers[raster.key]
        if self.read is None:
            raise HeaderNeeded(
                self.item_id,
                f"{why}; only the file {raster.href!r} can say: let it be opened (pass header=), or add the fields to the item",
            )
        try:
            header = self.read(raster.href)
        except Exception as error:  # whatever GDAL, a signer or the caller's reader raises
            problem = f"{why}, and the header of {raster.href!r} can't be read: {error}; check the href and your access to it"
            raise ItemError(self.item_id, problem) from error
        self._headers[raster.key] = header
        return header

    def opened(self, raster: Raster) -> Header | None:
        """The header, if it was read."""
        return self._headers.get(raster.key)

    def published_grid(self, raster: Raster) -> tuple[PixelGrid | None, str, str]:
        """(grid, where grid and CRS were found or why not, level) by the metadata alone."""
        if raster.key not in self._grids:
            self._grids[raster.key] = self._published_grid(raster)
        return self._grids[raster.key]

    def _published_grid(self, raster: Raster) -> tuple[PixelGrid | None, str, str]:
        properties = mapping(self.item.get("properties"))
        crs, where = crs_of(raster.fields, properties)
        if crs is None:
            return None, f"no CRS in {', '.join(CRS_FIELDS)} of the asset or the item", ""
        shared = self.shared
        if where.endswith("asset") and crs_of({}, properties)[0] not in (None, crs):
            shared = NO_FIELDS  # the item's shape and transform are in the item's CRS
        grid, origin = grid_of(raster.fields, shared, crs)
        return grid, f"{origin}; CRS: {where}" if grid else origin, "item" if "of the item;" in f"{origin};" else "asset"

    def grid(self, raster: Raster) -> tuple[PixelGrid, str]:
        """(grid, where it was found) by the metadata, else the file. A file that was opened is believed."""
        published, where, _ = self.published_grid(raster)
        header = self.opened(raster)
        if header is None and published is None:
            header = self.header(raster, f"the pixel grid of asset {raster.key!r} is not known ({where})")
        if header is not None and (published is None or not same_grid(header.grid, published)):
            if not header.grid.crs:
                raise ItemError(
                    self.item_id,
                    f"asset {raster.key!r} has no CRS (looked in {', '.join(CRS_FIELDS)} of the asset and the item, and in the "
                    f"file {raster.href!r}); add proj:code to the item, or georeference the file",
                )
            return header.grid, "the file's header"
        assert published is not None
        return published, where

    def parts(self, raster: Raster) -> tuple[RawBand, ...]:
        """The data bands of a raster. Its header is read where the metadata and the profile don't name a data type."""
        held = self.specs.get(raster.key, ())
        # One band alone in a file is its first, also of a product that has all bands in one file.
        specs = {spec.index if len(held) > 1 else 1: spec for spec in held}
        said = raster.bands
        known = any(band.dtype for band in said) or any(spec.dtype for spec in specs.values())
        if self.published_grid(raster)[0] is None:
            self.grid(raster)  # opens the file
        header = self.opened(raster)
        if header is None and not known:
            where = "looked in raster:bands, bands and data_type of the asset and the item"
            header = self.header(raster, f"the data type of asset {raster.key!r} is not known ({where})")
        count = len(header.dtypes) if header is not None else max(len(said), max(specs, default=1))
        if len(said) > count:
            raise ItemError(
                self.item_id,
                f"asset {raster.key!r} lists {len(said)} bands, but the file {raster.href!r} has {count}; correct the item",
            )
        said = (*said, *[BandFields()] * (count - len(said)))
        if count == 1:
            return (RawBand(raster, 1, 1, raster.key, said[0], specs.get(1), masked=False),)
        mask = {n for n, band in enumerate(said, 1) if band.is_alpha}
        if header is not None and header.alpha and header.alpha not in specs:
            band = said[header.alpha - 1] if header.alpha <= count else BandFields()
            if not (band.name or band.common_name):
                mask.add(header.alpha)
        mask -= set(specs)
        if len(mask) == count:
            mask = set()  # a file of masks alone: they are what it has to give
        numbers = [n for n in range(1, count + 1) if n not in mask]
        labels = _labels(numbers, said, header) if len(numbers) > 1 else {}

        def name(n: int) -> str:
            if n in specs and len(specs) > 1:
                return specs[n].name
            return raster.key if len(numbers) == 1 else f"{raster.key}_{labels[n]}"

        return tuple(RawBand(raster, n, count, name(n), said[n - 1], specs.get(n), bool(mask)) for n in numbers)

    def band(self, part: RawBand, name: str) -> Band:
        """The band in full, called ``name``."""
        raster, said, spec = part.raster, part.said, part.spec
        grid, _ = self.grid(raster)
        header = self.opened(raster)
        dtype = header.dtypes[part.index - 1] if header is not None else said.dtype or (spec.dtype if spec else None)
        if dtype is None:
            header = self.header(raster, f"the data type of band {part.index} of asset {raster.key!r} is not known")
            dtype = header.dtypes[part.index - 1]
        product = self.profile_band(part)
        decision = self.boa_offset(raster, said, product, dtype, _in_file(header, part.index))
        scale, offset = self._scale(part, header, product)
        if decision is not None and decision.offset is not None:
            offset = decision.offset * scale
        in_file = header.nodata[part.index - 1] if header is not None else None
        nodata = next((v for v in (said.nodata, in_file, spec.nodata if spec else None) if v is not None), None)
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
            common_name=said.common_name or (spec.common_name if spec else None),
            block=header.block if header is not None else self.profile.block if self.profile and spec else None,
            # A band tagged as alpha that is data makes a mask of it that means nothing.
            masked=part.masked or (header is not None and header.masked and not named_alpha),
            boa_offset=decision,
            opened=header is not None,
        )

    def _scale(self, part: RawBand, header: Header | None, product: BandSpec | None) -> tuple[float, float]:
        said, spec = part.said, part.spec
        if said.offset and product is not None and self.shifts(product) is False:
            return product.scale, product.offset  # CDSE publishes the reflectances' scale and offset for them too
        if said.scale is not None or said.offset is not None:
            return said.scale if said.scale is not None else 1.0, said.offset or 0.0
        in_file = _in_file(header, part.index)
        if in_file is not None:
            return in_file
        return (spec.scale, spec.offset) if spec is not None else (1.0, 0.0)

    # -- the offset of Sentinel-2 reflectances -------------------------------------------------------------------------

    @cached_property
    def radiometry(self) -> Radiometry:
        """What the item says of its processing baseline."""
        return radiometry_of(self.item)

    def shifts(self, spec: BandSpec) -> bool | None:
        """Whether a band of the product got an offset with baseline 04.00; None for products that never had one."""
        if self.profile is None or self.profile.baseline_offset is None:
            return None
        return spec.common_name is not None

    def profile_band(self, part: RawBand) -> BandSpec | None:
        """The band of the product that a part is, also where another file was taken for it: a JPEG2000 twin, or other pixels."""
        if part.spec is not None or self.profile is None:
            return part.spec
        alone, said = part.count == 1, part.said
        names = AssetNames(
            part.raster.key if alone else "",
            (said.name,) if said.name else (),
            (said.common_name,) if said.common_name else (),
            1,
            part.raster.href if alone else "",
        )
        _, specs = match(self.profile, names, self.profile.variant_of(identity(self.item)))
        return specs[0] if specs else None

    def boa_offset(
        self, raster: Raster, said: BandFields, product: BandSpec | None, dtype: str, in_file: tuple[float, float] | None = None
    ) -> BoaOffset | None:
        """The decision on a band; None where it is no reflectance, as a true-colour picture of 8 bits is none."""
        if product is None or not self.shifts(product) or dtype in ("uint8", "int8"):
            return None
        assert self.profile is not None
        assert self.profile.baseline_offset is not None
        if dtype.startswith("float"):
            return BoaOffset(None, f"its values are {dtype}, not digital numbers")
        published = None
        if said.offset is not None:
            published = said.offset / (said.scale or 1.0)
        elif in_file is not None and in_file[1]:  # a file always has an offset: 0 says nothing
            published = in_file[1] / (in_file[0] or 1.0)
        usual = round(self.profile.baseline_offset / product.scale)
        # Numbers such as -0.1 / 0.0001 are whole but for the last digit.
        published = None if published is None else round(published, 3)
        return boa_offset(self.radiometry, href=raster.href, usual=usual, said=published)

    def item_offset(self, matched: Mapping[str, tuple[BandSpec, Raster]]) -> BoaOffset | None:
        """What holds for the product's own bands, by the metadata alone: it is the item's, whatever is asked for."""
        decisions = {}
        for name, (spec, raster) in matched.items():
            said = raster.bands[spec.index - 1] if len(raster.bands) >= spec.index else BandFields()
            decision = self.boa_offset(raster, said, spec, said.dtype or spec.dtype or "")
            if decision is not None:
                decisions[name] = decision
        return common_offset(decisions)


def _in_file(header: Header | None, index: int) -> tuple[float, float] | None:
    """(scale, offset) of a band in its file, where it is opened and has any."""
    if header is None or min(len(header.scales), len(header.offsets)) < index:
        return None
    found = header.scales[index - 1], header.offsets[index - 1]
    return None if found == (1.0, 0.0) else found


def _labels(numbers: list[int], said: tuple[BandFields, ...], header: Header | None) -> dict[int, str]:
    """Name of each band within its asset: the item's, else the file's; its number where it has none, or another's."""
    by_item = {n: said[n - 1].name for n in numbers}
    descriptions = dict(enumerate(header.descriptions, 1)) if header is not None else {}
    names = by_item if any(by_item.values()) else {n: descriptions.get(n) for n in numbers}
    often = Counter(names.values())
    return {n: name if name and often[name] == 1 else str(n) for n, name in names.items()}


def match_profile(
    profile: SensorProfile, item: Mapping[str, Any], rasters: Iterable[Raster], size: Callable[[Raster], float]
) -> dict[str, tuple[BandSpec, Raster]]:
    """Band name -> (what the profile knows of it, the raster that holds it), in the profile's order.

    Where several do, the finest; then the one that matches best (key, band name, common name, file name); then the first.
    """
    variant = profile.variant_of(identity(item))
    found: dict[str, list[tuple[int, BandSpec, Raster]]] = {}
    for raster in rasters:
        names = tuple(band.name for band in raster.bands if band.name)
        common = tuple(band.common_name for band in raster.bands if band.common_name)
        rank, specs = match(profile, AssetNames(raster.key, names, common, max(1, len(raster.bands)), raster.href), variant)
        for spec in specs:
            found.setdefault(spec.name, []).append((rank, spec, raster))
    best = {
        name: (same if len(same) == 1 else sorted(same, key=lambda c: (size(c[2]), c[0])))[0][1:] for name, same in found.items()
    }
    return {spec.name: best[spec.name] for spec in profile.bands_of(variant) if spec.name in best}


def pixel_size(files: Files, raster: Raster) -> float:
    """Pixel size by the metadata or the key, in CRS units; infinite where neither says."""
    try:
        grid = files.published_grid(raster)[0]
    except FieldError:
        grid = None  # said again, loudly, if the raster is used
    return max(max(grid.res) if grid else 0.0, size_in_key(raster.key)) or math.inf


def check_ground(item_id: str, bands: Iterable[Band], grid: PixelGrid) -> None:
    """Refuse an item with a band that lies beside the scene's ``grid``: none of it would be read, and one of the two is wrong."""
    for band in bands:
        if band.grid.crs == grid.crs and min(shared_extent(band.grid, grid)) <= 0:
            raise ItemError(
                item_id,
                f"asset {band.asset!r} covers {band.grid.bounds} (left, bottom, right, top), which is beside the scene's grid "
                f"{grid.bounds}; correct proj:transform and proj:shape of the item, or name other bands with assets=",
            )


def mask_band(bands: Sequence[Band], taken: Sequence[str]) -> Band | None:
    """The mask of the one file that all ``bands`` are in, as a band; None where there is no such mask."""
    first = bands[0]
    if not all(band.href == first.href and band.masked for band in bands):
        return None
    name = "mask" if "mask" not in taken else f"{first.asset}_mask"
    return Band(name, first.asset, first.href, first.grid, "uint8", index=0, block=first.block, opened=first.opened)
