"""The feed: from a source to chunks under pseudonyms, whatever it sends and however often it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from pydantic import Field, model_validator

from genray.errors import GenrayError
from genray.settings.base import Settings
from monitors.sources.base import EcgSource, EndOfSource, SourceLost
from monitors.sources.message import REASONS, BadMessage, Chunk, decode, peek_stream
from monitors.sources.pseudonyms import Pseudonyms

FAULTS: Final = {**REASONS, "source-lost": "the source is gone, or could not be opened"}
"""What is counted, and what it means."""

_LOG = logging.getLogger(__name__)
_CLOSING = 10.0  # seconds


class FeedSettings(Settings):
    """Settings of how a source is kept open."""

    first_wait: float = Field(1.0, gt=0, le=60, description="seconds before a lost source is opened again")
    longest_wait: float = Field(30.0, gt=0, le=3600, description="each wait is twice the last, up to this")
    open_seconds: float = Field(30.0, gt=0, le=600, description="after which a source that opens is lost")

    @model_validator(mode="after")
    def _in_order(self) -> FeedSettings:
        if self.first_wait > self.longest_wait:
            raise ValueError("first_wait is longer than longest_wait")
        return self


class Feed:
    """Hands every good message of `source` to `deliver`, one after the other.

    Args:
        deliver: takes a chunk of which `stream` is a pseudonym and `received` is set. While it waits,
            nothing is read: the source's own buffer is the only one.
        fault: takes a key of `FAULTS` and how often.
        mine: whether a stream, by the name that the source gives it, is to be watched here.
    """

    def __init__(
        self,
        source: EcgSource,
        deliver: Callable[[Chunk], Awaitable[None]],
        fault: Callable[[str, int], None],
        settings: FeedSettings,
        pseudonyms: Pseudonyms,
        mine: Callable[[str], bool] | None = None,
    ) -> None:
        self.connected = False
        self._source = source
        self._deliver = deliver
        self._fault = fault
        self._settings = settings
        self._pseudonym = pseudonyms.of
        self._mine = mine
        self._place: Mapping[str, Any] | None = None
        self._told: set[str] = set()

    def snapshot(self) -> Mapping[str, Any]:
        """From where to go on after the last messages that were all delivered; for `run`. Empty before the
        source was opened, and always where it keeps no place."""
        return self._place or {}

    async def run(self, resume: Mapping[str, Any] | None = None) -> None:
        """Feed until the source is over or the task is cancelled.

        Args:
            resume: what `snapshot` gave when an earlier feed of this source ended.

        Raises:
            GenrayError: the source can never be opened.
        """
        self._place = resume or None
        failures = 0
        task = asyncio.current_task()
        try:
            while True:
                # `asyncio.wait_for` of Python 3.11, which client libraries use, can swallow a cancellation.
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError
                try:
                    if not self.connected:
                        async with asyncio.timeout(self._settings.open_seconds):
                            await self._source.open(self._place)
                        # Also a place where nothing was delivered yet is one to go on from.
                        self._place = self._place or self._source.snapshot() or None
                        self.connected = True
                    messages = await self._source.next()
                    # Before they are delivered: a place that is lost with the source is of no use.
                    place = self._source.snapshot()
                except (GenrayError, EndOfSource):
                    raise
                except Exception as error:
                    await self._lost(error, failures)
                    failures += 1
                    continue
                failures = 0
                await self._take(messages)
                self._place = place
        except EndOfSource:
            return
        finally:
            await self._close()

    async def _take(self, messages: Sequence[bytes | Chunk]) -> None:
        received = time.monotonic()
        for message in messages:
            try:
                if isinstance(message, Chunk):
                    chunk = message
                    if self._mine is not None and not self._mine(chunk.stream):
                        continue
                else:
                    if self._mine is not None and not self._mine(peek_stream(message)):
                        continue
                    chunk = decode(message)
            except BadMessage as bad:
                self._fault(bad.reason, 1)
                if bad.reason not in self._told:
                    self._told.add(bad.reason)
                    _LOG.warning(
                        "source %s: a message is refused, %s; further ones are counted",
                        self._source.name,
                        bad,
                    )
                continue
            await self._deliver(replace(chunk, stream=self._pseudonym(chunk.stream), received=received))
        # A source that always has more would let nothing else run.
        await asyncio.sleep(0)

    async def _lost(self, error: Exception, failures: int) -> None:
        """Tell, close, and wait before the next try."""
        await self._close()
        self._fault("source-lost", 1)
        longest = min(self._settings.longest_wait, self._settings.first_wait * 2.0 ** min(failures, 30))
        # Not all monitors of a ward are to come back at once.
        wait = longest * random.uniform(0.5, 1.0)
        # Only a SourceLost is known to hold no secrets.
        why = str(error) if isinstance(error, SourceLost) else type(error).__name__
        _LOG.warning("source %s: lost (%s); again in %.1f s", self._source.name, why[:200], wait)
        await asyncio.sleep(wait)

    async def _close(self) -> None:
        self.connected = False
        with suppress(Exception):
            async with asyncio.timeout(_CLOSING):
                await self._source.close()
