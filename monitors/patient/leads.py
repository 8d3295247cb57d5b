"""Analysis of all leads of one sampling rate as one array: quality, detection, cutting and scoring."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genray.ecg.beats import BeatSettings, cut_at
from genray.ecg.qrs import QrsThresholds, fill_missing
from genray.ecg.quality import QualitySettings, SignalQuality, assess_quality
from genray.ecg.rhythm import WINDOW
from genray.ecg.ventricular import BEAT
from monitors.alarms.events import JudgedBeat
from monitors.patient.bed import Bed, PendingBeat, PreviousBeat, UnusualBeat
from monitors.patient.detection import QrsDetector
from monitors.patient.hops import Hop
from monitors.patient.noise import NoiseMeter
from monitors.patient.output import ScoredBeat, Trace, WardOutput
from monitors.patient.pace import PaceRule
from monitors.patient.reference import SHIFTS, UsualBeat, fit_to_references
from monitors.patient.rhythm.heart_rate import UNKNOWN_INTERVAL
from monitors.patient.rhythm.pulse import judge_pulses
from monitors.patient.rhythm.ventricular import ORDERLY, BeatJudge, RhythmModel, judge_rhythms
from monitors.patient.scoring import (
    BeatModel,
    ScoreInputs,
    ScoreSettings,
    Surprises,
    score_beat,
    score_new_patient,
)
from monitors.patient.strips import keep_peaks

Rows = NDArray[np.intp]
Floats = NDArray[np.float32]

_TRACE = 240.0  # values per second of traces for the page, approximate; two for each group of samples
_ORDERLY_RATE = (40.0, 95.0)  # beats/min at which clear complexes are no ventricular rhythm of concern
_ORDERLY_CONTRAST = 8.0  # ratio of complexes to what lies between them, which fibrillation never reaches
_LOUD = 0.25  # share of noise in the power of a beat from which being early makes no beat unusual
_ALIGN = 0.06  # s around the middle of a complex's energy, within which its peak lies


class LeadBank:
    """Leads of all beds of one sampling rate. A lead is a row of every array; the leads of a bed are
    consecutive rows.

    It is responsible for
    - assigning rows to beds and releasing them;
    - the signal quality of a hop, the detection of its complexes, and cutting and scoring the beats;
    - the probabilities of ventricular rhythms and beats;
    - the pulse, where there are pulse waves beside the ECG.

    It leaves heart rate, references and alarms to the beds.

    Args:
        rate: sampling rate, Hz.
        hop: seconds of a hop.
        quality: limits of signal quality.
        model: model of normal beats.
        rhythm: model of ventricular rhythms and beats.
        weights: weights of the scores of beats.
    """

    def __init__(
        self,
        rate: float,
        hop: float,
        quality: QualitySettings,
        model: BeatModel,
        rhythm: RhythmModel,
        weights: ScoreSettings,
    ) -> None:
        self._rate = rate
        self._quality = quality
        self._model = model
        self._rhythm = rhythm
        self._weights = weights
        self._judge = BeatJudge(rhythm)
        self._noise = NoiseMeter(model.beat)
        self._pace_rule = PaceRule(model.beat)
        self.hop_samples = max(1, round(hop * rate))
        self._detector = QrsDetector(rate, self.hop_samples)
        self.delay = self._detector.delay
        """Delay of the detection, in samples."""
        beat = model.beat
        margin = SHIFTS * (beat.before + beat.after) / (beat.samples - 1)
        self._wide = BeatSettings(
            before=beat.before + margin, after=beat.after + margin, samples=beat.samples + 2 * SHIFTS
        )
        self._reach = math.ceil(_ALIGN * rate)
        self._after = math.ceil(max(self._wide.after, BEAT.after) * rate) + self._reach + 1
        # Search-back may find a beat seconds late, so the history reaches that far back.
        keep = max(quality.seconds, WINDOW, 4.0 + beat.before + beat.after) * rate + self.hop_samples
        self._keep = math.ceil(keep)
        self._first = math.ceil(max(self._wide.before, BEAT.before) * rate) + self._reach + 1
        self._history: Floats = np.full((0, self._keep), np.nan, np.float32)
        self._last: Floats = np.zeros(0, np.float32)
        self._allocated = 0
        self._free: dict[int, list[Rows]] = {}

    def new_decisions(self) -> QrsThresholds:
        """Return the detection thresholds of a new bed."""
        return QrsThresholds(self._rate)

    def allocate(self, leads: int) -> Rows:
        """Assign rows to the leads of a bed."""
        if self._free.get(leads):
            return self._free[leads].pop()
        rows = np.arange(self._allocated, self._allocated + leads)
        self._allocated += leads
        if self._allocated > len(self._history):
            room = max(64, 2 * self._allocated)
            more = room - len(self._history)
            self._history = np.pad(self._history, ((0, more), (0, 0)), constant_values=np.nan)
            self._last = np.pad(self._last, (0, more))
            self._detector.grow(room)
            self._judge.grow(room)
            self._noise.grow(room)
        return rows

    def release(self, rows: Rows) -> None:
        """Release the rows of a bed."""
        self._free.setdefault(len(rows), []).append(rows)

    @property
    def used(self) -> int:
        """Number of rows in use."""
        return self._allocated - sum(leads * len(released) for leads, released in self._free.items())

    def process_hop(self, beds: list[Bed], output: WardOutput, now: float, watched: frozenset[str]) -> None:
        """Analyse the next hop of each of `beds`, and add the results to `output`."""
        hops = [bed.next_hop() for bed in beds]
        rows = np.concatenate([bed.rows for bed in beds])
        counts = [len(bed.rows) for bed in beds]
        starts = np.cumsum([0, *counts[:-1]])
        new = np.concatenate([hop.samples for hop in hops], axis=1).T
        self._restart(beds, hops, starts, new)
        history = np.concatenate([self._history[rows, self.hop_samples :], new], axis=1)
        self._history[rows] = history
        quality, rhythm = assess_quality(
            history[:, -round(self._quality.seconds * self._rate) :], self._rate, self._quality
        )
        whole = fill_missing(np.concatenate([self._last[rows, None], new], axis=1))[:, 1:]
        self._last[rows] = whole[:, -1]
        decisions = [bed.decisions for bed in beds]
        ends = [bed.sample_count for bed in beds]
        good = quality == SignalQuality.GOOD
        complexes = self._detector.detect(rows, starts, whole, rhythm, good, decisions, ends)
        for bed, first, count, samples in zip(beds, starts.tolist(), counts, complexes, strict=True):
            bed.quality = quality[first : first + count]
            bed.rhythm_judged = bool(rhythm[first : first + count].any())
            bed.add_complexes(samples)
            if bed.stream in watched:
                output.traces += self._traces(bed, new[first : first + count])
                output.complexes.setdefault(bed.stream, []).extend(map(bed.time_of, samples))
        self._judge_rhythms(beds, rows, counts, history, rhythm)
        self._judge_pulses(beds)
        self._score_beats(beds, starts, history, rhythm, output, now, watched)

    def _judge_rhythms(
        self,
        beds: list[Bed],
        rows: Rows,
        counts: list[int],
        history: Floats,
        usable: NDArray[np.bool_],
    ) -> None:
        """Set the ventricular rhythm of each bed. Beds with clear complexes at an orderly rate, which are
        most, need no closer look."""
        streams = np.repeat(np.arange(len(beds)), counts)
        contrast = self._detector.contrast(rows)
        low, high = _ORDERLY_RATE
        rates = np.array([bed.heart_rate or 0.0 for bed in beds])
        odd = ~((rates > low) & (rates < high))[streams] | (contrast < _ORDERLY_CONTRAST)
        odd_streams = np.zeros(len(beds), np.bool_)
        odd_streams[streams[odd & usable]] = True
        chosen = odd_streams[streams]
        found = judge_rhythms(
            history[chosen], usable[chosen], streams[chosen], len(beds), self._rate, self._rhythm
        )
        for bed, closer, rhythm in zip(beds, odd_streams.tolist(), found, strict=True):
            bed.ventricular = rhythm if closer else ORDERLY

    def _judge_pulses(self, beds: list[Bed]) -> None:
        """Set the pulse of the beds that have pulse waves."""
        leads = {n: bed.pulse_leads for n, bed in enumerate(beds) if bed.pulse_leads is not None}
        if leads:
            for n, pulse in zip(leads, judge_pulses(list(leads.values()), self._rate), strict=True):
                beds[n].pulse = pulse

    def _restart(self, beds: list[Bed], hops: list[Hop], starts: Rows, new: Floats) -> None:
        """Restart the analysis of beds whose hop does not continue the one before."""
        for bed, hop, first in zip(beds, hops, starts.tolist(), strict=True):
            if hop.restarted:
                bed.interrupt()
                samples = new[first : first + len(bed.rows)]
                finite = np.isfinite(samples)
                begin = samples[np.arange(len(samples)), finite.argmax(axis=1)]
                self._last[bed.rows] = np.where(finite.any(axis=1), begin, 0.0)
                self._history[bed.rows] = np.nan
                self._detector.begin(bed.rows, self._last[bed.rows], forget=bed.new_patient)
                self._noise.forget(bed.rows)
                if bed.new_patient:
                    self._judge.forget(bed.rows)
                bed.new_patient = False

    def _score_beats(
        self,
        beds: list[Bed],
        starts: Rows,
        history: Floats,
        usable: NDArray[np.bool_],
        output: WardOutput,
        now: float,
        watched: frozenset[str],
    ) -> None:
        """Cut, judge and score the beats whose samples have all arrived."""
        due = self._due_beats(beds, starts)
        if not due:
            return
        best = np.array([start + int(bed.quality.argmin()) for bed, start, _ in due])
        columns = np.array([self._keep - (bed.sample_count - beat.sample) for bed, _, beat in due])
        columns = self._aligned(history, best, columns)
        ventricular = self._judge_beats(due, columns, history, usable)
        cut_beats, surprises = self._cut(due, columns, history, ventricular)
        for (bed, _, beat), cut in zip(due, cut_beats, strict=True):
            if not cut.good.any():
                continue
            scored = _score_beat(bed, beat, cut, surprises, self._weights, self._pace_rule)
            output.scores.append(scored.score)
            waiting = bed.hops.seconds
            output.delays.append(bed.end_time - cut.time + waiting + max(0.0, now - bed.received))
            if bed.stream in watched:
                output.beats.setdefault(bed.stream, []).append(scored)

    def _due_beats(self, beds: list[Bed], starts: Rows) -> list[_DueBeat]:
        """Remove and return the waiting beats whose samples have all arrived."""
        due: list[_DueBeat] = []
        for bed, start in zip(beds, starts.tolist(), strict=True):
            pending = bed.pending_beats
            complete = [beat for beat in pending if beat.sample + self._after < bed.sample_count]
            due += [_DueBeat(bed, start, beat) for beat in complete]
            bed.pending_beats = [beat for beat in pending if beat.sample + self._after >= bed.sample_count]
        # A beat that search-back found too far back is no longer in the history.
        return [
            beat for beat in due if self._keep - (beat.bed.sample_count - beat.beat.sample) >= self._first
        ]

    def _judge_beats(
        self,
        due: list[_DueBeat],
        columns: NDArray[np.int64],
        history: Floats,
        usable: NDArray[np.bool_],
    ) -> list[float]:
        """Add the beats to those of their beds, with the probability that they are ventricular, and return
        it."""
        counts = np.array([len(bed.rows) for bed, _, _ in due])
        places = np.concatenate([start + np.arange(len(bed.rows)) for bed, start, _ in due])
        found = self._judge.judge(
            np.concatenate([bed.rows for bed, _, _ in due]),
            np.cumsum([0, *counts[:-1]]),
            cut_at(history, places, np.repeat(columns, counts), self._rate, BEAT),
            usable[places],
            np.array([(beat.interval.seconds, beat.interval.ratio) for _, _, beat in due]),
        )
        probabilities: list[float] = found.tolist()
        for (bed, _, beat), probability in zip(due, probabilities, strict=True):
            bed.add_judged_beat(JudgedBeat(bed.time_of(beat.sample), probability))
        return probabilities

    def _cut(
        self, due: list[_DueBeat], columns: NDArray[np.int64], history: Floats, ventricular: list[float]
    ) -> tuple[list[_CutBeat], Surprises]:
        """Return the leads of beats, aligned with the references of their patients; and the surprises of
        those leads that are good and known to the model."""
        counts = np.array([len(bed.rows) for bed, _, _ in due])
        offsets = np.cumsum([0, *counts[:-1]])
        flat_rows = np.concatenate([start + np.arange(len(bed.rows)) for bed, start, _ in due])
        wide = cut_at(history, flat_rows, np.repeat(columns, counts), self._rate, self._wide)
        middle = wide[:, SHIFTS:-SHIFTS]
        good = np.isfinite(wide).all(axis=1)
        good &= np.concatenate([bed.quality for bed, _, _ in due]) == SignalQuality.GOOD
        known = np.concatenate([[self._model.knows(lead) for lead in bed.leads] for bed, _, _ in due])
        chosen = np.flatnonzero(good & known)
        noise = self._measure_noise(due, counts, middle)
        shares = noise / np.maximum(middle.var(axis=1), np.float32(1e-9))
        surprises = self._model.surprises(middle[chosen], noise[chosen])
        place = np.full(len(middle), -1)
        place[chosen] = np.arange(len(chosen))
        fitted = fit_to_references(wide, good, [bed.reference for bed, _, _ in due], noise)
        cut_beats = []
        for number, ((bed, _, _), first, count, column) in enumerate(
            zip(due, offsets.tolist(), counts.tolist(), columns.tolist(), strict=True)
        ):
            part = slice(first, first + count)
            cut_beats.append(
                _CutBeat(
                    time=bed.time_of(bed.sample_count - self._keep + column),
                    good=good[part],
                    shapes=fitted.shapes[part],
                    distances=fitted.distances[part],
                    usual=bed.reference.usual[fitted.nearest[number]] if bed.reference.usual else None,
                    shares=shares[part],
                    place=place[part],
                    ventricular=ventricular[number],
                )
            )
        return cut_beats, surprises

    def _measure_noise(self, due: list[_DueBeat], counts: NDArray[np.int64], beats: Floats) -> Floats:
        """Return the power of the noise in the leads of beats, (leads,) in mV²."""
        noise = np.zeros(len(beats), np.float32)
        rows = np.concatenate([bed.rows for bed, _, _ in due])
        # The beats of one bed are consecutive; they are measured one after the other.
        turns = np.zeros(len(due), np.intp)
        for number in range(1, len(due)):
            turns[number] = turns[number - 1] + 1 if due[number].bed is due[number - 1].bed else 0
        turn_of_lead = np.repeat(turns, counts)
        for turn in range(turns.max() + 1):
            now = np.flatnonzero(turn_of_lead == turn)
            noise[now] = self._noise.measure(rows[now], beats[now])
        return noise

    def _aligned(self, history: Floats, rows: Rows, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the columns moved to the largest deflection nearby."""
        at = columns[:, None] + np.arange(-self._reach, self._reach + 1)
        around = np.nan_to_num(history[rows[:, None], at])
        away = np.abs(around - np.median(around, axis=1, keepdims=True))
        moved: NDArray[np.int64] = at[np.arange(len(at)), away.argmax(axis=1)]
        return moved

    def _traces(self, bed: Bed, samples: Floats) -> list[Trace]:
        """Return a hop (leads, hop) of a bed as traces for the page."""
        start = bed.time_of(bed.sample_count - samples.shape[1])
        reduced, rate = keep_peaks(samples.T, self._rate, _TRACE)
        traces = []
        for lead, values in zip(bed.leads, reduced.T, strict=True):
            rounded = [round(value, 3) if math.isfinite(value) else None for value in values.tolist()]
            traces.append(Trace(bed.stream, lead, start, rate * bed.rate / self._rate, rounded))
        return traces


