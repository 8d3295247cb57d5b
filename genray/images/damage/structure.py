"""Measure of structure in what a denoiser took away: noise has no direction, cloth and grass do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIDE = 32  # pixels of a side of the blocks
_MOST_BLOCKS = 1024  # that are measured
_FEWEST_BLOCKS = 36  # with fewer, chance alone looks like structure
_FAINT = 0.5  # change of the brightness below which there is nothing to judge, in levels of 255
_SMOOTHEST = 3  # cycles of a block; details of lower frequency are too few to compare


def structure(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Return how far the power of a change depends on its direction, 0 for noise.

    The spectrum of noise may have any shape along the frequency, as blurred and fine noise have, but is
    alike in all directions. Of the image, stripes and weaves have few frequencies, and grass, hair and
    wood one direction. In each ring of frequencies the spectral flatness (Gray and Markel 1974) is
    measured: the logarithm of the arithmetic mean of the power over its geometric mean. The mean over
    the rings is returned, weighted by their power. Noise of cameras, film and photons has up to 0.1,
    drawn grass 0.2, a weave 5.

    Args:
        before: (H, W, C) uint8 or uint16.
        after: another of the same shape and type.

    Returns:
        0 or more; 0 for a faint change and for an image too small to measure.
    """
    to_levels = np.float32(255 / np.iinfo(before.dtype).max)
    blocks = _blocks(before.mean(axis=2, dtype=np.float32) - after.mean(axis=2, dtype=np.float32)) * to_levels
    energies = np.square(blocks).mean(axis=(1, 2)) if len(blocks) else np.zeros(0)
    if len(blocks) < _FEWEST_BLOCKS or energies.mean() < _FAINT**2:
        return 0.0
    # Noise is not as strong everywhere; each block counts alike, but those without a change.
    scaled = blocks / np.sqrt(energies + _FAINT**2)[:, None, None]
    # The median: an edge here and there is no structure.
    power = np.median(np.square(np.abs(np.fft.rfft2(scaled * _WINDOW))), axis=0)
    power += np.float32(1e-6) * power.mean()  # stripes alone have no power elsewhere
    shares = [power[ring == _RINGS] for ring in range(_SMOOTHEST, _SIDE // 2 + 1)]
    unevenness = [np.log(ring.mean()) - np.log(ring).mean() for ring in shares]
    return float(np.average(unevenness, weights=[ring.sum() for ring in shares]))


def _window() -> NDArray[np.float32]:
    row = np.hanning(_SIDE + 2)[1:-1].astype(np.float32)
    return np.outer(row, row)


def _rings() -> NDArray[np.intp]:
    rows, columns = np.fft.fftfreq(_SIDE), np.fft.rfftfreq(_SIDE)
    rings: NDArray[np.intp] = np.rint(np.hypot(rows[:, None], columns) * _SIDE).astype(np.intp)
    return rings


_WINDOW = _window()
_RINGS = _rings()


def _blocks(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return blocks that overlap by half, or evenly spaced ones of a large plane, (N, side, side); without
    their means."""
    if min(plane.shape) < _SIDE:
        return np.zeros((0, _SIDE, _SIDE), np.float32)
    views = np.lib.stride_tricks.sliding_window_view(plane, (_SIDE, _SIDE))[:: _SIDE // 2, :: _SIDE // 2]
    places = np.linspace(0, views.shape[0] * views.shape[1] - 1, _MOST_BLOCKS).astype(np.intp)
    if len(places) >= views.shape[0] * views.shape[1]:
        blocks = views.reshape(-1, _SIDE, _SIDE)
    else:
        blocks = views[places // views.shape[1], places % views.shape[1]]
    centred: NDArray[np.float32] = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    return centred
