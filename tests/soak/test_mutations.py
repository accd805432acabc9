"""Published items of which fields are changed at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_checks import check_understood, mutated, places
from item_making import header_of

from xchip.stac.scene.understand import plain_items


def test_mutated_items_are_understood_or_refused(soak: Callable[..., Any], real_data: Path) -> None:
    files = sorted((real_data / "items").iterdir())
    items = [item for file in files for item, _ in [next(plain_items(file))]]
    known = [(item, places(item)) for item in items]

    def check(rng: random.Random) -> None:
        item, paths = rng.choice(known)
        count = rng.randint(1, 5)
        header = rng.choice([None, lambda _: header_of(count=count)])
        assets = rng.choice([None, ["red"], ["nir", "qa_pixel"]])
        check_understood(mutated(item, paths, rng), header=header, assets=assets)

    soak(check)
