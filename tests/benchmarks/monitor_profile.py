"""CPU time of the monitor by stage, without the overhead of a profiler on every call.

Only the functions of `STAGES` are timed, by the CPU clock of their thread, each less what those inside it
take. What no function of a stage covers (the event loop, passing chunks on) is the rest of the process.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

STAGES: Final[dict[str, tuple[str, ...]]] = {
    "source: read and cut records": (
        "monitors.sources.replay:RecordStream.chunk",
        "monitors.sources.replay:RecordStream.read",
        "monitors.sources.replay:_Replay.wanted",
    ),
    "ingest: order, millivolts, hops": (
        "monitors.patient.ward:Ward.push",
        "monitors.patient.bed:Bed.next_hop",
    ),
    "hop: rows and history": ("monitors.patient.leads:LeadBank.process_hop",),
    "quality": ("monitors.patient.leads:assess_quality", "monitors.patient.leads:fill_missing"),
    "filters: pace pulses, QRS band": (
        "genray.ecg.pacing:PacePulseFilter.__call__",
        "genray.ecg.qrs:QrsFilter.__call__",
    ),
    "detection: levels, peaks, decisions": (
        "monitors.patient.detection:QrsDetector.detect",
        "monitors.patient.bed:Bed.add_complexes",
    ),
    "ventricular rhythms": ("monitors.patient.leads:LeadBank._judge_rhythms",),
    "ventricular beats": ("monitors.patient.leads:LeadBank._judge_beats",),
    "beats: windows": (
        "monitors.patient.leads:LeadBank._score_beats",
        "monitors.patient.leads:LeadBank._cut",
    ),
    "beats: noise": ("monitors.patient.leads:LeadBank._measure_noise",),
    "beats: autoencoder": ("monitors.patient.scoring:BeatModel.surprises",),
    "beats: fit to references": ("monitors.patient.leads:fit_to_references",),
    "beats: scores": ("monitors.patient.leads:_score_beat",),
    "observation, reading, strips": (
        "monitors.patient.ward:Ward._observe",
        "monitors.patient.ward:Ward.tick",
    ),
    "alarms": ("monitors.patient.ward:step",),
    "saved states": ("monitors.patient.ward:Ward.saved_beds", "monitors.outputs.journal:Journal.save_states"),
    "journal": ("monitors.outputs.journal:Journal.record",),
    "metrics and page": ("monitors.service.dispatcher:Dispatcher.show",),
    "metrics: scrapes": ("genray.serving.metrics_server:render",),
}
"""Functions of each stage, as module:name."""


class StageClock:
    """CPU seconds of each stage since `reset`."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self.seconds: Counter[str] = Counter()

    def reset(self) -> None:
        """Begin to count."""
        with self._lock:
            self.seconds.clear()

    def watch(self) -> None:
        """Time the functions of the stages from now on."""
        for stage, names in STAGES.items():
            for name in names:
                module, _, path = name.partition(":")
                owner: Any = import_module(module)
                *outer, last = path.split(".")
                for part in outer:
                    owner = getattr(owner, part)
                setattr(owner, last, self._timed(stage, getattr(owner, last)))

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            inner: list[float] = self._local.__dict__.setdefault("inner", [])
            inner.append(0.0)
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - began
                own = took - inner.pop()
                if inner:
                    inner[-1] += took
                with self._lock:
                    self.seconds[stage] += own

        return timed


def table(stages: Mapping[str, float], leads: int) -> str:
    """Return a Markdown table of the CPU milliseconds that each stage takes for a second of `leads` leads."""
    whole = sum(stages.values())
    lines = [f"| stage | CPU ms for a second of {leads} leads | share |", "| --- | --- | --- |"]
    lines += [f"| {stage} | {ms:.1f} | {ms / whole:.1%} |" for stage, ms in stages.items()]
    return "\n".join([*lines, f"| all: {1e3 * leads / whole:.0f} leads per core | {whole:.1f} | |"])
