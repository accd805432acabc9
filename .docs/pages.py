"""Generate pages of the documentation when it is built: a hook of mkdocs.

Each fact is written once. Hand-written pages are in `pages/`. This hook adds the README as the first page, the examples with
their outputs, the reference from the docstrings of all public names, the help of the command line, and the table of old imports.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import posixpath
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import xchip
from xchip.accessor import ChipsAccessor
from xchip.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / ".docs"
PAGES = DOCS / "pages"
CACHE = ROOT / "build" / "docs-outputs"

# Title of a reference page -> public names on it. A public name that is missing here stops the build.
REFERENCE = {
    "Scenes": "stack search ItemError",
    "Chips of an array": "ChipGrid PixelGrid chip_sums Explanation",
    "Index": "index_items explain_items write_index read_index open_index merge_indexes stacchip",
    "Archives": "build_index BuildReport StorageOptions",
    "Choosing chips": "sample split audit AuditReport around inside",
    "Pixels of chips": "open_table ChipTable open_chips batches band_stats BandStats series stitch",
    "PyTorch": "ChipDataset IterableChipDataset clay_batch",
    "Files of chips": "prechip export_chips ExportReport Cubes Shards GeoTiffs ZarrStore",
    "Pictures": "plot preview",
    "Sensors and quality": "SensorProfile QualityClass sensors quality",
    "Processors": "processors processors.recipe processors.choosers",
    "Tests": "testing",
    "Bug reports": "show_versions",
}
ACCESSOR = "Chips of an array"
"""The reference page that also shows the accessor."""
WITH_OUTPUTS = ("getting-started.md",)
"""Hand-written pages whose Python blocks are run, in a folder where ``xchip demo --pixels 1024`` ran, and shown with outputs."""
WIDTH = 100
"""Columns of the command line's help."""

TABLE_STYLE = (
    ".dataframe { border: 0; border-collapse: collapse } .dataframe thead { border-bottom: 1px solid rgba(128,128,128,.5) } "
    ".dataframe th, .dataframe td { border: 0; padding: .2em .8em; text-align: right; white-space: nowrap }"
)
"""How tables of pandas look in outputs."""
HTML_OUTPUTS: dict[str, str] = {}
"""Key -> HTML of an output. Markdown has the keys."""

Cell = tuple[str, int, str]
"""(file name, first line, code)."""


