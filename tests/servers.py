"""A small HTTP server on loopback that answers range requests, as object stores do."""

from __future__ import annotations

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client may hang up once it has read enough.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class RangeServer:
    """Serve the files of ``folder`` at ``url``; a context manager.

    With ``query``, as for a signed URL: only GET, and only with that query string; anything else is 403. The first ``busy``
    requests for data are answered 503.
    """

    def __init__(self, folder: Path, *, query: str | None = None, busy: int = 0) -> None:
        self.folder, self.query, self.busy = folder, query, busy
        self.requests: list[tuple[str, str, int]] = []
        """(method, path with query, status) of each request."""
        self.sent = 0
        """Bytes of content sent."""
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
                status, headers, body = owner._reply(self.command, self.path, self.headers.get("Range"))
                owner.requests.append((self.command, self.path, status))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if content:
                    owner.sent += len(body)
                    self.wfile.write(body)

        return Handler

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
