"""The command line: what it writes, says and refuses, as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import geopandas
import pytest
from command_line import refused, run
from pandas.testing import assert_frame_equal

import xchip
from xchip.cli import main
from xchip.cli.commands import ENTRIES
from xchip.cli.info import _conditions
from xchip.cli.options import Commands, in_flags
from xchip.quality import BitField
from xchip.testing import write_scene


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return [write_scene(folder, item_id=f"synthetic-{seed}", seed=seed, shape=(512, 768), clouds=0.4) for seed in (1, 2)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder in which the demo ran, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-c", "from xchip.cli import main; main()", "demo", "--scenes", "2", "--pixels", "1024"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "indexed 2 of 2 scenes"
    return folder, done.stdout


# -- start ---------------------------------------------------------------------------------------------------------


def test_help_loads_no_library() -> None:
    script = """
import sys
from xchip.cli import main
main(["--help"], standalone_mode=False)
main(["index", "--help"], standalone_mode=False)
heavy = "rasterio dask distributed geopandas pyproj shapely stackstac pystac matplotlib fsspec tqdm".split()
print("loaded:", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "loaded: []" in done.stdout, done.stderr
    for word in ("demo", "index", "info", "merge", "status", "verify", "--version", "--max-cloud"):
        assert word in done.stdout


def test_help_lists_every_command_with_its_whole_first_sentence() -> None:
    shown = " ".join(run("--help").output.split())
    for name, command in main.load_all().items():
        sentence = " ".join((command.help or "").split()).partition(". ")[0].rstrip(".").split("; ")[0]
        assert f" {name} {sentence}" in shown
    assert "..." not in shown.partition("Start:")[2]
    extra = click.Command("extra", help="Of no section.")
    group = Commands("all", commands=[extra])
    assert "More: extra Of no section." in " ".join(group.get_help(click.Context(group)).split())


def test_version() -> None:
    assert run("--version").output.strip() == f"xchip, version {xchip.__version__}"


def test_entry_point_is_installed() -> None:
    done = subprocess.run([str(Path(sys.executable).parent / "xchip"), "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("xchip, version")


# -- demo ----------------------------------------------------------------------------------------------------------


def test_demo_leaves_scenes_index_and_pictures(demo: tuple[Path, str]) -> None:
    folder, said = demo
    rows = geopandas.read_parquet(folder / "xchip-demo" / "index.parquet")
    assert rows.groupby("item_id").size().to_dict() == {"synthetic-01": 16, "synthetic-02": 16}
    assert f"{len(rows)} chips; " in said
    assert "Synthetic scenes" in said
    for name in ("index.png", "chips.png"):
        assert (folder / "xchip-demo" / name).read_bytes().startswith(b"\x89PNG")
        assert f"xchip-demo/{name}" in said


def test_lines_that_the_demo_prints_do_the_same(demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, said = demo
    lines = said.split("The same in Python:")[1]
    monkeypatch.chdir(folder)
    before = geopandas.read_parquet("xchip-demo/index.parquet")
    names: dict[str, object] = {}
    exec(lines.replace("\n    ", "\n"), names)
    assert_frame_equal(geopandas.read_parquet("xchip-demo/index.parquet"), before)
    assert names["chips"].sizes["chip"] == len(names["clear"])


def test_demo_scenes_may_be_few_and_chips_not_square(tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path / "out", "--scenes", 1, "--pixels", 256, "--size", "64x128")
    assert result.exit_code == 0, result.output
    assert "(64, 128)" in result.output
    assert len(geopandas.read_parquet(tmp_path / "out" / "index.parquet")) == 8


def test_demo_with_chips_larger_than_scenes(tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path, "--scenes", 1, "--pixels", 256, "--size", 512)
    assert result.exit_code == 1
    message = "Error: chips of 512 pixels are larger than a scene of 256 x 256; use a smaller --size"
    assert result.stderr.splitlines()[-1] == message


# -- info ----------------------------------------------------------------------------------------------------------


def test_info_tells_facts_and_where_they_come_from(items: list[Path]) -> None:
    result = run("info", items[0])
    assert result.exit_code == 0, result.output
    said = {line.split()[0]: " ".join(line.split()) for line in result.stdout.splitlines() if line.split()}
    assert said["synthetic-1"] == "synthetic-1"
    assert said["CRS"] == "CRS EPSG:32719 (WGS 84 / UTM zone 19S) from proj:code of the item"
    assert said["grid"].startswith("grid 512 x 768 pixels of 10 x 10 m (height x width) from proj:")
    assert said["sensor"].startswith("sensor sentinel-2-l2a from ")
    assert said["scl"] == f"scl scl uint8 0 20 x 20 256 x 384 {items[0].parent / 'SCL.tif'}"
    assert said["CLOUD"] == "CLOUD values 8-10"
    assert said["CLEAR"] == "CLEAR all else"


def test_info_columns_are_aligned(items: list[Path]) -> None:
    lines = run("info", items[0]).stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:2] == ["name", "asset"])
    column = lines[start].index("dtype")
    assert {line[column - 2 : column] for line in lines[start : start + 6]} == {"  "}
    assert {line[column] for line in lines[start + 1 : start + 6]} == {"u"}


def test_info_goes_on_after_an_item_that_cannot_be_read(items: list[Path], tmp_path: Path) -> None:
    item = json.loads(items[0].read_text())
    del item["assets"]
    (tmp_path / "bad.json").write_text(json.dumps(item))
    result = run("info", tmp_path / "bad.json", tmp_path / "none.json", items[1])
    assert result.exit_code == 1
    assert result.stdout.startswith("synthetic-2")
    first, second = result.stderr.splitlines()
    assert "synthetic-1" in first
    assert "none.json" in second


def test_info_without_opening_says_what_only_the_file_knows(tmp_path: Path) -> None:
    item = json.loads(write_scene(tmp_path, shape=(64, 64)).read_text())
    for asset in item["assets"].values():
        del asset["proj:shape"], asset["proj:transform"]
    path = tmp_path / "synthetic-scene" / "synthetic-scene.json"
    path.write_text(json.dumps(item))
    refused(run("info", path, "--no-open"), "item 'synthetic-scene': .*leave out --no-open to open it")
    assert "64 x 64 pixels of 10 x 10 m" in run("info", path).stdout


def test_info_on_every_published_item_understands_or_refuses(real_data: Path) -> None:
    files = sorted(
        path for path in (real_data / "items").iterdir() if path.suffix in (".json", ".geojson", ".ndjson", ".parquet")
    )
    assert len(files) > 40
    understood = 0
    for path in files:
        result = run("info", "--no-open", path)
        assert result.exit_code in (0, 1), (path.name, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), (path.name, result.exception)
        errors = result.stderr.splitlines()
        assert all(line.startswith("Error: ") for line in errors), (path.name, errors)
        assert (result.exit_code == 1) == bool(errors)
        assert result.stdout or errors, path.name
        understood += result.exit_code == 0
    assert understood > 20


def test_info_on_every_scene_with_its_files(real_data: Path) -> None:
    paths = sorted((real_data / "rasters").glob("*/item.json"))
    assert paths
    for path in paths:
        result = run("info", path)
        assert result.exit_code == 0, result.output
        assert "  quality  from " in result.stdout


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ([3], "value 3"),
        ([8, 9], "values 8, 9"),
        ([1, 40, 41, 42, 43], "values 1, 40-43"),
        ([255, BitField(3, 1, 1)], "value 255, bit 3"),
        ([BitField(0, 2, 1), BitField(2, 1, 0)], "bits 0-1 = 01, bit 2 = 0"),
    ],
)
def test_conditions_read_well(conditions: list, text: str) -> None:
    assert _conditions(conditions) == text


