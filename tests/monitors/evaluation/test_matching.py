import numpy as np
import pytest

from monitors.alarms.events import AlarmKind, Change, Transition
from monitors.alarms.limits import Limits
from monitors.evaluation.matching import (
    AlarmSpan,
    TimeSpan,
    abnormal_episodes,
    alarm_delay,
    alarm_spans,
    false_alarms,
    false_onsets,
    pair_beats,
    rhythm_reasons,
)


@pytest.mark.parametrize(
    ("annotated", "detected", "partners"),
    [
        ([100, 200, 300], [101, 305], [0, -1, 1]),
        ([100], [46, 154], [-1]),  # as far as the window is too far
        ([100], [47], [0]),
        ([100, 160], [150], [-1, 0]),  # nearer to the one after
        ([100, 160], [120, 150], [0, 1]),  # so the one before is taken
        ([100, 200], [90, 110], [0, -1]),  # the earlier of two that are as near
        ([], [5], []),
        ([5], [], [-1]),
    ],
)
def test_each_annotated_beat_has_the_nearest_detected_one(
    annotated: list[int], detected: list[int], partners: list[int]
) -> None:
    assert pair_beats(annotated, detected, 54).tolist() == partners


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb, with pandas 3
def test_it_counts_as_wfdb_does() -> None:
    from wfdb.processing import compare_annotations

    for seed in range(60):
        rng = np.random.default_rng(seed)
        annotated = np.cumsum(rng.integers(72, 400, 200))
        kept = annotated[rng.random(200) > 0.1]
        extra = rng.integers(0, annotated[-1], 30)
        detected = np.unique(np.concatenate([kept + rng.integers(-70, 70, len(kept)), extra]).clip(0))
        theirs = compare_annotations(annotated, detected, 54)
        ours = pair_beats(annotated.tolist(), detected.tolist(), 54)
        assert ours.tolist() == theirs.matching_sample_nums.tolist()
        assert 100 < (ours >= 0).sum() < 200


def beats(count: int, *abnormal: int) -> tuple[np.ndarray, np.ndarray]:
    """A beat each second; which of them are abnormal."""
    times = np.arange(count, dtype=float)
    return times, np.isin(times, abnormal)


def test_an_episode_begins_with_the_eighth_of_20_and_is_over_when_three_are_left() -> None:
    # Beat 37 is the eighth. Of 30 to 37 the last 20 beats hold 4 at beat 53, and 3 at beat 54.
    assert abnormal_episodes(*beats(80, *range(30, 38))) == [TimeSpan(37, 54)]
    assert abnormal_episodes(*beats(80, *range(30, 37))) == []


def test_an_episode_that_is_not_over_lasts_to_the_last_beat() -> None:
    assert abnormal_episodes(*beats(60, *range(50, 60))) == [TimeSpan(57, 59)]


def test_twenty_beats_are_needed() -> None:
    assert abnormal_episodes(*beats(19, *range(19))) == []
    assert abnormal_episodes(*beats(20, *range(20))) == [TimeSpan(19, 19)]


def test_two_episodes_are_two() -> None:
    found = abnormal_episodes(*beats(140, *range(30, 38), *range(100, 108)))
    assert found == [TimeSpan(37, 54), TimeSpan(107, 124)]


def at(*intervals: tuple[float, int]) -> np.ndarray:
    """Beats with so many intervals of so many seconds each, the first at 0."""
    return np.cumsum([0.0, *(each for each, count in intervals for _ in range(count))])


@pytest.mark.parametrize(
    ("intervals", "kinds"),
    [
        ([(0.8, 40)], set()),
        ([(0.8, 20), (0.4, 20), (0.8, 20)], {"tachycardia"}),  # 150 a minute for 8 s
        ([(0.8, 20), (0.4, 5), (0.8, 20)], set()),  # for 2 s
        ([(0.8, 20), (1.7, 8), (0.8, 20)], {"bradycardia"}),  # 35 a minute
        ([(0.8, 20), (2.5, 1), (0.8, 20)], set()),  # one pause
        ([(0.8, 20), (7.0, 1), (0.8, 20)], {"asystole", "bradycardia", "tachycardia"}),  # or it flutters
    ],
)
def test_the_beats_say_what_is_wrong_with_the_rhythm(
    intervals: list[tuple[float, int]], kinds: set[str]
) -> None:
    reasons = rhythm_reasons(at(*intervals), Limits())
    assert {kind for kind, spans in reasons.items() if spans} == kinds


def test_a_pause_is_where_it_is() -> None:
    assert rhythm_reasons(at((1.0, 10), (4.0, 1), (1.0, 5)), Limits())["asystole"] == [TimeSpan(10, 14)]
    assert rhythm_reasons(np.array([3.0]), Limits())["asystole"] == []


def turn(
    change: Change, time: float, *, name: str = "a", announced: bool = True, kind: AlarmKind = "anomaly"
) -> Transition:
    return Transition(
        alarm=name,
        stream="bed",
        kind=kind,
        category="physiological",
        priority="medium",
        change=change,
        state="ended" if change == "ended" else "active",
        time=time,
        onset=time,
        announced=announced,
    )


def test_an_alarm_lasts_until_its_end_and_counts_anew_when_it_comes_again() -> None:
    turns = [
        turn("onset", 10, announced=False),
        turn("suppressed", 12, announced=False),
        turn("onset", 13, name="b", kind="asystole"),
        turn("resumed", 15),
        turn("ended", 20),
        turn("resumed", 50, announced=False),
        turn("latched", 60, announced=False),
    ]
    assert alarm_spans(turns, 100) == [
        AlarmSpan("anomaly", TimeSpan(10, 20), True, "medium"),
        AlarmSpan("asystole", TimeSpan(13, 100), True, "medium"),
        AlarmSpan("anomaly", TimeSpan(50, 60), False, "medium"),
    ]


def test_ten_seconds_off_is_near_enough() -> None:
    alarms = [AlarmSpan("anomaly", TimeSpan(start, start + 5), True) for start in (10, 84, 86, 140)]
    episode = TimeSpan(100, 130)
    assert len(false_alarms(alarms, [episode])) == 2  # 10 to 15 and 84 to 89; 91 is near, and 140 is
    assert len(false_onsets(alarms, [episode])) == 3  # only 140 began near
    assert len(false_alarms(alarms, [])) == 4


def test_the_delay_counts_from_the_episode_on() -> None:
    episode = TimeSpan(100, 130)
    late = AlarmSpan("anomaly", TimeSpan(104, 110), True)
    assert alarm_delay(episode, [late]) == 4
    assert alarm_delay(episode, [AlarmSpan("anomaly", TimeSpan(95, 99), True), late]) == 0
    assert alarm_delay(episode, [AlarmSpan("anomaly", TimeSpan(10, 20), True)]) is None
