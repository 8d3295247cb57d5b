import numpy as np
import pytest

from genray.images.damage.halving import halve, with_change_at_half


@pytest.mark.parametrize("shape", [(8, 10, 3), (7, 9, 1)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_halves_are_means_and_a_change_of_them_leaves_details(
    shape: tuple[int, int, int], kind: type
) -> None:
    pixels: np.ndarray = np.random.default_rng(0).integers(60, 160, shape).astype(kind)
    half = halve(pixels)
    assert half.dtype == kind
    assert half.shape == ((shape[0] + 1) // 2, (shape[1] + 1) // 2, shape[2])
    assert half[0, 0, 0] == round(float(pixels[:2, :2, 0].mean()))
    assert (with_change_at_half(pixels, half, half) == pixels).all()
    assert (with_change_at_half(pixels, half, half + kind(20)) == pixels + 20).all()


def test_a_change_at_half_has_no_steps_and_stays_within_the_levels() -> None:
    black = np.zeros((16, 64, 1), np.uint8)
    half = halve(black)
    rising = half + np.arange(0, 128, 4, dtype=np.uint8)[None, :, None]
    assert np.diff(with_change_at_half(black, half, rising)[0, 1:-1, 0].astype(int)).tolist() == [2] * 61
    assert (with_change_at_half(black, half + np.uint8(9), half) == 0).all()
