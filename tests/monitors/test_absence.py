from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.loading import load
from monitors.absence import Absence
from monitors.alarm_settings import Limits, StreamLostLimits
from monitors.ecg_settings import EcgSettings
from monitors.journal import Journal
from monitors.telling import Telling
from monitors.ward import Round
from tests.monitors.running import Notes
from tests.monitors.test_journal import ONSET
from tests.monitors.test_telling import READING

AT = 5000.0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite", ("alertmanager",)) as journal:
        yield journal


def run(
    journal: Journal,
    do: Callable[[Absence, Telling], Awaitable[Any]],
    awaited: Mapping[str, float] | None = None,
    seconds: float = 0.05,
) -> Telling:
    """What is told by `do`, where a stream is lost after `seconds`."""
    limits = Limits(stream_lost=StreamLostLimits(medium=seconds))

    async def nobody(name: str) -> bool:
        return False

    async def go() -> Telling:
        telling = Telling(load(EcgSettings, target="ecg"), journal, Notes(), nobody, nobody)
        telling.remember()
        await do(Absence(telling, lambda stream: limits, awaited or {}), telling)
        return telling

    return asyncio.run(go())


def history(journal: Journal) -> list[tuple[str, str, str]]:
    return [(t.stream, t.kind, t.change) for t in reversed(journal.recent(99))]


def test_streams_of_a_shard_that_is_gone_are_lost_once_and_at_once(journal: Journal) -> None:
    async def lose(absence: Absence, telling: Telling) -> None:
        telling.take(0, Round(readings=[READING]))
        telling.take(1, Round(readings=[replace(READING, stream="bed-2")]))
        await absence.shard_lost(0)
        await absence.shard_lost(0)

    telling = run(journal, lose, seconds=10)
    (lost,) = telling.alarms.values()
    assert (lost.stream, lost.kind, lost.priority, lost.category) == (
        "bed-1",
        "stream-lost",
        "medium",
        "technical",
    )
    assert "started again" in lost.why["reason"]
    assert history(journal) == [("bed-1", "stream-lost", "onset")]


def test_a_shard_that_was_back_and_is_gone_again_is_told_by_what_is_open_then(journal: Journal) -> None:
    async def lose(absence: Absence, telling: Telling) -> None:
        telling.take(0, Round(readings=[READING]))
        await absence.shard_lost(0)
        absence.shard_back(0)
        (lost,) = telling.alarms.values()
        await telling.announce([replace(lost, change="ended", state="ended", time=lost.time + 5)])
        telling.take(0, Round(readings=[replace(READING, time=1100.0)]))
        await absence.shard_lost(0)

    run(journal, lose, seconds=10)
    assert [change for _, _, change in history(journal)] == ["onset", "ended", "onset"]


def test_a_stream_that_does_not_come_again_after_a_restart_is_lost(journal: Journal) -> None:
    async def wait(absence: Absence, telling: Telling) -> None:
        await absence.look(settled=False)
        await absence.look(settled=True)
        assert not telling.alarms, "it has a while to come"
        await asyncio.sleep(0.06)
        for _ in range(3):
            await absence.look(settled=True)

    telling = run(journal, wait, {"bed-1": AT})
    (lost,) = telling.alarms.values()
    assert (lost.kind, lost.priority) == ("stream-lost", "medium")
    assert AT <= lost.onset < AT + 5
    assert "not come again" in lost.why["reason"]
    assert history(journal) == [("bed-1", "stream-lost", "onset")]


def test_nothing_is_lost_while_shards_begin(journal: Journal) -> None:
    async def wait(absence: Absence, telling: Telling) -> None:
        await asyncio.sleep(0.06)
        await absence.look(settled=False)

    assert not run(journal, wait, {"bed-1": AT}).alarms


def test_a_stream_that_comes_late_ends_its_alarm_and_is_awaited_no_more(journal: Journal) -> None:
    async def come(absence: Absence, telling: Telling) -> None:
        await absence.look(settled=True)
        await asyncio.sleep(0.06)
        await absence.look(settled=True)
        await absence.back(["bed-1", "bed-3"])
        await absence.look(settled=True)
        assert absence.awaited.keys() == {"bed-2"}

    telling = run(journal, come, {"bed-1": AT, "bed-2": AT})
    assert [alarm.stream for alarm in telling.alarms.values()] == ["bed-2"]
    assert history(journal)[2:] == [("bed-1", "stream-lost", "ended")]


def test_an_alarm_of_before_is_left_to_the_shard_when_its_stream_comes(journal: Journal) -> None:
    lost = replace(ONSET, alarm="bed-1:stream-lost:1", kind="stream-lost", category="technical")
    journal.record([lost])

    async def come(absence: Absence, telling: Telling) -> None:
        await absence.look(settled=True)
        await asyncio.sleep(0.06)
        await absence.look(settled=True)
        await absence.back(["bed-1"])

    assert run(journal, come, {"bed-1": AT}).alarms == {lost.alarm: lost}
    assert len(journal.recent(9)) == 1


def test_an_alarm_of_a_stream_that_nobody_watches_is_acknowledged_once(journal: Journal) -> None:
    done: list[bool] = []
    alarm = replace(ONSET, alarm="bed-1:asystole:1000000")
    journal.record([alarm])

    async def acknowledge(absence: Absence, telling: Telling) -> None:
        for name in (alarm.alarm, alarm.alarm, "bed-9:asystole:1"):
            done.append(await absence.acknowledge(name))

    telling = run(journal, acknowledge)
    assert done == [True, False, False]
    assert telling.alarms[alarm.alarm].state == "acknowledged"


def test_a_stream_that_nobody_watches_is_discharged(journal: Journal) -> None:
    journal.record([ONSET])
    known: list[bool] = []

    async def leave(absence: Absence, telling: Telling) -> None:
        for stream in ("bed-1", "bed-2", "bed-3"):
            known.append(await absence.discharge(stream))
        await asyncio.sleep(0.06)
        await absence.look(settled=True)

    telling = run(journal, leave, {"bed-2": time.time()})
    assert known == [True, True, False]
    assert not telling.alarms
    assert history(journal)[-1] == ("bed-1", "asystole", "ended")
