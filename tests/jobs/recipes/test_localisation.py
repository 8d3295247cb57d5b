"""Rates of pixels against scikit-learn, and against the definition of AUPRO written down plainly."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from jobs.recipes.localisation import localise


def plain_aupro(errors: np.ndarray, masks: np.ndarray) -> float:
    """The mean over the false positive rates from 0 to 0.3 of the mean share of a region that is found."""
    regions = []
    for number, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(number, labels == label) for label in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(errors)[::-1]:
        above = errors >= threshold
        rate = above[~masks].mean()
        points.append((rate, np.mean([above[number][region].mean() for number, region in regions])))
    rates, overlaps = np.array(points).T
    grid = np.linspace(0, 0.3, 30001)
    # Steps of the curve stand at one rate: the highest counts from there on.
    return float(np.trapezoid(np.interp(grid, rates, overlaps), grid) / 0.3)


@pytest.mark.parametrize("seed", range(5))
def test_rates_are_those_of_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((3, 12, 12), bool)
    masks[0, 1:3, 1:9] = masks[0, 3, 9] = masks[0, 8, 8] = True  # two regions: one touches at a corner
    masks[1, 5:7, 5:7] = True
    errors = (rng.random((3, 12, 12)) + masks * rng.uniform(0, 0.5)).round(3).astype(np.float32)
    rates = localise(errors, masks)
    assert rates is not None
    assert rates.auroc == pytest.approx(roc_auc_score(masks.ravel(), errors.ravel()))
    assert rates.aupro == pytest.approx(plain_aupro(errors, masks), abs=2e-4)


def test_a_perfect_and_a_blind_map() -> None:
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 1, 1:3] = True
    perfect = localise(masks.astype(np.float32), masks)
    assert perfect is not None
    assert (perfect.auroc, perfect.aupro) == (1.0, 1.0)
    blind = localise(np.zeros((1, 4, 4), np.float32), masks)
    assert blind is not None
    assert blind.auroc == 0.5
    assert blind.aupro == pytest.approx(0.15)
    assert localise(np.zeros((1, 4, 4), np.float32), masks & False) is None
