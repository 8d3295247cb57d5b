"""Order: the messages of one stream as they come, made into samples in order, each once, with the gaps known.

Time is counted by samples, because the stamps of messages jitter and RR intervals must not. But a device's
clock and its crystal differ by tens of ppm, seconds a day, so the count follows the stamps slowly.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genray.settings.base import Settings
from monitors.sources.message import MAX_SECONDS, Chunk

FAULTS: Final = {
    "reordered": "a message came after later ones, in time",
    "duplicate": "a message came again and was dropped",
    "late": "a message came after it had been given up, or of no plausible time, and was dropped",
    "gap": "one or more messages in a row never came",
    "overlap": "samples that the message before had already were cut off",
    "clock-jump": "time and count of messages disagree",
    "sender-restart": "the sender counts from anew",
    "format-change": "other leads, gains or rate",
}
"""What is counted, and what it means."""

_REMEMBERED: Final = 64  # messages; one that is further back is not waited for by anybody
_LEAST_OVERLAP: Final = 8  # fewer samples are equal by chance
_MOST_MISSING: Final = 86_400.0  # seconds; a longer gap is a clock that is wrong


class SequencerSettings(Settings):
    """Settings of the order of messages."""

    window: int = Field(
        3, ge=0, le=100, description="messages that may overtake one before it is given up; 0: none"
    )
    window_seconds: float = Field(
        3.0, ge=0, le=60, description="of samples that may be held back for one that is missing"
    )
    tolerance: float = Field(
        0.5, gt=0, le=10, description="seconds that a message's time may be off; more is a jump of the clock"
    )
    settle: float = Field(
        60.0, ge=1, le=3600, description="seconds of samples in which the counted time follows the stamps"
    )
    patience: int = Field(
        3, ge=1, le=100, description="messages in a row of an earlier time after which they are believed"
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


class Sequencer:
    """Orders the chunks of one stream. It holds at most `window` chunks, and looks at no clock.

    Attributes:
        faults: how often what of `FAULTS` happened since it was made.
    """

    def __init__(self, settings: SequencerSettings) -> None:
        self.faults: Counter[str] = Counter()
        self._settings = settings
        self._held: dict[int, Chunk] = {}
        self._passed = 0  # messages that came in order while any was held
        self._last: Chunk | None = None  # its start is the counted time
        self._tail: NDArray[np.int16] | None = None  # the samples of the last message, uncut
        self._next = 0
        self._first = 0  # of the count that goes on
        # Sequence, start as it was sent, and checksum: a device without a clock has all but that again.
        self._recent: deque[tuple[int, float, int]] = deque(maxlen=_REMEMBERED)
        self._doubted: int | None = None
        self._doubts = 0

    @property
    def held(self) -> int:
        """Chunks that wait for an earlier one."""
        return len(self._held)

    def push(self, chunk: Chunk) -> list[Ordered]:
        """What is known to follow now that `chunk` came: nothing, it, or several."""
        last, sequence = self._last, chunk.sequence
        if last is None:
            return self._accept(chunk)
        if sequence == self._next:
            self._doubted = None
            result = self._accept(chunk)
            if self._held:
                if self._next in self._held:
                    self.faults["reordered"] += 1
                self._follow(result)
            return result
        early = chunk.start < last.end - self._settings.tolerance
        if sequence > self._next:
            return self._doubt(chunk) if early else self._hold(chunk)
        if (sequence, chunk.start, _checksum(chunk)) in self._recent:
            self.faults["duplicate"] += 1
            return []
        if not early and chunk.start >= last.start:
            # A count that falls back while time goes on is a sender that was started again.
            return [*self.flush(), *self._accept(chunk)]
        if self._missed(chunk):
            self.faults["late"] += 1
            return []
        return self._doubt(chunk)

    def flush(self) -> list[Ordered]:
        """All that is held back, in order: for when nothing came for some time."""
        result: list[Ordered] = []
        while self._held:
            result += self._give_up()
        return result

    def _hold(self, chunk: Chunk) -> list[Ordered]:
        self._doubted = None
        if chunk.sequence in self._held:  # the later one is no worse
            self.faults["duplicate"] += 1
        self._held[chunk.sequence] = chunk
        result: list[Ordered] = []
        while self._held and (
            len(self._held) > self._settings.window
            or sum(len(each.samples) / each.rate for each in self._held.values())
            > self._settings.window_seconds
        ):
            result += self._give_up()
        return result

    def _give_up(self) -> list[Ordered]:
        """Wait no longer for what is missing before the first that is held."""
        result = self._accept(self._held.pop(min(self._held)))
        self._follow(result)
        return result

    def _follow(self, result: list[Ordered]) -> None:
        """Add to `result` what is held and comes next."""
        while self._next in self._held:
            result += self._accept(self._held.pop(self._next))
        # One that nothing leads up to was sent before a restart, or is mad. It must not wait for ever.
        self._passed = self._passed + 1 if self._held else 0
        if self._passed > 2 * self._settings.window:
            for sequence in [each for each in self._held if each > self._next + self._settings.window]:
                del self._held[sequence]
                self.faults["late"] += 1

    def _missed(self, chunk: Chunk) -> bool:
        """Whether `chunk`, of an earlier count, is one that was not there, lately. A device without a clock
        that starts again sends counts and times that were there, with other samples."""
        if not self._recent or self._next - chunk.sequence > _REMEMBERED:
            return False
        before = [each for each in self._recent if each[0] < chunk.sequence]
        after = [each for each in self._recent if each[0] > chunk.sequence]
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
        last, tail = self._last, self._tail
        skipped = chunk.sequence - self._next
        self._next = chunk.sequence + 1
        self._last, self._tail = chunk, chunk.samples
        if skipped < 0:
            self._recent.clear()
        if not self._recent:
            self._first = chunk.sequence
        self._recent.append((chunk.sequence, chunk.start, _checksum(chunk)))
        if last is None or tail is None:
            return [Ordered(chunk, 0.0, False)]
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
        cut = _overlap(tail, chunk, -error, surely=error < -self._settings.tolerance) if same else 0
        if cut:
            self.faults["overlap"] += 1
            if cut == len(chunk.samples):
                self._last, self._tail = last, tail
                return []
            self._last = replace(chunk, start=expected, samples=chunk.samples[cut:])
        elif abs(error) > self._settings.tolerance:
            self.faults["clock-jump"] += 1
            # The time says nothing then: at least one message of this length is missing, if any is.
            return [Ordered(chunk, (skipped > 0) * len(chunk.samples) / chunk.rate, True)]
        else:
            share = min(1.0, len(chunk.samples) / chunk.rate / self._settings.settle)
            self._last = replace(chunk, start=expected + error * share)
        return [Ordered(self._last, 0.0, restarted)]


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
