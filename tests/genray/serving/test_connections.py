"""Clients that ask for nothing take nothing from those that do, nor from the rest of the process."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import aiohttp
import pytest
from aiohttp import web

from genray.serving.connections import ConnectionLimits
from genray.serving.site import Site
from tests.monitors.live_pages import Served, serve

SILENT = """
import socket, sys
sockets = []
for _ in range(int(sys.argv[2])):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", int(sys.argv[1])))
    sockets.append(client)
print("connected", flush=True)
sys.stdin.read()
"""


@contextmanager
def silent_clients(port: int, count: int) -> Iterator[None]:
    """A process with `count` connections that ask for nothing."""
    command = [sys.executable, "-c", SILENT, str(port), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
        yield
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """Only `free` more files can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with tempfile.TemporaryFile() as lowest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def asked(port: int) -> int:
    """The status of an answer within a second to a new client."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"http://127.0.0.1:{port}/") as answer,
    ):
        await answer.read()
        return answer.status


def served_within(
    limits: ConnectionLimits, use: Callable[[int, list[None]], Awaitable[None]], host: str = "127.0.0.1"
) -> None:
    """Runs `use` beside a site, whose /slow does not answer: with its port, and who was refused."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(60)
        return web.Response(text="here")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        refused: list[None] = []
        site = await Site.start(app, host, 0, limits=limits, count_refused=lambda: refused.append(None))
        try:
            await use(site.port, refused)
        finally:
            await site.close()

    asyncio.run(run())


def test_two_hundred_silent_connections_keep_no_page_from_opening() -> None:
    async def use(served: Served) -> None:
        async with served.watch() as before:
            assert (await before.next())["type"] == "snapshot"
            with silent_clients(served.port, 200):
                assert await asked(served.port) == 200
                async with served.watch() as watcher:
                    assert (await watcher.next())["type"] == "snapshot"
                served.live.publish({"type": "status", "behind": 3.0})
                assert (await before.until("status"))[-1]["behind"] == 3.0

    serve(use)


def test_descriptors_stay_free_for_sources_and_the_journal(caplog: pytest.LogCaptureFixture) -> None:
    async def use(port: int, refused: list[None]) -> None:
        # The process of the clients is begun before: it would inherit the limit.
        with ExitStack() as stack, silent_clients(port, 200), few_descriptors(60):
            assert await asked(port) == 200
            for _ in range(20):
                stack.enter_context(tempfile.TemporaryFile())
        assert refused

    served_within(ConnectionLimits(most=10_000, most_per_address=10_000, reserve=32), use)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_accept_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def use(port: int, refused: list[None]) -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.socket()) for _ in range(20)]
            with few_descriptors(0):
                for client in clients:
                    client.connect(("127.0.0.1", port))
                while not caplog.records:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
        assert await asked(port) == 200

    served_within(ConnectionLimits(), use)
    assert [record.getMessage() for record in caplog.records] == [
        "connections cannot be accepted; trying again every second: Too many open files"
    ]


def test_a_header_that_does_not_end_is_not_waited_for_neither_the_first_nor_a_later_one() -> None:
    async def use(port: int, refused: list[None]) -> None:
        for first in (b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            if first:
                await reader.readuntil(b"here")
            # A byte now and then, as slow clients do it.
            writer.write(b"GET / HTTP/1.1\r\nX: ")
            async with asyncio.timeout(10):
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    while True:
                        writer.write(b"x")
                        with pytest.raises(TimeoutError):
                            async with asyncio.timeout(0.02):
                                await reader.readexactly(1)
            writer.close()
        assert len(refused) == 1, "a client that asked before is closed without a count"

    served_within(ConnectionLimits(first_request_s=0.1, idle_s=0.1), use)


def test_of_one_address_the_connection_that_waits_longest_makes_room_and_one_that_is_answered_does_not() -> (
    None
):
    async def use(port: int, refused: list[None]) -> None:
        async with aiohttp.ClientSession() as session:
            slow = asyncio.create_task(session.get(f"http://127.0.0.1:{port}/slow"))
            readers = []
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                readers.append((reader, writer))
            # Three of one address: the slow one and two that wait. The first of these was closed.
            assert await readers[0][0].read() == b""
            assert len(refused) == 1
            assert not readers[1][0].at_eof()
            slow.cancel()
            for _, writer in readers:
                writer.close()

    served_within(ConnectionLimits(most=10, most_per_address=3), use)


def test_a_new_connection_is_closed_where_all_are_being_answered() -> None:
    async def use(port: int, refused: list[None]) -> None:
        async with aiohttp.ClientSession() as session:
            slow = [asyncio.create_task(session.get(f"http://127.0.0.1:{port}/slow")) for _ in range(2)]
            await asyncio.sleep(0.1)
            with pytest.raises(aiohttp.ClientError):
                await asked(port)
            assert len(refused) >= 1
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
        assert await asked(port) == 200, "those that are gone hold no place"

    served_within(ConnectionLimits(most=2, most_per_address=2), use)


def test_all_addresses_of_a_name_are_served_on_one_port() -> None:
    async def use(port: int, refused: list[None]) -> None:
        assert await asked(port) == 200

    served_within(ConnectionLimits(), use, host="localhost")
