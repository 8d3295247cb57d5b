from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load

from genray.ecg.synthesis import Episode, generate
from monitors.alarms.events import Transition
from monitors.patient.resume import Resumption
from monitors.patient.scoring import BeatModel
from monitors.patient.ward import Ward
from monitors.sources.message import Chunk
from tests.monitors.patients import START, LiveWard, chunks, settings

STANDSTILL = 60  # s


@pytest.fixture(scope="module")
def sent() -> list[Chunk]:
    """100 s of a patient whose heart stands still after a minute, for 8 s."""
    ecg = generate(100, seed=4, script=[Episode("asystole", STANDSTILL, 8)])
    return list(chunks("bed", ecg.millivolts))


def resumed(
    beat_model: BeatModel, alarms: Sequence[Transition] = (), states: Mapping[str, bytes] | None = None
) -> Ward:
    """A ward that goes on with `alarms` and `states`."""
    return Ward(settings(), beat_model, resumption=Resumption.from_saved(alarms, states))


def states_of(ward: Ward) -> dict[str, bytes]:
    return {stream: bed.alarms for stream, bed in ward.saved_beds(["bed"]).items()}


def changes(ward: Ward, sent: Sequence[Chunk]) -> list[tuple[str, str, float]]:
    live = LiveWard(ward)
    live.feed(iter(sent))
    return [(t.alarm, t.change, t.time - START) for t in live.changes()]


@pytest.mark.parametrize("stop", [62, 64, 70, 80])
def test_what_comes_again_is_not_told_again_and_what_follows_is_told_as_ever(
    beat_model: BeatModel, sent: list[Chunk], stop: int
) -> None:
    whole = changes(resumed(beat_model), sent)
    first = resumed(beat_model)
    before = changes(first, sent[:stop])
    second = resumed(beat_model, [], states_of(first))
    assert before + changes(second, sent[stop - 40 :]) == whole
    assert [change for _, change, _ in whole] == ["onset", "latched"]


def test_references_and_recent_beats_go_on_as_if_there_had_been_no_restart(beat_model: BeatModel) -> None:
    ecg = generate(130, seed=6, script=[Episode("pvc", 60, 50, share=0.5)])
    sent = list(chunks("bed", ecg.millivolts))

    def played(ward: Ward, sent: Sequence[Chunk]) -> Ward:
        LiveWard(ward).feed(iter(sent))
        return ward

    whole = played(resumed(beat_model), sent).saved_beds(["bed"])["bed"]
    for stop in (20, 58, 75, 100):  # while it learns, and later
        saved = played(resumed(beat_model), sent[:stop]).saved_beds(["bed"])["bed"]
        again = Ward(
            settings(),
            beat_model,
            references={"bed": saved.reference},
            resumption=Resumption.from_saved((), {"bed": saved.alarms}),
        )
        assert played(again, sent[max(0, stop - 40) : stop]).saved_beds(["bed"]) in ({}, {"bed": saved})
        end = played(again, sent[stop:]).saved_beds(["bed"])["bed"]
        assert end.alarms == whole.alarms
        # Filters forget their beginning slowly, so that the last bits may differ.
        shapes = [load(bed.reference)["shape"] for bed in (end, whole)]
        np.testing.assert_allclose(*shapes, atol=1e-4)


def test_without_a_state_a_stream_is_seen_from_its_beginning_again(
    beat_model: BeatModel, sent: list[Chunk]
) -> None:
    first = resumed(beat_model)
    live = LiveWard(first)
    live.feed(iter(sent[:66]))
    assert changes(resumed(beat_model, live.changes(), {}), sent) == changes(resumed(beat_model), sent)


def test_an_alarm_that_the_journal_alone_knows_is_open_when_its_time_has_come(
    beat_model: BeatModel, sent: list[Chunk]
) -> None:
    first = resumed(beat_model)
    live = LiveWard(first)
    live.feed(iter(sent[:50]))
    alarm = Transition(
        alarm=f"bed:stream-lost:{round((START + 55) * 1000)}",
        stream="bed",
        kind="stream-lost",
        category="technical",
        priority="medium",
        change="onset",
        state="active",
        time=START + 55,
        onset=START + 55,
    )
    after = changes(resumed(beat_model, [alarm], states_of(first)), sent[10:])
    ended = [time for name, change, time in after if (name, change) == (alarm.alarm, "ended")]
    assert len(ended) == 1
    assert 59 <= ended[0] <= 61


def test_an_answer_that_came_after_the_state_was_kept_holds(beat_model: BeatModel, sent: list[Chunk]) -> None:
    first = resumed(beat_model)
    live = LiveWard(first)
    live.feed(iter(sent[:65]))
    (onset,) = live.changes("asystole")
    states = states_of(first)
    (answer,) = first.acknowledge(onset.alarm)
    later = replace(answer, time=onset.time + 2)
    assert [change for _, change, _ in changes(resumed(beat_model, [later], states), sent[25:])] == ["ended"]


def test_a_clock_that_was_set_back_leaves_nobody_unwatched(beat_model: BeatModel, sent: list[Chunk]) -> None:
    first = resumed(beat_model)
    live = LiveWard(first)
    live.feed(iter(sent[:50]))
    far = [replace(chunk, start=chunk.start - 7200) for chunk in sent]
    alarms = [change for _, change, _ in changes(resumed(beat_model, [], states_of(first)), far)]
    assert "onset" in alarms


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 99}'])
def test_a_damaged_state_is_none(beat_model: BeatModel, sent: list[Chunk], damaged: bytes) -> None:
    assert changes(resumed(beat_model, [], {"bed": damaged}), sent) == changes(resumed(beat_model), sent)
