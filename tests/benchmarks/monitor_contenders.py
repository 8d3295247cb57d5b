"""What the monitor is measured against: other ways to watch the same replay, each as a process of its own.

    python -m tests.benchmarks.monitor_contenders NAME JSON

The last line that it prints is JSON: what was measured from when each stream has had `warm` seconds of
samples until each has had `seconds` more. All but the detectors give all that the monitor gives: a journal
of alarms that is written first, and metrics that are scraped meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genray.bundle import load_bundle
from genray.ecg.qrs import QrsThresholds, fill_missing
from genray.progress import LineDisplay
from monitors.alarms.events import Reading
from monitors.outputs.journal import Journal
from monitors.outputs.metrics import MetricsExporter
from monitors.patient.detection import QrsDetector
from monitors.patient.output import WardOutput
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward
from monitors.service.backends import LocalBackend
from monitors.service.monitor import Monitor
from monitors.service.shard import ShardReport
from monitors.sources.base import EndOfSource
from monitors.sources.message import MISSING, Chunk
from monitors.sources.pseudonyms import Pseudonyms
from tests.benchmarks.monitor_case import KEY, LEADS, RATE, Case, Meter, Outputs, Replay, settings
from tests.benchmarks.monitor_profile import StageClock


class Shown(LineDisplay):
    """Says nothing but where the metrics are."""

    def note(self, text: str) -> None:
        if text.startswith("metrics:"):
            print(text, flush=True)


class Metered(LocalBackend):
    """The only shard, measured."""

    def __init__(self, case: Case, meter: Meter) -> None:
        super().__init__(settings(case), KEY)
        self.meter = meter
        self.stop: Callable[[], None] = lambda: None

    async def collect(self, *, save: bool) -> ShardReport:
        """As `LocalBackend`."""
        report = await super().collect(save=save)
        self.meter.start = report.place.get("start", self.meter.start)
        self.meter.found(report.output, sum(report.steps))
        if self.meter.over:
            self.stop()
        return report


def genray(case: Case, meter: Meter) -> None:
    """The monitor, as `genray monitor ecg` runs it."""

    async def run() -> None:
        made, shard = settings(case), Metered(case, meter)
        with Journal.open(Path(case.folder) / "journal.sqlite", ("alertmanager",)) as journal:
            monitor = Monitor.resume(made, [shard], journal, Pseudonyms(KEY).of, Shown())
            shard.stop = monitor.stop
            await monitor.run()

    asyncio.run(run())


def profile(case: Case, meter: Meter) -> None:
    """The same, with the CPU time of each stage."""
    meter.clock = StageClock()
    meter.clock.watch()
    genray(case, meter)


def _ward(case: Case) -> Callable[[], Ward]:
    made, beat_model = settings(case), BeatModel.from_bundle(load_bundle(Path(case.bundle)))
    return lambda: Ward(made.ward, beat_model, lambda stream: made.alarms)


def dict_loop(case: Case, meter: Meter) -> None:
    """No framework: a dictionary of streams, each with the same parts for itself, a message at a time."""
    make, outputs, replay = _ward(case), Outputs(case, meter), Replay(case)
    wards: dict[str, Ward] = {}
    while not meter.over:
        for chunk in replay.next():
            ward = wards.get(chunk.stream) or wards.setdefault(chunk.stream, make())
            began = time.monotonic()
            ward.push(chunk, began)
            found = ward.step(began)
            outputs([found], time.monotonic() - began)
    outputs.close()


def _bytewax(case: Case, meter: Meter, build: Callable[[Any], Any]) -> None:
    """A dataflow of one worker: `build` makes of a stream of chunks one of (key, (WardOutput, seconds))."""
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.inputs import DynamicSource, StatelessSourcePartition
    from bytewax.outputs import DynamicSink, StatelessSinkPartition
    from bytewax.testing import run_main

    outputs = Outputs(case, meter)

    class Part(StatelessSourcePartition[Chunk]):
        def __init__(self) -> None:
            self._replay = Replay(case)

        def next_batch(self) -> list[Chunk]:
            if meter.over:
                raise StopIteration
            return self._replay.next()

    class Source(DynamicSource[Chunk]):
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Part:
            return Part()

    class Tell(StatelessSinkPartition[tuple[WardOutput, float]]):
        def write_batch(self, items: list[tuple[WardOutput, float]]) -> None:
            for found, took in items:
                outputs([found], took)

    class Sink(DynamicSink[tuple[WardOutput, float]]):
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Tell:
            return Tell()

    flow = Dataflow("ecg")
    op.output("tell", build(op.input("replay", flow, Source())), Sink())
    run_main(flow)  # type: ignore[no-untyped-call]
    outputs.close()


class Keyed:
    """The state of a key: a bed with the same parts, alone."""

    def __init__(self, ward: Ward) -> None:
        self.ward = ward

    def __deepcopy__(self, memo: dict[int, Any]) -> Keyed:
        return self  # bytewax copies states now and then, to keep them; here nobody keeps them


def bytewax(case: Case, meter: Meter) -> None:
    """As it is meant: `stateful_map` with a bed for each key. Nothing can be computed for several keys at
    once in it, so quality, detection and scoring are called for each stream by itself."""
    import bytewax.operators as op

    make = _ward(case)

    def watch(state: Keyed | None, chunk: Chunk) -> tuple[Keyed, tuple[WardOutput, float]]:
        state = state or Keyed(make())
        began = time.monotonic()
        state.ward.push(chunk, began)
        found = state.ward.step(began)
        return state, (found, time.monotonic() - began)

    def build(chunks: Any) -> Any:
        keyed = op.key_on("stream", chunks, lambda chunk: chunk.stream)
        return op.key_rm("rounds", op.stateful_map("ward", keyed, watch))

    _bytewax(case, meter, build)


def bytewax_batched(case: Case, meter: Meter) -> None:
    """`flat_map_batch` with one ward for all streams, whatever a batch brings: bytewax is then a loop around
    genray's own ward. Its state is outside of what bytewax keeps, restores and shares among workers."""
    import bytewax.operators as op

    ward = _ward(case)()

    def watch(chunks: list[Chunk]) -> list[tuple[WardOutput, float]]:
        began = time.monotonic()
        for chunk in chunks:
            ward.push(chunk, began)
        found = ward.step(began)
        return [(found, time.monotonic() - began)]

    _bytewax(case, meter, lambda chunks: op.flat_map_batch("ward", chunks, watch))


