"""``xchip versions``: what a bug report needs."""

from __future__ import annotations

import click


@click.command()
def versions() -> None:
    """Print versions of xchip, its libraries and the system, for a bug report. Values of environment variables stay out."""
    from xchip.io.versions import show_versions

    show_versions()
