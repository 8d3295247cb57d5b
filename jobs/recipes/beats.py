"""Plain detectors of abnormal beats: what a trained network has to beat.

How well detectors tell abnormal beats from normal ones, each at its own threshold.

How far the reconstruction of a beat is from it.

What a detector of abnormal beats found, missed and suspected, as pictures of the report.
"""

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

BeatArray = NDArray[np.float32]
"""(N, samples)."""

Detector = Callable[[BeatArray, BeatArray], NDArray[np.float64]]
"""Normal beats to know, and beats to judge: an error for each of these, (N,)."""

_AT_ONCE = 4096


def principal_components(components: int) -> Detector:
    """The mean squared error after projection on the principal components of the normal beats: what the
    best linear autoencoder with a code of that length does (Baldi & Hornik 1989)."""

    def errors(known: BeatArray, judged: BeatArray) -> NDArray[np.float64]:
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

    def errors(known: BeatArray, judged: BeatArray) -> NDArray[np.float64]:
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
    normal: BeatArray,
    folds: Sequence[NDArray[np.int64]],
    judged: BeatArray,
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


BeatLabels = NDArray[np.bool_]
"""Which beats are abnormal, (N,)."""


@dataclass(frozen=True)
class Method:
    """A detector: what it is called, its errors of the beats that judge (N,), and its threshold."""

    name: str
    errors: NDArray[np.float64]
    threshold: float


def judge(method: Method, abnormal: BeatLabels | None) -> dict[str, float]:
    """The threshold and the share of beats above it; where both kinds of beats are known also areas and
    rates. What is to be found are abnormal beats; `normal_precision` is the share of normal beats among
    those below the threshold (with `specificity` their recall: what TensorFlow's tutorial reports)."""
    above = method.errors > method.threshold
    said = {"threshold": method.threshold, "above_threshold": float(above.mean())}
    if abnormal is None or abnormal.all() or not abnormal.any():
        return said
    from sklearn.metrics import average_precision_score, roc_auc_score

    found, missed = float((above & abnormal).sum()), float((~above & abnormal).sum())
    false, passed = float((above & ~abnormal).sum()), float((~above & ~abnormal).sum())
    return {
        "auc": float(roc_auc_score(abnormal, method.errors)),
        "average_precision": float(average_precision_score(abnormal, method.errors)),
        "accuracy": (found + passed) / len(above),
        "sensitivity": found / (found + missed),
        "specificity": passed / (false + passed),
        "precision": found / max(found + false, 1.0),
        "f1": 2 * found / (2 * found + false + missed),
        "normal_precision": passed / max(passed + missed, 1.0),
        **said,
    }


def class_table(
    methods: Sequence[Method], labels: NDArray[np.int64], classes: Sequence[str], normal: Sequence[int]
) -> RunTable:
    """Of each class how many beats there are, and what share of them each method puts on the right side of
    its threshold: the recall of the class."""
    rows: list[list[str | float]] = []
    for label in np.unique(labels[labels >= 0]).tolist():
        those, good = labels == label, label in normal
        shares = [float(np.mean((m.errors[those] > m.threshold) != good)) for m in methods]
        kind = "normal" if good else "abnormal"
        rows.append([classes[label], kind, int(those.sum()), *shares])
    return RunTable("Recall of each class", ["class", "kind", "beats", *(m.name for m in methods)], rows)


class BeatLossSettings(Settings):
    """Settings of the loss."""

    kind: Literal["mse", "mae"] = Field("mse", description="what is minimised, and what beats are judged by")
    noise: float = Field(
        0.0, ge=0, le=10, description="deviation of noise that the network has to take away while it learns"
    )


def beat_errors(kind: Literal["mse", "mae"], made: torch.Tensor, beats: torch.Tensor) -> torch.Tensor:
    """The mean squared or absolute error of each beat, (N,) float32.

    Args:
        kind: which.
        made: (N, 1, samples), or (members, N, 1, samples) of several networks: then the mean of their errors.
        beats: (N, 1, samples).
    """
    difference = made.float() - beats
    errors = (difference.square() if kind == "mse" else difference.abs()).mean(dim=(-2, -1))
    return errors.mean(dim=0) if errors.ndim == 2 else errors


PictureRow = tuple[str, Sequence[int], Sequence[str]]
"""Its title, the places of its beats among those that judge, a caption for each."""


def beat_pictures(
    method: Method,
    abnormal: BeatLabels | None,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    draw: Callable[[Sequence[PictureRow]], NDArray[np.uint8]],
    *,
    most: int,
    error: str,
) -> list[RunPicture]:
    """The errors and the threshold, rates, and beats: usual ones of both kinds, the missed and the suspected.

    Args:
        method: the detector.
        abnormal: which beats are; None if nobody says.
        labels: of the beats, indices of `classes`; -1: none.
        draw: makes a picture of rows of beats.
        most: beats in a row.
        error: what the error is called.
    """
    errors, threshold = method.errors, method.threshold
    wrong = np.zeros(len(errors), bool) if abnormal is None else abnormal
    normal = "beats" if abnormal is None else "normal"
    groups = {normal: errors[~wrong], "abnormal": errors[wrong]}
    groups = {name: some for name, some in groups.items() if len(some)}
    caption = f"Above the threshold: {np.mean(errors > threshold):.1%} of these beats."
    distributions = draw_distributions(groups, threshold, error)
    pictures = [RunPicture("errors", "Errors and the threshold", distributions, caption)]
    if len(groups) == 2:
        rates = draw_rates(wrong.astype(np.int64), errors)
        pictures.append(RunPicture("rates", "Telling abnormal beats from normal ones", rates))

    def row(title: str, places: Sequence[int]) -> PictureRow:
        names = (f"{classes[labels[i]]}: " if labels[i] >= 0 else "" for i in places)
        return title, places, [f"{name}{errors[i]:.3g}" for name, i in zip(names, places, strict=True)]

    order = np.argsort(errors, kind="stable")
    rows = [row(normal, _usual(order[~wrong[order]], most))]
    strange = order[wrong[order]]
    if len(strange):
        kinds = [strange[labels[strange] == label] for label in np.unique(labels[strange])]
        each = -(-most // len(kinds))
        rows.append(row("abnormal", [i for kind in kinds for i in _usual(kind, each)][:most]))
    text = f"Class and {error} of each; the error is shaded. The threshold is {threshold:.3g}."
    pictures.append(
        RunPicture("beats", "Beats and their reconstructions", draw([r for r in rows if r[1]]), text)
    )
    missed = order[wrong[order] & (errors[order] <= threshold)][:most]
    suspected = order[~wrong[order] & (errors[order] > threshold)][::-1][:most]
    mistakes = [row("missed", missed.tolist()), row("suspected", suspected.tolist())]
    if abnormal is not None and (shown := [r for r in mistakes if r[1]]):
        text = "Abnormal beats of the smallest errors, and normal ones of the largest."
        pictures.append(RunPicture("mistakes", "Missed, and suspected for nothing", draw(shown), text))
    return pictures


def _usual(ordered: NDArray[np.int64], most: int) -> list[int]:
    """At most so many, evenly from the first to the last without the extremes."""
    places = (np.arange(most) + 0.5) / most * len(ordered)
    return [int(ordered[i]) for i in np.unique(places.astype(np.int64))] if len(ordered) else []
