"""What is normal for this patient: the shape of the usual beat in each lead, learned in the first minutes.

Nobody says which beats of these minutes are normal. Trusted are those of regular rhythm (the intervals before
and after them are the usual ones) whose shape is near that of the most. On the records of MIT-BIH's DS1, by
shape alone, the area under the ROC curve of later beats was 0.96 so, 0.59 by the nearest of all early beats,
and 0.94 by the median of those that are annotated as normal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from genray.settings.base import Settings

Floats = NDArray[np.float32]

SHIFTS = 6
"""Samples of a beat by which it may be moved either way: 40 ms at the usual settings."""

_KEPT = 128  # beats of the first minutes that are kept at most, evenly in time
_CORE = 4.0  # times the median distance from the middle, beyond which a beat is another shape
_SOFT = 0.1  # of z-normalised values: distances much smaller than that of another shape are all alike


class ReferenceSettings(Settings):
    """Settings of the patient's own reference."""

    minutes: float = Field(5.0, gt=0, le=120, description="of good signal from which it is learned")
    beats: int = Field(30, ge=5, le=_KEPT, description="trusted beats that it needs at least")
    regular: tuple[float, float] = Field(
        (0.85, 1.2), description="of the usual interval: between these a beat is in time, so can be trusted"
    )
    drift: float = Field(
        0.01, ge=0, le=0.5, description="share of each trusted beat by which the reference follows; 0: fixed"
    )


