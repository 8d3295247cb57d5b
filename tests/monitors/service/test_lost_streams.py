from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from genray.settings.load import load
from monitors.alarms.events import Reading
from monitors.alarms.limits import Limits, StreamLostLimits
from monitors.outputs.journal import Journal
from monitors.outputs.page import CommandResult
from monitors.patient.output import WardOutput
from monitors.service.dispatcher import Dispatcher
from monitors.service.lost_streams import LostStreams
from monitors.settings import EcgSettings
from tests.monitors.journals import recent
from tests.monitors.running import Notes
from tests.monitors.transitions import ONSET

AT = 5000.0
READING = Reading(
    stream="bed-1",
    time=1004.0,
    heart_rate=70.0,
    burden=None,
    quality={"II": "good"},
    learned=1.0,
    beats=70,
    anomalous=0,
)


def run(
    journal: Journal,
    use: Callable[[LostStreams, Dispatcher], Awaitable[Any]],
    awaited: Mapping[str, float] | None = None,
    seconds: float = 0.05,
) -> Dispatcher:
    """A dispatcher after `use`, where a stream is lost after `seconds`, with high priority after ten times
    that."""
    limits = Limits(stream_lost=StreamLostLimits(medium=seconds, high=10 * seconds))

    async def refuse(name: str) -> CommandResult:
        return CommandResult("unknown")

    async def go() -> Dispatcher:
        dispatcher = Dispatcher(load(EcgSettings, target="ecg"), journal, Notes(), refuse, refuse)
        dispatcher.restore_alarms()
        await use(LostStreams(dispatcher, lambda stream: limits, awaited or {}), dispatcher)
        return dispatcher

    return asyncio.run(go())


def reading(stream: str, at: float = AT) -> Reading:
    return replace(READING, stream=stream, time=at)


def history(journal: Journal) -> list[tuple[str, str, str]]:
    return [(t.stream, t.kind, t.change) for t in reversed(recent(journal, 99))]


