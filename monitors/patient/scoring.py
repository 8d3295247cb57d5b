"""Scoring beats by the bundle: how badly an autoencoder of normal beats reconstructs them.

Judging beats: shape against the patient's reference, the autoencoder's surprise and rhythm, as one score.

The weights are round numbers that did well on the records of MIT-BIH's DS1 (`genray monitor evaluate`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genray.bundle import Bundle
from genray.ecg.beats import BeatSettings
from genray.errors import BundleMismatch
from monitors.patient.heart_rate import earliness

Floats = NDArray[np.float32]

_SOFT = 0.02  # errors much smaller than a reconstruction's are all alike: no logarithm of nearly nothing


@dataclass(frozen=True)
class Scores:
    """Attributes:
    surprise: (beats,) logarithm of the error over the bundle's threshold: 0 at the threshold.
    made: (beats, samples) the reconstructions, as the beats were given.
    """

    surprise: Floats
    made: Floats


class Scorer:
    """A bundle that knows normal beats.

    Args:
        bundle: of train-ecg.

    Raises:
        BundleMismatch: it is of something else, has no threshold, or does not say where the R peak is.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        takes = manifest.beats
        threshold, self.error = manifest.calibration.get("threshold"), manifest.calibration.get("error")
        if not isinstance(threshold, int | float) or not threshold > 0 or self.error not in ("mse", "mae"):
            raise BundleMismatch(
                "the bundle's calibration has no threshold of an error",
                where=str(bundle.path),
                hint="train it again with this genray",
            )
        self.threshold = float(threshold)
        try:
            self.beat: BeatSettings = takes.beat_settings
        except BundleMismatch as error:
            raise BundleMismatch(error.what, where=str(bundle.path), hint=error.hint) from None
        self.leads = frozenset(name.upper() for name in takes.leads)
        self._takes, self._network = takes, bundle.network

    def knows(self, lead: str) -> bool:
        """Whether it was trained on leads of this name; always, if it does not say on which."""
        return not self.leads or lead.upper() in self.leads

    def __call__(self, beats: NDArray[np.floating]) -> Scores:
        """The scores of beats (beats, samples) in mV; any number, also 0."""
        if not len(beats):
            return Scores(np.empty(0, np.float32), np.empty(beats.shape, np.float32))
        values = self._takes.normalise(beats)
        with torch.inference_mode():
            made = self._network(torch.from_numpy(values[:, None]))[:, 0].numpy()
        difference = made - values
        errors = (
            np.abs(difference).mean(axis=1) if self.error == "mae" else np.square(difference).mean(axis=1)
        )
        soft = _SOFT * self.threshold
        return Scores(np.log((errors + soft) / (self.threshold + soft)), made)


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
