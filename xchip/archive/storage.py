"""How files are reached: fsspec for tables and items, GDAL for pixels, from one value that travels to the workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

Signer = Callable[[str], str]
"""href -> href that may be read; it must be picklable."""


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How to reach a bucket or a server; all fields have the meaning that they have for AWS's own tools."""

    endpoint: str | None = None
    """URL of an S3 server that is not Amazon's, such as "http://127.0.0.1:9000"."""
    region: str | None = None
    profile: str | None = None
    """Name of a profile in the AWS configuration."""
    unsigned: bool = False
    """Whether requests bear no signature, for public buckets."""
    requester_pays: bool = False
    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    signer: Signer | str | None = None
    """Signs hrefs of pixels at the moment that they are read: a function, or "planetary-computer"."""

    def filesystem(self, url: str) -> tuple[Any, str]:
        """(fsspec file system, path on it) of ``url`` or a local path."""
        import fsspec

        return fsspec.core.url_to_fs(url)

    def gdal(self) -> AbstractContextManager[Any]:
        """GDAL's settings for reads in this thread."""
        return nullcontext()

    def sign(self, href: str) -> str:
        """``href`` as it may be read now."""
        return href