# -- the hook ------------------------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Fill the sections of the navigation that list generated pages."""
    generated = {
        "EXAMPLES": [{title_of(script): f"examples/{script.stem}.md"} for script in scripts()],
        "REFERENCE": [{title: f"reference/{slug(title)}.md"} for title in reference_pages()],
    }
    for section in config.nav:
        for title, entries in section.items():
            section[title] = [page for entry in entries for page in generated.get(str(entry), [entry])]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and the pictures that they show."""
    for path, text in generated_pages():
        files.append(File.generated(config, path, content=text))
    for picture in sorted((ROOT / "examples").glob("*.png")):
        files.append(File.generated(config, f"examples/{picture.name}", abs_src_path=str(picture)))
    for page, outputs in run_all().items():
        for picture in sorted(outputs.glob("*.png")):
            files.append(File.generated(config, output_path(page, picture.name), abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """Point the links of a page at pages of the site, link names to the reference, and insert outputs."""
    path = page.file.src_uri
    source = source_of(path)
    if source is not None:
        markdown = outside_code(markdown, lambda text: names_linked(relinked(text, source, path)))
    return with_outputs(markdown, path) if path in run_all() else markdown


def on_page_content(html: str, **rest: Any) -> str:
    """Insert the HTML of outputs, after Markdown, which would change it.

    Each is a shadow tree, because the styles of the theme and those of Xarray and pandas must not mix.
    """

    def output(match: re.Match[str]) -> str:
        return f'{match[0]}<template shadowrootmode="open"><style>{TABLE_STYLE}</style>{HTML_OUTPUTS[match["key"]]}</template>'

    return re.sub(r'<div class="output" data-output="(?P<key>\w+)">', output, html)


def generated_pages() -> Iterator[tuple[str, str]]:
    """(path, Markdown) of each generated page."""
    yield "index.md", (ROOT / "README.md").read_text()
    yield "examples/aws-batch.md", (ROOT / "examples" / "aws-batch" / "README.md").read_text()
    for script in scripts():
        yield f"examples/{script.stem}.md", markdown_of(script)
    for title, names in reference_pages().items():
        yield f"reference/{slug(title)}.md", reference(title, names)
    yield "command-line.md", command_line()
    yield "old-imports.md", old_imports()


# -- links ---------------------------------------------------------------------------------------------------------------


def source_of(page: str) -> str | None:
    """The file of the repository that a page is made from; None for the reference, which is made from docstrings."""
    if page == "index.md":
        return "README.md"
    if page == "examples/aws-batch.md":
        return "examples/aws-batch/README.md"
    if page.startswith("examples/"):
        return page.removesuffix(".md") + ".py"
    return f".docs/pages/{page}" if (PAGES / page).is_file() else None


def page_of(source: str) -> str | None:
    """The page or picture of the site that is made from a file of the repository, if there is one."""
    if source in ("examples/aws-batch", "examples/aws-batch/README.md"):
        return "examples/aws-batch.md"
    if source == "README.md":
        return "index.md"
    if source.startswith(".docs/pages/"):
        return source.removeprefix(".docs/pages/")
    if match := re.fullmatch(r"(examples/\w+)\.(py|png)", source):
        return f"{match[1]}.md" if match[2] == "py" else source
    return None


def relinked(text: str, source: str, page: str) -> str:
    """Links between files of the repository as links between pages of the site.

    A link to a file that is not on the site goes to the repository; without a known repository only its text stays.
    """

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target)) if target else source
        found = page_of(file)
        if found is not None:
            where = posixpath.relpath(found, posixpath.dirname(page) or ".")
        elif repository():
            where = f"{repository()}/blob/main/{file}"
        else:
            return match["text"]
        return f"{match['mark']}[{match['text']}]({where}{'#' + anchor if anchor else ''})"

    return re.sub(r"(?P<mark>!?)\[(?P<text>[^]]*)\]\((?!https?:|#)(?P<target>[^)\s]+)\)", link, text)


@cache
def repository() -> str | None:
    """URL of the repository, as pyproject.toml tells it."""
    import tomllib

    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    return next((url.rstrip("/") for name, url in urls.items() if name.lower() in ("repository", "source")), None)


def names_linked(text: str) -> str:
    """Public names in backquotes, such as `xchip.stack` and `ds.chips.grid(256)`, with a link to the reference."""

    def link(match: re.Match[str]) -> str:
        owner, name = match["owner"], match["name"]
        if owner == "xchip" and name in xchip.__all__:
            return f"[{match[0]}][xchip.{name}]"
        if owner != "xchip" and name in vars(ChipsAccessor):
            return f"[{match[0]}][xchip.accessor.ChipsAccessor.{name}]"
        return match[0]

    # Neither in a heading, whose text is repeated in the table of contents, nor within a link.
    names = re.compile(r"(?<!\[)`(?P<owner>xchip|ds\.chips)\.(?P<name>\w+)(\([^`]*\))?`(?!\])")
    return "\n".join(line if line.startswith("#") else names.sub(link, line) for line in text.split("\n"))


def outside_code(markdown: str, change: Any) -> str:
    """Markdown in which ``change`` was applied to all but fenced and indented blocks of code."""
    parts = re.split(r"(^```[\s\S]*?^```[ \t]*$|^ {4}.*$)", markdown, flags=re.MULTILINE)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))


# -- examples ------------------------------------------------------------------------------------------------------------


def scripts() -> list[Path]:
    """The examples, in order."""
    return sorted((ROOT / "examples").glob("*.py"))


def title_of(script: Path) -> str:
    """The first heading of an example."""
    heading = re.search(r"^# # (.*)$", script.read_text(), re.MULTILINE)
    if heading is None:
        raise PluginError(f"{script.name} has no heading; begin it with a cell of text: # %% [markdown], # # Title")
    return heading[1]


def cells_of(script: Path) -> Iterator[tuple[str, int, str]]:
    """("markdown" or "code", first line, text) of each cell of a percent script."""
    text = script.read_text()
    marks = [*re.finditer(r"^# %%(?P<head>.*)\n", text, re.MULTILINE)]
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(text)], strict=True):
        body = text[mark.end() : end].rstrip()
        if "[markdown]" in mark["head"]:
            yield "markdown", 0, "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
        else:
            yield "code", text.count("\n", 0, mark.end()) + 1, body


def markdown_of(script: Path) -> str:
    """A percent script as Markdown. It has one heading, so the page gives the room of its table of contents to the code."""
    cells = (text if kind == "markdown" else f"```python\n{text.strip()}\n```" for kind, _, text in cells_of(script))
    return "---\nhide: [toc]\n---\n\n" + "\n\n".join(cells) + "\n"


def with_outputs(markdown: str, page: str) -> str:
    """A page with the outputs of each block of Python below it."""
    shown = iter(json.loads((run_all()[page] / "outputs.json").read_text()))

    def block(match: re.Match[str]) -> str:
        return "\n\n".join([match[0], *rendered(next(shown, []), page)])

    return re.sub(r"^```python\n.*?^```$", block, markdown, flags=re.MULTILINE | re.DOTALL)


def rendered(outputs: list[list[str]], page: str) -> Iterator[str]:
    """The outputs of a cell as Markdown."""
    for kind, value in outputs:
        if kind == "text":
            yield f"```{{ .text .output }}\n{value.rstrip()}\n```"
        elif kind == "html":
            key = hashlib.sha256(value.encode()).hexdigest()[:16]
            HTML_OUTPUTS[key] = value
            yield f'<div class="output" data-output="{key}"></div>'
        else:
            where = posixpath.relpath(output_path(page, value), posixpath.dirname(page) or ".")
            yield f"![Picture made by the code above]({where})"


def output_path(page: str, picture: str) -> str:
    """Where the site has a picture that a page's code made."""
    return f"{page.removesuffix('.md')}-outputs/{picture}"


