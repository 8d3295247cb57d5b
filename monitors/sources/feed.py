"""The feed: from a source to chunks under pseudonyms, whatever it sends and however often it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import Field, model_validator

from genray.errors import GenrayError
from genray.settings.base import Settings
from monitors.sources.base import EcgSource, EndOfSource, SourceLost
from monitors.sources.message import BadMessage, Chunk, decode, peek_stream
from monitors.sources.pseudonyms import Pseudonyms

_LOG = logging.getLogger(__name__)
_CLOSE_SECONDS = 10.0


class FeedSettings(Settings):
    """Settings of the reconnection to a source."""

    first_wait: float = Field(
        1.0, gt=0, le=60, description="longest first wait in seconds before a lost source is reopened"
    )
    longest_wait: float = Field(
        30.0, gt=0, le=3600, description="longest wait in seconds (each wait is twice the last, up to this)"
    )
    open_seconds: float = Field(
        30.0, gt=0, le=600, description="seconds within which a source must open, else it counts as lost"
    )

    @model_validator(mode="after")
    def _in_order(self) -> FeedSettings:
        if self.first_wait > self.longest_wait:
            raise ValueError("first_wait is longer than longest_wait")
        return self


class Feed:
    """Hands every good message of a source on, one after the other.

    It is responsible for
    - opening the source again whenever it is lost, where the last delivery ended;
    - refusing what is no message;
    - pseudonyms: behind it no stream has the name that its source gives it.

    Args:
        source: not yet open.
        deliver: takes a chunk of which `stream` is a pseudonym and `received` is set. While it waits,
            nothing is read: the source's own buffer is the only one.
        count_fault: takes why a message is refused, a key of `message.REASONS`, or "source-lost": the source
            is gone, or could not be opened; and how often.
        settings: see there.
        pseudonyms: of streams.
        accepts: whether a stream, by the name that the source gives it, is to be watched here; None: all are.
    """

    def __init__(
        self,
        source: EcgSource,
        deliver: Callable[[Chunk], Awaitable[None]],
        count_fault: Callable[[str, int], None],
        settings: FeedSettings,
        pseudonyms: Pseudonyms,
        accepts: Callable[[str], bool] | None = None,
    ) -> None:
        self.connected = False
        self._source = source
        self._deliver = deliver
        self._count_fault = count_fault
        self._settings = settings
        self._pseudonym = pseudonyms.of
        self._accepts = accepts
        self._place: Mapping[str, Any] | None = None
        self._logged_reasons: set[str] = set()

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
                        await self._open()
                    messages = await self._source.next()
                    # Before they are delivered: a place that is lost with the source is of no use.
                    place = self._source.snapshot()
                except (GenrayError, EndOfSource):
                    raise
                except Exception as error:
                    await self._wait_after_loss(error, failures)
                    failures += 1
                    continue
                failures = 0
                await self._deliver_all(messages)
                self._place = place
        except EndOfSource:
            return
        finally:
            await self._close()

    async def _open(self) -> None:
        async with asyncio.timeout(self._settings.open_seconds):
            await self._source.open(self._place)
        # Also a place where nothing was delivered yet is one to go on from.
        self._place = self._place or self._source.snapshot() or None
        self.connected = True

    async def _deliver_all(self, messages: Sequence[bytes | Chunk]) -> None:
        received = time.monotonic()
        for message in messages:
            try:
                chunk = self._accepted(message)
            except BadMessage as bad:
                self._refuse(bad)
                continue
            if chunk is not None:
                pseudonym = self._pseudonym(chunk.stream)
                await self._deliver(replace(chunk, stream=pseudonym, received=received))
        # A source that always has more would let nothing else run.
        await asyncio.sleep(0)

    def _accepted(self, message: bytes | Chunk) -> Chunk | None:
        """The chunk of a message; None: its stream is not watched here.

        Raises:
            BadMessage: it is none.
        """
        if self._accepts is not None:
            stream = message.stream if isinstance(message, Chunk) else peek_stream(message)
            if not self._accepts(stream):
                return None
        return message if isinstance(message, Chunk) else decode(message)

    def _refuse(self, bad: BadMessage) -> None:
        """Count a message that is none, and log the first of its kind."""
        self._count_fault(bad.reason, 1)
        if bad.reason not in self._logged_reasons:
            self._logged_reasons.add(bad.reason)
            _LOG.warning(
                "source %s: a message is refused, %s; further ones are counted", self._source.name, bad
            )

    async def _wait_after_loss(self, error: Exception, failures: int) -> None:
        """Count and log a loss, close the source, and wait before the next try."""
        await self._close()
        self._count_fault("source-lost", 1)
        longest = min(self._settings.longest_wait, self._settings.first_wait * 2.0 ** min(failures, 30))
        # Not all monitors of a ward are to come back at once.
        wait = longest * random.uniform(0.5, 1.0)
        # Only a SourceLost is known to hold no secrets.
        reason = str(error) if isinstance(error, SourceLost) else type(error).__name__
        _LOG.warning("source %s: lost (%s); again in %.1f s", self._source.name, reason[:200], wait)
        await asyncio.sleep(wait)

    async def _close(self) -> None:
        self.connected = False
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._source.close()
