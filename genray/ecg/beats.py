"""Beats: windows of a lead around R peaks, resampled to one length and normalised; the beats of a recording
with their classes; and the preprocessing of a beat network, as its bundle stores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

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
"""AAMI class of each PhysioNet beat code: N normal, S supraventricular, V ventricular, F fusion, Q paced or
unknown (ANSI/AAMI EC57:2012; de Chazal et al. 2004, table I)."""

UNKNOWN = ""
"""Class of a beat without an annotation."""

_STRETCH = 3600.0  # s of a record whose beats are cut at once
_MARGIN = 10.0  # s that are read before and after them
_NEAR = 0.15  # s, longest distance of a detected peak from its annotation, as in EC57
_FARTHEST = 1e9  # largest normalised value: squares of errors still fit into float32


class BeatSettings(Settings):
    """Settings of the window of a beat."""

    before: float = Field(0.25, gt=0, le=1, description="seconds of a beat before its R peak")
    after: float = Field(0.45, gt=0, le=2, description="seconds of a beat after its R peak")
    samples: int = Field(140, ge=16, le=1024, description="number of samples that a beat is resampled to")


def cut_beats(
    signal: NDArray[np.floating], peaks: NDArray[np.integer], rate: float, settings: BeatSettings
) -> tuple[Array, NDArray[np.bool_]]:
    """Cut the beats around `peaks` and resample them by linear interpolation, without normalisation.

    Args:
        signal: (samples, leads), in any unit.
        peaks: (peaks,) sample indices of R peaks.
        rate: sampling rate, Hz.

    Returns:
        Beats (beats, leads, `settings.samples`) of the peaks whose window lies within the signal and has
        finite samples in every lead; and a mask (peaks,) of these peaks.
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
    """Cut beats like `cut_beats`, (beats, `settings.samples`), from `rows` of a signal (rows, samples) around
    `columns`, whose windows must lie within the signal."""
    whole, share = _sample_places(rate, settings)
    at = columns[:, None] + whole
    lead = rows[:, None]
    return np.asarray(signal[lead, at] * (1 - share) + signal[lead, at + 1] * share, np.float32)


def normalise_beats(beats: NDArray[np.floating]) -> Array:
    """Return beats (..., samples) with mean 0 and standard deviation 1, like those of ECG5000; flat ones are
    0."""
    centred = beats - beats.mean(axis=-1, keepdims=True)
    spread = centred.std(axis=-1, keepdims=True)
    flat = spread < 1e-6
    return np.where(flat, 0, centred / np.where(flat, 1, spread)).astype(np.float32)


@dataclass(frozen=True)
class RecordBeats:
    """Beats of a recording.

    Attributes:
        values: (beats, samples) in mV, lead after lead.
        classes: AAMI class of each beat, or UNKNOWN.
        leads: names of the leads that were cut.
    """

    values: NDArray[np.float32]
    classes: list[str]
    leads: tuple[str, ...]


class NoLead(DataError):
    """The record has none of the selected leads."""


