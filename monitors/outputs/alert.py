"""An alarm as an alert of Alertmanager, and what the next step is with one that was told of it before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

from monitors.alarms.events import Transition
from monitors.outputs.metrics_text import label_value

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

    def step(self, told: Told | None, now: float, resend: float) -> Step:
        """What to send next, and when, to one that was `told` this."""
        if not self.ended:
            fresh = told is not None and told.version == self.version
            return Step(self, self.version, told, told.at + resend if told and fresh else now, self.last)
        if told is None and self.firing is not None:
            # It began and ended while this one was away. If nobody was told, it is told even so: first of
            # the one, then of the other.
            return Step(self, self.version - 1, told, now if self.owed else inf, self.firing)
        if told is not None and told.labels is None:
            return Step(self, self.version, told, inf, None)
        return Step(self, self.version, told, told.at + _HELD_S if told else now, None)


@dataclass(frozen=True, slots=True)
class Step:
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
