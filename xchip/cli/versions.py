"""``xchip versions``: print versions for a bug report."""

from __future__ import annotations

import click


@click.command()
def versions() -> None:
    """Print versions of xchip, its libraries and the system, for a bug report.

    Values of environment variables are not printed.
    """
    from xchip.io.versions import show_versions

    show_versions()
