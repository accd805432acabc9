"""A range server in a process of its own that answers late, as one far away does; it counts requests and bytes."""

from __future__ import annotations

import multiprocessing
import re
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DELAY = 0.020
"""Seconds that each request waits."""


class SlowServer:
    """Serves the files of ``folder`` under any first folder name, so that every caller has URLs that nobody used before."""

    def __init__(self, folder: Path, delay: float = DELAY) -> None:
        context = multiprocessing.get_context("spawn")
        self._requests, self._bytes = context.Value("q", 0), context.Value("q", 0)
        port = context.Value("i", 0)
        self._process = context.Process(target=_serve, args=(str(folder), delay, port, self._requests, self._bytes), daemon=True)
        self._process.start()
        while not port.value:
            if not self._process.is_alive():
                raise RuntimeError(f"the range server ended with code {self._process.exitcode} before it listened")
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{port.value}"

    def counted(self) -> tuple[int, int]:
        """(requests, bytes) so far."""
        return self._requests.value, self._bytes.value

    def __enter__(self) -> SlowServer:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._process.terminate()
        self._process.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


def _serve(folder: str, delay: float, port: Any, requests: Any, sent: Any) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def do_HEAD(self) -> None:
            self._answer(content=False)

        def do_GET(self) -> None:
            self._answer(content=True)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, *, content: bool) -> None:
            time.sleep(delay)
            path = Path(folder) / self.path.lstrip("/").partition("/")[2]
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size = path.stat().st_size
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            start, stop = (int(wanted[1]), min(int(wanted[2] or size) + 1, size)) if wanted else (0, size)
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.end_headers()
            with requests.get_lock():
                requests.value += 1
                sent.value += (stop - start) if content else 0
            if content:
                with open(path, "rb") as file, suppress(ConnectionError):
                    file.seek(start)
                    self.wfile.write(file.read(stop - start))

    server = _Server(("127.0.0.1", 0), Handler)
    port.value = server.server_port
    server.serve_forever()
