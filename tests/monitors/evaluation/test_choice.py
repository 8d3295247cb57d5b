from __future__ import annotations

import numpy as np
import pytest

from monitors.alarms.limits import Limits
from monitors.evaluation.choice import CANDIDATES, NestedChoice, choose_nested
from monitors.evaluation.evaluate import ScoredRecord
from monitors.evaluation.matching import TimeSpan, abnormal_episodes
from monitors.patient.output import ScoredBeat
from monitors.patient.rhythm.heart_rate import RelativeInterval
from monitors.patient.scoring import ScoreInputs

BEATS = 100


def record(number: int, *, telling_surprise: bool) -> ScoredRecord:
    """A patient whose abnormal beats, all in the second half, are far from the reference; the surprise tells
    them too, or is noise."""
    rng = np.random.default_rng(number)
    abnormal = (np.arange(BEATS) > BEATS // 2) & (rng.random(BEATS) < 0.7)
    distance = rng.normal(size=(BEATS, 2)) * 0.3 - 0.5 + 2.0 * abnormal[:, None]
    surprise = rng.normal(size=(BEATS, 1)) * 3 + (9.0 * abnormal[:, None] if telling_surprise else 0)
    inputs = [
        ScoreInputs(far.astype(np.float32), odd.astype(np.float32), RelativeInterval(1.0, 0.0))
        for far, odd in zip(distance, surprise, strict=True)
    ]
    times = 0.8 * np.arange(BEATS)
    beats = [ScoredBeat(time, 0.0, False, each) for time, each in zip(times.tolist(), inputs, strict=True)]
    return ScoredRecord(
        name=f"patient-{number}",
        abnormal=abnormal,
        beats=tuple(beats),
        compared=np.arange(BEATS),
        new=tuple(inputs),
        episodes=tuple(abnormal_episodes(times, abnormal)),
        watched=TimeSpan(0.0, 85.0),
    )


@pytest.fixture(scope="module")
def choice() -> NestedChoice:
    records = [record(number, telling_surprise=False) for number in range(4)]
    return choose_nested(records, 2, Limits(), 20)


def test_no_record_is_judged_with_weights_that_were_chosen_on_it(choice: NestedChoice) -> None:
    odd = [record(number, telling_surprise=number % 2 == 1) for number in range(4)]
    first, second = choose_nested(odd, 2, Limits(), 20).folds
    assert (first.records, second.records) == (("patient-0", "patient-2"), ("patient-1", "patient-3"))
    # The records whose surprise tells something are judged with the weights of those whose surprise does not.
    assert second.weights.surprise == choice.final.surprise
    assert first.weights.surprise >= second.weights.surprise


def test_what_tells_nothing_gets_no_weight(choice: NestedChoice) -> None:
    assert choice.final.surprise == 0
    assert all(getattr(choice.final, name) in values for name, values in CANDIDATES.items())
    assert (choice.auc_with or 0) > 0.99
    assert (choice.auc_without or 1) < 0.6
    assert choice.auc_with_interval is not None


def test_episodes_and_false_alarms_are_those_of_the_alarm_rules(choice: NestedChoice) -> None:
    figures = choice.as_json()
    assert figures["alarms"]["episodes"] == figures["alarms"]["alarmed"] == 4
    assert figures["alarms"]["false"] == 0
    assert figures["intervals"]["alarms"]["share"] == (1.0, 1.0)
    assert figures["chosen_on_all"] == choice.final.model_dump()
