"""Open raster files with GDAL: paths and options for an href, and a pool of datasets that stay open between reads."""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from xchip.io.gdal_log import counting_repeats, repeats_are_logged

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# Limits file handles and header memory of a process; a Sentinel-2 scene has 13 bands, and each thread may hold its own.
POOL_SIZE = 64

# GDAL caches decoded blocks of all open datasets, up to 5 % of the machine's memory in each process. Blocks that were read whole
# are not read again. Closing a local file frees them, and opening it again takes a millisecond.
KEPT_BYTES = 32 << 20

_SCHEMES = {
    **{scheme: f"/vsicurl/{scheme}://" for scheme in ("http", "https", "ftp")},
    **dict.fromkeys(("gs", "gcs"), "/vsigs/"),
    **dict.fromkeys(("az", "azure", "abfs", "abfss"), "/vsiaz/"),
    **{"s3": "/vsis3/", "oss": "/vsioss/", "swift": "/vsiswift/"},
}
_REMOTE = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift", "/vsiwebhdfs", "/vsihdfs")

# Read cloud-optimised files in few requests, and repeat requests to a busy server. GDAL repeats a request twice, after 0.5 s and
# 1 s, so that one failed range does not cost a second read of the whole file. More repeats would block the thread;
# `xchip.io.retry` waits longer and keeps a record.
_REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing of buckets, no requests for sidecar files
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the header of a full-size COG in one request
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",  # drop and retry a connection that stalls for a minute
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "2000000",  # bytes per file; each file of the pool would hold GDAL's default of 25 MB
}

# EMPTY_DIR, a common setting for remote files, hides the .aux.xml beside a local file, which may hold the georeferencing.
# TRUE looks for sidecar files by name and does not list the folder.
_LOCAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}


def gdal_path(href: str) -> str:
    """Return the name by which GDAL opens ``href``, which is a path, a URL, or already such a name.

    Examples
    --------
    >>> gdal_path("s3://bucket/B04.tif"), gdal_path("file:///data/B%2004.tif")
    ('/vsis3/bucket/B04.tif', '/data/B 04.tif')
    >>> gdal_path("https://host/B04.tif?sig=a%2Fb&se=2")
    '/vsicurl/https://host/B04.tif?sig=a%2Fb&se=2'
    """
    scheme, separator, rest = href.partition("://")
    if not separator:
        return href
    scheme = scheme.lower()
    if scheme == "file":
        return unquote(urlsplit(href).path)
    if scheme.startswith("abfs") and "@" in rest.partition("/")[0]:
        # abfs://container@account.dfs.core.windows.net/path: the account comes from the environment, like the key.
        authority, _, path = rest.partition("/")
        rest = f"{authority.partition('@')[0]}/{path}"
    return f"{_SCHEMES[scheme]}{rest}" if scheme in _SCHEMES else href


def is_remote(href: str) -> bool:
    """Whether ``href`` is read over a network."""
    path = gdal_path(href)
    return path.startswith("/vsi") and any(system in path for system in _REMOTE)  # also /vsizip//vsicurl/...


def gdal_options(href: str) -> dict[str, str]:
    """Return GDAL's configuration for ``href``; for remote files, settings of the user win."""
    from rasterio.env import getenv, hasenv

    if not is_remote(href):
        return dict(_LOCAL_OPTIONS)
    user_set = {name.upper() for name in (*os.environ, *(getenv() if hasenv() else ()))}
    options = dict(_REMOTE_OPTIONS)
    if "/vsis3/" in gdal_path(href):
        options |= _s3_environment("AWS_S3_ENDPOINT" in user_set)
    query = href.partition("?")[2].lower()
    if "signature=" in query and "x-amz-signature=" not in query:
        # Google and CloudFront sign for GET alone. Amazon does too, but GDAL handles its signatures itself.
        options["CPL_VSIL_CURL_USE_HEAD"] = "NO"
    return {name: value for name, value in options.items() if name not in user_set}


def endpoint_options(url: str) -> dict[str, str]:
    """Return GDAL's configuration for an S3 server other than Amazon's.

    Examples
    --------
    >>> endpoint_options("http://127.0.0.1:9000/")
    {'AWS_S3_ENDPOINT': '127.0.0.1:9000', 'AWS_HTTPS': 'NO', 'AWS_VIRTUAL_HOSTING': 'FALSE'}
    """
    server = urlsplit(url)
    return {
        "AWS_S3_ENDPOINT": f"{server.netloc}{server.path}".rstrip("/"),
        "AWS_HTTPS": "YES" if server.scheme == "https" else "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",  # few servers have a host name per bucket
    }


