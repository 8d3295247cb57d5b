"""Figures of an evaluation over all records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monitors.alarms.events import AlarmKind
from monitors.evaluation.evaluate import AlarmCounts, BeatCounts, LabelledScores, RecordResult
from monitors.evaluation.intervals import DRAWS, LEVEL, Intervals
from monitors.evaluation.matching import RHYTHM

GOALS: Mapping[str, float] = {
    "beat_auc.without": 0.85,
    "beat_auc.with": 0.93,
    "qrs.sensitivity": 0.992,
    "qrs.positive_predictivity": 0.979,
    "alarms.share": 0.9,
    "alarms.false_per_hour": 4.0,
}
"""Goals: least values, but the most of false alarms per hour."""


@dataclass(frozen=True)
class Totals:
    """All figures of an evaluation; None where there is nothing to count.

    Attributes:
        records: number of records.
        hours: their total length.
        intervals: confidence intervals of the pooled figures.
        rows: figures of each record.
    """

    records: int
    hours: float
    beat_auc: BeatAuc
    qrs: QrsTotals
    alarms: AlarmTotals
    intervals: Intervals
    rows: tuple[RecordRow, ...]

    @classmethod
    def of(cls, results: Sequence[RecordResult]) -> Totals:
        """Return the figures of `results`, with beats and episodes pooled over the records."""
        return cls(
            records=len(results),
            hours=round(sum(result.hours for result in results), 4),
            beat_auc=BeatAuc.of(results),
            qrs=QrsTotals.of(results),
            alarms=AlarmTotals.of(results),
            intervals=Intervals.of(results),
            rows=tuple(RecordRow.of(result) for result in results),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "records": self.records,
            "hours": self.hours,
            "beat_auc": self.beat_auc.as_json(),
            "qrs": self.qrs.as_json(),
            "alarms": self.alarms.as_json(),
            "goals": dict(GOALS),
            "intervals": intervals_json(self.intervals),
            "per_record": [asdict(row) | {"leads": list(row.leads)} for row in self.rows],
        }


@dataclass(frozen=True)
class BeatAuc:
    """Area under the ROC curve of beat scores, for abnormal against normal beats.

    Attributes:
        without: AUC without a reference, of the beats after the reference was learned.
        with_reference: AUC with the patient's reference, of the same beats.
        mean_without, mean_with: mean AUC over the records with both kinds of beats.
        without_all_beats: AUC without a reference, of all beats of the records.
        beats: number of beats that are compared.
        abnormal: number of abnormal beats among them.
    """

    without: float | None
    with_reference: float | None
    mean_without: float | None
    mean_with: float | None
    without_all_beats: float | None
    beats: int
    abnormal: int

    @classmethod
    def of(cls, results: Sequence[RecordResult]) -> BeatAuc:
        """Return the AUC over the beats of all records."""
        calibrated = LabelledScores.pooled(result.with_reference for result in results)
        return cls(
            without=auc(LabelledScores.pooled(result.without_reference for result in results)),
            with_reference=auc(calibrated),
            mean_without=_mean([auc(result.without_reference) for result in results]),
            mean_with=_mean([auc(result.with_reference) for result in results]),
            without_all_beats=auc(LabelledScores.pooled(result.all_without_reference for result in results)),
            beats=len(calibrated.abnormal),
            abnormal=int(calibrated.abnormal.sum()),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "without": self.without,
            "with": self.with_reference,
            "mean": {"without": self.mean_without, "with": self.mean_with},
            "without_all_beats": self.without_all_beats,
            "beats": self.beats,
            "abnormal": self.abnormal,
        }


@dataclass(frozen=True)
class QrsRates:
    """Gross sensitivity and positive predictivity (EC57): over all beats together."""

    sensitivity: float | None
    positive_predictivity: float | None
    beats: int
    missed: int
    extra: int

    @classmethod
    def of(cls, counts: Iterable[BeatCounts]) -> QrsRates:
        """Return the rates over the beats of all records."""
        annotated, detected, matched = (sum(numbers) for numbers in zip(*counts, strict=True))
        return cls(
            sensitivity=_share(matched, annotated),
            positive_predictivity=_share(matched, detected),
            beats=annotated,
            missed=annotated - matched,
            extra=detected - matched,
        )


@dataclass(frozen=True)
class QrsTotals:
    """QRS detection with all leads or one, in whole records or after the first five minutes (EC57)."""

    all_leads: QrsRates
    all_leads_after_5_minutes: QrsRates
    one_lead: QrsRates
    one_lead_after_5_minutes: QrsRates

    @classmethod
    def of(cls, results: Sequence[RecordResult]) -> QrsTotals:
        """Return the rates over all records."""
        return cls(
            QrsRates.of(result.qrs.whole for result in results),
            QrsRates.of(result.qrs.after_learning for result in results),
            QrsRates.of(result.one_lead_qrs.whole for result in results),
            QrsRates.of(result.one_lead_qrs.after_learning for result in results),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            **asdict(self.all_leads),
            "after_5_minutes": asdict(self.all_leads_after_5_minutes),
            "one_lead": {
                **asdict(self.one_lead),
                "after_5_minutes": asdict(self.one_lead_after_5_minutes),
            },
        }


@dataclass(frozen=True)
class AlarmTotals:
    """Figures of the alarms.

    Attributes:
        episodes: number of episodes of abnormal beats.
        alarmed: number of episodes with an alarm; `share`: their share, 0 to 1.
        anomaly: anomaly alarms.
        false_per_hour: false anomaly alarms per hour, over the `hours` in which they are possible.
        delay_median, delay_p90: seconds from an episode to its alarm, median and 90 % quantile.
        rhythm: asystole, bradycardia and tachycardia alarms, by kind.
        physiological: anomaly and rhythm alarms together.
        physiological_per_day, technical_per_day: alarms per bed and day.
    """

    episodes: int
    alarmed: int
    share: float | None
    anomaly: AlarmCounts
    false_per_hour: float | None
    hours: float
    delay_median: float | None
    delay_p90: float | None
    rhythm: Mapping[AlarmKind, AlarmCounts]
    physiological: AlarmCounts
    physiological_false_per_hour: float
    physiological_per_day: float | None
    technical_per_day: float | None

    @classmethod
    def of(cls, results: Sequence[RecordResult]) -> AlarmTotals:
        """Return the figures over all records."""
        episodes = sum(result.episodes for result in results)
        delays = [delay for result in results for delay in result.delays]
        hours = sum(result.hours for result in results)
        watched_hours = sum(result.watched_hours for result in results)
        anomaly = _sum([result.anomaly for result in results])
        rhythm = {kind: _sum([result.rhythm[kind] for result in results]) for kind in RHYTHM}
        all_rhythm = _sum(list(rhythm.values()))
        physiological = _sum([anomaly, all_rhythm])
        false_per_hour = _share(anomaly.false, watched_hours)
        return cls(
            episodes=episodes,
            alarmed=len(delays),
            share=_share(len(delays), episodes),
            anomaly=anomaly,
            false_per_hour=false_per_hour,
            hours=round(watched_hours, 4),
            delay_median=float(np.median(delays)) if delays else None,
            delay_p90=float(np.quantile(delays, 0.9)) if delays else None,
            rhythm=rhythm,
            physiological=physiological,
            physiological_false_per_hour=(false_per_hour or 0.0) + (_share(all_rhythm.false, hours) or 0.0),
            physiological_per_day=_share(24 * physiological.announced, hours),
            technical_per_day=_share(24 * sum(result.technical for result in results), hours),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "episodes": self.episodes,
            "alarmed": self.alarmed,
            "share": self.share,
            "alarms": self.anomaly.announced,
            "false": self.anomaly.false,
            "false_per_hour": self.false_per_hour,
            "hours": self.hours,
            "delay": {"median": self.delay_median, "p90": self.delay_p90},
            "rhythm": {
                kind: {"alarms": counts.announced, "false": counts.false}
                for kind, counts in self.rhythm.items()
            },
            "physiological": {
                "alarms": self.physiological.announced,
                "false": self.physiological.false,
                "false_per_hour": self.physiological_false_per_hour,
            },
            "per_bed_and_day": {
                "physiological": self.physiological_per_day,
                "technical": self.technical_per_day,
            },
        }


@dataclass(frozen=True)
class RecordRow:
    """Figures of one record, with the names that they have in JSON."""

    record: str
    minutes: float
    leads: tuple[str, ...]
    beats: int
    abnormal: int
    paced: bool
    learned_after: float | None
    auc_without: float | None
    auc_with: float | None
    sensitivity: float | None
    positive_predictivity: float | None
    episodes: int
    alarmed: int
    anomaly_alarms: int
    false_anomaly_alarms: int
    rhythm_alarms: int
    false_rhythm_alarms: int
    technical_alarms: int

    @classmethod
    def of(cls, result: RecordResult) -> RecordRow:
        """Return the figures of `result`."""
        rates = QrsRates.of([result.qrs.whole])
        rhythm = _sum(list(result.rhythm.values()))
        return cls(
            record=result.name,
            minutes=round(60 * result.hours, 2),
            leads=result.leads,
            beats=result.beats,
            abnormal=result.abnormal,
            paced=result.paced,
            learned_after=result.learned,
            auc_without=auc(result.without_reference),
            auc_with=auc(result.with_reference),
            sensitivity=rates.sensitivity,
            positive_predictivity=rates.positive_predictivity,
            episodes=result.episodes,
            alarmed=len(result.delays),
            anomaly_alarms=result.anomaly.announced,
            false_anomaly_alarms=result.anomaly.false,
            rhythm_alarms=rhythm.announced,
            false_rhythm_alarms=rhythm.false,
            technical_alarms=result.technical,
        )


def intervals_json(intervals: Intervals) -> dict[str, Any]:
    """Return the intervals as plain JSON values, under the names of their figures."""
    return {
        "level": LEVEL,
        "draws": DRAWS,
        "beat_auc": {"without": intervals.auc_without, "with": intervals.auc_with},
        "qrs": {
            "sensitivity": intervals.sensitivity,
            "positive_predictivity": intervals.positive_predictivity,
        },
        "alarms": {
            "share": intervals.share,
            "false_per_hour": intervals.false_per_hour,
            "rhythm_false_per_hour": intervals.rhythm_false_per_hour,
        },
    }


def auc(labelled: LabelledScores) -> float | None:
    """Return the area under the ROC curve: how often an abnormal beat scores higher than a normal one; None
    if one of the two kinds is missing."""
    if not labelled.abnormal.any() or labelled.abnormal.all():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labelled.abnormal, labelled.scores))


def _sum(counts: Sequence[AlarmCounts]) -> AlarmCounts:
    return AlarmCounts(sum(each.announced for each in counts), sum(each.false for each in counts))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
