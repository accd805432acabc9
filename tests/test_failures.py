"""Failures of real life: what they mean, and reading through them from a server that fails on demand."""

from __future__ import annotations

import errno
import pickle
import random
import socket
import ssl
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from servers import Asked, Fault, RangeServer

from xchip.core.scene import ItemError
from xchip.io.errors import classify, retry_after
from xchip.io.gdal import POOL, FileError
from xchip.io.retry import Event, GivenUp, Outcome, attempts_in, insistently, retry_delay, retrying
from xchip.io.storage import StorageOptions
from xchip.raster.reader import strips

COG = "greenland_cog_100m.tif"
UNSIGNED = StorageOptions()


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def asleep(seconds: float) -> None:
    """Waits that take no time."""


# --- What an error means ----------------------------------------------------------------------------------------------


def client_error(code: str, status: int) -> Exception:
    exceptions = pytest.importorskip("botocore.exceptions")
    response = {"Error": {"Code": code, "Message": "..."}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}}}
    return exceptions.ClientError(response, "GetObject")


def http_error(status: int) -> Exception:
    return urllib.error.HTTPError("https://host/a", status, "...", None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "transient"),
        (TimeoutError("timed out"), "transient"),
        (ConnectionResetError(), "transient"),
        (ConnectionRefusedError(), "transient"),
        (BrokenPipeError(), "transient"),
        (socket.gaierror(-2, "Name or service not known"), "transient"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "transient"),
        (OSError(errno.EBUSY, "Please reduce your request rate."), "transient"),
        (OSError(errno.EREMOTEIO, "We encountered an internal error."), "transient"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "transient"),
        (caused(ssl.SSLError("handshake"), ssl.SSLCertVerificationError("self-signed")), "permanent"),
        (OSError(errno.ENOSPC, "No space left on device"), "permanent"),
        (PermissionError(13, "Permission denied"), "denied"),
        (FileNotFoundError(2, "No such file"), "permanent"),
        (ItemError("a", "no CRS"), "permanent"),
        (KeyError("a"), "permanent"),
        (caused(ItemError("a", "its quality can't be read"), ConnectionResetError()), "transient"),
        (caused(ItemError("a", "its quality can't be read"), FileNotFoundError()), "permanent"),
    ],
    ids=str,
)
def test_errors_of_python(error: Exception, kind: str) -> None:
    assert classify(error) == kind


@pytest.mark.parametrize(
    ("statuses", "kind"), [((401, 403), "denied"), ((408, 429, 500, 502, 503, 504), "transient"), ((400, 404, 410), "permanent")]
)
def test_http_statuses_in_all_their_guises(statuses: tuple[int, ...], kind: str) -> None:
    import requests
    from aiohttp import ClientResponseError
    from pystac_client.exceptions import APIError

    for status in statuses:
        response = requests.Response()
        response.status_code = status
        assert classify(http_error(status)) == kind
        assert classify(requests.HTTPError("...", response=response)) == kind
        assert classify(ClientResponseError(None, (), status=status)) == kind  # type: ignore[arg-type]
        assert classify(APIError.from_response(response)) == kind
        assert classify(FileError(f"can't read https://host/a.tif: HTTP response code: {status}", True)) == kind
        assert classify(caused(OSError(errno.EIO, "..."), client_error("Unheard", status))) == kind  # as s3fs raises it


def test_broken_connections_in_all_their_guises() -> None:
    import aiohttp
    import requests

    for error in (
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("Response payload is not completed"),
        aiohttp.ClientOSError(104, "Connection reset by peer"),
        aiohttp.ServerTimeoutError(),
        requests.ConnectionError("..."),
        requests.Timeout(),
        requests.exceptions.ChunkedEncodingError("Connection broken"),
        urllib.error.URLError(ConnectionRefusedError()),
    ):
        inner = error.reason if isinstance(error, urllib.error.URLError) else None
        assert classify(caused(error, inner) if isinstance(inner, Exception) else error) == "transient", error


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("SlowDown", 503, "transient"),
        ("RequestTimeout", 400, "transient"),
        ("InternalError", 500, "transient"),
        ("ExpiredToken", 400, "denied"),
        ("InvalidAccessKeyId", 403, "denied"),
        ("RequestTimeTooSkewed", 403, "denied"),
        ("NoSuchKey", 404, "permanent"),
        ("NoSuchBucket", 404, "permanent"),
        ("PreconditionFailed", 412, "permanent"),
    ],
)
def test_errors_of_s3(code: str, status: int, kind: str) -> None:
    assert classify(client_error(code, status)) == kind