def _s3_environment(endpoint_is_set: bool) -> dict[str, str]:
    """Return settings of Amazon's tools and s3fs from the environment, under GDAL's names for them."""
    options: dict[str, str] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and not endpoint_is_set:
        options |= endpoint_options(endpoint)
    credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    return options | {"CPL_AWS_CREDENTIALS_FILE": credentials} if credentials else options


def redacted(href: str) -> str:
    """Return ``href`` for messages, without its query, because a signature is a secret."""
    path, mark, _ = href.partition("?")
    return f"{path}?..." if mark and is_remote(href) else href


class FileError(OSError):
    """A file can't be opened or read. The message names the file and quotes GDAL; GDAL's error is the cause."""

    def __init__(self, message: str, remote: bool = False, answered: bool = True) -> None:
        super().__init__(message)
        self.remote = remote
        """Whether the file is read over a network."""
        self.answered = answered
        """Whether the server answered every request: bytes that can't be decoded are then damaged on the server."""

    def __reduce__(self) -> tuple[type[FileError], tuple[str, bool, bool]]:
        return type(self), (str(self), self.remote, self.answered)


@contextmanager
def file_errors(href: str) -> Iterator[None]:
    """Raise rasterio's errors as a `FileError`."""
    from rasterio.errors import RasterioError

    remote = is_remote(href)
    with counting_repeats() as repeats:
        try:
            yield
        except RasterioError as error:
            answered = not repeats and (not remote or repeats_are_logged())
            _forget_last_error()
            if remote:
                _READERS.set(href, None)
            # The message of the error itself may be "Read failed. See previous exception for details."
            reason = str(error.__cause__ or error).replace(gdal_path(href), href)
            if redacted(href) != href:
                reason = reason.replace(href[href.index("?") :], "?...")  # also where GDAL omits the folder
            raise FileError(f"can't read {redacted(href)}: {reason}", remote, answered) from error


def _forget_last_error() -> None:
    """Reset GDAL's last error of this thread, which rasterio may report for the next call, on another file.

    Opening any file resets it, even a missing file.
    """
    import rasterio
    from rasterio.errors import RasterioIOError

    with suppress(RasterioIOError):
        rasterio.open("/vsimem/xchip-no-such-file").close()


Account: TypeAlias = tuple[tuple[str, str], ...]
"""Credentials and server of a thread's reads: settings of `rasterio.Env`."""


class _Readers:
    """The account that last read each remote file; None if that read failed.

    GDAL's caches serve the whole process and all accounts. They hold that a file could not be opened, for any reason (also a
    503), and received bytes, even if they were cut short. A file whose last read failed, or used another account, is therefore
    opened without them: the server is asked again.
    """

    SIZE = 4096
    """Maximum number of files."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, Account | None] = OrderedDict()
        self._lock = threading.Lock()

    def set(self, href: str, account: Account | None) -> None:
        with self._lock:
            self._accounts[href] = account
            self._accounts.move_to_end(href)
            if len(self._accounts) > self.SIZE:
                self._accounts.popitem(last=False)

    def trusts(self, href: str, account: Account) -> bool:
        """Whether GDAL's caches may be used for a file."""
        return self._accounts.get(href, account) == account


_READERS = _Readers()


def open_dataset(href: str) -> DatasetReader:
    """Open a rasterio dataset that no other code shares.

    Raises
    ------
    FileError
        If the file can't be opened; the message names it.
    """
    import rasterio

    account = _account(href)
    with rasterio.Env(**gdal_options(href)), file_errors(href):
        uncached = is_remote(href) and not _READERS.trusts(href, account)
        dataset = _open_uncached(gdal_path(href)) if uncached else rasterio.open(gdal_path(href), sharing=False)
    if is_remote(href):
        _READERS.set(href, account)
    return dataset


def _open_uncached(path: str) -> DatasetReader:
    """Open a remote file without GDAL's caches."""
    import rasterio
    from rasterio.errors import RasterioError

    # The option is a list of name prefixes separated by colons, so it can't hold a URL.
    with rasterio.Env(CPL_VSIL_CURL_NON_CACHED="/vsi"):
        try:
            return rasterio.open(path, sharing=False)
        except RasterioError:
            if path.startswith("/vsicurl/"):
                raise
        # In a bucket GDAL sends the request and still uses its cached result. That request cleared the cache: try again.
        return rasterio.open(path, sharing=False)


