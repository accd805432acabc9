"""Decide whether Sentinel-2 digital numbers contain the offset of processing baseline 04.00, and remove it.

From processing baseline 04.00 on (25 January 2022, and all of Collection 1), ESA adds 1000 to the digital numbers of
reflectances, so that dark pixels may be negative: reflectance = (DN + BOA_ADD_OFFSET) / 10000 at L2A, RADIO_ADD_OFFSET at L1C;
0 stays "no data" (Sentinel-2 Products Specification Document, issue 14.8). All 13 reflectance bands have the offset; scene
classes, aerosol and water vapour do not. Some catalogues remove it, so the date of an item decides nothing, and some fields are
wrong:

- Earth Search's ``sentinel-2-l2a`` removes the offset in its COGs and sets ``earthsearch:boa_offset_applied``. Its
  ``raster:bands`` still publish -0.1; the flag "is the truth" (github.com/Element84/earth-search, issue 9). The flag does not
  concern the JPEG2000 assets, which are ESA's files (issue 56). Some items are flagged false although the offset is removed
  (issues 66 and 71): nothing in the item shows it, so the caller must name these items.
- Earth Search's ``sentinel-2-c1-l2a``, and Digital Earth Africa's copy of it, keep the offset; ``raster:bands`` are right.
- Planetary Computer keeps the offset and publishes only the baseline. CDSE publishes ``processing:version`` and
  ``raster:offset``, the latter also, wrongly, for aerosol and water vapour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TypeAlias

import numpy as np

from xchip.core.scene import Band, BoaOffset, ItemError, Scene
from xchip.core.types import JSON
from xchip.stac.fields import mapping

Harmonize: TypeAlias = bool | int | Mapping[str, int]
"""Values of ``harmonize=``; see `harmonized`."""

FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
PRODUCTS = ("s2:product_uri", "sentinel:product_id")
DATASTRIPS = ("s2:datastrip_id", "eopf:datastrip_id")

_BASELINE = re.compile(r"(\d\d)\.(\d\d)")
_IN_PRODUCT = re.compile(r"_N(\d\d)(\d\d)_")
_IN_DATASTRIP = re.compile(r"_N(\d\d)\.(\d\d)$")
_USER_PROCESSING = "99"  # products that users make with any version of Sen2Cor
_ORIGINALS = (".jp2", ".j2k")


@dataclass(frozen=True, slots=True)
class Radiometry:
    """Published fields of an item that concern the offset."""

    flag: tuple[str, bool] | None
    """(field, whether the offset is removed)."""
    baseline: tuple[str, bool] | None
    """(field and value, whether ESA's products of that baseline have the offset)."""


def radiometry_of(item: JSON) -> Radiometry:
    """Read the flag and the processing baseline of an item: the baseline's field, else the names of its products.

    Examples
    --------
    >>> radiometry_of({"id": "a", "properties": {"s2:processing_baseline": "05.10"}})
    Radiometry(flag=None, baseline=('s2:processing_baseline 05.10', True))
    """
    properties = mapping(item.get("properties"))
    flags = [(field, properties[field]) for field in FLAGS if isinstance(properties.get(field), bool)]
    fields = [(field, _BASELINE.fullmatch, properties.get(field)) for field in BASELINES]
    fields += [(field, _IN_PRODUCT.search, properties.get(field)) for field in PRODUCTS]
    fields += [("id", _IN_PRODUCT.search, item.get("id"))]
    fields += [(field, _IN_DATASTRIP.search, properties.get(field)) for field in DATASTRIPS]
    matches = [(field, find(value)) for field, find, value in fields if isinstance(value, str)]
    versions = [(field, match[1], match[2]) for field, match in matches if match and match[1] < _USER_PROCESSING]
    baseline = next(((f"{field} {major}.{minor}", major >= "04") for field, major, minor in versions), None)
    return Radiometry(next((flag for flag in flags if flag[1]), flags[0] if flags else None), baseline)


def boa_offset(radiometry: Radiometry, *, href: str, default: int, published: float | None) -> BoaOffset:
    """Return the number to add to a reflectance band so that its digital numbers are as before baseline 04.00.

    A flag that the offset is removed decides, except for JPEG2000 files, which are ESA's. Otherwise the baseline and the offset
    that is published for the band must agree on whether the offset is there. ``href`` is the band's file; ``default`` is the
    offset of baseline 04.00 and later (-1000); ``published`` is the offset, in digital numbers, in the item or the file.

    Examples
    --------
    >>> from_esa = Radiometry(None, ("s2:processing_baseline 05.10", True))
    >>> boa_offset(from_esa, href="B04.tif", default=-1000, published=None)
    BoaOffset(offset=-1000, origin='s2:processing_baseline 05.10')
    >>> removed = Radiometry(("earthsearch:boa_offset_applied", True), from_esa.baseline)
    >>> boa_offset(removed, href="B04.tif", default=-1000, published=-1000).offset
    0
    """
    flag = radiometry.flag
    if flag is not None and flag[1] and not href.partition("?")[0].lower().endswith(_ORIGINALS):
        return BoaOffset(0, f"{flag[0]} true")
    statements = [] if radiometry.baseline is None else [radiometry.baseline]
    if published is not None:
        if not (published <= 0 and float(published).is_integer()):
            return BoaOffset(None, f"the published offset is {published:g} digital numbers, not a whole number of at most 0")
        statements.append((f"the published offset is {published:g} digital numbers", published != 0))
    if not statements:
        fields = ", ".join((*FLAGS, *BASELINES, *PRODUCTS, *DATASTRIPS))
        return BoaOffset(None, f"no field says it (looked in {fields}, id, and the offset of raster:bands, bands and asset)")
    origin, shifted = statements[0]
    if statements[-1][1] != shifted:
        return BoaOffset(None, f"{origin}, but {statements[-1][0]}")
    if not shifted:
        return BoaOffset(0, origin)
    return BoaOffset(default if published is None else int(published), origin)


def common_offset(decisions: Mapping[str, BoaOffset]) -> BoaOffset | None:
    """Return the decision for an item from the decisions for its bands, by name; None if it has no reflectance band."""
    if not decisions:
        return None
    (name, first), *others = decisions.items()
    for differing, decision in others:
        if decision.offset != first.offset:
            return BoaOffset(None, f"{name}: {first.origin}; {differing}: {decision.origin}")
    return first


def harmonized(scene: Scene, harmonize: Harmonize, *, rescale: bool = False) -> Scene:
    """Return the scene with the offset that its values are read with.

    Parameters
    ----------
    scene
        An item.
    harmonize
        False: values stay as stored. True: reflectance bands are read as before baseline 04.00, according to the item's
        metadata; items of sensors without the offset stay as they are. A whole number: the digital numbers to add to all
        items, regardless of their metadata: -1000, or 0. Numbers by item id: the same for these items; the metadata decide for
        the rest.
    rescale
        Whether the stack holds physical values. They include the offset for any ``harmonize``, and are not clipped.

    Raises
    ------
    ItemError
        If the offset is needed and the item's metadata leave it undecided, or its product is unknown.
    ValueError
        If ``harmonize`` has another type, or is a number above 0.

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
    override = _override(scene.item_id, harmonize)
    if harmonize is not False and scene.sensor is None:
        raise ItemError(
            scene.item_id,
            "its product is unknown, so harmonize= may not apply to it; pass sensor=, or stack it separately without harmonize=",
        )
    bands, quality = (
        tuple(_with_offset(scene.item_id, band, override, rescale=rescale) for band in bands)
        for bands in (scene.bands, scene.quality)
    )
    decision = override if override is not None and scene.boa_offset is not None else scene.boa_offset
    return replace(scene, bands=bands, quality=quality, boa_offset=decision)


def _override(item_id: str, harmonize: Harmonize) -> BoaOffset | None:
    """Return the offset that the caller passes for an item."""
    if isinstance(harmonize, bool) or (isinstance(harmonize, Mapping) and item_id not in harmonize):
        return None
    value = harmonize[item_id] if isinstance(harmonize, Mapping) else harmonize
    if isinstance(value, bool) or not isinstance(value, Integral) or value > 0:
        raise ValueError(
            "harmonize must be False, True, a whole number of digital numbers to add (-1000 or 0), or a dict of them by item id, "
            f"got {harmonize!r}"
        )
    return BoaOffset(int(value), "harmonize=")


def _with_offset(item_id: str, band: Band, override: BoaOffset | None, *, rescale: bool) -> Band:
    if band.boa_offset is None:
        return band
    decision = override or band.boa_offset
    if decision.offset is None:
        raise ItemError(
            item_id,
            "it is undecided whether its digital numbers contain the offset of Sentinel-2 processing baseline 04.00 (asset "
            f"{band.asset!r}): {decision.origin}; pass harmonize={{{item_id!r}: -1000}} if they do, 0 if they don't",
        )
    if rescale:
        return replace(band, boa_offset=decision, offset=decision.offset * band.scale)
    return replace(band, boa_offset=decision, offset=0.0, dn_offset=decision.offset)


def offset_in_file(scene: Scene) -> float:
    """Return the scene's offset as a number; NaN if it is undecided or the product has none."""
    decision = scene.boa_offset
    return np.nan if decision is None or decision.offset is None else float(decision.offset)
