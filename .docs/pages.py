"""Pages of the documentation, made when it is built: a hook of mkdocs.

Nothing is written twice: the first page is the README, examples are the scripts of ``examples/``, the reference is the docstrings
of all public names, and the command line describes itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import xchip
from xchip.cli import main

ROOT = Path(__file__).resolve().parents[1]

# Title of a page -> public names on it. A name that is missing here stops the build.
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
WIDTH = 100
"""Columns that a page has room for."""
ACCESSOR = "Chips of an array"
"""The page that has the accessor too."""


def on_config(config: Any) -> Any:
    """The navigation, in the order in which people need it."""
    examples = [{title_of(script): f"examples/{script.stem}.md"} for script in scripts()]
    reference = [{title: f"reference/{slug(title)}.md"} for title in reference_pages()]
    config.nav = [
        {"xchip": "index.md"},
        {"Examples": examples},
        {"Reference": reference},
        {"Command line": "command-line.md"},
        {"Changelog": "changelog.md"},
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """All pages, and the pictures that the README shows."""
    for path, text in pages():
        files.append(File.generated(config, path, content=text))
    for picture in sorted((ROOT / "examples").glob("*.png")):
        files.append(File.generated(config, f"examples/{picture.name}", abs_src_path=str(picture)))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """(path, Markdown) of each page."""
    yield "index.md", readme()
    for script in scripts():
        yield f"examples/{script.stem}.md", markdown_of(script.read_text())
    for title, names in reference_pages().items():
        yield f"reference/{slug(title)}.md", reference(title, names)
    yield "command-line.md", command_line()


def readme() -> str:
    """The README, with links to the pages of the examples."""
    known = "|".join(script.stem for script in scripts())
    return pages_linked(re.sub(rf"\]\(examples/({known})\.py\)", r"](examples/\1.md)", (ROOT / "README.md").read_text()))


def pages_linked(text: str) -> str:
    """Links to files that are no pages lead nowhere here, so only their text stays."""
    return re.sub(r"(?<!!)\[([^]]*)\]\((?!https?:|#|examples/\w+\.md)[^)]*\)", r"\1", text)


def scripts() -> list[Path]:
    """The examples, in order."""
    return sorted((ROOT / "examples").glob("*.py"))


def title_of(script: Path) -> str:
    """The first heading of an example."""
    return re.search(r"^# # (.*)$", script.read_text(), re.MULTILINE)[1]


def markdown_of(script: str) -> str:
    """A percent script as Markdown: cells of text as they are, cells of code as code."""
    parts = []
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        head, _, body = cell.partition("\n")
        if "[markdown]" in head:
            lines = (line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
            parts.append(pages_linked("\n".join(lines)))
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def reference_pages() -> dict[str, list[str]]:
    """Title -> public names."""
    pages = {title: names.split() for title, names in REFERENCE.items()}
    if missing := set(xchip.__all__) - {name for names in pages.values() for name in names}:
        raise PluginError(f"{sorted(missing)} are public names of xchip; say in REFERENCE on which page they belong")
    return pages


def reference(title: str, names: list[str]) -> str:
    """Docstrings of some public names; of a module, those of what it has in ``__all__``, or of what it defines."""
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
    """Public names of a module."""
    given = getattr(module, "__all__", None)
    found = given or [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in found if not name.startswith("_")]


def command_line() -> str:
    """What ``xchip COMMAND --help`` says, of each command."""
    whole = main.make_context("xchip", [], resilient_parsing=True, terminal_width=WIDTH)
    parts = [f"# Command line\n\n```text\n{main.get_help(whole)}\n```"]
    for name, command in main.load_all().items():
        context = command.make_context(name, [], parent=whole, resilient_parsing=True, terminal_width=WIDTH)
        parts.append(f"## xchip {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def slug(title: str) -> str:
    """A title as part of a URL."""
    return title.lower().replace(" ", "-")
