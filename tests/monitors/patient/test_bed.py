from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genray.ecg.qrs import Decisions
from genray.ecg.quality import SignalQuality
from monitors.alarms.state import AlarmState
from monitors.patient.bed import Bed
from monitors.patient.ordering import Sequencer, SequencerSettings
from monitors.patient.reference import Reference, ReferenceSettings
from monitors.sources.message import MISSING, Chunk
from tests.monitors.patients import START, chunks

RATE = 100.0


def bed(hop: int = 100) -> Bed:
    return Bed(
        stream="a",
        rate=RATE,
        leads=("II",),
        rows=np.array([0]),
        hop=hop,
        sequencer=Sequencer(SequencerSettings()),
        reference=Reference(ReferenceSettings(), ("II",), 140),
        alarms=AlarmState("a"),
        decisions=Decisions(RATE),
        burden_beats=20,
    )


def ramp(seconds: float, first: int = 0) -> np.ndarray:
    return (np.arange(first, first + round(seconds * RATE)) / 1000)[:, None]


def messages(seconds: float, **more: Any) -> list[Chunk]:
    return list(chunks("a", ramp(seconds), RATE, ("II",), **more))


def taken(it: Bed) -> list[tuple[np.ndarray, bool, float]]:
    hops = []
    while it.ready:
        hop = it.take()
        hops.append((hop.samples[:, 0], hop.fresh, it.time - START))
    return hops


@pytest.mark.parametrize("sizes", [(1.0,), (0.01,), (0.37, 1.9), (10.0,), (0.5, 0.03, 3.3)])
def test_hops_hold_the_samples_and_their_time_whatever_the_sizes_of_messages(
    sizes: tuple[float, ...],
) -> None:
    it = bed()
    for chunk in messages(20, sizes=sizes):
        it.push(chunk, 0.0)
    hops = taken(it)
    np.testing.assert_allclose(np.concatenate([h for h, _, _ in hops]), ramp(20)[:, 0], atol=1e-6)
    assert [fresh for _, fresh, _ in hops] == [True] + [False] * 19
    assert [time for _, _, time in hops] == pytest.approx(list(range(1, 21)), abs=1e-3)
    assert it.moment(500) == pytest.approx(START + 5, abs=1e-3)


def test_units_become_millivolts_and_missing_ones_nan() -> None:
    it = bed(hop=4)
    chunk = messages(0.04)[0]
    samples = np.array([[MISSING], [32767], [-32767], [0]], np.int16)
    it.push(replace(chunk, gains=(200.0,), samples=samples), 0.0)
    np.testing.assert_allclose(it.take().samples[:, 0], [np.nan, 163.835, -163.835, 0])


def test_messages_that_are_dropped_are_no_sign_of_life() -> None:
    it = bed()
    sent = messages(3)
    for now, chunk in enumerate([sent[0], sent[2], sent[1]]):
        it.push(chunk, float(now))
        assert it.arrived == now
    for now in range(3, 20):
        it.lost = 1.0
        it.push(sent[2], float(now))
    assert (it.arrived, it.lost) == (2.0, 1.0)


def test_a_short_gap_is_bridged_by_missing_samples() -> None:
    it = bed()
    sent = messages(10)
    for chunk in [*sent[:3], *sent[5:]]:
        it.push(chunk, 0.0)
    it.flush()
    hops = taken(it)
    missing = np.isnan(np.concatenate([h for h, _, _ in hops]))
    assert np.flatnonzero(missing).tolist() == list(range(300, 500))
    assert sum(fresh for _, fresh, _ in hops) == 1
    assert [time for _, _, time in hops] == pytest.approx(list(range(1, 11)))
    assert it.observe(0, 0.0).gap == pytest.approx(2.0)
    assert it.observe(0, 0.0).gap == 0.0


def test_a_long_gap_begins_anew_on_a_hop_of_its_own() -> None:
    it = bed()
    sent = messages(10, sizes=(0.5,))
    for chunk in [*sent[:7], *sent[13:]]:
        it.push(chunk, 0.0)
    it.flush()
    hops = taken(it)
    assert [fresh for _, fresh, _ in hops] == [True, False, False, False, True, False, False]
    assert [time for _, _, time in hops] == pytest.approx([1, 2, 3, 4, 7.5, 8.5, 9.5])
    np.testing.assert_array_equal(np.isnan(hops[3][0]), np.arange(100) >= 50)
    np.testing.assert_allclose(hops[4][0], ramp(1, 650)[:, 0], atol=1e-6)


def test_several_restarts_in_a_row_are_each_a_beginning() -> None:
    it = bed()
    for number in range(4):
        start = START + 100 * number
        for chunk in chunks("a", ramp(2.5), RATE, ("II",), sizes=(0.5,), start=start, sequence=1000 * number):
            it.push(chunk, 0.0)
    it.flush()
    hops = taken(it)
    assert [fresh for _, fresh, _ in hops] == [True, False, False] * 3 + [True, False]
    assert not it._breaks


def test_over_a_break_neither_beats_nor_intervals_are_remembered() -> None:
    it = bed()
    it.found([100, 200, 300])
    assert it.rhythm.rate(0) is None
    it.found([400])
    assert it.rhythm.rate(0) == 60
    it.interrupt()
    assert (it.waiting, it.rhythm.rate(0)) == ([], None)
    it.found([9000, 9100])
    assert math.isnan(it.waiting[0].share)
    assert it.waiting[1].share == 1.0


def test_an_interval_over_seconds_that_could_not_be_judged_is_not_known() -> None:
    it = bed()
    it.quality = np.array([SignalQuality.GOOD], np.int8)
    it.found([100, 200, 300, 400])
    it.quality = np.array([SignalQuality.POOR], np.int8)
    it.end = 500
    seen = it.observe(30, 0.0)
    assert (seen.good, seen.silence, seen.heart_rate, seen.poor) == (False, None, None, ("II",))
    it.quality = np.array([SignalQuality.GOOD], np.int8)
    it.end = 900
    assert it.observe(30, 0.0).silence == 0
    it.found([950])
    assert math.isnan(it.waiting[-1].share)


def test_silence_is_counted_from_the_last_beat_or_from_when_the_signal_was_good() -> None:
    it = bed()
    it.quality = np.array([SignalQuality.GOOD], np.int8)
    it.end = 100
    assert it.observe(30, 0.0).silence == 0
    it.end = 600
    assert it.observe(30, 0.0).silence == pytest.approx(4.7)
    it.found([500])
    assert it.observe(30, 0.0).silence == pytest.approx(0.7)


def test_the_burden_is_the_share_of_the_last_20_beats() -> None:
    it = bed()
    for _ in range(19):
        it.judged(True)
    assert it.burden is None
    it.judged(False)
    assert it.burden == pytest.approx(0.95)
    for n in range(20):
        it.judged(n % 2 == 0)
    assert (it.burden, it.anomalous, it.reading().anomalous) == (0.5, 29, 29)


def test_how_far_it_lags_behind_counts_what_waits() -> None:
    it = bed()
    for chunk in messages(3):
        it.push(replace(chunk, received=10.0), 10.0)
    it.take()
    assert it.observe(0, 10.5).behind == pytest.approx(2.5)
