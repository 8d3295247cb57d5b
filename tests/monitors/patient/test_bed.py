from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genray.ecg.qrs import QrsThresholds
from genray.ecg.quality import SignalQuality
from monitors.alarms.state import AlarmState
from monitors.patient.bed import Bed
from monitors.patient.hops import HopQueue
from monitors.patient.ordering import Sequencer, SequencerSettings
from monitors.patient.reference import Reference, ReferenceSettings
from monitors.patient.strips import StripRecorder
from monitors.sources.message import MISSING, Chunk
from tests.monitors.patients import START, chunks

RATE = 100.0


def empty_bed(hop: int = 100) -> Bed:
    return Bed(
        stream="a",
        rate=RATE,
        channels=("II",),
        leads=("II",),
        rows=np.array([0]),
        sequencer=Sequencer(SequencerSettings()),
        hops=HopQueue(RATE, 1, hop),
        reference=Reference(ReferenceSettings(), ("II",), 140),
        alarms=AlarmState("a"),
        decisions=QrsThresholds(RATE),
        strips=StripRecorder(RATE, ("II",)),
        burden_beats=20,
    )


def ramp(seconds: float, first: int = 0) -> np.ndarray:
    return (np.arange(first, first + round(seconds * RATE)) / 1000)[:, None]


def messages(seconds: float, **more: Any) -> list[Chunk]:
    return list(chunks("a", ramp(seconds), RATE, ("II",), **more))


def hops_of(bed: Bed) -> list[tuple[np.ndarray, bool, float]]:
    """Samples, whether they restart, and when they end: of all hops that are ready."""
    hops = []
    while bed.hops.ready:
        hop = bed.next_hop()
        hops.append((hop.samples[:, 0], hop.restarted, bed.end_time - START))
    return hops


@pytest.mark.parametrize("sizes", [(1.0,), (0.01,), (0.37, 1.9), (10.0,), (0.5, 0.03, 3.3)])
def test_hops_hold_the_samples_and_their_time_whatever_the_sizes_of_messages(
    sizes: tuple[float, ...],
) -> None:
    bed = empty_bed()
    for chunk in messages(20, sizes=sizes):
        bed.push(chunk, 0.0)
    hops = hops_of(bed)
    np.testing.assert_allclose(np.concatenate([h for h, _, _ in hops]), ramp(20)[:, 0], atol=1e-6)
    assert [restarted for _, restarted, _ in hops] == [True] + [False] * 19
    assert [time for _, _, time in hops] == pytest.approx(list(range(1, 21)), abs=1e-3)
    assert bed.time_of(500) == pytest.approx(START + 5, abs=1e-3)


def test_units_become_millivolts_and_missing_ones_nan() -> None:
    bed = empty_bed(hop=4)
    chunk = messages(0.04)[0]
    samples = np.array([[MISSING], [32767], [-32767], [0]], np.int16)
    bed.push(replace(chunk, gains=(200.0,), samples=samples), 0.0)
    np.testing.assert_allclose(bed.next_hop().samples[:, 0], [np.nan, 163.835, -163.835, 0])


def test_messages_that_are_dropped_are_no_sign_of_life() -> None:
    bed = empty_bed()
    sent = messages(3)
    for now, chunk in enumerate([sent[0], sent[2], sent[1]]):
        bed.push(chunk, float(now))
        assert bed.arrived == now
    for now in range(3, 20):
        bed.lost_seconds = 1.0
        bed.push(sent[2], float(now))
    assert (bed.arrived, bed.lost_seconds) == (2.0, 1.0)


def test_a_short_gap_is_bridged_by_missing_samples() -> None:
    bed = empty_bed()
    sent = messages(10)
    for chunk in [*sent[:3], *sent[5:]]:
        bed.push(chunk, 0.0)
    bed.flush()
    hops = hops_of(bed)
    missing = np.isnan(np.concatenate([h for h, _, _ in hops]))
    assert np.flatnonzero(missing).tolist() == list(range(300, 500))
    assert sum(restarted for _, restarted, _ in hops) == 1
    assert [time for _, _, time in hops] == pytest.approx(list(range(1, 11)))
    assert bed.observe(0, 0.0).gap == pytest.approx(2.0)
    assert bed.observe(0, 0.0).gap == 0.0


