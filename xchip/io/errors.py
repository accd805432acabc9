"""Classify errors of file access: whether a retry, a new signature or nothing helps."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Literal

from xchip.io.gdal import FileError

Kind = Literal["transient", "denied", "doubtful", "permanent"]
"""transient: a retry may succeed. denied: a new signature may help. doubtful: the bytes can't be decoded, because the file is
damaged or because the response was cut short; a second read tells which. permanent: a retry fails too."""

_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529, 598, 599}
_DENIED_STATUS = {401, 403, 407}
_TRANSIENT_ERRNO = {
    number
    for number, name in errno.errorcode.items()
    if name in {"EAGAIN", "EBUSY", "EINTR", "ESTALE", "EPIPE", "EREMOTEIO"}  # s3fs: EBUSY for 503, EREMOTEIO for 500
    or name.startswith(("ECONN", "ENET", "EHOST", "ETIMEDOUT"))
}

# Error codes of S3, https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, as botocore gives them; servers that
# imitate S3 use them too. The status alone does not suffice: an expired token has the status 400.
_TRANSIENT_CODES = {
    *("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException"),
    *("TooManyRequestsException", "RequestLimitExceeded", "RequestThrottled", "OperationAborted", "ServerBusy"),
}
_DENIED_CODES = {
    *("AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired", "SignatureDoesNotMatch"),
    *("RequestTimeTooSkewed", "AllAccessDisabled", "InvalidSecurity", "AccountProblem", "NotSignedUp", "AuthenticationFailed"),
}
_PERMANENT_CODES = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "InvalidBucketName", "InvalidObjectState"}

# Classes by name, because their libraries need not be installed: aiohttp, requests, urllib3, http.client, botocore, rasterio.
_PERMANENT_CLASSES = {
    *("ClientConnectorCertificateError", "SSLCertVerificationError", "InvalidURL", "InvalidSchema", "MissingSchema"),
    *("ProfileNotFound", "ParamValidationError", "CPLE_AWSObjectNotFoundError", "CPLE_AWSBucketNotFoundError"),
}
_DENIED_CLASSES = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError", "SSOTokenLoadError"),
    *("UnauthorizedSSOTokenError", "CPLE_AWSAccessDeniedError", "CPLE_AWSInvalidCredentialsError"),
    "CPLE_AWSSignatureDoesNotMatchError",
}
_TRANSIENT_CLASSES = {
    *("ConnectionError", "TimeoutError", "gaierror", "SSLError"),  # of Python, and of libraries that use these names
    *("ClientConnectionError", "ClientPayloadError"),  # aiohttp
    *("Timeout", "ChunkedEncodingError", "ContentDecodingError", "RetryError"),  # requests
    *("ProtocolError", "MaxRetryError", "NewConnectionError", "IncompleteRead"),  # urllib3, http.client
    *("HTTPClientError", "IncompleteReadError", "ResponseStreamingError", "ResponseParserError"),  # botocore
}

# GDAL's errors have neither status nor code, only a message; collected by experiment with vsicurl and vsis3 of GDAL 3.10.
_STATUS_TEXT = re.compile(r"HTTP (?:response|error) code ?: ?(\d{3})")
_UNDECODABLE_TEXT = re.compile(
    r"IReadBlock failed|TIFF\w+:|Decod\w+ error|not recognized as being in a supported|does not exist in the file system"
)
_KIND_TEXTS: tuple[tuple[str, Kind], ...] = (  # the first match decides
    (r"does not exist\.?$|CURL error:.*(?:certificate|wrong version number|unsupported protocol)", "permanent"),
    (r"access key|access denied|signature|credential|token|expired|forbidden|authoriz|authenticat", "denied"),
    (r"CURL error|reduce your request rate|slow ?down|internal error|try again|unavailable", "transient"),
    (r"timed? ?out|server is busy", "transient"),
)


def classify(error: BaseException) -> Kind:
    """Return what an error and its causes mean for a retry; "permanent" for unknown errors.

    Known errors are those of Python, of GDAL through xchip's readers, of fsspec with aiohttp, of s3fs with botocore, of requests
    and of pystac-client.

    Examples
    --------
    >>> classify(ConnectionResetError()), classify(PermissionError()), classify(FileNotFoundError()), classify(ValueError())
    ('transient', 'denied', 'permanent', 'permanent')
    """
    errors = list(chain(error))
    if any(_class_names(cause) & _PERMANENT_CLASSES for cause in errors):
        return "permanent"  # the outer error of a bad certificate looks like a broken connection
    return next((kind for kind in map(_kind_of, errors) if kind is not None), "permanent")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its cause, the cause of that cause, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _kind_of(error: BaseException) -> Kind | None:
    """Classify one error without its causes; None if it is unknown."""
    if isinstance(error, FileError):
        return _kind_of_file_error(error)
    kind = _by_code(_code_of(error)) or _by_status(_status_of(error)) or _by_class(error)
    if kind is not None:
        return kind
    if isinstance(error, PermissionError):
        return "denied"
    if isinstance(error, FileNotFoundError | FileExistsError | IsADirectoryError | NotADirectoryError):
        return "permanent"
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO:
        return "transient"
    return None


def _by_code(code: str | None) -> Kind | None:
    if code in _TRANSIENT_CODES:
        return "transient"
    if code in _DENIED_CODES:
        return "denied"
    return "permanent" if code in _PERMANENT_CODES else None


def _by_status(status: int | None) -> Kind | None:
    if status in _TRANSIENT_STATUS:
        return "transient"
    if status in _DENIED_STATUS:
        return "denied"
    return "permanent" if status is not None and status >= 400 else None


def _class_names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _by_class(error: BaseException) -> Kind | None:
    names = _class_names(error)
    if names & _DENIED_CLASSES:
        return "denied"
    return "transient" if names & _TRANSIENT_CLASSES else None


def _kind_of_file_error(error: FileError) -> Kind:
    """Classify by the class of rasterio's error, else by GDAL's message. Errors of a local disk are permanent."""
    if not error.remote:
        return "permanent"
    by_class = next((kind for kind in map(_by_class, (*chain(error),)[1:]) if kind is not None), None)
    if by_class is not None:
        return by_class
    _, _, reason = str(error).partition(": ")
    status = _STATUS_TEXT.search(reason)
    if status:
        return _by_status(int(status[1])) or "transient"
    if not _UNDECODABLE_TEXT.search(reason):
        for pattern, kind in _KIND_TEXTS:
            if re.search(pattern, reason, re.I):
                return kind
    return "doubtful" if error.answered else "transient"


def _code_of(error: BaseException) -> str | None:
    """Return the S3 error code of an error of botocore."""
    response = getattr(error, "response", None)
    details = response.get("Error") if isinstance(response, dict) else None
    return details.get("Code") if isinstance(details, dict) else None


def _status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error of aiohttp, urllib, requests, pystac-client, botocore, gcsfs or Azure."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _http_status((response.get("ResponseMetadata") or {}).get("HTTPStatusCode"))
    for holder, name in ((error, "status"), (error, "status_code"), (response, "status_code"), (error, "code")):
        status = _http_status(getattr(holder, name, None))
        if status is not None:
            return status
    return None


def _http_status(value: object) -> int | None:
    """Return ``value`` as a status, if it is one; gcsfs has text."""
    number = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else 0
    return number if 100 <= number < 600 else None


def retry_after(error: BaseException) -> float:
    """Return the seconds of the server's Retry-After header; 0 without one. GDAL's errors have no headers."""
    for cause in chain(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            headers = (response.get("ResponseMetadata") or {}).get("HTTPHeaders")
        else:
            headers = getattr(cause, "headers", None) or getattr(response, "headers", None)
        for name, value in dict(headers or {}).items():
            # The header may also be a date; no store sends a date.
            if str(name).lower() == "retry-after" and str(value).strip().isdigit():
                return float(str(value).strip())
    return 0.0
