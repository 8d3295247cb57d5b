"""One monitor in this process, with real records, a real journal and real HTTP."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import aiohttp
import aiomqtt
import pytest

from genray.errors import DataError, ResourceError
from genray.settings.load import load
from monitors.outputs.journal import Journal
from monitors.service.backends import LocalBackend
from monitors.service.monitor import Monitor, MonitorSummary
from monitors.service.shard import ShardReport
from monitors.settings import EcgSettings
from monitors.sources.message import encode
from monitors.sources.pseudonyms import Pseudonyms
from tests.monitors.alerting import Api
from tests.monitors.journals import recent
from tests.monitors.running import KEY, Notes, recorded, replay, sets, write_patients
from tests.monitors.samples import chunk
from tests.servers import free_port, mosquitto


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three records of 90 s; in one the heart stands still after 60 s."""
    return write_patients(tmp_path_factory.mktemp("patients"), seconds=90)


class Run:
    """A monitor with its journal in `state`."""

    def __init__(
        self,
        bundle: Path,
        state: Path,
        *values: str,
        backend: type[LocalBackend] = LocalBackend,
        **arguments: Any,
    ) -> None:
        self.settings = load(EcgSettings, target="ecg", sets=(*sets(bundle, state), *values))
        self.notes = Notes()
        self.backend = backend(self.settings, KEY)
        self.journal = Journal.open(state / "journal.sqlite", ("alertmanager",))
        self.monitor = Monitor.resume(
            self.settings, [self.backend], self.journal, Pseudonyms(KEY).of, self.notes, **arguments
        )

    def __call__(self, during: Callable[[Run], Awaitable[None]] | None = None) -> MonitorSummary:
        async def run() -> MonitorSummary:
            running = asyncio.create_task(self.monitor.run())
            if during is not None:
                await during(self)
                self.monitor.stop()
            return await running

        with self.journal:
            return asyncio.run(run())

    async def wait_for_line(self, pattern: str) -> str:
        """Wait for a line, and give what is in its parentheses."""
        async with asyncio.timeout(30):
            while not (found := re.search(pattern, "\n".join(self.notes.lines))):
                await asyncio.sleep(0.01)
        return found[1]


