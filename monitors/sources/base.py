"""Protocol of a source of messages.

A source has the methods open, next, snapshot and close, like the connectors of bytewax, but for asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from monitors.sources.message import Chunk


class SourceLost(Exception):
    """The broker, server or connection is lost; a later `open` may succeed. Its text contains no secrets."""


class EndOfSource(Exception):
    """The source has ended: there are no more messages, and never will be."""


class EcgSource(Protocol):
    """Source of the messages of many streams.

    One task at a time calls it, in this order: `open`, `next` any number of times, `close`; and the same
    again after a loss. `snapshot` may be called whenever it is open. It is responsible for the connection and
    its place in the messages; it leaves decoding, pseudonyms and reconnection to `Feed`.

    Attributes:
        name: name of its kind for labels and logs, such as "mqtt"; without hosts, credentials and patients.
    """

    name: str

    @property
    def left_out(self) -> Sequence[str]:
        """What a person should know of the source, as parts that cannot be read; more may be added later."""

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        """Connect, and resume after `resume`, a result of `snapshot`; None: start where the settings say.

        Raises:
            SourceLost: it cannot be reached at present; `close` is called next.
            GenrayError: it can never be reached, for example because a package is missing.
        """

    async def next(self) -> Sequence[bytes | Chunk]:
        """Return messages as they were sent, or chunks; [] if none arrived within about a second.

        It may be cancelled while it waits. The next `snapshot` lies after the messages that it returned. A
        source that knows when samples are due waits until then.

        Raises:
            SourceLost: the connection is lost; `close` is called next.
            EndOfSource: the source has ended; `close` is called next.
        """

    def snapshot(self) -> Mapping[str, Any]:
        """Return the place at which to resume, as plain JSON; empty if the source cannot repeat messages."""

    async def close(self) -> None:
        """Release all resources. May be called twice, and after an `open` that failed; raises nothing."""
