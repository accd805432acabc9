"""Client-side filters for STAC searches: servers support different parameters, and some silently ignore the rest."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from operator import eq, ge, gt, le, lt, ne
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from xchip.core.types import JSON, BBox
from xchip.stac.fields import FieldError, PlainItem, mapping, moment

if TYPE_CHECKING:
    import shapely


class HasGeoInterface(Protocol):
    """A geometry that can be written as GeoJSON, such as a shapely geometry."""

    @property
    def __geo_interface__(self) -> JSON: ...


Period: TypeAlias = str | date | Sequence[str | date | None]
"""Text such as "2024" or "2024-03/2024-05", a date or datetime, or a pair of dates (None is open)."""
Geometry: TypeAlias = "shapely.Geometry | HasGeoInterface | JSON | str"
"""GeoJSON as text or dict (a geometry or a Feature), or an object with ``__geo_interface__``."""
Query: TypeAlias = Mapping[str, JSON] | str | Sequence[str]
"""``{"eo:cloud_cover": {"lt": 20}}``, or one or more conditions such as "eo:cloud_cover<20"."""
SortBy: TypeAlias = str | JSON | Sequence[str | JSON]
"""Text such as "-eo:cloud_cover,datetime", ``{"field": ..., "direction": "desc"}``, or a list of these."""

_INSTANT = timedelta(microseconds=1)
_PERIOD = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")
_INTERVAL = 'give a date such as "2024", "2024-03" or "2024-03-05T10:00:00Z", or an interval "2024-01/2024-03", "2024/.."'


@dataclass(frozen=True, slots=True)
class Interval:
    """A time interval that includes both ends; None is an open end."""

    start: datetime | None
    end: datetime | None

    def __str__(self) -> str:
        """Return the interval as a STAC API takes it."""
        if self.start == self.end:
            return _rfc3339(self.start)
        return f"{_rfc3339(self.start)}/{_rfc3339(self.end)}"

    def holds(self, item: JSON) -> bool:
        """Whether the item's date, or its interval from start_datetime to end_datetime, overlaps this interval.

        An item without a readable date passes: its errors are raised where it is used.
        """
        properties = mapping(item.get("properties"))
        try:
            time, start, end = (moment(properties.get(name), name) for name in ("datetime", "start_datetime", "end_datetime"))
        except FieldError:
            return True
        if time is None and start is None and end is None:
            return True
        return (time is not None and self._overlaps(time, time)) or ((start or end) is not None and self._overlaps(start, end))

    def _overlaps(self, start: datetime | None, end: datetime | None) -> bool:
        starts_too_late = start is not None and self.end is not None and start > self.end
        ends_too_early = end is not None and self.start is not None and end < self.start
        return not starts_too_late and not ends_too_early


def interval(value: Period) -> Interval:
    """Parse an interval from "2024", "2024-03/2024-05", "../2024-01-01T00:00:00Z", datetimes, or a pair of them.

    Years, months and days cover their whole duration; times without a zone are UTC. Raise ValueError if ``value`` can't be
    read, is open at both ends, or ends before it starts.

    Examples
    --------
    >>> str(interval("2024-02/2024-03")), str(interval("2024-03-05T10:00:00+02:00"))
    ('2024-02-01T00:00:00Z/2024-03-31T23:59:59.999999Z', '2024-03-05T08:00:00Z')
    """
    parts = value.split("/") if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]
    if not 1 <= len(parts) <= 2:
        raise ValueError(f"datetime {value!r} has {len(parts)} parts; {_INTERVAL}")
    periods = [_period(part, value) for part in parts]
    start, end = periods[0][0], periods[-1][1]
    if start is None and end is None:
        raise ValueError(f"datetime {value!r} is open at both ends; {_INTERVAL}, or leave it out")
    if start is not None and end is not None and start > end:
        raise ValueError(f"datetime {value!r} ends before it starts; {_INTERVAL}")
    return Interval(start, end)


def _period(part: object, whole: object) -> tuple[datetime | None, datetime | None]:
    """Return the first and last instant of a year, month, day or time."""
    if part is None or part in ("", ".."):
        return None, None
    if isinstance(part, date) and not isinstance(part, datetime):
        part = part.isoformat()
    try:
        match = _PERIOD.fullmatch(part.strip()) if isinstance(part, str) else None
        if match is None:
            time = moment(part, "datetime")
            return time, time
        year, month, day = (int(digits) if digits else None for digits in match.groups())
        start = datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
        if day is not None:
            end = start + timedelta(days=1)
        elif month is not None:
            end = (start + timedelta(days=31)).replace(day=1)
        else:
            end = start.replace(year=start.year + 1)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"datetime {whole!r} can't be read: {error}; {_INTERVAL}") from error
    return start, end - _INSTANT


def _rfc3339(time: datetime | None) -> str:
    return ".." if time is None else time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


# -- area --------------------------------------------------------------------------------------------------------------


def checked_bbox(value: str | Sequence[float]) -> BBox:
    """Return (west, south, east, north) of a bbox, without heights; ValueError if it is not a bbox in degrees.

    If west > east, it crosses the antimeridian.
    """
    rule = "a bbox is west, south, east, north in degrees, such as -70.5,-33.6,-70.3,-33.4"
    try:
        parts = value.split(",") if isinstance(value, str) else value
        box = tuple(float(number) for number in parts)
    except (TypeError, ValueError):
        raise ValueError(f"bbox {value!r} is not a list of numbers; {rule}") from None
    if len(box) not in (4, 6) or not all(map(math.isfinite, box)):
        raise ValueError(f"bbox {value!r} is not 4 numbers (or 6, with heights); {rule}")
    west, south, east, north = (*box[:2], *box[-len(box) // 2 :][:2])
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise ValueError(f"bbox {value!r} is outside -180..180 and -90..90, or its south is above its north; {rule}")
    return west, south, east, north


def box_shape(box: BBox) -> shapely.Geometry:
    """Return a bbox as a Polygon, or as a MultiPolygon if it crosses the antimeridian."""
    import shapely

    west, south, east, north = box
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def shape_of(value: Geometry) -> shapely.Geometry:
    """Return ``value`` as a shapely geometry; ValueError if it is not a geometry, or is empty."""
    import shapely
    from shapely.geometry import shape

    try:
        geojson: Any = json.loads(value) if isinstance(value, str) else getattr(value, "__geo_interface__", value)
        geometry = shape(geojson["geometry"] if geojson["type"] == "Feature" else geojson)
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise ValueError(f"intersects is not a GeoJSON geometry: {str(value)[:80]!r} ({error})") from error
    if geometry.is_empty:
        raise ValueError(f"intersects is empty: {str(value)[:80]!r}; leave it out to search everywhere")
    return geometry


def _in_area(item: JSON, area: shapely.Geometry) -> bool:
    """Whether the item's footprint intersects ``area``; an item without a valid footprint passes."""
    import shapely
    from shapely.geometry import shape

    try:
        box = checked_bbox(item["bbox"]) if item.get("bbox") else None
        crosses = box is not None and box[0] > box[2]
        if item.get("geometry") and not crosses:
            return bool(shape(item["geometry"]).intersects(area))
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError):
        return True
    return box is None or bool(box_shape(box).intersects(area))


