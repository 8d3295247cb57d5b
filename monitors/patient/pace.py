"""Beats of the usual QRS complex at another heart rate.

P and T waves move with the rate, and in a fast rhythm the next complex lies in the window of a beat, so
that all beats are unlike the reference. Where the rhythm is regular, the QRS complex alone says then whether
a beat is unusual.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from genray.ecg.beats import BeatSettings
from monitors.patient.reference import LOUDEST, SHIFTS, UsualBeat

Floats = NDArray[np.float32]

_QRS = 0.08  # s around the R peak, in which T waves of fast rhythms do not lie
_OTHER = 0.08  # logarithm of the ratio of two paces from which they differ
_FASTEST = 0.39  # s, 154/min; faster ones of the usual QRS complex are rather supraventricular tachycardia
_SAME = 0.9  # mean correlation of the leads' QRS complexes above which a complex is the usual one


class PaceRule:
    """Rule by which a beat is unlike the reference only by its rate.

    Args:
        beat: window and samples of the beats.
    """

    def __init__(self, beat: BeatSettings) -> None:
        step = (beat.before + beat.after) / (beat.samples - 1)
        first, last = (round((beat.before + at) / step) for at in (-_QRS, _QRS))
        self._qrs = slice(max(SHIFTS, first), min(beat.samples - SHIFTS, last + 1))
        self._next_inside = beat.after + _QRS  # s of an RR interval

    def explains(self, usual: UsualBeat, shapes: Floats, shares: Floats, pace: float) -> bool:
        """Whether a beat of a regular rhythm is unlike a usual beat only by its rate: the pace is not that
        of the usual beat, or so fast that the next complex is in the window, and its QRS complex is the
        usual one.

        Args:
            usual: usual beat of the patient, the nearest one.
            shapes: (leads, samples) the beat, NaN in leads that are not good.
            shares: (leads,) share of noise in its power.
            pace: RR interval of the rhythm, s; NaN: it is not regular.
        """
        if not pace >= _FASTEST:
            return False
        if pace > self._next_inside and not abs(math.log(pace / usual.pace)) > _OTHER:
            return False
        known = np.isfinite(shapes[:, 0]) & np.isfinite(usual.scale)
        return bool(known.any()) and self._same_qrs(shapes[known], usual.shape[known], shares[known])

    def _same_qrs(self, shapes: Floats, usual: Floats, shares: Floats) -> bool:
        """Whether the QRS complexes of leads (leads, samples) are the usual ones."""
        start, stop = self._qrs.start, self._qrs.stop
        # The next complex in the window may have decided how the whole beat was shifted.
        moved = sliding_window_view(shapes[:, start - SHIFTS : stop + SHIFTS], stop - start, axis=1)
        moved = moved - moved.mean(axis=2, keepdims=True)  # (leads, shifts, samples)
        expected = usual[:, None, self._qrs] - usual[:, None, self._qrs].mean(axis=2, keepdims=True)
        power = np.square(moved).mean(axis=2)
        noise = np.minimum(shares[:, None], LOUDEST * power)
        scale = np.sqrt(np.maximum((power - noise) * np.square(expected).mean(axis=2), 1e-12))
        alike = (moved * expected).mean(axis=2) / scale
        return bool(alike.mean(axis=0).max() > _SAME)
