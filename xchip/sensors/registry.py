"""Find the profile of a product by name or from an item, and match assets to its bands."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from xchip.core.quality import QualityRule
from xchip.core.types import JSON
from xchip.sensors.profile import BandSpec, SensorProfile
from xchip.sensors.table import PRODUCTS, RULES_BY_BAND_NAME


@dataclass(frozen=True, slots=True)
class AssetNames:
    """The names of an asset, for matching."""

    key: str
    """Key in the item."""
    bands: tuple[str, ...] = ()
    """Published names of its bands."""
    common_names: tuple[str, ...] = ()
    """Published common names of its bands."""
    count: int = 1
    """Number of its bands."""
    href: str = ""
    """Its href; only the name of the file is used."""


_EXTENSION = re.compile(r"\.(tiff?|jp2|j2k|vrt|cog|img)$")
_RESOLUTION = re.compile(r"[_-](\d+)m$")
_FORMAT = re.compile(r"[_-](jp2|cog|tiff?)$")


def plain_key(key: str) -> str:
    """Return ``key`` in lower case without extension: "QA_PIXEL.TIF" -> "qa_pixel"."""
    return _EXTENSION.sub("", key.lower())


@lru_cache(maxsize=4096)
def _spellings(key: str) -> tuple[str, ...]:
    """The plain key, then without a format (red-jp2) and a resolution (b02_10m) at its end."""
    plain = plain_key(key)
    bare = _FORMAT.sub("", plain)
    return tuple(dict.fromkeys((plain, bare, _RESOLUTION.sub("", bare))))


@lru_cache(maxsize=4096)
def _endings(file: str) -> tuple[str, ...]:
    """The last four words of a file's name, then three, two, one; with and without a resolution at the end."""
    endings: list[str] = []
    for stem in _spellings(file):
        words = re.split(r"[._-]+", stem)
        endings += ["_".join(words[-n:]) for n in (4, 3, 2, 1) if n <= len(words)]
    return tuple(dict.fromkeys(endings))


@lru_cache(maxsize=256)
def _tables(
    profile: SensorProfile, variant: str | None
) -> tuple[dict[str, tuple[BandSpec, ...]], dict[str, tuple[BandSpec, ...]]]:
    """(bands by name and key, bands by a common name that no other band has)."""
    by_key: dict[str, list[BandSpec]] = {}
    by_common: dict[str, list[BandSpec]] = {}
    for spec in profile.bands_of(variant):
        for key in dict.fromkeys((spec.name, *spec.keys)):
            by_key.setdefault(key, []).append(spec)
        if spec.common_name:
            by_common.setdefault(spec.common_name, []).append(spec)
    return (
        {key: tuple(specs) for key, specs in by_key.items()},
        {name: tuple(specs) for name, specs in by_common.items() if len(specs) == 1},
    )


def match(profile: SensorProfile, asset: AssetNames, variant: str | None = None) -> tuple[int, tuple[BandSpec, ...]]:
    """Return (rank, bands): the bands of ``profile`` that ``asset`` holds, or an empty tuple.

    The rank says how the asset matched, in the order of the attempts: key (0), band name (1), common name (2), file name (3).
    An asset of several bands matches by its key alone.
    """
    by_key, by_common = _tables(profile, variant)
    for spelling in _spellings(asset.key):
        if spelling in by_key:
            return _checked(0, by_key[spelling], asset.count)
    if asset.count == 1:
        for name in asset.bands:
            if (lowered := name.lower()) in by_key:
                return _checked(1, by_key[lowered], 1)
        for name in asset.common_names:
            if name in by_common:
                return _checked(2, by_common[name], 1)
        for ending in _endings(file_name(asset.href)):
            if ending in by_key:
                return _checked(3, by_key[ending], 1)
    return 0, ()


def _checked(rank: int, specs: tuple[BandSpec, ...], count: int) -> tuple[int, tuple[BandSpec, ...]]:
    # A true-colour picture with the key "red" is not the red band.
    return (rank, specs) if count == 1 or len(specs) > 1 else (0, ())


def band_called(profile: SensorProfile, name: str, variant: str | None = None) -> BandSpec | None:
    """Return the band with this plain name, key of any catalogue, or common name that no other band has; else None."""
    by_key, by_common = _tables(profile, variant)
    for spec in profile.bands_of(variant):
        if spec.name == name:
            return spec
    for table in (by_key, by_common):
        for spelling in _spellings(name):
            if len(table.get(spelling, ())) == 1:
                return table[spelling][0]
    return None


_REGISTRY: dict[str, SensorProfile] = {profile.name: profile for profile in PRODUCTS}


def register(profile: SensorProfile) -> SensorProfile:
    """Register ``profile`` in this process, so that its name and collection ids find it; it replaces a profile of the same name.

    Dask workers are other processes: pass the profile itself as ``sensor=`` there.
    """
    _REGISTRY.pop(profile.name, None)
    _REGISTRY[profile.name] = profile
    return profile


