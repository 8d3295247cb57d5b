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
from monitors.outputs.page import CommandResult
from monitors.patient.output import SavedBed
from monitors.service.backends import LocalBackend, ShardState
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.commands import Commands
from monitors.service.dispatcher import Dispatcher
from monitors.service.lost_streams import LostStreams
from monitors.service.shard import Moment, ShardReport
from monitors.settings import EcgSettings
from monitors.sources.pseudonyms import Pseudonyms
from tests.monitors.running import KEY, Notes, replay, sets, write_patients
from tests.monitors.transitions import ONSET

PSEUDONYM = Pseudonyms(KEY).of


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of 40 s, long enough for its patient to be learned."""
    return write_patients(tmp_path_factory.mktemp("patients"), [[]], 40)


class Desk:
    """What a monitor of one shard has, but for the loop that asks the shard."""

    def __init__(self, settings: EcgSettings, journal: Journal) -> None:
        async def refuse(name: str) -> CommandResult:
            return CommandResult("unknown")

        self.backend = LocalBackend(settings, KEY)
        self.shard = ShardState(0, self.backend)
        self.dispatcher = Dispatcher(settings, journal, Notes(), refuse, refuse)
        self.checkpoint = MonitorCheckpoint.load(journal, settings.source, 1, self.dispatcher.note_once)
        self.lost_streams = LostStreams(self.dispatcher, lambda stream: settings.alarms, {})
        self.commands = Commands([self.shard], self.dispatcher, self.lost_streams, self.checkpoint, PSEUDONYM)
        self.dispatcher.restore_alarms()

    async def open(self, alarms: list[Transition] | None = None) -> ShardReport:
        """The first report of the shard that has readings."""
        await self.backend.open(self.checkpoint.start(0, alarms or []))
        while not (report := await self.backend.collect(save=False)).output.readings:
            pass
        self.dispatcher.show(0, report.output)
        return report


def run(bundle: Path, records: Path, state: Path, use: Callable[[Desk], Awaitable[Any]]) -> Dispatcher:
    async def go() -> Dispatcher:
        settings = load(EcgSettings, target="ecg", sets=(*sets(bundle, state), *replay(records)))
        with Journal.open(state / "journal.sqlite", ("alertmanager",)) as journal:
            desk = Desk(settings, journal)
            await use(desk)
            await desk.backend.close()
        return desk.dispatcher

    return asyncio.run(go())


def test_what_is_discharged_while_its_shard_begins_is_discharged_there_too(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    learned: list[float] = []

    async def leave(desk: Desk) -> None:
        first = await desk.open()
        while not first.output.learned:
            first = await desk.backend.collect(save=False)
        (stream,) = first.output.learned
        await desk.checkpoint.save(0, first.moment)
        # Its process ends; it begins with what was kept, and only then somebody asks.
        report = await desk.open()
        learned.append(report.output.readings[0].learned)
        assert await desk.commands.discharge(stream)
        assert not desk.checkpoint.knows(stream)
        await desk.commands.discharge_pending(desk.shard)
        while not (report := await desk.backend.collect(save=False)).output.readings:
            pass
        learned.append(report.output.readings[-1].learned)

    run(beat_bundle, patients, tmp_path, leave)
    assert learned[0] == 1.0
    assert learned[1] < 1.0


def test_nothing_is_done_to_what_is_not_known(beat_bundle: Path, patients: Path, tmp_path: Path) -> None:
    async def ask(desk: Desk) -> None:
        await desk.checkpoint.save(0, Moment(place={"chunk": 1}))
        for name in ("shard-0-of-1", "monitor", "\ud800", "", "x" * 1000):
            discharged = await desk.commands.discharge(name)
            acknowledged = await desk.commands.acknowledge(name)
            assert discharged.status == acknowledged.status == "unknown"
            assert "no bed of this name" in discharged.reason
            assert "no such alarm" in acknowledged.reason
        assert desk.checkpoint.start(0, []).place == {"chunk": 1}

    run(beat_bundle, patients, tmp_path, ask)


def test_a_patient_of_whom_only_what_is_usual_is_kept_is_discharged_by_either_name(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    async def ask(desk: Desk) -> None:
        for asked in (PSEUDONYM("bed-7"), "bed-7"):
            bed = SavedBed(b"", b"reference")
            await desk.checkpoint.save(0, Moment({PSEUDONYM("bed-7"): bed}))
            assert await desk.commands.discharge(asked)
            assert not await desk.commands.discharge(asked)

    run(beat_bundle, patients, tmp_path, ask)


def test_an_alarm_of_a_stream_that_is_watched_is_left_to_its_shard(
    beat_bundle: Path, patients: Path, tmp_path: Path
) -> None:
    async def ask(desk: Desk) -> None:
        report = await desk.open()
        desk.shard.up = True
        stream = report.output.readings[0].stream
        stale = replace(ONSET, stream=stream, alarm=f"{stream}:asystole:1")
        await desk.dispatcher.announce([stale])
        assert not await desk.commands.acknowledge(stale.alarm)
        desk.shard.up = False
        assert await desk.commands.acknowledge(stale.alarm)

    dispatcher = run(beat_bundle, patients, tmp_path, ask)
    assert [alarm.state for alarm in dispatcher.alarms.values()] == ["acknowledged"]
