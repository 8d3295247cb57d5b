from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from genray.ecg.beats import BeatSettings, cut_beats, normalise_beats
from genray.ecg.synthesis import Episode, GeneratedEcg, generate
from monitors.patient.reference import SHIFTS, Reference, ReferenceSettings, fit_to_references

Floats = NDArray[np.float32]

LEADS = ("II", "V1")
BOTH = np.ones(2, np.bool_)
STEP = 0.7 / 139
WIDE = BeatSettings(before=0.25 + SHIFTS * STEP, after=0.45 + SHIFTS * STEP, samples=140 + 2 * SHIFTS)
BEATS = ReferenceSettings(minutes=1, beats=10)


def wide_beats(ecg: GeneratedEcg) -> tuple[Floats, list[str], Floats]:
    """Beats (beats, leads, samples), their symbols, and their intervals as shares of the usual one."""
    beats, kept = cut_beats(ecg.millivolts, ecg.peaks, 360.0, WIDE)
    intervals = np.diff(ecg.peaks, prepend=ecg.peaks[0])
    shares = (intervals / np.median(intervals)).astype(np.float32)
    return beats, [s for s, k in zip(ecg.symbols, kept, strict=True) if k], shares[kept]


def learned(
    ecg: GeneratedEcg, settings: ReferenceSettings = BEATS, leads: tuple[str, ...] = LEADS
) -> Reference:
    """A reference that was shown all beats of `ecg`, unlabelled, in as long as it may take."""
    reference = Reference(settings, leads, 140)
    beats, _, shares = wide_beats(ecg)
    after = np.append(shares[1:], np.nan)
    for beat, before, behind in zip(beats, shares.tolist(), after.tolist(), strict=True):
        reference.add_beat(normalise_beats(beat[:, SHIFTS:-SHIFTS]), before, behind)
    reference.add_time(2 * 60 * settings.minutes)
    return reference


def distances(reference: Reference, beats: Floats) -> Floats:
    """(beats, leads)"""
    each = [fit_to_references(beat, BOTH, [reference])[1] for beat in beats]
    return np.stack(each)


def test_from_unlabelled_beats_of_which_three_in_ten_are_ventricular_the_usual_one_is_learned() -> None:
    for seed in range(6):
        ecg = generate(300, seed=seed, script=[Episode("pvc", 0, 300, share=0.3)])
        reference = learned(ecg, ReferenceSettings())
        assert reference.shape is not None
        beats, symbols, _ = wide_beats(ecg)
        far = distances(reference, beats).mean(axis=1)
        odd = np.array(symbols) == "V"
        # At a fast rate an extra beat begins within the window of the one before.
        usual = ~odd & ~np.append(odd[1:], True)
        assert np.median(far[odd]) > 1.5
        assert np.median(far[usual]) < 0.5
        assert np.mean(far[odd][:, None] > far[usual][None]) > 0.98


def test_until_the_time_is_over_and_enough_beats_are_trusted_nothing_is_learned() -> None:
    beats, _, _ = wide_beats(generate(60, seed=1))
    reference = Reference(BEATS, LEADS, 140)
    shapes = normalise_beats(beats[:, :, SHIFTS:-SHIFTS])
    for beat in shapes[:9]:
        reference.add_beat(beat, 1.0, 1.0)
    reference.add_time(30)
    assert (reference.shape, reference.learned_share) == (None, 0.5)
    reference.add_time(60)
    assert (reference.shape, reference.learned_share) == (None, 0.99)
    reference.add_beat(shapes[9], 1.0, 1.0)
    reference.add_time(1)
    assert (reference.shape is None, reference.learned_share) == (False, 1.0)


def test_of_a_rhythm_that_is_never_regular_the_most_frequent_shape_is_learned() -> None:
    beats, _, _ = wide_beats(generate(60, seed=1))
    reference = Reference(BEATS, LEADS, 140)
    for beat in normalise_beats(beats[:, :, SHIFTS:-SHIFTS]):
        reference.add_beat(beat, 0.6, 1.5)
    reference.add_time(119)
    assert reference.shape is None
    reference.add_time(1)
    assert reference.shape is not None
    assert np.median(distances(reference, beats)) < 0


def test_with_too_few_beats_of_any_kind_it_goes_on_learning() -> None:
    beats, _, _ = wide_beats(generate(60, seed=1))
    shapes = normalise_beats(beats[:, :, SHIFTS:-SHIFTS])
    reference = Reference(BEATS, LEADS, 140)
    for beat in shapes[:3]:
        reference.add_beat(beat, 1.0, 1.0)
    reference.add_time(500)
    assert reference.shape is None
    for beat in shapes:
        reference.add_beat(beat, 1.0, 1.0)
    reference.add_time(500)
    assert reference.shape is not None


