"""Detectors of abnormal beats: the error that judges a beat, plain detectors to compare with, the rates of a
detector at its threshold, and pictures of the beats that it finds and misses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from genray.report.charts import draw_distributions, draw_rates
from genray.settings.base import Settings
from jobs.recipes.threshold import ThresholdSettings, threshold_of
from jobs.runs.samples import RunPicture, RunTable
from jobs.training.settings import EvalSettings

BeatArray = NDArray[np.float32]
"""(N, samples)."""

BeatLabels = NDArray[np.bool_]
"""Which beats are abnormal, (N,)."""

ErrorFunction = Callable[[BeatArray, BeatArray], NDArray[np.float64]]
"""From normal beats to fit to, and beats to judge, to an error of each of the latter, (N,)."""

MEAN_BEAT = "mean-beat"
"""Name of the trivial detector: the distance from the mean normal beat."""

_BEATS_AT_ONCE = 4096


class BeatLossSettings(Settings):
    """Settings of the loss."""

    kind: Literal["mse", "mae"] = Field(
        "mse", description="loss that training minimises, and error by which beats are judged"
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=10,
        description=(
            "standard deviation of noise added to the training beats, which the network learns "
            "to remove (0: no noise)"
        ),
    )


def beat_errors(
    kind: Literal["mse", "mae"], reconstructions: torch.Tensor, beats: torch.Tensor
) -> torch.Tensor:
    """Return the mean squared or absolute error of each beat, (N,) float32.

    Args:
        kind: mse or mae.
        reconstructions: (N, 1, samples), or (members, N, 1, samples) of several networks, whose errors are
            averaged.
        beats: (N, 1, samples).
    """
    difference = reconstructions.float() - beats
    errors = (difference.square() if kind == "mse" else difference.abs()).mean(dim=(-2, -1))
    return errors.mean(dim=0) if errors.ndim == 2 else errors


@dataclass(frozen=True)
class Detector:
    """A detector: its name, its errors of the judging beats (N,), and its threshold."""

    name: str
    errors: NDArray[np.float64]
    threshold: float


class BeatEvalSettings(EvalSettings):
    """Settings of the evaluation."""

    baselines: tuple[Literal["pca", "1-nn"], ...] = Field(
        ("pca", "1-nn"),
        description=(
            "detectors to compare with, beside the mean normal beat (pca: principal components, "
            "8 and as many as a code has numbers; 1-nn: distance to the nearest normal beat)"
        ),
    )
    references: int = Field(2000, ge=1, description="largest number of normal beats that 1-nn compares with")


def plain_detectors(
    settings: BeatEvalSettings,
    threshold: ThresholdSettings,
    *,
    latent: int,
    seed: int,
    normal: BeatArray,
    folds: Sequence[NDArray[np.int64]],
    judged: BeatArray,
) -> list[Detector]:
    """Return plain detectors, the mean beat first, fitted to `normal`, with their errors of `judged`.

    Args:
        settings: choice of the detectors.
        threshold: method of their thresholds.
        latent: number of components of the second pca.
        seed: seed of the draw of references.
        normal: the normal beats.
        folds: indices of `normal`; the errors of each fold, after a fit to the others, make the threshold.
        judged: the beats to judge.
    """
    functions: dict[str, ErrorFunction] = {MEAN_BEAT: principal_components(0)}
    if "pca" in settings.baselines:
        functions |= {f"pca-{k}": principal_components(k) for k in dict.fromkeys((latent, 8))}
    if "1-nn" in settings.baselines:
        functions["1-nn"] = nearest_neighbour(settings.references, seed)
    detectors = []
    for name, errors_of in functions.items():
        errors = [errors_of(np.delete(normal, fold, axis=0), normal[fold]) for fold in folds]
        limit = threshold_of(np.concatenate(errors), threshold)
        detectors.append(Detector(name, errors_of(normal, judged), limit))
    return detectors


def principal_components(components: int) -> ErrorFunction:
    """Return the error function of principal components: the mean squared error after projection on those of
    the normal beats, the optimum of a linear autoencoder with a code of that length (Baldi & Hornik 1989)."""

    def errors(normal: BeatArray, judged: BeatArray) -> NDArray[np.float64]:
        mean = normal.mean(axis=0)
        from_mean = (normal - mean).astype(np.float64)
        values, vectors = np.linalg.eigh(from_mean.T @ from_mean)
        kept = vectors[:, np.argsort(-values)[:components]]  # none with 0: distance from the mean
        parts = []
        for start in range(0, len(judged), _BEATS_AT_ONCE):
            centred = judged[start : start + _BEATS_AT_ONCE] - mean
            parts.append(np.square(centred - centred @ kept @ kept.T).mean(axis=1))
        return np.concatenate(parts)

    return errors


def nearest_neighbour(most: int, seed: int) -> ErrorFunction:
    """Return the error function 1-nn: the Euclidean distance to the nearest of at most `most` normal beats,
    which are drawn with `seed`."""

    def errors(normal: BeatArray, judged: BeatArray) -> NDArray[np.float64]:
        references = normal
        if len(normal) > most:
            references = normal[np.random.default_rng([seed, most]).permutation(len(normal))[:most]]
        lengths = np.square(references).sum(axis=1)
        parts = []
        for start in range(0, len(judged), _BEATS_AT_ONCE):
            part = judged[start : start + _BEATS_AT_ONCE]
            squares = np.square(part).sum(axis=1)[:, None] + lengths - 2 * part @ references.T
            parts.append(np.sqrt(squares.min(axis=1).clip(0)).astype(np.float64))
        return np.concatenate(parts)

    return errors


def rate(detector: Detector, abnormal: BeatLabels | None) -> dict[str, float]:
    """Return the threshold and the share of beats above it; if both kinds of beats are known, also areas and
    rates. Abnormal beats are the positives; `normal_precision` is the share of normal beats among those below
    the threshold (with `specificity`, their recall, what TensorFlow's tutorial reports)."""
    above = detector.errors > detector.threshold
    rates = {"threshold": detector.threshold, "above_threshold": float(above.mean())}
    if abnormal is None or abnormal.all() or not abnormal.any():
        return rates
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = float((above & abnormal).sum())
    missed = float((~above & abnormal).sum())
    false_alarms = float((above & ~abnormal).sum())
    passed = float((~above & ~abnormal).sum())
    return {
        "auc": float(roc_auc_score(abnormal, detector.errors)),
        "average_precision": float(average_precision_score(abnormal, detector.errors)),
        "accuracy": (found + passed) / len(above),
        "sensitivity": found / (found + missed),
        "specificity": passed / (false_alarms + passed),
        "precision": found / max(found + false_alarms, 1.0),
        "f1": 2 * found / (2 * found + false_alarms + missed),
        "normal_precision": passed / max(passed + missed, 1.0),
        **rates,
    }


def class_table(
    detectors: Sequence[Detector],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    normal: Sequence[int],
) -> RunTable:
    """Return a table of each class: its number of beats, and its recall, the share that each detector puts on
    the right side of its threshold."""
    rows: list[list[str | float]] = []
    for label in np.unique(labels[labels >= 0]).tolist():
        members = labels == label
        is_normal = label in normal
        recalls = [float(np.mean((d.errors[members] > d.threshold) != is_normal)) for d in detectors]
        kind = "normal" if is_normal else "abnormal"
        rows.append([classes[label], kind, int(members.sum()), *recalls])
    columns = ["class", "kind", "beats", *(detector.name for detector in detectors)]
    return RunTable("Recall of each class", columns, rows)


@dataclass(frozen=True)
class BeatRow:
    """A row of a picture: its title, the indices of its judging beats, and a caption for each."""

    title: str
    places: Sequence[int]
    captions: Sequence[str]


@dataclass(frozen=True)
class BeatGallery:
    """Draws a detector's results on the judging beats.

    Attributes:
        detector: the detector, with errors and threshold.
        abnormal: which beats are abnormal; None if unknown.
        labels: labels of the beats, indices of `classes`; -1: none.
        classes: names of the labels.
        draw: draws rows of beats.
        most: largest number of beats in a row.
        error: name of the error.
    """

    detector: Detector
    abnormal: BeatLabels | None
    labels: NDArray[np.int64]
    classes: Sequence[str]
    draw: Callable[[Sequence[BeatRow]], NDArray[np.uint8]]
    most: int
    error: str

    def pictures(self) -> list[RunPicture]:
        """Draw the errors and the threshold, the rates, and beats: typical ones of both kinds, missed ones
        and false alarms."""
        return [*self._distributions(), self._usual_beats(), *self._mistakes()]

    @property
    def _is_abnormal(self) -> BeatLabels:
        """Return which beats are abnormal; none if unknown."""
        return np.zeros(len(self.labels), bool) if self.abnormal is None else self.abnormal

    @property
    def _normal_title(self) -> str:
        return "beats" if self.abnormal is None else "normal"

    def _distributions(self) -> list[RunPicture]:
        errors = self.detector.errors
        threshold = self.detector.threshold
        abnormal = self._is_abnormal
        groups = {self._normal_title: errors[~abnormal], "abnormal": errors[abnormal]}
        groups = {name: group for name, group in groups.items() if len(group)}
        caption = f"Above the threshold: {np.mean(errors > threshold):.1%} of these beats."
        distributions = draw_distributions(groups, threshold, self.error)
        pictures = [RunPicture("errors", "Errors and the threshold", distributions, caption)]
        if len(groups) == 2:
            rates = draw_rates(abnormal.astype(np.int64), errors)
            pictures.append(RunPicture("rates", "Telling abnormal beats from normal ones", rates))
        return pictures

    def _usual_beats(self) -> RunPicture:
        """Draw beats of typical errors; of the abnormal beats, some of each class."""
        order = self._order
        abnormal = self._is_abnormal[order]
        rows = [self._row(self._normal_title, _spread(order[~abnormal], self.most))]
        strange = order[abnormal]
        if len(strange):
            labels = self.labels[strange]
            kinds = [strange[labels == label] for label in np.unique(labels)]
            per_kind = -(-self.most // len(kinds))
            places = [place for kind in kinds for place in _spread(kind, per_kind)]
            rows.append(self._row("abnormal", places[: self.most]))
        caption = (
            f"Class and {self.error} of each; the error is shaded. "
            f"The threshold is {self.detector.threshold:.3g}."
        )
        picture = self.draw([row for row in rows if row.places])
        return RunPicture("beats", "Beats and their reconstructions", picture, caption)

    def _mistakes(self) -> list[RunPicture]:
        if self.abnormal is None:
            return []
        order = self._order
        abnormal = self._is_abnormal[order]
        above = self.detector.errors[order] > self.detector.threshold
        missed = order[abnormal & ~above][: self.most]
        suspected = order[~abnormal & above][::-1][: self.most]
        rows = [self._row("missed", missed.tolist()), self._row("suspected", suspected.tolist())]
        rows = [row for row in rows if row.places]
        if not rows:
            return []
        caption = "Abnormal beats with the smallest errors, and normal beats with the largest."
        return [RunPicture("mistakes", "Missed beats and false alarms", self.draw(rows), caption)]

    @property
    def _order(self) -> NDArray[np.int64]:
        """Return the indices of the beats by their errors, the smallest first."""
        return np.argsort(self.detector.errors, kind="stable")

    def _row(self, title: str, places: Sequence[int]) -> BeatRow:
        captions = []
        for place in places:
            label = self.labels[place]
            name = f"{self.classes[label]}: " if label >= 0 else ""
            captions.append(f"{name}{self.detector.errors[place]:.3g}")
        return BeatRow(title, places, captions)


def _spread(ordered: NDArray[np.int64], most: int) -> list[int]:
    """Return at most `most` of them, evenly spaced, without the extremes."""
    if not len(ordered):
        return []
    places = (np.arange(most) + 0.5) / most * len(ordered)
    return [int(ordered[i]) for i in np.unique(places.astype(np.int64))]
