"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real STAC items and rasters; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real items and rasters are not at {SHARED_DATA}")
    return SHARED_DATA
