"""Choice of the weights of the score by nested cross-validation over records: for each group of records, the
weights are chosen on all others, so that the figures are of records that nothing was chosen on.

Beats were detected and compared once; only their scores are computed again. What depends on scores while the
monitor runs is that of the weights that it ran with: which beats a reference follows. Alarms are by scores
alone, without the rules for noise and other heart rates. The models of normal beats are those of the
evaluation, which were not trained on the records that they score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitors.alarms.events import Observation, Transition
from monitors.alarms.limits import Limits
from monitors.alarms.machine import step
from monitors.alarms.state import AlarmState
from monitors.evaluation.evaluate import LabelledScores, ScoredRecord
from monitors.evaluation.intervals import Interval, auc_interval, draw_counts, ratio_interval
from monitors.evaluation.matching import alarm_delay, alarm_spans, false_alarms
from monitors.evaluation.totals import auc
from monitors.patient.scoring import ScoreSettings, score_beat, score_new_patient

CANDIDATES: Mapping[str, tuple[float, ...]] = {
    "lower": (0.4, 0.7, 1.0),
    "surprise": (0.0, 0.1, 0.25, 0.5),
    "early": (2.0, 3.5, 5.0, 8.0),
    "early_alone": (1.0, 2.0, 4.0, 6.0),
    "margin": (0.05, 0.2, 0.35, 0.5, 0.7, 0.9),
}
"""Values of each weight that are compared."""

_FALSE = 0.025  # share of the episodes that a false alarm per hour weighs as much as
_DELAY = 1.3  # s from a beat to its score, about
_CALM = 70.0  # beats/min, so that no other alarm interferes


@dataclass(frozen=True)
class AlarmFigures:
    """Anomaly alarms of a record: episodes, those with an alarm, false alarms, and hours."""

    episodes: int
    alarmed: int
    false: int
    hours: float


@dataclass(frozen=True)
class Fold:
    """Records that the weights were judged on, and the weights that were chosen on all others."""

    records: tuple[str, ...]
    weights: ScoreSettings


@dataclass(frozen=True)
class NestedChoice:
    """Result of the nested cross-validation.

    Attributes:
        folds: groups of records, with the weights that were chosen without them.
        final: weights that are chosen on all records.
        auc_without, auc_with: area under the ROC curve of the beats of the groups, each scored with the
            weights that were chosen without it: for a new patient, and with the patient's reference.
        alarms: anomaly alarms of each record, with the same weights.
    """

    folds: tuple[Fold, ...]
    final: ScoreSettings
    auc_without: float | None
    auc_with: float | None
    auc_without_interval: Interval | None
    auc_with_interval: Interval | None
    alarms: tuple[AlarmFigures, ...]

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return sum(each.episodes for each in self.alarms)

    @property
    def alarmed(self) -> int:
        """Number of episodes with an alarm."""
        return sum(each.alarmed for each in self.alarms)

    @property
    def false_per_hour(self) -> float | None:
        """False alarms per hour."""
        hours = sum(each.hours for each in self.alarms)
        return sum(each.false for each in self.alarms) / hours if hours else None

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        counts = draw_counts(len(self.alarms))
        alarmed, episodes = [a.alarmed for a in self.alarms], [a.episodes for a in self.alarms]
        false, hours = [a.false for a in self.alarms], [a.hours for a in self.alarms]
        return {
            "folds": [
                {"records": list(fold.records), "weights": fold.weights.model_dump()} for fold in self.folds
            ],
            "chosen_on_all": self.final.model_dump(),
            "beat_auc": {"without": self.auc_without, "with": self.auc_with},
            "alarms": {
                "episodes": self.episodes,
                "alarmed": self.alarmed,
                "share": self.alarmed / self.episodes if self.episodes else None,
                "false": sum(false),
                "false_per_hour": self.false_per_hour,
            },
            "intervals": {
                "beat_auc": {"without": self.auc_without_interval, "with": self.auc_with_interval},
                "alarms": {
                    "share": ratio_interval(alarmed, episodes, counts),
                    "false_per_hour": ratio_interval(false, hours, counts),
                },
            },
        }


def choose_nested(
    records: Sequence[ScoredRecord], folds: int, limits: Limits, burden_beats: int
) -> NestedChoice:
    """Choose the weights of the score on all records but those of each group, and judge them on the group.

    Args:
        records: beats of the records, at least two.
        folds: number of groups; reduced to the number of records.
        limits: alarm limits.
        burden_beats: number of last beats whose anomalous share is the burden.
    """
    table = _Table(records, limits, burden_beats)
    folds = min(folds, len(records))
    everything = list(range(len(records)))
    chosen: list[Fold] = []
    with_reference: list[LabelledScores] = []
    without_reference: list[LabelledScores] = []
    alarms: list[AlarmFigures] = []
    for fold in range(folds):
        judged = everything[fold::folds]
        weights = table.choose([record for record in everything if record not in judged])
        chosen.append(Fold(tuple(records[record].name for record in judged), weights))
        for record in judged:
            with_reference.append(LabelledScores(records[record].abnormal, table.own(record, weights)))
            without_reference.append(LabelledScores(records[record].abnormal, table.new(record, weights)))
            alarms.append(table.alarms(record, weights))
    counts = draw_counts(len(records))
    return NestedChoice(
        folds=tuple(chosen),
        final=table.choose(everything),
        auc_without=auc(LabelledScores.pooled(without_reference)),
        auc_with=auc(LabelledScores.pooled(with_reference)),
        auc_without_interval=auc_interval(without_reference, counts),
        auc_with_interval=auc_interval(with_reference, counts),
        alarms=tuple(alarms),
    )


@dataclass
class _Table:
    """Scores and alarms of records for weights that were asked for before."""

    records: Sequence[ScoredRecord]
    limits: Limits
    burden_beats: int
    _own: dict[tuple[int, str], NDArray[np.float64]] = field(default_factory=dict)
    _alarms: dict[tuple[int, str], AlarmFigures] = field(default_factory=dict)

    def choose(self, places: Sequence[int]) -> ScoreSettings:
        """Return the weights that are best on the records at `places`: the areas under the ROC curve decide
        on all but the margin, episodes and false alarms on that."""
        labels = np.concatenate([self.records[place].abnormal for place in places])

        def area(scores: Sequence[NDArray[np.float64]]) -> float:
            return auc(LabelledScores(labels, np.concatenate(scores))) or 0.0

        names = ("lower", "surprise", "early")
        options = [
            ScoreSettings(**dict(zip(names, values, strict=True)))
            for values in product(*(CANDIDATES[name] for name in names))
        ]
        best = max(options, key=lambda weights: area([self.own(place, weights) for place in places]))
        alone = [best.model_copy(update={"early_alone": value}) for value in CANDIDATES["early_alone"]]
        best = max(alone, key=lambda weights: area([self.new(place, weights) for place in places]))
        margins = [best.model_copy(update={"margin": value}) for value in CANDIDATES["margin"]]
        return max(margins, key=lambda weights: self._value(places, weights))

    def _value(self, places: Sequence[int], weights: ScoreSettings) -> float:
        figures = [self.alarms(place, weights) for place in places]
        episodes = sum(each.episodes for each in figures)
        hours = sum(each.hours for each in figures)
        share = sum(each.alarmed for each in figures) / episodes if episodes else 0.0
        return share - _FALSE * sum(each.false for each in figures) / max(hours, 1e-9)

    def own(self, place: int, weights: ScoreSettings) -> NDArray[np.float64]:
        """Return the scores of the compared beats of a record with its reference."""
        return self._scores(place, weights)[self.records[place].compared]

    def new(self, place: int, weights: ScoreSettings) -> NDArray[np.float64]:
        """Return the scores of the compared beats of a record without a reference."""
        return np.array([score_new_patient(inputs, weights) for inputs in self.records[place].new])

    def _scores(self, place: int, weights: ScoreSettings) -> NDArray[np.float64]:
        """Return the scores of all beats of a record; NaN of those without a reference."""
        key = place, repr(weights.model_copy(update={"early_alone": 0.0, "margin": 0.0}))
        if key not in self._own:
            plain = weights.model_copy(update={"margin": 0.0})
            self._own[key] = np.array(
                [
                    score_beat(beat.inputs, plain) if len(beat.inputs.distances) else np.nan
                    for beat in self.records[place].beats
                ]
            )
        return np.asarray(self._own[key] * np.exp(-weights.margin), np.float64)

    def alarms(self, place: int, weights: ScoreSettings) -> AlarmFigures:
        """Return the anomaly alarms of a record, by the alarm rules of the monitor."""
        key = place, repr(weights.model_copy(update={"early_alone": 0.0}))
        if key not in self._alarms:
            record = self.records[place]
            spans = alarm_spans(self._transitions(record, self._scores(place, weights)), record.watched.end)
            announced = [alarm for alarm in spans if alarm.kind == "anomaly" and alarm.announced]
            found = [alarm_delay(episode, announced) for episode in record.episodes]
            self._alarms[key] = AlarmFigures(
                len(record.episodes),
                sum(delay is not None for delay in found),
                len(false_alarms(announced, record.episodes)),
                (record.watched.end - record.watched.start) / 3600,
            )
        return self._alarms[key]

    def _transitions(self, record: ScoredRecord, scores: NDArray[np.float64]) -> list[Transition]:
        known = np.isfinite(scores)
        times = np.array([beat.time for beat in record.beats])[known] + _DELAY
        before = np.concatenate([[0], np.cumsum(scores[known] > 1.0)])
        state = AlarmState(record.name)
        transitions: list[Transition] = []
        for second in range(int(record.watched.end)):
            count = int(np.searchsorted(times, second))
            burden = None
            if count >= self.burden_beats:
                burden = float(before[count] - before[count - self.burden_beats]) / self.burden_beats
            now = Observation(time=float(second), heart_rate=_CALM, silence=0.0, burden=burden)
            state, changes = step(state, now, self.limits)
            transitions += changes
        return transitions