def read_record_beats(
    record: EcgRecord, settings: BeatSettings, leads: Sequence[str], peaks: PeakSource
) -> RecordBeats:
    """Read the beats of `record` whose window lies within it and has no missing samples.

    Args:
        settings: window of a beat.
        leads: selected leads, of which the first that the record has is cut; empty: all leads, each for
            itself.
        peaks: "annotated": use annotations, or detect peaks if there are none; "detected": always detect
            them. A detected peak has the class of an annotation within 150 ms.

    Raises:
        NoLead: the record has none of the leads.
        DataError: it has no beats, or cannot be read.
    """
    columns = _choose_leads(record, leads)
    if not columns:
        raise NoLead(
            f"the record has none of the leads {', '.join(leads)}; its leads are {', '.join(record.leads)}",
            where=str(record.path),
            hint="add one of its leads to data.leads, or use all with []",
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
        raise DataError("the record has no complete beats", where=str(record.path), hint="leave it out")
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
    """Yield the parts of a record that contain samples, with some seconds around each. A record may last for
    weeks, most of it a gap: it is never in memory as a whole."""
    size, margin = round(_STRETCH * record.rate), round(_MARGIN * record.rate)
    for first in range(0, record.samples, size):
        last = min(first + size, record.samples)
        begin = max(0, first - margin)
        signal = record.millivolts(begin, last + margin)[:, list(columns)]
        if not np.isnan(signal).all():
            yield _Stretch(begin, first, last, signal)


Level = Annotated[float, Field(ge=-_FARTHEST, le=_FARTHEST)]


class BeatPreprocessing(BaseModel):
    """Preprocessing of a lead for a beat network: the window around an R peak, and the normalisation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    before: float | None = Field(None, gt=0, le=1, description="seconds of a beat before its R peak")
    after: float | None = Field(
        None,
        gt=0,
        le=2,
        validate_default=True,
        description="seconds of a beat after its R peak (null: unknown, beats of a table)",
    )
    samples: int = Field(ge=16, le=1024, description="number of samples that a beat is resampled to")
    normalisation: Literal["zscore", "minmax"] = Field(
        description="normalisation (zscore: each beat has mean 0 and standard deviation 1; minmax: `span` "
        "becomes 0 to 1)"
    )
    span: tuple[Level, Level] | None = Field(
        None, validate_default=True, description="values that become 0 and 1, for minmax"
    )
    leads: tuple[str, ...] = Field(
        (), description="leads that the network was trained on (empty: the data did not say)"
    )

    @field_validator("after")
    @classmethod
    def _check_window(cls, after: float | None, others: ValidationInfo) -> float | None:
        if "before" in others.data and (after is None) != (others.data["before"] is None):
            raise ValueError("`before` and `after` say together where the R peak is: give both or neither")
        return after

    @field_validator("span")
    @classmethod
    def _check_span(
        cls, span: tuple[float, float] | None, others: ValidationInfo
    ) -> tuple[float, float] | None:
        if (span is not None) != (others.data.get("normalisation", "zscore") == "minmax"):
            raise ValueError("minmax, and nothing else, needs the values that become 0 and 1")
        if span is not None and not span[0] < span[1]:
            raise ValueError("the value that becomes 0 must be below the one that becomes 1")
        return span

    @property
    def window(self) -> tuple[float, float] | None:
        """Seconds before and after the R peak; None: its position is unknown."""
        return None if self.before is None or self.after is None else (self.before, self.after)

    @property
    def beat_settings(self) -> BeatSettings:
        """Window of a beat, for `cut_beats`.

        Raises:
            BundleMismatch: the position of the R peak is unknown.
        """
        if self.window is None:
            raise BundleMismatch(
                "the network was trained on beats of a table, in which the position of the R peak is unknown",
                hint="train on records instead: genray submit train-ecg with WFDB or EDF files as data.path",
            )
        before, after = self.window
        return BeatSettings(before=before, after=after, samples=self.samples)

    def normalise(self, beats: NDArray[np.floating]) -> NDArray[np.float32]:
        """Normalise beats (..., samples), in mV or the unit that the network was trained on, for the
        network."""
        if self.span is None:
            return normalise_beats(beats)
        low, high = self.span
        scaled = (beats - low) / (high - low)
        return scaled.clip(-_FARTHEST, _FARTHEST).astype(np.float32)


def _sample_places(rate: float, settings: BeatSettings) -> tuple[NDArray[np.int64], Array]:
    """Return the positions of a beat's samples in the signal: the index of the sample before each, relative
    to the R peak, and the fraction of the way to the next one."""
    places = np.linspace(-settings.before, settings.after, settings.samples) * rate
    whole = np.floor(places).astype(np.int64)
    return whole, (places - whole).astype(np.float32)


def _choose_leads(record: EcgRecord, wanted: Sequence[str]) -> list[int]:
    """Return the columns of a record to cut: that of the first wanted lead that it has, or all if none is
    wanted."""
    if not wanted:
        return list(range(len(record.leads)))
    columns = {name.upper(): column for column, name in enumerate(record.leads)}
    return [columns[name.upper()] for name in wanted if name.upper() in columns][:1]


def _match_classes(peaks: NDArray[np.int64], annotations: Annotations, near: float) -> list[str]:
    """Return the class of each detected peak: that of the nearest annotation within `near` samples, or
    UNKNOWN."""
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
