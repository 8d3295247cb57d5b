from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from genray.ecg.synthesis import Episode, generate
from monitors.patient.scoring import BeatModel
from tests.genray.ecg.rhythms import fibrillation, flutter, torsades, wide_beats
from tests.monitors.patients import START, chunks, hits, live_ward, seconds, times_of

TWO = ("II", "V1")


@pytest.mark.parametrize("sizes", [(1.0,), (0.13, 1.7), (10.0,)])
@pytest.mark.parametrize("hop", [0.25, 1.0, 2.0])
def test_every_beat_is_scored_once_at_its_time(
    beat_model: BeatModel, hop: float, sizes: tuple[float, ...]
) -> None:
    ecg = generate(60, seed=1, script=[Episode("pvc", 40, 20, share=0.3)])
    live = live_ward(beat_model, watched={"a"}, hop=hop)
    live.feed(chunks("a", ecg.millivolts, sizes=sizes))
    truth = ecg.peaks / 360
    found = seconds(live.output.beats["a"])
    # The peak of a ventricular beat may be another of its waves.
    assert hits(found, truth[(truth > 8) & (truth < 57)], 0.12)[1] == 0
    assert hits(found, truth, 0.12)[2] == 0
    assert len(live.output.scores) == len(live.output.delays) == len(found) == live.output.readings[-1].beats


def test_ventricular_beats_score_above_one_and_normal_ones_below(beat_model: BeatModel) -> None:
    right: list[bool] = []
    for seed in (2, 3):
        ecg = generate(240, seed=seed, script=[Episode("pvc", 0, 240, share=0.3)])
        live = live_ward(beat_model, watched={"a"})
        live.feed(chunks("a", ecg.millivolts))
        assert live.output.readings[-1].learned == 1
        known = next(r.time for r in live.output.readings if r.learned == 1)
        for symbols, odd in (("V", True), ("N", False)):
            for at in times_of(ecg, symbols) + START:
                near = [b for b in live.output.beats["a"] if abs(b.time - at) < 0.1 and b.time > known]
                right += [b.anomalous == odd for b in near]
    assert len(right) > 200
    assert np.mean(right) > 0.95


def test_a_run_of_ventricular_beats_raises_an_alarm_with_the_beats_that_speak_for_it(
    beat_model: BeatModel,
) -> None:
    live = live_ward(beat_model)
    ecg = generate(130, seed=2, script=[Episode("pvc", 70, 60, share=0.5)])
    live.feed(chunks("a", ecg.millivolts))
    onset = live.changes("anomaly")[0]
    odd = times_of(ecg, "V")
    odd = odd[odd > 70]
    assert onset.change == "onset"
    assert {t.priority for t in live.changes() if t.time < onset.time} <= {"low"}
    assert all(t.time - START > 70 for t in live.changes())
    assert ((odd > 70) & (odd < onset.time - START)).sum() <= 10
    assert onset.why["threshold"] == 1.0
    assert len(onset.why["beats"]) == 3
    for beat in onset.why["beats"]:
        assert len(beat["values"]) == len(beat["reconstruction"]) == len(beat["reference"]) == 140
        assert beat["score"] > 1
        assert beat["lead"] in TWO
        assert np.abs(odd + START - beat["time"]).min() < 0.1
    json.dumps([asdict(t) for t in live.output.transitions], allow_nan=False)


@pytest.mark.parametrize("hop", [0.25, 1.0, 2.0])
def test_an_asystole_is_told_of_soon_and_stays_told_of(beat_model: BeatModel, hop: float) -> None:
    for seed in range(3):
        ecg = generate(75, seed=seed, script=[Episode("asystole", 20, 40)])
        live = live_ward(beat_model, hop=hop)
        live.feed(chunks("a", ecg.millivolts))
        last = ecg.peaks[ecg.peaks < 20 * 360].max() / 360
        onset, *later = live.changes("asystole")
        assert (onset.change, onset.priority) == ("onset", "high")
        assert 4 <= onset.time - START - last <= 4 + hop + 1
        assert [(t.change, t.time - START > 60) for t in later] == [("latched", True)]
        assert not [r for r in live.output.readings if 30 < r.time - START < 60 and (r.heart_rate or 0) > 10]


