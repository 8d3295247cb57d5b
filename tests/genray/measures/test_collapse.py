"""Signs of mode collapse, in words."""

from dataclasses import replace

import pytest

from genray.measures.collapse import CollapseLimits, signs
from genray.measures.quality import SampleQuality

GOOD = SampleQuality(
    modes=10,
    modes_total=10,
    shares=(0.1,) * 10,
    kl=0.01,
    density=1.0,
    coverage=0.8,
    duplicates=0.01,
    frechet=2.0,
    frechet_floor=1.0,
    broken=0.0,
    samples=4000,
)
NOISE = replace(GOOD, modes=1, coverage=0.0, density=0.0)


def test_a_training_that_goes_well_has_no_signs() -> None:
    history = [NOISE, NOISE, *(replace(GOOD, coverage=0.1 * i) for i in range(1, 10))]
    assert all(signs(history[:end]) is None for end in range(len(history) + 1))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"coverage": 0.3}, "coverage fell to 0.30 from 0.80"),
        ({"modes": 3}, "samples of 3 of 10 classes only"),
        ({"duplicates": 0.6}, "60% of the samples have a near-identical other one"),
        ({"broken": 0.5}, "50% of the samples have NaN or infinite values"),
    ],
)
def test_each_sign_is_named_once_it_lasts(bad: dict[str, float], words: str) -> None:
    history = [GOOD] * 5
    collapsed = replace(GOOD, **bad)  # type: ignore[arg-type]
    assert signs([*history, collapsed]) is None
    assert signs([*history, collapsed, GOOD, collapsed]) is None
    assert signs([*history, collapsed, collapsed]) == words


def test_duplicates_that_become_fewer_after_a_slow_start_are_no_sign() -> None:
    history = [replace(GOOD, duplicates=0.75**i) for i in range(8)]
    assert all(signs(history[:end]) is None for end in range(len(history) + 1))
    assert signs([*history, *(replace(GOOD, duplicates=0.3) for _ in range(2))]) is not None


def test_all_signs_are_named() -> None:
    bad = replace(GOOD, modes=1, coverage=0.01, duplicates=1.0)
    found = signs([GOOD] * 4 + [bad] * 2)
    assert found is not None
    assert [part.split()[0] for part in found.split("; ")] == ["coverage", "samples", "100%"]


def test_a_training_that_never_gets_off_the_noise_is_found_after_the_warmup() -> None:
    limits = CollapseLimits(warmup=3, patience=2)
    assert signs([NOISE] * 4, limits) is None
    assert signs([NOISE] * 5, limits) == "samples of 1 of 10 classes only"
