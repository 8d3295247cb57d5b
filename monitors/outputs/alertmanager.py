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
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from genray.errors import ResourceError
from monitors.alarms.events import Transition
from monitors.outputs.alert import Alert, Told
from monitors.outputs.alertmanager_settings import PATH, AlertmanagerSettings
from monitors.sources.tls import tls_failure

_AT_ONCE = 500  # alerts of a request
_LIVES = 5  # times `resend_seconds` that an alert lasts unless it is sent again
_FIRST_WAIT_S = 0.1
_SENT, _REPEATED, _FAILED, _REFUSED, _DROPPED = OUTCOMES = (
    "sent",
    "repeated",
    "failed",
    "refused",
    "dropped",
)


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
            `repeated` count alerts, `failed` (no answer) and `refused` (an answer that says no) requests,
            `dropped` alarms.
        owed: called with how many alarms go on that no Alertmanager knows of; never without `urls`.
        note: called with a line for a person when one does not take alerts, and when it does again.

    Raises:
        ResourceError: `ca` or `token_file` cannot be read.
    """

    def __init__(
        self,
        settings: AlertmanagerSettings,
        sent: Callable[[Sequence[Transition]], None],
        counted: Callable[[str, int], None],
        owed: Callable[[int], None],
        note: Callable[[str], None],
    ) -> None:
        self._settings, self._sent, self._counted = settings, sent, counted
        self._owed, self._note = owed, note
        self._alerts: dict[str, Alert] = {}
        self._dropped: set[str] = set()
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
        self._count_owed()

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
            elif alert is None and not self._has_room():
                self._counted(_DROPPED, 1)
                self._dropped.add(each.alarm)
            elif alert is None:
                self._dropped.discard(each.alarm)
                self._alerts[each.alarm] = Alert(each)
            else:
                alert.take(each)
            if each.state == "ended":
                self._dropped.discard(each.alarm)
        self._count_owed()
        for news in self._news.values():
            news.set()

    def _has_room(self) -> bool:
        """Whether there is room for one more; the oldest that ended makes it, before an alarm that goes on is
        kept from anybody."""
        if len(self._alerts) < self._settings.max_alarms:
            return True
        ended = [alert for alert in self._alerts.values() if alert.over is not None]
        if not ended:
            return False
        # Those of which somebody was told lose nothing.
        oldest = min(ended, key=lambda alert: (bool(alert.owed), alert.over))
        if oldest.owed:
            self._counted(_DROPPED, 1)
            self._marks += oldest.delivered(oldest.version)
            self._to_mark.set()
        self._remove(oldest.name)
        return True

    def _count_owed(self) -> None:
        if not self._told:
            return
        late = time.monotonic() - _LIVES * self._settings.resend_seconds
        owed = len(self._dropped)
        for name, alert in self._alerts.items():
            knows = (told[name] for told in self._told.values() if name in told)
            owed += not alert.ended and not any(
                each.at > late and each.labels and each.labels["priority"] == alert.last.priority
                for each in knows
            )
        self._owed(owed)

    async def _serve(self, url: str) -> None:
        s, told, news = self._settings, self._told[url], self._news[url]
        wait, trouble = _FIRST_WAIT_S, ""
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
                payload = [body for step in due for body in step.bodies(_LIVES * s.resend_seconds, s.page)]
                failed = await self._post(session, url, payload)
                if failed is not None:
                    outcome, why = failed
                    self._counted(outcome, 1)
                    self._count_owed()
                    if not trouble:
                        trouble = f"alarms do not reach the Alertmanager {urlsplit(url).netloc}: {why}"
                        self._note(f"{trouble}; it is tried again")
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, s.retry_seconds)
                    continue
                if trouble:
                    self._note(f"alarms reach the Alertmanager {urlsplit(url).netloc} again")
                wait, trouble = _FIRST_WAIT_S, ""
                for step in due:
                    self._counted(_REPEATED if step.repeats else _SENT, 1)
                    self._marks += step.alert.delivered(step.version)
                    # Meanwhile it may have been given up, and have come again as another.
                    if self._alerts.get(step.alert.name) is step.alert:
                        told[step.alert.name] = step.told(time.monotonic())
                self._to_mark.set()
                self._forget()
                self._count_owed()

    async def _post(
        self, session: aiohttp.ClientSession, url: str, payload: list[dict[str, Any]]
    ) -> tuple[str, str] | None:
        """What went wrong, as an outcome and in words."""
        try:
            async with session.post(
                f"{url.rstrip('/')}{PATH}",
                json=payload,
                headers=self._headers(),
                ssl=self._tls,
                allow_redirects=False,  # a token is not for others
            ) as answer:
                return None if answer.status == 200 else (_REFUSED, f"it answers {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # Not its text, which may show the token.
            return _FAILED, tls_failure(error) or f"no answer ({type(error).__name__})"

    def _headers(self) -> dict[str, str]:
        if self._settings.token_file is None:
            return {}
        with Path(self._settings.token_file).open(encoding="ascii", errors="replace") as file:
            return {"Authorization": f"Bearer {''.join(file.read(10_000).split())}"}

    def _forget(self) -> None:
        # Then it has ended everywhere by itself.
        late = time.monotonic() - _LIVES * self._settings.resend_seconds
        for name, alert in list(self._alerts.items()):
            if alert.over is None or alert.owed:
                continue
            heard = [told[name] for told in self._told.values() if name in told]
            if alert.over < late or (
                len(heard) == len(self._told) and not any(each.labels for each in heard)
            ):
                self._remove(name)

    def _remove(self, name: str) -> None:
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
