"""Search a STAC API; filter and sort on the client, so that the result does not depend on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from xchip.core.types import JSON, BBox
from xchip.stac.api.conditions import (
    PORTABLE_OPERATORS,
    Conditions,
    Geometry,
    Order,
    Period,
    Query,
    SortBy,
    box_shape,
    checked_bbox,
    comparisons,
    in_order,
    interval,
    order_of,
    shape_of,
)
from xchip.stac.api.server import Server
from xchip.stac.fields import PlainItem

PAGE = 100
"""Default number of items per page; servers default to 10."""

Modifier = Callable[[dict[str, Any]], object]


def search(
    api: str,
    *,
    collections: str | Sequence[str] | None = None,
    bbox: BBox | Sequence[float] | str | None = None,
    intersects: Geometry | None = None,
    datetime: Period | None = None,
    query: Query | None = None,
    filter: JSON | str | None = None,
    sortby: SortBy | None = None,
    ids: str | Sequence[str] | None = None,
    limit: int | None = None,
    max_items: int | None = None,
    modifier: Modifier | None = None,
) -> Iterator[PlainItem]:
    """Search a STAC API and yield its items as plain dicts: the server's own JSON.

    Servers support different parameters, and some silently ignore the rest. `search` sends the parameters that the server
    declares and checks every item on the client, so that a search has the same result on every server.

    Parameters
    ----------
    api
        URL of the API's landing page.
    collections, ids
        One or more; an item matches any of them.
    bbox
        (west, south, east, north) in degrees; it crosses the antimeridian if west > east. Or text, "west,south,...".
    intersects
        GeoJSON or a shapely geometry, instead of ``bbox``.
    datetime
        "2024", "2024-03/2024-05", "2024-03-05T10:00:00Z/..", a datetime or a pair of them; both ends are included. An item
        matches by its datetime, or by its interval from start_datetime to end_datetime.
    query
        ``{"eo:cloud_cover": {"lt": 20}}`` (eq, neq, lt, lte, gt, gte, in, startsWith, endsWith, contains), or conditions such
        as "eo:cloud_cover<20". Items without the property don't match.
    filter
        CQL2, as JSON (dict) or text. Only for servers that declare support for filters.
    sortby
        "-eo:cloud_cover", or a list of keys. Sorted on the client by value, because servers sort numbers as text, or not at all.
        All matching items, or the best of them with ``max_items``, are held in memory.
    limit
        Number of items per page, at most 10,000.
    max_items
        Maximum number of items, after sorting.
    modifier
        Called with each page (a FeatureCollection as dict) to change it in place, as in pystac-client.

    Yields
    ------
    dict
        Page by page, so that memory does not grow. No request is sent before the first item is taken.

    Raises
    ------
    ValueError
        At once if an argument is out of range. While iterating, if the URL is not an API, a collection is missing, or the
        server rejects the search.
    OSError
        If the server can't be reached, or keeps failing: a page is requested up to six times, with growing waits.

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
    request = _Request(api, conditions, box, filter, limit or PAGE, modifier)
    return _results(request, order_of(sortby), max_items)


def _names(value: str | Iterable[str] | None, keyword: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = (value,) if isinstance(value, str) else tuple(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{keyword} must be one or more names, got {value!r}; leave it out for all")
    return names


@dataclass(frozen=True, slots=True)
class _Request:
    api: str
    conditions: Conditions
    box: BBox | None
    """The area, if it is a bbox."""
    filter: JSON | str | None
    limit: int
    modifier: Modifier | None


def _results(request: _Request, order: Order, max_items: int | None) -> Iterator[PlainItem]:
    items = (item for item in _items(request) if request.conditions.holds(item))
    yield from in_order(items, order, max_items) if order else islice(items, max_items)


def _items(request: _Request) -> Iterator[PlainItem]:
    """Yield the server's items, which may match only a part of the conditions."""
    server = Server(request.api)
    server.check_collections(request.conditions.collections or ())
    method = "GET" if isinstance(request.filter, str) else server.method  # CQL2 text needs GET
    for page in server.pages(method, _parameters(server, request)):
        if request.modifier is not None:
            request.modifier(page)
        yield from page["features"]


def _parameters(server: Server, request: _Request) -> dict[str, Any]:
    """Return the parameters that the server supports, under pystac-client's names."""
    conditions = request.conditions
    parameters: dict[str, Any] = {"limit": request.limit, "collections": conditions.collections, "ids": conditions.ids}
    if conditions.time is not None:
        parameters["datetime"] = str(conditions.time)
    if request.box is not None and request.box[0] <= request.box[2]:
        parameters["bbox"] = request.box
    elif conditions.area is not None:
        # Some servers reject a bbox that crosses the antimeridian; all of them understand two polygons.
        parameters["intersects"] = conditions.area
    if server.conforms_to("QUERY"):
        query: dict[str, dict[str, object]] = {}
        for comparison in conditions.query:
            if comparison.operator in PORTABLE_OPERATORS and comparison.field not in ("id", "collection"):
                query.setdefault(comparison.field, {}).setdefault(comparison.operator, comparison.value)
        parameters["query"] = query or None
    if request.filter is not None:
        if not server.conforms_to("FILTER"):
            raise ValueError(
                f"the API {request.api} does not declare support for filters, and might ignore filter=; "
                "use query=, which xchip also checks on the client"
            )
        language = "cql2-text" if isinstance(request.filter, str) else "cql2-json"
        parameters |= {"filter": request.filter, "filter_lang": language}
    return parameters
