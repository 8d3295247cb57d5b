"""The monitor: shards find, and it tells: first the journal, then Prometheus, Alertmanager and the page.

A shard that dies is begun anew from what the journal kept. Its streams are not watched meanwhile, so they
raise a technical alarm at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from genray.progress import Display
from monitors.alarm_state import AlarmState, restore
from monitors.alarms import step
from monitors.alertmanager import Alertmanager
from monitors.ecg_settings import EcgSettings
from monitors.exporter import Exporter
from monitors.journal import Journal
from monitors.live import Live
from monitors.observation import Observation, Reading, Transition
from monitors.shard import Report
from monitors.shards import Running, ShardLost

DISCLAIMER = "Not a medical device: for research and engineering, not for the care of patients."

_PUSHED = "alertmanager"
_KEEP = 5.0  # s between writing down where sources are
_STATUS = 2.0  # s between states of the whole on the page
_SAID = 15.0  # s between lines that say it
_AGAIN = 1.0  # s before a lost shard is begun anew
_SHARD_LOST = "the process that watches this stream ended; it is being started again"


class Monitor:
    """One run of the monitor.

    Args:
        settings: see there.
        shards: not yet open.
        journal: open; the caller closes it.
        display: where lines for a person go.
    """

    def __init__(
        self, settings: EcgSettings, shards: Sequence[Running], journal: Journal, display: Display
    ) -> None:
        self._settings, self._shards, self._journal, self._display = settings, shards, journal, display
        self._exporter = Exporter(settings.metrics)
        self._live = Live(settings.page, self._snapshot, self._acknowledge)
        self._pager = Alertmanager(
            settings.alertmanager,
            sent=partial(journal.mark_sent, _PUSHED),
            counted=partial(self._exporter.notified, _PUSHED),
        )
        self._beds: dict[str, tuple[Reading, float]] = {}  # and when it came
        self._alarms: dict[str, Transition] = {}  # that are open
        self._home: dict[str, int] = {}  # stream -> shard
        self._streams = [0] * len(shards)
        self._connected: list[Mapping[str, bool]] = [{} for _ in shards]
        self._up = [False] * len(shards)
        self._behind = [0.0] * len(shards)
        self._counts: Counter[str] = Counter()
        self._beats = 0
        self._told_trouble = ""
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End well, soon."""
        self._stop.set()

    async def run(self) -> dict[str, Any]:
        """Watch until the sources are over, `seconds` have passed or `stop` was called.

        Returns:
            streams, beats and alarms by kind.

        Raises:
            GenrayError: a port is taken, or the source can never be opened.
        """
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            stack.callback(self._exporter.close)
            stack.push_async_callback(self._live.close)
            port = self._exporter.start()
            page = await self._live.start()
            await stack.enter_async_context(self._pager)
            self._display.note(f"metrics: http://{self._settings.metrics.host}:{port}/metrics")
            if page is not None:
                self._display.note(f"page:    http://{self._settings.page.host}:{page}/")
            for note in self._journal.notes:
                self._display.note(note)
            self._remember()
            tasks = [asyncio.create_task(self._follow(number)) for number in range(len(self._shards))]
            tasks.append(asyncio.create_task(self._tell()))
            over = asyncio.create_task(_all(tasks[:-1]))
            asked = asyncio.create_task(self._asked())
            try:
                done, _ = await asyncio.wait(
                    [over, asked, tasks[-1]],
                    timeout=self._settings.seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    task.result()
            finally:
                for task in [over, asked, *tasks]:
                    task.cancel()
                await asyncio.gather(over, asked, *tasks, return_exceptions=True)
                for shard in self._shards:
                    await shard.close()
        return {
            "seconds": round(time.monotonic() - began, 1),
            "streams": len(self._home),
            "beats": self._beats,
            "alarms": dict(sorted(self._counts.items())),
        }

    async def _asked(self) -> None:
        await self._stop.wait()

    def _remember(self) -> None:
        """Alarms that were open when the monitor ended, and what was not sent."""
        opened = self._journal.open_alarms()
        for transition in opened:
            self._alarms[transition.alarm] = transition
            self._exporter.alarm(transition)
        self._pager.push(self._journal.unsent(_PUSHED))
        self._pager.push(opened)

    async def _follow(self, number: int) -> None:
        """Run a shard until its source is over."""
        shard = self._shards[number]
        while True:
            await shard.open(
                await asyncio.to_thread(self._journal.load_states, "reference"),
                [alarm for alarm in self._alarms.values() if self._home.get(alarm.stream, number) == number],
                self._place(number),
            )
            try:
                if await self._collect(number, shard):
                    return
            except ShardLost:
                self._up[number] = False
                self._exporter.shard(str(number), False)
                await self._without(number)

    async def _collect(self, number: int, shard: Running) -> bool:
        """Take what is new until the source is over; True then."""
        watched: frozenset[str] = frozenset()
        kept = time.monotonic()
        place: Mapping[str, Any] = {}
        while True:
            wanted = frozenset(self._live.wanted())
            if wanted != watched:
                await shard.watch(wanted)
                watched = wanted
            report = await shard.collect()
            if not self._up[number]:
                self._up[number] = True
                self._exporter.shard(str(number), True)
            await self._take(number, report)
            now = time.monotonic()
            if report.over or (now - kept > _KEEP and report.place != place):
                kept, place = now, report.place
                # What is over begins at its beginning the next time.
                data = b"" if report.over else json.dumps(place).encode()
                await asyncio.to_thread(
                    self._journal.save_states, "place", {f"shard-{number}": data}, time.time()
                )
            if report.over:
                return True

    async def _take(self, number: int, report: Report) -> None:
        """Tell what a shard found."""
        found, exporter = report.found, self._exporter
        await self._announce(found.transitions)
        now = time.monotonic()
        for reading in found.readings:
            self._beds[reading.stream] = (reading, now)
            self._home[reading.stream] = number
            exporter.update(reading)
            self._live.publish({"type": "bed", **asdict(reading)})
        for trace in found.traces:
            self._live.publish({"type": "trace", **trace})
        for stream, beats in found.beats.items():
            self._live.publish({"type": "beats", "stream": stream, "beats": beats})
        for stream in found.discharged:
            self._beds.pop(stream, None)
            exporter.discharge(stream)
            self._live.publish({"type": "discharge", "stream": stream})
            await asyncio.to_thread(self._journal.delete_state, stream)
        if found.references:
            await asyncio.to_thread(self._journal.save_states, "reference", found.references, time.time())
        self._beats += len(found.scores)
        exporter.observe_scores(found.scores)
        exporter.observe_latency(found.delays)
        exporter.observe_step(report.steps)
        for (source, reason), count in report.faults.items():
            exporter.fault(source, reason, count)
        if report.refused:
            exporter.fault("ward", "too many streams", report.refused)
        for source, connected in report.connected.items():
            exporter.connected(source, connected)
        self._connected[number], self._streams[number] = report.connected, report.streams
        if found.readings:
            self._behind[number] = found.behind
            exporter.behind(max(self._behind))

    async def _announce(self, transitions: Sequence[Transition]) -> None:
        """The journal first: what is told was written down before."""
        if not transitions:
            return
        new = await asyncio.to_thread(self._journal.record, transitions)
        trouble = str(self._journal.trouble or "")
        if trouble and trouble != self._told_trouble:
            self._display.note(f"alarms go on without the journal: {trouble}")
        self._told_trouble = trouble
        self._pager.push(new)
        for each in new:
            self._exporter.alarm(each)
            if each.state == "ended":
                self._alarms.pop(each.alarm, None)
            else:
                before = self._alarms.get(each.alarm)
                # The page explains an alarm by what was found at its onset, too.
                self._alarms[each.alarm] = each if before is None else _explained(each, before)
            self._live.publish({"type": "alarm", **asdict(each)})
            if each.change == "onset":
                self._counts[each.kind] += 1
            if each.announced and each.change in ("onset", "escalated"):
                self._display.note(f"{each.priority} alarm: {each.kind}, stream {each.stream}")

    async def _without(self, number: int) -> None:
        """The streams of a shard that is gone are not watched: say so, and begin it anew."""
        now = time.monotonic()
        for stream, (reading, came) in list(self._beds.items()):
            if self._home.get(stream) != number:
                continue
            state = self._state_of(stream)
            limits = self._settings.alarms
            quiet = max(now - came, limits.stream_lost.medium)
            seen = Observation(time=reading.time + (now - came), good=False, lost=quiet)
            _, changes = step(state, seen, limits)
            await self._announce([_because(each) for each in changes])
        await asyncio.sleep(_AGAIN)

    def _state_of(self, stream: str) -> AlarmState:
        opened = [alarm for alarm in self._alarms.values() if alarm.stream == stream]
        return restore(stream, opened) if opened else AlarmState(stream)

    def _place(self, number: int) -> Mapping[str, Any]:
        kept = self._journal.load_states("place").get(f"shard-{number}")
        try:
            place = json.loads(kept) if kept else {}
        except ValueError:
            place = {}
        return place if isinstance(place, dict) else {}

    async def _tell(self) -> None:
        """The state of the whole, now and then."""
        said = time.monotonic()
        while True:
            await asyncio.sleep(_STATUS)
            sources: dict[str, bool] = {}
            for connected in self._connected:
                for name, is_there in connected.items():
                    sources[name] = sources.get(name, True) and is_there
            streams, behind = sum(self._streams), max(self._behind, default=0.0)
            shards = [{"ok": up} for up in self._up]
            status = {"sources": sources, "behind": behind, "streams": streams, "shards": shards}
            self._live.publish({"type": "status", **status})
            if (now := time.monotonic()) - said >= _SAID:
                said = now
                self._display.note(
                    f"{streams} streams  {self._beats} beats  {len(self._alarms)} open alarms  "
                    f"{behind:.1f} s behind"
                )

    def _snapshot(self) -> dict[str, Any]:
        now = time.monotonic()
        beds = [{**asdict(reading), "age": now - came} for reading, came in self._beds.values()]
        return {"beds": beds, "alarms": [asdict(each) for each in self._alarms.values()], "note": DISCLAIMER}

    async def _acknowledge(self, alarm: str) -> bool:
        stream = alarm.partition(":")[0]
        shard = self._shards[self._home.get(stream, 0)]
        try:
            changes = await shard.acknowledge(alarm)
        except ShardLost:
            return False
        await self._announce(changes)
        return bool(changes)


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


def _explained(later: Transition, before: Transition) -> Transition:
    return replace(later, why={**before.why, **later.why})


def _because(transition: Transition) -> Transition:
    if transition.kind != "stream-lost":
        return transition
    return replace(transition, why={**transition.why, "reason": _SHARD_LOST})