# -- warnings ----------------------------------------------------------------------------------------------------------

WARNS = """
import logging, warnings
from xchip.cli.options import plain_warnings

words = " ".join(f"word-{n}" for n in range(30))
with plain_warnings():
    warnings.warn(f"first {words}")
    logging.getLogger("xchip").warning("second %s", words)
    logging.getLogger("xchip").info("nothing that users need")
"""


def on_a_terminal(source: str, columns: int) -> str:
    """What a script writes to stderr, where that is a terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", source], stderr=theirs, check=True, env={**os.environ, "COLUMNS": str(columns)})
        return os.read(ours, 65536).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_long_warnings_are_wrapped_on_a_terminal_only() -> None:
    words = " ".join(f"word-{n}" for n in range(30))
    lines = [f"Warning: first {words}", f"Warning: second {words}"]
    done = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == lines
    said = on_a_terminal(WARNS, 60)
    assert max(map(len, said.splitlines())) <= 60
    assert len(said.splitlines()) == 10
    assert said.split() == " ".join(lines).split()  # no word is broken, none is lost


def test_a_reader_that_has_read_enough_is_no_error(items: list[Path]) -> None:
    command = [str(Path(sys.executable).parent / "xchip"), "info", str(items[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as info:
        assert info.stdout is not None
        info.stdout.close()  # as `head -0`
        assert info.stderr is not None
        assert info.stderr.read() == ""


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--sensor")
@click.option("--edge")
@click.option("--size")
@click.option("--filter", "filters")
@click.option("--window")
@click.option("--copy/--no-copy")
@click.option("--harmonize", is_flag=True)
def some_command(**options: object) -> None:
    """Has the parameters that messages name."""


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("sensor='naip', or edge=\"pad\"", "--sensor naip, or --edge pad"),
        ("with size=8 (now 16)", "with --size 8 (now 16)"),
        ("pass size=-1.", "pass --size -1."),
        ("window='2 months'", "--window '2 months'"),
        ("copy=True, copy=False, copy=", "--copy, --no-copy, --copy"),
        ("harmonize=True, harmonize=False", "--harmonize, no --harmonize"),
        ("edge=None", "no --edge"),
        ("name them with filters=, or pass paths= to merge", "name them with --filter, or pass PATH... to merge"),
        *(
            (message, message)
            for message in (
                "anchor='crs' is not here",
                "size=[64, 64] (now [128, 128])",
                "harmonize={'item': -1000}",
                "edge=choose(1), edge=xchip.edge(1)",
                "/data/sensor=naip/part.parquet is damaged",
                "sensor=naip/part.parquet is damaged",
                "https://host/search?sensor=naip&size=8",
                "got 'sensor=naip'",
                "size==8",
            )
        ),
    ],
)
def test_messages_name_flags(message: str, shown: str) -> None:
    assert in_flags(message, some_command) == shown


# -- where nothing can be written --------------------------------------------------------------------------------------

WRITERS = {
    "index": ["{item}", "-o", "{place}/a.parquet"],
    "merge": ["{index}", "-o", "{place}/a.parquet"],
    "plot": ["{index}", "-o", "{place}/a.png"],
    "preview": ["{index}", "-o", "{place}/a.png"],
    "sample": ["{index}", "-n", "1", "-o", "{place}/a.parquet"],
    "split": ["{index}", "-o", "{place}/folder"],
    "audit": ["{index}", "--json", "{place}/a.json"],
    "series": ["{index}", "-o", "{place}/folder/a.parquet"],
    "stats": ["{index}", "-o", "{place}/a.yaml"],
}


@pytest.mark.parametrize("command", WRITERS)
def test_what_can_not_be_written_is_told_before_any_work(items: list[Path], tmp_path: Path, command: str) -> None:
    """The index is none, so that a command that began to work would complain of it."""
    (tmp_path / "place").write_text("a file")
    (tmp_path / "index.parquet").write_text("no index")
    names = {"item": items[0], "index": tmp_path / "index.parquet", "place": tmp_path / "place"}
    refused(run(command, *(word.format(**names) for word in WRITERS[command])), "can't write '.*place.*' is a file, not a folder")
    assert (tmp_path / "place").read_text() == "a file"
    (tmp_path / "place").unlink()
    (tmp_path / "place").mkdir(mode=0o500)
    if not os.access(tmp_path / "place", os.W_OK):  # root may write everywhere
        refused(
            run(command, *(word.format(**names) for word in WRITERS[command])), "no permission to write in the folder '.*place'"
        )


def test_the_list_of_commands_says_what_each_command_says() -> None:
    for name, command in main.load_all().items():
        assert ENTRIES[name].summary == command.get_short_help_str(1000)
        assert command.name == name


def test_help_loads_no_command() -> None:
    code = (
        "import sys; from xchip.cli import main; main(['--help'], standalone_mode=False);"
        "print([name for name in sys.modules if name.startswith('xchip.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "['xchip.cli.commands', 'xchip.cli.options']"
