"""Run ``xchip demo``: write synthetic scenes, index them, and draw scenes and index."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import xchip

PLACE = 7
"""Seed of the invented land."""

Sky: TypeAlias = dict[str, Any]
"""Keywords of `write_scene`."""

# One place under different skies, a month apart. Fractions of the scene, from 0 to 1.
SKIES: tuple[Sky, ...] = (
    {"datetime": "2024-02-11T14:36:36Z", "clouds": 0.10, "cirrus": 0.06, "nodata": 0.10},
    {"datetime": "2024-03-12T14:36:41Z", "clouds": 0.35, "cirrus": 0.04, "nodata": 0.22},
    {"datetime": "2024-04-11T14:36:39Z", "clouds": 0.20, "cirrus": 0.08, "nodata": 0.0},
    {"datetime": "2024-05-11T14:36:44Z", "clouds": 0.02, "cirrus": 0.15, "nodata": 0.16},
    {"datetime": "2024-06-10T14:36:40Z", "clouds": 0.70, "cirrus": 0.02, "nodata": 0.0},
    {"datetime": "2024-07-10T14:36:42Z", "clouds": 0.05, "cirrus": 0.03, "nodata": 0.05},
)
LINES = """\
from pathlib import Path

import geopandas
import xchip
from xchip.plots.sheets import plot_scenes, preview

items = sorted(Path({scenes!r}).glob("*/*.json"))

# One row per chip. The index is lazy: writing it reads the quality band of each scene once.
xchip.write_index(xchip.index_items(items, {size!r}), {index!r})
rows = geopandas.read_parquet({index!r})
clear = rows[(rows["nodata_fraction"] == 0) & (rows["cloud_fraction"] < 0.3)]

# Lazy pixels of the scenes (time, y, x), and of the clear chips (chip, y, x).
ds = xchip.stack(items)
chips = ds.chips.extract(clear)

plot_scenes(rows, ds).savefig({map!r}, dpi=110)
preview(clear, n=24, seed=1).savefig({sheet!r}, dpi=110)
"""
"""The steps of `run` as a script for users; a test runs it."""


def run(folder: Path, *, scenes: int, size: int | tuple[int, int], pixels: int, echo: Callable[[str], None]) -> None:
    """Write scenes, index and pictures into ``folder``, and print the script that does the same.

    Parameters
    ----------
    folder
        Created if missing; files of an earlier run are replaced.
    scenes
        Number of scenes.
    size
        Size of chips in pixels, or (height, width).
    pixels
        Height and width of a scene; even.
    echo
        Called with each line of output.

    Raises
    ------
    ValueError
        If no chip fits into a scene.
    """
    import geopandas

    from xchip.io.progress import Progress, SceneTasks
    from xchip.plots.axes import require_matplotlib
    from xchip.plots.sheets import plot_scenes, preview
    from xchip.testing.synthetic import write_scene

    require_matplotlib()
    if max(np.atleast_1d(size)) > pixels:
        raise ValueError(f"chips of {size} pixels are larger than a scene of {pixels} x {pixels}; use a smaller --size")
    names = {"scenes": "scenes", "index": "index.parquet", "map": "index.png", "sheet": "chips.png"}
    paths = {name: str(folder / file) for name, file in names.items()}
    skies = "1 sky" if scenes == 1 else f"{scenes} different skies"
    echo(f"Synthetic scenes: one invented place under {skies}, {pixels:,} x {pixels:,} pixels of 10 m.")
    items = []
    with Progress(scenes, "written", stream=sys.stderr) as progress:
        for number in range(scenes):
            item_id = f"synthetic-{number + 1:02d}"
            sky = SKIES[number % len(SKIES)]
            if number >= len(SKIES):
                sky = sky | {"datetime": sky["datetime"].replace("2024", "2025")}
            items.append(write_scene(paths["scenes"], item_id=item_id, seed=number, place=PLACE, shape=(pixels, pixels), **sky))
            progress.advance()

    index = xchip.index_items(items, size)
    with Progress(scenes, "indexed", stream=sys.stderr) as progress, SceneTasks(progress):
        xchip.write_index(index, paths["index"])

    rows = geopandas.read_parquet(paths["index"])
    clear = rows[(rows["nodata_fraction"] == 0) & (rows["cloud_fraction"] < 0.3)]
    ds = xchip.stack(items)
    plot_scenes(rows, ds).savefig(paths["map"], dpi=110)
    preview(clear if len(clear) else rows, n=24, seed=1).savefig(paths["sheet"], dpi=110)

    echo(f"{len(rows):,} chips; {len(clear):,} chips have data in every pixel and less than 30 % cloud.")
    echo("")
    for name, description in (
        ("scenes", "the scenes: Cloud-Optimized GeoTIFFs with a STAC item each"),
        ("index", "the index: GeoParquet, one row per chip"),
        ("map", "the cloud fraction of each chip, and the scenes"),
        ("sheet", "some of the clear chips"),
    ):
        echo(f"  {paths[name]:<{max(map(len, paths.values()))}}  {description}")
    echo("")
    echo("The same in Python:")
    echo("")
    for line in LINES.format(size=size, **paths).splitlines():
        echo(f"    {line}".rstrip())
