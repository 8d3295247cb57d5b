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
from monitors.alarms.events import Transition
from monitors.outputs.journal import PLACE, Journal
from monitors.service.shard import Start
from monitors.sources import SourceSettings

_REFERENCE, _ALARMS, _WATCHED = "reference", "alarms", "watched"
_MONITOR = "monitor"  # row of what belongs to no stream and no shard
_AFRESH = 60.0  # s after which the times of streams that are watched are kept again


class MonitorCheckpoint:
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
        self._before = journal.load_states(_WATCHED).get(_MONITOR, b"")
        self._kept: frozenset[str] | None = None
        self._kept_at = 0.0
        self._owed: dict[str, dict[str, bytes]] = {}
        self._gone: set[str] = set()
        self._turn = asyncio.Lock()
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
        if frozenset(streams) != self._kept or (streams and now - self._kept_at > _AFRESH):
            self._kept, self._kept_at = frozenset(streams), now
            kept = {"source": self._source, "at": now, "streams": dict(streams)}
            await self._save(_WATCHED, {_MONITOR: json.dumps(kept).encode()})

    def watched(self, within: float) -> dict[str, float]:
        """Streams that were watched when the monitor ended, and the time (unix s) of their samples now, had
        they gone on: of no other source, none if that was over, and none if it is longer ago than `within`
        seconds."""
        try:
            kept = json.loads(self._before)
            passed = max(0.0, time.time() - kept["at"])
            if kept["source"] != self._source or passed > within:
                return {}
            return {stream: float(at) + passed for stream, at in kept["streams"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    @property
    def learned(self) -> int:
        """Patients of whom it is known what is usual."""
        return len(self._references)

    def knows(self, stream: str) -> bool:
        """Whether anything of a patient is kept."""
        return stream in self._references or stream in self._states

    async def forget(self, stream: str) -> None:
        """Forget all about a stream: who comes next is another patient."""
        self._references.pop(stream, None)
        self._states.pop(stream, None)
        for rows in self._owed.values():
            rows.pop(stream, None)
        self._gone.add(stream)
        await self._write()

    def _row(self, number: int) -> str:
        return f"shard-{number}-of-{self._shards}"

    def _read(self, row: str, data: bytes) -> Mapping[str, Any]:
        try:
            kept = json.loads(data)
            place, source = kept["place"], kept["source"]
        except (ValueError, KeyError, TypeError):
            place = source = None
        return place if isinstance(place, dict) and source == self._source else {}

    async def _save(self, name: str, rows: Mapping[str, bytes]) -> None:
        self._owed.setdefault(name, {}).update(rows)
        await self._write()

    async def _write(self) -> None:
        """Write what is owed, all of it: first what is to be forgotten."""
        async with self._turn:
            gone = set(self._gone)
            owed = {name: dict(rows) for name, rows in self._owed.items() if rows}

            def write() -> None:
                for stream in gone:
                    self._journal.discharge(stream)
                for name, rows in owed.items():
                    self._journal.save_states(name, rows, time.time())

            try:
                await asyncio.to_thread(write)
            except GenrayError as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    self._note(f"what is kept for a restart is not written: {error}")
                return
            self._trouble = ""
            self._gone -= gone
            for name, rows in owed.items():
                left = self._owed[name]
                for stream, data in rows.items():
                    if left.get(stream) is data:
                        del left[stream]
