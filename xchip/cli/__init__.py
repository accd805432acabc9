"""The command line: each command turns options and environment variables into one library call.

A command is loaded when it is used, and imports libraries only when it runs, so ``xchip --help`` is as quick as
``import xchip``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from xchip.cli.options import Commands


@click.group(
    cls=Commands,
    context_settings={"auto_envvar_prefix": "XCHIP", "help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
@click.version_option(package_name="xchip", prog_name="xchip")
def main(debug: bool) -> None:
    """Index satellite and aerial scenes into chips.

    An environment variable can set each option: XCHIP_INDEX_SIZE=512 is the same as `xchip index --size 512`.

    Exit status: 0 for success, 1 for an error, 2 for wrong usage, 3 if items failed or problems were found, 130 if
    interrupted.
    """


def script() -> None:
    """Run a command as a separate program: ``xchip-landsat`` is ``xchip landsat``."""
    name = Path(sys.argv[0]).stem.removeprefix("xchip-")
    main([name, *sys.argv[1:]], prog_name="xchip")