def _millivolts(chunk: Chunk) -> Any:
    values = chunk.samples.astype(np.float32) / np.asarray(chunk.gains, np.float32)
    values[chunk.samples == MISSING] = np.nan
    return values


def detection(case: Case, meter: Meter) -> None:
    """QRS detection alone, by genray: what it costs of the whole."""
    replay, detector = Replay(case), QrsDetector(RATE, RATE)
    states: dict[str, tuple[int, QrsThresholds]] = {}
    ends: dict[str, int] = {}
    waiting: dict[str, Chunk] = {}
    detector.grow(LEADS * case.streams)
    usable = np.ones(LEADS * case.streams, np.bool_)

    def look() -> None:
        streams = list(waiting)
        rows = np.concatenate([LEADS * states[s][0] + np.arange(LEADS) for s in streams])
        samples = fill_missing(np.concatenate([_millivolts(waiting[s]) for s in streams], axis=1).T)
        decisions = [states[s][1] for s in streams]
        for stream in streams:
            ends[stream] += RATE
        starts = LEADS * np.arange(len(streams))
        good = usable[: len(rows)]
        detector.detect(rows, starts, samples, good, good, decisions, [ends[s] for s in streams])
        meter.passed(len(streams))
        waiting.clear()

    while not meter.over:
        for chunk in replay.next():
            if chunk.stream not in states:
                states[chunk.stream], ends[chunk.stream] = (len(states), QrsThresholds(RATE)), 0
                rows = LEADS * states[chunk.stream][0] + np.arange(LEADS)
                detector.begin(rows, _millivolts(chunk)[0], forget=True)
            if chunk.stream in waiting or len(waiting) >= 512:
                look()
            waiting[chunk.stream] = chunk


def sleepecg(case: Case, meter: Meter) -> None:
    """QRS detection alone, as it is usually done: a window of 8 s for each lead, looked at every 2 s."""
    from sleepecg import detect_heartbeats  # type: ignore[attr-defined]

    replay = Replay(case)
    windows: dict[str, deque[Any]] = {}
    peaks = 0
    while not meter.over:
        for chunk in replay.next():
            window = windows.setdefault(chunk.stream, deque(maxlen=8))
            window.append(_millivolts(chunk))
            if chunk.sequence % 2:
                whole = np.concatenate(window).T
                for lead in np.nan_to_num(whole):
                    if np.ptp(lead) > 0.05:  # it raises on a flat line
                        peaks += len(detect_heartbeats(lead.astype(np.float64), RATE))
                meter.passed(2.0)


def metrics(case: Case, meter: Meter) -> None:
    """The exporter with the readings of `streams` streams; prints its CPU seconds for each line it reads."""
    exporter, names = MetricsExporter(settings(case).metrics), Pseudonyms(KEY)
    for number in range(case.streams):
        reading = Reading(
            stream=names.of(str(number)), time=time.time(), heart_rate=60 + number % 60 + 1 / 3,
            burden=number % 20 / 20, quality={"II": "good", "V1": "good"}, learned=1.0,
            beats=10_000 + number, anomalous=number,
        )  # fmt: skip
        exporter.update(reading)
    print(f"metrics: http://127.0.0.1:{exporter.start()}/metrics", flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    exporter.close()


CONTENDERS: dict[str, Callable[[Case, Meter], None]] = {
    "genray": genray,
    "bytewax, batched": bytewax_batched,
    "bytewax": bytewax,
    "dict loop": dict_loop,
    "detection only": detection,
    "sleepecg, detection only": sleepecg,
    "metrics": metrics,
    "profile": profile,
}

if __name__ == "__main__":
    # One core, the last one: the others are left to who scrapes.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    given = Case(**json.loads(sys.argv[2]))
    try:
        CONTENDERS[sys.argv[1]](given, Meter(given))
    except EndOfSource:
        sys.exit("the replay ended")
