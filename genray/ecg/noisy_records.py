"""Noise that is added to records, at a signal-to-noise ratio as the program nst of WFDB defines it: baseline
wander, electrode motion and muscle noise, generated here, or recorded (the MIT-BIH Noise Stress Test
Database).

After Moody, Muldrow & Mark (1984), "A noise stress test for arrhythmia detectors", and the manual and source
of nst: signal and noise are compared by the QRS complexes of each lead and by the noise in windows of one
second, and noise is added from minute 5 on, two minutes with and two without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import scipy  # loads scipy.signal when it is needed, which takes a second
from numpy.typing import NDArray

from genray.ecg.beats import AAMI
from genray.ecg.noise_generator import KINDS, generate_noise, noise_rms, trimmed_mean
from genray.ecg.qrs import detect_peaks
from genray.ecg.records.base import MISSING, Annotations, BedsideAlarm, EcgRecord, RhythmMark
from genray.ecg.records.open import open_record
from genray.errors import DataError

NoisePlan = Literal["nst", "always"]
Floats = NDArray[np.float64]
Noise = NDArray[np.float32]

PLANS: Mapping[NoisePlan, str] = {
    "nst": "from minute 5 on, two minutes with noise and two without in turn",
    "always": "throughout",
}
"""When noise is added."""

_PERIOD = 1800.0  # s after which noise repeats, as the records of NSTDB are as long
_CHANNELS = 2  # of generated noise; further leads get other parts of these
_BEGIN, _TURN = 300.0, 120.0  # s: the protocol of nst
_FADE = 1.0  # s in which noise fades in and out; nst shifts the baseline instead, so that there is no step
_MOST_COMPLEXES = 300  # whose amplitude is that of the signal
_AROUND = 0.05  # s before and after an R peak within which a complex is measured
_RATIOS = (-40.0, 60.0)  # dB that are accepted
_LEAST_COMPLEXES = 5
_USUAL_RATE = 360.0  # Hz, of the databases
_SEARCHED = 600.0  # s in which complexes are detected where none are annotated


@dataclass(frozen=True)
class AddedNoise:
    """One noise: its source, a kind of generated noise or the path of a record, and the signal-to-noise
    ratio in dB."""

    source: str
    ratio: float

    @classmethod
    def parse(cls, text: str) -> AddedNoise:
        """Return the noise that `KIND:SNR` or `PATH:SNR` describes.

        Raises:
            DataError: it describes none.
        """
        source, _, number = text.strip().rpartition(":")
        try:
            ratio = float(number.lower().removesuffix("db"))
        except ValueError:
            ratio = math.nan
        low, high = _RATIOS
        if not source or not low <= ratio <= high:
            raise DataError(
                f"cannot add the noise {text!r}",
                hint=f"write KIND:SNR, such as muscle:12, with one of {', '.join(KINDS)} or the path of a "
                f"record of noise, and a signal-to-noise ratio of {low:g} to {high:g} dB",
            )
        return cls(source, ratio)


@dataclass(frozen=True)
class NoiseTest:
    """What is added to records.

    Attributes:
        noises: noises, which add up.
        plan: when they are added.
        seed: chooses the noise; every record gets another part of it.
    """

    noises: tuple[AddedNoise, ...]
    plan: NoisePlan = "nst"
    seed: int = 0

    def check(self) -> None:
        """Read the records of noise.

        Raises:
            DataError: one of them cannot be used.
        """
        for noise in self.noises:
            _samples(noise.source, _USUAL_RATE, self.seed)

    def add_to(self, record: EcgRecord) -> NoisyRecord:
        """Return `record` with the noise added to each of its leads.

        Raises:
            DataError: the plan leaves the record without noise, it has too few QRS complexes to be compared
                with, or the record of noise cannot be read.
        """
        length = record.samples / record.rate
        if self.plan == "nst" and length <= _BEGIN:
            raise DataError(
                f"noise begins at {_BEGIN:g} s, but the record lasts {length:.0f} s; add it always instead",
                where=str(record.path),
                hint="use --noise-plan always",
            )
        amplitudes = qrs_amplitudes(record)
        layers = tuple(self._layer(noise, record, amplitudes) for noise in self.noises)
        clean = [lead for lead, height in zip(record.leads, amplitudes, strict=True) if not height]
        without = (f"no noise added to {', '.join(clean)}: no QRS complexes",) if clean else ()
        same = {each.name: getattr(record, each.name) for each in fields(EcgRecord)}
        notes = (*record.notes, *without)
        return NoisyRecord(**same | {"notes": notes}, clean=record, layers=layers, plan=self.plan)

    def _layer(self, noise: AddedNoise, record: EcgRecord, amplitudes: Floats) -> _Layer:
        samples = _samples(noise.source, record.rate, self.seed)
        rms = np.array([noise_rms(channel, record.rate) for channel in samples])
        if not rms.min() > 0:
            raise DataError("a channel of the record of noise is flat", where=noise.source)
        ratio = 10 ** (-noise.ratio / 20) / math.sqrt(
            8
        )  # a sine of the complex's height has 1/8 of its square
        rng = np.random.default_rng([self.seed, crc32(record.name.encode())])
        first = int(rng.integers(samples.shape[1]))
        channels = np.arange(len(amplitudes)) % len(samples)
        rounds = np.arange(len(amplitudes)) // len(samples)
        offsets = (first + rounds * (samples.shape[1] * 5 // 13)) % samples.shape[1]
        return _Layer(samples, channels, offsets, ratio * amplitudes / rms[channels])

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        noises = [{"source": noise.source, "snr_db": noise.ratio} for noise in self.noises]
        return {"noises": noises, "plan": self.plan, "seed": self.seed}

    @property
    def text(self) -> str:
        """Description for a person."""
        noises = " and ".join(f"{noise.source} at {noise.ratio:g} dB" for noise in self.noises)
        return f"{noises}, {PLANS[self.plan]}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class _Layer:
    """A noise as it is added to the leads of a record.

    Attributes:
        samples: (channels, samples) one period of it.
        channels: (leads,) channel of each lead.
        offsets: (leads,) sample of the period with which each lead begins.
        gains: (leads,) mV of each lead to one unit of the noise.
    """

    samples: Noise
    channels: NDArray[np.intp]
    offsets: NDArray[np.intp]
    gains: Floats

    def read(self, start: int, stop: int) -> Floats:
        """Return the noise of the samples from `start` up to `stop`, (samples, leads), in mV."""
        at = (np.arange(start, stop)[:, None] + self.offsets) % self.samples.shape[1]
        return np.asarray(self.samples[self.channels, at] * self.gains, np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class NoisyRecord(EcgRecord):
    """A record with noise added; its annotations are those of the clean record.

    Attributes:
        clean: the record without noise.
        layers: noises that are added.
        plan: when they are added.
    """

    clean: EcgRecord
    layers: tuple[_Layer, ...]
    plan: NoisePlan

    def annotations(self) -> Annotations | None:
        """Return the annotated beats of the clean record."""
        return self.clean.annotations()

    def rhythms(self) -> list[RhythmMark]:
        """Return the annotated rhythms of the clean record."""
        return self.clean.rhythms()

    def bedside_alarm(self) -> BedsideAlarm | None:
        """Return the bedside alarm of the clean record."""
        return self.clean.bedside_alarm()

    def _read(self, start: int, stop: int) -> NDArray[np.int16]:
        units = self.clean.read(start, stop)
        added = sum((layer.read(start, stop) for layer in self.layers), np.zeros(units.shape))
        if self.plan == "nst":
            added *= _nst_share(np.arange(start, stop) / self.rate)[:, None]
        noisy = np.rint(units + added * np.asarray(self.gains))
        noisy = np.clip(noisy, MISSING + 1, -MISSING - 1).astype(np.int16)
        return np.where(units == MISSING, np.int16(MISSING), noisy)


def _nst_share(times: Floats) -> Floats:
    """Return the share of the noise at `times` (s) that the protocol of nst adds, 0 to 1."""
    within = (times - _BEGIN) % (2 * _TURN)
    share = np.clip(np.minimum(within, _TURN - within) / _FADE, 0.0, 1.0)
    return np.where(times >= _BEGIN, np.sin(share * math.pi / 2) ** 2, 0.0)


def qrs_amplitudes(record: EcgRecord) -> Floats:
    """Return the height in mV of the QRS complexes of each lead, (leads,), as nst measures it: the mean
    range within 50 ms of the first 300 normal beats, without the largest and smallest 5 %; 0 of leads that
    are no ECG.

    Where no beats are annotated, those that are detected in the first ten minutes count; where none of the
    annotated ones is normal, all of them.

    Raises:
        DataError: there are too few beats, or the record cannot be read.
    """
    reach = max(1, round(_AROUND * record.rate))
    windows = [
        record.millivolts(int(peak) - reach, int(peak) + reach + 1)
        for peak in _normal_peaks(record)
        if reach <= peak < record.samples - reach
    ][:_MOST_COMPLEXES]
    if len(windows) < _LEAST_COMPLEXES:
        raise DataError(
            f"{len(windows)} QRS complexes found, too few to compare noise with",
            where=str(record.path),
            hint="leave the record out, or evaluate it without noise",
        )
    ranges = np.ptp(np.stack(windows).astype(np.float64), axis=1)  # NaN where a sample is missing
    heights = np.zeros(len(record.leads))
    for lead in record.ecg_columns:
        heights[lead] = trimmed_mean(ranges[np.isfinite(ranges[:, lead]), lead])
    return heights


def _normal_peaks(record: EcgRecord) -> NDArray[np.int64]:
    annotations = record.annotations()
    if annotations is None or len(annotations.peaks) < _LEAST_COMPLEXES:
        signal = record.millivolts(0, round(_SEARCHED * record.rate))
        return detect_peaks(signal[:, record.ecg_columns[0]], record.rate)
    normal = np.array([AAMI.get(symbol) == "N" for symbol in annotations.symbols])
    return annotations.peaks[normal] if normal.sum() >= _LEAST_COMPLEXES else annotations.peaks


@lru_cache(maxsize=8)
def _samples(source: str, rate: float, seed: int) -> Noise:
    """Return one period of a noise, (channels, samples); its end continues with its beginning."""
    for kind in KINDS:
        if source == kind:
            return generate_noise(kind, round(_PERIOD * rate), rate, _CHANNELS, seed)
    return _recorded_noise(Path(source), rate)


def _recorded_noise(path: Path, rate: float) -> Noise:
    """Return the noise of a record, resampled to `rate`, (channels, samples), in mV."""
    record = open_record(path)
    volts = record.millivolts(0, round(_PERIOD * record.rate)).T.astype(np.float64)
    volts = np.stack([_centred(channel) for channel in volts])
    if abs(record.rate - rate) > 1e-6 * rate:
        ratio = Fraction(rate / record.rate).limit_denominator(1000)
        volts = scipy.signal.resample_poly(volts, ratio.numerator, ratio.denominator, axis=1)
    fade = round(_FADE * rate)
    if volts.shape[1] < 10 * fade:
        raise DataError(
            f"the record of noise lasts {volts.shape[1] / rate:.1f} s, but {10 * _FADE:g} s are needed",
            where=str(path),
            hint="give a longer one: em, ma or bw of the MIT-BIH Noise Stress Test Database",
        )
    share = np.linspace(0, 1, fade)
    body = volts[:, :-fade].copy()
    body[:, :fade] = share * body[:, :fade] + (1 - share) * volts[:, -fade:]
    return body.astype(np.float32)


def _centred(channel: Floats) -> Floats:
    there = np.isfinite(channel)
    return (
        np.where(there, channel - np.median(channel[there]), 0.0) if there.any() else np.zeros(len(channel))
    )


def parse_noises(texts: Sequence[str]) -> tuple[AddedNoise, ...]:
    """Return the noises of `KIND:SNR`, each text one or several with commas between.

    Raises:
        DataError: one of them describes none.
    """
    return tuple(AddedNoise.parse(part) for text in texts for part in text.split(",") if part.strip())
