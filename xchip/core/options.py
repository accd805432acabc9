"""Check keyword arguments that a function passes on as ``**options``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches


def check_options(function: str | Callable[..., object], options: Mapping[str, object], kind: type) -> None:
    """Raise unless each key of ``options`` is a field of the TypedDict ``kind``.

    Parameters
    ----------
    function
        The function, or its name, for the message. Parameters of a function are suggested too.
    options
        Keyword arguments by name.
    kind
        A TypedDict.

    Raises
    ------
    TypeError
        If a keyword is unknown. The message suggests a similar one, or lists all of them.

    Examples
    --------
    >>> from xchip.core.grid import GridOptions
    >>> check_options("stats", {"strid": 128}, GridOptions)
    Traceback (most recent call last):
    TypeError: stats() has no parameter 'strid'; did you mean 'stride'?
    """
    names = list(kind.__annotations__)
    for name in options:
        if name not in names:
            title, explicit = function, []
            if callable(function):
                title, parameters = function.__name__, inspect.signature(function).parameters.values()
                explicit = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
            similar = get_close_matches(name, [*explicit, *names], n=1)
            hint = f"did you mean {similar[0]!r}?" if similar else f"other parameters are {', '.join(names)}"
            raise TypeError(f"{title}() has no parameter {name!r}; {hint}")
