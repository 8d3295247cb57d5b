"""Pushing urgent alarms to Alertmanager, at once and without Prometheus in between (its API, v2).

What a client of Alertmanager owes it (https://prometheus.io/docs/alerting/latest/clients/): alerts are known
by their labels; one that fires is sent again and again, for it ends with its `endsAt`; every member of a
cluster is sent all. Instead of a queue of messages each of them is therefore brought up to the state of the
alarms, in order and one request at a time: one that was away learns what holds now, and nothing twice.

Alarms are pushed by the wall clock, for samples may be replayed; the time of the samples is an annotation.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field, StringConstraints, model_validator

from genray.errors import ResourceError
from genray.settings import Location, Settings
from monitors.alert import Alert, Told
from monitors.observation import Priority, Transition

_AT_ONCE = 500  # alerts of a request
_FIRST_WAIT_S = 0.1
_SENT, _REPEATED, _FAILED, _REFUSED, _DROPPED = OUTCOMES = (
    "sent",
    "repeated",
    "failed",
    "refused",
    "dropped",
)

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@?#]+$", max_length=500)]


class AlertmanagerSettings(Settings):
    """Settings of what is pushed to Alertmanager."""

    urls: tuple[Url, ...] = Field((), max_length=8, description="each member of a cluster; none: no push")
    priorities: tuple[Priority, ...] = Field(
        ("high",), description="of alarms that are pushed; the rules of Prometheus announce the others"
    )
    resend_seconds: float = Field(
        60.0, gt=0, le=600, description="after which an alert is sent again; after 5 of them unheard, it ends"
    )
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="of a request")
    retry_seconds: float = Field(5.0, gt=0, le=60, description="longest wait before it is tried again")
    max_alarms: int = Field(10_000, ge=1, le=1_000_000, description="that are kept; more are dropped")
    token_file: Location | None = Field(None, description="holds the bearer token; read for each request")
    ca: Location | None = Field(None, description="PEM: authority of the server; null: those of the system")
    page: Url | None = Field(None, description="address of the live page, as the source of alerts")

    @model_validator(mode="after")
    def _secret(self) -> Self:
        for url in self.urls if self.token_file else ():
            if urlsplit(url).scheme != "https" and urlsplit(url).hostname not in (
                "127.0.0.1",
                "::1",
                "localhost",
            ):
                raise ValueError(f"a token goes over https only, not to {url}")
        return self


class Alertmanager:
    """Pushes alarms from within a running event loop, whatever becomes of the other side.

    An alarm is pushed from its first announced transition of one of the priorities until it has ended: also
    while it is suppressed, acknowledged or latched, for none of these says that it is over. When its priority
    changes, its labels do: the alert of before is ended in the same request.

    Args:
        settings: where to, and what.
        sent: called in a thread with transitions that at least one Alertmanager has taken, or that it is not
            to be told of: the journal's `mark_sent`.
        counted: called with an outcome of `OUTCOMES` and how often; with 0 of each at the start. `sent` and
            `repeated` count alerts, `failed` (no answer) and `refused` (an answer that says no) requests.

    Raises:
        ResourceError: `ca` or `token_file` cannot be read.
    """

    def __init__(
        self,
        settings: AlertmanagerSettings,
        sent: Callable[[Sequence[Transition]], None],
        counted: Callable[[str, int], None],
    ) -> None:
        self._settings, self._sent, self._counted = settings, sent, counted
        self._alerts: dict[str, Alert] = {}
        self._marks: list[Transition] = []
        self._to_mark = asyncio.Event()
        self._told: dict[str, dict[str, Told]] = {url: {} for url in settings.urls}
        self._news = {url: asyncio.Event() for url in settings.urls}
        try:
            self._tls = ssl.create_default_context(cafile=settings.ca)
            self._headers()
        except OSError as error:
            raise ResourceError(
                f"a file of the Alertmanager cannot be read: {error}",
                where="alertmanager",
                hint="check alertmanager.ca and alertmanager.token_file",
            ) from error
        self._tasks: list[asyncio.Task[None]] = []
        for outcome in OUTCOMES:
            counted(outcome, 0)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._mark())]
        self._tasks += [asyncio.create_task(self._serve(url)) for url in self._told]
        for task in self._tasks:
            task.add_done_callback(_complain)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Give what is owed the time of one request, then stop. Alerts go on until their `endsAt`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timeout_seconds):
                while self._marks or any(alert.owed for alert in self._alerts.values()):
                    await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def push(self, transitions: Sequence[Transition]) -> None:
        """Take `transitions`, in their order; returns at once. After a restart give it what the journal has
        `unsent`, then its `open_alarms`."""
        for each in transitions:
            alert = self._alerts.get(each.alarm)
            wanted = each.announced and each.priority in self._settings.priorities and bool(self._told)
            if (alert is None or (alert.ended and each.state != "ended")) and not wanted:
                self._marks.append(each)
                self._to_mark.set()
            elif alert is None and len(self._alerts) >= self._settings.max_alarms:
                self._counted(_DROPPED, 1)
            elif alert is None:
                self._alerts[each.alarm] = Alert(each)
            else:
                alert.take(each)
        for news in self._news.values():
            news.set()

    async def _serve(self, url: str) -> None:
        s, told, news = self._settings, self._told[url], self._news[url]
        wait = _FIRST_WAIT_S
        timeout = aiohttp.ClientTimeout(total=s.timeout_seconds)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                news.clear()
                now = time.monotonic()
                steps = [a.step(told.get(name), now, s.resend_seconds) for name, a in self._alerts.items()]
                due = [step for step in steps if step.at <= now][:_AT_ONCE]
                if not due:
                    until = min([s.resend_seconds, *(step.at - now for step in steps)])
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), until)
                    continue
                payload = [body for step in due for body in step.bodies(5 * s.resend_seconds, s.page)]
                outcome = await self._post(session, url, payload)
                if outcome is not None:
                    self._counted(outcome, 1)
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, s.retry_seconds)
                    continue
                wait = _FIRST_WAIT_S
                for step in due:
                    self._counted(_REPEATED if step.repeats else _SENT, 1)
                    self._marks += step.alert.delivered(step.version)
                    if step.alert.name in self._alerts:
                        told[step.alert.name] = step.told(time.monotonic())
                self._to_mark.set()
                self._forget()

    async def _post(
        self, session: aiohttp.ClientSession, url: str, payload: list[dict[str, Any]]
    ) -> str | None:
        try:
            async with session.post(
                f"{url.rstrip('/')}/api/v2/alerts",
                json=payload,
                headers=self._headers(),
                ssl=self._tls,
                allow_redirects=False,  # a token is not for others
            ) as answer:
                return None if answer.status == 200 else _REFUSED
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return _FAILED

    def _headers(self) -> dict[str, str]:
        if self._settings.token_file is None:
            return {}
        with Path(self._settings.token_file).open(encoding="ascii", errors="replace") as file:
            return {"Authorization": f"Bearer {''.join(file.read(10_000).split())}"}

    def _forget(self) -> None:
        late = time.monotonic() - 5 * self._settings.resend_seconds  # then it has ended everywhere by itself
        for name, alert in list(self._alerts.items()):
            if alert.over is None or alert.owed:
                continue
            heard = [told[name] for told in self._told.values() if name in told]
            if alert.over < late or (
                len(heard) == len(self._told) and not any(each.labels for each in heard)
            ):
                del self._alerts[name]
                for told in self._told.values():
                    told.pop(name, None)

    async def _mark(self) -> None:
        while True:
            await self._to_mark.wait()
            self._to_mark.clear()
            if marks := self._marks[:]:
                await asyncio.to_thread(self._sent, marks)
                del self._marks[: len(marks)]


def _complain(task: asyncio.Task[None]) -> None:
    # Nobody waits for these tasks; without this an error in one would be silence.
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "pushing to Alertmanager ended", "exception": error, "task": task}
        )
