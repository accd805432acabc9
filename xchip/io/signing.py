"""Signed URLs: sign when a file is read, renew after a refusal, never store a signature."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from urllib.parse import urlsplit

Signer = Callable[[str], str]
"""href -> href that can be read now. It must be picklable. A signer that caches signatures may have a method ``renew()``."""

PLANETARY_COMPUTER = "planetary-computer"
_BLOB_STORAGE = ".blob.core.windows.net"

_V4 = ("algorithm", "credential", "date", "expires", "signedheaders", "signature", "security-token", "content-sha256")
_AMAZON = frozenset(f"x-amz-{name}" for name in _V4)
_GOOGLE = frozenset(f"x-goog-{name}" for name in _V4)
# https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas, and the older account and service SAS
_AZURE = frozenset(
    (
        *("sig", "se", "sp", "st", "sv", "sr", "spr", "sip", "si", "ss", "srt", "sdd", "ses"),
        *("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid"),
    )
)
_OLDER = frozenset(("signature", "expires", "policy", "hash-algorithm", "security-token", "x-amz-security-token"))
_OLDER_KEYS = frozenset(("key-pair-id", "googleaccessid", "awsaccesskeyid", "ossaccesskeyid"))
"""Names of the signing key: CloudFront, and version 2 of Google, Amazon and Alibaba."""


def unsigned_href(href: str) -> str:
    """Return ``href`` without its signature, which must not be stored; the rest of the query stays unchanged.

    Recognises signatures of Amazon S3 and CloudFront, Google Cloud Storage, Azure (SAS) and Alibaba.

    Examples
    --------
    >>> unsigned_href("https://host/B04.tif?version=2&se=2024-01-01&sp=r&sv=2020&sr=c&sig=a%2Fb")
    'https://host/B04.tif?version=2'
    >>> unsigned_href("https://host/B04.tif?X-Amz-Algorithm=A&X-Amz-Signature=ab"), unsigned_href("https://host/a?sp=1")
    ('https://host/B04.tif', 'https://host/a?sp=1')
    """
    path, mark, query = href.partition("?")
    if not mark:
        return href
    fields = query.split("&")
    signature = _signature({_name(field) for field in fields})
    if not signature:
        return href
    rest = "&".join(field for field in fields if _name(field) not in signature)
    return f"{path}?{rest}" if rest else path


def _name(field: str) -> str:
    return field.partition("=")[0].lower()


def _signature(names: set[str]) -> frozenset[str]:
    """Return the parameter names of the signature in a query; none without a signature."""
    if "x-amz-signature" in names:
        return _AMAZON
    if "x-goog-signature" in names:
        return _GOOGLE
    if "sig" in names and names & {"sv", "se"}:
        return _AZURE
    if "signature" in names and names & _OLDER_KEYS:
        return _OLDER | _OLDER_KEYS
    return frozenset()


def signed(href: str, signer: Signer | str | None) -> str:
    """Return ``href`` signed by ``signer``; see `xchip.io.storage.StorageOptions`."""
    if signer is None:
        return href
    if signer == PLANETARY_COMPUTER:
        if not (urlsplit(href).hostname or "").endswith(_BLOB_STORAGE):
            return href  # the package signs no other hrefs, so other catalogues don't need it
        # The package leaves an old signature of a search result as it is, so remove it first.
        bare = unsigned_href(href)
        signed_href = str(_planetary_computer().sign_url(bare))
        return signed_href if signed_href != bare else href
    assert callable(signer), "StorageOptions has checked it"
    signed_href = signer(href)
    if not isinstance(signed_href, str):
        raise ValueError(f"the signer {signer!r} returned {signed_href!r} for {href!r}; a signer must return an href")
    return signed_href


def forget_signatures(signer: Signer | str | None) -> None:
    """Clear cached signatures, so that the next signature is new."""
    if signer == PLANETARY_COMPUTER:
        # The package caches a token until a minute before it expires; a server may refuse it earlier.
        _planetary_computer().TOKEN_CACHE.clear()
    else:
        renew = getattr(signer, "renew", None)
        if renew is not None:
            renew()


def _planetary_computer() -> ModuleType:
    try:
        from planetary_computer import sas
    except ImportError as error:
        raise ImportError(f"signer={PLANETARY_COMPUTER!r} needs planetary-computer: install xchip[planetary-computer]") from error
    return sas
