"""Attempts at chunks: which were begun, which are finished, and which image was in progress when one ended.

A chunk whose worker died is processed again. Its marker counts the attempts; from the third on, images are
processed one at a time, each in a process apart and named in the marker first. A dead worker or driver never
condemns an image: it may have been killed from outside. Only what the process apart died of does, see
`pipelines/engine/isolation.py`. The marker of a finished chunk stays until the pass ends, as Ray runs chunks
again whose node was lost later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from genray.io.many import read_files
from genray.io.store import Store

FOLDER = "_genray/attempts"
CAREFUL_AFTER = 2
"""Failed attempts after which images are processed one at a time."""
_MAX_BYTES = 100_000


@dataclass(frozen=True)
class Attempt:
    """One attempt at a chunk.

    Args:
        number: number of attempts before it.
        suspect: the only image in progress in the last attempt that named one; empty if none did.
        times: attempts of this pass in a row whose worker died at the suspect, while the run lived on.
        done: whether the chunk is finished.
    """

    number: int = 0
    suspect: str = ""
    times: int = 0
    done: bool = False

    @property
    def is_careful(self) -> bool:
        """Whether to process one image at a time."""
        return self.number >= CAREFUL_AFTER

    def at_image(self, path: str) -> Attempt:
        """Return this attempt, now at the image `path`."""
        return replace(self, suspect=path, times=self.times + 1 if path == self.suspect else 1)


@dataclass(frozen=True)
class EarlierKills:
    """What is known of earlier passes whose driver was killed.

    Args:
        attempts: attempts with which the first chunks begin: killed passes in a row, unless the images that
            were in progress then are known.
        suspects: images that were the only one in progress in their worker, with the number of such kills.
    """

    attempts: int = 0
    suspects: Mapping[str, int] = field(default_factory=dict)


class Attempts:
    """Markers of attempts under the root of `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, chunk: str, earlier: int = 0) -> Attempt:
        """Begin a chunk, unless it is finished: from now on this attempt owns it.

        Args:
            chunk: name of the chunk.
            earlier: attempts of earlier passes at the same images.
        """
        before = self._read(chunk)
        if before is not None and before.done:
            return before
        attempt = Attempt(earlier) if before is None else replace(before, number=before.number + 1)
        self._write(chunk, attempt)
        return attempt

    def name_image(self, chunk: str, attempt: Attempt, path: str) -> None:
        """Record that `attempt` is now at the image `path`, and at no other."""
        self._write(chunk, attempt.at_image(path))

    def holds(self, chunk: str, attempt: Attempt) -> bool:
        """Return whether the attempt still owns the chunk: no other has begun it, in this or in a later
        pass."""
        now = self._read(chunk)
        return now is not None and not now.done and now.number == attempt.number

    def end(self, chunk: str, attempt: Attempt) -> None:
        """Mark the chunk as finished."""
        self._write(chunk, replace(attempt, done=True))

    def unfinished(self) -> list[Attempt]:
        """Return the attempts that are not finished. A run that ends by itself leaves none."""
        files = read_files(self._store, self._store.list([".json"], FOLDER))
        return [attempt for attempt in map(_attempt_of, files) if not attempt.done]

    def clear(self) -> None:
        """Take every chunk away from its worker."""
        self._store.clear(FOLDER)

    def _read(self, chunk: str) -> Attempt | None:
        try:
            return _attempt_of(self._store.read(f"{FOLDER}/{chunk}.json", _MAX_BYTES))
        except FileNotFoundError:
            return None

    def _write(self, chunk: str, attempt: Attempt) -> None:
        self._store.write(f"{FOLDER}/{chunk}.json", json.dumps(asdict(attempt)).encode())


def _attempt_of(data: bytes) -> Attempt:
    try:
        return Attempt(**json.loads(data))
    except (ValueError, TypeError):
        return Attempt()  # incomplete after a crash, but the chunk was begun
