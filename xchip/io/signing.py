"""Signed URLs: signatures that are made when a file is read, renewed when a server refuses them, and never stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Signer = Callable[[str], str]
"""href -> href that may be read now; it must be picklable. One that keeps signatures may have a method ``renew()``."""

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
"""Whose signature it is: CloudFront's, and version 2 of Google's, Amazon's and Alibaba's."""


def unsigned_href(href: str) -> str:
    """``href`` without its signature, as it may be stored; what else the query holds stays, letter by letter.

    Known are the signatures of Amazon S3 and CloudFront, Google Cloud Storage, Azure (SAS) and Alibaba.

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
    """Which of the query's names belong to a signature."""
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
    """``href`` as ``signer`` signs it; see `xchip.io.storage.StorageOptions`."""
    if signer is None:
        return href
    if signer == PLANETARY_COMPUTER:
        if not (urlsplit(href).hostname or "").endswith(_BLOB_STORAGE):
            return href  # the package signs nothing else, so it is not needed for other catalogues' files
        # An item that was signed when it was found has a signature of that time, and the package would leave it as it is.
        bare = unsigned_href(href)
        answer = str(_planetary_computer().sign_url(bare))
        return answer if answer != bare else href
    assert callable(signer), "StorageOptions has checked it"
    answer = signer(href)
    if not isinstance(answer, str):
        raise ValueError(f"the signer {signer!r} gave {answer!r} for {href!r}; a signer takes an href and returns one")
    return answer


def forget_signatures(signer: Signer | str | None) -> None:
    """Let the next signature be a new one, because the last was refused."""
    if signer == PLANETARY_COMPUTER:
        # Its tokens are good for about an hour and kept until a minute before; a server may refuse them earlier.
        _planetary_computer().TOKEN_CACHE.clear()
    else:
        renew = getattr(signer, "renew", None)
        if renew is not None:
            renew()


def _planetary_computer() -> Any:
    try:
        from planetary_computer import sas
    except ImportError as error:
        raise ImportError(f"signer={PLANETARY_COMPUTER!r} needs planetary-computer: install xchip[planetary-computer]") from error
    return sas