def test_a_long_gap_begins_anew_on_a_hop_of_its_own() -> None:
    bed = empty_bed()
    sent = messages(10, sizes=(0.5,))
    for chunk in [*sent[:7], *sent[13:]]:
        bed.push(chunk, 0.0)
    bed.flush()
    hops = hops_of(bed)
    assert [restarted for _, restarted, _ in hops] == [True, False, False, False, True, False, False]
    assert [time for _, _, time in hops] == pytest.approx([1, 2, 3, 4, 7.5, 8.5, 9.5])
    np.testing.assert_array_equal(np.isnan(hops[3][0]), np.arange(100) >= 50)
    np.testing.assert_allclose(hops[4][0], ramp(1, 650)[:, 0], atol=1e-6)


def test_several_restarts_in_a_row_are_each_a_beginning() -> None:
    bed = empty_bed()
    for number in range(4):
        start = START + 100 * number
        for chunk in chunks("a", ramp(2.5), RATE, ("II",), sizes=(0.5,), start=start, sequence=1000 * number):
            bed.push(chunk, 0.0)
    bed.flush()
    hops = hops_of(bed)
    assert [restarted for _, restarted, _ in hops] == [True, False, False] * 3 + [True, False]
    assert not bed.hops.restarts


def test_over_a_break_neither_beats_nor_intervals_are_remembered() -> None:
    bed = empty_bed()
    bed.add_complexes([100, 200, 300])
    assert bed.intervals.heart_rate(0) is None
    bed.add_complexes([400])
    assert bed.intervals.heart_rate(0) == 60
    bed.interrupt()
    assert (bed.pending_beats, bed.intervals.heart_rate(0)) == ([], None)
    bed.add_complexes([9000, 9100])
    assert math.isnan(bed.pending_beats[0].interval.ratio)
    assert bed.pending_beats[1].interval.ratio == 1.0


def test_an_interval_over_seconds_that_could_not_be_judged_is_not_known() -> None:
    bed = empty_bed()
    bed.quality = np.array([SignalQuality.GOOD], np.int8)
    bed.add_complexes([100, 200, 300, 400])
    bed.quality = np.array([SignalQuality.POOR], np.int8)
    bed.rhythm_judged = False
    bed.sample_count = 500
    observation = bed.observe(30, 0.0)
    assert (observation.good, observation.silence, observation.heart_rate, observation.poor) == (
        False,
        None,
        None,
        ("II",),
    )
    bed.quality = np.array([SignalQuality.GOOD], np.int8)
    bed.rhythm_judged = True
    bed.sample_count = 900
    assert bed.observe(30, 0.0).silence == 0
    bed.add_complexes([950])
    assert math.isnan(bed.pending_beats[-1].interval.ratio)


def test_seconds_that_cannot_be_judged_pause_the_count_of_silence_and_do_not_restart_it() -> None:
    bed = empty_bed()
    bed.add_complexes([100])
    silences = []
    for second in range(2, 12):
        bed.sample_count = 100 * second
        bed.rhythm_judged = second % 3 != 0
        silences.append(bed.observe(0, 0.0).silence)
    assert silences == [1, None, 2, 3, None, 4, 5, None, 6, 7]


def test_the_rhythm_is_judged_without_a_lead_that_is_good_enough_for_shapes() -> None:
    bed = empty_bed()
    bed.quality = np.array([SignalQuality.POOR], np.int8)
    bed.add_complexes([100, 200, 300, 400])
    bed.sample_count = 450
    observation = bed.observe(0, 0.0)
    assert (observation.good, observation.silence, observation.heart_rate) == (False, 0.5, 60.0)


def test_silence_is_counted_from_the_last_beat_or_from_when_the_signal_was_good() -> None:
    bed = empty_bed()
    bed.quality = np.array([SignalQuality.GOOD], np.int8)
    bed.sample_count = 100
    assert bed.observe(30, 0.0).silence == 0
    bed.sample_count = 600
    assert bed.observe(30, 0.0).silence == pytest.approx(4.7)
    bed.add_complexes([500])
    assert bed.observe(30, 0.0).silence == pytest.approx(0.7)


def test_the_burden_is_the_share_of_the_last_20_beats() -> None:
    bed = empty_bed()
    for _ in range(19):
        bed.count_scored_beat(anomalous=True)
    assert bed.burden is None
    bed.count_scored_beat(anomalous=False)
    assert bed.burden == pytest.approx(0.95)
    for n in range(20):
        bed.count_scored_beat(anomalous=n % 2 == 0)
    assert (bed.burden, bed.anomalous_count, bed.reading().anomalous) == (0.5, 29, 29)


def test_how_far_it_lags_behind_counts_what_waits() -> None:
    bed = empty_bed()
    for chunk in messages(3):
        bed.push(replace(chunk, received=10.0), 10.0)
    bed.next_hop()
    assert bed.observe(0, 10.5).behind == pytest.approx(2.5)
