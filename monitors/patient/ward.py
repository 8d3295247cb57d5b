"""The ward: the beds that one process watches. Chunks go in; readings, beats, alarms and traces come out.

All leads of one rate go through quality, detection, cutting and scoring as one array, a hop at a time: what
costs is the number of samples, not the number of calls. Everything goes by the samples' own time; the wall
clock only tells that a stream has stopped, and how far the work lags behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from genray.ecg.quality import QualitySettings
from genray.settings.base import Settings
from monitors.alarms.events import Observation, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.machine import acknowledge, discharge, step
from monitors.alarms.state import AlarmState, restore
from monitors.patient.bed import Bed, Round
from monitors.patient.leads import Leads
from monitors.patient.ordering import Sequencer, SequencerSettings
from monitors.patient.reference import Reference, ReferenceSettings
from monitors.patient.scoring import Scorer
from monitors.sources.message import Chunk

_FLUSH = 2.0  # s without a message after which those that were held back are let go
_LOST = 3.0  # s without a message from which a stream is observed as lost
_SHOWN = 3  # beats that speak for an alarm of their shape
_AHEAD = 4  # hops of a bed in one call at most, so that what is found is told soon


class WardSettings(Settings):
    """Settings of how streams are watched."""

    hop: float = Field(1.0, ge=0.25, le=4, description="seconds of samples that are looked at at once")
    burden_beats: int = Field(20, ge=5, le=500, description="last beats whose anomalous share is the burden")
    streams: int = Field(2000, ge=1, le=100_000, description="most streams; further ones are refused")
    discharge_after: float = Field(
        3600.0, ge=10, description="seconds without a message after which a stream's bed is given up"
    )
    quality: QualitySettings = Field(QualitySettings(), description="what makes a lead unfit to be judged")
    reference: ReferenceSettings = Field(ReferenceSettings(), description="the patient's own usual beat")
    order: SequencerSettings = Field(SequencerSettings(), description="the order of messages")


class Ward:
    """The beds of one process.

    Args:
        settings: see there.
        scorer: of beats.
        limits: of a stream's alarms, by its pseudonym.
        references: that were kept, by stream.
        alarms: that were open, the last transition of each.
    """

    def __init__(
        self,
        settings: WardSettings,
        scorer: Scorer,
        limits: Callable[[str], Limits] = lambda stream: Limits(),
        references: Mapping[str, bytes] | None = None,
        alarms: Sequence[Transition] = (),
    ) -> None:
        self._settings, self._scorer, self._limits = settings, scorer, limits
        self._references = dict(references or {})
        self._open: dict[str, list[Transition]] = {}
        for transition in alarms:
            self._open.setdefault(transition.stream, []).append(transition)
        self._beds: dict[str, Bed] = {}
        self._leads: dict[float, Leads] = {}
        self._ready: dict[str, Bed] = {}
        self._next = Round()
        self.watched: frozenset[str] = frozenset()
        """Streams of which traces and beats are wanted."""

    @property
    def waiting(self) -> int:
        """Streams of which a hop is complete that was not looked at."""
        return len(self._ready)

    def __len__(self) -> int:
        return len(self._beds)

    def __contains__(self, stream: object) -> bool:
        return stream in self._beds

    def push(self, chunk: Chunk, now: float) -> bool:
        """Take a chunk in, at `now` by the monotonic clock; False if its stream is one too many."""
        bed = self._beds.get(chunk.stream)
        if bed is None or not bed.fits(chunk):
            if bed is None and len(self._beds) >= self._settings.streams:
                return False
            bed = self._admit(chunk, bed)
        bed.push(chunk, now)
        if bed.sequencer.faults:
            self._next.faults.update(bed.sequencer.faults)
            bed.sequencer.faults.clear()
        if bed.ready:
            self._ready[chunk.stream] = bed
        return True

    def step(self, now: float) -> Round:
        """Look at all samples that wait, in whole hops; `now` by the monotonic clock."""
        made, self._next = self._next, Round()
        for _ in range(_AHEAD):
            if not self._ready:
                break
            ready, self._ready = self._ready, {}
            by_rate: dict[float, list[Bed]] = {}
            for bed in ready.values():
                by_rate.setdefault(bed.rate, []).append(bed)
            for rate, beds in by_rate.items():
                self._leads[rate].hop(beds, made, now, self.watched)
            for bed in ready.values():
                self._observe(bed, made, now)
                if bed.ready:
                    self._ready[bed.stream] = bed
        return made

    def tick(self, now: float) -> Round:
        """About once a second: notice what does not come; `now` by the monotonic clock."""
        made, self._next = self._next, Round()
        for bed in list(self._beds.values()):
            quiet = now - bed.arrived
            if quiet > _FLUSH and bed.sequencer.held:
                bed.flush()
                if bed.ready:
                    self._ready[bed.stream] = bed
            if quiet > self._settings.discharge_after:
                self._end(bed, made)
            elif quiet > _LOST and not bed.ready:
                bed.lost = quiet
                seen = Observation(time=bed.time + quiet, good=False, lost=quiet)
                bed.alarms, changes = step(bed.alarms, seen, self._limits(bed.stream))
                made.transitions += changes
        return made

    def acknowledge(self, alarm: str) -> list[Transition]:
        """Somebody has looked at an alarm; empty if there is none of that name to be acknowledged."""
        bed = self._beds.get(alarm.partition(":")[0])
        if bed is None:
            return []
        bed.alarms, changes = acknowledge(bed.alarms, alarm, bed.time + bed.lost)
        return list(changes)

    def discharge(self, stream: str) -> Round:
        """Give a bed up: its alarms end, its reference is forgotten. Of a stream that has not come since a
        restart all is forgotten, too."""
        made = Round()
        if stream in self._beds:
            self._end(self._beds[stream], made)
        self._forget(stream)
        return made

    def _end(self, bed: Bed, made: Round) -> None:
        bed.alarms, changes = discharge(bed.alarms, bed.time + bed.lost)
        made.transitions += changes
        made.discharged.append(bed.stream)
        self._leave(bed)
        del self._beds[bed.stream]
        self._forget(bed.stream)

    def _forget(self, stream: str) -> None:
        """Whoever comes in `stream` next is another patient."""
        self._references.pop(stream, None)
        self._open.pop(stream, None)

    def _leave(self, bed: Bed) -> None:
        """What waits in `bed` is not looked at any more, and others may have its rows."""
        self._ready.pop(bed.stream, None)
        home = self._leads[bed.rate]
        home.free(bed.rows)
        if not home.used:
            del self._leads[bed.rate]  # a sender may invent ever new rates

    def _admit(self, chunk: Chunk, before: Bed | None) -> Bed:
        """A bed for the stream of `chunk`; `before` had other leads or another rate."""
        rate, leads = chunk.rate, chunk.leads
        reference = Reference(self._settings.reference, leads, self._scorer.beat.samples)
        if kept := self._references.get(chunk.stream):
            reference.restore(kept)
        if before is not None:
            self._leave(before)
            self._next.faults["format-change"] += 1
            alarms = before.alarms
        else:
            alarms = self._restored(chunk.stream)
        if rate not in self._leads:
            self._leads[rate] = Leads(rate, self._settings.hop, self._settings.quality, self._scorer)
        home = self._leads[rate]
        bed = Bed(
            stream=chunk.stream,
            rate=rate,
            leads=leads,
            rows=home.take(len(leads)),
            hop=home.hop_samples,
            sequencer=Sequencer(self._settings.order),
            reference=reference,
            alarms=alarms,
            decisions=home.decisions(),
            burden_beats=self._settings.burden_beats,
            time=chunk.start,
        )
        self._beds[chunk.stream] = bed
        return bed

    def _restored(self, stream: str) -> AlarmState:
        opened = self._open.pop(stream, None)
        return restore(stream, opened) if opened else AlarmState(stream)

    def _observe(self, bed: Bed, made: Round, now: float) -> None:
        seen = bed.observe(self._leads[bed.rate].delay, now)
        learned = bed.reference.shape is not None
        if seen.good:
            bed.reference.pass_time(self._settings.hop)
            if not learned and bed.reference.shape is not None:
                self._references[bed.stream] = made.references[bed.stream] = bed.reference.save()
        bed.alarms, changes = step(bed.alarms, seen, self._limits(bed.stream))
        for change in changes:
            if change.kind == "anomaly" and change.change in ("onset", "escalated"):
                change = _with_beats(change, bed)
            made.transitions.append(change)
        made.readings.append(bed.reading())
        made.behind = max(made.behind, seen.behind)


def _with_beats(transition: Transition, bed: Bed) -> Transition:
    worst = sorted(bed.shown, key=lambda beat: float(beat["score"]), reverse=True)[:_SHOWN]
    beats = [{key: _plain(value) for key, value in beat.items()} for beat in worst]
    return replace(transition, why={**transition.why, "threshold": 1.0, "beats": beats})


def _plain(value: Any) -> Any:
    return [round(each, 3) for each in value.tolist()] if isinstance(value, np.ndarray) else value
