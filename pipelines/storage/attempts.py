"""Attempts at chunks: which were begun, which are finished, and which image killed a worker.

A chunk whose worker died is processed again. Its marker counts the attempts; from the third on, images are
processed one at a time, each named in the marker first. An image that killed two workers in a row is recorded
as failed, and the others are processed. The marker of a finished chunk stays until the pass ends, as Ray runs
chunks again whose node was lost later.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from genray.io.store import Store

FOLDER = "_genray/attempts"
_CAREFUL_AFTER = 2  # failed attempts after which images are processed one at a time
_DEADLY_AFTER = 2  # workers that an image must kill to be recorded as failed
_MAX_BYTES = 100_000


@dataclass(frozen=True)
class Attempt:
    """One attempt at a chunk.

    Args:
        number: number of attempts before it.
        suspect: image of the last attempt when its worker died, if known.
        times: workers in a row that died at it.
        done: whether the chunk is finished.
    """

    number: int = 0
    suspect: str = ""
    times: int = 0
    done: bool = False

    @property
    def is_careful(self) -> bool:
        """Whether to process one image at a time."""
        return self.number >= _CAREFUL_AFTER

    @property
    def deadly_image(self) -> str:
        """The image that must not be tried again."""
        return self.suspect if self.times >= _DEADLY_AFTER else ""

    def at_image(self, path: str) -> Attempt:
        """Return this attempt, now at the image `path`."""
        return replace(self, suspect=path, times=self.times + 1 if path == self.suspect else 1)


class Attempts:
    """Markers of attempts under the root of `store`.

    Args:
        crashed: attempt that killed passes left, with which chunks begin.
    """

    def __init__(self, store: Store, crashed: Attempt | None = None) -> None:
        self._store = store
        self._first = crashed or Attempt()

    def begin(self, chunk: str) -> Attempt:
        """Begin a chunk, unless it is finished: from now on this attempt owns it."""
        before = self._read(chunk)
        if before is not None and before.done:
            return before
        attempt = self._first if before is None else replace(before, number=before.number + 1)
        self._write(chunk, attempt)
        return attempt

    def name_image(self, chunk: str, attempt: Attempt, path: str) -> None:
        """Record that `attempt` is now at the image `path`."""
        self._write(chunk, attempt.at_image(path))

    def holds(self, chunk: str, attempt: Attempt) -> bool:
        """Return whether the attempt still owns the chunk: no other has begun it, in this or in a later
        pass."""
        now = self._read(chunk)
        return now is not None and not now.done and now.number == attempt.number

    def end(self, chunk: str, attempt: Attempt) -> None:
        """Mark the chunk as finished."""
        self._write(chunk, replace(attempt, done=True))

    def clear(self) -> Attempt | None:
        """Take every chunk away from its worker; returns the worst attempt that was left, if any. A run that
        finishes or stops on request leaves none."""
        unfinished: list[Attempt] = []
        for entry in self._store.list([".json"], FOLDER):
            attempt = self._read(entry.path.rpartition("/")[2].removesuffix(".json"))
            if attempt is not None and not attempt.done:
                unfinished.append(attempt)
            self._store.delete(entry.path)
        return max(unfinished, key=lambda attempt: (attempt.times, attempt.number), default=None)

    def _read(self, chunk: str) -> Attempt | None:
        try:
            return Attempt(**json.loads(self._store.read(f"{FOLDER}/{chunk}.json", _MAX_BYTES)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return Attempt()  # incomplete after a crash, but the chunk was begun

    def _write(self, chunk: str, attempt: Attempt) -> None:
        self._store.write(f"{FOLDER}/{chunk}.json", json.dumps(asdict(attempt)).encode())
