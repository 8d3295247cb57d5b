"""Distances between two sets of vectors: density, coverage, and the Fréchet distance."""

from __future__ import annotations

import math

import torch


def density_and_coverage(real: torch.Tensor, samples: torch.Tensor, neighbours: int) -> tuple[float, float]:
    """Return density and coverage (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for
    Generative Models", equations 3 and 4).

    The ball of a real vector reaches to its k-th nearest real neighbour. Density is the number of balls that
    a sample lies in, over k (about 1 for samples like the real ones); coverage is the share of balls with a
    sample. Two equally large sets of one distribution have a coverage of about 1 - 2^-k (0.97 for k = 5).

    Args:
        real: (N, d).
        samples: (N, d). Other numbers than N change the coverage of equal distributions.
        neighbours: k, at most N - 1 is used.

    Returns:
        density and coverage; zeros for fewer than 2 vectors.
    """
    if min(len(real), len(samples)) < 2:
        return 0.0, 0.0
    neighbours = min(neighbours, len(real) - 1)
    centre = real.mean(dim=0)  # distances by products lose digits far from the origin
    real, samples = real - centre, samples - centre
    # Each vector is its own nearest neighbour.
    radii = torch.cdist(real, real).kthvalue(neighbours + 1, dim=1).values
    inside = torch.cdist(real, samples) <= radii[:, None]
    return (
        float(inside.sum() / (neighbours * len(samples))),
        float(inside.any(dim=1).float().mean()),
    )


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the squared Fréchet distance of the normal distributions of two sets of vectors (Dowson & Landau
    1982; on features of images: Heusel et al. 2017).

    It is larger for fewer vectors: compare distances of equally many.

    Args:
        first, second: (N, d) and (M, d).

    Returns:
        the distance, at least 0; NaN for fewer than 2 vectors.
    """
    if min(len(first), len(second)) < 2:
        return math.nan
    first, second = first.double(), second.double()
    one, other = torch.cov(first.T), torch.cov(second.T)
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # Has the eigenvalues of the product of both covariances, and is symmetric.
    shared = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    means = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    return max(0.0, float(means + one.trace() + other.trace() - 2 * shared))


def nearest_distances(vectors: torch.Tensor) -> torch.Tensor:
    """Return the distance of each of (N, d) to its nearest other one, (N,); infinite for one vector."""
    distances = torch.cdist(vectors, vectors)
    return distances.fill_diagonal_(math.inf).min(dim=1).values
