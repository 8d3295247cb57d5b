"""What all contenders of the monitor's benchmark share: case, measurement, replay, and outputs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from monitors.outputs.alertmanager import AlertmanagerSettings
from monitors.outputs.journal import Journal
from monitors.outputs.metrics import MetricsExporter, MetricsSettings
from monitors.outputs.page import PageSettings
from monitors.patient.output import WardOutput
from monitors.patient.reference import ReferenceSettings
from monitors.patient.ward import WardSettings
from monitors.settings import EcgSettings
from monitors.sources.message import Chunk
from monitors.sources.pseudonyms import Pseudonyms
from monitors.sources.replay import ReplaySettings, ReplaySource
from tests.benchmarks.monitor_profile import StageClock

LEADS, RATE = 2, 360
KEY = bytes(32)
_TOGETHER = 0.1  # s of wall time whose chunks are taken together in real time, as a shard does


@dataclass
class Case:
    """What is to be done."""

    records: str
    bundle: str
    folder: str
    streams: int
    warm: float
    seconds: float
    speed: float = 0.0
    alertmanager: str = ""


def settings(case: Case) -> EcgSettings:
    """Those of the monitor, which the others take their parts of. References are learned in `warm`."""
    return EcgSettings(
        bundle=case.bundle,
        state=case.folder,
        source=ReplaySettings(path=case.records, streams=case.streams, loop=True, speed=case.speed),
        ward=WardSettings(
            streams=100_000, reference=ReferenceSettings(minutes=0.6 * min(case.warm, 60) / 60, beats=5)
        ),
        metrics=MetricsSettings(port=0, max_streams=100_000),
        page=PageSettings(port=0),
        alertmanager=AlertmanagerSettings(urls=(case.alertmanager,) if case.alertmanager else ()),
    )


@dataclass
class Meter:
    """Counts seconds of samples that went through, and what they cost; of each stage with a `clock`."""

    case: Case
    clock: StageClock | None = None
    done: float = 0.0  # seconds of samples of all streams
    over: bool = False
    scores: int = 0
    alarms: int = 0
    start: float = 0.0  # unix time of the replay's first sample, where it is known
    delays: list[float] = field(default_factory=list)
    learned: dict[str, bool] = field(default_factory=dict)
    _began: tuple[float, float, float] | None = None

    def found(self, found: WardOutput, took: float = 0.0) -> None:
        """What came of some chunks, and the seconds that it took to find it."""
        if self._began is not None and not self.over:
            self.scores += len(found.scores)
            self.alarms += sum(each.change == "onset" for each in found.transitions)
            self.delays += [delay + took for delay in found.delays]
        for reading in found.readings:
            self.learned[reading.stream] = reading.learned == 1.0
        self.passed(len(found.readings) * WardSettings().hop)

    def passed(self, seconds: float) -> None:
        """So many seconds of samples of some stream went through."""
        self.done += seconds
        share = self.done / self.case.streams
        now = time.process_time(), time.monotonic(), self.done
        if self._began is None and share >= self.case.warm:
            self._began = now
            if self.clock is not None:
                self.clock.reset()
        elif self._began is not None and not self.over and share >= self.case.warm + self.case.seconds:
            self.over = True
            cpu, wall, done = (after - before for after, before in zip(now, self._began, strict=True))
            lead_seconds = done * LEADS
            figures: dict[str, Any] = {
                "leads_per_core": lead_seconds / cpu,
                "cpu_s": cpu,
                "wall_s": wall,
                "share_of_core": cpu / wall,
                "beats_per_stream_minute": 60 * self.scores / done,
                "alarms": self.alarms,
                "learned": sum(self.learned.values()) / max(1, len(self.learned)),
            }
            if self.start:
                figures["start"] = self.start
            if self.delays:
                p50, p99 = np.quantile(self.delays, [0.5, 0.99]).tolist()
                figures |= {"p50_s": p50, "p99_s": p99, "max_s": max(self.delays)}
            if self.clock is not None:
                stages = dict(self.clock.seconds)
                stages["rest: event loop, passing on"] = cpu - sum(stages.values())
                figures["stages"] = {
                    stage: 1e3 * spent * self.case.streams / done for stage, spent in stages.items()
                }
            print(json.dumps(figures), flush=True)


class Replay:
    """The same replay, for those who do not wait by asyncio: the chunks that are due, under pseudonyms."""

    def __init__(self, case: Case) -> None:
        self._loop = asyncio.new_event_loop()
        made = settings(case).source
        assert isinstance(made, ReplaySettings)
        self._source, self._speed = ReplaySource(made), case.speed
        self._names = Pseudonyms(KEY)
        self._loop.run_until_complete(self._source.open(None))

    def next(self) -> list[Chunk]:
        """Chunks; in real time those of a tenth of a second."""
        began, chunks = time.monotonic(), list[Chunk]()
        while not chunks or (self._speed and time.monotonic() - began < _TOGETHER):
            made = self._loop.run_until_complete(self._source.next())
            now = time.monotonic()
            chunks += [replace(c, stream=self._names.of(c.stream), received=now) for c in made]
        return chunks


class Outputs:
    """Records and shows what was found as the monitor does: the journal first, then the metrics."""

    def __init__(self, case: Case, meter: Meter) -> None:
        self._meter = meter
        self._journal = Journal.open(Path(case.folder) / "journal.sqlite")
        self._exporter = MetricsExporter(settings(case).metrics)
        print(f"metrics: http://127.0.0.1:{self._exporter.start()}/metrics", flush=True)

    def __call__(self, rounds: Iterable[WardOutput], took: float = 0.0) -> None:
        for found in rounds:
            if found.transitions:
                for transition in self._journal.record(found.transitions):
                    self._exporter.update_alarm(transition)
            for reading in found.readings:
                self._exporter.update(reading)
            self._exporter.observe_scores(found.scores)
            self._exporter.observe_latencies(found.delays)
            self._meter.found(found, took)

    def close(self) -> None:
        self._exporter.close()
        self._journal.close()
