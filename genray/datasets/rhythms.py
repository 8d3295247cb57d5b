"""Windows and beats of annotated records, for the rhythm model.

Three kinds of annotations are read: rhythms of WFDB records (`(VT`, `(VFL`, `(N`), beats (V is ventricular),
and the verdict of experts on a bedside alarm (PhysioNet/CinC Challenge 2015).
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genray.ecg.beats import cut_at
from genray.ecg.qrs import align_peaks, detect_peaks, fill_missing
from genray.ecg.records.base import BEDSIDE_ALARM_AT, EcgRecord
from genray.ecg.records.open import find_records, open_record
from genray.ecg.rhythm import WINDOW, WINDOW_FEATURES, rhythm_features
from genray.ecg.ventricular import BEAT, BEAT_FEATURES, UsualBeats, combine_leads, is_like_usual
from genray.errors import DataError
from genray.models.rhythm import WINDOW_CLASSES
from genray.settings.base import Location, Settings

Floats = NDArray[np.float64]

OTHER, TACHYCARDIA, FIBRILLATION = range(len(WINDOW_CLASSES))
_RHYTHMS = {"VT": TACHYCARDIA, "VF": FIBRILLATION, "VFIB": FIBRILLATION, "VFL": FIBRILLATION}
_UNCLEAR = {"HGEA", "VER", "IVR"}  # ectopic beats of a high grade, ventricular escape and slow rhythms
_VENTRICULAR_BEATS, _UNCLEAR_BEATS = "VE", "F?Q/fr!"
# Rhythms whose beats are of one kind, for records without annotated beats.
_ONE_KIND = {"VT": 1, "NOISE": 0, "NSR": 0, "AFIB": 0, "NOD": 0, "SVTA": 0, "SBR": 0}
_LATE = 0.5  # s of a window that may lie outside a ventricular rhythm, whose ends are not sharp
_FAINT = 0.05  # mV, amplitude below which a window says nothing
_PRESENT = 0.9  # least share of the samples of a window that must be present
_MOST_HOURS = 12  # h of a record that are read at most, so that it fits into memory
_BEFORE_ALARM = (100.0, 85.0, 70.0, 55.0, 40.0, 30.0, 25.0, 20.0, 15.0, 10.0, 5.0, 3.0, 1.0, 0.0)
_AT_ALARM = {TACHYCARDIA: (1.5, 0.5, 0.0), FIBRILLATION: (4.0, 3.0, 2.0, 1.0, 0.0)}  # s before the alarm
_OTHER_ALARM_BEATS, _FALSE_ALARM_BEATS = 30.0, 15.0  # s before the alarm whose beats are no ventricular ones
_AT_ONCE = 256  # windows whose features are computed together
_USUAL = 20  # last RR intervals whose median is the usual one


class RhythmDataSettings(Settings):
    """Settings of the records that a rhythm model is trained on."""

    path: Location = Field(
        "data/rhythms", description="folder of WFDB records with annotated rhythms, beats or bedside alarms"
    )
    leave_out: tuple[str, ...] = Field(
        (), description="patterns of names of records that are not read, such as vfdb/4* (empty: none)"
    )
    every: float = Field(
        1.0, gt=0, le=60, description="seconds between windows of records without annotated beats"
    )
    every_with_beats: float = Field(
        4.0, gt=0, le=60, description="seconds between windows of records with annotated beats"
    )


class LabelledSamples(NamedTuple):
    """Windows of single leads, and beats of all leads.

    Attributes:
        features: (samples, features), padded with 0; float32.
        beat: (samples,) whether a sample is a beat.
        labels: (samples,) index of `WINDOW_CLASSES`, or 1 for ventricular beats.
        records: (samples,) number of the record.
    """

    features: NDArray[np.float32]
    beat: NDArray[np.bool_]
    labels: NDArray[np.int64]
    records: NDArray[np.int64]

    @classmethod
    def pooled(cls, parts: Sequence[LabelledSamples]) -> LabelledSamples:
        """Return the samples of all `parts`."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@dataclass(frozen=True)
