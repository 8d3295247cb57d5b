"""Trivial predictors of images: what a trained network has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genray.datasets.loader import Pixels


def pca_errors(training: Sequence[Pixels], judged: Sequence[Pixels], components: int) -> NDArray[np.float64]:
    """The mean squared error of each judged image after projection on the principal components of the
    training images, (N,), with values from 0 to 1: the best that a linear autoencoder with a code of that
    length can do (Baldi & Hornik 1989)."""
    from sklearn.decomposition import PCA

    values = training[0].size
    if len(training) < 2:
        return mean_image_errors(training, judged)  # no direction is known
    matrix = _matrix(training)
    kept = min(components, values, len(matrix) - 1)
    # By the covariance where that is small, as exact and far faster; else by random projections.
    solver = "covariance_eigh" if values <= 2048 else "randomized"
    pca = PCA(kept, svd_solver=solver, random_state=0).fit(matrix)
    errors = []
    for i in range(0, len(judged), 1024):
        flat = _matrix(judged[i : i + 1024])
        errors.append(
            np.square(pca.inverse_transform(pca.transform(flat)) - flat).mean(axis=1, dtype=np.float64)
        )
    return np.concatenate(errors)


def mean_image_errors(training: Sequence[Pixels], judged: Sequence[Pixels]) -> NDArray[np.float64]:
    """The mean squared error of each judged image against the mean training image, (N,)."""
    mean = sum(image.astype(np.float64) for image in training) / len(training)
    return np.array([np.square((image - mean) / 255.0).mean() for image in judged])


def _matrix(images: Sequence[Pixels]) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = np.stack([image.ravel() for image in images]).astype(np.float32) / 255.0
    return flat
