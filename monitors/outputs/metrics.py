"""The state of all streams as Prometheus metrics.

Names follow the guide of Prometheus: base units, ratios of 0 to 1, counters that end in `_total`. Of a
patient there is the stream's pseudonym and nothing else.

A collector makes the library's families at each scrape, so that a scrape is of one moment and a stream is
gone once its entry is. Metrics with a child for each series would be locked, set and rendered one by one,
which costs more (tests/benchmarks/bench_metrics.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from pydantic import Field

from genray.serving.exposition import Row, SeriesFamily
from genray.serving.metrics_server import MetricsServer
from genray.serving.settings import ServerSettings
from genray.text import label_value
from monitors.alarms.events import AlarmKind, Priority, Reading, Transition
from monitors.outputs.health import Health

_PREFIX = "genray_ecg_"
_LEADS = 16  # of a stream that are shown
_LEAD_LENGTH = 16
_ALARMS_PER_STREAM = 16
_SERIES = 500  # of one family whose labels are not streams; what comes later is counted as "other"
_SCORE_BOUNDS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_LATENCY_BOUNDS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 10.0, 30.0)
_STEP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_PHYSIOLOGICAL = {"asystole", "bradycardia", "tachycardia", "anomaly"}
_ALARM_LABELS = ("kind", "priority", "category")

_Kind = Literal["gauge", "counter"]


class MetricsSettings(ServerSettings):
    """Settings of the metrics."""

    max_streams: int = Field(
        2000, ge=1, le=100_000, description="largest number of streams that are exported; more are refused"
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """A family that is not of streams: kind, documentation, and the names of its labels."""

    kind: _Kind
    documentation: str
    labels: tuple[str, ...] = ()


_FAMILIES = {
    "alarms": _Family(
        "counter", "Onsets of alarms; not announced: held back.", (*_ALARM_LABELS, "announced")
    ),
    "notifications": _Family("counter", "What became of notifications.", ("channel", "outcome")),
    "notifications_owed": _Family("gauge", "Alarms that go on and that nobody is told of.", ("channel",)),
    "faults": _Family("counter", "Input that was not as it should be.", ("source", "reason")),
    "source_connected": _Family("gauge", "1 while the source is connected.", ("source",)),
    "shard_up": _Family("gauge", "1 while the shard of streams is at work.", ("shard",)),
    "streams_refused": _Family("counter", "Readings of streams beyond the most that are shown."),
    "behind_seconds": _Family("gauge", "By how much work lags behind the arrival of samples."),
}


class MetricsExporter:
    """Metrics of one monitor. May be called from any thread; a scrape sees all of one moment.

    An alarm is active from its first announced transition until it has ended: also while it is suppressed,
    acknowledged or latched, for none of these says that it is over. One that the rate limit of its bed holds
    back is not active here, or the rules of Prometheus would announce it after all; its onset is counted with
    `announced="false"`.

    Args:
        settings: where it is served, and of how many streams.
        clock: unix time.
    """

    def __init__(self, settings: MetricsSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[str, _ShownStream] = {}  # by label
        self._alarms: dict[str, tuple[str, ...]] = {}  # labels of those that are active
        self._values = _first_values()
        self._scores = Histogram("beat_score", "Scores of beats; above 1: anomalous.", _SCORE_BOUNDS)
        self._latencies = Histogram(
            "score_latency_seconds", "From the arrival of a beat to its score.", _LATENCY_BOUNDS, "seconds"
        )
        self._steps = Histogram("step_seconds", "Work of one step over all streams.", _STEP_BOUNDS, "seconds")
        self.registry = CollectorRegistry()
        """What is served."""
        self.health = Health()
        """What /health and /ready answer beside it."""
        self.registry.register(_Collector(self._collect))
        self._server: MetricsServer | None = None

    def update(self, reading: Reading) -> bool:
        """Show `reading` as the state of its stream; False: there are too many streams, it is left out."""
        shown = _ShownStream.of(reading, self._clock())
        stream = label_value(reading.stream)
        with self._lock:
            if stream not in self._streams and len(self._streams) >= self._settings.max_streams:
                self._values["streams_refused"][()] += 1
                return False
            self._streams[stream] = shown
        return True

    def update_alarm(self, transition: Transition) -> None:
        """Show how an alarm changed; also the last transition of one that was open before a restart."""
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

    def remove_stream(self, stream: str) -> None:
        """Remove all series of `stream`."""
        label = label_value(stream)
        with self._lock:
            self._streams.pop(label, None)
            self._alarms = {alarm: labels for alarm, labels in self._alarms.items() if labels[0] != label}

    def count_fault(self, source: str, reason: str, count: int = 1) -> None:
        """Count bad input of `source` by `reason`."""
        with self._lock:
            self._add("faults", (label_value(source), label_value(reason)), count)

    def count_notifications(self, channel: str, outcome: str, count: int = 1) -> None:
        """Count notifications. A count of 0 begins the series, which the rules need."""
        with self._lock:
            self._add("notifications", (label_value(channel), label_value(outcome)), count)

    def set_owed(self, channel: str, count: int) -> None:
        """Show how many alarms go on that nobody is notified of by `channel`. Without a call there is no
        series, and the rules announce all."""
        with self._lock:
            self._values["notifications_owed"][(label_value(channel),)] = count

    def set_source(self, source: str, *, connected: bool) -> None:
        """Show whether `source` is connected."""
        with self._lock:
            self._values["source_connected"][(label_value(source),)] = connected

    def set_shard(self, shard: str, *, up: bool) -> None:
        """Show whether a shard of the streams is at work."""
        with self._lock:
            self._values["shard_up"][(label_value(shard),)] = up

    def set_behind(self, seconds: float) -> None:
        """Show by how much the work lags behind the arrival of samples."""
        with self._lock:
            self._values["behind_seconds"][()] = seconds

    def observe_scores(self, scores: ArrayLike) -> None:
        """Count scores of beats: an array of any shape, where above 1 is anomalous."""
        with self._lock:
            self._scores.observe(scores)

    def observe_latencies(self, seconds: ArrayLike) -> None:
        """Count times from the arrival of a beat to its score: seconds, an array of any shape."""
        with self._lock:
            self._latencies.observe(seconds)

    def observe_steps(self, seconds: ArrayLike) -> None:
        """Count durations of steps: seconds, one or an array."""
        with self._lock:
            self._steps.observe(seconds)

    def start(self) -> int:
        """Serve from now on; gives the port.

        Raises:
            ResourceError: the port is taken, or a certificate cannot be used.
        """
        self._server = MetricsServer.start(
            self.registry, self._settings, lambda: self.count_fault("metrics", "bad request"), self.health
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
            streams = list(self._streams.items())
            alarms = sorted(set(self._alarms.values()))
            values = {name: dict(series) for name, series in self._values.items()}
            histograms = [histogram.metric() for histogram in (self._scores, self._latencies, self._steps)]
        yield _metric("streams", "gauge", "Streams that are shown.", (), [((), len(streams))])
        yield from _stream_metrics(streams)
        active = "1 from when an alarm is announced until it has ended."
        yield _metric(
            "alarm_active", "gauge", active, ("stream", *_ALARM_LABELS), [(labels, 1.0) for labels in alarms]
        )
        for name, family in _FAMILIES.items():
            yield _metric(name, family.kind, family.documentation, family.labels, values[name].items())
        yield from histograms


class Histogram:
    """A histogram without labels that counts whole arrays.

    Args:
        name: without the prefix.
        bounds: upper limits of its buckets, rising.
        unit: in which the name ends.
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], unit: str = "") -> None:
        self._name = name
        self._documentation = documentation
        self._unit = unit
        self._bounds = np.asarray(bounds, np.float64)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._labels = [*(str(float(bound)) for bound in bounds), "+Inf"]

    def observe(self, values: ArrayLike) -> None:
        """Count finite `values` of any shape; others are left out."""
        flat = np.asarray(values, np.float64).ravel()
        flat = flat[np.isfinite(flat)]
        # A value that equals a bound belongs to its bucket: Prometheus's `le`.
        self._counts += np.bincount(np.searchsorted(self._bounds, flat), minlength=len(self._counts))
        self._sum += float(flat.sum())

    def metric(self) -> Metric:
        """Its family."""
        totals = np.cumsum(self._counts).tolist()
        buckets = list(zip(self._labels, totals, strict=True))
        metric = HistogramMetricFamily(_PREFIX + self._name, self._documentation, unit=self._unit)
        metric.add_metric((), buckets, self._sum)
        return metric