def test_a_lead_that_was_never_good_has_no_reference_and_the_other_has() -> None:
    ecg = generate(60, seed=2)
    beats, _, _ = wide_beats(ecg)
    reference = Reference(BEATS, LEADS, 140)
    for beat in normalise_beats(beats[:, :, SHIFTS:-SHIFTS]):
        reference.add_beat(np.where([[True], [False]], beat, np.float32(np.nan)), 1.0, 1.0)
    reference.add_time(60)
    shape, far, _ = fit_to_references(beats[5], BOTH, [reference])
    assert np.isfinite(shape).all()
    assert (far[0] < 1, math.isnan(far[1])) == (True, True)
    again = Reference(BEATS, LEADS, 140)
    assert again.restore(reference.save())
    np.testing.assert_array_equal(fit_to_references(beats[5], BOTH, [again])[1], far)


def test_what_is_kept_of_a_day_of_learning_is_bounded() -> None:
    reference = Reference(ReferenceSettings(minutes=120, beats=128), ("II",), 140)
    beat = np.ones((1, 140), np.float32)
    for _ in range(20_000):
        reference.add_beat(beat, math.nan, math.nan)
    assert len(reference._early) <= 128


@pytest.mark.parametrize("shift", [-5, -2, 0, 3, 6])
def test_a_beat_is_moved_to_where_it_fits(shift: int) -> None:
    reference = learned(generate(60, seed=3))
    assert reference.shape is not None
    beat = np.zeros((2, 152), np.float32)
    beat[:, SHIFTS + shift : 146 + shift] = 0.8 * reference.shape + 0.3
    shape, far, _ = fit_to_references(beat, BOTH, [reference])
    np.testing.assert_allclose(shape, reference.shape, atol=0.1)
    assert (far < 0).all()


def test_beats_of_many_patients_at_once_are_judged_as_one_at_a_time() -> None:
    patients = [generate(60, seed=seed) for seed in range(3)]
    references = [learned(ecg) for ecg in patients]
    references.append(Reference(BEATS, LEADS, 140))
    beats = [wide_beats(ecg)[0][seed] for seed, ecg in enumerate([*patients, patients[0]])]
    good = np.array([True, True, True, False, False, False, True, True])
    shapes, far, _ = fit_to_references(np.concatenate(beats), good, references)
    for n, (beat, reference) in enumerate(zip(beats, references, strict=True)):
        alone = fit_to_references(beat, good[2 * n : 2 * n + 2], [reference])
        np.testing.assert_allclose(shapes[2 * n : 2 * n + 2], alone[0], atol=1e-5)
        np.testing.assert_allclose(far[2 * n : 2 * n + 2], alone[1], atol=1e-5)
    assert np.isnan(far[-2:]).all()
    np.testing.assert_allclose(shapes[-2:], normalise_beats(beats[3][:, SHIFTS:-SHIFTS]), atol=1e-5)


def test_flat_missing_and_extreme_leads_are_far_but_never_infinite() -> None:
    reference = learned(generate(60, seed=3))
    for beat in (np.zeros((2, 152)), np.full((2, 152), 32767.0), np.tile([32767.0, -32767.0], (2, 76))):
        shape, far, _ = fit_to_references(beat.astype(np.float32), BOTH, [reference])
        assert np.isfinite(shape).all()
        assert np.isfinite(far).all()
        assert (far > 1).all()
    missing = np.full((2, 152), np.nan, np.float32)
    assert np.isnan(fit_to_references(missing, ~BOTH, [reference])[1]).all()


def test_it_follows_a_slow_change_of_beats_in_time_but_no_early_ones() -> None:
    reference = learned(generate(60, seed=4))
    assert reference.shape is not None
    before = reference.shape.copy()
    other = before + np.float32(0.5)
    reference.follow(reference.usual[0], other, 0.6)
    reference.follow(reference.usual[0], other, math.nan)
    np.testing.assert_array_equal(reference.shape, before)
    one_lead = np.where([[True], [False]], other, np.float32(np.nan))
    for _ in range(500):
        reference.follow(reference.usual[0], one_lead, 1.0)
    np.testing.assert_allclose(reference.shape[0], other[0], atol=0.01)
    np.testing.assert_array_equal(reference.shape[1], before[1])


