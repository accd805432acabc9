"""Deprecated names: they work, warn once where they are used, and are gone in time."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.version import Version

import xchip
from xchip.core.deprecation import deprecated, renamed_argument, warn_deprecated
from xchip.core.version import VERSION

PACKAGE = Path(xchip.__file__).parent
NEXT = f"{Version(VERSION).major + 1}.0"
"""A version that is still to come."""


@deprecated(instead="new()", since=VERSION, removed_in=NEXT)
def old(value: int, *, factor: int = 2) -> int:
    """What it does."""
    return value * factor


@renamed_argument("factor", "times", since=VERSION, removed_in=NEXT)
def multiply(value: int, times: int = 2) -> int:
    """What it does."""
    return value * times


class Shape:
    @renamed_argument("of", "side", since=VERSION, removed_in=NEXT)
    def area(self, side: int) -> int:
        return side * side


def by_hand() -> int:
    warn_deprecated("by_hand()", instead="new()", since=VERSION, removed_in=NEXT)
    return 6


USES: dict[str, Callable[[], int]] = {
    "function": lambda: old(2, factor=3),
    "argument": lambda: multiply(2, factor=3),
    "method": lambda: Shape().area(of=2) + 2,
    "body": lambda: by_hand(),
}


@pytest.mark.parametrize("use", USES)
def test_a_deprecated_name_works_and_warns_once_at_the_line_of_its_caller(use: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert [USES[use](), USES[use]()] == [6, 6]
    (warning,) = caught
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__
    assert warning.lineno == inspect.getsourcelines(USES[use])[1]


@pytest.mark.parametrize("use", USES)
def test_the_warning_says_what_to_use_and_until_when_the_name_works(use: str) -> None:
    with pytest.warns(DeprecationWarning, match="is deprecated") as caught:
        USES[use]()
    told = re.fullmatch(
        r".* is deprecated since xchip (\S+) and will be removed in xchip (\S+); use (\S+) instead", str(caught[0].message)
    )
    assert told is not None
    assert told[1] == VERSION
    assert Version(told[2]) > Version(VERSION)
    assert told[3] in {"new()", "'times'", "'side'"}


def test_an_attribute_of_a_module_warns_where_it_is_read_and_where_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("has_an_old_name")

    def attribute(name: str) -> int:
        if name == "OLD":
            warn_deprecated("OLD", instead="NEW", since=VERSION, removed_in=NEXT)
            return 6
        raise AttributeError(name)

    module.__getattr__ = attribute  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names: dict[str, int] = {}
    for use in ("import has_an_old_name; OLD = has_an_old_name.OLD", "from has_an_old_name import OLD"):
        with pytest.warns(DeprecationWarning, match="use NEW instead") as caught:
            exec(compile(use, "users.py", "exec"), names)
        assert names.pop("OLD") == 6
        assert {warning.filename for warning in caught} == {"users.py"}


def test_new_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert multiply(2, times=3) == multiply(2, 3) == 6
        assert multiply(2) == 4


def test_both_names_of_an_argument_are_refused() -> None:
    with pytest.raises(TypeError, match=r"multiply\(\) got 'times' and its old name 'factor'; pass 'times' alone"):
        multiply(2, times=3, factor=3)
    with (
        pytest.warns(DeprecationWarning, match="'factor'"),
        pytest.raises(TypeError, match="multiple values for argument 'times'"),
    ):
        multiply(2, 3, factor=3)


def test_a_decorated_function_still_documents_itself() -> None:
    for function, parameters in ((old, ["value", "factor"]), (multiply, ["value", "times"])):
        assert function.__doc__ == "What it does."
        assert [*inspect.signature(function).parameters] == parameters


def test_python_shows_the_warning_in_a_script() -> None:
    code = (
        "from xchip.core.deprecation import renamed_argument\n"
        "@renamed_argument('old', 'new', since='0.1', removed_in='0.2')\n"
        "def work(new): pass\n"
        "work(old=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("<string>:4: DeprecationWarning: the argument 'old' of work() is deprecated")


def deprecations() -> Iterator[tuple[str, dict[str, Version]]]:
    """(place, versions) of each deprecation in the package."""
    for path in PACKAGE.rglob("*.py"):
        if path.name == "deprecation.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and any(keyword.arg == "removed_in" for keyword in node.keywords):
                versions = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg in ("since", "removed_in")}
                yield (
                    f"{path.relative_to(PACKAGE)}:{node.lineno}",
                    {name: Version(ast.literal_eval(value)) for name, value in versions.items()},
                )


def test_every_deprecated_name_of_the_package_is_removed_in_time() -> None:
    for place, told in deprecations():
        assert told["since"] < told["removed_in"], place
        assert told["removed_in"] > Version(VERSION), f"{place}: this is {VERSION}, so remove it"
