from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from genray.images.damage.structure import structure

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Floats]


def white(rng: np.random.Generator, height: int, width: int) -> Floats:
    return rng.normal(size=(height, width))


def grain(rng: np.random.Generator, height: int, width: int) -> Floats:
    return gaussian_filter(white(rng, height, width), rng.uniform(0.5, 1.5))


def in_bright_places(rng: np.random.Generator, height: int, width: int) -> Floats:
    return white(rng, height, width) * np.linspace(0.2, 2, width)


def weave(rng: np.random.Generator, height: int, width: int) -> Floats:
    rows, columns = np.mgrid[:height, :width]
    return np.sin(2 * np.pi * columns / rng.uniform(3, 9)) * np.sin(2 * np.pi * rows / rng.uniform(3, 9))


def hair(rng: np.random.Generator, height: int, width: int) -> Floats:
    return gaussian_filter(white(rng, height, width), (4, 0.7))


def grass(rng: np.random.Generator, height: int, width: int) -> Floats:
    field = np.zeros((height, width))
    for _ in range(height * width // 16):
        along = np.arange(-rng.uniform(3, 12), rng.uniform(3, 12))
        lean = rng.normal(0, 0.4)
        rows = (rng.uniform(0, height) + along * np.cos(lean)).astype(int) % height
        columns = (rng.uniform(0, width) + along * np.sin(lean)).astype(int) % width
        field[rows, columns] = rng.uniform(60, 200)
    return gaussian_filter(field, 0.6)


def change(draw: Draw, key: int, shape: tuple[int, int] = (192, 256), rms: float = 10) -> float:
    """Structure of what is taken away when a drawn field is."""
    field = draw(np.random.default_rng(key), *shape)
    before = np.clip(np.rint(120 + rms * (field - field.mean()) / field.std()), 0, 255).astype(np.uint8)
    before = np.repeat(before[..., None], 3, axis=2)
    return structure(before, np.full_like(before, 120))


@pytest.mark.parametrize("draw", [white, grain, in_bright_places])
@pytest.mark.parametrize("shape", [(128, 128), (192, 256), (1100, 1300)])
def test_noise_has_none(draw: Draw, shape: tuple[int, int]) -> None:
    assert change(draw, 1, shape) < 0.1


@pytest.mark.parametrize("draw", [weave, hair, grass])
@pytest.mark.parametrize("key", range(3))
def test_cloth_hair_and_grass_have_some(draw: Draw, key: int) -> None:
    assert change(draw, key) > 0.16


def test_sixteen_bits_are_judged_as_eight() -> None:
    before = np.repeat(
        np.uint8(np.clip(120 + 10 * weave(np.random.default_rng(0), 160, 160), 0, 255))[..., None], 3, 2
    )
    after = np.full_like(before, 120)
    assert structure(before * np.uint16(257), after * np.uint16(257)) == pytest.approx(
        structure(before, after), rel=1e-3
    )


@pytest.mark.parametrize("shape", [(16, 400), (64, 64)])
def test_too_few_pixels_are_not_judged(shape: tuple[int, int]) -> None:
    assert change(weave, 0, shape) == 0


def test_a_faint_change_is_not_judged() -> None:
    assert change(hair, 0, rms=0.4) == 0