def unregister(name: str) -> None:
    """Remove the profile of that name, if there is one."""
    _REGISTRY.pop(name, None)


def names() -> tuple[str, ...]:
    """Return the names of all registered profiles."""
    return tuple(_REGISTRY)


def find(name: str | SensorProfile) -> SensorProfile:
    """Return the profile of that name; a profile is returned unchanged.

    Raises
    ------
    ValueError
        If no such profile is registered.
    """
    if isinstance(name, SensorProfile):
        return name
    if name not in _REGISTRY:
        raise ValueError(f"sensor {name!r} is not known; known are {', '.join(_REGISTRY)}; pass a SensorProfile, or register one")
    return _REGISTRY[name]


SENSOR = "xchip:sensor"
"""Property of an item with the name of its profile, for items whose published fields do not identify the product."""
_LEVEL_FIELDS = ("s2:product_type", "product:type", "processing:level", "landsat:correction", "landsat:processing_level")


def identity(item: JSON) -> str:
    """Return "id platform instruments" of an item, lower case, for `SensorProfile.variant_of`."""
    properties = _mapping(item.get("properties"))
    words = [item.get("id"), properties.get("platform"), properties.get("eo:platform"), properties.get("eo:instrument")]
    instruments = properties.get("instruments")
    words += instruments if isinstance(instruments, list) else [instruments]
    return " ".join(word.lower() for word in words if isinstance(word, str))


def recognise(item: JSON) -> tuple[SensorProfile, str] | None:
    """Return (profile, how it was recognised) for a STAC item as plain JSON; None for an unknown product.

    Items are recognised by the property ``xchip:sensor``, which processors write; else by the collection's id; else by platform
    or constellation, if the level matches too and the item has one of the profile's quality bands (any band, if the profile has
    no quality band). The last registered profile is tried first.

    Examples
    --------
    >>> profile, how = recognise({"id": "x", "collection": "sentinel-2-l2a"})
    >>> profile.name, how
    ('sentinel-2-l2a', "collection 'sentinel-2-l2a'")
    """
    properties = _mapping(item.get("properties"))
    collection = item.get("collection") or properties.get("collection")
    profiles = list(reversed(_REGISTRY.values()))
    if isinstance(named := properties.get(SENSOR), str) and named in _REGISTRY:
        return _REGISTRY[named], f"{SENSOR} of the item"
    if isinstance(collection, str):
        for profile in profiles:
            if collection.lower() in profile.collections:
                return profile, f"collection {collection!r}"
    words = [properties.get(field) for field in ("constellation", "platform", "eo:platform")]
    platform = re.sub(r"[\s_-]", "", " ".join(word for word in words if isinstance(word, str)).lower())
    level = " ".join(v for v in (item.get("id"), *map(properties.get, _LEVEL_FIELDS)) if isinstance(v, str)).lower()
    for profile in profiles:
        if profile.platform is None or profile.level is None:
            continue
        if not re.search(profile.platform, platform) or not re.search(profile.level, level):
            continue
        variant = profile.variant_of(identity(item))
        hrefs = {str(key): _mapping(asset).get("href") for key, asset in _mapping(item.get("assets")).items()}
        assets = [AssetNames(key, href=href if isinstance(href, str) else "") for key, href in hrefs.items()]
        bands = {spec.name for asset in assets for spec in match(profile, asset, variant)[1]}
        if bands & set(profile.quality_bands or [spec.name for spec in profile.bands]):
            return profile, f"platform and level {platform!r}, and the bands {', '.join(sorted(bands))}"
    return None


def file_name(href: str) -> str:
    """Return the name of the file that ``href`` points to, without a query."""
    return re.split(r"[?#]", href)[0].rstrip("/").rsplit("/", 1)[-1]


def _mapping(value: object) -> JSON:
    return value if isinstance(value, dict) else {}


def rule_for_band(name: str) -> QualityRule | None:
    """Return the rule for a variable called ``name`` ("scl", "QA_PIXEL"), for arrays from elsewhere; None if there is none.

    Examples
    --------
    >>> rule_for_band("QA_PIXEL").band
    'QA_PIXEL'
    """
    rules = [rule for profile in _REGISTRY.values() for rule in profile.quality]
    for spelling in _spellings(str(name)):
        for rule in (*rules, *RULES_BY_BAND_NAME):
            if rule.band == spelling:
                return renamed(rule, str(name))
    return None


def rule_by_name(key: str) -> QualityRule | None:
    """Return the rule of a quality band that its name alone identifies ("oa_fmask"), for any product; else None."""
    return next((rule for rule in RULES_BY_BAND_NAME if rule.band in _spellings(key)), None)


@lru_cache(maxsize=256)
def renamed(rule: QualityRule, band: str) -> QualityRule:
    """Return ``rule`` for a variable called ``band``: the same object on each call."""
    return replace(rule, band=band)
