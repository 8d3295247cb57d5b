"""Pushing urgent alarms to Alertmanager, at once and without Prometheus in between (its API, v2).

What a client of Alertmanager owes it (https://prometheus.io/docs/alerting/latest/clients/): alerts are known
by their labels; one that fires is sent again and again, for it ends with its `endsAt`; every member of a
cluster is sent all. Instead of a queue of messages each of them is therefore brought up to the state of the
alarms, in order and one request at a time: one that was away learns what holds now, and nothing twice.

Alarms are pushed by the wall clock, for samples may be replayed; the time of the samples is an annotation.

An alarm as an alert of Alertmanager, and what the next step is with one that was told of it before.

Settings of what is pushed to Alertmanager.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field, StringConstraints, field_validator, model_validator

from genray.errors import ResourceError
from genray.settings.base import Location, Settings
from genray.text import label_value
from monitors.alarms.events import Priority, Transition
from monitors.outputs.host_names import is_loopback
from monitors.sources.connection import explain_tls_failure

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
            return _FAILED, explain_tls_failure(error) or f"no answer ({type(error).__name__})"

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


_HELD_S = 1.0
"""Between an alert and its end: an Alertmanager that gets both before it looks tells nobody of either."""
_TEXT = 300


@dataclass(frozen=True, slots=True)
class Told:
    """What an Alertmanager knows of an alarm.

    Attributes:
        version: of the alert.
        labels: that it fires with; null once it has ended.
        at: when it was told, by the monotonic clock.
    """

    version: int
    labels: dict[str, str] | None
    at: float


class Alert:
    """The state of an alarm that is pushed; begins with `transition`.

    Its version is that of its last transition, counted from 1.
    """

    def __init__(self, transition: Transition) -> None:
        self.name = transition.alarm
        self.owed: list[tuple[int, Transition]] = []
        """Versions and transitions that nobody was told of yet."""
        self.version = 0
        self.since = time.time()
        self.over: float | None = None
        """When it ended, by the monotonic clock."""
        self.firing: Transition | None = None
        self.last = transition
        self.take(transition)

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.last.state == "ended"

    def take(self, transition: Transition) -> None:
        """Go on with the next transition."""
        if self.version and transition == self.last:
            return  # both owed and open after a restart
        if self.ended:
            self.since = time.time()  # it comes again
        self.version += 1
        self.owed.append((self.version, transition))
        self.last = transition
        self.over = time.monotonic() if self.ended else None
        if not self.ended:
            self.firing = transition

    def delivered(self, version: int) -> list[Transition]:
        """The transitions up to `version` that were owed until now."""
        done = [transition for number, transition in self.owed if number <= version]
        self.owed = [(number, transition) for number, transition in self.owed if number > version]
        return done

    def step(self, told: Told | None, now: float, resend: float) -> PushStep:
        """What to send next, and when, to one that was `told` this."""
        if not self.ended:
            fresh = told is not None and told.version == self.version
            return PushStep(self, self.version, told, told.at + resend if told and fresh else now, self.last)
        if told is None and self.firing is not None:
            # It began and ended while this one was away. If nobody was told, it is told even so: first of
            # the one, then of the other.
            return PushStep(self, self.version - 1, told, now if self.owed else inf, self.firing)
        if told is not None and told.labels is None:
            return PushStep(self, self.version, told, inf, None)
        return PushStep(self, self.version, told, told.at + _HELD_S if told else now, None)


@dataclass(frozen=True, slots=True)
class PushStep:
    """One message to one Alertmanager.

    Attributes:
        version: of the alert, that it then knows.
        before: what it knows now.
        at: when it is due, by the monotonic clock; infinite: never.
        firing: null: the alert ends.
    """

    alert: Alert
    version: int
    before: Told | None
    at: float
    firing: Transition | None

    @property
    def repeats(self) -> bool:
        """Whether it says what was said."""
        return self.before is not None and self.before.version == self.version

    def told(self, now: float) -> Told:
        """What it knows after this."""
        return Told(self.version, labels(self.firing) if self.firing else None, now)

    def bodies(self, lasting: float, page: str | None) -> list[dict[str, Any]]:
        """The alerts as the API takes them; those that fire end after `lasting` seconds unless repeated."""
        now = time.time()
        said = self.before.labels if self.before else None
        bodies = []
        if self.firing is None or (said is not None and said != labels(self.firing)):
            bodies.append((said or labels(self.alert.last), self.alert.last, now))
        if self.firing is not None:
            bodies.append((labels(self.firing), self.firing, now + lasting))
        source = {"generatorURL": page} if page else {}
        return [
            {
                "labels": each,
                "annotations": _annotations(transition),
                "startsAt": _stamp(min(self.alert.since, now)),
                "endsAt": _stamp(end),
                **source,
            }
            for each, transition, end in bodies
        ]


def labels(transition: Transition) -> dict[str, str]:
    """The labels of an alert: the same while its priority is. `alarm` makes each episode one of its own."""
    t = transition
    return {
        "alertname": "Ecg" + "".join(word.capitalize() for word in t.kind.split("-")),
        "alarm": label_value(t.alarm, 128),
        "stream": label_value(t.stream),
        "kind": t.kind,
        "priority": t.priority,
        "category": t.category,
    }


def _annotations(transition: Transition) -> dict[str, str]:
    t = transition
    return {
        "summary": f"{t.kind} ({t.priority} priority) in {label_value(t.stream)}: {t.state}",
        "why": _text(t.why),
        "onset": _stamp(t.onset),
        "sample_time": _stamp(t.time),
    }


def _text(why: Mapping[str, Any]) -> str:
    # Numbers and words, what was measured first; the beats are in the journal and on the page.
    parts = []
    for name, value in why.items():
        for inner, each in value.items() if isinstance(value, Mapping) else [(name, value)]:
            if isinstance(each, int | float | str) and inner != "since":  # that is the onset
                parts.append(f"{inner} {each:g}" if isinstance(each, int | float) else f"{inner} {each}")
    return label_value(", ".join(parts), _TEXT) if parts else ""


def _stamp(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # a device may say anything
        return str(seconds)


PATH: Final = "/api/v2/alerts"
"""Of its API, where alerts are sent to."""

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
    max_alarms: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="that are kept; beyond it the oldest that ended are given up, and if none did, new ones",
    )
    token_file: Location | None = Field(None, description="holds the bearer token; read for each request")
    ca: Location | None = Field(None, description="PEM: authority of the server; null: those of the system")
    page: Url | None = Field(None, description="address of the live page, as the source of alerts")

    @model_validator(mode="after")
    def _urgent(self) -> Self:
        if self.urls and "high" not in self.priorities:
            raise ValueError("priorities need high: the rules of Prometheus leave those alarms to the push")
        return self

    @field_validator("urls")
    @classmethod
    def _of_the_server(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if not parts.hostname or parts.port == 0:  # a port that is none raises ValueError itself
                raise ValueError(f"{url} names no server")
            if url.rstrip("/").endswith(PATH):
                raise ValueError(f"{PATH} is added to a URL: give {url.rstrip('/').removesuffix(PATH)}")
        return urls

    @model_validator(mode="after")
    def _secret(self) -> Self:
        for url in self.urls if self.token_file else ():
            parts = urlsplit(url)
            if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
                raise ValueError(f"a token goes over https only, not to {url}")
        return self
