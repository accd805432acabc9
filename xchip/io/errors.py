"""What an error on the way to a file means: whether it will pass, and what would help."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any, Literal

from xchip.io.gdal import FileError

Kind = Literal["transient", "denied", "doubtful", "permanent"]
"""transient: it may work later. denied: it may work with a new signature. doubtful: bytes came that make no sense, because
the file is damaged or because the answer was cut short; a second reading tells. permanent: it will not work."""

_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529, 598, 599}
_DENIED_STATUS = {401, 403, 407}
_TRANSIENT_ERRNO = {
    number
    for number, name in errno.errorcode.items()
    if name in {"EAGAIN", "EBUSY", "EINTR", "ESTALE", "EPIPE", "EREMOTEIO"}  # s3fs: EBUSY for 503, EREMOTEIO for 500
    or name.startswith(("ECONN", "ENET", "EHOST", "ETIMEDOUT"))
}

# Codes of Amazon's errors, https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: of botocore, and of servers
# that imitate S3. An expired token, for one, has the status 400.
_TRANSIENT_CODES = {
    *("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException"),
    *("TooManyRequestsException", "RequestLimitExceeded", "RequestThrottled", "OperationAborted", "ServerBusy"),
}
_DENIED_CODES = {
    *("AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired", "SignatureDoesNotMatch"),
    *("RequestTimeTooSkewed", "AllAccessDisabled", "InvalidSecurity", "AccountProblem", "NotSignedUp", "AuthenticationFailed"),
}
_PERMANENT_CODES = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "InvalidBucketName", "InvalidObjectState"}

# Classes of libraries that need not be installed, by name: of aiohttp, requests, urllib3, http.client, botocore, and rasterio.
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
    *("ConnectionError", "TimeoutError", "gaierror", "SSLError"),  # Python's own, and those of others that bear these names
    *("ClientConnectionError", "ClientPayloadError"),  # aiohttp
    *("Timeout", "ChunkedEncodingError", "ContentDecodingError", "RetryError"),  # requests
    *("ProtocolError", "MaxRetryError", "NewConnectionError", "IncompleteRead"),  # urllib3, http.client
    *("HTTPClientError", "IncompleteReadError", "ResponseStreamingError", "ResponseParserError"),  # botocore
}

# What GDAL says, which knows neither status nor code; found by experiment with vsicurl and vsis3 of GDAL 3.10.
_STATUS_TEXT = re.compile(r"HTTP (?:response|error) code ?: ?(\d{3})")
_SENSELESS_TEXT = re.compile(
    r"IReadBlock failed|TIFF\w+:|Decod\w+ error|not recognized as being in a supported|does not exist in the file system"
)
_PERMANENT_TEXT = re.compile(r"does not exist\.?$|CURL error:.*(?:certificate|wrong version number|unsupported protocol)", re.I)
_DENIED_TEXT = re.compile(r"access key|access denied|signature|credential|token|expired|forbidden|authoriz|authenticat", re.I)
_TRANSIENT_TEXT = re.compile(
    r"CURL error|reduce your request rate|slow ?down|internal error|try again|unavailable|timed? ?out|server is busy", re.I
)


def classify(error: BaseException) -> Kind:
    """What can be done about an error, by itself and the errors that caused it; "permanent" where nothing is known of them.

    Known are the errors of GDAL through xchip's own readers, fsspec with aiohttp, s3fs with botocore, requests and pystac-client,
    and of Python itself.

    Examples
    --------
    >>> classify(ConnectionResetError()), classify(PermissionError()), classify(FileNotFoundError()), classify(ValueError())
    ('transient', 'denied', 'permanent', 'permanent')
    """
    errors = list(chain(error))
    if any(_class_names(one) & _PERMANENT_CLASSES for one in errors):
        return "permanent"  # a bad certificate, say, shows as a broken connection further out
    return next((kind for kind in map(_kind_of, errors) if kind is not None), "permanent")


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, that one's cause, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _kind_of(error: BaseException) -> Kind | None:
    """What this error says by itself; None if it doesn't tell."""
    if isinstance(error, FileError):
        return _kind_of_file_error(error)
    found = _by_code(_code_of(error)) or _by_status(_status_of(error)) or _by_class(error)
    if found is not None:
        return found
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
    """GDAL's message tells, or the class that rasterio made of it. What a local disk gives is as it is."""
    if not error.remote:
        return "permanent"
    by_class = next((kind for kind in map(_by_class, (*chain(error),)[1:]) if kind is not None), None)
    if by_class is not None:
        return by_class
    _, _, reason = str(error).partition(": ")
    status = _STATUS_TEXT.search(reason)
    if status:
        return _by_status(int(status[1])) or "transient"
    if not _SENSELESS_TEXT.search(reason):
        for pattern, kind in _TEXTS:
            if pattern.search(reason):
                return kind
    return "doubtful" if error.answered else "transient"


_TEXTS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (_PERMANENT_TEXT, "permanent"),
    (_DENIED_TEXT, "denied"),
    (_TRANSIENT_TEXT, "transient"),
)


def _response_of(error: BaseException) -> Any:
    return getattr(error, "response", None)


def _code_of(error: BaseException) -> str | None:
    """Amazon's name of the error, as botocore gives it."""
    response = _response_of(error)
    details = response.get("Error") if isinstance(response, dict) else None
    return details.get("Code") if isinstance(details, dict) else None


def _status_of(error: BaseException) -> int | None:
    """The HTTP status of an error of aiohttp, urllib, requests, pystac-client, botocore, gcsfs or Azure."""
    response = _response_of(error)
    if isinstance(response, dict):
        return _http_status((response.get("ResponseMetadata") or {}).get("HTTPStatusCode"))
    for holder, name in ((error, "status"), (error, "status_code"), (response, "status_code"), (error, "code")):
        status = _http_status(getattr(holder, name, None))
        if status is not None:
            return status
    return None


def _http_status(value: Any) -> int | None:
    """gcsfs has it as text."""
    number = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else 0
    return number if 100 <= number < 600 else None


def asked_to_wait(error: BaseException) -> float:
    """Seconds that the server asks to wait for (Retry-After), where the error tells; else 0. GDAL's errors do not."""
    for one in chain(error):
        response = _response_of(one)
        if isinstance(response, dict):
            headers = (response.get("ResponseMetadata") or {}).get("HTTPHeaders")
        else:
            headers = getattr(one, "headers", None) or getattr(response, "headers", None)
        for name, value in dict(headers or {}).items():
            # It may be a date, too; no store sends one.
            if str(name).lower() == "retry-after" and str(value).strip().isdigit():
                return float(str(value).strip())
    return 0.0
