from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from genray.settings.load import load
from monitors.outputs.journal import Journal
from monitors.outputs.page import CommandResult
from monitors.service.dispatcher import Dispatcher
from monitors.settings import EcgSettings
from tests.monitors.exposition import exposition
from tests.monitors.journals import no_room, recent
from tests.monitors.running import Notes
from tests.monitors.transitions import ENDED, ONSET

COUNTED = 'alarms_total{announced="true",category="physiological",kind="asystole",priority="high"} 1.0'


def run(journal: Journal, use: Callable[[Dispatcher], Awaitable[Any]]) -> tuple[Dispatcher, list[str]]:
    """A dispatcher after `use`, and the lines that were noted."""
    notes = Notes()

    async def go() -> Dispatcher:
        async def refuse(name: str) -> CommandResult:
            return CommandResult("unknown")

        dispatcher = Dispatcher(load(EcgSettings, target="ecg"), journal, notes, refuse, refuse)
        dispatcher.restore_alarms()
        await use(dispatcher)
        return dispatcher

    return asyncio.run(go()), notes.lines


def test_what_is_announced_is_in_the_journal_counted_and_said(journal: Journal) -> None:
    dispatcher, lines = run(journal, lambda dispatcher: dispatcher.announce([ONSET]))
    assert [t.change for t in recent(journal, 9)] == ["onset"]
    assert dispatcher.onsets == {"asystole": 1}
    assert lines == ["high priority alarm: asystole, stream bed-1"]
    assert COUNTED in exposition(dispatcher.exporter)


def test_what_the_journal_has_is_not_told_again(journal: Journal) -> None:
    journal.save_states({"place": {"shard-0-of-1": b"{}"}}, time.time())  # from where its samples come again
    journal.record([ONSET])
    dispatcher, lines = run(journal, lambda dispatcher: dispatcher.announce([ONSET, ENDED]))
    assert not dispatcher.onsets
    assert not lines
    assert not dispatcher.alarms
    assert COUNTED not in exposition(dispatcher.exporter)


def test_an_alarm_that_is_over_is_still_explained_by_what_was_measured(journal: Journal) -> None:
    onset = replace(ONSET, why={"measured": {"silence": 4.2}, "limits": {"silence": 4.0}})
    over = {"measured": {"silence": 0.0}, "reason": "over"}
    latched = replace(ONSET, change="latched", state="latched", time=ONSET.time + 9, why=over)
    dispatcher, _ = run(journal, lambda dispatcher: dispatcher.announce([onset, latched]))
    (shown,) = dispatcher.alarms.values()
    assert (shown.state, shown.why["measured"], shown.why["reason"]) == ("latched", {"silence": 4.2}, "over")


def test_a_fault_of_the_page_is_counted_and_keeps_no_alarm_back(journal: Journal) -> None:
    async def go_wrong(dispatcher: Dispatcher) -> None:
        for _ in range(2):
            dispatcher.publish({"type": "status", "streams": object()})
        await dispatcher.announce([ONSET])

    dispatcher, lines = run(journal, go_wrong)
    assert 'faults_total{reason="TypeError",source="page"} 2.0' in exposition(dispatcher.exporter)
    assert len([line for line in lines if "page" in line]) == 1
    assert dispatcher.onsets == {"asystole": 1}


def test_after_a_restart_an_alarm_is_explained_as_before(journal: Journal) -> None:
    onset = replace(ONSET, why={"measured": {"silence": 4.9}, "limits": {"silence": 4.0}})
    over = {"measured": {"silence": 0.1}, "reason": "over"}
    journal.record([onset, replace(ONSET, change="latched", state="latched", time=ONSET.time + 9, why=over)])

    async def nothing(dispatcher: Dispatcher) -> None:
        pass

    dispatcher, _ = run(journal, nothing)
    (shown,) = dispatcher.alarms.values()
    assert (shown.state, shown.why["measured"], shown.why["reason"]) == ("latched", {"silence": 4.9}, "over")


def test_an_alarm_that_was_over_and_holds_again_is_said_again(journal: Journal) -> None:
    changes = [("suppressed",) * 2, ("resumed", "active"), ("latched",) * 2, ("resumed", "active")]
    later = [replace(ONSET, change=c, state=s, time=1010.0 + n) for n, (c, s) in enumerate(changes)]
    _, lines = run(journal, lambda dispatcher: dispatcher.announce([ONSET, *later]))
    assert lines == [
        "high priority alarm: asystole, stream bed-1",
        "high priority alarm recurred: asystole, stream bed-1",
    ]


def test_an_alarm_that_has_ended_does_not_come_back_by_being_acknowledged(journal: Journal) -> None:
    late = [replace(ONSET, change=c, state=s, time=1030.0) for c, s in (("latched",) * 2, ("ended",) * 2)]
    acknowledged = replace(ONSET, change="acknowledged", state="acknowledged", time=1031.0)

    async def answer(dispatcher: Dispatcher) -> None:
        await dispatcher.announce([ONSET, ENDED])
        await dispatcher.announce([acknowledged, *late])

    dispatcher, _ = run(journal, answer)
    assert not dispatcher.alarms
    assert [each.change for each in recent(journal, 9)] == ["ended", "onset"]


def test_two_who_ask_the_same_both_hear_it(journal: Journal) -> None:
    results: list[str] = []

    async def ask(dispatcher: Dispatcher) -> None:
        async def yes() -> bool:
            return True

        both = [asyncio.create_task(dispatcher.confirmed("bed-1", yes, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        dispatcher.confirm("bed-1")
        results.extend(await asyncio.gather(*both))
        results.append(await dispatcher.confirmed("bed-1", yes, 0.01))

    run(journal, ask)
    assert results == ["done", "done", "late"]


def test_an_answer_counts_when_it_is_in_the_journal(journal: Journal) -> None:
    answer = replace(ONSET, change="acknowledged", state="acknowledged", time=1006.0)
    results: list[str] = []

    async def ask(dispatcher: Dispatcher) -> None:
        await dispatcher.announce([ONSET])

        async def yes() -> bool:
            task.append(asyncio.create_task(dispatcher.announce([answer])))
            return True

        async def silent() -> bool:
            return True

        task: list[asyncio.Task[None]] = []
        results.append(await dispatcher.confirmed(ONSET.alarm, yes, 10))
        assert recent(journal, 1)[0].change == "acknowledged"
        results.append(await dispatcher.confirmed(ONSET.alarm, silent, 0.01))

    run(journal, ask)
    assert results == ["done", "late"]


def test_what_a_full_disk_held_back_is_written_without_a_new_event_and_that_is_said(journal: Journal) -> None:
    large = replace(ONSET, why={"note": "x" * 50_000})

    async def fill(dispatcher: Dispatcher) -> None:
        with no_room(journal.path):
            await dispatcher.announce([large])
            await dispatcher.retry_writes()
        await dispatcher.retry_writes()
        await dispatcher.retry_writes()

    _, lines = run(journal, fill)
    assert recent(journal, 9) == [large]
    assert [line.partition(":")[0] for line in lines] == [
        "alarms are announced but not written to the journal",
        "high priority alarm",
        "the journal is written again, with what waited",
    ]
