"""Options and fixtures of the soak tests."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak")
    group.addoption("--rounds", type=int, default=20, help="how often each check runs")
    group.addoption("--seed", type=int, default=None, help="seed of the first round; by default, a random one")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(10**9)


def pytest_report_header(config: pytest.Config) -> str:
    return f"soak: --rounds {config.option.rounds} --seed {config.option.seed}"


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Callable[[Callable[[random.Random], object]], list[object]]:
    """Run a check with one seed after another, and return what each round gives; an error names the seed that repeats it."""
    first, rounds = request.config.option.seed, request.config.option.rounds
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def run(check: Callable[[random.Random], object]) -> list[object]:
        with capture.global_and_fixture_disabled():
            print(f"\n{request.node.name}: seeds {first} to {first + rounds - 1}", flush=True)
        results = []
        for seed in range(first, first + rounds):
            try:
                results.append(check(random.Random(seed)))
            except BaseException as error:
                error.add_note(f"repeat with: --rounds 1 --seed {seed}")
                raise
        return results

    return run
