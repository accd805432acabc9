"""Accept ``batch_size`` as the second positional argument, as before 0.2."""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Integral
from typing import Any, ParamSpec, TypeVar

from xchip.core.deprecation import warn_deprecated

P = ParamSpec("P")
Result = TypeVar("Result")


def batch_size_by_keyword(position: int) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Decorate a function of ``(index, assets, *, batch_size)`` so that ``(index, batch_size, assets)`` works too, and warns.

    ``position`` is that of ``assets`` among the positional arguments.
    """

    def decorate(function: Callable[P, Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> Result:
            if len(args) > position and isinstance(args[position], Integral):
                warn_deprecated(
                    "batch_size as a positional argument", instead="batch_size= by keyword", since="0.1", removed_in="0.3"
                )
                before, (batch_size, *after) = args[:position], args[position:]
                arguments: dict[str, Any] = {"batch_size": batch_size, **kwargs}
                return function(*before, *after, **arguments)  # type: ignore[arg-type]
            return function(*args, **kwargs)

        return wrapper

    return decorate
