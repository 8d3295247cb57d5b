"""Heat maps: where two images differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SEVERE = 0.5  # difference of values in [0, 1] that is drawn as hot as there is


def heat_map(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, C) uint8 twice -> (H, W, 3): `before` in gray, glowing where `after` differs from it.

    The scale is fixed, so that pictures of one run can be compared: from black by red and yellow to white at
    a difference of half the range.
    """
    difference = np.abs(before.astype(np.float32) - after).mean(axis=-1) / 255
    heat = np.clip(difference / _SEVERE, 0.0, 1.0)
    ramp = np.stack([np.clip(3 * heat - k, 0.0, 1.0) for k in range(3)], axis=-1)
    ground = before.astype(np.float32).mean(axis=-1, keepdims=True) / 255
    share = np.sqrt(heat)[..., None]
    mixed = ground * 0.6 * (1 - share) + ramp * share
    return np.asarray(np.rint(mixed * 255), np.uint8)
