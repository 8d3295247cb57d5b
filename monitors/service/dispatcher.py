"""Telling what shards find: the journal first, then Alertmanager, Prometheus and the page."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from genray.progress import Display
from monitors.alarms.events import Reading, Transition
from monitors.outputs.alertmanager import Alertmanager
from monitors.outputs.database import CONDITION_HOLDS
from monitors.outputs.journal import Journal
from monitors.outputs.metrics import MetricsExporter
from monitors.outputs.page import LivePage
from monitors.patient.bed import Round
from monitors.settings import EcgSettings

DISCLAIMER = "Not a medical device: for research and engineering, not for the care of patients."

_PUSHED = "alertmanager"


class Dispatcher:
    """Everybody who is told, and what they know now.

    Args:
        settings: of the monitor.
        journal: open.
        display: where lines for a person go.
        acknowledge, discharge: see `LivePage`.
    """

    def __init__(
        self,
        settings: EcgSettings,
        journal: Journal,
        display: Display,
        acknowledge: Callable[[str], Awaitable[bool]],
        discharge: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._journal, self._display = journal, display
        self.exporter = MetricsExporter(settings.metrics)
        self.live = LivePage(settings.page, self._snapshot, acknowledge, discharge)
        self.pager = Alertmanager(
            settings.alertmanager,
            mark_sent=partial(journal.mark_sent, _PUSHED),
            count_outcome=partial(self.exporter.count_notifications, _PUSHED),
            set_owed=partial(self.exporter.set_owed, _PUSHED),
            note=display.note,
        )
        self.alarms: dict[str, Transition] = {}
        """That are open."""
        self.home: dict[str, int] = {}
        """The shard of each stream that was seen."""
        self.counts: Counter[str] = Counter()
        """Onsets, by kind."""
        self.remembered: frozenset[str] = frozenset()
        """Alarms that were open when the monitor began."""
        self.beats = 0
        self.beds: dict[str, tuple[Reading, float]] = {}
        """The last reading of each stream, and when it came by the monotonic clock."""
        self._order = asyncio.Lock()
        self._told: set[str] = set()
        self._trouble = ""
        self._asked: list[tuple[str, asyncio.Event]] = []

    def remember(self) -> None:
        """Alarms that were open when the monitor ended, and what was not sent."""
        for transition in self._journal.open_alarms():
            self.alarms[transition.alarm] = _explained(
                transition, self._journal.last_transition(transition.alarm, CONDITION_HOLDS)
            )
            # Its onset was counted when it was.
            self.exporter.update_alarm(replace(transition, change="resumed"))
        self.remembered = frozenset(self.alarms)
        self.pager.push(self._journal.unsent(_PUSHED))
        self.pager.push(list(self.alarms.values()))

    def note(self, text: str) -> None:
        """A line for a person, once."""
        if text not in self._told:
            self._told.add(text)
            self._display.note(text)

    def publish(self, event: Mapping[str, Any]) -> None:
        """Show `event` on the page. No fault of the page may keep alarms from going out."""
        try:
            self.live.publish(event)
        except Exception as error:
            self.exporter.count_fault("page", type(error).__name__)
            self.note(f"the page is not told of a {event.get('type')}: {type(error).__name__}: {error}")

    async def announce(self, transitions: Sequence[Transition]) -> None:
        """The journal first: what is told was written down before."""
        if not transitions:
            return
        async with self._order:
            new = await asyncio.to_thread(self._journal.record, self._sensible(transitions))
            trouble = str(self._journal.write_error or "")
            if trouble and trouble != self._trouble:
                self._display.note(f"alarms go on without the journal: {trouble}")
            self._trouble = trouble
            self.pager.push(new)
            for each in new:
                self._tell(each)
        for each in transitions:
            if each.change == "acknowledged":
                self.heard(each.alarm)

    def _sensible(self, transitions: Sequence[Transition]) -> list[Transition]:
        """Those that change something: an alarm that was ended elsewhere neither ends nor is acknowledged."""
        opened, kept = set(self.alarms), []
        for each in transitions:
            if each.change in CONDITION_HOLDS:
                opened.add(each.alarm)
            if each.alarm in opened:
                kept.append(each)
            if each.state == "ended":
                opened.discard(each.alarm)
        return kept

    def _tell(self, each: Transition) -> None:
        before = self.alarms.get(each.alarm)
        self.exporter.update_alarm(each)
        if each.state == "ended":
            self.alarms.pop(each.alarm, None)
        else:
            self.alarms[each.alarm] = _explained(each, before)
        self.publish(_as_event(each))
        if each.change == "onset":
            self.counts[each.kind] += 1
        # What goes on after it could not be judged is no news; what was over is.
        again = each.change == "resumed" and (before is None or before.state == "latched")
        if each.announced and (again or each.change in ("onset", "escalated")):
            self._display.note(
                f"{each.priority} alarm{' again' if again else ''}: {each.kind}, stream {each.stream}"
            )

    def heard(self, name: str) -> None:
        """What was asked of the alarm or stream `name` is done, and in the journal."""
        for asked, event in self._asked:
            if asked == name:
                event.set()

    async def answered(self, name: str, ask: Callable[[], Awaitable[bool]], patience: float) -> bool:
        """Do something to the alarm or stream `name` by `ask`, and wait until it is `heard`; False if that
        takes more than `patience` seconds, or `ask` says so."""
        heard = asyncio.Event()
        self._asked.append((name, heard))
        try:
            async with asyncio.timeout(patience):
                if not await ask():
                    return False
                await heard.wait()
        except TimeoutError:
            return False
        finally:
            self._asked.remove((name, heard))
        return True

    def take(self, number: int, found: Round) -> None:
        """Show what shard `number` found, but for its alarms."""
        now, exporter = time.monotonic(), self.exporter
        for reading in found.readings:
            self.beds[reading.stream] = (reading, now)
            self.home[reading.stream] = number
            exporter.update(reading)
            self.publish({"type": "bed", **_as_dict(reading)})
        for trace in found.traces:
            self.publish({"type": "trace", **trace})
        for stream, beats in found.beats.items():
            self.publish({"type": "beats", "stream": stream, "beats": beats})
        self.beats += len(found.scores)
        exporter.observe_scores(found.scores)
        exporter.observe_latencies(found.delays)

    def leave(self, stream: str) -> None:
        """A stream has no bed any more."""
        self.beds.pop(stream, None)
        self.home.pop(stream, None)
        self.exporter.remove_stream(stream)
        self.publish({"type": "discharge", "stream": stream})

    def _snapshot(self) -> dict[str, Any]:
        now = time.monotonic()
        beds = [{**_as_dict(reading), "age": now - came} for reading, came in self.beds.values()]
        alarms = [_as_dict(each) for each in self.alarms.values()]
        return {"beds": beds, "alarms": alarms, "note": DISCLAIMER}


def _as_event(transition: Transition) -> dict[str, Any]:
    return {"type": "alarm", **_as_dict(transition)}


def _as_dict(of: Reading | Transition) -> dict[str, Any]:
    # `asdict` would copy all that is inside, a thousand times a second.
    return {name: getattr(of, name) for name in of.__slots__}


def _explained(later: Transition, before: Transition | None) -> Transition:
    """`later` as the page shows it: with what was measured when the condition held, not when it was over."""
    if before is None:
        return later
    why = later.why if later.change in CONDITION_HOLDS else {"reason": later.why.get("reason", "")}
    return replace(later, why={**before.why, **why})
