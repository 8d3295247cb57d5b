"""Figures of an evaluation as tables for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genray.text import aligned, duration
from monitors.evaluation.choice import NestedChoice
from monitors.evaluation.intervals import Interval
from monitors.evaluation.totals import GOALS, QrsRates, Totals


@dataclass(frozen=True)
class FigureTable:
    """A table of figures.

    Attributes:
        title: what it shows; empty: the heading says it.
        heading: names of the columns; empty: the rows say it.
        rows: cells.
        lines: lines after the table.
    """

    title: str
    heading: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    lines: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The table for a terminal."""
        title = [self.title] if self.title else []
        heading = [self.heading] if self.heading else []
        return "\n".join([*title, aligned([*heading, *self.rows]), *self.lines])


def total_tables(totals: Totals, seconds: float) -> list[FigureTable]:
    """Return the figures of an evaluation that took `seconds`: of each record, and of all."""
    heading = (
        *("RECORD", "MIN", "BEATS", "ABNORMAL", "AUC", "CALIBRATED"),
        *("SE", "P+", "EPISODES", "FALSE", "RHYTHM"),
    )
    rows = [
        (
            row.record,
            f"{row.minutes:.0f}",
            str(row.beats),
            "paced" if row.paced else str(row.abnormal),
            _number(row.auc_without),
            _number(row.auc_with),
            _percent(row.sensitivity),
            _percent(row.positive_predictivity),
            f"{row.alarmed}/{row.episodes}",
            str(row.false_anomaly_alarms),
            f"{row.false_rhythm_alarms}/{row.rhythm_alarms}",
        )
        for row in totals.rows
    ]
    return [FigureTable("", heading, rows), FigureTable("", (), list(_total_rows(totals, seconds)))]


def nested_text(choice: NestedChoice) -> str:
    """Return the nested figures and the chosen weights as tables for a person."""
    names = list(choice.final.model_dump())
    rows = [("RECORDS", *(name.upper() for name in names))]
    chosen = [(" ".join(fold.records), fold.weights) for fold in choice.folds]
    for title, weights in [*chosen, ("all", choice.final)]:
        rows.append((title, *(f"{value:g}" for value in weights.model_dump().values())))
    between = choice.as_json()["intervals"]
    share = choice.alarmed / choice.episodes if choice.episodes else None
    alarms = between["alarms"]
    figures = [
        ("AUC without a reference", f"{_number(choice.auc_without)}{_between(choice.auc_without_interval)}"),
        (
            "AUC with the patient's reference",
            f"{_number(choice.auc_with)}{_between(choice.auc_with_interval)}",
        ),
        (
            "episodes with an alarm",
            f"{choice.alarmed} of {choice.episodes}, {_percent(share)}{_between(alarms['share'], 100, 1)}",
        ),
        (
            "false anomaly alarms per hour",
            f"{_number(choice.false_per_hour, 1)}{_between(alarms['false_per_hour'], 1, 1)}",
        ),
    ]
    sets = " ".join(f"--set ward.score.{name}={value:g}" for name, value in choice.final.model_dump().items())
    title = "nested: each group of records with the weights that were chosen on all others"
    return f"{title}\n{aligned(rows)}\n\n{aligned(figures)}\n\nchosen on all records: {sets}"


def rhythm_tables(figures: Mapping[str, Any]) -> list[FigureTable]:
    """Return the figures of annotated rhythms and bedside alarms."""
    tables: list[FigureTable] = []
    if rhythms := figures.get("rhythms"):
        head = (
            "RHYTHM",
            f"OF {rhythms['least_seconds']:g} S",
            "ALARMED",
            "BY KIND",
            "MEDIAN DELAY",
            "ALARMS",
            "FALSE",
            "FALSE/H",
        )
        rows = []
        for kind, each in rhythms["kinds"].items():
            between = each["intervals"]
            delay = f"{_number(each['delay_median'], 0)} s"
            share = f"{_percent(each['share'])}{_between(between['share'], 100, 0)}"
            counts = (str(each["episodes"]), f"{each['alarmed']}, {share}", str(each["named"]))
            per_hour = f"{_number(each['false_per_hour'], 2)}{_between(between['false_per_hour'], 1, 1)}"
            rows.append((kind, *counts, delay, str(each["alarms"]), str(each["false"]), per_hour))
        missed = [f"  {m['record']}: {m['kind']} at {m['begin']:g} s" for m in rhythms["missed"]]
        alarmed = f"alarmed: a high alarm within {rhythms['within_seconds']:g} s"
        title = f"annotated rhythms, {rhythms['hours']:.1f} h; {alarmed}"
        lines = ("without an alarm:", *missed) if missed else ()
        tables.append(FigureTable(title, head, rows, lines))
    if bedside := figures.get("bedside_alarms"):
        title = f"bedside alarms of {bedside['records']} records (challenge 2015)"
        if ecg_only := bedside.get("ecg_only"):
            tables.append(_bedside_table(f"{title}, ECG and pulse waves", bedside))
            tables.append(_bedside_table(f"{title}, ECG only", ecg_only))
        else:
            tables.append(_bedside_table(title, bedside))
    return tables


