"""Reference of a patient: the shapes of the patient's usual beats in each lead, learned in the first minutes.

Nothing marks which beats of these minutes are normal. Beats are trusted if their rhythm is regular (the
intervals before and after them are close to the usual one) and their shape is close to that of most others.
On the records of MIT-BIH's DS1, the distance from this reference alone gave an area under the ROC curve of
0.96 for later beats; the distance from the nearest early beat gave 0.59, and from the median of the beats
annotated as normal 0.94.

A patient may have several usual shapes, such as a bundle branch block that comes and goes. Other shapes are
learned from beats that come in time and are not ventricular, in the first minutes and later; ectopic beats
are early, or followed by a pause.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from genray.settings.base import Settings
from monitors.alarms.events import ReferenceWord

Floats = NDArray[np.float32]

SHIFTS = 6
"""Samples by which a beat may be shifted either way to fit the reference: 30 ms at the usual settings."""

_MOST_BEATS = 128  # most beats of the first minutes that are stored, evenly spread in time
_MOST_SHAPES = 3  # usual shapes of a patient
_IN_TIME = (0.9, 1.12)  # shares of the usual RR interval between which a beat of another usual shape comes
_VENTRICULAR = 0.5  # probability from which a beat counts as ventricular
_LATER = 64  # such unusual beats from which another shape is learned later, one in `_LATER_STRIDE`
_LATER_STRIDE = 4
_LIKE_EACH_OTHER = 0.3  # largest scale of such a shape; beats that differ more are no shape of their own
_CORE = 4.0  # times the median distance from the median beat, beyond which a beat has another shape
_UNJUDGED = (math.nan, math.nan, 0.0)  # pace, surprise and rarity of references of earlier versions
_SUSTAINED = 100  # beats at another rate after which the reference follows it
_FEW = 8  # beats of a rarer shape from which a reference can be learned
_ABNORMAL = 0.0  # surprise above which a shape is abnormal: that of one in twenty normal beats of others
_CLEARLY = math.log(2)  # difference of surprises by which one shape is clearly more normal than another
_SOFT = 0.1  # added to distances of z-normalised beats, so that tiny distances count as equal
LOUDEST = 0.8
"""Largest share of noise in the power of a beat that is taken off."""
NOISE_VARIATION = 0.6
"""Variation of the power of the noise in a beat, of its mean."""


class ReferenceSettings(Settings):
    """Settings of the patient's own reference."""

    minutes: float = Field(
        5.0, gt=0, le=120, description="minutes of good signal from which the reference is learned"
    )
    beats: int = Field(30, ge=5, le=_MOST_BEATS, description="least number of trusted beats to learn from")
    regular: tuple[float, float] = Field(
        (0.85, 1.2),
        description="shares of the usual RR interval between which a beat is regular, so can be trusted",
    )
    drift: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="share of the way by which each regular normal beat moves the reference (0: fixed)",
    )
    pace_drift: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="the same for beats with the usual QRS complex in a regular rhythm of another rate",
    )
    stale_hours: float = Field(
        12.0,
        gt=0,
        description="hours without a beat of a shape after which it is forgotten if there are others",
    )


class _EarlyBeat(NamedTuple):
    """A beat (leads, samples) of the first minutes.

    Attributes:
        regular: whether the intervals around it are regular.
        surprise: how much it surprises the model of normal beats; NaN: unknown.
        in_time: whether it comes in time and is not ventricular.
    """

    shapes: NDArray[np.float16]
    regular: bool
    surprise: float
    in_time: bool


