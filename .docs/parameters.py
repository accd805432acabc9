"""Extensions of griffe, which reads signatures and docstrings.

Of ``size, stride, edge`` in one line griffe takes the type and the default of ``size`` for all three: each gets the description
by itself. ``**options: Unpack[GridOptions]`` stands for the keywords of that TypedDict: they join the parameters.
"""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from typing import Any

import griffe

from xchip import ChipGrid, open_table
from xchip.chips.train.torch_samples import samples_of
from xchip.export.exports import BUFFER

SHARED = re.compile(r"^((?:\*{0,2}\w+, )+\*{0,2}\w+)\n((?:(?: {4}.*|[ ]*)(?:\n|\Z))+)", re.MULTILINE)


class EachByItself(griffe.Extension):
    """Write out keywords of TypedDicts, and repeat a description that parameters share for each of them."""

    def on_package(self, *, pkg: griffe.Module, **rest: Any) -> None:
        for value in members(pkg):
            if value.is_function:
                unpack(value)
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


DEFAULTS = {
    parameter.name: parameter.default
    for function in (ChipGrid, open_table, samples_of)
    for parameter in inspect.signature(function).parameters.values()
} | {
    "threads": None,
    "prefetch": 2,
    "attempts": 5,
    "retry_failed": True,
    "progress": True,
    "seed": 0,
    "part": (0, 1),
    "buffer": BUFFER,
}
"""Defaults of keywords that TypedDicts name."""
UNPACKED = re.compile(r"Unpack\[(\w+)\]")


def unpack(function: griffe.Function) -> None:
    """Put the keywords of a TypedDict into the signature, where ``**options`` stands for them."""
    for parameter in list(function.parameters):
        name = UNPACKED.fullmatch(str(parameter.annotation))
        if parameter.kind is not griffe.ParameterKind.var_keyword or name is None:
            continue
        home = importlib.import_module(function.module.path)
        kind = getattr(home, name[1])
        position = [one.name for one in function.parameters].index(parameter.name)
        keywords = [
            griffe.Parameter(
                key, annotation=text_of(value), kind=griffe.ParameterKind.keyword_only, default=repr(DEFAULTS.get(key))
            )
            for key, value in kind.__annotations__.items()
            if key not in function.parameters
        ]
        function.parameters._params[position : position + 1] = keywords


def text_of(annotation: Any) -> str:
    """An annotation of a TypedDict as it is written."""
    return annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else str(annotation)


def each_by_itself(docstring: str, parameters: set[str]) -> str:
    """A docstring in which names that share a description have it each."""

    def apart(match: re.Match[str]) -> str:
        names, text = match[1].split(", "), match[2]
        if not {name.lstrip("*") for name in names} <= {name.lstrip("*") for name in parameters}:
            return match[0]
        rest = text.rstrip()
        return "\n".join(f"{name}\n{rest}" for name in names) + text[len(rest) :]

    return SHARED.sub(apart, docstring)
