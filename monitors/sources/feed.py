"""Feed: turns the messages of a source into chunks under pseudonyms, and reopens the source when it is
lost."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
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
        1.0, gt=0, le=60, description="most seconds to wait before the first reconnection"
    )
    longest_wait: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="most seconds to wait before a reconnection (doubled each time, up to this)",
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
    """Delivers every valid message of a source, one after the other.

    It is responsible for
    - reopening the source when it is lost, at the place after the last delivered message;
    - refusing invalid messages;
    - pseudonyms: behind it, no stream has the name that its source gives.

    It leaves the connection to the source, and the order of messages to `Sequencer`.

    Args:
        source: source, not yet open.
        deliver: takes a chunk with a pseudonym as `stream` and with `received` set. While it waits, nothing
            is read: the source's own buffer is the only one.
        count_fault: takes the reason why a message is refused (a key of `message.REASONS`), or "source-lost"
            if the source is lost or cannot be opened; and a count.
        settings: settings of the reconnection.
        pseudonyms: pseudonyms of streams.
        accepts: returns whether a stream, by its source's name, belongs to this shard; None: all do.
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
        """Return the place after the last delivered messages, for `run`. Empty before the source was opened,
        and always for a source without a place."""
        return self._place or {}

    async def run(self, resume: Mapping[str, Any] | None = None) -> None:
        """Feed until the source has ended or the task is cancelled.

        Args:
            resume: result of `snapshot` of an earlier feed of this source.

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
                    # Taken before the delivery, as the source may be lost during it.
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
        # A source may resume at a place before its first delivery, too.
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
                await self._deliver(chunk.delivered(self._pseudonym(chunk.stream), received))
        # Without this, a source that always has messages would keep other tasks from running.
        await asyncio.sleep(0)

    def _accepted(self, message: bytes | Chunk) -> Chunk | None:
        """Return the chunk of a message; None: its stream belongs to another shard.

        Raises:
            BadMessage: the message is invalid.
        """
        if self._accepts is not None:
            stream = message.stream if isinstance(message, Chunk) else peek_stream(message)
            if not self._accepts(stream):
                return None
        return message if isinstance(message, Chunk) else decode(message)

    def _refuse(self, bad: BadMessage) -> None:
        """Count an invalid message, and log the first one for each reason."""
        self._count_fault(bad.reason, 1)
        if bad.reason not in self._logged_reasons:
            self._logged_reasons.add(bad.reason)
            _LOG.warning(
                "source %s: message refused: %s (further ones are only counted)", self._source.name, bad
            )

    async def _wait_after_loss(self, error: Exception, failures: int) -> None:
        """Count and log a loss, close the source, and wait before the next try."""
        await self._close()
        self._count_fault("source-lost", 1)
        longest = min(self._settings.longest_wait, self._settings.first_wait * 2.0 ** min(failures, 30))
        # Random, so that several monitors do not reconnect all at once.
        wait = longest * random.uniform(0.5, 1.0)
        # Only the text of a SourceLost is known to contain no secrets.
        reason = str(error) if isinstance(error, SourceLost) else type(error).__name__
        _LOG.warning("source %s lost; reconnecting in %.1f s: %s", self._source.name, wait, reason[:200])
        await asyncio.sleep(wait)

    async def _close(self) -> None:
        self.connected = False
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._source.close()
