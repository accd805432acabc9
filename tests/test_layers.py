"""The layout of the package: a folder is a layer, data flow one way, and no folder hides a public name."""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
import sys
import types
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import xchip
from xchip.core.scene import Band, Scene
from xchip.testing import write_scene

PACKAGE = Path(xchip.__file__).parent

# From the bottom up: a module imports from its own entry and from those above it in this list. Imports inside functions and
# under TYPE_CHECKING count too. Sub-folders of a folder stand beside it, in their own order.
LAYERS = (
    "core",
    "quality",  # the public module; it re-exports
    "sensors",
    "io",
    "testing",
    "raster",
    "stac",
    "stac.api",
    "stac.scene",
    "stac.stack",
    "indexing",
    "indexing.stacchip",
    "indexing.explain",
    "indexing.files",
    "indexing.archive",
    "indexing.opening",
    "indexing.merge",
    "chips",
    "chips.train",
    "selection",
    "export",
    "plots",
    "processors",
    "accessor",
    "cli",
)
MOST_ENTRIES = 18


def module_names() -> dict[str, Path]:
    """Path of each module, by its name below ``xchip``; the package itself is left out."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = path
    del names[""]
    return names


MODULES = module_names()


def layer_of(module: str) -> int:
    """Number of the layer of a module: that of its folder, or its own where it stands at the top."""
    path = MODULES[module]
    folder = ".".join(path.relative_to(PACKAGE).parent.parts) or module
    assert folder in LAYERS, f"xchip/{folder} is not in the list LAYERS of {Path(__file__).name}: where does it belong?"
    return LAYERS.index(folder)


def imports_of(module: str) -> Iterator[str]:
    """Modules of the package that a module imports, wherever the import stands; "" for the package itself."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute here"
            if node.module and node.module.partition(".")[0] == "xchip":
                base = node.module.removeprefix("xchip").lstrip(".")
                for alias in node.names:
                    whole = f"{base}.{alias.name}".lstrip(".")
                    yield whole if whole in MODULES else base
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("xchip").lstrip(".") for alias in node.names if alias.name.partition(".")[0] == "xchip"
            )


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_its_layer_and_those_below(module: str) -> None:
    own = layer_of(module)
    for imported in imports_of(module):
        if imported == "":
            # The package itself is what users import.
            assert LAYERS[own] == "cli", f"{module} imports the whole package"
            continue
        assert layer_of(imported) <= own, f"{LAYERS[own]} imports xchip.{imported}, which is in a layer above it"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: {name for name in imports_of(module) if name and name != module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import one another: {' <- '.join(error.args[1])}")


def test_few_entries_stand_at_the_top() -> None:
    entries = {
        path.name
        for path in PACKAGE.iterdir()
        if path.name not in ("__init__.py", "py.typed", "__pycache__") and (path.suffix == ".py" or path.is_dir())
    }
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_every_folder_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(PACKAGE.parent)} has no docstring"


def test_no_module_hides_a_public_name() -> None:
    for found in pkgutil.walk_packages(xchip.__path__, "xchip."):
        importlib.import_module(found.name)
    modules = {"processors", "quality", "sensors"}
    for name in xchip.__all__:
        value = getattr(xchip, name)
        assert isinstance(value, types.ModuleType) == (name in modules), f"xchip.{name} is {value!r}"


def test_index_is_a_method_and_the_error_says_so() -> None:
    with pytest.raises(AttributeError, match=r"ds\.chips\.index\(\).*xchip\.index_items"):
        xchip.index  # noqa: B018


def folders_of_an_item(item_id: str, index: Any) -> tuple[set[str], list[str]]:
    """(folders that run while ``index`` is made and computed, those whose functions get the item itself, as it comes to them).

    The item is its JSON, its Scene, a Band of that, or a value with one of these.
    """
    entered: set[str] = set()
    way: dict[str, None] = {}  # file:function, in the order of first calls

    def is_item(value: Any) -> bool:
        if isinstance(value, dict):
            return value.get("id") == item_id and "assets" in value
        return isinstance(value, Scene | Band) or any(
            isinstance(getattr(value, name, None), Scene | Band) for name in ("scene", "band")
        )

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(f"{PACKAGE}/") or code.co_name == "<module>":
            return
        parts = Path(code.co_filename).relative_to(PACKAGE).parts
        if len(parts) == 1:
            return  # the package itself, which looks names up
        entered.add(parts[0])
        if any(is_item(frame.f_locals.get(name)) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]):
            way.setdefault(f"{parts[0]}/{code.co_qualname}")

    sys.setprofile(profile)
    try:
        index().compute(scheduler="sync")
    finally:
        sys.setprofile(None)
    return entered, [name.partition("/")[0] for name in way]


def test_an_item_goes_to_its_table_without_detours(tmp_path: Path) -> None:
    xchip.index_items(write_scene(tmp_path, shape=(256, 256)), 128).compute()  # imports what is imported when it is used
    item = write_scene(tmp_path, item_id="traced", shape=(512, 256))
    entered, way = folders_of_an_item("traced", lambda: xchip.index_items(item, 128))
    assert entered == {"io", "stac", "sensors", "raster", "core", "indexing"}
    levels = [LAYERS.index(folder) for number, folder in enumerate(way) if number == 0 or way[number - 1] != folder]
    upwards = [after > before for before, after in itertools.pairwise(levels)]
    assert "raster" in way
    assert sum(one != other for one, other in itertools.pairwise(upwards)) <= 4, way
