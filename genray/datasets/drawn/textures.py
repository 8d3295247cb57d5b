"""Textures that drawn images take their surfaces from, tileable, of the spectrum of natural images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SIDE = 256
"""Height and width of a texture in pixels, a power of 2."""
COUNT = 48
"""Number of textures."""


@lru_cache(maxsize=1)
def textures() -> NDArray[np.float32]:
    """Return the textures, (COUNT, SIDE, SIDE), each of mean 0 and standard deviation 1; the same always.

    They are Gaussian fields whose amplitude falls with the frequency f as 1/f**a, as that of natural images
    does with a near 1 (Field 1987, "Relations between the statistics of natural images and the response
    properties of cortical cells"). Half are stretched along one direction, like hair, wood and grass; two in
    three are bent by a curve, which gives the phases of real surfaces: cells, ridges, grains, weaves.
    """
    rng = np.random.default_rng(0x7E47)
    fields = np.stack([_field(rng, kind) for kind in range(COUNT)])
    fields -= fields.mean(axis=(1, 2), keepdims=True)
    fields /= fields.std(axis=(1, 2), keepdims=True)
    return np.clip(fields, -4.0, 4.0).astype(np.float32)


def _field(rng: np.random.Generator, kind: int) -> NDArray[np.float64]:
    down = np.fft.fftfreq(SIDE)[:, None]
    along = np.fft.rfftfreq(SIDE)[None, :]
    stretch = rng.uniform(2, 8) if kind % 2 else 1.0
    frequency = np.hypot(down, along * stretch) + 0.5 / SIDE
    amplitude = frequency ** -rng.uniform(0.6, 1.6)
    field = _filtered(rng, amplitude)
    match kind % 6:
        case 0 | 3:
            return field
        case 1:
            return np.abs(field)  # ridges
        case 2:
            return np.tanh(rng.uniform(2, 6) * field)  # patches with edges
        case 4:
            return np.sin(rng.uniform(4, 16) * field)  # growth rings
        case _:
            rows, columns = np.mgrid[:SIDE, :SIDE] * (2 * np.pi / SIDE)
            waves = rng.integers(8, 40, 2)
            bend = rng.uniform(0, 2)
            return np.sin(waves[0] * rows + bend * field) * np.sin(waves[1] * columns + bend * field)


def _filtered(rng: np.random.Generator, amplitude: NDArray[np.float64]) -> NDArray[np.float64]:
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * amplitude
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (SIDE, SIDE))
    result: NDArray[np.float64] = field / field.std()
    return result