def test_streams_of_a_shard_that_is_gone_are_lost_once_and_at_once(journal: Journal) -> None:
    async def lose(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        dispatcher.show(0, WardOutput(readings=[READING]))
        dispatcher.show(1, WardOutput(readings=[replace(READING, stream="bed-2")]))
        await lost_streams.raise_for_shard(0)
        await lost_streams.raise_for_shard(0)

    dispatcher = run(journal, lose, seconds=10)
    (lost,) = dispatcher.alarms.values()
    assert (lost.stream, lost.kind, lost.priority, lost.category) == (
        "bed-1",
        "stream-lost",
        "medium",
        "technical",
    )
    assert "being restarted" in lost.why["reason"]
    assert history(journal) == [("bed-1", "stream-lost", "onset")]


def test_a_stream_that_is_not_back_with_its_shard_gets_worse(journal: Journal) -> None:
    async def lose(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        dispatcher.show(0, WardOutput(readings=[reading("bed-1"), reading("bed-2")]))
        await lost_streams.raise_for_shard(0)
        lost_streams.await_shard(0)
        await lost_streams.end_for([reading("bed-2", AT + 1)])
        await asyncio.sleep(0.12)
        await lost_streams.raise_for_awaited(all_up=True)

    dispatcher = run(journal, lose, seconds=0.01)
    assert {alarm.stream: alarm.priority for alarm in dispatcher.alarms.values()} == {"bed-1": "high"}
    assert history(journal)[2:] == [("bed-2", "stream-lost", "ended"), ("bed-1", "stream-lost", "escalated")]


def test_a_stream_that_does_not_come_again_after_a_restart_is_lost(journal: Journal) -> None:
    async def wait(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        await lost_streams.raise_for_awaited(all_up=False)
        await lost_streams.raise_for_awaited(all_up=True)
        assert not dispatcher.alarms, "it has a while to come"
        await asyncio.sleep(0.06)
        for _ in range(3):
            await lost_streams.raise_for_awaited(all_up=True)

    dispatcher = run(journal, wait, {"bed-1": AT})
    (lost,) = dispatcher.alarms.values()
    assert (lost.kind, lost.priority) == ("stream-lost", "medium")
    assert AT <= lost.onset < AT + 5
    assert "no data since the restart" in lost.why["reason"]
    assert history(journal) == [("bed-1", "stream-lost", "onset")]


def test_nothing_is_lost_while_shards_begin(journal: Journal) -> None:
    async def wait(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        await asyncio.sleep(0.06)
        await lost_streams.raise_for_awaited(all_up=False)

    assert not run(journal, wait, {"bed-1": AT}).alarms


def test_a_stream_that_comes_late_ends_its_alarm_and_is_awaited_no_more(journal: Journal) -> None:
    async def come(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        await lost_streams.raise_for_awaited(all_up=True)
        await asyncio.sleep(0.06)
        await lost_streams.raise_for_awaited(all_up=True)
        await lost_streams.end_for([reading("bed-1", AT + 60), reading("bed-3")])
        await lost_streams.raise_for_awaited(all_up=True)
        assert lost_streams.awaited.keys() == {"bed-2"}

    dispatcher = run(journal, come, {"bed-1": AT, "bed-2": AT})
    assert [alarm.stream for alarm in dispatcher.alarms.values()] == ["bed-2"]
    assert history(journal)[2:] == [("bed-1", "stream-lost", "ended")]
    assert recent(journal, 1)[0].time == AT + 60


def test_an_alarm_of_before_is_left_to_the_shard_when_its_stream_comes(journal: Journal) -> None:
    lost = replace(ONSET, alarm="bed-1:stream-lost:1", kind="stream-lost", category="technical")
    journal.record([lost])

    async def come(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        await lost_streams.raise_for_awaited(all_up=True)
        await asyncio.sleep(0.06)
        await lost_streams.raise_for_awaited(all_up=True)
        await lost_streams.end_for([reading("bed-1")])

    alarms = run(journal, come, {"bed-1": AT}).alarms
    assert {name: (alarm.change, alarm.time) for name, alarm in alarms.items()} == {
        lost.alarm: (lost.change, lost.time)
    }
    assert len(recent(journal, 9)) == 1


def test_one_that_comes_while_its_loss_is_written_is_not_lost(journal: Journal) -> None:
    async def together(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        await lost_streams.raise_for_awaited(all_up=True)
        await asyncio.sleep(0.06)
        looking = asyncio.create_task(lost_streams.raise_for_awaited(all_up=True))
        await asyncio.sleep(0)
        await lost_streams.end_for([reading("bed-1")])
        await lost_streams.discharge("bed-2")
        await looking

    assert not run(journal, together, {"bed-1": AT, "bed-2": AT}).alarms
    assert [change for _, _, change in history(journal)] == ["onset", "onset", "ended", "ended"]


def test_what_is_raised_here_is_not_for_shards(journal: Journal) -> None:
    async def wait(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        await lost_streams.raise_for_awaited(all_up=True)
        await asyncio.sleep(0.06)
        await lost_streams.raise_for_awaited(all_up=True)
        assert lost_streams.raised == dispatcher.alarms.keys()
        await lost_streams.discharge("bed-1")
        assert lost_streams.raised == frozenset()

    run(journal, wait, {"bed-1": AT})


def test_any_alarm_of_a_stream_that_nobody_watches_is_acknowledged_once(journal: Journal) -> None:
    gap = replace(ONSET, alarm="bed-1:gap:5", kind="gap", category="technical", priority="low")
    earlier, later = (replace(ONSET, alarm=f"bed-1:asystole:{n}", onset=float(n)) for n in (1, 2))
    journal.record([gap, earlier, later])
    done: list[bool] = []

    async def answer(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        await lost_streams.raise_for_awaited(all_up=True)
        for name in (gap.alarm, earlier.alarm, earlier.alarm, "bed-9:asystole:1"):
            done.append(await lost_streams.acknowledge(name))

    dispatcher = run(journal, answer, {"bed-1": AT})
    assert done == [True, True, False, False]
    assert {a.alarm: a.state for a in dispatcher.alarms.values()} == {
        gap.alarm: "acknowledged",
        earlier.alarm: "acknowledged",
        later.alarm: "active",
    }


def test_a_discharge_ends_all_alarms_of_a_stream(journal: Journal) -> None:
    journal.record([replace(ONSET, alarm=f"bed-1:asystole:{n}", onset=float(n)) for n in (1, 2)])
    known: list[bool] = []

    async def leave(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        known.extend(lost_streams.knows(stream) for stream in ("bed-1", "bed-2", "bed-3"))
        await lost_streams.discharge("bed-1")
        await lost_streams.discharge("bed-2")
        await asyncio.sleep(0.06)
        await lost_streams.raise_for_awaited(all_up=True)
        known.append(lost_streams.knows("bed-1"))

    dispatcher = run(journal, leave, {"bed-2": AT})
    assert known == [True, True, False, False]
    assert not dispatcher.alarms
    assert history(journal)[2:] == [("bed-1", "asystole", "ended")] * 2


def test_only_streams_of_which_nothing_came_for_long_are_silent(journal: Journal) -> None:
    journal.record([replace(ONSET, stream="bed-3", alarm="bed-3:asystole:1")])
    silent: list[list[str]] = []

    async def wait(lost_streams: LostStreams, dispatcher: Dispatcher) -> None:
        dispatcher.show(0, WardOutput(readings=[reading("bed-1")]))
        # The onset of its first report is told before its reading is.
        await dispatcher.announce([replace(ONSET, stream="bed-4", alarm="bed-4:asystole:1")])
        silent.extend(sorted(lost_streams.silent(seconds)) for seconds in (3600, -1))

    run(journal, wait, {"bed-2": AT})
    assert silent == [[], ["bed-1", "bed-2", "bed-3"]]


def test_the_time_of_a_pause_is_no_time_without_data(journal: Journal) -> None:
    async def pause(lost: LostStreams, dispatcher: Dispatcher) -> None:
        dispatcher.show(0, WardOutput(readings=[reading("bed-1")]))
        dispatcher.streams["bed-1"].arrived -= 30
        assert lost.silent(20) == ["bed-1"]
        lost.postpone(25)
        assert lost.silent(20) == []
        assert lost.silent(4) == ["bed-1"], "what was silent before still counts"
        lost.postpone(25)
        dispatcher.streams["bed-1"].arrived -= 3
        assert lost.silent(2) == ["bed-1"], "nothing arrived in the future"

    run(journal, pause)
