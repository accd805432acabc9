"""Read a STAC API's landing page, collections and search pages, retrying transient errors."""

from __future__ import annotations

import difflib
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from xchip.core.types import JSON
from xchip.stac.fields import mapping, objects

if TYPE_CHECKING:
    import requests
    from pystac import Link

TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and between two bytes of a response."""
ATTEMPTS = 6
"""Maximum number of attempts per request."""
FIRST_ATTEMPTS = 2
"""Maximum number of attempts to connect for the first time, because the address may be mistyped."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second attempt (each later wait doubles), and the longest wait, also if the server asks for more."""
EMPTY_PAGES = 10
"""Consecutive pages without items that end a search, because some servers link to a next page forever."""
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of transient errors."""


class RequestRejected(ValueError):
    """A permanent error response."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """A STAC API and its landing page, which is read at once.

    Raise ValueError if ``url`` is not a STAC API, and OSError if the server can't be reached.
    """

    def __init__(self, url: str) -> None:
        from pystac_client.stac_api_io import StacApiIO

        if not (url.startswith(("http://", "https://")) and urlsplit(url).hostname):
            raise ValueError(f"{url!r} is not a URL of a STAC API; it must begin with https:// or http://")
        self.url = url
        # This class retries itself, because requests does not repeat a response that breaks off.
        self._io = StacApiIO(timeout=TIMEOUT, max_retries=None)
        self._io.session.hooks["response"].append(self._note_wait)
        self._requested_wait = 0.0
        self._landing = mapping(self._read(url, first=True))
        searches = [link for link in objects(self._landing.get("links")) if link.get("rel") == "search" and link.get("href")]
        if not searches:
            raise ValueError(
                f"{url} is not a searchable STAC API: its {self._landing.get('type', 'response')} has no link of the kind "
                "'search'; pass the API's landing page, or the URLs of items instead"
            )
        methods = {str(link.get("method", "")).upper() for link in searches}
        self.method = "GET" if methods == {"GET"} else "POST"
        self._search = urljoin(url, str(searches[0]["href"]))

    def conforms_to(self, name: str) -> bool:
        """Whether the server declares a conformance class, by pystac-client's name, such as "QUERY"."""
        from pystac_client.conformance import ConformanceClasses

        pattern = ConformanceClasses[name].pattern
        declared = self._landing.get("conformsTo")
        return any(isinstance(uri, str) and re.match(pattern, uri) for uri in (declared if isinstance(declared, list) else ()))

    def check_collections(self, names: Sequence[str]) -> None:
        """Raise ValueError if a collection is missing, because a search of it returns no items and no error."""
        if not (self.conforms_to("COLLECTIONS") or self.conforms_to("FEATURES")):
            return
        for name in names:
            try:
                self._read(f"{self._collections}/{quote(name, safe='')}")
            except RequestRejected as error:
                if error.status == 404:
                    raise ValueError(f"the API {self.url} has no collection {name!r}; {self._suggestion(name)}") from error
                # Other statuses pass: a server may publish items without collections.

    @property
    def _collections(self) -> str:
        return self.url.rstrip("/") + "/collections"

    def _suggestion(self, name: str) -> str:
        listed = objects(mapping(self._read(self._collections)).get("collections"))
        ids = sorted(str(collection.get("id")) for collection in listed)
        close = difflib.get_close_matches(name, ids, n=3)
        if close:
            return f"did you mean {' or '.join(map(repr, close))}?"
        shown = ", ".join(ids[:10])
        return f"it has {shown}{f' and {len(ids) - 10} more' if len(ids) > 10 else ''}" if ids else "it lists no collections"

    def pages(self, method: str, parameters: JSON) -> Iterator[dict[str, Any]]:
        """Yield the pages of a search, FeatureCollections with at least one item. ``parameters`` are those of an ItemSearch.

        Raise ValueError if the server rejects the search or does not return a FeatureCollection, and OSError if requests keep
        failing or the server repeats a page.
        """
        from pystac import Link
        from pystac_client import ItemSearch

        body = ItemSearch(self._search, method=method, stac_io=self._io, **parameters).get_parameters()
        page = self._read(self._search, method, body)
        previous: list[tuple[object, object]] = []
        empty = 0
        while True:
            features = mapping(page).get("features")
            if not isinstance(features, list):
                raise ValueError(f"the API {self.url} returns a page that is not a FeatureCollection: {_short(json.dumps(page))}")
            empty = 0 if features else empty + 1
            if empty == EMPTY_PAGES:
                return
            if features:
                ids = [(item.get("collection"), item.get("id")) for item in objects(features)]
                if ids == previous:
                    raise OSError(f"the API {self.url} returns the same page again instead of the next one; try another limit")
                previous = ids
                yield page
            following = next((link for link in objects(page.get("links")) if link.get("rel") == "next"), None)
            if following is None:
                return
            page = self._read(
                Link.from_dict({**following, "href": urljoin(self._search, str(following.get("href")))}), None, body
            )

    def _read(
        self, target: str | Link, method: str | None = None, parameters: dict[str, Any] | None = None, *, first: bool = False
    ) -> Any:
        """Return the JSON at a URL or link, retrying transient errors."""
        from pystac_client.exceptions import APIError

        for attempt in range(1, ATTEMPTS + 1):
            self._requested_wait = 0.0
            try:
                content = self._io.read_text(target, method=method, parameters=parameters)
                break
            except APIError as error:
                status = getattr(error, "status_code", None)
                last = ATTEMPTS if status is not None or not first else FIRST_ATTEMPTS
                if attempt >= last or not _is_transient(error, status):
                    raise self._failure(error, status, attempt) from error
            wait = max(FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(0.5, 1.5), self._requested_wait)
            time.sleep(min(wait, LONGEST_WAIT))
        try:
            return json.loads(content)
        except ValueError as error:
            raise ValueError(f"the API {self.url} returns a response that is not JSON: {_short(content)}") from error

    def _failure(self, error: Exception, status: int | None, attempts: int) -> Exception:
        reason = _short(str(error))
        if status in (401, 403):
            return PermissionError(f"the API {self.url} requires credentials ({status}): {reason}")
        if status is not None and status not in TRANSIENT:
            return RequestRejected(f"the API {self.url} rejects the request ({status}): {reason}", status)
        if status is not None:
            return OSError(
                f"the API {self.url} fails ({status}) after {attempts} attempts: {reason}; try again later, or request less"
            )
        return OSError(f"the API {self.url} can't be reached: {reason}; check the URL and the network")

    def _note_wait(self, response: requests.Response, *args: object, **kwargs: object) -> None:
        """Store the wait that the server requests, if it is given in seconds."""
        seconds = response.headers.get("Retry-After", "")
        self._requested_wait = float(seconds) if seconds.isdigit() else 0.0


def _is_transient(error: Exception, status: int | None) -> bool:
    from requests import exceptions

    if status is not None:
        return status in TRANSIENT
    # pystac-client keeps the kind of failure in the context alone. ValueError and SSLError are about the URL, and permanent.
    return not isinstance(error.__context__, ValueError | exceptions.SSLError)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}..."
