"""What outlives the monitor beside its alarms: the patients' references, from where sources go on, and which
streams were watched."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from genray.errors import GenrayError
from monitors.journal import PLACE, Journal
from monitors.observation import Transition
from monitors.shard import Start
from monitors.sources import SourceSettings

_REFERENCE, _ALARMS, _WATCHED = "reference", "alarms", "watched"
_ALL = "monitor"  # row of what belongs to no shard
_AFRESH = 60.0  # s after which the times of streams that are watched are kept again


class Keeping:
    """Keeps it in memory, for shards that begin anew, and in the journal. A disk that is full does not stop
    the monitor: what could not be written goes with the next.

    Args:
        journal: open.
        source: a place belongs to one source.
        shards: and to one way to share its streams.
        note: takes a line for a person.
    """

    def __init__(
        self, journal: Journal, source: SourceSettings, shards: int, note: Callable[[str], None]
    ) -> None:
        self._journal, self._shards, self._note = journal, shards, note
        # A replay goes on at any speed.
        said = json.dumps(source.model_dump(mode="json", exclude={"speed"}), sort_keys=True)
        self._source = blake2b(said.encode(), digest_size=8).hexdigest()
        self._references = journal.load_states(_REFERENCE)
        self._places = {n: self._read(n, data) for n, data in journal.load_states(PLACE).items()}
        self._states = journal.load_states(_ALARMS)
        self.watched = self._read_watched(journal.load_states(_WATCHED).get(_ALL))
        """Streams that were watched when the monitor ended, and the time (unix s) of their samples now, had
        they gone on; of no other source, and none if it was over."""
        self._kept: frozenset[str] = frozenset()
        self._kept_at = 0.0
        self._owed: dict[str, dict[str, bytes]] = {}
        self._trouble = ""

    def start(self, number: int, alarms: Sequence[Transition]) -> Start:
        """With what shard `number` begins, where `alarms` are open."""
        place = self._places.get(self._row(number), {})
        return Start(dict(self._references), alarms, place, dict(self._states) if place else {})

    async def references(self, found: Mapping[str, bytes]) -> None:
        """Keep references that were learned."""
        if found:
            self._references.update(found)
            await self._save(_REFERENCE, found)

    async def states(self, states: Mapping[str, bytes]) -> None:
        """Keep the states of alarms, of which all changes are in the journal."""
        if states:
            self._states.update(states)
            await self._save(_ALARMS, states)

    async def place(self, number: int, place: Mapping[str, Any]) -> None:
        """Keep from where the source of shard `number` goes on; empty: from its beginning."""
        row = self._row(number)
        if place != self._places.get(row, {}):
            self._places[row] = place
            kept = {"source": self._source, "place": place}
            await self._save(PLACE, {row: json.dumps(kept).encode()})

    async def watching(self, streams: Mapping[str, float]) -> None:
        """Keep which streams are watched, and the time of their last samples."""
        now = time.time()
        if streams.keys() != self._kept or (streams and now - self._kept_at > _AFRESH):
            self._kept, self._kept_at = frozenset(streams), now
            kept = {"source": self._source, "at": now, "streams": dict(streams)}
            await self._save(_WATCHED, {_ALL: json.dumps(kept).encode()})

    async def forget(self, stream: str) -> None:
        """Forget all about a stream."""
        self._references.pop(stream, None)
        self._states.pop(stream, None)
        for rows in self._owed.values():
            rows.pop(stream, None)
        await self._try(lambda: self._journal.delete_state(stream))

    def _row(self, number: int) -> str:
        return f"shard-{number}-of-{self._shards}"

    def _read(self, row: str, data: bytes) -> Mapping[str, Any]:
        try:
            kept = json.loads(data)
            place, source = kept["place"], kept["source"]
        except (ValueError, KeyError, TypeError):
            place = source = None
        return place if isinstance(place, dict) and source == self._source else {}

    def _read_watched(self, data: bytes | None) -> dict[str, float]:
        try:
            kept = json.loads(data or b"")
            passed = max(0.0, time.time() - kept["at"]) if kept["source"] == self._source else None
            return {} if passed is None else {s: float(at) + passed for s, at in kept["streams"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    async def _save(self, name: str, rows: Mapping[str, bytes]) -> None:
        owed = self._owed.setdefault(name, {})
        owed.update(rows)
        written = dict(owed)
        if await self._try(lambda: self._journal.save_states(name, written, time.time())):
            for stream, data in written.items():
                if owed.get(stream) is data:
                    del owed[stream]

    async def _try(self, write: Callable[[], None]) -> bool:
        try:
            await asyncio.to_thread(write)
        except GenrayError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._note(f"references and places are not kept: {error}")
            return False
        self._trouble = ""
        return True
