"""The messages of one stream as they come, put into order: samples each once, with the gaps known.

Time is counted by samples, because the stamps of messages jitter and RR intervals must not. But a device's
clock and its crystal differ by tens of ppm, seconds a day, so the count follows the stamps slowly.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Final, Literal, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genray.settings.base import Settings
from monitors.sources.message import MAX_SECONDS, Chunk

OrderFault = Literal[
    "reordered",  # a message came after later ones, in time
    "duplicate",  # a message came again and was dropped
    "late",  # a message came after it had been given up, or of no plausible time, and was dropped
    "gap",  # one or more messages in a row never came
    "overlap",  # samples that the message before had already were cut off
    "clock-jump",  # time and count of messages disagree
    "sender-restart",  # the sender counts from anew
    "format-change",  # other leads, gains or rate
]
"""What is counted: reasons in a metric."""

_REMEMBERED: Final = 64  # messages; one that is further back is not waited for by anybody
_LEAST_OVERLAP: Final = 8  # fewer samples are equal by chance
_MOST_MISSING: Final = 86_400.0  # seconds; a longer gap is a clock that is wrong


class SequencerSettings(Settings):
    """Settings of the order of messages, gaps and device clocks."""

    window: int = Field(
        3, ge=0, le=100, description="messages that may overtake a missing one before it is given up"
    )
    window_seconds: float = Field(
        3.0, ge=0, le=60, description="seconds of samples that may be held back for a missing message"
    )
    tolerance: float = Field(
        0.5, gt=0, le=10, description="seconds by which a time stamp may be off (more is a clock jump)"
    )
    settle: float = Field(
        60.0,
        ge=1,
        le=3600,
        description="time constant in seconds with which the sample time follows the time stamps",
    )
    patience: int = Field(
        3,
        ge=1,
        le=100,
        description="number of successive messages with an earlier time after which that time is accepted",
    )


class Ordered(NamedTuple):
    """A chunk whose turn it is; its `start` is the counted time.

    Attributes:
        chunk: the next samples.
        missing: seconds of samples that are missing right before it.
        restarted: whether it does not continue what came before: other leads, gains, rate or time.
    """

    chunk: Chunk
    missing: float
    restarted: bool


class _Sent(NamedTuple):
    """What a message that was passed on was sent with. A device without a clock that starts again has all of
    it again but the checksum."""

    sequence: int
    start: float
    checksum: int


class _Previous(NamedTuple):
    """The message that was passed on last, with the counted time as its start; and its samples, uncut."""

    chunk: Chunk
    sent_samples: NDArray[np.int16]


class Sequencer:
    """Orders the chunks of one stream. It holds at most `window` chunks, and looks at no clock.

    It is responsible for
    - waiting for messages that others overtook, and giving them up in time;
    - dropping what came before, or with a time that cannot be;
    - noticing when the sender was started again or its clock was set;
    - counting the time of the samples, with the gaps between them.

    Attributes:
        faults: how often each happened since it was made.
    """

    def __init__(self, settings: SequencerSettings) -> None:
        self.faults: Counter[OrderFault] = Counter()
        self._settings = settings
        self._held: dict[int, Chunk] = {}
        self._passed = 0  # messages that came in order while any was held
        self._previous: _Previous | None = None
        self._next = 0
        self._first = 0  # of the count that goes on
        self._recent: deque[_Sent] = deque(maxlen=_REMEMBERED)
        self._doubted: int | None = None
        self._doubts = 0

    @property
    def held(self) -> int:
        """Chunks that wait for an earlier one."""
        return len(self._held)

    def push(self, chunk: Chunk) -> list[Ordered]:
        """What is known to follow now that `chunk` came: nothing, it, or several."""
        if self._previous is None:
            return self._accept(chunk)
        sequence, previous = chunk.sequence, self._previous.chunk
        if sequence == self._next:
            self._doubted = None
            result = self._accept(chunk)
            if self._held:
                if self._next in self._held:
                    self.faults["reordered"] += 1
                self._release_following(result)
            return result
        early = chunk.start < previous.end - self._settings.tolerance
        if sequence > self._next:
            return self._doubt(chunk) if early else self._hold(chunk)
        if (sequence, chunk.start, _checksum(chunk)) in self._recent:
            self.faults["duplicate"] += 1
            return []
        if not early and chunk.start >= previous.start:
            # A count that falls back while time goes on is a sender that was started again.
            return [*self.flush(), *self._accept(chunk)]
        if self._was_missing(chunk):
            self.faults["late"] += 1
            return []
        return self._doubt(chunk)

    def flush(self) -> list[Ordered]:
        """All that is held back, in order: for when nothing came for some time."""
        result: list[Ordered] = []
        while self._held:
            result += self._release_first()
        return result

    def _hold(self, chunk: Chunk) -> list[Ordered]:
        """Keep a chunk until those before it have come, and what is held too long no longer."""
        self._doubted = None
        if chunk.sequence in self._held:  # the later one is no worse
            self.faults["duplicate"] += 1
        self._held[chunk.sequence] = chunk
        result: list[Ordered] = []
        while self._held and self._holds_too_much():
            result += self._release_first()
        return result

    def _holds_too_much(self) -> bool:
        if len(self._held) > self._settings.window:
            return True
        seconds = sum(len(chunk.samples) / chunk.rate for chunk in self._held.values())
        return seconds > self._settings.window_seconds

    def _release_first(self) -> list[Ordered]:
        """Wait no longer for what is missing before the first that is held."""
        result = self._accept(self._held.pop(min(self._held)))
        self._release_following(result)
        return result

    def _release_following(self, result: list[Ordered]) -> None:
        """Add to `result` what is held and comes next."""
        while self._next in self._held:
            result += self._accept(self._held.pop(self._next))
        # One that nothing leads up to was sent before a restart, or is mad. It must not wait for ever.
        self._passed = self._passed + 1 if self._held else 0
        if self._passed > 2 * self._settings.window:
            for sequence in [held for held in self._held if held > self._next + self._settings.window]:
                del self._held[sequence]
                self.faults["late"] += 1

    def _was_missing(self, chunk: Chunk) -> bool:
        """Whether `chunk`, of an earlier count, is one that was not there, lately. A device without a clock
        that starts again sends counts and times that were there, with other samples."""
        if not self._recent or self._next - chunk.sequence > _REMEMBERED:
            return False
        before = [sent for sent in self._recent if sent.sequence < chunk.sequence]
        after = [sent for sent in self._recent if sent.sequence > chunk.sequence]
        if len(before) + len(after) < len(self._recent):
            return False
        # Its time must lie where its count does. One message of a mad count and time would otherwise
        # make all that follow look late.
        seconds = len(chunk.samples) / chunk.rate
        last, end, _ = after[0]
        if not before and chunk.sequence >= self._first:
            return False
        first, start, _ = before[-1] if before else (last - 1, end - seconds, 0)
        expected = end - (end - start) * (last - chunk.sequence) / (last - first)
        return abs(chunk.start - expected) <= self._settings.tolerance + seconds

    def _doubt(self, chunk: Chunk) -> list[Ordered]:
        """Drop a chunk of a time that has been; but several in a row are a clock that was set back."""
        self._doubts = self._doubts + 1 if chunk.sequence - 1 == self._doubted else 1
        self._doubted = chunk.sequence
        if self._doubts < self._settings.patience:
            self.faults["late"] += 1
            return []
        self._doubted = None
        return [*self.flush(), *self._accept(chunk)]

    def _accept(self, chunk: Chunk) -> list[Ordered]:
        """`chunk` comes next, whatever its count and time."""
        previous = self._previous
        skipped = chunk.sequence - self._next
        self._next = chunk.sequence + 1
        self._previous = _Previous(chunk, chunk.samples)
        if skipped < 0:
            self._recent.clear()
        if not self._recent:
            self._first = chunk.sequence
        self._recent.append(_Sent(chunk.sequence, chunk.start, _checksum(chunk)))
        if previous is None:
            return [Ordered(chunk, 0.0, False)]
        return self._join(previous, chunk, skipped)

    def _join(self, previous: _Previous, chunk: Chunk, skipped: int) -> list[Ordered]:
        """`chunk` after `previous`, on the counted time and without samples that both have; nothing if it has
        no others.

        Args:
            skipped: by how many messages the count jumped; below 0: it fell back.
        """
        last = previous.chunk
        expected = last.start + len(last.samples) / last.rate
        error = chunk.start - expected
        same = chunk.leads == last.leads and chunk.gains == last.gains and chunk.rate == last.rate
        if same and not skipped and -1e-6 < error < 1e-6:
            return [Ordered(chunk, 0.0, False)]
        if skipped:
            self.faults["gap" if skipped > 0 else "sender-restart"] += 1
        if not same:
            self.faults["format-change"] += 1
        restarted = skipped < 0 or not same
        if skipped and 0.5 / chunk.rate < error <= _most_missing(skipped) + self._settings.tolerance:
            return [Ordered(chunk, error, restarted)]
        surely = error < -self._settings.tolerance
        cut = _overlap(previous.sent_samples, chunk, -error, surely=surely) if same else 0
        if cut:
            self.faults["overlap"] += 1
            if cut == len(chunk.samples):
                self._previous = previous
                return []
            joined = replace(chunk, start=expected, samples=chunk.samples[cut:])
        elif abs(error) > self._settings.tolerance:
            self.faults["clock-jump"] += 1
            # The time says nothing then: at least one message of this length is missing, if any is.
            missing = len(chunk.samples) / chunk.rate if skipped > 0 else 0.0
            return [Ordered(chunk, missing, True)]
        else:
            share = min(1.0, len(chunk.samples) / chunk.rate / self._settings.settle)
            joined = replace(chunk, start=expected + error * share)
        self._previous = _Previous(joined, chunk.samples)
        return [Ordered(joined, 0.0, restarted)]


def _checksum(chunk: Chunk) -> int:
    return crc32(chunk.samples.tobytes())


def _most_missing(skipped: int) -> float:
    """Seconds of samples that can be in `skipped` messages; less than 0: nobody knows how many."""
    return min(skipped * MAX_SECONDS, _MOST_MISSING) if skipped > 0 else _MOST_MISSING


def _overlap(tail: NDArray[np.int16], chunk: Chunk, seconds: float, *, surely: bool) -> int:
    """How many of the first samples of `chunk` are those at the end of `tail`, 0 if its time is just jitter.

    Args:
        seconds: by how much `chunk` begins before the end of `tail`.
        surely: that it is more than jitter can be, so that a flat line will do.
    """
    count = round(seconds * chunk.rate)
    if not _LEAST_OVERLAP <= count <= len(tail):
        return 0
    again = tail[len(tail) - count :][: len(chunk.samples)]
    first = chunk.samples[: len(again)]
    if not np.array_equal(again, first) or not (surely or np.ptp(first)):
        return 0
    return len(again)
