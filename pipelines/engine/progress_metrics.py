"""Progress of a pass: on the terminal, as Prometheus metrics if asked; an end to a run that only fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from genray.errors import BulkError, ResourceError
from genray.progress import Display, Tick
from pipelines.engine.outcome import PassRates
from pipelines.engine.pool import READY_WORKERS
from pipelines.settings import WorkSettings
from pipelines.storage.ledger import FAILED, STATUSES, TIMES

_JUDGED_FROM = 100  # images before it is judged whether too many fail


class PassProgress:
    """Follows the sums that workers report, as a context in which metrics are served.

    Responsible for: showing progress; rates; whether the workers are to stop, because that was asked for or
    because too many images fail.

    Args:
        images: of the pass.
        settings: of the work.
        display: where progress goes.
    """

    def __init__(self, images: int, settings: WorkSettings, display: Display) -> None:
        self._images = images
        self._settings = settings
        self._display = display
        self._counts: dict[str, float] = {}
        self._began = time.monotonic()
        self._ready = self._began
        """When the first worker was ready."""
        self._last = self._began
        """When the counts changed last."""
        self._exporter: ProgressExporter | None = None
        self.notes: list[str] = []
        """What the workers said of how they run."""
        self.stop_requested = False
        self.failure: BulkError | None = None
        """Why the run is not worth going on with."""

    def __enter__(self) -> PassProgress:
        if self._settings.metrics_port is not None:
            self._exporter = ProgressExporter.serve(self._images, self._settings.metrics_port)
            self._display.note(f"metrics: http://127.0.0.1:{self._exporter.port}/metrics")
        return self

    def __exit__(self, *error: object) -> None:
        if self._exporter is not None:
            self._exporter.close()

    @property
    def finished(self) -> int:
        """Images that are through, well or not."""
        return round(sum(self._counts.get(name, 0.0) for name in STATUSES))

    @property
    def rates(self) -> PassRates:
        """How fast the pass was so far."""
        seconds = max(1e-3, self._last - self._ready)
        return PassRates(
            images_per_second=round(self.finished / seconds, 3),
            mb_per_second=round(self._counts.get("bytes_in", 0.0) / 1e6 / seconds, 3),
            start_seconds=round(self._ready - self._began, 2),
        )

    def update(self, counts: Mapping[str, float]) -> bool:
        """Take the sums so far; returns whether the workers are to stop."""
        if not counts.get(READY_WORKERS):
            self._ready = time.monotonic()  # what was before is start-up
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
        """Let the workers finish what they have in hand, and stop."""
        self.stop_requested = True
        self._display.note("stopping after what is in hand (once more: stop at once)")

    def note_once(self, line: str) -> None:
        """Show and keep what a worker says of how it runs: all say the same."""
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
                hint="see why with `genray ledger OUTPUT`; when it is mended, give the command again with "
                "--retry failed, or raise work.max_failed_share",
            )


class _Metrics:
    """The metrics of a pass in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.images = Counter(
            "genray_bulk_images", "Images that are through.", ["status"], registry=self.registry
        )
        self.bytes = Counter("genray_bulk_bytes", "Encoded bytes.", ["direction"], registry=self.registry)
        self.seconds = Counter(
            "genray_bulk_stage_seconds", "Time of all workers in a stage.", ["stage"], registry=self.registry
        )
        self.left = Gauge("genray_bulk_images_left", "Images of this pass to do.", registry=self.registry)

    def add(self, name: str, amount: float) -> None:
        """Add to the metric that a count is of, if it is of one."""
        if name in STATUSES:
            self.images.labels(name).inc(amount)
        elif name in TIMES:
            self.seconds.labels(name.removesuffix("_ms")).inc(amount / 1e3)
        elif name.startswith("bytes_"):
            self.bytes.labels(name.removeprefix("bytes_")).inc(amount)


class ProgressExporter:
    """The sums as Prometheus metrics on the loopback interface, until it is closed; see `serve`."""

    def __init__(self, metrics: _Metrics, server: WSGIServer, thread: threading.Thread) -> None:
        self._metrics = metrics
        self._server = server
        self._thread = thread
        self._counts: dict[str, float] = {}

    @classmethod
    def serve(cls, images: int, port: int) -> ProgressExporter:
        """Begin to serve.

        Args:
            images: of the pass.
            port: 0 takes a free one.

        Raises:
            ResourceError: the port is taken.
        """
        metrics = _Metrics()
        metrics.left.set(images)
        try:
            server, thread = start_http_server(port, addr="127.0.0.1", registry=metrics.registry)
        except OSError as error:
            raise ResourceError(
                f"metrics cannot be served on port {port}: {error.strerror}",
                where="work.metrics_port",
                hint="give another port, or 0 for a free one",
            ) from error
        return cls(metrics, server, thread)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def update(self, counts: Mapping[str, float], left: int) -> None:
        """Bring the metrics up to `counts`."""
        self._metrics.left.set(left)
        for name, total in counts.items():
            more = total - self._counts.get(name, 0.0)
            if more > 0:
                self._metrics.add(name, more)
        self._counts = dict(counts)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
