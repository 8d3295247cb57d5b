"""TLS with real servers: samples come where the authority is trusted. Who is not trusted is
refused, with a reason for a person, and tried again."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import redis.asyncio
from aiohttp import web
from pydantic import TypeAdapter

from genray.errors import SettingsError
from monitors.sources import SourceSettings, make_source
from monitors.sources.base import SourceLost
from monitors.sources.connection import explain_tls_failure
from monitors.sources.message import Chunk, encode
from tests.monitors.alerting import Api
from tests.monitors.certificates import proving
from tests.monitors.samples import FeedWatcher, chunk
from tests.monitors.sources.kafka_broker import produce, start_broker
from tests.servers import free_port, mosquitto, redis_server

Send = Callable[[Chunk], Awaitable[None]]
SECRET = "s3cret"
# Of more than a TLS record, which is what comes in one piece.
LARGE = chunk(0, rate=4000, seconds=10)


@asynccontextmanager
async def mqtt(folder: Path, keys: Path, certificate: str, port: int) -> AsyncIterator[Send]:
    async def send(each: Chunk) -> None:
        trusting = ssl.create_default_context(cafile=str(keys / "ca.pem"))
        async with aiomqtt.Client("127.0.0.1", port, tls_context=trusting) as client:
            await client.publish("ecg/bed-17/samples", encode(each))

    with mosquitto(folder, port=port, certificate=keys / certificate):
        yield send


@asynccontextmanager
async def redis_streams(folder: Path, keys: Path, certificate: str, port: int) -> AsyncIterator[Send]:
    async def send(each: Chunk) -> None:
        client = redis.asyncio.Redis(port=port, host="127.0.0.1", ssl=True, ssl_ca_certs=str(keys / "ca.pem"))
        await client.xadd("ecg", {"m": encode(each)})
        await client.aclose()

    with redis_server(folder, port=port, certificate=keys / certificate):
        yield send


@asynccontextmanager
async def websocket(folder: Path, keys: Path, certificate: str, port: int) -> AsyncIterator[Send]:
    sockets: list[web.WebSocketResponse] = []

    async def accept(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {SECRET}"
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sockets.append(socket)
        async for _ in socket:
            pass
        return socket

    async def send(each: Chunk) -> None:
        await sockets[-1].send_bytes(encode(each))

    app = web.Application()
    app.router.add_get("/", accept)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=proving(keys, certificate)).start()
    try:
        yield send
    finally:
        await runner.cleanup()


@asynccontextmanager
async def kafka(folder: Path, keys: Path, certificate: str, port: int) -> AsyncIterator[Send]:
    """The mocked brokers know no TLS: it ends before them, where their own address is hidden too."""
    producer, servers = start_broker()
    behind = int(servers.rpartition(":")[2])
    shown, hidden = (b"127.0.0.1" + struct.pack(">i", each) for each in (port, behind))

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        try:
            while data := await reader.read(2**20):
                writer.write(change(data))
                await writer.drain()
        except OSError:
            pass  # the other side is gone
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(
            pump(reader, outer, lambda data: data),
            pump(inner, writer, lambda data: data.replace(hidden, shown)),
        )

    async def send(each: Chunk) -> None:
        await asyncio.to_thread(produce, producer, encode(each))

    server = await asyncio.start_server(relay, "127.0.0.1", port, ssl=proving(keys, certificate))
    try:
        yield send
    finally:
        server.close()


Serve = Callable[[Path, Path, str, int], AbstractAsyncContextManager[Send]]
SERVERS: dict[str, Serve] = {
    "mqtt": mqtt,
    "redis": redis_streams,
    "websocket": websocket,
    "kafka": kafka,
}


def tls_source(kind: str, port: int, keys: Path, ca: str | None = "ca.pem", **more: str) -> Any:
    """A source that reads from `port` by TLS."""
    where: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": True}
    if kind == "websocket":
        where = {"url": f"wss://127.0.0.1:{port}/?ward=hidden", "token_env": "WARD_SECRET"}
    elif kind == "kafka":
        where = {"servers": f"127.0.0.1:{port}", "tls": True}
    elif kind == "mqtt":
        where |= {"username": "ward", "password_env": "WARD_SECRET"}
    values = {"kind": kind, "ca": ca and str(keys / ca), **where, **more}
    settings: TypeAdapter[Any] = TypeAdapter(SourceSettings)
    return make_source(settings.validate_python(values))


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARD_SECRET", SECRET)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(
    ("certificate", "reason"),
    [("stranger", "unable to get local issuer certificate"), ("elsewhere", "not valid for '127.0.0.1'")],
)
def test_a_server_that_cannot_be_trusted_is_refused_and_tried_until_it_can(
    kind: str,
    certificate: str,
    reason: str,
    keys: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        port, serve = free_port(), SERVERS[kind]
        watcher = FeedWatcher(tls_source(kind, port, keys))
        async with asyncio.TaskGroup() as group:
            async with serve(tmp_path, keys, certificate, port):
                feeding = group.create_task(watcher.feed.run())
                await watcher.until(lambda: watcher.faults["source-lost"] >= 2)
                assert not watcher.feed.connected
            async with serve(tmp_path, keys, "server", port) as send:
                await watcher.until(lambda: watcher.feed.connected)
                for each in (LARGE, chunk(1), chunk(2)):
                    await send(each)
                await watcher.until(lambda: len(watcher.chunks) == 3)
                feeding.cancel()
                await asyncio.wait([feeding])
        assert watcher.sequences == [0, 1, 2]
        assert watcher.chunks[0].samples.tobytes() == LARGE.samples.tobytes()
        assert set(watcher.faults) == {"source-lost"}

    asyncio.run(main())
    if kind == "kafka":  # its library says no more
        reason = "certificate verify failed"
    first = caplog.messages[0]
    assert first.startswith(f"source {kind} lost; reconnecting in ")
    assert "certificate" in first
    assert reason in first
    assert SECRET not in caplog.text
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("kind", SERVERS)
def test_where_an_authority_is_named_those_of_the_system_are_not_trusted(
    kind: str, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(keys / "stranger-ca.pem"))
    refused = loss_reason(kind, "stranger", keys, tmp_path, "ca.pem")
    assert "certificate" in refused
    if kind != "kafka":  # its library looks for the system's authorities elsewhere
        assert loss_reason(kind, "stranger", keys, tmp_path, None) == ""


def loss_reason(kind: str, certificate: str, keys: Path, folder: Path, ca: str | None, **more: str) -> str:
    """Why a source does not open; "" if it does."""

    async def main() -> str:
        port = free_port()
        async with SERVERS[kind](folder, keys, certificate, port):
            source = tls_source(kind, port, keys, ca, **more)
            try:
                await source.open(None)
            except SourceLost as error:
                return str(error)
            finally:
                await source.close()
        return ""

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("mqtt", "Connection reset by peer"),
        ("websocket", "TLS failed, or the server does not use TLS"),
        # Not Redis: its server waits for more, and so 10 s pass.
        ("kafka", "in state SSL_HANDSHAKE"),
    ],
)
def test_a_server_without_tls_is_a_loss_that_says_so(
    kind: str, reason: str, keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            if kind == "mqtt":
                port = stack.enter_context(mosquitto(tmp_path)).port
            elif kind == "websocket":
                port = int((await stack.enter_async_context(Api())).rpartition(":")[2])
            else:
                producer, servers = start_broker()
                stack.callback(producer.flush)
                port = int(servers.rpartition(":")[2])
            watcher = FeedWatcher(tls_source(kind, port, keys))
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(watcher.feed.run())
                await watcher.until(lambda: watcher.faults["source-lost"] >= 2)
                assert not watcher.feed.connected
                feeding.cancel()

    asyncio.run(main())
    assert reason in caplog.messages[0]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_kafka_broker_that_cannot_be_trusted_is_not_given_the_password(
    mechanism: str, keys: Path, tmp_path: Path
) -> None:
    given = {"username": "ward", "password_env": "WARD_SECRET", "mechanism": mechanism}
    refused = loss_reason("kafka", "stranger", keys, tmp_path, "ca.pem", **given)
    assert "certificate verify failed" in refused  # so its library takes all options
    assert SECRET not in refused


@pytest.mark.parametrize("kind", SERVERS)
def test_an_authority_that_is_not_there_is_said_before_anything_starts(kind: str, keys: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the certificate authority"):
        tls_source(kind, 1, keys, "missing.pem")


def test_other_failures_are_not_put_down_to_tls() -> None:
    wrapped = ValueError("token s3cret")
    wrapped.__context__ = ConnectionResetError(104, "reset")
    assert explain_tls_failure(wrapped) is None
