"""Push of urgent alarms to Alertmanager at once, without Prometheus in between (Alertmanager API v2).

Rules for clients of Alertmanager (https://prometheus.io/docs/alerting/latest/clients/): an alert is
identified by its labels; a firing alert must be sent repeatedly, as it ends at its `endsAt`; every member of
a cluster must receive all alerts. So there is no queue of messages: each member is brought to the current
state of the alarms, in order and one request at a time. A member that was unreachable receives the current
state, and no message twice.

Times of alerts are those of the wall clock, as samples may be replayed; the sample time is an annotation.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field, StringConstraints, field_validator, model_validator

from genray.errors import ResourceError
from genray.serving.host_names import is_loopback
from genray.settings.base import Location, Settings
from genray.text import label_value
from monitors.alarms.events import Priority, Transition
from monitors.alarms.reasons import measurement
from monitors.sources.connection import explain_tls_failure

PushOutcome = Literal["sent", "repeated", "failed", "refused", "dropped"]
OUTCOMES: tuple[PushOutcome, ...] = get_args(PushOutcome)
"""Outcomes of pushes. `sent` and `repeated` count alerts; `failed` (no answer) and `refused` (an error
status) count requests; `dropped` counts alarms."""

PATH: Final = "/api/v2/alerts"
"""Path of the API to which alerts are sent."""

_MOST_ALERTS = 500  # alerts of one request
_LIFETIME_RESENDS = 5  # an alert ends this many times `resend_seconds` after it was last sent
_FIRST_RETRY_S = 0.1
_END_DELAY_S = (
    1.0  # between an alert and its end: Alertmanager notifies of neither if both arrive before it groups them
)
_WHY_LENGTH = 300
_TOKEN_LENGTH = 10_000

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@?#]+$", max_length=500)]


class AlertmanagerSettings(Settings):
    """Settings of the push to Alertmanager."""

    credentials: ClassVar[str] = "put a bearer token into a file, and give its name as `token_file`"

    urls: tuple[Url, ...] = Field(
        (), max_length=8, description="URL of each Alertmanager of the cluster (none: no push)"
    )
    priorities: tuple[Priority, ...] = Field(
        ("high",), description="priorities of alarms that are pushed; Prometheus rules announce the others"
    )
    resend_seconds: float = Field(
        60.0,
        gt=0,
        le=600,
        description="seconds after which a firing alert is sent again (without it the alert ends after 5 "
        "times as long)",
    )
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="timeout of a request in seconds")
    retry_seconds: float = Field(
        5.0, gt=0, le=60, description="longest wait in seconds before a failed request is repeated"
    )
    max_alarms: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="most alarms held for the push (beyond it the oldest ended ones are dropped, or new ones "
        "if none has ended)",
    )
    token_file: Location | None = Field(
        None, description="file with the bearer token, read for each request (null: no token)"
    )
    ca: Location | None = Field(
        None, description="PEM file of the certificate authority to trust (null: those of the system)"
    )
    page: Url | None = Field(
        None, description="URL of the live page, sent as the source of alerts (null: none)"
    )

    @model_validator(mode="after")
    def _check_priorities(self) -> Self:
        if self.urls and "high" not in self.priorities:
            raise ValueError(
                "`priorities` must contain high: Prometheus rules leave those alarms to the push"
            )
        return self

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if not parts.hostname or parts.port == 0:  # a port that is none raises ValueError itself
                raise ValueError(f"{url} has no host or an invalid port: write http://HOST:PORT")
            if url.rstrip("/").endswith(PATH):
                raise ValueError(
                    f"{PATH} is appended to the URL: write only {url.rstrip('/').removesuffix(PATH)}"
                )
        return urls

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        for url in self.urls if self.token_file else ():
            parts = urlsplit(url)
            if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
                raise ValueError(f"`token_file` needs an https URL, not {url}: the token would be readable")
        return self


class Alertmanager:
    """Pushes alarms to all Alertmanagers of a cluster, and repeats until each has received them.

    An alarm is pushed from its first announced transition at one of `priorities` until it ends: also while it
    is suppressed, acknowledged or latched, as it is not over then. When its priority changes, its labels
    change too, and the alert with the old labels is ended in the same request.

    It is responsible for:

    - the state of each pushed alarm, and what each member of the cluster has received of it,
    - sending firing alerts again before they end, and repeating failed requests,
    - dropping alarms when there are too many, ended ones first,
    - reporting which transitions were sent, the outcome of requests, and how many alarms nobody received.

    It leaves to the caller which alarms there are, and storing what was sent to the journal.

    Args:
        settings: servers and alarms to push.
        mark_sent: called in a thread with transitions that at least one Alertmanager has received, or that
            are not to be pushed: the journal's `mark_sent`.
        count_outcome: called with an outcome and a count; with a count of 0 for each outcome at the start.
        set_owed: called with the number of open alarms that no Alertmanager has received; never without
            `urls`.
        note: called with a line for a person when a member stops accepting alerts, and when it accepts them
            again.
    """

    def __init__(
        self,
        settings: AlertmanagerSettings,
        mark_sent: Callable[[Sequence[Transition]], None],
        count_outcome: Callable[[PushOutcome, int], None],
        set_owed: Callable[[int], None],
        note: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._mark_sent = mark_sent
        self._count_outcome = count_outcome
        self._set_owed = set_owed
        self._note = note
        self._alerts: dict[str, Alert] = {}
        self._dropped: set[str] = set()
        self._sent: list[Transition] = []  # sent, but not marked in the journal yet
        self._any_sent = asyncio.Event()
        self._members = [_ClusterMember(url) for url in dict.fromkeys(settings.urls)]
        self._tasks: list[asyncio.Task[None]] = []
        self._tls: ssl.SSLContext | bool = True

    async def __aenter__(self) -> Self:
        """Start pushing.

        Raises:
            ResourceError: `ca` or `token_file` cannot be read.
        """
        try:
            self._tls = ssl.create_default_context(cafile=self._settings.ca)
            self._headers()
        except OSError as error:
            raise ResourceError(
                f"cannot read a file for the push to Alertmanager: {error}",
                where="alertmanager",
                hint="check the files alertmanager.ca and alertmanager.token_file",
            ) from error
        for outcome in OUTCOMES:
            self._count_outcome(outcome, 0)
        self._update_owed()
        self._tasks = [asyncio.create_task(self._mark_all_sent())]
        self._tasks += [asyncio.create_task(self._serve(member)) for member in self._members]
        for task in self._tasks:
            task.add_done_callback(_report_failure)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Wait at most the time of one request for what is unsent, then stop. Alerts stay until `endsAt`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timeout_seconds):
                while self._sent or any(alert.unsent for alert in self._alerts.values()):
                    await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def push(self, transitions: Sequence[Transition]) -> None:
        """Push `transitions` in their order; returns at once. After a restart, pass the journal's `unsent`
        transitions, then its `open_alarms`."""
        for transition in transitions:
            self._push_one(transition)
        self._update_owed()
        for member in self._members:
            member.changed.set()

    def _push_one(self, transition: Transition) -> None:
        alert = self._alerts.get(transition.alarm)
        goes_on = alert is not None and (not alert.ended or transition.state == "ended")
        if not goes_on and not self._is_wanted(transition):
            self._sent.append(transition)
            self._any_sent.set()
        elif alert is not None:
            alert.update(transition)
        elif self._make_room():
            self._dropped.discard(transition.alarm)
            self._alerts[transition.alarm] = Alert(transition)
        else:
            self._count_outcome("dropped", 1)
            self._dropped.add(transition.alarm)
        if transition.state == "ended":
            self._dropped.discard(transition.alarm)

    def _is_wanted(self, transition: Transition) -> bool:
        """Whether the transition starts an alert."""
        return (
            transition.announced and transition.priority in self._settings.priorities and bool(self._members)
        )

    def _make_room(self) -> bool:
        """Whether there is room for one more alert. The oldest ended one is dropped for it; an open alarm
        never is."""
        if len(self._alerts) < self._settings.max_alarms:
            return True
        ended = [alert for alert in self._alerts.values() if alert.ended_at is not None]
        if not ended:
            return False
        # Prefer one whose end was received: nothing is lost with it.
        oldest = min(ended, key=lambda alert: (bool(alert.unsent), alert.ended_at))
        if oldest.unsent:
            self._count_outcome("dropped", 1)
            self._sent += oldest.pop_unsent(oldest.version)
            self._any_sent.set()
        self._remove(oldest.name)
        return True

    def _update_owed(self) -> None:
        if not self._members:
            return
        late = time.monotonic() - _LIFETIME_RESENDS * self._settings.resend_seconds
        owed = len(self._dropped)
        for alert in self._alerts.values():
            fires = any(
                receipt.at > late and receipt.labels and receipt.labels["priority"] == alert.last.priority
                for receipt in self._receipts(alert.name)
            )
            if not alert.ended and not fires:
                owed += 1
        self._set_owed(owed)

    def _receipts(self, name: str) -> Iterator[Receipt]:
        """Yield what each member received of an alarm, for members that received it at all."""
        return (member.receipts[name] for member in self._members if name in member.receipts)

    async def _serve(self, member: _ClusterMember) -> None:
        """Bring one member to the current state of the alarms, again and again until cancelled."""
        settings = self._settings
        lifetime = _LIFETIME_RESENDS * settings.resend_seconds
        timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                member.changed.clear()
                now = time.monotonic()
                steps = [
                    alert.next_step(member.receipts.get(name), now, settings.resend_seconds)
                    for name, alert in self._alerts.items()
                ]
                due = [step for step in steps if step.due <= now][:_MOST_ALERTS]
                if not due:
                    patience = min([settings.resend_seconds, *(step.due - now for step in steps)])
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(member.changed.wait(), patience)
                    continue
                payload = [alert for step in due for alert in step.payload(lifetime, settings.page)]
                failure = await self._post(session, member.url, payload)
                if failure is None:
                    self._accept(member, due)
                else:
                    self._fail(member, failure)
                    await asyncio.sleep(member.retry_seconds)
                    member.retry_seconds = min(2 * member.retry_seconds, settings.retry_seconds)

    def _fail(self, member: _ClusterMember, failure: _PushFailure) -> None:
        """Count a request that `member` did not accept, and note the first in a row."""
        self._count_outcome(failure.outcome, 1)
        self._update_owed()
        if not member.failing:
            member.failing = True
            self._note(
                f"alarms are not reaching the Alertmanager {member.host}: {failure.reason}; trying again"
            )

    def _accept(self, member: _ClusterMember, steps: Sequence[PushStep]) -> None:
        """Record that `member` accepted a request with `steps`."""
        if member.failing:
            self._note(f"alarms reach the Alertmanager {member.host} again")
        member.failing = False
        member.retry_seconds = _FIRST_RETRY_S
        for step in steps:
            self._count_outcome("repeated" if step.repeats else "sent", 1)
            self._sent += step.alert.pop_unsent(step.version)
            # Meanwhile the alert may have been dropped, and its name used by a new one.
            if self._alerts.get(step.alert.name) is step.alert:
                member.receipts[step.alert.name] = step.receipt_after(time.monotonic())
        self._any_sent.set()
        self._remove_ended()
        self._update_owed()

    async def _post(
        self, session: aiohttp.ClientSession, url: str, payload: list[dict[str, Any]]
    ) -> _PushFailure | None:
        """Send one request; return the failure, or None if it was accepted."""
        try:
            async with session.post(
                f"{url.rstrip('/')}{PATH}",
                json=payload,
                headers=self._headers(),
                ssl=self._tls,
                allow_redirects=False,  # a redirect would send the token to another server
            ) as answer:
                if answer.status == 200:
                    return None
                return _PushFailure("refused", f"it answered with HTTP status {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # Without the text of the error, which may show the token.
            return _PushFailure("failed", explain_tls_failure(error) or f"no answer ({type(error).__name__})")

    def _headers(self) -> dict[str, str]:
        if self._settings.token_file is None:
            return {}
        with Path(self._settings.token_file).open(encoding="ascii", errors="replace") as file:
            return {"Authorization": f"Bearer {''.join(file.read(_TOKEN_LENGTH).split())}"}

    def _remove_ended(self) -> None:
        """Remove alerts that have ended at every member, by a request or by their `endsAt`."""
        late = time.monotonic() - _LIFETIME_RESENDS * self._settings.resend_seconds
        for name, alert in list(self._alerts.items()):
            if alert.ended_at is None or alert.unsent:
                continue
            receipts = list(self._receipts(name))
            ended_everywhere = len(receipts) == len(self._members) and not any(
                receipt.labels for receipt in receipts
            )
            if alert.ended_at < late or ended_everywhere:
                self._remove(name)

    def _remove(self, name: str) -> None:
        del self._alerts[name]
        for member in self._members:
            member.receipts.pop(name, None)

    async def _mark_all_sent(self) -> None:
        while True:
            await self._any_sent.wait()
            self._any_sent.clear()
            if sent := self._sent[:]:
                await asyncio.to_thread(self._mark_sent, sent)
                del self._sent[: len(sent)]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Last message about an alarm that an Alertmanager received.

    Attributes:
        version: version of the alert.
        labels: labels with which it fires; None once it has ended.
        at: monotonic time at which it was received, seconds.
    """

    version: int
    labels: dict[str, str] | None
    at: float


