"""Retry failed calls after a wait or with a new signature, and record the errors."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from xchip.io.errors import Kind, chain, classify, retry_after
from xchip.io.gdal_log import counting_repeats
from xchip.io.storage import StorageOptions

RENEWALS = 2
"""Number of new signatures that are tried in a row."""
LONGEST_MESSAGE = 1000
"""Recorded characters of an error's message."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """One error of a call."""

    attempt: int
    """Number of the attempt, from 1."""
    kind: Kind | Literal["overcome"]
    """Result of `classify`; "overcome" where GDAL itself repeated the request with success."""
    error: str
    """Class name of the exception."""
    message: str
    """Message of the exception, without signatures."""

    def to_dict(self) -> dict[str, object]:
        """Return the event as a JSON object."""
        return asdict(self)


class Outcome(NamedTuple, Generic[T]):
    """Result and error history of a retried call."""

    value: T
    """Return value of the function."""
    history: tuple[Event, ...]
    """Errors before the successful attempt."""


class GivenUp(Exception):
    """All attempts failed. The last error is the ``__cause__``."""

    def __init__(self, history: tuple[Event, ...]) -> None:
        last = history[-1]
        super().__init__(f"given up at attempt {last.attempt} ({last.kind}): {last.error}: {last.message}")
        self.history = history
        """Errors of all attempts; the last one ended the call."""

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
    """Call ``function(storage)`` until it succeeds or fails permanently.

    The `classify` kind of the error decides what follows:

    - transient: call again after a random wait of 0 to ``wait`` x 1, 2, 4, 8 ... seconds, so that a thousand workers don't return
      all at once. The wait is at least the server's Retry-After, if the error has one, and at most ``longest``.
    - denied: renew the signature and call again, first at once and then after a wait. Without a signer the error is permanent.
    - doubtful: call again. The same error twice in a row means that the file is damaged, which is permanent. The readers of
      `xchip.io.gdal` open a file that failed without GDAL's caches, so the server sends the bytes again.
    - permanent: raise.

    GDAL itself repeats single requests, two times within two seconds (`xchip.io.gdal`): a second read of the file for each failed
    range would take longer, and on a busy server never end. The history records these repeats too.

    Parameters
    ----------
    function
        Called with the current storage options. It signs the hrefs that it reads.
    storage
        How files are reached; signatures are renewed after a refusal.
    attempts
        Maximum number of calls.
    wait, longest
        Seconds.
    rng, sleep
        Source of random waits, and the function that waits.

    Returns
    -------
    Outcome
        (value, history): the return value of the function, and the `Event`s before it.

    Raises
    ------
    GivenUp
        If the last attempt fails; it carries the history, and the last error as its cause.

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
    doubtful_messages = None
    for attempt in range(1, attempts + 1):
        with counting_repeats() as repeats:
            try:
                value = function(storage)
            except Exception as failure:
                error = failure
            else:
                return Outcome(value, (*history, *_overcome(attempt, repeats)))
        kind = classify(error)
        messages = [str(cause) for cause in chain(error)]
        refused = refused + 1 if kind == "denied" else 0
        if kind == "doubtful" and messages == doubtful_messages:
            kind = "permanent"
        doubtful_messages = messages if kind == "doubtful" else None
        history += [*_overcome(attempt, repeats), Event(attempt, kind, type(error).__name__, recorded_message(error))]
        hopeless = kind == "permanent" or (kind == "denied" and (storage.signer is None or refused > RENEWALS))
        if hopeless or attempt == attempts:
            raise GivenUp(tuple(history)) from error
        if storage.signer is not None and kind in ("denied", "doubtful"):
            storage = storage.renewed()  # GDAL does not report why a range in the middle of a file failed
        if refused != 1:
            sleep(retry_delay(attempt, wait, longest, rng, retry_after(error)))
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
    """Call ``function()`` again while its errors are transient; raise any other error, and the last one, unchanged.

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
            sleep(retry_delay(attempt, wait, longest, rng, retry_after(error)))
    return function()


def retry_delay(attempt: int, wait: float, longest: float, rng: random.Random, at_least: float = 0.0) -> float:
    """Return seconds to wait: random up to ``wait`` x 2 ** (attempt - 1), but at least ``at_least`` and at most ``longest``."""
    return min(longest, max(at_least, rng.uniform(0, min(longest, wait * 2.0 ** min(attempt - 1, 60)))))


def attempts_in(history: tuple[Event, ...]) -> int:
    """Return the number of failed attempts."""
    return sum(event.kind != "overcome" for event in history)


def _overcome(attempt: int, repeats: Counter[int]) -> Iterator[Event]:
    if repeats:
        texts = (f"{count} x {f'HTTP {status}' if status else 'connection broken'}" for status, count in sorted(repeats.items()))
        yield Event(attempt, "overcome", "Repeated", f"GDAL repeated requests: {', '.join(texts)}")


_QUERY = re.compile(r"(\w+://[^\s?'\"<>]+)\?[^\s'\"<>]+")


def recorded_message(error: BaseException) -> str:
    """Return the message of an error for records: without signatures, and cut to `LONGEST_MESSAGE`."""
    text = _QUERY.sub(r"\1?...", str(error))
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."
