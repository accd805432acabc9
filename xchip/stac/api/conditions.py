"""What a search asks of an item, checked item by item: servers differ in what they heed, and some answer all the same."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from xchip.stac.fields import FieldError, mapping, moment

Item = Mapping[str, Any]

_INSTANT = timedelta(microseconds=1)
_PERIOD = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")
_INTERVAL = 'give a date such as "2024", "2024-03" or "2024-03-05T10:00:00Z", or an interval "2024-01/2024-03", "2024/.."'


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of time, both ends included; None is open."""

    start: datetime | None
    end: datetime | None

    def __str__(self) -> str:
        """As a STAC API takes it."""
        if self.start == self.end:
            return _rfc3339(self.start)
        return f"{_rfc3339(self.start)}/{_rfc3339(self.end)}"

    def holds(self, item: Item) -> bool:
        """Whether the item's date, or its stretch from start_datetime to end_datetime, meets this one.

        A date that can't be read does not count against it: what is wrong with an item is said where it is used.
        """
        properties = mapping(item.get("properties"))
        try:
            at, start, end = (moment(properties.get(name), name) for name in ("datetime", "start_datetime", "end_datetime"))
        except FieldError:
            return True
        if at is None and start is None and end is None:
            return True
        return (at is not None and self._meets(at, at)) or ((start or end) is not None and self._meets(start, end))

    def _meets(self, start: datetime | None, end: datetime | None) -> bool:
        starts_too_late = start is not None and self.end is not None and start > self.end
        ends_too_early = end is not None and self.start is not None and end < self.start
        return not starts_too_late and not ends_too_early


def interval(value: Any) -> Interval:
    """An interval from "2024", "2024-03/2024-05", "../2024-01-01T00:00:00Z", datetimes, or a pair of them.

    Years, months and days stand for all of their time; times without a zone are UTC.

    Raises
    ------
    ValueError
        If it is none, is open at both ends, or ends before it starts.

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


def _period(part: Any, whole: Any) -> tuple[datetime | None, datetime | None]:
    """First and last instant of a year, month, day or moment."""
    if part is None or part in ("", ".."):
        return None, None
    if isinstance(part, date) and not isinstance(part, datetime):
        part = part.isoformat()
    try:
        match = _PERIOD.fullmatch(part.strip()) if isinstance(part, str) else None
        if match is None:
            at = moment(part, "datetime")
            return at, at
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


def _rfc3339(at: datetime | None) -> str:
    return ".." if at is None else at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


# -- where -------------------------------------------------------------------------------------------------------------


def checked_bbox(value: Any) -> tuple[float, float, float, float]:
    """(west, south, east, north) of a bbox; heights, if it has any, are left out.

    Raises
    ------
    ValueError
        If it is none in degrees. West of more than east crosses the antimeridian, and is right.
    """
    rule = "a bbox is west, south, east, north in degrees, such as -70.5,-33.6,-70.3,-33.4"
    try:
        parts = value.split(",") if isinstance(value, str) else value
        box = tuple(float(number) for number in parts)
    except (TypeError, ValueError):
        raise ValueError(f"bbox {value!r} is no list of numbers; {rule}") from None
    if len(box) not in (4, 6) or not all(map(math.isfinite, box)):
        raise ValueError(f"bbox {value!r} is not 4 numbers (or 6, with heights); {rule}")
    west, south, east, north = (*box[:2], *box[-len(box) // 2 :][:2])
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise ValueError(f"bbox {value!r} is outside -180..180 and -90..90, or its south is above its north; {rule}")
    return west, south, east, north


def box_shape(box: tuple[float, float, float, float]) -> Any:
    """A bbox as a shapely Polygon; a MultiPolygon where it crosses the antimeridian."""
    import shapely

    west, south, east, north = box
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def shape_of(value: Any) -> Any:
    """A shapely geometry from GeoJSON (text or dict, a Feature too) or anything with ``__geo_interface__``.

    Raises
    ------
    ValueError
        If it is none, or empty.
    """
    import shapely
    from shapely.geometry import shape

    try:
        found = json.loads(value) if isinstance(value, str) else getattr(value, "__geo_interface__", value)
        geometry = shape(found["geometry"] if found["type"] == "Feature" else found)
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise ValueError(f"intersects is no GeoJSON geometry: {str(value)[:80]!r} ({error})") from error
    if geometry.is_empty:
        raise ValueError(f"intersects is empty: {str(value)[:80]!r}; leave it out to search everywhere")
    return geometry


def _in_area(item: Item, area: Any) -> bool:
    """Whether the item's outline meets ``area``; an item that says nothing of its place is not held against."""
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


