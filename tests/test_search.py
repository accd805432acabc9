"""Searching STAC APIs: the same question has the same answer on a server that heeds all of it, and on one that does not."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from processes import pgstac_api, stac_api

from xchip.stac.api import server as patience
from xchip.stac.api.conditions import comparisons, in_order, interval, order_of
from xchip.stac.api.search import search

CLOUDS = [0.5, 3.5, 11.5, 14.5, 100, 9]


def make_item(number: int, collection: str = "sentinel-2", **properties: Any) -> dict[str, Any]:
    """Items lie side by side, a tenth of a degree wide; one a day."""
    west, south = -70 + number / 10, -33.0
    box = [west, south, west + 0.1, south + 0.1]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"item-{number}",
        "collection": collection,
        "bbox": box,
        "geometry": shapely.box(*box).__geo_interface__,
        "links": [],
        "assets": {"red": {"href": "https://example.com/red.tif"}},
        "properties": {
            "datetime": f"2024-01-{number + 1:02d}T10:00:00Z",
            "proj:epsg": 32719,
            "eo:cloud_cover": CLOUDS[number % len(CLOUDS)],
            "grid:code": f"MGRS-20L{'ABC'[number % 3]}",
            **properties,
        },
    }


def place(item: dict[str, Any], *boxes: tuple[float, float, float, float]) -> dict[str, Any]:
    """The item somewhere else: in one box, or in two on both sides of the antimeridian."""
    shape = shapely.box(*boxes[0]) if len(boxes) == 1 else shapely.MultiPolygon([shapely.box(*box) for box in boxes])
    return {**item, "geometry": json.loads(shapely.to_geojson(shape)), "bbox": [*boxes[0][:2], *boxes[-1][2:]]}


MONTH = make_item(20, datetime=None, start_datetime="2024-03-01T00:00:00Z", end_datetime="2024-03-31T23:59:59Z")
CROSSING = place(make_item(21), (179.5, -17, 180, -16), (-180, -17, -179.5, -16))
CLOUDLESS = make_item(22)
del CLOUDLESS["properties"]["eo:cloud_cover"]
ITEMS = [*map(make_item, range(12)), MONTH, CROSSING, CLOUDLESS, make_item(23, "landsat"), make_item(24, "landsat")]


@pytest.fixture(scope="module", params=["rustac", "pgstac"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """rustac knows neither sort nor query nor filter, and answers all the same; pgstac knows them."""
    serve = {"rustac": stac_api, "pgstac": pgstac_api}[request.param]
    with serve(tmp_path_factory.mktemp(request.param), ITEMS) as url:
        yield url


def ids(api: str, **question: Any) -> list[int]:
    """Numbers of the items that are found, in order."""
    return [int(item["id"].removeprefix("item-")) for item in search(api, **question)]


# -- the same on every server ------------------------------------------------------------------------------------------

QUESTIONS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [*range(12), 20, 21, 22, 23, 24]),
    ({"limit": 2}, [*range(12), 20, 21, 22, 23, 24]),
    ({"collections": "landsat"}, [23, 24]),
    ({"collections": ["landsat", "sentinel-2"], "ids": ["item-3", "item-23", "item-99"]}, [3, 23]),
    ({"bbox": (-69.95, -33, -69.75, -32.95)}, [0, 1, 2]),
    ({"bbox": "-69.95,-33,-69.75,-32.95"}, [0, 1, 2]),
    ({"bbox": (-69.95, -33, 0, -69.75, -32.95, 9000)}, [0, 1, 2]),
    ({"bbox": (10, 10, 11, 11)}, []),
    ({"bbox": (179, -18, -179, -15)}, [21]),
    ({"bbox": (179, -40, -69.75, -15)}, [0, 1, 2, 21]),
    ({"intersects": shapely.Point(-69.75, -32.95)}, [2]),
    ({"intersects": json.dumps({"type": "Feature", "geometry": {"type": "Point", "coordinates": [-69.75, -32.95]}})}, [2]),
    ({"datetime": "2024-01-03/2024-01-05"}, [2, 3, 4]),
    ({"datetime": "2024-01-03T10:00:00Z"}, [2]),
    ({"datetime": datetime(2024, 1, 3, 12, tzinfo=UTC) - timedelta(hours=2)}, [2]),
    ({"datetime": (date(2024, 1, 3), date(2024, 1, 4))}, [2, 3]),
    ({"datetime": ("2024-01-24", None)}, [20, 23, 24]),
    ({"datetime": "../2024-01-02"}, [0, 1]),
    ({"datetime": "2024-03-15"}, [20]),
    ({"datetime": "2024-03"}, [20]),
    ({"datetime": "2023"}, []),
    ({"query": {"eo:cloud_cover": {"lt": 10}}}, [0, 1, 5, 6, 7, 11, 23, 24]),
    ({"query": "eo:cloud_cover<10"}, [0, 1, 5, 6, 7, 11, 23, 24]),
    ({"query": ["eo:cloud_cover>=3.5", "eo:cloud_cover<=11.5"]}, [1, 2, 5, 7, 8, 11, 20, 23]),
    ({"query": ["eo:cloud_cover<90", "eo:cloud_cover<10"]}, [0, 1, 5, 6, 7, 11, 23, 24]),
    ({"query": "grid:code=MGRS-20LA"}, [0, 3, 6, 9, 21, 24]),
    ({"query": "grid:code!=MGRS-20LA"}, [1, 2, 4, 5, 7, 8, 10, 11, 20, 22, 23]),
    ({"query": {"grid:code": {"in": ["MGRS-20LB", "MGRS-20LC"]}}}, [1, 2, 4, 5, 7, 8, 10, 11, 20, 22, 23]),
    ({"query": {"grid:code": {"startsWith": "MGRS", "endsWith": "LB", "contains": "20"}}}, [1, 4, 7, 10, 22]),
    ({"query": {"eo:cloud_cover": {"eq": 9}, "grid:code": {"eq": "MGRS-20LC"}}}, [5, 11, 23]),
    ({"query": "nothing=1"}, []),
]


@pytest.mark.server
@pytest.mark.parametrize(("question", "expected"), QUESTIONS, ids=lambda value: str(value)[:60])
def test_the_same_question_has_the_same_answer(api: str, question: dict[str, Any], expected: list[int]) -> None:
    assert sorted(ids(api, **question)) == expected


@pytest.mark.server
@pytest.mark.parametrize("most", [1, 4, None])
def test_sorting_is_by_number_and_not_by_text(api: str, most: int | None) -> None:
    found = ids(api, collections="sentinel-2", sortby="eo:cloud_cover", max_items=most)
    assert found == [0, 6, 1, 7, 11, 5, 2, 20, 8, 21, 3, 9, 10, 4, 22][:most]
    found = ids(api, collections="sentinel-2", sortby="-properties.eo:cloud_cover", max_items=most, limit=3)
    assert found == [10, 4, 21, 3, 9, 2, 20, 8, 11, 5, 1, 7, 0, 6, 22][:most]


@pytest.mark.server
def test_several_keys(api: str) -> None:
    keys = [{"field": "grid:code", "direction": "desc"}, {"field": "datetime", "direction": "asc"}]
    assert ids(api, collections="sentinel-2", sortby=keys, max_items=5) == [2, 5, 8, 11, 20]
    assert ids(api, collections="sentinel-2", sortby="-grid:code,datetime", max_items=5) == [2, 5, 8, 11, 20]


@pytest.mark.server
def test_items_are_as_the_server_has_them(api: str) -> None:
    (item,) = search(api, ids="item-3")
    assert item["properties"]["proj:epsg"] == 32719  # pystac would have made it proj:code
    assert item["stac_version"] == "1.0.0"
    assert item["properties"] == ITEMS[3]["properties"]


@pytest.mark.server
def test_pages_can_be_changed_on_their_way(api: str) -> None:
    def sign(page: dict[str, Any]) -> None:
        for item in page["features"]:
            item["assets"]["red"]["href"] += "?signed"

    assert {item["assets"]["red"]["href"] for item in search(api, modifier=sign, limit=5)} == {
        "https://example.com/red.tif?signed"
    }


@pytest.mark.server
def test_filters_are_left_to_servers_that_know_them(api: str, request: pytest.FixtureRequest) -> None:
    tree = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 3]}
    if "rustac" in request.node.name:
        with pytest.raises(ValueError, match=f"{api} does not declare support for filters.*use query="):
            ids(api, filter=tree)
    else:
        assert sorted(ids(api, filter=tree)) == sorted(ids(api, filter="eo:cloud_cover < 3")) == [0, 6, 24]


@pytest.mark.server
def test_a_collection_that_is_not_there(api: str) -> None:
    with pytest.raises(ValueError, match=f"{api} has no collection 'sentinel2'; did you mean 'sentinel-2'"):
        ids(api, collections=["landsat", "sentinel2"])
    with pytest.raises(ValueError, match="no collection 'x/y'; it has landsat, sentinel-2"):
        ids(api, collections="x/y")


# -- what is wrong with a question ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"bbox": (1, 2, 3)}, "is not 4 numbers"),
        ({"bbox": "a,b,c,d"}, "is not a list of numbers"),
        ({"bbox": (0, 10, 1, 5)}, "south is above its north"),
        ({"bbox": (0, 0, 200, 1)}, "outside -180..180"),
        ({"bbox": (0, 0, math.nan, 1)}, "is not 4 numbers"),
        ({"bbox": (0, 0, 1, 1), "intersects": shapely.Point(0, 0)}, "bbox or intersects, not both"),
        ({"intersects": "{"}, "is not a GeoJSON geometry"),
        ({"intersects": {"type": "Polygon", "coordinates": []}}, "is empty"),
        ({"datetime": "yesterday"}, "'yesterday' can't be read.*give a date such as"),
        ({"datetime": "2024-13"}, "'2024-13' can't be read"),
        ({"datetime": "../.."}, "open at both ends"),
        ({"datetime": "2024/2023"}, "ends before it starts"),
        ({"datetime": "2024/2025/2026"}, "has 3 parts"),
        ({"query": {"a": {"like": 1}}}, "no operator 'like'; there are eq"),
        ({"query": {"a": 1}}, r'must be like \{"lt": 20\}'),
        ({"query": {"a": {"in": 1}}}, "'in' takes list"),
        ({"query": {"a": {"lt": None}}}, "'lt' takes str"),
        ({"query": "cloudy"}, "'cloudy' is not like eo:cloud_cover<20"),
        *(({"query": f"eo:cloud_cover{slip}"}, f"cover{slip}' is not like") for slip in ("=<20", "= >20", "<=", "<==20", "=")),
        ({"sortby": [{"field": "a", "direction": "up"}]}, "sortby .* is not like"),
        ({"sortby": "-"}, "sortby '-' is not like"),
        ({"limit": 0}, "limit must be from 1"),
        ({"max_items": 0}, "max_items must be from 1"),
        ({"collections": []}, "collections must be one or more names"),
        ({"ids": [3]}, "ids must be one or more names"),
    ],
)
def test_bad_questions_are_refused_before_anything_is_asked(question: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search("http://127.0.0.1:9", **question)


# -- servers with moods --------------------------------------------------------------------------------------------------


class Moody:
    """A STAC API on loopback that answers from a list: (status, headers, body) one after another, a page otherwise."""

    def __init__(self, landing: dict[str, Any] | None = None, pages: int = 3) -> None:
        self.moods: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[tuple[str, str, Any]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(owner.page(int(body.get("token", 0)), "POST"), body)

            def do_GET(self) -> None:
                if self.path.startswith("/search"):
                    token = self.path.partition("token=")[2]
                    self.answer(owner.page(int(token or 0), "GET"), None)
                else:
                    self.answer(owner.landing, None)

            def answer(self, content: Any, body: Any) -> None:
                owner.asked.append((self.command, self.path, body))
                status, headers, data = 200, {}, json.dumps(content).encode()
                if owner.moods and self.path.startswith("/search"):
                    status, headers, data = owner.moods.pop(0)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.pages = pages
        self.landing = {"type": "Catalog", "links": [{"rel": "search", "href": "search"}]} if landing is None else landing
        self.loops = False
        self.empty: set[int] = set()
        """Numbers of pages that have no items."""

    def page(self, token: int, method: str) -> dict[str, Any]:
        following = {"rel": "next", "href": f"{self.url}/search", "method": method}
        if method == "POST":
            following |= {"merge": True, "body": {"token": 0 if self.loops else token + 1}}
        else:
            following["href"] += f"?token={token + 1}"
        last = token + 1 >= self.pages and not self.loops
        return {
            "type": "FeatureCollection",
            "features": [] if token in self.empty else [make_item(token)],
            "links": [] if last else [following],
        }

    def __enter__(self) -> Moody:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds."""
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.002)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "mood",
    [
        (429, {"Retry-After": "0"}, b"slow down"),
        (500, {}, b"oops"),
        (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""),
        (200, {"Content-Length": "1000"}, b'{"type": "Feature'),
    ],
    ids=["429", "500", "503", "broken off"],
)
def test_what_passes_is_waited_for(mood: tuple[int, dict[str, str], bytes]) -> None:
    with Moody() as api:
        api.moods = [mood] * 3
        assert ids(api.url) == [0, 1, 2]


