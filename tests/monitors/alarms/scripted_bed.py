"""A bed whose time is cranked by hand, two seconds at a time."""

from typing import Any

from monitors.alarms.events import AlarmKind, Observation, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.machine import acknowledge, step
from monitors.alarms.state import Alarm, AlarmState

START = 1_700_000_000.0
WELL: dict[str, Any] = {"heart_rate": 70.0, "silence": 0.5, "burden": 0.0}
NOISE: dict[str, Any] = {"good": False, "poor": ("I", "II")}
OFF: dict[str, Any] = {"good": False, "off": ("I", "II")}
STILL: dict[str, Any] = {"silence": 4.5}


class Bed:
    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.state = AlarmState("bed")
        self.now = START
        self.log: list[Transition] = []

    def see(self, seconds: float = 2.0, **seen: Any) -> list[str]:
        """What changes while `seen` is observed for so long: "kind change", in order."""
        before = len(self.log)
        for _ in range(round(seconds / 2)):
            self.now += 2
            what = seen if "good" in seen or "lost" in seen else WELL | seen
            self.state, new = step(self.state, Observation(time=self.now, **what), self.limits)
            self.log += new
        return [f"{each.kind} {each.change}" for each in self.log[before:]]

    def look(self, kind: AlarmKind) -> list[str]:
        self.state, new = acknowledge(self.state, self.alarm(kind).name, self.now)
        self.log += new
        return [each.change for each in new]

    def alarm(self, kind: AlarmKind) -> Alarm:
        return self.state.open[kind]
