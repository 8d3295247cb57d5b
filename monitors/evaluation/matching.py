"""Detected beats against annotated ones, one to one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEAR = 0.15
"""Seconds between a beat and its annotation, less than which they belong together (ANSI/AAMI EC57)."""


def paired(known: Sequence[float], found: Sequence[float], window: float) -> NDArray[np.intp]:
    """Which found beat belongs to each known one.

    Each known beat takes the nearest that is left, unless that is nearer to the known beat after it: then the
    one before. Where beats are as far apart as hearts allow, these are the numbers of wfdb's
    `compare_annotations`.

    Args:
        known: when the annotated beats were, increasing; in samples or seconds.
        found: when the detected ones were, increasing.
        window: they must be less than this apart.

    Returns:
        (known,) indices in `found`; -1: missed.
    """
    partner = np.full(len(known), -1, np.intp)
    left = free = 0  # the first that was not looked at, the first that belongs to none before
    for number, at in enumerate(known):
        if left >= len(found):
            break
        place = _nearest(found, left, at)
        if number + 1 < len(known):
            after = known[number + 1]
            wanted = _nearest(found, left, after) == place
            if wanted and abs(found[place] - after) < abs(found[place] - at):
                place -= 1
        if place < free:
            continue
        if abs(found[place] - at) < window:
            partner[number] = place
            free = place + 1
        left = place + 1
    return partner


def _nearest(found: Sequence[float], left: int, at: float) -> int:
    """The place from `left` on that is nearest to `at`; the earlier of two."""
    place = min(bisect_left(found, at, left), len(found) - 1)
    return place - 1 if place > left and at - found[place - 1] <= abs(found[place] - at) else place
