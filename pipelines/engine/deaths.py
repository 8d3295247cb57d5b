"""Deaths of processes that only one image was in, and what they say about the image."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from genray.text import amount
from pipelines.engine.chunk import ReportCounts
from pipelines.storage.attempts import Attempt

MOST_DEATHS = 2
"""Deaths of its process by itself after which an image is recorded as failed."""
MOST_KILLS = 5
"""The same for kills, which can come from outside."""

_SENT_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}


@dataclass(frozen=True)
class Death:
    """Death of a process at an image.

    Args:
        image: the only image in progress; empty if there was none yet.
        exit_code: exit code; the negative number of a signal.
        peak_bytes: most memory that the process had.
        last_words: last line that it wrote to stderr.
    """

    image: str
    exit_code: int
    peak_bytes: int
    last_words: str = ""

    @property
    def is_kill(self) -> bool:
        """Whether it was killed: by the kernel or a person, for memory or any other reason."""
        return -self.exit_code in _SENT_FROM_OUTSIDE

    @property
    def cause(self) -> str:
        """Name of the signal, or the exit code."""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return signal.Signals(-self.exit_code).name
        except ValueError:
            return f"signal {-self.exit_code}"


@dataclass(frozen=True)
class IsolatedEnd:
    """End of a process apart: whether it finished its images, or its death; neither after a stop."""

    finished: bool
    death: Death | None = None


class CannotIsolate(Exception):
    """A process apart could not start."""


class Isolate(Protocol):
    """Processes images of a chunk in a process apart, one at a time."""

    def __call__(
        self,
        index: int,
        attempt: Attempt,
        paths: Sequence[str],
        name_image: Callable[[str], None],
        report: ReportCounts,
    ) -> IsolatedEnd:
        """Process the images `paths` of the chunk `index`; the process commits and records them.

        Args:
            index: index of the chunk.
            attempt: attempt that owns it.
            paths: paths of the images.
            name_image: called before each image, with its path.
            report: takes the counts.

        Raises:
            CannotIsolate: the process did not start.
            GenrayError: the error that stopped it.
        """


def why_condemned(deaths: Sequence[Death]) -> str:
    """Return why the image of these deaths is recorded as failed; empty if it is tried again.

    Args:
        deaths: deaths of processes that had no other image from their start.
    """
    kills = [death for death in deaths if death.is_kill]
    own = [death for death in deaths if not death.is_kill]
    if len(own) >= MOST_DEATHS:
        words = own[-1].last_words
        what = f"{len(own)} processes that had only this image died of {_seen(own)}"
        return f"{what}: {words}" if words else what
    if len(kills) >= MOST_KILLS:
        return (
            f"{len(kills)} processes that had only this image were killed, for their memory most likely, "
            f"while the run lived on: {_seen(kills)}"
        )
    return ""


def why_condemned_by_workers(attempt: Attempt) -> str:
    """Return why the suspect of an attempt is recorded as failed, although no process apart died of it."""
    if attempt.times < MOST_KILLS:
        return ""
    return (
        f"{attempt.times} workers in a row died, of memory most likely, while only this image was in "
        "progress, and the run lived on"
    )


def _seen(deaths: Sequence[Death]) -> str:
    causes = ", ".join(dict.fromkeys(death.cause for death in deaths))
    return f"{causes} (memory at most {amount(max(death.peak_bytes for death in deaths))})"
