"""Metric families as plain dicts, and label values that outside names may become.

The library's children are locked one by one and rendered through several calls each. Samples that a collector
makes from dicts at the scrape cost a quarter of that, and a stream is gone once its entry is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import Metric
from prometheus_client.samples import Sample

from monitors.alarms.events import Reading

PREFIX = "genray_ecg_"
LEADS = 16
"""Leads of a stream that are shown."""
LEAD_LENGTH = 16
LABEL_LENGTH = 64

Row = tuple[Mapping[str, str], float]


def label_value(text: str, length: int = LABEL_LENGTH) -> str:
    """`text` as a label: at most `length` printable characters, the others as `?`; never empty.

    A lone surrogate or a line break in one name would otherwise make the whole scrape fail.
    """
    return "".join(c if c.isprintable() else "?" for c in text[:length]) or "?"


def family(
    name: str, kind: Literal["gauge", "counter"], documentation: str, rows: Iterable[Row], unit: str = ""
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
        self.leads: list[Row] = [(self.labels | {"lead": lead}, value) for lead, value in usable.items()]


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
