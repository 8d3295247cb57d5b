"""What a scrape of many streams costs: our collector against those that prometheus_client offers.

    python -m tests.benchmarks.bench_metrics [--streams 2000] [--rounds 10] [--out FILE]

All render the same readings with the library's exposition, as text and as OpenMetrics, plain and with gzip:

- ours: a collector that yields GaugeMetricFamily and CounterMetricFamily, and adds each series by
  `add_metric`,
- samples: a collector that makes the samples of a family at once, from labels that are made once for each
  stream: what ours was, and the least that the library's exposition costs,
- children: Gauge and Counter with a child for each stream, each set by every reading (without the times of
  creation that they would add).

And what an update of all streams costs. In one process, in turns; CPU seconds of the process, the median of
the rounds. Quote ratios: absolute figures drift.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Sample

from monitors.alarms.events import Reading
from monitors.outputs.metrics import MetricsExporter, MetricsSettings

_ARRIVED = 1_790_000_002.0
_GAUGES: dict[str, Callable[[Reading], float | None]] = {
    "heart_rate_bpm": lambda reading: reading.heart_rate,
    "anomaly_burden_ratio": lambda reading: reading.burden,
    "reference_learned_ratio": lambda reading: reading.learned,
    "last_sample_timestamp_seconds": lambda reading: reading.time,
    "last_arrival_timestamp_seconds": lambda _: _ARRIVED,
}
_COUNTERS: dict[str, Callable[[Reading], float]] = {
    "beats": lambda reading: reading.beats,
    "anomalous_beats": lambda reading: reading.anomalous,
}
_LEAD = "lead_usable"


def readings(count: int) -> list[Reading]:
    """As a ward gives them: two leads, some without a heart rate."""
    return [
        Reading(
            stream=f"{number:016x}",
            time=_ARRIVED - number % 7 / 10,
            heart_rate=None if number % 50 == 0 else 60 + number % 60 + 1 / 3,
            burden=number % 20 / 20,
            quality={"II": "good", "V1": "good" if number % 5 else "poor"},
            learned=1.0,
            beats=10_000 + number,
            anomalous=number,
        )
        for number in range(count)
    ]


class Samples:
    """A collector without the library's families."""

    def __init__(self) -> None:
        self._readings: dict[str, Reading] = {}
        self._labels: dict[str, tuple[dict[str, str], list[tuple[dict[str, str], float]]]] = {}

    def update(self, reading: Reading) -> None:
        """Show `reading`."""
        labels = {"stream": reading.stream}
        leads = [(labels | {"lead": lead}, float(q == "good")) for lead, q in reading.quality.items()]
        self._readings[reading.stream] = reading
        self._labels[reading.stream] = (labels, leads)

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not collect for the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        streams = [(self._labels[stream][0], reading) for stream, reading in self._readings.items()]
        for name, value in _GAUGES.items():
            rows = [(labels, shown) for labels, reading in streams if (shown := value(reading)) is not None]
            yield _family(name, "gauge", "", rows)
        for name, count in _COUNTERS.items():
            yield _family(name, "counter", "_total", [(labels, count(each)) for labels, each in streams])
        leads = [row for _, rows in self._labels.values() for row in rows]
        yield _family(_LEAD, "gauge", "", leads)


def _family(name: str, kind: str, suffix: str, rows: list[tuple[dict[str, str], float]]) -> Metric:
    metric = Metric(f"genray_ecg_{name}", name, kind)
    metric.samples = [Sample(f"genray_ecg_{name}{suffix}", labels, value) for labels, value in rows]
    return metric


class Children:
    """Metrics as the library's tutorial has them: each series is an object that is set."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges = {
            name: Gauge(f"genray_ecg_{name}", name, ["stream"], registry=registry) for name in _GAUGES
        }
        self._counters = {
            name: Counter(f"genray_ecg_{name}", name, ["stream"], registry=registry) for name in _COUNTERS
        }
        self._leads = Gauge(f"genray_ecg_{_LEAD}", _LEAD, ["stream", "lead"], registry=registry)
        self._counts: dict[tuple[str, str], float] = {}

    def update(self, reading: Reading) -> None:
        """Show `reading`."""
        for name, value in _GAUGES.items():
            if (shown := value(reading)) is not None:
                self._gauges[name].labels(reading.stream).set(shown)
        for name, count in _COUNTERS.items():
            total = count(reading)
            before = self._counts.get((name, reading.stream), 0.0)
            self._counts[name, reading.stream] = total
            self._counters[name].labels(reading.stream).inc(total - before)
        for lead, quality in reading.quality.items():
            self._leads.labels(reading.stream, lead).set(quality == "good")


def streams_text(registry: CollectorRegistry) -> list[str]:
    """The series of streams that a scrape shows, sorted."""
    return sorted(line for line in generate_latest(registry).decode().splitlines() if 'stream="' in line)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    given = parser.parse_args()
    disable_created_metrics()
    settings = MetricsSettings(max_streams=given.streams)
    exporter = MetricsExporter(settings, clock=lambda: _ARRIVED)
    samples, samples_registry = Samples(), CollectorRegistry()
    samples_registry.register(samples)
    children_registry = CollectorRegistry()
    children = Children(children_registry)
    contenders: dict[str, tuple[CollectorRegistry, Callable[[Reading], Any]]] = {
        "ours": (exporter.registry, exporter.update),
        "samples": (samples_registry, samples.update),
        "children": (children_registry, children.update),
    }
    shown = readings(given.streams)
    for registry, update in contenders.values():
        for reading in shown:
            update(reading)
        assert streams_text(registry) == streams_text(exporter.registry)
    formats: dict[str, Callable[[CollectorRegistry], bytes]] = {
        "text": generate_latest,
        "text, gzip": lambda registry: gzip.compress(generate_latest(registry)),
        "openmetrics": lambda registry: generate_openmetrics(registry),
        "openmetrics, gzip": lambda registry: gzip.compress(generate_openmetrics(registry)),
    }
    spent: dict[tuple[str, str], list[float]] = {}
    for _ in range(given.rounds):
        for name, (registry, update) in contenders.items():
            for kind, render in formats.items():
                before = time.process_time()
                render(registry)
                spent.setdefault((kind, name), []).append(time.process_time() - before)
            before = time.process_time()
            for reading in shown:
                update(reading)
            spent.setdefault(("updates", name), []).append(time.process_time() - before)
    results = {}
    for kind in (*formats, "updates"):
        medians = {name: 1e3 * statistics.median(spent[kind, name]) for name in contenders}
        ratios = {name: medians["ours"] / each for name, each in medians.items()}
        results[kind] = {"cpu_ms": medians, "ratios": ratios}
        print(f"{kind:<18} ours {medians['ours']:.1f} ms", end="")
        for name in ("samples", "children"):
            print(f"  {ratios[name]:.2f} times that of {name} ({medians[name]:.1f} ms)", end="")
        print(flush=True)
    if given.out:
        given.out.write_text(json.dumps({"streams": given.streams, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