def test_errors_of_botocore_without_an_answer() -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    assert classify(exceptions.EndpointConnectionError(endpoint_url="http://host")) == "transient"
    assert classify(exceptions.ReadTimeoutError(endpoint_url="http://host")) == "transient"
    assert classify(exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2)) == "transient"
    assert classify(exceptions.NoCredentialsError()) == "denied"
    assert classify(exceptions.ProfileNotFound(profile="none")) == "permanent"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("CURL error: Could not resolve host: host", "transient"),
        ("CURL error: Operation too slow. Less than 1 bytes/sec transferred the last 60 seconds", "transient"),
        ("CURL error: SSL certificate problem: self-signed certificate", "permanent"),
        ("The specified key does not exist.", "permanent"),
        ("The specified bucket does not exist", "permanent"),
        ("The access key ID you provided does not exist in our records.", "denied"),
        ("The provided token has expired.", "denied"),
        ("Please reduce your request rate.", "transient"),
        ("We encountered an internal error. Please try again.", "transient"),
        ("'expired.tif' not recognized as being in a supported file format.", "doubtful"),
        ("timeout.tif, band 1: IReadBlock failed at X offset 1, Y offset 2: TIFFReadEncodedTile() failed.", "doubtful"),
        ("a.tif: TIFFReadDirectory:Failed to read directory at offset 79500", "doubtful"),
        ("something new", "doubtful"),
    ],
)
def test_messages_of_gdal(reason: str, kind: str) -> None:
    text = f"can't read s3://forbidden/expired.tif: {reason}"
    assert classify(FileError(text, remote=True)) == kind
    # Bytes that make no sense are no sign of a damaged file if the server failed in between.
    assert classify(FileError(text, remote=True, answered=False)) == ("transient" if kind == "doubtful" else kind)
    assert classify(FileError(text, remote=False)) == "permanent"


def test_a_file_error_keeps_what_it_knows_when_it_travels() -> None:
    error = FileError("can't read s3://b/a.tif: no", True, False)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.remote, copy.answered) == (str(error), True, False)


def test_what_the_server_asks_to_wait() -> None:
    from aiohttp import ClientResponseError

    busy = ClientResponseError(None, (), status=429, headers={"Retry-After": "7"})  # type: ignore[arg-type]
    assert retry_after(caused(OSError("..."), busy)) == 7
    assert retry_after(OSError("...")) == 0
    limited = client_error("SlowDown", 503)
    limited.response["ResponseMetadata"]["HTTPHeaders"] = {"retry-after": "3"}  # type: ignore[attr-defined]
    assert retry_after(limited) == 3


# --- Trying again -----------------------------------------------------------------------------------------------------


class Signer:
    """Signs with a number that grows when it is renewed."""

    def __init__(self) -> None:
        self.number = 1

    def __call__(self, href: str) -> str:
        return f"{href}?sig={self.number}"

    def renew(self) -> None:
        self.number += 1


def failing(*errors: Exception) -> Callable[[StorageOptions], str]:
    """Fails so often, and then works; says with which signature."""
    left: Iterator[Exception] = iter(errors)

    def function(storage: StorageOptions) -> str:
        for error in left:
            raise error
        return storage.sign("a")

    return function


def kinds(history: tuple[Event, ...]) -> list[str]:
    return [event.kind for event in history]


