"""The figures of an evaluation of the monitor as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from genray.cli.output import aligned
from genray.progress import duration

_HEAD = ("RECORD", "MIN", "BEATS", "ABNORMAL", "NEW", "LEARNED", "SE", "P+", "EPISODES", "FALSE", "RHYTHM")


def table(figures: Mapping[str, Any]) -> str:
    """What `monitors.evaluation.totals.totals` found, readable."""
    rows = [
        ("RECORD", "MIN", "BEATS", "ABNORMAL", "AUC", "CALIBRATED", "SE", "P+", "EPISODES", "FALSE", "RHYTHM")
    ]
    for row in figures["per_record"]:
        rows.append(
            (
                row["record"],
                f"{row['minutes']:.0f}",
                str(row["beats"]),
                "paced" if row["paced"] else str(row["abnormal"]),
                _number(row["auc_without"]),
                _number(row["auc_with"]),
                _percent(row["sensitivity"]),
                _percent(row["positive_predictivity"]),
                f"{row['alarmed']}/{row['episodes']}",
                str(row["false_anomaly_alarms"]),
                f"{row['false_rhythm_alarms']}/{row['rhythm_alarms']}",
            )
        )
    return f"{aligned(rows)}\n\n{aligned(list(_totals(figures)))}"


def _totals(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    auc, qrs, alarms, goals = (figures[key] for key in ("beat_auc", "qrs", "alarms", "goals"))
    mean, delay, rhythm = auc["mean"], alarms["delay"], alarms["rhythm"]
    yield f"beat AUC of {auc['beats']} beats, {auc['abnormal']} abnormal", "", ""
    for key, title in (("without", "  new patient"), ("with", "  with his own reference")):
        beside = f"goal {goals[f'beat_auc.{key}']:g}; mean over records {_number(mean[key])}"
        yield title, _number(auc[key]), beside
    yield "  new patient, all beats", _number(auc["without_all_beats"]), ""
    yield f"QRS detection, {qrs['beats']} beats, within 150 ms", "", "Se / P+"
    goal = " / ".join(_percent(goals[f"qrs.{key}"]) for key in ("sensitivity", "positive_predictivity"))
    yield "  all leads, whole records", _both(qrs), f"goal {goal}"
    yield "  all leads, after the first 5 minutes (EC57)", _both(qrs["after_5_minutes"]), ""
    yield "  one lead, whole records", _both(qrs["one_lead"]), ""
    yield "  one lead, after the first 5 minutes (EC57)", _both(qrs["one_lead"]["after_5_minutes"]), ""
    yield f"alarms in {figures['hours']:.1f} h, end to end", "", ""
    found = f"{alarms['alarmed']} of {alarms['episodes']}, goal {_percent(goals['alarms.share'])}"
    yield "  episodes of abnormal beats alarmed", _percent(alarms["share"]), found
    false = f"of {alarms['alarms']} alarms {alarms['false']}, goal at most {goals['alarms.false_per_hour']:g}"
    yield "  anomaly: false an hour", _number(alarms["false_per_hour"], 1), false
    of_all = alarms["physiological"]
    kinds = ", ".join(f"{kind} {each['false']} of {each['alarms']}" for kind, each in rhythm.items())
    yield "  all physiological: false an hour", _number(of_all["false_per_hour"], 1), f"false {kinds}"
    waited = f"90 % within {_number(delay['p90'], 0)} s"
    yield "  from episode to alarm, median", f"{_number(delay['median'], 0)} s", waited
    day = alarms["per_bed_and_day"]
    technical = f"technical {_number(day['technical'], 0)}"
    yield "  alarms per bed and day", _number(day["physiological"], 0), technical
    yield "time", duration(figures["seconds"]), ""


def _both(rates: Mapping[str, Any]) -> str:
    return f"{_percent(rates['sensitivity'])} / {_percent(rates['positive_predictivity'])}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