# -- properties --------------------------------------------------------------------------------------------------------


_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {"eq": eq, "neq": ne, "lt": lt, "lte": le, "gt": gt, "gte": ge}
_AFFIXES: dict[str, Callable[[str, str], bool]] = {"startsWith": str.startswith, "endsWith": str.endswith}
_OPERATORS = (*_ORDERINGS, *_AFFIXES, "contains", "in")
PORTABLE_OPERATORS = tuple(_ORDERINGS)
"""Operators that every server with the query extension supports; some servers reject the others."""
_SYMBOLS = {"<=": "lte", ">=": "gte", "!=": "neq", "==": "eq", "=": "eq", "<": "lt", ">": "gt"}
_CONDITION = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|!=|==|=|<|>)(?!\s*[<>=])\s*(.+?)\s*")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition on one property. An item without the property fails it."""

    field: str
    """Name of the property, or "id" or "collection"."""
    operator: str
    """As in the query extension: "eq", "lt", "in" ..."""
    value: Any

    def __post_init__(self) -> None:
        if self.operator not in _OPERATORS:
            raise ValueError(f"query of {self.field!r} has no operator {self.operator!r}; there are {', '.join(_OPERATORS)}")
        kinds: tuple[type, ...] = (str, int, float, bool)
        if self.operator == "in":
            kinds = (list, tuple)
        elif self.operator not in _ORDERINGS:
            kinds = (str,)
        if not isinstance(self.value, kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"query of {self.field!r}: {self.operator!r} takes {expected}, got {self.value!r}")

    def holds(self, item: JSON) -> bool:
        """Whether the item fulfils the condition."""
        value = value_of(item, self.field)
        if value is None:
            return False
        if self.operator == "contains":  # a substring, or an element of a list
            return isinstance(value, (str, list)) and self.value in value
        if self.operator == "in":
            return any(_comparable(value) == _comparable(choice) for choice in self.value)
        left, right = _comparable(value), _comparable(self.value)
        if type(left) is not type(right):
            return self.operator == "neq"
        if self.operator in _AFFIXES:
            return isinstance(value, str) and _AFFIXES[self.operator](value, self.value)
        return _ORDERINGS[self.operator](left, right)


