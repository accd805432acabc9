"""Opening raster files with GDAL: what an href is to GDAL, with which options, and datasets that stay open between reads."""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from xchip.io.gdal_log import counting_repeats, observable

# Bounds file handles and header memory of a process; a Sentinel-2 scene has 13 bands, and each thread may hold its own.
POOL_SIZE = 64

# GDAL keeps the blocks that it has decoded, for all open datasets together up to 5 % of the machine's memory, in each process.
# Blocks that were read whole are not asked for again. Closing a local file frees them, and to open it takes a millisecond.
KEPT_BYTES = 32 << 20

_SCHEMES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "ftp": "/vsicurl/ftp://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "gcs": "/vsigs/",
    "az": "/vsiaz/",
    "azure": "/vsiaz/",
    "abfs": "/vsiaz/",
    "abfss": "/vsiaz/",
    "oss": "/vsioss/",
    "swift": "/vsiswift/",
}
_REMOTE = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift", "/vsiwebhdfs", "/vsihdfs")

# Cloud-optimised files are read in few requests, and a busy server is asked again. Two quick repeats by GDAL save to read a
# whole file anew for one range that failed; it waits 0.5 s and 1 s. More would keep a thread for long that an archive's own
# retries (`xchip.io.retry`), which wait longer and leave a record, use better.
_REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing of buckets, no requests for sidecar files
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the header of a full-size COG in one request
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",  # a connection that stalls for a minute is given up, and retried
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "2000000",  # bytes a file; 25 MB, GDAL's default, would be kept for each file of the pool
}

# EMPTY_DIR, a common setting for remote files, hides the .aux.xml beside a local one, where the georeferencing may be.
# TRUE looks for sidecars by name and does not list the folder.
_LOCAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}


def gdal_path(href: str) -> str:
    """What GDAL opens for ``href``: a path, a URL, or a name that GDAL knows already.

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
    """GDAL's configuration for ``href``; for remote files, what the user has set wins."""
    from rasterio.env import getenv, hasenv

    if not is_remote(href):
        return dict(_LOCAL_OPTIONS)
    chosen = {name.upper() for name in (*os.environ, *(getenv() if hasenv() else ()))}
    options = dict(_REMOTE_OPTIONS)
    if "/vsis3/" in gdal_path(href):
        options |= _renamed("AWS_S3_ENDPOINT" in chosen)
    query = href.partition("?")[2].lower()
    if "signature=" in query and "x-amz-signature=" not in query:
        # Signed for GET alone, as Google's and CloudFront's are; GDAL knows this of Amazon's by itself.
        options["CPL_VSIL_CURL_USE_HEAD"] = "NO"
    return {name: value for name, value in options.items() if name not in chosen}


def endpoint_options(url: str) -> dict[str, str]:
    """GDAL's configuration for an S3 server that is not Amazon's.

    Examples
    --------
    >>> endpoint_options("http://127.0.0.1:9000/")
    {'AWS_S3_ENDPOINT': '127.0.0.1:9000', 'AWS_HTTPS': 'NO', 'AWS_VIRTUAL_HOSTING': 'FALSE'}
    """
    server = urlsplit(url)
    return {
        "AWS_S3_ENDPOINT": f"{server.netloc}{server.path}".rstrip("/"),
        "AWS_HTTPS": "YES" if server.scheme == "https" else "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",  # few servers have a host name for each bucket
    }


def _renamed(endpoint_is_known: bool) -> dict[str, str]:
    """What Amazon's tools and s3fs find in the environment under names that GDAL does not know."""
    options: dict[str, str] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and not endpoint_is_known:
        options |= endpoint_options(endpoint)
    credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    return options | {"CPL_AWS_CREDENTIALS_FILE": credentials} if credentials else options


def shown(href: str) -> str:
    """``href`` for messages: a signature in its query is a secret."""
    path, mark, _ = href.partition("?")
    return f"{path}?..." if mark and is_remote(href) else href


class FileError(OSError):
    """A file that can't be opened or read. The message names it and says what GDAL said; GDAL's error is the cause."""

    def __init__(self, message: str, remote: bool = False, answered: bool = True) -> None:
        super().__init__(message)
        self.remote = remote
        """Whether it is read over a network."""
        self.answered = answered
        """Whether every request is known to have been answered: what can't be decoded is then what the server has."""

    def __reduce__(self) -> tuple[type[FileError], tuple[str, bool, bool]]:
        return type(self), (str(self), self.remote, self.answered)


@contextmanager
def clear_errors(href: str) -> Iterator[None]:
    """Turn rasterio's errors into a `FileError`."""
    from rasterio.errors import RasterioError

    remote = is_remote(href)
    with counting_repeats() as repeats:
        try:
            yield
        except RasterioError as error:
            answered = not repeats and (not remote or observable())
            _forget_last_error()
            if remote:
                _READERS.set(href, None)
            # "Read failed. See previous exception for details." is of no use alone.
            reason = str(error.__cause__ or error).replace(gdal_path(href), href)
            if shown(href) != href:
                reason = reason.replace(href[href.index("?") :], "?...")  # also where GDAL leaves the folder out
            raise FileError(f"can't read {shown(href)}: {reason}", remote, answered) from error


def _forget_last_error() -> None:
    """GDAL keeps a thread's last error, and rasterio may take it for that of the next call, on quite another file.

    To open anything resets it, also what is not there.
    """
    import rasterio
    from rasterio.errors import RasterioIOError

    with suppress(RasterioIOError):
        rasterio.open("/vsimem/xchip-no-such-file").close()


