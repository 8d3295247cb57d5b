"""Attempts: which chunks were begun and not ended, so that one that kills its workers kills only a few.

A chunk whose worker died is handed out again. Its marker says how often it was begun; on the third attempt
the images are worked on one at a time, each named in the marker first. If that worker dies too, the named
image is recorded as failed and the rest goes on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from genray.data.store import Store

FOLDER = "_genray/attempts"
CAREFUL = 2  # attempts that died before images are worked on one at a time
_MAX_BYTES = 100_000


@dataclass(frozen=True)
class Attempt:
    """One try at a chunk: how many were before it, and the image that the last one died of, if known."""

    number: int
    poison: str = ""

    @property
    def careful(self) -> bool:
        """Whether to work on one image at a time."""
        return self.number >= CAREFUL


class Attempts:
    """The markers under the root of `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, chunk: str) -> Attempt:
        """Begin the chunk `chunk`: from here on it belongs to this attempt."""
        before = self._read(chunk)
        attempt = Attempt(0) if before is None else Attempt(before.number + 1, before.poison)
        self._write(chunk, attempt.number)
        return attempt

    def name(self, chunk: str, attempt: Attempt, path: str) -> None:
        """Say that `attempt` is now at the image `path`."""
        self._write(chunk, attempt.number, path)

    def holds(self, chunk: str, attempt: Attempt) -> bool:
        """Whether nobody else has begun the chunk since, in this or in a later pass."""
        now = self._read(chunk)
        return now is not None and now.number == attempt.number

    def end(self, chunk: str) -> None:
        """The chunk is done."""
        self._store.delete(f"{FOLDER}/{chunk}.json")

    def clear(self) -> None:
        """Take every chunk away from whoever still works on one."""
        for entry in self._store.list([".json"], FOLDER):
            self._store.delete(entry.path)

    def _read(self, chunk: str) -> Attempt | None:
        try:
            return Attempt(**json.loads(self._store.read(f"{FOLDER}/{chunk}.json", _MAX_BYTES)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return Attempt(0)  # cut off by a crash: it was begun at least

    def _write(self, chunk: str, number: int, poison: str = "") -> None:
        text = json.dumps({"number": number, "poison": poison})
        self._store.write(f"{FOLDER}/{chunk}.json", text.encode())