@dataclass(slots=True, eq=False)
class UsualBeat:
    """A usual beat of a patient; equal to itself only.

    Attributes:
        shape: (leads, samples), z-normalised; NaN in leads that were not good.
        scale: 90 % quantile of its beats' distances, (leads,); NaN in those leads.
        surprise: how much it surprises the model of normal beats; NaN: unknown.
        pace: RR interval (s) at which beats have this shape; NaN: unknown.
        seen: unix time of the last beat of this shape; NaN: unknown.
    """

    shape: Floats
    scale: Floats
    surprise: float = math.nan
    pace: float = math.nan
    seen: float = math.nan

    def is_like(self, shapes: Floats) -> NDArray[np.bool_]:
        """Return whether beats (beats, leads, samples) have this shape, (beats,)."""
        far = np.square(shapes - self.shape).mean(axis=2)
        # Leads that are not known (NaN) do not count.
        alike: NDArray[np.bool_] = ~(far > _CORE * self.scale + _SOFT).any(axis=1)
        return alike


class Reference:
    """The usual beats of each lead of one patient.

    It is responsible for collecting beats in the first minutes, learning the reference from them, following
    slow changes from then on, and learning and forgetting further usual shapes. It leaves the
    score of a beat to `monitors.patient.scoring`.

    Args:
        settings: settings of the reference.
        leads: names of the leads.
        samples: number of samples of a beat.
    """

    def __init__(self, settings: ReferenceSettings, leads: tuple[str, ...], samples: int) -> None:
        self._settings = settings
        self.leads = leads
        self.usual: list[UsualBeat] = []
        """Usual beats, at most three, the first one learned first; empty until it is learned."""
        self.is_rare = False
        """Whether most of the beats of the first minutes had another, abnormal shape than the first one."""
        self._other_pace = 0  # beats of another rate since the last usual one
        self._early: list[_EarlyBeat] = []
        self._later: list[_EarlyBeat] = []  # unusual beats that come in time
        self._stride = 1  # one in this many beats is stored
        self._until_next = 1
        self._seconds = 0.0
        self.samples = samples

    @property
    def shape(self) -> Floats | None:
        """The first usual beat of each lead, (leads, samples), z-normalised; None until it is learned."""
        return self.usual[0].shape if self.usual else None

    @property
    def surprise(self) -> float:
        """How much it surprises the model of normal beats; NaN: unknown."""
        return self.usual[0].surprise if self.usual else math.nan

    @property
    def learned_share(self) -> float:
        """Progress of learning, 0 to 1; 1 when the reference is ready."""
        if self.shape is not None:
            return 1.0
        return min(self._seconds / (60 * self._settings.minutes), 0.99)

    @property
    def judged(self) -> ReferenceWord:
        """What the model of normal beats says of it."""
        if self.shape is None:
            return ""
        return "abnormal" if self.surprise > _ABNORMAL else "rare" if self.is_rare else ""

    def is_more_abnormal(self, surprise: float) -> bool:
        """Whether the reference is abnormal and clearly more so than a normal beat of this surprise."""
        return self.judged == "abnormal" and surprise < min(_ABNORMAL, self.surprise - _CLEARLY)

    def add_time(self, seconds: float) -> None:
        """Add `seconds` of good signal; learn the reference when the time is reached."""
        if self.shape is not None:
            return
        self._seconds += seconds
        share = self._seconds / (60 * self._settings.minutes)
        if share >= 1 and (len(self._trusted()) >= self._settings.beats or share >= 2):
            self._learn()

    def add_beat(
        self,
        shapes: Floats,
        before: float,
        after: float,
        surprise: float = math.nan,
        ventricular: float = math.nan,
        time: float = math.nan,
    ) -> None:
        """Add a beat to learn from: any of the first minutes, later an unusual one without much noise.

        Args:
            shapes: (leads, samples), z-normalised, NaN in leads that are not good.
            before, after: ratios of the intervals before and after it to the usual one.
            surprise: its surprise; NaN: unknown.
            ventricular: probability that it is ventricular; NaN: unknown.
            time: its unix time.
        """
        low, high = _IN_TIME
        in_time = low < before < high and low < after < high and ventricular < _VENTRICULAR
        if self.usual and (self.judged or not in_time):
            return  # of a first beat that is abnormal or rare, further shapes may be ectopic beats
        self._until_next -= 1
        if self._until_next > 0:
            return
        self._until_next = self._stride
        if self.usual:
            self._later.append(_EarlyBeat(shapes.astype(np.float16), True, surprise, in_time))
            if len(self._later) >= _LATER:
                self._learn_later(time)
            return
        low, high = self._settings.regular
        regular = low < before < high and low < after < high
        self._early.append(_EarlyBeat(shapes.astype(np.float16), regular, surprise, in_time))
        if len(self._early) >= _MOST_BEATS:
            # Every second one is dropped, so that the others stay spread over the whole time.
            self._early = self._early[::2]
            self._stride = 2 * self._stride

    def follow(
        self, usual: UsualBeat, shapes: Floats, before: float, pace: float = math.nan, time: float = math.nan
    ) -> None:
        """Move a usual beat a little towards a beat (leads, samples) with a normal score and rhythm, and its
        pace towards `pace`, the RR interval of a regular rhythm (NaN: it is not regular). Forget the usual
        beats that were not seen for long at `time`, the beat's unix time."""
        low, high = self._settings.regular
        self._other_pace = 0
        usual.seen = time
        if len(self.usual) > 1:
            oldest = time - 3600 * self._settings.stale_hours
            self.usual = [each for each in self.usual if not each.seen < oldest]
        if self._settings.drift and low < before < high:
            _move(usual, shapes, pace, self._settings.drift)

    def follow_pace(self, usual: UsualBeat, shapes: Floats, pace: float) -> None:
        """Move a usual beat towards a beat that `PaceRule` explains by its rate, once this rate lasts longer
        than a run of ectopic beats."""
        self._other_pace += 1
        if self._other_pace > _SUSTAINED:
            _move(usual, shapes, pace, self._settings.pace_drift)

    def _trusted(self) -> list[_EarlyBeat]:
        return [beat for beat in self._early if beat.regular]

    def _learn(self) -> None:
        chosen = self._trusted()
        least = max(5, 2 * self._settings.beats // 3)
        if len(chosen) < least:
            # The rhythm is never regular, so all beats are used and the most frequent shape is learned.
            chosen = self._early
        usual = _most_frequent(chosen, least)
        if usual is None:
            self._seconds = 0.0
            return
        if usual.surprise > _ABNORMAL:
            alike = usual.is_like(_stacked(self._early)).tolist()
            rarer = _most_frequent(
                [beat for beat, is_usual in zip(self._early, alike, strict=True) if not is_usual], _FEW
            )
            if rarer is not None and rarer.surprise < min(_ABNORMAL, usual.surprise - _CLEARLY):
                usual, self.is_rare = rarer, True
        self.usual = [usual]
        rest = [beat for beat in self._early if beat.in_time]
        while len(self.usual) < _MOST_SHAPES and not self.judged:
            alike = usual.is_like(_stacked(rest)).tolist() if rest else []
            rest = [beat for beat, is_usual in zip(rest, alike, strict=True) if not is_usual]
            other = _most_frequent(rest, _FEW)
            if other is None or not _is_shape(other, _stacked(rest), _FEW):
                break
            self.usual.append(other)
            usual = other
        self._early = []
        self._stride = self._until_next = _LATER_STRIDE

    def _learn_later(self, time: float) -> None:
        """Learn another usual beat from the unusual beats that came in time, if half of them are alike."""
        other = _most_frequent(self._later, _LATER // 2)
        if other is None or not _is_shape(other, _stacked(self._later), _LATER // 2):
            del self._later[: _LATER // 2]
            return
        other.seen = time
        if len(self.usual) == _MOST_SHAPES:
            # One that was not seen since it was learned (NaN) goes first.
            self.usual.remove(min(self.usual, key=lambda each: np.nan_to_num(each.seen, nan=-math.inf)))
        self.usual.append(other)
        self._later = []

    def save(self) -> bytes:
        """Return the reference as bytes for `restore`, or what was collected until now to learn it from."""
        if self.usual:
            first, *others = self.usual
            stored: dict[str, NDArray[Any]] = {
                "shape": first.shape,
                "scale": first.scale,
                "judged": np.array([first.pace, first.surprise, self.is_rare], np.float64),
                "seen": np.array([each.seen for each in self.usual], np.float64),
            }
            if others:
                stored["others"] = np.stack([each.shape for each in others])
                stored["scales"] = np.stack([each.scale for each in others])
            return bytes(save(stored))
        shapes = np.zeros((0, len(self.leads), self.samples), np.float16)
        if self._early:
            shapes = np.stack([beat.shapes for beat in self._early])
        progress = {
            "early": shapes,
            "regular": np.array([beat.regular for beat in self._early], np.bool_),
            "surprise": np.array([beat.surprise for beat in self._early], np.float64),
            "in_time": np.array([beat.in_time for beat in self._early], np.bool_),
            "count": np.array([self._stride, self._until_next], np.int64),
            "seconds": np.array([self._seconds], np.float64),
        }
        return bytes(save(progress))

    def restore(self, data: bytes) -> bool:
        """Restore a reference from `save`; False, without a change, if it is damaged or has other leads."""
        try:
            stored = load(data)
            if "early" in stored:
                return self._restore_progress(stored)
            shapes, scales = stored["shape"][None], stored["scale"][None]
            pace, surprise, is_rare = stored["judged"].tolist() if "judged" in stored else _UNJUDGED
            if "others" in stored:
                shapes = np.concatenate([shapes, stored["others"]])
                scales = np.concatenate([scales, stored["scales"]])
            seen = stored["seen"].tolist() if "seen" in stored else [math.nan]
        except (SafetensorError, KeyError, ValueError):
            return False
        count = len(seen)
        fits = shapes.shape == (count, len(self.leads), self.samples) and count <= _MOST_SHAPES
        fits = fits and scales.shape == (count, len(self.leads))
        if not fits or shapes.dtype != np.float32 or scales.dtype != np.float32:
            return False
        # No z-normalised value can exceed the square root of the number of samples.
        learned = np.isfinite(scales)
        possible = (np.abs(shapes[learned]) <= self.samples**0.5).all() and (scales[learned] >= 0).all()
        if not learned.any(axis=1).all() or not possible or np.inf in scales or np.isinf(seen).any():
            return False
        self.usual = [UsualBeat(*each) for each in zip(shapes, scales, strict=True)]
        for usual, time in zip(self.usual, seen, strict=True):
            usual.seen = time
        self.usual[0].pace = pace if 0 < pace < math.inf else math.nan
        self.usual[0].surprise, self.is_rare = surprise, is_rare == 1
        self._stride = self._until_next = _LATER_STRIDE
        return True

    def _restore_progress(self, stored: dict[str, NDArray[Any]]) -> bool:
        """Restore what was collected to learn the reference from.

        Raises:
            KeyError, ValueError: something is missing.
        """
        early, regular = stored["early"], stored["regular"]
        surprise = stored.get("surprise", np.full(len(regular), np.nan))
        in_time = stored.get("in_time", np.zeros(len(regular), np.bool_))
        stride, until_next = stored["count"].tolist()
        (seconds,) = stored["seconds"].tolist()
        fits = early.shape == (len(regular), len(self.leads), self.samples) and regular.ndim == 1
        fits = fits and surprise.shape == in_time.shape == regular.shape
        types = early.dtype == np.float16 and regular.dtype == in_time.dtype == np.bool_
        possible = 1 <= until_next <= stride < 2**40 and 0 <= seconds < 1e9 and len(early) < _MOST_BEATS
        if not fits or not types or not possible or np.isinf(early).any():
            return False
        self.usual = []
        self._early = [
            _EarlyBeat(*beat)
            for beat in zip(early, regular.tolist(), surprise.tolist(), in_time.tolist(), strict=True)
        ]
        self._stride, self._until_next, self._seconds = stride, until_next, seconds
        return True


def _move(usual: UsualBeat, shapes: Floats, pace: float, share: float) -> None:
    """Move a usual beat by a share of the way towards a beat (leads, samples)."""
    # A lead that is not good now (NaN) stays unchanged.
    away = shapes - usual.shape
    away[np.isnan(away)] = 0.0
    usual.shape = usual.shape + np.float32(share) * away
    if not math.isnan(pace):
        usual.pace = pace if math.isnan(usual.pace) else usual.pace + share * (pace - usual.pace)


def _is_shape(usual: UsualBeat, shapes: Floats, least: int) -> bool:
    """Whether at least `least` of beats (beats, leads, samples) are like a usual beat and each other."""
    return bool(np.nanmax(usual.scale) <= _LIKE_EACH_OTHER and usual.is_like(shapes).sum() >= least)


def _stacked(beats: Sequence[_EarlyBeat]) -> Floats:
    return np.stack([beat.shapes for beat in beats]).astype(np.float32)


def _most_frequent(beats: Sequence[_EarlyBeat], least: int) -> UsualBeat | None:
    """Return the most frequent of `beats`; None: no lead has `least` good ones."""
    if not beats:
        return None
    shapes = _stacked(beats)
    shape = np.full(shapes.shape[1:], np.nan, np.float32)
    scale = np.full(len(shape), np.nan, np.float32)
    for lead in range(len(shape)):
        core = shapes[np.isfinite(shapes[:, lead, 0]), lead]
        if len(core) < least:
            continue  # it gets no reference
        for _ in range(2):
            far = np.square(core - np.median(core, axis=0)).mean(axis=1)
            core = core[far <= _CORE * np.median(far)]
        shape[lead] = np.median(core, axis=0)
        scale[lead] = np.quantile(np.square(core - shape[lead]).mean(axis=1), 0.9)
    if np.isnan(scale).all():
        return None
    usual = UsualBeat(shape, scale)
    surprises = np.array([beat.surprise for beat in beats])[usual.is_like(shapes)]
    surprises = surprises[np.isfinite(surprises)]
    if len(surprises):
        usual.surprise = float(np.median(surprises))
    return usual


class FittedBeats(NamedTuple):
    """Beats that were aligned with the references of their patients.

    Attributes:
        shapes: (leads of all beats, samples), z-normalised, unshifted where there is no reference.
        distances: (leads of all beats,) logarithm of the distance from the nearest usual beat: 0 is a
            distance that one in ten trusted beats exceeds; NaN in a lead without a reference.
        nearest: (beats,) place of this usual beat in `Reference.usual`.
    """

    shapes: Floats
    distances: Floats
    nearest: NDArray[np.intp]


def _moments(beats: Floats, samples: int) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each window of `samples` of beats, (leads, windows)."""
    middle = beats.mean(axis=1, keepdims=True)
    centred = (beats - middle).astype(np.float64)
    sums, squares = (
        np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1) for values in (centred, centred * centred)
    )
    mean = (sums[:, samples:] - sums[:, :-samples]) / samples
    variance = (squares[:, samples:] - squares[:, :-samples]) / samples - mean * mean
    spread = np.sqrt(np.maximum(variance, 0.0))
    return (mean + middle).astype(np.float32), spread.astype(np.float32)


def fit_to_references(
    beats: Floats, good: NDArray[np.bool_], references: Sequence[Reference], noise: Floats | None = None
) -> FittedBeats:
    """Align beats with the references of their patients, with the shift in time that fits best, as the
    detected peak of a complex is not always the same wave.

    Noise makes a beat unlike the reference, and, as beats are scaled to one power, flatter. The distance is
    that of the beat without its noise, and counts less the more the noise varies. Of several usual beats of a
    patient the nearest one counts.

    Args:
        beats: (leads of all beats, samples + 2 SHIFTS), in mV; the leads of a beat are consecutive.
        good: (leads of all beats,) which leads to align by.
        references: reference of the patient of each beat.
        noise: (leads of all beats,) power of the noise, mV² (None: there is none).
    """
    counts = np.array([len(reference.leads) for reference in references])
    starts = np.cumsum(counts) - counts
    fitted = _fit(beats, good, [_place(reference, 0) for reference in references], noise)
    for place in range(1, _MOST_SHAPES):
        several = [number for number, each in enumerate(references) if len(each.usual) > place]
        if not several:
            break
        rows = np.concatenate([starts[number] + np.arange(counts[number]) for number in several])
        of_rows = None if noise is None else noise[rows]
        others = [references[number].usual[place] for number in several]
        other = _fit(beats[rows], good[rows], others, of_rows)
        first = 0
        for number in several:
            whole = slice(starts[number], starts[number] + counts[number])
            part = slice(first, first + counts[number])
            first += counts[number]
            known = good[whole] & np.isfinite(fitted.distances[whole]) & np.isfinite(other.distances[part])
            if known.any() and (other.distances[part] - fitted.distances[whole])[known].mean() < 0:
                fitted.shapes[whole], fitted.distances[whole] = other.shapes[part], other.distances[part]
                fitted.nearest[number] = place
    return fitted


def _place(reference: Reference, place: int) -> UsualBeat:
    """Return a usual beat of a patient; one of NaN before it is learned."""
    if reference.usual:
        return reference.usual[place]
    leads = len(reference.leads)
    return UsualBeat(
        np.full((leads, reference.samples), np.nan, np.float32), np.full(leads, np.nan, np.float32)
    )


def _fit(
    beats: Floats, good: NDArray[np.bool_], usual_beats: Sequence[UsualBeat], noise: Floats | None
) -> FittedBeats:
    """Align each beat with one usual beat; see `fit_to_references`."""
    counts = np.array([len(usual.scale) for usual in usual_beats])
    starts = np.cumsum(counts) - counts
    samples = beats.shape[1] - 2 * SHIFTS
    usual = np.concatenate([each.shape for each in usual_beats])
    parts = sliding_window_view(beats, samples, axis=1)  # (leads, shifts, samples)
    mean, spread = _moments(beats, samples)
    flat = spread < 1e-6
    product = np.einsum("lks,ls->lk", parts, usual) - mean * usual.sum(axis=1, keepdims=True)
    alike = 2 * np.where(flat, 0, product) / (np.where(flat, 1, spread) * samples)
    power = np.square(usual).mean(axis=1)
    usable = good & np.isfinite(power)
    together = np.add.reduceat(np.where(usable[:, None], alike, 0), starts)
    best = np.where(np.logical_or.reduceat(usable, starts), together.argmax(axis=1), SHIFTS)
    chosen = np.arange(len(beats)), np.repeat(best, counts)
    centred = parts[chosen] - mean[chosen][:, None]
    shape = np.where(flat[chosen][:, None], 0, centred / np.where(flat[chosen], 1, spread[chosen])[:, None])
    scale = np.concatenate([each.scale for each in usual_beats])
    share = np.zeros(len(beats))
    if noise is not None:
        share = np.minimum(noise / np.maximum(np.square(spread[chosen]), 1e-12), LOUDEST)
    # Of a beat of power 1, the part 1 - share is the heart's, and its noise has nothing of the reference.
    far = np.maximum(1.0 + power - alike[chosen] / np.sqrt(1.0 - share), 0.0)
    # The scale holds the noise that there was when the reference was learned.
    usual_far = np.maximum(scale, NOISE_VARIATION * share / (1.0 - share))  # NaN without a reference
    distances = np.log((far + _SOFT) / (usual_far + _SOFT)).astype(np.float32)
    return FittedBeats(shape.astype(np.float32), distances, np.zeros(len(counts), np.intp))
