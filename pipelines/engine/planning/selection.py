"""Selection of a part of the inputs: the first ones, some at random, or one of several shards of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import TypeVar

from pipelines.settings import SelectionSettings

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """Selection of inputs by their paths, always the same ones of the same inputs: whatever was processed
    before, in any process, and for shards also whatever was added to the input.

    Attributes:
        settings: settings of the selection.
    """

    settings: SelectionSettings

    @property
    def text(self) -> str:
        """The selection in words; "" if it takes all inputs."""
        settings = self.settings
        parts = [
            f"shard {settings.shard}" if settings.shard else "",
            f"the first {settings.limit:,} inputs" if settings.limit else "",
            f"{settings.random:,} inputs at random, seed {settings.seed}" if settings.random else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def is_partial(self) -> bool:
        """Whether inputs that it leaves out may be in the ledger."""
        return bool(self.settings.limit or self.settings.random)

    def choose(self, things: Iterable[T], path_of: Callable[[T], str]) -> Iterator[T]:
        """Yield the selected ones of `things`, in their order. Random ones are held in memory."""
        settings = self.settings
        chosen = iter(things)
        if settings.shard:
            part, parts = settings.shard_numbers
            chosen = (each for each in chosen if _number(path_of(each), "shard") % parts == part - 1)
        if settings.limit:
            return islice(chosen, settings.limit)
        if settings.random:
            # The smallest of keyed hashes: a uniform sample that keeps its members when inputs are added
            # (bottom-k sampling, Cohen and Kaplan 2007).
            key = str(settings.seed)
            numbered = ((_number(path_of(each), key), index, each) for index, each in enumerate(chosen))
            drawn = heapq.nsmallest(settings.random, numbered, key=lambda entry: entry[:2])
            return (each for _, _, each in sorted(drawn, key=lambda entry: entry[1]))
        return chosen


def _number(path: str, key: str) -> int:
    digest = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8, key=key.encode()).digest()
    return int.from_bytes(digest, "little")
