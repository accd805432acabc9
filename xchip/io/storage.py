"""Storage options: one picklable value that sets up fsspec for tables and items, and GDAL for pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from xchip.io.gdal import endpoint_options
from xchip.io.signing import PLANETARY_COMPUTER, Signer, forget_signatures, signed

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "az": ("adlfs", "azure")}
"""Kind of store -> (package, extra of xchip that installs it)."""
_KINDS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az", "abfs": "az", "abfss": "az"}


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How to reach a bucket or a server.

    Each process takes options that are not set from its environment (``AWS_PROFILE``, ``AWS_ACCESS_KEY_ID``,
    ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT`` ...) and from the configuration files of Amazon's, Google's and
    Azure's tools. An option that is set wins over the environment, in every process that receives this value.

    Raises
    ------
    ValueError
        If two options contradict each other, or an option has an unknown value.

    Examples
    --------
    >>> storage = StorageOptions(endpoint="http://127.0.0.1:9000", key="reader", secret="...")
    >>> storage
    StorageOptions(endpoint='http://127.0.0.1:9000', region=None, profile=None, unsigned=False, requester_pays=False, signer=None)
    >>> with storage.gdal():
    ...     pass  # here, in this thread, rasterio reads s3:// from that server
    """

    endpoint: str | None = None
    """URL of an S3 server other than Amazon's, such as "http://127.0.0.1:9000"."""
    region: str | None = None
    """Region of S3 buckets, such as "us-west-2"."""
    profile: str | None = None
    """Name of a profile in the AWS configuration."""
    unsigned: bool = False
    """Whether to send requests without a signature, for public buckets: s3, gs and az."""
    requester_pays: bool = False
    """Whether to pay for requests and traffic if the bucket's owner does not: s3, and tables in gs (for pixels in gs, GDAL reads
    ``GS_USER_PROJECT`` from the environment)."""
    key: str | None = field(default=None, repr=False)
    """Access key id of S3; needs ``secret``."""
    secret: str | None = field(default=None, repr=False)
    """Secret access key of S3."""
    token: str | None = field(default=None, repr=False)
    """With ``key``: the session token of S3. Alone: an Azure SAS token, or the ``token`` of gcsfs."""
    signer: Signer | str | None = None
    """Signs hrefs of pixels when they are read: a picklable function href -> href, or "planetary-computer". A function that
    caches signatures needs a method ``renew()``, which is called after a refusal."""

    def __post_init__(self) -> None:
        if self.endpoint is not None and not (
            self.endpoint.startswith(("http://", "https://")) and urlsplit(self.endpoint).netloc
        ):
            raise ValueError(f"endpoint={self.endpoint!r} is not the URL of a server, such as 'https://minio.example.com:9000'")
        if (self.key is None) != (self.secret is None):
            present, missing = ("key", "secret") if self.secret is None else ("secret", "key")
            raise ValueError(f"a {present} without a {missing}: pass both, or neither to use the environment or a profile")
        if self.profile is not None and self.key is not None:
            raise ValueError(
                f"profile={self.profile!r} and a key exclude each other, because a profile has its own keys; pass one of the two"
            )
        if self.unsigned:
            contradicting = _set(key=self.key, token=self.token, profile=self.profile, requester_pays=self.requester_pays or None)
            if contradicting:
                raise ValueError(
                    f"unsigned requests are anonymous and can't use {' and '.join(contradicting)}; leave out one or the other"
                )
        if self.signer is not None and not callable(self.signer) and self.signer != PLANETARY_COMPUTER:
            raise ValueError(f"signer={self.signer!r} is unknown; pass a function href -> href, or {PLANETARY_COMPUTER!r}")

    def filesystem(self, url: str) -> tuple[AbstractFileSystem, str]:
        """Return the fsspec file system of ``url``, which may be a local path, and the path on it.

        Raises
        ------
        ImportError
            If the package for this kind of URL is missing; the message names the extra.
        ValueError
            If no package is known for the URL, or the options can't be used with it.
        """
        import fsspec

        scheme, separator, _ = url.partition("://")
        kind = _KINDS.get(scheme.lower()) if separator else None
        try:
            return fsspec.core.url_to_fs(url, **(self._fsspec_options(kind, url) if kind else {}))
        except ImportError as error:
            if kind is None:
                raise
            package, extra = _EXTRAS[kind]
            raise ImportError(f"{url!r} needs {package}: install xchip[{extra}]") from error

    def open_file(self, url: str) -> BinaryIO:
        """Open the file at ``url`` for reading; raises the errors of `filesystem`."""
        fs, path = self.filesystem(url)
        return fs.open(path, "rb")

    def _fsspec_options(self, kind: str, url: str) -> dict[str, object]:
        # Other processes write to the same folders, so a cached listing would soon be wrong.
        options: dict[str, object] = {"use_listings_cache": False}
        if kind == "az":
            return options | _set(anon=self.unsigned or None, sas_token=self.token)
        options |= _set(requester_pays=self.requester_pays or None)
        if kind == "gs":
            return options | _set(token="anon" if self.unsigned else self.token)
        if self.token is not None and self.key is None:
            raise ValueError(f"a token without a key and a secret can't be used for {url!r}; pass all three")
        options |= _set(key=self.key, secret=self.secret, token=self.token, profile=self.profile, endpoint_url=self.endpoint)
        options |= _set(anon=self.unsigned or None, client_kwargs=_set(region_name=self.region) or None)
        if self.endpoint is not None:
            options["config_kwargs"] = {"s3": {"addressing_style": "path"}}  # few servers have a host name per bucket
        return options

    def gdal(self) -> AbstractContextManager[None]:
        """Apply these options to GDAL's reads in this thread, until the end of the ``with`` block."""
        options = self.gdal_options()
        return _gdal_settings(options) if options else nullcontext()

    def gdal_options(self) -> dict[str, str]:
        """Return these options as configuration options of GDAL."""
        options: dict[str, str] = {}
        if self.endpoint is not None:
            options |= endpoint_options(self.endpoint)
        if self.key is not None:
            options |= {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": str(self.secret)}
            # An empty token keeps GDAL from using a token of the environment with these keys.
            options["AWS_SESSION_TOKEN"] = self.token or ""
        elif self.token is not None:
            options["AZURE_STORAGE_SAS_TOKEN"] = self.token
        if self.profile is not None:
            # Empty keys, because keys in the environment would win over the profile.
            keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
            options |= {"AWS_PROFILE": self.profile, **dict.fromkeys(keys, "")}
        if self.unsigned:
            options |= {f"{store}_NO_SIGN_REQUEST": "YES" for store in ("AWS", "GS", "AZURE")}
        elif self.key is not None or self.profile is not None:
            options["AWS_NO_SIGN_REQUEST"] = "NO"
        if self.requester_pays:
            options["AWS_REQUEST_PAYER"] = "requester"
        if self.region is not None:
            options |= {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}
        return options

    def sign(self, href: str) -> str:
        """Return the signed ``href`` of pixels. Sign just before reading, because signatures expire.

        Raises
        ------
        ImportError
            If the signer's package is missing; the message names the extra.
        """
        return signed(href, self.signer)

    def renewed(self) -> StorageOptions:
        """Clear the signer's cached signatures, so that the next signature is new; return these options."""
        forget_signatures(self.signer)
        return self


def _set(**options: object) -> dict[str, object]:
    """Return the options that are set: not None."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def _gdal_settings(options: dict[str, str]) -> Iterator[None]:
    import rasterio
    from rasterio.env import setenv

    with rasterio.Env():
        # Env rejects keys as arguments and would have boto3 look for them. Set inside, they hold for this thread and for each
        # inner Env.
        setenv(**options)
        yield
