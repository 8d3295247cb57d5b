"""What a detector of abnormal beats found, missed and suspected, as pictures of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from genray.report.charts import draw_distributions, draw_rates
from jobs.recipes.beat_judging import Method, Truth
from jobs.training.recipe import Picture

Row = tuple[str, Sequence[int], Sequence[str]]
"""Its title, the places of its beats among those that judge, a caption for each."""


def beat_pictures(
    method: Method,
    abnormal: Truth | None,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    draw: Callable[[Sequence[Row]], NDArray[np.uint8]],
    *,
    most: int,
    error: str,
) -> list[Picture]:
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
    pictures = [Picture("errors", "Errors and the threshold", distributions, caption)]
    if len(groups) == 2:
        rates = draw_rates(wrong.astype(np.int64), errors)
        pictures.append(Picture("rates", "Telling abnormal beats from normal ones", rates))

    def row(title: str, places: Sequence[int]) -> Row:
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
        Picture("beats", "Beats and their reconstructions", draw([r for r in rows if r[1]]), text)
    )
    missed = order[wrong[order] & (errors[order] <= threshold)][:most]
    suspected = order[~wrong[order] & (errors[order] > threshold)][::-1][:most]
    mistakes = [row("missed", missed.tolist()), row("suspected", suspected.tolist())]
    if abnormal is not None and (shown := [r for r in mistakes if r[1]]):
        text = "Abnormal beats of the smallest errors, and normal ones of the largest."
        pictures.append(Picture("mistakes", "Missed, and suspected for nothing", draw(shown), text))
    return pictures


def _usual(ordered: NDArray[np.int64], most: int) -> list[int]:
    """At most so many, evenly from the first to the last without the extremes."""
    places = (np.arange(most) + 0.5) / most * len(ordered)
    return [int(ordered[i]) for i in np.unique(places.astype(np.int64))] if len(ordered) else []
