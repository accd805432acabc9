"""Deprecation: an old name or argument works for some releases, and warns at the line of the caller.

A test compares every ``removed_in`` of the package with the current version, and fails if a removal is due.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


def warn_deprecated(name: str, *, instead: str, since: str, removed_in: str) -> None:
    """Warn that a name is deprecated, at the line that called the function which calls this one.

    Call it in the body of a deprecated function, or in the ``__getattr__`` of a module that has a deprecated attribute.

    Parameters
    ----------
    name
        The deprecated name, as users write it.
    instead
        The name to use in its place.
    since, removed_in
        The version that deprecates it, and the version that removes it.

    Warns
    -----
    DeprecationWarning
        Always. Python shows it in scripts, notebooks and tests, and hides it if a library is the caller.

    Examples
    --------
    >>> import warnings
    >>> def read_table(path):
    ...     warn_deprecated("read_table()", instead="read_index()", since="0.2", removed_in="0.4")
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     read_table("index.parquet")
    >>> print(caught[0].message)
    read_table() is deprecated since xchip 0.2 and will be removed in xchip 0.4; use read_index() instead
    """
    message = f"{name} is deprecated since xchip {since} and will be removed in xchip {removed_in}; use {instead} instead"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def deprecated(*, instead: str, since: str, removed_in: str) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Decorate a function that is deprecated: it works as before, and each call warns.

    Parameters
    ----------
    instead, since, removed_in
        As for `warn_deprecated`.

    Examples
    --------
    >>> import warnings
    >>> @deprecated(instead="read_index()", since="0.2", removed_in="0.4")
    ... def read_table(path):
    ...     return f"rows of {path}"
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     read_table("index.parquet")
    'rows of index.parquet'
    >>> len(caught)
    1
    """

    def decorate(function: Callable[P, Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def warning(*args: P.args, **kwargs: P.kwargs) -> Result:
            warn_deprecated(f"{function.__name__}()", instead=instead, since=since, removed_in=removed_in)
            return function(*args, **kwargs)

        return warning

    return decorate


def renamed_argument(old: str, new: str, *, since: str, removed_in: str) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Decorate a function with a renamed argument: the old keyword works as before, and warns.

    Parameters
    ----------
    old, new
        Both names of the argument.
    since, removed_in
        The version that renames it, and the version that removes the old name.

    Raises
    ------
    TypeError
        When the function is called with both names.

    Examples
    --------
    >>> import warnings
    >>> @renamed_argument("chip_size", "size", since="0.2", removed_in="0.4")
    ... def area(size):
    ...     return size * size
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     area(size=3), area(chip_size=3)
    (9, 9)
    >>> len(caught)
    1
    """

    def decorate(function: Callable[P, Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def renaming(*args: P.args, **kwargs: P.kwargs) -> Result:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got {new!r} and its old name {old!r}; pass {new!r} alone")
                name = f"the argument {old!r} of {function.__name__}()"
                warn_deprecated(name, instead=repr(new), since=since, removed_in=removed_in)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return renaming

    return decorate
