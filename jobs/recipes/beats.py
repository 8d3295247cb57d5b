"""Plain detectors of abnormal beats: what a trained network has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genray.settings.base import Settings
from jobs.recipes.beat_judging import Method
from jobs.recipes.threshold import ThresholdSettings, threshold_of

Beats = NDArray[np.float32]
"""(N, samples)."""

Detector = Callable[[Beats, Beats], NDArray[np.float64]]
"""Normal beats to know, and beats to judge: an error for each of these, (N,)."""

_AT_ONCE = 4096


def principal_components(components: int) -> Detector:
    """The mean squared error after projection on the principal components of the normal beats: what the
    best linear autoencoder with a code of that length does (Baldi & Hornik 1989)."""

    def errors(known: Beats, judged: Beats) -> NDArray[np.float64]:
        mean = known.mean(axis=0)
        from_mean = (known - mean).astype(np.float64)
        values, vectors = np.linalg.eigh(from_mean.T @ from_mean)
        kept = vectors[:, np.argsort(-values)[:components]]
        parts = []
        for start in range(0, len(judged), _AT_ONCE):
            centred = judged[start : start + _AT_ONCE] - mean
            parts.append(np.square(centred - centred @ kept @ kept.T).mean(axis=1))
        return np.concatenate(parts)

    return errors


def nearest_neighbour(most: int, seed: int) -> Detector:
    """The Euclidean distance to the nearest of at most `most` normal beats, drawn with `seed`."""

    def errors(known: Beats, judged: Beats) -> NDArray[np.float64]:
        some = known
        if len(known) > most:
            some = known[np.random.default_rng([seed, most]).permutation(len(known))[:most]]
        lengths = np.square(some).sum(axis=1)
        parts = []
        for start in range(0, len(judged), _AT_ONCE):
            part = judged[start : start + _AT_ONCE]
            squares = np.square(part).sum(axis=1)[:, None] + lengths - 2 * part @ some.T
            parts.append(np.sqrt(squares.min(axis=1).clip(0)).astype(np.float64))
        return np.concatenate(parts)

    return errors


class BeatEvalSettings(Settings):
    """Settings of the evaluation."""

    baselines: tuple[Literal["pca", "1-nn"], ...] = Field(
        ("pca", "1-nn"),
        description="pca: principal components, 8 and as many as a code has numbers; 1-nn: the nearest beat",
    )
    references: int = Field(2000, ge=1, description="normal beats that 1-nn compares with, at most")


def plain_methods(
    settings: BeatEvalSettings,
    threshold: ThresholdSettings,
    *,
    latent: int,
    seed: int,
    normal: Beats,
    folds: Sequence[NDArray[np.int64]],
    judged: Beats,
) -> list[Method]:
    """What plain detectors, which know `normal`, say of `judged`.

    Args:
        settings: which detectors.
        threshold: how their thresholds come from the errors of normal beats.
        latent: components of one of them.
        seed: of the draw of references.
        normal: the normal beats.
        folds: places in `normal` whose errors by what is known of the others make the threshold.
        judged: the beats to judge.
    """
    detectors: dict[str, Detector] = {}
    if "pca" in settings.baselines:
        detectors = {f"pca-{k}": principal_components(k) for k in dict.fromkeys((latent, 8))}
    if "1-nn" in settings.baselines:
        detectors["1-nn"] = nearest_neighbour(settings.references, seed)
    methods = []
    for name, errors_of in detectors.items():
        errors = [errors_of(np.delete(normal, fold, axis=0), normal[fold]) for fold in folds]
        limit = threshold_of(np.concatenate(errors), threshold)
        methods.append(Method(name, errors_of(normal, judged), limit))
    return methods
