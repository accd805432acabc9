"""Parameters that share a description, each by itself: an extension of griffe, which reads the docstrings.

Of ``size, stride, edge`` in one line griffe takes the type and the default of ``size`` for all three.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SHARED = re.compile(r"^((?:\*{0,2}\w+, )+\*{0,2}\w+)\n((?:(?: {4}.*|[ ]*)(?:\n|\Z))+)", re.MULTILINE)


class EachByItself(griffe.Extension):
    """Repeats a description that parameters share, for each of them."""

    def on_package(self, *, pkg: griffe.Module, **rest: Any) -> None:
        for value in members(pkg):
            if value.docstring is not None:
                value.docstring.value = each_by_itself(value.docstring.value, {one.name for one in value.parameters})


def members(owner: Any) -> list[Any]:
    """All functions and classes of a package, those within others too."""
    found = []
    for value in owner.members.values():
        if value.is_alias:
            continue
        if value.is_function or value.is_class:
            found.append(value)
        if value.is_module or value.is_class:
            found += members(value)
    return found


def each_by_itself(docstring: str, parameters: set[str]) -> str:
    """A docstring in which names that share a description have it each."""

    def apart(match: re.Match[str]) -> str:
        names, text = match[1].split(", "), match[2]
        if not {name.lstrip("*") for name in names} <= {name.lstrip("*") for name in parameters}:
            return match[0]
        rest = text.rstrip()
        return "\n".join(f"{name}\n{rest}" for name in names) + text[len(rest) :]

    return SHARED.sub(apart, docstring)
