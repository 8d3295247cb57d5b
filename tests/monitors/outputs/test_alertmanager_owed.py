"""What becomes of alarms that nobody takes, and who learns of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from genray.settings.load import load
from monitors.outputs.alertmanager import AlertmanagerSettings
from monitors.outputs.journal import Journal
from monitors.outputs.page import CommandResult
from monitors.service.dispatcher import Dispatcher
from monitors.settings import EcgSettings
from tests.monitors.alerting import Api, Client
from tests.monitors.exposition import exposition
from tests.monitors.running import Notes
from tests.monitors.transitions import ENDED, ONSET
from tests.servers import free_port


def test_an_alarm_that_goes_on_takes_the_place_of_those_that_ended_unheard() -> None:
    new = replace(ONSET, alarm="new", stream="bed-9")

    async def test() -> None:
        api = Api(*[503] * 3)
        async with api as address, Client(address, max_alarms=3, retry_seconds=0.3) as client:
            for number in range(3):
                client.push([replace(each, alarm=f"a{number}") for each in (ONSET, ENDED)])
            await client.reaches(lambda: client.counts["refused"] > 0)
            client.push([new])
            assert client.counts["dropped"] == 1
            assert client.owed[-1] == 1
            await client.reaches(lambda: new in client.sent)
            assert [each.alarm for each in client.sent[:2]] == ["a0", "a0"], "the oldest was given up"
            pushed_alarms = {alert["labels"]["alarm"] for call in api.alerts for alert in call}
            assert "new" in pushed_alarms
            assert "a0" not in pushed_alarms
            assert client.owed[-1] == 0

    asyncio.run(test())


def test_alarms_that_find_no_place_among_those_that_go_on_are_owed_until_they_end() -> None:
    client = Client(f"http://127.0.0.1:{free_port()}", max_alarms=1)
    other = replace(ONSET, alarm="other")
    client.push([ONSET, other])
    assert (client.owed[-1], client.counts["dropped"]) == (2, 1)
    client.push([replace(other, change="ended", state="ended")])
    assert client.owed[-1] == 1


def test_an_alarm_is_owed_until_one_knows_of_it_and_again_when_that_is_long_ago() -> None:
    async def test() -> None:
        # Long enough refused for what was said to have ended there: 5 times `resend_seconds`.
        api = Api(401, 200, *[500] * 9)
        async with api as address, Client(address, resend_seconds=0.1, retry_seconds=0.1) as client:
            client.push([ONSET])
            await client.reaches(lambda: client.counts["sent"] == 1)
            assert client.owed[:2] == [0, 1]
            assert client.owed[-1] == 0
            await client.reaches(lambda: client.owed[-1] == 1)
            await client.reaches(lambda: client.owed[-1] == 0)
            client.push([ENDED])
            assert client.owed[-1] == 0

    asyncio.run(test())


def test_an_escalation_is_owed_until_it_is_pushed() -> None:
    medium = replace(ONSET, priority="medium")

    async def test() -> None:
        async with Api() as address, Client(address, priorities=("medium", "high")) as client:
            client.push([medium])
            await client.reaches(lambda: client.sent == [medium])
            client.push([replace(ONSET, change="escalated")])
            assert client.owed[-1] == 1
            await client.reaches(lambda: client.owed[-1] == 0)

    asyncio.run(test())


def test_without_a_server_nothing_is_said_of_what_is_owed() -> None:
    client = Client()
    client.push([ONSET])
    assert client.owed == [], "a zero would tell Prometheus that it was pushed"


def test_a_person_learns_once_that_pushes_fail_and_that_they_do_again() -> None:
    async def test() -> None:
        api = Api(401, 401, 503)
        async with api as address, Client(address, resend_seconds=0.1) as client:
            client.push([ONSET])
            await client.repeats(1)
            server = address.removeprefix("http://")
            assert client.notes == [
                f"alarms are not reaching the Alertmanager {server}: it answered with HTTP status 401; "
                "trying again",
                f"alarms reach the Alertmanager {server} again",
            ]
        away = f"127.0.0.1:{free_port()}"
        async with Client(f"http://{away}/secret", timeout_seconds=0.2) as client:
            client.push([ONSET])
            await client.reaches(lambda: client.counts["failed"] > 1)
            assert len(client.notes) == 1
            assert client.notes[0].startswith(f"alarms are not reaching the Alertmanager {away}: no answer (")

    asyncio.run(test())


def test_the_monitor_shows_what_it_owes_and_says_why(tmp_path: Path) -> None:
    notes = Notes()
    pushed = AlertmanagerSettings(urls=(f"http://127.0.0.1:{free_port()}",), timeout_seconds=0.2)
    settings = load(EcgSettings, target="ecg").model_copy(update={"alertmanager": pushed})

    async def refuse(alarm: str) -> CommandResult:
        return CommandResult("unknown")

    async def test() -> None:
        with Journal.open(tmp_path / "journal.db", ["alertmanager"]) as journal:
            dispatcher = Dispatcher(settings, journal, notes, refuse, refuse)
            async with dispatcher.alertmanager, asyncio.timeout(10):
                await dispatcher.announce([ONSET])
                while not any("are not reaching the Alertmanager" in line for line in notes.lines):
                    await asyncio.sleep(0.005)
            assert 'notifications_owed{channel="alertmanager"} 1.0' in exposition(dispatcher.exporter)

    asyncio.run(test())
