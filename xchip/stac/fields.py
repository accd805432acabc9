"""Reading the fields of STAC JSON, whatever is in them: each function checks the type and says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any


class FieldError(ValueError):
    """A field that holds something else than it must; the message says which and what."""


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str | None:
    """``value`` if it is a string that is not empty."""
    return value if isinstance(value, str) and value else None


def words(value: Any) -> tuple[str, ...]:
    """A list of strings, or one string, in lower case; what is neither is left out."""
    if isinstance(value, str):
        value = [value]
    return tuple(word.lower() for word in value if isinstance(word, str)) if isinstance(value, (list, tuple)) else ()


def objects(value: Any) -> list[Mapping[str, Any]]:
    """A list of objects, or one object; lists in lists are opened, what is no object is left out."""
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, (list, tuple)):
        return []
    flat = [inner for entry in value for inner in (entry if isinstance(entry, (list, tuple)) else [entry])]
    return [entry for entry in flat if isinstance(entry, dict)]


def number(value: Any, name: str) -> float | None:
    """A number, also as text ("nan", "-9999"); None for null, "" and "none".

    Raises
    ------
    FieldError
        For anything else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null")):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FieldError(f"{name} must be a number or 'nan', got {value!r}")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise FieldError(f"{name} must be a number or 'nan', got {value!r}") from error


def numbers(value: Any, name: str, lengths: tuple[int, ...]) -> tuple[float, ...] | None:
    """A list of finite numbers of one of ``lengths``; None for null or an empty list.

    Raises
    ------
    FieldError
        For anything else.
    """
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return None
    problem = None
    if isinstance(value, (list, tuple)) and len(value) in lengths and {type(v) for v in value} <= {int, float}:
        try:
            found = tuple(map(float, value))
        except OverflowError as error:
            problem = error
        else:
            if all(map(math.isfinite, found)):
                return found
    raise FieldError(f"{name} must be {' or '.join(map(str, lengths))} numbers, got {value!r}") from problem


_DTYPES = {
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16")},
    **{name: name for name in ("float32", "float64", "complex64", "complex128")},
    # NumPy has no complex integers: GDAL gives them as complex64.
    **{"cint16": "complex64", "cint32": "complex64", "cfloat32": "complex64", "cfloat64": "complex128", "byte": "uint8"},
}


def dtype(value: Any) -> str | None:
    """NumPy name of a STAC data type; None where there is none, or for "other"."""
    return _DTYPES.get(value.lower()) if isinstance(value, str) else None


def moment(value: Any, name: str) -> datetime | None:
    """A date or time as UTC; without a zone it is UTC. None for null or "".

    Raises
    ------
    FieldError
        If it can't be read.
    """
    if value is None or value == "":
        return None
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip().upper())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise FieldError(f"{name} must be an ISO 8601 date and time, got {value!r}") from None


@dataclass(frozen=True, slots=True)
class BandFields:
    """What an item says of one band of an asset; None where it says nothing."""

    name: str | None = None
    common_name: str | None = None
    description: str | None = None
    dtype: str | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None

    @property
    def is_alpha(self) -> bool:
        """Whether the item itself calls the band a mask."""
        said = (self.name, self.common_name, self.description)
        return any(word.lower() in ("alpha", "mask", "alpha band") for word in said if word)


# Common metadata of STAC 1.1, which an asset may have itself for all its bands.
_SHARED_FIELDS = ("data_type", "nodata", "raster:scale", "raster:offset", "eo:common_name")


def band_fields(asset: Mapping[str, Any], properties: Mapping[str, Any], key: str) -> tuple[BandFields, ...]:
    """What the item says of each band of asset ``key``, from ``bands``, ``eo:bands``, ``raster:bands`` and the asset itself.

    Before STAC 1.0 ``eo:bands`` held numbers that count in the item's own ``eo:bands``. Empty where nothing is said.

    Raises
    ------
    FieldError
        For a nodata, scale or offset that is no number.
    """
    shared = {field: asset[field] for field in _SHARED_FIELDS if asset.get(field) is not None}
    bands, eo, raster = (
        objects(asset.get("bands")),
        _eo_bands(asset.get("eo:bands"), properties),
        objects(asset.get("raster:bands")),
    )
    if not bands and not raster and "data_type" not in shared:
        raster = objects(properties.get("raster:bands"))
    count = max(len(bands), len(eo), len(raster), 1 if shared else 0)
    said = [_one_band([shared, *(rows[n] for rows in (raster, eo, bands) if n < len(rows))], key) for n in range(count)]
    if len(said) > 1 and (known := next((band.dtype for band in said if band.dtype), None)):
        # The bands of a file have one type, in every format that matters here.
        said = [band if band.dtype else replace(band, dtype=known) for band in said]
    return tuple(said)


def _eo_bands(value: Any, properties: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries: Sequence[Any] = value if isinstance(value, (list, tuple)) else []
    if all(isinstance(entry, dict) for entry in entries):
        return list(entries)
    if any(isinstance(entry, list) for entry in entries):
        return objects(value)
    published = objects(properties.get("eo:bands"))
    by_name = {band["name"]: band for band in published if isinstance(band.get("name"), str)}
    found: list[Mapping[str, Any]] = []
    for entry in entries:
        if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < len(published):
            found.append(published[entry])
        elif isinstance(entry, str):
            found.append(by_name.get(entry, {"name": entry}))
        else:
            found.append(mapping(entry))
    return found


def _one_band(entries: Sequence[Mapping[str, Any]], key: str) -> BandFields:
    said: dict[str, Any] = {}
    for entry in entries:  # the last one that says something wins
        said.update(
            entry if None not in entry.values() else {field: value for field, value in entry.items() if value is not None}
        )
    label = said.get("name")
    return BandFields(
        name=str(label) if isinstance(label, (str, int)) and not isinstance(label, bool) and label != "" else None,
        common_name=text(said.get("common_name", said.get("eo:common_name"))),
        description=text(said.get("description")),
        dtype=dtype(said.get("data_type")),
        nodata=number(said.get("nodata"), f"nodata of asset {key!r}"),
        scale=number(said.get("scale", said.get("raster:scale")), f"scale of asset {key!r}"),
        offset=number(said.get("offset", said.get("raster:offset")), f"offset of asset {key!r}"),
    )
