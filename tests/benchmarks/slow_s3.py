"""An S3 server as far away as a real one: moto behind a proxy that counts requests and delays each answer."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.s3 import s3_server_at

_REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) /\S* HTTP/1\.1\r\n", re.MULTILINE)


@dataclass
class SlowS3:
    """Counts of requests by method, and the port to ask; `latency` is in seconds."""

    upstream: int
    latency: float
    port: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    async def serve(self, started: threading.Event) -> None:
        """Forward connections until cancelled."""
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await server.serve_forever()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection("127.0.0.1", self.upstream)
        with_count = self._copy(reader, to_server[1], is_request=True)
        await asyncio.gather(with_count, self._copy(to_server[0], writer, is_request=False))

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        try:
            while data := await source.read(2**20):
                if is_request and (found := _REQUEST.match(data)):
                    self.counts[found[1].decode()] += 1
                    await asyncio.sleep(self.latency)
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()


@contextmanager
def slow_s3(folder: Path, latency: float) -> Iterator[SlowS3]:
    """Run both for a `with` block, with the server's log in `folder`."""
    with s3_server_at("127.0.0.1", folder) as upstream:
        proxy = SlowS3(upstream, latency)
        started = threading.Event()
        loop = asyncio.new_event_loop()
        serving = loop.create_task(proxy.serve(started))

        def run() -> None:
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(serving)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        started.wait()
        try:
            yield proxy
        finally:
            loop.call_soon_threadsafe(serving.cancel)
            thread.join()