@cache
def run_all() -> dict[str, Path]:
    """Page -> folder with its outputs, of all pages that show outputs.

    What was run before with the same code and the same xchip is taken from `CACHE`. With ``XCHIP_DOCS_RUN=0`` in the
    environment nothing is run, and pages show code alone.
    """
    if os.environ.get("XCHIP_DOCS_RUN") == "0":
        return {}
    jobs = {f"examples/{script.stem}.md": [cell(script, *rest) for kind, *rest in cells_of(script) if kind == "code"]
            for script in scripts()}  # fmt: skip
    jobs |= {page: blocks_of(PAGES / page) for page in WITH_OUTPUTS}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(jobs, pool.map(run_cached, jobs.values(), [page in WITH_OUTPUTS for page in jobs]), strict=True))


def cell(file: Path, line: int, code: str) -> Cell:
    """A cell as `run_cells` takes it."""
    return str(file.relative_to(ROOT)), line, code


def blocks_of(page: Path) -> list[Cell]:
    """The blocks of Python of a page."""
    text = page.read_text()
    blocks = re.finditer(r"^```python\n(?P<code>.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [cell(page, text.count("\n", 0, block.start("code")) + 1, block["code"]) for block in blocks]


def run_cached(cells: Sequence[Cell], needs_demo: bool) -> Path:
    """The folder with the outputs of some cells.

    Raises
    ------
    PluginError
        If a cell fails: the documentation shows no broken example.
    """
    folder = CACHE / hashlib.sha256(repr((cells, needs_demo, fingerprint())).encode()).hexdigest()[:16]
    if (folder / "outputs.json").is_file():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        if needs_demo:
            run_python(["-c", "from xchip.cli import main; main()", "demo", "--pixels", "1024"], scratch)
        job = Path(scratch, "cells.json")
        job.write_text(json.dumps(cells))
        run_python([str(DOCS / "run_cells.py"), str(job), str(folder)], scratch)
        outputs = folder / "outputs.json"
        outputs.write_text(outputs.read_text().replace(scratch, "~"))  # paths in outputs do not name a folder of this machine
    return folder


def run_python(arguments: Sequence[str], folder: str) -> None:
    """Run Python in a folder, with this checkout's xchip."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "COLUMNS": str(WIDTH)}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise PluginError(f"code of the documentation failed:\n{done.stdout}{done.stderr}")


@cache
def fingerprint() -> str:
    """Changes with xchip, with the code that runs cells, with Python, and with whether PyTorch is there."""
    digest = hashlib.sha256(f"{sys.version} {find_spec('torch') is not None}".encode())
    for file in sorted([*(ROOT / "xchip").rglob("*.py"), DOCS / "run_cells.py"]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


# -- reference -----------------------------------------------------------------------------------------------------------


def reference_pages() -> dict[str, list[str]]:
    """Title -> public names."""
    pages = {title: names.split() for title, names in REFERENCE.items()}
    if missing := set(xchip.__all__) - {name for names in pages.values() for name in names}:
        raise PluginError(f"public names {sorted(missing)} are on no reference page; add them to REFERENCE in .docs/pages.py")
    return pages


def reference(title: str, names: list[str]) -> str:
    """Docstrings of some public names; of a module, the docstrings of its own public names."""
    parts = [f"# {title}"]
    if title == ACCESSOR:
        options = "    options:\n      show_root_full_path: false"
        parts.append(f"`.chips` is there on every Dataset and DataArray.\n\n::: xchip.accessor.ChipsAccessor\n{options}")
    for name in names:
        value = resolve_name(f"xchip.{name}")
        options = f"\n    options:\n      members: {members(value)}" if inspect.ismodule(value) else ""
        parts.append(f"::: xchip.{name}{options}")
    return "\n\n".join(parts) + "\n"


def members(module: Any) -> list[str]:
    """Public names of a module: those in ``__all__``, or those that it defines."""
    given = getattr(module, "__all__", None)
    found = given or [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in found if not name.startswith("_")]


def command_line() -> str:
    """The output of ``xchip COMMAND --help`` for each command."""
    whole = main.make_context("xchip", [], resilient_parsing=True, terminal_width=WIDTH)
    parts = [f"# Command line\n\n```text\n{main.get_help(whole)}\n```"]
    for name, command in main.load_all().items():
        context = command.make_context(name, [], parent=whole, resilient_parsing=True, terminal_width=WIDTH)
        parts.append(f"## xchip {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def old_imports() -> str:
    """Modules that moved before the first release, from ``.docs/moved_modules.txt``: old name, space, new name."""
    pairs = (line.split() for line in (DOCS / "moved_modules.txt").read_text().splitlines() if line and line[0] != "#")
    rows = "".join(f"| `{old}` | `{new}` |\n" for old, new in pairs)
    return (
        "# Old imports\n\nModules moved before the first release. The public names did not: `import xchip`, `from xchip.quality "
        "import ...`, `from xchip.sensors import ...` and `xchip.testing` work as before. If your code imports from an internal "
        f"module, change the import.\n\n| old module | new module |\n|---|---|\n{rows}"
    )


def slug(title: str) -> str:
    """A title as part of a URL."""
    return title.lower().replace(" ", "-")
