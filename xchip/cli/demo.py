"""``xchip demo``: write, index and draw synthetic scenes."""

from __future__ import annotations

from pathlib import Path

import click

from xchip.cli.options import ChipSizeType, check_writable


@click.command()
@click.option(
    "-o", "--output", default="xchip-demo", show_default=True, type=click.Path(file_okay=False), callback=check_writable,
    help="Folder for the scenes, the index and the pictures.",
)  # fmt: skip
@click.option("--scenes", default=3, show_default=True, type=click.IntRange(1, 12), help="Number of scenes.")
@click.option("--size", default="256", show_default=True, type=ChipSizeType(), help="Pixels per chip: 256, or HEIGHTxWIDTH.")
@click.option(
    "--pixels", default=2048, show_default=True, type=click.IntRange(256, 10980), help="Height and width of a scene in pixels."
)
def demo(output: str, scenes: int, size: int | tuple[int, int], pixels: int) -> None:
    """Write synthetic scenes, index them, and draw the index.

    Nothing is downloaded. The scenes show one invented place under different clouds, in the format of Sentinel-2.
    """
    from xchip.cli.demo_run import run

    run(Path(output), scenes=scenes, size=size, pixels=pixels, echo=click.echo)