def test_transient_failures_are_waited_out() -> None:
    waits: list[float] = []
    errors = [ConnectionResetError("gone"), TimeoutError(), OSError(errno.EBUSY, "busy")]
    outcome = retrying(failing(*errors), UNSIGNED, attempts=4, wait=2, sleep=waits.append, rng=random.Random(0))
    assert outcome == Outcome("a", outcome.history)
    assert kinds(outcome.history) == ["transient"] * 3
    assert outcome.history[0] == Event(1, "transient", "ConnectionResetError", "gone")
    assert outcome.history[0].to_dict() == {
        "attempt": 1,
        "kind": "transient",
        "error": "ConnectionResetError",
        "message": "gone",
    }
    assert attempts_in(outcome.history) == 3
    drawn = random.Random(0)
    assert waits == [drawn.uniform(0, 2), drawn.uniform(0, 4), drawn.uniform(0, 8)]


def test_a_permanent_failure_is_final_at_once() -> None:
    waits: list[float] = []
    with pytest.raises(GivenUp, match=r"given up at attempt 2 \(permanent\): FileNotFoundError: b") as caught:
        retrying(failing(TimeoutError("a"), FileNotFoundError("b")), UNSIGNED, sleep=waits.append)
    assert kinds(caught.value.history) == ["transient", "permanent"]
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert len(waits) == 1
    assert pickle.loads(pickle.dumps(caught.value)).history == caught.value.history


def test_attempts_come_to_an_end() -> None:
    with pytest.raises(GivenUp) as caught:
        retrying(failing(*[TimeoutError()] * 9), UNSIGNED, attempts=3, sleep=asleep)
    assert kinds(caught.value.history) == ["transient"] * 3
    with pytest.raises(ValueError, match="attempts is at least 1, got 0"):
        retrying(failing(), UNSIGNED, attempts=0)


def test_a_refusal_is_answered_by_a_new_signature() -> None:
    waits: list[float] = []
    outcome = retrying(failing(http_error(403), http_error(403)), StorageOptions(signer=Signer()), sleep=waits.append)
    assert outcome.value == "a?sig=3"
    assert kinds(outcome.history) == ["denied", "denied"]
    assert len(waits) == 1, "the first new signature is tried at once"
    with pytest.raises(GivenUp) as caught:
        retrying(failing(*[http_error(403)] * 9), StorageOptions(signer=Signer()), sleep=asleep)
    assert kinds(caught.value.history) == ["denied"] * 3
    with pytest.raises(GivenUp) as caught:
        retrying(failing(http_error(403)), UNSIGNED, sleep=asleep)
    assert kinds(caught.value.history) == ["denied"], "nothing signs"


def test_a_doubtful_answer_is_final_if_it_comes_again() -> None:
    one, two = (FileError(f"can't read s3://b/a.tif: a.tif, band 1: IReadBlock failed at X {n}", True) for n in (1, 2))
    assert retrying(failing(one), UNSIGNED, sleep=asleep).value == "a"
    assert kinds(retrying(failing(one, two, one), UNSIGNED, sleep=asleep).history) == ["doubtful"] * 3
    with pytest.raises(GivenUp) as caught:
        retrying(failing(one, one, one), UNSIGNED, sleep=asleep)
    assert kinds(caught.value.history) == ["doubtful", "permanent"]
    assert retrying(failing(one), StorageOptions(signer=Signer()), sleep=asleep).value == "a?sig=2"


def test_what_is_no_failure_passes_through() -> None:
    def interrupted(storage: StorageOptions) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrying(interrupted, UNSIGNED)


def test_a_record_holds_no_signature_and_is_short() -> None:
    error = OSError(f"429, url='https://host/a.tif?sig=secret&se=1' and s3://b/a?token=secret {'x' * 5000}")
    with pytest.raises(GivenUp) as caught:
        retrying(failing(error), UNSIGNED)
    (event,) = caught.value.history
    assert event.message.startswith("429, url='https://host/a.tif?...' and s3://b/a?... xxx")
    assert len(event.message) < 1100


