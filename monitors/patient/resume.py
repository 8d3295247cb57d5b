"""Resumption of streams after a restart, as if the monitor had not stopped.

A source resumes some time before the last samples that were analysed. The repeated samples fill the state of
detectors and rhythm, while the alarms stay as they were saved; from the first new sample on, alarms change.
So an alarm gets the name that it would have had, and no alarm is announced twice.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from genray.errors import GenrayError
from monitors.alarms.events import Transition
from monitors.alarms.state import AlarmState, Track, restore
from monitors.patient.bed import Bed

WARM_UP = 40.0
"""Seconds of samples that are repeated: enough for the 20 beats of a burden at a heart rate of 30/min."""

_SAME_HOP = 0.1  # s; hops are longer
_MOST = 300.0  # s of samples that can be repeated; an earlier time means that the clock was set


@dataclass(frozen=True, slots=True)
class SavedState:
    """State of a stream at the last save.

    Attributes:
        alarms: alarm state.
        recent: whether each of the last beats was anomalous.
    """

    alarms: AlarmState
    recent: tuple[bool, ...] = ()

    @classmethod
    def of(cls, bed: Bed) -> SavedState:
        """Return the state of `bed` as of now."""
        return cls(bed.alarms, tuple(bed.recent_anomalous))

    def as_bytes(self) -> bytes:
        """Return the state as JSON, from which `from_bytes` restores it."""
        recent = "".join(str(int(anomalous)) for anomalous in self.recent)
        return json.dumps({**self.alarms.to_json(), "recent": recent}).encode()

    @classmethod
    def from_bytes(cls, stream: str, data: bytes) -> SavedState | None:
        """Restore the state of `stream`; None if `data` is damaged or of another stream."""
        try:
            values = json.loads(data)
            recent = str(values.pop("recent", ""))
            alarms = AlarmState.from_json(values)
        except (GenrayError, ValueError, AttributeError, TypeError):
            return None
        return cls(alarms, tuple(digit == "1" for digit in recent)) if alarms.stream == stream else None


@dataclass
class _ResumedStream:
    """A stream that resumes.

    Attributes:
        last: unix time of its last repeated hop, seconds; None: its hops are new by now.
        later: open alarms that changed after its state was saved.
        recent: whether each of the last beats was anomalous when its state was saved.
        restored: whether the last repeated hop was reached, after which `recent` and the reference hold.
    """

    last: float | None
    later: list[Transition]
    recent: tuple[bool, ...]
    restored: bool = False

    def restore(self, bed: Bed, reference: bytes | None) -> None:
        """Bring `bed` to what was saved, as its reference and burden followed the repeated samples."""
        if not self.restored:
            self.restored = True
            bed.recent_anomalous = deque(self.recent)
            if reference:
                bed.reference.restore(reference)


class Resumption:
    """Brings the streams of a ward to their state before a restart, while samples are repeated.

    It is responsible for the alarms with which a stream begins, for telling repeated hops from new ones, and
    for alarms that changed after the last save. It leaves references to the ward, and saving to the monitor.

    Args:
        alarms: last transition of each alarm that is open in the journal.
        states: state of each stream at the last save; a stream without one is repeated from its
            beginning. None: no samples are repeated, so streams use only `alarms`.
    """

    def __init__(
        self, alarms: Sequence[Transition] = (), states: Mapping[str, SavedState] | None = None
    ) -> None:
        self._open: dict[str, list[Transition]] = {}
        for transition in alarms:
            self._open.setdefault(transition.stream, []).append(transition)
        self._states = None if states is None else dict(states)
        self._resumed: dict[str, _ResumedStream] = {}

    @classmethod
    def from_saved(cls, alarms: Sequence[Transition], states: Mapping[str, bytes] | None) -> Resumption:
        """Return a resumption from states saved by `Ward.saved_beds`; damaged ones are ignored."""
        if states is None:
            return cls(alarms)
        decoded = {stream: SavedState.from_bytes(stream, data) for stream, data in states.items()}
        return cls(alarms, {stream: state for stream, state in decoded.items() if state})

    def begin(self, stream: str) -> AlarmState:
        """Return the alarm state with which a stream begins."""
        opened = self._open.pop(stream, [])
        if self._states is None:
            return restore(stream, opened) if opened else AlarmState(stream)
        saved = self._states.pop(stream, SavedState(AlarmState(stream)))
        state = saved.alarms
        later = [each for each in opened if state.time is None or each.time > state.time]
        last = None if state.time is None else state.time - _MOST
        if later or last is not None:
            self._resumed[stream] = _ResumedStream(last, later, saved.recent)
        return state

    def forget(self, stream: str) -> None:
        """Delete the state of `stream`, as its next data is from another patient."""
        self._open.pop(stream, None)
        self._resumed.pop(stream, None)
        if self._states is not None:
            self._states.pop(stream, None)

    def is_repeating(self, stream: str) -> bool:
        """Whether the samples of `stream` are those that were analysed before the restart."""
        resumed = self._resumed.get(stream)
        return resumed is not None and resumed.last is not None

    def is_repeated(self, bed: Bed, references: Mapping[str, bytes]) -> bool:
        """Whether the hop of `bed` was analysed before the restart. A clock that was set back does not count
        as that, as no patient may go unmonitored because of it. At the first new hop, if not before, the bed
        is brought to its saved state, with the reference in `references`."""
        resumed = self._resumed.get(bed.stream)
        if resumed is None or resumed.last is None:
            return False
        assert bed.alarms.time is not None
        if resumed.last < bed.end_time <= bed.alarms.time:
            resumed.last = bed.end_time
            return True
        resumed.last = None
        resumed.restore(bed, references.get(bed.stream))
        return False

    def end_repeated_hop(self, bed: Bed, references: Mapping[str, bytes]) -> None:
        """Bring `bed` to its saved state if the hop that was just observed is the last repeated one."""
        resumed = self._resumed[bed.stream]
        assert bed.alarms.time is not None
        if bed.end_time > bed.alarms.time - _SAME_HOP:
            resumed.restore(bed, references.get(bed.stream))

    def join_later_alarms(self, bed: Bed) -> list[Transition]:
        """Add to `bed` the alarms that only the journal contains, once their time is reached; return the end
        of those that continue under another name."""
        resumed = self._resumed.get(bed.stream)
        if resumed is None:
            return []
        due = [opened for opened in resumed.later if opened.time < bed.end_time]
        resumed.later = [opened for opened in resumed.later if opened.time >= bed.end_time]
        ended = [replaced for opened in due if (replaced := _join(bed, opened))]
        if not resumed.later:
            del self._resumed[bed.stream]
        return ended


def _join(bed: Bed, opened: Transition) -> Transition | None:
    """Add to `bed` an alarm that changed after its state was saved; return the end of that alarm if the bed
    has another one of its kind."""
    state = bed.alarms
    alarm = state.open.get(opened.kind)
    if alarm is None:
        track = restore(state.stream, [opened]).tracks[opened.kind]
        bed.alarms = replace(state, tracks={**state.tracks, opened.kind: track})
    elif alarm.name != opened.alarm:
        # Its onset was at another moment this time. Only one alarm of a kind may be open, so the older one
        # ends.
        return replace(opened, change="ended", state="ended", why={"reason": f"continued as {alarm.name}"})
    elif opened.state == "acknowledged" and alarm.state != "acknowledged":
        acknowledged = replace(alarm, state="acknowledged", changed=opened.time)
        track = Track(state.tracks[opened.kind].timer, acknowledged)
        bed.alarms = replace(state, tracks={**state.tracks, opened.kind: track})
    return None
