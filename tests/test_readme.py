"""The README and the pages of the documentation: their Python runs, and the program knows each command that they show."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import click
import pytest
from command_line import run

from xchip.cli import main
from xchip.cli.commands import ENTRIES

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / ".docs" / "pages"
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *sorted(PAGES.rglob("*.md"))]}
"""Path from the root -> text."""
MADE_BY_DOCS = {"old-imports.md", "command-line.md"}
"""Pages that exist on the built site only."""
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>needs|not run): (?P<why>.*) -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

# Words that stand for something, and something that they may stand for.
STANDS_FOR = {"I/N": "0/2", "N": "2", "COMMAND": "index", "HEIGHTxWIDTH": "256x512"}


# -- Python --------------------------------------------------------------------------------------------------------------


def runs_here(block: re.Match[str]) -> bool:
    """Whether a block runs: its mark may say that it needs a package, or that it is not run and why."""
    return block["mark"] is None or (block["mark"] == "needs" and importlib.util.find_spec(block["why"]) is not None)


def python_of(text: str) -> str:
    """The blocks of Python that run here, each line at its place in the page: so a traceback names the line of the page."""
    lines = [""] * (text.count("\n") + 1)
    for block in filter(runs_here, BLOCK.finditer(text)):
        first = text.count("\n", 0, block.start("code"))
        code = block["code"].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `xchip demo --pixels 1024` makes."""
    folder = tmp_path_factory.mktemp("demo") / "xchip-demo"
    assert run("demo", "--pixels", 1024, "-o", folder).exit_code == 0
    return folder


@pytest.mark.once
@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if python_of(text).strip()])
def test_the_python_of_a_page_runs(page: str, demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo, tmp_path / "xchip-demo")
    script = tmp_path / page.rpartition("/")[2].replace(".md", ".py")
    script.write_text(python_of(TEXTS[page]))
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{page}:\n{done.stdout}{done.stderr}"
    script.unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"xchip-demo"}, f"{page} writes beside xchip-demo"


def test_few_blocks_are_not_run() -> None:
    blocks = [block for text in TEXTS.values() for block in BLOCK.finditer(text)]
    assert len(blocks) == sum(text.count("```python") for text in TEXTS.values()), "a block is not as the tests find blocks"
    assert len(blocks) > 50
    assert [block["why"] for block in blocks if block["mark"] == "not run"] == ["it needs a STAC API"]
    assert {block["why"] for block in blocks if block["mark"] == "needs"} == {"torch"}


@pytest.mark.parametrize("page", TEXTS)
def test_lines_of_python_fit_the_page(page: str) -> None:
    assert [line for block in BLOCK.finditer(TEXTS[page]) for line in block["code"].splitlines() if len(line) > 110] == []


# -- commands ------------------------------------------------------------------------------------------------------------


def commands_in_blocks(text: str) -> Iterator[str]:
    """Lines of indented and fenced blocks that call the program, continued lines joined, without comments."""
    fenced = re.sub(r"^```python\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
    for line in fenced.splitlines():
        for part in line.split("&&"):
            words = re.sub(r"\s#\s.*", "", part).strip()
            if re.match(r"(\.venv/bin/)?xchip(-[a-z0-9-]+)? ", words) and re.match(r"    |\.venv", line):
                yield words.removeprefix(".venv/bin/")


def commands_in_text(text: str) -> Iterator[str]:
    """Commands in the middle of a sentence, which may leave out what every use has to give."""
    return (code for code in re.findall(r"`([^`\n]+)`", text) if re.match(r"xchip(-[a-z]+)? [a-z-]+", code))


def parse(text: str) -> None:
    """Read a command line as the program would, and run nothing."""
    program, *words = (STANDS_FOR.get(word, word) for word in shlex.split(text.replace("[", "").replace("]", "")))
    if program != "xchip":
        words.insert(0, program.removeprefix("xchip-"))
    with suppress(click.exceptions.Exit):  # of --help
        group = main.make_context("xchip", words)
        name, command, rest = main.resolve_command(group, [*group._protected_args, *group.args])
        assert command is not None, text
        command.make_context(name, list(rest), parent=group)


IN_BLOCKS = [(page, command) for page, text in TEXTS.items() for command in dict.fromkeys(commands_in_blocks(text))]
IN_TEXT = [(page, command) for page, text in TEXTS.items() for command in dict.fromkeys(commands_in_text(text))]


@pytest.mark.parametrize(("page", "command"), IN_BLOCKS)
def test_a_command_in_a_block_is_complete(page: str, command: str) -> None:
    parse(command)


@pytest.mark.parametrize(("page", "command"), IN_TEXT)
def test_a_command_in_the_text_is_known(page: str, command: str) -> None:
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
    assert len(IN_BLOCKS) > 30
    assert len(IN_TEXT) > 10
    readme = TEXTS["README.md"]
    assert [*commands_in_blocks(readme)]
    assert [*commands_in_text(readme)]


# -- form ----------------------------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) < 200


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_has_one_title_and_links_to_files_that_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", text):
        path = (ROOT / page).parent / unquote(target)
        # A copy that was made from a source distribution has no .github.
        absent = path.name in MADE_BY_DOCS or (".github" in path.parts and not (ROOT / ".github").is_dir())
        assert absent or path.exists(), f"{page} links to {target}"