class _DueBeat(NamedTuple):
    """A beat to score now; `start` is the first row of its bed in the arrays of the hop."""

    bed: Bed
    start: int
    beat: PendingBeat


class _CutBeat(NamedTuple):
    """All leads of one beat.

    Attributes:
        time: unix time of its peak, seconds.
        good: (leads,) whether each lead is good.
        shapes: (leads, samples), z-normalised.
        distances: (leads,) distance from the nearest usual beat.
        usual: that usual beat; None before it is learned.
        shares: (leads,) share of noise in the power of the beat.
        place: (leads,) index in the surprises; -1: the lead was not reconstructed.
        ventricular: probability that it is ventricular; NaN: unknown.
    """

    time: float
    good: NDArray[np.bool_]
    shapes: Floats
    distances: Floats
    usual: UsualBeat | None
    shares: Floats
    place: NDArray[np.intp]
    ventricular: float


def _score_beat(
    bed: Bed, beat: PendingBeat, cut: _CutBeat, surprises: Surprises, weights: ScoreSettings, rule: PaceRule
) -> ScoredBeat:
    """Return a beat with its score, and whether it is anomalous for this patient."""
    bed.beat_count += 1
    shapes = np.where(cut.good[:, None], cut.shapes, np.float32(np.nan))
    ratio = beat.interval.ratio
    usable = cut.good & np.isfinite(cut.distances)
    of_leads = surprises.values[cut.place[cut.place >= 0]]
    surprise = float(of_leads.mean()) if len(of_leads) else math.nan
    inputs = ScoreInputs(cut.distances[usable], of_leads, beat.interval)
    time = round(cut.time, 3)
    if (last := bed.previous_beat) is not None:
        bed.reference.add_beat(last.shapes, last.ratio, ratio, last.surprise, last.ventricular, last.time)
    bed.previous_beat = None
    this_beat = PreviousBeat(shapes, ratio, surprise, cut.ventricular, cut.time)
    usual = cut.usual
    if usual is None or not usable.any():
        if usual is None:
            bed.previous_beat = this_beat
        return ScoredBeat(time, round(score_new_patient(inputs, weights), 3), anomalous=False, inputs=inputs)
    if bed.reference.is_more_abnormal(surprise):
        # Unlike an abnormal reference because it is normal.
        bed.count_scored_beat(anomalous=False)
        score = round(score_new_patient(inputs, weights), 3)
        return ScoredBeat(time, score, anomalous=False, inputs=inputs)
    if usual is not bed.reference.usual[0] and usual.surprise > 0:
        # A further shape was learned because it is this patient's, however abnormal it is for others.
        inputs = inputs._replace(surprises=of_leads - np.float32(usual.surprise))
    score = score_beat(inputs, weights)
    anomalous = score > 1.0
    loud = bool((cut.shares[cut.good] > _LOUD).any())
    if anomalous and loud:
        # An early complex in loud noise is mostly a part of the noise.
        anomalous = score_beat(inputs._replace(interval=UNKNOWN_INTERVAL), weights) > 1.0
    pace = beat.interval.pace
    if anomalous and rule.explains(usual, shapes, cut.shares, pace):
        bed.reference.follow_pace(usual, shapes, pace)
        anomalous = False
    elif not anomalous:
        bed.reference.follow(usual, shapes, ratio, pace, cut.time)
    bed.count_scored_beat(anomalous=anomalous)
    if anomalous:
        if not loud:
            bed.previous_beat = this_beat
        lead = int(np.where(usable, cut.distances, -np.inf).argmax())
        bed.unusual_beats.append(_unusual_beat(bed, usual, lead, cut, surprises, score))
    return ScoredBeat(time, round(score, 3), anomalous=anomalous, inputs=inputs)


def _unusual_beat(
    bed: Bed, usual: UsualBeat, lead: int, cut: _CutBeat, surprises: Surprises, score: float
) -> UnusualBeat:
    place = int(cut.place[lead])
    return UnusualBeat(
        time=round(cut.time, 3),
        score=round(score, 3),
        lead=bed.leads[lead],
        values=cut.shapes[lead],
        reconstruction=surprises.reconstructions[place] if place >= 0 else None,
        reference=usual.shape[lead],
    )