def _either(value: Any, one_of: Any) -> bool:
    return value in one_of


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    **{"eq": operator.eq, "neq": operator.ne, "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge},
    **{"startsWith": str.startswith, "endsWith": str.endswith, "contains": operator.contains, "in": _either},
}
_SYMBOLS = {"<=": "lte", ">=": "gte", "!=": "neq", "==": "eq", "=": "eq", "<": "lt", ">": "gt"}
_SENTENCE = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|!=|==|=|<|>)(?!\s*[<>=])\s*(.+?)\s*")
EVERYWHERE = ("eq", "neq", "lt", "lte", "gt", "gte")
"""Operators that every server with the query extension takes; the others are refused by some."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing asked of a property. An item without the property does not fulfil it."""

    field: str
    """Name of the property; id and collection too."""
    operator: str
    """As in the query extension: "eq", "lt", "in" ..."""
    value: Any

    def __post_init__(self) -> None:
        if self.operator not in _OPERATORS:
            raise ValueError(f"query of {self.field!r} has no operator {self.operator!r}; there are {', '.join(_OPERATORS)}")
        kinds: tuple[type, ...] = (str, int, float, bool)
        if self.operator == "in":
            kinds = (list, tuple)
        elif self.operator in ("startsWith", "endsWith", "contains"):
            kinds = (str,)
        if not isinstance(self.value, kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"query of {self.field!r}: {self.operator!r} takes {expected}, got {self.value!r}")

    def holds(self, item: Item) -> bool:
        """Whether the item fulfils it."""
        value = value_of(item, self.field)
        if value is None:
            return False
        if self.operator == "contains":  # text in text, or an entry of a list
            return isinstance(value, (str, list)) and self.value in value
        if self.operator == "in":
            return any(_comparable(value) == _comparable(one) for one in self.value)
        own, other = _comparable(value), _comparable(self.value)
        if type(own) is not type(other):
            return self.operator == "neq"
        if self.operator in ("startsWith", "endsWith"):
            own, other = value, self.value
            if not isinstance(own, str):
                return False
        return bool(_OPERATORS[self.operator](own, other))


def comparisons(query: Any) -> tuple[Comparison, ...]:
    """A query from ``{"eo:cloud_cover": {"lt": 20}}``, or from one or more sentences such as "eo:cloud_cover<20".

    In a sentence a value that reads as JSON is that (20, true, "20" in quotes), and text otherwise; "=<20" is refused as
    a slip: text that begins so has to be in quotes.

    Raises
    ------
    ValueError
        For something else, or an unknown operator.

    Examples
    --------
    >>> comparisons("eo:cloud_cover<20") == comparisons({"eo:cloud_cover": {"lt": 20}})
    True
    """
    if query is None:
        return ()
    if isinstance(query, Mapping):
        for name, asked in query.items():
            if not isinstance(asked, Mapping) or not asked:
                raise ValueError(f'query of {name!r} must be like {{"lt": 20}}, got {asked!r}')
        return tuple(Comparison(plain_field(name), op, value) for name, asked in query.items() for op, value in asked.items())
    if isinstance(query, str):
        query = [query]
    return tuple(_sentence(sentence) for sentence in query)


def _sentence(text: Any) -> Comparison:
    match = _SENTENCE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"condition {text!r} is not like eo:cloud_cover<20 (one of {' '.join(_SYMBOLS)})")
    name, symbol, value = match.groups()
    try:
        plain = json.loads(value)
    except ValueError:
        plain = value
    return Comparison(plain_field(name), _SYMBOLS[symbol], plain if isinstance(plain, (int, float)) else _unquoted(plain, value))


