"""Ventricular rhythms and beats of many streams at once: probabilities from the rhythm model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genray.bundle import Bundle, load_bundle
from genray.ecg.qrs import fill_missing
from genray.ecg.rhythm import WINDOW, rhythm_features
from genray.ecg.ventricular import UsualBeats, combine_leads
from genray.errors import BundleMismatch
from genray.models.rhythm import FARTHEST, Classifier, RhythmNetwork

Rows = NDArray[np.intp]
Floats = NDArray[np.floating]

READY = "ready:rhythm"
_PRESENT = 0.9  # least share of the samples of a window that must be present
# Least probabilities of a lead (others, tachycardia, fibrillation), so that one lead does not decide for all:
# one that moves looks like fibrillation with certainty, but fibrillation never makes clear complexes.
_CERTAIN = (0.02, 1e-4, 1e-4)
_WORSE = 2.0  # weight of fibrillation against tachycardia: taking one for the other is worse that way


@dataclass(frozen=True)
class _Weights:
    """Weights of a classifier for NumPy: a call of torch costs more than these few numbers."""

    mean: Floats
    scale: Floats
    hidden: Floats
    hidden_bias: Floats
    output: Floats
    output_bias: Floats

    @classmethod
    def of(cls, classifier: Classifier) -> _Weights:
        """Return the weights of a classifier."""
        arrays = {name: tensor.double().numpy() for name, tensor in classifier.state_dict().items()}
        return cls(
            arrays["mean"],
            arrays["scale"],
            arrays["hidden.weight"].T,
            arrays["hidden.bias"],
            arrays["output.weight"].T,
            arrays["output.bias"],
        )

    def logits(self, features: Floats) -> Floats:
        """Return the logits (N, classes) of features (N, features)."""
        scaled = np.clip((features - self.mean) / self.scale, -FARTHEST, FARTHEST)
        logits: Floats = np.tanh(scaled @ self.hidden + self.hidden_bias) @ self.output + self.output_bias
        return logits


@dataclass(frozen=True)
class RhythmModel:
    """Rhythm model of a bundle of train-rhythm."""

    windows: _Weights
    beats: _Weights

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> RhythmModel:
        """Return the model of a bundle.

        Raises:
            BundleMismatch: the bundle has another kind.
        """
        if not isinstance(bundle.network, RhythmNetwork):
            raise BundleMismatch(
                f"the bundle is of the kind {bundle.manifest.kind}, not rhythm",
                where=str(bundle.path),
                hint=f"set rhythm to {READY} or to a bundle of train-rhythm",
            )
        return cls(_Weights.of(bundle.network.windows), _Weights.of(bundle.network.beats))

    def rhythms(self, features: Floats) -> Floats:
        """Return the probability of each rhythm (windows, 3), see `WINDOW_CLASSES`."""
        logits = self.windows.logits(features)
        power = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Floats = power / power.sum(axis=1, keepdims=True)
        return shares

    def ventricular(self, features: Floats) -> Floats:
        """Return the probability that each beat is ventricular, (beats,)."""
        probabilities: Floats = 1 / (1 + np.exp(-np.clip(self.beats.logits(features)[:, 0], -30, 30)))
        return probabilities


@cache
def ready_rhythm_model() -> RhythmModel:
    """Return the rhythm model that comes with genray."""
    return RhythmModel.from_bundle(load_bundle(READY))


class VentricularRhythm(NamedTuple):
    """Probability that the rhythm of a stream is a ventricular one, 0 to 1; NaN: no lead could be judged.

    Attributes:
        tachycardia: this probability if tachycardia is clearly likelier than fibrillation or flutter, else
            the smaller one of tachycardia itself.
        fibrillation: the same for fibrillation or flutter.
    """

    tachycardia: float
    fibrillation: float


ORDERLY = VentricularRhythm(0.0, 0.0)
"""Rhythm of a stream whose complexes stand out clearly and are not fast, which needs no closer look."""
_UNKNOWN = VentricularRhythm(float("nan"), float("nan"))


def judge_rhythms(
    history: Floats, usable: NDArray[np.bool_], streams: Rows, count: int, rate: float, model: RhythmModel
) -> list[VentricularRhythm]:
    """Return the rhythm of each stream, from the leads that are usable.

    Args:
        history: (leads, samples) last samples in mV, NaN where missing; at least `WINDOW` seconds.
        usable: (leads,) whether the rhythm of a lead can be judged.
        streams: (leads,) number of the stream of each lead.
        count: number of streams.
        rate: sampling rate, Hz.
        model: model of the rhythms.
    """
    window = history[:, -round(WINDOW * rate) :]
    rows = np.flatnonzero(usable & (np.isfinite(window).mean(axis=1) >= _PRESENT))
    if not len(rows):
        return [_UNKNOWN] * count
    features = rhythm_features(fill_missing(window[rows].astype(np.float64)), rate)
    logs = np.log(np.maximum(model.rhythms(features), _CERTAIN))
    number = np.bincount(streams[rows], minlength=count)
    sums = np.stack([np.bincount(streams[rows], column, minlength=count) for column in logs.T], axis=1)
    power = np.exp(sums / np.maximum(number, 1)[:, None])
    shares = power / power.sum(axis=1, keepdims=True)
    return [
        _ventricular(*each) if leads else _UNKNOWN
        for each, leads in zip(shares.tolist(), number.tolist(), strict=True)
    ]


def _ventricular(other: float, tachycardia: float, fibrillation: float) -> VentricularRhythm:
    # Fast tachycardia and flutter look alike, so each probability alone would miss what both together show.
    either = 1.0 - other
    if _WORSE * fibrillation >= tachycardia:
        return VentricularRhythm(min(tachycardia, 0.5 * either), either)
    return VentricularRhythm(either, fibrillation)


class BeatJudge:
    """Judge of beats: the probability that each is ventricular, by its shape, its rhythm, and the usual beat
    of each lead.

    Args:
        model: model of the rhythms.
    """

    def __init__(self, model: RhythmModel) -> None:
        self._model = model
        self._usual = UsualBeats(0)

    def grow(self, leads: int) -> None:
        """Make room for `leads` leads."""
        self._usual.grow(leads)

    def forget(self, rows: Rows) -> None:
        """Delete the usual beats of leads, for another patient."""
        self._usual.forget(rows)

    def judge(
        self,
        rows: Rows,
        starts: Rows,
        beats: Floats,
        usable: NDArray[np.bool_],
        intervals: NDArray[np.float64],
    ) -> Floats:
        """Return the probability that each beat is ventricular, (beats,); NaN: no lead can be judged.

        Args:
            rows: (cuts,) row of the lead of each cut, the leads of a beat one after the other.
            starts: (beats,) first cut of each beat.
            beats: (cuts, `BEAT.samples`) in mV.
            usable: (cuts,) whether a lead can be judged.
            intervals: (beats, 2) see `combine_leads`.
        """
        judged = usable & np.isfinite(beats).all(axis=1)
        found = np.full(len(starts), np.nan)
        if not judged.any():
            return found
        of_judged = self._usual.compare(rows[judged], beats[judged])
        features = np.zeros((len(rows), of_judged.shape[1]))
        features[judged] = of_judged
        some = np.logical_or.reduceat(judged, starts)
        combined = combine_leads(features, judged, starts, intervals)
        found[some] = self._model.ventricular(combined[some])
        return found