@pytest.mark.usefixtures("impatient")
def test_what_stays_is_told() -> None:
    with Moody() as api:
        api.moods = [(503, {}, b"<html> closed\n for today </html>")] * 99
        with pytest.raises(OSError, match=rf"{api.url} fails \(503\) after {patience.ATTEMPTS} attempts: <html> closed"):
            ids(api.url)
        api.moods = [(400, {}, b'{"detail": "bad bbox"}')] * 99
        with pytest.raises(ValueError, match=r"rejects the request \(400\): .*bad bbox"):
            ids(api.url)
        assert len(api.moods) == 98
        api.moods = [(403, {}, b"who are you?")]
        with pytest.raises(PermissionError, match=r"requires credentials \(403\): who are you"):
            ids(api.url)
        api.moods = [(200, {}, b"<html>")]
        with pytest.raises(ValueError, match="returns a response that is not JSON: <html>"):
            ids(api.url)
        api.moods = [(200, {}, b'{"items": []}')]
        with pytest.raises(ValueError, match="is not a FeatureCollection"):
            ids(api.url)


def test_the_server_may_say_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", waits.append)
    with Moody() as api:
        api.moods = [(429, {"Retry-After": "7"}, b""), (429, {"Retry-After": "3600"}, b""), *[(500, {}, b"")] * 3]
        assert ids(api.url) == [0, 1, 2]
    assert waits[:2] == [7, patience.LONGEST_WAIT]
    assert all(0.5 <= wait / (patience.FIRST_WAIT * 2**n) <= 1.5 for n, wait in enumerate(waits[2:], 2))


