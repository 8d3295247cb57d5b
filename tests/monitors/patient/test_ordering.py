"""The order of messages: what is lost, doubled, mixed up, and what clocks do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.patient.ordering import Ordered, OrderFault, Sequencer, SequencerSettings
from monitors.sources.message import Chunk
from tests.monitors.samples import START, chunk


def run(chunks: Sequence[Chunk], **settings: float) -> tuple[list[Ordered], dict[str, int]]:
    """What comes out of a sequencer, flushed at the end, and its faults."""
    sequencer = Sequencer(SequencerSettings.model_validate(settings))
    result = [ordered for each in chunks for ordered in sequencer.push(each)]
    assert sequencer.held <= 3
    result += sequencer.flush()
    assert sequencer.held == 0
    assert sequencer.faults.keys() <= set(get_args(OrderFault))
    return result, dict(sequencer.faults)


def numbers(result: Sequence[Ordered]) -> list[int]:
    return [each.chunk.sequence for each in result]


def later(sent: Chunk, seconds: float) -> Chunk:
    return replace(sent, start=sent.start + seconds)


def test_messages_in_order_pass_untouched() -> None:
    sent = [chunk(number) for number in range(5)]
    result, faults = run(sent)
    assert [each.chunk for each in result] == sent
    assert not any(each.missing or each.restarted for each in result)
    assert not faults


@given(st.data())
def test_whatever_the_transport_does_samples_come_once_in_order_and_gaps_are_known(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(2, 30))
    lost = data.draw(st.sets(st.integers(1, count - 2))) if count > 2 else set()
    kept = [number for number in range(count) if number not in lost]
    # Each is overtaken by at most three: sorting by number plus 0 to 3 is any such order.
    delays = data.draw(st.lists(st.floats(0, 3), min_size=len(kept), max_size=len(kept)))
    places = sorted(range(len(kept)), key=lambda place: (place + (place > 0) * delays[place], place))
    arrived = [kept[place] for place in places]
    for _ in range(data.draw(st.integers(0, 5))):
        number = data.draw(st.sampled_from(kept))
        first = arrived.index(number)
        arrived.insert(data.draw(st.integers(first + 1, len(arrived))), number)
    result, faults = run([chunk(number, seconds=0.5) for number in arrived], window_seconds=60)
    assert numbers(result) == kept
    assert sum(each.missing for each in result) == pytest.approx(0.5 * len(lost), abs=1e-5)
    assert not any(each.restarted for each in result)
    assert faults.get("duplicate", 0) + faults.get("late", 0) == len(arrived) - len(kept)
    assert faults.get("gap", 0) == len([number for number in lost if number + 1 not in lost])


WILD = st.lists(
    st.builds(
        lambda sequence, start, seconds, rate: replace(
            chunk(0, rate=rate, seconds=seconds), sequence=sequence, start=start
        ),
        st.one_of(st.integers(0, 20), st.integers(2**40, 2**64 - 1)),
        st.one_of(st.integers(0, 80).map(lambda n: START + n / 4), st.floats(0, 4e9)),
        st.sampled_from([0.1, 1.0, 5.0]),
        st.sampled_from([50.0, 60.0]),
    ),
    max_size=30,
)


@given(WILD)
def test_no_sequence_of_messages_raises_or_stalls_the_stream(noise: list[Chunk]) -> None:
    sequencer = Sequencer(SequencerSettings())
    for each in noise:
        for ordered in sequencer.push(each):
            assert 0 <= ordered.missing <= 86_401
            assert len(ordered.chunk.samples)
        assert sequencer.held <= 3
    # Whatever came before, a sender that is sane from now on is heard.
    sane = [later(chunk(number), 500.0) for number in range(1000, 1020)]
    result = [ordered for each in sane for ordered in sequencer.push(each)]
    assert [o.chunk.sequence for o in result if o.chunk.start >= START + 1500][-5:] == list(range(1015, 1020))


def test_what_never_comes_is_given_up_when_the_window_is_full_or_at_a_flush() -> None:
    sequencer = Sequencer(SequencerSettings())
    assert numbers(sequencer.push(chunk(0))) == [0]
    assert [sequencer.push(chunk(number)) for number in (2, 3, 4)] == [[], [], []]
    (gap, *rest) = sequencer.push(chunk(5))
    assert (gap.chunk.sequence, gap.missing, gap.restarted) == (2, 1.0, False)
    assert numbers(rest) == [3, 4, 5]
    assert sequencer.push(chunk(7)) == []
    assert numbers(sequencer.flush()) == [7]
    assert sequencer.push(chunk(6)) == []
    assert sequencer.faults == {"gap": 2, "late": 1}


def test_a_backlog_that_comes_after_newer_messages_is_dropped_as_late() -> None:
    result, faults = run([chunk(number) for number in [0, *range(10, 14), *range(1, 10), 14]])
    assert numbers(result) == [0, 10, 11, 12, 13, 14]
    assert result[1].missing == 9.0
    assert faults == {"gap": 1, "late": 9}


def test_messages_from_before_the_first_are_late_however_many_and_short_they_are() -> None:
    for seconds in (0.1, 1.0):
        result, faults = run([chunk(number, seconds=seconds) for number in [100, *range(80, 100), 101]])
        assert numbers(result) == [100, 101]
        assert faults == {"late": 20}


def test_one_message_of_a_mad_count_and_time_does_not_make_the_rest_late() -> None:
    mad = replace(chunk(0), sequence=2**50, start=4e9)
    sequencer = Sequencer(SequencerSettings(window=0))
    result = [ordered for each in [chunk(0), mad] for ordered in sequencer.push(each)]
    assert numbers(result) == [0, 2**50]
    assert result[1].restarted
    assert [numbers(sequencer.push(chunk(number))) for number in range(1, 6)] == [[], [], [3], [4], [5]]


def test_a_window_of_none_waits_for_nothing() -> None:
    sequencer = Sequencer(SequencerSettings(window=0))
    sequencer.push(chunk(0))
    assert [each.missing for each in sequencer.push(chunk(4))] == [3.0]


def test_long_messages_are_not_held_longer_than_the_window_has_seconds() -> None:
    sequencer = Sequencer(SequencerSettings())
    sequencer.push(chunk(0, seconds=4))
    assert numbers(sequencer.push(chunk(2, seconds=4))) == [2]


@pytest.mark.parametrize("jump", [-86_400.0, -600.0, -2.0, 2.0, 600.0, 1e8])
def test_a_clock_that_jumps_restarts_the_time_and_loses_nothing(jump: float) -> None:
    result, faults = run([chunk(0), chunk(1), *(later(chunk(number), jump) for number in (2, 3, 4))])
    assert numbers(result) == [0, 1, 2, 3, 4]
    assert [each.restarted for each in result] == [False, False, True, False, False]
    assert result[2].chunk.start == chunk(2).start + jump
    assert faults == {"clock-jump": 1}


def test_a_clock_set_back_while_a_message_is_lost_costs_only_what_patience_says() -> None:
    result, faults = run([chunk(0), *(later(chunk(number), -50) for number in range(2, 9))])
    assert numbers(result) == [0, 4, 5, 6, 7, 8]
    assert faults == {"late": 2, "gap": 1, "clock-jump": 1}


def test_a_sender_that_starts_again_is_followed_at_once() -> None:
    again = [later(chunk(number), 30.0) for number in range(3)]
    result, faults = run([chunk(20), chunk(21), *(later(each, 20.0) for each in again)])
    assert numbers(result) == [20, 21, 0, 1, 2]
    assert [each.restarted for each in result] == [False, False, True, False, False]
    assert result[2].missing == pytest.approx(28.0)
    assert faults == {"sender-restart": 1}


def test_a_device_without_a_clock_that_starts_again_is_followed_after_some_messages() -> None:
    boot = [replace(chunk(number), start=float(number)) for number in range(6)]
    result, faults = run([*(chunk(number) for number in range(100)), *boot])
    assert numbers(result)[100:] == [2, 3, 4, 5]
    assert faults == {"late": 2, "sender-restart": 1, "clock-jump": 1}


@pytest.mark.parametrize("uptime", [5, 20, 70, 600])
def test_a_device_without_a_clock_that_was_on_for_however_long_is_followed_after_some_messages(
    uptime: int,
) -> None:
    first = [replace(chunk(number), start=float(number)) for number in range(uptime)]
    boot = [replace(each, samples=each.samples + 3) for each in first]
    result, faults = run([*first, *boot])
    assert numbers(result) == [*range(uptime), *range(2, uptime)]
    assert faults.get("duplicate", 0) == 0


@given(WILD, st.integers(0, 2**63) | st.integers(0, 30), st.floats(0, 4e9) | st.integers(0, 80).map(float))
def test_whatever_was_before_a_sender_that_starts_again_is_heard_soon(
    noise: list[Chunk], sequence: int, start: float
) -> None:
    settings = SequencerSettings()
    sequencer = Sequencer(settings)
    for each in noise:
        sequencer.push(each)
    again = [
        replace(chunk(n), sequence=sequence + n, start=start + n, leads=("I", "II")) for n in range(1, 100)
    ]
    out = [any(ordered.chunk.leads == ("I", "II") for ordered in sequencer.push(each)) for each in again]
    # Only what can be messages that were given up is dropped, and that is not for long.
    missed = sequencer.faults["late"] > 40
    assert out.index(True) <= (64 if missed else 0) + settings.patience + 2 * settings.window
    assert all(out[out.index(True) + 2 * settings.window :])


def test_a_message_from_before_a_restart_does_not_wait_for_ever() -> None:
    sequencer = Sequencer(SequencerSettings())
    sequencer.push(chunk(0))
    sequencer.push(replace(chunk(1), sequence=5000))
    for number in range(1, 12):
        assert numbers(sequencer.push(chunk(number))) == [number]
    assert sequencer.held == 0


def test_other_leads_gains_or_rates_restart_the_stream() -> None:
    sent = [
        chunk(0),
        replace(chunk(1), leads=("II", "V5")),
        replace(chunk(2), leads=("II", "V5"), gains=(1.0, 1.0)),
    ]
    sent.append(replace(sent[2], sequence=3, start=START + 3, rate=500.0))
    result, faults = run(sent)
    assert [each.restarted for each in result] == [False, True, True, True]
    assert faults == {"format-change": 3}


def test_samples_that_come_twice_in_windows_that_overlap_are_cut_off() -> None:
    whole = np.concatenate([chunk(number).samples for number in range(12)])
    windows = [
        replace(chunk(number), samples=whole[number * 360 : number * 360 + 1080]) for number in range(10)
    ]
    result, faults = run(windows)
    np.testing.assert_array_equal(np.concatenate([each.chunk.samples for each in result]), whole)
    assert result[1].chunk.start == START + 3
    assert not any(each.missing or each.restarted for each in result)
    assert faults == {"overlap": 9}


def test_a_message_sent_again_under_a_new_number_is_dropped() -> None:
    result, faults = run([chunk(0), replace(chunk(0), sequence=1), replace(chunk(1), sequence=2)])
    assert numbers(result) == [0, 2]
    assert faults == {"overlap": 1}


@given(st.lists(st.floats(-0.1, 0.1), min_size=50, max_size=50))
def test_stamps_that_jitter_do_not_shake_the_time(jitter: list[float]) -> None:
    result, faults = run([later(chunk(number), by) for number, by in enumerate(jitter)])
    starts = np.array([each.chunk.start for each in result])
    assert np.abs(np.diff(starts) - 1).max() <= 0.2 / 60 + 1e-6
    assert len(result) == 50
    assert not faults


def test_a_crystal_that_is_off_is_followed_for_a_day_without_a_jump() -> None:
    drift = 100e-6
    flat = np.zeros((600, 2), np.int16)
    sent = [
        replace(chunk(0), sequence=number, start=START + number * 10 * (1 + drift), rate=60.0, samples=flat)
        for number in range(8640)
    ]
    result, faults = run(sent)
    assert not faults
    assert result[-1].chunk.start == pytest.approx(sent[-1].start, abs=0.02)
