"""Read the fields of STAC JSON: each function checks the type, and its error names the field and the value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from xchip.core.types import JSON

PlainItem: TypeAlias = dict[str, Any]
"""A STAC item as plain JSON."""


class FieldError(ValueError):
    """A field has an invalid value; the message names both."""


def mapping(value: object) -> JSON:
    """Return ``value`` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """Return ``value`` if it is a non-empty string."""
    return value if isinstance(value, str) and value else None


def words(value: object) -> tuple[str, ...]:
    """Return a string, or a list of strings, in lower case; skip anything else."""
    if isinstance(value, str):
        value = [value]
    return tuple(word.lower() for word in value if isinstance(word, str)) if isinstance(value, (list, tuple)) else ()


def objects(value: object) -> list[JSON]:
    """Return an object, or a list of objects, as a list; flatten nested lists and skip anything else."""
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, (list, tuple)):
        return []
    flat = [inner for entry in value for inner in (entry if isinstance(entry, (list, tuple)) else [entry])]
    return [entry for entry in flat if isinstance(entry, dict)]


def number(value: object, name: str) -> float | None:
    """Read a number, also from text ("nan", "-9999"); None for null, "" and "none"; FieldError for any other value."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null")):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FieldError(f"{name} must be a number or 'nan', got {value!r}")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise FieldError(f"{name} must be a number or 'nan', got {value!r}") from error


def numbers(value: object, name: str, lengths: tuple[int, ...]) -> tuple[float, ...] | None:
    """Read a list of finite numbers, its length in ``lengths``; None for null or an empty list; FieldError for other values."""
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return None
    problem = None
    if isinstance(value, (list, tuple)) and len(value) in lengths and {type(v) for v in value} <= {int, float}:
        try:
            floats = tuple(map(float, value))
        except OverflowError as error:
            problem = error
        else:
            if all(map(math.isfinite, floats)):
                return floats
    raise FieldError(f"{name} must be {' or '.join(map(str, lengths))} numbers, got {value!r}") from problem


_DTYPES = {
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16")},
    **{name: name for name in ("float32", "float64", "complex64", "complex128")},
    # NumPy has no complex integers; GDAL reads them as complex64.
    **{"cint16": "complex64", "cint32": "complex64", "cfloat32": "complex64", "cfloat64": "complex128", "byte": "uint8"},
}


def dtype(value: object) -> str | None:
    """Return the NumPy name of a STAC data type; None for "other", unknown names and missing values."""
    return _DTYPES.get(value.lower()) if isinstance(value, str) else None


def moment(value: object, name: str) -> datetime | None:
    """Read a date or time as UTC (also without a zone); None for null or ""; FieldError if it can't be read."""
    if value is None or value == "":
        return None
    try:
        time = datetime.fromisoformat(value.strip().upper()) if isinstance(value, str) else value
        if isinstance(time, datetime):
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # the error below names the field
    raise FieldError(f"{name} must be an ISO 8601 date and time, got {value!r}")


@dataclass(frozen=True, slots=True)
class BandFields:
    """Published metadata of one band of an asset; None where the item has none."""

    name: str | None = None
    common_name: str | None = None
    description: str | None = None
    dtype: str | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None

    @property
    def is_alpha(self) -> bool:
        """Whether the item calls the band a mask."""
        labels = (self.name, self.common_name, self.description)
        return any(label.lower() in ("alpha", "mask", "alpha band") for label in labels if label)


# Common metadata of STAC 1.1 that an asset may define for all its bands.
_SHARED_FIELDS = ("data_type", "nodata", "raster:scale", "raster:offset", "eo:common_name")


def band_fields(asset: JSON, properties: JSON, key: str) -> tuple[BandFields, ...]:
    """Read the metadata of each band of asset ``key`` from ``bands``, ``eo:bands``, ``raster:bands`` and the asset itself.

    Before STAC 1.0, numbers in an asset's ``eo:bands`` were indices into the item's ``eo:bands``. Empty without metadata;
    FieldError if a nodata value, scale or offset is not a number.
    """
    shared = {field: asset[field] for field in _SHARED_FIELDS if asset.get(field) is not None}
    eo = _eo_bands(asset.get("eo:bands"), properties)
    bands, raster = objects(asset.get("bands")), objects(asset.get("raster:bands"))
    if not bands and not raster and "data_type" not in shared:
        raster = objects(properties.get("raster:bands"))
    count = max(len(bands), len(eo), len(raster), 1 if shared else 0)
    fields = [_merged([shared, *(rows[n] for rows in (raster, eo, bands) if n < len(rows))], key) for n in range(count)]
    if len(fields) > 1 and (common := next((band.dtype for band in fields if band.dtype), None)):
        # All bands of a file have one data type in the formats that xchip reads.
        fields = [band if band.dtype else replace(band, dtype=common) for band in fields]
    return tuple(fields)


def _eo_bands(value: object, properties: JSON) -> list[JSON]:
    entries: Sequence[object] = value if isinstance(value, (list, tuple)) else []
    if any(isinstance(entry, list) for entry in entries):
        return objects(value)
    published = objects(properties.get("eo:bands"))
    by_name = {band["name"]: band for band in published if isinstance(band.get("name"), str)}

    def band_of(entry: object) -> JSON:
        if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < len(published):
            return published[entry]
        return by_name.get(entry, {"name": entry}) if isinstance(entry, str) else mapping(entry)

    return [band_of(entry) for entry in entries]


def _merged(entries: Sequence[JSON], key: str) -> BandFields:
    """Merge the ``entries`` of a band; a later value replaces an earlier one, unless it is null."""
    fields: dict[str, Any] = {}
    for entry in entries:
        fields.update(
            entry if None not in entry.values() else {name: value for name, value in entry.items() if value is not None}
        )
    label = fields.get("name")
    return BandFields(
        name=str(label) if isinstance(label, (str, int)) and not isinstance(label, bool) and label != "" else None,
        common_name=text(fields.get("common_name", fields.get("eo:common_name"))),
        description=text(fields.get("description")),
        dtype=dtype(fields.get("data_type")),
        nodata=number(fields.get("nodata"), f"nodata of asset {key!r}"),
        scale=number(fields.get("scale", fields.get("raster:scale")), f"scale of asset {key!r}"),
        offset=number(fields.get("offset", fields.get("raster:offset")), f"offset of asset {key!r}"),
    )
