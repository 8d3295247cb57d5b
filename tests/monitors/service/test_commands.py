from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genray.settings.load import load
from monitors.alarms.events import Transition
from monitors.outputs.journal import Journal
from monitors.service.backends import LocalBackend
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.commands import Commands
from monitors.service.dispatcher import Dispatcher
from monitors.service.lost_streams import LostStreams
from monitors.service.shard import ShardReport
from monitors.settings import EcgSettings
from monitors.sources.pseudonyms import Pseudonyms
from tests.monitors.running import Notes, replay, sets, write_patients
from tests.monitors.transitions import ONSET

KEY = b"a key for tests only"
PSEUDONYM = Pseudonyms(KEY).of


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of 40 s, long enough for its patient to be learned."""
    return write_patients(tmp_path_factory.mktemp("patients"), [[]], 40)


class Desk:
    """What a monitor of one shard has, but for the loop that asks the shard."""

    def __init__(self, settings: EcgSettings, journal: Journal) -> None:
        async def no(name: str) -> bool:
            return False

        self.shard, self.up = LocalBackend(settings, KEY), [False]
        self.telling = Dispatcher(settings, journal, Notes(), no, no)
        self.keeping = MonitorCheckpoint(journal, settings.source, 1, self.telling.note)
        self.absence = LostStreams(self.telling, lambda stream: settings.alarms, {})
        self.requests = Commands([self.shard], self.up, self.telling, self.absence, self.keeping, PSEUDONYM)
        self.telling.remember()

    async def open(self, alarms: list[Transition] | None = None) -> ShardReport:
        """The first report of the shard that has readings."""
        await self.shard.open(self.keeping.start(0, alarms or []))
        while not (report := await self.shard.collect(False)).found.readings:
            pass
        self.telling.take(0, report.found)
        return report


def run(bundle: Path, records: Path, state: Path, do: Callable[[Desk], Awaitable[Any]]) -> Dispatcher:
    async def go() -> Dispatcher:
        settings = load(EcgSettings, target="ecg", sets=(*sets(bundle, state), *replay(records)))
        with Journal.open(state / "journal.sqlite", ("alertmanager",)) as journal:
            desk = Desk(settings, journal)
            await do(desk)
            await desk.shard.close()
        return desk.telling

    return asyncio.run(go())


def test_what_is_discharged_while_its_shard_begins_is_discharged_there_too(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    learned: list[float] = []

    async def leave(desk: Desk) -> None:
        first = await desk.open()
        while not first.found.references:
            first = await desk.shard.collect(False)
        ((stream, reference),) = first.found.references.items()
        await desk.keeping.references({stream: reference})
        # Its process ends; it begins with what was kept, and only then somebody asks.
        report = await desk.open()
        learned.append(report.found.readings[0].learned)
        assert await desk.requests.discharge(stream)
        assert not desk.keeping.knows(stream)
        await desk.requests.begun(0)
        while not (report := await desk.shard.collect(False)).found.readings:
            pass
        learned.append(report.found.readings[-1].learned)

    run(beat_bundle, patients, tmp_path, leave)
    assert learned[0] == 1.0
    assert learned[1] < 1.0


def test_nothing_is_done_to_what_is_not_known(beat_bundle: Path, patients: Path, tmp_path: Path) -> None:
    async def ask(desk: Desk) -> None:
        await desk.keeping.place(0, {"chunk": 1})
        for name in ("shard-0-of-1", "monitor", "\ud800", "", "x" * 1000):
            assert not await desk.requests.discharge(name)
            assert not await desk.requests.acknowledge(name)
        assert desk.keeping.start(0, []).place == {"chunk": 1}

    run(beat_bundle, patients, tmp_path, ask)


def test_a_patient_of_whom_only_what_is_usual_is_kept_is_discharged_by_either_name(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    async def ask(desk: Desk) -> None:
        for asked in (PSEUDONYM("bed-7"), "bed-7"):
            await desk.keeping.references({PSEUDONYM("bed-7"): b"reference"})
            assert await desk.requests.discharge(asked)
            assert not await desk.requests.discharge(asked)

    run(beat_bundle, patients, tmp_path, ask)


def test_an_alarm_of_a_stream_that_is_watched_is_left_to_its_shard(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    async def ask(desk: Desk) -> None:
        report = await desk.open()
        desk.up[0] = True
        stream = report.found.readings[0].stream
        stale = replace(ONSET, stream=stream, alarm=f"{stream}:asystole:1")
        await desk.telling.announce([stale])
        assert not await desk.requests.acknowledge(stale.alarm)
        desk.up[0] = False
        assert await desk.requests.acknowledge(stale.alarm)

    telling = run(beat_bundle, patients, tmp_path, ask)
    assert [alarm.state for alarm in telling.alarms.values()] == ["acknowledged"]
