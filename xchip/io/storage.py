"""How files are reached: fsspec for tables and items, GDAL for pixels, from one value that travels to the workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from xchip.io.gdal import endpoint_options
from xchip.io.signing import PLANETARY_COMPUTER, Signer, forget_signatures, signed

_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "az": ("adlfs", "azure")}
"""Kind of store -> (package, extra of xchip that brings it)."""
_KINDS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az", "abfs": "az", "abfss": "az"}


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How to reach a bucket or a server. What is not given comes from where Amazon's, Google's and Azure's own tools find it.

    Without any option the environment (``AWS_PROFILE``, ``AWS_ACCESS_KEY_ID``, ``GOOGLE_APPLICATION_CREDENTIALS``,
    ``AZURE_STORAGE_ACCOUNT`` ...) and the usual configuration files decide, in each process for itself. An option given here is
    the same in every process that the value travels to, and wins over the environment.

    Raises
    ------
    ValueError
        If two options contradict each other, or one is none that is known.

    Examples
    --------
    >>> storage = StorageOptions(endpoint="http://127.0.0.1:9000", key="reader", secret="...")
    >>> storage
    StorageOptions(endpoint='http://127.0.0.1:9000', region=None, profile=None, unsigned=False, requester_pays=False, signer=None)
    >>> with storage.gdal():
    ...     pass  # rasterio reads s3:// from that server here, in this thread
    """

    endpoint: str | None = None
    """URL of an S3 server that is not Amazon's, such as "http://127.0.0.1:9000"."""
    region: str | None = None
    """Of S3 buckets, such as "us-west-2"."""
    profile: str | None = None
    """Name of a profile in the AWS configuration."""
    unsigned: bool = False
    """Whether requests bear no signature, for public buckets: s3, gs and az."""
    requester_pays: bool = False
    """Whether to pay for requests and traffic where a bucket's owner does not: s3, and tables in gs (for pixels in gs, GDAL looks
    for ``GS_USER_PROJECT`` in the environment)."""
    key: str | None = field(default=None, repr=False)
    """Access key id of S3; goes with ``secret``."""
    secret: str | None = field(default=None, repr=False)
    """Secret access key of S3."""
    token: str | None = field(default=None, repr=False)
    """With a key: the session token of S3. Alone: an Azure SAS token, or what gcsfs takes as ``token``."""
    signer: Signer | str | None = None
    """Signs hrefs of pixels at the moment that they are read: a function, or "planetary-computer". A function must be picklable;
    if it keeps signatures, a method ``renew()`` of it is called after one was refused."""

    def __post_init__(self) -> None:
        if self.endpoint is not None and not (
            self.endpoint.startswith(("http://", "https://")) and urlsplit(self.endpoint).netloc
        ):
            raise ValueError(f"endpoint={self.endpoint!r} is no URL of a server; write it as in 'https://minio.example.com:9000'")
        if (self.key is None) != (self.secret is None):
            given, missing = ("key", "secret") if self.secret is None else ("secret", "key")
            raise ValueError(
                f"a {given} without a {missing}: give both, or neither and let the environment or a profile have them"
            )
        if self.profile is not None and self.key is not None:
            raise ValueError(f"profile={self.profile!r} and a key: a profile has keys of its own; give one of the two")
        if self.unsigned:
            signing = {
                "key": self.key,
                "token": self.token,
                "profile": self.profile,
                "requester_pays": self.requester_pays or None,
            }
            contradicting = [name for name, value in signing.items() if value is not None]
            if contradicting:
                raise ValueError(
                    f"unsigned requests bear no {' and no '.join(contradicting)}, for nobody knows who asks; "
                    "give unsigned=True alone, or leave it out"
                )
        if self.signer is not None and not callable(self.signer) and self.signer != PLANETARY_COMPUTER:
            raise ValueError(f"signer={self.signer!r} is not known; give a function href -> href, or {PLANETARY_COMPUTER!r}")

    def filesystem(self, url: str) -> tuple[Any, str]:
        """(fsspec file system, path on it) of ``url`` or a local path.

        Raises
        ------
        ImportError
            If the package for this kind of URL is missing; it names the extra.
        ValueError
            If no package is known for it, or the options can't be used with it.
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

    def open_file(self, url: str) -> Any:
        """A file at ``url``, to read; errors as of `filesystem`."""
        fs, path = self.filesystem(url)
        return fs.open(path, "rb")

    def _fsspec_options(self, kind: str, url: str) -> dict[str, Any]:
        # Other processes write to the same folders: a listing that is kept would soon be wrong.
        options: dict[str, Any] = {"use_listings_cache": False}
        if kind == "az":
            return options | _given(anon=self.unsigned or None, sas_token=self.token)
        options |= _given(requester_pays=self.requester_pays or None)
        if kind == "gs":
            return options | _given(token="anon" if self.unsigned else self.token)
        if self.token is not None and self.key is None:
            raise ValueError(f"a token without a key and a secret can't be used for {url!r}; give all three")
        options |= _given(key=self.key, secret=self.secret, token=self.token, profile=self.profile, endpoint_url=self.endpoint)
        options |= _given(anon=self.unsigned or None, client_kwargs=_given(region_name=self.region) or None)
        if self.endpoint is not None:
            options["config_kwargs"] = {"s3": {"addressing_style": "path"}}  # few servers have a host name for each bucket
        return options

    def gdal(self) -> AbstractContextManager[Any]:
        """GDAL's settings for reads in this thread, until the end of the ``with`` block."""
        options = self.gdal_options()
        return _gdal_settings(options) if options else nullcontext()

    def gdal_options(self) -> dict[str, str]:
        """The configuration options of GDAL that say the same; none without options."""
        options: dict[str, str] = {}
        if self.endpoint is not None:
            options |= endpoint_options(self.endpoint)
        if self.key is not None:
            options |= {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": str(self.secret)}
            # An empty one, so that a token in the environment is not taken to belong to these keys.
            options["AWS_SESSION_TOKEN"] = self.token or ""
        elif self.token is not None:
            options["AZURE_STORAGE_SAS_TOKEN"] = self.token
        if self.profile is not None:
            # Keys in the environment would win.
            options |= {
                "AWS_PROFILE": self.profile,
                "AWS_ACCESS_KEY_ID": "",
                "AWS_SECRET_ACCESS_KEY": "",
                "AWS_SESSION_TOKEN": "",
            }
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
        """``href`` of pixels as it may be read now. Sign at the moment of reading: signatures expire.

        Raises
        ------
        ImportError
            If the signer's package is missing; it names the extra.
        """
        return signed(href, self.signer)

    def renewed(self) -> StorageOptions:
        """These options, so that the next signature is a new one: what the signer keeps is forgotten."""
        forget_signatures(self.signer)
        return self


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def _gdal_settings(options: dict[str, str]) -> Iterator[None]:
    import rasterio
    from rasterio.env import setenv

    with rasterio.Env():
        # Env refuses keys among its arguments and would have boto3 look for them; set afterwards they hold as well, for this
        # thread, and in each Env inside of this one.
        setenv(**options)
        yield