@dataclass(frozen=True, slots=True)
class _ShownStream:
    """What is shown of a stream.

    Attributes:
        reading: its newest.
        arrived: when that came, unix seconds of this machine.
        leads: whether each can be judged, by its label. Of two whose names become one label, the last is
            shown: a series may be there once.
    """

    reading: Reading
    arrived: float
    leads: dict[str, float]

    @classmethod
    def of(cls, reading: Reading, arrived: float) -> _ShownStream:
        """With the labels of the leads."""
        leads = {
            label_value(lead, _LEAD_LENGTH): float(quality == "good")
            for lead, quality in islice(reading.quality.items(), _LEADS)
        }
        return cls(reading, arrived, leads)


@dataclass(frozen=True, slots=True)
class _StreamFamily:
    """A family with a series for each stream: `value` of its reading, None: unknown."""

    name: str
    kind: _Kind
    documentation: str
    value: Callable[[Reading], float | None]
    unit: str = ""


_STREAM_FAMILIES = (
    _StreamFamily(
        "heart_rate_bpm",
        "gauge",
        "Heart rate, beats a minute; absent while unknown.",
        attrgetter("heart_rate"),
    ),
    _StreamFamily(
        "anomaly_burden_ratio",
        "gauge",
        "Share of the last beats that are anomalous; absent while unknown.",
        attrgetter("burden"),
    ),
    _StreamFamily(
        "reference_learned_ratio",
        "gauge",
        "Share of the patient's reference that is learned.",
        attrgetter("learned"),
    ),
    _StreamFamily(
        "last_sample_timestamp_seconds",
        "gauge",
        "Unix time of the stream's last sample, by the clock of its device.",
        attrgetter("time"),
        "seconds",
    ),
    _StreamFamily("beats", "counter", "Beats since the stream began.", attrgetter("beats")),
    _StreamFamily("anomalous_beats", "counter", "Beats that are anomalous.", attrgetter("anomalous")),
)