def ectopic_patient(
    *,
    normal: float,
    ectopic: float,
    shown: str = "NV",
    ventricular: float = math.nan,
) -> tuple[Reference, Floats, Floats]:
    """A reference after a minute of which four in five beats are ventricular, and the normal and the
    ventricular beats (beats, leads, samples); `normal` and `ectopic` are their surprises."""
    ecg = generate(300, seed=3, script=[Episode("pvc", 0, 300, share=0.3)])
    beats, symbols, _ = wide_beats(ecg)
    beats_of = {symbol: beats[np.array(symbols) == symbol] for symbol in "NV"}
    surprises = {"N": normal, "V": ectopic}
    reference = Reference(BEATS, LEADS, 140)
    for number in range(100):
        symbol = "N" if number % 5 == 0 else "V"
        if symbol in shown:
            beat = beats_of[symbol][number % len(beats_of[symbol])]
            shapes = normalise_beats(beat[:, SHIFTS:-SHIFTS])
            reference.add_beat(shapes, 1.0, 1.0, surprises[symbol], ventricular)
    reference.add_time(120)
    return reference, beats_of["N"], beats_of["V"]


def test_where_most_beats_are_abnormal_the_rarer_normal_ones_are_the_reference() -> None:
    reference, normal, ectopic = ectopic_patient(normal=-1.0, ectopic=1.0, ventricular=0.1)
    assert (reference.judged, reference.surprise, len(reference.usual)) == ("rare", -1.0, 1)
    assert np.median(distances(reference, normal)) < 0.5 < 1.5 < np.median(distances(reference, ectopic))
    again = Reference(BEATS, LEADS, 140)
    assert again.restore(reference.save())
    assert again.judged == "rare"


def test_where_the_model_does_not_know_better_the_most_frequent_beat_is_the_reference() -> None:
    for surprises in ({"normal": -1.5, "ectopic": -0.1}, {"normal": 0.2, "ectopic": 0.5}):
        reference, normal, ectopic = ectopic_patient(**surprises)
        assert np.median(distances(reference, ectopic)) < 0.5 < 1.5 < np.median(distances(reference, normal))
    assert reference.judged == "abnormal"
    assert not reference.is_more_abnormal(0.2)


def test_a_reference_that_is_abnormal_says_so_and_makes_no_normal_beat_unusual() -> None:
    reference, _, _ = ectopic_patient(normal=-1.0, ectopic=1.0, shown="V")
    assert reference.judged == "abnormal"
    surprises = (-1.0, 0.1, 0.9, math.nan)
    assert [reference.is_more_abnormal(each) for each in surprises] == [True, False, False, False]
    unknown, _, _ = ectopic_patient(normal=math.nan, ectopic=math.nan, shown="V")
    assert (unknown.judged, unknown.is_more_abnormal(-1.0)) == ("", False)


def two_shapes(settings: ReferenceSettings = BEATS) -> tuple[Reference, Floats, Floats]:
    """A reference that learned two shapes in its first minutes, and beats of each (beats, leads, samples)."""
    ecg = generate(300, seed=3, script=[Episode("pvc", 0, 300, share=0.3)])
    beats, symbols, _ = wide_beats(ecg)
    usual, other = (beats[np.array(symbols) == symbol] for symbol in "NV")
    reference = Reference(settings, LEADS, 140)
    for number in range(100):
        beat = other[number % len(other)] if number % 10 > 6 else usual[number]
        reference.add_beat(normalise_beats(beat[:, SHIFTS:-SHIFTS]), 1.0, 1.0, ventricular=0.1)
    reference.add_time(120)
    return reference, usual, other


def test_each_beat_is_compared_with_the_nearest_of_several_usual_ones() -> None:
    reference, usual, other = two_shapes()
    assert len(reference.usual) == 2
    fits = [
        fit_to_references(np.concatenate([n, o]), np.ones(4, np.bool_), [reference] * 2)
        for n, o in zip(usual[:30], other[:30], strict=False)
    ]
    assert {tuple(fit.nearest) for fit in fits} == {(0, 1)}
    assert np.median([fit.distances for fit in fits]) < 0.5
    again = Reference(BEATS, LEADS, 140)
    assert again.restore(reference.save())
    assert again.save() == reference.save()
    assert (distances(again, other) == distances(reference, other)).all()


def test_a_usual_shape_that_was_not_seen_for_hours_is_forgotten() -> None:
    reference, _, _ = two_shapes(ReferenceSettings(minutes=1, beats=10, stale_hours=2))
    first, second = reference.usual
    for usual, hours in ((first, 0), (second, 1), (second, 1.9)):
        reference.follow(usual, usual.shape, 1.0, time=3600 * hours)
    assert reference.usual == [first, second]
    reference.follow(second, second.shape, 1.0, time=3600 * 2.1)
    assert reference.usual == [second], "at least one remains"
    reference.follow(second, second.shape, 1.0, time=3600 * 20)
    assert reference.usual == [second]


