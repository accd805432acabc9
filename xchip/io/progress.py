"""Show the progress of long jobs: a bar on a terminal or in a notebook, elsewhere a line every few seconds."""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO, TypeAlias

from dask.callbacks import Callback

if TYPE_CHECKING:
    from dask.typing import Key
    from tqdm.std import tqdm as Bar

LOGGER = logging.getLogger("xchip")

Tell: TypeAlias = Callable[[str, int, int], object]
"""Called with a step such as "rows written", the number done, and the total."""


class Progress:
    """Count finished scenes, or other units, and show the count.

    Parameters
    ----------
    total
        The number of units; None if it is unknown.
    label
        What happens to the units: "indexed".
    unit
        Name of the units.
    stream
        Receives lines, or a bar if it is a terminal. None: a bar on the terminal or in the notebook, else lines of the logger
        "xchip" at level INFO.
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
        self._bar: Bar | None = None
        self._last = time.monotonic()
        self._last_line = ""

    def __enter__(self) -> Progress:
        stream = sys.stderr if self.stream is None else self.stream
        if self.stream is None and _in_notebook():
            # Not tqdm.auto: without ipywidgets it prints a long warning and then the same text bar.
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
        """Count one more finished unit, which may have failed or been skipped."""
        self.failed += failed
        self.skipped += skipped
        if failed and self._bar is not None:
            self._bar.set_postfix_str(f"{self.failed:,} failed")
        self.reach(self.done + 1)

    def reach(self, done: int) -> None:
        """Set the total number of finished units."""
        more, self.done = done - self.done, done
        if self._bar is not None:
            self._bar.update(more)
        elif self.done == self.total or time.monotonic() - self._last >= self.every:
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        notes = [f"{count:,} {result}" for count, result in ((self.skipped, "skipped"), (self.failed, "failed")) if count]
        of = "" if self.total is None or self.done > self.total else f" of {self.total:,}"
        line = f"{self.label} {self.done:,}{of} {self.unit}" + (f" ({', '.join(notes)})" if notes else "")
        if line == self._last_line:
            return
        self._last_line = line
        if self.stream is None:
            LOGGER.info(line)
        else:
            print(line, file=self.stream, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.done:
            self._print()


@contextmanager
def told(progress: bool | Tell | None) -> Iterator[Tell]:
    """Yield the function that a job calls to report progress.

    Parameters
    ----------
    progress
        True: show a separate `Progress` for each step; the next step ends it. A function: yield it unchanged. False or None: show
        nothing.

    Examples
    --------
    >>> with told(lambda step, done, total: print(done, "of", total, step)) as tell:
    ...     tell("rows written", 1, 2)
    1 of 2 rows written
    """
    if not isinstance(progress, bool) and progress is not None:
        yield progress
        return
    steps: dict[str, Progress] = {}
    with ExitStack() as stack:

        def tell(step: str, done: int, total: int) -> None:
            if step not in steps:
                stack.close()
                unit, _, label = step.partition(" ")
                steps[step] = stack.enter_context(Progress(total, label, unit=unit))
            steps[step].reach(done)

        yield tell if progress else lambda step, done, total: None


def one_step(progress: bool | Callable[[int, int], object]) -> bool | Tell:
    """Return the ``progress`` of a job with a single step, whose function takes (done, total), as an argument of `told`."""
    return progress if isinstance(progress, bool) else lambda step, done, total: progress(done, total)


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


class SceneTasks(Callback):
    """Advance a `Progress` for each result that dask's local schedulers finish inside ``with SceneTasks(progress):``.

    One result is one scene, as in the graph that writes an index.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._progress = progress
        self._results: set[Key] = set()

    # dask documents these two methods for subclasses, in spite of their names.
    def _start_state(self, graph: object, state: Mapping[str, Mapping[Key, set[Key]]]) -> None:
        # A result is a task without dependents.
        self._results = {key for key, dependents in state["dependents"].items() if not dependents}

    def _posttask(self, key: Key, result: object, graph: object, state: object, worker: object) -> None:
        if key in self._results:
            self._progress.advance()
