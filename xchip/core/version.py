"""The version of this package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("xchip")
    """As it was installed, such as "0.2.0". The build takes it from git's tags."""
except PackageNotFoundError:  # the source is on the path, and nothing is installed
    VERSION = "0+unknown"
