"""Signal quality of a lead: good, poor (too noisy) or off (no electrode).

The measures are those of the literature (Clifford et al. 2012, "Signal quality indices"; Li, Mark & Clifford
2008): missing samples, flat lines, saturation, baseline shift and power above the frequencies of QRS
complexes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genray.settings.base import Settings

Floats = NDArray[np.floating]


class SignalQuality(IntEnum):
    """Signal quality of a lead; a higher number is worse."""

    GOOD = 0
    POOR = 1
    OFF = 2

    @property
    def word(self) -> str:
        """Name for labels and the page."""
        return self.name.lower()


class QualitySettings(Settings):
    """Settings of signal quality: when a lead is poor (too noisy) or off (no electrode)."""

    seconds: float = Field(2.0, ge=0.5, le=10, description="seconds of the last samples that are assessed")
    flat: float = Field(
        0.004,
        ge=0,
        le=1,
        description="range in mV (highest minus lowest) below which a lead is off; in asystole with the "
        "electrodes on it is larger",
    )
    missing: float = Field(
        0.5, gt=0, le=1, description="share of missing samples (0 to 1) from which a lead is off"
    )
    rail: float = Field(
        0.25,
        gt=0,
        le=1,
        description="share of samples at one extreme value (0 to 1) from which a lead is off (saturated)",
    )
    offset: float = Field(
        10.0, gt=0, description="offset in mV from zero beyond which a lead is off (converter at its rail)"
    )
    gaps: float = Field(
        0.1, gt=0, le=1, description="share of missing samples (0 to 1) from which a lead is poor"
    )
    baseline: float = Field(
        1.5,
        gt=0,
        description="baseline shift in mV, from the first half to the second, beyond which a lead is poor",
    )
    noise: float = Field(
        0.5,
        gt=0,
        description="mean amplitude in mV above 40 Hz beyond which a lead is poor, if it is also more than a "
        "quarter of that of the whole signal",
    )


class QualityAssessment(NamedTuple):
    """Signal quality of leads.

    Attributes:
        quality: (leads,) values of `SignalQuality`: whether the shapes of beats can be judged.
        rhythm: (leads,) whether QRS complexes can be detected: the electrode is on, and noise is no obstacle.
            A wandering baseline is none, as the frequency band of the detection begins far above it.
    """

    quality: NDArray[np.int8]
    rhythm: NDArray[np.bool_]


def assess_quality(samples: Floats, rate: float, settings: QualitySettings) -> QualityAssessment:
    """Assess the signal quality of leads by their last seconds.

    Args:
        samples: (leads, samples) in mV, NaN where a sample is missing.
        rate: sampling rate, Hz.
    """
    leads, count = samples.shape
    middle = samples.sum(axis=1) / count
    missing = np.zeros(leads)
    whole = samples
    gaps = np.flatnonzero(np.isnan(middle))
    if len(gaps):
        # Missing samples are replaced by the mean, which changes minimum, maximum and mean little.
        absent = np.isnan(samples[gaps])
        missing[gaps] = absent.mean(axis=1)
        sums = np.where(absent, 0.0, samples[gaps]).sum(axis=1)
        middle[gaps] = sums / np.maximum(count - absent.sum(axis=1), 1)
        whole = samples.copy()
        whole[gaps] = np.where(absent, middle[gaps, None], samples[gaps])
    low = whole.min(axis=1)
    high = whole.max(axis=1)
    span = high - low
    # What follows takes time, and is measured only where the range of a lead allows it to matter.
    off = (missing >= settings.missing) | (span < settings.flat)
    wide = np.flatnonzero((span > 1.0) & (np.abs(middle) > 0.2 * span))
    # A lead at one value for long is saturated only if that value is the extreme of a wide range.
    off[wide] |= _share_at_rail(whole[wide], low[wide], high[wide]) >= settings.rail
    # 100 values per second give the same median as all, in a quarter of the time.
    thin = whole[:, :: max(1, round(rate / 100))]
    far = np.flatnonzero((high > settings.offset) | (low < -settings.offset))
    off[far] |= np.abs(np.median(thin[far], axis=1)) > settings.offset
    # The median of half the window is hardly affected by complexes, not even by broad, tall ventricular ones.
    moving = np.flatnonzero(span > settings.baseline)
    half = thin.shape[1] // 2
    moved = np.zeros(leads)
    moved[moving] = np.abs(np.median(thin[moving, :half], axis=1) - np.median(thin[moving, half:], axis=1))
    noisy = np.zeros(leads, np.bool_)
    noisy[span > 2 * settings.noise] = _is_noisy(whole[span > 2 * settings.noise], rate, settings.noise)
    rhythm = ~(off | noisy | (missing >= settings.gaps))
    quality = np.where(rhythm & (moved <= settings.baseline), SignalQuality.GOOD, SignalQuality.POOR)
    return QualityAssessment(np.where(off, SignalQuality.OFF, quality).astype(np.int8), rhythm)


def _share_at_rail(samples: Floats, low: Floats, high: Floats) -> NDArray[np.float64]:
    """Return the share of the samples of leads at their lowest or highest value, whichever is larger."""
    edge = 1e-3 * (high - low)
    at_low = np.count_nonzero(samples <= (low + edge)[:, None], axis=1)
    at_high = np.count_nonzero(samples >= (high - edge)[:, None], axis=1)
    return np.asarray(np.maximum(at_low, at_high) / samples.shape[1], np.float64)


def _is_noisy(samples: Floats, rate: float, limit: float) -> NDArray[np.bool_]:
    """Return whether the mean amplitude of leads above 40 Hz is beyond `limit` (mV), and more than a quarter
    of that of the whole signal."""
    step = max(1, round(rate / 80))  # the difference of samples half a period of 40 Hz apart
    fast = np.abs(samples[:, step:] - samples[:, :-step]).mean(axis=1) / 2
    noisy: NDArray[np.bool_] = fast > limit
    loud = samples[noisy]
    rest = np.abs(loud - loud.mean(axis=1, keepdims=True)).mean(axis=1)
    noisy[noisy] = fast[noisy] > rest / 4
    return noisy
