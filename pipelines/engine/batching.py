"""Batches of images of one size, and how many decoded pixels a worker may hold."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """Collects things by key until a batch is full.

    Args:
        most: how much a batch may weigh; one thing that is heavier is a batch of its own.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._waiting: dict[Hashable, list[T]] = {}
        self._weights: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, key: Hashable, thing: T, weight: float) -> Iterator[list[T]]:
        """Add one; yields the batches that this fills."""
        if key in self._waiting and self._weights[key] + weight > self._most:
            yield self._take(key)
        self._waiting.setdefault(key, []).append(thing)
        self._weights[key] = self._weights.get(key, 0.0) + weight
        # One more of the same size would not fit.
        if self._weights[key] + weight > self._most:
            yield self._take(key)

    def rest(self) -> Iterator[list[T]]:
        """What waits, in batches that are not full."""
        for key in list(self._waiting):
            yield self._take(key)

    def _take(self, key: Hashable) -> list[T]:
        del self._weights[key]
        return self._waiting.pop(key)
