"""Newcomers: streams that a live source sends for the first time, before they get a bed.

A sender with ever new names, broken or hostile, would otherwise fill the ward with beds that raise an alarm
for their lost stream and are discharged an hour later. A bed costs a second message: the first one waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace

from monitors.sources.message import Chunk

_MOST_NAMES = 65_536  # two minutes of 500 new names per second
_MOST_BYTES = 32 * 1024 * 1024  # of first messages that wait
_PATIENCE_S = 60.0  # until the second message


class Newcomers:
    """Streams of which one message has arrived, and the places that are kept for streams known before.

    It is responsible for telling streams from names that occur once, within limits on names and bytes, and
    for places of a ward that streams known from before a restart have not taken yet. It leaves beds to
    `Ward`.

    Args:
        known: streams that were monitored before a restart, or of which a state is saved: they wait for
            nothing.
        expected: those of `known` that were monitored when the monitor stopped: each keeps a place.
        shares: number of shards among which they are divided; which shard has which is not known.
        keep_until: monotonic time until which places are kept, seconds.
    """

    def __init__(
        self, known: Collection[str], expected: Collection[str], shares: int, keep_until: float
    ) -> None:
        self._known = frozenset(known) | frozenset(expected)
        self._absent = set(expected)
        self._shares = shares
        self._keep_until = keep_until
        self._first: OrderedDict[str, Chunk] = OrderedDict()
        self._bytes = 0
        self._named_once = 0

    def admitted(self, chunk: Chunk, now: float) -> list[Chunk]:
        """Return what to push for `chunk` of a stream without a bed, at the monotonic time `now`: with the
        second message of a stream both, with its first nothing."""
        if chunk.stream in self._known:
            self._absent.discard(chunk.stream)
            return [chunk]
        first = self._first.pop(chunk.stream, None)
        if first is not None:
            self._bytes -= first.samples.nbytes
            if (first.sequence, first.start) != (chunk.sequence, chunk.start):
                return [first, chunk] if len(first.samples) else [chunk]
        self._first[chunk.stream] = replace(chunk, received=now)
        self._bytes += chunk.samples.nbytes
        self._forget_old(now)
        self._free_bytes()
        return []

    def knows(self, stream: str) -> bool:
        """Whether `stream` was known before a restart."""
        return stream in self._known

    def kept_places(self, now: float) -> int:
        """Return the number of places that are kept for known streams that have not arrived."""
        return -(-len(self._absent) // self._shares) if now < self._keep_until else 0

    def pop_named_once(self, now: float) -> int:
        """Return how many names did not come a second time, since it was last asked."""
        self._forget_old(now)
        count = self._named_once
        self._named_once = 0
        return count

    def _forget_old(self, now: float) -> None:
        """Forget names that wait too long, and the oldest of too many."""
        while self._first:
            oldest = next(iter(self._first.values()))
            if len(self._first) <= _MOST_NAMES and now - oldest.received <= _PATIENCE_S:
                return
            del self._first[oldest.stream]
            self._bytes -= oldest.samples.nbytes
            self._named_once += 1

    def _free_bytes(self) -> None:
        """Drop the samples of the oldest messages, so that their names still count, while there are too
        many."""
        if self._bytes <= _MOST_BYTES:
            return
        for stream, chunk in self._first.items():
            if len(chunk.samples):
                self._bytes -= chunk.samples.nbytes
                self._first[stream] = replace(chunk, samples=chunk.samples[:0].copy())
                if self._bytes <= _MOST_BYTES / 2:
                    return
