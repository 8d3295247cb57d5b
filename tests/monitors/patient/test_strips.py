from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genray.ecg.synthesis import Episode, generate
from monitors.patient.output import Strip
from monitors.patient.scoring import BeatModel
from monitors.patient.strips import MOST_LEADS, keep_peaks
from monitors.sources.message import MISSING
from tests.monitors.patients import START, chunks, live_ward

ASYSTOLE = Episode("asystole", 30, 12)


def last(strips: list[Strip]) -> dict[str, Strip]:
    """The last state of each strip, by alarm."""
    return {strip.alarm: strip for strip in strips}


def test_an_alarm_has_the_samples_from_10_s_before_its_onset_to_20_s_after(beat_model: BeatModel) -> None:
    ecg = generate(70, seed=3, script=[ASYSTOLE])
    live = live_ward(beat_model)
    live.feed(chunks("a", ecg.millivolts))
    onset = live.changes("asystole")[0]
    strip = last(live.output.strips)[onset.alarm]
    assert (strip.stream, strip.kind, strip.priority, strip.leads) == ("a", "asystole", "high", ("II", "V1"))
    assert strip.complete
    assert "no QRS complex for" in strip.reason
    assert strip.start == pytest.approx(onset.onset - 10, abs=1 / 360)
    assert strip.until == pytest.approx(onset.onset + 20, abs=1 / 360)
    first = round((strip.start - START) * 360)
    given = np.rint(ecg.millivolts[first : first + len(strip.microvolts)] * 1000)
    assert len(strip.microvolts) == 30 * 360
    assert np.abs(strip.microvolts - given).max() <= 1


def test_a_strip_is_there_with_its_onset_and_grows(beat_model: BeatModel) -> None:
    ecg = generate(70, seed=3, script=[ASYSTOLE])
    live = live_ward(beat_model)
    states: list[tuple[bool, float]] = []
    for chunk in chunks("a", ecg.millivolts):
        before = len(live.output.transitions), len(live.output.strips)
        live.feed(iter([chunk]))
        onsets = [t for t in live.output.transitions[before[0] :] if t.change == "onset"]
        new = live.output.strips[before[1] :]
        assert {t.alarm for t in onsets} <= {strip.alarm for strip in new}
        states += [(strip.complete, strip.until - strip.onset) for strip in new]
    assert [complete for complete, _ in states] == [False] * (len(states) - 1) + [True]
    after = [seconds for _, seconds in states]
    assert after == sorted(after)
    assert max(np.diff(after)) <= 2 + 1, "a kill loses no more than two seconds and a hop"


def test_a_strip_that_a_discharge_ends_says_that_it_is_not_complete(beat_model: BeatModel) -> None:
    ecg = generate(41, seed=3, script=[ASYSTOLE])
    live = live_ward(beat_model)
    live.feed(chunks("a", ecg.millivolts))
    onset = live.changes("asystole")[0]
    (strip,) = live.ward.discharge("a").strips
    assert (strip.alarm, strip.complete) == (onset.alarm, False)
    assert strip.until == pytest.approx(START + 41)


def test_missing_samples_and_late_beginnings_are_no_samples(beat_model: BeatModel) -> None:
    ecg = generate(40, seed=4, script=[Episode("lead-off", 3, 30), Episode("gap", 20, 1)])
    live = live_ward(beat_model)
    live.feed(chunks("a", ecg.millivolts))
    strip = last(live.output.strips)[live.changes("lead-off")[0].alarm]
    assert strip.start == START, "the stream began less than 10 s before"
    missing = (strip.microvolts == MISSING).all(axis=1)
    at = strip.start - START + np.flatnonzero(missing) / strip.rate
    assert len(at) == pytest.approx(360, abs=2)
    assert (at.min(), at.max()) == pytest.approx((20, 21), abs=0.01)


def test_a_stream_of_many_leads_has_a_strip_of_some(beat_model: BeatModel) -> None:
    ecg = generate(45, seed=3, script=[ASYSTOLE])
    names = tuple(f"L{number}" for number in range(15))
    live = live_ward(beat_model)
    live.feed(chunks("a", np.repeat(ecg.millivolts[:, :1], 15, axis=1), leads=names))
    strip = last(live.output.strips)[live.changes("asystole")[0].alarm]
    assert (strip.leads, strip.left_out) == (names[:MOST_LEADS], 15 - MOST_LEADS)


@pytest.mark.parametrize("rate", [361.0, 500.0, 1000.0, 2000.0, 5000.0])
def test_a_pulse_of_one_sample_keeps_its_height_and_its_time(rate: float) -> None:
    chance = np.random.default_rng(int(rate))
    count = round(rate)
    for _ in range(20):
        at = int(chance.integers(count))
        samples = np.zeros((count, 2), np.float32)
        samples[at] = (2.0, -1.5)
        values, reduced = keep_peaks(samples, rate, 240)
        assert reduced < 320
        assert len(values) / reduced == pytest.approx(count / rate)
        assert (values[:, 0].max(), values[:, 1].min()) == (2.0, -1.5)
        assert abs(values[:, 0].argmax() / reduced - at / rate) < 2 * 2 / 240


def test_what_is_missing_is_missing_and_what_is_slow_stays_as_it_is() -> None:
    samples = np.full((1000, 1), np.nan, np.float32)
    samples[:500] = 1.0
    values, _ = keep_peaks(samples, 1000, 240)
    assert np.isnan(values).mean() == pytest.approx(0.5, abs=0.01)
    assert np.nanmin(values) == 1.0
    slow = samples[:128]
    assert keep_peaks(slow, 128, 240)[0] is slow


def test_a_fast_tone_does_not_become_a_slow_wave() -> None:
    seconds = np.arange(1000) / 1000
    tone = np.sin(2 * np.pi * 119.0 * seconds)[:, None].astype(np.float32)
    values, _ = keep_peaks(tone, 1000, 240)
    windows = values[: len(values) // 12 * 12].reshape(-1, 12)
    assert windows.max(axis=1).min() > 0.9
    assert windows.min(axis=1).max() < -0.9
    every = tone[::4, 0]
    assert every[:250].reshape(-1, 10).max(axis=1).min() < 0.9, "which every fourth sample does not show"


def test_a_clock_that_is_set_back_begins_again(beat_model: BeatModel) -> None:
    ecg = generate(50, seed=3, script=[ASYSTOLE])
    live = live_ward(beat_model)
    sent = list(chunks("a", ecg.millivolts))
    live.feed(iter(sent[:40]))
    live.feed(
        iter([replace(chunk, start=chunk.start - 9000, sequence=chunk.sequence) for chunk in sent[40:]])
    )
    assert all(strip.until >= strip.start for strip in live.output.strips)
    assert not [strip for strip in live.output.strips if len(strip.microvolts) > 30 * 360]
