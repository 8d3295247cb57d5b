"""Couplets, ventricular runs, bigeminy and atrial fibrillation are alarms below high priority."""

from __future__ import annotations

from typing import Any

import pytest

from monitors.alarms.conditions import CLEAR, CONDITIONS, LOW, MEDIUM, UNKNOWN, Situation, measured_values
from monitors.alarms.events import AlarmKind, Irregularity, JudgedBeat, Observation
from monitors.alarms.limits import Limits
from monitors.alarms.reasons import measurement
from tests.monitors.alarms.scripted_bed import ScriptedBed

WITHOUT_ORDER = Irregularity(0.25, 0.85, 0.66, 0.0)


def beats(kinds: str, per_minute: float = 80.0, later: float = 0.3) -> dict[str, Any]:
    """The last beats, N or V, of which the last was `later` seconds ago."""
    period = 60 / per_minute
    judged = [JudgedBeat(n * period, 0.95 if kind == "V" else 0.02) for n, kind in enumerate(kinds)]
    return {"time": judged[-1].time + later, "beats": tuple(judged), "tachycardia": 0.0}


def level(
    kind: AlarmKind, observed: dict[str, Any], limits: dict[str, Any] | None = None, **more: Any
) -> int:
    situation = Situation(Observation(**observed), Limits.model_validate(limits or {}), **more)
    return CONDITIONS[kind].level(situation)


@pytest.mark.parametrize(
    ("kinds", "couplet", "run", "bigeminy"),
    [
        ("NNNNNNNN", CLEAR, CLEAR, CLEAR),
        ("NNVNNNNN", CLEAR, CLEAR, CLEAR),
        ("NNNNVVN", LOW, CLEAR, CLEAR),
        ("NNNNVV", CLEAR, CLEAR, CLEAR),  # a third one may follow
        ("NNNVVVN", CLEAR, MEDIUM, CLEAR),
        ("NVNVNVN", CLEAR, CLEAR, LOW),
        ("NNVNNVNNVN", CLEAR, CLEAR, CLEAR),
    ],
)
def test_ventricular_beats_in_a_row_or_in_turn_are_alarms(
    kinds: str, couplet: int, run: int, bigeminy: int
) -> None:
    found = tuple(level(kind, beats(kinds)) for kind in ("couplet", "ventricular-run", "bigeminy"))
    assert found == (couplet, run, bigeminy)


def test_they_are_events_of_the_last_seconds() -> None:
    assert level("couplet", beats("NNVVNN", later=1.0)) == LOW
    assert level("couplet", beats("NNVVNNNNNNNNNNNN", later=1.0)) == CLEAR


def test_a_ventricular_rhythm_is_one_alarm() -> None:
    assert level("ventricular-run", beats("NNVVVN"), ventricular_open=True) == UNKNOWN
    assert level("couplet", {"time": 5.0}) == UNKNOWN


@pytest.mark.parametrize("kind", ["couplet", "ventricular-run", "bigeminy", "atrial-fibrillation"])
def test_each_can_be_turned_off_for_a_patient(kind: AlarmKind) -> None:
    observed = {"couplet": "NVVN", "ventricular-run": "NVVVN", "bigeminy": "NVNVNVN"}.get(kind, "NNNN")
    seen = beats(observed) | {"irregularity": WITHOUT_ORDER}
    assert level(kind, seen) > CLEAR
    assert level(kind, seen, {kind.replace("-", "_"): {"enabled": False}}) == CLEAR


@pytest.mark.parametrize(
    ("measured", "found"),
    [
        (WITHOUT_ORDER, LOW),
        (WITHOUT_ORDER._replace(variation=0.05), CLEAR),
        (WITHOUT_ORDER._replace(entropy=0.5), CLEAR),
        (WITHOUT_ORDER._replace(turning=0.95), CLEAR),
        (WITHOUT_ORDER._replace(turning=0.3), CLEAR),
        (WITHOUT_ORDER._replace(ectopic=0.2), UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_intervals_without_any_order_are_atrial_fibrillation(
    measured: Irregularity | None, found: int
) -> None:
    assert level("atrial-fibrillation", {"time": 0.0, "irregularity": measured}) == found


def test_they_open_after_their_delay_and_end() -> None:
    bed = ScriptedBed()
    assert bed.observe(28, irregularity=WITHOUT_ORDER) == []
    assert bed.observe(6, irregularity=WITHOUT_ORDER) == ["atrial-fibrillation onset"]
    assert bed.alarm("atrial-fibrillation").priority == "low"
    assert bed.observe(130, irregularity=WITHOUT_ORDER._replace(variation=0.02)) == [
        "atrial-fibrillation ended"
    ]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ventricular-run", "4 ventricular beats in a row; limit 3"),
        ("couplet", "two ventricular beats in a row"),
        (
            "atrial-fibrillation",
            "RR intervals without order, as in atrial fibrillation: variation 0.25; limit 0.1",
        ),
    ],
)
def test_their_reasons_say_what_was_seen(kind: AlarmKind, text: str) -> None:
    seen = Situation(Observation(**beats("NNVVVVN"), irregularity=WITHOUT_ORDER), Limits())
    limits = getattr(seen.limits, kind.replace("-", "_")).model_dump()
    why = {"measured": measured_values(kind, seen), "limits": limits}
    assert measurement(kind, "low", why).text == text
