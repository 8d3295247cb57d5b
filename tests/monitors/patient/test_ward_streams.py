from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st

from genray.ecg.synthesis import Episode, generate
from monitors.patient.resume import Resumption
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward
from monitors.sources.message import MISSING, Chunk
from tests.monitors.patients import START, LiveWard, chunks, live_ward, settings

TWO = ("II", "V1")


def test_many_streams_of_two_rates_at_once_are_watched_as_one_at_a_time(beat_model: BeatModel) -> None:
    def make_feeds() -> dict[str, list[Chunk]]:
        feeds = {}
        for n, (rate, leads) in enumerate([(360.0, TWO), (250.0, ("V1",)), (360.0, ("II",)), (250.0, TWO)]):
            volts = generate(50, rate, leads, seed=n, script=[Episode("pvc", 35, 15)]).millivolts
            feeds[f"bed-{n}"] = list(chunks(f"bed-{n}", volts, rate, leads))
        return feeds

    together = live_ward(beat_model, watched=make_feeds())
    together.feed(*map(iter, make_feeds().values()))
    for stream, sent in make_feeds().items():
        alone = live_ward(beat_model, watched={stream})
        alone.feed(iter(sent))
        assert alone.output.readings == [r for r in together.output.readings if r.stream == stream]
        times = [beat.time for beat in alone.output.beats[stream]]
        assert times == [beat.time for beat in together.output.beats[stream]]
        scores = [beat.score for beat in alone.output.beats[stream]]
        assert scores == pytest.approx([beat.score for beat in together.output.beats[stream]], abs=0.002)
        names = [(t.alarm, t.change) for t in alone.output.transitions]
        assert names == [(t.alarm, t.change) for t in together.changes(stream=stream)]


def test_the_next_patient_in_the_same_rows_is_watched_as_in_an_empty_ward(beat_model: BeatModel) -> None:
    live = live_ward(beat_model)
    tall = generate(45, seed=7, script=[Episode("pvc", 0, 45, share=0.5)]).millivolts * 4
    live.feed(chunks("a", tall), chunks("stays", tall))
    assert live.ward.discharge("a").discharged == ["a"]
    second = list(chunks("b", generate(45, seed=8).millivolts))
    live.feed(iter(second))
    fresh = live_ward(beat_model)
    fresh.feed(iter(second))
    assert fresh.output.readings == [r for r in live.output.readings if r.stream == "b"]
    again = live_ward(beat_model)
    again.feed(chunks("a", tall))
    again.ward.discharge("a")
    again.feed(iter([replace(chunk, stream="a") for chunk in second]))
    assert [replace(r, stream="b") for r in again.output.readings[45:]] == fresh.output.readings


@pytest.mark.parametrize("others", [("II",), ("II", "V1", "V5"), ("V1", "II")])
def test_other_leads_in_mid_stream_go_on_and_disturb_no_neighbour(
    beat_model: BeatModel, others: tuple[str, ...]
) -> None:
    neighbour = list(chunks("b", generate(30, seed=9).millivolts))
    alone = live_ward(beat_model)
    alone.feed(iter(neighbour[:10]))
    alone.feed(iter(neighbour[10:]))
    live = live_ward(beat_model)
    live.feed(chunks("a", generate(10, seed=1).millivolts))
    live.ward.push(
        next(chunks("a", generate(5, seed=1).millivolts, sizes=(5.0,), sequence=10, start=START + 10)), 10
    )
    changed = chunks(
        "a", generate(30, leads=others, seed=2).millivolts, 360, others, start=START + 15, sizes=(0.5,)
    )
    live.ward.push(next(changed), 10)
    live.feed(iter(neighbour[:10]))
    live.feed(iter(neighbour[10:]), changed)
    assert live.output.faults["format-change"] == 1
    assert [r for r in live.output.readings if r.stream == "b"] == alone.output.readings
    last = [r for r in live.output.readings if r.stream == "a"][-1]
    assert (set(last.quality), round(last.heart_rate or 0) > 50) == (set(others), True)


