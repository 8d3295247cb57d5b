from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from genray.ecg.synthesis import Episode, generate
from monitors.patient.scoring import Scorer
from monitors.patient.ward import Ward
from tests.monitors.patients import START, Watch, chunks, hits, seconds, settings, times_of, watch

TWO = ("II", "V1")


@pytest.mark.parametrize("sizes", [(1.0,), (0.13, 1.7), (10.0,)])
@pytest.mark.parametrize("hop", [0.25, 1.0, 2.0])
def test_every_beat_is_scored_once_at_its_time(scorer: Scorer, hop: float, sizes: tuple[float, ...]) -> None:
    made = generate(60, seed=1, script=[Episode("pvc", 40, 20, share=0.3)])
    here = watch(scorer, hop=hop)
    here.ward.watched = frozenset({"a"})
    here.feed(chunks("a", made.millivolts, sizes=sizes))
    truth = made.peaks / 360
    found = seconds(here.beats["a"])
    # The peak of a ventricular beat may be another of its waves.
    assert hits(found, truth[(truth > 8) & (truth < 57)], 0.12)[1] == 0
    assert hits(found, truth, 0.12)[2] == 0
    assert len(here.all.scores) == len(here.all.delays) == len(found) == here.all.readings[-1].beats


def test_ventricular_beats_score_above_one_and_normal_ones_below(scorer: Scorer) -> None:
    right: list[bool] = []
    for seed in (2, 3):
        made = generate(240, seed=seed, script=[Episode("pvc", 0, 240, share=0.3)])
        here = Watch(Ward(settings(), scorer))
        here.ward.watched = frozenset({"a"})
        here.feed(chunks("a", made.millivolts))
        assert here.all.readings[-1].learned == 1
        known = next(r.time for r in here.all.readings if r.learned == 1)
        for symbols, odd in (("V", True), ("N", False)):
            for at in times_of(made, symbols) + START:
                near = [b for b in here.beats["a"] if abs(b["time"] - at) < 0.1 and b["time"] > known]
                right += [b["anomalous"] == odd for b in near]
    assert len(right) > 200
    assert np.mean(right) > 0.95


def test_a_run_of_ventricular_beats_raises_an_alarm_with_the_beats_that_speak_for_it(scorer: Scorer) -> None:
    here = watch(scorer)
    made = generate(130, seed=2, script=[Episode("pvc", 70, 60, share=0.5)])
    here.feed(chunks("a", made.millivolts))
    onset = here.changes("anomaly")[0]
    odd = times_of(made, "V")
    odd = odd[odd > 70]
    assert onset.change == "onset"
    assert not here.changes()[:1] or here.changes()[0] is onset
    assert ((odd > 70) & (odd < onset.time - START)).sum() <= 10
    assert onset.why["threshold"] == 1.0
    assert len(onset.why["beats"]) == 3
    for beat in onset.why["beats"]:
        assert len(beat["values"]) == len(beat["reconstruction"]) == len(beat["reference"]) == 140
        assert beat["score"] > 1
        assert beat["lead"] in TWO
        assert np.abs(odd + START - beat["time"]).min() < 0.1
    json.dumps([asdict(t) for t in here.all.transitions], allow_nan=False)


@pytest.mark.parametrize("hop", [0.25, 1.0, 2.0])
def test_an_asystole_is_told_of_soon_and_stays_told_of(scorer: Scorer, hop: float) -> None:
    for seed in range(3):
        made = generate(75, seed=seed, script=[Episode("asystole", 20, 40)])
        here = watch(scorer, hop=hop)
        here.feed(chunks("a", made.millivolts))
        last = made.peaks[made.peaks < 20 * 360].max() / 360
        onset, *later = here.changes("asystole")
        assert (onset.change, onset.priority) == ("onset", "high")
        assert 4 <= onset.time - START - last <= 4 + hop + 1
        assert [(t.change, t.time - START > 60) for t in later] == [("latched", True)]
        assert not [r for r in here.all.readings if 30 < r.time - START < 60 and (r.heart_rate or 0) > 10]


