"""``xchip demo``: the whole way, on synthetic scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xchip.cli.options import ChipSizeType, check_writable


@click.command()
@click.option(
    "-o", "--output", default="xchip-demo", show_default=True, type=click.Path(file_okay=False), callback=check_writable, help="Folder."
)
@click.option("--scenes", default=3, show_default=True, type=click.IntRange(1, 12), help="How many scenes.")
@click.option("--size", default="256", show_default=True, type=ChipSizeType(), help="Pixels of a chip.")
@click.option("--pixels", default=2048, show_default=True, type=click.IntRange(256, 10980), help="Height and width of a scene.")
def demo(output: str, scenes: int, size: Any, pixels: int) -> None:
    """Write synthetic scenes, index them, and draw the index.

    Nothing is downloaded. The scenes are invented: one place under several skies, in the likeness of Sentinel-2.
    """
    from xchip.cli.demo_run import run

    run(Path(output), scenes=scenes, size=size, pixels=pixels, echo=click.echo)
