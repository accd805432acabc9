"""A small HTTP server on loopback that answers range requests, as object stores do, and fails in their ways if told to."""

from __future__ import annotations

import re
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client may hang up once it has read enough.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@dataclass(frozen=True)
class Asked:
    """A request, as a fault is decided by it."""

    number: int
    """How many requests for this path came before."""
    method: str
    path: str
    query: str
    first: int
    """First byte asked for."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an answer."""

    status: int | None = None
    """Answer this, without content."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of that answer."""
    body: bytes = b""
    """Content of that answer."""
    cut: int | None = None
    """Send only so many bytes of what Content-Length promises, and hang up."""
    shorten: int | None = None
    """Send only so many bytes, as a complete answer to another range than asked for."""
    reset: bool = False
    """Reset the connection; after ``cut`` bytes, if that is given."""
    stall: threading.Event | None = None
    """Say nothing more until this is set; after ``cut`` bytes, if that is given."""
    garble: bool = False
    """Send zeros in place of the content."""


class RangeServer:
    """Serve the files of ``folder`` at ``url``; a context manager.

    With ``query``, as for a signed URL: only GET, and only with that query string; anything else is 403. The first ``busy``
    requests for data are answered 503. ``fault`` decides what goes wrong with a request, if anything.
    """

    def __init__(
        self,
        folder: Path,
        *,
        query: str | None = None,
        busy: int = 0,
        fault: Callable[[Asked], Fault | None] = lambda asked: None,
    ) -> None:
        self.folder, self.query, self.busy, self.fault = folder, query, busy, fault
        self.requests: list[tuple[str, str, int]] = []
        """(method, path with query, status) of each request; status 0 where none was sent."""
        self.sent = 0
        """Bytes of content sent."""
        self._asked: Counter[str] = Counter()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where the folder is served."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> RangeServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(content=False)

            def do_GET(self) -> None:
                self._answer(content=True)

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def _answer(self, *, content: bool) -> None:
                fault = owner._fault(self.command, self.path, self.headers.get("Range")) or Fault()
                if fault.cut is None and (fault.reset or fault.stall):
                    owner.requests.append((self.command, self.path, 0))
                    self._break(fault)
                    return
                if fault.status is not None:
                    status, body = fault.status, fault.body
                    headers = {"Content-Length": str(len(body)), **fault.headers}
                else:
                    status, headers, body = owner._reply(self.command, self.path, self.headers.get("Range"))
                if fault.garble:
                    body = bytes(len(body))
                if fault.shorten is not None:
                    body = body[: fault.shorten]
                    headers["Content-Length"] = str(len(body))
                owner.requests.append((self.command, self.path, status))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if not content:
                    return
                part = body if fault.cut is None else body[: fault.cut]
                owner.sent += len(part)
                self.wfile.write(part)
                if len(part) < len(body):
                    self._break(fault)

            def _break(self, fault: Fault) -> None:
                self.wfile.flush()
                self.close_connection = True
                if fault.stall is not None:
                    fault.stall.wait()
                if fault.reset:
                    # A socket that is closed with a linger of 0 seconds sends RST in place of FIN.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()

        return Handler

    def _fault(self, method: str, path: str, wanted: str | None) -> Fault | None:
        parts = urlsplit(path)
        match = re.match(r"bytes=(\d+)-", wanted or "")
        asked = Asked(self._asked[parts.path], method, parts.path, parts.query, int(match[1]) if match else 0)
        self._asked[parts.path] += 1
        return self.fault(asked)

    def _reply(self, method: str, path: str, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(path)
        if self.query is not None and (method != "GET" or parts.query != self.query):
            return 403, {"Content-Length": "0"}, b""
        file = self.folder / unquote(parts.path).lstrip("/")
        if not file.is_file():
            return 404, {"Content-Length": "0"}, b""
        if method == "GET" and self.busy:
            self.busy -= 1
            return 503, {"Content-Length": "0"}, b""
        data = file.read_bytes()
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if match is None:
            return 200, {**headers, "Content-Length": str(len(data))}, data
        start, stop = int(match[1]), min(int(match[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return 416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"}, b""
        headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", "Content-Length": str(stop - start)}
        return 206, headers, data[start:stop]
