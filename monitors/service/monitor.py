"""The monitor: supervises its shards and dispatches what they find.

A shard that dies is restarted from the checkpoint. Its patients are not monitored meanwhile, so its streams
raise a technical alarm at once. No shard waits for another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

from genray.errors import GenrayError
from genray.progress import Display
from genray.text import duration
from monitors.alarms.events import Transition
from monitors.outputs.journal import Journal
from monitors.service.backends import ShardBackend, ShardLost, ShardState
from monitors.service.checkpoint import MonitorCheckpoint
from monitors.service.commands import Commands
from monitors.service.dispatcher import Dispatcher
from monitors.service.lost_streams import LostStreams
from monitors.service.shard import Moment, ShardReport
from monitors.settings import EcgSettings

_SAVE_PERIOD = 5.0  # s between places of sources that are saved
_STATUS_PERIOD = 2.0  # s between updates of the monitor's status on the page
_NOTE_PERIOD = 15.0  # s between lines of status on the terminal
_PRUNE_PERIOD = 3600.0  # s
_FIRST_WAIT = 1.0  # s before a lost shard is restarted; doubled each time, up to the longest wait
_LONGEST_WAIT = 30.0  # s
_PAUSE = 2.0  # s by which an update of the status may be late; beyond it the process was paused
_ENDING = 5.0  # s that shards have for a regular stop
_HANG_SECONDS = 10.0
_LATE_DISCHARGE = 60.0  # s after ward.discharge_after: then a stream is discharged here if its shard did not


@dataclass(frozen=True)
class MonitorSummary:
    """Summary of a run of the monitor.

    Attributes:
        seconds: duration of the run.
        streams: number of monitored streams at its end.
        beats: number of scored beats.
        onsets: number of alarm onsets by kind.
        open_alarms: number of open alarms at its end.
    """

    seconds: float
    streams: int
    beats: int
    onsets: dict[str, int]
    open_alarms: int

    @classmethod
    def of_nothing(cls) -> Self:
        """Return the summary of a run that ended before it watched anything."""
        return cls(0.0, 0, 0, {}, 0)


class Monitor:
    """One run of the monitor.

    It is responsible for:

    - running each shard, and restarting it from the checkpoint when it is lost,
    - passing what shards report to the dispatcher and the checkpoint,
    - noticing shards that hang and streams that no shard monitors,
    - a regular stop: all findings are announced, and the places of the sources are saved.

    It leaves analysis to the shards, outputs to `Dispatcher` and lost streams to `LostStreams`.

    Args:
        settings: settings of the monitor.
        journal: open journal; the caller closes it.
        display: receives lines for a person.
        shards: shards, not open yet.
        hang_seconds: seconds without an answer after which the streams of a shard count as lost.
    """

    def __init__(
        self,
        settings: EcgSettings,
        journal: Journal,
        display: Display,
        shards: Sequence[ShardState],
        dispatcher: Dispatcher,
        checkpoint: MonitorCheckpoint,
        lost_streams: LostStreams,
        commands: Commands,
        *,
        hang_seconds: float,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._display = display
        self._shards = shards
        self.dispatcher = dispatcher
        self._checkpoint = checkpoint
        self._lost_streams = lost_streams
        self._commands = commands
        self._hang_seconds = hang_seconds
        self._stop = asyncio.Event()

    @classmethod
    def resume(
        cls,
        settings: EcgSettings,
        backends: Sequence[ShardBackend],
        journal: Journal,
        pseudonym: Callable[[str], str],
        display: Display,
        *,
        hang_seconds: float = _HANG_SECONDS,
    ) -> Self:
        """Return a monitor that resumes from the state in `journal`.

        Args:
            backends: backends of its shards, not open yet.
            pseudonym: returns the pseudonym of a stream, by the name that its source gives.

        Raises:
            GenrayError: the journal cannot be read.
        """
        dispatcher = Dispatcher(
            settings,
            journal,
            display,
            acknowledge=lambda alarm: commands.acknowledge(alarm),
            discharge=lambda stream: commands.discharge(stream),
        )
        shards = [ShardState(number, backend) for number, backend in enumerate(backends)]
        checkpoint = MonitorCheckpoint.load(journal, settings.source, len(shards), dispatcher.note_once)
        awaited = checkpoint.watched_before(settings.ward.discharge_after)
        lost_streams = LostStreams(dispatcher, settings.limits_by(pseudonym), awaited)
        commands = Commands(shards, dispatcher, lost_streams, checkpoint, pseudonym)
        return cls(
            settings,
            journal,
            display,
            shards,
            dispatcher,
            checkpoint,
            lost_streams,
            commands,
            hang_seconds=hang_seconds,
        )

    def stop(self) -> None:
        """Ask for a regular stop; `run` returns soon after."""
        self._stop.set()

    async def run(self) -> MonitorSummary:
        """Monitor until the sources have ended, `seconds` have passed or `stop` was called.

        Raises:
            GenrayError: a port is in use, or the source can never be opened.
        """
        began = time.monotonic()
        dispatcher = self.dispatcher
        async with AsyncExitStack() as stack:
            stack.callback(dispatcher.exporter.close)
            stack.push_async_callback(dispatcher.page.close)
            await stack.enter_async_context(dispatcher.alertmanager)
            metrics_port = dispatcher.exporter.start()
            page_port = await dispatcher.page.start()
            self._display.note(f"metrics: {self._settings.metrics.address(metrics_port)}")
            if page_port is not None:
                self._display.note(f"page:    http://{self._settings.page.host}:{page_port}/")
            for note in self._journal.notes:
                self._display.note(note)
            dispatcher.restore_alarms()
            self._note_resumed()
            over = await self._watch()
        if over:
            # Last of all: after a kill before this, the next run ends at once; after it, it is a new one.
            for shard in self._shards:
                await self._checkpoint.save(shard.number, Moment(place={}))
        return MonitorSummary(
            seconds=round(time.monotonic() - began, 1),
            streams=len(dispatcher.streams),
            beats=dispatcher.beats,
            onsets=dict(sorted(dispatcher.onsets.items())),
            open_alarms=len(dispatcher.alarms),
        )

    def _note_resumed(self) -> None:
        """Show a line about the state that was resumed."""
        counts = {
            "streams": len(self._lost_streams.awaited),
            "references": self._checkpoint.learned_patients,
            "open alarms": len(self.dispatcher.alarms),
        }
        if resumed := [f"{count} {name}" for name, count in counts.items() if count]:
            self._display.note(f"resumed: {', '.join(resumed)}")

    async def _watch(self) -> bool:
        """Watch until the monitor is to stop; return whether all sources have ended."""
        following = [asyncio.create_task(self._follow(shard)) for shard in self._shards]
        supervising = asyncio.create_task(self._supervise())
        pruning = asyncio.create_task(self._prune_journal())
        stopping = asyncio.create_task(self._stop.wait())
        tasks: set[asyncio.Task[Any]] = {*following, supervising, pruning, stopping}
        end = None if self._settings.seconds is None else time.monotonic() + self._settings.seconds
        try:
            while not stopping.done() and not all(task.done() for task in following):
                left = None if end is None else max(0.0, end - time.monotonic())
                pending = [task for task in tasks if not task.done()]
                done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if not done:
                    break
        finally:
            # A regular stop: findings are announced, and the places of the sources are saved.
            over = all(task.done() and not task.exception() and task.result() for task in following)
            self._stop.set()
            _, late = await asyncio.wait(following, timeout=_ENDING)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._checkpoint.save_watched({} if over else self._watched_streams())
            for shard in self._shards:
                await shard.backend.close()
        for task in following:
            if task not in late:
                task.result()
        return over

    async def _follow(self, shard: ShardState) -> bool:
        """Run a shard until its source has ended or the monitor stops; return whether the source has
        ended."""
        wait = _FIRST_WAIT
        while not self._stop.is_set():
            try:
                alarms, expected = self._alarms_of(shard), self._streams_of(shard)
                await shard.backend.open(self._checkpoint.start(shard.number, alarms, expected))
                return await self._collect_all(shard)
            except ShardLost as error:
                self._display.note(str(error))
            except GenrayError as error:
                # A shard that worked before is restarted: a missing file must not stop the other shards.
                if not shard.was_connected:
                    raise
                self._display.note(f"shard {shard.number}: {error}")
            wait = _FIRST_WAIT if shard.up else min(2 * wait, _LONGEST_WAIT)
            await self._mark_lost(shard)
            await asyncio.sleep(wait)
        return False

    def _alarms_of(self, shard: ShardState) -> list[Transition]:
        """Return the open alarms of the shard's streams, and of streams whose shard is unknown."""
        streams = self.dispatcher.streams
        raised_here = self._lost_streams.raised
        return [
            alarm
            for alarm in self.dispatcher.alarms.values()
            if alarm.alarm not in raised_here
            and (alarm.stream not in streams or streams[alarm.stream].shard == shard.number)
        ]

    def _streams_of(self, shard: ShardState) -> frozenset[str]:
        """Return the monitored streams that may belong to the shard."""
        streams = self.dispatcher.streams
        own = {name for name, watched in streams.items() if watched.shard == shard.number}
        return frozenset(own | (self._lost_streams.awaited.keys() - streams.keys()))

    async def _collect_all(self, shard: ShardState) -> bool:
        """Collect reports until the source has ended or the monitor stops; return whether it has ended."""
        backend = shard.backend
        shown: frozenset[str] = frozenset()
        saved_at = time.monotonic()
        last = False
        while not last:
            wanted = frozenset(self.dispatcher.page.shown_streams())
            if wanted != shown:
                await backend.show_streams(wanted)
                shown = wanted
            last = self._stop.is_set()
            save = last or time.monotonic() - saved_at > _SAVE_PERIOD
            shard.collecting_since = time.monotonic()
            report = await backend.collect(save=save)
            shard.collecting_since = None
            await self._mark_answered(shard, report)
            await self._dispatch(shard, report)
            if save:
                saved_at = time.monotonic()
            if report.over:
                return True
        return False

    async def _mark_answered(self, shard: ShardState, report: ShardReport) -> None:
        if not shard.up or shard.hangs:
            shard.hangs = False
            self._lost_streams.await_shard(shard.number)
        if not shard.up:
            shard.up = True
            await self._commands.discharge_pending(shard)
            self.dispatcher.exporter.set_shard(str(shard.number), up=True)
            if self._settings.shards:
                self._display.note(f"shard {shard.number}: process {report.process}")
            # Saved before anything is announced: after a kill now, the next run must resume at this place.
            await self._checkpoint.save(shard.number, Moment(place=report.place))

    async def _dispatch(self, shard: ShardState, report: ShardReport) -> None:
        output = report.output
        for stream in output.discharged:
            await self._commands.end_discharge(stream)
        await self._lost_streams.end_for(output.readings)
        await self.dispatcher.save_strips(output.strips)
        await self.dispatcher.announce(output.transitions)
        await self._checkpoint.save(shard.number, report.moment)
        self.dispatcher.show(shard.number, output)
        self._show_work(shard, report)

    def _show_work(self, shard: ShardState, report: ShardReport) -> None:
        """Show the state of the shard and its source in the metrics."""
        exporter = self.dispatcher.exporter
        exporter.observe_steps(report.steps)
        for (source, reason), count in report.faults.items():
            exporter.count_fault(source, reason, count)
        if report.refused:
            exporter.count_fault("ward", "too many streams", report.refused)
            self.dispatcher.note_once("streams beyond ward.streams are refused: the ward is full")
        if report.named_once:
            exporter.count_fault("ward", "named once", report.named_once)
            self.dispatcher.note_once(
                "stream names came only once and have no bed: a new stream gets one with its second message"
            )
        for text in report.left_out:
            self.dispatcher.note_once(text)
        shard.last_report = report
        shard.was_connected |= any(report.connected.values())
        for source, connected in self._connected_sources().items():
            exporter.set_source(source, connected=connected)
        if report.output.readings:
            shard.behind = report.output.behind
            exporter.set_behind(self._behind())

    async def _mark_lost(self, shard: ShardState) -> None:
        """Mark a shard as down and raise the alarms of its streams, which nobody monitors until it is
        back."""
        shard.mark_down()
        self.dispatcher.exporter.set_shard(str(shard.number), up=False)
        await self._lost_streams.raise_for_shard(shard.number)

    async def _supervise(self) -> None:
        """Every few seconds, publish the status and look for lost and silent streams."""
        noted_at = time.monotonic()
        while True:
            began, began_by_the_clock = time.monotonic(), time.time()
            await asyncio.sleep(_STATUS_PERIOD)
            late = time.monotonic() - began - _STATUS_PERIOD
            self._note_pause(late, time.time() - began_by_the_clock - _STATUS_PERIOD)
            await self.dispatcher.retry_writes()
            await self._checkpoint.retry()
            self._publish_status()
            self.dispatcher.exporter.health.beat(self._problems())
            await self._raise_for_lost_streams()
            for stream in self._lost_streams.silent(self._settings.ward.discharge_after + _LATE_DISCHARGE):
                await self._commands.begin_discharge(stream)
            await self._checkpoint.save_watched(self._watched_streams())
            now = time.monotonic()
            if now - noted_at >= _NOTE_PERIOD:
                noted_at = now
                self._display.note(
                    f"{self._stream_count()} streams  {self.dispatcher.beats} beats  "
                    f"{len(self.dispatcher.alarms)} open alarms  {self._behind():.1f} s behind"
                )

    def _note_pause(self, seconds: float, by_the_clock: float) -> None:
        """Note a pause of this process, by its monotonic time and by the clock of the machine; what waits is
        read before a stream counts as lost."""
        if not any(shard.up for shard in self._shards):
            return  # it is starting
        if seconds > _PAUSE:
            self._lost_streams.postpone(seconds)
            for shard in self._shards:
                if shard.collecting_since is not None:
                    shard.collecting_since += seconds
        # While a machine is suspended, only its clock goes on.
        if max(seconds, by_the_clock) > _PAUSE:
            self.dispatcher.exporter.count_fault("monitor", "paused")
            self._display.note(
                f"the monitor was paused for {duration(max(seconds, by_the_clock))} (stopped, suspended, no "
                "CPU, or its clock was set): what waits is read before a stream counts as lost"
            )

    def _problems(self) -> list[str]:
        """Return what keeps the monitor from watching its patients, for a person."""
        problems = [f"shard {shard.number} is not running" for shard in self._shards if not shard.up]
        problems += [f"shard {shard.number} does not respond" for shard in self._shards if shard.hangs]
        problems += [
            f"source {source} is not connected"
            for source, connected in self._connected_sources().items()
            if not connected
        ]
        if self._behind() > self._settings.alarms.behind.begin:
            problems.append(f"the analysis is {self._behind():.0f} s behind")
        if self._journal.write_error is not None:
            problems.append(str(self._journal.write_error))
        return problems

    def _publish_status(self) -> None:
        self.dispatcher.publish(
            {
                "type": "status",
                "sources": self._connected_sources(),
                "behind": self._behind(),
                "streams": self._stream_count(),
                "shards": [{"ok": shard.up} for shard in self._shards],
            }
        )

    async def _raise_for_lost_streams(self) -> None:
        for shard in self._shards:
            since = shard.collecting_since
            shard.hangs = shard.up and since is not None and time.monotonic() - since > self._hang_seconds
            if not shard.up or shard.hangs:
                await self._lost_streams.raise_for_shard(shard.number)
        await self._lost_streams.raise_for_awaited(all_up=all(shard.up for shard in self._shards))

    async def _prune_journal(self) -> None:
        while True:
            await asyncio.sleep(_PRUNE_PERIOD)
            try:
                await asyncio.to_thread(self._journal.prune)
                before = time.time() - 86400 * self._settings.journal.days
                await asyncio.to_thread(self.dispatcher.prune_strips, before)
            except (GenrayError, OSError) as error:
                self.dispatcher.note_once(f"old alarms or their strips were not deleted: {error}")

    def _connected_sources(self) -> dict[str, bool]:
        """Return whether each source is connected in all shards that use it."""
        sources: dict[str, bool] = {}
        for shard in self._shards:
            if shard.last_report is not None:
                for name, connected in shard.last_report.connected.items():
                    sources[name] = sources.get(name, True) and connected
        return sources

    def _behind(self) -> float:
        return max(shard.behind for shard in self._shards)

    def _stream_count(self) -> int:
        return sum(shard.last_report.streams for shard in self._shards if shard.last_report is not None)

    def _watched_streams(self) -> dict[str, float]:
        """Return the streams that have a bed, or had one when the monitor last stopped, with the unix time
        (s) of their samples."""
        streams = self.dispatcher.streams
        return self._lost_streams.awaited | {name: stream.reading.time for name, stream in streams.items()}
