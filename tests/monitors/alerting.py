"""Alertmanager and Prometheus with the shipped configuration, clients of them, and the pager at the end."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from monitors.alarms.events import Transition
from monitors.outputs.alertmanager import Alertmanager, AlertmanagerSettings
from monitors.outputs.journal import Journal
from tests.servers import Server, binary, free_port

DEPLOY = Path(__file__).parents[2] / "configs" / "deploy"


class Api:
    """Receives alerts as Alertmanager does, and gives `answers`, then 200; with `tls` over https."""

    def __init__(self, *answers: int, tls: ssl.SSLContext | None = None, port: int | None = None) -> None:
        self._tls, self._port = tls, port or free_port()
        self.alerts: list[list[dict[str, Any]]] = []
        self.headers: list[Any] = []
        self.times: list[float] = []
        self._answers = list(answers)

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_post("/api/v2/alerts", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls).start()
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        status = self._answers.pop(0) if self._answers else 200
        self.headers.append(request.headers)
        self.times.append(time.monotonic())
        if status == 200:
            self.alerts.append(await request.json())
        return web.Response(
            status=status, headers={"Location": "http://127.0.0.1:1/"} if status == 302 else {}
        )


class Client(Alertmanager):
    """Pushes to `urls`, quickly again, and records what it reports; with `journal` also there."""

    def __init__(self, *urls: str, journal: Journal | None = None, **settings: Any) -> None:
        self.sent: list[Transition] = []
        self.counts: Counter[str] = Counter()
        self.owed: list[int] = []
        self.notes: list[str] = []

        def mark_sent(transitions: Sequence[Transition]) -> None:
            self.sent += transitions
            if journal is not None:
                journal.mark_sent("alertmanager", transitions)

        values = {"resend_seconds": 0.3, "retry_seconds": 0.2, "timeout_seconds": 2} | settings
        super().__init__(
            AlertmanagerSettings(urls=urls, **values),
            mark_sent,
            lambda outcome, count: self.counts.update({outcome: count}),
            self.owed.append,
            self.notes.append,
        )

    async def reaches(self, done: Callable[[], bool]) -> None:
        """Wait until it is `done`."""
        async with asyncio.timeout(10):
            while not done():
                await asyncio.sleep(0.005)

    async def repeats(self, times: int) -> None:
        """Wait until so many more alerts were sent again."""
        before = self.counts["repeated"]
        await self.reaches(lambda: self.counts["repeated"] >= before + times)


class Pager:
    """A webhook on a free port; `calls` are the messages that came, `times` when."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.port = free_port()
        self._came = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/alerts", self._record)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    async def _record(self, request: web.Request) -> web.Response:
        self.calls.append(json.loads(await request.read()))
        self.times.append(time.monotonic())
        self._came.set()
        return web.Response()

    def received(self) -> list[tuple[str, str, str]]:
        """Status, alert and stream, in the order of the calls."""
        return [
            (alert["status"], alert["labels"]["alertname"], alert["labels"].get("stream", ""))
            for call in self.calls
            for alert in call["alerts"]
        ]

    async def receives(
        self, enough: Callable[[list[tuple[str, str, str]]], bool], seconds: float = 12
    ) -> float:
        """Wait until what was received is `enough`; gives the time of the last call."""
        async with asyncio.timeout(seconds):
            while not enough(self.received()):
                self._came.clear()
                await self._came.wait()
        return self.times[-1]


def alertmanager_server(folder: Path, pager: Pager) -> Server:
    """Alertmanager with the shipped configuration, but quick to say what has ended."""
    program = binary("prometheus-alertmanager", package="prometheus-alertmanager")
    _write_changed(
        folder,
        "alertmanager.yaml",
        {
            "127.0.0.1:9751": f"127.0.0.1:{pager.port}",
            "group_wait: 5s": "group_wait: 500ms",
            "group_interval: 30s": "group_interval: 500ms",
            "group_interval: 5s": "group_interval: 500ms",
        },
    )
    port = free_port()
    return Server(
        [
            program,
            f"--config.file={folder / 'alertmanager.yaml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        port=port,
        folder=folder,
    )


def prometheus_server(folder: Path, exporter: int, alertmanager: int) -> Server:
    """Prometheus with the shipped configuration and rules, at a tenth of their intervals."""
    program = binary("prometheus", package="prometheus")
    _write_changed(
        folder,
        "prometheus.yaml",
        {
            ":9750": f":{exporter}",
            ":9093": f":{alertmanager}",
            "interval: 5s": "interval: 500ms",
            "timeout: 4s": "timeout: 400ms",
        },
    )
    quick_rules = re.sub(r"for: \d+s", "for: 1s", (DEPLOY / "ecg-rules.yaml").read_text())
    (folder / "ecg-rules.yaml").write_text(quick_rules)
    port = free_port()
    return Server(
        [
            program,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        port=port,
        folder=folder,
    )


def _write_changed(folder: Path, name: str, changes: Mapping[str, str]) -> None:
    """Write the shipped configuration `name` to `folder`, with `changes`."""
    config = (DEPLOY / name).read_text()
    for old, new in changes.items():
        assert old in config
        config = config.replace(old, new)
    (folder / name).write_text(config)
