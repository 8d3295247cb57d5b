"""Progress of a pass: on the terminal and as Prometheus metrics; stops a run in which too many images
fail."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from genray.errors import BulkError
from genray.progress import Display, Tick
from genray.serving.settings import ServerSettings
from pipelines.engine.pool import READY_WORKERS
from pipelines.engine.reporting.outcome import PassRates
from pipelines.settings import WorkSettings
from pipelines.storage.ledger.rows import FAILED, STATUSES, TIMES

if TYPE_CHECKING:
    from genray.serving.metrics_server import MetricsServer

_JUDGED_FROM = 100  # images before the share of failures is checked


class PassProgress:
    """Follows the sums that workers report; a context manager that serves metrics.

    Responsible for: progress, rates, and whether the workers have to stop, by request or because too many
    images fail.

    Args:
        images: number of images of the pass.
        settings: settings of the work.
        display: shows the progress.
    """

    def __init__(self, images: int, settings: WorkSettings, display: Display) -> None:
        self._images = images
        self._settings = settings
        self._display = display
        self._counts: dict[str, float] = {}
        self._began = time.monotonic()
        self._ready = self._began
        """Time when the first worker was ready."""
        self._last = self._began
        """Time of the last change of the counts."""
        self._exporter: ProgressExporter | None = None
        self.notes: list[str] = []
        """The workers' notes on how they run."""
        self.stop_requested = False
        self.failure: BulkError | None = None
        """Error that stops the run."""

    def __enter__(self) -> PassProgress:
        server = self._settings.metrics_server
        if server is not None:
            self._exporter = ProgressExporter.serve(self._images, server)
            self._display.note(f"metrics: {server.address(self._exporter.port)}")
        return self

    def __exit__(self, *error: object) -> None:
        if self._exporter is not None:
            self._exporter.close()

    @property
    def finished(self) -> int:
        """Number of finished images, with any status."""
        return round(sum(self._counts.get(name, 0.0) for name in STATUSES))

    @property
    def rates(self) -> PassRates:
        """Return the speed of the pass so far."""
        seconds = max(1e-3, self._last - self._ready)
        return PassRates(
            images_per_second=round(self.finished / seconds, 3),
            mb_per_second=round(self._counts.get("bytes_in", 0.0) / 1e6 / seconds, 3),
            start_seconds=round(self._ready - self._began, 2),
        )

    def update(self, counts: Mapping[str, float]) -> bool:
        """Take the sums so far; returns whether the workers have to stop."""
        if not counts.get(READY_WORKERS):
            self._ready = time.monotonic()  # the time before is the start-up
        if dict(counts) != self._counts:
            self._last = time.monotonic()
        self._counts = dict(counts)
        if self.finished:
            self._show()
        if self._exporter is not None:
            self._exporter.update(counts, self._images - self.finished)
        self._judge_failures()
        return self.stop_requested or self.failure is not None

    def request_stop(self) -> None:
        """Ask the workers to stop after their current images."""
        self.stop_requested = True
        self._display.note("stopping after the current images (press Ctrl-C again to stop at once)")

    def note_once(self, line: str) -> None:
        """Show and store a worker's note on how it runs, once, as all workers send the same."""
        if line not in self.notes:
            self.notes.append(line)
            self._display.note(line)

    def _show(self) -> None:
        rates = self.rates
        speed = rates.images_per_second
        seconds_left = (self._images - self.finished) / speed if speed else 0.0
        values = {"MB/s": rates.mb_per_second, FAILED: self._counts.get(FAILED, 0.0)}
        tick = Tick(0, 0, self.finished, self._images, speed, seconds_left, values, unit="image")
        self._display.tick(tick)

    def _judge_failures(self) -> None:
        share = self._counts.get(FAILED, 0.0) / max(1, self.finished)
        too_many = self.finished >= _JUDGED_FROM and share > self._settings.max_failed_share
        if too_many and self.failure is None:
            self.failure = BulkError(
                f"{share:.0%} of the first {self.finished} images failed",
                hint=(
                    "see the reasons with `genray ledger OUTPUT`; once they are repaired, give the "
                    "command again with --retry failed, or raise work.max_failed_share"
                ),
            )


class _Metrics:
    """Metrics of a pass, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.images = Counter(
            "genray_bulk_images",
            "Finished images of this pass, by status.",
            ["status"],
            registry=self.registry,
        )
        self.bytes = Counter(
            "genray_bulk_bytes", "Encoded bytes read and written.", ["direction"], registry=self.registry
        )
        self.seconds = Counter(
            "genray_bulk_stage_seconds",
            "Seconds of all workers in each stage.",
            ["stage"],
            registry=self.registry,
        )
        self.left = Gauge(
            "genray_bulk_images_left", "Images of this pass to process.", registry=self.registry
        )

    def add(self, name: str, amount: float) -> None:
        """Add to the metric of a count, if it has one."""
        if name in STATUSES:
            self.images.labels(name).inc(amount)
        elif name in TIMES:
            self.seconds.labels(name.removesuffix("_ms")).inc(amount / 1e3)
        elif name.startswith("bytes_"):
            self.bytes.labels(name.removeprefix("bytes_")).inc(amount)


class ProgressExporter:
    """Serves the sums as Prometheus metrics until it is closed; see `serve`."""

    def __init__(self, metrics: _Metrics, server: MetricsServer) -> None:
        self._metrics = metrics
        self._server = server
        self._counts: dict[str, float] = {}

    @classmethod
    def serve(cls, images: int, settings: ServerSettings) -> ProgressExporter:
        """Start serving.

        Args:
            images: number of images of the pass.
            settings: where to serve, and to whom.

        Raises:
            ResourceError: the port is taken, or a certificate cannot be used.
        """
        from genray.serving.metrics_server import MetricsServer

        metrics = _Metrics()
        metrics.left.set(images)
        return cls(metrics, MetricsServer.start(metrics.registry, settings, where="work.metrics_port"))

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    def update(self, counts: Mapping[str, float], left: int) -> None:
        """Update the metrics to `counts`."""
        self._metrics.left.set(left)
        for name, total in counts.items():
            more = total - self._counts.get(name, 0.0)
            if more > 0:
                self._metrics.add(name, more)
        self._counts = dict(counts)

    def close(self) -> None:
        """Stop serving."""
        self._server.close()