def _stream_metrics(streams: Sequence[tuple[str, _ShownStream]]) -> Iterator[Metric]:
    """The families with a series for each stream. What is unknown has none: NaN would be a value."""
    for family in _STREAM_FAMILIES:
        get = family.value
        rows = [((label,), value) for label, shown in streams if (value := get(shown.reading)) is not None]
        yield _metric(family.name, family.kind, family.documentation, ("stream",), rows, family.unit)
    arrivals = [((label,), shown.arrived) for label, shown in streams]
    documentation = "Unix time at which the last reading of the stream came, by the clock of the monitor."
    yield _metric("last_arrival_timestamp_seconds", "gauge", documentation, ("stream",), arrivals, "seconds")
    leads = [((label, lead), usable) for label, shown in streams for lead, usable in shown.leads.items()]
    documentation = "1 if the lead can be judged, 0 if it is off or poor."
    yield _metric("lead_usable", "gauge", documentation, ("stream", "lead"), leads)


def _first_values() -> dict[str, dict[tuple[str, ...], float]]:
    """Of each family in `_FAMILIES` the values by labels: zeros, because `increase` does not see the step
    from nothing to the first."""
    values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in _FAMILIES}
    values["streams_refused"][()] = 0
    values["behind_seconds"][()] = 0
    for kind in get_args(AlarmKind):
        category = "physiological" if kind in _PHYSIOLOGICAL else "technical"
        for priority in get_args(Priority):
            for announced in ("true", "false"):
                values["alarms"][kind, priority, category, announced] = 0
    return values


def _metric(
    name: str, kind: _Kind, documentation: str, labels: Sequence[str], rows: Iterable[Row], unit: str = ""
) -> Metric:
    """A family.

    Args:
        name: without the prefix and without `_total`.
        labels: their names.
        rows: of its series; values of labels may be there once.
        unit: in which the name ends.
    """
    return SeriesFamily(_PREFIX + name, documentation, kind, unit, labels, list(rows))


class _Collector(Collector):
    """A collector as prometheus_client wants it: calls `make` at each scrape."""

    def __init__(self, make: Callable[[], Iterable[Metric]]) -> None:
        self._make = make

    def collect(self) -> Iterable[Metric]:
        """All families."""
        return self._make()

    def describe(self) -> list[Metric]:
        """Nothing: a registry would otherwise collect to learn the names."""
        return []
