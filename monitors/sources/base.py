"""The contract of a source: where messages come from.

A source goes through open, next, snapshot and close, as in bytewax's connectors, but waits by asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from monitors.sources.message import Chunk


class SourceLost(Exception):
    """The broker, server or connection is gone. A later `open` may succeed. Its text holds no secrets."""


class EndOfSource(Exception):
    """There is no more, and never will be."""


class EcgSource(Protocol):
    """Messages of many streams. One task at a time calls it, in this order: `open`, `next` any number of
    times, `close`; and the same again after a loss. `snapshot` may be called whenever it is open.

    Attributes:
        name: of its kind, for labels and logs: "mqtt". No host, no credentials, no patient.
    """

    name: str

    @property
    def left_out(self) -> Sequence[str]:
        """What of it cannot be read, in words for a person; there may come more."""

    async def open(self, resume: Mapping[str, Any] | None) -> None:
        """Connect, and go on right after what `snapshot` gave as `resume`; None: where it begins by itself.

        Raises:
            SourceLost: it cannot be reached; `close` is called next.
            GenrayError: it can never be reached, say because a package is missing.
        """

    async def next(self) -> Sequence[bytes | Chunk]:
        """Messages as they were sent, or chunks; [] if none came within about a second.

        May be cancelled while it waits. What it returned is done with: the next `snapshot` lies after it.
        A source that knows when samples are due waits until then.

        Raises:
            SourceLost: the connection is gone; `close` is called next.
            EndOfSource: it is over; `close` is called next.
        """

    def snapshot(self) -> Mapping[str, Any]:
        """From where to go on, as plain JSON; empty where the source keeps nothing that could be replayed."""

    async def close(self) -> None:
        """Let go of everything. May be called twice, and after an `open` that failed; raises nothing."""
