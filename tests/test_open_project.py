"""What contributors and GitHub read: workflows, templates and guides agree with the project and with each other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = "https://github.com/xchip-dev/xchip"
DOCUMENTATION = "https://xchip.readthedocs.io"
SIDE_BY_SIDE = "-m pytest -n logical --dist worksteal"
PATH = re.compile(r"(?<![\w/.-])(?:\.?[\w-]+/)+[\w.-]*|(?<![\w/.-])[\w-]+\.(?:md|toml|yml|yaml)\b")
"""A path in a text: with a folder, or a file of a known kind."""


def read(path: Path) -> dict[str, Any]:
    """A YAML file, all scalars as text: so the key ``on`` is not a boolean."""
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


WORKFLOWS = {path.stem: read(path) for path in (GITHUB / "workflows").glob("*.yml")}
FORMS = {path.stem: read(path) for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"}


def steps(workflow: str) -> Iterator[dict[str, Any]]:
    for job in WORKFLOWS[workflow]["jobs"].values():
        yield from job.get("steps", [])


def scripts(workflow: str) -> str:
    return "\n".join(step["run"] for step in steps(workflow) if "run" in step)


def supported() -> list[str]:
    prefix = "Programming Language :: Python :: "
    return [name.removeprefix(prefix) for name in PROJECT["classifiers"] if name.startswith(f"{prefix}3.")]


# Workflows


def test_there_are_workflows_for_tests_documentation_upstream_and_releases() -> None:
    assert set(WORKFLOWS) == {"tests", "docs", "upstream-dev", "release"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read_and_ends_in_time(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    for title, job in WORKFLOWS[name]["jobs"].items():
        wanted = {"id-token": "write"} if (name, title) == ("release", "publish") else None
        assert job.get("permissions") == wanted, title
        assert "uses" in job or int(job["timeout-minutes"]) <= 90, title


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_of_a_major_version_and_leave_no_credentials(name: str) -> None:
    for step in steps(name):
        if action := step.get("uses"):
            assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action), action
            assert not action.startswith("actions/checkout@") or step["with"]["persist-credentials"] == "false"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_files_that_a_workflow_uses_are_there(name: str) -> None:
    for path in re.findall(r"(?<![\w/])\.(?:ci|docs)/[\w./-]+", scripts(name)):
        assert (ROOT / path).is_file(), path
    for job in WORKFLOWS[name]["jobs"].values():
        assert "uses" not in job or (ROOT / job["uses"]).is_file()


def test_tests_run_on_every_supported_python_and_on_the_oldest_packages() -> None:
    jobs = WORKFLOWS["tests"]["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python-version"] == supported()
    assert supported()[-1] == "3.14"
    assert "--resolution=lowest-direct" in scripts("tests")
    (oldest,) = (step["with"]["python-version"] for step in jobs["oldest"]["steps"] if "setup-python" in step.get("uses", ""))
    assert oldest == supported()[0]


@pytest.mark.parametrize("name", ["tests", "upstream-dev"])
def test_tests_run_side_by_side_as_in_the_readme(name: str) -> None:
    lines = [line for line in scripts(name).splitlines() if "pytest" in line]
    assert lines
    assert all(SIDE_BY_SIDE in line for line in lines)
    assert any(line.endswith(SIDE_BY_SIDE) for line in (ROOT / "README.md").read_text().splitlines())


def test_development_versions_are_tried_on_a_schedule_and_by_a_label() -> None:
    workflow = WORKFLOWS["upstream-dev"]
    assert {"schedule", "pull_request", "workflow_dispatch"} <= set(workflow["on"])
    assert "labeled" in workflow["on"]["pull_request"]["types"]
    (job,) = workflow["jobs"].values()
    assert "'upstream-dev'" in job["if"]
    (development,) = (step["run"] for step in job["steps"] if step.get("name") == "Development versions")
    assert {"xarray", "zarr", "pandas"} <= set(development.split())
    assert re.findall(r"git\+https://github\.com/dask/(\w+)", development) == ["dask", "distributed"]


def test_the_documentation_is_built_alike_everywhere() -> None:
    hosted = read(ROOT / ".readthedocs.yaml")
    assert (ROOT / hosted["mkdocs"]["configuration"]).is_file()
    assert hosted["mkdocs"]["fail_on_warning"] == "true"
    assert hosted["python"]["install"] == [{"method": "pip", "path": ".", "extra_requirements": ["docs"]}]
    assert f"mkdocs build --strict -f {hosted['mkdocs']['configuration']}" in scripts("docs")
    (python,) = (step["with"]["python-version"] for step in steps("docs") if "setup-python" in step.get("uses", ""))
    assert python == hosted["build"]["tools"]["python"]


def test_a_tag_is_published_after_its_tests_without_a_password() -> None:
    workflow = WORKFLOWS["release"]
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    publish = workflow["jobs"]["publish"]
    assert set(publish["needs"]) == {"tests", "build"}
    assert publish["environment"]["name"] == "pypi"
    assert publish["steps"][-1]["with"] == {"attestations": "true"}
    (checkout,) = (step for step in workflow["jobs"]["build"]["steps"] if "checkout" in step.get("uses", ""))
    assert checkout["with"]["fetch-depth"] == "0", "without tags there is no version"


def test_pre_commit_formats_and_checks_with_ruff() -> None:
    hooks = {hook["id"] for repository in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]}
    assert {"ruff-check", "ruff-format", "check-toml", "check-yaml", "check-added-large-files"} <= hooks


# Templates and guides


def test_there_is_a_form_for_bugs_features_and_products() -> None:
    assert set(FORMS) == {"bug", "feature", "product"}
    for name in ("bug", "product"):
        (versions,) = (field for field in FORMS[name]["body"] if field.get("id") == "versions")
        assert "`xchip.show_versions()`" in versions["attributes"]["description"]
        assert versions["validations"]["required"] == "true"


@pytest.mark.parametrize("name", ["CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT", "PULL_REQUEST_TEMPLATE"])
def test_links_and_paths_of_a_guide_lead_somewhere(name: str) -> None:
    text = (GITHUB / f"{name}.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)|<(https?:[^>]+)>", text)
    for link in (one or other for one, other in links):
        assert link.startswith(("https://", "#")) or (GITHUB / link).is_file(), link
    code = " ".join(re.findall(r"`+[^`]+`+", re.sub(r"https?://[^\s)>`]+", "", text)))
    for path in PATH.findall(code):
        if path != "xchip-dev/xchip" and not path.startswith(".venv/"):
            assert any((place / path).exists() for place in (ROOT, GITHUB / "workflows")), path


def test_the_addresses_of_the_project_are_the_same_everywhere() -> None:
    urls = PROJECT["urls"]
    assert urls["Source"] == urls["Homepage"] == REPOSITORY
    assert urls["Issues"] == f"{REPOSITORY}/issues"
    assert urls["Documentation"] == DOCUMENTATION
    assert urls["Changelog"].startswith(f"{DOCUMENTATION}/")
    folders = [path for pattern in (".github/**/*", ".docs/**/*") for path in ROOT.glob(pattern)]
    for path in [*folders, ROOT / "README.md", ROOT / "pyproject.toml"]:
        if path.suffix in {".md", ".yml", ".toml", ".py"}:
            text = path.read_text()
            for address in re.findall(r"https://github\.com/[\w-]+/xchip(?![\w-])", text):
                assert address == REPOSITORY, path
            for address in re.findall(r"https://xchip[\w.-]*\.(?:io|org|dev)\b", text):
                assert address == DOCUMENTATION, path


def test_the_changelog_begins_with_changed_defaults_and_has_a_place_for_what_comes() -> None:
    text = (ROOT / ".docs" / "pages" / "changelog.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[:2] == ["Changed defaults", "Unreleased"]
    assert "| behaviour | before | now | why |\n" in text.partition("## Unreleased")[0]
