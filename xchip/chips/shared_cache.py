"""Values that threads share: each is made once, also where several threads ask for it at the same time."""

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
    """Values by key, the least recently used of which go where ``limit`` is exceeded.

    A thread that claims a key makes its value; others who ask meanwhile wait for it. Who claims several makes all of them
    before it waits for those of others, so threads can't wait for each other.
    """

    def __init__(self, limit: int, cost: Callable[[Value], int]) -> None:
        self.limit, self._cost = limit, cost
        self._restart()
        _ALL.add(self)

    def _restart(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, Future[Value]] = OrderedDict()
        self.held = 0
        """Cost of the values that are kept."""

    def claim(self, keys: Sequence[Hashable]) -> tuple[dict[Hashable, Future[Value]], list[Hashable]]:
        """(future of each key, the keys that the caller has to `give` or `fail`)."""
        found: dict[Hashable, Future[Value]] = {}
        mine = []
        with self._lock:
            for key in keys:
                if key not in self._known:
                    self._known[key] = Future()
                    mine.append(key)
                else:
                    self._known.move_to_end(key)
                found[key] = self._known[key]
        return found, mine

    def give(self, key: Hashable, value: Value) -> None:
        """Give out the value of a claimed key."""
        with self._lock:
            future = self._known[key]
            self.held += self._cost(value)
            future.set_result(value)
            while self.held > self.limit:
                old = next((key for key, kept in self._known.items() if kept.done()), None)
                if old is None:
                    break
                self.held -= self._cost(self._known.pop(old).result())

    def fail(self, keys: Sequence[Hashable], error: BaseException) -> None:
        """Tell those who wait for claimed keys; the next who asks tries again."""
        with self._lock:
            for key in keys:
                self._known.pop(key).set_exception(error)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of one key, made if need be."""
        found, mine = self.claim([key])
        if mine:
            try:
                value = make()
            except BaseException as error:
                self.fail(mine, error)
                raise
            self.give(key, value)
            return value
        return found[key].result()

    def clear(self) -> None:
        """Forget what is kept."""
        with self._lock:
            self._known = OrderedDict((key, future) for key, future in self._known.items() if not future.done())
            self.held = 0


def file_stamp(href: str | None) -> tuple[int, int] | None:
    """What changes when a local file is written again; None for what can't be asked cheaply."""
    try:
        stat = os.stat((href or "").removeprefix("file://"))
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _after_fork() -> None:
    # Threads of the parent that hold locks or make values don't exist in a child.
    for cache in _ALL:
        cache._restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
