"""Pictures of a latent space: codes in two dimensions, and correlations between classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genray.report.charts import draw_matrix, draw_scatter
from jobs.runs.samples import RunPicture

_MOST_CLASSES = 30  # most classes in a readable matrix


def latent_pictures(
    codes: NDArray[Any], labels: NDArray[np.int64] | None, classes: Sequence[str], projection: str, seed: int
) -> list[RunPicture]:
    """Draw the codes by their first two principal components, also by t-SNE (van der Maaten & Hinton 2008) if
    `projection` is tsne; and the correlations between the mean codes of the classes.

    Args:
        codes: (N, latent).
        labels: (N,) indices of `classes`; None: unknown.
        projection: further projection beside the principal components: tsne or none.
        seed: seed of t-SNE.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    codes = codes.astype(np.float64)
    if len(codes) < 4 or codes.shape[1] < 2 or not np.ptp(codes, axis=0).any():
        return []  # two dimensions could not show anything
    panels = {"Principal components": PCA(2, svd_solver="full").fit_transform(codes)}
    if projection == "tsne":
        perplexity = min(30.0, (len(codes) - 1) / 3)
        reduced = PCA(min(50, *codes.shape), svd_solver="full").fit_transform(codes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of equal points
            tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
            panels["t-SNE"] = tsne.fit_transform(reduced)
    pictures = [
        RunPicture(
            "latent",
            "Latent space",
            draw_scatter(panels, labels, classes),
            f"The codes of {len(codes)} held-out images, one point each.",
        )
    ]
    present = np.unique(labels) if labels is not None else np.empty(0, np.int64)
    if labels is not None and 2 <= len(present) <= _MOST_CLASSES:
        means = np.stack([codes[labels == value].mean(axis=0) for value in present]) - codes.mean(axis=0)
        with np.errstate(invalid="ignore"):  # a class whose mean is that of all: drawn as a dash
            matrix = np.corrcoef(means)
        pictures.append(
            RunPicture(
                "classes",
                "Classes in the latent space",
                draw_matrix(matrix, [classes[value] for value in present]),
                "Correlations between the mean codes of the classes, relative to the mean of all.",
            )
        )
    return pictures


def spread_indices(count: int, most: int) -> list[int]:
    """Return at most `most` indices, spread evenly over `count`."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()]
