"""The monitor: shards find, and it tells.

A shard that dies is begun anew from what was kept. Its streams are not watched meanwhile, so they raise a
technical alarm at once. No shard waits for another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from genray.errors import GenrayError
from genray.progress import Display
from monitors.outputs.journal import Journal
from monitors.service.backends import ShardBackend, ShardLost
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.commands import Commands
from monitors.service.dispatcher import Dispatcher
from monitors.service.lost_streams import LostStreams
from monitors.service.shard import ShardReport
from monitors.settings import EcgSettings

_KEEP = 5.0  # s between writing down where sources are
_STATUS = 2.0  # s between states of the whole on the page
_SAID = 15.0  # s between lines that say it
_PRUNE = 3600.0  # s
_AGAIN = 1.0  # s before a lost shard is begun anew; each time twice as long, up to
_LONGEST = 30.0
_END = 5.0  # s that shards have to end well
_HANGS = 10.0  # s without an answer after which the streams of a shard are lost, and say so
_LATE = 60.0  # s after which what a shard should have given up is given up here


class Monitor:
    """One run of the monitor.

    Args:
        settings: see there.
        shards: not yet open.
        journal: open; the caller closes it.
        pseudonym: of a stream, by the name that its source gives it.
        display: where lines for a person go.
    """

    def __init__(
        self,
        settings: EcgSettings,
        shards: Sequence[ShardBackend],
        journal: Journal,
        pseudonym: Callable[[str], str],
        display: Display,
    ) -> None:
        self._settings, self._shards, self._journal, self._display = settings, shards, journal, display
        self._up = [False] * len(shards)
        self.telling = told = Dispatcher(
            settings,
            journal,
            display,
            acknowledge=lambda alarm: self._requests.acknowledge(alarm),
            discharge=lambda stream: self._requests.discharge(stream),
        )
        self._keeping = MonitorCheckpoint(journal, settings.source, len(shards), told.note)
        awaited = self._keeping.watched(settings.ward.discharge_after)
        self._absence = LostStreams(told, settings.limits_by(pseudonym), awaited)
        self._requests = Commands(shards, self._up, told, self._absence, self._keeping, pseudonym)
        self._last: list[ShardReport | None] = [None] * len(shards)
        self._behind = [0.0] * len(shards)
        self._asked: list[float | None] = [None] * len(shards)
        self._late = [False] * len(shards)
        self._opened = [False] * len(shards)  # whether its source was ever there
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End well, soon."""
        self._stop.set()

    async def run(self) -> dict[str, Any]:
        """Watch until the sources are over, `seconds` have passed or `stop` was called.

        Returns:
            seconds, streams, beats, alarms by kind, and how many are open.

        Raises:
            GenrayError: a port is taken, or the source can never be opened.
        """
        began, told = time.monotonic(), self.telling
        async with AsyncExitStack() as stack:
            stack.callback(told.exporter.close)
            stack.push_async_callback(told.live.close)
            port = told.exporter.start()
            page = await told.live.start()
            await stack.enter_async_context(told.pager)
            self._display.note(f"metrics: http://{self._settings.metrics.host}:{port}/metrics")
            if page is not None:
                self._display.note(f"page:    http://{self._settings.page.host}:{page}/")
            for note in self._journal.notes:
                self._display.note(note)
            told.remember()
            if going_on := [f"{n} {what}" for n, what in self._taken_up() if n]:
                self._display.note(f"going on with {', '.join(going_on)}")
            await self._watch()
        return {
            "seconds": round(time.monotonic() - began, 1),
            "streams": len(told.home),
            "beats": told.beats,
            "alarms": dict(sorted(told.counts.items())),
            "open": len(told.alarms),
        }

    def _taken_up(self) -> list[tuple[int, str]]:
        """What is known from before."""
        return [
            (len(self._absence.awaited), "streams"),
            (self._keeping.learned, "learned patients"),
            (len(self.telling.alarms), "open alarms"),
        ]

    async def _watch(self) -> None:
        followed = [asyncio.create_task(self._follow(number)) for number in range(len(self._shards))]
        beside = [asyncio.create_task(work) for work in (self._look_around(), self._forget_old_alarms())]
        asked = asyncio.create_task(self._stop.wait())
        tasks: set[asyncio.Task[Any]] = {*followed, *beside, asked}
        end = None if self._settings.seconds is None else time.monotonic() + self._settings.seconds
        try:
            while not asked.done() and not all(task.done() for task in followed):
                left = None if end is None else max(0.0, end - time.monotonic())
                pending = [task for task in tasks if not task.done()]
                done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if not done:
                    break
        finally:
            # What was found is told, and where it ended is kept.
            over = all(task.done() and not task.exception() and task.result() for task in followed)
            self._stop.set()
            _, late = await asyncio.wait(followed, timeout=_END)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._keeping.watching({} if over else self._watching())
            for shard in self._shards:
                await shard.close()
        for task in followed:
            if task not in late:
                task.result()

    async def _follow(self, number: int) -> bool:
        """Run a shard until its source is over, or the monitor ends; says whether it is over."""
        shard, told = self._shards[number], self.telling
        wait = _AGAIN
        while not self._stop.is_set():
            opened = [each for each in told.alarms.values() if each.alarm not in self._absence.raised]
            alarms = [each for each in opened if told.home.get(each.stream, number) == number]
            try:
                await shard.open(self._keeping.start(number, alarms))
                return await self._collect(number, shard)
            except ShardLost as error:
                self._display.note(str(error))
            except GenrayError as error:
                # Others are watched: that a file or a package is gone now does not end them.
                if not self._opened[number]:
                    raise
                self._display.note(f"shard {number}: {error}")
            wait = _AGAIN if self._up[number] else min(2 * wait, _LONGEST)
            await self._without(number)
            await asyncio.sleep(wait)
        return False

    async def _collect(self, number: int, shard: ShardBackend) -> bool:
        """Take what is new until the source is over, or the monitor ends."""
        told, keeping = self.telling, self._keeping
        watched: frozenset[str] = frozenset()
        kept, last = time.monotonic(), False
        while not last:
            wanted = frozenset(told.live.shown_streams())
            if wanted != watched:
                await shard.watch(wanted)
                watched = wanted
            last = self._stop.is_set()
            keep = last or time.monotonic() - kept > _KEEP
            self._asked[number] = time.monotonic()
            report = await shard.collect(keep)
            self._asked[number] = None
            if not self._up[number] or self._late[number]:
                self._late[number] = False
                self._absence.shard_back(number)
            if not self._up[number]:
                await self._begun(number, report)
                # Before anything is told: else a kill now would begin elsewhere, and tell it again.
                await keeping.place(number, report.place)
            found = report.found
            for stream in found.discharged:
                await self._requests.left(stream)
            await self._absence.back(found.readings)
            await told.announce(found.transitions)
            await keeping.states(report.states)
            await keeping.references(found.references)
            self._take(number, report)
            if keep:
                kept = time.monotonic()
                await keeping.place(number, report.place)
            if report.over:
                await keeping.place(number, {})
                return True
        return False

    async def _begun(self, number: int, report: ShardReport) -> None:
        self._up[number] = True
        await self._requests.begun(number)
        self.telling.exporter.set_shard(str(number), up=True)
        if self._settings.shards:
            self._display.note(f"shard {number}: process {report.process}")

    def _take(self, number: int, report: ShardReport) -> None:
        told, exporter = self.telling, self.telling.exporter
        told.take(number, report.found)
        exporter.observe_steps(report.steps)
        for (source, reason), count in report.faults.items():
            exporter.count_fault(source, reason, count)
        if report.refused:
            exporter.count_fault("ward", "too many streams", report.refused)
        for text in report.left_out:
            told.note(f"left out: {text}")
        self._last[number] = report
        self._opened[number] |= any(report.connected.values())
        for source, connected in self._connected().items():
            exporter.set_source(source, connected=connected)
        if report.found.readings:
            self._behind[number] = report.found.behind
            exporter.set_behind(max(self._behind))

    def _connected(self) -> dict[str, bool]:
        """Whether each source is there, in all shards."""
        sources: dict[str, bool] = {}
        for report in self._last:
            for name, there in (report.connected if report else {}).items():
                sources[name] = sources.get(name, True) and there
        return sources

    async def _without(self, number: int) -> None:
        """The streams of a shard that is gone are not watched: say so until it is back."""
        self._up[number], self._last[number], self._behind[number] = False, None, 0.0
        self.telling.exporter.set_shard(str(number), up=False)
        await self._absence.shard_lost(number)

    async def _look_around(self) -> None:
        """Now and then: the state of the whole, and streams that nobody watches."""
        told = self.telling
        said = time.monotonic()
        while True:
            await asyncio.sleep(_STATUS)
            streams = sum(report.streams for report in self._last if report)
            status: Mapping[str, Any] = {
                "sources": self._connected(),
                "behind": max(self._behind),
                "streams": streams,
                "shards": [{"ok": up} for up in self._up],
            }
            told.publish({"type": "status", **status})
            for number, (up, asked) in enumerate(zip(self._up, self._asked, strict=True)):
                self._late[number] = up and asked is not None and time.monotonic() - asked > _HANGS
                if not up or self._late[number]:
                    await self._absence.shard_lost(number)
            await self._absence.look(all(self._up))
            for stream in self._absence.silent(self._settings.ward.discharge_after + _LATE):
                await self._requests.leave(stream)
            await self._keeping.watching(self._watching())
            now = time.monotonic()
            if now - said >= _SAID:
                said = now
                self._display.note(
                    f"{streams} streams  {told.beats} beats  {len(told.alarms)} open alarms  "
                    f"{max(self._behind):.1f} s behind"
                )

    async def _forget_old_alarms(self) -> None:
        while True:
            await asyncio.sleep(_PRUNE)
            try:
                await asyncio.to_thread(self._journal.prune)
            except GenrayError as error:
                self.telling.note(f"old alarms are not forgotten: {error}")

    def _watching(self) -> dict[str, float]:
        """Streams that have a bed, or had one when the monitor ended last, and the time of their samples."""
        beds = self.telling.beds.items()
        return self._absence.awaited | {stream: reading.time for stream, (reading, _) in beds}
