"""Fixtures that several test files share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Timings are no test results here, and examples are the same in every run.
settings.register_profile(
    "xchip",
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("XCHIP_EXAMPLES", 60)),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("xchip")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where servers are required, a test that needs one and is skipped for want of it has failed."""
    report = yield
    if report.skipped and item.get_closest_marker("server") and os.environ.get("XCHIP_REQUIRE_SERVERS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though XCHIP_REQUIRE_SERVERS is set: {report.longrepr}"
    return report


TESTS = Path(__file__).resolve().parent
PUBLISHED = TESTS.parents[1] / "shared" / "data"
"""The collection that tests/data is made of; it holds the files that may not be passed on, too."""


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real STAC items and rasters: tests/data, or that of the environment variable XCHIP_REAL_DATA."""
    return Path(os.environ.get("XCHIP_REAL_DATA", TESTS / "data")).resolve()


@pytest.fixture(scope="session")
def find_raster(real_data: Path) -> Callable[[str], Path]:
    """Return the path of a raster; a test that needs one that may not be passed on is skipped where it is absent."""

    def find(name: str) -> Path:
        for folder in (real_data, PUBLISHED):
            if (path := folder / "rasters" / name).exists():
                return path
        pytest.skip(f"{name} may not be passed on and is not here (see tests/data/README.md)")

    return find


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    """Close the figures that a test leaves open in pyplot, which another test may have imported."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