def comparisons(query: Query | None) -> tuple[Comparison, ...]:
    """Parse a query such as ``{"eo:cloud_cover": {"lt": 20}}``, or one or more conditions such as "eo:cloud_cover<20".

    The value of a condition is parsed as JSON if possible (20, true, "20" in quotes), else it is text. Text that begins with
    <, > or = must be quoted, because "=<20" is more likely a slip. Raise ValueError if ``query`` can't be parsed, or has an
    unknown operator.

    Examples
    --------
    >>> comparisons("eo:cloud_cover<20") == comparisons({"eo:cloud_cover": {"lt": 20}})
    True
    """
    if query is None:
        return ()
    if isinstance(query, Mapping):
        for name, terms in query.items():
            if not isinstance(terms, Mapping) or not terms:
                raise ValueError(f'query of {name!r} must be like {{"lt": 20}}, got {terms!r}')
        return tuple(Comparison(plain_field(name), op, value) for name, terms in query.items() for op, value in terms.items())
    return tuple(_condition(text) for text in ([query] if isinstance(query, str) else query))


def _condition(text: object) -> Comparison:
    match = _CONDITION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"condition {text!r} is not like eo:cloud_cover<20 (one of {' '.join(_SYMBOLS)})")
    name, symbol, value = match.groups()
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    return Comparison(plain_field(name), _SYMBOLS[symbol], parsed if isinstance(parsed, (int, float, str)) else value)


def plain_field(name: str) -> str:
    """Return a property's name as in items, without a leading "properties."."""
    return name.removeprefix("properties.")


def value_of(item: JSON, field: str) -> object:
    """Return a property of an item, or its id or collection; a null ``datetime`` is replaced by start_datetime."""
    properties = mapping(item.get("properties"))
    value = properties.get(field)
    if value is not None:
        return value
    return item.get(field) if field in ("id", "collection") else properties.get("start_datetime") if field == "datetime" else None


_DATES = re.compile(r"\d{4}-\d{2}-\d{2}T.+")


def _comparable(value: object) -> object:
    """Convert numbers to float and times, in any spelling, to datetime; return other values unchanged."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    if not isinstance(value, str):
        return float(value)
    try:
        return moment(value, "value") if _DATES.fullmatch(value) else value
    except FieldError:
        return value


# -- conditions and order ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conditions:
    """All conditions of a search; None or empty: no condition."""

    collections: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    time: Interval | None = None
    area: shapely.Geometry | None = None
    """In longitude and latitude."""
    query: tuple[Comparison, ...] = ()

    def holds(self, item: JSON) -> bool:
        """Whether the item fulfils all conditions."""
        return (
            (self.collections is None or item.get("collection") in self.collections)
            and (self.ids is None or item.get("id") in self.ids)
            and (self.time is None or self.time.holds(item))
            and all(comparison.holds(item) for comparison in self.query)
            and (self.area is None or _in_area(item, self.area))
        )


Order = tuple[tuple[str, bool], ...]
"""(field, whether it is descending) of each sort key, the most significant first."""


def order_of(sortby: SortBy | None) -> Order:
    """Parse sort keys; ValueError if a key can't be parsed."""
    keys = sortby.split(",") if isinstance(sortby, str) else [sortby] if isinstance(sortby, Mapping) else sortby
    return tuple(_sort_key(key) for key in keys or ())


def _sort_key(key: object) -> tuple[str, bool]:
    if isinstance(key, Mapping) and isinstance(key.get("field"), str) and key.get("direction", "asc") in ("asc", "desc"):
        return plain_field(key["field"]), key.get("direction") == "desc"
    if isinstance(key, str) and key.strip().lstrip("+-"):
        return plain_field(key.strip().lstrip("+-")), key.strip().startswith("-")
    raise ValueError(f'sortby {key!r} is not like "-eo:cloud_cover" or {{"field": "eo:cloud_cover", "direction": "desc"}}')


def in_order(items: Iterable[PlainItem], order: Order, count: int | None = None) -> Iterator[PlainItem]:
    """Sort ``items`` and yield the first ``count``, or all. Holds at most about twice ``count`` items in memory.

    Numbers come before times, times before text; items without the field come last in both directions. Ties are ordered by
    collection and id.
    """
    best: list[PlainItem] = []
    for item in items:
        best.append(item)
        if count is not None and len(best) > 2 * count + 1000:
            best = _sorted(best, order)[:count]
    yield from _sorted(best, order)[:count]


def _sorted(items: list[PlainItem], order: Order) -> list[PlainItem]:
    items = sorted(items, key=lambda item: (str(item.get("collection")), str(item.get("id"))))
    for field, descending in reversed(order):
        ranks = [_rank(value_of(item, field)) for item in items]
        present = [(rank, item) for rank, item in zip(ranks, items, strict=True) if rank is not None]
        present.sort(key=lambda pair: pair[0], reverse=descending)  # stable: ties keep their order
        items = [item for _, item in present] + [item for rank, item in zip(ranks, items, strict=True) if rank is None]
    return items


def _rank(value: object) -> tuple[int, object] | None:
    value = _comparable(value)
    return next(((number, value) for number, kind in enumerate((float, datetime, str)) if isinstance(value, kind)), None)
