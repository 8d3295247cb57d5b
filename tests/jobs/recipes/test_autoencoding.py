import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.recipes.autoencoding import mean_image_errors, pca_errors


def images(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Images of two numbers each: a brightness and a ramp."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, 8)[None, :, None] * np.ones((6, 1, 1))
    return [
        np.clip(128 + 60 * a + 40 * b * ramp, 0, 255).round().astype(np.uint8)
        for a, b in rng.uniform(-1, 1, (count, 2))
    ]


def test_as_many_components_as_the_images_have_numbers_leave_only_rounding() -> None:
    errors = pca_errors(images(50), images(20, seed=1), components=2)
    assert errors.shape == (20,)
    assert errors.max() < (1 / 255) ** 2


def test_fewer_components_leave_more() -> None:
    one, two = (pca_errors(images(50), images(20, seed=1), k).mean() for k in (1, 2))
    assert one > 100 * two


def test_it_is_the_projection_on_the_eigenvectors_of_the_covariance() -> None:
    rng = np.random.default_rng(0)
    training, judged = (list(rng.integers(0, 256, (n, 4, 5, 1), np.uint8)) for n in (80, 9))
    flat, given = (np.stack([i.ravel() for i in part]) / 255.0 for part in (training, judged))
    mean = flat.mean(axis=0)
    kept = np.linalg.eigh(np.cov(flat.T))[1][:, -3:]
    rest = (given - mean) - (given - mean) @ kept @ kept.T
    # The components are found in float32; the third eigenvalue is a tenth larger than the fourth, so they are
    # right to a few 1e-5.
    assert pca_errors(training, judged, 3) == pytest.approx((rest**2).mean(axis=1), rel=1e-3)


def test_more_components_than_there_are_images_or_pixels_are_cut() -> None:
    assert pca_errors(images(3), images(2), 4000).shape == (2,)


def test_the_mean_images_error_is_the_variance() -> None:
    training = [np.full((4, 4, 1), v, np.uint8) for v in (0, 100)]
    assert mean_image_errors(training, training) == pytest.approx([(50 / 255) ** 2] * 2)
