"""The command line: options and environment variables, and one library call behind each command.

A command is loaded when it is used, and libraries are imported inside the commands: ``xchip --help`` is as quick as
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
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.version_option(package_name="xchip", prog_name="xchip")
def main(debug: bool) -> None:
    """Index satellite and aerial scenes into chips.

    Every option can be given as an environment variable, such as XCHIP_INDEX_SIZE=512 for `xchip index --size 512`.

    Exit status: 0 if all is well, 1 for an error, 2 for wrong usage, 3 if items failed or problems were found, 130 if
    interrupted.
    """


def script() -> None:
    """A command as a program of its own: ``xchip-landsat`` is ``xchip landsat``."""
    name = Path(sys.argv[0]).stem.removeprefix("xchip-")
    main([name, *sys.argv[1:]], prog_name="xchip")