def test_another_rate_in_mid_stream_goes_on_and_open_alarms_stay(beat_model: BeatModel) -> None:
    live = live_ward(beat_model)
    still = [Episode("asystole", 10, 90)]
    live.feed(chunks("a", generate(20, seed=1, script=still).millivolts))
    assert [t.change for t in live.changes("asystole")] == ["onset"]
    for number in range(5):
        rate = 100.0 + number
        volts = generate(4, rate, seed=2).millivolts
        live.feed(chunks("a", volts, rate, start=START + 20 + 4 * number, sequence=100 * number))
    assert [t.change for t in live.changes("asystole")] in (["onset"], ["onset", "latched"])
    name = live.changes("asystole")[0].alarm
    assert live.ward.acknowledge(name)[0].change == "acknowledged"
    assert len(live.ward._banks) == 1


def test_an_acknowledgment_right_after_a_change_of_leads_has_the_time_of_the_samples(
    beat_model: BeatModel,
) -> None:
    live = live_ward(beat_model)
    live.feed(chunks("a", generate(20, seed=1, script=[Episode("asystole", 8, 90)]).millivolts))
    live.ward.push(
        next(
            chunks("a", generate(1, leads=("V5",)).millivolts, 360, ("V5",), sizes=(0.2,), start=START + 20)
        ),
        20,
    )
    changes = live.ward.acknowledge(live.changes("asystole")[0].alarm)
    assert changes[0].time == pytest.approx(START + 20)


def test_streams_beyond_the_limit_are_refused_until_one_is_discharged(beat_model: BeatModel) -> None:
    ward = Ward(settings(streams=2), beat_model)
    chunk = next(chunks("a", generate(1).millivolts))
    assert [ward.push(replace(chunk, stream=s), 0) for s in "abc"] == [True, True, False]
    assert ward.push(replace(chunk, sequence=1, start=START + 1), 0)
    ward.discharge("a")
    assert ward.push(replace(chunk, stream="c"), 0)
    assert ("a" in ward, "c" in ward, len(ward)) == (False, True, 2)


def test_a_discharge_ends_alarms_and_forgets_the_reference(beat_model: BeatModel) -> None:
    live = live_ward(beat_model)
    live.feed(chunks("a", generate(70, seed=2, script=[Episode("asystole", 50, 90)]).millivolts))
    assert live.output.learned == ["a"]
    output = live.ward.discharge("a")
    assert [(t.kind, t.change, t.state) for t in output.transitions] == [("asystole", "ended", "ended")]
    assert live.ward.discharge("a").discharged == []
    live.feed(chunks("a", generate(3, seed=2).millivolts))
    assert live.output.readings[-1].learned < 0.2


def test_a_stream_that_was_silent_for_long_is_discharged(beat_model: BeatModel) -> None:
    live = live_ward(beat_model, discharge_after=20)
    live.feed(chunks("a", generate(10, seed=2).millivolts))
    live.pass_time(25)
    assert (live.output.discharged, len(live.ward), len(live.ward._banks)) == (["a"], 0, 0)
    assert [t.change for t in live.changes("stream-lost")] == ["onset", "ended"]


def test_after_a_restart_references_and_open_alarms_are_as_they_were(beat_model: BeatModel) -> None:
    ecg = generate(110, seed=2, script=[Episode("pvc", 50, 60, share=0.5)])
    sent = list(chunks("a", ecg.millivolts))
    live = live_ward(beat_model)
    live.feed(iter(sent[:90]))
    opened = live.changes("anomaly")[-1]
    references = {stream: bed.reference for stream, bed in live.ward.saved_beds(["a"]).items()}
    again = LiveWard(Ward(settings(), beat_model, references=references, resumption=Resumption([opened])))
    again.now = 90
    again.feed(iter(sent[90:]))
    assert {r.learned for r in again.output.readings} == {1.0}
    assert "onset" not in [t.change for t in again.changes("anomaly")]
    assert again.ward.acknowledge(opened.alarm)[0].change == "acknowledged"
    third = Ward(settings(), beat_model, references=references, resumption=Resumption([opened]))
    assert third.discharge("a").transitions == [], "whoever told it ends it"
    third.push(sent[90], 0)
    assert third.acknowledge(opened.alarm) == []
    damaged = LiveWard(Ward(settings(), beat_model, references={"a": b"damaged"}))
    damaged.feed(iter(sent[:3]))
    assert damaged.output.readings[-1].learned < 0.2


