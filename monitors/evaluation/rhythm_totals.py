"""Figures of the alarms for life-threatening rhythms over all records, as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitors.evaluation.intervals import draw_counts, ratio_interval
from monitors.evaluation.rhythms import (
    BEDSIDE_KINDS,
    LEAST,
    RHYTHM_KINDS,
    WITHIN,
    BedsideCounts,
    BedsideJudgement,
    RhythmJudgement,
)


def rhythms_json(judgements: Mapping[str, RhythmJudgement]) -> dict[str, Any]:
    """Return the figures of annotated rhythms as plain JSON values."""
    hours = sum(judgement.hours for judgement in judgements.values())
    counts = draw_counts(len(judgements))
    kinds: dict[str, Any] = {}
    for kind in RHYTHM_KINDS:
        of_records = [[e for e in each.episodes if e.kind == kind] for each in judgements.values()]
        episodes = [e for each in of_records for e in each]
        delays = sorted(e.delay for e in episodes if e.delay is not None)
        alarms = sum(len(judgement.alarms[kind]) for judgement in judgements.values())
        false = sum(len(judgement.false[kind]) for judgement in judgements.values())
        kinds[kind] = {
            "episodes": len(episodes),
            "alarmed": len(delays),
            "share": len(delays) / len(episodes) if episodes else None,
            "named": sum(e.named for e in episodes),
            "delay_median": delays[len(delays) // 2] if delays else None,
            "alarms": alarms,
            "false": false,
            "false_per_hour": false / hours if hours else None,
            "intervals": {
                "share": ratio_interval(
                    [sum(e.delay is not None for e in each) for each in of_records],
                    [len(each) for each in of_records],
                    counts,
                ),
                "false_per_hour": ratio_interval(
                    [len(judgement.false[kind]) for judgement in judgements.values()],
                    [judgement.hours for judgement in judgements.values()],
                    counts,
                ),
            },
        }
    return {
        "hours": round(hours, 4),
        "least_seconds": LEAST,
        "within_seconds": WITHIN,
        "kinds": kinds,
        "missed": [
            {"record": name, "kind": e.kind, "begin": round(e.span.start, 1), "end": round(e.span.end, 1)}
            for name, judgement in judgements.items()
            for e in judgement.episodes
            if e.delay is None
        ],
        "false_alarms": [
            {"record": name, "kind": kind, "time": round(time, 1)}
            for name, judgement in judgements.items()
            for kind, times in judgement.false.items()
            for time in times
        ],
    }


def bedside_json(judgements: Mapping[str, BedsideJudgement]) -> dict[str, Any]:
    """Return the figures of bedside alarms as plain JSON values."""
    kinds = {
        kind: BedsideCounts.of([j for j in judgements.values() if j.alarm.kind == kind]).as_json()
        for kind in BEDSIDE_KINDS
        if any(j.alarm.kind == kind for j in judgements.values())
    }
    return {
        "records": len(judgements),
        **BedsideCounts.of(list(judgements.values())).as_json(),
        "kinds": kinds,
        "wrong": [
            {"record": name, "kind": j.alarm.kind, "confirmed": j.alarm.confirmed}
            for name, j in judgements.items()
            if not j.is_right
        ],
    }
