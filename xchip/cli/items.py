"""Where the items of a command come from: names, lists of names, a search; all of them, or a share."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any


@dataclass(frozen=True, slots=True)
class ItemSource:
    """Items as the command line names them."""

    paths: Sequence[str]
    """Paths and URLs."""
    lists: Sequence[str]
    """Text files with a path or URL a line; "-" is the standard input."""
    api: str | None
    """URL of a STAC API."""
    question: dict[str, Any]
    """What to search there."""
    part: tuple[int, int] | None = None
    """(i, n): only the i-th of n parts of the work, counted from 0."""

    def items(self) -> Any:
        """Paths, if these are all; else an iterator of paths and items."""
        paths = [*self.paths, *(line for name in self.lists for line in _lines(name))]
        if self.api is None:
            return paths if self.part is None else self._part_of_paths(paths, *self.part)
        found = self._search(self.api)
        if self.part is None:
            return chain(paths, found)
        return chain(self._part_of_paths(paths, *self.part), self._part_of_search(found, *self.part))

    def _search(self, api: str) -> Iterator[dict[str, Any]]:
        from xchip.stac.api.search import search

        return search(api, **self.question)

    def _part_of_paths(self, paths: list[str], number: int, of: int) -> Iterator[Any]:
        if len(paths) >= of or not paths:
            yield from paths[number::of]
            return
        # A few files of many items.
        from xchip.stac.inputs import plain_items

        for position, (item, _) in enumerate(plain_items(paths)):
            if position % of == number:
                yield item

    def _part_of_search(self, found: Iterator[dict[str, Any]], number: int, of: int) -> Iterator[dict[str, Any]]:
        # Each child searches by itself, and the catalogue may have grown in between: order would not tell items apart.
        return (item for item in found if zlib.crc32(str(item.get("id")).encode()) % of == number)


def _lines(name: str) -> Iterator[str]:
    """The lines of a list that name something; # begins a comment."""
    if name == "-":
        lines = sys.stdin.read().splitlines()
    else:
        import fsspec

        with fsspec.open(name, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
    return (line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
