"""Dispatcher: writes what shards find to the journal first, then to Alertmanager, Prometheus and the page."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from genray.progress import Display
from monitors.alarms.events import Reading, Transition
from monitors.outputs.alertmanager import Alertmanager
from monitors.outputs.database import CONDITION_TRUE
from monitors.outputs.journal import Journal
from monitors.outputs.metrics import MetricsExporter
from monitors.outputs.page import CommandResult, CommandStatus, LivePage
from monitors.outputs.strips import FOLDER, StripStore, strip_as_json
from monitors.patient.output import Strip, WardOutput
from monitors.settings import EcgSettings

DISCLAIMER = "Not a medical device: for research and engineering, not for the care of patients."

CHANNEL = "alertmanager"
"""Name of the channel that sends alarms, in the journal and the metrics."""


@dataclass(slots=True)
class WatchedStream:
    """A stream with a bed.

    Attributes:
        reading: its last reading.
        arrived: monotonic time at which the reading came, seconds.
        shard: number of the shard that monitors it.
    """

    reading: Reading
    arrived: float
    shard: int


class Dispatcher:
    """Sends what shards find to all outputs of the monitor.

    It is responsible for:

    - the order of outputs: a change of an alarm is in the journal before it is announced,
    - the open alarms and the monitored streams, as last shown,
    - isolating faults: an output that fails keeps no alarm from the other outputs,
    - confirming commands once their effect is in the journal.

    It leaves detection and alarm states to the wards in the shards.

    Args:
        settings: settings of the monitor.
        journal: open journal.
        display: receives lines for a person.
        acknowledge, discharge: see `LivePage`.
    """

    def __init__(
        self,
        settings: EcgSettings,
        journal: Journal,
        display: Display,
        acknowledge: Callable[[str], Awaitable[CommandResult]],
        discharge: Callable[[str], Awaitable[CommandResult]],
    ) -> None:
        self._journal = journal
        self._display = display
        self.exporter = MetricsExporter(settings.metrics)
        self.page = LivePage(
            settings.page,
            self._snapshot,
            acknowledge,
            discharge,
            self._read_strip,
            count_refused=partial(self.exporter.count_fault, "page", "bad request"),
        )
        self._strips = StripStore(Path(settings.state) / FOLDER, settings.strips)
        self.alertmanager = Alertmanager(
            settings.alertmanager,
            mark_sent=partial(journal.mark_sent, CHANNEL),
            count_outcome=partial(self.exporter.count_notifications, CHANNEL),
            set_owed=partial(self.exporter.set_owed, CHANNEL),
            note=display.note,
        )
        self.alarms: dict[str, Transition] = {}
        """Last change of each open alarm, by name."""
        self.restored_alarms: frozenset[str] = frozenset()
        """Names of the alarms that were open when the monitor started."""
        self.streams: dict[str, WatchedStream] = {}
        self.onsets: Counter[str] = Counter()
        """Number of onsets by kind of alarm."""
        self.beats = 0
        self._announcing = asyncio.Lock()
        self._noted: set[str] = set()
        self._journal_error = ""
        self._strip_error = ""
        self._unconfirmed: list[tuple[str, asyncio.Event]] = []

    def restore_alarms(self) -> None:
        """Restore the alarms that were open when the monitor stopped, and send what was not sent."""
        for transition in self._journal.open_alarms():
            explaining = self._journal.last_transition(transition.alarm, CONDITION_TRUE)
            self.alarms[transition.alarm] = _explained(transition, explaining)
            # As a change that does not count its onset again.
            self.exporter.update_alarm(replace(transition, change="resumed"))
        self.restored_alarms = frozenset(self.alarms)
        self.alertmanager.push(self._journal.unsent(CHANNEL))
        self.alertmanager.push(list(self.alarms.values()))

    def note_once(self, text: str) -> None:
        """Show a line to a person unless it was shown before."""
        if text not in self._noted:
            self._noted.add(text)
            self._display.note(text)

    def publish(self, event: Mapping[str, Any]) -> None:
        """Show `event` on the page. A fault of the page is counted and must not stop other outputs."""
        try:
            self.page.publish(event)
        except Exception as error:
            self.exporter.count_fault("page", type(error).__name__)
            self.note_once(
                f"the page could not show a {event.get('type')!r} event: {type(error).__name__}: {error}"
            )

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

    async def save_strips(self, strips: Sequence[Strip]) -> None:
        """Save `strips`; to be called before the alarms to which they belong are announced, so that no kill
        leaves an alarm without its strip. A fault is shown and must not stop other outputs."""
        if strips:
            await asyncio.to_thread(self._strips.save, strips)
            self._note_strip_error()

    def prune_strips(self, before: float) -> None:
        """Delete the strips that were written before a unix time (s); raises OSError."""
        self._strips.prune(before)

    def confirm(self, name: str) -> None:
        """Confirm that a command for the alarm or stream `name` has taken effect and is in the journal."""
        for unconfirmed, event in self._unconfirmed:
            if unconfirmed == name:
                event.set()

    async def confirmed(
        self, name: str, command: Callable[[], Awaitable[bool]], timeout: float
    ) -> CommandStatus:
        """Run a command for the alarm or stream `name` and wait until it is confirmed (`confirm`); "late" if
        that takes more than `timeout` seconds, "unknown" if `command` returns False."""
        confirmation = (name, asyncio.Event())
        self._unconfirmed.append(confirmation)
        try:
            async with asyncio.timeout(timeout):
                if not await command():
                    return "unknown"
                await confirmation[1].wait()
        except TimeoutError:
            return "late"
        finally:
            self._unconfirmed.remove(confirmation)
        return "done"

    def show(self, shard: int, output: WardOutput) -> None:
        """Show what shard number `shard` found, except its alarms."""
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
        """Remove a stream that has no bed any more from all outputs."""
        self.streams.pop(stream, None)
        self.exporter.remove_stream(stream)
        self.publish({"type": "discharge", "stream": stream})

    def _without_ended(self, transitions: Sequence[Transition]) -> list[Transition]:
        """Return the transitions that change something: without those of alarms that have ended elsewhere."""
        open_alarms = set(self.alarms)
        effective = []
        for transition in transitions:
            if transition.change in CONDITION_TRUE:
                open_alarms.add(transition.alarm)
            if transition.alarm in open_alarms:
                effective.append(transition)
            if transition.state == "ended":
                open_alarms.discard(transition.alarm)
        return effective

    async def retry_writes(self) -> None:
        """Write to the journal and the strips what a full disk held back, without waiting for a new event."""
        if self._strips.waits:
            await asyncio.to_thread(self._strips.save, ())
            self._note_strip_error()
        if self._journal.write_error is not None:
            await asyncio.to_thread(self._journal.retry)
            self._note_journal_error()

    def _note_journal_error(self) -> None:
        error = str(self._journal.write_error or "")
        if error and error != self._journal_error:
            self._display.note(f"alarms are announced but not written to the journal: {error}")
        elif self._journal_error and not error:
            self._display.note("the journal is written again, with what waited")
        self._journal_error = error

    def _note_strip_error(self) -> None:
        error = str(self._strips.write_error or "")
        if error and error != self._strip_error:
            self.exporter.count_fault("strips", "not written")
            self._display.note(f"alarms are announced, but their strips are not stored: {error}")
        self._strip_error = error

    async def _read_strip(self, alarm: str) -> Mapping[str, Any] | None:
        strip = await asyncio.to_thread(self._strips.read, alarm)
        return None if strip is None else strip_as_json(strip)

    def _show_alarm(self, transition: Transition) -> None:
        """Show a change of an alarm in the metrics, on the page and on the terminal."""
        before = self.alarms.get(transition.alarm)
        self.exporter.update_alarm(transition)
        if transition.state == "ended":
            self.alarms.pop(transition.alarm, None)
        else:
            self.alarms[transition.alarm] = _explained(transition, before)
        self.publish({"type": "alarm", **_as_dict(transition)})
        if transition.change == "onset":
            self.onsets[transition.kind] += 1
        # An alarm that resumes after suppression is not new; one that resumes after its end is.
        again = transition.change == "resumed" and (before is None or before.state == "latched")
        if transition.announced and (again or transition.change in ("onset", "escalated")):
            alarm = "alarm recurred" if again else "alarm"
            self._display.note(
                f"{transition.priority} priority {alarm}: {transition.kind}, stream {transition.stream}"
            )

    def _snapshot(self) -> dict[str, Any]:
        now = time.monotonic()
        beds = [{**_as_dict(stream.reading), "age": now - stream.arrived} for stream in self.streams.values()]
        alarms = [_as_dict(alarm) for alarm in self.alarms.values()]
        return {"beds": beds, "alarms": alarms, "note": DISCLAIMER}


def _as_dict(event: Reading | Transition) -> dict[str, Any]:
    # Not `asdict`, which would copy all nested values, a thousand times per second.
    return {name: getattr(event, name) for name in event.__slots__}


def _explained(later: Transition, before: Transition | None) -> Transition:
    """Return `later` as the page shows it: with the values measured while the condition was true, and when
    that was."""
    if later.change in CONDITION_TRUE:
        measured_at = {"change": later.change, "time": later.time}
        return replace(later, why={**(before.why if before else {}), **later.why, "measured_at": measured_at})
    if before is None:
        return later
    measured_at = {"change": before.change, "time": before.time}
    reason = {"reason": later.why.get("reason", "")}
    return replace(later, why={"measured_at": measured_at, **before.why, **reason})
