"""The documentation: an example for every public name, and a reference that builds without a warning."""

from __future__ import annotations

import html
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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


@pytest.mark.once
def test_the_reference_builds(tmp_path: Path) -> None:
    missing = [name for name in ("mkdocs", "mkdocstrings", "material") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra docs is not installed: {missing} not found")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ".docs/mkdocs.yml", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    pages = "".join(path.read_text() for path in (tmp_path / "reference").rglob("index.html"))
    assert [name for name in xchip.__all__ if f'id="xchip.{name}"' not in pages] == []
    assert all(f'id="xchip.accessor.ChipsAccessor.{name}"' in pages for name in ("grid", "index", "extract", "map"))
    assert "<blockquote>" not in pages  # an example outside of its section would be one
    for name in ("processors.process", "processors.recipe.Recipe", "testing.write_scene", "quality.values"):
        assert f'id="xchip.{name}"' in pages, name
    edge = re.search(r"<code>edge</code></b>(.*?)–", (tmp_path / "reference/archives/index.html").read_text(), re.DOTALL)
    assert edge is not None
    assert "'drop'" in html.unescape(edge[1])  # a description that it shares with others, but not their default
    assert 'href="changelog/"' in (tmp_path / "index.html").read_text()
    commands = (tmp_path / "command-line" / "index.html").read_text()
    assert all(f'id="xchip-{name}"' in commands for name in ("index", "merge", "status", "verify", "info", "demo"))
