"""All leads of one rate: their last samples as one array, and what is done to a hop of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genray.ecg.beats import BeatSettings, cut_at
from genray.ecg.qrs import QrsThresholds, fill_missing
from genray.ecg.quality import QualitySettings, SignalQuality, assess_quality
from monitors.patient.bed import Bed, Hop, Waiting
from monitors.patient.detection import Detection
from monitors.patient.reference import SHIFTS, fit
from monitors.patient.scoring import Scorer, Scores, score, score_alone

if TYPE_CHECKING:
    from monitors.patient.bed import Round

Rows = NDArray[np.intp]
Floats = NDArray[np.float32]

_TRACE = 120.0  # Hz of traces for the page, about
_ALIGN = 0.06  # s about the middle of a complex's energy, within which its peak lies


class Leads:
    """A lead is a row of every array; the leads of a bed are consecutive rows.

    Args:
        rate: samples a second.
        hop: seconds.
        quality: what makes a lead unfit.
        scorer: of beats.
    """

    def __init__(self, rate: float, hop: float, quality: QualitySettings, scorer: Scorer) -> None:
        self._rate, self._quality, self._scorer = rate, quality, scorer
        self.hop_samples = max(1, round(hop * rate))
        self._detection = Detection(rate, self.hop_samples)
        self.delay = self._detection.delay
        beat = scorer.beat
        margin = SHIFTS * (beat.before + beat.after) / (beat.samples - 1)
        self._wide = BeatSettings(
            before=beat.before + margin, after=beat.after + margin, samples=beat.samples + 2 * SHIFTS
        )
        self._reach = math.ceil(_ALIGN * rate)
        self._after = math.ceil(self._wide.after * rate) + self._reach + 1
        # A beat may be missed at first and found by looking back, so that it lies seconds before the end.
        keep = max(quality.seconds, 4.0 + beat.before + beat.after) * rate + self.hop_samples
        self._keep = math.ceil(keep)
        self._first = math.ceil(self._wide.before * rate) + self._reach + 1
        self._history: Floats = np.full((0, self._keep), np.nan, np.float32)
        self._last: Floats = np.zeros(0, np.float32)
        self._used = 0
        self._free: dict[int, list[Rows]] = {}

    def decisions(self) -> QrsThresholds:
        """A detector's state for a new bed."""
        return QrsThresholds(self._rate)

    def take(self, leads: int) -> Rows:
        """Rows for the leads of a bed."""
        if self._free.get(leads):
            return self._free[leads].pop()
        rows = np.arange(self._used, self._used + leads)
        self._used += leads
        if self._used > len(self._history):
            room = max(64, 2 * self._used)
            more = room - len(self._history)
            self._history = np.pad(self._history, ((0, more), (0, 0)), constant_values=np.nan)
            self._last = np.pad(self._last, (0, more))
            self._detection.grow(room)
        return rows

    def free(self, rows: Rows) -> None:
        """Give the rows of a bed back."""
        self._free.setdefault(len(rows), []).append(rows)

    @property
    def used(self) -> int:
        """Rows that beds have."""
        return self._used - sum(leads * len(those) for leads, those in self._free.items())

    def hop(self, beds: list[Bed], made: Round, now: float, watched: frozenset[str]) -> None:
        """Look at the next hop of each of `beds`, and add to `made` what came of it."""
        hops = [bed.take() for bed in beds]
        rows = np.concatenate([bed.rows for bed in beds])
        counts = [len(bed.rows) for bed in beds]
        starts = np.cumsum([0, *counts[:-1]])
        new = np.concatenate([hop.samples for hop in hops], axis=1).T
        self._begin(beds, hops, rows, starts, new)
        history = np.concatenate([self._history[rows, self.hop_samples :], new], axis=1)
        self._history[rows] = history
        quality = assess_quality(
            history[:, -round(self._quality.seconds * self._rate) :], self._rate, self._quality
        )
        whole = fill_missing(np.concatenate([self._last[rows, None], new], axis=1))[:, 1:]
        self._last[rows] = whole[:, -1]
        states = [bed.decisions for bed in beds]
        found = self._detection.push(
            rows, starts, whole, quality == SignalQuality.GOOD, states, [bed.end for bed in beds]
        )
        for bed, first, count, those in zip(beds, starts.tolist(), counts, found, strict=True):
            bed.quality = quality[first : first + count]
            bed.found(those)
            if bed.stream in watched:
                self._trace(bed, new[first : first + count], made)
                made.complexes.setdefault(bed.stream, []).extend(map(bed.moment, those))
        self._score(beds, starts, history, made, now, watched)

    def _begin(self, beds: list[Bed], hops: list[Hop], rows: Rows, starts: Rows, new: Floats) -> None:
        for bed, hop, first in zip(beds, hops, starts.tolist(), strict=True):
            if hop.fresh:
                bed.interrupt()
                samples = new[first : first + len(bed.rows)]
                finite = np.isfinite(samples)
                begin = samples[np.arange(len(samples)), finite.argmax(axis=1)]
                self._last[bed.rows] = np.where(finite.any(axis=1), begin, 0.0)
                self._history[bed.rows] = np.nan
                self._detection.begin(bed.rows, self._last[bed.rows], forget=bed.new)
                bed.new = False

    def _score(
        self,
        beds: list[Bed],
        starts: Rows,
        history: Floats,
        made: Round,
        now: float,
        watched: frozenset[str],
    ) -> None:
        """Cut and score the beats whose samples are all there."""
        whose: list[tuple[Bed, int, Waiting]] = []
        for bed, start in zip(beds, starts.tolist(), strict=True):
            whose += [(bed, start, beat) for beat in bed.waiting if beat.sample + self._after < bed.end]
            bed.waiting = [beat for beat in bed.waiting if beat.sample + self._after >= bed.end]
        # What looking back found too far back has left the history.
        whose = [each for each in whose if self._keep - (each[0].end - each[2].sample) >= self._first]
        if not whose:
            return
        leads = np.array([len(bed.rows) for bed, _, _ in whose])
        offsets = np.cumsum([0, *leads[:-1]])
        best = np.array([start + int(bed.quality.argmin()) for bed, start, _ in whose])
        columns = np.array([self._keep - (bed.end - beat.sample) for bed, _, beat in whose])
        columns = self._aligned(history, best, columns)
        flat_rows = np.concatenate([start + np.arange(len(bed.rows)) for bed, start, _ in whose])
        wide = cut_at(history, flat_rows, np.repeat(columns, leads), self._rate, self._wide)
        cut = wide[:, SHIFTS:-SHIFTS]
        good = np.isfinite(wide).all(axis=1)
        good &= np.concatenate([bed.quality for bed, _, _ in whose]) == SignalQuality.GOOD
        known = good & np.concatenate([[self._scorer.knows(n) for n in bed.leads] for bed, _, _ in whose])
        chosen = np.flatnonzero(known)
        scores = self._scorer(cut[chosen])
        place = np.full(len(cut), -1)
        place[chosen] = np.arange(len(chosen))
        shapes, distances = fit(wide, good, [bed.reference for bed, _, _ in whose])
        for (bed, _, beat), first, count, column in zip(
            whose, offsets.tolist(), leads.tolist(), columns.tolist(), strict=True
        ):
            part = slice(first, first + count)
            if not good[part].any():
                continue
            at = bed.moment(bed.end - self._keep + column)
            seen = _BeatEvidence(at, good[part], shapes[part], distances[part], place[part])
            value, anomalous = _judged(bed, beat, seen, scores)
            made.scores.append(value)
            made.delays.append(bed.time - at + bed.held + max(0.0, now - bed.received))
            if bed.stream in watched:
                shown = {"time": round(at, 3), "score": round(value, 3), "anomalous": anomalous}
                made.beats.setdefault(bed.stream, []).append(shown)

    def _aligned(self, history: Floats, rows: Rows, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Columns moved to the largest deflection nearby."""
        at = columns[:, None] + np.arange(-self._reach, self._reach + 1)
        around = np.nan_to_num(history[rows[:, None], at])
        away = np.abs(around - np.median(around, axis=1, keepdims=True))
        moved: NDArray[np.int64] = at[np.arange(len(at)), away.argmax(axis=1)]
        return moved

    def _trace(self, bed: Bed, samples: Floats, made: Round) -> None:
        every = max(1, round(self._rate / _TRACE))
        for lead, values in zip(bed.leads, samples[:, ::every], strict=True):
            shown = [round(v, 3) if math.isfinite(v) else None for v in values.tolist()]
            start = bed.moment(bed.end - samples.shape[1])
            made.traces.append(
                {
                    "stream": bed.stream,
                    "lead": lead,
                    "start": start,
                    "rate": self._rate / every,
                    "values": shown,
                }
            )


class _BeatEvidence(NamedTuple):
    """Leads of a beat, and its time; `place` is where in the scores they are, -1: they are not."""

    at: float
    good: NDArray[np.bool_]
    shapes: Floats
    distances: Floats
    place: NDArray[np.intp]


def _judged(bed: Bed, beat: Waiting, seen: _BeatEvidence, scores: Scores) -> tuple[float, bool]:
    """The score of a beat, and whether it is anomalous for this patient."""
    bed.beats += 1
    surprises = scores.surprise[seen.place[seen.place >= 0]]
    shapes = np.where(seen.good[:, None], seen.shapes, np.float32(np.nan))
    if bed.reference.shape is None:
        if bed.before is not None:
            bed.reference.show(*bed.before, beat.share)
        bed.before = (shapes, beat.share)
        return score_alone(surprises, beat.share), False
    usable = seen.good & np.isfinite(seen.distances)
    if not usable.any():
        return score_alone(surprises, beat.share), False
    value = score(seen.distances[usable], surprises, beat.share, beat.spread)
    anomalous = value > 1.0
    bed.judged(anomalous)
    if anomalous:
        lead = int(np.where(usable, seen.distances, -np.inf).argmax())
        bed.shown.append(_evidence(bed, lead, seen, scores, value))
    else:
        bed.reference.follow(shapes, beat.share)
    return value, anomalous


def _evidence(bed: Bed, lead: int, seen: _BeatEvidence, scores: Scores, value: float) -> dict[str, Any]:
    """What an alarm shows of an anomalous beat: the lead in which it is the most unusual."""
    assert bed.reference.shape is not None
    place = int(seen.place[lead])
    return {
        "time": round(seen.at, 3),
        "score": round(value, 3),
        "lead": bed.leads[lead],
        "values": seen.shapes[lead],
        "reconstruction": scores.made[place] if place >= 0 else None,
        "reference": bed.reference.shape[lead],
    }
