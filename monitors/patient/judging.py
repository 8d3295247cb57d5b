"""Judging beats: shape against the patient's reference, the autoencoder's surprise and rhythm, as one score.

The weights are round numbers that did well on the records of MIT-BIH's DS1 (`genray monitor evaluate`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from monitors.patient.heart_rate import earliness

Floats = NDArray[np.float32]

_LOWER, _HIGHEST = 0.7, 0.3  # a beat of another origin looks different in all leads, an artefact in one
_SURPRISE = 0.25
_EARLY = 5.0
_EARLY_ALONE = 4.0
_MARGIN = 0.35


def combined(distances: Floats) -> float:
    """One distance of those of the leads (leads,): mostly their lower median, some of the highest."""
    ordered = np.sort(distances)
    return float(_LOWER * ordered[(len(ordered) - 1) // 2] + _HIGHEST * ordered[-1])


def score(distances: Floats, surprises: Floats, share: float, spread: float) -> float:
    """How unusual a beat is for this patient; above 1 it is anomalous.

    Args:
        distances: (leads,) from the reference, of leads that are good.
        surprises: (leads,) of the autoencoder, of good leads that it knows; may be empty.
        share: its interval as a share of the usual one, NaN if not known.
        spread: irregularity of the rhythm.
    """
    total = combined(distances) - _MARGIN
    if len(surprises):
        total += _SURPRISE * float(surprises.mean())
    if not math.isnan(share):
        total += _EARLY * earliness(share, spread)
    return _score(total)


def score_alone(surprises: Floats, share: float) -> float:
    """As `score`, for a patient who is not known yet: by the autoencoder and the rhythm alone. Whole patients
    are unusual by it, so that nothing is to be alarmed."""
    total = float(surprises.mean()) if len(surprises) else 0.0
    if not math.isnan(share):
        total += _EARLY_ALONE * earliness(share, 0.0)
    return _score(total)


def _score(total: float) -> float:
    return math.exp(min(max(total, -10.0), 10.0))
