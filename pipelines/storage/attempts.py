"""Attempts: which chunks were begun, which are done, and what a worker died of.

A chunk whose worker died is handed out again. Its marker says how often it was begun; on the third attempt
the images are worked on one at a time, each named in the marker first. An image that two workers in a row
died of is recorded as failed, and the rest goes on. The marker of a chunk that is done says so until the
pass ends: Ray runs chunks again whose node was lost later.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from genray.io.store import Store

FOLDER = "_genray/attempts"
_CAREFUL_AFTER = 2  # attempts that died before images are worked on one at a time
_DEADLY_AFTER = 2  # workers that died of an image before it is believed
_MAX_BYTES = 100_000


@dataclass(frozen=True)
class Attempt:
    """One try at a chunk.

    Args:
        number: of tries before it.
        suspect: the image that the last one was at when it died, if that is known.
        times: how many in a row died at it.
        done: whether the chunk needs no more.
    """

    number: int = 0
    suspect: str = ""
    times: int = 0
    done: bool = False

    @property
    def is_careful(self) -> bool:
        """Whether to work on one image at a time."""
        return self.number >= _CAREFUL_AFTER

    @property
    def deadly_image(self) -> str:
        """The image that is not to be tried again."""
        return self.suspect if self.times >= _DEADLY_AFTER else ""

    def at_image(self, path: str) -> Attempt:
        """The same, working on the image `path`."""
        return replace(self, suspect=path, times=self.times + 1 if path == self.suspect else 1)


class Attempts:
    """The markers under the root of `store`.

    Args:
        crashed: what is known of passes before, which died as a whole: how chunks begin.
    """

    def __init__(self, store: Store, crashed: Attempt | None = None) -> None:
        self._store = store
        self._first = crashed or Attempt()

    def begin(self, chunk: str) -> Attempt:
        """Begin a chunk, unless it is done: from here on it belongs to this attempt."""
        before = self._read(chunk)
        if before is not None and before.done:
            return before
        attempt = self._first if before is None else replace(before, number=before.number + 1)
        self._write(chunk, attempt)
        return attempt

    def name_image(self, chunk: str, attempt: Attempt, path: str) -> None:
        """Say that `attempt` is now at the image `path`."""
        self._write(chunk, attempt.at_image(path))

    def holds(self, chunk: str, attempt: Attempt) -> bool:
        """Whether nobody else has begun the chunk since, in this or in a later pass."""
        now = self._read(chunk)
        return now is not None and not now.done and now.number == attempt.number

    def end(self, chunk: str, attempt: Attempt) -> None:
        """The chunk is done."""
        self._write(chunk, replace(attempt, done=True))

    def clear(self) -> Attempt | None:
        """Take every chunk away from whoever still works on one; returns the worst that was left, if any was:
        a run that ends, well or on request, leaves none."""
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
            return Attempt()  # cut off by a crash: it was begun at least

    def _write(self, chunk: str, attempt: Attempt) -> None:
        self._store.write(f"{FOLDER}/{chunk}.json", json.dumps(asdict(attempt)).encode())