@pytest.mark.parametrize("hop", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["tachycardia", "bradycardia"])
def test_a_rate_beyond_its_limits_is_told_of_within_ten_seconds(
    beat_model: BeatModel, kind: str, hop: float
) -> None:
    for seed in range(3):
        ecg = generate(60, seed=seed, script=[Episode(kind, 30, 30)])  # type: ignore[arg-type]
        live = live_ward(beat_model, hop=hop)
        live.feed(chunks("a", ecg.millivolts))
        onsets = [t.time - START for t in live.changes(kind) if t.change == "onset"]  # type: ignore[arg-type]
        assert len(onsets) == 1
        assert 30 < onsets[0] <= 40


def test_a_lost_stream_is_told_of_and_ends_when_samples_come_again(beat_model: BeatModel) -> None:
    live, sent = live_ward(beat_model), list(chunks("a", generate(60, seed=3).millivolts))
    live.feed(iter(sent[:20]))
    live.pass_time(15)
    (onset,) = live.changes()
    assert (onset.kind, onset.change, onset.priority) == ("stream-lost", "onset", "medium")
    assert onset.time - START == pytest.approx(30, abs=1.5)
    live.now = 34
    live.feed(iter(sent[35:]))
    assert [t.change for t in live.changes("stream-lost")] == ["onset", "ended"]


def test_a_stream_that_stops_before_its_first_hop_is_lost_too(beat_model: BeatModel) -> None:
    live = live_ward(beat_model)
    live.feed(chunks("a", generate(0.5, seed=3).millivolts))
    live.pass_time(15)
    (onset,) = live.changes()
    assert (onset.kind, onset.time > START) == ("stream-lost", True)


def test_messages_that_were_held_back_are_let_go_when_nothing_comes(beat_model: BeatModel) -> None:
    live, sent = live_ward(beat_model), list(chunks("a", generate(10, seed=3).millivolts))
    live.feed(iter([*sent[:7], sent[8]]))
    assert live.output.readings[-1].time == START + 7
    live.pass_time(3)
    live.step()
    assert live.output.readings[-1].time == START + 9


@pytest.mark.parametrize("gap", [1.5, 12.0])
def test_no_interval_spans_a_gap(beat_model: BeatModel, gap: float) -> None:
    ecg = generate(90, seed=4, script=[Episode("asystole", 30, gap)])
    volts = np.delete(ecg.millivolts, np.arange(30 * 360, round((30 + gap) * 360)), axis=0)
    live = live_ward(beat_model, watched={"a"})
    live.feed(chunks("a", ecg.millivolts[: 30 * 360]))
    after = volts[30 * 360 :]
    live.feed(chunks("a", after, start=START + 30 + gap, sequence=30 + math.ceil(gap)))
    assert not live.changes("asystole") + live.changes("bradycardia")
    rates = [r.heart_rate for r in live.output.readings if r.heart_rate]
    assert min(rates) > 45
    truth = ecg.peaks / 360
    truth = truth[(truth > 36 + gap) & (truth < 87)]
    assert hits(seconds(live.output.beats["a"]), truth, 0.12)[1] == 0


def test_over_missing_samples_the_beats_of_the_rest_are_found(beat_model: BeatModel) -> None:
    ecg = generate(60, seed=5, script=[Episode("gap", 20, 1), Episode("gap", 40, 5)])
    live = live_ward(beat_model, watched={"a"})
    live.feed(chunks("a", ecg.millivolts))
    truth = ecg.peaks / 360
    truth = truth[
        ((truth > 8) & (truth < 19)) | ((truth > 24) & (truth < 39)) | ((truth > 48) & (truth < 57))
    ]
    assert hits(seconds(live.output.beats["a"]), truth, 0.12)[1] == 0
    assert None in [value for trace in live.output.traces for value in trace.values]
    json.dumps([trace.as_json() for trace in live.output.traces], allow_nan=False)


def test_a_lead_that_comes_off_is_told_of_and_the_other_goes_on(beat_model: BeatModel) -> None:
    ecg = generate(60, seed=6, script=[Episode("lead-off", 30, 30, leads=("II",))])
    live = live_ward(beat_model, watched={"a"})
    live.feed(chunks("a", ecg.millivolts))
    assert {(t.kind, t.change, t.priority) for t in live.changes()} == {("lead-off", "onset", "low")}
    assert live.output.readings[-1].quality == {"II": "off", "V1": "good"}
    truth = ecg.peaks / 360
    assert hits(seconds(live.output.beats["a"]), truth[(truth > 34) & (truth < 57)], 0.12)[1] <= 1


