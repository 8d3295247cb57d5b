"""A bed whose time is cranked by hand, two seconds at a time."""

from typing import Any

from monitors.alarms.events import AlarmKind, Observation, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.machine import acknowledge, step
from monitors.alarms.state import Alarm, AlarmState

START = 1_700_000_000.0
WELL: dict[str, Any] = {"heart_rate": 70.0, "silence": 0.5, "burden": 0.0}
NOISE: dict[str, Any] = {"good": False, "rhythm": False, "poor": ("I", "II")}
OFF: dict[str, Any] = {"good": False, "rhythm": False, "off": ("I", "II")}
STILL: dict[str, Any] = {"silence": 4.5}


RATES: dict[str, Any] = {
    "bradycardia": {"medium": 40, "high": 30, "delay": 4},
    "tachycardia": {"medium": 140, "high": 180},
}


class ScriptedBed:
    """The alarms of a bed at which the test says what is observed; limits of the heart rate are `RATES`.

    Attributes:
        log: every change so far.
    """

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits.model_validate(RATES | limits)
        self.state = AlarmState("bed")
        self.now = START
        self.log: list[Transition] = []

    def observe(self, seconds: float = 2.0, **values: Any) -> list[str]:
        """What changes while `values` are observed for so long: "kind change", in order. Where they say
        nothing of the signal, the rest is as in a patient who is well."""
        before = len(self.log)
        observed = values if "good" in values or "lost" in values else WELL | values
        for _ in range(round(seconds / 2)):
            self.now += 2
            self.state, changes = step(self.state, Observation(time=self.now, **observed), self.limits)
            self.log += changes
        return [f"{each.kind} {each.change}" for each in self.log[before:]]

    def acknowledge(self, kind: AlarmKind) -> list[str]:
        self.state, changes = acknowledge(self.state, self.alarm(kind).name, self.now)
        self.log += changes
        return [each.change for each in changes]

    def alarm(self, kind: AlarmKind) -> Alarm:
        """The alarm of `kind` that is open."""
        return self.state.open[kind]