class Alert:
    """State of a pushed alarm, from its first `transition` on.

    Its version is the number of its last transition, counted from 1.
    """

    def __init__(self, transition: Transition) -> None:
        self.name = transition.alarm
        self.version = 0
        self.started_at = time.time()
        self.unsent: list[tuple[int, Transition]] = []
        """Versions and transitions that no member has received yet."""
        self.ended_at: float | None = None
        """Monotonic time of its end, seconds."""
        self.last_firing: Transition | None = None
        self._advance(transition)

    @property
    def ended(self) -> bool:
        """Whether the alarm has ended."""
        return self.last.state == "ended"

    def update(self, transition: Transition) -> None:
        """Apply the next transition."""
        if transition == self.last:
            return  # after a restart the last one comes twice: as unsent and as open
        if self.ended:
            self.started_at = time.time()  # the alarm recurs
        self._advance(transition)

    def _advance(self, transition: Transition) -> None:
        self.version += 1
        self.unsent.append((self.version, transition))
        self.last = transition
        if self.ended:
            self.ended_at = time.monotonic()
        else:
            self.ended_at = None
            self.last_firing = transition

    def pop_unsent(self, version: int) -> list[Transition]:
        """Remove and return the transitions up to `version` that no member had received until now."""
        popped = [transition for number, transition in self.unsent if number <= version]
        self.unsent = [(number, transition) for number, transition in self.unsent if number > version]
        return popped

    def next_step(self, receipt: Receipt | None, now: float, resend: float) -> PushStep:
        """Return what to send next, and when, to a member with `receipt`; firing alerts are sent again after
        `resend` seconds."""
        if not self.ended:
            repeats = receipt is not None and receipt.version == self.version
            due = receipt.at + resend if receipt is not None and repeats else now
            return PushStep(self, self.version, receipt, due, self.last)
        if receipt is None and self.last_firing is not None:
            # The alarm began and ended while this member was unreachable. If no member received it, it is
            # still sent: first the alert, then its end.
            return PushStep(self, self.version - 1, receipt, now if self.unsent else inf, self.last_firing)
        if receipt is None:
            return PushStep(self, self.version, receipt, now, None)
        due = inf if receipt.labels is None else receipt.at + _END_DELAY_S
        return PushStep(self, self.version, receipt, due, None)


