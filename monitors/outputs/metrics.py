"""The state of all streams as Prometheus metrics.

Names follow the guide of Prometheus: base units, ratios of 0 to 1, counters that end in `_total`. Of a
patient there is the stream's pseudonym and nothing else.

Metric families as plain dicts, and label values that outside names may become.

The library's children are locked one by one and rendered through several calls each. Samples that a collector
makes from dicts at the scrape cost a quarter of that, and a stream is gone once its entry is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample
from pydantic import Field

from genray.text import label_value
from monitors.alarms.events import AlarmKind, Priority, Reading, Transition
from monitors.outputs.metrics_server import MetricsServer, ServerSettings

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


class MetricsSettings(ServerSettings):
    """Settings of the metrics."""

    max_streams: int = Field(2000, ge=1, le=100_000, description="streams that are shown; more are refused")


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
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._streams: dict[str, Shown] = {}
        self._alarms: dict[str, tuple[str, ...]] = {}
        self._values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in _FAMILIES}
        # Zeros, because `increase` does not see the step from nothing to the first.
        self._values["streams_refused"][()] = self._values["behind_seconds"][()] = 0
        for kind in get_args(AlarmKind):
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


PREFIX = "genray_ecg_"
LEADS = 16
"""Leads of a stream that are shown."""
LEAD_LENGTH = 16

MetricRow = tuple[Mapping[str, str], float]


def family(
    name: str,
    kind: Literal["gauge", "counter"],
    documentation: str,
    rows: Iterable[MetricRow],
    unit: str = "",
) -> Metric:
    """A metric family of labelled values.

    Args:
        name: without the prefix and without `_total`.
        rows: labels and value of each series; a pair of labels may be there once.
        unit: in which the name ends.
    """
    metric = Metric(PREFIX + name, documentation, kind, unit)
    full = f"{PREFIX}{name}_total" if kind == "counter" else PREFIX + name
    metric.samples = [Sample(full, labels, value) for labels, value in rows]  # type: ignore[arg-type]
    return metric


class Histogram:
    """A histogram without labels that takes arrays.

    Args:
        name: without the prefix.
        bounds: upper limits of its buckets, rising.
        unit: in which the name ends.
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], unit: str = "") -> None:
        self._name, self._documentation, self._unit = name, documentation, unit
        self._bounds = np.asarray(bounds, np.float64)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._labels = [{"le": bound} for bound in (*(str(float(bound)) for bound in bounds), "+Inf")]

    def observe(self, values: ArrayLike) -> None:
        """Count finite `values` of any shape; others are left out."""
        flat = np.asarray(values, np.float64).ravel()
        flat = flat[np.isfinite(flat)]
        # A value that equals a bound belongs to its bucket: Prometheus's `le`.
        self._counts += np.bincount(np.searchsorted(self._bounds, flat), minlength=len(self._counts))
        self._sum += float(flat.sum())

    def metric(self) -> Metric:
        """It as a family."""
        metric = Metric(PREFIX + self._name, self._documentation, "histogram", self._unit)
        totals = np.cumsum(self._counts).tolist()
        for labels, total in zip(self._labels, totals, strict=True):
            metric.add_sample(f"{PREFIX}{self._name}_bucket", labels, total)
        metric.add_sample(f"{PREFIX}{self._name}_count", {}, totals[-1])
        metric.add_sample(f"{PREFIX}{self._name}_sum", {}, self._sum)
        return metric


_OF_STREAMS: tuple[
    tuple[str, Literal["gauge", "counter"], str, str, Callable[[Reading], float | None]], ...
] = (
    (
        "heart_rate_bpm",
        "gauge",
        "Heart rate, beats a minute; absent while unknown.",
        "",
        attrgetter("heart_rate"),
    ),
    (
        "anomaly_burden_ratio",
        "gauge",
        "Share of the last beats that are anomalous; absent while unknown.",
        "",
        attrgetter("burden"),
    ),
    (
        "reference_learned_ratio",
        "gauge",
        "Share of the patient's reference that is learned.",
        "",
        attrgetter("learned"),
    ),
    (
        "last_sample_timestamp_seconds",
        "gauge",
        "Unix time of the stream's last sample, by the clock of its device.",
        "seconds",
        attrgetter("time"),
    ),
    ("beats", "counter", "Beats since the stream began.", "", attrgetter("beats")),
    ("anomalous_beats", "counter", "Beats that are anomalous.", "", attrgetter("anomalous")),
)


class Shown:
    """A reading with the labels of its series, which are made once for many scrapes.

    Of two leads whose names become one label, the last is shown: a series may be there once.

    Args:
        arrived: when it came, unix seconds of this machine.
    """

    __slots__ = ("arrived", "labels", "leads", "reading")

    def __init__(self, reading: Reading, arrived: float) -> None:
        self.reading, self.arrived = reading, arrived
        self.labels = {"stream": label_value(reading.stream)}
        usable = {
            label_value(lead, LEAD_LENGTH): float(quality == "good")
            for lead, quality in islice(reading.quality.items(), LEADS)
        }
        self.leads: list[MetricRow] = [
            (self.labels | {"lead": lead}, value) for lead, value in usable.items()
        ]


def stream_families(shown: Sequence[Shown]) -> Iterator[Metric]:
    """The families with a series for each stream. What is unknown has none: NaN would be a value."""
    for name, kind, documentation, unit, get in _OF_STREAMS:
        rows = [(each.labels, value) for each in shown if (value := get(each.reading)) is not None]
        yield family(name, kind, documentation, rows, unit)
    came = [(each.labels, each.arrived) for each in shown]
    documentation = "Unix time at which the last reading of the stream came, by the clock of the monitor."
    yield family("last_arrival_timestamp_seconds", "gauge", documentation, came, "seconds")
    leads = [row for each in shown for row in each.leads]
    yield family("lead_usable", "gauge", "1 if the lead can be judged, 0 if it is off or poor.", leads)


class Families:
    """A collector as prometheus_client wants it: calls `make` at each scrape."""

    def __init__(self, make: Callable[[], Iterable[Metric]]) -> None:
        self._make = make

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from self._make()

    def describe(self) -> list[Metric]:
        """Nothing: a registry would otherwise collect to learn the names."""
        return []
