"""Scores of beats: one number from the reconstruction error of an autoencoder of normal beats (the surprise),
the distance of the shape from the patient's reference, and the prematurity of the beat.

The weights are settings; `genray monitor evaluate --nested` chooses them, and measures the choice on records
that it was not made on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from genray.bundle import Bundle
from genray.ecg.beats import BeatPreprocessing, BeatSettings
from genray.errors import BundleMismatch
from genray.settings.base import Settings
from monitors.patient.reference import NOISE_VARIATION
from monitors.patient.rhythm.heart_rate import RelativeInterval, prematurity

Floats = NDArray[np.float32]

_SOFT = 0.02  # share of the threshold added to errors, so that tiny errors count as equal


class ScoreSettings(Settings):
    """Weights of what the score of a beat is made of."""

    lower: float = Field(
        0.7,
        ge=0,
        le=1,
        description="weight of the leads' lower median distance from the reference, against the highest (an "
        "ectopic beat differs in all leads, an artefact in one)",
    )
    surprise: float = Field(
        0.25, ge=0, le=10, description="weight of the surprise of the model, beside the distance"
    )
    early: float = Field(5.0, ge=0, le=100, description="weight of the prematurity, beside the distance")
    early_alone: float = Field(
        4.0, ge=0, le=100, description="weight of the prematurity without a reference, beside the surprise"
    )
    margin: float = Field(
        0.35,
        ge=-10,
        le=10,
        description="sum of the weighted parts from which a beat is anomalous (higher: fewer alarms)",
    )


class ScoreInputs(NamedTuple):
    """What the score of a beat is computed from.

    Attributes:
        distances: (leads,) logarithmic distance from the reference, of the good leads; empty: no reference.
        surprises: (leads,) surprise of the good leads that the model knows; may be empty.
        interval: RR interval before the beat.
    """

    distances: Floats
    surprises: Floats
    interval: RelativeInterval

    @property
    def surprise(self) -> float:
        """Mean of the surprises; NaN: there is none."""
        count = len(self.surprises)
        return float(np.add.reduce(self.surprises)) / count if count else math.nan


@dataclass(frozen=True)
class Surprises:
    """Reconstruction errors of beats.

    Attributes:
        values: (beats,) logarithm of the ratio of the error to the bundle's threshold: 0 at the threshold.
        reconstructions: (beats, samples), normalised like the output of the network.
    """

    values: Floats
    reconstructions: Floats


@dataclass(frozen=True)
class BeatModel:
    """Autoencoder of normal beats, from a bundle of train-ecg.

    Attributes:
        network: network of the bundle.
        preprocessing: normalisation of its input.
        beat: window and samples of a beat.
        leads: leads on which it was trained, in capitals; empty: unknown.
        threshold: reconstruction error above which a beat is anomalous.
        absolute: whether the error is the mean absolute difference, not the mean squared one.
    """

    network: torch.nn.Module
    preprocessing: BeatPreprocessing
    beat: BeatSettings
    leads: frozenset[str]
    threshold: float
    absolute: bool

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> BeatModel:
        """Return the model of a bundle of train-ecg.

        Raises:
            BundleMismatch: the bundle has another kind, no threshold, or no position of the R peak.
        """
        preprocessing = bundle.manifest.beats
        calibration = bundle.manifest.calibration
        threshold, error = calibration.get("threshold"), calibration.get("error")
        if not isinstance(threshold, int | float) or not threshold > 0 or error not in ("mse", "mae"):
            raise BundleMismatch(
                "the calibration of the bundle contains no error threshold",
                where=str(bundle.path),
                hint="train the bundle again with this version of genray",
            )
        try:
            beat = preprocessing.beat_settings
        except BundleMismatch as mismatch:
            raise BundleMismatch(mismatch.what, where=str(bundle.path), hint=mismatch.hint) from None
        leads = frozenset(name.upper() for name in preprocessing.leads)
        return cls(bundle.network, preprocessing, beat, leads, float(threshold), error == "mae")

    def knows(self, lead: str) -> bool:
        """Whether it was trained on leads of this name; always true if its leads are unknown."""
        return not self.leads or lead.upper() in self.leads

    def surprises(self, beats: NDArray[np.floating], noise: Floats | None = None) -> Surprises:
        """Return the reconstruction errors of beats (beats, samples) in mV; any number of beats, also 0.

        `noise` (beats,) is the power of the noise in them, mV² (None: there is none), which no network
        reconstructs: it is taken off the error, and where it varies by more than the threshold, that counts.
        """
        if not len(beats):
            return Surprises(np.empty(0, np.float32), np.empty(beats.shape, np.float32))
        values = self.preprocessing.normalise(beats)
        with torch.inference_mode():
            reconstructions = self.network(torch.from_numpy(values[:, None]))[:, 0].numpy()
        difference = reconstructions - values
        squares = np.square(difference).mean(axis=1)
        errors = np.abs(difference).mean(axis=1) if self.absolute else squares
        soft = _SOFT * self.threshold
        limits = np.full(len(beats), self.threshold)
        if noise is not None:
            expected = noise / np.square(self._unit(beats))
            left = np.maximum(1.0 - expected / np.maximum(squares, 1e-12), 0.0)
            varying = NOISE_VARIATION * expected
            errors = errors * (np.sqrt(left) if self.absolute else left)
            limits = np.maximum(limits, np.sqrt(varying) if self.absolute else varying)
        values = np.log((errors + soft) / (limits + soft))
        return Surprises(values.astype(np.float32), reconstructions)

    def _unit(self, beats: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the mV that the normalisation makes one, of each beat (beats,)."""
        if self.preprocessing.span is None:
            unit: NDArray[np.floating] = np.maximum(beats.std(axis=1), 1e-6)
            return unit
        low, high = self.preprocessing.span
        return np.full(len(beats), high - low)


def score_beat(inputs: ScoreInputs, weights: ScoreSettings) -> float:
    """Return the score of a beat for this patient; above 1 it is anomalous."""
    total = combined_distance(inputs.distances, weights.lower) - weights.margin
    if len(inputs.surprises):
        total += weights.surprise * inputs.surprise
    ratio, irregularity = inputs.interval.ratio, inputs.interval.irregularity
    if not math.isnan(ratio):
        total += weights.early * prematurity(ratio, irregularity)
    return _bounded_exp(total)


def score_new_patient(inputs: ScoreInputs, weights: ScoreSettings) -> float:
    """Return the score of a beat without a reference, from the model and the rhythm only. All beats of some
    patients score high by it, so it must raise no alarm."""
    total = inputs.surprise if len(inputs.surprises) else 0.0
    if not math.isnan(inputs.interval.ratio):
        total += weights.early_alone * prematurity(inputs.interval.ratio, 0.0)
    return _bounded_exp(total)


def combined_distance(distances: Floats, lower: float) -> float:
    """Return one distance from those of the leads (leads,): `lower` times the lower median plus the rest
    times the highest."""
    ordered: list[float] = sorted(distances.tolist())
    return lower * ordered[(len(ordered) - 1) // 2] + (1 - lower) * ordered[-1]


def _bounded_exp(total: float) -> float:
    return math.exp(min(max(total, -10.0), 10.0))
