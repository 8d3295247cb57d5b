"""Beats: the stretch of a lead around each R peak, resampled to one length and normalised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genray.settings.base import Settings

Array = NDArray[np.float32]
Indices = NDArray[np.intp]


class BeatSettings(Settings):
    """Settings of what a beat is."""

    before: float = Field(0.25, gt=0, le=1, description="seconds of a beat before its R peak")
    after: float = Field(0.45, gt=0, le=2, description="seconds of a beat after its R peak")
    samples: int = Field(140, ge=16, le=1024, description="that a beat is resampled to")


def cut_beats(
    signal: NDArray[np.floating], peaks: NDArray[np.integer], rate: float, settings: BeatSettings
) -> tuple[Array, NDArray[np.bool_]]:
    """The beats around `peaks`, resampled by linear interpolation; not normalised.

    Args:
        signal: (samples, leads), of one unit.
        peaks: indices of R peaks in it.
        rate: samples a second.

    Returns:
        Beats (beats, leads, `settings.samples`) of the peaks whose window lies within the signal and has
        finite samples in every lead; and which of `peaks` these are, (peaks,).
    """
    peaks = np.asarray(peaks, np.int64)
    whole, share = _steps(rate, settings)
    inside = (peaks + whole[0] >= 0) & (peaks + whole[-1] + 1 < len(signal))
    at = peaks[inside, None] + whole
    beats = signal[at] * (1 - share[:, None]) + signal[at + 1] * share[:, None]  # (beats, samples, leads)
    finite = np.isfinite(beats).all(axis=(1, 2))
    inside[inside] = finite
    return np.ascontiguousarray(beats[finite].transpose(0, 2, 1), np.float32), inside


def cut_at(
    signal: NDArray[np.floating], rows: Indices, columns: Indices, rate: float, settings: BeatSettings
) -> Array:
    """Beats (beats, `settings.samples`) from rows of (rows, samples) around the given columns, which must be
    far enough from both ends; otherwise as `cut_beats`."""
    whole, share = _steps(rate, settings)
    at, lead = columns[:, None] + whole, rows[:, None]
    return np.asarray(signal[lead, at] * (1 - share) + signal[lead, at + 1] * share, np.float32)


def _steps(rate: float, settings: BeatSettings) -> tuple[NDArray[np.int64], Array]:
    """The samples before those of a beat, counted from its R peak; how far each lies beyond."""
    steps = np.linspace(-settings.before, settings.after, settings.samples) * rate
    whole = np.floor(steps).astype(np.int64)
    return whole, (steps - whole).astype(np.float32)


def normalised(beats: NDArray[np.floating]) -> Array:
    """Beats (..., samples) with mean 0 and standard deviation 1, as those of ECG5000 are; a flat one is 0."""
    centred = beats - beats.mean(axis=-1, keepdims=True)
    spread = centred.std(axis=-1, keepdims=True)
    flat = spread < 1e-6
    return np.where(flat, 0, centred / np.where(flat, 1, spread)).astype(np.float32)
