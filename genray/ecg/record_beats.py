"""The beats of a recording: around annotated R peaks or detected ones, with the class of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genray.ecg.beats import BeatSettings, cut_beats
from genray.ecg.qrs import detect_peaks
from genray.ecg.records.base import Record
from genray.errors import DataError

Peaks = Literal["annotated", "detected"]

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
_NEAR = 0.15  # seconds between a detected peak and its annotation at most, as in EC57


@dataclass(frozen=True)
class RecordBeats:
    """Attributes:
    values: (beats, samples) in mV, lead after lead.
    classes: of each beat, one of `AAMI`'s, or UNKNOWN.
    leads: that they are of.
    """

    values: NDArray[np.float32]
    classes: list[str]
    leads: tuple[str, ...]


class NoLead(DataError):
    """A record that has none of the leads that are wanted."""


def beats_of(record: Record, settings: BeatSettings, leads: Sequence[str], peaks: Peaks) -> RecordBeats:
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
    has = {name.upper(): index for index, name in enumerate(record.leads)}
    found = [has[name.upper()] for name in leads if name.upper() in has][:1]
    columns = found if leads else list(range(len(record.leads)))
    if not columns:
        raise NoLead(
            f"the record has none of the leads {', '.join(leads)}, but {', '.join(record.leads)}",
            where=str(record.path),
            hint="name one of its leads in data.leads; [] takes all",
        )
    annotations = record.annotations()
    signal = record.millivolts(0, record.samples)
    if annotations is not None and len(annotations.peaks) and peaks == "annotated":
        at, symbols = annotations.peaks, annotations.symbols
        classes = [AAMI.get(symbol, UNKNOWN) for symbol in symbols]
    else:
        at = detect_peaks(np.nan_to_num(signal[:, columns[0]]), record.rate)
        classes = [UNKNOWN] * len(at)
        if annotations is not None and len(annotations.peaks):
            classes = _matched(at, annotations.peaks, annotations.symbols, _NEAR * record.rate)
    values, kept = [], []
    for column in columns:
        beats, inside = cut_beats(signal[:, [column]], at, record.rate, settings)
        values.append(beats[:, 0])
        kept += [name for name, within in zip(classes, inside, strict=True) if within]
    if not kept:
        raise DataError("the record has no beats", where=str(record.path), hint="leave it out")
    return RecordBeats(np.concatenate(values), kept, tuple(record.leads[column] for column in columns))


def _matched(
    at: NDArray[np.int64], known: NDArray[np.int64], symbols: Sequence[str], near: float
) -> list[str]:
    after = np.searchsorted(known, at).clip(1, max(1, len(known) - 1))
    before, after = after - 1, np.minimum(after, len(known) - 1)
    nearest = np.where(np.abs(known[before] - at) <= np.abs(known[after] - at), before, after)
    close = np.abs(known[nearest] - at) <= near
    return [AAMI.get(symbols[i], UNKNOWN) if c else UNKNOWN for i, c in zip(nearest, close, strict=True)]
