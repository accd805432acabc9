"""Known faults of stacchip 0.1.38, where each is, and the tests that show that xchip does it right."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Fault:
    """A fault of stacchip's."""

    what: str
    """What goes wrong there."""
    where: str
    """Module and name in the package stacchip."""
    tests: tuple[str, ...]
    """Node ids below tests/, without parameters."""


_S2, _LANDSAT, _S1 = (f"processors.{name}_processor" for name in ("sentinel_2", "landsat", "sentinel_1"))

FAULTS = {
    "cloud limit of Sentinel-2": Fault(
        "the limit is 0.75, and the catalogue's cloud cover a percentage: scenes with more than 0.75 % cloud are dropped",
        f"{_S2}:ABSOLUTE_CLOUD_COVER_FILTER",
        ("test_processors.py::test_sentinel_2_takes_the_least_cloudy_scene_of_each_quarter_of_two_years",
         "test_processors.py::test_sentinel_2_from_search_to_index"),
    ),
    "bands of Landsat level 1": Fault(
        "an asset is dropped unless it is in the list of level 2 as well: pan and thermal bands go",
        f"{_LANDSAT}:process_landsat_tile",
        ("test_processors.py::test_level_1_keeps_pan_and_thermal_bands",
         "test_processors.py::test_landsat_from_search_to_index"),
    ),
    "years of Landsat": Fault(
        "the generator is seeded anew for each level, so both are of the same year",
        f"{_LANDSAT}:process_landsat_tile",
        ("test_processors.py::test_landsat_takes_level_1_in_one_year_and_level_2_in_another",),
    ),
    "place of Sentinel-1": Fault(
        "the condition on place is commented out: a scene of anywhere on Earth is taken for the tile",
        f"{_S1}:process_mgrs_tile",
        ("test_processors.py::test_sentinel_1_is_searched_where_the_tile_is",
         "test_processors.py::test_sentinel_1_from_search_to_index"),
    ),
    "bits of MODIS": Fault(
        "the two bits of the quality flags are read in the wrong order: 01, pixels of lesser quality, counts as cloud, and 10, "
        "not produced for clouds, as clear",
        "indexer:ModisIndexer.get_stats",
        ("test_modis.py::test_two_bits_of_the_quality_flags_are_not_the_other_way_round",
         "test_modis.py::test_flags_are_read_as_the_user_guide_has_them"),
    ),
    "prechip draws with replacement": Fault(
        "rows are random integers: about a third of the chips are in no cube, and others are in several",
        "processors.prechip:process",
        ("test_exports.py::test_each_chip_is_in_one_cube_and_none_is_left_out",
         "test_exports.py::test_pools_are_a_permutation_in_whole_files",
         "test_stacchip_contract.py::test_jobs_are_disjoint_and_are_all",
         "test_stacchip_contract.py::test_an_array_job_of_stacchip_runs_as_it_is"),
    ),
    "prechip drops the last chips": Fault(
        "a cube that would not be full is not written",
        "processors.prechip:process",
        ("test_exports.py::test_each_chip_is_in_one_cube_and_none_is_left_out",),
    ),
    "constant hour": Fault(
        "a datetime is a date too, so every chip is said to be of noon; and tables have no time of day",
        "processors.prechip:get_chip",
        ("test_exports.py::test_the_hour_of_a_chip_is_that_of_its_item",
         "test_stacchip_contract.py::test_items_of_each_processor_are_found_and_read"),
    ),
    "limit of nodata in prechip": Fault(
        "the limit is made a whole number: 0.05 becomes 0, which counts as no limit, and the column is not even read",
        "processors.prechip:process",
        ("test_stacchip_contract.py::test_the_limit_of_nodata_is_a_fraction",),
    ),
    "nodata of Sentinel-1 in stats": Fault(
        "its nodata value is overwritten by that of the other platforms: -32768 counts as a value, and 0 does not",
        "processors.stats:get_stats_keys",
        ("test_stacchip_contract.py::test_statistics_of_cubes_leave_out_nodata",
         "test_band_stats.py::test_nodata_of_sentinel_1_does_not_count_and_0_does"),
    ),
    "bucket and order of cubes in stats": Fault(
        "the bucket is written in the program, and of the cubes the first by name are taken: 0, 1, 10, 100",
        "processors.stats:process",
        ("test_stacchip_contract.py::test_statistics_of_cubes_leave_out_nodata",
         "test_stacchip_contract.py::test_an_array_job_of_stacchip_runs_as_it_is"),
    ),
    "crash on an empty search": Fault(
        "the first item of the answer is taken, also where there is none",
        f"{_S2}:process_mgrs_tile",
        ("test_processors.py::test_an_empty_search_is_nothing_to_do", "test_processors_cli.py::test_an_empty_search_is_no_error",
         "test_processors.py::test_sentinel_2_takes_the_least_cloudy_scene_of_each_quarter_of_two_years"),
    ),
    "crash on a place with one photograph": Fault(
        "an older scene is drawn from an empty list",
        "processors.naip_processor:process_naip_tile",
        ("test_naip.py::test_the_latest_and_one_of_an_earlier_year",),
    ),
    "crash on a survey with few scenes": Fault(
        "at least ten scenes are drawn, also where there are fewer",
        "processors.linz_processor:get_linz_tiffs",
        ("test_linz.py::test_how_many_scenes_and_which",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Node ids, without parameters, of all tests in the files that are named."""
    files = sorted({node.split("::")[0] for fault in FAULTS.values() for node in fault.tests})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.split("[")[0].removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_tests(name: str, collected: set[str]) -> None:
    fault = FAULTS[name]
    assert fault.tests
    assert [node for node in fault.tests if node not in collected] == []


def defined(tree: ast.AST, name: str) -> bool:
    """Whether a module, or a class in it, defines a name: "process", "LIMIT", "Indexer.get_stats"."""
    first, _, rest = name.partition(".")
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == first:
            return not rest or defined(node, rest)
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == first for to in node.targets):
            return True
    return False


def test_faults_are_where_they_are_said_to_be() -> None:
    """Read, not imported: its processors need packages of their own."""
    spec = importlib.util.find_spec("stacchip")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("stacchip is not installed, so nobody can look there")
    folder = Path(spec.submodule_search_locations[0])
    for fault in FAULTS.values():
        module, _, name = fault.where.partition(":")
        assert defined(ast.parse((folder / f"{module.replace('.', '/')}.py").read_text()), name), fault.where
