"""Metrics of a training for Prometheus, while it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from prometheus_client import CollectorRegistry, Gauge

from genray.progress import Tick
from genray.serving.settings import ServerSettings

if TYPE_CHECKING:
    from genray.serving.metrics_server import MetricsServer

_MEASURED = "val_"  # names of what validations measure begin with it


class TrainingMetrics:
    """Metrics of one training, served until they are closed; `serve` makes them.

    Args:
        run: name of the run, a label of every metric.
        registry: registry of the metrics.
    """

    def __init__(self, run: str, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"genray_training_{name}", text, ["run", *labels], registry=registry)

        self._run = run
        self._step = gauge("step", "Optimizer steps that are done.")
        self._steps = gauge("steps", "Optimizer steps of the whole training.")
        self._epoch = gauge("epoch", "Epoch that is trained, from 1.")
        self._speed = gauge("images_per_second", "Samples that are trained on in a second, of this epoch.")
        self._loss = gauge("loss", "Mean of a loss over the last steps.", "name")
        self._measure = gauge("measure", "Metric of the last validation.", "name")
        self._concern = gauge(
            "concern", "1 while validations show that something is wrong, such as mode collapse; else 0."
        )
        self._last_step = gauge("last_step_timestamp_seconds", "Time of the last step, since 1970.")
        self._server: MetricsServer | None = None
        self._concern.labels(run).set(0)

    @classmethod
    def serve(cls, run: str, settings: ServerSettings) -> Self:
        """Make the metrics of a run, and serve them.

        Raises:
            ResourceError: the port is taken, or a certificate cannot be used.
        """
        from genray.serving.metrics_server import MetricsServer

        registry = CollectorRegistry()
        metrics = cls(run, registry)
        metrics._server = MetricsServer.start(registry, settings, where="loop.metrics_port")
        return metrics

    @property
    def port(self) -> int:
        """Port that they are served on."""
        assert self._server is not None
        return self._server.port

    def progress(self, tick: Tick) -> None:
        """Set where the training is, and the losses, the values of `tick`."""
        run = self._run
        self._epoch.labels(run).set(tick.epoch)
        self._step.labels(run).set(tick.step)
        self._steps.labels(run).set(tick.steps)
        self._speed.labels(run).set(tick.images_per_second)
        self._last_step.labels(run).set(time.time())
        for name, value in tick.values.items():
            self._loss.labels(run, name).set(value)

    def validated(self, row: Mapping[str, Any]) -> None:
        """Set the metrics of a validation, a row of the history, and whether it shows that something is
        wrong."""
        for name, value in row.items():
            if name.startswith(_MEASURED) and isinstance(value, int | float) and math.isfinite(value):
                self._measure.labels(self._run, name.removeprefix(_MEASURED)).set(value)
        self._concern.labels(self._run).set("concern" in row)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
