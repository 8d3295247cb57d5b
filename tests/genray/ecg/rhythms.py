"""Generated ventricular rhythms that no patient model makes: fibrillation, flutter and torsades."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genray.ecg.records.wfdb import write_wfdb
from genray.ecg.synthesis import generate

Floats = NDArray[np.float64]


def fibrillation(seconds: float, rate: float, millivolts: float, seed: int = 0) -> Floats:
    """Waves of about 5 Hz whose frequency and height wander, (samples,)."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    steps = np.arange(0, seconds + 1, 0.5)
    hertz = 5 + 0.8 * np.interp(times, steps, rng.normal(size=len(steps)))
    height = 1 + 0.4 * np.interp(times, steps, rng.normal(size=len(steps)))
    phase = 2 * np.pi * np.cumsum(hertz) / rate
    wave = height * np.sin(phase) + 0.35 * np.sin(1.7 * phase + 1)
    return millivolts * wave + rng.normal(0, 0.01, len(times))


def flutter(seconds: float, rate: float, per_minute: float, seed: int = 0) -> Floats:
    """Waves of 0.8 mV nearly like a sine, (samples,)."""
    phase = 2 * np.pi * per_minute / 60 * np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.01, len(phase))
    return 0.8 * np.sin(phase) + 0.1 * np.sin(2 * phase) + noise


def torsades(seconds: float, rate: float, seed: int = 0) -> Floats:
    """Waves at 216/min whose height swells, fades and turns over, (samples,)."""
    times = np.arange(round(seconds * rate)) / rate
    envelope = np.sin(2 * np.pi * times / 8)
    height = np.sign(envelope) * (0.2 + 1.2 * np.abs(envelope))
    noise = np.random.default_rng(seed).normal(0, 0.01, len(times))
    return height * np.sin(2 * np.pi * 3.6 * times) + noise


def write_marks(header: Path, marks: Sequence[tuple[int, str]]) -> None:
    """Write the .atr file of a record: where each rhythm begins (sample), and its name."""
    words = bytearray()
    last = 0
    for sample, name in marks:
        text = f"({name}".encode()
        step = sample - last
        last = sample
        words += struct.pack("<HHHH", 59 << 10, step >> 16, step & 0xFFFF, 28 << 10)
        words += struct.pack("<H", 63 << 10 | len(text)) + text + bytes(len(text) % 2)
    header.with_suffix(".atr").write_bytes(bytes(words) + b"\0\0")


def write_unannotated(header: Path, millivolts: NDArray[np.floating], rate: float) -> None:
    """Write a record of two leads, without an .atr file."""
    write_wfdb(header, millivolts, rate, ("II", "V1"), np.zeros(0, np.int64), [])
    header.with_suffix(".atr").unlink()


def write_ventricular_record(header: Path, seed: int, rate: float = 250.0) -> list[tuple[int, str]]:
    """Write a record of 80 s: a normal rhythm, tachycardia, a normal rhythm, fibrillation; return its
    marks."""
    lead = generate(80.0, rate, seed=seed).millivolts[:, 0].astype(np.float64)
    parts = [("N", 0), ("VT", 20), ("N", 40), ("VF", 60)]
    for name, begin in parts:
        first = round(begin * rate)
        if name == "VT":
            lead[first : first + round(20 * rate)] = wide_beats(20, rate, 150, seed)
        elif name == "VF":
            lead[first:] = fibrillation((len(lead) - first) / rate, rate, 0.5, seed)[: len(lead) - first]
    marks = [(round(begin * rate), name) for name, begin in parts]
    write_unannotated(header, np.stack([lead, 0.8 * lead], axis=1), rate)
    write_marks(header, marks)
    return marks


def wide_beats(seconds: float, rate: float, per_minute: float, seed: int = 0) -> Floats:
    """Ventricular tachycardia: wide complexes, each with a T wave the other way, (samples,)."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    period = 60 / per_minute
    lead = rng.normal(0, 0.01, len(times))
    for peak in np.arange(0.1, seconds, period):
        t = times - peak - rng.normal(0, 0.003)
        lead += 1.3 * np.exp(-((t / 0.045) ** 2) / 2) - 0.45 * np.exp(-(((t - 0.19) / 0.06) ** 2) / 2)
    return lead
