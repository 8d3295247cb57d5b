"""The figures of an evaluation over all records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitors.evaluation.evaluate import Counts, Judged
from monitors.evaluation.matching import RHYTHM

GOALS: Mapping[str, float] = {
    "beat_auc.without": 0.85,
    "beat_auc.with": 0.93,
    "qrs.sensitivity": 0.992,
    "qrs.positive_predictivity": 0.979,
    "alarms.share": 0.9,
    "alarms.false_per_hour": 4.0,
}
"""What to reach: at least, of false alarms at most."""


def totals(judged: Sequence[Judged]) -> dict[str, Any]:
    """All figures as plain JSON values; None where there is nothing to count.

    Beats and episodes are pooled over the records; `beat_auc.mean` are means over the records that have
    beats of both kinds.
    """
    return {
        "records": len(judged),
        "hours": round(sum(each.hours for each in judged), 4),
        "beat_auc": _beats(judged),
        "qrs": {
            **rates(each.qrs for each in judged),
            "after_5_minutes": rates(each.qrs_after for each in judged),
            "one_lead": {
                **rates(each.one_lead for each in judged),
                "after_5_minutes": rates(each.one_lead_after for each in judged),
            },
        },
        "alarms": _alarms(judged),
        "goals": dict(GOALS),
        "per_record": [_row(each) for each in judged],
    }


def rates(counts: Iterable[Counts]) -> dict[str, Any]:
    """Gross sensitivity and positive predictivity: of all beats together."""
    known, found, both = (sum(each) for each in zip(*counts, strict=True))
    return {
        "sensitivity": _share(both, known),
        "positive_predictivity": _share(both, found),
        "beats": known,
        "missed": known - both,
        "extra": found - both,
    }


def auc(abnormal: NDArray[np.bool_], scores: NDArray[np.float64]) -> float | None:
    """How often an abnormal beat has a higher score than a normal one; None without both."""
    if not abnormal.any() or abnormal.all():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(abnormal, scores))


def _beats(judged: Sequence[Judged]) -> dict[str, Any]:
    truth = np.concatenate([each.truth for each in judged])
    calibrated = [auc(each.truth, each.calibrated) for each in judged]
    alone = [auc(each.truth, each.alone) for each in judged]
    return {
        "without": auc(truth, np.concatenate([each.alone for each in judged])),
        "with": auc(truth, np.concatenate([each.calibrated for each in judged])),
        "mean": {"without": _mean(alone), "with": _mean(calibrated)},
        "without_all_beats": auc(*(np.concatenate([each.every[i] for each in judged]) for i in (0, 1))),
        "beats": len(truth),
        "abnormal": int(truth.sum()),
    }


def _alarms(judged: Sequence[Judged]) -> dict[str, Any]:
    episodes, alarmed = sum(each.episodes for each in judged), sum(len(each.delays) for each in judged)
    hours, watched = sum(each.hours for each in judged), sum(each.watched for each in judged)
    delays = [delay for each in judged for delay in each.delays]
    announced, false = (sum(each.anomaly[i] for each in judged) for i in (0, 1))
    rhythm = {
        kind: {
            "alarms": sum(e.rhythm[kind][0] for e in judged),
            "false": sum(e.rhythm[kind][1] for e in judged),
        }
        for kind in RHYTHM
    }
    of_rhythm, false_rhythm = (sum(each[key] for each in rhythm.values()) for key in ("alarms", "false"))
    false_anomaly_rate, false_rhythm_rate = _share(false, watched), _share(false_rhythm, hours)
    return {
        "episodes": episodes,
        "alarmed": alarmed,
        "share": _share(alarmed, episodes),
        "alarms": announced,
        "false": false,
        "false_per_hour": false_anomaly_rate,
        "hours": round(watched, 4),
        "delay": {
            "median": float(np.median(delays)) if delays else None,
            "p90": float(np.quantile(delays, 0.9)) if delays else None,
        },
        "rhythm": rhythm,
        "physiological": {
            "alarms": announced + of_rhythm,
            "false": false + false_rhythm,
            "false_per_hour": (false_anomaly_rate or 0.0) + (false_rhythm_rate or 0.0),
        },
        "per_bed_and_day": {
            "physiological": _share(24 * (announced + of_rhythm), hours),
            "technical": _share(24 * sum(each.technical for each in judged), hours),
        },
    }


def _row(judged: Judged) -> dict[str, Any]:
    return {
        "record": judged.name,
        "minutes": round(60 * judged.hours, 2),
        "leads": list(judged.leads),
        "beats": judged.beats,
        "abnormal": judged.abnormal,
        "paced": judged.paced,
        "learned_after": judged.learned,
        "auc_without": auc(judged.truth, judged.alone),
        "auc_with": auc(judged.truth, judged.calibrated),
        "sensitivity": _share(judged.qrs.both, judged.qrs.known),
        "positive_predictivity": _share(judged.qrs.both, judged.qrs.found),
        "episodes": judged.episodes,
        "alarmed": len(judged.delays),
        "anomaly_alarms": judged.anomaly[0],
        "false_anomaly_alarms": judged.anomaly[1],
        "rhythm_alarms": sum(alarms for alarms, _ in judged.rhythm.values()),
        "false_rhythm_alarms": sum(false for _, false in judged.rhythm.values()),
        "technical_alarms": judged.technical,
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
