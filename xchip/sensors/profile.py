"""`SensorProfile` and `BandSpec` describe a product. The products that come with xchip are in `xchip.sensors.table`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from xchip.core.quality import QualityRule


@dataclass(frozen=True, slots=True)
class BandSpec:
    """Description of one band of a product."""

    name: str
    """Plain name: the STAC common name where one fits ("red", "nir"), else the product's own in lower case ("scl")."""
    keys: tuple[str, ...] = ()
    """Other names that catalogues use, as asset key, band name or end of the file's name: lower case."""
    common_name: str | None = None
    """STAC common name; several bands may share one ("rededge")."""
    dtype: str | None = None
    """NumPy dtype as stored; None where it differs between publishers."""
    nodata: float | None = None
    """The value that means "no data"; None where the product defines none."""
    resolution: float | None = None
    """Native pixel size, metres."""
    default: bool = True
    """Whether ``assets=None`` selects the band. Only these bands define the scene's grid."""
    index: int = 1
    """Number of the band in its file, from 1: bands with the same ``keys`` lie in one file."""
    scale: float = 1.0
    """physical = stored * scale + offset."""
    offset: float = 0.0
    """See ``scale``."""
    variant: str | None = None
    """Instrument of the band, one of the profile's ``variants``; None: every instrument has the band."""
    # Not in the repr, and so not in the fingerprint of an archive: an index does not depend on it.
    wavelength: float | None = field(default=None, repr=False)
    """Centre of the band, micrometres; None where unknown. Models such as Clay take it."""


@dataclass(frozen=True, slots=True)
class ClaySensor:
    """How the Clay model takes a product."""

    platform: str
    """Clay's name of the product, and of the folder of its cubes."""
    bands: tuple[str, ...]
    """Plain names of the bands, in the order of the channels."""
    gsd: float | None
    """Ground sample distance, metres; None where unknown."""
    wavelengths: Mapping[str, float] = field(default_factory=dict)
    """Wavelength of bands, by plain name. In a profile: only the values that differ from `BandSpec.wavelength`."""
    nodata: float | None = None
    """The value that means "no data" in cubes, for products whose nodata value differs between publishers."""


@dataclass(frozen=True, slots=True)
class SensorProfile:
    """Description of one product, the same for every catalogue that publishes it.

    A name and bands are enough. The other fields say how items are recognised, how quality is read, and what the defaults of
    exports, models and processors are.

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
    """All bands, in the order of the stack; the quality bands too."""
    quality: tuple[QualityRule, ...] = ()
    """How quality is read: the first rule whose band the item has. Empty: the product has no quality band."""
    collections: tuple[str, ...] = ()
    """Collection ids of the product, lower case."""
    platform: str | None = None
    """Regular expression on "constellation platform" (lower case, without spaces, - and _); None: not recognised by platform."""
    level: str | None = None
    """Regular expression on the item's id and product type or level; both it and ``platform`` must match."""
    variants: tuple[tuple[str, str], ...] = ()
    """(variant, regular expression on "id platform instruments"): instruments that number their bands differently."""
    block: tuple[int, int] | None = None
    """(height, width) of the blocks that files of the product usually have."""
    baseline_offset: float | None = None
    """Offset of reflectances from Sentinel-2 processing baseline 04.00 on, where the item does not declare one."""
    # The fields below are not in the repr, and so not in the fingerprint of an archive: an index does not depend on them.
    clay: ClaySensor | None = field(default=None, repr=False)
    """How the Clay model takes the product; None: see `xchip.sensors.clay.clay_of`."""
    staged: tuple[str, ...] = field(default=(), repr=False)
    """Plain names of the bands that processors bring into an archive; empty: all default bands."""
    stored_ratio: tuple[float, str] | None = field(default=None, repr=False)
    """(bytes of a file that is read for quality / bytes of its pixels, how the ratio was measured); None: not measured."""

    def __hash__(self) -> int:
        return hash(self.name)  # profiles are keys of caches, and a hash of all bands takes longer than the cached calls

    def band(self, name: str) -> BandSpec:
        """Return the band with that plain name.

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

    @property
    def data_bands(self) -> tuple[str, ...]:
        """Plain names of the default bands without the quality bands. A profile with variants gives the bands that all have.

        Examples
        --------
        >>> from xchip import sensors
        >>> sensors.find("landsat-c2-l2").data_bands
        ('blue', 'green', 'red', 'nir08', 'swir16', 'swir22')
        """
        variants = {spec.variant for spec in self.bands} - {None}
        shared = [{spec.name for spec in self.bands_of(variant)} for variant in variants]
        quality = self.quality_bands
        names = dict.fromkeys(spec.name for spec in self.bands if spec.default and spec.name not in quality)
        return tuple(name for name in names if all(name in bands for bands in shared))

    @property
    def staged_bands(self) -> tuple[str, ...]:
        """Plain names of the bands that processors bring into an archive: ``staged``, or else all default bands.

        Examples
        --------
        >>> from xchip import sensors
        >>> sensors.find("sentinel-1-rtc").staged_bands, sensors.find("linz").staged_bands
        (('vv', 'vh'), ('red', 'green', 'blue'))
        """
        return self.staged or tuple(dict.fromkeys(spec.name for spec in self.bands if spec.default))

    def variant_of(self, text: str) -> str | None:
        """Return the variant that ``text`` ("id platform instruments") names; None if it names none."""
        for name, pattern in self.variants:
            if re.search(pattern, text.lower()):
                return name
        return None

    def bands_of(self, variant: str | None) -> tuple[BandSpec, ...]:
        """Return the bands of one variant. For None, each band with the values that all variants share."""
        return _bands_of(self, variant)


@lru_cache(maxsize=256)
def _bands_of(profile: SensorProfile, variant: str | None) -> tuple[BandSpec, ...]:
    if variant is not None or not profile.variants:
        return tuple(spec for spec in profile.bands if spec.variant in (None, variant))
    specs_by_name: dict[str, list[BandSpec]] = {}
    names_by_key: dict[str, set[str]] = {}
    for spec in profile.bands:
        specs_by_name.setdefault(spec.name, []).append(spec)
        for key in spec.keys:
            names_by_key.setdefault(key, set()).add(spec.name)
    merged = []
    for specs in specs_by_name.values():
        dtypes = {spec.dtype for spec in specs}
        # "b4" is red for one instrument and infrared for another: without the instrument it names no band.
        keys = tuple(dict.fromkeys(key for spec in specs for key in spec.keys if len(names_by_key[key]) == 1))
        merged.append(replace(specs[0], keys=keys, variant=None, dtype=specs[0].dtype if len(dtypes) == 1 else None))
    return tuple(merged)
