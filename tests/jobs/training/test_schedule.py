import pytest

from jobs.training.settings import LoopSettings
from jobs.training.update import rate_factor


def factor(done: float, **more: object) -> float:
    return rate_factor(done, LoopSettings.model_validate(more))


def test_pix2pix_keeps_its_rate_for_one_half_and_falls_to_zero_in_the_other() -> None:
    assert [factor(d) for d in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1, 1, 1, 0.5, 0]


def test_warmup_rises_from_zero() -> None:
    assert [factor(d, warmup=0.2) for d in (0.0, 0.1, 0.2)] == [0, 0.5, 1]


def test_cosine_falls_slowly_first() -> None:
    assert factor(0.75, decay="cosine") == pytest.approx(0.5)
    assert factor(0.6, decay="cosine") > factor(0.6)


def test_constant_stays() -> None:
    assert factor(0.99, decay="constant") == 1
