"""Searching a STAC API: any server's answer is made to hold what was asked, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from xchip.stac.api.conditions import (
    EVERYWHERE,
    Conditions,
    Order,
    box_shape,
    checked_bbox,
    comparisons,
    in_order,
    interval,
    order_of,
    shape_of,
)
from xchip.stac.api.server import Server

PAGE = 100
"""Items of a page, unless the caller says: servers give 10 by themselves."""

Modifier = Callable[[Any], Any]


def search(
    api: str,
    *,
    collections: str | Sequence[str] | None = None,
    bbox: Any = None,
    intersects: Any = None,
    datetime: Any = None,
    query: Any = None,
    filter: Any = None,
    sortby: Any = None,
    ids: str | Sequence[str] | None = None,
    limit: int | None = None,
    max_items: int | None = None,
    modifier: Modifier | None = None,
) -> Iterator[dict[str, Any]]:
    """Items of a STAC API, one after another as plain dicts: the server's own JSON.

    Servers differ in what they heed, and some leave out a condition that they don't know without a word. So only what a server
    says that it knows is asked of it, and every item is checked here too: the same question has the same answer anywhere.

    Parameters
    ----------
    api
        URL of the API's landing page.
    collections, ids
        One or more; an item is in one of them.
    bbox
        (west, south, east, north) in degrees; across the antimeridian if west is more than east. Or text, "west,south,...".
    intersects
        GeoJSON or a shapely geometry; in place of ``bbox``.
    datetime
        "2024", "2024-03/2024-05", "2024-03-05T10:00:00Z/..", datetimes or a pair of them; both ends are included. An item counts
        by its datetime or by its stretch from start_datetime to end_datetime.
    query
        ``{"eo:cloud_cover": {"lt": 20}}`` (eq, neq, lt, lte, gt, gte, in, startsWith, endsWith, contains), or sentences such as
        "eo:cloud_cover<20". An item that lacks the property is left out.
    filter
        CQL2, as JSON (dict) or text: for servers that say that they know it, and refused otherwise.
    sortby
        "-eo:cloud_cover", several as a list: sorted here and by value, for servers sort numbers as text, or not at all. The
        answer, or what is best of it with ``max_items``, is held in memory.
    limit
        Items of a page.
    max_items
        The first so many, after sorting.
    modifier
        Called with each page (a FeatureCollection as dict), to change it in place, as for pystac-client.

    Yields
    ------
    dict
        Page by page: memory does not grow. Nothing is asked before the first is taken.

    Raises
    ------
    ValueError
        At once for an argument that is out of range; on the way for a URL that is no API, a collection that it does not have, or
        a question that it refuses.
    OSError
        If the server can't be reached, or keeps failing: a page is asked for six times, with growing waits.

    Examples
    --------
    >>> items = search("https://earth-search.aws.element84.com/v1", collections="sentinel-2-l2a", datetime="2024-01/2024-03",
    ...                bbox=(-70.5, -33.6, -70.3, -33.4), sortby="eo:cloud_cover", max_items=1)
    >>> next(items)["id"]  # doctest: +SKIP
    """
    if bbox is not None and intersects is not None:
        raise ValueError("give bbox or intersects, not both")
    for name, number, most in (("limit", limit, 10_000), ("max_items", max_items, None)):
        if number is not None and (number < 1 or (most is not None and number > most)):
            raise ValueError(f"{name} must be from 1{f' to {most:,}' if most else ' upwards'}, got {number}")
    box = None if bbox is None else checked_bbox(bbox)
    area = box_shape(box) if box is not None else None if intersects is None else shape_of(intersects)
    conditions = Conditions(
        collections=_names(collections, "collections"),
        ids=_names(ids, "ids"),
        time=None if datetime is None else interval(datetime),
        area=area,
        query=comparisons(query),
    )
    question = _Question(api, conditions, box, filter, limit or PAGE, modifier)
    return _answers(question, order_of(sortby), max_items)


def _names(value: Any, what: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = (value,) if isinstance(value, str) else tuple(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{what} must be one or more names, got {value!r}; leave it out for all")
    return names


@dataclass(frozen=True, slots=True)
class _Question:
    api: str
    conditions: Conditions
    box: tuple[float, float, float, float] | None
    """The area, where it is a bbox."""
    filter: Any
    limit: int
    modifier: Modifier | None


def _answers(question: _Question, order: Order, max_items: int | None) -> Iterator[dict[str, Any]]:
    found = (item for item in _items(question) if question.conditions.holds(item))
    yield from in_order(found, order, max_items) if order else islice(found, max_items)


def _items(question: _Question) -> Iterator[dict[str, Any]]:
    """What the server gives; no more is asked of it than it knows."""
    server = Server(question.api)
    server.check_collections(question.conditions.collections or ())
    method = "GET" if isinstance(question.filter, str) else server.method  # CQL2 as text is for GET
    for page in server.pages(method, _parameters(server, question)):
        if question.modifier is not None:
            question.modifier(page)
        yield from page["features"]


def _parameters(server: Server, question: _Question) -> dict[str, Any]:
    """The parts of the question that the server knows, as pystac-client names them."""
    asked = question.conditions
    parameters: dict[str, Any] = {"limit": question.limit, "collections": asked.collections, "ids": asked.ids}
    if asked.time is not None:
        parameters["datetime"] = str(asked.time)
    if question.box is not None and question.box[0] <= question.box[2]:
        parameters["bbox"] = question.box
    elif asked.area is not None:
        # Not every server knows a bbox that crosses the antimeridian; two polygons mean the same to all.
        parameters["intersects"] = asked.area
    if server.conforms_to("QUERY"):
        known: dict[str, dict[str, Any]] = {}
        for comparison in asked.query:
            if comparison.operator in EVERYWHERE and comparison.field not in ("id", "collection"):
                known.setdefault(comparison.field, {}).setdefault(comparison.operator, comparison.value)
        parameters["query"] = known or None
    if question.filter is not None:
        if not server.conforms_to("FILTER"):
            raise ValueError(
                f"the API {question.api} does not say that it knows filters, and might leave this one out; "
                "use query=, which xchip checks itself"
            )
        language = "cql2-text" if isinstance(question.filter, str) else "cql2-json"
        parameters |= {"filter": question.filter, "filter_lang": language}
    return parameters
