"""Codes of images, and the way between them."""

import numpy as np
import pytest

from genray.models.generator import between, code_of


def test_truncated_codes_have_no_large_numbers_and_are_the_same_again() -> None:
    codes = np.stack([code_of(50, 0, index, truncation=0.7) for index in range(200)])
    assert np.abs(codes).max() <= 0.7
    assert codes.std() == pytest.approx(0.39, abs=0.02)
    assert np.array_equal(codes[7], code_of(50, 0, 7, truncation=0.7))
    assert np.stack([code_of(50, 0, index) for index in range(200)]).std() == pytest.approx(1, abs=0.03)


def test_the_way_between_two_codes_keeps_their_length() -> None:
    first, second = code_of(400, 0, 0), code_of(400, 0, 1)
    halfway = between(first, second, 0.5)
    assert np.linalg.norm(halfway) == pytest.approx(20, rel=0.1)
    assert np.allclose(between(first, second, 0), first, atol=1e-5)
    assert np.allclose(between(first, second, 1), second, atol=1e-5)
    assert np.allclose(between(first, first, 0.5), first, atol=1e-3)