def test_a_fourth_usual_shape_replaces_the_one_that_was_not_seen_for_longest() -> None:
    reference, beats, _ = two_shapes()
    first, second = reference.usual
    reference.follow(first, first.shape, 1.0, time=20.0)
    reference.follow(second, second.shape, 1.0, time=10.0)
    for changed, time, seen in (
        (-beats, 30.0, [20.0, 10.0, 30.0]),
        (beats[:, ::-1], 40.0, [20.0, 30.0, 40.0]),  # the leads in each other's place
    ):
        for beat in np.concatenate([changed] * 2)[:300]:  # one in four of 256 is enough
            reference.add_beat(normalise_beats(beat[:, SHIFTS:-SHIFTS]), 1.0, 1.0, ventricular=0.1, time=time)
        assert [each.seen for each in reference.usual] == seen


def test_what_is_saved_is_restored_and_saves_again_as_the_same() -> None:
    reference = learned(generate(60, seed=5))
    again = Reference(BEATS, LEADS, 140)
    assert again.restore(reference.save())
    assert again.learned_share == 1.0
    assert again.save() == reference.save()


def test_learning_goes_on_where_it_was_saved() -> None:
    beats, _, _ = wide_beats(generate(120, seed=5))
    shapes = normalise_beats(beats[:, :, SHIFTS:-SHIFTS])
    whole = Reference(BEATS, LEADS, 140)
    part = Reference(BEATS, LEADS, 140)
    for number, beat in enumerate(shapes):
        if number % 20 == 7:  # before and after half of the beats are dropped
            again = Reference(BEATS, LEADS, 140)
            assert again.restore(part.save())
            assert again.learned_share == part.learned_share
            part = again
        for each in (whole, part):
            each.add_beat(beat, 1.0, 1.0)
            each.add_time(0.1)
    for each in (whole, part):
        each.add_time(600)
    assert whole.shape is not None
    assert part.save() == whole.save()


def test_damaged_or_foreign_bytes_are_refused_and_change_nothing() -> None:
    good = learned(generate(60, seed=5)).save()
    reference = Reference(BEATS, LEADS, 140)
    shape, scale = np.zeros((2, 140), np.float32), np.ones(2, np.float32)
    nan, inf = np.float32(np.nan), np.float32(np.inf)
    bad = [b"", b"x", good[:-1], good[: len(good) // 2], good + b"x", b"\xff" * 8 + good[8:]]
    bad += [
        save({"shape": shape}),
        save({"shape": shape[:1], "scale": scale[:1]}),
        save({"shape": shape[:, :139].copy(), "scale": scale}),
        save({"shape": shape.astype(np.float64) + 1e300, "scale": scale}),
        save({"shape": shape + inf, "scale": scale}),
        save({"shape": shape + nan, "scale": scale}),
        save({"shape": shape + 1e30, "scale": scale}),
        save({"shape": shape, "scale": scale * nan}),
        save({"shape": shape, "scale": scale * inf}),
        save({"shape": shape, "scale": -scale}),
    ]
    progress = {
        "early": np.zeros((3, 2, 140), np.float16),
        "regular": np.ones(3, np.bool_),
        "surprise": np.zeros(3),
        "count": np.array([2, 1]),
        "seconds": np.array([5.0]),
    }
    assert Reference(BEATS, LEADS, 140).restore(save(progress))
    bad += [
        save({"early": progress["early"]}),
        save(progress | {"early": np.zeros((200, 2, 140), np.float16), "regular": np.ones(200, np.bool_)}),
        save(progress | {"early": progress["early"][:2].copy()}),
        save(progress | {"early": progress["early"].astype(np.float64)}),
        save(progress | {"early": progress["early"] + np.float16(np.inf)}),
        save(progress | {"regular": np.ones((3, 1), np.bool_)}),
        save(progress | {"surprise": np.zeros(2)}),
        save({"shape": shape, "scale": scale, "judged": np.zeros(2)}),
        save({"shape": shape, "scale": scale, "seen": np.zeros(2)}),
        save({"shape": shape, "scale": scale, "others": shape[None], "seen": np.zeros(2)}),
        save(progress | {"count": np.array([1, 2])}),
        save(progress | {"count": np.array([1])}),
        save(progress | {"seconds": np.array([nan])}),
    ]
    for data in bad:
        assert not reference.restore(data), data[:80]
        assert (reference.shape, reference.learned_share) == (None, 0.0)
    assert not Reference(BEATS, ("II",), 140).restore(good)
    assert reference.restore(good)
