"""WebSockets, with a server in this process."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from monitors.sources.message import MAX_BYTES, encode
from monitors.sources.websocket import WebSocketSettings, WebSocketSource
from tests.monitors.samples import FeedWatcher, chunk

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(handler: Handler, port: int = 0) -> tuple[web.AppRunner, int]:
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, runner.addresses[0][1]


def test_a_server_that_closes_after_each_message_is_found_again() -> None:
    async def main() -> None:
        sent = 0

        async def one(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            sent += 1
            await socket.send_str("hello")
            await socket.send_bytes(encode(chunk(sent)))
            await socket.close()
            return socket

        runner, port = await serve(one)
        watcher = FeedWatcher(WebSocketSource.from_settings(WebSocketSettings(url=f"ws://127.0.0.1:{port}/")))
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(watcher.feed.run())
            await watcher.until(lambda: len(watcher.chunks) >= 3)
            feeding.cancel()
        await runner.cleanup()
        assert watcher.sequences[:3] == [1, 2, 3]
        assert watcher.faults["not-a-message"] >= 3
        assert watcher.faults["source-lost"] >= 2

    asyncio.run(main())


def test_a_message_beyond_the_limit_ends_the_connection_not_the_feed() -> None:
    async def main() -> None:
        sizes = iter([MAX_BYTES * 20, 0])

        async def large_then_good(request: web.Request) -> web.StreamResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            size = next(sizes, 0)
            await socket.send_bytes(bytes(size) if size else encode(chunk(1)))
            async for message in socket:
                assert message.type is WSMsgType.CLOSE
            return socket

        runner, port = await serve(large_then_good)
        watcher = FeedWatcher(WebSocketSource.from_settings(WebSocketSettings(url=f"ws://127.0.0.1:{port}/")))
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(watcher.feed.run())
            await watcher.until(lambda: len(watcher.chunks) == 1)
            feeding.cancel()
        await runner.cleanup()
        assert watcher.faults == {"source-lost": 1}

    asyncio.run(main())


def test_a_message_that_is_only_too_large_for_the_format_costs_no_other_stream() -> None:
    async def main() -> None:
        connections = 0

        async def large_then_good(request: web.Request) -> web.StreamResponse:
            nonlocal connections
            connections += 1
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_bytes(bytes(MAX_BYTES * 2))
            await socket.send_bytes(encode(chunk(1)))
            async for message in socket:
                assert message.type is WSMsgType.CLOSE
            return socket

        runner, port = await serve(large_then_good)
        watcher = FeedWatcher(WebSocketSource.from_settings(WebSocketSettings(url=f"ws://127.0.0.1:{port}/")))
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(watcher.feed.run())
            await watcher.until(lambda: len(watcher.chunks) == 1)
            feeding.cancel()
        await runner.cleanup()
        assert watcher.faults == {"too-large": 1}
        assert connections == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "url", ["ws://", "wss:///path", "ws://:80/", "ws://host:port/", "ws://[bad", "ws://h:0"]
)
def test_a_url_that_leads_nowhere_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValidationError):
        WebSocketSettings(url=url)


def test_the_token_is_sent_but_never_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WARD_TOKEN", "s3cret")
    seen: list[str | None] = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=403)

    async def main() -> None:
        runner, port = await serve(refuse)
        settings = WebSocketSettings(url=f"ws://127.0.0.1:{port}/?ward=hidden", token_env="WARD_TOKEN")
        watcher = FeedWatcher(WebSocketSource.from_settings(settings))
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(watcher.feed.run())
            await watcher.until(lambda: watcher.faults["source-lost"] == 2)
            feeding.cancel()
        await runner.cleanup()

    asyncio.run(main())
    assert seen[0] == "Bearer s3cret"
    assert "the server answered with HTTP status 403" in caplog.text
    assert "s3cret" not in caplog.text
    assert "hidden" not in caplog.text
