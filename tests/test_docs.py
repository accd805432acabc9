"""The documentation: an example for every public name, and a site that builds without a warning and has no broken links."""

from __future__ import annotations

import html
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

import xchip
from xchip.accessor import ChipsAccessor

ROOT = Path(__file__).resolve().parents[1]


def public_objects() -> dict[str, Any]:
    """All that users call: by the name that they use."""
    found = {f"xchip.{name}": getattr(xchip, name) for name in xchip.__all__}
    methods = {name: method for name, method in vars(ChipsAccessor).items() if not name.startswith("_")}
    return found | {f"ds.chips.{name}": method for name, method in methods.items()}


def has_example(value: Any) -> bool:
    """Whether the docstring shows how to use it: as a doctest, or as plain code where that could not run everywhere."""
    text = inspect.getdoc(value) or ""
    section = text.partition("Examples\n--------\n")[2]
    return ">>> " in (text if inspect.ismodule(value) else section) or "::\n\n    " in section


def test_every_public_name_has_an_example() -> None:
    assert [name for name, value in public_objects().items() if not has_example(value)] == []


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        self.links += [given[name] or "" for name in ("href", "src") if name in given]


class Site:
    """A built site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def pages(self) -> dict[str, Page]:
        """URL path from the root -> page. The page of errors is left out: its links are those of a site at a server's root."""
        files = (path for path in self.folder.rglob("*.html") if path.name != "404.html")
        return {path.relative_to(self.folder).as_posix().removesuffix("index.html"): Page(path) for path in files}

    def problem(self, page: str, link: str) -> str | None:
        """What is wrong with a link; None if it leads to a file of the site and an anchor that it has, or out of the site."""
        if urlsplit(link).scheme or link.startswith("//"):
            return None
        parts = urlsplit(urljoin(f"http://site/{page}", link))
        target = unquote(parts.path).removeprefix("/")
        if target not in self.pages:
            return None if (self.folder / target).is_file() else f"{page}: nothing is at {link}"
        anchors = self.pages[target].anchors
        return None if unquote(parts.fragment) in {"", "__", *anchors} else f"{page}: {link} has no such anchor"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without running the examples."""
    missing = [name for name in ("mkdocs", "mkdocstrings", "material") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra docs is not installed: {missing} not found")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ".docs/mkdocs.yml", "-d", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "XCHIP_DOCS_RUN": "0"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.once
def test_the_site_is_complete(site: Path) -> None:
    pages = "".join(path.read_text() for path in (site / "reference").rglob("index.html"))
    assert [name for name in xchip.__all__ if f'id="xchip.{name}"' not in pages] == []
    assert all(f'id="xchip.accessor.ChipsAccessor.{name}"' in pages for name in ("grid", "index", "extract", "map"))
    assert "<blockquote>" not in pages  # an example outside of its section would be one
    for name in ("processors.process", "processors.recipe.Recipe", "testing.write_scene", "quality.values"):
        assert f'id="xchip.{name}"' in pages, name
    # Descriptions that parameters share, with the type and the default of each: of a keyword of IndexOptions, and beside rank=0.
    for page, name, told in (("archives", "edge", "(Edge,default:'drop')"), ("pixels-of-chips", "world_size", "(int,default:1)")):
        text = (site / "reference" / page / "index.html").read_text()
        found = re.search(rf"<code>{name}</code></b>(.*?)–", text, re.DOTALL)
        assert found is not None
        assert html.unescape(re.sub(r"<[^>]*>|\s", "", found[1])) == told
    assert 'href="changelog/"' in (site / "index.html").read_text()
    commands = (site / "command-line" / "index.html").read_text()
    assert all(f'id="xchip-{name}"' in commands for name in ("index", "merge", "status", "verify", "info", "demo"))
    links = (site / "guide/stack/index.html").read_text()
    assert re.search(r'<a [^>]*href="../../reference/scenes/#xchip.stack"><code>xchip.stack\(items\)</code></a>', links)
    moved = (site / "old-imports" / "index.html").read_text()
    assert "<code>xchip.archive.storage</code></td>\n<td><code>xchip.io.storage</code>" in moved


@pytest.mark.once
def test_signatures_are_wrapped(site: Path) -> None:
    """One parameter a line, for which the documentation needs a formatter."""
    page = (site / "reference" / "archives" / "index.html").read_text()
    signature = re.search(r'id="xchip.build_index".*?<code>(.*?)</code></pre>', page, re.DOTALL)
    assert signature is not None
    lines = html.unescape(re.sub(r"<[^>]*>", "", signature[1])).splitlines()
    assert lines[0] == "build_index("
    assert "    size: Pair = 256," in lines
    assert "    max_cloud: float | None = None," in lines
    assert len(lines) > 20


@pytest.mark.once
def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    built = Site(site)
    links = [(page, link) for page, content in built.pages.items() for link in dict.fromkeys(content.links)]
    assert len(links) > 3000
    assert [problem for page, link in links if (problem := built.problem(page, link))] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "guide").mkdir()
    (tmp_path / "index.html").write_text('<a href="guide/#here">a</a> <a href="guide/#there">b</a> <img src="no.png">')
    (tmp_path / "guide" / "index.html").write_text('<h2 id="here">a</h2> <a href="..">b</a> <a href="https://example.com">c</a>')
    built = Site(tmp_path)
    problems = [built.problem(page, link) for page, content in built.pages.items() for link in content.links]
    assert [problem for problem in problems if problem] == [
        ": guide/#there has no such anchor", ": nothing is at no.png",
    ]  # fmt: skip


def test_cells_run_as_in_a_notebook(tmp_path: Path) -> None:
    """Printed text, the value of the last expression, its HTML, and pictures; sys.exit ends the run."""
    cells = [
        "import sys\nclass Table:\n    def _repr_html_(self): return '<table></table>'",
        "print('hello')\n1 + 1",
        "Table()",
        "from PIL import Image\nImage.new('L', (2, 2)).save('dot.png')",
        "sys.exit()",
        "print('never')",
    ]
    (tmp_path / "cells.json").write_text(json.dumps([["cells.py", 1, code] for code in cells]))
    command = [sys.executable, ROOT / ".docs" / "run_cells.py", "cells.json", "outputs"]
    subprocess.run(command, cwd=tmp_path, check=True)
    shown = json.loads((tmp_path / "outputs" / "outputs.json").read_text())
    assert shown == [[], [["text", "hello\n"], ["text", "2"]], [["html", "<table></table>"]], [["picture", "4-dot.png"]]]
    assert (tmp_path / "outputs" / "4-dot.png").is_file()


def test_a_cell_that_fails_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "cells.json").write_text(json.dumps([["examples/cells.py", 40, "x = 1\nx / 0"]]))
    command = [sys.executable, ROOT / ".docs" / "run_cells.py", "cells.json", "outputs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'File "examples/cells.py", line 41' in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_modules_are_where_the_table_of_old_imports_says() -> None:
    lines = (ROOT / ".docs" / "moved_modules.txt").read_text().splitlines()
    moved = dict(line.split() for line in lines if not line.startswith("#"))
    assert len(moved) == len(lines) - 1, "an old module is there twice"
    assert [new for new in moved.values() if importlib.util.find_spec(new) is None] == []
