"""Read quality rules from the class names in ``classification:classes``, ``classification:bitfields`` and ``file:values``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from xchip.core.quality import (
    CLEAR,
    CLOUD,
    DEFECTIVE,
    NODATA,
    SHADOW,
    SNOW,
    WATER,
    BitField,
    Condition,
    QualityClass,
    QualityRule,
)
from xchip.core.types import JSON
from xchip.stac.fields import mapping, objects, text

QUALITY_ROLES = frozenset({"cloud", "cloud-shadow", "snow-ice", "water-mask", "data-mask", "quality", "quality-mask"})
"""Roles of assets whose published classes are read as quality."""

NAMES: dict[str, QualityClass] = {
    name: cls
    for cls, spellings in {
        NODATA: """nodata no_data fill filled fill_value missing missing_data no_observation not_observed null void outside
            invalid""",
        DEFECTIVE: """defective saturated saturated_or_defective saturated_defective bad bad_data corrupt corrupted error dropped
            dead_pixel not_usable unusable""",
        CLOUD: """cloud clouds cloudy cloud_high_probability cloud_medium_probability high_probability_cloud
            medium_probability_cloud high_probability_clouds medium_probability_clouds cloud_high cloud_medium opaque_cloud
            opaque_clouds thick_cloud thick_clouds thin_cloud thin_clouds cirrus thin_cirrus cirrus_cloud cirrus_clouds dilated
            dilated_cloud dilated_clouds cloud_dilated buffered_cloud cloud_buffer adjacent adjacent_cloud adjacent_to_cloud
            adjacent_to_cloud_shadow adjacent_to_cloud_or_shadow cloud_adjacent mixed_cloud partly_cloudy heavy_haze
            cloud_or_cirrus""",
        SHADOW: "shadow shadows cloud_shadow cloud_shadows shadow_cloud",
        SNOW: "snow ice snow_ice snow_or_ice snow_and_ice ice_snow sea_ice",
        WATER: """water open_water inland_water ocean sea lake river deep_water shallow_water permanent_water water_body
            water_bodies""",
        CLEAR: """clear clear_land clear_sky cloud_free cloudless no_cloud not_cloud land vegetation vegetated not_vegetated
            non_vegetated bare bare_soil bare_soils soil dark_area dark_area_pixels dark_features dark_feature_shadow
            topographic_shadow terrain_shadow unclassified cloud_low_probability low_probability_cloud valid usable good
            good_data""",
    }.items()
    for name in spellings.split()
}
"""Class of each published name, in lower case with _ between words."""

_IGNORED_FIELDS = re.compile(r"confidence|aerosol")
_NEGATIVE = re.compile(r"^(not|no|non|none)(_|$)")


@dataclass(frozen=True, slots=True)
class Published:
    """A rule that is published for one band of an asset."""

    rule: QualityRule
    """Its ``band`` is empty until the band has a name."""
    index: int
    """Number of the band in the asset's file, from 1."""
    mapped: int
    """Number of published names with a class."""


def rule_of(asset: JSON, key: str) -> Published | None:
    """Return the rule in the fields of asset ``key`` or of one of its bands; None if no published name has a class."""
    sources = [(1, asset)]
    for field in ("bands", "raster:bands"):
        sources += list(enumerate(objects(asset.get(field)), 1))
    rules = [rule for index, fields in sources if (rule := _rule(fields, index, key)) is not None]
    return max(rules, key=lambda published: published.mapped, default=None)


def _rule(fields: JSON, index: int, key: str) -> Published | None:
    conditions: dict[QualityClass, list[Condition]] = {}
    ignored: list[str] = []
    source = ""
    for field, entries in (
        ("classification:bitfields", _bit_fields(fields.get("classification:bitfields"))),
        ("classification:classes", _classes(fields.get("classification:classes"))),
        ("file:values", _file_values(fields.get("file:values"))),
    ):
        for name, condition, cls in entries:
            source = source or field
            if cls is None:
                ignored.append(name)
            else:
                conditions.setdefault(cls, []).append(condition)
        if source:
            break
    # CLEAR is the default class, so its names decide nothing.
    mapped = sum(len(matches) for cls, matches in conditions.items() if cls != CLEAR)
    if not mapped:
        return None
    rule = QualityRule(
        "",
        tuple((cls, tuple(matches)) for cls, matches in conditions.items()),
        source=f"{source} of asset {key!r}",
        ignored=tuple(dict.fromkeys(ignored)),
    )
    return Published(rule, index, mapped)


_Entry: TypeAlias = tuple[str, Condition, QualityClass | None]


def plain_name(name: object) -> str:
    """Normalise a name: "Cloud - high probability" -> "cloud_high_probability"; "" if it is not text."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") if isinstance(name, str) else ""


def _label(entry: JSON) -> str:
    """Return the name of a class, or, because names are optional, its title, summary or description."""
    return next((text(entry.get(f)) or "" for f in ("name", "title", "summary", "description") if text(entry.get(f))), "")


def _class_of(entry: JSON) -> QualityClass | None:
    if entry.get("nodata") is True:
        return NODATA
    return NAMES.get(plain_name(_label(entry)))


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) > 2**63:
        return None
    return int(value) if value == int(value) else None


def _classes(value: object) -> Iterable[_Entry]:
    for entry in objects(value):
        number = _integer(entry.get("value"))
        if number is not None:
            yield _label(entry) or str(number), number, _class_of(entry)


def _file_values(value: object) -> Iterable[_Entry]:
    for entry in objects(value):
        listed = entry.get("values")
        for number in map(_integer, listed if isinstance(listed, (list, tuple)) else ()):
            if number is not None:
                yield _label(entry) or str(number), number, _class_of(entry)


def _bit_fields(value: object) -> Iterable[_Entry]:
    for field in objects(value):
        offset, length = _integer(field.get("offset")), _integer(field.get("length"))
        name = _label(field)
        if offset is None or length is None or not (0 <= offset < 64 and 1 <= length <= 64 - offset):
            continue
        if _IGNORED_FIELDS.search(plain_name(name)):
            continue
        for entry in objects(field.get("classes")):
            number = _integer(entry.get("value"))
            if number is None or not 0 <= number < 1 << length:
                continue
            cls, label = _class_of(entry), _label(entry)
            if length == 1 and number == 1 and cls is None:
                # The name of a flag, such as "dilated_cloud", is the meaning of 1, because its classes may be named yes and no.
                cls = NAMES.get(plain_name(field.get("name")))
                label = name or label
            if cls is None and ((length == 1 and number == 0) or _NEGATIVE.match(plain_name(label))):
                continue  # "not set" has no class
            yield f"{name}: {label}" if label and label != name else name or str(number), BitField(offset, length, number), cls


def is_quality(roles: Iterable[str]) -> bool:
    """Whether the classes of an asset with these roles are read as quality."""
    return not QUALITY_ROLES.isdisjoint(roles)


def published_rules(assets: JSON, roles: Mapping[str, Iterable[str]]) -> list[tuple[str, Published]]:
    """Return (asset key, rule) of all quality assets; the rule with the most mapped names comes first."""
    rules = [
        (key, rule)
        for key, asset in assets.items()
        if is_quality(roles.get(key, ())) and (rule := rule_of(mapping(asset), key)) is not None
    ]
    return sorted(rules, key=lambda pair: -pair[1].mapped)
