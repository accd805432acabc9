"""Values that threads share: each value is made once, even if several threads need it at the same time."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")

_ALL: weakref.WeakSet[SharedCache[Any]] = weakref.WeakSet()


class SharedCache(Generic[Value]):
    """Values by key. Beyond ``limit``, the least recently used values are dropped.

    A thread that claims a key makes its value; other threads wait for it. A thread makes all values that it claimed before it
    waits for values of other threads, so there are no deadlocks.
    """

    def __init__(self, limit: int, cost: Callable[[Value], int]) -> None:
        self.limit, self._cost = limit, cost
        self._restart()
        _ALL.add(self)

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._futures: OrderedDict[Hashable, Future[Value]] = OrderedDict()
        self.held = 0
        """Cost of the stored values."""

    def claim(self, keys: Sequence[Hashable]) -> tuple[dict[Hashable, Future[Value]], list[Hashable]]:
        """Return (future of each key, the keys that the caller must `give` or `fail`)."""
        futures: dict[Hashable, Future[Value]] = {}
        mine = []
        with self._lock:
            for key in keys:
                if key not in self._futures:
                    self._futures[key] = Future()
                    mine.append(key)
                else:
                    self._futures.move_to_end(key)
                futures[key] = self._futures[key]
        return futures, mine

    def give(self, key: Hashable, value: Value) -> None:
        """Store the value of a claimed key, and pass it to waiting threads."""
        with self._lock:
            future = self._futures[key]
            self.held += self._cost(value)
            future.set_result(value)
            while self.held > self.limit:
                old = next((key for key, stored in self._futures.items() if stored.done()), None)
                if old is None:
                    break
                self.held -= self._cost(self._futures.pop(old).result())

    def fail(self, keys: Sequence[Hashable], error: BaseException) -> None:
        """Raise ``error`` in threads that wait for claimed keys; the next claim tries again."""
        with self._lock:
            for key in keys:
                self._futures.pop(key).set_exception(error)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key; make it if needed."""
        futures, mine = self.claim([key])
        if mine:
            try:
                value = make()
            except BaseException as error:
                self.fail(mine, error)
                raise
            self.give(key, value)
            return value
        return futures[key].result()

    def clear(self) -> None:
        """Drop all stored values."""
        with self._lock:
            self._futures = OrderedDict((key, future) for key, future in self._futures.items() if not future.done())
            self.held = 0


def file_stamp(href: str | None) -> tuple[int, int] | None:
    """Return a value that changes when a local file is rewritten; None for remote or missing files."""
    try:
        stat = os.stat((href or "").removeprefix("file://"))
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _after_fork() -> None:
    # A child process lacks the parent's threads that hold locks or make values.
    for cache in _ALL:
        cache._restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
