"""A STAC API: what it says that it knows, and its pages, asked for patiently."""

from __future__ import annotations

import difflib
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from xchip.stac.fields import mapping, objects

TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and between two bytes of an answer."""
ATTEMPTS = 6
"""How often something is asked for."""
FIRST_ATTEMPTS = 2
"""How often to connect for the first time: an address may be mistyped."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second attempt, each wait being twice the one before; and at most, also when the server asks for more."""
EMPTY_PAGES = 10
"""Pages without items, one after another, after which a search has ended: some servers link to a next page for ever."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another attempt may cure."""


class Refusal(ValueError):
    """The server says no, and would say so again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """An API whose landing page has been read.

    Raises
    ------
    ValueError
        If there is no API at ``url``.
    OSError
        If nobody answers.
    """

    def __init__(self, url: str) -> None:
        from pystac_client.stac_api_io import StacApiIO

        if not (url.startswith(("http://", "https://")) and urlsplit(url).hostname):
            raise ValueError(f"{url!r} is no URL of a STAC API; it begins with https:// or http://")
        self.url = url
        # Attempts are made here: requests itself does not repeat an answer that broke off.
        self._io = StacApiIO(timeout=TIMEOUT, max_retries=None)
        self._io.session.hooks["response"].append(self._note_wait)
        self._asked_wait = 0.0
        self._landing = mapping(self._ask(url, first=True))
        searches = [link for link in objects(self._landing.get("links")) if link.get("rel") == "search" and link.get("href")]
        if not searches:
            raise ValueError(
                f"{url} is no STAC API that can be searched: its {self._landing.get('type', 'answer')} has no link of the kind "
                "'search'; give the API's landing page, or pass the URLs of items instead"
            )
        methods = {str(link.get("method", "")).upper() for link in searches}
        self.method = "GET" if methods == {"GET"} else "POST"
        self._search = urljoin(url, str(searches[0]["href"]))

    def conforms_to(self, name: str) -> bool:
        """Whether the server says that it knows something, by pystac-client's name of it, such as "QUERY"."""
        from pystac_client.conformance import ConformanceClasses

        pattern = ConformanceClasses[name].pattern
        said = self._landing.get("conformsTo")
        return any(isinstance(uri, str) and re.match(pattern, uri) for uri in (said if isinstance(said, list) else ()))

    def check_collections(self, names: Sequence[str]) -> None:
        """See that collections are there: to a search, one that is not has no items, and is no error.

        Raises
        ------
        ValueError
            For one that is not; the message names those that are.
        """
        if not (self.conforms_to("COLLECTIONS") or self.conforms_to("FEATURES")):
            return
        for name in names:
            try:
                self._ask(f"{self._collections}/{quote(name, safe='')}")
            except Refusal as refusal:
                if refusal.status == 404:
                    raise ValueError(f"the API {self.url} has no collection {name!r}; {self._others(name)}") from refusal
                # A server may show its items and not its collections.

    @property
    def _collections(self) -> str:
        return self.url.rstrip("/") + "/collections"

    def _others(self, name: str) -> str:
        listed = objects(mapping(self._ask(self._collections)).get("collections"))
        known = sorted(str(collection.get("id")) for collection in listed)
        close = difflib.get_close_matches(name, known, n=3)
        if close:
            return f"did you mean {' or '.join(map(repr, close))}?"
        shown = ", ".join(known[:10])
        return f"it has {shown}{f' and {len(known) - 10} more' if len(known) > 10 else ''}" if known else "it lists none"

    def pages(self, method: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Each page of a search: a FeatureCollection with at least one item. ``parameters`` are those of an ItemSearch.

        Raises
        ------
        ValueError
            If the server refuses the question, or answers something else than pages.
        OSError
            If it keeps failing, or gives one page again and again.
        """
        from pystac import Link
        from pystac_client import ItemSearch

        body = ItemSearch(self._search, method=method, stac_io=self._io, **parameters).get_parameters()
        page = self._ask(self._search, method, body)
        before: list[Any] = []
        empty = 0
        while True:
            features = mapping(page).get("features")
            if not isinstance(features, list):
                raise ValueError(f"the API {self.url} answers a search with no FeatureCollection: {_short(json.dumps(page))}")
            empty = 0 if features else empty + 1
            if empty == EMPTY_PAGES:
                return
            if features:
                ids = [(item.get("collection"), item.get("id")) for item in objects(features)]
                if ids == before:
                    raise OSError(f"the API {self.url} gives the same page again instead of the next; try another limit")
                before = ids
                yield page
            following = next((link for link in objects(page.get("links")) if link.get("rel") == "next"), None)
            if following is None:
                return
            page = self._ask(Link.from_dict({**following, "href": urljoin(self._search, str(following.get("href")))}), None, body)

    def _ask(self, target: Any, method: str | None = None, parameters: Any = None, *, first: bool = False) -> Any:
        """The JSON at a URL or link, after as many attempts as it takes."""
        from pystac_client.exceptions import APIError

        for attempt in range(1, ATTEMPTS + 1):
            self._asked_wait = 0.0
            try:
                answer = self._io.read_text(target, method=method, parameters=parameters)
                break
            except APIError as error:
                status = getattr(error, "status_code", None)
                last = ATTEMPTS if status is not None or not first else FIRST_ATTEMPTS
                if attempt >= last or not _may_pass(error, status):
                    raise self._failure(error, status, attempt) from error
            wait = max(FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(0.5, 1.5), self._asked_wait)
            time.sleep(min(wait, LONGEST_WAIT))
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ValueError(f"the API {self.url} answers with no JSON: {_short(answer)}") from error

    def _failure(self, error: Exception, status: int | None, attempts: int) -> Exception:
        said = _short(str(error))
        if status in (401, 403):
            return PermissionError(f"the API {self.url} asks for credentials ({status}): {said}")
        if status is not None and status not in PASSING:
            return Refusal(f"the API {self.url} refuses ({status}): {said}", status)
        if status is not None:
            return OSError(
                f"the API {self.url} fails ({status}) after {attempts} attempts: {said}; try again later, or ask for less"
            )
        return OSError(f"the API {self.url} can't be reached: {said}; check the URL and the network")

    def _note_wait(self, response: Any, *args: Any, **kwargs: Any) -> None:
        """Keep how long the server asks us to wait, if it does so in seconds."""
        seconds = response.headers.get("Retry-After", "")
        self._asked_wait = float(seconds) if seconds.isdigit() else 0.0


def _may_pass(error: Exception, status: int | None) -> bool:
    """Whether another attempt may succeed."""
    from requests import exceptions

    if status is not None:
        return status in PASSING
    # pystac-client tells the kind of failure only by what it comes from; these are about the URL, which stays as it is.
    return not isinstance(error.__context__, ValueError | exceptions.SSLError)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}..."
