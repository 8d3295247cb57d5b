import pytest

from genray.settings.load import load
from genray.targets import find_target
from jobs.training.schedule import Schedule, learning_rate_factor
from jobs.training.settings import LoopSettings


def loop(**more: object) -> LoopSettings:
    return LoopSettings.model_validate(more)


def factor(progress: float, **more: object) -> float:
    return learning_rate_factor(progress, loop(**more))


def test_pix2pix_keeps_its_rate_for_one_half_and_falls_to_zero_in_the_other() -> None:
    assert [factor(d) for d in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1, 1, 1, 0.5, 0]


def test_warmup_rises_from_zero() -> None:
    assert [factor(d, warmup=0.2) for d in (0.0, 0.1, 0.2)] == [0, 0.5, 1]


def test_a_decay_that_would_begin_in_the_warmup_begins_after_it() -> None:
    rates = [factor(d, warmup=0.2, decay_start=0) for d in (0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.5, 1, 0.5, 0])


def test_what_advice_says_can_be_set() -> None:
    for target in ("train-autoencoder", "train-anomaly", "train-denoiser", "train-ecg", "train-pix2pix"):
        chosen = load(find_target(target).load().settings_class, target=target, sets=["loop.warmup=0.05"])
        assert chosen.loop.warmup == 0.05


def test_cosine_falls_slowly_first() -> None:
    assert factor(0.75, decay="cosine") == pytest.approx(0.5)
    assert factor(0.6, decay="cosine") > factor(0.6)


def test_constant_stays() -> None:
    assert factor(0.99, decay="constant") == 1


def test_an_unfinished_training_is_stretched_to_its_new_length() -> None:
    assert Schedule(0, 10).until(40, 5, loop()) == Schedule(0, 40)
    assert Schedule(10, 20, 0.1).until(40, 15, loop()) == Schedule(10, 40, 0.1)


def test_added_epochs_keep_the_order_of_the_last_rate() -> None:
    longer = Schedule(0, 10).until(30, 10, loop())
    assert longer == Schedule(10, 30, pytest.approx(0.1))
    assert longer.factor(10, loop()) == longer.factor(29.9, loop())
    assert Schedule(0, 10).until(30, 10, loop(decay="constant")).factor(20, loop()) == 1
    again = longer.until(50, 30, loop())
    assert again == Schedule(30, 50, pytest.approx(0.1)), "a second extension does not decay further"


def test_added_epochs_can_begin_the_schedule_again_or_stretch_it() -> None:
    restart, stretch = loop(extend="restart"), loop(extend="stretch")
    assert Schedule(0, 10).until(30, 10, restart) == Schedule(10, 30)
    assert Schedule(10, 30).factor(25, restart) == pytest.approx(0.5)
    assert Schedule(0, 10).until(30, 10, stretch) == Schedule(0, 30)


def test_nothing_changes_without_added_epochs() -> None:
    assert Schedule(0, 10).until(10, 10, loop()) == Schedule(0, 10)
    assert Schedule(0, 10).until(5, 10, loop()) == Schedule(0, 10)


def test_the_progress_of_the_training_ends_at_one() -> None:
    assert Schedule(0, 10).progress(2.5) == 0.25
    assert Schedule(10, 30).progress(11) == 1
    assert Schedule(10, 30, 0.1).progress(11) == 1
