"""Items of a command: from paths, lists of paths or a search; all of them, or a share."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from xchip.cli.options import Options

if TYPE_CHECKING:
    from xchip.core.types import Item


@dataclass(frozen=True, slots=True)
class ItemSource:
    """Items that a command line names."""

    paths: Sequence[str]
    """Paths and URLs."""
    lists: Sequence[str]
    """Text files with one path or URL per line; "-" is the standard input."""
    api: str | None
    """URL of a STAC API."""
    query: Options
    """Keywords of `xchip.search`."""
    part: tuple[int, int] | None = None
    """(i, n): only the i-th of n parts of the work, counted from 0."""

    def items(self) -> list[str] | Iterator[Item]:
        """Return all paths as a list if there is neither a search nor a part; else an iterator of paths and items."""
        paths = [*self.paths, *(line for name in self.lists for line in _lines(name))]
        if self.api is None:
            return paths if self.part is None else self._part_of_paths(paths, *self.part)
        from xchip.stac.api.search import search

        results = search(self.api, **self.query)
        if self.part is None:
            return chain(paths, results)
        return chain(self._part_of_paths(paths, *self.part), self._part_of_search(results, *self.part))

    def _part_of_paths(self, paths: list[str], number: int, count: int) -> Iterator[Item]:
        if len(paths) >= count or not paths:
            yield from paths[number::count]
            return
        # Fewer files than parts: the files may have many items each.
        from xchip.stac.inputs import plain_items

        for position, (item, _) in enumerate(plain_items(paths)):
            if position % count == number:
                yield item

    def _part_of_search(self, results: Iterator[dict[str, Any]], number: int, count: int) -> Iterator[Item]:
        # Each child of a job searches independently, and the catalogue may grow in between, so positions would be unreliable.
        return (item for item in results if zlib.crc32(str(item.get("id")).encode()) % count == number)


def _lines(name: str) -> Iterator[str]:
    """Yield the lines of a list, without empty lines and comments, which begin with #."""
    if name == "-":
        lines = sys.stdin.read().splitlines()
    else:
        import fsspec

        with fsspec.open(name, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
    return (line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