class Reference:
    """The usual beat of each lead of one patient.

    Args:
        settings: see there.
        leads: names of the leads.
        samples: of a beat.
    """

    def __init__(self, settings: ReferenceSettings, leads: tuple[str, ...], samples: int) -> None:
        self._settings = settings
        self.leads = leads
        self.shape: Floats | None = None
        """(leads, samples), z-normalised; None while it is learned."""
        self.scale = np.full(len(leads), np.nan, np.float32)
        """(leads,) the distance that nine in ten trusted beats keep; NaN in a lead without a reference."""
        self._kept: list[Floats] = []
        self._regular: list[bool] = []
        self._stride = self._skipped = 1
        self._seconds = 0.0
        self._samples = samples

    @property
    def learned(self) -> float:
        """Share of the time that is over, 1 when it is ready."""
        if self.shape is not None:
            return 1.0
        return min(self._seconds / (60 * self._settings.minutes), 0.99)

    def pass_time(self, seconds: float) -> None:
        """So many more seconds of good signal; learns when it is time."""
        if self.shape is not None:
            return
        self._seconds += seconds
        over = self._seconds / (60 * self._settings.minutes)
        if over >= 1 and (len(self._trusted()) >= self._settings.beats or over >= 2):
            self._learn()

    def show(self, beat: Floats, before: float, after: float) -> None:
        """A beat (leads, samples), z-normalised, NaN in leads that are not good, with the intervals before
        and after it as shares of the usual one (NaN: not known)."""
        low, high = self._settings.regular
        regular = low < before < high and low < after < high
        if self.shape is not None:
            return
        self._skipped -= 1
        if self._skipped > 0:
            return
        self._skipped = self._stride
        self._kept.append(beat.astype(np.float16))
        self._regular.append(regular)
        if len(self._kept) >= _KEPT:
            # Every second one goes, so that those that stay are spread over the whole time.
            self._kept, self._regular, self._stride = self._kept[::2], self._regular[::2], 2 * self._stride

    def follow(self, beat: Floats, before: float) -> None:
        """Let the reference drift towards a beat (leads, samples) that is normal by its score."""
        low, high = self._settings.regular
        if self.shape is not None and self._settings.drift and low < before < high:
            # A lead that is not good now (NaN) stays as it is.
            away = beat - self.shape
            away[np.isnan(away)] = 0.0
            self.shape = self.shape + np.float32(self._settings.drift) * away

    def _trusted(self) -> list[Floats]:
        return [beat for beat, regular in zip(self._kept, self._regular, strict=True) if regular]

    def _learn(self) -> None:
        chosen, least = self._trusted(), max(5, 2 * self._settings.beats // 3)
        if len(chosen) < least:
            chosen = self._kept  # the rhythm is never regular: the most frequent shape has to do
        if not chosen:
            self._seconds = 0.0
            return
        beats = np.stack(chosen).astype(np.float32)
        shape = np.empty(beats.shape[1:], np.float32)
        for lead in range(len(self.leads)):
            core = beats[np.isfinite(beats[:, lead, 0]), lead]
            if len(core) < least:
                shape[lead] = self.scale[lead] = np.nan  # this lead was not good enough: it has no reference
                continue
            for _ in range(2):
                far = np.square(core - np.median(core, axis=0)).mean(axis=1)
                core = core[far <= _CORE * np.median(far)]
            shape[lead] = np.median(core, axis=0)
            self.scale[lead] = np.quantile(np.square(core - shape[lead]).mean(axis=1), 0.9)
        if np.isnan(self.scale).all():
            self._seconds = 0.0
            return
        self.shape = shape
        self._kept, self._regular = [], []

    def save(self) -> bytes:
        """What `restore` takes; empty while it is learned."""
        if self.shape is None:
            return b""
        return bytes(save({"shape": self.shape, "scale": self.scale}))

    def restore(self, data: bytes) -> bool:
        """Take what `save` gave; False if it is not of these leads or damaged, and nothing is changed."""
        try:
            stored = load(data)
            shape, scale = stored["shape"], stored["scale"]
        except (SafetensorError, KeyError, ValueError):
            return False
        fits = shape.shape == (len(self.leads), self._samples) and scale.shape == (len(self.leads),)
        if not fits or shape.dtype != np.float32 or scale.dtype != np.float32:
            return False
        # No z-normalised value is larger than the root of their number, and no distance than four times it.
        known = np.isfinite(scale)
        high, far = np.abs(shape[known]), scale[known]
        if (
            not known.any()
            or not (high <= self._samples**0.5).all()
            or not (far >= 0).all()
            or np.inf in scale
        ):
            return False
        self.shape, self.scale = shape, scale
        return True


def fit(beats: Floats, good: NDArray[np.bool_], references: Sequence[Reference]) -> tuple[Floats, Floats]:
    """Lay beats onto the references of their patients, moved a little in time so that they fit best: what
    marks the peak of a complex is not always the same wave.

    Args:
        beats: (leads of all beats, samples + 2 SHIFTS), in mV; the leads of a beat are consecutive.
        good: (leads of all beats,) which of them to go by.
        references: of the patient of each beat.

    Returns:
        The parts that fit, z-normalised (leads of all beats, samples); those in the middle where there is no
        reference. And how far they are from it, as logarithms (leads of all beats,): 0 is as far as one in
        ten of the trusted beats; NaN in a lead without one.
    """
    counts = np.array([len(each.leads) for each in references])
    starts = np.cumsum(counts) - counts
    samples = beats.shape[1] - 2 * SHIFTS
    usual = np.concatenate(
        [
            np.full((n, samples), np.nan) if r.shape is None else r.shape
            for n, r in zip(counts, references, strict=True)
        ],
        dtype=np.float32,
    )
    parts = sliding_window_view(beats, samples, axis=1)  # (leads, shifts, samples)
    mean, spread = parts.mean(axis=2), parts.std(axis=2)
    flat = spread < 1e-6
    product = np.einsum("lks,ls->lk", parts, usual) - mean * usual.sum(axis=1, keepdims=True)
    alike = 2 * np.where(flat, 0, product) / (np.where(flat, 1, spread) * samples)
    shown = np.square(usual).mean(axis=1)
    usable = good & np.isfinite(shown)
    together = np.add.reduceat(np.where(usable[:, None], alike, 0), starts)
    best = np.where(np.logical_or.reduceat(usable, starts), together.argmax(axis=1), SHIFTS)
    here = np.arange(len(beats)), np.repeat(best, counts)
    centred = parts[here] - mean[here][:, None]
    shape = np.where(flat[here][:, None], 0, centred / np.where(flat[here], 1, spread[here])[:, None])
    far = np.maximum(1.0 + shown - alike[here], 0.0)
    scale = np.concatenate([each.scale for each in references])
    return shape.astype(np.float32), np.log((far + _SOFT) / (scale + _SOFT)).astype(np.float32)
