"""Changes of one alarm, from its onset to its end."""

from __future__ import annotations

from dataclasses import replace

from monitors.alarms.events import Transition

ONSET = Transition(
    alarm="bed-1 asystole 1000000",
    stream="bed-1",
    kind="asystole",
    category="physiological",
    priority="high",
    change="onset",
    state="active",
    time=1004.0,
    onset=1000.0,
    why={"measured": {"silence": 4.2, "beats": [998.1, 999.0]}, "since": 996.0, "reason": "no beat"},
)
LATCHED = replace(ONSET, change="latched", state="latched", time=1010.0)
ENDED = replace(ONSET, change="ended", state="ended", time=1020.0)


def numbered(number: int) -> Transition:
    """The onset of another alarm for each number, a second later each."""
    return replace(ONSET, alarm=f"a{number}", time=1000.0 + number)
