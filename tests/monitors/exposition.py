"""The metrics of a monitor as text, and an exporter that has seen some of everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitors.alarms.events import Reading
from monitors.outputs.metrics import MetricsExporter, MetricsSettings
from tests.monitors.transitions import ONSET

READING = Reading(
    stream="bed-1",
    time=1_790_000_000.5,
    heart_rate=71.5,
    burden=0.05,
    quality={"II": "good", "V1": "poor", "V2": "off"},
    learned=1.0,
    beats=1200,
    anomalous=12,
)


def exposition(exporter: MetricsExporter) -> str:
    """What a scrape gives."""
    return generate_latest(exporter.registry).decode()


def series(exporter: MetricsExporter, name: str) -> dict[tuple[str, ...], float]:
    """Values of a family by the values of its labels, without the zeros."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition(exporter))
        for sample in family.samples
        if sample.name == f"genray_ecg_{name}" and sample.value
    }


def filled_exporter() -> MetricsExporter:
    """With two streams, two alarms and something in each family."""
    exporter = MetricsExporter(MetricsSettings(), clock=lambda: 1_790_000_002.0)
    exporter.update(READING)
    exporter.update(replace(READING, stream="bed-2", heart_rate=None, burden=None, learned=0.25))
    exporter.update_alarm(ONSET)
    exporter.update_alarm(
        replace(ONSET, alarm="b", kind="gap", category="technical", priority="low", announced=False)
    )
    exporter.observe_scores(np.array([[0.2, 1.0], [1.01, 99.0], [np.nan, np.inf]], np.float32))
    exporter.observe_latencies([0.3, 2.2])
    exporter.observe_steps(0.004)
    exporter.count_fault("mqtt", "not a chunk", 3)
    exporter.count_notifications("alertmanager", "sent")
    exporter.set_owed("alertmanager", 2)
    exporter.set_source("mqtt", connected=True)
    exporter.set_source("files", connected=False)
    exporter.set_shard("0", up=True)
    exporter.set_behind(1.5)
    return exporter
