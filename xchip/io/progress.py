"""How far a long job is, for people: a bar on a terminal or in a notebook, a line now and then elsewhere."""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, TextIO

from dask.callbacks import Callback

LOGGER = logging.getLogger("xchip")

Tell = Callable[[str, int, int], object]
"""Called with a step such as "rows written", how many are done, and of how many."""


class Progress:
    """Counts finished scenes, or whatever ``unit`` says.

    Parameters
    ----------
    total
        How many there will be; None where nobody knows yet.
    label
        What happens to them: "indexed".
    stream
        Where lines, or a bar if it is a terminal, go. None: a bar where there is a terminal or a notebook to draw it on, else
        the logger "xchip" at level INFO.
    every
        Seconds between two lines.

    Examples
    --------
    >>> import sys
    >>> with Progress(3, "indexed", stream=sys.stdout) as progress:
    ...     progress.advance()
    ...     progress.advance(failed=True)
    ...     progress.advance()
    indexed 3 of 3 scenes (1 failed)
    """

    def __init__(
        self, total: int | None, label: str, *, unit: str = "scenes", stream: TextIO | None = None, every: float = 5.0
    ) -> None:
        self.total, self.label, self.unit, self.every = total, label, unit, every
        self.stream = stream
        self.done = self.failed = self.skipped = 0
        self._bar: Any = None
        self._last = time.monotonic()
        self._said = ""

    def __enter__(self) -> Progress:
        stream = sys.stderr if self.stream is None else self.stream
        if self.stream is None and _in_notebook():
            # Not tqdm.auto: without ipywidgets it warns at length before it draws the same bar as text.
            if importlib.util.find_spec("ipywidgets") is not None:
                from tqdm.notebook import tqdm
            else:
                from tqdm import tqdm
        elif stream.isatty():
            from tqdm import tqdm
        else:
            return self
        self._bar = tqdm(total=self.total, desc=self.label, unit=f" {self.unit}", file=stream)
        return self

    def advance(self, *, failed: bool = False, skipped: bool = False) -> None:
        """One more is finished; it failed, or there was nothing to do for it."""
        self.done += 1
        self.failed += failed
        self.skipped += skipped
        if self._bar is not None:
            self._bar.update()
            if failed:
                self._bar.set_postfix_str(f"{self.failed:,} failed")
        elif self.done == self.total or time.monotonic() - self._last >= self.every:
            self._say()

    def reach(self, done: int) -> None:
        """So many are finished in all."""
        more, self.done = done - self.done, done
        if self._bar is not None:
            self._bar.update(more)
        elif done == self.total or time.monotonic() - self._last >= self.every:
            self._say()

    def _say(self) -> None:
        self._last = time.monotonic()
        notes = [f"{count:,} {what}" for count, what in ((self.skipped, "skipped"), (self.failed, "failed")) if count]
        of = "" if self.total is None or self.done > self.total else f" of {self.total:,}"
        line = f"{self.label} {self.done:,}{of} {self.unit}" + (f" ({', '.join(notes)})" if notes else "")
        if line == self._said:
            return
        self._said = line
        if self.stream is None:
            LOGGER.info(line)
        else:
            print(line, file=self.stream, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.done:
            self._say()


@contextmanager
def told(progress: bool | Tell | None) -> Iterator[Tell]:
    """What a job calls with a step such as "rows written", how many are done, and of how many.

    Parameters
    ----------
    progress
        True: each step has a `Progress` of its own, which begins when the step before has ended. A function is called as it is;
        False and None say nothing.

    Examples
    --------
    >>> with told(lambda what, done, of: print(done, "of", of, what)) as tell:
    ...     tell("rows written", 1, 2)
    1 of 2 rows written
    """
    if not isinstance(progress, bool) and progress is not None:
        yield progress
        return
    steps: dict[str, Progress] = {}
    with ExitStack() as stack:

        def tell(what: str, done: int, of: int) -> None:
            if what not in steps:
                stack.close()
                unit, _, label = what.partition(" ")
                steps[what] = stack.enter_context(Progress(of, label, unit=unit))
            steps[what].reach(done)

        yield tell if progress else lambda what, done, of: None


def one_step(progress: bool | Callable[[int, int], object]) -> bool | Tell:
    """What `told` takes, of a job with a single step, whose function is called with (done, of) alone."""
    return progress if isinstance(progress, bool) else lambda what, done, of: progress(done, of)


def _in_notebook() -> bool:
    """Whether this is a kernel, whose frontend draws bars."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


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