def _unquoted(plain: Any, value: str) -> str:
    return plain if isinstance(plain, str) else value


def plain_field(name: str) -> str:
    """A property's name as items have it: some write "properties.eo:cloud_cover"."""
    return name.removeprefix("properties.")


def value_of(item: Item, field: str) -> Any:
    """A property of an item, or its id or collection; where ``datetime`` is null, start_datetime stands for it."""
    properties = mapping(item.get("properties"))
    found = properties.get(field)
    if found is not None:
        return found
    return item.get(field) if field in ("id", "collection") else properties.get("start_datetime") if field == "datetime" else None


_DATES = re.compile(r"\d{4}-\d{2}-\d{2}T.+")


def _comparable(value: Any) -> Any:
    """Numbers as numbers, times as times whatever their spelling, and the rest as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    if not isinstance(value, str):
        return float(value)
    try:
        return moment(value, "value") if _DATES.fullmatch(value) else value
    except FieldError:
        return value


# -- all together ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that a search asks of an item; None or empty: nothing."""

    collections: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    time: Interval | None = None
    area: Any = None
    """A shapely geometry in longitude and latitude."""
    query: tuple[Comparison, ...] = ()

    def holds(self, item: Item) -> bool:
        """Whether the item fulfils all of it."""
        return (
            (self.collections is None or item.get("collection") in self.collections)
            and (self.ids is None or item.get("id") in self.ids)
            and (self.time is None or self.time.holds(item))
            and all(comparison.holds(item) for comparison in self.query)
            and (self.area is None or _in_area(item, self.area))
        )


Order = tuple[tuple[str, bool], ...]
"""(field, whether the largest comes first) of each key, the weightiest first."""


def order_of(sortby: Any) -> Order:
    """Keys from "-eo:cloud_cover,datetime", a list of such, or ``[{"field": ..., "direction": "desc"}]``.

    Raises
    ------
    ValueError
        For something else.
    """
    keys = sortby.split(",") if isinstance(sortby, str) else [sortby] if isinstance(sortby, Mapping) else sortby
    return tuple(_key(key) for key in keys or ())


def _key(key: Any) -> tuple[str, bool]:
    if isinstance(key, Mapping) and isinstance(key.get("field"), str) and key.get("direction", "asc") in ("asc", "desc"):
        return plain_field(key["field"]), key.get("direction") == "desc"
    if isinstance(key, str) and key.strip().lstrip("+-"):
        return plain_field(key.strip().lstrip("+-")), key.strip().startswith("-")
    raise ValueError(f'sortby {key!r} is not like "-eo:cloud_cover" or {{"field": "eo:cloud_cover", "direction": "desc"}}')


def in_order(items: Iterable[dict[str, Any]], order: Order, count: int | None = None) -> Iterator[dict[str, Any]]:
    """The first ``count`` of ``items`` when sorted; all without it. Holds them in memory, twice ``count`` at most.

    Numbers come before times, times before text; items without the field come last both ways. Those that are equal are in
    the order of their collections and ids.
    """
    kept: list[dict[str, Any]] = []
    for item in items:
        kept.append(item)
        if count is not None and len(kept) > 2 * count + 1000:
            kept = _sorted(kept, order)[:count]
    yield from _sorted(kept, order)[:count]


def _sorted(items: list[dict[str, Any]], order: Order) -> list[dict[str, Any]]:
    items = sorted(items, key=lambda item: (str(item.get("collection")), str(item.get("id"))))
    for field, descending in reversed(order):
        ranks = [_rank(value_of(item, field)) for item in items]
        present = [(rank, item) for rank, item in zip(ranks, items, strict=True) if rank is not None]
        present.sort(key=lambda pair: pair[0], reverse=descending)  # leaves the order of equal ones as it is
        items = [item for _, item in present] + [item for rank, item in zip(ranks, items, strict=True) if rank is None]
    return items


def _rank(value: Any) -> tuple[int, Any] | None:
    value = _comparable(value)
    for number, kind in enumerate((float, datetime, str)):
        if isinstance(value, kind):
            return number, value
    return None
