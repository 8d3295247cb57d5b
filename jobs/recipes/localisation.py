"""How well errors of pixels show where the defects are: pixel AUROC and AUPRO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_FALSE_POSITIVES = 0.3  # rate that the per-region overlap is integrated to
_NEIGHBOURS = np.ones((3, 3), bool)  # pixels of a region touch, also at a corner


@dataclass(frozen=True)
class Localisation:
    """Rates of errors of pixels against masks of defects.

    Attributes:
        auroc: area under the ROC curve of all pixels.
        aupro: area under the curve of per-region overlap and false positive rate, up to a rate of 0.3,
            divided by 0.3.
    """

    auroc: float
    aupro: float


def localise(errors: NDArray[np.float32], masks: NDArray[np.bool_]) -> Localisation | None:
    """Rate errors of pixels, (N, H, W), against masks of defects, (N, H, W); None without pixels of both
    kinds.

    The per-region overlap at a threshold is the mean, over all connected regions of all masks, of the share
    of a region above the threshold: small defects count as much as large ones. It is integrated over the
    false positive rate of the pixels outside the masks, from 0 to 0.3, as Bergmann et al. 2020, "Uninformed
    Students" (arXiv:1911.02357), define it for MVTec AD.
    """
    weights = _region_weights(masks)
    is_defect = masks.ravel()
    if is_defect.all() or not is_defect.any():
        return None
    flat = errors.ravel()
    order = np.argsort(-flat, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(flat[order]) != 0, True])  # equal errors have one threshold
    false = _curve(~is_defect[order], ends)
    true = _curve(is_defect[order], ends)
    overlap = _curve(weights.ravel()[order], ends)
    return Localisation(float(np.trapezoid(true, false)), _area_up_to(false, overlap, _MOST_FALSE_POSITIVES))


def _region_weights(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return for each pixel of a region 1 / pixels of the region, and 0 outside."""
    from scipy import ndimage

    weights = np.zeros(masks.shape)
    for mask, of_mask in zip(masks, weights, strict=True):
        regions, _ = ndimage.label(mask, _NEIGHBOURS)
        sizes = np.bincount(regions.ravel())
        of_mask[mask] = 1 / sizes[regions[mask]]
    return weights


def _curve(values: NDArray[np.bool_ | np.float64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the sum of `values` up to each of `ends`, from 0 on."""
    sums = np.cumsum(values, dtype=np.float64)
    shares: NDArray[np.float64] = np.r_[0.0, sums[ends] / sums[-1]]
    return shares


def _area_up_to(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Return the mean height of a curve from x = 0 to `limit`."""
    inside = x < limit
    area = np.trapezoid(np.r_[y[inside], np.interp(limit, x, y)], np.r_[x[inside], limit])
    return float(area / limit)
