"""Parameters of the reference, each by itself: an extension of griffe, which reads signatures and docstrings.

- ``**options: Unpack[SomeOptions]`` of a signature becomes the keywords of the TypedDict.
- Names that share a description, as in ``size, stride, edge``, have it each. Griffe gives them all the type and the default of
  the first.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import griffe

from xchip import ChipGrid, open_table
from xchip.chips.train.torch_samples import samples_of
from xchip.export.exports import BUFFER

SHARED = re.compile(r"^((?:\*{0,2}\w+, )+\*{0,2}\w+)\n((?:(?: {4}.*|[ ]*)(?:\n|\Z))+)", re.MULTILINE)
OTHERS = re.compile(r"^(?P<names>(?:\w+, )*\w+)?(?: and other |, \*\*|^\*\*)\w+$", re.MULTILINE)

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
"""Defaults of keywords that TypedDicts name; None if absent."""


class EachByItself(griffe.Extension):
    """Expands options in signatures, and repeats a description that parameters share for each of them."""

    def on_package(self, *, pkg: griffe.Module, **rest: Any) -> None:
        for value in members(pkg):
            if value.docstring is not None:
                function = value if value.is_function else value.members.get("__init__")  # a class describes what makes it
                options = expanded(function) if isinstance(function, griffe.Function) else []
                names = [parameter.name for parameter in value.parameters]
                value.docstring.value = each_by_itself(value.docstring.value, names, options)


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


def expanded(function: griffe.Function) -> list[str]:
    """Put the keywords of ``**options: Unpack[SomeOptions]`` in place of the options; the names of the keywords."""
    for parameter in list(function.parameters):
        annotation = parameter.annotation
        if not (isinstance(annotation, griffe.ExprSubscript) and annotation.canonical_path.endswith(".Unpack")):
            continue
        keywords = [
            keyword
            for keyword in fields(function.modules_collection[annotation.slice.canonical_path])
            if keyword.name not in function.parameters
        ]
        del function.parameters[parameter.name]
        for keyword in keywords:
            kind, default = griffe.ParameterKind.keyword_only, repr(DEFAULTS.get(keyword.name))
            function.parameters.add(griffe.Parameter(keyword.name, annotation=keyword.annotation, kind=kind, default=default))
        return [keyword.name for keyword in keywords]
    return []


def fields(options: griffe.Class) -> Iterator[griffe.Attribute]:
    """The fields of a TypedDict, those of its bases first."""
    for base in options.bases:
        if isinstance(base, griffe.Expr) and base.canonical_path in options.modules_collection:
            yield from fields(options.modules_collection[base.canonical_path])
    yield from options.attributes.values()


def each_by_itself(docstring: str, parameters: list[str], options: list[str]) -> str:
    """A docstring in which names that share a description have it each.

    "size, stride and other limits" and "size, stride, **limits" name all ``options`` that have no description of their own.
    """
    if options:
        lines = re.findall(r"^((?:\*{0,2}\w+, )*\*{0,2}\w+)(?: and other \w+)?$", docstring, re.MULTILINE)
        others = [name for name in options if name not in ", ".join(lines).split(", ")]
        docstring = OTHERS.sub(lambda match: ", ".join([*filter(None, [match["names"]]), *others]), docstring)

    def apart(match: re.Match[str]) -> str:
        names, text = match[1].split(", "), match[2]
        if not {name.lstrip("*") for name in names} <= {name.lstrip("*") for name in parameters}:
            return match[0]
        rest = text.rstrip()
        return "\n".join(f"{name}\n{rest}" for name in names) + text[len(rest) :]

    return SHARED.sub(apart, docstring)
