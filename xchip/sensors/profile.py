"""The shape of what is known of a product: `SensorProfile` and `BandSpec`. The products themselves are in `sensor_table`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from xchip.core.quality import QualityRule


@dataclass(frozen=True, slots=True)
class BandSpec:
    """What is known of one band of a product."""

    name: str
    """Plain name: the STAC common name where one fits ("red", "nir"), else the product's own in lower case ("scl")."""
    keys: tuple[str, ...] = ()
    """Other names that catalogues publish it under, as asset key, band name or end of the file's name: lower case."""
    common_name: str | None = None
    """STAC common name; several bands may share one ("rededge")."""
    dtype: str | None = None
    """NumPy dtype as stored; None where it differs between publishers."""
    nodata: float | None = None
    """The value that means "no data"; None where the product defines none."""
    resolution: float | None = None
    """Native pixel size, metres."""
    default: bool = True
    """Whether it is stacked unasked; such bands alone define the scene's grid."""
    index: int = 1
    """Number of the band in its file, from 1: bands with the same ``keys`` lie in one file."""
    scale: float = 1.0
    """physical = stored * scale + offset."""
    offset: float = 0.0
    """See ``scale``."""
    variant: str | None = None
    """Instrument that it belongs to, one of the profile's ``variants``; None: to all."""


@dataclass(frozen=True, slots=True)
class SensorProfile:
    """What is known of one product, whoever publishes it.

    Examples
    --------
    >>> from xchip import sensors
    >>> profile = sensors.find("sentinel-2-l2a")
    >>> profile.quality[0].band, profile.band("nir").resolution
    ('scl', 10.0)
    """

    name: str
    """The name that users pass as ``sensor=``."""
    bands: tuple[BandSpec, ...]
    """Its bands, in the order in which they are stacked; the quality bands too."""
    quality: tuple[QualityRule, ...] = ()
    """How quality is read: the first rule whose band the item has. Empty: the product has no quality band."""
    collections: tuple[str, ...] = ()
    """Collection ids that are this product, lower case."""
    platform: str | None = None
    """Regular expression on "constellation platform" (lower case, without spaces, - and _); None: never recognised by it."""
    level: str | None = None
    """Regular expression on the item's id and product type or level; both it and ``platform`` must match."""
    variants: tuple[tuple[str, str], ...] = ()
    """(variant, regular expression on "id platform instruments"): instruments that number their bands differently."""
    block: tuple[int, int] | None = None
    """(height, width) of the blocks that its files are usually stored in."""
    baseline_offset: float | None = None
    """Offset of reflectances from Sentinel-2 processing baseline 04.00 on, where the item does not say."""

    def __hash__(self) -> int:
        return hash(self.name)  # profiles are keys of caches: hashing every band each time takes longer than what is cached

    def band(self, name: str) -> BandSpec:
        """The band of that plain name.

        Raises
        ------
        KeyError
            If there is none.
        """
        for spec in self.bands:
            if spec.name == name:
                return spec
        raise KeyError(name)

    @property
    def quality_bands(self) -> tuple[str, ...]:
        """Plain names of the bands that ``quality`` reads."""
        return tuple(rule.band for rule in self.quality)

    def variant_of(self, text: str) -> str | None:
        """Which variant ``text`` ("id platform instruments") speaks of."""
        for name, pattern in self.variants:
            if re.search(pattern, text.lower()):
                return name
        return None

    def bands_of(self, variant: str | None) -> tuple[BandSpec, ...]:
        """The bands of one variant. For None, each band with what holds for all variants alike."""
        return _bands_of(self, variant)


@lru_cache(maxsize=256)
def _bands_of(profile: SensorProfile, variant: str | None) -> tuple[BandSpec, ...]:
    if variant is not None or not profile.variants:
        return tuple(spec for spec in profile.bands if spec.variant in (None, variant))
    rows: dict[str, list[BandSpec]] = {}
    owners: dict[str, set[str]] = {}
    for spec in profile.bands:
        rows.setdefault(spec.name, []).append(spec)
        for key in spec.keys:
            owners.setdefault(key, set()).add(spec.name)
    merged = []
    for same in rows.values():
        dtypes = {spec.dtype for spec in same}
        # "b4" is red for one instrument and infrared for another: without the instrument it names nothing.
        keys = tuple(dict.fromkeys(key for spec in same for key in spec.keys if len(owners[key]) == 1))
        merged.append(replace(same[0], keys=keys, variant=None, dtype=same[0].dtype if len(dtypes) == 1 else None))
    return tuple(merged)