@given(st.integers(1, 2000), st.floats(0, 10), st.floats(0, 100), st.integers(0, 2**32), st.floats(0, 1000))
def test_waits_have_bounds(attempt: int, wait: float, longest: float, seed: int, asked: float) -> None:
    seconds = retry_delay(attempt, wait, longest, random.Random(seed), asked)
    assert min(asked, longest) <= seconds <= longest
    assert seconds <= max(asked, wait * 2.0 ** min(attempt - 1, 60))


def test_insistently_raises_the_error_itself() -> None:
    def function(errors: list[Exception]) -> Callable[[], str]:
        work = failing(*errors)
        return lambda: work(UNSIGNED)

    assert insistently(function([TimeoutError(), TimeoutError()]), sleep=asleep) == "a"
    with pytest.raises(FileNotFoundError):
        insistently(function([FileNotFoundError()]), sleep=asleep)
    waits: list[float] = []
    with pytest.raises(TimeoutError):
        insistently(function([TimeoutError()] * 9), attempts=3, sleep=waits.append)
    assert len(waits) == 2


# --- A server that fails ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.02")
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    yield
    POOL.clear()


@pytest.fixture(scope="module")
def rasters(shared_data: Path) -> Path:
    return shared_data / "rasters"


@pytest.fixture(scope="module")
def expected(rasters: Path) -> np.ndarray:
    return whole(str(rasters / COG))


def whole(href: str) -> np.ndarray:
    return np.concatenate([values.copy() for _, values in strips(href)])


def between(first: int, last: int, fault: Fault) -> Callable[[Asked], Fault | None]:
    return lambda asked: fault if first <= asked.number < last else None


def read(server: RangeServer, file: str = COG, storage: StorageOptions = UNSIGNED, **options: Any) -> Outcome[np.ndarray]:
    return retrying(lambda storage: whole(storage.sign(f"{server.url}/{file}")), storage, sleep=asleep, **options)


# Where nothing answers a HEAD, newer versions go on with a GET, and older ones give up.
GETS_AFTER_HEAD = tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) >= (3, 11)


# A file is opened with one HEAD and one GET; then come ranges, two at a time, each asked for three times if need be.
@pytest.mark.parametrize(
    ("fault", "history"),
    [
        (between(0, 3, Fault(status=503)), ["overcome", "transient"]),
        (between(0, 3, Fault(status=429, headers={"Retry-After": "1"})), ["overcome", "transient"]),
        (between(0, 3, Fault(reset=True)), ["overcome"] if GETS_AFTER_HEAD else ["overcome", "transient"]),
        (between(0, 1, Fault(status=500)), ["overcome"]),
        (between(3, 5, Fault(status=503)), ["overcome"]),
        (between(3, 23, Fault(status=503)), ["overcome", "transient"]),
        (between(3, 23, Fault(reset=True)), ["overcome", "transient"]),
        (between(3, 4, Fault(cut=1000)), ["doubtful"]),
        (between(3, 4, Fault(cut=1000, reset=True)), []),
        (between(3, 4, Fault(shorten=1000)), ["doubtful"]),
        (between(1, 3, Fault(shorten=1000)), ["doubtful"]),
        (between(3, 4, Fault(garble=True)), ["doubtful"]),
        (between(3, 7, Fault(status=404)), ["doubtful"]),
    ],
)
def test_reading_goes_on_through(
    rasters: Path, expected: np.ndarray, fault: Callable[[Asked], Fault | None], history: list[str]
) -> None:
    with RangeServer(rasters, fault=fault) as server:
        outcome = read(server)
        np.testing.assert_array_equal(outcome.value, expected)
        assert sorted(set(kinds(outcome.history))) == sorted(history)


