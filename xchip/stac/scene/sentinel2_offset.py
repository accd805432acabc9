"""Sentinel-2 radiometry: whether an item's digital numbers hold the offset of processing baseline 04.00, and without it.

From processing baseline 04.00 on (25 January 2022, and all of Collection 1 whatever its date) ESA stores reflectances with 1000
digital numbers more than before, so that dark pixels may be negative: reflectance = (DN + BOA_ADD_OFFSET) / 10000 at L2A,
RADIO_ADD_OFFSET at L1C; 0 stays "no data" (Sentinel-2 Products Specification Document, issue 14.8). All 13
reflectance bands have it, scene classes, aerosol and water vapour do not. Some catalogues took it off again, so an item's date
says nothing, and not every field can be believed:

- Earth Search's ``sentinel-2-l2a`` took it off as it made its COGs, and says so by ``earthsearch:boa_offset_applied``. Its
  ``raster:bands`` went on to say -0.1; the flag "is the truth" (github.com/Element84/earth-search, issue 9). Its JPEG2000
  assets are ESA's own files, of which the flag does not speak (issue 56). Some items are flagged false though it was taken
  off (issues 66 and 71): nothing in the item shows that, so such items have to be named by the caller.
- Earth Search's ``sentinel-2-c1-l2a``, and Digital Earth Africa's copy of it, kept the offset; ``raster:bands`` are right.
- Planetary Computer kept it and publishes the baseline alone. CDSE publishes ``processing:version`` and ``raster:offset``, the
  latter for aerosol and water vapour too, where it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from xchip.core.scene import Band, BoaOffset, ItemError, Scene
from xchip.stac.fields import mapping

Harmonize = bool | int | Mapping[str, int]
"""What ``harmonize=`` may be; see `harmonized`."""

FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
PRODUCTS = ("s2:product_uri", "sentinel:product_id")
DATASTRIPS = ("s2:datastrip_id", "eopf:datastrip_id")

_BASELINE = re.compile(r"(\d\d)\.(\d\d)")
_IN_PRODUCT = re.compile(r"_N(\d\d)(\d\d)_")
_IN_DATASTRIP = re.compile(r"_N(\d\d)\.(\d\d)$")
_OWN_PROCESSING = "99"  # of products that somebody made with Sen2Cor: any version of it
_ORIGINALS = (".jp2", ".j2k")


@dataclass(frozen=True, slots=True)
class Radiometry:
    """What an item as a whole says of the offset."""

    flag: tuple[str, bool] | None
    """(field, whether the offset was taken off)."""
    baseline: tuple[str, bool] | None
    """(field and value, whether products of that baseline have the offset)."""


def radiometry_of(item: Mapping[str, Any]) -> Radiometry:
    """What ``item``, a STAC item as plain JSON, says of its processing baseline: its own field, else the names of its products.

    Examples
    --------
    >>> radiometry_of({"id": "a", "properties": {"s2:processing_baseline": "05.10"}})
    Radiometry(flag=None, baseline=('s2:processing_baseline 05.10', True))
    """
    properties = mapping(item.get("properties"))
    flags = [(field, properties[field]) for field in FLAGS if isinstance(properties.get(field), bool)]
    said = [(field, _BASELINE.fullmatch, properties.get(field)) for field in BASELINES]
    said += [(field, _IN_PRODUCT.search, properties.get(field)) for field in PRODUCTS]
    said += [("id", _IN_PRODUCT.search, item.get("id"))]
    said += [(field, _IN_DATASTRIP.search, properties.get(field)) for field in DATASTRIPS]
    found = [(field, find(value)) for field, find, value in said if isinstance(value, str)]
    known = [(field, match[1], match[2]) for field, match in found if match and match[1] < _OWN_PROCESSING]
    baseline = next(((f"{field} {major}.{minor}", major >= "04") for field, major, minor in known), None)
    return Radiometry(next((flag for flag in flags if flag[1]), flags[0] if flags else None), baseline)


def boa_offset(radiometry: Radiometry, *, href: str, usual: int, said: float | None) -> BoaOffset:
    """What has to be added to the digital numbers of a reflectance band so that they are as before baseline 04.00.

    A flag that the offset was taken off decides, but for JPEG2000 files, which are as ESA made them. Else the baseline and the
    offset that is published for the band must agree on whether there is one.

    Parameters
    ----------
    radiometry
        What the item says.
    href
        The band's file.
    usual
        The offset of products of baseline 04.00 and later: -1000.
    said
        The offset that the item or the file publishes for the band, in digital numbers; None where neither does.

    Examples
    --------
    >>> from_esa = Radiometry(None, ("s2:processing_baseline 05.10", True))
    >>> boa_offset(from_esa, href="B04.tif", usual=-1000, said=None)
    BoaOffset(offset=-1000, origin='s2:processing_baseline 05.10')
    >>> taken_off = Radiometry(("earthsearch:boa_offset_applied", True), from_esa.baseline)
    >>> boa_offset(taken_off, href="B04.tif", usual=-1000, said=-1000).offset
    0
    """
    flag = radiometry.flag
    if flag is not None and flag[1] and not href.partition("?")[0].lower().endswith(_ORIGINALS):
        return BoaOffset(0, f"{flag[0]} true")
    statements = [] if radiometry.baseline is None else [radiometry.baseline]
    if said is not None:
        if not (said <= 0 and float(said).is_integer()):
            return BoaOffset(None, f"the published offset is {said:g} digital numbers, which is no such offset")
        statements.append((f"the published offset is {said:g} digital numbers", said != 0))
    if not statements:
        looked = ", ".join((*FLAGS, *BASELINES, *PRODUCTS, *DATASTRIPS))
        return BoaOffset(None, f"nothing says so (looked in {looked}, id, and the offset of raster:bands, bands and asset)")
    (origin, shifted), *others = statements
    if any(differs != shifted for _, differs in others):
        return BoaOffset(None, f"{origin}, but {others[0][0]}")
    if not shifted:
        return BoaOffset(0, origin)
    return BoaOffset(usual if said is None else int(said), origin)


def common_offset(decisions: Mapping[str, BoaOffset]) -> BoaOffset | None:
    """The decision for an item from those of its bands, by name; None where it has no reflectance band."""
    if not decisions:
        return None
    (name, first), *others = decisions.items()
    odd = next((other for other, decision in others if decision.offset != first.offset), None)
    if odd is None:
        return first
    return BoaOffset(None, f"{name}: {first.origin}; {odd}: {decisions[odd].origin}")


def harmonized(scene: Scene, harmonize: Harmonize, *, rescale: bool = False) -> Scene:
    """The scene with its offset settled.

    Parameters
    ----------
    scene
        An item.
    harmonize
        False: values stay as stored. True: reflectance bands are read as before baseline 04.00, by what the item says; items of
        sensors that never had the offset stay as they are. A whole number: the digital numbers to add, whatever the items
        say: -1000, or 0 if the values need nothing. Numbers by item id: the same for some items; others go by what they say.
    rescale
        Whether the stack holds physical values: the offset is then part of them, whatever ``harmonize`` is, and nothing is cut
        off.

    Raises
    ------
    ItemError
        If the offset is needed and the item leaves it undecided, or its product is not known.
    ValueError
        If ``harmonize`` is something else, or a number above 0.

    Examples
    --------
    >>> from xchip.stac.scene.understand import understand
    >>> grid = {"proj:shape": [10, 10], "proj:transform": [10, 0, 0, 0, -10, 0]}
    >>> item = {
    ...     "id": "a", "collection": "sentinel-2-l2a", "assets": {"B04": {"href": "s3://bucket/B04.tif", **grid}},
    ...     "properties": {"datetime": "2024-01-01", "proj:code": "EPSG:32632", "s2:processing_baseline": "05.10"},
    ... }
    >>> scene = understand(item)
    >>> [(band.offset, band.dn_offset) for band in (*scene.bands, *harmonized(scene, True).bands)]
    [(-0.1, 0), (0.0, -1000)]
    """
    if harmonize is False and not rescale:
        return scene
    told = _told(scene.item_id, harmonize)
    if harmonize is not False and scene.sensor is None:
        raise ItemError(
            scene.item_id,
            "its product is not known, so nothing says whether harmonize= is for it; pass sensor=, or stack it apart without",
        )
    bands, quality = (
        tuple(_settled(scene.item_id, band, told, rescale=rescale) for band in bands) for bands in (scene.bands, scene.quality)
    )
    decision = told if told is not None and scene.boa_offset is not None else scene.boa_offset
    return replace(scene, bands=bands, quality=quality, boa_offset=decision)


def _told(item_id: str, harmonize: Harmonize) -> BoaOffset | None:
    """What the caller says of an item."""
    if isinstance(harmonize, bool) or (isinstance(harmonize, Mapping) and item_id not in harmonize):
        return None
    value = harmonize[item_id] if isinstance(harmonize, Mapping) else harmonize
    if isinstance(value, bool) or not isinstance(value, Integral) or value > 0:
        raise ValueError(
            "harmonize must be False, True, a whole number of digital numbers to add (-1000, or 0), or such numbers by item id, "
            f"got {harmonize!r}"
        )
    return BoaOffset(int(value), "harmonize=")


def _settled(item_id: str, band: Band, told: BoaOffset | None, *, rescale: bool) -> Band:
    if band.boa_offset is None:
        return band
    decision = told or band.boa_offset
    if decision.offset is None:
        raise ItemError(
            item_id,
            "it is undecided whether its digital numbers hold the offset of Sentinel-2 processing baseline 04.00 (asset "
            f"{band.asset!r}): {decision.origin}; pass harmonize={{{item_id!r}: -1000}} if they do, 0 if they don't",
        )
    if rescale:
        return replace(band, boa_offset=decision, offset=decision.offset * band.scale)
    return replace(band, boa_offset=decision, offset=0.0, dn_offset=decision.offset)


def offset_in_file(scene: Scene) -> float:
    """The scene's decision as a number: NaN where it is undecided, or the product has none."""
    decision = scene.boa_offset
    return np.nan if decision is None or decision.offset is None else float(decision.offset)
