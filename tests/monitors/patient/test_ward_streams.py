from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st

from genray.ecg.synthesis import Episode, generate
from monitors.patient.scoring import Scorer
from monitors.patient.ward import Ward
from monitors.sources.message import MISSING, Chunk
from tests.monitors.patients import START, Watch, chunks, settings, watch

TWO = ("II", "V1")


def test_many_streams_of_two_rates_at_once_are_watched_as_one_at_a_time(scorer: Scorer) -> None:
    def feeds() -> dict[str, list[Chunk]]:
        made = {}
        for n, (rate, leads) in enumerate([(360.0, TWO), (250.0, ("V1",)), (360.0, ("II",)), (250.0, TWO)]):
            volts = generate(50, rate, leads, seed=n, script=[Episode("pvc", 35, 15)]).millivolts
            made[f"bed-{n}"] = list(chunks(f"bed-{n}", volts, rate, leads))
        return made

    together = watch(scorer)
    together.ward.watched = frozenset(feeds())
    together.feed(*map(iter, feeds().values()))
    for stream, sent in feeds().items():
        alone = watch(scorer)
        alone.ward.watched = frozenset({stream})
        alone.feed(iter(sent))
        assert alone.all.readings == [r for r in together.all.readings if r.stream == stream]
        times = [beat["time"] for beat in alone.beats[stream]]
        assert times == [beat["time"] for beat in together.beats[stream]]
        scores = [beat["score"] for beat in alone.beats[stream]]
        assert scores == pytest.approx([beat["score"] for beat in together.beats[stream]], abs=0.002)
        names = [(t.alarm, t.change) for t in alone.all.transitions]
        assert names == [(t.alarm, t.change) for t in together.changes(stream=stream)]


def test_the_next_patient_in_the_same_rows_is_watched_as_in_an_empty_ward(scorer: Scorer) -> None:
    here = watch(scorer)
    tall = generate(45, seed=7, script=[Episode("pvc", 0, 45, share=0.5)]).millivolts * 4
    here.feed(chunks("a", tall), chunks("stays", tall))
    assert here.ward.discharge("a").discharged == ["a"]
    second = list(chunks("b", generate(45, seed=8).millivolts))
    here.feed(iter(second))
    fresh = watch(scorer)
    fresh.feed(iter(second))
    assert fresh.all.readings == [r for r in here.all.readings if r.stream == "b"]
    again = watch(scorer)
    again.feed(chunks("a", tall))
    again.ward.discharge("a")
    again.feed(iter([replace(chunk, stream="a") for chunk in second]))
    assert [replace(r, stream="b") for r in again.all.readings[45:]] == fresh.all.readings


@pytest.mark.parametrize("others", [("II",), ("II", "V1", "V5"), ("V1", "II")])
def test_other_leads_in_mid_stream_go_on_and_disturb_no_neighbour(
    scorer: Scorer, others: tuple[str, ...]
) -> None:
    neighbour = list(chunks("b", generate(30, seed=9).millivolts))
    alone = watch(scorer)
    alone.feed(iter(neighbour[:10]))
    alone.feed(iter(neighbour[10:]))
    here = watch(scorer)
    here.feed(chunks("a", generate(10, seed=1).millivolts))
    here.ward.push(
        next(chunks("a", generate(5, seed=1).millivolts, sizes=(5.0,), sequence=10, start=START + 10)), 10
    )
    changed = chunks(
        "a", generate(30, leads=others, seed=2).millivolts, 360, others, start=START + 15, sizes=(0.5,)
    )
    here.ward.push(next(changed), 10)
    here.feed(iter(neighbour[:10]))
    here.feed(iter(neighbour[10:]), changed)
    assert here.all.faults["format-change"] == 1
    assert [r for r in here.all.readings if r.stream == "b"] == alone.all.readings
    last = [r for r in here.all.readings if r.stream == "a"][-1]
    assert (set(last.quality), round(last.heart_rate or 0) > 50) == (set(others), True)


def test_another_rate_in_mid_stream_goes_on_and_open_alarms_stay(scorer: Scorer) -> None:
    here = watch(scorer)
    still = [Episode("asystole", 10, 90)]
    here.feed(chunks("a", generate(20, seed=1, script=still).millivolts))
    assert [t.change for t in here.changes("asystole")] == ["onset"]
    for number in range(5):
        rate = 100.0 + number
        volts = generate(4, rate, seed=2).millivolts
        here.feed(chunks("a", volts, rate, start=START + 20 + 4 * number, sequence=100 * number))
    assert [t.change for t in here.changes("asystole")] in (["onset"], ["onset", "latched"])
    name = here.changes("asystole")[0].alarm
    assert here.ward.acknowledge(name)[0].change == "acknowledged"
    assert len(here.ward._leads) == 1


