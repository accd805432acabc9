"""show_versions: everything that a bug report needs, and no secret."""

from __future__ import annotations

import io
import os
import platform
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pyproj
import pytest
import rasterio
import shapely
from command_line import run
from packaging.requirements import Requirement

import xchip

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"all", "test", "servers", "lint", "docs"}


def told() -> dict[str, dict[str, str]]:
    """Section -> name -> what is said of it."""
    file = io.StringIO()
    xchip.show_versions(file)
    sections: dict[str, dict[str, str]] = {}
    for number, block in enumerate(file.getvalue().strip().split("\n\n")):
        title, *lines = block.splitlines() if number else ["", *block.splitlines()]
        sections[title] = dict(line.partition(": ")[::2] for line in lines)
    return sections


def test_it_says_which_xchip_python_and_system() -> None:
    general = told()[""]
    assert general["xchip"] == xchip.__version__
    assert general["Python"].startswith(f"{platform.python_version()} (")
    assert general["system"] == platform.platform()
    assert re.fullmatch(rf"\d+ usable of {os.cpu_count()}", general["CPUs"])


def test_it_says_each_copy_of_gdal_proj_and_geos() -> None:
    assert told()["Libraries"] == {
        "GDAL (rasterio)": rasterio.__gdal_version__,
        "PROJ (rasterio)": rasterio.__proj_version__,
        "PROJ (pyproj)": pyproj.proj_version_str,
        "GEOS (rasterio)": rasterio.__geos_version__,
        "GEOS (shapely)": shapely.geos_version_string,
    }


def test_it_lists_every_dependency_and_the_extras_for_users() -> None:
    sections = told()
    wanted = {Requirement(line).name: metadata.version(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert sections["Packages"] == wanted
    extras = {
        f"{Requirement(line).name} ({extra})"
        for extra, lines in PROJECT["optional-dependencies"].items()
        if extra not in FOR_DEVELOPERS
        for line in lines
    }
    assert set(sections["Extras"]) == extras


def test_it_says_what_is_not_installed_and_what_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version

    def version(name: str) -> str:
        if name == "zarr":
            raise metadata.PackageNotFoundError(name)
        return "1.26.4" if name == "numpy" else installed(name)

    monkeypatch.setattr(metadata, "version", version)
    sections = told()
    assert sections["Extras"]["zarr (zarr)"] == "not installed"
    assert sections["Packages"]["numpy"] == "1.26.4 (xchip needs >=2.0)"
    assert sections["Packages"]["xarray"] == installed("xarray")


def test_it_says_what_can_not_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    libraries = told()["Libraries"]
    assert libraries["GDAL (rasterio)"].startswith("can't be imported: import of rasterio halted")
    assert libraries["GEOS (shapely)"] == shapely.geos_version_string


def test_it_works_where_xchip_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> metadata.PackageMetadata:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", nothing)
    sections = told()
    assert sections["Packages"] == sections["Extras"] == {}
    assert sections["Libraries"]["GDAL (rasterio)"] == rasterio.__gdal_version__


def test_it_prints_names_of_environment_variables_and_never_a_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "hush-1", "XCHIP_INDEX_SIZE": "hush-2", "https_proxy": "http://hush-3@host"}
    for name in list(os.environ):
        if name != "PATH":
            monkeypatch.delenv(name)
    for name, value in {**secrets, "EDITOR": "hush-4"}.items():
        monkeypatch.setenv(name, value)
    assert [*told()["Environment variables that are set"]] == sorted(secrets)
    xchip.show_versions()
    assert "hush" not in capsys.readouterr().out
    for name in secrets:
        monkeypatch.delenv(name)
    assert [*told()["Environment variables that are set"]] == ["none"]


def test_it_prints_to_a_file_alone(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    xchip.show_versions(file)
    assert capsys.readouterr().out == ""
    xchip.show_versions()
    assert capsys.readouterr().out == file.getvalue()


def test_the_command_prints_the_same() -> None:
    result = run("versions")
    assert result.exit_code == 0, result.output
    file = io.StringIO()
    xchip.show_versions(file)
    assert result.output == file.getvalue()