class RhythmSet:
    """Samples of the records of a folder.

    Attributes:
        samples: all of them.
        names: names of the records, by number.
        left_out: records that are not used, with the reason.
        fingerprint: of names and features.
    """

    samples: LabelledSamples
    names: tuple[str, ...]
    left_out: dict[str, str]
    fingerprint: str

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples of each class."""
        beat, labels = self.samples.beat, self.samples.labels
        windows = {
            f"windows {name}": int((~beat & (labels == n)).sum()) for n, name in enumerate(WINDOW_CLASSES)
        }
        return {
            **windows,
            "beats other": int((beat & (labels == 0)).sum()),
            "beats ventricular": int((beat & (labels == 1)).sum()),
        }

    @property
    def weights(self) -> NDArray[np.float32]:
        """Weight of each sample: each class has its share, and in it a record that of the square root of its
        samples, so that no record decides for its class."""
        weights = np.zeros(len(self.samples.labels))
        for is_beat, label, share in _SHARES:
            chosen = (self.samples.beat == is_beat) & (self.samples.labels == label)
            if chosen.any():
                _, places, counts = np.unique(
                    self.samples.records[chosen], return_inverse=True, return_counts=True
                )
                each = 1 / np.sqrt(counts[places])
                weights[chosen] = share * each / each.sum()
        weights *= len(weights)
        return weights.astype(np.float32)


# Kind of sample, label, and share of the weight: other rhythms have most, as false alarms are the usual
# fault.
_SHARES = (
    (False, OTHER, 0.3),
    (False, TACHYCARDIA, 0.1),
    (False, FIBRILLATION, 0.1),
    (True, 0, 0.35),
    (True, 1, 0.15),
)


def open_rhythm_set(settings: RhythmDataSettings, note: Callable[[str], None]) -> RhythmSet:
    """Read the windows and beats of all annotated records.

    Args:
        settings: the folder, and what is left out.
        note: takes a line for each record that is left out.

    Raises:
        DataError: no such folder, or no record with ventricular and other samples.
    """
    folder = Path(settings.path)
    parts: list[_RecordPart] = []
    left_out: dict[str, str] = {}
    for path in find_records(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.leave_out):
            left_out[name] = "data.leave_out"
            continue
        try:
            part = _read_record(name, open_record(path), settings)
        except DataError as error:
            left_out[name] = error.what
            note(f"left out: {name}: {error.what}")
            continue
        if part is None:
            left_out[name] = "no annotated rhythm, beat or bedside alarm"
            note(f"left out: {name}: {left_out[name]}")
        else:
            parts.append(part)
    if not parts:
        raise DataError(
            "no record has annotated rhythms, beats or a bedside alarm",
            where=str(folder),
            hint="set data.path to a folder of WFDB records with .atr files, such as PhysioNet's vfdb, mitdb",
        )
    beats = _beat_features(parts)
    samples = LabelledSamples.pooled([_samples(n, part, beats[n]) for n, part in enumerate(parts)])
    for is_beat, label, _ in _SHARES:
        if not ((samples.beat == is_beat) & (samples.labels == label)).any():
            what = (
                ("other", "ventricular")[label] + " beats"
                if is_beat
                else f"windows of the rhythm {WINDOW_CLASSES[label]}"
            )
            raise DataError(
                f"the records have no {what}",
                where=str(folder),
                hint="add records that have them, such as PhysioNet's vfdb and mitdb",
            )
    digest = hashlib.sha256(repr([part.name for part in parts]).encode())
    digest.update(samples.features.tobytes() + samples.labels.tobytes())
    return RhythmSet(samples, tuple(part.name for part in parts), left_out, digest.hexdigest())


@dataclass(frozen=True)
class _RecordPart:
    """Windows of a record, and its beats before their features are known.

    Attributes:
        windows: (windows, features) and their labels.
        beats: (beats, leads, samples) in mV, of all beats, as each is compared with those before.
        intervals: (beats, 2) see `combine_leads`.
        beat_labels: (beats,) 0, 1, or -1 for beats that are no samples.
    """

    name: str
    windows: Floats
    labels: NDArray[np.int64]
    beats: NDArray[np.float32]
    intervals: Floats
    beat_labels: NDArray[np.int64]


def _read_record(name: str, record: EcgRecord, settings: RhythmDataSettings) -> _RecordPart | None:
    """Read a record; None: it is not annotated."""
    annotations = record.annotations()
    has_beats = annotations is not None and len(annotations.peaks) > 1
    rhythms = [(mark.sample / record.rate, mark.name) for mark in record.rhythms()]
    alarm = record.bedside_alarm()
    if not has_beats and not rhythms and alarm is None:
        return None
    length = min(record.samples, round(_MOST_HOURS * 3600 * record.rate))
    volts = record.millivolts(0, length).T
    present = np.isfinite(volts)
    whole = fill_missing(volts.astype(np.float64))
    ends = list(rhythms)
    ends.append((length / record.rate, ""))
    labelled: list[tuple[float, int]] = []
    if alarm is not None:
        labelled = _alarm_windows(alarm.kind if alarm.confirmed else "")
    elif rhythms:
        every = settings.every_with_beats if has_beats else settings.every
        labelled = [each for span in pairwise(ends) for each in _rhythm_windows(*span, every)]
    windows, labels = _window_features(whole, present, record.rate, labelled)
    if has_beats:
        assert annotations is not None
        peaks = annotations.peaks
        beat_labels = np.array([_beat_label(symbol) for symbol in annotations.symbols], np.int64)
    else:
        peaks = detect_peaks(whole[0], record.rate)
        beat_labels = np.full(len(peaks), -1, np.int64)
        times = peaks / record.rate
        if alarm is not None:
            before = _label_seconds(alarm.kind, confirmed=alarm.confirmed)
            beat_labels[(times > BEDSIDE_ALARM_AT - before) & (times < BEDSIDE_ALARM_AT)] = 0
        for (begin, rhythm), (end, _) in pairwise(ends):
            if rhythm in _ONE_KIND:
                beat_labels[(times > begin + _LATE) & (times < end - _LATE)] = _ONE_KIND[rhythm]
    return _RecordPart(name, windows, labels, *_cut(whole, record.rate, peaks, beat_labels))


def _beat_label(symbol: str) -> int:
    return -1 if symbol in _UNCLEAR_BEATS else int(symbol in _VENTRICULAR_BEATS)


def _label_seconds(kind: str, *, confirmed: bool) -> float:
    """Return for how many seconds before a bedside alarm the beats are no ventricular ones."""
    if kind.startswith("ventricular-"):
        return 0.0 if confirmed else _FALSE_ALARM_BEATS
    return _OTHER_ALARM_BEATS if confirmed else 0.0


def _rhythm_windows(
    this: tuple[float, str], after: tuple[float, str], every: float
) -> Iterator[tuple[float, int]]:
    """Yield end (s) and label of the windows within an annotated rhythm, from its begin and name and those of
    the one after."""
    (begin, name), (end, _) = this, after
    label = _RHYTHMS.get(name, OTHER)
    slack = _LATE if label else 0.0
    if name not in _UNCLEAR:
        # Ventricular rhythms are rare, so none of their windows is left out.
        for at in np.arange(begin + WINDOW - slack, end + slack, min(every, 1.0) if label else every):
            yield float(at), label


def _alarm_windows(confirmed: str) -> list[tuple[float, int]]:
    """Return end and label of windows before a bedside alarm of a confirmed kind ("": none)."""
    label = {"ventricular-tachycardia": TACHYCARDIA, "ventricular-fibrillation": FIBRILLATION}.get(
        confirmed, OTHER
    )
    return [(BEDSIDE_ALARM_AT - before, label) for before in _AT_ALARM.get(label, _BEFORE_ALARM)]


def _window_features(
    volts: Floats, present: NDArray[np.bool_], rate: float, labelled: Sequence[tuple[float, int]]
) -> tuple[Floats, NDArray[np.int64]]:
    """Return features and labels of the windows of all leads that have a signal."""
    length = round(WINDOW * rate)
    places = [(lead, round(end * rate), label) for end, label in labelled for lead in range(len(volts))]
    places = [
        (lead, end, label)
        for lead, end, label in places
        if length <= end <= volts.shape[1] and present[lead, end - length : end].mean() >= _PRESENT
    ]
    labels = [label for _, _, label in places]
    features = [np.empty((0, WINDOW_FEATURES))]
    for first in range(0, len(places), _AT_ONCE):
        windows = [volts[lead, end - length : end] for lead, end, _ in places[first : first + _AT_ONCE]]
        features.append(rhythm_features(np.stack(windows), rate))
    whole = np.concatenate(features)
    clear = whole[:, 0] > np.log(_FAINT)
    return whole[clear], np.array(labels, np.int64)[clear]


def _cut(
    volts: Floats, rate: float, peaks: NDArray[np.int64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float32], Floats, NDArray[np.int64]]:
    """Return beats (beats, leads, samples), intervals and labels of the peaks with a whole window."""
    margin = round((max(BEAT.before, BEAT.after) + 0.1) * rate)
    inside = (peaks > margin) & (peaks < volts.shape[1] - margin)
    peaks, labels = peaks[inside], labels[inside]
    if not len(peaks):
        return np.empty((0, len(volts), BEAT.samples), np.float32), np.empty((0, 2)), labels
    aligned = align_peaks(volts.T, peaks, rate)
    beats = np.stack(
        [cut_at(volts, np.full(len(aligned), lead), aligned, rate, BEAT) for lead in range(len(volts))],
        axis=1,
    )
    seconds = np.diff(peaks, prepend=peaks[0]) / rate
    intervals = np.full((len(peaks), 2), np.nan)
    for n in range(1, len(peaks)):
        recent = seconds[max(1, n - _USUAL + 1) : n + 1]
        intervals[n] = seconds[n], seconds[n] / max(float(np.median(recent)), 1e-3)
    return beats, intervals, labels


class _BeatFeatures(NamedTuple):
    """Features of the beats of a record.

    Attributes:
        beats: (beats, features).
        onsets: (N, features) of ventricular beats that have become the usual ones, compared with the last
            other beats, as at the onset of their rhythm. Few records have onsets, and a monitor has to know a
            tachycardia by its first beats.
    """

    beats: Floats
    onsets: Floats


def _beat_features(parts: Sequence[_RecordPart]) -> list[_BeatFeatures]:
    """Return the features of the beats of each record. The records go beat by beat together, as each beat is
    compared with those before."""
    leads = [part.beats.shape[1] for part in parts]
    first = np.cumsum([0, *leads[:-1]])
    usual, others = UsualBeats(sum(leads)), UsualBeats(sum(leads))
    found: list[list[Floats]] = [[] for _ in parts]
    onsets: list[list[Floats]] = [[] for _ in parts]
    pace = np.full(len(parts), np.nan)  # usual interval at the last other beat of each record, s
    for n in range(max(len(part.beats) for part in parts)):
        going = [number for number, part in enumerate(parts) if n < len(part.beats)]

        def compare(bank: UsualBeats, numbers: list[int], *, follow: bool = True, at: int = n) -> Floats:
            rows = np.concatenate([first[number] + np.arange(leads[number]) for number in numbers])
            beats = np.concatenate([parts[number].beats[at] for number in numbers])
            features = bank.compare(rows, beats, follow=follow)
            starts = np.cumsum([0, *[leads[number] for number in numbers][:-1]])
            intervals = np.stack([parts[number].intervals[at] for number in numbers])
            if not follow:
                intervals[:, 1] = intervals[:, 0] / pace[numbers]
            return combine_leads(features, np.ones(len(rows), np.bool_), starts, intervals)

        combined = compare(usual, going)
        for number, each in zip(going, combined, strict=True):
            found[number].append(each)
        labels = np.array([parts[number].beat_labels[n] for number in going])
        if other := [number for number, label in zip(going, labels, strict=True) if label == 0]:
            compare(others, other)
            seconds, ratio = np.stack([parts[number].intervals[n] for number in other]).T
            pace[other] = seconds / ratio
        began = (labels == 1) & is_like_usual(combined) & np.isfinite(pace[going])
        if ventricular := [number for number, each in zip(going, began, strict=True) if each]:
            for number, each in zip(ventricular, compare(others, ventricular, follow=False), strict=True):
                onsets[number].append(each)
    return [
        _BeatFeatures(np.array(each).reshape(-1, BEAT_FEATURES), np.array(more).reshape(-1, BEAT_FEATURES))
        for each, more in zip(found, onsets, strict=True)
    ]


def _samples(number: int, part: _RecordPart, found: _BeatFeatures) -> LabelledSamples:
    """Return windows and labelled beats of a record as samples."""
    chosen = part.beat_labels >= 0
    beats = np.concatenate([found.beats[chosen], found.onsets])
    counts = (len(part.windows), len(beats))
    width = max(WINDOW_FEATURES, BEAT_FEATURES)
    features = np.zeros((sum(counts), width), np.float32)
    features[: counts[0], :WINDOW_FEATURES] = part.windows
    features[counts[0] :, :BEAT_FEATURES] = beats
    return LabelledSamples(
        features,
        np.repeat([False, True], counts),
        np.concatenate([part.labels, part.beat_labels[chosen], np.ones(len(found.onsets), np.int64)]),
        np.full(sum(counts), number, np.int64),
    )


def group_of(name: str) -> str:
    """Return the name of the patient of a record in any folder: records of one number are one patient, as
    118e06 and 118."""
    stem = name.rsplit("/", 1)[-1]
    digits = "".join(c for c in stem[:3] if c.isdigit())
    return digits if len(digits) == 3 and stem[0].isdigit() else stem


def summary_line(rhythms: RhythmSet) -> str:
    """Return the numbers of samples for a person."""
    databases = Counter(name.split("/")[0] if "/" in name else "" for name in rhythms.names)
    records = ", ".join(f"{name} {count}" for name, count in databases.items() if name) or str(
        len(rhythms.names)
    )
    return f"{records} records: " + ", ".join(f"{count} {name}" for name, count in rhythms.counts.items())