def test_a_stalled_connection_is_given_up(rasters: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    end = threading.Event()
    with RangeServer(rasters, fault=between(0, 2, Fault(stall=end))) as server:
        outcome = read(server)
        end.set()
        np.testing.assert_array_equal(outcome.value, expected)
        assert kinds(outcome.history) == ["transient"] * (1 if GETS_AFTER_HEAD else 2)
        assert "too slow" in outcome.history[0].message


def test_ranges_that_do_not_come_are_no_damage_where_the_servers_answers_are_not_known(
    rasters: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")  # GDAL then says no word of a 503
    with RangeServer(rasters, fault=lambda asked: Fault(status=503) if asked.first and asked.number < 30 else None) as server:
        outcome = read(server, attempts=20)
        np.testing.assert_array_equal(outcome.value, expected)
        assert set(kinds(outcome.history)) == {"transient"}
        assert len(outcome.history) > 1


class Tokens(Signer):
    """A server's tokens: each is good for so many requests."""

    def __init__(self, requests: int) -> None:
        super().__init__()
        self.requests, self.used = requests, 0

    def fault(self, asked: Asked) -> Fault | None:
        """403 with an old token, or none."""
        self.used += 1
        return None if asked.query == f"sig={self.number}" and self.used <= self.requests else Fault(status=403)

    def renew(self) -> None:
        super().renew()
        self.used = 0


@pytest.mark.parametrize(("already", "history"), [(20, ["denied"]), (15, ["doubtful"])])
def test_a_token_that_expires(rasters: Path, expected: np.ndarray, already: int, history: list[str]) -> None:
    tokens = Tokens(requests=18)
    tokens.used = already  # it expires before the file is opened, or between two of its ranges
    with RangeServer(rasters, fault=tokens.fault) as server:
        outcome = read(server, storage=StorageOptions(signer=tokens))
        np.testing.assert_array_equal(outcome.value, expected)
        assert kinds(outcome.history) == history
        assert tokens.number == 2
        with pytest.raises(GivenUp) as caught:
            read(server)
        assert [event.message for event in caught.value.history] == [f"can't read {server.url}/{COG}: HTTP response code: 403"]


def test_what_is_not_there_is_asked_for_once(rasters: Path) -> None:
    with RangeServer(rasters) as server:
        for _ in range(2):
            server.requests.clear()
            with pytest.raises(GivenUp) as caught:
                read(server, "none.tif")
            assert kinds(caught.value.history) == ["permanent"]
            assert [status for *_, status in server.requests] == [404], "and asked for again in the next run"


@pytest.mark.parametrize("name", ["cut.tif", "cut at a block.tif", "damaged.tif", "page.tif", "empty.tif"])
def test_a_damaged_file_is_read_twice(rasters: Path, tmp_path: Path, name: str) -> None:
    content = (rasters / COG).read_bytes()
    half = len(content) // 2
    (tmp_path / "cut.tif").write_bytes(content[:half])
    (tmp_path / "cut at a block.tif").write_bytes(content[: len(content) // 10])  # of the next block comes no byte
    (tmp_path / "damaged.tif").write_bytes(content[:half] + bytes(3000) + content[half + 3000 :])
    (tmp_path / "page.tif").write_text("<html>Sorry</html>")
    (tmp_path / "empty.tif").write_bytes(b"")
    with RangeServer(tmp_path) as server:
        with pytest.raises(GivenUp) as caught:
            read(server, name.replace(" ", "%20"))
        assert kinds(caught.value.history) == ["doubtful", "permanent"]
        assert [method for method, *_ in server.requests].count("HEAD") == 2
    with pytest.raises(GivenUp) as caught:
        retrying(lambda storage: whole(str(tmp_path / name)), UNSIGNED)
    assert kinds(caught.value.history) == ["permanent"], "a disk is read once"


def test_servers_that_can_not_be_reached() -> None:
    with RangeServer(Path()) as server:
        pass  # nobody listens any more
    with pytest.raises(GivenUp) as caught:
        read(server, attempts=2)
    assert [event.kind for event in caught.value.history if event.kind != "overcome"] == ["transient"] * 2


def test_a_failed_read_outside_of_an_archive_can_be_repeated(rasters: Path, expected: np.ndarray) -> None:
    """GDAL alone would go on to say that the file does not exist."""
    with RangeServer(rasters, fault=between(0, 3, Fault(status=503))) as server:
        with pytest.raises(FileError, match="HTTP response code: 503"):
            whole(f"{server.url}/{COG}")
        np.testing.assert_array_equal(whole(f"{server.url}/{COG}"), expected)
