"""Ward: the beds of one process. Its input is chunks; its output is readings, beats, alarms and traces.

All leads of one sampling rate, whatever the clocks of their devices, go through quality, detection, cutting
and scoring as one array, one hop at a time, so that the cost depends on the number of samples and not on the
number of calls. Everything uses the samples' own time; the wall clock only shows that a stream has stopped,
and how late the analysis is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pydantic import Field

from genray.ecg.quality import QualitySettings
from genray.ecg.records.channels import LeadKind, lead_kind
from genray.settings.base import Settings
from monitors.alarms.events import Observation, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.machine import acknowledge, discharge, step
from monitors.patient.bed import Bed
from monitors.patient.hops import HopQueue
from monitors.patient.leads import LeadBank
from monitors.patient.ordering import Sequencer, SequencerSettings
from monitors.patient.output import SavedBed, WardOutput
from monitors.patient.reference import Reference, ReferenceSettings
from monitors.patient.resume import Resumption, SavedState
from monitors.patient.rhythm.pulse import PulseLeads
from monitors.patient.rhythm.ventricular import RhythmModel, ready_rhythm_model
from monitors.patient.scoring import BeatModel, ScoreSettings
from monitors.patient.strips import StripRecorder
from monitors.sources.message import Chunk

_FLUSH = 2.0  # s without a message after which messages that are held back are used
_LOST = 3.0  # s without a message after which a stream is observed as lost
_SHOWN = 3  # anomalous beats that an alarm shows
_WHOLE = 100.0  # Hz from which streams are analysed at whole rates
_AHEAD = 4  # most hops of a bed in one call, so that findings are reported soon


class WardSettings(Settings):
    """Settings of the analysis of streams."""

    hop: float = Field(1.0, ge=0.25, le=4, description="seconds of samples that are analysed at a time")
    burden_beats: int = Field(
        20, ge=5, le=500, description="number of last beats whose anomalous share is the burden"
    )
    streams: int = Field(
        2000, ge=1, le=100_000, description="most streams of one process (further ones are refused)"
    )
    discharge_after: float = Field(
        3600.0, ge=10, description="seconds without a message after which a stream is discharged"
    )
    lead_kinds: Mapping[str, LeadKind] = Field(
        {},
        description="kinds of leads (ecg, pulse or pressure) whose names do not say them: {P1: pressure}",
    )
    quality: QualitySettings = Field(
        QualitySettings(), description="signal quality: when a lead is poor or off"
    )
    reference: ReferenceSettings = Field(ReferenceSettings(), description="the patient's own usual beat")
    score: ScoreSettings = Field(ScoreSettings(), description="weights of the scores of beats")
    order: SequencerSettings = Field(
        SequencerSettings(), description="order of messages, gaps and device clocks"
    )


class Ward:
    """Beds of one process.

    It is responsible for
    - giving each stream a bed, and discharging beds of silent streams;
    - analysing the samples that wait, those of all beds of one sampling rate together;
    - the alarms of each stream, also while no data arrives, and their strips;
    - the state to save for a restart: references and alarm states.

    It leaves where chunks come from, and where results go, to the shard.

    Args:
        settings: settings of the analysis.
        model: model of normal beats.
        limits: returns the alarm limits of a stream, by its pseudonym.
        references: saved references, by stream.
        resumption: saved alarms with which streams resume after a restart.
        rhythm: model of ventricular rhythms and beats (None: the one that comes with genray).
    """

    def __init__(
        self,
        settings: WardSettings,
        model: BeatModel,
        limits: Callable[[str], Limits] = lambda stream: Limits(),
        references: Mapping[str, bytes] | None = None,
        resumption: Resumption | None = None,
        rhythm: RhythmModel | None = None,
    ) -> None:
        self._settings = settings
        self._model = model
        self._rhythm = rhythm or ready_rhythm_model()
        self._limits = limits
        self._references = dict(references or {})
        self._resumption = resumption or Resumption()
        self._beds: dict[str, Bed] = {}
        self._banks: dict[float, LeadBank] = {}
        self._ready: dict[str, Bed] = {}
        self._next_output = WardOutput()
        self.watched: frozenset[str] = frozenset()
        """Streams whose traces and beats are included in the output."""

    @property
    def waiting(self) -> int:
        """Number of streams with a complete hop that waits for analysis."""
        return len(self._ready)

    @property
    def streams(self) -> list[str]:
        """Streams that have a bed."""
        return list(self._beds)

    def __len__(self) -> int:
        return len(self._beds)

    def __contains__(self, stream: object) -> bool:
        return stream in self._beds

    def push(self, chunk: Chunk, now: float) -> bool:
        """Add a chunk at the monotonic time `now`; False: refused, as there are too many streams."""
        bed = self._beds.get(chunk.stream)
        if bed is None or not bed.fits(chunk):
            if bed is None and len(self._beds) >= self._settings.streams:
                return False
            bed = self._admit(chunk, bed)
        bed.push(chunk, now)
        if bed.sequencer.faults:
            for fault, count in bed.sequencer.faults.items():
                self._next_output.faults[fault] += count
            bed.sequencer.faults.clear()
        if bed.hops.ready:
            self._ready[chunk.stream] = bed
        return True

    def step(self, now: float) -> WardOutput:
        """Analyse the samples that wait, in whole hops, at the monotonic time `now`."""
        output = self._begin_output()
        for _ in range(_AHEAD):
            if not self._ready:
                break
            ready = self._ready
            self._ready = {}
            by_rate: dict[float, list[Bed]] = {}
            for bed in ready.values():
                by_rate.setdefault(_nominal(bed.rate), []).append(bed)
            for rate, beds in by_rate.items():
                self._banks[rate].process_hop(beds, output, now, self.watched)
            for bed in ready.values():
                self._observe(bed, output, now)
                if bed.hops.ready:
                    self._ready[bed.stream] = bed
        return output

    def postpone(self, seconds: float, now: float) -> None:
        """Do not count the last `seconds` as time without messages, at the monotonic time `now`: the process
        was paused and read nothing, and what arrived meanwhile still waits at the source."""
        for bed in self._beds.values():
            bed.arrived = min(now, bed.arrived + seconds)

    def tick(self, now: float) -> WardOutput:
        """Handle streams without messages, at the monotonic time `now`; to be called about once per
        second."""
        output = self._begin_output()
        for bed in list(self._beds.values()):
            quiet = now - bed.arrived
            if quiet > _FLUSH and bed.sequencer.held:
                bed.flush()
                if bed.hops.ready:
                    self._ready[bed.stream] = bed
            if quiet > self._settings.discharge_after:
                self._discharge(bed, output)
            elif quiet > _LOST and not bed.hops.ready:
                bed.lost_seconds = quiet
                observation = Observation(time=bed.end_time + quiet, good=False, rhythm=False, lost=quiet)
                output.transitions += self._step_alarms(bed, observation)
        return output

    def _begin_output(self) -> WardOutput:
        """Return the output of a call, beginning with what was found since the last one."""
        output = self._next_output
        self._next_output = WardOutput()
        return output

    def acknowledge(self, alarm: str) -> list[Transition]:
        """Acknowledge an alarm; empty if there is no open alarm of that name, or it is acknowledged
        already."""
        bed = self._beds.get(alarm.partition(":")[0])
        if bed is None:
            return []
        bed.alarms, changes = acknowledge(bed.alarms, alarm, bed.end_time + bed.lost_seconds)
        return list(changes)

    def discharge(self, stream: str) -> WardOutput:
        """Discharge a bed: its alarms end and its reference is deleted. For a stream without data since a
        restart, the saved state is deleted too."""
        output = WardOutput()
        if stream in self._beds:
            self._discharge(self._beds[stream], output)
        self._forget(stream)
        return output

    def saved_beds(self, streams: Iterable[str]) -> dict[str, SavedBed]:
        """Return what to save of those `streams` that have a bed and were observed, as of now. A bed whose
        samples are still repeated after a restart has nothing new."""
        beds = [self._beds[stream] for stream in streams if stream in self._beds]
        return {
            bed.stream: SavedBed(SavedState.of(bed).as_bytes(), bed.reference.save())
            for bed in beds
            if bed.alarms.time is not None and not self._resumption.is_repeating(bed.stream)
        }

    def _discharge(self, bed: Bed, output: WardOutput) -> None:
        bed.alarms, changes = discharge(bed.alarms, bed.end_time + bed.lost_seconds)
        output.transitions += changes
        output.discharged.append(bed.stream)
        output.strips += bed.strips.pop_due(ended=True)
        self._release(bed)
        del self._beds[bed.stream]
        self._forget(bed.stream)

    def _forget(self, stream: str) -> None:
        """Delete the saved state of `stream`, as its next data is from another patient."""
        self._references.pop(stream, None)
        self._resumption.forget(stream)

    def _release(self, bed: Bed) -> None:
        """Drop the samples that wait in `bed` and release its rows."""
        self._ready.pop(bed.stream, None)
        nominal = _nominal(bed.rate)
        bank = self._banks[nominal]
        bank.release(bed.rows)
        if not bank.used:
            del self._banks[nominal]  # otherwise a sender with ever new rates would fill the memory

    def _admit(self, chunk: Chunk, before: Bed | None) -> Bed:
        """Create a bed for the stream of `chunk`; it replaces `before`, which has other leads or another
        rate."""
        rate = chunk.rate
        kinds = self._kinds(chunk)
        leads = tuple(lead for lead, kind in zip(chunk.leads, kinds, strict=True) if kind is LeadKind.ECG)
        has_pulse = len(leads) < len(chunk.leads)
        reference = Reference(self._settings.reference, leads, self._model.beat.samples)
        if kept := self._references.get(chunk.stream):
            reference.restore(kept)
        if before is not None:
            self._release(before)
            self._next_output.strips += before.strips.pop_due(ended=True)
            self._next_output.faults["format-change"] += 1
            alarms = before.alarms
        else:
            alarms = self._resumption.begin(chunk.stream)
        nominal = _nominal(rate)
        if nominal not in self._banks:
            self._banks[nominal] = LeadBank(
                nominal,
                self._settings.hop,
                self._settings.quality,
                self._model,
                self._rhythm,
                self._settings.score,
            )
        bank = self._banks[nominal]
        bed = Bed(
            stream=chunk.stream,
            rate=rate,
            channels=chunk.leads,
            leads=leads,
            pulse_leads=PulseLeads.of(chunk.leads, kinds, rate) if has_pulse else None,
            rows=bank.allocate(len(leads)),
            sequencer=Sequencer(self._settings.order),
            hops=HopQueue(rate, len(chunk.leads), bank.hop_samples),
            reference=reference,
            alarms=alarms,
            decisions=bank.new_decisions(),
            strips=StripRecorder(rate, leads),
            burden_beats=self._settings.burden_beats,
            end_time=chunk.start,
        )
        self._beds[chunk.stream] = bed
        return bed

    def _kinds(self, chunk: Chunk) -> list[LeadKind]:
        """Return what the leads of a chunk show; all an ECG if none of them would be one, as the monitor
        watches an ECG."""
        said = chunk.kinds or [lead_kind(lead) for lead in chunk.leads]
        set_by_name = self._settings.lead_kinds
        kinds = [set_by_name.get(lead, kind) for lead, kind in zip(chunk.leads, said, strict=True)]
        return kinds if LeadKind.ECG in kinds else [LeadKind.ECG] * len(kinds)

    def _observe(self, bed: Bed, output: WardOutput, now: float) -> None:
        """Add the reading after a hop, and step the alarms unless this hop is repeated after a restart."""
        if self._resumption.is_repeated(bed, self._references):
            alarms, count = bed.alarms, len(output.transitions)
            self._observe_hop(bed, output, now, repeated=True)
            bed.alarms = alarms
            del output.transitions[count:]
            self._resumption.end_repeated_hop(bed, self._references)
        else:
            output.transitions += self._resumption.join_later_alarms(bed)
            self._observe_hop(bed, output, now)

    def _observe_hop(self, bed: Bed, output: WardOutput, now: float, *, repeated: bool = False) -> None:
        observation = bed.observe(self._banks[_nominal(bed.rate)].delay, now)
        learned_before = bed.reference.shape is not None
        if observation.good and not repeated:  # what is repeated was learned from before
            bed.reference.add_time(self._settings.hop)
            if not learned_before and bed.reference.shape is not None:
                self._references[bed.stream] = bed.reference.save()
                output.learned.append(bed.stream)
        for change in self._step_alarms(bed, observation):
            if change.kind == "anomaly" and change.change in ("onset", "escalated"):
                change = _with_beats(change, bed)
            if change.change == "onset" and not repeated:
                bed.strips.begin(change)
            output.transitions.append(change)
        output.strips += bed.strips.pop_due()
        output.readings.append(bed.reading())
        output.behind = max(output.behind, observation.behind)

    def _step_alarms(self, bed: Bed, observation: Observation) -> tuple[Transition, ...]:
        bed.alarms, changes = step(bed.alarms, observation, self._limits(bed.stream))
        return changes


def _nominal(rate: float) -> float:
    """Return the sampling rate by which a stream is analysed, Hz: clocks of devices differ by some ppm, and
    streams of one rate are analysed together. Its own rate differs by 0.5 % at most, and gives its times."""
    return float(round(rate)) if rate >= _WHOLE else round(rate, 1)


def _with_beats(transition: Transition, bed: Bed) -> Transition:
    """Return `transition` with the anomalous beats of the highest scores."""
    worst = sorted(bed.unusual_beats, key=lambda beat: beat.score, reverse=True)[:_SHOWN]
    beats = [beat.as_json() for beat in worst]
    return replace(transition, why={**transition.why, "threshold": 1.0, "beats": beats})
