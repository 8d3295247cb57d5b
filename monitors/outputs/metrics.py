"""The state of all streams as Prometheus metrics.

Names follow the guide of Prometheus: base units, ratios of 0 to 1, counters that end in `_total`. Of a
patient there is the stream's pseudonym and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal, get_args

from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry, Metric
from pydantic import Field

from monitors.alarms.events import Kind, Priority, Reading, Transition
from monitors.outputs.metrics_server import MetricsServer, ServerSettings
from monitors.outputs.metrics_text import Families, Histogram, Shown, family, label_value, stream_families

_SCORES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_LATENCIES = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 10.0, 30.0)
_STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_ALARMS_PER_STREAM = 16
_SERIES = 500  # of one family whose labels are not streams; what comes later is counted as "other"
_PHYSIOLOGICAL = {"asystole", "bradycardia", "tachycardia", "anomaly"}
_ALARM_LABELS = ("kind", "priority", "category")
_FAMILIES: dict[str, tuple[Literal["gauge", "counter"], str, tuple[str, ...]]] = {
    "alarms": ("counter", "Onsets of alarms; not announced: held back.", (*_ALARM_LABELS, "announced")),
    "notifications": ("counter", "What became of notifications.", ("channel", "outcome")),
    "notifications_owed": ("gauge", "Alarms that go on and that nobody is told of.", ("channel",)),
    "faults": ("counter", "Input that was not as it should be.", ("source", "reason")),
    "source_connected": ("gauge", "1 while the source is connected.", ("source",)),
    "shard_up": ("gauge", "1 while the shard of streams is at work.", ("shard",)),
    "streams_refused": ("counter", "Readings of streams beyond the most that are shown.", ()),
    "behind_seconds": ("gauge", "By how much work lags behind the arrival of samples.", ()),
}


class ExporterSettings(ServerSettings):
    """Settings of the metrics."""

    max_streams: int = Field(2000, ge=1, le=100_000, description="streams that are shown; more are refused")


class Exporter:
    """Metrics of one monitor. May be called from any thread; a scrape sees all of one moment.

    An alarm is active from its first announced transition until it has ended: also while it is suppressed,
    acknowledged or latched, for none of these says that it is over. One that the rate limit of its bed holds
    back is not active here, or the rules of Prometheus would announce it after all; its onset is counted with
    `announced="false"`.

    Args:
        settings: where it is served, and of how many streams.
        clock: unix time.
    """

    def __init__(self, settings: ExporterSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._streams: dict[str, Shown] = {}
        self._alarms: dict[str, tuple[str, ...]] = {}
        self._values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in _FAMILIES}
        # Zeros, because `increase` does not see the step from nothing to the first.
        self._values["streams_refused"][()] = self._values["behind_seconds"][()] = 0
        for kind in get_args(Kind):
            category = "physiological" if kind in _PHYSIOLOGICAL else "technical"
            for priority in get_args(Priority):
                self._values["alarms"][kind, priority, category, "true"] = 0
                self._values["alarms"][kind, priority, category, "false"] = 0
        self._scores = Histogram("beat_score", "Scores of beats; above 1: anomalous.", _SCORES)
        self._latencies = Histogram(
            "score_latency_seconds", "From the arrival of a beat to its score.", _LATENCIES, "seconds"
        )
        self._steps = Histogram("step_seconds", "Work of one step over all streams.", _STEPS, "seconds")
        self.registry = CollectorRegistry()
        """What is served."""
        self.registry.register(Families(self._collect))
        self._server: MetricsServer | None = None

    def update(self, reading: Reading) -> bool:
        """Show `reading` as the state of its stream; False: there are too many streams, it is left out."""
        shown = Shown(reading, self._clock())
        stream = shown.labels["stream"]
        with self._lock:
            if stream not in self._streams and len(self._streams) >= self._settings.max_streams:
                self._values["streams_refused"][()] += 1
                return False
            self._streams[stream] = shown
        return True

    def alarm(self, transition: Transition) -> None:
        """Show how an alarm changed. Also takes the last transition of one that was open before a restart."""
        t = transition
        most = _ALARMS_PER_STREAM * self._settings.max_streams
        with self._lock:
            if t.change == "onset":
                self._add("alarms", (t.kind, t.priority, t.category, str(t.announced).lower()), 1)
            if t.state == "ended":
                self._alarms.pop(t.alarm, None)
            elif t.alarm in self._alarms or (t.announced and len(self._alarms) < most):
                self._alarms[t.alarm] = (label_value(t.stream), t.kind, t.priority, t.category)
            elif t.announced:
                self._add("faults", ("exporter", "too many alarms"), 1)

    def discharge(self, stream: str) -> None:
        """Remove all series of `stream`."""
        label = label_value(stream)
        with self._lock:
            self._streams.pop(label, None)
            self._alarms = {alarm: row for alarm, row in self._alarms.items() if row[0] != label}

    def fault(self, source: str, reason: str, count: int = 1) -> None:
        """Count bad input of `source` by `reason`."""
        with self._lock:
            self._add("faults", (label_value(source), label_value(reason)), count)

    def notified(self, channel: str, outcome: str, count: int = 1) -> None:
        """Count notifications. A count of 0 makes the series known, which the rules need."""
        with self._lock:
            self._add("notifications", (label_value(channel), label_value(outcome)), count)

    def owed(self, channel: str, count: int) -> None:
        """Show how many alarms go on that nobody is told of by `channel`. Without a call there is no series,
        and the rules announce all."""
        with self._lock:
            self._values["notifications_owed"][(label_value(channel),)] = count

    def connected(self, source: str, connected: bool) -> None:
        """Show whether `source` is connected."""
        with self._lock:
            self._values["source_connected"][(label_value(source),)] = connected

    def shard(self, shard: str, up: bool) -> None:
        """Show whether a shard of the streams is at work."""
        with self._lock:
            self._values["shard_up"][(label_value(shard),)] = up

    def behind(self, seconds: float) -> None:
        """Show by how much the work lags behind the arrival of samples."""
        with self._lock:
            self._values["behind_seconds"][()] = seconds

    def observe_scores(self, scores: ArrayLike) -> None:
        """Count scores of beats: an array of any shape, where above 1 is anomalous."""
        with self._lock:
            self._scores.observe(scores)

    def observe_latency(self, seconds: ArrayLike) -> None:
        """Count times from the arrival of a beat to its score: seconds, an array of any shape."""
        with self._lock:
            self._latencies.observe(seconds)

    def observe_step(self, seconds: ArrayLike) -> None:
        """Count durations of steps: seconds, one or an array."""
        with self._lock:
            self._steps.observe(seconds)

    def start(self) -> int:
        """Serve from now on; gives the port.

        Raises:
            ResourceError: the port is taken, or a certificate cannot be used.
        """
        self._server = MetricsServer(
            self.registry, self._settings, lambda: self.fault("metrics", "bad request")
        )
        return self._server.port

    def close(self) -> None:
        """Stop serving, if it serves."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _add(self, name: str, labels: tuple[str, ...], count: int) -> None:
        values = self._values[name]
        if labels not in values and len(values) >= _SERIES:
            labels = ("other",) * len(labels)
        values[labels] = values.get(labels, 0) + count

    def _collect(self) -> Iterator[Metric]:
        with self._lock:
            streams = list(self._streams.values())
            alarms = sorted(set(self._alarms.values()))
            values = {name: dict(rows) for name, rows in self._values.items()}
            histograms = [each.metric() for each in (self._scores, self._latencies, self._steps)]
        yield family("streams", "gauge", "Streams that are shown.", [({}, len(streams))])
        yield from stream_families(streams)
        names = ("stream", *_ALARM_LABELS)
        active = [(dict(zip(names, row, strict=True)), 1.0) for row in alarms]
        yield family("alarm_active", "gauge", "1 from when an alarm is announced until it has ended.", active)
        for name, (kind, documentation, labels) in _FAMILIES.items():
            rows = [(dict(zip(labels, key, strict=True)), value) for key, value in values[name].items()]
            yield family(name, kind, documentation, rows)
        yield from histograms