def test_an_alarm_is_acknowledged_from_the_page_and_that_is_in_the_journal_before_it_is_said(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    async def answer(run: Run) -> None:
        page = await run.wait_for_line(r"page: +(\S+)")
        await run.wait_for_line("alarm: (asystole)")
        (onset,) = [t for t in run.journal.open_alarms() if t.kind == "asystole"]
        async with aiohttp.ClientSession() as client:
            async with client.post(f"{page}acknowledge", json={"alarm": onset.alarm}) as answer:
                assert answer.status == 200
            assert [t.change for t in recent(run.journal, 10) if t.alarm == onset.alarm][-2:] == [
                "acknowledged",
                "onset",
            ]
            async with client.post(f"{page}acknowledge", json={"alarm": onset.alarm}) as answer:
                assert answer.status == 404
                assert "acknowledged already" in (await answer.json())["reason"]
            async with client.post(f"{page}discharge", json={"stream": "bed-99"}) as answer:
                assert answer.status == 404
                assert "no bed of this name" in (await answer.json())["reason"]
            async with client.get(f"{page}strip", params={"alarm": onset.alarm}) as answer:
                strip = await answer.json()
                assert (strip["onset"], strip["leads"]) == (onset.onset, ["II", "V1"])
                assert len(strip["values"]["II"]) >= 10 * 360

    values = [*replay(patients, 20), "page.port=0"]
    outcome = Run(beat_bundle, tmp_path, *values)(answer)
    assert outcome.onsets["asystole"] == 1


def test_an_alertmanager_that_is_away_holds_nothing_up_and_is_told_when_it_is_back(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    away = ["alertmanager.urls=[http://127.0.0.1:9]", "alertmanager.timeout_seconds=1"]
    began = time.monotonic()
    outcome = Run(beat_bundle, tmp_path, *replay(patients), *away)()
    assert outcome.onsets["asystole"] == 1
    assert time.monotonic() - began < 20

    async def come_back(run: Run) -> None:
        async with asyncio.timeout(20):
            while run.journal.unsent("alertmanager"):
                await asyncio.sleep(0.02)

    async def again() -> list[str]:
        async with Api() as url:
            run = Run(beat_bundle, tmp_path, "source.kind=demo", f"alertmanager.urls=[{url}]")
            with run.journal:
                owed = [t.alarm for t in run.journal.unsent("alertmanager") if t.change == "onset"]
                running = asyncio.create_task(run.monitor.run())
                await come_back(run)
                run.monitor.stop()
                await running
        return owed

    (alarm,) = asyncio.run(again())
    assert ":asystole:" in alarm


def test_a_broker_that_is_away_is_counted_and_the_rest_is_served(beat_bundle: Path, tmp_path: Path) -> None:
    async def look(run: Run) -> None:
        metrics = await run.wait_for_line(r"metrics: (\S+)")
        async with aiohttp.ClientSession() as client, asyncio.timeout(20):
            while True:
                async with client.get(metrics) as answer:
                    text = await answer.text()
                if 'faults_total{reason="source-lost",source="mqtt"} 2.0' in text:
                    break
                await asyncio.sleep(0.05)
        assert 'genray_ecg_source_connected{source="mqtt"} 0.0' in text
        assert 'genray_ecg_shard_up{shard="0"} 1.0' in text

    values = [
        "source.kind=mqtt",
        f"source.port={free_port()}",
        "feed.first_wait=0.2",
        "feed.longest_wait=0.2",
    ]
    assert Run(beat_bundle, tmp_path, *values)(look).streams == 0


def test_it_stops_when_it_is_asked_to_and_goes_on_where_it_was(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    async def wait(run: Run) -> None:
        await run.wait_for_line("alarm: (asystole)")

    first = Run(beat_bundle, tmp_path, *replay(patients, 30))(wait)
    assert first.beats < 3 * 80
    second = Run(beat_bundle, tmp_path, *replay(patients))
    outcome = second()
    assert "asystole" not in outcome.onsets
    whole = Run(beat_bundle, tmp_path / "whole", *replay(patients))()
    assert first.onsets | outcome.onsets == whole.onsets


def test_a_kill_after_the_last_sample_begins_nothing_again(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"

    class Copying(LocalBackend):
        """A shard that leaves a copy of the state as it is when it is closed, before the monitor ends."""

        async def close(self) -> None:
            await super().close()
            copytree(tmp_path / "state", killed, dirs_exist_ok=True)

    whole = Run(beat_bundle, tmp_path / "state", *replay(patients), backend=Copying)()
    assert whole.onsets
    assert not Run(beat_bundle, killed, *replay(patients))().onsets
    assert recorded(killed) == recorded(tmp_path / "state")


class Hanging(LocalBackend):
    """A shard that stops answering, for as long as it is told to."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.answers = asyncio.Event()
        self.answers.set()

    async def collect(self, *, save: bool) -> ShardReport:
        await self.answers.wait()
        return await super().collect(save=save)


def test_streams_of_a_shard_that_hangs_are_lost_until_it_goes_on(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    async def hang(run: Run) -> None:
        backend = run.backend
        assert isinstance(backend, Hanging)
        async with asyncio.timeout(30):
            while len(run.monitor.dispatcher.streams) < 3:
                await asyncio.sleep(0.01)
            backend.answers.clear()
            while len(run.journal.open_alarms()) < 3:
                await asyncio.sleep(0.01)
            assert {t.kind for t in run.journal.open_alarms()} == {"stream-lost"}
            backend.answers.set()
            while run.journal.open_alarms():
                await asyncio.sleep(0.01)

    Run(beat_bundle, tmp_path, *replay(patients, 1), backend=Hanging, hang_seconds=0.5)(hang)


def test_a_machine_that_was_suspended_is_said_to_have_been_and_loses_no_bed(
    beat_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a machine is suspended, its clock goes on, but not the monotonic one."""
    asleep = [0.0]
    clock = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + asleep[0])
    monkeypatch.setattr("monitors.service.monitor.time", clock)

    async def suspend(run: Run) -> None:
        async with asyncio.timeout(30):
            while len(run.monitor.dispatcher.streams) < 3:
                await asyncio.sleep(0.01)
        asleep[0] = 7200.0
        assert await run.wait_for_line(r"the monitor was paused for (2 h)") == "2 h"
        await asyncio.sleep(0.5)
        assert not [alarm for alarm in run.journal.open_alarms() if alarm.kind == "stream-lost"]

    assert Run(beat_bundle, tmp_path, "source.kind=demo", "source.beds=3")(suspend).streams == 3


async def send(port: int, streams: set[str]) -> None:
    """Half a second of each of `streams` twice a second, until cancelled."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for number in count():
            for stream in streams:
                message = replace(chunk(number, stream=stream, seconds=0.5), start=time.time() - 0.5)
                await client.publish(f"ecg/{stream}/samples", encode(message))
            await asyncio.sleep(0.5)


def test_a_stream_that_is_not_back_after_a_restart_is_lost_until_it_comes_or_is_discharged(
    beat_bundle: Path, tmp_path: Path
) -> None:
    bed = {name: Pseudonyms(KEY).of(name) for name in "abc"}

    async def until(run: Run, lost: str) -> None:
        """Just these streams are watched or said to be lost."""
        wanted = {bed[name] for name in lost}
        async with asyncio.timeout(20):
            while {t.stream for t in run.journal.open_alarms() if t.kind == "stream-lost"} != wanted:
                await asyncio.sleep(0.05)

    async def watch(run: Run) -> None:
        sending = asyncio.create_task(send(broker.port, set("abc")))
        async with asyncio.timeout(20):
            while run.monitor.dispatcher.streams.keys() != set(bed.values()):
                await asyncio.sleep(0.05)
        sending.cancel()

    async def miss(run: Run) -> None:
        page = await run.wait_for_line(r"page: +(\S+)")
        streams = {"a"}
        sending = asyncio.create_task(send(broker.port, streams))
        await until(run, "bc")
        async with aiohttp.ClientSession() as client:
            for status in (200, 404):
                async with client.post(f"{page}discharge", json={"stream": "c"}) as answer:
                    assert answer.status == status
        await until(run, "b")
        streams.add("b")
        await until(run, "")
        sending.cancel()

    with mosquitto(tmp_path) as broker:
        values = [
            "source.kind=mqtt",
            f"source.port={broker.port}",
            "page.port=0",
            "alarms.stream_lost.medium=3",
        ]
        Run(beat_bundle, tmp_path / "state", *values)(watch)
        assert Run(beat_bundle, tmp_path / "state", *values)(miss).streams == 2


def test_a_bed_that_is_discharged_from_the_page_is_learned_anew(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    learned: list[float] = []

    async def discharge(run: Run) -> None:
        page = await run.wait_for_line(r"page: +(\S+)")
        streams = run.monitor.dispatcher.streams
        async with asyncio.timeout(30):
            while not any(each.reading.learned == 1 for each in streams.values()):
                await asyncio.sleep(0.01)
        stream = next(stream for stream, each in streams.items() if each.reading.learned == 1)
        body = {"stream": stream}
        async with aiohttp.ClientSession() as client, client.post(f"{page}discharge", json=body) as answer:
            assert (answer.status, await answer.json()) == (200, {"discharged": True})
        assert stream not in run.journal.load_states("reference")
        async with asyncio.timeout(30):
            while stream not in streams:
                await asyncio.sleep(0.01)
        learned.append(streams[stream].reading.learned)

    Run(beat_bundle, tmp_path, *replay(patients, 10), "page.port=0")(discharge)
    assert learned[0] < 0.5


def test_records_that_are_left_out_are_said_once(beat_bundle: Path, tmp_path: Path) -> None:
    records = write_patients(tmp_path / "records", [[]], 6)
    (records / "broken.hea").write_text("broken 1 360 none\n")
    run = Run(beat_bundle, tmp_path / "state", *replay(records))
    run()
    assert sum("left out" in line and "broken" in line for line in run.notes.lines) == 1


def test_what_can_never_work_ends_it(beat_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no records"):
        Run(beat_bundle, tmp_path / "state", *replay(tmp_path))()


def test_a_port_that_is_taken_ends_it(beat_bundle: Path, patients: Path, tmp_path: Path) -> None:
    async def second(run: Run) -> None:
        port = (await run.wait_for_line(r"metrics: (\S+)")).split(":")[2].split("/")[0]
        other = Run(beat_bundle, tmp_path / "other", *replay(patients), f"metrics.port={port}")
        with other.journal, pytest.raises(ResourceError, match=port):
            await other.monitor.run()

    Run(beat_bundle, tmp_path / "state", *replay(patients, 1))(second)
