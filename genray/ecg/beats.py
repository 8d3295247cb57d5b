"""Beats: the stretch of a lead around each R peak, resampled to one length and normalised; those of a whole
recording with the class of each; and what a network of beats takes, as its bundle stores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from genray.ecg.qrs import detect_peaks
from genray.ecg.records.base import Annotations, EcgRecord
from genray.errors import BundleMismatch, DataError
from genray.settings.base import Settings

Array = NDArray[np.float32]
Indices = NDArray[np.intp]

PeakSource = Literal["annotated", "detected"]

AAMI = {
    **dict.fromkeys("NLRejB", "N"),
    **dict.fromkeys("SAaJn", "S"),
    **dict.fromkeys("VEr", "V"),
    "F": "F",
    **dict.fromkeys("/fQ?", "Q"),
}
"""The class of a beat code of PhysioNet's: normal, supraventricular, ventricular, fusion, or paced and
unknown (ANSI/AAMI EC57:2012; de Chazal et al. 2004, table I)."""

UNKNOWN = ""
"""The class of a beat that nobody annotated."""

_STRETCH = 3600.0  # s of a record whose beats are cut at once
_MARGIN = 10.0  # s that are read before and after them
_NEAR = 0.15  # seconds between a detected peak and its annotation at most, as in EC57
_FARTHEST = 1e9  # squares of errors are still float32


class BeatSettings(Settings):
    """Settings of what a beat is."""

    before: float = Field(0.25, gt=0, le=1, description="seconds of a beat before its R peak")
    after: float = Field(0.45, gt=0, le=2, description="seconds of a beat after its R peak")
    samples: int = Field(140, ge=16, le=1024, description="that a beat is resampled to")


def cut_beats(
    signal: NDArray[np.floating], peaks: NDArray[np.integer], rate: float, settings: BeatSettings
) -> tuple[Array, NDArray[np.bool_]]:
    """The beats around `peaks`, resampled by linear interpolation; not normalised.

    Args:
        signal: (samples, leads), of one unit.
        peaks: indices of R peaks in it.
        rate: samples a second.

    Returns:
        Beats (beats, leads, `settings.samples`) of the peaks whose window lies within the signal and has
        finite samples in every lead; and which of `peaks` these are, (peaks,).
    """
    peaks = np.asarray(peaks, np.int64)
    whole, share = _sample_places(rate, settings)
    inside = (peaks + whole[0] >= 0) & (peaks + whole[-1] + 1 < len(signal))
    at = peaks[inside, None] + whole
    beats = signal[at] * (1 - share[:, None]) + signal[at + 1] * share[:, None]  # (beats, samples, leads)
    finite = np.isfinite(beats).all(axis=(1, 2))
    inside[inside] = finite
    return np.ascontiguousarray(beats[finite].transpose(0, 2, 1), np.float32), inside


def cut_at(
    signal: NDArray[np.floating], rows: Indices, columns: Indices, rate: float, settings: BeatSettings
) -> Array:
    """Beats (beats, `settings.samples`) from rows of (rows, samples) around the given columns, which must be
    far enough from both ends; otherwise as `cut_beats`."""
    whole, share = _sample_places(rate, settings)
    at = columns[:, None] + whole
    lead = rows[:, None]
    return np.asarray(signal[lead, at] * (1 - share) + signal[lead, at + 1] * share, np.float32)


def normalise_beats(beats: NDArray[np.floating]) -> Array:
    """Beats (..., samples) with mean 0 and standard deviation 1, as those of ECG5000 are; a flat one is 0."""
    centred = beats - beats.mean(axis=-1, keepdims=True)
    spread = centred.std(axis=-1, keepdims=True)
    flat = spread < 1e-6
    return np.where(flat, 0, centred / np.where(flat, 1, spread)).astype(np.float32)


@dataclass(frozen=True)
class RecordBeats:
    """The beats of a recording.

    Attributes:
        values: (beats, samples) in mV, lead after lead.
        classes: of each beat, one of `AAMI`'s, or UNKNOWN.
        leads: that they are of.
    """

    values: NDArray[np.float32]
    classes: list[str]
    leads: tuple[str, ...]


class NoLead(DataError):
    """A record that has none of the leads that are wanted."""


def read_record_beats(
    record: EcgRecord, settings: BeatSettings, leads: Sequence[str], peaks: PeakSource
) -> RecordBeats:
    """The beats of `record` that lie within it and have all their samples.

    Args:
        settings: what a beat is.
        leads: of these the first that the record has; none: all its leads, each with beats of its own.
        peaks: annotated: where there are annotations, else detected; detected: always. A detected peak has
            the class of an annotated one within 150 ms.

    Raises:
        NoLead: it has none of the leads.
        DataError: it has no beats, or cannot be read.
    """
    columns = _choose_leads(record, leads)
    if not columns:
        raise NoLead(
            f"the record has none of the leads {', '.join(leads)}, but {', '.join(record.leads)}",
            where=str(record.path),
            hint="name one of its leads in data.leads; [] takes all",
        )
    annotations = record.annotations()
    if annotations is not None and not len(annotations.peaks):
        annotations = None
    values: list[list[Array]] = [[] for _ in columns]
    kept: list[list[str]] = [[] for _ in columns]
    for stretch in _stretches(record, columns):
        if annotations is not None and peaks == "annotated":
            here = (annotations.peaks >= stretch.first) & (annotations.peaks < stretch.last)
            places = annotations.peaks[here]
            classes = [AAMI.get(annotations.symbols[n], UNKNOWN) for n in np.flatnonzero(here)]
        else:
            found = detect_peaks(np.nan_to_num(stretch.signal[:, 0]), record.rate) + stretch.begin
            places = found[(found >= stretch.first) & (found < stretch.last)]
            classes = [UNKNOWN] * len(places)
            if annotations is not None:
                classes = _match_classes(places, annotations, _NEAR * record.rate)
        for lead in range(len(columns)):
            beats, inside = cut_beats(
                stretch.signal[:, [lead]], places - stretch.begin, record.rate, settings
            )
            values[lead].append(beats[:, 0])
            kept[lead] += [name for name, within in zip(classes, inside, strict=True) if within]
    classes_of_all = [name for classes in kept for name in classes]
    if not classes_of_all:
        raise DataError("the record has no beats", where=str(record.path), hint="leave it out")
    beats_of_all = np.concatenate([beats for of_lead in values for beats in of_lead])
    return RecordBeats(beats_of_all, classes_of_all, tuple(record.leads[n] for n in columns))


class _Stretch(NamedTuple):
    """A part of a record: its samples from `first` to `last` are its own; those of `signal` begin with
    `begin`, in mV, (samples, leads)."""

    begin: int
    first: int
    last: int
    signal: Array


def _stretches(record: EcgRecord, columns: Sequence[int]) -> Iterator[_Stretch]:
    """The parts of a record in which anything was recorded, with some seconds around each. A record may last
    for weeks, most of which may be a gap: it is never in memory as a whole."""
    size, margin = round(_STRETCH * record.rate), round(_MARGIN * record.rate)
    for first in range(0, record.samples, size):
        last = min(first + size, record.samples)
        begin = max(0, first - margin)
        signal = record.millivolts(begin, last + margin)[:, list(columns)]
        if not np.isnan(signal).all():
            yield _Stretch(begin, first, last, signal)


class BeatPreprocessing(BaseModel):
    """What has to be done to a lead of an ECG before the network: which stretch around an R peak is a beat,
    and how its values become those that the network knows."""

    model_config = ConfigDict(frozen=True)
    before: float | None = Field(None, gt=0, le=1, description="seconds of a beat before its R peak")
    after: float | None = Field(
        None, gt=0, le=2, description="seconds of a beat after its R peak; of rows of a table nobody knows"
    )
    samples: int = Field(ge=16, le=1024, description="that a beat is resampled to")
    normalisation: Literal["zscore", "minmax"] = Field(
        description="zscore: each beat has mean 0 and standard deviation 1; minmax: `span` becomes 0 to 1"
    )
    span: tuple[float, float] | None = Field(None, description="the values that become 0 and 1, for minmax")
    leads: tuple[str, ...] = Field((), description="that it was trained on; empty if the data did not say")

    @property
    def window(self) -> tuple[float, float] | None:
        """Seconds before and after the R peak; None if nobody knows where it is."""
        return None if self.before is None or self.after is None else (self.before, self.after)

    @property
    def beat_settings(self) -> BeatSettings:
        """What a beat is, for `cut_beats`.

        Raises:
            BundleMismatch: nobody knows where its R peak is.
        """
        if self.window is None:
            raise BundleMismatch(
                "the network was trained on rows of a table, which do not say where the R peak of a beat is",
                hint="to cut beats from an ECG train on records: genray submit train-ecg with WFDB or EDF "
                "files as data.path",
            )
        before, after = self.window
        return BeatSettings(before=before, after=after, samples=self.samples)

    def normalise(self, beats: NDArray[np.floating]) -> NDArray[np.float32]:
        """Beats (..., samples) in mV, or whatever unit it was trained on, as the network takes them."""
        if self.span is None:
            return normalise_beats(beats)
        low, high = self.span
        scaled = (beats - low) / (high - low)
        return scaled.clip(-_FARTHEST, _FARTHEST).astype(np.float32)


def _sample_places(rate: float, settings: BeatSettings) -> tuple[NDArray[np.int64], Array]:
    """Where the samples of a beat lie between those of the signal: the sample before each, counted from the R
    peak, and what share of the way to the next it lies beyond."""
    places = np.linspace(-settings.before, settings.after, settings.samples) * rate
    whole = np.floor(places).astype(np.int64)
    return whole, (places - whole).astype(np.float32)


def _choose_leads(record: EcgRecord, wanted: Sequence[str]) -> list[int]:
    """The columns of a record whose beats are cut: that of the first wanted lead that it has, or all where
    none is wanted."""
    if not wanted:
        return list(range(len(record.leads)))
    columns = {name.upper(): column for column, name in enumerate(record.leads)}
    return [columns[name.upper()] for name in wanted if name.upper() in columns][:1]


def _match_classes(peaks: NDArray[np.int64], annotations: Annotations, near: float) -> list[str]:
    """The class of each detected peak: that of the nearest annotated one, if it is at most `near` samples
    away."""
    annotated = annotations.peaks
    after = np.searchsorted(annotated, peaks).clip(1, max(1, len(annotated) - 1))
    before = after - 1
    after = np.minimum(after, len(annotated) - 1)
    is_before = np.abs(annotated[before] - peaks) <= np.abs(annotated[after] - peaks)
    nearest = np.where(is_before, before, after)
    close = np.abs(annotated[nearest] - peaks) <= near
    return [
        AAMI.get(annotations.symbols[i], UNKNOWN) if is_close else UNKNOWN
        for i, is_close in zip(nearest, close, strict=True)
    ]
