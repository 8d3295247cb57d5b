"""A real HTTP server on a free port of this machine, which serves images well and badly."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Answer = Callable[["Request"], None]
"""Writes the answer to a request."""


class Request(BaseHTTPRequestHandler):
    """A request, and the means to answer it."""

    protocol_version = "HTTP/1.1"
    site: ImageServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.site.requests.append((time.monotonic(), self.path))
        self.site.counts[parts.path] += 1
        answer = self.site.answers.get(parts.path)
        if isinstance(answer, bytes):
            self.reply(200, answer)
        elif answer is None:
            self.reply(404, b"nothing here")
        else:
            answer(self)

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@dataclass
class ImageServer:
    """What the server answers by path (bytes: this content), and what it was asked for, with its time."""

    answers: dict[str, bytes | Answer] = field(default_factory=dict)
    requests: list[tuple[float, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    url: str = ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # readers that leave early are part of the tests


@contextmanager
def image_server() -> Iterator[ImageServer]:
    """Serve until the end of the context."""
    site = ImageServer()
    handler = type("Handler", (Request,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