def test_a_bed_whose_electrodes_come_on_late_has_a_heart_rate_soon(beat_model: BeatModel) -> None:
    """What is learned while an electrode is off, or comes on, is no height of a complex."""
    ecg = generate(190, seed=72, script=[Episode("lead-off", 146.2, 17.7)])
    live = live_ward(beat_model)
    live.feed(chunks("a", ecg.millivolts[158 * 360 :]))
    rates = [reading.heart_rate for reading in live.output.readings]
    assert all(rates[24:]), "from 18 s after the electrodes were on"


@pytest.mark.parametrize("millivolts", [1.0, 1.5, 2.0])
def test_an_asystole_under_a_wandering_baseline_is_told_within_5_s(
    beat_model: BeatModel, millivolts: float
) -> None:
    ecg = generate(35, seed=3, script=[Episode("asystole", 20, 15)])
    wander = millivolts * np.sin(2 * np.pi * 0.3 * np.arange(len(ecg.millivolts)) / 360)
    live = live_ward(beat_model)
    live.feed(chunks("a", ecg.millivolts + wander[:, None]))
    last = max(time for time in times_of(ecg).tolist() if time < 20)
    onset = next(t for t in live.changes("asystole") if t.change == "onset")
    assert 4 <= onset.time - START - last <= 6, "4 s, the delay of the detection and a hop"


def test_a_patient_whose_baseline_always_wanders_has_a_heart_rate(beat_model: BeatModel) -> None:
    ecg = generate(45, seed=5)
    wander = 2 * np.sin(2 * np.pi * 0.3 * np.arange(len(ecg.millivolts)) / 360)
    live = live_ward(beat_model)
    live.feed(chunks("a", ecg.millivolts + wander[:, None]))
    truth = 60 / float(np.median(np.diff(times_of(ecg))))
    rates = [reading.heart_rate for reading in live.output.readings[12:]]
    assert all(rate is not None and abs(rate - truth) < 15 for rate in rates)
    assert not live.changes("asystole") + live.changes("bradycardia") + live.changes("unjudged")


@pytest.mark.parametrize("learned", [False, True])
def test_ventricular_rhythms_raise_a_high_alarm_before_and_after_the_patient_is_learned(
    beat_model: BeatModel, learned: bool
) -> None:
    normal, most = (45 if learned else 15), 10
    leads = {
        "coarse": fibrillation(20, 360, 0.6),
        "fine": fibrillation(20, 360, 0.2),
        "flutter 240": flutter(20, 360, 240),
        "flutter 300": flutter(20, 360, 300),
        "torsades": torsades(20, 360),
        "vt 120": wide_beats(20, 360, 120),
        "vt 150": wide_beats(20, 360, 150),
    }
    volts = {name: generate(normal + 20, seed=2).millivolts.astype(np.float64) for name in leads}
    for name, lead in leads.items():
        volts[name][normal * 360 :] = lead[:, None] * (1.0, 0.8)
    live = live_ward(beat_model)
    live.feed(*(chunks(name, samples) for name, samples in volts.items()))
    kinds = ("ventricular-fibrillation", "ventricular-tachycardia")
    for name in leads:
        onsets = [t for t in live.changes(stream=name) if t.kind in kinds and t.change == "onset"]
        assert {t.priority for t in onsets} == {"high"}, name
        slowest = 17 if name.startswith("vt") else most
        assert 0 < min(t.time for t in onsets) - START - normal <= slowest, name
        assert not live.changes("bradycardia", name), "it is no slow rhythm"


def test_usual_rhythms_raise_no_alarm_for_a_ventricular_one(beat_model: BeatModel) -> None:
    live = live_ward(beat_model)
    script = [Episode("tachycardia", 20, 25), Episode("pvc", 50, 25), Episode("asystole", 80, 10)]
    live.feed(*(chunks(f"{seed}", generate(100, seed=seed, script=script).millivolts) for seed in range(3)))
    usual = {"tachycardia", "asystole", "anomaly", "bradycardia", "bigeminy"}
    assert {t.kind for t in live.changes()} <= usual
