"""examples/aws-batch: what the Dockerfile and the job definitions say is what the command line and the package know."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import run, settled
from stacchip_data import merged_table, store_item

from xchip.cli import main
from xchip.cli.options import INTERRUPTED, PROBLEMS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "aws-batch"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEFINITIONS = ("sentinel-2.json", "prechip.json")
READ_BY_TOOLS = {"AWS_REGION"}
"""Variables of no command: botocore and GDAL read them."""


def instructions() -> list[tuple[str, str]]:
    """(instruction, what follows) of each line of the Dockerfile, continued lines joined."""
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def of(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found


def environment(name: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in definition(name)["containerProperties"]["environment"]}


def command_of(name: str) -> tuple[click.Command, list[str]]:
    """The command that a definition runs, and the words that follow."""
    words = [*json.loads(of("ENTRYPOINT")[0]), *definition(name)["containerProperties"]["command"]]
    assert words[0] in PROJECT["scripts"]
    return main.load_all()[words[1]], words[2:]


def variables(command: click.Command) -> set[str]:
    """All that a command reads."""
    found = set()
    for parameter in command.params:
        known = parameter.envvar or []
        found |= {known} if isinstance(known, str) else set(known)
        found.add(f"XCHIP_{command.name}_{parameter.name}".upper().replace("-", "_"))
    return found


def test_the_image_is_built_of_files_that_are_there() -> None:
    assert instructions()[0][0] == "FROM"
    python = re.fullmatch(r"python:(\d+)\.(\d+)-slim", of("FROM")[0])
    assert python is not None
    assert (int(python[1]), int(python[2])) >= tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    copied = set()
    for line in of("COPY"):
        *sources, target = line.split()
        assert all((ROOT / source).exists() for source in sources)
        assert target.startswith("/src/")
        copied |= set(sources)
    # What hatchling needs to build the wheel.
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "xchip"} <= copied


def test_the_image_has_the_extras_that_the_processors_need() -> None:
    (install,) = [line for line in of("RUN") if "pip install" in line]
    words = shlex.split(install)
    (target,) = [word for word in words if word.startswith("/src[")]
    extras = re.fullmatch(r"/src\[(.+)\]", target)
    assert extras is not None
    named = set(extras[1].split(","))
    assert named <= set(PROJECT["optional-dependencies"])
    assert named >= {"s3", "planetary-computer"}


def test_the_entry_point_is_a_program_of_the_package_and_says_how_to_use_it() -> None:
    program = json.loads(of("ENTRYPOINT")[0])
    assert program == ["xchip"]
    result = run(*json.loads(of("CMD")[0]))
    assert result.exit_code == 0
    assert {"sentinel-2", "prechip"} <= set(re.findall(r"^  ([a-z][\w-]*)", result.output, re.MULTILINE))


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_job_runs_a_command_that_reads_its_variables(name: str) -> None:
    command, words = command_of(name)
    context = command.make_context(command.name, words, resilient_parsing=True)
    assert context.args == []
    assert set(environment(name)) - READ_BY_TOOLS <= variables(command)
    assert "AWS_BATCH_JOB_ARRAY_INDEX" in variables(command)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_settings_of_a_job_are_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [one for one in os.environ if one.startswith(("AWS_", "XCHIP_", "STACCHIP_"))]:
        monkeypatch.delenv(variable)
    command, words = command_of(name)
    given = settled(str(command.name), words, environment(name) | {"AWS_BATCH_JOB_ARRAY_INDEX": "7"})
    if name == "prechip.json":
        assert (given["job"], given["cubes_per_job"], given["threads"], given["max_nodata"]) == (7, 10, 8, 0.05)
        assert (given["index"], given["chip_bucket"]) == ("s3://my-data-bucket", "my-chip-bucket")
        assert (given["platform"], given["max_cloud"]) == ("sentinel-2-l2a", 0.1)
    else:
        assert (given["index"], given["bucket"], given["threads"]) == ((7,), "my-data-bucket", 4)
        assert given["source"].endswith("mgrs.gpkg")


def test_prechip_runs_with_the_definition_but_for_its_places(tmp_path: Path) -> None:
    item = store_item(tmp_path, str(tmp_path), "sentinel-2-l2a", 1)
    index = merged_table([item], tmp_path / "index.parquet")
    places = {"STACCHIP_INDEXPATH": str(index), "STACCHIP_CHIP_BUCKET": str(tmp_path / "cubes")}
    places |= {"STACCHIP_DATA_BUCKET": str(tmp_path), "AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "20"}
    result = run("prechip", env=environment("prechip.json") | places)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "cubes").rglob("*.npz")] == ["cube_0.npz"]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_definition_has_what_batch_asks_for(name: str) -> None:
    found = definition(name)
    assert found["type"] == "container"
    properties = found["containerProperties"]
    assert {one["type"] for one in properties["resourceRequirements"]} == {"VCPU", "MEMORY"}
    assert all(isinstance(one["value"], str) and int(one["value"]) > 0 for one in properties["resourceRequirements"])
    assert all(set(one) == {"name", "value"} and isinstance(one["value"], str) for one in properties["environment"])
    rules = {one["onExitCode"]: one["action"] for one in found["retryStrategy"]["evaluateOnExit"] if "onExitCode" in one}
    assert rules == {str(INTERRUPTED): "RETRY", str(PROBLEMS): "RETRY", "*": "EXIT"}
    assert 1 <= found["retryStrategy"]["attempts"] <= 10
    job = definition(f"submit-{name}")
    assert set(job) == {"jobName", "jobQueue", "jobDefinition", "arrayProperties"}
    assert job["jobDefinition"] == found["jobDefinitionName"]
    assert 2 <= job["arrayProperties"]["size"] <= 10_000


def test_all_files_are_named_where_people_look() -> None:
    text = (FOLDER / "README.md").read_text()
    assert all(f"`{path.name}`" in text for path in FOLDER.iterdir() if path.name != "README.md")
    for path in re.findall(r"examples/aws-batch/[\w./-]+", text):
        assert (ROOT / path).is_file()
    for place in (ROOT / "README.md", ROOT / "examples" / "7_aws_batch.py"):
        assert "aws-batch/" in place.read_text()


def test_scripts_are_commands() -> None:
    """stacchip-landsat is xchip-landsat, and so on."""
    for script, target in PROJECT["scripts"].items():
        if script != "xchip":
            assert target == "xchip.cli:script"
            assert script.removeprefix("xchip-") in main.load_all()
    stacchips = {"sentinel-1", "sentinel-2", "landsat", "naip", "linz", "modis", "prechip", "stats"}
    assert stacchips <= {script.removeprefix("xchip-") for script in PROJECT["scripts"]}
