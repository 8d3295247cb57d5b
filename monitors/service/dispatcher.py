"""The dispatcher: what shards find goes to the journal first, then to Alertmanager, Prometheus and page."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from genray.progress import Display
from monitors.alarms.events import Reading, Transition
from monitors.outputs.alertmanager import Alertmanager
from monitors.outputs.database import CONDITION_HOLDS
from monitors.outputs.journal import Journal
from monitors.outputs.metrics import MetricsExporter
from monitors.outputs.page import LivePage
from monitors.patient.output import WardOutput
from monitors.settings import EcgSettings

DISCLAIMER = "Not a medical device: for research and engineering, not for the care of patients."

CHANNEL = "alertmanager"
"""Of the journal and the metrics: by which alarms are sent."""


@dataclass(slots=True)
class WatchedStream:
    """A stream that has a bed.

    Attributes:
        reading: the last.
        arrived: when it came, by the monotonic clock.
        shard: number of the shard that watches it.
    """

    reading: Reading
    arrived: float
    shard: int


class Dispatcher:
    """All outputs of the monitor, and the state that they show.

    It is responsible for:

    - the order: what is announced was written down before,
    - the alarms that are open and the streams that are watched, as they were shown last,
    - outputs that fail: none keeps an alarm from the others,
    - confirming commands once their effect is in the journal.

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
        self._journal = journal
        self._display = display
        self.exporter = MetricsExporter(settings.metrics)
        self.page = LivePage(settings.page, self._snapshot, acknowledge, discharge)
        self.alertmanager = Alertmanager(
            settings.alertmanager,
            mark_sent=partial(journal.mark_sent, CHANNEL),
            count_outcome=partial(self.exporter.count_notifications, CHANNEL),
            set_owed=partial(self.exporter.set_owed, CHANNEL),
            note=display.note,
        )
        self.alarms: dict[str, Transition] = {}
        """That are open, by name: the last change of each."""
        self.restored_alarms: frozenset[str] = frozenset()
        """Alarms that were open when the monitor began."""
        self.streams: dict[str, WatchedStream] = {}
        self.onsets: Counter[str] = Counter()
        """By kind of alarm."""
        self.beats = 0
        self._announcing = asyncio.Lock()
        self._noted: set[str] = set()
        self._journal_error = ""
        self._unconfirmed: list[tuple[str, asyncio.Event]] = []

    def restore_alarms(self) -> None:
        """Go on with alarms that were open when the monitor ended, and with what was not sent."""
        for transition in self._journal.open_alarms():
            explaining = self._journal.last_transition(transition.alarm, CONDITION_HOLDS)
            self.alarms[transition.alarm] = _explained(transition, explaining)
            # Its onset was counted when it was.
            self.exporter.update_alarm(replace(transition, change="resumed"))
        self.restored_alarms = frozenset(self.alarms)
        self.alertmanager.push(self._journal.unsent(CHANNEL))
        self.alertmanager.push(list(self.alarms.values()))

    def note_once(self, text: str) -> None:
        """A line for a person, the first time."""
        if text not in self._noted:
            self._noted.add(text)
            self._display.note(text)

    def publish(self, event: Mapping[str, Any]) -> None:
        """Show `event` on the page. No fault of the page may keep alarms from going out."""
        try:
            self.page.publish(event)
        except Exception as error:
            self.exporter.count_fault("page", type(error).__name__)
            self.note_once(f"the page is not told of a {event.get('type')}: {type(error).__name__}: {error}")

    async def announce(self, transitions: Sequence[Transition]) -> None:
        """Record `transitions`, then send and show those that are new."""
        if not transitions:
            return
        async with self._announcing:
            new = await asyncio.to_thread(self._journal.record, self._without_ended(transitions))
            self._note_journal_error()
            self.alertmanager.push(new)
            for transition in new:
                self._show_alarm(transition)
        for transition in transitions:
            if transition.change == "acknowledged":
                self.confirm(transition.alarm)

    def confirm(self, name: str) -> None:
        """What was commanded for the alarm or stream `name` is done, and in the journal."""
        for unconfirmed, event in self._unconfirmed:
            if unconfirmed == name:
                event.set()

    async def confirmed(self, name: str, command: Callable[[], Awaitable[bool]], timeout: float) -> bool:
        """Give a command for the alarm or stream `name`, and wait until it is confirmed (`confirm`); False if
        that takes more than `timeout` seconds, or `command` gives False."""
        confirmation = (name, asyncio.Event())
        self._unconfirmed.append(confirmation)
        try:
            async with asyncio.timeout(timeout):
                if not await command():
                    return False
                await confirmation[1].wait()
        except TimeoutError:
            return False
        finally:
            self._unconfirmed.remove(confirmation)
        return True

    def show(self, shard: int, output: WardOutput) -> None:
        """Show what shard number `shard` found, but for its alarms."""
        now = time.monotonic()
        for reading in output.readings:
            self.streams[reading.stream] = WatchedStream(reading, now, shard)
            self.exporter.update(reading)
            self.publish({"type": "bed", **_as_dict(reading)})
        for trace in output.traces:
            self.publish({"type": "trace", **trace.as_json()})
        for stream, beats in output.beats.items():
            self.publish({"type": "beats", "stream": stream, "beats": [beat.as_json() for beat in beats]})
        self.beats += len(output.scores)
        self.exporter.observe_scores(output.scores)
        self.exporter.observe_latencies(output.delays)

    def remove_stream(self, stream: str) -> None:
        """A stream has no bed any more."""
        self.streams.pop(stream, None)
        self.exporter.remove_stream(stream)
        self.publish({"type": "discharge", "stream": stream})

    def _without_ended(self, transitions: Sequence[Transition]) -> list[Transition]:
        """Those that change something: an alarm that was ended elsewhere neither ends nor is acknowledged."""
        open_alarms = set(self.alarms)
        effective = []
        for transition in transitions:
            if transition.change in CONDITION_HOLDS:
                open_alarms.add(transition.alarm)
            if transition.alarm in open_alarms:
                effective.append(transition)
            if transition.state == "ended":
                open_alarms.discard(transition.alarm)
        return effective

    def _note_journal_error(self) -> None:
        error = str(self._journal.write_error or "")
        if error and error != self._journal_error:
            self._display.note(f"alarms go on without the journal: {error}")
        self._journal_error = error

    def _show_alarm(self, transition: Transition) -> None:
        """Show an alarm's change in the metrics, on the page, and to a person."""
        before = self.alarms.get(transition.alarm)
        self.exporter.update_alarm(transition)
        if transition.state == "ended":
            self.alarms.pop(transition.alarm, None)
        else:
            self.alarms[transition.alarm] = _explained(transition, before)
        self.publish({"type": "alarm", **_as_dict(transition)})
        if transition.change == "onset":
            self.onsets[transition.kind] += 1
        # What goes on after it could not be judged is no news; what was over is.
        again = transition.change == "resumed" and (before is None or before.state == "latched")
        if transition.announced and (again or transition.change in ("onset", "escalated")):
            alarm = "alarm again" if again else "alarm"
            self._display.note(
                f"{transition.priority} {alarm}: {transition.kind}, stream {transition.stream}"
            )

    def _snapshot(self) -> dict[str, Any]:
        now = time.monotonic()
        beds = [{**_as_dict(stream.reading), "age": now - stream.arrived} for stream in self.streams.values()]
        alarms = [_as_dict(alarm) for alarm in self.alarms.values()]
        return {"beds": beds, "alarms": alarms, "note": DISCLAIMER}


def _as_dict(event: Reading | Transition) -> dict[str, Any]:
    # `asdict` would copy all that is inside, a thousand times a second.
    return {name: getattr(event, name) for name in event.__slots__}


def _explained(later: Transition, before: Transition | None) -> Transition:
    """`later` as the page shows it: with what was measured when the condition held, not when it was over."""
    if before is None:
        return later
    why = later.why if later.change in CONDITION_HOLDS else {"reason": later.why.get("reason", "")}
    return replace(later, why={**before.why, **why})
