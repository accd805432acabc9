"""Published classes of a quality band -> a rule: names of ``classification:classes`` and ``classification:bitfields``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
from xchip.stac.fields import mapping, objects, text

QUALITY_ROLES = frozenset({"cloud", "cloud-shadow", "snow-ice", "water-mask", "data-mask", "quality", "quality-mask"})
"""An asset with one of these roles may decide quality by its published classes."""

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
"""What a published name means, spelled in lower case with _ between words."""

_IGNORED_FIELDS = re.compile(r"confidence|aerosol")
_NEGATIVE = re.compile(r"^(not|no|non|none)(_|$)")


@dataclass(frozen=True, slots=True)
class Published:
    """A rule read from one band of an asset."""

    rule: QualityRule
    """Its ``band`` is empty until the band has a name."""
    index: int
    """Number of the band in the asset's file, from 1."""
    mapped: int
    """How many published names have a class."""


def rule_of(asset: Mapping[str, Any], key: str) -> Published | None:
    """The rule that asset ``key`` publishes, by its own fields or a band's; None where no published name has a class."""
    sources = [(1, asset)]
    for field in ("bands", "raster:bands"):
        sources += list(enumerate(objects(asset.get(field)), 1))
    found = [rule for index, fields in sources if (rule := _rule(fields, index, key)) is not None]
    return max(found, key=lambda published: published.mapped, default=None)


def _rule(fields: Mapping[str, Any], index: int, key: str) -> Published | None:
    conditions: dict[QualityClass, list[Condition]] = {}
    ignored: list[str] = []
    said = ""
    for field, entries in (
        ("classification:bitfields", _bit_fields(fields.get("classification:bitfields"))),
        ("classification:classes", _classes(fields.get("classification:classes"))),
        ("file:values", _file_values(fields.get("file:values"))),
    ):
        for name, condition, cls in entries:
            said = said or field
            if cls is None:
                ignored.append(name)
            else:
                conditions.setdefault(cls, []).append(condition)
        if said:
            break
    # A class CLEAR is what every other pixel is; naming it decides nothing.
    mapped = sum(len(found) for cls, found in conditions.items() if cls != CLEAR)
    if not mapped:
        return None
    rule = QualityRule(
        "",
        tuple((cls, tuple(found)) for cls, found in conditions.items()),
        source=f"{said} of asset {key!r}",
        ignored=tuple(dict.fromkeys(ignored)),
    )
    return Published(rule, index, mapped)


_Entry = tuple[str, Condition, QualityClass | None]


def plain_name(name: Any) -> str:
    """ "Cloud - high probability" -> "cloud_high_probability"; "" for what is no text."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") if isinstance(name, str) else ""


def _named(entry: Mapping[str, Any]) -> str:
    """Name of a class: ``name``, which is optional, else its title, summary or description."""
    return next((text(entry.get(f)) or "" for f in ("name", "title", "summary", "description") if text(entry.get(f))), "")


def _class_of(entry: Mapping[str, Any]) -> QualityClass | None:
    if entry.get("nodata") is True:
        return NODATA
    return NAMES.get(plain_name(_named(entry)))


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) > 2**63:
        return None
    return int(value) if value == int(value) else None


def _classes(value: Any) -> Iterable[_Entry]:
    for entry in objects(value):
        number = _whole(entry.get("value"))
        if number is not None:
            yield _named(entry) or str(number), number, _class_of(entry)


def _file_values(value: Any) -> Iterable[_Entry]:
    for entry in objects(value):
        listed = entry.get("values")
        for number in map(_whole, listed if isinstance(listed, (list, tuple)) else ()):
            if number is not None:
                yield _named(entry) or str(number), number, _class_of(entry)


def _bit_fields(value: Any) -> Iterable[_Entry]:
    for field in objects(value):
        offset, length = _whole(field.get("offset")), _whole(field.get("length"))
        name = _named(field)
        if offset is None or length is None or not (0 <= offset < 64 and 1 <= length <= 64 - offset):
            continue
        if _IGNORED_FIELDS.search(plain_name(name)):
            continue
        for entry in objects(field.get("classes")):
            number = _whole(entry.get("value"))
            if number is None or not 0 <= number < 1 << length:
                continue
            cls, label = _class_of(entry), _named(entry)
            if length == 1 and number == 1 and cls is None:
                # A flag's own name says what 1 means: "dilated_cloud", whose classes may be called yes and no.
                cls = NAMES.get(plain_name(field.get("name")))
                label = name or label
            if cls is None and ((length == 1 and number == 0) or _NEGATIVE.match(plain_name(label))):
                continue  # "not set" is nobody's class
            yield f"{name}: {label}" if label and label != name else name or str(number), BitField(offset, length, number), cls


def is_quality(roles: Iterable[str]) -> bool:
    """Whether an asset with these roles may decide quality."""
    return not QUALITY_ROLES.isdisjoint(roles)


def published_rules(assets: Mapping[str, Any], roles: Mapping[str, Iterable[str]]) -> list[tuple[str, Published]]:
    """(asset key, rule) of every asset that may decide quality, the one with the most names that have a class first."""
    found = [
        (key, rule)
        for key, asset in assets.items()
        if is_quality(roles.get(key, ())) and (rule := rule_of(mapping(asset), key)) is not None
    ]
    return sorted(found, key=lambda pair: -pair[1].mapped)