@contextmanager
def reading(href: str, dataset: DatasetReader) -> Iterator[None]:
    """Apply GDAL's settings for reads from an open dataset, and raise errors that name the file."""
    import rasterio

    options = gdal_options(href) if is_remote(href) else {}
    if "JP2" in dataset.driver:
        # With several threads, GDAL's JPEG2000 driver does not report a block that can't be decoded: the pixels of a truncated
        # file are then uninitialised memory.
        options["GDAL_NUM_THREADS"] = "1"
    with rasterio.Env(**options) if options else nullcontext(), file_errors(href):
        yield


_ACCOUNT_OPTIONS = ("AWS_", "GS_", "AZURE_", "OSS_", "SWIFT_", "GDAL_HTTP_")


def _account(href: str) -> Account:
    """Return the account with which this thread reads ``href``."""
    from rasterio.env import getenv, hasenv

    if not is_remote(href) or not hasenv():
        return ()
    return tuple(sorted((name, str(value)) for name, value in getenv().items() if name.upper().startswith(_ACCOUNT_OPTIONS)))


Stamp: TypeAlias = tuple[int, int, int]
"""A value that changes when a local file is written again."""


def stamp_of(stat: os.stat_result) -> Stamp:
    """Return (time of modification, size, inode) of a file."""
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class _Idle(NamedTuple):
    href: str
    account: Account
    stamp: Stamp | None
    dataset: DatasetReader


class DatasetPool:
    """Datasets that stay open between reads, each used by one thread at a time.

    Unused datasets wait in the pool, at most ``size`` of them. A thread opens a dataset if the pool has none for its file, so a
    file has as many datasets as threads read it at once. A local file that changed on disk is opened again, and so is a remote
    file under other settings, such as another endpoint or other keys.
    """

    def __init__(self, size: int = POOL_SIZE) -> None:
        self.size = size
        self._idle: list[_Idle] = []  # least recently used first
        self._lock = threading.Lock()
        self._abandoned: list[list[_Idle]] = []
        self._spent: WeakKeyDictionary[DatasetReader, int] = WeakKeyDictionary()

    def spend(self, dataset: DatasetReader, size: int) -> None:
        """Record that ``size`` bytes of whole blocks were read from a dataset and won't be read again."""
        self._spent[dataset] = self._spent.get(dataset, 0) + size

    @contextmanager
    def borrowed(self, href: str) -> Iterator[DatasetReader]:
        """Yield an open dataset of ``href`` that this thread alone uses until the end of the ``with`` block.

        Raises
        ------
        FileError
            If the file can't be opened, or a read inside the block fails; the message names the file.
        """
        account, stamp = _account(href), _stamp(href)
        dataset = self._take(href, account, stamp) or open_dataset(href)
        try:
            with reading(href, dataset):
                yield dataset
        except BaseException:
            dataset.close()
            raise
        if self._spent.get(dataset, 0) > KEPT_BYTES and not is_remote(href):
            dataset.close()
        else:
            self._put(_Idle(href, account, stamp, dataset))

    def clear(self) -> None:
        """Close the unused datasets."""
        with self._lock:
            idle, self._idle = self._idle, []
        for entry in idle:
            entry.dataset.close()

    def __len__(self) -> int:
        return len(self._idle)

    def _take(self, href: str, account: Account, stamp: Stamp | None) -> DatasetReader | None:
        with self._lock:
            matching = [entry for entry in self._idle if entry.href == href and entry.account == account]
            stale = [entry for entry in matching if entry.stamp != stamp]
            fresh = [entry for entry in matching if entry.stamp == stamp]
            for entry in (*stale, *fresh[-1:]):
                self._idle.remove(entry)
        for entry in stale:
            entry.dataset.close()
        return fresh[-1].dataset if fresh else None

    def _put(self, entry: _Idle) -> None:
        with self._lock:
            self._idle.append(entry)
            surplus, self._idle = self._idle[: -self.size], self._idle[-self.size :]
        for old in surplus:
            old.dataset.close()

    def _after_fork(self) -> None:
        # A child shares the parent's file positions, so it must not read these datasets. Closing them could wait forever on a
        # GDAL lock that another thread of the parent held.
        self._abandoned.append(self._idle)
        self._idle, self._lock = [], threading.Lock()


def _stamp(href: str) -> Stamp | None:
    """Return the stamp of a local file; None for other files, which can't be checked cheaply."""
    path = gdal_path(href)
    if path.startswith("/vsi"):
        return None
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None  # GDAL's own names, such as "NETCDF:..."; GDAL reports a missing file itself


POOL = DatasetPool()
# rasterio can't close a dataset cleanly once the interpreter is shutting down.
atexit.register(POOL.clear)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL._after_fork)
