"""Running the command line, in this process or in one of its own, as a user would."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.testing import CliRunner, Result

from xchip.cli import main


def run(*arguments: object, env: dict[str, str | None] | None = None, input: str | None = None) -> Result:
    """What ``xchip`` with ``arguments`` says, and how it ends."""
    return CliRunner(env=env).invoke(main, [str(argument) for argument in arguments], input=input)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process group of its own, as a terminal would have it."""
    command = [sys.executable, "-c", "from xchip.cli import main; main()", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    # What a shell starts in the background ignores Ctrl-C, and hands that on.
    heeds_it = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, preexec_fn=heeds_it, **pipes, **options)


def refused(result: Result, message: str, status: int = 1) -> None:
    """One clear line on stderr, status 1."""
    assert result.exit_code == status, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert re.search(message, line), line


def misused(result: Result, message: str) -> None:
    """A usage error: status 2, and how to get help."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Usage:" in result.stderr
    assert re.search(message, " ".join(result.stderr.split())), result.stderr


def settled(command: str, arguments: Sequence[object], env: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that a command is called with; nothing is run."""
    before = dict(os.environ)
    os.environ.update(env)
    try:
        group = main.make_context("xchip", [command, *map(str, arguments)])
        name, found, rest = main.resolve_command(group, [*group._protected_args, *group.args])
        assert isinstance(found, click.Command)
        return dict(found.make_context(name, list(rest), parent=group).params)
    finally:
        os.environ.clear()
        os.environ.update(before)
