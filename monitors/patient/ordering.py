"""Order of the messages of one stream: each sample once, with the gaps between them known.

Sample times are counted by the sampling rate, as the time stamps of messages jitter and RR intervals must
not. But the clock of a device and its sampling crystal differ by tens of ppm, seconds per day, so the counted
time follows the time stamps slowly.
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
    "reordered",  # a message arrived after later ones, but early enough to be used
    "duplicate",  # a message arrived again and was dropped
    "late",  # a message arrived after it had been given up, or with an implausible time, and was dropped
    "gap",  # one or more successive messages never arrived
    "overlap",  # samples that the message before contained already were cut off
    "clock-jump",  # time stamp and sequence number disagree
    "sender-restart",  # the sender counts from the beginning again
    "format-change",  # the leads, gains or sampling rate changed
]
"""Faults that are counted: reasons in a metric."""

_REMEMBERED: Final = 64  # last messages that are remembered; a message further back is not expected any more
_LEAST_OVERLAP: Final = 8  # samples; fewer may be equal by chance
_MOST_MISSING: Final = 86_400.0  # seconds; a longer gap means that the clock is wrong


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
    """A chunk in its order; its `start` is the counted time.

    Attributes:
        chunk: the next samples.
        missing: seconds of samples that are missing right before it.
        restarted: whether it does not continue the one before: other leads, gains, rate or time.
    """

    chunk: Chunk
    missing: float
    restarted: bool


class _Sent(NamedTuple):
    """Identity of a message that was passed on. After a restart, a device without a clock repeats all of it
    except the checksum."""

    sequence: int
    start: float
    checksum: int


class _Previous(NamedTuple):
    """The last message that was passed on, with the counted time as its start; and its samples, uncut."""

    chunk: Chunk
    sent_samples: NDArray[np.int16]


class Sequencer:
    """Orders the chunks of one stream. It holds back at most `window` chunks and uses no clock.

    It is responsible for
    - waiting for messages that others overtook, and giving them up in time;
    - dropping messages that are repeated, late or have an implausible time;
    - noticing when the sender restarted or its clock was set;
    - counting the time of the samples, with the gaps between them.

    It leaves cutting into hops to `HopQueue`, and the time without any message to the ward, which calls
    `flush`.

    Attributes:
        faults: number of faults of each kind since it was created.
    """

    def __init__(self, settings: SequencerSettings) -> None:
        self.faults: Counter[OrderFault] = Counter()
        self._settings = settings
        self._held: dict[int, Chunk] = {}
        self._passed = 0  # messages that arrived in order while any was held back
        self._previous: _Previous | None = None
        self._next = 0
        self._first = 0  # first sequence number of the current count
        self._recent: deque[_Sent] = deque(maxlen=_REMEMBERED)
        self._doubted: int | None = None
        self._doubts = 0

    @property
    def held(self) -> int:
        """Number of chunks that wait for an earlier one."""
        return len(self._held)

    def push(self, chunk: Chunk) -> list[Ordered]:
        """Add `chunk`; return the chunks whose order is known now: none, one or several."""
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
            # A count that falls back while the time continues means that the sender restarted.
            return [*self.flush(), *self._accept(chunk)]
        if self._was_missing(chunk):
            self.faults["late"] += 1
            return []
        return self._doubt(chunk)

    def flush(self) -> list[Ordered]:
        """Return all chunks that are held back, in order; for a stream without messages for some time."""
        result: list[Ordered] = []
        while self._held:
            result += self._release_first()
        return result

    def _hold(self, chunk: Chunk) -> list[Ordered]:
        """Hold back a chunk until those before it have arrived; return what was held back too long."""
        self._doubted = None
        if chunk.sequence in self._held:  # the later one replaces the earlier
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
        """Give up what is missing before the first chunk that is held back, and return what follows."""
        result = self._accept(self._held.pop(min(self._held)))
        self._release_following(result)
        return result

    def _release_following(self, result: list[Ordered]) -> None:
        """Append the held chunks that come next to `result`."""
        while self._next in self._held:
            result += self._accept(self._held.pop(self._next))
        # A held chunk that nothing leads up to is from before a restart or corrupt. It must not wait for
        # ever.
        self._passed = self._passed + 1 if self._held else 0
        if self._passed > 2 * self._settings.window:
            for sequence in [held for held in self._held if held > self._next + self._settings.window]:
                del self._held[sequence]
                self.faults["late"] += 1

    def _was_missing(self, chunk: Chunk) -> bool:
        """Whether `chunk`, with an earlier count, fills a recent gap. After a restart, a device without a
        clock sends counts and times that were used before, with other samples."""
        if not self._recent or self._next - chunk.sequence > _REMEMBERED:
            return False
        before = [sent for sent in self._recent if sent.sequence < chunk.sequence]
        after = [sent for sent in self._recent if sent.sequence > chunk.sequence]
        if len(before) + len(after) < len(self._recent):
            return False
        # Its time must match its count. Otherwise one message with a corrupt count and time would make all
        # later ones look late.
        seconds = len(chunk.samples) / chunk.rate
        last, end, _ = after[0]
        if not before and chunk.sequence >= self._first:
            return False
        first, start, _ = before[-1] if before else (last - 1, end - seconds, 0)
        expected = end - (end - start) * (last - chunk.sequence) / (last - first)
        return abs(chunk.start - expected) <= self._settings.tolerance + seconds

    def _doubt(self, chunk: Chunk) -> list[Ordered]:
        """Drop a chunk with an earlier time; but `patience` successive ones mean that the clock was set
        back."""
        self._doubts = self._doubts + 1 if chunk.sequence - 1 == self._doubted else 1
        self._doubted = chunk.sequence
        if self._doubts < self._settings.patience:
            self.faults["late"] += 1
            return []
        self._doubted = None
        return [*self.flush(), *self._accept(chunk)]

    def _accept(self, chunk: Chunk) -> list[Ordered]:
        """Return `chunk` as the next one, whatever its count and time."""
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
        """Return `chunk` on the counted time, without samples that `previous` contains too; nothing if all of
        its samples are repeated.

        Args:
            skipped: number of messages that the count jumped over; negative: it fell back.
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
            # The time is no measure then: if messages are missing, it is at least one of this length.
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
    """Return the most seconds of samples in `skipped` messages; negative: their number is unknown."""
    return min(skipped * MAX_SECONDS, _MOST_MISSING) if skipped > 0 else _MOST_MISSING


def _overlap(tail: NDArray[np.int16], chunk: Chunk, seconds: float, *, surely: bool) -> int:
    """Return how many of the first samples of `chunk` repeat the end of `tail`; 0: the time only jitters.

    Args:
        seconds: seconds by which `chunk` begins before the end of `tail`.
        surely: whether that is more than jitter can be, so that a flat line counts as repeated too.
    """
    count = round(seconds * chunk.rate)
    if not _LEAST_OVERLAP <= count <= len(tail):
        return 0
    again = tail[len(tail) - count :][: len(chunk.samples)]
    first = chunk.samples[: len(again)]
    if not np.array_equal(again, first) or not (surely or np.ptp(first)):
        return 0
    return len(again)