@dataclass(frozen=True, slots=True)
class PushStep:
    """Next message about one alarm to one Alertmanager.

    Attributes:
        version: version of the alert that the member then has.
        receipt: last message that the member received.
        due: monotonic time at which to send it, seconds; infinite: never.
        firing: transition with which the alert fires; None: the alert ends.
    """

    alert: Alert
    version: int
    receipt: Receipt | None
    due: float
    firing: Transition | None

    @property
    def repeats(self) -> bool:
        """Whether the same version was sent before."""
        return self.receipt is not None and self.receipt.version == self.version

    def receipt_after(self, now: float) -> Receipt:
        """Return the receipt of the member after this message."""
        return Receipt(self.version, _labels(self.firing) if self.firing else None, now)

    def payload(self, lifetime: float, page: str | None) -> list[dict[str, Any]]:
        """Return the alerts for the API; firing ones end after `lifetime` seconds unless sent again."""
        now = time.time()
        received = self.receipt.labels if self.receipt else None
        alerts = []
        if self.firing is None or (received is not None and received != _labels(self.firing)):
            last = self.alert.last
            alerts.append(self._body(received or _labels(last), last, now, now, page))
        if self.firing is not None:
            alerts.append(self._body(_labels(self.firing), self.firing, now, now + lifetime, page))
        return alerts

    def _body(
        self, labels: dict[str, str], transition: Transition, now: float, end: float, page: str | None
    ) -> dict[str, Any]:
        body = {
            "labels": labels,
            "annotations": _annotations(transition),
            "startsAt": _iso_time(min(self.alert.started_at, now)),
            "endsAt": _iso_time(end),
        }
        return body | {"generatorURL": page} if page else body


