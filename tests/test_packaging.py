"""What is built and installed: a wheel from each kind of source, and the version that it gets."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

import xchip

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FALLBACK = PROJECT["tool"]["hatch"]["version"]["fallback-version"]
"""The version of a source that has neither git nor a tag."""
SOURCE = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", ".gitattributes", ".git_archival.txt")
"""Files that a build needs beside the package."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the sources, without git."""
    missing = [name for name in ("hatchling", "hatch_vcs") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"a build needs {' and '.join(missing)}: install xchip[test]")
    folder = tmp_path / "source"
    shutil.copytree(ROOT / "xchip", folder / "xchip", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCE:
        shutil.copy(ROOT / name, folder / name)
    return folder


def git(folder: Path, *arguments: str) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    names = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)


def clone(folder: Path) -> None:
    """Make the sources a checkout of one commit, without tags."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All")


def build(folder: Path) -> zipfile.Path:
    """The wheel that is built there, without network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder.parent / "dist")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder.parent / "dist").glob("*.whl")
    return zipfile.Path(wheel)


def version_of(wheel: zipfile.Path) -> str:
    (information,) = (entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info"))
    return Parser().parsestr((information / "METADATA").read_text())["Version"]


@pytest.mark.once
def test_a_copy_without_git_is_built_whole_with_the_fallback_version(source: Path) -> None:
    wheel = build(source)
    assert version_of(wheel) == FALLBACK
    package = {str(path.relative_to(source)) for path in (source / "xchip").rglob("*") if path.is_file()}
    assert package <= set(wheel.root.namelist())
    tops = {name.partition("/")[0] for name in wheel.root.namelist()}
    assert tops == {"xchip", f"xchip-{FALLBACK}.dist-info"}


@pytest.mark.once
def test_a_clone_without_tags_is_a_development_version(source: Path) -> None:
    clone(source)
    version = Version(version_of(build(source)))
    assert version.is_devrelease
    assert Version(version.base_version) >= Version(FALLBACK)
    assert version.local is None


@pytest.mark.once
def test_a_tag_is_the_version(source: Path) -> None:
    clone(source)
    git(source, "tag", "v7.8.9")
    assert version_of(build(source)) == "7.8.9"


@pytest.mark.once
def test_after_a_tag_comes_a_development_version_of_the_next_that_names_no_commit(source: Path) -> None:
    clone(source)
    git(source, "tag", "v7.8.9")
    git(source, "commit", "--quiet", "--allow-empty", "--message", "More")
    (source / "README.md").write_text("changed, and not committed")
    version = version_of(build(source))
    assert re.fullmatch(r"7\.8\.10\.dev\d+", version), version


@pytest.mark.once
@pytest.mark.parametrize(("tag", "version"), [("v7.8.9", "7.8.9"), (None, FALLBACK)])
def test_an_archive_of_a_commit_has_the_version_of_its_tag(source: Path, tmp_path: Path, tag: str | None, version: str) -> None:
    clone(source)
    if tag:
        git(source, "tag", tag)
    git(source, "archive", "--output", str(tmp_path / "source.zip"), "HEAD")
    shutil.unpack_archive(tmp_path / "source.zip", tmp_path / "unpacked")
    assert version_of(build(tmp_path / "unpacked")) == version


def test_the_version_is_that_of_the_installed_package() -> None:
    assert xchip.__version__ == metadata.version("xchip")
    assert Version(xchip.__version__).local is None


def test_there_is_a_version_where_nothing_is_installed() -> None:
    code = f"import runpy; print(runpy.run_path({str(ROOT / 'xchip/core/version.py')!r})['VERSION'])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "0+unknown"
