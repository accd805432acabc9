"""Signatures and names of the package: few parameters, named types, and one meaning for each name."""

from __future__ import annotations

import ast
import inspect
import re
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

import xchip
from xchip.accessor import ChipsAccessor

PACKAGE = Path(xchip.__file__).parent
MOST_PARAMETERS = 14
MOST_ANY = 400


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions, classes and accessor methods that users call; the fields of frozen values are not parameters."""
    for name in xchip.__all__:
        value = getattr(xchip, name)
        if callable(value) and not is_dataclass(value) and not (isinstance(value, type) and issubclass(value, Exception | int)):
            yield f"xchip.{name}", value
    for name, value in vars(ChipsAccessor).items():
        if not name.startswith("_") and callable(value):
            yield f"ds.chips.{name}", value


@pytest.mark.parametrize(
    ("name", "function"), list(public_callables()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_public_functions_have_few_parameters(name: str, function: Callable[..., Any]) -> None:
    parameters = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
    assert len(parameters) <= MOST_PARAMETERS, f"{name} has {len(parameters)} parameters; put what recurs into one value"


@pytest.mark.parametrize(
    ("name", "function"), list(public_callables()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_public_parameters_have_types_that_an_editor_can_show(name: str, function: Callable[..., Any]) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        assert parameter.annotation is not parameter.empty, f"{parameter.name} of {name} has no type"
        if parameter.kind is parameter.VAR_KEYWORD:
            assert str(parameter.annotation).startswith("Unpack["), f"{name} takes **{parameter.name} of any name"


def test_options_are_typed_dicts_whose_keys_have_types() -> None:
    for name, function in public_callables():
        for parameter in inspect.signature(function).parameters.values():
            match = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
            if match is not None:
                inner = inspect.unwrap(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
                kind = inner.__globals__[match[1]]
                assert typing.is_typeddict(kind), f"**{parameter.name} of {name} is not a TypedDict"
                assert kind.__annotations__, name


def test_any_is_rare() -> None:
    count = sum(len(re.findall(r"\bAny\b", path.read_text())) for path in PACKAGE.rglob("*.py"))
    assert count <= MOST_ANY, f"Any occurs {count} times; name the type"


def test_no_two_public_classes_have_one_name() -> None:
    homes = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_a_misspelt_keyword_is_named_with_a_similar_one() -> None:
    with pytest.raises(TypeError, match=r"batches\(\) has no parameter 'bach_size'; did you mean 'batch_size'\?"):
        xchip.batches("index.parquet", bach_size=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"band_stats\(\) has no parameter 'sampel'; did you mean 'sample'\?"):
        xchip.band_stats("index.parquet", sampel=3)  # type: ignore[call-arg]


def test_a_table_without_footprints_is_refused_where_they_are_needed() -> None:
    item_table = object()
    with pytest.raises(TypeError, match=r"an index is a path, .* got a object; pass the index itself"):
        xchip.sample(item_table, 3)  # type: ignore[arg-type]