def test_pages_are_asked_for_as_they_are_needed() -> None:
    with Moody(pages=1000) as api:
        found = search(api.url)
        assert api.asked == []
        assert [next(found)["id"] for _ in range(3)] == ["item-0", "item-1", "item-2"]
        assert len(api.asked) == 1 + 3
        assert len(ids(api.url, max_items=5)) == 5
        assert len(api.asked) == 1 + 3 + 1 + 5


def test_only_what_a_server_knows_is_asked_of_it() -> None:
    question: dict[str, Any] = {"query": {"a": {"lt": 5, "in": [1]}, "id": {"eq": "b"}}, "sortby": "a"}
    with Moody() as api:
        assert ids(api.url, **question) == []
        assert api.asked[1] == ("POST", "/search", {"limit": 100})
        api.landing["conformsTo"] = ["https://api.stacspec.org/v1.0.0-rc.2/item-search#query"]
        api.asked.clear()
        assert ids(api.url, **question) == []
        assert api.asked[1][2] == {"limit": 100, "query": {"a": {"lt": 5}}}


def test_a_server_that_only_gets() -> None:
    with Moody({"type": "Catalog", "links": [{"rel": "search", "href": "/search", "method": "GET"}]}) as api:
        assert ids(api.url, bbox=(-70, -33, -69, -32)) == [0, 1, 2]
        assert {method for method, _, _ in api.asked} == {"GET"}
        assert "bbox=-70.0%2C-33.0%2C-69.0%2C-32.0" in api.asked[1][1]