@pytest.mark.parametrize("lead", ["V5", "II"])
@pytest.mark.parametrize("value", [0, MISSING, 32767, -32767, "square", "random"])
def test_whatever_a_device_sends_no_number_is_nan_and_nothing_is_raised(
    beat_model: BeatModel, value: int | str, lead: str
) -> None:
    samples = np.full((360, 1), 0 if isinstance(value, str) else value, np.int16)
    drawn = np.random.default_rng(0)
    live = live_ward(beat_model, watched={"a"})
    for number in range(70):
        if value == "square":
            samples = np.where(np.arange(360)[:, None] % 300 < 20, 32767, -32768).astype(np.int16)
        elif value == "random":
            samples = drawn.integers(-32768, 32768, (360, 1)).astype(np.int16)
        chunk = Chunk(
            stream="a",
            sequence=number,
            start=START + number,
            rate=360.0,
            leads=(lead,),
            gains=(1.0,),
            samples=samples,
        )
        live.feed(iter([chunk]))
    out = live.output
    beats = [beat for stream in out.beats.values() for beat in stream]
    given = [*out.transitions, *out.traces, *beats, *out.readings]
    json.dumps([asdict(each) for each in given], allow_nan=False)
    assert len(live.output.readings) == 70
    assert np.isfinite([*live.output.scores, *live.output.delays]).all()


def test_leads_that_the_bundle_does_not_know_are_watched_by_shape_and_rhythm(beat_model: BeatModel) -> None:
    live = live_ward(beat_model)
    ecg = generate(110, leads=("V5",), seed=3, script=[Episode("pvc", 60, 50, share=0.5)])
    live.feed(chunks("a", ecg.millivolts, leads=("V5",)))
    onset = live.changes("anomaly")[0]
    assert onset.time - START > 60
    assert {beat["reconstruction"] for beat in onset.why["beats"]} == {None}


def messages() -> st.SearchStrategy[list[Chunk]]:
    """As a decoder may give them, in any order and of any shape."""

    def chunk(
        sequence: int, start: float, rate: float, leads: int, length: int, gain: float, seed: int
    ) -> Chunk:
        drawn = np.random.default_rng(seed)
        tall = [1, 300, 32767][seed % 3]
        samples = drawn.integers(-tall, tall + 1, (length, leads)).astype(np.int16)
        samples[drawn.random(length) < 0.1 * (seed % 4)] = MISSING
        return Chunk(
            stream=f"s{seed % 2}",
            sequence=sequence,
            start=START + start,
            rate=rate,
            leads=("II", "V1", "V5", "x")[:leads],
            gains=(gain,) * leads,
            samples=samples,
        )

    one = st.builds(
        chunk,
        st.integers(0, 12),
        st.floats(-20, 20),
        st.sampled_from([50.0, 127.3, 360.0]),
        st.integers(1, 4),
        st.integers(1, 500),
        st.sampled_from([1.0, 200.0, 1e5]),
        st.integers(0, 50),
    )
    return st.lists(one, max_size=25)


@tries(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages(), st.sampled_from([0.25, 1.0, 4.0]))
def test_messages_of_any_shape_in_any_order_never_raise(
    beat_model: BeatModel, sent: list[Chunk], hop: float
) -> None:
    live = live_ward(beat_model, watched={"s0", "s1"}, hop=hop)
    for chunk in sent:
        live.feed(iter([chunk]))
    live.pass_time(20)
    live.step()
    json.dumps([asdict(t) for t in live.output.transitions], allow_nan=False)
    for stream in ("s0", "s1"):
        live.ward.discharge(stream)
    assert (len(live.ward), live.ward._banks) == (0, {})


def test_streams_whose_clocks_differ_by_some_ppm_are_analysed_together(beat_model: BeatModel) -> None:
    live = live_ward(beat_model)
    rates = [100.0 + 0.001 * number for number in range(40)]
    leads = [generate(8, 100.0, seed=1).millivolts] * len(rates)
    live.feed(*(chunks(f"bed-{rate}", lead, rate) for rate, lead in zip(rates, leads, strict=True)))
    assert len(live.ward._banks) == 1
    last = {reading.stream: reading for reading in live.output.readings}
    assert len(last) == len(rates)
    assert len({reading.beats for reading in last.values()}) == 1
    for rate in rates:
        live.ward.discharge(f"bed-{rate}")
    assert not live.ward._banks
