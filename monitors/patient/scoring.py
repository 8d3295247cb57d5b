"""Scoring beats: how badly an autoencoder of normal beats reconstructs them (their surprise), how far their
shape is from the patient's reference, and how early they come, as one score.

The weights are round numbers that did well on the records of MIT-BIH's DS1 (`genray monitor evaluate`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genray.bundle import Bundle
from genray.ecg.beats import BeatPreprocessing, BeatSettings
from genray.errors import BundleMismatch
from monitors.patient.heart_rate import RelativeInterval, prematurity

Floats = NDArray[np.float32]

_SOFT = 0.02  # errors much smaller than a reconstruction's are all alike: no logarithm of nearly nothing
_LOWER, _HIGHEST = 0.7, 0.3  # a beat of another origin looks different in all leads, an artefact in one
_SURPRISE = 0.25
_EARLY = 5.0
_EARLY_ALONE = 4.0
_MARGIN = 0.35


@dataclass(frozen=True)
class Surprises:
    """How badly beats were reconstructed.

    Attributes:
        values: (beats,) logarithm of the error over the bundle's threshold: 0 at the threshold.
        reconstructions: (beats, samples), normalised as the network gives them.
    """

    values: Floats
    reconstructions: Floats


@dataclass(frozen=True)
class BeatModel:
    """An autoencoder that knows normal beats.

    Attributes:
        network: of the bundle.
        preprocessing: what it takes.
        beat: how beats are cut for it.
        leads: on which it was trained, in capitals; empty: it does not say on which.
        threshold: of the error, above which a beat is anomalous.
        absolute: whether the error is the mean of absolute, not of squared differences.
    """

    network: torch.nn.Module
    preprocessing: BeatPreprocessing
    beat: BeatSettings
    leads: frozenset[str]
    threshold: float
    absolute: bool

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> BeatModel:
        """The model of a bundle of train-ecg.

        Raises:
            BundleMismatch: it is of something else, has no threshold, or does not say where the R peak is.
        """
        preprocessing = bundle.manifest.beats
        calibration = bundle.manifest.calibration
        threshold, error = calibration.get("threshold"), calibration.get("error")
        if not isinstance(threshold, int | float) or not threshold > 0 or error not in ("mse", "mae"):
            raise BundleMismatch(
                "the bundle's calibration has no threshold of an error",
                where=str(bundle.path),
                hint="train it again with this genray",
            )
        try:
            beat = preprocessing.beat_settings
        except BundleMismatch as mismatch:
            raise BundleMismatch(mismatch.what, where=str(bundle.path), hint=mismatch.hint) from None
        leads = frozenset(name.upper() for name in preprocessing.leads)
        return cls(bundle.network, preprocessing, beat, leads, float(threshold), error == "mae")

    def knows(self, lead: str) -> bool:
        """Whether it was trained on leads of this name; always, if it does not say on which."""
        return not self.leads or lead.upper() in self.leads

    def surprises(self, beats: NDArray[np.floating]) -> Surprises:
        """How badly it reconstructs beats (beats, samples) in mV; any number, also 0."""
        if not len(beats):
            return Surprises(np.empty(0, np.float32), np.empty(beats.shape, np.float32))
        values = self.preprocessing.normalise(beats)
        with torch.inference_mode():
            reconstructions = self.network(torch.from_numpy(values[:, None]))[:, 0].numpy()
        difference = reconstructions - values
        size = np.abs(difference) if self.absolute else np.square(difference)
        errors = size.mean(axis=1)
        soft = _SOFT * self.threshold
        return Surprises(np.log((errors + soft) / (self.threshold + soft)), reconstructions)


def score_beat(distances: Floats, surprises: Floats, interval: RelativeInterval) -> float:
    """How unusual a beat is for this patient; above 1 it is anomalous.

    Args:
        distances: (leads,) from the reference, of leads that are good.
        surprises: (leads,) of the autoencoder, of good leads that it knows; may be empty.
        interval: before the beat.
    """
    total = combined_distance(distances) - _MARGIN
    if len(surprises):
        total += _SURPRISE * float(surprises.mean())
    if not math.isnan(interval.ratio):
        total += _EARLY * prematurity(interval.ratio, interval.irregularity)
    return _bounded_exp(total)


def score_new_patient(surprises: Floats, interval: RelativeInterval) -> float:
    """As `score_beat`, for a patient who is not known yet: by the autoencoder and the rhythm alone. Whole
    patients are unusual by it, so that nothing is to be alarmed."""
    total = float(surprises.mean()) if len(surprises) else 0.0
    if not math.isnan(interval.ratio):
        total += _EARLY_ALONE * prematurity(interval.ratio, 0.0)
    return _bounded_exp(total)


def combined_distance(distances: Floats) -> float:
    """One distance of those of the leads (leads,): mostly their lower median, some of the highest."""
    ordered = np.sort(distances)
    return float(_LOWER * ordered[(len(ordered) - 1) // 2] + _HIGHEST * ordered[-1])


def _bounded_exp(total: float) -> float:
    return math.exp(min(max(total, -10.0), 10.0))
