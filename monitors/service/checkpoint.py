"""Checkpoint of a monitor: what it stores for a restart besides its alarms. These are the patients'
references, the places at which sources resume, and the streams that were monitored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

from genray.errors import GenrayError
from monitors.alarms.events import Transition
from monitors.outputs.journal import PLACE, Journal
from monitors.service.shard import Moment, Start
from monitors.sources import SourceSettings

# Names of states in the journal.
_REFERENCE = "reference"
_ALARMS = "alarms"
_WATCHED = "watched"
_MONITOR = "monitor"  # row of the state that belongs to no stream and no shard
_WATCHED_PERIOD = 60.0  # s after which the times of monitored streams are saved again


class MonitorCheckpoint:
    """Checkpoint in memory, for shards that restart, and in the journal, for the next run of the monitor.

    It is responsible for saving references, alarm states, places of sources and monitored streams, and for
    repeating a write that failed: a full disk does not stop the monitor. It leaves alarms to `Journal`.

    Args:
        journal: open journal.
        layout: source and number of shards that the places belong to.
        note: called with a line for a person.
        references, alarm_states: saved states, by stream.
        places: saved places of this layout, by row of the journal.
        watched: JSON of the streams that were monitored when the monitor last saved them.
    """

    def __init__(
        self,
        journal: Journal,
        layout: _Layout,
        note: Callable[[str], None],
        *,
        references: Mapping[str, bytes],
        alarm_states: Mapping[str, bytes],
        places: Mapping[str, Mapping[str, Any]],
        watched: bytes,
    ) -> None:
        self._journal = journal
        self._layout = layout
        self._note = note
        self._references = dict(references)
        self._alarm_states = dict(alarm_states)
        self._places = dict(places)
        self._watched_before = watched
        self._watched: frozenset[str] | None = None  # as last saved
        self._watched_saved_at = 0.0
        self._unsaved: dict[str, dict[str, bytes]] = {}
        self._undeleted: set[str] = set()
        self._writing = asyncio.Lock()
        self._last_error = ""

    @classmethod
    def load(cls, journal: Journal, source: SourceSettings, shards: int, note: Callable[[str], None]) -> Self:
        """Load the checkpoint from `journal`.

        Args:
            source: settings of the source; places of another source are ignored.
            shards: number of shards; places of another number are ignored.
            note: called with a line for a person.

        Raises:
            GenrayError: the journal cannot be read.
        """
        layout = _Layout.of(source, shards)
        return cls(
            journal,
            layout,
            note,
            references=journal.load_states(_REFERENCE),
            alarm_states=journal.load_states(_ALARMS),
            places={row: layout.place_in(data) for row, data in journal.load_states(PLACE).items()},
            watched=journal.load_states(_WATCHED).get(_MONITOR, b""),
        )

    def start(
        self, number: int, alarms: Sequence[Transition], expected: frozenset[str] = frozenset()
    ) -> Start:
        """Return the initial state of shard `number` with the open `alarms`; the streams `expected` were
        monitored before."""
        place = self._places.get(self._layout.row(number), {})
        return Start(
            dict(self._references), alarms, place, dict(self._alarm_states) if place else {}, expected
        )

    async def save(self, number: int, moment: Moment) -> None:
        """Save a moment of shard `number` in one transaction, after the changes of its alarms were written to
        the journal. An empty place: the source starts from the beginning."""
        references = {stream: bed.reference for stream, bed in moment.beds.items()}
        alarm_states = {stream: bed.alarms for stream, bed in moment.beds.items()}
        self._references.update(references)
        self._alarm_states.update(alarm_states)
        rows = {_REFERENCE: references, _ALARMS: alarm_states}
        row = self._layout.row(number)
        if moment.place is not None and moment.place != self._places.get(row, {}):
            self._places[row] = moment.place
            saved = {"source": self._layout.source, "place": moment.place}
            rows[PLACE] = {row: json.dumps(saved).encode()}
        if any(rows.values()):
            await self._save(rows)

    async def save_watched(self, streams: Mapping[str, float]) -> None:
        """Save the monitored streams, each with the unix time of its last sample."""
        now = time.time()
        names = frozenset(streams)
        if names != self._watched or (streams and now - self._watched_saved_at > _WATCHED_PERIOD):
            self._watched = names
            self._watched_saved_at = now
            saved = {"source": self._layout.source, "at": now, "streams": dict(streams)}
            await self._save({_WATCHED: {_MONITOR: json.dumps(saved).encode()}})

    def watched_before(self, within: float) -> dict[str, float]:
        """Return the streams that were monitored when the monitor stopped, with the unix time (s) that their
        samples would have now. Empty for another source, for a source that had ended, or if the monitor
        stopped more than `within` seconds ago."""
        try:
            saved = json.loads(self._watched_before)
            passed = max(0.0, time.time() - saved["at"])
            if saved["source"] != self._layout.source or passed > within:
                return {}
            return {stream: float(at) + passed for stream, at in saved["streams"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    @property
    def learned_patients(self) -> int:
        """Number of patients with a reference."""
        return len(self._references)

    def knows(self, stream: str) -> bool:
        """Whether a reference or an alarm state of `stream` is saved."""
        return stream in self._references or stream in self._alarm_states

    async def discharge(self, stream: str) -> None:
        """Delete everything saved for a stream, as the next patient must not inherit it."""
        self._references.pop(stream, None)
        self._alarm_states.pop(stream, None)
        for rows in self._unsaved.values():
            rows.pop(stream, None)
        self._undeleted.add(stream)
        await self._write()

    async def retry(self) -> None:
        """Write what could not be written, if there is anything."""
        if self._undeleted or any(self._unsaved.values()):
            await self._write()

    async def _save(self, states: Mapping[str, Mapping[str, bytes]]) -> None:
        for name, rows in states.items():
            self._unsaved.setdefault(name, {}).update(rows)
        await self._write()

    async def _write(self) -> None:
        """Write all that is not written yet, deletions first."""
        async with self._writing:
            undeleted = set(self._undeleted)
            unsaved = {name: dict(rows) for name, rows in self._unsaved.items() if rows}

            def write() -> None:
                for stream in undeleted:
                    self._journal.discharge(stream)
                if unsaved:
                    self._journal.save_states(unsaved, time.time())

            try:
                await asyncio.to_thread(write)
            except GenrayError as error:
                self._note_error(error)
                return
            self._last_error = ""
            self._undeleted -= undeleted
            for name, rows in unsaved.items():
                left = self._unsaved[name]
                for stream, data in rows.items():
                    if left.get(stream) is data:  # otherwise it has changed meanwhile
                        del left[stream]

    def _note_error(self, error: GenrayError) -> None:
        if str(error) != self._last_error:
            self._last_error = str(error)
            self._note(f"the checkpoint for a restart was not saved; trying again: {error}")


@dataclass(frozen=True)
class _Layout:
    """Source and number of shards that a place belongs to.

    Attributes:
        source: fingerprint of the source's settings.
        shards: number of shards that share its streams.
    """

    source: str
    shards: int

    @classmethod
    def of(cls, source: SourceSettings, shards: int) -> Self:
        # A replay can resume at another speed.
        settings = json.dumps(source.model_dump(mode="json", exclude={"speed"}), sort_keys=True)
        return cls(blake2b(settings.encode(), digest_size=8).hexdigest(), shards)

    def row(self, number: int) -> str:
        """Return the name of the row of shard `number` in the journal."""
        return f"shard-{number}-of-{self.shards}"

    def place_in(self, data: bytes) -> Mapping[str, Any]:
        """Return the place that was saved as `data`; empty if it is damaged or belongs to another source."""
        try:
            saved = json.loads(data)
            place = saved["place"]
            source = saved["source"]
        except (ValueError, KeyError, TypeError):
            return {}
        return place if isinstance(place, dict) and source == self.source else {}