def test_an_acknowledgment_right_after_a_change_of_leads_has_the_time_of_the_samples(scorer: Scorer) -> None:
    here = watch(scorer)
    here.feed(chunks("a", generate(20, seed=1, script=[Episode("asystole", 8, 90)]).millivolts))
    here.ward.push(
        next(
            chunks("a", generate(1, leads=("V5",)).millivolts, 360, ("V5",), sizes=(0.2,), start=START + 20)
        ),
        20,
    )
    changes = here.ward.acknowledge(here.changes("asystole")[0].alarm)
    assert changes[0].time == pytest.approx(START + 20)


def test_streams_beyond_the_limit_are_refused_until_one_is_discharged(scorer: Scorer) -> None:
    ward = Ward(settings(streams=2), scorer)
    chunk = next(chunks("a", generate(1).millivolts))
    assert [ward.push(replace(chunk, stream=s), 0) for s in "abc"] == [True, True, False]
    assert ward.push(replace(chunk, sequence=1, start=START + 1), 0)
    ward.discharge("a")
    assert ward.push(replace(chunk, stream="c"), 0)
    assert ("a" in ward, "c" in ward, len(ward)) == (False, True, 2)


def test_a_discharge_ends_alarms_and_forgets_the_reference(scorer: Scorer) -> None:
    here = watch(scorer)
    here.feed(chunks("a", generate(70, seed=2, script=[Episode("asystole", 50, 90)]).millivolts))
    assert list(here.all.references) == ["a"]
    made = here.ward.discharge("a")
    assert [(t.kind, t.change, t.state) for t in made.transitions] == [("asystole", "ended", "ended")]
    assert here.ward.discharge("a").discharged == []
    here.feed(chunks("a", generate(3, seed=2).millivolts))
    assert here.all.readings[-1].learned < 0.2


def test_a_stream_that_was_silent_for_long_is_discharged(scorer: Scorer) -> None:
    here = watch(scorer, discharge_after=20)
    here.feed(chunks("a", generate(10, seed=2).millivolts))
    here.pass_time(25)
    assert (here.all.discharged, len(here.ward), len(here.ward._leads)) == (["a"], 0, 0)
    assert [t.change for t in here.changes("stream-lost")] == ["onset", "ended"]


def test_after_a_restart_references_and_open_alarms_are_as_they_were(scorer: Scorer) -> None:
    made = generate(110, seed=2, script=[Episode("pvc", 50, 60, share=0.5)])
    sent = list(chunks("a", made.millivolts))
    here = watch(scorer)
    here.feed(iter(sent[:90]))
    opened = here.changes("anomaly")[-1]
    again = Watch(Ward(settings(), scorer, references=here.all.references, alarms=[opened]))
    again.now = 90
    again.feed(iter(sent[90:]))
    assert {r.learned for r in again.all.readings} == {1.0}
    assert "onset" not in [t.change for t in again.changes("anomaly")]
    assert again.ward.acknowledge(opened.alarm)[0].change == "acknowledged"
    third = Ward(settings(), scorer, references=here.all.references, alarms=[opened])
    assert third.discharge("a").transitions == [], "whoever told it ends it"
    third.push(sent[90], 0)
    assert third.acknowledge(opened.alarm) == []
    damaged = Watch(Ward(settings(), scorer, references={"a": b"damaged"}))
    damaged.feed(iter(sent[:3]))
    assert damaged.all.readings[-1].learned < 0.2


@pytest.mark.parametrize("lead", ["V5", "II"])
@pytest.mark.parametrize("value", [0, MISSING, 32767, -32767, "square", "random"])
def test_whatever_a_device_sends_no_number_is_nan_and_nothing_is_raised(
    scorer: Scorer, value: int | str, lead: str
) -> None:
    samples = np.full((360, 1), 0 if isinstance(value, str) else value, np.int16)
    drawn = np.random.default_rng(0)
    here = watch(scorer)
    here.ward.watched = frozenset({"a"})
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
        here.feed(iter([chunk]))
    text = [asdict(t) for t in here.all.transitions], here.all.traces, here.beats
    json.dumps([*text, [asdict(r) for r in here.all.readings]], allow_nan=False)
    assert len(here.all.readings) == 70
    assert np.isfinite([*here.all.scores, *here.all.delays]).all()


def test_leads_that_the_bundle_does_not_know_are_watched_by_shape_and_rhythm(scorer: Scorer) -> None:
    here = watch(scorer)
    made = generate(110, leads=("V5",), seed=3, script=[Episode("pvc", 60, 50, share=0.5)])
    here.feed(chunks("a", made.millivolts, leads=("V5",)))
    onset = here.changes("anomaly")[0]
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
    scorer: Scorer, sent: list[Chunk], hop: float
) -> None:
    here = watch(scorer, hop=hop)
    here.ward.watched = frozenset({"s0", "s1"})
    for chunk in sent:
        here.feed(iter([chunk]))
    here.pass_time(20)
    here.step()
    json.dumps([asdict(t) for t in here.all.transitions], allow_nan=False)
    for stream in ("s0", "s1"):
        here.ward.discharge(stream)
    assert (len(here.ward), here.ward._leads) == (0, {})