@pytest.mark.parametrize("hop", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["tachycardia", "bradycardia"])
def test_a_rate_beyond_its_limits_is_told_of_within_ten_seconds(
    scorer: Scorer, kind: str, hop: float
) -> None:
    for seed in range(3):
        made = generate(60, seed=seed, script=[Episode(kind, 30, 30)])  # type: ignore[arg-type]
        here = watch(scorer, hop=hop)
        here.feed(chunks("a", made.millivolts))
        onsets = [t.time - START for t in here.changes(kind) if t.change == "onset"]  # type: ignore[arg-type]
        assert len(onsets) == 1
        assert 30 < onsets[0] <= 40


def test_a_lost_stream_is_told_of_and_ends_when_samples_come_again(scorer: Scorer) -> None:
    here, sent = watch(scorer), list(chunks("a", generate(60, seed=3).millivolts))
    here.feed(iter(sent[:20]))
    here.pass_time(15)
    (onset,) = here.changes()
    assert (onset.kind, onset.change, onset.priority) == ("stream-lost", "onset", "medium")
    assert onset.time - START == pytest.approx(30, abs=1.5)
    here.now = 34
    here.feed(iter(sent[35:]))
    assert [t.change for t in here.changes("stream-lost")] == ["onset", "ended"]


def test_a_stream_that_stops_before_its_first_hop_is_lost_too(scorer: Scorer) -> None:
    here = watch(scorer)
    here.feed(chunks("a", generate(0.5, seed=3).millivolts))
    here.pass_time(15)
    (onset,) = here.changes()
    assert (onset.kind, onset.time > START) == ("stream-lost", True)


def test_messages_that_were_held_back_are_let_go_when_nothing_comes(scorer: Scorer) -> None:
    here, sent = watch(scorer), list(chunks("a", generate(10, seed=3).millivolts))
    here.feed(iter([*sent[:7], sent[8]]))
    assert here.all.readings[-1].time == START + 7
    here.pass_time(3)
    here.step()
    assert here.all.readings[-1].time == START + 9


@pytest.mark.parametrize("gap", [1.5, 12.0])
def test_no_interval_spans_a_gap(scorer: Scorer, gap: float) -> None:
    made = generate(90, seed=4, script=[Episode("asystole", 30, gap)])
    volts = np.delete(made.millivolts, np.arange(30 * 360, round((30 + gap) * 360)), axis=0)
    here = watch(scorer)
    here.ward.watched = frozenset({"a"})
    here.feed(chunks("a", made.millivolts[: 30 * 360]))
    after = volts[30 * 360 :]
    here.feed(chunks("a", after, start=START + 30 + gap, sequence=30 + math.ceil(gap)))
    assert not here.changes("asystole") + here.changes("bradycardia")
    rates = [r.heart_rate for r in here.all.readings if r.heart_rate]
    assert min(rates) > 45
    truth = made.peaks / 360
    truth = truth[(truth > 36 + gap) & (truth < 87)]
    assert hits(seconds(here.beats["a"]), truth, 0.12)[1] == 0


def test_over_missing_samples_the_beats_of_the_rest_are_found(scorer: Scorer) -> None:
    made = generate(60, seed=5, script=[Episode("gap", 20, 1), Episode("gap", 40, 5)])
    here = watch(scorer)
    here.ward.watched = frozenset({"a"})
    here.feed(chunks("a", made.millivolts))
    truth = made.peaks / 360
    truth = truth[
        ((truth > 8) & (truth < 19)) | ((truth > 24) & (truth < 39)) | ((truth > 48) & (truth < 57))
    ]
    assert hits(seconds(here.beats["a"]), truth, 0.12)[1] == 0
    assert [t for trace in here.all.traces for t in trace["values"] if t is None]
    json.dumps(here.all.traces, allow_nan=False)


def test_a_lead_that_comes_off_is_told_of_and_the_other_goes_on(scorer: Scorer) -> None:
    made = generate(60, seed=6, script=[Episode("lead-off", 30, 30, leads=("II",))])
    here = watch(scorer)
    here.ward.watched = frozenset({"a"})
    here.feed(chunks("a", made.millivolts))
    assert {(t.kind, t.change, t.priority) for t in here.changes()} == {("lead-off", "onset", "low")}
    assert here.all.readings[-1].quality == {"II": "off", "V1": "good"}
    truth = made.peaks / 360
    assert hits(seconds(here.beats["a"]), truth[(truth > 34) & (truth < 57)], 0.12)[1] <= 1
