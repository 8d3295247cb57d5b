"""What the live page sends to whom."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress

import pytest
from pydantic import ValidationError

from genray.errors import ResourceError
from monitors.outputs.page import CommandResult, LivePage, PageSettings
from tests.monitors.live_pages import Served, alarm, bed, serve, trace


def test_a_page_gets_a_snapshot_and_then_what_happens() -> None:
    async def use(served: Served) -> None:
        served.live.publish({"type": "status", "sources": {"mqtt": True}})
        async with served.watch() as page:
            first = await page.next()
            assert [each["stream"] for each in first["beds"]] == ["a", "b", "c"]
            assert first["shown"] == ["c", "a", "b"], "beds with alarms come first"
            assert (await page.next())["sources"] == {"mqtt": True}, "the last status is known at once"
            served.live.publish(alarm("a/asystole/1"))
            assert (await page.next())["alarm"] == "a/asystole/1"
            served.live.publish(bed("a", heart_rate=float("nan")))
            assert (await page.next())["heart_rate"] is None

    serve(use)


def test_only_traces_that_somebody_asked_for_are_sent() -> None:
    async def use(served: Served) -> None:
        assert served.live.shown_streams() == set()
        async with served.watch("b,elsewhere") as one, served.watch("a,b,c") as other:
            assert (await one.next())["shown"] == ["b", "elsewhere"]
            assert (await other.next())["shown"] == ["a", "b"], "as many as the settings allow"
            assert served.live.shown_streams() == {"a", "b", "elsewhere"}
            for stream in "abc":
                served.live.publish(trace(stream, [0.5]))
                served.live.publish({"type": "beats", "stream": stream, "beats": []})
            for page, streams in ((one, "b"), (other, "ab")):
                got = [await page.next() for _ in range(2 * len(streams))]
                assert [(each["type"], each["stream"]) for each in got] == [
                    (kind, stream) for stream in streams for kind in ("trace", "beats")
                ]
            served.live.publish({"type": "discharge", "stream": "b"})
            assert [each["type"] for each in await one.until("discharge")] == ["discharge"]

    serve(use, traces=2)


def test_a_page_without_a_choice_follows_new_beds_while_there_is_room() -> None:
    async def use(served: Served) -> None:
        async with served.watch() as page:
            assert len((await page.next())["shown"]) == 3
            served.live.publish(bed("d"))
            served.live.publish(bed("e"))
            assert (await page.until("shown"))[-1]["streams"] == ["c", "a", "b", "d"]
            served.live.publish({"type": "discharge", "stream": "c"})
            served.live.publish(bed("e"))
            assert (await page.until("shown"))[-1]["streams"] == ["a", "b", "d", "e"]
            assert served.live.shown_streams() == set("abde")

    serve(use, traces=4)


def test_a_slow_page_delays_nobody_and_gets_every_alarm() -> None:
    values = [round(n / 7, 6) for n in range(2000)]  # 18 KB a trace, 36 MB in all

    async def use(served: Served) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", served.port))
            await loop.sock_sendall(slow, b"GET /events?streams=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with served.watch("b") as quick:
                await quick.next()
                longest = 0.0
                for number in range(2000):
                    began = time.perf_counter()
                    served.live.publish(trace("a", values))
                    longest = max(longest, time.perf_counter() - began)
                    if number % 20 == 0:
                        served.live.publish(alarm(f"alarm-{number}."))
                        assert (await quick.next())["alarm"] == f"alarm-{number}."
                assert longest < 1
            served.live.publish(alarm("the last"))
            got = b""
            while b"the last" not in got:
                got += await asyncio.wait_for(loop.sock_recv(slow, 65536), 10)
            # Chunks of HTTP may cut a name in two.
            found = sum(f"alarm-{number}.".encode() in got for number in range(0, 2000, 20))
            assert found >= 98
            assert 0 < got.count(b'"trace"') < 1000, "traces were let go instead"

    serve(use)


def test_a_page_that_takes_nothing_is_given_up() -> None:
    async def use(served: Served) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as dead:
            dead.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            dead.setblocking(False)
            await loop.sock_connect(dead, ("127.0.0.1", served.port))
            await loop.sock_sendall(dead, b"GET /events?streams=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(20):
                while served.live.shown_streams() != {"a"}:
                    await asyncio.sleep(0.01)
                while served.live.shown_streams():
                    served.live.publish(trace("a", [0.123456] * 10_000))
                    await asyncio.sleep(0.01)
                with suppress(ConnectionError):
                    while await loop.sock_recv(dead, 2**20):
                        pass
            assert served.live.shown_streams() == set()

    serve(use, patience=0.3)


def test_no_more_pages_than_allowed() -> None:
    async def use(served: Served) -> None:
        async with served.watch() as page:
            await page.next()
            async with served.session.get(f"{served.url}/events") as response:
                assert response.status == 503
        async with asyncio.timeout(10):
            while served.live.shown_streams():  # the one that left is noticed when it is written to
                served.live.publish(alarm("any"))
                await asyncio.sleep(0.01)
        async with served.watch() as page:
            await page.next()

    serve(use, clients=1)


def test_it_is_served_on_this_machine_unless_names_are_given() -> None:
    assert PageSettings().host == "127.0.0.1"
    with pytest.raises(ValidationError, match="list the host names"):
        PageSettings(host="0.0.0.0")
    PageSettings(host="0.0.0.0", names=("ward.example",))


def test_a_taken_port_is_explained_and_none_is_no_page() -> None:
    async def use(served: Served) -> None:
        async def no(_: str) -> CommandResult:
            return CommandResult("unknown")

        async def none(_: str) -> None:
            return None

        again = LivePage(PageSettings(port=served.port), lambda: {"beds": [], "alarms": []}, no, no, none)
        with pytest.raises(ResourceError, match="cannot serve"):
            await again.start()
        off = LivePage(PageSettings(port=None), lambda: {"beds": [], "alarms": []}, no, no, none)
        assert await off.start() is None
        await off.close()

    serve(use)


def test_an_unknown_event_is_a_mistake() -> None:
    async def use(served: Served) -> None:
        with pytest.raises(ValueError, match="'picture'"):
            served.live.publish({"type": "picture"})

    serve(use)


def test_a_strip_is_sent_or_said_to_be_missing() -> None:
    async def use(served: Served) -> None:
        for alarm_name, status, expected in (
            ("a:asystole:1", 200, ""),
            ("unknown", 404, "no strip is stored with this alarm"),
            ("damaged", 500, "the strip is damaged"),
        ):
            async with served.session.get(f"{served.url}/strip", params={"alarm": alarm_name}) as response:
                assert response.status == status
                content = await response.json()
            assert expected in content.get("reason", "")
            assert status != 200 or content == {"alarm": alarm_name}

    serve(use)


def test_a_command_that_was_not_carried_out_says_why() -> None:
    async def use(served: Served) -> None:
        for name, status, reason in (("unknown", 404, "no such name"), ("late", 503, "not confirmed")):
            for path, key, done in (
                ("acknowledge", "alarm", "acknowledged"),
                ("discharge", "stream", "discharged"),
            ):
                async with served.session.post(f"{served.url}/{path}", json={key: name}) as response:
                    assert response.status == status
                    assert await response.json() == {done: False, "reason": reason}

    assert len(serve(use)) == 4
