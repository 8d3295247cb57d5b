"""The text of a registry is that of prometheus_client."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from genray.serving.exposition import SeriesFamily, render

ROWS = [(("bed-1", 'II "x"'), 1.0), (("b\\d", "V\n1"), 1_790_000_000.5), (("é", ""), float("inf"))]


class _Families(Collector):
    def collect(self) -> list[Metric]:
        return [
            SeriesFamily("lead_usable", "A gauge.", "gauge", "", ("stream", "lead"), ROWS),
            SeriesFamily("age_seconds", "A gauge.", "gauge", "seconds", ("stream",), [(("a",), 0.125)]),
            SeriesFamily("beats", "A counter.", "counter", "", ("stream",), [(("a",), 12)]),
            SeriesFamily("streams", "Without labels.", "gauge", "", (), [((), 3)]),
            SeriesFamily("none", "Without series.", "gauge", "", ("stream",), []),
        ]


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "text/plain;version=1.0.0;escaping=allow-utf-8",
        "application/openmetrics-text;version=1.0.0",
        "application/openmetrics-text;version=1.0.0;escaping=underscores,text/plain;version=0.0.4",
    ],
)
def test_series_are_written_as_by_the_library(accept: str) -> None:
    registry = CollectorRegistry()
    Counter("faults", "Another family.", ("reason",), registry=registry).labels("late").inc()
    registry.register(_Families())
    Histogram("steps", "A histogram.", registry=registry).observe(0.1)
    encode, content_type = choose_encoder(accept)
    assert render(registry, accept) == (encode(registry), content_type)