@dataclass(eq=False, slots=True)
class _ClusterMember:
    """One Alertmanager of the cluster.

    Attributes:
        receipts: last message that it received, by alarm.
        changed: set when alarms have changed.
        failing: whether it refused the last request or did not answer.
    """

    url: str
    receipts: dict[str, Receipt] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    failing: bool = False
    retry_seconds: float = _FIRST_RETRY_S

    @property
    def host(self) -> str:
        """Host and port, without the path, which may contain a secret."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True, slots=True)
class _PushFailure:
    outcome: PushOutcome
    reason: str


def _report_failure(task: asyncio.Task[None]) -> None:
    # Nobody awaits these tasks, so without this an error in one would go unnoticed.
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "the push to Alertmanager stopped", "exception": error, "task": task}
        )


def _labels(transition: Transition) -> dict[str, str]:
    """Return the labels of an alert, which change only with its priority; `alarm` separates the episodes."""
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
        "why": _why_text(t),
        "onset": _iso_time(t.onset),
        "sample_time": _iso_time(t.time),
    }


def _why_text(transition: Transition) -> str:
    """Return the measured value with its limit, and the reason; the page and the journal have the beats."""
    why = transition.why
    parts = [measurement(transition.kind, transition.priority, why).text, str(why.get("reason") or "")]
    text = "; ".join(filter(None, parts))
    return label_value(text, _WHY_LENGTH) if text else ""


def _iso_time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # a device may send any number
        return str(seconds)
