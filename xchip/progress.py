"""How far a long job is, for people: a bar on a terminal, a line now and then elsewhere. Only the command line uses it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

from dask.callbacks import Callback


class Progress:
    """Counts finished scenes.

    Examples
    --------
    >>> import sys
    >>> with Progress(2, "indexed", stream=sys.stdout) as progress:
    ...     progress.advance()
    ...     progress.advance()
    indexed 2 of 2 scenes
    """

    def __init__(self, total: int, label: str, *, stream: TextIO | None = None, every: float = 5.0) -> None:
        self.total, self.label, self.every = total, label, every
        self.stream = sys.stderr if stream is None else stream
        self.done = 0
        self._bar: Any = None
        self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if self.stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total, desc=self.label, unit=" scenes", file=self.stream)
        return self

    def advance(self) -> None:
        """One scene more is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
        elif self.done == self.total or time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            print(f"{self.label} {self.done:,} of {self.total:,} scenes", file=self.stream, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()


class SceneTasks(Callback):
    """Tells a `Progress` of each result that dask's own schedulers finish inside ``with SceneTasks(progress):``.

    One result is one scene: that is how indexes are written.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._progress = progress
        self._results: set[Any] = set()

    def _start_state(self, graph: Any, state: Any) -> None:
        # A task that no other waits for is a result.
        self._results = {key for key, others in state["dependents"].items() if not others}

    def _posttask(self, key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        if key in self._results:
            self._progress.advance()