Account = tuple[tuple[str, str], ...]
"""As whom, and from which server, a thread reads: settings of `rasterio.Env`."""


class _Readers:
    """Who read a remote file last; None where that failed.

    GDAL remembers for the whole process that a file could not be opened, whatever the reason (a 503 too), and what it was sent,
    also if that came short, and for whomever. So a file whose last read failed, or was another account's, is opened with all
    that set aside: the server is asked again.
    """

    SIZE = 4096
    """Files that are remembered."""

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
        """Whether what GDAL remembers of a file may be used."""
        return self._accounts.get(href, account) == account


_READERS = _Readers()


def open_dataset(href: str) -> Any:
    """A rasterio dataset of its own, not shared with anyone.

    Raises
    ------
    FileError
        If it can't be opened; the message names the file.
    """
    import rasterio

    account = _account(href)
    with rasterio.Env(**gdal_options(href)), clear_errors(href):
        anew = is_remote(href) and not _READERS.trusts(href, account)
        dataset = _open_anew(gdal_path(href)) if anew else rasterio.open(gdal_path(href), sharing=False)
    if is_remote(href):
        _READERS.set(href, account)
    return dataset


def _open_anew(path: str) -> Any:
    """A dataset of a remote file, for which GDAL's caches are not asked."""
    import rasterio
    from rasterio.errors import RasterioError

    # It holds for files whose names begin so. A list would have colons in between, and so a URL can't be in it.
    with rasterio.Env(CPL_VSIL_CURL_NON_CACHED="/vsi"):
        try:
            return rasterio.open(path, sharing=False)
        except RasterioError:
            if path.startswith("/vsicurl/"):
                raise
        # In a bucket GDAL asks again, and then believes its old answer all the same. It has forgotten that one now.
        return rasterio.open(path, sharing=False)


@contextmanager
def reading(href: str, dataset: Any) -> Iterator[None]:
    """GDAL's settings, and errors that name the file, for reads from an open dataset."""
    import rasterio

    options = gdal_options(href) if is_remote(href) else {}
    if "JP2" in dataset.driver:
        # With threads of its own, GDAL's JPEG2000 driver does not pass on that a block could not be decoded: the pixels
        # of a truncated file are then whatever was in the memory.
        options["GDAL_NUM_THREADS"] = "1"
    with rasterio.Env(**options) if options else nullcontext(), clear_errors(href):
        yield


_ACCOUNT_OPTIONS = ("AWS_", "GS_", "AZURE_", "OSS_", "SWIFT_", "GDAL_HTTP_")


def _account(href: str) -> Account:
    """As whom this thread reads ``href`` now."""
    from rasterio.env import getenv, hasenv

    if not is_remote(href) or not hasenv():
        return ()
    return tuple(sorted((name, str(value)) for name, value in getenv().items() if name.upper().startswith(_ACCOUNT_OPTIONS)))


class _Idle(NamedTuple):
    href: str
    account: Account
    stamp: tuple[int, int, int] | None
    dataset: Any


class DatasetPool:
    """Datasets that stay open between reads, each in one thread's hands at a time.

    A dataset that nobody uses waits in the pool; a thread that finds none for its file opens one more. So there are as
    many for a file as threads that read it at once, and at most ``size`` wait. A local file that has changed on disk is
    opened anew, and so is a remote file under other settings, such as another endpoint or other keys.
    """

    def __init__(self, size: int = POOL_SIZE) -> None:
        self.size = size
        self._idle: list[_Idle] = []  # the least recently used first
        self._lock = threading.Lock()
        self._abandoned: list[list[_Idle]] = []
        self._spent: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def spend(self, dataset: Any, size: int) -> None:
        """Say that ``size`` bytes of whole blocks were read from a dataset, and won't be needed again."""
        self._spent[dataset] = self._spent.get(dataset, 0) + size

    @contextmanager
    def borrowed(self, href: str) -> Iterator[Any]:
        """An open dataset of ``href``, for this thread alone until the end of the ``with`` block.

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
        """Close the datasets that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for entry in idle:
            entry.dataset.close()

    def __len__(self) -> int:
        return len(self._idle)

    def _take(self, href: str, account: Account, stamp: tuple[int, int, int] | None) -> Any:
        with self._lock:
            mine = [entry for entry in self._idle if entry.href == href and entry.account == account]
            stale = [entry for entry in mine if entry.stamp != stamp]
            fresh = [entry for entry in mine if entry.stamp == stamp]
            gone = [id(entry) for entry in (*stale, *fresh[-1:])]
            if gone:
                self._idle = [entry for entry in self._idle if id(entry) not in gone]
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
        # A child shares the parent's file positions, so it must not read these datasets; and to close them could wait for
        # ever on a lock of GDAL that another thread of the parent held.
        self._abandoned.append(self._idle)
        self._idle, self._lock = [], threading.Lock()


def _stamp(href: str) -> tuple[int, int, int] | None:
    """What changes when a local file is written again; None for what can't be asked cheaply."""
    path = gdal_path(href)
    if path.startswith("/vsi"):
        return None
    try:
        stat = os.stat(path)
    except OSError:
        return None  # GDAL's own names, such as "NETCDF:..."; and for a missing file GDAL says so itself
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


POOL = DatasetPool()
# rasterio can't close a dataset cleanly once the interpreter has begun to fall apart.
atexit.register(POOL.clear)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL._after_fork)
