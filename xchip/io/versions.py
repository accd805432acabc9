"""Versions and settings that a bug report needs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from typing import TextIO

from packaging.requirements import Requirement

from xchip.core.version import VERSION

# GDAL, PROJ and GEOS come with several packages, each with a copy of its own: (library, package, attribute with the version).
_LIBRARIES = (
    ("GDAL", "rasterio", "__gdal_version__"),
    ("PROJ", "rasterio", "__proj_version__"),
    ("PROJ", "pyproj", "__proj_version__"),
    ("GEOS", "rasterio", "__geos_version__"),
    ("GEOS", "shapely", "geos_version_string"),
)

_SETTINGS = (
    "XCHIP_", "STACCHIP_",
    "GDAL_", "CPL_", "VSI_", "OSR_", "PROJ_", "RIO_",
    "AWS_", "AZURE_", "GOOGLE_", "GS_", "GCSFS_", "OSS_", "PC_SDK_", "FSSPEC_",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_",
    "DASK_", "MALLOC_", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH",
)  # fmt: skip
"""How names of environment variables begin that change what xchip and its libraries do."""


def show_versions(file: TextIO | None = None) -> None:
    """Print what a bug report needs: versions of xchip, Python, GDAL and all packages that xchip uses, and the system.

    Of environment variables that change how files and servers are reached, only the names are printed, because the values may be
    secrets.

    Parameters
    ----------
    file
        Where to print. Default: standard output.

    Examples
    --------
    >>> import xchip
    >>> xchip.show_versions()
    xchip: ...
    Python: ...
    ...
    GDAL (rasterio): ...
    ...
    """
    for title, facts in _sections():
        if title:
            print(f"\n{title}", file=file)
        for name, fact in facts:
            print(f"{name}: {fact}" if fact else name, file=file)


def _sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(title, names and facts) of each section."""
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    cpus = f"{_usable_cpus()} usable of {os.cpu_count()}"
    yield "", [("xchip", VERSION), ("Python", python), ("system", platform.platform()), ("CPUs", cpus)]
    yield "Libraries", [(f"{library} ({package})", _attribute(package, name)) for library, package, name in _LIBRARIES]
    required, optional = _requirements()
    yield "Packages", [(requirement.name, _installed(requirement)) for requirement in required]
    yield "Extras", [(f"{requirement.name} ({extra})", _installed(requirement)) for extra, requirement in optional]
    names = sorted(name for name in os.environ if name.upper().startswith(_SETTINGS))
    yield "Environment variables that are set", [(name, "") for name in names] or [("none", "")]


def _usable_cpus() -> int | None:
    """CPUs that this process may use: fewer than there are, in a job of a batch system or a container."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)  # on Linux alone
    return len(affinity(0)) if affinity else os.cpu_count()


def _attribute(package: str, name: str) -> str:
    try:
        return str(getattr(import_module(package), name))
    except ImportError as error:  # such as a shared library that is missing: the very thing to report
        return f"can't be imported: {error}"


def _installed(requirement: Requirement) -> str:
    """The version of a package, and whether it is one that xchip works with."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "not installed"
    fits = requirement.specifier.contains(version, prereleases=True)
    return version if fits else f"{version} (xchip needs {requirement.specifier})"


def _requirements() -> tuple[list[Requirement], list[tuple[str, Requirement]]]:
    """What xchip requires, and (extra, requirement) of the extras for users: those whose packages the extra "all" has too."""
    try:
        information = metadata.metadata("xchip")
    except metadata.PackageNotFoundError:  # the source is on the path, and nothing is installed
        return [], []
    lines = map(Requirement, information.get_all("Requires-Dist") or [])
    every = sorted(lines, key=lambda requirement: requirement.name)
    required = [requirement for requirement in every if _is_part_of(requirement, "")]
    extras = {
        extra: [requirement for requirement in every if requirement not in required and _is_part_of(requirement, extra)]
        for extra in information.get_all("Provides-Extra") or []
    }
    known = {requirement.name for requirement in extras.pop("all", [])}
    users = {extra: found for extra, found in extras.items() if {requirement.name for requirement in found} <= known}
    return required, [(extra, requirement) for extra, found in users.items() for requirement in found]


def _is_part_of(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
