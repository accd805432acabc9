"""The README: its Python runs as it stands, block after block, and each of its commands is one that the program knows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from command_line import run

from xchip.cli import main
from xchip.cli.commands import ENTRIES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

# Words that stand for something, and something that they may stand for.
STANDS_FOR = {"I/N": "0/2", "N": "2", "COMMAND": "index", "HEIGHTxWIDTH": "256x512"}


def python_of(text: str) -> str:
    """The blocks of Python, each line where it stands in the README: so a traceback names the README's line."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside and line.strip() == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


@pytest.mark.once
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("demo", "--pixels", 1024).exit_code == 0
    script = tmp_path / "README.py"
    script.write_text(python_of(README))
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    script.unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"xchip-demo"}, "the README writes beside xchip-demo"


def commands_in_blocks() -> Iterator[str]:
    """Lines of indented and fenced blocks that call the program, continued lines joined, without comments."""
    fenced = re.sub(r"^```python\n.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
    for line in fenced.splitlines():
        for part in line.split("&&"):
            words = re.sub(r"\s#\s.*", "", part).strip()
            if re.match(r"(\.venv/bin/)?xchip(-[a-z0-9-]+)? ", words) and re.match(r"    |xchip|\.venv", line):
                yield words.removeprefix(".venv/bin/")


def commands_in_text() -> Iterator[str]:
    """Commands in the middle of a sentence, which may leave out what every use has to give."""
    return (code for code in re.findall(r"`([^`\n]+)`", README) if re.match(r"xchip(-[a-z]+)? [a-z-]+", code))


def parse(text: str) -> None:
    """Read a command line as the program would, and run nothing."""
    program, *words = (STANDS_FOR.get(word, word) for word in shlex.split(text.replace("[", "").replace("]", "")))
    if program != "xchip":
        words.insert(0, program.removeprefix("xchip-"))
    group = main.make_context("xchip", words)
    name, command, rest = main.resolve_command(group, [*group._protected_args, *group.args])
    assert command is not None, text
    with suppress(click.exceptions.Exit):  # of --help
        command.make_context(name, list(rest), parent=group)


@pytest.mark.parametrize("command", dict.fromkeys(commands_in_blocks()))
def test_a_command_in_a_block_is_complete(command: str) -> None:
    parse(command)


@pytest.mark.parametrize("command", dict.fromkeys(commands_in_text()))
def test_a_command_in_the_text_is_known(command: str) -> None:
    with suppress(click.MissingParameter):
        parse(command)


def test_every_command_has_an_example_in_its_help() -> None:
    for name, command in main.load_all().items():
        example = ENTRIES[name].example
        assert example.split()[:2] == ["xchip", name]
        assert example in run(name, "--help").output.splitlines()[-1]
        parse(example)
        assert command.epilog
    assert set(ENTRIES) == set(main.commands)


def test_there_are_commands_to_check() -> None:
    assert len([*commands_in_blocks()]) > 8
    assert len([*commands_in_text()]) > 1