def test_a_server_that_goes_round_in_circles() -> None:
    with Moody() as api:
        api.loops = True
        with pytest.raises(OSError, match="returns the same page again"):
            ids(api.url)


@pytest.mark.parametrize("empty", [{0}, {1, 2, 3}, {5}, set(range(6))])
def test_a_page_without_items_is_not_the_end(empty: set[int]) -> None:
    with Moody(pages=6) as api:
        api.empty = empty
        assert ids(api.url) == [number for number in range(6) if number not in empty]


def test_a_server_that_links_to_empty_pages_for_ever() -> None:
    with Moody(pages=1_000_000) as api:
        api.empty = set(range(2, 1_000_000))
        assert ids(api.url) == [0, 1]
        assert len(api.asked) == 1 + 2 + patience.EMPTY_PAGES


def test_what_is_no_api() -> None:
    with pytest.raises(ValueError, match=r"'items\.json' is not a URL of a STAC API"):
        ids("items.json")
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9 can't be reached"):
        ids("http://127.0.0.1:9")
    with (
        Moody({"type": "Collection", "links": [{"rel": "item", "href": "a.json"}]}) as api,
        pytest.raises(ValueError, match="is not a searchable STAC API: its Collection has no link"),
    ):
        ids(api.url)


# -- laws ----------------------------------------------------------------------------------------------------------------

MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(MOMENTS, MOMENTS, MOMENTS)
def test_an_interval_holds_what_lies_between_its_ends(first: datetime, second: datetime, at: datetime) -> None:
    start, end = min(first, second), max(first, second)
    item = {"properties": {"datetime": at.isoformat()}}
    assert interval((start, end)).holds(item) == (start <= at <= end)
    assert interval((None, end)).holds(item) == (at <= end)
    assert interval((start, None)).holds(item) == (start <= at)
    spanning = {"properties": {"datetime": None, "start_datetime": start.isoformat(), "end_datetime": end.isoformat()}}
    assert interval(at).holds(spanning) == (start <= at <= end)
    assert interval(str(interval((start, end)))) == interval((start, end))


@given(st.dates(date(1990, 1, 1), date(2030, 1, 1)))
def test_years_months_and_days_are_whole(day: date) -> None:
    for text in (f"{day:%Y}", f"{day:%Y-%m}", f"{day:%Y-%m-%d}"):
        found = interval(text)
        assert found.start is not None
        assert found.end is not None
        just_after = found.end + timedelta(microseconds=1)
        assert just_after.strftime("%Y-%m-%d"[: len(text) + (len(text) == 4) * -2]) != text or len(text) == 4
        assert found.start <= datetime(day.year, day.month, day.day, 12, tzinfo=UTC) <= found.end
        assert (just_after.day, just_after.hour, just_after.microsecond) == ((just_after.day if len(text) == 10 else 1), 0, 0)


VALUES = st.none() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["a", "b", "10", "9"])


@given(st.lists(VALUES), st.integers(1, 5), st.booleans())
def test_the_best_few_are_the_head_of_all_in_order(values: list[Any], count: int, descending: bool) -> None:
    items = [{"id": f"{n:03d}", "properties": {"a": value}} for n, value in enumerate(values)]
    order = order_of("-a" if descending else "a")
    everything = list(in_order(items, order))
    assert list(in_order(reversed(items), order, count)) == everything[:count]
    numbers = [item["properties"]["a"] for item in everything if isinstance(item["properties"]["a"], (int, float))]
    assert numbers == sorted(numbers, reverse=descending)
    missing = [item["properties"]["a"] is None for item in everything]
    assert missing == sorted(missing)


def test_the_best_few_of_very_many() -> None:
    items = ({"id": str(n), "properties": {"a": (n * 7919) % 10_007}} for n in range(10_007))
    assert [item["properties"]["a"] for item in in_order(items, order_of("a"), 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("sentence", "value", "holds"),
    [
        ("a<2", 1, True), ("a<2", 2, False), ("a <= 2", 2, True), ("a>2", 3, True), ("a>=2", 1.5, False),
        ("a=2", 2.0, True), ("a==2", 2, True), ("a!=2", 2, False), ("a!=2", "2", True), ("a=2", "2", False),
        ('a="2"', "2", True), ("a=true", True, True), ("a=true", "true", False), ("a=x y", "x y", True), ("a<2", "1", False),
        ("a>2024-01-01T00:00:00Z", "2024-01-01T00:00:00.500Z", True),
        ("a=2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", True),
    ],
)  # fmt: skip
def test_sentences(sentence: str, value: Any, holds: bool) -> None:
    (comparison,) = comparisons(sentence)
    assert comparison.holds({"properties": {"a": value}}) is holds
    assert not comparison.holds({"properties": {}})
