"""Trying again what failed: after a wait, with a new signature, or not at all; and a record of what went wrong."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from xchip.io.errors import Kind, asked_to_wait, chain, classify
from xchip.io.gdal_log import counting_repeats
from xchip.io.storage import StorageOptions

RENEWALS = 2
"""How often in a row a new signature is tried."""
LONGEST_MESSAGE = 1000
"""Characters of an error's message that are recorded."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that went wrong."""

    attempt: int
    """In which attempt, from 1."""
    kind: Kind | Literal["overcome"]
    """What `classify` says; "overcome" where GDAL asked again by itself, and went on."""
    error: str
    """Name of the exception's class."""
    message: str
    """What it says; without signatures."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Outcome(NamedTuple, Generic[T]):
    """What came of it in the end."""

    value: T
    """What the function returned."""
    history: tuple[Event, ...]
    """What went wrong before."""


class GivenUp(Exception):
    """It can't be done. The last error is the ``__cause__``."""

    def __init__(self, history: tuple[Event, ...]) -> None:
        last = history[-1]
        super().__init__(f"given up at attempt {last.attempt} ({last.kind}): {last.error}: {last.message}")
        self.history = history
        """What went wrong; the last one is why."""

    def __reduce__(self) -> tuple[type[GivenUp], tuple[tuple[Event, ...]]]:
        return type(self), (self.history,)


def retrying(
    function: Callable[[StorageOptions], T],
    storage: StorageOptions,
    *,
    attempts: int = 5,
    wait: float = 1.0,
    longest: float = 60.0,
    rng: random.Random | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Outcome[T]:
    """Call ``function(storage)`` until it works, as long as there is hope.

    - transient: again after a wait, at random between 0 and ``wait`` x 1, 2, 4, 8 ... seconds, so that a thousand workers don't
      come back all at once; at least as long as the server asks for, where the error tells; never longer than ``longest``.
    - denied: again with a new signature, at once and then once more after a wait; without a signer it is permanent.
    - doubtful: again, once. If it fails in the very same way the file is damaged, and that is permanent. The readers of
      `xchip.io.gdal` open a file that failed past GDAL's caches, so the server is asked again.
    - permanent: not again.

    GDAL itself repeats single requests, two times within two seconds (`xchip.io.gdal`): to read a file anew for each of its
    ranges that failed would take longer, and on a busy server never end. What it overcame so is recorded too.

    Parameters
    ----------
    function
        Called with the storage options to use now. It signs the hrefs that it reads.
    storage
        How files are reached; its signatures are renewed after a refusal.
    attempts
        How often it is called, at most.
    wait, longest
        Seconds.
    rng, sleep
        Where waits come from, and what waits.

    Returns
    -------
    Outcome
        (value, history): what the function returned, and the `Event`s before.

    Raises
    ------
    GivenUp
        If it failed for good; it bears the history, and the error as its cause.

    Examples
    --------
    >>> answers = iter([ConnectionResetError("gone"), "here"])
    >>> def read(storage):
    ...     answer = next(answers)
    ...     if isinstance(answer, Exception):
    ...         raise answer
    ...     return answer
    >>> value, history = retrying(read, StorageOptions(), sleep=lambda seconds: None)
    >>> value, [(event.attempt, event.kind, event.error) for event in history]
    ('here', [(1, 'transient', 'ConnectionResetError')])
    """
    rng = rng or random.Random()
    history: list[Event] = []
    refused = 0
    doubt = None
    for attempt in range(1, attempts + 1):
        with counting_repeats() as repeats:
            try:
                value = function(storage)
            except Exception as failure:
                error = failure
            else:
                return Outcome(value, (*history, *_overcome(attempt, repeats)))
        kind = classify(error)
        symptom = [str(one) for one in chain(error)]
        refused = refused + 1 if kind == "denied" else 0
        if kind == "doubtful" and symptom == doubt:
            kind = "permanent"
        doubt = symptom if kind == "doubtful" else None
        history += [*_overcome(attempt, repeats), Event(attempt, kind, type(error).__name__, recorded_message(error))]
        hopeless = kind == "permanent" or (kind == "denied" and (storage.signer is None or refused > RENEWALS))
        if hopeless or attempt == attempts:
            raise GivenUp(tuple(history)) from error
        if storage.signer is not None and kind in ("denied", "doubtful"):
            storage = storage.renewed()  # GDAL does not say why a range in the middle of a file did not come
        if refused != 1:
            sleep(pause(attempt, wait, longest, rng, asked_to_wait(error)))
    raise ValueError(f"attempts is at least 1, got {attempts}")


def insistently(
    function: Callable[[], T],
    *,
    attempts: int = 5,
    wait: float = 0.5,
    longest: float = 30.0,
    rng: random.Random | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Call ``function()`` again while its errors are transient; any other error, and the last one, is raised as it is.

    Examples
    --------
    >>> insistently(lambda: 1)
    1
    """
    rng = rng or random.Random()
    for attempt in range(1, attempts):
        try:
            return function()
        except Exception as error:
            if classify(error) != "transient":
                raise
            sleep(pause(attempt, wait, longest, rng, asked_to_wait(error)))
    return function()


def pause(attempt: int, wait: float, longest: float, rng: random.Random, asked: float = 0.0) -> float:
    """Seconds to wait: at random up to ``wait`` x 2 ** (attempt - 1), at least ``asked``, at most ``longest``."""
    return min(longest, max(asked, rng.uniform(0, min(longest, wait * 2.0 ** min(attempt - 1, 60)))))


def attempts_in(history: tuple[Event, ...]) -> int:
    """How many attempts failed."""
    return sum(event.kind != "overcome" for event in history)


def _overcome(attempt: int, repeats: Counter[int]) -> Iterator[Event]:
    if repeats:
        texts = (f"{count} x {f'HTTP {status}' if status else 'connection broken'}" for status, count in sorted(repeats.items()))
        yield Event(attempt, "overcome", "Repeated", f"GDAL repeated requests: {', '.join(texts)}")


_QUERY = re.compile(r"(\w+://[^\s?'\"<>]+)\?[^\s'\"<>]+")


def recorded_message(error: BaseException) -> str:
    """What an error says, as it is recorded: without signatures, and not endless."""
    text = _QUERY.sub(r"\1?...", str(error))
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."
