"""The project as a whole: packaging, files of the checkout, and what is imported when."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xchip"

# What users see in a checkout; all else at the top begins with a dot.
TOP_LEVEL = {"pyproject.toml", "xchip", "tests", "examples", "environment.yml", "README.md", "LICENSE"}
# Folders of the machines that the project is developed on; written so that this file does not hold them itself.
MACHINE_PATH = re.compile(rb"/(?:work|farm|root|Users|tmp/bash_jobs)/")
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?:\[[^]]*\])?(?P<bounds>.*)")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files that git tracks or would track."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing says which files belong to the project")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def run_python(code: str) -> str:
    """What ``code`` prints in a fresh process."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def bounds_by_name(requirements: list[str]) -> dict[str, str]:
    """``numpy>=2.0`` -> ``{"numpy": ">=2.0"}``; extras in brackets are left out."""
    matches = [REQUIREMENT.fullmatch(requirement.replace(" ", "")) for requirement in requirements]
    return {match["name"].lower().replace("_", "-"): match["bounds"] for match in matches if match}


# Packaging


def test_environment_has_the_dependencies_of_pyproject_with_their_bounds(pyproject: dict[str, Any]) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = bounds_by_name([line for line in environment["dependencies"] if isinstance(line, str)])
    project = pyproject["project"]
    wanted = bounds_by_name(project["dependencies"])
    assert {name: conda.get(name) for name in wanted} == wanted
    assert conda.pop("python") == project["requires-python"]
    conda.pop("pip")
    extras = bounds_by_name([*project["optional-dependencies"]["plot"], *project["optional-dependencies"]["fast"]])
    assert conda == wanted | extras, "environment.yml has a package that pyproject.toml does not ask for"


def test_environment_takes_from_pip_only_the_project_itself() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert [line for line in environment["dependencies"] if isinstance(line, dict)] == [{"pip": ["-e ."]}]


def test_the_extra_all_is_the_union_of_the_extras_for_users(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = re.fullmatch(r"xchip\[(.*)\]", everything)
    assert named is not None
    assert set(named[1].split(",")) == set(extras) - {"all", "test", "servers", "lint", "docs"}


def test_the_oldest_python_is_the_same_everywhere(pyproject: dict[str, Any]) -> None:
    prefix = "Programming Language :: Python :: 3."
    minors = [int(name.removeprefix(prefix)) for name in pyproject["project"]["classifiers"] if name.startswith(prefix)]
    assert pyproject["project"]["requires-python"] == f">=3.{min(minors)}"
    assert pyproject["tool"]["mypy"]["python_version"] == f"3.{min(minors)}"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines()]
    commands = [line for line in lines if re.search(r"-m venv .* -m pytest\b", line)]
    assert commands, "the README has no command that makes an environment and runs the tests in it"
    assert all(command.endswith("-m pytest -n logical --dist worksteal") for command in commands), commands
    ci = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert all(command in ci for command in commands)


def test_pytest_alone_starts_no_other_processes(pyproject: dict[str, Any]) -> None:
    assert not re.search(r"-n\b|--numprocesses|--dist", pyproject["tool"]["pytest"]["ini_options"]["addopts"])


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


# The checkout


def test_top_level_names(tracked: list[Path]) -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_no_file_names_a_folder_of_one_machine(tracked: list[Path]) -> None:
    found = {str(path.relative_to(ROOT)): MACHINE_PATH.findall(path.read_bytes()) for path in tracked}
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_real_data_are_small_and_each_file_has_its_source_and_licence() -> None:
    data = ROOT / "tests" / "data"
    assert sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) < 15e6
    rows = re.findall(r"^\| `([^`]+)` \| [^|]+ \| `[^`]+:[^`]+` \| \w[^|]+ \|", (data / "README.md").read_text(), re.MULTILINE)
    there = {path.name + "/" * path.is_dir() for folder in ("items", "rasters") for path in (data / folder).iterdir()}
    assert sorted(rows) == sorted(there)


# What is imported when


def test_import_xchip_loads_nothing_heavy_and_no_more_than_xarray_does() -> None:
    heavy = (
        "matplotlib torch distributed dask pystac pystac_client stackstac rasterio rioxarray geopandas dask_geopandas shapely "
        "pyproj fsspec s3fs zarr click tqdm pyarrow.dataset pyarrow.parquet"
    )
    code = (
        "import sys, xarray\n"
        "before = set(sys.modules)\n"
        "import xchip\n"
        "added = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(added - sys.stdlib_module_names))\n"
        f"print(*[name for name in '{heavy}'.split() if name in sys.modules])"
    )
    assert run_python(code).splitlines() == ["xchip", ""], "what xchip adds, and what is heavy of all that there is"


def test_an_index_is_written_without_loading_distributed(tmp_path: Path) -> None:
    code = (
        "import sys, dask, xchip, xchip.testing\n"
        f"items = [xchip.testing.write_scene({str(tmp_path)!r}, item_id=name, shape=(256, 256)) for name in 'ab']\n"
        "for number, names in enumerate((items[:1], items)):\n"
        f"    xchip.write_index(xchip.index_items(names, 128), {str(tmp_path)!r} + f'/{{number}}.parquet')\n"
        "with dask.config.set(scheduler='threads'):\n"
        f"    xchip.write_index(xchip.index_items(items, 128), {str(tmp_path)!r} + '/parts')\n"
        "print('distributed' in sys.modules)"
    )
    assert run_python(code).strip() == "False"


def test_every_public_name_can_be_had() -> None:
    import xchip

    for name in xchip.__all__:
        assert getattr(xchip, name) is not None
    assert set(xchip.__all__) <= set(dir(xchip))


def test_help_of_the_command_line() -> None:
    script = Path(sys.executable).with_name("xchip")
    done = subprocess.run([script, "--help"], check=True, capture_output=True, text=True)
    assert {"demo", "index", "info"} <= set(re.findall(r"^  (\w+)", done.stdout, re.MULTILINE))
