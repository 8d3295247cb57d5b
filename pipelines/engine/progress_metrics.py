"""Watching a pass: progress on the terminal, Prometheus metrics if asked, an end to a run that only fails."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from genray.errors import BulkError, ResourceError
from genray.progress import Display, Tick
from pipelines.engine.pool import READY
from pipelines.settings import WorkSettings
from pipelines.storage.ledger import DONE, FAILED, SKIPPED, TIMES

_FIRST = 100  # images before it is judged whether too many fail


class Watcher:
    """Follows the sums that workers report.

    Args:
        images: of the pass.
        settings: of the work.
        display: where progress goes.
    """

    def __init__(self, images: int, settings: WorkSettings, display: Display) -> None:
        self._images, self._settings, self._display = images, settings, display
        self._counts: dict[str, float] = {}
        self._began = self._ready = self._last = time.monotonic()
        self._exporter: ProgressExporter | None = None
        self.notes: list[str] = []
        """What the workers said of how they run."""
        self.stopping = False
        self.failing: BulkError | None = None

    def __enter__(self) -> Watcher:
        if self._settings.metrics_port is not None:
            self._exporter = ProgressExporter(self._images, self._settings.metrics_port)
            self._display.note(f"metrics: http://127.0.0.1:{self._exporter.port}/metrics")
        return self

    def __exit__(self, *error: object) -> None:
        if self._exporter is not None:
            self._exporter.close()

    @property
    def finished(self) -> int:
        """Images that are through, well or not."""
        return round(sum(self._counts.get(name, 0.0) for name in (DONE, SKIPPED, FAILED)))

    def watch(self, counts: Mapping[str, float]) -> bool:
        """Take the sums so far; returns whether the workers are to stop."""
        if not counts.get(READY):
            self._ready = time.monotonic()  # what was before is start-up
        if dict(counts) != self._counts:
            self._last = time.monotonic()
        self._counts = dict(counts)
        speed = self.figures()["images_per_second"]
        shown = {"MB/s": self.figures()["mb_per_second"], FAILED: counts.get(FAILED, 0.0)}
        left = (self._images - self.finished) / speed if speed else 0.0
        if self.finished:
            self._display.tick(Tick(0, 0, self.finished, self._images, speed, left, shown, unit="image"))
        if self._exporter is not None:
            self._exporter.show(counts, self._images - self.finished)
        share = counts.get(FAILED, 0.0) / max(1, self.finished)
        if self.finished >= _FIRST and share > self._settings.max_failed_share and self.failing is None:
            self.failing = BulkError(
                f"{share:.0%} of the first {self.finished} images failed",
                hint="see why with `genray ledger OUTPUT`; when it is mended, give the command again with "
                "--retry failed, or raise work.max_failed_share",
            )
        return self.stopping or self.failing is not None

    def figures(self) -> dict[str, float]:
        """Of this pass: seconds at work, images and megabytes a second, without the start-up."""
        return {
            "images_per_second": round(self.finished / self._seconds, 3),
            "mb_per_second": round(self._counts.get("bytes_in", 0.0) / 1e6 / self._seconds, 3),
            "start_seconds": round(self._ready - self._began, 2),
        }

    @property
    def _seconds(self) -> float:
        return max(1e-3, self._last - self._ready)


class ProgressExporter:
    """The sums as Prometheus metrics on the loopback interface.

    Args:
        images: of the pass.
        port: 0 takes a free one.
    """

    def __init__(self, images: int, port: int) -> None:
        registry = CollectorRegistry()
        self._images = Counter(
            "genray_bulk_images", "Images that are through.", ["status"], registry=registry
        )
        self._bytes = Counter("genray_bulk_bytes", "Encoded bytes.", ["direction"], registry=registry)
        self._seconds = Counter(
            "genray_bulk_stage_seconds", "Time of all workers in a stage.", ["stage"], registry=registry
        )
        self._left = Gauge("genray_bulk_images_left", "Images of this pass to do.", registry=registry)
        self._left.set(images)
        self._shown: dict[str, float] = {}
        try:
            self._server, self._thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as error:
            raise ResourceError(
                f"metrics cannot be served on port {port}: {error.strerror}",
                where="work.metrics_port",
                hint="give another port, or 0 for a free one",
            ) from error
        self.port: int = self._server.server_port

    def show(self, counts: Mapping[str, float], left: int) -> None:
        """Bring the metrics up to `counts`."""
        self._left.set(left)
        for name, total in counts.items():
            more = total - self._shown.get(name, 0.0)
            if more > 0 and (metric := self._metric(name)) is not None:
                metric.inc(more / 1e3 if name in TIMES else more)
        self._shown = dict(counts)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _metric(self, name: str) -> Any:
        if name in (DONE, SKIPPED, FAILED):
            return self._images.labels(name)
        if name in TIMES:
            return self._seconds.labels(name.removesuffix("_ms"))
        return self._bytes.labels(name.removeprefix("bytes_")) if name.startswith("bytes_") else None
