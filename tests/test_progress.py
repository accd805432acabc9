"""Progress: a bar on a terminal, lines elsewhere; one step for each scene that dask finishes."""

from __future__ import annotations

import io
import logging
import sys

import dask
import pytest

from xchip.io.progress import Progress, SceneTasks, told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal() -> None:
    stream = Terminal()
    with Progress(4, "indexed", stream=stream) as progress:
        for _ in range(4):
            progress.advance()
    assert "4/4" in stream.getvalue()
    assert "indexed: 100%" in stream.getvalue()


def test_progress_is_a_line_now_and_then_elsewhere() -> None:
    stream = io.StringIO()
    with Progress(3, "indexed", stream=stream, every=0) as progress:
        for _ in range(3):
            progress.advance()
    assert stream.getvalue().splitlines() == [f"indexed {number} of 3 scenes" for number in (1, 2, 3)]
    stream = io.StringIO()
    with Progress(1000, "indexed", stream=stream, every=60) as progress:
        for _ in range(1000):
            progress.advance()
    assert stream.getvalue() == "indexed 1,000 of 1,000 scenes\n"


def steps(tell) -> None:
    for done in (1, 3):
        tell("files read", done, 3)
    tell("rows written", 2000, 2000)


def test_each_step_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with told(True) as tell:
        steps(tell)
    first, second = (stream.getvalue().index(text) for text in ("read: 100%", "written: 100%"))
    assert first < second
    assert stream.getvalue()[first:second].count("\n") == 1  # the first has ended
    stream.truncate(0)
    with told(False) as tell:
        steps(tell)
    assert stream.getvalue() == ""


def test_steps_are_logged_elsewhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "xchip"), told(True) as tell:
        steps(tell)
    assert caplog.messages == ["read 3 of 3 files", "written 2,000 of 2,000 rows"]
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_each_result_of_dask_is_a_scene() -> None:
    stream = io.StringIO()
    shared = dask.delayed(abs)(-1)
    scenes = [dask.delayed(max)(shared, number) for number in range(5)]
    with Progress(5, "indexed", stream=stream, every=0) as progress, SceneTasks(progress):
        assert dask.compute(*scenes[:3]) == (1, 1, 2)
        assert progress.done == 3
        dask.compute(*scenes[3:])
    assert progress.done == 5
