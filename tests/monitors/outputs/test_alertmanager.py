"""Alarms reach a real Alertmanager and its webhook: at once, once each, and whatever was down meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from genray.errors import ResourceError
from monitors.alarms.events import Transition
from monitors.outputs.alertmanager import OUTCOMES
from monitors.outputs.journal import Journal
from tests.monitors.alarms.scripted_bed import ScriptedBed
from tests.monitors.alerting import Api, Client, Pager, alertmanager_server
from tests.monitors.transitions import ENDED, LATCHED, ONSET
from tests.servers import Server, free_port

FIRING, RESOLVED = ("firing", "EcgAsystole", "bed-1"), ("resolved", "EcgAsystole", "bed-1")


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_an_alarm_is_announced_at_once_and_resolved_when_it_has_ended(tmp_path: Path) -> None:
    async def test() -> None:
        async with Pager() as pager:
            with alertmanager_server(tmp_path, pager) as server:
                async with Client(url(server), page="http://127.0.0.1:9752/") as client:
                    client.push([ONSET])
                    await pager.receives(lambda received: FIRING in received, seconds=2)
                    client.push([LATCHED])
                    await client.repeats(3)
                    client.push([ENDED])
                    await pager.receives(lambda received: RESOLVED in received)
                    await client.reaches(lambda: client.sent == [ONSET, LATCHED, ENDED])
                assert pager.received() == [FIRING, RESOLVED], "what was sent again was not announced again"
                (alert,) = pager.calls[0]["alerts"]
                assert alert["labels"] == {
                    "alertname": "EcgAsystole",
                    "alarm": "bed-1 asystole 1000000",
                    "stream": "bed-1",
                    "kind": "asystole",
                    "priority": "high",
                    "category": "physiological",
                }
                assert alert["annotations"] == {
                    "summary": "asystole (high priority) in bed-1: active",
                    "why": "no QRS complex for 4.2 s; no beat",
                    "onset": "1970-01-01T00:16:40+00:00",
                    "sample_time": "1970-01-01T00:16:44+00:00",
                }
                assert alert["generatorURL"] == "http://127.0.0.1:9752/"

    asyncio.run(test())


def test_an_alarm_that_recurs_late_calls_again_and_one_that_escalates_calls_at_once(tmp_path: Path) -> None:
    bed = ScriptedBed(again_after=30)

    def changes(seconds: float, **values: float) -> list[Transition]:
        before = len(bed.log)
        bed.observe(seconds, **values)
        return bed.log[before:]

    async def test() -> None:
        async with Pager() as pager:
            with alertmanager_server(tmp_path, pager) as server:
                async with Client(url(server), priorities=["high", "medium"]) as client:

                    async def calls(of: Sequence[Transition], number: int) -> dict[str, str]:
                        client.push(of)
                        await pager.receives(lambda received: len(firing(pager)) >= number, seconds=2)
                        await asyncio.sleep(0.2)
                        assert len(firing(pager)) == number
                        return firing(pager)[-1]

                    medium = await calls(changes(6, heart_rate=150.0), 1)
                    high = await calls(changes(6, heart_rate=200.0), 2)
                    assert [each["priority"] for each in (medium, high)] == ["medium", "high"]
                    assert medium["alarm"] == high["alarm"], "it is the same alarm"
                    soon = await calls([*changes(10), *changes(6, heart_rate=200.0)], 2)
                    assert soon == high, "and still is when it recurs soon"
                    late = await calls([*changes(120), *changes(6, heart_rate=200.0)], 3)
                    assert late["priority"] == "high"
                    assert late["alarm"] != high["alarm"]

    asyncio.run(test())


def firing(pager: Pager) -> list[dict[str, str]]:
    """Labels of the alerts that fire, in the order of the calls."""
    alerts = [alert for call in pager.calls for alert in call["alerts"]]
    return [alert["labels"] for alert in alerts if alert["status"] == "firing"]


def test_an_alertmanager_that_comes_up_late_is_told_of_what_was_and_what_is(tmp_path: Path) -> None:
    other = replace(ONSET, alarm="bed-2 asystole 1", stream="bed-2")

    async def test() -> None:
        async with Pager() as pager:
            server = alertmanager_server(tmp_path, pager)
            async with Client(url(server)) as client:
                client.push([ONSET, ENDED, other])
                await client.reaches(lambda: client.counts["failed"] > 2)
                assert client.sent == []
                await asyncio.to_thread(server.start)
                try:
                    await pager.receives(lambda received: len(received) == 3)
                    assert [each for each in pager.received() if each[2] == "bed-1"] == [FIRING, RESOLVED]
                    assert ("firing", "EcgAsystole", "bed-2") in pager.received()
                    await client.reaches(lambda: len(client.sent) == 3)
                finally:
                    server.stop()

    asyncio.run(test())


def test_a_restart_of_alertmanager_repeats_nothing_and_forgets_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with Pager() as pager:
            with alertmanager_server(tmp_path, pager) as server:
                async with Client(url(server)) as client:
                    client.push([ONSET])
                    await pager.receives(lambda received: FIRING in received)
                    await client.repeats(1)  # Alertmanager logs a notification only after its answer
                    await asyncio.to_thread(server.stop)
                    await asyncio.to_thread(server.start)
                    await client.repeats(3)
                    assert pager.received() == [FIRING]
                    client.push([ENDED])
                    await pager.receives(lambda received: RESOLVED in received)

    asyncio.run(test())


def test_a_monitor_that_was_killed_sends_what_it_owes_and_repeats_nothing(tmp_path: Path) -> None:
    second = replace(ONSET, alarm="bed-2 asystole 1", stream="bed-2")

    async def test() -> None:
        async with Pager() as pager:
            with alertmanager_server(tmp_path, pager) as server:
                for life in ([ONSET], [second]):
                    with Journal.open(tmp_path / "journal.db", ["alertmanager"]) as journal:
                        async with Client(url(server), journal=journal) as client:
                            client.push(journal.unsent("alertmanager"))
                            client.push(journal.open_alarms())
                            client.push(journal.record(life))
                            await client.reaches(lambda: not journal.unsent("alertmanager"))
                            await client.repeats(2)
                        # Killed between these two:
                        journal.record([replace(each, change="ended", state="ended") for each in life])
                with Journal.open(tmp_path / "journal.db", ["alertmanager"]) as journal:
                    async with Client(url(server), journal=journal) as client:
                        client.push(journal.unsent("alertmanager"))
                        client.push(journal.open_alarms())
                        await pager.receives(lambda received: len(received) == 4)
                        await client.reaches(lambda: not journal.unsent("alertmanager"))
                bed_2 = ("firing", "EcgAsystole", "bed-2"), ("resolved", "EcgAsystole", "bed-2")
                assert sorted(pager.received()) == sorted([FIRING, RESOLVED, *bed_2])

    asyncio.run(test())


def test_what_is_not_to_be_pushed_is_marked_and_goes_nowhere() -> None:
    held = replace(ONSET, announced=False)
    medium = replace(ONSET, priority="medium")

    async def test() -> None:
        api = Api()
        async with api as address, Client(address) as client:
            client.push([medium, held, replace(ENDED, announced=False)])
            await client.reaches(lambda: len(client.sent) == 3)
            assert api.alerts == []
            assert client.counts == dict.fromkeys(OUTCOMES, 0)

    asyncio.run(test())


def test_an_escalation_ends_the_alert_of_the_priority_before_in_the_same_request() -> None:
    medium = replace(ONSET, priority="medium")
    escalated = replace(ONSET, change="escalated", time=1008.0)

    async def test() -> None:
        api = Api()
        async with api as address:
            async with Client(address, priorities=("medium", "high"), resend_seconds=60) as client:
                client.push([medium])
                await client.reaches(lambda: len(api.alerts) == 1)
                client.push([escalated])
                await client.reaches(lambda: len(api.alerts) == 2)
            old, new = api.alerts[1]
            assert (old["labels"]["priority"], new["labels"]["priority"]) == ("medium", "high")
            assert old["startsAt"] <= old["endsAt"] < new["endsAt"]

    asyncio.run(test())


def test_every_member_of_a_cluster_is_told_and_one_that_is_down_holds_nobody_up() -> None:
    async def test() -> None:
        one, two = Api(), Api(500, 302)
        async with one as first, two as second:
            down = f"http://127.0.0.1:{free_port()}"
            async with Client(first, second, down, resend_seconds=60) as client:
                client.push([ONSET])
                await client.reaches(lambda: bool(one.alerts and two.alerts))
                client.push([ENDED])
                await client.reaches(lambda: client.counts["sent"] == 4)
                await client.reaches(lambda: client.sent == [ONSET, ENDED])
                assert len(one.alerts) == len(two.alerts) == 2
                assert client.counts["refused"] == 2
                assert client.counts["failed"] > 0

    asyncio.run(test())


def test_an_alarm_that_comes_again_is_announced_again() -> None:
    again = replace(ONSET, change="resumed", time=1030.0)

    async def test() -> None:
        api = Api()
        async with api as address, Client(address, resend_seconds=0.1) as client:
            for change in (ONSET, ENDED, again):
                client.push([change])
                await client.reaches(lambda c=change: c in client.sent)
            await client.repeats(8)  # longer than a message lasts
            assert api.alerts[-1][0]["annotations"]["sample_time"].endswith("00:17:10+00:00")
            assert api.alerts[-1][0]["endsAt"] > api.alerts[-2][0]["endsAt"]

    asyncio.run(test())


def test_an_end_comes_late_enough_for_its_alert_to_be_seen_before() -> None:
    async def test() -> None:
        api = Api()
        async with api as address, Client(address, resend_seconds=60) as client:
            client.push([ONSET, ENDED])
            await client.reaches(lambda: len(api.alerts) == 2)
            assert api.times[1] - api.times[0] > 0.9
            await client.reaches(lambda: client.sent == [ONSET, ENDED])

    asyncio.run(test())


def test_alarms_beyond_the_most_are_dropped_and_counted() -> None:
    async def test() -> None:
        client = Client(f"http://127.0.0.1:{free_port()}", max_alarms=3)
        async with asyncio.timeout(5):
            client.push([replace(ONSET, alarm=f"a{n}") for n in range(5)])
        assert client.counts["dropped"] == 2
        assert client.sent == [], "the journal still owes them"

    asyncio.run(test())


def test_the_token_is_read_anew_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")

    async def test() -> None:
        api = Api(401)
        async with api as address, Client(address, token_file=str(token)) as client:
            client.push([ONSET])
            await client.reaches(lambda: client.counts["refused"] == 1)
            token.write_text("second\n")
            await client.reaches(lambda: client.counts["sent"] == 1)
            assert api.headers[0]["Authorization"] == "Bearer first"
            assert api.headers[-1]["Authorization"] == "Bearer second"

    asyncio.run(test())


def test_a_token_that_is_missing_is_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with Client("https://pager.example", token_file=str(tmp_path / "missing")):
            pass

    with pytest.raises(ResourceError, match="cannot read a file"):
        asyncio.run(test())