def _bedside_table(title: str, bedside: Mapping[str, Any]) -> FigureTable:
    heading = ("BEDSIDE ALARM", "TRUE", "RAISED", "FALSE", "REFUSED", "SE", "SP", "SCORE")
    rows: list[tuple[str, ...]] = []
    for kind, each in [*bedside["kinds"].items(), ("all", bedside)]:
        numbers = [str(each[name]) for name in ("true", "raised", "false", "refused")]
        rates = (_percent(each["sensitivity"]), _percent(each["specificity"]), _number(each["score"], 1))
        rows.append((kind, *numbers, *rates))
    return FigureTable(title, heading, rows)


def _total_rows(totals: Totals, seconds: float) -> Iterator[tuple[str, str, str]]:
    auc, qrs, alarms = totals.beat_auc, totals.qrs, totals.alarms
    yield f"AUC of beat scores: {auc.beats} beats, {auc.abnormal} abnormal", "", ""
    between = totals.intervals
    for title, goal, value, interval, mean in (
        (
            "  without a reference",
            GOALS["beat_auc.without"],
            auc.without,
            between.auc_without,
            auc.mean_without,
        ),
        (
            "  with the patient's reference",
            GOALS["beat_auc.with"],
            auc.with_reference,
            between.auc_with,
            auc.mean_with,
        ),
    ):
        mean_text = f"goal {goal:g}; mean over records {_number(mean)}"
        yield title, f"{_number(value)}{_between(interval)}", mean_text
    yield "  without a reference, all beats", _number(auc.without_all_beats), ""
    yield f"QRS detection, {qrs.all_leads.beats} beats, within 150 ms", "", "Se / P+"
    sensitivity, predictivity = GOALS["qrs.sensitivity"], GOALS["qrs.positive_predictivity"]
    goals = f"goal {_percent(sensitivity)} / {_percent(predictivity)}"
    yield "  all leads, whole records", _both(qrs.all_leads), goals
    rates = (between.sensitivity, between.positive_predictivity)
    yield "", " / ".join(_between(each, 100, 2).strip() for each in rates), ""
    yield "  all leads, after the first 5 minutes (EC57)", _both(qrs.all_leads_after_5_minutes), ""
    yield "  one lead, whole records", _both(qrs.one_lead), ""
    yield "  one lead, after the first 5 minutes (EC57)", _both(qrs.one_lead_after_5_minutes), ""
    yield f"alarms in {totals.hours:.1f} h, end to end", "", ""
    alarmed = f"{alarms.alarmed} of {alarms.episodes}, goal {_percent(GOALS['alarms.share'])}"
    share = f"{_percent(alarms.share)}{_between(between.share, 100, 1)}"
    yield "  episodes of abnormal beats with an alarm", share, alarmed
    most = f"goal at most {GOALS['alarms.false_per_hour']:g}"
    false = f"{alarms.anomaly.false} of {alarms.anomaly.announced} alarms, {most}"
    per_hour = f"{_number(alarms.false_per_hour, 1)}{_between(between.false_per_hour, 1, 1)}"
    yield "  false anomaly alarms per hour", per_hour, false
    kinds = ", ".join(
        f"{kind} {counts.false} of {counts.announced}" for kind, counts in alarms.rhythm.items()
    )
    all_false = _number(alarms.physiological_false_per_hour, 1)
    yield "  false physiological alarms per hour", all_false, f"false: {kinds}"
    p90 = f"90 % within {_number(alarms.delay_p90, 0)} s"
    yield "  median delay from episode to alarm", f"{_number(alarms.delay_median, 0)} s", p90
    technical = f"technical {_number(alarms.technical_per_day, 0)}"
    yield "  physiological alarms per bed and day", _number(alarms.physiological_per_day, 0), technical
    if between.auc_with or between.share:
        yield "in brackets: 95 % intervals, by bootstrap over records", "", ""
    yield "time", duration(seconds), ""


def _between(interval: Interval | None, scale: float = 1, digits: int = 3) -> str:
    if interval is None:
        return ""
    low, high = (f"{scale * bound:.{digits}f}" for bound in interval)
    return f" ({low} to {high})"


def _both(rates: QrsRates) -> str:
    return f"{_percent(rates.sensitivity)} / {_percent(rates.positive_predictivity)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
